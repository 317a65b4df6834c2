#include "attestd/base/ctl.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"

#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define IDLE_TIMEOUT_MS  30000
#define FRAME_TIMEOUT_MS 30000 /* for the whole of one, however it trickles */
#define STOP_GRACE_MS    2000  /* for answers on their way when the server stops */
#define GROUPS_MAX       256

struct att_ctl_server {
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
    int listen_fd, stop_fd;
    bool has_group;
    gid_t group;
    att_ctl_handler *handler;
    void *user;
    pthread_t acceptor;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    unsigned connections;
    struct connection *first;
    int frame_timeout_ms;
};

struct connection {
    struct att_ctl_server *server;
    int fd;
    struct att_ctl_peer peer;
    bool allowed;
    struct connection *next; /* under the server's lock */
};

/* ---- frames -------------------------------------------------------------------------------- */

/* Until fd is ready for what (POLLIN, POLLOUT), or the deadline of the whole frame. */
static enum att_rc wait_for(int fd, short what, int64_t deadline_ms, struct att_err *err)
{
    for (;;) {
        int64_t left = deadline_ms - att_boottime_ms();
        struct pollfd pfd = {fd, what, 0};
        int n = left > 0 ? poll(&pfd, 1, left < 1000000 ? (int)left : 1000000) : 0;
        if (n > 0) {
            return ATT_OK;
        }
        if (n < 0 && errno != EINTR) {
            return att_fail_errno(err, ATT_E_IO, "poll");
        }
        if (left <= 0) {
            return att_fail(err, ATT_E_TIMEOUT, "timed out: no whole message came");
        }
    }
}

static enum att_rc send_frame(int fd, const json_t *json, int64_t deadline_ms, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(ATT_CTL_FRAME_MAX + 4);
    att_buf_be32(&text, 0);
    enum att_rc rc = att_json_dump(json, false, &text, err);
    if (rc != ATT_OK) {
        return rc;
    }
    size_t len = text.len - 4;
    for (int i = 0; i < 4; i++) {
        text.ptr[i] = (uint8_t)(len >> (24 - 8 * i));
    }
    struct att_slice left = att_buf_slice(&text);
    while (left.len) {
        rc = wait_for(fd, POLLOUT, deadline_ms, err);
        if (rc != ATT_OK) {
            return rc;
        }
        ssize_t put = send(fd, left.ptr, left.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK)) {
            continue;
        }
        if (put < 0) {
            return att_fail_errno(err, ATT_E_GONE, "send");
        }
        left.ptr += put;
        left.len -= (size_t)put;
    }
    return ATT_OK;
}

static enum att_rc receive(int fd, uint8_t *ret, size_t len, int64_t deadline_ms,
                           struct att_err *err)
{
    while (len) {
        enum att_rc rc = wait_for(fd, POLLIN, deadline_ms, err);
        if (rc != ATT_OK) {
            return rc;
        }
        ssize_t got = recv(fd, ret, len, MSG_DONTWAIT);
        if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK)) {
            continue;
        }
        if (got < 0) {
            return att_fail_errno(err, ATT_E_IO, "read");
        }
        if (got == 0) {
            return att_fail(err, ATT_E_GONE, "the peer closed the connection");
        }
        ret += got;
        len -= (size_t)got;
    }
    return ATT_OK;
}

