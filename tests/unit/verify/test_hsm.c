/* What only an HSM key's statement (fmt attestd-hsm) can have wrong. The cases that it shares with
 * a TPM's key and a memory key are in test_agent.c and test_memory.c. */
#include "tests/unit/verify/harness.h"

#include "provision/evidence/attobj.h"
#include "provision/evidence/formula.h"

#define AT(s)                                                                                      \
    if (stage != (s)) {                                                                            \
        return;                                                                                    \
    }

static EVP_PKEY *stranger;

static void entry_says_hsm(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.entry_store = VERIFY_KEY_HSM;
}
static void entry_says_tpm(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.key_stores = VERIFY_KEY_HSM | VERIFY_KEY_TPM;
    f->agent_in.entry_store = VERIFY_KEY_TPM;
}
static void profile_without(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.key_stores = VERIFY_KEY_TPM | VERIFY_KEY_MEMORY;
}
static void says_memory(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_EVIDENCE) {
        memcpy(f->statement.key_store, "memory", 7);
    }
    if (stage == FORGE_DONE) {
        f->agent_in.key_stores = VERIFY_KEY_HSM | VERIFY_KEY_MEMORY;
    }
}

/* ---- which module ---- */

static const char *const two[] = {"vault", "payments"};
static const char *const other[] = {"vault"};
static void in_payments(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_EVIDENCE) {
        memcpy(f->statement.hsm, "payments", 9);
    }
}
static void with_token(struct forge *f, enum forge_stage stage)
{
    in_payments(f, stage);
    if (stage == FORGE_EVIDENCE) {
        f->statement.has_hsm_token = true;
        f->statement.hsm_token = (struct evidence_hsm_token){"Maker", "Model 7", "0815"};
    }
}
/* Changed after the AK had quoted it. */
static void token_changed(struct forge *f, enum forge_stage stage)
{
    with_token(f, stage);
    AT(FORGE_DONE)
    uint8_t *at = memmem(f->evidence.ptr, f->evidence.len, "Model 7", 7);
    assert_non_null(at);
    at[6] = '8';
    f->agent_in.evidence = att_buf_slice(&f->evidence);
}
static void profile_names(struct forge *f, const char *const *hsms, size_t n)
{
    f->agent_in.hsms = hsms;
    f->agent_in.n_hsms = n;
}
static void profile_with_module(struct forge *f, enum forge_stage stage)
{
    in_payments(f, stage);
    AT(FORGE_DONE)
    profile_names(f, two, 2);
    f->agent_in.entry_hsm = "payments";
}
static void profile_without_module(struct forge *f, enum forge_stage stage)
{
    in_payments(f, stage);
    AT(FORGE_DONE)
    profile_names(f, other, 1);
}
static void entry_names_another(struct forge *f, enum forge_stage stage)
{
    in_payments(f, stage);
    AT(FORGE_DONE)
    f->agent_in.entry_hsm = "vault";
}
/* Of a host of a version before. */
static void not_said(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    profile_names(f, two, 2);
}
static void not_said_entry_names(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.entry_hsm = "vault";
}
/* Changed after the AK had quoted it. */
static void module_changed(struct forge *f, enum forge_stage stage)
{
    in_payments(f, stage);
    AT(FORGE_DONE)
    uint8_t *at = memmem(f->evidence.ptr, f->evidence.len, "payments", 8);
    assert_non_null(at);
    memcpy(at, "paymentz", 8);
    f->agent_in.evidence = att_buf_slice(&f->evidence);
}

/* ---- the signature ---- */

static void signed_by_another(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_CERTIFY)
    f->hsm_signer = stranger;
}
static void signed_for_another_order(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->certified_key_authorization = "another-token-of-this-account.thumbprint";
}
static void signature_flipped(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    f->certify_sig.ptr[63] ^= 1;
}
static void signature_short(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    f->certify_sig.len = 63;
}
/* Changed after the key had signed, and quoted as changed: a keyd that lies about the module. */
static void attributes_changed(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_EVIDENCE)
    uint8_t *at = memmem(f->certify_bytes.ptr, f->certify_bytes.len, "modifiable", 10);
    assert_non_null(at);
    assert_int_equal(at[10], 0xf4);
    at[10] = 0xf5;
}
/* The quote was made for no attributes. */
static void quote_without_attributes(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_QUOTE)
    evidence_quote_extra(f->quote_extra, att_slice_str(f->quoted_key_authorization),
                         (struct att_slice){0}, att_buf_slice(&f->evidence));
}

