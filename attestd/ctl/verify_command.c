/* attestctl verify DIR: the issuer's own checks over stored evidence, without a TPM and without a
 * daemon. DIR holds what attestd keeps of an agent's last issuance, or what attestctl quote wrote;
 * every file in it takes part, so that a changed byte anywhere is refused. */
#include "attestd/ctl/source.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "certs/build.h"
#include "certs/bundle.h"
#include "certs/chain.h"
#include "certs/oid.h"
#include "certs/san.h"
#include "provision/evidence/formula.h"
#include "provision/evidence/logs.h"
#include "provision/evidence/statement.h"
#include "provision/verify/agent.h"
#include "provision/verify/policy.h"
#include "tpm/parse/attest.h"
#include "tpm/parse/pcr_file.h"
#include "tpm/parse/public.h"

#include <stdio.h>
#include <string.h>

#define EVIDENCE_FILE_MAX ((size_t)64 << 10)

enum file {
    F_CERTINFO,
    F_CERTINFO_SIG,
    F_PUBAREA,
    F_SPKI,
    F_ATTRIBUTES,
    F_ATTRIBUTES_SIG,
    F_QUOTE,
    F_QUOTE_SIG,
    F_PCRS,
    F_EVIDENCE,
    F_KEYAUTH,
    F_NONCE,
    F_AK_PUB,
    F_AK_PEM,
    F_AK_CRT,
    F_EK_CRT,
    F_SRK_PUB,
    F_PARENT_PUB,
    F_COUNT,
};

/* of: whose file it is. An agent's key is in a TPM, or (a file spki) it is not: then there must be
 * none of the files of a TPM's key. */
enum of { OF_ALL, OF_AGENT, OF_TPM_KEY, OF_OTHER_KEY };
static const struct {
    const char *name;
    enum of of;
    bool optional;
} files[F_COUNT] = {
    [F_CERTINFO] = {"certinfo", OF_TPM_KEY, false},
    [F_CERTINFO_SIG] = {"certinfo.sig", OF_TPM_KEY, false},
    [F_PUBAREA] = {"pubarea", OF_TPM_KEY, false},
    [F_SPKI] = {"spki", OF_OTHER_KEY, false},
    [F_ATTRIBUTES] = {"attributes.cbor", OF_OTHER_KEY, true},
    [F_ATTRIBUTES_SIG] = {"attributes.sig", OF_OTHER_KEY, true},
    [F_QUOTE] = {"quote", OF_ALL, false},
    [F_QUOTE_SIG] = {"quote.sig", OF_ALL, false},
    [F_PCRS] = {"pcrs", OF_ALL, false},
    [F_EVIDENCE] = {"evidence.cbor", OF_AGENT, false},
    [F_KEYAUTH] = {"keyauth", OF_AGENT, false},
    [F_NONCE] = {"nonce", OF_ALL, false},
    [F_AK_PUB] = {"ak.pub", OF_ALL, false},
    [F_AK_PEM] = {"ak.pem", OF_ALL, false},
    [F_AK_CRT] = {"ak.crt", OF_ALL, false},
    [F_EK_CRT] = {"ek.crt", OF_ALL, false},
    [F_SRK_PUB] = {"srk.pub", OF_TPM_KEY, true},
    [F_PARENT_PUB] = {"parent.pub", OF_TPM_KEY, true},
};

/* Everything read, before anything is judged. */
struct input {
    struct att_buf file[F_COUNT];
    struct evidence_logs logs;
    struct att_buf nonce_arg, ak_der;
    bool agent; /* evidence of an issuance; else an operator's quote */
    struct verify_policy *policy;
    uint8_t signer[1][ATT_SHA256_LEN]; /* who must have signed it */
    size_t n_signers;
    struct certs_ek_store *ek_roots;
    STACK_OF(X509) * ak_roots, *ak_chain;
    struct parse_pcr_set pcrs;
    struct evidence_statement statement;
};

