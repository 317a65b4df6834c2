/* A connection: accepted, identified, handed to a token process, ended. */
#include "attestd/tokend/internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/base/log.h"
#include "attestd/proc/listen.h"
#include "attestd/tokend/own.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

/* ---- a user's share
 * ------------------------------------------------------------------------------ */

/* NULL: every user that has a place has connections, too. */
static struct uid_share *share_of(struct tokend *tokend, uid_t uid)
{
    struct uid_share *spare = NULL;
    for (size_t i = 0; i < UIDS_MAX; i++) {
        struct uid_share *share = &tokend->shares[i];
        if (share->used && share->uid == uid) {
            return share;
        }
        if (share->used && share->connections) {
            continue;
        }
        if (!spare || !share->used || (spare->used && share->filled_at_ms < spare->filled_at_ms)) {
            spare = spare && !spare->used ? spare : share;
        }
    }
    if (spare) {
        *spare = (struct uid_share){.uid = uid,
                                    .filled_at_ms = att_boottime_ms(),
                                    .saved_ms = UID_BURST * 1000 / UID_RATE,
                                    .used = true};
    }
    return spare;
}

/* Somebody who can make us write a line does not make us write one each time. */
bool tokend_worth_a_line(struct tokend_told *told, unsigned *ret_left_out)
{
    int64_t now = att_boottime_ms();
    if (told->at_ms && now - told->at_ms < TOLD_MS) {
        told->left_out++;
        return false;
    }
    *ret_left_out = told->left_out;
    *told = (struct tokend_told){now, 0};
    return true;
}

/* Cheap, and before anything is hashed or forked. NULL: welcome; else why not. */
static const char *refusal(struct tokend *tokend, struct uid_share *share)
{
    if (!share || tokend->connections >= tokend->opts.connections_max) {
        return "too many connections in all";
    }
    if (share->connections >= tokend->opts.per_uid_max) {
        return "too many connections of this user";
    }
    const int64_t cost = 1000 / UID_RATE, most = cost * UID_BURST;
    int64_t now = att_boottime_ms();
    share->saved_ms += now - share->filled_at_ms;
    share->saved_ms = share->saved_ms > most ? most : share->saved_ms;
    share->filled_at_ms = now;
    if (share->saved_ms < cost) {
        return "this user connects too fast";
    }
    share->saved_ms -= cost;
    return NULL;
}

static struct tokend_slab conn_slab = {sizeof(struct conn), NULL};

/* No longer one of those that are nobody's, or not yet anybody's. */
static void prove(struct conn *conn)
{
    conn->tokend->unproven -= conn->unproven;
    conn->share->unproven -= conn->unproven;
    conn->unproven = false;
}

/* ---- the end
 * --------------------------------------------------------------------------------------- */

void tokend_conn_end(struct conn *conn)
{
    struct tokend *tokend = conn->tokend;
    if (conn->dead) {
        return;
    }
    conn->dead = true;
    tokend->any_dead = true;
    if (conn->unproven) { /* its process takes a moment to go */
        conn->share->unknown -= conn->unknown;
        conn->unknown = false;
        prove(conn);
    }
    tokend_call_forget(conn->call);
    conn->call = NULL;
    tokend_entries_forget(conn);
    tokend_loop_remove(&tokend->loop, &conn->channel_source);
    tokend_loop_remove(&tokend->loop, &conn->pid_source);
    att_close(&conn->channel);
    att_close(&conn->pidfd);
    proc_close_client(&conn->client);
    if (conn->child > 0) {
        kill(conn->child, SIGKILL); /* ours until it is reaped: the pid cannot be another's */
    }
}

static void conn_free(struct conn *conn)
{
    struct tokend *tokend = conn->tokend;
    if (conn->state == CONN_LINGERING) {
        tokend->lingering--;
    } else {
        prove(conn);
        tokend->connections--;
        conn->share->connections--;
        conn->share->unknown -= conn->unknown;
    }
    if (conn->agent) {
        conn->agent->changed -= conn->changed || conn->unassigned;
        tokend_agent_leave(conn->agent);
        tokend->report.changed = true;
    }
    att_buf_done(&conn->out);
    tokend_slab_give(&conn_slab, conn);
}

void tokend_conn_sweep(struct tokend *tokend)
{
    if (!tokend->any_dead) {
        return;
    }
    tokend->any_dead = false;
    for (struct conn **at = &tokend->conns; *at;) {
        struct conn *conn = *at;
        if (conn->dead && conn->child <= 0) {
            *at = conn->next;
            conn_free(conn);
        } else {
            at = &conn->next;
        }
    }
}

