#include "certs/install.h"

#include "attestd/base/io.h"
#include "certs/chain.h"
#include "certs/oid.h"
#include "certs/san.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GENERATIONS ".gen"
#define KEY_URI_MAX 1024

static void dir_cleanup(DIR **dir)
{
    if (*dir) {
        closedir(*dir);
    }
}

/* The N of "NAME.N", else 0. Names may hold dots, so the last one counts and all before it is NAME.
 */
static unsigned long long generation_of(const char *file, const char *name)
{
    size_t len = strlen(name);
    if (strncmp(file, name, len) != 0 || file[len] != '.') {
        return 0;
    }
    const char *digits = file + len + 1;
    size_t n = strspn(digits, "0123456789");
    return n > 0 && n < 19 && digits[n] == 0 && *digits != '0' ? strtoull(digits, NULL, 10) : 0;
}

/* What the link points to now; 0: there is none. */
static enum att_rc current_generation(int dirfd, const char *name, unsigned long long *ret,
                                      struct att_err *err)
{
    char target[PATH_MAX];
    ssize_t len = readlinkat(dirfd, name, target, sizeof target - 1);
    if (len < 0 && errno == ENOENT) {
        *ret = 0;
        return ATT_OK;
    }
    if (len < 0) {
        return att_fail_errno(err, ATT_E_CONFLICT, "%s: expected a symbolic link", name);
    }
    target[len] = 0;
    const size_t head = sizeof GENERATIONS;
    *ret = strncmp(target, GENERATIONS "/", head) == 0 ? generation_of(target + head, name) : 0;
    return *ret ? ATT_OK
                : att_fail(err, ATT_E_CONFLICT,
                           "%s: points to \"%.80s\", not to a generation of it", name, target);
}

static enum att_rc highest_generation(int gensfd, const char *name, unsigned long long *ret,
                                      struct att_err *err)
{
    int fd = openat(gensfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ATT_CLEANUP(dir_cleanup) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        return att_fail_errno(err, ATT_E_IO, "%s", GENERATIONS);
    }
    *ret = 0;
    for (const struct dirent *e; (e = readdir(dir));) {
        unsigned long long gen = generation_of(e->d_name, name);
        *ret = gen > *ret ? gen : *ret;
    }
    return ATT_OK;
}

static enum att_rc remove_generation(int gensfd, const char *folder, struct att_err *err)
{
    static const char *const files[] = {"chain.pem", "key.uri"};
    att_autofd fd = openat(gensfd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "%s", folder);
    }
    for (size_t i = 0; i < 2; i++) {
        if (unlinkat(fd, files[i], 0) != 0 && errno != ENOENT) {
            return att_fail_errno(err, ATT_E_IO, "remove %s/%s", folder, files[i]);
        }
    }
    if (unlinkat(gensfd, folder, AT_REMOVEDIR) != 0 && errno != ENOENT) {
        return att_fail_errno(err, ATT_E_IO, "remove %s", folder);
    }
    return ATT_OK;
}

/* Removes NAME's generations but the two given (0: none). */
static enum att_rc sweep(int gensfd, const char *name, unsigned long long keep,
                         unsigned long long keep_too, struct att_err *err)
{
    int fd = openat(gensfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ATT_CLEANUP(dir_cleanup) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        return att_fail_errno(err, ATT_E_IO, "%s", GENERATIONS);
    }
    for (const struct dirent *e; (e = readdir(dir));) {
        unsigned long long gen = generation_of(e->d_name, name);
        if (gen && gen != keep && gen != keep_too) {
            enum att_rc rc = remove_generation(gensfd, e->d_name, err);
            if (rc != ATT_OK) {
                return rc;
            }
        }
    }
    return ATT_OK;
}

