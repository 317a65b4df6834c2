/* Reading a signed PCR policy. */
#include "tpm/parse/pcr_policy.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "tpm/parse/pcr_policy_internal.h"
#include "tpm/parse/sig.h"

#include <stdlib.h>
#include <string.h>

#define VALUES_MAX 4096 /* of JSON: 64 boots of 24 PCRs, and some */

void parse_pcr_policy_free(struct parse_pcr_policy *policy)
{
    if (policy) {
        free(policy->boots);
        free(policy);
    }
}

void parse_pcr_policy_cleanup(struct parse_pcr_policy **policy)
{
    parse_pcr_policy_free(*policy);
    *policy = NULL;
}

/* ---- members ------------------------------------------------------------------------------- */

static enum att_rc only_members(json_t *object, const char *const known[], const char *where,
                                struct att_err *err)
{
    const char *key = NULL;
    json_t *value = NULL;
    if (!json_is_object(object)) {
        return att_fail(err, ATT_E_PARSE, "PCR policy: %s: expected an object", where);
    }
    json_object_foreach(object, key, value)
    {
        size_t i = 0;
        while (known[i] && strcmp(known[i], key) != 0) {
            i++;
        }
        if (!known[i]) {
            return att_fail(err, ATT_E_PARSE, "PCR policy: %s: unknown member \"%.40s\"", where,
                            key);
        }
    }
    return ATT_OK;
}

/* A string member of 1 … max characters out of these. */
static enum att_rc take_text(const json_t *object, const char *member, const char *letters,
                             size_t max, char *ret, struct att_err *err)
{
    const char *text = json_string_value(json_object_get(object, member));
    size_t len = text ? strlen(text) : 0;
    if (len < 1 || len > max || strspn(text, letters) != len) {
        return att_fail(err, ATT_E_PARSE, "PCR policy: %s: expected 1-%zu characters of [%s]",
                        member, max, letters);
    }
    memcpy(ret, text, len + 1);
    return ATT_OK;
}

static enum att_rc take_hex(const json_t *object, const char *member, uint8_t *ret, size_t len,
                            struct att_err *err)
{
    const char *text = json_string_value(json_object_get(object, member));
    struct att_err why = {0};
    if (!text || strspn(text, "0123456789abcdef") != strlen(text) ||
        att_unhex_exact(ret, len, text, &why) != ATT_OK) {
        return att_fail(err, ATT_E_PARSE, "PCR policy: %s: expected %zu lowercase hex digits",
                        member, 2 * len);
    }
    return ATT_OK;
}

static enum att_rc take_number(const json_t *object, const char *member, uint32_t least,
                               uint32_t *ret, struct att_err *err)
{
    const json_t *value = json_object_get(object, member);
    json_int_t n = json_is_integer(value) ? json_integer_value(value) : -1;
    if (n < (json_int_t)least || n > UINT32_MAX) {
        return att_fail(err, ATT_E_PARSE, "PCR policy: %s: expected a number %u-%u", member, least,
                        UINT32_MAX);
    }
    *ret = (uint32_t)n;
    return ATT_OK;
}

static enum att_rc take_time(const json_t *object, const char *member, int64_t *ret,
                             struct att_err *err)
{
    const json_t *value = json_object_get(object, member);
    char again[ATT_TIME_TEXT_LEN];
    struct att_err why = {0};
    if (!value) {
        return ATT_OK;
    }
    if (!json_is_string(value) || att_time_parse(json_string_value(value), ret, &why) != ATT_OK ||
        *ret <= 0) {
        return att_fail(err, ATT_E_PARSE,
                        "PCR policy: %s: expected a time like 2026-11-23T15:00:00Z", member);
    }
    att_time_text(again, *ret); /* one spelling, since the signature is over the members */
    return strcmp(again, json_string_value(value)) == 0
               ? ATT_OK
               : att_fail(err, ATT_E_PARSE, "PCR policy: %s: expected the form %s", member, again);
}

