/* What we ask of an EK, an AK, an agent's key and a storage parent. */
#include "tpm/parse/public.h"

#include <string.h>

static const struct {
    uint32_t bit;
    const char *name;
} attr_names[] = {
    {PARSE_OA_FIXED_TPM, "fixedTPM"},
    {PARSE_OA_ST_CLEAR, "stClear"},
    {PARSE_OA_FIXED_PARENT, "fixedParent"},
    {PARSE_OA_SENSITIVE_DATA_ORIGIN, "sensitiveDataOrigin"},
    {PARSE_OA_USER_WITH_AUTH, "userWithAuth"},
    {PARSE_OA_ADMIN_WITH_POLICY, "adminWithPolicy"},
    {PARSE_OA_FIRMWARE_LIMITED, "firmwareLimited"},
    {PARSE_OA_SVN_LIMITED, "svnLimited"},
    {PARSE_OA_NO_DA, "noDA"},
    {PARSE_OA_ENCRYPTED_DUPLICATION, "encryptedDuplication"},
    {PARSE_OA_RESTRICTED, "restricted"},
    {PARSE_OA_DECRYPT, "decrypt"},
    {PARSE_OA_SIGN, "sign"},
    {PARSE_OA_X509_SIGN, "x509sign"},
};

static const char *attr_name(uint32_t bit)
{
    for (size_t i = 0; i < sizeof attr_names / sizeof attr_names[0]; i++) {
        if (attr_names[i].bit == bit) {
            return attr_names[i].name;
        }
    }
    return "a reserved bit";
}

enum att_rc parse_public_check_attrs(uint32_t attrs, uint32_t must_set, uint32_t must_clear,
                                     const char *what, struct att_err *err)
{
    for (unsigned i = 0; i < 32; i++) {
        uint32_t bit = (uint32_t)1 << i;
        if ((must_set & bit) && !(attrs & bit)) {
            return att_fail(err, ATT_E_DENIED, "%s: %s is clear", what, attr_name(bit));
        }
        if ((must_clear & bit) && (attrs & bit)) {
            return att_fail(err, ATT_E_DENIED, "%s: %s is set", what, attr_name(bit));
        }
    }
    return ATT_OK;
}

/* ---- endorsement keys ----------------------------------------------------------------------- */

/* PolicySecret(TPM_RH_ENDORSEMENT); EK Credential Profile B.6.2, B.6.3, B.6.5. */
static const uint8_t policy_a_sha256[32] = {
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24,
    0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
};
static const uint8_t policy_b_sha256[32] = {
    0xca, 0x3d, 0x0a, 0x99, 0xa2, 0xb9, 0x39, 0x06, 0xf7, 0xa3, 0x34, 0x24, 0x14, 0xef, 0xcf, 0xb3,
    0xa3, 0x85, 0xd4, 0x4c, 0xd1, 0xfd, 0x45, 0x90, 0x89, 0xd1, 0x9b, 0x50, 0x71, 0xc0, 0xb7, 0xa0,
};
static const uint8_t policy_b_sha384[48] = {
    0xb2, 0x6e, 0x7d, 0x28, 0xd1, 0x1a, 0x50, 0xbc, 0x53, 0xd8, 0x82, 0xbc, 0xf5, 0xfd, 0x3a, 0x1a,
    0x07, 0x41, 0x48, 0xbb, 0x35, 0xd3, 0xb4, 0xe4, 0xcb, 0x1c, 0x0a, 0xd9, 0xbd, 0xe4, 0x19, 0xca,
    0xcb, 0x47, 0xba, 0x09, 0x69, 0x96, 0x46, 0x15, 0x0f, 0x9f, 0xc0, 0x00, 0xf3, 0xf8, 0x0e, 0x12,
};

#define EK_ATTRS                                                                                   \
    (PARSE_OA_FIXED_TPM | PARSE_OA_FIXED_PARENT | PARSE_OA_SENSITIVE_DATA_ORIGIN |                 \
     PARSE_OA_ADMIN_WITH_POLICY | PARSE_OA_RESTRICTED | PARSE_OA_DECRYPT)

