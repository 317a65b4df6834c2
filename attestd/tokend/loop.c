#include "attestd/tokend/loop.h"

#include "attestd/base/io.h"

#include <errno.h>

#define BATCH 64

enum att_rc tokend_loop_init(struct tokend_loop *ret_loop, struct att_err *err)
{
    ret_loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    return ret_loop->epoll >= 0 ? ATT_OK : att_fail_errno(err, ATT_E_IO, "epoll");
}

void tokend_loop_done(struct tokend_loop *loop)
{
    att_close(&loop->epoll);
}

enum att_rc tokend_loop_add(struct tokend_loop *loop, struct tokend_source *source, int fd,
                            uint32_t events, struct att_err *err)
{
    struct epoll_event event = {.events = events, .data.ptr = source};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        return att_fail_errno(err, ATT_E_IO, "epoll: watch a descriptor");
    }
    source->fd = fd;
    return ATT_OK;
}

void tokend_loop_change(struct tokend_loop *loop, const struct tokend_source *source,
                        uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = (void *)(uintptr_t)source};
    (void)epoll_ctl(loop->epoll, EPOLL_CTL_MOD, source->fd, &event);
}

void tokend_loop_remove(struct tokend_loop *loop, struct tokend_source *source)
{
    if (source->fd >= 0) {
        (void)epoll_ctl(loop->epoll, EPOLL_CTL_DEL, source->fd, NULL);
        source->fd = -1;
    }
}

void tokend_loop_run(struct tokend_loop *loop, int timeout_ms)
{
    struct epoll_event events[BATCH];
    int n = epoll_wait(loop->epoll, events, BATCH, timeout_ms);
    for (int i = 0; i < n; i++) {
        struct tokend_source *source = events[i].data.ptr;
        if (source->fd >= 0) {
            source->ready(source, events[i].events);
        }
    }
}
