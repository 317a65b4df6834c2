#include "vectors.h"

#include "tpm/parse/attest.h"
#include "tpm/parse/sig.h"

static void load_key(const char *file, struct parse_public *ret)
{
    att_autobuf area = {0};
    read_vector(file, &area);
    assert_ok(parse_public_parse(att_buf_slice(&area), ret, err));
}

static const struct {
    const char *key, *sig, *message;
} signed_by[] = {
    {"ak.area", "quote.sig", "quote.attest"},
    {"ak.area", "certify.sig", "certify.attest"},
    {"ak.area", "nv.sig", "nv.attest"},
    {"ak_rsassa.area", "quote_rsassa.sig", "quote_rsassa.attest"},
    {"ak_rsapss.area", "quote_rsapss.sig", "quote_rsapss.attest"},
};
#define N_SIGNED (sizeof signed_by / sizeof signed_by[0])

static enum att_rc try_parse(struct att_slice bytes)
{
    struct parse_sig sig;
    return parse_sig_parse(bytes, &sig, NULL);
}

static void test_every_truncation_and_a_trailing_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SIGNED; i++) {
        att_autobuf sig = {0};
        read_vector(signed_by[i].sig, &sig);
        assert_exact(att_buf_slice(&sig), try_parse);
    }
}

static void test_things_that_are_no_signature(void **state)
{
    (void)state;
    struct parse_sig sig;
    static uint8_t big[PARSE_SIG_MAX + 1];
    assert_refused(parse_sig_parse(ATT_SLICE_ARRAY(big), &sig, err), ATT_E_LIMIT, "", "1025");
    /* HMAC, ECDAA, a hash that is none, empty r, r beyond P-384 */
    assert_refused(parse_sig_parse(ATT_SLICE_LIT("\0\5\0\x0B\0\1\1"), &sig, err), ATT_E_UNSUPPORTED,
                   "", "0x0005");
    assert_refused(parse_sig_parse(ATT_SLICE_LIT("\0\x1A\0\x0B\0\1\1\0\1\1"), &sig, err),
                   ATT_E_UNSUPPORTED, "", "0x001a");
    assert_refused(parse_sig_parse(ATT_SLICE_LIT("\0\x18\0\x10\0\1\1\0\1\1"), &sig, err),
                   ATT_E_PARSE, "", "not a hash");
    assert_refused(parse_sig_parse(ATT_SLICE_LIT("\0\x18\0\x0B\0\0\0\1\1"), &sig, err), ATT_E_PARSE,
                   "", "empty");
    assert_refused(parse_sig_parse(ATT_SLICE_LIT("\0\x14\0\x0B\0\0"), &sig, err), ATT_E_PARSE, "",
                   "empty");
    uint8_t longer[4 + 2 + 49 + 3] = {0, 0x18, 0, 0x0B, 0, 49};
    longer[4 + 2 + 49 + 1] = 1;
    assert_refused(parse_sig_parse(ATT_SLICE_ARRAY(longer), &sig, err), ATT_E_PARSE, "", "exactly");
}

static void test_one_bit_of_message_signature_or_key(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SIGNED; i++) {
        att_autobuf sig = {0}, message = {0};
        struct parse_public key;
        load_key(signed_by[i].key, &key);
        read_vector(signed_by[i].sig, &sig);
        read_vector(signed_by[i].message, &message);
        message.ptr[message.len / 2] ^= 1;
        assert_refused(parse_sig_verify(&key, att_buf_slice(&sig), att_buf_slice(&message), err),
                       ATT_E_AUTH, "", "does not verify");
        message.ptr[message.len / 2] ^= 1;
        sig.ptr[sig.len - 1] ^= 1;
        assert_refused(parse_sig_verify(&key, att_buf_slice(&sig), att_buf_slice(&message), err),
                       ATT_E_AUTH, "", "does not verify");
        sig.ptr[sig.len - 1] ^= 1;
        assert_ok(parse_sig_verify(&key, att_buf_slice(&sig), att_buf_slice(&message), err));
    }
}

static void test_another_key(void **state)
{
    (void)state;
    att_autobuf sig = {0}, message = {0};
    struct parse_public other;
    load_key("agent.area", &other);
    other.scheme = (struct parse_scheme){PARSE_ALG_ECDSA, PARSE_ALG_SHA256, 0};
    read_vector("quote.sig", &sig);
    read_vector("quote.attest", &message);
    assert_refused(parse_sig_verify(&other, att_buf_slice(&sig), att_buf_slice(&message), err),
                   ATT_E_AUTH, "", "does not verify");
}

