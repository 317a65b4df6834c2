/* TPMT_PUBLIC: TCG TPM 2.0 Part 2, clause 12.2. Parsed strictly, checked against what we ask of an
 * EK, an AK and an agent's key, turned into SubjectPublicKeyInfo, and marshalled again. */
#ifndef TPM_PARSE_PUBLIC_H
#define TPM_PARSE_PUBLIC_H

#include "attestd/base/buf.h"
#include "tpm/parse/name.h"
#include "tpm/parse/types.h"

#include <openssl/evp.h>

/* TPMT_SYM_DEF_OBJECT; key_bits and mode are 0 where alg is PARSE_ALG_NULL. */
struct parse_sym {
    uint16_t alg, key_bits, mode;
};

/* TPMT_RSA_SCHEME, TPMT_ECC_SCHEME, TPMT_KEYEDHASH_SCHEME or TPMT_KDF_SCHEME; hash is 0 where the
 * scheme has none; kdf only for the XOR scheme. */
struct parse_scheme {
    uint16_t alg, hash, kdf;
};

/* Holds its bytes. Members that the type does not have are zero. Equal areas give equal structs and
 * the other way round: one encoding per struct. */
struct parse_public {
    uint16_t type;     /* PARSE_ALG_RSA, PARSE_ALG_ECC, PARSE_ALG_KEYEDHASH */
    uint16_t name_alg; /* SHA-256, SHA-384 or SHA-512; SHA-1 is refused */
    uint32_t attrs;    /* PARSE_OA_* */
    uint8_t policy[PARSE_DIGEST_MAX];
    size_t policy_len;          /* 0 or nameAlg's digest length */
    struct parse_sym sym;       /* RSA, ECC */
    struct parse_scheme scheme; /* all types */
    uint16_t key_bits;          /* RSA: 2048, 3072 */
    uint32_t exponent;          /* RSA: 0 means 65537 */
    uint16_t curve;             /* ECC: PARSE_ECC_P256, PARSE_ECC_P384 */
    struct parse_scheme kdf;    /* ECC */
    uint8_t unique[PARSE_RSA_MAX];
    size_t unique_len; /* RSA: modulus; keyedhash: digest */
    uint8_t x[PARSE_COORD_MAX], y[PARSE_COORD_MAX];
    size_t x_len, y_len; /* ECC: at most the field's length; both 0 in a template */
};

/* Exactly one TPMT_PUBLIC. An empty unique is let through (templates have one); parse_public_pkey
 * and parse_public_spki refuse it. ATT_E_PARSE; ATT_E_UNSUPPORTED for types, sizes and curves that
 * are well known but not taken here; ATT_E_LIMIT above PARSE_AREA_MAX. */
ATT_MUST_USE enum att_rc parse_public_parse(struct att_slice area, struct parse_public *ret_pub,
                                            struct att_err *err);
/* TPM2B_PUBLIC → the TPMT_PUBLIC in it (borrows tpm2b), without parsing that. */
ATT_MUST_USE enum att_rc parse_public_unwrap(struct att_slice tpm2b, struct att_slice *ret_area,
                                             struct att_err *err);
/* Appends the TPMT_PUBLIC. ATT_E_INVAL where the struct cannot be written. */
ATT_MUST_USE enum att_rc parse_public_encode(const struct parse_public *pub,
                                             struct att_buf *ret_area, struct att_err *err);
/* Name of the struct's encoding. */
ATT_MUST_USE enum att_rc parse_public_name(const struct parse_public *pub,
                                           struct parse_name *ret_name, struct att_err *err);

/* The public key, the point checked to be on its curve and not at infinity, an RSA modulus to have
 * its exact bit length and to be odd. The caller frees it. Not for keyedhash (ATT_E_UNSUPPORTED).
 */
ATT_MUST_USE enum att_rc parse_public_pkey(const struct parse_public *pub, EVP_PKEY **ret_pkey,
                                           struct att_err *err);
/* Appends the DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7; RFC 5480 uncompressed named curve). */
ATT_MUST_USE enum att_rc parse_public_spki(const struct parse_public *pub, struct att_buf *ret_der,
                                           struct att_err *err);
/* Puts a P-256, P-384, RSA-2048 or RSA-3072 key's public half into type, curve / key_bits and
 * unique; the rest of pub is the caller's. */
