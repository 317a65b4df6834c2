#include "attestd/agent/retired.h"
#include "attestd/base/io.h"
#include "attestd/base/json.h"

#include <stdio.h>
#include <string.h>

#define RECORD_VERSION 1
#define PATH_ROOM      4096
#define NUMBER_MAX     INT64_C(253402300799999) /* the end of the year 9999, in ms */

static bool lower_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

enum att_rc agent_name_check(const char *name, struct att_err *err)
{
    size_t len = name ? strnlen(name, AGENT_NAME_MAX + 1) : 0;
    bool ok = len > 0 && len <= AGENT_NAME_MAX && lower_or_digit(name[0]);
    for (size_t i = 0; ok && i < len; i++) {
        ok = lower_or_digit(name[i]) || name[i] == '.' || name[i] == '_' || name[i] == '-';
    }
    if (!ok) {
        return att_fail(err, ATT_E_INVAL,
                        "\"%.80s\" is no name of an agent: expected [a-z0-9][a-z0-9._-]{0,63}",
                        name ? name : "");
    }
    return ATT_OK;
}

/* ---- fields: one table, used in both directions ------------------------------------------------
 */

enum kind { TEXT, I64, U32, U64 };

struct field {
    const char *name;
    enum kind kind;
    size_t offset, size; /* size: of the char array, with its NUL */
};

#define AT_TEXT(n, m)                                                                              \
    {                                                                                              \
        n, TEXT, offsetof(struct agent_record, m), sizeof(((struct agent_record *)0)->m)           \
    }
#define AT(n, k, m)                                                                                \
    {                                                                                              \
        n, k, offsetof(struct agent_record, m), 0                                                  \
    }

static const struct field fields[] = {
    AT_TEXT("name", name),
    AT_TEXT("spiffeId", spiffe_id),
    AT_TEXT("profile", profile),
    AT_TEXT("key", key_store),
    AT("lifetimeS", I64, lifetime_s),
    AT_TEXT("keyId", key_id),
    AT_TEXT("nextKeyId", next_key_id),
    AT_TEXT("oldKeyId", old_key_id),
    AT_TEXT("orderUrl", order_url),
    AT_TEXT("serial", serial),
    AT_TEXT("boot", boot),
    AT("notBefore", I64, dates.not_before),
    AT("notAfter", I64, dates.not_after),
    AT("installedAt", I64, dates.installed_at),
    AT("installedBootMs", I64, dates.installed_boot_ms),
    AT("renewAt", I64, dates.renew_at),
    AT_TEXT("bootId", boot_id),
    AT("errorAt", I64, last_error.at),
    AT_TEXT("errorCode", last_error.code),
    AT_TEXT("errorReason", last_error.reason),
    AT_TEXT("errorMessage", last_error.message),
    AT("attempts", U32, attempts),
    AT("issued", U64, issued),
};
#define FIELDS (sizeof(fields) / sizeof(fields[0]))
/* version, state and before beside the table; and retired, keyType, hsm and identifier, where they
 * are there.
 */
#define MEMBERS (FIELDS + 3)

static json_t *field_get(const struct agent_record *rec, const struct field *f)
{
    const char *at = (const char *)rec + f->offset;
    int64_t i64;
    uint32_t u32;
    uint64_t u64;
    switch (f->kind) {
    case TEXT:
        return json_string(at); /* NULL where it is not UTF-8 */
    case I64:
        memcpy(&i64, at, sizeof(i64));
        return json_integer(i64);
    case U32:
        memcpy(&u32, at, sizeof(u32));
        return json_integer(u32);
    case U64:
        memcpy(&u64, at, sizeof(u64));
        return json_integer((json_int_t)u64);
    }
    return NULL;
}

static enum att_rc field_set(struct agent_record *rec, const struct field *f, const json_t *value,
                             struct att_err *err)
{
    char *at = (char *)rec + f->offset;
    if (f->kind == TEXT) {
        size_t len = json_string_length(value);
        if (!json_is_string(value) || len >= f->size) {
            return att_fail(err, ATT_E_PARSE, "%s: expected a text of at most %zu bytes", f->name,
                            f->size - 1);
        }
        memcpy(at, json_string_value(value), len);
        return ATT_OK;
    }
    json_int_t v = json_integer_value(value);
    if (!json_is_integer(value) || v < 0 || (f->kind == U32 && v > UINT32_MAX) ||
        (f->kind == I64 && v > NUMBER_MAX)) {
        return att_fail(err, ATT_E_PARSE,
                        "%s: expected a whole number, not negative and not beyond all times",
                        f->name);
    }
    if (f->kind == U32) {
        uint32_t u32 = (uint32_t)v;
        memcpy(at, &u32, sizeof(u32));
    } else {
        int64_t i64 = v;
        memcpy(at, &i64, sizeof(i64));
    }
    return ATT_OK;
}

