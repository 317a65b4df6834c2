/* What is refused inside, tried for real: each probe runs in a child that has entered. */
#include "attestd/proc/sandbox.h"

#include "attestd/base/secret.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];

enum { WORKED = 0, REFUSED = 10, ODD = 20, NOT_ENTERED = 30, KILLED = 40 };

static int entered(enum proc_profile profile, int (*probe)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        const struct proc_sandbox_path paths[] = {{folder, PROC_PATH_WRITE},
                                                  {NULL, PROC_PATH_READ}};
        const struct proc_sandbox_opts opts = {profile, paths, false};
        struct proc_sandbox_report report;
        struct att_err err = {0};
        if (proc_sandbox_enter(&opts, &report, &err) != ATT_OK) {
            fprintf(stderr, "sandbox: %s\n", err.msg);
            _exit(NOT_ENTERED);
        }
        _exit(probe());
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status)) {
        return WTERMSIG(status) == SIGSYS ? KILLED : ODD;
    }
    return WEXITSTATUS(status);
}

static int outcome(long result, int wanted_errno)
{
    return result >= 0 ? WORKED : errno == wanted_errno ? REFUSED : ODD;
}

static int probe_exec(void)
{
    char *const none[] = {NULL};
    return outcome(execve("/bin/true", none, none), EPERM);
}
static int probe_ptrace(void)
{
    return outcome(ptrace(PTRACE_TRACEME, 0, NULL, NULL), EPERM);
}
static int probe_read_memory(void)
{
    char mine[8];
    struct iovec local = {mine, sizeof mine}, remote = {folder, sizeof mine};
    return outcome(process_vm_readv(getppid(), &local, 1, &remote, 1, 0), EPERM);
}
static int probe_inet(void)
{
    return outcome(socket(AF_INET, SOCK_STREAM, 0), EPERM);
}
static int probe_inet6(void)
{
    return outcome(socket(AF_INET6, SOCK_DGRAM, 0), EPERM);
}
static int probe_unix(void)
{
    return outcome(socket(AF_UNIX, SOCK_STREAM, 0), EPERM);
}
static int probe_read_outside(void)
{
    return outcome(open("/etc/shadow", O_RDONLY), EACCES);
}
static int probe_list_outside(void)
{
    return outcome(open("/root", O_RDONLY | O_DIRECTORY), EACCES);
}
static int probe_write_outside(void)
{
    return outcome(open("/tmp/att-sandbox-must-not-be", O_WRONLY | O_CREAT, 0600), EACCES);
}
static int probe_write_system(void)
{
    return outcome(open("/usr/att-sandbox-must-not-be", O_WRONLY | O_CREAT, 0600), EACCES);
}
static int probe_write_as_whod(void)
{
    char path[96];
    snprintf(path, sizeof path, "%s/x", folder);
    return outcome(open(path, O_WRONLY | O_CREAT, 0600), EPERM);
}
static int probe_cut_as_whod(void)
{
    return outcome(open("/etc/hostname", O_RDONLY | O_TRUNC), EPERM);
}
static int probe_unlink_as_whod(void)
{
    return outcome(unlink("/tmp/att-sandbox-is-not-there"), EPERM);
}
static int probe_look(void)
{
    char path[64], target[8];
    snprintf(path, sizeof path, "/proc/%d/exe", (int)getppid());
    int fd = open(path, O_RDONLY);
    return fd >= 0 && readlink(path, target, sizeof target) > 0 ? WORKED : ODD;
}
static int probe_write_inside(void)
{
    char from[96], to[96];
    snprintf(from, sizeof from, "%s/x", folder);
    snprintf(to, sizeof to, "%s/y", folder);
    int fd = open(from, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    return fd >= 0 && write(fd, "1", 1) == 1 && fsync(fd) == 0 && rename(from, to) == 0 &&
                   unlink(to) == 0
               ? WORKED
               : ODD;
}
static int probe_kill(void)
{
    return outcome(kill(getppid(), 0), EPERM);
}
static int probe_fork(void)
{
    long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        _exit(0);
    }
    return outcome(pid, EPERM);
}
static int probe_mount(void)
{
    return outcome(syscall(SYS_unshare, 0x10000000), EPERM);
}
static int probe_setuid(void)
{
    return outcome(syscall(SYS_setresuid, 1, 1, 1), EPERM);
}
static void *nothing(void *arg)
{
    return arg;
}
static int probe_thread(void)
{
    pthread_t thread;
    return pthread_create(&thread, NULL, nothing, NULL) == 0 && pthread_join(thread, NULL) == 0
               ? WORKED
               : ODD;
}
static int probe_more_threads(void)
{
    pthread_t thread;
    int rc = pthread_create(&thread, NULL, nothing, NULL);
    errno = rc;
    return rc == 0 ? WORKED : outcome(-1, EPERM);
}
static int probe_secret(void)
{
    struct att_secret secret = {0};
    enum att_rc rc = att_secret_new(&secret, 32, NULL);
    att_secret_done(&secret);
    return rc == ATT_OK ? WORKED : ODD;
}
static int probe_limits(void)
{
    struct rlimit core;
    getrlimit(RLIMIT_CORE, &core);
    return prctl(PR_GET_DUMPABLE) == 0 && prctl(PR_GET_NO_NEW_PRIVS) >= -1 && core.rlim_cur == 0 &&
                   core.rlim_max == 0
               ? WORKED
               : ODD;
}
static int probe_raise_limit(void)
{
    const struct rlimit some = {0, 0};
    return outcome(setrlimit(RLIMIT_NOFILE, &some), EPERM);
}

