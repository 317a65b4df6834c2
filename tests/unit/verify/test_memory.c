/* What only a memory key's statement (fmt attestd-host) can have wrong, and what its verdict says
 * of the checks that it has not. The cases that it shares with a TPM's key are in test_agent.c. */
#include "tests/unit/verify/harness.h"

#include "attestd/base/enc.h"
#include "provision/evidence/attobj.h"
#include "provision/evidence/cbor.h"
#include "provision/evidence/formula.h"

#define AT(s)                                                                                      \
    if (stage != (s)) {                                                                            \
        return;                                                                                    \
    }

static EVP_PKEY *stranger;

static void set_attobj(struct forge *f, const struct evidence_attobj *attobj)
{
    struct att_buf fresh = {0};
    struct att_err err = {0};
    if (evidence_attobj_encode(attobj, &fresh, &err)) {
        fail_msg("%s", err.msg);
    }
    att_buf_done(&f->att_obj);
    f->att_obj = fresh;
    f->agent_in.att_obj = att_buf_slice(&f->att_obj);
}

/* ---- who says what kind it is ---------------------------------------------------------------- */

static void profile_tpm_only(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.key_stores = VERIFY_KEY_TPM | VERIFY_KEY_HSM;
}

static void entry_says_tpm(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.key_stores = VERIFY_KEY_TPM | VERIFY_KEY_MEMORY;
    f->agent_in.entry_store = VERIFY_KEY_TPM;
}

/* A key that its agent is given is no memory key: the profile and the entry each must say it. */
static void exportable(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_EVIDENCE) {
        memcpy(f->statement.key_store, "exportable", 11);
    }
}

static void profile_says_memory(struct forge *f, enum forge_stage stage)
{
    exportable(f, stage);
    AT(FORGE_DONE)
    f->agent_in.key_stores = VERIFY_KEY_TPM | VERIFY_KEY_HSM | VERIFY_KEY_MEMORY;
}

static void only_profile_says_exportable(struct forge *f, enum forge_stage stage)
{
    exportable(f, stage);
    AT(FORGE_DONE)
    f->agent_in.key_stores = VERIFY_KEY_MEMORY | VERIFY_KEY_EXPORTABLE;
    f->agent_in.entry_store = VERIFY_KEY_MEMORY;
}

static void entry_says_exportable(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.key_stores = VERIFY_KEY_MEMORY | VERIFY_KEY_EXPORTABLE;
    f->agent_in.entry_store = VERIFY_KEY_EXPORTABLE;
}

static void entry_says_memory(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.key_stores = VERIFY_KEY_TPM | VERIFY_KEY_MEMORY;
    f->agent_in.entry_store = VERIFY_KEY_MEMORY;
}

/* The statement is a TPM's, the evidence speaks of a key in memory. */
static void evidence_says_memory(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_EVIDENCE) {
        memcpy(f->statement.key_store, "memory", 7);
        f->statement.key_name_len = 0;
        f->statement.has_key_spki = true;
    }
    entry_says_memory(f, stage);
}

/* The other way round. */
static void evidence_says_tpm(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_EVIDENCE) {
        memcpy(f->statement.key_store, "tpm", 4);
        f->statement.has_key_spki = false;
        memcpy(f->statement.key_name, f->agent.name.bytes, f->agent.name.len);
        f->statement.key_name_len = f->agent.name.len;
    }
    if (stage == FORGE_DONE) {
        f->agent_in.key_stores = VERIFY_KEY_TPM | VERIFY_KEY_MEMORY;
    }
}

static void evidence_says_hsm(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_EVIDENCE) {
        memcpy(f->statement.key_store, "hsm", 4);
    }
    if (stage == FORGE_DONE) {
        f->agent_in.key_stores = VERIFY_KEY_HSM | VERIFY_KEY_MEMORY;
    }
}

/* ---- which key ------------------------------------------------------------------------------- */

