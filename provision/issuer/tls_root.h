/* Which root the issuer's own TLS certificate and view signer are under: state_dir/ca/tls-root.json
 * once it was rotated, tls-root.crt and tls-root.key before. The file is what a start goes by,
 * which is before the store is read; the store has the say (generations.c). */
#ifndef PROVISION_ISSUER_TLS_ROOT_H
#define PROVISION_ISSUER_TLS_ROOT_H

#include "provision/issuer/ca.h"

struct issuer_tls_root {
    X509 *root;
    char keyref[ISSUER_KEYREF_MAX];
    STACK_OF(X509) * also; /* sent in between: the root signed by the one before, and that one */
};
void issuer_tls_root_done(struct issuer_tls_root *root);
#define issuer_autotlsroot ATT_CLEANUP(issuer_tls_root_done) struct issuer_tls_root

ATT_MUST_USE enum att_rc issuer_tls_root_load(const char *state_dir, struct issuer_tls_root *ret,
                                              struct att_err *err);
/* also: PEM, may be empty. *ret_changed: the file says something else than before. */
ATT_MUST_USE enum att_rc issuer_tls_root_save(const char *state_dir, const char *keyref,
                                              const X509 *root, const char *also, bool *ret_changed,
                                              struct att_err *err);

#endif
