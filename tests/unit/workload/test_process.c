/* Who is calling, with real processes: what is told is true of one process at one instant, or it is
 * not told. As root also across users and namespaces; without root what needs it is left out. */
#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/workload/caller.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* A child that tells when it is ready and waits to be ended. */
struct child {
    pid_t pid;
    int pidfd, out;
};

static int own_pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

/* Runs argv; ready when it wrote a byte to its standard output. */
static struct child spawn_as(const char *const *argv, uid_t uid, const char *dir)
{
    int out[2];
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    struct child c = {.pid = fork()};
    if (c.pid == 0) {
        dup2(out[1], 1);
        if ((dir && chdir(dir) != 0) || (uid && (setgid(uid) != 0 || setuid(uid) != 0))) {
            _exit(125);
        }
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(126);
    }
    close(out[1]);
    char byte;
    assert_int_equal(read(out[0], &byte, 1), 1);
    c.out = out[0];
    c.pidfd = own_pidfd(c.pid);
    assert_true(c.pidfd >= 0);
    return c;
}

static struct child spawn(const char *const *argv)
{
    return spawn_as(argv, 0, NULL);
}

static void end(struct child *c)
{
    kill(c->pid, SIGKILL);
    waitpid(c->pid, NULL, 0);
    close(c->pidfd);
    close(c->out);
}

#define READY "import os,time; os.write(1, b'.'); time.sleep(60)"
static const char *const python[] = {"/usr/bin/python3", "-c", READY, NULL};

struct fixture {
    struct workload_cache *cache;
    char dir[64];
};

static void in_dir(const struct fixture *f, const char *name, char ret[128])
{
    snprintf(ret, 128, "%s/%s", f->dir, name);
}

static void write_text(const char *path, const char *text, mode_t mode)
{
    assert_int_equal(att_io_write_file(path, att_slice_str(text), mode, NULL), ATT_OK);
    assert_int_equal(chmod(path, mode), 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_int_equal(workload_cache_new(16, &f->cache, NULL), ATT_OK);
    snprintf(f->dir, sizeof f->dir, "/tmp/att-who.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    assert_int_equal(chmod(f->dir, 0755), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    workload_cache_free(f->cache);
    free(f);
    return 0;
}

static enum att_rc who(struct fixture *f, const struct child *c, const char *file,
                       struct workload_caller *ret, struct att_err *err)
{
    struct workload_process process = {.pidfd = -1, .dir = -1};
    struct att_slice files[] = {att_slice_str(file)};
    enum att_rc rc = workload_process_open(c->pidfd, c->pid, 0, &process, err);
    if (rc == ATT_OK) {
        rc = workload_process_look(&process, f->cache, files, file ? 1 : 0, ret, err);
    }
    workload_process_done(&process);
    return rc;
}

static void digest_of(const char *path, uint8_t ret[ATT_SHA256_LEN])
{
    att_autofd fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(workload_digest(fd, WORKLOAD_EXE_MAX, ret, NULL), ATT_OK);
}

/* ---- refusals ---- */

static void test_process_refuses_what_is_no_pidfd(void **state)
{
    struct fixture *f = *state;
    struct child c = {.pid = getpid(), .pidfd = open("/dev/null", O_RDONLY)};
    struct workload_caller caller;
    struct att_err err = {0};
    assert_int_equal(who(f, &c, NULL, &caller, &err), ATT_E_INVAL);
    assert_string_equal(err.reason, "notPidfd");
    close(c.pidfd);
}

static void test_process_refuses_another_pid(void **state)
{
    struct fixture *f = *state;
    struct child c = spawn(python);
    struct child lie = {.pid = getpid(), .pidfd = c.pidfd};
    struct workload_caller caller;
    struct att_err err = {0};
    assert_int_equal(who(f, &lie, NULL, &caller, &err), ATT_E_DENIED);
    assert_string_equal(err.reason, "pidMismatch");
    end(&c);
}

static void test_process_refuses_one_that_ended(void **state)
{
    struct fixture *f = *state;
    struct workload_caller caller;
    struct child c = spawn(python);
    kill(c.pid, SIGKILL);
    siginfo_t info;
    assert_int_equal(waitid(P_PID, (id_t)c.pid, &info, WEXITED | WNOWAIT), 0);
    assert_int_equal(who(f, &c, NULL, &caller, NULL), ATT_E_GONE); /* a zombie */
    waitpid(c.pid, NULL, 0);
    assert_int_equal(who(f, &c, NULL, &caller, NULL), ATT_E_GONE);
    close(c.pidfd);
    close(c.out);
}

/* The connection was accepted before this process began: the pid was another's then. */
static void test_process_refuses_one_that_began_after_the_accept(void **state)
{
    (void)state;
    int64_t accepted_ms = att_boottime_ms();
    usleep(50000);
    struct child c = spawn(python);
    struct workload_process process = {.pidfd = -1, .dir = -1};
    struct att_err err = {0};
    assert_int_equal(workload_process_open(c.pidfd, c.pid, accepted_ms, &process, &err),
                     ATT_E_DENIED);
    assert_string_equal(err.reason, "pidReused");
    assert_int_equal(workload_process_open(c.pidfd, c.pid, att_boottime_ms(), &process, NULL),
                     ATT_OK);
    workload_process_done(&process);
    end(&c);
}

/* A pid given away again, for real: the caller ends, and another process gets its number. */
static void test_process_sees_a_reused_pid(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        skip();
    }
    struct child c = spawn(python);
    int64_t accepted_ms = att_boottime_ms();
    kill(c.pid, SIGKILL);
    waitpid(c.pid, NULL, 0);
    usleep(50000);
    pid_t again = c.pid;
    struct clone_args args = {
        .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&again, .set_tid_size = 1};
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0) {
        pause();
        _exit(0);
    }
    assert_int_equal(pid, c.pid);
    struct workload_process process = {.pidfd = -1, .dir = -1};
    struct att_err err = {0};
    /* The pidfd of the first: its number lives on, it does not. */
    assert_int_equal(workload_process_open(c.pidfd, c.pid, 0, &process, NULL), ATT_E_GONE);
    /* pidfd_open after the reuse, as before Linux 6.5: only the start time tells. */
    struct child other = {.pid = pid, .pidfd = own_pidfd(pid), .out = c.out};
    assert_int_equal(workload_process_open(other.pidfd, pid, accepted_ms, &process, &err),
                     ATT_E_DENIED);
    assert_string_equal(err.reason, "pidReused");
    close(c.pidfd);
    end(&other);
}

