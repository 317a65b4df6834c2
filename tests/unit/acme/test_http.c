/* The HTTPS client against a real TLS server. Refusals first. */
#include "provision/acme/http.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "tls_server.h"

#include <openssl/pem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <cmocka.h>

struct world {
    struct tls_identity root, leaf, other_root;
    uint8_t pin[ATT_SHA256_LEN];
    char dir[64], ca_file[128];
};
static struct world w;

static void write_pem(const char *path, X509 *cert)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, cert), 1);
    fclose(f);
}

static int setup(void **state)
{
    (void)state;
    w.root = tls_issue(NULL, "root", NULL, 3600);
    w.leaf = tls_issue(&w.root, "leaf", "IP:127.0.0.1", 3600);
    w.other_root = tls_issue(NULL, "other", NULL, 3600);
    tls_digest(w.root.cert, w.pin);
    snprintf(w.dir, sizeof w.dir, "/tmp/attestd-http-XXXXXX");
    assert_non_null(mkdtemp(w.dir));
    snprintf(w.ca_file, sizeof w.ca_file, "%s/ca.pem", w.dir);
    write_pem(w.ca_file, w.root.cert);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(w.ca_file);
    rmdir(w.dir);
    tls_identity_done(&w.root);
    tls_identity_done(&w.leaf);
    tls_identity_done(&w.other_root);
    return 0;
}

static atomic_bool held; /* /held is not answered */

static void handler(void *user, const struct tls_request *request, struct att_buf *ret)
{
    (void)user;
    if (strcmp(request->path, "/moved") == 0) {
        tls_answer(ret, "302 Found", "Location: https://127.0.0.1:1/x\r\n", "");
    } else if (strcmp(request->path, "/headers") == 0) {
        tls_answer(ret, "200 OK",
                   "replay-nonce: abc-_9\r\nLOCATION:  https://x/y \r\nETag: W/\"42\"\r\n"
                   "Retry-After: 7\r\nContent-Type: Application/JSON; charset=utf-8\r\n",
                   "{}");
    } else if (strcmp(request->path, "/bad-headers") == 0) {
        tls_answer(ret, "200 OK",
                   "Replay-Nonce: a=b\r\nLocation: https://x/\x01\r\nRetry-After: soon\r\n", "");
    } else if (strcmp(request->path, "/big") == 0) {
        char body[2001];
        memset(body, 'x', sizeof body - 1);
        body[sizeof body - 1] = 0;
        tls_answer(ret, "200 OK", "", body);
    } else if (strcmp(request->path, "/slow") == 0) {
        usleep(700000);
        tls_answer(ret, "200 OK", "", "late");
    } else if (strcmp(request->path, "/held") == 0) {
        while (atomic_load(&held)) {
            usleep(10000);
        }
        tls_answer(ret, "200 OK", "", "late");
    } else if (strcmp(request->path, "/close") != 0) { /* echo */
        att_buf_printf(ret, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n",
                       strlen(request->head) + request->body.len);
        att_buf_put_str(ret, request->head);
        att_buf_put_slice(ret, att_buf_slice(&request->body));
    }
}

static struct acme_http *client(bool pinned)
{
    const struct acme_http_config config = {.ca_file = pinned ? NULL : w.ca_file,
                                            .ca_sha256 = pinned ? w.pin : NULL};
    struct acme_http *http = NULL;
    assert_int_equal(acme_http_new(&config, &http, NULL), ATT_OK);
    return http;
}

static enum att_rc get(struct acme_http *http, const struct tls_server *server, const char *path,
                       size_t max, int timeout_ms, struct acme_http_response *ret,
                       struct att_err *err)
{
    char url[128];
    snprintf(url, sizeof url, "https://127.0.0.1:%u%s", server->port, path);
    const struct acme_http_request request = {
        .method = "GET", .url = url, .max_body = max, .timeout_ms = timeout_ms};
    return acme_http_perform(http, &request, ret, err);
}

/* ---- trust -------------------------------------------------------------------------------------
 */
struct trust_case {
    const char *name;
    bool pinned;
    struct tls_identity *leaf;
    X509 *extra;
    const char *word;
};

static void expect_distrust(const struct trust_case *c)
{
    struct tls_server server = {0};
    struct acme_http_response response = {0};
    struct att_err err = {0};
    tls_start(&server, c->leaf, c->extra, handler, NULL);
    struct acme_http *http = client(c->pinned);
    enum att_rc rc = get(http, &server, "/", 0, 0, &response, &err);
    if (rc != ATT_E_AUTH || strcmp(err.reason, "issuerTls") != 0 || !strstr(err.msg, c->word)) {
        fail_msg("%s: %s %s \"%s\"", c->name, att_rc_name(rc), err.reason, err.msg);
    }
    acme_http_free(http);
    tls_stop(&server);
}

