/* Measurement logs: sent once, kept by content, named by digest afterwards. */
#include "provision/evidence/logs.h"
#include "provision/issuer/context.h"
#include "provision/verify/logs.h"

#include <string.h>

json_t *issuer_logs_known(struct store_tx *tx, const struct store_host *host)
{
    att_autojson *notes = issuer_json(host->notes);
    json_t *known = json_object();
    const char *name;
    json_t *digest;
    json_object_foreach(json_object_get(notes, "logs"), name, digest)
    {
        if (json_is_string(digest) && store_blob_has(tx, json_string_value(digest))) {
            json_object_set(known, name, digest);
        }
    }
    return known;
}

enum att_rc issuer_logs_supply(struct store_tx *tx, const struct store_host *host,
                               struct evidence_logs *logs, struct att_err *err)
{
    att_autojson *notes = issuer_json(host ? host->notes : "");
    const json_t *known = json_object_get(notes, "logs");
    for (size_t i = 0; i < logs->n; i++) {
        if (logs->log[i].has_data) {
            continue;
        }
        const struct evidence_log *log = &logs->log[i];
        char digest[65];
        att_hex(digest, ATT_SLICE(log->has_base ? log->base_sha256 : log->sha256, ATT_SHA256_LEN));
        att_autobuf bytes = {0};
        /* Only what this host itself has sent: others' logs are nobody's to name. */
        if (strcmp(issuer_string(known, logs->log[i].name), digest) != 0 ||
            store_blob_get(tx, digest, &bytes, NULL)) {
            continue; /* the verdict says logMissing */
        }
        struct att_err why = {0};
        enum att_rc rc = evidence_logs_supply(logs, log->name, att_buf_slice(&bytes), &why);
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

enum att_rc issuer_logs_keep(struct issuer_call *call, struct store_tx *tx,
                             const struct evidence_logs *logs, json_t **ret_digests,
                             struct att_err *err)
{
    json_t *digests = json_object();
    for (size_t i = 0; i < logs->n; i++) {
        const struct evidence_log *log = &logs->log[i];
        char digest[65];
        if (!log->has_data || !has_room(call, tx, log)) {
            continue;
        }
        enum att_rc rc = store_blob_put(tx, att_buf_slice(&log->data), call->now, digest, err);
        if (rc) {
            json_decref(digests);
            return rc;
        }
        json_object_set_new(digests, log->name, json_string(digest));
    }
    *ret_digests = digests;
    return ATT_OK;
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
                                     const struct evidence_logs *logs, json_t **ret_digests,
                                     struct att_err *err)
{
    struct issuer_limit *limit = call->issuer->limit;
    *ret_digests = NULL;
    if (issuer_limit_reached(limit, ISSUER_LIMIT_REFUSED_LOGS, call->account.id, call->now)) {
        return ATT_OK;
    }
    issuer_limit_count(limit, ISSUER_LIMIT_REFUSED_LOGS, call->account.id, call->now);
    return issuer_logs_keep(call, tx, logs, ret_digests, err);
}

size_t issuer_logs_digests(const struct evidence_logs *logs, uint8_t (*ret_digests)[ATT_SHA256_LEN])
{
    for (size_t i = 0; i < logs->n; i++) {
        memcpy(ret_digests[i], logs->log[i].sha256, ATT_SHA256_LEN);
    }
    return logs->n;
}