/* ---- what is told ---- */

static void test_process_tells_user_program_and_parent(void **state)
{
    struct fixture *f = *state;
    struct child c = spawn(python);
    struct workload_caller caller;
    uint8_t sha256[ATT_SHA256_LEN];
    char path[64];
    assert_int_equal(who(f, &c, NULL, &caller, NULL), ATT_OK);
    snprintf(path, sizeof path, "/proc/%d/exe", (int)c.pid);
    digest_of(path, sha256);
    assert_memory_equal(caller.exe_sha256, sha256, sizeof sha256);
    assert_int_equal(caller.facts.uid, getuid());
    assert_int_equal(caller.facts.euid, geteuid());
    assert_int_equal(caller.facts.parent, getpid());
    assert_non_null(strstr(caller.exe_path, "python3"));
    assert_false(caller.script.known); /* -c */
    end(&c);
}

static void test_process_tells_a_stopped_one(void **state)
{
    struct fixture *f = *state;
    struct child c = spawn(python);
    struct workload_caller before, after;
    assert_int_equal(who(f, &c, NULL, &before, NULL), ATT_OK);
    kill(c.pid, SIGSTOP);
    assert_int_equal(waitpid(c.pid, NULL, WUNTRACED), c.pid);
    assert_int_equal(who(f, &c, NULL, &after, NULL), ATT_OK);
    assert_memory_equal(before.facts.identity, after.facts.identity, ATT_SHA256_LEN);
    end(&c);
}

/* exec of another program, and of the same one with another script, are other callers. */
static void check_exec(struct fixture *f, const char *code)
{
    const char *const argv[] = {"/usr/bin/python3", "-c", code, NULL};
    struct child c = spawn(argv);
    struct workload_caller before, after;
    assert_int_equal(who(f, &c, NULL, &before, NULL), ATT_OK);
    kill(c.pid, SIGUSR1);
    char byte;
    assert_int_equal(read(c.out, &byte, 1), 1);
    assert_int_equal(who(f, &c, NULL, &after, NULL), ATT_OK);
    assert_memory_not_equal(before.facts.identity, after.facts.identity, ATT_SHA256_LEN);
    assert_int_equal(before.facts.start_time, after.facts.start_time);
    end(&c);
}

