/* What an operator says on the command line. */
#include "attestd/logtpm/internal.h"

#include "attestd/base/clock.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum att_rc logtpm_new_log(struct logtpm *logtpm, const char *reason, char *ret_said, size_t room,
                           struct att_err *err)
{
    enum att_rc rc = logtpm_load_record(logtpm, err);
    struct logtpm_record record = logtpm->record;
    if (!rc && !record.last.origin[0]) {
        return logtpm_refuse(err, ATT_E_CONFLICT, "logTpmRecord",
                             "nothing has been signed yet: there is no log to end");
    }
    rc = rc ? rc : logtpm_record_new_log(&record, reason, att_now_utc_s(), err);
    if (!rc) {
        snprintf(ret_said, room, "the log %s is signed no more; the next one will be",
                 logtpm->record.last.origin);
        rc = logtpm_keep(logtpm, &record, err);
    }
    return rc;
}

/* Of a folder that remembers nothing: the next start makes its own. */
static enum att_rc remove_counter(struct logtpm *logtpm, const char *reason, char *ret_said,
                                  size_t room, struct att_err *err)
{
    struct logtpm_record none = {.counter = 1};
    enum att_rc rc = logtpm_record_new_counter(&none, 1, reason, 0, err); /* the reason's form */
    rc = rc ? rc : logtpm_open_secret(logtpm, err);
    rc = rc ? rc : tpm_counter_undefine(logtpm->ctx, logtpm->opts.counter, err);
    if (!rc) {
        snprintf(ret_said, room, "the counter is removed: the next start makes a new one");
    }
    return rc;
}

/* Any counter at that index goes, whoever made it; then what is remembered counts from the new one.
 * That there is room for it on the disk is tried before. An end in between leaves a counter that
 * does not fit: the same again helps. */
enum att_rc logtpm_new_counter(struct logtpm *logtpm, const char *reason, char *ret_said,
                               size_t room, struct att_err *err)
{
    struct logtpm_record record = {.counter = 1};
    uint64_t value = 0;
    char path[LOGTPM_PATH];
    logtpm_path(logtpm, "record.json", path);
    bool fresh = access(path, F_OK) && errno == ENOENT;
    if (fresh) {
        return remove_counter(logtpm, reason, ret_said, room, err);
    }
    enum att_rc rc = logtpm_load_record(logtpm, err);
    record = logtpm->record;
    rc = rc ? rc : logtpm_record_new_counter(&record, record.counter, reason, 0, err); /* reason */
    rc = rc ? rc : logtpm_open_secret(logtpm, err);
    rc = rc ? rc : logtpm_keep(logtpm, &logtpm->record, err);
    rc = rc ? rc : tpm_counter_undefine(logtpm->ctx, logtpm->opts.counter, err);
    rc = rc ? rc
            : tpm_counter_define(logtpm->ctx, logtpm->opts.counter,
                                 ATT_SLICE_ARRAY(logtpm->counter_auth), err);
    rc = rc ? rc : logtpm_read_counter(logtpm, &value, err);
    record = logtpm->record;
    if (!rc && value < record.counter) {
        rc = logtpm_refuse(err, ATT_E_CONFLICT, "counterForeign",
                           "the new counter begins with %llu, below the %llu that was signed: this "
                           "is another TPM",
                           (unsigned long long)value, (unsigned long long)record.counter);
    }
    rc = rc ? rc : logtpm_record_new_counter(&record, value, reason, att_now_utc_s(), err);
    if (!rc) {
        snprintf(ret_said, room, "the counter was %llu, and is made anew at %llu",
                 (unsigned long long)record.was, (unsigned long long)value);
        rc = logtpm_keep(logtpm, &record, err);
    }
    return rc;
}