static enum att_rc receive_frame(int fd, int64_t deadline_ms, json_t **ret_json,
                                 struct att_err *err)
{
    uint8_t head[4];
    enum att_rc rc = receive(fd, head, sizeof head, deadline_ms, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(head));
    size_t len = att_cur_be32(&cur);
    if (len == 0 || len > ATT_CTL_FRAME_MAX) {
        return att_fail(err, ATT_E_LIMIT, "a frame of %zu bytes, at most %zu are read", len,
                        ATT_CTL_FRAME_MAX);
    }
    /* Grow as bytes arrive: a peer that only names a length gets no memory for it. */
    att_autobuf text = ATT_BUF_INIT(ATT_CTL_FRAME_MAX);
    while (text.len < len) {
        size_t step = len - text.len < 65536 ? len - text.len : 65536;
        uint8_t *at = att_buf_extend(&text, step);
        rc = at ? receive(fd, at, step, deadline_ms, err) : att_buf_ok(&text, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    return att_json_parse(att_buf_slice(&text), ATT_CTL_FRAME_MAX, ret_json, err);
}

static enum att_rc fill_address(const char *path, struct sockaddr_un *ret_addr, struct att_err *err)
{
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof ret_addr->sun_path) {
        return att_fail(err, ATT_E_INVAL, "socket path of %zu bytes, 1 to %zu are possible: %.80s",
                        len, sizeof ret_addr->sun_path - 1, path);
    }
    *ret_addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(ret_addr->sun_path, path, len);
    return ATT_OK;
}

/* ---- server -------------------------------------------------------------------------------- */

static bool in_group(const struct att_ctl_server *server, const struct att_ctl_peer *peer, int fd)
{
    if (!server->has_group) {
        return false;
    }
    if (peer->gid == server->group) {
        return true;
    }
    gid_t groups[GROUPS_MAX];
    socklen_t len = sizeof groups;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) != 0) {
        return false;
    }
    for (size_t i = 0; i < len / sizeof groups[0]; i++) {
        if (groups[i] == server->group) {
            return true;
        }
    }
    return false;
}

static json_t *error_reply(const struct att_err *err)
{
    return json_pack("{s:b, s:{s:s, s:s, s:s}}", "ok", 0, "error", "code", att_rc_name(err->rc),
                     "reason", err->reason, "message", err->msg);
}

static json_t *answer(const struct connection *conn, const json_t *request)
{
    struct att_err err = {0};
    const char *op = NULL;
    if (!conn->allowed) {
        (void)att_fail(&err, ATT_E_DENIED, "uid %ld may not use this socket", (long)conn->peer.uid);
        att_err_reason(&err, "socket");
        return error_reply(&err);
    }
    if (att_json_str(request, "op", &op, &err) != ATT_OK) {
        return error_reply(&err);
    }
    const json_t *args = json_object_get(request, "args");
    att_autojson *none = json_object();
    if (args && !json_is_object(args)) {
        (void)att_fail(&err, ATT_E_PARSE, "\"args\": expected an object");
        return error_reply(&err);
    }
    json_t *result = NULL;
    enum att_rc rc = conn->server->handler(conn->server->user, &conn->peer, op, args ? args : none,
                                           &result, &err);
    if (rc != ATT_OK) {
        json_decref(result);
        err.rc = rc;
        return error_reply(&err);
    }
    return json_pack("{s:b, s:o}", "ok", 1, "result", result ? result : json_object());
}

static bool wait_readable(const struct att_ctl_server *server, int fd)
{
    struct pollfd fds[] = {{fd, POLLIN, 0}, {server->stop_fd, POLLIN, 0}};
    int n = 0;
    do {
        n = poll(fds, 2, IDLE_TIMEOUT_MS);
    } while (n < 0 && errno == EINTR);
    return n > 0 && fds[1].revents == 0;
}

/* What does not fit a frame (logs of megabytes in a quote) is refused, not dropped. */
static bool send_reply(const struct connection *conn, const json_t *reply)
{
    struct att_err err = {0};
    int64_t deadline_ms = att_boottime_ms() + conn->server->frame_timeout_ms;
    enum att_rc rc = reply ? send_frame(conn->fd, reply, deadline_ms, &err)
                           : att_fail(&err, ATT_E_NOMEM, "the reply");
    if (rc == ATT_OK || rc == ATT_E_GONE || rc == ATT_E_TIMEOUT) {
        return rc == ATT_OK;
    }
    att_err_prefix(&err, "the answer cannot be sent (at most %zu bytes)", ATT_CTL_FRAME_MAX);
    att_autojson *refusal = error_reply(&err);
    return refusal && send_frame(conn->fd, refusal, deadline_ms, NULL) == ATT_OK;
}

