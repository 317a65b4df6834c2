/* The ACME client against a server that speaks TLS and checks every signature, nonce and URL with
 * the server half of this library. What it answers beyond that is each test's choice. */
#include "provision/acme/client.h"

#include "attestd/base/clock.h"
#include "provision/acme/nonce.h"
#include "tls_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

enum { MAC_LEN = 32 };
static const uint8_t mac_key[MAC_LEN] = {1, 2, 3};

struct world {
    struct tls_identity root, leaf;
    uint8_t pin[ATT_SHA256_LEN];
    EVP_PKEY *account;
    struct att_buf spki;
    struct tls_server server;
    struct acme_nonces *nonces;
    char base[64];
    /* what the server does */
    int refuse_nonces;       /* so many times badNonce although the nonce is good */
    int polls_until_valid;   /* of the order */
    const char *retry_after; /* header line or "" */
    const char *foreign;     /* a URL in place of newOrder */
    const char *location;    /* instead of our own */
    /* what it saw */
    atomic_int posts, heads, polls;
    char last_prefer[64], last_etag[64];
};
static struct world w;

static void problem(struct att_buf *ret, const char *status, const char *headers, const char *type,
                    const char *more)
{
    char body[512], all[512];
    char nonce[ACME_NONCE_TEXT];
    acme_nonces_issue(w.nonces, nonce);
    snprintf(body, sizeof body, "{\"type\":\"urn:ietf:params:acme:error:%s\",\"detail\":\"no\"%s}",
             type, more);
    snprintf(all, sizeof all, "Replay-Nonce: %s\r\nContent-Type: application/problem+json\r\n%s",
             nonce, headers);
    tls_answer(ret, status, all, body);
}

static void good(struct att_buf *ret, const char *status, const char *type, const char *headers,
                 const char *body)
{
    char all[1024], nonce[ACME_NONCE_TEXT];
    acme_nonces_issue(w.nonces, nonce);
    snprintf(all, sizeof all, "Replay-Nonce: %s\r\nContent-Type: %s\r\n%s", nonce, type, headers);
    tls_answer(ret, status, all, body);
}

static void on_directory(struct att_buf *ret)
{
    char body[1024], order[128];
    snprintf(order, sizeof order, "%s/new-order", w.base);
    snprintf(body, sizeof body,
             "{\"newNonce\":\"%s/new-nonce\",\"newAccount\":\"%s/new-account\",\"newOrder\":\"%s\","
             "\"newAttestationKey\":\"%s/new-ak\",\"hostView\":\"%s/view\"}",
             w.base, w.base, w.foreign ? w.foreign : order, w.base, w.base);
    tls_answer(ret, "200 OK", "Content-Type: application/json\r\n", body);
}

static bool eab_ok(const struct acme_jws *jws)
{
    struct acme_account_request request = {0};
    struct acme_jws eab = {0};
    char url[128];
    snprintf(url, sizeof url, "%s/new-account", w.base);
    bool ok = acme_account_request_parse(att_buf_slice(&jws->payload), &request, NULL) == ATT_OK &&
              request.eab && acme_eab_parse(request.eab, &eab, NULL) == ATT_OK &&
              strcmp(eab.kid, "ticket-1") == 0 &&
              acme_eab_verify(&eab, ATT_SLICE_ARRAY(mac_key), url, jws->jwk, NULL) == ATT_OK;
    acme_jws_done(&eab);
    acme_account_request_done(&request);
    return ok;
}

static void on_order(struct att_buf *ret, const char *status, const char *headers)
{
    char body[1024];
    snprintf(
        body, sizeof body,
        "{\"status\":\"%s\",\"identifiers\":[{\"type\":\"spiffe-id\",\"value\":\"spiffe://x/a\"}"
        "],\"authorizations\":[\"%s/authz/1\"],\"finalize\":\"%s/order/1/finalize\"%s}",
        status, w.base, w.base,
        strcmp(status, "invalid") == 0
            ? ",\"error\":{\"type\":\"urn:ietf:params:acme:error:badAttestationStatement\","
              "\"subproblems\":[{\"type\":\"urn:attestd:error:akStale\",\"detail\":\"old\"}]}"
            : "");
    good(ret, strcmp(headers, "") == 0 ? "200 OK" : "201 Created", "application/json", headers,
         body);
}

