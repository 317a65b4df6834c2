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
};

/* A refusal of ours, with its word. */
enum att_rc audit_refuse(struct att_err *err, const char *reason, const char *fmt, ...)
    ATT_PRINTF(3, 4);
/* Signs by the key, and by the one before where there is one. */
ATT_MUST_USE enum att_rc audit_log_sign(const struct audit_log *log, uint64_t size,
                                        const struct audit_hash *root, struct att_buf *ret_note,
                                        struct att_err *err);
/* Reads a checkpoint that the log's key, or the one before, signed. ATT_E_NOTFOUND: no file. note
 * (may be NULL) gets the file's bytes. */
ATT_MUST_USE enum att_rc audit_log_read_signed(const struct audit_log *log, const char *file,
                                               struct audit_checkpoint *ret_checkpoint,
                                               struct att_buf *note, struct att_err *err);
void audit_log_guard_file(const char *state_dir, char ret[AUDIT_FILE_ROOM]);
void audit_log_checkpoint_file(const char *state_dir, char ret[AUDIT_FILE_ROOM]);

#endif
