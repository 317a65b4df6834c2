#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "provision/enrol/member.h"

#include <stdio.h>
#include <string.h>

/* ---- request -----------------------------------------------------------------------------------
 */
void enrol_m1_request_done(struct enrol_m1_request *request)
{
    if (!request) {
        return;
    }
    att_buf_done(&request->ek_cert);
    att_buf_done(&request->ek_pub);
    att_buf_done(&request->ak_pub);
    for (size_t i = 0; i < ENROL_CERTS_MAX; i++) {
        att_buf_done(&request->ek_chain[i]);
        att_buf_done(&request->other_ek_certs[i]);
    }
    *request = (struct enrol_m1_request){0};
}

static bool lower_hex(const char *text, size_t len)
{
    return strlen(text) == len && strspn(text, "0123456789abcdef") == len;
}

static enum att_rc put_certs(json_t *obj, const char *name, const struct att_buf *certs, size_t n,
                             struct att_err *err)
{
    if (n > ENROL_CERTS_MAX) {
        return att_fail(err, ATT_E_LIMIT, "\"%s\": more than %d certificates", name,
                        ENROL_CERTS_MAX);
    }
    json_t *array = json_array();
    int bad = json_object_set_new(obj, name, array);
    for (size_t i = 0; i < n && !bad; i++) {
        att_autobuf text = {0};
        att_buf_b64u(&text, att_buf_slice(&certs[i]));
        bad = text.failed || text.len == 0 ||
              json_array_append_new(array, json_stringn((const char *)text.ptr, text.len));
    }
    return bad ? att_fail(err, ATT_E_INVAL, "\"%s\": an empty certificate, or no memory", name)
               : ATT_OK;
}

static enum att_rc put_firmware(json_t *obj, const struct enrol_m1_request *request,
                                struct att_err *err)
{
    if (!lower_hex(request->manufacturer, 8) || !lower_hex(request->version, 16)) {
        return att_fail(err, ATT_E_INVAL, "firmware: expected 8 and 16 lowercase hex digits");
    }
    json_t *firmware =
        json_pack("{s:s, s:s}", "manufacturer", request->manufacturer, "version", request->version);
    return json_object_set_new(obj, "firmware", firmware) == 0
               ? ATT_OK
               : att_fail(err, ATT_E_NOMEM, "firmware: no memory");
}

enum att_rc enrol_m1_request_encode(const struct enrol_m1_request *request,
                                    struct att_buf *ret_payload, struct att_err *err)
{
    if (request->ek_pub.len == 0 || request->ak_pub.len == 0) {
        return att_fail(err, ATT_E_INVAL, "M1: ekPub or akPub is missing");
    }
    att_autojson *obj = json_object();
    enum att_rc rc = ATT_OK;
    if (request->ek_cert.len) {
        rc = att_json_set_b64u(obj, "ekCert", att_buf_slice(&request->ek_cert), err);
    }
    if (rc == ATT_OK) {
        rc = put_certs(obj, "ekChain", request->ek_chain, request->n_ek_chain, err);
    }
    if (rc == ATT_OK) {
        rc = att_json_set_b64u(obj, "ekPub", att_buf_slice(&request->ek_pub), err);
    }
    if (rc == ATT_OK) {
        rc = att_json_set_b64u(obj, "akPub", att_buf_slice(&request->ak_pub), err);
    }
    if (rc == ATT_OK) {
        rc =
            put_certs(obj, "otherEkCerts", request->other_ek_certs, request->n_other_ek_certs, err);
    }
    if (rc == ATT_OK) {
        rc = put_firmware(obj, request, err);
    }
    return rc == ATT_OK ? att_json_dump(obj, false, ret_payload, err) : rc;
}

