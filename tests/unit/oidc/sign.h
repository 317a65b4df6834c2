/* Keys and tokens as a provider makes them. Included by each test program of this folder. */
#ifndef TESTS_UNIT_OIDC_SIGN_H
#define TESTS_UNIT_OIDC_SIGN_H

#include "attestd/base/enc.h"
#include "provision/acme/jwk.h"
#include "provision/acme/jws.h"
#include "provision/oidc/provider.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/ec.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#define ISS  "https://idp.example"
#define AUD  "attestd-admin"
#define NOW  1800000000
#define SIGN __attribute__((unused)) static

#define refused(call, want_rc, want_reason)                                                        \
    do {                                                                                           \
        struct att_err err = {0};                                                                  \
        assert_int_equal((call), (want_rc));                                                       \
        assert_string_equal(err.reason, (want_reason));                                            \
    } while (0)

SIGN void put_b64u(struct att_buf *out, const char *text)
{
    att_buf_b64u(out, att_slice_str(text));
}

static void ecdsa_raw(const unsigned char *der, size_t len, unsigned char ret[64])
{
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &der, (long)len);
    assert_non_null(sig);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(sig), ret, 32), 32);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(sig), ret + 32, 32), 32);
    ECDSA_SIG_free(sig);
}

/* salt: of PSS; -3 (automatic) and others make wrong ones. */
SIGN void sign_token(EVP_PKEY *key, bool pss, int salt, const char *header, const char *claims,
                     struct att_buf *ret_token)
{
    unsigned char raw[512], fixed[64];
    size_t len = sizeof raw;
    EVP_PKEY_CTX *options = NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    att_buf_reset(ret_token);
    put_b64u(ret_token, header);
    att_buf_u8(ret_token, '.');
    put_b64u(ret_token, claims);
    assert_int_equal(EVP_DigestSignInit(ctx, &options, EVP_sha256(), NULL, key), 1);
    if (pss) {
        EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING);
        EVP_PKEY_CTX_set_rsa_pss_saltlen(options, salt);
    }
    assert_int_equal(EVP_DigestSign(ctx, raw, &len, ret_token->ptr, ret_token->len), 1);
    EVP_MD_CTX_free(ctx);
    att_buf_u8(ret_token, '.');
    if (EVP_PKEY_is_a(key, "EC") == 1) {
        ecdsa_raw(raw, len, fixed);
        att_buf_b64u(ret_token, ATT_SLICE_ARRAY(fixed));
    } else {
        att_buf_b64u(ret_token, ATT_SLICE(raw, len));
    }
}

/* The public key as a JWK with a kid, and more members where there are some. */
SIGN json_t *jwk_of(EVP_PKEY *key, const char *kid)
{
    unsigned char *der = NULL;
    json_t *jwk = NULL;
    int len = i2d_PUBKEY(key, &der);
    assert_true(len > 0);
    assert_int_equal(acme_spki_to_jwk(ATT_SLICE(der, (size_t)len), &jwk, NULL), ATT_OK);
    OPENSSL_free(der);
    json_object_set_new(jwk, "kid", json_string(kid));
    return jwk;
}

/* {"keys": [jwk…]} as text; takes the keys over. */
SIGN char *set_text(json_t *first, json_t *second)
{
    json_t *keys = json_array();
    json_array_append_new(keys, first);
    if (second) {
        json_array_append_new(keys, second);
    }
    json_t *set = json_pack("{s:o}", "keys", keys);
    char *text = json_dumps(set, JSON_COMPACT);
    json_decref(set);
    return text;
}

#endif