static void on_challenge(struct att_buf *ret, const struct acme_jws *jws)
{
    char body[1024];
    bool refuse = att_slice_eq_str(att_buf_slice(&jws->payload), "{\"bad\":1}");
    snprintf(body, sizeof body,
             "{\"type\":\"device-attest-01\",\"url\":\"%s/chall/1\",\"status\":\"%s\",\"token\":"
             "\"AAAAAAAAAAAAAAAAAAAAAAAA\"%s}",
             w.base, refuse ? "invalid" : "valid",
             refuse ? ",\"error\":{\"type\":\"urn:ietf:params:acme:error:badAttestationStatement\","
                      "\"status\":403,\"subproblems\":[{\"type\":\"urn:attestd:error:quoteNonce\","
                      "\"detail\":\"the nonce is another\"}]}"
                    : "");
    good(ret, "200 OK", "application/json", "", body);
}

static void located(char *ret, size_t room, const char *path)
{
    snprintf(ret, room, "Location: %s%s\r\n", w.location ? w.location : w.base,
             w.location ? "" : path);
}

static void on_post(const struct tls_request *request, const struct acme_jws *jws,
                    struct att_buf *ret)
{
    char location[300];
    const char *path = request->path + strlen("/acme");
    if (strcmp(path, "/new-account") == 0) {
        located(location, sizeof location, "/acct/1");
        eab_ok(jws)
            ? good(ret, "201 Created", "application/json", location, "{\"status\":\"valid\"}")
            : problem(ret, "403 Forbidden", "", "externalAccountRequired", "");
    } else if (strcmp(path, "/new-ak") == 0) {
        located(location, sizeof location, "/ak/1");
        good(ret, "201 Created", "application/json", location, "{ \"exact\" : \"bytes\" }");
    } else if (strcmp(path, "/ak/1") == 0) {
        problem(ret, "403 Forbidden", "", "badAttestationStatement",
                ",\"subproblems\":[{\"type\":\"urn:attestd:error:activation\",\"detail\":\"K\"}]");
    } else if (strcmp(path, "/new-order") == 0) {
        located(location, sizeof location, "/order/1");
        on_order(ret, "pending", location);
    } else if (strcmp(path, "/order/1") == 0) {
        int polls = atomic_fetch_add(&w.polls, 1);
        on_order(ret, polls < w.polls_until_valid ? "processing" : "valid",
                 w.retry_after ? w.retry_after : "");
    } else if (strcmp(path, "/order/2") == 0) {
        on_order(ret, "invalid", "");
    } else if (strcmp(path, "/chall/1") == 0) {
        on_challenge(ret, jws);
    } else if (strcmp(path, "/cert/1") == 0) {
        good(ret, "200 OK", "application/pem-certificate-chain", "", "PEM");
    } else if (strcmp(path, "/cert/html") == 0) {
        good(ret, "200 OK", "text/html", "", "<html>");
    } else if (strcmp(path, "/limited") == 0) {
        problem(ret, "429 Too Many Requests", "Retry-After: 33\r\n", "rateLimited", "");
    } else if (strcmp(path, "/broken") == 0) {
        tls_answer(ret, "502 Bad Gateway", "Content-Type: text/html\r\n", "<html>");
    } else {
        problem(ret, "404 Not Found", "", "malformed", "");
    }
}