static const char name_letters[] = "abcdefghijklmnopqrstuvwxyz0123456789._-";
static const char ref_letters[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/:";

static enum att_rc take_counter(const json_t *root, struct parse_pcr_policy *policy,
                                struct att_err *err)
{
    const json_t *value = json_object_get(root, "counter");
    const char *text = json_string_value(value);
    uint8_t bytes[4];
    if (!value) {
        return ATT_OK;
    }
    if (text && strlen(text) == 10 && strncmp(text, "0x", 2) == 0 &&
        strspn(text + 2, "0123456789abcdef") == 8 &&
        att_unhex_exact(bytes, sizeof bytes, text + 2, NULL) == ATT_OK) {
        policy->counter = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 |
                          (uint32_t)bytes[2] << 8 | bytes[3];
    }
    return parse_seal_counter_ok(policy->counter)
               ? ATT_OK
               : att_fail(err, ATT_E_PARSE,
                          "PCR policy: counter: expected an NV index 0x01800000-0x01bfffff");
}

static enum att_rc take_recovery(const json_t *root, struct parse_pcr_policy *policy,
                                 struct att_err *err)
{
    static const char *const known[] = {"resetCount", NULL};
    json_t *recovery = json_object_get(root, "recovery");
    if (!recovery) {
        return ATT_OK;
    }
    policy->recovery = true;
    enum att_rc rc = only_members(recovery, known, "recovery", err);
    if (rc == ATT_OK) {
        rc = take_number(recovery, "resetCount", 0, &policy->reset_count, err);
    }
    if (rc == ATT_OK && policy->counter) {
        rc = att_fail(err, ATT_E_PARSE,
                      "PCR policy: recovery: a recovery approval looks at no counter");
    }
    if (rc == ATT_OK && policy->not_after == 0) {
        rc = att_fail(err, ATT_E_PARSE, "PCR policy: recovery: notAfter is required with it");
    }
    return rc;
}

/* ---- boots --------------------------------------------------------------------------------- */

static enum att_rc take_boot(json_t *object, struct parse_pcr_boot *boot, struct att_err *err)
{
    static const char *const known[] = {"label", "pcrs", "approval", NULL};
    enum att_rc rc = only_members(object, known, "boots", err);
    if (rc == ATT_OK) {
        rc = take_text(object, "label", name_letters, PARSE_PCR_POLICY_NAME_MAX, boot->label, err);
    }
    if (rc == ATT_OK) {
        rc = parse_pcr_set_from_json(json_object_get(object, "pcrs"), NULL, &boot->pcrs, err);
        att_err_prefix(err, "PCR policy: pcrs");
    }
    if (rc == ATT_OK) {
        rc = take_hex(object, "approval", boot->approval, sizeof boot->approval, err);
    }
    return rc;
}

static enum att_rc take_boots(const json_t *root, struct parse_pcr_policy *policy,
                              struct att_err *err)
{
    const json_t *list = json_object_get(root, "boots");
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n < 1 || n > PARSE_PCR_POLICY_BOOTS_MAX) {
        return att_fail(err, ATT_E_PARSE, "PCR policy: boots: expected a list of 1-%d boots",
                        PARSE_PCR_POLICY_BOOTS_MAX);
    }
    policy->boots = calloc(n, sizeof *policy->boots);
    if (!policy->boots) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a PCR policy");
    }
    policy->n_boots = n;
    for (size_t i = 0; i < n; i++) {
        enum att_rc rc = take_boot(json_array_get(list, i), &policy->boots[i], err);
        if (rc != ATT_OK) {
            att_err_prefix(err, "boots[%zu]", i);
            return rc;
        }
    }
    return ATT_OK;
}

