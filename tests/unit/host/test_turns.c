/* What is due for an agent: a retired key that has ended, an issuance; and the enrolment that waits
 * for issuances to end. */
#include "attestd/host/issue.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/support/sleeps.h"

#define T0   INT64_C(1800000000)
#define BOOT INT64_C(5000000)

static struct host *host_new(void)
{
    struct host *host = calloc(1, sizeof(*host));
    assert_non_null(host);
    host->phase = HOST_ENROLLED;
    host->have_identity = true;
    host->generation = 1;
    host->bundle = sk_X509_new_null();
    host->wake_fd = -1;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&host->lock, NULL);
    pthread_cond_init(&host->changed, &attr);
    pthread_condattr_destroy(&attr);
    assert_int_equal(agent_registry_new(&host->reg, NULL), ATT_OK);
    return host;
}

static void host_free(struct host *host)
{
    agent_registry_free(host->reg);
    sk_X509_free(host->bundle);
    pthread_cond_destroy(&host->changed);
    pthread_mutex_destroy(&host->lock);
    free(host);
}

static struct agent_now at(int64_t s)
{
    return (struct agent_now){.utc_s = T0 + s, .boot_ms = BOOT + s * 1000};
}

/* Valid for an hour, renewed after half of it; one retired key until then plus 100 s. */
static struct agent *agent_add(struct host *host, const char *name)
{
    struct agent_record rec = {
        .life = {.state = AGENT_VALID},
        .key_store = "tpm",
        .key_id = "in-force",
        .next_key_id = "next",
        .dates = {.not_before = T0 - 60,
                  .not_after = T0 + 3600,
                  .installed_at = T0,
                  .installed_boot_ms = BOOT,
                  .renew_at = T0 + 1800,
                  .same_boot = true},
        .retired = {{.key_id = "old", .not_after = T0 + 100, .end_boot_ms = BOOT + 100000}},
        .n_retired = 1};
    struct agent *agent = NULL;
    snprintf(rec.name, sizeof(rec.name), "%s", name);
    assert_int_equal(agent_registry_add(host->reg, &rec, &agent, NULL), ATT_OK);
    return agent;
}

static void test_a_retired_key_is_due_when_it_has_ended(void **state)
{
    (void)state;
    struct host *host = host_new();
    struct agent *agent = agent_add(host, "a");
    assert_false(host_agent_ready(host, agent, at(99)));
    assert_int_equal(host_agents_wait_ms(host, at(99)), 1000);
    assert_true(host_agent_retires(host, agent, at(100)));
    assert_true(host_agent_ready(host, agent, at(100)));
    agent->busy = true; /* a worker has it */
    assert_false(host_agent_ready(host, agent, at(100)));
    agent->busy = false;
    host->have_identity = false; /* keyd has not been heard yet */
    assert_false(host_agent_ready(host, agent, at(100)));
    host->have_identity = true;
    agent->retire_not_before_ms = at(101).boot_ms; /* it failed just now */
    assert_false(host_agent_ready(host, agent, at(100)));
    assert_true(host_agents_wait_ms(host, at(100)) > 1000); /* no spinning */
    assert_true(host_agent_ready(host, agent, at(101)));
    agent->rec.n_retired = 0;
    assert_false(host_agent_ready(host, agent, at(101)));
    host_free(host);
}

/* Of a frozen agent, too: it signs with none of them. */
static void test_also_of_a_frozen_agent(void **state)
{
    (void)state;
    struct host *host = host_new();
    struct agent *agent = agent_add(host, "a");
    agent->rec.life = (struct agent_life){AGENT_FROZEN, AGENT_VALID};
    assert_false(host_agent_ready(host, agent, at(99)));
    assert_int_equal(host_agents_wait_ms(host, at(99)), 1000);
    assert_true(host_agent_ready(host, agent, at(100)));
    host_free(host);
}

/* A retirement that does not work out must not keep a renewal from its turn. */
static void test_a_failing_retirement_delays_no_renewal(void **state)
{
    (void)state;
    struct host *host = host_new();
    struct agent *agent = agent_add(host, "a");
    agent->retire_not_before_ms = INT64_MAX;
    assert_false(host_agent_ready(host, agent, at(1799)));
    assert_true(host_agent_ready(host, agent, at(1800)));
    assert_false(host_agent_retires(host, agent, at(1800)));
    host_free(host);
}

