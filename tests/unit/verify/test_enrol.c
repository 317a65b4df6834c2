/* verify_enrol (M2): one thing wrong at a time. */
#include "tests/unit/verify/harness.h"

#include "tests/support/forge_parts.h"

#define AT(s)                                                                                      \
    if (stage != (s)) {                                                                            \
        return;                                                                                    \
    }

static EVP_PKEY *stranger;
static uint8_t wrong[ATT_SHA256_LEN];

/* ActivateCredential gave something else: the AK is not in the TPM with this EK. */
static void proof_wrong(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    memcpy(wrong, f->proof, sizeof(wrong));
    wrong[31] ^= 1;
    f->enrol_in.proof = ATT_SLICE_ARRAY(wrong);
}

static void proof_empty(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->enrol_in.proof = (struct att_slice){0};
}

static void proof_prefix(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->enrol_in.proof.len--;
}

/* A caller that has no expectation must not accept an empty proof. */
static void proof_not_expected(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->enrol_in.proof = f->enrol_in.expected_proof = (struct att_slice){0};
}

static void quote_garbage(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->enrol_in.quoted.attest.len = 5;
}

static void quote_cut(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->enrol_in.quoted.attest.len--;
}

static void no_signature(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->enrol_in.quoted.signature = (struct att_slice){0};
}

static void no_logs(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->enrol_in.quoted.logs = NULL;
}

static void ak_unrestricted(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ak.pub.attrs &= ~PARSE_OA_RESTRICTED;
}

/* The area that is judged is not that of the key which quoted: its Name was swapped. */
static void ak_swapped(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    struct parse_public pub = f->ak.pub;
    assert_int_equal(parse_public_set_pkey(&pub, stranger, NULL), ATT_OK);
    att_buf_reset(&f->scratch);
    assert_int_equal(parse_public_encode(&pub, &f->scratch, NULL), ATT_OK);
    f->enrol_in.ak_pub = att_buf_slice(&f->scratch);
}

static void no_magic(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->magic_quote ^= 1;
}

static void certify_as_quote(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    f->quote.type = PARSE_ATTEST_CERTIFY;
    f->quote.u.certify.name = parse_name_slice(&f->ak.name);
    f->quote.u.certify.qualified_name = parse_name_slice(&f->signer);
}

static void nv_like_pcrs(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    struct att_slice select = f->quote.u.quote.pcr_select, digest = f->quote.u.quote.pcr_digest;
    att_buf_put_slice(&f->scratch, select);
    att_buf_field_be16(&f->scratch, digest);
    f->quote.type = PARSE_ATTEST_NV;
    f->quote.u.nv.index_name = (struct att_slice){0};
    f->quote.u.nv.contents = att_buf_slice(&f->scratch);
}

static void other_signer(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    f->quote_signer = stranger;
}

static void owner_hierarchy(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ak_hierarchy = PARSE_RH_OWNER;
}

static void stale_nonce(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    memset(wrong, 0x33, sizeof(wrong));
    f->quote.extra_data = ATT_SLICE_ARRAY(wrong);
}

static void nonce_not_expected(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_QUOTE) {
        f->quote.extra_data = (struct att_slice){0};
    }
    if (stage == FORGE_DONE) {
        f->enrol_in.expected_extra = (struct att_slice){0};
    }
}

static void empty_selection(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    f->quote.u.quote.pcr_select = ATT_SLICE_LIT("\0\0\0\1\0\x0b\3\0\0\0");
    att_sha256(f->pcr_digest, (struct att_slice){0});
}

static void value_not_in_digest(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->pcrs.value[0][31] ^= 0x80;
}

static void cleared(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock.reset_count = 1;
    f->clock.clock_ms = 50;
}

static void clock_back(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock.clock_ms = 1;
}

static void log_missing(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    evidence_logs_done(&f->logs);
}

static void log_other(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_LOG)
    f->events[1].digest[3] ^= 4;
}

static void policy_missing(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->enrol_in.boot.policy = NULL;
}

static void policy_expired(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->enrol_in.boot.now = f->policy->not_after + 1;
}

static void boot_not_allowed(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->policy->pcrs[7].values[1][31] ^= 1;
}

/* ---- what must be accepted ------------------------------------------------------------------- */

static void first_contact(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->no_previous = true;
}

static void after_reboot(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock.reset_count++;
    f->clock.restart_count = 0;
}

/* After loss of power the clock may go back, with a higher resetCount and safe = 0. */
static void after_power_loss(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock.reset_count++;
    f->clock.restart_count = 0;
    f->clock.clock_ms = 1;
    f->clock.safe = false;
}

