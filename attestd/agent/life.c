#include "attestd/agent/life.h"

#include <string.h>

#define BACK  ((unsigned char)(AGENT_STATE_COUNT + 1)) /* to the state before the freeze */
#define TO(s) ((unsigned char)((s) + 1))               /* 0 in the table: no such transition */

/* What may happen to every agent that is assigned and not frozen. */
#define ALWAYS [AGENT_EV_FREEZE] = TO(AGENT_FROZEN), [AGENT_EV_REMOVED] = TO(AGENT_REMOVED)

static const unsigned char table[AGENT_STATE_COUNT][AGENT_EVENT_COUNT] = {
    [AGENT_ABSENT] = {ALWAYS, [AGENT_EV_KEY_MADE] = TO(AGENT_KEY)},
    [AGENT_KEY] = {ALWAYS, [AGENT_EV_ORDER_MADE] = TO(AGENT_ORDERED),
                   [AGENT_EV_KEY_LOST] = TO(AGENT_ABSENT), [AGENT_EV_REFUSED] = TO(AGENT_REFUSED)},
    [AGENT_ORDERED] =
        {ALWAYS, [AGENT_EV_VERDICT] = TO(AGENT_ATTESTED), [AGENT_EV_ORDER_DEAD] = TO(AGENT_KEY),
         [AGENT_EV_KEY_LOST] = TO(AGENT_ABSENT), [AGENT_EV_REFUSED] = TO(AGENT_REFUSED)},
    [AGENT_ATTESTED] =
        {ALWAYS, [AGENT_EV_CSR_SENT] = TO(AGENT_FINALIZING), [AGENT_EV_ORDER_DEAD] = TO(AGENT_KEY),
         [AGENT_EV_KEY_LOST] = TO(AGENT_ABSENT), [AGENT_EV_REFUSED] = TO(AGENT_REFUSED)},
    [AGENT_FINALIZING] =
        {ALWAYS, [AGENT_EV_INSTALLED] = TO(AGENT_VALID), [AGENT_EV_ORDER_DEAD] = TO(AGENT_KEY),
         [AGENT_EV_KEY_LOST] = TO(AGENT_ABSENT), [AGENT_EV_REFUSED] = TO(AGENT_REFUSED)},
    [AGENT_REFUSED] =
        {ALWAYS, [AGENT_EV_RETRY] = TO(AGENT_KEY), [AGENT_EV_KEY_LOST] = TO(AGENT_ABSENT)},
    [AGENT_VALID] =
        {ALWAYS, [AGENT_EV_DUE] = TO(AGENT_RENEWING), [AGENT_EV_EXPIRED] = TO(AGENT_ABSENT)},
    [AGENT_RENEWING] =
        {ALWAYS, [AGENT_EV_KEY_MADE] = TO(AGENT_RENEW_KEY), [AGENT_EV_EXPIRED] = TO(AGENT_ABSENT)},
    [AGENT_RENEW_KEY] =
        {ALWAYS, [AGENT_EV_ORDER_MADE] = TO(AGENT_RENEW_ORDERED),
         [AGENT_EV_KEY_LOST] = TO(AGENT_RENEWING), [AGENT_EV_REFUSED] = TO(AGENT_RENEW_REFUSED),
         [AGENT_EV_EXPIRED] = TO(AGENT_KEY)},
    [AGENT_RENEW_ORDERED] =
        {
            ALWAYS, [AGENT_EV_VERDICT] = TO(AGENT_RENEW_ATTESTED),
            [AGENT_EV_ORDER_DEAD] = TO(AGENT_RENEW_KEY), [AGENT_EV_KEY_LOST] = TO(AGENT_RENEWING),
            [AGENT_EV_REFUSED] = TO(AGENT_RENEW_REFUSED), [AGENT_EV_EXPIRED] = TO(AGENT_ORDERED)},
    [AGENT_RENEW_ATTESTED] =
        {ALWAYS, [AGENT_EV_CSR_SENT] = TO(AGENT_RENEW_FINALIZING),
         [AGENT_EV_ORDER_DEAD] = TO(AGENT_RENEW_KEY), [AGENT_EV_KEY_LOST] = TO(AGENT_RENEWING),
         [AGENT_EV_REFUSED] = TO(AGENT_RENEW_REFUSED), [AGENT_EV_EXPIRED] = TO(AGENT_ATTESTED)},
    [AGENT_RENEW_FINALIZING] =
        {ALWAYS, [AGENT_EV_INSTALLED] = TO(AGENT_VALID),
         [AGENT_EV_ORDER_DEAD] = TO(AGENT_RENEW_KEY), [AGENT_EV_KEY_LOST] = TO(AGENT_RENEWING),
         [AGENT_EV_REFUSED] = TO(AGENT_RENEW_REFUSED), [AGENT_EV_EXPIRED] = TO(AGENT_FINALIZING)},
    [AGENT_RENEW_REFUSED] =
        {ALWAYS, [AGENT_EV_RETRY] = TO(AGENT_RENEW_KEY), [AGENT_EV_KEY_LOST] = TO(AGENT_RENEWING),
         [AGENT_EV_EXPIRED] = TO(AGENT_REFUSED)},
    [AGENT_FROZEN] = {[AGENT_EV_THAW] = BACK, [AGENT_EV_REMOVED] = TO(AGENT_REMOVED)},
    [AGENT_REMOVED] = {[AGENT_EV_ASSIGNED] = TO(AGENT_ABSENT)},
};

