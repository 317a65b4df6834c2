/* Area "issuer": certificates per second and core through the issuer's handlers on SQLite, from
 * newOrder to the downloaded chain, by a host of forged evidence (a software TPM under a trusted
 * maker's root). Counted is the processor time inside of issuer_handle only: neither the client's
 * signatures nor TLS and HTTP framing, and no waiting for the disk; p50 and p99 are wall time and
 * do have that. The floor: 8 ECDSA P-256 verifications and 1 signature by libcrypto. argv: samples,
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

static struct bench wall, floor_wall;
static double in_wall_us, in_cpu_us;
static bool counting;

static double cpu_now_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void timed_handle(struct issuer *issuer, const struct issuer_request *request,
                         struct issuer_response *ret_response)
{
    double at = bench_now_us(), cpu_at = cpu_now_us();
    issuer_handle(issuer, request, ret_response);
    /* A client that goes on takes the nonce of the answer before, and asks for none. */
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

/* As attestd does it: order, authorization, challenge, order, finalize, certificate. */
static void issue(struct client *client, struct tpm *tpm, const char *ak_url)
{
    struct order order;
    must(rig_order(client, RIG_NAME, &order) == 201, "newOrder");
    must(strcmp(rig_m4(client, tpm, &order, ak_url), "valid") == 0, "challenge");
    must(client_get(client, order.url) == 200, "order");
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

int main(int argc, char **argv)
{
    size_t n = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 1000;
    struct rig rig;
    struct tpm tpm;
    struct client client;
    char ak_url[256], selector[80];
    struct key_and_signature bare = {.key = forge_p256()};
    att_log_setup("bench", ATT_ERROR, false);
    double cpu_at = cpu_now_us();
    BENCH_RUN(&floor_wall, n, floor_once(&bare));
    double floor_rate = (double)n / (cpu_now_us() - cpu_at) * 1e6;
    EVP_PKEY_free(bare.key);
    tpm_new(&tpm);
    rig_new(&rig, tpm.base->maker_root, "forge");
    client_new(&client, &rig);
    rig_policy(&rig, &tpm);
    rig_enrol(&client, &tpm, ak_url);
    snprintf(selector, sizeof selector, "ek:%s", tpm.ek_id);
    rig_entries(&rig, selector);
    issue(&client, &tpm, ak_url);
    counting = true;
    double cpu_us = 0;
    for (size_t i = 0; i < n; i++) {
        in_wall_us = in_cpu_us = 0;
        issue(&client, &tpm, ak_url);
        bench_add(&wall, in_wall_us);
        cpu_us += in_cpu_us;
    }
    printf("{\"name\":\"issuer/sqlite\",\"unit\":\"ms\",\"p50\":%.4f,\"p99\":%.4f,"
           "\"floor_p50\":%.4f,\"rate\":%.1f,\"floor_rate\":%.1f,\"n\":%zu}\n",
           bench_percentile_ms(&wall, 0.5), bench_percentile_ms(&wall, 0.99),
           bench_percentile_ms(&floor_wall, 0.5), (double)n / cpu_us * 1e6, floor_rate, wall.n);
    client_free(&client);
    rig_free(&rig);
    tpm_free(&tpm);
    return 0;
}
