#include "vectors.h"

#include "tpm/parse/public.h"

#include <openssl/x509.h>

static const char *const areas[] = {
    "ek_rsa.area", "ek_p384.area", "ek_p256.area",   "ak.area",        "srk.area",
    "parent.area", "agent.area",   "ak_rsassa.area", "ak_rsapss.area", "sealed.area",
};
#define N_AREAS (sizeof areas / sizeof areas[0])

static void load(const char *name, struct parse_public *ret)
{
    att_autobuf area = {0};
    read_vector(name, &area);
    assert_ok(parse_public_parse(att_buf_slice(&area), ret, err));
}

static enum att_rc try_parse(struct att_slice bytes)
{
    struct parse_public pub;
    return parse_public_parse(bytes, &pub, NULL);
}

/* ---- refusals ---------------------------------------------------------------------------------
 */

static void test_every_truncation_and_a_trailing_byte(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_AREAS; i++) {
        att_autobuf area = {0};
        read_vector(areas[i], &area);
        assert_exact(att_buf_slice(&area), try_parse);
    }
}

/* The AK's area with one 16-bit field changed: type 0, nameAlg 2, attributes 4, policy size 8,
 * symmetric 10, scheme 12, hash 14, curve 16, kdf 18, x size 20. */
static enum att_rc parse_changed(size_t offset, uint16_t value, struct att_err *err)
{
    att_autobuf area = {0};
    read_vector("ak.area", &area);
    area.ptr[offset] = (uint8_t)(value >> 8);
    area.ptr[offset + 1] = (uint8_t)value;
    struct parse_public pub;
    return parse_public_parse(att_buf_slice(&area), &pub, err);
}

static void test_fields_out_of_range(void **state)
{
    (void)state;
    assert_refused(parse_changed(0, 0x0025, err), ATT_E_UNSUPPORTED, "", "type 0x0025");
    assert_refused(parse_changed(2, PARSE_ALG_SHA1, err), ATT_E_UNSUPPORTED, "", "nameAlg 0x0004");
    assert_refused(parse_changed(2, PARSE_ALG_NULL, err), ATT_E_UNSUPPORTED, "", "nameAlg");
    assert_refused(parse_changed(4, 0x8005, err), ATT_E_PARSE, "", "reserved attribute bits");
    assert_refused(parse_changed(6, 0x0473, err), ATT_E_PARSE, "", "reserved attribute bits");
    assert_refused(parse_changed(8, 31, err), ATT_E_PARSE, "", "authPolicy of 31 bytes");
    assert_refused(parse_changed(8, 33, err), ATT_E_PARSE, "", "authPolicy of 33 bytes");
    assert_refused(parse_changed(10, PARSE_ALG_XOR, err), ATT_E_UNSUPPORTED, "", "not AES-CFB");
    assert_refused(parse_changed(12, PARSE_ALG_RSASSA, err), ATT_E_UNSUPPORTED, "",
                   "scheme 0x0014");
    assert_refused(parse_changed(14, 0x7777, err), ATT_E_PARSE, "", "hash 0x7777");
    assert_refused(parse_changed(16, 0x0005, err), ATT_E_UNSUPPORTED, "", "curve 0x0005");
    assert_refused(parse_changed(18, 0x0001, err), ATT_E_PARSE, "", "0x0001 is not a kdf");
    assert_refused(parse_changed(20, 33, err), ATT_E_PARSE, "", "x coordinate of 33 bytes");
    assert_refused(parse_changed(20, 0xFFFF, err), ATT_E_PARSE, "", "x coordinate");
}

static void test_too_long_an_area(void **state)
{
    (void)state;
    uint8_t big[PARSE_AREA_MAX + 1] = {0};
    struct parse_public pub;
    assert_refused(parse_public_parse(ATT_SLICE_ARRAY(big), &pub, err), ATT_E_LIMIT, "", "1025");
}

