/* Rotating an authority: each step, what it waits for, and that whatever is in force at each moment
 * verifies with the bundles that are out then. */
#include "tests/unit/issuer/stage.h"

#include "certs/authority.h"
#include "certs/bundle.h"
#include "provision/issuer/generations.h"
#include "provision/issuer/metrics.h"
#include "provision/issuer/revoke.h"

/* A new certificate of the stage's agent. */
static STACK_OF(X509) * issue(struct stage *s)
{
    struct order o;
    STACK_OF(X509) *certs = NULL;
    s->tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_order(&s->client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s->client, &s->tpm, &o, s->ak), "valid");
    assert_int_equal(rig_finalize(&s->client, &o, s->tpm.base->agent.pkey, FORGE_IDENTIFIER), 200);
    assert_int_equal(client_get(&s->client, client_text(&s->client, "certificate")), 200);
    rig_ok(certs_pem_parse(att_buf_slice(&s->client.last.body), &certs, &err));
    return certs;
}

static STACK_OF(X509) * bundle(struct stage *s)
{
    STACK_OF(X509) *roots = NULL;
    json_t *got = rig_admin(&s->rig, "ca.bundle", json_pack("{s:s}", "kind", "workload"));
    rig_ok(certs_bundle_parse(att_slice_str(issuer_string(got, "pem")), &roots, &err));
    json_decref(got);
    return roots;
}

/* With these roots, by the verifier that peers use. */
static enum att_rc verify(const STACK_OF(X509) * chain, const STACK_OF(X509) * roots)
{
    struct att_err err = {0};
    return certs_chain_verify(chain, roots, CERTS_PURPOSE_WORKLOAD, rig_time, &err);
}

static void step(struct stage *s, const char *op, const char *id, const char *state)
{
    json_t *got = rig_admin(&s->rig, op, json_pack("{s:s}", "id", id));
    assert_string_equal(issuer_string(got, "state"), state);
    json_decref(got);
}

static void prepare(struct stage *s, json_t *args, char ret_id[ISSUER_GENERATION_ID])
{
    json_t *got = rig_admin(&s->rig, "ca.prepare", args);
    snprintf(ret_id, ISSUER_GENERATION_ID, "%s", issuer_string(got, "id"));
    json_decref(got);
}

static void refused(struct stage *s, const char *op, const char *id, const char *reason)
{
    rig_admin_refused(&s->rig, op, json_pack("{s:s}", "id", id), reason);
}

static int plain(struct stage *s, const char *path)
{
    struct issuer_request request = {.method = ISSUER_GET, .path = path};
    issuer_response_done(&s->client.last);
    issuer_handle(s->rig.issuer, &request, &s->client.last);
    return s->client.last.status;
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

/* The host asks for what is newer than it has. */
static void host_sees(struct stage *s)
{
    char etag[32];
    issuer_view_wake(s->rig.issuer);
    snprintf(etag, sizeof etag, "\"%lld\"", (long long)atomic_load(&s->rig.issuer->view_version));
    assert_int_equal(view_with(s, etag), 304);
}

/* The authorities begin when they are made, and what they sign is verified by then; the TPM's
 * certificates, which are looked at when it enrols, are of an earlier time. */
static void start(struct stage *s)
{
    stage_new(s, "forge");
    reconfigure(&s->rig, "ak_lifetime: 7d", "ak_lifetime: 3650d");
    stage_enrol(s);
    rig_time = att_now_utc_s();
}

/* ---- refusals -----------------------------------------------------------------------------------
 */

static void words_refused(void **state)
{
    (void)state;
    struct stage s;
    stage_enrolled(&s, "forge");
    char id[ISSUER_GENERATION_ID];
    rig_admin_refused(&s.rig, "ca.prepare", json_pack("{s:s}", "kind", "view"), "usage");
    rig_admin_refused(&s.rig, "ca.prepare",
                      json_pack("{s:s, s:s}", "kind", "workload", "keys", "x"), "usage");
    rig_admin_refused(&s.rig, "ca.prepare",
                      json_pack("{s:s, s:b, s:b}", "kind", "workload", "newRoot", 1, "csr", 1),
                      "usage");
    rig_admin_refused(&s.rig, "ca.prepare",
                      json_pack("{s:s, s:s}", "kind", "workload", "keys", "hsm"), "caKeyStore");
    refused(&s, "ca.publish", "0123456789abcdef", "caUnknown");
    prepare(&s, json_pack("{s:s}", "kind", "workload"), id);
    rig_admin_refused(&s.rig, "ca.prepare", json_pack("{s:s}", "kind", "workload"), "caBusy");
    refused(&s, "ca.activate", id, "caState");
    rig_admin_refused(&s.rig, "ca.chain", json_pack("{s:s, s:s}", "id", id, "text", "x"),
                      "caState");
    step(&s, "ca.publish", id, "published");
    refused(&s, "ca.publish", id, "caState");
    step(&s, "ca.retire", id, "retired"); /* given up: it never signed */
    refused(&s, "ca.retire", id, "caState");
    prepare(&s, json_pack("{s:s}", "kind", "workload"), id);
    stage_free(&s);
}

static void active_one_is_not_retired(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID];
    start(&s);
    prepare(&s, json_pack("{s:s}", "kind", "workload"), id);
    step(&s, "ca.publish", id, "published");
    step(&s, "ca.activate", id, "active");
    refused(&s, "ca.retire", id, "caState");
    stage_free(&s);
}