ATT_MUST_USE enum att_rc parse_public_set_pkey(struct parse_public *pub, const EVP_PKEY *pkey,
                                               struct att_err *err);

/* ---- what we ask of keys ------------------------------------------------------------------- */

/* TCG EK Credential Profile 2.5, Annex B: low range with policy A, high range with policy B. */
enum parse_ek_template {
    PARSE_EK_NONE = 0,
    PARSE_EK_L1, /* RSA-2048, NV 0x01C00002 */
    PARSE_EK_L2, /* P-256,    NV 0x01C0000A */
    PARSE_EK_H1, /* RSA-2048, NV 0x01C00012 */
    PARSE_EK_H2, /* P-256,    NV 0x01C00014 */
    PARSE_EK_H3, /* P-384,    NV 0x01C00016 */
    PARSE_EK_H6, /* RSA-3072, NV 0x01C0001C */
};
const char *parse_ek_template_name(enum parse_ek_template which); /* "L-1"…; "none" */

/* The template as CreatePrimary wants it. unique: 256 zero bytes (L-1), 2 × 32 zero bytes (L-2),
 * empty in the high range. ATT_E_INVAL for PARSE_EK_NONE. */
ATT_MUST_USE enum att_rc parse_public_ek_template(enum parse_ek_template which,
                                                  struct parse_public *ret_pub,
                                                  struct att_err *err);
/* Which template this EK has: type, size, nameAlg, attributes, authPolicy, symmetric, scheme, kdf.
 * In the high range userWithAuth may be set or clear (0x300f2 or 0x300b2). Otherwise ATT_E_DENIED,
 * reason "ekTemplate", the message naming the first member that is wrong. */
ATT_MUST_USE enum att_rc parse_public_check_ek(const struct parse_public *pub,
                                               enum parse_ek_template *ret_which,
                                               struct att_err *err);

/* Our AK: ECC P-256, SHA-256, ecdsa-sha256, no symmetric, no policy, fixedTPM fixedParent
 * sensitiveDataOrigin userWithAuth restricted sign noDA; the unique is empty. */
void parse_public_ak_template(struct parse_public *ret_pub);
/* The same as RSA-2048 with rsassa-sha256, exponent 65537: for servers that take no other AK. No
 * attest-issuerd enrols it. */
void parse_public_ak_rsa_template(struct parse_public *ret_pub);
/* Exactly the P-256 one (unique aside), else ATT_E_DENIED, reason "akAttributes". */
ATT_MUST_USE enum att_rc parse_public_check_ak(const struct parse_public *pub, struct att_err *err);

/* An agent's key: ECC P-256, SHA-256, no symmetric, null scheme, no policy; fixedTPM fixedParent
 * sensitiveDataOrigin userWithAuth sign noDA. */
void parse_public_agent_template(struct parse_public *ret_pub);
/* fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, sign set; restricted, decrypt,
 * adminWithPolicy, encryptedDuplication clear; authPolicy empty; P-256, SHA-256 or better, scheme
 * null or ecdsa with SHA-256 or better. Else ATT_E_DENIED, reason "keyAttributes". */
ATT_MUST_USE enum att_rc parse_public_check_agent(const struct parse_public *pub,
                                                  struct att_err *err);

/* The standard ECC SRK (TCG TPM v2.0 Provisioning Guidance 7.5.1): P-256, AES-128-CFB, fixedTPM
 * fixedParent sensitiveDataOrigin userWithAuth restricted decrypt noDA; unique empty, or two times
 * 32 zero bytes where zero_unique. */
void parse_public_srk_template(struct parse_public *ret_pub, int zero_unique);
/* A storage parent from which nothing can be duplicated: restricted, decrypt, fixedTPM,
 * fixedParent, sensitiveDataOrigin set; sign clear; a symmetric cipher. Else ATT_E_DENIED, reason
 * "keyParent". */
ATT_MUST_USE enum att_rc parse_public_check_storage(const struct parse_public *pub,
                                                    struct att_err *err);

/* Every bit of must_set set and every bit of must_clear clear, else ATT_E_DENIED with a message
 * like "agent key: fixedTPM is clear". No reason word is set. */
ATT_MUST_USE enum att_rc parse_public_check_attrs(uint32_t attrs, uint32_t must_set,
                                                  uint32_t must_clear, const char *what,
                                                  struct att_err *err);

#endif
