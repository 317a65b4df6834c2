#include "provision/verify/keyplace.h"

#include "attestd/base/enc.h"
#include "provision/verify/steps.h"
#include "tpm/parse/seal_policy.h"

#include <string.h>

static bool read_area(struct att_slice area, const char *what, struct parse_public *pub,
                      struct parse_name *name, struct verify_verdict *verdict)
{
    struct att_err err = {0};
    if (!verify_step_area(area, what, pub, verdict)) {
        return false;
    }
    if (parse_name_of_area(area, name, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "%s: %s", what, err.msg);
        return false;
    }
    return true;
}

bool verify_key_place_read(const struct verify_agent_in *in, struct verify_key_place *ret,
                           struct verify_verdict *verdict)
{
    ret->n = 0;
    if (in->no_parents) {
        return true;
    }
    if (!read_area(in->srk_pub, "srkPub", &ret->srk, &ret->names[0], verdict)) {
        return false;
    }
    ret->n = 1;
    if (in->parent_pub.len > 0) {
        if (!read_area(in->parent_pub, "parentPub", &ret->parent, &ret->names[1], verdict)) {
            return false;
        }
        ret->n = 2;
    }
    return true;
}

/* The standard ECC SRK, with either form of unique that is in the wild; what was created from it
 * has the public point there. */
static bool check_srk(const struct parse_public *srk, struct verify_verdict *verdict)
{
    struct parse_public want, have = *srk;
    parse_public_srk_template(&want, 0);
    memset(have.x, 0, sizeof(have.x));
    memset(have.y, 0, sizeof(have.y));
    have.x_len = have.y_len = 0;
    att_autobuf a = ATT_BUF_INIT(PARSE_AREA_MAX), b = ATT_BUF_INIT(PARSE_AREA_MAX);
    struct att_err err = {0};
    if (parse_public_encode(&want, &a, &err) || parse_public_encode(&have, &b, &err) ||
        att_buf_ok(&a, &err) || att_buf_ok(&b, &err)) {
        verify_fail(verdict, VERIFY_REASON_KEY_PARENT, "srkPub: %s", err.msg);
        return false;
    }
    if (!att_slice_eq(att_buf_slice(&a), att_buf_slice(&b))) {
        verify_fail(verdict, VERIFY_REASON_KEY_PARENT,
                    "srkPub is not the standard ECC storage root key (type 0x%04x, attributes "
                    "0x%08x; expected 0x%04x, 0x%08x)",
                    srk->type, srk->attrs, want.type, want.attrs);
        return false;
    }
    return true;
}

bool verify_key_place_demanded(const struct verify_agent_in *in)
{
    return in->parent_policy.len != 0 || in->parent_pcr7;
}

/* PolicyPCR of PCR 7 alone, with the value that this statement's quote covers (pcrDigest comes
 * later, and refuses where it does not). */
static bool pcr7_policy(const struct verify_agent_in *in, uint8_t ret[PARSE_POLICY_LEN],
                        struct verify_verdict *verdict)
{
    struct parse_pcr_set own = {0};
    struct parse_seal_branch branch = {0};
    uint8_t digest[PARSE_DIGEST_MAX];
    size_t len = 0;
    struct att_err err = {0};
    const struct parse_pcr_set *quoted = in->quoted.pcrs;
    if (!quoted || !(quoted->sel.mask & 1U << 7)) {
        verify_fail(verdict, VERIFY_REASON_KEY_PARENT,
                    "a parent with the policy of PCR 7 is demanded, and pcr7 is not quoted");
        return false;
    }
    own.sel = (struct parse_pcr_sel){quoted->sel.bank, 1U << 7};
    own.digest_len = quoted->digest_len;
    memcpy(own.value[7], quoted->value[7], sizeof(own.value[7]));
    branch.sel = own.sel;
    if (parse_pcr_set_digest(&own, PARSE_ALG_SHA256, digest, &len, &err)) {
        verify_fail(verdict, VERIFY_REASON_KEY_PARENT, "pcrs: %s", err.msg);
        return false;
    }
    memcpy(branch.pcr_digest, digest, sizeof(branch.pcr_digest));
    if (parse_seal_branch_digest(&branch, ret, &err)) {
        verify_fail(verdict, VERIFY_REASON_KEY_PARENT, "pcrs: %s", err.msg);
        return false;
    }
    return true;
}

