/* What the files of the function list share. */
#ifndef TOKEN_INTERNAL_H
#define TOKEN_INTERNAL_H

#include "attestd/base/keytype.h"
#include "pkcs11/token/cert.h"
#include "pkcs11/token/module.h"

#include <openssl/evp.h>
#include <p11-kit/pkcs11.h>
#include <stdbool.h>

#define SLOT              ((CK_SLOT_ID)1)
#define SESSIONS_MAX      256 /* of one connection */
#define SETS_MAX          16  /* generations whose handles still work: keyd keeps 8 retired keys */
#define SET_OBJECTS       (3 + TOKEN_CHAIN_MAX + TOKEN_BUNDLE_MAX)
#define SET_STRIDE        64 /* handles of a set: serial * SET_STRIDE + index */
#define PEER_KEYS_MAX     8  /* public keys that the workload brought to verify with */
#define PEER_POINT_MAX    140
#define PEER_TEXT_MAX     64
#define PEER_MODULUS_MAX  512 /* bytes: RSA-4096 */
#define PEER_EXPONENT_MAX 8

/* One generation of what the agent has: copied once, then read only. */
struct token_set {
    uint64_t serial; /* 1 … in the order in which this process saw them; 0: empty place */
    uint64_t generation;
    char key_id[TOKEN_KEY_ID_LEN + 1];
    uint8_t id[TOKEN_KEY_ID_LEN / 2]; /* CKA_ID: the key id as bytes */
    char spiffe_id[TOKEN_SPIFFE_MAX + 1];
    struct att_slice certs[TOKEN_CHAIN_MAX + TOKEN_BUNDLE_MAX];
    size_t chain_count, bundle_count;
    uint8_t *bytes;                /* where the certificates are */
    uint8_t point[PEER_POINT_MAX]; /* CKA_EC_POINT: OCTET STRING around the leaf's point */
    size_t point_len;
    struct token_cert leaf;
    enum att_keytype type;
    struct att_slice modulus; /* within the leaf; empty: P-256 */
    bool key_gone;            /* keyd has said so */
};

/* CKO_PUBLIC_KEY made by C_CreateObject; belongs to its session. */
struct peer_key {
    CK_OBJECT_HANDLE handle; /* 0: empty place */
    CK_SESSION_HANDLE session;
    int curve;                     /* index into the curves of peer.c */
    uint8_t point[PEER_POINT_MAX]; /* OCTET STRING, as it came */
    size_t point_len;
    uint8_t modulus[PEER_MODULUS_MAX], exponent[PEER_EXPONENT_MAX];
    size_t modulus_len, exponent_len; /* 0: not of RSA */
    uint8_t label[PEER_TEXT_MAX], id[PEER_TEXT_MAX];
    size_t label_len, id_len;
};

/* One operation with RSA. {0}: none. */
struct token_rsa {
    enum att_rsa_scheme scheme;
    size_t digest_len; /* 0: by the DigestInfo that is given */
    EVP_MD_CTX *md;    /* the mechanism hashes, too: SHA*_RSA_PKCS, SHA*_RSA_PKCS_PSS */
    bool updated;
};
struct token_digest {
    uint8_t bytes[64];
    size_t len;
};

struct session {
    CK_SESSION_HANDLE handle;              /* 0: empty place */
    bool rw;                               /* as it was asked for; nothing can be written */
    CK_OBJECT_HANDLE sign_key, verify_key; /* 0: no operation */
    struct token_rsa sign_rsa, verify_rsa; /* scheme 0: by ECDSA */
    EVP_MD_CTX *digest;
    bool digest_updated;
    bool finding;
    CK_OBJECT_HANDLE *found;
    size_t found_count, found_at;
};

