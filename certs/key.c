#include "certs/key.h"

#include "attestd/base/io.h"
#include "attestd/base/p256.h"
#include "attestd/base/secret.h"
#include "certs/oid.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include <sys/stat.h>

bool certs_key_is_p256(const EVP_PKEY *key)
{
    char group[32] = "";
    size_t len = 0;
    return key && EVP_PKEY_is_a(key, "EC") &&
           EVP_PKEY_get_group_name(key, group, sizeof group, &len) == 1 &&
           (strcmp(group, "prime256v1") == 0 || strcmp(group, "P-256") == 0);
}

enum att_rc certs_key_generate(EVP_PKEY **ret_key, struct att_err *err)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    if (!key) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "generate a P-256 key");
    }
    *ret_key = key;
    return ATT_OK;
}

static int no_password(char *buf, int size, int rwflag, void *user)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)user;
    return 0; /* else OpenSSL would ask on the terminal */
}

/* PEM readers skip what stands around the block; a key file of ours has nothing there. */
static enum att_rc key_from_pem(struct att_slice pem, const char *path, EVP_PKEY **ret_key,
                                struct att_err *err)
{
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    if (!bio) {
        return att_fail_openssl(err, ATT_E_NOMEM, "%s", path);
    }
    certs_autokey *key = PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL);
    char rest = 0;
    bool more = key && BIO_read(bio, &rest, 1) == 1;
    BIO_free(bio);
    if (!key) {
        return att_fail_openssl(err, ATT_E_PARSE, "%s: expected an unencrypted PEM private key",
                                path);
    }
    if (more) {
        return att_fail(err, ATT_E_PARSE, "%s: something follows the private key", path);
    }
    if (!certs_key_is_p256(key)) {
        return att_fail(err, ATT_E_PARSE, "%s: expected a P-256 key", path);
    }
    *ret_key = key;
    key = NULL;
    return ATT_OK;
}

enum att_rc certs_key_load(const char *path, EVP_PKEY **ret_key, struct att_err *err)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return att_fail_errno(err, errno == ENOENT ? ATT_E_NOTFOUND : ATT_E_IO, "%s", path);
    }
    if (st.st_mode & (S_IRWXG | S_IRWXO)) {
        return att_fail(err, ATT_E_DENIED, "%s: mode %04o lets others at the key, expected 0600",
                        path, (unsigned)(st.st_mode & 07777));
    }
    struct att_buf pem = ATT_BUF_INIT(CERTS_KEY_FILE_MAX);
    enum att_rc rc = att_io_read_file(path, CERTS_KEY_FILE_MAX, &pem, err);
    if (rc == ATT_OK) {
        rc = key_from_pem(att_buf_slice(&pem), path, ret_key, err);
    }
    att_wipe(pem.ptr, pem.len);
    att_buf_done(&pem);
    return rc;
}

enum att_rc certs_key_save(EVP_PKEY *key, const char *path, struct att_err *err)
{
    if (!certs_key_is_p256(key)) {
        return att_fail(err, ATT_E_INVAL, "%s: expected a P-256 key to save", path);
    }
    BIO *bio = BIO_new(BIO_s_secmem());
    if (!bio || PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1) {
        BIO_free(bio);
        return att_fail_openssl(err, ATT_E_CRYPTO, "%s: write private key", path);
    }
    char *pem = NULL;
    long len = BIO_get_mem_data(bio, &pem);
    enum att_rc rc = att_io_write_file(path, ATT_SLICE(pem, (size_t)len), 0600, err);
    BIO_free(bio);
    return rc;
}

