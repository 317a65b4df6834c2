/* Our client against pebble (Debian package), a plain RFC 8555 server of other authors that refuses
 * good nonces at random, validates late and gives authorizations away twice. Skipped without it. */
#include "provision/acme/client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME "attestd.example"

static char dir[128], base[64];
static pid_t pebble;
static EVP_PKEY *account, *key;
static struct att_buf spki;
static struct acme_client *client;
static unsigned calls; /* requests that were to be made */

static unsigned free_port(void)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof in;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &len), 0);
    close(fd);
    return ntohs(in.sin_port);
}

static void write_file(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void write_identity(void)
{
    char command[512];
    snprintf(command, sizeof command,
             "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "
             "/CN=pebble -addext subjectAltName=IP:127.0.0.1 -keyout %s/tls.key -out %s/tls.pem "
             "2> /dev/null",
             dir, dir);
    assert_int_equal(system(command), 0);
}

/* Its log is how we know which requests came. */
static void start_pebble(void)
{
    char path[256];
    snprintf(path, sizeof path, "%s/log", dir);
    pebble = fork();
    assert_true(pebble >= 0);
    if (pebble == 0) {
        int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, 1);
        dup2(fd, 2);
        snprintf(path, sizeof path, "%s/config.json", dir);
        setenv("PEBBLE_WFE_NONCEREJECT", "25", 1);
        setenv("PEBBLE_AUTHZREUSE", "100", 1);
        setenv("PEBBLE_VA_ALWAYS_VALID", "1", 1);
        setenv("PEBBLE_VA_SLEEPTIME", "2", 1);
        execlp("pebble", "pebble", "-config", path, (char *)NULL);
        _exit(127);
    }
}

/* Until it is there, or it is plain that there is none. */
static bool wait_pebble(void)
{
    for (int i = 0; i < 300; i++) {
        int status = 0;
        if (waitpid(pebble, &status, WNOHANG) == pebble) {
            pebble = 0;
            return false;
        }
        if (acme_client_directory(client, true, NULL, NULL) == ATT_OK) {
            return true;
        }
        usleep(100000);
    }
    fail_msg("pebble does not answer");
    return false;
}

static void new_client(void)
{
    char ca[256];
    uint8_t *der = NULL;
    account = EVP_EC_gen("P-256");
    key = EVP_EC_gen("P-256");
    int len = i2d_PUBKEY(account, &der);
    att_buf_put(&spki, der, (size_t)len);
    OPENSSL_free(der);
    snprintf(ca, sizeof ca, "%s/tls.pem", dir);
    struct acme_client_config config = {.base_url = base,
                                        .directory = "dir",
                                        .http = {.ca_file = ca},
                                        .signer = acme_signer_pkey(account),
                                        .account_spki = att_buf_slice(&spki)};
    assert_int_equal(acme_client_new(&config, &client, NULL), ATT_OK);
}

static int setup(void **state)
{
    char config[1024];
    unsigned port;
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    snprintf(dir, sizeof dir, "/tmp/att-pebble-XXXXXX");
    assert_non_null(mkdtemp(dir));
    write_identity();
    port = free_port();
    snprintf(base, sizeof base, "https://127.0.0.1:%u", port);
    snprintf(
        config, sizeof config,
        "{\"pebble\": {\"listenAddress\": \"127.0.0.1:%u\", \"managementListenAddress\": \"\", "
        "\"certificate\": \"%s/tls.pem\", \"privateKey\": \"%s/tls.key\", \"httpPort\": 80, "
        "\"tlsPort\": 443, \"ocspResponderURL\": \"\", "
        "\"externalAccountBindingRequired\": false}}",
        port, dir, dir);
    write_file("config.json", config);
    new_client();
    start_pebble();
    return 0;
}

