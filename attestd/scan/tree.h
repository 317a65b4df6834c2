/* Opening and reading files that other users write, as root. Nothing but regular files and folders
 * is opened; a link is followed only where root or the caller made it, and none below a home or a
 * folder that was named. */
#ifndef ATTESTD_SCAN_TREE_H
#define ATTESTD_SCAN_TREE_H

#include "attestd/base/secret.h"
#include "attestd/scan/findings.h"
#include "attestd/scan/pairs.h"

#include <sys/stat.h>

#define SCAN_FILE_MAX  (((size_t)1 << 20) - 1)
#define SCAN_NAMES_MAX 16384 /* of one folder */

/* A folder from which paths go; paths never leave it, whatever they hold. */
struct scan_root {
    int fd;                 /* O_PATH */
    char at[SCAN_PATH_MAX]; /* how it is shown before a path: "" for "/", no '/' at the end */
    bool links;             /* those of root and the caller are followed */
    bool one_fs;            /* no other file system is entered */
    dev_t dev;
    uid_t owner; /* of a home: a hard link to a file of somebody else is not read */
    bool has_owner;
};

/* Opens path below root as a regular file (or, folder: as a folder); -1, and why. SCAN_SKIPS: it is
 * not there, which nobody needs to hear. */
int scan_open(const struct scan_root *root, const char *path, bool folder, struct stat *ret_st,
              enum scan_skip *ret_why);
/* A root below a root. False: as above. */
bool scan_root_below(const struct scan_root *root, const char *path, struct scan_root *ret,
                     enum scan_skip *ret_why);
void scan_root_done(struct scan_root *root);
/* "at/path"; false: it has no room. */
bool scan_show(const struct scan_root *root, const char *path, char ret[SCAN_PATH_MAX]);

/* Reads an open file into buf (SCAN_FILE_MAX + 1 bytes). False, and why: SCAN_SKIP_LARGE, _FAILED.
 * *ret_changed: it changed meanwhile, twice. */
bool scan_read(int fd, struct att_secret *buf, struct scan_text *ret_text, bool *ret_changed,
               enum scan_skip *ret_why);

/* The names of an open folder, sorted, in one block that the caller frees; closes fd. NULL: none,
 * or *ret_why is not SCAN_SKIPS. */
char **scan_names(int fd, size_t *ret_n, enum scan_skip *ret_why);

#endif
