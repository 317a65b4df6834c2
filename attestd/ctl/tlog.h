/* A verifier of the issuer's audit log that has nothing of the code which writes it: its own notes,
 * tree, tiles, paths. It believes the key that it is given, and hashes.
 *
 * Reasons of its refusals (ATT_E_AUTH, ATT_E_PARSE): "logKey" "logNote" "logSignature"
 * "logCheckpoint" "logOrigin" "logTruncated" "logEntries" "logEntry" "logRoot" "logTile"
 * "logForked" "logTpmKey" "logTpmMissing" "logTpmSignature" "logCounter" "proofForm" "proofIndex"
 * "proofPath" "proofRecord". */
#ifndef ATTESTD_CTL_TLOG_H
#define ATTESTD_CTL_TLOG_H

#include "attestd/base/buf.h"

#define TLOG_HASH     32
#define TLOG_NAME_MAX 255
#define TLOG_NOTE_MAX ((size_t)16 << 10)
#define TLOG_SIZE_MAX ((uint64_t)1 << 27) /* leaves that are verified: 4 GiB of hashes */
#define TLOG_PATH_MAX 64

struct tlog_key {
    char name[TLOG_NAME_MAX + 1];
    uint8_t id[4], key[32];
};
/* Text "NAME+ID+BASE64". */
ATT_MUST_USE enum att_rc tlog_key_parse(struct att_slice text, struct tlog_key *ret_key,
                                        struct att_err *err);
/* Such a text, or a file with it. */
ATT_MUST_USE enum att_rc tlog_key_get(const char *word, struct tlog_key *ret_key,
                                      struct att_err *err);

struct tlog_head {
    char origin[TLOG_NAME_MAX + 1];
    uint64_t size;
    uint8_t root[TLOG_HASH];
};
/* A checkpoint whose signature by key holds, of the log that key is for. */
ATT_MUST_USE enum att_rc tlog_head_open(struct att_slice note, const struct tlog_key *key,
                                        struct tlog_head *ret_head, struct att_err *err);

/* The TPMs of a log's issuers, of which one has to have signed, too. */
#define TLOG_SPKI         91 /* P-256, DER */
#define TLOG_TPM_KEYS_MAX 16
struct tlog_tpm_key {
    char name[TLOG_NAME_MAX + 1];
    uint8_t id[4], spki[TLOG_SPKI];
};
struct tlog_tpm_keys {
    struct tlog_tpm_key key[TLOG_TPM_KEYS_MAX];
    size_t n;
};
/* Lines "NAME+ID+BASE64". */
ATT_MUST_USE enum att_rc tlog_tpm_keys_parse(struct att_slice text, struct tlog_tpm_keys *ret_keys,
                                             struct att_err *err);
/* Such text, or a file with it. */
ATT_MUST_USE enum att_rc tlog_tpm_keys_get(const char *word, struct tlog_tpm_keys *ret_keys,
                                           struct att_err *err);
struct tlog_tpm_seen {
    int which;        /* of the keys */
    uint64_t counter; /* that the checkpoint names; 0: none */
};
/* Of a checkpoint that tlog_head_open took. "logTpmMissing", "logTpmSignature". */
ATT_MUST_USE enum att_rc tlog_tpm_check(struct att_slice note, const struct tlog_tpm_keys *keys,
                                        struct tlog_tpm_seen *ret_seen, struct att_err *err);

void tlog_leaf(struct att_slice entry, uint8_t ret[TLOG_HASH]);
void tlog_node(const uint8_t left[TLOG_HASH], const uint8_t right[TLOG_HASH],
               uint8_t ret[TLOG_HASH]);
/* The root of n leaf hashes (n * 32 bytes), 0 for none. ATT_E_NOMEM. */
ATT_MUST_USE enum att_rc tlog_root(const uint8_t *hashes, uint64_t n, uint8_t ret[TLOG_HASH],
                                   struct att_err *err);
/* The root to which a leaf's inclusion proof leads; false when the proof has another length than
 * index and size ask for. */
bool tlog_path_root(uint64_t index, uint64_t size, const uint8_t leaf[TLOG_HASH],
                    const uint8_t (*path)[TLOG_HASH], size_t n, uint8_t ret[TLOG_HASH]);

enum att_rc tlog_refuse(struct att_err *err, enum att_rc rc, const char *reason, const char *fmt,
                        ...) ATT_PRINTF(4, 5);

/* Where a log lies: a folder, or an https address (ca: PEM file of its root). */
struct tlog_source {
    const char *where;
    struct acme_http *http; /* NULL: a folder */
};
ATT_MUST_USE enum att_rc tlog_source_open(const char *where, const char *ca,
                                          struct tlog_source *ret_source, struct att_err *err);
void tlog_source_close(struct tlog_source *source);
/* Appends the bytes; ATT_E_NOTFOUND. */
ATT_MUST_USE enum att_rc tlog_source_get(const struct tlog_source *source, const char *path,
                                         size_t max, struct att_buf *ret_bytes,
                                         struct att_err *err);

/* An entry of ours: the form's line, the number of the decision, five more, each with its end. */
bool tlog_entry_ok(struct att_slice entry, uint64_t seq);
/* The whole log of a signed head: every entry hashed, the root from them, every tile compared.
 * since (may be NULL): an earlier head which it has to continue. ret_tiles: how many were compared.
 */
ATT_MUST_USE enum att_rc tlog_verify(const struct tlog_source *source, const struct tlog_head *head,
                                     const struct tlog_head *since, uint64_t *ret_tiles,
                                     struct att_err *err);

/* What `audit prove` prints. Owned. */
struct tlog_proof {
    uint64_t seq, index;
    struct att_buf leaf, checkpoint, record; /* record is empty when it was erased */
    uint8_t salt[32];
    bool has_record;
    uint8_t path[TLOG_PATH_MAX][TLOG_HASH];
    size_t n;
};
void tlog_proof_done(struct tlog_proof *proof);
/* ATT_E_PARSE with reason "proofForm". */
ATT_MUST_USE enum att_rc tlog_proof_parse(struct att_slice json, struct tlog_proof *ret_proof,
                                          struct att_err *err);
/* Signature, inclusion, and that the leaf was made of that record. */
ATT_MUST_USE enum att_rc tlog_proof_check(const struct tlog_proof *proof,
                                          const struct tlog_key *key, struct tlog_head *ret_head,
                                          struct att_err *err);

#endif
