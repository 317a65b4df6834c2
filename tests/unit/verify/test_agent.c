/* verify_agent (M4): one thing wrong at a time, all the rest consistent. The cases are the rows of
 * "What must be proved" and the bug classes that verifiers shipped. */
#include "tests/unit/verify/agent_key.h"
#include "tests/unit/verify/agent_quote.h"

EVP_PKEY *stranger;

/* ---- what must be accepted ------------------------------------------------------------------- */

static void honest_no_parent(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->no_parent = true;
}

static void honest_policy_parent(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.parent_policy = ATT_SLICE(f->parent.pub.policy, f->parent.pub.policy_len);
}

/* PCR 7 is known only after the keys are made: from the build before, whose events are the same. */
static uint8_t pcr7_before[PARSE_DIGEST_MAX];

static void pcr7_kept(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_PCRS)
    memcpy(pcr7_before, f->pcrs.value[7], sizeof(pcr7_before));
}

static void honest_pcr7_parent(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        parent_by_pcr7(f, pcr7_before);
    }
    if (stage == FORGE_DONE) {
        f->agent_in.parent_pcr7 = true;
    }
}

static void resumed(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock.restart_count++;
}

/* The pair of the last statement does not count, only that of the enrolment. */
static void resumed_on_record(struct forge *f, enum forge_stage stage)
{
    static struct verify_clock enrolled;
    AT(FORGE_DONE)
    enrolled = f->previous;
    enrolled.restart_count--;
    f->agent_in.ak.enrolled = &enrolled;
}

static void honest_no_record(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->no_previous = true;
}

static void honest_boot_none(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.boot.boot_none = true;
    f->agent_in.boot.policy = NULL;
}

static void honest_srk_zero_unique_key(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    struct parse_public template_pub;
    parse_public_srk_template(&template_pub, 1);
    assert_int_equal(parse_public_set_pkey(&template_pub, f->srk.pkey, NULL), ATT_OK);
    f->srk.pub = template_pub;
}

