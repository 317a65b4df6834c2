#include "attestd/logtpm/record.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/json.h"
#include "attestd/base/text.h"

#include <stdio.h>
#include <string.h>

#define VERSION 1

static enum att_rc refuse(struct att_err *err, enum att_rc rc, const char *reason, const char *what)
{
    (void)!att_fail(err, rc, "%s", what);
    att_err_reason(err, reason);
    return rc;
}

/* ---- the file
 * -------------------------------------------------------------------------------------- */

enum att_rc logtpm_record_encode(const struct logtpm_record *r, struct att_buf *ret_text,
                                 struct att_err *err)
{
    char root[2 * AUDIT_HASH_LEN + 1];
    att_hex(root, ATT_SLICE_ARRAY(r->last.root.bytes));
    att_autojson *json =
        json_pack("{s:i, s:s, s:I, s:s, s:I, s:I, s:I, s:s, s:s, s:i, s:I}", "version", VERSION,
                  "origin", r->last.origin, "size", (json_int_t)r->last.size, "root", root,
                  "lastCounter", (json_int_t)r->last.counter, "counter", (json_int_t)r->counter,
                  "was", (json_int_t)r->was, "before", r->before, "ended", r->ended, "raises",
                  (int)r->raises, "raisesAt", (json_int_t)r->raises_at);
    return json ? att_json_dump(json, false, ret_text, err)
                : att_fail(err, ATT_E_NOMEM, "record: no memory");
}

static bool take_number(const json_t *json, const char *name, uint64_t *ret)
{
    const json_t *value = json_object_get(json, name);
    *ret = (uint64_t)json_integer_value(value);
    return json_is_integer(value) && json_integer_value(value) >= 0;
}

static bool take_text(const json_t *json, const char *name, char *ret, size_t room)
{
    const char *text = json_string_value(json_object_get(json, name));
    if (!text || strlen(text) >= room) {
        return false;
    }
    strcpy(ret, text);
    return true;
}

static bool read_record(const json_t *json, struct logtpm_record *r)
{
    char root[2 * AUDIT_HASH_LEN + 1];
    uint64_t version, raises, at;
    bool ok =
        json_object_size(json) == 11 && take_number(json, "version", &version) &&
        version == VERSION && take_text(json, "origin", r->last.origin, sizeof r->last.origin) &&
        take_number(json, "size", &r->last.size) && take_text(json, "root", root, sizeof root) &&
        att_unhex_exact(r->last.root.bytes, AUDIT_HASH_LEN, root, NULL) == ATT_OK &&
        take_number(json, "lastCounter", &r->last.counter) &&
        take_number(json, "counter", &r->counter) && take_number(json, "was", &r->was) &&
        take_text(json, "before", r->before, sizeof r->before) &&
        take_text(json, "ended", r->ended, sizeof r->ended) &&
        take_number(json, "raises", &raises) && take_number(json, "raisesAt", &at);
    if (!ok || raises > LOGTPM_RAISES || r->counter == 0 || r->last.counter > r->counter) {
        return false;
    }
    r->raises = (unsigned)raises;
    r->raises_at = (int64_t)at;
    return !r->last.origin[0] || audit_name_ok(att_slice_str(r->last.origin));
}

enum att_rc logtpm_record_parse(struct att_slice text, struct logtpm_record *ret_record,
                                struct att_err *err)
{
    att_autojson *json = NULL;
    struct logtpm_record r = {0};
    if (att_json_parse_few(text, LOGTPM_RECORD_MAX, 64, &json, NULL) || !read_record(json, &r)) {
        return refuse(err, ATT_E_CONFLICT, "logTpmRecord",
                      "record.json is none of ours: restore it, or tell of a new log");
    }
    *ret_record = r;
    return ATT_OK;
}

/* ---- the counter
 * ----------------------------------------------------------------------------------- */

enum att_rc logtpm_record_fits(const struct logtpm_record *record, uint64_t counter,
                               struct att_err *err)
{
    char what[240];
    if (record->counter == counter || record->counter == counter + 1) {
        return ATT_OK;
    }
    bool older = record->counter < counter;
    snprintf(what, sizeof what, "what is remembered has the counter %llu, the TPM %llu: %s",
             (unsigned long long)record->counter, (unsigned long long)counter,
             older ? "this folder is an older one"
                   : "a counter never goes back: it is another one");
    return older ? refuse(err, ATT_E_AUTH, "logRolledBack", what)
                 : refuse(err, ATT_E_CONFLICT, "counterForeign", what);
}