static enum att_rc write_at(int dirfd, const char *file, struct att_slice bytes,
                            struct att_err *err)
{
    att_autofd fd = openat(dirfd, file, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (fd < 0 || fchmod(fd, 0644) != 0) {
        return att_fail_errno(err, ATT_E_IO, "create %s", file);
    }
    enum att_rc rc = att_io_write_all(fd, bytes, err);
    if (rc == ATT_OK && fsync(fd) != 0) {
        rc = att_fail_errno(err, ATT_E_IO, "fsync %s", file);
    }
    return rc;
}

/* Everything of a generation but the chain itself, whose file is there and empty. */
static enum att_rc make_generation(struct certs_install_gen *gen, const char *key_uri,
                                   struct att_err *err)
{
    att_autobuf uri = {0};
    att_buf_printf(&uri, "%s\n", key_uri);
    enum att_rc rc = att_buf_ok(&uri, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (mkdirat(gen->gensfd, gen->folder, 0755) != 0) {
        return att_fail_errno(err, ATT_E_IO, "make folder %s", gen->folder);
    }
    att_autofd fd =
        openat(gen->gensfd, gen->folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fchmod(fd, 0755) != 0) {
        return att_fail_errno(err, ATT_E_IO, "open folder %s", gen->folder);
    }
    gen->chainfd = openat(fd, "chain.pem", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (gen->chainfd < 0 || fchmod(gen->chainfd, 0644) != 0) {
        return att_fail_errno(err, ATT_E_IO, "create %s/chain.pem", gen->folder);
    }
    rc = write_at(fd, "key.uri", att_buf_slice(&uri), err);
    if (rc == ATT_OK && (fsync(fd) != 0 || fsync(gen->gensfd) != 0)) {
        rc = att_fail_errno(err, ATT_E_IO, "sync folder %s", gen->folder);
    }
    return rc;
}

static enum att_rc switch_link(int dirfd, const char *name, const char *folder, struct att_err *err)
{
    char target[NAME_MAX + sizeof GENERATIONS + 1], tmp[CERTS_AGENT_NAME_MAX + 16];
    snprintf(target, sizeof target, GENERATIONS "/%s", folder);
    snprintf(tmp, sizeof tmp, ".%s.new", name); /* no name starts with a dot */
    if (unlinkat(dirfd, tmp, 0) != 0 && errno != ENOENT) {
        return att_fail_errno(err, ATT_E_IO, "remove %s", tmp);
    }
    if (symlinkat(target, dirfd, tmp) != 0 || renameat(dirfd, tmp, dirfd, name) != 0) {
        return att_fail_errno(err, ATT_E_IO, "switch %s to %s", name, target);
    }
    return ATT_OK;
}

static enum att_rc open_dirs(const char *dir, const char *name, int *ret_dir, int *ret_gens,
                             struct att_err *err)
{
    enum att_rc rc = certs_agent_name_check(att_slice_str(name), err);
    if (rc != ATT_OK) {
        return rc;
    }
    *ret_dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*ret_dir < 0) {
        return att_fail_errno(err, errno == ENOENT ? ATT_E_NOTFOUND : ATT_E_IO, "%s", dir);
    }
    *ret_gens = openat(*ret_dir, GENERATIONS, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*ret_gens < 0) {
        return att_fail_errno(err, errno == ENOENT ? ATT_E_NOTFOUND : ATT_E_IO, "%s/%s", dir,
                              GENERATIONS);
    }
    return ATT_OK;
}

/* ---- a generation, step by step ---------------------------------------------------------------
 */

void certs_install_gen_done(struct certs_install_gen *gen)
{
    if (gen->number && !gen->in_force) {
        (void)!remove_generation(gen->gensfd, gen->folder, NULL);
    }
    if (gen->number) {
        att_close(&gen->chainfd);
        att_close(&gen->gensfd);
        att_close(&gen->dirfd);
    }
    *gen = (struct certs_install_gen){0};
}

static enum att_rc check_uri(const char *key_uri, struct att_err *err)
{
    size_t len = strnlen(key_uri, KEY_URI_MAX);
    if (len == 0 || len == KEY_URI_MAX || strpbrk(key_uri, "\r\n")) {
        return att_fail(err, ATT_E_INVAL, "key reference: expected one line of 1 … %d bytes",
                        KEY_URI_MAX - 1);
    }
    return ATT_OK;
}

static enum att_rc make_dirs(const char *dir, struct att_err *err)
{
    att_autobuf gens = {0};
    att_buf_printf(&gens, "%s/" GENERATIONS, dir);
    const char *path = att_buf_cstr(&gens);
    return path ? att_io_mkdirs(path, 0755, err) : att_fail(err, ATT_E_NOMEM, "path");
}

enum att_rc certs_install_begin(const char *dir, const char *name, const char *key_uri,
                                struct certs_install_gen *ret_gen, struct att_err *err)
{
    ATT_CLEANUP(certs_install_gen_done) struct certs_install_gen gen = {0};
    enum att_rc rc = check_uri(key_uri, err);
    if (rc == ATT_OK) { /* before anything is made for a name that is none */
        rc = certs_agent_name_check(att_slice_str(name), err);
    }
    if (rc == ATT_OK) {
        rc = make_dirs(dir, err);
    }
    att_autofd dirfd = -1, gensfd = -1;
    unsigned long long highest = 0;
    if (rc == ATT_OK) {
        rc = open_dirs(dir, name, &dirfd, &gensfd, err);
    }
    if (rc == ATT_OK) {
        rc = current_generation(dirfd, name, &gen.previous, err);
    }
    if (rc == ATT_OK) {
        rc = highest_generation(gensfd, name, &highest, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    gen.number = highest + 1;
    gen.dirfd = dirfd;
    gen.gensfd = gensfd;
    gen.chainfd = -1;
    dirfd = gensfd = -1;
    snprintf(gen.name, sizeof gen.name, "%s", name);
    snprintf(gen.folder, sizeof gen.folder, "%s.%llu", name, gen.number);
    rc = make_generation(&gen, key_uri, err);
    if (rc == ATT_OK) {
        *ret_gen = gen;
        gen = (struct certs_install_gen){0};
    }
    return rc;
}

enum att_rc certs_install_fill(struct certs_install_gen *gen, struct att_slice chain_pem,
                               struct att_err *err)
{
    if (chain_pem.len > CERTS_CHAIN_MAX_LEN) {
        return att_fail(err, ATT_E_LIMIT, "a chain of %zu bytes", chain_pem.len);
    }
    enum att_rc rc = att_io_write_all(gen->chainfd, chain_pem, err);
    /* Its name is in a folder that is synced; size and content are what is missing. */
    if (rc == ATT_OK && fdatasync(gen->chainfd) != 0) {
        rc = att_fail_errno(err, ATT_E_IO, "sync %s/chain.pem", gen->folder);
    }
    return rc;
}

enum att_rc certs_install_switch(struct certs_install_gen *gen, struct att_err *err)
{
    enum att_rc rc = switch_link(gen->dirfd, gen->name, gen->folder, err);
    gen->in_force = rc == ATT_OK;
    return rc;
}

enum att_rc certs_install_end(struct certs_install_gen *gen, struct att_err *err)
{
    if (fsync(gen->dirfd) != 0) {
        return att_fail_errno(err, ATT_E_IO, "sync the folder of %s", gen->name);
    }
    return sweep(gen->gensfd, gen->name, gen->number, gen->previous, err);
}

enum att_rc certs_install(const char *dir, const char *name, struct att_slice chain_pem,
                          const char *key_uri, struct att_err *err)
{
    certs_autostack *chain = NULL;
    ATT_CLEANUP(certs_install_gen_done) struct certs_install_gen gen = {0};
    enum att_rc rc = certs_pem_parse(chain_pem, &chain, err);
    if (rc == ATT_OK) {
        rc = certs_install_begin(dir, name, key_uri, &gen, err);
    }
    if (rc == ATT_OK) {
        rc = certs_install_fill(&gen, chain_pem, err);
    }
    if (rc == ATT_OK) {
        rc = certs_install_switch(&gen, err);
    }
    return rc == ATT_OK ? certs_install_end(&gen, err) : rc;
}

static enum att_rc read_at(int dirfd, const char *file, size_t max, struct att_buf *ret,
                           struct att_err *err)
{
    char path[64];
    att_autofd fd = openat(dirfd, file, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return att_fail_errno(err, errno == ENOENT ? ATT_E_NOTFOUND : ATT_E_IO, "%s", file);
    }
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return att_io_read_file(path, max, ret, err);
}

enum att_rc certs_install_load(const char *dir, const char *name, struct att_buf *ret_chain_pem,
                               struct att_buf *ret_key_uri, struct att_err *err)
{
    att_autofd dirfd = -1, gensfd = -1;
    enum att_rc rc = open_dirs(dir, name, &dirfd, &gensfd, err);
    if (rc != ATT_OK) {
        return rc;
    }
    /* One open of the link: both files then come from one generation. */
    att_autofd fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return att_fail_errno(err, errno == ENOENT ? ATT_E_NOTFOUND : ATT_E_IO, "%s/%s", dir, name);
    }
    att_autobuf chain = {0}, uri = {0};
    rc = read_at(fd, "chain.pem", CERTS_CHAIN_MAX_LEN, &chain, err);
    if (rc == ATT_OK) {
        rc = read_at(fd, "key.uri", KEY_URI_MAX, &uri, err);
    }
    if (rc == ATT_OK && (uri.len < 2 || memchr(uri.ptr, '\n', uri.len) != uri.ptr + uri.len - 1)) {
        rc = att_fail(err, ATT_E_PARSE, "%s/%s/key.uri: expected one line", dir, name);
    }
    if (rc == ATT_OK) {
        att_buf_put_slice(ret_chain_pem, att_buf_slice(&chain));
        att_buf_put(ret_key_uri, uri.ptr, uri.len - 1);
        rc = att_buf_ok(ret_chain_pem, err);
    }
    return rc == ATT_OK ? att_buf_ok(ret_key_uri, err) : rc;
}

/* A generation's own key reference and that its chain is one. */
static bool is_for_key(int gensfd, const char *folder, const char *key_uri)
{
    att_autofd fd = openat(gensfd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    att_autobuf chain = {0}, uri = {0};
    certs_autostack *certs = NULL;
    size_t len = strlen(key_uri);
    return fd >= 0 && read_at(fd, "key.uri", KEY_URI_MAX, &uri, NULL) == ATT_OK &&
           uri.len == len + 1 && memcmp(uri.ptr, key_uri, len) == 0 &&
           read_at(fd, "chain.pem", CERTS_CHAIN_MAX_LEN, &chain, NULL) == ATT_OK &&
           certs_pem_parse(att_buf_slice(&chain), &certs, NULL) == ATT_OK;
}

static enum att_rc find_for_key(int gensfd, const char *name, const char *key_uri,
                                unsigned long long *ret, struct att_err *err)
{
    int fd = openat(gensfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ATT_CLEANUP(dir_cleanup) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        return att_fail_errno(err, ATT_E_IO, "%s", GENERATIONS);
    }
    *ret = 0;
    for (const struct dirent *e; (e = readdir(dir));) {
        unsigned long long gen = generation_of(e->d_name, name);
        if (gen > *ret && is_for_key(gensfd, e->d_name, key_uri)) {
            *ret = gen;
        }
    }
    return *ret ? ATT_OK : att_fail(err, ATT_E_NOTFOUND, "no chain of %s for that key", name);
}

enum att_rc certs_install_settle(const char *dir, const char *name, const char *key_uri,
                                 bool *ret_changed, struct att_err *err)
{
    att_autofd dirfd = -1, gensfd = -1;
    unsigned long long current = 0, right = 0;
    enum att_rc rc = open_dirs(dir, name, &dirfd, &gensfd, err);
    if (rc == ATT_OK) {
        rc = current_generation(dirfd, name, &current, err);
    }
    char folder[NAME_MAX + 1];
    snprintf(folder, sizeof folder, "%s.%llu", name, current);
    *ret_changed = false;
    if (rc != ATT_OK || (current && is_for_key(gensfd, folder, key_uri))) {
        return rc;
    }
    rc = find_for_key(gensfd, name, key_uri, &right, err);
    if (rc != ATT_OK) {
        return rc;
    }
    snprintf(folder, sizeof folder, "%s.%llu", name, right);
    rc = switch_link(dirfd, name, folder, err);
    if (rc == ATT_OK && fsync(dirfd) != 0) {
        rc = att_fail_errno(err, ATT_E_IO, "sync %s", dir);
    }
    *ret_changed = rc == ATT_OK;
    return rc;
}

enum att_rc certs_install_remove(const char *dir, const char *name, struct att_err *err)
{
    att_autofd dirfd = -1, gensfd = -1;
    struct att_err why = {0};
    enum att_rc rc = open_dirs(dir, name, &dirfd, &gensfd, &why);
    if (rc == ATT_E_NOTFOUND) {
        return ATT_OK;
    }
    if (rc != ATT_OK) {
        return att_fail(err, rc, "%s", why.msg);
    }
    if (unlinkat(dirfd, name, 0) != 0 && errno != ENOENT) {
        return att_fail_errno(err, ATT_E_IO, "remove %s/%s", dir, name);
    }
    if (fsync(dirfd) != 0) {
        return att_fail_errno(err, ATT_E_IO, "sync %s", dir);
    }
    return sweep(gensfd, name, 0, 0, err);
}
