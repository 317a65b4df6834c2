/* Records of a profile that are older than its retention are emptied. Number, time, hashes and
 * leaf stay, so that chain, log and every proof hold; one record for each batch names them. */
#include "provision/issuer/retention.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOKED_AT 1000 /* records of one step: the store's writers wait meanwhile */

struct step {
    struct issuer *issuer;
    const struct conf_profile *profile;
    int64_t now, cutoff, leaves, cursor;
    int64_t seqs[LOOKED_AT];
    size_t n, looked;
};

static enum att_rc cursor_key(const struct step *s, char ret[128], struct att_err *err)
{
    int n = snprintf(ret, 128, "retention.%s", s->profile->name);
    return n > 0 && n < 128 ? ATT_OK : att_fail(err, ATT_E_LIMIT, "retention: a long name");
}

static enum att_rc read_cursor(struct step *s, struct store_tx *tx, const char *key,
                               struct att_err *err)
{
    att_autobuf value = {0};
    enum att_rc rc = store_meta_get(tx, key, &value, NULL);
    const char *text = rc ? NULL : att_buf_cstr(&value);
    s->cursor = text ? strtoll(text, NULL, 10) : 0;
    return rc == ATT_E_NOTFOUND ? ATT_OK : rc ? att_fail(err, rc, "retention: its place") : ATT_OK;
}

/* Who says what was emptied stays. */
static bool is_of(const struct step *s, const char *record)
{
    att_autojson *json = issuer_json(record);
    return strcmp(issuer_string(json, "profile"), s->profile->name) == 0 &&
           !json_object_get(json, "erases");
}

/* ATT_E_GONE ends the walk: what follows is younger, or has no leaf yet. */
static enum att_rc look(void *user, const struct store_audit *a, struct att_err *err)
{
    struct step *s = user;
    if (a->at >= s->cutoff || a->seq > s->leaves) {
        return att_fail(err, ATT_E_GONE, "retention: the end");
    }
    if (a->record[0] && is_of(s, a->record)) {
        s->seqs[s->n++] = a->seq;
    }
    s->cursor = a->seq;
    s->looked++;
    return ATT_OK;
}

static enum att_rc say(struct step *s, struct store_tx *tx, struct att_err *err)
{
    json_t *record = issuer_record("retention", "done", NULL, s->profile->retention, NULL);
    json_t *list = json_array();
    for (size_t i = 0; i < s->n; i++) {
        json_array_append_new(list, json_integer((json_int_t)s->seqs[i]));
    }
    json_object_set_new(record, "profile", json_string(s->profile->name));
    json_object_set_new(record, "before", issuer_time_json(s->cutoff));
    json_object_set_new(record, "erases", list);
    return issuer_audit(tx, s->now, record, NULL, err);
}

static enum att_rc run(void *user, struct store_tx *tx, struct att_err *err)
{
    struct step *s = user;
    char key[128], cursor[24];
    struct att_err end = {0};
    s->n = s->looked = 0;
    enum att_rc rc = cursor_key(s, key, err);
    rc = rc ? rc : read_cursor(s, tx, key, err);
    rc = rc ? rc : store_leaf_head(tx, &s->leaves, err);
    if (rc) {
        return rc;
    }
    rc = store_audit_each(tx, s->cursor + 1, LOOKED_AT, look, s, &end);
    if (rc && rc != ATT_E_GONE) {
        return att_fail(err, rc, "%s", end.msg);
    }
    rc = ATT_OK;
    for (size_t i = 0; !rc && i < s->n; i++) {
        rc = store_audit_erase(tx, s->seqs[i], err);
    }
    rc = rc || !s->n ? rc : say(s, tx, err);
    if (!rc && s->looked) {
        snprintf(cursor, sizeof cursor, "%lld", (long long)s->cursor);
        rc = store_meta_set(tx, key, att_slice_str(cursor), err);
    }
    return rc;
}

enum att_rc issuer_retention_step(struct issuer *issuer, const struct conf_profile *profile,
                                  bool *ret_more, struct att_err *err)
{
    struct step *s = calloc(1, sizeof *s);
    if (!s) {
        return att_fail(err, ATT_E_NOMEM, "retention: no memory");
    }
    *s = (struct step){.issuer = issuer, .profile = profile, .now = issuer->clock()};
    s->cutoff = s->now - profile->retention_s;
    enum att_rc rc = store_run(issuer->store, true, run, s, err);
    *ret_more = !rc && s->looked == LOOKED_AT;
    if (!rc && s->n) {
        att_log(ATT_INFO, "retention.erased", ATT_S("profile", profile->name),
                ATT_N("records", s->n), ATT_N("upTo", s->cursor));
    }
    free(s);
    return rc;
}

void issuer_retention_tick(struct issuer *issuer, const struct conf_issuer *conf)
{
    for (unsigned i = 0; i < conf->n_profiles; i++) {
        struct att_err err = {0};
        bool more = conf->profiles[i].retention_s > 0;
        for (int steps = 0; more && steps < 4; steps++) {
            if (issuer_retention_step(issuer, &conf->profiles[i], &more, &err)) {
                att_log_err(ATT_ERROR, "retention.failed", &err);
                break;
            }
        }
    }
}
