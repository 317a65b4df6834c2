/* The authorities that the store knows, as this process uses them: several generations of one kind,
 * of which one signs (docs/ARCHITECTURE.md, "Rotating an authority"). Where the store has none of a
 * kind, the one of state_dir/ca is the one that signs, as ever.
 *
 * A snapshot never changes. The one before it stays for ISSUER_GENERATION_LOOKS looks of the main
 * loop, an hour at least, since who signs holds parts of it meanwhile. */
#ifndef PROVISION_ISSUER_GENERATIONS_H
#define PROVISION_ISSUER_GENERATIONS_H

#include "provision/issuer/ca.h"

#define ISSUER_GENERATIONS_MAX  48 /* of all kinds: ISSUER_GENERATIONS_TOP of each */
#define ISSUER_GENERATIONS_TOP  12 /* rows of one kind */
#define ISSUER_GENERATION_ID    17
#define ISSUER_CRL_FILE         48
#define ISSUER_GENERATION_LOOKS 3600
/* An issuer that said something within this time is there: 30 s, and what clocks may differ. */
#define ISSUER_LIVE_S 150

struct issuer_generation {
    char id[ISSUER_GENERATION_ID];
    char kind[8], state[16];
    char crl[ISSUER_CRL_FILE]; /* "workload.crl" of the first, "workload-ID.crl" of later ones */
    bool first;                /* it is the one of state_dir/ca */
    X509 *ca, *root;           /* NULL while it is requested */
    EVP_PKEY *key;             /* NULL: not within reach of this issuer */
    char *pem;                 /* what follows a leaf */
    int64_t end;
    char keyref[ISSUER_KEYREF_MAX];
    int64_t view;    /* hosts that have it have its root */
    char lacks[160]; /* why this issuer cannot sign with it; "" when it can */
};

struct issuer_generations {
    struct issuer_generations *older;
    uint64_t replaced_at; /* the look at which a newer one took its place */
    int64_t number;       /* of the meta counter "authorities" */
    size_t n;
    struct issuer_generation v[ISSUER_GENERATIONS_MAX];
    char *bundle, *ak_roots;     /* PEM */
    char *dns_roots, *tls_roots; /* NULL while the store knows none of the kind */
    int64_t awaited_view;        /* of one that is published: hosts that have this view are noted */
};

/* Published, active or outgoing: what it signed, or its root, is to be believed. */
bool issuer_generation_counts(const struct issuer_generation *g);
/* Never NULL once issuer_generations_refresh has succeeded. */
const struct issuer_generations *issuer_generations_now(const struct issuer *issuer);
/* Reads the store, and takes what changed into use: first bundle.pem and ak-roots.pem are written,
 * then the snapshot is switched. Does nothing where nothing changed. Any thread. */
ATT_MUST_USE enum att_rc issuer_generations_refresh(struct issuer *issuer, struct att_err *err);
/* The meta counter: how many steps were taken. */
ATT_MUST_USE enum att_rc issuer_generations_number(struct store_tx *tx, int64_t *ret,
                                                   struct att_err *err);
/* In a transaction that signs: ATT_E_RETRY, reason caChanged, when a step was taken that this
 * process has not taken into use. */
ATT_MUST_USE enum att_rc issuer_generations_check(struct issuer *issuer, struct store_tx *tx,
                                                  struct att_err *err);
/* Main thread: refreshes once a second; of a shared store tells the others what is in use here.
 * Where keys may be in an HSM a thread of its own does it, and nobody waits for that. */
void issuer_generations_tick(struct issuer *issuer);
/* Before the store is closed: until that thread has ended. */
void issuer_generations_wait(struct issuer_ca *ca);
void issuer_generations_free(struct issuer_generations *newest);

/* All that this kind has, or had while they may still be asked for: ret gets at most
 * ISSUER_GENERATIONS_MAX + 1; the one of state_dir/ca is among them. */
size_t issuer_authorities_all(const struct issuer *issuer, const char *kind,
                              struct issuer_authority ret[ISSUER_GENERATIONS_MAX + 1]);
/* Hex, of the key: ISSUER_GENERATION_ID bytes. */
ATT_MUST_USE enum att_rc issuer_generation_id(const EVP_PKEY *key, char ret[ISSUER_GENERATION_ID],
                                              struct att_err *err);
/* What an issuer is called in the store, HOST:STATE_DIR; the caller frees it. NULL: no memory. */
char *issuer_self_name(const struct issuer *issuer);
/* For ca.status: the rows, and the issuers of a shared store. */
ATT_MUST_USE enum att_rc issuer_generations_json(const struct issuer *issuer, struct store_tx *tx,
                                                 int64_t now, json_t *result, struct att_err *err);

#endif
