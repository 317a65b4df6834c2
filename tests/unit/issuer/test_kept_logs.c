/* Measurement logs at the issuer: whose may be named, how those that grow are kept, when they end.
 */
#include "provision/store/store_internal.h"
#include "tests/unit/issuer/stage.h"

static void policy_without_the_firmware_log(void **state)
{
    (void)state;
    struct stage s;
    stage_new(&s, "none");
    char text[400];
    snprintf(
        text, sizeof text,
        "{\"name\": \"p\", \"version\": 1, \"bank\": \"sha256\", \"pcrs\": {\"0\": [\"%064d\"]}, "
        "\"logs\": [\"systemd\", \"ima\"]}",
        0);
    att_autojson *result = NULL, *args = json_pack("{s:s}", "text", text);
    struct att_err err = {0};
    assert_int_equal(issuer_admin(s.rig.issuer, NULL, "policy.apply", args, &result, &err),
                     ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "go on from firmware"));
    stage_free(&s);
}

/* ---- what is kept
 * ------------------------------------------------------------------------------------------ */

struct sweep {
    int64_t before, removed;
};

static enum att_rc sweep_blobs(void *user, struct store_tx *tx, struct att_err *err)
{
    struct sweep *s = user;
    return store_blob_sweep(tx, s->before, 1000, &s->removed, err);
}

/* Old evidence goes, its digests stay in the log; a log in use stays; a host whose log went is not
 * told that it is known. */
static void evidence_ends(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "none");
    int64_t start = rig_time;
    rig_time += 1000;
    s.tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "valid");
    struct sweep w = {.before = start + 500};
    rig_ok(store_run(s.rig.issuer->store, true, sweep_blobs, &w, &err));
    assert_int_equal(w.removed, 2); /* M1 and M2; the log came again with M4 */
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    assert_int_equal(client_get(&s.client, o.authz), 200);
    const json_t *challenge = json_array_get(json_object_get(s.client.body, "challenges"), 0);
    assert_int_equal(json_array_size(json_object_get(challenge, "known")), 1);
    w.before = rig_time + 1;
    rig_ok(store_run(s.rig.issuer->store, true, sweep_blobs, &w, &err));
    assert_true(w.removed >= 2);
    assert_int_equal(client_get(&s.client, o.authz), 200);
    challenge = json_array_get(json_object_get(s.client.body, "challenges"), 0);
    assert_int_equal(json_array_size(json_object_get(challenge, "known")), 0);
    rig_ok(issuer_audit_save_head(s.rig.issuer, &err));
    rig_admin_done(&s.rig, "audit.verify", json_object());
    stage_free(&s);
}

struct supply {
    const char *notes;
    struct evidence_logs *logs;
};

static enum att_rc supply_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    struct supply *s = user;
    char digest[65];
    enum att_rc rc = store_blob_put(tx, ATT_SLICE_LIT("a log"), rig_time, digest, err);
    att_autojson *notes = issuer_json(s->notes);
    return rc ? rc : issuer_logs_supply(tx, s->notes ? notes : NULL, s->logs, err);
}

/* A log that is named by its digest comes from the store only for the host that sent it, under the
 * name it was sent with. */
static void logs_of_others(void **state)
{
    (void)state;
    struct stage s;
    uint8_t digest[ATT_SHA256_LEN];
    char hex[65], mine[128], as_ima[128], text[200];
    att_sha256(digest, ATT_SLICE_LIT("a log"));
    att_hex(hex, ATT_SLICE_ARRAY(digest));
    snprintf(mine, sizeof mine, "{\"logs\": {\"firmware\": \"%s\"}}", hex);
    snprintf(as_ima, sizeof as_ima, "{\"logs\": {\"ima\": \"%s\"}}", hex);
    snprintf(text, sizeof text, "[{\"name\": \"firmware\", \"length\": 5, \"sha256\": \"%s\"}]",
             hex);
    const char *const notes[] = {NULL, "", "{}", as_ima, mine};
    stage_new(&s, "none");
    for (size_t i = 0; i < sizeof notes / sizeof notes[0]; i++) {
        struct evidence_logs logs = {0};
        att_autojson *json = json_loads(text, 0, NULL);
        rig_ok(evidence_logs_parse(json, &logs, &err));
        struct supply u = {notes[i], &logs};
        rig_ok(store_run(s.rig.issuer->store, true, supply_tx, &u, &err));
        assert_true(logs.log[0].has_data == (notes[i] == mine));
        evidence_logs_done(&logs);
    }
    stage_free(&s);
}

