#include "attestd/spiffe/ask.h"

#include "attestd/base/io.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct ask_call {
    struct ask_call *next, **at; /* at: of the queue's list; NULL: not in it any more */
    struct ask *ask;
    uint16_t op;
    struct proc_value values[ASK_VALUES_MAX];
    int passed;
    const void *of;    /* compared only */
    uint64_t served;   /* when one of its was sent last; 0: not that we knew */
    ask_done_fn *done; /* only the loop's thread looks at done and user */
    void *user;
    enum att_rc rc;
    struct proc_answer *answer; /* only while it is asked and answered: it is large */
    struct att_err err;
    uint8_t bytes[]; /* of the values */
};

struct served {
    const void *of;
    uint64_t when; /* ask's clock */
};

struct ask {
    struct ask_opts opts;
    struct proc_caller *caller;
    struct event *ready;
    int ready_fd;
    pthread_t threads[ASK_THREADS_MAX];
    unsigned n_threads;
    pthread_mutex_t lock; /* around the rest */
    pthread_cond_t changed;
    struct ask_call *queue, **queue_end; /* oldest first */
    size_t queued;
    struct ask_call *answered, **answered_end;
    const void *under_way[ASK_THREADS_MAX];
    struct served served[ASK_SERVED_MAX];
    uint64_t clock; /* questions sent */
    bool stop;
};

static void call_free(struct ask_call *call)
{
    att_close(&call->passed);
    if (call->answer) {
        proc_answer_done(call->answer);
    }
    free(call->answer);
    free(call);
}

/* ---- the threads --------------------------------------------------------------------------- */

static bool is_served(const struct ask *ask, const void *of)
{
    for (unsigned i = 0; of && i < ask->n_threads; i++) {
        if (ask->under_way[i] == of) {
            return true;
        }
    }
    return false;
}

/* Under lock. */
static void unlink_call(struct ask *ask, struct ask_call *call)
{
    *call->at = call->next;
    if (call->next) {
        call->next->at = call->at;
    } else {
        ask->queue_end = call->at;
    }
    call->next = NULL;
    call->at = NULL;
    ask->queued--;
}

/* Under lock. Its place, or that of who was served longest ago. */
static struct served *served_place(struct ask *ask, const void *of)
{
    struct served *oldest = &ask->served[0];
    for (size_t i = 0; i < ASK_SERVED_MAX; i++) {
        struct served *served = &ask->served[i];
        if (served->of == of) {
            return served;
        }
        oldest = served->when < oldest->when ? served : oldest;
    }
    return oldest;
}

/* Under lock. */
static void note_served(struct ask *ask, const void *of)
{
    if (!of) {
        return;
    }
    *served_place(ask, of) = (struct served){of, ++ask->clock};
    for (struct ask_call *call = ask->queue; call; call = call->next) {
        call->served = call->of == of ? ask->clock : call->served;
    }
}

/* Under lock. Of whom was served longest ago, the first. NULL: none that may go. */
static struct ask_call *dequeue(struct ask *ask)
{
    struct ask_call *best = NULL;
    for (struct ask_call *call = ask->queue; call; call = call->next) {
        if (!is_served(ask, call->of) && (!best || call->served < best->served)) {
            best = call;
        }
    }
    if (best) {
        unlink_call(ask, best);
        note_served(ask, best->of);
    }
    return best;
}

static struct ask_call *wait_for_call(struct ask *ask, unsigned place)
{
    struct ask_call *call = NULL;
    pthread_mutex_lock(&ask->lock);
    while (!ask->stop && !(call = dequeue(ask))) {
        pthread_cond_wait(&ask->changed, &ask->lock);
    }
    ask->under_way[place] = call ? call->of : NULL;
    pthread_mutex_unlock(&ask->lock);
    return call;
}

static void give_back(struct ask *ask, unsigned place, struct ask_call *call)
{
    const uint64_t one = 1;
    pthread_mutex_lock(&ask->lock);
    ask->under_way[place] = NULL;
    *ask->answered_end = call;
    ask->answered_end = &call->next;
    pthread_cond_broadcast(&ask->changed); /* another of the same may go */
    pthread_mutex_unlock(&ask->lock);
    (void)!write(ask->ready_fd, &one, sizeof one);
}

