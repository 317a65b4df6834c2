/* Rotating the root of the issuer's own TLS, and the authority for DNS names: at every step who has
 * the old root only, the new one only, or both, gets through where he should. */
#include "tests/unit/issuer/stage.h"

#include "certs/bundle.h"
#include "provision/acme/jws.h"
#include "provision/issuer/dns_ca.h"
#include "provision/issuer/generations.h"
#include "provision/issuer/metrics.h"
#include "provision/issuer/rotate.h"

#include <openssl/ssl.h>
#include <unistd.h>

static void step(struct stage *s, const char *op, const char *id, const char *state)
{
    json_t *got = rig_admin(&s->rig, op, json_pack("{s:s}", "id", id));
    assert_string_equal(issuer_string(got, "state"), state);
    json_decref(got);
}

static void prepare(struct stage *s, const char *kind, char ret_id[ISSUER_GENERATION_ID])
{
    json_t *got =
        rig_admin(&s->rig, "ca.prepare", json_pack("{s:s, s:b}", "kind", kind, "newRoot", 1));
    snprintf(ret_id, ISSUER_GENERATION_ID, "%s", issuer_string(got, "id"));
    assert_true(json_is_true(json_object_get(got, "crossSigned")));
    json_decref(got);
}

static void refused(struct stage *s, const char *op, const char *id, const char *reason)
{
    rig_admin_refused(&s->rig, op, json_pack("{s:s}", "id", id), reason);
}

static void outgoing(struct stage *s, char ret[ISSUER_GENERATION_ID])
{
    const struct issuer_generations *now = issuer_generations_now(s->rig.issuer);
    ret[0] = 0;
    for (size_t i = 0; i < now->n; i++) {
        if (strcmp(now->v[i].state, STORE_AUTHORITY_OUTGOING) == 0) {
            memcpy(ret, now->v[i].id, ISSUER_GENERATION_ID);
        }
    }
    assert_true(ret[0] != 0);
}

static int view_with(struct stage *s, const char *etag)
{
    char nonce[ACME_NONCE_TEXT];
    att_autobuf text = {0};
    client_nonce(&s->client, nonce);
    client_sign(&s->client, RIG_URL "/hostView", nonce, false, ATT_SLICE(NULL, 0), &text);
    return client_send(&s->client, "/acme/hostView", att_buf_slice(&text), "application/jose+json",
                       etag);
}

static void host_sees(struct stage *s)
{
    char etag[32];
    issuer_view_wake(s->rig.issuer);
    snprintf(etag, sizeof etag, "\"%lld\"", (long long)atomic_load(&s->rig.issuer->view_version));
    assert_int_equal(view_with(s, etag), 304);
}

static STACK_OF(X509) * roots_of(struct stage *s, const char *kind)
{
    STACK_OF(X509) *roots = NULL;
    json_t *got = rig_admin(&s->rig, "ca.bundle", json_pack("{s:s}", "kind", kind));
    rig_ok(certs_bundle_parse(att_slice_str(issuer_string(got, "pem")), &roots, &err));
    json_decref(got);
    return roots;
}

static STACK_OF(X509) * one_root(X509 *root)
{
    STACK_OF(X509) *roots = sk_X509_new_null();
    assert_true(X509_up_ref(root) && sk_X509_push(roots, root));
    return roots;
}

/* What a client that trusts these makes of the chain that is sent. */
static bool tls_good(struct stage *s, const STACK_OF(X509) * roots)
{
    issuer_autoendpoints *e = issuer_endpoints_get(s->rig.issuer->ca);
    STACK_OF(X509) *sent = NULL;
    assert_int_equal(SSL_CTX_get0_chain_certs(e->ssl, &sent), 1);
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    for (int i = 0; i < sk_X509_num(roots); i++) {
        assert_int_equal(X509_STORE_add_cert(store, sk_X509_value(roots, i)), 1);
    }
    assert_int_equal(X509_STORE_CTX_init(ctx, store, e->tls, sent), 1);
    assert_int_equal(X509_STORE_CTX_set_default(ctx, "ssl_server"), 1);
    X509_VERIFY_PARAM_set_time(X509_STORE_CTX_get0_param(ctx), rig_time);
    bool good = X509_verify_cert(ctx) == 1;
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    return good;
}

