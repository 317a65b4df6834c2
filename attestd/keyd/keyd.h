/* keyd: the process that opens the TPM and holds the keys. It answers the requests of
 * attestd/proc/keyd_proto.h and nothing else.
 *
 * Its folder (state_dir/keyd):
 *   lock                 held by flock as long as it runs: two keyd on one folder are refused
 *   host.pem             the host secret, sealed under the SRK; every authValue is derived from it
 *   parent.pem           the storage parent, where sealing is on: host.pem, account.pem and agents'
 *                        new keys stand under it, not under the SRK
 *   parent.json          what is known of it: the mode, the policy counter, PCR 7
 *   tickets.json         what the TPM said of the policies' signatures, for speed alone
 *   account.pem          the ACME account key, sealed, with an authValue
 *   agents/<id>.pem      an agent's key (TSS2 PEM), agents/<id>.json what we know of it
 *   agents/<id>.hsm      an agent's key in the HSM: what we know of it
 *   frozen.json          agents that are frozen
 *   issuer.json          the issuer where the account is: no ticket leads elsewhere any more
 * A file that does not parse is set aside as .bad and reported in INFO. Files sealed in another TPM
 * (or before this one was cleared) are never replaced: keyd says so and refuses. */
#ifndef ATTESTD_KEYD_KEYD_H
#define ATTESTD_KEYD_KEYD_H

#include "attestd/base/err.h"
#include "attestd/proc/peer.h"
#include "attestd/proc/sandbox.h"

struct keyd;

enum keyd_event {
    KEYD_EVENT_READY,    /* the TPM answered and the host secret is open */
    KEYD_EVENT_WAITING,  /* the TPM is away; tried again with pauses. err says why */
    KEYD_EVENT_FAILED,   /* will not work without an operator. err says why */
    KEYD_EVENT_BAD,      /* a file was set aside; what: its name */
    KEYD_EVENT_REFUSED,  /* a request was refused; what: the operation */
    KEYD_EVENT_SKIPPED,  /* an EK certificate in NV was not read; what: the index */
    KEYD_EVENT_SEALED,   /* the TPM refuses this boot, or no policy is in force; err says why */
    KEYD_EVENT_OPENED,   /* the storage parent was opened; what: by which boot of which policy */
    KEYD_EVENT_RECOVERY, /* by a recovery approval, at that */
    KEYD_EVENT_COUNTER,  /* of the policy counter; what: what was done, err: what was not */
    KEYD_EVENT_MIGRATED, /* moved under the storage parent, or given up; what: which file */
    KEYD_EVENT_POLICY,   /* a file of the policies' folder is of no use; what: its name */
    KEYD_EVENT_EXPORTED, /* a private key was given away; what: "key <id> agent <name>" */
    KEYD_EVENT_CREATED,  /* something was created; what: "hostSecret", "account", "key <id>" */
};

/* How many signatures an agent may ask for; burst of them at once. per_second 0: any number. */
struct keyd_quota {
    uint32_t per_second, burst;
};

/* What gates the loading of keys (docs/OPERATIONS.md, "Sealing"). */
enum keyd_pcr_mode {
    KEYD_PCR_NONE,   /* nothing: they stand under the SRK */
    KEYD_PCR_7,      /* PCR 7 as it was when the storage parent was made */
    KEYD_PCR_SIGNED, /* PCR policies that the policy key signed */
};
struct keyd_sealing {
    enum keyd_pcr_mode mode;
    const char *policy_key;   /* PEM file; these three with KEYD_PCR_SIGNED alone */
    const char *policy_ref;   /* text */
    const char *policies_dir; /* *.json in it are looked at */
};

/* An HSM's module, that is, an attestd-hsmd. */
#define KEYD_HSMS_MAX 4
struct keyd_hsm_opts {
    const char *name;        /* at most PROC_HSM_NAME_MAX */
    const char *socket_path; /* run_dir/hsm/NAME/hsm.sock */
    uid_t user;              /* who serves there, beside root */
};

/* What another server than an attest-issuerd may be told (device.c). */
enum keyd_acme {
    KEYD_ACME_NONE, /* the issuer is an attest-issuerd */
    KEYD_ACME,      /* TPM2_Certify alone, CSRs for permanent identifiers */
    KEYD_ACME_CA,   /* and an attestation CA: the AK's creation, solved credentials */
};

struct keyd_opts {
    const char *tcti;
    struct keyd_sealing sealing;
    const char *dir;              /* state_dir/keyd; made if absent, mode 0700 */
    const char *socket_path;      /* run_dir/keyd/keyd.sock */
    const char *sign_socket_path; /* run_dir/keyd/sign.sock; NULL: no such socket */
    const char *issuer_url;       /* NULL: from issuer.json, or the ticket */
    const char *ticket_path;      /* NULL: none */
    enum keyd_acme acme;
    bool ak_rsa;                      /* an RSA AK (tpm/context.h): acme.ak */
    struct proc_users clients;        /* who may ask on socket_path */
    struct proc_users signers;        /* who may ask on sign_socket_path: tokend, spiffed */
    struct proc_users exporters;      /* which of these may ask for keys: spiffed; none: nobody */
    const struct keyd_hsm_opts *hsms; /* the default first */
    size_t n_hsms;                    /* 0: this host has no HSM; at most KEYD_HSMS_MAX */
    struct keyd_quota quota;          /* of each agent on sign_socket_path */
    /* Called from several threads; may be NULL. what and err may be NULL. */
    void (*on_event)(void *user, enum keyd_event event, const char *what,
                     const struct att_err *err);
    void *user;
};

/* Takes the folder's lock, reads its files and binds the socket; opens no TPM and reads nothing
 * from anybody yet, so that the sandbox can be entered next. ATT_E_CONFLICT: another keyd. */
ATT_MUST_USE enum att_rc keyd_new(const struct keyd_opts *opts, struct keyd **ret_keyd,
                                  struct att_err *err);
/* For INFO; copied. */
void keyd_set_sandbox(struct keyd *keyd, const struct proc_sandbox_report *report);
/* Starts to serve and to bring up the TPM, each in threads of its own. */
ATT_MUST_USE enum att_rc keyd_start(struct keyd *keyd, struct att_err *err);
/* Another issuer URL from now on (a reloaded configuration); NULL: as in issuer.json, or the
 * ticket. */
ATT_MUST_USE enum att_rc keyd_set_issuer(struct keyd *keyd, const char *url, struct att_err *err);
void keyd_set_acme(struct keyd *keyd, enum keyd_acme acme);
/* Another ticket file from now on; NULL: none. */
ATT_MUST_USE enum att_rc keyd_set_ticket(struct keyd *keyd, const char *path, struct att_err *err);
/* Reads the PCR policies anew, if keyd is ready; while it is sealed it does so by itself. */
ATT_MUST_USE enum att_rc keyd_reload_policies(struct keyd *keyd, struct att_err *err);
/* A sentence for systemd's status line. */
void keyd_status(struct keyd *keyd, char *ret, size_t room);
void keyd_free(struct keyd *keyd);

/* attestd-keyd's main: --config F, --client USER, --check, --help, --version. Returns the exit
 * status. */
int keyd_main(int argc, char **argv);

#endif
