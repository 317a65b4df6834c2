/* The kinds of authorities that are rotated: how they are called in the store, by operators and in
 * state_dir/ca. */
#ifndef PROVISION_ISSUER_KINDS_H
#define PROVISION_ISSUER_KINDS_H

#include "provision/issuer/context.h"

#include <openssl/x509.h>

#define ISSUER_KINDS 4

struct issuer_kind {
    const char *kind;   /* rows of `authorities` and of `certs`: "agent", "ak", "dns", "tls" */
    const char *word;   /* an operator's: "workload", "attestation", "dns", "tls" */
    const char *title;  /* in the certificates' names */
    const char *stem;   /* of the files in ca/: STEM-root, STEM-ca */
    const char *crl;    /* stem of its revocation lists; NULL: it has none */
    const char *bundle; /* file in ca/ that has the roots to trust, once the store knows one */
    bool root_only;     /* it signs with its root: there is no intermediate */
    bool hosts;         /* hosts learn of its roots by their view, and are waited for */
};
extern const struct issuer_kind issuer_kinds[ISSUER_KINDS];

/* NULL: there is none. */
const struct issuer_kind *issuer_kind_of(const char *kind);
const struct issuer_kind *issuer_kind_by_word(const char *word);
/* The root in state_dir/ca; NULL where this issuer has none of that kind. */
X509 *issuer_kind_first_root(const struct issuer *issuer, const char *kind);

#endif