static void input_done(struct input *in)
{
    for (int i = 0; i < F_COUNT; i++) {
        att_buf_done(&in->file[i]);
    }
    att_buf_done(&in->nonce_arg);
    att_buf_done(&in->ak_der);
    evidence_logs_done(&in->logs);
    evidence_statement_done(&in->statement);
    verify_policy_free(in->policy);
    certs_ek_store_free(in->ek_roots);
    sk_X509_pop_free(in->ak_roots, X509_free);
    sk_X509_pop_free(in->ak_chain, X509_free);
}

static struct att_slice content(const struct input *in, enum file which)
{
    return att_buf_slice(&in->file[which]);
}

/* ---- reading ------------------------------------------------------------------------------- */

static enum att_rc read_one(const char *dir, const char *name, size_t max, struct att_buf *ret,
                            struct att_err *err)
{
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path) {
        return att_fail(err, ATT_E_INVAL, "path too long");
    }
    return att_io_read_file(path, max, ret, err);
}

static bool there(const char *dir, enum file which, struct att_buf *ret)
{
    return read_one(dir, files[which].name, EVIDENCE_FILE_MAX, ret, NULL) != ATT_E_NOTFOUND;
}

/* Those that do not belong to this kind of evidence are read all the same: they are refused, not
 * passed over. */
static bool may_lack(const struct input *in, enum file which, bool other_key)
{
    switch (files[which].of) {
    case OF_AGENT:
        return !in->agent;
    case OF_TPM_KEY:
        return !in->agent || other_key || files[which].optional;
    case OF_OTHER_KEY:
        return !other_key || files[which].optional;
    default:
        return files[which].optional;
    }
}

static enum att_rc read_files(const char *dir, struct input *in, struct att_err *err)
{
    att_autobuf evidence = {0}, spki = {0};
    in->agent = there(dir, F_EVIDENCE, &evidence);
    bool other_key = in->agent && there(dir, F_SPKI, &spki);
    for (int i = 0; i < F_COUNT; i++) {
        if (files[i].of != OF_ALL && !in->agent) {
            continue;
        }
        struct att_err mine = {0};
        enum att_rc rc = read_one(dir, files[i].name, EVIDENCE_FILE_MAX, &in->file[i], &mine);
        if (rc == ATT_E_NOTFOUND && may_lack(in, (enum file)i, other_key)) {
            continue;
        }
        if (rc != ATT_OK) {
            *err = mine;
            return rc;
        }
    }
    return ATT_OK;
}

/* What the log had grown by after the quote. */
static enum att_rc read_tail(const char *dir, const char *name, const char *file, struct input *in,
                             struct att_err *err)
{
    att_autobuf bytes = ATT_BUF_INIT(EVIDENCE_TAIL_MAX);
    char tail[32];
    snprintf(tail, sizeof tail, "%s.tail", file);
    enum att_rc rc = read_one(dir, tail, EVIDENCE_TAIL_MAX, &bytes, err);
    if (rc == ATT_E_NOTFOUND) {
        att_err_clear(err);
        return ATT_OK;
    }
    return rc ? rc : evidence_logs_set_tail(&in->logs, name, att_buf_slice(&bytes), err);
}

