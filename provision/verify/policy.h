/* The boot policy: which values the quoted PCRs may have. JSON:
 *   {"name": "ovmf-guest", "version": 1, "bank": "sha256", "pcrs": {"0": ["<hex>", …], …},
 *    "logs": ["firmware"], "imaViolations": "refuse" | "allow"?, "notBefore": RFC 3339?,
 * "notAfter": RFC 3339?} name: 1–64 of [a-z0-9._-]; "none" is reserved. version: 1 … 2^31-1. bank:
 * sha256, sha384 or sha512 (SHA-1 is refused). pcrs: at least one; each with 1–64 allowed values of
 * the bank's length. logs: which logs must be there and replay; systemd and ima go on from
 * firmware, which must be there with them. imaViolations: what a violation in IMA's list is (the
 * kernel says that it could not measure); default refuse, and only with ima among the logs. Unknown
 * or repeated members are errors. */
#ifndef ATTESTD_VERIFY_POLICY_H
#define ATTESTD_VERIFY_POLICY_H

#include "attestd/base/buf.h"
#include "attestd/base/hash.h"
#include "provision/verify/verdict.h"
#include "tpm/parse/pcr.h"

#define VERIFY_POLICY_BYTES_MAX  ((size_t)256 << 10)
#define VERIFY_POLICY_NAME_MAX   64
#define VERIFY_POLICY_VALUES_MAX 64

struct verify_policy_pcr {
    size_t n_values;                     /* 0: the policy says nothing about this PCR */
    uint8_t (*values)[PARSE_DIGEST_MAX]; /* n_values × digest_len significant bytes */
};

struct verify_policy {
    char name[VERIFY_POLICY_NAME_MAX + 1];
    uint32_t version;
    uint16_t bank; /* TPM_ALG_ID */
    size_t digest_len;
    uint32_t pcr_mask; /* PCRs it names */
    struct verify_policy_pcr pcrs[PARSE_PCR_COUNT];
    uint32_t logs;                  /* set of VERIFY_LOG_* bits */
    bool ima_violations;            /* allowed */
    int64_t not_before, not_after;  /* UTC seconds; 0: open */
    uint8_t digest[ATT_SHA256_LEN]; /* SHA-256 of the file's bytes, for the record */
};

/* ATT_E_PARSE names the member; ATT_E_LIMIT beyond VERIFY_POLICY_BYTES_MAX. */
ATT_MUST_USE enum att_rc verify_policy_parse(struct att_slice json, struct verify_policy **ret,
                                             struct att_err *err);
void verify_policy_free(struct verify_policy *policy);
void verify_policy_cleanup(struct verify_policy **policy);
#define verify_autopolicy ATT_CLEANUP(verify_policy_cleanup) struct verify_policy

/* The checks policyMissing, policyExpired, bootPolicy, all findings collected. policy may be NULL:
 * policyMissing. The values must be ones that a quote covers. */
void verify_policy_check(const struct verify_policy *policy, const struct parse_pcr_set *quoted,
                         int64_t now, struct verify_verdict *verdict);

#endif
