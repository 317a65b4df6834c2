#include "provision/enrol/member.h"

#include "attestd/base/enc.h"

#include <string.h>

enum att_rc enrol_malformed(enum att_rc rc, struct att_err *err)
{
    if (rc != ATT_OK && rc != ATT_E_NOMEM && err && !err->reason[0]) {
        att_err_reason(err, "malformed");
    }
    return rc;
}

enum att_rc enrol_member_object(struct att_slice text, size_t max, json_t **ret_obj,
                                struct att_err *err)
{
    json_t *obj = NULL;
    enum att_rc rc = att_json_parse_few(text, max, ENROL_VALUES_MAX, &obj, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (!json_is_object(obj)) {
        json_decref(obj);
        return att_fail(err, ATT_E_PARSE, "expected a JSON object");
    }
    *ret_obj = obj;
    return ATT_OK;
}

enum att_rc enrol_member_only(const json_t *obj, const char *const *names, size_t n,
                              struct att_err *err)
{
    size_t ours = 0;
    for (size_t i = 0; i < n; i++) {
        ours += json_object_get(obj, names[i]) != NULL;
    }
    if (ours != json_object_size(obj)) {
        return att_fail(err, ATT_E_PARSE, "there are unknown members");
    }
    return ATT_OK;
}

enum att_rc enrol_member_bytes(const json_t *obj, const char *name, size_t max, bool optional,
                               struct att_buf *ret_bytes, struct att_err *err)
{
    if (optional && !json_object_get(obj, name)) {
        return ATT_OK;
    }
    ret_bytes->max = max;
    enum att_rc rc = att_json_b64u(obj, name, max, ret_bytes, err);
    if (rc == ATT_OK && ret_bytes->len == 0) {
        rc = att_fail(err, ATT_E_PARSE, "\"%s\" is empty", name);
    }
    return rc;
}

enum att_rc enrol_member_exact(const json_t *obj, const char *name, uint8_t *ret, size_t len,
                               struct att_err *err)
{
    att_autobuf raw = {0};
    enum att_rc rc = att_json_b64u(obj, name, len, &raw, err);
    if (rc == ATT_OK && raw.len != len) {
        rc =
            att_fail(err, ATT_E_PARSE, "\"%s\": expected %zu bytes, found %zu", name, len, raw.len);
    }
    if (rc == ATT_OK) {
        memcpy(ret, raw.ptr, len);
    }
    return rc;
}

/* ---- quote, pcrs, logs -------------------------------------------------------------------------
 */
void enrol_quote_done(struct enrol_quote *quote)
{
    att_buf_done(&quote->attest);
    att_buf_done(&quote->sig);
}

enum att_rc enrol_member_quote(const json_t *obj, struct enrol_quote *ret_quote,
                               struct att_err *err)
{
    static const char *const names[] = {"attest", "sig"};
    const json_t *quote = json_object_get(obj, "quote");
    if (!json_is_object(quote)) {
        return att_fail(err, ATT_E_PARSE, "\"quote\": expected an object");
    }
    enum att_rc rc = enrol_member_only(quote, names, 2, err);
    if (rc == ATT_OK) {
        rc = enrol_member_bytes(quote, names[0], ENROL_TPM_MAX, false, &ret_quote->attest, err);
    }
    if (rc == ATT_OK) {
        rc = enrol_member_bytes(quote, names[1], ENROL_TPM_MAX, false, &ret_quote->sig, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "\"quote\"");
    }
    return rc;
}

static enum att_rc put_quote(json_t *obj, const struct enrol_quote *quote, struct att_err *err)
{
    if (quote->attest.len == 0 || quote->sig.len == 0) {
        return att_fail(err, ATT_E_INVAL, "there is no quote");
    }
    json_t *json = json_object();
    if (!json || json_object_set_new(obj, "quote", json) != 0) {
        return att_fail(err, ATT_E_NOMEM, "quote: no memory");
    }
    enum att_rc rc = att_json_set_b64u(json, "attest", att_buf_slice(&quote->attest), err);
    return rc == ATT_OK ? att_json_set_b64u(json, "sig", att_buf_slice(&quote->sig), err) : rc;
}

enum att_rc enrol_member_put_evidence(json_t *obj, const struct enrol_quote *quote,
                                      const struct parse_pcr_set *pcrs,
                                      const struct evidence_logs *logs,
                                      const uint8_t (*known)[ATT_SHA256_LEN], size_t n_known,
                                      struct att_err *err)
{
    json_t *values = NULL, *array = NULL;
    enum att_rc rc = put_quote(obj, quote, err);
    if (rc == ATT_OK) {
        rc = parse_pcr_set_json(pcrs, &values, err);
    }
    if (rc == ATT_OK && json_object_set_new(obj, "pcrs", values) != 0) {
        rc = att_fail(err, ATT_E_NOMEM, "pcrs: no memory");
    }
    if (rc == ATT_OK) {
        rc = evidence_logs_encode(logs, known, n_known, &array, err);
    }
    if (rc == ATT_OK && json_object_set_new(obj, "logs", array) != 0) {
        rc = att_fail(err, ATT_E_NOMEM, "logs: no memory");
    }
    return rc;
}

enum att_rc enrol_member_evidence(const json_t *obj, struct enrol_quote *ret_quote,
                                  struct parse_pcr_set *ret_pcrs, struct evidence_logs *ret_logs,
                                  struct att_err *err)
{
    enum att_rc rc = enrol_member_quote(obj, ret_quote, err);
    if (rc == ATT_OK && !json_object_get(obj, "pcrs")) {
        rc = att_fail(err, ATT_E_PARSE, "\"pcrs\" is missing");
    }
    if (rc == ATT_OK) {
        rc = parse_pcr_set_from_json(json_object_get(obj, "pcrs"), NULL, ret_pcrs, err);
    }
    if (rc == ATT_OK && !json_object_get(obj, "logs")) {
        rc = att_fail(err, ATT_E_PARSE, "\"logs\" is missing");
    }
    return rc == ATT_OK ? evidence_logs_parse(json_object_get(obj, "logs"), ret_logs, err) : rc;
}