static enum att_rc read_logs(const char *dir, struct input *in, struct att_err *err)
{
    static const char *const names[][2] = {
        {"firmware", "eventlog"}, {"systemd", "systemd"}, {"ima", "ima"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        att_autobuf bytes = ATT_BUF_INIT(EVIDENCE_LOG_MAX);
        struct att_err mine = {0};
        enum att_rc rc = read_one(dir, names[i][1], EVIDENCE_LOG_MAX, &bytes, &mine);
        if (rc == ATT_E_NOTFOUND) {
            continue;
        }
        if (rc == ATT_OK) {
            rc = evidence_logs_add(&in->logs, names[i][0], att_buf_slice(&bytes), &mine);
        }
        if (rc == ATT_OK) {
            rc = read_tail(dir, names[i][0], names[i][1], in, &mine);
        }
        if (rc != ATT_OK) {
            *err = mine;
            return rc;
        }
    }
    return ATT_OK;
}

static enum att_rc read_roots(const json_t *args, struct input *in, struct att_err *err)
{
    const char *ak_roots = json_string_value(json_object_get(args, "ak-roots"));
    const char *ek_roots = json_string_value(json_object_get(args, "ek-roots"));
    const char *policy = json_string_value(json_object_get(args, "policy"));
    enum att_rc rc = certs_bundle_load(ak_roots, &in->ak_roots, err);
    if (rc == ATT_OK) {
        rc = certs_ek_store_load(ek_roots, &in->ek_roots, err);
    }
    if (rc == ATT_OK && policy) {
        rc = ctl_policy_load(policy, &in->policy, NULL, err);
    }
    if (rc == ATT_OK) {
        const char *signer = json_string_value(json_object_get(args, "policy-signer"));
        rc = signer && !policy ? att_fail(err, ATT_E_INVAL, "--policy-signer: without --policy")
                               : ctl_signer_arg(signer, in->signer, &in->n_signers, err);
    }
    if (rc == ATT_OK) {
        const char *nonce = json_string_value(json_object_get(args, "nonce"));
        rc = att_unhex(&in->nonce_arg, att_slice_str(nonce), err);
        if (rc != ATT_OK) {
            att_err_prefix(err, "--nonce");
        }
    }
    return rc;
}

/* ---- judging ------------------------------------------------------------------------------- */

/* The values file has no indices: those that the quote's own selection names are meant. That the
 * selection is the right one is for --policy to say, and for the issuer, which asked for it. */
static enum att_rc take_pcrs(struct input *in, struct att_err *err)
{
    struct parse_attest attest;
    enum att_rc rc = parse_attest_quote(content(in, F_QUOTE), &attest, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "quote");
        return rc;
    }
    rc = parse_pcr_sel_from_raw(attest.u.quote.pcr_select, &in->pcrs.sel, err);
    if (rc != ATT_OK) {
        att_err_reason(err, "pcrSelection");
        return rc;
    }
    /* As tpm2_checkquote reads it without a selection, or the bare values. */
    struct parse_pcr_sel sel = in->pcrs.sel;
    if (parse_pcr_file_parse(content(in, F_PCRS), &sel, &in->pcrs, NULL) == ATT_OK) {
        return ATT_OK;
    }
    in->pcrs.digest_len = parse_alg_digest_len(in->pcrs.sel.bank);
    struct att_cur cur = att_cur_init(content(in, F_PCRS));
    for (unsigned i = 0; i < PARSE_PCR_COUNT; i++) {
        if (in->pcrs.sel.mask & (1U << i)) {
            struct att_slice value = att_cur_take(&cur, in->pcrs.digest_len);
            memcpy(in->pcrs.value[i], value.ptr ? value.ptr : (const uint8_t *)"", value.len);
        }
    }
    if (!att_cur_done(&cur)) {
        rc = att_fail(err, ATT_E_DENIED, "pcrs: %zu bytes are not the values of the quoted PCRs",
                      in->file[F_PCRS].len);
        att_err_reason(err, "pcrDigest");
        return rc;
    }
    return ATT_OK;
}

