/* Measurement logs: sent once, kept by content, named by digest afterwards. */
#include "provision/evidence/logs.h"
#include "provision/issuer/context.h"

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
        char digest[65];
        att_hex(digest, ATT_SLICE_ARRAY(logs->log[i].sha256));
        att_autobuf bytes = {0};
        /* Only what this host itself has sent: others' logs are nobody's to name. */
        if (strcmp(issuer_string(known, logs->log[i].name), digest) != 0 ||
            store_blob_get(tx, digest, &bytes, NULL)) {
            continue; /* the verdict says logMissing */
        }
        enum att_rc rc = evidence_logs_supply(logs, logs->log[i].name, att_buf_slice(&bytes), err);
        if (rc) {
            return rc;
        }
    }
    return ATT_OK;
}

enum att_rc issuer_logs_keep(struct store_tx *tx, const struct evidence_logs *logs, int64_t now,
                             json_t **ret_digests, struct att_err *err)
{
    json_t *digests = json_object();
    for (size_t i = 0; i < logs->n; i++) {
        char digest[65];
        if (!logs->log[i].has_data) {
            continue;
        }
        enum att_rc rc = store_blob_put(tx, att_buf_slice(&logs->log[i].data), now, digest, err);
        if (rc) {
            json_decref(digests);
            return rc;
        }
        json_object_set_new(digests, logs->log[i].name, json_string(digest));
    }
    *ret_digests = digests;
    return ATT_OK;
}
