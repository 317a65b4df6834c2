#include "attestd/workload/caller.h"

#include "attestd/base/io.h"
#include "attestd/base/text.h"
#include "attestd/workload/internal.h"
#include "attestd/workload/text.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

void workload_process_done(struct workload_process *process)
{
    att_close(&process->dir);
    process->pidfd = -1;
}

enum att_rc workload_refuse(struct att_err *err, enum att_rc rc, const char *reason,
                            const char *text)
{
    (void)!att_fail(err, rc, "%s", text);
    att_err_reason(err, reason);
    return rc;
}

/* What an errno under /proc/PID means. */
enum att_rc workload_proc_fail(struct att_err *err, const char *what)
{
    if (errno == ENOENT || errno == ESRCH) {
        return att_fail(err, ATT_E_GONE, "the process has ended");
    }
    if (errno == EACCES || errno == EPERM) {
        (void)!att_fail(err, ATT_E_DENIED,
                        "/proc/PID/%s cannot be read (CAP_SYS_PTRACE is needed for "
                        "other users' processes)",
                        what);
        att_err_reason(err, "unreadable");
        return ATT_E_DENIED;
    }
    return att_fail_errno(err, ATT_E_IO, "/proc/PID/%s", what);
}

enum att_rc workload_proc_read(int dir, const char *name, size_t max, struct att_buf *ret_text,
                               struct att_err *err)
{
    att_autofd fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return workload_proc_fail(err, name);
    }
    att_buf_reset(ret_text);
    for (;;) {
        uint8_t part[4096];
        ssize_t got = read(fd, part, sizeof part);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return workload_proc_fail(err, name);
        }
        if (got == 0) {
            return att_buf_ok(ret_text, err);
        }
        size_t room = max - ret_text->len;
        att_buf_put(ret_text, part, (size_t)got < room ? (size_t)got : room);
        if ((size_t)got >= room) {
            return att_buf_ok(ret_text, err); /* the beginning is what counts */
        }
    }
}

/* ---- is it this process, and does it live ---- */

static enum att_rc check_pidfd(int pidfd, pid_t pid, struct att_err *err)
{
    char path[64];
    uint32_t seen = 0;
    att_autobuf text = ATT_BUF_INIT(4096);
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    enum att_rc rc = att_io_read_file(path, 4096, &text, err);
    if (rc == ATT_OK) {
        rc = workload_fdinfo_parse(att_buf_slice(&text), &seen, err);
    }
    if (rc == ATT_OK && (pid_t)seen != pid) {
        (void)!att_fail(err, ATT_E_DENIED, "the pidfd is process %u's, not %d's", seen, (int)pid);
        att_err_reason(err, "pidMismatch");
        rc = ATT_E_DENIED;
    }
    return rc;
}

/* A pidfd is readable from the process's end on, as a zombie too. A stopped one is alive. */
static enum att_rc check_alive(int pidfd, struct att_err *err)
{
    struct pollfd fd = {.fd = pidfd, .events = POLLIN};
    int got = poll(&fd, 1, 0);
    if (got < 0) {
        return att_fail_errno(err, ATT_E_IO, "poll of a pidfd");
    }
    return got == 0 ? ATT_OK : att_fail(err, ATT_E_GONE, "the process has ended");
}

static enum att_rc check_start(uint64_t start_time, int64_t accepted_ms, struct att_err *err)
{
    long per_s = sysconf(_SC_CLK_TCK);
    uint64_t hz = per_s > 0 ? (uint64_t)per_s : 100;
    /* Its tick's beginning: what began within the tick of the accept is let through. */
    uint64_t started_ms = start_time / hz * 1000 + start_time % hz * 1000 / hz;
    if (accepted_ms > 0 && started_ms > (uint64_t)accepted_ms) {
        return workload_refuse(err, ATT_E_DENIED, "pidReused",
                               "the process began after the connection was accepted: its pid was "
                               "another's");
    }
    return ATT_OK;
}

/* ---- facts ---- */

