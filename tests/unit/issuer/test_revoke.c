/* Revocation at the issuer: who asks for a certificate's end, and the lists that tell of it. */
#include "provision/issuer/who.h"
#include "tests/unit/issuer/stage.h"

#include "provision/issuer/revoke.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>

static int plain(struct stage *s, enum issuer_method method, const char *path, const char *etag)
{
    struct issuer_request request = {.method = method, .path = path, .if_none_match = etag};
    issuer_response_done(&s->client.last);
    issuer_handle(s->rig.issuer, &request, &s->client.last);
    return s->client.last.status;
}

static X509_CRL *list(struct stage *s, const char *path, struct certs_crl_info *ret_info)
{
    X509_CRL *crl = NULL;
    assert_int_equal(plain(s, ISSUER_GET, path, NULL), 200);
    assert_string_equal(s->client.last.content_type, "application/pkix-crl");
    rig_ok(certs_crl_parse(att_buf_slice(&s->client.last.body), &crl, &err));
    rig_ok(certs_crl_info(crl, ret_info, &err));
    return crl;
}

/* The serial number of a new certificate of the stage's agent. */
static void issue(struct stage *s, char ret_serial[72])
{
    struct order o;
    certs_autostack *certs = NULL;
    struct certs_cert_info info;
    s->tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_order(&s->client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s->client, &s->tpm, &o, s->ak), "valid");
    assert_int_equal(rig_finalize(&s->client, &o, s->tpm.base->agent.pkey, FORGE_IDENTIFIER), 200);
    assert_int_equal(client_get(&s->client, client_text(&s->client, "certificate")), 200);
    rig_ok(certs_pem_parse(att_buf_slice(&s->client.last.body), &certs, &err));
    rig_ok(certs_cert_info(sk_X509_value(certs, 0), &info, &err));
    snprintf(ret_serial, 72, "%s", info.serial_hex);
}

static void status_is(struct stage *s, const char *serial, const char *status, const char *reason)
{
    json_t *certs = rig_admin(&s->rig, "cert.list", json_object());
    size_t i;
    json_t *one;
    bool found = false;
    json_array_foreach(json_object_get(certs, "certificates"), i, one)
    {
        if (strcmp(issuer_string(one, "serial"), serial) == 0) {
            assert_string_equal(issuer_string(one, "status"), status);
            assert_string_equal(issuer_string(one, "reason"), reason);
            found = true;
        }
    }
    assert_true(found);
    json_decref(certs);
}

static void revoke_refused(void **state)
{
    (void)state;
    struct stage s;
    char serial[72];
    stage_enrolled(&s, "forge");
    issue(&s, serial);
    rig_admin_refused(&s.rig, "cert.revoke", json_pack("{s:s}", "serial", "00ff"), "certUnknown");
    static const char *const bad[] = {"", "0x12", "AB", "zz",
                                      "00000000000000000000000000000000000000000"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        rig_admin_refused(&s.rig, "cert.revoke", json_pack("{s:s}", "serial", bad[i]), "usage");
    }
    static const char *const reasons[] = {"certificateHold", "stolen", "removeFromCRL", ""};
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        rig_admin_refused(&s.rig, "cert.revoke",
                          json_pack("{s:s, s:s}", "serial", serial, "reason", reasons[i]), "usage");
    }
    status_is(&s, serial, "issued", "");
    rig_admin_done(&s.rig, "cert.revoke",
                   json_pack("{s:s, s:s}", "serial", serial, "reason", "keyCompromise"));
    status_is(&s, serial, "revoked", "keyCompromise");
    rig_audited(&s.rig, "done", "keyCompromise");
    rig_admin_refused(&s.rig, "cert.revoke", json_pack("{s:s}", "serial", serial),
                      "alreadyRevoked");
    status_is(&s, serial, "revoked", "keyCompromise");
    issue(&s, serial);
    rig_time += 3601; /* its end */
    rig_admin_refused(&s.rig, "cert.revoke", json_pack("{s:s}", "serial", serial), "certEnded");
    status_is(&s, serial, "issued", "");
    stage_free(&s);
}

static int64_t view_version(struct stage *s)
{
    int64_t version = 0;
    assert_int_equal(client_get(&s->client, RIG_URL "/hostView"), 200);
    (void)!sscanf(s->client.last.etag, "\"%" SCNd64 "\"", &version);
    return version;
}

