/* The registry of agents' keys, and the operations on it. */
#include "attestd/keyd/internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"

#include <stdlib.h>
#include <string.h>

/* ---- registry ------------------------------------------------------------------------------ */

/* The index of id, or of the first greater one. */
static size_t lower_bound(const struct keyd *keyd, const char *id)
{
    size_t low = 0, high = keyd->keys_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcmp(keyd->keys[middle].id, id) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static struct keyd_key *find(struct keyd *keyd, const char *id)
{
    size_t at = lower_bound(keyd, id);
    return at < keyd->keys_count && strcmp(keyd->keys[at].id, id) == 0 ? &keyd->keys[at] : NULL;
}

enum att_rc keyd_keys_add(struct keyd *keyd, struct keyd_key *key, struct att_err *err)
{
    pthread_mutex_lock(&keyd->lock);
    enum att_rc rc = ATT_OK;
    struct keyd_key *more = NULL;
    if (keyd->keys_count >= KEYD_KEYS_MAX) {
        rc = att_fail(err, ATT_E_LIMIT, "%d keys are kept at most", KEYD_KEYS_MAX);
    } else {
        more = realloc(keyd->keys, (keyd->keys_count + 1) * sizeof *more);
        rc = more ? ATT_OK : att_fail(err, ATT_E_NOMEM, "a key");
    }
    if (rc == ATT_OK) {
        keyd->keys = more;
        size_t at = lower_bound(keyd, key->id);
        memmove(&more[at + 1], &more[at], (keyd->keys_count - at) * sizeof *more);
        more[at] = *key;
        keyd->keys_count++;
        *key = (struct keyd_key){0};
    }
    pthread_mutex_unlock(&keyd->lock);
    return rc;
}

static enum att_rc copy_key(const struct keyd_key *from, struct keyd_key *ret, struct att_err *err)
{
    keyd_autokey copy = *from;
    copy.held = from->held ? from->store->hold(from->held) : NULL;
    copy.spki = ATT_BUF_INIT(PROC_TPM_STRUCT_MAX);
    att_buf_put_slice(&copy.spki, att_buf_slice(&from->spki));
    enum att_rc rc = att_buf_ok(&copy.spki, err);
    if (rc == ATT_OK) {
        *ret = copy;
        copy = (struct keyd_key){0};
    }
    return rc;
}

enum att_rc keyd_keys_get(struct keyd *keyd, struct att_slice id, struct keyd_key *ret_key,
                          struct att_err *err)
{
    char text[PROC_KEY_ID_LEN + 1];
    if (!proc_key_id_ok(id)) {
        return att_fail(err, ATT_E_INVAL, "keyId: %d lowercase hex digits expected",
                        PROC_KEY_ID_LEN);
    }
    KEYD_TEXT(id, text);
    pthread_mutex_lock(&keyd->lock);
    const struct keyd_key *key = find(keyd, text);
    enum att_rc rc =
        key ? copy_key(key, ret_key, err) : att_fail(err, ATT_E_NOTFOUND, "no key %s", text);
    pthread_mutex_unlock(&keyd->lock);
    return rc;
}

static void show_state(struct keyd *keyd, const char *id, enum keyd_key_state state, uint64_t seq)
{
    pthread_mutex_lock(&keyd->lock);
    struct keyd_key *key = find(keyd, id);
    if (key) {
        key->state = state;
        key->active_seq = seq;
    }
    pthread_mutex_unlock(&keyd->lock);
}

/* The key is written before the registry shows it changed. files is held. */
static enum att_rc set_state(struct keyd *keyd, const char *id, enum keyd_key_state state,
                             uint64_t active_seq, struct att_err *err)
{
    keyd_autokey copy = {0};
    enum att_rc rc = keyd_keys_get(keyd, att_slice_str(id), &copy, err);
    if (rc != ATT_OK) {
        return rc;
    }
    copy.state = state;
    copy.active_seq = active_seq;
    rc = copy.store->keep_state ? copy.store->keep_state(keyd, &copy, err) : ATT_OK;
    if (rc == ATT_OK) {
        show_state(keyd, id, state, active_seq);
    }
    return rc;
}

/* Another active key of the same agent as id that is older; its id in ret. */
static bool older_active(struct keyd *keyd, const char *agent, const char *id, uint64_t seq,
                         char ret[PROC_KEY_ID_LEN + 1], uint64_t *ret_seq)
{
    bool found = false;
    pthread_mutex_lock(&keyd->lock);
    for (size_t i = 0; i < keyd->keys_count && !found; i++) {
        const struct keyd_key *key = &keyd->keys[i];
        found = key->state == KEYD_KEY_ACTIVE && strcmp(key->agent, agent) == 0 &&
                strcmp(key->id, id) != 0 && key->active_seq <= seq;
        if (found) {
            memcpy(ret, key->id, sizeof key->id);
            *ret_seq = key->active_seq;
        }
    }
    pthread_mutex_unlock(&keyd->lock);
    return found;
}

static uint64_t highest_seq(struct keyd *keyd)
{
    uint64_t highest = 0;
    pthread_mutex_lock(&keyd->lock);
    for (size_t i = 0; i < keyd->keys_count; i++) {
        highest = keyd->keys[i].active_seq > highest ? keyd->keys[i].active_seq : highest;
    }
    pthread_mutex_unlock(&keyd->lock);
    return highest;
}

/* Retires the agent's other active keys that are not newer: in memory. On disk the sequence numbers
 * say the same, and keyd_keys_settle reads them so. */
static void retire_older(struct keyd *keyd, const struct keyd_key *than)
{
    char id[PROC_KEY_ID_LEN + 1];
    uint64_t seq = 0;
    while (older_active(keyd, than->agent, than->id, than->active_seq, id, &seq)) {
        show_state(keyd, id, KEYD_KEY_RETIRED, seq);
    }
}

enum att_rc keyd_keys_settle(struct keyd *keyd, struct att_err *err)
{
    for (size_t i = 0; i < keyd->keys_count; i++) { /* no other thread yet */
        keyd_autokey key = {0};
        enum att_rc rc = copy_key(&keyd->keys[i], &key, err);
        if (rc != ATT_OK) {
            return rc;
        }
        if (key.state == KEYD_KEY_ACTIVE) {
            retire_older(keyd, &key);
        }
    }
    return ATT_OK;
}

/* ---- KEY_CREATE ---------------------------------------------------------------------------- */

enum att_rc keyd_new_id(char ret[PROC_KEY_ID_LEN + 1], struct att_err *err)
{
    uint8_t bytes[PROC_KEY_ID_LEN / 2];
    enum att_rc rc = att_random(bytes, sizeof bytes, err);
    if (rc == ATT_OK) {
        att_hex(ret, ATT_SLICE_ARRAY(bytes));
    }
    return rc;
}

static enum att_rc check_room(struct keyd *keyd, const struct keyd_key *key, struct att_err *err)
{
    size_t own = 0, there = 0;
    pthread_mutex_lock(&keyd->lock);
    size_t all = keyd->keys_count;
    for (size_t i = 0; i < keyd->keys_count; i++) {
        own += strcmp(keyd->keys[i].agent, key->agent) == 0;
        there +=
            keyd->keys[i].store == key->store && strcmp(keyd->keys[i].module, key->module) == 0;
    }
    pthread_mutex_unlock(&keyd->lock);
    if (own >= KEYD_AGENT_KEYS_MAX || all >= KEYD_KEYS_MAX) {
        return att_fail(err, ATT_E_LIMIT, "%zu keys of agent %s and %zu in all: at most %d and %d",
                        own, key->agent, all, KEYD_AGENT_KEYS_MAX, KEYD_KEYS_MAX);
    }
    if (there >= key->store->keys_max) {
        return att_fail(err, ATT_E_LIMIT, "%zu %s keys%s%s: at most %zu", there, key->store->name,
                        key->module[0] ? " in module " : "", key->module, key->store->keys_max);
    }
    return ATT_OK;
}

static enum att_rc make_key(struct keyd *keyd, struct keyd_key *key, struct att_err *err)
{
    enum att_rc rc = keyd_new_id(key->id, err);
    if (rc == ATT_OK) {
        rc = keyd_new_id(key->seed_id, err);
    }
    if (rc == ATT_OK) {
        rc = key->store->create(keyd, key, err);
    }
    key->created_at = att_now_utc_s();
    return rc;
}

static void record_values(const struct keyd *keyd, const struct keyd_key *key,
                          struct proc_value ret[PROC_FIELDS_MAX])
{
    ret[PROC_KEY_REC_KEY_ID].bytes = att_slice_str(key->id);
    ret[PROC_KEY_REC_AGENT].bytes = att_slice_str(key->agent);
    ret[PROC_KEY_REC_STATE].bytes = att_slice_str(keyd_key_state_name(key->state));
    ret[PROC_KEY_REC_CREATED_AT].num = (uint64_t)key->created_at;
    ret[PROC_KEY_REC_KEY_STORE].bytes = att_slice_str(key->store->name);
    ret[PROC_KEY_REC_KEY_TYPE].bytes = att_slice_str(att_keytype_name(key->type));
    ret[PROC_KEY_REC_NAME].bytes = parse_name_slice(&key->name);
    ret[PROC_KEY_REC_SPKI].bytes = att_buf_slice(&key->spki);
    ret[PROC_KEY_REC_HSM].bytes = att_slice_str(key->module);
    ret[PROC_KEY_REC_USUAL].num = !key->store->usual || key->store->usual(keyd, key);
}

/* Files first, then the registry, then the answer: whoever was told of a key finds it again. */
static enum att_rc keep_key(struct keyd *keyd, const struct proc_op *op, struct keyd_key *key,
                            struct att_buf *ret_payload, struct att_err *err)
{
    struct proc_value values[PROC_FIELDS_MAX] = {0};
    record_values(keyd, key, values);
    enum att_rc rc = proc_reply_encode(op, values, ret_payload, err);
    if (rc != ATT_OK) {
        key->store->destroy(keyd, key);
        return rc;
    }
    char what[PROC_KEY_ID_LEN + 8] = "key ";
    memcpy(what + 4, key->id, sizeof key->id);
    pthread_mutex_lock(&keyd->files); /* FREEZE takes it, too: before this, or after all of it */
    rc = keyd_frozen_check(keyd, key->agent, err);
    if (rc == ATT_OK) {
        rc = key->store->keep ? key->store->keep(keyd, key, err) : ATT_OK;
    }
    if (rc == ATT_OK) {
        rc = keyd_keys_add(keyd, key, err);
        if (rc != ATT_OK && key->store->drop && key->store->drop(keyd, key, NULL) != ATT_OK) {
            keyd_tell(keyd, KEYD_EVENT_BAD, what, err); /* found by the next start, and orphaned */
        }
    }
    pthread_mutex_unlock(&keyd->files);
    if (rc == ATT_OK) {
        keyd_tell(keyd, KEYD_EVENT_CREATED, what, NULL);
    } else {
        key->store->destroy(keyd, key);
    }
    return rc;
}

static enum att_rc check_type(const struct keyd_key *key, struct att_slice name,
                              struct att_err *err)
{
    if (key->type != ATT_KEYTYPE_NONE && (key->store->rsa || !att_keytype_is_rsa(key->type))) {
        return ATT_OK;
    }
    (void)!att_fail(err, ATT_E_UNSUPPORTED, "keyType: %.*s is none of store %s", (int)name.len,
                    (const char *)name.ptr, key->store->name);
    att_err_reason(err, "keyType");
    return ATT_E_UNSUPPORTED;
}

static enum att_rc choose_module(struct keyd *keyd, struct att_slice name, struct keyd_key *key,
                                 struct att_err *err)
{
    if (key->store->choose) {
        return key->store->choose(keyd, name, key, err);
    }
    if (name.len == 0) {
        return ATT_OK;
    }
    (void)!att_fail(err, ATT_E_UNSUPPORTED,
                    "hsm: expected with keyStore hsm only, found %.*s with %s", (int)name.len,
                    (const char *)name.ptr, key->store->name);
    att_err_reason(err, "hsmModule");
    return ATT_E_UNSUPPORTED;
}

KEYD_OPERATION(key_create)
{
    struct att_slice agent = request->v[PROC_KEY_CREATE_REQ_AGENT].bytes;
    struct att_slice store = request->v[PROC_KEY_CREATE_REQ_KEY_STORE].bytes;
    struct att_slice type = request->v[PROC_KEY_CREATE_REQ_KEY_TYPE].bytes;
    keyd_autokey key = {
        .state = KEYD_KEY_NEW, .store = keyd_store_by_name(store), .type = att_keytype_parse(type)};
    if (!proc_agent_name_ok(agent)) {
        return att_fail(err, ATT_E_INVAL, "agent: a name as [a-z0-9][a-z0-9._-]* expected");
    }
    KEYD_TEXT(agent, key.agent);
    if (!key.store) {
        enum att_rc none = att_fail(err, ATT_E_UNSUPPORTED, "keyStore: %.*s is none of this keyd's",
                                    (int)store.len, (const char *)store.ptr);
        att_err_reason(err, "keyStore");
        return none;
    }
    enum att_rc rc = check_type(&key, type, err);
    if (rc == ATT_OK) {
        rc = choose_module(keyd, request->v[PROC_KEY_CREATE_REQ_HSM].bytes, &key, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_store_ready(keyd, &key, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_frozen_check(keyd, key.agent, err);
    }
    if (rc == ATT_OK) {
        rc = check_room(keyd, &key, err);
    }
    if (rc == ATT_OK) {
        rc = make_key(keyd, &key, err);
    }
    return rc == ATT_OK ? keep_key(keyd, op, &key, ret_payload, err) : rc;
}

/* ---- KEY_LIST ------------------------------------------------------------------------------ */

/* A page ends before its reply would not fit. lock is held. */
static enum att_rc list_page(struct keyd *keyd, const char *after, struct att_buf *store,
                             size_t ends[PROC_KEY_PAGE], size_t *ret_count, struct att_err *err)
{
    size_t at = after[0] ? lower_bound(keyd, after) : 0;
    if (at < keyd->keys_count && strcmp(keyd->keys[at].id, after) == 0) {
        at++;
    }
    size_t count = 0;
    for (; at < keyd->keys_count && count < PROC_KEY_PAGE && store->len < PROC_FRAME_MAX / 2;
         at++) {
        struct proc_value values[PROC_FIELDS_MAX] = {0};
        record_values(keyd, &keyd->keys[at], values);
        enum att_rc rc = proc_msg_encode(&proc_key_record_shape, values, store, err);
        if (rc != ATT_OK) {
            return rc;
        }
        ends[count++] = store->len;
    }
    *ret_count = count;
    return ATT_OK;
}

KEYD_OPERATION(key_list)
{
    struct att_slice after = request->v[PROC_KEY_LIST_REQ_AFTER].bytes;
    if (after.len && !proc_key_id_ok(after)) {
        return att_fail(err, ATT_E_INVAL, "after: a key id or nothing expected");
    }
    char text[PROC_KEY_ID_LEN + 1];
    KEYD_TEXT(after, text);
    att_autobuf store = ATT_BUF_INIT(PROC_FRAME_MAX);
    size_t ends[PROC_KEY_PAGE], count = 0;
    pthread_mutex_lock(&keyd->lock);
    enum att_rc rc = list_page(keyd, text, &store, ends, &count, err);
    pthread_mutex_unlock(&keyd->lock);
    if (rc != ATT_OK) {
        return rc;
    }
    struct att_slice items[PROC_KEY_PAGE];
    for (size_t i = 0, start = 0; i < count; start = ends[i++]) {
        items[i] = ATT_SLICE(store.ptr + start, ends[i] - start);
    }
    const struct proc_value values[] = {
        [PROC_KEY_LIST_REP_RECORDS] = {.items = items, .item_count = count}};
    return proc_reply_encode(op, values, ret_payload, err);
}

/* ---- states -------------------------------------------------------------------------------- */

KEYD_OPERATION(key_activate)
{
    keyd_autokey key = {0};
    enum att_rc rc = keyd_keys_get(keyd, request->v[PROC_KEY_STATE_REQ_KEY_ID].bytes, &key, err);
    if (rc != ATT_OK) {
        return rc;
    }
    pthread_mutex_lock(&keyd->files); /* FREEZE takes it, too: none can come in between */
    rc = keyd_frozen_check(keyd, key.agent, err);
    if (rc == ATT_OK) {
        /* One file decides: the highest sequence number is the active key, also after a cut-off. */
        key.active_seq = highest_seq(keyd) + 1;
        rc = set_state(keyd, key.id, KEYD_KEY_ACTIVE, key.active_seq, err);
    }
    if (rc == ATT_OK) {
        retire_older(keyd, &key);
    }
    pthread_mutex_unlock(&keyd->files);
    return rc == ATT_OK ? proc_reply_encode(op, NULL, ret_payload, err) : rc;
}

KEYD_OPERATION(key_retire)
{
    keyd_autokey key = {0};
    pthread_mutex_lock(&keyd->files);
    enum att_rc rc = keyd_keys_get(keyd, request->v[PROC_KEY_STATE_REQ_KEY_ID].bytes, &key, err);
    if (rc == ATT_OK) {
        rc = set_state(keyd, key.id, KEYD_KEY_RETIRED, key.active_seq, err);
    }
    pthread_mutex_unlock(&keyd->files);
    return rc == ATT_OK ? proc_reply_encode(op, NULL, ret_payload, err) : rc;
}

static void forget(struct keyd *keyd, const char *id)
{
    pthread_mutex_lock(&keyd->lock);
    struct keyd_key *key = find(keyd, id);
    if (key) {
        size_t at = (size_t)(key - keyd->keys);
        keyd_key_done(key);
        keyd->keys_count--;
        memmove(key, key + 1, (keyd->keys_count - at) * sizeof *key);
    }
    pthread_mutex_unlock(&keyd->lock);
}

static enum att_rc destroy_key(struct keyd *keyd, struct att_slice id, struct att_err *err)
{
    keyd_autokey key = {0};
    pthread_mutex_lock(&keyd->files);
    enum att_rc rc = keyd_keys_get(keyd, id, &key, err);
    bool absent = rc == ATT_E_NOTFOUND;
    if (absent) {
        att_err_clear(err);
        rc = ATT_OK;
    } else if (rc == ATT_OK) {
        rc = key.store->drop ? key.store->drop(keyd, &key, err) : ATT_OK;
        if (rc == ATT_OK) {
            forget(keyd, key.id);
        }
    }
    pthread_mutex_unlock(&keyd->files);
    if (rc == ATT_OK && !absent) {
        key.store->destroy(keyd, &key);
    }
    return rc;
}

KEYD_OPERATION(key_destroy)
{
    enum att_rc rc = destroy_key(keyd, request->v[PROC_KEY_STATE_REQ_KEY_ID].bytes, err);
    return rc == ATT_OK ? proc_reply_encode(op, NULL, ret_payload, err) : rc;
}

/* ---- the storage parent ---------------------------------------------------------------------- */

static bool is_outside(const struct keyd *keyd, const struct keyd_key *key)
{
    return key->store == &keyd_store_tpm &&
           keyd_seal_outside(keyd, &keyd_tpm_blob(key)->parent_name);
}

size_t keyd_keys_outside(const struct keyd *keyd)
{
    size_t n = 0;
    for (size_t i = 0; i < keyd->keys_count; i++) {
        n += is_outside(keyd, &keyd->keys[i]);
    }
    return n;
}

static bool spare_outside(struct keyd *keyd, char ret[PROC_KEY_ID_LEN + 1])
{
    bool found = false;
    pthread_mutex_lock(&keyd->lock);
    for (size_t i = 0; i < keyd->keys_count && !found; i++) {
        found = keyd->keys[i].state == KEYD_KEY_NEW && is_outside(keyd, &keyd->keys[i]);
        if (found) {
            memcpy(ret, keyd->keys[i].id, sizeof keyd->keys[i].id);
        }
    }
    pthread_mutex_unlock(&keyd->lock);
    return found;
}

enum att_rc keyd_keys_drop_outside(struct keyd *keyd, struct att_err *err)
{
    char id[PROC_KEY_ID_LEN + 1], what[PROC_KEY_ID_LEN + 8] = "key ";
    enum att_rc rc = ATT_OK;
    while (rc == ATT_OK && spare_outside(keyd, id)) {
        rc = destroy_key(keyd, att_slice_str(id), err);
        if (rc == ATT_OK) {
            memcpy(what + 4, id, sizeof id);
            keyd_tell(keyd, KEYD_EVENT_MIGRATED, what, NULL);
        }
    }
    return rc;
}
