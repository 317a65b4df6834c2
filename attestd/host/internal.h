/* What the files of attestd/host share. One mutex (lock) is around everything that changes; no
 * blocking call is made under it. Threads: main (timers, signals), the host thread (enrolment,
 * view), HOST_WORKERS that serve agents, and the control server's. */
#ifndef ATTESTD_HOST_INTERNAL_H
#define ATTESTD_HOST_INTERNAL_H

#include "attestd/agent/registry.h"
#include "attestd/base/clock.h"
#include "attestd/base/ctl.h"
#include "attestd/base/log.h"
#include "attestd/conf/acme_agents.h"
#include "attestd/host/host.h"
#include "attestd/host/record.h"
#include "attestd/host/revoked.h"
#include "attestd/host/measure.h"
#include "attestd/host/local.h"
#include "attestd/host/note.h"
#include "attestd/host/selectors.h"
#include "attestd/host/ticket.h"
#include "attestd/host/tokens.h"
#include "attestd/host/view.h"
#include "attestd/proc/caller.h"
#include "attestd/proc/keyd_client.h"
#include "attestd/proc/sandbox.h"
#include "provision/acme/client.h"
#include "provision/acme/requests.h"
#include "provision/evidence/logs.h"
#include "provision/evidence/statement.h"

#include <pthread.h>
#include <stdatomic.h>

#define HOST_WORKERS            4
#define HOST_SAVE_LOCKS         16
#define HOST_KEYD_TIMEOUT_MS    30000
#define HOST_MEASURE_TIMEOUT_MS 120000 /* of one request: WHOD_MEASURE_MS and a margin */
#define HOST_WHOD_TIMEOUT_MS    15000  /* a large executable is read once */
#define HOST_VIEW_WAIT_S        50
#define HOST_ACME_LOOK_S        600 /* another server is not asked more often for nothing */
#define HOST_BACKOFF_BASE_MS    500
#define HOST_BACKOFF_CAP_MS     60000
/* A refusal by policy will not change by itself soon. */
#define HOST_REFUSED_BASE_MS 15000
#define HOST_REFUSED_CAP_MS  600000

struct event_base;

enum host_phase {
    HOST_STARTING = 0,
    HOST_NO_KEYD,   /* keyd or the TPM is away */
    HOST_NO_ISSUER, /* no account yet, or the issuer is away before the first enrolment */
    HOST_ENROLLING,
    HOST_PENDING, /* enrolled, waiting for an operator's approval */
    HOST_ENROLLED,
};
const char *host_phase_name(enum host_phase phase);

struct host_paths {
    char *dir;       /* state_dir/host */
    char *agents;    /* …/agents: NAME/{chain.pem,key.uri} */
    char *records;   /* …/records: NAME.json */
    char *withdrawn; /* …/withdrawn: NAME.pem, the last chain that was taken out of service */
    char *evidence;  /* …/evidence */
    char *decisions; /* …/decisions: the host's own log (journal.h) */
    char *record, *view, *bundle, *crl, *ak_chain, *lock;
    char *control, *keyd, *whod, *workload; /* sockets */
};

/* A ticket that an operator gave on the control socket: in memory only. */
struct host_given {
    struct host_ticket ticket; /* empty mac_key: none */
    uint64_t n;                /* how many were given; names the latest */
    uint64_t refused_n;        /* the latest that the issuer refused, and why */
    struct agent_error refused;
};

/* What became of callers, for status. */
struct host_workload_counts {
    uint64_t granted, refused, limited; /* limited: of refused, those over their rate */
    uint64_t by_local_rule;             /* of refused */
    int64_t told_ms;                    /* the last line about one over its rate; 0: none */
    uint64_t left_out;                  /* lines since then */
};

/* Agents whose callers' files are measured now. Together far less than PROC_CONNECTIONS_MAX: what
 * is not measured is answered at once. */
