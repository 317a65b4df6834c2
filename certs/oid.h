/* Object identifiers that OpenSSL does not know, and the cleanup types of this folder. */
#ifndef CERTS_OID_H
#define CERTS_OID_H

#include "attestd/base/buf.h"

#include <openssl/asn1.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

/* TCG EK Credential Profile 2.6 §3.2.9 and §3.2.16. */
#define CERTS_OID_EKU_EK           "2.23.133.8.1"
#define CERTS_OID_EKU_AK           "2.23.133.8.3"
#define CERTS_OID_TPM_MANUFACTURER "2.23.133.2.1"
#define CERTS_OID_TPM_MODEL        "2.23.133.2.2"
#define CERTS_OID_TPM_VERSION      "2.23.133.2.3"
/* RFC 4043 §2: id-on-permanentIdentifier. */
#define CERTS_OID_PERMANENT_ID "1.3.6.1.5.5.7.8.3"
/* The key-holding extension, and below it our extended key usage. Under RFC 5612's enterprise
 * number until this project has one of its own. Not under 2.25 (a UUID, X.667): GnuTLS and Go read
 * no arc of more than 64 and 31 bits, and refuse the whole certificate. */
#define CERTS_OID_KEY_HOLDING   "1.3.6.1.4.1.32473.4711.1"
#define CERTS_OID_EKU_HOST_VIEW "1.3.6.1.4.1.32473.4711.2"
/* What an agent is made of, beside how its key is held. */
#define CERTS_OID_MEASURED "1.3.6.1.4.1.32473.4711.3"
/* What opens the storage parent under which the key stands. */
#define CERTS_OID_SEALED "1.3.6.1.4.1.32473.4711.4"
/* Which of its host's HSM modules has the key. */
#define CERTS_OID_HSM "1.3.6.1.4.1.32473.4711.5"

/* Dotted text to object; free with ASN1_OBJECT_free. Touches no global table. */
ATT_MUST_USE enum att_rc certs_oid(const char *dotted, ASN1_OBJECT **ret_obj, struct att_err *err);
bool certs_oid_is(const ASN1_OBJECT *obj, const char *dotted);
/* The one extension of this kind (extnValue, borrowed). ATT_E_NOTFOUND: there is none;
 * ATT_E_PARSE: there are two (RFC 5280 §4.2). what: "measured files", for the message. */
ATT_MUST_USE enum att_rc certs_extension(const X509 *cert, const char *dotted, const char *what,
                                         struct att_slice *ret_value, struct att_err *err);

void certs_key_cleanup(EVP_PKEY **key);
void certs_x509_cleanup(X509 **cert);
void certs_stack_cleanup(STACK_OF(X509) * *certs); /* frees the certificates too */
#define certs_autokey   ATT_CLEANUP(certs_key_cleanup) EVP_PKEY
#define certs_autox509  ATT_CLEANUP(certs_x509_cleanup) X509
#define certs_autostack ATT_CLEANUP(certs_stack_cleanup) STACK_OF(X509)

#endif
