/* The agents that the issuer's view assigns to this host: a bounded, sorted set, and what is
 * remembered of each across restarts. Not thread-safe: the daemon's lock is around it. */
#ifndef ATTESTD_AGENT_REGISTRY_H
#define ATTESTD_AGENT_REGISTRY_H

#include "attestd/agent/life.h"
#include "attestd/agent/sched.h"
#include "attestd/base/io.h"

#define AGENT_MAX            1024 /* agents of one host */
#define AGENT_NAME_MAX       64
#define AGENT_SPIFFE_ID_MAX  512
#define AGENT_IDENTIFIER_MAX 255
#define AGENT_PROFILE_MAX    63
#define AGENT_URL_MAX        1024
#define AGENT_KEY_ID_MAX     64
#define AGENT_STATE_MAX      (64 * 1024) /* bytes of a state file */
#define AGENT_RETIRED_MAX    8 /* replaced keys that still sign (attestd/agent/retired.h) */

struct agent_error {
    int64_t at;      /* UTC seconds; 0: none */
    char code[16];   /* att_rc_name */
    char reason[40]; /* a reason word, or empty */
    char message[400];
    uint64_t number; /* counts the errors of this process; 0: from an earlier one. Not on disk */
};

/* A replaced key whose certificate has not ended: who holds a handle of it signs on. */
struct agent_retired {
    char key_id[AGENT_KEY_ID_MAX + 1];
    char serial[65];     /* of its certificate, hex; empty: not known (an earlier release's) */
    int64_t not_after;   /* UTC seconds, of its certificate */
    int64_t end_boot_ms; /* the same moment on CLOCK_BOOTTIME; 0: not known yet. Not on disk */
    bool revoked;        /* its certificate is: over before its end. Not on disk */
};

/* Everything that outlives the process. Strings are NUL-terminated and empty when unknown. */
struct agent_record {
    char name[AGENT_NAME_MAX + 1];
    char spiffe_id[AGENT_SPIFFE_ID_MAX + 1];
    char profile[AGENT_PROFILE_MAX + 1];
    char key_store[16]; /* "tpm" */
    char key_type[16];  /* "rsa-2048" …; empty: ec-p256 */
    char hsm[33];       /* which of the host's HSM modules, as the entry says; empty: the default */
    char identifier[AGENT_IDENTIFIER_MAX + 1]; /* permanent identifier; then no spiffe_id */
    int64_t lifetime_s;                        /* with an identifier: the certificate's, 0 before */
    struct agent_life life;
    char key_id[AGENT_KEY_ID_MAX + 1];               /* key of the certificate in force */
    char next_key_id[AGENT_KEY_ID_MAX + 1];          /* of the order in progress, or made ahead */
    char old_key_id[AGENT_KEY_ID_MAX + 1];           /* not even retired: to be destroyed now */
    struct agent_retired retired[AGENT_RETIRED_MAX]; /* in the order in which they were replaced */
    size_t n_retired;
    char order_url[AGENT_URL_MAX + 1];
    char serial[65]; /* hex */
    char boot[64];   /* boot policy in the certificate's extension, or "none" */
    struct agent_dates dates;
    char boot_id[40]; /* the boot in which dates.installed_boot_ms was read */
    struct agent_error last_error;
    uint32_t attempts; /* failures since the last success */
    uint64_t issued;   /* certificates installed so far */
};

/* "ec-p256", "rsa-2048" …; never empty. */
const char *agent_record_key_type(const struct agent_record *rec);
/* A name becomes a file name and the last segment of a SPIFFE ID: [a-z0-9][a-z0-9._-]{0,63}, the
 * rule of an entry's name. ATT_E_INVAL otherwise. */
ATT_MUST_USE enum att_rc agent_name_check(const char *name, struct att_err *err);

/* JSON, {"version": 1, …}; every field is checked against its bounds, an unknown field or version
 * is an error (ATT_E_PARSE), and so are combinations that no run can leave behind. A record without
 * "retired", from an earlier release, has none; a retired key without "serial" is one's, too; a
 * record without "keyType" is of an agent on P-256, one without "hsm" of the default module, one
 * without "identifier" of an agent with a SPIFFE ID. */
ATT_MUST_USE enum att_rc agent_record_encode(const struct agent_record *rec,
                                             struct att_buf *ret_text, struct att_err *err);
ATT_MUST_USE enum att_rc agent_record_parse(struct att_slice text, struct agent_record *ret_rec,
                                            struct att_err *err);
/* <dir>/<name>.json, atomically, mode 0600. */
ATT_MUST_USE enum att_rc agent_record_save(const char *dir, const struct agent_record *rec,
                                           struct att_err *err);
/* The same in steps (attestd/base/io.h): stage, commit, sync of the folder. */
ATT_MUST_USE enum att_rc agent_record_stage(const char *dir, const struct agent_record *rec,
                                            struct att_io_staged *ret_staged, struct att_err *err);
