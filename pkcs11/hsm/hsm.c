/* Birth and end, and who may be in the module when: many threads with a session each, or one that
 * makes everything anew. */
#include "pkcs11/hsm/internal.h"

#include "attestd/base/clock.h"

#include <errno.h>
#include <p11-kit/p11-kit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- turns --------------------------------------------------------------------------------- */

/* lock is held; false at the deadline. */
static bool wait_changed(struct hsm *hsm, int64_t deadline_ms)
{
    const struct timespec at = {deadline_ms / 1000, (deadline_ms % 1000) * 1000000};
    return pthread_cond_timedwait(&hsm->changed, &hsm->lock, &at) != ETIMEDOUT;
}

static int64_t monotonic_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static enum att_rc busy(struct att_err *err)
{
    (void)!att_fail(err, ATT_E_TIMEOUT,
                    "the token's sessions are all in use, or it does not "
                    "answer");
    att_err_reason(err, "tokenBusy");
    return ATT_E_TIMEOUT;
}

static size_t begin(struct hsm *hsm)
{
    size_t at = 0;
    while (at < HSM_SESSIONS_MAX && hsm->began_ms[at]) {
        at++;
    }
    hsm->began_ms[at] = att_boottime_ms();
    return at;
}

/* lock is held. A PIN that was refused is not tried again, and an absent token not at once. */
static enum att_rc may_connect(struct hsm *hsm, struct att_err *err)
{
    bool pause = hsm->failed_ms && monotonic_ms() - hsm->failed_ms < HSM_PAUSE_MS;
    const struct att_err *why = hsm->refused ? &hsm->why_refused : pause ? &hsm->why_failed : NULL;
    if (why && err) {
        *err = *why;
    }
    return why ? why->rc : ATT_OK;
}

/* lock is held, and let go in between. Alone in the module: everything anew. */
static enum att_rc connect_alone(struct hsm *hsm, int64_t deadline_ms, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    hsm->connecting = true;
    while (rc == ATT_OK && hsm->users) {
        rc = wait_changed(hsm, deadline_ms) || !hsm->users ? ATT_OK : busy(err);
    }
    if (rc == ATT_OK) {
        rc = may_connect(hsm, err);
    }
    if (rc == ATT_OK) {
        struct att_err why = {0};
        size_t place = begin(hsm);
        pthread_mutex_unlock(&hsm->lock);
        rc = hsm_connect(hsm, &why);
        pthread_mutex_lock(&hsm->lock);
        hsm->began_ms[place] = 0;
        hsm->returned_ms = att_boottime_ms();
        hsm->connected = rc == ATT_OK;
        hsm->failed_ms = rc == ATT_OK ? 0 : monotonic_ms();
        hsm->why_failed = why;
        if (rc != ATT_OK && err) {
            *err = why;
        }
    }
    hsm->connecting = false;
    pthread_cond_broadcast(&hsm->changed);
    return rc;
}

/* lock is held. A place in the module: a session that waits, or the right to open one
 * (*ret_session stays CK_INVALID_HANDLE). */
static enum att_rc enter(struct hsm *hsm, int64_t deadline_ms, CK_SESSION_HANDLE *ret_session,
                         struct att_err *err)
{
    for (;;) {
        if (!hsm->connecting && !hsm->connected) {
            enum att_rc rc = connect_alone(hsm, deadline_ms, err);
            if (rc != ATT_OK) {
                return rc;
            }
        } else if (!hsm->connecting && hsm->idle_count) {
            *ret_session = hsm->idle[--hsm->idle_count];
            break;
        } else if (!hsm->connecting && hsm->open_count < hsm->limit) {
            hsm->open_count++;
            *ret_session = CK_INVALID_HANDLE;
            break;
        } else if (!wait_changed(hsm, deadline_ms)) {
            return busy(err);
        }
    }
    hsm->users++;
    return ATT_OK;
}

/* lock is held. good: the session can serve again. */
static void leave(struct hsm *hsm, const struct hsm_call *call, bool good)
{
    hsm->users--;
    if (good && call->connection == hsm->info.connections) {
        hsm->idle[hsm->idle_count++] = call->session;
    } else if (call->connection == hsm->info.connections) {
        hsm->open_count--;
    }
    pthread_cond_broadcast(&hsm->changed);
}

