/* The certificate authorities: their files, and signing with a record before and after. */
#ifndef PROVISION_ISSUER_CA_H
#define PROVISION_ISSUER_CA_H

#include "certs/build.h"
#include "certs/chain.h"
#include "certs/tls.h"
#include "provision/issuer/context.h"
#include "provision/issuer/signer.h"

/* What is renewed while it is in use: the TLS certificate and the signer of host views. Counted,
 * immutable; a connection keeps the SSL_CTX that it began with. */
#define ISSUER_TLS_CHAIN_MAX 3
struct issuer_endpoints {
    atomic_int refs;
    X509 *tls, *view;
    EVP_PKEY *tls_key, *view_key;
    EVP_PKEY *view_before; /* the signer before; NULL when this is the first */
    struct att_buf view_der;
    X509 *root;            /* what both are under; its key is root_ref's (signer.h) */
    STACK_OF(X509) * also; /* NULL, or what leads from there to the root before */
    char root_ref[ISSUER_KEYREF_MAX];
    struct att_buf
        root_der[ISSUER_TLS_CHAIN_MAX]; /* also, then root: what follows the view signer */
    size_t n_roots;
    char ca_sha256[65]; /* of the DER of the last certificate sent: what a ticket pins */
    SSL_CTX *ssl;
    bool given;      /* tls: the operator's (cert_file), who renews it */
    bool under_root; /* view, and tls unless it is given, were issued by root */
};

struct issuer_generations;
struct issuer_ca {
    struct issuer_hsm *hsm; /* NULL: the configuration has none */
    X509 *workload_root, *workload_ca, *attest_root, *attest_ca;
    X509 *dns_root; /* borrowed; NULL: none here */
    X509 *tls_root; /* the one of `init`; endpoints->root is what is in use */
    EVP_PKEY *workload_key, *attest_key;
    int64_t workload_end, attest_end, tls_root_end;
    char *bundle;       /* PEM: workload root */
    char *workload_pem; /* PEM: workload intermediate, sent after each leaf */
    char *attest_pem;
    pthread_mutex_t lock;
    pthread_mutex_t making;             /* of endpoints */
    atomic_bool signer_changed;         /* of views: the audit head is due */
    atomic_bool tls_behind;             /* what is served is not under the root that is active */
    struct issuer_endpoints *endpoints; /* under lock; issuer_endpoints_get */
    int64_t failed_at;                 /* under lock: the last renewal failed then; 0: it did not */
    struct att_err failure;            /* under lock */
    int64_t try_ms, pause_ms, warn_ms; /* main thread, by the boot clock */
    _Atomic(struct issuer_generations *) generations; /* provision/issuer/generations.h */
    pthread_mutex_t generations_lock;                 /* of whoever makes the next */
    uint64_t looks;                                   /* under it: of issuer_generations_tick */
    char self[ISSUER_ID_LEN];                         /* among the issuers of a store */
    pthread_t looker;                                 /* issuer_generations_tick's, while looking */
    bool looking;                                     /* main thread */
    atomic_bool looked;                               /* the looker is about to end */
    int64_t look_ms, tell_ms; /* the looker's while looking, else the main thread's; boot clock */
};

struct issuer_endpoints *issuer_endpoints_get(struct issuer_ca *ca); /* counted */
void issuer_endpoints_put(struct issuer_endpoints *endpoints);
void issuer_endpoints_cleanup(struct issuer_endpoints **endpoints);
#define issuer_autoendpoints ATT_CLEANUP(issuer_endpoints_cleanup) struct issuer_endpoints

/* When two thirds of a certificate's life are over. */
int64_t issuer_endpoint_renew_at(const X509 *cert);
/* Makes what is due, by the files in ca/, and puts what is there into use. On failure what was in
 * use stays, if there was something; so it does while certificates are under another root than the
 * one that ca/ says is in use: what is in use is of one piece. */
ATT_MUST_USE enum att_rc issuer_endpoints_refresh(struct issuer_ca *ca,
                                                  const struct conf_issuer *conf, int64_t now,
                                                  struct att_err *err);
/* Puts what is there into use; writes nothing. */
ATT_MUST_USE enum att_rc issuer_endpoints_load(struct issuer_ca *ca, const struct conf_issuer *conf,
                                               struct att_err *err);
/* Renews what is due, with pauses that grow from 1 to 60 min after failures; warns once a day of
 * authorities that end. at_once: looks at the files and the configuration, too, and does not wait.
 * Main thread. */
