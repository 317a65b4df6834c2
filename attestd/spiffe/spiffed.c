/* Birth, steps and end of a spiffed. */
#include "attestd/spiffe/service.h"

#include "attestd/base/clock.h"
#include "attestd/base/log.h"
#include "attestd/proc/listen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define IDENTIFY_MS 5000 /* attestd may have to hash an executable */
#define VIEW_MS     3000
#define TOKEN_MS    20000 /* attestd waits for others, and for the issuer */
#define SAME_MS     2000
#define SIGN_MS     15000 /* a slow TPM with a queue */

static const struct grpc_handler handler = {.request = spiffed_request,
                                            .ended = spiffed_ended,
                                            .closed = spiffed_peer_closed,
                                            .answered = spiffed_peer_answered,
                                            .begin = spiffed_begin,
                                            .end = spiffed_end_of_call,
                                            .waits = spiffed_waits,
                                            .cut = spiffed_peer_cut};

static void on_accept(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    spiffed_accept(arg);
}

/* What waits for a second try, and, once a second, who does not read. */
static void on_step(evutil_socket_t fd, short what, void *arg)
{
    struct spiffed *spiffed = arg;
    int64_t now = att_boottime_ms();
    bool tick = now - spiffed->ticked_ms >= 1000;
    struct peer *next;
    (void)fd;
    (void)what;
    spiffed->ticked_ms = tick ? now : spiffed->ticked_ms;
    event_add(spiffed->accepting, NULL);
    spiffed_watch(spiffed);
    spiffed_jwt_step(spiffed);
    for (struct peer *peer = spiffed->peers; peer; peer = next) {
        next = peer->next;
        spiffed_peer_pump(peer);
        spiffed_peer_step(peer, tick);
        if (tick) {
            grpc_conn_tick(peer->conn);
        }
    }
}

/* Whoever asks for long holds no other's thread: decisions, checks, what agents have, signatures of
 * the TPM and those of an HSM have threads of their own. */
static enum att_rc make_asks(struct spiffed *spiffed, struct att_err *err)
{
    const struct spiffed_opts *o = &spiffed->opts;
    const struct {
        struct ask **ret;
        struct ask_opts opts;
    } all[] = {
        {&spiffed->who,
         {o->base, o->workload_path, "attestd", o->attestd_user, proc_workload_table, IDENTIFY_MS,
          PROC_LINKS_SPIFFED_IDENTIFY}},
        {&spiffed->again, /* after a change all are asked about at once; newcomers do not wait */
         {o->base, o->workload_path, "attestd", o->attestd_user, proc_workload_table, IDENTIFY_MS,
          PROC_LINKS_SPIFFED_AGAIN}},
        {&spiffed->views,
         {o->base, o->workload_path, "attestd", o->attestd_user, proc_workload_table, VIEW_MS,
          PROC_LINKS_SPIFFED_VIEWS}},
        {&spiffed->tokens, /* the issuer may be long in answering */
         {o->base, o->workload_path, "attestd", o->attestd_user, proc_workload_table, TOKEN_MS,
          PROC_LINKS_SPIFFED_TOKENS}},
        {&spiffed->watch,
         {o->base, o->workload_path, "attestd", o->attestd_user, proc_workload_table,
          PROC_CHANGES_WAIT_MS + VIEW_MS, PROC_LINKS_SPIFFED_WATCH}},
        {&spiffed->same,
         {o->base, o->whod_path, "whod", o->whod_user, proc_who_table, SAME_MS,
          PROC_LINKS_SPIFFED_SAME}},
        {&spiffed->keyd,
         {o->base, o->keyd_path, "keyd", o->keyd_user, proc_sign_table, SIGN_MS,
          PROC_LINKS_SPIFFED_KEYD}},
    };
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < sizeof all / sizeof all[0]; i++) {
        rc = ask_new(&all[i].opts, all[i].ret, err);
    }
    return rc;
}

/* A module that does not come back holds its own thread only. It is made for the first agent whose
 * key is in it, and stays. NULL: no memory. */
