/* Server and client over a real socket, and what a hostile or dying peer does to them. */
#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/proc/keyd_client.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char dir[64], path[96];
    struct proc_users clients;
    struct proc_server *server;
    atomic_int calls;
    atomic_int pause_ms;
};

static enum att_rc handler(void *user, const struct proc_peer *peer, const struct proc_op *op,
                           const struct proc_msg *request, struct att_buf *ret_payload,
                           struct att_err *err)
{
    struct fixture *f = user;
    atomic_fetch_add(&f->calls, 1);
    usleep((useconds_t)atomic_load(&f->pause_ms) * 1000);
    if (!proc_users_have(&f->clients, peer->uid)) {
        return att_fail(err, ATT_E_INTERNAL, "uid");
    }
    if (op->op == PROC_KEYD_INFO) {
        const struct proc_value values[] = {{.bytes = ATT_SLICE_LIT("{\"version\":1}")}};
        return proc_reply_encode(op, values, ret_payload, err);
    }
    if (op->op == PROC_KEYD_ACCOUNT_SIGN) {
        uint8_t sig[64] = {0};
        memcpy(sig, request->v[1].bytes.ptr,
               request->v[1].bytes.len < 64 ? request->v[1].bytes.len : 64);
        const struct proc_value values[] = {{.bytes = ATT_SLICE_ARRAY(sig)}};
        return proc_reply_encode(op, values, ret_payload, err);
    }
    if (op->op == PROC_KEYD_THAW) {
        return proc_reply_encode(op, NULL, ret_payload, err);
    }
    enum att_rc rc = att_fail(err, ATT_E_DENIED, "not today");
    att_err_reason(err, "frozen");
    return rc;
}

