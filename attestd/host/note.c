#include "attestd/host/internal.h"
#include "attestd/base/enc.h"

#include <string.h>

#define AGAIN_MS 5000 /* a log that could not be opened */

/* Under notes.lock. */
static void try_open(struct host *host)
{
    struct host_notes *notes = &host->notes;
    int64_t now = att_boottime_ms();
    if (notes->journal || (notes->tried_ms && now - notes->tried_ms < AGAIN_MS)) {
        return;
    }
    const struct host_journal_opts opts = {.dir = host->paths.decisions,
                                           .segment_max = HOST_JOURNAL_SEGMENT_MAX,
                                           .segments = HOST_JOURNAL_SEGMENTS};
    struct att_err err = {0};
    notes->tried_ms = now;
    if (host_journal_open(&opts, &notes->journal, &err) != ATT_OK) {
        att_log_err(ATT_ERROR, "hostLog.notKept", &err);
    }
}

static struct host_journal *journal_of(struct host *host)
{
    pthread_mutex_lock(&host->notes.lock);
    try_open(host);
    struct host_journal *journal = host->notes.journal;
    pthread_mutex_unlock(&host->notes.lock);
    return journal;
}

void host_notes_open(struct host *host)
{
    (void)journal_of(host);
}

void host_notes_close(struct host *host)
{
    host_journal_close(host->notes.journal);
    host->notes.journal = NULL;
}

void host_note(struct host *host, const char *kind, json_t *members)
{
    struct att_err err = {0};
    struct host_journal *journal = journal_of(host);
    if (!journal) {
        json_decref(members);
    } else if (host_journal_add(journal, kind, members, &err) != ATT_OK) {
        att_log_err(ATT_ERROR, "hostLog.notWritten", &err);
    }
}

enum att_rc host_note_must(struct host *host, const char *kind, json_t *members,
                           struct att_err *err)
{
    struct att_err why = {0};
    uint8_t head[ATT_SHA256_LEN];
    struct host_journal *journal = journal_of(host);
    if (!members) { /* a record that says nothing is none */
        return att_fail(err, ATT_E_NOMEM, "no memory for a record");
    }
    if (!journal) {
        json_decref(members);
    } else if (host_journal_add(journal, kind, members, &why) == ATT_OK &&
               host_journal_head(journal, head, &why) == ATT_OK) {
        return ATT_OK;
    }
    (void)!att_fail(err, ATT_E_UNREACHABLE, "the host's log cannot be written: %s",
                    why.msg[0] ? why.msg : "it is not open");
    att_err_reason(err, "hostLog");
    return ATT_E_UNREACHABLE;
}

void host_notes_head(struct host *host, uint8_t ret_head[ATT_SHA256_LEN])
{
    struct att_err err = {0};
    struct host_journal *journal = journal_of(host);
    memset(ret_head, 0, ATT_SHA256_LEN);
    if (journal && host_journal_head(journal, ret_head, &err) != ATT_OK) {
        att_log_err(ATT_ERROR, "hostLog.notSynced", &err);
    }
}

/* Empty texts are left out; one that is no UTF-8 (a path may be anything) is hex. */
static void put(json_t *record, const char *name, const char *value)
{
    json_t *text = value && value[0] ? json_string(value) : NULL;
    if (value && value[0] && !text) {
        att_autobuf hex = {0};
        att_buf_put_str(&hex, "hex:");
        att_buf_hex(&hex, att_slice_str(value));
        text = json_string(att_buf_cstr(&hex));
    }
    if (text) {
        json_object_set_new(record, name, text);
    }
}

static void put_digest(json_t *record, const char *name, const uint8_t sha256[ATT_SHA256_LEN])
{
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE(sha256, ATT_SHA256_LEN));
    json_object_set_new(record, name, json_string(hex));
}

static void put_caller(json_t *record, const struct workload_caller *caller)
{
    json_object_set_new(record, "pid", json_integer(caller->facts.pid));
    json_object_set_new(record, "uid", json_integer(caller->facts.uid));
    put(record, "unit", caller->facts.unit);
    put(record, "exe", caller->exe_path);
    put_digest(record, "exeSha256", caller->exe_sha256);
    put(record, "script", caller->script_path);
    if (caller->script.known) {
        put_digest(record, "scriptSha256", caller->script.sha256);
    }
}

void host_note_granted(struct host *host, const struct host_decision *decision, const char *service)
{
    json_t *record = json_object();
    put(record, "agent", decision->agent);
    put(record, "service", service);
    put_caller(record, &decision->caller);
    host_note(host, "granted", record);
}

void host_note_refused(struct host *host, const struct host_decision *decision,
                       const struct host_caller *from, const char *service, int64_t left_out,
                       const struct att_err *why)
{
    json_t *record = json_object();
    put(record, "reason", why->reason[0] ? why->reason : att_rc_name(why->rc));
    put(record, "service", service);
    if (decision->seen) {
        put_caller(record, &decision->caller);
    } else {
        json_object_set_new(record, "pid", json_integer(from->pid));
    }
    if (left_out) {
        json_object_set_new(record, "leftOut", json_integer(left_out));
    }
    host_note(host, "refused", record);
}