/* Refused in every build. */
static void hostile_calls_are_refused(void **state)
{
    (void)state;
    int (*const probes[])(void) = {probe_exec, probe_ptrace, probe_read_memory};
    for (int profile = PROC_PROFILE_KEYD; profile <= PROC_PROFILE_WHOD; profile++) {
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(entered((enum proc_profile)profile, probes[i]),
                             ATT_SANITIZED ? REFUSED : KILLED);
        }
    }
}

static void keyd_has_no_network(void **state)
{
    (void)state;
    assert_int_equal(entered(PROC_PROFILE_KEYD, probe_inet), REFUSED);
    assert_int_equal(entered(PROC_PROFILE_KEYD, probe_inet6), REFUSED);
    assert_int_equal(entered(PROC_PROFILE_KEYD, probe_unix), WORKED);
    assert_int_equal(entered(PROC_PROFILE_ATTESTD, probe_inet), WORKED);
    assert_int_equal(entered(PROC_PROFILE_ISSUERD, probe_inet6), WORKED);
}

/* whod looks at other processes, and changes nothing. */
static void whod_reads_and_does_not_write(void **state)
{
    (void)state;
    assert_int_equal(entered(PROC_PROFILE_WHOD, probe_inet), REFUSED);
    assert_int_equal(entered(PROC_PROFILE_WHOD, probe_inet6), REFUSED);
    assert_int_equal(entered(PROC_PROFILE_WHOD, probe_look), WORKED);
    assert_int_equal(entered(PROC_PROFILE_WHOD, probe_thread), WORKED);
    assert_int_equal(entered(PROC_PROFILE_WHOD, probe_limits), WORKED);
    if (ATT_SANITIZED) {
        skip(); /* the relaxed profile is a deny-list */
    }
    assert_int_equal(entered(PROC_PROFILE_WHOD, probe_write_as_whod), REFUSED);
    assert_int_equal(entered(PROC_PROFILE_WHOD, probe_cut_as_whod), REFUSED);
    assert_int_equal(entered(PROC_PROFILE_WHOD, probe_unlink_as_whod), REFUSED);
}

static int probe_packet(void)
{
    return outcome(socket(AF_PACKET, SOCK_RAW, 0), EAFNOSUPPORT);
}
static int probe_no_family(void)
{
    return outcome(socket(4711, SOCK_STREAM, 0), EAFNOSUPPORT);
}
static int probe_inet_of_module(void)
{
    return outcome(socket(AF_INET, SOCK_STREAM, 0), EAFNOSUPPORT);
}
static int probe_keyring(void)
{
    return outcome(syscall(SYS_keyctl, 0, -3, 0), EPERM);
}
static int probe_ring(void)
{
    return outcome(syscall(SYS_io_uring_setup, 1, NULL), EPERM);
}
static int probe_unshare(void)
{
    return outcome(syscall(SYS_unshare, 0x10000000), EPERM);
}

/* A vendor's module: the same list in every build; only the network is a question of the profile.
 */
static void a_module_is_held(void **state)
{
    (void)state;
    int (*const refused[])(void) = {
        probe_exec,   probe_ptrace,  probe_read_memory, probe_fork,      probe_mount, probe_setuid,
        probe_packet, probe_keyring, probe_unshare,     probe_no_family, probe_ring};
    int (*const works[])(void) = {probe_unix, probe_thread, probe_write_inside};
    for (int profile = PROC_PROFILE_HSMD; profile <= PROC_PROFILE_HSMD_NETWORK; profile++) {
        enum proc_profile p = (enum proc_profile)profile;
        for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
            if (entered(p, refused[i]) != REFUSED) {
                fail_msg("probe %zu in profile %d: %d", i, profile, entered(p, refused[i]));
            }
        }
        for (size_t i = 0; i < sizeof works / sizeof works[0]; i++) {
            assert_int_equal(entered(p, works[i]), WORKED);
        }
    }
    assert_int_equal(entered(PROC_PROFILE_HSMD, probe_inet_of_module), REFUSED);
    assert_int_equal(entered(PROC_PROFILE_HSMD_NETWORK, probe_inet_of_module), WORKED);
}

