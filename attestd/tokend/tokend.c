/* Birth, turns and end of a tokend. */
#include "attestd/tokend/internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/base/log.h"
#include "attestd/proc/listen.h"
#include "attestd/proc/links.h"
#include "attestd/tokend/own.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPT_BATCH 16
#define TICK_BUSY_MS 50
#define TICK_IDLE_MS 1000

static void listen_ready(struct tokend_source *source, uint32_t events)
{
    struct tokend *tokend = source->owner;
    (void)events;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int client = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0) {
            /* Out of descriptors: the socket stays readable, and we would ask it for ever. */
            if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
                unsigned left_out;
                if (tokend_worth_a_line(&tokend->deaf_told, &left_out)) {
                    att_log(ATT_WARN, "tokend.deaf", ATT_S("message", strerror(errno)),
                            ATT_N("leftOut", left_out));
                }
                tokend->deaf = true;
                tokend_loop_change(&tokend->loop, source, 0);
            }
            return;
        }
        tokend_conn_accepted(tokend, client);
    }
}

/* Nobody holds more than his part of the links: while one user's executable is read (which may take
 * as long as its file system likes), others are identified; while one agent's signatures wait for
 * the keys, another's finds a link. A vendor's module may not come back for as long as it likes:
 * those whose keys are in it share links of their own (hsms.c). What agents have is asked over
 * links of its own, so that no newcomer delays it. */
static enum att_rc make_upstreams(struct tokend *tokend, struct att_err *err)
{
    const struct {
        struct tokend_upstream **ret;
        struct tokend_upstream_opts opts;
    } all[] = {
        {&tokend->attestd,
         {&tokend->loop, tokend->opts.workload_path, "attestd", tokend->opts.attestd_user,
          proc_workload_table, PROC_LINKS_TOKEND_IDENTIFY, 1, GAP_MS}},
        {&tokend->views,
         {&tokend->loop, tokend->opts.workload_path, "attestd", tokend->opts.attestd_user,
          proc_workload_table, PROC_LINKS_TOKEND_VIEWS, 1, GAP_MS}},
        {&tokend->changes,
         {&tokend->loop, tokend->opts.workload_path, "attestd", tokend->opts.attestd_user,
          proc_workload_table, PROC_LINKS_TOKEND_CHANGES, 0, GAP_MS}},
        {&tokend->whod,
         {&tokend->loop, tokend->opts.whod_path, "whod", tokend->opts.whod_user, proc_who_table,
          PROC_LINKS_TOKEND_SAME, 1, GAP_MS}},
        {&tokend->keyd,
         {&tokend->loop, tokend->opts.keyd_path, "keyd", tokend->opts.keyd_user, proc_sign_table,
          PROC_LINKS_TOKEND_KEYD, 3, GAP_MS}},
    };
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < sizeof all / sizeof all[0]; i++) {
        rc = tokend_upstream_new(&all[i].opts, all[i].ret, err);
    }
    return rc;
}

/* What a token process would otherwise set up for itself, in memory of its own. */
static void warm_up(void)
{
    OPENSSL_init_crypto(OPENSSL_INIT_NO_ATEXIT | OPENSSL_INIT_LOAD_CRYPTO_STRINGS, NULL);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (ctx) {
        (void)EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);
    }
    EVP_MD_CTX_free(ctx);
}

