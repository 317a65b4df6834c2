#include "attestd/scan/tree.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define DEPTH_MAX 40
#define LINKS_MAX 20

/* Where a walk stands: descriptors of the folders on the way, O_PATH. */
struct walk {
    const struct scan_root *root;
    int fds[DEPTH_MAX];
    size_t depth;
    char rest[2 * SCAN_PATH_MAX], part[NAME_MAX + 1];
    unsigned links;
};

static enum scan_skip why_of(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return SCAN_SKIPS;
    case EACCES:
    case EPERM:
        return SCAN_SKIP_DENIED;
    case ELOOP:
        return SCAN_SKIP_LINK;
    default:
        return SCAN_SKIP_FAILED;
    }
}

static void back_to(struct walk *w, size_t depth)
{
    while (w->depth > depth) {
        close(w->fds[--w->depth]);
    }
}

static int here(const struct walk *w)
{
    return w->depth ? w->fds[w->depth - 1] : w->root->fd;
}

/* The first component of the rest, taken. */
static bool component(struct walk *w)
{
    char *from = w->rest + strspn(w->rest, "/");
    size_t len = strcspn(from, "/");
    if (len == 0 || len > NAME_MAX) {
        return false;
    }
    memcpy(w->part, from, len);
    w->part[len] = 0;
    memmove(w->rest, from + len, strlen(from + len) + 1);
    return true;
}

/* fd is of a link: puts where it leads before the rest. */
static bool follow(struct walk *w, int fd, const struct stat *st, enum scan_skip *why)
{
    char target[SCAN_PATH_MAX], whole[2 * SCAN_PATH_MAX];
    bool trusted = st->st_uid == 0 || st->st_uid == geteuid();
    *why = SCAN_SKIP_LINK;
    if (!w->root->links || !trusted || ++w->links > LINKS_MAX) {
        return false;
    }
    ssize_t n = readlinkat(fd, "", target, sizeof target - 1);
    if (n <= 0) {
        *why = SCAN_SKIP_FAILED;
        return false;
    }
    target[n] = 0;
    if ((size_t)snprintf(whole, sizeof whole, "%s/%s", target, w->rest) >= sizeof whole) {
        return false;
    }
    strcpy(w->rest, whole);
    if (target[0] == '/') {
        back_to(w, 0);
    }
    return true;
}

/* The last component: opened for what it was seen to be. A device is not opened at all. */
static int finish(const struct walk *w, int seen, const char *part, bool folder, struct stat *st,
                  enum scan_skip *why)
{
    struct stat now;
    if (folder ? !S_ISDIR(st->st_mode) : !S_ISREG(st->st_mode)) {
        *why = folder || S_ISDIR(st->st_mode) ? SCAN_SKIPS : SCAN_SKIP_SPECIAL;
        return -1;
    }
    if (!folder && w->root->has_owner && st->st_nlink > 1 && st->st_uid != w->root->owner) {
        *why = SCAN_SKIP_LINK;
        return -1;
    }
    int fd = openat(here(w), part,
                    O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC |
                        (folder ? O_DIRECTORY : 0));
    (void)seen;
    if (fd < 0) {
        *why = why_of(errno);
        return -1;
    }
    if (fstat(fd, &now) != 0 || now.st_dev != st->st_dev || now.st_ino != st->st_ino ||
        (now.st_mode & S_IFMT) != (st->st_mode & S_IFMT)) {
        *why = SCAN_SKIP_CHANGED;
        close(fd);
        return -1;
    }
    *st = now;
    return fd;
}

/* Asked without a word to the file system: one that a user serves need not answer (FUSE). */
static bool other_fs(const struct walk *w, int fd)
{
    const int how = AT_EMPTY_PATH | AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT;
    struct statx st;
    return w->root->one_fs && statx(fd, "", how, 0, &st) == 0 &&
           makedev(st.stx_dev_major, st.stx_dev_minor) != w->root->dev;
}

static int step(struct walk *w, bool folder, struct stat *st, enum scan_skip *why, bool *ret_done)
{
    const char *part = w->part;
    *ret_done = true;
    *why = SCAN_SKIPS;
    if (!component(w)) {
        return -1;
    }
    bool last = w->rest[strspn(w->rest, "/")] == 0;
    *ret_done = false;
    if (strcmp(part, ".") == 0 && !last) {
        return -1;
    }
    if (strcmp(part, "..") == 0 || strcmp(part, ".") == 0) {
        back_to(w, w->depth && part[1] ? w->depth - 1 : w->depth);
        *ret_done = last;
        return -1;
    }
    *ret_done = true;
    int fd = openat(here(w), part, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && other_fs(w, fd)) {
        *why = SCAN_SKIP_OTHER_FS;
    } else if (fd < 0 || fstat(fd, st) != 0) {
        *why = why_of(errno);
    } else if (S_ISLNK(st->st_mode)) {
        *ret_done = !follow(w, fd, st, why);
    } else if (w->root->one_fs && st->st_dev != w->root->dev) {
        *why = SCAN_SKIP_OTHER_FS;
    } else if (last) {
        int got = finish(w, fd, part, folder, st, why);
        close(fd);
        return got;
    } else if (!S_ISDIR(st->st_mode)) {
        *why = SCAN_SKIPS;
    } else if (w->depth == DEPTH_MAX) {
        *why = SCAN_SKIP_MANY;
    } else {
        w->fds[w->depth++] = fd;
        *ret_done = false;
        return -1;
    }
    if (fd >= 0) {
        close(fd);
    }
    return -1;
}

