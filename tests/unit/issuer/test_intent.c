/* Between intent and outcome: what the store or the signing refuses there is completed by the
 * running issuer, with the same bytes to sign, once; or abandoned, and the order says why. The
 * failures are the database's own: a trigger that a second connection puts into it. */
#include "tests/unit/issuer/rig.h"

#include <openssl/rand.h>

struct stage {
    struct rig rig;
    struct tpm tpm;
    struct client client;
    char ak[256];
};

static void stage_new(struct stage *s)
{
    char selector[80];
    tpm_new(&s->tpm);
    rig_new(&s->rig, s->tpm.base->maker_root, "none");
    client_new(&s->client, &s->rig);
    rig_enrol(&s->client, &s->tpm, s->ak);
    snprintf(selector, sizeof selector, "ek:%s", s->tpm.ek_id);
    rig_entries(&s->rig, selector);
}

static void stage_free(struct stage *s)
{
    client_free(&s->client);
    rig_free(&s->rig);
    tpm_free(&s->tpm);
}

static void sql(struct stage *s, const char *text)
{
    test_store_sql(s->rig.store, text);
}

/* Each in both databases' words: SQLite's trigger has its body, PostgreSQL's a function. */
static void break_certs(struct stage *s, bool all)
{
    if (test_store_is_postgres()) {
        sql(s, "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS "
               "$$BEGIN RAISE 'the disk is broken'; END$$");
        sql(s, all ? "CREATE TRIGGER broken BEFORE UPDATE ON certs FOR EACH ROW"
                     " EXECUTE FUNCTION broken()"
                   : "CREATE TRIGGER broken BEFORE UPDATE ON certs FOR EACH ROW"
                     " WHEN (NEW.status = 'issued') EXECUTE FUNCTION broken()");
    } else {
        sql(s, all ? "CREATE TRIGGER broken BEFORE UPDATE ON certs "
                     "BEGIN SELECT RAISE(ABORT, 'the disk is broken'); END"
                   : "CREATE TRIGGER broken BEFORE UPDATE ON certs WHEN NEW.status = 'issued' "
                     "BEGIN SELECT RAISE(ABORT, 'the disk is broken'); END");
    }
}

static void mend(struct stage *s)
{
    sql(s, test_store_is_postgres() ? "DROP FUNCTION broken CASCADE" : "DROP TRIGGER broken");
}

/* The next try is due at once. */
static void tick(struct stage *s)
{
    s->rig.issuer->intent_try_ms = 0;
    issuer_intent_tick(s->rig.issuer);
}

/* An order whose finalize was answered by "processing". */
static void stuck(struct stage *s, struct order *o)
{
    assert_int_equal(rig_order(&s->client, RIG_NAME, o), 201);
    assert_string_equal(rig_m4(&s->client, &s->tpm, o, s->ak), "valid");
    assert_int_equal(rig_finalize(&s->client, o, s->tpm.base->agent.pkey, FORGE_IDENTIFIER), 200);
    assert_string_equal(client_text(&s->client, "status"), "processing");
    assert_int_equal(s->client.last.retry_after_s, 1);
}

static const char *status_of(struct stage *s, const struct order *o)
{
    assert_int_equal(client_get(&s->client, o->url), 200);
    return client_text(&s->client, "status");
}

/* How many records of this kind speak of this serial number. */
static int records(struct stage *s, const char *kind, const char *serial)
{
    json_t *audit = rig_admin(&s->rig, "audit.list", json_pack("{s:s}", "kind", kind));
    size_t i;
    json_t *row;
    int n = 0;
    json_array_foreach(json_object_get(audit, "records"), i, row)
    {
        n += strcmp(issuer_string(json_object_get(row, "record"), "serial"), serial) == 0;
    }
    json_decref(audit);
    return n;
}

struct newest {
    struct store_cert *cert;
    const char *kind, *ord; /* id of the order or AK record; NULL: any */
    int n;
};

