/* Where validations do not go; who is counted as one address; a name that resolves to something
 * else than before. */
#include "provision/issuer/addrs.h"
#include "provision/issuer/context.h"
#include "provision/issuer/http01.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *refused(const char *text, const struct conf_range *allow, size_t n)
{
    struct sockaddr_storage address = {0};
    struct sockaddr_in *in = (struct sockaddr_in *)&address;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&address;
    if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
        address.ss_family = AF_INET;
    } else {
        assert_int_equal(inet_pton(AF_INET6, text, &in6->sin6_addr), 1);
        address.ss_family = AF_INET6;
    }
    return issuer_addr_refused((struct sockaddr *)&address, allow, n);
}

static void ranges(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"0.0.0.0", "unspecified"},
        {"0.1.2.3", "unspecified"},
        {"10.0.0.1", "private"},
        {"10.255.255.255", "private"},
        {"100.64.0.1", "shared"},
        {"100.127.255.255", "shared"},
        {"127.0.0.1", "loopback"},
        {"127.255.0.1", "loopback"},
        {"169.254.169.254", "link-local"},
        {"172.16.0.1", "private"},
        {"172.31.255.255", "private"},
        {"192.0.0.8", "reserved"},
        {"192.0.2.1", "documentation"},
        {"192.88.99.1", "6to4"},
        {"192.168.1.1", "private"},
        {"198.19.255.255", "benchmarks"},
        {"198.51.100.7", "documentation"},
        {"203.0.113.9", "documentation"},
        {"224.0.0.1", "multicast"},
        {"239.255.255.255", "multicast"},
        {"240.0.0.1", "reserved"},
        {"255.255.255.255", "reserved"},
        {"::", "unspecified"},
        {"::1", "loopback"},
        {"::ffff:8.8.8.8", "IPv4"},
        {"::ffff:127.0.0.1", "IPv4"},
        {"::8.8.8.8", "IPv4"},
        {"64:ff9b::8.8.8.8", "IPv4"},
        {"64:ff9b:1::1", "IPv4"},
        {"100::1", "discarding"},
        {"2001::1", "reserved"},
        {"2001:1ff::1", "reserved"},
        {"2001:db8::1", "documentation"},
        {"2002:7f00:1::", "IPv4"},
        {"3fff::1", "documentation"},
        {"fc00::1", "private"},
        {"fdff::1", "private"},
        {"fe80::1", "link-local"},
        {"febf::1", "link-local"},
        {"fec0::1", "private"},
        {"ff02::1", "multicast"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *what = refused(cases[i][0], NULL, 0);
        if (!what || !strstr(what, cases[i][1])) {
            print_error("%s: %s\n", cases[i][0], what ? what : "allowed");
        }
        assert_non_null(what);
        assert_non_null(strstr(what, cases[i][1]));
    }
    static const char *const public[] = {
        "1.1.1.1",    "9.255.255.255", "11.0.0.1",     "100.63.0.1", "100.128.0.1", "172.15.0.1",
        "172.32.0.1", "223.255.0.1",   "2606:4700::1", "2a00::1",    "2001:200::1"};
    for (size_t i = 0; i < sizeof public / sizeof public[0]; i++) {
        assert_null(refused(public[i], NULL, 0));
    }
}

static void allowed(void **state)
{
    (void)state;
    const struct conf_range v4 = {.bits = 9, .address = {10, 128}},
                            v6 = {.v6 = true, .bits = 96, .address = {[10] = 0xff, 0xff}};
    assert_null(refused("10.128.0.1", &v4, 1));
    assert_null(refused("10.255.0.1", &v4, 1));
    assert_non_null(refused("10.127.255.255", &v4, 1));
    assert_non_null(refused("::ffff:10.128.0.1", &v4, 1)); /* another family's range */
    assert_null(refused("::ffff:10.128.0.1", &v6, 1));
    assert_non_null(refused("10.128.0.1", &v6, 1));
}

/* ---- counting
 * --------------------------------------------------------------------------------------------------
 */

static bool take(struct issuer_limit *limit, const char *address)
{
    return issuer_limit_take_address(limit, ISSUER_LIMIT_ADDRESS_REQUESTS, address, 2, 1000);
}

static void addresses(void **state)
{
    (void)state;
    struct issuer_limit *limit = issuer_limit_new();
    assert_non_null(limit);
    assert_false(take(limit, "192.0.2.1"));
    assert_false(take(limit, "::ffff:192.0.2.1"));
    assert_true(take(limit, "192.0.2.1")); /* the same in both spellings */
    assert_false(take(limit, "192.0.2.2"));
    assert_false(take(limit, "2001:db8:1:2::1"));
    assert_false(take(limit, "2001:db8:1:2:ffff::2"));
    assert_true(take(limit, "2001:db8:1:2::3")); /* one /64 */
    assert_false(take(limit, "2001:db8:1:3::1"));
    assert_false(take(limit, NULL));
    for (int i = 0; i < 5; i++) {
        assert_false(
            issuer_limit_take_address(limit, ISSUER_LIMIT_ADDRESS_REQUESTS, "192.0.2.9", 0, 1000));
    }
    assert_false(issuer_limit_take_address(limit, ISSUER_LIMIT_ADDRESS_REQUESTS, "192.0.2.1", 2,
                                           1000 + ISSUER_RECENT_S));
    issuer_limit_free(limit);
}

