#include "provision/evidence/manifest.h"

#include "provision/evidence/cbor.h"

#include <stdio.h>
#include <string.h>

/* In the order that deterministic CBOR wants: bytewise, so shorter names first. */
enum { NAME, LENGTH, SHA256, MEMBERS };
static const char *const members[MEMBERS] = {"name", "length", "sha256"};

void evidence_manifest_put(const struct evidence_logs *logs, struct att_buf *ret_cbor)
{
    evidence_cbor_put_array(ret_cbor, logs->n);
    for (size_t i = 0; i < logs->n; i++) {
        const struct evidence_log *log = &logs->log[i];
        evidence_cbor_put_map(ret_cbor, MEMBERS);
        evidence_cbor_put_text(ret_cbor, members[NAME]);
        evidence_cbor_put_text(ret_cbor, log->name);
        evidence_cbor_put_text(ret_cbor, members[LENGTH]);
        evidence_cbor_put_uint(ret_cbor, log->length);
        evidence_cbor_put_text(ret_cbor, members[SHA256]);
        evidence_cbor_put_bytes(ret_cbor, ATT_SLICE_ARRAY(log->sha256));
    }
}

enum att_rc evidence_manifest_encode(const struct evidence_logs *logs, struct att_buf *ret_cbor,
                                     struct att_err *err)
{
    evidence_manifest_put(logs, ret_cbor);
    return att_buf_ok(ret_cbor, err);
}

static enum att_rc take_member(struct evidence_cbor *cbor, size_t member, struct evidence_log *log,
                               struct att_err *err)
{
    struct att_slice digest = {0};
    enum att_rc rc;
    switch (member) {
    case NAME:
        return evidence_cbor_text(cbor, "name", log->name, sizeof log->name, err);
    case LENGTH:
        return evidence_cbor_uint(cbor, "length", EVIDENCE_LOG_MAX, &log->length, err);
    default:
        rc = evidence_cbor_bytes(cbor, "sha256", sizeof log->sha256, &digest, err);
        if (rc == ATT_OK && digest.len != sizeof log->sha256) {
            rc = att_fail(err, ATT_E_PARSE, "sha256: expected 32 bytes, found %zu", digest.len);
        }
        if (rc == ATT_OK) {
            memcpy(log->sha256, digest.ptr, digest.len);
        }
        return rc;
    }
}

static enum att_rc take_log(struct evidence_cbor *cbor, struct evidence_log *log,
                            struct att_err *err)
{
    size_t n = 0, member = 0;
    unsigned seen = 0;
    enum att_rc rc = evidence_cbor_map(cbor, "log", MEMBERS, &n, err);
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        rc = evidence_cbor_key(cbor, "log", members, MEMBERS, &seen, &member, err);
        if (rc == ATT_OK) {
            rc = take_member(cbor, member, log, err);
        }
    }
    if (rc == ATT_OK) {
        rc = evidence_cbor_have("log", members, (1u << MEMBERS) - 1, seen, err);
    }
    if (rc == ATT_OK && !evidence_log_name_known(log->name)) {
        rc = att_fail(err, ATT_E_PARSE, "log \"%s\": expected firmware, systemd or ima", log->name);
    }
    return rc;
}

enum att_rc evidence_manifest_take(struct evidence_cbor *cbor, struct evidence_logs *ret_logs,
                                   struct att_err *err)
{
    struct evidence_logs logs = {0};
    size_t n = 0;
    enum att_rc rc = evidence_cbor_array(cbor, "logs", EVIDENCE_LOGS_MAX, &n, err);
    for (; rc == ATT_OK && logs.n < n; logs.n++) {
        rc = take_log(cbor, &logs.log[logs.n], err);
        if (rc == ATT_OK && logs.n &&
            strcmp(logs.log[logs.n - 1].name, logs.log[logs.n].name) >= 0) {
            rc = att_fail(err, ATT_E_PARSE, "logs: not sorted by name, or one is there twice");
        }
    }
    if (rc == ATT_OK) {
        *ret_logs = logs; /* nothing allocated in it */
    }
    return rc;
}

enum att_rc evidence_manifest_parse(struct att_slice cbor, struct evidence_logs *ret_logs,
                                    struct att_err *err)
{
    if (cbor.len > EVIDENCE_MANIFEST_MAX) {
        return att_fail(err, ATT_E_LIMIT, "log manifest: %zu bytes, at most %zu", cbor.len,
                        EVIDENCE_MANIFEST_MAX);
    }
    struct evidence_cbor reader = {cbor};
    struct evidence_logs logs = {0};
    enum att_rc rc = evidence_manifest_take(&reader, &logs, err);
    if (rc == ATT_OK) {
        rc = evidence_cbor_end(&reader, "log manifest", err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    att_autobuf again = {0};
    evidence_manifest_put(&logs, &again);
    if (!att_slice_eq(att_buf_slice(&again), cbor)) {
        return att_fail(err, ATT_E_PARSE, "log manifest: not the deterministic encoding");
    }
    *ret_logs = logs;
    return ATT_OK;
}