static void on_view(const struct tls_request *request, struct att_buf *ret)
{
    const char *prefer = strcasestr(request->head, "Prefer: ");
    const char *etag = strcasestr(request->head, "If-None-Match: ");
    w.last_prefer[0] = w.last_etag[0] = 0;
    if (prefer) {
        sscanf(prefer + 8, "%63[^\r]", w.last_prefer);
    }
    if (etag) {
        sscanf(etag + 15, "%63[^\r]", w.last_etag);
    }
    if (strcmp(w.last_etag, "\"5\"") == 0) {
        char nonce[ACME_NONCE_TEXT];
        acme_nonces_issue(w.nonces, nonce);
        att_buf_printf(ret, "HTTP/1.1 304 Not Modified\r\nReplay-Nonce: %s\r\n\r\n", nonce);
        return;
    }
    good(ret, "200 OK", "application/jose+json", "ETag: \"6\"\r\n", "{\"jws\":1}");
}

static bool signature_ok(const struct acme_jws *jws, const char *url)
{
    char kid[128];
    snprintf(kid, sizeof kid, "%s/acct/1", w.base);
    bool account = jws->jwk ? true : strcmp(jws->kid, kid) == 0;
    return account && strcmp(jws->url, url) == 0 &&
           acme_jws_verify_spki(jws, att_buf_slice(&w.spki), NULL) == ATT_OK;
}

static void handler(void *user, const struct tls_request *request, struct att_buf *ret)
{
    (void)user;
    char url[400], header[128], nonce[ACME_NONCE_TEXT];
    if (strcmp(request->path, "/acme/directory") == 0) {
        on_directory(ret);
        return;
    }
    if (strcmp(request->method, "HEAD") == 0) {
        atomic_fetch_add(&w.heads, 1);
        acme_nonces_issue(w.nonces, nonce);
        snprintf(header, sizeof header, "Replay-Nonce: %s\r\n", nonce);
        att_buf_printf(ret, "HTTP/1.1 200 OK\r\n%sContent-Length: 0\r\n\r\n", header);
        return;
    }
    struct acme_jws jws = {0};
    snprintf(url, sizeof url, "https://127.0.0.1:%u%s", w.server.port, request->path);
    atomic_fetch_add(&w.posts, 1);
    if (acme_jws_parse(att_buf_slice(&request->body), 1 << 20, &jws, NULL) != ATT_OK ||
        !strcasestr(request->head, "Content-Type: application/jose+json\r\n")) {
        problem(ret, "400 Bad Request", "", "malformed", "");
    } else if (acme_nonces_spend(w.nonces, jws.nonce, NULL) != ATT_OK || w.refuse_nonces > 0) {
        w.refuse_nonces--;
        problem(ret, "400 Bad Request", "", "badNonce", "");
    } else if (!signature_ok(&jws, url)) {
        problem(ret, "403 Forbidden", "", "unauthorized", "");
    } else if (strcmp(request->path, "/acme/view") == 0) {
        on_view(request, ret);
    } else {
        on_post(request, &jws, ret);
    }
    acme_jws_done(&jws);
}

/* ---- fixture -----------------------------------------------------------------------------------
 */
static int setup(void **state)
{
    (void)state;
    memset(&w, 0, sizeof w);
    w.root = tls_issue(NULL, "root", NULL, 3600);
    w.leaf = tls_issue(&w.root, "leaf", "IP:127.0.0.1", 3600);
    tls_digest(w.root.cert, w.pin);
    w.account = EVP_EC_gen("P-256");
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(w.account, &der);
    att_buf_put(&w.spki, der, (size_t)len);
    OPENSSL_free(der);
    assert_int_equal(acme_nonces_new(1, 1, 1024, &w.nonces, NULL), ATT_OK);
    tls_start(&w.server, &w.leaf, w.root.cert, handler, NULL);
    snprintf(w.base, sizeof w.base, "https://127.0.0.1:%u/acme", w.server.port);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tls_stop(&w.server);
    acme_nonces_free(w.nonces);
    att_buf_done(&w.spki);
    EVP_PKEY_free(w.account);
    tls_identity_done(&w.root);
    tls_identity_done(&w.leaf);
    return 0;
}