/* revocationDate of a list's only entry. */
static int64_t revoked_at(X509_CRL *crl)
{
    struct tm tm;
    const X509_REVOKED *entry = sk_X509_REVOKED_value(X509_CRL_get_REVOKED(crl), 0);
    assert_int_equal(ASN1_TIME_to_tm(X509_REVOKED_get0_revocationDate(entry), &tm), 1);
    return timegm(&tm);
}

static void in_the_list_at_once(void **state)
{
    (void)state;
    struct stage s;
    struct certs_crl_info before, after, ak;
    char first[72], second[72];
    stage_enrolled(&s, "forge");
    issue(&s, first);
    issue(&s, second);
    certs_autocrl *none = list(&s, "/acme/crl/workload.crl", &before);
    rig_ok(certs_crl_verify(none, s.rig.issuer->ca->workload_ca, rig_time, &err));
    assert_int_equal(before.n_entries, 0);
    assert_int_equal(before.next_update - before.this_update, 86400);
    int64_t version = view_version(&s);
    rig_admin_done(&s.rig, "cert.revoke", json_pack("{s:s}", "serial", first));
    assert_true(view_version(&s) > version); /* who waits is woken */
    certs_autocrl *one = list(&s, "/acme/crl/workload.crl", &after);
    assert_true(after.number > before.number);
    assert_int_equal(after.n_entries, 1);
    assert_true(certs_crl_has(one, first) && !certs_crl_has(one, second));
    assert_int_equal(revoked_at(one), rig_time);
    rig_ok(certs_crl_verify(one, s.rig.issuer->ca->workload_ca, rig_time, &err));
    /* AK certificates are another CA's. */
    certs_autocrl *of_aks = list(&s, "/acme/crl/attestation.crl", &ak);
    rig_ok(certs_crl_verify(of_aks, s.rig.issuer->ca->attest_ca, rig_time, &err));
    assert_int_equal(ak.n_entries, 0);
    struct att_err why = {0};
    assert_int_equal(certs_crl_verify(of_aks, s.rig.issuer->ca->workload_ca, rig_time, &why),
                     ATT_E_AUTH);
    assert_string_equal(why.reason, "crlIssuer");
    stage_free(&s);
}

static void a_ban_and_an_entry_removed(void **state)
{
    (void)state;
    struct stage s;
    struct certs_crl_info info;
    char serial[72], later[72];
    stage_enrolled(&s, "forge");
    issue(&s, serial);
    rig_admin_done(&s.rig, "entry.delete", json_pack("{s:s}", "name", RIG_NAME));
    certs_autocrl *gone = list(&s, "/acme/crl/workload.crl", &info);
    assert_true(certs_crl_has(gone, serial));
    status_is(&s, serial, "revoked", "notAssigned");
    char selector[80];
    snprintf(selector, sizeof selector, "ek:%s", s.tpm.ek_id);
    rig_entries(&s.rig, selector);
    issue(&s, later);
    rig_admin_done(&s.rig, "host.ban", json_pack("{s:s, s:s}", "id", s.tpm.ek_id, "reason", "x"));
    certs_autocrl *banned = list(&s, "/acme/crl/workload.crl", &info);
    assert_true(certs_crl_has(banned, serial) && certs_crl_has(banned, later));
    certs_autocrl *aks = list(&s, "/acme/crl/attestation.crl", &info);
    assert_int_equal(info.n_entries, 1); /* its AK's certificate */
    (void)aks;
    /* What has ended by itself needs no list (RFC 5280 §3.3). */
    rig_time += 3601;
    certs_autocrl *ended = list(&s, "/acme/crl/workload.crl", &info);
    assert_int_equal(info.n_entries, 0);
    (void)ended;
    stage_free(&s);
}

