#include "provision/audit/tree.h"

#include <stdbool.h>
#include <string.h>

struct audit_hash audit_tree_leaf(struct att_slice entry)
{
    struct audit_hash hash;
    const struct att_slice parts[] = {ATT_SLICE("\0", 1), entry};
    att_sha256_v(hash.bytes, parts, 2);
    return hash;
}

struct audit_hash audit_tree_node(const struct audit_hash *left, const struct audit_hash *right)
{
    struct audit_hash hash;
    const struct att_slice parts[] = {ATT_SLICE("\1", 1), ATT_SLICE_ARRAY(left->bytes),
                                      ATT_SLICE_ARRAY(right->bytes)};
    att_sha256_v(hash.bytes, parts, 3);
    return hash;
}

/* ---- growing
 * ------------------------------------------------------------------------------------ */

unsigned audit_tree_width(uint64_t size, unsigned level)
{
    return level < AUDIT_LEVELS ? (unsigned)(size >> 8 * level) & (AUDIT_TILE_WIDTH - 1) : 0;
}

/* The root of 256 hashes. */
static struct audit_hash tile_root(const struct audit_hash *hashes)
{
    struct audit_hash h[AUDIT_TILE_WIDTH];
    memcpy(h, hashes, sizeof h);
    for (unsigned n = AUDIT_TILE_WIDTH; n > 1; n /= 2) {
        for (unsigned i = 0; i < n / 2; i++) {
            h[i] = audit_tree_node(&h[2 * i], &h[2 * i + 1]);
        }
    }
    return h[0];
}

enum att_rc audit_tree_append(struct audit_tree *tree, const struct audit_hash *leaf,
                              audit_tile_fn full, void *user, struct att_err *err)
{
    struct audit_hash hash = *leaf;
    if (tree->size >= AUDIT_SIZE_MAX) {
        return att_fail(err, ATT_E_LIMIT, "audit log: it is full");
    }
    for (unsigned level = 0; level < AUDIT_LEVELS; level++) {
        unsigned n = audit_tree_width(tree->size, level);
        tree->tile[level][n] = hash;
        if (n + 1 < AUDIT_TILE_WIDTH) {
            break;
        }
        enum att_rc rc =
            full ? full(user, level, tree->size >> 8 * (level + 1), tree->tile[level], err)
                 : ATT_OK;
        if (rc) {
            return rc;
        }
        hash = tile_root(tree->tile[level]);
    }
    tree->size++;
    return ATT_OK;
}

/* Roots of perfect subtrees, the smallest first: a fold from the right (RFC 9162 §2.1.1). */
struct audit_hash audit_tree_root(const struct audit_tree *tree)
{
    struct audit_hash acc = {{0}};
    bool any = false;
    for (unsigned level = 0; level < AUDIT_LEVELS; level++) {
        unsigned n = audit_tree_width(tree->size, level);
        for (unsigned part = 1; part < AUDIT_TILE_WIDTH; part *= 2) {
            if (!(n & part)) {
                continue;
            }
            struct audit_hash h[AUDIT_TILE_WIDTH];
            unsigned from = n & ~(2 * part - 1);
            memcpy(h, tree->tile[level] + from, part * sizeof *h);
            for (unsigned m = part; m > 1; m /= 2) {
                for (unsigned i = 0; i < m / 2; i++) {
                    h[i] = audit_tree_node(&h[2 * i], &h[2 * i + 1]);
                }
            }
            acc = any ? audit_tree_node(&h[0], &acc) : h[0];
            any = true;
        }
    }
    if (!any) {
        att_sha256(acc.bytes, ATT_SLICE(NULL, 0));
    }
    return acc;
}

/* ---- hashes of ranges, and proofs
 * -------------------------------------------------------------- */

struct reader {
    audit_read_fn read;
    void *user;
};

/* The largest power of two below n; n > 1. */
static uint64_t split(uint64_t n)
{
    uint64_t k = 1;
    while (k < n - k) {
        k *= 2;
    }
    return k;
}

