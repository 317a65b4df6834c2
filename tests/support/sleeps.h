/* For tests of threads that wait for one another, without sleeping in the hope that they do. */
#ifndef ATT_TESTS_SUPPORT_SLEEPS_H
#define ATT_TESTS_SUPPORT_SLEEPS_H

#include <dirent.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Thirty seconds at most for whatever is waited for. After cmocka.h. */
#define WAIT_FOR(condition)                                                                        \
    do {                                                                                           \
        int left_ = 6000;                                                                          \
        while (!(condition) && --left_) {                                                          \
            usleep(5000);                                                                          \
        }                                                                                          \
        assert_true(left_ > 0);                                                                    \
    } while (0)

/* Some thread of this process sleeps on this mutex or condition variable: its futex is in there
 * (proc(5), /proc/pid/syscall). */
static inline bool sleeps_on(const void *object, size_t size)
{
    DIR *dir = opendir("/proc/self/task");
    bool found = false;
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char path[300], text[160];
        long number;
        unsigned long address;
        snprintf(path, sizeof path, "/proc/self/task/%s/syscall", entry->d_name);
        FILE *file = fopen(path, "r");
        if (file && fgets(text, sizeof text, file) &&
            sscanf(text, "%ld 0x%lx", &number, &address) == 2) {
            found |= number == SYS_futex && address >= (uintptr_t)object &&
                     address < (uintptr_t)object + size;
        }
        if (file) {
            fclose(file);
        }
    }
    if (dir) {
        closedir(dir);
    }
    return found;
}

#endif
