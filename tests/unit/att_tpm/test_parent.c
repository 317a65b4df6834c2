/* tpm/parent: what stands under the storage parent is loaded in an approved boot, and in no other.
 */
#include "attestd/base/io.h"
#include "tests/unit/att_tpm/sealing.h"
#include "tpm/ak.h"
#include "tpm/certify.h"

#include <openssl/pem.h>

#define MASK (1u << 7 | 1u << 16)

static struct policy_key key;
static const struct swtpm_options without_certs = {.no_ek_cert = true};

static int setup(void **state)
{
    if (group_setup(state) != 0) {
        return -1;
    }
    policy_key_new(&key);
    return 0;
}

static int teardown(void **state)
{
    policy_key_done(&key);
    return group_teardown(state);
}

/* A TPM of its own, a parent in it, one key under that; PCRs as they are approved. */
struct bench {
    struct swtpm tpm;
    struct tpm_context *ctx;
    struct tpm_blob parent, child;
    struct parse_pcr_set pcrs;
};

static void bench_open(struct bench *b, const struct policy_spec *spec)
{
    *b = (struct bench){0};
    assert_ok(swtpm_new(&b->tpm, &without_certs, err));
    b->ctx = open_tpm(&b->tpm);
    b->pcrs = pcrs_now(b->ctx, MASK);
    if (spec->counter) {
        assert_ok(tpm_counter_define(b->ctx, spec->counter, COUNTER_AUTH, err));
    }
    assert_ok(tpm_parent_create(b->ctx, key.authorize, &b->parent, err));
    use_parent(b->ctx, &b->parent, &key, spec, &b->pcrs);
    create_key(b->ctx, &b->child);
}

/* As after a restart of the process: nothing loaded, nothing saved. */
static void bench_reopen(struct bench *b, const struct policy_spec *spec,
                         const struct parse_pcr_set *pcrs)
{
    tpm_context_free(b->ctx);
    b->ctx = open_tpm(&b->tpm);
    use_parent(b->ctx, &b->parent, &key, spec, pcrs);
}

static void bench_done(struct bench *b)
{
    tpm_context_free(b->ctx);
    tpm_blob_done(&b->parent);
    tpm_blob_done(&b->child);
    swtpm_done(&b->tpm);
}

static const struct policy_spec plain = {.version = 1};

/* ---- refusals ------------------------------------------------------------------------------ */

static void refuses_other_pcrs(void **state)
{
    struct bench b;
    struct att_err said = {0};
    tpm_autoblob more = {0};
    (void)state;
    bench_open(&b, &plain);
    assert_true(signs(b.ctx, &b.child));
    bench_reopen(&b, &plain, &b.pcrs);
    extend_pcr(b.ctx, 16, 1);
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "bootSealed");
    assert_refused(tpm_parent_probe(b.ctx, err), ATT_E_DENIED, "bootSealed");
    assert_refused(tpm_key_create(b.ctx, AUTH_A, &more, err), ATT_E_DENIED, "bootSealed");
    /* Which PCR, and of which policy. */
    assert_int_equal(tpm_parent_probe(b.ctx, &said), ATT_E_DENIED);
    assert_non_null(strstr(said.msg, "pcr16 is "));
    assert_non_null(strstr(said.msg, "boot good of PCR policy fleet version 1"));
    assert_null(strstr(said.msg, "pcr7"));
    /* A new policy lets the old key be used: no new key. */
    struct parse_pcr_set now = pcrs_now(b.ctx, MASK);
    use_parent(b.ctx, &b.parent, &key, &(struct policy_spec){.version = 2}, &now);
    assert_true(signs(b.ctx, &b.child));
    assert_int_equal(stats_of(b.ctx).version, 2);
    bench_done(&b);
}

static void refuses_without_any_policy(void **state)
{
    struct bench b;
    struct tpm_parent_policy none = {0};
    (void)state;
    bench_open(&b, &plain);
    assert_ok(tpm_parent_set(b.ctx, &b.parent, &none, err));
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "bootSealed");
    tpm_parent_unset(b.ctx);
    /* Its parent is no SRK. */
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "foreignParent");
    bench_done(&b);
}