/* A TPM's evidence with the one word changed: keyName, and no keySpki. */
static void no_digest(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    struct forge *tpm = forge_new(FORGE_EK_P256, FORGE_ORDER);
    forge_build(tpm, NULL);
    const uint8_t *at = memmem(tpm->evidence.ptr, tpm->evidence.len, "\x63tpm", 4);
    assert_non_null(at);
    size_t before = (size_t)(at - tpm->evidence.ptr);
    att_buf_reset(&f->evidence);
    att_buf_put(&f->evidence, tpm->evidence.ptr, before);
    att_buf_put_str(&f->evidence, "\x66memory");
    att_buf_put(&f->evidence, at + 4, tpm->evidence.len - before - 4);
    f->agent_in.evidence = att_buf_slice(&f->evidence);
    forge_free(tpm);
}

static void digest_of_another_key(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_EVIDENCE)
    f->statement.key_spki[0] ^= 1;
}

/* The quote speaks for the host's key; what came is the attacker's. */
static void another_key(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    att_autobuf spki = {0};
    forge_spki(stranger, &spki);
    struct evidence_attobj attobj = {.fmt = EVIDENCE_FMT_HOST,
                                     .x5c = {att_buf_slice(&f->ak_cert)},
                                     .x5c_len = 1,
                                     .spki = att_buf_slice(&spki)};
    set_attobj(f, &attobj);
}

static void key_off_the_curve(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    att_autobuf spki = {0};
    forge_spki(f->agent.pkey, &spki);
    spki.ptr[spki.len - 1] ^= 1;
    struct evidence_attobj attobj = {.fmt = EVIDENCE_FMT_HOST,
                                     .x5c = {att_buf_slice(&f->ak_cert)},
                                     .x5c_len = 1,
                                     .spki = att_buf_slice(&spki)};
    set_attobj(f, &attobj);
}

static void key_with_a_byte_more(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    att_autobuf spki = {0};
    forge_spki(f->agent.pkey, &spki);
    att_buf_u8(&spki, 0);
    struct evidence_attobj attobj = {.fmt = EVIDENCE_FMT_HOST,
                                     .x5c = {att_buf_slice(&f->ak_cert)},
                                     .x5c_len = 1,
                                     .spki = att_buf_slice(&spki)};
    set_attobj(f, &attobj);
}

/* ---- what does not belong to it -------------------------------------------------------------- */

/* As a member beside the others, in its place of the deterministic order. */
static void smuggle(struct forge *f, const char *name, struct att_slice bytes)
{
    att_autobuf spki = {0};
    forge_spki(f->agent.pkey, &spki);
    att_buf_reset(&f->att_obj);
    evidence_cbor_put_map(&f->att_obj, 2);
    evidence_cbor_put_text(&f->att_obj, "fmt");
    evidence_cbor_put_text(&f->att_obj, "attestd-host");
    evidence_cbor_put_text(&f->att_obj, "attStmt");
    evidence_cbor_put_map(&f->att_obj, 4);
    evidence_cbor_put_text(&f->att_obj, "ver");
    evidence_cbor_put_text(&f->att_obj, "1.0");
    evidence_cbor_put_text(&f->att_obj, "x5c");
    evidence_cbor_put_array(&f->att_obj, 1);
    evidence_cbor_put_bytes(&f->att_obj, att_buf_slice(&f->ak_cert));
    evidence_cbor_put_text(&f->att_obj, "spki");
    evidence_cbor_put_bytes(&f->att_obj, att_buf_slice(&spki));
    evidence_cbor_put_text(&f->att_obj, name);
    evidence_cbor_put_bytes(&f->att_obj, bytes);
    f->agent_in.att_obj = att_buf_slice(&f->att_obj);
}

static void certinfo_in_attobj(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    smuggle(f, "certInfo", att_buf_slice(&f->quote_bytes));
}

static void pubarea_in_attobj(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    smuggle(f, "pubArea", att_buf_slice(&f->agent.area));
}

