/* One file of an agent's manifest, measured by descriptor: by fs-verity where it has it (constant
 * time: what is read is what was enabled), else by reading it. Runs in whod and in attestctl.
 *
 * What was read is remembered by (device, inode, ctime, mtime, size, generation), for a time that
 * the caller names: it cannot see a change below the file system, nor each one through a shared
 * mapping, and is the weaker thing. Files in memory (tmpfs) are read anew each time. */
#ifndef ATTESTD_WORKLOAD_MEASURE_H
#define ATTESTD_WORKLOAD_MEASURE_H

#include "attestd/base/hash.h"

#define WORKLOAD_MEASURE_PATH_MAX 1023
#define WORKLOAD_MEASURE_MAX      ((uint64_t)64 << 30) /* bytes that are read; more: fs-verity */
#define WORKLOAD_MEASURE_CACHE    8192                 /* files remembered */
#define WORKLOAD_NAMES_MAX        16384                /* names of one folder */
#define WORKLOAD_NAME_MAX         255

enum workload_kind {
    WORKLOAD_ABSENT = 0,
    WORKLOAD_REGULAR,
    WORKLOAD_SYMLINK,
    WORKLOAD_FOLDER,
    WORKLOAD_OTHER,      /* text: a file that the kernel makes up, a link on the way; or empty */
    WORKLOAD_UNREADABLE, /* what it is is not known now; why: text */
    WORKLOAD_NOT_YET,    /* the same: it was not read to its end by the deadline */
};

struct workload_measured {
    enum workload_kind kind;
    uint64_t size;
    bool has_verity, has_sha256; /* one of them of a WORKLOAD_REGULAR of the size */
    uint8_t verity[ATT_SHA256_LEN], sha256[ATT_SHA256_LEN];
    uint32_t dev_major, dev_minor; /* of the file system that a WORKLOAD_REGULAR lies on */
    char text[WORKLOAD_MEASURE_PATH_MAX + 1]; /* a link's target, or why */
};

/* Thread-safe. */
struct workload_measures;
ATT_MUST_USE enum att_rc workload_measures_new(struct workload_measures **ret_measures,
                                               struct att_err *err);
void workload_measures_free(struct workload_measures *measures);

struct workload_measuring {
    struct workload_measures *measures; /* NULL: nothing is remembered */
    int64_t max_age_s;                  /* how old what was read may be */
    int64_t deadline_ms;                /* CLOCK_BOOTTIME; reading ends then: WORKLOAD_NOT_YET */
    uint64_t size;                      /* a file of another is not read; UINT64_MAX: any */
};
/* root: a descriptor of the folder that is "/" for path. No symbolic link is followed. */
void workload_measure(int root, const char *path, const struct workload_measuring *how,
                      struct workload_measured *ret);

struct workload_name {
    char name[WORKLOAD_NAME_MAX + 1];
    enum workload_kind kind; /* WORKLOAD_UNREADABLE where it cannot be told */
};
/* The names in a folder, sorted by their bytes; the caller frees *ret_names. One that is not there
 * has none. ATT_E_DENIED: it is no folder, one that the kernel makes up, or a link is on the way.
 * ATT_E_IO: it cannot be read now. ATT_E_LIMIT. */
ATT_MUST_USE enum att_rc workload_list(int root, const char *path, struct workload_name **ret_names,
                                       size_t *ret_n, struct att_err *err);
/* Opens a file for reading in the same way; -1 and errno. */
int workload_measure_open(int root, const char *path);
/* fs-verity's digest of an open file, if it is SHA-256. */
bool workload_verity(int fd, uint8_t ret[ATT_SHA256_LEN]);

#endif
