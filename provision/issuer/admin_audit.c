/* audit.prove, audit.erase: what the log adds to the records (audit.list … are in admin_entry.c).
 */
#include "provision/issuer/admin.h"

#include "provision/issuer/admin_proof.h"
#include "provision/issuer/ca.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- prove
 * -------------------------------------------------------------------------------------- */

static enum att_rc keep_text(void *user, const struct store_audit *a, struct att_err *err)
{
    char **text = user;
    *text = strdup(a->record);
    return *text ? ATT_OK : att_fail(err, ATT_E_NOMEM, "audit: no memory");
}

static json_t *b64(struct att_slice bytes)
{
    att_autobuf text = {0};
    att_buf_b64(&text, bytes);
    return json_string(att_buf_cstr(&text));
}

static json_t *text_json(const struct att_buf *bytes)
{
    return json_stringn((const char *)bytes->ptr, bytes->len);
}

enum att_rc issuer_admin_put_proof(json_t *result, int64_t seq, const char *record,
                                   const struct audit_inclusion *in, struct att_err *err)
{
    json_t *hashes = json_array();
    for (size_t i = 0; i < in->proof.n; i++) {
        json_array_append_new(hashes, b64(ATT_SLICE_ARRAY(in->proof.hash[i].bytes)));
    }
    char salt[2 * 64 + 1] = "";
    if (in->salt.len <= 64) {
        att_hex(salt, att_buf_slice(&in->salt));
    }
    att_autojson *proof = json_pack(
        "{s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "log", in->checkpoint.origin, "seq",
        (json_int_t)seq, "index", (json_int_t)in->index, "size", (json_int_t)in->checkpoint.size,
        "root", b64(ATT_SLICE_ARRAY(in->checkpoint.root.bytes)), "leaf", text_json(&in->leaf),
        "hashes", hashes, "checkpoint", text_json(&in->note), "record",
        record[0] ? json_string(record) : json_null(), "salt",
        salt[0] ? json_string(salt) : json_null());
    return proof && json_object_update(result, proof) == 0
               ? ATT_OK
               : att_fail(err, ATT_E_NOMEM, "audit: no memory");
}

/* The newest record that speaks of the id. */
enum att_rc issuer_admin_audit_prove(struct issuer_admin_call *call, struct store_tx *tx,
                                     struct att_err *err)
{
    issuer_autofree *record = NULL;
    struct audit_inclusion in = {0};
    enum att_rc rc = issuer_admin_audit_why(call, tx, err);
    if (rc) {
        return rc;
    }
    const json_t *first = json_array_get(json_object_get(call->result, "records"), 0);
    int64_t seq = json_integer_value(json_object_get(first, "seq"));
    json_object_clear(call->result);
    rc = store_audit_each(tx, seq, 1, keep_text, &record, err);
    rc = rc ? rc : audit_log_prove(call->issuer->log, tx, seq, &in, err);
    rc = rc ? rc : issuer_admin_put_proof(call->result, seq, record ? record : "", &in, err);
    audit_inclusion_done(&in);
    return rc;
}

/* ---- erase
 * -------------------------------------------------------------------------------------- */

enum att_rc issuer_admin_audit_erase(struct issuer_admin_call *call, struct store_tx *tx,
                                     struct att_err *err)
{
    issuer_autofree *text = NULL;
    int64_t seq = issuer_arg_int(call, "seq", 0), leaves = 0;
    const char *reason = issuer_arg(call, "reason");
    if (!*reason || strlen(reason) > 200) {
        return issuer_refuse(err, ATT_E_INVAL, "usage", "reason: expected 1 to 200 characters");
    }
    enum att_rc rc = store_leaf_head(tx, &leaves, err);
    rc = rc ? rc : store_audit_each(tx, seq, 1, keep_text, &text, err);
    att_autojson *record = issuer_json(text);
    if (!rc && json_object_get(record, "erases")) {
        rc = issuer_refuse(err, ATT_E_DENIED, "eraseRecord",
                           "record %lld says who erased another: it stays", (long long)seq);
    }
    if (!rc && text && leaves < seq) {
        rc = issuer_refuse(err, ATT_E_RETRY, "logBehind",
                           "record %lld is not in the log yet: try again", (long long)seq);
    }
    rc = rc ? rc : store_audit_erase(tx, seq, err);
    if (rc) {
        return rc;
    }
    json_t *done = issuer_record("erase", "done", NULL, reason, NULL);
    json_object_set_new(done, "erases", json_integer(seq));
    json_object_set_new(call->result, "erased", json_integer(seq));
    return issuer_admin_audit(call, tx, done, err);
}
