/* JWT-SVIDs (docs/PROTOCOL.md, "Tokens"): the keys that sign them, their minting, and what other
 * people's services read of us. Off where the configuration has no section `jwt`.
 *
 * A key is published when it is made, signs from active_at on until the next one does, and stays
 * published until the last token that it can have signed has ended: who checks tokens knows a key
 * before it is used, and never misses one that is still needed. */
#ifndef PROVISION_ISSUER_JWT_H
#define PROVISION_ISSUER_JWT_H

#include "provision/issuer/context.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

struct issuer_admin_call;

#define ISSUER_JWT_KEYS_MAX 16
/* How long a key stays published after the next one signs: the longest life of a token that any
 * configuration can ask for, and what clocks differ by. */
#define ISSUER_JWT_LINGER_S (CONF_JWT_LIFETIME_MAX_S + 60)

/* At start, when the settings have a section jwt: the first key is made, if there is none. */
ATT_MUST_USE enum att_rc issuer_jwt_start(struct issuer *issuer, struct att_err *err);
/* Makes the next key when its time has come, and forgets those that nobody needs; says itself what
 * goes wrong. Main thread. */
void issuer_jwt_tick(struct issuer *issuer);
void issuer_jwt_free(struct issuer *issuer);

/* Which of the store's keys this issuer can use: asked of those of which it is not known yet, each
 * a signature; said (jwt.keyAway, jwt.keyUsable). True: it is another set than before. Where keys
 * may be in an HSM this waits for it. Any one thread. */
bool issuer_jwt_look(struct issuer *issuer);
/* For the row of this issuer in the store: the kids, a space between; "off" without tokens. */
void issuer_jwt_usable(struct issuer *issuer, struct att_buf *ret);
/* Tokens are refused here, and another issuer could mint them (/ready says "jwt"). */
bool issuer_jwt_elsewhere(struct issuer *issuer);
/* For ca.jwt: of each key what keeps this issuer from using it ("lacks"), and one issuer of a
 * shared store that cannot ("issuerBehind"). */
ATT_MUST_USE enum att_rc issuer_jwt_tell(struct issuer *issuer, struct store_tx *tx, json_t *keys,
                                         struct att_err *err);
/* At start: a folder that `attest-issuerd backup` made and that was put back. Keys for tokens from
 * before the backup are withdrawn: what was withdrawn since is not known here. */
ATT_MUST_USE enum att_rc issuer_restored(struct issuer *issuer, struct att_err *err);
#define ISSUER_BACKUP_FILE "backup.json" /* {"version": 1, "madeAt"} */

/* The key that signs now; the caller frees ret_key. ATT_E_RETRY, reason "jwtKeyMissing": it cannot
 * be used here (another issuer of the store made it in a file of its own). */
ATT_MUST_USE enum att_rc issuer_jwt_signer(struct issuer *issuer, struct store_tx *tx, int64_t now,
                                           char ret_kid[ACME_THUMBPRINT_LEN], EVP_PKEY **ret_key,
                                           struct att_err *err);
/* An array of public JWKs with "kid" and "alg", oldest first; "use" where it is not NULL. The
 * caller owns it. */
ATT_MUST_USE enum att_rc issuer_jwt_public(struct store_tx *tx, const char *use, json_t **ret_keys,
                                           struct att_err *err);
/* For operators (call NULL: nobody is named in the record): a new key signs at once, and where
 * withdraw is set no other stays published, so that no token of before is believed any more.
 * ret_kid: the new one. */
ATT_MUST_USE enum att_rc issuer_jwt_replace(struct issuer *issuer, bool withdraw,
                                            const struct issuer_admin_call *call,
                                            char ret_kid[ACME_THUMBPRINT_LEN], struct att_err *err);

/* M8: POST newToken. */
enum att_rc issuer_new_token(struct issuer_call *call, struct att_err *err);

/* The listener: discovery, keys, SPIFFE bundle, over TLS. *ret_server NULL: none is configured. */
struct issuer_jwt_server;
ATT_MUST_USE enum att_rc issuer_jwt_server_new(struct issuer *issuer,
                                               struct issuer_jwt_server **ret_server,
                                               struct att_err *err);
void issuer_jwt_server_free(struct issuer_jwt_server *server); /* NULL is fine */
uint16_t issuer_jwt_server_port(const struct issuer_jwt_server *server);
/* Adds a root to the bundle's keys (RFC 7517; "x509-svid"); one whose key has no JWK that readers
 * know is said and left out. */
ATT_MUST_USE enum att_rc issuer_jwt_add_root(const X509 *root, json_t *keys, struct att_err *err);
/* The documents by path ("/keys"), as the listener gives them: ATT_E_NOTFOUND. */
ATT_MUST_USE enum att_rc issuer_jwt_document(struct issuer *issuer, const char *path,
                                             struct att_buf *ret_body, struct att_err *err);

#endif