/* And of a host view, by a root of his or by its digest; what it says of roots. */
static bool view_good(struct stage *s, X509 *root, bool pin, size_t *ret_roots, size_t *ret_retired)
{
    struct acme_jws jws = {0};
    struct att_slice ders[ACME_X5C_MAX];
    certs_autostack *sent = NULL, *anchor = pin ? NULL : one_root(root), *named = NULL;
    att_autojson *json = NULL;
    struct att_err why = {0};
    assert_int_equal(view_with(s, NULL), 200);
    rig_ok(acme_jws_parse_signed(att_buf_slice(&s->client.last.body), 1 << 20, "attestd-hostview",
                                 &jws, &err));
    for (size_t i = 0; i < jws.x5c_len; i++) {
        ders[i] = att_buf_slice(&jws.x5c[i]);
    }
    rig_ok(certs_der_parse(ders, jws.x5c_len, &sent, &err));
    for (int i = 0; pin && i < sk_X509_num(sent); i++) {
        if (X509_cmp(sk_X509_value(sent, i), root) == 0) {
            anchor = one_root(sk_X509_value(sent, i));
            break;
        }
    }
    bool good = anchor &&
                certs_chain_verify(sent, anchor, CERTS_PURPOSE_HOST_VIEW, rig_time, &why) == ATT_OK;
    rig_ok(acme_jws_verify_cert(&jws, &err));
    rig_ok(att_json_parse(att_buf_slice(&jws.payload), 1 << 20, &json, &err));
    const json_t *roots = json_object_get(json, "issuerRoots");
    if (roots) {
        rig_ok(certs_bundle_parse(att_slice_str(issuer_string(roots, "pem")), &named, &err));
    }
    *ret_roots = roots ? (size_t)sk_X509_num(named) : 0;
    *ret_retired = json_array_size(json_object_get(roots, "retired"));
    acme_jws_done(&jws);
    return good;
}

static X509 *root_in_use(struct stage *s)
{
    issuer_autoendpoints *e = issuer_endpoints_get(s->rig.issuer->ca);
    assert_true(X509_up_ref(e->root));
    assert_int_equal(X509_verify(e->tls, X509_get0_pubkey(e->root)), 1);
    assert_int_equal(X509_verify(e->view, X509_get0_pubkey(e->root)), 1);
    return e->root;
}

static void restart(struct stage *s)
{
    issuer_free(s->rig.issuer);
    rig_open(&s->rig);
}

static void start_enrolled(struct stage *s)
{
    stage_new(s, "forge");
    reconfigure(&s->rig, "ak_lifetime: 7d", "ak_lifetime: 3650d");
    stage_enrol(s);
    rig_time = att_now_utc_s();
}

/* With a certificate in force, so that there is somebody to wait for. */
static void start(struct stage *s)
{
    struct order o;
    start_enrolled(s);
    s->tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_order(&s->client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s->client, &s->tpm, &o, s->ak), "valid");
    assert_int_equal(rig_finalize(&s->client, &o, s->tpm.base->agent.pkey, FORGE_IDENTIFIER), 200);
}

static void no_csr_and_no_unknown_kind(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID];
    stage_enrolled(&s, "forge");
    rig_admin_refused(&s.rig, "ca.prepare", json_pack("{s:s, s:b}", "kind", "tls", "csr", 1),
                      "usage");
    rig_admin_refused(&s.rig, "ca.prepare", json_pack("{s:s}", "kind", "dns"), "caUnknown");
    rig_admin_refused(&s.rig, "ca.bundle", json_pack("{s:s}", "kind", "dns"), "caUnknown");
    prepare(&s, "tls", id);
    rig_admin_refused(&s.rig, "ca.prepare", json_pack("{s:s}", "kind", "tls"), "caBusy");
    refused(&s, "ca.activate", id, "caState"); /* before it was published */
    step(&s, "ca.retire", id, "retired");      /* given up */
    stage_free(&s);
}

