/* What the issuer's files share: the issuer, its settings, one call, and small helpers. */
#ifndef PROVISION_ISSUER_CONTEXT_H
#define PROVISION_ISSUER_CONTEXT_H

#include "attestd/base/clock.h"
#include "attestd/base/ctl.h"
#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "attestd/base/json.h"
#include "attestd/base/log.h"
#include "attestd/base/secret.h"
#include "attestd/conf/entries.h"
#include "attestd/conf/issuer_conf.h"
#include "provision/acme/keys.h"
#include "provision/acme/nonce.h"
#include "provision/acme/objects.h"
#include "provision/audit/log.h"
#include "provision/issuer/issuer.h"
#include "provision/store/store.h"
#include "provision/verify/agent.h"
#include "provision/verify/enrol.h"
#include "provision/verify/findings.h"

#include <pthread.h>
#include <stdatomic.h>

#define ISSUER_ID_LEN         27 /* 19 random bytes as base64url, and a NUL */
#define ISSUER_BODY_MAX       ((size_t)8 << 20)
#define ISSUER_PLAIN_BODY_MAX ((size_t)272 << 10) /* where no logs are: an M1 as base64url */
#define ISSUER_HEADERS_MAX    16384
#define ISSUER_AK_PENDING_S   120 /* how long M1's challenge can be answered */
#define ISSUER_ORDER_S        300 /* life of a token, and of a ready order after its verdict */
#define ISSUER_WAIT_MAX_S     60
#define ISSUER_WAITING_MAX    4   /* requests of one account that wait, in a thread */
#define ISSUER_MEMO_PLACES    256 /* about 4 KiB each */
/* What one account may ask for in a time without getting it; beyond that, 429. Each leaves a row
 * and its evidence. */
#define ISSUER_ENTRY_GONE          (-1) /* an order's entry_version: no entry has it */
#define ISSUER_RECENT_S            600
#define ISSUER_RECENT_REFUSALS     512
#define ISSUER_RECENT_CHANGES      16   /* of the account itself */
#define ISSUER_RECENT_TOKENS       8192 /* of one host; each leaves a record */
#define ISSUER_RECENT_REVOCATIONS  64   /* by one account or key; each makes a new list */
#define ISSUER_RECENT_REFUSED_LOGS 8    /* refused statements whose logs are kept */
#define ISSUER_RECENT_STEP_AKS     16   /* AK certificates of one host by attestation-ca/ */
#define ISSUER_RECENT_NEW_LOGS     64   /* logs not seen before, of up to 4 MiB each */
#define ISSUER_TAILS_FREE          8192 /* bytes of tails that a statement may have beside that */
/* A refused M1 is kept up to this; beyond, and for what it says besides, there is its digest. */
#define ISSUER_REFUSED_M1_MAX ((size_t)16 << 10)

struct issuer_ca;
struct issuer_dns_ca;
struct issuer_http01;
struct issuer_dns_seen;
struct issuer_server;
struct issuer_crls;
struct issuer_limit;
struct issuer_policies;
struct issuer_allowlists;
struct issuer_entries;
struct issuer_claim;
struct issuer_who;
struct issuer_admin_auth;
struct issuer_jwt;
struct issuer_federation;
struct issuer_log_tpm;

/* What the main loop saw last (metrics.h). */
enum issuer_health {
    ISSUER_HEALTH_STARTING = 0,
    ISSUER_HEALTH_OK,
    ISSUER_HEALTH_STORE,
    ISSUER_HEALTH_CA,
    ISSUER_HEALTH_LOG,
    ISSUER_HEALTH_TOKENS
};

/* The part of the configuration that SIGHUP replaces; counted, immutable after load. */
struct issuer_settings {
    atomic_int refs;
    struct conf_issuer *conf;
    struct certs_ek_store *ek_roots;
    struct verify_deny *deny;
    size_t n_deny;
    struct issuer_admin_auth *admin; /* NULL: nobody is known over HTTPS */
};

struct issuer_counters {
    atomic_llong requests, refused, issued, connections;
};

