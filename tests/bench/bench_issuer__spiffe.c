/* Area "spiffe": JWT-SVIDs through the issuer's handlers on SQLite (or, with
 * ATT_TEST_STORE=postgres, on a PostgreSQL of its own), by a host of forged evidence.
 *
 * issuer/token: one newToken after another, each with a nonce of its own and the agent's proof.
 * p50 and p99 are wall time within the handler, disk included; rate is tokens per second and core,
 * by the processor time of the process less what the client spent on its own (its two signatures):
 * the handler and the issuer's other threads, system calls included, no TLS and HTTP framing. The
 * floor: what cannot be had for less, 2 ECDSA P-256 verifications (request, proof) and 1 signature
 * (the token) by libcrypto.
 *
 * issuer/token-sign: that signature alone, which is the floor of whatever mints ES256.
 *
 * An agent is given a token each 2 s at most in the long run and its certificate ends: the rig's
 * clock goes on between the requests, and another certificate is had outside of what is counted.
 * argv: samples, tests/vectors (not used). */
#include "attestd/base/log.h"
#include "provision/issuer/context.h"

static void timed_handle(struct issuer *issuer, const struct issuer_request *request,
                         struct issuer_response *ret_response);
/* The test rig's client calls the handlers; here it calls them with a stopwatch. */
#define issuer_handle timed_handle
#include "tests/unit/issuer/tokens.h"
#undef issuer_handle
#include "tests/bench/bench.h"

static struct bench wall, floor_wall, sign_wall;
static double in_wall_us, in_cpu_us;

static double clock_us(clockid_t clock)
{
    struct timespec ts;
    clock_gettime(clock, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void timed_handle(struct issuer *issuer, const struct issuer_request *request,
                         struct issuer_response *ret_response)
{
    double at = bench_now_us(), cpu_at = clock_us(CLOCK_THREAD_CPUTIME_ID);
    issuer_handle(issuer, request, ret_response);
    if (request->method != ISSUER_HEAD) { /* a nonce comes with the answer before */
        in_wall_us += bench_now_us() - at;
        in_cpu_us += clock_us(CLOCK_THREAD_CPUTIME_ID) - cpu_at;
    }
}

struct bare {
    EVP_PKEY *key;
    uint8_t bytes[512], sig[128]; /* as long as a token's header and claims */
    size_t sig_len;
};

static enum att_rc sign_bare(struct bare *b)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    b->sig_len = sizeof b->sig;
    bool ok = ctx && EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, b->key) == 1 &&
              EVP_DigestSign(ctx, b->sig, &b->sig_len, b->bytes, sizeof b->bytes) == 1;
    EVP_MD_CTX_free(ctx);
    return ok ? ATT_OK : ATT_E_CRYPTO;
}

static enum att_rc verify_bare(const struct bare *b)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, b->key) == 1 &&
              EVP_DigestVerify(ctx, b->sig, b->sig_len, b->bytes, sizeof b->bytes) == 1;
    EVP_MD_CTX_free(ctx);
    return ok ? ATT_OK : ATT_E_CRYPTO;
}

static enum att_rc floor_once(struct bare *b)
{
    enum att_rc rc = sign_bare(b);
    for (int i = 0; rc == ATT_OK && i < 2; i++) {
        rc = verify_bare(b);
    }
    return rc;
}

static void token_row(const char *name, double rate, double floor_rate)
{
    printf("{\"name\":\"issuer/%s\",\"unit\":\"ms\",\"p50\":%.4f,\"p99\":%.4f,"
           "\"floor_p50\":%.4f,\"rate\":%.1f,\"floor_rate\":%.1f,\"n\":%zu}\n",
           name, bench_percentile_ms(&wall, 0.5), bench_percentile_ms(&wall, 0.99),
           bench_percentile_ms(&floor_wall, 0.5), rate, floor_rate, wall.n);
}

/* Time for another certificate: this one lasts an hour. */
static bool worn(time_t since)
{
    return rig_time - since > 1800;
}

/* With BENCH_HSM_CONFIG, an issuer.yaml whose attestd-hsmd runs: the key is in there. Who waits for
 * it computes little: the row's rate is by the clock, one token after another. */
static bool key_in_hsm(struct stage *s)
{
    const char *path = getenv("BENCH_HSM_CONFIG");
    struct conf_issuer *conf = NULL;
    char kid[ACME_THUMBPRINT_LEN];
    if (!path) {
        return false;
    }
    rig_ok(conf_issuer_load(path, &conf, NULL, &err));
    rig_ok(issuer_hsm_new(conf, &s->rig.issuer->ca->hsm, &err));
    conf_issuer_free(conf);
    s->rig.issuer->settings->conf->jwt->keys_hsm = true;
    rig_ok(issuer_jwt_replace(s->rig.issuer, true, NULL, kid, &err));
    return true;
}

int main(int argc, char **argv)
{
    size_t n = argc > 1 ? (size_t)strtoul(argv[1], NULL, 10) : 1000;
    struct stage s;
    struct held held;
    struct bare bare = {.key = forge_p256()};
    double issuer_us = 0, wall_us = 0, sign_us, floor_us;
    att_log_setup("bench", ATT_ERROR, false);
    issuer_memory(); /* as attest-issuerd's main does */
    double at = clock_us(CLOCK_THREAD_CPUTIME_ID);
    BENCH_RUN(&sign_wall, n, sign_bare(&bare));
    sign_us = clock_us(CLOCK_THREAD_CPUTIME_ID) - at;
    at = clock_us(CLOCK_THREAD_CPUTIME_ID);
    BENCH_RUN(&floor_wall, n, floor_once(&bare));
    floor_us = clock_us(CLOCK_THREAD_CPUTIME_ID) - at;
    EVP_PKEY_free(bare.key);
    stage_tokens(&s, &held);
    bool hsm = key_in_hsm(&s);
    time_t since = rig_time;
    for (size_t i = 0; i < n + 10; i++) {
        if (worn(since)) {
            issue(&s, &held);
            since = rig_time;
        }
        in_wall_us = in_cpu_us = 0;
        double all_at = clock_us(CLOCK_PROCESS_CPUTIME_ID);
        double own_at = clock_us(CLOCK_THREAD_CPUTIME_ID);
        int status = ask(&s, &held, &right);
        double own_us = clock_us(CLOCK_THREAD_CPUTIME_ID) - own_at - in_cpu_us;
        double all_us = clock_us(CLOCK_PROCESS_CPUTIME_ID) - all_at;
        if (status != 200) {
            fprintf(stderr, "bench_issuer__spiffe: newToken %zu: status %d\n", i, status);
            return 1;
        }
        if (i >= 10) { /* caches are warm */
            bench_add(&wall, in_wall_us);
            issuer_us += all_us - own_us;
            wall_us += in_wall_us;
        }
        rig_time += 2;
    }
    bool postgres = test_store_is_postgres();
    token_row(hsm        ? "token-tpm"
              : postgres ? "token-postgres"
                         : "token",
              (double)wall.n / (hsm ? wall_us : issuer_us) * 1e6, (double)n / floor_us * 1e6);
    if (!postgres && !hsm) {
        printf("{\"name\":\"issuer/token-sign\",\"unit\":\"ms\",\"p50\":%.4f,\"p99\":%.4f,"
               "\"rate\":%.1f,\"n\":%zu}\n",
               bench_percentile_ms(&sign_wall, 0.5), bench_percentile_ms(&sign_wall, 0.99),
               (double)sign_wall.n / sign_us * 1e6, sign_wall.n);
    }
    stage_free(&s);
    return 0;
}
