#include "provision/enrol/step.h"

#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "attestd/base/json.h"
#include "attestd/base/secret.h"
#include "provision/enrol/messages.h"

#include <stdio.h>
#include <string.h>

#define VALUES_MAX  64
#define TPM_20      2 /* attest.TPMVersion20 */
#define SPKI_MAX    1024
#define CREATED_MAX 2048

void enrol_step_attest_done(struct enrol_step_attest *request)
{
    att_buf_done(&request->ek);
    for (size_t i = 0; i < ENROL_STEP_CERTS_MAX; i++) {
        att_buf_done(&request->ek_certs[i]);
    }
    att_buf_done(&request->ak_pub);
    att_buf_done(&request->create_data);
    att_buf_done(&request->create_attestation);
    att_buf_done(&request->create_signature);
    *request = (struct enrol_step_attest){0};
}

static enum att_rc take_text(const json_t *value, const char *name, size_t max,
                             struct att_buf *ret_bytes, struct att_err *err)
{
    const char *text = json_string_value(value);
    if (!text || !text[0]) {
        return att_fail(err, ATT_E_PARSE, "\"%s\": expected base64 of 1 … %zu bytes", name, max);
    }
    ret_bytes->max = max;
    enum att_rc rc = att_unb64(ret_bytes, att_slice_str(text), err);
    if (rc == ATT_OK) {
        rc = att_buf_ok(ret_bytes, err);
    }
    att_err_prefix(err, "\"%s\"", name);
    return rc;
}

static enum att_rc take(const json_t *obj, const char *name, size_t max, struct att_buf *ret_bytes,
                        struct att_err *err)
{
    return take_text(json_object_get(obj, name), name, max, ret_bytes, err);
}

static enum att_rc take_certs(const json_t *obj, struct enrol_step_attest *r, struct att_err *err)
{
    const json_t *array = json_object_get(obj, "ekCerts");
    size_t n = json_array_size(array);
    if (n < 1 || n > ENROL_STEP_CERTS_MAX) {
        return att_fail(err, ATT_E_PARSE, "\"ekCerts\": expected 1 … %d certificates",
                        ENROL_STEP_CERTS_MAX);
    }
    for (size_t i = 0; i < n; i++) {
        enum att_rc rc = take_text(json_array_get(array, i), "ekCerts", ENROL_CERT_MAX,
                                   &r->ek_certs[r->n_ek_certs], err);
        if (rc != ATT_OK) {
            return rc;
        }
        r->n_ek_certs++;
    }
    return ATT_OK;
}

/* "1.258": the upper half of TPM_PT_FIRMWARE_VERSION_1/2. What is not of that form says nothing. */
static void take_version(const json_t *info, struct enrol_step_attest *r)
{
    const char *text = json_string_value(json_object_get(info, "firmwareVersion"));
    unsigned major = 0, minor = 0;
    int end = 0;
    if (text && strlen(text) <= 11 && strspn(text, "0123456789.") == strlen(text) &&
        sscanf(text, "%5u.%5u%n", &major, &minor, &end) == 2 && !text[end] && major <= UINT16_MAX &&
        minor <= UINT16_MAX) {
        snprintf(r->version, sizeof r->version, "%04x%04x", major & 0xffff, minor & 0xffff);
    }
}

/* The manufacturer is the number of TPM_PT_MANUFACTURER in decimal. */
static enum att_rc take_info(const json_t *obj, struct enrol_step_attest *r, struct att_err *err)
{
    const json_t *info = json_object_get(obj, "tpmInfo");
    const json_t *version = json_object_get(info, "version");
    const char *text = json_string_value(json_object_get(info, "manufacturer"));
    unsigned long long number = 0;
    if (!json_is_object(info) || !json_is_integer(version) ||
        json_integer_value(version) != TPM_20) {
        return att_fail(err, ATT_E_PARSE, "\"tpmInfo\": expected \"version\" %d (TPM 2.0)", TPM_20);
    }
    take_version(info, r);
    if (!text) {
        return ATT_OK;
    }
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 10 || text[digits] || sscanf(text, "%10llu", &number) != 1 ||
        number > UINT32_MAX) {
        return att_fail(err, ATT_E_PARSE, "\"tpmInfo\": \"manufacturer\": expected a number");
    }
    snprintf(r->manufacturer, sizeof r->manufacturer, "%08llx", number & UINT32_MAX);
    return ATT_OK;
}