static void log_child(const struct conn *conn, int status)
{
    if (WIFSIGNALED(status) && !(conn->dead && WTERMSIG(status) == SIGKILL)) {
        conn->tokend->counts.died++;
        att_log(ATT_WARN, "tokend.token-died", ATT_N("pid", conn->pid), ATT_N("uid", conn->uid),
                ATT_S("agent", conn->agent ? conn->agent->name : ""),
                ATT_N("signal", WTERMSIG(status)));
    } else if (WIFEXITED(status) && WEXITSTATUS(status)) {
        att_log(ATT_ERROR, "tokend.token-failed", ATT_N("pid", conn->pid), ATT_N("uid", conn->uid),
                ATT_N("status", WEXITSTATUS(status)));
    }
}

void tokend_conn_reap(struct tokend *tokend)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        for (struct conn *conn = tokend->conns; conn; conn = conn->next) {
            if (conn->child == pid) {
                log_child(conn, status);
                conn->child = 0;
                tokend_conn_end(conn);
                tokend->any_dead = true;
                break;
            }
        }
    }
}

static void end_oldest_lingering(struct tokend *tokend)
{
    struct conn *oldest = NULL;
    for (struct conn *conn = tokend->conns; conn; conn = conn->next) {
        if (conn->state == CONN_LINGERING && !conn->dead &&
            (!oldest || conn->since_ms < oldest->since_ms)) {
            oldest = conn;
        }
    }
    if (oldest) {
        tokend_conn_end(oldest);
    }
}

/* p11-kit's client has no guard against SIGPIPE: a socket that is closed while it writes its first
 * byte would end the whole program. So a refusal shows as an end of our side only, and the rest
 * follows when the client has closed, or after a while. */
static void linger(struct conn *conn)
{
    struct tokend *tokend = conn->tokend;
    tokend->counts.refused++;
    if (tokend->lingering >= LINGERING_MAX) { /* it has had the most time to see it */
        end_oldest_lingering(tokend);
    }
    tokend_call_forget(conn->call);
    conn->call = NULL;
    prove(conn);
    tokend->connections--;
    conn->share->connections--;
    conn->share->unknown -= conn->unknown;
    conn->unknown = false;
    conn->state = CONN_LINGERING;
    conn->since_ms = att_boottime_ms();
    tokend->lingering++;
    tokend_loop_remove(&tokend->loop, &conn->pid_source);
    att_close(&conn->pidfd);
    shutdown(conn->client, SHUT_WR);
}

void tokend_conn_tick(struct tokend *tokend)
{
    int64_t now = att_boottime_ms();
    for (struct conn *conn = tokend->conns; conn; conn = conn->next) {
        if (conn->state == CONN_LINGERING && now - conn->since_ms > LINGER_MS) {
            tokend_conn_end(conn);
        }
    }
}

/* ---- the token's requests
 * ----------------------------------------------------------------------------- */

/* True when all of it went; what did not stays for flush_out. */
static bool send_now(struct conn *conn, struct att_slice bytes, size_t *ret_sent)
{
    size_t sent = 0;
    while (sent < bytes.len) {
        ssize_t put =
            send(conn->channel, bytes.ptr + sent, bytes.len - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            *ret_sent = sent;
            return false;
        }
        sent += (size_t)put;
    }
    return true;
}

static void flush_out(struct conn *conn)
{
    size_t sent = 0;
    struct att_slice rest = {conn->out.ptr + conn->out_at, conn->out.len - conn->out_at};
    if (send_now(conn, rest, &sent)) {
        att_buf_done(&conn->out);
        conn->out_at = 0;
        tokend_loop_change(&conn->tokend->loop, &conn->channel_source, EPOLLIN);
        return;
    }
    conn->out_at += sent;
    if (errno != EAGAIN && errno != EWOULDBLOCK) {
        tokend_conn_end(conn);
    }
}

static void reply_payload(struct conn *conn, struct att_slice payload)
{
    struct att_buf *frame = &conn->tokend->frame;
    size_t sent = 0;
    conn->wait = WAIT_NOTHING;
    att_buf_reset(frame);
    if (proc_frame_encode(conn->frame_id, (uint16_t)(conn->frame_op | PROC_REPLY), payload, frame,
                          NULL) != ATT_OK) {
        tokend_conn_end(conn);
        return;
    }
    if (send_now(conn, att_buf_slice(frame), &sent)) {
        return;
    }
    bool later = errno == EAGAIN || errno == EWOULDBLOCK;
    conn->out = ATT_BUF_INIT(PROC_FRAME_MAX + 4);
    att_buf_put(&conn->out, frame->ptr + sent, frame->len - sent);
    if (!later || att_buf_ok(&conn->out, NULL) != ATT_OK) {
        tokend_conn_end(conn);
        return;
    }
    tokend_loop_change(&conn->tokend->loop, &conn->channel_source, EPOLLIN | EPOLLOUT);
}