#define HOST_MEASURING_MAX  4
#define HOST_MEASURING_WAIT 4
struct host_measuring {
    char agents[HOST_MEASURING_MAX][AGENT_NAME_MAX + 1]; /* "": a free place */
    size_t waiting;
};

/* What attestd-tokend reported last, for status (token.c). */
struct host_token {
    int64_t at_ms, at; /* when; 0: never */
    char version[65];
    int64_t started_at;
    uint64_t connections, strangers, accepted, refused, signatures, refusals, died, left_out;
    struct host_token_agent {
        char name[AGENT_NAME_MAX + 1];
        uint32_t connections, changed;
    } * agents;
    size_t n_agents;
};

/* The client of one thread, made anew when the issuer's address or the account changed. */
struct host_client {
    struct acme_client *acme;
    uint64_t generation;
};

/* A next key that waits, as keyd described it. */
struct host_spare {
    char agent[AGENT_NAME_MAX + 1];
    struct proc_key key;
};

/* A log as it was when it was collected: one that grows begins with it later on. */
struct host_log_seen {
    char name[EVIDENCE_LOG_NAME_LEN];
    uint64_t length;
    uint8_t sha256[ATT_SHA256_LEN];
};
#define HOST_LOGS_SEEN   32
#define HOST_QUOTE_TRIES 3 /* of one statement: logs that grow while the TPM quotes */

struct host {
    const struct host_options *opts;
    struct host_paths paths;
    int lock_fd, wake_fd;
    atomic_bool stop;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* work for the workers, or for the host thread */
    /* Around writing an agent's record; agents share them by their names' hash, so that syncs of
     * different agents go on side by side. */
    pthread_mutex_t save_locks[HOST_SAVE_LOCKS];

    pthread_mutex_t freeze_lock; /* around freezing and thawing; taken before lock */
    uint64_t freeze_seq;         /* under freeze_lock: counts them */

    /* under lock from here on */
    struct conf_attestd *conf;
    struct conf_attestd **old_confs; /* still read by other threads; freed at the end */
    size_t n_old_confs;
    struct host_record rec;
    enum host_phase phase;
    bool enrol_wanted;             /* a new AK record is needed */
    bool nudge;                    /* the host thread shall look again at once */
    bool keyd_back;                /* keyd was away: is it another one? */
    struct agent_error last_error; /* of the host thread */
    struct agent_registry *reg;
    struct host_spare *spares;
    size_t n_spares;
    STACK_OF(X509) * bundle;
    struct host_crls crls;
    json_t *token_view;                   /* host_tokens_view; NULL: none yet */
    struct host_federation *federation;   /* of the view in force; NULL: none yet */
    struct host_selectors *selectors;     /* of the view in force; NULL: none yet */
    struct host_local *local;             /* this host's own rules; never NULL once it runs */
    struct conf_acme_agents *acme_agents; /* read, and not in force yet; NULL: none */
    struct host_workload_counts workload_counts;
    struct host_measuring measuring;
    struct host_token token;
    struct att_buf ak_pem; /* AK certificate and its intermediate */
    struct host_given given;
    uint64_t view_version; /* of the view in force; older ones are refused */
    uint64_t view_kept;    /* the last one that was kept in full: what the issuer is told we have */
    char view_state[16];
    char trust_domain[256];
    char tls_group[32];
    int64_t last_contact_at; /* the issuer answered */
    int64_t clock_jump_ms, clock_jump_at;
    char boot_id[40];
    char command_line[EVIDENCE_COMMAND_LINE_MAX + 1]; /* the kernel's; empty: longer, or not read */
    struct agent_clock clock;
    int64_t tpm_p95_us; /* of one renewal: create, certify, quote, sign */
    struct host_log_seen logs_seen[HOST_LOGS_SEEN]; /* a ring */
    size_t next_log_seen;

    struct conf_acme_agents *acme_applied; /* host thread: those in force */
    int64_t acme_asked_ms;                 /* host thread: when the directory was fetched last */