struct ask *spiffed_hsm(struct spiffed *spiffed, const char *module)
{
    const struct spiffed_opts *o = &spiffed->opts;
    const struct ask_opts opts = {
        o->base, o->keyd_path,          "keyd", o->keyd_user, proc_sign_table,
        SIGN_MS, PROC_LINKS_SPIFFED_HSM};
    size_t i = 0;
    while (i < PROC_LINKS_HSMS_MAX - 1 && spiffed->hsms[i].keyd &&
           strcmp(spiffed->hsms[i].module, module) != 0) {
        i++; /* more names than a host has modules: of the last ones keyd knows nothing */
    }
    struct hsm *hsm = &spiffed->hsms[i];
    if (!hsm->keyd && ask_new(&opts, &hsm->keyd, NULL) == ATT_OK) {
        snprintf(hsm->module, sizeof hsm->module, "%s", module);
    }
    return hsm->keyd;
}

static enum att_rc make_events(struct spiffed *spiffed, struct att_err *err)
{
    const struct timeval step = {0, STEP_MS * 1000};
    struct event_base *base = spiffed->opts.base;
    spiffed->accepting =
        event_new(base, spiffed->opts.listen_fd, EV_READ | EV_PERSIST, on_accept, spiffed);
    spiffed->step = event_new(base, -1, EV_PERSIST, on_step, spiffed);
    return spiffed->accepting && spiffed->step && event_add(spiffed->accepting, NULL) == 0 &&
                   event_add(spiffed->step, &step) == 0
               ? ATT_OK
               : att_fail(err, ATT_E_NOMEM, "events");
}

enum att_rc spiffed_new(const struct spiffed_opts *opts, struct spiffed **ret_spiffed,
                        struct att_err *err)
{
    const int on = 1;
    struct spiffed *spiffed = calloc(1, sizeof *spiffed);
    if (!spiffed) {
        return att_fail(err, ATT_E_NOMEM, "spiffed");
    }
    spiffed->opts = *opts;
    spiffed->grpc = (struct grpc_opts){.base = opts->base,
                                       .methods = spiffed_methods,
                                       .handler = &handler,
                                       .slow_ms = opts->slow_ms,
                                       .hello_ms = HELLO_MS};
    /* Accepted sockets inherit it: each piece comes with its writer's pid from the first byte on.
     */
    enum att_rc rc = setsockopt(opts->listen_fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0
                         ? proc_listen_no_descriptors(opts->listen_fd, err)
                         : att_fail_errno(err, ATT_E_IO, "SO_PASSCRED");
    rc = rc ? rc : make_asks(spiffed, err);
    if (rc == ATT_OK) {
        rc = make_events(spiffed, err);
    }
    if (rc != ATT_OK) {
        spiffed_free(spiffed);
        return rc;
    }
    spiffed_watch(spiffed);
    *ret_spiffed = spiffed;
    return ATT_OK;
}

void spiffed_free(struct spiffed *spiffed)
{
    if (!spiffed) {
        return;
    }
    while (spiffed->peers) {
        grpc_conn_free(spiffed->peers->conn);
    }
    spiffed_bundle_done(&spiffed->bundle);
    spiffed_jwt_done(&spiffed->jwt);
    spiffed_federation_done(&spiffed->federation);
    spiffed_sds_done(&spiffed->sds);
    struct ask *asks[] = {spiffed->who,   spiffed->again, spiffed->views, spiffed->tokens,
                          spiffed->watch, spiffed->same,  spiffed->keyd};
    for (size_t i = 0; i < sizeof asks / sizeof asks[0]; i++) {
        ask_free(asks[i]);
    }
    for (size_t i = 0; i < PROC_LINKS_HSMS_MAX; i++) {
        ask_free(spiffed->hsms[i].keyd);
    }
    if (spiffed->accepting) {
        event_free(spiffed->accepting);
    }
    if (spiffed->step) {
        event_free(spiffed->step);
    }
    free(spiffed);
}

void spiffed_end(struct spiffed *spiffed)
{
    for (struct peer *peer = spiffed->peers; peer; peer = peer->next) {
        grpc_conn_cut(peer->conn, NULL);
    }
    event_del(spiffed->accepting);
    (void)event_base_loop(spiffed->opts.base, EVLOOP_NONBLOCK); /* GOAWAY */
}

void spiffed_status(const struct spiffed *spiffed, char *ret, size_t room)
{
    unsigned agents = 0;
    for (const struct agent *agent = spiffed->agents; agent; agent = agent->next) {
        agents++;
    }
    snprintf(ret, room, "%u connections, %u calls, %u agents", spiffed->connections, spiffed->calls,
             agents);
}
