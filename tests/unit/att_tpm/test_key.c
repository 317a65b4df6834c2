/* tpm/key on a real TPM: create, load, sign, the cache, and every way in which it is refused. */
#include "tests/unit/att_tpm/common.h"
#include "tpm/internal.h"
#include "attestd/base/io.h"
#include "tpm/session.h"

#include <time.h>

/* ---- refusals ------------------------------------------------------------------------------- */

static void refuses_bad_auth_values(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoblob blob = {0};
    uint8_t bad[TPM_KEY_AUTH_LEN] = {1};
    (void)state;
    assert_refused(tpm_key_create(ctx, ATT_SLICE_ARRAY(bad), &blob, err), ATT_E_INVAL, "");
    assert_refused(tpm_key_create(ctx, ATT_SLICE(auth_a, 31), &blob, err), ATT_E_INVAL, "");
    assert_refused(tpm_key_create(ctx, (struct att_slice){0}, &blob, err), ATT_E_INVAL, "");
    assert_int_equal(blob.pub.len, 0);
    tpm_context_free(ctx);
}

static void refuses_wrong_auth(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoblob blob = {0};
    uint8_t wrong[TPM_KEY_AUTH_LEN], digest[32] = {1};
    struct tpm_signature sig = {.der_len = 77};
    struct tpm_info before, after;
    (void)state;
    create_key(ctx, &blob);
    memcpy(wrong, auth_a, sizeof(wrong));
    wrong[0] ^= 1;
    assert_ok(tpm_context_info(ctx, &before, err));
    assert_refused(tpm_key_sign(ctx, &blob, ATT_SLICE_ARRAY(wrong), digest, &sig, err), ATT_E_AUTH,
                   "");
    assert_refused(tpm_key_sign(ctx, &blob, (struct att_slice){0}, digest, &sig, err), ATT_E_AUTH,
                   "");
    assert_int_equal(sig.der_len, 77);
    /* noDA: it does not count towards a lockout. */
    assert_ok(tpm_context_info(ctx, &after, err));
    assert_int_equal(after.lockout_counter, before.lockout_counter);
    /* The wrong value is not kept with the loaded key. */
    assert_true(signs(ctx, &blob));
    tpm_context_free(ctx);
}

static void refuses_altered_blob(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoblob blob = {0};
    (void)state;
    create_key(ctx, &blob);
    blob.priv.ptr[blob.priv.len - 1] ^= 1;
    assert_refused(tpm_key_load(ctx, &blob, err), ATT_E_DENIED, "blobIntegrity");
    blob.priv.ptr[blob.priv.len - 1] ^= 1;
    /* Another public area: the TPM binds both parts. */
    blob.pub.ptr[blob.pub.len - 1] ^= 1;
    assert_refused(tpm_key_load(ctx, &blob, err), ATT_E_DENIED, "blobIntegrity");
    tpm_context_free(ctx);
}

static void refuses_foreign_tpm(void **state)
{
    struct swtpm other = {0};
    struct tpm_context *ctx = open_tpm(&the_tpm), *ctx2;
    tpm_autoblob blob = {0};
    (void)state;
    create_key(ctx, &blob);
    assert_ok(swtpm_new(&other, NULL, err));
    ctx2 = open_tpm(&other);
    assert_refused(tpm_key_load(ctx2, &blob, err), ATT_E_DENIED, "foreignParent");
    /* The same from the TPM itself when the parent's Name is not recorded. */
    blob.parent_name.len = 0;
    assert_refused(tpm_key_load(ctx2, &blob, err), ATT_E_DENIED, "foreignParent");
    assert_true(signs(ctx, &blob));
    tpm_context_free(ctx2);
    swtpm_done(&other);
    tpm_context_free(ctx);
}

static void refuses_after_clear(void **state)
{
    struct swtpm tpm = {0};
    struct tpm_context *ctx;
    tpm_autoblob blob = {0};
    struct tpm_clock before, after;
    (void)state;
    assert_ok(swtpm_new(&tpm, NULL, err));
    ctx = open_tpm(&tpm);
    create_key(ctx, &blob);
    assert_true(signs(ctx, &blob));
    assert_ok(tpm_context_clock(ctx, &before, err));
    tpm_context_free(ctx);
    assert_int_equal(swtpm_tool(&tpm, (const char *const[]){"tpm2_clear", "-c", "p", NULL}), 0);
    ctx = open_tpm(&tpm);
    assert_refused(tpm_key_load(ctx, &blob, err), ATT_E_DENIED, "foreignParent");
    assert_ok(tpm_context_clock(ctx, &after, err));
    assert_int_equal(after.reset_count, 0);
    assert_true(after.clock_ms < before.clock_ms + 60000);
    tpm_context_free(ctx);
    swtpm_done(&tpm);
}

