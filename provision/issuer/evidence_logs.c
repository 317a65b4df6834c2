/* Measurement logs: sent once, kept by content, named by digest afterwards; of one that grows only
 * what is new. */
#include "provision/evidence/logs.h"
#include "provision/issuer/context.h"
#include "provision/verify/logs.h"

#include <string.h>

/* A log that grows is kept in parts, each once; after so many it is kept whole again. */
#define PARTS_MAX 16

/* How a log was kept: "<sha256>", or {"sha256", "parts": ["<sha256>"…]}. */
static const char *kept_digest(const json_t *kept)
{
    return json_is_object(kept)   ? issuer_string(kept, "sha256")
           : json_is_string(kept) ? json_string_value(kept)
                                  : "";
}

static size_t n_parts(const json_t *kept)
{
    return json_is_object(kept) ? json_array_size(json_object_get(kept, "parts")) : 1;
}

static const char *part(const json_t *kept, size_t i)
{
    const char *digest = json_is_object(kept)
                             ? json_string_value(json_array_get(json_object_get(kept, "parts"), i))
                             : json_string_value(kept);
    return digest ? digest : "";
}

static bool has_all(struct store_tx *tx, const json_t *kept)
{
    for (size_t i = 0; i < n_parts(kept); i++) {
        if (!store_blob_has(tx, part(kept, i))) {
            return false;
        }
    }
    return kept_digest(kept)[0] != 0;
}

static enum att_rc get_all(struct store_tx *tx, const json_t *kept, struct att_buf *ret_bytes)
{
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; !rc && i < n_parts(kept); i++) {
        att_autobuf bytes = {0};
        rc = store_blob_get(tx, part(kept, i), &bytes, NULL);
        att_buf_put_slice(ret_bytes, att_buf_slice(&bytes));
    }
    return rc ? rc : att_buf_ok(ret_bytes, NULL);
}

json_t *issuer_logs_known(struct store_tx *tx, const json_t *notes)
{
    json_t *known = json_object();
    const char *name;
    json_t *kept;
    json_object_foreach(json_object_get(notes, "logs"), name, kept)
    {
        if (has_all(tx, kept)) {
            json_object_set_new(known, name, json_string(kept_digest(kept)));
        }
    }
    return known;
}

enum att_rc issuer_logs_supply(struct store_tx *tx, const json_t *notes, struct evidence_logs *logs,
                               struct att_err *err)
{
    return issuer_logs_supply_kept(tx, json_object_get(notes, "logs"), logs, err);
}

enum att_rc issuer_logs_supply_kept(struct store_tx *tx, const json_t *kept_logs,
                                    struct evidence_logs *logs, struct att_err *err)
{
    for (size_t i = 0; i < logs->n; i++) {
        if (logs->log[i].has_data) {
            continue;
        }
        const struct evidence_log *log = &logs->log[i];
        const json_t *kept = json_object_get(kept_logs, log->name);
        char digest[65];
        att_hex(digest, ATT_SLICE(log->has_base ? log->base_sha256 : log->sha256, ATT_SHA256_LEN));
        att_autobuf bytes = ATT_BUF_INIT(EVIDENCE_LOG_MAX);
        /* Only what this host itself has sent: others' logs are nobody's to name. */
        if (strcmp(kept_digest(kept), digest) != 0) {
            continue; /* the verdict says logMissing */
        }
        struct att_err why = {0};
        enum att_rc rc = get_all(tx, kept, &bytes);
        if (rc == ATT_E_NOTFOUND || rc == ATT_E_LIMIT) {
            continue;
        }
        if (rc) {
            return att_fail(err, rc, "logs cannot be read");
        }
        rc = evidence_logs_supply(logs, log->name, att_buf_slice(&bytes), &why);
        if (rc == ATT_E_AUTH || rc == ATT_E_LIMIT) {
            continue; /* what came behind the base makes another log than was named: the same */
        }
        if (rc) {
            return att_fail(err, rc, "%s", why.msg);
        }
    }
    return ATT_OK;
}

/* Whether there is room for it, which is taken. */
static bool has_room(struct issuer_call *call, struct store_tx *tx, const struct evidence_log *log)
{
    struct issuer_limit *limit = call->issuer->limit;
    char digest[65];
    att_hex(digest, ATT_SLICE_ARRAY(log->sha256));
    if (store_blob_has(tx, digest)) {
        return true;
    }
    if (issuer_limit_reached(limit, ISSUER_LIMIT_NEW_LOGS, call->account.id, call->now)) {
        return false;
    }
    issuer_limit_count(limit, ISSUER_LIMIT_NEW_LOGS, call->account.id, call->now);
    return true;
}

/* What a new record rests on has to last as long as the record does. */
static enum att_rc touch_all(struct store_tx *tx, const json_t *kept, int64_t now,
                             struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; !rc && i < n_parts(kept); i++) {
        rc = store_blob_touch(tx, part(kept, i), now, err);
    }
    return rc;
}