static void test_rsa_sizes(void **state)
{
    (void)state;
    struct parse_public pub;
    att_autobuf area = {0};
    load("ek_rsa.area", &pub);
    pub.unique_len = 255;
    assert_refused(parse_public_encode(&pub, &area, err), ATT_E_INVAL, "", "modulus of 255 bytes");
    load("ek_rsa.area", &pub);
    pub.key_bits = 1024;
    assert_refused(parse_public_encode(&pub, &area, err), ATT_E_INVAL, "", "RSA of 1024 bits");
    load("ek_rsa.area", &pub);
    pub.exponent = 3;
    assert_refused(parse_public_encode(&pub, &area, err), ATT_E_INVAL, "", "exponent 3");
    load("ek_rsa.area", &pub);
    pub.unique_len = sizeof pub.unique + 1;
    assert_refused(parse_public_encode(&pub, &area, err), ATT_E_INVAL, "", "beyond its array");
    assert_int_equal(area.len, 0);
}

static void test_one_coordinate(void **state)
{
    (void)state;
    struct parse_public pub;
    load("ak.area", &pub);
    pub.x_len = 0;
    att_autobuf area = {0};
    assert_refused(parse_public_encode(&pub, &area, err), ATT_E_INVAL, "", "one coordinate");
}

static void test_unwrap_refuses_wrong_sizes(void **state)
{
    (void)state;
    att_autobuf area = {0};
    read_vector("ak.area", &area);
    const int wrong[] = {-1, 1, -88};
    for (size_t i = 0; i < 3; i++) {
        att_autobuf tpm2b = {0};
        att_buf_be16(&tpm2b, (uint16_t)((int)area.len + wrong[i]));
        att_buf_put_slice(&tpm2b, att_buf_slice(&area));
        struct att_slice inner;
        assert_refused(parse_public_unwrap(att_buf_slice(&tpm2b), &inner, err), ATT_E_PARSE, "",
                       "TPM2B_PUBLIC");
    }
    struct att_slice inner;
    assert_refused(parse_public_unwrap(ATT_SLICE_LIT("\0\0"), &inner, err), ATT_E_PARSE, "",
                   "size");
    assert_refused(parse_public_unwrap(ATT_SLICE_LIT("\1"), &inner, err), ATT_E_PARSE, "", "size");
}

static void test_keys_that_are_none(void **state)
{
    (void)state;
    struct parse_public pub;
    EVP_PKEY *pkey = NULL;
    load("ak.area", &pub);
    pub.y[31] ^= 1; /* off the curve: invalid-point attacks begin here */
    assert_int_equal(parse_public_pkey(&pub, &pkey, NULL), ATT_E_PARSE);
    load("ek_p384.area", &pub);
    pub.x[0] ^= 0x80;
    assert_int_equal(parse_public_pkey(&pub, &pkey, NULL), ATT_E_PARSE);
    load("ak.area", &pub);
    memset(pub.x, 0xFF, 32); /* beyond the field */
    assert_int_equal(parse_public_pkey(&pub, &pkey, NULL), ATT_E_PARSE);
    memset(pub.x, 0, 32);
    memset(pub.y, 0, 32);
    assert_int_equal(parse_public_pkey(&pub, &pkey, NULL), ATT_E_PARSE);
    parse_public_ak_template(&pub);
    assert_refused(parse_public_pkey(&pub, &pkey, err), ATT_E_PARSE, "", "it has no point");
    load("ek_rsa.area", &pub);
    pub.unique[255] &= 0xFE;
    assert_refused(parse_public_pkey(&pub, &pkey, err), ATT_E_PARSE, "", "odd number of 2048 bits");
    load("ek_rsa.area", &pub);
    pub.unique[0] &= 0x7F;
    assert_refused(parse_public_pkey(&pub, &pkey, err), ATT_E_PARSE, "", "odd number of 2048 bits");
    load("sealed.area", &pub);
    assert_refused(parse_public_pkey(&pub, &pkey, err), ATT_E_UNSUPPORTED, "", "no public key");
    assert_null(pkey);
}

