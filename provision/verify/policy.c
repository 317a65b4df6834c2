#include "provision/verify/policy.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/json.h"
#include "provision/verify/logs.h"

#include <stdlib.h>
#include <string.h>

void verify_policy_free(struct verify_policy *policy)
{
    if (!policy) {
        return;
    }
    for (size_t i = 0; i < PARSE_PCR_COUNT; i++) {
        free(policy->pcrs[i].values);
    }
    free(policy);
}

void verify_policy_cleanup(struct verify_policy **policy)
{
    verify_policy_free(*policy);
    *policy = NULL;
}

/* ---- reading ------------------------------------------------------------------------------- */

static enum att_rc parse_name(const json_t *root, struct verify_policy *policy, struct att_err *err)
{
    const char *name = NULL;
    enum att_rc rc = att_json_str(root, "name", &name, err);
    if (rc) {
        return rc;
    }
    size_t len = strlen(name);
    if (len < 1 || len > VERIFY_POLICY_NAME_MAX ||
        strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") != len) {
        return att_fail(err, ATT_E_PARSE, "boot policy: name: expected 1-%d of [a-z0-9._-]",
                        VERIFY_POLICY_NAME_MAX);
    }
    if (!strcmp(name, "none")) {
        return att_fail(err, ATT_E_PARSE,
                        "boot policy: name: \"none\" is reserved for profiles without a policy");
    }
    memcpy(policy->name, name, len + 1);
    return ATT_OK;
}

static enum att_rc parse_version(const json_t *root, struct verify_policy *policy,
                                 struct att_err *err)
{
    const json_t *version = json_object_get(root, "version");
    json_int_t n = json_is_integer(version) ? json_integer_value(version) : 0;
    if (n < 1 || n > INT32_MAX) {
        return att_fail(err, ATT_E_PARSE, "boot policy: version: expected a number 1-%d",
                        INT32_MAX);
    }
    policy->version = (uint32_t)n;
    return ATT_OK;
}

static enum att_rc parse_bank(const json_t *root, struct verify_policy *policy, struct att_err *err)
{
    const char *bank = NULL;
    enum att_rc rc = att_json_str(root, "bank", &bank, err);
    if (rc) {
        return rc;
    }
    uint16_t alg = parse_alg_by_name(bank);
    if (alg != PARSE_ALG_SHA256 && alg != PARSE_ALG_SHA384 && alg != PARSE_ALG_SHA512) {
        return att_fail(err, ATT_E_PARSE,
                        "boot policy: bank: expected sha256, sha384 or sha512, found \"%.20s\"",
                        bank);
    }
    policy->bank = alg;
    policy->digest_len = parse_alg_digest_len(alg);
    return ATT_OK;
}

/* "0" … "23", without leading zeros. */
static bool pcr_index(const char *text, unsigned *ret_pcr)
{
    size_t len = strlen(text);
    if (len < 1 || len > 2 || strspn(text, "0123456789") != len || (len == 2 && text[0] == '0')) {
        return false;
    }
    unsigned pcr = (unsigned)(text[0] - '0');
    if (len == 2) {
        pcr = pcr * 10 + (unsigned)(text[1] - '0');
    }
    *ret_pcr = pcr;
    return pcr < PARSE_PCR_COUNT;
}

static enum att_rc parse_values(const char *key, const json_t *list, struct verify_policy *policy,
                                struct att_err *err)
{
    unsigned pcr = 0;
    if (!pcr_index(key, &pcr)) {
        return att_fail(err, ATT_E_PARSE, "boot policy: pcrs: \"%.20s\" is not a PCR 0-23", key);
    }
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n < 1 || n > VERIFY_POLICY_VALUES_MAX) {
        return att_fail(err, ATT_E_PARSE, "boot policy: pcrs.%u: expected a list of 1-%d values",
                        pcr, VERIFY_POLICY_VALUES_MAX);
    }
    struct verify_policy_pcr *entry = &policy->pcrs[pcr];
    entry->values = calloc(n, sizeof(*entry->values));
    if (!entry->values) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a boot policy");
    }
    entry->n_values = n;
    policy->pcr_mask |= 1U << pcr;
    for (size_t i = 0; i < n; i++) {
        const char *hex = json_string_value(json_array_get(list, i));
        struct att_err why = {0};
        if (!hex || att_unhex_exact(entry->values[i], policy->digest_len, hex, &why)) {
            return att_fail(err, ATT_E_PARSE, "boot policy: pcrs.%u[%zu]: expected %zu hex digits",
                            pcr, i, 2 * policy->digest_len);
        }
    }
    return ATT_OK;
}

