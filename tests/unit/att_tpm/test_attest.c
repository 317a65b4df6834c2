/* tpm/ak, certify, quote: what the AK signs, verified from the outside; PCRs that do not stand
 * still. */
#include "attestd/base/io.h"
#include "tests/unit/att_tpm/common.h"
#include "tpm/ak.h"
#include "tpm/certify.h"
#include "tpm/parse/attest.h"
#include "tpm/quote.h"

#include <openssl/pem.h>

static void ak_public(struct tpm_context *ctx, struct tpm_ak *ret_ak, struct parse_public *ret_pub)
{
    assert_ok(tpm_ak_get(ctx, ret_ak, err));
    assert_ok(parse_public_parse(att_buf_slice(&ret_ak->pub), ret_pub, err));
    assert_ok(parse_public_check_ak(ret_pub, err));
}

static void extend(struct tpm_context *ctx, unsigned pcr, uint8_t with)
{
    uint8_t digest[32];
    memset(digest, with, sizeof(digest));
    assert_ok(tpm_quote_pcr_extend(ctx, pcr, PARSE_ALG_SHA256, ATT_SLICE_ARRAY(digest), err));
}

static void refuses_what_the_tpm_lacks(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    struct parse_pcr_sel sha384 = {PARSE_ALG_SHA384, 1}, empty = {PARSE_ALG_SHA256, 0},
                         beyond = {PARSE_ALG_SHA256, 1u << 24}, no_bank = {0x9999, 1},
                         good = {PARSE_ALG_SHA256, 1};
    struct parse_pcr_set values;
    tpm_autoquote quote = {0};
    uint8_t long_nonce[65] = {0}, digest[32] = {0};
    (void)state;
    assert_refused(tpm_quote_pcr_read(ctx, &sha384, &values, err), ATT_E_UNSUPPORTED,
                   "pcrSelection");
    assert_refused(tpm_quote_create(ctx, &sha384, ATT_SLICE_LIT("n"), &quote, err),
                   ATT_E_UNSUPPORTED, "pcrSelection");
    assert_refused(tpm_quote_create(ctx, &empty, ATT_SLICE_LIT("n"), &quote, err), ATT_E_INVAL, "");
    assert_refused(tpm_quote_create(ctx, &beyond, ATT_SLICE_LIT("n"), &quote, err), ATT_E_INVAL,
                   "");
    assert_refused(tpm_quote_create(ctx, &no_bank, ATT_SLICE_LIT("n"), &quote, err), ATT_E_INVAL,
                   "");
    assert_refused(tpm_quote_create(ctx, &good, ATT_SLICE_ARRAY(long_nonce), &quote, err),
                   ATT_E_LIMIT, "");
    assert_refused(tpm_quote_pcr_extend(ctx, 24, PARSE_ALG_SHA256, ATT_SLICE_ARRAY(digest), err),
                   ATT_E_INVAL, "");
    assert_refused(tpm_quote_pcr_extend(ctx, 16, PARSE_ALG_SHA384, ATT_SLICE_ARRAY(digest), err),
                   ATT_E_INVAL, "");
    assert_int_equal(quote.attest.len, 0);
    tpm_context_free(ctx);
}

static void refuses_to_certify_without_the_auth(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoblob blob = {0};
    tpm_autocertify certify = {0};
    uint8_t wrong[32] = {1, [31] = 1}, long_nonce[65] = {0};
    (void)state;
    create_key(ctx, &blob);
    assert_refused(
        tpm_certify_create(ctx, &blob, ATT_SLICE_ARRAY(wrong), ATT_SLICE_LIT("n"), &certify, err),
        ATT_E_AUTH, "");
    assert_refused(
        tpm_certify_create(ctx, &blob, AUTH_A, ATT_SLICE_ARRAY(long_nonce), &certify, err),
        ATT_E_LIMIT, "");
    assert_int_equal(certify.attest.len, 0);
    blob.type = TPM_BLOB_SEALED;
    assert_refused(tpm_certify_create(ctx, &blob, AUTH_A, ATT_SLICE_LIT("n"), &certify, err),
                   ATT_E_INVAL, "");
    tpm_context_free(ctx);
}