static enum att_rc take(void *user, const void *record, struct att_err *err)
{
    struct newest *w = user;
    const struct store_cert *c = record;
    (void)err;
    if (strcmp(c->kind, w->kind) == 0 && (!w->ord || strcmp(c->ord, w->ord) == 0)) {
        store_record_done(&store_certs, w->cert);
        assert_true(issuer_set(&w->cert->serial, c->serial) &&
                    issuer_set(&w->cert->status, c->status) && issuer_set(&w->cert->pem, c->pem) &&
                    issuer_set(&w->cert->reason, c->reason));
        put(&w->cert->tbs, att_buf_slice(&c->tbs));
        w->n++;
    }
    return ATT_OK;
}

static enum att_rc find(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_each(tx, &store_certs, NULL, NULL, take, user, err);
}

/* The one certificate row of an order or AK record; the caller's. */
static struct store_cert row_of(struct stage *s, const char *kind, const char *url)
{
    struct store_cert cert = {0};
    struct newest w = {&cert, kind, strrchr(url, '/') + 1, 0};
    rig_ok(store_run(s->rig.issuer->store, false, find, &w, &err));
    assert_int_equal(w.n, 1);
    return cert;
}

static void audit_holds(struct stage *s)
{
    rig_ok(issuer_audit_save_head(s->rig.issuer, &err));
    rig_admin_done(&s->rig, "audit.verify", json_object());
}

/* The bytes that were intended are what was signed. */
static void assert_same_tbs(const struct store_cert *cert)
{
    certs_autostack *certs = NULL;
    rig_ok(certs_pem_parse(att_slice_str(cert->pem), &certs, &err));
    uint8_t *tbs = NULL;
    int len = i2d_re_X509_tbs(sk_X509_value(certs, 0), &tbs);
    assert_true(len > 0 && att_slice_eq(ATT_SLICE(tbs, (size_t)len), att_buf_slice(&cert->tbs)));
    OPENSSL_free(tbs);
}

static void completed_without_restart(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_new(&s);
    break_certs(&s, false);
    stuck(&s, &o);
    struct store_cert before = row_of(&s, "agent", o.url);
    assert_string_equal(before.status, STORE_CERT_INTENT);
    /* Tries, as long as it has to. */
    for (int64_t pause = 1000; pause <= 128000; pause *= 2) {
        tick(&s);
        assert_int_equal(s.rig.issuer->intent_pause_ms, pause < 60000 ? pause : 60000);
        assert_string_equal(status_of(&s, &o), "processing");
        assert_int_equal(s.client.last.retry_after_s, 1);
    }
    mend(&s);
    issuer_intent_tick(s.rig.issuer); /* not before its time */
    assert_string_equal(status_of(&s, &o), "processing");
    tick(&s);
    assert_string_equal(status_of(&s, &o), "valid");
    assert_int_equal(s.rig.issuer->intent_pause_ms, 0);
    char url[256];
    rig_copy(url, sizeof url, client_text(&s.client, "certificate"));
    assert_int_equal(client_get(&s.client, url), 200);
    struct store_cert after = row_of(&s, "agent", o.url);
    assert_string_equal(after.serial, before.serial);
    assert_true(att_slice_eq(att_buf_slice(&after.tbs), att_buf_slice(&before.tbs)));
    assert_same_tbs(&after);
    tick(&s); /* nothing to do, and nothing done */
    assert_int_equal(records(&s, "intent", after.serial), 1);
    assert_int_equal(records(&s, "issued", after.serial), 1);
    assert_int_equal(records(&s, "abandoned", after.serial), 0);
    audit_holds(&s);
    store_record_done(&store_certs, &before);
    store_record_done(&store_certs, &after);
    stage_free(&s);
}