static enum att_rc open_session(struct hsm_call *call, struct att_err *err)
{
    CK_RV rv = call->module->C_OpenSession(call->slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL,
                                           NULL, &call->session);
    return rv == CKR_OK ? ATT_OK : hsm_call_failed(call, rv, "C_OpenSession", err);
}

/* A session with an operation under way is of no use to the next one. The only session is the
 * login's, too: then everything is made anew. */
static void drop_session(struct hsm_call *call)
{
    if (call->session != CK_INVALID_HANDLE && call->session != call->hsm->parked) {
        (void)call->module->C_CloseSession(call->session);
    } else if (call->session == call->hsm->parked) {
        pthread_mutex_lock(&call->hsm->lock);
        call->hsm->connected = false;
        pthread_mutex_unlock(&call->hsm->lock);
    }
}

static enum att_rc one_try(struct hsm *hsm, hsm_call_fn *fn, void *arg, struct hsm_call *call,
                           struct att_err *err)
{
    int64_t deadline_ms = monotonic_ms() + hsm->wait_ms;
    pthread_mutex_lock(&hsm->lock);
    enum att_rc rc = enter(hsm, deadline_ms, &call->session, err);
    if (rc != ATT_OK) {
        pthread_mutex_unlock(&hsm->lock);
        return rc;
    }
    call->connection = hsm->info.connections;
    call->slot = hsm->slot;
    size_t place = begin(hsm);
    pthread_mutex_unlock(&hsm->lock);
    if (call->session == CK_INVALID_HANDLE) {
        rc = open_session(call, err);
    }
    if (rc == ATT_OK) {
        rc = fn(call, arg, err);
    }
    bool good = call->rv == CKR_OK && call->session != CK_INVALID_HANDLE;
    if (!good) {
        drop_session(call);
    }
    pthread_mutex_lock(&hsm->lock);
    hsm->began_ms[place] = 0;
    hsm->returned_ms = att_boottime_ms();
    if (hsm_errors_again(call->rv)) {
        hsm->connected = false; /* for the next one, too */
    } else if (call->rv == CKR_SESSION_COUNT && hsm->open_count > 1) {
        hsm->limit = hsm->open_count - 1; /* others have taken the rest */
    }
    leave(hsm, call, good);
    pthread_mutex_unlock(&hsm->lock);
    return rc;
}

enum att_rc hsm_run(struct hsm *hsm, hsm_call_fn *fn, void *arg, struct att_err *err)
{
    struct att_err why = {0};
    struct hsm_call call = {.hsm = hsm, .module = hsm->module};
    enum att_rc rc = one_try(hsm, fn, arg, &call, &why);
    if (rc != ATT_OK && hsm_errors_again(call.rv)) {
        att_err_clear(&why);
        call = (struct hsm_call){.hsm = hsm, .module = hsm->module, .again = true};
        rc = one_try(hsm, fn, arg, &call, &why);
    }
    if (rc != ATT_OK && err) {
        *err = why;
    }
    return rc;
}

/* ---- birth, end, looking ------------------------------------------------------------------- */

static enum att_rc fill(struct hsm *hsm, const struct hsm_opts *opts, struct att_err *err)
{
    size_t label = strlen(opts->label), serial = strlen(opts->serial);
    if (label == 0 || label > HSM_LABEL_MAX || serial == 0 || serial > HSM_SERIAL_MAX) {
        return att_fail(err, ATT_E_INVAL, "a token's label (1 … %d bytes) and serial (1 … %d)",
                        HSM_LABEL_MAX, HSM_SERIAL_MAX);
    }
    if (opts->sessions < 1 || opts->sessions > HSM_SESSIONS_MAX || opts->wait_ms <= 0) {
        return att_fail(err, ATT_E_INVAL, "sessions: 1 … %d expected, found %u", HSM_SESSIONS_MAX,
                        opts->sessions);
    }
    memcpy(hsm->label, opts->label, label);
    memcpy(hsm->serial, opts->serial, serial);
    snprintf(hsm->manufacturer, sizeof hsm->manufacturer, "%s",
             opts->manufacturer ? opts->manufacturer : "");
    snprintf(hsm->model, sizeof hsm->model, "%s", opts->model ? opts->model : "");
    hsm->pin = opts->pin;
    hsm->sessions_wanted = opts->sessions;
    hsm->wait_ms = opts->wait_ms;
    hsm->may_login = opts->may_login;
    hsm->pin_refused = opts->pin_refused;
    hsm->user = opts->user;
    return ATT_OK;
}

