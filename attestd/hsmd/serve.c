/* The operations, and the look after the token. */
#include "attestd/hsmd/hsmd.h"

#include "attestd/base/clock.h"
#include "attestd/base/json.h"
#include "attestd/proc/hsm_proto.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_TIMEOUT_MS 10000
#define MAKING_MAX       PROC_CONNECTIONS_MAX /* a connection asks for one thing at a time */

_Static_assert(PROC_HSM_LABEL_MAX == HSM_LABEL_MAX && PROC_HSM_SERIAL_MAX == HSM_SERIAL_MAX,
               "token");
_Static_assert(PROC_HSM_KEY_ID_LEN == HSM_KEY_ID_LEN, "CKA_ID");
_Static_assert((int)PROC_HSM_ATTR_COUNT == (int)HSM_ATTR_COUNT, "attributes of the wire");
_Static_assert((int)PROC_HSM_ATTR_MODIFIABLE == (int)HSM_ATTR_MODIFIABLE, "attributes of the wire");
_Static_assert((int)PROC_HSM_ATTR_NEVER_EXTRACTABLE == (int)HSM_ATTR_NEVER_EXTRACTABLE,
               "attributes of the wire");

enum hsmd_state { STARTING, READY, AWAY, FAILED };

struct hsmd {
    struct proc_server *server;
    void (*on_event)(void *user, const char *event, const struct att_err *err);
    void *user;
    struct proc_sandbox_report sandbox;
    struct hsm *hsm; /* set before the server starts */
    atomic_ullong signatures, failures;

    pthread_mutex_t lock;
    enum hsmd_state state;
    struct att_err why;
    enum hsm_pin pin; /* that was told last */
    uint8_t making[MAKING_MAX][HSM_KEY_ID_LEN];
    size_t making_count;
};

static void tell(struct hsmd *hsmd, const char *event, const struct att_err *err)
{
    if (hsmd->on_event) {
        hsmd->on_event(hsmd->user, event, err);
    }
}

/* ---- state ----------------------------------------------------------------------------------- */

static bool is_for_an_operator(enum att_rc rc)
{
    return rc == ATT_E_AUTH || rc == ATT_E_LOCKOUT || rc == ATT_E_DENIED || rc == ATT_E_CONFLICT ||
           rc == ATT_E_UNSUPPORTED;
}

bool hsmd_stuck(const struct hsmd *hsmd)
{
    struct hsm_info info;
    hsm_info_get(hsmd->hsm, &info);
    return info.busy_since_ms && att_boottime_ms() - info.busy_since_ms > HSMD_STUCK_MS;
}

/* Others give the token wrong PINs, too. Only hsmd_poll's thread comes here. */
static void tell_pin(struct hsmd *hsmd)
{
    struct hsm_info info;
    struct att_err err = {0};
    hsm_info_get(hsmd->hsm, &info);
    if (info.pin == hsmd->pin || info.pin == HSM_PIN_UNKNOWN) {
        return;
    }
    bool was_unknown = hsmd->pin == HSM_PIN_UNKNOWN;
    hsmd->pin = info.pin;
    if (info.pin == HSM_PIN_OK) {
        if (!was_unknown) {
            tell(hsmd, "pinOk", NULL);
        }
        return;
    }
    (void)!att_fail(&err, ATT_E_LOCKOUT, "the token says of its user PIN: %s",
                    hsm_pin_name(info.pin));
    att_err_reason(&err, hsm_pin_name(info.pin));
    tell(hsmd, "pinWarning", &err);
}

void hsmd_poll(struct hsmd *hsmd)
{
    static const char *const events[] = {"starting", "tokenReady", "tokenAway", "failed"};
    struct att_err err = {0};
    enum att_rc rc = hsm_poll(hsmd->hsm, &err);
    pthread_mutex_lock(&hsmd->lock);
    enum hsmd_state before = hsmd->state;
    if (rc == ATT_OK) {
        hsmd->state = READY;
    } else if (rc != ATT_E_TIMEOUT && rc != ATT_E_RETRY) { /* busy says nothing */
        hsmd->state = is_for_an_operator(rc) ? FAILED : AWAY;
        hsmd->why = err;
    }
    enum hsmd_state now = hsmd->state;
    pthread_mutex_unlock(&hsmd->lock);
    if (now != before) {
        tell(hsmd, events[now], rc == ATT_OK ? NULL : &err);
    }
    tell_pin(hsmd);
}

