/* One job at a time per TPM, on the thread that asks while nobody is served, else on the queue's
 * own; and the order in which those that wait are served: by priority; within one, fairly between
 * agents (start-time fair queueing: each agent's n-th waiting job shares round n with the others'
 * n-th); within a round by deadline. So an agent that asks for a thousand signatures delays
 * another's one by what is running and at most one more of its own. */
#ifndef ATT_TPM_QUEUE_H
#define ATT_TPM_QUEUE_H

#include "tpm/context.h"

enum tpm_prio {
    TPM_PRIO_HANDSHAKE,  /* a peer waits for a signature */
    TPM_PRIO_RENEWAL,    /* certify, quote, CSR */
    TPM_PRIO_BACKGROUND, /* keys made ahead */
    TPM_PRIO_COUNT
};

/* What the latencies are counted under. */
enum tpm_op {
    TPM_OP_SIGN,
    TPM_OP_CREATE,
    TPM_OP_LOAD,
    TPM_OP_CERTIFY,
    TPM_OP_QUOTE,
    TPM_OP_ACTIVATE,
    TPM_OP_SEAL,
    TPM_OP_OTHER,
    TPM_OP_COUNT
};

const char *tpm_op_name(enum tpm_op op);

#define TPM_QUEUE_LEN_DEFAULT 1024u
#define TPM_QUEUE_AGENT_MAX   64u /* waiting jobs of one agent */

struct tpm_queue;

/* Nothing else runs meanwhile, on whatever thread: ctx is its own until it returns. */
typedef enum att_rc tpm_queue_fn(struct tpm_context *ctx, void *arg, struct att_err *err);

/* Takes ctx (also on failure: it is freed). max_len 0: the default. */
ATT_MUST_USE enum att_rc tpm_queue_new(struct tpm_context *ctx, size_t max_len,
                                       struct tpm_queue **ret_queue, struct att_err *err);
/* Stops: what waits gets ATT_E_GONE, what runs is finished; frees the context. No call may be made
 * or be entered any more. */
void tpm_queue_free(struct tpm_queue *queue);

/* Waits until fn has run, and returns its result. From any thread, but not from within fn.
 * agent: any text that stands for whom it is done ("" for the host), copied, ≤ 63 bytes count.
 * deadline_ms: on att_boottime_ms()'s clock; a job that has not been started by then is taken out
 * and gives ATT_E_TIMEOUT. A job once started is waited for, since it uses arg: the TPM's own
 * answers bound that. While one has been running for longer than the stuck time (a TPM that does
 * not answer: TSS has no time-out for it), further jobs get ATT_E_TIMEOUT, reason "tpmSilent", at
 * once, and those that wait get it by their deadline.
 * ATT_E_LIMIT when the queue, or this agent's share of it, is full.
 * When fn returns ATT_E_GONE, or the context was dead, it is reopened before the next job,
 * with growing pauses; while that fails, jobs get ATT_E_GONE at once. A job is never run twice. */
ATT_MUST_USE enum att_rc tpm_queue_run(struct tpm_queue *queue, enum tpm_op op, enum tpm_prio prio,
                                       const char *agent, int64_t deadline_ms, tpm_queue_fn *fn,
                                       void *arg, struct att_err *err);

/* No command of a TPM that is in order takes so long (a slow one needs 22 s for an RSA key). */
#define TPM_QUEUE_STUCK_MS 60000
/* Another stuck time, for tests. */
void tpm_queue_set_stuck_ms(struct tpm_queue *queue, int64_t stuck_ms);

#define TPM_QUEUE_STATS_WINDOW 256u

struct tpm_op_stats {
    uint64_t count, failed;
    uint32_t p50_us, p95_us; /* run time over the last TPM_QUEUE_STATS_WINDOW; 0 when none */
    uint32_t wait_p95_us;    /* time in the queue before that */
};

struct tpm_queue_stats {
    size_t waiting, waiting_max;
    uint64_t timeouts, refused, reopened;
    bool alive;
    bool stuck;          /* the job that runs now has been running for longer than the stuck time */
    enum tpm_op running; /* which one, and for how long; 0 ms: none runs */
    int64_t running_ms;
    struct tpm_op_stats ops[TPM_OP_COUNT];
};

void tpm_queue_stats(struct tpm_queue *queue, struct tpm_queue_stats *ret_stats);

#endif