static void root_away_refused(void **state)
{
    (void)state;
    struct stage s;
    char path[4096], id[ISSUER_GENERATION_ID];
    start(&s);
    snprintf(path, sizeof path, "%s/state/ca/workload-root.key", s.rig.dir);
    assert_int_equal(unlink(path), 0);
    rig_admin_refused(&s.rig, "ca.prepare", json_pack("{s:s}", "kind", "workload"), "caRootAway");
    json_t *got =
        rig_admin(&s.rig, "ca.prepare", json_pack("{s:s, s:b}", "kind", "workload", "newRoot", 1));
    assert_true(json_is_false(json_object_get(got, "crossSigned")));
    snprintf(id, sizeof id, "%s", issuer_string(got, "id"));
    json_decref(got);
    stage_free(&s);
}

/* Another issuer of a shared store, as it last said of itself. */
static enum att_rc put_other(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_put(tx, &store_issuers, user, err);
}

static void other_is(struct stage *s, int64_t generation, const char *lacks, int64_t seen_at)
{
    char id[] = "other", name[] = "elsewhere:/var/lib/attest-issuerd", text[64];
    snprintf(text, sizeof text, "%s", lacks);
    char none[] = "";
    struct store_issuer row = {id, name, generation, text, none, seen_at};
    rig_ok(store_run(s->rig.issuer->store, true, put_other, &row, &err));
}

static void issuer_behind_is_waited_for(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID];
    start(&s);
    if (!store_shared(s.rig.issuer->store)) {
        stage_free(&s);
        skip();
    }
    prepare(&s, json_pack("{s:s}", "kind", "workload"), id);
    step(&s, "ca.publish", id, "published");
    int64_t number = issuer_generations_now(s.rig.issuer)->number;
    other_is(&s, number - 1, "", rig_time);
    refused(&s, "ca.activate", id, "caIssuerBehind");
    other_is(&s, number, id, rig_time);
    refused(&s, "ca.activate", id, "caIssuerBehind");
    other_is(&s, number - 1, id, rig_time - ISSUER_LIVE_S - 1); /* it has died */
    step(&s, "ca.activate", id, "active");
    stage_free(&s);
}

/* ---- a new root ---------------------------------------------------------------------------------
 */

static enum att_rc registered_by_somebody(void *user, const void *record, struct att_err *err)
{
    const struct store_host *host = record;
    size_t *n = user;
    (void)err;
    assert_string_equal(host->registered_by, "somebody");
    assert_int_equal(host->view_seen, 7);
    (*n)++;
    return ATT_OK;
}

