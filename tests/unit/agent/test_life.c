/* Every cell of the life table, written down a second time as text, so that neither the table nor
 * the test can change alone. Rows: states; an entry "event>state". Whatever is not listed must be
 * refused and must change nothing. */
#include "attestd/agent/life.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const struct {
    const char *state;
    const char *goes; /* "event>state …" */
} expected[] = {
    {"absent", "keyMade>key freeze>frozen removed>removed"},
    {"key", "orderMade>ordered keyLost>absent refused>refused freeze>frozen removed>removed"},
    {"ordered", "verdict>attested orderDead>key keyLost>absent refused>refused freeze>frozen "
                "removed>removed"},
    {"attested", "csrSent>finalizing orderDead>key keyLost>absent refused>refused freeze>frozen "
                 "removed>removed"},
    {"finalizing", "installed>valid orderDead>key keyLost>absent refused>refused freeze>frozen "
                   "removed>removed"},
    {"refused", "retry>key keyLost>absent freeze>frozen removed>removed"},
    {"valid", "due>renewing expired>absent freeze>frozen removed>removed"},
    {"renewing", "keyMade>renewKey expired>absent freeze>frozen removed>removed"},
    {"renewKey", "orderMade>renewOrdered keyLost>renewing refused>renewRefused expired>key "
                 "freeze>frozen removed>removed"},
    {"renewOrdered", "verdict>renewAttested orderDead>renewKey keyLost>renewing "
                     "refused>renewRefused expired>ordered freeze>frozen removed>removed"},
    {"renewAttested", "csrSent>renewFinalizing orderDead>renewKey keyLost>renewing "
                      "refused>renewRefused expired>attested freeze>frozen removed>removed"},
    {"renewFinalizing", "installed>valid orderDead>renewKey keyLost>renewing "
                        "refused>renewRefused expired>finalizing freeze>frozen removed>removed"},
    {"renewRefused", "retry>renewKey keyLost>renewing expired>refused freeze>frozen "
                     "removed>removed"},
    {"frozen", "thaw>BEFORE removed>removed"},
    {"removed", "assigned>absent"},
};

/* The state that "event>" leads to in a row, or NULL. */
static const char *target(const char *row, const char *event, char ret[32])
{
    size_t len = strlen(event);
    for (const char *at = row; (at = strstr(at, event)) != NULL; at++) {
        if ((at == row || at[-1] == ' ') && at[len] == '>') {
            size_t n = strcspn(at + len + 1, " ");
            memcpy(ret, at + len + 1, n);
            ret[n] = '\0';
            return ret;
        }
    }
    return NULL;
}

static void test_every_cell(void **state)
{
    (void)state;
    assert_int_equal(sizeof(expected) / sizeof(expected[0]), AGENT_STATE_COUNT);
    int taken = 0, refused = 0;
    for (unsigned s = 0; s < AGENT_STATE_COUNT; s++) {
        assert_string_equal(agent_state_name((enum agent_state)s), expected[s].state);
        for (unsigned e = 0; e < AGENT_EVENT_COUNT; e++) {
            struct agent_life life = {.state = (enum agent_state)s};
            const struct agent_life before = life;
            struct att_err err = {0};
            char buf[32];
            const char *to = target(expected[s].goes, agent_event_name((enum agent_event)e), buf);
            bool can = agent_life_can(&life, (enum agent_event)e);
            enum att_rc rc = agent_life_apply(&life, (enum agent_event)e, &err);
            if (to) {
                assert_true(can);
                assert_int_equal(rc, ATT_OK);
                assert_string_equal(agent_state_name(life.state),
                                    strcmp(to, "BEFORE") == 0 ? "absent" : to);
                taken++;
            } else {
                /* A frozen agent whose earlier state is "absent" cannot expire, either. */
                assert_false(can);
                assert_int_equal(rc, ATT_E_CONFLICT);
                assert_string_equal(err.reason, "agentState");
                assert_memory_equal(&life, &before, sizeof(life));
                refused++;
            }
        }
    }
    assert_int_equal(taken + refused, AGENT_STATE_COUNT * AGENT_EVENT_COUNT);
    assert_int_equal(taken, 73);
}