static const struct forged_case cases[] = {
    {"honest", NULL, VERIFY_REASON_NONE},
    {"honest, key right under the SRK", honest_no_parent, VERIFY_REASON_NONE},
    {"honest, parent's policy demanded", honest_policy_parent, VERIFY_REASON_NONE},
    {"honest, no record", honest_no_record, VERIFY_REASON_NONE},
    {"honest, boot none", honest_boot_none, VERIFY_REASON_NONE},
    {"honest, SRK of the other template", honest_srk_zero_unique_key, VERIFY_REASON_NONE},

    {"attObj with a byte more", att_obj_trailing, VERIFY_REASON_MALFORMED},
    {"evidence with a byte more", evidence_trailing, VERIFY_REASON_MALFORMED},
    {"quote with a byte more", quote_trailing, VERIFY_REASON_MALFORMED},
    {"quote's signature with a byte more", quote_sig_trailing, VERIFY_REASON_MALFORMED},
    {"srkPub with a byte more", srk_trailing, VERIFY_REASON_MALFORMED},
    {"quote beyond its cap", quote_huge, VERIFY_REASON_MALFORMED},
    {"no PCR values", no_pcrs, VERIFY_REASON_MALFORMED},
    {"no evidence", no_evidence, VERIFY_REASON_MALFORMED},
    {"no srkPub", no_srk, VERIFY_REASON_MALFORMED},

    {"profile allows no TPM keys", store_not_allowed, VERIFY_REASON_KEY_STORE},
    {"evidence says hsm", store_lies, VERIFY_REASON_MALFORMED},
    {"another AK certificate", ak_cert_other, VERIFY_REASON_AK_UNKNOWN},
    {"another AK on record", ak_other_record, VERIFY_REASON_AK_UNKNOWN},
    {"AK unrestricted", ak_unrestricted, VERIFY_REASON_AK_ATTRIBUTES},
    {"AK not fixedTPM", ak_duplicable, VERIFY_REASON_AK_ATTRIBUTES},

    {"certify without magic", certify_no_magic, VERIFY_REASON_CERTIFY_TYPE},
    {"CertifyCreation as Certify", certify_is_creation, VERIFY_REASON_CERTIFY_TYPE},
    {"quote as Certify", certify_is_quote, VERIFY_REASON_CERTIFY_TYPE},
    {"NV_Certify as Certify", certify_is_nv, VERIFY_REASON_CERTIFY_TYPE},
    {"key of another TPM", certify_by_other_tpm, VERIFY_REASON_CERTIFY_SIGNATURE},
    {"key certifies itself", certify_by_itself, VERIFY_REASON_CERTIFY_SIGNATURE},
    {"signature with another hash than the AK's", certify_sig_sha384,
     VERIFY_REASON_CERTIFY_SIGNATURE},
    {"attObj names RS256", certify_alg_rs256, VERIFY_REASON_CERTIFY_SIGNATURE},
    {"certify of another order", certify_other_order, VERIFY_REASON_CERTIFY_NONCE},
    {"certify without nonce", certify_no_nonce, VERIFY_REASON_CERTIFY_NONCE},
    {"pubArea of another key", certify_name_swap, VERIFY_REASON_CERTIFY_NAME},
    {"certify without Name", certify_empty_name, VERIFY_REASON_CERTIFY_NAME},

    {"imported key", key_imported, VERIFY_REASON_KEY_ATTRIBUTES},
    {"key not fixedTPM", key_not_fixed_tpm, VERIFY_REASON_KEY_ATTRIBUTES},
    {"key not fixedParent", key_not_fixed_parent, VERIFY_REASON_KEY_ATTRIBUTES},
    {"key from outside", key_from_outside, VERIFY_REASON_KEY_ATTRIBUTES},
    {"restricted key", key_restricted, VERIFY_REASON_KEY_ATTRIBUTES},
    {"key that decrypts", key_decrypts, VERIFY_REASON_KEY_ATTRIBUTES},
    {"key that does not sign", key_does_not_sign, VERIFY_REASON_KEY_ATTRIBUTES},
    {"adminWithPolicy", key_admin_with_policy, VERIFY_REASON_KEY_ATTRIBUTES},
    {"no userWithAuth", key_without_user_auth, VERIFY_REASON_KEY_ATTRIBUTES},
    {"key signs with SHA-1", key_sha1_scheme, VERIFY_REASON_KEY_ATTRIBUTES},
    {"key with a policy", key_with_policy, VERIFY_REASON_KEY_ATTRIBUTES},

    {"key in the endorsement hierarchy", key_owner_is_endorsement, VERIFY_REASON_KEY_PARENT},
    {"key in the null hierarchy", key_under_null, VERIFY_REASON_KEY_PARENT},
    {"foreign parent", key_foreign_parent, VERIFY_REASON_KEY_PARENT},
    {"parent left out", key_parent_left_out, VERIFY_REASON_KEY_PARENT},
    {"LoadExternal key", key_external, VERIFY_REASON_KEY_PARENT},
    {"parent duplicable", parent_duplicable, VERIFY_REASON_KEY_PARENT},
    {"parent is a signing key", parent_signs, VERIFY_REASON_KEY_PARENT},
    {"SRK with other attributes", srk_not_standard, VERIFY_REASON_KEY_PARENT},
    {"SRK duplicable", srk_duplicable, VERIFY_REASON_KEY_PARENT},
    {"parent with another policy", parent_policy_other, VERIFY_REASON_KEY_PARENT},
    {"parent's policy can be passed by", parent_policy_avoidable, VERIFY_REASON_KEY_PARENT},
    {"policy demanded, no parent", parent_policy_no_parent, VERIFY_REASON_KEY_PARENT},
    {"parent by another PCR 7", parent_pcr7_other, VERIFY_REASON_KEY_PARENT},
    {"PCR 7 demanded, no parent", parent_pcr7_no_parent, VERIFY_REASON_KEY_PARENT},
    {"PCR 7 demanded and not quoted", parent_pcr7_not_quoted, VERIFY_REASON_KEY_PARENT},

    {"quote without magic", quote_no_magic, VERIFY_REASON_QUOTE_MAGIC},
    {"Certify as quote", quote_is_certify, VERIFY_REASON_QUOTE_TYPE},
    {"NV_Certify as quote", quote_is_nv, VERIFY_REASON_QUOTE_TYPE},
    {"NV_Certify whose contents look like PCRs", quote_is_nv_like_pcrs, VERIFY_REASON_QUOTE_TYPE},
    {"quote by another key", quote_other_key, VERIFY_REASON_QUOTE_SIGNATURE},
    {"quote by the agent's key", quote_by_agent_key, VERIFY_REASON_QUOTE_SIGNATURE},
    {"quote signed with SHA-1", quote_sig_sha1, VERIFY_REASON_QUOTE_SIGNATURE},
    {"AK in the owner hierarchy", ak_in_owner, VERIFY_REASON_AK_HIERARCHY},
    {"quote's signer is not qualified", quote_signer_differs, VERIFY_REASON_AK_HIERARCHY},
    {"quote of another order", quote_other_order, VERIFY_REASON_QUOTE_NONCE},
    {"quote of another account", quote_other_account, VERIFY_REASON_QUOTE_NONCE},
    {"constant nonce", quote_constant_nonce, VERIFY_REASON_QUOTE_NONCE},
    {"empty nonce", quote_empty_nonce, VERIFY_REASON_QUOTE_NONCE},
    {"short nonce", quote_short_nonce, VERIFY_REASON_QUOTE_NONCE},
    {"evidence swapped after the quote", evidence_swapped, VERIFY_REASON_QUOTE_NONCE},

    {"other PCRs", selection_other, VERIFY_REASON_PCR_SELECTION},
    {"empty selection", selection_empty, VERIFY_REASON_PCR_SELECTION},
    {"selection of count 0", selection_count_0, VERIFY_REASON_PCR_SELECTION},
    {"bank twice", selection_bank_twice, VERIFY_REASON_PCR_SELECTION},
    {"selection in two parts", selection_split, VERIFY_REASON_PCR_SELECTION},
    {"SHA-1 bank", selection_sha1, VERIFY_REASON_PCR_SELECTION},
    {"sizeofSelect 4", selection_wide, VERIFY_REASON_PCR_SELECTION},
    {"values that are not quoted", pcrs_not_quoted, VERIFY_REASON_PCR_SELECTION},
    {"PCR value changed", pcr_value_changed, VERIFY_REASON_PCR_DIGEST},
    {"digest of other values", pcr_digest_changed, VERIFY_REASON_PCR_DIGEST},

    {"clock backwards", clock_back, VERIFY_REASON_CLOCK_ROLLBACK},
    {"restartCount backwards", restart_back, VERIFY_REASON_CLOCK_ROLLBACK},
    {"resumed, clock backwards", resumed_clock_back, VERIFY_REASON_CLOCK_ROLLBACK},
    {"TPM cleared", cleared, VERIFY_REASON_TPM_CLEARED},
    {"resetCount down", cleared_reset_down, VERIFY_REASON_TPM_CLEARED},
    {"resetCount 0 and clock back", cleared_from_0, VERIFY_REASON_TPM_CLEARED},
    {"quote of an earlier boot", earlier_boot, VERIFY_REASON_TPM_CLEARED},
    {"rebooted since the enrolment", rebooted, VERIFY_REASON_AK_STALE},
    {"resumed since the enrolment", resumed, VERIFY_REASON_AK_STALE},
    {"hibernated since the enrolment", hibernated, VERIFY_REASON_AK_STALE},
    {"resumed since the enrolment, and accepted since", resumed_on_record, VERIFY_REASON_AK_STALE},
    {"firmware changed", firmware_changed, VERIFY_REASON_AK_STALE},
    {"enrolment expired", ak_expired, VERIFY_REASON_AK_STALE},
    {"certify of another boot than the quote", certify_of_other_boot, VERIFY_REASON_AK_STALE},

    {"evidence names another agent", evidence_other_agent, VERIFY_REASON_EVIDENCE_MISMATCH},
    {"evidence names a longer name", evidence_longer_name, VERIFY_REASON_EVIDENCE_MISMATCH},
    {"evidence names another key", evidence_other_key, VERIFY_REASON_EVIDENCE_MISMATCH},
    {"evidence lists another log", evidence_other_log, VERIFY_REASON_EVIDENCE_MISMATCH},
    {"evidence lists no log", evidence_without_log, VERIFY_REASON_EVIDENCE_MISMATCH},

    {"log without bytes", log_without_bytes, VERIFY_REASON_LOG_MISSING},
    {"log with other bytes than its digest", log_other_bytes, VERIFY_REASON_LOG_MISSING},
    {"log that was asked for is not there", log_wanted_ima, VERIFY_REASON_LOG_MISSING},
    {"policy wants another log", policy_wants_log, VERIFY_REASON_LOG_MISSING},
    {"event dropped", log_event_dropped, VERIFY_REASON_LOG_REPLAY},
    {"event added", log_event_added, VERIFY_REASON_LOG_REPLAY},
    {"digest changed", log_digest_changed, VERIFY_REASON_LOG_REPLAY},
    {"payload rewritten", log_payload_rewritten, VERIFY_REASON_LOG_REPLAY},
    {"type rewritten", log_type_rewritten, VERIFY_REASON_LOG_REPLAY},
    {"type rewritten to one with a checked payload", log_type_rewritten_to_hashed,
     VERIFY_REASON_LOG_REPLAY},
    {"type unknown", log_type_unknown, VERIFY_REASON_LOG_REPLAY},
    {"event called EV_NO_ACTION", log_type_no_action, VERIFY_REASON_LOG_REPLAY},
    {"two separators", log_separator_twice, VERIFY_REASON_LOG_REPLAY},
    {"no separator", log_separator_missing, VERIFY_REASON_LOG_REPLAY},
    {"separator of an error", log_separator_error, VERIFY_REASON_LOG_REPLAY},
    {"PCR without events, but with a value", pcr_without_events, VERIFY_REASON_LOG_REPLAY},

    {"no policy", policy_missing, VERIFY_REASON_POLICY_MISSING},
    {"policy expired", policy_expired, VERIFY_REASON_POLICY_EXPIRED},
    {"policy not yet valid", policy_not_yet, VERIFY_REASON_POLICY_NOT_YET_VALID},
    {"boot not allowed", policy_other_boot, VERIFY_REASON_BOOT_POLICY},
    {"policy for a PCR that is not quoted", policy_not_quoted, VERIFY_REASON_BOOT_POLICY},
    {"policy for another bank", policy_other_bank, VERIFY_REASON_BOOT_POLICY},
};

