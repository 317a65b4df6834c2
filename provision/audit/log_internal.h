/* What log.c, publish.c and prove.c share. */
#ifndef PROVISION_AUDIT_LOG_INTERNAL_H
#define PROVISION_AUDIT_LOG_INTERNAL_H

#include "provision/audit/files.h"
#include "provision/audit/log.h"

struct audit_log {
    char state_dir[AUDIT_FILE_ROOM - 256], dir[AUDIT_FILE_ROOM - 128];
    struct audit_key key, before;
    struct audit_tree tree; /* of what is published */
    struct audit_tree *work;
    uint64_t quiet_until; /* leaves that were there at the start: no checkpoint of fewer */
    /* The second signer, where there is one */
    bool cosigns;
    struct audit_cosigner cosigner;
    struct audit_p256_vkey tpm_vkey;
    struct audit_checkpoint last; /* that it signed */
    uint64_t counter;             /* the TPM's */
    uint64_t written;             /* of the checkpoint on the disk */
    int64_t raise_at_ms;          /* the counter, with the next checkpoint from then on */
    bool loose; /* checkpoints were written since the first one of this counter: a copy of an
                   earlier one would pass */
};

/* A refusal of ours, with its word. */
enum att_rc audit_refuse(struct att_err *err, const char *reason, const char *fmt, ...)
    ATT_PRINTF(3, 4);
/* Signs by the key, and by the one before where there is one; the origin is the log's. */
ATT_MUST_USE enum att_rc audit_log_sign(const struct audit_log *log, struct audit_checkpoint *c,
                                        struct att_buf *ret_note, struct att_err *err);
/* Reads a checkpoint that the log's key, or the one before, signed. ATT_E_NOTFOUND: no file. note
 * (may be NULL) gets the file's bytes. */
ATT_MUST_USE enum att_rc audit_log_read_signed(const struct audit_log *log, const char *file,
                                               struct audit_checkpoint *ret_checkpoint,
                                               struct att_buf *note, struct att_err *err);
void audit_log_guard_file(const char *state_dir, char ret[AUDIT_FILE_ROOM]);
void audit_log_checkpoint_file(const char *state_dir, char ret[AUDIT_FILE_ROOM]);
void audit_log_tpm_vkey_file(const char *state_dir, char ret[AUDIT_FILE_ROOM]);

/* cosign.c: the number for the next checkpoint; its second signature, appended; the counter raised
 * to what is written; whether that is due. */
uint64_t audit_cosign_counter(const struct audit_log *log, bool raise);
ATT_MUST_USE enum att_rc audit_cosign_note(struct audit_log *log, const struct audit_checkpoint *c,
                                           struct att_buf *note, struct att_err *err);
/* What the other side signed last, where a call's answer was lost: its next refusal or signature is
 * about that. */
ATT_MUST_USE enum att_rc audit_cosign_look_again(struct audit_log *log, struct att_err *err);
ATT_MUST_USE enum att_rc audit_cosign_settle(struct audit_log *log, struct att_err *err);
bool audit_cosign_due(const struct audit_log *log);

#endif