/* The TPM's own word, past what software compares: values of now in the list, an approval of
 * others beneath. */
static void the_tpm_refuses_what_was_not_approved(void **state)
{
    struct bench b;
    struct policy_key stranger = {0};
    struct tpm_parent_policy policy = {0};
    struct parse_pcr_set now;
    (void)state;
    bench_open(&b, &plain);
    bench_reopen(&b, &plain, &b.pcrs);
    extend_pcr(b.ctx, 16, 1);
    now = pcrs_now(b.ctx, MASK);

    /* The branch was edited to these PCRs: the signature is over others. */
    set_key(&policy, &key);
    add_policy(&policy, &key, &plain, &b.pcrs);
    struct tpm_parent_policy edited = {0};
    add_policy(&edited, &key, &plain, &now);
    memcpy(edited.approvals[0].sig, policy.approvals[0].sig, PARSE_PCR_POLICY_SIG_LEN);
    set_key(&edited, &key);
    assert_ok(tpm_parent_set(b.ctx, &b.parent, &edited, err));
    assert_refused(tpm_parent_probe(b.ctx, err), ATT_E_DENIED, "policySignature");

    /* Approved by somebody else's key, named as such: the parent's policy is another. */
    policy_key_new(&stranger);
    set_key(&edited, &stranger);
    add_policy(&edited, &stranger, &plain, &now);
    assert_ok(tpm_parent_set(b.ctx, &b.parent, &edited, err));
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "");
    /* Named as the right key's: the signature is not its. */
    set_key(&edited, &key);
    add_policy(&edited, &stranger, &plain, &now);
    assert_ok(tpm_parent_set(b.ctx, &b.parent, &edited, err));
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "policySignature");

    /* Only the list of values was edited: PolicyPCR itself says no, every time. */
    policy.approvals[0].pcrs = now;
    assert_ok(tpm_parent_set(b.ctx, &b.parent, &policy, err));
    assert_refused(tpm_parent_probe(b.ctx, err), ATT_E_RETRY, "");
    assert_int_equal(stats_of(b.ctx).pcr_changed, TPM_PCR_CHANGED_MAX);
    policy_key_done(&stranger);
    bench_done(&b);
}

static void refuses_another_parent(void **state)
{
    struct bench b;
    struct policy_key stranger = {0};
    (void)state;
    bench_open(&b, &plain);
    policy_key_new(&stranger);
    assert_ok(tpm_parent_check(&b.parent, key.authorize, err));
    assert_refused(tpm_parent_check(&b.parent, stranger.authorize, err), ATT_E_DENIED,
                   "parentPolicy");
    assert_refused(tpm_parent_check(&b.child, key.authorize, err), ATT_E_DENIED, "parentPolicy");
    policy_key_done(&stranger);
    bench_done(&b);
}

static void refuses_after_clear(void **state)
{
    struct bench b;
    (void)state;
    bench_open(&b, &(struct policy_spec){.version = 1, .counter = TEST_COUNTER});
    tpm_context_free(b.ctx);
    assert_int_equal(swtpm_tool(&b.tpm, (const char *const[]){"tpm2_clear", "-c", "p", NULL}), 0);
    b.ctx = open_tpm(&b.tpm);
    use_parent(b.ctx, &b.parent, &key, &plain, &b.pcrs);
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "foreignParent");
    bench_done(&b);
}

/* A good policy for a bank that this TPM lacks opens nothing, and hinders none that would. */
static void other_banks_are_passed_over(void **state)
{
    struct bench b;
    struct parse_pcr_set other = {.sel = {PARSE_ALG_SHA512, MASK}, .digest_len = 64};
    (void)state;
    bench_open(&b, &plain);
    bench_reopen(&b, &plain, &other);
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "bootSealed");
    assert_refused(tpm_parent_fits(b.ctx, err), ATT_E_DENIED, "bootSealed");
    struct tpm_parent_policy policy = {0};
    set_key(&policy, &key);
    add_policy(&policy, &key, &(struct policy_spec){.version = 2}, &other);
    add_policy(&policy, &key, &plain, &b.pcrs);
    add_policy(&policy, &key, &(struct policy_spec){.version = 3}, &other);
    assert_ok(tpm_parent_set(b.ctx, &b.parent, &policy, err));
    assert_ok(tpm_parent_fits(b.ctx, err));
    assert_true(signs(b.ctx, &b.child));
    assert_int_equal(stats_of(b.ctx).version, 1);
    extend_pcr(b.ctx, 16, 1);
    assert_refused(tpm_parent_fits(b.ctx, err), ATT_E_DENIED, "bootSealed");
    bench_done(&b);
}

