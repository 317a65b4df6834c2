/* Keys by their text: what is no key is refused each time, another text is another key, and there
 * are never more than so many. */
#include "provision/acme/jws.h"
#include "provision/acme/keys.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <pthread.h>

static char *new_jwk(EVP_PKEY **ret_key)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    uint8_t *der = NULL;
    int len = i2d_PUBKEY(key, &der);
    json_t *jwk = NULL;
    assert_int_equal(acme_spki_to_jwk(ATT_SLICE(der, (size_t)len), &jwk, NULL), ATT_OK);
    OPENSSL_free(der);
    char *text = json_dumps(jwk, JSON_COMPACT);
    json_decref(jwk);
    if (ret_key) {
        *ret_key = key;
    } else {
        EVP_PKEY_free(key);
    }
    return text;
}

static void test_refuses_each_time(void **state)
{
    (void)state;
    struct acme_keys *keys = acme_keys_new();
    static const char *const bad[] = {
        "", "{}", "[]", "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}"};
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
            EVP_PKEY *key = NULL;
            assert_int_equal(acme_keys_get(keys, bad[i], &key, NULL), ATT_E_PARSE);
            assert_null(key);
        }
    }
    acme_keys_free(keys);
}

static void test_another_text_is_another_key(void **state)
{
    (void)state;
    struct acme_keys *keys = acme_keys_new();
    EVP_PKEY *want[2], *first = NULL, *again = NULL, *other = NULL;
    char *texts[] = {new_jwk(&want[0]), new_jwk(&want[1])};
    assert_int_equal(acme_keys_get(keys, texts[0], &first, NULL), ATT_OK);
    assert_int_equal(acme_keys_get(keys, texts[1], &other, NULL), ATT_OK);
    assert_int_equal(acme_keys_get(keys, texts[0], &again, NULL), ATT_OK);
    assert_ptr_equal(first, again);
    assert_int_equal(EVP_PKEY_eq(first, want[0]), 1);
    assert_int_equal(EVP_PKEY_eq(other, want[1]), 1);
    EVP_PKEY *all[] = {first, again, other, want[0], want[1]};
    for (size_t i = 0; i < 5; i++) {
        EVP_PKEY_free(all[i]);
    }
    free(texts[0]);
    free(texts[1]);
    acme_keys_free(keys);
}

#define MANY 64

static unsigned decoded;

static enum att_rc decode_none(const char *text, EVP_PKEY **ret_key, struct att_err *err)
{
    decoded++;
    (void)text;
    (void)ret_key;
    return att_fail(err, ATT_E_PARSE, "no key");
}

static enum att_rc decode_new(const char *text, EVP_PKEY **ret_key, struct att_err *err)
{
    decoded++;
    (void)text;
    *ret_key = EVP_EC_gen("P-256");
    return *ret_key ? ATT_OK : att_fail(err, ATT_E_NOMEM, "key");
}

/* By a decoder of its own: once for a text, each time for one that it refuses; a text that differs
 * in its last byte is another one. */
static void test_decoder(void **state)
{
    (void)state;
    struct acme_keys *keys = acme_keys_new();
    EVP_PKEY *got[3] = {NULL};
    assert_int_equal(acme_keys_get_by(keys, decode_none, "a", &got[0], NULL), ATT_E_PARSE);
    assert_int_equal(acme_keys_get_by(keys, decode_none, "a", &got[0], NULL), ATT_E_PARSE);
    assert_null(got[0]);
    assert_int_equal(decoded, 2);
    assert_int_equal(acme_keys_get_by(keys, decode_new, "a", &got[0], NULL), ATT_OK);
    assert_int_equal(acme_keys_get_by(keys, decode_none, "a", &got[1], NULL), ATT_OK);
    assert_ptr_equal(got[0], got[1]);
    assert_int_equal(acme_keys_get_by(keys, decode_new, "a ", &got[2], NULL), ATT_OK);
    assert_ptr_not_equal(got[0], got[2]);
    assert_int_equal(decoded, 4);
    for (size_t i = 0; i < 3; i++) {
        EVP_PKEY_free(got[i]);
    }
    acme_keys_free(keys);
}

struct shared {
    struct acme_keys *keys;
    char *texts[MANY];
    EVP_PKEY *want[MANY];
};

static void *use(void *user)
{
    struct shared *s = user;
    for (size_t i = 0; i < 20 * MANY; i++) {
        EVP_PKEY *key = NULL;
        if (acme_keys_get(s->keys, s->texts[i % MANY], &key, NULL) ||
            EVP_PKEY_eq(key, s->want[i % MANY]) != 1) {
            return s;
        }
        EVP_PKEY_free(key);
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    struct shared s = {.keys = acme_keys_new()};
    pthread_t threads[4];
    for (size_t i = 0; i < MANY; i++) {
        s.texts[i] = new_jwk(&s.want[i]);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, use, &s), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        void *wrong = NULL;
        pthread_join(threads[i], &wrong);
        assert_null(wrong);
    }
    for (size_t i = 0; i < MANY; i++) {
        free(s.texts[i]);
        EVP_PKEY_free(s.want[i]);
    }
    acme_keys_free(s.keys);
}

/* More texts than places, all of one key: each is right, whatever it replaced. */
static void test_more_than_fit(void **state)
{
    (void)state;
    struct acme_keys *keys = acme_keys_new();
    EVP_PKEY *want = NULL;
    char *text = new_jwk(&want);
    size_t len = strlen(text);
    char *spaced = malloc(len + 2 * ACME_KEYS_MAX + 1);
    memcpy(spaced, text, len + 1);
    for (size_t i = 0; i < 2 * ACME_KEYS_MAX; i++) {
        EVP_PKEY *key = NULL;
        enum att_rc rc = acme_keys_get(keys, spaced, &key, NULL);
        assert_int_equal(rc, len + i <= 8192 ? ATT_OK : ATT_E_LIMIT);
        assert_true(rc || EVP_PKEY_eq(key, want) == 1);
        EVP_PKEY_free(key);
        memcpy(spaced + len + i, " ", 2);
    }
    free(spaced);
    free(text);
    EVP_PKEY_free(want);
    acme_keys_free(keys);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses_each_time),
        cmocka_unit_test(test_another_text_is_another_key),
        cmocka_unit_test(test_decoder),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_more_than_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
