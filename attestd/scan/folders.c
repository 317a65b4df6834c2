/* Folders and files that were named on the command line. */
#include "attestd/scan/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEPTH_MAX   32
#define ENTRIES_MAX 1000000

static const struct {
    const char *pattern;
    enum scan_format format;
    const char *names;
    enum scan_kind kind;
} files[] = {
    {".env", SCAN_ENV, NULL, SCAN_NONE},
    {".env.*", SCAN_ENV, NULL, SCAN_NONE},
    {"*.env", SCAN_ENV, NULL, SCAN_NONE},
    {".envrc", SCAN_ENV, NULL, SCAN_NONE},
    {"*.service", SCAN_UNIT, NULL, SCAN_NONE},
    {"*.container", SCAN_UNIT, NULL, SCAN_NONE},
    {"*compose*.y*ml", SCAN_YAML, NULL, SCAN_NONE},
    {"*secret*.y*ml", SCAN_YAML, NULL, SCAN_NONE},
    {"*credential*.json", SCAN_JSON, NULL, SCAN_NONE},
    {"*secret*.json", SCAN_JSON, NULL, SCAN_NONE},
    {"*service*account*.json", SCAN_JSON, NULL, SCAN_NONE},
    {"*.tfvars", SCAN_INI, NULL, SCAN_NONE},
    {"*.properties", SCAN_INI, NULL, SCAN_NONE},
    {"application*.y*ml", SCAN_YAML, NULL, SCAN_NONE},
    {"appsettings*.json", SCAN_JSON, NULL, SCAN_NONE},
    {".mcp.json", SCAN_JSON, NULL, SCAN_NONE},
    {"mcp*.json", SCAN_JSON, NULL, SCAN_NONE},
    {".npmrc", SCAN_INI, "_authToken _auth _password", SCAN_REGISTRY},
    {".pypirc", SCAN_INI, "password", SCAN_REGISTRY},
    {".netrc", SCAN_NETRC, "password", SCAN_PASSWORD},
    {".pgpass", SCAN_PGPASS, "password", SCAN_DATABASE},
    {".git-credentials", SCAN_LINES, NULL, SCAN_NONE},
    {"credentials", SCAN_INI, NULL, SCAN_NONE},
    {"kubeconfig*", SCAN_YAML, "token password client-key-data", SCAN_KUBERNETES},
    {"*.pem", SCAN_LINES, NULL, SCAN_NONE},
    {"*.key", SCAN_LINES, NULL, SCAN_NONE},
    {"*.p8", SCAN_LINES, NULL, SCAN_NONE},
    {"id_*", SCAN_LINES, NULL, SCAN_NONE},
    {"*.ppk", SCAN_LINES, NULL, SCAN_NONE},
    {"*.p12", SCAN_WHOLE, NULL, SCAN_NONE},
    {"*.pfx", SCAN_WHOLE, NULL, SCAN_NONE},
    {"*.jks", SCAN_WHOLE, NULL, SCAN_NONE},
    {"*.jceks", SCAN_WHOLE, NULL, SCAN_NONE},
    {"*.keystore", SCAN_WHOLE, NULL, SCAN_NONE},
    {".*_history", SCAN_HISTORY, NULL, SCAN_NONE},
};

/* named: the file itself was named, so that it is looked at whatever its name. */
static bool place_of(const char *name, bool named, struct scan_place *ret)
{
    *ret = (struct scan_place){.source = SCAN_SRC_FILE};
    struct att_slice text = att_slice_str(name);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (fnmatch(files[i].pattern, name, 0) == 0) {
            ret->format = files[i].format;
            ret->names = files[i].names;
            ret->kind = files[i].kind;
            return true;
        }
    }
    if (named) {
        ret->format = scan_ends(text, ".json")                              ? SCAN_JSON
                      : scan_ends(text, ".yaml") || scan_ends(text, ".yml") ? SCAN_YAML
                      : scan_ends(text, ".ini") || scan_ends(text, ".toml") ? SCAN_INI
                                                                            : SCAN_ENV;
    }
    return named;
}

