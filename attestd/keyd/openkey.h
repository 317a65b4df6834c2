/* Software keys that are kept open between signatures: what libcrypto makes of a scalar (an
 * EVP_PKEY, and contexts that are ready to sign) costs three times what the signature itself does.
 * The private number of an open key lies in libcrypto's locked heap, once, and is wiped when the
 * key is closed. KEYD_OPEN_MAX keys are open at most, since that heap is small; who signed longest
 * ago is closed first. Any thread. Internal to keyd. */
#ifndef ATTESTD_KEYD_OPENKEY_H
#define ATTESTD_KEYD_OPENKEY_H

#include "attestd/keyd/softkey.h"

#define KEYD_OPEN_MAX 256
/* Signatures of one key at one time that find a context ready; further ones make theirs. */
#define KEYD_OPEN_CTX 4

/* Part of what holds the key; {0} at first. */
struct keyd_openkey {
    struct keyd_openkey *newer, *older;
    EVP_PKEY *pkey; /* NULL: closed */
    EVP_PKEY_CTX *idle[KEYD_OPEN_CTX];
    size_t idle_count;
};

/* A key in use: between take and give it stays whole, also when it is closed meanwhile. */
struct keyd_openuse {
    EVP_PKEY *pkey;
    EVP_PKEY_CTX *ctx;
};

/* Opens the key if it is not. point: its public half. */
ATT_MUST_USE enum att_rc keyd_openkey_take(struct keyd_openkey *key,
                                           const struct att_secret *scalar,
                                           const uint8_t point[KEYD_POINT_LEN],
                                           struct keyd_openuse *ret_use, struct att_err *err);
void keyd_openkey_give(struct keyd_openkey *key, struct keyd_openuse *use);
/* Wiped, once the last signature that is under way is made. Closed already is fine. */
void keyd_openkey_close(struct keyd_openkey *key);
size_t keyd_openkey_count(void);

#endif
