/* The issuer's state: accounts, hosts, tickets, AK records, orders, certificates, entries,
 * policies, the audit chain and the evidence behind it. Typed records over provision/store/db.h.
 *
 * Everything happens in a transaction, which is a closure: store_run(store, true, fn, user, err)
 * commits when fn returns ATT_OK and rolls back otherwise, so nothing is ever half written. Any
 * thread may call it; writers take turns. A closure must not call store_run again.
 *
 * Records own their members: text is a malloc'd string (never NULL after a load), a blob is a
 * struct att_buf. store_record_done frees them. Times are UTC seconds. */
#ifndef PROVISION_STORE_STORE_H
#define PROVISION_STORE_STORE_H

#include "attestd/base/metrics.h"
#include "provision/store/db.h"

#define STORE_SCHEMA_VERSION 19

struct store;
struct store_tx;

/* Where a store is. spec: a path or "sqlite:PATH"; "postgres://…", "postgresql://…" or
 * "postgres:KEY=VALUE …" (provision/store/db.h). password_file: PostgreSQL's; may be NULL. */
struct store_place {
    const char *spec;
    const char *password_file;
};

typedef enum att_rc (*store_fn)(void *user, struct store_tx *tx, struct att_err *err);
/* Opens (an SQLite database is made where it is missing) and migrates to STORE_SCHEMA_VERSION; a
 * database from a newer version is refused (ATT_E_UNSUPPORTED). */
ATT_MUST_USE enum att_rc store_open_place(const struct store_place *place, struct store **ret_store,
                                          struct att_err *err);
ATT_MUST_USE enum att_rc store_open(const char *spec, struct store **ret_store,
                                    struct att_err *err);
void store_free(struct store *store);
/* Looks whether store_open_place would do, and changes nothing: a PostgreSQL server is asked, of an
 * SQLite file the first bytes are read. */
ATT_MUST_USE enum att_rc store_check(const struct store_place *place, struct att_err *err);
/* The same, and fn reads a shared store of this program's schema; of another one it is not called,
 * nor of an SQLite database, which nobody opens to look at. */
ATT_MUST_USE enum att_rc store_check_read(const struct store_place *place, store_fn fn, void *user,
                                          struct att_err *err);
/* By its spec: other processes may write to that store, too. */
bool store_spec_shared(const char *spec);
/* The path in an SQLite database's spec. */
const char *store_sqlite_path(const char *spec);
bool store_shared(const struct store *store);

ATT_MUST_USE enum att_rc store_run(struct store *store, bool write, store_fn fn, void *user,
                                   struct att_err *err);

/* The same for what may be lost without harm: others see it as soon as this returns, it outlives
 * this process and never comes apart, but a loss of power may take it back, as long as no store_run
 * that wrote has returned after it. Nobody waits for the disk. */
ATT_MUST_USE enum att_rc store_run_soft(struct store *store, store_fn fn, void *user,
                                        struct att_err *err);

/* ---- tables ---------------------------------------------------------------------------------- */

struct store_column {
    const char *name;
    enum store_type type;
    size_t offset; /* of an int64_t, a char * or a struct att_buf in the record */
    bool fixed;    /* what is inserted stays: a put never writes it (nor touches its indexes) */
};

/* columns[0] is the primary key. */
struct store_table {
    const char *name;
    const struct store_column *columns;
    size_t n_columns;
    size_t record_size;
};

extern const struct store_table store_accounts, store_hosts, store_host_eks, store_ek_claims,
    store_tickets, store_aks, store_orders, store_certs, store_entries, store_policies,
    store_allowlists, store_dns_orders, store_dns_authzs, store_renewals, store_authorities,
    store_issuers, store_proposals, store_admin_requests, store_step_pending, store_jwt_keys,
    store_federated;