static void fresh_and_numbered(void **state)
{
    (void)state;
    struct stage s;
    struct certs_crl_info first, again, later, back;
    char etag[32];
    stage_enrolled(&s, "forge");
    certs_autocrl *a = list(&s, "/acme/crl/workload.crl", &first);
    /* More than whatever a database had of which an older copy was put back. */
    assert_true(first.number == (uint64_t)rig_time);
    snprintf(etag, sizeof etag, "%s", s.client.last.etag);
    assert_int_equal(ISSUER_CRL_FRESH_S, 30);
    assert_string_equal(s.client.last.cache, "max-age=30");
    assert_int_equal(plain(&s, ISSUER_GET, "/acme/crl/workload.crl", etag), 304);
    assert_int_equal(s.client.last.body.len, 0);
    rig_time += ISSUER_CRL_FRESH_S - 1;
    certs_autocrl *b = list(&s, "/acme/crl/workload.crl", &again);
    assert_true(again.number == first.number);
    rig_time += 1;
    assert_int_equal(plain(&s, ISSUER_GET, "/acme/crl/workload.crl", etag), 200);
    certs_autocrl *c = list(&s, "/acme/crl/workload.crl", &later);
    assert_true(later.number > first.number && later.this_update == rig_time);
    rig_time -= ISSUER_CRL_SKEW_S; /* another issuer's clock is a little ahead */
    certs_autocrl *ahead = list(&s, "/acme/crl/workload.crl", &again);
    assert_true(again.number == later.number && ahead != NULL);
    rig_time -= 3600; /* a clock set back: nobody gets a list of the future */
    certs_autocrl *d = list(&s, "/acme/crl/workload.crl", &back);
    assert_true(back.number > later.number && back.this_update == rig_time);
    assert_int_equal(X509_CRL_cmp(a, b), 0);
    assert_true(c != NULL && d != NULL);
    stage_free(&s);
}

static void routes(void **state)
{
    (void)state;
    struct stage s;
    stage_enrolled(&s, "forge");
    assert_int_equal(plain(&s, ISSUER_POST, "/acme/crl/workload.crl", NULL), 405);
    assert_string_equal(s.client.last.allow, "GET, HEAD");
    assert_int_equal(plain(&s, ISSUER_GET, "/acme/crl/other.crl", NULL), 404);
    assert_int_equal(plain(&s, ISSUER_GET, "/acme/crl/", NULL), 404);
    assert_int_equal(plain(&s, ISSUER_GET, "/acme/crl/workload.crl/x", NULL), 404);
    stage_free(&s);
}

/* Another process that serves from this store sees the list that was made, and no number twice. */
static void survives_a_restart(void **state)
{
    (void)state;
    struct stage s;
    struct certs_crl_info before, after;
    char serial[72];
    stage_enrolled(&s, "forge");
    issue(&s, serial);
    rig_admin_done(&s.rig, "cert.revoke", json_pack("{s:s}", "serial", serial));
    certs_autocrl *a = list(&s, "/acme/crl/workload.crl", &before);
    issuer_free(s.rig.issuer);
    rig_open(&s.rig);
    certs_autocrl *b = list(&s, "/acme/crl/workload.crl", &after);
    assert_true(after.number == before.number);
    assert_int_equal(X509_CRL_cmp(a, b), 0);
    assert_true(certs_crl_has(b, serial));
    stage_free(&s);
}

/* ---- strangers ---- */

struct holder {
    struct store *store;
    pthread_t thread;
    int held[2], release[2];
};

static enum att_rc hold_turn(void *user, struct store_tx *tx, struct att_err *err)
{
    struct holder *h = user;
    char byte = 0;
    (void)tx;
    (void)err;
    (void)!write(h->held[1], &byte, 1);
    (void)!read(h->release[0], &byte, 1);
    return ATT_OK;
}

static void *hold(void *user)
{
    struct holder *h = user;
    (void)!store_run(h->store, true, hold_turn, h, NULL);
    return NULL;
}

/* Somebody has the writer's turn until release: who wants it, too, waits. */
static void take_turn(struct holder *h, struct rig *r)
{
    char byte = 0;
    *h = (struct holder){.store = r->issuer->store};
    assert_int_equal(pipe(h->held), 0);
    assert_int_equal(pipe(h->release), 0);
    assert_int_equal(pthread_create(&h->thread, NULL, hold, h), 0);
    assert_int_equal(read(h->held[0], &byte, 1), 1);
}

static void release_turn(struct holder *h)
{
    char byte = 0;
    assert_int_equal(write(h->release[1], &byte, 1), 1);
    pthread_join(h->thread, NULL);
    for (int i = 0; i < 2; i++) {
        close(h->held[i]);
        close(h->release[i]);
    }
}

