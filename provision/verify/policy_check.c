/* A boot judged by a policy. */
#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "provision/verify/imajudge.h"
#include "provision/verify/sequence.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define REFUSALS_MAX 24 /* findings that become checks of their own */

void verify_policy_finding(const struct verify_policy *policy, const struct verify_finding *finding,
                           struct verify_verdict *verdict)
{
    struct verify_finding mine = *finding;
    if (mine.severity == VERIFY_SEVERITY_UNSET) {
        mine.severity = policy->severities[mine.id];
    }
    if (mine.severity == VERIFY_SEVERITY_UNSET) {
        mine.severity = VERIFY_SEVERITY_REFUSE;
    }
    if (!mine.remedy[0]) {
        (void)snprintf(mine.remedy, sizeof(mine.remedy), "%s", verify_finding_remedy(mine.id));
    }
    verify_finding_add(verdict, &mine);
}

/* ---- the policy itself ----------------------------------------------------------------------- */

static bool may_sign(const struct verify_policy_in *in)
{
    for (size_t i = 0; i < in->n_signers; i++) {
        if (!memcmp(in->signers[i], in->policy->signer, ATT_SHA256_LEN)) {
            return true;
        }
    }
    return false;
}

static bool check_signer(const struct verify_policy_in *in, struct verify_verdict *verdict)
{
    const struct verify_policy *policy = in->policy;
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE_ARRAY(policy->signer));
    if (in->n_signers == 0) {
        static const char why[] = "no keys that sign policies are named here";
        verify_skip(verdict, VERIFY_REASON_POLICY_UNSIGNED, "%s", why);
        verify_skip(verdict, VERIFY_REASON_POLICY_SIGNER, "%s", why);
        return true;
    }
    if (!policy->is_signed) {
        verify_fail(verdict, VERIFY_REASON_POLICY_UNSIGNED,
                    "boot policy %s version %u is not signed; one of %zu keys has to sign it",
                    policy->name, policy->version, in->n_signers);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_POLICY_UNSIGNED, "boot policy %s version %u is signed",
                policy->name, policy->version);
    if (!may_sign(in)) {
        verify_fail(verdict, VERIFY_REASON_POLICY_SIGNER,
                    "boot policy %s version %u is signed by key %s, none of the %zu that may",
                    policy->name, policy->version, hex, in->n_signers);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_POLICY_SIGNER, "signed by key %s", hex);
    return true;
}

static bool check_window(const struct verify_policy_in *in, struct verify_verdict *verdict)
{
    const struct verify_policy *policy = in->policy;
    char at[ATT_TIME_TEXT_LEN], limit[ATT_TIME_TEXT_LEN];
    att_time_text(at, in->now);
    if (policy->not_before && in->now < policy->not_before) {
        att_time_text(limit, policy->not_before);
        verify_fail(verdict, VERIFY_REASON_POLICY_NOT_YET_VALID,
                    "boot policy %s version %u is valid from %s, it is %s", policy->name,
                    policy->version, limit, at);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_POLICY_NOT_YET_VALID,
                "boot policy %s version %u is valid already", policy->name, policy->version);
    if (policy->not_after && in->now > policy->not_after) {
        att_time_text(limit, policy->not_after);
        verify_fail(verdict, VERIFY_REASON_POLICY_EXPIRED,
                    "boot policy %s version %u was valid until %s, it is %s", policy->name,
                    policy->version, limit, at);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_POLICY_EXPIRED, "boot policy %s version %u is valid at %s",
                policy->name, policy->version, at);
    return true;
}

/* ---- the boot -------------------------------------------------------------------------------- */

static void value_finding(const struct verify_policy *policy, enum verify_finding_id id,
                          unsigned pcr, struct verify_verdict *verdict, const char *fmt, ...)
    ATT_PRINTF(5, 6);

static void value_finding(const struct verify_policy *policy, enum verify_finding_id id,
                          unsigned pcr, struct verify_verdict *verdict, const char *fmt, ...)
{
    struct verify_finding finding = {.id = id, .pcr = pcr};
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(finding.detail, sizeof(finding.detail), fmt, args);
    va_end(args);
    verify_policy_finding(policy, &finding, verdict);
}

static void judge_value(const struct verify_policy_in *in, unsigned pcr,
                        struct verify_verdict *verdict)
{
    const struct verify_policy *policy = in->policy;
    const struct verify_policy_pcr *entry = &policy->pcrs[pcr];
    for (size_t i = 0; i < entry->n_values; i++) {
        if (!memcmp(entry->values[i], in->quoted->value[pcr], policy->digest_len)) {
            return;
        }
    }
    char found[2 * PARSE_DIGEST_MAX + 1];
    att_hex(found, ATT_SLICE(in->quoted->value[pcr], policy->digest_len));
    value_finding(policy, VERIFY_FINDING_PCR_VALUE, pcr, verdict,
                  "rule pcrs.%u of boot policy %s: pcr%u is %s, none of the %zu allowed values",
                  pcr, policy->name, pcr, found, entry->n_values);
}