/* What the host has sent before stands in the store already: the rest is one part more. */
static enum att_rc keep_rest(struct issuer_call *call, struct store_tx *tx,
                             const struct evidence_log *log, const json_t *kept, json_t **ret,
                             struct att_err *err)
{
    char digest[65];
    size_t base = (size_t)log->base_length;
    enum att_rc rc = touch_all(tx, kept, call->now, err);
    if (!rc) {
        rc = store_blob_put(tx, ATT_SLICE(log->data.ptr + base, log->data.len - base), call->now,
                            digest, err);
    }
    if (rc) {
        return rc;
    }
    json_t *parts = json_array();
    for (size_t i = 0; i < n_parts(kept); i++) {
        json_array_append_new(parts, json_string(part(kept, i)));
    }
    json_array_append_new(parts, json_string(digest));
    att_hex(digest, ATT_SLICE_ARRAY(log->sha256));
    *ret = json_pack("{s:s, s:o}", "sha256", digest, "parts", parts);
    return *ret ? ATT_OK : att_fail(err, ATT_E_NOMEM, "logs: no memory");
}

static bool goes_on(struct store_tx *tx, const struct evidence_log *log, const json_t *kept)
{
    char digest[65];
    att_hex(digest, ATT_SLICE_ARRAY(log->base_sha256));
    return log->has_base && log->base_length < log->length && n_parts(kept) < PARTS_MAX &&
           strcmp(kept_digest(kept), digest) == 0 && has_all(tx, kept);
}

static enum att_rc keep_one(struct issuer_call *call, struct store_tx *tx,
                            const struct evidence_log *log, const json_t *kept, json_t **ret,
                            struct att_err *err)
{
    char digest[65];
    att_hex(digest, ATT_SLICE_ARRAY(log->sha256));
    if (strcmp(kept_digest(kept), digest) == 0 && has_all(tx, kept) && n_parts(kept) > 1) {
        enum att_rc rc = touch_all(tx, kept, call->now, err);
        *ret = rc ? NULL : json_deep_copy(kept);
        return rc;
    }
    if (!has_room(call, tx, log)) {
        *ret = NULL;
        return ATT_OK;
    }
    if (goes_on(tx, log, kept)) {
        return keep_rest(call, tx, log, kept, ret, err);
    }
    enum att_rc rc = store_blob_put(tx, att_buf_slice(&log->data), call->now, digest, err);
    *ret = rc ? NULL : json_string(digest);
    return rc;
}

enum att_rc issuer_logs_keep(struct issuer_call *call, struct store_tx *tx, const json_t *notes,
                             const struct evidence_logs *logs, json_t **ret_digests,
                             struct att_err *err)
{
    json_t *digests = json_object();
    for (size_t i = 0; i < logs->n; i++) {
        const struct evidence_log *log = &logs->log[i];
        json_t *kept = json_object_get(json_object_get(notes, "logs"), log->name), *now = NULL;
        if (!log->has_data) {
            continue;
        }
        enum att_rc rc = keep_one(call, tx, log, kept, &now, err);
        if (rc) {
            json_decref(digests);
            return rc;
        }
        if (now) {
            json_object_set_new(digests, log->name, now);
        }
    }
    *ret_digests = digests;
    return ATT_OK;
}

/* A tail stands in the statement that is kept, once for each verdict, whoever pays for logs. A few
 * entries are what arrives while a TPM quotes; more than that counts as a new log, and where there
 * is no room for one the statement is kept without. */
void issuer_logs_bound_tails(struct issuer_call *call, struct evidence_logs *logs)
{
    struct issuer_limit *limit = call->issuer->limit;
    size_t n = 0;
    for (size_t i = 0; i < logs->n; i++) {
        n += logs->log[i].tail.len;
    }
    if (n <= ISSUER_TAILS_FREE) {
        return;
    }
    if (!issuer_limit_reached(limit, ISSUER_LIMIT_NEW_LOGS, call->account.id, call->now)) {
        issuer_limit_count(limit, ISSUER_LIMIT_NEW_LOGS, call->account.id, call->now);
        return;
    }
    for (size_t i = 0; i < logs->n; i++) {
        att_buf_done(&logs->log[i].tail);
    }
}

enum att_rc issuer_logs_asked(const struct evidence_logs *logs, const char *asked,
                              struct att_err *err)
{
    uint32_t bits = issuer_logs_bits(asked);
    for (size_t i = 0; i < logs->n; i++) {
        if (!(verify_log_bit(att_slice_str(logs->log[i].name)) & bits)) {
            return issuer_refuse(err, ATT_E_PARSE, "malformed", "logs: %s was not asked for",
                                 logs->log[i].name);
        }
    }
    return ATT_OK;
}

/* Why a log is not what was quoted is seen in the log; but a refusal costs its sender nothing. */
enum att_rc issuer_logs_keep_refused(struct issuer_call *call, struct store_tx *tx,
                                     const json_t *notes, const struct evidence_logs *logs,
                                     json_t **ret_digests, struct att_err *err)
{
    struct issuer_limit *limit = call->issuer->limit;
    *ret_digests = NULL;
    if (issuer_limit_reached(limit, ISSUER_LIMIT_REFUSED_LOGS, call->account.id, call->now)) {
        return ATT_OK;
    }
    issuer_limit_count(limit, ISSUER_LIMIT_REFUSED_LOGS, call->account.id, call->now);
    return issuer_logs_keep(call, tx, notes, logs, ret_digests, err);
}

size_t issuer_logs_digests(const struct evidence_logs *logs, uint8_t (*ret_digests)[ATT_SHA256_LEN])
{
    for (size_t i = 0; i < logs->n; i++) {
        memcpy(ret_digests[i], logs->log[i].sha256, ATT_SHA256_LEN);
    }
    return logs->n;
}
