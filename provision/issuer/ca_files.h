/* The files of state_dir/ca, between ca.c and endpoints.c. */
#ifndef PROVISION_ISSUER_CA_FILES_H
#define PROVISION_ISSUER_CA_FILES_H

#include "provision/issuer/ca.h"

#define ISSUER_CA_PATH 4096

void issuer_ca_path(char ret[ISSUER_CA_PATH], const char *state_dir, const char *file);
ATT_MUST_USE enum att_rc issuer_ca_load_cert(const char *state_dir, const char *file,
                                             X509 **ret_cert, struct att_err *err);
/* NAME.crt and NAME.key, which must belong together. */
ATT_MUST_USE enum att_rc issuer_ca_load_pair(const char *state_dir, const char *name,
                                             X509 **ret_cert, EVP_PKEY **ret_key,
                                             struct att_err *err);
/* The same of an authority, whose key may be in an HSM. */
ATT_MUST_USE enum att_rc issuer_ca_load_authority(struct issuer_hsm *hsm, const char *state_dir,
                                                  const char *name, X509 **ret_cert,
                                                  EVP_PKEY **ret_key, struct att_err *err);
/* Makes NAME.key (or NAME.hsm) and NAME.crt, an authority called "<trust domain> <title>":
 * self-issued where ca is NULL. */
ATT_MUST_USE enum att_rc issuer_ca_make(const struct conf_issuer *conf, struct issuer_hsm *hsm,
                                        const char *name, const char *title, const X509 *ca,
                                        EVP_PKEY *ca_key, X509 **ret_cert, EVP_PKEY **ret_key,
                                        struct att_err *err);
ATT_MUST_USE enum att_rc issuer_ca_pem_text(const X509 *cert, char **ret_pem, struct att_err *err);
/* ATT_E_AUTH, reason caChain: a certificate of this chain has the key of other, which is whose. */
ATT_MUST_USE enum att_rc issuer_ca_apart(const STACK_OF(X509) * chain, const X509 *other,
                                         const char *whose, struct att_err *err);
/* notAfter; 0 for NULL. */
int64_t issuer_ca_end(const X509 *cert);
/* Makes tls.crt and tls.key, or view.crt and view.key, by the TLS root. Both files are written
 * beside the old ones before either is put in place: a full disk leaves the old pair. */
ATT_MUST_USE enum att_rc issuer_endpoint_make(const char *state_dir, const struct conf_issuer *conf,
                                              bool tls, const X509 *ca, EVP_PKEY *ca_key,
                                              int64_t now, struct att_err *err);

#endif
