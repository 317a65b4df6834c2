/* What the files of tokend share. One thread; a connection's life is in conn.c. */
#ifndef TOKEND_INTERNAL_H
#define TOKEND_INTERNAL_H

#include "attestd/proc/sandbox.h"
#include "attestd/proc/sign_proto.h"
#include "attestd/proc/who_proto.h"
#include "attestd/tokend/inner_proto.h"
#include "attestd/tokend/tokend.h"
#include "attestd/tokend/upstream.h"

#include <sys/types.h>

#define UIDS_MAX          1024 /* users with connections at one time */
#define LINGERING_MAX     256
#define LINGER_MS         5000
#define IDENTIFY_MS       5000 /* attestd may have to hash an executable */
#define VIEW_MS           3000
#define VIEW_FRESH_MS     1000 /* a rotation is seen at most this late */
#define SAME_MS           2000
#define SAME_FRESH_MS     1000
#define SIGN_MS           15000 /* a slow TPM with a queue */
#define TOKEND_ENTRIES_MS 1000  /* within which entries that changed are in force */
#define DECISION_MS       5000  /* how long a signature waits for a decision after that */
#define GAP_MS            2000  /* how long a request waits for a restarting process */
#define HSMS_MAX          5     /* CONF_HSMS_MAX, and the default without its name */
#define UID_RATE          50    /* new connections of a user in a second, on average */
#define UID_BURST         200
#define TOLD_MS           1000 /* between lines of one kind about one user or agent */

struct tokend_told {
    int64_t at_ms; /* 0: never yet */
    unsigned left_out;
};

/* A user's share. */
struct uid_share {
    uid_t uid;
    unsigned connections; /* all but lingering ones; among them: */
    unsigned unproven;    /* not identified yet, or unknown */
    unsigned unknown;     /* nobody's agent */
    struct tokend_told told;
    int64_t filled_at_ms;
    int64_t saved_ms;                    /* 1000 / UID_RATE for each new connection */
    struct tokend_fair fair, fair_again; /* at attestd: newcomers, new decisions */
    bool deciding; /* a new decision about one of its processes is under way */
    bool used;
};

/* An agent with connections, and what attestd last said that it has. */
struct agent {
    struct agent *next;
    char name[PROC_AGENT_MAX + 1];
    unsigned connections, changed; /* changed: of connections, those whose caller is the agent no
                                    * more */
    struct tokend_told told;
    /* One for each queue: "served" of one says nothing in another. */
    struct tokend_fair fair_view, fair_same, fair_sign, fair_sign_hsm;
    uint64_t decided_at; /* by the count of new decisions: the last about one of its processes */
    int64_t retry_at_ms; /* the last one was not to be had: no other before then */
    struct tokend *tokend;
    struct tokend_call *asking; /* VIEW under way */
    /* the cached view: the fields of an inner VIEW's reply; empty: none */
    struct att_buf view;
    uint64_t generation;
    int64_t not_after, fetched_at_ms;
    bool fetched;  /* attestd has answered once, also with "no certificate" */
    bool outdated; /* a key was gone: the next search asks attestd, whatever the age */
    /* Its key is in an HSM: the signatures wait on the links of its module. NULL: it is not. */
    struct tokend_upstream *hsm;
};

enum conn_state { CONN_IDENTIFYING, CONN_SERVING, CONN_LINGERING };
enum conn_wait { WAIT_NOTHING, WAIT_VIEW, WAIT_SAME, WAIT_SIGN, WAIT_DECISION };

struct conn {
    struct conn *next;
    struct tokend *tokend;
    enum conn_state state;
    bool dead; /* freed when the loop's batch is over */
    /* who */
    pid_t pid;
    uid_t uid;
    int pidfd;
    int64_t accepted_ms; /* 0: the pidfd is the socket's own */
    struct uid_share *share;
    struct agent *agent; /* NULL: nobody's agent */
    bool unproven, unknown;
    uint8_t identity[32];
    int64_t same_at_ms; /* when whod (or attestd) last said that it is still the one */
    bool changed;       /* it is another by now: nothing is signed any more */
    /* by which entries it was granted its agent */
    uint64_t entries, asked;   /* asked: those of again */
    int64_t behind_since_ms;   /* when entries stopped being those in force */
    struct tokend_call *again; /* a new decision under way */
    bool unassigned;           /* the entries do not make it the agent any more */
    bool wanted;               /* it has asked for a signature meanwhile: decided about first */
    uint64_t decided_at;       /* as its agent's */
    int64_t waits_since_ms;    /* for a decision */
    /* the socket, until the token has it */
    int client;
    int64_t since_ms;
    /* the token process */
    pid_t child;
    int channel;
    struct tokend_source channel_source, pid_source;
    uint8_t in[TOKEND_INNER_REQUEST_MAX];
    size_t in_len;
    struct att_buf out; /* what the channel did not take at once */
    size_t out_at;
    /* its request */
    enum conn_wait wait;
    struct tokend_call *call;
    uint32_t frame_id;
    uint16_t frame_op;
    uint64_t known;
    char key_id[PROC_KEY_ID_LEN + 1];
    uint32_t scheme; /* of RSA; 0: ECDSA */
    uint8_t digest[64];
    size_t digest_len;
};

