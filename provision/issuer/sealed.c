/* What the key's parent was when the order was judged: for the certificate, the record, and for
 * finalize, whose profile may demand something else by then. */
#include "provision/issuer/order.h"

#include "attestd/base/enc.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An order's note: "DEMAND/POLICY/COUNTER". DEMAND is what the profile wanted then: "none", "pcr7",
 * or a policy; POLICY the parent's own authPolicy, COUNTER an NV index, both in hex. Empty: the key
 * stands under no policy, or the order is of a version that made no notes. */
static const char demand_pcr7[] = "pcr7/";

bool issuer_sealed_note(const struct verify_agent_facts *facts, const struct conf_profile *profile,
                        uint32_t counter, char **ret_text)
{
    char text[160] = "", policy[2 * ATT_SHA256_LEN + 1];
    att_hex(policy, ATT_SLICE_ARRAY(facts->parent_policy));
    if (facts->parent_sealed) {
        snprintf(text, sizeof text, "%s%s/%08" PRIx32,
                 profile->parent_pcr7         ? demand_pcr7
                 : profile->has_parent_policy ? "policy/"
                                              : "none/",
                 policy, counter);
    }
    return issuer_set(ret_text, text);
}

enum att_rc issuer_sealed_leaf(const char *note, struct certs_sealed *ret_sealed,
                               struct att_err *err)
{
    *ret_sealed = (struct certs_sealed){0};
    if (!note || !note[0]) {
        return ATT_OK;
    }
    struct certs_sealed sealed = {.sealed = true};
    char policy[2 * ATT_SHA256_LEN + 1] = "";
    const char *slash = strchr(note, '/');
    if (!slash || strlen(slash + 1) != sizeof policy - 1 + 1 + 8 || slash[sizeof policy] != '/') {
        return att_fail(err, ATT_E_INTERNAL, "an order's note on its key's parent");
    }
    memcpy(policy, slash + 1, sizeof policy - 1);
    sealed.counter = (uint32_t)strtoul(slash + 1 + sizeof policy, NULL, 16);
    enum att_rc rc = att_unhex_exact(sealed.policy, sizeof sealed.policy, policy, err);
    if (rc == ATT_OK) {
        *ret_sealed = sealed;
    }
    return rc;
}

enum att_rc issuer_sealed_again(const char *note, const struct conf_profile *profile,
                                struct att_err *err)
{
    struct certs_sealed was;
    enum att_rc rc = issuer_sealed_leaf(note, &was, err);
    if (rc != ATT_OK) {
        return rc;
    }
    bool good =
        profile->parent_pcr7 ? strncmp(note, demand_pcr7, sizeof demand_pcr7 - 1) == 0
        : profile->has_parent_policy
            ? was.sealed && memcmp(was.policy, profile->parent_policy_bytes, sizeof was.policy) == 0
            : true;
    return good ? ATT_OK
                : issuer_refuse(err, ATT_E_DENIED, "keyParent",
                                "profile %s demands parent_policy %.64s since the verdict, which "
                                "found %.80s",
                                profile->name, profile->parent_policy,
                                was.sealed ? note : "a key under no policy");
}

json_t *issuer_sealed_json(const char *note)
{
    struct certs_sealed sealed;
    char policy[2 * ATT_SHA256_LEN + 1], counter[16];
    if (issuer_sealed_leaf(note, &sealed, NULL) != ATT_OK || !sealed.sealed) {
        return NULL;
    }
    att_hex(policy, ATT_SLICE_ARRAY(sealed.policy));
    snprintf(counter, sizeof counter, "0x%08" PRIx32, sealed.counter);
    return json_pack("{s:s, s:o}", "authPolicy", policy, "counter",
                     sealed.counter ? json_string(counter) : json_null());
}
