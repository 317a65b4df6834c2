/* LD_PRELOAD: clocks of one process that a test can move, and nobody else's. ATT_TEST_CLOCK names a
 * file of two int64: seconds to add to the wall clock, and to the clocks that never jump. It is
 * mapped before the program enters its sandbox. Timers of timerfd are cut to 100 ms, so that a move
 * is noticed as soon as the kernel would tell of a real one (TFD_TIMER_CANCEL_ON_SET). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offsets;

__attribute__((constructor)) static void map_offsets(void)
{
    const char *path = getenv("ATT_TEST_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) {
        return;
    }
    void *at = mmap(NULL, 2 * sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED) {
        offsets = at;
    }
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
    /* Never dlsym here: it allocates, and a sanitizer's allocator asks for the time. */
    int rc = (int)syscall(SYS_clock_gettime, id, ts);
    if (rc == 0 && offsets) {
        if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) {
            ts->tv_sec += offsets[0];
        } else if (id == CLOCK_BOOTTIME) {
            ts->tv_sec += offsets[1];
        }
    }
    return rc;
}

time_t time(time_t *ret)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (ret) {
        *ret = ts.tv_sec;
    }
    return ts.tv_sec;
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    (void)tz;
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}

int timerfd_settime(int fd, int flags, const struct itimerspec *at, struct itimerspec *old)
{
    struct itimerspec soon = *at;
    if (!(flags & TFD_TIMER_ABSTIME) &&
        (soon.it_value.tv_sec > 0 || soon.it_value.tv_nsec > 100000000)) {
        soon.it_value = (struct timespec){.tv_nsec = 100000000};
    }
    return (int)syscall(SYS_timerfd_settime, fd, flags, &soon, old);
}
