/* What an agent is made of: its manifest, against what its entry allows, and how well that is known
 * (docs/PROTOCOL.md, "An agent's manifest"). After verify_agent, whose facts it goes on from.
 *
 * Level 1: the host's attestd says that the files are the manifest's. Level 2: the kernel says so
 * too: each file has an entry of its path in the part of IMA's list that leads to the quoted PCR
 * (the tail's part, too), all entries of that path have the file's SHA-256 or its fs-verity digest,
 * and the list has no violation. All of them, because IMA lists a path and digest once in a boot:
 * after another file, that one again would not be seen. Level 3: level 2, and the files lie on a
 * device that is dm-verity by the kernel's word, with a root hash that the boot named (dmverity.h).
 * That they lie there is the host's own word. */
#ifndef ATTESTD_VERIFY_MEASURED_H
#define ATTESTD_VERIFY_MEASURED_H

#include "provision/manifest/allow.h"
#include "provision/verify/agent.h"

struct verify_measured_in {
    bool demanded; /* the entry has "measured"; else everything is skipped */
    struct manifest_wanted wanted;
    unsigned level;                   /* the least that will do, 1 to 3 */
    struct att_slice document;        /* the manifest that was sent; empty: none */
    const struct evidence_logs *logs; /* of the quote that verify_agent accepted */
    uint32_t logs_asked;              /* VERIFY_LOG_*: those that were replayed */
    const struct verify_agent_facts *agent;
    /* By what that quote was judged, for level 3; NULL: it is not reached. */
    const struct verify_boot *boot;
    const struct verify_quoted *quoted;
};
struct verify_measured_facts {
    unsigned level; /* 0: nothing was demanded */
    uint8_t root[ATT_SHA256_LEN];
    size_t n_files, n_ima; /* listed; those that IMA confirms */
    size_t n_replaced;     /* those it does not, since they were other files before in this boot */
    uint8_t verity_root[ATT_SHA256_LEN]; /* of level 3 */
    char lacks[VERIFY_DETAIL_MAX];       /* why level 3 is not reached where 2 is */
};

/* Checks, in order: manifestMissing, manifestRoot, manifestSignature, modelDigest (IMA last
 * measured another digest under a listed path: both are named), measuredLevel. */
ATT_MUST_USE enum verify_result verify_measured(const struct verify_measured_in *in,
                                                struct verify_verdict *verdict,
                                                struct verify_measured_facts *ret);

#endif
