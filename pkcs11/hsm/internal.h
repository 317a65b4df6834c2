/* What the files of pkcs11/hsm share. */
#ifndef HSM_INTERNAL_H
#define HSM_INTERNAL_H

#include "pkcs11/hsm/hsm.h"

#include <p11-kit/pkcs11.h>
#include <pthread.h>

#define HSM_CACHE    1024 /* places for private keys' handles */
#define HSM_PAUSE_MS 500  /* between two tries to connect */

struct hsm_cached {
    uint8_t id[HSM_KEY_ID_LEN];
    uint64_t connection; /* 0: empty place; handles of earlier connections do not count */
    CK_OBJECT_HANDLE handle;
    bool rsa;
};

struct hsm {
    CK_FUNCTION_LIST *module;
    char label[HSM_LABEL_MAX + 1], serial[HSM_SERIAL_MAX + 1];
    char manufacturer[33], model[17]; /* empty: any */
    const struct att_secret *pin;
    unsigned sessions_wanted;
    int64_t wait_ms;
    enum att_rc (*may_login)(void *user, struct att_err *err);
    void (*pin_refused)(void *user);
    void *user;

    pthread_mutex_t lock; /* all that follows */
    pthread_cond_t changed;
    bool connecting;     /* one thread makes everything anew; nobody else calls the module */
    bool connected;      /* slot, parked and sessions hold */
    bool initialized;    /* between C_Initialize and C_Finalize */
    bool login_required; /* as the token says; constant while connected */
    bool fresh;          /* initialized, and nothing done since */
    bool refused;        /* the PIN: never again */
    struct att_err why_refused;
    int64_t failed_ms; /* CLOCK_MONOTONIC of the last connection that failed; 0: none since */
    struct att_err why_failed;
    unsigned users; /* threads in the module */
    CK_SLOT_ID slot;
    CK_SESSION_HANDLE parked; /* logged in, used for nothing else; unless it is the only one */
    CK_SESSION_HANDLE idle[HSM_SESSIONS_MAX];
    unsigned idle_count, open_count, limit;
    int64_t began_ms[HSM_SESSIONS_MAX + 1]; /* of each call under way; 0: free place */
    int64_t returned_ms;                    /* when the last one came back */
    struct hsm_info info;
    struct hsm_cached cache[HSM_CACHE];
};

/* One call into the module by a thread: its session, and what the module said. */
struct hsm_call {
    struct hsm *hsm;
    CK_FUNCTION_LIST *module;
    CK_SESSION_HANDLE session;
    CK_SLOT_ID slot;
    uint64_t connection;
    bool again; /* the second try */
    CK_RV rv;   /* why fn failed, where the module said so; CKR_OK: it was not the module */
};
typedef enum att_rc hsm_call_fn(struct hsm_call *call, void *arg, struct att_err *err);
/* Runs fn with a session of its own; once more after everything was made anew when call->rv says
 * that this may help. */
ATT_MUST_USE enum att_rc hsm_run(struct hsm *hsm, hsm_call_fn *fn, void *arg, struct att_err *err);

/* ---- errors.c ---- */
const char *hsm_errors_name(CK_RV rv); /* "CKR_DEVICE_REMOVED", or "" */
/* What the caller can do about it. */
enum att_rc hsm_errors_rc(CK_RV rv);
/* Fills err: "what: CKR_…", with its reason word, and returns its code. */
enum att_rc hsm_errors_set(CK_RV rv, const char *what, struct att_err *err);
/* May it work after everything was made anew? */
bool hsm_errors_again(CK_RV rv);
/* In a call: notes rv in it, too. */
enum att_rc hsm_call_failed(struct hsm_call *call, CK_RV rv, const char *what, struct att_err *err);

/* ---- connect.c: lock is not held, connecting is set ---- */
ATT_MUST_USE enum att_rc hsm_connect(struct hsm *hsm, struct att_err *err);
ATT_MUST_USE enum att_rc hsm_find_slot(struct hsm *hsm, CK_SLOT_ID *ret_slot, CK_TOKEN_INFO *ret,
                                       struct att_err *err);