static void start_server(struct fixture *f)
{
    const struct proc_server_opts opts = {.path = f->path,
                                          .clients = f->clients,
                                          .table = proc_keyd_table,
                                          .handler = handler,
                                          .user = f,
                                          .frame_timeout_ms = 300};
    struct att_err err = {0};
    assert_int_equal(proc_server_new(&opts, &f->server, &err), ATT_OK);
    assert_int_equal(proc_server_start(f->server, &err), ATT_OK);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    snprintf(f->dir, sizeof f->dir, "/tmp/att-ipc.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof f->path, "%s/keyd.sock", f->dir);
    f->clients = (struct proc_users){{getuid()}, 1};
    start_server(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    proc_server_free(f->server);
    assert_int_not_equal(access(f->path, F_OK), 0); /* it removed its socket */
    rmdir(f->dir);
    free(f);
    return 0;
}

static int raw_connect(const struct fixture *f)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, f->path, sizeof f->path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    return fd;
}

static enum att_rc raw_exchange(int fd, uint16_t op, struct att_slice payload,
                                const struct proc_op *shape, struct att_err *err)
{
    att_autobuf frame = {0}, in = ATT_BUF_INIT(PROC_FRAME_MAX);
    static struct proc_msg msg;
    struct proc_frame head;
    int64_t deadline = att_boottime_ms() + 60000;
    assert_int_equal(proc_frame_encode(77, op, payload, &frame, NULL), ATT_OK);
    assert_int_equal(proc_frame_send(fd, att_buf_slice(&frame), deadline, NULL), ATT_OK);
    assert_int_equal(proc_frame_recv(fd, &in, deadline, NULL), ATT_OK);
    assert_int_equal(proc_frame_parse(att_buf_slice(&in), &head, NULL), ATT_OK);
    assert_int_equal(head.id, 77);
    assert_int_equal(head.op, op | PROC_REPLY);
    return proc_reply_parse(shape, head.payload, &msg, err);
}

static void oversized_frame_ends_the_connection(void **state)
{
    struct fixture *f = *state;
    static const uint8_t heads[][4] = {
        {0, 4, 0, 1}, {0xff, 0xff, 0xff, 0xff}, {0, 0, 0, 0}, {0, 0, 0, 5}};
    for (size_t i = 0; i < 4; i++) {
        int fd = raw_connect(f);
        uint8_t byte;
        assert_int_equal(write(fd, heads[i], 4), 4);
        assert_int_equal(read(fd, &byte, 1), 0);
        close(fd);
    }
    assert_int_equal(atomic_load(&f->calls), 0);
}

static void slow_frame_is_given_up(void **state)
{
    struct fixture *f = *state;
    int fd = raw_connect(f);
    uint8_t byte;
    int64_t before = att_boottime_ms();
    assert_int_equal(write(fd, "\0\0\0\x08\0\0", 6), 6);
    assert_int_equal(read(fd, &byte, 1), 0);
    assert_true(att_boottime_ms() - before >= 200);
    close(fd);
    assert_int_equal(atomic_load(&f->calls), 0);
}

static void unknown_operation_is_refused(void **state)
{
    struct fixture *f = *state;
    int fd = raw_connect(f);
    struct att_err err = {0};
    const struct proc_op *op = proc_op_find(proc_keyd_table, PROC_KEYD_THAW);
    assert_int_equal(raw_exchange(fd, 0x1234, (struct att_slice){0}, op, &err), ATT_E_UNSUPPORTED);
    assert_string_equal(err.reason, "unknownOperation");
    att_err_clear(&err);
    /* The connection is still good, and a reply's number is no operation either. */
    assert_int_equal(raw_exchange(fd, 0x8001, (struct att_slice){0}, op, &err), ATT_E_UNSUPPORTED);
    assert_int_equal(atomic_load(&f->calls), 0);
    close(fd);
}

static void truncated_payload_is_refused_at_every_length(void **state)
{
    struct fixture *f = *state;
    int fd = raw_connect(f);
    const struct proc_op *op = proc_op_find(proc_keyd_table, PROC_KEYD_ACCOUNT_SIGN);
    const struct proc_value values[] = {{.bytes = ATT_SLICE_LIT("{}")},
                                        {.bytes = ATT_SLICE_LIT("payload")}};
    att_autobuf payload = {0};
    assert_int_equal(proc_msg_encode(&op->request, values, &payload, NULL), ATT_OK);
    for (size_t len = 0; len < payload.len; len++) {
        struct att_err err = {0};
        assert_int_equal(raw_exchange(fd, op->op, ATT_SLICE(payload.ptr, len), op, &err),
                         ATT_E_PARSE);
        assert_non_null(strstr(err.msg, "ACCOUNT_SIGN"));
    }
    assert_int_equal(atomic_load(&f->calls), 0);
    assert_int_equal(raw_exchange(fd, op->op, att_buf_slice(&payload), op, NULL), ATT_OK);
    close(fd);
}

static void second_server_is_refused(void **state)
{
    struct fixture *f = *state;
    const struct proc_server_opts opts = {.path = f->path,
                                          .clients = {{getuid()}, 1},
                                          .table = proc_keyd_table,
                                          .handler = handler,
                                          .user = f,
                                          .frame_timeout_ms = 300};
    struct proc_server *second = NULL;
    struct att_err err = {0};
    assert_int_equal(proc_server_new(&opts, &second, &err), ATT_E_CONFLICT);
    assert_null(second);
    close(raw_connect(f)); /* the first still serves */
    struct stat st;
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void socket_is_given_to_a_group(void **state)
{
    struct fixture *f = *state;
    gid_t gid = 0;
    struct att_err err = {0};
    assert_int_equal(proc_group_find("no-such-group", &gid, &err), ATT_E_NOTFOUND);
    assert_non_null(strstr(err.msg, "\"no-such-group\""));
    assert_int_equal(proc_group_find("65110", &gid, NULL), ATT_OK);
    assert_int_equal(gid, 65110);
    assert_int_equal(proc_group_find("root", &gid, NULL), ATT_OK);
    assert_int_equal(gid, 0);
    if (getuid() != 0) {
        skip();
    }
    char path[sizeof f->path + 8];
    struct proc_server *server = NULL;
    struct stat st;
    snprintf(path, sizeof path, "%s.group", f->path);
    const struct proc_server_opts opts = {.path = path,
                                          .clients = {{65102}, 1},
                                          .group = 65110,
                                          .table = proc_keyd_table,
                                          .handler = handler,
                                          .user = f,
                                          .frame_timeout_ms = 300};
    assert_int_equal(proc_server_new(&opts, &server, NULL), ATT_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_gid, 65110);
    assert_int_equal(st.st_mode & 0777, 0660);
    proc_server_free(server);
    assert_int_not_equal(access(path, F_OK), 0);
}

static void foreign_uid_is_turned_away(void **state)
{
    struct fixture *f = *state;
    if (getuid() != 0) {
        skip();
    }
    /* The modes let it connect; SO_PEERCRED does not. */
    assert_int_equal(chmod(f->dir, 0755), 0);
    assert_int_equal(chmod(f->path, 0666), 0);
    pid_t pid = fork();
    if (pid == 0) {
        struct sockaddr_un addr = {.sun_family = AF_UNIX};
        memcpy(addr.sun_path, f->path, sizeof f->path);
        uint8_t byte;
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (setresuid(65534, 65534, 65534) != 0 ||
            connect(fd, (const struct sockaddr *)&addr, sizeof addr) != 0) {
            _exit(3);
        }
        /* It may have hung up already: no SIGPIPE. */
        (void)!send(fd, "\0\0\0\x06\0\0\0\1\0\1", 10, MSG_NOSIGNAL);
        _exit(read(fd, &byte, 1) > 0 ? 4 : 0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(atomic_load(&f->calls), 0);
}

/* Forks a process that turns into uid and runs fn there; its exit status. */
static int as_uid(uid_t uid, int (*fn)(const struct fixture *), const struct fixture *f)
{
    pid_t pid = fork();
    if (pid == 0) {
        bool other = setgroups(0, NULL) == 0 && setresgid(65531, 65531, 65531) == 0 &&
                     setresuid(uid, uid, uid) == 0;
        _exit(uid == 0 || other ? fn(f) : 99);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* 0: answered, 1: hung up on, 2: not even connected */
static int ask(const struct fixture *f)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, f->path, sizeof f->path);
    uint8_t byte;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (const struct sockaddr *)&addr, sizeof addr) != 0) {
        return 2;
    }
    (void)!send(fd, "\0\0\0\x06\0\0\0\1\0\1", 10, MSG_NOSIGNAL);
    return read(fd, &byte, 1) == 1 ? 0 : 1;
}

static void only_named_clients_are_served(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    if (getuid() != 0) {
        skip();
    }
    proc_server_free(f->server);
    f->clients = (struct proc_users){{65533, 65532}, 2};
    start_server(f);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0660);
    assert_int_equal(st.st_gid, getegid());
    assert_int_equal(chmod(f->dir, 0755), 0);
    assert_int_equal(as_uid(65534, ask, f), 2); /* not of the socket's group */
    assert_int_equal(chmod(f->path, 0666), 0);
    assert_int_equal(as_uid(65534, ask, f), 1);
    assert_int_equal(as_uid(1, ask, f), 1);
    assert_int_equal(as_uid(65533, ask, f), 0);
    assert_int_equal(as_uid(65532, ask, f), 0);
    assert_int_equal(as_uid(0, ask, f), 0);
}

static int listen_there(const struct fixture *f, int ready)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, f->path, sizeof f->path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (bind(fd, (const struct sockaddr *)&addr, sizeof addr) != 0 || listen(fd, 4) != 0 ||
        write(ready, "x", 1) != 1) {
        return 1;
    }
    struct proc_peer peer;
    int conn = accept(fd, NULL, NULL);
    char byte;
    /* The caller learns who listens, and says nothing. */
    return proc_peer_get(conn, &peer, NULL) == ATT_OK && peer.uid == 0 && read(conn, &byte, 1) == 0
               ? 0
               : 2;
}