/* Without a certificate by the old root no ticket would lead to the new one. */
static void old_key_away(void **state)
{
    (void)state;
    struct stage s;
    char path[256], away[300];
    stage_enrolled(&s, "forge");
    snprintf(path, sizeof path, "%s/state/ca/tls-root.key", s.rig.dir);
    snprintf(away, sizeof away, "%s.away", path);
    assert_int_equal(rename(path, away), 0);
    rig_admin_refused(&s.rig, "ca.prepare", json_pack("{s:s}", "kind", "tls"), "caRootAway");
    stage_free(&s);
}

static void tls_root_whole(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID], old_id[ISSUER_GENERATION_ID];
    size_t roots = 9, retired = 9;
    start(&s);
    certs_autox509 *first = root_in_use(&s);
    certs_autostack *old_only = one_root(first);
    assert_true(view_good(&s, first, true, &roots, &retired));
    assert_int_equal(roots, 0); /* nothing is said before the first rotation */

    prepare(&s, "tls", id);
    certs_autox509 *prepared = root_in_use(&s);
    assert_int_equal(X509_cmp(prepared, first), 0);
    step(&s, "ca.publish", id, "published");
    certs_autostack *both = roots_of(&s, "tls");
    assert_int_equal(sk_X509_num(both), 2);
    assert_true(tls_good(&s, old_only)); /* the old one serves still */
    refused(&s, "ca.activate", id, "caHostsBehind");
    assert_true(view_good(&s, first, true, &roots, &retired));
    assert_int_equal(roots, 2);
    host_sees(&s);
    refused(&s, "ca.activate", id, "caTooSoon");
    /* A ticket of before: it pins the old root. */
    rig_admin_done(&s.rig, "ticket.create", json_pack("{s:s}", "lifetime", "36h"));
    rig_time += 86400 + 10;
    host_sees(&s);
    step(&s, "ca.activate", id, "active");

    certs_autox509 *second = root_in_use(&s);
    certs_autostack *new_only = one_root(second);
    assert_int_not_equal(X509_cmp(first, second), 0);
    assert_true(tls_good(&s, old_only) && tls_good(&s, new_only) && tls_good(&s, both));
    assert_true(view_good(&s, first, true, &roots, &retired));
    assert_true(view_good(&s, first, false, &roots, &retired));
    assert_true(view_good(&s, second, true, &roots, &retired));
    assert_true(view_good(&s, second, false, &roots, &retired));
    assert_int_equal(roots, 2);
    assert_int_equal(retired, 0);
    outgoing(&s, old_id);
    refused(&s, "ca.retire", id, "caState");     /* it is the active one */
    refused(&s, "ca.retire", old_id, "caInUse"); /* the ticket */

    restart(&s);
    certs_autox509 *again = root_in_use(&s);
    assert_int_equal(X509_cmp(again, second), 0);
    assert_true(tls_good(&s, old_only));
    rig_time += 86400;
    host_sees(&s);
    step(&s, "ca.retire", old_id, "retired");
    assert_false(tls_good(&s, old_only));
    assert_true(tls_good(&s, new_only));
    assert_false(view_good(&s, first, true, &roots, &retired));
    assert_true(view_good(&s, second, true, &roots, &retired));
    assert_int_equal(roots, 1);
    assert_int_equal(retired, 1);
    /* And once more, from the second to a third. */
    prepare(&s, "tls", id);
    step(&s, "ca.publish", id, "published");
    rig_admin_done(&s.rig, "ca.activate", json_pack("{s:s, s:b}", "id", id, "force", 1));
    assert_true(tls_good(&s, new_only));
    stage_free(&s);
}

