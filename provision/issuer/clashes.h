/* Agents that only digests tell apart (attestd/conf/entries.h), as warnings for an operator: one
 * for each group whose agents hang together by what they share. */
#ifndef PROVISION_ISSUER_CLASHES_H
#define PROVISION_ISSUER_CLASHES_H

#include "attestd/base/json.h"
#include "attestd/conf/entries.h"

#define ISSUER_CLASHES_MAX       32 /* warnings; one more says how many groups are left out */
#define ISSUER_CLASHES_NAMES_MAX 50 /* names in one of them */

/* {0} is empty; done with issuer_clashes_done. */
struct issuer_clashes {
    json_t *groups; /* [{"what": text, "names": [name …]}, or null: became part of another] */
    json_t *of;     /* "<what>/<name>": index into groups */
};

/* Nothing when the two do not clash. */
ATT_MUST_USE enum att_rc issuer_clashes_note(struct issuer_clashes *clashes,
                                             const struct conf_entry *a, const struct conf_entry *b,
                                             struct att_err *err);
/* An array of texts for the caller; NULL: no memory. */
json_t *issuer_clashes_warnings(const struct issuer_clashes *clashes);
void issuer_clashes_done(struct issuer_clashes *clashes);

#endif