struct issuer {
    char *config_path;
    char *base_url, *base_path; /* "https://host/acme", "/acme" */
    char *trust_domain, *state_dir, *run_dir, *store_spec;
    struct issuer_settings *settings; /* under lock; issuer_settings_get */
    pthread_mutex_t lock;
    struct store *store;
    struct issuer_ca *ca;
    struct issuer_crls *crls;
    struct issuer_jwt *jwt;               /* NULL: no tokens since the start */
    struct issuer_federation *federation; /* while serving */
    struct issuer_dns_ca *dns_ca;         /* NULL: no certificates for DNS names since the start */
    struct issuer_http01 *http01;         /* likewise */
    char *workload_alternate, *dns_alternate; /* further chains, PEM; NULL: none */
    struct acme_nonces *nonces;
    struct acme_keys *keys;      /* of accounts, by their JWK */
    struct acme_keys *cert_keys; /* of agents' certificates, by their PEM */
    struct issuer_limit *limit;
    struct verify_memo *memo; /* IMA lists that were replayed */
    struct issuer_policies *policies;
    struct issuer_allowlists *allowlists;
    struct issuer_entries *entries;
    struct issuer_counters counters;
    atomic_llong view_version;
    int64_t (*clock)(void); /* UTC seconds; tests set their own */
    int64_t started_at;
    struct issuer_server *server; /* while serving */
    int wake_fd;                  /* eventfd of the main loop */
    int lock_fd;                  /* state_dir/lock, held while serving; else -1 */
    atomic_int stop, reload;
    /* Intents that somebody is working on; who finds another's waits for claim_gone. */
    pthread_mutex_t claim_lock;
    pthread_cond_t claim_gone;
    struct issuer_claim *claims;
    atomic_int intents_left;          /* there are intents to complete that no thread has */
    struct issuer_dns_seen *dns_seen; /* main thread: what was under way at the last look */
    int64_t dns_look_ms;
    int64_t intent_look_ms; /* main thread: when a shared store's intents were last looked at */
    int64_t intent_try_ms, intent_pause_ms; /* main thread: when next, by the boot clock */
    /* Main thread: what audit.head says; whether it has to be written anew (it was gone or did not
     * fit at start), or never again, since the log no longer continues it. */
    struct store_audit written_head;
    bool head_missing, head_broken;
    struct audit_log *log; /* main thread publishes; log_broken: until a restart it does not */
    atomic_bool log_broken;
    struct issuer_log_tpm *log_tpm; /* main thread; NULL: no TPM signs the log */
    atomic_bool log_waits;          /* published last with a failure that may pass */
    int64_t log_ms;                 /* main thread: published last, by the boot clock */
    atomic_llong log_published, log_published_at; /* how many, and when it last was all */
    atomic_int health;                            /* enum issuer_health */
    atomic_llong turned_ms; /* when the main loop looked last, by the boot clock; 0: not yet */
    atomic_bool draining;
    bool status_changed; /* main thread: what systemd is told is no longer so */
};

struct issuer_settings *issuer_settings_get(struct issuer *issuer); /* counted */
void issuer_settings_put(struct issuer_settings *settings);
void issuer_settings_cleanup(struct issuer_settings **settings);
#define issuer_autosettings ATT_CLEANUP(issuer_settings_cleanup) struct issuer_settings

/* Reads the configuration whole; every error it has stands in the log. */
ATT_MUST_USE enum att_rc issuer_settings_load(const char *path,
                                              struct issuer_settings **ret_settings,
                                              struct att_err *err);
/* Opens everything but listens on nothing; tests drive issuer_handle with it. */
ATT_MUST_USE enum att_rc issuer_open(const char *config_path, struct issuer **ret_issuer,
                                     struct att_err *err);

/* ---- one request
 * ---------------------------------------------------------------------------------- */

enum issuer_method { ISSUER_GET, ISSUER_HEAD, ISSUER_POST, ISSUER_OTHER };