static void check_nonce(const struct input *in, uint8_t expected[ATT_SHA256_LEN],
                        struct verify_verdict *verdict, struct att_err *err)
{
    att_autobuf manifest = {0}, file_nonce = {0};
    struct att_slice text = content(in, F_NONCE);
    while (text.len && (text.ptr[text.len - 1] == '\n')) {
        text.len--;
    }
    bool matches = att_unhex(&file_nonce, text, NULL) == ATT_OK;
    if (in->agent) {
        evidence_quote_extra(expected, content(in, F_KEYAUTH),
                             content(in, content(in, F_ATTRIBUTES).len ? F_ATTRIBUTES : F_CERTINFO),
                             content(in, F_EVIDENCE));
        matches = matches &&
                  att_slice_eq(att_buf_slice(&in->nonce_arg), ATT_SLICE(expected, ATT_SHA256_LEN));
    } else if (evidence_manifest_encode(&in->logs, &manifest, err) == ATT_OK) {
        evidence_user_quote_extra(expected, att_buf_slice(&in->nonce_arg),
                                  att_buf_slice(&manifest));
    }
    if (!matches ||
        !att_slice_eq(att_buf_slice(&file_nonce), ATT_SLICE(expected, ATT_SHA256_LEN))) {
        verify_fail(verdict, VERIFY_REASON_QUOTE_NONCE,
                    "%s and the file \"nonce\" must both be what %s give",
                    in->agent ? "--nonce" : "--nonce with the logs",
                    in->agent ? "keyauth, certinfo (if any) and evidence.cbor" : "nonce and logs");
    }
}

/* ak.pem is the same key as ak.pub, for tools that read PEM: the one text that there is for it. It
 * is not read as PEM, of which a reader may pass over much, or ask whoever sits there for a pass
 * phrase. */
static void check_ak_pem(const struct input *in, struct verify_verdict *verdict)
{
    struct parse_public area;
    att_autobuf spki = {0}, pem = {0};
    bool same = parse_public_parse(content(in, F_AK_PUB), &area, NULL) == ATT_OK &&
                parse_public_spki(&area, &spki, NULL) == ATT_OK &&
                certs_pem_encode("PUBLIC KEY", att_buf_slice(&spki), &pem, NULL) == ATT_OK &&
                att_slice_eq(att_buf_slice(&pem), content(in, F_AK_PEM));
    if (!same) {
        verify_fail(verdict, VERIFY_REASON_AK_CERTIFICATE, "ak.pem is not the key of ak.pub");
    }
}

static enum att_rc check_certificates(struct input *in, int64_t now, struct verify_verdict *verdict,
                                      struct att_err *err)
{
    enum att_rc rc = certs_pem_parse(content(in, F_AK_CRT), &in->ak_chain, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "ak.crt");
        att_err_reason(err, "akCertificate");
        return rc;
    }
    struct att_buf ders[CERTS_CHAIN_MAX_CERTS] = {0};
    struct att_slice slices[CERTS_CHAIN_MAX_CERTS] = {0};
    int n = sk_X509_num(in->ak_chain);
    for (int i = 0; i < n && rc == ATT_OK; i++) {
        rc = certs_cert_der(sk_X509_value(in->ak_chain, i), &ders[i], err);
        slices[i] = att_buf_slice(&ders[i]);
    }
    char ek_id[VERIFY_ID_HEX] = "";
    certs_autostack *ek = NULL;
    att_autobuf ek_der = {0};
    if (rc == ATT_OK) {
        rc = certs_pem_parse(content(in, F_EK_CRT), &ek, err);
        if (rc == ATT_OK && sk_X509_num(ek) != 1) {
            rc = att_fail(err, ATT_E_PARSE, "expected one certificate, found %d", sk_X509_num(ek));
        }
        if (rc == ATT_OK) {
            rc = certs_cert_der(sk_X509_value(ek, 0), &ek_der, err);
        }
        if (rc != ATT_OK) {
            att_err_prefix(err, "ek.crt");
            att_err_reason(err, "ekChain");
        }
    }
    if (rc == ATT_OK &&
        verify_ak_certificate(slices[0], slices + 1, (size_t)n - 1, content(in, F_AK_PUB),
                              in->ak_roots, now, verdict, ek_id) == VERIFY_ACCEPTED) {
        struct verify_ek_facts facts;
        (void)!verify_ek_certificate(att_buf_slice(&ek_der), in->ek_roots, ek_id, now, verdict,
                                     &facts);
    }
    att_buf_put_slice(&in->ak_der, slices[0]);
    for (int i = 0; i < n; i++) {
        att_buf_done(&ders[i]);
    }
    return rc == ATT_OK ? att_buf_ok(&in->ak_der, err) : rc;
}

