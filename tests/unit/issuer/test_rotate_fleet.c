/* A fleet of peers that verify each other, through the rotation of an intermediate and of a root:
 * they renew and hear of their view one by one, at every step of it, and no handshake fails. Each
 * has what a host has (bundle and revocation lists by its own view), and checks like our TLS and
 * like a stock verifier that wants a list for every certificate. */
#include "tests/unit/issuer/stage.h"

#include "certs/bundle.h"
#include "certs/crl.h"
#include "certs/tls.h"
#include "provision/acme/jws.h"

#include <openssl/ssl.h>

#define PEERS    3
#define LISTS    8
#define BEHIND   (PEERS - 1) /* hears of a new root last */
#define LIFETIME 3600

struct peer {
    struct tpm tpm;
    struct client client;
    char ak[256];
    STACK_OF(X509) * chain, *roots;
    X509_CRL *crl[LISTS];
    size_t n_crls;
};

struct fleet {
    struct rig rig;
    struct peer peer[PEERS];
    unsigned handshakes;
};

/* ---- a peer ------------------------------------------------------------------------------------
 */

static void renew(struct peer *p)
{
    struct order o;
    p->tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_order(&p->client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&p->client, &p->tpm, &o, p->ak), "valid");
    assert_int_equal(rig_finalize(&p->client, &o, p->tpm.base->agent.pkey, FORGE_IDENTIFIER), 200);
    assert_int_equal(client_get(&p->client, client_text(&p->client, "certificate")), 200);
    certs_stack_cleanup(&p->chain);
    p->chain = NULL;
    rig_ok(certs_pem_parse(att_buf_slice(&p->client.last.body), &p->chain, &err));
}

static void drop_lists(struct peer *p)
{
    for (size_t i = 0; i < p->n_crls; i++) {
        X509_CRL_free(p->crl[i]);
    }
    p->n_crls = 0;
}

static void fetch_list(struct peer *p, const char *file)
{
    char path[128];
    snprintf(path, sizeof path, "/acme/crl/%s", file);
    struct issuer_request request = {.method = ISSUER_GET, .path = path};
    struct issuer_response response = {0};
    issuer_handle(p->client.rig->issuer, &request, &response);
    assert_int_equal(response.status, 200);
    rig_ok(certs_crl_parse(att_buf_slice(&response.body), &p->crl[p->n_crls++], &err));
    issuer_response_done(&response);
}

static int64_t take_view(struct peer *p)
{
    struct acme_jws jws = {0};
    att_autojson *view = NULL;
    assert_int_equal(client_get(&p->client, RIG_URL "/hostView"), 200);
    rig_ok(acme_jws_parse_signed(att_buf_slice(&p->client.last.body), ACME_JWS_MAX,
                                 "attestd-hostview", &jws, &err));
    rig_ok(att_json_parse(att_buf_slice(&jws.payload), 1 << 20, &view, &err));
    acme_jws_done(&jws);
    certs_stack_cleanup(&p->roots);
    p->roots = NULL;
    rig_ok(certs_bundle_parse(att_slice_str(issuer_string(view, "bundle")), &p->roots, &err));
    drop_lists(p);
    const json_t *crls = json_object_get(view, "crls");
    if (!crls) {
        fetch_list(p, "workload.crl");
    }
    for (size_t i = 0; i < json_array_size(crls); i++) {
        fetch_list(p, json_string_value(json_array_get(crls, i)));
    }
    return json_integer_value(json_object_get(view, "version"));
}

/* The view, and the question with which the issuer hears that it is in force. */
static void see(struct peer *p)
{
    char nonce[ACME_NONCE_TEXT], etag[32];
    att_autobuf text = {0};
    snprintf(etag, sizeof etag, "\"%lld\"", (long long)take_view(p));
    client_nonce(&p->client, nonce);
    client_sign(&p->client, RIG_URL "/hostView", nonce, false, ATT_SLICE(NULL, 0), &text);
    assert_int_equal(client_send(&p->client, "/acme/hostView", att_buf_slice(&text),
                                 "application/jose+json", etag),
                     304);
}

/* ---- handshakes --------------------------------------------------------------------------------
 */

