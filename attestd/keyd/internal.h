/* What keyd's files share. */
#ifndef ATTESTD_KEYD_INTERNAL_H
#define ATTESTD_KEYD_INTERNAL_H

#include "attestd/keyd/keyd.h"
#include "attestd/keyd/store.h"

#include "attestd/base/often.h"
#include "attestd/base/p256.h"
#include "attestd/base/secret.h"
#include "attestd/proc/keyd_proto.h"
#include "attestd/proc/sign_proto.h"
#include "provision/acme/jws.h"
#include "tpm/ak.h"
#include "tpm/ek.h"
#include "tpm/key.h"
#include "tpm/parent.h"
#include "tpm/queue.h"
#include "tpm/quote.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>

#define KEYD_PATH_MAX       1024
#define KEYD_AGENT_KEYS_MAX 16 /* in force, next, retired; and some that were left over */
#define KEYD_KEYS_MAX       (1024 * KEYD_AGENT_KEYS_MAX) /* of all agents that a host can have */
#define KEYD_FROZEN_MAX     3000                         /* whose names fit into INFO */
#define KEYD_BAD_MAX        64
#define KEYD_DROPPED_MAX    64
#define KEYD_OP_TIMEOUT_MS  25000 /* below the client's, so that the caller hears why */
#define KEYD_SECRET_LEN     32

enum keyd_phase {
    KEYD_STARTING,
    KEYD_READY,
    KEYD_TPM_GONE,
    KEYD_FOREIGN_TPM,
    KEYD_SEALED,
    KEYD_FAILED,
};

enum keyd_key_state { KEYD_KEY_NEW, KEYD_KEY_ACTIVE, KEYD_KEY_RETIRED };

struct keyd_key {
    char id[PROC_KEY_ID_LEN + 1];
    char agent[PROC_AGENT_MAX + 1];
    const struct keyd_store *store;
    enum att_keytype type;
    enum keyd_key_state state;
    int64_t created_at;
    uint64_t active_seq; /* grows with each activation; 0: never active */
    struct att_buf spki; /* DER */
    void *held;          /* the store's; one reference, NULL: none (store->hold, release) */
    /* hsm only: empty for the others */
    char module[PROC_HSM_NAME_MAX + 1];
    /* tpm only: empty for the others */
    char seed_id[PROC_KEY_ID_LEN + 1]; /* of the authValue */
    struct parse_name name;
};
void keyd_key_done(struct keyd_key *key);
#define keyd_autokey ATT_CLEANUP(keyd_key_done) struct keyd_key

/* A signature of the account key whose payload comes in parts. */
#define KEYD_SERIES_MAX 8
struct keyd_series {
    uint64_t handle;
    EVP_MD_CTX *ctx; /* NULL: free */
    uint64_t len;    /* bytes of the payload so far */
    bool closed;     /* the last part has come */
    int64_t used_ms;
};

struct keyd_bucket; /* sign.c */

/* What only the TPM's jobs touch, of which one runs at a time. */
struct keyd_worker {
    bool known;
    uint64_t generation;
    struct tpm_ek ek;
    struct tpm_ek_certs certs;
    struct tpm_ak ak;
    struct att_buf srk_pub;
};

struct keyd_hsm; /* hsmlink.c */

/* A file of the policies' folder, as INFO shows it. */
#define KEYD_POLICIES_MAX     16  /* in force at once */
#define KEYD_POLICY_FILES_MAX 256 /* looked at */
#define KEYD_POLICIES_SHOWN   32
struct keyd_policy_file {
    char file[64];
    char name[PARSE_PCR_POLICY_NAME_MAX + 1];
    uint32_t version;
    bool recovery;
    char state[40]; /* "ok", or why it is of no use */
};

/* seal.c. lock guards what is marked; the rest belongs to whoever brings keyd up, then to the
 * thread that reloads. counter and counter_missing, which INFO shows, are written under lock. */
