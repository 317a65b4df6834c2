/* The ticket that an operator gives: what is refused of it, and who gets it. */
#include "attestd/base/io.h"
#include "attestd/host/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define URL "https://issuer.example:8443/acme"
#define PIN "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define TICKET                                                                                     \
    "{\"url\":\"" URL "\",\"caSha256\":\"" PIN "\",\"kid\":\"t1\",\"macKey\":"                     \
    "\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\",\"host\":\"web-17\"}"

struct rig {
    struct host host;
    struct conf_attestd conf;
    struct conf_attestd_issuer issuer;
    char url[64], pin[65], file[64];
};

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    pthread_mutex_init(&r->host.lock, NULL);
    pthread_cond_init(&r->host.changed, NULL);
    r->host.conf = &r->conf;
    snprintf(r->url, sizeof(r->url), "%s", URL);
    snprintf(r->pin, sizeof(r->pin), "%s", PIN);
    for (uint8_t i = 0; i < ATT_SHA256_LEN; i++) {
        r->issuer.ca_sha256_bytes[i] = i;
    }
    snprintf(r->file, sizeof(r->file), "/nonexistent/ticket.json");
    r->conf.ticket_file = r->file;
    *state = r;
    return proc_keyd_new("/nonexistent/keyd.sock", getuid(), 100, &r->host.keyd, NULL) == ATT_OK
               ? 0
               : -1;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    proc_keyd_free(r->host.keyd);
    host_ticket_done(&r->host.given.ticket);
    pthread_cond_destroy(&r->host.changed);
    pthread_mutex_destroy(&r->host.lock);
    free(r);
    return 0;
}

static void assert_refused(struct rig *r, const char *text, enum att_rc rc, const char *reason,
                           const char *message)
{
    struct att_err err = {0};
    json_t *result = NULL;
    assert_int_equal(host_given_enrol(&r->host, att_slice_str(text), &result, &err), rc);
    assert_string_equal(err.reason, reason);
    if (!strstr(err.msg, message)) {
        fail_msg("no \"%s\" in: %s", message, err.msg);
    }
    assert_null(result);
    assert_int_equal(r->host.given.n, 0); /* nothing was taken */
    assert_int_equal(r->host.given.ticket.mac_key.len, 0);
}

static void test_form(void **state)
{
    struct rig *r = *state;
    char *large = malloc(HOST_TICKET_MAX + 2);
    memset(large, ' ', HOST_TICKET_MAX + 1);
    large[HOST_TICKET_MAX + 1] = '\0';
    assert_refused(r, "", ATT_E_PARSE, "ticketMalformed", "expected one JSON object");
    assert_refused(r, "[]", ATT_E_PARSE, "ticketMalformed", "expected one JSON object");
    assert_refused(r, TICKET "x", ATT_E_PARSE, "ticketMalformed", "expected one JSON object");
    assert_refused(r, "{}", ATT_E_PARSE, "ticketMalformed", "url");
    assert_refused(r, large, ATT_E_LIMIT, "ticketMalformed", "16384 bytes");
    free(large);
}

static void test_broken_ticket_is_not_repeated(void **state)
{
    struct rig *r = *state;
    struct att_err err = {0};
    json_t *result = NULL;
    enum att_rc rc =
        host_given_enrol(&r->host, ATT_SLICE_LIT("{\"macKey\":\"c2VjcmV0c2VjcmV0"), &result, &err);
    assert_int_equal(rc, ATT_E_PARSE);
    assert_null(strstr(err.msg, "c2Vj"));
}

static void test_account_is_there(void **state)
{
    struct rig *r = *state;
    snprintf(r->host.rec.kid, sizeof(r->host.rec.kid), URL "/acct/1");
    assert_refused(r, TICKET, ATT_E_CONFLICT, "alreadyEnrolled", "/acct/1");
}

static void test_other_issuer(void **state)
{
    struct rig *r = *state;
    r->conf.issuer = &r->issuer;
    r->issuer.url = r->url;
    r->url[10] = 'x';
    assert_refused(r, TICKET, ATT_E_CONFLICT, "issuerOther", URL);
    r->url[10] = URL[10];
    r->issuer.ca_sha256 = r->pin;
    r->issuer.ca_sha256_bytes[31] ^= 1;
    assert_refused(r, TICKET, ATT_E_CONFLICT, "issuerOther", PIN);
    /* Right in both: only keyd, which is away, keeps it from being taken. */
    r->issuer.ca_sha256_bytes[31] ^= 1;
    assert_refused(r, TICKET, ATT_E_UNREACHABLE, "", "keyd");
}

static void give(struct rig *r, uint64_t n)
{
    struct host_given *given = &r->host.given;
    host_ticket_done(&given->ticket);
    assert_int_equal(host_ticket_parse(ATT_SLICE_LIT(TICKET), &given->ticket, NULL), ATT_OK);
    given->n = n;
}

static void test_given_goes_before_file(void **state)
{
    struct rig *r = *state;
    struct host_ticket ticket = {0};
    struct host_issuer issuer;
    uint64_t n = 7;
    assert_int_equal(host_ticket_get(&r->host, &ticket, &n, NULL), ATT_E_NOTFOUND);
    assert_int_equal(n, 0);
    assert_int_equal(host_issuer_get(&r->host, &issuer, NULL), ATT_E_NOTFOUND);
    give(r, 3);
    assert_int_equal(host_ticket_get(&r->host, &ticket, &n, NULL), ATT_OK);
    assert_int_equal(n, 3);
    assert_string_equal(ticket.kid, "t1");
    assert_ptr_not_equal(ticket.mac_key.ptr, r->host.given.ticket.mac_key.ptr);
    assert_int_equal(ticket.mac_key.len, 32);
    assert_memory_equal(ticket.mac_key.ptr, r->issuer.ca_sha256_bytes, 32); /* 0 … 31 as well */
    host_ticket_done(&ticket);
    /* Without a section issuer, URL and root come from it. */
    assert_int_equal(host_issuer_get(&r->host, &issuer, NULL), ATT_OK);
    assert_string_equal(issuer.url, URL);
    assert_string_equal(issuer.ca_sha256_hex, PIN);
}

static void test_drop(void **state)
{
    struct rig *r = *state;
    struct att_err err = {0};
    (void)!att_fail(&err, ATT_E_DENIED, "no such ticket");
    att_err_reason(&err, "ticketInvalid");
    give(r, 4);
    host_given_drop(&r->host, 3, &err); /* an older one's refusal */
    assert_int_equal(r->host.given.ticket.mac_key.len, 32);
    assert_int_equal(r->host.given.refused_n, 0);
    host_given_drop(&r->host, 4, &err);
    assert_int_equal(r->host.given.ticket.mac_key.len, 0);
    assert_int_equal(r->host.given.refused_n, 4);
    assert_string_equal(r->host.given.refused.reason, "ticketInvalid");
    give(r, 5);
    host_given_drop(&r->host, 0, NULL); /* used */
    assert_int_equal(r->host.given.ticket.mac_key.len, 0);
    assert_int_equal(r->host.given.refused_n, 4);
}

#define WITH_RIG(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_RIG(test_form),
        WITH_RIG(test_broken_ticket_is_not_repeated),
        WITH_RIG(test_account_is_there),
        WITH_RIG(test_other_issuer),
        WITH_RIG(test_given_goes_before_file),
        WITH_RIG(test_drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