/* An operator's quote comes with every log of its host, whatever PCRs were asked for. */
static void choose_logs(const struct input *in, struct verify_boot *boot,
                        struct verify_verdict *verdict)
{
    for (size_t i = 0; i < in->logs.n; i++) {
        uint32_t bit = verify_log_bit(att_slice_str(in->logs.log[i].name));
        uint32_t pcrs = bit == VERIFY_LOG_IMA       ? VERIFY_PCRS_IMA
                        : bit == VERIFY_LOG_SYSTEMD ? VERIFY_PCRS_SYSTEMD
                                                    : UINT32_MAX;
        if (in->pcrs.sel.mask & pcrs) {
            boot->logs |= bit;
        } else {
            verify_skip(verdict, VERIFY_REASON_LOG_REPLAY,
                        "the %s log is not judged: the quote covers none of its PCRs",
                        in->logs.log[i].name);
        }
    }
}

static void fill_boot(const struct input *in, int64_t now, struct verify_quoted *quoted,
                      struct verify_boot *boot)
{
    boot->selection = in->pcrs.sel;
    boot->policy = in->policy;
    boot->signers = (const uint8_t(*)[ATT_SHA256_LEN])in->signer;
    boot->n_signers = in->n_signers;
    boot->boot_none = !in->policy;
    boot->now = now;
    quoted->attest = content(in, F_QUOTE);
    quoted->signature = content(in, F_QUOTE_SIG);
    quoted->pcrs = &in->pcrs;
    quoted->logs = &in->logs;
    if (in->policy) {
        boot->logs |= in->policy->logs;
    }
}

/* A peer believes what a certificate says of its key's place: that has to be what was proved. */
static void check_holding(const X509 *leaf, const char *cert,
                          const struct verify_agent_facts *facts, struct verify_verdict *verdict)
{
    struct certs_key_holding holding;
    struct att_err why = {0};
    enum att_rc rc = certs_key_holding_get(leaf, &holding, &why);
    if (rc == ATT_E_NOTFOUND) {
        verify_skip(verdict, VERIFY_REASON_KEY_STORE, "%s: %s", cert, why.msg);
    } else if (rc != ATT_OK) {
        verify_fail(verdict, VERIFY_REASON_KEY_STORE, "%s: %s", cert, why.msg);
    } else if (strcmp(certs_key_store_name(holding.store), facts->key_store) != 0) {
        verify_fail(verdict, VERIFY_REASON_KEY_STORE,
                    "%s says that its key is of kind \"%s\", the evidence is of one of kind \"%s\"",
                    cert, certs_key_store_name(holding.store), facts->key_store);
    }
}

/* The same of what opens the key's parent. */
static void check_sealed(const X509 *leaf, const char *cert, const struct verify_agent_facts *facts,
                         struct verify_verdict *verdict)
{
    struct certs_sealed sealed;
    struct att_err why = {0};
    enum att_rc rc = certs_sealed_get(leaf, &sealed, &why);
    if (rc == ATT_E_NOTFOUND) {
        verify_skip(verdict, VERIFY_REASON_KEY_PARENT,
                    "%s says of no policy that opens the key's parent", cert);
    } else if (rc != ATT_OK) {
        verify_fail(verdict, VERIFY_REASON_KEY_PARENT, "%s: %s", cert, why.msg);
    } else if (!facts->parent_sealed ||
               memcmp(facts->parent_policy, sealed.policy, sizeof sealed.policy) != 0) {
        verify_fail(verdict, VERIFY_REASON_KEY_PARENT,
                    "%s says that the key's parent opens by another policy than the evidence shows",
                    cert);
    } else {
        verify_pass(verdict, VERIFY_REASON_KEY_PARENT,
                    sealed.counter
                        ? "%s names the policy of the key's parent and counter 0x%08x (the host's "
                          "word)"
                        : "%s names the policy of the key's parent and no counter: old policies "
                          "may be replayed",
                    cert, sealed.counter);
    }
}