static enum att_rc parse_pcrs(const json_t *root, struct verify_policy *policy, struct att_err *err)
{
    json_t *pcrs = json_object_get(root, "pcrs");
    if (!json_is_object(pcrs) || json_object_size(pcrs) == 0) {
        return att_fail(err, ATT_E_PARSE, "boot policy: pcrs: expected an object of PCRs");
    }
    const char *key = NULL;
    json_t *list = NULL;
    json_object_foreach(pcrs, key, list)
    {
        enum att_rc rc = parse_values(key, list, policy, err);
        if (rc) {
            return rc;
        }
    }
    return ATT_OK;
}

static enum att_rc parse_logs(const json_t *root, struct verify_policy *policy, struct att_err *err)
{
    const json_t *logs = json_object_get(root, "logs");
    if (!json_is_array(logs)) {
        return att_fail(err, ATT_E_PARSE, "boot policy: logs: expected a list of log names");
    }
    for (size_t i = 0; i < json_array_size(logs); i++) {
        const char *name = json_string_value(json_array_get(logs, i));
        uint32_t bit = verify_log_bit(att_slice_str(name));
        if (!bit || (policy->logs & bit)) {
            return att_fail(err, ATT_E_PARSE,
                            "boot policy: logs[%zu]: expected firmware, systemd or ima, each once",
                            i);
        }
        policy->logs |= bit;
    }
    if (policy->logs && !(policy->logs & VERIFY_LOG_FIRMWARE)) {
        return att_fail(err, ATT_E_PARSE,
                        "boot policy: logs: systemd and ima go on from firmware, which must be "
                        "there, too");
    }
    return ATT_OK;
}

static enum att_rc parse_violations(const json_t *root, struct verify_policy *policy,
                                    struct att_err *err)
{
    const json_t *value = json_object_get(root, "imaViolations");
    const char *verb = json_string_value(value);
    if (!value) {
        return ATT_OK;
    }
    if (!verb || (strcmp(verb, "refuse") != 0 && strcmp(verb, "allow") != 0)) {
        return att_fail(err, ATT_E_PARSE,
                        "boot policy: imaViolations: expected \"refuse\" or \"allow\"");
    }
    if (!(policy->logs & VERIFY_LOG_IMA)) {
        return att_fail(err, ATT_E_PARSE, "boot policy: imaViolations: ima is not among the logs");
    }
    policy->ima_violations = strcmp(verb, "allow") == 0;
    return ATT_OK;
}

static enum att_rc parse_time(const json_t *root, const char *member, int64_t *ret_time,
                              struct att_err *err)
{
    const json_t *value = json_object_get(root, member);
    if (!value) {
        return ATT_OK;
    }
    struct att_err why = {0};
    if (!json_is_string(value) || att_time_parse(json_string_value(value), ret_time, &why) ||
        *ret_time <= 0) {
        return att_fail(err, ATT_E_PARSE,
                        "boot policy: %s: expected a time like 2026-11-23T15:00:00Z", member);
    }
    return ATT_OK;
}

static enum att_rc check_members(json_t *root, struct att_err *err)
{
    static const char *const known[] = {"name", "version",   "bank",     "pcrs",
                                        "logs", "notBefore", "notAfter", "imaViolations"};
    if (!json_is_object(root)) {
        return att_fail(err, ATT_E_PARSE, "boot policy: expected a JSON object");
    }
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(root, key, value)
    {
        bool found = false;
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
            found = found || !strcmp(key, known[i]);
        }
        if (!found) {
            return att_fail(err, ATT_E_PARSE, "boot policy: unknown member \"%.40s\"", key);
        }
    }
    return ATT_OK;
}

static enum att_rc parse_root(json_t *root, struct verify_policy *policy, struct att_err *err)
{
    enum att_rc rc = check_members(root, err);
    rc = rc ? rc : parse_name(root, policy, err);
    rc = rc ? rc : parse_version(root, policy, err);
    rc = rc ? rc : parse_bank(root, policy, err);
    rc = rc ? rc : parse_pcrs(root, policy, err);
    rc = rc ? rc : parse_logs(root, policy, err);
    rc = rc ? rc : parse_violations(root, policy, err);
    rc = rc ? rc : parse_time(root, "notBefore", &policy->not_before, err);
    rc = rc ? rc : parse_time(root, "notAfter", &policy->not_after, err);
    if (!rc && policy->not_before && policy->not_after && policy->not_after <= policy->not_before) {
        return att_fail(err, ATT_E_PARSE, "boot policy: notAfter is not after notBefore");
    }
    return rc;
}

