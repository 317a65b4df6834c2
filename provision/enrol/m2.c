#include "attestd/base/clock.h"
#include "provision/enrol/member.h"

#include <stdio.h>
#include <string.h>

/* ---- request -----------------------------------------------------------------------------------
 */
void enrol_m2_request_done(struct enrol_m2_request *request)
{
    if (request) {
        enrol_quote_done(&request->quote);
        evidence_logs_done(&request->logs);
        *request = (struct enrol_m2_request){0};
    }
}

enum att_rc enrol_m2_request_encode(const struct enrol_m2_request *request,
                                    const uint8_t (*known)[ATT_SHA256_LEN], size_t n_known,
                                    struct att_buf *ret_payload, struct att_err *err)
{
    att_autojson *obj = json_object();
    enum att_rc rc = att_json_set_b64u(obj, "proof", ATT_SLICE_ARRAY(request->proof), err);
    if (rc == ATT_OK) {
        rc = enrol_member_put_evidence(obj, &request->quote, &request->pcrs, &request->logs, known,
                                       n_known, err);
    }
    return rc == ATT_OK ? att_json_dump(obj, false, ret_payload, err) : rc;
}

enum att_rc enrol_m2_request_parse(struct att_slice payload, struct enrol_m2_request *ret_request,
                                   struct att_err *err)
{
    static const char *const names[] = {"proof", "quote", "pcrs", "logs"};
    att_autojson *obj = NULL;
    struct enrol_m2_request request = {0};
    enum att_rc rc = enrol_member_object(payload, ENROL_EVIDENCE_MAX, &obj, err);
    if (rc == ATT_OK) {
        rc = enrol_member_only(obj, names, sizeof names / sizeof names[0], err);
    }
    if (rc == ATT_OK) {
        rc = enrol_member_exact(obj, "proof", request.proof, sizeof request.proof, err);
    }
    if (rc == ATT_OK) {
        rc = enrol_member_evidence(obj, &request.quote, &request.pcrs, &request.logs, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "AK activation");
        enrol_m2_request_done(&request);
        return enrol_malformed(rc, err);
    }
    *ret_request = request;
    return ATT_OK;
}

/* ---- response ----------------------------------------------------------------------------------
 */
void enrol_m2_response_done(struct enrol_m2_response *response)
{
    if (response) {
        att_buf_done(&response->ak_certificate);
        *response = (struct enrol_m2_response){0};
    }
}

static bool host_id_ok(const char *id)
{
    return strlen(id) == 64 && strspn(id, "0123456789abcdef") == 64;
}

enum att_rc enrol_m2_response_encode(const struct enrol_m2_response *response,
                                     struct att_buf *ret_body, struct att_err *err)
{
    char expires[ATT_TIME_TEXT_LEN];
    if (!host_id_ok(response->host_id) || response->ak_certificate.len == 0) {
        return att_fail(err, ATT_E_INVAL, "M2: host id or AK certificate is missing");
    }
    att_time_text(expires, response->expires_at);
    att_autojson *obj =
        json_pack("{s:s, s:s%, s:s, s:{s:s, s:s}}", "status", "valid", "akCertificate",
                  (const char *)response->ak_certificate.ptr, response->ak_certificate.len,
                  "expires", expires, "host", "id", response->host_id, "state",
                  response->host_approved ? "approved" : "pending");
    if (!obj) {
        return att_fail(err, ATT_E_INVAL, "M2: the AK certificate is no PEM text, or no memory");
    }
    return att_json_dump(obj, false, ret_body, err);
}

static enum att_rc take_host(const json_t *obj, struct enrol_m2_response *response,
                             struct att_err *err)
{
    const json_t *host = json_object_get(obj, "host");
    const char *id = NULL, *state = NULL;
    enum att_rc rc = att_json_str(host, "id", &id, err);
    if (rc == ATT_OK && !host_id_ok(id)) {
        rc = att_fail(err, ATT_E_PARSE, "\"id\": expected 64 lowercase hex digits");
    }
    if (rc == ATT_OK) {
        rc = att_json_str(host, "state", &state, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "\"host\"");
        return rc;
    }
    snprintf(response->host_id, sizeof response->host_id, "%s", id);
    response->host_approved = strcmp(state, "approved") == 0;
    return ATT_OK;
}

static enum att_rc take_response(const json_t *obj, struct enrol_m2_response *response,
                                 struct att_err *err)
{
    const char *text = NULL;
    enum att_rc rc = att_json_str(obj, "status", &text, err);
    if (rc == ATT_OK && strcmp(text, "valid") != 0) {
        rc = att_fail(err, ATT_E_PARSE, "\"status\": expected \"valid\"");
    }
    if (rc == ATT_OK) {
        rc = att_json_str(obj, "expires", &text, err);
    }
    if (rc == ATT_OK) {
        rc = att_time_parse(text, &response->expires_at, err);
    }
    if (rc == ATT_OK) {
        rc = att_json_str(obj, "akCertificate", &text, err);
    }
    if (rc == ATT_OK && (text[0] == 0 || strlen(text) > 4 * ENROL_CERT_MAX)) {
        rc = att_fail(err, ATT_E_PARSE, "\"akCertificate\": empty, or too long");
    }
    if (rc == ATT_OK) {
        att_buf_put_str(&response->ak_certificate, text);
        rc = att_buf_ok(&response->ak_certificate, err);
    }
    return rc == ATT_OK ? take_host(obj, response, err) : rc;
}

enum att_rc enrol_m2_response_parse(struct att_slice body, struct enrol_m2_response *ret_response,
                                    struct att_err *err)
{
    att_autojson *obj = NULL;
    struct enrol_m2_response response = {0};
    enum att_rc rc = enrol_member_object(body, ENROL_M1_MAX, &obj, err);
    if (rc == ATT_OK) {
        rc = take_response(obj, &response, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "AK activation's answer");
        enrol_m2_response_done(&response);
        return rc;
    }
    *ret_response = response;
    return ATT_OK;
}
