/* Simulated hosts: fleet DIR PORT HOSTS. Each has a software TPM (tests/support/forge), an account,
 * and one agent whose certificate it renews again and again over HTTPS at 127.0.0.1:PORT, with the
 * evidence that the issuer judges; connections that break, 503 and badNonce are met as a client
 * should: asked again, and an order whose answer was lost is looked at before another is made.
 *
 * DIR/ek/ gets the makers' roots, then DIR/roots is made; DIR/admin is the path of an issuer's
 * admin socket, waited for; DIR/tls-root.pem is pinned. DIR/certs gets a line
 * "SERIAL ORDER HOST UNIX_MS WAIT_US" for each certificate in hand: when it came, and how long this
 * order's requests waited for the issuer (a TLS handshake where there is none yet, not the host's
 * own signatures). Where there is a folder DIR/chains, it has what a host shows its peers and
 * judges them by: HOST.pem (chain and key) and HOST.view, the host's view as it came; the view is
 * asked for before each order, with the version that the host has, as attestd does. When DIR/stop
 * is there, every host has to get one more, and the program ends with 0. The code that builds the
 * messages is that of the issuer's unit tests.
 *
 * FLEET_RATE=N: N certificates a second, all hosts together, each host in its turn and late ones
 * not made up for; else every host pauses 0.2 s. 0: no pause. FLEET_ORDERS=N: each host in its turn
 * first makes N orders that it leaves, and DIR/orders has how many were made and refused (429). */
#define issuer_handle fleet_handle
#define issuer_admin  fleet_admin
#include "provision/acme/http.h"
#include "tests/unit/issuer/rig.h"

#include <signal.h>

#define HOSTS_MAX 256
#define PATIENCE  180 /* seconds that anything may take */
#define PAUSE_US  200000

struct host {
    int n;
    struct rig rig; /* nothing in it: what asks the issuer goes over the network */
    struct tpm tpm;
    struct client client;
    char ak[256], view[32];
    pthread_t thread;
    unsigned certs, invalid, retries;
};

static const char *dir;
static int port;
static int n_hosts;
static struct host hosts[HOSTS_MAX];
static pthread_mutex_t certs_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local struct acme_http *http;
static _Thread_local int64_t waited_us;
static double rate = -1; /* FLEET_RATE */