static const char *state_name(enum hsmd_state state)
{
    static const char *const names[] = {"starting", "ready", "tokenGone", "failed"};
    return names[state];
}

void hsmd_status(struct hsmd *hsmd, char *ret, size_t room)
{
    pthread_mutex_lock(&hsmd->lock);
    snprintf(ret, room, "%s; %llu signatures, %llu failures%s%.150s", state_name(hsmd->state),
             (unsigned long long)atomic_load(&hsmd->signatures),
             (unsigned long long)atomic_load(&hsmd->failures),
             hsmd->state == AWAY || hsmd->state == FAILED ? ": " : "",
             hsmd->state == AWAY || hsmd->state == FAILED ? hsmd->why.msg : "");
    pthread_mutex_unlock(&hsmd->lock);
}

static json_t *token_json(const struct hsm_info *info)
{
    return json_pack("{s:s, s:s, s:s, s:s, s:s}", "label", info->label, "serial", info->serial,
                     "manufacturer", info->manufacturer, "model", info->model, "firmware",
                     info->firmware);
}

static enum att_rc op_info(struct hsmd *hsmd, const struct proc_op *op, struct att_buf *ret_payload,
                           struct att_err *err)
{
    struct hsm_info info;
    hsm_info_get(hsmd->hsm, &info);
    pthread_mutex_lock(&hsmd->lock);
    enum hsmd_state state = hsmd->state;
    struct att_err why = hsmd->why;
    pthread_mutex_unlock(&hsmd->lock);
    bool down = state == AWAY || state == FAILED;
    int64_t silent_ms = info.silent_since_ms ? att_boottime_ms() - info.silent_since_ms : 0;
    att_autojson *json = json_pack(
        "{s:i, s:s, s:s*, s:s*, s:s, s:I, s:o*, s:{s:s, s:s}, s:i, s:I, s:I, s:I, s:{s:s, s:s, "
        "s:i, s:s}}",
        "version", 1, "state", state_name(state), "word", down ? why.reason : NULL, "reason",
        down ? why.msg : NULL, "pin", hsm_pin_name(info.pin), "silentMs", (json_int_t)silent_ms,
        "token", info.connections ? token_json(&info) : NULL, "configured", "label",
        hsm_token_label(hsmd->hsm), "serial", hsm_token_serial(hsmd->hsm), "sessions",
        (int)info.sessions, "connections", (json_int_t)info.connections, "signatures",
        (json_int_t)atomic_load(&hsmd->signatures), "failures",
        (json_int_t)atomic_load(&hsmd->failures), "sandbox", "profile", hsmd->sandbox.profile,
        "seccomp", hsmd->sandbox.seccomp, "landlock", hsmd->sandbox.landlock_abi, "reason",
        hsmd->sandbox.reason);
    att_autobuf text = ATT_BUF_INIT(PROC_HSM_INFO_MAX);
    if (!json) {
        return att_fail(err, ATT_E_NOMEM, "INFO");
    }
    enum att_rc rc = att_json_dump(json, false, &text, err);
    const struct proc_value values[] = {[PROC_HSM_INFO_REP_JSON] = {.bytes = att_buf_slice(&text)}};
    return rc == ATT_OK ? proc_reply_encode(op, values, ret_payload, err) : rc;
}

/* ---- keys ------------------------------------------------------------------------------------ */

static enum att_rc key_reply(const struct proc_op *op, const struct hsm_key *key,
                             struct att_buf *ret_payload, struct att_err *err)
{
    const struct proc_value values[] = {
        [PROC_HSM_KEY_REP_SPKI] = {.bytes = ATT_SLICE(key->spki, key->spki_len)},
        [PROC_HSM_KEY_REP_STATED] = {.num = key->stated},
        [PROC_HSM_KEY_REP_HOLDS] = {.num = key->holds},
    };
    return proc_reply_encode(op, values, ret_payload, err);
}