static const struct ek_row {
    enum parse_ek_template which;
    const char *name;
    uint16_t type, name_alg, sym_bits;
    uint16_t size; /* RSA bits or curve */
    const uint8_t *policy;
    bool high;
} ek_rows[] = {
    {PARSE_EK_L1, "L-1", PARSE_ALG_RSA, PARSE_ALG_SHA256, 128, 2048, policy_a_sha256, false},
    {PARSE_EK_L2, "L-2", PARSE_ALG_ECC, PARSE_ALG_SHA256, 128, PARSE_ECC_P256, policy_a_sha256,
     false},
    {PARSE_EK_H1, "H-1", PARSE_ALG_RSA, PARSE_ALG_SHA256, 128, 2048, policy_b_sha256, true},
    {PARSE_EK_H2, "H-2", PARSE_ALG_ECC, PARSE_ALG_SHA256, 128, PARSE_ECC_P256, policy_b_sha256,
     true},
    {PARSE_EK_H3, "H-3", PARSE_ALG_ECC, PARSE_ALG_SHA384, 256, PARSE_ECC_P384, policy_b_sha384,
     true},
    {PARSE_EK_H6, "H-6", PARSE_ALG_RSA, PARSE_ALG_SHA384, 256, 3072, policy_b_sha384, true},
};
#define N_EK_ROWS (sizeof ek_rows / sizeof ek_rows[0])

static const struct ek_row *ek_row(enum parse_ek_template which)
{
    for (size_t i = 0; i < N_EK_ROWS; i++) {
        if (ek_rows[i].which == which) {
            return &ek_rows[i];
        }
    }
    return NULL;
}

const char *parse_ek_template_name(enum parse_ek_template which)
{
    const struct ek_row *row = ek_row(which);
    return row ? row->name : "none";
}

enum att_rc parse_public_ek_template(enum parse_ek_template which, struct parse_public *ret_pub,
                                     struct att_err *err)
{
    const struct ek_row *row = ek_row(which);
    if (!row) {
        return att_fail(err, ATT_E_INVAL, "EK template: %d is none", (int)which);
    }
    struct parse_public pub;
    memset(&pub, 0, sizeof pub);
    pub.type = row->type;
    pub.name_alg = row->name_alg;
    pub.attrs = EK_ATTRS | (row->high ? PARSE_OA_USER_WITH_AUTH : 0);
    pub.policy_len = parse_alg_digest_len(row->name_alg);
    memcpy(pub.policy, row->policy, pub.policy_len);
    pub.sym = (struct parse_sym){PARSE_ALG_AES, row->sym_bits, PARSE_ALG_CFB};
    pub.scheme.alg = PARSE_ALG_NULL;
    if (row->type == PARSE_ALG_RSA) {
        pub.key_bits = row->size;
        pub.unique_len = row->high ? 0 : row->size / 8u;
    } else {
        pub.curve = row->size;
        pub.kdf.alg = PARSE_ALG_NULL;
        pub.x_len = pub.y_len = row->high ? 0 : 32;
    }
    *ret_pub = pub;
    return ATT_OK;
}

static enum att_rc template_wrong(struct att_err *err, const char *member)
{
    enum att_rc rc =
        att_fail(err, ATT_E_DENIED, "EK: its %s is that of no known EK template", member);
    att_err_reason(err, "ekTemplate");
    return rc;
}

/* The rows of this type, size and nameAlg; one of them has the authPolicy. */
static const struct ek_row *ek_row_of(const struct parse_public *pub, const char **ret_wrong)
{
    uint16_t size = pub->type == PARSE_ALG_RSA ? pub->key_bits : pub->curve;
    *ret_wrong = pub->type == PARSE_ALG_KEYEDHASH ? "type" : "type, size or nameAlg";
    for (size_t i = 0; i < N_EK_ROWS; i++) {
        const struct ek_row *row = &ek_rows[i];
        if (row->type != pub->type || row->size != size || row->name_alg != pub->name_alg) {
            continue;
        }
        *ret_wrong = "authPolicy";
        if (att_slice_eq(ATT_SLICE(pub->policy, pub->policy_len),
                         ATT_SLICE(row->policy, parse_alg_digest_len(row->name_alg)))) {
            return row;
        }
    }
    return NULL;
}

