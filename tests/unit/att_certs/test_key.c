#include "tests/unit/att_certs/fixture.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <pthread.h>
#include <sys/socket.h>

/* ---- files, SPKI, points, signatures ---- */

static void test_load_refuses(void **state)
{
    (void)state;
    char dir[256], path[512];
    temp_dir(dir);
    path_in(path, dir, "k.pem");
    EVP_PKEY *key = NULL;
    struct att_err why = {0};
    assert_int_equal(certs_key_load(path, &key, &why), ATT_E_NOTFOUND);

    EVP_PKEY *good = NULL;
    assert_ok(certs_key_generate(&good, err));
    assert_ok(certs_key_save(good, path, err));
    assert_int_equal(chmod(path, 0640), 0);
    att_err_clear(&why);
    assert_int_equal(certs_key_load(path, &key, &why), ATT_E_DENIED);
    assert_non_null(strstr(why.msg, "0640"));

    assert_ok(att_io_write_file(path, ATT_SLICE_LIT("not a key\n"), 0600, err));
    assert_int_equal(certs_key_load(path, &key, NULL), ATT_E_PARSE);

    EVP_PKEY *p384 = EVP_EC_gen("P-384");
    FILE *f = fopen(path, "w");
    assert_int_equal(PEM_write_PrivateKey(f, p384, NULL, NULL, 0, NULL, NULL), 1);
    fclose(f);
    assert_int_equal(certs_key_load(path, &key, NULL), ATT_E_PARSE);
    assert_int_equal(certs_key_save(p384, path, NULL), ATT_E_INVAL);

    assert_ok(certs_key_save(good, path, err));
    f = fopen(path, "a");
    fputs("x", f);
    fclose(f);
    assert_int_equal(certs_key_load(path, &key, NULL), ATT_E_PARSE);
    assert_null(key);
    EVP_PKEY_free(p384);
    EVP_PKEY_free(good);
    temp_remove(dir);
}

static void test_save_load(void **state)
{
    (void)state;
    char dir[256], path[512];
    struct stat st;
    temp_dir(dir);
    path_in(path, dir, "k.pem");
    certs_autokey *key = NULL, *again = NULL;
    assert_ok(certs_key_generate(&key, err));
    assert_ok(certs_key_save(key, path, err));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_ok(certs_key_load(path, &again, err));
    assert_int_equal(EVP_PKEY_eq(key, again), 1);
    temp_remove(dir);
}

static void test_spki(void **state)
{
    (void)state;
    certs_autokey *key = NULL, *again = NULL;
    uint8_t buf[CERTS_SPKI_MAX], x[32], y[32];
    assert_ok(certs_key_generate(&key, err));
    struct att_slice spki = spki_of(key, buf);
    uint8_t *der = NULL;
    int len = i2d_PUBKEY(key, &der); /* libcrypto's own opinion */
    assert_int_equal(len, spki.len);
    assert_memory_equal(der, spki.ptr, spki.len);
    OPENSSL_free(der);

    EVP_PKEY *none = NULL;
    assert_int_equal(certs_key_from_spki(ATT_SLICE(buf, spki.len - 1), &none, NULL), ATT_E_PARSE);
    assert_int_equal(certs_key_from_spki(ATT_SLICE(buf, spki.len + 1), &none, NULL), ATT_E_PARSE);
    buf[spki.len - 1] ^= 1; /* off the curve */
    assert_int_equal(certs_key_from_spki(spki, &none, NULL), ATT_E_PARSE);
    buf[spki.len - 1] ^= 1;
    buf[22] ^= 1; /* another curve's identifier */
    assert_int_equal(certs_key_from_spki(spki, &none, NULL), ATT_E_PARSE);
    buf[22] ^= 1;
    assert_ok(certs_key_from_spki(spki, &again, err));
    assert_int_equal(EVP_PKEY_eq(key, again), 1);

    assert_ok(certs_key_point(key, x, y, err));
    assert_int_equal(certs_key_from_point(ATT_SLICE(x, 0), ATT_SLICE(y, 32), &none, NULL),
                     ATT_E_PARSE);
    assert_int_equal(certs_key_from_point(ATT_SLICE(y, 32), ATT_SLICE(x, 32), &none, NULL),
                     ATT_E_PARSE);
    assert_null(none);
}

/* A key may keep its point in another form (that it was read in): the coordinates are the same. */
static void test_point_of_a_compressed_key(void **state)
{
    (void)state;
    certs_autokey *key = NULL;
    uint8_t x[CERTS_P256_LEN], y[CERTS_P256_LEN], x2[CERTS_P256_LEN], y2[CERTS_P256_LEN];
    assert_ok(certs_key_generate(&key, err));
    assert_ok(certs_key_point(key, x, y, err));
    assert_int_equal(EVP_PKEY_set_utf8_string_param(key, OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT,
                                                    "compressed"),
                     1);
    assert_ok(certs_key_point(key, x2, y2, err));
    assert_memory_equal(x, x2, sizeof x);
    assert_memory_equal(y, y2, sizeof y);
    assert_int_equal(ERR_peek_error(), 0);
}

