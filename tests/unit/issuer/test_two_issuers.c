/* Two issuers on one PostgreSQL: what one does the other knows, and what both do at once is done
 * once. */
#include "tests/unit/issuer/pair.h"

static void judged(struct pair *p, struct order *o)
{
    assert_int_equal(rig_order(&p->a.client, RIG_NAME, o), 201);
    assert_string_equal(rig_m4(&p->a.client, &p->a.tpm, o, p->a.ak), "valid");
}

static int finalize(struct pair *p, const struct order *o)
{
    return rig_finalize(&p->a.client, o, p->a.tpm.base->agent.pkey, FORGE_IDENTIFIER);
}

/* Each message at another issuer. */
static void one_order_by_turns(void **state)
{
    (void)state;
    struct pair p;
    struct order o;
    pair_new(&p);
    judged(&p, &o);
    at(&p, true);
    assert_int_equal(finalize(&p, &o), 200);
    assert_string_equal(client_text(&p.a.client, "status"), "valid");
    char url[256];
    rig_copy(url, sizeof url, client_text(&p.a.client, "certificate"));
    at(&p, false);
    assert_int_equal(client_get(&p.a.client, url), 200);
    rig_ok(issuer_audit_save_head(p.b.issuer, &err));
    rig_admin_done(&p.a.rig, "audit.verify", json_object());
    rig_admin_done(&p.b, "audit.verify", json_object());
    pair_free(&p);
}

/* RFC 8555 §6.5: refused with a fresh one, which holds. */
static void nonce_of_the_other(void **state)
{
    (void)state;
    struct pair p;
    struct client *c = &p.a.client;
    pair_new(&p);
    char nonce[ACME_NONCE_TEXT];
    client_nonce(c, nonce);
    at(&p, true);
    for (int i = 0; i < 2; i++) {
        att_autobuf text = {0};
        client_sign(c, c->kid, nonce, false, ATT_SLICE_LIT("{}"), &text);
        int status = client_send(c, strstr(c->kid, "/acme"), att_buf_slice(&text),
                                 "application/jose+json", NULL);
        assert_int_equal(status, i == 0 ? 400 : 200);
        if (i == 0) {
            client_refused(c, "badNonce");
        }
        rig_copy(nonce, sizeof nonce, c->last.nonce);
    }
    pair_free(&p);
}

struct racer {
    struct client client;
    struct pair *p;
    const struct order *o;
    int status;
};

static pthread_barrier_t together;

static void *race(void *user)
{
    struct racer *r = user;
    pthread_barrier_wait(&together);
    r->status = rig_finalize(&r->client, r->o, r->p->a.tpm.base->agent.pkey, FORGE_IDENTIFIER);
    return NULL;
}

static void two_finalize_one_order(void **state)
{
    (void)state;
    struct pair p;
    pair_new(&p);
    for (int round = 0; round < 5; round++) {
        struct order o;
        struct racer r[2];
        pthread_t threads[2];
        judged(&p, &o);
        int before = rig_rows(&p.a.rig, &store_certs);
        pthread_barrier_init(&together, NULL, 2);
        for (int i = 0; i < 2; i++) {
            r[i] = (struct racer){.client = p.a.client, .p = &p, .o = &o};
            r[i].client.rig = i ? &p.b : &p.a.rig;
            r[i].client.last = (struct issuer_response){0};
            r[i].client.body = NULL;
            EVP_PKEY_up_ref(p.a.client.key);
            assert_int_equal(pthread_create(&threads[i], NULL, race, &r[i]), 0);
        }
        for (int i = 0; i < 2; i++) {
            pthread_join(threads[i], NULL);
        }
        pthread_barrier_destroy(&together);
        int loser = r[0].status == 200 ? 1 : 0;
        assert_int_equal(r[!loser].status, 200);
        assert_int_equal(r[loser].status, 403);
        client_refused(&r[loser].client, "orderNotReady");
        assert_int_equal(rig_rows(&p.a.rig, &store_certs), before + 1);
        client_free(&r[0].client);
        client_free(&r[1].client);
    }
    rig_admin_done(&p.a.rig, "audit.verify", json_object());
    pair_free(&p);
}

/* A ban at one is a ban at the other, between verdict and finalize, too; its waiting hosts are told
 * by the version, which its main loop looks at. */
static void ban_and_view(void **state)
{
    (void)state;
    struct pair p;
    struct order o;
    pair_new(&p);
    judged(&p, &o);
    int64_t before = atomic_load(&p.b.issuer->view_version);
    rig_admin_done(&p.a.rig, "host.ban",
                   json_pack("{s:s, s:s}", "id", p.a.tpm.ek_id, "reason", "stolen"));
    at(&p, true);
    assert_int_equal(finalize(&p, &o), 403);
    client_refused(&p.a.client, "hostBanned");
    assert_int_equal(atomic_load(&p.b.issuer->view_version), before);
    issuer_view_wake(p.b.issuer);
    assert_true(atomic_load(&p.b.issuer->view_version) > before);
    pair_free(&p);
}

static void look(struct rig *r)
{
    r->issuer->intent_look_ms = 0;
    issuer_intent_tick(r->issuer);
}

static enum att_rc find_cert(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_find(tx, &store_certs, "status", STORE_CERT_INTENT, user, err);
}

/* An intent is its maker's for 10 s, then whoever's comes first; the maker, should it live, has
 * what the other issued. */