static struct acme_client_config config(void)
{
    return (struct acme_client_config){.base_url = w.base,
                                       .http = {.ca_sha256 = w.pin},
                                       .signer = acme_signer_pkey(w.account),
                                       .account_spki = att_buf_slice(&w.spki)};
}

/* With an account already. */
static struct acme_client *client(void)
{
    struct acme_client_config c = config();
    struct acme_client *made = NULL;
    char kid[128];
    snprintf(kid, sizeof kid, "%s/acct/1", w.base);
    c.kid = kid;
    assert_int_equal(acme_client_new(&c, &made, NULL), ATT_OK);
    return made;
}

static enum att_rc post(struct acme_client *c, const char *path, struct att_err *err)
{
    char url[200];
    struct acme_http_response response = {0};
    snprintf(url, sizeof url, "%s%s", w.base, path);
    const struct acme_client_post p = {.url = url};
    enum att_rc rc = acme_client_post(c, &p, &response, err);
    acme_http_response_done(&response);
    return rc;
}

static void expect(const struct att_err *err, enum att_rc rc, const char *reason, const char *word)
{
    if (err->rc != rc || strcmp(err->reason, reason) != 0 || !strstr(err->msg, word)) {
        fail_msg("expected %s/%s/\"%s\", got %s/%s/\"%s\"", att_rc_name(rc), reason, word,
                 att_rc_name(err->rc), err->reason, err->msg);
    }
}

/* ---- refusals ----------------------------------------------------------------------------------
 */
static void test_config(void **state)
{
    (void)state;
    struct acme_client *c = NULL;
    static const char *const bad[] = {"http://x/acme", "https://", "", "https://u@x/acme",
                                      "https://x/acme?y"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct acme_client_config cfg = config();
        cfg.base_url = bad[i];
        assert_int_equal(acme_client_new(&cfg, &c, NULL), ATT_E_INVAL);
    }
    struct acme_client_config cfg = config();
    cfg.kid = "https://elsewhere.example/acct/1";
    assert_int_equal(acme_client_new(&cfg, &c, NULL), ATT_E_INVAL);
    cfg = config();
    cfg.account_spki = ATT_SLICE_LIT("x");
    assert_int_not_equal(acme_client_new(&cfg, &c, NULL), ATT_OK);
    cfg = config();
    assert_int_equal(acme_client_new(&cfg, &c, NULL), ATT_OK);
    struct att_err err = {0};
    assert_int_equal(post(c, "/limited", &err), ATT_E_CONFLICT); /* no account yet */
    acme_client_free(c);
}

/* The account key signs for this issuer only, whatever URL somebody sends. */
static void test_foreign_urls(void **state)
{
    (void)state;
    struct acme_client *c = client();
    struct att_err err = {0};
    struct acme_http_response response = {0};
    char longer_port[128];
    snprintf(longer_port, sizeof longer_port, "https://127.0.0.1:%u0/acme/x", w.server.port);
    const char *const urls[] = {"https://evil.example/acme/x", longer_port,
                                "https://127.0.0.1/acme/x", "http://127.0.0.1/x"};
    for (size_t i = 0; i < 4; i++) {
        const struct acme_client_post p = {.url = urls[i]};
        assert_int_equal(acme_client_post(c, &p, &response, NULL), ATT_E_INVAL);
    }
    w.foreign = "https://evil.example/new-order";
    assert_int_equal(acme_client_directory(c, true, NULL, &err), ATT_E_PROTOCOL);
    expect(&err, ATT_E_PROTOCOL, "", "evil.example");
    w.foreign = NULL;
    assert_int_equal(acme_client_directory(c, true, NULL, NULL), ATT_OK);
    w.location = "https://evil.example/order/1";
    struct acme_order_request request = {.identifiers = {{"spiffe-id", "spiffe://x/a"}},
                                         .n_identifiers = 1};
    struct acme_order order = {0};
    char *url = NULL;
    assert_int_equal(acme_client_new_order(c, &request, &order, &url, NULL), ATT_E_PROTOCOL);
    assert_null(url);
    struct att_buf body = {0};
    assert_int_equal(acme_client_new_attestation_key(c, ATT_SLICE_LIT("{}"), &body, &url, NULL),
                     ATT_E_PROTOCOL);
    assert_null(url);
    acme_client_free(c);
}

