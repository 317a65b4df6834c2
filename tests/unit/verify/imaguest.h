/* A guest's IMA list (tests/vectors/ima) with the policy that measure drafts of it, for tests that
 * change one thing and judge. */
#ifndef ATTESTD_TESTS_IMAGUEST_H
#define ATTESTD_TESTS_IMAGUEST_H

#include "tests/unit/verify/harness.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/base/json.h"
#include "provision/verify/draft.h"
#include "provision/verify/imadraft.h"
#include "tests/support/imalist.h"

#include <stdlib.h>

#define MASK 0x47ffU      /* 0-10, 14 */
#define LATE 1796000000LL /* the time of judging */

struct guest {
    struct att_buf firmware, ima;
    size_t signed_len, base;
    struct parse_pcr_set quoted;
    struct verify_imalist *allowed;
    struct verify_memo *memo;
    json_t *policy;
    enum verify_mode mode;
    int64_t now; /* of judging; 0: LATE */
};

static inline void load(const char *name, struct att_buf *ret)
{
    char path[4300];
    const char *root = getenv("ATT_VECTORS");
    (void)snprintf(path, sizeof(path), "%s/ima/%s", root ? root : "tests/vectors", name);
    assert_int_equal(att_io_read_file(path, (size_t)4 << 20, ret, NULL), ATT_OK);
}

/* PCR 10 as a TPM has it after this list. */
static inline void settle(struct guest *g)
{
    struct parse_ima_pcrs pcrs;
    const struct parse_ima_replay how = {.bank = PARSE_ALG_SHA256, .at_least = SIZE_MAX};
    assert_int_equal(parse_ima_replay(att_buf_slice(&g->ima), &how, &pcrs, NULL), ATT_OK);
    memcpy(g->quoted.value[10], pcrs.value[10], 32);
}

static inline struct verify_imalist *list_of(const char *text)
{
    struct verify_imalist *list = NULL;
    struct att_err err = {0};
    if (verify_imalist_parse(att_slice_str(text), &list, &err)) {
        fail_msg("%s", err.msg);
    }
    return list;
}

static inline void logs_of(const struct guest *g, struct evidence_logs *logs)
{
    size_t n = g->signed_len < g->ima.len ? g->signed_len : g->ima.len;
    assert_int_equal(evidence_logs_add(logs, "firmware", att_buf_slice(&g->firmware), NULL),
                     ATT_OK);
    assert_int_equal(evidence_logs_add(logs, "ima", ATT_SLICE(g->ima.ptr, n), NULL), ATT_OK);
    if (n < g->ima.len) {
        struct att_slice tail = ATT_SLICE(g->ima.ptr + n, g->ima.len - n);
        assert_int_equal(evidence_logs_set_tail(logs, "ima", tail, NULL), ATT_OK);
    }
    if (g->base) {
        uint8_t digest[ATT_SHA256_LEN];
        att_sha256(digest, ATT_SLICE(g->ima.ptr, g->base));
        assert_int_equal(evidence_logs_set_base(logs, "ima", g->base, digest, NULL), ATT_OK);
    }
}

/* The policy that measure drafts of this guest, with the list of what IMA has. */
static inline void draft(struct guest *g)
{
    struct evidence_logs logs = {0};
    struct att_err err = {0};
    att_autobuf lines = {0}, text = {0}, json = {0};
    verify_autoverdict *verdict = verify_verdict_new();
    struct verify_imadraft_sum sum;
    assert_int_equal(verify_imadraft_lines(att_buf_slice(&g->ima), NULL, &lines, &sum, NULL),
                     ATT_OK);
    assert_int_equal(verify_imadraft_list(att_buf_slice(&lines), NULL, &text, NULL), ATT_OK);
    g->allowed = list_of(att_buf_cstr(&text));
    logs_of(g, &logs);
    const struct verify_draft_in in = {.name = "guest",
                                       .version = 1,
                                       .pcrs = &g->quoted,
                                       .logs = &logs,
                                       .now = LATE,
                                       .allowlist = g->allowed};
    if (verify_policy_draft(&in, &json, verdict, &err)) {
        print_verdict(verdict);
        fail_msg("draft: %s", err.msg);
    }
    assert_int_equal(att_json_parse(att_buf_slice(&json), json.len, &g->policy, NULL), ATT_OK);
    evidence_logs_done(&logs);
}

