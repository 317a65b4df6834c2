#include "tpm/parse/seal_policy.h"

#include "attestd/base/hash.h"

#include <string.h>

#include <openssl/bio.h>
#include <openssl/pem.h>

/* Part 2 §6.5.1, TPM_CC */
#define CC_POLICY_NV            0x00000149u
#define CC_POLICY_AUTHORIZE     0x0000016au
#define CC_POLICY_COUNTER_TIMER 0x0000016du
#define CC_POLICY_PCR           0x0000017fu

static void be32(uint8_t ret[4], uint32_t v)
{
    for (unsigned i = 0; i < 4; i++) {
        ret[i] = (uint8_t)(v >> (24 - 8 * i));
    }
}

/* policyDigest = H(policyDigest ‖ command ‖ a ‖ b) */
static void update(uint8_t digest[PARSE_POLICY_LEN], uint32_t command, struct att_slice a,
                   struct att_slice b)
{
    uint8_t cc[4], old[PARSE_POLICY_LEN];
    be32(cc, command);
    memcpy(old, digest, sizeof old);
    const struct att_slice parts[] = {ATT_SLICE_ARRAY(old), ATT_SLICE_ARRAY(cc), a, b};
    att_sha256_v(digest, parts, 4);
}

/* H(operandB ‖ offset ‖ operation), the args of PolicyNV and PolicyCounterTimer */
static void compare_args(struct att_slice operand, uint16_t offset, uint16_t operation,
                         uint8_t ret[ATT_SHA256_LEN])
{
    const uint8_t rest[] = {(uint8_t)(offset >> 8), (uint8_t)offset, (uint8_t)(operation >> 8),
                            (uint8_t)operation};
    const struct att_slice parts[] = {operand, ATT_SLICE_ARRAY(rest)};
    att_sha256_v(ret, parts, 2);
}

static void policy_nv(const struct parse_seal_branch *branch, uint8_t digest[PARSE_POLICY_LEN])
{
    uint8_t operand[8], args[ATT_SHA256_LEN];
    struct parse_name name;
    be32(operand, (uint32_t)(branch->counter_max >> 32));
    be32(operand + 4, (uint32_t)branch->counter_max);
    compare_args(ATT_SLICE_ARRAY(operand), 0, PARSE_EO_UNSIGNED_LE, args);
    parse_seal_counter_name(branch->counter, &name);
    update(digest, CC_POLICY_NV, ATT_SLICE_ARRAY(args), parse_name_slice(&name));
}

static void policy_reset_count(const struct parse_seal_branch *branch,
                               uint8_t digest[PARSE_POLICY_LEN])
{
    uint8_t operand[4], args[ATT_SHA256_LEN];
    be32(operand, branch->reset_count);
    compare_args(ATT_SLICE_ARRAY(operand), PARSE_TIME_RESET_COUNT_OFFSET, PARSE_EO_EQ, args);
    update(digest, CC_POLICY_COUNTER_TIMER, ATT_SLICE_ARRAY(args), (struct att_slice){0});
}