/* It never came to be: the order says so and why, and another order has another serial number. */
static void abandoned_when_too_late(void **state)
{
    (void)state;
    struct stage s;
    struct order o, next;
    stage_new(&s);
    break_certs(&s, true);
    stuck(&s, &o);
    rig_time += ISSUER_ORDER_S;
    tick(&s); /* nor can that be written */
    assert_string_equal(status_of(&s, &o), "processing");
    mend(&s);
    tick(&s);
    assert_string_equal(status_of(&s, &o), "invalid");
    const json_t *error = json_object_get(s.client.body, "error");
    assert_string_equal(issuer_string(error, "type"), "urn:ietf:params:acme:error:serverInternal");
    assert_non_null(strstr(issuer_string(error, "detail"), "order again"));
    assert_string_equal(client_reason(&s.client), "expired");
    assert_null(json_object_get(s.client.body, "certificate"));
    /* The evidence was good: its challenge has no error. */
    assert_int_equal(client_get(&s.client, o.challenge), 200);
    assert_string_equal(client_text(&s.client, "status"), "valid");
    assert_null(json_object_get(s.client.body, "error"));
    struct store_cert row = row_of(&s, "agent", o.url);
    assert_string_equal(row.status, STORE_CERT_ABANDONED);
    assert_string_equal(row.pem, "");
    assert_int_equal(records(&s, "abandoned", row.serial), 1);
    assert_int_equal(records(&s, "issued", row.serial), 0);
    tick(&s);
    assert_int_equal(records(&s, "abandoned", row.serial), 1);
    assert_int_equal(rig_order(&s.client, RIG_NAME, &next), 201);
    assert_string_equal(rig_m4(&s.client, &s.tpm, &next, s.ak), "valid");
    assert_int_equal(rig_finalize(&s.client, &next, s.tpm.base->agent.pkey, FORGE_IDENTIFIER), 200);
    assert_string_equal(client_text(&s.client, "status"), "valid");
    struct store_cert other = row_of(&s, "agent", next.url);
    assert_string_not_equal(other.serial, row.serial);
    audit_holds(&s);
    store_record_done(&store_certs, &row);
    store_record_done(&store_certs, &other);
    stage_free(&s);
}

static int64_t after_all(void)
{
    return INT64_C(9999999999) + 10;
}

/* What the other issuers left is looked at now. */
static void look(struct stage *s)
{
    s->rig.issuer->intent_look_ms = 0;
    issuer_intent_tick(s->rig.issuer);
}

/* A start finds what a crash left, and what it cannot complete does not keep it from serving. */
static void start_goes_on(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_new(&s);
    break_certs(&s, false);
    stuck(&s, &o);
    issuer_free(s.rig.issuer);
    /* The rig's clock is set after the opening: the order is of "now" to both. */
    sql(&s, "UPDATE certs SET created_at = 9999999999 WHERE status = 'intent'");
    rig_open(&s.rig);
    /* In a store that others share it may be a living issuer's, for its first 10 s. */
    bool shared = store_shared(s.rig.issuer->store);
    assert_int_equal(atomic_load(&s.rig.issuer->intents_left), shared ? 0 : 1);
    assert_string_equal(status_of(&s, &o), "processing");
    mend(&s);
    if (shared) {
        look(&s);
        assert_string_equal(status_of(&s, &o), "processing");
        s.rig.issuer->clock = after_all;
        look(&s);
    } else {
        tick(&s);
    }
    assert_string_equal(status_of(&s, &o), "valid");
    audit_holds(&s);
    stage_free(&s);
}

static void banned_meanwhile(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_new(&s);
    break_certs(&s, false);
    stuck(&s, &o);
    mend(&s);
    rig_admin_done(&s.rig, "host.ban",
                   json_pack("{s:s, s:s}", "id", s.tpm.ek_id, "reason", "lost"));
    tick(&s);
    assert_string_equal(status_of(&s, &o), "invalid");
    assert_string_equal(client_reason(&s.client), "hostBanned");
    struct store_cert row = row_of(&s, "agent", o.url);
    assert_string_equal(row.status, STORE_CERT_REVOKED);
    assert_string_equal(row.pem, "");
    assert_int_equal(records(&s, "issued", row.serial), 0);
    assert_int_equal(records(&s, "abandoned", row.serial), 0);
    assert_int_equal(records(&s, "revoke", row.serial), 1);
    audit_holds(&s);
    store_record_done(&store_certs, &row);
    stage_free(&s);
}