void tokend_conn_reply(struct conn *conn, const struct proc_value *values)
{
    struct att_buf *payload = &conn->tokend->payload;
    struct att_err err = {0};
    const struct proc_op *op = proc_op_find(tokend_inner_table, conn->frame_op);
    enum att_rc rc = proc_reply_encode(op, values, payload, &err);
    if (rc != ATT_OK) {
        tokend_conn_reply_err(conn, rc, &err);
        return;
    }
    reply_payload(conn, att_buf_slice(payload));
}

void tokend_conn_reply_err(struct conn *conn, enum att_rc rc, const struct att_err *err)
{
    struct att_buf *payload = &conn->tokend->payload;
    unsigned left_out;
    conn->tokend->counts.refusals +=
        conn->frame_op == TOKEND_INNER_SIGN || conn->frame_op == TOKEND_INNER_SIGN_RSA;
    /* Only agents' tokens ask; "no certificate" is no refusal. */
    if (rc != ATT_E_NOTFOUND && tokend_worth_a_line(&conn->agent->told, &left_out)) {
        att_log(ATT_INFO, "tokend.refused", ATT_N("pid", conn->pid),
                ATT_S("agent", conn->agent->name), ATT_S("code", att_rc_name(rc)),
                ATT_S("reason", err ? err->reason : ""), ATT_S("message", err ? err->msg : ""),
                ATT_N("leftOut", left_out));
    }
    proc_reply_encode_err(rc, err, payload);
    reply_payload(conn, att_buf_slice(payload));
}

/* One request at a time: a token waits for its answer. So one that was taken over gets one answer a
 * turn, as everybody does, and makes us keep one answer at most. */
bool tokend_conn_requests(struct conn *conn)
{
    struct att_cur cur = att_cur_init(ATT_SLICE(conn->in, conn->in_len));
    size_t len = att_cur_be32(&cur);
    struct proc_frame frame;
    if (conn->in_len < 4 || (len <= sizeof conn->in - 4 && conn->in_len < len + 4)) {
        return true;
    }
    if (conn->in_len != len + 4 || conn->out.len || conn->wait != WAIT_NOTHING ||
        proc_frame_parse(ATT_SLICE(conn->in + 4, len), &frame, NULL) != ATT_OK) {
        return false;
    }
    conn->in_len = 0;
    return tokend_request(conn, &frame);
}

static void channel_ready(struct tokend_source *source, uint32_t events)
{
    struct conn *conn = source->owner;
    if ((events & EPOLLOUT) && conn->out.len) {
        flush_out(conn);
    }
    if (conn->dead || !(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
        return;
    }
    ssize_t got =
        recv(conn->channel, conn->in + conn->in_len, sizeof conn->in - conn->in_len, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
        return;
    }
    if (got <= 0) {
        tokend_conn_end(conn);
        return;
    }
    conn->in_len += (size_t)got;
    if (!tokend_conn_requests(conn) && !conn->dead) {
        tokend_conn_end(conn);
    }
}

/* The process that connected has ended; what it left behind (a child with the socket) is nobody. */
static void pid_ready(struct tokend_source *source, uint32_t events)
{
    (void)events;
    tokend_conn_end(source->owner);
}

/* ---- the token's birth
 * ------------------------------------------------------------------------------------ */

static void start_token(struct conn *conn)
{
    struct tokend *tokend = conn->tokend;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
        att_log(ATT_ERROR, "tokend.no-socket", ATT_S("message", strerror(errno)));
        linger(conn);
        return;
    }
    conn->channel = ends[0];
    /* The child has neither conn nor tokend (own.h). */
    const struct tokend_token token = {tokend->token_sandbox, conn->client, ends[1], conn->pid,
                                       conn->unknown};
    pid_t child = fork();
    if (child == 0) {
        tokend_token_main(&token);
    }
    close(ends[1]);
    if (child < 0) { /* no more processes: the next connection may find some */
        att_log(ATT_ERROR, "tokend.no-process", ATT_S("message", strerror(errno)));
        att_close(&conn->channel);
        linger(conn);
        return;
    }
    conn->child = child;
    if (tokend_loop_add(&tokend->loop, &conn->channel_source, conn->channel, EPOLLIN, NULL) !=
        ATT_OK) {
        att_log(ATT_ERROR, "tokend.no-watch", ATT_S("message", strerror(errno)));
        tokend_conn_end(conn);
        return;
    }
    conn->state = CONN_SERVING;
    att_close(&conn->client);
}

