#include "provision/verify/policy.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/json.h"
#include "provision/verify/policy_signed.h"

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
    verify_components_done(&policy->components);
    verify_imarule_done(&policy->ima);
    json_decref(policy->json);
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

static enum att_rc parse_format(const json_t *root, struct verify_policy *policy,
                                struct att_err *err)
{
    const json_t *format = json_object_get(root, "format");
    json_int_t n = format ? (json_is_integer(format) ? json_integer_value(format) : 0) : 1;
    if (n != 1 && n != 2) {
        return att_fail(err, ATT_E_PARSE, "boot policy: format: expected 1 or 2");
    }
    policy->format = (unsigned)n;
    if (n == 1) {
        static const char *const later[] = {"components", "unjudged", "severities", "ima"};
        for (size_t i = 0; i < sizeof(later) / sizeof(later[0]); i++) {
            if (json_object_get(root, later[i])) {
                return att_fail(err, ATT_E_PARSE, "boot policy: %s: needs \"format\": 2", later[i]);
            }
        }
    }
    return ATT_OK;
}

static enum att_rc parse_components(const json_t *root, struct verify_policy *policy,
                                    struct att_err *err)
{
    return policy->format == 1
               ? ATT_OK
               : verify_components_parse(json_object_get(root, "components"), policy->digest_len,
                                         &policy->components, err);
}

static enum att_rc parse_unjudged(const json_t *root, struct verify_policy *policy,
                                  struct att_err *err)
{
    const json_t *list = json_object_get(root, "unjudged");
    if (list && !json_is_array(list)) {
        return att_fail(err, ATT_E_PARSE, "boot policy: unjudged: expected a list of PCRs");
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *pcr = json_array_get(list, i);
        json_int_t n = json_is_integer(pcr) ? json_integer_value(pcr) : -1;
        if (n < 0 || n >= PARSE_PCR_COUNT || (policy->unjudged >> n & 1)) {
            return att_fail(err, ATT_E_PARSE,
                            "boot policy: unjudged[%zu]: expected a PCR 0-23, each once", i);
        }
        policy->unjudged |= 1U << n;
    }
    uint32_t both = policy->unjudged & (policy->pcr_mask | policy->components.pcr_mask);
    for (unsigned pcr = 0; both && pcr < PARSE_PCR_COUNT; pcr++) {
        if (both >> pcr & 1) {
            return att_fail(err, ATT_E_PARSE,
                            "boot policy: unjudged: pcr%u has components or values", pcr);
        }
    }
    return ATT_OK;
}

