/* The certificate authorities: their files, and signing with a record before and after. */
#ifndef PROVISION_ISSUER_CA_H
#define PROVISION_ISSUER_CA_H

#include "certs/build.h"
#include "certs/chain.h"
#include "certs/tls.h"
#include "provision/issuer/context.h"

struct issuer_ca {
    X509 *workload_root, *workload_ca, *attest_root, *attest_ca, *tls_root, *tls, *view;
    EVP_PKEY *workload_key, *attest_key, *tls_key, *view_key;
    char *bundle;       /* PEM: workload root */
    char *workload_pem; /* PEM: workload intermediate, sent after each leaf */
    char *attest_pem;
    struct att_buf view_der, tls_root_der;
    char ca_sha256[65]; /* of the TLS root's DER: what a ticket pins */
    SSL_CTX *ssl;
};

/* Makes the folder <state_dir>/ca; ATT_E_EXISTS when it is there. */
ATT_MUST_USE enum att_rc issuer_ca_create(const struct conf_issuer *conf, struct att_err *err);
/* Loads and checks it; issues TLS and view-signer certificates anew when they near their end or
 * their names no longer fit. */
ATT_MUST_USE enum att_rc issuer_ca_load(const struct conf_issuer *conf, struct issuer_ca **ret_ca,
                                        struct att_err *err);
void issuer_ca_free(struct issuer_ca *ca);
/* For ca.status. */
json_t *issuer_ca_status(const struct issuer_ca *ca, const char *state_dir);

enum issuer_ca_kind { ISSUER_CA_AGENT, ISSUER_CA_AK };

/* What will be signed; ISSUER_CA_AGENT uses leaf, ISSUER_CA_AK ak. */
struct issuer_intent {
    enum issuer_ca_kind kind;
    struct certs_leaf_spec leaf;
    struct certs_ak_spec ak;
    const char *subject, *account, *host, *ord, *profile, *decision;
};
/* In the transaction that grants: builds the TBS, stores the certificate's row as an intent and
 * appends the audit record. ret_cert is the caller's (store_record_done). */
ATT_MUST_USE enum att_rc issuer_intent_make(struct issuer *issuer, struct store_tx *tx,
                                            struct issuer_intent *intent, int64_t now,
                                            struct store_cert *ret_cert, struct att_err *err);
/* After that transaction has committed: signs, stores the outcome, completes the order or AK record
 * that it is for. cert->pem is filled. Does nothing twice: while one thread works on an intent
 * another waits for it, and takes its outcome. What fails here is left to issuer_intent_tick. */
ATT_MUST_USE enum att_rc issuer_intent_sign(struct issuer *issuer, struct store_cert *cert,
                                            struct att_err *err);
/* Every intent without an outcome is signed as it was meant, or recorded as abandoned when nobody
 * can use it any more. ret_left: how many could be neither; why is in *err then, though the result
 * is ATT_OK. Fails when the store cannot be read. */
ATT_MUST_USE enum att_rc issuer_intent_recover(struct issuer *issuer, size_t *ret_left,
                                               struct att_err *err);
/* The same in a running issuer, when something was left: with pauses that grow from 1 to 60 s.
 * Main thread. */
void issuer_intent_tick(struct issuer *issuer);
/* In the transaction that ends a certificate which was only intended: its order, if it has one,
 * becomes invalid and says why. */
ATT_MUST_USE enum att_rc issuer_intent_void(struct store_tx *tx, const struct store_cert *cert,
                                            const char *reason, const char *detail,
                                            struct att_err *err);

#endif
