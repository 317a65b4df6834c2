/* RSA keys in an HSM (fmt attestd-hsm): type, size, exponent, who allows them, and the signature.
 */
#include "tests/unit/verify/harness.h"

#include "provision/evidence/attobj.h"

#include <openssl/rsa.h>

#define AT(s)                                                                                      \
    if (stage != (s)) {                                                                            \
        return;                                                                                    \
    }

#define ALL_TYPES                                                                                  \
    (VERIFY_TYPE(ATT_KEYTYPE_P256) | VERIFY_TYPE(ATT_KEYTYPE_RSA2048) |                            \
     VERIFY_TYPE(ATT_KEYTYPE_RSA3072))

static EVP_PKEY *rsa_1024, *rsa_2048, *rsa_3072, *rsa_4096, *exponent_3, *stranger;

static EVP_PKEY *make(int bits, unsigned exponent)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    BIGNUM *e = BN_new();
    if (BN_set_word(e, exponent) != 1 || EVP_PKEY_keygen_init(ctx) != 1 ||
        EVP_PKEY_CTX_set_rsa_keygen_bits(ctx, bits) != 1 ||
        EVP_PKEY_CTX_set1_rsa_keygen_pubexp(ctx, e) != 1 || EVP_PKEY_generate(ctx, &key) != 1) {
        abort();
    }
    BN_free(e);
    EVP_PKEY_CTX_free(ctx);
    return key;
}

static void profile_without(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.key_types = VERIFY_TYPE(ATT_KEYTYPE_P256) | VERIFY_TYPE(ATT_KEYTYPE_RSA3072);
}
static void entry_says_it(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.entry_type = VERIFY_TYPE(ATT_KEYTYPE_RSA2048);
}
static void entry_says_3072(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.entry_type = VERIFY_TYPE(ATT_KEYTYPE_RSA3072);
}
static void entry_says_p256(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.entry_type = VERIFY_TYPE(ATT_KEYTYPE_P256);
}
static void signed_by_another(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_CERTIFY)
    f->hsm_signer = stranger;
}
static void signed_for_another_order(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->certified_key_authorization = "another-token-of-this-account.thumbprint";
}
static void says_es256(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->hsm_alg = EVIDENCE_COSE_ES256;
}
static void signature_short(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    f->certify_sig.len = 255;
}
/* PKCS #1 v1.5 in place of PSS: another use of the same key. */
static void signed_by_pkcs1(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    att_autobuf message = {0};
    uint8_t sig[512];
    size_t len = sizeof sig;
    att_buf_put_str(&message, f->certified_key_authorization);
    att_buf_put_slice(&message, att_buf_slice(&f->certify_bytes));
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, rsa_2048), 1);
    assert_int_equal(EVP_DigestSign(ctx, sig, &len, message.ptr, message.len), 1);
    EVP_MD_CTX_free(ctx);
    att_buf_reset(&f->certify_sig);
    att_buf_put(&f->certify_sig, sig, len);
}

static void run(const char *name, EVP_PKEY *key, bool hsm, forge_mutate mutate,
                enum verify_reason reason, const char *says)
{
    struct forge *f = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    struct verify_agent_facts facts = {0};
    f->memory = true;
    f->hsm = hsm;
    f->outside = key;
    forge_build(f, mutate);
    if (f->agent_in.key_types == VERIFY_TYPE(ATT_KEYTYPE_P256)) {
        f->agent_in.key_types = ALL_TYPES;
    }
    enum verify_result result = verify_agent(&f->agent_in, verdict, &facts);
    if (reason == VERIFY_REASON_NONE) {
        assert_accepted(verdict, name);
        assert_int_equal(result, VERIFY_ACCEPTED);
        assert_string_equal(facts.key_type, says);
    } else {
        assert_refused(verdict, reason, name);
        assert_int_equal(result, VERIFY_REFUSED);
        const char *detail = verify_verdict_refusal(verdict)->detail;
        if (!strstr(detail, says)) {
            fail_msg("%s: \"%s\" does not say \"%s\"", name, detail, says);
        }
    }
    forge_free(f);
}

static void test_types(void **state)
{
    (void)state;
    run("1024 bits", rsa_1024, true, NULL, VERIFY_REASON_KEY_TYPE, "1024 bits, expected 2048");
    run("4096 bits", rsa_4096, true, NULL, VERIFY_REASON_KEY_TYPE, "4096 bits");
    run("exponent 3", exponent_3, true, NULL, VERIFY_REASON_KEY_TYPE, "expected 65537");
    run("profile without", rsa_2048, true, profile_without, VERIFY_REASON_KEY_TYPE,
        "profile does not allow keys of type \"rsa-2048\"");
    run("entry says another size", rsa_2048, true, entry_says_3072, VERIFY_REASON_KEY_TYPE,
        "entry says \"rsa-3072\"");
    run("entry says P-256", rsa_2048, true, entry_says_p256, VERIFY_REASON_KEY_TYPE,
        "entry says \"ec-p256\"");
    run("P-256, entry says RSA", NULL, true, entry_says_it, VERIFY_REASON_KEY_TYPE,
        "type \"ec-p256\", the agent's entry says \"rsa-2048\"");
    run("RSA in memory", rsa_2048, false, NULL, VERIFY_REASON_KEY_TYPE,
        "\"memory\" is on P-256, this one is of type \"rsa-2048\"");
}

static void test_signature(void **state)
{
    (void)state;
    run("another key's", rsa_2048, true, signed_by_another, VERIFY_REASON_CERTIFY_SIGNATURE,
        "not the key's");
    run("another order's", rsa_2048, true, signed_for_another_order,
        VERIFY_REASON_CERTIFY_SIGNATURE, "not the key's");
    run("PKCS #1 v1.5", rsa_2048, true, signed_by_pkcs1, VERIFY_REASON_CERTIFY_SIGNATURE,
        "not the key's");
    run("alg -7", rsa_2048, true, says_es256, VERIFY_REASON_CERTIFY_SIGNATURE,
        "alg -7, expected -37 (PS256)");
    run("255 bytes", rsa_2048, true, signature_short, VERIFY_REASON_MALFORMED,
        "255 bytes, expected 256 of a key of type rsa-2048");
}

static void test_accepted(void **state)
{
    (void)state;
    run("honest", rsa_2048, true, NULL, VERIFY_REASON_NONE, "rsa-2048");
    run("honest, entry says so", rsa_2048, true, entry_says_it, VERIFY_REASON_NONE, "rsa-2048");
    run("honest, larger", rsa_3072, true, NULL, VERIFY_REASON_NONE, "rsa-3072");
    run("honest, P-256", NULL, true, NULL, VERIFY_REASON_NONE, "ec-p256");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_types),
                                       cmocka_unit_test(test_signature),
                                       cmocka_unit_test(test_accepted)};
    EVP_PKEY **const keys[] = {&rsa_1024, &rsa_2048, &rsa_3072, &rsa_4096, &exponent_3, &stranger};
    static const struct {
        int bits;
        unsigned exponent;
    } of[] = {{1024, 65537}, {2048, 65537}, {3072, 65537}, {4096, 65537}, {2048, 3}, {2048, 65537}};
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        *keys[i] = make(of[i].bits, of[i].exponent);
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (size_t i = 0; i < sizeof of / sizeof of[0]; i++) {
        EVP_PKEY_free(*keys[i]);
    }
    return failed;
}