static void server_of_another_user_is_not_keyd(void **state)
{
    struct fixture *f = *state;
    struct proc_keyd *keyd = NULL;
    struct att_err err = {0};
    if (getuid() != 0) {
        skip();
    }
    proc_server_free(f->server);
    f->server = NULL;
    assert_int_equal(chmod(f->dir, 0777), 0);
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        _exit(setresuid(65534, 65534, 65534) == 0 ? listen_there(f, ready[1]) : 99);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1); /* bound, and listening */
    close(ready[0]);
    assert_int_equal(proc_keyd_new(f->path, 65533, 60000, &keyd, NULL), ATT_OK);
    assert_int_equal(proc_keyd_thaw(keyd, "a", &err), ATT_E_DENIED);
    assert_string_equal(err.reason, "foreignServer");
    assert_non_null(strstr(err.msg, "65534"));
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    proc_keyd_free(keyd);
    unlink(f->path);
}

static void root_may_be_keyd_whoever_is_expected(void **state)
{
    struct fixture *f = *state;
    struct proc_keyd *keyd = NULL;
    if (getuid() != 0) {
        skip();
    }
    assert_int_equal(proc_keyd_new(f->path, 65533, 3000, &keyd, NULL), ATT_OK);
    assert_int_equal(proc_keyd_thaw(keyd, "a", NULL), ATT_OK);
    proc_keyd_free(keyd);
}