/* As attestctl gives it: apart. */
static void certinfo_apart(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.att_obj = (struct att_slice){0};
    f->agent_in.ak_cert = att_buf_slice(&f->ak_cert);
    att_buf_reset(&f->scratch);
    forge_spki(f->agent.pkey, &f->scratch);
    f->agent_in.spki = att_buf_slice(&f->scratch);
    f->agent_in.cert_info = att_buf_slice(&f->quote_bytes);
}

static void honest_apart(struct forge *f, enum forge_stage stage)
{
    certinfo_apart(f, stage);
    f->agent_in.cert_info = (struct att_slice){0};
}

static void srk_beside(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.srk_pub = att_buf_slice(&f->srk.area);
}

/* The quote was made for a statement with a certInfo, which was then left out. */
static void quote_for_a_certinfo(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    evidence_quote_extra(f->quote_extra, att_slice_str(f->quoted_key_authorization),
                         ATT_SLICE_LIT("a certInfo"), att_buf_slice(&f->evidence));
}

static void policy_demanded(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.parent_policy = ATT_SLICE(f->parent.pub.policy, f->parent.pub.policy_len);
}

static const struct {
    struct forged_case c;
    bool tpm; /* the statement is a TPM's */
    const char *says;
} cases[] = {
    {{"honest", NULL, VERIFY_REASON_NONE}, false, NULL},
    {{"honest, entry says so", entry_says_memory, VERIFY_REASON_NONE}, false, NULL},
    {{"honest, apart", honest_apart, VERIFY_REASON_NONE}, false, NULL},
    {{"profile allows memory, key is exportable", profile_says_memory, VERIFY_REASON_KEY_STORE},
     false,
     "the profile does not allow keys of kind \"exportable\""},
    {{"entry says memory, key is exportable", only_profile_says_exportable,
      VERIFY_REASON_KEY_STORE},
     false,
     "the agent's entry says \"memory\""},
    {{"entry says exportable, key is memory", entry_says_exportable, VERIFY_REASON_KEY_STORE},
     false,
     "the agent's entry says \"exportable\""},
    {{"profile allows none", profile_tpm_only, VERIFY_REASON_KEY_STORE},
     false,
     "the profile does not allow keys of kind \"memory\""},
    {{"entry says tpm", entry_says_tpm, VERIFY_REASON_KEY_STORE},
     false,
     "the agent's entry says \"tpm\""},
    {{"TPM's key, entry says memory", entry_says_memory, VERIFY_REASON_KEY_STORE},
     true,
     "the agent's entry says \"memory\""},
    {{"evidence memory, fmt tpm", evidence_says_memory, VERIFY_REASON_KEY_STORE},
     true,
     "keyStore \"memory\", for which a statement of fmt \"tpm\""},
    {{"evidence tpm, fmt attestd-host", evidence_says_tpm, VERIFY_REASON_KEY_STORE},
     false,
     "keyStore \"tpm\", for which a statement of fmt \"attestd-host\""},
    {{"evidence hsm, fmt attestd-host", evidence_says_hsm, VERIFY_REASON_KEY_STORE},
     false,
     "keyStore \"hsm\""},
    {{"no digest", no_digest, VERIFY_REASON_MALFORMED}, false, "goes with keySpki"},
    {{"digest of another key", digest_of_another_key, VERIFY_REASON_EVIDENCE_MISMATCH},
     false,
     "another key"},
    {{"another key", another_key, VERIFY_REASON_EVIDENCE_MISMATCH}, false, "another key"},
    {{"key off the curve", key_off_the_curve, VERIFY_REASON_MALFORMED}, false, "spki"},
    {{"key with a byte more", key_with_a_byte_more, VERIFY_REASON_MALFORMED}, false, "spki"},
    {{"certInfo in attObj", certinfo_in_attobj, VERIFY_REASON_MALFORMED},
     false,
     "\"certInfo\" is no member of fmt attestd-host"},
    {{"pubArea in attObj", pubarea_in_attobj, VERIFY_REASON_MALFORMED},
     false,
     "\"pubArea\" is no member of fmt attestd-host"},
    {{"certInfo apart", certinfo_apart, VERIFY_REASON_MALFORMED}, false, "certInfo"},
    {{"srkPub beside", srk_beside, VERIFY_REASON_MALFORMED}, false, "srkPub"},
    {{"quote for a certInfo", quote_for_a_certinfo, VERIFY_REASON_QUOTE_NONCE}, false, "extraData"},
    {{"policy demanded", policy_demanded, VERIFY_REASON_KEY_PARENT}, false, "in no TPM"},
};