struct tree {
    struct scan_ctx *ctx;
    const struct scan_root *root;
    size_t entries;
    char path[SCAN_PATH_MAX];
};

static void enter(struct tree *t, unsigned depth);

static void entry(struct tree *t, const char *name, unsigned depth)
{
    struct scan_place place;
    struct stat st;
    struct scan_root here;
    size_t len = strlen(t->path);
    bool wanted = place_of(name, false, &place);
    enum scan_skip why = SCAN_SKIPS;
    if ((size_t)snprintf(t->path + len, sizeof t->path - len, "/%s", name) >=
        sizeof t->path - len) {
        t->path[len] = 0;
        scan_skipped(t->ctx, t->root, t->path, SCAN_SKIP_MANY);
        return;
    }
    here = *t->root;
    int fd = scan_open(&here, t->path, true, &st, &why);
    if (fd >= 0) {
        close(fd);
        if (strcmp(name, ".git") != 0 || depth > 0) {
            enter(t, depth + 1);
        }
    } else if (wanted) {
        (void)scan_file(t->ctx, t->root, t->path, &place);
    } else if (why != SCAN_SKIP_LINK) { /* a link of no interest is none */
        scan_skipped(t->ctx, t->root, t->path, why);
    }
    t->path[len] = 0;
}

static void enter(struct tree *t, unsigned depth)
{
    struct stat st;
    size_t n = 0;
    enum scan_skip why = SCAN_SKIPS;
    if (depth > DEPTH_MAX) {
        scan_skipped(t->ctx, t->root, t->path, SCAN_SKIP_MANY);
        return;
    }
    int fd = t->path[0] ? scan_open(t->root, t->path, true, &st, &why)
                        : openat(t->root->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char **names = fd >= 0 ? scan_names(fd, &n, &why) : NULL;
    scan_skipped(t->ctx, t->root, t->path, why);
    for (size_t i = 0; i < n; i++) {
        if (t->entries++ >= ENTRIES_MAX) {
            scan_skipped(t->ctx, t->root, t->path, SCAN_SKIP_MANY);
            break;
        }
        entry(t, names[i], depth);
    }
    free(names);
}

static void one(struct scan_ctx *ctx, const char *path)
{
    struct scan_root root;
    struct scan_place place;
    enum scan_skip why;
    const char *slash = strrchr(path, '/');
    if (!scan_root_below(&ctx->root, path, &root, &why)) {
        (void)place_of(slash ? slash + 1 : path, true, &place);
        scan_file(ctx, &ctx->root, path, &place);
        return;
    }
    struct tree *t = calloc(1, sizeof *t);
    if (t) {
        t->ctx = ctx;
        t->root = &root;
        enter(t, 0);
    } else {
        scan_skipped(ctx, &ctx->root, path, SCAN_SKIP_FAILED);
    }
    free(t);
    scan_root_done(&root);
}

enum att_rc scan_paths_check(struct scan_ctx *ctx, struct att_err *err)
{
    for (size_t i = 0; i < ctx->options->n_paths; i++) {
        struct stat st;
        enum scan_skip why;
        char shown[200];
        const char *path = ctx->options->paths[i];
        int fd = scan_open(&ctx->root, path, true, &st, &why);
        if (fd < 0 && why == SCAN_SKIPS) {
            fd = scan_open(&ctx->root, path, false, &st, &why);
        }
        if (fd < 0 && why == SCAN_SKIPS) {
            scan_escape(shown, sizeof shown, path);
            return att_fail(err, ATT_E_NOTFOUND, "%s: no such file or folder", shown);
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    return ATT_OK;
}

void scan_paths(struct scan_ctx *ctx)
{
    for (size_t i = 0; i < ctx->options->n_paths; i++) {
        one(ctx, ctx->options->paths[i]);
    }
}
