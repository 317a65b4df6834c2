/* The attestation object of device-attest-01, fmt "tpm" (docs/PROTOCOL.md M4, `attObj`; WebAuthn
 * §8.3 without authData). Only the CBOR is judged here, none of the signatures. */
#ifndef ATTESTD_PROVISION_EVIDENCE_ATTOBJ_H
#define ATTESTD_PROVISION_EVIDENCE_ATTOBJ_H

#include "attestd/base/buf.h"

#define EVIDENCE_ATTOBJ_MAX ((size_t)64 << 10) /* bytes of CBOR */
#define EVIDENCE_X5C_MAX    8
#define EVIDENCE_CERT_MAX   ((size_t)8 << 10)
#define EVIDENCE_TPM_MAX    ((size_t)2 << 10) /* bytes of sig, certInfo, pubArea each */
#define EVIDENCE_COSE_ES256 (-7)
#define EVIDENCE_COSE_RS256 (-257)

/* Encoding borrows from the caller; after parsing, the slices point into cbor as it was passed. */
struct evidence_attobj {
    int alg;                                /* COSE algorithm: EVIDENCE_COSE_* */
    struct att_slice x5c[EVIDENCE_X5C_MAX]; /* DER, the AK certificate first */
    size_t x5c_len;
    struct att_slice sig;       /* TPMT_SIGNATURE */
    struct att_slice cert_info; /* TPMS_ATTEST */
    struct att_slice pub_area;  /* TPMT_PUBLIC */
};
ATT_MUST_USE enum att_rc evidence_attobj_encode(const struct evidence_attobj *attobj,
                                                struct att_buf *ret_cbor, struct att_err *err);
ATT_MUST_USE enum att_rc evidence_attobj_parse(struct att_slice cbor,
                                               struct evidence_attobj *ret_attobj,
                                               struct att_err *err);

#endif