void store_record_done(const struct store_table *table, void *record);
/* ATT_E_NOTFOUND when there is none; record must be zeroed and is filled only on success. */
ATT_MUST_USE enum att_rc store_get(struct store_tx *tx, const struct store_table *table,
                                   const char *key, void *ret_record, struct att_err *err);
/* The first record whose column has this text. */
ATT_MUST_USE enum att_rc store_find(struct store_tx *tx, const struct store_table *table,
                                    const char *column, const char *value, void *ret_record,
                                    struct att_err *err);
/* ATT_E_EXISTS when the key (or another unique column) is taken. */
ATT_MUST_USE enum att_rc store_insert(struct store_tx *tx, const struct store_table *table,
                                      const void *record, struct att_err *err);
/* Inserts, or replaces every column that is not fixed; ATT_E_INTERNAL if a fixed one differs from
 * what is there. */
ATT_MUST_USE enum att_rc store_put(struct store_tx *tx, const struct store_table *table,
                                   const void *record, struct att_err *err);
/* ATT_E_NOTFOUND when there is none. */
ATT_MUST_USE enum att_rc store_delete(struct store_tx *tx, const struct store_table *table,
                                      const char *key, struct att_err *err);
/* Each record in key order, or those whose column has this text (column may be NULL); the record is
 * freed after each call. Anything but ATT_OK from each ends the walk and is the result. */
typedef enum att_rc (*store_each_fn)(void *user, const void *record, struct att_err *err);
ATT_MUST_USE enum att_rc store_each(struct store_tx *tx, const struct store_table *table,
                                    const char *column, const char *value, store_each_fn each,
                                    void *user, struct att_err *err);

/* Account states. */
#define STORE_ACCOUNT_VALID       "valid"
#define STORE_ACCOUNT_DEACTIVATED "deactivated"

struct store_account {
    char *id;         /* last part of the account URL */
    char *thumbprint; /* RFC 7638, unique */
    char *jwk;        /* JSON */
    char *status;
    char *ticket;  /* kid of the EAB */
    char *eab;     /* the external account binding as sent, JSON */
    char *contact; /* JSON array */
    int64_t created_at;
};

#define STORE_HOST_PENDING  "pending"
#define STORE_HOST_APPROVED "approved"
#define STORE_HOST_BANNED   "banned"

struct store_host {
    char *id;     /* EK id of the EK it enrolled with (or was imported by) */
    char *label;  /* a name for people */
    char *labels; /* JSON object: {"zone": "trading"} */
    char *state;
    char *account;      /* thumbprint of its first M2's account; empty until then */
    char *reason;       /* why it is banned or pending */
    char *manufacturer; /* from the EK certificate */
    char *model;
    char *version;
    char *ek_source;     /* "certificate" | "inventory" */
    char *notes;         /* JSON object of further facts for status: last verdict, AK name … */
    char *registered_by; /* identity of who imported it or made its ticket; or empty */
    int64_t created_at, updated_at, seen_at;
    int64_t view_seen; /* the newest view that it is known to have; only while one is waited for */
};

/* In the order of their ids, at most limit of those behind after (NULL: from the start), in this
 * state (NULL: any). */
ATT_MUST_USE enum att_rc store_host_list(struct store_tx *tx, const char *after, const char *state,
                                         int64_t limit, store_each_fn each, void *user,
                                         struct att_err *err);
/* At most limit that have this label, or whose id begins with prefix (lowercase hex; NULL: none).
 */
ATT_MUST_USE enum att_rc store_host_called(struct store_tx *tx, const char *label,
                                           const char *prefix, int64_t limit, store_each_fn each,
                                           void *user, struct att_err *err);
/* Hosts by their state, and entries. */
struct store_counts {
    int64_t approved, pending, banned, entries;
};
ATT_MUST_USE enum att_rc store_counts(struct store_tx *tx, struct store_counts *ret_counts,
                                      struct att_err *err);

struct store_host_ek {
    char *ek;       /* an EK id */
    char *host;     /* the host it belongs to */
    int64_t proven; /* 1: this TPM activated a credential with it; 0: an operator named it */
};

