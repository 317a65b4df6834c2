#include "tests/unit/att_certs/fixture.h"

#include "certs/crl.h"

#include <openssl/x509v3.h>

#define NOW INT64_C(1900000000)

struct world {
    struct ca ca, other;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    ca_init(&w->ca, TD);
    ca_init(&w->other, TD);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    ca_done(&w->ca);
    ca_done(&w->other);
    free(w);
    return 0;
}

static X509_CRL *make(const struct certs_crl_spec *spec, const struct ca *ca, struct att_buf *der)
{
    X509_CRL *crl = NULL;
    assert_ok(certs_crl_create(spec, ca->cert, ca->key, der, err));
    assert_ok(certs_crl_parse(att_buf_slice(der), &crl, err));
    return crl;
}

static const struct certs_crl_entry two[] = {
    {{0x7f, 0xee}, 2, NOW - 10, CERTS_CRL_KEY_COMPROMISE},
    {{0x01, 0x02, 0x03}, 3, NOW - 20, CERTS_CRL_UNSPECIFIED},
};

static void test_made_read_and_asked(void **state)
{
    struct world *w = *state;
    struct certs_crl_spec spec = {NOW, NOW + 3600, 41, two, 2};
    att_autobuf der = {0};
    certs_autocrl *crl = make(&spec, &w->ca, &der);
    struct certs_crl_info info;
    assert_ok(certs_crl_verify(crl, w->ca.cert, NOW, err));
    assert_ok(certs_crl_verify(crl, w->ca.cert, NOW + 3600, err));
    assert_ok(certs_crl_info(crl, &info, err));
    assert_int_equal(info.number, 41);
    assert_int_equal(info.this_update, NOW);
    assert_int_equal(info.next_update, NOW + 3600);
    assert_int_equal(info.n_entries, 2);
    assert_true(certs_crl_has(crl, "7fee"));
    assert_true(certs_crl_has(crl, "010203"));
    assert_false(certs_crl_has(crl, "7fed"));
    assert_false(certs_crl_has(crl, ""));
    assert_false(certs_crl_has(crl, "7fe"));
    assert_false(certs_crl_has(crl, "zz"));
    /* RFC 5280 §5.3.1: no reason is no extension. */
    STACK_OF(X509_REVOKED) *list = X509_CRL_get_REVOKED(crl);
    int with_reason = 0;
    for (int i = 0; i < sk_X509_REVOKED_num(list); i++) {
        with_reason += X509_REVOKED_get_ext_count(sk_X509_REVOKED_value(list, i));
    }
    assert_int_equal(with_reason, 1);
}

static void test_empty_list(void **state)
{
    struct world *w = *state;
    struct certs_crl_spec spec = {NOW, NOW + 1, UINT64_MAX, NULL, 0};
    att_autobuf der = {0};
    certs_autocrl *crl = make(&spec, &w->ca, &der);
    struct certs_crl_info info;
    assert_ok(certs_crl_info(crl, &info, err));
    assert_true(info.number == UINT64_MAX && info.n_entries == 0);
    assert_false(certs_crl_has(crl, "01"));
}

static void refused(X509_CRL *crl, const X509 *ca, int64_t at, const char *reason)
{
    struct att_err why = {0};
    assert_int_equal(certs_crl_verify(crl, ca, at, &why), ATT_E_AUTH);
    assert_string_equal(why.reason, reason);
}

static void test_verification_refuses(void **state)
{
    struct world *w = *state;
    struct certs_crl_spec spec = {NOW, NOW + 3600, 1, two, 2};
    att_autobuf der = {0};
    certs_autocrl *crl = make(&spec, &w->ca, &der);
    refused(crl, w->other.cert, NOW, "crlIssuer");
    refused(crl, w->ca.root, NOW, "crlIssuer");
    refused(crl, w->ca.cert, NOW - 1, "crlNotYet");
    refused(crl, w->ca.cert, NOW + 3601, "crlStale");
    /* Each byte of the serial number 7fee and of the signature is covered. */
    uint8_t *serial = memmem(der.ptr, der.len, "\x02\x02\x7f\xee", 4);
    assert_non_null(serial);
    serial[3] ^= 1;
    certs_autocrl *edited = NULL;
    assert_ok(certs_crl_parse(att_buf_slice(&der), &edited, err));
    refused(edited, w->ca.cert, NOW, "crlSignature");
    /* The right name and key identifier, another key. */
    struct ca forged = {.root = w->ca.root, .cert = w->ca.cert, .key = w->other.key};
    struct att_err why = {0};
    att_autobuf none = {0};
    assert_int_equal(certs_crl_create(&spec, forged.cert, forged.key, &none, &why), ATT_E_INVAL);
    X509_CRL_sign(edited, w->other.key, EVP_sha256());
    refused(edited, w->ca.cert, NOW, "crlSignature");
    X509_CRL_sign(edited, w->ca.key, EVP_sha384());
    refused(edited, w->ca.cert, NOW, "crlAlgorithm");
}

static void not_read(struct att_slice der)
{
    X509_CRL *crl = NULL;
    struct att_err why = {0};
    enum att_rc rc = certs_crl_parse(der, &crl, &why);
    assert_true(rc == ATT_E_PARSE || rc == ATT_E_LIMIT);
    assert_null(crl);
}

static X509_CRL *resigned(const struct att_buf *der, const struct ca *ca, int nid, bool critical)
{
    X509_CRL *crl = NULL;
    assert_ok(certs_crl_parse(att_buf_slice(der), &crl, err));
    ASN1_INTEGER *number = ASN1_INTEGER_new();
    ASN1_INTEGER_set(number, 1);
    assert_int_equal(X509_CRL_add1_ext_i2d(crl, nid, number, critical, X509V3_ADD_REPLACE), 1);
    ASN1_INTEGER_free(number);
    assert_true(X509_CRL_sign(crl, ca->key, EVP_sha256()) > 0);
    return crl;
}