void issuer_ca_tick(struct issuer *issuer, bool at_once);
/* Who signs what is of this kind (of store_cert); ca NULL: nobody here. */
struct issuer_authority {
    X509 *ca;
    EVP_PKEY *key;
    const char *pem;   /* what follows a leaf */
    int64_t end;       /* nothing that it signs lasts longer */
    const char *id;    /* of a generation; "" of the one in state_dir/ca, also of DNS names' */
    const char *crl;   /* its list's file name */
    const char *lacks; /* why this issuer cannot sign with key now; "" when it can */
};
/* The one of state_dir/ca. */
struct issuer_authority issuer_authority_first(const struct issuer *issuer, const char *kind);
struct issuer_authority issuer_authority_of(const struct issuer *issuer, const char *kind);
/* What an operator has to see to: sentences. The caller owns it. */
json_t *issuer_ca_warnings(struct issuer_ca *ca, const struct conf_issuer *conf, int64_t now);

/* Makes the folder <state_dir>/ca; ATT_E_EXISTS when it is there. */
ATT_MUST_USE enum att_rc issuer_ca_create(const struct conf_issuer *conf, struct issuer_hsm *hsm,
                                          struct att_err *err);
/* The same with the roots elsewhere, in as many runs as it takes (provision/issuer/offline.c):
 * makes state_dir/offline/NAME.csr, takes NAME.chain.pem from there. *ret_complete: state_dir/ca is
 * there now. Refuses what certs_authority_check refuses, with its reasons; nothing is put in place
 * then. */
ATT_MUST_USE enum att_rc issuer_ca_offline(const struct conf_issuer *conf, struct issuer_hsm *hsm,
                                           bool *ret_complete, struct att_err *err);
/* Loads and checks it. renew: issues TLS and view-signer certificates anew when two thirds of their
 * life are over or their names no longer fit; where that fails, those that are still valid will do.
 * Otherwise nothing is written. */
ATT_MUST_USE enum att_rc issuer_ca_load(const struct conf_issuer *conf, bool renew,
                                        struct issuer_ca **ret_ca, struct att_err *err);
void issuer_ca_free(struct issuer_ca *ca);
/* Has each key that signs certificates sign something of no meaning. */
ATT_MUST_USE enum att_rc issuer_ca_try(const struct issuer_ca *ca, struct att_err *err);
/* For ca.status. */
json_t *issuer_ca_status(struct issuer_ca *ca, const char *state_dir, int64_t now);

enum issuer_ca_kind { ISSUER_CA_AGENT, ISSUER_CA_AK, ISSUER_CA_DNS };
const char *issuer_ca_kind_name(enum issuer_ca_kind kind); /* "agent", "ak", "dns" */

/* What will be signed; ISSUER_CA_AGENT uses leaf, ISSUER_CA_AK ak, ISSUER_CA_DNS dns. */
struct issuer_intent {
    enum issuer_ca_kind kind;
    struct certs_leaf_spec leaf;
    struct certs_ak_spec ak;
    struct certs_server_spec dns;
    const char *subject, *account, *host, *ord, *profile, *decision;
    const char *firmware;       /* as in its row; NULL: "" */
    struct issuer_authority by; /* ca NULL: issuer_intent_make takes it */
};
/* In the transaction that grants: who signs it, taken once, so that all that is said of it in the
 * certificate is of the same one. ATT_E_RETRY: reason caChanged (issuer_generations_check), or
 * caKeyMissing: its key cannot be used here now, and no intent is made for it. */
ATT_MUST_USE enum att_rc issuer_intent_authority(struct issuer *issuer, struct store_tx *tx,
                                                 struct issuer_intent *intent, struct att_err *err);
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
 * is ATT_OK. Fails when the store cannot be read. others: of a store that others use, too, those
 * younger than 10 s are left to the issuer that made them. */
ATT_MUST_USE enum att_rc issuer_intent_recover(struct issuer *issuer, bool others, size_t *ret_left,
                                               struct att_err *err);
/* A transaction with an intent in it failed with this. Where nobody knows whether it stands (the
 * database went away at the commit), the running issuer looks for what it left
 * (issuer_intent_tick): an order that is processing is completed, also if nobody finalizes it
 * again. */
void issuer_intent_unsure(struct issuer *issuer, enum att_rc rc);
/* The same in a running issuer, when something was left: with pauses that grow from 1 to 60 s; and
 * every 5 s for what another issuer of the same store left. Main thread. */
void issuer_intent_tick(struct issuer *issuer);
/* In the transaction that ends a certificate which was only intended: its order, if it has one,
 * becomes invalid and says why. */
ATT_MUST_USE enum att_rc issuer_intent_void(struct store_tx *tx, const struct store_cert *cert,
                                            const char *reason, const char *detail,
                                            struct att_err *err);

#endif
