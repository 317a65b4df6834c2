/* The tree against RFC 6962's own definition and known roots; every way of bending a proof. */
#include "provision/audit/tree.h"

#include "attestd/base/enc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST 66000 /* two full tiles of level 1 would be 131072; one is 65536 */

/* The leaves as a list, and their roots by the recursive definition (RFC 6962 §2.1). */
static struct audit_hash *leaves;

static struct audit_hash mth(size_t from, size_t n)
{
    size_t k = 1;
    if (n == 1) {
        return leaves[from];
    }
    while (2 * k < n) {
        k *= 2;
    }
    struct audit_hash left = mth(from, k), right = mth(from + k, n - k);
    return audit_tree_node(&left, &right);
}

static enum att_rc read_hash(void *user, unsigned level, uint64_t index,
                             struct audit_hash *ret_hash, struct att_err *err)
{
    const uint64_t *size = user;
    (void)err;
    uint64_t n = (uint64_t)1 << 8 * level;
    assert_true((index + 1) * n <= *size); /* only what the tree of that size has */
    *ret_hash = mth(index * n, n);
    return ATT_OK;
}

static int set_up(void **state)
{
    (void)state;
    leaves = calloc(MOST, sizeof *leaves);
    for (uint32_t i = 0; i < MOST; i++) {
        leaves[i] = audit_tree_leaf(ATT_SLICE(&i, sizeof i));
    }
    return leaves ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    free(leaves);
    return 0;
}

