/* Policies of a storage parent as digests: what TPM2_Policy* commands compute, computed without a
 * TPM (TCG TPM 2.0 Part 3, clause 23), so that a policy can be signed anywhere and an issuer can
 * tell which one a parent has. All by SHA-256.
 *
 *   parent.authPolicy = PolicyAuthorize(policy key's Name, policyRef)
 *   approved branch   = [PolicyNV(counter ≤ version)] [PolicyCounterTimer(resetCount = N)]
 *                       PolicyPCR(selection, digest), in this order */
#ifndef TPM_PARSE_SEAL_POLICY_H
#define TPM_PARSE_SEAL_POLICY_H

#include "tpm/parse/name.h"
#include "tpm/parse/pcr.h"
#include "tpm/parse/public.h"

#define PARSE_POLICY_LEN     32
#define PARSE_POLICY_REF_MAX 32 /* bytes of a policyRef; the TPM would take as many as a digest */

/* Part 2 §6.5.2 TPM_EO: "unsigned, less than or equal", "equal". */
#define PARSE_EO_EQ          ((uint16_t)0x0000)
#define PARSE_EO_UNSIGNED_LE ((uint16_t)0x0009)

/* clockInfo.resetCount within TPMS_TIME_INFO (Part 2 §10.11.6): behind time and clock. */
#define PARSE_TIME_RESET_COUNT_OFFSET 16

/* What a branch asks for; {0} with a selection is PolicyPCR alone. */
struct parse_seal_branch {
    struct parse_pcr_sel sel;
    uint8_t pcr_digest[PARSE_POLICY_LEN]; /* SHA-256 over the values, whatever the bank */
    uint32_t counter;                     /* NV index of the host's policy counter; 0: none */
    uint64_t counter_max;                 /* it may be at most this */
    bool has_reset;
    uint32_t reset_count; /* TPM's resetCount must be this: one boot of one TPM */
};

/* The policyDigest of a session that went through the branch: what a policy key approves. */
ATT_MUST_USE enum att_rc parse_seal_branch_digest(const struct parse_seal_branch *branch,
                                                  uint8_t ret_digest[PARSE_POLICY_LEN],
                                                  struct att_err *err);
/* authPolicy of a parent that any branch approved by this key for this ref opens. */
void parse_seal_authorize(const struct parse_name *key, struct att_slice ref,
                          uint8_t ret_digest[PARSE_POLICY_LEN]);

/* The policy key as the TPM gets it by LoadExternal, the one template for signing tool, keyd and
 * issuer: its attributes and schemes are part of its Name. ECC P-256, SHA-256, userWithAuth sign,
 * null scheme. ATT_E_UNSUPPORTED for another kind of key. */
ATT_MUST_USE enum att_rc parse_seal_policy_key(const EVP_PKEY *key, struct parse_public *ret_pub,
                                               struct att_err *err);

/* The same from a PEM SubjectPublicKeyInfo ("PUBLIC KEY"), as it stands in a file. ATT_E_PARSE. */
#define PARSE_POLICY_KEY_PEM_MAX 4096
ATT_MUST_USE enum att_rc parse_seal_policy_key_pem(struct att_slice pem,
                                                   struct parse_public *ret_pub,
                                                   struct att_err *err);

/* A parent: storage, P-256, AES-128-CFB, userWithAuth clear, this authPolicy, noDA; the unique is
 * empty. Children are what parse_public_agent_template and the sealed template say. */
void parse_seal_parent_template(const uint8_t policy[PARSE_POLICY_LEN],
                                struct parse_public *ret_pub);

/* The host's policy counter: an owner-defined NV counter, AUTHWRITE, OWNERREAD, NO_DA. Its Name
 * once it was written is the same on every host, since the authValue is not part of it (Part 1
 * clause 16); it is what PolicyNV names. index: 0x01800000 … 0x01bfffff, the owner's (TCG Registry
 * of Reserved TPM 2.0 Handles, 2.2). */
#define PARSE_SEAL_COUNTER_DEFAULT ((uint32_t)0x01804154)
#define PARSE_SEAL_COUNTER_ATTRS   ((uint32_t)0x02020014) /* without WRITTEN */
#define PARSE_NV_WRITTEN           ((uint32_t)0x20000000)
bool parse_seal_counter_ok(uint32_t index);
void parse_seal_counter_name(uint32_t index, struct parse_name *ret_name);
/* Its Name between NV_DefineSpace and the first NV_Increment: no policy names this one. */
void parse_seal_counter_unwritten_name(uint32_t index, struct parse_name *ret_name);

#endif
