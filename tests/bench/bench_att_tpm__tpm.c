/* Area "tpm": each operation of tpm/ beside the barest ESAPI call that does the unavoidable part,
 * with a password session. argv: TCTI, samples. */
#include "tests/bench/bench.h"
#include "tpm/ak.h"
#include "tpm/certify.h"
#include "tpm/counter.h"
#include "tpm/key.h"
#include "tpm/parent.h"
#include "tpm/quote.h"

#include <openssl/ec.h>
#include <string.h>
#include <tss2/tss2_esys.h>
#include <tss2/tss2_tctildr.h>

static struct bench ours;

/* ---- the floor: raw ESAPI ------------------------------------------------------------------ */

struct raw {
    TSS2_TCTI_CONTEXT *tcti;
    ESYS_CONTEXT *esys;
    ESYS_TR primary, key, ak;
    TPM2B_PUBLIC template;
};

static enum att_rc ok(TSS2_RC rc)
{
    if (rc != TSS2_RC_SUCCESS) {
        fprintf(stderr, "ESAPI: 0x%08x\n", rc);
        return ATT_E_IO;
    }
    return ATT_OK;
}

static TPM2B_PUBLIC ecc_template(TPMA_OBJECT attributes, bool storage, bool restricted_sign)
{
    TPM2B_PUBLIC pub = {.publicArea = {.type = TPM2_ALG_ECC,
                                       .nameAlg = TPM2_ALG_SHA256,
                                       .objectAttributes = attributes}};
    TPMS_ECC_PARMS *ecc = &pub.publicArea.parameters.eccDetail;
    ecc->curveID = TPM2_ECC_NIST_P256;
    ecc->kdf.scheme = TPM2_ALG_NULL;
    ecc->scheme.scheme = restricted_sign ? TPM2_ALG_ECDSA : TPM2_ALG_NULL;
    ecc->scheme.details.ecdsa.hashAlg = TPM2_ALG_SHA256;
    ecc->symmetric.algorithm = storage ? TPM2_ALG_AES : TPM2_ALG_NULL;
    ecc->symmetric.keyBits.aes = 128;
    ecc->symmetric.mode.aes = TPM2_ALG_CFB;
    return pub;
}

static enum att_rc raw_primary(struct raw *raw, ESYS_TR hierarchy, const TPM2B_PUBLIC *pub,
                               ESYS_TR *ret)
{
    const TPM2B_SENSITIVE_CREATE sensitive = {0};
    const TPM2B_DATA outside = {0};
    const TPML_PCR_SELECTION pcrs = {0};
    return ok(Esys_CreatePrimary(raw->esys, hierarchy, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                                 &sensitive, pub, &outside, &pcrs, ret, NULL, NULL, NULL, NULL));
}

static enum att_rc raw_create(struct raw *raw, bool load)
{
    const TPM2B_SENSITIVE_CREATE sensitive = {0};
    const TPM2B_DATA outside = {0};
    const TPML_PCR_SELECTION pcrs = {0};
    TPM2B_PRIVATE *priv = NULL;
    TPM2B_PUBLIC *pub = NULL;
    enum att_rc rc =
        ok(Esys_Create(raw->esys, raw->primary, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                       &sensitive, &raw->template, &outside, &pcrs, &priv, &pub, NULL, NULL, NULL));
    if (rc == ATT_OK && load) {
        rc = ok(Esys_Load(raw->esys, raw->primary, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                          priv, pub, &raw->key));
    }
    Esys_Free(priv);
    Esys_Free(pub);
    return rc;
}

static enum att_rc raw_sign(struct raw *raw)
{
    const TPM2B_DIGEST digest = {.size = 32, .buffer = {1}};
    const TPMT_SIG_SCHEME scheme = {.scheme = TPM2_ALG_ECDSA,
                                    .details.ecdsa.hashAlg = TPM2_ALG_SHA256};
    const TPMT_TK_HASHCHECK ticket = {.tag = TPM2_ST_HASHCHECK, .hierarchy = TPM2_RH_NULL};
    TPMT_SIGNATURE *sig = NULL;
    enum att_rc rc = ok(Esys_Sign(raw->esys, raw->key, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                                  &digest, &scheme, &ticket, &sig));
    Esys_Free(sig);
    return rc;
}