/* ---- what the module states ---- */

static enum evidence_hsm_attr which;
static void stated_false(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_CERTIFY)
    f->attrs.holds &= ~(1u << which);
}
static void stated_true(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_CERTIFY)
    f->attrs.holds |= 1u << which;
}
static void not_stated(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_CERTIFY)
    f->attrs.holds &= ~(1u << which);
    f->attrs.stated &= ~(1u << which);
}
static void attributes_no_cbor(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_EVIDENCE)
    f->certify_bytes.ptr[0] = 0x9f;
}
static void policy_demanded(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.parent_policy = ATT_SLICE(f->parent.pub.policy, f->parent.pub.policy_len);
}
static void srk_beside(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->agent_in.srk_pub = att_buf_slice(&f->srk.area);
}

static void run(const char *name, forge_mutate mutate, enum verify_reason reason, const char *says)
{
    struct forge *f = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    f->memory = f->hsm = true;
    forge_build(f, mutate);
    enum verify_result result = verify_agent(&f->agent_in, verdict, NULL);
    if (reason == VERIFY_REASON_NONE) {
        assert_accepted(verdict, name);
        assert_int_equal(result, VERIFY_ACCEPTED);
    } else {
        assert_refused(verdict, reason, name);
        assert_int_equal(result, VERIFY_REFUSED);
        const char *detail = verify_verdict_refusal(verdict)->detail;
        if (!strstr(detail, says)) {
            fail_msg("%s: \"%s\" does not say \"%s\"", name, detail, says);
        }
    }
    forge_free(f);
}

static void test_cases(void **state)
{
    (void)state;
    run("honest", NULL, VERIFY_REASON_NONE, NULL);
    run("honest, entry says so", entry_says_hsm, VERIFY_REASON_NONE, NULL);
    run("entry says tpm", entry_says_tpm, VERIFY_REASON_KEY_STORE, "entry says \"tpm\"");
    run("profile without", profile_without, VERIFY_REASON_KEY_STORE, "does not allow");
    run("evidence says memory", says_memory, VERIFY_REASON_KEY_STORE,
        "keyStore \"memory\", for which a statement of fmt \"attestd-hsm\"");
    run("profile names the module", profile_with_module, VERIFY_REASON_NONE, NULL);
    run("module said, none named", in_payments, VERIFY_REASON_NONE, NULL);
    run("profile names another module", profile_without_module, VERIFY_REASON_KEY_HSM,
        "does not allow keys in the HSM module \"payments\"");
    run("entry names another module", entry_names_another, VERIFY_REASON_KEY_HSM,
        "entry says \"vault\"");
    run("module not said", not_said, VERIFY_REASON_KEY_HSM, "does not say");
    run("module not said, entry names one", not_said_entry_names, VERIFY_REASON_NONE, NULL);
    run("module changed after the quote", module_changed, VERIFY_REASON_QUOTE_NONCE, "extraData");
    run("token changed after the quote", token_changed, VERIFY_REASON_QUOTE_NONCE, "extraData");
    run("another key's signature", signed_by_another, VERIFY_REASON_CERTIFY_SIGNATURE,
        "not the key's");
    run("another order's", signed_for_another_order, VERIFY_REASON_CERTIFY_SIGNATURE,
        "not the key's");
    run("signature flipped", signature_flipped, VERIFY_REASON_CERTIFY_SIGNATURE, "not the key's");
    run("signature of 63 bytes", signature_short, VERIFY_REASON_MALFORMED, "63 bytes");
    run("attributes changed", attributes_changed, VERIFY_REASON_CERTIFY_SIGNATURE, "not the key's");
    run("attributes are none", attributes_no_cbor, VERIFY_REASON_MALFORMED, "attributes");
    run("quote without them", quote_without_attributes, VERIFY_REASON_QUOTE_NONCE, "extraData");
    run("policy demanded", policy_demanded, VERIFY_REASON_KEY_PARENT, "in no TPM");
    run("srkPub beside", srk_beside, VERIFY_REASON_MALFORMED, "srkPub");
}