static enum att_rc read_ids(int dir, struct workload_facts *facts, struct workload_stat *stat,
                            struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(WORKLOAD_PROC_MAX);
    struct workload_status status;
    enum att_rc rc = workload_proc_read(dir, "stat", WORKLOAD_PROC_MAX, &text, err);
    if (rc == ATT_OK) {
        rc = workload_stat_parse(att_buf_slice(&text), stat, err);
    }
    if (rc == ATT_OK) {
        rc = workload_proc_read(dir, "status", WORKLOAD_PROC_MAX, &text, err);
    }
    if (rc == ATT_OK) {
        rc = workload_status_parse(att_buf_slice(&text), &status, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    if (status.tgid != status.pid || status.pid != stat->pid) {
        return workload_refuse(err, ATT_E_DENIED, "notProcess", "it is a thread, not a process");
    }
    if (stat->state == 'Z' || stat->state == 'X') {
        return att_fail(err, ATT_E_GONE, "the process has ended");
    }
    facts->pid = stat->pid;
    facts->parent = status.parent;
    facts->start_time = stat->start_time;
    facts->uid = status.uid[WORKLOAD_REAL];
    facts->euid = status.uid[WORKLOAD_EFFECTIVE];
    facts->gid = status.gid[WORKLOAD_REAL];
    return ATT_OK;
}

/* systemd keeps each running unit's id where libsystemd looks for it, and on the cgroup. */
static void read_invocation(struct workload_facts *facts)
{
    char path[WORKLOAD_CGROUP_MAX + 64], id[33] = "";
    if (!facts->unit[0]) {
        return;
    }
    snprintf(path, sizeof path, "/run/systemd/units/invocation:%s", facts->unit);
    ssize_t len = readlink(path, id, sizeof id);
    if (len != 32) {
        snprintf(path, sizeof path, "/sys/fs/cgroup%s", facts->cgroup);
        len = getxattr(path, "user.invocation_id", id, sizeof id);
    }
    if (len == 32 && workload_invocation_ok(ATT_SLICE(id, 32))) {
        memcpy(facts->invocation_id, id, 32);
    }
}

static enum att_rc read_cgroup(int dir, struct workload_facts *facts, struct att_buf *raw,
                               struct att_err *err)
{
    struct att_slice path = ATT_SLICE_LIT("/");
    enum att_rc rc = workload_proc_read(dir, "cgroup", WORKLOAD_PROC_MAX, raw, err);
    if (rc == ATT_OK) {
        rc = workload_cgroup_parse(att_buf_slice(raw), &path, err);
    }
    if (rc == ATT_E_NOTFOUND) { /* no unified hierarchy: no unit, and nothing to compare */
        att_err_clear(err);
        att_buf_reset(raw);
        return ATT_OK;
    }
    if (rc != ATT_OK) {
        return rc;
    }
    struct att_slice unit = workload_cgroup_unit(path);
    memcpy(facts->unit, unit.ptr ? (const char *)unit.ptr : "", unit.len);
    size_t len = path.len < WORKLOAD_CGROUP_MAX ? path.len : WORKLOAD_CGROUP_MAX;
    memcpy(facts->cgroup, path.ptr, len);
    facts->cgroup[len] = 0;
    read_invocation(facts);
    att_text_clean(facts->cgroup);
    return ATT_OK;
}

/* What the identity is made of: all facts, the raw cgroup, the executable's inode, and where the
 * stack began, which execve chooses anew (an interpreter that runs itself again with another script
 * is another caller). */
static enum att_rc make_identity(struct workload_facts *facts, const struct workload_stat *stat,
                                 const struct stat *exe, const struct att_buf *cgroup,
                                 struct att_err *err)
{
    att_autobuf all = {0};
    att_buf_put_str(&all, "attestd caller 1");
    att_buf_be32(&all, facts->pid);
    att_buf_be64(&all, facts->start_time);
    att_buf_be64(&all, stat->start_stack);
    att_buf_be32(&all, facts->uid);
    att_buf_be32(&all, facts->euid);
    att_buf_be32(&all, facts->gid);
    att_buf_be64(&all, exe->st_dev);
    att_buf_be64(&all, exe->st_ino);
    att_buf_be64(&all, (uint64_t)exe->st_size);
    att_buf_be64(&all, (uint64_t)exe->st_ctim.tv_sec);
    att_buf_be64(&all, (uint64_t)exe->st_ctim.tv_nsec);
    att_buf_field_be32(&all, att_slice_str(facts->invocation_id));
    att_buf_field_be32(&all, att_buf_slice(cgroup));
    enum att_rc rc = att_buf_ok(&all, err);
    if (rc == ATT_OK) {
        att_sha256(facts->identity, att_buf_slice(&all));
    }
    return rc;
}

static enum att_rc read_facts(int dir, struct workload_facts *ret_facts, struct att_err *err)
{
    struct workload_facts facts = {0};
    struct workload_stat stat = {0};
    struct stat exe = {0};
    att_autobuf cgroup = ATT_BUF_INIT(WORKLOAD_PROC_MAX);
    enum att_rc rc = read_ids(dir, &facts, &stat, err);
    if (rc == ATT_OK) {
        rc = read_cgroup(dir, &facts, &cgroup, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    att_autofd fd = openat(dir, "exe", O_PATH | O_CLOEXEC);
    if (fd < 0) {
        return workload_proc_fail(err, "exe");
    }
    if (fstat(fd, &exe) != 0) {
        return att_fail_errno(err, ATT_E_IO, "/proc/PID/exe");
    }
    rc = make_identity(&facts, &stat, &exe, &cgroup, err);
    if (rc == ATT_OK) {
        *ret_facts = facts;
    }
    return rc;
}

enum att_rc workload_process_again(const struct workload_process *process, struct att_err *err)
{
    struct workload_facts facts;
    enum att_rc rc = read_facts(process->dir, &facts, err);
    if (rc == ATT_OK) {
        rc = check_alive(process->pidfd, err);
    }
    if (rc == ATT_OK &&
        memcmp(facts.identity, process->facts.identity, sizeof facts.identity) != 0) {
        rc = att_fail(err, ATT_E_GONE,
                      "the process became another while it was looked at (exec, "
                      "user or unit)");
    }
    return rc;
}

enum att_rc workload_process_open(int pidfd, pid_t pid, int64_t accepted_ms,
                                  struct workload_process *ret_process, struct att_err *err)
{
    struct workload_process process = {.pidfd = pidfd, .dir = -1};
    char path[32];
    enum att_rc rc = check_pidfd(pidfd, pid, err);
    if (rc != ATT_OK) {
        return rc;
    }
    snprintf(path, sizeof path, "/proc/%d", (int)pid);
    process.dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (process.dir < 0) {
        return workload_proc_fail(err, "");
    }
    rc = check_alive(pidfd, err); /* from here on the folder is the pidfd's process's */
    if (rc == ATT_OK) {
        rc = read_facts(process.dir, &process.facts, err);
    }
    if (rc == ATT_OK) {
        rc = check_start(process.facts.start_time, accepted_ms, err);
    }
    if (rc == ATT_OK) {
        rc = workload_process_again(&process, err);
    }
    if (rc != ATT_OK) {
        workload_process_done(&process);
        return rc;
    }
    *ret_process = process;
    return ATT_OK;
}