static enum att_rc take_id(void *user, const void *record, struct att_err *err)
{
    const struct store_host *host = record;
    (void)err;
    snprintf(user, 80, "%s", host->id);
    return ATT_OK;
}

static enum att_rc register_and_look(void *user, struct store_tx *tx, struct att_err *unused)
{
    size_t n = 0;
    char id[80] = "";
    struct store_host host = {0};
    (void)user;
    (void)unused;
    rig_ok(store_each(tx, &store_hosts, NULL, NULL, take_id, id, &err));
    rig_ok(store_get(tx, &store_hosts, id, &host, &err));
    assert_true(issuer_set(&host.registered_by, "somebody"));
    host.view_seen = 7;
    rig_ok(store_put(tx, &store_hosts, &host, &err));
    rig_ok(store_hosts_behind(tx, 8, rig_time, 5, registered_by_somebody, &n, &err));
    assert_int_equal(n, 1);
    store_record_done(&store_hosts, &host);
    return ATT_OK;
}

/* All that the table has, in its order. */
static void hosts_behind_are_whole(void **state)
{
    (void)state;
    struct stage s;
    start(&s);
    certs_autostack *held = issue(&s);
    assert_non_null(held);
    rig_ok(store_run(s.rig.issuer->store, true, register_and_look, NULL, &err));
    stage_free(&s);
}

static void new_root_waits_for_hosts(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID];
    start(&s);
    certs_autostack *before = issue(&s), *old_roots = bundle(&s);
    assert_int_equal(sk_X509_num(old_roots), 1);
    prepare(&s, json_pack("{s:s, s:b}", "kind", "workload", "newRoot", 1), id);
    certs_autostack *prepared = bundle(&s);
    assert_int_equal(sk_X509_num(prepared), 1); /* nobody hears of it */
    step(&s, "ca.publish", id, "published");
    certs_autostack *both = bundle(&s), *still = issue(&s);
    assert_int_equal(sk_X509_num(both), 2);
    assert_int_equal(verify(still, old_roots), ATT_OK); /* the old one signs */
    refused(&s, "ca.activate", id, "caHostsBehind");
    assert_int_equal(view_with(&s, "\"999999\""), 200); /* of a database that is gone */
    refused(&s, "ca.activate", id, "caHostsBehind");
    host_sees(&s);
    refused(&s, "ca.activate", id, "caTooSoon");
    rig_time += 86400;
    step(&s, "ca.activate", id, "active");
    rig_time -= 86400;
    certs_autostack *after = issue(&s);
    assert_int_not_equal(X509_cmp(sk_X509_value(after, 1), sk_X509_value(before, 1)), 0);
    assert_int_equal(sk_X509_num(after), 3); /* and the new root under the old one */
    assert_int_equal(verify(after, both), ATT_OK);
    assert_int_equal(verify(after, old_roots), ATT_OK); /* by the cross-signed root */
    assert_int_equal(verify(before, both), ATT_OK);
    stage_free(&s);
}

static void old_root_leaves_when_nothing_needs_it(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID];
    start(&s);
    certs_autostack *before = issue(&s);
    prepare(&s, json_pack("{s:s, s:b}", "kind", "workload", "newRoot", 1), id);
    step(&s, "ca.publish", id, "published");
    json_t *forced =
        rig_admin(&s.rig, "ca.activate", json_pack("{s:s, s:b}", "id", id, "force", 1));
    json_decref(forced);
    char old[ISSUER_GENERATION_ID];
    rig_ok(issuer_generation_id(X509_get0_pubkey(sk_X509_value(before, 1)), old, &err));
    refused(&s, "ca.retire", old, "caInUse");
    rig_time += 7200; /* its certificates have ended */
    step(&s, "ca.retire", old, "retired");
    certs_autostack *one = bundle(&s);
    assert_int_equal(sk_X509_num(one), 1);
    assert_int_not_equal(verify(before, one), ATT_OK);
    rig_admin_done(&s.rig, "audit.verify", json_object());
    stage_free(&s);
}

/* ---- revocation lists ---------------------------------------------------------------------------
 */

