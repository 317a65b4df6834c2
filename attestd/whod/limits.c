/* A token bucket and a number of places for each user whose processes are asked about. A user that
 * forks, connects and dies in a loop, or that keeps us reading from a file system that does not
 * answer, takes nothing from the others. */
#include "attestd/whod/whod.h"

#include "attestd/proc/ipc.h"
#include "attestd/proc/links.h"

#include <pthread.h>
#include <stdlib.h>

#define MILLI 1000 /* a request in a bucket's unit */

_Static_assert(WHOD_IN_ALL + PROC_LINKS_SAME_MAX <= PROC_CONNECTIONS_MAX,
               "room for those who ask for SAME");

struct user {
    uid_t uid;
    unsigned busy;
    bool known;
    int64_t at_ms;
    int64_t left; /* thousandths of a request */
};
struct whod_limits {
    pthread_mutex_t lock;
    unsigned busy; /* of all users */
    struct user users[WHOD_USERS_MAX];
};

enum att_rc whod_limits_new(struct whod_limits **ret_limits, struct att_err *err)
{
    struct whod_limits *limits = calloc(1, sizeof *limits);
    if (!limits) {
        return att_fail(err, ATT_E_NOMEM, "limits");
    }
    pthread_mutex_init(&limits->lock, NULL);
    *ret_limits = limits;
    return ATT_OK;
}

void whod_limits_free(struct whod_limits *limits)
{
    if (limits) {
        pthread_mutex_destroy(&limits->lock);
        free(limits);
    }
}

static struct user *find(struct whod_limits *limits, uid_t uid)
{
    for (size_t i = 0; i < WHOD_USERS_MAX; i++) {
        if (limits->users[i].known && limits->users[i].uid == uid) {
            return &limits->users[i];
        }
    }
    return NULL;
}

/* A new place for a user: an empty one, else that of the user that was idle for longest. */
static struct user *make(struct whod_limits *limits, uid_t uid, int64_t now_ms)
{
    struct user *oldest = NULL;
    for (size_t i = 0; i < WHOD_USERS_MAX; i++) {
        struct user *user = &limits->users[i];
        if (!user->known) {
            oldest = user;
            break;
        }
        if (user->busy == 0 && (!oldest || user->at_ms < oldest->at_ms)) {
            oldest = user;
        }
    }
    if (oldest) {
        *oldest = (struct user){uid, 0, true, now_ms, WHOD_BURST * MILLI};
    }
    return oldest;
}

static bool take(struct user *user, bool again, int64_t now_ms)
{
    int64_t passed = now_ms > user->at_ms ? now_ms - user->at_ms : 0;
    passed = passed < 3600000 ? passed : 3600000;
    user->left += passed * WHOD_PER_SECOND; /* ms × requests/s: thousandths */
    user->left = user->left < WHOD_BURST * MILLI ? user->left : WHOD_BURST * MILLI;
    user->at_ms = now_ms;
    if ((!again && user->left < MILLI) || user->busy >= WHOD_AT_ONCE) {
        return false;
    }
    user->left -= again ? 0 : MILLI;
    user->busy++;
    return true;
}

enum att_rc whod_limits_enter(struct whod_limits *limits, uid_t uid, bool again, int64_t now_ms,
                              struct att_err *err)
{
    pthread_mutex_lock(&limits->lock);
    struct user *user = find(limits, uid);
    user = user ? user : make(limits, uid, now_ms);
    bool ok = user && limits->busy < WHOD_IN_ALL && take(user, again, now_ms);
    limits->busy += ok;
    pthread_mutex_unlock(&limits->lock);
    if (ok) {
        return ATT_OK;
    }
    (void)!att_fail(err, ATT_E_LIMIT,
                    "user %u asks too often (%d a second, %d at once in a burst, %d side by side, "
                    "%d of all users)",
                    uid, WHOD_PER_SECOND, WHOD_BURST, WHOD_AT_ONCE, WHOD_IN_ALL);
    att_err_reason(err, "rateLimited");
    return ATT_E_LIMIT;
}

void whod_limits_leave(struct whod_limits *limits, uid_t uid)
{
    pthread_mutex_lock(&limits->lock);
    struct user *user = find(limits, uid);
    if (user && user->busy) {
        user->busy--;
        limits->busy--;
    }
    pthread_mutex_unlock(&limits->lock);
}