static enum att_rc take_certs(const json_t *obj, const char *name, struct att_buf *ret_certs,
                              size_t *ret_n, struct att_err *err)
{
    const json_t *array = json_object_get(obj, name);
    if (array && (!json_is_array(array) || json_array_size(array) > ENROL_CERTS_MAX)) {
        return att_fail(err, ATT_E_PARSE, "\"%s\": expected an array of at most %d", name,
                        ENROL_CERTS_MAX);
    }
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *one = json_array_get(array, i);
        ret_certs[i].max = ENROL_CERT_MAX;
        enum att_rc rc = json_string_length(one)
                             ? att_unb64u(&ret_certs[i], att_slice_str(json_string_value(one)), err)
                             : att_fail(err, ATT_E_PARSE, "certificate %zu is no text", i);
        if (rc != ATT_OK) {
            att_err_prefix(err, "\"%s\"", name);
            return rc;
        }
        *ret_n = i + 1;
    }
    return ATT_OK;
}

static enum att_rc take_firmware(const json_t *obj, struct enrol_m1_request *request,
                                 struct att_err *err)
{
    static const char *const names[] = {"manufacturer", "version"};
    const json_t *firmware = json_object_get(obj, "firmware");
    const char *manufacturer = NULL, *version = NULL;
    if (!json_is_object(firmware)) {
        return att_fail(err, ATT_E_PARSE, "\"firmware\": expected an object");
    }
    enum att_rc rc = enrol_member_only(firmware, names, 2, err);
    if (rc == ATT_OK) {
        rc = att_json_str(firmware, names[0], &manufacturer, err);
    }
    if (rc == ATT_OK) {
        rc = att_json_str(firmware, names[1], &version, err);
    }
    if (rc == ATT_OK && (!lower_hex(manufacturer, 8) || !lower_hex(version, 16))) {
        rc = att_fail(err, ATT_E_PARSE, "expected 8 and 16 lowercase hex digits");
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "\"firmware\"");
        return rc;
    }
    snprintf(request->manufacturer, sizeof request->manufacturer, "%s", manufacturer);
    snprintf(request->version, sizeof request->version, "%s", version);
    return ATT_OK;
}

static enum att_rc take_request(const json_t *obj, struct enrol_m1_request *request,
                                struct att_err *err)
{
    static const char *const names[] = {"ekCert", "ekChain",      "ekPub",
                                        "akPub",  "otherEkCerts", "firmware"};
    enum att_rc rc = enrol_member_only(obj, names, sizeof names / sizeof names[0], err);
    if (rc == ATT_OK) {
        rc = enrol_member_bytes(obj, "ekCert", ENROL_CERT_MAX, true, &request->ek_cert, err);
    }
    if (rc == ATT_OK) {
        rc = take_certs(obj, "ekChain", request->ek_chain, &request->n_ek_chain, err);
    }
    if (rc == ATT_OK) {
        rc = enrol_member_bytes(obj, "ekPub", ENROL_TPM_MAX, false, &request->ek_pub, err);
    }
    if (rc == ATT_OK) {
        rc = enrol_member_bytes(obj, "akPub", ENROL_TPM_MAX, false, &request->ak_pub, err);
    }
    if (rc == ATT_OK) {
        rc = take_certs(obj, "otherEkCerts", request->other_ek_certs, &request->n_other_ek_certs,
                        err);
    }
    return rc == ATT_OK ? take_firmware(obj, request, err) : rc;
}

enum att_rc enrol_m1_request_parse(struct att_slice payload, struct enrol_m1_request *ret_request,
                                   struct att_err *err)
{
    att_autojson *obj = NULL;
    struct enrol_m1_request request = {0};
    enum att_rc rc = enrol_member_object(payload, ENROL_M1_MAX, &obj, err);
    if (rc == ATT_OK) {
        rc = take_request(obj, &request, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "newAttestationKey");
        enrol_m1_request_done(&request);
        return enrol_malformed(rc, err);
    }
    *ret_request = request;
    return ATT_OK;
}

/* ---- response ----------------------------------------------------------------------------------
 */
void enrol_m1_response_done(struct enrol_m1_response *response)
{
    if (response) {
        att_buf_done(&response->credential_blob);
        att_buf_done(&response->encrypted_secret);
        *response = (struct enrol_m1_response){0};
    }
}