static void test_ek_changed_in_one_member(void **state)
{
    (void)state;
    enum parse_ek_template which = PARSE_EK_NONE;
    struct parse_public pub;
#define REFUSED(file, change, text)                                                                \
    load(file, &pub);                                                                              \
    change;                                                                                        \
    assert_refused(parse_public_check_ek(&pub, &which, err), ATT_E_DENIED, "ekTemplate", text);    \
    assert_int_equal(which, PARSE_EK_NONE)
    REFUSED("ek_rsa.area", pub.policy[3] ^= 1, "authPolicy");
    REFUSED("ek_rsa.area", pub.policy_len = 0, "authPolicy");
    REFUSED("ek_rsa.area", pub.attrs &= ~PARSE_OA_RESTRICTED, "restricted is clear");
    REFUSED("ek_rsa.area", pub.attrs &= ~PARSE_OA_FIXED_TPM, "fixedTPM is clear");
    REFUSED("ek_rsa.area", pub.attrs &= ~PARSE_OA_FIXED_PARENT, "fixedParent is clear");
    REFUSED("ek_rsa.area", pub.attrs &= ~PARSE_OA_SENSITIVE_DATA_ORIGIN,
            "sensitiveDataOrigin is clear");
    REFUSED("ek_rsa.area", pub.attrs &= ~PARSE_OA_ADMIN_WITH_POLICY, "adminWithPolicy is clear");
    REFUSED("ek_rsa.area", pub.attrs &= ~PARSE_OA_DECRYPT, "decrypt is clear");
    REFUSED("ek_rsa.area", pub.attrs |= PARSE_OA_SIGN, "sign is set");
    REFUSED("ek_rsa.area", pub.attrs |= PARSE_OA_USER_WITH_AUTH, "userWithAuth is set");
    REFUSED("ek_rsa.area", pub.attrs |= PARSE_OA_NO_DA, "noDA is set");
    REFUSED("ek_rsa.area", pub.sym.key_bits = 256, "symmetric algorithm");
    REFUSED("ek_rsa.area", pub.scheme = ((struct parse_scheme){PARSE_ALG_RSAES, 0, 0}), "scheme");
    REFUSED("ek_rsa.area", pub.key_bits = 3072, "type, size or nameAlg");
    REFUSED("ek_rsa.area", pub.exponent = 65537, "exponent");
    REFUSED("ek_p384.area", pub.name_alg = PARSE_ALG_SHA256, "type, size or nameAlg");
    REFUSED("ek_p384.area", pub.sym.key_bits = 128, "symmetric algorithm");
    REFUSED("ek_p384.area", pub.policy[47] ^= 1, "authPolicy");
    REFUSED("ek_p384.area", pub.attrs &= ~PARSE_OA_ADMIN_WITH_POLICY, "adminWithPolicy is clear");
    REFUSED("ek_p256.area", pub.curve = PARSE_ECC_P384, "type, size or nameAlg");
    REFUSED("ek_p256.area",
            pub.kdf = ((struct parse_scheme){PARSE_ALG_KDF1_800_56A, PARSE_ALG_SHA256, 0}), "kdf");
    REFUSED("ek_p256.area",
            pub.scheme = ((struct parse_scheme){PARSE_ALG_ECDH, PARSE_ALG_SHA256, 0}), "scheme");
    REFUSED("srk.area", (void)0, "authPolicy");
    REFUSED("ak.area", (void)0, "authPolicy");
    REFUSED("sealed.area", (void)0, "type");
#undef REFUSED
}

