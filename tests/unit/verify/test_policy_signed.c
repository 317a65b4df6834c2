/* Signed boot policies: who signed, whether the signature holds, and whether he may. */
#include "tests/unit/verify/boots.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

struct fixture {
    struct boot boot;
    json_t *json;
    struct att_buf text, envelope;
    EVP_PKEY *key;
    uint8_t signer[ATT_SHA256_LEN];
};

static void make(struct fixture *f, const char *curve)
{
    *f = (struct fixture){.boot = boot_ovmf(), .key = EVP_EC_gen(curve)};
    boot_finish(&f->boot, BOOT_PCRS);
    f->json = boot_draft(&f->boot, "ovmf");
    assert_int_equal(att_json_dump(f->json, false, &f->text, NULL), ATT_OK);
    struct att_err err = {0};
    if (verify_policy_sign(att_buf_slice(&f->text), f->key, &f->envelope, f->signer, &err)) {
        fail_msg("%s", err.msg);
    }
}

static void done(struct fixture *f)
{
    boot_done(&f->boot);
    json_decref(f->json);
    att_buf_done(&f->text);
    att_buf_done(&f->envelope);
    EVP_PKEY_free(f->key);
}

static struct verify_verdict *judge(const struct fixture *f, struct att_slice text,
                                    const uint8_t (*signers)[ATT_SHA256_LEN], size_t n)
{
    verify_autopolicy *policy = NULL;
    struct att_err err = {0};
    if (verify_policy_parse(text, &policy, &err)) {
        fail_msg("%s", err.msg);
    }
    struct verify_verdict *verdict = verify_verdict_new();
    const struct verify_policy_in in = {.policy = policy,
                                        .signers = signers,
                                        .n_signers = n,
                                        .now = FORGE_NOW,
                                        .quoted = &f->boot.pcrs};
    (void)!verify_policy_try(&in, &f->boot.logs, VERIFY_LOG_FIRMWARE, verdict);
    return verdict;
}

static void test_signed(void **state)
{
    (void)state;
    static const char *const curves[] = {"P-256", "P-384"};
    for (size_t i = 0; i < 2; i++) {
        struct fixture f;
        make(&f, curves[i]);
        uint8_t two[2][ATT_SHA256_LEN] = {{1}};
        memcpy(two[1], f.signer, ATT_SHA256_LEN);
        assert_good(judge(&f, att_buf_slice(&f.envelope), (const uint8_t(*)[ATT_SHA256_LEN])two, 2),
                    curves[i]);
        assert_good(judge(&f, att_buf_slice(&f.envelope), NULL, 0), "signed though nobody asks");

        verify_autoverdict *other =
            judge(&f, att_buf_slice(&f.envelope), (const uint8_t(*)[ATT_SHA256_LEN])two, 1);
        assert_refused(other, VERIFY_REASON_POLICY_SIGNER, "another key");
        assert_int_equal(other->n_findings, 0); /* what nobody answers for is not judged by */
        verify_autoverdict *bare =
            judge(&f, att_buf_slice(&f.text), (const uint8_t(*)[ATT_SHA256_LEN])two, 2);
        assert_refused(bare, VERIFY_REASON_POLICY_UNSIGNED, "unsigned");
        done(&f);
    }
}

/* Each member changed, each byte of the envelope: never another policy that counts as signed. */
static void test_tampered(void **state)
{
    (void)state;
    struct fixture f;
    make(&f, "P-256");
    verify_autopolicy *good = NULL;
    assert_int_equal(verify_policy_parse(att_buf_slice(&f.envelope), &good, NULL), ATT_OK);
    assert_true(good->is_signed);
    assert_memory_equal(good->signer, f.signer, ATT_SHA256_LEN);
    size_t accepted = 0;
    for (size_t i = 0; i<f.envelope.len; i += f.envelope.len> 4000 && i > 600 ? 37 : 1) {
        uint8_t saved = f.envelope.ptr[i];
        verify_autopolicy *policy = NULL;
        f.envelope.ptr[i] = saved == 'A' ? 'B' : 'A';
        if (!verify_policy_parse(att_buf_slice(&f.envelope), &policy, NULL)) {
            accepted++;
        }
        f.envelope.ptr[i] = saved;
    }
    assert_int_equal(accepted, 0);
    done(&f);
}

static void refused(const json_t *envelope, const char *says, const char *reason)
{
    att_autobuf text = {0};
    verify_autopolicy *policy = NULL;
    struct att_err err = {0};
    assert_int_equal(att_json_dump(envelope, false, &text, NULL), ATT_OK);
    assert_int_not_equal(verify_policy_parse(att_buf_slice(&text), &policy, &err), ATT_OK);
    if (!strstr(err.msg, says) || strcmp(err.reason, reason) != 0) {
        fail_msg("\"%s\" (%s) does not say \"%s\" (%s)", err.msg, err.reason, says, reason);
    }
}