/* TPM2B: a be16 size, then exactly that many bytes. */
static bool tpm2b(const struct att_buf *bytes)
{
    struct att_cur cur = att_cur_init(att_buf_slice(bytes));
    (void)att_cur_take_be16(&cur, ENROL_TPM_MAX);
    return att_cur_done(&cur);
}

enum att_rc enrol_m1_response_encode(const struct enrol_m1_response *response,
                                     struct att_buf *ret_body, struct att_err *err)
{
    char expires[ATT_TIME_TEXT_LEN];
    if (!tpm2b(&response->credential_blob) || !tpm2b(&response->encrypted_secret)) {
        return att_fail(err, ATT_E_INVAL, "M1: credentialBlob or encryptedSecret is no TPM2B");
    }
    if (!response->wanted.pcr_selection[0]) {
        return att_fail(err, ATT_E_INVAL, "M1: enrolment always asks for a quote: no PCRs named");
    }
    att_time_text(expires, response->expires_at);
    att_autojson *obj = json_pack("{s:s, s:s}", "status", "pending", "expires", expires);
    enum att_rc rc =
        att_json_set_b64u(obj, "credentialBlob", att_buf_slice(&response->credential_blob), err);
    if (rc == ATT_OK) {
        rc = att_json_set_b64u(obj, "encryptedSecret", att_buf_slice(&response->encrypted_secret),
                               err);
    }
    if (rc == ATT_OK) {
        rc = att_json_set_b64u(obj, "nonce", ATT_SLICE_ARRAY(response->nonce), err);
    }
    if (rc == ATT_OK) {
        rc = acme_wanted_encode(&response->wanted, obj, err);
    }
    return rc == ATT_OK ? att_json_dump(obj, false, ret_body, err) : rc;
}

static enum att_rc take_status(const json_t *obj, const char *want, int64_t *ret_expires,
                               struct att_err *err)
{
    const char *text = NULL;
    enum att_rc rc = att_json_str(obj, "status", &text, err);
    if (rc == ATT_OK && strcmp(text, want) != 0) {
        rc = att_fail(err, ATT_E_PARSE, "\"status\": expected \"%s\"", want);
    }
    if (rc == ATT_OK) {
        rc = att_json_str(obj, "expires", &text, err);
    }
    return rc == ATT_OK ? att_time_parse(text, ret_expires, err) : rc;
}

static enum att_rc take_response(const json_t *obj, struct enrol_m1_response *response,
                                 struct att_err *err)
{
    enum att_rc rc = take_status(obj, "pending", &response->expires_at, err);
    if (rc == ATT_OK) {
        rc = enrol_member_bytes(obj, "credentialBlob", ENROL_TPM_MAX, false,
                                &response->credential_blob, err);
    }
    if (rc == ATT_OK) {
        rc = enrol_member_bytes(obj, "encryptedSecret", ENROL_TPM_MAX, false,
                                &response->encrypted_secret, err);
    }
    if (rc == ATT_OK &&
        (!tpm2b(&response->credential_blob) || !tpm2b(&response->encrypted_secret))) {
        rc = att_fail(err, ATT_E_PARSE,
                      "\"credentialBlob\", \"encryptedSecret\": expected a TPM2B each");
    }
    if (rc == ATT_OK) {
        rc = enrol_member_exact(obj, "nonce", response->nonce, sizeof response->nonce, err);
    }
    if (rc == ATT_OK) {
        rc = acme_wanted_parse(obj, &response->wanted, err);
    }
    if (rc == ATT_OK && !response->wanted.pcr_selection[0]) {
        rc = att_fail(err, ATT_E_PARSE, "\"pcrSelection\" is missing");
    }
    return rc;
}

enum att_rc enrol_m1_response_parse(struct att_slice body, struct enrol_m1_response *ret_response,
                                    struct att_err *err)
{
    att_autojson *obj = NULL;
    struct enrol_m1_response response = {0};
    enum att_rc rc = enrol_member_object(body, ENROL_M1_MAX, &obj, err);
    if (rc == ATT_OK) {
        rc = take_response(obj, &response, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "newAttestationKey's answer");
        enrol_m1_response_done(&response);
        return rc;
    }
    *ret_response = response;
    return ATT_OK;
}