/* Nobody retries what an operator took away: the order says so at once. */
static void entry_deleted_meanwhile(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_new(&s);
    break_certs(&s, false);
    stuck(&s, &o);
    mend(&s);
    rig_admin_done(&s.rig, "entry.delete", json_pack("{s:s}", "name", RIG_NAME));
    assert_string_equal(status_of(&s, &o), "invalid");
    assert_string_equal(client_reason(&s.client), "notAssigned");
    tick(&s);
    struct store_cert row = row_of(&s, "agent", o.url);
    assert_string_equal(row.status, STORE_CERT_REVOKED);
    assert_int_equal(records(&s, "abandoned", row.serial), 0);
    audit_holds(&s);
    store_record_done(&store_certs, &row);
    stage_free(&s);
}

static void ca_replaced_meanwhile(void **state)
{
    (void)state;
    struct stage s, other;
    struct order o;
    stage_new(&s);
    stage_new(&other);
    break_certs(&s, false);
    stuck(&s, &o);
    mend(&s);
    struct issuer_ca *ca = s.rig.issuer->ca, *ca2 = other.rig.issuer->ca;
    X509 *cert = ca->workload_ca;
    EVP_PKEY *key = ca->workload_key;
    ca->workload_ca = ca2->workload_ca;
    ca->workload_key = ca2->workload_key;
    tick(&s);
    const char *reason = "caReplaced";
    if (store_shared(s.rig.issuer->store)) { /* it may be that of an issuer with the CA before */
        assert_string_equal(status_of(&s, &o), "processing");
        rig_time += 300;
        look(&s);
        reason = "expired";
    }
    assert_string_equal(status_of(&s, &o), "invalid");
    assert_string_equal(client_reason(&s.client), reason);
    ca->workload_ca = cert;
    ca->workload_key = key;
    audit_holds(&s);
    stage_free(&other);
    stage_free(&s);
}

/* M2's certificate, and one whose AK record was replaced meanwhile. */
static void attestation_keys(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment first, second;
    stage_new(&s);
    break_certs(&s, false);
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &first), 201);
    s.tpm.clock.clock_ms += 1000;
    assert_int_not_equal(rig_m2(&s.client, &s.tpm, &first), 200);
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &second), 201);
    s.tpm.clock.clock_ms += 1000;
    assert_int_not_equal(rig_m2(&s.client, &s.tpm, &second), 200);
    mend(&s);
    tick(&s);
    struct store_cert old = row_of(&s, "ak", first.url), now = row_of(&s, "ak", second.url);
    assert_string_equal(old.status, STORE_CERT_ABANDONED);
    assert_string_equal(old.reason, "superseded");
    assert_string_equal(now.status, STORE_CERT_ISSUED);
    assert_same_tbs(&now);
    assert_int_equal(client_get(&s.client, second.url), 200);
    assert_string_equal(client_text(&s.client, "akCertificate"), now.pem);
    audit_holds(&s);
    store_record_done(&store_certs, &old);
    store_record_done(&store_certs, &now);
    enrolment_done(&first);
    enrolment_done(&second);
    stage_free(&s);
}

/* ---- several at once --------------------------------------------------------------------------
 */

#define ORDERS  6
#define THREADS 8

static pthread_barrier_t together;

static void *recover(void *user)
{
    struct stage *s = user;
    size_t left = 0;
    pthread_barrier_wait(&together);
    return issuer_intent_recover(s->rig.issuer, false, &left, NULL) == ATT_OK ? NULL : "failed";
}

struct signing {
    struct stage *s;
    struct store_cert cert;
};

static void *sign(void *user)
{
    struct signing *w = user;
    pthread_barrier_wait(&together);
    return issuer_intent_sign(w->s->rig.issuer, &w->cert, NULL) == ATT_OK ? NULL : "failed";
}