/* And of which HSM module has it. */
static void check_hsm(const X509 *leaf, const char *cert, const struct verify_agent_facts *facts,
                      struct verify_verdict *verdict)
{
    struct certs_hsm hsm = {{0}};
    struct att_err why = {0};
    enum att_rc rc = certs_hsm_get(leaf, &hsm, &why);
    if (rc != ATT_OK && rc != ATT_E_NOTFOUND) {
        verify_fail(verdict, VERIFY_REASON_KEY_HSM, "%s: %s", cert, why.msg);
    } else if (rc == ATT_OK && strcmp(hsm.name, facts->hsm) != 0) {
        verify_fail(verdict, VERIFY_REASON_KEY_HSM,
                    "%s says that its key is in the HSM module \"%s\", the evidence says \"%s\"",
                    cert, hsm.name, facts->hsm);
    }
}

/* The certificate that was issued for this evidence: its key, name and key store. */
static enum att_rc check_cert(const char *cert, const char *identifier,
                              const struct verify_agent_facts *facts,
                              struct verify_verdict *verdict, struct att_err *err)
{
    att_autobuf pem = ATT_BUF_INIT(CERTS_CHAIN_MAX_LEN), id = {0};
    certs_autostack *chain = NULL;
    struct att_err why = {0};
    enum att_rc rc = att_io_read_file(cert, CERTS_CHAIN_MAX_LEN, &pem, err);
    if (rc == ATT_OK) {
        rc = certs_pem_parse(att_buf_slice(&pem), &chain, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "%s", cert);
        return rc;
    }
    const X509 *leaf = sk_X509_value(chain, 0);
    if (certs_cert_matches_spki(leaf, ATT_SLICE(facts->spki, facts->spki_len), NULL) == ATT_OK) {
        verify_pass(verdict, VERIFY_REASON_CSR_KEY, "%s is for the key of the evidence", cert);
    } else {
        verify_fail(verdict, VERIFY_REASON_CSR_KEY, "%s is for another key than the evidence's",
                    cert);
    }
    if (certs_san_spiffe(leaf, &id, &why) != ATT_OK ||
        !att_slice_eq_str(att_buf_slice(&id), identifier)) {
        verify_fail(verdict, VERIFY_REASON_EVIDENCE_MISMATCH, "%s is for %.*s, the evidence for %s",
                    cert, (int)id.len, id.len ? (const char *)id.ptr : "", identifier);
    }
    check_holding(leaf, cert, facts, verdict);
    check_sealed(leaf, cert, facts, verdict);
    check_hsm(leaf, cert, facts, verdict);
    return ATT_OK;
}

