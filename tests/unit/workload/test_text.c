/* The kernel's texts about a process, with what a process puts into them itself. */
#include "attestd/workload/cmdline.h"
#include "attestd/workload/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* ---- stat ---- */

#define TAIL                                                                                       \
    "S 7 4711 4711 34816 4711 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 10 11 12 13 14 140730 15 "   \
    "16\n"

static enum att_rc stat_of(const char *text, struct workload_stat *ret)
{
    return workload_stat_parse(att_slice_str(text), ret, NULL);
}

static void test_stat_refuses(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "4711",
        "4711 ",
        "4711 (sh",
        "4711 (sh)",
        "4711 (sh) ",
        "4711 (sh)S 7 " TAIL,
        "0 (sh) " TAIL,
        "-1 (sh) " TAIL,
        "x (sh) " TAIL,
        "4294967296 (sh) " TAIL,
        "4711 sh " TAIL,
        "4711 (sh) SS 7 1 1\n",
        "4711 (sh) S 7 4711 4711 34816 4711 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 10 11\n",
        "4711 (sh) S -7 4711 4711 34816 4711 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9 10 11 12 13 14 1\n",
        "4711 (sh) S 7 4711 4711 34816 4711 4194560 1 2 3 4 5 6 7 8 20 0 1 0 x 10 11 12 13 14 1\n",
        "4711 (sh) S 7 4711 4711 34816 4711 4194560 1 2 3 4 5 6 7 8 20 0 1 0 "
        "99999999999999999999 10 11 12 13 14 1\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct workload_stat stat = {.pid = 99};
        assert_int_equal(stat_of(bad[i], &stat), ATT_E_PARSE);
        assert_int_equal(stat.pid, 99);
    }
}

/* A process names itself so that a careless reader finds other fields. */
static void test_stat_is_not_fooled_by_a_name(void **state)
{
    (void)state;
    static const char *const names[] = {"sh",   "a b",  ") ",   "x) R 1 1 1",
                                        "\n\n", "((((", "))))", ""};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char text[300];
        struct workload_stat stat;
        snprintf(text, sizeof text, "4711 (%s) " TAIL, names[i]);
        assert_int_equal(stat_of(text, &stat), ATT_OK);
        assert_int_equal(stat.pid, 4711);
        assert_int_equal(stat.parent, 7);
        assert_int_equal(stat.state, 'S');
        assert_int_equal(stat.start_time, 987654);
        assert_int_equal(stat.start_stack, 140730);
    }
}

/* ---- status ---- */

static void test_status_refuses(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "Tgid:\t1\nPid:\t1\nPPid:\t0\nUid:\t1\t1\t1\t1\n",                             /* no Gid */
        "Tgid:\t1\nPid:\t1\nPPid:\t0\nUid:\t1\t1\t1\nGid:\t1\t1\t1\t1\n",              /* three */
        "Tgid:\t1\nPid:\t1\nPPid:\t0\nUid:\t1\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\n",        /* five */
        "Tgid:\t1\nPid:\t1\nPPid:\t0\nUid:\t1\t1\t1\t-1\nGid:\t1\t1\t1\t1\n",          /* sign */
        "Tgid:\t1\nPid:\t1\nPPid:\t0\nUid:\t1\t1\t1\t4294967296\nGid:\t1\t1\t1\t1\n",  /* large */
        "Tgid:\t1\nPid:\t1\nPid:\t2\nPPid:\t0\nUid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\n",  /* twice */
        "Tgid:\t1\nPid:\t1\nPPid:\t0\nUid:\t1\t1\t1\t1\nGid:\t1\t1\t1\t1\nNSpid:\t\n", /* none */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct workload_status status;
        assert_int_equal(workload_status_parse(att_slice_str(bad[i]), &status, NULL), ATT_E_PARSE);
    }
}

static void test_status_reads_ids_and_namespaces(void **state)
{
    (void)state;
    struct workload_status status;
    /* The kernel writes a newline in a name as "\n", two characters. */
    assert_int_equal(
        workload_status_parse(ATT_SLICE_LIT("Name:\tx\\nUid:\t0\t0\t0\t0\nTgid:\t812\nPid:\t812\n"
                                            "PPid:\t800\nUid:\t1001\t1002\t1003\t1004\n"
                                            "Gid:\t5\t6\t7\t8\nNSpid:\t812\t12\t1\n"),
                              &status, NULL),
        ATT_OK);
    assert_int_equal(status.pid, 812);
    assert_int_equal(status.parent, 800);
    assert_int_equal(status.uid[WORKLOAD_REAL], 1001);
    assert_int_equal(status.uid[WORKLOAD_EFFECTIVE], 1002);
    assert_int_equal(status.gid[WORKLOAD_FILES], 8);
    assert_int_equal(status.ns_depth, 3);
    assert_int_equal(status.ns_pid, 1);
}

/* ---- fdinfo ---- */

