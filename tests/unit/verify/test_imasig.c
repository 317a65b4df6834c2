/* File signatures in IMA's list, by certificates of a policy's ima rule. */
#include "tests/unit/verify/imaguest.h"

#include <openssl/x509v3.h>

struct signer {
    EVP_PKEY *key;
    char *base64;
    uint8_t keyid[4];
};

static void signer_new(struct signer *s)
{
    X509 *cert = X509_new();
    unsigned char *der = NULL;
    att_autobuf text = {0};
    s->key = EVP_EC_gen("P-256");
    assert_true(ASN1_INTEGER_set(X509_get_serialNumber(cert), 1) == 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    assert_int_equal(X509_set_pubkey(cert, s->key), 1);
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, cert, cert, NULL, NULL, 0);
    X509_EXTENSION *ski = X509V3_EXT_conf_nid(NULL, &ctx, NID_subject_key_identifier, "hash");
    assert_non_null(ski);
    assert_int_equal(X509_add_ext(cert, ski, -1), 1);
    X509_EXTENSION_free(ski);
    assert_true(X509_sign(cert, s->key, EVP_sha256()) > 0);
    const ASN1_OCTET_STRING *id = X509_get0_subject_key_id(cert);
    memcpy(s->keyid, ASN1_STRING_get0_data(id) + ASN1_STRING_length(id) - 4, 4);
    int len = i2d_X509(cert, &der);
    assert_true(len > 0);
    att_buf_b64(&text, ATT_SLICE(der, (size_t)len));
    s->base64 = strdup(att_buf_cstr(&text));
    OPENSSL_free(der);
    X509_free(cert);
}

static void signer_done(struct signer *s)
{
    EVP_PKEY_free(s->key);
    free(s->base64);
}

/* security.ima as evmctl writes it. */
static void sign_digest(const struct signer *s, struct att_slice digest, struct att_buf *ret)
{
    uint8_t sig[256];
    size_t len = sizeof(sig);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(s->key, NULL);
    assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
    assert_int_equal(EVP_PKEY_CTX_set_signature_md(ctx, EVP_sha256()), 1);
    assert_int_equal(EVP_PKEY_sign(ctx, sig, &len, digest.ptr, digest.len), 1);
    EVP_PKEY_CTX_free(ctx);
    att_buf_put(ret, "\x03\x02\x04", 3);
    att_buf_put(ret, s->keyid, 4);
    att_buf_be16(ret, (uint16_t)len);
    att_buf_put(ret, sig, len);
}

static void add_signed(struct guest *g, const struct signer *s, size_t spoil, const char *alg)
{
    static uint8_t digest[32] = {9, 9, 9};
    att_autobuf sig = {0};
    sign_digest(s, ATT_SLICE_ARRAY(digest), &sig);
    if (spoil) {
        sig.ptr[spoil] ^= 1;
    }
    const struct imalist_entry entry = {.tmpl = "ima-sig",
                                        .prefix = alg,
                                        .file = ATT_SLICE_ARRAY(digest),
                                        .name = "/usr/bin/signed",
                                        .extra = {att_buf_slice(&sig)},
                                        .n_extra = 1};
    add_entry(g, &entry);
}

static void test_signed(void **state)
{
    (void)state;
    static const struct {
        size_t spoil;
        const char *says; /* NULL: good */
    } cases[] = {
        {0, NULL},
        {20, "does not hold"},               /* the signature */
        {4, "by a key that is not allowed"}, /* the key id */
        {2, "malformed"},                    /* the hash */
        {1, "malformed"},                    /* the version */
        {8, "malformed"},                    /* the length */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct guest g;
        struct signer s;
        guest_new(&g, 10);
        signer_new(&s);
        json_object_set_new(rule(&g), "certificates", json_pack("[s]", s.base64));
        add_signed(&g, &s, cases[i].spoil, "sha256");
        if (cases[i].says) {
            bad(&g, VERIFY_FINDING_IMA_SIGNATURE, cases[i].says);
        } else {
            good(&g, "11 entries, 9 on allow lists, 1 signed, 0 excluded");
            /* Without the certificate a signature is nothing. */
            json_object_del(rule(&g), "certificates");
            bad(&g, VERIFY_FINDING_IMA_UNLISTED, "/usr/bin/signed");
        }
        signer_done(&s);
        guest_done(&g);
    }
}

