/* A descriptor that travels with a request: exactly where the table says so, exactly one, and never
 * left open. */
#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/proc/caller.h"
#include "attestd/proc/who_proto.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE (att_boottime_ms() + 60000)

/* "SAME" wants a descriptor, "PLAIN" does not. */
static const struct proc_op table[] = {
    {1, PROC_OP_FD, "SAME", {{{0}}}, {{{"inode", PROC_U64, 0, 0, 0}}}},
    {2, 0, "PLAIN", {{{0}}}, {{{"inode", PROC_U64, 0, 0, 0}}}},
    {0, 0, NULL, {{{0}}}, {{{0}}}},
};

struct fixture {
    char dir[64], path[96];
    struct proc_server *server;
};

/* The inode of what came: the handler can use it, the server closes it. */
static enum att_rc handler(void *user, const struct proc_peer *peer, const struct proc_op *op,
                           const struct proc_msg *request, struct att_buf *ret_payload,
                           struct att_err *err)
{
    struct stat st = {0};
    (void)user, (void)request;
    if (peer->passed >= 0 && fstat(peer->passed, &st) != 0) {
        return att_fail(err, ATT_E_IO, "fstat");
    }
    const struct proc_value values[] = {proc_num(st.st_ino)};
    return proc_reply_encode(op, values, ret_payload, err);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/att-fd.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof f->path, "%s/s", f->dir);
    const struct proc_server_opts opts = {.path = f->path,
                                          .clients = {.uids = {getuid()}, .count = 1},
                                          .table = table,
                                          .handler = handler,
                                          .frame_timeout_ms = 1000};
    assert_int_equal(proc_server_new(&opts, &f->server, NULL), ATT_OK);
    assert_int_equal(proc_server_start(f->server, NULL), ATT_OK);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    proc_server_free(f->server);
    rmdir(f->dir);
    free(f);
    return 0;
}

static size_t open_descriptors(void)
{
    size_t n = 0;
    DIR *dir = opendir("/proc/self/fd");
    assert_non_null(dir);
    while (readdir(dir)) {
        n++;
    }
    closedir(dir);
    return n;
}

static int raw_connect(const struct fixture *f)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, f->path, sizeof f->path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

static struct att_slice request(struct att_buf *buf, uint16_t op)
{
    *buf = ATT_BUF_INIT(256);
    assert_int_equal(proc_frame_encode(7, op, ATT_SLICE(NULL, 0), buf, NULL), ATT_OK);
    return att_buf_slice(buf);
}

static void passes_a_descriptor(void **state)
{
    struct fixture *f = *state;
    struct proc_caller *caller = NULL;
    proc_autoanswer answer = {0};
    struct stat st;
    att_autofd file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    assert_int_equal(fstat(file, &st), 0);
    assert_int_equal(proc_caller_new(f->path, "peer", getuid(), table, 3000, &caller, NULL),
                     ATT_OK);
    assert_int_equal(proc_call(caller, 1, NULL, file, &answer, NULL), ATT_OK);
    assert_int_equal(answer.msg.v[0].num, st.st_ino);
    proc_answer_done(&answer);
    assert_int_equal(proc_call(caller, 2, NULL, -1, &answer, NULL), ATT_OK);
    assert_int_equal(answer.msg.v[0].num, 0);
    proc_caller_free(caller);
}

static void refuses_a_missing_or_unwanted_descriptor(void **state)
{
    struct fixture *f = *state;
    struct proc_caller *caller = NULL;
    assert_int_equal(proc_caller_new(f->path, "peer", getuid(), table, 3000, &caller, NULL),
                     ATT_OK);
    for (int i = 0; i < 2; i++) {
        proc_autoanswer answer = {0};
        struct att_err err = {0};
        int passed = i == 0 ? -1 : STDERR_FILENO;
        assert_int_equal(proc_call(caller, i == 0 ? 1 : 2, NULL, passed, &answer, &err),
                         ATT_E_PARSE);
        assert_non_null(
            strstr(err.msg, i == 0 ? "a descriptor expected" : "no descriptor expected"));
    }
    proc_caller_free(caller);
}

static void two_descriptors_end_the_connection(void **state)
{
    struct fixture *f = *state;
    att_autobuf buf = {0};
    struct att_slice frame = request(&buf, 1);
    int fd = raw_connect(f);
    uint8_t byte;
    /* One with the first byte, one with the second. */
    assert_int_equal(proc_frame_send_fd(fd, ATT_SLICE(frame.ptr, 1), STDERR_FILENO, DEADLINE, NULL),
                     ATT_OK);
    assert_int_equal(proc_frame_send_fd(fd, ATT_SLICE(frame.ptr + 1, frame.len - 1), STDERR_FILENO,
                                        DEADLINE, NULL),
                     ATT_OK);
    assert_int_equal(read(fd, &byte, 1), 0);
    close(fd);
}

static void many_in_one_message_end_the_connection(void **state)
{
    struct fixture *f = *state;
    att_autobuf buf = {0};
    struct att_slice frame = request(&buf, 1);
    int fd = raw_connect(f);
    union {
        char room[CMSG_SPACE(8 * sizeof(int))];
        struct cmsghdr align;
    } control = {.room = {0}};
    struct iovec iov = {.iov_base = (void *)(uintptr_t)frame.ptr, .iov_len = frame.len};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.room,
                         .msg_controllen = sizeof control.room};
    struct cmsghdr *head = CMSG_FIRSTHDR(&msg);
    *head = (struct cmsghdr){CMSG_LEN(8 * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    for (size_t i = 0; i < 8; i++) {
        int passed = STDERR_FILENO;
        memcpy(CMSG_DATA(head) + i * sizeof passed, &passed, sizeof passed);
    }
    assert_int_equal(sendmsg(fd, &msg, 0), (ssize_t)frame.len);
    uint8_t byte;
    assert_int_equal(read(fd, &byte, 1), 0);
    close(fd);
}

static void no_descriptor_stays_open(void **state)
{
    /* The server's thread ends when it will; its descriptor goes with it. */
    for (int i = 0; i < 3; i++) {
        passes_a_descriptor(state);
        refuses_a_missing_or_unwanted_descriptor(state);
        two_descriptors_end_the_connection(state);
        many_in_one_message_end_the_connection(state);
    }
    usleep(100000);
    size_t before = open_descriptors();
    for (int i = 0; i < 20; i++) {
        passes_a_descriptor(state);
        refuses_a_missing_or_unwanted_descriptor(state);
        two_descriptors_end_the_connection(state);
        many_in_one_message_end_the_connection(state);
    }
    size_t after = open_descriptors();
    for (int i = 0; i < 100 && after > before; i++) {
        usleep(20000);
        after = open_descriptors();
    }
    assert_in_range(after, 1, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(passes_a_descriptor, setup, teardown),
        cmocka_unit_test_setup_teardown(refuses_a_missing_or_unwanted_descriptor, setup, teardown),
        cmocka_unit_test_setup_teardown(two_descriptors_end_the_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(many_in_one_message_end_the_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(no_descriptor_stays_open, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
