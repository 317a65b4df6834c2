/* What a ticket holder or an enrolled host can leave on the issuer's disk. */
#include "provision/store/store_internal.h"
#include "tests/unit/issuer/stage.h"

#include "provision/evidence/logs.h"

/* ---- what is there
 * ---------------------------------------------------------------------------------------------- */

struct sum {
    struct store *store;
    const char *sql;
    int64_t value;
};

static enum att_rc sum_row(void *user, const struct store_row *row, struct att_err *err)
{
    struct sum *s = user;
    (void)err;
    s->value = s->store->ops->row_int(row, 0);
    return ATT_OK;
}

static enum att_rc sum_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    struct sum *s = user;
    return store_exec(tx, s->sql, NULL, 0, sum_row, s, NULL, err);
}

static int64_t number(struct rig *r, const char *sql)
{
    struct sum s = {.store = r->issuer->store, .sql = sql};
    rig_ok(store_run(r->issuer->store, true, sum_tx, &s, &err));
    return s.value;
}

static int64_t blob_bytes(struct rig *r)
{
    return number(r, "SELECT COALESCE(SUM(LENGTH(data)), 0) FROM blobs");
}

static int64_t records(struct rig *r)
{
    return number(r, "SELECT COUNT(*) FROM audit");
}

static void stranger(struct client *c, struct rig *r)
{
    client_new(c, r);
    json_t *ticket = rig_ticket(r, NULL, 1);
    assert_int_equal(client_account(c, ticket), 201);
    json_decref(ticket);
}

/* ---- accounts
 * ---------------------------------------------------------------------------------------------------
 */

static int contact(struct client *c, int n)
{
    char text[128];
    snprintf(text, sizeof text, "{\"contact\":[\"mailto:a%d@bank.example\"]}", n);
    return client_post_text(c, c->kid, text);
}

static void contacts_without_end(void **state)
{
    (void)state;
    struct stage s;
    struct client c;
    stage_new(&s, "none");
    stranger(&c, &s.rig);
    assert_int_equal(client_post_text(&c, c.kid, "{\"contact\":[\"mailto:\\u0001x\"]}"), 400);
    client_refused(&c, "invalidContact");
    int64_t before = records(&s.rig);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(contact(&c, 0), 200); /* the same again is none */
    }
    assert_int_equal(records(&s.rig), before + 1);
    int n = 1;
    while (contact(&c, n) == 200 && n < 100) {
        n++;
    }
    assert_int_equal(n, ISSUER_RECENT_CHANGES);
    client_refused(&c, "rateLimited");
    assert_true(c.last.retry_after_s > 0);
    assert_int_equal(records(&s.rig), before + ISSUER_RECENT_CHANGES);
    rig_time += ISSUER_RECENT_S;
    assert_int_equal(contact(&c, n), 200);
    client_free(&c);
    stage_free(&s);
}

static void accounts_of_a_ticket_say_when(void **state)
{
    (void)state;
    struct stage s;
    struct client c;
    int status = 201;
    stage_new(&s, "none");
    json_t *ticket = rig_ticket(&s.rig, NULL, 1);
    for (int i = 0; status == 201 && i < 100; i++) {
        client_new(&c, &s.rig);
        status = client_account(&c, ticket);
        assert_true(status == 201 || c.last.retry_after_s > 0);
        client_free(&c);
    }
    assert_int_equal(status, 429);
    json_decref(ticket);
    stage_free(&s);
}

/* Two accounts, and ten, that share a place: neither resets the other. */
static void accounts_that_meet(void **state)
{
    (void)state;
    for (int n = 2; n <= 10; n += 8) {
        char ids[10][ISSUER_ID_LEN];
        struct issuer_limit *limit = issuer_limit_new();
        assert_non_null(limit);
        /* Only the first eight characters are hashed. */
        for (int i = 0; i < n; i++) {
            snprintf(ids[i], sizeof ids[i], "AAAAAAAA%cAAAAAAAAAAAAAAAAA", 'A' + i);
        }
        int turns = 0;
        while (!issuer_limit_reached(limit, ISSUER_LIMIT_REFUSALS, ids[0], 1000) && turns < 2000) {
            for (int i = 0; i < n; i++) {
                issuer_limit_count(limit, ISSUER_LIMIT_REFUSALS, ids[i], 1000);
            }
            turns++;
        }
        assert_true(turns <= ISSUER_RECENT_REFUSALS);
        assert_false(issuer_limit_reached(limit, ISSUER_LIMIT_REFUSALS, "somebody else", 1000));
        assert_false(
            issuer_limit_reached(limit, ISSUER_LIMIT_REFUSALS, ids[0], 1000 + ISSUER_RECENT_S));
        issuer_limit_free(limit);
    }
}

