#include "attestd/proc/landlock.h"

#include "attestd/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Ours, from the kernel's documented ABI: libc has no wrappers and older headers lack later bits.
 */
#ifndef SYS_landlock_create_ruleset
#define SYS_landlock_create_ruleset 444
#define SYS_landlock_add_rule       445
#define SYS_landlock_restrict_self  446
#endif
#define GET_ABI   1u
#define RULE_PATH 1

enum {
    FS_EXECUTE = 1 << 0,
    FS_WRITE_FILE = 1 << 1,
    FS_READ_FILE = 1 << 2,
    FS_READ_DIR = 1 << 3,
    FS_REMOVE_DIR = 1 << 4,
    FS_REMOVE_FILE = 1 << 5,
    FS_MAKE_CHAR = 1 << 6,
    FS_MAKE_DIR = 1 << 7,
    FS_MAKE_REG = 1 << 8,
    FS_MAKE_SOCK = 1 << 9,
    FS_MAKE_FIFO = 1 << 10,
    FS_MAKE_BLOCK = 1 << 11,
    FS_MAKE_SYM = 1 << 12,
    FS_REFER = 1 << 13,     /* ABI 2 */
    FS_TRUNCATE = 1 << 14,  /* ABI 3 */
    FS_IOCTL_DEV = 1 << 15, /* ABI 5 */
};

#define RIGHTS_READ (FS_READ_FILE | FS_READ_DIR)
#define RIGHTS_WRITE                                                                               \
    (RIGHTS_READ | FS_WRITE_FILE | FS_REMOVE_DIR | FS_REMOVE_FILE | FS_MAKE_DIR | FS_MAKE_REG |    \
     FS_MAKE_SOCK | FS_MAKE_SYM | FS_REFER | FS_TRUNCATE)
#define RIGHTS_DEVICE (FS_READ_FILE | FS_WRITE_FILE)
/* The rights that a rule on a file, as opposed to a folder, may name. */
#define RIGHTS_FILE (FS_EXECUTE | FS_WRITE_FILE | FS_READ_FILE | FS_TRUNCATE | FS_IOCTL_DEV)

struct ruleset_attr {
    uint64_t handled_fs; /* the first member is all that ABI 1 … 3 know, and all we use */
};

struct __attribute__((packed)) path_attr {
    uint64_t allowed;
    int32_t fd;
};

static uint64_t handled_rights(int abi)
{
    uint64_t all = FS_REFER - 1;
    all |= abi >= 2 ? FS_REFER : 0;
    all |= abi >= 3 ? FS_TRUNCATE : 0;
    all |= abi >= 5 ? FS_IOCTL_DEV : 0;
    return all;
}

static uint64_t rights_of(const struct proc_sandbox_path *path)
{
    switch (path->access) {
    case PROC_PATH_READ:
        return RIGHTS_READ;
    case PROC_PATH_WRITE:
        return RIGHTS_WRITE;
    case PROC_PATH_DEVICE:
        return RIGHTS_DEVICE;
    case PROC_PATH_MODULE:
        return RIGHTS_WRITE | FS_IOCTL_DEV;
    }
    return 0;
}

static enum att_rc add_rule(int ruleset, const struct proc_sandbox_path *path, uint64_t handled,
                            struct att_err *err)
{
    att_autofd fd = open(path->path, O_PATH | O_CLOEXEC);
    if (fd < 0) {
        /* Not there, or not ours to see: then it stays unreachable. */
        return errno == ENOENT || errno == ENOTDIR || errno == EACCES
                   ? ATT_OK
                   : att_fail_errno(err, ATT_E_IO, "%s", path->path);
    }
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return att_fail_errno(err, ATT_E_IO, "%s", path->path);
    }
    uint64_t rights = rights_of(path) & handled;
    struct path_attr attr = {S_ISDIR(st.st_mode) ? rights : rights & RIGHTS_FILE, fd};
    if (syscall(SYS_landlock_add_rule, ruleset, RULE_PATH, &attr, 0) != 0) {
        return att_fail_errno(err, ATT_E_UNSUPPORTED, "landlock rule for %s", path->path);
    }
    return ATT_OK;
}

/* What every program of ours reads after its start: libraries that are loaded late (name service,
 * TCTI, OpenSSL modules), trust anchors, time zone, resolver. */
static const struct proc_sandbox_path common_paths[] = {
    {"/usr", PROC_PATH_READ},
    {"/lib", PROC_PATH_READ},
    {"/lib64", PROC_PATH_READ},
    {"/etc/ld.so.cache", PROC_PATH_READ},
    {"/etc/ssl", PROC_PATH_READ},
    {"/etc/localtime", PROC_PATH_READ},
    {"/etc/passwd", PROC_PATH_READ},
    {"/etc/group", PROC_PATH_READ},
    {"/etc/nsswitch.conf", PROC_PATH_READ},
    {"/etc/resolv.conf", PROC_PATH_READ},
    {"/run/systemd/resolve", PROC_PATH_READ},
    {"/etc/hosts", PROC_PATH_READ},
    {"/etc/host.conf", PROC_PATH_READ},
    {"/etc/gai.conf", PROC_PATH_READ},
    {"/proc/self", PROC_PATH_READ},
    {"/proc/sys/crypto/fips_enabled", PROC_PATH_READ},
    {"/sys/devices/system/cpu", PROC_PATH_READ},
    {"/dev/urandom", PROC_PATH_READ},
    {"/dev/null", PROC_PATH_DEVICE},
    {NULL, PROC_PATH_READ},
};

static enum att_rc add_rules(int ruleset, const struct proc_sandbox_path *paths, uint64_t handled,
                             struct att_err *err)
{
    for (; paths && paths->path; paths++) {
        enum att_rc rc = add_rule(ruleset, paths, handled, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    return ATT_OK;
}

enum att_rc proc_landlock_enter(const struct proc_sandbox_path *paths, int *ret_abi,
                                char *ret_reason, size_t reason_room, struct att_err *err)
{
    *ret_abi = 0;
    long abi = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, GET_ABI);
    if (abi < 1) {
        snprintf(ret_reason, reason_room, "no Landlock in this kernel (%s)", strerror(errno));
        return ATT_OK;
    }
    struct ruleset_attr attr = {handled_rights((int)abi)};
    att_autofd ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
    if (ruleset < 0) {
        return att_fail_errno(err, ATT_E_UNSUPPORTED, "landlock_create_ruleset");
    }
    enum att_rc rc = add_rules(ruleset, common_paths, attr.handled_fs, err);
    if (rc == ATT_OK) {
        rc = add_rules(ruleset, paths, attr.handled_fs, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    if (syscall(SYS_landlock_restrict_self, ruleset, 0) != 0) {
        return att_fail_errno(err, ATT_E_UNSUPPORTED, "landlock_restrict_self");
    }
    *ret_abi = (int)abi;
    return ATT_OK;
}
