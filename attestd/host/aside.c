#include "attestd/host/aside.h"

static void *run(void *arg)
{
    struct host_aside *aside = arg;
    aside->rc = aside->fn(aside->arg, &aside->err);
    return NULL;
}

void host_aside_start(struct host_aside *aside, host_aside_fn *fn, void *arg)
{
    *aside = (struct host_aside){.fn = fn, .arg = arg, .started = true};
    aside->threaded = pthread_create(&aside->thread, NULL, run, aside) == 0;
    if (!aside->threaded) {
        (void)run(aside); /* no thread to be had: later, but done */
    }
}

enum att_rc host_aside_join(struct host_aside *aside, struct att_err *err)
{
    if (aside->threaded) {
        pthread_join(aside->thread, NULL);
        aside->threaded = false;
    }
    if (aside->started && aside->rc != ATT_OK && err) {
        *err = aside->err;
    }
    return aside->rc;
}
