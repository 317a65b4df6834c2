/* The roots that TLS to the issuer and its views are checked with: what an operator gave (a pin, a
 * file of roots), and what views have said of them since. */
#ifndef ATTESTD_HOST_TRUST_H
#define ATTESTD_HOST_TRUST_H

#include "attestd/host/internal.h"

#define HOST_TRUST_PREFIX "issuer-roots-"

/* What is there for what was given takes its place: issuer->ca_file is state_dir/host/
 * issuer-roots-ANCHOR.pem then. ANCHOR is a digest of the pin or of the file that was given, so
 * that an operator who gives another one has the last word. ATT_E_IO, reason issuerRoots: it is
 * there and cannot be read; what was given does not count again for that. */
ATT_MUST_USE enum att_rc host_trust_apply(const struct host *host, struct host_issuer *issuer,
                                          struct att_err *err);
/* After a view was put in force: writes what it says (issuerRoots), if it says anything. Of a file
 * that was given what is not retired stays, and what was dropped once stays away. Clients are made
 * anew when something changed. Not under lock. */
ATT_MUST_USE enum att_rc host_trust_learn(struct host *host, const struct host_view *view,
                                          struct att_err *err);

#endif
