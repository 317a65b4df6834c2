/* The token that a workload sees: a PKCS#11 2.40 function list over a store that somebody else
 * keeps. One slot, one token "attestd": the agent's private key (label "agent"), its public key,
 * its certificate chain, the trust bundle's roots, and its SPIFFE ID as a data object. Nothing can
 * be changed, and no PIN is asked for: who the caller is was decided when it connected.
 *
 * The function list has no argument for a context, so there is one token in a process (of which
 * there is one for each connection). Calls are serial. */
#ifndef TOKEN_MODULE_H
#define TOKEN_MODULE_H

#include "attestd/base/err.h"
#include "attestd/base/keytype.h"
#include "attestd/base/slice.h"

#define TOKEN_KEY_ID_LEN    32 /* hex digits */
#define TOKEN_SPIFFE_MAX    512
#define TOKEN_CHAIN_MAX     8
#define TOKEN_BUNDLE_MAX    32
#define TOKEN_SIGNATURE_LEN 64

/* What the agent has now. Borrows until the next call of the store. */
struct token_view {
    uint64_t generation; /* another number when anything of it changed; never 0 */
    bool same;           /* generation is the one that was asked with: the rest is not set */
    char spiffe_id[TOKEN_SPIFFE_MAX + 1];
    char key_id[TOKEN_KEY_ID_LEN + 1];
    const struct att_slice *chain; /* DER, leaf first */
    size_t chain_count;
    const struct att_slice *bundle; /* DER */
    size_t bundle_count;
};

struct token_store {
    void *user;
    bool no_slots; /* the caller is nobody's agent: an empty module, and no error */
    /* known: the generation that the token holds; 0: none. ATT_E_NOTFOUND: there is no certificate
     * now. */
    enum att_rc (*view)(void *user, uint64_t known, struct token_view *ret_view,
                        struct att_err *err);
    /* digest: 20 to 64 bytes → r ‖ s */
    enum att_rc (*sign)(void *user, const char *key_id, struct att_slice digest,
                        uint8_t ret_signature[TOKEN_SIGNATURE_LEN], struct att_err *err);
    /* scheme, digest of 32, 48 or 64 bytes → as long as the key's modulus */
    enum att_rc (*sign_rsa)(void *user, const char *key_id, enum att_rsa_scheme scheme,
                            struct att_slice digest, uint8_t ret_signature[ATT_RSA_MODULUS_MAX],
                            size_t *ret_len, struct att_err *err);
    enum att_rc (*random)(void *user, uint8_t *ret, size_t len, struct att_err *err);
};

/* store is kept by reference. Forgets whatever the process's token held before. */
void token_module_reset(const struct token_store *store);

/* The CK_RV that the caller gets for an error of the store (docs/AGENTS.md has the table). */
unsigned long token_module_rv(enum att_rc rc);

struct _CK_FUNCTION_LIST; /* p11-kit's CK_FUNCTION_LIST */
struct _CK_FUNCTION_LIST *token_module_functions(void);

#endif