/* Facts are untouched on failure, but for the head of the host's log: of a statement that was
 * quoted it is told whole. */
static void assert_only_the_log_head(const struct verify_agent_facts *facts)
{
    const size_t from = offsetof(struct verify_agent_facts, host_log_head);
    const size_t to = from + sizeof(facts->host_log_head);
    const uint8_t *bytes = (const uint8_t *)facts;
    for (size_t i = 0; i < sizeof(*facts); i++) {
        if (i < from || i >= to) {
            assert_int_equal(bytes[i], 0x5a);
        } else {
            assert_true(bytes[i] == bytes[from] && (bytes[i] == 0x5a || bytes[i] == 0x11));
        }
    }
}

static void run(const struct forged_case *c, enum forge_ek ek, bool memory)
{
    struct forge *forge = forge_new(ek, FORGE_ORDER);
    forge->memory = memory;
    verify_autoverdict *verdict = verify_verdict_new();
    struct verify_agent_facts facts;
    memset(&facts, 0x5a, sizeof(facts));
    forge_build(forge, c->mutate);
    enum verify_result result = verify_agent(&forge->agent_in, verdict, &facts);
    if (c->reason == VERIFY_REASON_NONE) {
        assert_accepted(verdict, c->name);
        assert_int_equal(result, VERIFY_ACCEPTED);
        assert_int_equal(facts.key_name.len, memory ? 0 : forge->agent.name.len);
        assert_memory_equal(facts.key_name.bytes, forge->agent.name.bytes, facts.key_name.len);
        assert_int_equal(facts.quote.clock.reset_count, forge->clock.reset_count);
    } else {
        assert_refused(verdict, c->reason, c->name);
        assert_int_equal(result, VERIFY_REFUSED);
        assert_only_the_log_head(&facts);
    }
    forge_free(forge);
}

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        run(&cases[i], FORGE_EK_P256, false);
    }
}