/* lock is held; making_count: it is not there. */
static size_t place_of(const struct hsmd *hsmd, const uint8_t id[HSM_KEY_ID_LEN])
{
    size_t at = 0;
    while (at < hsmd->making_count && memcmp(hsmd->making[at], id, HSM_KEY_ID_LEN) != 0) {
        at++;
    }
    return at;
}

static bool begin_making(struct hsmd *hsmd, const uint8_t id[HSM_KEY_ID_LEN])
{
    pthread_mutex_lock(&hsmd->lock);
    bool ok = hsmd->making_count < MAKING_MAX && place_of(hsmd, id) == hsmd->making_count;
    if (ok) {
        memcpy(hsmd->making[hsmd->making_count++], id, HSM_KEY_ID_LEN);
    }
    pthread_mutex_unlock(&hsmd->lock);
    return ok;
}

static void end_making(struct hsmd *hsmd, const uint8_t id[HSM_KEY_ID_LEN])
{
    pthread_mutex_lock(&hsmd->lock);
    size_t at = place_of(hsmd, id);
    memmove(hsmd->making[at], hsmd->making[--hsmd->making_count], HSM_KEY_ID_LEN);
    pthread_mutex_unlock(&hsmd->lock);
}

/* Who asked for the key may have gone, and the next one wants it destroyed: not to be found is not
 * to be absent while the module still works on it. */
static enum att_rc check_not_making(struct hsmd *hsmd, const uint8_t id[HSM_KEY_ID_LEN],
                                    struct att_err *err)
{
    pthread_mutex_lock(&hsmd->lock);
    bool making = place_of(hsmd, id) < hsmd->making_count;
    pthread_mutex_unlock(&hsmd->lock);
    if (!making) {
        return ATT_OK;
    }
    (void)!att_fail(err, ATT_E_RETRY, "the module is still making this key");
    att_err_reason(err, "keyMaking");
    return ATT_E_RETRY;
}

/* Said by the configuration that this process was started with: nothing can change it under way. */
static enum att_rc check_token(const struct hsmd *hsmd, struct att_slice label,
                               struct att_slice serial, struct att_err *err)
{
    const char *own_label = hsm_token_label(hsmd->hsm), *own_serial = hsm_token_serial(hsmd->hsm);
    if (att_slice_eq_str(label, own_label) && att_slice_eq_str(serial, own_serial)) {
        return ATT_OK;
    }
    (void)!att_fail(err, ATT_E_CONFLICT,
                    "the key belongs to token \"%.*s\", serial \"%.*s\": this module's is \"%s\", "
                    "serial \"%s\"",
                    (int)label.len, (const char *)label.ptr, (int)serial.len,
                    (const char *)serial.ptr, own_label, own_serial);
    att_err_reason(err, "tokenOther");
    return ATT_E_CONFLICT;
}

static enum att_rc op_create(struct hsmd *hsmd, const struct proc_op *op,
                             const struct proc_value *v, struct att_buf *ret_payload,
                             struct att_err *err)
{
    struct hsm_key key;
    enum att_keytype type = att_keytype_parse(v[PROC_HSM_CREATE_REQ_TYPE].bytes);
    if (type == ATT_KEYTYPE_NONE) {
        (void)!att_fail(err, ATT_E_UNSUPPORTED, "type: ec-p256, rsa-2048 or rsa-3072 expected");
        att_err_reason(err, "keyType");
        return ATT_E_UNSUPPORTED;
    }
    const uint8_t *id = v[PROC_HSM_CREATE_REQ_KEY_ID].bytes.ptr;
    if (!begin_making(hsmd, id)) {
        return att_fail(err, ATT_E_EXISTS, "this CKA_ID is being made");
    }
    enum att_rc rc = hsm_key_create(hsmd->hsm, id, type, &key, err);
    end_making(hsmd, id);
    return rc == ATT_OK ? key_reply(op, &key, ret_payload, err) : rc;
}