/* The same of what a log goes on from; and a rest that makes another log than its digest says is no
 * log. */
static void bases_of_others(void **state)
{
    (void)state;
    struct stage s;
    uint8_t digest[ATT_SHA256_LEN];
    char hex[65], mine[128], text[2][300];
    att_autobuf gz = {0}, data = {0};
    att_sha256(digest, ATT_SLICE_LIT("a log"));
    att_hex(hex, ATT_SLICE_ARRAY(digest));
    snprintf(mine, sizeof mine, "{\"logs\": {\"ima\": \"%s\"}}", hex);
    rig_ok(evidence_gzip(ATT_SLICE_LIT(" that grew"), &gz, &err));
    att_buf_b64u(&data, att_buf_slice(&gz));
    for (int i = 0; i < 2; i++) {
        char whole[65];
        att_sha256(digest, i ? ATT_SLICE_LIT("a log that GREW") : ATT_SLICE_LIT("a log that grew"));
        att_hex(whole, ATT_SLICE_ARRAY(digest));
        snprintf(text[i], sizeof text[i],
                 "[{\"name\": \"ima\", \"length\": 15, \"sha256\": \"%s\", \"data\": \"%s\", "
                 "\"base\": {\"length\": 5, \"sha256\": \"%s\"}}]",
                 whole, att_buf_cstr(&data), hex);
    }
    const char *const notes[] = {NULL, "{}", mine};
    stage_new(&s, "none");
    for (size_t i = 0; i < 6; i++) {
        struct evidence_logs logs = {0};
        att_autojson *json = json_loads(text[i / 3], 0, NULL);
        rig_ok(evidence_logs_parse(json, &logs, &err));
        struct supply u = {notes[i % 3], &logs};
        rig_ok(store_run(s.rig.issuer->store, true, supply_tx, &u, &err));
        assert_true(logs.log[0].has_data == (i == 2));
        evidence_logs_done(&logs);
    }
    stage_free(&s);
}

struct growth {
    struct issuer_call call;
    json_t *notes; /* the host's */
    char text[1200];
    size_t steps;
};

/* A log that grows by six bytes at a time, each time behind what was sent before. */
static enum att_rc grow_tx(void *user, struct store_tx *tx, struct att_err *ret_err)
{
    struct growth *g = user;
    (void)ret_err;
    uint8_t base[ATT_SHA256_LEN] = {0};
    size_t len = 0;
    for (size_t i = 0; i < g->steps; i++) {
        struct evidence_logs logs = {0};
        att_autojson *digests = NULL;
        size_t before = len;
        len += (size_t)snprintf(g->text + len, sizeof g->text - len, "%5zu\n", i);
        struct att_slice whole = ATT_SLICE(g->text, len);
        rig_ok(evidence_logs_add(&logs, "ima", whole, &err));
        if (i) {
            rig_ok(evidence_logs_set_base(&logs, "ima", before, base, &err));
        }
        memcpy(base, logs.log[0].sha256, sizeof base);
        char hex[65];
        att_hex(hex, ATT_SLICE_ARRAY(base));
        rig_ok(issuer_logs_keep(&g->call, tx, g->notes, &logs, &digests, &err));
        json_t *kept = json_object_get(digests, "ima");
        size_t parts = json_is_object(kept) ? json_array_size(json_object_get(kept, "parts")) : 1;
        assert_int_equal(parts, 1 + i % 16); /* whole again after 16 */
        json_object_set(g->notes, "logs", digests);
        /* It is known by the digest of the whole, and comes back whole. */
        att_autojson *known = issuer_logs_known(tx, g->notes);
        assert_string_equal(json_string_value(json_object_get(known, "ima")), hex);
        att_buf_done(&logs.log[0].data);
        logs.log[0].has_data = logs.log[0].has_base = false;
        rig_ok(issuer_logs_supply(tx, g->notes, &logs, &err));
        assert_true(logs.log[0].has_data);
        assert_true(att_slice_eq(att_buf_slice(&logs.log[0].data), whole));
        /* The same log again is nothing new. */
        att_autojson *same = NULL;
        rig_ok(issuer_logs_keep(&g->call, tx, g->notes, &logs, &same, &err));
        assert_true(json_equal(same, digests));
        evidence_logs_done(&logs);
    }
    return ATT_OK;
}