struct keyd_seal {
    enum keyd_pcr_mode mode; /* constant, as the next three */
    char *policy_key, *policy_ref, *policies_dir;
    struct tpm_blob parent; /* what was read or made; constant once the host secret is open */
    struct parse_name parent_name;
    uint8_t auth_policy[PARSE_POLICY_LEN];
    struct parse_public key;
    struct parse_pcr_set own;  /* KEYD_PCR_7: the values that open it */
    uint32_t counter;          /* recorded: there must be one; 0: none so far */
    uint32_t counter_wanted;   /* of the policies in force; 0: none names one */
    bool counter_missing;      /* recorded, and not there: only a recovery approval helps */
    bool counter_held;         /* defined in this process, with pending or the host secret */
    struct att_secret pending; /* the host secret of a first try that failed: the next one's */
    /* lock */
    bool opened; /* the host secret was opened in this process */
    struct keyd_policy_file files[KEYD_POLICY_FILES_MAX];
    size_t n_files;
    struct tpm_parent_stats stats;
    uint64_t counter_value;
    bool now_known;
    uint32_t reset_count;
    struct parse_pcr_set now; /* while sealed: for a recovery approval */
};

struct keyd {
    struct keyd_seal seal;
    struct keyd_hsm *hsms[KEYD_HSMS_MAX]; /* the default first; constant, as n_hsms */
    size_t n_hsms;
    char *tcti, *ticket_path;
    char dir[KEYD_PATH_MAX];
    void (*on_event)(void *user, enum keyd_event event, const char *what,
                     const struct att_err *err);
    void *user;
    int lock_fd;
    char instance[PROC_KEY_ID_LEN + 1];       /* random: another one after each start */
    struct proc_server *server, *sign_server; /* sign_server: NULL where nobody signs */
    struct proc_sandbox_report sandbox;
    pthread_t starter;
    bool starter_runs;

    pthread_mutex_t lock; /* what follows, up to the next remark */
    pthread_cond_t changed;
    bool stopping;
    bool nudged; /* the bring-up tries again at once */
    enum keyd_phase phase;
    struct att_err why;    /* why the phase is not READY */
    char *issuer_url;      /* NULL: unknown */
    char *issuer_kept;     /* issuer.json: where the account is; NULL: there is none yet */
    bool issuer_fixed;     /* by the configuration, not by a ticket */
    bool ak_rsa;           /* constant */
    atomic_int acme;       /* enum keyd_acme: what the configuration lets another server be told */
    bool issuer_given;     /* by ISSUER: a ticket that attestd was given */
    struct keyd_key *keys; /* sorted by id */
    size_t keys_count;
    char (*frozen)[PROC_AGENT_MAX + 1];
    size_t frozen_count;
    char *bad[KEYD_BAD_MAX];
    size_t bad_count;
    bool info_known, srk_persistent, ek_certificate;
    enum parse_ek_template ek_kind;          /* PARSE_EK_NONE: not known yet */
    uint32_t ek_handle, ek_index;            /* persistent; of its certificate; 0: none */
    uint32_t nv_skipped[TPM_EK_SKIPPED_MAX]; /* certificates in NV that were not read */
    size_t nv_skipped_count;
    struct tpm_info info;
    struct keyd_series series[KEYD_SERIES_MAX];

    pthread_mutex_t files; /* held while key files, frozen.json or account.pem are written */
    char dropped[KEYD_DROPPED_MAX][PROC_KEY_ID_LEN + 1]; /* keys whose sidecars are still there */
    size_t dropped_count;

    /* Set before the phase is READY, constant from then on. */
    struct tpm_queue *queue;
    struct att_secret host_secret;

    struct keyd_quota quota;     /* constant */
    struct proc_users exporters; /* constant */
    pthread_mutex_t quota_lock;
    struct keyd_bucket *buckets;
    size_t bucket_count;
    struct att_often refusals; /* of signatures */

    pthread_mutex_t account_lock; /* the account key */
    bool account_known;
    struct att_secret account_priv; /* the scalar, 32 bytes */
    struct att_buf account_spki;
    json_t *account_jwk;
    char thumbprint[ACME_THUMBPRINT_LEN];

    struct keyd_worker worker;
};

void keyd_tell(struct keyd *keyd, enum keyd_event event, const char *what,
               const struct att_err *err);