enum att_rc parse_public_check_ek(const struct parse_public *pub, enum parse_ek_template *ret_which,
                                  struct att_err *err)
{
    const char *wrong = NULL;
    const struct ek_row *row = ek_row_of(pub, &wrong);
    if (!row) {
        return template_wrong(err, wrong);
    }
    uint32_t may = row->high ? PARSE_OA_USER_WITH_AUTH : 0;
    if (parse_public_check_attrs(pub->attrs, EK_ATTRS, ~(EK_ATTRS | may), "EK", err) != ATT_OK) {
        att_err_reason(err, "ekTemplate");
        return ATT_E_DENIED;
    }
    if (pub->sym.alg != PARSE_ALG_AES || pub->sym.key_bits != row->sym_bits ||
        pub->sym.mode != PARSE_ALG_CFB) {
        return template_wrong(err, "symmetric algorithm");
    }
    if (pub->scheme.alg != PARSE_ALG_NULL) {
        return template_wrong(err, "scheme");
    }
    if (pub->type == PARSE_ALG_RSA && pub->exponent != 0) {
        return template_wrong(err, "exponent");
    }
    if (pub->type == PARSE_ALG_ECC && pub->kdf.alg != PARSE_ALG_NULL) {
        return template_wrong(err, "kdf");
    }
    *ret_which = row->which;
    return ATT_OK;
}

/* ---- our own keys --------------------------------------------------------------------------- */

static void p256_base(struct parse_public *pub, uint32_t attrs)
{
    memset(pub, 0, sizeof *pub);
    pub->type = PARSE_ALG_ECC;
    pub->name_alg = PARSE_ALG_SHA256;
    pub->attrs = attrs;
    pub->sym.alg = PARSE_ALG_NULL;
    pub->scheme.alg = PARSE_ALG_NULL;
    pub->curve = PARSE_ECC_P256;
    pub->kdf.alg = PARSE_ALG_NULL;
}

#define OWN_ATTRS                                                                                  \
    (PARSE_OA_FIXED_TPM | PARSE_OA_FIXED_PARENT | PARSE_OA_SENSITIVE_DATA_ORIGIN |                 \
     PARSE_OA_USER_WITH_AUTH | PARSE_OA_NO_DA)
#define AK_ATTRS (OWN_ATTRS | PARSE_OA_RESTRICTED | PARSE_OA_SIGN)

void parse_public_ak_template(struct parse_public *ret_pub)
{
    p256_base(ret_pub, AK_ATTRS);
    ret_pub->scheme = (struct parse_scheme){PARSE_ALG_ECDSA, PARSE_ALG_SHA256, 0};
}

void parse_public_ak_rsa_template(struct parse_public *ret_pub)
{
    *ret_pub = (struct parse_public){.type = PARSE_ALG_RSA,
                                     .name_alg = PARSE_ALG_SHA256,
                                     .attrs = AK_ATTRS,
                                     .sym.alg = PARSE_ALG_NULL,
                                     .scheme = {PARSE_ALG_RSASSA, PARSE_ALG_SHA256, 0},
                                     .key_bits = 2048};
}

void parse_public_agent_template(struct parse_public *ret_pub)
{
    p256_base(ret_pub, OWN_ATTRS | PARSE_OA_SIGN);
}

void parse_public_srk_template(struct parse_public *ret_pub, int zero_unique)
{
    p256_base(ret_pub, OWN_ATTRS | PARSE_OA_RESTRICTED | PARSE_OA_DECRYPT);
    ret_pub->sym = (struct parse_sym){PARSE_ALG_AES, 128, PARSE_ALG_CFB};
    ret_pub->x_len = ret_pub->y_len = zero_unique ? 32 : 0;
}

/* Sets the reason of the refusal in hand. */
static enum att_rc refused(struct att_err *err, const char *reason)
{
    att_err_reason(err, reason);
    return ATT_E_DENIED;
}

