#include "attestd/scan/internal.h"

#include "attestd/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEEN_SLOTS  ((size_t)1 << 17)
#define MATCHES_MAX 1024
#define BINARY_LOOK 8192
#define OVERRIDE    1024 /* findings that an assignment looks back at */

bool scan_first(struct scan_seen *seen, const struct stat *st)
{
    size_t at = (size_t)(st->st_ino * 0x9e3779b97f4a7c15u ^ st->st_dev) % SEEN_SLOTS;
    while (seen->slots[at].ino) {
        if (seen->slots[at].ino == st->st_ino && seen->slots[at].dev == st->st_dev) {
            return false;
        }
        at = (at + 1) % SEEN_SLOTS;
    }
    if (seen->n < SEEN_SLOTS / 2) {
        seen->n++;
        seen->slots[at].ino = st->st_ino;
        seen->slots[at].dev = st->st_dev;
    }
    return true;
}

void scan_skipped(struct scan_ctx *ctx, const struct scan_root *root, const char *path,
                  enum scan_skip why)
{
    char shown[SCAN_PATH_MAX];
    if (why != SCAN_SKIPS) {
        scan_findings_skip(ctx->findings, why, scan_show(root, path, shown) ? shown : root->at, 0);
    }
}

/* ---- what a parser hands over ---- */

static bool listed(const char *names, struct att_slice name)
{
    for (const char *at = names; at && *at;) {
        size_t len = strcspn(at, " ");
        if (name.len == len && memcmp(name.ptr, at, len) == 0) {
            return true;
        }
        at += len + (at[len] ? 1 : 0);
    }
    return false;
}

static bool in_unit(const struct scan_ctx *ctx)
{
    return ctx->place->format == SCAN_UNIT && ctx->place->unit && !ctx->place->shadowed;
}

/* What this unit's earlier files said under at, and under name, is not in force any more. */
static void override(struct scan_ctx *ctx, const char *at, const char *name)
{
    struct scan_findings *f = ctx->findings;
    size_t from = f->n > OVERRIDE ? f->n - OVERRIDE : 0;
    for (size_t i = from > ctx->unit_from ? from : ctx->unit_from; i < f->n; i++) {
        struct scan_finding *it = &f->list[i];
        if (it->source == SCAN_SRC_UNIT && strcmp(it->at, at) == 0 &&
            (!name || strcmp(it->name, name) == 0)) {
            it->overridden = true;
        }
    }
}

static void take(void *user, const struct scan_pair *pair)
{
    struct scan_ctx *ctx = user;
    const struct scan_place *place = ctx->place;
    struct att_slice name = pair->name;
    if (place->format == SCAN_WHOLE && place->name) {
        name = att_slice_str(place->name);
    }
    bool field = listed(place->names, name) || (place->format == SCAN_WHOLE && place->kind);
    struct scan_verdict verdict =
        field ? scan_judge_field(name, pair->value, place->kind) : scan_judge(name, pair->value);
    bool environment = in_unit(ctx) && strcmp(pair->at, "Environment") == 0;
    /* A comment is looked at for what is unmistakable. */
    if (strcmp(pair->at, "comment") == 0 && verdict.confidence != SCAN_HIGH) {
        return;
    }
    if (verdict.confidence == SCAN_NO && !environment) {
        return;
    }
    struct scan_finding finding = ctx->now;
    scan_name_show(finding.name, name);
    if (environment && strcmp(finding.name, "(withheld)") != 0) {
        override(ctx, pair->at, finding.name);
    }
    if (verdict.confidence == SCAN_NO) {
        return;
    }
    if (ctx->in_place++ >= SCAN_FINDINGS_PLACE) {
        if (ctx->in_place == SCAN_FINDINGS_PLACE + 1) {
            scan_findings_skip(ctx->findings, SCAN_SKIP_MANY, finding.path, pair->line);
        }
        return;
    }
    finding.kind = verdict.kind;
    finding.confidence = verdict.confidence;
    finding.at = pair->at;
    finding.line = pair->line;
    finding.overridden = place->shadowed;
    scan_findings_add(ctx->findings, &finding);
}

static void reset(void *user, const char *at)
{
    struct scan_ctx *ctx = user;
    if (in_unit(ctx)) {
        override(ctx, at, NULL);
    }
}