static enum att_rc take_params(const json_t *obj, struct enrol_step_attest *r, struct att_err *err)
{
    const json_t *params = json_object_get(obj, "params");
    if (json_is_true(json_object_get(params, "useTCSDActivationFormat"))) {
        return att_fail(err, ATT_E_PARSE, "\"params\": a TPM 1.2 is not taken");
    }
    enum att_rc rc = take(params, "public", CREATED_MAX, &r->ak_pub, err);
    if (rc == ATT_OK) {
        rc = take(params, "createData", CREATED_MAX, &r->create_data, err);
    }
    if (rc == ATT_OK) {
        rc = take(params, "createAttestation", CREATED_MAX, &r->create_attestation, err);
    }
    return rc == ATT_OK ? take(params, "createSignature", CREATED_MAX, &r->create_signature, err)
                        : rc;
}

static enum att_rc read_object(struct att_slice body, json_t **ret_obj, struct att_err *err)
{
    enum att_rc rc = att_json_parse_few(body, ENROL_STEP_BODY_MAX, VALUES_MAX, ret_obj, err);
    return rc == ATT_OK && !json_is_object(*ret_obj)
               ? att_fail(err, ATT_E_PARSE, "expected a JSON object")
               : rc;
}

static enum att_rc malformed(enum att_rc rc, struct att_err *err)
{
    if (rc == ATT_E_PARSE || rc == ATT_E_LIMIT) {
        att_err_reason(err, "malformed");
    }
    return rc;
}

enum att_rc enrol_step_attest_parse(struct att_slice body, struct enrol_step_attest *ret_request,
                                    struct att_err *err)
{
    att_autojson *obj = NULL;
    struct enrol_step_attest r = {0};
    enum att_rc rc = read_object(body, &obj, err);
    if (rc == ATT_OK) {
        rc = take_info(obj, &r, err);
    }
    if (rc == ATT_OK) {
        rc = take(obj, "ek", SPKI_MAX, &r.ek, err);
    }
    if (rc == ATT_OK) {
        rc = take_certs(obj, &r, err);
    }
    if (rc == ATT_OK) {
        rc = take_params(obj, &r, err);
    }
    if (rc != ATT_OK) {
        enrol_step_attest_done(&r);
        return malformed(rc, err);
    }
    *ret_request = r;
    return ATT_OK;
}

static int put(json_t *obj, const char *name, struct att_slice bytes)
{
    att_autobuf text = {0};
    att_buf_b64(&text, bytes);
    const char *s = att_buf_cstr(&text);
    return json_object_set_new(obj, name, s ? json_string(s) : NULL);
}

enum att_rc enrol_step_attest_answer(struct att_slice credential, struct att_slice secret,
                                     struct att_buf *ret_body, struct att_err *err)
{
    att_autojson *obj = json_object();
    int bad = put(obj, "credential", credential) | put(obj, "secret", secret);
    return bad ? att_fail(err, ATT_E_NOMEM, "no memory") : att_json_dump(obj, false, ret_body, err);
}

enum att_rc enrol_step_secret_parse(struct att_slice body,
                                    uint8_t ret_secret[ENROL_STEP_SECRET_LEN], struct att_err *err)
{
    att_autojson *obj = NULL;
    att_autobuf secret = {0};
    enum att_rc rc = read_object(body, &obj, err);
    if (rc == ATT_OK) {
        rc = take(obj, "secret", 2 * (size_t)ENROL_STEP_SECRET_LEN, &secret, err);
    }
    if (rc == ATT_OK && secret.len != ENROL_STEP_SECRET_LEN) {
        rc = att_fail(err, ATT_E_PARSE, "\"secret\": %zu bytes, expected %d", secret.len,
                      ENROL_STEP_SECRET_LEN);
    }
    if (rc == ATT_OK) {
        memcpy(ret_secret, secret.ptr, ENROL_STEP_SECRET_LEN);
    }
    if (secret.len) {
        att_wipe(secret.ptr, secret.len);
    }
    return malformed(rc, err);
}

enum att_rc enrol_step_secret_answer(const struct att_buf *chain, size_t n,
                                     struct att_buf *ret_body, struct att_err *err)
{
    json_t *array = json_array();
    att_autojson *obj = json_pack("{s:o}", "chain", array);
    int bad = !obj;
    for (size_t i = 0; i < n && !bad; i++) {
        att_autobuf text = {0};
        att_buf_b64(&text, att_buf_slice(&chain[i]));
        const char *s = att_buf_cstr(&text);
        bad = json_array_append_new(array, s ? json_string(s) : NULL);
    }
    return bad ? att_fail(err, ATT_E_NOMEM, "no memory") : att_json_dump(obj, false, ret_body, err);
}

/* ---- the client's side ------------------------------------------------------------------------
 */