static void test_parsing_refuses(void **state)
{
    struct world *w = *state;
    struct certs_crl_spec spec = {NOW, NOW + 3600, 1, two, 2};
    att_autobuf der = {0};
    certs_autocrl *crl = make(&spec, &w->ca, &der);
    for (size_t len = 0; len < der.len; len++) {
        not_read(ATT_SLICE(der.ptr, len));
    }
    att_autobuf more = {0};
    att_buf_put_slice(&more, att_buf_slice(&der));
    att_buf_put(&more, "", 1);
    not_read(att_buf_slice(&more));
    /* A delta CRL (RFC 5280 §5.2.4) says so in a critical extension. */
    certs_autocrl *delta = resigned(&der, &w->ca, NID_delta_crl, true);
    uint8_t *bytes = NULL;
    int len = i2d_X509_CRL(delta, &bytes);
    assert_true(len > 0);
    not_read(ATT_SLICE(bytes, (size_t)len));
    OPENSSL_free(bytes);
}

static void test_create_refuses(void **state)
{
    struct world *w = *state;
    struct att_err why = {0};
    att_autobuf der = {0};
    struct certs_crl_entry long_serial = {.serial_len = CERTS_CRL_SERIAL_MAX + 1};
    struct certs_crl_entry no_serial = {.serial_len = 0};
    struct certs_crl_spec spec = {NOW, NOW, 1, NULL, 0};
    assert_int_equal(certs_crl_create(&spec, w->ca.cert, w->ca.key, &der, &why), ATT_E_INVAL);
    spec = (struct certs_crl_spec){NOW, NOW + 1, 1, &long_serial, 1};
    assert_int_equal(certs_crl_create(&spec, w->ca.cert, w->ca.key, &der, &why), ATT_E_INVAL);
    spec.entries = &no_serial;
    assert_int_equal(certs_crl_create(&spec, w->ca.cert, w->ca.key, &der, &why), ATT_E_INVAL);
    spec.n_entries = CERTS_CRL_ENTRIES_MAX + 1;
    assert_int_equal(certs_crl_create(&spec, w->ca.cert, w->ca.key, &der, &why), ATT_E_LIMIT);
    assert_int_equal(der.len, 0);
}

/* What peers do with it: X509_V_FLAG_CRL_CHECK of a stock OpenSSL. */
static int peer_says(const struct world *w, X509 *leaf, X509_CRL *crl)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    certs_autostack *untrusted = stack_of(1, w->ca.cert);
    assert_int_equal(X509_STORE_add_cert(store, w->ca.root), 1);
    if (crl) {
        assert_int_equal(X509_STORE_add_crl(store, crl), 1);
    }
    X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
    assert_int_equal(X509_STORE_CTX_init(ctx, store, leaf, untrusted), 1);
    int result = X509_verify_cert(ctx) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(ctx);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    return result;
}

static void test_stock_peer(void **state)
{
    struct world *w = *state;
    certs_autokey *key = NULL;
    assert_ok(certs_key_generate(&key, err));
    certs_autox509 *leaf = make_leaf(&w->ca, key), *fine = make_leaf(&w->ca, key);
    struct certs_cert_info info;
    assert_ok(certs_cert_info(leaf, &info, err));
    int64_t now = att_now_utc_s();
    struct certs_crl_entry entry = {.serial_len = strlen(info.serial_hex) / 2,
                                    .revoked_at = now,
                                    .reason = CERTS_CRL_PRIVILEGE_WITHDRAWN};
    assert_ok(att_unhex_exact(entry.serial, entry.serial_len, info.serial_hex, err));
    struct certs_crl_spec spec = {now, now + 3600, 1, &entry, 1};
    att_autobuf der = {0};
    certs_autocrl *crl = make(&spec, &w->ca, &der);
    assert_true(certs_crl_has(crl, info.serial_hex));
    assert_int_equal(peer_says(w, leaf, crl), X509_V_ERR_CERT_REVOKED);
    assert_int_equal(peer_says(w, fine, crl), X509_V_OK);
    assert_int_equal(peer_says(w, fine, NULL), X509_V_ERR_UNABLE_TO_GET_CRL);
}

static void test_reasons(void **state)
{
    (void)state;
    enum certs_crl_reason reason;
    static const int codes[] = {0, 1, 3, 4, 5, 9};
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        enum certs_crl_reason by_name;
        assert_true(certs_crl_reason_from(codes[i], &reason));
        assert_true(certs_crl_reason_parse(certs_crl_reason_name(reason), &by_name));
        assert_int_equal(by_name, codes[i]);
    }
    /* cACompromise, certificateHold, 7 (unused), removeFromCRL, aACompromise. */
    static const int refused_codes[] = {-1, 2, 6, 7, 8, 10, 11};
    for (size_t i = 0; i < sizeof refused_codes / sizeof refused_codes[0]; i++) {
        assert_false(certs_crl_reason_from(refused_codes[i], &reason));
    }
    assert_false(certs_crl_reason_parse("certificateHold", &reason));
    assert_false(certs_crl_reason_parse("keycompromise", &reason));
    assert_false(certs_crl_reason_parse(NULL, &reason));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verification_refuses),
        cmocka_unit_test(test_parsing_refuses),
        cmocka_unit_test(test_create_refuses),
        cmocka_unit_test(test_made_read_and_asked),
        cmocka_unit_test(test_empty_list),
        cmocka_unit_test(test_stock_peer),
        cmocka_unit_test(test_reasons),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
