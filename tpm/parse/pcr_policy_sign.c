/* Writing and signing a PCR policy. */
#include "tpm/parse/pcr_policy.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "tpm/parse/pcr_policy_internal.h"
#include "tpm/parse/sig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum att_rc boot_json(const struct parse_pcr_boot *boot, json_t **ret, struct att_err *err)
{
    char approval[2 * PARSE_PCR_POLICY_SIG_LEN + 1];
    att_autojson *pcrs = NULL;
    enum att_rc rc = parse_pcr_set_json(&boot->pcrs, &pcrs, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_hex(approval, ATT_SLICE_ARRAY(boot->approval));
    *ret = json_pack("{s:s, s:O, s:s}", "label", boot->label, "pcrs", pcrs, "approval", approval);
    return *ret ? ATT_OK : att_fail(err, ATT_E_NOMEM, "a PCR policy");
}

static int set_time(json_t *json, const char *member, int64_t at)
{
    char text[ATT_TIME_TEXT_LEN];
    if (at == 0) {
        return 0;
    }
    att_time_text(text, at);
    return json_object_set_new(json, member, json_string(text));
}

enum att_rc pcr_policy_json(const struct parse_pcr_policy *policy, json_t **ret_json,
                            struct att_err *err)
{
    char key[2 * sizeof policy->key.bytes + 1], counter[16];
    att_hex(key, parse_name_slice(&policy->key));
    att_autojson *json = json_pack("{s:s, s:s, s:I, s:s, s:s}", "format", PCR_POLICY_FORMAT, "name",
                                   policy->name, "version", (json_int_t)policy->version,
                                   "policyRef", policy->ref, "policyKey", key);
    json_t *boots = json_array();
    int failed = !json || !boots;
    snprintf(counter, sizeof counter, "0x%08x", policy->counter);
    if (!failed && policy->counter) {
        failed |= json_object_set_new(json, "counter", json_string(counter));
    }
    failed = failed || set_time(json, "notBefore", policy->not_before) ||
             set_time(json, "notAfter", policy->not_after);
    if (!failed && policy->recovery) {
        failed |= json_object_set_new(
            json, "recovery", json_pack("{s:I}", "resetCount", (json_int_t)policy->reset_count));
    }
    enum att_rc rc = failed ? att_fail(err, ATT_E_NOMEM, "a PCR policy") : ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < policy->n_boots; i++) {
        json_t *boot = NULL;
        rc = boot_json(&policy->boots[i], &boot, err);
        if (rc == ATT_OK && json_array_append_new(boots, boot) != 0) {
            rc = att_fail(err, ATT_E_NOMEM, "a PCR policy");
        }
    }
    if (rc == ATT_OK && json_object_set(json, "boots", boots) != 0) {
        rc = att_fail(err, ATT_E_NOMEM, "a PCR policy");
    }
    json_decref(boots);
    if (rc == ATT_OK) {
        *ret_json = json;
        json = NULL;
    }
    return rc;
}