static void test_problems(void **state)
{
    (void)state;
    struct acme_client *c = client();
    struct att_err err = {0};
    assert_int_equal(post(c, "/limited", &err), ATT_E_RETRY);
    expect(&err, ATT_E_RETRY, "rateLimited", "no");
    assert_int_equal(acme_client_last(c)->retry_after_s, 33);
    assert_int_equal(acme_client_last(c)->status, 429);
    assert_int_equal(acme_client_delay_ms(c, 0, 1000, 60000), 33000);
    assert_int_equal(acme_client_delay_ms(c, 0, 1000, 5000), 5000);
    att_err_clear(&err);
    assert_int_equal(post(c, "/broken", &err), ATT_E_RETRY);
    expect(&err, ATT_E_RETRY, "", "502");
    assert_false(acme_client_last(c)->has_problem);
    att_err_clear(&err);
    assert_int_equal(post(c, "/nowhere", &err), ATT_E_PROTOCOL);
    expect(&err, ATT_E_PROTOCOL, "malformed", "no");
    struct att_buf out = {0};
    char url[200];
    snprintf(url, sizeof url, "%s/ak/1", w.base);
    att_err_clear(&err);
    assert_int_equal(acme_client_activate(c, url, ATT_SLICE_LIT("{}"), &out, &err), ATT_E_REENROL);
    expect(&err, ATT_E_REENROL, "activation", "K");
    snprintf(url, sizeof url, "%s/cert/html", w.base);
    assert_int_equal(acme_client_certificate(c, url, &out, NULL), ATT_E_PROTOCOL);
    assert_int_equal(out.len, 0);
    acme_client_free(c);
}

static void test_wrong_key(void **state)
{
    (void)state;
    EVP_PKEY *stranger = EVP_EC_gen("P-256");
    struct acme_client_config cfg = config();
    struct acme_client *c = NULL;
    struct att_err err = {0};
    char kid[128];
    snprintf(kid, sizeof kid, "%s/acct/1", w.base);
    cfg.kid = kid;
    cfg.signer = acme_signer_pkey(stranger);
    assert_int_equal(acme_client_new(&cfg, &c, NULL), ATT_OK);
    assert_int_equal(post(c, "/cert/1", &err), ATT_E_DENIED);
    expect(&err, ATT_E_DENIED, "unauthorized", "no");
    acme_client_free(c);
    EVP_PKEY_free(stranger);
}

/* ---- nonces ------------------------------------------------------------------------------------
 */
static void test_bad_nonce(void **state)
{
    (void)state;
    struct acme_client *c = client();
    struct att_err err = {0};
    w.refuse_nonces = ACME_CLIENT_NONCE_TRIES; /* as often as it tries */
    assert_int_equal(post(c, "/cert/1", &err), ATT_E_PROTOCOL);
    expect(&err, ATT_E_PROTOCOL, "badNonce", "no");
    assert_int_equal(atomic_load(&w.posts), ACME_CLIENT_NONCE_TRIES);
    assert_int_equal(atomic_load(&w.heads), 1); /* each retry used the nonce that was returned */
    w.refuse_nonces = ACME_CLIENT_NONCE_TRIES - 1;
    att_err_clear(&err);
    assert_int_equal(post(c, "/cert/1", &err), ATT_OK);
    assert_int_equal(err.rc, ATT_OK); /* nothing of the retries is left */
    assert_int_equal(atomic_load(&w.heads), 1);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(post(c, "/cert/1", NULL), ATT_OK);
    }
    assert_int_equal(atomic_load(&w.heads), 1);
    acme_client_free(c);
}