static void each_has_its_list(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID], path[96], serial[72];
    start(&s);
    certs_autostack *before = issue(&s);
    struct certs_cert_info info;
    rig_ok(certs_cert_info(sk_X509_value(before, 0), &info, &err));
    snprintf(serial, sizeof serial, "%s", info.serial_hex);
    prepare(&s, json_pack("{s:s}", "kind", "workload"), id);
    snprintf(path, sizeof path, "/acme/crl/workload-%s.crl", id);
    assert_int_equal(plain(&s, "/acme/crl/workload-0123456789abcdef.crl"), 404);
    step(&s, "ca.publish", id, "published");
    refused(&s, "ca.activate", id, "caHostsBehind"); /* the same root, but another list */
    host_sees(&s);
    step(&s, "ca.activate", id, "active");
    certs_autostack *after = issue(&s);
    rig_admin_done(&s.rig, "cert.revoke", json_pack("{s:s}", "serial", serial));
    const struct {
        const char *path;
        X509 *ca;
    } lists[] = {{"/acme/crl/workload.crl", sk_X509_value(before, 1)},
                 {path, sk_X509_value(after, 1)}};
    for (size_t i = 0; i < 2; i++) {
        certs_autocrl *crl = NULL;
        assert_int_equal(plain(&s, lists[i].path), 200);
        rig_ok(certs_crl_parse(att_buf_slice(&s.client.last.body), &crl, &err));
        rig_ok(certs_crl_verify(crl, lists[i].ca, rig_time, &err));
        assert_true(certs_crl_has(crl, serial));
    }
    stage_free(&s);
}

/* ---- whatever is due ----------------------------------------------------------------------------
 */

static void rotate_is(struct stage *s, bool begin, const char *step_name)
{
    json_t *got = rig_admin(&s->rig, "ca.rotate",
                            json_pack("{s:s, s:b}", "kind", "workload", "start", begin));
    assert_string_equal(issuer_string(got, "step"), step_name);
    json_decref(got);
}

static void step_by_step(void **state)
{
    (void)state;
    struct stage s;
    start(&s);
    certs_autostack *before = issue(&s);
    assert_int_equal(sk_X509_num(before), 2);
    rotate_is(&s, false, "none");
    rotate_is(&s, true, "prepared");
    rotate_is(&s, false, "published");
    rotate_is(&s, false, "waiting"); /* for the host */
    host_sees(&s);
    rotate_is(&s, false, "activated");
    rotate_is(&s, false, "waiting"); /* certificates of the old one */
    rig_time += 7200;
    rotate_is(&s, false, "retired");
    rotate_is(&s, false, "none");
    stage_free(&s);
}

/* ---- somebody else signs ------------------------------------------------------------------------
 */

/* An authority of another house, by openssl's own tool. extensions NULL: those of the request. */
static void corporate(struct stage *s, const char *csr, const char *extensions, const char *days,
                      struct att_buf *chain)
{
    char command[2048], path[256];
    rig_write(s->rig.dir, "req.pem", csr);
    rig_write(s->rig.dir, "ext.cnf", extensions ? extensions : "authorityKeyIdentifier=keyid\n");
    snprintf(
        command, sizeof command,
        "cd '%s' && { [ -e corp.key ] || openssl req -x509 -newkey ec -pkeyopt "
        "ec_paramgen_curve:P-384 -nodes -keyout corp.key -out corp.crt -days 3650 -subj "
        "/CN=Corporate -addext basicConstraints=critical,CA:TRUE -addext "
        "keyUsage=critical,keyCertSign,cRLSign; } 2>/dev/null && openssl x509 -req -in req.pem "
        "-CA corp.crt -CAkey corp.key -days %s %s -extfile ext.cnf -out int.crt 2>/dev/null && "
        "cat int.crt corp.crt > chain.pem",
        s->rig.dir, days, extensions ? "" : "-copy_extensions copy");
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/chain.pem", s->rig.dir);
    att_buf_reset(chain);
    rig_ok(att_io_read_file(path, 65536, chain, &err));
    rig_time = att_now_utc_s() + 1; /* they begin now */
}

