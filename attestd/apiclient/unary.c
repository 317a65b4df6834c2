/* One call over the socket. */
#include "attestd/apiclient/call.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/base/secret.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define READ_MAX 16384

static enum att_rc no_answer(struct att_err *err)
{
    return att_fail(err, ATT_E_TIMEOUT, "attestd's socket for workloads: no answer in %d s",
                    APICLIENT_TIMEOUT_MS / 1000);
}

static enum att_rc connect_to(const char *path, int *ret_fd, struct att_err *err)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof to.sun_path) {
        return att_fail(err, ATT_E_INVAL, "%.200s: the socket's path is too long", path);
    }
    memcpy(to.sun_path, path, strlen(path) + 1);
    /* Of connect(2), too, where as many wait already as may. */
    const struct timeval limit = {.tv_sec = APICLIENT_TIMEOUT_MS / 1000};
    att_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0 ||
        connect(fd, (const struct sockaddr *)&to, sizeof to) != 0) {
        if (fd >= 0 && errno == EAGAIN) {
            return no_answer(err);
        }
        return att_fail_errno(err, ATT_E_UNREACHABLE, "%s", path);
    }
    *ret_fd = fd;
    fd = -1;
    return ATT_OK;
}

static enum att_rc send_all(struct apiclient_call *call, int fd, struct att_err *err)
{
    for (;;) {
        struct att_slice bytes = {0};
        enum att_rc rc = apiclient_call_send(call, &bytes, err);
        if (rc != ATT_OK || !bytes.len) {
            return rc;
        }
        while (bytes.len) {
            ssize_t n = send(fd, bytes.ptr, bytes.len, MSG_NOSIGNAL);
            if (n < 0 && errno == EAGAIN) {
                return no_answer(err);
            }
            if (n < 0 && errno != EINTR) {
                return att_fail_errno(err, ATT_E_GONE, "attestd's socket for workloads");
            }
            bytes = n > 0 ? ATT_SLICE(bytes.ptr + n, bytes.len - (size_t)n) : bytes;
        }
    }
}

static enum att_rc receive(struct apiclient_call *call, int fd, int64_t until, struct att_err *err)
{
    uint8_t bytes[READ_MAX];
    int64_t left = until - att_boottime_ms();
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    int ready = left > 0 ? poll(&poll_fd, 1, (int)left) : 0;
    if (ready < 0 && errno == EINTR) {
        return ATT_OK;
    }
    if (ready == 0) {
        return no_answer(err);
    }
    ssize_t n = ready < 0 ? -1 : recv(fd, bytes, sizeof bytes, 0);
    if (n < 0) {
        return att_fail_errno(err, ATT_E_GONE, "attestd's socket for workloads");
    }
    if (n == 0) {
        return att_fail(err, ATT_E_GONE, "attestd's socket for workloads ended the connection");
    }
    enum att_rc rc = apiclient_call_recv(call, ATT_SLICE(bytes, (size_t)n), err);
    att_wipe(bytes, sizeof bytes);
    return rc;
}

enum att_rc apiclient_unary(const char *socket_path, const char *method, unsigned flags,
                            struct att_slice message, struct att_buf *ret_message, bool *ret_kept,
                            struct att_err *err)
{
    struct apiclient_call *call = NULL;
    struct att_slice reply = {0};
    att_autofd fd = -1;
    int64_t until = att_boottime_ms() + APICLIENT_TIMEOUT_MS;
    enum att_rc rc = connect_to(socket_path, &fd, err);
    rc = rc ? rc : apiclient_call_new(method, flags, message, &call, err);
    rc = rc ? rc : send_all(call, fd, err);
    while (rc == ATT_OK && !apiclient_call_ended(call)) {
        rc = receive(call, fd, until, err);
        rc = rc ? rc : send_all(call, fd, err);
    }
    rc = rc ? rc : apiclient_call_reply(call, &reply, err);
    if (rc == ATT_OK) {
        att_buf_put_slice(ret_message, reply);
        rc = att_buf_ok(ret_message, err);
        if (ret_kept) {
            *ret_kept = apiclient_call_kept(call);
        }
    }
    apiclient_call_free(call);
    return rc;
}