static void test_fdinfo(void **state)
{
    (void)state;
    uint32_t pid = 0;
    struct att_err err = {0};
    assert_int_equal(workload_fdinfo_parse(ATT_SLICE_LIT("pos:\t0\nflags:\t02\n"), &pid, &err),
                     ATT_E_INVAL);
    assert_string_equal(err.reason, "notPidfd");
    assert_int_equal(workload_fdinfo_parse(ATT_SLICE_LIT("pos:\t0\nPid:\t0\n"), &pid, NULL),
                     ATT_E_INVAL);
    assert_int_equal(workload_fdinfo_parse(ATT_SLICE_LIT("Pid:\t-1\n"), &pid, NULL), ATT_E_GONE);
    assert_int_equal(workload_fdinfo_parse(ATT_SLICE_LIT("Pid:\t-2\n"), &pid, NULL), ATT_E_INVAL);
    assert_int_equal(
        workload_fdinfo_parse(ATT_SLICE_LIT("pos:\t0\nPid:\t4711\nNSpid:\t4711\n"), &pid, NULL),
        ATT_OK);
    assert_int_equal(pid, 4711);
}

/* ---- cgroup ---- */

static void test_cgroup_refuses(void **state)
{
    (void)state;
    struct att_slice path;
    assert_int_equal(workload_cgroup_parse(ATT_SLICE_LIT(""), &path, NULL), ATT_E_NOTFOUND);
    assert_int_equal(
        workload_cgroup_parse(ATT_SLICE_LIT("4:memory:/x\n1:name=systemd:/y\n"), &path, NULL),
        ATT_E_NOTFOUND);
    assert_int_equal(workload_cgroup_parse(ATT_SLICE_LIT("0::x\n"), &path, NULL), ATT_E_PARSE);
    assert_int_equal(workload_cgroup_parse(ATT_SLICE_LIT("0::"), &path, NULL), ATT_E_PARSE);
}

/* As sd_pid_get_unit(3) answers; recorded on Debian 12 where a line says so by its path. */
static const struct {
    const char *path, *unit;
} units[] = {
    {"/", ""},
    {"/init.scope", "init.scope"},
    {"/system.slice/ssh.service", "ssh.service"},
    {"/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"},
    {"/system.slice/docker-0f1e2d.scope", "docker-0f1e2d.scope"},
    {"/system.slice/containerd.service/kubepods-burstable.slice:cri:0f", "containerd.service"},
    {"/user.slice/user-1000.slice/session-3.scope", "session-3.scope"},
    {"/user.slice/user-1000.slice/user@1000.service/app.slice/rebalancer.service",
     "user@1000.service"},
    {"/user.slice/user-1000.slice/user@1000.service/system.slice/rebalancer.service",
     "user@1000.service"},
    {"/user.slice/user-1000.slice/user@1000.service/init.scope", "user@1000.service"},
    {"/machine.slice/machine-web.scope/payload/system.slice/rebalancer.service",
     "machine-web.scope"},
    {"/kubepods.slice/kubepods-pod1.slice/cri-containerd-0f.scope", "cri-containerd-0f.scope"},
    {"/system.slice/_cpu.service", "cpu.service"},
    {"/system.slice/dev-disk.mount", "dev-disk.mount"},
    /* not a unit */
    {"/system.slice", ""},
    {"/system.slice/", ""},
    {"/docker/0f1e2d", ""},
    {"/docker/rebalancer.service", ""},
    {"/../rebalancer.service", ""},
    {"/../../system.slice/rebalancer.service", ""},
    {"/system.slice/rebalancer.service (deleted)", ""},
    {"/system.slice/template@.service", ""},
    {"/user@1.slice/rebalancer.service", ""}, /* a slice has no instances */
    {"/system.slice/@x.service", ""},
    {"/system.slice/.service", ""},
    {"/system.slice/a b.service", ""},
    {"/system.slice/x.timer", ""},
};

static void test_cgroup_unit_is_the_system_managers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        char text[400];
        struct att_slice path;
        snprintf(text, sizeof text, "3:cpu:/system.slice/other.service\n0::%s\n", units[i].path);
        assert_int_equal(workload_cgroup_parse(att_slice_str(text), &path, NULL), ATT_OK);
        struct att_slice unit = workload_cgroup_unit(path);
        if (!att_slice_eq_str(unit, units[i].unit)) {
            fail_msg("%s: %.*s", units[i].path, (int)unit.len, (const char *)unit.ptr);
        }
    }
    char longest[400] = "/system.slice/";
    memset(longest + 14, 'x', 300);
    strcpy(longest + 300, ".service");
    assert_int_equal(workload_cgroup_unit(att_slice_str(longest)).len, 0);
}

static void test_cgroup_slice_is_the_system_managers(void **state)
{
    (void)state;
    const char *path = "/trading.slice/trading-eu.slice/rebalancer.service/fake.slice";
    assert_false(workload_cgroup_in_slice(att_slice_str(path), "fake.slice"));
    assert_false(workload_cgroup_in_slice(att_slice_str(path), "trading-us.slice"));
    assert_false(workload_cgroup_in_slice(
        ATT_SLICE_LIT("/user.slice/user@1000.service/trading.slice/x.service"), "trading.slice"));
    assert_true(workload_cgroup_in_slice(att_slice_str(path), "trading.slice"));
    assert_true(workload_cgroup_in_slice(att_slice_str(path), "trading-eu.slice"));
}