static void new_firmware(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock.reset_count++;
    f->clock.firmware_version++;
}

static void after_restart(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->clock.restart_count++;
}

/* Hibernation: the PCRs start anew, and the log is of before. */
static void hibernated_old_log(struct forge *f, enum forge_stage stage)
{
    after_restart(f, stage);
    AT(FORGE_PCRS)
    memset(f->pcrs.value, 0, sizeof(f->pcrs.value));
}

static void boot_none(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->enrol_in.boot.boot_none = true;
}

static const struct forged_case cases[] = {
    {"honest", NULL, VERIFY_REASON_NONE},
    {"first contact", first_contact, VERIFY_REASON_NONE},
    {"after a reboot", after_reboot, VERIFY_REASON_NONE},
    {"after loss of power", after_power_loss, VERIFY_REASON_NONE},
    {"with new firmware", new_firmware, VERIFY_REASON_NONE},
    {"after a resume or hibernation, log replayed", after_restart, VERIFY_REASON_NONE},
    {"boot none", boot_none, VERIFY_REASON_NONE},

    {"wrong activation value", proof_wrong, VERIFY_REASON_ACTIVATION},
    {"no activation value", proof_empty, VERIFY_REASON_ACTIVATION},
    {"a part of the activation value", proof_prefix, VERIFY_REASON_ACTIVATION},
    {"no expectation", proof_not_expected, VERIFY_REASON_ACTIVATION},
    {"quote of five bytes", quote_garbage, VERIFY_REASON_MALFORMED},
    {"quote cut short", quote_cut, VERIFY_REASON_MALFORMED},
    {"no signature", no_signature, VERIFY_REASON_MALFORMED},
    {"no logs member", no_logs, VERIFY_REASON_MALFORMED},
    {"AK unrestricted", ak_unrestricted, VERIFY_REASON_AK_ATTRIBUTES},
    {"quote without magic", no_magic, VERIFY_REASON_QUOTE_MAGIC},
    {"Certify as quote", certify_as_quote, VERIFY_REASON_QUOTE_TYPE},
    {"NV_Certify whose contents look like PCRs", nv_like_pcrs, VERIFY_REASON_QUOTE_TYPE},
    {"AK Name swap", ak_swapped, VERIFY_REASON_QUOTE_SIGNATURE},
    {"quote by another key", other_signer, VERIFY_REASON_QUOTE_SIGNATURE},
    {"AK in the owner hierarchy", owner_hierarchy, VERIFY_REASON_AK_HIERARCHY},
    {"stale nonce", stale_nonce, VERIFY_REASON_QUOTE_NONCE},
    {"no nonce on either side", nonce_not_expected, VERIFY_REASON_QUOTE_NONCE},
    {"empty selection", empty_selection, VERIFY_REASON_PCR_SELECTION},
    {"PCR value not in the digest", value_not_in_digest, VERIFY_REASON_PCR_DIGEST},
    {"TPM cleared", cleared, VERIFY_REASON_TPM_CLEARED},
    {"clock backwards", clock_back, VERIFY_REASON_CLOCK_ROLLBACK},
    {"log missing", log_missing, VERIFY_REASON_LOG_MISSING},
    {"log of another boot", log_other, VERIFY_REASON_LOG_REPLAY},
    {"hibernated, with the log of before", hibernated_old_log, VERIFY_REASON_LOG_REPLAY},
    {"no policy", policy_missing, VERIFY_REASON_POLICY_MISSING},
    {"policy expired", policy_expired, VERIFY_REASON_POLICY_EXPIRED},
    {"boot not allowed", boot_not_allowed, VERIFY_REASON_BOOT_POLICY},
};

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ENROL);
        verify_autoverdict *verdict = verify_verdict_new();
        struct verify_quote_facts facts;
        memset(&facts, 0x5a, sizeof(facts));
        forge_build(forge, cases[i].mutate);
        enum verify_result result = verify_enrol(&forge->enrol_in, verdict, &facts, NULL);
        if (cases[i].reason == VERIFY_REASON_NONE) {
            assert_accepted(verdict, cases[i].name);
            assert_int_equal(result, VERIFY_ACCEPTED);
            assert_int_equal(facts.clock.clock_ms, forge->clock.clock_ms);
            assert_int_equal(facts.clock.safe, forge->clock.safe);
            assert_true(facts.clock.firmware_version == forge->clock.firmware_version);
        } else {
            assert_refused(verdict, cases[i].reason, cases[i].name);
            assert_int_equal(result, VERIFY_REFUSED);
            assert_int_equal(facts.clock.clock_ms, UINT64_C(0x5a5a5a5a5a5a5a5a));
        }
        forge_free(forge);
    }
}

