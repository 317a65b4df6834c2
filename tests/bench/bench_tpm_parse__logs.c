/* Area "logs": replay of a crypto-agile firmware log of 49 KB, of ten times that and of 4 MiB (the
 * most that is read, 85 times) beside the hashing alone. The log is
 * tests/vectors/boot/eventlog.bin, a guest's, with its events repeated up to that size. Then IMA
 * lists of 1,000, 10,000 and 100,000 entries (ima-ngv2, paths of 9 to 74 bytes), binary, and the
 * shortest in ASCII, beside the three hashes that each entry costs. Processor time: one run of a
 * long log is longer than a turn on a busy processor. argv: samples, tests/vectors.
 */
#define BENCH_CLOCK CLOCK_THREAD_CPUTIME_ID
#include "attestd/base/hash.h"
#include "attestd/base/io.h"
#include "tests/bench/bench.h"
#include "tests/support/imalist.h"
#include "tpm/parse/eventlog.h"
#include "tpm/parse/ima.h"

#include <openssl/evp.h>
#include <string.h>

#define LOG_LEN    ((size_t)49 * 1024)
#define EVENTS_MAX 65536

static struct bench ours, bare;

/* What a replay extends. */
static struct extend {
    uint32_t pcr;
    uint8_t digest[ATT_SHA256_LEN];
} extends[EVENTS_MAX];
static size_t n_extends;

static void must(enum att_rc rc, const struct att_err *err, const char *what)
{
    if (rc != ATT_OK) {
        fprintf(stderr, "bench_tpm_parse__logs: %s: %s: %s\n", what, att_rc_name(rc), err->msg);
        exit(1);
    }
}

/* Record 0 once, the rest again and again, but not what may stand there once only (EV_NO_ACTION).
 */
static void grow(struct att_slice log, size_t len, struct att_buf *ret)
{
    struct att_err err = {0};
    bool first_round = true;
    n_extends = 0;
    while (ret->len < len) {
        struct parse_eventlog it;
        struct parse_eventlog_event event;
        must(parse_eventlog_init(&it, log, &err), &err, "init");
        while (ret->len < len && parse_eventlog_next(&it, &event, &err) == ATT_OK) {
            bool no_action = event.type == PARSE_EV_NO_ACTION;
            if (first_round || !no_action) {
                att_buf_put(ret, log.ptr + event.offset, it.pos - event.offset);
            }
            struct att_slice digest = parse_eventlog_digest_of(&event, PARSE_ALG_SHA256);
            if (!no_action && n_extends < EVENTS_MAX && digest.len == ATT_SHA256_LEN) {
                extends[n_extends].pcr = event.pcr;
                memcpy(extends[n_extends++].digest, digest.ptr, ATT_SHA256_LEN);
            }
        }
        first_round = false;
    }
}

static enum att_rc replay_once(struct att_slice log, struct parse_eventlog_pcrs *ret)
{
    return parse_eventlog_replay(log, PARSE_ALG_SHA256, ret, NULL);
}

static enum att_rc hash_once(EVP_MD_CTX *ctx, const EVP_MD *md,
                             uint8_t pcrs[PARSE_PCR_COUNT][ATT_SHA256_LEN])
{
    memset(pcrs, 0, (size_t)PARSE_PCR_COUNT * ATT_SHA256_LEN);
    for (size_t i = 0; i < n_extends; i++) {
        uint8_t *pcr = pcrs[extends[i].pcr];
        if (EVP_DigestInit_ex(ctx, md, NULL) != 1 ||
            EVP_DigestUpdate(ctx, pcr, ATT_SHA256_LEN) != 1 ||
            EVP_DigestUpdate(ctx, extends[i].digest, ATT_SHA256_LEN) != 1 ||
            EVP_DigestFinal_ex(ctx, pcr, NULL) != 1) {
            return ATT_E_CRYPTO;
        }
    }
    return ATT_OK;
}

/* ---- IMA ------------------------------------------------------------------------------------- */

struct spans { /* template data of each entry, in one piece */
    struct att_buf bytes;
    size_t *ends, n;
};

static void make_list(size_t n, bool ascii, struct att_buf *ret, struct spans *spans)
{
    static const char path[] = "/usr/lib/x86_64-linux-gnu/some-package/libexec/some-program-of-it";
    uint8_t digest[ATT_SHA256_LEN];
    spans->bytes.max = ret->max = (size_t)64 << 20;
    spans->ends = calloc(n, sizeof *spans->ends);
    for (size_t i = 0; i < n; i++) {
        char name[96];
        snprintf(name, sizeof name, "%.*s%08zu", (int)(1 + i % (sizeof path - 1)), path, i);
        struct imalist_entry entry = imalist_file(name, digest);
        (ascii ? imalist_ascii : imalist_binary)(&entry, ret);
        imalist_data(&entry, &spans->bytes);
        spans->ends[i] = spans->bytes.len;
    }
    spans->n = n;
}

