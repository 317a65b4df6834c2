/* audit verify, audit check, audit why. */
#include "attestd/ctl/ctl.h"
#include "attestd/ctl/tlog.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"

#include <stdio.h>
#include <string.h>

static const char *arg(const struct ctl_args *args, const char *name)
{
    return json_string_value(json_object_get(args->json, name));
}

/* ---- verify
 * ------------------------------------------------------------------------------------- */

struct verification {
    struct tlog_key key;
    struct tlog_source source;
    struct tlog_head head, since;
    bool has_since;
    struct tlog_tpm_keys tpm; /* n 0: nobody asked for one */
    struct tlog_tpm_seen tpm_seen, tpm_since;
    uint64_t tiles;
    struct att_buf note;
};

static enum att_rc open_since(const char *file, struct verification *v, struct att_err *err)
{
    att_autobuf note = ATT_BUF_INIT(TLOG_NOTE_MAX);
    enum att_rc rc = att_io_read_file(file, TLOG_NOTE_MAX, &note, err);
    rc = rc ? rc : tlog_head_open(att_buf_slice(&note), &v->key, &v->since, err);
    if (rc) {
        att_err_prefix(err, "--since %s", file);
    }
    v->has_since = !rc;
    /* It may be older than the key that is known now. */
    if (rc || v->tpm.n == 0 || tlog_tpm_check(att_buf_slice(&note), &v->tpm, &v->tpm_since, NULL)) {
        v->tpm_since = (struct tlog_tpm_seen){.which = -1};
    }
    return rc;
}

/* A TPM's counter never goes back. */
static enum att_rc check_tpm(struct verification *v, struct att_err *err)
{
    if (v->tpm.n == 0) {
        return ATT_OK;
    }
    enum att_rc rc = tlog_tpm_check(att_buf_slice(&v->note), &v->tpm, &v->tpm_seen, err);
    if (!rc && v->has_since && v->tpm_since.which == v->tpm_seen.which &&
        v->tpm_seen.counter < v->tpm_since.counter) {
        rc = tlog_refuse(err, ATT_E_AUTH, "logCounter",
                         "the TPM's counter was %llu, and is %llu in the newer checkpoint",
                         (unsigned long long)v->tpm_since.counter,
                         (unsigned long long)v->tpm_seen.counter);
    }
    return rc;
}

static enum att_rc verify(const struct ctl_args *args, struct verification *v, struct att_err *err)
{
    enum att_rc rc = tlog_key_get(arg(args, "key"), &v->key, err);
    if (!rc && arg(args, "tpm-key")) {
        rc = tlog_tpm_keys_get(arg(args, "tpm-key"), &v->tpm, err);
    }
    if (!rc && arg(args, "since")) {
        rc = open_since(arg(args, "since"), v, err);
    }
    rc = rc ? rc : tlog_source_open(arg(args, "source"), arg(args, "ca"), &v->source, err);
    rc = rc ? rc : tlog_source_get(&v->source, "checkpoint", TLOG_NOTE_MAX, &v->note, err);
    rc = rc ? rc : tlog_head_open(att_buf_slice(&v->note), &v->key, &v->head, err);
    rc = rc ? rc : check_tpm(v, err);
    rc = rc ? rc
            : tlog_verify(&v->source, &v->head, v->has_since ? &v->since : NULL, &v->tiles, err);
    if (!rc && arg(args, "save")) {
        rc = att_io_write_file(arg(args, "save"), att_buf_slice(&v->note), 0644, err);
    }
    return rc;
}

static void tell(const struct ctl_ctx *ctx, const struct verification *v)
{
    att_autobuf root = {0};
    att_buf_b64(&root, ATT_SLICE_ARRAY(v->head.root));
    const char *text = att_buf_cstr(&root);
    if (ctx->json) {
        att_autojson *json =
            json_pack("{s:s, s:I, s:s, s:I}", "log", v->head.origin, "size",
                      (json_int_t)v->head.size, "root", text, "tiles", (json_int_t)v->tiles);
        if (v->tpm.n) {
            json_object_set_new(json, "tpmCounter", json_integer((json_int_t)v->tpm_seen.counter));
        }
        if (v->has_since) {
            json_object_set_new(json, "since", json_integer((json_int_t)v->since.size));
        }
        ctl_print_json(json);
        return;
    }
    printf("log %s: signed; its %llu decisions give the root %s; %llu tiles are as they must be\n",
           v->head.origin, (unsigned long long)v->head.size, text ? text : "",
           (unsigned long long)v->tiles);
    if (v->tpm.n) {
        printf("signed by the TPM, too; its counter is %llu\n",
               (unsigned long long)v->tpm_seen.counter);
    }
    if (v->has_since) {
        printf("it continues the checkpoint of %llu decisions\n",
               (unsigned long long)v->since.size);
    }
}