static void test_distrust(void **state)
{
    (void)state;
    struct tls_identity foreign = tls_issue(&w.other_root, "leaf", "IP:127.0.0.1", 3600);
    struct tls_identity expired = tls_issue(&w.root, "leaf", "IP:127.0.0.1", -3600);
    struct tls_identity misnamed = tls_issue(&w.root, "leaf", "DNS:issuer.example", 3600);
    /* Signed by a stranger, but naming our root as issuer, and sent with our genuine root. */
    struct tls_identity liar_root = tls_issue(NULL, "root", NULL, 3600);
    struct tls_identity liar = tls_issue(&liar_root, "leaf", "IP:127.0.0.1", 3600);
    const struct trust_case cases[] = {
        {"another root, file", false, &foreign, w.other_root.cert, ""},
        {"another root, pin", true, &foreign, w.other_root.cert, "did not send the pinned root"},
        {"root not sent, pin", true, &w.leaf, NULL, "did not send the pinned root"},
        {"foreign leaf with our root beside it", true, &foreign, w.root.cert, ""},
        {"leaf that names our root, forged", true, &liar, w.root.cert, ""},
        {"leaf that names our root, forged, file", false, &liar, w.root.cert, ""},
        {"expired, file", false, &expired, NULL, "expired"},
        {"expired, pin", true, &expired, w.root.cert, "expired"},
        {"another name, file", false, &misnamed, NULL, ""},
        {"another name, pin", true, &misnamed, w.root.cert, ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        expect_distrust(&cases[i]);
    }
    tls_identity_done(&foreign);
    tls_identity_done(&expired);
    tls_identity_done(&misnamed);
    tls_identity_done(&liar_root);
    tls_identity_done(&liar);
}

static void test_tls12_is_refused(void **state)
{
    (void)state;
    struct tls_server server = {0};
    struct acme_http_response response = {0};
    struct att_err err = {0};
    tls_start(&server, &w.leaf, w.root.cert, handler, NULL);
    SSL_CTX_set_max_proto_version(server.ctx, TLS1_2_VERSION);
    struct acme_http *http = client(true);
    assert_int_equal(get(http, &server, "/", 0, 0, &response, &err), ATT_E_UNREACHABLE);
    acme_http_free(http);
    tls_stop(&server);
}

static void test_config(void **state)
{
    (void)state;
    const struct acme_http_config none = {0}, both = {.ca_file = w.ca_file, .ca_sha256 = w.pin};
    struct acme_http *http = NULL;
    assert_int_equal(acme_http_new(&none, &http, NULL), ATT_E_INVAL);
    assert_int_equal(acme_http_new(&both, &http, NULL), ATT_E_INVAL);
    static const char *const bad[] = {"http://127.0.0.1/", "ftp://x/",      "https://",
                                      "file:///etc",       "https://x/a b", NULL};
    http = client(true);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const struct acme_http_request request = {.method = "GET", .url = bad[i]};
        struct acme_http_response response = {0};
        assert_int_equal(acme_http_perform(http, &request, &response, NULL), ATT_E_INVAL);
    }
    acme_http_free(http);
    const struct acme_http_config missing = {.ca_file = "/nonexistent/ca.pem"};
    struct acme_http_response response = {0};
    struct tls_server server = {0};
    struct att_err err = {0};
    tls_start(&server, &w.leaf, w.root.cert, handler, NULL);
    assert_int_equal(acme_http_new(&missing, &http, NULL), ATT_OK);
    assert_int_equal(get(http, &server, "/", 0, 0, &response, &err), ATT_E_INVAL);
    assert_non_null(strstr(err.msg, "/nonexistent/ca.pem"));
    acme_http_free(http);
    tls_stop(&server);
}

/* ---- exchanges ---------------------------------------------------------------------------------
 */
static void test_limits(void **state)
{
    (void)state;
    struct tls_server server = {0};
    struct acme_http_response response = {0};
    struct att_err err = {0};
    tls_start(&server, &w.leaf, w.root.cert, handler, NULL);
    struct acme_http *http = client(true);
    assert_int_equal(get(http, &server, "/big", 1999, 0, &response, &err), ATT_E_LIMIT);
    assert_int_equal(get(http, &server, "/big", 2000, 0, &response, NULL), ATT_OK);
    assert_int_equal(response.body.len, 2000);
    acme_http_response_done(&response);
    att_err_clear(&err);
    assert_int_equal(get(http, &server, "/slow", 0, 100, &response, &err), ATT_E_TIMEOUT);
    att_err_clear(&err);
    assert_int_equal(get(http, &server, "/close", 0, 0, &response, &err), ATT_E_UNREACHABLE);
    /* a redirect is an answer, never followed */
    assert_int_equal(get(http, &server, "/moved", 0, 0, &response, NULL), ATT_OK);
    assert_int_equal(response.status, 302);
    acme_http_response_done(&response);
    acme_http_free(http);
    tls_stop(&server);
    /* nobody there any more */
    http = client(true);
    assert_int_equal(get(http, &server, "/", 0, 0, &response, NULL), ATT_E_UNREACHABLE);
    acme_http_free(http);
}