enum att_rc pcr_policy_message(const struct parse_pcr_policy *policy, struct att_buf *ret_message,
                               struct att_err *err)
{
    att_autojson *json = NULL;
    enum att_rc rc = pcr_policy_json(policy, &json, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_buf_put(ret_message, PCR_POLICY_FORMAT, sizeof PCR_POLICY_FORMAT); /* with its NUL */
    return att_json_dump(json, true, ret_message, err);
}

/* ---- signing ------------------------------------------------------------------------------- */

static enum att_rc put_number(uint8_t ret[32], struct att_slice number, struct att_err *err)
{
    while (number.len > 32 && number.ptr[0] == 0) {
        number = ATT_SLICE(number.ptr + 1, number.len - 1);
    }
    if (number.len > 32) {
        return att_fail(err, ATT_E_CRYPTO, "a signature that is not P-256's");
    }
    memset(ret, 0, 32 - number.len);
    memcpy(ret + 32 - number.len, number.ptr, number.len);
    return ATT_OK;
}

/* DER → r ‖ s */
static enum att_rc take_der(struct att_slice der, uint8_t ret[PARSE_PCR_POLICY_SIG_LEN],
                            struct att_err *err)
{
    att_autobuf tpmt = {0};
    struct parse_sig sig;
    enum att_rc rc = parse_sig_from_der(PARSE_ALG_ECDSA, PARSE_ALG_SHA256, der, &tpmt, err);
    if (rc == ATT_OK) {
        rc = parse_sig_parse(att_buf_slice(&tpmt), &sig, err);
    }
    if (rc == ATT_OK) {
        rc = put_number(ret, sig.r, err);
    }
    return rc == ATT_OK ? put_number(ret + 32, sig.s, err) : rc;
}

static enum att_rc sign(EVP_PKEY *key, const struct att_buf *message,
                        uint8_t ret[PARSE_PCR_POLICY_SIG_LEN], struct att_err *err)
{
    uint8_t der[80];
    size_t len = sizeof der;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
              EVP_DigestSign(ctx, der, &len, message->ptr, message->len) == 1;
    EVP_MD_CTX_free(ctx);
    return ok ? take_der(ATT_SLICE(der, len), ret, err)
              : att_fail_openssl(err, ATT_E_CRYPTO, "signing a PCR policy");
}

static enum att_rc sign_all(struct parse_pcr_policy *policy, EVP_PKEY *key, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < policy->n_boots; i++) {
        att_autobuf approved = {0};
        rc = pcr_policy_approved(policy, &policy->boots[i], &approved, err);
        if (rc == ATT_OK) {
            rc = sign(key, &approved, policy->boots[i].approval, err);
        }
    }
    att_autobuf message = {0};
    if (rc == ATT_OK) {
        rc = pcr_policy_message(policy, &message, err);
    }
    return rc == ATT_OK ? sign(key, &message, policy->signature, err) : rc;
}

static enum att_rc write_text(const struct parse_pcr_policy *policy, struct att_buf *ret_text,
                              struct att_err *err)
{
    char hex[2 * PARSE_PCR_POLICY_SIG_LEN + 1];
    att_autojson *json = NULL;
    enum att_rc rc = pcr_policy_json(policy, &json, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_hex(hex, ATT_SLICE_ARRAY(policy->signature));
    char *text = NULL;
    if (json_object_set_new(json, "signature", json_string(hex)) == 0) {
        text = json_dumps(json, JSON_INDENT(2));
    }
    if (!text) {
        return att_fail(err, ATT_E_NOMEM, "a PCR policy");
    }
    att_buf_printf(ret_text, "%s\n", text);
    free(text);
    return att_buf_ok(ret_text, err);
}

enum att_rc parse_pcr_policy_sign(struct parse_pcr_policy *policy, EVP_PKEY *key,
                                  struct att_buf *ret_text, struct att_err *err)
{
    struct parse_public pub;
    att_autobuf text = {0};
    parse_autopcrpolicy *again = NULL;
    enum att_rc rc = parse_seal_policy_key(key, &pub, err);
    if (rc == ATT_OK) {
        rc = parse_public_name(&pub, &policy->key, err);
    }
    if (rc == ATT_OK) {
        rc = sign_all(policy, key, err);
    }
    if (rc == ATT_OK) {
        rc = write_text(policy, &text, err);
    }
    if (rc == ATT_OK) {
        rc = parse_pcr_policy_parse(att_buf_slice(&text), &again, err);
        if (rc == ATT_OK) {
            rc = parse_pcr_policy_verify(again, &pub, policy->ref, err);
        }
        if (rc == ATT_E_PARSE || rc == ATT_E_LIMIT) {
            rc = ATT_E_INVAL;
            if (err) {
                err->rc = rc;
            }
        }
    }
    if (rc == ATT_OK) {
        att_buf_put_slice(ret_text, att_buf_slice(&text));
        rc = att_buf_ok(ret_text, err);
    }
    return rc;
}
