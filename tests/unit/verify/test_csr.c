/* verify_csr (M5): the certificate is for the key that was certified, and for nothing else. */
#include "tests/unit/verify/harness.h"

#include "certs/csr.h"

#include <stdlib.h>

struct fixture {
    EVP_PKEY *key, *account, *other;
    struct att_buf spki, account_spki, csr;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    f->key = forge_p256();
    f->account = forge_p256();
    f->other = forge_p256();
    forge_spki(f->key, &f->spki);
    forge_spki(f->account, &f->account_spki);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    EVP_PKEY_free(f->key);
    EVP_PKEY_free(f->account);
    EVP_PKEY_free(f->other);
    att_buf_done(&f->spki);
    att_buf_done(&f->account_spki);
    att_buf_done(&f->csr);
    free(f);
    return 0;
}

static void make(struct fixture *f, EVP_PKEY *key, const char *uri)
{
    struct att_err err = {0};
    att_buf_reset(&f->csr);
    if (certs_csr_create(key, uri, &f->csr, &err)) {
        fail_msg("%s", err.msg);
    }
}

static void judge(struct fixture *f, struct att_slice certified, const struct att_slice *accounts,
                  size_t n, enum verify_reason reason, const char *name)
{
    verify_autoverdict *verdict = verify_verdict_new();
    enum verify_result result =
        verify_csr(att_buf_slice(&f->csr), FORGE_IDENTIFIER, certified, accounts, n, verdict);
    if (reason == VERIFY_REASON_NONE) {
        assert_accepted(verdict, name);
        assert_int_equal(result, VERIFY_ACCEPTED);
    } else {
        assert_refused(verdict, reason, name);
        assert_int_equal(result, VERIFY_REFUSED);
    }
}

static void test_csr(void **state)
{
    struct fixture *f = *state;
    struct att_slice key = att_buf_slice(&f->spki), account = att_buf_slice(&f->account_spki);

    make(f, f->key, FORGE_IDENTIFIER);
    judge(f, key, &account, 1, VERIFY_REASON_NONE, "honest");
    judge(f, key, NULL, 0, VERIFY_REASON_CSR_ACCOUNT_KEY, "nobody asked about account keys");
    judge(f, (struct att_slice){0}, &account, 1, VERIFY_REASON_CSR_KEY, "nothing was certified");
    /* The TPM certified the very key that the account uses. */
    judge(f, key, &key, 1, VERIFY_REASON_CSR_ACCOUNT_KEY, "certified key is an account's");
    const struct att_slice both[] = {account, key};
    judge(f, key, both, 2, VERIFY_REASON_CSR_ACCOUNT_KEY, "second account's key");

    make(f, f->account, FORGE_IDENTIFIER);
    judge(f, key, &account, 1, VERIFY_REASON_CSR_ACCOUNT_KEY, "CSR with the account key");

    make(f, f->other, FORGE_IDENTIFIER);
    judge(f, key, &account, 1, VERIFY_REASON_CSR_KEY, "CSR for another key");

    make(f, f->key, "spiffe://bank.example/agent/market-data");
    judge(f, key, &account, 1, VERIFY_REASON_CSR_NAME, "CSR for another agent");

    make(f, f->key, FORGE_IDENTIFIER);
    att_buf_u8(&f->csr, 0);
    judge(f, key, &account, 1, VERIFY_REASON_MALFORMED, "a byte more");

    att_buf_reset(&f->csr);
    judge(f, key, &account, 1, VERIFY_REASON_MALFORMED, "nothing");
}

/* The last byte of the CSR is the last of the signature's s: any other value there is a signature
 * that does not hold. */
static void test_signature(void **state)
{
    struct fixture *f = *state;
    struct att_slice account = att_buf_slice(&f->account_spki);
    make(f, f->key, FORGE_IDENTIFIER);
    f->csr.ptr[f->csr.len - 1] ^= 1;
    judge(f, att_buf_slice(&f->spki), &account, 1, VERIFY_REASON_CSR_SIGNATURE, "bad signature");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_csr, setup, teardown),
        cmocka_unit_test_setup_teardown(test_signature, setup, teardown)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
