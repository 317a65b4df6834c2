/* Memory keys that stay open between signatures (openkey.h): how long, how many, and that what
 * libcrypto had of them is gone with them. */
#include "attestd/keyd/openkey.h"
#include "certs/key.h"

#include <openssl/crypto.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#define HEAP 1048576

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        assert_int_equal((call), ATT_OK);                                                          \
        assert_int_equal(err.rc, ATT_OK);                                                          \
    } while (0)

struct soft {
    struct keyd_openkey open;
    struct att_secret scalar;
    uint8_t point[KEYD_POINT_LEN];
};

static void make_soft(struct soft *soft)
{
    struct att_err err = {0};
    EVP_PKEY *pkey = NULL;
    size_t len = 0;
    *soft = (struct soft){0};
    assert_ok(keyd_softkey_make(&soft->scalar, &err));
    assert_ok(keyd_softkey_open(&soft->scalar, NULL, &pkey, &err));
    assert_int_equal(EVP_PKEY_get_octet_string_param(pkey, "encoded-pub-key", soft->point,
                                                     sizeof soft->point, &len),
                     1);
    EVP_PKEY_free(pkey);
}

static void soft_done(struct soft *soft)
{
    keyd_openkey_close(&soft->open);
    att_secret_done(&soft->scalar);
}

static bool verifies(const uint8_t point[KEYD_POINT_LEN], const uint8_t digest[32],
                     const uint8_t raw[64])
{
    struct att_err err = {0};
    EVP_PKEY *pkey = NULL;
    att_autobuf der = {0};
    assert_ok(
        certs_key_from_point(ATT_SLICE(point + 1, 32), ATT_SLICE(point + 33, 32), &pkey, &err));
    assert_ok(certs_sig_der(ATT_SLICE(raw, 32), ATT_SLICE(raw + 32, 32), &der, &err));
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(pkey, NULL);
    assert_int_equal(EVP_PKEY_verify_init(ctx), 1);
    bool good = EVP_PKEY_verify(ctx, der.ptr, der.len, digest, 32) == 1;
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(pkey);
    return good;
}

static void use_signs(const struct soft *soft, struct keyd_openuse *use)
{
    struct att_err err = {0};
    uint8_t digest[32];
    att_autobuf raw = {0};
    assert_ok(att_random(digest, sizeof digest, &err));
    assert_ok(keyd_softkey_sign(use->ctx, digest, &raw, &err));
    assert_int_equal(raw.len, 64);
    assert_true(verifies(soft->point, digest, raw.ptr));
}

static void take(struct soft *soft, struct keyd_openuse *use)
{
    struct att_err err = {0};
    assert_ok(keyd_openkey_take(&soft->open, &soft->scalar, soft->point, use, &err));
}

static void a_context_is_used_again_and_a_second_one_made(void **state)
{
    struct soft soft;
    struct keyd_openuse first, second;
    (void)state;
    make_soft(&soft);
    size_t before = keyd_openkey_count();
    take(&soft, &first);
    take(&soft, &second);
    assert_int_equal(keyd_openkey_count(), before + 1);
    assert_ptr_equal(first.pkey, second.pkey);
    assert_ptr_not_equal(first.ctx, second.ctx);
    use_signs(&soft, &first);
    use_signs(&soft, &second);
    EVP_PKEY_CTX *was = first.ctx;
    keyd_openkey_give(&soft.open, &first);
    assert_null(first.ctx);
    take(&soft, &first);
    assert_ptr_equal(first.ctx, was);
    use_signs(&soft, &first);
    keyd_openkey_give(&soft.open, &first);
    keyd_openkey_give(&soft.open, &second);
    soft_done(&soft);
    assert_int_equal(keyd_openkey_count(), before);
}

/* Closed while a signature is under way: that one is made, nothing comes back after it. */
static void closed_in_use_is_wiped_after_the_last_use(void **state)
{
    struct soft soft;
    struct keyd_openuse use;
    (void)state;
    make_soft(&soft);
    size_t used = CRYPTO_secure_used(), before = keyd_openkey_count();
    take(&soft, &use);
    assert_true(CRYPTO_secure_used() > used);
    keyd_openkey_close(&soft.open);
    assert_int_equal(keyd_openkey_count(), before);
    use_signs(&soft, &use);
    assert_true(CRYPTO_secure_used() > used);
    keyd_openkey_give(&soft.open, &use);
    assert_int_equal(CRYPTO_secure_used(), used);
    assert_int_equal(keyd_openkey_count(), before);
    assert_int_equal(soft.open.idle_count, 0);
    keyd_openkey_close(&soft.open); /* closed already is fine */
    soft_done(&soft);
}

static void so_many_are_open_and_the_oldest_gives_way(void **state)
{
    static struct soft softs[KEYD_OPEN_MAX + 2];
    struct keyd_openuse use;
    (void)state;
    size_t used = CRYPTO_secure_used();
    assert_int_equal(keyd_openkey_count(), 0);
    for (size_t i = 0; i < KEYD_OPEN_MAX + 2; i++) {
        make_soft(&softs[i]);
        take(&softs[i], &use);
        keyd_openkey_give(&softs[i].open, &use);
        if (i == KEYD_OPEN_MAX - 1) { /* the first was used again: the second is the oldest */
            take(&softs[0], &use);
            keyd_openkey_give(&softs[0].open, &use);
        }
    }
    assert_int_equal(keyd_openkey_count(), KEYD_OPEN_MAX);
    assert_non_null(softs[0].open.pkey);
    assert_null(softs[1].open.pkey);
    assert_null(softs[2].open.pkey);
    assert_non_null(softs[3].open.pkey);
    take(&softs[1], &use); /* opened again */
    use_signs(&softs[1], &use);
    keyd_openkey_give(&softs[1].open, &use);
    for (size_t i = 0; i < KEYD_OPEN_MAX + 2; i++) {
        soft_done(&softs[i]);
    }
    assert_int_equal(keyd_openkey_count(), 0);
    assert_int_equal(CRYPTO_secure_used(), used);
}

static void *sign_a_hundred(void *arg)
{
    struct soft *soft = arg;
    for (int i = 0; i < 100; i++) {
        struct keyd_openuse use;
        take(soft, &use);
        use_signs(soft, &use);
        keyd_openkey_give(&soft->open, &use);
    }
    return NULL;
}

static void threads_share_a_key_that_is_closed_under_them(void **state)
{
    struct soft soft;
    pthread_t threads[4];
    (void)state;
    make_soft(&soft);
    size_t used = CRYPTO_secure_used();
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, sign_a_hundred, &soft), 0);
    }
    for (int i = 0; i < 200; i++) {
        keyd_openkey_close(&soft.open);
        usleep(100);
    }
    for (size_t i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    keyd_openkey_close(&soft.open);
    assert_int_equal(CRYPTO_secure_used(), used);
    assert_int_equal(keyd_openkey_count(), 0);
    soft_done(&soft);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_context_is_used_again_and_a_second_one_made),
        cmocka_unit_test(closed_in_use_is_wiped_after_the_last_use),
        cmocka_unit_test(so_many_are_open_and_the_oldest_gives_way),
        cmocka_unit_test(threads_share_a_key_that_is_closed_under_them),
    };
    if (CRYPTO_secure_malloc_init(HEAP, 32) != 1) { /* as keyd's daemon does: it can be counted */
        fprintf(stderr, "no secure heap\n");
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
