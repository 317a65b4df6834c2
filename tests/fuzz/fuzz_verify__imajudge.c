/* IMA's list from a host, judged by an ima rule with a key for file signatures: what was judged in
 * one piece is what is judged in two. */
#include "provision/verify/draft.h"
#include "provision/verify/imajudge.h"

#include <openssl/ec.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char list_text[] =
    VERIFY_IMALIST_HEADER "sha256:3d9f2889d6782537624a4e1a10e68a2ddd53e0ee8bac02676f27308f42ec6bf6 "
                          "/bin/busybox\n";

static struct verify_policy *policy_new(void)
{
    struct verify_policy *policy = calloc(1, sizeof(*policy));
    struct verify_imalist *list = NULL;
    if (!policy || verify_imalist_parse(att_slice_str(list_text), &list, NULL)) {
        abort();
    }
    policy->ima.given = true;
    policy->ima.n_lists = 1;
    policy->ima.lists[0].list = list;
    policy->ima.templates[0] = parse_ima_template_by_name(att_slice_str("ima-ngv2"));
    policy->ima.templates[1] = parse_ima_template_by_name(att_slice_str("ima-sig"));
    policy->ima.n_templates = 2;
    policy->ima.keys[0].key = EVP_EC_gen("P-256");
    policy->ima.n_keys = 1; /* of key id 00000000 */
    policy->ima.excludes[0] =
        (struct verify_ima_exclude){.prefix = "/mnt/", .reason = "r", .len = 5};
    policy->ima.n_excludes = 1;
    return policy;
}

static struct verify_verdict *judge(struct att_slice ima, const struct evidence_log *log,
                                    struct verify_memo *memo)
{
    static struct verify_policy *policy;
    char sum[VERIFY_IMAJUDGE_SUM_MAX];
    struct verify_verdict *verdict = verify_verdict_new();
    policy = policy ? policy : policy_new();
    const struct verify_policy_in in = {
        .policy = policy, .now = 1, .ima = ima, .ima_log = log, .memo = memo};
    if (!verdict) {
        abort();
    }
    verify_ima_judge(&in, sum, verdict);
    return verdict;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    struct parse_ima_entry entry;
    struct att_slice whole = ATT_SLICE(data, size);
    struct evidence_log first = {.has_data = true}, all = {.has_data = true, .has_base = true};
    if (size == 0 || parse_ima_init(&list, whole, NULL) || parse_ima_next(&list, &entry, NULL)) {
        return 0;
    }
    att_buf_put(&first.data, data, list.pos);
    att_buf_put_slice(&all.data, whole);
    att_sha256(first.sha256, att_buf_slice(&first.data));
    att_sha256(all.sha256, whole);
    memcpy(all.base_sha256, first.sha256, sizeof(all.base_sha256));
    struct verify_memo *memo = verify_memo_new(2);
    verify_autoverdict *once = judge(whole, &all, NULL);
    verify_autoverdict *begun = judge(att_buf_slice(&first.data), &first, memo);
    if (begun->n_refusing > once->n_refusing) {
        abort();
    }
    verify_autoverdict *gone_on = judge(whole, &all, memo);
    if (once->n_refusing != gone_on->n_refusing || once->n_findings != gone_on->n_findings ||
        verify_verdict_failed(once) != verify_verdict_failed(gone_on)) {
        abort();
    }
    verify_memo_free(memo);
    att_buf_done(&first.data);
    att_buf_done(&all.data);
    return 0;
}
