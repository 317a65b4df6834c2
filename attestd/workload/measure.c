#include "attestd/workload/measure.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/workload/digest.h"
#include "attestd/workload/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/fsverity.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define FRESH_S 2 /* a ctime of the last seconds may hide a second change */

/* ---- what was read ---- */

struct key {
    uint64_t dev, ino, size, generation;
    int64_t ctime_s, mtime_s;
    int64_t ctime_ns, mtime_ns;
};
struct slot {
    struct key key;
    int64_t read_at_ms; /* 0: empty */
    uint64_t used;
    uint8_t sha256[ATT_SHA256_LEN];
};
struct workload_measures {
    pthread_mutex_t lock;
    uint64_t tick;
    struct slot slots[WORKLOAD_MEASURE_CACHE]; /* a file has eight places that it may be in */
};
#define WAYS 8

enum att_rc workload_measures_new(struct workload_measures **ret_measures, struct att_err *err)
{
    struct workload_measures *measures = calloc(1, sizeof *measures);
    if (!measures) {
        return att_fail(err, ATT_E_NOMEM, "digests of measured files");
    }
    pthread_mutex_init(&measures->lock, NULL);
    *ret_measures = measures;
    return ATT_OK;
}

void workload_measures_free(struct workload_measures *measures)
{
    if (measures) {
        pthread_mutex_destroy(&measures->lock);
        free(measures);
    }
}

/* Where the file system has none, the inode's number and ctime must do. */
static struct key key_of(int fd, const struct stat *st)
{
    unsigned long generation = 0; /* the ioctl writes an int */
    struct key key;
    memset(&key, 0, sizeof key); /* compared as bytes */
    key.dev = st->st_dev;
    key.ino = st->st_ino;
    key.size = (uint64_t)st->st_size;
    key.generation = ioctl(fd, FS_IOC_GETVERSION, &generation) == 0 ? generation : 0;
    key.ctime_s = st->st_ctim.tv_sec;
    key.ctime_ns = st->st_ctim.tv_nsec;
    key.mtime_s = st->st_mtim.tv_sec;
    key.mtime_ns = st->st_mtim.tv_nsec;
    return key;
}

static struct slot *places(struct workload_measures *measures, const struct key *key)
{
    uint64_t mixed = (key->ino ^ key->dev << 40) * 0x9e3779b97f4a7c15u;
    return &measures->slots[(mixed >> 32) % (WORKLOAD_MEASURE_CACHE / WAYS) * WAYS];
}

static bool recall(struct workload_measures *measures, const struct key *key, int64_t max_age_s,
                   uint8_t ret[ATT_SHA256_LEN])
{
    bool hit = false;
    int64_t now = att_boottime_ms();
    pthread_mutex_lock(&measures->lock);
    struct slot *slot = places(measures, key);
    for (size_t i = 0; i < WAYS && !hit; i++, slot += !hit) {
        hit = slot->read_at_ms && memcmp(&slot->key, key, sizeof *key) == 0 &&
              (now - slot->read_at_ms) / 1000 < max_age_s;
    }
    if (hit) {
        slot->used = ++measures->tick;
        memcpy(ret, slot->sha256, ATT_SHA256_LEN);
    }
    pthread_mutex_unlock(&measures->lock);
    return hit;
}

static void remember(struct workload_measures *measures, const struct key *key,
                     const uint8_t sha256[ATT_SHA256_LEN])
{
    pthread_mutex_lock(&measures->lock);
    struct slot *first = places(measures, key), *place = first;
    for (struct slot *slot = first; slot < first + WAYS; slot++) {
        if (slot->read_at_ms && slot->key.ino == key->ino && slot->key.dev == key->dev) {
            place = slot; /* what it was before is nobody's any more */
            break;
        }
        if (slot->used < place->used) {
            place = slot;
        }
    }
    *place = (struct slot){.key = *key, .read_at_ms = att_boottime_ms(), .used = ++measures->tick};
    memcpy(place->sha256, sha256, ATT_SHA256_LEN);
    pthread_mutex_unlock(&measures->lock);
}

/* ---- opening ---- */

