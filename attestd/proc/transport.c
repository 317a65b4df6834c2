/* Whole frames on a blocking unix socket, each within an absolute deadline. */
#include "attestd/proc/ipc.h"

#include "attestd/base/clock.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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

/* One descriptor beside the bytes, as SCM_RIGHTS (unix(7)). */
union passing {
    char room[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
};

static ssize_t send_some(int fd, struct att_slice bytes, int passed)
{
    union passing control = {.room = {0}};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes.ptr, .iov_len = bytes.len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (passed >= 0) {
        msg.msg_control = control.room;
        msg.msg_controllen = sizeof control.room;
        struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
        *head = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof passed), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(head), &passed, sizeof passed);
    }
    return sendmsg(fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}

enum att_rc proc_frame_send_fd(int fd, struct att_slice frame, int passed, int64_t deadline_ms,
                               struct att_err *err)
{
    while (frame.len) {
        ssize_t put = send_some(fd, frame, passed);
        if (put < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
            enum att_rc rc = wait_for(fd, POLLOUT, deadline_ms, err);
            if (rc != ATT_OK) {
                return rc;
            }
            continue;
        }
        if (put < 0) {
            return att_fail_errno(err, ATT_E_GONE, "send");
        }
        passed = -1;
        frame.ptr += put;
        frame.len -= (size_t)put;
    }
    return ATT_OK;
}

enum att_rc proc_frame_send(int fd, struct att_slice frame, int64_t deadline_ms,
                            struct att_err *err)
{
    return proc_frame_send_fd(fd, frame, -1, deadline_ms, err);
}

/* Where a descriptor that comes is kept: -1 none yet, -2 more than one came. */
#define PASSED_MANY (-2)

static void keep_passed(int *passed, int came)
{
    if (*passed == -1) {
        *passed = came;
        return;
    }
    close(came);
    if (*passed >= 0) {
        close(*passed);
    }
    *passed = PASSED_MANY;
}

static void take_passed(struct msghdr *msg, int *passed)
{
    for (struct cmsghdr *head = CMSG_FIRSTHDR(msg); head; head = CMSG_NXTHDR(msg, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int came;
            memcpy(&came, CMSG_DATA(head) + i * sizeof came, sizeof came);
            keep_passed(passed, came);
        }
    }
    if (msg->msg_flags & MSG_CTRUNC) { /* the kernel has closed what did not fit */
        if (*passed >= 0) {
            close(*passed);
        }
        *passed = PASSED_MANY;
    }
}

/* passed NULL: descriptors are not taken; the kernel drops them. */
static ssize_t receive_some(int fd, uint8_t *at, size_t len, int *passed)
{
    union passing control;
    struct iovec iov = {.iov_base = at, .iov_len = len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (passed) {
        msg.msg_control = control.room;
        msg.msg_controllen = sizeof control.room;
    }
    ssize_t got = recvmsg(fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got >= 0 && passed) {
        take_passed(&msg, passed);
    }
    return got;
}

static enum att_rc receive(int fd, uint8_t *at, size_t len, int *passed, int64_t deadline_ms,
                           struct att_err *err)
{
    while (len) {
        ssize_t got = receive_some(fd, at, len, passed);
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) {
            enum att_rc rc = wait_for(fd, POLLIN, deadline_ms, err);
            if (rc != ATT_OK) {
                return rc;
            }
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

static enum att_rc receive_frame(int fd, struct att_buf *ret_bytes, int *passed,
                                 int64_t deadline_ms, struct att_err *err)
{
    uint8_t head[4];
    /* Who asked waits: the answer is not there yet. Who is asked was told that something is. */
    enum att_rc rc = passed ? ATT_OK : wait_for(fd, POLLIN, deadline_ms, err);
    if (rc == ATT_OK) {
        rc = receive(fd, head, sizeof head, passed, deadline_ms, err);
    }
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
        rc = receive(fd, at, step, passed, deadline_ms, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    return ATT_OK;
}

enum att_rc proc_frame_recv(int fd, struct att_buf *ret_bytes, int64_t deadline_ms,
                            struct att_err *err)
{
    return receive_frame(fd, ret_bytes, NULL, deadline_ms, err);
}

enum att_rc proc_frame_recv_fd(int fd, struct att_buf *ret_bytes, int *ret_passed,
                               int64_t deadline_ms, struct att_err *err)
{
    int passed = -1;
    enum att_rc rc = receive_frame(fd, ret_bytes, &passed, deadline_ms, err);
    if (rc == ATT_OK && passed == PASSED_MANY) {
        rc = att_fail(err, ATT_E_PROTOCOL, "more than one descriptor came with a frame");
    }
    if (rc != ATT_OK && passed >= 0) {
        close(passed);
    }
    if (rc == ATT_OK) {
        *ret_passed = passed;
    }
    return rc;
}
