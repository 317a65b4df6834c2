#include "attestd/proc/notify.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>
#include <time.h>

/* A newline in a status would be a second assignment. */
static void clean_line(char *ret, size_t room, const char *text)
{
    size_t n = 0;
    for (; text && text[n] && n < room - 1; n++) {
        unsigned char c = (unsigned char)text[n];
        ret[n] = c < 0x20 || c == 0x7f ? ' ' : text[n];
    }
    ret[n] = 0;
}

static void notify(const char *state, const char *status)
{
    char line[256];
    clean_line(line, sizeof line, status);
    (void)sd_notifyf(0, "%s%s%s%s", state, state[0] && line[0] ? "\n" : "",
                     line[0] ? "STATUS=" : "", line);
}

void proc_notify_ready(const char *status)
{
    notify("READY=1", status);
}

void proc_notify_status(const char *status)
{
    notify("", status);
}

void proc_notify_reloading(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    (void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld",
                     (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
}

void proc_notify_stopping(const char *status)
{
    notify("STOPPING=1", status);
}

void proc_notify_watchdog(void)
{
    (void)sd_notify(0, "WATCHDOG=1");
}

int64_t proc_notify_watchdog_period_ms(void)
{
    uint64_t usec = 0;
    return sd_watchdog_enabled(0, &usec) > 0 ? (int64_t)(usec / 2000) : 0;
}

int proc_notify_socket(const char *path)
{
    int n = sd_listen_fds(0);
    for (int fd = SD_LISTEN_FDS_START; fd < SD_LISTEN_FDS_START + n; fd++) {
        if (sd_is_socket_unix(fd, SOCK_STREAM, 1, path, 0) > 0) {
            int flags = fcntl(fd, F_GETFL);
            return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 ? fd : -1;
        }
    }
    return -1;
}
