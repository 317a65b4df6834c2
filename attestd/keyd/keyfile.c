/* One agent's key on disk: agents/<id>.pem and its sidecar agents/<id>.json. */
#include "attestd/keyd/internal.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SIDECAR_MAX 2048

static const char *const state_names[] = {"new", "active", "retired"};

const char *keyd_key_state_name(enum keyd_key_state state)
{
    return state_names[state];
}

void keyd_key_done(struct keyd_key *key)
{
    if (key) {
        att_buf_done(&key->spki);
        if (key->held) {
            key->store->release(key->held);
        }
        *key = (struct keyd_key){0};
    }
}

/* ---- sidecar ------------------------------------------------------------------------------- */

static enum att_rc sidecar_text(const struct keyd_key *key, struct att_buf *ret_text,
                                struct att_err *err)
{
    const struct parse_name *parent_name = &keyd_tpm_blob(key)->parent_name;
    char parent[2 * sizeof parent_name->bytes + 1];
    att_hex(parent, parse_name_slice(parent_name));
    att_autojson *json = json_pack("{s:i, s:s, s:s, s:s, s:s, s:I, s:I, s:s}", "version", 1, "id",
                                   key->id, "agent", key->agent, "seed", key->seed_id, "state",
                                   state_names[key->state], "created", (json_int_t)key->created_at,
                                   "activations", (json_int_t)key->active_seq, "parent", parent);
    if (!json) {
        return att_fail(err, ATT_E_NOMEM, "sidecar");
    }
    return att_json_dump(json, false, ret_text, err);
}

static enum att_rc need_text(const json_t *json, const char *name, char *ret, size_t room,
                             struct att_err *err)
{
    const char *text = NULL;
    enum att_rc rc = att_json_str(json, name, &text, err);
    if (rc == ATT_OK && strlen(text) >= room) {
        rc = att_fail(err, ATT_E_PARSE, "%s: too long", name);
    }
    if (rc == ATT_OK) {
        memcpy(ret, text, strlen(text) + 1);
    }
    return rc;
}

static enum att_rc need_number(const json_t *json, const char *name, json_int_t *ret,
                               struct att_err *err)
{
    const json_t *value = json_object_get(json, name);
    if (!json_is_integer(value) || json_integer_value(value) < 0) {
        return att_fail(err, ATT_E_PARSE, "%s: expected a number that is not negative", name);
    }
    *ret = json_integer_value(value);
    return ATT_OK;
}

static enum att_rc state_by_name(const char *name, enum keyd_key_state *ret, struct att_err *err)
{
    for (size_t i = 0; i < sizeof state_names / sizeof state_names[0]; i++) {
        if (strcmp(name, state_names[i]) == 0) {
            *ret = (enum keyd_key_state)i;
            return ATT_OK;
        }
    }
    return att_fail(err, ATT_E_PARSE, "state: %.20s is none", name);
}

static enum att_rc parse_members(const json_t *json, struct keyd_key *key, struct att_err *err)
{
    json_int_t version = 0, created = 0, activations = 0;
    char state[16], parent[2 * sizeof key->name.bytes + 1];
    enum att_rc rc = need_number(json, "version", &version, err);
    if (rc == ATT_OK && (version != 1 || json_object_size(json) != 8)) {
        rc = att_fail(err, ATT_E_PARSE, "expected version 1 with its 8 members");
    }
    if (rc == ATT_OK) {
        rc = need_text(json, "id", key->id, sizeof key->id, err);
    }
    if (rc == ATT_OK) {
        rc = need_text(json, "agent", key->agent, sizeof key->agent, err);
    }
    if (rc == ATT_OK) {
        rc = need_text(json, "seed", key->seed_id, sizeof key->seed_id, err);
    }
    if (rc == ATT_OK) {
        rc = need_text(json, "state", state, sizeof state, err);
    }
    if (rc == ATT_OK) {
        rc = state_by_name(state, &key->state, err);
    }
    if (rc == ATT_OK) {
        rc = need_text(json, "parent", parent, sizeof parent, err);
    }
    if (rc == ATT_OK) {
        rc = need_number(json, "created", &created, err);
    }
    if (rc == ATT_OK) {
        rc = need_number(json, "activations", &activations, err);
    }
    key->created_at = created;
    key->active_seq = (uint64_t)activations;
    return rc;
}

