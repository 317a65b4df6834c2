#include "attestd/scan/findings.h"

#include "attestd/base/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *id, *text;
    bool matters;
} skips[SCAN_SKIPS] = {
    [SCAN_SKIP_DENIED] = {"notPermitted", "not permitted to read", true},
    [SCAN_SKIP_LINK] = {"link", "symbolic links, not followed", true},
    [SCAN_SKIP_SPECIAL] = {"notRegular", "no regular file", true},
    [SCAN_SKIP_LARGE] = {"large", "files larger than 1 MiB", true},
    [SCAN_SKIP_BINARY] = {"binary", "binary files", true},
    [SCAN_SKIP_CHANGED] = {"changed", "changed while they were read", true},
    [SCAN_SKIP_OTHER_FS] = {"otherFileSystem", "on another file system, not entered", true},
    [SCAN_SKIP_OUTSIDE] = {"outside", "named by a user's unit, outside of the user's home", true},
    [SCAN_SKIP_ABSENT] = {"absent", "named by a unit, not there", false},
    [SCAN_SKIP_LINE] = {"line", "lines that have not their form; looked at for shapes only", false},
    [SCAN_SKIP_SLOW] = {"slow", "processes whose memory did not answer in time", true},
    [SCAN_SKIP_CUT] = {"cut", "of which only the first 1 MiB was looked at", true},
    [SCAN_SKIP_MANY] = {"many", "left out: too many, or a home that takes more than a minute",
                        true},
    [SCAN_SKIP_FAILED] = {"failed", "could not be read", true},
};

const char *scan_skip_id(enum scan_skip skip)
{
    return skips[skip].id;
}

const char *scan_skip_text(enum scan_skip skip)
{
    return skips[skip].text;
}

bool scan_skip_matters(enum scan_skip skip)
{
    return skips[skip].matters;
}

void scan_findings_done(struct scan_findings *f)
{
    for (size_t i = 0; i < f->n_texts; i++) {
        free(f->texts[i]);
    }
    free(f->texts);
    free(f->list);
    *f = (struct scan_findings){0};
}

const char *scan_findings_text(struct scan_findings *f, const char *text)
{
    /* The same path comes many times in a row. */
    for (size_t i = f->n_texts; i > 0 && i + 4 > f->n_texts; i--) {
        if (strcmp(f->texts[i - 1], text) == 0) {
            return f->texts[i - 1];
        }
    }
    if (f->n_texts == f->cap_texts) {
        size_t cap = f->cap_texts ? 2 * f->cap_texts : 64;
        char **texts = realloc(f->texts, cap * sizeof *texts);
        if (!texts) {
            return NULL;
        }
        f->texts = texts;
        f->cap_texts = cap;
    }
    char *copy = strdup(text);
    if (copy) {
        f->texts[f->n_texts++] = copy;
    }
    return copy;
}

void scan_findings_skip(struct scan_findings *f, enum scan_skip skip, const char *path,
                        uint32_t line)
{
    struct scan_skipped *s = &f->skipped[skip];
    s->n++;
    if (path && s->n_examples < SCAN_SKIP_EXAMPLES) {
        const char *copy = scan_findings_text(f, path);
        if (copy) {
            s->examples[s->n_examples].path = copy;
            s->examples[s->n_examples++].line = line;
        }
    }
}

void scan_findings_add(struct scan_findings *f, const struct scan_finding *finding)
{
    if (f->n == f->cap && f->cap < SCAN_FINDINGS_MAX) {
        size_t cap = f->cap ? 2 * f->cap : 64;
        cap = cap > SCAN_FINDINGS_MAX ? SCAN_FINDINGS_MAX : cap;
        struct scan_finding *list = realloc(f->list, cap * sizeof *list);
        if (list) {
            f->list = list;
            f->cap = cap;
        }
    }
    if (f->n == f->cap || !finding->path || !finding->unit) {
        scan_findings_skip(f, SCAN_SKIP_MANY, finding->path, 0);
        return;
    }
    f->list[f->n++] = *finding;
}

#define BY(a, b)                                                                                   \
    do {                                                                                           \
        if ((a) != (b)) {                                                                          \
            return (a) < (b) ? -1 : 1;                                                             \
        }                                                                                          \
    } while (0)

/* All but line and pid. */
static int compare_what(const struct scan_finding *a, const struct scan_finding *b)
{
    int by = 0;
    BY(a->source, b->source);
    by = strcmp(a->unit, b->unit);
    by = by ? by : strcmp(a->path, b->path);
    if (by) {
        return by;
    }
    BY(a->uid, b->uid);
    return 0;
}

static int compare_key(const struct scan_finding *a, const struct scan_finding *b)
{
    int by = strcmp(a->name, b->name);
    by = by ? by : strcmp(a->at, b->at);
    if (by) {
        return by;
    }
    BY(a->kind, b->kind);
    BY(a->confidence, b->confidence);
    return 0;
}

static int compare(const void *first, const void *second)
{
    const struct scan_finding *a = first, *b = second;
    int by = compare_what(a, b);
    if (by) {
        return by;
    }
    BY(a->line, b->line);
    by = compare_key(a, b);
    if (by) {
        return by;
    }
    BY(a->pid, b->pid);
    return 0;
}

void scan_findings_merge(struct scan_findings *f)
{
    size_t kept = 0;
    if (f->n == 0) {
        return;
    }
    qsort(f->list, f->n, sizeof *f->list, compare);
    for (size_t i = 1; i < f->n; i++) {
        struct scan_finding *last = &f->list[kept], *now = &f->list[i];
        bool same =
            compare_what(last, now) == 0 && compare_key(last, now) == 0 && last->line == now->line;
        if (same && now->pid) {
            last->more += last->pid != now->pid;
        } else if (!same || last->overridden != now->overridden) {
            f->list[++kept] = *now;
        }
    }
    f->n = kept + 1;
}

bool scan_findings_complete(const struct scan_findings *f)
{
    for (int i = 0; i < SCAN_SKIPS; i++) {
        if (skips[i].matters && f->skipped[i].n) {
            return false;
        }
    }
    return true;
}

/* The part of a path from text on, up to the next '/': has it a key's shape? */
static bool secret_part(const char *text, size_t len)
{
    return len >= 16 && scan_shape(ATT_SLICE(text, len)).confidence != SCAN_NO;
}

void scan_escape(char *ret, size_t size, const char *text)
{
    size_t used = 0;
    while (*text) {
        size_t part = strcspn(text, "/");
        char more[16] = "(withheld)";
        size_t taken = part;
        if (!secret_part(text, part)) {
            bool ok;
            taken = part ? att_text_next(text, &ok) : 1;
            ok = part ? ok && *text != '\\' : true;
            if (ok) {
                memcpy(more, text, taken);
                more[taken] = 0;
            } else {
                taken = 1; /* byte by byte */
                snprintf(more, sizeof more, "\\x%02x", (unsigned)(uint8_t)*text);
            }
        }
        size_t len = strlen(more);
        if (used + len + 4 > size) {
            memcpy(ret + used, "...", 4);
            return;
        }
        memcpy(ret + used, more, len);
        used += len;
        text += taken;
    }
    ret[used] = 0;
}