/* ---- M1
 * ---------------------------------------------------------------------------------------------------------
 */

/* Refused at the EK, and blown up with white space, each time another. */
static void padded_m1(struct stage *s, int n, struct att_buf *ret_payload)
{
    att_autojson *o = json_object();
    rig_ok(att_json_set_b64u(o, "ekPub", att_buf_slice(&s->tpm.base->ek.area), &err));
    rig_ok(att_json_set_b64u(o, "akPub", att_buf_slice(&s->tpm.base->ak.area), &err));
    json_object_set_new(
        o, "firmware",
        json_pack("{s:s, s:s}", "manufacturer", "49424d00", "version", "0000000000000001"));
    rig_ok(att_json_dump(o, false, ret_payload, &err));
    while (ret_payload->len < ((size_t)180 << 10)) {
        att_buf_u8(ret_payload, ret_payload->len % 4096 == (size_t)n ? '\t' : ' ');
    }
}

static void padding_of_m1_is_not_kept(void **state)
{
    (void)state;
    struct stage s;
    struct client c;
    stage_new(&s, "none");
    stranger(&c, &s.rig);
    for (int expired = 0; expired < 2; expired++) {
        int64_t before = blob_bytes(&s.rig);
        for (int i = 0; i < 8; i++) {
            att_autobuf payload = {.max = 1 << 20};
            padded_m1(&s, i, &payload);
            client_post(&c, RIG_URL "/newAttestationKey", false, att_buf_slice(&payload));
            client_refused(&c, expired ? "ticketInvalid" : "ekChain");
        }
        assert_true(blob_bytes(&s.rig) - before <= 4096);
        rig_time += 2 * 3600; /* the ticket's life */
    }
    client_free(&c);
    stage_free(&s);
}

/* ---- M4
 * ---------------------------------------------------------------------------------------------------------
 */

static int m4_with_junk(struct stage *s, size_t junk)
{
    struct order o;
    att_autobuf payload = {0}, text = {.max = 12 << 20};
    assert_int_equal(rig_order(&s->client, RIG_NAME, &o), 201);
    s->tpm.clock.clock_ms += 1000;
    rig_m4_payload(&s->client, &s->tpm, &o, s->ak, &payload);
    att_buf_put(&text, payload.ptr, payload.len - 1);
    att_buf_put_str(&text, ",\"junk\":\"");
    for (size_t i = 0; i < junk; i++) {
        att_buf_u8(&text, 'J');
    }
    att_buf_put_str(&text, "\"}");
    return client_post(&s->client, o.challenge, false, att_buf_slice(&text));
}

static void junk_in_a_statement_is_not_kept(void **state)
{
    (void)state;
    struct stage s;
    stage_enrolled(&s, "none");
    int64_t before = blob_bytes(&s.rig);
    assert_int_equal(m4_with_junk(&s, 5 << 20), 400);
    client_refused(&s.client, "malformed");
    assert_int_equal(blob_bytes(&s.rig), before);
    assert_int_equal(m4_with_junk(&s, 20000), 200);
    assert_string_equal(client_text(&s.client, "status"), "valid");
    assert_true(blob_bytes(&s.rig) - before < 20000);
    assert_int_equal(number(&s.rig, "SELECT COUNT(*) FROM blobs WHERE INSTR(data, 'JJJJ') > 0"), 0);
    stage_free(&s);
}