static void test_ak_changed_in_one_member(void **state)
{
    (void)state;
    struct parse_public pub;
#define REFUSED(change, text)                                                                      \
    load("ak.area", &pub);                                                                         \
    change;                                                                                        \
    assert_refused(parse_public_check_ak(&pub, err), ATT_E_DENIED, "akAttributes", text)
    REFUSED(pub.attrs &= ~PARSE_OA_RESTRICTED, "restricted is clear");
    REFUSED(pub.attrs &= ~PARSE_OA_SIGN, "sign is clear");
    REFUSED(pub.attrs &= ~PARSE_OA_FIXED_TPM, "fixedTPM is clear");
    REFUSED(pub.attrs &= ~PARSE_OA_FIXED_PARENT, "fixedParent is clear");
    REFUSED(pub.attrs &= ~PARSE_OA_SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin is clear");
    REFUSED(pub.attrs &= ~PARSE_OA_USER_WITH_AUTH, "userWithAuth is clear");
    REFUSED(pub.attrs &= ~PARSE_OA_NO_DA, "noDA is clear");
    REFUSED(pub.attrs |= PARSE_OA_DECRYPT, "decrypt is set");
    REFUSED(pub.attrs |= PARSE_OA_ADMIN_WITH_POLICY, "adminWithPolicy is set");
    REFUSED(pub.attrs |= PARSE_OA_ENCRYPTED_DUPLICATION, "encryptedDuplication is set");
    REFUSED(pub.attrs |= PARSE_OA_ST_CLEAR, "stClear is set");
    REFUSED(pub.attrs |= PARSE_OA_X509_SIGN, "x509sign is set");
    REFUSED(pub.scheme.alg = PARSE_ALG_NULL, "scheme is not ecdsa");
    REFUSED(pub.scheme.hash = PARSE_ALG_SHA1, "scheme is not ecdsa");
    REFUSED(pub.name_alg = PARSE_ALG_SHA384, "nameAlg is not SHA-256");
    REFUSED(pub.curve = PARSE_ECC_P384, "not an ECC P-256 key");
    REFUSED(pub.type = PARSE_ALG_RSA, "not an ECC P-256 key");
    REFUSED(pub.policy_len = 32, "authPolicy is not empty");
    REFUSED(pub.sym = ((struct parse_sym){PARSE_ALG_AES, 128, PARSE_ALG_CFB}), "symmetric");
    REFUSED(pub.kdf = ((struct parse_scheme){PARSE_ALG_MGF1, PARSE_ALG_SHA256, 0}), "kdf");
#undef REFUSED
    load("ak_rsassa.area", &pub);
    assert_refused(parse_public_check_ak(&pub, err), ATT_E_DENIED, "akAttributes", "P-256");
    load("agent.area", &pub);
    assert_refused(parse_public_check_ak(&pub, err), ATT_E_DENIED, "akAttributes", "restricted");
}

static void test_agent_key_changed_in_one_member(void **state)
{
    (void)state;
    struct parse_public pub;
#define REFUSED(change, text)                                                                      \
    load("agent.area", &pub);                                                                      \
    change;                                                                                        \
    assert_refused(parse_public_check_agent(&pub, err), ATT_E_DENIED, "keyAttributes", text)
    REFUSED(pub.attrs &= ~PARSE_OA_FIXED_TPM, "fixedTPM is clear");
    REFUSED(pub.attrs &= ~PARSE_OA_FIXED_PARENT, "fixedParent is clear");
    REFUSED(pub.attrs &= ~PARSE_OA_SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin is clear");
    REFUSED(pub.attrs &= ~PARSE_OA_USER_WITH_AUTH, "userWithAuth is clear");
    REFUSED(pub.attrs &= ~PARSE_OA_SIGN, "sign is clear");
    REFUSED(pub.attrs |= PARSE_OA_RESTRICTED, "restricted is set");
    REFUSED(pub.attrs |= PARSE_OA_DECRYPT, "decrypt is set");
    REFUSED(pub.attrs |= PARSE_OA_ADMIN_WITH_POLICY, "adminWithPolicy is set");
    REFUSED(pub.attrs |= PARSE_OA_ENCRYPTED_DUPLICATION, "encryptedDuplication is set");
    REFUSED(pub.attrs |= PARSE_OA_X509_SIGN, "x509sign is set");
    REFUSED(pub.policy_len = 32, "authPolicy is not empty");
    REFUSED(pub.curve = PARSE_ECC_P384, "not an ECC P-256 key");
    REFUSED(pub.scheme = ((struct parse_scheme){PARSE_ALG_ECDSA, PARSE_ALG_SHA1, 0}), "scheme");
    REFUSED(pub.scheme = ((struct parse_scheme){PARSE_ALG_ECDH, PARSE_ALG_SHA256, 0}), "scheme");
    REFUSED(pub.sym = ((struct parse_sym){PARSE_ALG_AES, 128, PARSE_ALG_CFB}), "symmetric");
#undef REFUSED
}

static void test_storage_parent_changed_in_one_member(void **state)
{
    (void)state;
    struct parse_public pub;
#define REFUSED(change, text)                                                                      \
    load("parent.area", &pub);                                                                     \
    change;                                                                                        \
    assert_refused(parse_public_check_storage(&pub, err), ATT_E_DENIED, "keyParent", text)
    REFUSED(pub.attrs &= ~PARSE_OA_FIXED_TPM, "fixedTPM is clear");
    REFUSED(pub.attrs &= ~PARSE_OA_FIXED_PARENT, "fixedParent is clear");
    REFUSED(pub.attrs &= ~PARSE_OA_RESTRICTED, "restricted is clear");
    REFUSED(pub.attrs &= ~PARSE_OA_DECRYPT, "decrypt is clear");
    REFUSED(pub.attrs &= ~PARSE_OA_SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin is clear");
    REFUSED(pub.attrs |= PARSE_OA_SIGN, "sign is set");
    REFUSED(pub.sym.alg = PARSE_ALG_NULL, "not a storage key");
    REFUSED(pub.type = PARSE_ALG_KEYEDHASH, "not a storage key");
#undef REFUSED
}

/* ---- what is right ----------------------------------------------------------------------------
 */

static void test_round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_AREAS; i++) {
        att_autobuf area = {0}, again = {0}, tpm2b = {0};
        read_vector(areas[i], &area);
        struct parse_public pub;
        assert_ok(parse_public_parse(att_buf_slice(&area), &pub, err));
        assert_ok(parse_public_encode(&pub, &again, err));
        assert_true(att_slice_eq(att_buf_slice(&area), att_buf_slice(&again)));
        att_buf_field_be16(&tpm2b, att_buf_slice(&area));
        struct att_slice inner;
        assert_ok(parse_public_unwrap(att_buf_slice(&tpm2b), &inner, err));
        assert_true(att_slice_eq(inner, att_buf_slice(&area)));
    }
}

static void test_known_eks(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        enum parse_ek_template which;
        const char *name;
    } eks[] = {{"ek_rsa.area", PARSE_EK_L1, "L-1"},
               {"ek_p256.area", PARSE_EK_L2, "L-2"},
               {"ek_p384.area", PARSE_EK_H3, "H-3"}};
    for (size_t i = 0; i < 3; i++) {
        struct parse_public pub, template;
        enum parse_ek_template which = PARSE_EK_NONE;
        load(eks[i].file, &pub);
        assert_ok(parse_public_check_ek(&pub, &which, err));
        assert_int_equal(which, eks[i].which);
        assert_string_equal(parse_ek_template_name(which), eks[i].name);
        /* the TPM's own differs from the template in nothing but unique */
        assert_ok(parse_public_ek_template(which, &template, err));
        memcpy(template.unique, pub.unique, sizeof pub.unique);
        memcpy(template.x, pub.x, sizeof pub.x);
        memcpy(template.y, pub.y, sizeof pub.y);
        template.unique_len = pub.unique_len;
        template.x_len = pub.x_len;
        template.y_len = pub.y_len;
        assert_memory_equal(&template, &pub, sizeof pub);
    }
}