static enum att_rc check_p256(const struct parse_public *pub, const char *what, struct att_err *err)
{
    if (pub->type != PARSE_ALG_ECC || pub->curve != PARSE_ECC_P256) {
        return att_fail(err, ATT_E_DENIED, "%s: not an ECC P-256 key", what);
    }
    if (pub->policy_len != 0) {
        return att_fail(err, ATT_E_DENIED, "%s: authPolicy is not empty", what);
    }
    if (pub->sym.alg != PARSE_ALG_NULL) {
        return att_fail(err, ATT_E_DENIED, "%s: it has a symmetric algorithm", what);
    }
    if (pub->kdf.alg != PARSE_ALG_NULL) {
        return att_fail(err, ATT_E_DENIED, "%s: it has a kdf", what);
    }
    return ATT_OK;
}

enum att_rc parse_public_check_ak(const struct parse_public *pub, struct att_err *err)
{
    if (parse_public_check_attrs(pub->attrs, AK_ATTRS, ~AK_ATTRS, "AK", err) != ATT_OK ||
        check_p256(pub, "AK", err) != ATT_OK) {
        return refused(err, "akAttributes");
    }
    if (pub->name_alg != PARSE_ALG_SHA256) {
        (void)att_fail(err, ATT_E_DENIED, "AK: nameAlg is not SHA-256");
        return refused(err, "akAttributes");
    }
    if (pub->scheme.alg != PARSE_ALG_ECDSA || pub->scheme.hash != PARSE_ALG_SHA256) {
        (void)att_fail(err, ATT_E_DENIED, "AK: scheme is not ecdsa with SHA-256");
        return refused(err, "akAttributes");
    }
    return ATT_OK;
}

enum att_rc parse_public_check_agent(const struct parse_public *pub, struct att_err *err)
{
    uint32_t set = PARSE_OA_FIXED_TPM | PARSE_OA_FIXED_PARENT | PARSE_OA_SENSITIVE_DATA_ORIGIN |
                   PARSE_OA_USER_WITH_AUTH | PARSE_OA_SIGN;
    uint32_t clear = PARSE_OA_RESTRICTED | PARSE_OA_DECRYPT | PARSE_OA_ADMIN_WITH_POLICY |
                     PARSE_OA_ENCRYPTED_DUPLICATION | PARSE_OA_X509_SIGN;
    if (parse_public_check_attrs(pub->attrs, set, clear, "agent key", err) != ATT_OK ||
        check_p256(pub, "agent key", err) != ATT_OK) {
        return refused(err, "keyAttributes");
    }
    bool hash_ok = pub->scheme.hash == PARSE_ALG_SHA256 || pub->scheme.hash == PARSE_ALG_SHA384 ||
                   pub->scheme.hash == PARSE_ALG_SHA512;
    if (pub->scheme.alg != PARSE_ALG_NULL && !(pub->scheme.alg == PARSE_ALG_ECDSA && hash_ok)) {
        (void)att_fail(err, ATT_E_DENIED, "agent key: scheme is neither null nor ecdsa with SHA-2");
        return refused(err, "keyAttributes");
    }
    return ATT_OK;
}

enum att_rc parse_public_check_storage(const struct parse_public *pub, struct att_err *err)
{
    uint32_t set = PARSE_OA_FIXED_TPM | PARSE_OA_FIXED_PARENT | PARSE_OA_SENSITIVE_DATA_ORIGIN |
                   PARSE_OA_RESTRICTED | PARSE_OA_DECRYPT;
    uint32_t clear = PARSE_OA_SIGN | PARSE_OA_ENCRYPTED_DUPLICATION | PARSE_OA_X509_SIGN;
    if (parse_public_check_attrs(pub->attrs, set, clear, "parent key", err) != ATT_OK) {
        return refused(err, "keyParent");
    }
    if (pub->type == PARSE_ALG_KEYEDHASH || pub->sym.alg != PARSE_ALG_AES) {
        (void)att_fail(err, ATT_E_DENIED, "parent key: not a storage key with AES-CFB");
        return refused(err, "keyParent");
    }
    return ATT_OK;
}