/* The six checks that a memory key has not (agent.h). */
static bool of_a_certify(enum verify_reason reason)
{
    return reason == VERIFY_REASON_CERTIFY_TYPE || reason == VERIFY_REASON_CERTIFY_SIGNATURE ||
           reason == VERIFY_REASON_CERTIFY_NONCE || reason == VERIFY_REASON_CERTIFY_NAME ||
           reason == VERIFY_REASON_KEY_ATTRIBUTES || reason == VERIFY_REASON_KEY_PARENT;
}

/* Cases that are about a TPM's statement all the same. */
static bool of_a_tpm(forge_mutate mutate)
{
    static const forge_mutate list[] = {honest_policy_parent, no_srk,
                                        store_not_allowed,    store_lies,
                                        evidence_other_key,   certify_of_other_boot};
    for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        if (mutate == list[i]) {
            return true;
        }
    }
    return false;
}

/* All the others hold for a memory key as for a TPM's. */
static void test_cases_of_a_memory_key(void **state)
{
    (void)state;
    size_t n = 0;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (!of_a_tpm(cases[i].mutate) && !of_a_certify(cases[i].reason)) {
            run(&cases[i], FORGE_EK_P256, true);
            n++;
        }
    }
    assert_true(n >= 70);
}

/* What the refusal says is what to do about it. */
static void test_stale_says_what_to_do(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    forge_build(forge, resumed);
    assert_int_equal(verify_agent(&forge->agent_in, verdict, NULL), VERIFY_REFUSED);
    const struct verify_check *refusal = verify_verdict_refusal(verdict);
    assert_non_null(strstr(refusal->detail, "it has to enrol again"));
    assert_non_null(strstr(refusal->detail, "resetCount 7, restartCount 1"));
    assert_non_null(strstr(refusal->detail, "now 7, 2"));
    forge_free(forge);
}

