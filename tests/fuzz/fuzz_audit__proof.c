/* Any bytes as a proof in a tree of 13 leaves: only the one proof that is right is accepted. Input:
 * index, old size, then hashes. */
#include "provision/audit/tree.h"

#include <string.h>

#define LEAVES 13

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum att_rc read_hash(void *user, unsigned level, uint64_t index,
                             struct audit_hash *ret_hash, struct att_err *err)
{
    (void)user;
    (void)err;
    uint8_t entry = (uint8_t)index;
    *ret_hash = audit_tree_leaf(ATT_SLICE(&entry, 1));
    return level == 0 ? ATT_OK : ATT_E_INTERNAL;
}

static bool is(const struct audit_proof *a, const struct audit_proof *b)
{
    return a->n == b->n && memcmp(a->hash, b->hash, a->n * sizeof a->hash[0]) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct audit_proof proof = {0}, right = {0};
    struct audit_hash root, old_root, leaf;
    if (size < 2) {
        return 0;
    }
    uint64_t index = data[0], old = data[1];
    proof.n = (size - 2) / AUDIT_HASH_LEN;
    proof.n = proof.n < AUDIT_PROOF_MAX ? proof.n : AUDIT_PROOF_MAX;
    memcpy(proof.hash, data + 2, proof.n * AUDIT_HASH_LEN);
    if (audit_root_at(LEAVES, read_hash, NULL, &root, NULL) ||
        read_hash(NULL, 0, index, &leaf, NULL)) {
        __builtin_trap();
    }
    if (audit_check_inclusion(index, LEAVES, &leaf, &proof, &root, NULL) == ATT_OK &&
        (audit_prove_inclusion(index, LEAVES, read_hash, NULL, &right, NULL) ||
         !is(&proof, &right))) {
        __builtin_trap();
    }
    if (old > LEAVES || audit_root_at(old, read_hash, NULL, &old_root, NULL)) {
        return 0;
    }
    if (audit_check_consistency(old, &old_root, LEAVES, &root, &proof, NULL) == ATT_OK &&
        (audit_prove_consistency(old, LEAVES, read_hash, NULL, &right, NULL) ||
         !is(&proof, &right))) {
        __builtin_trap();
    }
    return 0;
}
