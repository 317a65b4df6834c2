/* The second signature of a checkpoint: ECDSA on P-256 with SHA-256, by a TPM. C2SP signed-note,
 * signature type 0x02: the signature is an ECDSA-Sig-Value (RFC 3279 §2.2.3) over the note's text,
 * the key id is the beginning of SHA-256 over the SubjectPublicKeyInfo. Verifiers that do not know
 * the key pass its line over. Pure. */
#ifndef PROVISION_AUDIT_ECDSA_H
#define PROVISION_AUDIT_ECDSA_H

#include "provision/audit/note.h"

#define AUDIT_P256_SPKI_LEN 91 /* DER, the point uncompressed */
#define AUDIT_ECDSA_SIG_MAX 72
#define AUDIT_P256_VKEY_MAX (AUDIT_NAME_MAX + 160)

/* "<name>+<key id, hex>+<base64 of 0x02 ‖ SubjectPublicKeyInfo>". */
struct audit_p256_vkey {
    char name[AUDIT_NAME_MAX + 1];
    uint32_t id;
    uint8_t spki[AUDIT_P256_SPKI_LEN];
};
/* ATT_E_INVAL: the name is none, or these bytes are no P-256 key in this form. */
ATT_MUST_USE enum att_rc audit_p256_vkey_make(const char *name, struct att_slice spki,
                                              struct audit_p256_vkey *ret_vkey,
                                              struct att_err *err);
void audit_p256_vkey_text(const struct audit_p256_vkey *vkey, char ret[AUDIT_P256_VKEY_MAX]);
/* One line, with or without its end. ATT_E_PARSE with reason "logTpmKey". */
ATT_MUST_USE enum att_rc audit_p256_vkey_parse(struct att_slice text,
                                               struct audit_p256_vkey *ret_vkey,
                                               struct att_err *err);
/* ATT_E_AUTH with reason "logTpmMissing" when no line is by this key, "logTpmSignature" when one
 * does not hold. */
ATT_MUST_USE enum att_rc audit_p256_verify(const struct audit_note *note,
                                           const struct audit_p256_vkey *vkey, struct att_err *err);
/* Does the signature (DER) over text hold? */
bool audit_p256_holds(struct att_slice spki, struct att_slice text, struct att_slice der);

#endif