static void users_are_found_by_name_or_number(void **state)
{
    (void)state;
    struct att_err err = {0};
    uid_t uid = 77;
    static const char *const none[] = {"no-such-user", "",   "-1", "4294967295",
                                       "99999999999",  "0x1"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        assert_int_equal(proc_user_find(none[i], &uid, &err), ATT_E_NOTFOUND);
        att_err_clear(&err);
        assert_int_equal(uid, 77);
    }
    struct proc_users users = {{0}, 0};
    assert_false(proc_users_have(&users, 1));
    assert_true(proc_users_have(&users, 0)); /* root needs no naming */
    for (int i = 0; i < PROC_USERS_MAX; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", 5000 + i);
        assert_int_equal(proc_users_add(&users, text, &err), ATT_OK);
        assert_int_equal(proc_users_add(&users, text, &err), ATT_OK); /* twice is once */
    }
    assert_int_equal(proc_users_add(&users, "6000", &err), ATT_E_LIMIT);
    assert_false(proc_users_have(&users, 6000));
    assert_int_equal(proc_user_find("root", &uid, NULL), ATT_OK);
    assert_int_equal(uid, 0);
}

static void connections_are_capped(void **state)
{
    struct fixture *f = *state;
    int fds[PROC_CONNECTIONS_MAX];
    const struct proc_op *op = proc_op_find(proc_keyd_table, PROC_KEYD_INFO);
    for (int i = 0; i < PROC_CONNECTIONS_MAX; i++) {
        fds[i] = raw_connect(f);
        assert_int_equal(raw_exchange(fds[i], op->op, (struct att_slice){0}, op, NULL), ATT_OK);
    }
    int extra = raw_connect(f);
    uint8_t byte;
    assert_int_equal(read(extra, &byte, 1), 0);
    close(extra);
    for (int i = 0; i < PROC_CONNECTIONS_MAX; i++) {
        close(fds[i]);
    }
}

/* Out of descriptors: who connects waits, and is served when there are some again. */
static void a_want_of_descriptors_passes(void **state)
{
    struct fixture *f = *state;
    struct rlimit was;
    if (getenv("ATT_VALGRIND")) {
        skip(); /* valgrind has descriptors of its own, and an idea of this limit */
    }
    int fd = raw_connect(f);
    const struct proc_op *op = proc_op_find(proc_keyd_table, PROC_KEYD_INFO);
    struct pollfd waiting = {.events = POLLIN};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    assert_int_equal(raw_exchange(fd, PROC_KEYD_INFO, ATT_SLICE(NULL, 0), op, NULL), ATT_OK);
    waiting.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* one more than is in use: connect(2) makes none, accept(2) would */
    const struct rlimit few = {(rlim_t)waiting.fd + 1, was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, f->path, sizeof f->path);
    assert_int_equal(connect(waiting.fd, (const struct sockaddr *)&addr, sizeof addr), 0);
    assert_int_equal(poll(&waiting, 1, 300), 0); /* neither served nor hung up on */
    int refused = (int)fcntl(fd, F_DUPFD_CLOEXEC, 0);
    int why = errno;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
    assert_int_equal(refused, -1); /* there was none indeed */
    assert_int_equal(why, EMFILE);
    assert_int_equal(raw_exchange(waiting.fd, PROC_KEYD_INFO, ATT_SLICE(NULL, 0), op, NULL),
                     ATT_OK);
    assert_int_equal(raw_exchange(fd, PROC_KEYD_INFO, ATT_SLICE(NULL, 0), op, NULL), ATT_OK);
    close(waiting.fd);
    close(fd);
}