enum att_rc keyd_sidecar_parse(struct att_slice text, struct keyd_key *key, struct att_err *err)
{
    att_autojson *json = NULL;
    enum att_rc rc = att_json_parse(text, SIDECAR_MAX, &json, err);
    if (rc == ATT_OK && !json_is_object(json)) {
        rc = att_fail(err, ATT_E_PARSE, "expected an object");
    }
    if (rc == ATT_OK) {
        rc = parse_members(json, key, err);
    }
    if (rc == ATT_OK &&
        (!proc_agent_name_ok(att_slice_str(key->agent)) ||
         !proc_key_id_ok(att_slice_str(key->id)) || !proc_key_id_ok(att_slice_str(key->seed_id)))) {
        rc = att_fail(err, ATT_E_PARSE, "agent, id or seed has not its form");
    }
    return rc;
}

/* ---- both files ---------------------------------------------------------------------------- */

static void file_name(const char *id, const char *ext, char ret[64])
{
    snprintf(ret, 64, "agents/%s.%s", id, ext);
}

static enum att_rc read_sidecar(struct keyd *keyd, const char *id, struct keyd_key *key,
                                struct att_err *err)
{
    char name[64], path[KEYD_PATH_MAX];
    file_name(id, "json", name);
    att_autobuf text = ATT_BUF_INIT(SIDECAR_MAX);
    enum att_rc rc = keyd_path(keyd, name, path, err);
    if (rc == ATT_OK) {
        rc = att_io_read_file(path, SIDECAR_MAX, &text, err);
    }
    if (rc == ATT_OK || rc == ATT_E_LIMIT) {
        struct att_err cause = {0};
        rc = rc == ATT_OK ? keyd_sidecar_parse(att_buf_slice(&text), key, &cause) : rc;
        if (rc == ATT_OK && strcmp(key->id, id) != 0) {
            rc = att_fail(&cause, ATT_E_PARSE, "is about key %s", key->id);
        }
        if (rc == ATT_E_PARSE || rc == ATT_E_LIMIT) {
            att_err_clear(err);
            rc = keyd_state_bad(keyd, name, err);
            return rc == ATT_OK ? att_fail(err, ATT_E_CONFLICT, "%s: %s", path, cause.msg) : rc;
        }
    }
    return rc;
}

enum att_rc keyd_keyfile_load(struct keyd *keyd, const char *id, struct keyd_key *ret_key,
                              struct att_err *err)
{
    char name[64];
    file_name(id, "pem", name);
    keyd_autokey key = {.store = &keyd_store_tpm};
    tpm_autoblob blob = {0};
    enum att_rc rc = read_sidecar(keyd, id, &key, err);
    if (rc == ATT_OK) {
        rc = keyd_state_blob(keyd, name, TPM_BLOB_KEY, &blob, err);
    }
    struct att_err cause = {0};
    if (rc == ATT_OK) {
        rc = keyd_tpm_adopt(&key, &blob, &cause);
        bool broken = rc != ATT_OK && rc != ATT_E_NOMEM && rc != ATT_E_CRYPTO;
        if (broken) {
            rc = keyd_state_bad(keyd, name, err);
            rc = rc == ATT_OK ? ATT_E_CONFLICT : rc;
        }
        if (rc != ATT_OK) {
            return att_fail(err, rc, "%s: %s", name, cause.msg);
        }
    }
    if (rc != ATT_OK) {
        return rc;
    }
    *ret_key = key;
    key = (struct keyd_key){0};
    return ATT_OK;
}

