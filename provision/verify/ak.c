#include "provision/verify/ak.h"

#include "attestd/base/enc.h"
#include "certs/build.h"
#include "certs/chain.h"
#include "certs/oid.h"
#include "provision/verify/steps.h"

#include <string.h>

bool verify_step_ak(const struct parse_public *ak, struct verify_verdict *verdict)
{
    struct att_err err = {0};
    if (parse_public_check_ak(ak, &err)) {
        verify_fail(verdict, VERIFY_REASON_AK_ATTRIBUTES, "%s", err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_AK_ATTRIBUTES,
                "the AK is restricted to signing what the TPM says, and cannot leave it");
    return true;
}

static bool facts_of(const struct parse_public *ak, struct verify_ak_facts *facts,
                     struct verify_verdict *verdict)
{
    att_autobuf spki = ATT_BUF_INIT(VERIFY_SPKI_MAX);
    struct att_err err = {0};
    if (parse_public_name(ak, &facts->name, &err) || parse_public_spki(ak, &spki, &err) ||
        att_buf_ok(&spki, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "akPub: %s", err.msg);
        return false;
    }
    memcpy(facts->spki, spki.ptr, spki.len);
    facts->spki_len = spki.len;
    return true;
}

enum verify_result verify_ak(struct att_slice ak_pub, struct verify_verdict *verdict,
                             struct verify_ak_facts *ret)
{
    static const enum verify_reason plan[] = {VERIFY_REASON_MALFORMED, VERIFY_REASON_AK_ATTRIBUTES};
    struct parse_public ak;
    struct verify_ak_facts facts = {0};
    if (verify_verdict_failed(verdict)) {
        return VERIFY_REFUSED;
    }
    verify_plan(verdict, plan, sizeof(plan) / sizeof(plan[0]));
    if (!verify_step_area(ak_pub, "akPub", &ak, verdict) || !facts_of(&ak, &facts, verdict)) {
        return VERIFY_REFUSED;
    }
    verify_pass(verdict, VERIFY_REASON_MALFORMED, "the AK's public area parses");
    if (!verify_step_ak(&ak, verdict) || verify_verdict_result(verdict) != VERIFY_ACCEPTED) {
        return VERIFY_REFUSED;
    }
    if (ret) {
        *ret = facts;
    }
    return VERIFY_ACCEPTED;
}

/* ---- the AK certificate ---------------------------------------------------------------------- */

static bool parse_chain(struct att_slice ak_cert, const struct att_slice *chain, size_t n_chain,
                        STACK_OF(X509) * *ret_certs, struct verify_verdict *verdict)
{
    struct att_slice ders[CERTS_CHAIN_MAX_CERTS];
    struct att_err err = {0};
    if (n_chain >= CERTS_CHAIN_MAX_CERTS) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED,
                    "AK certificate: more than %d certificates came with it",
                    CERTS_CHAIN_MAX_CERTS - 1);
        return false;
    }
    ders[0] = ak_cert;
    for (size_t i = 0; i < n_chain; i++) {
        ders[1 + i] = chain[i];
    }
    if (certs_der_parse(ders, 1 + n_chain, ret_certs, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "AK certificate: %s", err.msg);
        return false;
    }
    return true;
}

static bool check_certificate(const STACK_OF(X509) * certs, struct att_slice spki,
                              const STACK_OF(X509) * roots, int64_t now,
                              char ret_ek_id[VERIFY_ID_HEX], struct verify_verdict *verdict)
{
    struct att_err err = {0};
    const X509 *leaf = sk_X509_value(certs, 0);
    enum att_rc rc = certs_chain_verify(certs, roots, CERTS_PURPOSE_AK, now, &err);
    if (!rc && spki.len > 0) {
        rc = certs_cert_matches_spki(leaf, spki, &err);
    }
    rc = rc ? rc : certs_ak_ek_id(leaf, ret_ek_id, &err);
    if (rc) {
        verify_fail(verdict, VERIFY_REASON_AK_CERTIFICATE, "AK certificate: %s", err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_AK_CERTIFICATE,
                "the attestation CA states that this AK is in the TPM with EK %s", ret_ek_id);
    return true;
}

enum verify_result verify_ak_certificate(struct att_slice ak_cert, const struct att_slice *chain,
                                         size_t n_chain, struct att_slice ak_pub,
                                         const STACK_OF(X509) * roots, int64_t now,
                                         struct verify_verdict *verdict,
                                         char ret_ek_id[VERIFY_ID_HEX])
{
    static const enum verify_reason plan[] = {VERIFY_REASON_MALFORMED,
                                              VERIFY_REASON_AK_CERTIFICATE};
    struct parse_public ak;
    struct verify_ak_facts facts = {0};
    certs_autostack *certs = NULL;
    char ek_id[VERIFY_ID_HEX] = "";
    if (verify_verdict_failed(verdict)) {
        return VERIFY_REFUSED;
    }
    verify_plan(verdict, plan, sizeof(plan) / sizeof(plan[0]));
    if (ak_pub.len > 0 &&
        (!verify_step_area(ak_pub, "ak.pub", &ak, verdict) || !facts_of(&ak, &facts, verdict))) {
        return VERIFY_REFUSED;
    }
    if (!parse_chain(ak_cert, chain, n_chain, &certs, verdict)) {
        return VERIFY_REFUSED;
    }
    verify_pass(verdict, VERIFY_REASON_MALFORMED, "the AK certificate parses");
    if (!check_certificate(certs, ATT_SLICE(facts.spki, facts.spki_len), roots, now, ek_id,
                           verdict) ||
        verify_verdict_result(verdict) != VERIFY_ACCEPTED) {
        return VERIFY_REFUSED;
    }
    if (ret_ek_id) {
        memcpy(ret_ek_id, ek_id, sizeof(ek_id));
    }
    return VERIFY_ACCEPTED;
}
