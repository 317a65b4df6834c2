#include "provision/manifest/check.h"

#include "attestd/base/enc.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct check {
    const struct manifest *manifest;
    const struct manifest_prober *prober;
    struct manifest_report *report;
    size_t folders;
};

const char *manifest_trouble_name(enum manifest_trouble trouble)
{
    static const char *const names[] = {"",      "changed",  "missing",
                                        "extra", "notAFile", "notMeasured"};
    unsigned i = (unsigned)trouble;
    return i < sizeof names / sizeof *names ? names[i] : "";
}

static void found(struct check *c, enum manifest_trouble trouble, const char *path, const char *fmt,
                  ...) ATT_PRINTF(4, 5);
static void found(struct check *c, enum manifest_trouble trouble, const char *path, const char *fmt,
                  ...)
{
    bool differs = trouble != MANIFEST_UNKNOWN;
    bool first = differs && c->report->n == c->report->n_unknown;
    size_t at = c->report->n++;
    c->report->n_unknown += !differs;
    if (at >= MANIFEST_FINDINGS_MAX) {
        if (!first) {
            return;
        }
        at = MANIFEST_FINDINGS_MAX - 1; /* the one that the error is about */
    }
    struct manifest_finding *finding = &c->report->findings[at];
    finding->trouble = trouble;
    snprintf(finding->path, sizeof finding->path, "%s", path);
    va_list args;
    va_start(args, fmt);
    vsnprintf(finding->text, sizeof finding->text, fmt, args);
    va_end(args);
}

static const char *kind_name(enum manifest_kind kind)
{
    static const char *const names[] = {
        "nothing",         "a regular file",          "a symbolic link",
        "a folder",        "neither file nor folder", "not measurable",
        "not measured yet"};
    return names[(unsigned)kind <= MANIFEST_NOT_YET ? (unsigned)kind : MANIFEST_OTHER];
}

/* ---- files ---- */

static void note_device(struct manifest_report *report, const struct manifest_seen *seen)
{
    if (!report->has_device) {
        report->has_device = true;
        report->dev_major = seen->dev_major;
        report->dev_minor = seen->dev_minor;
    }
    report->devices_differ |=
        seen->dev_major != report->dev_major || seen->dev_minor != report->dev_minor;
}

static void compare_digest(struct check *c, const struct manifest_file *file,
                           const struct manifest_seen *seen)
{
    bool verity = seen->has_verity;
    const uint8_t *want = verity ? file->verity : file->sha256;
    const uint8_t *have = verity ? seen->verity : seen->sha256;
    if (memcmp(want, have, ATT_SHA256_LEN) != 0 || seen->size != file->size) {
        char expected[2 * ATT_SHA256_LEN + 1], is[2 * ATT_SHA256_LEN + 1];
        att_hex(expected, ATT_SLICE(want, ATT_SHA256_LEN));
        att_hex(is, ATT_SLICE(have, ATT_SHA256_LEN));
        found(c, MANIFEST_CHANGED, file->path, "expected %s %s, found %s",
              verity ? "verity" : "sha256", expected, is);
        return;
    }
    c->report->by_verity += verity;
    c->report->by_sha256 += !verity;
    note_device(c->report, seen);
}

static void compare_file(struct check *c, const struct manifest_file *file,
                         const struct manifest_seen *seen)
{
    char expected[2 * ATT_SHA256_LEN + 1];
    att_hex(expected, ATT_SLICE_ARRAY(file->sha256));
    switch (seen->kind) {
    case MANIFEST_REGULAR:
        if (!seen->has_verity && !seen->has_sha256 && seen->size != file->size) {
            found(c, MANIFEST_CHANGED, file->path,
                  "expected %llu bytes with sha256 %s, found %llu bytes",
                  (unsigned long long)file->size, expected, (unsigned long long)seen->size);
            return;
        }
        if (!seen->has_verity && !seen->has_sha256) {
            found(c, MANIFEST_NOT_ONE, file->path, "it was not measured");
            return;
        }
        compare_digest(c, file, seen);
        return;
    case MANIFEST_ABSENT:
        found(c, MANIFEST_MISSING, file->path, "expected sha256 %s, found nothing", expected);
        return;
    case MANIFEST_UNREADABLE:
    case MANIFEST_NOT_YET:
        found(c, MANIFEST_UNKNOWN, file->path, "expected sha256 %s, cannot tell now: %.100s",
              expected, seen->text);
        return;
    case MANIFEST_SYMLINK:
    case MANIFEST_FOLDER:
    case MANIFEST_OTHER:
        break;
    }
    bool said = seen->kind == MANIFEST_OTHER && seen->text[0];
    found(c, MANIFEST_NOT_ONE, file->path, "expected sha256 %s, found %.100s", expected,
          said ? seen->text : kind_name(seen->kind));
}

static void compare_link(struct check *c, const struct manifest_link *link,
                         const struct manifest_seen *seen)
{
    if (seen->kind == MANIFEST_SYMLINK && strcmp(seen->text, link->target) == 0) {
        return;
    }
    if (seen->kind == MANIFEST_UNREADABLE || seen->kind == MANIFEST_NOT_YET) {
        found(c, MANIFEST_UNKNOWN, link->path, "expected a link to %.90s, cannot tell now: %.100s",
              link->target, seen->text);
        return;
    }
    found(c, seen->kind == MANIFEST_ABSENT ? MANIFEST_MISSING : MANIFEST_CHANGED, link->path,
          "expected a link to %.90s, found %s%s%.90s", link->target, kind_name(seen->kind),
          seen->kind == MANIFEST_SYMLINK ? " to " : "",
          seen->kind == MANIFEST_SYMLINK ? seen->text : "");
}