static void set_header(json_t *envelope, const char *header)
{
    att_autobuf text = {0};
    att_buf_b64u(&text, att_slice_str(header));
    json_object_set_new(envelope, "protected", json_stringn((const char *)text.ptr, text.len));
}

static void test_envelopes(void **state)
{
    (void)state;
    struct fixture f, g;
    make(&f, "P-256");
    make(&g, "P-256");
    att_autojson *mine = NULL, *theirs = NULL;
    assert_int_equal(
        att_json_parse(att_buf_slice(&f.envelope), VERIFY_POLICY_SIGNED_MAX, &mine, NULL), ATT_OK);
    assert_int_equal(
        att_json_parse(att_buf_slice(&g.envelope), VERIFY_POLICY_SIGNED_MAX, &theirs, NULL),
        ATT_OK);
    /* My signature and key, the other's policy with another version. */
    att_autojson *swapped = json_deep_copy(mine);
    json_object_set_new(g.json, "version", json_integer(9));
    att_autobuf nine = {0}, nine64 = {0};
    assert_int_equal(att_json_dump(g.json, false, &nine, NULL), ATT_OK);
    att_buf_b64u(&nine64, att_buf_slice(&nine));
    json_object_set_new(swapped, "payload", json_stringn((const char *)nine64.ptr, nine64.len));
    refused(swapped, "the signature is not of this policy", "policySigner");
    /* The other's signature under my key. */
    att_autojson *signature = json_deep_copy(mine);
    json_object_set(signature, "signature", json_object_get(theirs, "signature"));
    refused(signature, "the signature is not of this policy", "policySigner");
    att_autojson *more = json_deep_copy(mine);
    json_object_set_new(more, "header", json_object());
    refused(more, "exactly protected, payload and signature", "");
    att_autojson *less = json_deep_copy(mine);
    json_object_del(less, "signature");
    json_object_set_new(less, "extra", json_integer(1));
    refused(less, "signature", "");
    att_autojson *header = json_deep_copy(mine);
    set_header(header, "{\"alg\":\"none\",\"typ\":\"attestd-policy\",\"spki\":\"\"}");
    refused(header, "P-256 key with ES256", "");
    set_header(header, "{\"alg\":\"ES256\",\"typ\":\"jwt\",\"spki\":\"\"}");
    refused(header, "exactly alg, typ", "");
    set_header(header, "{\"alg\":\"ES256\",\"typ\":\"attestd-policy\"}");
    refused(header, "exactly alg, typ", "");
    /* An envelope in an envelope. */
    att_autojson *nested = json_deep_copy(mine);
    att_autobuf inner = {0};
    att_buf_b64u(&inner, att_buf_slice(&f.envelope));
    json_object_set_new(nested, "payload", json_stringn((const char *)inner.ptr, inner.len));
    refused(nested, "signature", "policySigner");
    att_autobuf again = {0};
    uint8_t signer[ATT_SHA256_LEN];
    struct att_err err = {0};
    assert_int_equal(verify_policy_sign(att_buf_slice(&f.envelope), f.key, &again, signer, &err),
                     ATT_E_INVAL);
    assert_non_null(strstr(err.msg, "signed already"));
    done(&f);
    done(&g);
}

static void test_keys(void **state)
{
    (void)state;
    static const char policy[] = "{\"name\":\"a\"}";
    uint8_t signer[ATT_SHA256_LEN];
    att_autobuf text = {0};
    struct att_err err = {0};
    EVP_PKEY *rsa = EVP_RSA_gen(2048), *p521 = EVP_EC_gen("P-521"), *p256 = EVP_EC_gen("P-256");
    assert_int_equal(verify_policy_sign(att_slice_str(policy), rsa, &text, signer, &err),
                     ATT_E_INVAL);
    assert_non_null(strstr(err.msg, "P-256 or P-384"));
    assert_int_equal(verify_policy_sign(att_slice_str(policy), p521, &text, signer, NULL),
                     ATT_E_INVAL);
    att_err_clear(&err);
    /* What is no policy is not signed. */
    assert_int_equal(verify_policy_sign(att_slice_str(policy), p256, &text, signer, &err),
                     ATT_E_PARSE);
    assert_int_equal(text.len, 0);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(p521);
    EVP_PKEY_free(p256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signed), cmocka_unit_test(test_tampered),
        cmocka_unit_test(test_envelopes), cmocka_unit_test(test_keys)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
