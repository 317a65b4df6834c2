/* The manifest's document: strict in, one spelling out. */
#include "provision/manifest/manifest.h"

#include "attestd/base/enc.h"
#include "attestd/base/json.h"

#include <stdlib.h>
#include <string.h>

#define VALUES_MAX ((size_t)64 << 10) /* six for each file, and a few */

/* ---- out ---- */

static json_t *hex_json(const uint8_t bytes[ATT_SHA256_LEN])
{
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE(bytes, ATT_SHA256_LEN));
    return json_string(hex);
}

static void put_line(struct att_buf *text, const json_t *json, bool last, enum att_rc *rc,
                     struct att_err *err)
{
    if (*rc == ATT_OK) {
        att_buf_put_str(text, "  ");
        *rc = json ? att_json_dump(json, false, text, err) : att_fail(err, ATT_E_NOMEM, "manifest");
        att_buf_put_str(text, last ? "\n" : ",\n");
    }
}

/* One line for each file: a difference of two manifests is one of lines. */
enum att_rc manifest_encode(const struct manifest *m, struct att_buf *ret_text, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    char root[2 * ATT_SHA256_LEN + 1];
    att_buf_put_str(ret_text, "{\"version\": 1,\n\"files\": [\n");
    for (size_t i = 0; i < m->n_files; i++) {
        const struct manifest_file *file = &m->files[i];
        att_autojson *json =
            json_pack("{s:s, s:s, s:I, s:o, s:o}", "path", file->path, "role",
                      manifest_role_name(file->role), "size", (json_int_t)file->size, "sha256",
                      hex_json(file->sha256), "verity", hex_json(file->verity));
        put_line(ret_text, json, i + 1 == m->n_files, &rc, err);
    }
    att_buf_put_str(ret_text, "],\n\"links\": [\n");
    for (size_t i = 0; i < m->n_links; i++) {
        att_autojson *json =
            json_pack("{s:s, s:s}", "path", m->links[i].path, "target", m->links[i].target);
        put_line(ret_text, json, i + 1 == m->n_links, &rc, err);
    }
    att_buf_put_str(ret_text, "],\n\"directories\": [\n");
    for (size_t i = 0; i < m->n_dirs; i++) {
        att_autojson *json = json_string(m->dirs[i]);
        put_line(ret_text, json, i + 1 == m->n_dirs, &rc, err);
    }
    att_hex(root, ATT_SLICE_ARRAY(m->root));
    att_buf_printf(ret_text, "],\n\"root\": \"%s\"", root);
    if (m->signature) {
        att_buf_printf(ret_text, ",\n\"signature\": \"%s\"", m->signature);
    }
    att_buf_put_str(ret_text, "}\n");
    return rc == ATT_OK ? att_buf_ok(ret_text, err) : rc;
}

/* ---- in ---- */

static enum att_rc bad(struct att_err *err, const char *where, const char *expected)
{
    return att_fail(err, ATT_E_PARSE, "manifest: %s: expected %s", where, expected);
}

/* obj has these members and no other; the last optional ones may be absent. */
static enum att_rc members(const json_t *obj, const char *const *names, size_t required, size_t all,
                           const char *where, struct att_err *err)
{
    size_t found = 0;
    for (size_t i = 0; i < all; i++) {
        bool there = json_object_get(obj, names[i]) != NULL;
        if (!there && i < required) {
            return att_fail(err, ATT_E_PARSE, "manifest: %s: \"%s\" is missing", where, names[i]);
        }
        found += there;
    }
    return json_is_object(obj) && json_object_size(obj) == found
               ? ATT_OK
               : bad(err, where, "no other members than those of version 1");
}

static const char *text_of(const json_t *json)
{
    const char *text = json_string_value(json);
    return text && strlen(text) == json_string_length(json) ? text : NULL;
}

static bool take_hex(const json_t *json, uint8_t ret[ATT_SHA256_LEN])
{
    const char *text = text_of(json);
    return text && strspn(text, "0123456789abcdef") == 2 * ATT_SHA256_LEN &&
           text[2 * ATT_SHA256_LEN] == 0 &&
           att_unhex_exact(ret, ATT_SHA256_LEN, text, NULL) == ATT_OK;
}

static const json_t *list(const json_t *obj, const char *name, size_t max, struct att_err *err,
                          enum att_rc *rc)
{
    const json_t *json = json_object_get(obj, name);
    if (*rc == ATT_OK && (!json_is_array(json) || json_array_size(json) > max)) {
        *rc = att_fail(err, json_is_array(json) ? ATT_E_LIMIT : ATT_E_PARSE,
                       "manifest: %s: expected a list of at most %zu", name, max);
    }
    return *rc == ATT_OK ? json : NULL;
}

static enum att_rc take_file(struct manifest *m, const json_t *json, struct att_err *err)
{
    static const char *const names[] = {"path", "role", "size", "sha256", "verity"};
    struct manifest_file file = {0};
    enum att_rc rc = members(json, names, 5, 5, "files", err);
    if (rc != ATT_OK) {
        return rc;
    }
    const char *path = text_of(json_object_get(json, "path"));
    const char *role = text_of(json_object_get(json, "role"));
    const json_t *size = json_object_get(json, "size");
    if (!path || !manifest_path_ok(path)) {
        return bad(err, "files", "an absolute path in its shortest spelling");
    }
    if (!role || !manifest_role_parse(att_slice_str(role), &file.role)) {
        return bad(err, path, "a role that is known");
    }
    if (!json_is_integer(size) || json_integer_value(size) < 0) {
        return bad(err, path, "a size in bytes");
    }
    if (!take_hex(json_object_get(json, "sha256"), file.sha256) ||
        !take_hex(json_object_get(json, "verity"), file.verity)) {
        return bad(err, path, "sha256 and verity as 64 lowercase hex digits");
    }
    if (m->n_files && strcmp(m->files[m->n_files - 1].path, path) >= 0) {
        return bad(err, path, "files in the order of their paths' bytes, each once");
    }
    file.path = (char *)(uintptr_t)path;
    file.size = (uint64_t)json_integer_value(size);
    return manifest_add_file(m, &file, err);
}

