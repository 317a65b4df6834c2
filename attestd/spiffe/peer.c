/* Connections: accepted within the limits of their user, ended. */
#include "attestd/spiffe/service.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/base/log.h"
#include "attestd/proc/listen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

#define ACCEPT_BATCH 16

/* ---- a user's share ------------------------------------------------------------------------ */

/* NULL: every user that has a place has connections, too. */
static struct share *share_of(struct spiffed *spiffed, uid_t uid)
{
    struct share *spare = NULL;
    for (size_t i = 0; i < UIDS_MAX; i++) {
        struct share *share = &spiffed->shares[i];
        if (share->used && share->uid == uid) {
            return share;
        }
        if (share->used && share->connections) {
            continue;
        }
        if (!spare || (spare->used && (!share->used || share->connects.filled_at_ms <
                                                           spare->connects.filled_at_ms))) {
            spare = share;
        }
    }
    if (spare) {
        int64_t now = att_boottime_ms();
        *spare = (struct share){.uid = uid, .used = true};
        rate_init(&spare->connects, UID_RATE, UID_BURST, now);
        rate_init(&spare->exports, UID_EXPORTS_RATE, UID_EXPORTS_BURST, now);
    }
    return spare;
}

bool spiffed_worth_a_line(struct share *share, unsigned *ret_left_out)
{
    int64_t now = att_boottime_ms();
    if (share->told_ms && now - share->told_ms < TOLD_MS) {
        share->left_out++;
        return false;
    }
    *ret_left_out = share->left_out;
    share->told_ms = now;
    share->left_out = 0;
    return true;
}

/* Cheap, and before anything is asked or hashed. NULL: welcome; else why not. */
static const char *refusal(const struct spiffed *spiffed, struct share *share)
{
    if (spiffed->connections >= spiffed->opts.connections_max) {
        return "too many connections in all";
    }
    if (share->connections >= spiffed->opts.per_uid_max) {
        return "too many connections of this user";
    }
    if (!spiffed_leaves_room(share->connections, spiffed->connections,
                             spiffed->opts.connections_max)) {
        return "too many connections of this user beside those of others";
    }
    if (!rate_take(&share->connects, UID_RATE, UID_BURST, att_boottime_ms())) {
        return "this user connects too fast";
    }
    return NULL;
}

/* ---- the end ------------------------------------------------------------------------------- */

void spiffed_peer_count(struct peer *peer, bool nobody)
{
    if (peer->nobody != nobody) {
        peer->nobody = nobody;
        peer->share->nobodies += nobody ? 1 : -1U;
        peer->spiffed->nobodies += nobody ? 1 : -1U;
    }
}

static void peer_free(struct peer *peer)
{
    spiffed_peer_count(peer, false);
    ask_forget(peer->asking);
    if (peer->ended) {
        event_free(peer->ended);
    }
    att_close(&peer->pidfd);
    spiffed_agent_leave(peer->agent);
    if (peer->at) {
        *peer->at = peer->next;
        if (peer->next) {
            peer->next->at = peer->at;
        }
        peer->share->connections--;
        peer->spiffed->connections--;
    }
    free(peer);
}

void spiffed_peer_closed(void *arg)
{
    peer_free(arg);
}

void spiffed_peer_cut(void *arg, const char *why)
{
    struct peer *peer = arg;
    unsigned left_out;
    peer->spiffed->cut++;
    if (spiffed_worth_a_line(peer->share, &left_out)) {
        att_log(ATT_WARN, "spiffed.cut", ATT_N("pid", peer->pid), ATT_N("uid", peer->uid),
                ATT_S("agent", peer->agent ? peer->agent->name : ""), ATT_S("message", why),
                ATT_N("leftOut", left_out));
    }
}

/* The process that connected has ended; what it left behind (a child with the socket) is nobody. */
static void on_ended(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    grpc_conn_cut(((struct peer *)arg)->conn, NULL);
}

/* Of a user's that are nobody's: first who was told so, then who asks for nothing, then any. The
 * newest stand first. */
static struct peer *to_give_back(const struct spiffed *spiffed, const struct share *share)
{
    struct peer *found[3] = {NULL};
    for (struct peer *peer = spiffed->peers; peer; peer = peer->next) {
        if (peer->share == share && peer->nobody) {
            found[peer->denied_ms ? 0 : !peer->jobs ? 1 : 2] = peer;
        }
    }
    return found[0] ? found[0] : found[1] ? found[1] : found[2];
}

/* When their part of the places is taken, the user who has most of them gives one back, also the
 * newcomer's. */
static void make_room(struct spiffed *spiffed, struct share *newcomer)
{
    struct share *most = newcomer;
    if (spiffed->nobodies < (spiffed->opts.connections_max + 1) / 2) {
        return;
    }
    for (size_t i = 0; i < UIDS_MAX; i++) {
        struct share *share = &spiffed->shares[i];
        most = share->used && share->nobodies > most->nobodies ? share : most;
    }
    struct peer *peer = to_give_back(spiffed, most);
    if (peer) {
        spiffed_peer_count(peer, false);
        grpc_conn_cut(peer->conn, "its place is another's: it is nobody's agent, or not known yet");
    }
}

