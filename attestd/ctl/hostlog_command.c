/* hostlog verify: a host's own log against the heads that the issuer's log holds. */
#include "attestd/ctl/ctl.h"
#include "attestd/ctl/hostlog.h"
#include "attestd/ctl/tlog.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROOF_MAX ((size_t)8 << 20)

static const char *arg(const struct ctl_args *args, const char *name)
{
    return json_string_value(json_object_get(args->json, name));
}

/* A file that `audit prove` wrote: believed once its proof leads to a checkpoint of this key. */
static enum att_rc take_proof(const char *path, const struct tlog_key *key,
                              struct hostlog_anchor *ret_anchor, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(PROOF_MAX);
    struct tlog_proof proof = {0};
    struct tlog_head head;
    enum att_rc rc = att_io_read_file(path, PROOF_MAX, &text, err);
    rc = rc ? rc : tlog_proof_parse(att_buf_slice(&text), &proof, err);
    rc = rc ? rc : tlog_proof_check(&proof, key, &head, err);
    if (!rc) {
        rc = hostlog_anchor_parse(att_buf_slice(&proof.record), att_buf_slice(&proof.leaf),
                                  ret_anchor, err);
    }
    tlog_proof_done(&proof);
    if (rc) {
        att_err_prefix(err, "%s", path);
    }
    return rc;
}

static enum att_rc take_anchors(const struct ctl_args *args, struct hostlog_anchor *anchors,
                                size_t *ret_n, struct att_err *err)
{
    const json_t *paths = json_object_get(args->json, "proofs");
    size_t n = 0;
    struct tlog_key key;
    enum att_rc rc = arg(args, "key") ? tlog_key_get(arg(args, "key"), &key, err) : ATT_OK;
    for (size_t i = 0; !rc && i < json_array_size(paths); i++) {
        if (n + 1 >= HOSTLOG_ANCHORS_MAX) {
            return att_fail(err, ATT_E_LIMIT, "more than %d proofs", HOSTLOG_ANCHORS_MAX - 1);
        }
        rc = take_proof(json_string_value(json_array_get(paths, i)), &key, &anchors[n++], err);
    }
    if (!rc && arg(args, "head")) {
        rc = att_unhex_exact(anchors[n].head, ATT_SHA256_LEN, arg(args, "head"), err);
        if (rc) {
            att_err_prefix(err, "--head");
        }
        n++;
    }
    *ret_n = n;
    return rc;
}

static void tell(const struct ctl_ctx *ctx, const struct hostlog_facts *facts,
                 const struct hostlog_anchor *anchors, size_t n)
{
    char head[2 * ATT_SHA256_LEN + 1], at[ATT_TIME_TEXT_LEN];
    att_hex(head, ATT_SLICE_ARRAY(facts->head));
    att_time_text(at, facts->last_at);
    if (ctx->json) {
        json_t *list = json_array();
        for (size_t i = 0; i < n; i++) {
            json_array_append_new(list, json_pack("{s:I, s:s, s:I}", "decision",
                                                  (json_int_t)anchors[i].decision, "host",
                                                  anchors[i].host, "record",
                                                  (json_int_t)anchors[i].found_seq));
        }
        att_autojson *json =
            json_pack("{s:I, s:I, s:s, s:s, s:I, s:o}", "first", (json_int_t)facts->first, "last",
                      (json_int_t)facts->last, "lastAt", at, "head", head, "missed",
                      (json_int_t)facts->missed, "anchors", list);
        ctl_print_json(json);
        return;
    }
    printf("records %llu to %llu (%s) follow one another; head %s\n",
           (unsigned long long)facts->first, (unsigned long long)facts->last, at, head);
    for (size_t i = 0; i < n; i++) {
        if (anchors[i].found_seq) {
            printf("the head of record %llu is held by decision %llu\n",
                   (unsigned long long)anchors[i].found_seq,
                   (unsigned long long)anchors[i].decision);
        } else {
            printf("decision %llu is older than what the log has kept\n",
                   (unsigned long long)anchors[i].decision);
        }
    }
    if (facts->missed) {
        printf("%llu records could not be written at their time: the log says so\n",
               (unsigned long long)facts->missed);
    }
}

enum ctl_exit ctl_hostlog_verify(const struct ctl_ctx *ctx, const struct ctl_args *args,
                                 const json_t *result)
{
    struct att_err err = {0};
    struct hostlog_facts facts;
    size_t n = 0;
    (void)result;
    if (json_array_size(json_object_get(args->json, "proofs")) && !arg(args, "key")) {
        fprintf(stderr, "attestctl: --key is missing: the log's verifier key (ca/log.vkey), by "
                        "which the proofs are checked\n");
        return CTL_USAGE;
    }
    struct hostlog_anchor *anchors = calloc(HOSTLOG_ANCHORS_MAX, sizeof *anchors);
    enum att_rc rc = anchors ? take_anchors(args, anchors, &n, &err)
                             : att_fail(&err, ATT_E_NOMEM, "no memory for proofs");
    rc = rc ? rc
            : hostlog_verify(arg(args, "dir"), anchors, n,
                             json_is_true(json_object_get(args->json, "allowDropped")), &facts,
                             &err);
    if (!rc) {
        tell(ctx, &facts, anchors, n);
    }
    free(anchors);
    return rc ? ctl_report(&err) : CTL_OK;
}