/* Timer, start and request, all at the same intents: one outcome each, and everyone has it. */
static void one_outcome(void **state)
{
    (void)state;
    struct stage s;
    struct order o[ORDERS];
    pthread_t threads[THREADS];
    stage_new(&s);
    break_certs(&s, false);
    for (size_t i = 0; i < ORDERS; i++) {
        stuck(&s, &o[i]);
    }
    mend(&s);
    struct signing requests[2] = {{&s, row_of(&s, "agent", o[0].url)},
                                  {&s, row_of(&s, "agent", o[0].url)}};
    for (size_t i = 0; i < 2; i++) {
        assert_true(issuer_set(&requests[i].cert.kind, "agent") &&
                    issuer_set(&requests[i].cert.id, "of-the-request") &&
                    issuer_set(&requests[i].cert.ord, strrchr(o[0].url, '/') + 1));
    }
    pthread_barrier_init(&together, NULL, THREADS);
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, i < 2 ? sign : recover,
                                        i < 2 ? (void *)&requests[i] : (void *)&s),
                         0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        void *failed = NULL;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    pthread_barrier_destroy(&together);
    for (size_t i = 0; i < ORDERS; i++) {
        assert_string_equal(status_of(&s, &o[i]), "valid");
        struct store_cert row = row_of(&s, "agent", o[i].url);
        assert_int_equal(records(&s, "intent", row.serial), 1);
        assert_int_equal(records(&s, "issued", row.serial), 1);
        assert_int_equal(records(&s, "abandoned", row.serial), 0);
        if (i == 0) {
            assert_string_equal(requests[0].cert.pem, row.pem);
            assert_string_equal(requests[1].cert.pem, row.pem);
        }
        store_record_done(&store_certs, &row);
    }
    audit_holds(&s);
    store_record_done(&store_certs, &requests[0].cert);
    store_record_done(&store_certs, &requests[1].cert);
    stage_free(&s);
}

/* ---- a random number that was drawn before
 * ---------------------------------------------------------------------------- */

static const uint8_t *drawn; /* NULL: random ones */

/* In place of libcrypto's, for this program. */
int RAND_bytes(unsigned char *ret, int n)
{
    if (drawn && n == CERTS_SERIAL_LEN) {
        memcpy(ret, drawn, CERTS_SERIAL_LEN);
        return 1;
    }
    return RAND_bytes_ex(NULL, ret, (size_t)n, 0);
}

/* Nothing is signed under it; the order stays ready, and its client gets another number. Were it
 * not refused as one that is there, the store would refuse that a certificate's fixed columns
 * change. */
static void serial_twice(void **state)
{
    (void)state;
    struct stage s;
    struct order o, next;
    uint8_t serial[CERTS_SERIAL_LEN];
    stage_new(&s);
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "valid");
    assert_int_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER), 200);
    struct store_cert first = row_of(&s, "agent", o.url);
    rig_ok(att_unhex_exact(serial, sizeof serial, first.serial, &err));

    assert_int_equal(rig_order(&s.client, RIG_NAME, &next), 201);
    assert_string_equal(rig_m4(&s.client, &s.tpm, &next, s.ak), "valid");
    drawn = serial;
    int status = rig_finalize(&s.client, &next, s.tpm.base->agent.pkey, FORGE_IDENTIFIER);
    drawn = NULL;
    assert_int_equal(status, 500);
    assert_int_equal(records(&s, "intent", first.serial), 1);
    assert_int_equal(records(&s, "issued", first.serial), 1);
    assert_string_equal(status_of(&s, &next), "ready");
    struct store_cert same = row_of(&s, "agent", o.url);
    assert_true(att_slice_eq(att_buf_slice(&same.tbs), att_buf_slice(&first.tbs)));
    assert_int_equal(rig_finalize(&s.client, &next, s.tpm.base->agent.pkey, FORGE_IDENTIFIER), 200);
    struct store_cert other = row_of(&s, "agent", next.url);
    assert_string_not_equal(other.serial, first.serial);
    audit_holds(&s);
    store_record_done(&store_certs, &first);
    store_record_done(&store_certs, &same);
    store_record_done(&store_certs, &other);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(serial_twice),
        cmocka_unit_test(completed_without_restart),
        cmocka_unit_test(abandoned_when_too_late),
        cmocka_unit_test(start_goes_on),
        cmocka_unit_test(banned_meanwhile),
        cmocka_unit_test(entry_deleted_meanwhile),
        cmocka_unit_test(ca_replaced_meanwhile),
        cmocka_unit_test(attestation_keys),
        cmocka_unit_test(one_outcome),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
