/* RFC 8555's rules for requests, races, interrupted signatures, and the audit log of an issuer. */
#include "tests/unit/issuer/rig.h"

#include <pthread.h>

struct world {
    struct rig rig;
    struct tpm tpm;
    struct client client;
    char ak[256];
};

static void world_new(struct world *w, bool enrolled)
{
    char selector[80];
    tpm_new(&w->tpm);
    rig_new(&w->rig, w->tpm.base->maker_root, "none");
    client_new(&w->client, &w->rig);
    if (enrolled) {
        rig_enrol(&w->client, &w->tpm, w->ak);
        snprintf(selector, sizeof selector, "ek:%s", w->tpm.ek_id);
        rig_entries(&w->rig, selector);
    }
}

static void world_free(struct world *w)
{
    client_free(&w->client);
    rig_free(&w->rig);
    tpm_free(&w->tpm);
}

static int plain(struct world *w, enum issuer_method method, const char *path)
{
    struct issuer_request request = {.method = method, .path = path};
    issuer_response_done(&w->client.last);
    issuer_handle(w->rig.issuer, &request, &w->client.last);
    return w->client.last.status;
}

static void methods(void **state)
{
    (void)state;
    struct world w;
    world_new(&w, false);
    assert_int_equal(plain(&w, ISSUER_GET, "/acme/directory"), 200);
    assert_int_equal(plain(&w, ISSUER_HEAD, "/acme/newNonce"), 200);
    assert_true(w.client.last.nonce[0] != 0);
    assert_int_equal(plain(&w, ISSUER_GET, "/acme/newNonce"), 204); /* RFC 8555 §7.2 */
    assert_true(w.client.last.nonce[0] != 0);
    static const char *const posted[] = {
        "newAccount", "newOrder",    "newAttestationKey", "hostView",      "account/x", "order/x",
        "authz/x",    "challenge/x", "finalize/x",        "certificate/x", "ak/x"};
    for (size_t i = 0; i < sizeof posted / sizeof posted[0]; i++) {
        char path[64];
        snprintf(path, sizeof path, "/acme/%s", posted[i]);
        assert_int_equal(plain(&w, ISSUER_GET, path), 405);
        assert_non_null(
            strstr((char *)w.client.last.body.ptr, "urn:ietf:params:acme:error:malformed"));
        assert_string_equal(w.client.last.allow, "POST");
        assert_int_equal(plain(&w, ISSUER_OTHER, path), 405);
    }
    assert_int_equal(plain(&w, ISSUER_POST, "/acme/directory"), 405);
    static const char *const nowhere[] = {
        "/",           "/acme",        "/acme/",          "/acme/nothing",   "/acmenewOrder",
        "/acme/order", "/acme/order/", "/acme/order/a/b", "/acme/newOrder/", "/other/directory"};
    for (size_t i = 0; i < sizeof nowhere / sizeof nowhere[0]; i++) {
        assert_int_equal(plain(&w, ISSUER_GET, nowhere[i]), 404);
    }
    world_free(&w);
}

static int send_text(struct world *w, const char *path, struct att_buf *text, const char *type)
{
    return client_send(&w->client, path, att_buf_slice(text), type, NULL);
}