#define CA0   "basicConstraints=critical,CA:TRUE,pathlen:0\n"
#define USAGE "keyUsage=critical,keyCertSign,cRLSign\n"
#define KEYS  "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
#define NAMES                                                                                      \
    "nameConstraints=critical,permitted;URI:bank.example,excluded;DNS:.,excluded;"                 \
    "IP:0.0.0.0/0.0.0.0,excluded;IP:0:0:0:0:0:0:0:0/0:0:0:0:0:0:0:0\n"
#define NAMES_DNS "nameConstraints=critical,permitted;URI:bank.example,permitted;DNS:bank.example\n"

static void upstream_chain(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID];
    struct att_buf chain = ATT_BUF_INIT(65536);
    start(&s);
    json_t *got =
        rig_admin(&s.rig, "ca.prepare", json_pack("{s:s, s:b}", "kind", "workload", "csr", 1));
    snprintf(id, sizeof id, "%s", issuer_string(got, "id"));
    const char *csr = issuer_string(got, "csr");
    refused(&s, "ca.publish", id, "caState");
    const struct {
        const char *extensions, *days, *reason;
    } bad[] = {
        {USAGE KEYS NAMES "basicConstraints=critical,CA:FALSE\n", "365", "caBasic"},
        {"basicConstraints=critical,CA:TRUE\n" USAGE KEYS NAMES, "365", "caPathLength"},
        {CA0 "keyUsage=critical,keyCertSign\n" KEYS NAMES, "365", "caKeyUsage"},
        {CA0 USAGE KEYS NAMES "extendedKeyUsage=clientAuth\n", "365", "caEku"},
        {CA0 USAGE KEYS, "365", "caConstraints"},
        {CA0 USAGE KEYS NAMES_DNS, "365", "caConstraints"},
        {CA0 USAGE KEYS "nameConstraints=permitted;URI:bank.example\n", "365", "caConstraints"},
        {CA0 USAGE KEYS NAMES, "10", "caValidity"},
        {CA0 USAGE KEYS NAMES, "9000", "caValidity"},
        {CA0 USAGE KEYS NAMES, "365 -sha1", "caAlgorithm"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        corporate(&s, csr, bad[i].extensions, bad[i].days, &chain);
        rig_admin_refused(&s.rig, "ca.chain",
                          json_pack("{s:s, s:s}", "id", id, "text", att_buf_cstr(&chain)),
                          bad[i].reason);
    }
    /* Another root of the same name in its issuer's place. */
    char command[1024], path[256];
    corporate(&s, csr, CA0 USAGE "subjectKeyIdentifier=hash\n" NAMES, "365", &chain);
    snprintf(command, sizeof command,
             "cd '%s' && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes "
             "-keyout other.key -out other.crt -days 3650 -subj /CN=Corporate -addext "
             "basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign "
             "2>/dev/null && cat int.crt other.crt > chain.pem",
             s.rig.dir);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/chain.pem", s.rig.dir);
    att_buf_reset(&chain);
    rig_ok(att_io_read_file(path, 65536, &chain, &err));
    rig_admin_refused(&s.rig, "ca.chain",
                      json_pack("{s:s, s:s}", "id", id, "text", att_buf_cstr(&chain)),
                      "caSignature");
    /* Another key than was asked for: the first authority's own certificate is one. */
    struct issuer_ca *ca = s.rig.issuer->ca;
    att_autobuf foreign = {0};
    rig_ok(certs_pem_dump(ca->workload_ca, &foreign, &err));
    rig_admin_refused(&s.rig, "ca.chain",
                      json_pack("{s:s, s:s}", "id", id, "text", att_buf_cstr(&foreign)), "caChain");
    rig_ok(certs_pem_dump(ca->workload_root, &foreign, &err));
    rig_admin_refused(&s.rig, "ca.chain",
                      json_pack("{s:s, s:s}", "id", id, "text", att_buf_cstr(&foreign)), "caKey");
    corporate(&s, csr, NULL, "365", &chain); /* what was asked for */
    json_decref(rig_admin(&s.rig, "ca.chain",
                          json_pack("{s:s, s:s}", "id", id, "text", att_buf_cstr(&chain))));
    step(&s, "ca.publish", id, "published");
    json_decref(rig_admin(&s.rig, "ca.activate", json_pack("{s:s, s:b}", "id", id, "force", 1)));
    certs_autostack *after = issue(&s), *roots = bundle(&s);
    assert_int_equal(sk_X509_num(roots), 2);
    assert_int_equal(verify(after, roots), ATT_OK);
    json_decref(got);
    /* One root for both kinds: whoever trusts it would trust either. */
    got = rig_admin(&s.rig, "ca.prepare", json_pack("{s:s, s:b}", "kind", "attestation", "csr", 1));
    corporate(&s, issuer_string(got, "csr"), NULL, "365", &chain);
    rig_admin_refused(
        &s.rig, "ca.chain",
        json_pack("{s:s, s:s}", "id", issuer_string(got, "id"), "text", att_buf_cstr(&chain)),
        "caChain");
    json_decref(got);
    att_buf_done(&chain);
    stage_free(&s);
}