static void refer(void *user, const char *at, struct att_slice name, struct att_slice path,
                  uint32_t line)
{
    struct scan_ctx *ctx = user;
    struct scan_refs *refs = ctx->place->refs;
    if (!refs || path.len >= sizeof refs->list[0].path || memchr(path.ptr, 0, path.len)) {
        return;
    }
    if (refs->n == SCAN_REFS_MAX) {
        refs->more = true;
        return;
    }
    struct scan_ref *ref = &refs->list[refs->n++];
    ref->credential = strcmp(at, "LoadCredential") == 0;
    ref->line = line;
    scan_name_show(ref->name, name);
    memcpy(ref->path, path.ptr, path.len);
    ref->path[path.len] = 0;
}

static void bad(void *user, uint32_t line)
{
    struct scan_ctx *ctx = user;
    scan_findings_skip(ctx->findings, SCAN_SKIP_LINE, ctx->now.path, line);
}

void scan_bytes(struct scan_ctx *ctx, struct scan_text text, const struct scan_place *place,
                void (*parse)(struct scan_text, const struct scan_sink *))
{
    const struct scan_sink sink = {ctx, take, reset, refer, bad};
    ctx->place = place;
    ctx->in_place = 0;
    if (parse) {
        parse(text, &sink);
    } else {
        scan_parse(place->format, text, &sink);
    }
    ctx->place = NULL;
    att_wipe(text.ptr, text.len);
}

/* ---- one file ---- */

static void look(struct scan_ctx *ctx, const struct scan_root *root, const char *path, int fd,
                 const struct stat *st, const struct scan_place *place)
{
    struct scan_place how = *place;
    struct scan_text text;
    enum scan_skip why;
    bool changed = false;
    char shown[SCAN_PATH_MAX];
    bool ok = scan_show(root, path, shown) && scan_read(fd, &ctx->buf, &text, &changed, &why);
    if (!ok) {
        scan_skipped(ctx, root, path, why);
        att_wipe(ctx->buf.ptr, ctx->buf.len);
        return;
    }
    size_t head = text.len < BINARY_LOOK ? text.len : BINARY_LOOK;
    bool binary = head && memchr(text.ptr, 0, head);
    ctx->now = (struct scan_finding){
        .source = place->source,
        .path = scan_findings_text(ctx->findings, shown),
        .unit = scan_findings_text(ctx->findings, place->unit ? place->unit : ""),
        .uid = st->st_uid,
        .mode = st->st_mode & 07777,
    };
    ctx->findings->looked.files++;
    if (changed) {
        scan_skipped(ctx, root, path, SCAN_SKIP_CHANGED);
    }
    if (binary && scan_is_store(ATT_SLICE(text.ptr, text.len))) {
        how.format = SCAN_WHOLE; /* whatever its name */
        how.name = NULL;
        how.kind = SCAN_NONE;
    } else if (binary && !place->binary) {
        scan_skipped(ctx, root, path, SCAN_SKIP_BINARY);
        how.format = SCAN_LINES; /* shapes all the same */
    }
    scan_bytes(ctx, text, &how, NULL);
}

bool scan_too_late(struct scan_ctx *ctx, const struct scan_root *root, const char *path)
{
    bool late = root->has_owner && att_boottime_ms() > ctx->home_until_ms;
    if (late) {
        scan_skipped(ctx, root, path, SCAN_SKIP_MANY);
    }
    return late;
}

bool scan_file(struct scan_ctx *ctx, const struct scan_root *root, const char *path,
               const struct scan_place *place)
{
    struct stat st;
    enum scan_skip why = SCAN_SKIPS;
    if (scan_too_late(ctx, root, path)) {
        return false;
    }
    int fd = scan_open(root, path, false, &st, &why);
    if (fd < 0) {
        if (!(place->quiet && why == SCAN_SKIP_SPECIAL)) {
            scan_skipped(ctx, root, path, why);
        }
        return false;
    }
    /* A file that units name is told for each of them. */
    if (scan_first(&ctx->seen, &st) || (place->unit && place->source != SCAN_SRC_UNIT)) {
        look(ctx, root, path, fd, &st, place);
    }
    close(fd);
    return true;
}

/* ---- patterns ---- */

static bool meta(const char *part, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (strchr("*?[", part[i])) {
            return true;
        }
    }
    return false;
}

