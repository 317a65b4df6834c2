#include "attestd/keyd/hsmlink.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"

#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SIGN_PLACES     6 /* requests side by side at hsmd, whose connections are few */
#define OTHER_PLACES    3
#define WAIT_S          5    /* for a place */
#define SIGN_TIMEOUT_MS 8000 /* below tokend's patience, so that the caller hears why */
#define LOOK_TIMEOUT_MS 2000
#define LOOK_MS         2000
#define WASTE_MAX       (2048 + 256)
#define WASTE_TOO_MUCH  256   /* then no key is made */
#define LATE_MS         30000 /* until the second look */
#define AGAIN_MS        5000  /* after a destruction that failed */

struct waste {
    char id[PROC_KEY_ID_LEN + 1];
    uint8_t cka_id[PROC_HSM_KEY_ID_LEN];
    enum keyd_waste kind;
    int64_t due_ms;
};

struct seen {
    char state[16], word[24], message[400], pin[16];
    int64_t silent_ms;
    bool has_token;
    struct evidence_hsm_token token;
};

struct keyd_hsm {
    const struct keyd *keyd; /* for paths */
    char name[PROC_HSM_NAME_MAX + 1];
    struct proc_caller *signer, *caller, *looker;
    sem_t sign_places, other_places;
    pthread_t thread;
    bool runs;

    pthread_mutex_t lock; /* all that follows */
    pthread_cond_t changed;
    bool stopping;
    struct seen seen;
    char waste_why[512];             /* the last one could not be destroyed; "": it could */
    size_t waste_count, waste_taken; /* waste_taken: the thread has it in hand */
    struct waste waste[WASTE_MAX];
};

/* ---- birth and end --------------------------------------------------------------------------- */

static enum att_rc new_callers(const struct keyd_hsm_opts *opts, struct keyd_hsm *hsm,
                               struct att_err *err)
{
    const struct {
        struct proc_caller **ret;
        int64_t timeout_ms;
    } all[] = {{&hsm->signer, SIGN_TIMEOUT_MS},
               {&hsm->caller, KEYD_OP_TIMEOUT_MS},
               {&hsm->looker, LOOK_TIMEOUT_MS}};
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < sizeof all / sizeof all[0]; i++) {
        rc = proc_caller_new(opts->socket_path, "hsmd", opts->user, proc_hsm_table,
                             all[i].timeout_ms, all[i].ret, err);
    }
    return rc;
}

enum att_rc keyd_hsm_new(const struct keyd *keyd, const struct keyd_hsm_opts *opts,
                         struct keyd_hsm **ret_hsm, struct att_err *err)
{
    if (strlen(opts->name) > PROC_HSM_NAME_MAX) {
        return att_fail(err, ATT_E_INVAL, "HSM module %.40s: the name is too long", opts->name);
    }
    struct keyd_hsm *hsm = calloc(1, sizeof *hsm);
    if (!hsm || sem_init(&hsm->sign_places, 0, SIGN_PLACES) != 0 ||
        sem_init(&hsm->other_places, 0, OTHER_PLACES) != 0) {
        free(hsm);
        return att_fail(err, ATT_E_NOMEM, "hsm");
    }
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&hsm->changed, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&hsm->lock, NULL);
    snprintf(hsm->seen.state, sizeof hsm->seen.state, "starting");
    snprintf(hsm->seen.pin, sizeof hsm->seen.pin, "unknown");
    hsm->keyd = keyd;
    snprintf(hsm->name, sizeof hsm->name, "%s", opts->name);
    enum att_rc rc = new_callers(opts, hsm, err);
    if (rc != ATT_OK) {
        keyd_hsm_free(hsm);
        return rc;
    }
    *ret_hsm = hsm;
    return ATT_OK;
}

void keyd_hsm_free(struct keyd_hsm *hsm)
{
    if (!hsm) {
        return;
    }
    pthread_mutex_lock(&hsm->lock);
    hsm->stopping = true;
    pthread_cond_broadcast(&hsm->changed);
    pthread_mutex_unlock(&hsm->lock);
    if (hsm->runs) {
        pthread_join(hsm->thread, NULL);
    }
    proc_caller_free(hsm->signer);
    proc_caller_free(hsm->caller);
    proc_caller_free(hsm->looker);
    pthread_cond_destroy(&hsm->changed);
    pthread_mutex_destroy(&hsm->lock);
    sem_destroy(&hsm->sign_places);
    sem_destroy(&hsm->other_places);
    free(hsm);
}

/* ---- asking ---------------------------------------------------------------------------------- */

