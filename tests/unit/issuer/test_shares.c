/* One address takes no more of the admin API's workers than its share. */
#include "provision/issuer/shares.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void one_has_its_share(void **state)
{
    (void)state;
    struct issuer_shares shares = {0};
    for (int i = 0; i < ISSUER_SHARE_WAITING; i++) {
        assert_true(issuer_share_wait(&shares, "192.0.2.1"));
    }
    assert_false(issuer_share_wait(&shares, "192.0.2.1"));
    for (int i = 0; i < ISSUER_SHARE_RUNNING; i++) {
        assert_true(issuer_share_start(&shares, "192.0.2.1"));
    }
    assert_false(issuer_share_start(&shares, "192.0.2.1"));
    /* What runs waits no more. */
    assert_true(issuer_share_wait(&shares, "192.0.2.1"));
    assert_true(issuer_share_wait(&shares, "192.0.2.1"));
    assert_false(issuer_share_wait(&shares, "192.0.2.1"));
    /* Somebody else has his. */
    assert_true(issuer_share_wait(&shares, "192.0.2.2"));
    assert_true(issuer_share_start(&shares, "192.0.2.2"));
    issuer_share_end(&shares, "192.0.2.1");
    assert_true(issuer_share_start(&shares, "192.0.2.1"));
    assert_false(issuer_share_start(&shares, "192.0.2.1"));
}

static void what_ended_leaves_nothing(void **state)
{
    (void)state;
    struct issuer_shares shares = {0};
    assert_true(issuer_share_wait(&shares, "a"));
    issuer_share_drop(&shares, "a");
    assert_true(issuer_share_wait(&shares, "b"));
    assert_true(issuer_share_start(&shares, "b"));
    issuer_share_end(&shares, "b");
    assert_false(issuer_share_start(&shares, "b")); /* none waits */
    for (size_t i = 0; i < ISSUER_SHARES_MAX; i++) {
        assert_true(shares.v[i].running == 0 && shares.v[i].waiting == 0);
    }
}

static void a_network_is_one(void **state)
{
    (void)state;
    char one[ISSUER_SHARE_KEY], other[ISSUER_SHARE_KEY];
    issuer_share_key("2001:db8::1", one);
    issuer_share_key("2001:db8:0:0:ffff::2", other);
    assert_string_equal(one, other);
    issuer_share_key("2001:db8:0:1::1", other);
    assert_string_not_equal(one, other);
    issuer_share_key("::ffff:192.0.2.1", one);
    issuer_share_key("192.0.2.1", other);
    assert_string_equal(one, other);
    issuer_share_key(NULL, one);
    assert_string_equal(one, "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_has_its_share),
        cmocka_unit_test(what_ended_leaves_nothing),
        cmocka_unit_test(a_network_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
