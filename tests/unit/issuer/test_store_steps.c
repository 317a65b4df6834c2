/* The store down at each step: the n-th transaction of an enrolment or of an order cannot begin, is
 * rolled back at its commit, or stands although nobody was told (the connection broke before the
 * answer), for every n that there is (of those that write, where the commit matters). The client
 * does what RFC 8555 lets it do: asks again after Retry-After, looks at the order, goes on. Then
 * there is one certificate for its order, an intent record before it and one outcome after it, no
 * serial number twice, and the chain holds. */
#include "provision/store/store_internal.h"
#include "tests/unit/issuer/stage.h"

#define TRIES     40
#define STEPS_MAX 200

enum how { NO_BEGIN, ROLLED_BACK, NO_ANSWER, HOWS };
static const char *const words[HOWS] = {"no begin", "rolled back", "no answer"};

/* Between store and database. */
static const struct store_db_ops *real;
static struct store_db_ops faulty;
static enum how how;
static unsigned begun, down_at; /* transactions so far; the one that fails, 0: none */
static struct store_con *doomed;
static bool failed;

static enum att_rc down(struct att_err *err)
{
    failed = true;
    enum att_rc rc = att_fail(err, ATT_E_UNREACHABLE, "the database went away (%s)", words[how]);
    att_err_reason(err, "storeDown");
    return rc;
}

static enum att_rc faulty_begin(struct store_db *db, enum store_mode mode,
                                struct store_con **ret_con, struct att_err *err)
{
    bool counted = how == NO_BEGIN || mode != STORE_READ; /* nothing hangs on a reader's commit */
    begun += counted;
    bool now = counted && begun == down_at;
    if (now && how == NO_BEGIN) {
        return down(err);
    }
    enum att_rc rc = real->begin(db, mode, ret_con, err);
    doomed = now && !rc ? *ret_con : NULL;
    return rc;
}

static enum att_rc faulty_commit(struct store_con *con, struct att_err *err)
{
    if (con != doomed) {
        return real->commit(con, err);
    }
    doomed = NULL;
    if (how == ROLLED_BACK) {
        struct att_err why = {0};
        enum att_rc rc = down(&why);
        real->rollback(con, &why);
        if (err) {
            *err = why;
        }
        return rc;
    }
    enum att_rc rc = real->commit(con, err);
    return rc ? rc : down(err);
}

static void fail_at(struct rig *r, unsigned n, enum how what)
{
    real = r->issuer->store->ops;
    faulty = *real;
    faulty.begin = faulty_begin;
    faulty.commit = faulty_commit;
    r->issuer->store->ops = &faulty;
    begun = 0;
    down_at = n;
    how = what;
    failed = false;
}

static void all_is_well(struct rig *r)
{
    r->issuer->store->ops = real;
    down_at = 0;
}

/* A client that is told to retry: 503 with a time, and nothing else is an excuse. */
static bool again(struct client *c)
{
    if (c->last.status < 500) {
        return false;
    }
    assert_int_equal(c->last.status, 503);
    assert_true(c->last.retry_after_s > 0);
    assert_true(failed);
    return true;
}

/* ---- an order
 * -------------------------------------------------------------------------------- */

static const char *look(struct stage *s, const struct order *o)
{
    s->rig.issuer->intent_try_ms = 0; /* what the main loop does by and by */
    issuer_intent_tick(s->rig.issuer);
    assert_int_equal(client_get(&s->client, o->url), 200);
    return client_text(&s->client, "status");
}

/* To its end; what was asked twice because no answer came may be refused the second time: the order
 * says how far it is. */
static void complete(struct stage *s, struct order *o)
{
    s->tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_order(&s->client, RIG_NAME, o), 201);
    const char *status = "pending";
    for (int i = 0; i < TRIES && strcmp(status, "valid") != 0; i++) {
        if (strcmp(status, "pending") == 0) {
            (void)rig_m4(&s->client, &s->tpm, o, s->ak);
        } else if (strcmp(status, "ready") == 0) {
            (void)rig_finalize(&s->client, o, s->tpm.base->agent.pkey, FORGE_IDENTIFIER);
        }
        status = look(s, o);
    }
    assert_string_equal(status, "valid");
    assert_int_equal(client_get(&s->client, client_text(&s->client, "certificate")), 200);
}

static int ask(struct stage *s, const char *sql)
{
    char n[24];
    test_store_ask(s->rig.store, sql, n, sizeof n);
    return atoi(n);
}

static int of_order(struct stage *s, const char *where, const struct order *o)
{
    char text[400];
    snprintf(text, sizeof text, "SELECT COUNT(*) FROM certs WHERE %s AND ord = '%s'", where,
             strrchr(o->url, '/') + 1);
    return ask(s, text);
}