static void test_process_exec_is_another_caller(void **state)
{
    check_exec(*state, "import os,signal,time\n"
                       "def go(*a): os.execvp('sh', ['sh', '-c', 'echo .; kill -STOP $$; :'])\n"
                       "signal.signal(signal.SIGUSR1, go)\n"
                       "os.write(1, b'.')\n"
                       "time.sleep(60)");
    check_exec(*state, "import os,signal,sys,time\n"
                       "def go(*a): os.execvp('/usr/bin/python3', ['python3', '-c', "
                       "'import os,time; os.write(1, b\".\"); time.sleep(60)'])\n"
                       "signal.signal(signal.SIGUSR1, go)\n"
                       "os.write(1, b'.')\n"
                       "time.sleep(60)");
}

static void test_process_fork_is_another_caller(void **state)
{
    struct fixture *f = *state;
    const char *const argv[] = {"/usr/bin/python3", "-c",
                                "import os,time\nr=os.fork()\n"
                                "os.write(1, b'%d\\n' % r) if r else time.sleep(60)\n"
                                "time.sleep(60)",
                                NULL};
    struct child c = spawn(argv);
    char path[64], text[64] = "";
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)c.pid, (int)c.pid);
    att_autofd fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
    struct child kid = {.pid = (pid_t)atoi(text), .out = -1};
    kid.pidfd = own_pidfd(kid.pid);
    struct workload_caller a, b;
    assert_int_equal(who(f, &c, NULL, &a, NULL), ATT_OK);
    assert_int_equal(who(f, &kid, NULL, &b, NULL), ATT_OK);
    assert_memory_not_equal(a.facts.identity, b.facts.identity, ATT_SHA256_LEN);
    assert_memory_equal(a.exe_sha256, b.exe_sha256, ATT_SHA256_LEN);
    kill(kid.pid, SIGKILL);
    close(kid.pidfd);
    end(&c);
}

/* ---- executables that went away ---- */

static void copy_program(const char *from, const char *to)
{
    char command[300];
    snprintf(command, sizeof command, "cp %s %s", from, to);
    assert_int_equal(system(command), 0);
}

static void test_process_tells_what_runs_not_what_lies_there(void **state)
{
    struct fixture *f = *state;
    char program[128], other[128];
    uint8_t sha256[ATT_SHA256_LEN];
    in_dir(f, "agent", program);
    in_dir(f, "other", other);
    copy_program("/bin/dash", program);
    digest_of(program, sha256);
    const char *const argv[] = {program, "-c", "echo .; kill -STOP $$; :", NULL};
    struct child c = spawn(argv);
    copy_program("/bin/cat", other);
    assert_int_equal(rename(other, program), 0); /* replaced while it runs */
    struct workload_caller caller;
    assert_int_equal(who(f, &c, NULL, &caller, NULL), ATT_OK);
    assert_memory_equal(caller.exe_sha256, sha256, sizeof sha256);
    assert_non_null(strstr(caller.exe_path, "(deleted)"));
    end(&c);
}

static void test_process_sees_a_program_changed_between_runs(void **state)
{
    struct fixture *f = *state;
    char program[128];
    struct workload_caller first, second;
    in_dir(f, "agent", program);
    copy_program("/bin/dash", program);
    const char *const argv[] = {program, "-c", "echo .; kill -STOP $$; :", NULL};
    struct child c = spawn(argv);
    assert_int_equal(who(f, &c, NULL, &first, NULL), ATT_OK);
    end(&c);
    /* The same inode and size, other bytes behind the ELF's end, times set back. */
    struct stat st;
    assert_int_equal(stat(program, &st), 0);
    att_autofd fd = open(program, O_WRONLY);
    assert_int_equal(pwrite(fd, "\xff", 1, st.st_size - 1), 1);
    const struct timespec times[] = {st.st_atim, st.st_mtim};
    assert_int_equal(futimens(fd, times), 0);
    att_close(&fd);
    c = spawn(argv);
    assert_int_equal(who(f, &c, NULL, &second, NULL), ATT_OK);
    assert_memory_not_equal(first.exe_sha256, second.exe_sha256, ATT_SHA256_LEN);
    end(&c);
}

/* ---- scripts and files ---- */

static void check_file(struct fixture *f, const struct child *c, const char *path, bool known);

#define SCRIPT "import os,sys,time\nos.write(1, b'.')\ntime.sleep(60)\n"

