/* The control socket: a real server, a real client, and a peer that does not keep the rules. */
#include "attestd/base/ctl.h"
#include "attestd/base/io.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 120000 /* under valgrind on a busy machine, too */

static char dir[] = "/tmp/att-ctl-XXXXXX", path[64];
static struct att_ctl_server *server;

static enum att_rc handler(void *user, const struct att_ctl_peer *peer, const char *op,
                           const json_t *args, json_t **ret_result, struct att_err *err)
{
    assert_string_equal(user, "user");
    if (strcmp(op, "echo") == 0) {
        *ret_result = json_pack("{s:O, s:i}", "args", args, "uid", (int)peer->uid);
        return ATT_OK;
    }
    if (strcmp(op, "refuse") == 0) {
        enum att_rc rc = att_fail(err, ATT_E_DENIED, "because");
        att_err_reason(err, "hostBanned");
        return rc;
    }
    if (strcmp(op, "cut") == 0) { /* within a character, and with what would steer a terminal */
        return att_fail(err, ATT_E_DENIED, "%.4s", &"\xc3\xa9\xc3\xa9\xc3\xa9"[1]);
    }
    if (strcmp(op, "escape") == 0) {
        return att_fail(err, ATT_E_DENIED,
                        "a\x1b[31m\xc2\x9b"
                        "31m\nb");
    }
    if (strcmp(op, "huge") == 0) {
        char *text = malloc(ATT_CTL_FRAME_MAX);
        memset(text, 'x', ATT_CTL_FRAME_MAX);
        *ret_result = json_pack("{s:s#}", "text", text, (int)ATT_CTL_FRAME_MAX);
        free(text);
        return ATT_OK;
    }
    return strcmp(op, "empty") == 0 ? ATT_OK : att_fail(err, ATT_E_NOTFOUND, "no operation %s", op);
}

static int start(void **state)
{
    (void)state;
    if (!mkdtemp(dir)) {
        return -1;
    }
    snprintf(path, sizeof path, "%s/s.sock", dir);
    return att_ctl_server_new(path, NULL, handler, (void *)(uintptr_t) "user", &server, NULL) ==
                   ATT_OK
               ? 0
               : -1;
}

static int stop(void **state)
{
    (void)state;
    att_ctl_server_free(server);
    return access(path, F_OK) == 0 || rmdir(dir) != 0;
}

static int raw_connect_to(const char *where)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", where);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

static int raw_connect(void)
{
    return raw_connect_to(path);
}

static void test_call_gets_its_answer(void **state)
{
    (void)state;
    att_autojson *args = json_pack("{s:s}", "a", "b"), *result = NULL, *empty = NULL;
    assert_int_equal(att_ctl_call(path, "echo", args, PATIENCE_MS, &result, NULL), ATT_OK);
    assert_string_equal(json_string_value(json_object_get(json_object_get(result, "args"), "a")),
                        "b");
    assert_int_equal(json_integer_value(json_object_get(result, "uid")), getuid());
    assert_int_equal(att_ctl_call(path, "empty", NULL, PATIENCE_MS, &empty, NULL), ATT_OK);
    assert_int_equal(json_object_size(empty), 0);
}

static void test_refusal_keeps_code_reason_and_message(void **state)
{
    (void)state;
    struct att_err err = {0};
    json_t *result = NULL;
    assert_int_equal(att_ctl_call(path, "refuse", NULL, PATIENCE_MS, &result, &err), ATT_E_DENIED);
    assert_string_equal(err.reason, "hostBanned");
    assert_string_equal(err.msg, "because");
    assert_null(result);
}

/* A message that is no UTF-8 is no JSON: the caller would only see the connection end. */
static void test_refusal_with_broken_text_still_arrives(void **state)
{
    (void)state;
    struct att_err err = {0};
    json_t *result = NULL;
    assert_int_equal(att_ctl_call(path, "cut", NULL, PATIENCE_MS, &result, &err), ATT_E_DENIED);
    assert_string_equal(err.msg, "?\xc3\xa9?");
    att_err_clear(&err);
    assert_int_equal(att_ctl_call(path, "escape", NULL, PATIENCE_MS, &result, &err), ATT_E_DENIED);
    assert_string_equal(err.msg, "a?[31m?31m?b");
}

static void test_answer_beyond_a_frame_is_refused(void **state)
{
    (void)state;
    struct att_err err = {0};
    json_t *result = NULL;
    assert_int_equal(att_ctl_call(path, "huge", NULL, PATIENCE_MS, &result, &err), ATT_E_LIMIT);
    assert_non_null(strstr(err.msg, "the answer cannot be sent"));
    assert_null(result);
}

