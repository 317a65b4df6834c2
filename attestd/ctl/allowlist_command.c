/* attestctl allowlist draft, diff, apply. */
#include "attestd/ctl/source.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "provision/verify/imadraft.h"

#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PART_BYTES  ((size_t)2 << 20) /* of a list in one call */
#define SHOWN_LINES 200

static const char *arg(const struct ctl_args *args, const char *name)
{
    return json_string_value(json_object_get(args->json, name));
}

/* ---- draft: from a tree ---------------------------------------------------------------------- */

static enum att_rc hash_file(const char *path, uint8_t ret[ATT_SHA256_LEN], struct att_err *err)
{
    uint8_t block[65536];
    ssize_t n = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;
    while (fd >= 0 && ok && (n = read(fd, block, sizeof block)) > 0) {
        ok = EVP_DigestUpdate(ctx, block, (size_t)n) == 1;
    }
    enum att_rc rc = fd < 0 || n < 0 ? att_fail_errno(err, ATT_E_IO, "%s: cannot be read", path)
                     : !ok || EVP_DigestFinal_ex(ctx, ret, NULL) != 1
                         ? att_fail_openssl(err, ATT_E_CRYPTO, "SHA-256")
                         : ATT_OK;
    EVP_MD_CTX_free(ctx);
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

/* A package's /bin/x is /usr/bin/x on a system whose /bin is a link (Debian since 12). */
static bool is_merged(const char *name)
{
    static const char *const merged[] = {"/bin/",   "/sbin/",  "/lib/",
                                         "/lib32/", "/lib64/", "/libx32/"};
    for (size_t i = 0; i < sizeof merged / sizeof merged[0]; i++) {
        if (strncmp(name, merged[i], strlen(merged[i])) == 0) {
            return true;
        }
    }
    return false;
}

static bool begins_with_one(const char *name, const char *const *prefixes)
{
    for (size_t i = 0; prefixes[i]; i++) {
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0) {
            return true;
        }
    }
    return false;
}

struct tree {
    const char *const *excludes;
    bool merged;
    struct att_buf *lines;
};

static enum att_rc take_file(const struct tree *t, const char *path, const char *below,
                             struct att_err *err)
{
    char name[VERIFY_IMALIST_NAME_MAX + 8];
    uint8_t sha256[ATT_SHA256_LEN];
    int n = snprintf(name, sizeof name, "%s%s", t->merged && is_merged(below) ? "/usr" : "", below);
    if (n < 0 || (size_t)n > VERIFY_IMALIST_NAME_MAX) {
        return att_fail(err, ATT_E_LIMIT, "%s: its name is longer than 4096 bytes", path);
    }
    for (char *c = name; *c; c++) {
        *c = *c == ' ' ? '_' : *c; /* as the kernel writes it */
    }
    if (begins_with_one(name, t->excludes)) {
        return ATT_OK;
    }
    enum att_rc rc = hash_file(path, sha256, err);
    const struct verify_imalist_entry entry = {.name = att_slice_str(name),
                                               .kind = verify_imalist_kind("", "sha256", 32),
                                               .digest = sha256};
    if (!rc) {
        verify_imalist_put(t->lines, &entry);
    }
    return rc ? rc : att_buf_ok(t->lines, err);
}

/* Every regular file, as its path is where the tree is the root; links are not followed. */
static enum att_rc take_tree(const struct tree *t, const char *root, struct att_err *err)
{
    char real[4096];
    char *const paths[] = {real, NULL};
    enum att_rc rc = ATT_OK;
    if (!realpath(root, real)) {
        return att_fail_errno(err, ATT_E_NOTFOUND, "%s: expected a folder", root);
    }
    size_t skip = strcmp(real, "/") == 0 ? 0 : strlen(real);
    FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, NULL);
    if (!fts) {
        return att_fail_errno(err, ATT_E_IO, "%s: cannot be read", root);
    }
    for (FTSENT *e; !rc && (e = fts_read(fts)) != NULL;) {
        if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || e->fts_info == FTS_NS) {
            errno = e->fts_errno;
            rc = att_fail_errno(err, ATT_E_IO, "%s: cannot be read", e->fts_path);
        } else if (e->fts_info == FTS_F && S_ISREG(e->fts_statp->st_mode)) {
            rc = take_file(t, e->fts_path, e->fts_path + skip, err);
        }
    }
    (void)fts_close(fts);
    return rc;
}

