/* The verdict and its words. */
#include "tests/unit/verify/harness.h"

static void test_empty_is_refusal(void **state)
{
    (void)state;
    verify_autoverdict *verdict = verify_verdict_new();
    assert_int_equal(verify_verdict_result(verdict), VERIFY_REFUSED);
    assert_int_equal(verify_verdict_result(NULL), VERIFY_REFUSED);
    assert_non_null(verify_verdict_refusal(verdict));
    assert_int_equal(verify_verdict_err(verdict, NULL), ATT_E_INTERNAL);
}

static void test_planned_and_not_reached_is_refusal(void **state)
{
    (void)state;
    static const enum verify_reason plan[] = {VERIFY_REASON_EK_CHAIN, VERIFY_REASON_EK_TEMPLATE};
    verify_autoverdict *verdict = verify_verdict_new();
    verify_plan(verdict, plan, 2);
    verify_pass(verdict, VERIFY_REASON_EK_CHAIN, "good");
    assert_int_equal(verify_verdict_result(verdict), VERIFY_REFUSED);
    assert_int_equal(verify_verdict_refusal(verdict)->reason, VERIFY_REASON_EK_TEMPLATE);
    assert_false(verify_verdict_failed(verdict));
    verify_pass(verdict, VERIFY_REASON_EK_TEMPLATE, "good");
    assert_int_equal(verify_verdict_result(verdict), VERIFY_ACCEPTED);
    assert_int_equal(verify_verdict_err(verdict, NULL), ATT_OK);
}

static void test_all_skipped_is_refusal(void **state)
{
    (void)state;
    verify_autoverdict *verdict = verify_verdict_new();
    verify_skip(verdict, VERIFY_REASON_BOOT_POLICY, "boot: none");
    assert_int_equal(verify_verdict_result(verdict), VERIFY_REFUSED);
}

static void test_fail_stays(void **state)
{
    (void)state;
    static const enum verify_reason plan[] = {VERIFY_REASON_QUOTE_NONCE};
    verify_autoverdict *verdict = verify_verdict_new();
    verify_plan(verdict, plan, 1);
    verify_fail(verdict, VERIFY_REASON_QUOTE_NONCE, "stale");
    verify_pass(verdict, VERIFY_REASON_QUOTE_NONCE, "good");
    verify_pass(verdict, VERIFY_REASON_EK_CHAIN, "good");
    assert_int_equal(verify_verdict_result(verdict), VERIFY_REFUSED);
    assert_int_equal(verify_verdict_refusal(verdict)->reason, VERIFY_REASON_QUOTE_NONCE);
    assert_true(verify_verdict_failed(verdict));
}

static void test_findings_are_collected_in_order(void **state)
{
    (void)state;
    static const enum verify_reason plan[] = {VERIFY_REASON_BOOT_POLICY, VERIFY_REASON_HOST_BANNED};
    verify_autoverdict *verdict = verify_verdict_new();
    verify_plan(verdict, plan, 2);
    verify_fail(verdict, VERIFY_REASON_BOOT_POLICY, "first");
    verify_fail(verdict, VERIFY_REASON_BOOT_POLICY, "second");
    verify_fail(verdict, VERIFY_REASON_BOOT_POLICY, "third");
    assert_int_equal(verdict->n_checks, 4);
    assert_string_equal(verdict->checks[0].detail, "first");
    assert_string_equal(verdict->checks[1].detail, "second");
    assert_string_equal(verdict->checks[2].detail, "third");
    assert_int_equal(verdict->checks[3].reason, VERIFY_REASON_HOST_BANNED);
}

static void test_overflow_is_refusal(void **state)
{
    (void)state;
    verify_autoverdict *verdict = verify_verdict_new();
    for (int i = 0; i < VERIFY_CHECKS_MAX; i++) {
        verify_pass(verdict, VERIFY_REASON_EK_CHAIN, "good");
    }
    assert_int_equal(verify_verdict_result(verdict), VERIFY_ACCEPTED);
    verify_fail(verdict, VERIFY_REASON_EK_CHAIN, "bad");
    assert_int_equal(verify_verdict_result(verdict), VERIFY_REFUSED);
    assert_true(verify_verdict_failed(verdict));
}

