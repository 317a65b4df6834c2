#include "attestd/proc/ipc.h"
#include "attestd/proc/keyd_proto.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/base/secret.h"
#include "attestd/proc/notify.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

struct proc_server {
    struct proc_server_opts opts;
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
    int listen_fd, stop_fd; /* stop_fd becomes readable, and stays so, when the server ends */
    pthread_t acceptor;
    bool started, inherited; /* inherited: from systemd */
    pthread_mutex_t lock;
    pthread_cond_t idle;
    unsigned connections;
};

struct connection {
    struct proc_server *server;
    int fd;
    struct proc_peer peer;
};

/* ---- one connection ------------------------------------------------------------------------ */

/* True when the peer has something to say, false when the server ends. */
static bool wait_for_request(const struct connection *conn)
{
    struct pollfd fds[] = {{.fd = conn->fd, .events = POLLIN},
                           {.fd = conn->server->stop_fd, .events = POLLIN}};
    for (;;) {
        int got = poll(fds, 2, -1);
        if (got > 0) {
            return !fds[1].revents;
        }
        if (got < 0 && errno != EINTR) {
            return false;
        }
    }
}

static enum att_rc check_passed(const struct proc_op *op, int passed, struct att_err *err)
{
    bool wanted = (op->flags & PROC_OP_FD) != 0;
    return wanted == (passed >= 0) ? ATT_OK
                                   : att_fail(err, ATT_E_PARSE, "%s: %s descriptor expected",
                                              op->name, wanted ? "a" : "no");
}

static void answer(const struct connection *conn, const struct proc_frame *frame, int passed,
                   struct proc_msg *msg, struct att_buf *ret_payload)
{
    const struct proc_server_opts *opts = &conn->server->opts;
    struct proc_peer peer = conn->peer;
    peer.passed = passed;
    struct att_err err = {0};
    enum att_rc rc;
    const struct proc_op *op = proc_op_find(opts->table, frame->op);
    if (!op) {
        rc = att_fail(&err, ATT_E_UNSUPPORTED, "no operation %u", frame->op);
        att_err_reason(&err, "unknownOperation");
    } else {
        rc = check_passed(op, passed, &err);
        if (rc == ATT_OK) {
            rc = proc_msg_parse(&op->request, frame->payload, msg, &err);
        }
        if (rc == ATT_OK) {
            rc = opts->handler(opts->user, &peer, op, msg, ret_payload, &err);
        } else {
            att_err_prefix(&err, "%s", op->name);
        }
    }
    if (rc != ATT_OK) {
        proc_reply_encode_err(rc, &err, ret_payload);
    }
}

/* False ends the connection: a peer that breaks framing cannot be answered. */
static bool serve_one(const struct connection *conn, struct att_buf *in, struct att_buf *payload,
                      struct proc_msg *msg)
{
    int64_t deadline = att_boottime_ms() + conn->server->opts.frame_timeout_ms;
    struct proc_frame frame;
    att_autofd passed = -1;
    if (proc_frame_recv_fd(conn->fd, in, &passed, deadline, NULL) != ATT_OK ||
        proc_frame_parse(att_buf_slice(in), &frame, NULL) != ATT_OK) {
        return false;
    }
    att_buf_reset(payload);
    answer(conn, &frame, passed, msg, payload);
    att_autobuf out = ATT_BUF_INIT(PROC_FRAME_MAX + 4);
    uint16_t reply = (uint16_t)(frame.op | PROC_REPLY);
    const struct proc_op *op = proc_op_find(conn->server->opts.table, frame.op);
    enum att_rc rc = proc_frame_encode(frame.id, reply, att_buf_slice(payload), &out, NULL);
    if (rc == ATT_OK) {
        deadline = att_boottime_ms() + conn->server->opts.frame_timeout_ms;
        rc = proc_frame_send(conn->fd, att_buf_slice(&out), deadline, NULL);
    }
    if (op && (op->flags & PROC_OP_SECRET)) {
        att_wipe(out.ptr, out.len);
        att_wipe(payload->ptr, payload->len);
    }
    return rc == ATT_OK;
}

