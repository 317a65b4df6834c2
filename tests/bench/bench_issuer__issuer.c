/* Area "issuer": certificates through the issuer's handlers on SQLite (or, with
 * ATT_TEST_STORE=postgres, on a PostgreSQL of its own on this machine), from newOrder to the
 * downloaded chain, by a host of forged evidence (a software TPM under a trusted maker's root).
 *
 * issuer/sqlite: certificates per second and core. Counted is the processor time of the process
 * while one client works, less what the client spent on its own (its signatures, its evidence):
 * the handlers, system calls included, and the issuer's other threads. Not TLS and HTTP framing,
 * and no waiting for the disk. The client's work between the requests makes caches cold; a server
 * that is busy has them warm, so the figure is rather too low. The floor: 8 ECDSA P-256
 * verifications and 1 signature by libcrypto, as an issuance has them: 5 requests, CSR,
 * TPM2_Certify, TPM2_Quote; the certificate. (Until 2026-11-28 the client here asked for the order
 * once more, which attestd leaves out: a ninth verification.)
 *
 * issuer/postgres: the same; what the server's processes spend on the same cores is not in it, but
 * in the wall time of issuer/postgres-1-client and -8-clients.
 *
 * issuer/sqlite-8-clients: the same rate with 8 clients at work, whose writers share commits.
 *
 * issuer/1-client, issuer/8-clients: p50 and p99 are wall time within the handlers for one
 * certificate, disk included; rate is certificates per second of wall time, the clients' work on
 * the same cores included. floor_rate there is of one core, as above. argv: samples,
 * tests/vectors (not used). */
#include "attestd/base/log.h"
#include "provision/issuer/context.h"

static void timed_handle(struct issuer *issuer, const struct issuer_request *request,
                         struct issuer_response *ret_response);
/* The test rig's client calls the handlers; here it calls them with a stopwatch. */
#define issuer_handle timed_handle
#include "tests/unit/issuer/rig.h"
#undef issuer_handle
#include "tests/bench/bench.h"

#define CLIENTS 8

static struct bench wall, floor_wall;
static pthread_mutex_t wall_lock = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local double in_wall_us, in_cpu_us;
static _Thread_local bool counting;

static double clock_us(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static double cpu_now_us(void)
{
    return clock_us(CLOCK_THREAD_CPUTIME_ID);
}

static void timed_handle(struct issuer *issuer, const struct issuer_request *request,
                         struct issuer_response *ret_response)
{
    double at = bench_now_us(), cpu_at = cpu_now_us();
    issuer_handle(issuer, request, ret_response);
    /* A client that goes on takes the nonce of the answer before, and asks for none: its asking
     * here is the client's own work. */
    if (counting && request->method != ISSUER_HEAD) {
        in_wall_us += bench_now_us() - at;
        in_cpu_us += cpu_now_us() - cpu_at;
    }
}

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bench_issuer__issuer: %s\n", what);
        exit(1);
    }
}

/* As attestd does it: order, authorization, challenge, finalize, certificate. */
static void issue(struct client *client, struct tpm *tpm, const char *ak_url)
{
    struct order order;
    must(rig_order(client, RIG_NAME, &order) == 201, "newOrder");
    must(strcmp(rig_m4(client, tpm, &order, ak_url), "valid") == 0, "challenge");
    must(rig_finalize(client, &order, tpm->base->agent.pkey,
                      "spiffe://bank.example/agent/" RIG_NAME) == 200,
         "finalize");
    must(client_get(client, client_text(client, "certificate")) == 200, "certificate");
}

struct key_and_signature {
    EVP_PKEY *key;
    uint8_t bytes[256], sig[128];
    size_t sig_len;
};

static bool sign_bare(struct key_and_signature *k)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    k->sig_len = sizeof k->sig;
    bool ok = ctx && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, k->key) == 1 &&
              EVP_DigestSign(ctx, k->sig, &k->sig_len, k->bytes, sizeof k->bytes) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

static bool verify_bare(const struct key_and_signature *k)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, k->key) == 1 &&
              EVP_DigestVerify(ctx, k->sig, k->sig_len, k->bytes, sizeof k->bytes) == 1;
    EVP_MD_CTX_free(ctx);
    return ok;
}

static enum att_rc floor_once(struct key_and_signature *k)
{
    bool ok = sign_bare(k);
    for (int i = 0; ok && i < 8; i++) {
        ok = verify_bare(k);
    }
    return ok ? ATT_OK : ATT_E_CRYPTO;
}