static void client_gets_results_and_reasons(void **state)
{
    struct fixture *f = *state;
    struct proc_keyd *keyd = NULL;
    assert_int_equal(proc_keyd_new(f->path, getuid(), 3000, &keyd, NULL), ATT_OK);
    json_t *info = NULL;
    struct att_err err = {0};
    assert_int_equal(proc_keyd_info(keyd, &info, &err), ATT_OK);
    assert_int_equal(json_integer_value(json_object_get(info, "version")), 1);
    json_decref(info);
    assert_int_equal(proc_keyd_freeze(keyd, "a", &err), ATT_E_DENIED);
    assert_string_equal(err.reason, "frozen");
    assert_non_null(strstr(err.msg, "not today"));
    att_err_clear(&err);
    /* Refused before it is sent: */
    int before = atomic_load(&f->calls);
    assert_int_equal(proc_keyd_key_retire(keyd, "short", &err), ATT_E_INVAL);
    assert_int_equal(atomic_load(&f->calls), before);
    proc_keyd_free(keyd);
}

static void client_survives_a_restart(void **state)
{
    struct fixture *f = *state;
    struct proc_keyd *keyd = NULL;
    struct proc_key key = {0};
    struct att_err err = {0};
    assert_int_equal(proc_keyd_new(f->path, getuid(), 3000, &keyd, NULL), ATT_OK);
    assert_int_equal(proc_keyd_thaw(keyd, "a", NULL), ATT_OK);
    proc_server_free(f->server);
    f->server = NULL;
    assert_int_equal(proc_keyd_thaw(keyd, "a", &err), ATT_E_UNREACHABLE);
    assert_int_equal(proc_keyd_key_create(keyd, "a", "tpm", &key, NULL), ATT_E_UNREACHABLE);
    start_server(f);
    att_err_clear(&err);
    assert_int_equal(proc_keyd_thaw(keyd, "a", &err), ATT_OK);
    proc_keyd_free(keyd);
}

static void client_gives_up_in_time(void **state)
{
    struct fixture *f = *state;
    struct proc_keyd *keyd = NULL;
    atomic_store(&f->pause_ms, 3000);
    assert_int_equal(proc_keyd_new(f->path, getuid(), 100, &keyd, NULL), ATT_OK);
    int64_t before = att_boottime_ms();
    assert_int_equal(proc_keyd_thaw(keyd, "a", NULL), ATT_E_TIMEOUT);
    assert_in_range(att_boottime_ms() - before, 90, 2900); /* before the answer */
    atomic_store(&f->pause_ms, 0);
    /* The late answer goes to a connection that is closed: the next call is not confused by it. */
    json_t *info = NULL;
    assert_int_equal(proc_keyd_info(keyd, &info, NULL), ATT_OK);
    json_decref(info);
    proc_keyd_free(keyd);
}

/* A peer that accepts, reads one frame and closes: counts what arrives. */
struct closer {
    int listen_fd;
    atomic_int frames;
    int rounds;
};

static void *close_after_request(void *arg)
{
    struct closer *c = arg;
    for (int i = 0; i < c->rounds; i++) {
        int fd = accept(c->listen_fd, NULL, NULL);
        att_autobuf in = ATT_BUF_INIT(PROC_FRAME_MAX);
        if (proc_frame_recv(fd, &in, att_boottime_ms() + 2000, NULL) == ATT_OK) {
            atomic_fetch_add(&c->frames, 1);
        }
        close(fd);
    }
    return NULL;
}