static void test_json_and_text(void **state)
{
    (void)state;
    static const enum verify_reason plan[] = {VERIFY_REASON_QUOTE_TYPE, VERIFY_REASON_QUOTE_NONCE,
                                              VERIFY_REASON_LOG_REPLAY};
    verify_autoverdict *verdict = verify_verdict_new();
    verify_plan(verdict, plan, 3);
    verify_pass(verdict, VERIFY_REASON_QUOTE_TYPE, "a quote");
    verify_fail(verdict, VERIFY_REASON_QUOTE_NONCE, "stale");
    json_t *json = NULL;
    assert_int_equal(verify_verdict_json(verdict, &json, NULL), ATT_OK);
    assert_true(json_is_false(json_object_get(json, "accepted")));
    assert_string_equal(json_string_value(json_object_get(json, "reason")), "quoteNonce");
    assert_string_equal(json_string_value(json_object_get(json, "detail")), "stale");
    json_t *checks = json_object_get(json, "checks");
    assert_int_equal(json_array_size(checks), 3);
    const char *outcomes[] = {"pass", "fail", "notReached"};
    for (size_t i = 0; i < 3; i++) {
        json_t *outcome = json_object_get(json_array_get(checks, i), "outcome");
        assert_string_equal(json_string_value(outcome), outcomes[i]);
    }
    json_decref(json);
    att_autobuf text = {0};
    verify_verdict_text(verdict, &text);
    assert_non_null(strstr(att_buf_cstr(&text), "quoteNonce"));
}

/* The list of issuance.md, "A refusal names its reason": a contract. */
static void test_words(void **state)
{
    (void)state;
    static const char *const words[] = {
        "ekChain",        "ekCertMismatch",   "ekTemplate",        "akAttributes",
        "akHierarchy",    "activation",       "certifyType",       "certifyName",
        "keyAttributes",  "certifySignature", "certifyNonce",      "keyParent",
        "keyStore",       "akUnknown",        "akStale",           "accountMismatch",
        "quoteSignature", "quoteMagic",       "quoteType",         "quoteNonce",
        "pcrSelection",   "pcrDigest",        "evidenceMismatch",  "logMissing",
        "logReplay",      "bootPolicy",       "policyMissing",     "policyExpired",
        "clockRollback",  "tpmCleared",       "ticketInvalid",     "firmwareDenied",
        "hostUnknown",    "hostBanned",       "notAssigned",       "modelDigest",
        "policyUnsigned", "policySigner",     "policyNotYetValid", "identifierMismatch"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        enum verify_reason reason = VERIFY_REASON_NONE;
        assert_int_equal(verify_reason_from_word(words[i], &reason, NULL), ATT_OK);
        assert_string_equal(verify_reason_word(reason), words[i]);
    }
    for (int i = 1; i < VERIFY_REASON_COUNT; i++) {
        enum verify_reason reason = VERIFY_REASON_NONE;
        const char *word = verify_reason_word((enum verify_reason)i);
        assert_int_equal(verify_reason_from_word(word, &reason, NULL), ATT_OK);
        assert_int_equal(reason, i);
        assert_true(verify_reason_proves(reason)[0] != '\0');
    }
    enum verify_reason untouched = VERIFY_REASON_EK_CHAIN;
    assert_int_equal(verify_reason_from_word("none", &untouched, NULL), ATT_E_NOTFOUND);
    assert_int_equal(verify_reason_from_word(NULL, &untouched, NULL), ATT_E_NOTFOUND);
    assert_int_equal(untouched, VERIFY_REASON_EK_CHAIN);
    assert_string_equal(verify_reason_word((enum verify_reason)9999), "none");
}

/* A detail quotes what came and may be cut within a character: the record keeps its verdict. */
static void test_quoted_text_is_clean(void **state)
{
    (void)state;
    char name[120];
    memset(name, 'a', 99);
    strcpy(name + 99, "\xc3\xa9\x1b[2J");
    verify_autoverdict *verdict = verify_verdict_new();
    verify_fail(verdict, VERIFY_REASON_EVIDENCE_MISMATCH, "evidence is for \"%.100s\"", name);
    verify_pass(verdict, VERIFY_REASON_EK_CHAIN, "%s", "\x1b[2J");
    att_autojson *json = NULL;
    assert_int_equal(verify_verdict_json(verdict, &json, NULL), ATT_OK);
    assert_string_equal(json_string_value(json_object_get(json, "reason")), "evidenceMismatch");
    const char *detail = json_string_value(json_object_get(json, "detail"));
    assert_non_null(strstr(detail, "aaa?\""));
    att_autobuf text = {0};
    verify_verdict_text(verdict, &text);
    assert_null(memchr(text.ptr, 0x1b, text.len));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_is_refusal),
        cmocka_unit_test(test_planned_and_not_reached_is_refusal),
        cmocka_unit_test(test_all_skipped_is_refusal),
        cmocka_unit_test(test_fail_stays),
        cmocka_unit_test(test_findings_are_collected_in_order),
        cmocka_unit_test(test_overflow_is_refusal),
        cmocka_unit_test(test_json_and_text),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_quoted_text_is_clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