    /* written by the host thread only, under lock */
    struct proc_account account;
    struct proc_identity identity;
    bool have_identity;
    int64_t identity_at_ms;                  /* CLOCK_BOOTTIME of the last look */
    char keyd_instance[PROC_KEY_ID_LEN + 1]; /* which keyd that was; "": none yet */
    uint64_t generation;                     /* of issuer and account key; 0: not known yet */

    /* set before any thread starts */
    struct proc_keyd *keyd;
    uid_t keyd_uid, tokend_uid, spiffed_uid;
    gid_t ipc_gid;                                /* 0: the own one */
    struct host_client clients[HOST_WORKERS + 2]; /* the last is tokens.c's */
    struct host_tokens *tokens;
    struct att_ctl_server *ctl;
    struct web_plain *metrics; /* NULL: none wanted */
    struct host_notes notes;   /* with a lock of its own */
    struct proc_caller *whod;
    struct proc_caller *measurer; /* whod again, for what may take long */
    struct proc_server *workload_server;
    struct proc_sandbox_report sandbox;
    int64_t started_at;
    bool swept; /* keys of unknown agents were looked for */

    pthread_t workers[HOST_WORKERS], host_thread;
    unsigned n_workers;
    bool host_thread_on;
};

/* paths.c */
ATT_MUST_USE enum att_rc host_paths_init(struct host_paths *paths, const struct conf_attestd *conf,
                                         struct att_err *err);
ATT_MUST_USE enum att_rc host_paths_make(const struct host_paths *paths, struct att_err *err);
void host_paths_done(struct host_paths *paths);
/* The only attestd of this state folder; ATT_E_EXISTS names the other's pid. */
ATT_MUST_USE enum att_rc host_lock_take(const char *path, int *ret_fd, struct att_err *err);

/* daemon.c: what attestd may reach from then on. Not keyd's folder, though state_dir and user are
 * the same. */
ATT_MUST_USE enum att_rc host_sandbox_enter(struct host *host, struct att_err *err);
/* Can attestd run with conf as it is? ATT_E_CONFLICT for what only a restart can change. */
ATT_MUST_USE enum att_rc host_reload_check(const struct host *host, const struct conf_attestd *conf,
                                           struct att_err *err);

/* errors.c */
void host_error_note(struct agent_error *ret_error, const struct att_err *err);
/* The number of the newest error noted: those after it have a greater one. */
uint64_t host_error_newest(void);
uint32_t host_random(void);

/* given.c */
/* The ticket that was given, else the configured one (host_ticket_load). ret_n: what to tell
 * host_given_drop; 0: not given. */
ATT_MUST_USE enum att_rc host_ticket_get(struct host *host, struct host_ticket *ret_ticket,
                                         uint64_t *ret_n, struct att_err *err);
/* It was used (refused NULL: whichever is there), or the issuer refused number n. */
void host_given_drop(struct host *host, uint64_t n, const struct att_err *refused);
/* Takes a ticket's text and waits, not without end, for what comes of it. ATT_E_PARSE
 * ticketMalformed; ATT_E_CONFLICT alreadyEnrolled, issuerOther; ATT_E_DENIED with the issuer's
 * reason; ATT_E_TIMEOUT: attestd goes on with it. */
ATT_MUST_USE enum att_rc host_given_enrol(struct host *host, struct att_slice text,
                                          json_t **ret_result, struct att_err *err);

/* client.c: which issuer, and a client for one thread */
struct host_issuer {
    char url[HOST_URL_MAX + 1];
    char ca_file[4096]; /* or */
    bool has_pin;
    uint8_t ca_sha256[ATT_SHA256_LEN];
    char ca_sha256_hex[65];
    /* What was given; ca_file and has_pin may be of what was learned since (trust.h). */
    char given_file[4096];
    bool given_pin, learned;
    /* Another server than an attest-issuerd: url is its directory's, and this many bytes of it are
     * scheme, host and port. 0: an attest-issuerd */
    size_t origin_len;
};
/* From the configuration, else the ticket, else what was enrolled with. ATT_E_NOTFOUND, reason
 * "issuerUnknown". */
