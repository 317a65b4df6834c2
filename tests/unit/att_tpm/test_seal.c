/* tpm/seal: sealed secrets come back only from their TPM and with their authValue. */
#include "tests/unit/att_tpm/common.h"
#include "tpm/seal.h"

static const uint8_t auth_s[] = {5, 0, 7};

static void refuses_what_cannot_be_sealed(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoblob blob = {0};
    uint8_t big[TPM_SEAL_MAX + 1] = {0}, zero_end[] = {1, 0};
    (void)state;
    assert_refused(tpm_seal_create(ctx, (struct att_slice){0}, (struct att_slice){0}, &blob, err),
                   ATT_E_INVAL, "");
    assert_refused(tpm_seal_create(ctx, ATT_SLICE_ARRAY(big), (struct att_slice){0}, &blob, err),
                   ATT_E_INVAL, "");
    assert_refused(tpm_seal_create(ctx, ATT_SLICE_LIT("x"), ATT_SLICE_ARRAY(zero_end), &blob, err),
                   ATT_E_INVAL, "");
    assert_int_equal(blob.priv.len, 0);
    tpm_context_free(ctx);
}

static void refuses_wrong_auth_and_kind(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoblob blob = {0}, key = {0};
    att_autosecret data = {0};
    (void)state;
    assert_ok(tpm_seal_create(ctx, ATT_SLICE_LIT("secret"), ATT_SLICE_ARRAY(auth_s), &blob, err));
    assert_refused(tpm_seal_open(ctx, &blob, ATT_SLICE_LIT("no"), &data, err), ATT_E_AUTH, "");
    assert_refused(tpm_seal_open(ctx, &blob, (struct att_slice){0}, &data, err), ATT_E_AUTH, "");
    create_key(ctx, &key);
    assert_refused(tpm_seal_open(ctx, &key, AUTH_A, &data, err), ATT_E_INVAL, "");
    assert_refused(tpm_key_load(ctx, &blob, err), ATT_E_INVAL, "");
    key.type = TPM_BLOB_SEALED; /* a lie does not help */
    assert_refused(tpm_seal_open(ctx, &key, AUTH_A, &data, err), ATT_E_INVAL, "");
    assert_null(data.ptr);
    assert_int_equal(count(ctx, TPM_HANDLES_TRANSIENT), 1);
    tpm_context_free(ctx);
}

static void refuses_on_another_tpm(void **state)
{
    struct swtpm other = {0};
    struct tpm_context *ctx = open_tpm(&the_tpm), *ctx2;
    tpm_autoblob blob = {0};
    att_autosecret data = {0};
    (void)state;
    assert_ok(tpm_seal_create(ctx, ATT_SLICE_LIT("secret"), (struct att_slice){0}, &blob, err));
    assert_true(blob.empty_auth);
    assert_ok(swtpm_new(&other, NULL, err));
    ctx2 = open_tpm(&other);
    assert_refused(tpm_seal_open(ctx2, &blob, (struct att_slice){0}, &data, err), ATT_E_DENIED,
                   "foreignParent");
    tpm_context_free(ctx2);
    swtpm_done(&other);
    blob.priv.ptr[40] ^= 1;
    assert_refused(tpm_seal_open(ctx, &blob, (struct att_slice){0}, &data, err), ATT_E_DENIED,
                   "blobIntegrity");
    tpm_context_free(ctx);
}

static void comes_back_after_a_reset(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    uint8_t secret[TPM_SEAL_MAX];
    (void)state;
    for (size_t len = 1; len <= TPM_SEAL_MAX; len += len < 4 ? 1 : 31) {
        tpm_autoblob blob = {0}, read = {0};
        att_autobuf pem = {0};
        att_autosecret data = {0};
        struct att_slice auth = len % 2 ? ATT_SLICE_ARRAY(auth_s) : (struct att_slice){0};
        memset(secret, 0, sizeof(secret)); /* zeros at its end belong to it */
        secret[0] = (uint8_t)len;
        assert_ok(tpm_seal_create(ctx, ATT_SLICE(secret, len), auth, &blob, err));
        assert_ok(tpm_tss2pem_encode(&blob, &pem, err));
        assert_ok(tpm_tss2pem_parse(att_buf_slice(&pem), &read, err));
        assert_int_equal(read.type, TPM_BLOB_SEALED);
        tpm_context_free(ctx);
        assert_ok(swtpm_reset(&the_tpm, err));
        ctx = open_tpm(&the_tpm);
        assert_ok(tpm_seal_open(ctx, &read, auth, &data, err));
        assert_true(att_slice_eq(att_secret_slice(&data), ATT_SLICE(secret, len)));
    }
    tpm_context_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_cannot_be_sealed),
        cmocka_unit_test(refuses_wrong_auth_and_kind),
        cmocka_unit_test(refuses_on_another_tpm),
        cmocka_unit_test(comes_back_after_a_reset),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