/* ---- the counter --------------------------------------------------------------------------- */

static uint64_t counter_value(struct tpm_context *ctx)
{
    struct tpm_counter counter;
    assert_ok(tpm_counter_read(ctx, TEST_COUNTER, &counter, err));
    assert_true(counter.defined && counter.ours);
    return counter.value;
}

static void an_old_policy_is_refused(void **state)
{
    const struct policy_spec v1 = {.version = 1, .counter = TEST_COUNTER};
    const struct policy_spec v3 = {.version = 3, .counter = TEST_COUNTER};
    struct bench b;
    (void)state;
    bench_open(&b, &v1);
    assert_int_equal(counter_value(b.ctx), 1);
    assert_true(stats_of(b.ctx).counted);
    /* Version 3 allows the new kernel and is accepted. */
    extend_pcr(b.ctx, 16, 3);
    struct parse_pcr_set newer = pcrs_now(b.ctx, MASK);
    bench_reopen(&b, &v3, &newer);
    assert_true(signs(b.ctx, &b.child));
    assert_refused(tpm_counter_raise(b.ctx, TEST_COUNTER, ATT_SLICE_LIT("wrong"), 3, err),
                   ATT_E_AUTH, "");
    assert_ok(tpm_counter_raise(b.ctx, TEST_COUNTER, COUNTER_AUTH, 3, err));
    assert_ok(tpm_counter_raise(b.ctx, TEST_COUNTER, COUNTER_AUTH, 2, err));
    assert_int_equal(counter_value(b.ctx), 3);
    /* The old kernel's PCRs and its policy, signed as it ever was. */
    tpm_context_free(b.ctx);
    assert_ok(swtpm_reset(&b.tpm, err));
    b.ctx = open_tpm(&b.tpm);
    use_parent(b.ctx, &b.parent, &key, &v1, &b.pcrs);
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "policyCounter");
    /* The same, but for the version. */
    use_parent(b.ctx, &b.parent, &key, &v3, &b.pcrs);
    assert_true(signs(b.ctx, &b.child));
    bench_done(&b);
}

static void a_missing_counter_is_an_alarm(void **state)
{
    const struct policy_spec v1 = {.version = 1, .counter = TEST_COUNTER};
    const struct policy_spec v2 = {.version = 2, .counter = TEST_COUNTER};
    struct bench b;
    struct tpm_counter counter;
    (void)state;
    bench_open(&b, &v1);
    bench_reopen(&b, &v1, &b.pcrs);
    assert_ok(tpm_counter_undefine(b.ctx, TEST_COUNTER, err));
    assert_ok(tpm_counter_undefine(b.ctx, TEST_COUNTER, err));
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "counterMissing");
    assert_refused(tpm_counter_raise(b.ctx, TEST_COUNTER, COUNTER_AUTH, 2, err), ATT_E_NOTFOUND,
                   "");
    /* Something else in its place: ordinary NV with a value that would do. */
    tpm_context_free(b.ctx);
    assert_int_equal(swtpm_sh(&b.tpm,
                              "tpm2_nvdefine 0x01804154 -C o -s 8 -a 'ownerread|ownerwrite|no_da'\n"
                              "printf '\\0\\0\\0\\0\\0\\0\\0\\1' > one\n"
                              "tpm2_nvwrite 0x01804154 -C o -i one\n"),
                     0);
    b.ctx = open_tpm(&b.tpm);
    use_parent(b.ctx, &b.parent, &key, &v1, &b.pcrs);
    assert_ok(tpm_counter_read(b.ctx, TEST_COUNTER, &counter, err));
    assert_true(counter.defined && !counter.ours);
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "counterMissing");
    assert_refused(tpm_counter_define(b.ctx, TEST_COUNTER, COUNTER_AUTH, err), ATT_E_CONFLICT, "");
    /* Defined anew it goes on above where it was: no way back to version 1. */
    assert_ok(tpm_counter_undefine(b.ctx, TEST_COUNTER, err));
    assert_ok(tpm_counter_define(b.ctx, TEST_COUNTER, COUNTER_AUTH, err));
    assert_int_equal(counter_value(b.ctx), 2);
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "policyCounter");
    use_parent(b.ctx, &b.parent, &key, &v2, &b.pcrs);
    assert_true(signs(b.ctx, &b.child));
    bench_done(&b);
}