/* Out of the list before the descriptor is closed: its number may be another's at once. */
static void end_connection(struct connection *conn)
{
    struct att_ctl_server *server = conn->server;
    pthread_mutex_lock(&server->lock);
    struct connection **at = &server->first;
    while (*at != conn) {
        at = &(*at)->next;
    }
    *at = conn->next;
    close(conn->fd);
    server->connections--;
    pthread_cond_broadcast(&server->idle);
    pthread_mutex_unlock(&server->lock);
    free(conn);
}

static void *serve_connection(void *arg)
{
    struct connection *conn = arg;
    struct att_ctl_server *server = conn->server;
    while (wait_readable(server, conn->fd)) {
        att_autojson *request = NULL;
        struct att_err err = {0};
        enum att_rc rc =
            receive_frame(conn->fd, att_boottime_ms() + server->frame_timeout_ms, &request, &err);
        if (rc == ATT_E_GONE || rc == ATT_E_TIMEOUT || rc == ATT_E_IO) {
            break;
        }
        att_autojson *reply = rc == ATT_OK ? answer(conn, request) : error_reply(&err);
        if (!send_reply(conn, reply) || rc != ATT_OK) {
            break;
        }
    }
    end_connection(conn);
    return NULL;
}

/* Some places are root's alone: a freeze must not wait until a group's idle connections end. */
static bool take_place(struct att_ctl_server *server, struct connection *conn)
{
    unsigned max = ATT_CTL_CONNECTIONS_MAX + (conn->peer.uid == 0 ? ATT_CTL_CONNECTIONS_ROOT : 0);
    pthread_mutex_lock(&server->lock);
    bool room = server->connections < max;
    if (room) {
        server->connections++;
        conn->next = server->first;
        server->first = conn;
    }
    pthread_mutex_unlock(&server->lock);
    return room;
}

static void start_connection(struct att_ctl_server *server, int fd)
{
    struct ucred cred = {0};
    socklen_t len = sizeof cred;
    struct connection *conn = calloc(1, sizeof *conn);
    if (!conn || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0) {
        free(conn);
        close(fd);
        return;
    }
    conn->server = server;
    conn->fd = fd;
    conn->peer = (struct att_ctl_peer){cred.uid, cred.gid, cred.pid};
    conn->allowed = cred.uid == 0 || cred.uid == geteuid() || in_group(server, &conn->peer, fd);
    if (!take_place(server, conn)) {
        free(conn);
        close(fd);
        return;
    }
    pthread_t thread;
    if (pthread_create(&thread, NULL, serve_connection, conn) == 0) {
        pthread_detach(thread);
    } else {
        end_connection(conn);
    }
}

static void *accept_loop(void *arg)
{
    struct att_ctl_server *server = arg;
    for (;;) {
        struct pollfd fds[] = {{server->listen_fd, POLLIN, 0}, {server->stop_fd, POLLIN, 0}};
        if (poll(fds, 2, -1) < 0 && errno != EINTR) {
            return NULL;
        }
        if (fds[1].revents) {
            return NULL;
        }
        if (fds[0].revents & POLLIN) {
            int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0) {
                start_connection(server, fd);
            } else if (errno == EMFILE || errno == ENFILE) {
                usleep(50000); /* poll would return at once, again and again */
            }
        }
    }
}

static enum att_rc resolve_group(struct att_ctl_server *server, const char *name,
                                 struct att_err *err)
{
    if (!name || !*name) {
        return ATT_OK;
    }
    char scratch[16384];
    struct group grp, *found = NULL;
    if (getgrnam_r(name, &grp, scratch, sizeof scratch, &found) != 0 || !found) {
        return att_fail(err, ATT_E_NOTFOUND, "group \"%s\" does not exist", name);
    }
    server->has_group = true;
    server->group = grp.gr_gid;
    return ATT_OK;
}