struct issuer_request {
    enum issuer_method method;
    const char *path; /* raw, as in the request line, without query */
    const char *content_type, *if_none_match, *prefer;
    struct att_slice body;
    const char *peer; /* the address that it came from, as text; NULL: not known */
};

struct issuer_response {
    int status;
    char phrase[40];          /* HTTP/1.1's reason phrase; "": the status's own */
    const char *content_type; /* static; NULL: no body */
    struct att_buf body;
    char nonce[ACME_NONCE_TEXT]; /* "" = none */
    char location[ACME_URL_MAX];
    char etag[32];
    char up[ACME_URL_MAX];        /* Link rel="up" */
    char alternate[ACME_URL_MAX]; /* Link rel="alternate" */
    const char *allow;            /* 405 */
    int retry_after_s;            /* 0 = none */
    char request_id[40];          /* also in the log, the problem and the decision record */
    const char *resource;         /* static: what was asked for, for metrics */
    const char *cache;            /* Cache-Control; NULL: no-store */
    /* hostView with Prefer: wait: the server keeps the request until the view is newer than
     * hold_version or hold_s passed, then calls issuer_view_answer. */
    int hold_s;
    int64_t hold_version;
    char hold_host[VERIFY_ID_HEX], hold_account[ACME_THUMBPRINT_LEN];
};
void issuer_response_done(struct issuer_response *response);

/* Answers any request; never fails: what goes wrong is a problem document. Thread-safe. */
void issuer_handle(struct issuer *issuer, const struct issuer_request *request,
                   struct issuer_response *ret_response);

/* An authenticated POST on its way through a handler. */
struct issuer_call {
    struct issuer *issuer;
    struct issuer_settings *settings;
    const struct issuer_request *request;
    struct issuer_response *response;
    struct acme_jws jws;
    struct store_account account;
    const char *id;              /* the path's last part, for routes that have one */
    struct acme_problem problem; /* when a handler wants its own; else made from the error */
    bool has_problem;
    bool
        uncounted; /* a refusal that is not the account's fault: "replaces", which a client drops */
    int64_t now;
};

typedef enum att_rc (*issuer_handler)(struct issuer_call *call, struct att_err *err);