/* Killed between NV_DefineSpace and NV_Increment: no policy counter yet, and nobody else's. */
static void a_counter_that_was_begun_is_known(void **state)
{
    const struct policy_spec v1 = {.version = 1, .counter = TEST_COUNTER};
    struct bench b;
    struct tpm_counter counter;
    (void)state;
    bench_open(&b, &v1);
    assert_ok(tpm_counter_read(b.ctx, TEST_COUNTER, &counter, err));
    assert_true(counter.defined && counter.ours && !counter.begun);
    assert_ok(tpm_counter_undefine(b.ctx, TEST_COUNTER, err));
    assert_ok(tpm_counter_read(b.ctx, TEST_COUNTER, &counter, err));
    assert_false(counter.defined || counter.ours || counter.begun);
    tpm_context_free(b.ctx);
    assert_int_equal(swtpm_sh(&b.tpm, "tpm2_nvdefine 0x01804154 -C o -s 8 -a "
                                      "'authwrite|ownerread|no_da|nt=counter'\n"),
                     0);
    b.ctx = open_tpm(&b.tpm);
    use_parent(b.ctx, &b.parent, &key, &v1, &b.pcrs);
    assert_ok(tpm_counter_read(b.ctx, TEST_COUNTER, &counter, err));
    assert_true(counter.defined && !counter.ours && counter.begun);
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "counterMissing");
    assert_refused(tpm_counter_raise(b.ctx, TEST_COUNTER, COUNTER_AUTH, 2, err), ATT_E_NOTFOUND,
                   "");
    /* Another kind of counter is not it. */
    assert_ok(tpm_counter_undefine(b.ctx, TEST_COUNTER, err));
    tpm_context_free(b.ctx);
    assert_int_equal(swtpm_sh(&b.tpm, "tpm2_nvdefine 0x01804154 -C o -s 8 -a "
                                      "'authwrite|ownerread|ownerwrite|no_da|nt=counter'\n"),
                     0);
    b.ctx = open_tpm(&b.tpm);
    assert_ok(tpm_counter_read(b.ctx, TEST_COUNTER, &counter, err));
    assert_true(counter.defined && !counter.ours && !counter.begun);
    bench_done(&b);
}

