/* Endorsement keys and their certificates (TCG EK Credential Profile 2.x). */
#ifndef ATT_TPM_EK_H
#define ATT_TPM_EK_H

#include "tpm/context.h"
#include "tpm/parse/public.h"

#define TPM_EK_CERT_MAX    4096u /* bytes of one certificate in NV */
#define TPM_EK_CERTS_MAX   8u
#define TPM_EK_CHAIN_MAX   8u
#define TPM_EK_SKIPPED_MAX 16u

/* One EK certificate found in NV: exact DER, padding stripped by its length. */
struct tpm_ek_cert {
    uint32_t nv_index;           /* 0x01c00002 … */
    enum parse_ek_template kind; /* which EK the index is for; PARSE_EK_NONE: one we cannot
                                   use (P-521, SM2 …), reported all the same */
    struct att_buf der;
};

/* Owns everything; {0} is empty. chain: certificates from 0x01c00100 on, in NV order. skipped: the
 * defined indices of certificates that could not be read (no authorisation that may be tried, never
 * written, too large …). */
struct tpm_ek_certs {
    struct tpm_ek_cert certs[TPM_EK_CERTS_MAX];
    size_t certs_count;
    struct att_buf chain[TPM_EK_CHAIN_MAX];
    size_t chain_count;
    uint32_t skipped[TPM_EK_SKIPPED_MAX];
    size_t skipped_count;
};

void tpm_ek_certs_done(struct tpm_ek_certs *certs);
/* Reads them all. None at all is ATT_OK with certs_count 0. An index whose content is no
 * certificate is left out. */
ATT_MUST_USE enum att_rc tpm_ek_read_certs(struct tpm_context *ctx, struct tpm_ek_certs *ret_certs,
                                           struct att_err *err);

/* An endorsement key that can be used now. Owns its buffers; {0} is empty. */
struct tpm_ek {
    enum parse_ek_template kind;
    uint32_t persistent; /* 0: created from its template when used */
    uint32_t nv_index;   /* of its certificate; 0: it has none */
    struct att_buf cert; /* DER; empty: it has none */
    struct att_buf pub;  /* TPMT_PUBLIC */
};

void tpm_ek_done(struct tpm_ek *ek);
/* Finds the EK to use: among those with a certificate P-256 (H-2, L-2), then P-384 (H-3), then RSA
 * (H-1, L-1, H-6); without any certificate the P-256 of template L-2 (RSA-2048 of L-1 where the TPM
 * has no P-256). only: restrict to one kind, PARSE_EK_NONE for any. The key comes from its
 * persistent handle (0x81010001, 0x81010002, 0x81010012, 14, 16, 1c) or is created from its
 * template, and must have the certificate's public key: ATT_E_DENIED, reason "ekCertMismatch",
 * otherwise; then the next kind is tried, and the error stands when none is left. ATT_E_NOTFOUND
 * when there is no EK of that kind. certs: as tpm_ek_read_certs() gave them. */
ATT_MUST_USE enum att_rc tpm_ek_find(struct tpm_context *ctx, const struct tpm_ek_certs *certs,
                                     enum parse_ek_template only, struct tpm_ek *ret_ek,
                                     struct att_err *err);
/* TPM2_ActivateCredential with this EK for our AK (tpm/ak.h). credential: TPM2B_ID_OBJECT, secret:
 * TPM2B_ENCRYPTED_SECRET, both with their size prefix, exactly. ret_value: what was in it (≤ 64
 * bytes, appended). ATT_E_AUTH when it was made for another EK or AK, or altered. */
ATT_MUST_USE enum att_rc tpm_ek_activate(struct tpm_context *ctx, const struct tpm_ek *ek,
                                         struct att_slice credential, struct att_slice secret,
                                         struct att_buf *ret_value, struct att_err *err);

#define tpm_autoek      ATT_CLEANUP(tpm_ek_done) struct tpm_ek
#define tpm_autoekcerts ATT_CLEANUP(tpm_ek_certs_done) struct tpm_ek_certs

#endif