static void revocation_of(const struct att_buf *pem, struct att_buf *ret_payload)
{
    certs_autostack *certs = NULL;
    att_autobuf der = {0};
    rig_ok(certs_pem_parse(att_buf_slice(pem), &certs, &err));
    rig_ok(certs_cert_der(sk_X509_value(certs, 0), &der, &err));
    json_t *body = json_object();
    rig_ok(att_json_set_b64u(body, "certificate", att_buf_slice(&der), &err));
    rig_ok(att_json_dump(body, false, ret_payload, &err));
    json_decref(body);
}

static void by_is(struct stage *s, const char *by)
{
    json_t *result = rig_admin(&s->rig, "audit.list", json_pack("{s:i}", "limit", 8));
    size_t i;
    json_t *one, *records = json_object_get(result, "records");
    const char *found = "";
    json_array_foreach(records, i, one)
    {
        const json_t *record = json_object_get(one, "record");
        if (!found[0] && strcmp(issuer_string(record, "kind"), "revoke") == 0) {
            found = issuer_string(record, "by");
        }
    }
    assert_string_equal(found, by);
    json_decref(result);
}

/* Without a writer's turn: a list of an authority that is not there, and a revocation by somebody
 * who merely saw the certificate. */
static void strangers_write_nothing(void **state)
{
    (void)state;
    struct stage s;
    struct holder holder;
    struct client stranger;
    char serial[72];
    att_autobuf payload = {0};
    alarm(120); /* who waits for the turn waits for ever */
    stage_enrolled(&s, "forge");
    issue(&s, serial);
    revocation_of(&s.client.last.body, &payload);
    client_new(&stranger, &s.rig);
    take_turn(&holder, &s.rig);
    assert_int_equal(plain(&s, ISSUER_GET, "/acme/crl/dns.crl", NULL), 404);
    assert_int_equal(client_post(&stranger, RIG_URL "/revokeCert", true, att_buf_slice(&payload)),
                     403);
    client_refused(&stranger, "unauthorized");
    release_turn(&holder);
    alarm(0);
    status_is(&s, serial, "issued", "");
    client_free(&stranger);
    stage_free(&s);
}

static void expired(void **state)
{
    (void)state;
    struct stage s;
    char serial[72];
    att_autobuf payload = {0};
    stage_enrolled(&s, "forge");
    issue(&s, serial);
    revocation_of(&s.client.last.body, &payload);
    rig_time += 3601;
    assert_int_equal(client_post(&s.client, RIG_URL "/revokeCert", false, att_buf_slice(&payload)),
                     400);
    client_refused(&s.client, "malformed");
    assert_string_equal(client_text(&s.client, "detail"), "the certificate has expired");
    stage_free(&s);
}

static void so_many(void **state)
{
    (void)state;
    struct stage s;
    char serial[72];
    att_autobuf payload = {0};
    stage_enrolled(&s, "forge");
    issue(&s, serial);
    revocation_of(&s.client.last.body, &payload);
    for (int i = 0; i < ISSUER_RECENT_REVOCATIONS; i++) {
        issuer_limit_count(s.rig.issuer->limit, ISSUER_LIMIT_REVOCATIONS,
                           strrchr(s.client.kid, '/') + 1, rig_time);
    }
    assert_int_equal(client_post(&s.client, RIG_URL "/revokeCert", false, att_buf_slice(&payload)),
                     429);
    client_refused(&s.client, "rateLimited");
    assert_int_equal(s.client.last.retry_after_s, 60);
    status_is(&s, serial, "issued", "");
    rig_time += ISSUER_RECENT_S + 1;
    assert_int_equal(client_post(&s.client, RIG_URL "/revokeCert", false, att_buf_slice(&payload)),
                     200);
    char by[128];
    snprintf(by, sizeof by, "account/%s", strrchr(s.client.kid, '/') + 1);
    by_is(&s, by);
    stage_free(&s);
}

/* ---- an AK's certificate ---- */