/* Whoever holds its handle signs until it is gone: no back-off of an issuance keeps it. */
static void test_a_revoked_retired_key_waits_for_no_back_off(void **state)
{
    (void)state;
    struct host *host = host_new();
    struct agent *agent = agent_add(host, "a");
    agent->not_before_ms = INT64_MAX;
    assert_false(host_agent_ready(host, agent, at(1)));
    agent->rec.retired[0].revoked = true;
    assert_true(host_agent_retires(host, agent, at(1)));
    assert_true(host_agent_ready(host, agent, at(1)));
    host_free(host);
}

/* Neither the record (its folder is not there) nor keyd (nobody listens) takes what happened: the
 * agent has no key in force any more, and its keys stay due to be compared, which destroys them. */
static void test_a_revoked_agent_loses_its_keys_without_a_record(void **state)
{
    (void)state;
    char dir[] = "/tmp/att-turns.XXXXXX", path[64];
    struct host *host = host_new();
    struct agent *agent = agent_add(host, "a");
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/none", dir);
    host->paths.agents = host->paths.withdrawn = dir;
    host->paths.records = path;
    assert_int_equal(proc_keyd_new(path, getuid(), 1000, &host->keyd, NULL), ATT_OK);
    agent->revoked = true;
    host_agent_work(host, 0, "a");
    assert_false(agent->revoked);
    assert_int_equal(agent->rec.life.state, AGENT_ABSENT);
    assert_string_equal(agent->rec.key_id, "");
    assert_int_equal(agent->rec.n_retired, 0);
    assert_true(agent->check_keys);
    assert_true(agent->unsaved);
    assert_string_equal(agent->rec.last_error.code, "unreachable"); /* it came to keyd */
    proc_keyd_free(host->keyd);
    host_free(host);
    rmdir(dir);
}

static void test_no_enrolment_while_an_issuance_is_under_way(void **state)
{
    (void)state;
    struct host *host = host_new();
    agent_add(host, "a")->busy = true; /* makes a key ahead, say */
    struct agent *agent = agent_add(host, "b");
    agent->busy = agent->issuing = true;
    struct agent *other = agent_add(host, "c");
    assert_true(host_agent_ready(host, other, at(1800)));
    assert_false(host_enrol_may_begin(host));
    assert_int_equal(host->phase, HOST_ENROLLING);
    other->rec.n_retired = 0;
    assert_false(host_agent_ready(host, other, at(1800))); /* no other begins meanwhile */
    agent->busy = agent->issuing = false;
    assert_true(host_enrol_may_begin(host));
    host_free(host);
}

struct enrolment {
    struct host *host;
    struct agent *agent;
    bool was_issuing;
    enum att_rc rc;
};

static void *enrol(void *arg)
{
    struct enrolment *e = arg;
    const char *why = NULL;
    e->rc = host_enrol_begin(e->host, &why, NULL);
    HOST_LOCKED(e->host);
    e->was_issuing = e->agent->issuing;
    return NULL;
}

static void run_enrolment(bool stop, enum att_rc rc, bool was_issuing)
{
    struct host *host = host_new();
    struct enrolment e = {.host = host, .agent = agent_add(host, "a")};
    pthread_t thread;
    e.agent->busy = e.agent->issuing = true;
    assert_int_equal(pthread_create(&thread, NULL, enrol, &e), 0);
    WAIT_FOR(sleeps_on(&host->changed, sizeof(host->changed)));
    {
        HOST_LOCKED(host);
        atomic_store(&host->stop, stop);
        e.agent->issuing = stop;
        pthread_cond_broadcast(&host->changed);
    }
    pthread_join(thread, NULL);
    assert_int_equal(e.rc, rc);
    assert_int_equal(e.was_issuing, was_issuing);
    host_free(host);
}

static void test_an_enrolment_waits_for_it(void **state)
{
    (void)state;
    run_enrolment(false, ATT_OK, false);
    run_enrolment(true, ATT_E_GONE, true); /* attestd stops: not for ever */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_retired_key_is_due_when_it_has_ended),
        cmocka_unit_test(test_also_of_a_frozen_agent),
        cmocka_unit_test(test_a_failing_retirement_delays_no_renewal),
        cmocka_unit_test(test_a_revoked_retired_key_waits_for_no_back_off),
        cmocka_unit_test(test_a_revoked_agent_loses_its_keys_without_a_record),
        cmocka_unit_test(test_no_enrolment_while_an_issuance_is_under_way),
        cmocka_unit_test(test_an_enrolment_waits_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
