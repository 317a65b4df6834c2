#include "attestd/base/p256.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define POINT_LEN (1 + ATT_P256_XY_LEN)

/* SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING { 04 … } }: RFC 5480 §2.1.1. With
 * a curve this fixed the whole structure is a constant in front of the two coordinates; the last
 * byte belongs to the point: uncompressed, SEC 1 §2.3.3. */
static const uint8_t spki_head[] = {0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
                                    0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
                                    0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04};
_Static_assert(sizeof spki_head + ATT_P256_XY_LEN == ATT_P256_SPKI_LEN, "the head of an SPKI");

/* Never changed after they are made, so that threads may read them together; model is set last. Its
 * point is the base point: a key that is copied must be a whole one. */
static EC_GROUP *group;
static _Atomic(EVP_PKEY *) model;
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

static EVP_PKEY *make_model(void)
{
    uint8_t point[POINT_LEN];
    char name[] = SN_X9_62_prime256v1;
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    if (ctx &&
        EC_POINT_point2oct(group, EC_GROUP_get0_generator(group), POINT_CONVERSION_UNCOMPRESSED,
                           point, sizeof point, NULL) == sizeof point) {
        OSSL_PARAM params[] = {
            OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, name, 0),
            OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point),
            OSSL_PARAM_construct_end(),
        };
        if (EVP_PKEY_fromdata_init(ctx) != 1 ||
            EVP_PKEY_fromdata(ctx, &key, EVP_PKEY_PUBLIC_KEY, params) != 1) {
            key = NULL;
        }
    }
    EVP_PKEY_CTX_free(ctx);
    return key;
}

static enum att_rc get_ready(struct att_err *err)
{
    if (model) {
        return ATT_OK;
    }
    pthread_mutex_lock(&making);
    if (!group) {
        group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    }
    if (group && !model) {
        model = make_model();
    }
    pthread_mutex_unlock(&making);
    return model ? ATT_OK : att_fail_openssl(err, ATT_E_CRYPTO, "P-256: no key to copy");
}

static void put_point(uint8_t ret[POINT_LEN], const uint8_t xy[ATT_P256_XY_LEN])
{
    ret[0] = POINT_CONVERSION_UNCOMPRESSED;
    memcpy(ret + 1, xy, ATT_P256_XY_LEN);
}

enum att_rc att_p256_check(const uint8_t xy[ATT_P256_XY_LEN], struct att_err *err)
{
    enum att_rc rc = get_ready(err);
    if (rc != ATT_OK) {
        return rc;
    }
    uint8_t bytes[POINT_LEN];
    put_point(bytes, xy);
    EC_POINT *point = EC_POINT_new(group);
    if (!point) {
        return att_fail_openssl(err, ATT_E_NOMEM, "P-256: no memory for a point");
    }
    bool on_curve = EC_POINT_oct2point(group, point, bytes, sizeof bytes, NULL) == 1;
    EC_POINT_free(point);
    return on_curve ? ATT_OK : att_fail_openssl(err, ATT_E_PARSE, "the point is not on P-256");
}

enum att_rc att_p256_key(const uint8_t xy[ATT_P256_XY_LEN], EVP_PKEY **ret_key, struct att_err *err)
{
    enum att_rc rc = get_ready(err);
    if (rc != ATT_OK) {
        return rc;
    }
    uint8_t bytes[POINT_LEN];
    put_point(bytes, xy);
    EVP_PKEY *key = EVP_PKEY_dup(model);
    if (!key) {
        return att_fail_openssl(err, ATT_E_NOMEM, "P-256: no memory for a key");
    }
    if (EVP_PKEY_set1_encoded_public_key(key, bytes, sizeof bytes) != 1) {
        EVP_PKEY_free(key);
        return att_fail_openssl(err, ATT_E_PARSE, "the point is not on P-256");
    }
    *ret_key = key;
    return ATT_OK;
}

void att_p256_spki(uint8_t ret_spki[ATT_P256_SPKI_LEN], const uint8_t xy[ATT_P256_XY_LEN])
{
    memcpy(ret_spki, spki_head, sizeof spki_head);
    memcpy(ret_spki + sizeof spki_head, xy, ATT_P256_XY_LEN);
}

const uint8_t *att_p256_of_spki(struct att_slice spki)
{
    return spki.len == ATT_P256_SPKI_LEN && memcmp(spki.ptr, spki_head, sizeof spki_head) == 0
               ? spki.ptr + sizeof spki_head
               : NULL;
}