static void judge_values(const struct verify_policy_in *in, struct verify_verdict *verdict)
{
    const struct verify_policy *policy = in->policy;
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        bool quoted = in->quoted->sel.mask >> pcr & 1;
        bool by_value = policy->pcr_mask >> pcr & 1;
        if (!quoted && (by_value || policy->components.pcr_mask >> pcr & 1)) {
            value_finding(policy, VERIFY_FINDING_PCR_UNCOVERED, pcr, verdict,
                          "rule %ss.%u of boot policy %s: the quote does not cover pcr%u",
                          by_value ? "pcr" : "component", pcr, policy->name, pcr);
        } else if (by_value) {
            judge_value(in, pcr, verdict);
        }
    }
}

static void judge_events(const struct verify_policy_in *in, struct verify_verdict *verdict)
{
    struct verify_bootlog bootlog = {0};
    struct verify_bootlog_in what = {.bank = in->policy->bank,
                                     .pcr_mask = in->quoted->sel.mask & ~in->policy->unjudged,
                                     .firmware = in->firmware,
                                     .systemd = in->systemd};
    struct att_err err = {0};
    if (verify_bootlog_read(&what, &bootlog, &err)) {
        verify_fail(verdict, VERIFY_REASON_INTERNAL, "the boot's events: %s", err.msg);
        return;
    }
    if (bootlog.too_many) {
        /* What was not looked at is not accepted, whatever the policy says. */
        struct verify_finding finding = {.id = VERIFY_FINDING_TOO_MANY_EVENTS,
                                         .severity = VERIFY_SEVERITY_REFUSE,
                                         .pcr = PARSE_PCR_COUNT};
        (void)snprintf(finding.detail, sizeof(finding.detail),
                       "the logs have more than %d events in the PCRs that are judged",
                       VERIFY_BOOT_EVENTS_MAX);
        verify_policy_finding(in->policy, &finding, verdict);
    } else {
        verify_sequence_judge(in->policy, &bootlog, in->quoted->sel.mask, in->now, verdict);
    }
    verify_bootlog_done(&bootlog);
}

/* Findings become the check bootPolicy. */
static void settle(const struct verify_policy_in *in, const char *ima,
                   struct verify_verdict *verdict)
{
    const struct verify_policy *policy = in->policy;
    const char *first = "";
    size_t told = 0;
    verdict->mode = in->mode;
    if (verdict->n_refusing == 0) {
        char more[64] = "";
        size_t n = verdict->n_findings + verdict->findings_left_out;
        if (n) {
            (void)snprintf(more, sizeof(more), ", with %zu findings that do not refuse", n);
        }
        verify_pass(
            verdict, VERIFY_REASON_BOOT_POLICY,
            "boot policy %s version %u allows this boot (%zu components, %d PCR values%s)%s",
            policy->name, policy->version, policy->components.n,
            __builtin_popcount(policy->pcr_mask), ima, more);
        return;
    }
    for (size_t i = 0; i < verdict->n_findings && told < REFUSALS_MAX; i++) {
        const struct verify_finding *finding = &verdict->findings[i];
        if (finding->severity != VERIFY_SEVERITY_REFUSE) {
            continue;
        }
        first = told++ ? first : finding->detail;
        if (in->mode == VERIFY_MODE_ENFORCE) {
            verify_fail(verdict, VERIFY_REASON_BOOT_POLICY, "%s", finding->detail);
        }
    }
    if (in->mode != VERIFY_MODE_ENFORCE) {
        verify_skip(verdict, VERIFY_REASON_BOOT_POLICY,
                    "mode %s: %zu findings of boot policy %s would refuse, the first: %s",
                    verify_mode_word(in->mode), verdict->n_refusing, policy->name, first);
    } else if (told < verdict->n_refusing) {
        verify_fail(verdict, VERIFY_REASON_BOOT_POLICY, "%zu further findings",
                    verdict->n_refusing - told);
    }
}

void verify_policy_check(const struct verify_policy_in *in, struct verify_verdict *verdict)
{
    const struct verify_policy *policy = in->policy;
    char ima[VERIFY_IMAJUDGE_SUM_MAX] = "";
    if (!policy) {
        verify_fail(verdict, VERIFY_REASON_POLICY_MISSING,
                    "a boot policy is demanded and none was given; an open profile has to say "
                    "boot: none");
        return;
    }
    verify_pass(verdict, VERIFY_REASON_POLICY_MISSING, "boot policy %s version %u", policy->name,
                policy->version);
    /* What nobody answers for is not judged by. */
    if (!check_signer(in, verdict)) {
        return;
    }
    (void)check_window(in, verdict);
    if (policy->bank != in->quoted->sel.bank || policy->digest_len != in->quoted->digest_len) {
        const char *bank = parse_alg_name(in->quoted->sel.bank);
        value_finding(policy, VERIFY_FINDING_BANK, PARSE_PCR_COUNT, verdict,
                      "rule bank of boot policy %s: expected bank %s, the quote covers %s",
                      policy->name, parse_alg_name(policy->bank), bank ? bank : "an unknown one");
    } else if (policy->pcr_mask == 0 && policy->components.n == 0) {
        verify_fail(verdict, VERIFY_REASON_INTERNAL, "boot policy %s says nothing", policy->name);
        return;
    } else {
        judge_values(in, verdict);
        if (policy->format == 2) {
            judge_events(in, verdict);
        }
        if (policy->ima.given) {
            verify_ima_judge(in, ima, verdict);
        }
    }
    settle(in, ima, verdict);
}
