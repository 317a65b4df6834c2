/* A token of one PKCS#11 module as a store of keys: P-256, RSA. The module is a vendor's code: only
 * attestd-hsmd, which has nothing else in it, calls this, and leaves by _exit().
 *
 * The token is found by its label and serial number, never by a slot's number. One login for all
 * sessions, on a session that is kept for it. When the token says that a session, an object or the
 * login is gone, or the device failed, everything is made anew (C_Finalize, C_Initialize, login,
 * search), once; then the caller hears why.
 *
 * Keys: CKA_LABEL "attestd", CKA_ID = 20 bytes that the caller chose at random; no other object of
 * the token is used, changed or destroyed. Thread-safe.
 *
 * Errors of every call, beside those named there (native: the CK_RV):
 *   ATT_E_GONE tokenGone      no such token now, or it fails: the same call may work when it is
 * back ATT_E_AUTH pinRefused     the token refused the PIN. It is never tried again by this process
 *   ATT_E_LOCKOUT pinLocked   the token's user PIN is locked, or one try is left: an operator's
 *   ATT_E_RETRY, ATT_E_LIMIT, ATT_E_NOMEM, ATT_E_UNSUPPORTED, ATT_E_DENIED: see hsm_errors_rc */
#ifndef HSM_HSM_H
#define HSM_HSM_H

#include "attestd/base/hash.h"
#include "attestd/base/keytype.h"
#include "attestd/base/secret.h"

#define HSM_KEY_ID_LEN    20
#define HSM_SIGNATURE_LEN 64 /* r ‖ s */
#define HSM_SIGNATURE_MAX ATT_RSA_MODULUS_MAX
#define HSM_SESSIONS_MAX  8
#define HSM_LABEL_MAX     32 /* CK_TOKEN_INFO.label */
#define HSM_SERIAL_MAX    16
#define HSM_PIN_MAX       255
#define HSM_LABEL         "attestd" /* of our keys */

struct hsm;

struct hsm_opts {
    const char *module_path;
    const char *label, *serial;       /* of the token; both required */
    const char *manufacturer, *model; /* of the token; NULL or empty: any */
    const struct att_secret *pin;     /* kept by reference */
    unsigned sessions;                /* beside the one of the login; 1 … HSM_SESSIONS_MAX */
    int64_t wait_ms;                  /* for a free session, or for another thread's login */
    /* Asked before each login; may be NULL. An error is the call's: then nobody logs in. */
    enum att_rc (*may_login)(void *user, struct att_err *err);
    /* The token refused the PIN; may be NULL. */
    void (*pin_refused)(void *user);
    void *user;
};

/* Loads the module (dlopen) and calls its C_Initialize; needs no token yet. ATT_E_UNSUPPORTED
 * moduleLoad. p11_kit_module_load, not p11_kit_modules_load: nothing that the distribution
 * registered comes in. */
ATT_MUST_USE enum att_rc hsm_new(const struct hsm_opts *opts, struct hsm **ret_hsm,
                                 struct att_err *err);
/* Logs out and finalizes the module; the module stays loaded. No call may be under way. NULL is
 * fine. A process then leaves by _exit(): SoftHSM 2.6.1 crashes in its destructors. */
void hsm_free(struct hsm *hsm);

/* Is the token there (C_GetTokenInfo: C_WaitForSlotEvent is unreliable)? Logs in where nobody is
 * logged in. */
ATT_MUST_USE enum att_rc hsm_poll(struct hsm *hsm, struct att_err *err);

/* What the token's flags said of its user PIN when it was last looked at (PKCS#11 2.40 §3.2,
 * CK_TOKEN_INFO). With HSM_PIN_FINAL_TRY and HSM_PIN_LOCKED nobody logs in. */
enum hsm_pin {
    HSM_PIN_UNKNOWN,
    HSM_PIN_OK,
    HSM_PIN_COUNT_LOW, /* somebody has given a wrong one since the last that was right */
    HSM_PIN_FINAL_TRY,
    HSM_PIN_LOCKED,
    HSM_PIN_NOT_SET,
};
const char *hsm_pin_name(enum hsm_pin pin); /* "unknown", "ok", "countLow", "finalTry" … */