static void check_script(struct fixture *f, const char *const *argv, const char *dir,
                         const char *content)
{
    struct child c = spawn_as(argv, 0, dir);
    struct workload_caller caller;
    uint8_t sha256[ATT_SHA256_LEN];
    assert_int_equal(who(f, &c, NULL, &caller, NULL), ATT_OK);
    assert_int_equal(caller.script.known, content != NULL);
    if (content) {
        att_sha256(sha256, att_slice_str(content));
        assert_memory_equal(caller.script.sha256, sha256, sizeof sha256);
    }
    end(&c);
}

static void test_process_tells_the_script(void **state)
{
    struct fixture *f = *state;
    char script[128], exec[128], sub[128];
    in_dir(f, "a.py", script);
    in_dir(f, "b.py", exec);
    in_dir(f, "sub", sub);
    write_text(script, SCRIPT, 0644);
    write_text(exec, "#!/usr/bin/python3 -u\n" SCRIPT, 0755);
    assert_int_equal(mkdir(sub, 0755), 0);
    const char *const plain[] = {"/usr/bin/python3", "-u", "-W", "ignore", script, NULL};
    const char *const relative[] = {"/usr/bin/python3", "./a.py", "x", NULL};
    const char *const above[] = {"/usr/bin/python3", "../a.py", NULL};
    const char *const shebang[] = {exec, NULL};
    const char *const module[] = {"/usr/bin/python3", "-c", READY, script, NULL};
    check_script(f, plain, NULL, SCRIPT);
    check_script(f, relative, f->dir, SCRIPT);
    check_script(f, above, sub, SCRIPT);
    check_script(f, shebang, NULL, "#!/usr/bin/python3 -u\n" SCRIPT);
    check_script(f, module, NULL, NULL);
}

/* A command line is what its process says. Who names a file that the kernel makes up would have it
 * read with our rights, and reading some of them changes something (trace_pipe) or tells of us. */
static void test_process_does_not_read_what_the_kernel_makes_up(void **state)
{
    struct fixture *f = *state;
    char exe[128], command[300];
    in_dir(f, "python3", exe);
    snprintf(command, sizeof command, "cp /usr/bin/tail %s", exe);
    assert_int_equal(system(command), 0);
    static const char *const made_up[] = {"/proc/self/status", "/proc/version",
                                          "/sys/kernel/mm/transparent_hugepage/enabled"};
    for (size_t i = 0; i < sizeof made_up / sizeof made_up[0]; i++) {
        const char *const argv[] = {exe, made_up[i], "-f", NULL};
        if (access(made_up[i], R_OK) == 0) {
            check_script(f, argv, NULL, NULL);
        }
    }
    char real[128];
    in_dir(f, "real", real);
    write_text(real, "real", 0644);
    const char *const argv[] = {exe, real, "-f", NULL};
    check_script(f, argv, NULL, "real");
    struct child c = spawn(python);
    check_file(f, &c, "/proc/version", false);
    check_file(f, &c, "/proc/self/environ", false);
    end(&c);
}

/* The documented limit: one uid's processes are not isolated from each other. A library that is
 * loaded into the program runs its own code, and nothing that is told shows it. */
static void test_process_does_not_see_what_is_loaded_into_a_program(void **state)
{
    struct fixture *f = *state;
    char script[128], module[128], path[160];
    in_dir(f, "agent.py", script);
    in_dir(f, "sitecustomize.py", module);
    write_text(script, SCRIPT, 0644);
    write_text(module, "import os\nos.write(1, b'!')\n", 0644);
    const char *const argv[] = {"/usr/bin/python3", script, NULL};
    struct child honest = spawn(argv);
    snprintf(path, sizeof path, "%s", f->dir);
    assert_int_equal(setenv("PYTHONPATH", path, 1), 0);
    int out[2];
    assert_int_equal(pipe2(out, O_CLOEXEC), 0);
    struct child lured = {.pid = fork(), .out = out[0]};
    if (lured.pid == 0) {
        dup2(out[1], 1);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(126);
    }
    close(out[1]);
    unsetenv("PYTHONPATH");
    char bytes[2];
    assert_int_equal(att_io_read_exact(lured.out, (uint8_t *)bytes, 2, NULL), ATT_OK);
    assert_int_equal(bytes[0], '!'); /* other code ran in it */
    lured.pidfd = own_pidfd(lured.pid);
    struct workload_caller a, b;
    assert_int_equal(who(f, &honest, NULL, &a, NULL), ATT_OK);
    assert_int_equal(who(f, &lured, NULL, &b, NULL), ATT_OK);
    assert_memory_equal(a.exe_sha256, b.exe_sha256, ATT_SHA256_LEN);
    assert_true(a.script.known && b.script.known);
    assert_memory_equal(a.script.sha256, b.script.sha256, ATT_SHA256_LEN);
    end(&honest);
    end(&lured);
}

