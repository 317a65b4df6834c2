/* Signed notes (C2SP signed-note) and the checkpoints in them (C2SP tlog-checkpoint), by Ed25519.
 * Pure but for signing. Keys' names are a log's origin: no spaces, no "+".
 *
 *   <origin>\n<size>\n<base64 of the root>\n\n— <name> <base64 of key id ‖ signature>\n
 *
 * and, of an issuer with a TPM, an extension line "tpm-counter <number>\n" behind the root, and a
 * second signature (ecdsa.h). */
#ifndef PROVISION_AUDIT_NOTE_H
#define PROVISION_AUDIT_NOTE_H

#include "attestd/base/buf.h"
#include "provision/audit/tree.h"

#include <openssl/types.h>

#define AUDIT_NOTE_MAX      ((size_t)16 << 10)
#define AUDIT_NOTE_SIGS_MAX 16
#define AUDIT_NAME_MAX      255 /* bytes of an origin */
#define AUDIT_VKEY_MAX      (AUDIT_NAME_MAX + 64)
#define AUDIT_ED25519_LEN   32

bool audit_name_ok(struct att_slice name);

/* A verifier: "<name>+<key id, hex>+<base64 of 0x01 ‖ public key>". */
struct audit_vkey {
    char name[AUDIT_NAME_MAX + 1];
    uint32_t id; /* the first 4 bytes of SHA-256(name ‖ 0x0a ‖ 0x01 ‖ key) */
    uint8_t key[AUDIT_ED25519_LEN];
};
/* ATT_E_INVAL: the name is none. */
ATT_MUST_USE enum att_rc audit_vkey_make(const char *name, const uint8_t key[AUDIT_ED25519_LEN],
                                         struct audit_vkey *ret_vkey, struct att_err *err);
void audit_vkey_text(const struct audit_vkey *vkey, char ret[AUDIT_VKEY_MAX]); /* no newline */
/* One line, with or without its end. */
ATT_MUST_USE enum att_rc audit_vkey_parse(struct att_slice text, struct audit_vkey *ret_vkey,
                                          struct att_err *err);

struct audit_note_sig {
    struct att_slice name, base64;
    uint32_t id;
};

/* Borrows from what was parsed. */
struct audit_note {
    struct att_slice text; /* with its last newline: what is signed */
    struct audit_note_sig sig[AUDIT_NOTE_SIGS_MAX];
    size_t n;
};
/* ATT_E_PARSE with reason "logNote"; ATT_E_LIMIT. At least one signature line. */
ATT_MUST_USE enum att_rc audit_note_parse(struct att_slice bytes, struct audit_note *ret_note,
                                          struct att_err *err);
/* ATT_E_AUTH with reason "logSignature" when no line is by this key, or one does not hold. */
ATT_MUST_USE enum att_rc audit_note_verify(const struct audit_note *note,
                                           const struct audit_vkey *vkey, struct att_err *err);
/* Appends a signature line to a note that is text and a newline so far: text is its first part. */
ATT_MUST_USE enum att_rc audit_note_sign(struct att_slice text, const struct audit_vkey *vkey,
                                         EVP_PKEY *key, struct att_buf *note, struct att_err *err);

/* Appends a signature line. */
void audit_note_line(const char *name, uint32_t id, struct att_slice sig, struct att_buf *note);

struct audit_checkpoint {
    char origin[AUDIT_NAME_MAX + 1];
    uint64_t size;
    struct audit_hash root;
    uint64_t counter; /* of the TPM that signs, too; 0: no such line */
};
void audit_checkpoint_text(const struct audit_checkpoint *checkpoint, struct att_buf *ret_text);
/* ATT_E_PARSE with reason "logCheckpoint". Further lines are allowed and ignored. */
ATT_MUST_USE enum att_rc audit_checkpoint_parse(struct att_slice text,
                                                struct audit_checkpoint *ret_checkpoint,
                                                struct att_err *err);

#endif