/* The issuer was started anew: every nonce in the pool is void. */
static void test_issuer_restart(void **state)
{
    (void)state;
    struct acme_client *c = client();
    assert_int_equal(post(c, "/cert/1", NULL), ATT_OK);
    acme_nonces_free(w.nonces);
    assert_int_equal(acme_nonces_new(1, 2, 1024, &w.nonces, NULL), ATT_OK);
    assert_int_equal(post(c, "/cert/1", NULL), ATT_OK);
    acme_client_free(c);
}

/* ---- M0 … M7 -----------------------------------------------------------------------------------
 */
static void test_account(void **state)
{
    (void)state;
    struct acme_client_config cfg = config();
    struct acme_client *c = NULL;
    struct att_err err = {0};
    uint8_t wrong[MAC_LEN] = {9};
    char kid[128];
    assert_int_equal(acme_client_new(&cfg, &c, NULL), ATT_OK);
    assert_int_equal(acme_client_new_account(c, "ticket-1", ATT_SLICE_ARRAY(wrong), false, &err),
                     ATT_E_DENIED);
    expect(&err, ATT_E_DENIED, "externalAccountRequired", "no");
    assert_null(acme_client_kid(c));
    assert_int_equal(acme_client_new_account(c, NULL, (struct att_slice){0}, false, NULL),
                     ATT_E_DENIED);
    assert_int_equal(acme_client_new_account(c, "ticket-1", ATT_SLICE_ARRAY(mac_key), false, NULL),
                     ATT_OK);
    snprintf(kid, sizeof kid, "%s/acct/1", w.base);
    assert_string_equal(acme_client_kid(c), kid);
    assert_int_equal(strlen(acme_client_thumbprint(c)), 43);
    assert_int_equal(post(c, "/cert/1", NULL), ATT_OK);
    acme_client_free(c);
}

static void test_issuance(void **state)
{
    (void)state;
    struct acme_client *c = client();
    struct att_buf body = {0};
    char *ak = NULL, *order_url = NULL, url[200];
    assert_int_equal(acme_client_new_attestation_key(c, ATT_SLICE_LIT("{}"), &body, &ak, NULL),
                     ATT_OK);
    assert_string_equal(att_buf_cstr(&body), "{ \"exact\" : \"bytes\" }");
    assert_non_null(strstr(ak, "/acme/ak/1"));
    const struct acme_order_request request = {.identifiers = {{"spiffe-id", "spiffe://x/a"}},
                                               .n_identifiers = 1};
    struct acme_order order = {0};
    assert_int_equal(acme_client_new_order(c, &request, &order, &order_url, NULL), ATT_OK);
    assert_int_equal(order.status, ACME_S_PENDING);
    acme_order_done(&order);

    struct acme_challenge challenge = {0};
    struct att_err err = {0};
    snprintf(url, sizeof url, "%s/chall/1", w.base);
    assert_int_equal(acme_client_challenge(c, url, ATT_SLICE_LIT("{\"bad\":1}"), &challenge, &err),
                     ATT_E_DENIED);
    expect(&err, ATT_E_DENIED, "quoteNonce", "the nonce is another");
    assert_true(acme_client_last(c)->has_problem);
    assert_int_equal(acme_client_challenge(c, url, ATT_SLICE_LIT("{}"), &challenge, NULL), ATT_OK);
    assert_int_equal(challenge.status, ACME_S_VALID);
    acme_challenge_done(&challenge);

    snprintf(url, sizeof url, "%s/cert/1", w.base);
    body.len = 0;
    assert_int_equal(acme_client_certificate(c, url, &body, NULL), ATT_OK);
    assert_string_equal(att_buf_cstr(&body), "PEM");
    assert_true(acme_client_last(c)->tls_group[0] != 0);
    att_buf_done(&body);
    free(ak);
    free(order_url);
    acme_client_free(c);
}