const char *hsm_token_label(const struct hsm *hsm)
{
    return hsm->label;
}

const char *hsm_token_serial(const struct hsm *hsm)
{
    return hsm->serial;
}

static enum att_rc load(struct hsm *hsm, const char *path, struct att_err *err)
{
    hsm->module = p11_kit_module_load(path, P11_KIT_MODULE_CRITICAL);
    if (!hsm->module) {
        const char *why = p11_kit_message();
        enum att_rc rc = att_fail(err, ATT_E_UNSUPPORTED, "%s: %.200s", path,
                                  why ? why : "cannot be loaded as a PKCS#11 module");
        att_err_reason(err, "moduleLoad");
        return rc;
    }
    CK_RV rv = p11_kit_module_initialize(hsm->module);
    if (rv != CKR_OK) {
        enum att_rc rc = hsm_errors_set(rv, "C_Initialize", err);
        att_err_prefix(err, "%s", path);
        return rc;
    }
    hsm->initialized = hsm->fresh = true;
    return ATT_OK;
}

enum att_rc hsm_new(const struct hsm_opts *opts, struct hsm **ret_hsm, struct att_err *err)
{
    struct hsm *hsm = calloc(1, sizeof *hsm);
    if (!hsm) {
        return att_fail(err, ATT_E_NOMEM, "hsm");
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&hsm->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&hsm->lock, NULL);
    enum att_rc rc = fill(hsm, opts, err);
    if (rc == ATT_OK) {
        rc = load(hsm, opts->module_path, err);
    }
    if (rc != ATT_OK) {
        hsm_free(hsm);
        return rc;
    }
    *ret_hsm = hsm;
    return ATT_OK;
}

void hsm_free(struct hsm *hsm)
{
    if (!hsm) {
        return;
    }
    if (hsm->initialized) {
        if (hsm->connected) {
            (void)hsm->module->C_Logout(hsm->parked);
        }
        (void)p11_kit_module_finalize(hsm->module);
    }
    if (hsm->module) {
        p11_kit_module_release(hsm->module);
    }
    pthread_cond_destroy(&hsm->changed);
    pthread_mutex_destroy(&hsm->lock);
    free(hsm);
}

static enum att_rc look(struct hsm_call *call, void *arg, struct att_err *err)
{
    (void)arg;
    enum att_rc rc = hsm_check_login(call, err);
    if (rc != ATT_OK) {
        return rc;
    }
    rc = hsm_check_token(call->hsm, call->slot, err);
    if (rc != ATT_OK) {
        call->rv = CKR_DEVICE_REMOVED;
    }
    return rc;
}

enum att_rc hsm_poll(struct hsm *hsm, struct att_err *err)
{
    return hsm_run(hsm, look, NULL, err);
}

void hsm_info_get(struct hsm *hsm, struct hsm_info *ret_info)
{
    pthread_mutex_lock(&hsm->lock);
    *ret_info = hsm->info;
    ret_info->connected = hsm->connected;
    ret_info->busy_since_ms = 0;
    for (size_t i = 0; i <= HSM_SESSIONS_MAX; i++) {
        int64_t began = hsm->began_ms[i];
        if (began && (!ret_info->busy_since_ms || began < ret_info->busy_since_ms)) {
            ret_info->busy_since_ms = began;
        }
    }
    int64_t busy = ret_info->busy_since_ms;
    ret_info->silent_since_ms = busy && busy < hsm->returned_ms ? hsm->returned_ms : busy;
    pthread_mutex_unlock(&hsm->lock);
}