/* A host's word that it has this EK, too; any host may say so of any EK. */
struct store_ek_claim {
    char *id; /* "<ek>@<host>" */
    char *ek, *host;
};

struct store_ticket {
    char *kid;
    struct att_buf mac_key;
    char *ek;    /* EK id it names, or empty */
    char *label; /* host label it gives, or empty */
    int64_t uses_left, expires_at, created_at;
    int64_t uses;     /* as issued */
    char *created_by; /* identity of who made it; or empty */
};

#define STORE_AK_PENDING "pending"
#define STORE_AK_VALID   "valid"
#define STORE_AK_ENDED   "ended"

struct store_ak {
    char *id;      /* last part of the AK URL */
    char *account; /* account id */
    char *ek;      /* EK id */
    char *host;    /* host id; empty until M2 */
    char *state;
    char *ended_reason;
    char *pcr_selection, *logs; /* asked for in M1: "sha256:0,1", "firmware,ima" */
    char *profile_boot;         /* boot policy the enrolment is judged by, or "none" */
    char *facts;                /* JSON: what M1 stated, for M2 and the record */
    char *cert;                 /* PEM; empty until M2 */
    char *clock;                /* JSON: the host's TPM clock when M1 was answered; or empty */
    struct att_buf secret;      /* K, until M2; then empty */
    struct att_buf nonce, pub, name, ek_pub;
    struct att_buf m1; /* M1's payload, until M2 moves it to the evidence */
    int64_t clock_ms, reset_count, restart_count, safe;
    struct att_buf firmware; /* 8 bytes, as attested */
    int64_t created_at, expires_at;
};

/* One order has exactly one identifier here, so order, authorization and challenge are one row. */
struct store_order {
    char *id; /* last part of the order, authorization and challenge URLs */
    char *account, *host, *ak;
    char *identifier_type, *identifier;
    char *profile;
    char *status;       /* RFC 8555 §7.1.6: pending ready processing valid invalid */
    char *chall_status; /* pending valid invalid */
    char *error;        /* problem document, JSON, or empty */
    char *token;
    char *pcr_selection, *logs;
    char *policy; /* "name/version" judged by, or "none" */
    char *entry;  /* entry name, or empty */
    int64_t entry_version;
    char *clock;    /* JSON: the host's TPM clock when the token was made */
    char *decision; /* hex hash of the verdict's audit record */
    char *cert;     /* id of the certificate */
    char *measured; /* of the verdict: "LEVEL/ROOT", or empty */
    char *authz;    /* "deactivated" when its account did that (RFC 8555 §7.5.2), or empty */
    char *replaces; /* RFC 9773: serial of the certificate that it is to replace, or empty */
    char *hsm;      /* of the verdict: the HSM module of its key, by the host's word, or empty */
    char *parent;   /* of the verdict: what opens the key's parent, or empty */
    struct att_buf key_spki; /* the certified key */
    int64_t created_at, expires_at, verdict_at;
};

/* An order for DNS names; each has an authorization with one http-01 challenge. */
struct store_dns_order {
    char *id;
    char *account;
    char *type;  /* of its identifiers: "dns", or "permanent-identifier" (then exactly one) */
    char *names; /* JSON array, lowercase, sorted, none twice */
    char *profile;
    char *status; /* RFC 8555 §7.1.6 */
    char *error;  /* problem document, JSON, or empty */
    char *cert;   /* id of the certificate */
    char *replaces;
    int64_t created_at, expires_at;
};

#define STORE_AUTHZ_PROCESSING "processing"

/* Authorization and challenge in one row. */
struct store_dns_authz {
    char *id;
    char *ord, *account;
    char *type; /* as in its order */
    char *name;
    char *status; /* pending, processing (its challenge is), valid, invalid, deactivated */
    char *token;
    char *error; /* problem document, JSON, or empty */
    /* Of a valid "permanent-identifier": what was proved. Else "". */
    char *host, *ak; /* host; serial number of the AK certificate that vouched */
    char *spki;      /* hex SHA-256 of the certified key's SubjectPublicKeyInfo */
    char *decision;  /* digest of the verdict's record */
    int64_t created_at, expires_at, validated_at;
};

