/* A log's folder: tiles, bundles and the checkpoint, as they are served. Inside provision/audit. */
#ifndef PROVISION_AUDIT_FILES_H
#define PROVISION_AUDIT_FILES_H

#include "provision/audit/note.h"
#include "provision/audit/tile.h"

#define AUDIT_FILE_ROOM 4096

/* Writes <dir>/<tile's path>, file and every new folder synced. */
ATT_MUST_USE enum att_rc audit_files_put(const char *dir, const struct audit_tile *tile,
                                         struct att_slice bytes, struct att_err *err);
/* Removes the partial ones of a tile that is full now; what cannot be removed stays. */
void audit_files_drop_partial(const char *dir, int level, uint64_t index);
/* Appends a tile's or bundle's bytes; a partial one that is not there is the beginning of any
 * wider one. ATT_E_NOTFOUND. */
ATT_MUST_USE enum att_rc audit_files_get(const char *dir, const struct audit_tile *tile,
                                         struct att_buf *ret_bytes, struct att_err *err);

/* Reads hashes for proofs in the tree of a size: an audit_read_fn. */
struct audit_files_reader {
    const char *dir;
    uint64_t size;
    struct audit_tile at;
    struct att_buf tile; /* att_buf_done it */
};
ATT_MUST_USE enum att_rc audit_files_hash(void *user, unsigned level, uint64_t index,
                                          struct audit_hash *ret_hash, struct att_err *err);

#endif