/* done: what of the pattern has become a path, with room of SCAN_PATH_MAX. */
static size_t expand(struct scan_ctx *ctx, const struct scan_root *root, char *done,
                     const char *pattern, const struct scan_place *place, size_t left)
{
    size_t len = strlen(done), n = 0, matched = 0;
    pattern += strspn(pattern, "/");
    size_t part = strcspn(pattern, "/");
    const char *rest = pattern + part + strspn(pattern + part, "/");
    if (len + 1 + part >= SCAN_PATH_MAX || part > NAME_MAX || part == 0 ||
        scan_too_late(ctx, root, done)) { /* folders without a file cost time, too */
        return 0;
    }
    if (!meta(pattern, part)) {
        snprintf(done + len, SCAN_PATH_MAX - len, "/%.*s", (int)part, pattern);
        matched = *rest ? expand(ctx, root, done, rest, place, left)
                        : (size_t)scan_file(ctx, root, done, place);
        done[len] = 0;
        return matched;
    }
    char glob[NAME_MAX + 1];
    struct stat st;
    enum scan_skip why = SCAN_SKIPS;
    snprintf(glob, sizeof glob, "%.*s", (int)part, pattern);
    /* "." for the root itself, which has no name */
    int fd = len ? scan_open(root, done, true, &st, &why)
                 : openat(root->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char **names = fd >= 0 ? scan_names(fd, &n, &why) : NULL;
    scan_skipped(ctx, root, done, why);
    for (size_t i = 0; i < n; i++) {
        if (fnmatch(glob, names[i], FNM_PERIOD) != 0 ||
            len + 2 + strlen(names[i]) > SCAN_PATH_MAX) {
            continue;
        }
        if (matched >= left) {
            scan_skipped(ctx, root, done, SCAN_SKIP_MANY);
            break;
        }
        snprintf(done + len, SCAN_PATH_MAX - len, "/%s", names[i]);
        matched += *rest ? expand(ctx, root, done, rest, place, left - matched)
                         : (size_t)scan_file(ctx, root, done, place);
        done[len] = 0;
    }
    free(names);
    return matched;
}

size_t scan_glob(struct scan_ctx *ctx, const struct scan_root *root, const char *pattern,
                 const struct scan_place *place)
{
    char done[SCAN_PATH_MAX] = "";
    size_t n = expand(ctx, root, done, pattern, place, MATCHES_MAX);
    att_wipe(done, sizeof done);
    return n;
}

/* ---- all of it ---- */

static enum att_rc begin(struct scan_ctx *ctx, struct att_err *err)
{
    const char *root = ctx->options->root ? ctx->options->root : "/";
    ctx->root =
        (struct scan_root){.fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC), .links = true};
    if (ctx->root.fd < 0) {
        return att_fail_errno(err, ATT_E_NOTFOUND, "--root");
    }
    if (ctx->options->root && strlen(root) < sizeof ctx->root.at) {
        size_t len = strlen(root);
        while (len && root[len - 1] == '/') {
            len--;
        }
        memcpy(ctx->root.at, root, len);
    }
    ctx->seen.slots = calloc(SEEN_SLOTS, sizeof *ctx->seen.slots);
    if (!ctx->seen.slots) {
        return att_fail(err, ATT_E_NOMEM, "files that were seen");
    }
    enum att_rc rc = att_secret_new(&ctx->buf, SCAN_FILE_MAX + 1, err);
    rc = rc ? rc : scan_homes_load(ctx, err);
    return rc ? rc : scan_paths_check(ctx, err);
}

enum att_rc scan_run(const struct scan_options *options, struct scan_findings *ret,
                     struct att_err *err)
{
    struct scan_findings findings = {0};
    struct scan_ctx ctx = {.options = options, .findings = &findings, .root = {.fd = -1}};
    enum att_rc rc = begin(&ctx, err);
    if (!rc && options->units) {
        scan_units(&ctx);
    }
    if (!rc && options->homes) {
        scan_homes(&ctx);
        scan_system(&ctx);
    }
    if (!rc) {
        scan_paths(&ctx);
    }
    if (!rc && options->processes && !options->root) {
        scan_processes(&ctx);
    }
    scan_root_done(&ctx.root);
    att_secret_done(&ctx.buf);
    att_wipe_stack();
    free(ctx.seen.slots);
    free(ctx.homes);
    if (rc) {
        scan_findings_done(&findings);
        return rc;
    }
    scan_findings_merge(&findings);
    *ret = findings;
    return ATT_OK;
}
