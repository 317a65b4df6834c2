/* attestctl manifest create: one pass over an agent's files. */
#include "attestd/ctl/manifest.h"

#include "attestd/base/io.h"
#include "attestd/workload/measure.h"
#include "provision/manifest/verity.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fsverity.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK ((size_t)1 << 20)

struct make {
    struct manifest *manifest;
    struct ctl_manifest_made *made;
    json_t *seen; /* paths that are in it */
    bool verity;
    uint8_t *chunk;
    int root; /* "/" */
};

/* ---- one file ---- */

static enum att_rc hash_all(struct make *m, int fd, struct manifest_hash *hash, struct att_err *err)
{
    for (;;) {
        ssize_t got = read(fd, m->chunk, CHUNK);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return att_fail_errno(err, ATT_E_IO, "read");
        }
        if (got == 0) {
            return ATT_OK;
        }
        enum att_rc rc = manifest_hash_update(hash, ATT_SLICE(m->chunk, (size_t)got), err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
}

static bool unchanged(const struct stat *a, const struct stat *b)
{
    return a->st_size == b->st_size && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* From then on the kernel lets nobody write to it, and checks what is read of it. */
static enum att_rc enable_verity(struct make *m, int fd, struct manifest_file *file,
                                 struct att_err *err)
{
    struct fsverity_enable_arg arg = {
        .version = 1, .hash_algorithm = FS_VERITY_HASH_ALG_SHA256, .block_size = 4096};
    uint8_t kernels[ATT_SHA256_LEN];
    int failed = 0;
    if (m->verity && ioctl(fd, FS_IOC_ENABLE_VERITY, &arg) != 0) {
        failed = errno;
    }
    if (!workload_verity(fd, kernels)) {
        if (m->made->without++ == 0) {
            snprintf(m->made->why, sizeof m->made->why, "%s",
                     failed ? strerror(failed) : "not asked for");
        }
        return ATT_OK;
    }
    if (failed != EEXIST && m->verity && memcmp(kernels, file->verity, sizeof kernels) != 0) {
        return att_fail(err, ATT_E_RETRY,
                        "fs-verity has another digest than was computed: it "
                        "changed while it was read");
    }
    memcpy(file->verity, kernels, sizeof kernels); /* that of an earlier enabling may be salted */
    m->made->enabled++;
    return ATT_OK;
}

static enum att_rc measure(struct make *m, int fd, struct manifest_file *file, struct att_err *err)
{
    struct stat before, after;
    struct manifest_hash *hash = calloc(1, sizeof *hash);
    enum att_rc rc = hash ? manifest_hash_init(hash, err) : att_fail(err, ATT_E_NOMEM, "digests");
    if (rc == ATT_OK && fstat(fd, &before) != 0) {
        rc = att_fail_errno(err, ATT_E_IO, "fstat");
    }
    if (rc == ATT_OK) {
        rc = hash_all(m, fd, hash, err);
    }
    if (rc == ATT_OK) {
        file->size = hash->size;
        rc = manifest_hash_final(hash, file->sha256, file->verity, err);
    }
    if (rc == ATT_OK && (fstat(fd, &after) != 0 || !unchanged(&before, &after))) {
        rc = att_fail(err, ATT_E_RETRY, "it changes while it is read");
    }
    if (rc == ATT_OK) {
        rc = enable_verity(m, fd, file, err);
    }
    if (hash) {
        manifest_hash_done(hash);
    }
    free(hash);
    return rc;
}

static enum att_rc add_file(struct make *m, const char *path, enum manifest_role role,
                            struct att_err *err)
{
    struct manifest_file file = {.path = (char *)(uintptr_t)path, .role = role};
    if (json_object_get(m->seen, path)) {
        return ATT_OK; /* named by itself before, with its role */
    }
    att_autofd fd = workload_measure_open(m->root, path);
    enum att_rc rc = fd >= 0
                         ? measure(m, fd, &file, err)
                         : att_fail_errno(err, ATT_E_IO, "it is not a file that can be measured");
    if (rc == ATT_OK) {
        rc = manifest_add_file(m->manifest, &file, err);
    }
    if (rc == ATT_OK && json_object_set_new(m->seen, path, json_true()) != 0) {
        rc = att_fail(err, ATT_E_INVAL, "its path is not UTF-8");
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "%.200s", path);
    }
    return rc;
}

/* ---- folders ---- */

static enum att_rc add_folder(struct make *m, const char *path, enum manifest_role role,
                              unsigned depth, struct att_err *err);

static enum att_rc add_name(struct make *m, const char *folder, const struct workload_name *name,
                            enum manifest_role role, unsigned depth, struct att_err *err)
{
    char path[MANIFEST_PATH_MAX + 1], target[MANIFEST_PATH_MAX + 1];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name->name) >= sizeof path) {
        return att_fail(err, ATT_E_LIMIT, "%.200s…: a path longer than %d bytes", path,
                        MANIFEST_PATH_MAX);
    }
    switch (name->kind) {
    case WORKLOAD_REGULAR:
        return add_file(m, path, role, err);
    case WORKLOAD_FOLDER:
        return add_folder(m, path, role, depth + 1, err);
    case WORKLOAD_SYMLINK: {
        ssize_t len = readlink(path, target, sizeof target - 1);
        if (len < 0) {
            return att_fail_errno(err, ATT_E_IO, "%.200s", path);
        }
        target[len] = 0;
        if (json_object_get(m->seen, path)) {
            return ATT_OK;
        }
        json_object_set_new(m->seen, path, json_true());
        return manifest_add_link(m->manifest, path, target, err);
    }
    case WORKLOAD_ABSENT:
    case WORKLOAD_OTHER:
    case WORKLOAD_UNREADABLE:
    case WORKLOAD_NOT_YET:
        break;
    }
    return att_fail(err, ATT_E_INVAL, "%.200s: neither file, folder nor link", path);
}