/* By the database, and by the log. */
static void one_certificate(struct stage *s, const struct order *o)
{
    assert_int_equal(of_order(s, "status = 'issued'", o), 1);
    assert_int_equal(of_order(s, "pem <> ''", o), 1);
    assert_int_equal(ask(s, "SELECT COUNT(*) FROM certs WHERE status = 'intent'"), 0);
    assert_int_equal(ask(s, "SELECT COUNT(*) FROM certs"),
                     ask(s, "SELECT COUNT(DISTINCT serial) FROM certs"));
    const char *by_record = test_store_is_postgres()
                                ? "SELECT COUNT(*) FROM certs c WHERE (SELECT COUNT(*) FROM audit"
                                  " WHERE strpos(record, c.serial) > 0 AND (strpos(record,"
                                  " '\"kind\":\"issued\"') > 0 OR strpos(record,"
                                  " '\"kind\":\"abandoned\"') > 0)) <> 1"
                                : "SELECT COUNT(*) FROM certs c WHERE (SELECT COUNT(*) FROM audit"
                                  " WHERE instr(record, c.serial) > 0 AND (instr(record,"
                                  " '\"kind\":\"issued\"') > 0 OR instr(record,"
                                  " '\"kind\":\"abandoned\"') > 0)) <> 1";
    assert_int_equal(ask(s, by_record), 0);
    rig_ok(issuer_audit_save_head(s->rig.issuer, &err));
    rig_admin_done(&s->rig, "audit.verify", json_object());
}

static void order_down_at_each_step(enum how what)
{
    struct stage s;
    struct order o;
    stage_enrolled(&s, "forge");
    complete(&s, &o);
    unsigned n = 0;
    do {
        s.client.again = again;
        fail_at(&s.rig, ++n, what);
        complete(&s, &o);
        all_is_well(&s.rig);
        s.client.again = NULL;
        one_certificate(&s, &o);
        assert_true(n < STEPS_MAX);
    } while (failed);
    print_message("%s: %u transactions\n", words[what], n - 1);
    /* Five requests, each with its account; newOrder, verdict, intent and outcome write. */
    assert_true(n - 1 >= (what == NO_BEGIN ? 14 : 4));
    stage_free(&s);
}

static void order_no_begin(void **state)
{
    (void)state;
    order_down_at_each_step(NO_BEGIN);
}

static void order_rolled_back(void **state)
{
    (void)state;
    order_down_at_each_step(ROLLED_BACK);
}

static void order_no_answer(void **state)
{
    (void)state;
    order_down_at_each_step(NO_ANSWER);
}

/* ---- an enrolment
 * ---------------------------------------------------------------------------- */

/* M1 until a challenge was had, M2; where an answer was lost, from M1 again (one that is
 * outstanding is replaced). */
static void enrol(struct stage *s, json_t *ticket)
{
    int status = 0;
    for (int i = 0; i < TRIES && status != 200; i++) {
        struct enrolment e = {0};
        if (client_account(&s->client, ticket) / 100 == 2 &&
            rig_m1(&s->client, &s->tpm, NULL, &e) == 201) {
            status = rig_m2(&s->client, &s->tpm, &e);
            rig_copy(s->ak, sizeof s->ak, e.url);
        }
        enrolment_done(&e);
    }
    assert_int_equal(status, 200);
}

static void enrolment_down_at_each_step(enum how what)
{
    unsigned n = 0;
    struct stage s;
    stage_new(&s, "forge");
    do {
        struct stage one = {.rig = s.rig};
        char ek[160];
        tpm_new_other(&one.tpm);
        client_new(&one.client, &one.rig);
        snprintf(ek, sizeof ek, "%s/ek", s.rig.dir);
        rig_pem(ek, "root.pem", one.tpm.base->maker_root);
        reload(&s.rig);
        json_t *ticket = rig_ticket(&s.rig, one.tpm.ek_id, 1);
        int hosts = rig_rows(&s.rig, &store_hosts), accounts = rig_rows(&s.rig, &store_accounts);
        one.client.again = again;
        fail_at(&s.rig, ++n, what);
        enrol(&one, ticket);
        all_is_well(&s.rig);
        issuer_intent_tick(s.rig.issuer);
        json_decref(ticket);
        assert_int_equal(rig_rows(&s.rig, &store_hosts), hosts + 1);
        assert_int_equal(rig_rows(&s.rig, &store_accounts), accounts + 1);
        assert_int_equal(ask(&s, "SELECT COUNT(*) FROM certs WHERE status = 'intent'"), 0);
        rig_admin_done(&s.rig, "audit.verify", json_object());
        client_free(&one.client);
        tpm_free(&one.tpm);
        assert_true(n < STEPS_MAX);
    } while (failed);
    print_message("enrolment, %s: %u transactions\n", words[what], n - 1);
    assert_true(n - 1 >= (what == NO_BEGIN ? 8 : 4)); /* account, M1, M2, outcome */
    stage_free(&s);
}

static void enrolment_no_begin(void **state)
{
    (void)state;
    enrolment_down_at_each_step(NO_BEGIN);
}

static void enrolment_rolled_back(void **state)
{
    (void)state;
    enrolment_down_at_each_step(ROLLED_BACK);
}

static void enrolment_no_answer(void **state)
{
    (void)state;
    enrolment_down_at_each_step(NO_ANSWER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_no_begin),        cmocka_unit_test(order_rolled_back),
        cmocka_unit_test(order_no_answer),       cmocka_unit_test(enrolment_no_begin),
        cmocka_unit_test(enrolment_rolled_back), cmocka_unit_test(enrolment_no_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