static enum att_rc hash_entries(const struct spans *spans, EVP_MD_CTX *ctx, const EVP_MD *sha1,
                                const EVP_MD *sha256, uint8_t pcr[ATT_SHA256_LEN])
{
    uint8_t digest[ATT_SHA256_LEN], shown[20];
    memset(pcr, 0, ATT_SHA256_LEN);
    for (size_t i = 0; i < spans->n; i++) {
        size_t at = i ? spans->ends[i - 1] : 0, len = spans->ends[i] - at;
        if (EVP_Digest(spans->bytes.ptr + at, len, shown, NULL, sha1, NULL) != 1 ||
            EVP_Digest(spans->bytes.ptr + at, len, digest, NULL, sha256, NULL) != 1 ||
            EVP_DigestInit_ex(ctx, sha256, NULL) != 1 ||
            EVP_DigestUpdate(ctx, pcr, ATT_SHA256_LEN) != 1 ||
            EVP_DigestUpdate(ctx, digest, sizeof digest) != 1 ||
            EVP_DigestFinal_ex(ctx, pcr, NULL) != 1) {
            return ATT_E_CRYPTO;
        }
    }
    return ATT_OK;
}

static enum att_rc replay_ima(struct att_slice list, struct parse_ima_pcrs *ret)
{
    struct parse_ima_replay how = {.bank = PARSE_ALG_SHA256, .at_least = SIZE_MAX};
    return parse_ima_replay(list, &how, ret, NULL);
}

static void ima_rows(size_t entries, bool ascii, size_t samples)
{
    att_autobuf list = {0};
    struct spans spans = {0};
    struct parse_ima_pcrs pcrs;
    uint8_t pcr[ATT_SHA256_LEN];
    make_list(entries, ascii, &list, &spans);
    EVP_MD *sha1 = EVP_MD_fetch(NULL, "SHA1", NULL), *sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    BENCH_RUN(&bare, samples, hash_entries(&spans, ctx, sha1, sha256, pcr));
    BENCH_RUN(&ours, samples, replay_ima(att_buf_slice(&list), &pcrs));
    if (memcmp(pcrs.value[PARSE_IMA_PCR], pcr, sizeof pcr) != 0) {
        fprintf(stderr, "bench_tpm_parse__logs: PCR 10 differs from the floor's\n");
        exit(1);
    }
    double ms = bench_percentile_ms(&ours, 0.5);
    printf("{\"name\":\"logs/ima-%s%zu\",\"unit\":\"ms\",\"p50\":%.4f,\"p99\":%.4f,"
           "\"floor_p50\":%.4f,\"rate\":%.0f,\"n\":%zu}\n",
           ascii ? "ascii-" : "", entries, ms, bench_percentile_ms(&ours, 0.99),
           bench_percentile_ms(&bare, 0.5), (double)entries / ms * 1000, ours.n);
    EVP_MD_CTX_free(ctx);
    EVP_MD_free(sha1);
    EVP_MD_free(sha256);
    free(spans.ends);
    att_buf_done(&spans.bytes);
}

static void firmware_row(struct att_slice guest, size_t len, const char *name, size_t samples)
{
    att_autobuf log = ATT_BUF_INIT(PARSE_EVENTLOG_MAX);
    static uint8_t pcrs[PARSE_PCR_COUNT][ATT_SHA256_LEN];
    struct parse_eventlog_pcrs replayed;
    grow(guest, len, &log);
    EVP_MD *md = EVP_MD_fetch(NULL, "SHA256", NULL);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    BENCH_RUN(&bare, samples, hash_once(ctx, md, pcrs));
    BENCH_RUN(&ours, samples, replay_once(att_buf_slice(&log), &replayed));
    for (uint32_t i = 0; i < PARSE_PCR_COUNT; i++) {
        if ((replayed.with_events & 1u << i) && memcmp(replayed.value[i], pcrs[i], 32) != 0) {
            fprintf(stderr, "bench_tpm_parse__logs: PCR %u differs from the floor's\n", i);
            exit(1);
        }
    }
    EVP_MD_CTX_free(ctx);
    EVP_MD_free(md);
    bench_row(name, &ours, &bare);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s SAMPLES VECTORS\n", argv[0]);
        return 2;
    }
    size_t n = (size_t)strtoul(argv[1], NULL, 10);
    char path[4096];
    struct att_err err = {0};
    att_autobuf small = {0};
    snprintf(path, sizeof path, "%s/boot/eventlog.bin", argv[2]);
    must(att_io_read_file(path, PARSE_EVENTLOG_MAX, &small, &err), &err, "the log");
    struct att_slice guest = att_buf_slice(&small);
    firmware_row(guest, LOG_LEN, "logs/firmware-49k", n);
    firmware_row(guest, 10 * LOG_LEN, "logs/firmware-490k", n / 10 + 1);
    firmware_row(guest, PARSE_EVENTLOG_MAX - 4096, "logs/firmware-4m", n / 100 + 1);
    ima_rows(1000, false, n);
    ima_rows(1000, true, n);
    ima_rows(10000, false, n / 10 + 1);
    ima_rows(100000, false, n / 100 + 1);
    return 0;
}
