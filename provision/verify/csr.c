#include "certs/csr.h"

#include "attestd/base/enc.h"
#include "provision/verify/agent.h"

static void key_id(struct att_slice spki, char ret[VERIFY_ID_HEX])
{
    uint8_t digest[ATT_SHA256_LEN];
    att_sha256(digest, spki);
    att_hex(ret, ATT_SLICE_ARRAY(digest));
}

/* The reading stops at the first fault; what kind it was tells which check failed: form, then
 * signature, then names. */
static bool check_form(struct att_slice der, const char *identifier, struct certs_csr *csr,
                       struct verify_verdict *verdict)
{
    struct att_err err = {0};
    enum att_rc rc = certs_csr_verify(der, identifier, csr, &err);
    if (rc && rc != ATT_E_AUTH && rc != ATT_E_DENIED) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "%s", err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_MALFORMED, "the CSR parses whole");
    if (rc == ATT_E_AUTH) {
        verify_fail(verdict, VERIFY_REASON_CSR_SIGNATURE, "%s", err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CSR_SIGNATURE, "the CSR is signed by its own key");
    if (rc == ATT_E_DENIED) {
        verify_fail(verdict, VERIFY_REASON_CSR_NAME, "%s", err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CSR_NAME, "the CSR asks for no name but the order's");
    return true;
}

static bool check_key(struct att_slice spki, struct att_slice certified_spki,
                      struct verify_verdict *verdict)
{
    char found[VERIFY_ID_HEX], wanted[VERIFY_ID_HEX];
    key_id(spki, found);
    key_id(certified_spki, wanted);
    if (certified_spki.len == 0 || !att_slice_eq(spki, certified_spki)) {
        verify_fail(verdict, VERIFY_REASON_CSR_KEY,
                    "the CSR is for the key %s, the evidence is of %s", found, wanted);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CSR_KEY, "the CSR is for the key of the evidence, %s",
                found);
    return true;
}

static bool check_accounts(struct att_slice spki, const struct att_slice *accounts, size_t n,
                           struct verify_verdict *verdict)
{
    for (size_t i = 0; i < n; i++) {
        if (att_slice_eq(spki, accounts[i])) {
            verify_fail(verdict, VERIFY_REASON_CSR_ACCOUNT_KEY,
                        "the CSR holds the key of an ACME account");
            return false;
        }
    }
    if (n == 0) {
        /* RFC 8555 §11.1 wants it: a caller that names no account has not asked. */
        verify_fail(verdict, VERIFY_REASON_CSR_ACCOUNT_KEY, "no account key to compare with");
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CSR_ACCOUNT_KEY, "the CSR's key is no account's (%zu seen)",
                n);
    return true;
}

enum verify_result verify_csr(struct att_slice csr, const char *identifier,
                              struct att_slice certified_spki,
                              const struct att_slice *account_spkis, size_t n_account_spkis,
                              struct verify_verdict *verdict)
{
    static const enum verify_reason plan[] = {VERIFY_REASON_MALFORMED, VERIFY_REASON_CSR_SIGNATURE,
                                              VERIFY_REASON_CSR_NAME, VERIFY_REASON_CSR_ACCOUNT_KEY,
                                              VERIFY_REASON_CSR_KEY};
    struct certs_csr parsed;
    if (verify_verdict_failed(verdict)) {
        return VERIFY_REFUSED;
    }
    verify_plan(verdict, plan, sizeof(plan) / sizeof(plan[0]));
    if (!check_form(csr, identifier, &parsed, verdict)) {
        return VERIFY_REFUSED;
    }
    struct att_slice spki = ATT_SLICE(parsed.spki, parsed.spki_len);
    if (!check_accounts(spki, account_spkis, n_account_spkis, verdict) ||
        !check_key(spki, certified_spki, verdict)) {
        return VERIFY_REFUSED;
    }
    return verify_verdict_result(verdict);
}