/* A blob that the newest record's evidence names; path: its member, or the member of its logs. */
static void evidence(struct rig *r, bool log, const char *name, struct att_buf *ret)
{
    json_t *list = rig_admin(r, "audit.list", json_pack("{s:s, s:i}", "kind", "issue", "limit", 1));
    const json_t *record =
        json_object_get(json_array_get(json_object_get(list, "records"), 0), "record");
    const json_t *at = json_object_get(record, "evidence");
    at = log ? json_object_get(at, "logs") : at;
    json_t *blob =
        rig_admin(r, "audit.evidence", json_pack("{s:s}", "sha256", issuer_string(at, name)));
    rig_ok(att_json_b64u(blob, "data", 8 << 20, ret, &err));
    json_decref(blob);
    json_decref(list);
}

/* What is kept is enough to judge again: the statement, and the logs that it names by digest. */
static void kept_statement_is_whole(void **state)
{
    (void)state;
    struct stage s;
    struct enrol_m4_request m4 = {0};
    att_autobuf text = {0}, log = {.max = 8 << 20};
    stage_enrolled(&s, "none");
    assert_int_equal(m4_with_junk(&s, 100), 200);
    evidence(&s.rig, false, "m4", &text);
    evidence(&s.rig, true, "firmware", &log);
    rig_ok(enrol_m4_request_parse(att_buf_slice(&text), &m4, &err));
    assert_int_equal(m4.logs.n, 1);
    assert_false(m4.logs.log[0].has_data);
    rig_ok(evidence_logs_supply(&m4.logs, "firmware", att_buf_slice(&log), &err));
    assert_true(m4.quote.sig.len && m4.attobj.len && m4.evidence.len && m4.srk_pub.len);
    enrol_m4_request_done(&m4);
    stage_free(&s);
}

static void more_logs(struct forge *f, enum forge_stage stage)
{
    static const uint8_t log[1000];
    if (stage == FORGE_EVIDENCE) {
        rig_ok(evidence_logs_add(&f->logs, "ima", ATT_SLICE_ARRAY(log), &err));
        rig_ok(evidence_logs_add(&f->statement.logs, "ima", ATT_SLICE_ARRAY(log), &err));
    }
}

static void logs_that_nobody_asked_for(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    att_autobuf payload = {0};
    stage_enrolled(&s, "none");
    int64_t before = blob_bytes(&s.rig);
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    s.tpm.mutate = more_logs;
    rig_m4_payload(&s.client, &s.tpm, &o, s.ak, &payload);
    s.tpm.mutate = NULL;
    assert_int_equal(client_post(&s.client, o.challenge, false, att_buf_slice(&payload)), 400);
    client_refused(&s.client, "malformed");
    assert_int_equal(blob_bytes(&s.rig), before);
    assert_int_equal(client_get(&s.client, o.url), 200);
    assert_string_equal(client_text(&s.client, "status"), "pending");
    stage_free(&s);
}

/* A verdict of "no" is an answer with status 200, and a refusal all the same. */
static void verdicts_count_as_refusals(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "none");
    assert_int_equal(client_get(&s.client, s.ak), 200);
    const char *account = strrchr(s.client.kid, '/') + 1;
    for (int i = 0; i + 1 < ISSUER_RECENT_REFUSALS; i++) {
        issuer_limit_count(s.rig.issuer->limit, ISSUER_LIMIT_REFUSALS, account, rig_time);
    }
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    s.tpm.clock.clock_ms -= 10000;
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "invalid");
    client_refused(&s.client, "clockRollback");
    assert_int_equal(client_get(&s.client, o.url), 429);
    assert_true(s.client.last.retry_after_s > 0);
    stage_free(&s);
}

/* The logs of a few refusals are kept, to see why; not of all. */
static void logs_of_refusals(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "none");
    s.tpm.clock.clock_ms -= 10000;
    for (int i = 0; i < ISSUER_RECENT_REFUSED_LOGS + 1; i++) {
        assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
        assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "invalid");
        json_t *result = rig_admin(&s.rig, "audit.list", json_pack("{s:i}", "limit", 1));
        const json_t *record =
            json_object_get(json_array_get(json_object_get(result, "records"), 0), "record");
        const json_t *logs = json_object_get(json_object_get(record, "evidence"), "logs");
        assert_int_equal(json_object_get(logs, "firmware") != NULL, i < ISSUER_RECENT_REFUSED_LOGS);
        json_decref(result);
    }
    stage_free(&s);
}