static unsigned log2_of(uint64_t n)
{
    unsigned bits = 0;
    while (n > 1) {
        n /= 2;
        bits++;
    }
    return bits;
}

/* The root of the leaves from … from + n - 1, as RFC 9162 cuts them: n ≥ 1, and from is a multiple
 * of the power of two that n fits in. What stands in a tile is read; depth is at most 63. */
static enum att_rc range(const struct reader *r, uint64_t from, uint64_t n,
                         struct audit_hash *ret_hash, struct att_err *err)
{
    unsigned bits = log2_of(n);
    if (n == (uint64_t)1 << bits && bits % 8 == 0) {
        return r->read(r->user, bits / 8, from >> bits, ret_hash, err);
    }
    struct audit_hash left, right;
    uint64_t k = split(n);
    enum att_rc rc = range(r, from, k, &left, err);
    if (!rc) {
        rc = range(r, from + k, n - k, &right, err);
    }
    if (!rc) {
        *ret_hash = audit_tree_node(&left, &right);
    }
    return rc;
}

enum att_rc audit_root_at(uint64_t size, audit_read_fn read, void *user,
                          struct audit_hash *ret_root, struct att_err *err)
{
    struct reader r = {read, user};
    if (size == 0) {
        att_sha256(ret_root->bytes, ATT_SLICE(NULL, 0));
        return ATT_OK;
    }
    return range(&r, 0, size, ret_root, err);
}

static void reverse(struct audit_proof *proof)
{
    for (size_t i = 0; i < proof->n / 2; i++) {
        struct audit_hash swap = proof->hash[i];
        proof->hash[i] = proof->hash[proof->n - 1 - i];
        proof->hash[proof->n - 1 - i] = swap;
    }
}

enum att_rc audit_prove_inclusion(uint64_t index, uint64_t size, audit_read_fn read, void *user,
                                  struct audit_proof *ret_proof, struct att_err *err)
{
    struct reader r = {read, user};
    struct audit_proof proof = {0};
    uint64_t from = 0;
    if (index >= size || size > AUDIT_SIZE_MAX) {
        return att_fail(err, ATT_E_INVAL, "audit log: leaf %llu is not below the size %llu",
                        (unsigned long long)index, (unsigned long long)size);
    }
    while (size > 1) {
        uint64_t k = split(size);
        bool left = index < k;
        enum att_rc rc = left ? range(&r, from + k, size - k, &proof.hash[proof.n], err)
                              : range(&r, from, k, &proof.hash[proof.n], err);
        if (rc) {
            return rc;
        }
        proof.n++;
        from += left ? 0 : k;
        index -= left ? 0 : k;
        size = left ? k : size - k;
    }
    reverse(&proof);
    *ret_proof = proof;
    return ATT_OK;
}

enum att_rc audit_prove_consistency(uint64_t old, uint64_t size, audit_read_fn read, void *user,
                                    struct audit_proof *ret_proof, struct att_err *err)
{
    struct reader r = {read, user};
    struct audit_proof proof = {0};
    uint64_t from = 0;
    bool whole = true; /* the old tree is what is looked at, whose root is known */
    if (old == 0 || old > size || size > AUDIT_SIZE_MAX) {
        return att_fail(err, ATT_E_INVAL, "audit log: size %llu does not follow size %llu",
                        (unsigned long long)size, (unsigned long long)old);
    }
    while (old < size) {
        uint64_t k = split(size);
        bool left = old <= k;
        enum att_rc rc = left ? range(&r, from + k, size - k, &proof.hash[proof.n], err)
                              : range(&r, from, k, &proof.hash[proof.n], err);
        if (rc) {
            return rc;
        }
        proof.n++;
        whole = whole && left;
        from += left ? 0 : k;
        old -= left ? 0 : k;
        size = left ? k : size - k;
    }
    enum att_rc rc = whole ? ATT_OK : range(&r, from, size, &proof.hash[proof.n], err);
    if (rc) {
        return rc;
    }
    proof.n += whole ? 0 : 1;
    reverse(&proof);
    *ret_proof = proof;
    return ATT_OK;
}
