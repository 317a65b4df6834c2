/* Both ends' messages of the compatibility endpoints (docs/PROTOCOL.md, "Attestation CA in
 * Smallstep's dialect"): JSON of Go's encoding, bytes as padded base64. Forms only; nothing is
 * judged here. */
#ifndef ATTESTD_PROVISION_ENROL_STEP_H
#define ATTESTD_PROVISION_ENROL_STEP_H

#include "attestd/base/buf.h"

#define ENROL_STEP_BODY_MAX   ((size_t)64 << 10)
#define ENROL_STEP_CERTS_MAX  8
#define ENROL_STEP_SECRET_LEN 32

/* POST attest. Unknown members are ignored: the dialect is not ours. */
struct enrol_step_attest {
    struct att_buf ek;                             /* DER SubjectPublicKeyInfo */
    struct att_buf ek_certs[ENROL_STEP_CERTS_MAX]; /* DER, at least one */
    size_t n_ek_certs;
    struct att_buf ak_pub;                                            /* TPMT_PUBLIC */
    struct att_buf create_data, create_attestation, create_signature; /* TPMS_CREATION_DATA,
                                                                       * TPMS_ATTEST,
                                                                       * TPMT_SIGNATURE */
    char version[9];      /* as claimed: "major.minor" as 8 lowercase hex digits; likewise */
    char manufacturer[9]; /* as claimed: 8 lowercase hex digits; "" where it is not said */
};
void enrol_step_attest_done(struct enrol_step_attest *request);
/* ATT_E_PARSE, ATT_E_LIMIT (reason "malformed" in both): a member that is missing or has not its
 * form, no EK certificate, TPM 1.2. */
ATT_MUST_USE enum att_rc enrol_step_attest_parse(struct att_slice body,
                                                 struct enrol_step_attest *ret_request,
                                                 struct att_err *err);
/* The client's side of it: manufacturer "" is left out, "version" is 8 hex digits. */
ATT_MUST_USE enum att_rc enrol_step_attest_encode(const struct enrol_step_attest *request,
                                                  struct att_buf *ret_body, struct att_err *err);
/* {"credential", "secret"}: a whole TPM2B_ID_OBJECT and TPM2B_ENCRYPTED_SECRET. */
ATT_MUST_USE enum att_rc enrol_step_attest_answer(struct att_slice credential,
                                                  struct att_slice secret, struct att_buf *ret_body,
                                                  struct att_err *err);

/* Unknown members are ignored. ATT_E_PARSE, ATT_E_LIMIT. */
ATT_MUST_USE enum att_rc enrol_step_attest_answer_parse(struct att_slice body,
                                                        struct att_buf *ret_credential,
                                                        struct att_buf *ret_secret,
                                                        struct att_err *err);

ATT_MUST_USE enum att_rc enrol_step_secret_encode(struct att_slice secret, struct att_buf *ret_body,
                                                  struct att_err *err);
/* POST secret: exactly ENROL_STEP_SECRET_LEN bytes; same errors. */
ATT_MUST_USE enum att_rc enrol_step_secret_parse(struct att_slice body,
                                                 uint8_t ret_secret[ENROL_STEP_SECRET_LEN],
                                                 struct att_err *err);
/* {"chain": [DER…]}, the AK certificate first. */
ATT_MUST_USE enum att_rc enrol_step_secret_answer(const struct att_buf *chain, size_t n,
                                                  struct att_buf *ret_body, struct att_err *err);
/* ret_chain: room for ENROL_STEP_CERTS_MAX; 1 … that many, DER as it came. ATT_E_PARSE,
 * ATT_E_LIMIT: ret_chain is empty. */
ATT_MUST_USE enum att_rc enrol_step_secret_answer_parse(struct att_slice body,
                                                        struct att_buf *ret_chain, size_t *ret_n,
                                                        struct att_err *err);

#endif