/* Ever new logs are judged, and not kept. */
static void new_logs_without_end(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_new(&s, "none");
    for (int full = 0; full < 2; full++) {
        if (full) {
            const char *account = strrchr(s.client.kid, '/') + 1;
            for (int i = 0; i < ISSUER_RECENT_NEW_LOGS; i++) {
                issuer_limit_count(s.rig.issuer->limit, ISSUER_LIMIT_NEW_LOGS, account, rig_time);
            }
            number(&s.rig, "DELETE FROM blobs");
            s.tpm.clock.clock_ms += 1000;
        } else {
            stage_enrol(&s);
        }
        assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
        assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "valid");
        assert_int_equal(
            number(&s.rig, full ? "SELECT COUNT(*) FROM blobs" : "SELECT COUNT(*) >= 2 FROM blobs"),
            1);
    }
    stage_free(&s);
}

/* ---- certificates
 * -----------------------------------------------------------------------------------------------
 */

/* 100 agents with lifetimes of 2 minutes renew 750 times in 10 minutes; nobody does 2048. */
static void certificates_without_end(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    char sql[2][512]; /* the store knows a statement by its address */
    stage_enrolled(&s, "none");
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    const char *columns = "account, host, ak, identifier_type, identifier, profile, 'valid', "
                          "'valid', error, ";
    const int upto[] = {750, CONF_LIMIT_ORDERS};
    for (int i = 0, have = 0; i < 2; have = upto[i++]) {
        snprintf(sql[i], sizeof sql[i],
                 "WITH RECURSIVE n(i) AS (SELECT %d UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
                 " INSERT INTO orders SELECT 'o' || i, %s 't' || i, pcr_selection, logs, policy,"
                 " entry, entry_version, clock, decision, cert, key_spki, created_at, expires_at,"
                 " verdict_at, measured, authz, replaces, parent, hsm FROM n, (SELECT * FROM "
                 "orders LIMIT 1)",
                 have + 1, upto[i], columns);
        number(&s.rig, sql[i]);
        assert_int_equal(rig_order(&s.client, RIG_NAME, &o), i ? 429 : 201);
    }
    client_refused(&s.client, "rateLimited");
    rig_time += ISSUER_RECENT_S + 1;
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    stage_free(&s);
}

/* ---- what stays
 * -------------------------------------------------------------------------------------------------
 */

/* n more certificates of the same kind, ended ones. */
static void history(struct rig *r, int n)
{
    static char sql[640];
    snprintf(sql, sizeof sql,
             "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)"
             " INSERT INTO certs SELECT printf('%%032x', i), 'x' || i, kind, status, subject,"
             " account, host, ord, profile, pem, decision, reason, tbs, not_before,"
             " not_before + 1, created_at - i, ended_at, replaced, firmware"
             " FROM n, (SELECT * FROM certs WHERE kind = 'agent' LIMIT 1)",
             n);
    number(r, sql);
}

static void issue(struct stage *s, struct order *ret_order)
{
    assert_int_equal(rig_order(&s->client, RIG_NAME, ret_order), 201);
    s->tpm.clock.clock_ms += 1000;
    assert_string_equal(rig_m4(&s->client, &s->tpm, ret_order, s->ak), "valid");
    assert_int_equal(rig_finalize(&s->client, ret_order, s->tpm.base->agent.pkey,
                                  "spiffe://bank.example/agent/" RIG_NAME),
                     200);
}

static size_t listed(struct rig *r, json_t *args)
{
    json_t *result = rig_admin(r, "cert.list", args);
    size_t n = json_array_size(json_object_get(result, "certificates"));
    json_decref(result);
    return n;
}