static void test_absent_daemon_is_unreachable(void **state)
{
    (void)state;
    json_t *result = NULL;
    assert_int_equal(att_ctl_call("/nonexistent/x.sock", "echo", NULL, PATIENCE_MS, &result, NULL),
                     ATT_E_UNREACHABLE);
    char name[200];
    memset(name, 'x', sizeof name - 1);
    name[199] = 0;
    assert_int_equal(att_ctl_call(name, "echo", NULL, PATIENCE_MS, &result, NULL), ATT_E_INVAL);
}

static void test_other_users_are_refused(void **state)
{
    (void)state;
    if (getuid() != 0) {
        skip();
    }
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(chmod(path, 0666), 0); /* even if the mode let them in */
    pid_t pid = fork();
    if (pid == 0) {
        json_t *result = NULL;
        struct att_err err = {0};
        if (setgid(65534) != 0 || setuid(65534) != 0) {
            _exit(9);
        }
        enum att_rc rc = att_ctl_call(path, "empty", NULL, PATIENCE_MS, &result, &err);
        _exit(rc == ATT_E_DENIED && strcmp(err.reason, "socket") == 0 ? 0 : 1);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_socket_mode_is_closed(void **state)
{
    (void)state;
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void test_hostile_frames_end_the_connection_only(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
    } frames[] = {
        {"\x00\x00\x00\x00", 4},            /* empty */
        {"\xff\xff\xff\xff", 4},            /* 4 GiB announced */
        {"\x00\x00\x00\x02{]", 6},          /* no JSON */
        {"\x00\x00\x00\x0a{\"op\"", 9},     /* closed in the middle */
        {"\x00\x00\x00\x08{\"op\":1}", 12}, /* op is no string */
        {"\x00\x00\x00\x02[]", 6},          /* no object */
        {"\x00\x00\x00\x15{\"op\":\"e\",\"args\":[1]}", 25},
    };
    for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++) {
        int fd = raw_connect();
        assert_int_equal(write(fd, frames[i].bytes, frames[i].len), (ssize_t)frames[i].len);
        shutdown(fd, SHUT_WR);
        char reply[512];
        while (read(fd, reply, sizeof reply) > 0) {
        }
        close(fd);
    }
    json_t *result = NULL;
    assert_int_equal(att_ctl_call(path, "empty", NULL, PATIENCE_MS, &result, NULL), ATT_OK);
    json_decref(result);
}

/* Served again: the server notices the end of connections when it will. */
static void served_soon(void)
{
    enum att_rc rc = ATT_E_GONE;
    for (int i = 0; i < 1200 && rc != ATT_OK; i++) {
        att_autojson *result = NULL;
        rc = att_ctl_call(path, "empty", NULL, PATIENCE_MS, &result, NULL);
        usleep(rc == ATT_OK ? 0 : 50000);
    }
    assert_int_equal(rc, ATT_OK);
}

static void test_connections_are_bounded(void **state)
{
    (void)state;
    int fds[ATT_CTL_CONNECTIONS_MAX + 8];
    size_t closed = 0, n = sizeof fds / sizeof fds[0];
    for (size_t i = 0; i < n; i++) {
        fds[i] = raw_connect();
    }
    size_t over = 8 - (getuid() == 0 ? (size_t)ATT_CTL_CONNECTIONS_ROOT : 0);
    for (int look = 0; look < 1200 && closed < over; look++) {
        usleep(50000);
        closed = 0;
        for (size_t i = 0; i < n; i++) {
            char c;
            closed += recv(fds[i], &c, 1, MSG_DONTWAIT) == 0;
        }
    }
    for (size_t i = 0; i < n; i++) {
        close(fds[i]);
    }
    assert_true(closed >= over);
    served_soon();
}

/* Who may use the socket but keeps 40 connections open does not keep root out. */
static void test_idle_connections_leave_root_a_place(void **state)
{
    (void)state;
    if (getuid() != 0) {
        skip();
    }
    int from_child[2], to_child[2];
    char c = 0;
    assert_int_equal(pipe(from_child) | pipe(to_child), 0);
    assert_int_equal(chmod(dir, 0755), 0);
    assert_int_equal(chmod(path, 0666), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (setgid(65534) != 0 || setuid(65534) != 0) {
            _exit(9);
        }
        for (int i = 0; i < ATT_CTL_CONNECTIONS_MAX + 8; i++) {
            (void)!raw_connect();
        }
        (void)!write(from_child[1], "x", 1);
        (void)!read(to_child[0], &c, 1);
        _exit(0);
    }
    assert_int_equal(read(from_child[0], &c, 1), 1);
    usleep(300000); /* all of them are accepted or refused */
    json_t *result = NULL;
    struct att_err err = {0};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(att_ctl_call(path, "empty", NULL, PATIENCE_MS, &result, &err), ATT_OK);
        json_decref(result);
    }
    assert_int_equal(write(to_child[1], "x", 1), 1);
    close(to_child[1]);
    close(to_child[0]);
    close(from_child[0]);
    close(from_child[1]);
    waitpid(pid, NULL, 0);
    assert_int_equal(chmod(path, 0600), 0);
    served_soon();
}

