/* What a quote must say, in both of its uses: enrolment (M2) and order (M4); and what was booted.
 */
#ifndef ATTESTD_VERIFY_QUOTE_H
#define ATTESTD_VERIFY_QUOTE_H

#include "provision/verify/ak.h"
#include "provision/verify/logs.h"
#include "provision/verify/policy.h"

/* TPMS_CLOCK_INFO and firmwareVersion of a statement that was verified. */
struct verify_clock {
    uint64_t clock_ms;
    uint32_t reset_count;
    uint32_t restart_count;
    bool safe;
    uint64_t firmware_version;
};

/* The boot that is demanded. */
struct verify_boot {
    struct parse_pcr_sel selection;     /* the PCRs that were asked for */
    uint32_t logs;                      /* VERIFY_LOG_* asked for */
    bool boot_none;                     /* the profile says boot: none: no policy, and said so */
    const struct verify_policy *policy; /* NULL without boot_none: policyMissing */
    /* SHA-256 of the SubjectPublicKeyInfo of who may sign policies; 0: unsigned ones are taken. */
    const uint8_t (*signers)[ATT_SHA256_LEN];
    size_t n_signers;
    enum verify_mode mode;    /* what the policy's findings do */
    int64_t now;              /* UTC seconds */
    struct verify_memo *memo; /* of IMA lists replayed before; may be NULL */
};

/* What the host sent. Slices are borrowed for the call. */
struct verify_quoted {
    struct att_slice attest;    /* TPMS_ATTEST */
    struct att_slice signature; /* TPMT_SIGNATURE */
    const struct parse_pcr_set *pcrs;
    /* Those not sent again are supplied from the cache first (evidence_logs_supply). */
    const struct evidence_logs *logs;
};

/* What happened to the TPM since an earlier statement. A rising restartCount alone does not tell a
 * resume from a hibernation: only the PCRs do (TCG TPM 2.0 Part 1, clause 12.2: a TPM Resume keeps
 * them, a TPM Restart starts them again). */
enum verify_change {
    VERIFY_CHANGE_FIRST,     /* there is no earlier statement */
    VERIFY_CHANGE_SAME_BOOT, /* both counters as before */
    VERIFY_CHANGE_RESUMED,   /* restartCount rose; the PCRs are as they were, or go on from there */
    VERIFY_CHANGE_HIBERNATED, /* restartCount rose; the log shows that PCRs started again */
    VERIFY_CHANGE_RESTARTED,  /* restartCount rose; earlier PCRs or a log are lacking to tell which
                               */
    VERIFY_CHANGE_REBOOTED,   /* resetCount rose */
};
/* "first", "sameBoot", "resumed", "hibernated", "restarted", "rebooted". */
const char *verify_change_word(enum verify_change change);
/* before: the PCRs quoted then, NULL when they are not on record. quoted: a quote whose log, where
 * there is one, was found to replay to its PCRs. */
enum verify_change verify_change_since(const struct verify_clock *previous,
                                       const struct parse_pcr_set *before,
                                       const struct verify_clock *now,
                                       const struct verify_quoted *quoted);

struct verify_quote_facts {
    struct verify_clock clock;
    char boot[VERIFY_POLICY_NAME_MAX + 1];   /* policy's name, or "none" */
    uint32_t policy_version;                 /* 0 with "none" */
    uint8_t manifest_sha256[ATT_SHA256_LEN]; /* of the log manifest */
};

/* An operator's quote (`attestctl quote`), judged alone: malformed, akAttributes, quoteMagic,
 * quoteType, quoteSignature, akHierarchy, quoteNonce, pcrSelection, pcrDigest, logMissing,
 * logReplay, policyMissing … bootPolicy. extra_data: 32 bytes the quote must carry.
 */
ATT_MUST_USE enum verify_result verify_quote(const struct verify_quoted *quoted,
                                             struct att_slice ak_pub, struct att_slice extra_data,
                                             const struct verify_boot *boot,
                                             struct verify_verdict *verdict,
                                             struct verify_quote_facts *ret);

#endif