/* ---- clients
 * --------------------------------------------------------------------------------------------- */

struct host {
    struct client client;
    struct tpm *tpm;
    const char *ak_url;
    size_t n;
    double own_cpu_us; /* spent outside of the handlers */
};

static void *run_client(void *user)
{
    struct host *host = user;
    double cpu_at = cpu_now_us(), handled_us = 0;
    counting = true;
    for (size_t i = 0; i < host->n; i++) {
        in_wall_us = in_cpu_us = 0;
        issue(&host->client, host->tpm, host->ak_url);
        handled_us += in_cpu_us;
        pthread_mutex_lock(&wall_lock);
        bench_add(&wall, in_wall_us);
        pthread_mutex_unlock(&wall_lock);
    }
    host->own_cpu_us = cpu_now_us() - cpu_at - handled_us;
    return NULL;
}

struct outcome {
    double wall_rate, cpu_rate;
};

/* The same host's account from several threads: requests of different agents. */
static struct outcome run_clients(const struct host *model, size_t clients, size_t n)
{
    struct host hosts[CLIENTS];
    struct tpm tpms[CLIENTS];
    pthread_t threads[CLIENTS];
    wall.n = 0;
    double at = bench_now_us(), cpu_at = clock_us(CLOCK_PROCESS_CPUTIME_ID), own_us = 0;
    for (size_t i = 0; i < clients; i++) {
        hosts[i] = *model;
        hosts[i].n = n / clients;
        tpms[i] = *model->tpm;
        hosts[i].tpm = &tpms[i];
        hosts[i].client.body = NULL;
        hosts[i].client.last = (struct issuer_response){0};
        EVP_PKEY_up_ref(model->client.key);
        must(pthread_create(&threads[i], NULL, run_client, &hosts[i]) == 0, "thread");
    }
    for (size_t i = 0; i < clients; i++) {
        pthread_join(threads[i], NULL);
        own_us += hosts[i].own_cpu_us;
        client_free(&hosts[i].client);
    }
    double n_all = (double)(n / clients * clients);
    double issuer_us = clock_us(CLOCK_PROCESS_CPUTIME_ID) - cpu_at - own_us;
    return (struct outcome){n_all / (bench_now_us() - at) * 1e6, n_all / issuer_us * 1e6};
}

static void row(const char *name, double rate, double floor_rate)
{
    printf("{\"name\":\"issuer/%s\",\"unit\":\"ms\",\"p50\":%.4f,\"p99\":%.4f,"
           "\"floor_p50\":%.4f,\"rate\":%.1f,\"floor_rate\":%.1f,\"n\":%zu}\n",
           name, bench_percentile_ms(&wall, 0.5), bench_percentile_ms(&wall, 0.99),
           bench_percentile_ms(&floor_wall, 0.5), rate, floor_rate, wall.n);
}

int main(int argc, char **argv)
{
    size_t n = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 1000;
    struct rig rig;
    struct tpm tpm;
    struct host host = {.tpm = &tpm};
    char ak_url[256], selector[80];
    struct key_and_signature bare = {.key = forge_p256()};
    att_log_setup("bench", ATT_ERROR, false);
    issuer_memory(); /* as attest-issuerd's main does */
    double cpu_at = cpu_now_us();
    BENCH_RUN(&floor_wall, n, floor_once(&bare));
    double floor_rate = (double)n / (cpu_now_us() - cpu_at) * 1e6;
    EVP_PKEY_free(bare.key);
    tpm_new(&tpm);
    rig_new(&rig, tpm.base->maker_root, "forge");
    client_new(&host.client, &rig);
    rig_policy(&rig, &tpm);
    rig_enrol(&host.client, &tpm, ak_url);
    host.ak_url = ak_url;
    snprintf(selector, sizeof selector, "ek:%s", tpm.ek_id);
    rig_entries(&rig, selector);
    issue(&host.client, &tpm, ak_url);
    bool postgres = test_store_is_postgres();
    struct outcome one = run_clients(&host, 1, n);
    row(postgres ? "postgres" : "sqlite", one.cpu_rate, floor_rate);
    row(postgres ? "postgres-1-client" : "1-client", one.wall_rate, floor_rate);
    struct outcome several = run_clients(&host, CLIENTS, n);
    if (!postgres) {
        row("sqlite-8-clients", several.cpu_rate, floor_rate);
    }
    row(postgres ? "postgres-8-clients" : "8-clients", several.wall_rate, floor_rate);
    client_free(&host.client);
    rig_free(&rig);
    tpm_free(&tpm);
    return 0;
}
