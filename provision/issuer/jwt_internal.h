/* What the files of the keys for tokens share. */
#ifndef PROVISION_ISSUER_JWT_INTERNAL_H
#define PROVISION_ISSUER_JWT_INTERNAL_H

#include "provision/issuer/ca.h"
#include "provision/issuer/jwt.h"

struct jwt_seen {
    char kid[ACME_THUMBPRINT_LEN];
    char lacks[200]; /* why it cannot be used here; "" when it can */
};

struct issuer_jwt {
    pthread_mutex_t lock;
    struct {
        char kid[ACME_THUMBPRINT_LEN];
        EVP_PKEY *key;
    } open[ISSUER_JWT_KEYS_MAX];
    struct jwt_seen seen[ISSUER_JWT_KEYS_MAX];
    size_t n_seen;
    int64_t look_ms;    /* who looks: those that lack are asked again then */
    int64_t not_before; /* main thread: no key is made until then */
    bool elsewhere;
};

/* ---- rows, in the order in which they sign --------------------------------------------------- */

struct jwt_rows {
    struct store_jwt_key v[ISSUER_JWT_KEYS_MAX];
    size_t n;
};
void jwt_rows_done(struct jwt_rows *rows);
ATT_MUST_USE enum att_rc jwt_rows_read(struct store_tx *tx, struct jwt_rows *ret,
                                       struct att_err *err);
/* The one that signs at this time; NULL: there are no keys. */
const struct store_jwt_key *jwt_rows_signing(const struct jwt_rows *rows, int64_t now);
const struct store_jwt_key *jwt_rows_find(const struct jwt_rows *rows, const char *kid);
/* One begins to sign within the next half minute. */
bool jwt_rows_soon(const struct jwt_rows *rows, int64_t now);

/* The caller frees ret_key. ATT_E_RETRY, reason jwtKeyMissing. */
ATT_MUST_USE enum att_rc jwt_key_open(struct issuer *issuer, const struct store_jwt_key *row,
                                      EVP_PKEY **ret_key, struct att_err *err);

/* Of a key in a file; an HSM keeps its own. */
void jwt_file_remove(const struct issuer *issuer, const char *keyref);

/* ---- the issuers of a shared store ----------------------------------------------------------- */

struct jwt_others {
    int64_t now;
    const char *self; /* the issuer's id */
    const char *name; /* NULL; an issuer of this name is not looked at either */
    const char *kid;  /* set by jwt_others_read */
    /* after it */
    bool there, has,
        lacks;        /* another one is there; one has the key; one mints tokens and has not */
    char behind[160]; /* one of those that have not */
};
ATT_MUST_USE enum att_rc jwt_others_read(struct store_tx *tx, const char *kid,
                                         struct jwt_others *others, struct att_err *err);
/* What tick has read, for /ready. */
void jwt_signing_seen(struct issuer *issuer, const struct store_jwt_key *row,
                      const struct jwt_others *others);
/* A key that is to sign soon and that an issuer cannot use waits: the one before signs on. */
ATT_MUST_USE enum att_rc jwt_keys_postpone(struct issuer *issuer, const struct conf_jwt *conf,
                                           int64_t now, struct att_err *err);

#endif