static void test_cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct forge *f = forge_new(FORGE_EK_P256, FORGE_ORDER);
        verify_autoverdict *verdict = verify_verdict_new();
        f->memory = !cases[i].tpm;
        forge_build(f, cases[i].c.mutate);
        enum verify_result result = verify_agent(&f->agent_in, verdict, NULL);
        if (cases[i].c.reason == VERIFY_REASON_NONE) {
            assert_accepted(verdict, cases[i].c.name);
            assert_int_equal(result, VERIFY_ACCEPTED);
        } else {
            assert_refused(verdict, cases[i].c.reason, cases[i].c.name);
            assert_int_equal(result, VERIFY_REFUSED);
            const char *detail = verify_verdict_refusal(verdict)->detail;
            if (!strstr(detail, cases[i].says)) {
                fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].c.name, detail, cases[i].says);
            }
        }
        forge_free(f);
    }
}

/* Six checks are not there, and the verdict says of each why; every other one passes, but for those
 * of who signed the policy, which nobody demands here. */
static void test_what_is_skipped(void **state)
{
    (void)state;
    static const enum verify_reason skipped[] = {
        VERIFY_REASON_CERTIFY_TYPE, VERIFY_REASON_CERTIFY_SIGNATURE, VERIFY_REASON_CERTIFY_NONCE,
        VERIFY_REASON_CERTIFY_NAME, VERIFY_REASON_KEY_ATTRIBUTES,    VERIFY_REASON_KEY_PARENT};
    struct forge *f = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    struct verify_agent_facts facts = {0};
    att_autobuf spki = {0};
    f->memory = true;
    forge_build(f, NULL);
    assert_int_equal(verify_agent(&f->agent_in, verdict, &facts), VERIFY_ACCEPTED);
    assert_int_equal(verdict->n_checks, 31);
    for (size_t i = 0; i < verdict->n_checks; i++) {
        const struct verify_check *check = &verdict->checks[i];
        bool may_skip = false;
        for (size_t n = 0; n < sizeof(skipped) / sizeof(skipped[0]); n++) {
            may_skip = may_skip || check->reason == skipped[n];
        }
        bool signature = check->reason == VERIFY_REASON_POLICY_UNSIGNED ||
                         check->reason == VERIFY_REASON_POLICY_SIGNER ||
                         check->reason == VERIFY_REASON_KEY_HSM; /* and in no HSM */
        assert_int_equal(check->outcome, may_skip || signature ? VERIFY_SKIP : VERIFY_PASS);
        assert_true(!may_skip || strstr(check->detail, "in the host's memory"));
    }
    assert_string_equal(facts.key_store, "memory");
    assert_int_equal(facts.key_name.len, 0);
    forge_spki(f->agent.pkey, &spki);
    assert_true(att_slice_eq(ATT_SLICE(facts.spki, facts.spki_len), att_buf_slice(&spki)));
    forge_free(f);
}

static void test_exportable_is_said(void **state)
{
    (void)state;
    struct forge *f = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    struct verify_agent_facts facts = {0};
    f->memory = f->exportable = true;
    forge_build(f, NULL);
    f->agent_in.entry_store = VERIFY_KEY_EXPORTABLE;
    assert_int_equal(verify_agent(&f->agent_in, verdict, &facts), VERIFY_ACCEPTED);
    assert_string_equal(facts.key_store, "exportable");
    forge_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases),
                                       cmocka_unit_test(test_what_is_skipped),
                                       cmocka_unit_test(test_exportable_is_said)};
    stranger = forge_p256();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    EVP_PKEY_free(stranger);
    return failed;
}
