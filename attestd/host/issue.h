/* A worker's job for one agent, shared by issue.c (the steps), install.c (the end) and work.c (what
 * comes before and what a failure means). */
#ifndef ATTESTD_HOST_ISSUE_H
#define ATTESTD_HOST_ISSUE_H

#include "attestd/host/aside.h"
#include "attestd/host/internal.h"
#include "certs/install.h"

/* Who said no: the same code means different things. */
enum host_where { HOST_AT_SELF = 0, HOST_AT_KEYD, HOST_AT_ISSUER };

struct host_issue {
    struct host *host;
    unsigned slot;
    struct agent_record rec;    /* as after the latest event */
    struct acme_client *client; /* borrowed */
    char ak_url[HOST_URL_MAX + 1];
    struct att_buf ak_pem;
    struct proc_key key; /* the next key */
    bool have_key;
    struct acme_order order;
    bool have_order;
    struct host_evidence evidence;
    bool have_evidence;
    enum host_where where; /* of the latest failure */
    bool accepted;         /* the issuer said that the challenge is valid */
    bool order_dead;       /* the failure ended the order */
    bool installed;
    struct host_issue_ahead {
        struct host_aside aside;
        struct host *host;
        char name[AGENT_NAME_MAX + 1], key_id[AGENT_KEY_ID_MAX + 1];
        char spiffe_id[AGENT_SPIFFE_ID_MAX + 1];
        char identifier[AGENT_IDENTIFIER_MAX + 1];
        struct certs_install_gen gen;
        struct att_buf csr; /* empty: keyd is still to be asked */
    } ahead; /* done while the issuer judges; the worker looks at gen and csr after the join */
    struct host_aside journal; /* syncs the host's log while the issuer makes an order */
    uint8_t journal_head[ATT_SHA256_LEN];
    struct host_aside dump; /* writes the evidence's files meanwhile; reads name and evidence */
    char name[AGENT_NAME_MAX + 1];
    int64_t started_ms;
    int64_t lap_us, stage_us[AGENT_STAGE_COUNT];
};

/* Runs the steps of one issuance. */
void host_issue_run(struct host *host, unsigned slot, const struct agent_record *rec);
/* Counts the time since the lap before for this stage. */
void host_issue_lap(struct host_issue *job, enum agent_stage stage);
/* The CSR for the agent's name: its SPIFFE ID, or its permanent identifier. Appends DER. */
ATT_MUST_USE enum att_rc host_issue_csr(struct host *host, const char *key_id,
                                        const char *spiffe_id, const char *identifier,
                                        struct att_buf *ret_der, struct att_err *err);
/* attObj of what keyd stated (job->evidence.made). */
ATT_MUST_USE enum att_rc host_issue_attobj(struct host_issue *job, struct att_buf *ret_cbor,
                                           struct att_err *err);
/* acme_issue.c: the answer to a challenge of another server than an attest-issuerd: attObj with
 * TPM2_Certify for this challenge, and nothing else. */
ATT_MUST_USE enum att_rc host_issue_statement(struct host_issue *job,
                                              const struct acme_challenge *challenge,
                                              struct att_buf *ret_payload, struct att_err *err);
/* The order is for the agent's name alone. ATT_E_PROTOCOL, reason orderIdentifier. */
ATT_MUST_USE enum att_rc host_issue_check_order(const struct host_issue *job, struct att_err *err);
/* Writes down key and order, and prepares the files of the certificate to come, beside the job. */
void host_issue_ahead(struct host_issue *job);
/* ATT_OK: key and order are on disk, synced. */
ATT_MUST_USE enum att_rc host_issue_written(struct host_issue *job, struct att_err *err);
/* Check, switch the key, install, write down; the old key is retired with its certificate. */
ATT_MUST_USE enum att_rc host_issue_install(struct host_issue *job, struct att_slice pem,
                                            struct att_err *err);
/* Records the error, moves the life on, sets the back-off. */
void host_issue_failed(struct host_issue *job, const struct att_err *err);

/* Compares keyd's keys of one agent with its record: finishes a switch that a crash cut off, and
 * destroys what no record speaks of. */
ATT_MUST_USE enum att_rc host_keys_check(struct host *host, const char *name, struct att_err *err);
/* Another keyd runs: keys may have ended with the one before. All agents' are compared. */
void host_keys_may_be_gone(struct host *host);
/* After a KEY_CREATE that answered this: may there be a key that no record speaks of? Also beyond
 * the limit of keys: then there are some. */
bool host_keys_left_over(enum att_rc create);
/* What KEY_CREATE for this agent answered: keys and record are compared where there may be one. */
void host_keys_created(struct host *host, const char *name, enum att_rc rc);
/* Destroys one retired key whose certificate has ended. */
void host_keys_retire(struct host *host, const char *name);
/* Destroys keys of agents that this host does not have (any more). */
ATT_MUST_USE enum att_rc host_keys_sweep(struct host *host, struct att_err *err);
/* All keys of one agent, retired first. */
ATT_MUST_USE enum att_rc host_keys_remove(struct host *host, const char *name, struct att_err *err);

/* issue_hsm.c: which module has the key, and what it says of its token, where the issuer reads
 * that: earlier ones refuse what they do not know. */
void host_issue_put_hsm(const struct host_issue *job, const struct acme_wanted *wanted,
                        struct evidence_statement *ret_statement);

#endif