void logtpm_record_clock(struct logtpm_record *record, int64_t now)
{
    record->raises_at = record->raises_at > now ? now : record->raises_at;
}

unsigned logtpm_raises(const struct logtpm_record *record, int64_t now, int64_t interval_s)
{
    int64_t since = now - record->raises_at;
    int64_t more = since > 0 ? since / interval_s : 0;
    return more >= LOGTPM_RAISES - (int64_t)record->raises ? LOGTPM_RAISES
                                                           : record->raises + (unsigned)more;
}

/* ---- what may be signed
 * ---------------------------------------------------------------------------- */

/* To the byte what we write: nothing can be smuggled in behind it. */
static enum att_rc read_text(struct att_slice text, struct audit_checkpoint *ret,
                             struct att_err *err)
{
    att_autobuf again = {0};
    struct audit_checkpoint c;
    bool ok = audit_checkpoint_parse(text, &c, NULL) == ATT_OK;
    if (ok) {
        audit_checkpoint_text(&c, &again);
        ok = c.counter > 0 && att_slice_eq(att_buf_slice(&again), text);
    }
    if (!ok) {
        return refuse(err, ATT_E_PARSE, "logNote",
                      "expected a checkpoint: origin, size, root, tpm-counter, a line each");
    }
    *ret = c;
    return ATT_OK;
}

static enum att_rc check_growth(const struct audit_checkpoint *last,
                                const struct logtpm_request *request,
                                const struct audit_checkpoint *c, struct att_err *err)
{
    static const struct audit_tree empty;
    struct audit_proof proof = {.n = request->n};
    char what[160];
    struct audit_hash none = audit_tree_root(&empty);
    if (c->size == 0 && memcmp(&c->root, &none, sizeof none) != 0) {
        return refuse(err, ATT_E_AUTH, "logForked", "no leaves, and the root of some");
    }
    if (c->size < last->size) {
        snprintf(what, sizeof what, "a tree of %llu leaves: %llu were signed",
                 (unsigned long long)c->size, (unsigned long long)last->size);
        return refuse(err, ATT_E_AUTH, "logRolledBack", what);
    }
    if (last->origin[0] && c->size == last->size &&
        memcmp(&c->root, &last->root, sizeof c->root) == 0) {
        return ATT_OK; /* the same tree: a call whose answer was lost comes again as it was */
    }
    if (request->old != last->size) {
        snprintf(what, sizeof what, "the proof is from %llu leaves: %llu were signed",
                 (unsigned long long)request->old, (unsigned long long)last->size);
        return refuse(err, ATT_E_CONFLICT, "logOld", what);
    }
    for (size_t i = 0; i < request->n; i++) {
        if (request->n > AUDIT_PROOF_MAX || request->proof[i].len != AUDIT_HASH_LEN) {
            return refuse(err, ATT_E_PARSE, "logNote", "proof: expected at most 65 hashes");
        }
        memcpy(proof.hash[i].bytes, request->proof[i].ptr, AUDIT_HASH_LEN);
    }
    bool ok = last->size == 0 ? request->n == 0
                              : audit_check_consistency(last->size, &last->root, c->size, &c->root,
                                                        &proof, NULL) == ATT_OK;
    return ok ? ATT_OK
              : refuse(err, ATT_E_AUTH, "logForked",
                       "this tree does not continue the one that was signed last");
}

static enum att_rc check_counter(const struct logtpm_record *record,
                                 const struct audit_checkpoint *c, uint64_t counter,
                                 unsigned raises, struct att_err *err)
{
    char what[160];
    if (c->counter < record->counter) {
        snprintf(what, sizeof what, "the counter's number %llu: %llu was signed",
                 (unsigned long long)c->counter, (unsigned long long)record->counter);
        return refuse(err, ATT_E_AUTH, "logRolledBack", what);
    }
    if (c->counter != counter && c->counter != counter + 1) {
        snprintf(what, sizeof what,
                 "the counter is %llu: a checkpoint has that or the next, not %llu",
                 (unsigned long long)counter, (unsigned long long)c->counter);
        return refuse(err, ATT_E_DENIED, "counterValue", what);
    }
    return c->counter == record->counter || raises > 0
               ? ATT_OK
               : refuse(err, ATT_E_LIMIT, "counterEarly",
                        "the counter has risen too often (log_tpm.counter_interval)");
}