/* A credential that was made by the attestation CA's endpoints and nobody has solved yet. */
struct store_step {
    char *secret;        /* hex SHA-256 of what was encrypted: the solution names the row */
    char *ek;            /* EK id */
    char *source;        /* who asked: an address, of IPv6 its /64; "" when not known */
    char *facts;         /* JSON: akName, manufacturer, model, version, claimed, ekCertSha256,
                          * verdict */
    struct att_buf spki; /* of the AK, DER */
    int64_t seq;         /* in the order of their making */
    int64_t created_at, expires_at;
};
/* Of an EK from one source the oldest gives way, and of an EK from all: who names a stranger's EK
 * drives its own requests out, unless it has STORE_STEP_OF_EK sources or more. */
#define STORE_STEP_OF_SOURCE 4
#define STORE_STEP_OF_EK     64
#define STORE_STEP_MAX       4096 /* of all */
/* Makes room for this row (ek, source), sets its seq, and forgets those whose time is over.
 * ATT_E_RETRY with reason "stepFull": there are STORE_STEP_MAX. */
ATT_MUST_USE enum att_rc store_step_room(struct store_tx *tx, struct store_step *row, int64_t now,
                                         struct att_err *err);

/* Certificates made up to this time are to be renewed now (RFC 9773 §4.2). */
struct store_renewal {
    char *scope; /* "all", "host/<id>", "serial/<serial>" */
    int64_t at;
    char *reason;
};

#define STORE_REQUEST_S         (3 * 86400)  /* how long requests are remembered */
#define STORE_PROPOSAL_S        (30 * 86400) /* and proposals, after they expired */
#define STORE_PROPOSAL_OPEN     "open"
#define STORE_PROPOSAL_APPROVED "approved"
#define STORE_PROPOSAL_REJECTED "rejected"

/* An admin operation that waits for a second person. */
struct store_proposal {
    char *id;
    char *op, *args; /* args: JSON; empty once it was decided, or has expired */
    char *sha256;    /* of args, hex */
    char *effect;    /* SHA-256 of what a dry run told when it was made, hex; or empty */
    char *state;
    char *by_who;     /* identity of who made it */
    char *by_id;      /* the id that showed, of which roles are asked again */
    char *decided_by; /* identity; or empty */
    char *reason;     /* why rejected */
    int64_t created_at, expires_at, decided_at;
};

/* Without their args, in the order of their ids. state NULL: any. Those that were made after since;
 * at most limit of those behind the id after (NULL: from the start). */
ATT_MUST_USE enum att_rc store_proposal_list(struct store_tx *tx, const char *state, int64_t since,
                                             const char *after, int64_t limit, store_each_fn each,
                                             void *user, struct att_err *err);

/* A request that was done, so that it is not done again. */
struct store_admin_request {
    char *id; /* SHA-256 of identity and request id, hex */
    char *op;
    int64_t at;
};

/* A generation of an authority, in these states and this order; the first three may end as retired.
 * "requested": its certificate is awaited from somebody else; "prepared": complete, nobody trusts
 * it; "published": its root is in every bundle; "active": the one that signs; "outgoing": signs
 * revocation lists only, its root still in every bundle; "retired": neither. */
#define STORE_AUTHORITY_REQUESTED "requested"
#define STORE_AUTHORITY_PREPARED  "prepared"
#define STORE_AUTHORITY_PUBLISHED "published"
#define STORE_AUTHORITY_ACTIVE    "active"
#define STORE_AUTHORITY_OUTGOING  "outgoing"
#define STORE_AUTHORITY_RETIRED   "retired"