/* A host that enrolled by an old ticket has not heard of the new root: its certificate keeps the
 * old one until it has. */
static void retire_waits_for_hosts(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID], old_id[ISSUER_GENERATION_ID];
    start(&s);
    prepare(&s, "tls", id);
    step(&s, "ca.publish", id, "published");
    rig_admin_done(&s.rig, "ca.activate", json_pack("{s:s, s:b}", "id", id, "force", 1));
    outgoing(&s, old_id);
    refused(&s, "ca.retire", old_id, "caHostsBehind");
    host_sees(&s);
    step(&s, "ca.retire", old_id, "retired");
    stage_free(&s);
}

/* One that has an AK certificate only, because nothing was assigned to it yet, pins the old root as
 * others do; so does one that waits for its approval. */
static void retire_waits_for_who_is_enrolled(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID], old_id[ISSUER_GENERATION_ID];
    start_enrolled(&s);
    prepare(&s, "tls", id);
    step(&s, "ca.publish", id, "published");
    rig_admin_done(&s.rig, "ca.activate", json_pack("{s:s, s:b}", "id", id, "force", 1));
    outgoing(&s, old_id);
    refused(&s, "ca.retire", old_id, "caHostsBehind");
    host_sees(&s);
    step(&s, "ca.retire", old_id, "retired");
    stage_free(&s);
}

/* A crash between the file that says which root is in use and the certificates under it. */
static void certificates_of_the_other_root_are_made_anew(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID], from[256], to[256], command[1200];
    start(&s);
    snprintf(from, sizeof from, "%s/state/ca", s.rig.dir);
    snprintf(to, sizeof to, "%s/before", s.rig.dir);
    snprintf(command, sizeof command, "cp -r '%s' '%s'", from, to);
    assert_int_equal(system(command), 0);
    prepare(&s, "tls", id);
    step(&s, "ca.publish", id, "published");
    rig_admin_done(&s.rig, "ca.activate", json_pack("{s:s, s:b}", "id", id, "force", 1));
    certs_autox509 *second = root_in_use(&s);
    snprintf(command, sizeof command, "cp '%s'/tls.* '%s'/view.crt '%s'/view.key '%s'", to, to, to,
             from);
    assert_int_equal(system(command), 0);
    restart(&s);
    certs_autox509 *again = root_in_use(&s);
    assert_int_equal(X509_cmp(again, second), 0);
    stage_free(&s);
}

/* ---- an issuer that cannot take a step into use ------------------------------------------------
 */

/* As another issuer of the store takes it. */
struct elsewhere {
    const char *id, *state;
};

static enum att_rc put_row(struct store_tx *tx, struct store_authority *row, const char *state,
                           struct att_err *err)
{
    free(row->state);
    row->state = strdup(state);
    assert_non_null(row->state);
    return store_put(tx, &store_authorities, row, err);
}

static enum att_rc step_elsewhere(void *user, struct store_tx *tx, struct att_err *err)
{
    const struct elsewhere *to = user;
    struct issuer_rotation_rows rows = {.kind = "tls"};
    int64_t number = 0;
    assert_int_equal(issuer_rotate_rows(tx, &rows, err), ATT_OK);
    if (strcmp(to->state, STORE_AUTHORITY_ACTIVE) == 0) {
        assert_string_equal(rows.under_way.id, to->id);
        assert_int_equal(put_row(tx, &rows.active, STORE_AUTHORITY_OUTGOING, err), ATT_OK);
        assert_int_equal(put_row(tx, &rows.under_way, STORE_AUTHORITY_ACTIVE, err), ATT_OK);
    } else {
        assert_string_equal(rows.outgoing.id, to->id);
        assert_int_equal(put_row(tx, &rows.outgoing, STORE_AUTHORITY_RETIRED, err), ATT_OK);
    }
    issuer_rotate_rows_done(&rows);
    return store_meta_count(tx, "authorities", &number, err);
}