/* TPM_PT_MANUFACTURER in decimal, TPM_PT_FIRMWARE_VERSION_1 as major.minor: Go's words. */
static json_t *info_of(const struct enrol_step_attest *r)
{
    uint8_t maker[4], version[4];
    json_t *info = json_pack("{s:i}", "version", TPM_20);
    if (att_unhex_exact(maker, sizeof maker, r->manufacturer, NULL) == ATT_OK) {
        uint32_t number = (uint32_t)maker[0] << 24 | (uint32_t)maker[1] << 16 |
                          (uint32_t)maker[2] << 8 | maker[3];
        json_object_set_new(info, "manufacturer", json_sprintf("%u", number));
    }
    if (att_unhex_exact(version, sizeof version, r->version, NULL) == ATT_OK) {
        json_object_set_new(
            info, "firmwareVersion",
            json_sprintf("%u.%u", version[0] << 8 | version[1], version[2] << 8 | version[3]));
    }
    return info;
}

static int put_certs(json_t *obj, const struct enrol_step_attest *r)
{
    json_t *certs = json_array();
    int bad = 0;
    for (size_t i = 0; i < r->n_ek_certs; i++) {
        att_autobuf text = {0};
        att_buf_b64(&text, att_buf_slice(&r->ek_certs[i]));
        const char *s = att_buf_cstr(&text);
        bad |= json_array_append_new(certs, s ? json_string(s) : NULL);
    }
    return bad | json_object_set_new(obj, "ekCerts", certs);
}

enum att_rc enrol_step_attest_encode(const struct enrol_step_attest *request,
                                     struct att_buf *ret_body, struct att_err *err)
{
    att_autojson *obj = json_object();
    json_t *params = json_object();
    int bad = json_object_set_new(obj, "tpmInfo", info_of(request)) |
              put(obj, "ek", att_buf_slice(&request->ek)) | put_certs(obj, request) |
              put(params, "public", att_buf_slice(&request->ak_pub)) |
              put(params, "createData", att_buf_slice(&request->create_data)) |
              put(params, "createAttestation", att_buf_slice(&request->create_attestation)) |
              put(params, "createSignature", att_buf_slice(&request->create_signature)) |
              json_object_set_new(params, "useTCSDActivationFormat", json_false()) |
              json_object_set_new(obj, "params", params);
    return bad ? att_fail(err, ATT_E_NOMEM, "no memory") : att_json_dump(obj, false, ret_body, err);
}

enum att_rc enrol_step_attest_answer_parse(struct att_slice body, struct att_buf *ret_credential,
                                           struct att_buf *ret_secret, struct att_err *err)
{
    att_autojson *obj = NULL;
    struct att_buf credential = {0}, secret = {0};
    enum att_rc rc = read_object(body, &obj, err);
    if (rc == ATT_OK) {
        rc = take(obj, "credential", CREATED_MAX, &credential, err);
    }
    if (rc == ATT_OK) {
        rc = take(obj, "secret", CREATED_MAX, &secret, err);
    }
    if (rc != ATT_OK) {
        att_buf_done(&credential);
        att_buf_done(&secret);
        return rc;
    }
    *ret_credential = credential;
    *ret_secret = secret;
    return ATT_OK;
}

enum att_rc enrol_step_secret_encode(struct att_slice secret, struct att_buf *ret_body,
                                     struct att_err *err)
{
    att_autojson *obj = json_object();
    return put(obj, "secret", secret) ? att_fail(err, ATT_E_NOMEM, "no memory")
                                      : att_json_dump(obj, false, ret_body, err);
}

enum att_rc enrol_step_secret_answer_parse(struct att_slice body, struct att_buf *ret_chain,
                                           size_t *ret_n, struct att_err *err)
{
    att_autojson *obj = NULL;
    struct att_buf chain[ENROL_STEP_CERTS_MAX] = {{0}};
    enum att_rc rc = read_object(body, &obj, err);
    const json_t *array = json_object_get(obj, "chain");
    size_t n = json_array_size(array), got = 0;
    if (rc == ATT_OK && (n < 1 || n > ENROL_STEP_CERTS_MAX)) {
        rc = att_fail(err, ATT_E_PARSE, "\"chain\": expected 1 … %d certificates",
                      ENROL_STEP_CERTS_MAX);
    }
    while (rc == ATT_OK && got < n) {
        rc = take_text(json_array_get(array, got), "chain", ENROL_CERT_MAX, &chain[got], err);
        got++;
    }
    for (size_t i = 0; i < got && rc != ATT_OK; i++) {
        att_buf_done(&chain[i]);
    }
    if (rc == ATT_OK) {
        memcpy(ret_chain, chain, sizeof chain);
        *ret_n = n;
    }
    return rc;
}