enum ctl_exit ctl_audit_verify(const struct ctl_ctx *ctx, const struct ctl_args *args,
                               const json_t *result)
{
    struct att_err err = {0};
    struct verification v = {.note = ATT_BUF_INIT(TLOG_NOTE_MAX)};
    (void)result;
    if (!arg(args, "source")) { /* the issuer's own look at its database */
        att_autojson *answer = NULL, *none = json_object();
        if (json_object_size(args->json)) {
            fprintf(
                stderr,
                "attestctl: --key, --tpm-key, --since, --save, --ca: of a log, which is missing "
                "(a folder or an https address)\n");
            return CTL_USAGE;
        }
        enum ctl_exit rc = ctl_call(ctx, true, "audit.verify", none, &answer);
        if (rc == CTL_OK && ctx->json) {
            ctl_print_json(answer);
        } else if (rc == CTL_OK) {
            ctl_print_object(answer, 0);
        }
        return rc;
    }
    if (!arg(args, "key")) {
        fprintf(stderr, "attestctl: --key is missing: the log's verifier key (ca/log.vkey)\n");
        return CTL_USAGE;
    }
    enum att_rc rc = verify(args, &v, &err);
    if (!rc) {
        tell(ctx, &v);
    }
    tlog_source_close(&v.source);
    att_buf_done(&v.note);
    return rc ? ctl_report(&err) : CTL_OK;
}

/* ---- check
 * -------------------------------------------------------------------------------------- */

static void tell_proof(const struct ctl_ctx *ctx, const struct tlog_proof *proof,
                       const struct tlog_head *head)
{
    if (ctx->json) {
        att_autojson *json =
            json_pack("{s:s, s:I, s:I, s:b}", "log", head->origin, "seq", (json_int_t)proof->seq,
                      "size", (json_int_t)head->size, "record", proof->has_record ? 1 : 0);
        ctl_print_json(json);
    } else {
        printf("decision %llu is in the log %s of %llu decisions%s\n",
               (unsigned long long)proof->seq, head->origin, (unsigned long long)head->size,
               proof->has_record ? ", and is this record" : "; its record is not shown");
    }
}

struct keys {
    struct tlog_key key;
    struct tlog_tpm_keys tpm;
};

static enum att_rc check_one(const struct ctl_ctx *ctx, struct att_slice text,
                             const struct keys *keys, struct att_err *err)
{
    struct tlog_proof proof = {0};
    struct tlog_head head;
    struct tlog_tpm_seen seen;
    enum att_rc rc = tlog_proof_parse(text, &proof, err);
    rc = rc ? rc : tlog_proof_check(&proof, &keys->key, &head, err);
    if (!rc && keys->tpm.n) {
        rc = tlog_tpm_check(att_buf_slice(&proof.checkpoint), &keys->tpm, &seen, err);
    }
    if (!rc) {
        tell_proof(ctx, &proof, &head);
    }
    tlog_proof_done(&proof);
    return rc;
}

/* One line, one proof. */
static enum att_rc check_lines(const struct ctl_ctx *ctx, const char *text, const struct keys *keys,
                               struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    for (unsigned line = 1; !rc && *text; line++) {
        size_t len = strcspn(text, "\n");
        rc = check_one(ctx, ATT_SLICE(text, len), keys, err);
        if (rc) {
            att_err_prefix(err, "line %u", line);
        }
        text += len + (text[len] != 0);
    }
    return rc;
}

enum ctl_exit ctl_audit_check(const struct ctl_ctx *ctx, const struct ctl_args *args,
                              const json_t *result)
{
    struct att_err err = {0};
    struct keys keys = {.tpm.n = 0};
    const char *text = arg(args, "text"), *end = strrchr(args->file, '.');
    (void)result;
    enum att_rc rc = tlog_key_get(arg(args, "key"), &keys.key, &err);
    if (!rc && arg(args, "tpm-key")) {
        rc = tlog_tpm_keys_get(arg(args, "tpm-key"), &keys.tpm, &err);
    }
    if (!rc) {
        rc = end && strcmp(end, ".jsonl") == 0 ? check_lines(ctx, text, &keys, &err)
                                               : check_one(ctx, att_slice_str(text), &keys, &err);
    }
    return rc ? ctl_report(&err) : CTL_OK;
}

/* ---- why
 * ---------------------------------------------------------------------------------------- */

static const char *outcome_word(const char *outcome)
{
    return strcmp(outcome, "granted") == 0   ? "was granted"
           : strcmp(outcome, "refused") == 0 ? "was refused"
                                             : "is recorded";
}

