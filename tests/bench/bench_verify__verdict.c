/* Area "verdict": the issuer's whole judgement of one issuance (verify_agent, verify_csr) on
 * forged, honest evidence, beside its three signature verifications by libcrypto alone: Certify,
 * Quote, CSR. argv: samples, tests/vectors (not used). */
#include "certs/csr.h"
#include "provision/verify/agent.h"
#include "tests/bench/bench.h"
#include "tests/support/forge.h"
#include "tpm/parse/sig.h"

static struct bench ours, bare;

/* One signature as libcrypto takes it. */
struct signature {
    EVP_PKEY *key;
    struct att_slice bytes;
    struct att_buf der;
};

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bench_verify__verdict: %s\n", what);
        exit(1);
    }
}

static void from_tpm(struct signature *ret, EVP_PKEY *key, const struct att_buf *bytes,
                     const struct att_buf *tpmt)
{
    struct parse_sig sig;
    *ret = (struct signature){.key = key, .bytes = att_buf_slice(bytes)};
    must(parse_sig_parse(att_buf_slice(tpmt), &sig, NULL) == ATT_OK, "TPMT_SIGNATURE");
    must(parse_sig_der(&sig, &ret->der, NULL) == ATT_OK, "ECDSA-Sig-Value");
}

/* A CSR's verification, bare, is that of any 300 bytes. */
static void over_csr(struct signature *ret, EVP_PKEY *key, struct att_slice csr)
{
    size_t len = 0;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    *ret = (struct signature){.key = key, .bytes = csr};
    must(ctx && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key) == 1 &&
             EVP_DigestSign(ctx, NULL, &len, csr.ptr, csr.len) == 1,
         "EVP_DigestSign");
    uint8_t *at = att_buf_extend(&ret->der, len);
    must(at && EVP_DigestSign(ctx, at, &len, csr.ptr, csr.len) == 1, "EVP_DigestSign");
    ret->der.len = len;
    EVP_MD_CTX_free(ctx);
}

static bool verify_bare(const struct signature *sig)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok =
        ctx && EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, sig->key) == 1 &&
        EVP_DigestVerify(ctx, sig->der.ptr, sig->der.len, sig->bytes.ptr, sig->bytes.len) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

static enum att_rc floor_once(const struct signature sigs[3])
{
    return verify_bare(&sigs[0]) && verify_bare(&sigs[1]) && verify_bare(&sigs[2]) ? ATT_OK
                                                                                   : ATT_E_CRYPTO;
}

static enum att_rc judge_once(const struct forge *forge, struct att_slice csr,
                              struct att_slice account)
{
    struct verify_agent_facts facts;
    verify_autoverdict *verdict = verify_verdict_new();
    if (!verdict || verify_agent(&forge->agent_in, verdict, &facts) != VERIFY_ACCEPTED) {
        return ATT_E_DENIED;
    }
    return verify_csr(csr, forge->identifier, ATT_SLICE(facts.spki, facts.spki_len), &account, 1,
                      verdict) == VERIFY_ACCEPTED
               ? ATT_OK
               : ATT_E_DENIED;
}

int main(int argc, char **argv)
{
    size_t n = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 1000;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
    att_autobuf csr = {0}, account = {0};
    forge_build(forge, NULL);
    must(certs_csr_create(forge->agent.pkey, forge->identifier, &csr, NULL) == ATT_OK, "CSR");
    forge_spki(forge->account, &account);
    struct signature sigs[3];
    from_tpm(&sigs[0], forge->ak.pkey, &forge->certify_bytes, &forge->certify_sig);
    from_tpm(&sigs[1], forge->ak.pkey, &forge->quote_bytes, &forge->quote_sig);
    over_csr(&sigs[2], forge->agent.pkey, att_buf_slice(&csr));
    BENCH_RUN(&bare, n, floor_once(sigs));
    BENCH_RUN(&ours, n, judge_once(forge, att_buf_slice(&csr), att_buf_slice(&account)));
    bench_row("verdict/full", &ours, &bare);
    for (size_t i = 0; i < 3; i++) {
        att_buf_done(&sigs[i].der);
    }
    forge_free(forge);
    return 0;
}
