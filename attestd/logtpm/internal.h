/* What serve.c, tpm.c and acts.c share. */
#ifndef ATTESTD_LOGTPM_INTERNAL_H
#define ATTESTD_LOGTPM_INTERNAL_H

#include "attestd/base/hash.h"
#include "attestd/base/secret.h"
#include "attestd/logtpm/logtpm.h"
#include "attestd/proc/ipc.h"
#include "tpm/counter.h"
#include "tpm/key.h"
#include "tpm/tss2pem.h"

#include <pthread.h>

#define LOGTPM_PATH 1100

struct logtpm {
    struct logtpm_opts opts;
    char dir[1024], tcti[1024], owner_file[1100]; /* owner_file: "" for none */
    int lock_fd;
    struct proc_server *server;

    pthread_mutex_t lock; /* everything below; held over calls to the TPM: it is serial anyway */
    struct tpm_context *ctx;
    bool owner_known;   /* the password was tried on this connection, or none is needed */
    bool owner_refused; /* this one was: it is not tried again by this process */
    uint8_t owner_digest[ATT_SHA256_LEN];
    bool ready;
    struct att_err why; /* why not */
    uint8_t key_auth[TPM_KEY_AUTH_LEN], counter_auth[TPM_KEY_AUTH_LEN];
    struct tpm_blob key;
    uint8_t spki[AUDIT_P256_SPKI_LEN];
    struct logtpm_record record;
    uint64_t counter;
    unsigned long long signatures;
};

void logtpm_path(const struct logtpm *logtpm, const char *name, char ret[LOGTPM_PATH]);
ATT_MUST_USE enum att_rc logtpm_refuse(struct att_err *err, enum att_rc rc, const char *reason,
                                       const char *fmt, ...) ATT_PRINTF(4, 5);

/* lock is held in all of these. */

/* owner.c: the owner's password, from its file, tried once. ATT_E_DENIED "ownerPassword"; its file
 * cannot be used: "ownerPasswordFile". */
ATT_MUST_USE enum att_rc logtpm_owner(struct logtpm *logtpm, struct att_err *err);
/* TPM, secret, record, counter, key; whatever of it is not there yet. */
ATT_MUST_USE enum att_rc logtpm_bring_up(struct logtpm *logtpm, struct att_err *err);
/* Only TPM and secret: for what an operator does. */
ATT_MUST_USE enum att_rc logtpm_open_secret(struct logtpm *logtpm, struct att_err *err);
/* The counter as it is now. ATT_E_CONFLICT "counterGone", "counterForeign". */
ATT_MUST_USE enum att_rc logtpm_read_counter(struct logtpm *logtpm, uint64_t *ret_value,
                                             struct att_err *err);
/* The same, and its authValue is this folder's. */
ATT_MUST_USE enum att_rc logtpm_own_counter(struct logtpm *logtpm, struct att_err *err);
/* Into the file, then into memory. */
ATT_MUST_USE enum att_rc logtpm_keep(struct logtpm *logtpm, const struct logtpm_record *record,
                                     struct att_err *err);
ATT_MUST_USE enum att_rc logtpm_load_record(struct logtpm *logtpm, struct att_err *err);

#endif
