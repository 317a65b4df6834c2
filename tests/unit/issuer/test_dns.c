/* Certificates for DNS names where a real validation adds nothing: what a ban, a revocation and an
 * issuer that died entail. Validations themselves: tests/integration/test_issuer_dns.py. */
#include "tests/unit/issuer/stage.h"

#include "provision/issuer/dns.h"
#include "provision/issuer/revoke.h"

#include <openssl/x509v3.h>
#include <poll.h>

#define NAME "a.svc.localhost"

static void stage_dns(struct stage *s)
{
    stage_enrolled(s, "none");
    reconfigure(
        &s->rig, "url: ",
        "crl: {url: \"http://crl.bank.example\"}\n"
        "dns:\n  profiles:\n    - { name: web, lifetime: 1h, names: [\"*.svc.localhost\"] }\n"
        "  http_port: 9\n  allow: [\"127.0.0.1/32\"]\n  timeout: 2s\nurl: ");
    restart_with_names(&s->rig);
}

struct dns_order {
    char url[256], finalize[256], authz[256];
};

static int dns_order(struct client *c, struct dns_order *o)
{
    int status = client_post_text(c, RIG_URL "/newOrder",
                                  "{\"identifiers\":[{\"type\":\"dns\",\"value\":\"" NAME "\"}]}");
    if (status == 201) {
        rig_copy(o->url, sizeof o->url, c->last.location);
        rig_copy(o->finalize, sizeof o->finalize, client_text(c, "finalize"));
        rig_copy(o->authz, sizeof o->authz,
                 json_string_value(json_array_get(json_object_get(c->body, "authorizations"), 0)));
    }
    return status;
}

struct change {
    const struct dns_order *o;
    const char *authz, *order;
};

static enum att_rc set_states(void *user, struct store_tx *tx, struct att_err *err)
{
    const struct change *c = user;
    struct store_dns_authz a = {0};
    struct store_dns_order o = {0};
    enum att_rc rc = store_get(tx, &store_dns_authzs, strrchr(c->o->authz, '/') + 1, &a, err);
    if (!rc) {
        rc = store_get(tx, &store_dns_orders, strrchr(c->o->url, '/') + 1, &o, err);
    }
    if (!rc && issuer_set(&a.status, c->authz) && issuer_set(&o.status, c->order)) {
        rc = store_put(tx, &store_dns_authzs, &a, err);
        rc = rc ? rc : store_put(tx, &store_dns_orders, &o, err);
    }
    store_record_done(&store_dns_authzs, &a);
    store_record_done(&store_dns_orders, &o);
    return rc;
}

static void set(struct stage *s, const struct dns_order *o, const char *authz, const char *order)
{
    struct change c = {o, authz, order};
    rig_ok(store_run(s->rig.issuer->store, true, set_states, &c, &err));
}

static int finalize(struct client *c, const struct dns_order *o)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509_REQ *req = X509_REQ_new();
    STACK_OF(X509_EXTENSION) *exts = sk_X509_EXTENSION_new_null();
    uint8_t *der = NULL;
    att_autobuf payload = {0};
    sk_X509_EXTENSION_push(exts,
                           X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:" NAME));
    X509_REQ_set_version(req, X509_REQ_VERSION_1);
    X509_REQ_add_extensions(req, exts);
    X509_REQ_set_pubkey(req, key);
    assert_true(X509_REQ_sign(req, key, EVP_sha256()) > 0);
    int len = i2d_X509_REQ(req, &der);
    assert_true(len > 0);
    rig_ok(acme_finalize_request_encode(ATT_SLICE(der, (size_t)len), &payload, &err));
    OPENSSL_free(der);
    sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
    X509_REQ_free(req);
    EVP_PKEY_free(key);
    return client_post(c, o->finalize, false, att_buf_slice(&payload));
}

static void ban(struct stage *s)
{
    rig_admin_done(&s->rig, "host.ban", json_pack("{s:s, s:s}", "id", s->tpm.ek_id, "reason", "x"));
}