/* What is an operator's to mend at hsmd must not read as a refusal of ours, nor as the TPM's
 * lockout: whoever asks backs off, and the reason tells why. */
static enum att_rc translate(enum att_rc rc, struct att_err *err)
{
    switch (rc) {
    case ATT_E_AUTH:
    case ATT_E_LOCKOUT:
    case ATT_E_DENIED:
    case ATT_E_CONFLICT:
    case ATT_E_EXISTS:
    case ATT_E_PROTOCOL:
        err->rc = ATT_E_UNREACHABLE;
        return ATT_E_UNREACHABLE;
    default:
        return rc;
    }
}

const char *keyd_hsm_name(const struct keyd_hsm *hsm)
{
    return hsm->name;
}

/* A module that hangs is nobody's to wait for: its hsmd ends it after a minute. */
static enum att_rc check_silence(struct keyd_hsm *hsm, struct att_err *err)
{
    pthread_mutex_lock(&hsm->lock);
    int64_t silent_ms = hsm->seen.silent_ms;
    pthread_mutex_unlock(&hsm->lock);
    if (silent_ms < KEYD_HSM_SILENT_MS) {
        return ATT_OK;
    }
    (void)!att_fail(err, ATT_E_RETRY, "the module has not come back for %lld s",
                    (long long)(silent_ms / 1000));
    att_err_reason(err, "tokenBusy");
    return ATT_E_RETRY;
}

static enum att_rc take_place(sem_t *places, int count, struct att_err *err)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += WAIT_S;
    for (;;) {
        if (sem_clockwait(places, CLOCK_MONOTONIC, &until) == 0) {
            return ATT_OK;
        }
        if (errno != EINTR) {
            (void)!att_fail(err, ATT_E_RETRY, "hsmd is busy with %d requests", count);
            att_err_reason(err, "tokenBusy");
            return ATT_E_RETRY;
        }
    }
}

enum att_rc keyd_hsm_ask(struct keyd_hsm *hsm, enum proc_hsm_op op, const struct proc_value *values,
                         struct proc_answer *ret_answer, bool *ret_asked, struct att_err *err)
{
    bool signs = op == PROC_HSM_SIGN || op == PROC_HSM_SIGN_RSA;
    sem_t *places = signs ? &hsm->sign_places : &hsm->other_places;
    struct att_err why = {0};
    bool asked = false;
    enum att_rc rc = check_silence(hsm, &why);
    if (rc == ATT_OK) {
        rc = take_place(places, signs ? SIGN_PLACES : OTHER_PLACES, &why);
    }
    if (rc == ATT_OK) {
        bool quick = signs || op == PROC_HSM_DESTROY_IN;
        rc = proc_call(quick ? hsm->signer : hsm->caller, (uint16_t)op, values, -1, ret_answer,
                       &why);
        sem_post(places);
        asked = rc != ATT_E_UNREACHABLE; /* that is: nobody listens */
        rc = translate(rc, &why);
    }
    if (rc != ATT_OK && err) {
        att_err_prefix(&why, "HSM module %s", hsm->name);
        *err = why;
    }
    if (ret_asked) {
        *ret_asked = asked;
    }
    return rc;
}

enum att_rc keyd_hsm_token(struct keyd_hsm *hsm, struct keyd_token *ret_token, struct att_err *err)
{
    proc_autoanswer answer = {0};
    att_autojson *json = NULL;
    enum att_rc rc = check_silence(hsm, err);
    if (rc == ATT_OK) {
        rc = translate(proc_call(hsm->looker, PROC_HSM_INFO, NULL, -1, &answer, err), err);
    }
    if (rc == ATT_OK) {
        rc = att_json_parse(answer.msg.v[PROC_HSM_INFO_REP_JSON].bytes, PROC_HSM_INFO_MAX, &json,
                            err);
    }
    if (rc == ATT_OK) {
        const json_t *token = json_object_get(json, "configured");
        const char *label = json_string_value(json_object_get(token, "label"));
        const char *serial = json_string_value(json_object_get(token, "serial"));
        if (!label || !label[0] || strlen(label) > KEYD_TOKEN_LABEL_MAX || !serial || !serial[0] ||
            strlen(serial) > KEYD_TOKEN_SERIAL_MAX) {
            rc = att_fail(err, ATT_E_RETRY, "hsmd does not say which token it serves");
            att_err_reason(err, "tokenUnknown");
        } else {
            strcpy(ret_token->label, label);
            strcpy(ret_token->serial, serial);
        }
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "HSM module %s", hsm->name);
    }
    return rc;
}

