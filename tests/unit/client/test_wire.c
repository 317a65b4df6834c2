/* A gRPC call's bytes: what is refused of HTTP/2, of statuses and of messages, and by which word;
 * what a request says; calls over a socket pair. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/base/clock.h"
#include "attestd/client/wire.h"
#include "tests/unit/client/frames.h"

#include <fcntl.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- bytes alone ---- */

static struct wire *begun(void)
{
    const struct wire_request request = {.method = "/attestd.v1.Signer/Chain", .until_ms = -1};
    struct wire *wire = NULL;
    assert_int_equal(wire_new(-1, "test/1", &wire, NULL), ATT_OK);
    assert_int_equal(wire_begin(wire, &request, NULL), ATT_OK);
    assert_int_equal(wire_send(wire, -1, NULL), ATT_OK);
    return wire;
}

static enum att_rc outcome(const struct att_buf *bytes, struct att_buf *ret, struct att_err *err)
{
    struct wire *wire = begun();
    struct att_slice got = {0};
    enum att_rc rc = wire_take(wire, att_buf_slice(bytes), err);
    rc = rc ? rc : wire_reply(wire, &got, err);
    att_buf_put_slice(ret, got);
    wire_free(wire);
    return rc;
}

static void fails(const struct att_buf *bytes, enum att_rc rc, const char *reason,
                  const char *words)
{
    att_autobuf got = {0};
    struct att_err err = {0};
    assert_int_equal(outcome(bytes, &got, &err), rc);
    assert_string_equal(err.reason, reason);
    if (!strstr(err.msg, words)) {
        fail_msg("\"%s\" is not in: %s", words, err.msg);
    }
    assert_int_equal(got.len, 0);
}