/* What a signature costs when the key has to be brought back first. */
static enum att_rc raw_load_sign(struct raw *raw, const TPMS_CONTEXT *saved)
{
    enum att_rc rc = ok(Esys_ContextLoad(raw->esys, saved, &raw->key));
    if (rc == ATT_OK) {
        rc = raw_sign(raw);
    }
    return rc == ATT_OK ? ok(Esys_FlushContext(raw->esys, raw->key)) : rc;
}

static enum att_rc measure_load_sign(struct raw *raw, struct bench *bench, size_t n)
{
    TPMS_CONTEXT *saved = NULL;
    enum att_rc rc = ok(Esys_ContextSave(raw->esys, raw->key, &saved));
    if (rc == ATT_OK) {
        rc = ok(Esys_FlushContext(raw->esys, raw->key));
    }
    if (rc == ATT_OK) {
        BENCH_RUN(bench, n, raw_load_sign(raw, saved));
        rc = ok(Esys_ContextLoad(raw->esys, saved, &raw->key)); /* as it was */
    }
    Esys_Free(saved);
    return rc;
}

static enum att_rc raw_certify(struct raw *raw)
{
    const TPM2B_DATA data = {.size = 32};
    const TPMT_SIG_SCHEME scheme = {.scheme = TPM2_ALG_NULL};
    TPM2B_ATTEST *attest = NULL;
    TPMT_SIGNATURE *sig = NULL;
    enum att_rc rc =
        ok(Esys_Certify(raw->esys, raw->key, raw->ak, ESYS_TR_PASSWORD, ESYS_TR_PASSWORD,
                        ESYS_TR_NONE, &data, &scheme, &attest, &sig));
    Esys_Free(attest);
    Esys_Free(sig);
    return rc;
}

static enum att_rc raw_quote(struct raw *raw)
{
    const TPM2B_DATA data = {.size = 32};
    const TPMT_SIG_SCHEME scheme = {.scheme = TPM2_ALG_NULL};
    const TPML_PCR_SELECTION pcrs = {
        .count = 1,
        .pcrSelections[0] = {.hash = TPM2_ALG_SHA256, .sizeofSelect = 3, .pcrSelect = {0xff}}};
    TPM2B_ATTEST *attest = NULL;
    TPMT_SIGNATURE *sig = NULL;
    enum att_rc rc = ok(Esys_Quote(raw->esys, raw->ak, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE,
                                   &data, &scheme, &pcrs, &attest, &sig));
    Esys_Free(attest);
    Esys_Free(sig);
    return rc;
}

static enum att_rc raw_open(struct raw *raw, const char *tcti)
{
    const TPMA_OBJECT fixed = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT |
                              TPMA_OBJECT_SENSITIVEDATAORIGIN | TPMA_OBJECT_USERWITHAUTH |
                              TPMA_OBJECT_NODA;
    enum att_rc rc = ok(Tss2_TctiLdr_Initialize(tcti, &raw->tcti));
    if (rc == ATT_OK) {
        rc = ok(Esys_Initialize(&raw->esys, raw->tcti, NULL));
    }
    const TPM2B_PUBLIC storage =
        ecc_template(fixed | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT, true, false);
    const TPM2B_PUBLIC ak =
        ecc_template(fixed | TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_SIGN_ENCRYPT, false, true);
    raw->template = ecc_template(fixed | TPMA_OBJECT_SIGN_ENCRYPT, false, false);
    if (rc == ATT_OK) {
        rc = raw_primary(raw, ESYS_TR_RH_OWNER, &storage, &raw->primary);
    }
    if (rc == ATT_OK) {
        rc = raw_primary(raw, ESYS_TR_RH_ENDORSEMENT, &ak, &raw->ak);
    }
    return rc;
}