/* A socket that still has a server is not taken away from it. */
static enum att_rc refuse_live(const struct sockaddr_un *addr, struct att_err *err)
{
    att_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "socket");
    }
    if (connect(fd, (const struct sockaddr *)addr, sizeof *addr) == 0 || errno == EAGAIN) {
        enum att_rc rc =
            att_fail(err, ATT_E_EXISTS, "%s: another process serves this socket", addr->sun_path);
        att_err_reason(err, "socketInUse");
        return rc;
    }
    return ATT_OK;
}

static enum att_rc remove_old_socket(const struct sockaddr_un *addr, struct att_err *err)
{
    const char *path = addr->sun_path;
    struct stat st;
    if (lstat(path, &st) != 0) {
        return errno == ENOENT ? ATT_OK : att_fail_errno(err, ATT_E_IO, "%s", path);
    }
    if (!S_ISSOCK(st.st_mode)) {
        return att_fail(err, ATT_E_EXISTS, "%s is there and is not a socket", path);
    }
    enum att_rc rc = refuse_live(addr, err);
    if (rc != ATT_OK) {
        return rc;
    }
    return unlink(path) == 0 ? ATT_OK : att_fail_errno(err, ATT_E_IO, "remove %s", path);
}

static enum att_rc listen_at(struct att_ctl_server *server, const char *path, struct att_err *err)
{
    struct sockaddr_un addr;
    enum att_rc rc = fill_address(path, &addr, err);
    if (rc == ATT_OK) {
        rc = remove_old_socket(&addr, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    memcpy(server->path, addr.sun_path, sizeof server->path);
    server->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (server->listen_fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "socket");
    }
    /* fchmod before bind gives the socket file its mode from the first instant. */
    mode_t mode = server->has_group ? 0660 : 0600;
    if (fchmod(server->listen_fd, mode) != 0 ||
        bind(server->listen_fd, (const struct sockaddr *)&addr, sizeof addr) != 0 ||
        (server->has_group && chown(path, (uid_t)-1, server->group) != 0) ||
        chmod(path, mode) != 0 || listen(server->listen_fd, 16) != 0) {
        return att_fail_errno(err, ATT_E_IO, "listen at %s", path);
    }
    return ATT_OK;
}

enum att_rc att_ctl_server_new(const char *path, const char *group, att_ctl_handler *handler,
                               void *user, struct att_ctl_server **ret_server, struct att_err *err)
{
    struct att_ctl_server *server = calloc(1, sizeof *server);
    if (!server) {
        return att_fail(err, ATT_E_NOMEM, "control server");
    }
    server->listen_fd = -1;
    server->handler = handler;
    server->user = user;
    server->frame_timeout_ms = FRAME_TIMEOUT_MS;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->idle, &attr);
    pthread_condattr_destroy(&attr);
    server->stop_fd = eventfd(0, EFD_CLOEXEC);
    enum att_rc rc = server->stop_fd >= 0 ? ATT_OK : att_fail_errno(err, ATT_E_IO, "eventfd");
    if (rc == ATT_OK) {
        rc = resolve_group(server, group, err);
    }
    if (rc == ATT_OK) {
        rc = listen_at(server, path, err);
    }
    if (rc == ATT_OK && pthread_create(&server->acceptor, NULL, accept_loop, server) != 0) {
        rc = att_fail(err, ATT_E_NOMEM, "control server's thread");
    }
    if (rc != ATT_OK) {
        att_close(&server->listen_fd);
        att_close(&server->stop_fd);
        free(server);
        return rc;
    }
    *ret_server = server;
    return ATT_OK;
}

void att_ctl_server_frame_timeout(struct att_ctl_server *server, int timeout_ms)
{
    server->frame_timeout_ms = timeout_ms;
}

/* lock is held. */
static void shutdown_all(struct att_ctl_server *server, int how)
{
    for (struct connection *conn = server->first; conn; conn = conn->next) {
        (void)shutdown(conn->fd, how);
    }
}