static enum att_rc parse_severities(const json_t *root, struct verify_policy *policy,
                                    struct att_err *err)
{
    json_t *map = json_object_get(root, "severities"), *value = NULL;
    const char *key = NULL;
    if (map && !json_is_object(map)) {
        return att_fail(err, ATT_E_PARSE, "boot policy: severities: expected an object");
    }
    json_object_foreach(map, key, value)
    {
        enum verify_finding_id id = VERIFY_FINDING_BANK;
        if (verify_finding_from_word(key, &id)) {
            return att_fail(err, ATT_E_PARSE, "boot policy: severities: \"%.40s\" is no finding",
                            key);
        }
        /* After these nothing more is looked at: leniency would accept all. */
        if (id == VERIFY_FINDING_BANK || id == VERIFY_FINDING_TOO_MANY_EVENTS) {
            return att_fail(err, ATT_E_PARSE, "boot policy: severities.%s: it always refuses", key);
        }
        if (verify_severity_from_word(json_string_value(value), &policy->severities[id])) {
            return att_fail(err, ATT_E_PARSE,
                            "boot policy: severities.%s: expected \"refuse\", \"warn\" or "
                            "\"info\"",
                            key);
        }
    }
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
    if (!pcrs && policy->format != 1) {
        return ATT_OK;
    }
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
    uint32_t without = policy->components.logs & ~policy->logs;
    if (without) {
        return att_fail(err, ATT_E_PARSE, "boot policy: logs: components are of the %s log, too",
                        verify_log_name(without & VERIFY_LOG_FIRMWARE ? VERIFY_LOG_FIRMWARE
                                                                      : VERIFY_LOG_SYSTEMD));
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

/* IMA's PCR is judged by its list, not by value and not at all. */
static enum att_rc parse_ima(const json_t *root, struct verify_policy *policy, struct att_err *err)
{
    enum att_rc rc = verify_imarule_parse(json_object_get(root, "ima"), &policy->ima, err);
    if (rc || !policy->ima.given) {
        return rc;
    }
    if (!(policy->logs & VERIFY_LOG_IMA)) {
        return att_fail(err, ATT_E_PARSE, "boot policy: ima: ima is not among the logs");
    }
    if (verify_policy_pcrs(policy) & VERIFY_PCRS_IMA & ~policy->components.pcr_mask) {
        return att_fail(err, ATT_E_PARSE,
                        "boot policy: ima: pcr%d has values or is unjudged, and the ima rule "
                        "judges it",
                        PARSE_IMA_PCR);
    }
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
    static const char *const known[] = {
        "format",   "name",     "version",       "bank",       "pcrs",       "logs", "notBefore",
        "notAfter", "unjudged", "imaViolations", "components", "severities", "ima"};
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
    rc = rc ? rc : parse_format(root, policy, err);
    rc = rc ? rc : parse_name(root, policy, err);
    rc = rc ? rc : parse_version(root, policy, err);
    rc = rc ? rc : parse_bank(root, policy, err);
    rc = rc ? rc : parse_pcrs(root, policy, err);
    rc = rc ? rc : parse_components(root, policy, err);
    rc = rc ? rc : parse_unjudged(root, policy, err);
    rc = rc ? rc : parse_severities(root, policy, err);
    rc = rc ? rc : parse_logs(root, policy, err);
    rc = rc ? rc : parse_violations(root, policy, err);
    rc = rc ? rc : parse_ima(root, policy, err);
    rc = rc ? rc : parse_time(root, "notBefore", &policy->not_before, err);
    rc = rc ? rc : parse_time(root, "notAfter", &policy->not_after, err);
    if (!rc && policy->not_before && policy->not_after && policy->not_after <= policy->not_before) {
        return att_fail(err, ATT_E_PARSE, "boot policy: notAfter is not after notBefore");
    }
    return rc;
}

/* The policy's own JSON: the text, or what the envelope holds. */
static enum att_rc unwrap(struct att_slice text, struct verify_policy *policy, struct att_err *err)
{
    att_autojson *root = NULL;
    att_autobuf payload = {0};
    enum att_rc rc =
        att_json_parse_few(text, VERIFY_POLICY_SIGNED_MAX, VERIFY_POLICY_JSON_MAX, &root, err);
    if (!rc && !verify_policy_is_signed(root)) {
        policy->json = json_incref(root);
        return text.len <= VERIFY_POLICY_BYTES_MAX
                   ? ATT_OK
                   : att_fail(err, ATT_E_LIMIT, "%zu bytes, at most %zu", text.len,
                              VERIFY_POLICY_BYTES_MAX);
    }
    rc = rc ? rc : verify_policy_open(root, &payload, policy->signer, err);
    policy->is_signed = true;
    return rc ? rc
              : att_json_parse_few(att_buf_slice(&payload), VERIFY_POLICY_BYTES_MAX,
                                   VERIFY_POLICY_JSON_MAX, &policy->json, err);
}

enum att_rc verify_policy_parse(struct att_slice json, struct verify_policy **ret,
                                struct att_err *err)
{
    verify_autopolicy *policy = calloc(1, sizeof(*policy));
    if (!policy) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a boot policy");
    }
    enum att_rc rc = unwrap(json, policy, err);
    if (rc) {
        att_err_prefix(err, "boot policy");
        return rc;
    }
    rc = parse_root(policy->json, policy, err);
    if (rc) {
        return rc;
    }
    att_sha256(policy->digest, json);
    *ret = policy;
    policy = NULL;
    return ATT_OK;
}

uint32_t verify_policy_pcrs(const struct verify_policy *policy)
{
    return policy->pcr_mask | policy->components.pcr_mask | policy->unjudged;
}