static void certifies_a_key(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoblob blob = {0};
    tpm_autocertify certify = {0};
    tpm_autoak ak = {0};
    struct parse_public ak_pub;
    struct parse_attest attest;
    struct parse_name key_name, srk, chain[2], qualified;
    (void)state;
    create_key(ctx, &blob);
    ak_public(ctx, &ak, &ak_pub);
    assert_ok(tpm_certify_create(ctx, &blob, AUTH_A, ATT_SLICE_LIT("nonce"), &certify, err));
    assert_ok(parse_attest_certify(att_buf_slice(&certify.attest), &attest, err));
    assert_true(att_slice_eq_str(attest.extra_data, "nonce"));
    assert_ok(tpm_blob_name(&blob, &key_name, err));
    assert_true(att_slice_eq(attest.u.certify.name, parse_name_slice(&key_name)));
    /* where it lives: SRK, key */
    assert_ok(tpm_context_srk(ctx, NULL, &srk, NULL, err));
    chain[0] = srk;
    chain[1] = key_name;
    assert_ok(parse_name_qualified(PARSE_RH_OWNER, chain, 2, &qualified, err));
    assert_true(att_slice_eq(attest.u.certify.qualified_name, parse_name_slice(&qualified)));
    assert_true(att_slice_eq(attest.qualified_signer, parse_name_slice(&ak.qualified_name)));
    assert_ok(parse_sig_verify(&ak_pub, att_buf_slice(&certify.sig), att_buf_slice(&certify.attest),
                               err));
    /* an endorsement primary sees the real firmware version */
    struct tpm_info info;
    assert_ok(tpm_context_info(ctx, &info, err));
    assert_true(attest.firmware_version == info.firmware_version);
    certify.attest.ptr[certify.attest.len - 1] ^= 1;
    assert_refused(
        parse_sig_verify(&ak_pub, att_buf_slice(&certify.sig), att_buf_slice(&certify.attest), err),
        ATT_E_AUTH, "");
    tpm_context_free(ctx);
}

static void quotes_many_pcrs(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    struct parse_pcr_sel sel = {PARSE_ALG_SHA256, 0xffffff};
    tpm_autoquote quote = {0};
    tpm_autoak ak = {0};
    struct parse_public ak_pub;
    struct parse_attest attest;
    uint8_t raw[PARSE_PCR_RAW_LEN], digest[PARSE_DIGEST_MAX];
    size_t len = 0;
    (void)state;
    extend(ctx, 3, 0xaa);
    extend(ctx, 16, 0xbb);
    ak_public(ctx, &ak, &ak_pub);
    assert_ok(tpm_quote_create(ctx, &sel, ATT_SLICE_LIT("n1"), &quote, err));
    assert_ok(parse_attest_quote(att_buf_slice(&quote.attest), &attest, err));
    assert_ok(parse_pcr_sel_raw(&sel, raw, err));
    assert_true(att_slice_eq(attest.u.quote.pcr_select, ATT_SLICE_ARRAY(raw)));
    assert_ok(parse_pcr_set_digest(&quote.values, PARSE_ALG_SHA256, digest, &len, err));
    assert_true(att_slice_eq(attest.u.quote.pcr_digest, ATT_SLICE(digest, len)));
    assert_ok(
        parse_sig_verify(&ak_pub, att_buf_slice(&quote.sig), att_buf_slice(&quote.attest), err));
    /* PCR 3 as computed here; 17 starts at all ones */
    uint8_t want[32], zeros[32] = {0}, with[32];
    memset(with, 0xaa, 32);
    struct att_slice parts[] = {ATT_SLICE_ARRAY(zeros), ATT_SLICE_ARRAY(with)};
    att_sha256_v(want, parts, 2);
    assert_memory_equal(quote.values.value[3], want, 32);
    memset(want, 0xff, 32);
    assert_memory_equal(quote.values.value[17], want, 32);
    tpm_context_free(ctx);
}