/* ---- waste ----------------------------------------------------------------------------------- */

enum att_rc keyd_hsm_path(const struct keyd *keyd, const char *id, char ret[KEYD_PATH_MAX],
                          struct att_err *err)
{
    char name[64];
    snprintf(name, sizeof name, "agents/%s.hsm", id);
    return keyd_path(keyd, name, ret, err);
}

/* lock is held. Where there is no room the next start finds the file. */
static void put_waste(struct keyd_hsm *hsm, const struct waste *waste)
{
    if (hsm->waste_count < WASTE_MAX) {
        hsm->waste[hsm->waste_count++] = *waste;
    }
}

void keyd_hsm_throw_away(struct keyd_hsm *hsm, const char *id,
                         const uint8_t cka_id[PROC_HSM_KEY_ID_LEN], enum keyd_waste kind)
{
    struct waste waste = {.kind = kind};
    memcpy(waste.id, id, sizeof waste.id);
    memcpy(waste.cka_id, cka_id, sizeof waste.cka_id);
    pthread_mutex_lock(&hsm->lock);
    put_waste(hsm, &waste);
    pthread_cond_broadcast(&hsm->changed);
    pthread_mutex_unlock(&hsm->lock);
}

enum att_rc keyd_hsm_check_waste(struct keyd_hsm *hsm, struct att_err *err)
{
    pthread_mutex_lock(&hsm->lock);
    size_t count = hsm->waste_count + hsm->waste_taken;
    pthread_mutex_unlock(&hsm->lock);
    if (count < WASTE_TOO_MUCH) {
        return ATT_OK;
    }
    (void)!att_fail(err, ATT_E_RETRY,
                    "%zu keys wait to be destroyed in HSM module %s: no more are made until they "
                    "are",
                    count, hsm->name);
    att_err_reason(err, "hsmWaste");
    return ATT_E_RETRY;
}

/* ret_there: there is a file. It may be of an earlier version, which names no token. */
static enum att_rc read_waste(struct keyd_hsm *hsm, const struct waste *waste, bool *ret_there,
                              struct keyd_hsm_file *ret_file, struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    att_autobuf text = ATT_BUF_INIT(KEYD_HSM_FILE_MAX);
    enum att_rc rc = keyd_hsm_path(hsm->keyd, waste->id, path, err);
    *ret_there = false;
    if (rc == ATT_OK) {
        rc = att_io_read_file(path, KEYD_HSM_FILE_MAX, &text, err);
    }
    if (rc == ATT_E_NOTFOUND) {
        return ATT_OK;
    }
    *ret_there = true;
    return rc == ATT_OK ? keyd_hsm_file_parse(att_buf_slice(&text), ret_file, err) : rc;
}

/* Nothing says which token the key is in: that it is not found here does not mean that it is gone.
 * What is found under its random CKA_ID, with its public key where that is known, is it. */
static enum att_rc find_token(struct keyd_hsm *hsm, const struct waste *waste, bool there,
                              const struct keyd_hsm_file *file, struct keyd_token *ret_token,
                              bool *ret_absent, struct att_err *err)
{
    proc_autoanswer answer = {0};
    const struct proc_value values[] = {[PROC_HSM_REQ_KEY_ID] =
                                            proc_bytes(ATT_SLICE_ARRAY(waste->cka_id))};
    enum att_rc rc = keyd_hsm_token(hsm, ret_token, err);
    if (rc == ATT_OK) {
        rc = keyd_hsm_ask(hsm, PROC_HSM_READ, values, &answer, NULL, err);
    }
    if (rc == ATT_E_NOTFOUND && !there) {
        *ret_absent = true; /* neither key nor file */
        return ATT_OK;
    }
    if (rc == ATT_OK && there && file->spki_len &&
        !att_slice_eq(answer.msg.v[PROC_HSM_KEY_REP_SPKI].bytes,
                      ATT_SLICE(file->spki, file->spki_len))) {
        rc = ATT_E_NOTFOUND;
    }
    if (rc == ATT_E_NOTFOUND) {
        rc = att_fail(
            err, ATT_E_CONFLICT,
            "agents/%s.hsm does not say which token its key is in, and it is not in \"%s\"",
            waste->id, ret_token->label);
        att_err_reason(err, "tokenUnknown");
    }
    return rc;
}

