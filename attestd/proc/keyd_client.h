/* keyd's client, for the daemon: one blocking call per operation of keyd_proto.h. Thread-safe:
 * calls from several threads run side by side on a small pool of connections. A lost connection is
 * made anew at the next call; operations that are harmless to repeat are resent once by themselves.
 *
 * Errors: what keyd answered, with its code, reason and message; ATT_E_UNREACHABLE when nobody
 * listens; ATT_E_DENIED foreignKeyd when somebody else does; ATT_E_TIMEOUT; ATT_E_GONE when the
 * connection (KEY_CREATE) or the TPM went away; ATT_E_PROTOCOL when the answer has not its form. */
#ifndef ATTESTD_PROC_KEYD_CLIENT_H
#define ATTESTD_PROC_KEYD_CLIENT_H

#include "attestd/base/json.h"
#include "attestd/proc/keyd_proto.h"

struct proc_keyd;

/* Does not connect yet. Whoever listens there must be user or root. timeout_ms bounds each call,
 * waiting in keyd's queue included. */
ATT_MUST_USE enum att_rc proc_keyd_new(const char *socket_path, uid_t user, int64_t timeout_ms,
                                       struct proc_keyd **ret_keyd, struct att_err *err);
void proc_keyd_free(struct proc_keyd *keyd); /* no call may be under way */

/* The object that keyd_proto.h describes; the caller owns it. */
ATT_MUST_USE enum att_rc proc_keyd_info(struct proc_keyd *keyd, json_t **ret_info,
                                        struct att_err *err);

/* Owned; free with proc_identity_done. Slices point into store. */
struct proc_identity {
    struct att_slice *ek_certs; /* DER */
    size_t ek_cert_count;
    struct att_slice *ek_chain; /* DER */
    size_t ek_chain_count;
    struct att_slice ek_cert; /* the chosen one; empty when the TPM has none */
    struct att_slice ek_pub, ak_pub, srk_pub, ak_name;
    char manufacturer[9]; /* 8 hex */
    char firmware[17];    /* 16 hex */
    uint32_t reset_count, restart_count;
    struct att_buf store;
};
ATT_MUST_USE enum att_rc proc_keyd_identity(struct proc_keyd *keyd,
                                            struct proc_identity *ret_identity,
                                            struct att_err *err);
void proc_identity_done(struct proc_identity *identity);

/* The account's public key. */
struct proc_account {
    json_t *jwk;         /* owned */
    char thumbprint[44]; /* RFC 7638 */
    struct att_buf spki; /* DER */
};
ATT_MUST_USE enum att_rc proc_keyd_account(struct proc_keyd *keyd, struct proc_account *ret_account,
                                           struct att_err *err);
void proc_account_done(struct proc_account *account);

/* ret_sig: r ‖ s over b64u(header) "." b64u(payload). Payloads of up to PROC_JWS_TOTAL_MAX bytes.
 */
ATT_MUST_USE enum att_rc proc_keyd_account_sign(struct proc_keyd *keyd,
                                                struct att_slice protected_json,
                                                struct att_slice payload, uint8_t ret_sig[64],
                                                struct att_err *err);

/* A quote with the PCR values it covers. */
struct proc_quote {
    struct att_buf attest; /* TPMS_ATTEST */
    struct att_buf sig;    /* TPMT_SIGNATURE */
    json_t *pcrs;          /* the wire's "pcrs" member; owned */
};
void proc_quote_done(struct proc_quote *quote);

struct proc_enrol_args {
    struct att_slice credential_blob;  /* TPM2B_ID_OBJECT */
    struct att_slice encrypted_secret; /* TPM2B_ENCRYPTED_SECRET */
    const char *ak_url;
    const uint8_t *m1_sha256, *m1_reply_sha256; /* 32 bytes each */
    struct att_slice nonce;
    const char *pcr_selection;
    struct att_slice log_manifest;
};
ATT_MUST_USE enum att_rc proc_keyd_enrol_prove(struct proc_keyd *keyd,
                                               const struct proc_enrol_args *args,
                                               uint8_t ret_proof[32], struct proc_quote *ret_quote,
                                               struct att_err *err);

/* What keyd knows of one key. Owned. */
struct proc_key {
    char key_id[PROC_KEY_ID_LEN + 1];
    char agent[PROC_AGENT_MAX + 1];
    char state[16]; /* "new", "active", "retired" */
    int64_t created_at;
    char store[PROC_KEY_STORE_MAX + 1];
    char type[16];                   /* "ec-p256", "rsa-2048" … */
    struct att_buf name;             /* TPM Name; empty: not a TPM's key */
    struct att_buf spki;             /* DER */
    char hsm[PROC_HSM_NAME_MAX + 1]; /* the HSM's module; empty: in no HSM */
    bool usual;                      /* where one is made when no module is named */
};
void proc_key_done(struct proc_key *key);
/* On P-256, in the default module; create_type: of any type, in any module ("": the default). */
ATT_MUST_USE enum att_rc proc_keyd_key_create(struct proc_keyd *keyd, const char *agent,
                                              const char *store, struct proc_key *ret_key,
                                              struct att_err *err);