static void test_statuses(void **state)
{
    (void)state;
    static const struct {
        const char *code, *text;
        enum att_rc rc;
        const char *reason, *words;
    } rows[] = {
        {"7", "frozen: agent alpha is frozen", ATT_E_DENIED, "frozen", "agent alpha is frozen"},
        {"7", "no entry fits (notAssigned)", ATT_E_DENIED, "notAssigned", "no entry fits"},
        {"14", "later", ATT_E_RETRY, "", "later"},
        {"5", "", ATT_E_NOTFOUND, "", "refused"},
        {"9", "x", ATT_E_CONFLICT, "", "x"},
        {"3", "x", ATT_E_INVAL, "", "x"},
        {"4", "x", ATT_E_TIMEOUT, "", "x"},
        {"8", "x", ATT_E_LIMIT, "", "x"},
        {"12", "x", ATT_E_UNSUPPORTED, "", "x"},
        {"16", "x", ATT_E_DENIED, "", "x"},
        {"2", "x", ATT_E_PROTOCOL, "", "x"},
        {"99", "x", ATT_E_PROTOCOL, "", "x"},
        {"99999", "x", ATT_E_PROTOCOL, "", "x"},
        {"999999", "x", ATT_E_GONE, "", "without a status"},
        {"7", "a%20b%1b%5bm%zz%2", ATT_E_DENIED, "", "a b?[m%zz%2"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        att_autobuf bytes = {0};
        start(&bytes);
        headers(&bytes, 0, 1, ok200);
        status(&bytes, 1, rows[i].code, rows[i].text);
        fails(&bytes, rows[i].rc, rows[i].reason, rows[i].words);
    }
}

static void test_no_answer(void **state)
{
    (void)state;
    att_autobuf bytes = {0};
    const char *const not_found[] = {":status", "404", NULL};
    const char *const html[] = {":status", "200", "content-type", "text/html", "grpc-status",
                                "0",       NULL};
    start(&bytes);
    fails(&bytes, ATT_E_GONE, "", "without a status");
    headers(&bytes, END_STREAM, 1, ok200);
    fails(&bytes, ATT_E_GONE, "", "without a status");
    start(&bytes);
    headers(&bytes, 0, 1, ok200);
    status(&bytes, 1, "x", "");
    fails(&bytes, ATT_E_GONE, "", "without a status");
    start(&bytes);
    headers(&bytes, END_STREAM, 1, not_found);
    fails(&bytes, ATT_E_PROTOCOL, "", "no gRPC there");
    start(&bytes);
    headers(&bytes, END_STREAM, 1, html);
    fails(&bytes, ATT_E_PROTOCOL, "", "no gRPC there");
    att_buf_reset(&bytes);
    att_buf_put_str(&bytes, "HTTP/1.1 400 Bad Request\r\n\r\n");
    fails(&bytes, ATT_E_GONE, "", "without a status"); /* libnghttp2 gives the connection up */
    start(&bytes);                                     /* another stream's answer is none */
    headers(&bytes, 0, 3, ok200);
    fails(&bytes, ATT_E_GONE, "", "");
}

static void test_messages(void **state)
{
    (void)state;
    static const struct {
        uint8_t bytes[16];
        size_t len;
        const char *words;
    } bad[] = {{{0}, 0, "expected one reply message"},
               {{0, 0, 0}, 3, "cut off"},
               {{0, 0, 0, 0, 2, 'x'}, 6, "cut off"},
               {{1, 0, 0, 0, 1, 'x'}, 6, "at most 4 MiB"},
               {{0, 0, 0x40, 0, 1, 'x'}, 6, "at most 4 MiB"},
               {{0, 0xff, 0xff, 0xff, 0xff, 'x'}, 6, "at most 4 MiB"},
               {{0, 0, 0, 0, 1, 'x', 'y'}, 7, "expected one reply message"},
               {{0, 0, 0, 0, 1, 'x', 0, 0, 0, 0, 1, 'x'}, 12, "expected one reply message"}};
    att_autobuf bytes = {0}, got = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        start(&bytes);
        headers(&bytes, 0, 1, ok200);
        frame(&bytes, DATA, 0, 1, ATT_SLICE(bad[i].bytes, bad[i].len));
        status(&bytes, 1, "0", "");
        fails(&bytes, ATT_E_PROTOCOL, "", bad[i].words);
    }
    start(&bytes); /* a good status, and nothing */
    headers(&bytes, 0, 1, ok200);
    status(&bytes, 1, "0", "");
    fails(&bytes, ATT_E_PROTOCOL, "", "expected one reply message");
    start(&bytes);
    headers(&bytes, 0, 1, ok200);
    frame(&bytes, DATA, 0, 1, ATT_SLICE_LIT("\0\0\0\0\5"));
    frame(&bytes, DATA, 0, 1, ATT_SLICE_LIT("hello"));
    status(&bytes, 1, "0", "");
    assert_int_equal(outcome(&bytes, &got, NULL), ATT_OK);
    assert_true(att_slice_eq_str(att_buf_slice(&got), "hello"));
}

/* More than the library takes: 5 MiB of one message that never says so. */
static void test_too_long(void **state)
{
    (void)state;
    att_autobuf bytes = {0}, block = {0};
    start(&bytes);
    headers(&bytes, 0, 1, ok200);
    for (size_t i = 0; i < 1000; i++) {
        att_buf_u8(&block, 0);
    }
    for (size_t i = 0; i < 5 * 1024; i++) { /* the window is 64 KiB: who sends beyond it is cut */
        frame(&bytes, DATA, 0, 1, att_buf_slice(&block));
    }
    att_autobuf got = {0};
    struct att_err err = {0};
    assert_int_equal(outcome(&bytes, &got, &err), ATT_E_GONE);
}