/* Who stands in another's place, or keeps us out, has not said no in its name. */
static void not_the_peers_word(struct ask_call *call)
{
    bool foreign = strcmp(call->err.reason, "foreignServer") == 0;
    if (call->rc == ATT_E_DENIED && (foreign || call->err.domain == ATT_DOM_ERRNO)) {
        call->rc = call->err.rc = ATT_E_UNREACHABLE;
    }
}

static void put_question(struct ask *ask, struct ask_call *call)
{
    call->answer = calloc(1, sizeof *call->answer);
    call->rc = call->answer ? proc_call(ask->caller, call->op, call->values, call->passed,
                                        call->answer, &call->err)
                            : att_fail(&call->err, ATT_E_NOMEM, "an answer");
}

struct thread_arg {
    struct ask *ask;
    unsigned place;
};

static void *serve(void *arg)
{
    struct ask *ask = ((struct thread_arg *)arg)->ask;
    unsigned place = ((struct thread_arg *)arg)->place;
    struct ask_call *call;
    free(arg);
    while ((call = wait_for_call(ask, place))) {
        put_question(ask, call);
        not_the_peers_word(call);
        att_close(&call->passed);
        give_back(ask, place, call);
    }
    return NULL;
}

/* ---- the loop's side ----------------------------------------------------------------------- */

static void on_ready(evutil_socket_t fd, short what, void *arg)
{
    struct ask *ask = arg;
    uint64_t n;
    (void)what;
    (void)!read(fd, &n, sizeof n);
    pthread_mutex_lock(&ask->lock);
    struct ask_call *list = ask->answered;
    ask->answered = NULL;
    ask->answered_end = &ask->answered;
    pthread_mutex_unlock(&ask->lock);
    while (list) {
        struct ask_call *call = list;
        list = call->next;
        if (call->done) {
            call->done(call->user, call->rc, call->rc == ATT_OK ? &call->answer->msg : NULL,
                       &call->err);
        }
        call_free(call);
    }
}

static enum att_rc copy_values(struct ask_call *call, const struct proc_value *values, size_t n,
                               struct att_err *err)
{
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        struct att_slice bytes = values[i].bytes;
        if (i >= ASK_VALUES_MAX || bytes.len > ASK_BYTES_MAX - used) {
            return att_fail(err, ATT_E_INTERNAL, "a question that is too long");
        }
        if (bytes.len) {
            memcpy(call->bytes + used, bytes.ptr, bytes.len);
        }
        call->values[i].num = values[i].num;
        call->values[i].bytes = ATT_SLICE(call->bytes + used, bytes.len);
        used += bytes.len;
    }
    return ATT_OK;
}

/* Under lock. Nobody fills the queue for others. */
static bool has_room(const struct ask *ask, const void *of)
{
    size_t same = 0;
    for (const struct ask_call *call = ask->queue; of && call; call = call->next) {
        same += call->of == of;
    }
    return ask->queued < ASK_WAITING_MAX && same < ASK_EACH_MAX;
}

static enum att_rc enqueue(struct ask *ask, struct ask_call *call, struct att_err *err)
{
    pthread_mutex_lock(&ask->lock);
    bool room = has_room(ask, call->of);
    if (room) {
        const struct served *served = call->of ? served_place(ask, call->of) : NULL;
        call->served = served && served->of == call->of ? served->when : 0;
        call->at = ask->queue_end;
        *ask->queue_end = call;
        ask->queue_end = &call->next;
        ask->queued++;
        pthread_cond_signal(&ask->changed);
    }
    pthread_mutex_unlock(&ask->lock);
    if (!room) {
        return att_fail(err, ATT_E_LIMIT, "%s: too many requests wait", ask->opts.peer);
    }
    return ATT_OK;
}

enum att_rc ask_call(struct ask *ask, uint16_t op, const struct proc_value *values, size_t n_values,
                     int passed, const void *of, ask_done_fn *done, void *user,
                     struct ask_call **ret_call, struct att_err *err)
{
    size_t bytes = 0;
    for (size_t i = 0; i < n_values; i++) {
        bytes += values[i].bytes.len < ASK_BYTES_MAX ? values[i].bytes.len : ASK_BYTES_MAX;
    }
    struct ask_call *call = calloc(1, sizeof *call + bytes);
    if (!call) {
        return att_fail(err, ATT_E_NOMEM, "question");
    }
    *call =
        (struct ask_call){.ask = ask, .op = op, .passed = -1, .of = of, .done = done, .user = user};
    enum att_rc rc = copy_values(call, values, n_values, err);
    if (rc == ATT_OK && passed >= 0 && (call->passed = fcntl(passed, F_DUPFD_CLOEXEC, 3)) < 0) {
        rc = att_fail_errno(err, ATT_E_IO, "copy a descriptor");
    }
    if (rc == ATT_OK) {
        rc = enqueue(ask, call, err);
    }
    if (rc != ATT_OK) {
        call_free(call);
        return rc;
    }
    *ret_call = call;
    return ATT_OK;
}