/* ---- what happened since ----------------------------------------------------------------------
 */

struct since {
    struct verify_clock previous;
    struct parse_pcr_set before;
    bool no_before;
};

/* By a verdict that accepts. */
static enum verify_change change_of(struct forge *forge, const struct since *since)
{
    verify_autoverdict *verdict = verify_verdict_new();
    enum verify_change change = VERIFY_CHANGE_FIRST;
    forge->enrol_in.previous = &since->previous;
    forge->enrol_in.previous_pcrs = since->no_before ? NULL : &since->before;
    (void)!verify_enrol(&forge->enrol_in, verdict, NULL, &change);
    assert_accepted(verdict, "since");
    return change;
}

/* The PCRs as they were before the last n events of the log. */
static void before_last(const struct forge *forge, size_t n, struct parse_pcr_set *ret)
{
    struct forge *copy = forge_new(FORGE_EK_P256, FORGE_ENROL);
    memcpy(copy->events, forge->events, sizeof(copy->events));
    copy->n_events = forge->n_events - n;
    forge_extend(copy);
    *ret = copy->pcrs;
    forge_free(copy);
}

static void test_change(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ENROL);
    forge_build(forge, NULL);
    struct since since = {.previous = forge->clock, .before = forge->pcrs};
    assert_int_equal(change_of(forge, &since), VERIFY_CHANGE_SAME_BOOT);
    since.previous.restart_count--;
    assert_int_equal(change_of(forge, &since), VERIFY_CHANGE_RESUMED);
    /* Something was measured meanwhile: the log goes on from the values of before. */
    before_last(forge, 5, &since.before);
    assert_memory_not_equal(since.before.value, forge->pcrs.value, sizeof(since.before.value));
    assert_int_equal(change_of(forge, &since), VERIFY_CHANGE_RESUMED);
    /* A value that this log never passes through: the PCRs started again. */
    since.before = forge->pcrs;
    since.before.value[4][31] ^= 1;
    assert_int_equal(change_of(forge, &since), VERIFY_CHANGE_HIBERNATED);
    since.no_before = true;
    assert_int_equal(change_of(forge, &since), VERIFY_CHANGE_RESTARTED);
    since.no_before = false;
    /* Fewer PCRs than now, or another bank: nothing to compare. */
    since.before = forge->pcrs;
    since.before.sel.mask &= ~1U;
    assert_int_equal(change_of(forge, &since), VERIFY_CHANGE_RESTARTED);
    since.before.sel = (struct parse_pcr_sel){PARSE_ALG_SHA384, forge->pcrs.sel.mask};
    assert_int_equal(change_of(forge, &since), VERIFY_CHANGE_RESTARTED);
    since.before = forge->pcrs;
    since.previous.reset_count--;
    assert_int_equal(change_of(forge, &since), VERIFY_CHANGE_REBOOTED);
    /* Without a log nothing says where other values come from. */
    since.previous.reset_count++;
    since.before.value[4][31] ^= 1;
    forge->enrol_in.boot.logs = 0;
    forge->enrol_in.boot.boot_none = true;
    static const struct evidence_logs none;
    forge->enrol_in.quoted.logs = &none;
    assert_int_equal(change_of(forge, &since), VERIFY_CHANGE_RESTARTED);
    forge_free(forge);
}

/* An operator's quote is judged by the same steps. */
static void test_user_quote(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ENROL);
    forge_build(forge, NULL);
    struct verify_enrol_in *in = &forge->enrol_in;
    struct verify_quote_facts facts;
    {
        verify_autoverdict *verdict = verify_verdict_new();
        assert_int_equal(
            verify_quote(&in->quoted, in->ak_pub, in->expected_extra, &in->boot, verdict, &facts),
            VERIFY_ACCEPTED);
        assert_string_equal(facts.boot, "forge");
    }
    {
        verify_autoverdict *verdict = verify_verdict_new();
        memset(wrong, 1, sizeof(wrong));
        assert_int_equal(verify_quote(&in->quoted, in->ak_pub, ATT_SLICE_ARRAY(wrong), &in->boot,
                                      verdict, &facts),
                         VERIFY_REFUSED);
        assert_refused(verdict, VERIFY_REASON_QUOTE_NONCE, "another nonce");
    }
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases), cmocka_unit_test(test_change),
                                       cmocka_unit_test(test_user_quote)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