static void raw_close(struct raw *raw)
{
    Esys_FlushContext(raw->esys, raw->key);
    Esys_FlushContext(raw->esys, raw->ak);
    Esys_FlushContext(raw->esys, raw->primary);
    Esys_Finalize(&raw->esys);
    Tss2_TctiLdr_Finalize(&raw->tcti);
}

/* ---- ours ---------------------------------------------------------------------------------- */

static enum att_rc our_create(struct tpm_context *ctx, struct att_slice auth)
{
    tpm_autoblob blob = {0};
    return tpm_key_create(ctx, auth, &blob, NULL);
}

static enum att_rc our_certify(struct tpm_context *ctx, const struct tpm_blob *key,
                               struct att_slice auth, struct att_slice extra)
{
    tpm_autocertify certify = {0};
    return tpm_certify_create(ctx, key, auth, extra, &certify, NULL);
}

static enum att_rc our_quote(struct tpm_context *ctx, const struct parse_pcr_sel *sel,
                             struct att_slice extra)
{
    tpm_autoquote quote = {0};
    return tpm_quote_create(ctx, sel, extra, &quote, NULL);
}

/* A TPM takes one connection at a time here, so the floors are measured first. */
static struct bench floor_create, floor_sign, floor_certify, floor_quote, floor_load;

static enum att_rc measure_floor(const char *tcti, size_t n)
{
    struct raw raw = {0};
    enum att_rc rc = raw_open(&raw, tcti);
    if (rc != ATT_OK) {
        return rc;
    }
    /* Before a key is loaded: with the two primaries it would take the last of three slots. */
    BENCH_RUN(&floor_create, n, raw_create(&raw, false));
    rc = raw_create(&raw, true);
    if (rc != ATT_OK) {
        return rc;
    }
    BENCH_RUN(&floor_sign, n, raw_sign(&raw));
    BENCH_RUN(&floor_certify, n, raw_certify(&raw));
    BENCH_RUN(&floor_quote, n, raw_quote(&raw));
    rc = measure_load_sign(&raw, &floor_load, n);
    bench_row("raw/load-sign-flush", &floor_load, NULL);
    raw_close(&raw);
    return rc;
}

