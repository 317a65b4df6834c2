#include "tpm/templates.h"

#include "tpm/internal.h"

static void sealed_template(struct parse_public *ret)
{
    *ret = (struct parse_public){.type = PARSE_ALG_KEYEDHASH,
                                 .name_alg = PARSE_ALG_SHA256,
                                 .attrs = PARSE_OA_FIXED_TPM | PARSE_OA_FIXED_PARENT |
                                          PARSE_OA_USER_WITH_AUTH | PARSE_OA_NO_DA,
                                 .scheme.alg = PARSE_ALG_NULL};
}

static enum att_rc get(enum tpm_template which, struct parse_public *ret, struct att_err *err)
{
    switch (which) {
    case TPM_TEMPLATE_SRK:
        parse_public_srk_template(ret, 0);
        return ATT_OK;
    case TPM_TEMPLATE_SRK_ZEROS:
        parse_public_srk_template(ret, 1);
        return ATT_OK;
    case TPM_TEMPLATE_AK:
        parse_public_ak_template(ret);
        return ATT_OK;
    case TPM_TEMPLATE_AK_RSA:
        parse_public_ak_rsa_template(ret);
        return ATT_OK;
    case TPM_TEMPLATE_AGENT:
        parse_public_agent_template(ret);
        return ATT_OK;
    case TPM_TEMPLATE_SEALED:
        sealed_template(ret);
        return ATT_OK;
    case TPM_TEMPLATE_COUNT:
        break;
    }
    return att_fail(err, ATT_E_INVAL, "no such template: %d", (int)which);
}

enum att_rc tpm_template_encode(enum tpm_template which, struct att_buf *ret_pub,
                                struct att_err *err)
{
    struct parse_public pub;
    enum att_rc rc = get(which, &pub, err);
    return rc == ATT_OK ? parse_public_encode(&pub, ret_pub, err) : rc;
}

enum att_rc tpm_template_match(enum tpm_template which, struct att_slice pub, struct att_err *err)
{
    struct parse_public want, have;
    att_autobuf want_bytes = {0}, have_bytes = {0};
    enum att_rc rc = get(which, &want, err);
    if (rc == ATT_OK) {
        rc = parse_public_parse(pub, &have, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    /* Both without their unique: one encoding per struct, so the bytes can be compared. */
    want.unique_len = want.x_len = want.y_len = 0;
    have.unique_len = have.x_len = have.y_len = 0;
    rc = parse_public_encode(&want, &want_bytes, err);
    if (rc == ATT_OK) {
        rc = parse_public_encode(&have, &have_bytes, err);
    }
    if (rc == ATT_OK && !att_slice_eq(att_buf_slice(&want_bytes), att_buf_slice(&have_bytes))) {
        rc = att_fail(err, ATT_E_DENIED,
                      "the public area (type 0x%04x, attributes 0x%08x) is not the expected "
                      "template's (type 0x%04x, attributes 0x%08x) or differs in a parameter",
                      have.type, have.attrs, want.type, want.attrs);
    }
    return rc;
}

/* ---- marshalling -------------------------------------------------------------------------- */

enum att_rc tpm_to_public(struct att_slice area, TPM2B_PUBLIC *ret_pub, struct att_err *err)
{
    size_t used = 0;
    TPM2B_PUBLIC pub = {0};
    if (area.len > sizeof(TPMT_PUBLIC)) {
        return att_fail(err, ATT_E_LIMIT, "public area of %zu bytes: at most %zu", area.len,
                        sizeof(TPMT_PUBLIC));
    }
    TSS2_RC rc = Tss2_MU_TPMT_PUBLIC_Unmarshal(area.ptr, area.len, &used, &pub.publicArea);
    if (rc != TSS2_RC_SUCCESS || used != area.len) {
        return att_fail_native(err, ATT_E_PARSE, ATT_DOM_TSS, rc,
                               "%zu bytes are not a TPMT_PUBLIC (0x%06x after %zu)", area.len, rc,
                               used);
    }
    *ret_pub = pub;
    return ATT_OK;
}

enum att_rc tpm_from_public(const TPM2B_PUBLIC *pub, struct att_buf *ret_area, struct att_err *err)
{
    uint8_t bytes[sizeof(TPMT_PUBLIC)];
    size_t len = 0;
    struct parse_public parsed;
    TSS2_RC rc = Tss2_MU_TPMT_PUBLIC_Marshal(&pub->publicArea, bytes, sizeof(bytes), &len);
    if (rc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, rc, "marshalling a public area");
    }
    enum att_rc result = parse_public_parse(ATT_SLICE(bytes, len), &parsed, err);
    if (result == ATT_OK) {
        att_buf_put(ret_area, bytes, len);
        result = att_buf_ok(ret_area, err);
    }
    return result;
}

enum att_rc tpm_from_signature(const TPMT_SIGNATURE *sig, struct att_buf *ret_bytes,
                               struct att_err *err)
{
    uint8_t bytes[sizeof(TPMT_SIGNATURE)];
    size_t len = 0;
    struct parse_sig parsed;
    TSS2_RC rc = Tss2_MU_TPMT_SIGNATURE_Marshal(sig, bytes, sizeof(bytes), &len);
    if (rc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, rc, "marshalling a signature");
    }
    enum att_rc result = parse_sig_parse(ATT_SLICE(bytes, len), &parsed, err);
    if (result == ATT_OK) {
        att_buf_put(ret_bytes, bytes, len);
        result = att_buf_ok(ret_bytes, err);
    }
    return result;
}

enum att_rc tpm_to_data(struct att_slice bytes, TPM2B_DATA *ret_data, struct att_err *err)
{
    if (bytes.len > sizeof(ret_data->buffer) || bytes.len > 64) {
        return att_fail(err, ATT_E_LIMIT, "extraData of %zu bytes: at most 64", bytes.len);
    }
    *ret_data = (TPM2B_DATA){.size = (uint16_t)bytes.len};
    if (bytes.len != 0) {
        memcpy(ret_data->buffer, bytes.ptr, bytes.len);
    }
    return ATT_OK;
}

enum att_rc tpm_put_2b(struct att_buf *ret_bytes, uint16_t size, const uint8_t *bytes, size_t room,
                       const char *what, struct att_err *err)
{
    if (size > room) {
        return att_fail(err, ATT_E_PROTOCOL, "the TPM answered %u bytes of %s: at most %zu", size,
                        what, room);
    }
    att_buf_put(ret_bytes, bytes, size);
    return att_buf_ok(ret_bytes, err);
}