static void ak_serial(struct stage *s, char ret[72])
{
    json_t *certs = rig_admin(&s->rig, "cert.list", json_object());
    size_t i;
    json_t *one;
    ret[0] = 0;
    json_array_foreach(json_object_get(certs, "certificates"), i, one)
    {
        if (strcmp(issuer_string(one, "kind"), "ak") == 0) {
            snprintf(ret, 72, "%s", issuer_string(one, "serial"));
        }
    }
    assert_true(ret[0] != 0);
    json_decref(certs);
}

static enum att_rc revoke_as_7(void *user, struct store_tx *tx, struct att_err *err)
{
    const struct issuer_who who = {.uid = 7, .id = "uid:7", .identity = "uid:7"};
    const struct issuer_revocation what = {
        .serial = user, .reason = "keyCompromise", .void_detail = "x", .who = &who};
    return issuer_revoke(tx, &what, rig_time, err);
}

static void an_ak_ends_with_its_certificate(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    char serial[72];
    stage_enrolled(&s, "forge");
    ak_serial(&s, serial);
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    rig_ok(store_run(s.rig.issuer->store, true, revoke_as_7, serial, &err));
    by_is(&s, "uid/7");
    s.tpm.clock.clock_ms += 1000;
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "invalid");
    client_refused(&s.client, "akUnknown");
    stage_free(&s);
}

static void a_ban_is_the_issuers(void **state)
{
    (void)state;
    struct stage s;
    stage_enrolled(&s, "forge");
    rig_admin_done(&s.rig, "host.ban", json_pack("{s:s, s:s}", "id", s.tpm.ek_id, "reason", "x"));
    by_is(&s, "issuer");
    stage_free(&s);
}

/* ---- in the clear ---- */

static int ask(uint16_t port, const char *request, struct att_buf *ret)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval limit = {60, 0};
    int fd = socket(AF_INET, SOCK_STREAM, 0), status = 0;
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    (void)!send(fd, request, strlen(request), MSG_NOSIGNAL);
    char part[4096];
    for (ssize_t n; (n = recv(fd, part, sizeof part, 0)) > 0;) {
        att_buf_put(ret, part, (size_t)n);
    }
    close(fd);
    const char *text = att_buf_cstr(ret);
    (void)!sscanf(text ? text : "", "HTTP/1.1 %d", &status);
    return status;
}

static struct att_slice body_of(const struct att_buf *answer)
{
    const uint8_t *at = memmem(answer->ptr, answer->len, "\r\n\r\n", 4);
    assert_non_null(at);
    at += 4;
    return ATT_SLICE(at, answer->len - (size_t)(at - answer->ptr));
}

static void in_the_clear(void **state)
{
    (void)state;
    struct stage s;
    struct issuer_crl_server *server = NULL;
    stage_enrolled(&s, "forge");
    rig_ok(issuer_crl_server_new(s.rig.issuer, &server, &err));
    assert_null(server); /* not asked for */
    reconfigure(&s.rig,
                "url: ", "crl: {listen: \"127.0.0.1:0\", url: \"http://crl.bank.example\"}\nurl: ");
    rig_ok(issuer_crl_server_new(s.rig.issuer, &server, &err));
    uint16_t port = issuer_crl_server_port(server);
    static const struct {
        const char *request;
        int status;
    } asked[] = {
        {"GET /workload.crl HTTP/1.1\r\nHost: x\r\n\r\n", 200},
        {"GET /attestation.crl HTTP/1.0\r\n\r\n", 200},
        {"HEAD /workload.crl HTTP/1.1\r\nHost: x\r\n\r\n", 200},
        {"GET /directory HTTP/1.1\r\nHost: x\r\n\r\n", 404},
        {"GET /../ca/root.key HTTP/1.1\r\nHost: x\r\n\r\n", 404},
        {"POST /workload.crl HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405},
        {"GET /workload.crl\r\n\r\n", 400},
        {"\r\n\r\n", 400},
        {"GET  HTTP/1.1\r\n\r\n", 404},
    };
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        att_autobuf answer = {0};
        int status = ask(port, asked[i].request, &answer);
        if (status != asked[i].status) {
            fail_msg("%s: %d, not %d", asked[i].request, status, asked[i].status);
        }
        struct att_slice body = body_of(&answer);
        assert_int_equal(body.len > 0, status == 200 && asked[i].request[0] == 'G');
        if (body.len) {
            certs_autocrl *crl = NULL;
            rig_ok(certs_crl_parse(body, &crl, &err));
        }
    }
    char *flood = malloc(20001);
    memset(flood, 'a', 20000);
    flood[20000] = 0;
    att_autobuf answer = {0};
    int status = ask(port, flood, &answer); /* answered, or closed for what it still sends */
    assert_true(status == 431 || status == 0);
    free(flood);
    issuer_crl_server_free(server);
    stage_free(&s);
}

