/* A verifier of a host's own log (attestd's state_dir/host/decisions) that has nothing of the code
 * which writes it: numbers and hashes from the lines themselves, and the heads that the issuer's
 * log holds (docs/AUDIT.md).
 *
 * Reasons of its refusals: "hostLogRecord" (a line is no record), "hostLogEdited" (a record is not
 * the one that the next was made after), "hostLogTruncated" (records are missing, or the log ends
 * before a head that was quoted), "hostLogHead" (no record of this log has the head that was
 * quoted), "hostLogRolledBack" (a later quote has an earlier head), "hostLogDropped" (a quoted head
 * is of a record that the log says it has dropped, and the caller does not take its word, or none
 * of the heads is in the log), "hostLogHost" (the anchors are of several hosts), "hostLogAnchor"
 * (not a decision that holds a head). */
#ifndef ATTESTD_CTL_HOSTLOG_H
#define ATTESTD_CTL_HOSTLOG_H

#include "attestd/base/hash.h"
#include "attestd/base/json.h"

#define HOSTLOG_LINE_MAX    ((size_t)16 << 10)
#define HOSTLOG_FILE_MAX    ((size_t)64 << 20)
#define HOSTLOG_FILES_MAX   4096
#define HOSTLOG_ANCHORS_MAX 4096

struct hostlog_record {
    uint64_t seq;
    int64_t at;
    uint8_t prev[ATT_SHA256_LEN], hash[ATT_SHA256_LEN];
    uint64_t dropped_up_to; /* of a record "dropped"; else 0 */
    uint64_t missed;        /* records that could not be written before this one */
    char kind[24];
};
/* One line, without its newline. ATT_E_PARSE hostLogRecord. */
ATT_MUST_USE enum att_rc hostlog_record_parse(struct att_slice line,
                                              struct hostlog_record *ret_record,
                                              struct att_err *err);

/* A head that the issuer's log holds. found_seq: set by hostlog_verify; 0: it is of a record that
 * the log says it has dropped. */
struct hostlog_anchor {
    uint64_t decision; /* its number; 0: a head that somebody gave */
    int64_t at;        /* of the decision; 0: not known */
    uint8_t head[ATT_SHA256_LEN];
    char host[65]; /* EK id; "" where not known */
    uint64_t found_seq;
};
/* record: the JSON of a decision `issue`; leaf: its leaf. ATT_E_PARSE hostLogAnchor. */
ATT_MUST_USE enum att_rc hostlog_anchor_parse(struct att_slice record, struct att_slice leaf,
                                              struct hostlog_anchor *ret_anchor,
                                              struct att_err *err);

struct hostlog_facts {
    uint64_t first, last; /* numbers */
    int64_t first_at, last_at;
    uint64_t missed;
    uint8_t head[ATT_SHA256_LEN];
};
/* The log in the folder dir, whole, against the anchors, which are put in the order of their
 * decisions. allow_dropped: anchors older than its beginning are passed over, if at least one is
 * found; else they are refused (hostLogDropped). */
ATT_MUST_USE enum att_rc hostlog_verify(const char *dir, struct hostlog_anchor *anchors, size_t n,
                                        bool allow_dropped, struct hostlog_facts *ret_facts,
                                        struct att_err *err);

#endif