/* Nothing more is read at once; answers on their way have a moment; handlers are waited for. */
static void end_connections(struct att_ctl_server *server)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += STOP_GRACE_MS / 1000;
    pthread_mutex_lock(&server->lock);
    shutdown_all(server, SHUT_RD);
    while (server->connections &&
           pthread_cond_timedwait(&server->idle, &server->lock, &until) != ETIMEDOUT) {
    }
    shutdown_all(server, SHUT_RDWR);
    while (server->connections) {
        pthread_cond_wait(&server->idle, &server->lock);
    }
    pthread_mutex_unlock(&server->lock);
}

void att_ctl_server_free(struct att_ctl_server *server)
{
    if (!server) {
        return;
    }
    uint64_t one = 1;
    ssize_t put = write(server->stop_fd, &one, sizeof one); /* stays readable: all threads see it */
    (void)put;
    pthread_join(server->acceptor, NULL);
    att_close(&server->listen_fd);
    unlink(server->path);
    end_connections(server);
    att_close(&server->stop_fd);
    pthread_cond_destroy(&server->idle);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

/* ---- client -------------------------------------------------------------------------------- */

static enum att_rc connect_to(const char *path, int *ret_fd, struct att_err *err)
{
    struct sockaddr_un addr;
    enum att_rc rc = fill_address(path, &addr, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "socket");
    }
    if (connect(fd, (const struct sockaddr *)&addr, sizeof addr) != 0) {
        if (errno == EACCES || errno == EPERM) {
            rc = att_fail_errno(err, ATT_E_DENIED, "connect to %s", path);
            att_err_reason(err, "socket");
            return rc;
        }
        return att_fail_errno(err, ATT_E_UNREACHABLE, "connect to %s", path);
    }
    *ret_fd = fd;
    fd = -1;
    return ATT_OK;
}

static enum att_rc code_by_name(const char *name)
{
    for (int rc = ATT_E_NOMEM; rc <= ATT_E_INTERNAL; rc++) {
        if (strcmp(att_rc_name((enum att_rc)rc), name) == 0) {
            return (enum att_rc)rc;
        }
    }
    return ATT_E_PROTOCOL;
}

static enum att_rc read_reply(const json_t *reply, json_t **ret_result, struct att_err *err)
{
    if (json_is_true(json_object_get(reply, "ok"))) {
        *ret_result = json_incref(json_object_get(reply, "result"));
        return ATT_OK;
    }
    const char *code = "protocol", *reason = "", *message = "the reply has no error member";
    (void)json_unpack((json_t *)(uintptr_t)reply, "{s:{s:s, s?s, s:s}}", "error", "code", &code,
                      "reason", &reason, "message", &message);
    enum att_rc rc = att_fail(err, code_by_name(code), "%s", message);
    att_err_reason(err, reason);
    return rc;
}

enum att_rc att_ctl_call(const char *path, const char *op, const json_t *args, int timeout_ms,
                         json_t **ret_result, struct att_err *err)
{
    att_autofd fd = -1;
    int64_t deadline_ms = att_boottime_ms() + timeout_ms;
    enum att_rc rc = connect_to(path, &fd, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autojson *request = json_pack("{s:s, s:O*}", "op", op, "args", args);
    if (!request) {
        return att_fail(err, ATT_E_NOMEM, "request");
    }
    rc = send_frame(fd, request, deadline_ms, err);
    att_autojson *reply = NULL;
    if (rc == ATT_OK) {
        rc = receive_frame(fd, deadline_ms, &reply, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "%s", path);
        return rc;
    }
    json_t *result = NULL;
    rc = read_reply(reply, &result, err);
    if (rc == ATT_OK && !json_is_object(result) && !json_is_array(result)) {
        json_decref(result);
        return att_fail(err, ATT_E_PROTOCOL, "%s: the reply has no result", path);
    }
    if (rc == ATT_OK) {
        *ret_result = result;
    }
    return rc;
}
