/* An agent's files against its manifest, at its start and before each certificate. */
#ifndef ATTESTD_HOST_MEASURE_H
#define ATTESTD_HOST_MEASURE_H

#include "attestd/host/decision.h"
#include "provision/manifest/allow.h"

struct host;

/* {0}, then host_measured_done. */
struct host_measured {
    bool demanded; /* the entry has "measured" */
    struct manifest manifest;
    struct att_buf document;     /* as it lies there */
    size_t by_verity, by_sha256; /* files */
    unsigned level;              /* that the entry demands */
    bool has_device;             /* all files lie on this one */
    uint32_t dev_major, dev_minor;
};
void host_measured_done(struct host_measured *measured);

/* The manifest is one that measured allows, and the files are what it says, as the host sees them.
 * ATT_E_DENIED with manifestMissing, manifestRoot, manifestSignature or modelDigest (which names
 * the file and both digests) is only said of what was seen. ATT_E_RETRY notMeasured: it cannot be
 * told now, nothing was seen that differs; other errors are whod's. */
ATT_MUST_USE enum att_rc host_measure(struct host *host, const struct conf_measured *measured,
                                      struct host_measured *ret, struct att_err *err);
/* The same for an agent by its name, as its entry in the view says; nothing where that demands
 * nothing. */
ATT_MUST_USE enum att_rc host_measure_agent(struct host *host, const char *agent,
                                            struct host_measured *ret, struct att_err *err);
/* A caller that was found to be this agent: it runs the manifest's executable, and of an
 * interpreter the manifest's script; and what it sees are the manifest's files. Few are measured at
 * a time, of one agent one; for all of a caller's files there is a minute, then, or when it was not
 * its turn soon, ATT_E_RETRY notMeasured. */
ATT_MUST_USE enum att_rc host_measure_caller(struct host *host,
                                             const struct host_decision *decision,
                                             const struct host_caller *from,
                                             const struct conf_measured *measured,
                                             struct att_err *err);

#endif
