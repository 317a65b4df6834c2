#include "provision/acme/requests.h"

#include "attestd/base/enc.h"
#include "provision/acme/member.h"
#include "provision/acme/objects.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum att_rc acme_deactivation_parse(struct att_slice payload, struct att_err *err)
{
    att_autojson *obj = NULL;
    const char *status = NULL;
    enum att_rc rc = acme_request_object(payload, &obj, err);
    if (rc == ATT_OK) {
        rc = att_json_str(obj, "status", &status, err);
    }
    if (rc == ATT_OK && strcmp(status, "deactivated") != 0) {
        rc = att_fail(err, ATT_E_PARSE, "status: expected \"deactivated\"");
    }
    return acme_malformed(rc, err);
}

enum att_rc acme_challenge_answer_parse(struct att_slice payload, struct att_err *err)
{
    att_autojson *obj = NULL;
    return acme_request_object(payload, &obj, err);
}

/* ---- revokeCert --------------------------------------------------------------------------------
 */
void acme_revocation_request_done(struct acme_revocation_request *request)
{
    if (request) {
        att_buf_done(&request->cert);
        *request = (struct acme_revocation_request){0};
    }
}

static enum att_rc take_reason(const json_t *obj, int *ret_reason, struct att_err *err)
{
    static const bool owners[] = {
        [0] = true, [1] = true, [3] = true, [4] = true, [5] = true, [9] = true};
    const json_t *reason = json_object_get(obj, "reason");
    json_int_t value = json_integer_value(reason);
    if (!reason) {
        return ATT_OK;
    }
    if (!json_is_integer(reason) || value < 0 || value >= (json_int_t)sizeof owners ||
        !owners[value]) {
        enum att_rc rc =
            att_fail(err, ATT_E_PARSE, "\"reason\": expected 0, 1, 3, 4, 5 or 9 (RFC 5280 §5.3.1)");
        att_err_reason(err, "badRevocationReason");
        return rc;
    }
    *ret_reason = (int)value;
    return ATT_OK;
}

enum att_rc acme_revocation_request_parse(struct att_slice payload,
                                          struct acme_revocation_request *ret_request,
                                          struct att_err *err)
{
    att_autojson *obj = NULL;
    struct acme_revocation_request request = {0};
    enum att_rc rc = acme_request_object(payload, &obj, err);
    if (rc == ATT_OK) {
        rc = att_json_b64u(obj, "certificate", ACME_REVOKE_CERT_MAX, &request.cert, err);
        if (rc == ATT_OK && request.cert.len == 0) {
            rc = att_fail(err, ATT_E_PARSE, "\"certificate\" is empty");
        }
        rc = acme_malformed(rc, err);
    }
    if (rc == ATT_OK) {
        rc = take_reason(obj, &request.reason, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "revokeCert");
        acme_revocation_request_done(&request);
        return rc;
    }
    *ret_request = request;
    return ATT_OK;
}

/* ---- keyChange ---------------------------------------------------------------------------------
 */
void acme_key_change_done(struct acme_key_change *change)
{
    if (change) {
        acme_jws_done(&change->inner);
        free(change->account);
        json_decref(change->old_key);
        *change = (struct acme_key_change){0};
    }
}

static enum att_rc take_inner(struct acme_key_change *change, struct att_err *err)
{
    att_autojson *obj = NULL;
    enum att_rc rc = acme_request_object(att_buf_slice(&change->inner.payload), &obj, err);
    if (rc == ATT_OK) {
        rc = acme_malformed(acme_member_url(obj, "account", false, &change->account, err), err);
    }
    json_t *old = json_object_get(obj, "oldKey");
    if (rc == ATT_OK && !json_is_object(old)) {
        rc = acme_malformed(att_fail(err, ATT_E_PARSE, "\"oldKey\": expected a JWK"), err);
    }
    if (rc == ATT_OK) {
        change->old_key = json_incref(old);
    }
    return rc;
}

enum att_rc acme_key_change_parse(struct att_slice payload, struct acme_key_change *ret_change,
                                  struct att_err *err)
{
    att_autojson *outer = NULL;
    struct acme_key_change change = {0};
    enum att_rc rc = acme_request_object(payload, &outer, err);
    if (rc == ATT_OK) {
        rc = acme_jws_parse_key_change(outer, &change.inner, err);
    }
    if (rc == ATT_OK) {
        rc = acme_jws_verify_jwk(&change.inner, change.inner.jwk, err);
    }
    if (rc == ATT_OK) {
        rc = take_inner(&change, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "keyChange");
        acme_key_change_done(&change);
        return rc;
    }
    *ret_change = change;
    return ATT_OK;
}

/* ---- renewal information -----------------------------------------------------------------------
 */