ATT_MUST_USE enum att_rc host_issuer_get(struct host *host, struct host_issuer *ret_issuer,
                                         struct att_err *err);
/* Forgets what an earlier, other issuer had said, when the configuration names another now. */
ATT_MUST_USE enum att_rc host_issuer_check(struct host *host, struct att_err *err);
/* The thread's client (slot 0 … HOST_WORKERS), with the current account. */
ATT_MUST_USE enum att_rc host_client_get(struct host *host, unsigned slot,
                                         struct acme_client **ret_client, struct att_err *err);
void host_clients_cancel(struct host *host, bool cancel);
void host_clients_free(struct host *host);
/* Notes group and time of contact. */
void host_client_heard(struct host *host, const struct acme_client *client);

/* logs.c */
/* The logs that the issuer wants and this host has; one that begins with what the issuer knows has
 * that as its base. */
ATT_MUST_USE enum att_rc host_logs_collect(struct host *host, const struct acme_wanted *wanted,
                                           struct evidence_logs *ret_logs, struct att_err *err);
/* Reads systemd's and IMA's logs again after a quote with these values ("pcrs" of the wire): what
 * they have grown by becomes their tails. *ret_again: they do not lead to the quoted values (an
 * entry was listed and not extended yet, or the tail is too long), so quote again, at most
 * HOST_QUOTE_TRIES times in all; a verdict is for the issuer. ATT_E_RETRY: a log is no longer what
 * was signed. */
ATT_MUST_USE enum att_rc host_logs_read_again(struct host *host, struct evidence_logs *logs,
                                              const json_t *pcrs, bool *ret_again,
                                              struct att_err *err);

/* enrol.c: one round of the host thread's work up to an AK record; ATT_OK when there is one */
ATT_MUST_USE enum att_rc host_keyd_ready(struct host *host, struct att_err *err);
ATT_MUST_USE enum att_rc host_account_ready(struct host *host, struct acme_client *client,
                                            struct att_err *err);
ATT_MUST_USE enum att_rc host_save_record(struct host *host, struct att_err *err);
bool host_enrol_needed(struct host *host);
/* False while an issuance is under way: it speaks of the AK record that there is, and what the
 * issuer answers to it must not be taken for a word on the next one. None begins from now on. Under
 * lock. */
bool host_enrol_may_begin(struct host *host);
/* Waits until it may; ret_why: why it is needed. ATT_E_GONE when attestd stops. */
ATT_MUST_USE enum att_rc host_enrol_begin(struct host *host, const char **ret_why,
                                          struct att_err *err);
ATT_MUST_USE enum att_rc host_enrol(struct host *host, struct acme_client *client,
                                    struct att_err *err);
/* Forgets the account or the AK record; the host thread makes it anew. */
void host_want_enrolment(struct host *host);
void host_account_lost(struct host *host);

/* acme.c: another server than an attest-issuerd: no enrolment, no view, no revocation list. */
bool host_acme_on(struct host *host);
/* Agents read anew: in force with the next round. Takes them over. Under lock. */
void host_acme_agents_put(struct host *host, struct conf_acme_agents *agents);
/* At start: who callers are, from the file alone. */
ATT_MUST_USE enum att_rc host_acme_start(struct host *host, struct att_err *err);
/* In place of round_of_host, once keyd is ready. */
ATT_MUST_USE enum att_rc host_acme_round(struct host *host, struct att_err *err);
/* The account's binding, as the server's operator gave it. ATT_E_NOTFOUND, reason eabMissing. */
ATT_MUST_USE enum att_rc host_acme_bind(struct host *host, struct acme_client *client,
                                        bool eab_required, struct att_err *err);