static void jws_rules(void **state)
{
    (void)state;
    struct world w;
    char nonce[ACME_NONCE_TEXT];
    att_autobuf text = {0};
    static const char order[] =
        "{\"identifiers\":[{\"type\":\"spiffe-id\",\"value\":\"" FORGE_IDENTIFIER "\"}]}";
    struct att_slice payload = att_slice_str(order);
    world_new(&w, true);
    struct client *c = &w.client;
    /* Content-Type: RFC 8555 §6.2. */
    static const char *const types[] = {
        NULL, "", "application/json", "application/jose", "application/jose+jsonx", "text/plain"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        client_nonce(c, nonce);
        att_buf_reset(&text);
        client_sign(c, RIG_URL "/newOrder", nonce, false, payload, &text);
        assert_int_equal(send_text(&w, "/acme/newOrder", &text, types[i]), 415);
        assert_true(c->last.nonce[0] != 0);
    }
    /* A nonce that was spent, and one that was never given: badNonce with a fresh one. */
    client_nonce(c, nonce);
    att_buf_reset(&text);
    client_sign(c, RIG_URL "/newOrder", nonce, false, payload, &text);
    assert_int_equal(send_text(&w, "/acme/newOrder", &text, "application/jose+json"), 201);
    assert_int_equal(send_text(&w, "/acme/newOrder", &text, "application/jose+json"), 400);
    client_refused(c, "badNonce");
    assert_true(c->last.nonce[0] != 0 && strcmp(c->last.nonce, nonce) != 0);
    att_buf_reset(&text);
    client_sign(c, RIG_URL "/newOrder", "AAAAAAAA", false, payload, &text);
    assert_int_equal(send_text(&w, "/acme/newOrder", &text, "application/jose+json"), 400);
    client_refused(c, "badNonce");
    /* Signed for another resource, or another server. */
    static const char *const urls[] = {RIG_URL "/newAccount", "https://evil.example/acme/newOrder",
                                       "https://127.0.0.1:8444/acme/newOrder",
                                       RIG_URL "/newOrder/"};
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        client_nonce(c, nonce);
        att_buf_reset(&text);
        client_sign(c, urls[i], nonce, false, payload, &text);
        assert_int_equal(send_text(&w, "/acme/newOrder", &text, "application/jose+json"), 403);
        client_refused(c, "unauthorized");
    }
    /* jwk where kid is meant. */
    assert_int_equal(client_post(c, RIG_URL "/newOrder", true, payload), 400);
    client_refused(c, "malformed");
    /* Somebody else's signature under this kid. */
    EVP_PKEY *mine = c->key;
    c->key = forge_p256();
    assert_true(client_post(c, RIG_URL "/newOrder", false, payload) >= 400);
    client_refused(c, "unauthorized");
    EVP_PKEY_free(c->key);
    c->key = mine;
    /* A kid that is none of ours. */
    char kid[256];
    snprintf(kid, sizeof kid, "%s", c->kid);
    snprintf(c->kid, sizeof c->kid, RIG_URL "/account/nobody");
    assert_int_equal(client_post(c, RIG_URL "/newOrder", false, payload), 400);
    client_refused(c, "accountDoesNotExist");
    snprintf(c->kid, sizeof c->kid, "%s", kid);
    assert_int_equal(rig_rows(&w.rig, &store_orders), 1);
    /* POST-as-GET has an empty payload. */
    assert_int_equal(client_post_text(c, RIG_URL "/hostView", "{}"), 400);
    /* Bytes that are no JWS. */
    static const char *const junk[] = {"", "{", "[]", "a.b.c", "{\"payload\":\"\"}", "\xff\xfe"};
    for (size_t i = 0; i < sizeof junk / sizeof junk[0]; i++) {
        assert_int_equal(
            client_send(c, "/acme/newOrder", att_slice_str(junk[i]), "application/jose+json", NULL),
            400);
        client_refused(c, "malformed");
        assert_true(c->last.nonce[0] != 0);
    }
    world_free(&w);
}

static void accounts(void **state)
{
    (void)state;
    struct world w;
    struct order o;
    world_new(&w, true);
    struct client *c = &w.client;
    /* The same key again is the same account. */
    char kid[256];
    snprintf(kid, sizeof kid, "%s", c->kid);
    assert_int_equal(client_account(c, NULL), 200);
    assert_string_equal(c->kid, kid);
    assert_int_equal(client_get(c, c->kid), 200);
    assert_non_null(json_object_get(c->body, "externalAccountBinding"));
    assert_int_equal(rig_order(c, RIG_NAME, &o), 201);
    char orders[300];
    assert_int_equal(client_get(c, c->kid), 200);
    snprintf(orders, sizeof orders, "%s", client_text(c, "orders"));
    assert_int_equal(client_get(c, orders), 200);
    assert_int_equal(json_array_size(json_object_get(c->body, "orders")), 1);
    struct client other;
    client_new(&other, &w.rig);
    json_t *ticket = rig_ticket(&w.rig, NULL, 1);
    assert_int_equal(client_account(&other, ticket), 201);
    json_decref(ticket);
    assert_int_equal(client_get(&other, c->kid), 403);
    assert_int_equal(client_get(&other, orders), 403);
    assert_int_equal(client_post_text(&other, c->kid, "{\"status\":\"deactivated\"}"), 403);
    client_free(&other);
    assert_int_equal(
        client_post(c, RIG_URL "/newAccount", true, ATT_SLICE_LIT("{\"onlyReturnExisting\":true}")),
        200);
    assert_int_equal(client_post_text(c, c->kid, "{\"status\":\"gone\"}"), 400);
    assert_int_equal(client_post_text(c, c->kid, "{\"status\":\"deactivated\"}"), 200);
    assert_int_not_equal(rig_order(c, RIG_NAME, &o), 201);
    client_refused(c, "unauthorized");
    client_new(&other, &w.rig);
    assert_int_equal(client_post(&other, RIG_URL "/newAccount", true,
                                 ATT_SLICE_LIT("{\"onlyReturnExisting\":true}")),
                     400);
    client_refused(&other, "accountDoesNotExist");
    client_free(&other);
    world_free(&w);
}

