/* A TPM object at rest: "TSS2 PRIVATE KEY" PEM around the ASN.1 TPMKey of the OpenSSL TPM engines
 * and providers (OIDs 2.23.133.10.1.3 and 2.23.133.10.1.5). The parent's Name, for which TPMKey has
 * no field, stands in a line of explanatory text before the PEM (RFC 7468 §2), "Parent-Name:
 * <hex>": other tools skip it. It only makes errors clear; the TPM itself checks the blob. */
#ifndef ATT_TPM_TSS2PEM_H
#define ATT_TPM_TSS2PEM_H

#include "tpm/context.h"

#define TPM_BLOB_PEM_MAX  8192u /* bytes of text */
#define TPM_BLOB_PUB_MAX  1024u
#define TPM_BLOB_PRIV_MAX 2048u

enum tpm_blob_type {
    TPM_BLOB_KEY = 1, /* 2.23.133.10.1.3, loadable key */
    TPM_BLOB_SEALED,  /* 2.23.133.10.1.5, sealed data */
};

/* Owns its buffers; {0} is empty. Nothing in it is secret in the clear. */
struct tpm_blob {
    enum tpm_blob_type type;
    bool empty_auth;
    uint32_t parent_handle; /* 0x40000001 (owner: "the SRK") or a persistent 0x81… handle */
    struct parse_name parent_name; /* len 0: not recorded */
    struct att_buf pub;            /* TPMT_PUBLIC */
    struct att_buf priv;           /* the content of TPM2B_PRIVATE, without its size */
};

void tpm_blob_done(struct tpm_blob *blob);
#define tpm_autoblob ATT_CLEANUP(tpm_blob_done) struct tpm_blob

/* Appends the PEM text. */
ATT_MUST_USE enum att_rc tpm_tss2pem_encode(const struct tpm_blob *blob, struct att_buf *ret_text,
                                            struct att_err *err);
/* Strict: one PEM block, at most one Parent-Name line before it, nothing after it; DER without
 * trailing bytes; both TPM2Bs of exact length; no policy, secret, authPolicy or rsaParent (ours
 * have none): ATT_E_UNSUPPORTED for those, ATT_E_PARSE for the rest. */
ATT_MUST_USE enum att_rc tpm_tss2pem_parse(struct att_slice text, struct tpm_blob *ret_blob,
                                           struct att_err *err);
/* The object's Name from its public area, as the TPM computes it. */
ATT_MUST_USE enum att_rc tpm_blob_name(const struct tpm_blob *blob, struct parse_name *ret_name,
                                       struct att_err *err);

#endif