enum att_rc tokend_new(const struct tokend_opts *opts, struct tokend **ret_tokend,
                       struct att_err *err)
{
    struct tokend *tokend = tokend_own_new(sizeof *tokend);
    const int on = 1;
    if (!tokend) {
        return att_fail(err, ATT_E_NOMEM, "tokend");
    }
    tokend->opts = *opts;
    tokend->report.started_at = att_now_utc_s();
    tokend->payload = tokend_own_buf(PROC_FRAME_MAX);
    tokend->frame = tokend_own_buf(PROC_FRAME_MAX + 4);
    tokend->loop.epoll = -1;
    tokend->listen_source = (struct tokend_source){-1, listen_ready, tokend};
    warm_up();
    /* Accepted sockets inherit it: each write comes with its writer's pid from the first byte on.
     */
    enum att_rc rc = setsockopt(opts->listen_fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0
                         ? proc_listen_no_descriptors(opts->listen_fd, err)
                         : att_fail_errno(err, ATT_E_IO, "SO_PASSCRED");
    rc = rc ? rc : tokend_loop_init(&tokend->loop, err);
    if (rc == ATT_OK) {
        rc = make_upstreams(tokend, err);
    }
    if (rc == ATT_OK) {
        rc = proc_sandbox_prepare(PROC_PROFILE_TOKEN, &tokend->token_sandbox, err);
    }
    if (rc == ATT_OK) {
        rc = tokend_loop_add(&tokend->loop, &tokend->listen_source, opts->listen_fd, EPOLLIN, err);
    }
    if (rc != ATT_OK) {
        tokend_free(tokend);
        return rc;
    }
    *ret_tokend = tokend;
    return ATT_OK;
}

void tokend_free(struct tokend *tokend)
{
    if (!tokend) {
        return;
    }
    for (struct conn *conn = tokend->conns; conn; conn = conn->next) {
        tokend_conn_end(conn);
    }
    for (int i = 0; i < 100 && tokend->conns; i++) { /* killed: they are gone in no time */
        tokend_conn_reap(tokend);
        tokend->any_dead = true;
        tokend_conn_sweep(tokend);
        if (tokend->conns) {
            usleep(10000);
        }
    }
    tokend_upstream_free(tokend->attestd);
    tokend_upstream_free(tokend->views);
    tokend_upstream_free(tokend->changes);
    tokend_upstream_free(tokend->whod);
    tokend_upstream_free(tokend->keyd);
    tokend_hsms_free(tokend);
    tokend_loop_remove(&tokend->loop, &tokend->listen_source);
    tokend_loop_done(&tokend->loop);
    proc_sandbox_ready_done(&tokend->token_sandbox);
    tokend_own_buf_free(&tokend->payload);
    tokend_own_buf_free(&tokend->frame);
    tokend_own_free(tokend, sizeof *tokend);
}

static bool woken;

static void wake(struct tokend_source *source, uint32_t events)
{
    (void)source;
    (void)events;
    woken = true;
}

enum att_rc tokend_wake_by(struct tokend *tokend, int fd, struct att_err *err)
{
    static struct tokend_source source = {-1, wake, NULL};
    return tokend_loop_add(&tokend->loop, &source, fd, EPOLLIN, err);
}

static bool busy(const struct tokend *tokend)
{
    return tokend->deaf || tokend->entries.pending || tokend->lingering ||
           tokend_upstream_busy(tokend->attestd) || tokend_upstream_busy(tokend->views) ||
           tokend_upstream_busy(tokend->whod) || tokend_upstream_busy(tokend->keyd) ||
           tokend_hsms_busy(tokend);
}

bool tokend_turn(struct tokend *tokend)
{
    static int64_t ticked_at_ms;
    woken = false;
    tokend_loop_run(&tokend->loop, busy(tokend) ? TICK_BUSY_MS : TICK_IDLE_MS);
    int64_t now = att_boottime_ms();
    if (now - ticked_at_ms >= TICK_BUSY_MS) {
        ticked_at_ms = now;
        tokend_upstream_tick(tokend->attestd);
        tokend_upstream_tick(tokend->views);
        tokend_upstream_tick(tokend->changes);
        tokend_entries_tick(tokend);
        tokend_upstream_tick(tokend->whod);
        tokend_upstream_tick(tokend->keyd);
        tokend_hsms_tick(tokend);
        tokend_conn_tick(tokend);
        if (tokend->deaf) {
            tokend->deaf = false;
            tokend_loop_change(&tokend->loop, &tokend->listen_source, EPOLLIN);
        }
        tokend_report_tick(tokend);
    }
    tokend_conn_sweep(tokend);
    return woken;
}

void tokend_child_signal(struct tokend *tokend)
{
    tokend_conn_reap(tokend);
}

void tokend_status(const struct tokend *tokend, char *ret, unsigned long room)
{
    unsigned agents = 0;
    for (const struct agent *agent = tokend->agents; agent; agent = agent->next) {
        agents++;
    }
    snprintf(ret, room, "%u connections, %u agents", tokend->connections, agents);
}