/* Everything asked for is in it, but a verifier finds no path: a critical extension that nobody
 * knows (RFC 5280 §4.2). Of the attestation authority, where no name is tried before. */
static void path_refused(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID];
    struct att_buf chain = ATT_BUF_INIT(65536);
    start(&s);
    json_t *got =
        rig_admin(&s.rig, "ca.prepare", json_pack("{s:s, s:b}", "kind", "attestation", "csr", 1));
    snprintf(id, sizeof id, "%s", issuer_string(got, "id"));
    const char *csr = issuer_string(got, "csr");
    corporate(&s, csr, CA0 USAGE KEYS "1.3.6.1.4.1.32473.99=critical,ASN1:NULL\n", "365", &chain);
    rig_admin_refused(&s.rig, "ca.chain",
                      json_pack("{s:s, s:s}", "id", id, "text", att_buf_cstr(&chain)), "caPath");
    corporate(&s, csr, CA0 USAGE KEYS, "365", &chain);
    rig_admin_done(&s.rig, "ca.chain",
                   json_pack("{s:s, s:s}", "id", id, "text", att_buf_cstr(&chain)));
    json_decref(got);
    att_buf_done(&chain);
    stage_free(&s);
}

/* ---- a restart ----------------------------------------------------------------------------------
 */

static void survives_a_restart(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID];
    start(&s);
    prepare(&s, json_pack("{s:s, s:b}", "kind", "workload", "newRoot", 1), id);
    step(&s, "ca.publish", id, "published");
    json_decref(rig_admin(&s.rig, "ca.activate", json_pack("{s:s, s:b}", "id", id, "force", 1)));
    issuer_free(s.rig.issuer);
    rig_open(&s.rig);
    s.client.rig = &s.rig;
    assert_string_equal(issuer_authority_of(s.rig.issuer, "agent").id, id);
    certs_autostack *after = issue(&s), *roots = bundle(&s);
    assert_int_equal(verify(after, roots), ATT_OK);
    char path[4096];
    certs_autostack *file = NULL;
    snprintf(path, sizeof path, "%s/state/ca/bundle.pem", s.rig.dir);
    rig_ok(certs_bundle_load(path, &file, &err));
    assert_int_equal(sk_X509_num(file), 2);
    stage_free(&s);
}

static void restart(struct stage *s)
{
    issuer_free(s->rig.issuer);
    rig_open(&s->rig);
    s->client.rig = &s->rig;
}

/* ---- more than there is room for ----------------------------------------------------------------
 */

static void give_up(struct stage *s, const char *kind, size_t times)
{
    char id[ISSUER_GENERATION_ID];
    for (size_t i = 0; i < times; i++) {
        rig_time++; /* they are in some order */
        prepare(s, json_pack("{s:s}", "kind", kind), id);
        step(s, "ca.retire", id, "retired");
    }
}

