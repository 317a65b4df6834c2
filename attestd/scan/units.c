/* Units as systemd finds them: the first of several files of one name counts, drop-ins follow in
 * the order of their names (systemd.unit(5)). What does not count is told, too: the key is in the
 * file. */
#include "attestd/scan/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FRAGMENTS_MAX 65536
#define PATH_LEN      512

struct fragment {
    char unit[SCAN_UNIT_MAX + 1];
    char path[PATH_LEN];
    const char *base; /* in path */
    size_t rank;      /* of the folder: the lower one counts */
    bool dropin;
};

struct units {
    struct scan_ctx *ctx;
    const struct scan_root *root;
    const char *home; /* of a user's own units */
    struct fragment *list;
    size_t n, cap;
};

static const char *const system_dirs[] = {
    "/etc/systemd/system.control",   "/run/systemd/system.control",
    "/run/systemd/transient",        "/run/systemd/generator.early",
    "/etc/systemd/system",           "/etc/systemd/system.attached",
    "/run/systemd/system",           "/run/systemd/system.attached",
    "/run/systemd/generator",        "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",       "/lib/systemd/system",
    "/run/systemd/generator.late",   "/etc/containers/systemd",
    "/usr/share/containers/systemd", NULL};
static const char *const user_dirs[] = {"/etc/systemd/user", "/run/systemd/user",
                                        "/usr/local/lib/systemd/user", "/usr/lib/systemd/user",
                                        NULL};
static const char *const own_dirs[] = {".config/systemd/user.control", ".config/systemd/user",
                                       ".local/share/systemd/user", ".config/containers/systemd",
                                       NULL};

/* ---- which files there are ---- */

static bool unit_name(const char *name)
{
    static const char *const kinds[] = {".service",   ".socket", ".mount",  ".automount", ".swap",
                                        ".timer",     ".path",   ".target", ".slice",     ".scope",
                                        ".container", ".pod",    ".kube",   ".build"};
    struct att_slice text = att_slice_str(name);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (scan_ends(text, kinds[i]) && text.len > strlen(kinds[i])) {
            return true;
        }
    }
    return false;
}

static void add(struct units *u, const char *dir, const char *sub, const char *name, size_t rank)
{
    struct fragment f = {.rank = rank, .dropin = sub[0] != 0};
    const char *unit = f.dropin ? sub : name;
    size_t len = f.dropin ? strlen(sub) - 2 : strlen(name); /* without ".d" */
    int put = snprintf(f.path, sizeof f.path, "%s/%s%s%s", dir, sub, f.dropin ? "/" : "", name);
    if (len > SCAN_UNIT_MAX || put < 0 || (size_t)put >= sizeof f.path) {
        scan_skipped(u->ctx, u->root, dir, SCAN_SKIP_MANY);
        return;
    }
    memcpy(f.unit, unit, len);
    if (u->n == u->cap) {
        size_t cap = u->cap ? 2 * u->cap : 256;
        struct fragment *list = cap <= FRAGMENTS_MAX ? realloc(u->list, cap * sizeof *list) : NULL;
        if (!list) {
            scan_skipped(u->ctx, u->root, dir, SCAN_SKIP_MANY);
            return;
        }
        u->list = list;
        u->cap = cap;
    }
    u->list[u->n++] = f;
}

static char **names_of(struct units *u, const char *path, size_t *ret_n)
{
    struct stat st;
    enum scan_skip why;
    char **names = NULL;
    *ret_n = 0;
    if (scan_too_late(u->ctx, u->root, path)) {
        return NULL;
    }
    int fd = scan_open(u->root, path, true, &st, &why);
    /* /lib is /usr/lib on most systems */
    if (fd >= 0 && scan_first(&u->ctx->seen, &st)) {
        names = scan_names(fd, ret_n, &why);
    } else if (fd >= 0) {
        close(fd);
        why = SCAN_SKIPS;
    }
    scan_skipped(u->ctx, u->root, path, why);
    return names;
}

static void dropins(struct units *u, const char *dir, const char *sub, size_t rank)
{
    char path[PATH_LEN];
    size_t n;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, sub) >= sizeof path) {
        return;
    }
    char **names = names_of(u, path, &n);
    for (size_t i = 0; i < n; i++) {
        if (scan_ends(att_slice_str(names[i]), ".conf")) {
            add(u, dir, sub, names[i], rank);
        }
    }
    free(names);
}

static void folder(struct units *u, const char *dir, size_t rank)
{
    size_t n;
    char **names = names_of(u, dir, &n);
    for (size_t i = 0; i < n; i++) {
        struct att_slice name = att_slice_str(names[i]);
        if (scan_ends(name, ".d") && name.len > 2) {
            dropins(u, dir, names[i], rank);
        } else if (unit_name(names[i])) {
            add(u, dir, "", names[i], rank);
        }
    }
    free(names);
}

/* ---- in which order ---- */

static int compare(const void *first, const void *second)
{
    const struct fragment *a = first, *b = second;
    int by = strcmp(a->unit, b->unit);
    if (by == 0 && a->dropin != b->dropin) {
        return a->dropin ? 1 : -1;
    }
    if (by == 0 && a->dropin) {
        by = strcmp(a->base, b->base);
    }
    /* Of one name the one that counts comes last, when what it overrides is known. */
    return by ? by : a->rank == b->rank ? 0 : a->rank > b->rank ? -1 : 1;
}

/* ---- the files that they name ---- */

static void absent(struct units *u, const struct fragment *f, uint32_t line)
{
    char shown[SCAN_PATH_MAX];
    if (scan_show(u->root, f->path, shown)) {
        scan_findings_skip(u->ctx->findings, SCAN_SKIP_ABSENT, shown, line);
    }
}

