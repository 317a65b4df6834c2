#include "provision/manifest/manifest.h"

#include "attestd/base/text.h"

#include <stdlib.h>
#include <string.h>

static const char *const role_names[MANIFEST_ROLE_COUNT] = {
    [MANIFEST_FILE] = "file",     [MANIFEST_EXECUTABLE] = "executable",
    [MANIFEST_SCRIPT] = "script", [MANIFEST_PACKAGE] = "package",
    [MANIFEST_MODEL] = "model",   [MANIFEST_PROMPT] = "prompt",
    [MANIFEST_TOOLS] = "tools",   [MANIFEST_CONFIG] = "config",
};

const char *manifest_role_name(enum manifest_role role)
{
    return (unsigned)role < MANIFEST_ROLE_COUNT ? role_names[role] : role_names[MANIFEST_FILE];
}

bool manifest_role_parse(struct att_slice name, enum manifest_role *ret_role)
{
    for (unsigned i = 0; i < MANIFEST_ROLE_COUNT; i++) {
        if (att_slice_eq_str(name, role_names[i])) {
            *ret_role = (enum manifest_role)i;
            return true;
        }
    }
    return false;
}

void manifest_done(struct manifest *manifest)
{
    for (size_t i = 0; i < manifest->n_files; i++) {
        free(manifest->files[i].path);
    }
    for (size_t i = 0; i < manifest->n_links; i++) {
        free(manifest->links[i].path);
        free(manifest->links[i].target);
    }
    for (size_t i = 0; i < manifest->n_dirs; i++) {
        free(manifest->dirs[i]);
    }
    free(manifest->files);
    free(manifest->links);
    free(manifest->dirs);
    free(manifest->signature);
    *manifest = (struct manifest){0};
}

static bool text_ok(const char *text)
{
    bool ok = true;
    while (ok && *text) {
        text += att_text_next(text, &ok);
    }
    return ok;
}

bool manifest_path_ok(const char *path)
{
    if (path[0] != '/' || path[1] == 0 || strlen(path) > MANIFEST_PATH_MAX || !text_ok(path)) {
        return false;
    }
    for (const char *part = path; part; part = strchr(part, '/')) {
        part++;
        size_t len = strcspn(part, "/");
        if (len == 0 || (len == 1 && part[0] == '.') ||
            (len == 2 && part[0] == '.' && part[1] == '.')) {
            return false;
        }
    }
    return true;
}

/* ---- adding ---- */

/* Room for one more; lists grow in powers of two. */
static enum att_rc grow(void **list, size_t n, size_t max, size_t size, const char *what,
                        struct att_err *err)
{
    if (n >= max) {
        return att_fail(err, ATT_E_LIMIT, "manifest: more than %zu %s", max, what);
    }
    if (n & (n - 1)) {
        return ATT_OK;
    }
    void *more = realloc(*list, (n ? 2 * n : 1) * size);
    if (!more) {
        return att_fail(err, ATT_E_NOMEM, "manifest");
    }
    *list = more;
    return ATT_OK;
}

static enum att_rc check_path(const char *path, struct att_err *err)
{
    return manifest_path_ok(path)
               ? ATT_OK
               : att_fail(err, ATT_E_INVAL,
                          "manifest: expected an absolute path in its shortest spelling of at most "
                          "%d bytes of UTF-8, found \"%.200s\"",
                          MANIFEST_PATH_MAX, path);
}

enum att_rc manifest_add_file(struct manifest *manifest, const struct manifest_file *file,
                              struct att_err *err)
{
    void *list = manifest->files;
    enum att_rc rc = check_path(file->path, err);
    if (rc == ATT_OK) {
        rc = grow(&list, manifest->n_files, MANIFEST_FILES_MAX, sizeof *manifest->files, "files",
                  err);
        manifest->files = list;
    }
    char *path = rc == ATT_OK ? strdup(file->path) : NULL;
    if (rc != ATT_OK || !path) {
        return rc != ATT_OK ? rc : att_fail(err, ATT_E_NOMEM, "manifest");
    }
    manifest->files[manifest->n_files] = *file;
    manifest->files[manifest->n_files++].path = path;
    return ATT_OK;
}

enum att_rc manifest_add_link(struct manifest *manifest, const char *path, const char *target,
                              struct att_err *err)
{
    void *list = manifest->links;
    enum att_rc rc = check_path(path, err);
    if (rc == ATT_OK && (!target[0] || strlen(target) > MANIFEST_PATH_MAX || !text_ok(target))) {
        rc =
            att_fail(err, ATT_E_INVAL, "manifest: %.200s: where the link leads is not UTF-8", path);
    }
    if (rc == ATT_OK) {
        rc = grow(&list, manifest->n_links, MANIFEST_LINKS_MAX, sizeof *manifest->links, "links",
                  err);
        manifest->links = list;
    }
    if (rc != ATT_OK) {
        return rc;
    }
    struct manifest_link link = {strdup(path), strdup(target)};
    if (!link.path || !link.target) {
        free(link.path);
        free(link.target);
        return att_fail(err, ATT_E_NOMEM, "manifest");
    }
    manifest->links[manifest->n_links++] = link;
    return ATT_OK;
}