/* ---- state.c: the folder ------------------------------------------------------------------- */
/* dir/name; ATT_E_INVAL when too long. */
ATT_MUST_USE enum att_rc keyd_path(const struct keyd *keyd, const char *name,
                                   char ret[KEYD_PATH_MAX], struct att_err *err);
/* Lock, orphans, keys, frozen agents, issuer. */
ATT_MUST_USE enum att_rc keyd_state_open(struct keyd *keyd, struct att_err *err);
/* Sets dir/name aside and remembers that for INFO. */
ATT_MUST_USE enum att_rc keyd_state_bad(struct keyd *keyd, const char *name, struct att_err *err);
/* Is there dir/name, or dir/name.bad*? */
bool keyd_state_exists(const struct keyd *keyd, const char *name);
bool keyd_state_was_bad(const struct keyd *keyd, const char *name);
/* A TSS2 PEM of this type from dir/name. ATT_E_NOTFOUND; a file that does not parse is set aside
 * and gives ATT_E_CONFLICT. */
ATT_MUST_USE enum att_rc keyd_state_blob(struct keyd *keyd, const char *name,
                                         enum tpm_blob_type type, struct tpm_blob *ret_blob,
                                         struct att_err *err);
ATT_MUST_USE enum att_rc keyd_state_write_blob(const struct keyd *keyd, const char *name,
                                               const struct tpm_blob *blob, struct att_err *err);

/* ---- keyfile.c: one key's two files --------------------------------------------------------- */
/* Sidecar text → everything but held, name, type and spki; strict. */
ATT_MUST_USE enum att_rc keyd_sidecar_parse(struct att_slice text, struct keyd_key *key,
                                            struct att_err *err);
/* A TPM's key from both its files. */
ATT_MUST_USE enum att_rc keyd_keyfile_load(struct keyd *keyd, const char *id,
                                           struct keyd_key *ret_key, struct att_err *err);
/* Both files of a new key, synced. files is held for this and what follows. */
ATT_MUST_USE enum att_rc keyd_keyfile_write(struct keyd *keyd, const struct keyd_key *key,
                                            struct att_err *err);
/* The sidecar anew, for a change of state. Whole at any instant, but a loss of power may bring the
 * state before back: who told keyd of it (attestd, whose record is on disk) tells it again. */
ATT_MUST_USE enum att_rc keyd_keyfile_write_state(const struct keyd *keyd,
                                                  const struct keyd_key *key, struct att_err *err);
/* Takes the PEM away, not synced: a loss of power may bring the key back, as one that no record
 * speaks of, and attestd destroys it again. The sidecar goes after the next sync of the folder, for
 * a PEM that came back without it would be a riddle. */
ATT_MUST_USE enum att_rc keyd_keyfile_drop(struct keyd *keyd, const char *id, struct att_err *err);
/* Removes both, synced. */
ATT_MUST_USE enum att_rc keyd_keyfile_remove(const struct keyd *keyd, const char *id,
                                             struct att_err *err);
const char *keyd_key_state_name(enum keyd_key_state state);

/* ---- keys.c: the registry ------------------------------------------------------------------- */
/* 32 random hex digits. */
ATT_MUST_USE enum att_rc keyd_new_id(char ret[PROC_KEY_ID_LEN + 1], struct att_err *err);
/* Takes over *key. */
ATT_MUST_USE enum att_rc keyd_keys_add(struct keyd *keyd, struct keyd_key *key,
                                       struct att_err *err);
/* A copy, by id; ATT_E_NOTFOUND. */
ATT_MUST_USE enum att_rc keyd_keys_get(struct keyd *keyd, struct att_slice id,
                                       struct keyd_key *ret_key, struct att_err *err);
/* After loading: at most one active key an agent, the one activated last. */
ATT_MUST_USE enum att_rc keyd_keys_settle(struct keyd *keyd, struct att_err *err);
/* Keys in the TPM that were made ahead and stand outside the storage parent: destroyed, since the
 * next certificate is to be for one within. */