/* The roots of the test data that certificate-transparency's implementations share. */
static void known_roots(void **state)
{
    (void)state;
    static const char *const entries[] = {"",
                                          "00",
                                          "10",
                                          "2021",
                                          "3031",
                                          "40414243",
                                          "5051525354555657",
                                          "606162636465666768696a6b6c6d6e6f"};
    static const char *const roots[] = {
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"};
    struct audit_tree *tree = calloc(1, sizeof *tree);
    for (size_t i = 0; i <= 8; i++) {
        char hex[65];
        struct audit_hash root = audit_tree_root(tree);
        att_hex(hex, ATT_SLICE_ARRAY(root.bytes));
        assert_string_equal(hex, roots[i]);
        if (i < 8) {
            att_autobuf entry = {0};
            assert_int_equal(att_unhex(&entry, att_slice_str(entries[i]), NULL), ATT_OK);
            struct audit_hash leaf = audit_tree_leaf(att_buf_slice(&entry));
            assert_int_equal(audit_tree_append(tree, &leaf, NULL, NULL, NULL), ATT_OK);
        }
    }
    free(tree);
}

static size_t tiles[AUDIT_LEVELS];

static enum att_rc see_tile(void *user, unsigned level, uint64_t index,
                            const struct audit_hash *hashes, struct att_err *err)
{
    (void)user;
    (void)err;
    uint64_t n = (uint64_t)1 << 8 * level;
    assert_int_equal(index, tiles[level]++);
    for (uint64_t i = 0; i < AUDIT_TILE_WIDTH; i += 51) {
        struct audit_hash want = mth((index * AUDIT_TILE_WIDTH + i) * n, n);
        assert_memory_equal(&hashes[i], &want, sizeof want);
    }
    return ATT_OK;
}

static bool looked_at(uint64_t n)
{
    return n <= 260 || (n > 65530 && n < 65540) || n % 9973 == 0;
}

static void roots_of_all_sizes(void **state)
{
    (void)state;
    struct audit_tree *tree = calloc(1, sizeof *tree);
    for (uint64_t n = 1; n <= MOST; n++) {
        assert_int_equal(audit_tree_append(tree, &leaves[n - 1], see_tile, NULL, NULL), ATT_OK);
        if (looked_at(n)) {
            struct audit_hash root = audit_tree_root(tree), want = mth(0, n), at;
            assert_memory_equal(&root, &want, sizeof want);
            assert_int_equal(audit_root_at(n, read_hash, &n, &at, NULL), ATT_OK);
            assert_memory_equal(&at, &want, sizeof want);
        }
    }
    assert_int_equal(tiles[0], MOST / 256);
    assert_int_equal(tiles[1], 1);
    free(tree);
}

static void denied(enum att_rc rc, const struct att_err *err, const char *reason)
{
    assert_int_equal(rc, ATT_E_AUTH);
    assert_string_equal(err->reason, reason);
}

static void inclusion_one(uint64_t index, uint64_t size)
{
    struct audit_proof proof, bent;
    struct audit_hash root = mth(0, size);
    struct att_err err = {0};
    assert_int_equal(audit_prove_inclusion(index, size, read_hash, &size, &proof, NULL), ATT_OK);
    assert_int_equal(audit_check_inclusion(index, size, &leaves[index], &proof, &root, &err),
                     ATT_OK);
    denied(audit_check_inclusion(index, size, &leaves[index + 1], &proof, &root, &err), &err,
           "proofPath");
    for (size_t i = 0; i < proof.n; i++) {
        bent = proof;
        bent.hash[i].bytes[31] ^= 1;
        denied(audit_check_inclusion(index, size, &leaves[index], &bent, &root, &err), &err,
               "proofPath");
    }
    bent = proof;
    bent.n++; /* a hash too many */
    bent.hash[proof.n] = root;
    denied(audit_check_inclusion(index, size, &leaves[index], &bent, &root, &err), &err,
           "proofPath");
    if (proof.n) {
        bent.n = proof.n - 1;
        denied(audit_check_inclusion(index, size, &leaves[index], &bent, &root, &err), &err,
               "proofPath");
        denied(audit_check_inclusion(index ^ 1, size, &leaves[index], &proof, &root, &err), &err,
               "proofPath");
    }
    root.bytes[0] ^= 1;
    denied(audit_check_inclusion(index, size, &leaves[index], &proof, &root, &err), &err,
           "proofPath");
}

static void inclusion(void **state)
{
    (void)state;
    for (uint64_t size = 1; size <= 40; size++) {
        for (uint64_t index = 0; index < size; index++) {
            inclusion_one(index, size);
        }
    }
    static const uint64_t far[][2] = {{0, 65536}, {65535, 65536}, {65536, 65537}, {300, 65999}};
    for (size_t i = 0; i < sizeof far / sizeof far[0]; i++) {
        inclusion_one(far[i][0], far[i][1]);
    }
    struct audit_proof proof;
    uint64_t size = 5;
    assert_int_equal(audit_prove_inclusion(5, 5, read_hash, &size, &proof, NULL), ATT_E_INVAL);
    struct audit_proof none = {0};
    struct att_err err = {0};
    denied(audit_check_inclusion(1, 1, &leaves[0], &none, &leaves[0], &err), &err, "proofPath");
    denied(audit_check_inclusion(0, 0, &leaves[0], &none, &leaves[0], &err), &err, "proofPath");
}

static void consistency_one(uint64_t old, uint64_t size)
{
    struct audit_proof proof, bent;
    struct audit_hash was = mth(0, old), is = mth(0, size), other;
    struct att_err err = {0};
    assert_int_equal(audit_prove_consistency(old, size, read_hash, &size, &proof, NULL), ATT_OK);
    assert_int_equal(audit_check_consistency(old, &was, size, &is, &proof, &err), ATT_OK);
    other = was;
    other.bytes[7] ^= 0x80;
    denied(audit_check_consistency(old, &other, size, &is, &proof, &err), &err, "proofConsistency");
    other = is;
    other.bytes[7] ^= 0x80;
    denied(audit_check_consistency(old, &was, size, &other, &proof, &err), &err,
           "proofConsistency");
    for (size_t i = 0; i < proof.n; i++) {
        bent = proof;
        bent.hash[i].bytes[0] ^= 4;
        denied(audit_check_consistency(old, &was, size, &is, &bent, &err), &err,
               "proofConsistency");
    }
    bent = proof;
    bent.hash[bent.n++] = is;
    denied(audit_check_consistency(old, &was, size, &is, &bent, &err), &err, "proofConsistency");
    if (proof.n) {
        bent.n = proof.n - 1;
        denied(audit_check_consistency(old, &was, size, &is, &bent, &err), &err,
               "proofConsistency");
    }
}

static void consistency(void **state)
{
    (void)state;
    for (uint64_t size = 1; size <= 40; size++) {
        for (uint64_t old = 1; old <= size; old++) {
            consistency_one(old, size);
        }
    }
    static const uint64_t far[][2] = {{256, 65999}, {65535, 65536}, {65536, 65999}, {777, 65537}};
    for (size_t i = 0; i < sizeof far / sizeof far[0]; i++) {
        consistency_one(far[i][0], far[i][1]);
    }
    struct audit_proof proof = {0};
    struct att_err err = {0};
    uint64_t size = 5;
    assert_int_equal(audit_prove_consistency(6, 5, read_hash, &size, &proof, NULL), ATT_E_INVAL);
    assert_int_equal(audit_prove_consistency(0, 5, read_hash, &size, &proof, NULL), ATT_E_INVAL);
    denied(audit_check_consistency(6, &leaves[0], 5, &leaves[0], &proof, &err), &err,
           "proofConsistency");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_roots),
        cmocka_unit_test(roots_of_all_sizes),
        cmocka_unit_test(inclusion),
        cmocka_unit_test(consistency),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
