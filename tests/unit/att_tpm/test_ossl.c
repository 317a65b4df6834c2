/* One OpenSSL library context inside TPM_CALL, a new one each time outside of it. */
#include "tpm/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/evp.h>

static void test_outside_each_call_makes_its_own(void **state)
{
    (void)state;
    OSSL_LIB_CTX *a = OSSL_LIB_CTX_new(), *b = OSSL_LIB_CTX_new();
    assert_non_null(a);
    assert_non_null(b);
    assert_ptr_not_equal(a, b);
    OSSL_LIB_CTX_free(a); /* LeakSanitizer sees it when this does nothing */
    OSSL_LIB_CTX_free(b);
    OSSL_LIB_CTX_free(NULL);
}

static void test_inside_it_is_one(void **state)
{
    (void)state;
    tpm_ossl_enter();
    OSSL_LIB_CTX *a = OSSL_LIB_CTX_new();
    OSSL_LIB_CTX_free(a);
    OSSL_LIB_CTX *b = OSSL_LIB_CTX_new();
    assert_int_equal(tpm_ossl_leave(TPM2_RC_RETRY), TPM2_RC_RETRY);
    assert_non_null(a);
    assert_ptr_equal(a, b);
    OSSL_LIB_CTX *outside = OSSL_LIB_CTX_new();
    assert_ptr_not_equal(a, outside);
    OSSL_LIB_CTX_free(outside);
    /* Freed, and still there: it works, and is not the default context. */
    EVP_MD *md = EVP_MD_fetch(a, "SHA256", NULL);
    assert_non_null(md);
    EVP_MD_free(md);
    assert_ptr_not_equal(a, OSSL_LIB_CTX_get0_global_default());
}

static TSS2_RC nested(struct tpm_context *ctx)
{
    TSS2_RC rc;
    TPM_CALL(ctx, rc, TSS2_RC_SUCCESS);
    return rc;
}

static void test_a_call_leaves_what_it_enters(void **state)
{
    (void)state;
    struct tpm_context ctx = {.alive = true};
    TSS2_RC rc;
    TPM_CALL(&ctx, rc, nested(&ctx));
    assert_int_equal(rc, TSS2_RC_SUCCESS);
    ctx.alive = false;
    TPM_CALL(&ctx, rc, TSS2_RC_SUCCESS);
    assert_int_equal(rc, TSS2_TCTI_RC_NO_CONNECTION);
    OSSL_LIB_CTX *a = OSSL_LIB_CTX_new(), *b = OSSL_LIB_CTX_new();
    assert_ptr_not_equal(a, b); /* outside again */
    OSSL_LIB_CTX_free(a);
    OSSL_LIB_CTX_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outside_each_call_makes_its_own),
        cmocka_unit_test(test_inside_it_is_one),
        cmocka_unit_test(test_a_call_leaves_what_it_enters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