/* ---- retired: an array, oldest first -----------------------------------------------------------
 */

static const char *serial_of(const struct agent_retired *one)
{
    return one->serial[0] ? one->serial : NULL;
}

static int put_retired(json_t *obj, const struct agent_record *rec)
{
    json_t *list = json_array();
    int bad = 0;
    for (size_t i = 0; i < rec->n_retired; i++) {
        const struct agent_retired *one = &rec->retired[i];
        bad |= json_array_append_new(list, json_pack("{s:s, s:I, s:s*}", "keyId", one->key_id,
                                                     "notAfter", (json_int_t)one->not_after,
                                                     "serial", serial_of(one)));
    }
    return bad | json_object_set_new(obj, "retired", list);
}

static bool is_serial(const json_t *value, size_t size)
{
    const char *text = json_string_value(value);
    size_t len = text ? json_string_length(value) : 0;
    return len > 0 && len < size && strspn(text, "0123456789abcdef") == len;
}

static enum att_rc parse_retired(const json_t *value, struct agent_retired *ret,
                                 struct att_err *err)
{
    const char *key_id = json_string_value(json_object_get(value, "keyId"));
    const json_t *not_after = json_object_get(value, "notAfter");
    size_t len = key_id ? json_string_length(json_object_get(value, "keyId")) : 0;
    json_int_t at = json_integer_value(not_after);
    const json_t *serial = json_object_get(value, "serial");
    if (serial && !is_serial(serial, sizeof(ret->serial))) {
        return att_fail(err, ATT_E_PARSE, "retired: serial: expected 1 to %zu hex digits",
                        sizeof(ret->serial) - 1);
    }
    if (json_object_size(value) != (serial ? 3 : 2) || len == 0 || len >= sizeof(ret->key_id) ||
        !json_is_integer(not_after) || at <= 0 || at > NUMBER_MAX / 1000) {
        return att_fail(err, ATT_E_PARSE,
                        "retired: expected {\"keyId\": 1 to %d characters, \"notAfter\": seconds, "
                        "\"serial\": hex, if it is known}",
                        AGENT_KEY_ID_MAX);
    }
    memcpy(ret->key_id, key_id, len);
    ret->not_after = at;
    if (serial) {
        memcpy(ret->serial, json_string_value(serial), json_string_length(serial));
    }
    return ATT_OK;
}

/* A key is one thing only: what retires is destroyed in time, the others are not. */
static bool known(const struct agent_record *rec, const char *key_id)
{
    return strcmp(rec->key_id, key_id) == 0 || strcmp(rec->next_key_id, key_id) == 0 ||
           strcmp(rec->old_key_id, key_id) == 0 || agent_retired_find(rec, key_id);
}

/* After the table's fields. */
static enum att_rc take_retired(const json_t *list, struct agent_record *rec, struct att_err *err)
{
    if (!list) {
        return ATT_OK; /* of an earlier release, which kept none */
    }
    if (!json_is_array(list) || json_array_size(list) > AGENT_RETIRED_MAX) {
        return att_fail(err, ATT_E_PARSE, "retired: expected an array of at most %d",
                        AGENT_RETIRED_MAX);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct agent_retired one = {0};
        enum att_rc rc = parse_retired(json_array_get(list, i), &one, err);
        if (rc == ATT_OK && known(rec, one.key_id)) {
            rc = att_fail(err, ATT_E_PARSE, "retired: key %s stands in the record twice",
                          one.key_id);
        }
        if (rc != ATT_OK) {
            return rc;
        }
        rec->retired[rec->n_retired++] = one;
    }
    return ATT_OK;
}

/* ---- keyType, hsm, identifier: where they are not the usual ones
 * -------------------------------------------
 */

const char *agent_record_key_type(const struct agent_record *rec)
{
    return rec->key_type[0] ? rec->key_type : "ec-p256";
}

static enum att_rc take_optional(const json_t *obj, const char *name, char *ret, size_t room,
                                 struct att_err *err)
{
    const json_t *value = json_object_get(obj, name);
    size_t len = json_string_length(value);
    if (!value) {
        return ATT_OK;
    }
    if (!json_is_string(value) || len == 0 || len >= room) {
        return att_fail(err, ATT_E_PARSE, "%s: expected a text of 1 to %zu bytes", name, room - 1);
    }
    memcpy(ret, json_string_value(value), len);
    return ATT_OK;
}

