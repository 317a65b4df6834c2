/* Which key that was made ahead is good for a renewal, and when one is made. */
#include "attestd/host/issue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct proc_key key_of_age(int64_t age_s, const char *word)
{
    struct proc_key key = {.created_at = att_now_utc_s() - age_s, .usual = true};
    snprintf(key.state, sizeof(key.state), "%s", word);
    return key;
}

static bool fresh(int64_t age_s, const char *word, int64_t lifetime_s)
{
    struct agent_record rec = {.key_store = "memory", .lifetime_s = lifetime_s};
    struct proc_key key = key_of_age(age_s, word);
    memcpy(key.store, "memory", sizeof("memory"));
    memcpy(key.type, "rsa-2048", sizeof("rsa-2048")); /* of another type: never */
    assert_false(host_spare_fresh(&key, &rec));
    memcpy(key.type, "ec-p256", sizeof("ec-p256"));
    bool good = host_spare_fresh(&key, &rec);
    memcpy(key.store, "tpm", sizeof("tpm")); /* of the store that the entry named before: never */
    assert_false(host_spare_fresh(&key, &rec));
    return good;
}

static void test_old_or_used_keys_are_given_up(void **state)
{
    (void)state;
    assert_false(fresh(0, "active", 3600));
    assert_false(fresh(0, "retired", 3600));
    assert_false(fresh(3700, "new", 3600));
    assert_false(fresh(86500, "new", 0));          /* the lifetime is not known: a day */
    assert_false(fresh(86500, "new", 30 * 86400)); /* a day at most */
    assert_false(fresh(-100, "new", 3600));        /* the clock went back: of unknown age */
    assert_true(fresh(0, "new", 3600));
    assert_true(fresh(1800, "new", 3600));
    assert_true(fresh(80000, "new", 30 * 86400));
}

/* In the module that the entry names, or where it names none, in the host's default. */
static void test_a_key_of_another_module_does_not_fit(void **state)
{
    (void)state;
    struct agent_record rec = {.key_store = "hsm"};
    struct proc_key key = {.store = "hsm", .type = "ec-p256", .hsm = "vault", .usual = true};
    assert_true(host_key_fits(&key, &rec));
    key.usual = false;
    assert_false(host_key_fits(&key, &rec));
    memcpy(rec.hsm, "vault", sizeof("vault"));
    assert_true(host_key_fits(&key, &rec));
    memcpy(rec.hsm, "cards", sizeof("cards"));
    key.usual = true;
    assert_false(host_key_fits(&key, &rec));
}

static void test_made_only_when_nothing_is_due(void **state)
{
    (void)state;
    struct host host = {.have_identity = true};
    struct agent_now now = {.utc_s = 1000000, .boot_ms = 50000};
    const struct agent idle = {.rec = {.key_store = "tpm",
                                       .life = {.state = AGENT_VALID},
                                       .dates = {.not_after = 1000000 + 3540,
                                                 .renew_at = 1000000 + 1700,
                                                 .installed_at = 1000000,
                                                 .installed_boot_ms = 50000,
                                                 .same_boot = true}}};
    struct agent agent = idle;
    assert_true(host_spare_wanted(&host, &agent, now));
    agent.rec.next_key_id[0] = 'a'; /* there is one */
    assert_false(host_spare_wanted(&host, &agent, now));
    agent = idle;
    agent.busy = true;
    assert_false(host_spare_wanted(&host, &agent, now));
    agent = idle;
    agent.check_keys = true;
    assert_false(host_spare_wanted(&host, &agent, now));
    agent = idle;
    agent.rec.life.state = AGENT_FROZEN;
    assert_false(host_spare_wanted(&host, &agent, now));
    agent = idle;
    agent.rec.life.state = AGENT_RENEWING;
    assert_false(host_spare_wanted(&host, &agent, now));
    agent = idle;
    agent.rec.dates.not_after = now.utc_s + 30 * 86400;
    agent.rec.dates.renew_at = now.utc_s + 15 * 86400; /* it would be old by then */
    assert_false(host_spare_wanted(&host, &agent, now));
    struct agent_now behind = {.utc_s = now.utc_s - 86400, .boot_ms = now.boot_ms};
    assert_true(host_spare_wanted(&host, &idle, behind)); /* the clock that never jumps knows */
    agent = idle;
    agent.spare_not_before_ms = now.boot_ms + 1; /* it failed just now */
    assert_false(host_spare_wanted(&host, &agent, now));
    host.have_identity = false;
    assert_false(host_spare_wanted(&host, &idle, now));
}

/* Only a clear no means that there is no key now. */
static void test_an_unclear_answer_leaves_a_key_to_look_for(void **state)
{
    static const enum att_rc unclear[] = {ATT_E_TIMEOUT, ATT_E_GONE,  ATT_E_IO,   ATT_E_PROTOCOL,
                                          ATT_E_RETRY,   ATT_E_LIMIT, ATT_E_NOMEM};
    (void)state;
    for (size_t i = 0; i < sizeof(unclear) / sizeof(unclear[0]); i++) {
        assert_true(host_keys_left_over(unclear[i]));
    }
    assert_false(host_keys_left_over(ATT_OK));
    assert_false(host_keys_left_over(ATT_E_DENIED));
    assert_false(host_keys_left_over(ATT_E_INVAL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_unclear_answer_leaves_a_key_to_look_for),
        cmocka_unit_test(test_old_or_used_keys_are_given_up),
        cmocka_unit_test(test_a_key_of_another_module_does_not_fit),
        cmocka_unit_test(test_made_only_when_nothing_is_due),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