static void test_every_ek_template_is_itself(void **state)
{
    (void)state;
    for (int i = PARSE_EK_L1; i <= PARSE_EK_H6; i++) {
        struct parse_public pub, again;
        enum parse_ek_template which = PARSE_EK_NONE;
        assert_ok(parse_public_ek_template((enum parse_ek_template)i, &pub, err));
        assert_ok(parse_public_check_ek(&pub, &which, err));
        assert_int_equal(which, i);
        att_autobuf area = {0};
        assert_ok(parse_public_encode(&pub, &area, err));
        assert_ok(parse_public_parse(att_buf_slice(&area), &again, err));
        assert_memory_equal(&again, &pub, sizeof pub);
    }
    struct parse_public pub;
    assert_refused(parse_public_ek_template(PARSE_EK_NONE, &pub, err), ATT_E_INVAL, "", "is none");
    assert_string_equal(parse_ek_template_name(PARSE_EK_NONE), "none");
}

/* Issuers of EKs differ in userWithAuth of the high range: 0x300f2 and 0x300b2. */
static void test_high_range_attribute_variants(void **state)
{
    (void)state;
    struct parse_public pub;
    enum parse_ek_template which = PARSE_EK_NONE;
    load("ek_p384.area", &pub);
    assert_int_equal(pub.attrs, 0x300f2);
    pub.attrs = 0x300b2;
    assert_ok(parse_public_check_ek(&pub, &which, err));
    assert_int_equal(which, PARSE_EK_H3);
}

