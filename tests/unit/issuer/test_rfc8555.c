/* What RFC 8555 and RFC 9773 ask for beside the main job, at an agent's order: deactivation,
 * replacement, another account key, revocation; and the limit of a host. The same for DNS names by
 * a raw client: tests/integration/test_issuer_dns.py. */
#include "tests/unit/issuer/stage.h"

#include "provision/acme/requests.h"
#include "provision/issuer/revoke.h"

#include <openssl/x509v3.h>

#define URI FORGE_IDENTIFIER

/* An order up to its certificate; PEM. */
static void issue(struct stage *s, struct order *o, struct att_buf *ret_pem)
{
    assert_int_equal(rig_order(&s->client, RIG_NAME, o), 201);
    s->tpm.clock.clock_ms += 1000;
    assert_string_equal(rig_m4(&s->client, &s->tpm, o, s->ak), "valid");
    assert_int_equal(rig_finalize(&s->client, o, s->tpm.base->agent.pkey, URI), 200);
    char url[256];
    rig_copy(url, sizeof url, client_text(&s->client, "certificate"));
    assert_int_equal(client_get(&s->client, url), 200);
    att_buf_reset(ret_pem);
    att_buf_put_slice(ret_pem, att_buf_slice(&s->client.last.body));
}

static X509 *leaf_of(const struct att_buf *pem)
{
    certs_autostack *chain = NULL;
    rig_ok(certs_pem_parse(att_buf_slice(pem), &chain, &err));
    return sk_X509_shift(chain);
}

static void id_of(X509 *leaf, char ret[ACME_CERT_ID_LEN])
{
    struct acme_cert_id id = {0};
    const ASN1_OCTET_STRING *aki = X509_get0_authority_key_id(leaf);
    const ASN1_INTEGER *serial = X509_get0_serialNumber(leaf);
    id.aki_len = (size_t)ASN1_STRING_length(aki);
    id.serial_len = (size_t)ASN1_STRING_length(serial);
    memcpy(id.aki, ASN1_STRING_get0_data(aki), id.aki_len);
    memcpy(id.serial, ASN1_STRING_get0_data(serial), id.serial_len);
    rig_ok(acme_cert_id_encode(&id, ret, &err));
}

static void authorization_deactivated(void **state)
{
    (void)state;
    struct stage s;
    struct order o, ready;
    stage_enrolled(&s, "none");
    struct client *c = &s.client;
    assert_int_equal(rig_order(c, RIG_NAME, &o), 201);
    assert_int_equal(client_post_text(c, o.authz, "{\"status\":\"valid\"}"), 400);
    client_refused(c, "malformed");
    assert_int_equal(client_post_text(c, o.authz, "{\"status\":\"deactivated\"}"), 200);
    assert_string_equal(client_text(c, "status"), "deactivated");
    assert_int_equal(client_get(c, o.url), 200);
    assert_string_equal(client_text(c, "status"), "invalid");
    assert_string_equal(rig_m4(c, &s.tpm, &o, s.ak), "");
    /* One that was proved: no certificate any more. */
    assert_int_equal(rig_order(c, RIG_NAME, &ready), 201);
    s.tpm.clock.clock_ms += 1000;
    assert_string_equal(rig_m4(c, &s.tpm, &ready, s.ak), "valid");
    assert_int_equal(client_post_text(c, ready.authz, "{\"status\":\"deactivated\"}"), 200);
    assert_int_equal(rig_finalize(c, &ready, s.tpm.base->agent.pkey, URI), 403);
    client_refused(c, "orderNotReady");
    /* Another account's. */
    struct client other;
    client_new(&other, &s.rig);
    json_t *ticket = rig_ticket(&s.rig, NULL, 1);
    assert_int_equal(client_account(&other, ticket), 201);
    json_decref(ticket);
    assert_int_equal(rig_order(c, RIG_NAME, &o), 201);
    assert_int_equal(client_post_text(&other, o.authz, "{\"status\":\"deactivated\"}"), 403);
    client_refused(&other, "unauthorized");
    client_free(&other);
    stage_free(&s);
}

static int order_replacing(struct stage *s, const char *agent, const char *id)
{
    char payload[512];
    snprintf(
        payload, sizeof payload,
        "{\"identifiers\":[{\"type\":\"spiffe-id\",\"value\":\"spiffe://bank.example/agent/%s\"}"
        "],\"replaces\":\"%s\"}",
        agent, id);
    return client_post_text(&s->client, RIG_URL "/newOrder", payload);
}

