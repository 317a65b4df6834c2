/* Where the authorities' keys are: in files of state_dir/ca, or in an HSM behind attestd-hsmd, a
 * process of its own (attestd/proc/hsm_proto.h): no vendor's code is in this one.
 *
 * An authority called NAME has NAME.crt and either NAME.key (PKCS#8 PEM) or NAME.hsm (JSON:
 * {"version": 1, "ckaId": hex of 20 bytes}). A key in an HSM is an EVP_PKEY whose signatures are
 * asked for there, and checked against the certificate before anybody has them. The HSM need not be
 * there for a key to be loaded: a signature fails meanwhile, with one of these reasons:
 *   ATT_E_RETRY tokenGone, tokenBusy, hsmAway …  the HSM, its module or its process is not there,
 *                 or does not answer: later
 *   ATT_E_RETRY pinRefused, pinLocked, keyGone … an operator's; the client is told to retry all the
 *                 same, and the log says which
 *   ATT_E_RETRY hsmSignature  what came back is no signature by this key */
#ifndef PROVISION_ISSUER_SIGNER_H
#define PROVISION_ISSUER_SIGNER_H

#include "attestd/base/buf.h"
#include "attestd/base/json.h"
#include "attestd/conf/issuer_conf.h"

#include <openssl/evp.h>
#include <openssl/x509.h>

#define ISSUER_CKA_ID_LEN 20
#define ISSUER_KEYREF_MAX 96 /* "file:NAME", "hsm:HEX" */

struct issuer_hsm;

/* The way to attestd-hsmd; connects to nobody yet. Counted: keys hold it, too. ret NULL where the
 * configuration has no hsm section. */
ATT_MUST_USE enum att_rc issuer_hsm_new(const struct conf_issuer *conf, struct issuer_hsm **ret_hsm,
                                        struct att_err *err);
void issuer_hsm_put(struct issuer_hsm *hsm); /* NULL is fine */

/* The private key of cert, which NAME.key or NAME.hsm in state_dir/ca is. ATT_E_CONFLICT, reason
 * caKeyTwice, where both are there; caKeyStore, where it is in an HSM and hsm is NULL;
 * ATT_E_NOTFOUND. */
ATT_MUST_USE enum att_rc issuer_key_load(struct issuer_hsm *hsm, const char *state_dir,
                                         const char *name, const X509 *cert, EVP_PKEY **ret_key,
                                         struct att_err *err);
/* The same by a reference: "file:NAME" (as issuer_key_load), "hsm:CKA_ID". */
ATT_MUST_USE enum att_rc issuer_key_open(struct issuer_hsm *hsm, const char *state_dir,
                                         const char *ref, const X509 *cert, EVP_PKEY **ret_key,
                                         struct att_err *err);
/* Makes a key, in the HSM (in_hsm) or in ca/NAME.key (NAME may have one folder in front). The
 * caller keeps ret_ref, and owns ret_key, which signs. A key in the HSM of which nobody keeps the
 * reference stays there unused. */
ATT_MUST_USE enum att_rc issuer_key_make(struct issuer_hsm *hsm, bool in_hsm, const char *state_dir,
                                         const char *name, char ret_ref[ISSUER_KEYREF_MAX],
                                         EVP_PKEY **ret_key, struct att_err *err);
/* Writes ca/NAME.hsm for a reference "hsm:…"; nothing for a file's. */
ATT_MUST_USE enum att_rc issuer_key_note(const char *state_dir, const char *name, const char *ref,
                                         struct att_err *err);
/* Signs something of no meaning with it and checks that: is the key there, and is it this one? */
ATT_MUST_USE enum att_rc issuer_key_try(EVP_PKEY *key, struct att_err *err);

/* NAME.hsm as bytes. */
ATT_MUST_USE enum att_rc issuer_keyfile_parse(struct att_slice text,
                                              uint8_t ret_id[ISSUER_CKA_ID_LEN],
                                              struct att_err *err);
/* {"configured", "state", "reason"…} of attestd-hsmd's INFO, for ca.status. Asks it: up to 2 s. */
json_t *issuer_hsm_json(struct issuer_hsm *hsm);

#endif