/* What CK_TOKEN_INFO said at the last login; empty before. */
struct hsm_info {
    bool connected;
    enum hsm_pin pin;
    char label[HSM_LABEL_MAX + 1], serial[HSM_SERIAL_MAX + 1];
    char manufacturer[33], model[17], firmware[16];
    unsigned sessions;     /* how many operations run side by side at most */
    uint64_t connections;  /* how often everything was made anew */
    int64_t busy_since_ms; /* att_boottime_ms when the oldest call under way began; 0: none */
    /* Since when calls are under way and none has come back; 0: none is. A module that works comes
     * back from hsm_poll at the latest. */
    int64_t silent_since_ms;
};
void hsm_info_get(struct hsm *hsm, struct hsm_info *ret_info);
/* The token that it was made for; constant. */
const char *hsm_token_label(const struct hsm *hsm);
const char *hsm_token_serial(const struct hsm *hsm);

/* What the module states of a private key: bit i of stated when it tells attribute i, of holds when
 * it says CK_TRUE. Statements of the module, not proof. */
enum hsm_attr {
    HSM_ATTR_LOCAL,
    HSM_ATTR_ALWAYS_SENSITIVE,
    HSM_ATTR_NEVER_EXTRACTABLE,
    HSM_ATTR_SENSITIVE,
    HSM_ATTR_EXTRACTABLE,
    HSM_ATTR_TOKEN,
    HSM_ATTR_PRIVATE,
    HSM_ATTR_SIGN,
    HSM_ATTR_DECRYPT,
    HSM_ATTR_UNWRAP,
    HSM_ATTR_DERIVE,
    HSM_ATTR_COPYABLE,
    HSM_ATTR_MODIFIABLE,
    HSM_ATTR_COUNT,
};
const char *hsm_attr_name(enum hsm_attr attr); /* "local", "alwaysSensitive" … */

struct hsm_key {
    enum att_keytype type;
    uint8_t spki[ATT_KEYTYPE_SPKI_MAX]; /* DER SubjectPublicKeyInfo */
    size_t spki_len;
    uint32_t stated, holds;
};

/* A new pair: CKM_EC_KEY_PAIR_GEN on P-256, or CKM_RSA_PKCS_KEY_PAIR_GEN with exponent 65537. An
 * RSA pair takes an HSM seconds, and another size or exponent than was asked for is refused
 * (keyAttributes); its check is a signature with PSS. What the module states of it is read back,
 * and a signature is checked before anybody is told of it; a key that is not what it should be is
 * destroyed again: ATT_E_UNSUPPORTED keyAttributes (which attribute) or keySignature. ATT_E_EXISTS:
 * there is such an id. ATT_E_LIMIT tokenFull. */
ATT_MUST_USE enum att_rc hsm_key_create(struct hsm *hsm, const uint8_t id[HSM_KEY_ID_LEN],
                                        enum att_keytype type, struct hsm_key *ret_key,
                                        struct att_err *err);
/* ATT_E_NOTFOUND; ATT_E_CONFLICT when there are two of it. */
ATT_MUST_USE enum att_rc hsm_key_read(struct hsm *hsm, const uint8_t id[HSM_KEY_ID_LEN],
                                      struct hsm_key *ret_key, struct att_err *err);
/* CKM_ECDSA. ATT_E_NOTFOUND. */
ATT_MUST_USE enum att_rc hsm_key_sign(struct hsm *hsm, const uint8_t id[HSM_KEY_ID_LEN],
                                      const uint8_t digest[ATT_SHA256_LEN],
                                      uint8_t ret_signature[HSM_SIGNATURE_LEN],
                                      struct att_err *err);
/* CKM_RSA_PKCS of a DigestInfo that is made here, or CKM_RSA_PKCS_PSS (no salt but one as long as
 * the digest). digest: 32, 48 or 64 bytes. ATT_E_NOTFOUND; both: ATT_E_UNSUPPORTED keyType, the key
 * is of the other type (SoftHSM 2.6.1 crashes when it is asked for that). */
ATT_MUST_USE enum att_rc hsm_key_sign_rsa(struct hsm *hsm, const uint8_t id[HSM_KEY_ID_LEN],
                                          enum att_rsa_scheme scheme, struct att_slice digest,
                                          uint8_t ret_signature[HSM_SIGNATURE_MAX], size_t *ret_len,
                                          struct att_err *err);
/* Both objects, and more of them where a making that was cut off left two; absent is ATT_OK. */
ATT_MUST_USE enum att_rc hsm_key_destroy(struct hsm *hsm, const uint8_t id[HSM_KEY_ID_LEN],
                                         struct att_err *err);
/* The ids of our private keys that are greater than after (NULL: all), ascending, at most room. */
ATT_MUST_USE enum att_rc hsm_key_list(struct hsm *hsm, const uint8_t *after,
                                      uint8_t (*ret_ids)[HSM_KEY_ID_LEN], size_t room,
                                      size_t *ret_count, struct att_err *err);

#endif
