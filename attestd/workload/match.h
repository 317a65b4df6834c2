/* Which agent is a caller? Compares what whod saw with the entries' workload selectors. Pure.
 *
 * All members that an alternative gives must hold; one alternative of an entry is enough. Exactly
 * one agent, or a refusal: two entries that fit the same caller would let a configuration decide by
 * chance. */
#ifndef ATTESTD_WORKLOAD_MATCH_H
#define ATTESTD_WORKLOAD_MATCH_H

#include "attestd/conf/entries.h"
#include "attestd/workload/caller.h"

/* One agent's alternatives; borrowed. n 0: it fits nobody. */
struct workload_rule {
    const char *agent;
    const struct conf_workload *workload;
    size_t n;
};

/* The manifests whose digests a decision needs, as paths; borrowed from the rules, each once. */
struct workload_wanted {
    struct att_slice paths[WORKLOAD_FILES_MAX];
    size_t n;
};
/* Those of the alternatives that fit in everything else. ATT_E_LIMIT beyond WORKLOAD_FILES_MAX. */
ATT_MUST_USE enum att_rc workload_match_wanted(const struct workload_rule *rules, size_t n,
                                               const struct workload_caller *caller,
                                               struct workload_wanted *ret_wanted,
                                               struct att_err *err);

/* wanted: the paths that caller->files are of (NULL: none). ret_rule: an index. ATT_E_DENIED
 * notAssigned (says how near the nearest came) or ambiguous (names them). */
ATT_MUST_USE enum att_rc workload_match(const struct workload_rule *rules, size_t n,
                                        const struct workload_caller *caller,
                                        const struct workload_wanted *wanted, size_t *ret_rule,
                                        struct att_err *err);

/* Why one alternative does not fit: a member's name and a sentence. False: it fits. */
struct workload_misfit {
    const char *member; /* "uid", "unit", "exe_sha256", "script_sha256", "manifest" */
    char text[300];
};
bool workload_match_misfit(const struct conf_workload *workload,
                           const struct workload_caller *caller,
                           const struct workload_wanted *wanted, struct workload_misfit *ret);

#endif