static void check_file(struct fixture *f, const struct child *c, const char *path, bool known)
{
    struct workload_caller caller;
    int64_t before = att_boottime_ms();
    assert_int_equal(who(f, c, path, &caller, NULL), ATT_OK);
    assert_true(att_boottime_ms() - before < 3000);
    assert_int_equal(caller.n_files, 1);
    assert_int_equal(caller.files[0].known, known);
}

static void test_process_reads_regular_files_only(void **state)
{
    struct fixture *f = *state;
    char path[128], target[128];
    struct child c = spawn(python);
    in_dir(f, "fifo", path);
    assert_int_equal(mkfifo(path, 0644), 0);
    check_file(f, &c, path, false);
    check_file(f, &c, f->dir, false);
    check_file(f, &c, "/dev/zero", false);
    check_file(f, &c, "/proc/self/mem", false);
    check_file(f, &c, "/proc/self/exe", false); /* a magic link: would be our own program */
    check_file(f, &c, "/no/such/file", false);
    check_file(f, &c, "relative", false);
    in_dir(f, "large", path);
    write_text(path, "x", 0644);
    assert_int_equal(truncate(path, (off_t)WORKLOAD_FILE_MAX + 1), 0);
    check_file(f, &c, path, false);
    in_dir(f, "manifest", target);
    write_text(target, "{}", 0600);
    check_file(f, &c, target, true);
    in_dir(f, "link", path);
    assert_int_equal(symlink(target, path), 0);
    check_file(f, &c, path, true);
    end(&c);
}

/* ---- other users and namespaces (root) ---- */

static void test_process_tells_another_user(void **state)
{
    struct fixture *f = *state;
    if (geteuid() != 0) {
        skip();
    }
    struct child c = spawn_as(python, 54321, NULL);
    struct workload_caller caller;
    assert_int_equal(who(f, &c, NULL, &caller, NULL), ATT_OK);
    assert_int_equal(caller.facts.uid, 54321);
    assert_int_equal(caller.facts.gid, 54321);
    end(&c);
}

/* Without privilege another user's program cannot be seen: refused, and it says why. */
static void test_process_says_when_it_may_not_look(void **state)
{
    struct fixture *f = *state;
    if (geteuid() != 0) {
        skip();
    }
    struct child c = spawn(python);
    pid_t pid = fork();
    if (pid == 0) {
        struct workload_caller caller;
        struct att_err err = {0};
        bool ok = setgid(54321) == 0 && setuid(54321) == 0 &&
                  who(f, &c, NULL, &caller, &err) == ATT_E_DENIED &&
                  strcmp(err.reason, "unreadable") == 0;
        _exit(ok ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    end(&c);
}

/* A container: its own pid and mount namespaces and another root. The manifest is the one it sees,
 * and an absolute link in there leads to its own files, not to ours. */
static void test_process_reads_in_the_callers_root(void **state)
{
    struct fixture *f = *state;
    char root[128], path[160], ours[128];
    if (geteuid() != 0) {
        skip();
    }
    in_dir(f, "root", root);
    in_dir(f, "manifest", ours);
    write_text(ours, "the host's", 0644);
    assert_int_equal(mkdir(root, 0755), 0);
    char command[1500];
    snprintf(
        command, sizeof command,
        "mount --make-rprivate / 2>/dev/null; " /* fails in a chroot that is no mount of its own */
        "mount -t tmpfs none %s && mkdir -p %s%s %s/old && printf 'its own' > %s%s/manifest && "
        "ln -s %s/manifest %s/link && cp /bin/busybox %s/agent 2>/dev/null; "
        "cd %s && exec env -i /usr/bin/python3 -c 'import os,time\n"
        "os.chroot(\".\"); os.chdir(\"/\"); os.write(1, b\".\"); time.sleep(60)'",
        root, root, f->dir, root, root, f->dir, f->dir, root, root, root);
    const char *const argv[] = {"unshare",   "--mount", "--pid", "--fork", "--propagation",
                                "unchanged", "sh",      "-c",    command,  NULL};
    struct child c = spawn(argv);
    /* The process inside: unshare's child. */
    char text[64] = "";
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)c.pid, (int)c.pid);
    att_autofd fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && read(fd, text, sizeof text - 1) > 0);
    struct child in = {.pid = (pid_t)atoi(text)};
    in.pidfd = own_pidfd(in.pid);
    struct workload_caller caller;
    uint8_t sha256[ATT_SHA256_LEN];
    att_sha256(sha256, ATT_SLICE_LIT("its own"));
    assert_int_equal(who(f, &in, ours, &caller, NULL), ATT_OK);
    assert_true(caller.files[0].known);
    assert_memory_equal(caller.files[0].sha256, sha256, sizeof sha256);
    assert_int_equal(who(f, &in, "/link", &caller, NULL), ATT_OK);
    assert_true(caller.files[0].known);
    assert_memory_equal(caller.files[0].sha256, sha256, sizeof sha256);
    assert_int_equal(who(f, &in, "/../../../etc/passwd", &caller, NULL), ATT_OK);
    assert_false(caller.files[0].known);
    assert_non_null(strstr(caller.exe_path, "python3"));
    kill(in.pid, SIGKILL);
    close(in.pidfd);
    end(&c);
}