ATT_MUST_USE enum att_rc hsm_check_token(struct hsm *hsm, CK_SLOT_ID slot, struct att_err *err);
enum hsm_pin hsm_pin_of(CK_FLAGS flags);

/* ---- objects.c ---- */
/* Is the session one of a user who is logged in, where the token wants that? */
ATT_MUST_USE enum att_rc hsm_check_login(struct hsm_call *call, struct att_err *err);
/* The private (or public) key with this id; ATT_E_NOTFOUND, ATT_E_CONFLICT (two). */
ATT_MUST_USE enum att_rc hsm_object_find(struct hsm_call *call, CK_OBJECT_CLASS class,
                                         const uint8_t id[HSM_KEY_ID_LEN],
                                         CK_OBJECT_HANDLE *ret_handle, struct att_err *err);
/* Any one of those that have it; ATT_E_NOTFOUND. */
ATT_MUST_USE enum att_rc hsm_object_any(struct hsm_call *call, CK_OBJECT_CLASS class,
                                        const uint8_t id[HSM_KEY_ID_LEN],
                                        CK_OBJECT_HANDLE *ret_handle, struct att_err *err);
ATT_MUST_USE enum att_rc hsm_object_attrs(struct hsm_call *call, CK_OBJECT_HANDLE private,
                                          struct hsm_key *ret_key, struct att_err *err);
/* type, spki and spki_len of ret_key. */
ATT_MUST_USE enum att_rc hsm_object_public(struct hsm_call *call, CK_OBJECT_HANDLE public,
                                           struct hsm_key *ret_key, struct att_err *err);
/* CKA_EC_POINT → coordinates: the point in an OCTET STRING as the standard wants (PKCS#11 2.40
 * §2.3.3), or bare as some modules give it. Checked to be on the curve. */
ATT_MUST_USE enum att_rc hsm_object_point_parse(struct att_slice value,
                                                uint8_t ret_xy[ATT_P256_XY_LEN],
                                                struct att_err *err);
/* CKA_MODULUS and CKA_PUBLIC_EXPONENT (leading zeroes optional) → type and SubjectPublicKeyInfo.
 * ATT_E_UNSUPPORTED keyAttributes: of another size or exponent than an agent's key has. */
ATT_MUST_USE enum att_rc hsm_object_rsa_parse(struct att_slice modulus, struct att_slice exponent,
                                              struct hsm_key *ret_key, struct att_err *err);
/* ATT_OK when stated and holds are what a key of ours must have; else ATT_E_UNSUPPORTED
 * keyAttributes. */
ATT_MUST_USE enum att_rc hsm_object_check(uint32_t stated, uint32_t holds, struct att_err *err);

/* ---- sign.c ---- */
/* One signature in this call; key is a handle of this connection. ECDSA: digest of 32 bytes. */
ATT_MUST_USE enum att_rc hsm_sign_ecdsa(struct hsm_call *call, CK_OBJECT_HANDLE key,
                                        const uint8_t digest[ATT_SHA256_LEN],
                                        uint8_t ret[HSM_SIGNATURE_LEN], struct att_err *err);
ATT_MUST_USE enum att_rc hsm_sign_rsa(struct hsm_call *call, CK_OBJECT_HANDLE key,
                                      enum att_rsa_scheme scheme, struct att_slice digest,
                                      uint8_t ret[HSM_SIGNATURE_MAX], size_t *ret_len,
                                      struct att_err *err);
/* Is the private key the public one's, and does it sign at all? ATT_E_UNSUPPORTED keySignature. */
ATT_MUST_USE enum att_rc hsm_sign_check(struct hsm_call *call, CK_OBJECT_HANDLE private,
                                        const struct hsm_key *key, struct att_err *err);

/* ---- generate.c ---- */
/* A pair by the module, with our template; all: also what some modules do not know or set
 * themselves. */
CK_RV hsm_generate(struct hsm_call *call, const uint8_t id[HSM_KEY_ID_LEN], enum att_keytype type,
                   bool all, CK_OBJECT_HANDLE *ret_public, CK_OBJECT_HANDLE *ret_private);

#endif