static void test_parent_by_pcr7(void **state)
{
    static const struct forged_case honest = {"honest, parent by PCR 7", honest_pcr7_parent,
                                              VERIFY_REASON_NONE};
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
    (void)state;
    forge_build(forge, pcr7_kept);
    forge_free(forge);
    run(&honest, FORGE_EK_P256, false);
}

static void test_facts(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    struct verify_agent_facts facts = {0};
    forge_build(forge, NULL);
    assert_int_equal(verify_agent(&forge->agent_in, verdict, &facts), VERIFY_ACCEPTED);
    att_autobuf spki = {0};
    forge_spki(forge->agent.pkey, &spki);
    assert_true(att_slice_eq(ATT_SLICE(facts.spki, facts.spki_len), att_buf_slice(&spki)));
    assert_string_equal(facts.key_store, "tpm");
    assert_string_equal(facts.quote.boot, "forge");
    assert_int_equal(facts.quote.policy_version, 3);
    assert_int_equal(facts.level, 1);
    assert_true(facts.have_manifest_root);
    assert_memory_equal(facts.manifest_root, forge->statement.manifest_root, ATT_SHA256_LEN);
    uint8_t manifest[ATT_SHA256_LEN];
    assert_int_equal(verify_manifest_sha256(&forge->logs, manifest, NULL), ATT_OK);
    assert_memory_equal(facts.quote.manifest_sha256, manifest, sizeof(manifest));
    forge_free(forge);
}