static void no_agent(struct conn *conn, const struct att_err *err)
{
    struct tokend *tokend = conn->tokend;
    att_log(ATT_DEBUG, "tokend.no-agent", ATT_N("pid", conn->pid), ATT_N("uid", conn->uid),
            ATT_S("reason", err->reason), ATT_S("message", err->msg));
    if (conn->share->unknown >= tokend->opts.unknown_per_uid_max) {
        linger(conn);
        return;
    }
    conn->unknown = true;
    conn->share->unknown++;
    start_token(conn);
}

static void identify(struct conn *conn);

static void identified(void *user, enum att_rc rc, const struct proc_msg *reply,
                       const struct att_err *err)
{
    struct conn *conn = user;
    conn->call = NULL;
    if ((rc == ATT_OK || rc == ATT_E_DENIED || rc == ATT_E_NOTFOUND) &&
        conn->entries != conn->tokend->entries.now) { /* decided by others */
        identify(conn);
        return;
    }
    if (rc == ATT_E_DENIED || rc == ATT_E_NOTFOUND) {
        no_agent(conn, err);
        return;
    }
    if (rc == ATT_OK) {
        conn->agent =
            tokend_agent_join(conn->tokend, reply->v[PROC_WORKLOAD_IDENTIFY_REP_AGENT].bytes);
    }
    if (!conn->agent) { /* attestd or whod is away, or busy: the caller may connect again */
        att_log(ATT_WARN, "tokend.not-identified", ATT_N("pid", conn->pid), ATT_N("uid", conn->uid),
                ATT_S("code", att_rc_name(rc)), ATT_S("message", err->msg));
        linger(conn);
        return;
    }
    prove(conn);
    memcpy(conn->identity, reply->v[PROC_WORKLOAD_IDENTIFY_REP_IDENTITY].bytes.ptr,
           sizeof conn->identity);
    conn->same_at_ms = att_boottime_ms();
    conn->tokend->report.changed = true;
    att_log(ATT_DEBUG, "tokend.connected", ATT_N("pid", conn->pid), ATT_N("uid", conn->uid),
            ATT_S("agent", conn->agent->name));
    start_token(conn);
}

/* ---- accepting
 * -----------------------------------------------------------------------------------------------
 */

/* The socket's own pidfd where the kernel has it; else one by number, with the time of accept, so
 * that a process that began later under the same number is not taken for the caller. */
static int pidfd_of(int client, pid_t pid, int64_t *ret_accepted_ms)
{
    int pidfd = -1;
    socklen_t len = sizeof pidfd;
    *ret_accepted_ms = 0;
    if (getsockopt(client, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0) {
        return pidfd;
    }
    if (errno != ENOPROTOOPT) { /* it has ended: its number may be another's by now */
        return -1;
    }
    *ret_accepted_ms = att_boottime_ms();
    pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd >= 0) {
        (void)fcntl(pidfd, F_SETFD, FD_CLOEXEC);
    }
    return pidfd;
}

static struct conn *conn_new(struct tokend *tokend, int client, const struct ucred *cred,
                             struct uid_share *share)
{
    struct conn *conn = tokend_slab_take(&conn_slab);
    if (!conn) {
        return NULL;
    }
    conn->tokend = tokend;
    conn->client = client;
    conn->pid = cred->pid;
    conn->uid = cred->uid;
    conn->share = share;
    conn->channel = conn->pidfd = -1;
    conn->channel_source = (struct tokend_source){-1, channel_ready, conn};
    conn->pid_source = (struct tokend_source){-1, pid_ready, conn};
    conn->next = tokend->conns;
    tokend->conns = conn;
    conn->unproven = true;
    tokend->connections++;
    tokend->unproven++;
    share->connections++;
    share->unproven++;
    return conn;
}

