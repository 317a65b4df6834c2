/* The header that a balancer puts before TLS: each form of it, each refusal by its name, in one
 * piece and byte by byte. */
#include "provision/issuer/addrs.h"
#include "provision/issuer/proxy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIGN "\r\n\r\n\0\r\nQUIT\n"
#define A4   "\xc0\x00\x02\x07\x0a\x00\x00\x01\x12\x67\x01\xbb"
#define A6                                                                                         \
    "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x12\x67\x01\xbb"
#define MAPPED                                                                                     \
    "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x07\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\x12\x67\x01"   \
    "\xbb"
#define B(text) (text), sizeof(text) - 1
#define LAST    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"

struct row {
    const char *bytes;
    size_t len;
    const char *source; /* "": the peer's own; of a refusal its name */
};

static const struct row good[] = {
    {B("PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\r\n"), "192.0.2.7"},
    {B("PROXY TCP4 255.255.255.255 0.0.0.0 0 65535\r\n"), "255.255.255.255"},
    {B("PROXY TCP6 2001:db8::7 ::1 4711 443\r\n"), "2001:db8::7"},
    {B("PROXY TCP6 " LAST " " LAST " 65535 65535\r\n"), LAST},
    {B("PROXY TCP6 ::ffff:192.0.2.7 ::1 4711 443\r\n"), "192.0.2.7"},
    {B("PROXY UNKNOWN\r\n"), ""},
    {B("PROXY UNKNOWN " LAST " " LAST " 65535 65535\r\n"), ""}, /* 107 bytes, the most */
    {B(SIGN "\x21\x11\x00\x0c" A4), "192.0.2.7"},
    {B(SIGN "\x21\x21\x00\x24" A6), "2001:db8::7"},
    {B(SIGN "\x21\x21\x00\x24" MAPPED), "192.0.2.7"},
    {B(SIGN "\x21\x11\x00\x16" A4 "\x04\x00\x01x"
            "\xea\x00\x03xyz"),
     "192.0.2.7"},
    {B(SIGN "\x20\x00\x00\x00"), ""},
    {B(SIGN "\x20\x11\x00\x0c" A4), ""},  /* LOCAL: whatever is said */
    {B(SIGN "\x20\x7f\x00\x03zzz"), ""},  /* also in another family */
    {B(SIGN "\x21\x00\x00\x04what"), ""}, /* unspecified */
};

static const struct row bad[] = {
    {B("\x16\x03\x01\x02\x00"), "proxyMissing"},
    {B("GET / HTTP/1.1\r\n"), "proxyMissing"},
    {B("PROXI TCP4 1.2.3.4 "), "proxyMissing"},
    {B("\r\n\r\n\0\r\nQUIT\r"), "proxyMissing"},
    {B("proxy TCP4 192.0.2.7 10.0.0.1 1 1\r\n"), "proxyMissing"},
    {B("PROXY UNKNOWN " LAST " " LAST " 65535 65535 \r\n"), "proxyTooLong"}, /* 108 bytes */
    {B(SIGN "\x21\x11\x02\x09"), "proxyTooLong"},
    {B(SIGN "\x20\x00\xff\xff"), "proxyTooLong"},
    {B("PROXY TCP4 192.0.2.7 10.0.0.1 4711\r\n"), "proxyLine"},
    {B("PROXY TCP4 192.0.2.7 10.0.0.1 4711 443 1\r\n"), "proxyLine"},
    {B("PROXY TCP4 192.0.2.7 10.0.0.1 4711 443 \r\n"), "proxyLine"},
    {B("PROXY TCP4  192.0.2.7 10.0.0.1 4711 443\r\n"), "proxyLine"},
    {B("PROXY TCP4 192.0.2.07 10.0.0.1 4711 443\r\n"), "proxyLine"},
    {B("PROXY TCP4 192.0.2.256 10.0.0.1 4711 443\r\n"), "proxyLine"},
    {B("PROXY TCP4 192.0.2.7 10.0.0 4711 443\r\n"), "proxyLine"},
    {B("PROXY TCP4 2001:db8::7 ::1 4711 443\r\n"), "proxyLine"},
    {B("PROXY TCP6 192.0.2.7 10.0.0.1 4711 443\r\n"), "proxyLine"},
    {B("PROXY TCP4 192.0.2.7 10.0.0.1 65536 443\r\n"), "proxyLine"},
    {B("PROXY TCP4 192.0.2.7 10.0.0.1 4711 +443\r\n"), "proxyLine"},
    {B("PROXY TCP4 192.0.2.7 10.0.0.1 04711 443\r\n"), "proxyLine"},
    {B("PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\n"), "proxyLine"},
    {B("PROXY TCP4 192.0.2.7 10.0.0.1 4711 443\rX"), "proxyLine"},
    {B("PROXY TCP4 192.0.2.7\0 10.0.0.1 4711 443\r\n"), "proxyLine"},
    {B("PROXY TCP5 192.0.2.7 10.0.0.1 4711 443\r\n"), "proxyFamily"},
    {B("PROXY UNKNOWNS\r\n"), "proxyFamily"},
    {B("PROXY \r\n"), "proxyFamily"},
    {B(SIGN "\x11\x11\x00\x0c" A4), "proxyVersion"},
    {B(SIGN "\x31\x11\x00\x0c" A4), "proxyVersion"},
    {B(SIGN "\x22\x11\x00\x0c" A4), "proxyCommand"},
    {B(SIGN "\x21\x12\x00\x0c" A4), "proxyFamily"}, /* UDP */
    {B(SIGN "\x21\x31\x00\x0c" A4), "proxyFamily"}, /* a unix socket */
    {B(SIGN "\x21\x10\x00\x0c" A4), "proxyFamily"},
    {B(SIGN "\x21\x11\x00\x0b" A4), "proxyAddress"},
    {B(SIGN "\x21\x21\x00\x0c" A4), "proxyAddress"},
    {B(SIGN "\x21\x11\x00\x0e" A4 "\x04\x00"), "proxyTlv"},
    {B(SIGN "\x21\x11\x00\x10" A4 "\x04\x00\x02x"), "proxyTlv"},
};

