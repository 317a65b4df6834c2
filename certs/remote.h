/* Between remote.c and remote_rsa.c: keys that sign elsewhere, as OpenSSL's provider has them. */
#ifndef CERTS_REMOTE_H
#define CERTS_REMOTE_H

#include "certs/key.h"

#include <openssl/core_dispatch.h>
#include <stdatomic.h>

struct remote_key {
    atomic_uint refs;
    EVP_PKEY *pub; /* in the default context; answers everything about the public half */
    struct certs_signer signer;
    bool has_signer;
};

#define REMOTE_ENTRY(id, fn)                                                                       \
    {                                                                                              \
        (id), (void (*)(void))(fn)                                                                 \
    }

void remote_key_free(void *keydata);
/* keydata NULL: the one that is there. 1, or 0: there is none. */
int remote_key_take(struct remote_key **at, void *keydata);
/* What a callback made, or said, as OpenSSL takes it; sig is done with. 1 or 0. */
int remote_signed(enum att_rc rc, struct att_buf *sig, struct att_err *err, uint8_t *ret,
                  size_t *ret_len, size_t room);

extern const OSSL_DISPATCH remote_rsa_signature[];

#endif