static void test_invocation_id(void **state)
{
    (void)state;
    assert_false(workload_invocation_ok(ATT_SLICE_LIT("")));
    assert_false(workload_invocation_ok(ATT_SLICE_LIT("0123456789abcdef0123456789abcde")));
    assert_false(workload_invocation_ok(ATT_SLICE_LIT("0123456789ABCDEF0123456789abcdef")));
    assert_true(workload_invocation_ok(ATT_SLICE_LIT("0123456789abcdef0123456789abcdef")));
}

/* ---- cmdline: arguments between bars ---- */

static const struct {
    const char *exe, *cmdline, *script; /* script "": none */
} scripts[] = {
    /* none */
    {"/usr/bin/python3.11", "", ""},
    {"/usr/bin/python3.11", "python3", ""},
    {"/usr/bin/python3.11", "python3|-", ""},
    {"/usr/bin/python3.11", "python3|-c|print(1)|/opt/a.py", ""},
    {"/usr/bin/python3.11", "python3|-m|http.server", ""},
    {"/usr/bin/python3.11", "python3|-um|x", ""},
    {"/usr/bin/python3.11", "python3|-X", ""},
    {"/usr/bin/python3.11", "python3|--check-hash-based-pycs|always|/opt/a.py", ""},
    {"/usr/bin/python3.11", "python3|-Z|/opt/a.py", ""},
    {"/usr/bin/python3.11", "python3||/opt/a.py", ""},
    {"/usr/bin/bash", "bash|-c|/opt/a.sh", ""},
    {"/usr/bin/bash", "bash|-s|/opt/a.sh", ""},
    {"/usr/bin/bash", "bash|-ox|pipefail|/opt/a.sh", ""},
    {"/usr/bin/perl", "perl|-e|1|/opt/a.pl", ""},
    {"/usr/bin/node", "node|--require|/opt/a.js|/opt/b.js", ""},
    {"/opt/rebalancer", "rebalancer|/opt/a.py", ""},
    {"/opt/pythonette", "python3|/opt/a.py", ""},
    {"/usr/bin/python3/x", "python3|/opt/a.py", ""},
    /* some */
    {"/usr/bin/python3.11", "anything|/opt/a.py|/opt/b.py", "/opt/a.py"},
    {"/usr/bin/python3", "python3|-u|-B|a.py", "a.py"},
    {"/usr/bin/python3", "python3|-X|dev|-Wignore|-W|error|./a.py|-c", "./a.py"},
    {"/usr/bin/python3", "python3|-uXdev|/opt/a.py", "/opt/a.py"},
    {"/usr/bin/python3", "python3|--|-strange.py", "-strange.py"},
    {"/usr/bin/dash", "sh|-eu|/opt/a.sh", "/opt/a.sh"},
    {"/usr/bin/bash", "bash|-euo|pipefail|+x|/opt/a.sh", "/opt/a.sh"},
    {"/usr/bin/perl", "perl|-w|-I/opt/lib|-Mstrict|/opt/a.pl", "/opt/a.pl"},
    {"/usr/bin/perl5.36", "perl|-I|/opt/lib|/opt/a.pl", "/opt/a.pl"},
    {"/usr/bin/ruby3.1", "ruby|-w|/opt/a.rb", "/opt/a.rb"},
    {"/usr/bin/node", "node|/opt/a.js|--require|x", "/opt/a.js"},
};

static void test_cmdline_script(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof scripts / sizeof *scripts; i++) {
        char args[300];
        size_t len = strlen(scripts[i].cmdline);
        memcpy(args, scripts[i].cmdline, len + 1);
        for (size_t k = 0; k < len; k++) {
            args[k] = args[k] == '|' ? '\0' : args[k];
        }
        struct att_slice script = {NULL, 0};
        bool found = workload_cmdline_script(att_slice_str(scripts[i].exe),
                                             ATT_SLICE(args, len ? len + 1 : 0), &script);
        if (found != (scripts[i].script[0] != 0) || !att_slice_eq_str(script, scripts[i].script)) {
            fail_msg("%s: %d %.*s", scripts[i].cmdline, found, (int)script.len,
                     (const char *)script.ptr);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stat_refuses),
        cmocka_unit_test(test_stat_is_not_fooled_by_a_name),
        cmocka_unit_test(test_status_refuses),
        cmocka_unit_test(test_status_reads_ids_and_namespaces),
        cmocka_unit_test(test_fdinfo),
        cmocka_unit_test(test_cgroup_refuses),
        cmocka_unit_test(test_cgroup_unit_is_the_system_managers),
        cmocka_unit_test(test_cgroup_slice_is_the_system_managers),
        cmocka_unit_test(test_invocation_id),
        cmocka_unit_test(test_cmdline_script),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