struct store_authority {
    char *id;   /* first 16 hex digits of the SHA-256 of the intermediate's key */
    char *kind; /* of the certificates that it signs: "agent", "ak" */
    char *state;
    char *keyref;      /* "file:NAME", "hsm:CKA_ID" (provision/issuer/signer.h) */
    char *root_keyref; /* its root's, where that is within reach; or empty */
    char *chain;       /* PEM: the intermediate and what follows it after a leaf; or empty */
    char *root;        /* PEM; or empty */
    char *csr;         /* PEM, of one that was requested; or empty */
    int64_t view;      /* the host view's version from which on its root is in it; 0: not yet */
    int64_t created_at, published_at, activated_at, retired_at;
};

/* An issuer of this store, as it last said of itself. */
struct store_issuer {
    char *id, *name;
    int64_t generation; /* the meta counter "authorities" that it works by */
    char *lacks;        /* ids of the authorities whose key it cannot use, a space between */
    char *jwt; /* kids of the keys for tokens that it can use, a space between; "off": it mints none
                */
    int64_t seen_at;
};
/* A key that signs tokens: published from created_at, signing from active_at until the next one
 * does. */
struct store_jwt_key {
    char *kid;    /* RFC 7638 thumbprint */
    char *keyref; /* as of an authority */
    char *jwk;    /* JSON, the public half: "crv", "kty", "x", "y" */
    int64_t created_at, active_at;
};

ATT_MUST_USE enum att_rc store_issuers_forget(struct store_tx *tx, int64_t before,
                                              struct att_err *err);

#define STORE_CERT_INTENT    "intent"
#define STORE_CERT_ISSUED    "issued"
#define STORE_CERT_ABANDONED "abandoned"
#define STORE_CERT_REVOKED   "revoked"

struct store_cert {
    char *serial; /* hex; the key: a serial number is never used twice */
    char *id;     /* last part of the certificate URL */
    char *kind;   /* "agent" | "host" | "ak" */
    char *status;
    char *subject; /* SPIFFE ID or EK id */
    char *account, *host, *ord;
    char *profile;
    char *pem; /* leaf and intermediates; empty until issued */
    char *decision;
    char *reason;   /* why revoked or abandoned */
    char *replaced; /* RFC 9773: id of the order that is to replace it, '!' before it once that
                     * has its certificate; or empty */
    char *firmware; /* of an AK of the attestation CA's endpoints, JSON: manufacturer, version and
                     * claimed, by which the deny list is asked again; else "" */
    struct att_buf tbs; /* what is, or will be, signed */
    int64_t not_before, not_after, created_at, ended_at;
};

/* Newest first, at most limit (-1: all). pem and tbs stay empty. Texts may be NULL: any. name: a
 * subject, or its last part. after: the serial of one that was listed, after_at its created_at:
 * what follows it; NULL: from the start. */
struct store_cert_query {
    const char *host, *name, *status, *kind, *after;
    int64_t after_at, limit;
};
ATT_MUST_USE enum att_rc store_cert_list(struct store_tx *tx, const struct store_cert_query *query,
                                         store_each_fn each, void *user, struct att_err *err);
/* Those of a host or a subject that are issued, or will be, and end after now; likewise. */
enum store_cert_of { STORE_CERT_OF_HOST, STORE_CERT_OF_SUBJECT };
ATT_MUST_USE enum att_rc store_cert_live(struct store_tx *tx, enum store_cert_of of,
                                         const char *value, int64_t now, int64_t limit,
                                         store_each_fn each, void *user, struct att_err *err);
/* When the last of this kind ends that was made up to a time and has not ended; 0: none. */
ATT_MUST_USE enum att_rc store_cert_last_end(struct store_tx *tx, const char *kind,
                                             int64_t made_until, int64_t now, int64_t *ret_end,
                                             struct att_err *err);
