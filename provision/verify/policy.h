/* The boot policy: what a good boot is. JSON:
 *   {"format": 1 | 2?, "name": "ovmf-guest", "version": 1, "bank": "sha256",
 *    "components": […], "unjudged": [1, 5]?, "severities": {"eventUnexpected": "warn", …}?,
 *    "pcrs": {"0": ["<hex>", …], …}, "logs": ["firmware"],
 *    "imaViolations": "refuse" | "allow"?, "notBefore": RFC 3339?, "notAfter": RFC 3339?}
 * format: 2 for policies with components (components.h), 1 (the default) for those of PCR values.
 * name: 1–64 of [a-z0-9._-]; "none" is reserved. version: 1 … 2^31-1. bank: sha256, sha384 or
 * sha512 (SHA-1 is refused). pcrs: each with 1–64 allowed values of the bank's length; format 1
 * must have it, format 2 may, beside its components. unjudged: PCRs whose events and values are
 * left open; whatever else the quote covers has to be accounted for. severities: of findings
 * (findings.h) whose component has none. logs: which logs must be there and replay; systemd and ima
 * go on from firmware, which must be there with them, and those of the components must be among
 * them. imaViolations: what a violation in IMA's list is (the kernel says that it could not
 * measure); default refuse, and only with ima among the logs. Unknown or repeated members are
 * errors.
 *
 * A signed policy is a flattened JWS (RFC 7515 §7.2.2) over that JSON, {"protected", "payload",
 * "signature"}, whose protected header is exactly {"alg": "ES256" | "ES384", "typ":
 * "attestd-policy", "spki": base64url DER SubjectPublicKeyInfo of the key (P-256 or P-384)}. The
 * signature is checked when the policy is read; whether the key may sign is the profile's word. */
#ifndef ATTESTD_VERIFY_POLICY_H
#define ATTESTD_VERIFY_POLICY_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"
#include "provision/verify/components.h"
#include "provision/verify/imarule.h"
#include "provision/verify/logs.h"
#include "provision/verify/verdict.h"

#define VERIFY_POLICY_BYTES_MAX  ((size_t)256 << 10)
#define VERIFY_POLICY_JSON_MAX   32768 /* values */
#define VERIFY_POLICY_NAME_MAX   64
#define VERIFY_POLICY_VALUES_MAX 64
#define VERIFY_SIGNERS_MAX       16

struct verify_policy_pcr {
    size_t n_values;                     /* 0: the policy says nothing about this PCR */
    uint8_t (*values)[PARSE_DIGEST_MAX]; /* n_values × digest_len significant bytes */
};

struct verify_policy {
    char name[VERIFY_POLICY_NAME_MAX + 1];
    uint32_t version;
    uint16_t bank; /* TPM_ALG_ID */
    size_t digest_len;
    unsigned format;   /* 1 or 2 */
    uint32_t pcr_mask; /* PCRs it names by value */
    struct verify_policy_pcr pcrs[PARSE_PCR_COUNT];
    uint32_t logs;       /* set of VERIFY_LOG_* bits */
    bool ima_violations; /* allowed */
    struct verify_imarule ima;
    int64_t not_before, not_after;  /* UTC seconds; 0: open */
    uint8_t digest[ATT_SHA256_LEN]; /* SHA-256 of the file's bytes, for the record */
    struct verify_components components;
    uint32_t unjudged; /* PCRs left open */
    enum verify_severity severities[VERIFY_FINDING_COUNT];
    bool is_signed;
    uint8_t signer[ATT_SHA256_LEN]; /* SHA-256 of the signing key's SubjectPublicKeyInfo */
    json_t *json;                   /* the policy itself; texts are borrowed from it */
};

/* Signed or not. ATT_E_PARSE names the member; ATT_E_LIMIT beyond VERIFY_POLICY_BYTES_MAX.
 * ATT_E_AUTH with reason "policySigner": the signature does not hold. */
ATT_MUST_USE enum att_rc verify_policy_parse(struct att_slice json, struct verify_policy **ret,
                                             struct att_err *err);
void verify_policy_free(struct verify_policy *policy);
void verify_policy_cleanup(struct verify_policy **policy);
#define verify_autopolicy ATT_CLEANUP(verify_policy_cleanup) struct verify_policy

/* The PCRs it speaks of: by components, by value, as unjudged. */
uint32_t verify_policy_pcrs(const struct verify_policy *policy);

/* The values that a PCR may have by this policy at this time, each once: those of pcrs, or where
 * the PCR has components the extensions of start (NULL: its reset value; PCR 0's depends on the
 * locality it was started from) by every combination of variants in their windows; none where no
 * variant is. ATT_E_UNSUPPORTED where they cannot be told (a variant that is no digest, a component
 * that repeats), ATT_E_LIMIT above VERIFY_POLICY_VALUES_MAX, ATT_E_NOTFOUND where the policy has no
 * rule for the PCR. What the policy has in both is not looked at twice: the list is the tighter. */
ATT_MUST_USE enum att_rc verify_policy_values(
    const struct verify_policy *policy, unsigned pcr, int64_t now, const uint8_t *start,
    uint8_t ret[VERIFY_POLICY_VALUES_MAX][PARSE_DIGEST_MAX], size_t *ret_n, struct att_err *err);

/* By what, and in which light, a boot is judged. */
struct verify_policy_in {
    const struct verify_policy *policy; /* NULL: policyMissing */
    /* SHA-256 of the SubjectPublicKeyInfo of each key that may sign; 0: unsigned ones are taken */
    const uint8_t (*signers)[ATT_SHA256_LEN];
    size_t n_signers;
    enum verify_mode mode;
    int64_t now;                        /* UTC seconds */
    const struct parse_pcr_set *quoted; /* values that a quote covers, to which the logs replay */
    struct att_slice firmware, systemd; /* those logs as far as they were replayed; empty: none */
    /* IMA's, the same, and by which digests it is known; for a policy with an ima rule. */
    struct att_slice ima;
    const struct evidence_log *ima_log;
    struct verify_memo *memo; /* what was judged before; may be NULL */
};
/* The checks policyMissing, policyUnsigned, policySigner, policyNotYetValid, policyExpired,
 * bootPolicy; findings are all collected in the verdict. Where the mode is not enforce, findings
 * that refuse make bootPolicy a skipped check that says so. */
void verify_policy_check(const struct verify_policy_in *in, struct verify_verdict *verdict);
/* Adds a finding with the severity that the policy gives it (finding->severity set: that). */
void verify_policy_finding(const struct verify_policy *policy, const struct verify_finding *finding,
                           struct verify_verdict *verdict);

#endif