ATT_MUST_USE enum att_rc keyd_keys_drop_outside(struct keyd *keyd, struct att_err *err);
/* Keys in the TPM outside the storage parent. */
size_t keyd_keys_outside(const struct keyd *keyd); /* lock is held */

/* ---- store_tpm.c ---------------------------------------------------------------------------- */
/* What held is for a key in the TPM. */
const struct tpm_blob *keyd_tpm_blob(const struct keyd_key *key);
/* Name, type and SubjectPublicKeyInfo from the blob's public area, which must be an agent's key's,
 * into *key; takes over *blob. */
ATT_MUST_USE enum att_rc keyd_tpm_adopt(struct keyd_key *key, struct tpm_blob *blob,
                                        struct att_err *err);

/* ---- seal.c, seal_files.c: the storage parent -------------------------------------------------
 */
ATT_MUST_USE enum att_rc keyd_seal_new(struct keyd *keyd, const struct keyd_sealing *opts,
                                       struct att_err *err);
void keyd_seal_free(struct keyd *keyd);
/* Steps of the bring-up, in this order: the parent and its policies, before the host secret is
 * opened; the host secret's move under it, once it is open; what is left outside, at the end. */
ATT_MUST_USE enum att_rc keyd_seal_prepare(struct keyd *keyd, struct att_err *err);
ATT_MUST_USE enum att_rc keyd_seal_settle(struct keyd *keyd, struct att_err *err);
ATT_MUST_USE enum att_rc keyd_seal_tidy(struct keyd *keyd, struct att_err *err);
/* On the worker, before anything is made under the parent: the counter that the policies name. */
ATT_MUST_USE enum att_rc keyd_seal_define_counter(struct keyd *keyd, struct tpm_context *ctx,
                                                  struct att_slice host_secret,
                                                  struct att_err *err);
/* And what is to be remembered of it. */
ATT_MUST_USE enum att_rc keyd_seal_record(struct keyd *keyd, struct att_err *err);
/* Is sealing on, and an object with this parent outside of it? */
bool keyd_seal_outside(const struct keyd *keyd, const struct parse_name *parent);
/* Refused because of how the host booted, or of what policies there are: mended from outside. */
bool keyd_seal_refusal(const struct att_err *err);
/* The key's store can be asked; with sealing on no key of any store is used before the host secret
 * was opened. */
ATT_MUST_USE enum att_rc keyd_store_ready(struct keyd *keyd, const struct keyd_key *key,
                                          struct att_err *err);
/* TPMT_PUBLIC of the parent, where the key stands under it. Appends. */
ATT_MUST_USE enum att_rc keyd_seal_parent_pub(const struct keyd *keyd,
                                              const struct parse_name *parent,
                                              struct att_buf *ret_pub, struct att_err *err);
/* The SRK's Name that an object of ours hangs on, past the storage parent. */
ATT_MUST_USE enum att_rc keyd_seal_srk_of(struct keyd *keyd, struct parse_name *name,
                                          struct att_err *err);
json_t *keyd_seal_json(const struct keyd *keyd); /* lock is held */
/* seal_files.c */
/* parent.json → counter and own; ATT_E_NOTFOUND. */
ATT_MUST_USE enum att_rc keyd_seal_read_record(struct keyd *keyd, struct att_err *err);
/* The folder's policies that are good now, newest first, as many as there is room for; and of each
 * file what came of it. */
ATT_MUST_USE enum att_rc keyd_seal_read_policies(struct keyd *keyd,
                                                 struct tpm_parent_policy *ret_policy,
                                                 struct att_err *err);
/* The folder and its policies are on the disk when this returns ATT_OK (fsync); ATT_E_IO. */
ATT_MUST_USE enum att_rc keyd_seal_sync_policies(const struct keyd *keyd, struct att_err *err);
void keyd_seal_read_tickets(struct keyd *keyd, struct tpm_parent_policy *policy);
/* On the worker. */
void keyd_seal_write_tickets(struct keyd *keyd, const struct tpm_context *ctx);

/* ---- hsms.c: the modules ---------------------------------------------------------------------
 */
