/* What attestd writes into the host's own log (journal.h), and the head that it lets quote. */
#ifndef ATTESTD_HOST_NOTE_H
#define ATTESTD_HOST_NOTE_H

#include "attestd/host/decision.h"
#include "attestd/host/journal.h"

struct host_notes {
    pthread_mutex_t lock; /* journal and tried_ms */
    struct host_journal *journal;
    int64_t tried_ms; /* when it was tried to be opened last; 0: never */
};

void host_notes_open(struct host *host);
void host_notes_close(struct host *host);
/* One record. A log that cannot be written holds up nothing: the error stands in the journal of
 * the system, and the next record counts what is missing. members: taken over. */
void host_note(struct host *host, const char *kind, json_t *members);
/* The same for what may not happen without a record: it is on the disk when this returns ATT_OK
 * (fdatasync), so that no power cut takes it back. ATT_E_UNREACHABLE hostLog; ATT_E_NOMEM, also for
 * members NULL. */
ATT_MUST_USE enum att_rc host_note_must(struct host *host, const char *kind, json_t *members,
                                        struct att_err *err);
/* A caller was taken for an agent, or was not. left_out: refusals since the record before that had
 * none of their own. */
void host_note_granted(struct host *host, const struct host_decision *decision,
                       const char *service);
void host_note_refused(struct host *host, const struct host_decision *decision,
                       const struct host_caller *from, const char *service, int64_t left_out,
                       const struct att_err *why);
/* What a statement says of the log: the head of what is on disk; zeros where there is no log. */
void host_notes_head(struct host *host, uint8_t ret_head[ATT_SHA256_LEN]);

#endif