static bool have_landlock(void)
{
    return syscall(444, NULL, (size_t)0, 1u) > 0;
}

static void files_outside_cannot_be_opened(void **state)
{
    (void)state;
    if (!have_landlock()) {
        skip();
    }
    /* As root: the file modes would let it. */
    for (int profile = PROC_PROFILE_KEYD; profile <= PROC_PROFILE_ISSUERD; profile++) {
        enum proc_profile p = (enum proc_profile)profile;
        assert_int_equal(entered(p, probe_read_outside), REFUSED);
        assert_int_equal(entered(p, probe_list_outside), REFUSED);
        assert_int_equal(entered(p, probe_write_outside), REFUSED);
        assert_int_equal(entered(p, probe_write_system), REFUSED);
        assert_int_equal(entered(p, probe_write_inside), WORKED);
    }
    assert_int_equal(entered(PROC_PROFILE_HSMD, probe_read_outside), REFUSED);
    assert_int_equal(entered(PROC_PROFILE_HSMD, probe_write_outside), REFUSED);
    assert_int_equal(entered(PROC_PROFILE_HSMD_NETWORK, probe_list_outside), REFUSED);
    assert_int_not_equal(access("/tmp/att-sandbox-must-not-be", F_OK), 0);
}

static void unlisted_calls_are_refused(void **state)
{
    (void)state;
    if (ATT_SANITIZED) {
        skip(); /* the relaxed profile is a deny-list */
    }
    int (*const probes[])(void) = {probe_kill, probe_fork, probe_mount, probe_setuid,
                                   probe_raise_limit};
    for (int profile = PROC_PROFILE_KEYD; profile <= PROC_PROFILE_WHOD; profile++) {
        for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++) {
            assert_int_equal(entered((enum proc_profile)profile, probes[i]), REFUSED);
        }
    }
}

static void work_goes_on_inside(void **state)
{
    (void)state;
    for (int profile = PROC_PROFILE_KEYD; profile <= PROC_PROFILE_ISSUERD; profile++) {
        enum proc_profile p = (enum proc_profile)profile;
        assert_int_equal(entered(p, probe_thread), WORKED);
        assert_int_equal(entered(p, probe_secret), WORKED);
        assert_int_equal(entered(p, probe_limits), WORKED);
    }
}