/* What such a server does not give, by name: a JSON list of words; doctor's checks. */
json_t *host_acme_lacks(void);
void host_acme_doctor(json_t *checks);
/* acme_ak.c: the AK's certificate for x5c, from the attestation CA or the file; ATT_OK: it is there
 * and good. Host thread. */
ATT_MUST_USE enum att_rc host_acme_ak(struct host *host, struct att_err *err);

/* tokens_serve.c: TOKEN and JWT_BUNDLE for spiffed; the control socket's "token" */
ATT_MUST_USE enum att_rc host_tokens_answer(struct host *host, const struct proc_op *op,
                                            const struct proc_value *v, struct att_buf *ret_payload,
                                            struct att_err *err);
ATT_MUST_USE enum att_rc host_tokens_control(struct host *host, const char *agent,
                                             const json_t *args, json_t **ret_result,
                                             struct att_err *err);

/* viewing.c */
ATT_MUST_USE enum att_rc host_view_load(struct host *host, struct att_err *err);
/* A view that the issuer sent: judged, put in force, kept. What could not be kept in full is asked
 * for again (view_kept): who has it not on his disk does not say that he has it. */
ATT_MUST_USE enum att_rc host_view_accept(struct host *host, struct att_slice text,
                                          struct att_err *err);
ATT_MUST_USE enum att_rc host_view_poll(struct host *host, struct acme_client *client, int wait_s,
                                        struct att_err *err);

/* issue.c, install.c, dump.c: what a worker does for one agent */
struct host_evidence { /* what the last accepted evidence of an order was */
    struct proc_key_evidence made;
    struct att_buf statement; /* CBOR */
    struct att_buf spki;      /* of a key that no TPM speaks for; else empty */
    struct evidence_logs logs;
    struct att_buf key_authorization;
    struct host_measured measured;
};
void host_evidence_done(struct host_evidence *evidence);
void host_agent_work(struct host *host, unsigned slot, const char *name);
/* Asks the issuer when certificates should be renewed (RFC 9773), of those whose time to be asked
 * for has come, or of all (at_once); what should be is renewed as agent rotate would. Host thread.
 * What fails is asked again later. */
/* RFC 9773 §5: which certificate the agent's next order replaces; false: none, or the issuer has no
 * renewal information. */
bool host_renewal_replaces(struct host *host, struct acme_client *client,
                           const struct agent_record *rec, char ret[ACME_CERT_ID_LEN]);
/* Whether an order was refused for a reason that `replaces` may be: an order of before is alive, or
 * the certificate is of another account, or not on record any more. It may be ordered without. */
bool host_renewal_refused(struct acme_client *client);
void host_renewal_poll(struct host *host, struct acme_client *client, bool at_once);

/* Checks a downloaded chain in full; info and the boot policy's name for the record. */
ATT_MUST_USE enum att_rc host_chain_check(struct host *host, struct att_slice pem,
                                          const struct agent_record *rec, struct att_slice spki,
                                          struct certs_cert_info *ret_info, char *ret_boot,
                                          size_t boot_size, struct att_err *err);
/* pkcs11:… for key.uri. */
ATT_MUST_USE enum att_rc host_key_uri(const char *key_id, struct att_buf *ret, struct att_err *err);
/* Takes the chain out of service; a copy is kept in withdrawn/. */
ATT_MUST_USE enum att_rc host_chain_withdraw(struct host *host, const char *name,
                                             struct att_err *err);
/* Writes the files aside; show puts them in place of those of the issuance before; tidy removes
 * what is not in place. One at a time for an agent. */
ATT_MUST_USE enum att_rc host_evidence_write(struct host *host, const char *name,
                                             const struct host_evidence *evidence,
                                             struct att_err *err);
ATT_MUST_USE enum att_rc host_evidence_show(struct host *host, const char *name,
                                            struct att_err *err);