/* A stream's messages one by one, with what lies between frames. */
static void test_stream(void **state)
{
    (void)state;
    att_autobuf bytes = {0};
    struct wire *wire = begun();
    struct att_slice got;
    start(&bytes);
    headers(&bytes, 0, 1, ok200);
    frame(&bytes, DATA, 0, 1, ATT_SLICE_LIT("\0\0\0\0\1a\0\0\0\0\2b"));
    assert_int_equal(wire_take(wire, att_buf_slice(&bytes), NULL), ATT_OK);
    assert_int_equal(wire_message(wire, &got, NULL), ATT_OK);
    assert_true(att_slice_eq_str(got, "a"));
    assert_int_equal(wire_message(wire, &got, NULL), ATT_E_NOTFOUND);
    assert_false(wire_ended(wire));
    att_buf_reset(&bytes);
    frame(&bytes, DATA, 0, 1, ATT_SLICE_LIT("c"));
    assert_int_equal(wire_take(wire, att_buf_slice(&bytes), NULL), ATT_OK);
    assert_int_equal(wire_message(wire, &got, NULL), ATT_OK);
    assert_true(att_slice_eq_str(got, "bc"));
    wire_free(wire);
}

/* Whether a token was in attestd's memory: one that says nothing of it was not, and the next call
 * on the connection knows nothing of it. */
static void test_kept(void **state)
{
    (void)state;
    static const struct {
        const char *name, *value;
        bool kept;
    } rows[] = {{"attestd-kept", "true", true},
                {"attestd-kept", "yes", false},
                {"attestd-keptx", "true", false}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct wire_request next = {.method = "/a/b", .until_ms = -1};
        const char *const pairs[] = {
            ":status",     "200", "content-type", "application/grpc", rows[i].name,
            rows[i].value, NULL};
        att_autobuf bytes = {0};
        struct wire *wire = begun();
        start(&bytes);
        headers(&bytes, 0, 1, pairs);
        assert_int_equal(wire_take(wire, att_buf_slice(&bytes), NULL), ATT_OK);
        assert_int_equal(wire_kept(wire), rows[i].kept);
        assert_int_equal(wire_begin(wire, &next, NULL), ATT_OK);
        assert_false(wire_kept(wire));
        wire_free(wire);
    }
}

/* Of an answer nothing is left in memory, however long it was. (Read past AddressSanitizer, which
 * keeps what was freed; without it the memory may be gone.) */
static void test_wiped(void **state)
{
    (void)state;
    static uint8_t piece[10000], left[sizeof piece];
    att_autobuf bytes = {0};
    struct wire *wire = begun();
    struct att_slice got = {0};
    memset(piece, 's', sizeof piece);
    start(&bytes);
    headers(&bytes, 0, 1, ok200);
    frame(&bytes, DATA, 0, 1, ATT_SLICE_LIT("\0\0\1\x38\x80")); /* 80000 */
    for (size_t i = 0; i < 8; i++) {
        frame(&bytes, DATA, 0, 1, ATT_SLICE(piece, sizeof piece));
        assert_int_equal(wire_take(wire, att_buf_slice(&bytes), NULL), ATT_OK);
        assert_int_equal(wire_send(wire, -1, NULL), ATT_OK); /* the window goes on */
        att_buf_reset(&bytes);
    }
    assert_int_equal(wire_message(wire, &got, NULL), ATT_OK);
    assert_int_equal(got.len, 80000);
    off_t at = (off_t)(uintptr_t)got.ptr;
    int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    assert_true(mem >= 0);
    assert_int_equal(pread(mem, left, sizeof left, at), sizeof left);
    assert_memory_equal(left, piece, sizeof left);
    wire_free(wire);
    ssize_t n = pread(mem, left, sizeof left, at);
    close(mem);
    for (ssize_t i = 0; i + 1 < n; i++) {
        assert_false(left[i] == 's' && left[i + 1] == 's');
    }
}

/* ---- over a socket pair ---- */

static struct wire *paired(int *ret_peer)
{
    int fds[2];
    struct wire *wire = NULL;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(wire_new(fds[0], "test/1", &wire, NULL), ATT_OK);
    *ret_peer = fds[1];
    return wire;
}

