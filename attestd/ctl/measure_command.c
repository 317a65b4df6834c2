/* attestctl measure --out FILE: a reference policy of one good boot, drafted and then held against
 * that boot before it is written. */
#include "attestd/ctl/source.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "provision/verify/draft.h"
#include "provision/verify/imadraft.h"
#include "tpm/parse/eventlog.h"

#include <openssl/rand.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BOOT_PCRS "sha256:0,1,2,3,4,5,6,7,8,9,11,12,13,14"

static const char *arg(const struct ctl_args *args, const char *name)
{
    return json_string_value(json_object_get(args->json, name));
}

/* This host's boot: attestd has it quoted. */
static enum ctl_exit ask_host(const struct ctl_ctx *ctx, const struct ctl_args *args,
                              struct ctl_source *ret)
{
    uint8_t nonce[20];
    char hex[2 * sizeof nonce + 1];
    const char *pcrs = arg(args, "pcrs");
    struct att_err err = {0};
    if (RAND_bytes(nonce, sizeof nonce) != 1) {
        (void)att_fail_openssl(&err, ATT_E_CRYPTO, "no random bytes");
        return ctl_report(&err);
    }
    att_hex(hex, ATT_SLICE_ARRAY(nonce));
    att_autojson *asked = json_pack("{s:s, s:s}", "nonce", hex, "pcrs", pcrs ? pcrs : BOOT_PCRS),
                 *result = NULL;
    enum ctl_exit exit_code = ctl_call(ctx, false, "quote", asked, &result);
    if (exit_code == CTL_OK &&
        ctl_source_from_quote(json_object_get(result, "files"), ret, &err) != ATT_OK) {
        return ctl_report(&err);
    }
    return exit_code;
}

/* The host's name, as far as a policy's may be like that. */
static void default_name(char ret[VERIFY_POLICY_NAME_MAX + 1])
{
    char host[256] = "";
    (void)gethostname(host, sizeof host - 1);
    snprintf(ret, VERIFY_POLICY_NAME_MAX + 1, "boot-%.40s", host[0] ? host : "host");
    for (char *c = ret; *c; c++) {
        *c = *c >= 'A' && *c <= 'Z' ? (char)(*c + 32) : *c;
        if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789._-", *c)) {
            *c = '-';
        }
    }
}

/* PCRs with events that were not asked for are left open, and said so. */
static uint32_t others(const struct ctl_source *source)
{
    const struct evidence_log *log = evidence_logs_find(&source->logs, "firmware");
    struct parse_eventlog_pcrs pcrs;
    if (!log ||
        parse_eventlog_replay(att_buf_slice(&log->data), source->pcrs.sel.bank, &pcrs, NULL)) {
        return 0;
    }
    return (pcrs.with_events & ~source->pcrs.sel.mask) & 0xffffffU;
}

/* --allowlist OUT: of what IMA's list has, written beside the policy that names it. */
static enum att_rc draft_allowlist(const char *path, const struct ctl_source *source,
                                   const char *const *excludes, struct verify_imalist **ret,
                                   struct att_err *err)
{
    const struct evidence_log *ima = evidence_logs_find(&source->logs, "ima");
    att_autobuf lines = ATT_BUF_INIT(VERIFY_IMALIST_BYTES_MAX), text = {0};
    struct verify_imadraft_sum sum = {0};
    if (!path) {
        return ATT_OK;
    }
    if (!ima || !ima->data.len || !(source->pcrs.sel.mask & VERIFY_PCRS_IMA)) {
        return att_fail(err, ATT_E_INVAL,
                        "--allowlist: there is no list of IMA, or PCR 10 is not among the PCRs "
                        "(--pcrs sha256:…,10)");
    }
    enum att_rc rc = verify_imadraft_lines(att_buf_slice(&ima->data), excludes, &lines, &sum, err);
    rc = rc ? rc : verify_imadraft_list(att_buf_slice(&lines), NULL, &text, err);
    rc = rc ? rc : verify_imalist_parse(att_buf_slice(&text), ret, err);
    return rc ? rc : att_io_write_file(path, att_buf_slice(&text), 0644, err);
}

static enum att_rc write_draft(const struct ctl_ctx *ctx, const struct ctl_args *args,
                               const struct ctl_source *source, struct att_err *err)
{
    char name[VERIFY_POLICY_NAME_MAX + 1];
    verify_autoverdict *verdict = verify_verdict_new();
    verify_autopolicy *policy = NULL;
    att_autobuf json = {0};
    json_int_t version = json_integer_value(json_object_get(args->json, "version"));
    default_name(name);
    if (version < 0 || version > INT32_MAX) {
        return att_fail(err, ATT_E_INVAL, "--version: expected 1-%d", INT32_MAX);
    }
    char excluded[4096] = "";
    const char *excludes[CTL_EXCLUDES_MAX + 1] = {NULL};
    verify_autoimalist *allowlist = NULL;
    snprintf(excluded, sizeof excluded, "%s", arg(args, "exclude") ? arg(args, "exclude") : "");
    enum att_rc rc = ctl_excludes(excluded, excludes, err);
    rc = rc ? rc : draft_allowlist(arg(args, "allowlist"), source, excludes, &allowlist, err);
    if (rc) {
        return rc;
    }
    const struct verify_draft_in in = {.name = arg(args, "name") ? arg(args, "name") : name,
                                       .version = version ? (uint32_t)version : 1,
                                       .pcrs = &source->pcrs,
                                       .unjudged = others(source),
                                       .logs = &source->logs,
                                       .now = att_now_utc_s(),
                                       .allowlist = allowlist,
                                       .excludes = excludes};
    rc = verdict ? verify_policy_draft(&in, &json, verdict, err) : ATT_E_NOMEM;
    rc = rc ? rc : verify_policy_parse(att_buf_slice(&json), &policy, err);
    rc = rc ? rc : att_io_write_file(args->out, att_buf_slice(&json), 0644, err);
    if (rc) {
        return rc;
    }
    if (ctx->json) {
        att_autojson *said =
            json_pack("{s:s, s:s, s:i, s:I, s:b}", "file", args->out, "name", policy->name,
                      "version", (int)policy->version, "components",
                      (json_int_t)policy->components.n, "replayed", source->replayed);
        ctl_print_json(said);
        return ATT_OK;
    }
    printf("%s: policy %s version %u, %zu components, held against this boot: it passes%s\n",
           args->out, policy->name, policy->version, policy->components.n,
           source->replayed ? " (PCR values are those of the log: no TPM was asked)" : "");
    printf("A draft: what differs between two good boots has to be loosened by hand, then\n"
           "  attestctl policy sign %s --key KEY.pem --out FILE && attestctl policy apply FILE\n",
           args->out);
    return ATT_OK;
}

enum ctl_exit ctl_measure_run(const struct ctl_ctx *ctx, const struct ctl_args *args,
                              const json_t *result)
{
    (void)result;
    ATT_CLEANUP(ctl_source_done) struct ctl_source source = {0};
    struct att_err err = {0};
    const char *from = arg(args, "from");
    if (!from) {
        enum ctl_exit exit_code = ask_host(ctx, args, &source);
        if (exit_code != CTL_OK) {
            return exit_code;
        }
    } else {
        err.rc = ctl_source_read(from, arg(args, "values"), arg(args, "pcrs"), &source, &err);
        if (err.rc) {
            return ctl_report(&err);
        }
    }
    enum att_rc rc = write_draft(ctx, args, &source, &err);
    if (rc) {
        err.rc = rc;
        return ctl_report(&err);
    }
    return CTL_OK;
}
