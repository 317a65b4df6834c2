#include "attestd/host/record.h"
#include "attestd/base/io.h"
#include "attestd/base/json.h"

#include <stddef.h>
#include <string.h>

#define RECORD_VERSION 1

/* One table for both directions. size 0: an int64_t. */
static const struct field {
    const char *name;
    size_t offset, size;
} fields[] = {
#define TEXT(n, m)                                                                                 \
    {                                                                                              \
        n, offsetof(struct host_record, m), sizeof(((struct host_record *)0)->m)                   \
    }
#define NUMBER(n, m)                                                                               \
    {                                                                                              \
        n, offsetof(struct host_record, m), 0                                                      \
    }
    TEXT("issuerUrl", issuer_url),
    TEXT("caSha256", ca_sha256),
    TEXT("kid", kid),
    TEXT("thumbprint", thumbprint),
    TEXT("akUrl", ak_url),
    NUMBER("akExpiresAt", ak_expires_at),
    NUMBER("akEnrolledAt", ak_enrolled_at),
    TEXT("akName", ak_name),
    TEXT("hostId", host_id),
    NUMBER("resetCount", reset_count),
    NUMBER("restartCount", restart_count),
    TEXT("firmware", firmware),
};
#define FIELDS (sizeof(fields) / sizeof(fields[0]))

enum att_rc host_record_encode(const struct host_record *rec, struct att_buf *ret_text,
                               struct att_err *err)
{
    att_autojson *obj = json_object();
    int bad = json_object_set_new(obj, "version", json_integer(RECORD_VERSION));
    bad |= json_object_set_new(obj, "approved", json_boolean(rec->approved));
    for (size_t i = 0; i < FIELDS; i++) {
        const char *at = (const char *)rec + fields[i].offset;
        int64_t number = 0;
        if (fields[i].size == 0) {
            memcpy(&number, at, sizeof(number));
        }
        bad |= json_object_set_new(obj, fields[i].name,
                                   fields[i].size ? json_string(at) : json_integer(number));
    }
    if (bad) {
        return att_fail(err, ATT_E_NOMEM, "cannot write down the host's record");
    }
    return att_json_dump(obj, false, ret_text, err);
}

static enum att_rc field_set(struct host_record *rec, const struct field *f, const json_t *value,
                             struct att_err *err)
{
    char *at = (char *)rec + f->offset;
    if (f->size == 0) {
        int64_t number = json_integer_value(value);
        if (!json_is_integer(value) || number < 0) {
            return att_fail(err, ATT_E_PARSE, "%s: expected a whole number, not negative", f->name);
        }
        memcpy(at, &number, sizeof(number));
        return ATT_OK;
    }
    size_t len = json_string_length(value);
    if (!json_is_string(value) || len >= f->size) {
        return att_fail(err, ATT_E_PARSE, "%s: expected a text of at most %zu bytes", f->name,
                        f->size - 1);
    }
    memcpy(at, json_string_value(value), len);
    return ATT_OK;
}

enum att_rc host_record_parse(struct att_slice text, struct host_record *ret_rec,
                              struct att_err *err)
{
    att_autojson *obj = NULL;
    enum att_rc rc = att_json_parse(text, HOST_RECORD_MAX, &obj, err);
    if (rc != ATT_OK) {
        return rc;
    }
    const json_t *version = json_object_get(obj, "version");
    if (!json_is_integer(version) || json_integer_value(version) != RECORD_VERSION) {
        return att_fail(err, ATT_E_PARSE, "version: expected %d", RECORD_VERSION);
    }
    if (json_object_size(obj) != FIELDS + 2 || !json_is_boolean(json_object_get(obj, "approved"))) {
        return att_fail(err, ATT_E_PARSE, "expected %zu members, approved (true or false) too",
                        FIELDS + 2);
    }
    struct host_record rec = {.approved = json_is_true(json_object_get(obj, "approved"))};
    for (size_t i = 0; rc == ATT_OK && i < FIELDS; i++) {
        rc = field_set(&rec, &fields[i], json_object_get(obj, fields[i].name), err);
    }
    if (rc == ATT_OK) {
        *ret_rec = rec;
    }
    return rc;
}

enum att_rc host_record_load(const char *path, struct host_record *ret_rec, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(HOST_RECORD_MAX);
    enum att_rc rc = att_io_read_file(path, HOST_RECORD_MAX, &text, err);
    if (rc == ATT_OK) {
        rc = host_record_parse(att_buf_slice(&text), ret_rec, err);
    }
    if (rc == ATT_E_PARSE || rc == ATT_E_LIMIT) {
        att_err_prefix(err, "%s (kept as .bad)", path);
        struct att_err aside = {0};
        rc = att_io_set_aside(path, &aside);
        if (rc != ATT_OK) {
            att_err_prefix(err, "could not be set aside (%s)", aside.msg);
            return rc;
        }
        return ATT_E_PARSE;
    }
    return rc;
}

enum att_rc host_record_save(const char *path, const struct host_record *rec, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(HOST_RECORD_MAX);
    enum att_rc rc = host_record_encode(rec, &text, err);
    return rc == ATT_OK ? att_io_write_file(path, att_buf_slice(&text), 0600, err) : rc;
}