/* Each header field of the first HEADERS frame in bytes, as "name: value\n". */
static void fields_of(struct att_slice bytes, struct att_buf *ret)
{
    nghttp2_hd_inflater *inflater = NULL;
    size_t at = 24; /* the preface */
    while (at + 9 < bytes.len && bytes.ptr[at + 3] != HEADERS) {
        at += 9 + ((size_t)bytes.ptr[at + 1] << 8 | bytes.ptr[at + 2]);
    }
    assert_true(at + 9 < bytes.len);
    size_t left = (size_t)bytes.ptr[at + 1] << 8 | bytes.ptr[at + 2];
    assert_true(at + 9 + left <= bytes.len);
    assert_int_equal(nghttp2_hd_inflate_new(&inflater), 0);
    for (const uint8_t *in = bytes.ptr + at + 9;;) {
        nghttp2_nv nv;
        int flags = 0;
        ssize_t n = nghttp2_hd_inflate_hd2(inflater, &nv, &flags, in, left, 1);
        assert_true(n >= 0);
        in += n;
        left -= (size_t)n;
        if (flags & NGHTTP2_HD_INFLATE_EMIT) {
            att_buf_printf(ret, "%.*s: %.*s\n", (int)nv.namelen, (const char *)nv.name,
                           (int)nv.valuelen, (const char *)nv.value);
        }
        if (flags & NGHTTP2_HD_INFLATE_FINAL) {
            break;
        }
    }
    nghttp2_hd_inflate_del(inflater);
}

/* What the server is told of a request with these fields and so much time. */
static void request_says(const char *const *fields, int64_t until_ms, struct att_buf *ret)
{
    uint8_t bytes[4096];
    int peer;
    const struct wire_request request = {
        .method = "/a.B/C", .fields = fields, .until_ms = until_ms};
    struct wire *wire = paired(&peer);
    assert_int_equal(wire_begin(wire, &request, NULL), ATT_OK);
    assert_int_equal(wire_send(wire, -1, NULL), ATT_OK);
    ssize_t n = recv(peer, bytes, sizeof bytes, 0);
    assert_true(n > 0);
    fields_of(ATT_SLICE(bytes, (size_t)n), ret);
    assert_non_null(att_buf_cstr(ret));
    wire_free(wire);
    close(peer);
}

static void test_request(void **state)
{
    (void)state;
    static const char own[] = ":method: POST\n:scheme: http\n:path: /a.B/C\n"
                              ":authority: localhost\nte: trailers\n"
                              "content-type: application/grpc\nuser-agent: test/1\n";
    static const char *const more[] = {
        "workload.spiffe.io", "true", "attestd-fresh", "true", "a", "1", "b", "2", NULL};
    static const char *const many[] = {"a", "1", "b", "1", "c", "1", "d", "1", "e", "1", NULL};
    static const char *const odd[] = {"a", NULL};
    att_autobuf plain = {0}, full = {0}, late = {0}, far = {0};
    request_says(NULL, -1, &plain);
    assert_string_equal((const char *)plain.ptr, own);
    request_says(more, att_boottime_ms() + 20000, &full);
    const char *text = (const char *)full.ptr, *time = strstr(text, "grpc-timeout: ");
    assert_non_null(time);
    long ms = strtol(time + strlen("grpc-timeout: "), NULL, 10);
    assert_true(ms > 10000 && ms <= 20000);
    assert_non_null(strstr(time, "m\n"));
    assert_non_null(strstr(text, "\nworkload.spiffe.io: true\nattestd-fresh: true\na: 1\nb: 2\n"));
    request_says(NULL, 0, &late); /* over already: the least there is */
    assert_non_null(strstr((const char *)late.ptr, "grpc-timeout: 1m\n"));
    request_says(NULL, INT64_MAX, &far); /* eight digits at most */
    assert_non_null(strstr((const char *)far.ptr, "grpc-timeout: 99999999m\n"));
    const struct wire_request bad[] = {{.method = "/a/b", .fields = many, .until_ms = -1},
                                       {.method = "/a/b", .fields = odd, .until_ms = -1}};
    for (size_t i = 0; i < 2; i++) {
        struct wire *wire = NULL;
        struct att_err err = {0};
        assert_int_equal(wire_new(-1, "test/1", &wire, NULL), ATT_OK);
        assert_int_equal(wire_begin(wire, &bad[i], &err), ATT_E_INVAL);
        assert_non_null(strstr(err.msg, "at most 4 names and values"));
        wire_free(wire);
    }
}

