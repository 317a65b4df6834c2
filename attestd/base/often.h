/* Lines for the log that somebody else can cause as often as he likes: the same one is said once a
 * second. Thread-safe. */
#ifndef ATTESTD_BASE_OFTEN_H
#define ATTESTD_BASE_OFTEN_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ATT_OFTEN_MS     1000
#define ATT_OFTEN_PLACES 64 /* texts told apart */

struct att_often {
    pthread_mutex_t lock;
    struct {
        uint64_t hash; /* of the text */
        int64_t at_ms; /* 0: free */
    } places[ATT_OFTEN_PLACES];
};
#define ATT_OFTEN_INIT                                                                             \
    {                                                                                              \
        .lock = PTHREAD_MUTEX_INITIALIZER                                                          \
    }

/* Was this text not said within the last second? Then it counts as said now. now_ms: of
 * att_boottime_ms. */
bool att_often(struct att_often *often, const char *text, int64_t now_ms);

#endif
