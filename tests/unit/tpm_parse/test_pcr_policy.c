/* Signed PCR policies: what is refused, by member; what an edit, a cut or another key does. */
#include "vectors.h"

#include "tpm/parse/pcr_policy.h"

#include <openssl/ec.h>
#include <openssl/rsa.h>

static EVP_PKEY *key_of_policy;
static struct parse_public pub;
static struct att_buf good; /* the text of a signed policy with two boots */

static struct parse_pcr_set pcrs(uint32_t mask, uint8_t with)
{
    struct parse_pcr_set set = {.sel = {PARSE_ALG_SHA256, mask}, .digest_len = 32};
    for (unsigned i = 0; i < PARSE_PCR_COUNT; i++) {
        if (mask & 1u << i) {
            memset(set.value[i], with + (int)i, 32);
        }
    }
    return set;
}

static struct parse_pcr_boot two_boots[2];

static struct parse_pcr_policy sample(void)
{
    two_boots[0] = (struct parse_pcr_boot){.label = "linux-6.1", .pcrs = pcrs(0x95, 1)};
    two_boots[1] = (struct parse_pcr_boot){.label = "linux-6.12", .pcrs = pcrs(0x80, 9)};
    return (struct parse_pcr_policy){.name = "web",
                                     .version = 7,
                                     .ref = "bank.example/boot",
                                     .counter = PARSE_SEAL_COUNTER_DEFAULT,
                                     .not_before = 1700000000,
                                     .not_after = 1800000000,
                                     .n_boots = 2,
                                     .boots = two_boots};
}

static int setup(void **state)
{
    struct parse_pcr_policy policy = sample();
    (void)state;
    key_of_policy = EVP_EC_gen("P-256");
    return !key_of_policy || parse_seal_policy_key(key_of_policy, &pub, NULL) != ATT_OK ||
           parse_pcr_policy_sign(&policy, key_of_policy, &good, NULL) != ATT_OK;
}

static int teardown(void **state)
{
    (void)state;
    EVP_PKEY_free(key_of_policy);
    att_buf_done(&good);
    return 0;
}

static json_t *good_json(void)
{
    json_t *json = json_loadb((const char *)good.ptr, good.len, 0, NULL);
    assert_non_null(json);
    return json;
}

static enum att_rc parse_json(json_t *json, struct parse_pcr_policy **ret, struct att_err *err)
{
    char *text = json_dumps(json, JSON_ENCODE_ANY);
    assert_non_null(text);
    json_decref(json);
    enum att_rc rc = parse_pcr_policy_parse(att_slice_str(text), ret, err);
    free(text);
    return rc;
}