struct roll {
    const char *thumbprint, *jwk;
};

static enum att_rc roll_key(void *user, struct store_tx *tx, struct att_err *err)
{
    const struct roll *r = user;
    struct store_account account = {0};
    enum att_rc rc = store_find(tx, &store_accounts, "thumbprint", r->thumbprint, &account, err);
    if (!rc) {
        rc = issuer_set(&account.jwk, r->jwk) ? store_put(tx, &store_accounts, &account, err)
                                              : ATT_E_NOMEM;
    }
    store_record_done(&store_accounts, &account);
    return rc;
}

/* The key that counts is the one in the account's row at this moment, however often another was
 * used and remembered before. */
static void old_key_is_not_remembered(void **state)
{
    (void)state;
    struct world w;
    world_new(&w, true);
    struct client *c = &w.client, fresh;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(client_get(c, c->kid), 200);
    }
    client_new(&fresh, &w.rig);
    rig_copy(fresh.kid, sizeof fresh.kid, c->kid);
    assert_int_equal(client_get(&fresh, fresh.kid), 403);
    json_t *jwk = client_jwk(&fresh);
    issuer_autofree *text = issuer_json_text(jwk);
    json_decref(jwk);
    struct roll roll = {c->thumbprint, text};
    rig_ok(store_run(w.rig.issuer->store, true, roll_key, &roll, &err));
    assert_int_not_equal(client_get(c, c->kid), 200);
    client_refused(c, "unauthorized");
    assert_int_equal(client_get(&fresh, fresh.kid), 200);
    client_free(&fresh);
    world_free(&w);
}

/* ---- one ticket, many hosts at once
 * --------------------------------------------------------------------- */

#define RACERS 4

struct racer {
    struct client client;
    struct enrolment enrolment;
    struct att_buf payload;
    int status;
    pthread_t thread;
};

static void *race(void *user)
{
    struct racer *r = user;
    r->status = client_post(&r->client, r->enrolment.url, false, att_buf_slice(&r->payload));
    return NULL;
}

/* Different TPMs on one single-use ticket: all hold a good answer to their challenge, one gets in.
 */
static void ticket_race(void **state)
{
    (void)state;
    struct world w;
    struct tpm tpms[RACERS];
    struct racer racers[RACERS];
    world_new(&w, false);
    json_t *ticket = rig_ticket(&w.rig, NULL, 1);
    char ek[160], name[32];
    snprintf(ek, sizeof ek, "%s/ek", w.rig.dir);
    for (size_t i = 0; i < RACERS; i++) {
        tpm_new_other(&tpms[i]);
        snprintf(name, sizeof name, "racer%zu.pem", i);
        rig_pem(ek, name, tpms[i].base->maker_root);
    }
    char config[160];
    struct issuer_settings *fresh = NULL;
    snprintf(config, sizeof config, "%s/issuer.yaml", w.rig.dir);
    rig_ok(issuer_settings_load(config, &fresh, &err));
    issuer_settings_put(w.rig.issuer->settings);
    w.rig.issuer->settings = fresh;
    for (size_t i = 0; i < RACERS; i++) {
        racers[i] = (struct racer){0};
        client_new(&racers[i].client, &w.rig);
        assert_int_equal(client_account(&racers[i].client, ticket), 201);
        assert_int_equal(rig_m1(&racers[i].client, &tpms[i], NULL, &racers[i].enrolment), 201);
        rig_m2_payload(&racers[i].client, &tpms[i], &racers[i].enrolment, &racers[i].payload);
    }
    for (size_t i = 0; i < RACERS; i++) {
        assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
    }
    int good = 0;
    for (size_t i = 0; i < RACERS; i++) {
        pthread_join(racers[i].thread, NULL);
        good += racers[i].status == 200;
        if (racers[i].status != 200) {
            client_refused(&racers[i].client, "ticketInvalid");
        }
    }
    assert_int_equal(good, 1);
    assert_int_equal(rig_rows(&w.rig, &store_hosts), 1);
    for (size_t i = 0; i < RACERS; i++) {
        enrolment_done(&racers[i].enrolment);
        att_buf_done(&racers[i].payload);
        client_free(&racers[i].client);
        tpm_free(&tpms[i]);
    }
    json_decref(ticket);
    world_free(&w);
}

/* ---- interrupted signatures
 * --------------------------------------------------------------------------------- */

struct cut {
    struct world *w;
    struct store_cert cert;
    const char *order;
};