/* Below home: the path there. NULL: outside. */
static const char *below(const char *home, const char *path)
{
    size_t len = strlen(home);
    while (len && home[len - 1] == '/') {
        len--;
    }
    return strncmp(path, home, len) == 0 && path[len] == '/' ? path + len : NULL;
}

static size_t each_home(struct units *u, const char *path, const struct fragment *f,
                        const struct scan_place *place)
{
    size_t found = 0;
    for (size_t i = 0; i < u->ctx->n_homes; i++) {
        const struct scan_home *home = &u->ctx->homes[i];
        char whole[SCAN_PATH_MAX];
        struct scan_root root;
        const char *rest = NULL;
        if (scan_specifiers(whole, sizeof whole, path, f->unit, home->path)) {
            rest = below(home->path, whole);
        }
        if (rest && scan_home_root(u->ctx, home, &root)) {
            found += scan_glob(u->ctx, &root, rest, place);
            scan_root_done(&root);
        }
    }
    return found;
}

static void named(struct units *u, const struct fragment *f, const struct scan_ref *ref,
                  bool global)
{
    struct scan_place place = {.source = ref->credential ? SCAN_SRC_CREDENTIAL : SCAN_SRC_ENVFILE,
                               .format = ref->credential ? SCAN_WHOLE : SCAN_ENV,
                               .unit = f->unit,
                               .name = ref->name,
                               .kind = ref->credential ? SCAN_GENERIC : SCAN_NONE,
                               .binary = ref->credential};
    bool optional = ref->path[0] == '-';
    const char *path = ref->path + optional;
    char whole[SCAN_PATH_MAX];
    size_t found = 0;
    if (ref->credential && path[0] != '/') { /* of a credential store, which is looked at itself */
        return;
    }
    if (global && strstr(path, "%")) {
        found = each_home(u, path, f, &place);
        optional = true;
    } else if (!scan_specifiers(whole, sizeof whole, path, f->unit, u->home)) {
        scan_findings_skip(u->ctx->findings, SCAN_SKIP_LINE, NULL, 0);
    } else if (u->home && !below(u->home, whole)) {
        scan_skipped(u->ctx, u->root, f->path, SCAN_SKIP_OUTSIDE);
        optional = true;
    } else {
        found = scan_glob(u->ctx, u->root, u->home ? below(u->home, whole) : whole, &place);
    }
    att_wipe(whole, sizeof whole);
    if (!found && !optional) {
        absent(u, f, ref->line);
    }
}

/* ---- one unit ---- */

static void one(struct units *u, size_t from, size_t to, bool global, struct scan_refs *refs)
{
    u->ctx->unit_from = u->ctx->findings->n;
    u->ctx->findings->looked.units++;
    for (size_t i = from; i < to; i++) {
        const struct fragment *f = &u->list[i], *next = f + 1;
        bool again = i + 1 < to && next->dropin == f->dropin &&
                     (!f->dropin || strcmp(next->base, f->base) == 0);
        const struct scan_place place = {.source = SCAN_SRC_UNIT,
                                         .format = SCAN_UNIT,
                                         .unit = f->unit,
                                         .shadowed = again,
                                         .quiet = true,
                                         .refs = refs};
        refs->n = 0;
        refs->more = false;
        scan_file(u->ctx, u->root, f->path, &place);
        for (size_t k = 0; k < refs->n; k++) {
            named(u, f, &refs->list[k], global);
        }
        if (refs->more) {
            scan_skipped(u->ctx, u->root, f->path, SCAN_SKIP_MANY);
        }
        att_wipe(refs, sizeof *refs);
    }
}

static void all(struct scan_ctx *ctx, const struct scan_root *root, const char *const *dirs,
                const char *home, bool global)
{
    struct units u = {.ctx = ctx, .root = root, .home = home};
    struct scan_refs *refs = calloc(1, sizeof *refs);
    for (size_t i = 0; dirs[i]; i++) {
        folder(&u, dirs[i], i);
    }
    for (size_t i = 0; i < u.n; i++) {
        u.list[i].base = strrchr(u.list[i].path, '/') + 1;
    }
    if (u.n) {
        qsort(u.list, u.n, sizeof *u.list, compare);
        for (size_t i = 0; i < u.n; i++) { /* after the sort they stand elsewhere */
            u.list[i].base = strrchr(u.list[i].path, '/') + 1;
        }
    }
    for (size_t from = 0, to; refs && from < u.n; from = to) {
        for (to = from + 1; to < u.n && strcmp(u.list[to].unit, u.list[from].unit) == 0; to++) {
        }
        one(&u, from, to, global, refs);
    }
    free(refs);
    free(u.list);
}

void scan_units(struct scan_ctx *ctx)
{
    static const struct scan_place conf = {.source = SCAN_SRC_UNIT, .format = SCAN_UNIT};
    static const char *const confs[] = {
        "/etc/systemd/system.conf", "/etc/systemd/system.conf.d/*.conf", "/etc/systemd/user.conf",
        "/etc/systemd/user.conf.d/*.conf"};
    all(ctx, &ctx->root, system_dirs, NULL, false);
    all(ctx, &ctx->root, user_dirs, NULL, true);
    for (size_t i = 0; i < sizeof confs / sizeof *confs; i++) {
        scan_glob(ctx, &ctx->root, confs[i], &conf);
    }
    for (size_t i = 0; i < ctx->n_homes; i++) {
        struct scan_root root;
        if (scan_home_root(ctx, &ctx->homes[i], &root)) {
            all(ctx, &root, own_dirs, ctx->homes[i].path, false);
            scan_root_done(&root);
        }
    }
}