/* A cgroup v2 tree as systemd lays it out: a unit, and one that a user made up below its own. */
static void check_unit(struct fixture *f, const char *mount, const char *cgroup, const char *unit)
{
    char path[300], command[700];
    snprintf(path, sizeof path, "%s/%s", mount, cgroup);
    snprintf(command, sizeof command, "mkdir -p %s", path);
    assert_int_equal(system(command), 0);
    struct child c = spawn(python);
    struct workload_caller before, caller;
    assert_int_equal(who(f, &c, NULL, &before, NULL), ATT_OK);
    snprintf(command, sizeof command, "echo %d > %s/cgroup.procs", (int)c.pid, path);
    assert_int_equal(system(command), 0);
    assert_int_equal(who(f, &c, NULL, &caller, NULL), ATT_OK);
    assert_string_equal(caller.facts.unit, unit);
    assert_memory_not_equal(before.facts.identity, caller.facts.identity, ATT_SHA256_LEN);
    end(&c);
    while (rmdir(path) == 0 && strlen(path) > strlen(mount) + 1) {
        *strrchr(path, '/') = 0;
    }
}

static void test_process_tells_the_unit(void **state)
{
    struct fixture *f = *state;
    const char *mount = access("/sys/fs/cgroup/cgroup.controllers", R_OK) == 0
                            ? "/sys/fs/cgroup"
                            : "/sys/fs/cgroup/unified";
    char probe[128];
    snprintf(probe, sizeof probe, "%s/att-test-%d.slice", mount, (int)getpid());
    if (mkdir(probe, 0755) != 0) {
        skip(); /* no cgroup v2, or none that is ours to change */
    }
    rmdir(probe);
    char cgroup[200];
    snprintf(cgroup, sizeof cgroup, "att-test-%d.slice/rebalancer.service", (int)getpid());
    check_unit(f, mount, cgroup, "rebalancer.service");
    snprintf(cgroup, sizeof cgroup,
             "att-test-%d.slice/user@1000.service/app.slice/rebalancer.service", (int)getpid());
    check_unit(f, mount, cgroup, "user@1000.service");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_process_refuses_what_is_no_pidfd, setup, teardown),
        cmocka_unit_test_setup_teardown(test_process_refuses_another_pid, setup, teardown),
        cmocka_unit_test_setup_teardown(test_process_refuses_one_that_ended, setup, teardown),
        cmocka_unit_test_setup_teardown(test_process_refuses_one_that_began_after_the_accept, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_process_sees_a_reused_pid, setup, teardown),
        cmocka_unit_test_setup_teardown(test_process_tells_user_program_and_parent, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_process_tells_a_stopped_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_process_exec_is_another_caller, setup, teardown),
        cmocka_unit_test_setup_teardown(test_process_fork_is_another_caller, setup, teardown),
        cmocka_unit_test_setup_teardown(test_process_tells_what_runs_not_what_lies_there, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_process_sees_a_program_changed_between_runs, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_process_tells_the_script, setup, teardown),
        cmocka_unit_test_setup_teardown(test_process_does_not_read_what_the_kernel_makes_up, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_process_does_not_see_what_is_loaded_into_a_program,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_process_reads_regular_files_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_process_tells_another_user, setup, teardown),
        cmocka_unit_test_setup_teardown(test_process_says_when_it_may_not_look, setup, teardown),
        cmocka_unit_test_setup_teardown(test_process_reads_in_the_callers_root, setup, teardown),
        cmocka_unit_test_setup_teardown(test_process_tells_the_unit, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
