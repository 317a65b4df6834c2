/* Which values a PCR may have by a policy: what a policy over PCR values in a TPM is made of. */
#include "provision/verify/policy.h"

#include <stdlib.h>
#include <string.h>

struct values {
    uint8_t (*list)[PARSE_DIGEST_MAX];
    size_t n;
};

static enum att_rc add(struct values *values, const uint8_t *value, size_t len, struct att_err *err)
{
    for (size_t i = 0; i < values->n; i++) {
        if (!memcmp(values->list[i], value, len)) {
            return ATT_OK;
        }
    }
    if (values->n == VERIFY_POLICY_VALUES_MAX) {
        return att_fail(err, ATT_E_LIMIT, "more than %d values", VERIFY_POLICY_VALUES_MAX);
    }
    memcpy(values->list[values->n++], value, len);
    return ATT_OK;
}

static bool in_window(const struct verify_variant *variant, int64_t now)
{
    return !(variant->not_before && now < variant->not_before) &&
           !(variant->not_after && now > variant->not_after);
}

static enum att_rc extend(const struct verify_policy *policy, const struct verify_component *c,
                          int64_t now, const struct values *before, struct values *after,
                          struct att_err *err)
{
    const char *hash = parse_alg_openssl_name(policy->bank);
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; !rc && i < before->n; i++) {
        if (!verify_count_required(c->count)) {
            rc = add(after, before->list[i], policy->digest_len, err);
        }
        for (size_t v = 0; !rc && v < c->n_variants; v++) {
            const struct att_slice parts[] = {ATT_SLICE(before->list[i], policy->digest_len),
                                              ATT_SLICE(c->variants[v].digest, policy->digest_len)};
            uint8_t value[ATT_HASH_MAX];
            size_t len = 0;
            if (!in_window(&c->variants[v], now)) {
                continue;
            }
            rc = att_hash_v(hash, value, &len, parts, 2, err);
            rc = rc ? rc : add(after, value, policy->digest_len, err);
        }
    }
    return rc;
}

static enum att_rc can_be_told(const struct verify_component *c, struct att_err *err)
{
    if (verify_count_repeats(c->count)) {
        return att_fail(err, ATT_E_UNSUPPORTED, "component %s may come any number of times", c->id);
    }
    for (size_t v = 0; v < c->n_variants; v++) {
        if (c->variants[v].kind != VERIFY_VARIANT_DIGEST) {
            return att_fail(err, ATT_E_UNSUPPORTED, "component %s: variants[%zu] is no digest",
                            c->id, v);
        }
    }
    return ATT_OK;
}

static enum att_rc by_components(const struct verify_policy *policy, unsigned pcr, int64_t now,
                                 struct values *values, struct att_err *err)
{
    uint8_t room[VERIFY_POLICY_VALUES_MAX][PARSE_DIGEST_MAX];
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; !rc && i < policy->components.n; i++) {
        const struct verify_component *c = &policy->components.list[i];
        struct values after = {.list = room};
        if (c->pcr != pcr) {
            continue;
        }
        rc = can_be_told(c, err);
        rc = rc ? rc : extend(policy, c, now, values, &after, err);
        memcpy(values->list, room, after.n * sizeof(room[0]));
        values->n = after.n;
    }
    return rc;
}

enum att_rc verify_policy_values(const struct verify_policy *policy, unsigned pcr, int64_t now,
                                 const uint8_t *start,
                                 uint8_t ret[VERIFY_POLICY_VALUES_MAX][PARSE_DIGEST_MAX],
                                 size_t *ret_n, struct att_err *err)
{
    uint8_t list[VERIFY_POLICY_VALUES_MAX][PARSE_DIGEST_MAX] = {{0}};
    struct values values = {.list = list, .n = 1};
    bool by_value = pcr < PARSE_PCR_COUNT && policy->pcr_mask >> pcr & 1;
    if (pcr >= PARSE_PCR_COUNT || !(by_value || policy->components.pcr_mask >> pcr & 1)) {
        return att_fail(err, ATT_E_NOTFOUND, "boot policy %s has no rule for pcr%u", policy->name,
                        pcr);
    }
    if (by_value) {
        values.n = policy->pcrs[pcr].n_values;
        memcpy(list, policy->pcrs[pcr].values, values.n * sizeof(list[0]));
    } else if (start) {
        memcpy(list[0], start, policy->digest_len);
    } else if (pcr >= 17 && pcr <= 22) {
        memset(list[0], 0xff, policy->digest_len);
    }
    enum att_rc rc = by_value ? ATT_OK : by_components(policy, pcr, now, &values, err);
    if (rc) {
        att_err_prefix(err, "boot policy %s: values of pcr%u", policy->name, pcr);
        return rc;
    }
    memcpy(ret, list, sizeof(list));
    *ret_n = values.n;
    return ATT_OK;
}