static void test_sig_forms(void **state)
{
    (void)state;
    certs_autokey *key = NULL;
    att_autobuf der = {0}, raw = {0}, again = {0};
    assert_ok(certs_key_generate(&key, err));
    assert_ok(certs_sign(key, ATT_SLICE_LIT("message"), &der, err));
    assert_ok(certs_sig_verify(key, ATT_SLICE_LIT("message"), att_buf_slice(&der), err));
    assert_int_equal(certs_sig_verify(key, ATT_SLICE_LIT("messagE"), att_buf_slice(&der), NULL),
                     ATT_E_AUTH);
    assert_ok(certs_sig_raw(att_buf_slice(&der), &raw, err));
    assert_int_equal(raw.len, 64);
    assert_ok(certs_sig_der(ATT_SLICE(raw.ptr, 32), ATT_SLICE(raw.ptr + 32, 32), &again, err));
    assert_true(att_slice_eq(att_buf_slice(&der), att_buf_slice(&again)));

    static const uint8_t negative[] = {0x30, 6, 2, 1, 0x80, 2, 1, 1};
    static const uint8_t padded[] = {0x30, 7, 2, 2, 0, 1, 2, 1, 1};
    static const uint8_t trailing[] = {0x30, 6, 2, 1, 1, 2, 1, 1, 0};
    static const uint8_t long_form[] = {0x30, 0x81, 6, 2, 1, 1, 2, 1, 1};
    assert_int_equal(certs_sig_raw(ATT_SLICE_ARRAY(negative), &raw, NULL), ATT_E_PARSE);
    assert_int_equal(certs_sig_raw(ATT_SLICE_ARRAY(padded), &raw, NULL), ATT_E_PARSE);
    assert_int_equal(certs_sig_raw(ATT_SLICE_ARRAY(trailing), &raw, NULL), ATT_E_PARSE);
    assert_int_equal(certs_sig_raw(ATT_SLICE_ARRAY(long_form), &raw, NULL), ATT_E_PARSE);
    assert_int_equal(certs_sig_der(ATT_SLICE(negative, 0), ATT_SLICE(negative, 1), &raw, NULL),
                     ATT_E_PARSE);
    assert_int_equal(raw.len, 64);
}

/* ---- keys that sign elsewhere ---- */

struct elsewhere {
    EVP_PKEY *key;
    int signed_, released;
    bool broken, too_long;
};

static enum att_rc sign_elsewhere(void *user, struct att_slice digest, struct att_buf *ret_der,
                                  struct att_err *err)
{
    struct elsewhere *e = user;
    if (e->broken) {
        return att_fail(err, ATT_E_LOCKOUT, "the TPM is locked out");
    }
    assert_int_equal(digest.len, 32);
    uint8_t sig[80] = {0};
    size_t len = sizeof sig;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(e->key, NULL);
    assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
    assert_int_equal(EVP_PKEY_sign(ctx, sig, &len, digest.ptr, digest.len), 1);
    EVP_PKEY_CTX_free(ctx);
    __atomic_add_fetch(&e->signed_, 1, __ATOMIC_RELAXED);
    att_buf_put(ret_der, sig, e->too_long ? sizeof sig : len);
    return ATT_OK;
}

static void release_elsewhere(void *user)
{
    ((struct elsewhere *)user)->released++;
}

static EVP_PKEY *make_elsewhere(struct elsewhere *e)
{
    EVP_PKEY *key = NULL;
    memset(e, 0, sizeof *e);
    assert_ok(certs_key_generate(&e->key, err));
    struct certs_signer signer = {.sign = sign_elsewhere, .release = release_elsewhere, .user = e};
    assert_ok(certs_key_remote_new(e->key, &signer, &key, err));
    return key;
}