ATT_MUST_USE enum att_rc agent_record_commit(const char *dir, const char *name,
                                             struct att_io_staged *staged, struct att_err *err);
ATT_MUST_USE enum att_rc agent_record_sync(const char *dir, const char *name, struct att_err *err);
/* ATT_E_NOTFOUND when there is none. A file that does not parse, or is another agent's, is set
 * aside as .bad and reported as ATT_E_PARSE. */
ATT_MUST_USE enum att_rc agent_record_load(const char *dir, const char *name,
                                           struct agent_record *ret_rec, struct att_err *err);
ATT_MUST_USE enum att_rc agent_record_remove(const char *dir, const char *name,
                                             struct att_err *err);

/* What an issuance spends its time on; network stages hold the JWS's signature by keyd, too. */
enum agent_stage {
    AGENT_STAGE_TPM_CREATE,
    AGENT_STAGE_NET_ORDER,
    AGENT_STAGE_NET_AUTHORIZATION,
    AGENT_STAGE_TPM_EVIDENCE,  /* Certify, Quote */
    AGENT_STAGE_NET_CHALLENGE, /* the issuer's verdict in it, and the order's state after it */
    AGENT_STAGE_TPM_CSR,
    AGENT_STAGE_NET_FINALIZE,
    AGENT_STAGE_NET_CERTIFICATE,
    AGENT_STAGE_INSTALL, /* checks, files, keyd's new key active, record */
    AGENT_STAGE_SWITCH,  /* made to last; a key for which there is no room any more destroyed */
    AGENT_STAGE_COUNT,
};
/* Stable names: "tpmCreate", "netOrder" …; never NULL. */
const char *agent_stage_name(enum agent_stage stage);

/* One agent in memory. */
struct agent {
    struct agent_record rec;
    int64_t stage_us[AGENT_STAGE_COUNT]; /* of the issuance that ended last */
    bool busy;                           /* a worker has it */
    bool issuing;                 /* … for an issuance, with the AK record as it was then */
    bool settled;                 /* … for nothing that anybody waits for */
    bool forced;                  /* rotate was asked for, or the host booted anew */
    bool check_keys;              /* keyd's keys have to be compared with the record */
    bool create_lost;             /* keyd may have made a key whose answer did not arrive */
    bool reassigned;              /* listed again while its removal is still to be done */
    bool revoked;                 /* its certificate is: out of service */
    bool misfit;                  /* its files are not its manifest's: out of service */
    bool unsaved;                 /* the record in memory is newer than the file */
    int64_t not_before_ms;        /* CLOCK_BOOTTIME: no attempt before (back-off) */
    int64_t spare_not_before_ms;  /* the same for the next key */
    int64_t expire_not_before_ms; /* the same for taking away what has expired */
    int64_t retire_not_before_ms; /* the same for destroying retired keys */
    int64_t renewal_asked_ms;     /* CLOCK_BOOTTIME: renewal information is not asked for before */
    uint64_t generation;          /* of the view that last listed it */
};

struct agent_registry;
ATT_MUST_USE enum att_rc agent_registry_new(struct agent_registry **ret_reg, struct att_err *err);
void agent_registry_free(struct agent_registry *reg);
size_t agent_registry_count(const struct agent_registry *reg);
/* In order of name; NULL beyond the end. Pointers stay good until the agent is dropped. */
struct agent *agent_registry_at(struct agent_registry *reg, size_t i);
/* NULL when there is none. */
struct agent *agent_registry_find(struct agent_registry *reg, const char *name);
/* A new agent with this record (copied). ATT_E_EXISTS; ATT_E_LIMIT beyond AGENT_MAX. */
ATT_MUST_USE enum att_rc agent_registry_add(struct agent_registry *reg,
                                            const struct agent_record *rec,
                                            struct agent **ret_agent, struct att_err *err);
void agent_registry_drop(struct agent_registry *reg, const char *name);

/* One line of the issuer's view. */
struct agent_entry {
    const char *name, *spiffe_id, *profile, *key_store;
    const char *key_type; /* NULL: ec-p256 */
    const char *hsm;      /* NULL: the host's default */
    /* Of another server than an attest-issuerd: what is ordered there. spiffe_id is "" then,
     * profile may be, and the lifetime is the server's affair. NULL: none */
    const char *identifier;
    int64_t lifetime_s;
};
/* Makes the registry agree with a view: unknown agents are added (state absent), known ones take
 * the entry's fields, those no longer listed get AGENT_EV_REMOVED. All entries are checked before
 * any is applied. Counts what changed. */
struct agent_sync {
    size_t added, changed, removed;
};
ATT_MUST_USE enum att_rc agent_registry_sync(struct agent_registry *reg,
                                             const struct agent_entry *entries, size_t n,
                                             struct agent_sync *ret_sync, struct att_err *err);

#endif