static void maps_lockout(void **state)
{
    struct swtpm tpm = {0};
    struct tpm_context *ctx;
    tpm_autoblob blob = {0};
    att_autobuf file = {0};
    char path[SWTPM_PATH + 32];
    uint8_t digest[32] = {1};
    struct tpm_signature sig;
    struct tpm_info info;
    (void)state;
    assert_ok(swtpm_new(&tpm, NULL, err));
    /* A key that is protected against guessing, unlike ours. */
    assert_int_equal(
        swtpm_sh(&tpm, "tpm2_dictionarylockout -s -n 2 -t 1000 -l 1000\n"
                       "tpm2_createprimary -C o -g sha256 -G ecc -c p.ctx -a "
                       "'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt|"
                       "noda'\n"
                       "tpm2_create -C p.ctx -G ecc:null -p secret -u k.pub -r k.priv -a "
                       "'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign'\n"
                       "tpm2_flushcontext -t\n"),
        0);
    blob.type = TPM_BLOB_KEY;
    blob.parent_handle = 0x40000001;
    (void)snprintf(path, sizeof(path), "%s/k.pub", tpm.dir);
    assert_ok(att_io_read_file(path, 4096, &file, err));
    att_buf_put(&blob.pub, file.ptr + 2, file.len - 2);
    att_buf_reset(&file);
    (void)snprintf(path, sizeof(path), "%s/k.priv", tpm.dir);
    assert_ok(att_io_read_file(path, 4096, &file, err));
    att_buf_put(&blob.priv, file.ptr + 2, file.len - 2);
    ctx = open_tpm(&tpm);
    assert_refused(tpm_key_sign(ctx, &blob, AUTH_A, digest, &sig, err), ATT_E_AUTH, "");
    assert_refused(tpm_key_sign(ctx, &blob, AUTH_A, digest, &sig, err), ATT_E_AUTH, "");
    assert_refused(tpm_key_sign(ctx, &blob, AUTH_A, digest, &sig, err), ATT_E_LOCKOUT, "");
    assert_refused(tpm_key_sign(ctx, &blob, ATT_SLICE_LIT("secret"), digest, &sig, err),
                   ATT_E_LOCKOUT, "");
    assert_ok(tpm_context_info(ctx, &info, err));
    assert_true(info.in_lockout);
    assert_int_equal(info.lockout_counter, 2);
    assert_int_equal(info.lockout_max, 2);
    tpm_blob_done(&blob);
    /* Ours are noDA and work on. */
    create_key(ctx, &blob);
    assert_true(signs(ctx, &blob));
    tpm_context_free(ctx);
    swtpm_done(&tpm);
}

static void derive_refuses_and_never_ends_in_zero(void **state)
{
    uint8_t a[TPM_KEY_AUTH_LEN], b[TPM_KEY_AUTH_LEN];
    static const uint8_t secret[32] = {7};
    size_t skipped = 0;
    (void)state;
    assert_refused(tpm_key_auth_derive(ATT_SLICE(secret, 15), ATT_SLICE_LIT("x"), a, err),
                   ATT_E_INVAL, "");
    assert_refused(tpm_key_auth_derive(ATT_SLICE_ARRAY(secret), (struct att_slice){0}, a, err),
                   ATT_E_INVAL, "");
    for (unsigned i = 0; i < 2000; i++) {
        uint8_t id[4] = {1, 2, (uint8_t)(i >> 8), (uint8_t)i};
        uint8_t plain[TPM_KEY_AUTH_LEN];
        att_autobuf info = {0};
        att_buf_put_str(&info, "attestd-key-auth/1");
        att_buf_u8(&info, 0);
        att_buf_put(&info, id, sizeof(id));
        assert_ok(att_hkdf_sha256(plain, sizeof(plain), ATT_SLICE_ARRAY(secret),
                                  (struct att_slice){0}, att_buf_slice(&info), err));
        assert_ok(tpm_key_auth_derive(ATT_SLICE_ARRAY(secret), ATT_SLICE_ARRAY(id), a, err));
        assert_ok(tpm_key_auth_derive(ATT_SLICE_ARRAY(secret), ATT_SLICE_ARRAY(id), b, err));
        assert_memory_equal(a, b, sizeof(a));
        assert_int_not_equal(a[TPM_KEY_AUTH_LEN - 1], 0);
        if (plain[TPM_KEY_AUTH_LEN - 1] == 0) {
            skipped++;
            assert_memory_not_equal(a, plain, sizeof(a));
        } else {
            assert_memory_equal(a, plain, sizeof(a));
        }
    }
    assert_true(skipped > 0); /* 2000/256 expected: the case did occur */
}