static int connect_to(uint16_t port)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

static bool closed_by_peer(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/* A byte now and then keeps a place for a while only; and one address has a part of the places. */
static void slow_peers(void **state)
{
    (void)state;
    struct stage s;
    struct issuer_crl_server *server = NULL;
    int fds[17], open = 17;
    stage_enrolled(&s, "forge");
    reconfigure(&s.rig,
                "url: ", "crl: {listen: \"127.0.0.1:0\", url: \"http://crl.bank.example\"}\nurl: ");
    rig_ok(issuer_crl_server_new(s.rig.issuer, &server, &err));
    for (size_t i = 0; i < 17; i++) {
        fds[i] = connect_to(issuer_crl_server_port(server));
    }
    /* The seventeenth is closed long before any other could be. */
    struct timeval limit = {60, 0};
    char byte;
    setsockopt(fds[16], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    assert_true(recv(fds[16], &byte, 1, 0) == 0 || errno == ECONNRESET);
    int64_t start = att_boottime_ms();
    assert_false(closed_by_peer(fds[0]));
    while (open > 0 && att_boottime_ms() - start < 120000) {
        open = 0;
        for (size_t i = 0; i < 16; i++) {
            (void)!send(fds[i], "a", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
            open += !closed_by_peer(fds[i]);
        }
        poll(NULL, 0, 200);
    }
    assert_int_equal(open, 0);
    for (size_t i = 0; i < 17; i++) {
        close(fds[i]);
    }
    att_autobuf answer = {0};
    assert_int_equal(
        ask(issuer_crl_server_port(server), "GET /workload.crl HTTP/1.1\r\n\r\n", &answer), 200);
    issuer_crl_server_free(server);
    stage_free(&s);
}

static void in_the_leaf(void **state)
{
    (void)state;
    struct stage s;
    char serial[72];
    stage_enrolled(&s, "forge");
    for (int with = 0; with < 2; with++) {
        issue(&s, serial);
        certs_autostack *certs = NULL;
        rig_ok(certs_pem_parse(att_buf_slice(&s.client.last.body), &certs, &err));
        STACK_OF(DIST_POINT) *points =
            X509_get_ext_d2i(sk_X509_value(certs, 0), NID_crl_distribution_points, NULL, NULL);
        assert_int_equal(points != NULL, with);
        if (points) {
            const GENERAL_NAME *name =
                sk_GENERAL_NAME_value(sk_DIST_POINT_value(points, 0)->distpoint->name.fullname, 0);
            assert_string_equal((const char *)ASN1_STRING_get0_data(name->d.ia5),
                                "http://crl.bank.example/workload.crl");
        }
        CRL_DIST_POINTS_free(points);
        if (!with) {
            reconfigure(&s.rig,
                        "url: ", "crl: {url: \"http://crl.bank.example\", lifetime: 1h}\nurl: ");
        }
    }
    struct certs_crl_info info;
    certs_autocrl *crl = list(&s, "/acme/crl/workload.crl", &info);
    assert_int_equal(info.next_update - info.this_update, 3600);
    assert_non_null(crl);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(revoke_refused),
        cmocka_unit_test(in_the_list_at_once),
        cmocka_unit_test(a_ban_and_an_entry_removed),
        cmocka_unit_test(fresh_and_numbered),
        cmocka_unit_test(routes),
        cmocka_unit_test(survives_a_restart),
        cmocka_unit_test(in_the_clear),
        cmocka_unit_test(slow_peers),
        cmocka_unit_test(strangers_write_nothing),
        cmocka_unit_test(expired),
        cmocka_unit_test(so_many),
        cmocka_unit_test(an_ak_ends_with_its_certificate),
        cmocka_unit_test(a_ban_is_the_issuers),
        cmocka_unit_test(in_the_leaf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