static int find(int root, const char *path, uint64_t flags)
{
    struct open_how how = {.flags = flags | O_PATH | O_NOFOLLOW | O_CLOEXEC,
                           .resolve =
                               RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

int workload_measure_open(int root, const char *path)
{
    att_autofd found = find(root, path, 0);
    if (found < 0) {
        return -1;
    }
    errno = EINVAL;
    return workload_open_found(found);
}

static void unreadable(struct workload_measured *ret, const char *text)
{
    ret->kind = WORKLOAD_UNREADABLE;
    snprintf(ret->text, sizeof ret->text, "%s", text);
}

static const char link_on_the_way[] = "a symbolic link on the way to it";

/* Why there is no descriptor, by errno. */
static void not_found(struct workload_measured *ret)
{
    if (errno == ENOENT || errno == ENOTDIR) {
        ret->kind = WORKLOAD_ABSENT;
    } else if (errno == ELOOP) {
        ret->kind = WORKLOAD_OTHER;
        snprintf(ret->text, sizeof ret->text, "%s", link_on_the_way);
    } else {
        unreadable(ret, strerror(errno));
    }
}

/* ---- measuring ---- */

bool workload_verity(int fd, uint8_t ret[ATT_SHA256_LEN])
{
    union {
        struct fsverity_digest head;
        uint8_t bytes[sizeof(struct fsverity_digest) + 64];
    } digest = {.bytes = {0}};
    digest.head.digest_size = 64;
    if (ioctl(fd, FS_IOC_MEASURE_VERITY, &digest) != 0 ||
        digest.head.digest_algorithm != FS_VERITY_HASH_ALG_SHA256 ||
        digest.head.digest_size != ATT_SHA256_LEN) {
        return false;
    }
    memcpy(ret, digest.bytes + offsetof(struct fsverity_digest, digest), ATT_SHA256_LEN);
    return true;
}

static bool is_fresh(const struct key *key)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return key->ctime_s >= (int64_t)now.tv_sec - FRESH_S;
}

/* Files in memory (tmpfs, ramfs, hugetlbfs): writing to one through a mapping leaves its times
 * alone. */
static bool times_are_kept(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && (uint32_t)fs.f_type != TMPFS_MAGIC &&
           (uint32_t)fs.f_type != RAMFS_MAGIC && (uint32_t)fs.f_type != HUGETLBFS_MAGIC;
}

static void read_it(int fd, const struct stat *st, const struct workload_measuring *how,
                    struct workload_measured *ret)
{
    struct workload_measures *measures = times_are_kept(fd) ? how->measures : NULL;
    struct key key = key_of(fd, st);
    bool fresh = is_fresh(&key); /* when reading began */
    if (measures && recall(measures, &key, how->max_age_s, ret->sha256)) {
        ret->has_sha256 = true;
        return;
    }
    struct att_err err = {0};
    enum att_rc rc =
        workload_digest_until(fd, WORKLOAD_MEASURE_MAX, how->deadline_ms, ret->sha256, &err);
    if (rc != ATT_OK) {
        unreadable(ret, err.msg);
        ret->kind = rc == ATT_E_TIMEOUT ? WORKLOAD_NOT_YET : WORKLOAD_UNREADABLE;
        return;
    }
    struct stat after = *st;
    bool known = fstat(fd, &after) == 0;
    struct key then = key_of(fd, &after);
    ret->has_sha256 = true;
    ret->size = (uint64_t)after.st_size;
    if (measures && known && !fresh && memcmp(&key, &then, sizeof key) == 0) {
        remember(measures, &key, ret->sha256);
    }
}

static void measure_regular(int found, const struct stat *st, const struct workload_measuring *how,
                            struct workload_measured *ret)
{
    errno = 0;
    att_autofd fd = workload_open_found(found);
    if (fd < 0) {
        unreadable(ret, errno ? strerror(errno) : "a file that the kernel makes up");
        ret->kind = errno ? WORKLOAD_UNREADABLE : WORKLOAD_OTHER;
        return;
    }
    ret->kind = WORKLOAD_REGULAR;
    ret->size = (uint64_t)st->st_size;
    ret->dev_major = major(st->st_dev);
    ret->dev_minor = minor(st->st_dev);
    ret->has_verity = workload_verity(fd, ret->verity);
    if (!ret->has_verity && (how->size == UINT64_MAX || how->size == ret->size)) {
        read_it(fd, st, how, ret);
    }
}

void workload_measure(int root, const char *path, const struct workload_measuring *how,
                      struct workload_measured *ret)
{
    struct stat st;
    memset(ret, 0, sizeof *ret);
    att_autofd found = find(root, path, 0);
    if (found < 0) {
        not_found(ret);
    } else if (fstat(found, &st) != 0) {
        unreadable(ret, strerror(errno));
    } else if (S_ISREG(st.st_mode)) {
        measure_regular(found, &st, how, ret);
    } else if (S_ISLNK(st.st_mode)) {
        ssize_t len = readlinkat(found, "", ret->text, sizeof ret->text - 1);
        ret->kind = WORKLOAD_SYMLINK;
        ret->text[len > 0 ? len : 0] = 0;
    } else {
        ret->kind = S_ISDIR(st.st_mode) ? WORKLOAD_FOLDER : WORKLOAD_OTHER;
    }
}

/* ---- folders ---- */

static enum workload_kind kind_of(unsigned char type)
{
    return type == DT_REG   ? WORKLOAD_REGULAR
           : type == DT_LNK ? WORKLOAD_SYMLINK
           : type == DT_DIR ? WORKLOAD_FOLDER
                            : WORKLOAD_OTHER;
}

/* Some file systems tell no kinds. */
static enum workload_kind kind_at(int dir, const struct dirent *entry)
{
    struct stat st;
    if (entry->d_type != DT_UNKNOWN) {
        return kind_of(entry->d_type);
    }
    if (fstatat(dir, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
        return WORKLOAD_UNREADABLE;
    }
    return S_ISREG(st.st_mode)   ? WORKLOAD_REGULAR
           : S_ISLNK(st.st_mode) ? WORKLOAD_SYMLINK
           : S_ISDIR(st.st_mode) ? WORKLOAD_FOLDER
                                 : WORKLOAD_OTHER;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct workload_name *)a)->name, ((const struct workload_name *)b)->name);
}