bool ask_waits(struct ask_call *call)
{
    struct ask *ask = call->ask;
    pthread_mutex_lock(&ask->lock);
    bool waits = call->at != NULL;
    pthread_mutex_unlock(&ask->lock);
    return waits;
}

void ask_forget(struct ask_call *call)
{
    if (!call) {
        return;
    }
    struct ask *ask = call->ask;
    call->done = NULL;
    pthread_mutex_lock(&ask->lock);
    bool waits = call->at != NULL;
    if (waits) {
        unlink_call(ask, call);
    }
    pthread_mutex_unlock(&ask->lock);
    if (waits) {
        call_free(call);
    }
}

/* ---- birth and end ------------------------------------------------------------------------- */

/* Signals are the loop's. */
static int start_thread(struct ask *ask, struct thread_arg *arg)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    int rc = pthread_create(&ask->threads[ask->n_threads], NULL, serve, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static enum att_rc start_threads(struct ask *ask, struct att_err *err)
{
    while (ask->n_threads < ask->opts.threads) {
        struct thread_arg *arg = malloc(sizeof *arg);
        if (arg) {
            *arg = (struct thread_arg){ask, ask->n_threads};
        }
        if (!arg || start_thread(ask, arg) != 0) {
            free(arg);
            return att_fail(err, ATT_E_NOMEM, "a thread for %s", ask->opts.peer);
        }
        pthread_mutex_lock(&ask->lock);
        ask->n_threads++;
        pthread_mutex_unlock(&ask->lock);
    }
    return ATT_OK;
}

enum att_rc ask_new(const struct ask_opts *opts, struct ask **ret_ask, struct att_err *err)
{
    struct ask *ask = calloc(1, sizeof *ask);
    if (!ask) {
        return att_fail(err, ATT_E_NOMEM, "client");
    }
    ask->opts = *opts;
    ask->queue_end = &ask->queue;
    ask->answered_end = &ask->answered;
    pthread_mutex_init(&ask->lock, NULL);
    pthread_cond_init(&ask->changed, NULL);
    ask->ready_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    enum att_rc rc = ask->ready_fd < 0
                         ? att_fail_errno(err, ATT_E_IO, "eventfd")
                         : proc_caller_new(opts->path, opts->peer, opts->user, opts->table,
                                           opts->timeout_ms, &ask->caller, err);
    if (rc == ATT_OK) {
        ask->ready = event_new(opts->base, ask->ready_fd, EV_READ | EV_PERSIST, on_ready, ask);
        rc = ask->ready && event_add(ask->ready, NULL) == 0 ? start_threads(ask, err)
                                                            : att_fail(err, ATT_E_NOMEM, "client");
    }
    if (rc != ATT_OK) {
        ask_free(ask);
        return rc;
    }
    *ret_ask = ask;
    return ATT_OK;
}

static void free_list(struct ask_call *list)
{
    while (list) {
        struct ask_call *call = list;
        list = call->next;
        call_free(call);
    }
}

void ask_free(struct ask *ask)
{
    if (!ask) {
        return;
    }
    pthread_mutex_lock(&ask->lock);
    ask->stop = true;
    pthread_cond_broadcast(&ask->changed);
    pthread_mutex_unlock(&ask->lock);
    for (unsigned i = 0; i < ask->n_threads; i++) {
        pthread_join(ask->threads[i], NULL);
    }
    free_list(ask->queue);
    free_list(ask->answered);
    if (ask->ready) {
        event_free(ask->ready);
    }
    proc_caller_free(ask->caller);
    att_close(&ask->ready_fd);
    pthread_cond_destroy(&ask->changed);
    pthread_mutex_destroy(&ask->lock);
    free(ask);
}