static void say_what(const json_t *audit, const json_t *record)
{
    char seq[32], at[32], kind[32], outcome[32], reason[256], detail[400], subject[256];
    const char *safe = ctl_text(record, "kind", kind, sizeof kind);
    const char *k = json_string_value(json_object_get(record, "kind"));
    const char *what = !k                          ? "an erased decision"
                       : strcmp(k, "issue") == 0   ? "a certificate"
                       : strcmp(k, "enrol") == 0   ? "enrolment"
                       : strcmp(k, "revoke") == 0  ? "a revocation"
                       : strcmp(k, "account") == 0 ? "an account"
                                                   : safe;
    printf("#%s %s: %s for %s %s", ctl_text(audit, "seq", seq, sizeof seq),
           ctl_text(audit, "at", at, sizeof at), what,
           ctl_text(record, "subject", subject, sizeof subject),
           outcome_word(ctl_text(record, "outcome", outcome, sizeof outcome)));
    if (json_object_get(record, "reason")) {
        printf(", because of %s", ctl_text(record, "reason", reason, sizeof reason));
    }
    if (json_object_get(record, "detail")) {
        printf(": %s", ctl_text(record, "detail", detail, sizeof detail));
    }
    puts(".");
}

/* By what it was judged; of what is no verdict, whom it is about. */
static void say_basis(const json_t *record)
{
    static const struct {
        const char *member, *before;
    } facts[] = {{"host", "host "},
                 {"profile", "profile "},
                 {"boot", "boot policy "},
                 {"policyVersion", "version "},
                 {"mode", "mode "},
                 {"keyStore", "key in "},
                 {"entryVersion", "entry version "},
                 {"order", "order "},
                 {"serial", "serial "},
                 {"since", "the host since its last enrolment: "}};
    const char *outcome = json_string_value(json_object_get(record, "outcome"));
    bool verdict = outcome && (strcmp(outcome, "granted") == 0 || strcmp(outcome, "refused") == 0);
    const char *comma = verdict ? "    Judged by: " : "    About: ";
    for (size_t i = 0; i < sizeof facts / sizeof facts[0]; i++) {
        char cell[256];
        const json_t *value = json_object_get(record, facts[i].member);
        if (!value || (json_is_string(value) && !json_string_length(value))) {
            continue;
        }
        printf("%s%s%s", comma, facts[i].before,
               ctl_text(record, facts[i].member, cell, sizeof cell));
        comma = ", ";
    }
    if (comma[0] == ',') {
        puts(".");
    }
}

/* The rule, the component and PCR, and the value that was found. */
static void say_findings(const json_t *findings)
{
    for (size_t i = 0; i < json_array_size(findings); i++) {
        const json_t *f = json_array_get(findings, i);
        char id[64], severity[32], component[128], pcr[16], log[32], event[16], detail[400],
            remedy[400];
        printf("    Rule %s (%s)", ctl_text(f, "id", id, sizeof id),
               ctl_text(f, "severity", severity, sizeof severity));
        if (json_object_get(f, "component")) {
            printf(", component %s", ctl_text(f, "component", component, sizeof component));
        }
        if (json_object_get(f, "pcr")) {
            printf(", PCR %s", ctl_text(f, "pcr", pcr, sizeof pcr));
        }
        if (json_object_get(f, "log")) {
            printf(", event %s of the %s log", ctl_text(f, "event", event, sizeof event),
                   ctl_text(f, "log", log, sizeof log));
        }
        printf(": %s. What helps: %s\n", ctl_text(f, "detail", detail, sizeof detail),
               ctl_text(f, "remedy", remedy, sizeof remedy));
    }
}

/* Checks of one outcome: those that passed by name, the others each with its sentence. */
static void say_checks(const json_t *checks, const char *outcome, const char *sentence)
{
    size_t n = 0;
    bool by_name = strcmp(outcome, "pass") == 0 || strcmp(outcome, "notReached") == 0;
    for (size_t i = 0; i < json_array_size(checks); i++) {
        const json_t *check = json_array_get(checks, i);
        char name[64], detail[400], is[32];
        if (strcmp(ctl_text(check, "outcome", is, sizeof is), outcome) != 0) {
            continue;
        }
        const char *word = ctl_text(check, "check", name, sizeof name);
        if (by_name) {
            printf("%s%s", n ? ", " : sentence, word);
        } else {
            printf("%s%s: %s.\n", sentence, word, ctl_text(check, "detail", detail, sizeof detail));
        }
        n++;
    }
    if (n && by_name) {
        puts(".");
    }
}

enum ctl_exit ctl_why_show(const struct ctl_ctx *ctx, const struct ctl_args *args,
                           const json_t *result)
{
    const json_t *records = json_object_get(result, "records");
    (void)args;
    if (ctx->json) {
        ctl_print_json(result);
        return CTL_OK;
    }
    for (size_t i = 0; i < json_array_size(records); i++) {
        const json_t *audit = json_array_get(records, i);
        const json_t *record = json_object_get(audit, "record");
        const json_t *verdict = json_object_get(record, "verdict");
        const json_t *checks = json_object_get(verdict, "checks");
        say_what(audit, record);
        say_basis(record);
        say_checks(checks, "fail", "    This check failed: ");
        say_findings(json_object_get(verdict, "findings"));
        say_checks(checks, "skip", "    Not judged: ");
        say_checks(checks, "notReached", "    Not looked at any more: ");
        say_checks(checks, "pass", "    Passed: ");
    }
    return CTL_OK;
}