void host_evidence_tidy(struct host *host, const char *name);
/* All of it: the agent is not this host's any more. */
ATT_MUST_USE enum att_rc host_evidence_remove(struct host *host, const char *name,
                                              struct att_err *err);

/* A quote over the operator's nonce; the files as base64url members, as evidence dumps name them.
 * ret_extra_hex: 65 characters of room. */
ATT_MUST_USE enum att_rc host_user_quote(struct host *host, struct att_slice nonce,
                                         const char *pcr_selection, json_t **ret_files,
                                         char *ret_extra_hex, struct att_err *err);

/* agents.c: agents' records on disk and in memory */
ATT_MUST_USE enum att_rc host_agents_load(struct host *host, struct att_err *err);
/* Applies a view's entries and writes down what changed. */
ATT_MUST_USE enum att_rc host_agents_sync(struct host *host, const struct host_view *view,
                                          struct att_err *err);
ATT_MUST_USE enum att_rc host_agent_save(struct host *host, const char *name, struct att_err *err);
/* Who writes an agent's record holds this from reading what to write until it is in place. */
pthread_mutex_t *host_save_lock(struct host *host, const char *name);
/* An event under the lock; ret_rec (may be NULL) gets the record after it. */
ATT_MUST_USE enum att_rc host_agent_event(struct host *host, const char *name,
                                          enum agent_event event, struct agent_record *ret_rec,
                                          struct att_err *err);
struct agent_now host_now(void);
/* What it has in service has to be taken away at this moment. Under lock. */
bool host_agent_expired(const struct agent *agent, struct agent_now now);
/* A retired key's certificate has ended, and keyd can be told. Under lock. */
bool host_agent_retires(const struct host *host, const struct agent *agent, struct agent_now now);
/* Something is to be done for this agent at this moment. Under lock. */
bool host_agent_ready(struct host *host, const struct agent *agent, struct agent_now now);
/* Until the next agent becomes ready, in ms; those that are wait for a worker, not for time. Under
 * lock. */
int64_t host_agents_wait_ms(struct host *host, struct agent_now now);

/* spare.c: each agent's next key, made ahead while nothing is due. It belongs to its agent: the
 * record of a valid agent names it (nextKeyId). */
bool host_spare_wanted(const struct host *host, const struct agent *agent,
                       struct agent_now now); /* under lock */
void host_spare_make(struct host *host, const char *name);
/* What keyd said of this key, if it is remembered; the caller's from then on. */
bool host_spare_take(struct host *host, const char *key_id, struct proc_key *ret_key);
/* Is the key of the store, the module and the type that the entry names? */
bool host_key_fits(const struct proc_key *key, const struct agent_record *rec);
/* Not used, not retired, and not older than the certificate's lifetime or a day. */
bool host_spare_fresh(const struct proc_key *key, const struct agent_record *rec);
void host_spare_forget(struct host *host, const char *agent);
void host_spare_drop(struct host *host, const char *agent); /* the same, under lock */
void host_spares_free(struct host *host);

/* keydwatch.c: notices at once that keyd ended and came back. In main's event loop. */
struct host_keydwatch;
ATT_MUST_USE enum att_rc host_keydwatch_new(struct host *host, struct event_base *base,
                                            struct host_keydwatch **ret_watch, struct att_err *err);
void host_keydwatch_free(struct host_keydwatch *watch);

/* freeze.c: keyd's list of frozen agents and the records */
/* Holds freeze_lock to the end of the scope, and counts. */
pthread_mutex_t *host_freeze_begin(struct host *host);
#define HOST_FREEZING(host)                                                                        \
    ATT_CLEANUP(host_lock_done)                                                                    \
    pthread_mutex_t *freezing_ __attribute__((unused)) = host_freeze_begin(host)