static void rotate_by_force(struct stage *s, char ret_id[ISSUER_GENERATION_ID])
{
    json_t *begun =
        rig_admin(&s->rig, "ca.rotate", json_pack("{s:s, s:b}", "kind", "workload", "start", 1));
    char old[ISSUER_GENERATION_ID];
    rig_ok(issuer_generation_id(X509_get0_pubkey(issuer_authority_of(s->rig.issuer, "agent").ca),
                                old, &err));
    snprintf(ret_id, ISSUER_GENERATION_ID, "%s", issuer_string(begun, "id"));
    json_decref(begun);
    step(s, "ca.publish", ret_id, "published");
    rig_time++;
    json_decref(
        rig_admin(&s->rig, "ca.activate", json_pack("{s:s, s:b}", "id", ret_id, "force", 1)));
    json_decref(rig_admin(&s->rig, "ca.retire", json_pack("{s:s, s:b}", "id", old, "force", 1)));
}

static void given_up_ones_make_room(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID];
    start(&s);
    give_up(&s, "workload", ISSUER_GENERATIONS_TOP + 3);
    give_up(&s, "attestation", ISSUER_GENERATIONS_TOP + 3);
    restart(&s);
    rotate_by_force(&s, id);
    certs_autostack *after = issue(&s), *roots = bundle(&s);
    assert_int_equal(verify(after, roots), ATT_OK);
    assert_string_equal(issuer_authority_of(s.rig.issuer, "agent").id, id);
    stage_free(&s);
}

static void those_of_certificates_in_force_stay(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID];
    start(&s);
    certs_autostack *before = issue(&s);
    for (size_t i = 1; i < ISSUER_GENERATIONS_TOP; i++) {
        rotate_by_force(&s, id);
    }
    rig_admin_refused(&s.rig, "ca.prepare", json_pack("{s:s}", "kind", "workload"), "caTooMany");
    restart(&s); /* nothing broke */
    certs_autostack *still = issue(&s), *roots = bundle(&s);
    assert_int_equal(verify(still, roots), ATT_OK);
    rig_time += 7200; /* their certificates have ended */
    for (size_t i = 0; i < 3; i++) {
        rotate_by_force(&s, id);
    }
    restart(&s);
    certs_autostack *after = issue(&s);
    assert_int_equal(verify(after, roots), ATT_OK); /* one root for all */
    assert_int_equal(sk_X509_num(before), 2);
    stage_free(&s);
}

/* ---- a key that is away -------------------------------------------------------------------------
 */

static void lose_keys(struct stage *s)
{
    char command[4200];
    snprintf(command, sizeof command, "rm '%s'/state/ca/keys/*.key", s->rig.dir);
    assert_int_equal(system(command), 0);
    restart(s);
}

static int finalized(struct stage *s)
{
    struct order o;
    s->tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_order(&s->client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s->client, &s->tpm, &o, s->ak), "valid");
    return rig_finalize(&s->client, &o, s->tpm.base->agent.pkey, FORGE_IDENTIFIER);
}

static enum att_rc takes_none(struct stage *s, struct store_tx *tx, const char *reason)
{
    struct att_err why = {0};
    struct issuer_intent intent = {.kind = ISSUER_CA_AGENT};
    assert_int_equal(issuer_intent_authority(s->rig.issuer, tx, &intent, &why), ATT_E_RETRY);
    assert_string_equal(why.reason, reason);
    assert_null(intent.by.ca);
    return ATT_OK;
}

static enum att_rc key_missing(void *user, struct store_tx *tx, struct att_err *err)
{
    (void)err;
    return takes_none(user, tx, "caKeyMissing");
}

static enum att_rc ca_changed(void *user, struct store_tx *tx, struct att_err *err)
{
    (void)err;
    return takes_none(user, tx, "caChanged");
}

static void not_activated_without_its_key(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID];
    start(&s);
    prepare(&s, json_pack("{s:s}", "kind", "workload"), id);
    step(&s, "ca.publish", id, "published");
    host_sees(&s);
    lose_keys(&s);
    refused(&s, "ca.activate", id, "caKeyMissing");
    stage_free(&s);
}

