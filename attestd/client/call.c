/* A connection of one's own, and a whole call on it. */
#include "attestd/client/wire.h"

#include "attestd/base/clock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

/* SO_SNDTIMEO is of connect(2), too, where as many wait already as may; a signal of the program's
 * ends that wait, and is no answer. */
static int connect_until(int fd, const struct sockaddr_un *to, int64_t until_ms)
{
    int rc;
    do {
        int64_t left = until_ms - att_boottime_ms();
        left = left < 1 ? 1 : left;
        const struct timeval limit = {.tv_sec = left / 1000, .tv_usec = left % 1000 * 1000};
        rc = setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        rc = rc ? rc : connect(fd, (const struct sockaddr *)to, sizeof *to);
    } while (rc != 0 && errno == EINTR && att_boottime_ms() < until_ms);
    return rc;
}

static enum att_rc connect_to(const char *path, int64_t until_ms, int *ret_fd, struct att_err *err)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof to.sun_path) {
        return att_fail(err, ATT_E_INVAL, "%.200s: the socket's path is too long", path);
    }
    memcpy(to.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect_until(fd, &to, until_ms) == 0) {
        *ret_fd = fd;
        return ATT_OK;
    }
    enum att_rc rc = errno == EAGAIN || errno == EINTR
                         ? att_fail(err, ATT_E_TIMEOUT, "%s: too many wait to be connected", path)
                         : att_fail_errno(err, ATT_E_UNREACHABLE, "%s", path);
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

enum att_rc wire_connect(const char *path, const char *agent, int64_t until_ms,
                         struct wire **ret_wire, struct att_err *err)
{
    int fd = -1;
    enum att_rc rc = connect_to(path, until_ms, &fd, err);
    return rc ? rc : wire_new(fd, agent, ret_wire, err);
}

enum att_rc wire_call(struct wire *wire, const struct wire_request *request,
                      struct att_slice *ret_message, struct att_err *err)
{
    enum att_rc rc = wire_begin(wire, request, err);
    rc = rc ? rc : wire_send(wire, request->until_ms, err);
    while (rc == ATT_OK && !wire_ended(wire)) {
        rc = wire_step(wire, request->until_ms, err);
    }
    return rc ? rc : wire_reply(wire, ret_message, err);
}
