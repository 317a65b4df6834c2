/* The host's own log of grants and refusals: JSON lines, each with the hash of the line before it.
 * Its head (the hash of the last line) rides in every statement that is quoted (hostLogHead), and
 * so the issuer's log holds what was decided here up to then (docs/AUDIT.md). Thread-safe. */
#ifndef ATTESTD_HOST_JOURNAL_H
#define ATTESTD_HOST_JOURNAL_H

#include "attestd/base/hash.h"
#include "attestd/base/json.h"

#define HOST_JOURNAL_FORM        "attestd-hostlog/1" /* hashed before each line */
#define HOST_JOURNAL_LINE_MAX    ((size_t)16 << 10)
#define HOST_JOURNAL_SEGMENT_MAX ((uint64_t)8 << 20) /* bytes; then the next file */
#define HOST_JOURNAL_SEGMENTS    16                  /* kept; the oldest goes */

struct host_journal;

struct host_journal_opts {
    const char *dir; /* its folder, made if it is not there (0700) */
    uint64_t segment_max;
    unsigned segments;
};

/* Opens the log at its end. One that does not hold together is kept aside (".bad") and a new one
 * begins, whose first record says why; a last line that a crash cut off was never quoted and is
 * taken away. ATT_E_IO: the folder cannot be used. */
ATT_MUST_USE enum att_rc host_journal_open(const struct host_journal_opts *opts,
                                           struct host_journal **ret_journal, struct att_err *err);
void host_journal_close(struct host_journal *journal); /* NULL is fine */

/* Appends a record of this kind ("granted", "refused" …); members (taken over; NULL: none) come
 * after the log's own seq, at, prev and kind, and must not have their names. Not synced. A record
 * that cannot be written is counted, and the next that can says how many are missing ("missed"). */
ATT_MUST_USE enum att_rc host_journal_add(struct host_journal *journal, const char *kind,
                                          json_t *members, struct att_err *err);
/* The head of what is on disk, synced: what may be quoted. On failure that of the last sync. */
ATT_MUST_USE enum att_rc host_journal_head(struct host_journal *journal,
                                           uint8_t ret_head[ATT_SHA256_LEN], struct att_err *err);
/* Number of the last record, and how many could not be written since the start. */
void host_journal_counts(struct host_journal *journal, uint64_t *ret_seq, uint64_t *ret_missed);

#endif