static enum att_rc take_part(const char *text, size_t len, uint8_t *ret, size_t room,
                             size_t *ret_len)
{
    struct att_buf bytes = ATT_BUF_INIT(room);
    enum att_rc rc = att_unb64u(&bytes, ATT_SLICE(text, len), NULL);
    if (rc == ATT_OK && bytes.len > 0) {
        memcpy(ret, bytes.ptr, bytes.len);
        *ret_len = bytes.len;
    }
    att_buf_done(&bytes);
    return rc == ATT_OK && *ret_len ? ATT_OK : ATT_E_PARSE;
}

enum att_rc acme_cert_id_parse(const char *text, struct acme_cert_id *ret_id, struct att_err *err)
{
    struct acme_cert_id id = {0};
    uint8_t serial[ACME_CERT_ID_SERIAL_MAX + 1];
    size_t len = 0;
    const char *dot = strchr(text, '.');
    bool ok = dot && strlen(text) < ACME_CERT_ID_LEN &&
              take_part(text, (size_t)(dot - text), id.aki, sizeof id.aki, &id.aki_len) == ATT_OK &&
              take_part(dot + 1, strlen(dot + 1), serial, sizeof serial, &len) == ATT_OK;
    /* A positive INTEGER in its shortest form: one zero byte before a set first bit only. */
    size_t zero = ok && serial[0] == 0 ? 1 : 0;
    ok = ok && (serial[0] & 0x80) == 0 && len > zero && len - zero <= sizeof id.serial &&
         (zero == 0 || (serial[1] & 0x80));
    if (!ok) {
        enum att_rc rc = att_fail(err, ATT_E_PARSE,
                                  "expected a certificate identifier: key "
                                  "identifier, dot and serial in base64url");
        att_err_reason(err, "malformed");
        return rc;
    }
    id.serial_len = len - zero;
    memcpy(id.serial, serial + zero, id.serial_len);
    *ret_id = id;
    return ATT_OK;
}

enum att_rc acme_cert_id_encode(const struct acme_cert_id *id, char ret[ACME_CERT_ID_LEN],
                                struct att_err *err)
{
    att_autobuf text = {0}, serial = {0};
    if (id->serial_len == 0 || id->serial_len > ACME_CERT_ID_SERIAL_MAX ||
        id->aki_len > ACME_CERT_ID_AKI_MAX) {
        return att_fail(err, ATT_E_INVAL, "certificate identifier: a serial of %zu bytes",
                        id->serial_len);
    }
    if (id->serial[0] & 0x80) {
        att_buf_u8(&serial, 0);
    }
    att_buf_put(&serial, id->serial, id->serial_len);
    att_buf_b64u(&text, ATT_SLICE(id->aki, id->aki_len));
    att_buf_put_str(&text, ".");
    att_buf_b64u(&text, att_buf_slice(&serial));
    const char *all = att_buf_cstr(&text);
    if (!all || strlen(all) >= ACME_CERT_ID_LEN) {
        return att_fail(err, ATT_E_NOMEM, "certificate identifier: no memory");
    }
    memcpy(ret, all, strlen(all) + 1);
    return ATT_OK;
}

void acme_renewal_info_done(struct acme_renewal_info *info)
{
    if (info) {
        free(info->explanation);
        *info = (struct acme_renewal_info){0};
    }
}

enum att_rc acme_renewal_info_parse(const json_t *json, struct acme_renewal_info *ret_info,
                                    struct att_err *err)
{
    struct acme_renewal_info info = {0};
    const json_t *window = json_object_get(json, "suggestedWindow");
    enum att_rc rc = acme_member_time(window, "start", &info.start, err);
    if (rc == ATT_OK) {
        rc = acme_member_time(window, "end", &info.end, err);
    }
    if (rc == ATT_OK && (!info.start || !info.end || info.end < info.start)) {
        rc =
            att_fail(err, ATT_E_PARSE, "\"suggestedWindow\": expected a start and an end after it");
    }
    if (rc == ATT_OK) {
        rc = acme_member_url(json, "explanationURL", true, &info.explanation, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "renewalInfo");
        acme_renewal_info_done(&info);
        return rc;
    }
    *ret_info = info;
    return ATT_OK;
}

enum att_rc acme_renewal_info_encode(const struct acme_renewal_info *info, json_t **ret_json,
                                     struct att_err *err)
{
    att_autojson *json = json_object();
    json_t *window = json_object();
    int bad = acme_put_time(window, "start", info->start);
    bad |= acme_put_time(window, "end", info->end);
    bad |= json_object_set_new(json, "suggestedWindow", window);
    bad |= acme_put_text(json, "explanationURL", info->explanation);
    if (!json || bad) {
        return att_fail(err, ATT_E_NOMEM, "renewalInfo: no memory");
    }
    *ret_json = json;
    json = NULL;
    return ATT_OK;
}
