/* Is a boot a sequence of what a policy's components allow? PCR by PCR: the events of a PCR, in the
 * order in which they were extended, against its components in the policy's order. */
#ifndef ATTESTD_VERIFY_SEQUENCE_H
#define ATTESTD_VERIFY_SEQUENCE_H

#include "provision/verify/bootlog.h"
#include "provision/verify/policy.h"

/* Why an event is not what a component allows, the best first. */
enum verify_fit {
    VERIFY_FIT_ALLOWED = 0,
    VERIFY_FIT_EXPIRED,       /* a variant that was allowed */
    VERIFY_FIT_NOT_YET_VALID, /* a variant that will be */
    VERIFY_FIT_UNKNOWN,       /* the component's event, no variant of it */
    VERIFY_FIT_UNCHECKED,     /* only text could tell, and the event's is not what was hashed */
    VERIFY_FIT_OTHER,         /* another component's event */
};
/* ret_variant (may be NULL): the variant that says so, of ALLOWED, EXPIRED and NOT_YET_VALID. */
enum verify_fit verify_fit_of(const struct verify_component *component,
                              const struct verify_event *event, size_t digest_len, int64_t now,
                              const struct verify_variant **ret_variant);

/* Adds a finding for all that is not as the policy's components say, in the PCRs of mask that the
 * policy does not leave unjudged. The quote's other values are not looked at. */
void verify_sequence_judge(const struct verify_policy *policy, const struct verify_bootlog *bootlog,
                           uint32_t mask, int64_t now, struct verify_verdict *verdict);

#endif