static void *connection_thread(void *arg)
{
    struct connection *conn = arg;
    struct proc_server *server = conn->server;
    struct proc_msg *msg = calloc(1, sizeof *msg);
    att_autobuf in = ATT_BUF_INIT(PROC_FRAME_MAX);
    att_autobuf payload = ATT_BUF_INIT(PROC_FRAME_MAX);
    while (msg && wait_for_request(conn) && serve_one(conn, &in, &payload, msg)) {
    }
    free(msg);
    close(conn->fd);
    free(conn);
    att_buf_done(&in);
    att_buf_done(&payload);
    pthread_mutex_lock(&server->lock);
    server->connections--;
    pthread_cond_broadcast(&server->idle);
    pthread_mutex_unlock(&server->lock);
    return NULL;
}

/* ---- accepting ----------------------------------------------------------------------------- */

static bool peer_allowed(int fd, const struct proc_users *clients, struct proc_peer *ret_peer)
{
    return proc_peer_get(fd, ret_peer, NULL) == ATT_OK && proc_users_have(clients, ret_peer->uid);
}

static bool take_place(struct proc_server *server)
{
    pthread_mutex_lock(&server->lock);
    unsigned most = server->opts.connections ? server->opts.connections : PROC_CONNECTIONS_MAX;
    bool room = server->connections < most;
    server->connections += room;
    pthread_mutex_unlock(&server->lock);
    return room;
}

static void give_place(struct proc_server *server)
{
    pthread_mutex_lock(&server->lock);
    server->connections--;
    pthread_cond_broadcast(&server->idle);
    pthread_mutex_unlock(&server->lock);
}

static void start_connection(struct proc_server *server, int fd)
{
    struct proc_peer peer;
    struct connection *conn = NULL;
    if (!peer_allowed(fd, &server->opts.clients, &peer) || !take_place(server)) {
        close(fd);
        return;
    }
    conn = calloc(1, sizeof *conn);
    pthread_attr_t attr;
    pthread_t thread;
    bool ok = conn && pthread_attr_init(&attr) == 0;
    if (ok) {
        *conn = (struct connection){server, fd, peer};
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
        ok = pthread_create(&thread, &attr, connection_thread, conn) == 0;
        pthread_attr_destroy(&attr);
    }
    if (!ok) {
        free(conn);
        close(fd);
        give_place(server);
    }
}

static void *accept_thread(void *arg)
{
    struct proc_server *server = arg;
    struct pollfd fds[] = {{.fd = server->listen_fd, .events = POLLIN},
                           {.fd = server->stop_fd, .events = POLLIN}};
    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR) {
            return NULL;
        }
        if (fds[1].revents) {
            return NULL;
        }
        int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            start_connection(server, fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            poll(&fds[1], 1, 100); /* out of descriptors: do not spin */
        }
    }
}

/* ---- birth and death ----------------------------------------------------------------------- */

static enum att_rc refuse_live(const struct sockaddr_un *addr, struct att_err *err)
{
    att_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "socket");
    }
    if (connect(fd, (const struct sockaddr *)addr, sizeof *addr) == 0 || errno == EAGAIN) {
        return att_fail(err, ATT_E_CONFLICT, "%s: another process serves this socket",
                        addr->sun_path);
    }
    return ATT_OK;
}

static mode_t socket_mode(const struct proc_users *clients)
{
    for (size_t i = 0; i < clients->count; i++) {
        if (clients->uids[i] != geteuid() && clients->uids[i] != 0) {
            return 0660;
        }
    }
    return 0600;
}

