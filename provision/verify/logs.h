/* The measurement logs: their names, and whether they account for the quoted PCRs. */
#ifndef ATTESTD_VERIFY_LOGS_H
#define ATTESTD_VERIFY_LOGS_H

#include "attestd/base/hash.h"
#include "attestd/base/slice.h"
#include "provision/verify/verdict.h"
#include "tpm/parse/pcr.h"

#define VERIFY_LOGS_MAX 8

/* Sets of logs. */
#define VERIFY_LOG_FIRMWARE 1U
#define VERIFY_LOG_SYSTEMD  2U
#define VERIFY_LOG_IMA      4U

/* "firmware" → its bit; 0 for a name that is none. */
uint32_t verify_log_bit(struct att_slice name);
const char *verify_log_name(uint32_t bit); /* "?" for a set that is not one log */

struct verify_log {
    struct att_slice name;  /* "firmware" … */
    struct att_slice bytes; /* unpacked, whole: one that was not sent again comes from the cache */
};

/* SHA-256 of the log manifest (docs/PROTOCOL.md) of these logs, in whichever order they come. */
ATT_MUST_USE enum att_rc verify_manifest_sha256(const struct verify_log *logs, size_t n_logs,
                                                uint8_t ret[ATT_SHA256_LEN], struct att_err *err);

/* The checks logMissing and logReplay: each log of the set wanted is there and well-formed; each
 * quoted PCR with events has the replayed value, each without holds its reset value. The values
 * must be ones that a quote covers. wanted 0: both are skipped. */
void verify_logs(uint32_t wanted, const struct parse_pcr_set *quoted, const struct verify_log *logs,
                 size_t n_logs, struct verify_verdict *verdict);

#endif
