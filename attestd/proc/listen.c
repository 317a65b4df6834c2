#include "attestd/proc/listen.h"

#include "attestd/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* Linux 6.16, asm-generic/socket.h */
#endif

#define BACKLOG  256
#define FD_FIRST 3 /* sd_listen_fds(3) */

/* -1: not activated. */
static int systemd_fd(struct att_err *err, enum att_rc *ret_rc)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    int listening = 0;
    socklen_t len = sizeof listening;
    if (!pid || !count || strtol(pid, NULL, 10) != getpid()) {
        return -1;
    }
    if (strcmp(count, "1") != 0 ||
        getsockopt(FD_FIRST, SOL_SOCKET, SO_ACCEPTCONN, &listening, &len) != 0 || !listening ||
        fcntl(FD_FIRST, F_SETFD, FD_CLOEXEC) != 0 || fcntl(FD_FIRST, F_SETFL, O_NONBLOCK) != 0) {
        *ret_rc = att_fail(err, ATT_E_INVAL, "LISTEN_FDS=%s: one listening socket expected", count);
        return -1;
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    return FD_FIRST;
}

static enum att_rc refuse_live(const struct sockaddr_un *addr, struct att_err *err)
{
    struct stat st;
    if (lstat(addr->sun_path, &st) == 0 && !S_ISSOCK(st.st_mode)) {
        return att_fail(err, ATT_E_CONFLICT, "%s is there and is not a socket", addr->sun_path);
    }
    att_autofd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "socket");
    }
    if (connect(fd, (const struct sockaddr *)addr, sizeof *addr) == 0 || errno == EAGAIN) {
        return att_fail(err, ATT_E_CONFLICT, "%s: another process serves this socket",
                        addr->sun_path);
    }
    return ATT_OK;
}

static enum att_rc bind_at(const char *path, int *ret_fd, struct att_err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len >= sizeof addr.sun_path) {
        return att_fail(err, ATT_E_INVAL, "socket path of %zu bytes, at most %zu: %.80s", len,
                        sizeof addr.sun_path - 1, path);
    }
    memcpy(addr.sun_path, path, len);
    enum att_rc rc = refuse_live(&addr, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (unlink(path) != 0 && errno != ENOENT) {
        return att_fail_errno(err, ATT_E_IO, "%s", path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const int on = 1, off = 0;
    /* Before anybody can connect: who does has both from its first byte on. */
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) != 0) {
        rc = att_fail_errno(err, ATT_E_IO, "SO_PASSCRED");
        att_close(&fd);
        return rc;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof off); /* Linux 6.16 */
    /* For everybody: who connects is asked for afterwards. */
    if (fd < 0 || bind(fd, (const struct sockaddr *)&addr, sizeof addr) != 0 ||
        chmod(path, 0666) != 0 || listen(fd, BACKLOG) != 0) {
        rc = att_fail_errno(err, ATT_E_IO, "listen on %s", path);
        att_close(&fd);
        return rc;
    }
    *ret_fd = fd;
    return ATT_OK;
}

enum att_rc proc_listen_open(const char *dir, const char *path, struct proc_listen *ret_listen,
                             struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    struct proc_listen got = {.fd = systemd_fd(err, &rc)};
    if (rc != ATT_OK) {
        return rc;
    }
    got.activated = got.fd >= 0;
    if (!got.activated) {
        rc = att_io_mkdirs(dir, 0755, err);
        if (rc == ATT_OK) {
            rc = bind_at(path, &got.fd, err);
        }
        if (rc == ATT_OK) {
            memcpy(got.path, path, strlen(path));
        }
    }
    if (rc == ATT_OK) {
        *ret_listen = got;
    }
    return rc;
}

void proc_listen_close(struct proc_listen *listening)
{
    if (listening->fd >= 0 && !listening->activated) {
        unlink(listening->path);
    }
    att_close(&listening->fd);
}

/* ---- descriptors that clients send --------------------------------------------------------- */

static bool by_signal; /* set before there are threads */

static void on_alarm(int number)
{
    (void)number; /* that it came ends the wait */
}

enum att_rc proc_listen_no_descriptors(int listen_fd, struct att_err *err)
{
    const int off = 0;
    int before = 1;
    socklen_t len = sizeof before;
    (void)getsockopt(listen_fd, SOL_SOCKET, SO_PASSRIGHTS, &before, &len);
    if (setsockopt(listen_fd, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof off) == 0) {
        if (!before) {
            return ATT_OK; /* nobody ever could */
        }
    } else if (errno != ENOPROTOOPT) {
        return att_fail_errno(err, ATT_E_IO, "SO_PASSRIGHTS");
    }
    struct sigaction action = {.sa_handler = on_alarm};
    by_signal = true;
    return sigaction(SIGALRM, &action, NULL) == 0 ? ATT_OK
                                                  : att_fail_errno(err, ATT_E_IO, "SIGALRM");
}

/* Again and again: the first may come before the wait has begun. */
static void set_alarm(suseconds_t ms)
{
    const struct itimerval every = {{0, ms * 1000}, {0, ms * 1000}};
    if (by_signal) {
        (void)setitimer(ITIMER_REAL, &every, NULL);
    }
}

void proc_linger_begin(void)
{
    set_alarm(PROC_LINGER_MS);
}

void proc_linger_end(void)
{
    set_alarm(0);
}

void proc_close_client(int *fd)
{
    proc_linger_begin();
    att_close(fd);
    proc_linger_end();
}