static const char *in_dir(const char *name)
{
    static _Thread_local char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static bool there(const char *name)
{
    return access(in_dir(name), F_OK) == 0;
}

static int64_t now_us(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

/* ---- in place of the issuer
 * -------------------------------------------------------------------- */

static void exchange(const struct issuer_request *request, struct issuer_response *response)
{
    static const char *const methods[] = {"GET", "HEAD", "POST"};
    char url[600];
    struct acme_http_response got = {0};
    if (!http) {
        char root[512];
        rig_copy(root, sizeof root, in_dir("tls-root.pem"));
        rig_ok(acme_http_new(&(struct acme_http_config){.ca_file = root}, &http, &err));
    }
    snprintf(url, sizeof url, "https://127.0.0.1:%d%s", port, request->path);
    const struct acme_http_request ask = {.method = methods[request->method],
                                          .url = url,
                                          .content_type = request->content_type,
                                          .if_none_match = request->if_none_match,
                                          .body = request->body};
    *response = (struct issuer_response){0};
    int64_t from_us = now_us(CLOCK_MONOTONIC);
    enum att_rc rc = acme_http_perform(http, &ask, &got, NULL);
    waited_us += now_us(CLOCK_MONOTONIC) - from_us;
    if (rc == ATT_OK) {
        response->status = got.status;
        response->retry_after_s = got.retry_after_s > 0 ? (int)got.retry_after_s : 0;
        snprintf(response->nonce, sizeof response->nonce, "%.*s", ACME_NONCE_TEXT - 1, got.nonce);
        snprintf(response->etag, sizeof response->etag, "%.31s", got.etag);
        snprintf(response->location, sizeof response->location, "%.*s",
                 (int)sizeof response->location - 1, got.location);
        att_buf_put_slice(&response->body, att_buf_slice(&got.body));
    }
    acme_http_response_done(&got);
}

void fleet_handle(struct issuer *issuer, const struct issuer_request *request,
                  struct issuer_response *ret_response)
{
    (void)issuer;
    exchange(request, ret_response);
    /* A nonce is asked for until it comes; a POST needs another nonce first (again). */
    for (int i = 0; request->method != ISSUER_POST && ret_response->status != 200; i++) {
        assert_true(i < PATIENCE * 5);
        usleep(PAUSE_US);
        issuer_response_done(ret_response);
        exchange(request, ret_response);
    }
}

enum att_rc fleet_admin(void *user, const struct att_ctl_peer *peer, const char *op,
                        const json_t *args, json_t **ret_result, struct att_err *err)
{
    (void)user;
    (void)peer;
    return att_ctl_call(in_dir("admin"), op, args, 60000, ret_result, err);
}

/* No answer, 503, 429 (by RFC 8555 §6.6 with a time), or another issuer's nonce. */
static bool again(struct client *c)
{
    struct host *host = (struct host *)(void *)((char *)c - offsetof(struct host, client));
    int status = c->last.status;
    bool retry = status == 0 || status == 503 || status == 429 ||
                 (status == 400 && strcmp(client_reason(c), "badNonce") == 0);
    if (retry) {
        assert_true(++host->retries < 100000);
        usleep(status == 400 ? 0 : PAUSE_US);
    }
    return retry;
}

/* ---- a host
 * ------------------------------------------------------------------------------------ */

static void make_host(struct host *h, int n)
{
    char name[32];
    h->n = n;
    tpm_new_other(&h->tpm);
    client_new(&h->client, &h->rig);
    h->client.again = again;
    snprintf(name, sizeof name, "ek/maker-%d.pem", n);
    rig_pem(dir, name, h->tpm.base->maker_root);
}

static const char *poll_order(struct host *h, const struct order *o)
{
    for (int i = 0; i < PATIENCE * 5; i++) {
        if (client_get(&h->client, o->url) != 200) {
            return "";
        }
        const char *status = client_text(&h->client, "status");
        if (strcmp(status, "processing") != 0) {
            return status;
        }
        usleep(PAUSE_US);
    }
    fail_msg("host %d: an order stays in processing", h->n);
    return "";
}

static void keep_certificate(struct host *h, const struct order *o)
{
    char url[256], hex[2 * CERTS_SERIAL_LEN + 1] = "";
    rig_copy(url, sizeof url, client_text(&h->client, "certificate"));
    assert_int_equal(client_get(&h->client, url), 200);
    certs_autostack *chain = NULL;
    rig_ok(certs_pem_parse(att_buf_slice(&h->client.last.body), &chain, &err));
    const ASN1_INTEGER *serial = X509_get0_serialNumber(sk_X509_value(chain, 0));
    att_hex(hex, ATT_SLICE(ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial)));
    EVP_PKEY *key = X509_get0_pubkey(sk_X509_value(chain, 0));
    assert_int_equal(EVP_PKEY_eq(key, h->tpm.base->agent.pkey), 1);
    pthread_mutex_lock(&certs_lock);
    FILE *f = fopen(in_dir("certs"), "a");
    assert_non_null(f);
    fprintf(f, "%s %s %d %lld %lld\n", hex, strrchr(o->url, '/') + 1, h->n,
            (long long)(now_us(CLOCK_REALTIME) / 1000), (long long)waited_us);
    fclose(f);
    pthread_mutex_unlock(&certs_lock);
    h->certs++;
}

/* Whole or not at all, for who reads it meanwhile. */
static void keep_file(const struct host *h, const char *suffix, struct att_slice bytes)
{
    char name[64], path[512];
    snprintf(name, sizeof name, "chains/%d.%s", h->n, suffix);
    rig_copy(path, sizeof path, in_dir(name));
    rig_ok(att_io_write_file(path, bytes, 0600, &err));
}

static void keep_chain(struct host *h)
{
    att_autobuf text = {0};
    char *pem = NULL;
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(
        PEM_write_bio_PrivateKey(bio, h->tpm.base->agent.pkey, NULL, NULL, 0, NULL, NULL), 1);
    long len = BIO_get_mem_data(bio, &pem);
    att_buf_put_slice(&text, att_buf_slice(&h->client.last.body));
    att_buf_put(&text, pem, (size_t)len);
    keep_file(h, "pem", att_buf_slice(&text));
    BIO_free(bio);
}

/* The host's view, if there is another one than it has. */
static void keep_view(struct host *h)
{
    att_autobuf text = {0};
    char nonce[ACME_NONCE_TEXT];
    struct client *c = &h->client;
    do {
        att_buf_reset(&text);
        client_nonce(c, nonce);
        client_sign(c, RIG_URL "/hostView", nonce, false, ATT_SLICE(NULL, 0), &text);
        (void)client_send(c, "/acme/hostView", att_buf_slice(&text), "application/jose+json",
                          h->view[0] ? h->view : NULL);
    } while (again(c));
    assert_true(c->last.status == 200 || c->last.status == 304);
    if (c->last.status == 200) {
        snprintf(h->view, sizeof h->view, "%s", c->last.etag);
        keep_file(h, "view", att_buf_slice(&c->last.body));
    }
}

/* One order to its end; false: it came to nothing, which is no fault while issuers die. */
static bool renew(struct host *h)
{
    struct order o;
    h->tpm.clock.clock_ms += 1000;
    if (there("chains")) {
        keep_view(h);
    }
    waited_us = 0;
    if (rig_order(&h->client, RIG_NAME, &o) != 201) {
        return false;
    }
    const char *state = rig_m4(&h->client, &h->tpm, &o, h->ak);
    state = strcmp(state, "valid") == 0 ? "ready" : poll_order(h, &o);
    if (strcmp(state, "ready") == 0) {
        (void)rig_finalize(&h->client, &o, h->tpm.base->agent.pkey, FORGE_IDENTIFIER);
        state = poll_order(h, &o);
    }
    if (strcmp(state, "valid") != 0) {
        h->invalid++;
        return false;
    }
    keep_certificate(h, &o);
    if (there("chains")) {
        keep_chain(h);
    }
    return true;
}

/* Until this host's next turn. */
static void pause_until_turn(const struct host *h, int64_t *next_us)
{
    if (rate < 0) {
        usleep(PAUSE_US);
    } else if (rate > 0) {
        int64_t every_us = (int64_t)(1e6 * n_hosts / rate), now = now_us(CLOCK_MONOTONIC);
        *next_us = *next_us ? *next_us + every_us : now + every_us * h->n / n_hosts;
        if (*next_us < now) {
            *next_us = now;
        }
        while (now < *next_us && !there("stop")) {
            int64_t left_us = *next_us - now;
            usleep((useconds_t)(left_us < PAUSE_US ? left_us : PAUSE_US));
            now = now_us(CLOCK_MONOTONIC);
        }
    }
}

static void *live(void *user)
{
    struct host *h = user;
    int64_t next_us = 0;
    while (!there("stop")) {
        pause_until_turn(h, &next_us);
        (void)renew(h);
    }
    int tries = 0;
    while (!renew(h)) {
        if (++tries == 50) {
            fail_msg("host %d ends without a certificate: %d %.*s", h->n, h->client.last.status,
                     (int)h->client.last.body.len, (const char *)h->client.last.body.ptr);
        }
        usleep(PAUSE_US);
    }
    acme_http_free(http);
    http = NULL;
    return NULL;
}

/* ---- all
 * --------------------------------------------------------------------------------------- */

static void apply_entries(struct rig *r)
{
    static char text[HOSTS_MAX * 80 + 512];
    size_t at = (size_t)snprintf(text, sizeof text,
                                 "trust_domain: bank.example\nagents:\n  - name: " RIG_NAME
                                 "\n    owner: trading@bank.example\n    hosts:\n");
    for (int i = 0; i < n_hosts; i++) {
        at += (size_t)snprintf(text + at, sizeof text - at, "      - \"ek:%s\"\n",
                               hosts[i].tpm.ek_id);
    }
    snprintf(text + at, sizeof text - at,
             "    workload: { uid: 1001 }\n    key: tpm\n    profile: trading\n");
    rig_admin_done(r, "entry.apply", json_pack("{s:s, s:s}", "text", text, "filename", "e.yaml"));
}

/* Orders that nobody comes back to. */
static void leave_orders(unsigned n)
{
    static const char payload[] = "{\"identifiers\":[{\"type\":\"spiffe-id\","
                                  "\"value\":\"spiffe://bank.example/agent/" RIG_NAME "\"}]}";
    unsigned made = 0, refused = 0;
    for (int i = 0; i < n_hosts; i++) {
        hosts[i].client.again = NULL;
        for (unsigned k = 0; k < n; k++) {
            int status = client_post_text(&hosts[i].client, RIG_URL "/newOrder", payload);
            assert_true(status == 201 || status == 429);
            assert_true(status == 201 || hosts[i].client.last.retry_after_s > 0);
            made += status == 201;
            refused += status == 429;
        }
        hosts[i].client.again = again;
    }
    FILE *f = fopen(in_dir("orders"), "w");
    assert_non_null(f);
    fprintf(f, "%u %u\n", made, refused);
    fclose(f);
}

static void mark(const char *name)
{
    FILE *f = fopen(in_dir(name), "w");
    assert_non_null(f);
    fclose(f);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc != 4) {
        fputs("usage: fleet DIR PORT HOSTS\n", stderr);
        return 2;
    }
    const char *per_s = getenv("FLEET_RATE"), *orders = getenv("FLEET_ORDERS");
    rate = per_s ? strtod(per_s, NULL) : -1;
    dir = argv[1];
    port = atoi(argv[2]);
    n_hosts = atoi(argv[3]);
    assert_true(n_hosts > 0 && n_hosts <= HOSTS_MAX);
    forge_shift_s = att_now_utc_s() - FORGE_NOW;
    for (int i = 0; i < n_hosts; i++) {
        make_host(&hosts[i], i);
    }
    mark("roots");
    for (int i = 0; !there("admin"); i++) {
        assert_true(i < PATIENCE * 5);
        usleep(PAUSE_US);
    }
    for (int i = 0; i < n_hosts; i++) {
        rig_enrol(&hosts[i].client, &hosts[i].tpm, hosts[i].ak);
    }
    apply_entries(&hosts[0].rig);
    mark("enrolled");
    if (orders) {
        leave_orders((unsigned)strtoul(orders, NULL, 10));
    }
    for (int i = 0; i < n_hosts; i++) {
        assert_int_equal(pthread_create(&hosts[i].thread, NULL, live, &hosts[i]), 0);
    }
    unsigned certs = 0, invalid = 0, retries = 0;
    for (int i = 0; i < n_hosts; i++) {
        pthread_join(hosts[i].thread, NULL);
        certs += hosts[i].certs;
        invalid += hosts[i].invalid;
        retries += hosts[i].retries;
        client_free(&hosts[i].client);
        tpm_free(&hosts[i].tpm);
    }
    acme_http_free(http);
    printf("%d hosts: %u certificates, %u orders that came to nothing, %u requests asked again\n",
           n_hosts, certs, invalid, retries);
    return 0;
}
