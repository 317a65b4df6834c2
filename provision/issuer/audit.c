/* Decision records, and the signed head that shows a chain cut short. */
#include "provision/issuer/ca.h"
#include "provision/issuer/metrics.h"

#include "attestd/base/io.h"
#include "certs/key.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_MAX 4096

json_t *issuer_record(const char *kind, const char *outcome, const char *reason, const char *detail,
                      const char *subject)
{
    json_t *record = json_pack("{s:s, s:s}", "kind", kind, "outcome", outcome);
    const char *const names[] = {"reason", "detail", "subject"};
    const char *const values[] = {reason, detail, subject};
    for (size_t i = 0; i < 3; i++) {
        if (values[i] && values[i][0]) {
            json_object_set_new(record, names[i], json_string(values[i]));
        }
    }
    return record;
}

enum att_rc issuer_audit(struct store_tx *tx, int64_t now, json_t *record, char ret_digest[65],
                         struct att_err *err)
{
    issuer_autofree *kind = strdup(issuer_string(record, "kind"));
    issuer_autofree *outcome = strdup(issuer_string(record, "outcome"));
    issuer_autofree *reason = strdup(issuer_string(record, "reason"));
    if (record && att_log_request_id()[0]) {
        json_object_set_new(record, "request", json_string(att_log_request_id()));
    }
    issuer_autofree *text = issuer_json_text(record);
    json_decref(record);
    if (!text) {
        return att_fail(err, ATT_E_NOMEM, "audit: a record cannot be written");
    }
    enum att_rc rc = store_audit_append(tx, now, text, NULL, err);
    if (!rc && ret_digest) {
        uint8_t digest[ATT_SHA256_LEN];
        att_sha256(digest, att_slice_str(text));
        att_hex(ret_digest, ATT_SLICE_ARRAY(digest));
    }
    if (!rc && kind && outcome && reason) {
        issuer_metrics_decision(kind, outcome, reason);
    }
    return rc;
}

/* ---- the head file: {"seq", "hash", "at", "sig"}
 * ---------------------------------------------------------- */

static void head_input(const struct store_audit *head, struct att_buf *ret_input)
{
    att_buf_put_str(ret_input, "attestd-audit-head/1");
    att_buf_be64(ret_input, (uint64_t)head->seq);
    att_buf_put(ret_input, head->hash, sizeof head->hash);
}

static enum att_rc head_path(const struct issuer *issuer, char **ret_path, struct att_err *err)
{
    if (asprintf(ret_path, "%s/audit.head", issuer->state_dir) < 0) {
        *ret_path = NULL;
        return att_fail(err, ATT_E_NOMEM, "audit: no memory");
    }
    return ATT_OK;
}

static enum att_rc read_head(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_audit_head(tx, user, err);
}

static enum att_rc write_head(struct issuer *issuer, const struct store_audit *head,
                              struct att_err *err)
{
    att_autobuf input = {0}, sig = {0}, text = {0};
    char hash[65];
    head_input(head, &input);
    issuer_autoendpoints *endpoints = issuer_endpoints_get(issuer->ca);
    enum att_rc rc = certs_sign(endpoints->view_key, att_buf_slice(&input), &sig, err);
    att_autojson *json = NULL;
    if (!rc) {
        att_hex(hash, ATT_SLICE_ARRAY(head->hash));
        json = json_pack("{s:I, s:s, s:o}", "seq", (json_int_t)head->seq, "hash", hash, "at",
                         issuer_time_json(att_now_utc_s()));
        rc = att_json_set_b64u(json, "sig", att_buf_slice(&sig), err);
    }
    if (!rc) {
        rc = att_json_dump(json, false, &text, err);
    }
    issuer_autofree *path = NULL;
    if (!rc) {
        rc = head_path(issuer, &path, err);
    }
    return rc ? rc : att_io_write_file(path, att_buf_slice(&text), 0600, err);
}

struct extend {
    struct store_audit known, head;
};

static enum att_rc read_extension(void *user, struct store_tx *tx, struct att_err *err)
{
    struct extend *e = user;
    return store_audit_continue(tx, &e->known, &e->head, err);
}

/* Only what follows the last head is signed: whoever rewrites the table would otherwise have the
 * issuer itself vouch for it a second later. */
enum att_rc issuer_audit_save_head(struct issuer *issuer, struct att_err *err)
{
    if (issuer->head_broken) {
        return ATT_OK; /* said once; the last good head stays and audit.verify says what is wrong */
    }
    struct extend e = {.known = issuer->written_head};
    enum att_rc rc = store_run(issuer->store, false, read_extension, &e, err);
    if (rc == ATT_E_AUTH) {
        issuer->head_broken = true;
    }
    if (rc || (e.head.seq == issuer->written_head.seq && !issuer->head_missing)) {
        return rc;
    }
    rc = write_head(issuer, &e.head, err);
    if (!rc) {
        issuer->written_head = e.head;
        issuer->head_missing = false;
    }
    return rc;
}

static enum att_rc bad_head(struct att_err *err, const char *path, const char *what)
{
    return issuer_refuse(err, ATT_E_AUTH, "auditHead", "%s: %s", path, what);
}