static void test_templates_pass_their_checks(void **state)
{
    (void)state;
    struct parse_public pub;
    att_autobuf area = {0};
    parse_public_ak_template(&pub);
    assert_ok(parse_public_check_ak(&pub, err));
    assert_ok(parse_public_encode(&pub, &area, err));
    parse_public_agent_template(&pub);
    assert_ok(parse_public_check_agent(&pub, err));
    assert_ok(parse_public_encode(&pub, &area, err));
    for (int zero = 0; zero < 2; zero++) {
        parse_public_srk_template(&pub, zero);
        assert_ok(parse_public_check_storage(&pub, err));
        assert_ok(parse_public_encode(&pub, &area, err));
    }
    static const char *const good[] = {"ak.area", "agent.area", "srk.area", "parent.area"};
    load(good[0], &pub);
    assert_ok(parse_public_check_ak(&pub, err));
    load(good[1], &pub);
    assert_ok(parse_public_check_agent(&pub, err));
    load(good[2], &pub);
    assert_ok(parse_public_check_storage(&pub, err));
    load(good[3], &pub);
    assert_ok(parse_public_check_storage(&pub, err));
}

static void test_spki_and_back(void **state)
{
    (void)state;
    static const char *const keys[] = {"ak.area", "ek_p384.area", "ek_rsa.area"};
    for (size_t i = 0; i < 3; i++) {
        struct parse_public pub, again;
        load(keys[i], &pub);
        att_autobuf der = {0};
        assert_ok(parse_public_spki(&pub, &der, err));
        const uint8_t *at = der.ptr;
        EVP_PKEY *pkey = d2i_PUBKEY(NULL, &at, (long)der.len);
        assert_non_null(pkey);
        assert_ptr_equal(at, der.ptr + der.len);
        again = pub;
        memset(again.x, 0, sizeof again.x);
        memset(again.unique, 0, sizeof again.unique);
        assert_ok(parse_public_set_pkey(&again, pkey, err));
        assert_memory_equal(&again, &pub, sizeof pub);
        EVP_PKEY_free(pkey);
    }
}

/* A coordinate that a TPM wrote without its leading zeroes is the same point. */
static void test_short_coordinates(void **state)
{
    (void)state;
    for (;;) {
        EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
        assert_non_null(pkey);
        struct parse_public full, cut;
        parse_public_ak_template(&full);
        assert_ok(parse_public_set_pkey(&full, pkey, err));
        EVP_PKEY_free(pkey);
        if (full.x[0] != 0) {
            continue;
        }
        cut = full;
        memmove(cut.x, cut.x + 1, 31);
        cut.x_len = 31;
        att_autobuf a = {0}, b = {0};
        assert_ok(parse_public_spki(&full, &a, err));
        assert_ok(parse_public_spki(&cut, &b, err));
        assert_true(att_slice_eq(att_buf_slice(&a), att_buf_slice(&b)));
        return;
    }
}

static void test_foreign_keys_are_refused(void **state)
{
    (void)state;
    struct parse_public pub;
    parse_public_ak_template(&pub);
    EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "secp256k1");
    assert_non_null(pkey);
    assert_refused(parse_public_set_pkey(&pub, pkey, err), ATT_E_UNSUPPORTED, "", "secp256k1");
    EVP_PKEY_free(pkey);
    pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    assert_non_null(pkey);
    assert_refused(parse_public_set_pkey(&pub, pkey, err), ATT_E_UNSUPPORTED, "", "neither EC");
    EVP_PKEY_free(pkey);
    pkey = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)1024);
    assert_non_null(pkey);
    assert_refused(parse_public_set_pkey(&pub, pkey, err), ATT_E_UNSUPPORTED, "", "1024 bits");
    EVP_PKEY_free(pkey);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_truncation_and_a_trailing_byte),
        cmocka_unit_test(test_fields_out_of_range),
        cmocka_unit_test(test_too_long_an_area),
        cmocka_unit_test(test_rsa_sizes),
        cmocka_unit_test(test_one_coordinate),
        cmocka_unit_test(test_unwrap_refuses_wrong_sizes),
        cmocka_unit_test(test_keys_that_are_none),
        cmocka_unit_test(test_ek_changed_in_one_member),
        cmocka_unit_test(test_ak_changed_in_one_member),
        cmocka_unit_test(test_agent_key_changed_in_one_member),
        cmocka_unit_test(test_storage_parent_changed_in_one_member),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_known_eks),
        cmocka_unit_test(test_every_ek_template_is_itself),
        cmocka_unit_test(test_high_range_attribute_variants),
        cmocka_unit_test(test_templates_pass_their_checks),
        cmocka_unit_test(test_spki_and_back),
        cmocka_unit_test(test_short_coordinates),
        cmocka_unit_test(test_foreign_keys_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
