/* The files of a process: executable, script, manifests. */
#include "attestd/workload/caller.h"

#include "attestd/base/io.h"
#include "attestd/base/text.h"
#include "attestd/workload/cmdline.h"
#include "attestd/workload/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define CMDLINE_MAX ((size_t)32 << 10)

/* ---- opening in the process's own root ---- */

static int open_in(int root, const char *path)
{
    struct open_how how = {.flags = O_PATH | O_CLOEXEC,
                           .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

/* Where the link cwd or root leads, as text in the process's mount namespace. */
static bool link_text(int dir, const char *name, char ret[PATH_MAX])
{
    ssize_t len = readlinkat(dir, name, ret, PATH_MAX);
    if (len <= 0 || len >= PATH_MAX || ret[0] != '/') {
        return false;
    }
    ret[len] = 0;
    return true;
}

/* The working folder as a path below the process's root; only if that path leads to the very folder
 * (it may have been removed, or lie outside of the root). */
static bool find_cwd(int dir, int root, char ret[PATH_MAX])
{
    char top[PATH_MAX], cwd[PATH_MAX];
    if (!link_text(dir, "root", top) || !link_text(dir, "cwd", cwd)) {
        return false;
    }
    size_t skip = strcmp(top, "/") == 0 ? 0 : strlen(top);
    if (skip && (strncmp(cwd, top, skip) != 0 || (cwd[skip] != '/' && cwd[skip] != 0))) {
        return false;
    }
    snprintf(ret, PATH_MAX, "%s", cwd[skip] ? cwd + skip : "/");
    att_autofd is = openat(dir, "cwd", O_PATH | O_DIRECTORY | O_CLOEXEC);
    att_autofd found = open_in(root, ret);
    struct stat a, b;
    return is >= 0 && found >= 0 && fstat(is, &a) == 0 && fstat(found, &b) == 0 &&
           a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* A path as the process sees it, found without opening the file: a FIFO or device is not touched.
 */
static int find_file(int dir, const char *path)
{
    char cwd[PATH_MAX], whole[2 * PATH_MAX];
    att_autofd root = openat(dir, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) {
        return -1;
    }
    if (path[0] == '/') {
        return open_in(root, path);
    }
    if (!find_cwd(dir, root, cwd)) {
        return -1;
    }
    snprintf(whole, sizeof whole, "%s/%s", cwd, path);
    return open_in(root, whole);
}

/* Files that the kernel makes up while they are read look regular. What some of them tell is not
 * their reader's alone, and reading others does something (trace_pipe); the path is the caller's,
 * the rights are ours. */
bool workload_is_made_up(int found)
{
    static const long kinds[] = {
        PROC_SUPER_MAGIC,
        SYSFS_MAGIC,
        DEBUGFS_MAGIC,
        TRACEFS_MAGIC,
        SECURITYFS_MAGIC,
        SELINUX_MAGIC,
        SMACK_MAGIC,
        CGROUP_SUPER_MAGIC,
        BPF_FS_MAGIC,
        CGROUP2_SUPER_MAGIC,
        RDTGROUP_SUPER_MAGIC,
        EFIVARFS_MAGIC,
        BINFMTFS_MAGIC,
        PSTOREFS_MAGIC,
        NSFS_MAGIC,
        0x62656570 /* configfs */,
        0x65735543 /* fusectl */,
        0x6e667364 /* nfsd */,
        0x67596969 /* rpc_pipefs */,
    };
    struct statfs fs;
    if (fstatfs(found, &fs) != 0) {
        return true;
    }
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if ((uint32_t)fs.f_type == (uint32_t)kinds[i]) {
            return true;
        }
    }
    return false;
}

int workload_open_found(int found)
{
    struct stat st;
    if (fstat(found, &st) != 0 || !S_ISREG(st.st_mode) || workload_is_made_up(found)) {
        return -1;
    }
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", found);
    return open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static struct workload_digest digest_in(int dir, const char *path)
{
    struct workload_digest digest = {0};
    att_autofd found = find_file(dir, path);
    att_autofd fd = found < 0 ? -1 : workload_open_found(found);
    digest.known = fd >= 0 && workload_digest(fd, WORKLOAD_FILE_MAX, digest.sha256, NULL) == ATT_OK;
    return digest;
}

/* ---- the three kinds ---- */

static enum att_rc look_exe(int dir, struct workload_cache *cache, struct workload_caller *caller,
                            struct att_err *err)
{
    ssize_t len = readlinkat(dir, "exe", caller->exe_path, WORKLOAD_PATH_MAX);
    if (len < 0) {
        return workload_proc_fail(err, "exe");
    }
    caller->exe_path[len] = 0;
    att_autofd fd = openat(dir, "exe", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        return workload_proc_fail(err, "exe");
    }
    enum att_rc rc = workload_cache_digest(cache, fd, caller->exe_sha256, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "executable %.200s", caller->exe_path);
    }
    return rc;
}

static void look_script(int dir, struct workload_caller *caller)
{
    static const char gone[] = " (deleted)"; /* it was replaced, by an upgrade perhaps */
    att_autobuf cmdline = ATT_BUF_INIT(CMDLINE_MAX);
    struct att_slice script, exe = att_slice_str(caller->exe_path);
    size_t tail = sizeof gone - 1;
    if (exe.len > tail && memcmp(exe.ptr + exe.len - tail, gone, tail) == 0) {
        exe.len -= tail;
    }
    if (workload_proc_read(dir, "cmdline", CMDLINE_MAX, &cmdline, NULL) != ATT_OK ||
        !workload_cmdline_script(exe, att_buf_slice(&cmdline), &script) ||
        script.len > WORKLOAD_PATH_MAX) {
        return;
    }
    memcpy(caller->script_path, script.ptr, script.len);
    caller->script_path[script.len] = 0;
    caller->script = digest_in(dir, caller->script_path);
    if (!caller->script.known) {
        caller->script_path[0] = 0;
    }
}

static void look_file(int dir, struct att_slice file, struct workload_digest *ret)
{
    char path[WORKLOAD_PATH_MAX + 1];
    if (file.len == 0 || file.len > WORKLOAD_PATH_MAX || file.ptr[0] != '/' ||
        memchr(file.ptr, 0, file.len)) {
        return;
    }
    memcpy(path, file.ptr, file.len);
    path[file.len] = 0;
    *ret = digest_in(dir, path);
}

enum att_rc workload_process_look(const struct workload_process *process,
                                  struct workload_cache *cache, const struct att_slice *files,
                                  size_t n_files, struct workload_caller *ret_caller,
                                  struct att_err *err)
{
    struct workload_caller caller = {.facts = process->facts, .n_files = n_files};
    if (n_files > WORKLOAD_FILES_MAX) {
        return att_fail(err, ATT_E_LIMIT, "%zu files, at most %d", n_files, WORKLOAD_FILES_MAX);
    }
    enum att_rc rc = look_exe(process->dir, cache, &caller, err);
    if (rc != ATT_OK) {
        return rc;
    }
    look_script(process->dir, &caller);
    for (size_t i = 0; i < n_files; i++) {
        look_file(process->dir, files[i], &caller.files[i]);
    }
    rc = workload_process_again(process, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_text_clean(caller.exe_path);
    att_text_clean(caller.script_path);
    *ret_caller = caller;
    return ATT_OK;
}