static enum att_rc take_root(json_t *root, struct parse_pcr_policy *policy, struct att_err *err)
{
    static const char *const known[] = {"format",    "name",    "version",   "policyRef",
                                        "policyKey", "counter", "notBefore", "notAfter",
                                        "recovery",  "boots",   "signature", NULL};
    uint8_t name[2 + ATT_SHA256_LEN];
    enum att_rc rc = only_members(root, known, "document", err);
    const char *format = json_string_value(json_object_get(root, "format"));
    if (rc == ATT_OK && (!format || strcmp(format, PCR_POLICY_FORMAT) != 0)) {
        rc = att_fail(err, ATT_E_PARSE, "PCR policy: format: expected \"%s\"", PCR_POLICY_FORMAT);
    }
    rc = rc ? rc
            : take_text(root, "name", name_letters, PARSE_PCR_POLICY_NAME_MAX, policy->name, err);
    rc = rc ? rc : take_number(root, "version", 1, &policy->version, err);
    rc =
        rc ? rc : take_text(root, "policyRef", ref_letters, PARSE_POLICY_REF_MAX, policy->ref, err);
    rc = rc ? rc : take_hex(root, "policyKey", name, sizeof name, err);
    rc = rc ? rc : parse_name_parse(ATT_SLICE_ARRAY(name), &policy->key, err);
    rc = rc ? rc : take_time(root, "notBefore", &policy->not_before, err);
    rc = rc ? rc : take_time(root, "notAfter", &policy->not_after, err);
    rc = rc ? rc : take_counter(root, policy, err);
    rc = rc ? rc : take_recovery(root, policy, err);
    rc = rc ? rc : take_boots(root, policy, err);
    rc = rc ? rc : take_hex(root, "signature", policy->signature, sizeof policy->signature, err);
    if (!rc && policy->not_before && policy->not_after && policy->not_after <= policy->not_before) {
        rc = att_fail(err, ATT_E_PARSE, "PCR policy: notAfter is not after notBefore");
    }
    return rc;
}