static void taken_elsewhere(struct stage *s, const char *id, const char *state)
{
    struct elsewhere to = {id, state};
    rig_ok(store_run(s->rig.issuer->store, true, step_elsewhere, &to, &err));
}

static void in_ca(struct stage *s, const char *from, const char *to)
{
    char old[256], new[256];
    snprintf(old, sizeof old, "%s/state/ca/%s", s->rig.dir, from);
    snprintf(new, sizeof new, "%s/state/ca/%s", s->rig.dir, to);
    assert_int_equal(rename(old, new), 0);
}

static void not_in_use(struct stage *s)
{
    struct att_err why = {0};
    assert_int_not_equal(issuer_generations_refresh(s->rig.issuer, &why), ATT_OK);
    issuer_health_look(s->rig.issuer);
    assert_string_equal(issuer_health_why(s->rig.issuer), "ca");
}

static void does_not_start(struct stage *s)
{
    char path[256];
    struct att_err why = {0};
    snprintf(path, sizeof path, "%s/issuer.yaml", s->rig.dir);
    s->rig.issuer = NULL;
    assert_int_not_equal(issuer_open(path, &s->rig.issuer, &why), ATT_OK);
    assert_non_null(strstr(why.msg, "/ca/keys/"));
}

/* Activated while this one was cut off, and it has not got the key: it serves as before, all of it
 * under the old root, and is behind for good, not only at the first try. */
static void without_the_new_key_it_stays_behind(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID], old_id[ISSUER_GENERATION_ID];
    start(&s);
    prepare(&s, "tls", id);
    step(&s, "ca.publish", id, "published");
    certs_autox509 *first = root_in_use(&s);
    certs_autostack *old_only = one_root(first);
    const struct issuer_generations *now = issuer_generations_now(s.rig.issuer);
    for (size_t i = 0; i < now->n; i++) {
        if (strcmp(now->v[i].state, STORE_AUTHORITY_ACTIVE) == 0) {
            memcpy(old_id, now->v[i].id, sizeof old_id);
        }
    }
    int64_t number = now->number;
    in_ca(&s, "keys", "keys.away");
    taken_elsewhere(&s, id, STORE_AUTHORITY_ACTIVE);
    for (int i = 0; i < 3; i++) {
        not_in_use(&s);
        assert_int_equal(issuer_generations_now(s.rig.issuer)->number, number);
        certs_autox509 *still = root_in_use(&s);
        assert_int_equal(X509_cmp(still, first), 0);
        assert_true(tls_good(&s, old_only));
    }
    refused(&s, "ca.retire", old_id, "caChanged");
    issuer_free(s.rig.issuer);
    does_not_start(&s);
    does_not_start(&s);
    in_ca(&s, "keys.away", "keys");
    rig_open(&s.rig);
    certs_autox509 *second = root_in_use(&s);
    assert_int_not_equal(X509_cmp(second, first), 0);
    issuer_health_look(s.rig.issuer);
    assert_null(issuer_health_why(s.rig.issuer));
    refused(&s, "ca.retire", old_id, "caHostsBehind");
    stage_free(&s);
}

/* The old root is retired, and the disk fails just then: what leads to it is sent no longer once
 * the disk is back, without anybody's doing. */