/* ---- a name that resolves to something else
 * ------------------------------------------------------------------------ */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t told = PTHREAD_COND_INITIALIZER;
static char answer[512];
static int lookups;
static unsigned port;

/* In place of libc's, for libcurl: the first look-up of rebind.example is the allowed address, each
 * later one is another. */
int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **ret)
{
    struct {
        struct addrinfo info;
        struct sockaddr_in in;
    } *one = calloc(1, sizeof *one);
    (void)hints;
    if (!one || strcmp(name, "rebind.example") != 0) {
        free(one);
        return EAI_NONAME;
    }
    pthread_mutex_lock(&lock);
    bool first = lookups++ == 0;
    pthread_mutex_unlock(&lock);
    one->in.sin_family = AF_INET;
    one->in.sin_port = htons((uint16_t)(service ? atoi(service) : 0));
    one->in.sin_addr.s_addr = htonl(first ? 0x7f000001 : 0x7f000002);
    one->info = (struct addrinfo){.ai_family = AF_INET,
                                  .ai_socktype = SOCK_STREAM,
                                  .ai_protocol = IPPROTO_TCP,
                                  .ai_addrlen = sizeof one->in,
                                  .ai_addr = (struct sockaddr *)&one->in};
    *ret = &one->info;
    return 0;
}

void freeaddrinfo(struct addrinfo *info)
{
    free(info);
}

static void on_done(void *user, const struct issuer_http01_request *request,
                    const struct acme_problem *problem)
{
    (void)user;
    (void)request;
    pthread_mutex_lock(&lock);
    snprintf(answer, sizeof answer, "%s", problem ? problem->detail : "valid");
    pthread_cond_signal(&told);
    pthread_mutex_unlock(&lock);
}

/* Redirects everybody to the same name again. */
static void *serve(void *user)
{
    int listener = *(int *)user;
    char text[512], in[4096];
    snprintf(text, sizeof text,
             "HTTP/1.1 302 Found\r\nLocation: http://rebind.example:%u/again\r\n"
             "Content-Length: 0\r\nConnection: close\r\n\r\n",
             port);
    int fd = accept(listener, NULL, NULL);
    if (fd >= 0 && read(fd, in, sizeof in) > 0) {
        ssize_t n = write(fd, text, strlen(text));
        (void)n;
    }
    close(fd);
    return NULL;
}

static void rebinding(void **state)
{
    (void)state;
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr = {htonl(0x7f000001)}};
    socklen_t len = sizeof in;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    pthread_t thread;
    assert_int_equal(bind(listener, (struct sockaddr *)&in, sizeof in), 0);
    assert_int_equal(listen(listener, 4), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&in, &len), 0);
    port = ntohs(in.sin_port);
    assert_int_equal(pthread_create(&thread, NULL, serve, &listener), 0);
    struct issuer_http01 *http01 = NULL;
    struct issuer_http01_request request = {.name = "rebind.example",
                                            .token = "t",
                                            .key_authorization = "t.k",
                                            .allow = {{.bits = 32, .address = {127, 0, 0, 1}}},
                                            .n_allow = 1,
                                            .port = port,
                                            .timeout_ms = 20000};
    assert_int_equal(issuer_http01_new(on_done, NULL, &http01, NULL), ATT_OK);
    pthread_mutex_lock(&lock);
    assert_int_equal(issuer_http01_start(http01, &request, NULL), ATT_OK);
    while (!answer[0]) {
        pthread_cond_wait(&told, &lock);
    }
    assert_string_equal(answer, "rebind.example: not connected to: 127.0.0.2 is loopback");
    assert_true(lookups >= 2);
    pthread_mutex_unlock(&lock);
    issuer_http01_free(http01);
    pthread_join(thread, NULL);
    close(listener);
}

/* Whom connections are counted for, when places are short. */
static void groups(void **state)
{
    (void)state;
    static const struct {
        const char *one, *other;
        bool same;
    } rows[] = {
        {"192.0.2.7", "192.0.2.7", true},          {"192.0.2.7", "192.0.2.8", false},
        {"::ffff:192.0.2.7", "192.0.2.7", true},   {"::ffff:192.0.2.7", "::ffff:192.0.2.8", false},
        {"::ffff:192.0.2.7", "::1", false},        {"2001:db8::7", "2001:db8::8", true},
        {"2001:db8::7", "2001:db8:0:1::7", false}, {"2001:db8::7", "32.1.13.184", false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint8_t a[16] = {0}, b[16] = {0}, x[ISSUER_ADDR_GROUP], y[ISSUER_ADDR_GROUP];
        bool six[] = {strchr(rows[i].one, ':') != NULL, strchr(rows[i].other, ':') != NULL};
        assert_int_equal(inet_pton(six[0] ? AF_INET6 : AF_INET, rows[i].one, a), 1);
        assert_int_equal(inet_pton(six[1] ? AF_INET6 : AF_INET, rows[i].other, b), 1);
        issuer_addr_group(six[0], a, x);
        issuer_addr_group(six[1], b, y);
        assert_int_equal(memcmp(x, y, sizeof x) == 0, rows[i].same);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges),    cmocka_unit_test(allowed), cmocka_unit_test(addresses),
        cmocka_unit_test(rebinding), cmocka_unit_test(groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