static int teardown(void **state)
{
    char command[200];
    (void)state;
    if (pebble > 0) {
        kill(pebble, SIGKILL);
        waitpid(pebble, NULL, 0);
    }
    acme_client_free(client);
    EVP_PKEY_free(account);
    EVP_PKEY_free(key);
    att_buf_done(&spki);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

/* What four nonces in a row were refused for is said again: each other failure is one. */
#define must(call)                                                                                 \
    do {                                                                                           \
        struct att_err err = {0};                                                                  \
        enum att_rc rc_ = ATT_OK;                                                                  \
        for (int try_ = 0; try_ < 8; try_++) {                                                     \
            att_err_clear(&err);                                                                   \
            calls++;                                                                               \
            rc_ = (call);                                                                          \
            if (strcmp(err.reason, "badNonce") != 0) {                                             \
                break;                                                                             \
            }                                                                                      \
        }                                                                                          \
        if (rc_) {                                                                                 \
            print_error("%d: %s (%s)\n", __LINE__, err.msg, err.reason);                           \
        }                                                                                          \
        assert_int_equal(rc_, ATT_OK);                                                             \
    } while (0)

static void csr(struct att_buf *ret)
{
    X509_REQ *req = X509_REQ_new();
    STACK_OF(X509_EXTENSION) *exts = sk_X509_EXTENSION_new_null();
    uint8_t *der = NULL;
    sk_X509_EXTENSION_push(exts,
                           X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:" NAME));
    X509_REQ_set_pubkey(req, key);
    X509_REQ_add_extensions(req, exts);
    assert_true(X509_REQ_sign(req, key, EVP_sha256()) > 0);
    int len = i2d_X509_REQ(req, &der);
    att_buf_put(ret, der, (size_t)len);
    OPENSSL_free(der);
    sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
    X509_REQ_free(req);
}

static void open_order(struct acme_order *order, char **url)
{
    struct acme_order_request request = {.n_identifiers = 1};
    snprintf(request.identifiers[0].type, sizeof request.identifiers[0].type, "dns");
    snprintf(request.identifiers[0].value, sizeof request.identifiers[0].value, NAME);
    must(acme_client_new_order(client, &request, order, url, &err));
}

/* Of this server's challenge types we know none: they are skipped, and its http-01 is answered here
 * (pebble says yes to everybody, after a while). */
static void answer(const char *authz_url)
{
    struct acme_authz authz = {0};
    struct acme_http_response response = {0};
    json_t *json = NULL;
    const char *url = NULL;
    must(acme_client_authz(client, authz_url, &authz, &err));
    assert_int_equal(authz.status, ACME_S_PENDING);
    assert_int_equal(authz.n_challenges, 0);
    acme_authz_done(&authz);
    struct acme_client_post post = {.url = authz_url};
    must(acme_client_post(client, &post, &response, &err));
    assert_int_equal(att_json_parse(att_buf_slice(&response.body), 65536, &json, NULL), ATT_OK);
    acme_http_response_done(&response);
    for (size_t i = 0; i < json_array_size(json_object_get(json, "challenges")); i++) {
        const json_t *c = json_array_get(json_object_get(json, "challenges"), i);
        if (strcmp(json_string_value(json_object_get(c, "type")), "http-01") == 0) {
            url = json_string_value(json_object_get(c, "url"));
        }
    }
    assert_non_null(url);
    post = (struct acme_client_post){.url = url, .payload = att_slice_str("{}")};
    must(acme_client_post(client, &post, &response, &err));
    acme_http_response_done(&response);
    json_decref(json);
}

static void finish(struct acme_order *order, const char *url)
{
    struct att_buf der = {0}, pem = {0};
    struct acme_order after = {0};
    csr(&der);
    must(acme_client_finalize(client, order->finalize, att_buf_slice(&der), &after, &err));
    acme_order_done(&after);
    acme_order_done(order);
    must(acme_client_wait_order(client, url, false, 60000, order, &err));
    assert_int_equal(order->status, ACME_S_VALID);
    must(acme_client_certificate(client, order->certificate, &pem, &err));
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    X509 *leaf = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    assert_non_null(leaf);
    assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(leaf), key), 1);
    assert_int_equal(X509_check_host(leaf, NAME, 0, 0, NULL), 1);
    X509_free(leaf);
    BIO_free(bio);
    att_buf_done(&der);
    att_buf_done(&pem);
}

/* Lines of its log with "POST /". */
static unsigned posts_seen(void)
{
    char path[256], line[1024];
    unsigned n = 0;
    snprintf(path, sizeof path, "%s/log", dir);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        n += strstr(line, "POST /") != NULL;
    }
    fclose(f);
    return n;
}

static void plain_server(void **state)
{
    struct acme_order order = {0}, second = {0};
    char *url = NULL, *again = NULL;
    (void)state;
    if (!wait_pebble()) {
        print_message("no pebble (package pebble)\n");
        skip();
    }
    const struct acme_directory *directory = NULL;
    assert_int_equal(acme_client_directory(client, false, &directory, NULL), ATT_OK);
    assert_null(directory->new_attestation_key);
    must(acme_client_new_account(client, NULL, (struct att_slice){0}, false, &err));
    assert_non_null(acme_client_kid(client));
    /* Late validation: the order is waited for, and each authorization is one of this order. */
    open_order(&order, &url);
    assert_int_equal(order.status, ACME_S_PENDING);
    answer(order.authorizations[0]);
    acme_order_done(&order);
    must(acme_client_wait_order(client, url, true, 60000, &order, &err));
    assert_int_equal(order.status, ACME_S_READY);
    finish(&order, url);
    /* A second order for the name has the authorization of the first: it is ready at once. */
    open_order(&second, &again);
    assert_int_equal(second.status, ACME_S_READY);
    finish(&second, again);
    /* Good nonces that were refused were sent again with others. */
    unsigned seen = posts_seen();
    calls = 0;
    for (int i = 0; i < 200 && posts_seen() - seen <= calls; i++) {
        acme_order_done(&order);
        must(acme_client_order(client, url, &order, &err));
    }
    assert_true(posts_seen() - seen > calls);
    acme_order_done(&order);
    acme_order_done(&second);
    free(url);
    free(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(plain_server, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