static void without_its_key_nothing_is_intended(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID], path[96];
    start(&s);
    rotate_by_force(&s, id);
    snprintf(path, sizeof path, "/acme/crl/workload-%s.crl", id);
    assert_int_equal(plain(&s, path), 200);
    issuer_health_look(s.rig.issuer);
    assert_null(issuer_health_why(s.rig.issuer));
    lose_keys(&s);
    assert_int_equal(finalized(&s), 429); /* later, not never */
    rig_ok(store_run(s.rig.issuer->store, false, key_missing, &s, &err));
    issuer_health_look(s.rig.issuer);
    assert_string_equal(issuer_health_why(s.rig.issuer), "ca");
    rig_time += 2 * ISSUER_CRL_FRESH_S;
    assert_int_equal(plain(&s, path), 200); /* the last one is in force */
    rig_time += 400 * 86400;
    assert_int_equal(plain(&s, path), 503);
    stage_free(&s);
}

static enum att_rc count_step(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_meta_count(tx, "authorities", user, err);
}

static void nothing_is_intended_between_two_steps(void **state)
{
    (void)state;
    struct stage s;
    int64_t number = 0;
    start(&s);
    rig_ok(store_run(s.rig.issuer->store, true, count_step, &number, &err)); /* another issuer's */
    rig_ok(store_run(s.rig.issuer->store, false, ca_changed, &s, &err));
    assert_int_equal(finalized(&s), 200); /* it takes the step into use, and goes on */
    stage_free(&s);
}

/* ---- telling ------------------------------------------------------------------------------------
 */

static const json_t *told(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (strcmp(issuer_string(json_array_get(list, i), "name"), name) == 0) {
            return json_array_get(list, i);
        }
    }
    return NULL;
}

static void those_in_use_are_told(void **state)
{
    (void)state;
    struct stage s;
    char id[ISSUER_GENERATION_ID], name[64];
    start(&s);
    rotate_by_force(&s, id);
    struct issuer *issuer = s.rig.issuer;
    snprintf(name, sizeof name, "workload-ca-%s", id);
    json_t *list = issuer_ca_status(issuer->ca, issuer->state_dir, rig_time);
    assert_non_null(told(list, name));
    assert_true(json_is_true(json_object_get(told(list, "workload-ca"), "replaced")));
    assert_null(json_object_get(told(list, "workload-root"), "replaced")); /* it is the new one's */
    json_decref(list);
    issuer_autosettings *settings = issuer_settings_get(issuer);
    json_t *warnings =
        issuer_ca_warnings(issuer->ca, settings->conf, rig_time + (int64_t)1800 * 86400);
    bool first = false, later = false;
    for (size_t i = 0; i < json_array_size(warnings); i++) {
        const char *text = json_string_value(json_array_get(warnings, i));
        first = first || strncmp(text, "workload-ca ", 12) == 0;
        later = later || strncmp(text, name, strlen(name)) == 0;
    }
    assert_true(later && !first);
    json_decref(warnings);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_refused),
        cmocka_unit_test(active_one_is_not_retired),
        cmocka_unit_test(root_away_refused),
        cmocka_unit_test(issuer_behind_is_waited_for),
        cmocka_unit_test(hosts_behind_are_whole),
        cmocka_unit_test(new_root_waits_for_hosts),
        cmocka_unit_test(old_root_leaves_when_nothing_needs_it),
        cmocka_unit_test(each_has_its_list),
        cmocka_unit_test(step_by_step),
        cmocka_unit_test(upstream_chain),
        cmocka_unit_test(path_refused),
        cmocka_unit_test(survives_a_restart),
        cmocka_unit_test(given_up_ones_make_room),
        cmocka_unit_test(those_of_certificates_in_force_stay),
        cmocka_unit_test(not_activated_without_its_key),
        cmocka_unit_test(without_its_key_nothing_is_intended),
        cmocka_unit_test(nothing_is_intended_between_two_steps),
        cmocka_unit_test(those_in_use_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