static enum att_rc op_create_in(struct hsmd *hsmd, const struct proc_op *op,
                                const struct proc_value *v, struct att_buf *ret_payload,
                                struct att_err *err)
{
    enum att_rc rc = check_token(hsmd, v[PROC_HSM_CREATE_IN_REQ_LABEL].bytes,
                                 v[PROC_HSM_CREATE_IN_REQ_SERIAL].bytes, err);
    return rc == ATT_OK ? op_create(hsmd, op, v, ret_payload, err) : rc;
}

static enum att_rc op_read(struct hsmd *hsmd, const struct proc_op *op, const struct proc_value *v,
                           struct att_buf *ret_payload, struct att_err *err)
{
    struct hsm_key key;
    enum att_rc rc = hsm_key_read(hsmd->hsm, v[PROC_HSM_REQ_KEY_ID].bytes.ptr, &key, err);
    return rc == ATT_OK ? key_reply(op, &key, ret_payload, err) : rc;
}

static enum att_rc op_sign(struct hsmd *hsmd, const struct proc_op *op, const struct proc_value *v,
                           struct att_buf *ret_payload, struct att_err *err)
{
    uint8_t raw[HSM_SIGNATURE_LEN];
    enum att_rc rc = hsm_key_sign(hsmd->hsm, v[PROC_HSM_SIGN_REQ_KEY_ID].bytes.ptr,
                                  v[PROC_HSM_SIGN_REQ_DIGEST].bytes.ptr, raw, err);
    if (rc != ATT_OK) {
        return rc;
    }
    atomic_fetch_add(&hsmd->signatures, 1);
    const struct proc_value values[] = {
        [PROC_HSM_SIGN_REP_SIGNATURE] = {.bytes = ATT_SLICE_ARRAY(raw)}};
    return proc_reply_encode(op, values, ret_payload, err);
}

static enum att_rc op_sign_rsa(struct hsmd *hsmd, const struct proc_op *op,
                               const struct proc_value *v, struct att_buf *ret_payload,
                               struct att_err *err)
{
    uint8_t signature[HSM_SIGNATURE_MAX];
    size_t len = 0;
    enum att_rc rc = hsm_key_sign_rsa(hsmd->hsm, v[PROC_HSM_SIGN_RSA_REQ_KEY_ID].bytes.ptr,
                                      (enum att_rsa_scheme)v[PROC_HSM_SIGN_RSA_REQ_SCHEME].num,
                                      v[PROC_HSM_SIGN_RSA_REQ_DIGEST].bytes, signature, &len, err);
    if (rc != ATT_OK) {
        return rc;
    }
    atomic_fetch_add(&hsmd->signatures, 1);
    const struct proc_value values[] = {
        [PROC_HSM_SIGN_REP_SIGNATURE] = {.bytes = ATT_SLICE(signature, len)}};
    return proc_reply_encode(op, values, ret_payload, err);
}

static enum att_rc op_destroy(struct hsmd *hsmd, const struct proc_op *op,
                              const struct proc_value *v, struct att_buf *ret_payload,
                              struct att_err *err)
{
    const uint8_t *id = v[PROC_HSM_REQ_KEY_ID].bytes.ptr;
    enum att_rc rc = check_not_making(hsmd, id, err);
    if (rc == ATT_OK) {
        rc = hsm_key_destroy(hsmd->hsm, id, err);
    }
    return rc == ATT_OK ? proc_reply_encode(op, NULL, ret_payload, err) : rc;
}

static enum att_rc op_destroy_in(struct hsmd *hsmd, const struct proc_op *op,
                                 const struct proc_value *v, struct att_buf *ret_payload,
                                 struct att_err *err)
{
    enum att_rc rc = check_token(hsmd, v[PROC_HSM_DESTROY_IN_REQ_LABEL].bytes,
                                 v[PROC_HSM_DESTROY_IN_REQ_SERIAL].bytes, err);
    return rc == ATT_OK ? op_destroy(hsmd, op, v, ret_payload, err) : rc;
}

