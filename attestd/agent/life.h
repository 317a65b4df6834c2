/* One agent's life on this host, as a table: which state it is in, what may happen to it there, and
 * what has to be done next. Pure: no clock, no I/O. The daemon asks the table before it acts, and
 * an event that the table does not know in a state is refused, not guessed at.
 *
 * States come in pairs. The plain ones have no certificate in force; the "renew" ones are the same
 * step of an issuance while an earlier certificate is still served. */
#ifndef ATTESTD_AGENT_LIFE_H
#define ATTESTD_AGENT_LIFE_H

#include "attestd/base/err.h"

#include <stdbool.h>

enum agent_state {
    AGENT_ABSENT = 0,       /* assigned to this host; no key for a next certificate yet */
    AGENT_KEY,              /* the key is in the TPM, nothing is ordered */
    AGENT_ORDERED,          /* the order's URL is on disk */
    AGENT_ATTESTED,         /* the issuer's verdict was yes: the order is ready */
    AGENT_FINALIZING,       /* the CSR was sent, the certificate is not here yet */
    AGENT_REFUSED,          /* the issuer said no; asked again after a long back-off */
    AGENT_VALID,            /* a certificate is installed and nothing is due */
    AGENT_RENEWING,         /* renewal is due; no next key yet */
    AGENT_RENEW_KEY,        /* as AGENT_KEY, the earlier certificate is served meanwhile */
    AGENT_RENEW_ORDERED,    /* as AGENT_ORDERED … */
    AGENT_RENEW_ATTESTED,   /* as AGENT_ATTESTED … */
    AGENT_RENEW_FINALIZING, /* as AGENT_FINALIZING … */
    AGENT_RENEW_REFUSED,    /* as AGENT_REFUSED … */
    AGENT_FROZEN,           /* an operator stopped it: its keys do not sign, nothing is renewed */
    AGENT_REMOVED,          /* no longer assigned to this host */
    AGENT_STATE_COUNT,
};

enum agent_event {
    AGENT_EV_KEY_MADE = 0, /* keyd made the next key */
    AGENT_EV_ORDER_MADE,   /* newOrder answered; the URL is on disk */
    AGENT_EV_VERDICT,      /* the challenge is valid */
    AGENT_EV_CSR_SENT,     /* finalize was sent (or is about to be: written down before) */
    AGENT_EV_INSTALLED,    /* the chain was checked and installed */
    AGENT_EV_DUE,          /* the scheduler, or an operator, wants a new certificate */
    AGENT_EV_ORDER_DEAD,   /* the order ended without a certificate: same key, new order */
    AGENT_EV_KEY_LOST,     /* keyd does not have, or cannot load, the next key */
    AGENT_EV_REFUSED,      /* the issuer refused by policy or evidence */
    AGENT_EV_RETRY,        /* the back-off after a refusal is over */
    AGENT_EV_EXPIRED,      /* the certificate in force ran out (or was withdrawn) */
    AGENT_EV_FREEZE,
    AGENT_EV_THAW,
    AGENT_EV_REMOVED,  /* the issuer's view no longer lists it */
    AGENT_EV_ASSIGNED, /* the issuer's view lists it (again) */
    AGENT_EVENT_COUNT,
};

/* What the daemon has to do for an agent in a state. */
enum agent_step {
    AGENT_STEP_NONE =
        0, /* wait: for the renewal time, for the end of a back-off, for an operator */
    AGENT_STEP_MAKE_KEY,
    AGENT_STEP_ORDER,
    AGENT_STEP_ATTEST,
    AGENT_STEP_FINALIZE,
    AGENT_STEP_DOWNLOAD,
};

/* {0} is a new agent. before is the state that a thaw returns to. */
struct agent_life {
    enum agent_state state, before;
};

/* Applies the event. ATT_E_CONFLICT (reason "agentState") when the table has no such transition;
 * life is then untouched. */
ATT_MUST_USE enum att_rc agent_life_apply(struct agent_life *life, enum agent_event event,
                                          struct att_err *err);
/* Whether the table has the transition. */
bool agent_life_can(const struct agent_life *life, enum agent_event event);
enum agent_step agent_life_step(enum agent_state state);
/* Whether a certificate is in force. A frozen agent's files stay in place (its keys do not sign).
 */
bool agent_life_serving(const struct agent_life *life);

/* Stable names: "absent", "renewOrdered" …, "keyMade" …; never NULL. */
const char *agent_state_name(enum agent_state state);
const char *agent_event_name(enum agent_event event);
const char *agent_step_name(enum agent_step step);
/* ATT_E_PARSE for a name that is none. */
ATT_MUST_USE enum att_rc agent_state_parse(const char *name, enum agent_state *ret_state,
                                           struct att_err *err);

#endif