enum att_rc manifest_add_dir(struct manifest *manifest, const char *path, struct att_err *err)
{
    void *list = manifest->dirs;
    enum att_rc rc = check_path(path, err);
    if (rc == ATT_OK) {
        rc = grow(&list, manifest->n_dirs, MANIFEST_DIRS_MAX, sizeof *manifest->dirs, "folders",
                  err);
        manifest->dirs = list;
    }
    char *copy = rc == ATT_OK ? strdup(path) : NULL;
    if (rc != ATT_OK || !copy) {
        return rc != ATT_OK ? rc : att_fail(err, ATT_E_NOMEM, "manifest");
    }
    manifest->dirs[manifest->n_dirs++] = copy;
    return ATT_OK;
}

/* ---- order and root ---- */

static int by_path(const void *a, const void *b)
{
    /* Each element begins with its path. */
    return strcmp(*(char *const *)a, *(char *const *)b);
}
_Static_assert(offsetof(struct manifest_file, path) == 0, "sorted by what they begin with");
_Static_assert(offsetof(struct manifest_link, path) == 0, "sorted by what they begin with");

static const void *find(const void *list, size_t n, size_t size, const char *path)
{
    return n ? bsearch(&path, list, n, size, by_path) : NULL;
}

const struct manifest_file *manifest_find_file(const struct manifest *manifest, const char *path)
{
    return find(manifest->files, manifest->n_files, sizeof *manifest->files, path);
}

const struct manifest_link *manifest_find_link(const struct manifest *manifest, const char *path)
{
    return find(manifest->links, manifest->n_links, sizeof *manifest->links, path);
}

static const char *twice_in(const void *list, size_t n, size_t size)
{
    for (size_t i = 1; i < n; i++) {
        const void *a = (const char *)list + (i - 1) * size, *b = (const char *)list + i * size;
        if (by_path(a, b) == 0) {
            return *(char *const *)a;
        }
    }
    return NULL;
}

/* Over lengths and bytes, so that no two manifests have one encoding. */
static enum att_rc compute_root(const struct manifest *m, uint8_t ret_root[ATT_SHA256_LEN],
                                struct att_err *err)
{
    att_autobuf bytes = ATT_BUF_INIT(4 * MANIFEST_MAX);
    att_buf_put_str(&bytes, "attestd-manifest/1");
    att_buf_be32(&bytes, (uint32_t)m->n_files);
    for (size_t i = 0; i < m->n_files; i++) {
        const struct manifest_file *file = &m->files[i];
        att_buf_field_be16(&bytes, att_slice_str(manifest_role_name(file->role)));
        att_buf_field_be16(&bytes, att_slice_str(file->path));
        att_buf_be64(&bytes, file->size);
        att_buf_put(&bytes, file->sha256, sizeof file->sha256);
        att_buf_put(&bytes, file->verity, sizeof file->verity);
    }
    att_buf_be32(&bytes, (uint32_t)m->n_links);
    for (size_t i = 0; i < m->n_links; i++) {
        att_buf_field_be16(&bytes, att_slice_str(m->links[i].path));
        att_buf_field_be16(&bytes, att_slice_str(m->links[i].target));
    }
    att_buf_be32(&bytes, (uint32_t)m->n_dirs);
    for (size_t i = 0; i < m->n_dirs; i++) {
        att_buf_field_be16(&bytes, att_slice_str(m->dirs[i]));
    }
    enum att_rc rc = att_buf_ok(&bytes, err);
    if (rc == ATT_OK) {
        att_sha256(ret_root, att_buf_slice(&bytes));
    }
    return rc;
}

static void sort(void *list, size_t n, size_t size)
{
    if (n) {
        qsort(list, n, size, by_path);
    }
}

enum att_rc manifest_finish(struct manifest *m, struct att_err *err)
{
    sort(m->files, m->n_files, sizeof *m->files);
    sort(m->links, m->n_links, sizeof *m->links);
    sort(m->dirs, m->n_dirs, sizeof *m->dirs);
    const char *twice = twice_in(m->files, m->n_files, sizeof *m->files);
    twice = twice ? twice : twice_in(m->links, m->n_links, sizeof *m->links);
    twice = twice ? twice : twice_in(m->dirs, m->n_dirs, sizeof *m->dirs);
    for (size_t i = 0; !twice && i < m->n_links; i++) {
        twice = manifest_find_file(m, m->links[i].path) ? m->links[i].path : NULL;
    }
    if (twice) {
        return att_fail(err, ATT_E_EXISTS, "manifest: %.200s stands there twice", twice);
    }
    if (m->n_files == 0) {
        return att_fail(err, ATT_E_INVAL, "manifest: no file is listed");
    }
    return compute_root(m, m->root, err);
}