/* As ours, at the time of the test's clock instead of the machine's. */
static int verify_then(X509_STORE_CTX *ctx, void *user)
{
    STACK_OF(X509) *sent = X509_STORE_CTX_get0_untrusted(ctx);
    certs_autostack *chain = X509_chain_up_ref(sent);
    struct att_err err = {0};
    const STACK_OF(X509) *roots = user;
    bool ok =
        chain && certs_chain_verify(chain, roots, CERTS_PURPOSE_WORKLOAD, rig_time, &err) == ATT_OK;
    if (!ok) {
        print_error("ours: %s %s\n", err.reason, err.msg);
    }
    X509_STORE_CTX_set_error(ctx, ok ? X509_V_OK : X509_V_ERR_APPLICATION_VERIFICATION);
    return ok;
}

static SSL *end_of(struct peer *p, bool server, SSL_CTX **ret_ctx)
{
    rig_ok(
        certs_tls_mutual_new(p->chain, p->tpm.base->agent.pkey, p->roots, server, ret_ctx, &err));
    SSL_CTX_set_cert_verify_callback(*ret_ctx, verify_then, p->roots);
    SSL *ssl = SSL_new(*ret_ctx);
    assert_non_null(ssl);
    server ? SSL_set_accept_state(ssl) : SSL_set_connect_state(ssl);
    return ssl;
}

static bool shake(struct peer *from, struct peer *to)
{
    SSL_CTX *ctx[2];
    SSL *client = end_of(from, false, &ctx[0]), *server = end_of(to, true, &ctx[1]);
    BIO *a = NULL, *b = NULL;
    assert_int_equal(BIO_new_bio_pair(&a, 0, &b, 0), 1);
    SSL_set_bio(client, a, a);
    SSL_set_bio(server, b, b);
    int one = -1, other = -1;
    for (int i = 0; i < 10 && (one != 1 || other != 1); i++) {
        one = SSL_do_handshake(client);
        other = SSL_do_handshake(server);
    }
    att_autobuf id = {0}, peer_id = {0};
    bool ok = one == 1 && other == 1 && certs_tls_peer_spiffe(client, &id, NULL) == ATT_OK &&
              certs_tls_peer_spiffe(server, &peer_id, NULL) == ATT_OK;
    SSL_free(client);
    SSL_free(server);
    SSL_CTX_free(ctx[0]);
    SSL_CTX_free(ctx[1]);
    return ok;
}

/* A stock verifier with X509_V_FLAG_CRL_CHECK: a list of the leaf's authority has to be there. */
static bool stock(const struct peer *by, const struct peer *of)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    for (int i = 0; i < sk_X509_num(by->roots); i++) {
        X509_STORE_add_cert(store, sk_X509_value(by->roots, i));
    }
    for (size_t i = 0; i < by->n_crls; i++) {
        X509_STORE_add_crl(store, by->crl[i]);
    }
    assert_int_equal(X509_STORE_CTX_init(ctx, store, sk_X509_value(of->chain, 0), of->chain), 1);
    X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
    X509_VERIFY_PARAM_set_time(param, (time_t)rig_time);
    X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_CRL_CHECK | X509_V_FLAG_X509_STRICT);
    bool ok = X509_verify_cert(ctx) == 1;
    if (!ok) {
        print_error("stock: %s\n", X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)));
    }
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    return ok;
}

/* Each with each. */
static void all_shake(struct fleet *f, const char *when)
{
    for (int i = 0; i < PEERS; i++) {
        for (int k = 0; k < PEERS; k++) {
            if (i != k && !(shake(&f->peer[i], &f->peer[k]) && stock(&f->peer[i], &f->peer[k]))) {
                fail_msg("%s: peer %d could not verify peer %d, or the other way", when, i, k);
            }
            f->handshakes += i != k;
        }
    }
}

/* Everybody renews and hears of the view, one after the other. behind: but one. */
static void live(struct fleet *f, const char *when, bool behind)
{
    all_shake(f, when);
    for (int i = 0; i < PEERS; i++) {
        if (i % 2) {
            renew(&f->peer[i]);
            all_shake(f, when);
        }
        if (!behind || i != BEHIND) {
            see(&f->peer[i]);
            all_shake(f, when);
        }
        if (!(i % 2)) {
            renew(&f->peer[i]);
            all_shake(f, when);
        }
    }
}

/* ---- the fleet ---------------------------------------------------------------------------------
 */

