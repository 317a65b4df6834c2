/* epoll, one thread. A source is embedded in what it belongs to. */
#ifndef TOKEND_LOOP_H
#define TOKEND_LOOP_H

#include "attestd/base/err.h"

#include <stdbool.h>
#include <sys/epoll.h>

struct tokend_source {
    int fd; /* -1: not watched */
    void (*ready)(struct tokend_source *source, uint32_t events);
    void *owner;
};

struct tokend_loop {
    int epoll;
};

ATT_MUST_USE enum att_rc tokend_loop_init(struct tokend_loop *ret_loop, struct att_err *err);
void tokend_loop_done(struct tokend_loop *loop);
/* Watches fd, which stays the caller's. */
ATT_MUST_USE enum att_rc tokend_loop_add(struct tokend_loop *loop, struct tokend_source *source,
                                         int fd, uint32_t events, struct att_err *err);
void tokend_loop_change(struct tokend_loop *loop, const struct tokend_source *source,
                        uint32_t events);
void tokend_loop_remove(struct tokend_loop *loop, struct tokend_source *source);
/* Waits at most timeout_ms and calls what is ready. A source removed meanwhile is not called; its
 * memory must last until this returns. */
void tokend_loop_run(struct tokend_loop *loop, int timeout_ms);

#endif
