/* LD_PRELOAD: files below a folder (ATT_TEST_SLOW_HOME) take ATT_TEST_SLOW_S seconds each to be
 * read, by the clock that nobody sets (CLOCK_BOOTTIME): the clock goes on, the test does not wait.
 */
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static atomic_long ahead_s;

int clock_gettime(clockid_t id, struct timespec *ts)
{
    int rc = (int)syscall(SYS_clock_gettime, id, ts);
    if (rc == 0 && id == CLOCK_BOOTTIME) {
        ts->tv_sec += atomic_load(&ahead_s);
    }
    return rc;
}

ssize_t pread(int fd, void *to, size_t size, off_t at)
{
    char link[64], path[4096];
    const char *below = getenv("ATT_TEST_SLOW_HOME"), *each = getenv("ATT_TEST_SLOW_S");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    if (at == 0 && below && each && strncmp(path, below, strlen(below)) == 0) {
        atomic_fetch_add(&ahead_s, atol(each));
    }
    return syscall(SYS_pread64, fd, to, size, at);
}