static enum att_rc stage_sidecar(const struct keyd *keyd, const struct keyd_key *key,
                                 char ret_path[KEYD_PATH_MAX], struct att_io_staged *ret_staged,
                                 struct att_err *err)
{
    char name[64];
    att_autobuf text = ATT_BUF_INIT(SIDECAR_MAX);
    file_name(key->id, "json", name);
    enum att_rc rc = keyd_path(keyd, name, ret_path, err);
    if (rc == ATT_OK) {
        rc = sidecar_text(key, &text, err);
    }
    return rc == ATT_OK ? att_io_stage(ret_path, att_buf_slice(&text), 0600, ret_staged, err) : rc;
}

/* The folder was synced after their PEMs were removed: without these nothing is missed. */
static void remove_sidecars(struct keyd *keyd)
{
    for (size_t i = 0; i < keyd->dropped_count; i++) {
        char name[64], path[KEYD_PATH_MAX];
        file_name(keyd->dropped[i], "json", name);
        if (keyd_path(keyd, name, path, NULL) == ATT_OK) {
            (void)unlink(path); /* a sidecar alone is removed at the next start, too */
        }
    }
    keyd->dropped_count = 0;
}

enum att_rc keyd_keyfile_write(struct keyd *keyd, const struct keyd_key *key, struct att_err *err)
{
    char name[64], path[KEYD_PATH_MAX];
    struct att_io_staged staged;
    enum att_rc rc = stage_sidecar(keyd, key, path, &staged, err);
    if (rc == ATT_OK) {
        rc = att_io_commit(&staged, path, err);
    }
    if (rc == ATT_OK) { /* before the PEM: one without its sidecar could never be used */
        rc = att_io_sync_folder_of(path, err);
    }
    if (rc == ATT_OK) {
        remove_sidecars(keyd);
        file_name(key->id, "pem", name);
        rc = keyd_state_write_blob(keyd, name, keyd_tpm_blob(key), err);
    }
    return rc;
}

enum att_rc keyd_keyfile_write_state(const struct keyd *keyd, const struct keyd_key *key,
                                     struct att_err *err)
{
    char path[KEYD_PATH_MAX];
    struct att_io_staged staged;
    enum att_rc rc = stage_sidecar(keyd, key, path, &staged, err);
    return rc == ATT_OK ? att_io_commit(&staged, path, err) : rc;
}

enum att_rc keyd_keyfile_drop(struct keyd *keyd, const char *id, struct att_err *err)
{
    char name[64], path[KEYD_PATH_MAX];
    file_name(id, "pem", name);
    enum att_rc rc = keyd_path(keyd, name, path, err);
    if (rc == ATT_OK && keyd->dropped_count == KEYD_DROPPED_MAX) {
        rc = att_io_sync_folder_of(path, err);
        if (rc == ATT_OK) {
            remove_sidecars(keyd);
        }
    }
    if (rc == ATT_OK && unlink(path) != 0 && errno != ENOENT) {
        rc = att_fail_errno(err, ATT_E_IO, "remove %s", path);
    }
    if (rc == ATT_OK) {
        memcpy(keyd->dropped[keyd->dropped_count++], id, PROC_KEY_ID_LEN + 1);
    }
    return rc;
}

enum att_rc keyd_keyfile_remove(const struct keyd *keyd, const char *id, struct att_err *err)
{
    char name[64], path[KEYD_PATH_MAX];
    file_name(id, "pem", name); /* first: see load_one in state.c */
    enum att_rc rc = keyd_path(keyd, name, path, err);
    if (rc == ATT_OK) {
        rc = att_io_unlink(path, err);
    }
    file_name(id, "json", name);
    if (rc == ATT_OK) {
        rc = keyd_path(keyd, name, path, err);
    }
    /* Not synced: the key is gone with its PEM, and a sidecar alone is removed at the next start.
     */
    if (rc == ATT_OK && unlink(path) != 0 && errno != ENOENT) {
        rc = att_fail_errno(err, ATT_E_IO, "remove %s", path);
    }
    return rc;
}