static void test_remote_refuses(void **state)
{
    (void)state;
    struct elsewhere e;
    EVP_PKEY *key = make_elsewhere(&e), *none = NULL;
    att_autobuf sig = {0};
    struct att_err why = {0};
    e.broken = true;
    assert_int_equal(certs_sign(key, ATT_SLICE_LIT("m"), &sig, &why), ATT_E_LOCKOUT);
    assert_non_null(strstr(why.msg, "locked out"));
    assert_int_equal(sig.len, 0);
    e.broken = false;
    e.too_long = true;
    assert_int_not_equal(certs_sign(key, ATT_SLICE_LIT("m"), &sig, NULL), ATT_OK);
    e.too_long = false;
    assert_ok(certs_sign(key, ATT_SLICE_LIT("m"), &sig, err));

    /* SHA-384, and a private half that is not there. */
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_true(EVP_DigestSignInit_ex(ctx, NULL, "SHA384", NULL, NULL, key, NULL) != 1);
    EVP_MD_CTX_free(ctx);
    BIGNUM *priv = NULL;
    assert_int_equal(EVP_PKEY_get_bn_param(key, "priv", &priv), 0);
    char dir[256], path[512];
    temp_dir(dir);
    path_in(path, dir, "k.pem");
    assert_int_not_equal(certs_key_save(key, path, NULL), ATT_OK);
    assert_int_equal(access(path, F_OK), -1);
    temp_remove(dir);

    EVP_PKEY *p384 = EVP_EC_gen("P-384");
    struct certs_signer signer = {.sign = sign_elsewhere, .release = release_elsewhere, .user = &e};
    assert_int_equal(certs_key_remote_new(p384, &signer, &none, NULL), ATT_E_PARSE);
    signer.sign = NULL;
    assert_int_equal(certs_key_remote_new(e.key, &signer, &none, NULL), ATT_E_INVAL);
    assert_null(none);
    assert_int_equal(e.released, 0);
    ERR_clear_error();
    EVP_PKEY_free(p384);
    EVP_PKEY_free(key);
    assert_int_equal(e.released, 1);
    EVP_PKEY_free(e.key);
}

static void test_remote_signs(void **state)
{
    (void)state;
    struct elsewhere e;
    EVP_PKEY *key = make_elsewhere(&e);
    att_autobuf sig = {0}, csr_der = {0};
    uint8_t a[CERTS_SPKI_MAX], b[CERTS_SPKI_MAX];
    assert_true(att_slice_eq(spki_of(key, a), spki_of(e.key, b)));
    assert_int_equal(EVP_PKEY_eq(key, e.key), 1);
    assert_int_equal(EVP_PKEY_eq(e.key, key), 1);
    assert_int_equal(EVP_PKEY_get_bits(key), 256);
    assert_true(certs_key_is_p256(key));
    uint8_t *der = NULL;
    int len = i2d_PUBKEY(key, &der);
    assert_int_equal(len, 91);
    assert_memory_equal(der, a, 91);
    OPENSSL_free(der);

    assert_ok(certs_sign(key, ATT_SLICE_LIT("m"), &sig, err));
    assert_ok(certs_sig_verify(e.key, ATT_SLICE_LIT("m"), att_buf_slice(&sig), err));

    /* In several updates, and asked for the length first (the context is duplicated). */
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t out[80];
    size_t out_len = 0;
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key), 1);
    assert_int_equal(EVP_DigestSignUpdate(ctx, "me", 2), 1);
    assert_int_equal(EVP_DigestSignUpdate(ctx, "ss", 2), 1);
    assert_int_equal(EVP_DigestSignFinal(ctx, NULL, &out_len), 1);
    assert_int_equal(out_len, CERTS_SIG_DER_MAX);
    assert_int_equal(EVP_DigestSignFinal(ctx, out, &out_len), 1);
    EVP_MD_CTX_free(ctx);
    assert_ok(certs_sig_verify(e.key, ATT_SLICE_LIT("mess"), ATT_SLICE(out, out_len), err));

    struct certs_csr csr;
    assert_ok(certs_csr_create(key, ID, &csr_der, err));
    assert_ok(certs_csr_verify(att_buf_slice(&csr_der), ID, &csr, err));
    assert_true(att_slice_eq(ATT_SLICE(csr.spki, csr.spki_len), spki_of(e.key, b)));

    X509 *cert = make_root(key, "signed elsewhere"); /* as a CA key, through X509 */
    assert_int_equal(X509_verify(cert, e.key), 1);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    assert_int_equal(X509_verify(cert, e.key), 1);
    X509_free(cert);
    assert_int_equal(e.signed_, 5);
    EVP_PKEY_free(key);
    assert_int_equal(e.released, 1);
    EVP_PKEY_free(e.key);
}

static void *sign_many(void *arg)
{
    for (int i = 0; i < 50; i++) {
        struct att_buf sig = {0};
        if (certs_sign(arg, ATT_SLICE_LIT("thread"), &sig, NULL) != ATT_OK) {
            return arg;
        }
        att_buf_done(&sig);
    }
    return NULL;
}

static void test_remote_threads(void **state)
{
    (void)state;
    struct elsewhere e;
    EVP_PKEY *key = make_elsewhere(&e);
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, sign_many, key), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        void *bad = key;
        pthread_join(threads[i], &bad);
        assert_null(bad);
    }
    assert_int_equal(e.signed_, 200);
    EVP_PKEY_free(key);
    EVP_PKEY_free(e.key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load_refuses), cmocka_unit_test(test_save_load),
        cmocka_unit_test(test_spki),         cmocka_unit_test(test_point_of_a_compressed_key),
        cmocka_unit_test(test_sig_forms),    cmocka_unit_test(test_remote_refuses),
        cmocka_unit_test(test_remote_signs), cmocka_unit_test(test_remote_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