int scan_open(const struct scan_root *root, const char *path, bool folder, struct stat *ret_st,
              enum scan_skip *ret_why)
{
    struct walk *w = calloc(1, sizeof *w);
    bool done = false;
    int fd = -1;
    *ret_why = SCAN_SKIP_FAILED;
    if (w && strlen(path) < SCAN_PATH_MAX) {
        w->root = root;
        strcpy(w->rest, path);
        while (!done) {
            fd = step(w, folder, ret_st, ret_why, &done);
        }
        back_to(w, 0);
        att_wipe(w, sizeof *w); /* a path may be what stands in a path's place */
    }
    free(w);
    return fd;
}

bool scan_show(const struct scan_root *root, const char *path, char ret[SCAN_PATH_MAX])
{
    path += strspn(path, "/");
    return (size_t)snprintf(ret, SCAN_PATH_MAX, "%s/%s", root->at, path) < SCAN_PATH_MAX;
}

bool scan_root_below(const struct scan_root *root, const char *path, struct scan_root *ret,
                     enum scan_skip *ret_why)
{
    struct stat st;
    int fd = scan_open(root, path, true, &st, ret_why);
    if (fd < 0) {
        return false;
    }
    *ret = (struct scan_root){.fd = fd, .one_fs = true, .dev = st.st_dev};
    if (!scan_show(root, path, ret->at)) {
        close(fd);
        *ret_why = SCAN_SKIP_FAILED;
        return false;
    }
    for (size_t n = strlen(ret->at); n && ret->at[n - 1] == '/';) {
        ret->at[--n] = 0;
    }
    return true;
}

void scan_root_done(struct scan_root *root)
{
    if (root->fd >= 0) {
        close(root->fd);
        root->fd = -1;
    }
}

/* ---- reading ---- */

static bool same(const struct stat *a, const struct stat *b)
{
    return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static ssize_t read_all(int fd, struct att_secret *buf)
{
    size_t len = 0;
    while (len < buf->len) {
        ssize_t n = pread(fd, buf->ptr + len, buf->len - len, (off_t)len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? -1 : (ssize_t)len;
        }
        len += (size_t)n;
    }
    return (ssize_t)len;
}

bool scan_read(int fd, struct att_secret *buf, struct scan_text *ret_text, bool *ret_changed,
               enum scan_skip *ret_why)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        struct stat before, after;
        *ret_why = SCAN_SKIP_FAILED;
        if (fstat(fd, &before) != 0) {
            return false;
        }
        if (before.st_size > (off_t)SCAN_FILE_MAX) {
            *ret_why = SCAN_SKIP_LARGE;
            return false;
        }
        ssize_t len = read_all(fd, buf);
        if (len < 0 || fstat(fd, &after) != 0) {
            *ret_why = len < 0 ? why_of(errno) : SCAN_SKIP_FAILED;
            return false;
        }
        if ((size_t)len > SCAN_FILE_MAX) { /* it grew, or the kernel makes it up */
            *ret_why = SCAN_SKIP_LARGE;
            return false;
        }
        *ret_text = (struct scan_text){buf->ptr, (size_t)len};
        *ret_changed = !same(&before, &after);
        if (!*ret_changed) {
            return true;
        }
    }
    return true;
}

/* ---- folders ---- */

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

char **scan_names(int fd, size_t *ret_n, enum scan_skip *ret_why)
{
    DIR *dir = fdopendir(fd);
    size_t used = 0, cap = 0, n = 0;
    char *block = NULL;
    *ret_n = 0;
    *ret_why = SCAN_SKIPS;
    if (!dir) {
        *ret_why = SCAN_SKIP_FAILED;
        close(fd);
        return NULL;
    }
    for (struct dirent *d; (d = readdir(dir));) {
        size_t len = strlen(d->d_name) + 1;
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0) {
            continue;
        }
        if (n == SCAN_NAMES_MAX) {
            *ret_why = SCAN_SKIP_MANY;
            break;
        }
        if (used + len > cap) {
            cap = 2 * cap + 4096;
            char *bigger = realloc(block, cap);
            if (!bigger) {
                *ret_why = SCAN_SKIP_FAILED;
                break;
            }
            block = bigger;
        }
        memcpy(block + used, d->d_name, len);
        used += len;
        n++;
    }
    closedir(dir);
    /* One block: the pointers, then the names. */
    char **names = n ? malloc(n * sizeof *names + used) : NULL;
    if (names) {
        char *texts = (char *)(names + n);
        memcpy(texts, block, used);
        for (size_t i = 0, at = 0; i < n; at += strlen(texts + at) + 1, i++) {
            names[i] = texts + at;
        }
        qsort(names, n, sizeof *names, by_bytes);
        *ret_n = n;
    } else if (n) {
        *ret_why = SCAN_SKIP_FAILED;
    }
    free(block);
    return names;
}