static bool check_parent(const struct verify_agent_in *in, const struct verify_key_place *place,
                         struct verify_verdict *verdict)
{
    struct att_err err = {0};
    if (place->n > 1 && parse_public_check_storage(&place->parent, &err)) {
        verify_fail(verdict, VERIFY_REASON_KEY_PARENT, "parentPub: %s", err.msg);
        return false;
    }
    uint8_t by_pcr7[PARSE_POLICY_LEN];
    struct att_slice want = in->parent_policy;
    if (!verify_key_place_demanded(in)) {
        return true;
    }
    if (in->parent_pcr7) {
        want = ATT_SLICE_ARRAY(by_pcr7);
        if (!pcr7_policy(in, by_pcr7, verdict)) {
            return false;
        }
    }
    if (place->n < 2) {
        verify_fail(verdict, VERIFY_REASON_KEY_PARENT,
                    "the key is sealed under no policy: parentPub is missing");
        return false;
    }
    if (place->parent.attrs & PARSE_OA_USER_WITH_AUTH) {
        verify_fail(verdict, VERIFY_REASON_KEY_PARENT,
                    "parentPub: userWithAuth is set, so its policy can be passed by");
        return false;
    }
    if (!att_slice_eq(ATT_SLICE(place->parent.policy, place->parent.policy_len), want)) {
        char have[2 * PARSE_DIGEST_MAX + 1], wanted[2 * PARSE_DIGEST_MAX + 1];
        att_hex(have, ATT_SLICE(place->parent.policy, place->parent.policy_len));
        att_hex(wanted, want);
        verify_fail(
            verdict, VERIFY_REASON_KEY_PARENT,
            "parentPub: authPolicy is %.64s, not the one that the profile demands (%.64s%s)",
            place->parent.policy_len ? have : "empty", wanted,
            in->parent_pcr7 ? ", of pcr7 as quoted" : "");
        return false;
    }
    return true;
}

bool verify_key_place_check(const struct verify_agent_in *in, const struct verify_key_place *place,
                            const struct parse_name *key, struct att_slice qualified_name,
                            struct verify_verdict *verdict)
{
    if (place->n == 0) {
        verify_skip(verdict, VERIFY_REASON_KEY_PARENT,
                    "the parents' public areas are not among the files");
        return true;
    }
    if (!check_srk(&place->srk, verdict) || !check_parent(in, place, verdict)) {
        return false;
    }
    struct parse_name chain[3], expected;
    struct att_err err = {0};
    memcpy(chain, place->names, sizeof(chain));
    chain[place->n] = *key;
    if (parse_name_qualified(PARSE_RH_OWNER, chain, place->n + 1, &expected, &err)) {
        verify_fail(verdict, VERIFY_REASON_KEY_PARENT, "qualified Name: %s", err.msg);
        return false;
    }
    if (!att_slice_eq(qualified_name, parse_name_slice(&expected))) {
        char wanted[2 * sizeof(expected.bytes) + 1];
        att_hex(wanted, parse_name_slice(&expected));
        verify_fail(verdict, VERIFY_REASON_KEY_PARENT,
                    "certInfo.qualifiedName is not %s, which owner hierarchy, SRK%s and key give",
                    wanted, place->n > 1 ? ", parent" : "");
        return false;
    }
    if (verify_key_place_demanded(in)) {
        char policy[2 * PARSE_DIGEST_MAX + 1];
        att_hex(policy, ATT_SLICE(place->parent.policy, place->parent.policy_len));
        verify_pass(verdict, VERIFY_REASON_KEY_PARENT,
                    "the key stands under the owner hierarchy's SRK and a storage parent that "
                    "opens by authPolicy %.64s alone",
                    policy);
        return true;
    }
    verify_pass(verdict, VERIFY_REASON_KEY_PARENT,
                "the key stands under the owner hierarchy's SRK%s",
                place->n > 1 ? " and the sent parent" : "");
    return true;
}
