/* Whole frames on a blocking unix socket, each within an absolute deadline. */
#include "attestd/proc/ipc.h"

#include "attestd/base/clock.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#define GROW_STEP 65536 /* a peer that only announces a length gets no memory for it */

static enum att_rc wait_for(int fd, short events, int64_t deadline_ms, struct att_err *err)
{
    for (;;) {
        int timeout = -1;
        if (deadline_ms >= 0) {
            int64_t left = deadline_ms - att_boottime_ms();
            if (left <= 0) {
                return att_fail(err, ATT_E_TIMEOUT, "no whole frame within the time allowed");
            }
            timeout = left > 3600000 ? 3600000 : (int)left;
        }
        struct pollfd poll_fd = {.fd = fd, .events = events};
        int got = poll(&poll_fd, 1, timeout);
        if (got > 0) {
            return ATT_OK;
        }
        if (got < 0 && errno != EINTR) {
            return att_fail_errno(err, ATT_E_IO, "poll");
        }
    }
}

enum att_rc proc_frame_send(int fd, struct att_slice frame, int64_t deadline_ms,
                            struct att_err *err)
{
    while (frame.len) {
        enum att_rc rc = wait_for(fd, POLLOUT, deadline_ms, err);
        if (rc != ATT_OK) {
            return rc;
        }
        ssize_t put = send(fd, frame.ptr, frame.len, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (put < 0) {
            if (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK) {
                continue;
            }
            return att_fail_errno(err, ATT_E_GONE, "send");
        }
        frame.ptr += put;
        frame.len -= (size_t)put;
    }
    return ATT_OK;
}

static enum att_rc receive(int fd, uint8_t *at, size_t len, int64_t deadline_ms,
                           struct att_err *err)
{
    while (len) {
        enum att_rc rc = wait_for(fd, POLLIN, deadline_ms, err);
        if (rc != ATT_OK) {
            return rc;
        }
        ssize_t got = recv(fd, at, len, MSG_DONTWAIT);
        if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK)) {
            continue;
        }
        if (got < 0) {
            return att_fail_errno(err, ATT_E_GONE, "receive");
        }
        if (got == 0) {
            return att_fail(err, ATT_E_GONE, "the peer closed the connection");
        }
        at += got;
        len -= (size_t)got;
    }
    return ATT_OK;
}

enum att_rc proc_frame_recv(int fd, struct att_buf *ret_bytes, int64_t deadline_ms,
                            struct att_err *err)
{
    uint8_t head[4];
    enum att_rc rc = receive(fd, head, sizeof head, deadline_ms, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(head));
    size_t len = att_cur_be32(&cur);
    if (len < PROC_HEADER_LEN || len > PROC_FRAME_MAX) {
        return att_fail(err, ATT_E_LIMIT, "a frame of %zu bytes, %d to %zu are read", len,
                        PROC_HEADER_LEN, PROC_FRAME_MAX);
    }
    att_buf_reset(ret_bytes);
    while (ret_bytes->len < len) {
        size_t step = len - ret_bytes->len;
        step = step < GROW_STEP ? step : GROW_STEP;
        uint8_t *at = att_buf_extend(ret_bytes, step);
        if (!at) {
            return att_buf_ok(ret_bytes, err);
        }
        rc = receive(fd, at, step, deadline_ms, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    return ATT_OK;
}