static enum att_rc add_folder(struct make *m, const char *path, enum manifest_role role,
                              unsigned depth, struct att_err *err)
{
    struct workload_name *names = NULL;
    size_t n = 0;
    if (depth > MANIFEST_DEPTH_MAX) {
        return att_fail(err, ATT_E_LIMIT, "%.200s: deeper than %d", path, MANIFEST_DEPTH_MAX);
    }
    enum att_rc rc = workload_list(m->root, path, &names, &n, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "%.200s", path);
    }
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        rc = add_name(m, path, &names[i], role, depth, err);
    }
    free(names);
    return rc;
}

/* ---- words ---- */

/* "model=/opt/m" or "/opt/m"; where links lead now is what is listed. */
static enum att_rc take_word(const char *word, enum manifest_role *ret_role, char ret[PATH_MAX],
                             struct stat *ret_st, struct att_err *err)
{
    const char *equals = strchr(word, '=');
    const char *path = word;
    *ret_role = MANIFEST_FILE;
    if (equals && !memchr(word, '/', (size_t)(equals - word))) {
        if (!manifest_role_parse(ATT_SLICE(word, (size_t)(equals - word)), ret_role)) {
            return att_fail(err, ATT_E_INVAL,
                            "%.100s: expected executable, script, package, model, prompt, tools, "
                            "config or file before \"=\"",
                            word);
        }
        path = equals + 1;
    }
    if (!realpath(path, ret) || stat(ret, ret_st) != 0) {
        return att_fail_errno(err, ATT_E_NOTFOUND, "%.200s", path);
    }
    return ATT_OK;
}

/* Files first: what is named by itself keeps its role, also inside of a folder that is named. */
static enum att_rc add_words(struct make *m, const json_t *words, bool folders, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < json_array_size(words); i++) {
        enum manifest_role role;
        char path[PATH_MAX];
        struct stat st;
        rc = take_word(json_string_value(json_array_get(words, i)), &role, path, &st, err);
        if (rc == ATT_OK && S_ISDIR(st.st_mode) == 0 && !folders) {
            rc = add_file(m, path, role, err);
        }
        if (rc == ATT_OK && S_ISDIR(st.st_mode) && folders) {
            rc = manifest_add_dir(m->manifest, path, err);
            rc = rc == ATT_OK ? add_folder(m, path, role, 0, err) : rc;
        }
    }
    return rc;
}

enum att_rc ctl_manifest_make(const json_t *words, bool verity, struct manifest *ret_manifest,
                              struct ctl_manifest_made *ret_made, struct att_err *err)
{
    struct manifest manifest = {0};
    att_autojson *seen = json_object();
    struct make m = {.manifest = &manifest,
                     .made = ret_made,
                     .seen = seen,
                     .verity = verity,
                     .chunk = malloc(CHUNK)};
    att_autofd root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    m.root = root;
    *ret_made = (struct ctl_manifest_made){0};
    enum att_rc rc = m.chunk && seen ? ATT_OK : att_fail(err, ATT_E_NOMEM, "manifest");
    rc = rc == ATT_OK ? add_words(&m, words, false, err) : rc;
    rc = rc == ATT_OK ? add_words(&m, words, true, err) : rc;
    rc = rc == ATT_OK ? manifest_finish(&manifest, err) : rc;
    free(m.chunk);
    if (rc != ATT_OK) {
        manifest_done(&manifest);
        return rc;
    }
    *ret_manifest = manifest;
    return ATT_OK;
}
