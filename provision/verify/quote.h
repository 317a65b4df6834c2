/* What a quote must say, in both of its uses: enrolment (M2) and order (M4); and what was booted.
 */
#ifndef ATTESTD_VERIFY_QUOTE_H
#define ATTESTD_VERIFY_QUOTE_H

#include "provision/verify/ak.h"
#include "provision/verify/pcrs.h"
#include "provision/verify/policy.h"

#define VERIFY_LOGS_MAX 8

/* TPMS_CLOCK_INFO and firmwareVersion of a statement that was verified. */
struct verify_clock {
    uint64_t clock_ms;
    uint32_t reset_count;
    uint32_t restart_count;
    bool safe;
    uint64_t firmware_version;
};

struct verify_log {
    struct att_slice name;  /* "firmware" … */
    struct att_slice bytes; /* unpacked, whole: one that was not sent again comes from the cache */
};

/* The boot that is demanded. */
struct verify_boot {
    struct verify_selection selection;  /* the PCRs that were asked for */
    uint32_t logs;                      /* VERIFY_LOG_* asked for */
    bool boot_none;                     /* the profile says boot: none: no policy, and said so */
    const struct verify_policy *policy; /* NULL without boot_none: policyMissing */
    int64_t now;                        /* UTC seconds */
};

/* What the host sent. Slices are borrowed for the call. */
struct verify_quoted {
    struct att_slice attest;    /* TPMS_ATTEST */
    struct att_slice signature; /* TPMT_SIGNATURE */
    const struct verify_pcrs *pcrs;
    const struct verify_log *logs; /* at most VERIFY_LOGS_MAX, each name once */
    size_t n_logs;
};

struct verify_quote_facts {
    struct verify_clock clock;
    bool resumed;                            /* restartCount rose: suspend or hibernation */
    char boot[VERIFY_POLICY_NAME_MAX + 1];   /* policy's name, or "none" */
    uint32_t policy_version;                 /* 0 with "none" */
    uint8_t manifest_sha256[ATT_SHA256_LEN]; /* of the log manifest */
};

/* SHA-256 of the log manifest (PROTOCOL.md, "log manifest") of these logs: sorted by name. */
ATT_MUST_USE enum att_rc verify_manifest_sha256(const struct verify_log *logs, size_t n_logs,
                                                uint8_t ret[ATT_SHA256_LEN], struct att_err *err);

/* logMissing, logReplay: each log asked for is there and has a well-formed grammar; each quoted
 * PCR with events equals the replay, each without holds its reset value. Used by verify_enrol and
 * verify_agent; public for `attestctl verify` of an operator's quote. Values must be quoted ones.
 */
void verify_logs(const struct verify_boot *boot, const struct verify_pcrs *pcrs,
                 const struct verify_log *logs, size_t n_logs, struct verify_verdict *verdict);

/* An operator's quote (`attestctl quote`), judged alone: malformed, quoteMagic, quoteType,
 * quoteSignature, akHierarchy, quoteNonce, pcrSelection, pcrDigest, logMissing, logReplay,
 * policyMissing, policyExpired, bootPolicy. extra_data: 32 bytes the quote must carry. */
ATT_MUST_USE enum verify_result verify_quote(const struct verify_quoted *quoted,
                                             struct att_slice ak_pub, struct att_slice extra_data,
                                             const struct verify_boot *boot,
                                             struct verify_verdict *verdict,
                                             struct verify_quote_facts *ret);

#endif
