/* Every byte of everything that a host sends is changed in turn; each change is refused, and for a
 * reason that has to do with the thing changed. */
#include "tests/unit/verify/harness.h"

typedef enum verify_result (*judge_fn)(struct forge *forge, struct verify_verdict *verdict);

static enum verify_result judge_agent(struct forge *forge, struct verify_verdict *verdict)
{
    return verify_agent(&forge->agent_in, verdict, NULL);
}

static enum verify_result judge_enrol(struct forge *forge, struct verify_verdict *verdict)
{
    return verify_enrol(&forge->enrol_in, verdict, NULL, NULL);
}

static enum verify_result judge_ek(struct forge *forge, struct verify_verdict *verdict)
{
    return verify_ek(&forge->ek_in, verdict, NULL);
}

#define MAX_REASONS 12

static void flip_all(struct forge *forge, judge_fn judge, const char *what, uint8_t *bytes,
                     size_t len, const enum verify_reason reasons[MAX_REASONS])
{
    assert_true(len > 0);
    for (size_t i = 0; i < len; i++) {
        uint8_t bit = (uint8_t)(1U << (i % 8));
        bytes[i] ^= bit;
        verify_autoverdict *verdict = verify_verdict_new();
        if (judge(forge, verdict) != VERIFY_REFUSED) {
            fail_msg("%s: byte %zu xor %02x is accepted", what, i, bit);
        }
        const struct verify_check *refusal = verify_verdict_refusal(verdict);
        bool sensible = false;
        for (size_t n = 0; n < MAX_REASONS && reasons[n]; n++) {
            sensible = sensible || refusal->reason == reasons[n];
        }
        if (!sensible || refusal->outcome != VERIFY_FAIL || !refusal->detail[0]) {
            print_verdict(verdict);
            fail_msg("%s: byte %zu xor %02x is refused by %s", what, i, bit,
                     verify_reason_word(refusal->reason));
        }
        bytes[i] ^= bit;
    }
    verify_autoverdict *verdict = verify_verdict_new();
    assert_int_equal(judge(forge, verdict), VERIFY_ACCEPTED); /* all is as it was */
}

#define R(word) VERIFY_REASON_##word

static void test_agent(void **state)
{
    (void)state;
    struct forge *f = forge_new(FORGE_EK_P256, FORGE_ORDER);
    forge_build(f, NULL);
    flip_all(f, judge_agent, "attObj", f->att_obj.ptr, f->att_obj.len,
             (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(AK_UNKNOWN), R(CERTIFY_TYPE),
                                               R(CERTIFY_SIGNATURE), R(CERTIFY_NAME),
                                               R(KEY_ATTRIBUTES)});
    flip_all(f, judge_agent, "evidence", f->evidence.ptr, f->evidence.len,
             (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(KEY_STORE), R(QUOTE_NONCE)});
    flip_all(f, judge_agent, "quote.attest", f->quote_bytes.ptr, f->quote_bytes.len,
             (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(QUOTE_MAGIC), R(QUOTE_TYPE),
                                               R(QUOTE_SIGNATURE)});
    flip_all(f, judge_agent, "quote.sig", f->quote_sig.ptr, f->quote_sig.len,
             (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(QUOTE_SIGNATURE)});
    flip_all(f, judge_agent, "srkPub", f->srk.area.ptr, f->srk.area.len,
             (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(KEY_PARENT)});
    flip_all(f, judge_agent, "parentPub", f->parent.area.ptr, f->parent.area.len,
             (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(KEY_PARENT)});
    flip_all(f, judge_agent, "akPub", f->ak.area.ptr, f->ak.area.len,
             (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(AK_UNKNOWN), R(AK_ATTRIBUTES),
                                               R(AK_HIERARCHY)});
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        if (f->pcrs.sel.mask & (1U << pcr)) {
            flip_all(f, judge_agent, "pcrs", f->pcrs.value[pcr], ATT_SHA256_LEN,
                     (enum verify_reason[MAX_REASONS]){R(PCR_DIGEST)});
        }
    }
    flip_all(f, judge_agent, "log", f->logs.log[0].data.ptr, f->logs.log[0].data.len,
             (enum verify_reason[MAX_REASONS]){R(LOG_MISSING)});
    flip_all(f, judge_agent, "log digest", f->logs.log[0].sha256, ATT_SHA256_LEN,
             (enum verify_reason[MAX_REASONS]){R(EVIDENCE_MISMATCH)});
    forge_free(f);
}