/* By its public area and its authValue, which is tried and costs no step. */
static void a_counter_is_adopted_by_its_auth(void **state)
{
    struct bench b;
    struct tpm_counter counter;
    bool adopted = true;
    (void)state;
    bench_open(&b, &(struct policy_spec){.version = 1, .counter = TEST_COUNTER});
    assert_ok(tpm_counter_adopt(b.ctx, TEST_COUNTER, ATT_SLICE_LIT("wrong"), &adopted, err));
    assert_false(adopted);
    assert_ok(tpm_counter_adopt(b.ctx, TEST_COUNTER, COUNTER_AUTH, &adopted, err));
    assert_true(adopted);
    assert_int_equal(counter_value(b.ctx), 1);
    assert_ok(tpm_counter_raise(b.ctx, TEST_COUNTER, COUNTER_AUTH, 2, err));
    /* Nothing there; another kind of counter, though with the same authValue. */
    assert_ok(tpm_counter_undefine(b.ctx, TEST_COUNTER, err));
    assert_ok(tpm_counter_adopt(b.ctx, TEST_COUNTER, COUNTER_AUTH, &adopted, err));
    assert_false(adopted);
    tpm_context_free(b.ctx);
    assert_int_equal(swtpm_sh(&b.tpm, "tpm2_nvdefine 0x01804154 -C o -s 8 -p wrong -a "
                                      "'authwrite|ownerread|no_da|nt=counter'\n"),
                     0);
    b.ctx = open_tpm(&b.tpm);
    assert_ok(tpm_counter_adopt(b.ctx, TEST_COUNTER, COUNTER_AUTH, &adopted, err));
    assert_false(adopted);
    assert_ok(tpm_counter_read(b.ctx, TEST_COUNTER, &counter, err));
    assert_true(counter.begun); /* nothing was done */
    assert_ok(tpm_counter_adopt(b.ctx, TEST_COUNTER, ATT_SLICE_LIT("wrong"), &adopted, err));
    assert_true(adopted);
    assert_int_equal(counter_value(b.ctx), 3);
    assert_ok(tpm_counter_undefine(b.ctx, TEST_COUNTER, err));
    tpm_context_free(b.ctx);
    assert_int_equal(swtpm_sh(&b.tpm, "tpm2_nvdefine 0x01804154 -C o -s 8 -p right -a "
                                      "'authwrite|ownerread|ownerwrite|no_da|nt=counter'\n"),
                     0);
    b.ctx = open_tpm(&b.tpm);
    assert_ok(tpm_counter_adopt(b.ctx, TEST_COUNTER, ATT_SLICE_LIT("right"), &adopted, err));
    assert_false(adopted);
    bench_done(&b);
}

static void counter_takes_no_leaps(void **state)
{
    struct bench b;
    uint8_t zero_end[] = {1, 0};
    (void)state;
    bench_open(&b, &(struct policy_spec){.version = 1, .counter = TEST_COUNTER});
    assert_refused(
        tpm_counter_raise(b.ctx, TEST_COUNTER, COUNTER_AUTH, 2 + TPM_COUNTER_STEPS_MAX, err),
        ATT_E_LIMIT, "");
    assert_int_equal(counter_value(b.ctx), 1);
    assert_refused(tpm_counter_define(b.ctx, 0x01c00002, COUNTER_AUTH, err), ATT_E_INVAL, "");
    assert_refused(tpm_counter_define(b.ctx, TEST_COUNTER + 1, ATT_SLICE_ARRAY(zero_end), err),
                   ATT_E_INVAL, "");
    bench_done(&b);
}

/* ---- recovery ------------------------------------------------------------------------------ */

static void a_recovery_is_for_one_boot(void **state)
{
    struct bench b;
    struct tpm_clock clock;
    (void)state;
    bench_open(&b, &(struct policy_spec){.version = 1, .counter = TEST_COUNTER});
    bench_reopen(&b, &plain, &b.pcrs);
    extend_pcr(b.ctx, 16, 5);
    assert_ok(tpm_counter_undefine(b.ctx, TEST_COUNTER, err)); /* it needs no counter */
    struct parse_pcr_set now = pcrs_now(b.ctx, MASK);
    assert_ok(tpm_context_clock(b.ctx, &clock, err));
    const struct policy_spec recovery = {
        .version = 1, .recovery = true, .reset_count = clock.reset_count};
    use_parent(b.ctx, &b.parent, &key, &recovery, &now);
    assert_true(signs(b.ctx, &b.child));
    assert_true(stats_of(b.ctx).recovery);
    assert_false(stats_of(b.ctx).counted);
    /* The same PCRs, a boot later. */
    tpm_context_free(b.ctx);
    assert_ok(swtpm_reset(&b.tpm, err));
    b.ctx = open_tpm(&b.tpm);
    extend_pcr(b.ctx, 16, 5);
    use_parent(b.ctx, &b.parent, &key, &recovery, &now);
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "recoveryOver");
    bench_done(&b);
}

/* ---- what works ---------------------------------------------------------------------------- */

