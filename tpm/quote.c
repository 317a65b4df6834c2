#include "tpm/quote.h"

#include "tpm/internal.h"
#include "tpm/parse/attest.h"

#define READ_ROUNDS  8u
#define QUOTE_ROUNDS 5u

void tpm_quote_done(struct tpm_quote *quote)
{
    att_buf_done(&quote->attest);
    att_buf_done(&quote->sig);
}

static TPML_PCR_SELECTION to_selection(uint16_t bank, uint32_t mask)
{
    TPML_PCR_SELECTION sel = {.count = 1};
    sel.pcrSelections[0].hash = bank;
    sel.pcrSelections[0].sizeofSelect = 3;
    for (size_t i = 0; i < 3; i++) {
        sel.pcrSelections[0].pcrSelect[i] = (uint8_t)(mask >> (8 * i));
    }
    return sel;
}

static uint32_t from_selection(const TPML_PCR_SELECTION *sel, uint16_t bank)
{
    uint32_t mask = 0;
    if (sel->count != 1 || sel->pcrSelections[0].hash != bank) {
        return 0;
    }
    for (size_t i = 0; i < 3 && i < sel->pcrSelections[0].sizeofSelect; i++) {
        mask |= (uint32_t)sel->pcrSelections[0].pcrSelect[i] << (8 * i);
    }
    return mask;
}

/* ---- PCRs --------------------------------------------------------------------------------- */

/* One TPM2_PCR_Read gives at most eight values: those of *left, which loses them. */
static enum att_rc read_some(struct tpm_context *ctx, uint16_t bank, uint32_t *left,
                             struct parse_pcr_set *values, uint32_t *ret_counter,
                             struct att_err *err)
{
    TPML_PCR_SELECTION in = to_selection(bank, *left);
    tpm_autofree TPML_PCR_SELECTION *out = NULL;
    tpm_autofree TPML_DIGEST *digests = NULL;
    TSS2_RC rc;
    TPM_CALL(ctx, rc,
             Esys_PCR_Read(ctx->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &in, ret_counter,
                           &out, &digests));
    if (rc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, rc, "reading PCRs");
    }
    uint32_t got = from_selection(out, bank) & *left;
    uint32_t used = 0;
    if (got == 0) {
        att_fail(err, ATT_E_UNSUPPORTED, "the TPM has no %s PCRs of those asked for",
                 parse_alg_name(bank) ? parse_alg_name(bank) : "such");
        att_err_reason(err, "pcrSelection");
        return ATT_E_UNSUPPORTED;
    }
    for (uint32_t pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        if (!(got & (1u << pcr))) {
            continue;
        }
        if (used >= digests->count || used >= 8 ||
            digests->digests[used].size != values->digest_len) {
            return att_fail(err, ATT_E_PROTOCOL, "the TPM's PCR values do not fit its selection");
        }
        memcpy(values->value[pcr], digests->digests[used++].buffer, values->digest_len);
    }
    *left &= ~got;
    return ATT_OK;
}

/* All of them, once, and whether the PCRs stood still meanwhile. */
static enum att_rc read_all(struct tpm_context *ctx, const struct parse_pcr_sel *sel,
                            struct parse_pcr_set *ret_values, bool *ret_still, struct att_err *err)
{
    struct parse_pcr_set values = {.sel = *sel, .digest_len = parse_alg_digest_len(sel->bank)};
    uint32_t left = sel->mask, first = 0, counter = 0;
    bool still = true;
    if (values.digest_len == 0 || sel->mask == 0 || sel->mask >> PARSE_PCR_COUNT) {
        return att_fail(err, ATT_E_INVAL, "PCR selection 0x%04x:0x%06x", sel->bank, sel->mask);
    }
    for (unsigned n = 0; left != 0; n++) {
        enum att_rc rc = read_some(ctx, sel->bank, &left, &values, &counter, err);
        if (rc != ATT_OK) {
            return rc;
        }
        first = n == 0 ? counter : first;
        still = still && counter == first;
    }
    *ret_values = values;
    *ret_still = still;
    return ATT_OK;
}

enum att_rc tpm_pcr_read(struct tpm_context *ctx, const struct parse_pcr_sel *sel,
                         struct parse_pcr_set *ret_values, struct att_err *err)
{
    for (unsigned n = 0; n < READ_ROUNDS; n++) {
        bool still = false;
        enum att_rc rc = read_all(ctx, sel, ret_values, &still, err);
        if (rc != ATT_OK || still) {
            return rc;
        }
    }
    return att_fail(err, ATT_E_RETRY, "the PCRs changed during each of %u readings", READ_ROUNDS);
}

enum att_rc tpm_quote_pcr_read(struct tpm_context *ctx, const struct parse_pcr_sel *sel,
                               struct parse_pcr_set *ret_values, struct att_err *err)
{
    enum att_rc rc = tpm_begin(ctx, err);
    return rc == ATT_OK ? tpm_pcr_read(ctx, sel, ret_values, err) : rc;
}

