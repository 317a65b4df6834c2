/* libattest-client: what is refused of arguments and of messages; then calls, a watch and a fork
 * against a small server on a real socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/base/clock.h"
#include "attestd/client/answer.h"
#include "attestd/client/wire.h"
#include "tests/unit/client/frames.h"

#include "signer.pb-c.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void pack_chain(struct att_buf *ret, const char *id, const char *key, size_t certs)
{
    ProtobufCBinaryData list[32];
    Attestd__V1__ChainResponse m = ATTESTD__V1__CHAIN_RESPONSE__INIT;
    for (size_t i = 0; i < 32; i++) {
        list[i] = (ProtobufCBinaryData){5, (uint8_t *)(uintptr_t) "certX"};
    }
    m.spiffe_id = (char *)(uintptr_t)id;
    m.key_id = (char *)(uintptr_t)key;
    m.key_store = (char *)(uintptr_t) "tpm";
    m.chain = list;
    m.n_chain = certs;
    m.bundle = list;
    m.n_bundle = 2;
    m.not_after = 77;
    att_buf_reset(ret);
    uint8_t *room = att_buf_extend(ret, attestd__v1__chain_response__get_packed_size(&m));
    assert_non_null(room);
    (void)attestd__v1__chain_response__pack(&m, room);
}

static void test_chain(void **state)
{
    (void)state;
    static const struct {
        const char *id, *key;
        size_t certs;
    } bad[] = {
        {"", "k", 1}, {"spiffe://b/a", "", 1}, {"spiffe://b/a", "k", 0}, {"spiffe://b/a", "k", 17}};
    att_autobuf bytes = {0};
    struct attest_client_chain *chain = NULL;
    struct att_err err = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        pack_chain(&bytes, bad[i].id, bad[i].key, bad[i].certs);
        att_err_clear(&err);
        assert_int_equal(answer_chain(att_buf_slice(&bytes), &chain, &err), ATT_E_PROTOCOL);
        assert_null(chain);
    }
    assert_int_equal(answer_chain(ATT_SLICE_LIT("\xff\xff"), &chain, NULL), ATT_E_PROTOCOL);
    pack_chain(&bytes, "spiffe://b/a", "k", 16);
    assert_int_equal(answer_chain(att_buf_slice(&bytes), &chain, NULL), ATT_OK);
    att_buf_done(&bytes); /* nothing of it is borrowed */
    assert_string_equal(chain->spiffe_id, "spiffe://b/a");
    assert_string_equal(chain->key_id, "k");
    assert_string_equal(chain->key_store, "tpm");
    assert_int_equal(chain->not_after, 77);
    assert_int_equal(chain->n_certs, 16);
    assert_int_equal(chain->n_roots, 2);
    assert_memory_equal(chain->certs[15].data, "certX", 5);
    assert_int_equal(chain->roots[1].len, 5);
    attest_client_chain_free(chain);
}

static void test_signature(void **state)
{
    (void)state;
    uint8_t long_one[ATTEST_CLIENT_SIGNATURE_MAX + 1] = {0}, sig[ATTEST_CLIENT_SIGNATURE_MAX];
    static const struct {
        size_t len;
        const char *asked;
        enum att_rc rc;
    } rows[] = {{0, NULL, ATT_E_PROTOCOL},
                {sizeof long_one, NULL, ATT_E_PROTOCOL},
                {4, "other", ATT_E_PROTOCOL},
                {4, "k", ATT_OK},
                {ATTEST_CLIENT_SIGNATURE_MAX, "", ATT_OK}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t packed[1024];
        size_t len = 0;
        Attestd__V1__SignResponse m = ATTESTD__V1__SIGN_RESPONSE__INIT;
        m.signature = (ProtobufCBinaryData){rows[i].len, long_one};
        m.key_id = (char *)(uintptr_t) "k";
        size_t n = attestd__v1__sign_response__pack(&m, packed);
        assert_int_equal(answer_signature(ATT_SLICE(packed, n), rows[i].asked, sig, &len, NULL),
                         rows[i].rc);
        assert_int_equal(len, rows[i].rc == ATT_OK ? rows[i].len : 0);
    }
}

/* ---- a server on a socket ---- */

/* To each request the next of answers, over all connections; then it waits for the client's end. An
 * empty answer ends the connection at once. */
struct server {
    char path[64];
    int listener, connections, served;
    const struct att_buf *answers; /* one for each request */
    size_t n;
    pthread_t thread;
};

static bool take_all(int fd, uint8_t *bytes, size_t len)
{
    for (size_t got = 0; got < len;) {
        ssize_t n = recv(fd, bytes + got, len - got, 0);
        if (n <= 0) {
            return false;
        }
        got += (size_t)n;
    }
    return true;
}

