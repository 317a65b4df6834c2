/* Descriptors that clients of a public socket send along: a TCP socket whose close waits holds
 * nobody up, whoever made the listener. */
#include "attestd/base/clock.h"
#include "attestd/proc/listen.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83
#endif

#define LINGER_S 15
#define SOON_MS  5000

static char dir[64], path[96];

static int make_dir(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/att-listen.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/s", dir);
    return 0;
}

static int remove_dir(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(dir);
}

/* A connected socket with bytes that its other end never takes. */
static int lingering(int *ret_other)
{
    static const char bytes[65536];
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    const int small = 4096;
    const struct linger linger = {1, LINGER_S};
    int listener = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&at, &len), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    *ret_other = accept(listener, NULL, NULL);
    assert_true(*ret_other >= 0);
    while (send(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0) {
    }
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger), 0);
    close(listener);
    return fd;
}

/* With one byte; ours is closed, so that theirs is the last. False: the kernel refuses. */
static bool pass(int sock, int fd)
{
    char byte = 'x', control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    bool sent = sendmsg(sock, &msg, 0) == 1;
    const struct linger none = {1, 0};
    if (!sent) {
        (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    }
    close(fd);
    return sent;
}

static int client_of(const char *at)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int sock = socket(AF_UNIX, SOCK_STREAM, 0);
    memcpy(addr.sun_path, at, strlen(at) + 1);
    assert_int_equal(connect(sock, (struct sockaddr *)&addr, sizeof addr), 0);
    return sock;
}

static void ends_soon(int listener)
{
    int fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    int64_t since = att_boottime_ms();
    proc_close_client(&fd);
    assert_int_equal(fd, -1);
    assert_in_range(att_boottime_ms() - since, 0, SOON_MS);
}

static bool kernel_refuses(int fd)
{
    int value;
    socklen_t len = sizeof value;
    return getsockopt(fd, SOL_SOCKET, SO_PASSRIGHTS, &value, &len) == 0;
}

/* Our own never took any. */
static void own_listener(void **state)
{
    (void)state;
    struct proc_listen ours = {.fd = -1};
    struct sigaction now;
    int other;
    assert_int_equal(proc_listen_open(dir, path, &ours, NULL), ATT_OK);
    int sock = client_of(path);
    assert_int_equal(proc_listen_no_descriptors(ours.fd, NULL), ATT_OK);
    bool refuses = kernel_refuses(ours.fd);
    assert_int_equal(sigaction(SIGALRM, NULL, &now), 0);
    assert_true(!refuses == (now.sa_handler != SIG_DFL)); /* what is not needed is not done */
    assert_true(pass(sock, lingering(&other)) != refuses);
    ends_soon(ours.fd);
    close(sock);
    close(other);
    proc_listen_close(&ours);
}

/* systemd's did, for who was there before us. */
static void systemds_listener(void **state)
{
    (void)state;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), first, second;
    memcpy(addr.sun_path, path, sizeof path);
    assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(listen(listener, 4), 0);
    int early = client_of(path);
    assert_true(pass(early, lingering(&first)));
    assert_int_equal(proc_listen_no_descriptors(listener, NULL), ATT_OK);
    int late = client_of(path);
    assert_true(pass(late, lingering(&second)) != kernel_refuses(listener));
    ends_soon(listener);
    ends_soon(listener);
    close(early);
    close(late);
    close(first);
    close(second);
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(own_listener, make_dir, remove_dir),
        cmocka_unit_test_setup_teardown(systemds_listener, make_dir, remove_dir),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