/* A second opinion on good evidence. */
static void tpm2_checkquote_accepts_it(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    struct parse_pcr_sel sel = {PARSE_ALG_SHA256, 0x88};
    tpm_autoquote quote = {0};
    tpm_autoak ak = {0};
    struct parse_public ak_pub;
    EVP_PKEY *pkey = NULL;
    att_autobuf values = {0};
    char path[SWTPM_PATH + 32];
    (void)state;
    ak_public(ctx, &ak, &ak_pub);
    assert_ok(tpm_quote_create(ctx, &sel, ATT_SLICE_LIT("\x01\x02\x03"), &quote, err));
    assert_ok(parse_pcr_set_values(&quote.values, &values, err));
    (void)snprintf(path, sizeof(path), "%s/q.msg", the_tpm.dir);
    assert_ok(att_io_write_file(path, att_buf_slice(&quote.attest), 0600, err));
    (void)snprintf(path, sizeof(path), "%s/q.sig", the_tpm.dir);
    assert_ok(att_io_write_file(path, att_buf_slice(&quote.sig), 0600, err));
    assert_ok(parse_public_pkey(&ak_pub, &pkey, err));
    (void)snprintf(path, sizeof(path), "%s/ak.pem", the_tpm.dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_PUBKEY(file, pkey), 1);
    (void)fclose(file);
    EVP_PKEY_free(pkey);
    tpm_context_free(ctx);
    assert_int_equal(swtpm_sh(&the_tpm, "tpm2_checkquote -u ak.pem -m q.msg -s q.sig -q 010203"),
                     0);
    assert_int_not_equal(
        swtpm_sh(&the_tpm, "tpm2_checkquote -u ak.pem -m q.msg -s q.sig -q 010204 2>/dev/null"), 0);
}

static void the_ak_comes_back(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoak ak1 = {0}, ak2 = {0}, ak3 = {0};
    struct tpm_options options = {
        .tcti = the_tpm.tcti, .ak_handle = 0x81010a00, .ak_persist = true};
    tpm_autoquote quote = {0};
    struct parse_pcr_sel sel = {PARSE_ALG_SHA256, 1};
    (void)state;
    assert_ok(tpm_ak_get(ctx, &ak1, err));
    tpm_context_free(ctx);
    assert_ok(swtpm_reset(&the_tpm, err));
    /* at a persistent handle: stored by the first use, found by the second */
    for (unsigned i = 0; i < 2; i++) {
        assert_ok(tpm_context_open(&options, &ctx, err));
        tpm_ak_done(&ak2);
        ak2 = (struct tpm_ak){0};
        assert_ok(tpm_ak_get(ctx, &ak2, err));
        assert_true(att_slice_eq(parse_name_slice(&ak1.name), parse_name_slice(&ak2.name)));
        assert_int_equal(count(ctx, TPM_HANDLES_TRANSIENT), 0);
        assert_ok(tpm_quote_create(ctx, &sel, ATT_SLICE_LIT("n"), &quote, err));
        tpm_quote_done(&quote);
        quote = (struct tpm_quote){0};
        tpm_context_free(ctx);
    }
    /* what is there and is no AK of ours is refused, not replaced */
    options.ak_handle = 0x81010016; /* the P-384 EK */
    assert_ok(tpm_context_open(&options, &ctx, err));
    assert_refused(tpm_ak_get(ctx, &ak3, err), ATT_E_DENIED, "akAttributes");
    tpm_context_free(ctx);
    /* the same template under the owner hierarchy is no endorsement primary */
    assert_int_equal(
        swtpm_sh(&the_tpm,
                 "tpm2_createprimary -C o -g sha256 -G ecc256:ecdsa-sha256:null -c o.ctx -a "
                 "'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign|noda'\n"
                 "tpm2_evictcontrol -C o -c o.ctx 0x81000a01; tpm2_flushcontext -t"),
        0);
    options.ak_handle = 0x81000a01;
    assert_ok(tpm_context_open(&options, &ctx, err));
    assert_refused(tpm_ak_get(ctx, &ak3, err), ATT_E_DENIED, "akHierarchy");
    tpm_context_free(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_the_tpm_lacks),
        cmocka_unit_test(refuses_to_certify_without_the_auth),
        cmocka_unit_test(certifies_a_key),
        cmocka_unit_test(quotes_many_pcrs),
        cmocka_unit_test(tpm2_checkquote_accepts_it),
        cmocka_unit_test(the_ak_comes_back),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