static enum att_rc load_head(struct issuer *issuer, const char *path, struct store_audit *ret_head,
                             bool *ret_old, struct att_err *err)
{
    att_autobuf text = {0}, sig = {0}, input = {0};
    att_autojson *json = NULL;
    struct store_audit head = {0};
    enum att_rc rc = att_io_read_file(path, HEAD_MAX, &text, NULL);
    if (rc == ATT_E_NOTFOUND) {
        return bad_head(err, path, "the signed head of the audit log is not there");
    }
    if (rc || att_json_parse(att_buf_slice(&text), HEAD_MAX, &json, NULL) ||
        !json_is_integer(json_object_get(json, "seq")) ||
        att_unhex_exact(head.hash, sizeof head.hash, issuer_string(json, "hash"), NULL) ||
        att_json_b64u(json, "sig", CERTS_SIG_DER_MAX, &sig, NULL)) {
        return bad_head(err, path, "is not a signed head");
    }
    head.seq = json_integer_value(json_object_get(json, "seq"));
    head_input(&head, &input);
    issuer_autoendpoints *endpoints = issuer_endpoints_get(issuer->ca);
    struct att_slice what = att_buf_slice(&input), by = att_buf_slice(&sig);
    bool now = certs_sig_verify(endpoints->view_key, what, by, NULL) == ATT_OK;
    /* The signer was renewed and has not written it anew yet. */
    if (!now && (!endpoints->view_before ||
                 certs_sig_verify(endpoints->view_before, what, by, NULL) != ATT_OK)) {
        return bad_head(err, path, "its signature does not hold");
    }
    *ret_old = !now;
    *ret_head = head;
    return ATT_OK;
}

struct verify_audit {
    struct store_audit expect, found;
};

static enum att_rc run_verify(void *user, struct store_tx *tx, struct att_err *err)
{
    struct verify_audit *v = user;
    return store_audit_verify(tx, &v->expect, &v->found, err);
}

static json_t *head_json(const struct store_audit *head)
{
    char hash[65];
    att_hex(hash, ATT_SLICE_ARRAY(head->hash));
    return json_pack("{s:I, s:s}", "seq", (json_int_t)head->seq, "hash", hash);
}

struct start_check {
    int64_t now;
    const char *reason;
    const struct att_err *what;
};

static enum att_rc record_bad_head(void *user, struct store_tx *tx, struct att_err *err)
{
    struct start_check *c = user;
    return issuer_audit(tx, c->now, issuer_record("config", "done", c->reason, c->what->msg, NULL),
                        NULL, err);
}

/* With what is written, the head starts anew from the newest record. */
static enum att_rc start_anew(struct issuer *issuer, const char *reason, const struct att_err *why,
                              struct att_err *err)
{
    struct start_check check = {issuer->clock(), reason, why};
    enum att_rc rc = store_run(issuer->store, true, record_bad_head, &check, err);
    if (!rc) {
        rc = store_run(issuer->store, false, read_head, &issuer->written_head, err);
    }
    issuer->head_missing = true;
    return rc;
}

/* From the first start on there is a signed head. One that is gone or does not fit the log is
 * itself recorded, so that a later good head does not cover it up. An issuer that joins others has
 * none: that is recorded as well, since it looks the same as one that is gone. */
enum att_rc issuer_audit_start(struct issuer *issuer, struct att_err *err)
{
    issuer_autofree *path = NULL;
    struct store_audit now = {0};
    struct att_err why = {0};
    enum att_rc rc = store_run(issuer->store, false, read_head, &now, err);
    if (!rc) {
        rc = head_path(issuer, &path, err);
    }
    if (rc) {
        return rc;
    }
    att_autobuf text = {0};
    bool none = att_io_read_file(path, HEAD_MAX, &text, NULL) == ATT_E_NOTFOUND;
    if (none && now.seq == 0) {
        return write_head(issuer, &now, err);
    }
    if (none && store_shared(issuer->store)) {
        (void)att_fail(
            &why, ATT_E_NOTFOUND,
            "%s: this issuer has no signed head yet and signs the log from record %lld on", path,
            (long long)now.seq);
        att_log(ATT_WARN, "audit.headNew", ATT_S("detail", why.msg));
        return start_anew(issuer, "auditHeadNew", &why, err);
    }
    struct extend e = {0};
    bool old = false;
    rc = load_head(issuer, path, &e.known, &old, &why);
    if (!rc) {
        rc = store_run(issuer->store, false, read_extension, &e, &why);
    }
    if (!rc) {
        issuer->written_head = e.known;
        issuer->head_missing = old;
        return ATT_OK;
    }
    if (rc != ATT_E_AUTH) {
        if (err) {
            *err = why;
        }
        return rc;
    }
    att_log_err(ATT_ERROR, "audit.head", &why);
    return start_anew(issuer, "auditHead", &why, err);
}

enum att_rc issuer_audit_verify(struct issuer *issuer, json_t **ret_result, struct att_err *err)
{
    struct verify_audit v = {0};
    issuer_autofree *path = NULL;
    enum att_rc rc = head_path(issuer, &path, err);
    if (!rc) {
        bool old = false;
        rc = load_head(issuer, path, &v.expect, &old, err);
    }
    if (!rc) {
        rc = store_run(issuer->store, false, run_verify, &v, err);
    }
    struct audit_checkpoint log = {0};
    if (!rc) {
        rc = audit_log_verify(issuer->log, issuer->store, &log, err);
    }
    if (!rc) {
        *ret_result = json_pack("{s:I, s:o, s:o, s:{s:s, s:I}}", "records", (json_int_t)v.found.seq,
                                "head", head_json(&v.found), "signedHead", head_json(&v.expect),
                                "log", "origin", log.origin, "size", (json_int_t)log.size);
    }
    return rc;
}
