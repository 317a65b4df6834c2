/* The log manifest as part of a larger CBOR document. Internal to this folder: see logs.h. */
#ifndef ATTESTD_PROVISION_EVIDENCE_MANIFEST_H
#define ATTESTD_PROVISION_EVIDENCE_MANIFEST_H

#include "provision/evidence/cbor.h"
#include "provision/evidence/logs.h"

void evidence_manifest_put(const struct evidence_logs *logs, struct att_buf *ret_cbor);
ATT_MUST_USE enum att_rc evidence_manifest_take(struct evidence_cbor *cbor,
                                                struct evidence_logs *ret_logs,
                                                struct att_err *err);

#endif