static enum att_rc intend(void *user, struct store_tx *tx, struct att_err *err)
{
    struct cut *cut = user;
    struct issuer *issuer = cut->w->rig.issuer;
    att_autobuf spki = {0};
    char account[ISSUER_ID_LEN], decision[65];
    forge_spki(cut->w->tpm.base->agent.pkey, &spki);
    snprintf(account, sizeof account, "%s", strrchr(cut->w->client.kid, '/') + 1);
    memset(decision, 'a', 64);
    decision[64] = 0;
    struct issuer_intent intent = {.kind = ISSUER_CA_AGENT,
                                   .leaf = {.validity = certs_validity_from(rig_time, 3600),
                                            .spki = att_buf_slice(&spki),
                                            .spiffe_id = FORGE_IDENTIFIER,
                                            .holding = {.store = CERTS_STORE_TPM, .boot = "none"}},
                                   .subject = FORGE_IDENTIFIER,
                                   .account = account,
                                   .host = cut->w->tpm.ek_id,
                                   .ord = cut->order,
                                   .profile = "trading",
                                   .decision = decision};
    struct store_order order = {0};
    enum att_rc rc = store_get(tx, &store_orders, cut->order, &order, err);
    if (!rc) {
        assert_true(issuer_set(&order.status, "processing"));
        rc = store_put(tx, &store_orders, &order, err);
    }
    store_record_done(&store_orders, &order);
    return rc ? rc : issuer_intent_make(issuer, tx, &intent, rig_time, &cut->cert, err);
}

static json_t *only_cert(struct world *w)
{
    json_t *list = rig_admin(&w->rig, "cert.list", json_pack("{s:s}", "kind", "agent"));
    assert_int_equal(json_array_size(json_object_get(list, "certificates")), 1);
    json_t *cert = json_incref(json_array_get(json_object_get(list, "certificates"), 0));
    json_decref(list);
    return cert;
}

static void interrupted(int64_t later, const char *expected)
{
    struct world w;
    struct order o;
    world_new(&w, true);
    rig_time = att_now_utc_s() - later;
    assert_int_equal(rig_order(&w.client, RIG_NAME, &o), 201);
    struct cut cut = {.w = &w, .order = strrchr(o.url, '/') + 1};
    rig_ok(store_run(w.rig.issuer->store, true, intend, &cut, &err));
    /* The process dies here, and another starts. */
    issuer_free(w.rig.issuer);
    rig_open(&w.rig);
    rig_time = att_now_utc_s();
    if (store_shared(w.rig.issuer->store)) { /* for 10 s it may be another, living issuer's */
        rig_time += 10;
        w.rig.issuer->intent_look_ms = 0;
        issuer_intent_tick(w.rig.issuer);
    }
    json_t *cert = only_cert(&w);
    assert_string_equal(issuer_string(cert, "status"), expected);
    assert_string_equal(issuer_string(cert, "serial"), cut.cert.serial);
    json_decref(cert);
    bool issued = strcmp(expected, "issued") == 0;
    json_t *ca = rig_admin(&w.rig, "ca.status", json_object());
    assert_int_equal(json_integer_value(json_object_get(ca, "pendingIntents")), 0);
    json_decref(ca);
    if (issued) {
        assert_int_equal(client_get(&w.client, o.url), 200);
        assert_string_equal(client_text(&w.client, "status"), "valid");
        assert_int_equal(client_get(&w.client, client_text(&w.client, "certificate")), 200);
        /* The very TBS that was intended. */
        certs_autostack *certs = NULL;
        att_autobuf der = {0};
        rig_ok(certs_pem_parse(att_buf_slice(&w.client.last.body), &certs, &err));
        rig_ok(certs_cert_der(sk_X509_value(certs, 0), &der, &err));
        assert_non_null(memmem(der.ptr, der.len, cut.cert.tbs.ptr, cut.cert.tbs.len));
    }
    store_record_done(&store_certs, &cut.cert);
    world_free(&w);
}

static void interrupted_signature(void **state)
{
    (void)state;
    interrupted(0, "issued");
    interrupted(3600, "abandoned");
}

/* ---- the audit log
 * ---------------------------------------------------------------------------------------------- */

static enum att_rc read_head(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_audit_head(tx, user, err);
}