static void test_out_of_range_is_refused(void **state)
{
    (void)state;
    struct agent_life life = {.state = AGENT_STATE_COUNT};
    assert_int_equal(agent_life_apply(&life, AGENT_EV_FREEZE, NULL), ATT_E_CONFLICT);
    life = (struct agent_life){.state = AGENT_FROZEN, .before = AGENT_STATE_COUNT};
    assert_int_equal(agent_life_apply(&life, AGENT_EV_THAW, NULL), ATT_E_CONFLICT);
    life = (struct agent_life){0};
    assert_int_equal(agent_life_apply(&life, AGENT_EVENT_COUNT, NULL), ATT_E_CONFLICT);
    enum agent_state parsed = AGENT_VALID;
    assert_int_equal(agent_state_parse("Valid", &parsed, NULL), ATT_E_PARSE);
    assert_int_equal(parsed, AGENT_VALID);
}

static void test_thaw_returns(void **state)
{
    (void)state;
    for (unsigned s = 0; s < AGENT_STATE_COUNT; s++) {
        struct agent_life life = {.state = (enum agent_state)s};
        if (agent_life_apply(&life, AGENT_EV_FREEZE, NULL) != ATT_OK) {
            continue;
        }
        assert_int_equal(life.state, AGENT_FROZEN);
        assert_int_equal(agent_life_step(life.state), AGENT_STEP_NONE);
        struct agent_life twice = life;
        assert_int_equal(agent_life_apply(&twice, AGENT_EV_FREEZE, NULL), ATT_E_CONFLICT);
        assert_int_equal(agent_life_apply(&life, AGENT_EV_THAW, NULL), ATT_OK);
        assert_int_equal(life.state, s);
        assert_int_equal(life.before, AGENT_ABSENT);
    }
}

/* A certificate runs out while its agent is frozen: thawed, it begins without one. */
static void test_expiry_while_frozen(void **state)
{
    (void)state;
    struct agent_life life = {.state = AGENT_RENEW_ORDERED};
    assert_int_equal(agent_life_apply(&life, AGENT_EV_FREEZE, NULL), ATT_OK);
    assert_true(agent_life_serving(&life));
    assert_int_equal(agent_life_apply(&life, AGENT_EV_EXPIRED, NULL), ATT_OK);
    assert_int_equal(life.state, AGENT_FROZEN);
    assert_false(agent_life_serving(&life));
    assert_int_equal(agent_life_apply(&life, AGENT_EV_EXPIRED, NULL), ATT_E_CONFLICT);
    assert_int_equal(agent_life_apply(&life, AGENT_EV_THAW, NULL), ATT_OK);
    assert_int_equal(life.state, AGENT_ORDERED);
}

/* In every state that serves, expiry is taken, and ends serving; no event but "installed" (and a
 * thaw) begins it. */
static void test_serving(void **state)
{
    (void)state;
    for (unsigned s = 0; s < AGENT_STATE_COUNT; s++) {
        struct agent_life life = {.state = (enum agent_state)s};
        bool serving = agent_life_serving(&life);
        assert_int_equal(serving, agent_life_can(&life, AGENT_EV_EXPIRED));
        for (unsigned e = 0; e < AGENT_EVENT_COUNT; e++) {
            struct agent_life after = life;
            if (agent_life_apply(&after, (enum agent_event)e, NULL) == ATT_OK &&
                agent_life_serving(&after) && !serving) {
                assert_int_equal(e, AGENT_EV_INSTALLED);
            }
        }
        if (serving) {
            assert_int_equal(agent_life_apply(&life, AGENT_EV_EXPIRED, NULL), ATT_OK);
            assert_false(agent_life_serving(&life));
        }
    }
}

/* From every state there is a way to a certificate: nothing is a dead end. */
static void test_no_dead_end(void **state)
{
    (void)state;
    bool reach[AGENT_STATE_COUNT] = {[AGENT_VALID] = true};
    for (unsigned round = 0; round < AGENT_STATE_COUNT; round++) {
        for (unsigned s = 0; s < AGENT_STATE_COUNT; s++) {
            for (unsigned e = 0; e < AGENT_EVENT_COUNT; e++) {
                struct agent_life life = {.state = (enum agent_state)s};
                if (agent_life_apply(&life, (enum agent_event)e, NULL) == ATT_OK) {
                    reach[s] |= reach[life.state];
                }
            }
        }
    }
    for (unsigned s = 0; s < AGENT_STATE_COUNT; s++) {
        assert_true(reach[s]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_cell),   cmocka_unit_test(test_out_of_range_is_refused),
        cmocka_unit_test(test_thaw_returns), cmocka_unit_test(test_expiry_while_frozen),
        cmocka_unit_test(test_serving),      cmocka_unit_test(test_no_dead_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