/* To a whole call: what lies there, which the peer leaves open or (shut) not. */
static enum att_rc call(const struct att_buf *answer, bool shut, struct att_buf *ret,
                        struct att_err *err)
{
    int peer;
    struct att_slice got = {0};
    const struct wire_request request = {.method = "/a.B/C",
                                         .message = ATT_SLICE_LIT("hello"),
                                         .until_ms = att_boottime_ms() + 1000};
    struct wire *wire = paired(&peer);
    if (answer->len) {
        assert_int_equal(write(peer, answer->ptr, answer->len), answer->len);
    }
    if (shut) {
        shutdown(peer, SHUT_WR);
    }
    enum att_rc rc = wire_call(wire, &request, &got, err);
    att_buf_put_slice(ret, got);
    wire_free(wire);
    close(peer);
    return rc;
}

static void test_call(void **state)
{
    (void)state;
    att_autobuf bytes = {0}, got = {0};
    struct att_err err = {0};
    start(&bytes);
    headers(&bytes, 0, 1, ok200);
    message(&bytes, 1, ATT_SLICE_LIT("hello"));
    assert_int_equal(call(&bytes, true, &got, &err), ATT_E_GONE);
    assert_non_null(strstr(err.msg, "ended the connection"));
    att_err_clear(&err);
    assert_int_equal(call(&bytes, false, &got, &err), ATT_E_TIMEOUT);
    assert_non_null(strstr(err.msg, "no answer in time"));
    assert_int_equal(got.len, 0);
    status(&bytes, 1, "0", "");
    assert_int_equal(call(&bytes, false, &got, NULL), ATT_OK);
    assert_true(att_slice_eq_str(att_buf_slice(&got), "hello"));
    att_buf_reset(&got);
    att_buf_reset(&bytes); /* we give the connection up: nothing is waited for */
    att_buf_put_str(&bytes, "HTTP/1.1 400 Bad Request\r\n\r\n and more of it");
    att_err_clear(&err);
    assert_int_equal(call(&bytes, false, &got, &err), ATT_E_GONE);
    assert_non_null(strstr(err.msg, "without a status"));
    assert_int_equal(got.len, 0);
}

static void test_connect(void **state)
{
    (void)state;
    char deep[140];
    struct wire *wire = NULL;
    struct att_err err = {0};
    memset(deep, 'x', sizeof deep);
    deep[0] = '/';
    deep[sizeof deep - 1] = 0;
    assert_int_equal(wire_connect(deep, "test/1", att_boottime_ms() + 1000, &wire, &err),
                     ATT_E_INVAL);
    assert_non_null(strstr(err.msg, "the socket's path is too long"));
    att_err_clear(&err);
    assert_int_equal(
        wire_connect("/nowhere/api.sock", "test/1", att_boottime_ms() + 1000, &wire, &err),
        ATT_E_UNREACHABLE);
    assert_int_equal(err.domain, ATT_DOM_ERRNO);
    assert_null(wire);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses), cmocka_unit_test(test_no_answer),
        cmocka_unit_test(test_messages), cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_stream),   cmocka_unit_test(test_kept),
        cmocka_unit_test(test_wiped),    cmocka_unit_test(test_request),
        cmocka_unit_test(test_call),     cmocka_unit_test(test_connect)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