static void logs_that_grow(void **state)
{
    (void)state;
    struct stage s;
    stage_new(&s, "none");
    struct growth g = {.call = {.issuer = s.rig.issuer, .now = rig_time}, .steps = 40};
    char id[] = "grower";
    g.call.account.id = id;
    g.notes = json_object();
    rig_ok(store_run(s.rig.issuer->store, true, grow_tx, &g, &err));
    json_decref(g.notes);
    stage_free(&s);
}

/* A record is as good as what it rests on: the parts of a log last as long as records that name
 * them, also those that came long before. */
static enum att_rc last_tx(void *user, struct store_tx *tx, struct att_err *ret_err)
{
    struct growth *g = user;
    (void)ret_err;
    static const int64_t day = 86400;
    uint8_t base[ATT_SHA256_LEN];
    for (size_t i = 0; i < 3; i++) { /* a log, what it grew by, the same again */
        struct evidence_logs logs = {0};
        att_autojson *digests = NULL;
        struct att_slice text = ATT_SLICE("a log, and more", i ? 15 : 5);
        rig_ok(evidence_logs_add(&logs, "ima", text, &err));
        if (i == 1) {
            rig_ok(evidence_logs_set_base(&logs, "ima", 5, base, &err));
        }
        memcpy(base, logs.log[0].sha256, sizeof base);
        rig_ok(issuer_logs_keep(&g->call, tx, g->notes, &logs, &digests, &err));
        json_object_set(g->notes, "logs", digests);
        /* All that is older than this record goes. */
        int64_t removed = 0;
        rig_ok(store_blob_sweep(tx, g->call.now, 1000, &removed, &err));
        att_autojson *known = issuer_logs_known(tx, g->notes);
        assert_non_null(json_object_get(known, "ima"));
        evidence_logs_done(&logs);
        g->call.now += day;
    }
    return ATT_OK;
}

static void parts_last(void **state)
{
    (void)state;
    struct stage s;
    stage_new(&s, "none");
    struct growth g = {.call = {.issuer = s.rig.issuer, .now = rig_time}};
    char id[] = "grower";
    g.call.account.id = id;
    g.notes = json_object();
    rig_ok(store_run(s.rig.issuer->store, true, last_tx, &g, &err));
    json_decref(g.notes);
    stage_free(&s);
}

/* ---- tails
 * ------------------------------------------------------------------------------------------ */

static size_t kept_of_tail(struct issuer_call *call, size_t len)
{
    static const char zeroes[EVIDENCE_TAIL_MAX] = {0};
    struct evidence_logs logs = {0};
    rig_ok(evidence_logs_add(&logs, "ima", ATT_SLICE_LIT("list"), &err));
    rig_ok(evidence_logs_add(&logs, "systemd", ATT_SLICE_LIT("log"), &err));
    rig_ok(evidence_logs_set_tail(&logs, "ima", ATT_SLICE(zeroes, len / 2), &err));
    rig_ok(evidence_logs_set_tail(&logs, "systemd", ATT_SLICE(zeroes, len - len / 2), &err));
    issuer_logs_bound_tails(call, &logs);
    size_t kept = logs.log[0].tail.len + logs.log[1].tail.len;
    evidence_logs_done(&logs);
    return kept;
}

