/* What attest-issuerd-tpm remembers (state_dir/record.json), and what it signs after that. Pure:
 * no TPM, no files. */
#ifndef ATTESTD_LOGTPM_RECORD_H
#define ATTESTD_LOGTPM_RECORD_H

#include "provision/audit/cosign.h"

#define LOGTPM_RECORD_MAX 8192
#define LOGTPM_REASON_MAX 256
#define LOGTPM_ENDED_MAX  (8 * (AUDIT_NAME_MAX + 1)) /* bytes of names, and the last one's NUL */
#define LOGTPM_RAISES     16 /* increments that may follow one another; then one an interval */

struct logtpm_record {
    struct audit_checkpoint last; /* signed last; no origin: nothing yet */
    uint64_t counter; /* the TPM's, or the next one where that was signed and not raised yet */
    uint64_t was;     /* before an operator had it made anew; 0: nobody did */
    char before[AUDIT_COSIGN_BEFORE_MAX + 1]; /* JSON of an operator's act; "" */
    char ended[LOGTPM_ENDED_MAX]; /* the logs that are signed no more, a space between; "" */
    unsigned raises;              /* left, at that time */
    int64_t raises_at;            /* UTC */
};

/* Replaces nothing in ret_text: appends. */
ATT_MUST_USE enum att_rc logtpm_record_encode(const struct logtpm_record *record,
                                              struct att_buf *ret_text, struct att_err *err);
/* ATT_E_CONFLICT with reason "logTpmRecord". */
ATT_MUST_USE enum att_rc logtpm_record_parse(struct att_slice text,
                                             struct logtpm_record *ret_record, struct att_err *err);

/* The counter's place against what is remembered. ATT_E_AUTH "logRolledBack": the record is older;
 * ATT_E_CONFLICT "counterForeign": the counter is. */
ATT_MUST_USE enum att_rc logtpm_record_fits(const struct logtpm_record *record, uint64_t counter,
                                            struct att_err *err);

/* Before logtpm_raises: a clock that was ahead when the counter rose last, and is right again,
 * costs an interval, and not all of them until then. */
void logtpm_record_clock(struct logtpm_record *record, int64_t now);
/* Increments that may be made now: what was left, and one for each interval since. */
unsigned logtpm_raises(const struct logtpm_record *record, int64_t now, int64_t interval_s);

struct logtpm_request {
    struct att_slice text; /* a checkpoint, as audit_checkpoint_text writes it */
    uint64_t old;
    const struct att_slice *proof; /* hashes */
    size_t n;
};
/* May this be signed, while the TPM's counter is at `counter`? raises: increments that may be made.
 * Errors as PROC_LOGTPM_SIGN has them. *ret: what was asked for. */
ATT_MUST_USE enum att_rc logtpm_judge(const struct logtpm_record *record,
                                      const struct logtpm_request *request, uint64_t counter,
                                      unsigned raises, struct audit_checkpoint *ret,
                                      struct att_err *err);

/* An operator's word for another log (ATT_E_LIMIT: there is no room for the name of one more that
 * was ended), or for another counter (was: 0, or where it stood): what is
 * remembered changes, and why is in `before`. reason: 1 … LOGTPM_REASON_MAX bytes of clean text,
 * else ATT_E_INVAL. */
ATT_MUST_USE enum att_rc logtpm_record_new_log(struct logtpm_record *record, const char *reason,
                                               int64_t now, struct att_err *err);
ATT_MUST_USE enum att_rc logtpm_record_new_counter(struct logtpm_record *record, uint64_t counter,
                                                   const char *reason, int64_t now,
                                                   struct att_err *err);

#endif