enum att_rc parse_pcr_policy_parse(struct att_slice json, struct parse_pcr_policy **ret_policy,
                                   struct att_err *err)
{
    att_autojson *root = NULL;
    enum att_rc rc = att_json_parse_few(json, PARSE_PCR_POLICY_MAX, VALUES_MAX, &root, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "PCR policy");
        return rc;
    }
    parse_autopcrpolicy *policy = calloc(1, sizeof *policy);
    if (!policy) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a PCR policy");
    }
    att_autobuf message = {0};
    rc = take_root(root, policy, err);
    if (rc == ATT_OK) {
        rc = pcr_policy_message(policy, &message, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    att_sha256(policy->digest, att_buf_slice(&message));
    *ret_policy = policy;
    policy = NULL;
    return ATT_OK;
}

/* ---- checking ------------------------------------------------------------------------------ */

static enum att_rc refused(struct att_err *err, const char *reason)
{
    att_err_reason(err, reason);
    return ATT_E_AUTH;
}

static enum att_rc check_sig(const struct parse_public *key,
                             const uint8_t raw[PARSE_PCR_POLICY_SIG_LEN],
                             const struct att_buf *message, struct att_err *err)
{
    att_autobuf sig = {0};
    enum att_rc rc = pcr_policy_raw_sig(raw, &sig, err);
    return rc == ATT_OK ? parse_sig_verify_as(key, PARSE_ALG_ECDSA, PARSE_ALG_SHA256,
                                              att_buf_slice(&sig), att_buf_slice(message), err)
                        : rc;
}

enum att_rc parse_pcr_policy_verify(const struct parse_pcr_policy *policy,
                                    const struct parse_public *key, const char *ref,
                                    struct att_err *err)
{
    struct parse_name name;
    struct att_err why = {0};
    att_autobuf message = {0};
    enum att_rc rc = parse_public_name(key, &name, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (!att_slice_eq(parse_name_slice(&name), parse_name_slice(&policy->key))) {
        (void)att_fail(err, ATT_E_AUTH, "PCR policy %s version %u: policyKey is not the policy key",
                       policy->name, policy->version);
        return refused(err, "policyKey");
    }
    if (ref && strcmp(ref, policy->ref) != 0) {
        (void)att_fail(err, ATT_E_AUTH, "PCR policy %s version %u: policyRef is \"%s\", not \"%s\"",
                       policy->name, policy->version, policy->ref, ref);
        return refused(err, "policyKey");
    }
    rc = pcr_policy_message(policy, &message, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (check_sig(key, policy->signature, &message, &why) != ATT_OK) {
        (void)att_fail(err, ATT_E_AUTH,
                       "PCR policy %s version %u: its signature is not the policy key's",
                       policy->name, policy->version);
        return refused(err, "policySignature");
    }
    for (size_t i = 0; i < policy->n_boots; i++) {
        att_autobuf approved = {0};
        rc = pcr_policy_approved(policy, &policy->boots[i], &approved, err);
        if (rc != ATT_OK) {
            return rc;
        }
        if (check_sig(key, policy->boots[i].approval, &approved, &why) != ATT_OK) {
            (void)att_fail(err, ATT_E_AUTH,
                           "PCR policy %s version %u: the approval of boot %s is not the policy "
                           "key's over these PCRs",
                           policy->name, policy->version, policy->boots[i].label);
            return refused(err, "policySignature");
        }
    }
    return ATT_OK;
}

enum att_rc parse_pcr_policy_check_time(const struct parse_pcr_policy *policy, int64_t now,
                                        struct att_err *err)
{
    char at[ATT_TIME_TEXT_LEN], limit[ATT_TIME_TEXT_LEN];
    bool early = policy->not_before && now < policy->not_before;
    bool late = policy->not_after && now > policy->not_after;
    if (!early && !late) {
        return ATT_OK;
    }
    att_time_text(at, now);
    att_time_text(limit, early ? policy->not_before : policy->not_after);
    (void)att_fail(err, ATT_E_DENIED, "PCR policy %s version %u %s %s, it is %s", policy->name,
                   policy->version, early ? "is valid from" : "was valid until", limit, at);
    att_err_reason(err, "policyExpired");
    return ATT_E_DENIED;
}

/* ---- branches ------------------------------------------------------------------------------ */

enum att_rc parse_pcr_policy_branch(const struct parse_pcr_policy *policy,
                                    const struct parse_pcr_boot *boot,
                                    struct parse_seal_branch *ret_branch, struct att_err *err)
{
    struct parse_seal_branch branch = {.sel = boot->pcrs.sel,
                                       .counter = policy->counter,
                                       .counter_max = policy->version,
                                       .has_reset = policy->recovery,
                                       .reset_count = policy->reset_count};
    uint8_t digest[PARSE_DIGEST_MAX];
    size_t len = 0;
    enum att_rc rc = parse_pcr_set_digest(&boot->pcrs, PARSE_ALG_SHA256, digest, &len, err);
    if (rc == ATT_OK) {
        memcpy(branch.pcr_digest, digest, sizeof branch.pcr_digest);
        *ret_branch = branch;
    }
    return rc;
}

enum att_rc parse_pcr_policy_approval(const struct parse_pcr_boot *boot, struct att_buf *ret_sig,
                                      struct att_err *err)
{
    return pcr_policy_raw_sig(boot->approval, ret_sig, err);
}

enum att_rc pcr_policy_approved(const struct parse_pcr_policy *policy,
                                const struct parse_pcr_boot *boot, struct att_buf *ret_message,
                                struct att_err *err)
{
    struct parse_seal_branch branch;
    uint8_t digest[PARSE_POLICY_LEN];
    enum att_rc rc = parse_pcr_policy_branch(policy, boot, &branch, err);
    if (rc == ATT_OK) {
        rc = parse_seal_branch_digest(&branch, digest, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    att_buf_put(ret_message, digest, sizeof digest);
    att_buf_put_str(ret_message, policy->ref);
    return att_buf_ok(ret_message, err);
}

enum att_rc pcr_policy_raw_sig(const uint8_t raw[PARSE_PCR_POLICY_SIG_LEN], struct att_buf *ret_sig,
                               struct att_err *err)
{
    const struct parse_sig sig = {.alg = PARSE_ALG_ECDSA,
                                  .hash = PARSE_ALG_SHA256,
                                  .r = ATT_SLICE(raw, 32),
                                  .s = ATT_SLICE(raw + 32, 32)};
    return parse_sig_encode(&sig, ret_sig, err);
}