/* The same of tickets that can still be used. */
ATT_MUST_USE enum att_rc store_ticket_last_end(struct store_tx *tx, int64_t made_until, int64_t now,
                                               int64_t *ret_end, struct att_err *err);
/* Notes that a host has this version of its view, or a later one. */
ATT_MUST_USE enum att_rc store_host_saw_view(struct store_tx *tx, const char *host, int64_t version,
                                             struct att_err *err);
/* Approved hosts that have an agent's certificate in force and are not known to have this version;
 * at most limit. */
ATT_MUST_USE enum att_rc store_hosts_behind(struct store_tx *tx, int64_t version, int64_t now,
                                            int64_t limit, store_each_fn each, void *user,
                                            struct att_err *err);
/* The same of all that may come back by what they have: enrolled, with an AK or an agent's
 * certificate in force, approved or pending. */
ATT_MUST_USE enum att_rc store_hosts_untold(struct store_tx *tx, int64_t version, int64_t now,
                                            int64_t limit, store_each_fn each, void *user,
                                            struct att_err *err);
/* Those of a kind that are revoked and would end after now; at most limit. */
ATT_MUST_USE enum att_rc store_cert_revoked(struct store_tx *tx, const char *kind, int64_t now,
                                            int64_t limit, store_each_fn each, void *user,
                                            struct att_err *err);
/* All that a host ever had. */
ATT_MUST_USE enum att_rc store_cert_count(struct store_tx *tx, const char *host, int64_t *ret_n,
                                          struct att_err *err);
/* Issued (or issued and revoked), and intended. */
ATT_MUST_USE enum att_rc store_cert_states(struct store_tx *tx, int64_t *ret_issued,
                                           int64_t *ret_intents, struct att_err *err);
/* Empties pem and tbs of at most limit that ended before a time; the rows stay: serial numbers. */
ATT_MUST_USE enum att_rc store_cert_sweep(struct store_tx *tx, int64_t before, int64_t limit,
                                          int64_t *ret_emptied, struct att_err *err);

struct store_entry {
    char *name;
    char *spiffe_id;
    char *json;
    int64_t version, updated_at;
};

/* In the order of their names, at most limit of those behind after (NULL: from the start). */
ATT_MUST_USE enum att_rc store_entry_list(struct store_tx *tx, const char *after, int64_t limit,
                                          store_each_fn each, void *user, struct att_err *err);

/* An allow list of IMA (provision/verify/imalist.h), by content. */
struct store_allowlist {
    char *sha256, *label;
    struct att_buf data;
    int64_t entries, created_at;
};
/* Each of them without its text, by digest: each is called with this. */
struct store_allowlist_sum {
    char *sha256, *label;
    int64_t bytes, entries, created_at;
};
ATT_MUST_USE enum att_rc store_allowlist_sums(struct store_tx *tx, store_each_fn each, void *user,
                                              struct att_err *err);

struct store_policy {
    char *name;
    char *json;
    int64_t version, updated_at;
};

/* The last good bundle of another trust domain. */
#define STORE_FEDERATED_ENDPOINT "endpoint"
#define STORE_FEDERATED_FILE     "file"
struct store_federated {
    char *name;    /* the trust domain's */
    char *bundle;  /* JSON (provision/federation/bundle.h); empty: none was ever taken */
    char *sha256;  /* of that text, hex; or empty */
    char *source;  /* where it is from: STORE_FEDERATED_…; or empty */
    char *outcome; /* of the last look: "updated", "unchanged", "refused", "away"; or empty */
    char *reason, *detail; /* of one that failed */
    int64_t sequence;      /* spiffe_sequence; -1: it had none */
    int64_t hint_s;        /* spiffe_refresh_hint; -1: it had none */
    int64_t anew;          /* not 0: the next one counts whatever was known before; so
                              many resets have waited for it */
    int64_t failures;      /* looks that failed, since one did not */
    int64_t tried_at;      /* the last look; 0: look at once */
    int64_t fetched_at;    /* the last look at which the endpoint's bundle was good; 0: none */
    int64_t changed_at;
    int64_t records_paid_at; /* when the records so far are paid for, a quarter of an hour each */
    int64_t unrecorded;      /* changes since the last record, none of which has one of its own */
};