static struct manifest_ask ask_at(const struct manifest *m, size_t i)
{
    return i < m->n_files ? (struct manifest_ask){m->files[i].path, m->files[i].size}
                          : (struct manifest_ask){m->links[i - m->n_files].path, UINT64_MAX};
}

static enum att_rc check_listed(struct check *c, struct att_err *err)
{
    const struct manifest *m = c->manifest;
    size_t all = m->n_files + m->n_links;
    struct manifest_seen *seen = calloc(MANIFEST_BATCH, sizeof *seen);
    enum att_rc rc = seen ? ATT_OK : att_fail(err, ATT_E_NOMEM, "manifest check");
    for (size_t at = 0; rc == ATT_OK && at < all; at += MANIFEST_BATCH) {
        struct manifest_ask asks[MANIFEST_BATCH];
        size_t n = all - at < MANIFEST_BATCH ? all - at : MANIFEST_BATCH;
        for (size_t i = 0; i < n; i++) {
            asks[i] = ask_at(m, at + i);
        }
        memset(seen, 0, MANIFEST_BATCH * sizeof *seen);
        rc = c->prober->measure(c->prober->user, asks, n, seen, err);
        for (size_t i = 0; rc == ATT_OK && i < n; i++) {
            if (at + i < m->n_files) {
                compare_file(c, &m->files[at + i], &seen[i]);
            } else {
                compare_link(c, &m->links[at + i - m->n_files], &seen[i]);
            }
        }
    }
    free(seen);
    return rc;
}

/* ---- folders: nothing may be in them that is not listed ---- */

static enum att_rc check_folder(struct check *c, const char *path, unsigned depth,
                                struct att_err *err);

static enum att_rc check_name(struct check *c, const char *path, const struct manifest_name *name,
                              unsigned depth, struct att_err *err)
{
    char whole[MANIFEST_PATH_MAX + 257];
    if (snprintf(whole, sizeof whole, "%s/%s", path, name->name) > MANIFEST_PATH_MAX) {
        found(c, MANIFEST_EXTRA, path, "a path longer than %d bytes in it", MANIFEST_PATH_MAX);
        return ATT_OK;
    }
    if (manifest_find_file(c->manifest, whole) || manifest_find_link(c->manifest, whole)) {
        return ATT_OK; /* its kind is compared where it is measured */
    }
    if (name->kind == MANIFEST_FOLDER) {
        return check_folder(c, whole, depth + 1, err);
    }
    if (name->kind == MANIFEST_UNREADABLE) { /* an empty folder would be none of our business */
        found(c, MANIFEST_UNKNOWN, whole, "not listed, and what it is cannot be told now");
        return ATT_OK;
    }
    found(c, MANIFEST_EXTRA, whole, "%s that is not listed", kind_name(name->kind));
    return ATT_OK;
}

static enum att_rc check_folder(struct check *c, const char *path, unsigned depth,
                                struct att_err *err)
{
    struct manifest_name *names = NULL;
    size_t n = 0;
    if (depth > MANIFEST_DEPTH_MAX || c->folders++ >= MANIFEST_FOLDERS_MAX) {
        return att_fail(err, ATT_E_LIMIT, "%.200s: more than %d folders, or deeper than %d", path,
                        MANIFEST_FOLDERS_MAX, MANIFEST_DEPTH_MAX);
    }
    struct att_err why = {0};
    enum att_rc rc = c->prober->list(c->prober->user, path, &names, &n, &why);
    if (rc == ATT_E_DENIED || rc == ATT_E_IO) {
        found(c, rc == ATT_E_IO ? MANIFEST_UNKNOWN : MANIFEST_NOT_ONE, path, "%.200s", why.msg);
        return ATT_OK;
    }
    if (rc != ATT_OK && err) {
        *err = why;
    }
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        rc = check_name(c, path, &names[i], depth, err);
    }
    free(names);
    return rc;
}

enum att_rc manifest_check(const struct manifest *manifest, const struct manifest_prober *prober,
                           struct manifest_report *ret_report, struct att_err *err)
{
    struct check c = {.manifest = manifest, .prober = prober, .report = ret_report};
    memset(ret_report, 0, sizeof *ret_report);
    enum att_rc rc = check_listed(&c, err);
    for (size_t i = 0; rc == ATT_OK && i < manifest->n_dirs; i++) {
        rc = check_folder(&c, manifest->dirs[i], 0, err);
    }
    return rc;
}

enum att_rc manifest_report_err(const struct manifest_report *report, struct att_err *err)
{
    if (report->n == 0) {
        return ATT_OK;
    }
    bool differs = report->n > report->n_unknown;
    const struct manifest_finding *first = &report->findings[0];
    while (differs && first->trouble == MANIFEST_UNKNOWN) {
        first++;
    }
    char more[40] = "";
    if (report->n > 1) {
        snprintf(more, sizeof more, " (and %zu more)", report->n - 1);
    }
    enum att_rc rc = differs ? ATT_E_DENIED : ATT_E_RETRY;
    (void)!att_fail(err, rc, "%.120s is %s: %.220s%s", first->path,
                    manifest_trouble_name(first->trouble), first->text, more);
    att_err_reason(err, differs ? "modelDigest" : "notMeasured");
    return rc;
}