/* Of another file: the signature is over another digest. */
static void test_signed_other(void **state)
{
    (void)state;
    struct guest g;
    struct signer s;
    static uint8_t one[32] = {1}, other[32] = {2};
    att_autobuf sig = {0};
    guest_new(&g, 10);
    signer_new(&s);
    json_object_set_new(rule(&g), "certificates", json_pack("[s]", s.base64));
    sign_digest(&s, ATT_SLICE_ARRAY(one), &sig);
    const struct imalist_entry entry = {.tmpl = "ima-sig",
                                        .prefix = "sha256",
                                        .file = ATT_SLICE_ARRAY(other),
                                        .name = "/usr/bin/signed",
                                        .extra = {att_buf_slice(&sig)},
                                        .n_extra = 1};
    add_entry(&g, &entry);
    bad(&g, VERIFY_FINDING_IMA_SIGNATURE, "does not hold");
    signer_done(&s);
    guest_done(&g);
}

static void name_keys(const struct guest *g, const struct signer *first,
                      const struct signer *second)
{
    json_t *list = json_pack("[s]", first->base64);
    if (second) {
        json_array_append_new(list, json_string(second->base64));
    }
    json_object_set_new(rule(g), "certificates", list);
}

/* Of 40 signatures that do not hold the first 32 are verified; behind them none is, not even one
 * that would hold. Remembered, it is the same. */
static void test_signed_many(void **state)
{
    (void)state;
    struct guest g;
    struct signer s;
    uint8_t digest[32] = {0};
    guest_new(&g, 10);
    g.memo = verify_memo_new(4);
    signer_new(&s);
    name_keys(&g, &s, NULL);
    for (uint8_t i = 0; i < 41; i++) {
        char name[64];
        att_autobuf sig = {0};
        snprintf(name, sizeof(name), "/opt/file-%u", i);
        digest[0] = i;
        sign_digest(&s, ATT_SLICE_ARRAY(digest), &sig);
        digest[0] = i < 40 ? 0xff : i; /* of the last one the signature holds */
        const struct imalist_entry entry = {.tmpl = "ima-sig",
                                            .prefix = "sha256",
                                            .file = ATT_SLICE_ARRAY(digest),
                                            .name = name,
                                            .extra = {att_buf_slice(&sig)},
                                            .n_extra = 1};
        imalist_binary(&entry, &g.ima);
    }
    settle(&g);
    for (size_t again = 0; again < 2; again++) {
        verify_autoverdict *verdict = judge_with(&g, NULL);
        assert_refused(verdict, VERIFY_REASON_BOOT_POLICY, "many signatures");
        assert_int_equal(verdict->n_findings, 41);
        for (size_t i = 0; i < 41; i++) {
            const char *says =
                i < VERIFY_IMASIG_TRIES ? "does not hold" : "was not verified: too many before it";
            assert_int_equal(verdict->findings[i].id, VERIFY_FINDING_IMA_SIGNATURE);
            if (!strstr(verdict->findings[i].detail, says)) {
                fail_msg("finding %zu: %s", i, verdict->findings[i].detail);
            }
        }
    }
    signer_done(&s);
    guest_done(&g);
}

/* Two certificates of one key: which one a signature is by could not be told. */
static void test_same_key_id(void **state)
{
    (void)state;
    struct guest g;
    struct signer one, other;
    struct att_err err = {0};
    verify_autopolicy *policy = NULL;
    guest_new(&g, 10);
    signer_new(&one);
    signer_new(&other);
    name_keys(&g, &one, &other);
    good(&g, "9 on allow lists");
    name_keys(&g, &one, &one);
    char *text = json_dumps(g.policy, 0);
    assert_int_equal(verify_policy_parse(att_slice_str(text), &policy, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "certificates[1]: its key has the id of certificates[0]'s"));
    free(text);
    signer_done(&one);
    signer_done(&other);
    guest_done(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signed),
        cmocka_unit_test(test_signed_other),
        cmocka_unit_test(test_signed_many),
        cmocka_unit_test(test_same_key_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