/* ---- single values and counters ---------------------------------------------------------------
 */

/* What this store's transactions took, and how many could not be carried out for its own reasons
 * (not those that the caller ended). Any thread; as long as the store is open. */
struct store_stats {
    struct att_histogram read, write;
    atomic_ullong unreachable, failed, busy;
};
const struct store_stats *store_stats(const struct store *store);

/* ATT_E_NOTFOUND when unset. Appends. */
ATT_MUST_USE enum att_rc store_meta_get(struct store_tx *tx, const char *key,
                                        struct att_buf *ret_value, struct att_err *err);
ATT_MUST_USE enum att_rc store_meta_set(struct store_tx *tx, const char *key,
                                        struct att_slice value, struct att_err *err);
/* Adds 1 (an unset counter is 0) and gives the new value. */
ATT_MUST_USE enum att_rc store_meta_count(struct store_tx *tx, const char *key, int64_t *ret_value,
                                          struct att_err *err);

/* Takes one use of a ticket, atomically. ATT_E_DENIED with reason "ticketInvalid" when it is
 * unknown, used up or expired. */
ATT_MUST_USE enum att_rc store_ticket_spend(struct store_tx *tx, const char *kid, int64_t now,
                                            struct att_err *err);
/* How many accounts were opened with this ticket. */
ATT_MUST_USE enum att_rc store_ticket_accounts(struct store_tx *tx, const char *kid, int64_t *ret_n,
                                               struct att_err *err);
/* Ends every other record of this (account, EK) that is pending: one outstanding challenge. */
ATT_MUST_USE enum att_rc store_ak_replace_pending(struct store_tx *tx, const char *account,
                                                  const char *ek, struct att_err *err);
/* What an account made since then: orders, those among them without a certificate, AK records. */
struct store_recent {
    int64_t orders, fruitless, aks;
};
ATT_MUST_USE enum att_rc store_account_recent(struct store_tx *tx, const char *account,
                                              int64_t since, struct store_recent *ret_recent,
                                              struct att_err *err);
/* The same of orders for DNS names (aks is 0). */
ATT_MUST_USE enum att_rc store_dns_recent(struct store_tx *tx, const char *account, int64_t since,
                                          struct store_recent *ret_recent, struct att_err *err);
/* Removes orders and AK records without a certificate that ended before a time, at most limit of
 * each kind (writers wait meanwhile): ret_more says whether there may be others. */
ATT_MUST_USE enum att_rc store_sweep(struct store_tx *tx, int64_t before, int64_t limit,
                                     bool *ret_more, struct att_err *err);

/* ---- the audit chain ---------------------------------------------------------------------------
 */

#define STORE_HASH_LEN 32

/* hash = SHA-256("attestd-audit/1" ‖ be64 seq ‖ be64 time ‖ previous hash ‖ record). */
struct store_audit {
    int64_t seq, at;
    uint8_t prev[STORE_HASH_LEN], hash[STORE_HASH_LEN];
    const char *record; /* JSON; borrowed */
};

/* Appends a record (JSON text) to the chain; ret_head (may be NULL) gets its number and hash. */
ATT_MUST_USE enum att_rc store_audit_append(struct store_tx *tx, int64_t at, const char *record,
                                            struct store_audit *ret_head, struct att_err *err);
/* The newest record's number and hash; seq 0 and zeroes for an empty chain. record is NULL. */
ATT_MUST_USE enum att_rc store_audit_head(struct store_tx *tx, struct store_audit *ret_head,
                                          struct att_err *err);
typedef enum att_rc (*store_audit_fn)(void *user, const struct store_audit *record,
                                      struct att_err *err);
