/* A connection to keyd over which nothing is asked: when it ends, keyd did, and with it the keys
 * that were in its memory. When there is a keyd again the host thread looks at once which one it
 * is, instead of at its next round. What it finds there counts, not what is seen here: a stranger
 * on the socket's path can cause a look and nothing else. */
#include "attestd/host/internal.h"

#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define RETRY_MS 100

struct host_keydwatch {
    struct host *host;
    struct event_base *base;
    struct event *event; /* the connection's end, or the time of the next try */
    int fd;
    bool was_there; /* there was a connection before */
};

static void try_connect(struct host_keydwatch *watch);

static void on_event(evutil_socket_t fd, short what, void *arg)
{
    struct host_keydwatch *watch = arg;
    char byte;
    (void)what;
    /* keyd says nothing by itself: what is not the end is read away. */
    if (fd >= 0 && recv(fd, &byte, 1, MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    event_free(watch->event);
    watch->event = NULL;
    att_close(&watch->fd);
    try_connect(watch);
}

static int connect_to(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && strlen(path) < sizeof(at.sun_path)) {
        memcpy(at.sun_path, path, strlen(path) + 1);
        if (connect(fd, (const struct sockaddr *)&at, sizeof(at)) == 0) {
            return fd;
        }
    }
    att_close(&fd);
    return -1;
}

static void came_back(struct host *host)
{
    HOST_LOCKED(host);
    host->keyd_back = true;
    host_nudge(host);
}

static void try_connect(struct host_keydwatch *watch)
{
    watch->fd = connect_to(watch->host->paths.keyd);
    if (watch->fd >= 0) {
        if (watch->was_there) {
            came_back(watch->host);
        }
        watch->was_there = true;
    }
    const struct timeval pause = {.tv_usec = RETRY_MS * 1000};
    watch->event = event_new(watch->base, watch->fd,
                             watch->fd >= 0 ? EV_READ | EV_PERSIST : EV_TIMEOUT, on_event, watch);
    if (!watch->event || event_add(watch->event, watch->fd >= 0 ? NULL : &pause) != 0) {
        /* Then the host thread's own rounds notice, later. */
        att_log(ATT_WARN, "keyd.notWatched", ATT_S("message", "no memory"));
    }
}

enum att_rc host_keydwatch_new(struct host *host, struct event_base *base,
                               struct host_keydwatch **ret_watch, struct att_err *err)
{
    struct host_keydwatch *watch = calloc(1, sizeof(*watch));
    if (!watch) {
        return att_fail(err, ATT_E_NOMEM, "no memory to watch keyd");
    }
    *watch = (struct host_keydwatch){.host = host, .base = base, .fd = -1};
    try_connect(watch);
    *ret_watch = watch;
    return ATT_OK;
}

void host_keydwatch_free(struct host_keydwatch *watch)
{
    if (watch) {
        if (watch->event) {
            event_free(watch->event);
        }
        att_close(&watch->fd);
        free(watch);
    }
}