enum att_rc agent_record_encode(const struct agent_record *rec, struct att_buf *ret_text,
                                struct att_err *err)
{
    att_autojson *obj = json_object();
    int bad = json_object_set_new(obj, "version", json_integer(RECORD_VERSION));
    bad |= json_object_set_new(obj, "state", json_string(agent_state_name(rec->life.state)));
    bad |= json_object_set_new(obj, "before", json_string(agent_state_name(rec->life.before)));
    for (size_t i = 0; i < FIELDS; i++) {
        bad |= json_object_set_new(obj, fields[i].name, field_get(rec, &fields[i]));
    }
    bad |= put_retired(obj, rec);
    if (rec->key_type[0]) {
        bad |= json_object_set_new(obj, "keyType", json_string(rec->key_type));
    }
    if (rec->hsm[0]) {
        bad |= json_object_set_new(obj, "hsm", json_string(rec->hsm));
    }
    if (rec->identifier[0]) {
        bad |= json_object_set_new(obj, "identifier", json_string(rec->identifier));
    }
    if (bad) {
        return att_fail(err, ATT_E_NOMEM, "cannot write down agent %s", rec->name);
    }
    return att_json_dump(obj, false, ret_text, err);
}

/* What no run of ours leaves behind. */
static enum att_rc check(const struct agent_record *rec, struct att_err *err)
{
    enum att_rc rc = agent_name_check(rec->name, err);
    if (rc != ATT_OK) {
        return ATT_E_PARSE;
    }
    if (rec->identifier[0] && rec->spiffe_id[0]) {
        return att_fail(err, ATT_E_PARSE, "identifier and spiffeId: expected one of them");
    }
    struct agent_life seen = rec->life;
    if (seen.state == AGENT_FROZEN) {
        seen.state = seen.before;
        if (seen.before == AGENT_FROZEN || seen.before == AGENT_REMOVED) {
            return att_fail(err, ATT_E_PARSE, "before: no state that a thaw returns to");
        }
    } else if (rec->life.before != AGENT_ABSENT) {
        return att_fail(err, ATT_E_PARSE, "before: only a frozen agent has it");
    }
    enum agent_step step = agent_life_step(seen.state);
    if (step >= AGENT_STEP_ORDER && rec->next_key_id[0] == '\0') {
        return att_fail(err, ATT_E_PARSE, "state %s without nextKeyId",
                        agent_state_name(seen.state));
    }
    if (step >= AGENT_STEP_ATTEST && rec->order_url[0] == '\0') {
        return att_fail(err, ATT_E_PARSE, "state %s without orderUrl",
                        agent_state_name(seen.state));
    }
    if (agent_life_serving(&rec->life) &&
        (rec->key_id[0] == '\0' || rec->dates.not_after <= rec->dates.not_before)) {
        return att_fail(err, ATT_E_PARSE, "state %s without a certificate's key and dates",
                        agent_state_name(seen.state));
    }
    return ATT_OK;
}

static enum att_rc parse_state(const json_t *obj, const char *name, enum agent_state *ret_state,
                               struct att_err *err)
{
    const char *text;
    enum att_rc rc = att_json_str(obj, name, &text, err);
    return rc == ATT_OK ? agent_state_parse(text, ret_state, err) : rc;
}

enum att_rc agent_record_parse(struct att_slice text, struct agent_record *ret_rec,
                               struct att_err *err)
{
    att_autojson *obj = NULL;
    enum att_rc rc = att_json_parse(text, AGENT_STATE_MAX, &obj, err);
    if (rc != ATT_OK) {
        return rc;
    }
    const json_t *version = json_object_get(obj, "version");
    if (!json_is_integer(version) || json_integer_value(version) != RECORD_VERSION) {
        return att_fail(err, ATT_E_PARSE, "version: expected %d", RECORD_VERSION);
    }
    const json_t *retired = json_object_get(obj, "retired");
    /* All others are required, so any further one shows in the count. */
    size_t members = MEMBERS + (retired ? 1 : 0) + (json_object_get(obj, "keyType") ? 1 : 0) +
                     (json_object_get(obj, "hsm") ? 1 : 0) +
                     (json_object_get(obj, "identifier") ? 1 : 0);
    if (json_object_size(obj) != members) {
        return att_fail(err, ATT_E_PARSE, "%zu members, expected exactly %zu",
                        json_object_size(obj), members);
    }
    struct agent_record rec = {0};
    rc = parse_state(obj, "state", &rec.life.state, err);
    if (rc == ATT_OK) {
        rc = parse_state(obj, "before", &rec.life.before, err);
    }
    for (size_t i = 0; rc == ATT_OK && i < FIELDS; i++) {
        rc = field_set(&rec, &fields[i], json_object_get(obj, fields[i].name), err);
    }
    if (rc == ATT_OK) {
        rc = take_retired(retired, &rec, err);
    }
    if (rc == ATT_OK) {
        rc = take_optional(obj, "keyType", rec.key_type, sizeof(rec.key_type), err);
    }
    if (rc == ATT_OK) {
        rc = take_optional(obj, "hsm", rec.hsm, sizeof(rec.hsm), err);
    }
    if (rc == ATT_OK) {
        rc = take_optional(obj, "identifier", rec.identifier, sizeof(rec.identifier), err);
    }
    if (rc == ATT_OK) {
        rc = check(&rec, err);
    }
    if (rc == ATT_OK) {
        *ret_rec = rec;
    }
    return rc;
}

