/* A piece of a worker's job that runs beside it: what waits for the disk, while the worker waits
 * for the issuer or for another file. Syncs at the same time share the file system's work: four
 * files synced side by side took a fifth of four in a row (docs/TESTING.md). */
#ifndef ATTESTD_HOST_ASIDE_H
#define ATTESTD_HOST_ASIDE_H

#include "attestd/base/err.h"

#include <pthread.h>
#include <stdbool.h>

typedef enum att_rc host_aside_fn(void *arg, struct att_err *err);

struct host_aside {
    host_aside_fn *fn;
    void *arg;
    bool started, threaded;
    pthread_t thread;
    enum att_rc rc;
    struct att_err err;
};

/* Runs fn(arg) in a thread of its own, or here where there is none to be had. aside and what arg
 * points to must stay until the join. */
void host_aside_start(struct host_aside *aside, host_aside_fn *fn, void *arg);
/* Waits; fn's result, again at each call. ATT_OK when nothing was started. */
enum att_rc host_aside_join(struct host_aside *aside, struct att_err *err);

#endif