static inline void guest_new(struct guest *g, size_t entries)
{
    att_autobuf text = {0};
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    struct parse_ima_entry entry;
    memset(g, 0, sizeof(*g));
    g->signed_len = SIZE_MAX;
    load("eventlog.bin", &g->firmware);
    load("ima.bin", &g->ima);
    load("pcrs.json", &text);
    assert_int_equal(parse_pcr_set_parse(att_buf_slice(&text), NULL, &g->quoted, NULL), ATT_OK);
    g->quoted.sel.mask = MASK;
    assert_int_equal(parse_ima_init(&list, att_buf_slice(&g->ima), NULL), ATT_OK);
    for (size_t i = 0; i < entries; i++) {
        assert_int_equal(parse_ima_next(&list, &entry, NULL), ATT_OK);
    }
    g->ima.len = list.pos;
    settle(g);
    draft(g);
}

static inline void guest_done(struct guest *g)
{
    att_buf_done(&g->firmware);
    att_buf_done(&g->ima);
    verify_imalist_free(g->allowed);
    verify_memo_free(g->memo);
    json_decref(g->policy);
}

static inline json_t *rule(const struct guest *g)
{
    return json_object_get(g->policy, "ima");
}

static inline void add_entry(struct guest *g, const struct imalist_entry *entry)
{
    imalist_binary(entry, &g->ima);
    settle(g);
}

static inline void add(struct guest *g, const char *tmpl, const char *prefix, const char *name,
                       char byte)
{
    uint8_t digest[64];
    memset(digest, byte, sizeof(digest));
    const struct imalist_entry entry = {.tmpl = tmpl,
                                        .prefix = prefix,
                                        .file =
                                            ATT_SLICE(digest, !prefix || strstr(prefix, "sha1") ? 20
                                                              : strstr(prefix, "sha512")        ? 64
                                                                                         : 32),
                                        .name = name};
    add_entry(g, &entry);
}

static inline struct verify_verdict *judge_with(const struct guest *g,
                                                struct verify_imalist *second)
{
    struct evidence_logs logs = {0};
    struct verify_verdict *verdict = verify_verdict_new();
    char *text = json_dumps(g->policy, 0);
    struct att_err err = {0};
    verify_autopolicy *policy = NULL;
    if (verify_policy_parse(att_slice_str(text), &policy, &err)) {
        fail_msg("policy: %s", err.msg);
    }
    free(text);
    verify_imarule_bind(&policy->ima, g->allowed);
    if (second) {
        verify_imarule_bind(&policy->ima, second);
    }
    logs_of(g, &logs);
    const struct verify_policy_in in = {.policy = policy,
                                        .now = g->now ? g->now : LATE,
                                        .quoted = &g->quoted,
                                        .mode = g->mode,
                                        .memo = g->memo};
    (void)!verify_policy_try(&in, &logs, policy->logs, verdict);
    evidence_logs_done(&logs);
    return verdict;
}

static inline void good(const struct guest *g, const char *says)
{
    verify_autoverdict *verdict = judge_with(g, NULL);
    assert_accepted(verdict, says);
    const struct verify_check *check = find_check(verdict, VERIFY_REASON_BOOT_POLICY);
    if (!strstr(check->detail, says)) {
        fail_msg("\"%s\" does not say \"%s\"", check->detail, says);
    }
}

/* Exactly one finding refuses: this, saying that; and it is why the boot is refused. */
static inline void bad(const struct guest *g, enum verify_finding_id id, const char *says)
{
    verify_autoverdict *verdict = judge_with(g, NULL);
    assert_refused(verdict, VERIFY_REASON_BOOT_POLICY, says);
    const struct verify_finding *finding = &verdict->findings[0];
    if (verdict->n_refusing != 1 || finding->id != id || !strstr(finding->detail, says) ||
        strcmp(finding->component, "ima") != 0 || strcmp(finding->log, "ima") != 0 ||
        !finding->remedy[0]) {
        print_verdict(verdict);
        fail_msg("expected %s saying \"%s\"", verify_finding_word(id), says);
    }
}

#endif
