/* The audit log of an issuer: a Merkle tree over every record of the store's audit chain, published
 * as files that anybody may have (C2SP tlog-tiles), in state_dir/audit-log.
 *
 * The table is the truth and everything is derived from it: leaves are made under the store's write
 * lock and never change, and a tree follows from its leaves. So whichever issuer publishes, it
 * publishes the same. What was published last stands outside of the database, too
 * (state_dir/audit.checkpoint), and a table that does not continue it is refused. */
#ifndef PROVISION_AUDIT_LOG_H
#define PROVISION_AUDIT_LOG_H

#include "provision/audit/cosign.h"
#include "provision/audit/key.h"
#include "provision/audit/tile.h"
#include "provision/store/store.h"

#define AUDIT_STEP 4096 /* leaves made, and published, at a time */

struct audit_log; /* one thread, except where it is said */

/* Makes the key where there never was one, named origin; looks at the table with respect to what
 * was published. ATT_E_AUTH with reason
 *   "logKey"         the key is gone, and something was published with it; or this issuer joins
 *                    others, and does not have theirs
 *   "logGuard"       audit.checkpoint is gone, or not signed by the log's key
 *   "logRolledBack"  the table has fewer records or leaves than were published
 *   "logForked"      it has others
 *   "logTruncated"   a leaf is missing in it
 * state_dir must hold ca/. joins: this folder is new, of an issuer that joins others on their store
 * with a copy of their ca/; it has published nothing, so it misses no guard, and publishes all.
 * No checkpoint is published of fewer leaves than are there now. */
ATT_MUST_USE enum att_rc audit_log_open(const char *state_dir, const char *origin, bool joins,
                                        struct store *store, struct audit_log **ret_log,
                                        struct att_err *err);
void audit_log_free(struct audit_log *log);
/* Only the key, for `init`: as audit_log_open would make it. */
ATT_MUST_USE enum att_rc audit_log_make_key(const char *state_dir, const char *origin,
                                            struct att_err *err);

/* From now on checkpoints are published with cosigner's signature, and not without it. Right after
 * audit_log_open; copied. Says what the other process knows, and whether its key was not known here
 * before (then audit_log_save_tpm_vkey is called next). ATT_E_AUTH with reason
 *   "logTpmKey"      its key is another than the one that auditors know
 *   "logOrigin"      it signs another log
 *   "logRolledBack"  it has signed more than the table has; the newest checkpoint is older than the
 *                    counter, or newer than its memory
 *   "logForked"      the table has others than it signed
 *   "logCounter"     the newest checkpoint is ahead of the counter: that is another one
 * else what look says. */
ATT_MUST_USE enum att_rc audit_log_cosign(struct audit_log *log, struct store *store,
                                          const struct audit_cosigner *cosigner,
                                          struct audit_cosigned *ret_now, bool *ret_linked,
                                          struct att_err *err);
/* Without a log that is open, and without a database: whether key, log and counter of the second
 * signer fit what state_dir says. Changes nothing. The reasons of audit_log_cosign; "logGuard" is
 * none of them: the start tells. */
ATT_MUST_USE enum att_rc audit_cosign_check(const char *state_dir, const struct audit_cosigned *now,
                                            struct att_err *err);
/* state_dir/audit.tpm.vkey: the key that auditors know. */
ATT_MUST_USE enum att_rc audit_log_save_tpm_vkey(const struct audit_log *log, struct att_err *err);
/* NULL: none. Any thread. */
const struct audit_p256_vkey *audit_log_tpm_vkey(const struct audit_log *log);
/* At the end of the process: the checkpoint that stands gets the next number of the counter, so
 * that no copy of the disk that was made before passes. Nothing without a second signer, or when
 * nothing was published since the last time. */
ATT_MUST_USE enum att_rc audit_log_seal(struct audit_log *log, struct att_err *err);

/* Makes leaves of new records and publishes them, AUDIT_STEP at most: entries, tiles, sync, then
 * the checkpoint. ret_behind: there is more. What fails leaves the last checkpoint whole, and is
 * tried again by the next call; refusals as above. */
ATT_MUST_USE enum att_rc audit_log_publish(struct audit_log *log, struct store *store,
                                           bool *ret_behind, struct att_err *err);
/* Published leaves. */
uint64_t audit_log_size(const struct audit_log *log);
const struct audit_vkey *audit_log_vkey(const struct audit_log *log); /* any thread */

/* Every leaf opens to its record (or the record was erased), and their tree is the published one.
 * ATT_E_AUTH with reason "logLeaf", or one of those above. ret_checkpoint: what was published. Any
 * thread. */
ATT_MUST_USE enum att_rc audit_log_verify(const struct audit_log *log, struct store *store,
                                          struct audit_checkpoint *ret_checkpoint,
                                          struct att_err *err);

/* The proof that a record is in the log, from what is published. Any thread. */
struct audit_inclusion {
    uint64_t index;
    struct audit_checkpoint checkpoint;
    struct att_buf note, leaf, salt; /* salt is empty when the record was erased */
    struct audit_proof proof;
};
void audit_inclusion_done(struct audit_inclusion *inclusion);
/* ATT_E_RETRY with reason "logBehind": not published yet. ATT_E_NOTFOUND. */
ATT_MUST_USE enum att_rc audit_log_prove(const struct audit_log *log, struct store_tx *tx,
                                         int64_t seq, struct audit_inclusion *ret_inclusion,
                                         struct att_err *err);

/* What is served of a log, by its path ("checkpoint" or a tile's). Appends. ATT_E_NOTFOUND. Any
 * thread. ret_final: it will never be anything else. */
ATT_MUST_USE enum att_rc audit_log_read(const char *state_dir, const char *path,
                                        struct att_buf *ret_bytes, bool *ret_final,
                                        struct att_err *err);

#endif
