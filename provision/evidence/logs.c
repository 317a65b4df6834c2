#include "provision/evidence/logs.h"

#include "attestd/base/enc.h"
#include "provision/evidence/cbor.h"

#include <stdio.h>
#include <string.h>

/* An incompressible log grows a little in gzip. */
#define GZ_MAX (EVIDENCE_LOG_MAX + ((size_t)64 << 10))

static const char *const known_names[] = {"firmware", "ima", "systemd"};

bool evidence_log_name_known(const char *name)
{
    for (size_t i = 0; name && i < sizeof known_names / sizeof known_names[0]; i++) {
        if (strcmp(known_names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

void evidence_logs_done(struct evidence_logs *logs)
{
    if (logs) {
        for (size_t i = 0; i < EVIDENCE_LOGS_MAX; i++) {
            att_buf_done(&logs->log[i].data);
            att_buf_done(&logs->log[i].tail);
        }
        *logs = (struct evidence_logs){0};
    }
}

const struct evidence_log *evidence_logs_find(const struct evidence_logs *logs, const char *name)
{
    for (size_t i = 0; i < logs->n; i++) {
        if (strcmp(logs->log[i].name, name) == 0) {
            return &logs->log[i];
        }
    }
    return NULL;
}

/* Room for a log of that name at its place in the order. */
static enum att_rc insert(struct evidence_logs *logs, const char *name,
                          struct evidence_log **ret_log, struct att_err *err)
{
    if (!evidence_log_name_known(name)) {
        return att_fail(err, ATT_E_INVAL, "log \"%.20s\": expected firmware, systemd or ima", name);
    }
    size_t at = 0;
    while (at < logs->n && strcmp(logs->log[at].name, name) < 0) {
        at++;
    }
    if (at < logs->n && strcmp(logs->log[at].name, name) == 0) {
        return att_fail(err, ATT_E_EXISTS, "log \"%s\" is there twice", name);
    }
    if (logs->n >= EVIDENCE_LOGS_MAX) {
        return att_fail(err, ATT_E_LIMIT, "more than %d logs", EVIDENCE_LOGS_MAX);
    }
    memmove(&logs->log[at + 1], &logs->log[at], (logs->n - at) * sizeof logs->log[0]);
    logs->n++;
    logs->log[at] = (struct evidence_log){0};
    snprintf(logs->log[at].name, sizeof logs->log[at].name, "%s", name);
    *ret_log = &logs->log[at];
    return ATT_OK;
}

enum att_rc evidence_logs_add(struct evidence_logs *logs, const char *name, struct att_slice bytes,
                              struct att_err *err)
{
    if (bytes.len > EVIDENCE_LOG_MAX) {
        return att_fail(err, ATT_E_LIMIT, "log \"%s\": %zu bytes, at most %zu", name, bytes.len,
                        EVIDENCE_LOG_MAX);
    }
    att_autobuf copy = ATT_BUF_INIT(EVIDENCE_LOG_MAX);
    att_buf_put_slice(&copy, bytes);
    enum att_rc rc = att_buf_ok(&copy, err);
    struct evidence_log *log = NULL;
    if (rc != ATT_OK || (rc = insert(logs, name, &log, err)) != ATT_OK) {
        return rc;
    }
    log->length = bytes.len;
    att_sha256(log->sha256, bytes);
    log->has_data = true;
    log->data = copy;
    copy = (struct att_buf){0};
    return ATT_OK;
}

static enum att_rc find(struct evidence_logs *logs, const char *name, struct evidence_log **ret_log,
                        struct att_err *err)
{
    for (size_t i = 0; i < logs->n; i++) {
        if (strcmp(logs->log[i].name, name) == 0) {
            *ret_log = &logs->log[i];
            return ATT_OK;
        }
    }
    return att_fail(err, ATT_E_NOTFOUND, "log \"%s\" was not named", name);
}

enum att_rc evidence_logs_set_tail(struct evidence_logs *logs, const char *name,
                                   struct att_slice bytes, struct att_err *err)
{
    struct evidence_log *log = NULL;
    enum att_rc rc = find(logs, name, &log, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (strcmp(name, "firmware") == 0) {
        return att_fail(err, ATT_E_INVAL, "log \"firmware\" does not grow: no tail");
    }
    if (bytes.len > EVIDENCE_TAIL_MAX) {
        return att_fail(err, ATT_E_LIMIT, "tail of log \"%s\": %zu bytes, at most %zu", name,
                        bytes.len, EVIDENCE_TAIL_MAX);
    }
    att_autobuf copy = ATT_BUF_INIT(EVIDENCE_TAIL_MAX);
    att_buf_put_slice(&copy, bytes);
    rc = att_buf_ok(&copy, err);
    if (rc == ATT_OK) {
        att_buf_done(&log->tail);
        log->tail = copy;
        copy = (struct att_buf){0};
    }
    return rc;
}

enum att_rc evidence_logs_set_base(struct evidence_logs *logs, const char *name, uint64_t length,
                                   const uint8_t sha256[ATT_SHA256_LEN], struct att_err *err)
{
    struct evidence_log *log = NULL;
    enum att_rc rc = find(logs, name, &log, err);
    if (rc == ATT_OK && (!log->has_data || length > log->length)) {
        rc = att_fail(err, ATT_E_INVAL, "log \"%s\": a base that is longer than the log", name);
    }
    if (rc == ATT_OK) {
        log->has_base = true;
        log->base_length = length;
        memcpy(log->base_sha256, sha256, sizeof log->base_sha256);
    }
    return rc;
}

static bool has_digest(struct att_slice bytes, uint64_t length,
                       const uint8_t sha256[ATT_SHA256_LEN])
{
    uint8_t digest[ATT_SHA256_LEN];
    att_sha256(digest, bytes);
    return bytes.len == length && memcmp(digest, sha256, sizeof digest) == 0;
}

enum att_rc evidence_logs_supply(struct evidence_logs *logs, const char *name,
                                 struct att_slice bytes, struct att_err *err)
{
    struct evidence_log *log = NULL;
    enum att_rc rc = find(logs, name, &log, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autobuf copy = ATT_BUF_INIT(EVIDENCE_LOG_MAX);
    att_buf_put_slice(&copy, bytes);
    if (!log->has_data && log->has_base) {
        if (!has_digest(bytes, log->base_length, log->base_sha256)) {
            return att_fail(err, ATT_E_AUTH,
                            "log \"%s\": the bytes at hand are not those of its base", name);
        }
        att_buf_put_slice(&copy, att_buf_slice(&log->data));
    }
    rc = att_buf_ok(&copy, err);
    if (rc == ATT_OK && !has_digest(att_buf_slice(&copy), log->length, log->sha256)) {
        rc = att_fail(err, ATT_E_AUTH, "log \"%s\": the bytes at hand are not those named", name);
    }
    if (rc == ATT_OK) {
        att_buf_done(&log->data);
        log->data = copy;
        log->has_data = true;
        copy = (struct att_buf){0};
    }
    return rc;
}

bool evidence_logs_match(const struct evidence_logs *a, const struct evidence_logs *b)
{
    if (a->n != b->n) {
        return false;
    }
    for (size_t i = 0; i < a->n; i++) {
        const struct evidence_log *x = &a->log[i], *y = &b->log[i];
        if (strcmp(x->name, y->name) != 0 || x->length != y->length ||
            memcmp(x->sha256, y->sha256, sizeof x->sha256) != 0) {
            return false;
        }
    }
    return true;
}

/* ---- JSON ----------------------------------------------------------------------------------- */
static bool is_known(const uint8_t *sha256, const uint8_t (*known)[ATT_SHA256_LEN], size_t n_known)
{
    for (size_t i = 0; i < n_known; i++) {
        if (memcmp(known[i], sha256, ATT_SHA256_LEN) == 0) {
            return true;
        }
    }
    return false;
}

static enum att_rc put_gz(json_t *obj, const char *name, struct att_slice bytes,
                          struct att_err *err)
{
    att_autobuf gz = ATT_BUF_INIT(GZ_MAX);
    enum att_rc rc = evidence_gzip(bytes, &gz, err);
    return rc == ATT_OK ? att_json_set_b64u(obj, name, att_buf_slice(&gz), err) : rc;
}

/* The member base; what stands behind it is the data. */
static enum att_rc put_base(const struct evidence_log *log, json_t *obj, struct att_slice *data,
                            struct att_err *err)
{
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE_ARRAY(log->base_sha256));
    json_t *base = json_pack("{s:I, s:s}", "length", (json_int_t)log->base_length, "sha256", hex);
    if (!base || json_object_set_new(obj, "base", base) != 0) {
        return att_fail(err, ATT_E_NOMEM, "log \"%s\": no memory", log->name);
    }
    *data = ATT_SLICE(data->ptr + log->base_length, data->len - (size_t)log->base_length);
    return ATT_OK;
}

static enum att_rc encode_one(const struct evidence_log *log, bool with_data, bool with_base,
                              json_t *array, struct att_err *err)
{
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE_ARRAY(log->sha256));
    json_t *obj = json_pack("{s:s, s:I, s:s}", "name", log->name, "length", (json_int_t)log->length,
                            "sha256", hex);
    if (!obj || json_array_append_new(array, obj) != 0) {
        return att_fail(err, ATT_E_NOMEM, "log \"%s\": no memory", log->name);
    }
    struct att_slice data = att_buf_slice(&log->data);
    enum att_rc rc = with_data && with_base ? put_base(log, obj, &data, err) : ATT_OK;
    if (rc == ATT_OK && with_data) {
        rc = put_gz(obj, "data", data, err);
    }
    if (rc == ATT_OK && log->tail.len) {
        rc = put_gz(obj, "tail", att_buf_slice(&log->tail), err);
    }
    return rc;
}

enum att_rc evidence_logs_encode(const struct evidence_logs *logs,
                                 const uint8_t (*known)[ATT_SHA256_LEN], size_t n_known,
                                 json_t **ret_json, struct att_err *err)
{
    att_autojson *array = json_array();
    for (size_t i = 0; i < logs->n; i++) {
        const struct evidence_log *log = &logs->log[i];
        bool with_data = !is_known(log->sha256, known, n_known);
        bool with_base = log->has_base && is_known(log->base_sha256, known, n_known);
        if (with_data && !log->has_data) {
            return att_fail(err, ATT_E_INVAL, "log \"%s\": its bytes are not here", log->name);
        }
        enum att_rc rc = encode_one(log, with_data, with_base, array, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    if (!array) {
        return att_fail(err, ATT_E_NOMEM, "logs: no memory");
    }
    *ret_json = array;
    array = NULL;
    return ATT_OK;
}

static enum att_rc take_gz(const json_t *obj, const char *name, size_t max, struct att_buf *ret,
                           struct att_err *err)
{
    att_autobuf gz = ATT_BUF_INIT(GZ_MAX);
    enum att_rc rc = att_json_b64u(obj, name, GZ_MAX, &gz, err);
    *ret = ATT_BUF_INIT(max + 1);
    return rc == ATT_OK ? evidence_gunzip(att_buf_slice(&gz), max, ret, err) : rc;
}

static enum att_rc take_length(const json_t *obj, uint64_t *ret_length, struct att_err *err)
{
    const json_t *length = json_object_get(obj, "length");
    if (!json_is_integer(length) || json_integer_value(length) < 0 ||
        (uint64_t)json_integer_value(length) > EVIDENCE_LOG_MAX) {
        return att_fail(err, ATT_E_PARSE, "\"length\": expected 0 … %zu", EVIDENCE_LOG_MAX);
    }
    *ret_length = (uint64_t)json_integer_value(length);
    return ATT_OK;
}

static enum att_rc take_sha256(const json_t *obj, uint8_t ret[ATT_SHA256_LEN], struct att_err *err)
{
    const char *hex = NULL;
    enum att_rc rc = att_json_str(obj, "sha256", &hex, err);
    if (rc != ATT_OK) {
        return rc;
    }
    rc = att_unhex_exact(ret, ATT_SHA256_LEN, hex, err);
    if (rc == ATT_OK && strpbrk(hex, "ABCDEF")) {
        rc = att_fail(err, ATT_E_PARSE, "hex must be lowercase");
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "\"sha256\"");
    }
    return rc;
}

static enum att_rc take_base(const json_t *obj, struct evidence_log *log, struct att_err *err)
{
    const json_t *base = json_object_get(obj, "base");
    if (!json_is_object(base) || json_object_size(base) != 2) {
        return att_fail(err, ATT_E_PARSE, "\"base\": expected length and sha256 only");
    }
    enum att_rc rc = take_length(base, &log->base_length, err);
    rc = rc ? rc : take_sha256(base, log->base_sha256, err);
    if (rc == ATT_OK && log->base_length + log->data.len != log->length) {
        rc = att_fail(err, ATT_E_PARSE, "length says %llu bytes, there are %zu behind the first",
                      (unsigned long long)log->length, log->data.len);
    }
    log->has_base = rc == ATT_OK;
    if (rc != ATT_OK) {
        att_err_prefix(err, "\"base\"");
    }
    return rc;
}

static enum att_rc parse_data(const json_t *obj, struct evidence_log *log, struct att_err *err)
{
    enum att_rc rc = take_gz(obj, "data", EVIDENCE_LOG_MAX, &log->data, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (json_object_get(obj, "base")) {
        return take_base(obj, log, err);
    }
    if (log->data.len != log->length) {
        return att_fail(err, ATT_E_PARSE, "length says %llu bytes, there are %zu",
                        (unsigned long long)log->length, log->data.len);
    }
    if (!has_digest(att_buf_slice(&log->data), log->length, log->sha256)) {
        return att_fail(err, ATT_E_PARSE, "sha256 is not that of the bytes");
    }
    log->has_data = true;
    return ATT_OK;
}

static enum att_rc parse_fields(const json_t *obj, struct evidence_log *log, struct att_err *err)
{
    const json_t *data = json_object_get(obj, "data"), *base = json_object_get(obj, "base");
    const json_t *tail = json_object_get(obj, "tail");
    if (json_object_size(obj) != 3u + (data ? 1 : 0) + (base ? 1 : 0) + (tail ? 1 : 0) ||
        (base && !data)) {
        return att_fail(err, ATT_E_PARSE,
                        "members: expected name, length, sha256 and data, base, tail only");
    }
    enum att_rc rc = take_length(obj, &log->length, err);
    rc = rc ? rc : take_sha256(obj, log->sha256, err);
    if (rc == ATT_OK && data) {
        rc = parse_data(obj, log, err);
    }
    if (rc == ATT_OK && tail && strcmp(log->name, "firmware") == 0) {
        rc = att_fail(err, ATT_E_PARSE, "the firmware's log does not grow: no tail");
    }
    if (rc == ATT_OK && tail) {
        rc = take_gz(obj, "tail", EVIDENCE_TAIL_MAX, &log->tail, err);
        if (rc != ATT_OK) {
            att_err_prefix(err, "\"tail\"");
        }
    }
    return rc;
}

static enum att_rc parse_one(const json_t *obj, struct evidence_logs *logs, struct att_err *err)
{
    const char *name = NULL;
    struct evidence_log *log = NULL;
    enum att_rc rc = att_json_str(obj, "name", &name, err);
    if (rc == ATT_OK) {
        rc = insert(logs, name, &log, err);
    }
    if (rc != ATT_OK) {
        return rc == ATT_E_NOMEM ? rc : ATT_E_PARSE;
    }
    rc = parse_fields(obj, log, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "log \"%s\"", name);
    }
    return rc;
}

enum att_rc evidence_logs_parse(const json_t *json, struct evidence_logs *ret_logs,
                                struct att_err *err)
{
    if (!json) {
        *ret_logs = (struct evidence_logs){0};
        return ATT_OK;
    }
    if (!json_is_array(json) || json_array_size(json) > EVIDENCE_LOGS_MAX) {
        return att_fail(err, ATT_E_PARSE, "\"logs\": expected an array of at most %d",
                        EVIDENCE_LOGS_MAX);
    }
    struct evidence_logs logs = {0};
    for (size_t i = 0; i < json_array_size(json); i++) {
        enum att_rc rc = parse_one(json_array_get(json, i), &logs, err);
        if (rc != ATT_OK) {
            evidence_logs_done(&logs);
            return rc;
        }
    }
    *ret_logs = logs;
    return ATT_OK;
}