static void test_wait_order(void **state)
{
    (void)state;
    struct acme_client *c = client();
    struct acme_order order = {0};
    struct att_err err = {0};
    char url[200];
    snprintf(url, sizeof url, "%s/order/1", w.base);
    /* Retry-After 2: the second poll comes two seconds later, not sooner. */
    w.polls_until_valid = 1;
    w.retry_after = "Retry-After: 2\r\n";
    int64_t start = att_boottime_ms();
    assert_int_equal(acme_client_wait_order(c, url, false, 10000, &order, NULL), ATT_OK);
    assert_true(att_boottime_ms() - start >= 1900);
    assert_int_equal(atomic_load(&w.polls), 2);
    assert_int_equal(order.status, ACME_S_VALID);
    acme_order_done(&order);
    /* Longer than the caller waits: no sleep at all. */
    atomic_store(&w.polls, 0);
    w.polls_until_valid = 100;
    w.retry_after = "Retry-After: 60\r\n";
    start = att_boottime_ms();
    assert_int_equal(acme_client_wait_order(c, url, false, 50000, &order, &err), ATT_E_TIMEOUT);
    assert_true(att_boottime_ms() - start < 40000);
    assert_int_equal(atomic_load(&w.polls), 1);
    snprintf(url, sizeof url, "%s/order/2", w.base);
    att_err_clear(&err);
    assert_int_equal(acme_client_wait_order(c, url, false, 5000, &order, &err), ATT_E_REENROL);
    expect(&err, ATT_E_REENROL, "akStale", "old");
    acme_client_free(c);
}

static void test_host_view(void **state)
{
    (void)state;
    struct acme_client *c = client();
    struct att_buf jws = {0};
    bool changed = false;
    assert_int_equal(acme_client_host_view(c, 0, 50, &changed, &jws, NULL), ATT_OK);
    assert_true(changed);
    assert_string_equal(att_buf_cstr(&jws), "{\"jws\":1}");
    assert_string_equal(w.last_prefer, ""); /* nothing to wait for */
    assert_string_equal(w.last_etag, "");
    jws.len = 0;
    assert_int_equal(acme_client_host_view(c, 5, 500, &changed, &jws, NULL), ATT_OK);
    assert_false(changed);
    assert_int_equal(jws.len, 0);
    assert_string_equal(w.last_prefer, "wait=60");
    assert_int_equal(acme_client_host_view(c, 4, 1, &changed, &jws, NULL), ATT_OK);
    assert_true(changed);
    assert_string_equal(w.last_etag, "\"4\"");
    att_buf_done(&jws);
    acme_client_free(c);
}

static void test_cancel(void **state)
{
    (void)state;
    struct acme_client *c = client();
    acme_client_cancel(c, true);
    assert_int_equal(post(c, "/cert/1", NULL), ATT_E_GONE);
    assert_int_equal(acme_client_sleep(c, 60000, NULL), ATT_E_GONE);
    acme_client_cancel(c, false);
    assert_int_equal(post(c, "/cert/1", NULL), ATT_OK);
    acme_client_free(c);
}

static void test_backoff(void **state)
{
    (void)state;
    int64_t least = INT64_MAX, most = 0;
    for (int i = 0; i < 2000; i++) {
        int64_t ms = acme_backoff_ms(3, 1000, 60000);
        least = ms < least ? ms : least;
        most = ms > most ? ms : most;
    }
    assert_in_range(least, 4000, 4400); /* jitter really spreads */
    assert_in_range(most, 7600, 8000);
    for (unsigned i = 0; i < 200; i++) {
        assert_in_range(acme_backoff_ms(i, 1000, 60000), 500, 60000);
    }
    assert_in_range(acme_backoff_ms(200, 1000, 60000), 30000, 60000);
    assert_in_range(acme_backoff_ms(0, 0, 0), 0, 1);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_config),    T(test_foreign_urls), T(test_problems),
        T(test_wrong_key), T(test_bad_nonce),    T(test_issuer_restart),
        T(test_account),   T(test_issuance),     T(test_wait_order),
        T(test_host_view), T(test_cancel),       cmocka_unit_test(test_backoff),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