static void signed_head(void **state)
{
    (void)state;
    struct world w;
    world_new(&w, true);
    struct store_audit head = {0};
    rig_ok(issuer_audit_save_head(w.rig.issuer, &err));
    rig_ok(store_run(w.rig.issuer->store, false, read_head, &head, &err));
    assert_true(head.seq > 3);
    rig_admin_done(&w.rig, "audit.verify", json_object());
    /* A head that names another record, with the old signature. */
    char path[192];
    att_autobuf good = {0};
    snprintf(path, sizeof path, "%s/state/audit.head", w.rig.dir);
    rig_ok(att_io_read_file(path, 4096, &good, &err));
    att_autojson *json = NULL;
    rig_ok(att_json_parse(att_buf_slice(&good), 4096, &json, &err));
    json_object_set_new(json, "seq", json_integer(head.seq - 1));
    att_autobuf bad = {0};
    rig_ok(att_json_dump(json, false, &bad, &err));
    rig_ok(att_io_write_file(path, att_buf_slice(&bad), 0600, &err));
    rig_admin_refused(&w.rig, "audit.verify", json_object(), "auditHead");
    rig_ok(att_io_unlink(path, &err));
    rig_admin_refused(&w.rig, "audit.verify", json_object(), "auditHead");
    /* Starting without it leaves a mark that a new head does not cover. */
    issuer_free(w.rig.issuer);
    rig_open(&w.rig);
    json_t *list = rig_admin(&w.rig, "audit.list", json_pack("{s:s}", "kind", "config"));
    assert_int_equal(json_array_size(json_object_get(list, "records")), 1);
    json_decref(list);
    rig_ok(issuer_audit_save_head(w.rig.issuer, &err));
    rig_admin_done(&w.rig, "audit.verify", json_object());
    world_free(&w);
}

/* ---- admin
 * -------------------------------------------------------------------------------------------------------
 */

static void admin_refusals(void **state)
{
    (void)state;
    struct world w;
    world_new(&w, true);
    rig_admin_refused(&w.rig, "no.such", json_object(), "usage");
    rig_admin_refused(&w.rig, "host.list", json_pack("{s:s}", "what", "x"), "usage");
    rig_admin_refused(&w.rig, "host.list", json_pack("{s:s}", "state", "x"), "usage");
    rig_admin_refused(&w.rig, "host.show", json_object(), "usage");
    rig_admin_refused(&w.rig, "host.show", json_pack("{s:i}", "id", 5), "usage");
    rig_admin_refused(&w.rig, "host.show", json_pack("{s:s}", "id", "nobody"), "hostUnknown");
    rig_admin_refused(&w.rig, "host.ban", json_pack("{s:s, s:s}", "id", w.tpm.ek_id, "reason", ""),
                      "usage");
    rig_admin_refused(&w.rig, "ticket.create", json_pack("{s:s}", "ek", "abc"), "usage");
    rig_admin_refused(&w.rig, "ticket.create",
                      json_pack("{s:s, s:i}", "ek", w.tpm.ek_id, "uses", 2), "usage");
    rig_admin_refused(&w.rig, "ticket.create", json_pack("{s:s}", "lifetime", "100d"), "usage");
    int entries = rig_rows(&w.rig, &store_entries);
    static const char bad[] =
        "trust_domain: bank.example\nagents:\n"
        "  - { name: a, owner: o@x, hosts: [\"label:a=b\"], workload: {uid: 1},"
        " key: tpm, profile: trading }\n"
        "  - { name: b, owner: o@x, hosts: [\"label:a=b\"], workload: {uid: 1},"
        " key: tpm, profile: none-such }\n";
    rig_admin_refused(&w.rig, "entry.apply", json_pack("{s:s}", "text", bad), "invalidProfile");
    assert_int_equal(rig_rows(&w.rig, &store_entries), entries); /* nothing half applied */
    json_t *result = rig_admin(&w.rig, "host.import",
                               json_pack("{s:s}", "text",
                                         "ek,label,labels\n"
                                         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                                         "aaaaaaaa,web-1,zone=trading;rack=7\n"));
    assert_int_equal(json_array_size(json_object_get(result, "added")), 1);
    json_decref(result);
    result = rig_admin(&w.rig, "host.show", json_pack("{s:s}", "id", "web-1"));
    assert_string_equal(issuer_string(result, "state"), "approved");
    assert_string_equal(issuer_string(json_object_get(result, "labels"), "zone"), "trading");
    json_decref(result);
    rig_admin_done(&w.rig, "status", json_object());
    rig_admin_done(&w.rig, "entry.list", json_object());
    rig_admin_done(&w.rig, "entry.show", json_pack("{s:s}", "name", RIG_NAME));
    rig_admin_done(&w.rig, "policy.list", json_object());
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(methods),     cmocka_unit_test(jws_rules),
        cmocka_unit_test(accounts),    cmocka_unit_test(old_key_is_not_remembered),
        cmocka_unit_test(ticket_race), cmocka_unit_test(interrupted_signature),
        cmocka_unit_test(signed_head), cmocka_unit_test(admin_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
