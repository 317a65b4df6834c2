#include "provision/verify/ek.h"

#include "attestd/base/enc.h"
#include "provision/verify/steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const enum verify_reason ek_plan[] = {
    VERIFY_REASON_MALFORMED,        VERIFY_REASON_EK_TEMPLATE,     VERIFY_REASON_EK_CHAIN,
    VERIFY_REASON_EK_CERT_MISMATCH, VERIFY_REASON_FIRMWARE_DENIED,
};

static void id_of_spki(struct att_slice spki, char ret_id[VERIFY_ID_HEX])
{
    uint8_t digest[ATT_SHA256_LEN];
    att_sha256(digest, spki);
    att_hex(ret_id, ATT_SLICE_ARRAY(digest));
}

enum att_rc verify_ek_id_of_cert(struct att_slice cert, char ret_id[VERIFY_ID_HEX],
                                 struct att_err *err)
{
    struct att_slice der;
    struct certs_ek_info *info = calloc(1, sizeof(*info));
    if (!info) {
        return att_fail(err, ATT_E_NOMEM, "no memory for an EK certificate");
    }
    enum att_rc rc = certs_ek_strip(cert, &der, err);
    rc = rc ? rc : certs_ek_parse(der, info, err);
    if (!rc) {
        id_of_spki(ATT_SLICE(info->spki, info->spki_len), ret_id);
    }
    free(info);
    return rc;
}

/* Without NV padding: the padding is no part of the certificate, nor of its digest. */
static bool cert_form(struct att_slice cert, struct att_slice *ret_der,
                      struct verify_verdict *verdict)
{
    struct att_err err = {0};
    if (certs_ek_strip(cert, ret_der, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "EK certificate: %s", err.msg);
        return false;
    }
    return true;
}

static bool check_path(struct att_slice der, const struct att_slice *chain, size_t n_chain,
                       const struct certs_ek_store *roots, int64_t now, struct certs_ek_info *info,
                       struct verify_ek_facts *facts, struct verify_verdict *verdict)
{
    struct att_err err = {0};
    uint8_t digest[ATT_SHA256_LEN];
    if (!roots || certs_ek_store_roots(roots) == 0) {
        verify_fail(verdict, VERIFY_REASON_EK_CHAIN, "there is no pinned maker's root");
        return false;
    }
    if (certs_ek_verify(roots, der, chain, n_chain, now, info, &err) ||
        info->verdict != CERTS_EK_OK) {
        verify_fail(verdict, VERIFY_REASON_EK_CHAIN, "%s: %s", certs_ek_verdict_name(info->verdict),
                    err.msg);
        return false;
    }
    facts->from_certificate = true;
    (void)snprintf(facts->manufacturer, sizeof(facts->manufacturer), "%s", info->manufacturer);
    (void)snprintf(facts->model, sizeof(facts->model), "%s", info->model);
    (void)snprintf(facts->version, sizeof(facts->version), "%s", info->version);
    att_sha256(digest, der);
    att_hex(facts->cert_sha256, ATT_SLICE_ARRAY(digest));
    verify_pass(verdict, VERIFY_REASON_EK_CHAIN,
                "the EK certificate of manufacturer %s leads to a pinned root", info->manufacturer);
    return true;
}

static bool check_id(const struct certs_ek_info *info, const char *expected_id, const char *of,
                     struct verify_verdict *verdict)
{
    char id[VERIFY_ID_HEX];
    id_of_spki(ATT_SLICE(info->spki, info->spki_len), id);
    if (strcmp(id, expected_id) != 0) {
        verify_fail(verdict, VERIFY_REASON_EK_CERT_MISMATCH,
                    "the EK certificate is for the key %s, %s %s", id, of, expected_id);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_EK_CERT_MISMATCH, "the EK certificate is for the key %s",
                id);
    return true;
}

static bool check_template(const struct parse_public *pub, struct verify_ek_facts *facts,
                           struct verify_verdict *verdict)
{
    enum parse_ek_template which = PARSE_EK_NONE;
    struct att_err err = {0};
    if (parse_public_check_ek(pub, &which, &err) || which == PARSE_EK_NONE) {
        verify_fail(verdict, VERIFY_REASON_EK_TEMPLATE, "%s", err.msg);
        return false;
    }
    facts->template_name = parse_ek_template_name(which);
    verify_pass(verdict, VERIFY_REASON_EK_TEMPLATE, "the EK has TCG template %s",
                facts->template_name);
    return true;
}