/* ---- draft: from a host's list --------------------------------------------------------------- */

/* A folder of evidence, or IMA's list itself. */
static enum att_rc take_host(const char *from, const char *const *excludes, struct att_buf *lines,
                             struct verify_imadraft_sum *sum, struct att_err *err)
{
    struct stat st;
    char path[4096];
    att_autobuf ima = ATT_BUF_INIT(PARSE_IMA_MAX);
    bool folder = stat(from, &st) == 0 && S_ISDIR(st.st_mode);
    snprintf(path, sizeof path, "%s%s", from, folder ? "/ima" : "");
    enum att_rc rc = att_io_read_file(path, PARSE_IMA_MAX, &ima, err);
    rc = rc ? rc : verify_imadraft_lines(att_buf_slice(&ima), excludes, lines, sum, err);
    if (rc) {
        att_err_prefix(err, "%s", path);
    }
    return rc;
}

static enum att_rc gather(const struct ctl_args *args, struct att_buf *lines,
                          struct verify_imadraft_sum *sum, struct att_err *err)
{
    const json_t *trees = json_object_get(args->json, "trees");
    const char *from = arg(args, "from"), *excludes[CTL_EXCLUDES_MAX + 1] = {NULL};
    char text[4096];
    snprintf(text, sizeof text, "%s", arg(args, "exclude") ? arg(args, "exclude") : "");
    const struct tree t = {.excludes = excludes,
                           .merged = json_is_true(json_object_get(args->json, "merged-usr")),
                           .lines = lines};
    if (!from && json_array_size(trees) == 0) {
        return att_fail(err, ATT_E_INVAL, "expected --from FOLDER or LOG, or folders with files");
    }
    enum att_rc rc = ctl_excludes(text, excludes, err);
    rc = rc || !from ? rc : take_host(from, excludes, lines, sum, err);
    for (size_t i = 0; !rc && i < json_array_size(trees); i++) {
        rc = take_tree(&t, json_string_value(json_array_get(trees, i)), err);
    }
    return rc;
}

enum ctl_exit ctl_allowlist_draft(const struct ctl_ctx *ctx, const struct ctl_args *args,
                                  const json_t *result)
{
    (void)result;
    att_autobuf lines = ATT_BUF_INIT((size_t)64 << 20), text = {0};
    struct verify_imadraft_sum sum = {0};
    verify_autoimalist *list = NULL;
    struct att_err err = {0};
    char hex[2 * ATT_SHA256_LEN + 1];
    enum att_rc rc = gather(args, &lines, &sum, &err);
    rc = rc ? rc : verify_imadraft_list(att_buf_slice(&lines), NULL, &text, &err);
    rc = rc ? rc : verify_imalist_parse(att_buf_slice(&text), &list, &err);
    rc = rc ? rc : att_io_write_file(args->out, att_buf_slice(&text), 0644, &err);
    if (rc) {
        err.rc = rc;
        return ctl_report(&err);
    }
    att_hex(hex, ATT_SLICE(verify_imalist_sha256(list), ATT_SHA256_LEN));
    if (ctx->json) {
        att_autojson *json =
            json_pack("{s:s, s:s, s:I, s:I, s:I}", "file", args->out, "sha256", hex, "entries",
                      (json_int_t)verify_imalist_count(list), "violations",
                      (json_int_t)sum.n_violations, "weak", (json_int_t)sum.n_weak);
        ctl_print_json(json);
        return CTL_OK;
    }
    printf("%s: %zu entries\n\"allowlists\": [{\"sha256\": \"%s\"}]\n", args->out,
           verify_imalist_count(list), hex);
    if (sum.n_violations || sum.n_weak) {
        printf("left out: %zu violations, %zu entries with SHA-1 or MD5\n", sum.n_violations,
               sum.n_weak);
    }
    return CTL_OK;
}

/* ---- diff ------------------------------------------------------------------------------------ */

static size_t print_missing(const struct verify_imalist *one, const struct verify_imalist *other,
                            char sign, size_t *shown, bool quiet)
{
    size_t n = 0;
    for (size_t i = 0; i < verify_imalist_count(one); i++) {
        struct verify_imalist_entry entry = verify_imalist_at(one, i);
        bool named = false;
        if (verify_imalist_has(other, entry.name, entry.kind, entry.digest, &named)) {
            continue;
        }
        n++;
        if (!quiet && (*shown)++ < SHOWN_LINES) {
            att_autobuf line = {0};
            verify_imalist_put(&line, &entry);
            printf("%c %s", sign, att_buf_cstr(&line));
        }
    }
    return n;
}