static enum att_rc listen_at(struct proc_server *server, struct att_err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, server->path, sizeof server->path);
    enum att_rc rc = refuse_live(&addr, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct stat st;
    if (lstat(server->path, &st) == 0 && !S_ISSOCK(st.st_mode)) {
        rc = att_fail(err, ATT_E_EXISTS, "%s is there and is not a socket", server->path);
        server->path[0] = 0; /* not ours to remove */
        return rc;
    }
    if (unlink(server->path) != 0 && errno != ENOENT) {
        return att_fail_errno(err, ATT_E_IO, "%s", server->path);
    }
    server->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server->listen_fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "socket");
    }
    /* On Linux a socket's file takes its mode from the descriptor's before bind: there is no
     * instant at which others could connect. */
    mode_t mode = socket_mode(&server->opts.clients);
    if (fchmod(server->listen_fd, mode) != 0 ||
        bind(server->listen_fd, (const struct sockaddr *)&addr, sizeof addr) != 0) {
        return att_fail_errno(err, ATT_E_IO, "bind %s", server->path);
    }
    if (server->opts.group && chown(server->path, (uid_t)-1, server->opts.group) != 0) {
        return att_fail_errno(err, ATT_E_IO, "%s: give it to group %u", server->path,
                              server->opts.group);
    }
    if (chmod(server->path, mode) != 0 || listen(server->listen_fd, PROC_CONNECTIONS_MAX) != 0) {
        return att_fail_errno(err, ATT_E_IO, "listen on %s", server->path);
    }
    return ATT_OK;
}

enum att_rc proc_server_new(const struct proc_server_opts *opts, struct proc_server **ret_server,
                            struct att_err *err)
{
    size_t len = strlen(opts->path);
    struct proc_server *server = calloc(1, sizeof *server);
    if (!server) {
        return att_fail(err, ATT_E_NOMEM, "server");
    }
    if (len == 0 || len >= sizeof server->path) {
        free(server);
        return att_fail(err, ATT_E_INVAL, "socket path of %zu bytes, at most %zu: %.80s", len,
                        sizeof server->path - 1, opts->path);
    }
    server->opts = *opts;
    memcpy(server->path, opts->path, len);
    server->opts.path = server->path;
    server->listen_fd = -1;
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->idle, NULL);
    server->stop_fd = eventfd(0, EFD_CLOEXEC);
    server->listen_fd = proc_notify_socket(server->path);
    server->inherited = server->listen_fd >= 0;
    enum att_rc rc = server->stop_fd < 0 ? att_fail_errno(err, ATT_E_IO, "eventfd")
                     : server->inherited ? ATT_OK
                                         : listen_at(server, err);
    if (rc != ATT_OK) {
        if (rc == ATT_E_CONFLICT) {
            server->path[0] = 0; /* not ours to remove */
        }
        proc_server_free(server);
        return rc;
    }
    *ret_server = server;
    return ATT_OK;
}

enum att_rc proc_server_start(struct proc_server *server, struct att_err *err)
{
    int failed = pthread_create(&server->acceptor, NULL, accept_thread, server);
    if (failed) {
        errno = failed;
        return att_fail_errno(err, ATT_E_IO, "start a thread");
    }
    server->started = true;
    return ATT_OK;
}

void proc_server_free(struct proc_server *server)
{
    if (!server) {
        return;
    }
    if (server->stop_fd >= 0) {
        (void)!eventfd_write(server->stop_fd, 1);
    }
    if (server->started) {
        pthread_join(server->acceptor, NULL);
    }
    pthread_mutex_lock(&server->lock);
    while (server->connections) {
        pthread_cond_wait(&server->idle, &server->lock);
    }
    pthread_mutex_unlock(&server->lock);
    if (server->listen_fd >= 0) {
        close(server->listen_fd);
        if (server->path[0] && !server->inherited) {
            unlink(server->path);
        }
    }
    att_close(&server->stop_fd);
    pthread_cond_destroy(&server->idle);
    pthread_mutex_destroy(&server->lock);
    free(server);
}