/* Since the start, for status. */
struct tokend_counts {
    uint64_t accepted, refused; /* connections */
    uint64_t signatures, refusals;
    uint64_t died; /* token processes */
};

/* What attestd was told last. */
struct tokend_report {
    struct tokend_call *call; /* under way */
    struct tokend_fair fair;
    struct tokend_counts told;
    unsigned connections;
    int64_t told_at_ms, started_at;
    bool changed; /* agents' connections did */
};

/* The entries in force at attestd, as far as it has said. */
struct tokend_entries {
    struct tokend_call *call; /* CHANGES under way */
    uint64_t now;             /* 0: not known yet */
    int64_t ask_at_ms;
    unsigned under_way; /* new decisions */
    uint64_t made;      /* new decisions so far */
    bool pending;       /* some connections are not decided yet */
};

/* Links to keyd for the signatures of one HSM module. */
struct tokend_hsm {
    char name[PROC_HSM_NAME_MAX + 1]; /* as entries have it; empty: the host's default */
    struct tokend_upstream *keyd;     /* NULL: the place is free */
};

struct tokend {
    struct tokend_opts opts;
    struct tokend_counts counts;
    struct tokend_report report;
    struct tokend_entries entries;
    struct tokend_loop loop;
    struct tokend_source listen_source;
    struct tokend_upstream *attestd, *views, *changes, *whod, *keyd;
    struct tokend_hsm hsms[HSMS_MAX]; /* in the order in which their first agent came */
    struct conn *conns;
    struct agent *agents;
    struct uid_share shares[UIDS_MAX];
    unsigned connections, unproven, lingering;
    bool any_dead;
    struct tokend_told deaf_told;
    bool deaf; /* out of descriptors: nobody is accepted before the next tick */
    struct proc_sandbox_ready token_sandbox;
    struct proc_msg msg;
    struct att_buf payload, frame; /* of a reply under construction */
};

/* ---- conn.c ---- */
void tokend_conn_accepted(struct tokend *tokend, int client);
void tokend_conn_end(struct conn *conn);
void tokend_conn_reap(struct tokend *tokend); /* children that ended */
void tokend_conn_tick(struct tokend *tokend);
void tokend_conn_sweep(struct tokend *tokend); /* frees the dead */
/* Takes what has come from the token into conn->in. False: no token of ours sends this, or its
 * caller has ended; the connection ends. */
bool tokend_conn_requests(struct conn *conn);
/* The token's request is answered. */
void tokend_conn_reply(struct conn *conn, const struct proc_value *values);
void tokend_conn_reply_err(struct conn *conn, enum att_rc rc, const struct att_err *err);

/* Is it time for a line again? ret_left_out: how many were left out before it. */
bool tokend_worth_a_line(struct tokend_told *told, unsigned *ret_left_out);

/* ---- request.c: what a token asks ---- */
bool tokend_request(struct conn *conn, const struct proc_frame *frame);
bool tokend_caller_alive(const struct conn *conn);
/* Seen to be another program, unit or user: for good. */
void tokend_caller_changed(struct conn *conn);
/* A signature that waits for a decision about its caller looks again: it goes on, is refused, or
 * waits on. */
void tokend_request_look_again(struct conn *conn);

/* ---- entries.c: entries that change ---- */
void tokend_entries_tick(struct tokend *tokend);
void tokend_entries_decide(struct tokend *tokend); /* about those that are not decided yet */
void tokend_entries_forget(struct conn *conn);     /* it ends */
/* May its caller still be served? ATT_E_DENIED notAssigned; ATT_E_UNREACHABLE notDecided: not known
 * within TOKEND_ENTRIES_MS of the change. */
ATT_MUST_USE enum att_rc tokend_entries_check(const struct conn *conn, struct att_err *err);
/* Somebody waits for the decision about conn's caller: those are decided about before others. */
void tokend_entries_want(struct conn *conn);
/* Not decided in time, and the decision is on its way: a signature waits rather than fails. */
bool tokend_entries_coming(const struct conn *conn);
void tokend_conn_mark(struct conn *conn, bool changed, bool unassigned);

/* ---- agents.c ---- */
struct agent *tokend_agent_join(struct tokend *tokend, struct att_slice name);
void tokend_agent_leave(struct agent *agent);
/* conn waits for its agent's view: answered now, or when attestd has answered. */
void tokend_agent_view(struct conn *conn);
/* A key of the agent's is gone: who looks for its key again is to find the one in force, not what
 * was seen within the last second. */
void tokend_agent_outdated(struct agent *agent);

/* ---- hsms.c: a group of links for each HSM module ---- */
/* NULL: no more can be had. */
struct tokend_upstream *tokend_hsms_get(struct tokend *tokend, struct att_slice name);
bool tokend_hsms_busy(const struct tokend *tokend);
void tokend_hsms_tick(struct tokend *tokend);
void tokend_hsms_free(struct tokend *tokend);

/* ---- report.c: what attestd's status shows ---- */
void tokend_report_tick(struct tokend *tokend);

/* ---- token.c: the forked process ---- */
struct tokend_token {
    struct proc_sandbox_ready sandbox;
    int client, channel;
    pid_t pid;    /* the caller's */
    bool unknown; /* nobody's agent: no slot */
};
_Noreturn void tokend_token_main(const struct tokend_token *token);

#endif