static const char *source_of(const struct issuer_proxy_source *source, char text[INET6_ADDRSTRLEN])
{
    text[0] = 0;
    if (source->known) {
        issuer_proxy_text(source, text);
    }
    return text;
}

static void headers(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct issuer_proxy_source source;
        char text[INET6_ADDRSTRLEN];
        uint8_t bytes[300];
        size_t len = 0, n = good[i].len;
        memcpy(bytes, good[i].bytes, n);
        memcpy(bytes + n, "\x16\x03\x01 TLS", 7);
        assert_int_equal(issuer_proxy_parse(ATT_SLICE(bytes, n + 7), &len, &source),
                         ISSUER_PROXY_OK);
        assert_int_equal(len, n);
        assert_string_equal(source_of(&source, text), good[i].source);
        for (size_t k = 0; k < n; k++) {
            assert_int_equal(issuer_proxy_parse(ATT_SLICE(bytes, k), &len, &source),
                             ISSUER_PROXY_MORE);
        }
    }
}

static void longest(void **state)
{
    (void)state;
    struct issuer_proxy_source source;
    size_t len = 0;
    uint8_t bytes[ISSUER_PROXY_MAX] =
        SIGN "\x21\x11\x02\x08" A4 "\x04\x01\xf9"; /* 520: 12, 3, 505 */
    assert_int_equal(issuer_proxy_parse(ATT_SLICE(bytes, sizeof bytes), &len, &source),
                     ISSUER_PROXY_OK);
    assert_int_equal(len, ISSUER_PROXY_MAX);
    assert_int_equal(issuer_proxy_parse(ATT_SLICE(bytes, sizeof bytes - 1), &len, &source),
                     ISSUER_PROXY_MORE);
    memset(bytes, 'x', sizeof bytes);
    memcpy(bytes, "PROXY ", 6);
    assert_int_equal(issuer_proxy_parse(ATT_SLICE(bytes, 106), &len, &source), ISSUER_PROXY_MORE);
    assert_int_equal(issuer_proxy_parse(ATT_SLICE(bytes, 107), &len, &source),
                     ISSUER_PROXY_TOO_LONG);
}