enum att_rc parse_seal_branch_digest(const struct parse_seal_branch *branch,
                                     uint8_t ret_digest[PARSE_POLICY_LEN], struct att_err *err)
{
    uint8_t raw[PARSE_PCR_RAW_LEN], digest[PARSE_POLICY_LEN] = {0};
    enum att_rc rc = parse_pcr_sel_raw(&branch->sel, raw, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (branch->counter && !parse_seal_counter_ok(branch->counter)) {
        return att_fail(
            err, ATT_E_INVAL,
            "policy counter 0x%08x: expected an owner's NV index, 0x01800000…0x01bfffff",
            branch->counter);
    }
    if (branch->counter) {
        policy_nv(branch, digest);
    }
    if (branch->has_reset) {
        policy_reset_count(branch, digest);
    }
    update(digest, CC_POLICY_PCR, ATT_SLICE_ARRAY(raw), ATT_SLICE_ARRAY(branch->pcr_digest));
    memcpy(ret_digest, digest, sizeof digest);
    return ATT_OK;
}

void parse_seal_authorize(const struct parse_name *key, struct att_slice ref,
                          uint8_t ret_digest[PARSE_POLICY_LEN])
{
    uint8_t inner[PARSE_POLICY_LEN] = {0};
    update(inner, CC_POLICY_AUTHORIZE, parse_name_slice(key), (struct att_slice){0});
    const struct att_slice parts[] = {ATT_SLICE_ARRAY(inner), ref};
    att_sha256_v(ret_digest, parts, 2);
}

enum att_rc parse_seal_policy_key(const EVP_PKEY *key, struct parse_public *ret_pub,
                                  struct att_err *err)
{
    struct parse_public pub;
    memset(&pub, 0, sizeof pub);
    if (parse_public_set_pkey(&pub, key, NULL) != ATT_OK || pub.type != PARSE_ALG_ECC ||
        pub.curve != PARSE_ECC_P256) {
        return att_fail(err, ATT_E_UNSUPPORTED, "policy key: expected an EC key on P-256");
    }
    pub.name_alg = PARSE_ALG_SHA256;
    pub.attrs = PARSE_OA_USER_WITH_AUTH | PARSE_OA_SIGN;
    pub.sym.alg = PARSE_ALG_NULL;
    pub.scheme.alg = PARSE_ALG_NULL;
    pub.kdf.alg = PARSE_ALG_NULL;
    *ret_pub = pub;
    return ATT_OK;
}

enum att_rc parse_seal_policy_key_pem(struct att_slice pem, struct parse_public *ret_pub,
                                      struct att_err *err)
{
    if (pem.len > PARSE_POLICY_KEY_PEM_MAX) {
        return att_fail(err, ATT_E_LIMIT, "policy key: %zu bytes of PEM, at most %d", pem.len,
                        PARSE_POLICY_KEY_PEM_MAX);
    }
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    EVP_PKEY *key = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    enum att_rc rc =
        key ? parse_seal_policy_key(key, ret_pub, err)
            : att_fail_openssl(err, ATT_E_PARSE, "policy key: expected a PEM block PUBLIC KEY");
    EVP_PKEY_free(key);
    return rc;
}

void parse_seal_parent_template(const uint8_t policy[PARSE_POLICY_LEN],
                                struct parse_public *ret_pub)
{
    parse_public_srk_template(ret_pub, 0);
    ret_pub->attrs &= ~PARSE_OA_USER_WITH_AUTH;
    ret_pub->policy_len = PARSE_POLICY_LEN;
    memcpy(ret_pub->policy, policy, PARSE_POLICY_LEN);
}

bool parse_seal_counter_ok(uint32_t index)
{
    return index >= 0x01800000u && index <= 0x01bfffffu;
}

/* nameAlg ‖ H(TPMS_NV_PUBLIC) (Part 1 clause 16; Part 2 §13.5) */
static void counter_name(uint32_t index, uint32_t attributes, struct parse_name *ret_name)
{
    uint8_t area[14] = {0}; /* nvIndex, nameAlg, attributes, authPolicy (empty), dataSize */
    be32(area, index);
    area[5] = (uint8_t)PARSE_ALG_SHA256;
    be32(area + 6, attributes);
    area[13] = 8;
    ret_name->bytes[0] = 0;
    ret_name->bytes[1] = (uint8_t)PARSE_ALG_SHA256;
    att_sha256(ret_name->bytes + 2, ATT_SLICE_ARRAY(area));
    ret_name->len = 2 + ATT_SHA256_LEN;
}

void parse_seal_counter_name(uint32_t index, struct parse_name *ret_name)
{
    counter_name(index, PARSE_SEAL_COUNTER_ATTRS | PARSE_NV_WRITTEN, ret_name);
}

void parse_seal_counter_unwritten_name(uint32_t index, struct parse_name *ret_name)
{
    counter_name(index, PARSE_SEAL_COUNTER_ATTRS, ret_name);
}