static void intent_of_a_dead_issuer(void **state)
{
    (void)state;
    struct pair p;
    struct order o;
    struct store_cert cert = {0};
    pair_new(&p);
    judged(&p, &o);
    test_store_sql(p.a.rig.store, "CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS "
                                  "$$BEGIN RAISE 'the disk is broken'; END$$");
    test_store_sql(p.a.rig.store, "CREATE TRIGGER broken BEFORE UPDATE ON certs FOR EACH ROW"
                                  " EXECUTE FUNCTION broken()");
    assert_int_equal(finalize(&p, &o), 200);
    assert_string_equal(client_text(&p.a.client, "status"), "processing");
    test_store_sql(p.a.rig.store, "DROP FUNCTION broken CASCADE");
    rig_ok(store_run(p.b.issuer->store, false, find_cert, &cert, &err));
    at(&p, true);
    rig_time += 9;
    look(&p.b);
    assert_int_equal(client_get(&p.a.client, o.url), 200);
    assert_string_equal(client_text(&p.a.client, "status"), "processing");
    rig_time += 1;
    look(&p.b);
    assert_int_equal(client_get(&p.a.client, o.url), 200);
    assert_string_equal(client_text(&p.a.client, "status"), "valid");
    char url[256];
    rig_copy(url, sizeof url, client_text(&p.a.client, "certificate"));
    assert_int_equal(client_get(&p.a.client, url), 200);
    rig_ok(issuer_intent_sign(p.a.rig.issuer, &cert, &err));
    assert_int_equal(strlen(cert.pem), p.a.client.last.body.len);
    assert_memory_equal(cert.pem, p.a.client.last.body.ptr, p.a.client.last.body.len);
    assert_int_equal(rig_rows(&p.a.rig, &store_certs), 1);
    store_record_done(&store_certs, &cert);
    rig_admin_done(&p.a.rig, "audit.verify", json_object());
    pair_free(&p);
}

/* Its own signed head begins with what the log has by then, and the log says so. */
static void newcomer_starts_a_head(void **state)
{
    (void)state;
    struct pair p;
    pair_new(&p);
    json_t *list = rig_admin(&p.a.rig, "audit.list", json_pack("{s:s}", "kind", "config"));
    const json_t *records = json_object_get(list, "records");
    assert_int_equal(json_array_size(records), 1);
    assert_string_equal(
        issuer_string(json_object_get(json_array_get(records, 0), "record"), "reason"),
        "auditHeadNew");
    json_decref(list);
    rig_ok(issuer_audit_save_head(p.b.issuer, &err));
    rig_admin_done(&p.b, "audit.verify", json_object());
    pair_free(&p);
}

/* 503 and Retry-After, whatever is asked; nothing is half done, and it goes on by itself. */
static void database_away(void **state)
{
    (void)state;
    struct pair p;
    struct order o;
    pair_new(&p);
    judged(&p, &o);
    test_postgres_stop();
    for (int b = 0; b < 2; b++) {
        at(&p, b);
        assert_int_equal(finalize(&p, &o), 503);
        client_refused(&p.a.client, "serverInternal");
        assert_int_equal(p.a.client.last.retry_after_s, 2);
    }
    test_postgres_start();
    int status = 503;
    for (int i = 0; status == 503 && i < 100; i++) {
        usleep(100000); /* a server that refused is not asked again for a quarter of a second */
        status = finalize(&p, &o);
    }
    assert_int_equal(status, 200);
    rig_admin_done(&p.a.rig, "audit.verify", json_object());
    pair_free(&p);
}

#define DNS "dns:\n  profiles:\n    - { name: legacy, lifetime: 2d, names: [\"*.example\"] }\n"

/* Each issuer would have a root of its own otherwise, and agents of one would not know the other's.
 */
static void one_authority_for_dns_names(void **state)
{
    (void)state;
    struct pair p;
    char path[192], command[1024];
    pair_new(&p);
    for (int b = 0; b < 2; b++) {
        struct rig *r = b ? &p.b : &p.a.rig;
        struct att_err why = {0};
        issuer_free(r->issuer);
        r->issuer = NULL;
        rig_config(r, "none", DNS);
        snprintf(path, sizeof path, "%s/issuer.yaml", r->dir);
        assert_int_equal(issuer_open(path, &r->issuer, &why), ATT_E_NOTFOUND);
        assert_string_equal(why.reason, "dnsCa");
        assert_non_null(strstr(why.msg, "ca/dns-"));
        assert_int_equal(issuer_check(path, NULL), ATT_E_NOTFOUND);
    }
    snprintf(path, sizeof path, "%s/issuer.yaml", p.a.rig.dir);
    rig_ok(issuer_init(path, &err)); /* adds it */
    assert_int_equal(issuer_init(path, NULL), ATT_E_EXISTS);
    snprintf(command, sizeof command, "cp -a '%s'/state/ca/dns-* '%s/state/ca/'", p.a.rig.dir,
             p.b.dir);
    assert_int_equal(system(command), 0);
    rig_open(&p.a.rig);
    rig_open(&p.b);
    pair_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_order_by_turns),      cmocka_unit_test(nonce_of_the_other),
        cmocka_unit_test(two_finalize_one_order),  cmocka_unit_test(ban_and_view),
        cmocka_unit_test(intent_of_a_dead_issuer), cmocka_unit_test(newcomer_starts_a_head),
        cmocka_unit_test(database_away),           cmocka_unit_test(one_authority_for_dns_names),
    };
    assert_int_equal(setenv("ATT_TEST_STORE", "postgres", 1), 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
