/* What arrives at a real notify socket. */
#include "attestd/proc/notify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64], path[96];
static int fd;

static void expect(const char *want)
{
    char got[512] = "";
    ssize_t len = recv(fd, got, sizeof got - 1, MSG_DONTWAIT);
    assert_true(len > 0);
    assert_string_equal(got, want);
}

static void a_status_cannot_smuggle_assignments(void **state)
{
    (void)state;
    proc_notify_status("one\nREADY=1\ttwo");
    expect("STATUS=one READY=1 two");
}

static void each_call_says_its_word(void **state)
{
    (void)state;
    proc_notify_ready("up");
    expect("READY=1\nSTATUS=up");
    proc_notify_ready(NULL);
    expect("READY=1");
    proc_notify_watchdog();
    expect("WATCHDOG=1");
    proc_notify_stopping("bye");
    expect("STOPPING=1\nSTATUS=bye");
    proc_notify_reloading();
    char got[128] = "";
    assert_true(recv(fd, got, sizeof got - 1, MSG_DONTWAIT) > 0);
    unsigned long long usec = 0;
    assert_int_equal(sscanf(got, "RELOADING=1\nMONOTONIC_USEC=%llu", &usec), 1);
    assert_true(usec > 0);
}

static void the_watchdog_period_is_half(void **state)
{
    (void)state;
    assert_int_equal(proc_notify_watchdog_period_ms(), 0);
    char pid[32];
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    setenv("WATCHDOG_USEC", "30000000", 1);
    setenv("WATCHDOG_PID", pid, 1);
    assert_int_equal(proc_notify_watchdog_period_ms(), 15000);
    setenv("WATCHDOG_PID", "1", 1);
    assert_int_equal(proc_notify_watchdog_period_ms(), 0);
}

static int setup(void **state)
{
    (void)state;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(dir, sizeof dir, "/tmp/att-notify.XXXXXX");
    if (!mkdtemp(dir)) {
        return -1;
    }
    snprintf(path, sizeof path, "%s/n", dir);
    memcpy(addr.sun_path, path, strlen(path) + 1);
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return setenv("NOTIFY_SOCKET", path, 1) ||
           bind(fd, (const struct sockaddr *)&addr, sizeof addr);
}

static int teardown(void **state)
{
    (void)state;
    close(fd);
    unlink(path);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_status_cannot_smuggle_assignments),
        cmocka_unit_test(each_call_says_its_word),
        cmocka_unit_test(the_watchdog_period_is_half),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