static enum att_rc destroy_key(struct keyd_hsm *hsm, const struct waste *waste, struct att_err *err)
{
    proc_autoanswer answer = {0};
    struct keyd_hsm_file file = {.making = false};
    struct keyd_token token = {.label = ""};
    bool there = false, absent = false;
    enum att_rc rc = read_waste(hsm, waste, &there, &file, err);
    if (rc == ATT_OK && there && file.token_label[0]) {
        memcpy(token.label, file.token_label, sizeof token.label);
        memcpy(token.serial, file.token_serial, sizeof token.serial);
    } else if (rc == ATT_OK) {
        rc = find_token(hsm, waste, there, &file, &token, &absent, err);
    }
    if (rc != ATT_OK || absent) {
        return rc;
    }
    const struct proc_value values[] = {[PROC_HSM_REQ_KEY_ID] =
                                            proc_bytes(ATT_SLICE_ARRAY(waste->cka_id)),
                                        [PROC_HSM_DESTROY_IN_REQ_LABEL] = proc_text(token.label),
                                        [PROC_HSM_DESTROY_IN_REQ_SERIAL] = proc_text(token.serial)};
    return keyd_hsm_ask(hsm, PROC_HSM_DESTROY_IN, values, &answer, NULL, err);
}

/* The file goes after the key, so that no key is left that nobody knows of. */
static enum att_rc destroy(struct keyd_hsm *hsm, const struct waste *waste, bool last,
                           struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    enum att_rc rc = destroy_key(hsm, waste, err);
    if (rc == ATT_OK && last) {
        rc = keyd_hsm_path(hsm->keyd, waste->id, path, err);
    }
    if (rc == ATT_OK && last && unlink(path) != 0 && errno != ENOENT) {
        rc = att_fail_errno(err, ATT_E_IO, "remove %s", path);
    }
    return rc;
}

/* lock is held. The one that is due, taken out. */
static bool take_waste(struct keyd_hsm *hsm, int64_t now_ms, struct waste *ret)
{
    for (size_t i = 0; i < hsm->waste_count; i++) {
        if (hsm->waste[i].due_ms <= now_ms) {
            *ret = hsm->waste[i];
            hsm->waste[i] = hsm->waste[--hsm->waste_count];
            hsm->waste_taken = 1;
            return true;
        }
    }
    return false;
}

/* lock is held, and let go in between. One that cannot be destroyed does not hold up the others,
 * and all of them do not hold up the next look: false when it is due. */
static bool sweep(struct keyd_hsm *hsm, int64_t look_at_ms)
{
    struct waste waste;
    while (!hsm->stopping && take_waste(hsm, att_boottime_ms(), &waste)) {
        struct att_err err = {0};
        bool last = waste.kind == KEYD_WASTE_KEY;
        pthread_mutex_unlock(&hsm->lock);
        enum att_rc rc = destroy(hsm, &waste, last, &err);
        pthread_mutex_lock(&hsm->lock);
        hsm->waste_taken = 0;
        snprintf(hsm->waste_why, sizeof hsm->waste_why, "%s%s%s", rc != ATT_OK ? err.reason : "",
                 rc != ATT_OK ? ": " : "", rc != ATT_OK ? err.msg : "");
        if (rc != ATT_OK) {
            waste.due_ms = att_boottime_ms() + AGAIN_MS;
            put_waste(hsm, &waste);
        } else if (!last) {
            waste.kind = KEYD_WASTE_KEY;
            waste.due_ms = att_boottime_ms() + LATE_MS;
            put_waste(hsm, &waste);
        }
        if (att_boottime_ms() >= look_at_ms) {
            return false;
        }
    }
    return true;
}

/* ---- looking after it ------------------------------------------------------------------------ */

static void copy_word(const json_t *json, const char *name, char *ret, size_t room)
{
    const char *text = json_string_value(json_object_get(json, name));
    snprintf(ret, room, "%s", text ? text : "");
}

/* hsmd says nothing of a token that it has not seen. What no evidence can say is as good as
 * nothing: it must not keep an agent from its certificate. */
static void take_token(const json_t *json, struct seen *ret)
{
    copy_word(json, "manufacturer", ret->token.manufacturer, sizeof ret->token.manufacturer);
    copy_word(json, "model", ret->token.model, sizeof ret->token.model);
    copy_word(json, "serial", ret->token.serial, sizeof ret->token.serial);
    ret->has_token = json_is_object(json) && evidence_hsm_token_ok(&ret->token);
}

bool keyd_hsm_token_seen(struct keyd_hsm *hsm, struct evidence_hsm_token *ret_token)
{
    pthread_mutex_lock(&hsm->lock);
    bool has = hsm->seen.has_token;
    *ret_token = hsm->seen.token;
    pthread_mutex_unlock(&hsm->lock);
    return has;
}