/* ---- files -------------------------------------------------------------------------------------
 */

static enum att_rc path_of(const char *dir, const char *name, char ret[PATH_ROOM],
                           struct att_err *err)
{
    enum att_rc rc = agent_name_check(name, err);
    if (rc != ATT_OK) {
        return rc;
    }
    int len = snprintf(ret, PATH_ROOM, "%s/%s.json", dir, name);
    if (len < 0 || len >= PATH_ROOM) {
        return att_fail(err, ATT_E_LIMIT, "the path of agent %s's state is too long", name);
    }
    return ATT_OK;
}

enum att_rc agent_record_save(const char *dir, const struct agent_record *rec, struct att_err *err)
{
    struct att_io_staged staged = {0};
    enum att_rc rc = agent_record_stage(dir, rec, &staged, err);
    if (rc == ATT_OK) {
        rc = agent_record_commit(dir, rec->name, &staged, err);
    }
    return rc == ATT_OK ? agent_record_sync(dir, rec->name, err) : rc;
}

enum att_rc agent_record_stage(const char *dir, const struct agent_record *rec,
                               struct att_io_staged *ret_staged, struct att_err *err)
{
    char path[PATH_ROOM];
    enum att_rc rc = path_of(dir, rec->name, path, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autobuf text = ATT_BUF_INIT(AGENT_STATE_MAX);
    rc = agent_record_encode(rec, &text, err);
    return rc == ATT_OK ? att_io_stage(path, att_buf_slice(&text), 0600, ret_staged, err) : rc;
}

enum att_rc agent_record_commit(const char *dir, const char *name, struct att_io_staged *staged,
                                struct att_err *err)
{
    char path[PATH_ROOM];
    enum att_rc rc = path_of(dir, name, path, err);
    return rc == ATT_OK ? att_io_commit(staged, path, err) : rc;
}

enum att_rc agent_record_sync(const char *dir, const char *name, struct att_err *err)
{
    char path[PATH_ROOM];
    enum att_rc rc = path_of(dir, name, path, err);
    return rc == ATT_OK ? att_io_sync_folder_of(path, err) : rc;
}

enum att_rc agent_record_load(const char *dir, const char *name, struct agent_record *ret_rec,
                              struct att_err *err)
{
    char path[PATH_ROOM];
    enum att_rc rc = path_of(dir, name, path, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autobuf text = ATT_BUF_INIT(AGENT_STATE_MAX);
    rc = att_io_read_file(path, AGENT_STATE_MAX, &text, err);
    struct agent_record rec = {0};
    if (rc == ATT_OK) {
        rc = agent_record_parse(att_buf_slice(&text), &rec, err);
    }
    if (rc == ATT_OK && strcmp(rec.name, name) != 0) {
        rc = att_fail(err, ATT_E_PARSE, "it is agent %s's", rec.name);
    }
    if (rc == ATT_E_PARSE || rc == ATT_E_LIMIT) {
        att_err_prefix(err, "%s (kept as .bad)", path);
        struct att_err aside = {0};
        enum att_rc rc2 = att_io_set_aside(path, &aside);
        if (rc2 != ATT_OK) {
            att_err_prefix(err, "could not be set aside (%s)", aside.msg);
        }
        return ATT_E_PARSE;
    }
    if (rc == ATT_OK) {
        *ret_rec = rec;
    }
    return rc;
}

enum att_rc agent_record_remove(const char *dir, const char *name, struct att_err *err)
{
    char path[PATH_ROOM];
    enum att_rc rc = path_of(dir, name, path, err);
    return rc == ATT_OK ? att_io_unlink(path, err) : rc;
}
