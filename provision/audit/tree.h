/* A Merkle tree that only grows (RFC 9162 §2.1, the same as RFC 6962 §2.1), in SHA-256, cut into
 * tiles of 256 hashes (C2SP tlog-tiles). Pure: no I/O, no allocation. Not for two threads at once.
 *
 * Hash i of level l (l = 0 … 7) is the root of the 256^l leaves from i * 256^l on; tile n of a
 * level holds its hashes 256 n … 256 n + 255. Sizes and indexes are numbers of leaves. */
#ifndef PROVISION_AUDIT_TREE_H
#define PROVISION_AUDIT_TREE_H

#include "attestd/base/err.h"
#include "attestd/base/hash.h"
#include "attestd/base/slice.h"

#include <stdint.h>

#define AUDIT_HASH_LEN   ATT_SHA256_LEN
#define AUDIT_TILE_WIDTH 256
#define AUDIT_LEVELS     8
/* Of an inclusion proof or, with the first hash, of a consistency proof (RFC 9162 §2.1.3, .4). */
#define AUDIT_PROOF_MAX 65
#define AUDIT_SIZE_MAX  INT64_MAX

struct audit_hash {
    uint8_t bytes[AUDIT_HASH_LEN];
};

struct audit_hash audit_tree_leaf(struct att_slice entry);       /* H(0x00 ‖ entry) */
struct audit_hash audit_tree_node(const struct audit_hash *left, /* H(0x01 ‖ l ‖ r) */
                                  const struct audit_hash *right);

/* The right edge of a tree: of each level the tile that is not full yet. {0} is the empty tree;
 * copied by assignment. */
struct audit_tree {
    uint64_t size;
    struct audit_hash tile[AUDIT_LEVELS][AUDIT_TILE_WIDTH];
};

/* Hears of each tile as it gets full; hashes are the 256 of it, borrowed. */
typedef enum att_rc (*audit_tile_fn)(void *user, unsigned level, uint64_t index,
                                     const struct audit_hash *hashes, struct att_err *err);
/* Appends a leaf; full may be NULL. On failure of full the tree is spoilt. */
ATT_MUST_USE enum att_rc audit_tree_append(struct audit_tree *tree, const struct audit_hash *leaf,
                                           audit_tile_fn full, void *user, struct att_err *err);
/* Hashes in the level's tile that is not full; 0: there is none. */
unsigned audit_tree_width(uint64_t size, unsigned level);
struct audit_hash audit_tree_root(const struct audit_tree *tree); /* of no leaves: H() */

/* Hash index of a level, for proofs: from tiles, from memory. */
typedef enum att_rc (*audit_read_fn)(void *user, unsigned level, uint64_t index,
                                     struct audit_hash *ret_hash, struct att_err *err);

struct audit_proof {
    size_t n;
    struct audit_hash hash[AUDIT_PROOF_MAX];
};

/* RFC 9162 §2.1.3.1: that leaf index is in the tree of this size. ATT_E_INVAL when it is not
 * below size. */
ATT_MUST_USE enum att_rc audit_prove_inclusion(uint64_t index, uint64_t size, audit_read_fn read,
                                               void *user, struct audit_proof *ret_proof,
                                               struct att_err *err);
/* RFC 9162 §2.1.4.1: that the tree of this size begins with the one of old leaves; 0 < old ≤ size.
 */
ATT_MUST_USE enum att_rc audit_prove_consistency(uint64_t old, uint64_t size, audit_read_fn read,
                                                 void *user, struct audit_proof *ret_proof,
                                                 struct att_err *err);
/* The root of the first size leaves. */
ATT_MUST_USE enum att_rc audit_root_at(uint64_t size, audit_read_fn read, void *user,
                                       struct audit_hash *ret_root, struct att_err *err);

/* RFC 9162 §2.1.3.2. ATT_E_AUTH with reason "proofPath" when it does not lead to the root, or has
 * another length than index and size ask for. */
ATT_MUST_USE enum att_rc audit_check_inclusion(uint64_t index, uint64_t size,
                                               const struct audit_hash *leaf,
                                               const struct audit_proof *proof,
                                               const struct audit_hash *root, struct att_err *err);
/* RFC 9162 §2.1.4.2. ATT_E_AUTH with reason "proofConsistency". */
ATT_MUST_USE enum att_rc audit_check_consistency(uint64_t old, const struct audit_hash *old_root,
                                                 uint64_t size, const struct audit_hash *root,
                                                 const struct audit_proof *proof,
                                                 struct att_err *err);

#endif