static void of_a_banned_host(void **state)
{
    (void)state;
    struct stage s;
    struct dns_order o;
    stage_dns(&s);
    assert_int_equal(dns_order(&s.client, &o), 201);
    set(&s, &o, "valid", "ready");
    ban(&s);
    assert_int_equal(finalize(&s.client, &o), 403);
    client_refused(&s.client, "hostBanned");
    assert_int_equal(dns_order(&s.client, &o), 403);
    client_refused(&s.client, "hostBanned");
    stage_free(&s);
}

static void points_to_its_list(X509 *leaf)
{
    STACK_OF(DIST_POINT) *points = X509_get_ext_d2i(leaf, NID_crl_distribution_points, NULL, NULL);
    assert_non_null(points);
    const GENERAL_NAME *name =
        sk_GENERAL_NAME_value(sk_DIST_POINT_value(points, 0)->distpoint->name.fullname, 0);
    assert_string_equal((const char *)ASN1_STRING_get0_data(name->d.ia5),
                        "http://crl.bank.example/dns.crl");
    CRL_DIST_POINTS_free(points);
}

/* Hosts have nothing to do for it; the list has it. */
static void revoked(void **state)
{
    (void)state;
    struct stage s;
    struct dns_order o;
    certs_autostack *certs = NULL;
    att_autobuf der = {0}, payload = {0};
    stage_dns(&s);
    assert_int_equal(dns_order(&s.client, &o), 201);
    set(&s, &o, "valid", "ready");
    assert_int_equal(finalize(&s.client, &o), 200);
    char url[256];
    rig_copy(url, sizeof url, client_text(&s.client, "certificate"));
    assert_int_equal(client_get(&s.client, url), 200);
    rig_ok(certs_pem_parse(att_buf_slice(&s.client.last.body), &certs, &err));
    points_to_its_list(sk_X509_value(certs, 0));
    rig_ok(certs_cert_der(sk_X509_value(certs, 0), &der, &err));
    json_t *body = json_object();
    rig_ok(att_json_set_b64u(body, "certificate", att_buf_slice(&der), &err));
    rig_ok(att_json_dump(body, false, &payload, &err));
    json_decref(body);
    long long before = atomic_load(&s.rig.issuer->view_version);
    assert_int_equal(client_post(&s.client, RIG_URL "/revokeCert", false, att_buf_slice(&payload)),
                     200);
    assert_int_equal(client_get(&s.client, RIG_URL "/hostView"), 200);
    assert_int_equal(atomic_load(&s.rig.issuer->view_version), before);
    att_autobuf list = ATT_BUF_INIT(CERTS_CRL_MAX);
    uint64_t number = 0;
    certs_autocrl *crl = NULL;
    struct certs_crl_info info;
    rig_ok(issuer_crl_get(s.rig.issuer, &(struct issuer_crl_ref){.of = ISSUER_CRL_DNS}, &list,
                          &number, &err));
    rig_ok(certs_crl_parse(att_buf_slice(&list), &crl, &err));
    rig_ok(certs_crl_info(crl, &info, &err));
    assert_int_equal(info.n_entries, 1);
    stage_free(&s);
}

/* Nobody's validation since an issuer died: the second look takes it, whose first saw it. */
static void taken_up_again(void **state)
{
    (void)state;
    struct stage s;
    struct dns_order o;
    const char *status = "";
    stage_dns(&s);
    assert_int_equal(dns_order(&s.client, &o), 201);
    set(&s, &o, STORE_AUTHZ_PROCESSING, "pending");
    rig_ok(issuer_dns_look(s.rig.issuer, &err));
    rig_ok(issuer_dns_look(s.rig.issuer, &err));
    for (int64_t end = att_boottime_ms() + 120000; att_boottime_ms() < end;) {
        assert_int_equal(client_get(&s.client, o.url), 200);
        status = client_text(&s.client, "status");
        if (strcmp(status, "pending") != 0) {
            break;
        }
        poll(NULL, 0, 50);
    }
    assert_string_equal(status, "invalid"); /* it was asked, and nothing listens there */
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(of_a_banned_host),
        cmocka_unit_test(revoked),
        cmocka_unit_test(taken_up_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