/* Up to the end of a request; false: the client has ended. */
static bool take_request(int fd)
{
    uint8_t head[9], payload[4096];
    for (;;) {
        size_t len;
        if (!take_all(fd, head, sizeof head) ||
            (len = (size_t)head[1] << 8 | head[2]) > sizeof payload ||
            !take_all(fd, payload, len)) {
            return false;
        }
        if (head[3] == DATA && (head[4] & END_STREAM)) {
            return true;
        }
    }
}

static void *serve(void *arg)
{
    struct server *server = arg;
    size_t at = 0;
    for (int i = 0; i < server->connections; i++) {
        int fd = accept(server->listener, NULL, NULL);
        bool ended = false;
        uint8_t preface[24];
        (void)take_all(fd, preface, sizeof preface);
        for (; at < server->n; at++) {
            if (!take_request(fd) || !server->answers[at].len) {
                at++;
                ended = true;
                break;
            }
            (void)!write(fd, server->answers[at].ptr, server->answers[at].len);
        }
        while (!ended && take_request(fd)) {
        }
        close(fd);
        server->served++;
    }
    return NULL;
}

static void server_start(struct server *server)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(server->path, sizeof server->path, "/tmp/attest-client-%d.sock", (int)getpid());
    (void)unlink(server->path);
    memcpy(at.sun_path, server->path, strlen(server->path) + 1);
    server->listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(server->listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(server->listener, 8), 0);
    assert_int_equal(pthread_create(&server->thread, NULL, serve, server), 0);
}

static void server_end(struct server *server)
{
    pthread_join(server->thread, NULL);
    close(server->listener);
    (void)unlink(server->path);
}

static void chain_answer(struct att_buf *out, bool first, uint32_t stream, const char *key)
{
    att_autobuf bytes = {0};
    pack_chain(&bytes, "spiffe://b/a", key, 1);
    if (first) {
        start(out);
    }
    headers(out, 0, stream, ok200);
    message(out, stream, att_buf_slice(&bytes));
}

static void test_arguments(void **state)
{
    (void)state;
    uint8_t sig[ATTEST_CLIENT_SIGNATURE_MAX], digest[65] = {0};
    char key[65];
    memset(key, 'k', 64);
    key[64] = 0;
    static const struct {
        int algorithm;
        size_t digest, room;
        bool key;
        const char *words;
    } rows[] = {{0, 32, 512, false, "algorithm: expected 1 to 3"},
                {4, 32, 512, false, "algorithm: expected 1 to 3"},
                {1, 19, 512, false, "20 to 64"},
                {1, 65, 512, false, "20 to 64"},
                {2, 20, 512, false, "32, 48 or 64"},
                {3, 33, 512, false, "32, 48 or 64"},
                {1, 32, 511, false, "512 bytes, found 511"},
                {1, 32, 512, true, "at most 63 characters"}};
    struct attest_client *client = attest_client_new("/nowhere/api.sock");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        size_t len = rows[i].room;
        assert_int_equal(attest_client_sign(client, (enum attest_client_algorithm)rows[i].algorithm,
                                            digest, rows[i].digest, rows[i].key ? key : NULL, sig,
                                            &len),
                         ATTEST_CLIENT_INVALID);
        assert_non_null(strstr(attest_client_message(client), rows[i].words));
        assert_int_equal(len, rows[i].room);
    }
    struct attest_client_chain *chain = NULL;
    assert_int_equal(attest_client_get_chain(client, &chain), ATTEST_CLIENT_UNREACHABLE);
    assert_int_equal(attest_client_watch(client, 0, &chain), ATTEST_CLIENT_UNREACHABLE);
    assert_int_equal(attest_client_watch_fd(client), -1);
    attest_client_free(client);
    static const char *const sockets[] = {"tcp://127.0.0.1:1", "unix:relative", "unix:////x", ""};
    for (size_t i = 0; i < 3; i++) {
        setenv("SPIFFE_ENDPOINT_SOCKET", sockets[i], 1);
        client = attest_client_new(NULL);
        assert_int_equal(attest_client_get_chain(client, &chain), ATTEST_CLIENT_INVALID);
        assert_non_null(strstr(attest_client_message(client), sockets[i]));
        attest_client_free(client);
    }
    unsetenv("SPIFFE_ENDPOINT_SOCKET");
    client = attest_client_new(""); /* no path is none of ours */
    assert_int_equal(attest_client_get_chain(client, &chain), ATTEST_CLIENT_INVALID);
    assert_non_null(strstr(attest_client_message(client), "found \"\""));
    attest_client_free(client);
    assert_string_equal(attest_client_status_name(ATTEST_CLIENT_DENIED), "denied");
    assert_string_equal(attest_client_status_name((enum attest_client_status)99), "unknown");
    assert_string_equal(attest_client_status_name((enum attest_client_status) - 1), "unknown");
}