static void replaced(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    att_autobuf pem = {0};
    char id[ACME_CERT_ID_LEN];
    stage_enrolled(&s, "none");
    issue(&s, &o, &pem);
    certs_autox509 *leaf = leaf_of(&pem);
    id_of(leaf, id);
    assert_int_equal(order_replacing(&s, RIG_NAME, "x.y"), 400);
    client_refused(&s.client, "malformed");
    assert_int_equal(order_replacing(&s, RIG_NAME, id), 201);
    assert_int_equal(order_replacing(&s, RIG_NAME, id), 409);
    client_refused(&s.client, "alreadyReplaced");
    rig_time += ISSUER_ORDER_S + 1; /* that order is over */
    assert_int_equal(order_replacing(&s, RIG_NAME, id), 201);
    stage_free(&s);
}

static void set_jws(const struct acme_signer *signer, const json_t *jwk, const char *payload,
                    struct att_buf *ret)
{
    att_autobuf header = {0};
    rig_ok(acme_jws_protected(NULL, RIG_URL "/keyChange", jwk, NULL, &header, &err));
    rig_ok(acme_jws_sign(signer, att_buf_slice(&header), att_slice_str(payload), ret, &err));
}

/* The host stays the account's: it goes on with its next order, with the new key. */
static void key_changed(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    struct client fresh;
    att_autobuf inner = {0}, pem = {0}, payload = {0};
    stage_enrolled(&s, "none");
    issue(&s, &o, &pem);
    client_new(&fresh, &s.rig);
    json_t *old = client_jwk(&s.client), *jwk = client_jwk(&fresh);
    struct acme_signer signer = acme_signer_pkey(fresh.key);
    json_t *body = json_pack("{s:s, s:O}", "account", s.client.kid, "oldKey", old);
    rig_ok(att_json_dump(body, false, &payload, &err));
    set_jws(&signer, jwk, att_buf_cstr(&payload), &inner);
    assert_int_equal(client_post(&s.client, RIG_URL "/keyChange", false, att_buf_slice(&inner)),
                     200);
    assert_int_equal(client_get(&s.client, s.client.kid), 403);
    client_refused(&s.client, "unauthorized");
    EVP_PKEY *key = s.client.key;
    s.client.key = fresh.key;
    fresh.key = key;
    rig_copy(s.client.thumbprint, sizeof s.client.thumbprint, fresh.thumbprint);
    rig_time += 60;
    s.tpm.clock.clock_ms += 60000;
    issue(&s, &o, &pem);
    json_decref(old);
    json_decref(jwk);
    json_decref(body);
    client_free(&fresh);
    stage_free(&s);
}

static enum att_rc revoke_row(void *user, struct store_tx *tx, struct att_err *err)
{
    const struct issuer_revocation what = {user, "superseded", "x", 0, NULL};
    return issuer_revoke(tx, &what, rig_time, err);
}

static void revoked(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    att_autobuf pem = {0}, der = {0}, payload = {0};
    struct certs_cert_info info;
    struct att_err why = {0};
    stage_enrolled(&s, "none");
    issue(&s, &o, &pem);
    certs_autox509 *leaf = leaf_of(&pem);
    rig_ok(certs_cert_der(leaf, &der, &err));
    rig_ok(certs_cert_info(leaf, &info, &err));
    json_t *body = json_pack("{s:i}", "reason", 5);
    rig_ok(att_json_set_b64u(body, "certificate", att_buf_slice(&der), &err));
    rig_ok(att_json_dump(body, false, &payload, &err));
    json_decref(body);
    long long before = atomic_load(&s.rig.issuer->view_version);
    assert_int_equal(client_post(&s.client, RIG_URL "/revokeCert", false, att_buf_slice(&payload)),
                     200);
    assert_int_equal(s.client.last.body.len, 0);
    assert_true(atomic_load(&s.rig.issuer->view_version) > before); /* hosts hear of it */
    assert_int_equal(client_post(&s.client, RIG_URL "/revokeCert", false, att_buf_slice(&payload)),
                     400);
    client_refused(&s.client, "alreadyRevoked");
    assert_int_equal(store_run(s.rig.issuer->store, true, revoke_row, info.serial_hex, &why),
                     ATT_E_CONFLICT);
    assert_string_equal(why.reason, "alreadyRevoked");
    assert_int_equal(issuer_crl_reason("cessationOfOperation"), 5);
    assert_int_equal(issuer_crl_reason("hostBanned"), 9);
    stage_free(&s);
}

static void orders_of_a_host(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "none");
    reconfigure(&s.rig, "trust_domain:", "limits: { host_orders: 2 }\ntrust_domain:");
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 429);
    client_refused(&s.client, "rateLimited");
    assert_int_equal(s.client.last.retry_after_s, 60);
    rig_time += ISSUER_RECENT_S + 1;
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(authorization_deactivated),
        cmocka_unit_test(replaced),
        cmocka_unit_test(key_changed),
        cmocka_unit_test(revoked),
        cmocka_unit_test(orders_of_a_host),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