/* One that was ended stays so, whatever was ended since: it could be forked from its beginning. */
static bool was_ended(const char *ended, const char *origin)
{
    size_t want = strlen(origin);
    while (*ended) {
        size_t len = strcspn(ended, " ");
        if (len == want && memcmp(ended, origin, len) == 0) {
            return true;
        }
        ended += len + (ended[len] == ' ');
    }
    return false;
}

enum att_rc logtpm_judge(const struct logtpm_record *record, const struct logtpm_request *request,
                         uint64_t counter, unsigned raises, struct audit_checkpoint *ret,
                         struct att_err *err)
{
    struct audit_checkpoint c;
    enum att_rc rc = read_text(request->text, &c, err);
    const char *want = record->last.origin;
    if (!rc && (want[0] ? strcmp(want, c.origin) != 0 : was_ended(record->ended, c.origin))) {
        rc = refuse(err, ATT_E_AUTH, "logOrigin",
                    want[0] ? "a checkpoint of another log than the one that is signed here"
                            : "a checkpoint of the log that an operator ended");
    }
    rc = rc ? rc : check_growth(&record->last, request, &c, err);
    rc = rc ? rc : check_counter(record, &c, counter, raises, err);
    if (!rc) {
        *ret = c;
    }
    return rc;
}

/* ---- an operator's word
 * ---------------------------------------------------------------------------- */

static enum att_rc note_before(struct logtpm_record *record, const char *act, uint64_t counter,
                               const char *reason, int64_t now, struct att_err *err)
{
    char at[ATT_TIME_TEXT_LEN], clean[LOGTPM_REASON_MAX + 1];
    att_autobuf text = ATT_BUF_INIT(AUDIT_COSIGN_BEFORE_MAX);
    size_t len = reason ? strlen(reason) : 0;
    snprintf(clean, sizeof clean, "%s", reason ? reason : "");
    att_text_clean(clean);
    if (len == 0 || len > LOGTPM_REASON_MAX || strcmp(clean, reason) != 0) {
        return att_fail(err, ATT_E_INVAL, "--reason: expected 1 to %d bytes of text",
                        LOGTPM_REASON_MAX);
    }
    att_time_text(at, now);
    att_autojson *json =
        json_pack("{s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "act", act, "reason", clean, "at", at,
                  "log", record->last.origin, "size", (json_int_t)record->last.size,
                  "counterBefore", (json_int_t)record->counter, "counter", (json_int_t)counter);
    enum att_rc rc = json ? att_json_dump(json, false, &text, err)
                          : att_fail(err, ATT_E_NOMEM, "record: no memory");
    if (!rc) {
        const char *all = att_buf_cstr(&text);
        snprintf(record->before, sizeof record->before, "%s", all ? all : "");
    }
    return rc;
}

enum att_rc logtpm_record_new_log(struct logtpm_record *record, const char *reason, int64_t now,
                                  struct att_err *err)
{
    const char *origin = record->last.origin;
    size_t has = strlen(record->ended), more = origin[0] ? strlen(origin) + 1 : 0;
    if (has + more >= sizeof record->ended) {
        return refuse(err, ATT_E_LIMIT, "logTpmRecord",
                      "too many logs were ended here: move the folder away, and tell auditors of a "
                      "new key");
    }
    enum att_rc rc = note_before(record, "newLog", record->counter, reason, now, err);
    if (!rc) {
        if (more) {
            snprintf(record->ended + has, sizeof record->ended - has, "%s%s", has ? " " : "",
                     origin);
        }
        record->last = (struct audit_checkpoint){0};
    }
    return rc;
}

enum att_rc logtpm_record_new_counter(struct logtpm_record *record, uint64_t counter,
                                      const char *reason, int64_t now, struct att_err *err)
{
    enum att_rc rc = note_before(record, "newCounter", counter, reason, now, err);
    if (!rc) {
        record->was = record->counter;
        record->counter = counter;
    }
    return rc;
}