/* Two calls on one connection; a server that ended it meanwhile costs one more, once. */
static void test_connection(void **state)
{
    (void)state;
    struct att_buf answers[4] = {{0}, {0}, {0}, {0}};
    chain_answer(&answers[0], true, 1, "first");
    status(&answers[0], 1, "0", "");
    chain_answer(&answers[1], false, 3, "second");
    status(&answers[1], 3, "0", "");
    /* answers[2]: it ends with the third call */
    chain_answer(&answers[3], true, 1, "third");
    status(&answers[3], 1, "0", "");
    struct server server = {.connections = 2, .answers = answers, .n = 4};
    server_start(&server);
    struct attest_client *client = attest_client_new(server.path);
    static const char *const keys[] = {"first", "second", "third"};
    for (size_t i = 0; i < 3; i++) {
        struct attest_client_chain *chain = NULL;
        enum attest_client_status got = attest_client_get_chain(client, &chain);
        if (got != ATTEST_CLIENT_OK) {
            fail_msg("%zu: %s: %s", i, attest_client_status_name(got),
                     attest_client_message(client));
        }
        assert_string_equal(chain->key_id, keys[i]);
        attest_client_chain_free(chain);
    }
    attest_client_free(client);
    server_end(&server);
    assert_int_equal(server.served, 2);
    for (size_t i = 0; i < 4; i++) {
        att_buf_done(&answers[i]);
    }
}

/* A new connection that ends is told: no third try, no loop. */
static void test_ends(void **state)
{
    (void)state;
    struct att_buf answers[1] = {{0}};
    struct server server = {.connections = 1, .answers = answers, .n = 1};
    struct attest_client_chain *chain = NULL;
    server_start(&server);
    struct attest_client *client = attest_client_new(server.path);
    assert_int_equal(attest_client_get_chain(client, &chain), ATTEST_CLIENT_ENDED);
    attest_client_free(client);
    server_end(&server);
}

static void test_timeout(void **state)
{
    (void)state;
    struct att_buf answers[1] = {{0}};
    struct attest_client_chain *chain = NULL;
    start(&answers[0]);
    struct server server = {.connections = 1, .answers = answers, .n = 1};
    server_start(&server);
    struct attest_client *client = attest_client_new(server.path);
    attest_client_set_timeout(client, 150);
    int64_t at = att_boottime_ms();
    assert_int_equal(attest_client_get_chain(client, &chain), ATTEST_CLIENT_TIMEOUT);
    assert_true(att_boottime_ms() - at >= 150);
    attest_client_free(client);
    server_end(&server);
    att_buf_done(&answers[0]);
}

static void on_signal(int number)
{
    (void)number;
}

/* A program's own signals while as many wait to be connected as may: no answer, until the time is
 * over. */
static void test_signals(void **state)
{
    (void)state;
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct attest_client_chain *chain = NULL;
    const struct sigaction action = {.sa_handler = on_signal};
    struct sigaction before;
    const struct itimerval often = {{0, 20000}, {0, 20000}}, never = {{0, 0}, {0, 0}};
    int waiting[4], n = 0, listener = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(at.sun_path, sizeof at.sun_path, "/tmp/attest-client-%d.full", (int)getpid());
    (void)unlink(at.sun_path);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 0), 0);
    for (bool full = false; !full && n < 4; n++) {
        waiting[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        full = connect(waiting[n], (struct sockaddr *)&at, sizeof at) != 0;
    }
    struct attest_client *client = attest_client_new(at.sun_path);
    attest_client_set_timeout(client, 300);
    assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
    int64_t since = att_boottime_ms();
    assert_int_equal(attest_client_get_chain(client, &chain), ATTEST_CLIENT_TIMEOUT);
    int64_t took = att_boottime_ms() - since;
    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    assert_int_equal(sigaction(SIGALRM, &before, NULL), 0);
    assert_true(took >= 290);
    attest_client_free(client);
    while (n > 0) {
        close(waiting[--n]);
    }
    close(listener);
    (void)unlink(at.sun_path);
}

