/* audit.export: decisions with their proofs, a page at a time, for a folder that is not ours. */
#include "provision/issuer/admin.h"

#include "provision/issuer/admin_proof.h"

#include <stdlib.h>
#include <string.h>

#define PAGE_DEFAULT 200
#define PAGE_MAX     1000
#define LOOK_MAX     5000              /* records of one call, whether they are of it or not */
#define BYTES_MAX    ((size_t)2 << 20) /* of records in one answer */

struct page {
    struct issuer_admin_call *call;
    struct store_tx *tx;
    const char *profile;
    int64_t before, limit, last, looked;
    size_t bytes;
    bool full;
    json_t *list;
};

static bool wanted(const struct page *p, const char *record)
{
    att_autojson *json = issuer_json(record);
    return !p->profile || strcmp(issuer_string(json, "profile"), p->profile) == 0;
}

static enum att_rc put(struct page *p, const struct store_audit *a, struct att_err *err)
{
    struct audit_inclusion in = {0};
    json_t *proof = json_object();
    enum att_rc rc = audit_log_prove(p->call->issuer->log, p->tx, a->seq, &in, err);
    rc = rc ? rc : issuer_admin_put_proof(proof, a->seq, a->record, &in, err);
    audit_inclusion_done(&in);
    if (rc) {
        json_decref(proof);
        return rc;
    }
    json_array_append_new(p->list, proof);
    p->bytes += strlen(a->record) + 2048;
    return ATT_OK;
}

/* ATT_E_GONE ends the page. An erased record is of no profile any more, and belongs to none. */
static enum att_rc take(void *user, const struct store_audit *a, struct att_err *err)
{
    struct page *p = user;
    if (a->at >= p->before) {
        return att_fail(err, ATT_E_GONE, "the end");
    }
    if (p->looked == LOOK_MAX || (int64_t)json_array_size(p->list) == p->limit ||
        p->bytes > BYTES_MAX) {
        p->full = true;
        return att_fail(err, ATT_E_GONE, "a page");
    }
    if (wanted(p, a->record)) {
        struct att_err why = {0};
        enum att_rc rc = put(p, a, &why);
        if (rc == ATT_E_RETRY) { /* not published yet: the next time */
            return att_fail(err, ATT_E_GONE, "the end");
        }
        if (rc) {
            return att_fail(err, rc, "decision %lld: %s", (long long)a->seq, why.msg);
        }
    }
    p->last = a->seq;
    p->looked++;
    return ATT_OK;
}

enum att_rc issuer_admin_audit_export(struct issuer_admin_call *call, struct store_tx *tx,
                                      struct att_err *err)
{
    const char *before = issuer_arg(call, "before");
    struct page p = {.call = call,
                     .tx = tx,
                     .profile = issuer_arg(call, "profile"),
                     .before = INT64_MAX,
                     .limit = issuer_arg_int(call, "limit", PAGE_DEFAULT),
                     .last = issuer_arg_int(call, "after", 0),
                     .list = json_array()};
    struct att_err end = {0};
    json_object_set_new(call->result, "proofs", p.list);
    if (p.limit < 1 || p.limit > PAGE_MAX || p.last < 0) {
        return issuer_refuse(err, ATT_E_INVAL, "usage",
                             "limit: expected 1 to %d; after: a number of a decision", PAGE_MAX);
    }
    if (before && att_time_parse(before, &p.before, NULL) != ATT_OK) {
        return issuer_refuse(
            err, ATT_E_INVAL, "usage",
            "before: expected a time such as 2026-11-28T00:00:00Z, found \"%.40s\"", before);
    }
    enum att_rc rc = store_audit_each(tx, p.last + 1, 0, take, &p, &end);
    if (rc && rc != ATT_E_GONE) {
        if (err) {
            *err = end;
        }
        return rc;
    }
    json_object_set_new(call->result, "next", json_integer(p.last));
    json_object_set_new(call->result, "more", json_boolean(p.full));
    json_object_set_new(call->result, "log", json_string(audit_log_vkey(call->issuer->log)->name));
    return ATT_OK;
}