/* ---- accepting ----------------------------------------------------------------------------- */

/* The socket's own pidfd where the kernel has it; else one by number, with the time of accept, and
 * the number may be another's since the connect: prove_writer. */
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

static enum att_rc watch_process(struct peer *peer, int client, struct att_err *err)
{
    peer->pidfd = pidfd_of(client, peer->pid, &peer->accepted_ms);
    if (peer->pidfd < 0) {
        return att_fail_errno(err, ATT_E_GONE, "the caller has ended");
    }
    peer->ended = event_new(peer->spiffed->opts.base, peer->pidfd, EV_READ, on_ended, peer);
    if (!peer->ended || event_add(peer->ended, NULL) != 0) {
        return att_fail(err, ATT_E_NOMEM, "connection");
    }
    return ATT_OK;
}

void spiffed_peer_answered(void *arg)
{
    struct peer *peer = arg;
    if (!spiffed_peer_alive(peer)) {
        grpc_conn_cut(peer->conn, NULL);
        return;
    }
    peer->challenged = false;
    spiffed_peer_pump(peer);
}

/* Writes carry numbers. Without SO_PEERPIDFD we hold whom the number means today, and what is in
 * the socket may be a process's that ended since. So whoever we hold answers something that was not
 * known before we held it, and lives when the answer comes: no other has had the number between. */
static enum att_rc prove_writer(struct peer *peer, struct att_err *err)
{
    peer->challenged = peer->accepted_ms != 0;
    return peer->challenged ? grpc_conn_challenge(peer->conn, err) : ATT_OK;
}

static enum att_rc welcome(struct spiffed *spiffed, int client, const struct ucred *cred,
                           struct share *share, struct att_err *err)
{
    struct peer *peer = calloc(1, sizeof *peer);
    if (!peer) {
        proc_close_client(&client);
        return att_fail(err, ATT_E_NOMEM, "connection");
    }
    *peer = (struct peer){.spiffed = spiffed,
                          .share = share,
                          .pid = cred->pid,
                          .uid = cred->uid,
                          .pidfd = -1,
                          .idle_ms = att_boottime_ms()};
    enum att_rc rc = watch_process(peer, client, err);
    if (rc != ATT_OK) {
        proc_close_client(&client);
    } else {
        rc = grpc_conn_new(&spiffed->grpc, client, peer->pid, peer, &peer->conn, err);
    }
    if (rc != ATT_OK) {
        peer_free(peer);
        return rc;
    }
    rc = prove_writer(peer, err);
    if (rc != ATT_OK) {
        grpc_conn_free(peer->conn); /* and the peer */
        return rc;
    }
    peer->next = spiffed->peers;
    peer->at = &spiffed->peers;
    if (peer->next) {
        peer->next->at = &peer->next;
    }
    spiffed->peers = peer;
    share->connections++;
    spiffed->connections++;
    spiffed_peer_count(peer, true);
    return ATT_OK;
}

static void tell_refused(struct spiffed *spiffed, struct share *share, const struct ucred *cred,
                         const char *why)
{
    unsigned left_out;
    spiffed->refused++;
    if (share && spiffed_worth_a_line(share, &left_out)) {
        att_log(ATT_WARN, "spiffed.limit", ATT_N("pid", cred->pid), ATT_N("uid", cred->uid),
                ATT_S("message", why), ATT_N("leftOut", left_out));
    }
}

static void accepted(struct spiffed *spiffed, int client)
{
    struct ucred cred;
    socklen_t len = sizeof cred;
    struct att_err err = {0};
    spiffed->accepted++;
    if (getsockopt(client, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0 || cred.pid <= 0) {
        spiffed->refused++; /* another PID namespace that is not below ours */
        proc_close_client(&client);
        return;
    }
    struct share *share = share_of(spiffed, cred.uid);
    const char *why = share ? refusal(spiffed, share) : "too many users";
    if (why) {
        tell_refused(spiffed, share, &cred, why);
        proc_close_client(&client);
        return;
    }
    make_room(spiffed, share);
    if (welcome(spiffed, client, &cred, share, &err) != ATT_OK && err.rc != ATT_E_GONE) {
        tell_refused(spiffed, share, &cred, err.msg);
    }
}

void spiffed_accept(struct spiffed *spiffed)
{
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int client = accept4(spiffed->opts.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (client >= 0) {
            accepted(spiffed, client);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            int64_t now_ms = att_boottime_ms();
            if (now_ms - spiffed->deaf_told_ms >= TOLD_MS) { /* every step comes here */
                att_log(ATT_WARN, "spiffed.deaf", ATT_S("message", strerror(errno)));
                spiffed->deaf_told_ms = now_ms;
            }
            event_del(spiffed->accepting); /* until the next step */
        }
        return;
    }
}