/* What found no room in the socket is not lost: it goes first the next time. */
static void test_no_room(void **state)
{
    (void)state;
    const struct wire_request request = {.method = "/attestd.v1.Signer/Chain", .until_ms = -1};
    struct wire *wire = NULL;
    static uint8_t bytes[65536];
    int fds[2];
    size_t filled = 0;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    for (ssize_t put; (put = send(fds[0], bytes, sizeof bytes, MSG_DONTWAIT)) > 0;) {
        filled += (size_t)put;
    }
    for (ssize_t put; (put = send(fds[0], bytes, 1, MSG_DONTWAIT)) > 0;) {
        filled += (size_t)put;
    }
    assert_int_equal(wire_new(fds[0], "test/1", &wire, NULL), ATT_OK);
    assert_int_equal(wire_begin(wire, &request, NULL), ATT_OK);
    assert_int_equal(wire_send(wire, att_boottime_ms() + 20, NULL), ATT_E_TIMEOUT);
    while (filled > 0) {
        ssize_t got = recv(fds[1], bytes, filled < sizeof bytes ? filled : sizeof bytes, 0);
        assert_true(got > 0);
        filled -= (size_t)got;
    }
    assert_int_equal(wire_send(wire, att_boottime_ms() + 20, NULL), ATT_OK);
    assert_true(take_all(fds[1], bytes, 24));
    assert_memory_equal(bytes, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    assert_true(take_request(fds[1]));
    wire_free(wire);
    close(fds[1]);
}

/* Several states at once: the newest. Nothing new: TIMEOUT, and it goes on. Its end: the status. */
static void test_watch(void **state)
{
    (void)state;
    struct att_buf answers[1] = {{0}};
    att_autobuf again = {0};
    chain_answer(&answers[0], true, 1, "old");
    pack_chain(&again, "spiffe://b/a", "new", 1);
    message(&answers[0], 1, att_buf_slice(&again));
    struct server server = {.connections = 1, .answers = answers, .n = 1};
    server_start(&server);
    struct attest_client *client = attest_client_new(server.path);
    struct attest_client_chain *chain = NULL;
    assert_int_equal(attest_client_watch(client, 5000, &chain), ATTEST_CLIENT_OK);
    assert_string_equal(chain->key_id, "new");
    attest_client_chain_free(chain);
    chain = NULL;
    struct pollfd poll_fd = {.fd = attest_client_watch_fd(client), .events = POLLIN};
    assert_int_equal(poll(&poll_fd, 1, 0), 0);
    assert_int_equal(attest_client_watch(client, 0, &chain), ATTEST_CLIENT_TIMEOUT);
    assert_int_equal(attest_client_watch(client, 50, &chain), ATTEST_CLIENT_TIMEOUT);
    assert_int_equal(attest_client_watch_fd(client), poll_fd.fd);
    attest_client_free(client);
    server_end(&server);
    att_buf_done(&answers[0]);

    start(&answers[0]);
    headers(&answers[0], 0, 1, ok200);
    status(&answers[0], 1, "7", "frozen: agent alpha is frozen");
    struct server denies = {.connections = 1, .answers = answers, .n = 1};
    server_start(&denies);
    client = attest_client_new(denies.path);
    assert_int_equal(attest_client_watch(client, 5000, &chain), ATTEST_CLIENT_DENIED);
    assert_string_equal(attest_client_reason(client), "frozen");
    assert_int_equal(attest_client_watch_fd(client), -1);
    attest_client_free(client);
    server_end(&denies);
    att_buf_done(&answers[0]);
}

/* A child has a connection of its own, and the parent's goes on. */
static void test_fork(void **state)
{
    (void)state;
    struct att_buf answers[2] = {{0}, {0}};
    chain_answer(&answers[0], true, 1, "parent");
    status(&answers[0], 1, "0", "");
    struct server server = {.connections = 1, .answers = answers, .n = 1};
    server_start(&server);
    struct attest_client *client = attest_client_new(server.path);
    struct attest_client_chain *chain = NULL;
    assert_int_equal(attest_client_get_chain(client, &chain), ATTEST_CLIENT_OK);
    attest_client_chain_free(chain);
    (void)unlink(server.path);
    pid_t child = fork();
    if (child == 0) { /* it connects anew: nobody listens there any more */
        _exit(attest_client_get_chain(client, &chain) == ATTEST_CLIENT_UNREACHABLE ? 0 : 1);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    attest_client_free(client);
    server_end(&server);
    att_buf_done(&answers[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chain),     cmocka_unit_test(test_signature),
        cmocka_unit_test(test_arguments), cmocka_unit_test(test_connection),
        cmocka_unit_test(test_ends),      cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_watch),     cmocka_unit_test(test_fork),
        cmocka_unit_test(test_signals),   cmocka_unit_test(test_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