static void long_history_of_a_host(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "none");
    issue(&s, &o);
    history(&s.rig, 20000);
    json_t *host = rig_admin(&s.rig, "host.show", json_pack("{s:s}", "id", s.tpm.ek_id));
    char *text = json_dumps(host, JSON_COMPACT);
    assert_true(strlen(text) < 8192);
    free(text);
    /* The agent's and the AK's. */
    assert_int_equal(json_array_size(json_object_get(host, "certificates")), 2);
    assert_int_equal(json_integer_value(json_object_get(host, "certificatesEver")), 20002);
    json_decref(host);
    json_t *newest =
        rig_admin(&s.rig, "cert.list", json_pack("{s:s, s:i}", "kind", "agent", "limit", 1));
    const json_t *first = json_array_get(json_object_get(newest, "certificates"), 0);
    assert_int_equal(json_array_size(json_object_get(newest, "certificates")), 1);
    assert_int_not_equal(strspn(issuer_string(first, "serial"), "0"), 28);
    json_decref(newest);
    assert_int_equal(listed(&s.rig, json_object()), 200);
    assert_int_equal(listed(&s.rig, json_pack("{s:s}", "kind", "ak")), 1);
    assert_int_equal(listed(&s.rig, json_pack("{s:s, s:i}", "name", RIG_NAME, "limit", 5000)),
                     5000);
    assert_int_equal(listed(&s.rig, json_pack("{s:s}", "name", "rebalancer")), 0);
    assert_int_equal(listed(&s.rig, json_pack("{s:s}", "name", "%")), 0);
    assert_int_equal(
        listed(&s.rig, json_pack("{s:s, s:s}", "host", s.tpm.ek_id, "status", "revoked")), 0);
    rig_admin_refused(&s.rig, "cert.list", json_pack("{s:i}", "limit", 0), "usage");
    /* A ban revokes what is live, not what ended. */
    json_t *ban = rig_admin(&s.rig, "host.ban",
                            json_pack("{s:s, s:s}", "id", s.tpm.ek_id, "reason", "stolen"));
    assert_int_equal(json_integer_value(json_object_get(ban, "revoked")), 2);
    json_decref(ban);
    stage_free(&s);
}

static enum att_rc sweep_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_cert_sweep(tx, rig_time, 1000, user, err);
}

static void bytes_of_ended_certificates(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    int64_t emptied = 0;
    static const char certificate[] = "certificate";
    stage_enrolled(&s, "none");
    issue(&s, &o);
    history(&s.rig, 1500);
    rig_ok(store_run(s.rig.issuer->store, true, sweep_tx, &emptied, &err));
    assert_int_equal(emptied, 1000);
    rig_ok(store_run(s.rig.issuer->store, true, sweep_tx, &emptied, &err));
    assert_int_equal(emptied, 500);
    assert_int_equal(number(&s.rig, "SELECT COUNT(*) FROM certs WHERE tbs <> x''"), 2);
    assert_int_equal(number(&s.rig, "SELECT COUNT(DISTINCT serial) FROM certs"), 1502);
    assert_int_equal(client_get(&s.client, o.url), 200);
    char url[256];
    rig_copy(url, sizeof url, client_text(&s.client, certificate));
    assert_int_equal(client_get(&s.client, url), 200);
    rig_time += 2 * 3600; /* the profile's hour */
    rig_ok(store_run(s.rig.issuer->store, true, sweep_tx, &emptied, &err));
    assert_int_equal(emptied, 1);
    assert_int_equal(client_get(&s.client, url), 404);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(contacts_without_end),
        cmocka_unit_test(accounts_of_a_ticket_say_when),
        cmocka_unit_test(accounts_that_meet),
        cmocka_unit_test(padding_of_m1_is_not_kept),
        cmocka_unit_test(junk_in_a_statement_is_not_kept),
        cmocka_unit_test(kept_statement_is_whole),
        cmocka_unit_test(logs_that_nobody_asked_for),
        cmocka_unit_test(verdicts_count_as_refusals),
        cmocka_unit_test(logs_of_refusals),
        cmocka_unit_test(new_logs_without_end),
        cmocka_unit_test(certificates_without_end),
        cmocka_unit_test(long_history_of_a_host),
        cmocka_unit_test(bytes_of_ended_certificates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