/* A log is kept once, its tail with each statement: an account's share of disk is bounded also in
 * these, and honest tails, of a few entries, are not touched. */
static void tails_are_bounded(void **state)
{
    (void)state;
    struct stage s;
    char id[] = "grower", other[] = "other";
    stage_new(&s, "none");
    struct issuer_call call = {.issuer = s.rig.issuer, .now = rig_time};
    call.account.id = id;
    size_t kept = 0;
    for (size_t i = 0; i < 2048; i++) {
        kept += kept_of_tail(&call, 2 * (EVIDENCE_TAIL_MAX - i));
    }
    assert_in_range(kept, 63 * 2 * (EVIDENCE_TAIL_MAX - 64), 64 * 2 * EVIDENCE_TAIL_MAX);
    assert_int_equal(kept_of_tail(&call, 8192), 8192);
    assert_int_equal(kept_of_tail(&call, 8193), 0);
    call.account.id = other;
    assert_int_equal(kept_of_tail(&call, 8193), 8193);
    stage_free(&s);
}

/* What the record has is what was bounded. */
static void some_tail(struct forge *f, enum forge_stage stage)
{
    static uint8_t noise[40000];
    if (stage == FORGE_DONE) {
        rig_ok(att_random(noise, sizeof noise, &err));
        rig_ok(evidence_logs_add(&f->logs, "ima", ATT_SLICE_LIT("no list"), &err));
        rig_ok(evidence_logs_set_tail(&f->logs, "ima", ATT_SLICE_ARRAY(noise), &err));
    }
}

struct stored {
    struct store *store;
    int64_t bytes;
};

static enum att_rc take_sum(void *user, const struct store_row *row, struct att_err *ret_err)
{
    struct stored *all = user;
    (void)ret_err;
    all->bytes = all->store->ops->row_int(row, 0);
    return ATT_OK;
}

static enum att_rc stored_tx(void *user, struct store_tx *tx, struct att_err *ret_err)
{
    return store_exec(tx, "SELECT sum(length(data)) FROM blobs", NULL, 0, take_sum, user, NULL,
                      ret_err);
}

static int64_t stored(struct stage *s)
{
    struct stored all = {.store = s->rig.issuer->store};
    rig_ok(store_run(all.store, false, stored_tx, &all, &err));
    return all.bytes;
}

static void records_without_tails(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    char firmware[] = "firmware", ima[] = "ima", *logs[] = {firmware, ima};
    stage_enrolled(&s, "none");
    /* A configuration wants PCR 10 with it, which this TPM has not. */
    struct conf_profile *profile = (struct conf_profile *)(uintptr_t)conf_issuer_profile(
        s.rig.issuer->settings->conf, "trading");
    struct conf_profile as_it_was = *profile;
    profile->logs = logs;
    profile->n_logs = 2;
    s.tpm.mutate = some_tail;
    int64_t before = 0;
    for (int i = 0; i < 80; i++) {
        before = i == 70 ? stored(&s) : before;
        assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
        assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "invalid");
        client_refused(&s.client, "evidenceMismatch");
    }
    int64_t after = stored(&s);
    *profile = as_it_was;
    assert_in_range(before, 60 * 40000, 70 * 80000);
    assert_in_range(after - before, 1, 10 * 20000);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(policy_without_the_firmware_log),
        cmocka_unit_test(evidence_ends),
        cmocka_unit_test(logs_of_others),
        cmocka_unit_test(bases_of_others),
        cmocka_unit_test(logs_that_grow),
        cmocka_unit_test(parts_last),
        cmocka_unit_test(tails_are_bounded),
        cmocka_unit_test(records_without_tails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