struct trickle {
    int fd;
    atomic_bool stop;
};

/* A byte each 50 ms of a frame that would take 200 s. */
static void *trickle_on(void *arg)
{
    struct trickle *trickle = arg;
    (void)!write(trickle->fd, "\x00\x00\x10\x00", 4);
    while (!atomic_load(&trickle->stop) && send(trickle->fd, " ", 1, MSG_NOSIGNAL) == 1) {
        usleep(50000);
    }
    return NULL;
}

static long elapsed_ms(const struct timespec *since)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - since->tv_sec) * 1000 + (now.tv_nsec - since->tv_nsec) / 1000000;
}

static struct att_ctl_server *second_server(char second[80])
{
    struct att_ctl_server *other = NULL;
    snprintf(second, 80, "%s/t.sock", dir);
    assert_int_equal(
        att_ctl_server_new(second, NULL, handler, (void *)(uintptr_t) "user", &other, NULL),
        ATT_OK);
    return other;
}

static void test_a_frame_has_one_deadline(void **state)
{
    (void)state;
    char second[80];
    struct att_ctl_server *other = second_server(second);
    att_ctl_server_frame_timeout(other, 600);
    struct timespec since;
    clock_gettime(CLOCK_MONOTONIC, &since);
    struct trickle trickle = {.fd = raw_connect_to(second)};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, trickle_on, &trickle), 0);
    char c;
    assert_true(recv(trickle.fd, &c, 1, 0) <= 0);     /* ended by the server */
    assert_in_range(elapsed_ms(&since), 500, 100000); /* the frame would take 200 s */
    atomic_store(&trickle.stop, true);
    pthread_join(thread, NULL);
    close(trickle.fd);
    att_ctl_server_free(other);
}

static void test_the_end_waits_for_no_trickling_peer(void **state)
{
    (void)state;
    char second[80];
    struct att_ctl_server *other = second_server(second);
    struct trickle trickle = {.fd = raw_connect_to(second)};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, trickle_on, &trickle), 0);
    usleep(300000);
    struct timespec since;
    clock_gettime(CLOCK_MONOTONIC, &since);
    att_ctl_server_free(other);
    assert_in_range(elapsed_ms(&since), 0, 25000); /* the frame's time is 30 s */
    atomic_store(&trickle.stop, true);
    pthread_join(thread, NULL);
    close(trickle.fd);
}

static void test_a_file_in_the_way_is_not_removed(void **state)
{
    (void)state;
    char file[80];
    struct att_ctl_server *other = NULL;
    snprintf(file, sizeof file, "%s/file", dir);
    assert_int_equal(att_io_write_file(file, ATT_SLICE_LIT("keep"), 0600, NULL), ATT_OK);
    assert_int_equal(att_ctl_server_new(file, NULL, handler, NULL, &other, NULL), ATT_E_EXISTS);
    assert_int_equal(access(file, F_OK), 0);
    assert_int_equal(att_ctl_server_new(file, "no-such-group-here", handler, NULL, &other, NULL),
                     ATT_E_NOTFOUND);
    unlink(file);
}

/* A second server does not take a socket from the first. */
static void test_a_socket_in_use_is_not_taken(void **state)
{
    (void)state;
    struct att_err err = {0};
    struct att_ctl_server *other = NULL;
    att_autojson *result = NULL;
    assert_int_equal(att_ctl_server_new(path, NULL, handler, NULL, &other, &err), ATT_E_EXISTS);
    assert_string_equal(err.reason, "socketInUse");
    assert_null(other);
    assert_int_equal(att_ctl_call(path, "empty", NULL, PATIENCE_MS, &result, NULL), ATT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_call_gets_its_answer),
        cmocka_unit_test(test_refusal_keeps_code_reason_and_message),
        cmocka_unit_test(test_refusal_with_broken_text_still_arrives),
        cmocka_unit_test(test_answer_beyond_a_frame_is_refused),
        cmocka_unit_test(test_absent_daemon_is_unreachable),
        cmocka_unit_test(test_other_users_are_refused),
        cmocka_unit_test(test_socket_mode_is_closed),
        cmocka_unit_test(test_hostile_frames_end_the_connection_only),
        cmocka_unit_test(test_connections_are_bounded),
        cmocka_unit_test(test_idle_connections_leave_root_a_place),
        cmocka_unit_test(test_a_frame_has_one_deadline),
        cmocka_unit_test(test_the_end_waits_for_no_trickling_peer),
        cmocka_unit_test(test_a_file_in_the_way_is_not_removed),
        cmocka_unit_test(test_a_socket_in_use_is_not_taken),
    };
    return cmocka_run_group_tests(tests, start, stop);
}
