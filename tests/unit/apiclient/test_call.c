/* A gRPC reply as bytes: what is refused and by which word, then the one message. Frames are
 * written here by hand (RFC 9113 §4.1), header fields as literals (RFC 7541 §6.2.2). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/apiclient/agent.h"
#include "attestd/apiclient/call.h"
#include "attestd/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { DATA = 0, HEADERS = 1, RST = 3, SETTINGS = 4, GOAWAY = 7, END_STREAM = 1, END_HEADERS = 4 };

static void frame(struct att_buf *out, uint8_t type, uint8_t flags, uint32_t stream,
                  struct att_slice payload)
{
    att_buf_u8(out, 0);
    att_buf_be16(out, (uint16_t)payload.len);
    att_buf_u8(out, type);
    att_buf_u8(out, flags);
    att_buf_be32(out, stream);
    att_buf_put_slice(out, payload);
}

/* "name\0value\0…", both shorter than 127 bytes. */
static void headers(struct att_buf *out, uint8_t flags, const char *const *pairs)
{
    att_autobuf block = {0};
    for (size_t i = 0; pairs[i]; i++) {
        if (i % 2 == 0) {
            att_buf_u8(&block, 0);
        }
        att_buf_u8(&block, (uint8_t)strlen(pairs[i]));
        att_buf_put_str(&block, pairs[i]);
    }
    frame(out, HEADERS, flags | END_HEADERS, 1, att_buf_slice(&block));
}

#define OK200                                                                                      \
    (const char *const[])                                                                          \
    {                                                                                              \
        ":status", "200", "content-type", "application/grpc", NULL                                 \
    }
#define STATUS(code, text)                                                                         \
    (const char *const[])                                                                          \
    {                                                                                              \
        "grpc-status", code, "grpc-message", text, NULL                                            \
    }

static enum att_rc reply(const struct att_buf *bytes, struct att_buf *ret, struct att_err *err)
{
    struct apiclient_call *call = NULL;
    struct att_slice sent = {0}, message = {0};
    assert_int_equal(apiclient_call_new("/attestd.v1.Signer/Chain", APICLIENT_SPIFFE,
                                        ATT_SLICE_LIT("hello"), &call, NULL),
                     ATT_OK);
    do {
        assert_int_equal(apiclient_call_send(call, &sent, NULL), ATT_OK);
    } while (sent.len);
    enum att_rc rc = apiclient_call_recv(call, att_buf_slice(bytes), err);
    if (rc == ATT_OK) {
        rc = apiclient_call_reply(call, &message, err);
        att_buf_put_slice(ret, message);
    }
    apiclient_call_free(call);
    return rc;
}

static void begin(struct att_buf *bytes)
{
    att_buf_reset(bytes);
    frame(bytes, SETTINGS, 0, 0, ATT_SLICE(NULL, 0));
}

static void fails(const struct att_buf *bytes, enum att_rc rc, const char *reason,
                  const char *words)
{
    att_autobuf got = {0};
    struct att_err err = {0};
    assert_int_equal(reply(bytes, &got, &err), rc);
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
        {"7", "no agent's entry fits this process (notAssigned)", ATT_E_DENIED, "notAssigned",
         "no agent's entry"},
        {"14", "later", ATT_E_RETRY, "", "later"},
        {"5", "", ATT_E_NOTFOUND, "", "refused"},
        {"9", "x", ATT_E_CONFLICT, "", "x"},
        {"3", "x", ATT_E_INVAL, "", "x"},
        {"12", "x", ATT_E_UNSUPPORTED, "", "x"},
        {"2", "x", ATT_E_PROTOCOL, "", "x"},
        {"99", "x", ATT_E_PROTOCOL, "", "x"},
        {"7", "a%20b%1b%5bm%zz", ATT_E_DENIED, "", "a b?[m%zz"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        att_autobuf bytes = {0};
        begin(&bytes);
        headers(&bytes, 0, OK200);
        headers(&bytes, END_STREAM, STATUS(rows[i].code, rows[i].text));
        fails(&bytes, rows[i].rc, rows[i].reason, rows[i].words);
    }
}

static void test_no_reply(void **state)
{
    (void)state;
    att_autobuf bytes = {0};
    begin(&bytes);
    fails(&bytes, ATT_E_GONE, "", "without a status");
    headers(&bytes, END_STREAM, OK200);
    fails(&bytes, ATT_E_GONE, "", "without a status");
    begin(&bytes);
    headers(&bytes, 0, OK200);
    headers(&bytes, END_STREAM, STATUS("x", ""));
    fails(&bytes, ATT_E_GONE, "", "without a status");
    begin(&bytes);
    headers(&bytes, END_STREAM, (const char *const[]){":status", "404", NULL});
    fails(&bytes, ATT_E_PROTOCOL, "", "no gRPC there");
    begin(&bytes);
    headers(&bytes, END_STREAM,
            (const char *const[]){":status", "200", "content-type", "text/html", "grpc-status", "0",
                                  NULL});
    fails(&bytes, ATT_E_PROTOCOL, "", "no gRPC there");
    att_buf_reset(&bytes);
    att_buf_put_str(&bytes, "HTTP/1.1 400 Bad Request\r\n\r\n and more of it");
    fails(&bytes, ATT_E_GONE, "", "without a status"); /* libnghttp2 answers with GOAWAY */
}

static void message_fails(struct att_slice data)
{
    att_autobuf bytes = {0};
    begin(&bytes);
    headers(&bytes, 0, OK200);
    frame(&bytes, DATA, 0, 1, data);
    headers(&bytes, END_STREAM, STATUS("0", ""));
    fails(&bytes, ATT_E_PROTOCOL, "", "expected one reply message");
}