static void forms_that_are_refused(void **state)
{
    static const char sig[] = "1111111111111111111111111111111111111111111111111111111111111111"
                              "1111111111111111111111111111111111111111111111111111111111111111";
    const struct {
        const char *member, *value, *says; /* value: JSON; NULL: the member is taken out */
    } bad[] = {
        {"format", NULL, "format"},
        {"format", "\"attestd-pcr-policy/2\"", "format"},
        {"name", NULL, "name"},
        {"name", "\"\"", "name"},
        {"name", "\"Web\"", "name"},
        {"version", NULL, "version"},
        {"version", "0", "version"},
        {"version", "-1", "version"},
        {"version", "4294967296", "version"},
        {"version", "\"7\"", "version"},
        {"version", "7.0", "version"},
        {"policyRef", NULL, "policyRef"},
        {"policyRef", "\"123456789012345678901234567890123\"", "policyRef"},
        {"policyRef", "\"a b\"", "policyRef"},
        {"policyKey", NULL, "policyKey"},
        {"policyKey", "\"000b\"", "policyKey"},
        {"counter", "\"0x01c00002\"", "counter"},
        {"counter", "\"0x1804154\"", "counter"},
        {"counter", "25182548", "counter"},
        {"notBefore", "\"2030-01-01\"", "notBefore"},
        {"notBefore", "\"2027-01-15T08:00:00Z\"", "notAfter is not after"},
        {"notAfter", "1800000000", "notAfter"},
        {"recovery", "true", "recovery"},
        {"recovery", "{}", "resetCount"},
        {"recovery", "{\"resetCount\":1}", "looks at no counter"},
        {"boots", NULL, "boots"},
        {"boots", "[]", "boots"},
        {"boots", "[7]", "boots"},
        {"boots", "[{\"label\":\"a\",\"pcrs\":{\"sha256\":{}},\"approval\":\"00\"}]", "pcrs"},
        {"signature", NULL, "signature"},
        {"signature", "\"00\"", "signature"},
        {"extra", "1", "unknown member \"extra\""},
        {"comment", "\"x\"", "unknown member"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct att_err err = {0};
        struct parse_pcr_policy *policy = NULL;
        json_t *json = good_json();
        if (bad[i].value) {
            json_object_set_new(json, bad[i].member,
                                json_loads(bad[i].value, JSON_DECODE_ANY, NULL));
        } else {
            json_object_del(json, bad[i].member);
        }
        enum att_rc rc = parse_json(json, &policy, &err);
        if (rc != ATT_E_PARSE || policy || !strstr(err.msg, bad[i].says)) {
            fail_msg("%s = %s: %s: %s", bad[i].member, bad[i].value ? bad[i].value : "(none)",
                     att_rc_name(rc), err.msg);
        }
    }
    /* A recovery without an end. */
    json_t *json = good_json();
    struct parse_pcr_policy *policy = NULL;
    struct att_err err = {0};
    json_object_del(json, "counter");
    json_object_del(json, "notAfter");
    json_object_set_new(json, "recovery", json_pack("{s:i}", "resetCount", 3));
    assert_int_equal(parse_json(json, &policy, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "notAfter is required"));
    /* More boots than may be. */
    json = good_json();
    json_t *boots = json_object_get(json, "boots");
    while (json_array_size(boots) <= PARSE_PCR_POLICY_BOOTS_MAX) {
        json_array_append_new(boots, json_deep_copy(json_array_get(boots, 0)));
    }
    att_err_clear(&err);
    assert_int_equal(parse_json(json, &policy, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "1-64 boots"));
    /* And an approval that is no signature but has the form. */
    json = good_json();
    json_object_set_new(json_array_get(json_object_get(json, "boots"), 1), "approval",
                        json_string(sig));
    att_err_clear(&err);
    assert_int_equal(parse_json(json, &policy, &err), ATT_OK);
    assert_int_equal(parse_pcr_policy_verify(policy, &pub, NULL, &err), ATT_E_AUTH);
    assert_string_equal(err.reason, "policySignature");
    parse_pcr_policy_free(policy);
}

static void every_cut_is_refused(void **state)
{
    (void)state;
    for (size_t len = 0; len + 1 < good.len; len++) { /* the last byte is a newline */
        struct parse_pcr_policy *policy = NULL;
        if (len + 2 == good.len) {
            break; /* all but the newline and the brace */
        }
        assert_int_not_equal(parse_pcr_policy_parse(ATT_SLICE(good.ptr, len), &policy, NULL),
                             ATT_OK);
        assert_null(policy);
    }
    struct parse_pcr_policy *policy = NULL;
    uint8_t *big = calloc(1, PARSE_PCR_POLICY_MAX + 1);
    assert_non_null(big);
    memset(big, ' ', PARSE_PCR_POLICY_MAX + 1);
    assert_int_equal(
        parse_pcr_policy_parse(ATT_SLICE(big, PARSE_PCR_POLICY_MAX + 1), &policy, NULL),
        ATT_E_LIMIT);
    free(big);
}

/* A bit of each byte of the text flipped, and of each position of a bit: refused, or it says the
 * same (a digit's case would not). */
static void every_edit_is_refused(void **state)
{
    att_autobuf copy = {0};
    size_t refused_forms = 0, refused_signatures = 0;
    size_t step = getenv("ATT_VALGRIND") ? 101 : 3;
    (void)state;
    att_buf_put_slice(&copy, att_buf_slice(&good));
    for (size_t bit = 0; bit < 8 * good.len; bit += step) {
        parse_autopcrpolicy *policy = NULL;
        struct att_err err = {0};
        copy.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (parse_pcr_policy_parse(att_buf_slice(&copy), &policy, NULL) != ATT_OK) {
            refused_forms++;
        } else if (parse_pcr_policy_verify(policy, &pub, NULL, &err) != ATT_OK) {
            assert_int_equal(err.rc, ATT_E_AUTH);
            refused_signatures++;
        } else {
            /* white space between members */
            assert_non_null(strchr(" \n\t\r", copy.ptr[bit / 8]));
        }
        copy.ptr[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    assert_true(refused_forms > 1000 / step && refused_signatures > 1000 / step);
}

static void other_keys_and_refs_are_refused(void **state)
{
    parse_autopcrpolicy *policy = NULL;
    struct parse_public other;
    struct att_err err = {0};
    EVP_PKEY *stranger = EVP_EC_gen("P-256"), *rsa = EVP_RSA_gen(2048), *p384 = EVP_EC_gen("P-384");
    (void)state;
    assert_int_equal(parse_seal_policy_key(rsa, &other, &err), ATT_E_UNSUPPORTED);
    att_err_clear(&err);
    assert_int_equal(parse_seal_policy_key(p384, &other, &err), ATT_E_UNSUPPORTED);
    att_err_clear(&err);
    assert_int_equal(parse_seal_policy_key(stranger, &other, &err), ATT_OK);
    assert_int_equal(parse_pcr_policy_parse(att_buf_slice(&good), &policy, &err), ATT_OK);
    assert_int_equal(parse_pcr_policy_verify(policy, &other, NULL, &err), ATT_E_AUTH);
    assert_string_equal(err.reason, "policyKey");
    att_err_clear(&err);
    assert_int_equal(parse_pcr_policy_verify(policy, &pub, "bank.example/other", &err), ATT_E_AUTH);
    assert_string_equal(err.reason, "policyKey");
    att_err_clear(&err);
    /* The stranger names himself as the policy key. */
    assert_int_equal(parse_public_name(&other, &policy->key, &err), ATT_OK);
    assert_int_equal(parse_pcr_policy_verify(policy, &other, NULL, &err), ATT_E_AUTH);
    assert_string_equal(err.reason, "policySignature");
    EVP_PKEY_free(stranger);
    EVP_PKEY_free(rsa);
    EVP_PKEY_free(p384);
}

static void times_are_judged(void **state)
{
    parse_autopcrpolicy *policy = NULL;
    struct att_err err = {0};
    (void)state;
    assert_int_equal(parse_pcr_policy_parse(att_buf_slice(&good), &policy, &err), ATT_OK);
    assert_int_equal(parse_pcr_policy_verify(policy, &pub, "bank.example/boot", &err), ATT_OK);
    assert_int_equal(parse_pcr_policy_check_time(policy, 1700000000, &err), ATT_OK);
    assert_int_equal(parse_pcr_policy_check_time(policy, 1800000000, &err), ATT_OK);
    assert_int_equal(parse_pcr_policy_check_time(policy, 1699999999, &err), ATT_E_DENIED);
    assert_string_equal(err.reason, "policyExpired");
    att_err_clear(&err);
    assert_int_equal(parse_pcr_policy_check_time(policy, 1800000001, &err), ATT_E_DENIED);
    assert_string_equal(err.reason, "policyExpired");
    /* What is read is what was signed. */
    assert_string_equal(policy->name, "web");
    assert_int_equal(policy->version, 7);
    assert_int_equal(policy->counter, PARSE_SEAL_COUNTER_DEFAULT);
    assert_int_equal(policy->n_boots, 2);
    assert_string_equal(policy->boots[1].label, "linux-6.12");
    assert_memory_equal(&policy->boots[0].pcrs, &two_boots[0].pcrs, sizeof two_boots[0].pcrs);
}

static void what_would_not_parse_is_not_signed(void **state)
{
    struct parse_pcr_policy policy = sample();
    att_autobuf text = {0};
    struct att_err err = {0};
    (void)state;
    policy.version = 0;
    assert_int_equal(parse_pcr_policy_sign(&policy, key_of_policy, &text, &err), ATT_E_INVAL);
    policy = sample();
    policy.counter = 0x01c00002;
    att_err_clear(&err);
    assert_int_equal(parse_pcr_policy_sign(&policy, key_of_policy, &text, &err), ATT_E_INVAL);
    policy = sample();
    memcpy(policy.name, "No", 3);
    att_err_clear(&err);
    assert_int_equal(parse_pcr_policy_sign(&policy, key_of_policy, &text, &err), ATT_E_INVAL);
    assert_int_equal(text.len, 0);
}

/* Each part of a branch changes its digest; so does the order of nothing else. */
static void branches_differ(void **state)
{
    struct parse_seal_branch branch = {.sel = {PARSE_ALG_SHA256, 0x80}};
    uint8_t digests[6][PARSE_POLICY_LEN];
    struct att_err err = {0};
    (void)state;
    assert_int_equal(parse_seal_branch_digest(&branch, digests[0], &err), ATT_OK);
    branch.counter = PARSE_SEAL_COUNTER_DEFAULT;
    branch.counter_max = 1;
    assert_int_equal(parse_seal_branch_digest(&branch, digests[1], &err), ATT_OK);
    branch.counter_max = 2;
    assert_int_equal(parse_seal_branch_digest(&branch, digests[2], &err), ATT_OK);
    branch.counter++;
    assert_int_equal(parse_seal_branch_digest(&branch, digests[3], &err), ATT_OK);
    branch.counter = 0;
    branch.has_reset = true;
    assert_int_equal(parse_seal_branch_digest(&branch, digests[4], &err), ATT_OK);
    branch.reset_count = 1;
    assert_int_equal(parse_seal_branch_digest(&branch, digests[5], &err), ATT_OK);
    for (size_t i = 0; i < 6; i++) {
        for (size_t j = i + 1; j < 6; j++) {
            assert_memory_not_equal(digests[i], digests[j], PARSE_POLICY_LEN);
        }
    }
    branch.counter = 0x01c00002;
    assert_int_equal(parse_seal_branch_digest(&branch, digests[0], &err), ATT_E_INVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_that_are_refused),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(every_edit_is_refused),
        cmocka_unit_test(other_keys_and_refs_are_refused),
        cmocka_unit_test(times_are_judged),
        cmocka_unit_test(what_would_not_parse_is_not_signed),
        cmocka_unit_test(branches_differ),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