static enum att_rc parse_info(const struct proc_answer *answer, struct seen *ret,
                              struct att_err *err)
{
    att_autojson *json = NULL;
    enum att_rc rc =
        att_json_parse(answer->msg.v[PROC_HSM_INFO_REP_JSON].bytes, PROC_HSM_INFO_MAX, &json, err);
    const json_t *silent = json_object_get(json, "silentMs");
    if (rc == ATT_OK && (!json_is_string(json_object_get(json, "state")) ||
                         !json_is_integer(silent) || json_integer_value(silent) < 0)) {
        rc = att_fail(err, ATT_E_PROTOCOL, "hsmd's INFO: no state, or no silentMs");
    }
    if (rc == ATT_OK) {
        copy_word(json, "state", ret->state, sizeof ret->state);
        copy_word(json, "word", ret->word, sizeof ret->word);
        copy_word(json, "reason", ret->message, sizeof ret->message);
        copy_word(json, "pin", ret->pin, sizeof ret->pin);
        ret->silent_ms = json_integer_value(silent);
        take_token(json_object_get(json, "token"), ret);
    }
    return rc;
}

static void look(struct keyd_hsm *hsm)
{
    proc_autoanswer answer = {0};
    struct att_err err = {0};
    struct seen seen = {.state = "hsmdAway", .pin = "unknown"};
    enum att_rc rc = proc_call(hsm->looker, PROC_HSM_INFO, NULL, -1, &answer, &err);
    if (rc == ATT_OK) {
        rc = parse_info(&answer, &seen, &err);
    }
    if (rc != ATT_OK) {
        snprintf(seen.message, sizeof seen.message, "%s", err.msg);
    } else if (seen.silent_ms >= KEYD_HSM_SILENT_MS) {
        snprintf(seen.state, sizeof seen.state, "silent");
        snprintf(seen.message, sizeof seen.message, "the module has not come back for %lld s",
                 (long long)(seen.silent_ms / 1000));
    }
    pthread_mutex_lock(&hsm->lock);
    if (!seen.has_token) { /* away for a moment: the token that was there before */
        seen.has_token = hsm->seen.has_token;
        seen.token = hsm->seen.token;
    }
    hsm->seen = seen;
    pthread_mutex_unlock(&hsm->lock);
}

static void *tend(void *arg)
{
    struct keyd_hsm *hsm = arg;
    int64_t look_at_ms = 0;
    pthread_mutex_lock(&hsm->lock);
    while (!hsm->stopping) {
        if (att_boottime_ms() >= look_at_ms) {
            pthread_mutex_unlock(&hsm->lock);
            look(hsm);
            pthread_mutex_lock(&hsm->lock);
            look_at_ms = att_boottime_ms() + LOOK_MS;
        }
        if (!sweep(hsm, look_at_ms)) {
            continue;
        }
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += LOOK_MS / 1000;
        if (!hsm->stopping) {
            (void)pthread_cond_timedwait(&hsm->changed, &hsm->lock, &until);
        }
    }
    pthread_mutex_unlock(&hsm->lock);
    return NULL;
}

enum att_rc keyd_hsm_start(struct keyd_hsm *hsm, struct att_err *err)
{
    int failed = pthread_create(&hsm->thread, NULL, tend, hsm);
    if (failed) {
        errno = failed;
        return att_fail_errno(err, ATT_E_IO, "start a thread");
    }
    hsm->runs = true;
    return ATT_OK;
}

void keyd_hsm_describe(struct keyd_hsm *hsm, json_t *object)
{
    pthread_mutex_lock(&hsm->lock);
    struct seen seen = hsm->seen;
    size_t waste = hsm->waste_count + hsm->waste_taken;
    char why[sizeof hsm->waste_why];
    memcpy(why, hsm->waste_why, sizeof why);
    pthread_mutex_unlock(&hsm->lock);
    json_object_set_new(object, "state", json_string(seen.state));
    json_object_set_new(object, "word", json_string(seen.word));
    json_object_set_new(object, "reason", json_string(seen.message));
    json_object_set_new(object, "pin", json_string(seen.pin));
    json_object_set_new(object, "waste", json_integer((json_int_t)waste));
    json_object_set_new(object, "wasteReason", json_string(waste ? why : ""));
    if (seen.has_token) {
        json_object_set_new(object, "token",
                            json_pack("{s:s, s:s, s:s}", "manufacturer", seen.token.manufacturer,
                                      "model", seen.token.model, "serial", seen.token.serial));
    }
}
