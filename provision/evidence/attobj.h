/* The attestation object of device-attest-01 (docs/PROTOCOL.md M4, `attObj`): fmt "tpm" (WebAuthn
 * §8.3 without authData) or "attestd-host" (ours: no statement of the key's own, the AK's quote
 * speaks for it). Only the CBOR is judged here, none of the signatures. */
#ifndef ATTESTD_PROVISION_EVIDENCE_ATTOBJ_H
#define ATTESTD_PROVISION_EVIDENCE_ATTOBJ_H

#include "attestd/base/buf.h"

#define EVIDENCE_ATTOBJ_MAX ((size_t)64 << 10) /* bytes of CBOR */
#define EVIDENCE_X5C_MAX    8
#define EVIDENCE_CERT_MAX   ((size_t)8 << 10)
#define EVIDENCE_TPM_MAX    ((size_t)2 << 10) /* bytes of sig, certInfo, pubArea each */
#define EVIDENCE_COSE_ES256 (-7)
#define EVIDENCE_COSE_RS256 (-257)

#define EVIDENCE_SPKI_MAX ((size_t)1 << 10)

enum evidence_fmt {
    EVIDENCE_FMT_TPM,  /* "tpm": alg, sig, ver "2.0", x5c, pubArea, certInfo */
    EVIDENCE_FMT_HOST, /* "attestd-host": ver "1.0", x5c, spki */
};
const char *evidence_fmt_name(enum evidence_fmt fmt);

/* Encoding borrows from the caller; after parsing, the slices point into cbor as it was passed.
 * What a format does not have is empty. */
struct evidence_attobj {
    enum evidence_fmt fmt;
    struct att_slice x5c[EVIDENCE_X5C_MAX]; /* DER, the AK certificate first */
    size_t x5c_len;
    /* "attestd-host" */
    struct att_slice spki; /* DER SubjectPublicKeyInfo */
    /* "tpm" */
    int alg;                    /* COSE algorithm: EVIDENCE_COSE_* */
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