static void test_headers(void **state)
{
    (void)state;
    struct tls_server server = {0};
    struct acme_http_response response = {0};
    tls_start(&server, &w.leaf, w.root.cert, handler, NULL);
    struct acme_http *http = client(false);
    assert_int_equal(get(http, &server, "/headers", 0, 0, &response, NULL), ATT_OK);
    assert_string_equal(response.nonce, "abc-_9");
    assert_string_equal(response.location, "https://x/y");
    assert_string_equal(response.etag, "42");
    assert_string_equal(response.content_type, "application/json");
    assert_int_equal(response.retry_after_s, 7);
    acme_http_response_done(&response);
    assert_int_equal(get(http, &server, "/bad-headers", 0, 0, &response, NULL), ATT_OK);
    assert_string_equal(response.nonce, "");
    assert_string_equal(response.location, "");
    assert_int_equal(response.retry_after_s, -1);
    acme_http_response_done(&response);
    acme_http_free(http);
    tls_stop(&server);
}

static void test_exchange(void **state)
{
    (void)state;
    for (int pinned = 0; pinned < 2; pinned++) {
        struct tls_server server = {0};
        struct acme_http_response response = {0};
        char url[64];
        tls_start(&server, &w.leaf, w.root.cert, handler, NULL);
        snprintf(url, sizeof url, "https://127.0.0.1:%u/echo", server.port);
        struct acme_http *http = client(pinned);
        const struct acme_http_request request = {.method = "POST",
                                                  .url = url,
                                                  .content_type = "application/jose+json",
                                                  .if_none_match = "7",
                                                  .prefer = "wait=5",
                                                  .body = ATT_SLICE_LIT("the body")};
        for (int i = 0; i < 3; i++) {
            assert_int_equal(acme_http_perform(http, &request, &response, NULL), ATT_OK);
            const char *text = att_buf_cstr(&response.body);
            assert_non_null(strstr(text, "POST /echo HTTP/1.1\r\n"));
            assert_non_null(strstr(text, "User-Agent: attestd/" ATT_VERSION "\r\n"));
            assert_non_null(strstr(text, "Content-Type: application/jose+json\r\n"));
            assert_non_null(strstr(text, "If-None-Match: \"7\"\r\n"));
            assert_non_null(strstr(text, "Prefer: wait=5\r\n"));
            assert_null(strstr(text, "Expect"));
            assert_non_null(strstr(text, "\r\n\r\nthe body"));
            assert_true(strstr(response.tls_group, "25519") != NULL);
            acme_http_response_done(&response);
        }
        assert_int_equal(atomic_load(&server.connections), 1); /* kept and reused */
        acme_http_free(http);
        tls_stop(&server);
    }
}

static void *cancel_soon(void *user)
{
    usleep(150000);
    acme_http_cancel(user, true);
    return NULL;
}

static void test_cancel(void **state)
{
    (void)state;
    struct tls_server server = {0};
    struct acme_http_response response = {0};
    tls_start(&server, &w.leaf, w.root.cert, handler, NULL);
    struct acme_http *http = client(true);
    pthread_t thread;
    int64_t start = att_boottime_ms();
    pthread_create(&thread, NULL, cancel_soon, http);
    assert_int_equal(acme_http_sleep(http, 20000, NULL), ATT_E_GONE);
    assert_true(att_boottime_ms() - start < 19000);
    pthread_join(thread, NULL);
    assert_int_equal(get(http, &server, "/", 0, 0, &response, NULL), ATT_E_GONE); /* stays so */
    acme_http_cancel(http, false);
    atomic_store(&held, true);
    pthread_create(&thread, NULL, cancel_soon, http);
    assert_int_equal(get(http, &server, "/held", 0, 0, &response, NULL), ATT_E_GONE);
    pthread_join(thread, NULL);
    atomic_store(&held, false);
    acme_http_cancel(http, false);
    assert_int_equal(acme_http_sleep(http, 1, NULL), ATT_OK);
    assert_int_equal(get(http, &server, "/", 0, 0, &response, NULL), ATT_OK);
    acme_http_response_done(&response);
    acme_http_free(http);
    tls_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distrust), cmocka_unit_test(test_tls12_is_refused),
        cmocka_unit_test(test_config),   cmocka_unit_test(test_limits),
        cmocka_unit_test(test_headers),  cmocka_unit_test(test_exchange),
        cmocka_unit_test(test_cancel),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