/* ---- what works ----------------------------------------------------------------------------- */

static void creates_and_signs(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoblob blob = {0};
    struct parse_public pub;
    uint8_t digest[32];
    struct tpm_signature sig;
    (void)state;
    create_key(ctx, &blob);
    assert_ok(parse_public_parse(att_buf_slice(&blob.pub), &pub, err));
    assert_ok(parse_public_check_agent(&pub, err));
    assert_int_equal(pub.attrs, PARSE_OA_FIXED_TPM | PARSE_OA_FIXED_PARENT |
                                    PARSE_OA_SENSITIVE_DATA_ORIGIN | PARSE_OA_USER_WITH_AUTH |
                                    PARSE_OA_NO_DA | PARSE_OA_SIGN);
    assert_false(blob.empty_auth);
    /* Nothing of it stays in the TPM (SRK only). */
    assert_int_equal(count(ctx, TPM_HANDLES_TRANSIENT), 1);
    for (unsigned i = 0; i < 300; i++) { /* short r and s occur among them */
        uint8_t n = (uint8_t)i;
        att_sha256(digest, ATT_SLICE(&n, 1));
        assert_ok(tpm_key_sign(ctx, &blob, AUTH_A, digest, &sig, err));
        assert_true(verifies(&blob, digest, &sig));
        digest[0] ^= 1;
        assert_false(verifies(&blob, digest, &sig));
        /* raw and DER are the same numbers */
        att_autobuf tpmt = {0};
        assert_ok(parse_sig_from_der(PARSE_ALG_ECDSA, PARSE_ALG_SHA256,
                                     ATT_SLICE(sig.der, sig.der_len), &tpmt, err));
        struct parse_sig parsed;
        assert_ok(parse_sig_parse(att_buf_slice(&tpmt), &parsed, err));
        uint8_t raw[64] = {0};
        memcpy(raw + 32 - parsed.r.len, parsed.r.ptr, parsed.r.len);
        memcpy(raw + 64 - parsed.s.len, parsed.s.ptr, parsed.s.len);
        assert_memory_equal(raw, sig.raw, 64);
    }
    tpm_context_free(ctx);
}

static void keys_survive_a_reset(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoblob blob = {0};
    struct tpm_clock before, after;
    (void)state;
    create_key(ctx, &blob);
    assert_true(signs(ctx, &blob));
    assert_ok(tpm_context_clock(ctx, &before, err));
    assert_ok(swtpm_reset(&the_tpm, err));
    uint8_t digest[32] = {0};
    struct tpm_signature sig;
    assert_refused(tpm_key_sign(ctx, &blob, AUTH_A, digest, &sig, err), ATT_E_GONE, "");
    assert_false(tpm_context_alive(ctx));
    assert_refused(tpm_key_sign(ctx, &blob, AUTH_A, digest, &sig, err), ATT_E_GONE, "");
    assert_int_equal(tpm_context_generation(ctx), 1);
    assert_ok(tpm_context_reopen(ctx, err));
    assert_int_equal(tpm_context_generation(ctx), 2);
    assert_true(signs(ctx, &blob));
    assert_ok(tpm_context_clock(ctx, &after, err));
    assert_int_equal(after.reset_count, before.reset_count + 1);
    tpm_context_free(ctx);
}