static enum att_rc take_link(struct manifest *m, const json_t *json, struct att_err *err)
{
    static const char *const names[] = {"path", "target"};
    enum att_rc rc = members(json, names, 2, 2, "links", err);
    if (rc != ATT_OK) {
        return rc;
    }
    const char *path = text_of(json_object_get(json, "path"));
    const char *target = text_of(json_object_get(json, "target"));
    if (!path || !target || !manifest_path_ok(path)) {
        return bad(err, "links", "path and target as text");
    }
    if (m->n_links && strcmp(m->links[m->n_links - 1].path, path) >= 0) {
        return bad(err, path, "links in the order of their paths' bytes, each once");
    }
    rc = manifest_add_link(m, path, target, err);
    return rc == ATT_E_INVAL ? ATT_E_PARSE : rc;
}

static enum att_rc take_dir(struct manifest *m, const json_t *json, struct att_err *err)
{
    const char *path = text_of(json);
    if (!path || !manifest_path_ok(path)) {
        return bad(err, "directories", "an absolute path in its shortest spelling");
    }
    if (m->n_dirs && strcmp(m->dirs[m->n_dirs - 1], path) >= 0) {
        return bad(err, path, "folders in the order of their paths' bytes, each once");
    }
    return manifest_add_dir(m, path, err);
}

/* header ".." signature, both base64url. */
static enum att_rc take_signature(struct manifest *m, const json_t *json, struct att_err *err)
{
    static const char b64u[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const char *text = text_of(json);
    size_t head = text ? strspn(text, b64u) : 0;
    if (!text || strlen(text) > MANIFEST_SIG_MAX || !head || strncmp(text + head, "..", 2) != 0 ||
        !text[head + 2] || text[head + 2 + strspn(text + head + 2, b64u)]) {
        return bad(err, "signature", "a detached JWS, HEADER..SIGNATURE");
    }
    m->signature = strdup(text);
    return m->signature ? ATT_OK : att_fail(err, ATT_E_NOMEM, "manifest");
}

static enum att_rc take_all(struct manifest *m, const json_t *obj, struct att_err *err)
{
    static const char *const names[] = {"version",     "files", "links",
                                        "directories", "root",  "signature"};
    enum att_rc rc = json_is_object(obj) ? members(obj, names, 5, 6, "document", err)
                                         : bad(err, "document", "an object");
    const json_t *version = json_object_get(obj, "version");
    if (rc == ATT_OK && (!json_is_integer(version) || json_integer_value(version) != 1)) {
        return att_fail(err, ATT_E_UNSUPPORTED, "manifest: expected version 1");
    }
    const json_t *files = list(obj, "files", MANIFEST_FILES_MAX, err, &rc);
    for (size_t i = 0; rc == ATT_OK && i < json_array_size(files); i++) {
        rc = take_file(m, json_array_get(files, i), err);
    }
    const json_t *links = list(obj, "links", MANIFEST_LINKS_MAX, err, &rc);
    for (size_t i = 0; rc == ATT_OK && i < json_array_size(links); i++) {
        rc = take_link(m, json_array_get(links, i), err);
    }
    const json_t *dirs = list(obj, "directories", MANIFEST_DIRS_MAX, err, &rc);
    for (size_t i = 0; rc == ATT_OK && i < json_array_size(dirs); i++) {
        rc = take_dir(m, json_array_get(dirs, i), err);
    }
    const json_t *signature = json_object_get(obj, "signature");
    return rc == ATT_OK && signature ? take_signature(m, signature, err) : rc;
}

enum att_rc manifest_parse(struct att_slice text, struct manifest *ret_manifest,
                           struct att_err *err)
{
    att_autojson *obj = NULL;
    struct manifest m = {0};
    uint8_t root[ATT_SHA256_LEN];
    enum att_rc rc = att_json_parse_few(text, MANIFEST_MAX, VALUES_MAX, &obj, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "manifest");
        return rc;
    }
    rc = take_all(&m, obj, err);
    if (rc == ATT_OK && !take_hex(json_object_get(obj, "root"), root)) {
        rc = bad(err, "root", "64 lowercase hex digits");
    }
    if (rc == ATT_OK) {
        rc = manifest_finish(&m, err);
        rc = rc == ATT_E_EXISTS || rc == ATT_E_INVAL ? ATT_E_PARSE : rc;
    }
    if (rc == ATT_OK && memcmp(root, m.root, sizeof root) != 0) {
        char is[2 * ATT_SHA256_LEN + 1], says[2 * ATT_SHA256_LEN + 1];
        att_hex(is, ATT_SLICE_ARRAY(m.root));
        att_hex(says, ATT_SLICE_ARRAY(root));
        rc = att_fail(err, ATT_E_AUTH, "manifest: it names root %s, what it lists has root %s",
                      says, is);
        att_err_reason(err, "manifestRoot");
    }
    if (rc != ATT_OK) {
        manifest_done(&m);
        return rc;
    }
    *ret_manifest = m;
    return ATT_OK;
}