static void refusals(void **state)
{
    (void)state;
    bool seen[ISSUER_PROXY_RESULTS] = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct issuer_proxy_source source;
        size_t len = 0;
        enum issuer_proxy_result result =
            issuer_proxy_parse(ATT_SLICE(bad[i].bytes, bad[i].len), &len, &source);
        const char *word = issuer_proxy_word(result);
        if (!word || strcmp(word, bad[i].source) != 0) {
            fail_msg("row %zu: expected %s, found %s (%u)", i, bad[i].source, word ? word : "none",
                     (unsigned)result);
        }
        assert_false(source.known);
        assert_non_null(issuer_proxy_expected(result));
        seen[result] = true;
    }
    for (size_t i = ISSUER_PROXY_MISSING; i < ISSUER_PROXY_CUT; i++) {
        assert_true(seen[i]);
    }
}

/* From a socket: in pieces, and nothing of what follows is taken. */
static void pieces(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct issuer_proxy_reader reader = {0};
        struct issuer_proxy_source source;
        char text[INET6_ADDRSTRLEN], rest[8] = "";
        int fd[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
        for (size_t k = 0; k + 1 < good[i].len; k++) {
            assert_int_equal(issuer_proxy_read(&reader, fd[0], &source), ISSUER_PROXY_MORE);
            assert_int_equal(write(fd[1], good[i].bytes + k, 1), 1);
            assert_int_equal(issuer_proxy_read(&reader, fd[0], &source), ISSUER_PROXY_MORE);
        }
        assert_int_equal(write(fd[1], good[i].bytes + good[i].len - 1, 1), 1);
        assert_int_equal(write(fd[1], "hello", 5), 5);
        assert_int_equal(issuer_proxy_read(&reader, fd[0], &source), ISSUER_PROXY_OK);
        assert_string_equal(source_of(&source, text), good[i].source);
        assert_int_equal(recv(fd[0], rest, sizeof rest, MSG_DONTWAIT), 5);
        assert_string_equal(rest, "hello");
        close(fd[0]);
        close(fd[1]);
    }
}

static void ends(void **state)
{
    (void)state;
    for (size_t sent = 0; sent < 2; sent++) {
        struct issuer_proxy_reader reader = {0};
        struct issuer_proxy_source source;
        int fd[2];
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
        assert_int_equal(write(fd[1], "PROXY", sent), sent);
        if (sent) {
            assert_int_equal(issuer_proxy_read(&reader, fd[0], &source), ISSUER_PROXY_MORE);
        }
        close(fd[1]);
        assert_int_equal(issuer_proxy_read(&reader, fd[0], &source),
                         sent ? ISSUER_PROXY_CUT : ISSUER_PROXY_GONE);
        close(fd[0]);
    }
    assert_string_equal(issuer_proxy_word(ISSUER_PROXY_CUT), "proxyCut");
    assert_string_equal(issuer_proxy_word(ISSUER_PROXY_LATE), "proxyLate");
    assert_null(issuer_proxy_word(ISSUER_PROXY_GONE));
}

static void balancers(void **state)
{
    (void)state;
    static const struct conf_range ranges[] = {{.address = {10, 77}, .bits = 24},
                                               {.v6 = true, .address = {0xfd}, .bits = 64}};
    static const char *const yes[] = {"::ffff:10.77.0.9", "fd00::9"};
    static const char *const no[] = {"::ffff:10.77.1.9", "fd00:0:0:1::9", "::10.77.0.9"};
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    struct sockaddr other = {.sa_family = AF_UNIX};
    assert_int_equal(inet_pton(AF_INET, "10.77.0.9", &in.sin_addr), 1);
    assert_true(issuer_addr_listed((struct sockaddr *)&in, ranges, 2));
    assert_false(issuer_addr_listed((struct sockaddr *)&in, ranges, 0));
    assert_int_equal(inet_pton(AF_INET, "10.77.1.0", &in.sin_addr), 1);
    assert_false(issuer_addr_listed((struct sockaddr *)&in, ranges, 2));
    assert_false(issuer_addr_listed(&other, ranges, 2));
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(inet_pton(AF_INET6, yes[i], &in6.sin6_addr), 1);
        assert_true(issuer_addr_listed((struct sockaddr *)&in6, ranges, 2));
    }
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(inet_pton(AF_INET6, no[i], &in6.sin6_addr), 1);
        assert_false(issuer_addr_listed((struct sockaddr *)&in6, ranges, 2));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers), cmocka_unit_test(longest), cmocka_unit_test(refusals),
        cmocka_unit_test(pieces),  cmocka_unit_test(ends),    cmocka_unit_test(balancers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