static enum att_rc check_agent(struct input *in, const struct verify_quoted *quoted,
                               const struct verify_boot *boot, const json_t *args,
                               struct verify_verdict *verdict, struct att_err *err)
{
    enum att_rc rc = evidence_statement_parse(content(in, F_EVIDENCE), &in->statement, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "evidence.cbor");
        att_err_reason(err, "evidenceMismatch");
        return rc;
    }
    char keyauth[512];
    struct att_slice text = content(in, F_KEYAUTH);
    if (text.len >= sizeof keyauth ||
        memchr(text.ptr ? text.ptr : (const uint8_t *)"", 0, text.len)) {
        return att_fail(err, ATT_E_PARSE, "keyauth: not a key authorization");
    }
    snprintf(keyauth, sizeof keyauth, "%.*s", (int)text.len, (const char *)text.ptr);
    const char *id = json_string_value(json_object_get(args, "id"));
    struct verify_agent_in agent = {
        .ak_cert = att_buf_slice(&in->ak_der),
        .certify_sig =
            content(in, content(in, F_ATTRIBUTES).len ? F_ATTRIBUTES_SIG : F_CERTINFO_SIG),
        .cert_info = content(in, F_CERTINFO),
        .pub_area = content(in, F_PUBAREA),
        .spki = content(in, F_SPKI),
        .attributes = content(in, F_ATTRIBUTES),
        .evidence = content(in, F_EVIDENCE),
        .quoted = *quoted,
        .srk_pub = content(in, F_SRK_PUB),
        .parent_pub = content(in, F_PARENT_PUB),
        .key_authorization = keyauth,
        .identifier = id ? id : in->statement.identifier,
        .key_stores = VERIFY_KEY_TPM | VERIFY_KEY_HSM | VERIFY_KEY_MEMORY |
                      VERIFY_KEY_EXPORTABLE, /* which it is, the check says */
        .key_types = VERIFY_TYPE(ATT_KEYTYPE_P256) | VERIFY_TYPE(ATT_KEYTYPE_RSA2048) |
                     VERIFY_TYPE(ATT_KEYTYPE_RSA3072),
        .ak = {.ak_pub = content(in, F_AK_PUB)},
        .boot = *boot,
        .no_parents = in->file[F_SRK_PUB].len == 0,
    };
    struct verify_agent_facts facts = {0};
    enum verify_result result = verify_agent(&agent, verdict, &facts);
    const char *cert = json_string_value(json_object_get(args, "cert"));
    return result == VERIFY_ACCEPTED && cert
               ? check_cert(cert, agent.identifier, &facts, verdict, err)
               : ATT_OK;
}

static enum att_rc judge(struct input *in, const json_t *args, struct verify_verdict *verdict,
                         struct att_err *err)
{
    int64_t now = att_now_utc_s();
    uint8_t extra[ATT_SHA256_LEN] = {0};
    struct verify_quoted quoted = {0};
    struct verify_boot boot = {0};
    enum att_rc rc = check_certificates(in, now, verdict, err);
    if (rc == ATT_OK) {
        rc = take_pcrs(in, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    check_ak_pem(in, verdict);
    check_nonce(in, extra, verdict, err);
    if (verify_verdict_failed(verdict)) {
        return ATT_OK;
    }
    choose_logs(in, &boot, verdict);
    fill_boot(in, now, &quoted, &boot);
    if (in->agent) {
        return check_agent(in, &quoted, &boot, args, verdict, err);
    }
    struct verify_quote_facts facts;
    (void)!verify_quote(&quoted, content(in, F_AK_PUB), ATT_SLICE_ARRAY(extra), &boot, verdict,
                        &facts);
    return ATT_OK;
}

enum ctl_exit ctl_verify_run(const struct ctl_ctx *ctx, const struct ctl_args *args,
                             const json_t *result)
{
    (void)result;
    ATT_CLEANUP(input_done) struct input in = {0};
    verify_autoverdict *verdict = verify_verdict_new();
    const char *dir = json_string_value(json_object_get(args->json, "DIR"));
    struct att_err err = {0};
    enum att_rc rc = verdict ? read_files(dir, &in, &err) : ATT_E_NOMEM;
    if (rc == ATT_OK) {
        rc = read_logs(dir, &in, &err);
    }
    if (rc == ATT_OK) {
        rc = read_roots(args->json, &in, &err);
    }
    if (rc == ATT_OK) {
        rc = judge(&in, args->json, verdict, &err);
    }
    if (rc != ATT_OK) {
        err.rc = rc;
        return ctl_report(&err);
    }
    att_autojson *json = NULL;
    att_autobuf text = {0};
    if (ctx->json) {
        rc = verify_verdict_json(verdict, &json, &err);
        if (rc != ATT_OK) {
            return ctl_report(&err);
        }
        ctl_print_json(json);
    } else {
        verify_verdict_text(verdict, &text);
        fputs(att_buf_cstr(&text) ? att_buf_cstr(&text) : "", stdout);
    }
    if (verify_verdict_err(verdict, &err) != ATT_OK) {
        return ctl_report(&err);
    }
    return CTL_OK;
}