static void small_memlock_is_an_error_where_needed(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        const struct rlimit small = {65536, 65536};
        const struct proc_sandbox_opts need = {PROC_PROFILE_KEYD, NULL, true};
        const struct proc_sandbox_opts want = {PROC_PROFILE_KEYD, NULL, false};
        struct proc_sandbox_report report;
        struct att_err err = {0};
        if (setrlimit(RLIMIT_MEMLOCK, &small) != 0 ||
            proc_sandbox_enter(&need, &report, &err) != ATT_E_LIMIT ||
            !strstr(err.msg, "RLIMIT_MEMLOCK")) {
            _exit(1);
        }
        if (proc_sandbox_enter(&want, &report, NULL) != ATT_OK || report.memlock_ok ||
            !strstr(report.reason, "RLIMIT_MEMLOCK") || report.dumpable) {
            _exit(2);
        }
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* Made ahead in the parent, inside tokend's own profile, as tokend does. */
static int entered_token(int (*probe)(void))
{
    pid_t pid = fork();
    if (pid == 0) {
        const struct proc_sandbox_path paths[] = {{folder, PROC_PATH_WRITE},
                                                  {NULL, PROC_PATH_READ}};
        const struct proc_sandbox_opts opts = {PROC_PROFILE_TOKEND, paths, false};
        struct proc_sandbox_ready ready = {0};
        struct proc_sandbox_report report;
        if (proc_sandbox_prepare(PROC_PROFILE_TOKEN, &ready, NULL) != ATT_OK ||
            proc_sandbox_enter(&opts, &report, NULL) != ATT_OK) {
            _exit(NOT_ENTERED);
        }
        pid_t inner = fork();
        if (inner == 0) {
            _exit(proc_sandbox_enter_ready(&ready, NULL) == ATT_OK ? probe() : NOT_ENTERED);
        }
        int status = 0;
        waitpid(inner, &status, 0);
        _exit(WIFSIGNALED(status) ? (WTERMSIG(status) == SIGSYS ? KILLED : ODD)
                                  : WEXITSTATUS(status));
    }
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : ODD;
}

static int probe_open_null(void)
{
    return outcome(open("/dev/null", O_RDONLY), EPERM);
}
static int probe_pipe(void)
{
    int ends[2];
    return outcome(pipe2(ends, O_CLOEXEC), EPERM);
}

static void a_token_opens_and_makes_nothing(void **state)
{
    (void)state;
    assert_int_equal(entered_token(probe_exec), ATT_SANITIZED ? REFUSED : KILLED);
    assert_int_equal(entered_token(probe_read_memory), ATT_SANITIZED ? REFUSED : KILLED);
    assert_int_equal(entered_token(probe_inet), REFUSED);
    if (ATT_SANITIZED) {
        skip();
    }
    int (*const probes[])(void) = {probe_open_null, probe_write_inside, probe_unix,
                                   probe_fork,      probe_kill,         probe_mount,
                                   probe_setuid,    probe_more_threads, probe_pipe};
    for (size_t i = 0; i < sizeof probes / sizeof probes[0]; i++) {
        assert_int_equal(entered_token(probes[i]), probes[i] == probe_write_inside ? ODD : REFUSED);
    }
}

static void spiffed_makes_neither_processes_nor_network(void **state)
{
    (void)state;
    assert_int_equal(entered(PROC_PROFILE_SPIFFED, probe_exec), ATT_SANITIZED ? REFUSED : KILLED);
    assert_int_equal(entered(PROC_PROFILE_SPIFFED, probe_inet), REFUSED);
    assert_int_equal(entered(PROC_PROFILE_SPIFFED, probe_unix), WORKED);
    if (!ATT_SANITIZED) {
        assert_int_equal(entered(PROC_PROFILE_SPIFFED, probe_fork), REFUSED);
        assert_int_equal(entered(PROC_PROFILE_SPIFFED, probe_mount), REFUSED);
        assert_int_equal(entered(PROC_PROFILE_SPIFFED, probe_setuid), REFUSED);
    }
}

static void tokend_makes_processes_and_no_network(void **state)
{
    (void)state;
    assert_int_equal(entered(PROC_PROFILE_TOKEND, probe_exec), ATT_SANITIZED ? REFUSED : KILLED);
    assert_int_equal(entered(PROC_PROFILE_TOKEND, probe_inet), REFUSED);
    assert_int_equal(entered(PROC_PROFILE_TOKEND, probe_unix), WORKED);
    assert_int_equal(entered(PROC_PROFILE_TOKEND, probe_fork), WORKED);
    if (!ATT_SANITIZED) {
        assert_int_equal(entered(PROC_PROFILE_TOKEND, probe_mount), REFUSED);
        assert_int_equal(entered(PROC_PROFILE_TOKEND, probe_setuid), REFUSED);
    }
}

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/att-sandbox.XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return rmdir(folder);
}

/* What a reloaded configuration may name: by whole parts of a path, and not out of it again. */
static void paths_are_covered_by_whole_parts(void **state)
{
    static const struct proc_sandbox_path paths[] = {{"/etc/attestd", PROC_PATH_READ},
                                                     {"/log/firmware", PROC_PATH_READ},
                                                     {NULL, PROC_PATH_READ}};
    static const char *const no[] = {
        "/etc/attestd2/x",        "/etc/att",   "/etc",           "/",
        "/etc/attestd/../shadow", "/log/other", "/log/firmware2", "etc/attestd/x"};
    (void)state;
    for (size_t i = 0; i < sizeof no / sizeof no[0]; i++) {
        assert_false(proc_sandbox_covers(paths, no[i]));
    }
    assert_true(proc_sandbox_covers(paths, "/etc/attestd"));
    assert_true(proc_sandbox_covers(paths, "/etc/attestd/ca/root.pem"));
    assert_true(proc_sandbox_covers(paths, "/log/firmware"));
    assert_true(proc_sandbox_covers(paths, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(paths_are_covered_by_whole_parts),
        cmocka_unit_test(hostile_calls_are_refused),
        cmocka_unit_test(keyd_has_no_network),
        cmocka_unit_test(whod_reads_and_does_not_write),
        cmocka_unit_test(a_module_is_held),
        cmocka_unit_test(files_outside_cannot_be_opened),
        cmocka_unit_test(unlisted_calls_are_refused),
        cmocka_unit_test(small_memlock_is_an_error_where_needed),
        cmocka_unit_test(work_goes_on_inside),
        cmocka_unit_test(a_token_opens_and_makes_nothing),
        cmocka_unit_test(tokend_makes_processes_and_no_network),
        cmocka_unit_test(spiffed_makes_neither_processes_nor_network),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