static void drift_within_a_boot_is_the_verifiers(void **state)
{
    struct bench b;
    tpm_autoblob second = {0};
    struct tpm_parent_stats before;
    (void)state;
    bench_open(&b, &plain);
    create_key(b.ctx, &second);
    assert_true(signs(b.ctx, &b.child));
    assert_true(signs(b.ctx, &second));
    before = stats_of(b.ctx);
    extend_pcr(b.ctx, 16, 1);
    /* One slot for both: each comes back from its saved context, the policy is not asked again. */
    for (unsigned i = 0; i < 4; i++) {
        assert_true(signs(b.ctx, &b.child));
        assert_true(signs(b.ctx, &second));
    }
    assert_int_equal(stats_of(b.ctx).opened, before.opened);
    assert_true(stats_of(b.ctx).restored >= before.restored + 4);
    /* A key that is destroyed is forgotten there, too. */
    tpm_key_evict(b.ctx, &second);
    assert_refused(tpm_key_load(b.ctx, &second, err), ATT_E_DENIED, "bootSealed");
    /* Contexts do not outlive the boot. */
    assert_ok(swtpm_reset(&b.tpm, err));
    assert_ok(tpm_context_reopen(b.ctx, err));
    extend_pcr(b.ctx, 7, 1);
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "bootSealed");
    bench_done(&b);
}

static void seals_certifies_and_quotes_in_three_slots(void **state)
{
    struct bench b;
    tpm_autoblob sealed = {0};
    att_autosecret data = {0};
    tpm_autocertify certify = {0};
    tpm_autoquote quote = {0};
    const struct parse_pcr_sel sel = {PARSE_ALG_SHA256, MASK};
    (void)state;
    bench_open(&b, &(struct policy_spec){.version = 1, .counter = TEST_COUNTER});
    assert_ok(tpm_seal_create(b.ctx, ATT_SLICE_LIT("secret"), AUTH_A, &sealed, err));
    assert_ok(tpm_quote_create(b.ctx, &sel, ATT_SLICE_LIT("n"), &quote, err));
    assert_ok(tpm_certify_create(b.ctx, &b.child, AUTH_A, ATT_SLICE_LIT("n"), &certify, err));
    assert_ok(tpm_seal_open(b.ctx, &sealed, AUTH_A, &data, err));
    assert_true(att_slice_eq_str(att_secret_slice(&data), "secret"));
    assert_true(att_slice_eq(parse_name_slice(&sealed.parent_name),
                             parse_name_slice(&b.child.parent_name)));
    assert_true(count(b.ctx, TPM_HANDLES_TRANSIENT) <= 3);
    assert_true(count(b.ctx, TPM_HANDLES_LOADED_SESSION) <= 1);
    bench_done(&b);
}

static void tickets_are_kept_and_mended(void **state)
{
    struct bench b;
    struct tpm_ticket ticket;
    uint8_t sig[PARSE_PCR_POLICY_SIG_LEN];
    struct tpm_parent_policy policy = {0};
    (void)state;
    bench_open(&b, &plain);
    assert_int_equal(stats_of(b.ctx).verified, 1);
    assert_true(tpm_parent_ticket(b.ctx, 0, sig, &ticket));
    assert_false(tpm_parent_ticket(b.ctx, 1, sig, &ticket));
    assert_true(tpm_parent_ticket(b.ctx, 0, sig, &ticket));
    assert_true(ticket.len > 8);
    /* Another start: with the ticket no signature is verified. */
    tpm_context_free(b.ctx);
    assert_ok(swtpm_reset(&b.tpm, err));
    b.ctx = open_tpm(&b.tpm);
    set_key(&policy, &key);
    add_policy(&policy, &key, &plain, &b.pcrs);
    policy.approvals[0].ticket = ticket;
    assert_ok(tpm_parent_set(b.ctx, &b.parent, &policy, err));
    assert_true(signs(b.ctx, &b.child));
    assert_int_equal(stats_of(b.ctx).verified, 0);
    /* One that is none, or of a TPM before Clear: made anew. */
    for (unsigned i = 0; i < 3; i++) {
        set_key(&policy, &key);
        add_policy(&policy, &key, &plain, &b.pcrs);
        policy.approvals[0].ticket = ticket;
        policy.approvals[0].ticket.bytes[ticket.len - 1] ^= i == 0;
        policy.approvals[0].ticket.bytes[0] ^= i == 1;
        policy.approvals[0].ticket.len -= i == 2;
        assert_ok(tpm_parent_set(b.ctx, &b.parent, &policy, err));
        assert_ok(tpm_parent_probe(b.ctx, err));
        assert_int_equal(stats_of(b.ctx).verified, i + 1);
    }
    bench_done(&b);
}