enum att_rc certs_key_point(const EVP_PKEY *key, uint8_t ret_x[CERTS_P256_LEN],
                            uint8_t ret_y[CERTS_P256_LEN], struct att_err *err)
{
    if (!certs_key_is_p256(key)) {
        return att_fail(err, ATT_E_INVAL, "expected a P-256 key");
    }
    /* The whole point at once, where it is kept uncompressed: for each coordinate alone libcrypto
     * works both of them out. */
    uint8_t point[1 + 2 * CERTS_P256_LEN];
    size_t len = 0;
    if (EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point, &len) ==
            1 &&
        len == sizeof point && point[0] == POINT_CONVERSION_UNCOMPRESSED) {
        memcpy(ret_x, point + 1, CERTS_P256_LEN);
        memcpy(ret_y, point + 1 + CERTS_P256_LEN, CERTS_P256_LEN);
        return ATT_OK;
    }
    ERR_clear_error(); /* a key elsewhere, or one in another form */
    BIGNUM *x = NULL, *y = NULL;
    bool ok = EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_X, &x) == 1 &&
              EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_EC_PUB_Y, &y) == 1 &&
              BN_bn2binpad(x, ret_x, CERTS_P256_LEN) == CERTS_P256_LEN &&
              BN_bn2binpad(y, ret_y, CERTS_P256_LEN) == CERTS_P256_LEN;
    BN_free(x);
    BN_free(y);
    return ok ? ATT_OK : att_fail_openssl(err, ATT_E_CRYPTO, "read the public point");
}

enum att_rc certs_key_spki(const EVP_PKEY *key, struct att_buf *ret_der, struct att_err *err)
{
    if (certs_key_is_p256(key)) {
        uint8_t xy[2 * CERTS_P256_LEN];
        enum att_rc rc = certs_key_point(key, xy, xy + CERTS_P256_LEN, err);
        if (rc != ATT_OK) {
            return rc;
        }
        uint8_t spki[ATT_P256_SPKI_LEN];
        att_p256_spki(spki, xy);
        att_buf_put(ret_der, spki, sizeof spki);
        return att_buf_ok(ret_der, err);
    }
    uint8_t *der = NULL;
    int len = key ? i2d_PUBKEY(key, &der) : -1;
    if (len <= 0) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "encode the public key");
    }
    att_buf_put(ret_der, der, (size_t)len);
    OPENSSL_free(der);
    return att_buf_ok(ret_der, err);
}

enum att_rc certs_key_spki_sha256(const EVP_PKEY *key, uint8_t ret[ATT_SHA256_LEN],
                                  struct att_err *err)
{
    att_autobuf der = {0};
    enum att_rc rc = certs_key_spki(key, &der, err);
    if (rc == ATT_OK) {
        att_sha256(ret, att_buf_slice(&der));
    }
    return rc;
}

static enum att_rc take_spki(struct att_slice der, const uint8_t **ret_xy, struct att_err *err)
{
    *ret_xy = att_p256_of_spki(der);
    return *ret_xy ? ATT_OK
                   : att_fail(err, ATT_E_PARSE,
                              "expected the %d bytes of a P-256 SubjectPublicKeyInfo (named curve, "
                              "uncompressed point), found %zu bytes of something else",
                              ATT_P256_SPKI_LEN, der.len);
}

enum att_rc certs_key_from_spki(struct att_slice der, EVP_PKEY **ret_key, struct att_err *err)
{
    const uint8_t *xy = NULL;
    enum att_rc rc = take_spki(der, &xy, err);
    return rc == ATT_OK ? att_p256_key(xy, ret_key, err) : rc;
}

enum att_rc certs_key_check_spki(struct att_slice der, struct att_err *err)
{
    const uint8_t *xy = NULL;
    enum att_rc rc = take_spki(der, &xy, err);
    return rc == ATT_OK ? att_p256_check(xy, err) : rc;
}

static bool put_coordinate(uint8_t ret[CERTS_P256_LEN], struct att_slice n)
{
    while (n.len > CERTS_P256_LEN && n.ptr[0] == 0) {
        n.ptr++;
        n.len--;
    }
    if (n.len == 0 || n.len > CERTS_P256_LEN) {
        return false;
    }
    memset(ret, 0, CERTS_P256_LEN - n.len);
    memcpy(ret + CERTS_P256_LEN - n.len, n.ptr, n.len);
    return true;
}

enum att_rc certs_key_from_point(struct att_slice x, struct att_slice y, EVP_PKEY **ret_key,
                                 struct att_err *err)
{
    uint8_t xy[ATT_P256_XY_LEN];
    if (!put_coordinate(xy, x) || !put_coordinate(xy + CERTS_P256_LEN, y)) {
        return att_fail(err, ATT_E_PARSE, "P-256 coordinates of %zu and %zu bytes, expected 1 … 32",
                        x.len, y.len);
    }
    return att_p256_key(xy, ret_key, err);
}