ATT_MUST_USE enum att_rc keyd_hsms_new(struct keyd *keyd, const struct keyd_opts *opts,
                                       struct att_err *err);
void keyd_hsms_free(struct keyd *keyd);
/* A thread each; after the sandbox was entered. */
ATT_MUST_USE enum att_rc keyd_hsms_start(struct keyd *keyd, struct att_err *err);

/* ---- store_hsm.c ---------------------------------------------------------------------------- */
/* agents/<id>.hsm. */
#define KEYD_HSM_FILE_MAX     4096
#define KEYD_TOKEN_LABEL_MAX  32 /* CK_TOKEN_INFO */
#define KEYD_TOKEN_SERIAL_MAX 16
struct keyd_hsm_file {
    char id[PROC_KEY_ID_LEN + 1], agent[PROC_AGENT_MAX + 1];
    char module[PROC_HSM_NAME_MAX + 1];
    enum keyd_key_state state;
    bool waste;  /* a key that nobody was told of, or that was destroyed; state is not set */
    bool making; /* the former */
    int64_t created_at;
    uint64_t active_seq;
    uint8_t cka_id[20];
    /* The token it was made in; "": a file of an earlier version, which does not say. */
    char token_label[KEYD_TOKEN_LABEL_MAX + 1], token_serial[KEYD_TOKEN_SERIAL_MAX + 1];
    enum att_keytype type;
    uint8_t spki[ATT_KEYTYPE_SPKI_MAX];
    size_t spki_len; /* of waste perhaps 0, then type is NONE */
};
ATT_MUST_USE enum att_rc keyd_hsm_file_parse(struct att_slice text, struct keyd_hsm_file *ret_file,
                                             struct att_err *err);
/* ATT_E_NOTFOUND: waste, which will be destroyed. ATT_E_CONFLICT: set aside. */
ATT_MUST_USE enum att_rc keyd_hsm_load(struct keyd *keyd, const char *id, struct keyd_key *ret_key,
                                       struct att_err *err);

/* ---- frozen.c ------------------------------------------------------------------------------- */
ATT_MUST_USE enum att_rc keyd_frozen_load(struct keyd *keyd, struct att_err *err);
/* ATT_E_DENIED frozen. */
ATT_MUST_USE enum att_rc keyd_frozen_check(struct keyd *keyd, const char *agent,
                                           struct att_err *err);

/* ---- issuer.c ------------------------------------------------------------------------------- */
ATT_MUST_USE enum att_rc keyd_issuer_load(struct keyd *keyd, struct att_err *err);
/* A copy for the caller to free(); while there is no account, what the ticket names now.
 * ATT_E_CONFLICT issuerUnknown. */
ATT_MUST_USE enum att_rc keyd_issuer_get(struct keyd *keyd, char **ret_url, struct att_err *err);
/* The account key is about to sign as an account there: from now on no ticket leads elsewhere. */
ATT_MUST_USE enum att_rc keyd_issuer_keep(struct keyd *keyd, const char *url, struct att_err *err);
/* Is url at or below base: same scheme, host, port, path prefix? Neither may have user, query,
 * fragment, dot segments, percent escapes of dots or slashes, or backslashes. */
ATT_MUST_USE enum att_rc keyd_url_under(const char *base, struct att_slice url,
                                        struct att_err *err);

/* ---- jwsguard.c ----------------------------------------------------------------------------- */
/* May this protected header be signed? Reasons: jwsHeader, jwsAlg, jwsUrl, jwsKid, jwsJwk. ret_kid:
 * it names an account by kid. */
ATT_MUST_USE enum att_rc keyd_jws_check(struct att_slice protected_json, const char *issuer_url,
                                        const json_t *own_jwk, bool *ret_kid, struct att_err *err);

/* ---- account.c ------------------------------------------------------------------------------ */
/* Loads account.pem when it is there (on the bring-up). */
ATT_MUST_USE enum att_rc keyd_account_load(struct keyd *keyd, struct att_err *err);
/* Seals it anew under the storage parent, if it is not there. */
ATT_MUST_USE enum att_rc keyd_account_reseal(struct keyd *keyd, struct att_err *err);
/* The thumbprint, making the key at first use. */
ATT_MUST_USE enum att_rc keyd_account_need(struct keyd *keyd, char ret_thumb[ACME_THUMBPRINT_LEN],
                                           struct att_err *err);