static enum att_rc read_names(DIR *dir, const char *path, struct workload_name **ret_names,
                              size_t *ret_n, struct att_err *err)
{
    struct workload_name *names = NULL;
    size_t n = 0;
    errno = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL; errno = 0) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        if ((n & (n - 1)) == 0) {
            struct workload_name *more = realloc(names, (n ? 2 * n : 1) * sizeof *names);
            if (!more || n >= WORKLOAD_NAMES_MAX) {
                free(more ? more : names);
                return att_fail(err, more ? ATT_E_LIMIT : ATT_E_NOMEM,
                                "%.200s: more than %d names in it", path, WORKLOAD_NAMES_MAX);
            }
            names = more;
        }
        snprintf(names[n].name, sizeof names[n].name, "%s", entry->d_name);
        names[n++].kind = kind_at(dirfd(dir), entry);
    }
    if (errno) {
        enum att_rc rc = att_fail_errno(err, ATT_E_IO, "%.200s", path);
        free(names);
        return rc;
    }
    if (n) {
        qsort(names, n, sizeof *names, by_name);
    }
    *ret_names = names;
    *ret_n = n;
    return ATT_OK;
}

enum att_rc workload_list(int root, const char *path, struct workload_name **ret_names,
                          size_t *ret_n, struct att_err *err)
{
    *ret_names = NULL;
    *ret_n = 0;
    att_autofd found = find(root, path, 0);
    if (found < 0 && errno == ENOENT) {
        return ATT_OK;
    }
    if (found < 0 && (errno == ELOOP || errno == ENOTDIR)) {
        return att_fail(err, ATT_E_DENIED, "%s", errno == ELOOP ? link_on_the_way : "not a folder");
    }
    struct stat st;
    if (found < 0 || fstat(found, &st) != 0) {
        return att_fail_errno(err, ATT_E_IO, "%.200s", path);
    }
    if (!S_ISDIR(st.st_mode)) {
        return att_fail(err, ATT_E_DENIED, "not a folder");
    }
    if (workload_is_made_up(found)) {
        return att_fail(err, ATT_E_DENIED, "a folder that the kernel makes up");
    }
    int fd = openat(found, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        enum att_rc rc = att_fail_errno(err, ATT_E_IO, "%.200s", path);
        att_close(&fd);
        return rc;
    }
    enum att_rc rc = read_names(dir, path, ret_names, ret_n, err);
    closedir(dir);
    return rc;
}