static enum att_rc measure_ours(const char *tcti, size_t n)
{
    const struct tpm_options options = {.tcti = tcti};
    struct tpm_context *ctx = NULL;
    tpm_autoblob key = {0};
    uint8_t auth[TPM_KEY_AUTH_LEN], extra[32] = {7}, digest[32] = {9};
    memset(auth, 0x5a, sizeof auth);
    const struct att_slice secret = ATT_SLICE_ARRAY(auth), data = ATT_SLICE_ARRAY(extra);
    const struct parse_pcr_sel sel = {PARSE_ALG_SHA256, 0xff};
    struct tpm_signature sig;
    enum att_rc rc = tpm_context_open(&options, &ctx, NULL);
    if (rc == ATT_OK) {
        rc = tpm_key_create(ctx, secret, &key, NULL);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    BENCH_RUN(&ours, n, our_create(ctx, secret));
    bench_row("tpm/create", &ours, &floor_create);
    BENCH_RUN(&ours, n, tpm_key_sign(ctx, &key, secret, digest, &sig, NULL));
    bench_row("tpm/sign", &ours, &floor_sign);
    BENCH_RUN(&ours, n, our_certify(ctx, &key, secret, data));
    bench_row("tpm/certify", &ours, &floor_certify);
    BENCH_RUN(&ours, n, our_quote(ctx, &sel, data));
    bench_row("tpm/quote", &ours, &floor_quote);
    tpm_context_free(ctx);
    return ATT_OK;
}

/* ---- through the storage parent's policy ---------------------------------------------------- */

static enum att_rc load_anew(struct tpm_context *ctx, const struct tpm_blob *key)
{
    tpm_key_evict(ctx, key); /* with its saved context */
    return tpm_key_load(ctx, key, NULL);
}

/* A parent under a policy key made here, with a counter, opened by a policy for the PCRs of now. */
static enum att_rc make_parent(struct tpm_context *ctx, struct att_slice auth, EVP_PKEY *pkey)
{
    struct parse_pcr_boot boot = {.label = "now"};
    struct parse_pcr_policy signed_policy = {.name = "bench",
                                             .version = UINT32_MAX,
                                             .ref = "bench",
                                             .counter = PARSE_SEAL_COUNTER_DEFAULT,
                                             .n_boots = 1,
                                             .boots = &boot};
    const struct parse_pcr_sel sel = {PARSE_ALG_SHA256, 0xff};
    tpm_autoparentpolicy policy = {.ref = "bench"};
    tpm_autoblob parent = {0};
    struct parse_public pub;
    att_autobuf text = {0};
    uint8_t authorize[PARSE_POLICY_LEN];
    struct tpm_counter counter;
    enum att_rc rc = tpm_quote_pcr_read(ctx, &sel, &boot.pcrs, NULL);
    rc = rc ? rc : tpm_counter_read(ctx, signed_policy.counter, &counter, NULL);
    if (!rc && !counter.defined) {
        rc = tpm_counter_define(ctx, signed_policy.counter, auth, NULL);
    }
    rc = rc ? rc : parse_pcr_policy_sign(&signed_policy, pkey, &text, NULL);
    rc = rc ? rc : parse_seal_policy_key(pkey, &pub, NULL);
    rc = rc ? rc : parse_public_encode(&pub, &policy.key, NULL);
    rc = rc ? rc : tpm_parent_policy_add(&policy, &signed_policy, NULL);
    if (!rc) {
        parse_seal_authorize(&signed_policy.key, att_slice_str("bench"), authorize);
        rc = tpm_parent_create(ctx, authorize, &parent, NULL);
    }
    return rc ? rc : tpm_parent_set(ctx, &parent, &policy, NULL);
}

static enum att_rc measure_sealed(const char *tcti, size_t n)
{
    const struct tpm_options options = {.tcti = tcti, .cache_slots = 1};
    struct tpm_context *ctx = NULL;
    tpm_autoblob plain = {0}, key = {0}, other = {0};
    uint8_t auth[TPM_KEY_AUTH_LEN];
    EVP_PKEY *pkey = EVP_EC_gen("P-256");
    memset(auth, 0x5a, sizeof auth);
    const struct att_slice secret = ATT_SLICE_ARRAY(auth);
    enum att_rc rc = pkey ? tpm_context_open(&options, &ctx, NULL) : ATT_E_CRYPTO;
    rc = rc ? rc : tpm_key_create(ctx, secret, &plain, NULL);
    if (!rc) {
        BENCH_RUN(&ours, n, load_anew(ctx, &plain));
        bench_row("tpm/load", &ours, NULL);
        rc = make_parent(ctx, secret, pkey);
    }
    rc = rc ? rc : tpm_key_create(ctx, secret, &key, NULL);
    rc = rc ? rc : tpm_key_create(ctx, secret, &other, NULL);
    rc = rc ? rc : tpm_key_load(ctx, &other, NULL);
    if (!rc) {
        BENCH_RUN(&ours, n, load_anew(ctx, &key));
        bench_row("tpm/load-sealed", &ours, NULL);
        size_t turn = 0; /* one slot for two keys */
        BENCH_RUN(&ours, n, tpm_key_load(ctx, turn++ % 2 ? &key : &other, NULL));
        bench_row("tpm/load-saved", &ours, NULL);
    }
    tpm_context_free(ctx);
    EVP_PKEY_free(pkey);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s TCTI SAMPLES\n", argv[0]);
        return 2;
    }
    setenv("TSS2_LOG", "all+NONE", 0);
    size_t n = (size_t)strtoul(argv[2], NULL, 10);
    return measure_floor(argv[1], n) == ATT_OK && measure_ours(argv[1], n) == ATT_OK &&
                   measure_sealed(argv[1], n) == ATT_OK
               ? 0
               : 1;
}
