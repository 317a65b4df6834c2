/* The measurement logs: their names, and whether they account for the quoted PCRs. */
#ifndef ATTESTD_VERIFY_LOGS_H
#define ATTESTD_VERIFY_LOGS_H

#include "provision/evidence/logs.h"
#include "provision/verify/memo.h"
#include "provision/verify/verdict.h"
#include "tpm/parse/pcr.h"

/* Sets of logs. */
#define VERIFY_LOG_FIRMWARE 1U
#define VERIFY_LOG_SYSTEMD  2U
#define VERIFY_LOG_IMA      4U

/* The PCRs that systemd in user space and IMA measure into. */
#define VERIFY_PCRS_SYSTEMD (1U << 9 | 1U << 11 | 1U << 12 | 1U << 13 | 1U << 15)
#define VERIFY_PCRS_IMA     (1U << 10)

/* "firmware" → its bit; 0 for a name that is none. */
uint32_t verify_log_bit(struct att_slice name);
const char *verify_log_name(uint32_t bit); /* "?" for a set that is not one log */

/* SHA-256 of the log manifest (docs/PROTOCOL.md). */
ATT_MUST_USE enum att_rc verify_manifest_sha256(const struct evidence_logs *logs,
                                                uint8_t ret[ATT_SHA256_LEN], struct att_err *err);

/* How far the logs were replayed. */
struct verify_replayed {
    size_t systemd_used; /* bytes of systemd's log and its tail */
    size_t ima_used;     /* bytes of IMA's list and its tail; 0: it was not replayed */
};

struct verify_logs_wanted {
    uint32_t logs;                        /* VERIFY_LOG_* */
    bool violations_allowed;              /* of IMA */
    struct verify_memo *memo;             /* what was replayed before; may be NULL */
    struct verify_replayed *ret_replayed; /* may be NULL */
};

/* The checks logMissing and logReplay: each log of the set wanted is there, with its bytes and with
 * a well-formed grammar; the quoted PCRs are what the logs lead to, one after the other: firmware,
 * systemd, IMA; a PCR without events holds its reset value. The values must be ones that a quote
 * covers. wanted 0: both are skipped. systemd's and IMA's logs go on from the firmware's, which
 * must be wanted, too, and a PCR of theirs be quoted.
 *
 * The grammar of the firmware log, for events of quoted PCRs: only types that the PC Client profile
 * has for that PCR; where the digest is by definition of the payload, it must be of this payload;
 * exactly one separator in each of PCR 0-7 that has events. (Types are not hashed: without this,
 * a rewritten type would go unseen.) Of systemd's log: tpm/parse/systemd.h. Of IMA's list: PCR 10
 * only, of which the firmware log then has no event; boot_aggregate first and of the PCRs that the
 * firmware log leads to; a violation only where violations_allowed.
 *
 * A log must be replayed as far as its length goes, which is what was signed; of its tail as much
 * as leads to the quoted values, the rest came after the quote and is not looked at. */
void verify_logs(const struct verify_logs_wanted *wanted, const struct parse_pcr_set *quoted,
                 const struct evidence_logs *logs, struct verify_verdict *verdict);

#endif