enum att_rc verify_policy_parse(struct att_slice json, struct verify_policy **ret,
                                struct att_err *err)
{
    att_autojson *root = NULL;
    enum att_rc rc = att_json_parse(json, VERIFY_POLICY_BYTES_MAX, &root, err);
    if (rc) {
        att_err_prefix(err, "boot policy");
        return rc;
    }
    verify_autopolicy *policy = calloc(1, sizeof(*policy));
    if (!policy) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a boot policy");
    }
    rc = parse_root(root, policy, err);
    if (rc) {
        return rc;
    }
    att_sha256(policy->digest, json);
    *ret = policy;
    policy = NULL;
    return ATT_OK;
}

/* ---- judging ------------------------------------------------------------------------------- */

static bool check_window(const struct verify_policy *policy, int64_t now,
                         struct verify_verdict *verdict)
{
    char at[ATT_TIME_TEXT_LEN], limit[ATT_TIME_TEXT_LEN];
    att_time_text(at, now);
    if (policy->not_before && now < policy->not_before) {
        att_time_text(limit, policy->not_before);
        verify_fail(verdict, VERIFY_REASON_POLICY_EXPIRED,
                    "boot policy %s version %u is valid from %s, it is %s", policy->name,
                    policy->version, limit, at);
        return false;
    }
    if (policy->not_after && now > policy->not_after) {
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

/* False: a finding was added. */
static bool check_pcr(const struct verify_policy *policy, const struct parse_pcr_set *quoted,
                      unsigned pcr, struct verify_verdict *verdict)
{
    if (!(quoted->sel.mask & (1U << pcr))) {
        verify_fail(verdict, VERIFY_REASON_BOOT_POLICY,
                    "rule pcrs.%u of boot policy %s: the quote does not cover pcr%u", pcr,
                    policy->name, pcr);
        return false;
    }
    const struct verify_policy_pcr *entry = &policy->pcrs[pcr];
    for (size_t i = 0; i < entry->n_values; i++) {
        if (!memcmp(entry->values[i], quoted->value[pcr], policy->digest_len)) {
            return true;
        }
    }
    char found[2 * PARSE_DIGEST_MAX + 1];
    att_hex(found, ATT_SLICE(quoted->value[pcr], policy->digest_len));
    verify_fail(verdict, VERIFY_REASON_BOOT_POLICY,
                "rule pcrs.%u of boot policy %s: pcr%u is %s, none of the %zu allowed values", pcr,
                policy->name, pcr, found, entry->n_values);
    return false;
}

static void check_values(const struct verify_policy *policy, const struct parse_pcr_set *quoted,
                         struct verify_verdict *verdict)
{
    if (policy->bank != quoted->sel.bank || policy->digest_len != quoted->digest_len) {
        const char *bank = parse_alg_name(quoted->sel.bank);
        verify_fail(verdict, VERIFY_REASON_BOOT_POLICY,
                    "rule bank of boot policy %s: expected bank %s, the quote covers %s",
                    policy->name, parse_alg_name(policy->bank), bank ? bank : "an unknown one");
        return;
    }
    bool good = policy->pcr_mask != 0;
    unsigned n = 0;
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        if (policy->pcr_mask & (1U << pcr)) {
            good = check_pcr(policy, quoted, pcr, verdict) && good;
            n++;
        }
    }
    if (good) {
        verify_pass(verdict, VERIFY_REASON_BOOT_POLICY,
                    "%u PCRs have values that boot policy %s version %u allows", n, policy->name,
                    policy->version);
    }
}

void verify_policy_check(const struct verify_policy *policy, const struct parse_pcr_set *quoted,
                         int64_t now, struct verify_verdict *verdict)
{
    if (!policy) {
        verify_fail(verdict, VERIFY_REASON_POLICY_MISSING,
                    "a boot policy is demanded and none was given; an open profile has to say "
                    "boot: none");
        return;
    }
    verify_pass(verdict, VERIFY_REASON_POLICY_MISSING, "boot policy %s version %u", policy->name,
                policy->version);
    (void)check_window(policy, now, verdict);
    check_values(policy, quoted, verdict);
}
