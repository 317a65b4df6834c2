/* The evidence statement: what the quote of M4 is made to say about the agent (docs/PROTOCOL.md M4,
 * `evidence`). Deterministic CBOR (RFC 8949 §4.2.1): bytes that are not exactly what encoding the
 * parsed statement gives are refused. */
#ifndef ATTESTD_PROVISION_EVIDENCE_STATEMENT_H
#define ATTESTD_PROVISION_EVIDENCE_STATEMENT_H

#include "provision/evidence/logs.h"

#define EVIDENCE_COMMAND_LINE_MAX 4000
#define EVIDENCE_STATEMENT_MAX    ((size_t)16 << 10) /* bytes of CBOR */
#define EVIDENCE_IDENTIFIER_LEN   512                /* with the NUL */
#define EVIDENCE_KEY_NAME_MAX     66                 /* nameAlg ‖ digest */
#define EVIDENCE_HSM_NAME_MAX     32                 /* of a module, as in attestd.yaml */
#define EVIDENCE_HSM_TEXT_MAX     32                 /* PKCS#11 2.40 §3.2: manufacturerID */
#define EVIDENCE_SELECTORS_MAX    32
#define EVIDENCE_SELECTOR_LEN     256 /* with the NUL */

/* What a module says of its token (PKCS#11 2.40 §3.2, CK_TOKEN_INFO), without the padding.
 * Printable ASCII, each may be empty. Statements, not proofs. */
struct evidence_hsm_token {
    char manufacturer[EVIDENCE_HSM_TEXT_MAX + 1], model[16 + 1], serial[16 + 1];
};
bool evidence_hsm_token_ok(const struct evidence_hsm_token *token);
bool evidence_hsm_token_equal(const struct evidence_hsm_token *a,
                              const struct evidence_hsm_token *b);

/* Owns logs (without data) and selectors; evidence_statement_done. */
struct evidence_statement {
    char identifier[EVIDENCE_IDENTIFIER_LEN]; /* as in the order, e.g. a SPIFFE ID */
    char key_store[16];                       /* "tpm", "hsm", "memory", "exportable" */
    /* "hsm" only: the name of the host's HSM module that has the key, by the host's word; "":
     * absent, the issuer did not say that it reads it, or the host is of a version before it */
    char hsm[EVIDENCE_HSM_NAME_MAX + 1];
    /* With hsm only: that module's token. Absent as hsm is, or before hsmd has seen the token. */
    bool has_hsm_token;
    struct evidence_hsm_token hsm_token;
    /* keyName or keySpki: which of them says of which key this is. */
    uint8_t key_name[EVIDENCE_KEY_NAME_MAX]; /* "tpm": TPM Name */
    size_t key_name_len;                     /* 0: absent */
    bool has_key_spki;                       /* the others: SHA-256 of SubjectPublicKeyInfo */
    uint8_t key_spki[ATT_SHA256_LEN];
    bool has_manifest_root;
    uint8_t manifest_root[ATT_SHA256_LEN];
    unsigned level; /* 0 … 3 */
    /* Both only where level 3 is demanded: the device on which all of the manifest's files lie, and
     * the kernel's command line (empty: absent), where it is text. */
    bool has_device;
    uint32_t device_major, device_minor;
    char command_line[EVIDENCE_COMMAND_LINE_MAX + 1];
    char *selectors[EVIDENCE_SELECTORS_MAX]; /* in the order given */
    size_t n_selectors;
    struct evidence_logs logs;
    uint8_t host_log_head[ATT_SHA256_LEN];
};
/* [a-z0-9][a-z0-9._-]*, at most EVIDENCE_HSM_NAME_MAX. */
bool evidence_hsm_name_ok(const char *name);
void evidence_statement_done(struct evidence_statement *statement);
ATT_MUST_USE enum att_rc evidence_statement_encode(const struct evidence_statement *statement,
                                                   struct att_buf *ret_cbor, struct att_err *err);
ATT_MUST_USE enum att_rc evidence_statement_parse(struct att_slice cbor,
                                                  struct evidence_statement *ret_statement,
                                                  struct att_err *err);

#endif