static bool without_certificate(const struct verify_ek_in *in, struct verify_ek_facts *facts,
                                struct verify_verdict *verdict)
{
    if (!in->inventory) {
        verify_fail(verdict, VERIFY_REASON_EK_CHAIN,
                    "no EK certificate was sent, and the issuer demands one (ek: certificate)");
        return false;
    }
    static const char why[] = "the TPM has no EK certificate; the operator's inventory of EKs "
                              "stands for it (ek: inventory)";
    verify_skip(verdict, VERIFY_REASON_EK_CHAIN, "%s", why);
    verify_skip(verdict, VERIFY_REASON_EK_CERT_MISMATCH, "%s", why);
    if (in->manufacturer[0]) {
        (void)snprintf(facts->manufacturer, sizeof(facts->manufacturer), "id:%s", in->manufacturer);
    }
    if (in->have_version) {
        (void)snprintf(facts->version, sizeof(facts->version), "id:%08x",
                       (unsigned)(in->version >> 32));
    }
    return true;
}

static bool judge(const struct verify_ek_in *in, struct certs_ek_info *info,
                  struct verify_ek_facts *facts, struct verify_verdict *verdict)
{
    struct parse_public pub;
    struct att_slice der = {0};
    att_autobuf spki = ATT_BUF_INIT(VERIFY_ID_HEX * 16);
    struct att_err err = {0};
    if (!verify_step_area(in->ek_pub, "ekPub", &pub, verdict) ||
        (in->ek_cert.len > 0 && !cert_form(in->ek_cert, &der, verdict))) {
        return false;
    }
    if (parse_public_spki(&pub, &spki, &err) || att_buf_ok(&spki, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "ekPub: %s", err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_MALFORMED, "the EK's public area and certificate parse");
    id_of_spki(att_buf_slice(&spki), facts->id);
    if (in->no_ek_area) {
        verify_skip(verdict, VERIFY_REASON_EK_TEMPLATE, "the EK's public area was not sent");
    } else if (!check_template(&pub, facts, verdict)) {
        return false;
    }
    if (in->ek_cert.len == 0) {
        return without_certificate(in, facts, verdict) && verify_step_deny(in, facts, verdict);
    }
    return check_path(der, in->ek_chain, in->n_ek_chain, in->roots, in->now, info, facts,
                      verdict) &&
           check_id(info, facts->id, "the sent EK is", verdict) &&
           verify_step_deny(in, facts, verdict);
}

enum verify_result verify_ek(const struct verify_ek_in *in, struct verify_verdict *verdict,
                             struct verify_ek_facts *ret)
{
    struct verify_ek_facts facts = {0};
    if (verify_verdict_failed(verdict)) {
        return VERIFY_REFUSED;
    }
    verify_plan(verdict, ek_plan, sizeof(ek_plan) / sizeof(ek_plan[0]));
    struct certs_ek_info *info = calloc(1, sizeof(*info));
    if (!info) {
        verify_fail(verdict, VERIFY_REASON_INTERNAL, "no memory for an EK certificate");
        return VERIFY_REFUSED;
    }
    bool good = judge(in, info, &facts, verdict);
    free(info);
    if (!good || verify_verdict_result(verdict) != VERIFY_ACCEPTED) {
        return VERIFY_REFUSED;
    }
    if (ret) {
        *ret = facts;
    }
    return VERIFY_ACCEPTED;
}

enum verify_result verify_ek_certificate(struct att_slice ek_cert,
                                         const struct certs_ek_store *roots,
                                         const char *expected_id, int64_t now,
                                         struct verify_verdict *verdict,
                                         struct verify_ek_facts *ret)
{
    static const enum verify_reason plan[] = {VERIFY_REASON_MALFORMED, VERIFY_REASON_EK_CHAIN,
                                              VERIFY_REASON_EK_CERT_MISMATCH};
    struct verify_ek_facts facts = {0};
    struct att_slice der = {0};
    if (verify_verdict_failed(verdict)) {
        return VERIFY_REFUSED;
    }
    verify_plan(verdict, plan, sizeof(plan) / sizeof(plan[0]));
    struct certs_ek_info *info = calloc(1, sizeof(*info));
    if (!info) {
        verify_fail(verdict, VERIFY_REASON_INTERNAL, "no memory for an EK certificate");
        return VERIFY_REFUSED;
    }
    bool good = cert_form(ek_cert, &der, verdict);
    if (good) {
        verify_pass(verdict, VERIFY_REASON_MALFORMED, "the EK certificate parses");
        good = check_path(der, NULL, 0, roots, now, info, &facts, verdict) &&
               check_id(info, expected_id, "the AK certificate names", verdict);
    }
    if (good) {
        id_of_spki(ATT_SLICE(info->spki, info->spki_len), facts.id);
    }
    free(info);
    if (!good || verify_verdict_result(verdict) != VERIFY_ACCEPTED) {
        return VERIFY_REFUSED;
    }
    if (ret) {
        *ret = facts;
    }
    return VERIFY_ACCEPTED;
}