static void caches_keys_and_evicts(void **state)
{
    struct tpm_context *ctx = NULL;
    struct tpm_options options = {.tcti = the_tpm.tcti, .cache_slots = 3};
    struct tpm_blob blobs[5] = {0};
    struct tpm_cache_stats stats;
    (void)state;
    assert_ok(tpm_context_open(&options, &ctx, err));
    for (size_t i = 0; i < 5; i++) {
        create_key(ctx, &blobs[i]);
    }
    /* Three slots wanted, while the TPM has three in all and the SRK needs one: what does not fit
     * is made to fit, and every key goes on signing. */
    for (unsigned round = 0; round < 3; round++) {
        for (size_t i = 0; i < 5; i++) {
            assert_true(signs(ctx, &blobs[i]));
        }
    }
    tpm_key_cache_stats(ctx, &stats);
    assert_int_equal(stats.misses, 15);
    assert_int_equal(stats.restores, 10); /* of the second and third round: none was loaded anew */
    assert_true(stats.evictions >= 12);
    assert_true(stats.used <= 3);
    /* The most recently used is still there. */
    assert_true(signs(ctx, &blobs[4]));
    struct tpm_cache_stats again;
    tpm_key_cache_stats(ctx, &again);
    assert_int_equal(again.hits, stats.hits + 1);
    assert_int_equal(again.misses, stats.misses);
    tpm_key_evict(ctx, &blobs[4]);
    assert_true(signs(ctx, &blobs[4]));
    tpm_key_cache_stats(ctx, &again);
    assert_int_equal(again.misses, stats.misses + 1);
    assert_int_equal(again.restores, stats.restores); /* what was evicted is forgotten altogether */
    tpm_context_free(ctx);
    /* Freed: nothing of ours stays. */
    ctx = open_tpm(&the_tpm);
    assert_int_equal(count(ctx, TPM_HANDLES_TRANSIENT), 0);
    assert_int_equal(count(ctx, TPM_HANDLES_LOADED_SESSION), 0);
    tpm_context_free(ctx);
    for (size_t i = 0; i < 5; i++) {
        tpm_blob_done(&blobs[i]);
    }
}

/* A saved context that the TPM does not take (another one's, or one from before a reset) is no
 * failure: the blob is there. */
static void a_saved_context_that_is_refused_is_loaded_anew(void **state)
{
    struct tpm_context *ctx = NULL;
    struct tpm_options options = {.tcti = the_tpm.tcti, .cache_slots = 1};
    struct tpm_blob blobs[2] = {0};
    struct tpm_cache_stats stats;
    (void)state;
    assert_ok(tpm_context_open(&options, &ctx, err));
    create_key(ctx, &blobs[0]);
    create_key(ctx, &blobs[1]);
    for (int round = 0; round < 2; round++) {
        assert_true(signs(ctx, &blobs[0]));
        assert_true(signs(ctx, &blobs[1]));
    }
    tpm_key_cache_stats(ctx, &stats);
    assert_int_equal(stats.restores, 2);
    size_t altered = 0;
    for (size_t i = 0; i < TPM_SAVED_MAX; i++) {
        struct att_buf *bytes = &ctx->saved[i].bytes;
        if (bytes->len != 0) {
            bytes->ptr[40] ^= 1; /* in what the TPM encrypted */
            altered++;
        }
    }
    assert_int_equal(altered, 2);
    assert_true(signs(ctx, &blobs[0]));
    assert_true(signs(ctx, &blobs[1]));
    tpm_key_cache_stats(ctx, &stats);
    assert_int_equal(stats.restores, 2);
    assert_true(signs(ctx, &blobs[0])); /* saved again */
    tpm_key_cache_stats(ctx, &stats);
    assert_int_equal(stats.restores, 3);
    /* After a reset none is tried, and none of the old ones is there. */
    assert_ok(swtpm_reset(&the_tpm, err));
    assert_false(signs(ctx, &blobs[0]));
    assert_ok(tpm_context_reopen(ctx, err));
    for (size_t i = 0; i < TPM_SAVED_MAX; i++) {
        assert_int_equal(ctx->saved[i].bytes.len, 0);
    }
    assert_true(signs(ctx, &blobs[0]));
    tpm_key_cache_stats(ctx, &stats);
    assert_int_equal(stats.restores, 3);
    tpm_context_free(ctx);
    tpm_blob_done(&blobs[0]);
    tpm_blob_done(&blobs[1]);
}

