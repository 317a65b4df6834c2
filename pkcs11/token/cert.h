/* The few parts of a certificate that PKCS#11 shows as attributes of their own, as they stand in
 * it. libcrypto would build the whole object tree for them in each connection's process. What is
 * read here was checked by attestd; a certificate that does not parse is still served by its value.
 */
#ifndef TOKEN_CERT_H
#define TOKEN_CERT_H

#include "attestd/base/err.h"
#include "attestd/base/slice.h"

/* All borrow from the certificate: DER of serialNumber, issuer, subject, subjectPublicKeyInfo with
 * their tags; ec_params: of its parameters; ec_point: content of the BIT STRING (both empty unless
 * the key is an elliptic curve's). */
struct token_cert {
    struct att_slice serial, issuer, subject, spki, ec_params, ec_point;
};

ATT_MUST_USE enum att_rc token_cert_parse(struct att_slice der, struct token_cert *ret_cert,
                                          struct att_err *err);

#endif