static void test_attributes(void **state)
{
    (void)state;
    static const enum evidence_hsm_attr must[] = {EVIDENCE_HSM_LOCAL,
                                                  EVIDENCE_HSM_ALWAYS_SENSITIVE,
                                                  EVIDENCE_HSM_NEVER_EXTRACTABLE,
                                                  EVIDENCE_HSM_SENSITIVE,
                                                  EVIDENCE_HSM_TOKEN,
                                                  EVIDENCE_HSM_PRIVATE,
                                                  EVIDENCE_HSM_SIGN};
    static const enum evidence_hsm_attr must_not[] = {
        EVIDENCE_HSM_EXTRACTABLE, EVIDENCE_HSM_DECRYPT, EVIDENCE_HSM_UNWRAP, EVIDENCE_HSM_DERIVE};
    for (size_t i = 0; i < sizeof(must) / sizeof(must[0]); i++) {
        which = must[i];
        run("stated false", stated_false, VERIFY_REASON_KEY_ATTRIBUTES, "is false, expected true");
        run("not stated", not_stated, VERIFY_REASON_KEY_ATTRIBUTES, "does not state");
    }
    for (size_t i = 0; i < sizeof(must_not) / sizeof(must_not[0]); i++) {
        which = must_not[i];
        run("stated true", stated_true, VERIFY_REASON_KEY_ATTRIBUTES, "is true, expected false");
    }
    which = EVIDENCE_HSM_EXTRACTABLE;
    run("not stated", not_stated, VERIFY_REASON_KEY_ATTRIBUTES, "does not state");
    which = EVIDENCE_HSM_COPYABLE; /* of a later version of PKCS#11: may be unknown */
    run("not stated", not_stated, VERIFY_REASON_NONE, NULL);
}

static void test_what_is_said(void **state)
{
    (void)state;
    struct forge *f = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *verdict = verify_verdict_new();
    struct verify_agent_facts facts = {0};
    size_t skipped = 0;
    f->memory = f->hsm = true;
    forge_build(f, NULL);
    assert_int_equal(verify_agent(&f->agent_in, verdict, &facts), VERIFY_ACCEPTED);
    for (size_t i = 0; i < verdict->n_checks; i++) {
        skipped += verdict->checks[i].outcome == VERIFY_SKIP;
    }
    /* keyHsm, certifyType, certifyName, keyParent; policyUnsigned, -Signer */
    assert_int_equal(skipped, 6);
    assert_string_equal(facts.key_store, "hsm");
    assert_string_equal(facts.hsm, "");
    forge_free(f);
    f = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *said = verify_verdict_new();
    f->memory = f->hsm = true;
    forge_build(f, in_payments);
    assert_int_equal(verify_agent(&f->agent_in, said, &facts), VERIFY_ACCEPTED);
    assert_string_equal(facts.hsm, "payments");
    assert_false(facts.has_hsm_token); /* of a host of before */
    forge_free(f);
    f = forge_new(FORGE_EK_P256, FORGE_ORDER);
    verify_autoverdict *with = verify_verdict_new();
    f->memory = f->hsm = true;
    forge_build(f, with_token);
    assert_int_equal(verify_agent(&f->agent_in, with, &facts), VERIFY_ACCEPTED);
    assert_true(facts.has_hsm_token);
    assert_string_equal(facts.hsm_token.manufacturer, "Maker");
    assert_string_equal(facts.hsm_token.model, "Model 7");
    assert_string_equal(facts.hsm_token.serial, "0815");
    bool told = false;
    for (size_t i = 0; i < with->n_checks; i++) {
        told =
            told || (with->checks[i].reason == VERIFY_REASON_KEY_HSM &&
                     strstr(with->checks[i].detail, "by the module's word: manufacturer "
                                                    "\"Maker\", model \"Model 7\", serial number "
                                                    "\"0815\""));
    }
    assert_true(told);
    forge_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases),
                                       cmocka_unit_test(test_attributes),
                                       cmocka_unit_test(test_what_is_said)};
    stranger = forge_p256();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    EVP_PKEY_free(stranger);
    return failed;
}
