/* The caller's own agent: which socket, a server that does not answer, chains that are none. A
 * call's bytes: unit/client/test_wire. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/apiclient/agent.h"
#include "attestd/apiclient/unary.h"
#include "attestd/base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

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
        apiclient_unary("/nowhere/api.sock", "/a/b", NULL, ATT_SLICE(NULL, 0), &got, NULL, &err),
        ATT_E_UNREACHABLE);
    assert_int_equal(err.domain, ATT_DOM_ERRNO);
}

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
        apiclient_unary(at.sun_path, "/a/B", NULL, ATT_SLICE(NULL, 0), &reply, NULL, &err),
        ATT_E_TIMEOUT);
    assert_true(att_boottime_ms() - begin < 2 * APICLIENT_TIMEOUT_MS);
    close(waits);
    close(listener);
    unlink(at.sun_path);
    rmdir(dir);
}

/* A ChainResponse by hand: field 1 and 2 text, 3 bytes. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_socket),
                                       cmocka_unit_test(test_no_answer),
                                       cmocka_unit_test(test_chain_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