/* Skipped is said, with why. */
static void test_skips_say_why(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    forge_build(forge, honest_boot_none);
    forge->agent_in.boot.logs = 0;
    forge->agent_in.no_parents = true;
    forge->agent_in.ak.clock = forge->agent_in.ak.enrolled = NULL;
    struct verify_agent_facts facts;
    assert_int_equal(verify_agent(&forge->agent_in, verdict, &facts), VERIFY_ACCEPTED);
    assert_string_equal(facts.quote.boot, "none");
    static const enum verify_reason skipped[] = {
        VERIFY_REASON_KEY_PARENT,     VERIFY_REASON_TPM_CLEARED,
        VERIFY_REASON_CLOCK_ROLLBACK, VERIFY_REASON_AK_STALE,
        VERIFY_REASON_LOG_MISSING,    VERIFY_REASON_LOG_REPLAY,
        VERIFY_REASON_POLICY_MISSING, VERIFY_REASON_POLICY_UNSIGNED,
        VERIFY_REASON_POLICY_SIGNER,  VERIFY_REASON_POLICY_NOT_YET_VALID,
        VERIFY_REASON_POLICY_EXPIRED, VERIFY_REASON_BOOT_POLICY};
    for (size_t i = 0; i < sizeof(skipped) / sizeof(skipped[0]); i++) {
        const struct verify_check *check = find_check(verdict, skipped[i]);
        assert_int_equal(check->outcome, VERIFY_SKIP);
        assert_true(check->detail[0] != '\0');
    }
    forge_free(forge);
}

/* Policy findings are collected, all of them. */
static void test_findings(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    forge_build(forge, policy_expired);
    forge->policy->pcrs[0].values[1][0] ^= 1;
    forge->policy->pcrs[7].values[1][0] ^= 1;
    assert_int_equal(verify_agent(&forge->agent_in, verdict, NULL), VERIFY_REFUSED);
    unsigned expired = 0, boot = 0;
    for (size_t i = 0; i < verdict->n_checks; i++) {
        const struct verify_check *check = &verdict->checks[i];
        expired += check->reason == VERIFY_REASON_POLICY_EXPIRED;
        if (check->reason == VERIFY_REASON_BOOT_POLICY) {
            assert_int_equal(check->outcome, VERIFY_FAIL);
            assert_non_null(strstr(check->detail, boot ? "pcr7" : "pcr0"));
            boot++;
        }
    }
    assert_int_equal(expired, 1);
    assert_int_equal(boot, 2);
    forge_free(forge);
}

static void test_replay_names_event(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    forge_build(forge, log_payload_rewritten);
    assert_int_equal(verify_agent(&forge->agent_in, verdict, NULL), VERIFY_REFUSED);
    const char *detail = verify_verdict_refusal(verdict)->detail;
    assert_non_null(strstr(detail, "pcr7 event 3"));
    assert_non_null(strstr(detail, "payload does not match its digest"));
    forge_free(forge);
}

/* A caller that has no order to judge by gets no verdict of "yes", and no other word for it. */
static void test_no_order(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
        verify_autoverdict *verdict = verify_verdict_new();
        struct verify_agent_facts facts = {0}, none = {0};
        struct att_err err = {0};
        forge_build(forge, NULL);
        const char *missing = i % 2 ? "" : NULL;
        *(i < 2 ? &forge->agent_in.key_authorization : &forge->agent_in.identifier) = missing;
        assert_int_equal(verify_agent(&forge->agent_in, verdict, &facts), VERIFY_REFUSED);
        assert_int_equal(verify_verdict_refusal(verdict)->reason, VERIFY_REASON_INTERNAL);
        assert_int_equal(verify_verdict_err(verdict, &err), ATT_E_INTERNAL);
        assert_string_equal(err.reason, "internal");
        assert_non_null(strstr(err.msg, "no order to judge the evidence by"));
        assert_memory_equal(&facts, &none, sizeof facts);
        forge_free(forge);
    }
}

/* Nothing more is run on a verdict that failed already. */
static void test_stops(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    forge_build(forge, NULL);
    verify_fail(verdict, VERIFY_REASON_HOST_BANNED, "banned");
    assert_int_equal(verify_agent(&forge->agent_in, verdict, NULL), VERIFY_REFUSED);
    assert_int_equal(verdict->n_checks, 1);
    forge_free(forge);
}

static int setup(void **state)
{
    (void)state;
    stranger = forge_p256();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    EVP_PKEY_free(stranger);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cases),
        cmocka_unit_test(test_cases_of_a_memory_key),
        cmocka_unit_test(test_parent_by_pcr7),
        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_stale_says_what_to_do),
        cmocka_unit_test(test_skips_say_why),
        cmocka_unit_test(test_findings),
        cmocka_unit_test(test_replay_names_event),
        cmocka_unit_test(test_no_order),
        cmocka_unit_test(test_stops),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