static void what_failed_at_a_retirement_is_tried_again(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID], old_id[ISSUER_GENERATION_ID];
    start(&s);
    certs_autox509 *first = root_in_use(&s);
    certs_autostack *old_only = one_root(first);
    prepare(&s, "tls", id);
    step(&s, "ca.publish", id, "published");
    rig_admin_done(&s.rig, "ca.activate", json_pack("{s:s, s:b}", "id", id, "force", 1));
    outgoing(&s, old_id);
    in_ca(&s, "keys", "keys.away");
    in_ca(&s, "view.crt", "view.crt.away");
    taken_elsewhere(&s, old_id, STORE_AUTHORITY_RETIRED);
    not_in_use(&s);
    assert_true(tls_good(&s, old_only));
    in_ca(&s, "view.crt.away", "view.crt");
    in_ca(&s, "keys.away", "keys");
    rig_ok(issuer_generations_refresh(s.rig.issuer, &err));
    assert_false(tls_good(&s, old_only));
    stage_free(&s);
}

/* ---- DNS names --------------------------------------------------------------------------------
 */

static void dns_authority(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID], old_id[ISSUER_GENERATION_ID];
    stage_enrolled(&s, "none");
    reconfigure(&s.rig, "url: ",
                "dns:\n  profiles:\n    - { name: web, lifetime: 1h, names: [\"*.localhost\"] }\n"
                "  http_port: 9\n  allow: [\"127.0.0.1/32\"]\n  timeout: 2s\nurl: ");
    /* As `init` does, which issuers of one database ask for. */
    rig_ok(issuer_dns_ca_create(s.rig.issuer->settings->conf, NULL, &err));
    restart(&s);
    rig_time = att_now_utc_s();
    certs_autostack *old_roots = roots_of(&s, "dns");
    assert_int_equal(sk_X509_num(old_roots), 1);
    struct issuer_authority before = issuer_authority_of(s.rig.issuer, "dns");
    assert_string_equal(before.crl, "dns.crl");
    prepare(&s, "dns", id);
    step(&s, "ca.publish", id, "published");
    certs_autostack *both = roots_of(&s, "dns");
    assert_int_equal(sk_X509_num(both), 2);
    refused(&s, "ca.activate", id, "caTooSoon"); /* no host is waited for, but whoever trusts it */
    rig_time += 86400 + 10;
    step(&s, "ca.activate", id, "active");
    struct issuer_authority now = issuer_authority_of(s.rig.issuer, "dns");
    assert_string_equal(now.id, id);
    assert_string_not_equal(now.crl, "dns.crl");
    assert_int_not_equal(X509_cmp(now.ca, before.ca), 0);
    assert_int_equal(X509_verify(now.ca, X509_get0_pubkey(sk_X509_value(both, 1))) == 1 ||
                         X509_verify(now.ca, X509_get0_pubkey(sk_X509_value(both, 0))) == 1,
                     1);
    outgoing(&s, old_id);
    in_ca(&s, "keys", "keys.away"); /* an issuer that has not got the new key is not ready */
    restart(&s);
    issuer_health_look(s.rig.issuer);
    assert_string_equal(issuer_health_why(s.rig.issuer), "ca");
    in_ca(&s, "keys.away", "keys");
    restart(&s);
    issuer_health_look(s.rig.issuer);
    assert_null(issuer_health_why(s.rig.issuer));
    step(&s, "ca.retire", old_id, "retired");
    certs_autostack *last = roots_of(&s, "dns");
    assert_int_equal(sk_X509_num(last), 1);
    assert_int_not_equal(X509_cmp(sk_X509_value(last, 0), sk_X509_value(old_roots, 0)), 0);
    /* Nothing was said of the issuer's TLS, nor of agents. */
    assert_null(issuer_generations_now(s.rig.issuer)->tls_roots);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_csr_and_no_unknown_kind),
        cmocka_unit_test(old_key_away),
        cmocka_unit_test(tls_root_whole),
        cmocka_unit_test(retire_waits_for_hosts),
        cmocka_unit_test(retire_waits_for_who_is_enrolled),
        cmocka_unit_test(certificates_of_the_other_root_are_made_anew),
        cmocka_unit_test(without_the_new_key_it_stays_behind),
        cmocka_unit_test(what_failed_at_a_retirement_is_tried_again),
        cmocka_unit_test(dns_authority),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
