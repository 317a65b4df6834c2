/* What attestd-hsmd can be asked (run_dir/hsm/hsm.sock), by keyd and nobody else. keyd alone knows
 * which agent a key is: hsmd knows keys by their CKA_ID. */
#ifndef ATTESTD_PROC_HSM_PROTO_H
#define ATTESTD_PROC_HSM_PROTO_H

#include "attestd/proc/ipc.h"

#define PROC_HSM_KEY_ID_LEN                                                                        \
    20 /* CKA_ID: random bytes, chosen by the client before the key is made */
#define PROC_HSM_SPKI_MAX   1024
#define PROC_HSM_SIG_MAX    512
#define PROC_HSM_INFO_MAX   4096
#define PROC_HSM_LABEL_MAX  32 /* of a token */
#define PROC_HSM_SERIAL_MAX 16
#define PROC_HSM_PAGE       256

enum proc_hsm_op {
    PROC_HSM_INFO = 1,
    PROC_HSM_CREATE = 2,
    PROC_HSM_READ = 3,
    PROC_HSM_SIGN = 4,
    PROC_HSM_DESTROY = 5,
    PROC_HSM_LIST = 6,
    PROC_HSM_SIGN_RSA = 7,
    PROC_HSM_DESTROY_IN = 8,
    PROC_HSM_CREATE_IN = 9,
};

/* Every operation but INFO can answer, with reason:
 *   ATT_E_GONE tokenGone, loginLost   the token is away or fails; the same call may work later
 *   ATT_E_AUTH pinRefused, ATT_E_LOCKOUT pinLocked, ATT_E_DENIED pinNotSet   an operator's
 *   ATT_E_TIMEOUT, ATT_E_RETRY tokenBusy; ATT_E_LIMIT tokenFull; ATT_E_UNSUPPORTED moduleLacks,
 *   keyAttributes, keySignature; ATT_E_PROTOCOL moduleAnswer; ATT_E_CONFLICT tokenAmbiguous */

/* INFO: () → json: {"version": 1, "state": "ready" | "starting" | "tokenGone" | "failed",
 *   "word": the reason's word?, "reason": text?, "pin": "unknown" | "ok" | "countLow" | "finalTry"
 * | "locked" | "notSet" (what the token's flags said last), "silentMs": for how long calls have
 * been under way of which none came back, "token": {"label", "serial", "manufacturer", "model",
 * "firmware"} (what was last seen; absent before), "configured": {"label", "serial"} (the token
 * that this process serves, and no other one), "sessions": N, "connections": N, "signatures":
 * N, "failures": N, "sandbox": {"profile", "seccomp", "landlock", "reason"?}} */
enum { PROC_HSM_INFO_REP_JSON };

/* CREATE: keyId, type ("ec-p256", "rsa-2048", "rsa-3072") → spki (DER SubjectPublicKeyInfo),
 * stated, holds (bits of enum proc_hsm_attr: which attributes the module tells, which of them are
 * true). Not repeated by the client: after a lost connection READ tells whether it was made.
 * ATT_E_EXISTS: the id is in use. */
enum { PROC_HSM_CREATE_REQ_KEY_ID, PROC_HSM_CREATE_REQ_TYPE };
enum { PROC_HSM_KEY_REP_SPKI, PROC_HSM_KEY_REP_STATED, PROC_HSM_KEY_REP_HOLDS };

/* READ: keyId → as CREATE. ATT_E_NOTFOUND keyGone; ATT_E_CONFLICT keyTwice. */
enum { PROC_HSM_REQ_KEY_ID };

/* SIGN: keyId, digest (32) → signature (r ‖ s). */
enum { PROC_HSM_SIGN_REQ_KEY_ID, PROC_HSM_SIGN_REQ_DIGEST };
enum { PROC_HSM_SIGN_REP_SIGNATURE };

/* SIGN_RSA: keyId, scheme (1: RSASSA-PKCS1-v1_5, 2: RSASSA-PSS with a salt as long as the digest,
 * as enum att_rsa_scheme), digest (32, 48 or 64 bytes: SHA-256, SHA-384, SHA-512) → signature (as
 * long as the modulus). hsmd makes the DigestInfo: nothing but a digest is ever signed. */
enum { PROC_HSM_SIGN_RSA_REQ_KEY_ID, PROC_HSM_SIGN_RSA_REQ_SCHEME, PROC_HSM_SIGN_RSA_REQ_DIGEST };

/* DESTROY: keyId → (); absent is ATT_OK. ATT_E_RETRY keyMaking: a CREATE of it is under way. */

/* DESTROY_IN, CREATE_IN: as DESTROY and CREATE, in this token only; ATT_E_CONFLICT tokenOther, and
 * nothing done, where this process serves another one. So a module's name that leads to another
 * token, as when two are swapped in the configuration, makes no key look as if it were gone. An
 * hsmd of an earlier version has neither (ATT_E_UNSUPPORTED). */
enum { PROC_HSM_DESTROY_IN_REQ_LABEL = 1, PROC_HSM_DESTROY_IN_REQ_SERIAL = 2 };
enum { PROC_HSM_CREATE_IN_REQ_LABEL = 2, PROC_HSM_CREATE_IN_REQ_SERIAL = 3 };

/* LIST: after (a key id, or empty for the start) → keyIds (ascending; less than a page is the
 * end). */
enum { PROC_HSM_LIST_REQ_AFTER };
enum { PROC_HSM_LIST_REP_KEY_IDS };

/* As in enum hsm_attr (pkcs11/hsm/hsm.h); attestd/hsmd asserts it. */
enum proc_hsm_attr {
    PROC_HSM_ATTR_LOCAL,
    PROC_HSM_ATTR_ALWAYS_SENSITIVE,
    PROC_HSM_ATTR_NEVER_EXTRACTABLE,
    PROC_HSM_ATTR_SENSITIVE,
    PROC_HSM_ATTR_EXTRACTABLE,
    PROC_HSM_ATTR_TOKEN,
    PROC_HSM_ATTR_PRIVATE,
    PROC_HSM_ATTR_SIGN,
    PROC_HSM_ATTR_DECRYPT,
    PROC_HSM_ATTR_UNWRAP,
    PROC_HSM_ATTR_DERIVE,
    PROC_HSM_ATTR_COPYABLE,
    PROC_HSM_ATTR_MODIFIABLE,
    PROC_HSM_ATTR_COUNT,
};

extern const struct proc_op proc_hsm_table[];

#endif