static void identify(struct conn *conn)
{
    struct tokend *tokend = conn->tokend;
    struct att_err err = {0};
    const struct proc_value values[] = {
        {.num = (uint64_t)conn->pid},
        {.num = (uint64_t)conn->accepted_ms},
        {.bytes = ATT_SLICE_LIT("pkcs11")},
    };
    conn->entries = tokend->entries.now;
    enum att_rc rc =
        tokend_upstream_call(tokend->attestd, PROC_WORKLOAD_IDENTIFY, values, conn->pidfd,
                             &conn->share->fair, IDENTIFY_MS, identified, conn, &conn->call, &err);
    if (rc != ATT_OK) {
        att_log_err(ATT_ERROR, "tokend.identify", &err);
        linger(conn);
    }
}

/* Nobody's place is taken yet: without a share there is nothing to count it by. */
static void turn_away(struct tokend *tokend, int client)
{
    tokend->counts.refused++;
    shutdown(client, SHUT_WR);
    proc_close_client(&client);
}

static unsigned held(const struct uid_share *share, bool unknown)
{
    return unknown ? share->unknown : share->unproven;
}

/* Of the user who has most of them, if that is more than the newcomer's has. NULL: it is not. */
static struct conn *oldest_to_give_back(struct tokend *tokend, const struct uid_share *newcomer,
                                        bool unknown)
{
    const struct uid_share *most = newcomer;
    struct conn *oldest = NULL;
    for (size_t i = 0; i < UIDS_MAX; i++) {
        const struct uid_share *share = &tokend->shares[i];
        most = share->used && held(share, unknown) > held(most, unknown) ? share : most;
    }
    for (struct conn *conn = most == newcomer ? NULL : tokend->conns; conn; conn = conn->next) {
        bool one = conn->share == most && (unknown ? conn->unknown : conn->unproven);
        oldest = one && !conn->dead ? conn : oldest; /* the newest stand first */
    }
    return oldest;
}

/* Those that are nobody's agent, or not known yet, have a part of the places only. When it is
 * taken, the user who has the most gives the oldest back, first of those that are known to be
 * nobody's. False: the newcomer's is that user. */
static bool make_room(struct tokend *tokend, const struct uid_share *newcomer)
{
    if (tokend->unproven < tokend->opts.unproven_max) {
        return true;
    }
    struct conn *oldest = oldest_to_give_back(tokend, newcomer, true);
    oldest = oldest ? oldest : oldest_to_give_back(tokend, newcomer, false);
    if (!oldest) {
        return false;
    }
    if (oldest->state == CONN_IDENTIFYING) {
        linger(oldest);
    } else {
        tokend_conn_end(oldest);
    }
    return true;
}

/* p11-kit's client writes one byte and waits for ours. What came before we looked at the writer may
 * be a process's that ended since, whose pid is another's now: writes carry numbers, and without
 * SO_PEERPIDFD we hold whom the number means today. */
static bool wrote_ahead(int client)
{
    int waiting = 0;
    return ioctl(client, FIONREAD, &waiting) != 0 || waiting > 1;
}

static void refuse(struct conn *conn, const char *why)
{
    unsigned left_out;
    if (tokend_worth_a_line(&conn->share->told, &left_out)) {
        att_log(ATT_WARN, "tokend.limit", ATT_N("pid", conn->pid), ATT_N("uid", conn->uid),
                ATT_S("message", why), ATT_N("leftOut", left_out));
    }
    linger(conn);
}

void tokend_conn_accepted(struct tokend *tokend, int client)
{
    struct ucred cred;
    socklen_t len = sizeof cred;
    tokend->counts.accepted++;
    if (getsockopt(client, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0 || cred.pid <= 0) {
        turn_away(tokend, client); /* another PID namespace that is not below ours */
        return;
    }
    struct uid_share *share = share_of(tokend, cred.uid);
    const char *why = refusal(tokend, share);
    if (!why && !make_room(tokend, share)) {
        why = "too many connections that are nobody's agent";
    }
    struct conn *conn = share ? conn_new(tokend, client, &cred, share) : NULL;
    if (!conn) {
        turn_away(tokend, client);
        return;
    }
    if (why) {
        refuse(conn, why);
        return;
    }
    conn->pidfd = pidfd_of(client, conn->pid, &conn->accepted_ms);
    if (conn->pidfd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM)) {
        refuse(conn, "no descriptor is left");
        return;
    }
    if (conn->pidfd < 0 ||
        tokend_loop_add(&tokend->loop, &conn->pid_source, conn->pidfd, EPOLLIN, NULL) != ATT_OK) {
        tokend_conn_end(conn); /* the caller has ended already */
        return;
    }
    if (wrote_ahead(client)) {
        refuse(conn, "more than a version came before ours");
        return;
    }
    identify(conn);
}