static void opens_by_pcr_7_alone(void **state)
{
    struct bench b = {0};
    struct tpm_parent_policy policy = {0};
    uint8_t auth_policy[PARSE_POLICY_LEN];
    (void)state;
    assert_ok(swtpm_new(&b.tpm, &without_certs, err));
    b.ctx = open_tpm(&b.tpm);
    b.pcrs = pcrs_now(b.ctx, 1u << 7);
    assert_ok(tpm_parent_policy_direct(&b.pcrs, &policy, err));
    assert_ok(parse_seal_branch_digest(&policy.approvals[0].branch, auth_policy, err));
    assert_ok(tpm_parent_create(b.ctx, auth_policy, &b.parent, err));
    assert_ok(tpm_parent_set(b.ctx, &b.parent, &policy, err));
    create_key(b.ctx, &b.child);
    assert_true(signs(b.ctx, &b.child));
    tpm_context_free(b.ctx);
    b.ctx = open_tpm(&b.tpm);
    extend_pcr(b.ctx, 7, 1);
    assert_ok(tpm_parent_policy_direct(&b.pcrs, &policy, err));
    assert_ok(tpm_parent_set(b.ctx, &b.parent, &policy, err));
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "bootSealed");
    /* Said to be the values of now: the TPM compares with what the parent was made for. */
    struct parse_pcr_set now = pcrs_now(b.ctx, 1u << 7);
    assert_ok(tpm_parent_policy_direct(&now, &policy, err));
    assert_ok(tpm_parent_set(b.ctx, &b.parent, &policy, err));
    assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "");
    bench_done(&b);
}

/* SEAL_FAILURES=10000 for the long form. */
static void failures_leak_nothing(void **state)
{
    struct bench b;
    const char *wanted = getenv("SEAL_FAILURES");
    unsigned n = wanted ? (unsigned)strtoul(wanted, NULL, 10) : 60;
    struct tpm_parent_policy policy = {0};
    tpm_autoblob more = {0};
    (void)state;
    bench_open(&b, &(struct policy_spec){.version = 1, .counter = TEST_COUNTER});
    bench_reopen(&b, &(struct policy_spec){.version = 1, .counter = TEST_COUNTER}, &b.pcrs);
    assert_ok(tpm_counter_raise(b.ctx, TEST_COUNTER, COUNTER_AUTH, 2, err));
    for (unsigned i = 0; i < n; i++) {
        switch (i % 3) { /* at PolicyNV, at VerifySignature, at the load itself */
        case 0:
            use_parent(b.ctx, &b.parent, &key,
                       &(struct policy_spec){.version = 1, .counter = TEST_COUNTER}, &b.pcrs);
            assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "policyCounter");
            break;
        case 1:
            set_key(&policy, &key);
            add_policy(&policy, &key, &plain, &b.pcrs);
            policy.approvals[0].sig[5] ^= 1;
            assert_ok(tpm_parent_set(b.ctx, &b.parent, &policy, err));
            assert_refused(tpm_key_create(b.ctx, AUTH_A, &more, err), ATT_E_DENIED,
                           "policySignature");
            break;
        default:
            use_parent(b.ctx, &b.parent, &key, &plain, &b.pcrs);
            b.child.priv.ptr[b.child.priv.len - 1] ^= 1;
            assert_refused(tpm_key_load(b.ctx, &b.child, err), ATT_E_DENIED, "blobIntegrity");
            b.child.priv.ptr[b.child.priv.len - 1] ^= 1;
            break;
        }
    }
    assert_true(count(b.ctx, TPM_HANDLES_LOADED_SESSION) <= 1); /* the one HMAC session */
    assert_true(count(b.ctx, TPM_HANDLES_TRANSIENT) <= 1);      /* the SRK */
    use_parent(b.ctx, &b.parent, &key, &plain, &b.pcrs);
    assert_true(signs(b.ctx, &b.child));
    bench_done(&b);
}

