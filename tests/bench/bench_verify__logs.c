/* Area "logs": IMA's list judged by an ima rule. Lists of 1,000, 10,000 and 100,000 entries against
 * an allow list of 100,000 (rows logs/ima-judge-N: parsing and lookups, the replay is another row),
 * beside the parsing alone; then a renewal, for which 20 entries of 10,000 are new; then reading
 * that allow list. Processor time. argv: samples, tests/vectors (not used). */
#define BENCH_CLOCK CLOCK_THREAD_CPUTIME_ID
#include "provision/verify/imadraft.h"
#include "provision/verify/imajudge.h"
#include "tests/bench/bench.h"
#include "tests/support/imalist.h"

#include <string.h>

#define ENTRIES 100000
#define NEW     20

static struct bench ours, bare;

static void must(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "bench_verify__logs: %s\n", what);
        exit(1);
    }
}

/* Entries as in bench_tpm_parse__logs: paths of 9 to 74 bytes. ret_ends: bytes after each. */
static void make_list(size_t n, struct att_buf *ret, size_t *ret_ends)
{
    static const char path[] = "/usr/lib/x86_64-linux-gnu/some-package/libexec/some-program-of-it";
    uint8_t digest[ATT_SHA256_LEN];
    ret->max = (size_t)64 << 20;
    for (size_t i = 0; i < n; i++) {
        char name[96];
        snprintf(name, sizeof name, "%.*s%08zu", (int)(1 + i % (sizeof path - 1)), path, i);
        struct imalist_entry entry = imalist_file(i ? name : "boot_aggregate", digest);
        imalist_binary(&entry, ret);
        ret_ends[i] = ret->len;
    }
}

static enum att_rc parse_only(struct att_slice bytes)
{
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    struct parse_ima_entry entry;
    enum att_rc rc = parse_ima_init(&list, bytes, NULL);
    while (rc == ATT_OK) {
        rc = parse_ima_next(&list, &entry, NULL);
    }
    return rc == ATT_E_NOTFOUND ? ATT_OK : rc;
}

static enum att_rc judge(const struct verify_policy *policy, struct att_slice ima,
                         const struct evidence_log *log, struct verify_memo *memo)
{
    char sum[VERIFY_IMAJUDGE_SUM_MAX];
    verify_autoverdict *verdict = verify_verdict_new();
    const struct verify_policy_in in = {
        .policy = policy, .now = 1, .ima = ima, .ima_log = log, .memo = memo};
    must(verdict != NULL, "memory");
    verify_ima_judge(&in, sum, verdict);
    return verdict->n_refusing || verify_verdict_failed(verdict) ? ATT_E_DENIED : ATT_OK;
}

static void log_of(struct evidence_log *log, const struct att_buf *list, size_t len)
{
    *log = (struct evidence_log){.has_data = true};
    log->data = (struct att_buf){.ptr = list->ptr, .len = len};
    att_sha256(log->sha256, ATT_SLICE(list->ptr, len));
}

static void judge_row(const struct verify_policy *policy, const struct att_buf *list, size_t n,
                      size_t len, size_t samples)
{
    struct evidence_log log;
    log_of(&log, list, len);
    struct att_slice ima = ATT_SLICE(list->ptr, len);
    BENCH_RUN(&bare, samples, parse_only(ima));
    BENCH_RUN(&ours, samples, judge(policy, ima, &log, NULL));
    double ms = bench_percentile_ms(&ours, 0.5);
    printf("{\"name\":\"logs/ima-judge-%zu\",\"unit\":\"ms\",\"p50\":%.4f,\"p99\":%.4f,"
           "\"floor_p50\":%.4f,\"rate\":%.0f,\"n\":%zu}\n",
           n, ms, bench_percentile_ms(&ours, 0.99), bench_percentile_ms(&bare, 0.5),
           (double)n / ms * 1000, ours.n);
}

/* The first 9,980 were judged. The result is never kept, so that each round is like the first. */
static void renewal_row(const struct verify_policy *policy, const struct att_buf *list,
                        const size_t *ends, size_t samples)
{
    struct evidence_log base, whole;
    log_of(&base, list, ends[10000 - NEW - 1]);
    log_of(&whole, list, ends[10000 - 1]);
    whole.has_base = true;
    memcpy(whole.base_sha256, base.sha256, sizeof whole.base_sha256);
    for (size_t i = 0; i < samples; i++) {
        struct verify_memo *memo = verify_memo_new(2);
        must(memo && judge(policy, att_buf_slice(&base.data), &base, memo) == ATT_OK, "the base");
        double start = bench_now_us();
        must(judge(policy, att_buf_slice(&whole.data), &whole, memo) == ATT_OK, "the renewal");
        bench_add(&ours, bench_now_us() - start);
        verify_memo_free(memo);
    }
    bench_row("logs/ima-judge-renewal", &ours, NULL);
}

static enum att_rc read_list(struct att_slice text)
{
    verify_autoimalist *list = NULL;
    return verify_imalist_parse(text, &list, NULL);
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s SAMPLES VECTORS\n", argv[0]);
        return 2;
    }
    size_t n = (size_t)strtoul(argv[1], NULL, 10);
    static struct verify_policy policy;
    static size_t ends[ENTRIES];
    struct att_buf list = {0};
    att_autobuf lines = ATT_BUF_INIT((size_t)64 << 20), text = {0};
    struct verify_imadraft_sum sum;
    struct verify_imalist *allowed = NULL;
    make_list(ENTRIES, &list, ends);
    must(!verify_imadraft_lines(att_buf_slice(&list), NULL, &lines, &sum, NULL) &&
             !verify_imadraft_list(att_buf_slice(&lines), NULL, &text, NULL) &&
             !verify_imalist_parse(att_buf_slice(&text), &allowed, NULL),
         "the allow list");
    policy.ima.given = true;
    policy.ima.lists[0].list = allowed;
    policy.ima.n_lists = 1;
    policy.ima.templates[0] = parse_ima_template_by_name(att_slice_str("ima-ngv2"));
    policy.ima.n_templates = 1;
    judge_row(&policy, &list, 1000, ends[999], n);
    judge_row(&policy, &list, 10000, ends[9999], n / 10 + 1);
    judge_row(&policy, &list, ENTRIES, ends[ENTRIES - 1], n / 100 + 1);
    ours.n = 0;
    renewal_row(&policy, &list, ends, n / 10 + 1);
    ours.n = 0;
    BENCH_RUN(&ours, n / 100 + 1, read_list(att_buf_slice(&text)));
    bench_row("logs/allowlist-read-100000", &ours, NULL);
    fprintf(stderr, "allow list of %zu entries: %zu bytes of text, %zu in memory\n",
            verify_imalist_count(allowed), text.len, verify_imalist_memory(allowed));
    verify_imalist_free(allowed);
    att_buf_done(&list);
    return 0;
}