/* Handlers, one a route. */
enum att_rc issuer_new_account(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_account(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_account_orders(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_new_attestation_key(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_attestation_key(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_new_order(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_order(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_authz(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_challenge(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_finalize(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_certificate(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_alternate(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_host_view(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_dns_order(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_dns_authz(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_dns_challenge(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_dns_finalize(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_device_order(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_device_authz(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_device_challenge(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_device_finalize(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_key_change(struct issuer_call *call, struct att_err *err);
enum att_rc issuer_revoke_cert(struct issuer_call *call, struct att_err *err);

/* ---- helpers
 * ---------------------------------------------------------------------------------------- */

/* A problem document without a call. */
void issuer_refuse_plain(struct issuer_response *response, int status, enum acme_problem_type type,
                         const char *text);
/* Of an error that is no refusal: what the peer is told of our own troubles. */
void issuer_refuse_err(struct issuer_response *response, const struct att_err *err);
/* The account as it is now, as the answer. */
ATT_MUST_USE enum att_rc issuer_account_reload(struct issuer_call *call, struct att_err *err);
/* A refusal with its word. */
enum att_rc issuer_refuse(struct att_err *err, enum att_rc rc, const char *reason, const char *fmt,
                          ...) ATT_PRINTF(4, 5);
/* The problem of a call, with type, the reason as a subproblem (may be NULL) and sentence. Returns
 * ATT_E_DENIED. */
enum att_rc issuer_problem(struct issuer_call *call, struct att_err *err,
                           enum acme_problem_type type, const char *reason, const char *fmt, ...)
    ATT_PRINTF(5, 6);
/* Puts a JSON body (taken over) and a status into the response. */
enum att_rc issuer_reply(struct issuer_call *call, int status, json_t *body, struct att_err *err);
/* rateLimited, when the account made too many orders (or AK records) of late. */
ATT_MUST_USE enum att_rc issuer_check_rate(struct issuer_call *call, struct store_tx *tx,
                                           struct att_err *err);
/* The same of the host, whose accounts may change; counts this order. */
ATT_MUST_USE enum att_rc issuer_check_host_rate(struct issuer_call *call,
                                                const struct store_host *host, struct att_err *err);
ATT_MUST_USE enum att_rc issuer_new_id(char ret[ISSUER_ID_LEN], struct att_err *err);
/* "<base>/<noun>/<id>", malloc'd. */
char *issuer_url(const struct issuer *issuer, const char *noun, const char *id);
/* The id in such a URL; NULL when it is not one. */
const char *issuer_url_id(const struct issuer *issuer, const char *noun, const char *url);
/* Replaces a heap string; false without memory. */
bool issuer_set(char **text, const char *value);
/* A buffer's content as malloc'd text; NULL where a write was lost. The buffer is empty then. */
char *issuer_steal_text(struct att_buf *text);
/* "firmware,ima" ↔ names; the set of VERIFY_LOG_* bits. */
char *issuer_logs_join(char *const *names, size_t n);
uint32_t issuer_logs_bits(const char *joined);
ATT_MUST_USE enum att_rc issuer_wanted(const char *pcr_selection, const char *logs,
                                       const json_t *known, struct acme_wanted *ret_wanted,
                                       struct att_err *err);
json_t *issuer_time_json(int64_t utc_s); /* RFC 3339 text; null for 0 */
/* A record's JSON text as an object; an empty object where it is empty or damaged. */
json_t *issuer_json(const char *text);
char *issuer_json_text(const json_t *json);
const char *issuer_string(const json_t *object, const char *name); /* "" when absent */

#define issuer_autofree ATT_CLEANUP(issuer_free_text) char
void issuer_free_text(char **text);

enum issuer_limit_kind {
    ISSUER_LIMIT_REFUSALS,
    ISSUER_LIMIT_CHANGES,
    ISSUER_LIMIT_REFUSED_LOGS,
    ISSUER_LIMIT_NEW_LOGS,
    ISSUER_LIMIT_REVOCATIONS,
    ISSUER_LIMIT_HOST_ORDERS, /* those from here on as who asks says */
    ISSUER_LIMIT_HOST_TOKENS,
    ISSUER_LIMIT_HOST_STEP, /* AK certificates of the attestation CA's endpoints */
    ISSUER_LIMIT_ADDRESS_REQUESTS,
    ISSUER_LIMIT_ADDRESS_ACCOUNTS,
    ISSUER_LIMIT_ADDRESS_STEP,   /* messages to the attestation CA's endpoints */
    ISSUER_LIMIT_ADMIN_REFUSALS, /* records of them, by identity or address */
    ISSUER_LIMITS                /* how many */
};
/* Whether this one did it this many times within ISSUER_RECENT_S already; if not, it is counted. */
bool issuer_limit_take(struct issuer_limit *limit, enum issuer_limit_kind kind, const char *who,
                       unsigned most, int64_t now);
/* A source as it is counted: an IPv4 address, of IPv6 the /64; "" when address is NULL. */
#define ISSUER_SOURCE_LEN 48
void issuer_limit_source(const char *address, char ret[ISSUER_SOURCE_LEN]);
/* The same of a source address: IPv6 by its /64. most 0, or an address not known: never. */
bool issuer_limit_take_address(struct issuer_limit *limit, enum issuer_limit_kind kind,
                               const char *address, unsigned most, int64_t now);
/* Whether this account did it ISSUER_RECENT_… times within ISSUER_RECENT_S. */
struct issuer_limit *issuer_limit_new(void); /* NULL without memory */
void issuer_limit_free(struct issuer_limit *limit);
bool issuer_limit_reached(struct issuer_limit *limit, enum issuer_limit_kind kind,
                          const char *account, int64_t now);
void issuer_limit_count(struct issuer_limit *limit, enum issuer_limit_kind kind,
                        const char *account, int64_t now);

/* ---- the audit log
 * ------------------------------------------------------------------------------------ */

/* Appends record (taken over; NULL is a failure). ret_digest (may be NULL): hex SHA-256 of its
 * text. */
ATT_MUST_USE enum att_rc issuer_audit(struct store_tx *tx, int64_t now, json_t *record,
                                      char ret_digest[65], struct att_err *err);
/* {"kind", "outcome", "reason", "detail", "subject"}; empty texts are left out. */
json_t *issuer_record(const char *kind, const char *outcome, const char *reason, const char *detail,
                      const char *subject);
/* At start: makes the first signed head, or looks at the one that is there. */
ATT_MUST_USE enum att_rc issuer_audit_start(struct issuer *issuer, struct att_err *err);
/* Writes audit.head when the chain has grown since; main thread. */
ATT_MUST_USE enum att_rc issuer_audit_save_head(struct issuer *issuer, struct att_err *err);
/* Chain and signed head; the refusal's reason says what was found. */
ATT_MUST_USE enum att_rc issuer_audit_verify(struct issuer *issuer, json_t **ret_result,
                                             struct att_err *err);

/* The log that the world can check (provision/audit). At start: opens it, refusing a database that
 * does not continue what was published. */
ATT_MUST_USE enum att_rc issuer_log_start(struct issuer *issuer, struct att_err *err);
/* The name of a log that begins now. */
char *issuer_log_origin(const char *base_url, int64_t now);
/* Publishes what was decided since; at_end: all of it. Main thread; says itself what goes wrong. */
void issuer_log_tick(struct issuer *issuer, bool at_end);
/* GET <base>/log/…: rest is what follows "log/". False: there is no such thing. */
bool issuer_log_get(struct issuer *issuer, const char *rest, struct issuer_response *response);

/* ---- hosts
 * --------------------------------------------------------------------------------------------- */

/* Which host a TPM is that comes with this EK and lists others. */
struct issuer_tpm {
    const char *ek;       /* EK id it enrols with */
    const json_t *others; /* array of further EK ids it listed */
    const char *ak_name;  /* hex */
    bool certified;       /* an EK certificate says that ek is a TPM's */
    /* Set by issuer_host_resolve: a banned host that claims one of these EKs without having proved
     * it; "" when there is none. Only an operator can tell a liar's victim from the banned TPM. */
    char disputed[VERIFY_ID_HEX];
};
/* ATT_OK with ret_found false: a TPM never seen. hostBanned when any of its EKs was proved by (or
 * imported for) a banned host; hostUnknown when it lists an EK that another host proved, or, as a
 * host that enrolled before, one that it did not list then. */
ATT_MUST_USE enum att_rc issuer_host_resolve(struct store_tx *tx, struct issuer_tpm *tpm,
                                             struct store_host *ret_host, bool *ret_found,
                                             struct att_err *err);
/* hostBanned when a banned host lists this EK of another host, which no operator has approved since
 * (host.approve): it may be the banned TPM under its other EK. For those who tell only one EK. */
ATT_MUST_USE enum att_rc issuer_host_check_claims(struct store_tx *tx,
                                                  const struct store_host *host, const char *ek,
                                                  struct att_err *err);
/* Records that this host proved tpm->ek and listed the others. */
ATT_MUST_USE enum att_rc issuer_host_record_eks(struct store_tx *tx, const char *host,
                                                const struct issuer_tpm *tpm, struct att_err *err);
/* A new record with every text set. */
ATT_MUST_USE enum att_rc issuer_host_new(const char *id, const char *state, const char *ek_source,
                                         int64_t now, struct store_host *ret_host,
                                         struct att_err *err);
ATT_MUST_USE enum att_rc issuer_host_by_account(struct store_tx *tx, const char *thumbprint,
                                                struct store_host *ret_host, struct att_err *err);
/* AK records of the host end with this reason; its certificates are revoked. */
ATT_MUST_USE enum att_rc issuer_host_end(struct store_tx *tx, const char *host, const char *reason,
                                         int64_t now, int64_t *ret_revoked, struct att_err *err);
/* One AK record ends; one that has, or that is gone, stays as it is. */
ATT_MUST_USE enum att_rc issuer_ak_end(struct store_tx *tx, const char *id, const char *reason,
                                       struct att_err *err);
/* What TPM2_Clear leads to: AK records end, host pending, certificates revoked, audit record. The
 * row is that of this transaction: a host that was banned meanwhile stays banned, one that was
 * evicted stays gone. */
ATT_MUST_USE enum att_rc issuer_host_cleared(struct store_tx *tx, const char *host_id, int64_t now,
                                             struct att_err *err);
/* hostBanned, hostUnknown by the host's state. */
ATT_MUST_USE enum att_rc issuer_host_check(const struct store_host *host, struct att_err *err);
/* Of the host's notes, parsed: the clock of its last accepted statement; false when there is none.
 */
bool issuer_host_clock(const json_t *notes, struct verify_clock *ret_clock);
/* The same as JSON text, malloc'd: "" when there is none. */
char *issuer_host_clock_text(const struct store_host *host);
/* That of the statement by which this AK was enrolled (M2). */
struct verify_clock issuer_ak_clock(const struct store_ak *ak);
/* What a quote is compared with: the clock (text as above) when its token or challenge was made,
 * elapsed_s ago, since the quotes of several agents, or of an agent and an enrolment, may come in
 * another order than they were made; never one further back than that time allows; the present one
 * when the host was reset or has resumed since. False when the host has no clock. */
bool issuer_clock_then(const char *text, int64_t elapsed_s, const json_t *notes,
                       struct verify_clock *ret_clock);
bool issuer_clock_newer(const struct verify_clock *a, const struct verify_clock *b);
/* Sets clock, verdict (with its policy's findings; NULL: none) and known logs in a host's notes. */
void issuer_host_note(json_t *notes, const struct verify_clock *clock, const char *outcome,
                      const char *reason, const char *what, const json_t *logs,
                      const struct verify_verdict *verdict, int64_t now);
/* Puts the notes into the row, which was seen now. */
ATT_MUST_USE enum att_rc issuer_host_set_notes(struct store_host *host, const json_t *notes,
                                               int64_t now, struct att_err *err);
/* Every host with its own view of the world hears of a change. */
ATT_MUST_USE enum att_rc issuer_view_bump(struct store_tx *tx, struct att_err *err);
/* To be called after the commit of a bump: wakes those who wait. */
void issuer_view_wake(struct issuer *issuer);
/* The answer to a hostView request, now. ATT_E_DENIED when the host is not (any longer) the
 * account's: a request may have waited through a rebind. */
ATT_MUST_USE enum att_rc issuer_view_answer(struct issuer *issuer, const char *host,
                                            const char *account, int64_t if_newer_than,
                                            struct issuer_response *response, struct att_err *err);

/* An entry that was read; counted, never changed. */
struct issuer_entry {
    atomic_int refs;
    char *text;
    struct conf_entry *v;
};
#define ISSUER_ENTRIES_KEPT 256
struct issuer_entries *issuer_entries_new(void); /* NULL without memory */
void issuer_entries_free(struct issuer_entries *entries);
void issuer_entry_put(struct issuer_entry *entry);
void issuer_entry_cleanup(struct issuer_entry **entry);
#define issuer_autoentry ATT_CLEANUP(issuer_entry_cleanup) struct issuer_entry
/* What a row's text says. Errors as conf_entry_from_json. */
ATT_MUST_USE enum att_rc issuer_entry_read(struct issuer_entries *entries, const char *text,
                                           struct issuer_entry **ret_entry, struct att_err *err);
/* The entry of this agent name, checked to be assigned to this host (notAssigned). */
ATT_MUST_USE enum att_rc issuer_entry_for(struct issuer *issuer, struct store_tx *tx,
                                          const char *name, const struct store_host *host,
                                          struct store_entry *ret_entry,
                                          struct issuer_entry **ret_parsed, struct att_err *err);
/* A boot policy that was read; counted, never changed. */
struct issuer_policy {
    atomic_int refs;
    char *text;
    pthread_mutex_t binding; /* of its allow lists */
    struct verify_policy *v;
};
#define ISSUER_POLICIES_KEPT 16
struct issuer_policies *issuer_policies_new(void); /* NULL without memory */
void issuer_policies_free(struct issuer_policies *policies);
void issuer_policy_put(struct issuer_policy *policy);
void issuer_policy_cleanup(struct issuer_policy **policy);
#define issuer_autopolicy ATT_CLEANUP(issuer_policy_cleanup) struct issuer_policy
/* The boot policy by name; NULL for "none" and for one that is not there (policyMissing follows).
 * ATT_E_DENIED policyMissing: what is stored is not one that this version takes; the text says why.
 */
ATT_MUST_USE enum att_rc issuer_policy_get(struct issuer *issuer, struct store_tx *tx,
                                           const char *name, struct issuer_policy **ret_policy,
                                           struct att_err *err);
/* What a profile (or CONF_ENROLMENT) wants of its policy besides a name: who may sign it, as in the
 * settings, which must stay; and the mode, which an operator may have changed since. */
#define ISSUER_UNENFORCED " unenforced" /* in an order's policy: it had findings that refuse */
struct issuer_policy_use {
    const uint8_t (*signers)[ATT_SHA256_LEN];
    size_t n_signers;
    enum verify_mode mode;
};
ATT_MUST_USE enum att_rc issuer_policy_use(struct store_tx *tx, const struct conf_issuer *conf,
                                           const char *profile, struct issuer_policy_use *ret,
                                           struct att_err *err);
/* Sets a profile's mode, with its record; "default": the settings' again. */
ATT_MUST_USE enum att_rc issuer_policy_set_mode(struct store_tx *tx, const char *profile,
                                                const char *mode, const struct issuer_who *who,
                                                int64_t now, struct att_err *err);
/* Is it signed by one of these keys (none: by whomever, or not at all)? policyUnsigned,
 * policySigner.
 */
ATT_MUST_USE enum att_rc issuer_policy_signed_by(const struct verify_policy *policy,
                                                 const char *profile,
                                                 const uint8_t (*signers)[ATT_SHA256_LEN], size_t n,
                                                 struct att_err *err);
/* Is it signed as every profile that names it demands? policyUnsigned, policySigner. */
ATT_MUST_USE enum att_rc issuer_policy_signer_check(struct issuer *issuer,
                                                    const struct verify_policy *policy,
                                                    struct att_err *err);
/* Remembers in a host's notes which evidence the last judged quote of this host came with: kind
 * "m2" or "m4", its blob, how its logs are kept, by which policy it was judged. For dry runs. */
void issuer_host_evidence(json_t *notes, const char *kind, const char *sha256, const char *boot,
                          const json_t *logs, int64_t now);
/* Fills logs that came without data from the store, by how they were kept. */
ATT_MUST_USE enum att_rc issuer_logs_supply_kept(struct store_tx *tx, const json_t *kept_logs,
                                                 struct evidence_logs *logs, struct att_err *err);
/* How findings are told in the log, once; and in a host's notes: {"mode", "refusing", "findings"},
 * NULL where there are none. */
void issuer_policy_log(const struct verify_verdict *verdict, const char *host, const char *what);
json_t *issuer_policy_note(const struct verify_verdict *verdict);
/* Stores one (JSON text), when it is new or newer; ret_result as in docs/ADMIN.md. tx NULL: in a
 * transaction of its own. who NULL: the issuer itself. */
ATT_MUST_USE enum att_rc issuer_policy_apply(struct issuer *issuer, struct store_tx *tx,
                                             struct att_slice text, bool dry_run,
                                             const struct issuer_who *who, json_t **ret_result,
                                             struct att_err *err);
/* Allow lists of IMA that were read; found by their digest. */
#define ISSUER_ALLOWLISTS_KEPT 16
struct issuer_allowlists *issuer_allowlists_new(void); /* NULL without memory */
void issuer_allowlists_free(struct issuer_allowlists *lists);
/* Binds every allow list that the policy names. ATT_E_NOTFOUND with reason allowlistMissing: the
 * store does not have one, or not as what its digest says. */
ATT_MUST_USE enum att_rc issuer_allowlists_bind(struct issuer *issuer, struct store_tx *tx,
                                                struct verify_policy *policy, struct att_err *err);
/* Stores one, if it is not there; {"sha256", "entries", "bytes", "changed", "dryRun"}. tx NULL: in
 * a transaction of its own; who NULL: the issuer itself. */
ATT_MUST_USE enum att_rc issuer_allowlist_apply(struct issuer *issuer, struct store_tx *tx,
                                                struct att_slice text, const char *label,
                                                bool dry_run, const struct issuer_who *who,
                                                json_t **ret_result, struct att_err *err);
/* Applies every NAME.imalist of policies_dir, then every NAME.json; a folder that is not there is
 * fine. */
ATT_MUST_USE enum att_rc issuer_policies_import(struct issuer *issuer, const char *dir,
                                                struct att_err *err);
/* Reads them, and no more. */
ATT_MUST_USE enum att_rc issuer_policies_check(const char *dir, struct att_err *err);

/* ---- logs that come with quotes
 * --------------------------------------------------------------------------- */

struct evidence_logs;
/* notes: the host's, parsed (NULL: a host that is new). {"firmware": "<sha256>"} of what this host
 * sent last and the store still has. */
json_t *issuer_logs_known(struct store_tx *tx, const json_t *notes);
/* Fills logs that came without data from the store, if this host sent them before. */
ATT_MUST_USE enum att_rc issuer_logs_supply(struct store_tx *tx, const json_t *notes,
                                            struct evidence_logs *logs, struct att_err *err);
/* malformed, when there is one that was not asked for: "firmware,ima" was. */
ATT_MUST_USE enum att_rc issuer_logs_asked(const struct evidence_logs *logs, const char *asked,
                                           struct att_err *err);
/* Stores their bytes; {"firmware": "<sha256>"} for the record and for the host's notes. A log that
 * came behind a base that host has sent before is kept as one part more: {"ima": {"sha256",
 * "parts":
 * ["<sha256>"…]}}, the log is the parts one after the other. A log is one a boot, but not every
 * byte of it is in a PCR: of an account that sends ever new ones only so many are kept; the
 * statement has their digests. */
ATT_MUST_USE enum att_rc issuer_logs_keep(struct issuer_call *call, struct store_tx *tx,
                                          const json_t *notes, const struct evidence_logs *logs,
                                          json_t **ret_digests, struct att_err *err);

/* The same for a refusal: NULL when this account had logs of enough refusals kept of late. */
ATT_MUST_USE enum att_rc issuer_logs_keep_refused(struct issuer_call *call, struct store_tx *tx,
                                                  const json_t *notes,
                                                  const struct evidence_logs *logs,
                                                  json_t **ret_digests, struct att_err *err);
/* After the verdict and before the statement is kept: tails beyond ISSUER_TAILS_FREE bytes count as
 * a new log of this account, and are let go where it has had enough of those. */
void issuer_logs_bound_tails(struct issuer_call *call, struct evidence_logs *logs);
/* Their digests, for an encoder that leaves the bytes out; room for EVIDENCE_LOGS_MAX. */
size_t issuer_logs_digests(const struct evidence_logs *logs,
                           uint8_t (*ret_digests)[ATT_SHA256_LEN]);

/* Wakes the main loop; async-signal-safe. */
void issuer_poke(struct issuer *issuer);

/* ---- server, admin
 * ------------------------------------------------------------------------------------------ */

void issuer_server_wake(struct issuer_server *server);
json_t *issuer_server_groups(struct issuer_server *server);
enum att_rc issuer_admin(void *user, const struct att_ctl_peer *peer, const char *op,
                         const json_t *args, json_t **ret_result, struct att_err *err);

#endif