/* Digests and Names as tpm2-tools and the TPM compute them. */
static void digests_are_the_tpms(void **state)
{
    struct parse_seal_branch branch = {0};
    struct parse_pcr_set pcrs;
    uint8_t digest[PARSE_POLICY_LEN], full[PARSE_DIGEST_MAX];
    char path[SWTPM_PATH + 32];
    att_autobuf file = {0};
    size_t len = 0;
    struct tpm_context *ctx = open_tpm(&the_tpm);
    (void)state;
    pcrs = pcrs_now(ctx, MASK);
    tpm_context_free(ctx);
    branch.sel = pcrs.sel;
    assert_ok(parse_pcr_set_digest(&pcrs, PARSE_ALG_SHA256, full, &len, err));
    memcpy(branch.pcr_digest, full, sizeof(branch.pcr_digest));
    assert_ok(parse_seal_branch_digest(&branch, digest, err));

    (void)snprintf(path, sizeof(path), "%s/policy.pem", the_tpm.dir);
    FILE *pem = fopen(path, "w");
    assert_non_null(pem);
    assert_int_equal(PEM_write_PUBKEY(pem, key.pkey), 1);
    assert_int_equal(fclose(pem), 0);
    assert_int_equal(
        swtpm_sh(
            &the_tpm,
            "tpm2_startauthsession -S s\n"
            "tpm2_policypcr -S s -l sha256:7,16 -L pcr.pol\n"
            "tpm2_flushcontext s\n"
            "tpm2_loadexternal -C o -G ecc -u policy.pem -a 'userwithauth|sign' -c k.ctx "
            "-n k.name\n"
            "tpm2_flushcontext -t\n"
            "printf attestd/test > ref\n"
            "tpm2_policyauthorize -S s -i pcr.pol -n k.name -q ref -L auth.pol 2> /dev/null || {\n"
            "  tpm2_startauthsession -S t; tpm2_policyauthorize -S t -i pcr.pol -n k.name -q ref "
            "-L auth.pol; tpm2_flushcontext t; }\n"),
        0);
    (void)snprintf(path, sizeof(path), "%s/pcr.pol", the_tpm.dir);
    assert_ok(att_io_read_file(path, 64, &file, err));
    assert_true(att_slice_eq(att_buf_slice(&file), ATT_SLICE_ARRAY(digest)));
    att_buf_reset(&file);
    (void)snprintf(path, sizeof(path), "%s/k.name", the_tpm.dir);
    assert_ok(att_io_read_file(path, 64, &file, err));
    assert_true(att_slice_eq(att_buf_slice(&file), parse_name_slice(&key.name)));
    att_buf_reset(&file);
    (void)snprintf(path, sizeof(path), "%s/auth.pol", the_tpm.dir);
    assert_ok(att_io_read_file(path, 64, &file, err));
    assert_true(att_slice_eq(att_buf_slice(&file), ATT_SLICE_ARRAY(key.authorize)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_other_pcrs),
        cmocka_unit_test(refuses_without_any_policy),
        cmocka_unit_test(the_tpm_refuses_what_was_not_approved),
        cmocka_unit_test(refuses_another_parent),
        cmocka_unit_test(refuses_after_clear),
        cmocka_unit_test(other_banks_are_passed_over),
        cmocka_unit_test(an_old_policy_is_refused),
        cmocka_unit_test(a_missing_counter_is_an_alarm),
        cmocka_unit_test(a_counter_that_was_begun_is_known),
        cmocka_unit_test(a_counter_is_adopted_by_its_auth),
        cmocka_unit_test(counter_takes_no_leaps),
        cmocka_unit_test(a_recovery_is_for_one_boot),
        cmocka_unit_test(drift_within_a_boot_is_the_verifiers),
        cmocka_unit_test(seals_certifies_and_quotes_in_three_slots),
        cmocka_unit_test(tickets_are_kept_and_mended),
        cmocka_unit_test(opens_by_pcr_7_alone),
        cmocka_unit_test(failures_leak_nothing),
        cmocka_unit_test(digests_are_the_tpms),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
