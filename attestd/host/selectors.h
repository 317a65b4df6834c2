/* The workload selectors of the issuer's view, as rules to match a caller against. A view in force
 * has one set; who is in the middle of a decision keeps the set it began with. */
#ifndef ATTESTD_HOST_SELECTORS_H
#define ATTESTD_HOST_SELECTORS_H

#include "attestd/base/json.h"
#include "attestd/workload/match.h"

/* Immutable but for its references. */
struct host_selectors {
    int refs;
    size_t n;
    struct workload_rule *rules;    /* one for each entry, in the view's order */
    uint64_t number;                /* of these selectors: others have another; not 0 */
    struct conf_measured *measured; /* of each rule; without manifest: nothing is demanded */
    struct att_err *measured_bad;   /* why what is demanded cannot be met */
    struct att_err *bad;            /* why a rule fits nobody; rc ATT_OK: it is in order */
};

/* entries: the view's array, each with name and workload. An entry whose workload cannot be read
 * (a later issuer's member, say) keeps its place and fits nobody: what narrows must not be left
 * out. */
ATT_MUST_USE enum att_rc host_selectors_new(const json_t *entries,
                                            struct host_selectors **ret_selectors,
                                            struct att_err *err);
struct host_selectors *host_selectors_ref(struct host_selectors *selectors); /* NULL is fine */
void host_selectors_unref(struct host_selectors **selectors);                /* sets NULL */

#endif