struct token_module {
    const struct token_store *store;
    bool initialized, logged_in;
    struct session *sessions[SESSIONS_MAX];
    CK_SESSION_HANDLE next_session;
    size_t session_count;
    struct token_set *sets[SETS_MAX];
    struct token_set *current; /* one of sets; NULL: no certificate now */
    uint64_t next_serial;
    struct peer_key peers[PEER_KEYS_MAX];
    CK_OBJECT_HANDLE next_peer;
};
extern struct token_module token_self;

/* ---- general.c ---- */
CK_RV token_session(CK_SESSION_HANDLE handle, struct session **ret_session);

/* ---- set.c ---- */
/* Asks the store; afterwards token_self.current is what holds now. CKR_DEVICE_ERROR only when
 * nothing is known at all. */
CK_RV token_set_refresh(void);
void token_set_forget_all(void);
struct token_set *token_set_of(CK_OBJECT_HANDLE handle, size_t *ret_index);
size_t token_set_count(const struct token_set *set);
CK_OBJECT_HANDLE token_set_handle(const struct token_set *set, size_t index);

/* ---- object.c: attributes ---- */
struct attr_value {
    const void *ptr;
    size_t len;
    uint64_t room[2]; /* where numbers stand */
};
enum attr_result { ATTR_OK, ATTR_NONE, ATTR_SENSITIVE };
enum { INDEX_PRIVATE, INDEX_PUBLIC, INDEX_DATA, INDEX_CERTS };
enum attr_result token_object_attr(CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
                                   struct attr_value *ret);
bool token_object_exists(CK_OBJECT_HANDLE object);

/* ---- peer.c ---- */
#define PEER_HANDLE_BIT ((CK_OBJECT_HANDLE)1 << 40)
struct peer_key *token_peer_of(CK_OBJECT_HANDLE handle);
void token_peer_forget(CK_SESSION_HANDLE session);
enum attr_result token_peer_attr(const struct peer_key *peer, CK_ATTRIBUTE_TYPE type,
                                 struct attr_value *ret);
/* ECDSA over a digest, by a point in an OCTET STRING. */
CK_RV token_peer_verify(int curve, struct att_slice octets, struct att_slice digest,
                        struct att_slice signature);
#define PEER_CURVE_P256 0

/* ---- rsa.c ---- */
#define TOKEN_RSA_MECHANISMS (TOKEN_PSS_WITH_HASH ? 8 : 5)
extern const CK_ULONG token_rsa_mechanisms[TOKEN_RSA_MECHANISMS];
bool token_rsa_is_mechanism(CK_MECHANISM_TYPE type);
/* Begins; ends whatever *ret held. CKR_MECHANISM_INVALID: none of RSA's. */
CK_RV token_rsa_begin(const CK_MECHANISM *mechanism, struct token_rsa *ret);
void token_rsa_end(struct token_rsa *rsa);
CK_RV token_rsa_update(struct token_rsa *rsa, struct att_slice part);
/* The digest that is signed: from data, and what came before. CKR_DATA_INVALID: CKM_RSA_PKCS of
 * anything but a DigestInfo with SHA-256, SHA-384 or SHA-512. */
CK_RV token_rsa_digest(struct token_rsa *rsa, struct att_slice data, struct token_digest *ret);
bool token_rsa_key_ok(struct att_slice modulus, struct att_slice exponent);
CK_RV token_rsa_verify(struct att_slice modulus, struct att_slice exponent,
                       const struct token_rsa *rsa, const struct token_digest *digest,
                       struct att_slice signature);
/* 65537, big-endian. */
#define TOKEN_RSA_EXPONENT ATT_SLICE_LIT("\x01\x00\x01")
void token_attr_bool(struct attr_value *ret, bool value);
void token_attr_ulong(struct attr_value *ret, CK_ULONG value);
void token_attr_bytes(struct attr_value *ret, struct att_slice bytes);