ATT_MUST_USE enum att_rc proc_keyd_key_create_type(struct proc_keyd *keyd, const char *agent,
                                                   const char *store, const char *type,
                                                   const char *hsm, struct proc_key *ret_key,
                                                   struct att_err *err);
/* All keys, in key id order; free with proc_keys_free. */
ATT_MUST_USE enum att_rc proc_keyd_key_list(struct proc_keyd *keyd, struct proc_key **ret_keys,
                                            size_t *ret_count, struct att_err *err);
void proc_keys_free(struct proc_key *keys, size_t count);

/* Everything of M4 that keyd makes. */
struct proc_key_evidence {
    /* TPMS_ATTEST; of a key in an HSM (then pub_area and srk_pub are empty) its attributes, CBOR;
     * empty, as the three below: the store states nothing */
    struct att_buf cert_info;
    struct att_buf cert_sig; /* TPMT_SIGNATURE; HSM: r ‖ s */
    struct proc_quote quote;
    struct att_buf pub_area, srk_pub;
    struct att_buf parent_pub; /* empty: the parent is the SRK */
};
ATT_MUST_USE enum att_rc proc_keyd_key_evidence(struct proc_keyd *keyd, const char *key_id,
                                                const char *key_authorization,
                                                struct att_slice evidence_cbor,
                                                const char *pcr_selection,
                                                struct proc_key_evidence *ret_evidence,
                                                struct att_err *err);
void proc_key_evidence_done(struct proc_key_evidence *evidence);

/* Appends the CSR's DER. */
ATT_MUST_USE enum att_rc proc_keyd_key_csr(struct proc_keyd *keyd, const char *key_id,
                                           const char *spiffe_id, struct att_buf *ret_der,
                                           struct att_err *err);
/* For another server than an attest-issuerd (keyd_proto.h). Of ret_evidence cert_info, cert_sig and
 * pub_area are set. */
ATT_MUST_USE enum att_rc proc_keyd_key_certify(struct proc_keyd *keyd, const char *key_id,
                                               const char *key_authorization,
                                               struct proc_key_evidence *ret_evidence,
                                               struct att_err *err);
/* Appends the CSR's DER. */
ATT_MUST_USE enum att_rc proc_keyd_key_csr_device(struct proc_keyd *keyd, const char *key_id,
                                                  const char *identifier, struct att_buf *ret_der,
                                                  struct att_err *err);
struct proc_ak_creation { /* TPMS_CREATION_DATA, TPMS_ATTEST, TPMT_SIGNATURE; owned */
    struct att_buf data, attestation, signature;
};
void proc_ak_creation_done(struct proc_ak_creation *creation);
ATT_MUST_USE enum att_rc proc_keyd_ak_creation(struct proc_keyd *keyd,
                                               struct proc_ak_creation *ret_creation,
                                               struct att_err *err);
/* Appends; the caller wipes it. */
ATT_MUST_USE enum att_rc proc_keyd_ak_activate(struct proc_keyd *keyd, struct att_slice credential,
                                               struct att_slice encrypted_secret,
                                               struct att_buf *ret_secret, struct att_err *err);

ATT_MUST_USE enum att_rc proc_keyd_key_activate(struct proc_keyd *keyd, const char *key_id,
                                                struct att_err *err);
ATT_MUST_USE enum att_rc proc_keyd_key_retire(struct proc_keyd *keyd, const char *key_id,
                                              struct att_err *err);
ATT_MUST_USE enum att_rc proc_keyd_key_destroy(struct proc_keyd *keyd, const char *key_id,
                                               struct att_err *err);
/* ret_extra_data: what the TPM was given, so that a verifier can be told. */
ATT_MUST_USE enum att_rc proc_keyd_user_quote(struct proc_keyd *keyd, struct att_slice nonce,
                                              const char *pcr_selection,
                                              struct att_slice log_manifest,
                                              struct proc_quote *ret_quote,
                                              uint8_t ret_extra_data[32], struct att_err *err);
/* The issuer that a ticket names. ATT_E_CONFLICT issuerOther: keyd knows another one. */
ATT_MUST_USE enum att_rc proc_keyd_issuer(struct proc_keyd *keyd, const char *url,
                                          struct att_err *err);
ATT_MUST_USE enum att_rc proc_keyd_freeze(struct proc_keyd *keyd, const char *agent,
                                          struct att_err *err);
ATT_MUST_USE enum att_rc proc_keyd_thaw(struct proc_keyd *keyd, const char *agent,
                                        struct att_err *err);

#endif