/* More keys than contexts are kept: every key goes on signing, the oldest context gives way. */
static void so_many_contexts_are_kept(void **state)
{
    enum { KEYS = TPM_SAVED_MAX + 2 };
    struct tpm_context *ctx = NULL;
    struct tpm_options options = {.tcti = the_tpm.tcti, .cache_slots = 1};
    static struct tpm_blob blobs[KEYS];
    struct tpm_cache_stats stats;
    (void)state;
    assert_ok(tpm_context_open(&options, &ctx, err));
    for (size_t i = 0; i < KEYS; i++) {
        create_key(ctx, &blobs[i]);
        assert_true(signs(ctx, &blobs[i]));
    }
    tpm_key_cache_stats(ctx, &stats);
    assert_int_equal(stats.restores, 0);
    assert_true(signs(ctx, &blobs[0])); /* its context had to go for the last but one's */
    tpm_key_cache_stats(ctx, &stats);
    assert_int_equal(stats.restores, 0);
    assert_true(signs(ctx, &blobs[KEYS - 2]));
    tpm_key_cache_stats(ctx, &stats);
    assert_int_equal(stats.restores, 1);
    tpm_context_free(ctx);
    for (size_t i = 0; i < KEYS; i++) {
        tpm_blob_done(&blobs[i]);
    }
}

static void failing_operations_leak_nothing(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoblob blob = {0}, altered = {0};
    uint8_t wrong[TPM_KEY_AUTH_LEN] = {9, [31] = 1}, digest[32] = {0};
    struct tpm_signature sig;
    (void)state;
    create_key(ctx, &blob);
    create_key(ctx, &altered);
    altered.priv.ptr[10] ^= 1;
    assert_true(signs(ctx, &blob));
    size_t objects = count(ctx, TPM_HANDLES_TRANSIENT);
    for (unsigned i = 0; i < 10000; i++) {
        if (i % 100 == 0) {
            assert_int_equal(tpm_key_load(ctx, &altered, NULL), ATT_E_DENIED);
        } else {
            assert_int_equal(tpm_key_sign(ctx, &blob, ATT_SLICE_ARRAY(wrong), digest, &sig, NULL),
                             ATT_E_AUTH);
        }
        if (i % 50 == 0) {
            assert_true(count(ctx, TPM_HANDLES_TRANSIENT) <= objects + 1);
            assert_int_equal(count(ctx, TPM_HANDLES_LOADED_SESSION), 1);
        }
    }
    assert_int_equal(count(ctx, TPM_HANDLES_LOADED_SESSION), 1);
    assert_int_equal(count(ctx, TPM_HANDLES_SAVED_SESSION), 0);
    assert_true(signs(ctx, &blob));
    tpm_context_free(ctx);
}

static void session_is_reused_and_renewed(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoblob blob = {0};
    (void)state;
    create_key(ctx, &blob);
    uint64_t started = tpm_session_started(ctx);
    for (unsigned i = 0; i < 10; i++) {
        assert_true(signs(ctx, &blob));
    }
    assert_int_equal(tpm_session_started(ctx), started);
    tpm_session_set_limits(ctx, 1, 0);
    for (unsigned i = 0; i < 10; i++) {
        assert_true(signs(ctx, &blob));
    }
    assert_int_equal(tpm_session_started(ctx), started + 10);
    assert_int_equal(count(ctx, TPM_HANDLES_LOADED_SESSION), 1);
    tpm_session_set_limits(ctx, 0, 1);
    struct timespec pause = {.tv_nsec = 5000000};
    (void)nanosleep(&pause, NULL);
    tpm_session_idle(ctx);
    assert_int_equal(count(ctx, TPM_HANDLES_LOADED_SESSION), 0);
    assert_true(signs(ctx, &blob));
    tpm_context_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_bad_auth_values),
        cmocka_unit_test(refuses_wrong_auth),
        cmocka_unit_test(refuses_altered_blob),
        cmocka_unit_test(refuses_foreign_tpm),
        cmocka_unit_test(refuses_after_clear),
        cmocka_unit_test(maps_lockout),
        cmocka_unit_test(derive_refuses_and_never_ends_in_zero),
        cmocka_unit_test(creates_and_signs),
        cmocka_unit_test(keys_survive_a_reset),
        cmocka_unit_test(caches_keys_and_evicts),
        cmocka_unit_test(a_saved_context_that_is_refused_is_loaded_anew),
        cmocka_unit_test(so_many_contexts_are_kept),
        cmocka_unit_test(failing_operations_leak_nothing),
        cmocka_unit_test(session_is_reused_and_renewed),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