static void apply_entry(struct fleet *f)
{
    char text[1024];
    size_t at = (size_t)snprintf(text, sizeof text,
                                 "trust_domain: bank.example\nagents:\n  - name: " RIG_NAME
                                 "\n    owner: trading@bank.example\n    hosts:\n");
    for (int i = 0; i < PEERS; i++) {
        at += (size_t)snprintf(text + at, sizeof text - at, "      - \"ek:%s\"\n",
                               f->peer[i].tpm.ek_id);
    }
    snprintf(text + at, sizeof text - at,
             "    workload: { uid: 1001 }\n    key: tpm\n    profile: trading\n");
    rig_admin_done(&f->rig, "entry.apply",
                   json_pack("{s:s, s:s}", "text", text, "filename", "e.yaml"));
}

static void fleet_new(struct fleet *f)
{
    char name[40];
    forge_shift_s = att_now_utc_s() - FORGE_NOW;
    tpm_new_other(&f->peer[0].tpm);
    rig_new(&f->rig, f->peer[0].tpm.base->maker_root, "none");
    rig_time = att_now_utc_s();
    for (int i = 1; i < PEERS; i++) {
        tpm_new_other(&f->peer[i].tpm);
        snprintf(name, sizeof name, "ek/maker-%d.pem", i);
        rig_pem(f->rig.dir, name, f->peer[i].tpm.base->maker_root);
    }
    rig_config(&f->rig, "none", "ca:\n  publish_wait: 1s\n");
    reload(&f->rig);
    for (int i = 0; i < PEERS; i++) {
        client_new(&f->peer[i].client, &f->rig);
        rig_enrol(&f->peer[i].client, &f->peer[i].tpm, f->peer[i].ak);
    }
    apply_entry(f);
    for (int i = 0; i < PEERS; i++) {
        renew(&f->peer[i]);
        see(&f->peer[i]);
    }
}

static void fleet_free(struct fleet *f)
{
    for (int i = 0; i < PEERS; i++) {
        struct peer *p = &f->peer[i];
        drop_lists(p);
        certs_stack_cleanup(&p->chain);
        certs_stack_cleanup(&p->roots);
        client_free(&p->client);
        tpm_free(&p->tpm);
    }
    rig_free(&f->rig);
    forge_shift_s = 0;
}

/* The step that is due, or that one waits; true: it is this one. */
static bool took(struct fleet *f, bool start, bool new_root, const char *step)
{
    json_t *got = rig_admin(
        &f->rig, "ca.rotate",
        json_pack("{s:s, s:b, s:b}", "kind", "workload", "start", start, "newRoot", new_root));
    bool same = strcmp(issuer_string(got, "step"), step) == 0;
    json_decref(got);
    return same;
}

static void rotate(struct fleet *f, bool start, bool new_root, const char *step)
{
    assert_true(took(f, start, new_root, step));
}

/* Certificates of the old one end by themselves, while everybody renews; then it goes. */
static void outlive(struct fleet *f)
{
    rotate(f, false, false, "waiting");
    for (int i = 0; i < 4; i++) {
        rig_time += LIFETIME / 2;
        for (int k = 0; k < PEERS; k++) {
            renew(&f->peer[k]);
            see(&f->peer[k]);
        }
        all_shake(f, "while the old one's certificates end");
        if (took(f, false, false, "retired")) {
            return;
        }
    }
    fail_msg("the old one is not retired");
}

static void no_handshake_fails(void **state)
{
    (void)state;
    static struct fleet f;
    fleet_new(&f);
    live(&f, "before", false);

    rotate(&f, true, false, "prepared");
    live(&f, "an intermediate is prepared", false);
    rotate(&f, false, false, "published");
    live(&f, "the intermediate is published", true);
    rotate(&f, false, false, "waiting"); /* for one host: it has not got the list */
    see(&f.peer[BEHIND]);
    rotate(&f, false, false, "activated");
    live(&f, "the intermediate is active", false);
    outlive(&f);
    live(&f, "the old intermediate is retired", false);

    rotate(&f, true, true, "prepared");
    live(&f, "a root is prepared", false);
    rotate(&f, false, false, "published");
    rig_time += 2; /* publish_wait */
    live(&f, "the root is published", true);
    rotate(&f, false, false, "waiting"); /* for one host: it would fail with the others now */
    see(&f.peer[BEHIND]);
    rotate(&f, false, false, "activated");
    live(&f, "the root is active", false);
    outlive(&f);
    live(&f, "the old root is retired", false);
    assert_int_equal(sk_X509_num(f.peer[0].roots), 1);
    rig_admin_done(&f.rig, "audit.verify", json_object());
    print_message("%u handshakes\n", f.handshakes);
    fleet_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_handshake_fails)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