static enum att_rc op_list(struct hsmd *hsmd, const struct proc_op *op, const struct proc_value *v,
                           struct att_buf *ret_payload, struct att_err *err)
{
    struct att_slice after = v[PROC_HSM_LIST_REQ_AFTER].bytes;
    uint8_t ids[PROC_HSM_PAGE][HSM_KEY_ID_LEN];
    size_t count = 0;
    if (after.len && after.len != HSM_KEY_ID_LEN) {
        return att_fail(err, ATT_E_INVAL, "after: a key id or nothing expected");
    }
    enum att_rc rc =
        hsm_key_list(hsmd->hsm, after.len ? after.ptr : NULL, ids, PROC_HSM_PAGE, &count, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct att_slice items[PROC_HSM_PAGE];
    for (size_t i = 0; i < count; i++) {
        items[i] = ATT_SLICE_ARRAY(ids[i]);
    }
    const struct proc_value values[] = {
        [PROC_HSM_LIST_REP_KEY_IDS] = {.items = items, .item_count = count}};
    return proc_reply_encode(op, values, ret_payload, err);
}

static enum att_rc serve(void *user, const struct proc_peer *peer, const struct proc_op *op,
                         const struct proc_msg *request, struct att_buf *ret_payload,
                         struct att_err *err)
{
    struct hsmd *hsmd = user;
    enum att_rc rc = ATT_E_INTERNAL;
    (void)peer;
    switch ((enum proc_hsm_op)op->op) {
    case PROC_HSM_INFO:
        rc = op_info(hsmd, op, ret_payload, err);
        break;
    case PROC_HSM_CREATE:
        rc = op_create(hsmd, op, request->v, ret_payload, err);
        break;
    case PROC_HSM_READ:
        rc = op_read(hsmd, op, request->v, ret_payload, err);
        break;
    case PROC_HSM_SIGN:
        rc = op_sign(hsmd, op, request->v, ret_payload, err);
        break;
    case PROC_HSM_SIGN_RSA:
        rc = op_sign_rsa(hsmd, op, request->v, ret_payload, err);
        break;
    case PROC_HSM_DESTROY:
        rc = op_destroy(hsmd, op, request->v, ret_payload, err);
        break;
    case PROC_HSM_DESTROY_IN:
        rc = op_destroy_in(hsmd, op, request->v, ret_payload, err);
        break;
    case PROC_HSM_CREATE_IN:
        rc = op_create_in(hsmd, op, request->v, ret_payload, err);
        break;
    case PROC_HSM_LIST:
        rc = op_list(hsmd, op, request->v, ret_payload, err);
        break;
    }
    if (rc != ATT_OK) {
        atomic_fetch_add(&hsmd->failures, 1);
        tell(hsmd, op->name, err);
    }
    return rc;
}

/* ---- birth and end --------------------------------------------------------------------------- */

enum att_rc hsmd_new(const struct hsmd_opts *opts, struct hsmd **ret_hsmd, struct att_err *err)
{
    struct hsmd *hsmd = calloc(1, sizeof *hsmd);
    if (!hsmd) {
        return att_fail(err, ATT_E_NOMEM, "hsmd");
    }
    pthread_mutex_init(&hsmd->lock, NULL);
    hsmd->on_event = opts->on_event;
    hsmd->user = opts->user;
    const struct proc_server_opts server = {.path = opts->socket_path,
                                            .clients = opts->clients,
                                            .table = proc_hsm_table,
                                            .handler = serve,
                                            .user = hsmd,
                                            .frame_timeout_ms = FRAME_TIMEOUT_MS};
    enum att_rc rc = proc_server_new(&server, &hsmd->server, err);
    if (rc != ATT_OK) {
        hsmd_free(hsmd);
        return rc;
    }
    *ret_hsmd = hsmd;
    return ATT_OK;
}

void hsmd_set_sandbox(struct hsmd *hsmd, const struct proc_sandbox_report *report)
{
    hsmd->sandbox = *report;
}

enum att_rc hsmd_start(struct hsmd *hsmd, struct hsm *hsm, struct att_err *err)
{
    hsmd->hsm = hsm;
    return proc_server_start(hsmd->server, err);
}

void hsmd_free(struct hsmd *hsmd)
{
    if (hsmd) {
        proc_server_free(hsmd->server);
        pthread_mutex_destroy(&hsmd->lock);
        free(hsmd);
    }
}