/* ---- the calls, by file ---- */
CK_RV token_C_Initialize(void *args);
CK_RV token_C_Finalize(void *reserved);
CK_RV token_C_GetInfo(CK_INFO *info);
CK_RV token_C_GetSlotList(CK_BBOOL present, CK_SLOT_ID *list, CK_ULONG *count);
CK_RV token_C_GetSlotInfo(CK_SLOT_ID slot, CK_SLOT_INFO *info);
CK_RV token_C_GetTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO *info);
CK_RV token_C_GetMechanismList(CK_SLOT_ID slot, CK_MECHANISM_TYPE *list, CK_ULONG *count);
CK_RV token_C_GetMechanismInfo(CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO *info);
CK_RV token_C_OpenSession(CK_SLOT_ID slot, CK_FLAGS flags, void *app, CK_NOTIFY notify,
                          CK_SESSION_HANDLE *session);
CK_RV token_C_CloseSession(CK_SESSION_HANDLE session);
CK_RV token_C_CloseAllSessions(CK_SLOT_ID slot);
CK_RV token_C_GetSessionInfo(CK_SESSION_HANDLE session, CK_SESSION_INFO *info);
CK_RV token_C_Login(CK_SESSION_HANDLE session, CK_USER_TYPE user, CK_UTF8CHAR *pin, CK_ULONG len);
CK_RV token_C_Logout(CK_SESSION_HANDLE session);
CK_RV token_C_WaitForSlotEvent(CK_FLAGS flags, CK_SLOT_ID *slot, void *reserved);

CK_RV token_C_CreateObject(CK_SESSION_HANDLE session, CK_ATTRIBUTE *templ, CK_ULONG count,
                           CK_OBJECT_HANDLE *object);
CK_RV token_C_CopyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE *templ,
                         CK_ULONG count, CK_OBJECT_HANDLE *copy);
CK_RV token_C_DestroyObject(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object);
CK_RV token_C_GetObjectSize(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ULONG *size);
CK_RV token_C_GetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                                CK_ATTRIBUTE *templ, CK_ULONG count);
CK_RV token_C_SetAttributeValue(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object,
                                CK_ATTRIBUTE *templ, CK_ULONG count);
CK_RV token_C_FindObjectsInit(CK_SESSION_HANDLE session, CK_ATTRIBUTE *templ, CK_ULONG count);
CK_RV token_C_FindObjects(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE *objects, CK_ULONG max,
                          CK_ULONG *count);
CK_RV token_C_FindObjectsFinal(CK_SESSION_HANDLE session);

CK_RV token_C_DigestInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism);
CK_RV token_C_Digest(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG len, CK_BYTE *digest,
                     CK_ULONG *digest_len);
CK_RV token_C_DigestUpdate(CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG len);
CK_RV token_C_DigestFinal(CK_SESSION_HANDLE session, CK_BYTE *digest, CK_ULONG *digest_len);
CK_RV token_C_SignInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key);
CK_RV token_C_Sign(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG len, CK_BYTE *signature,
                   CK_ULONG *signature_len);
CK_RV token_C_SignUpdate(CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG len);
CK_RV token_C_SignFinal(CK_SESSION_HANDLE session, CK_BYTE *signature, CK_ULONG *signature_len);
CK_RV token_C_VerifyInit(CK_SESSION_HANDLE session, CK_MECHANISM *mechanism, CK_OBJECT_HANDLE key);
CK_RV token_C_Verify(CK_SESSION_HANDLE session, CK_BYTE *data, CK_ULONG len, CK_BYTE *signature,
                     CK_ULONG signature_len);
CK_RV token_C_VerifyUpdate(CK_SESSION_HANDLE session, CK_BYTE *part, CK_ULONG len);
CK_RV token_C_VerifyFinal(CK_SESSION_HANDLE session, CK_BYTE *signature, CK_ULONG signature_len);
CK_RV token_C_SeedRandom(CK_SESSION_HANDLE session, CK_BYTE *seed, CK_ULONG len);
CK_RV token_C_GenerateRandom(CK_SESSION_HANDLE session, CK_BYTE *random, CK_ULONG len);

#endif