static void only_harmless_requests_are_resent(void **state)
{
    struct fixture *f = *state;
    char path[128];
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(path, sizeof path, "%s/closer.sock", f->dir);
    memcpy(addr.sun_path, path, strlen(path) + 1);
    for (int creating = 0; creating < 2; creating++) {
        struct closer c = {.rounds = creating ? 1 : 2};
        c.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(c.listen_fd, (const struct sockaddr *)&addr, sizeof addr), 0);
        assert_int_equal(listen(c.listen_fd, 4), 0);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, close_after_request, &c), 0);
        struct proc_keyd *keyd = NULL;
        struct proc_key key = {0};
        assert_int_equal(proc_keyd_new(path, getuid(), 3000, &keyd, NULL), ATT_OK);
        enum att_rc rc = creating ? proc_keyd_key_create(keyd, "a", "tpm", &key, NULL)
                                  : proc_keyd_thaw(keyd, "a", NULL);
        assert_int_equal(rc, ATT_E_GONE);
        pthread_join(thread, NULL);
        assert_int_equal(atomic_load(&c.frames), creating ? 1 : 2);
        proc_keyd_free(keyd);
        close(c.listen_fd);
        unlink(path);
    }
}

static void *many_calls(void *arg)
{
    struct proc_keyd *keyd = arg;
    for (int i = 0; i < 100; i++) {
        char text[32];
        uint8_t sig[64];
        snprintf(text, sizeof text, "%p %d", (void *)&text, i);
        if (proc_keyd_account_sign(keyd, ATT_SLICE_LIT("{}"), att_slice_str(text), sig, NULL) !=
                ATT_OK ||
            memcmp(sig, text, strlen(text)) != 0) {
            return arg; /* another thread's answer */
        }
    }
    return NULL;
}

static void client_is_thread_safe(void **state)
{
    struct fixture *f = *state;
    struct proc_keyd *keyd = NULL;
    pthread_t threads[6];
    assert_int_equal(proc_keyd_new(f->path, getuid(), 5000, &keyd, NULL), ATT_OK);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, many_calls, keyd), 0);
    }
    for (int i = 0; i < 6; i++) {
        void *failed = NULL;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    assert_int_equal(atomic_load(&f->calls), 600);
    proc_keyd_free(keyd);
}

static void a_file_in_the_way_is_not_removed(void **state)
{
    struct fixture *f = *state;
    char file[128], target[16];
    const char *const kinds[] = {"file", "link"};
    for (size_t i = 0; i < 2; i++) {
        snprintf(file, sizeof file, "%s/%s", f->dir, kinds[i]);
        if (i == 0) {
            assert_int_equal(att_io_write_file(file, ATT_SLICE_LIT("keep"), 0600, NULL), ATT_OK);
        } else {
            assert_int_equal(symlink("file", file), 0);
        }
        const struct proc_server_opts opts = {.path = file, .table = proc_keyd_table};
        struct proc_server *server = NULL;
        struct att_err err = {0};
        assert_int_equal(proc_server_new(&opts, &server, &err), ATT_E_EXISTS);
        assert_non_null(strstr(err.msg, "is not a socket"));
        assert_int_equal(access(file, F_OK), 0);
    }
    assert_int_equal(readlink(file, target, sizeof target), 4);
    unlink(file);
    snprintf(file, sizeof file, "%s/file", f->dir);
    unlink(file);
}

#define SERVED(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SERVED(oversized_frame_ends_the_connection),
        SERVED(slow_frame_is_given_up),
        SERVED(unknown_operation_is_refused),
        SERVED(truncated_payload_is_refused_at_every_length),
        SERVED(second_server_is_refused),
        SERVED(a_file_in_the_way_is_not_removed),
        SERVED(socket_is_given_to_a_group),
        SERVED(foreign_uid_is_turned_away),
        SERVED(only_named_clients_are_served),
        SERVED(server_of_another_user_is_not_keyd),
        SERVED(root_may_be_keyd_whoever_is_expected),
        SERVED(users_are_found_by_name_or_number),
        SERVED(connections_are_capped),
        SERVED(a_want_of_descriptors_passes),
        SERVED(client_gets_results_and_reasons),
        SERVED(client_survives_a_restart),
        SERVED(client_gives_up_in_time),
        SERVED(only_harmless_requests_are_resent),
        SERVED(client_is_thread_safe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