/* Algorithm and hash come from the key: what the message names may only agree. */
static void test_algorithm_and_hash_are_pinned(void **state)
{
    (void)state;
    att_autobuf sig = {0}, message = {0}, pss = {0};
    struct parse_public key;
    load_key("ak.area", &key);
    read_vector("quote.sig", &sig);
    read_vector("quote.attest", &message);
    sig.ptr[3] = 0x0C; /* SHA-384 */
    assert_refused(parse_sig_verify(&key, att_buf_slice(&sig), att_buf_slice(&message), err),
                   ATT_E_AUTH, "", "names another algorithm or hash");
    sig.ptr[3] = 0x04; /* SHA-1 */
    assert_refused(parse_sig_verify(&key, att_buf_slice(&sig), att_buf_slice(&message), err),
                   ATT_E_AUTH, "", "names another algorithm or hash");
    sig.ptr[3] = 0x0B;
    key.scheme.hash = PARSE_ALG_SHA1;
    assert_refused(parse_sig_verify(&key, att_buf_slice(&sig), att_buf_slice(&message), err),
                   ATT_E_AUTH, "", "hash is not SHA-256");
    key.scheme = (struct parse_scheme){PARSE_ALG_NULL, 0, 0};
    assert_refused(parse_sig_verify(&key, att_buf_slice(&sig), att_buf_slice(&message), err),
                   ATT_E_AUTH, "", "no scheme of its own");
    key.scheme = (struct parse_scheme){PARSE_ALG_ECDH, PARSE_ALG_SHA256, 0};
    assert_refused(parse_sig_verify(&key, att_buf_slice(&sig), att_buf_slice(&message), err),
                   ATT_E_AUTH, "", "no such signing scheme");
    /* RSAPSS where the key is for RSASSA */
    load_key("ak_rsassa.area", &key);
    read_vector("quote_rsapss.sig", &pss);
    assert_refused(parse_sig_verify(&key, att_buf_slice(&pss), att_buf_slice(&message), err),
                   ATT_E_AUTH, "", "names another algorithm or hash");
    assert_refused(parse_sig_verify_as(&key, PARSE_ALG_RSAPSS, PARSE_ALG_SHA256,
                                       att_buf_slice(&pss), att_buf_slice(&message), err),
                   ATT_E_AUTH, "", "own scheme is another");
    assert_refused(parse_sig_verify_as(&key, PARSE_ALG_ECDSA, PARSE_ALG_SHA256, att_buf_slice(&pss),
                                       att_buf_slice(&message), err),
                   ATT_E_AUTH, "", "no such signing scheme");
}

static void test_verify_as_for_a_key_without_scheme(void **state)
{
    (void)state;
    att_autobuf sig = {0}, message = {0};
    struct parse_public key;
    load_key("ak.area", &key);
    key.scheme = (struct parse_scheme){PARSE_ALG_NULL, 0, 0};
    read_vector("quote.sig", &sig);
    read_vector("quote.attest", &message);
    assert_ok(parse_sig_verify_as(&key, PARSE_ALG_ECDSA, PARSE_ALG_SHA256, att_buf_slice(&sig),
                                  att_buf_slice(&message), err));
    assert_refused(parse_sig_verify_as(&key, PARSE_ALG_ECDSA, PARSE_ALG_SHA384, att_buf_slice(&sig),
                                       att_buf_slice(&message), err),
                   ATT_E_AUTH, "", "names another");
    assert_refused(parse_sig_verify_as(&key, PARSE_ALG_ECDSA, PARSE_ALG_SHA1, att_buf_slice(&sig),
                                       att_buf_slice(&message), err),
                   ATT_E_AUTH, "", "not SHA-256");
}

static void test_zero_r_and_s(void **state)
{
    (void)state;
    struct parse_public key;
    load_key("ak.area", &key);
    uint8_t zeroes[72] = {0, 0x18, 0, 0x0B, 0, 32};
    zeroes[4 + 34 + 1] = 32;
    assert_refused(parse_sig_verify(&key, ATT_SLICE_ARRAY(zeroes), ATT_SLICE_LIT("x"), err),
                   ATT_E_AUTH, "", "does not verify");
}

static void test_der_and_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SIGNED; i++) {
        att_autobuf bytes = {0}, der = {0}, again = {0};
        read_vector(signed_by[i].sig, &bytes);
        struct parse_sig sig;
        assert_ok(parse_sig_parse(att_buf_slice(&bytes), &sig, err));
        assert_ok(parse_sig_der(&sig, &der, err));
        assert_ok(parse_sig_from_der(sig.alg, sig.hash, att_buf_slice(&der), &again, err));
        assert_true(att_slice_eq(att_buf_slice(&bytes), att_buf_slice(&again)));
    }
    att_autobuf out = {0};
    assert_int_equal(parse_sig_from_der(PARSE_ALG_ECDSA, PARSE_ALG_SHA256,
                                        ATT_SLICE_LIT("\x30\x06\x02\x01\x01\x02\x01\x01\x00"), &out,
                                        NULL),
                     ATT_E_PARSE); /* trailing byte */
    assert_int_equal(parse_sig_from_der(PARSE_ALG_ECDSA, PARSE_ALG_SHA256,
                                        ATT_SLICE_LIT("\x30\x06\x02\x01\xFF\x02\x01\x01"), &out,
                                        NULL),
                     ATT_E_PARSE); /* negative */
    assert_int_equal(
        parse_sig_from_der(PARSE_ALG_HMAC, PARSE_ALG_SHA256, ATT_SLICE_LIT("x"), &out, NULL),
        ATT_E_UNSUPPORTED);
    assert_int_equal(out.len, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_truncation_and_a_trailing_byte),
        cmocka_unit_test(test_things_that_are_no_signature),
        cmocka_unit_test(test_one_bit_of_message_signature_or_key),
        cmocka_unit_test(test_another_key),
        cmocka_unit_test(test_algorithm_and_hash_are_pinned),
        cmocka_unit_test(test_verify_as_for_a_key_without_scheme),
        cmocka_unit_test(test_zero_r_and_s),
        cmocka_unit_test(test_der_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
