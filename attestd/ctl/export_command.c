/* audit export: decisions with their proofs into a folder, one JSON document a line. What was
 * fetched is a whole file or none; a second call goes on where the last one ended. */
#include "attestd/ctl/ctl.h"

#include "attestd/base/io.h"

#include <stdio.h>
#include <string.h>

#define STATE_MAX ((size_t)4096)
#define STATE     "export.json"

struct export
{
    const struct ctl_ctx *ctx;
    const struct ctl_args *args;
    char state[4096];
    json_int_t after, decisions, files;
    char log[256]; /* "": not known yet */
};

static const char *word(const json_t *json, const char *name)
{
    const char *text = json_string_value(json_object_get(json, name));
    return text ? text : "";
}

static enum att_rc other(struct att_err *err, const char *what, const char *was, const char *is)
{
    (void)!att_fail(
        err, ATT_E_CONFLICT,
        "%s: the folder was begun with \"%.100s\", and this is \"%.100s\": take another "
        "folder",
        what, was, is);
    att_err_reason(err, "exportOther");
    return ATT_E_CONFLICT;
}

/* Where the last call ended, if there was one. Another selection would leave holes. */
static enum att_rc load(struct export *e, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(STATE_MAX);
    att_autojson *json = NULL;
    enum att_rc rc = att_io_read_file(e->state, STATE_MAX, &text, err);
    if (rc == ATT_E_NOTFOUND) {
        att_err_clear(err);
        return ATT_OK;
    }
    rc = rc ? rc : att_json_parse(att_buf_slice(&text), STATE_MAX, &json, err);
    if (rc) {
        att_err_prefix(err, "%s", e->state);
        return rc;
    }
    if (strcmp(word(json, "profile"), word(e->args->json, "profile")) != 0) {
        return other(err, "--profile", word(json, "profile"), word(e->args->json, "profile"));
    }
    e->after = json_integer_value(json_object_get(json, "after"));
    snprintf(e->log, sizeof e->log, "%s", word(json, "log"));
    return ATT_OK;
}

static enum att_rc save(const struct export *e, struct att_err *err)
{
    att_autobuf text = {0};
    att_autojson *json = json_pack("{s:s, s:s, s:I}", "log", e->log, "profile",
                                   word(e->args->json, "profile"), "after", e->after);
    enum att_rc rc = att_json_dump(json, false, &text, err);
    return rc ? rc : att_io_write_file(e->state, att_buf_slice(&text), 0600, err);
}

/* Named by the number of its first decision. */
static enum att_rc write_page(struct export *e, const json_t *proofs, struct att_err *err)
{
    char path[4096];
    att_autobuf lines = ATT_BUF_INIT((size_t)32 << 20);
    const json_t *first = json_array_get(proofs, 0);
    snprintf(path, sizeof path, "%s/%012lld.jsonl", e->args->out,
             (long long)json_integer_value(json_object_get(first, "seq")));
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; !rc && i < json_array_size(proofs); i++) {
        rc = att_json_dump(json_array_get(proofs, i), false, &lines, err);
        att_buf_u8(&lines, '\n');
    }
    rc = rc ? rc : att_buf_ok(&lines, err);
    rc = rc ? rc : att_io_write_file(path, att_buf_slice(&lines), 0600, err);
    e->decisions += (json_int_t)json_array_size(proofs);
    e->files++;
    return rc;
}

static enum att_rc take_page(struct export *e, const json_t *answer, struct att_err *err)
{
    const json_t *proofs = json_object_get(answer, "proofs");
    if (e->log[0] && strcmp(e->log, word(answer, "log")) != 0) {
        return other(err, "the audit log", e->log, word(answer, "log"));
    }
    snprintf(e->log, sizeof e->log, "%s", word(answer, "log"));
    enum att_rc rc = json_array_size(proofs) ? write_page(e, proofs, err) : ATT_OK;
    e->after = json_integer_value(json_object_get(answer, "next"));
    return rc ? rc : save(e, err);
}

static enum ctl_exit fetch(struct export *e, bool *ret_more)
{
    struct att_err err = {0};
    att_autojson *answer = NULL;
    att_autojson *args = json_deep_copy(e->args->json);
    json_object_set_new(args, "after", json_integer(e->after));
    enum ctl_exit exit = ctl_call(e->ctx, true, "audit.export", args, &answer);
    if (exit != CTL_OK) {
        return exit;
    }
    *ret_more = json_is_true(json_object_get(answer, "more"));
    return take_page(e, answer, &err) ? ctl_report(&err) : CTL_OK;
}

enum ctl_exit ctl_audit_export(const struct ctl_ctx *ctx, const struct ctl_args *args,
                               const json_t *result)
{
    struct export e = {.ctx = ctx, .args = args};
    struct att_err err = {0};
    (void)result;
    if (snprintf(e.state, sizeof e.state, "%s/" STATE, args->out) >= (int)sizeof e.state - 64) {
        fprintf(stderr, "attestctl: --out: the path is too long\n");
        return CTL_USAGE;
    }
    if (att_io_mkdirs(args->out, 0700, &err) || load(&e, &err)) {
        return ctl_report(&err);
    }
    enum ctl_exit exit = CTL_OK;
    for (bool more = true; exit == CTL_OK && more;) {
        exit = fetch(&e, &more);
    }
    if (exit == CTL_OK && ctx->json) {
        att_autojson *json = json_pack("{s:I, s:I, s:I}", "decisions", e.decisions, "files",
                                       e.files, "upTo", e.after);
        ctl_print_json(json);
    } else if (exit == CTL_OK) {
        printf("%lld decisions in %lld new files; looked at up to decision %lld\n",
               (long long)e.decisions, (long long)e.files, (long long)e.after);
    }
    return exit;
}
