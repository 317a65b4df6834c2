/* The attestation object of device-attest-01 (docs/PROTOCOL.md M4, `attObj`): fmt "tpm" (WebAuthn
 * §8.3 without authData), "attestd-host" (ours: no statement of the key's own, the AK's quote
 * speaks for it) or "attestd-hsm" (ours: what a module states of the key, signed by it). Only the
 * CBOR is judged here, none of the signatures. */
#ifndef ATTESTD_PROVISION_EVIDENCE_ATTOBJ_H
#define ATTESTD_PROVISION_EVIDENCE_ATTOBJ_H

#include "attestd/base/buf.h"
#include "provision/evidence/hsmattrs.h"

#define EVIDENCE_ATTOBJ_MAX ((size_t)64 << 10) /* bytes of CBOR */
#define EVIDENCE_X5C_MAX    8
#define EVIDENCE_CERT_MAX   ((size_t)8 << 10)
#define EVIDENCE_TPM_MAX    ((size_t)2 << 10) /* bytes of sig, certInfo, pubArea each */
#define EVIDENCE_COSE_ES256 (-7)
#define EVIDENCE_COSE_RS256 (-257)
#define EVIDENCE_COSE_PS256 (-37) /* RFC 8230 §2; of an RSA key in an HSM */

#define EVIDENCE_SPKI_MAX ((size_t)1 << 10)

enum evidence_fmt {
    EVIDENCE_FMT_TPM,  /* "tpm": alg, sig, ver "2.0", x5c, pubArea, certInfo */
    EVIDENCE_FMT_HOST, /* "attestd-host": ver "1.0", x5c, spki */
    EVIDENCE_FMT_HSM,  /* "attestd-hsm": alg, sig, ver "1.0", x5c, spki, attributes */
};
const char *evidence_fmt_name(enum evidence_fmt fmt);

/* Encoding borrows from the caller; after parsing, the slices point into cbor as it was passed.
 * What a format does not have is empty. */
struct evidence_attobj {
    enum evidence_fmt fmt;
    struct att_slice x5c[EVIDENCE_X5C_MAX]; /* DER, the AK certificate first */
    size_t x5c_len;
    /* "attestd-host", "attestd-hsm" */
    struct att_slice spki; /* DER SubjectPublicKeyInfo */
    /* "tpm" */
    int alg;              /* COSE algorithm: EVIDENCE_COSE_* */
    struct att_slice sig; /* TPMT_SIGNATURE; "attestd-hsm": r ‖ s (RFC 9053 §2.1) or RSA's */
    struct att_slice cert_info; /* TPMS_ATTEST */
    struct att_slice pub_area;  /* TPMT_PUBLIC */
    /* "attestd-hsm", which has alg and sig, too */
    struct att_slice attributes; /* CBOR (hsmattrs.h) */
};
ATT_MUST_USE enum att_rc evidence_attobj_encode(const struct evidence_attobj *attobj,
                                                struct att_buf *ret_cbor, struct att_err *err);
ATT_MUST_USE enum att_rc evidence_attobj_parse(struct att_slice cbor,
                                               struct evidence_attobj *ret_attobj,
                                               struct att_err *err);
/* What a stock device-attest-01 client sends: fmt "tpm" only, its members in any order, since
 * common CBOR libraries sort none. All else as above: caps, definite lengths, no member twice,
 * unknown or missing, no byte after the end. */
ATT_MUST_USE enum att_rc evidence_attobj_parse_standard(struct att_slice cbor,
                                                        struct evidence_attobj *ret_attobj,
                                                        struct att_err *err);

#endif