/* ---- sign.c --------------------------------------------------------------------------------- */
proc_handler_fn keyd_sign_serve;

/* ---- jws.c ---------------------------------------------------------------------------------- */
void keyd_series_done(struct keyd *keyd);

/* ---- prove.c -------------------------------------------------------------------------------- */
/* The credential, activated. ATT_E_AUTH activation. Appends; the caller wipes it. */
ATT_MUST_USE enum att_rc keyd_activate(struct keyd *keyd, struct att_slice blob,
                                       struct att_slice secret, struct att_buf *ret_value,
                                       struct att_err *err);
/* A token, a dot and the account's own thumbprint (RFC 8555 §8.1). ATT_E_DENIED keyAuthorization.
 */
ATT_MUST_USE enum att_rc keyd_check_key_authorization(struct keyd *keyd, struct att_slice text,
                                                      struct att_err *err);
/* fn (certs/csr.h) with a key on P-256 of any store. */
typedef enum att_rc keyd_csr_fn(EVP_PKEY *key, const char *text, struct att_buf *ret_der,
                                struct att_err *err);
ATT_MUST_USE enum att_rc keyd_csr_create(struct keyd *keyd, const struct keyd_key *key,
                                         keyd_csr_fn *fn, const char *text, struct att_buf *ret_der,
                                         struct att_err *err);

/* ---- bringup.c ------------------------------------------------------------------------------ */
void *keyd_bringup_thread(void *keyd);
/* ATT_OK when the TPM can be asked; else what to answer. */
ATT_MUST_USE enum att_rc keyd_ready(struct keyd *keyd, struct att_err *err);
/* Runs fn when it is its turn at the TPM. */
ATT_MUST_USE enum att_rc keyd_run(struct keyd *keyd, enum tpm_op op, enum tpm_prio prio,
                                  const char *agent, tpm_queue_fn *fn, void *arg,
                                  struct att_err *err);
/* In a job: EK, AK, SRK of this TPM, from memory when they are known. */
ATT_MUST_USE enum att_rc keyd_worker_identity(struct keyd *keyd, struct tpm_context *ctx,
                                              struct att_err *err);
void keyd_worker_done(struct keyd_worker *worker);

/* ---- the operations: one function each, in the files of their subject ------------------------ */
#define KEYD_OPERATION(name)                                                                       \
    enum att_rc keyd_op_##name(struct keyd *keyd, const struct proc_op *op,                        \
                               const struct proc_msg *request, struct att_buf *ret_payload,        \
                               struct att_err *err)
KEYD_OPERATION(info);
KEYD_OPERATION(identity);
KEYD_OPERATION(account);
KEYD_OPERATION(account_sign);
KEYD_OPERATION(sign_start);
KEYD_OPERATION(sign_part);
KEYD_OPERATION(sign_end);
KEYD_OPERATION(issuer);
KEYD_OPERATION(enrol_prove);
KEYD_OPERATION(key_create);
KEYD_OPERATION(key_list);
KEYD_OPERATION(key_evidence);
KEYD_OPERATION(key_csr);
KEYD_OPERATION(key_activate);
KEYD_OPERATION(key_retire);
KEYD_OPERATION(key_destroy);
KEYD_OPERATION(key_certify);
KEYD_OPERATION(key_csr_device);
KEYD_OPERATION(user_quote);
KEYD_OPERATION(ak_creation);
KEYD_OPERATION(ak_activate);
KEYD_OPERATION(freeze);
KEYD_OPERATION(thaw);

/* A text field as a C string; the shape's bounds make it fit. */
void keyd_text(struct att_slice text, char *ret, size_t room);
#define KEYD_TEXT(slice, array) keyd_text((slice), (array), sizeof(array))
enum att_rc keyd_deny(struct att_err *err, const char *reason, const char *fmt, ...)
    ATT_PRINTF(3, 4);

#endif