enum ctl_exit ctl_allowlist_diff(const struct ctl_ctx *ctx, const struct ctl_args *args,
                                 const json_t *result)
{
    (void)result;
    verify_autoimalist *old = NULL, *new = NULL;
    struct att_err err = {0};
    size_t shown = 0;
    enum att_rc rc = ctl_allowlist_load(arg(args, "old"), &old, &err);
    rc = rc ? rc : ctl_allowlist_load(arg(args, "new"), &new, &err);
    if (rc) {
        err.rc = rc;
        return ctl_report(&err);
    }
    size_t removed = print_missing(old, new, '-', &shown, ctx->json);
    size_t added = print_missing(new, old, '+', &shown, ctx->json);
    if (ctx->json) {
        att_autojson *json =
            json_pack("{s:I, s:I}", "removed", (json_int_t)removed, "added", (json_int_t)added);
        ctl_print_json(json);
    } else {
        printf("%zu removed, %zu added%s\n", removed, added,
               shown > SHOWN_LINES ? ", the first of them shown" : "");
    }
    return removed + added ? CTL_FAILED : CTL_OK;
}

/* ---- apply ----------------------------------------------------------------------------------- */

static enum ctl_exit send_part(const struct ctl_ctx *ctx, struct att_slice part,
                               struct att_buf *parts)
{
    att_autojson *asked =
                     json_pack("{s:o}", "text", json_stringn((const char *)part.ptr, part.len)),
                 *answer = NULL;
    struct ctl_ctx mine = *ctx;
    mine.request_id = NULL; /* which is of the apply alone; a part twice is a part once */
    enum ctl_exit exit_code =
        asked ? ctl_call(&mine, true, "allowlist.part", asked, &answer) : CTL_FAILED;
    if (exit_code == CTL_OK) {
        const char *sha256 = json_string_value(json_object_get(answer, "sha256"));
        att_buf_printf(parts, "%s%s", parts->len ? "," : "", sha256 ? sha256 : "");
    }
    return exit_code;
}

static enum ctl_exit send_all(const struct ctl_ctx *ctx, struct att_slice text,
                              struct att_buf *parts)
{
    enum ctl_exit exit_code = CTL_OK;
    for (size_t pos = 0; exit_code == CTL_OK && pos < text.len;) {
        size_t len = text.len - pos < PART_BYTES ? text.len - pos : PART_BYTES;
        while (pos + len < text.len && text.ptr[pos + len - 1] != '\n') {
            len--; /* whole lines: no character is cut. A line is shorter than a part, a comment
                      too. */
        }
        exit_code = send_part(ctx, ATT_SLICE(text.ptr + pos, len), parts);
        pos += len;
    }
    return exit_code;
}

enum ctl_exit ctl_allowlist_apply(const struct ctl_ctx *ctx, const struct ctl_args *args,
                                  const json_t *result)
{
    (void)result;
    att_autobuf text = ATT_BUF_INIT(VERIFY_IMALIST_BYTES_MAX), parts = {0};
    verify_autoimalist *list = NULL;
    att_autojson *asked = NULL, *answer = NULL;
    struct att_err err = {0};
    const char *path = arg(args, "list");
    enum att_rc rc = att_io_read_file(path, VERIFY_IMALIST_BYTES_MAX, &text, &err);
    rc = rc ? rc : verify_imalist_parse(att_buf_slice(&text), &list, &err);
    if (rc) {
        att_err_prefix(&err, "%s", path);
        err.rc = rc;
        return ctl_report(&err);
    }
    enum ctl_exit exit_code = send_all(ctx, att_buf_slice(&text), &parts);
    if (exit_code != CTL_OK) {
        return exit_code;
    }
    asked = json_pack("{s:s, s:s, s:b}", "parts", att_buf_cstr(&parts), "filename", path, "dryRun",
                      json_is_true(json_object_get(args->json, "dryRun")) ? 1 : 0);
    if (arg(args, "label")) {
        json_object_set_new(asked, "label", json_string(arg(args, "label")));
    }
    exit_code = ctl_call(ctx, true, "allowlist.apply", asked, &answer);
    if (exit_code == CTL_OK && ctx->json) {
        ctl_print_json(answer);
    } else if (exit_code == CTL_OK) {
        ctl_print_object(answer, 0);
    }
    return exit_code;
}