/* Records with seq ≥ from, upward (at most limit; 0: all). */
ATT_MUST_USE enum att_rc store_audit_each(struct store_tx *tx, int64_t from, int64_t limit,
                                          store_audit_fn each, void *user, struct att_err *err);
/* Records whose text has one of these in it, upward. The database looks; only those are read. */
ATT_MUST_USE enum att_rc store_audit_search(struct store_tx *tx, const char *text,
                                            const char *or_text, store_audit_fn each, void *user,
                                            struct att_err *err);
/* Walks the whole chain. ATT_E_AUTH with reason "auditEdited" (a record does not have its hash),
 * "auditReordered" (does not name the one before), "auditMissing" (a number is absent) or
 * "auditTruncated" (expect, which may be NULL, names a head that is not in the chain); the message
 * names the record. */
ATT_MUST_USE enum att_rc store_audit_verify(struct store_tx *tx, const struct store_audit *expect,
                                            struct store_audit *ret_head, struct att_err *err);

/* Walks the chain from a record known before (seq 0: from the start): its successors have to follow
 * it. Refusals as above. ret_head gets the newest record. */
ATT_MUST_USE enum att_rc store_audit_continue(struct store_tx *tx, const struct store_audit *known,
                                              struct store_audit *ret_head, struct att_err *err);

/* Empties a record's text and its leaf's salt (store_leaf); number, time and hashes stay, so that
 * chain and log hold. In the same transaction a record must be appended whose JSON has the member
 * "erases" with that number, or a list of numbers with it: a chain with an emptied record that no
 * later one names is "auditEdited". ATT_E_NOTFOUND when there is no such record or it was erased
 * before. */
ATT_MUST_USE enum att_rc store_audit_erase(struct store_tx *tx, int64_t seq, struct att_err *err);

/* ---- leaves of the audit log (provision/audit): one a record, of the same number ---------------
 */

struct store_leaf {
    int64_t seq;
    struct att_slice salt, leaf; /* borrowed; salt is empty once the record was erased */
};

/* The newest leaf's number; 0 when there is none. */
ATT_MUST_USE enum att_rc store_leaf_head(struct store_tx *tx, int64_t *ret_seq,
                                         struct att_err *err);
/* ATT_E_EXISTS when that number has one. */
ATT_MUST_USE enum att_rc store_leaf_append(struct store_tx *tx, const struct store_leaf *leaf,
                                           struct att_err *err);
typedef enum att_rc (*store_leaf_fn)(void *user, const struct store_leaf *leaf,
                                     struct att_err *err);
/* Leaves with seq ≥ from, upward (at most limit; 0: all). */
ATT_MUST_USE enum att_rc store_leaf_each(struct store_tx *tx, int64_t from, int64_t limit,
                                         store_leaf_fn each, void *user, struct att_err *err);

/* ---- evidence, by content -----------------------------------------------------------------------
 */

/* Stores bytes under their SHA-256 (hex, 65 bytes into ret_sha256); twice is once, of the later
 * time. */
ATT_MUST_USE enum att_rc store_blob_put(struct store_tx *tx, struct att_slice bytes, int64_t now,
                                        char ret_sha256[65], struct att_err *err);
ATT_MUST_USE enum att_rc store_blob_get(struct store_tx *tx, const char *sha256,
                                        struct att_buf *ret_bytes, struct att_err *err);
/* Removes at most limit of those last stored before a time; gives how many. */
ATT_MUST_USE enum att_rc store_blob_sweep(struct store_tx *tx, int64_t before, int64_t limit,
                                          int64_t *ret_removed, struct att_err *err);
/* Those bytes are in use now, as if they had been put again; within an hour of the last time
 * nothing is written. Absent is ATT_OK. */
ATT_MUST_USE enum att_rc store_blob_touch(struct store_tx *tx, const char *sha256, int64_t now,
                                          struct att_err *err);
bool store_blob_has(struct store_tx *tx, const char *sha256);

#endif