static const struct {
    const char *name;
    enum agent_step step;
    bool serving;
} states[AGENT_STATE_COUNT] = {
    [AGENT_ABSENT] = {"absent", AGENT_STEP_MAKE_KEY, false},
    [AGENT_KEY] = {"key", AGENT_STEP_ORDER, false},
    [AGENT_ORDERED] = {"ordered", AGENT_STEP_ATTEST, false},
    [AGENT_ATTESTED] = {"attested", AGENT_STEP_FINALIZE, false},
    [AGENT_FINALIZING] = {"finalizing", AGENT_STEP_DOWNLOAD, false},
    [AGENT_REFUSED] = {"refused", AGENT_STEP_NONE, false},
    [AGENT_VALID] = {"valid", AGENT_STEP_NONE, true},
    [AGENT_RENEWING] = {"renewing", AGENT_STEP_MAKE_KEY, true},
    [AGENT_RENEW_KEY] = {"renewKey", AGENT_STEP_ORDER, true},
    [AGENT_RENEW_ORDERED] = {"renewOrdered", AGENT_STEP_ATTEST, true},
    [AGENT_RENEW_ATTESTED] = {"renewAttested", AGENT_STEP_FINALIZE, true},
    [AGENT_RENEW_FINALIZING] = {"renewFinalizing", AGENT_STEP_DOWNLOAD, true},
    [AGENT_RENEW_REFUSED] = {"renewRefused", AGENT_STEP_NONE, true},
    [AGENT_FROZEN] = {"frozen", AGENT_STEP_NONE, false},
    [AGENT_REMOVED] = {"removed", AGENT_STEP_NONE, false},
};

static const char *const events[AGENT_EVENT_COUNT] = {
    [AGENT_EV_KEY_MADE] = "keyMade",
    [AGENT_EV_ORDER_MADE] = "orderMade",
    [AGENT_EV_VERDICT] = "verdict",
    [AGENT_EV_CSR_SENT] = "csrSent",
    [AGENT_EV_INSTALLED] = "installed",
    [AGENT_EV_DUE] = "due",
    [AGENT_EV_ORDER_DEAD] = "orderDead",
    [AGENT_EV_KEY_LOST] = "keyLost",
    [AGENT_EV_REFUSED] = "refused",
    [AGENT_EV_RETRY] = "retry",
    [AGENT_EV_EXPIRED] = "expired",
    [AGENT_EV_FREEZE] = "freeze",
    [AGENT_EV_THAW] = "thaw",
    [AGENT_EV_REMOVED] = "removed",
    [AGENT_EV_ASSIGNED] = "assigned",
};

static const char *const steps[] = {"none", "makeKey", "order", "attest", "finalize", "download"};

/* A frozen agent's certificate may run out, too: that changes the state it will thaw into. */
static bool expire_while_frozen(const struct agent_life *life, enum agent_event event)
{
    return life->state == AGENT_FROZEN && event == AGENT_EV_EXPIRED &&
           table[life->before][AGENT_EV_EXPIRED] != 0;
}

static bool in_range(const struct agent_life *life, enum agent_event event)
{
    return (unsigned)life->state < AGENT_STATE_COUNT &&
           (unsigned)life->before < AGENT_STATE_COUNT && (unsigned)event < AGENT_EVENT_COUNT;
}

bool agent_life_can(const struct agent_life *life, enum agent_event event)
{
    return in_range(life, event) &&
           (table[life->state][event] != 0 || expire_while_frozen(life, event));
}

enum att_rc agent_life_apply(struct agent_life *life, enum agent_event event, struct att_err *err)
{
    if (!agent_life_can(life, event)) {
        enum att_rc rc = att_fail(err, ATT_E_CONFLICT, "an agent that is %s cannot take \"%s\"",
                                  agent_state_name(life->state), agent_event_name(event));
        att_err_reason(err, "agentState");
        return rc;
    }
    if (life->state == AGENT_FROZEN && event == AGENT_EV_EXPIRED) {
        life->before = (enum agent_state)(table[life->before][event] - 1);
        return ATT_OK;
    }
    unsigned char to = table[life->state][event];
    enum agent_state from = life->state;
    life->state = to == BACK ? life->before : (enum agent_state)(to - 1);
    life->before = event == AGENT_EV_FREEZE ? from : AGENT_ABSENT;
    return ATT_OK;
}

enum agent_step agent_life_step(enum agent_state state)
{
    return (unsigned)state < AGENT_STATE_COUNT ? states[state].step : AGENT_STEP_NONE;
}

bool agent_life_serving(const struct agent_life *life)
{
    enum agent_state state = life->state == AGENT_FROZEN ? life->before : life->state;
    return (unsigned)state < AGENT_STATE_COUNT && states[state].serving;
}

const char *agent_state_name(enum agent_state state)
{
    return (unsigned)state < AGENT_STATE_COUNT ? states[state].name : "?";
}

const char *agent_event_name(enum agent_event event)
{
    return (unsigned)event < AGENT_EVENT_COUNT ? events[event] : "?";
}

const char *agent_step_name(enum agent_step step)
{
    return (unsigned)step < sizeof(steps) / sizeof(steps[0]) ? steps[step] : "?";
}

enum att_rc agent_state_parse(const char *name, enum agent_state *ret_state, struct att_err *err)
{
    for (unsigned i = 0; i < AGENT_STATE_COUNT; i++) {
        if (strcmp(states[i].name, name) == 0) {
            *ret_state = (enum agent_state)i;
            return ATT_OK;
        }
    }
    return att_fail(err, ATT_E_PARSE, "\"%.40s\" is no state of an agent", name);
}