/* Before INFO is asked for. */
uint64_t host_freeze_seen(struct host *host);
/* keyd's list as INFO said it after seen: what a kill left half done is completed, to the frozen
 * side. Nothing when somebody froze or thawed meanwhile. */
void host_freeze_settle(struct host *host, const json_t *list, uint64_t seen);

/* pool.c */
ATT_MUST_USE enum att_rc host_threads_start(struct host *host, struct att_err *err);
void host_threads_join(struct host *host);
void host_set_phase(struct host *host, enum host_phase phase);
/* Keys of agents that are none of this host's are destroyed, once. Host thread. */
ATT_MUST_USE enum att_rc host_sweep_once(struct host *host, struct att_err *err);
/* Until host_wake, or ms passed. Under lock, which it gives up meanwhile. */
void host_wait(struct host *host, int64_t ms);
void host_wake(struct host *host);  /* main and the workers look again */
void host_nudge(struct host *host); /* the host thread begins a new round at once; under lock */

/* workload.c: which agent is a caller; run_dir/workload.sock */
ATT_MUST_USE enum att_rc host_workload_start(struct host *host, struct att_err *err);
/* All certificates' DER one behind the other in ders; items point into it. */
ATT_MUST_USE enum att_rc host_put_ders(const STACK_OF(X509) * certs, size_t max,
                                       struct att_buf *ders, struct att_slice *items, size_t *ret_n,
                                       struct att_err *err);
/* standing.c: WATCH, BUNDLE and CRL of workload_proto.h */
ATT_MUST_USE enum att_rc host_standing_answer(struct host *host, const struct proc_op *op,
                                              const struct proc_value *v,
                                              struct att_buf *ret_payload, struct att_err *err);
/* token.c: REPORT of workload_proto.h kept; shown (under lock) */
ATT_MUST_USE enum att_rc host_token_keep(struct host *host, const struct proc_value *v,
                                         struct att_err *err);
json_t *host_token_json(const struct host *host, struct agent_now now);
void host_token_done(struct host_token *token);
/* who.c: the control socket's "who" */
ATT_MUST_USE enum att_rc host_who(struct host *host, const json_t *args, json_t **ret_result,
                                  struct att_err *err);

/* control.c, status.c, doctor.c */
att_ctl_handler host_control;
ATT_MUST_USE enum att_rc host_status(struct host *host, json_t **ret_result, struct att_err *err);
/* The status's member "enrolment". Under lock. */
json_t *host_enrolment_json(const struct host *host);
/* One line of agent.list. Under lock. */
json_t *host_agent_json(const struct agent *agent, struct agent_now now);
json_t *host_time_json(int64_t utc_s); /* RFC 3339, or null for 0 */
json_t *host_error_json(const struct agent_error *error);
ATT_MUST_USE enum att_rc host_doctor(struct host *host, json_t **ret_result, struct att_err *err);
/* Of keyd's INFO the store "hsm", borrowed; NULL: this host has no HSM, and no key in one. */
const json_t *host_hsm_info(const json_t *keyd_info);
/* One line of it: appended to checks. mend only where it is not ok. doctor_tpm.c reads keyd's INFO.
 */
void host_doctor_add(json_t *checks, const char *name, bool ok, bool optional, const char *mend,
                     const char *fmt, ...) ATT_PRINTF(6, 7);
void host_doctor_tpm(json_t *checks, const json_t *info);
/* Who, beside root and this user, may open a TPM's device or its sibling (tpmrm0 and tpm0), as text
 * for people; empty: nobody. */
void host_device_others(const char *path, uid_t keyd_uid, char *ret, size_t room);

static inline void host_lock_done(pthread_mutex_t **mutex)
{
    pthread_mutex_unlock(*mutex);
}
/* Holds the lock to the end of the scope. */
#define HOST_LOCKED(host)                                                                          \
    ATT_CLEANUP(host_lock_done) pthread_mutex_t *locked_ = &(host)->lock;                          \
    pthread_mutex_lock(locked_)

#endif