enum att_rc tpm_quote_pcr_extend(struct tpm_context *ctx, unsigned pcr, uint16_t bank,
                                 struct att_slice digest, struct att_err *err)
{
    TPML_DIGEST_VALUES values = {.count = 1};
    size_t len = parse_alg_digest_len(bank);
    TSS2_RC trc;
    if (pcr >= PARSE_PCR_COUNT || len == 0 || digest.len != len) {
        return att_fail(err, ATT_E_INVAL, "extending PCR %u of bank 0x%04x by %zu bytes", pcr, bank,
                        digest.len);
    }
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc != ATT_OK) {
        return rc;
    }
    values.digests[0].hashAlg = bank;
    memcpy(&values.digests[0].digest, digest.ptr, digest.len);
    TPM_CALL(ctx, trc,
             Esys_PCR_Extend(ctx->esys, ESYS_TR_PCR0 + pcr, ESYS_TR_PASSWORD, ESYS_TR_NONE,
                             ESYS_TR_NONE, &values));
    if (trc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, trc, "extending a PCR");
    }
    return ATT_OK;
}

/* ---- quotes ------------------------------------------------------------------------------- */

static enum att_rc quote_once(struct tpm_context *ctx, ESYS_TR ak, const TPM2B_DATA *data,
                              const struct parse_pcr_sel *sel, struct tpm_quote *ret,
                              struct att_err *err)
{
    static const TPMT_SIG_SCHEME by_key = {.scheme = TPM2_ALG_NULL};
    TPML_PCR_SELECTION selection = to_selection(sel->bank, sel->mask);
    tpm_autofree TPM2B_ATTEST *attest = NULL;
    tpm_autofree TPMT_SIGNATURE *sig = NULL;
    TSS2_RC trc;
    TPM_CALL(ctx, trc,
             Esys_Quote(ctx->esys, ak, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, data, &by_key,
                        &selection, &attest, &sig));
    if (trc != TSS2_RC_SUCCESS) {
        return tpm_fail(err, trc, "quoting");
    }
    att_buf_reset(&ret->attest);
    att_buf_reset(&ret->sig);
    enum att_rc rc = tpm_put_2b(&ret->attest, attest->size, attest->attestationData,
                                sizeof(attest->attestationData), "an attestation", err);
    return rc == ATT_OK ? tpm_from_signature(sig, &ret->sig, err) : rc;
}

/* Our extraData, our selection; and does the digest cover the values read? */
static enum att_rc check(const struct tpm_quote *quote, struct att_slice extra_data,
                         bool *ret_covers, struct att_err *err)
{
    struct parse_attest attest;
    uint8_t raw[PARSE_PCR_RAW_LEN], digest[PARSE_DIGEST_MAX];
    size_t len = 0;
    enum att_rc rc = parse_attest_quote(att_buf_slice(&quote->attest), &attest, err);
    if (rc == ATT_OK) {
        rc = parse_pcr_sel_raw(&quote->values.sel, raw, err);
    }
    /* The AK's scheme hash, not the bank's (Part 3 §18.4). */
    if (rc == ATT_OK) {
        rc = parse_pcr_set_digest(&quote->values, PARSE_ALG_SHA256, digest, &len, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    if (!att_slice_eq(attest.extra_data, extra_data)) {
        return att_fail(err, ATT_E_PROTOCOL, "TPM2_Quote answered with another extraData");
    }
    if (!att_slice_eq(attest.u.quote.pcr_select, ATT_SLICE_ARRAY(raw))) {
        return att_fail(err, ATT_E_UNSUPPORTED,
                        "TPM2_Quote answered for another PCR selection: the TPM lacks the bank");
    }
    *ret_covers = att_slice_eq(attest.u.quote.pcr_digest, ATT_SLICE(digest, len));
    return ATT_OK;
}

enum att_rc tpm_quote_create(struct tpm_context *ctx, const struct parse_pcr_sel *sel,
                             struct att_slice extra_data, struct tpm_quote *ret_quote,
                             struct att_err *err)
{
    tpm_autoquote quote = {0};
    TPM2B_DATA data;
    ESYS_TR ak;
    enum att_rc rc = tpm_begin(ctx, err);
    if (rc == ATT_OK) {
        rc = tpm_to_data(extra_data, &data, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_ak_acquire(ctx, &ak, err);
    }
    for (unsigned n = 0; rc == ATT_OK && n < QUOTE_ROUNDS; n++) {
        bool covers = false;
        rc = tpm_pcr_read(ctx, sel, &quote.values, err);
        if (rc == ATT_OK) {
            rc = quote_once(ctx, ak, &data, sel, &quote, err);
        }
        if (rc == ATT_OK) {
            rc = check(&quote, extra_data, &covers, err);
        }
        if (rc == ATT_OK && covers) {
            *ret_quote = quote;
            quote = (struct tpm_quote){0};
            return ATT_OK;
        }
    }
    if (rc != ATT_OK) {
        return rc;
    }
    return att_fail(err, ATT_E_RETRY, "the PCRs changed during each of %u quotes", QUOTE_ROUNDS);
}