static void test_memory(void **state)
{
    (void)state;
    struct forge *f = forge_new(FORGE_EK_P256, FORGE_ORDER);
    f->memory = true;
    forge_build(f, NULL);
    flip_all(f, judge_agent, "attObj", f->att_obj.ptr, f->att_obj.len,
             (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(AK_UNKNOWN), R(EVIDENCE_MISMATCH)});
    flip_all(f, judge_agent, "evidence", f->evidence.ptr, f->evidence.len,
             (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(KEY_STORE), R(QUOTE_NONCE)});
    flip_all(f, judge_agent, "quote.attest", f->quote_bytes.ptr, f->quote_bytes.len,
             (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(QUOTE_MAGIC), R(QUOTE_TYPE),
                                               R(QUOTE_SIGNATURE)});
    flip_all(f, judge_agent, "quote.sig", f->quote_sig.ptr, f->quote_sig.len,
             (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(QUOTE_SIGNATURE)});
    forge_free(f);
}

/* Even where manifest and evidence agree with the changed log (the host signs what it likes), the
 * PCRs do not, or the grammar does not. Only the payloads that no digest covers are comments. */
static size_t changed_at;
static uint8_t changed_by;

static void change_log(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_LOG) {
        size_t at = changed_at;
        for (size_t i = 0; i < f->n_events; i++) {
            if (at < ATT_SHA256_LEN) {
                f->events[i].digest[at] ^= changed_by;
                return;
            }
            at -= ATT_SHA256_LEN;
        }
    }
}

static void test_log_digests(void **state)
{
    (void)state;
    struct forge *count = forge_new(FORGE_EK_P256, FORGE_ENROL);
    size_t n = count->n_events * ATT_SHA256_LEN;
    forge_free(count);
    for (changed_at = 0; changed_at < n; changed_at += 7) {
        changed_by = (uint8_t)(1U << (changed_at % 8));
        struct forge *f = forge_new(FORGE_EK_P256, FORGE_ENROL);
        forge_build(f, change_log);
        verify_autoverdict *verdict = verify_verdict_new();
        assert_int_equal(verify_enrol(&f->enrol_in, verdict, NULL, NULL), VERIFY_REFUSED);
        assert_refused(verdict, VERIFY_REASON_LOG_REPLAY, "digest of an event");
        forge_free(f);
    }
}

static void test_enrol(void **state)
{
    (void)state;
    struct forge *f = forge_new(FORGE_EK_P256, FORGE_ENROL);
    forge_build(f, NULL);
    uint8_t proof[ATT_SHA256_LEN];
    memcpy(proof, f->proof, sizeof(proof));
    f->enrol_in.proof = ATT_SLICE_ARRAY(proof);
    flip_all(f, judge_enrol, "proof", proof, sizeof(proof),
             (enum verify_reason[MAX_REASONS]){R(ACTIVATION)});
    flip_all(f, judge_enrol, "quote.attest", f->quote_bytes.ptr, f->quote_bytes.len,
             (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(QUOTE_MAGIC), R(QUOTE_TYPE),
                                               R(QUOTE_SIGNATURE)});
    flip_all(f, judge_enrol, "quote.sig", f->quote_sig.ptr, f->quote_sig.len,
             (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(QUOTE_SIGNATURE)});
    flip_all(f, judge_enrol, "akPub", f->ak.area.ptr, f->ak.area.len,
             (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(AK_ATTRIBUTES), R(QUOTE_SIGNATURE),
                                               R(AK_HIERARCHY)});
    forge_free(f);
}

static void test_ek(void **state)
{
    (void)state;
    static const enum forge_ek kinds[] = {FORGE_EK_P256, FORGE_EK_RSA};
    for (size_t i = 0; i < 2; i++) {
        struct forge *f = forge_new(kinds[i], FORGE_ENROL);
        forge_build(f, NULL);
        flip_all(
            f, judge_ek, "ekPub", f->ek.area.ptr, f->ek.area.len,
            (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(EK_TEMPLATE), R(EK_CERT_MISMATCH)});
        flip_all(f, judge_ek, "ekCert", f->ek_cert.ptr, f->ek_cert.len,
                 (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(EK_CHAIN)});
        flip_all(f, judge_ek, "ekChain", f->chain_der.ptr, f->chain_der.len,
                 (enum verify_reason[MAX_REASONS]){R(MALFORMED), R(EK_CHAIN)});
        forge_free(f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_agent), cmocka_unit_test(test_memory),
                                       cmocka_unit_test(test_log_digests),
                                       cmocka_unit_test(test_enrol), cmocka_unit_test(test_ek)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