static void test_messages(void **state)
{
    (void)state;
    message_fails(ATT_SLICE(NULL, 0));
    message_fails(ATT_SLICE_LIT("\0\0\0\0"));
    message_fails(ATT_SLICE_LIT("\1\0\0\0\1a"));
    message_fails(ATT_SLICE_LIT("\0\0\0\0\2a"));
    message_fails(ATT_SLICE_LIT("\0\0\0\0\1ab"));
    message_fails(ATT_SLICE_LIT("\0\0\0\0\1a\0\0\0\0\1a"));
    message_fails(ATT_SLICE_LIT("\0\377\377\377\377a"));
    att_autobuf bytes = {0}, got = {0};
    begin(&bytes);
    headers(&bytes, 0, OK200);
    frame(&bytes, DATA, 0, 1, ATT_SLICE_LIT("\0\0\0\0\3"));
    frame(&bytes, DATA, 0, 1, ATT_SLICE_LIT("abc"));
    headers(&bytes, END_STREAM, STATUS("0", ""));
    assert_int_equal(reply(&bytes, &got, NULL), ATT_OK);
    assert_true(att_slice_eq_str(att_buf_slice(&got), "abc"));
}

static void socket_is(const char *text, const char *path)
{
    char got[108] = "";
    assert_int_equal(
        text ? setenv("SPIFFE_ENDPOINT_SOCKET", text, 1) : unsetenv("SPIFFE_ENDPOINT_SOCKET"), 0);
    assert_int_equal(apiclient_socket(got, NULL), path ? ATT_OK : ATT_E_INVAL);
    assert_string_equal(got, path ? path : "");
}

static void test_socket(void **state)
{
    (void)state;
    char deep[140];
    memset(deep, 'x', sizeof deep);
    memcpy(deep, "unix:///", 8);
    deep[sizeof deep - 1] = 0;
    socket_is("tcp://127.0.0.1:80", NULL);
    socket_is("unix://host/x", NULL);
    socket_is("unix:x", NULL);
    socket_is("/run/x", NULL);
    socket_is(deep, NULL);
    socket_is("unix:///run/x", "/run/x");
    socket_is("unix:/run/x", "/run/x");
    socket_is("", APICLIENT_SOCKET);
    socket_is(NULL, APICLIENT_SOCKET);
    att_autobuf got = {0};
    struct att_err err = {0};
    assert_int_equal(
        apiclient_unary("/nowhere/api.sock", "/a/b", 0, ATT_SLICE(NULL, 0), &got, NULL, &err),
        ATT_E_UNREACHABLE);
    assert_int_equal(err.domain, ATT_DOM_ERRNO);
}

/* A ChainResponse by hand: field 1 and 2 text, 3 bytes. */
/* A server that takes no connection any more: the call ends by itself. */
static void test_no_answer(void **state)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    struct att_err err = {0};
    att_autobuf reply = ATT_BUF_INIT(1024);
    char dir[] = "/tmp/att-apiclient-XXXXXX";
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(at.sun_path, sizeof at.sun_path, "%s/s", dir);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int waits = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (const struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 0), 0);
    assert_int_equal(connect(waits, (const struct sockaddr *)&at, sizeof at), 0); /* all there is */
    int64_t begin = att_boottime_ms();
    assert_int_equal(
        apiclient_unary(at.sun_path, "/a/B", 0, ATT_SLICE(NULL, 0), &reply, NULL, &err),
        ATT_E_TIMEOUT);
    assert_true(att_boottime_ms() - begin < 2 * APICLIENT_TIMEOUT_MS);
    close(waits);
    close(listener);
    unlink(at.sun_path);
    rmdir(dir);
}

static void test_chain_refused(void **state)
{
    (void)state;
    static const struct att_slice rows[] = {
        ATT_SLICE_LIT(""),
        ATT_SLICE_LIT("\xff\xff"),
        ATT_SLICE_LIT("\x0a\x01s\x12\x01k"),           /* no certificate */
        ATT_SLICE_LIT("\x0a\x01s\x12\x01k\x1a\x02xx"), /* none that is one */
        ATT_SLICE_LIT("\x12\x01k\x1a\x02xx"),          /* no id */
        ATT_SLICE_LIT("\x0a\x01s\x12\x41"
                      "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
                      "\x1a\x02xx"), /* a key id too long */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct apiclient_agent agent = {0};
        struct att_err err = {0};
        assert_int_not_equal(apiclient_agent_parse(rows[i], &agent, &err), ATT_OK);
        assert_true(err.msg[0]);
        assert_null(agent.chain);
    }
}

/* Whether a token was in attestd's memory: one that says nothing of it was not. */
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
        att_autobuf bytes = {0};
        struct apiclient_call *call = NULL;
        struct att_slice sent = {0};
        const char *const pairs[] = {
            ":status",     "200", "content-type", "application/grpc", rows[i].name,
            rows[i].value, NULL};
        assert_int_equal(apiclient_call_new("/a/b", APICLIENT_SPIFFE | APICLIENT_FRESH,
                                            ATT_SLICE_LIT("hello"), &call, NULL),
                         ATT_OK);
        do {
            assert_int_equal(apiclient_call_send(call, &sent, NULL), ATT_OK);
        } while (sent.len);
        begin(&bytes);
        headers(&bytes, 0, pairs);
        assert_int_equal(apiclient_call_recv(call, att_buf_slice(&bytes), NULL), ATT_OK);
        assert_int_equal(apiclient_call_kept(call), rows[i].kept);
        apiclient_call_free(call);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_statuses),  cmocka_unit_test(test_no_reply),
        cmocka_unit_test(test_messages),  cmocka_unit_test(test_socket),
        cmocka_unit_test(test_no_answer), cmocka_unit_test(test_chain_refused),
        cmocka_unit_test(test_kept)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
