/* Verifying proofs, by the algorithms that RFC 9162 gives for it. */
#include "provision/audit/tree.h"

#include <stdbool.h>
#include <string.h>

static bool same(const struct audit_hash *a, const struct audit_hash *b)
{
    return att_slice_eq_secret(ATT_SLICE_ARRAY(a->bytes), ATT_SLICE_ARRAY(b->bytes));
}

static enum att_rc refuse(struct att_err *err, const char *reason, const char *what)
{
    enum att_rc rc = att_fail(err, ATT_E_AUTH, "audit log: %s", what);
    att_err_reason(err, reason);
    return rc;
}

/* RFC 9162 §2.1.3.2 */
enum att_rc audit_check_inclusion(uint64_t index, uint64_t size, const struct audit_hash *leaf,
                                  const struct audit_proof *proof, const struct audit_hash *root,
                                  struct att_err *err)
{
    static const char why[] = "the inclusion proof does not lead to the root";
    if (index >= size || proof->n > AUDIT_PROOF_MAX) {
        return refuse(err, "proofPath", "the leaf is not below the size");
    }
    uint64_t fn = index, sn = size - 1;
    struct audit_hash r = *leaf;
    for (size_t i = 0; i < proof->n; i++) {
        if (sn == 0) {
            return refuse(err, "proofPath", why);
        }
        if ((fn & 1) || fn == sn) {
            r = audit_tree_node(&proof->hash[i], &r);
            while (!(fn & 1) && fn != 0) {
                fn >>= 1;
                sn >>= 1;
            }
        } else {
            r = audit_tree_node(&r, &proof->hash[i]);
        }
        fn >>= 1;
        sn >>= 1;
    }
    return sn == 0 && same(&r, root) ? ATT_OK : refuse(err, "proofPath", why);
}

/* RFC 9162 §2.1.4.2, from step 3 on; first is the hash that both computations begin with. */
static bool consistent(uint64_t old, const struct audit_hash *old_root, uint64_t size,
                       const struct audit_hash *root, const struct audit_hash *first,
                       const struct audit_hash *rest, size_t n)
{
    uint64_t fn = old - 1, sn = size - 1;
    while (fn & 1) {
        fn >>= 1;
        sn >>= 1;
    }
    struct audit_hash fr = *first, sr = *first;
    for (size_t i = 0; i < n; i++) {
        if (sn == 0) {
            return false;
        }
        if ((fn & 1) || fn == sn) {
            fr = audit_tree_node(&rest[i], &fr);
            sr = audit_tree_node(&rest[i], &sr);
            while (!(fn & 1) && fn != 0) {
                fn >>= 1;
                sn >>= 1;
            }
        } else {
            sr = audit_tree_node(&sr, &rest[i]);
        }
        fn >>= 1;
        sn >>= 1;
    }
    return sn == 0 && same(&fr, old_root) && same(&sr, root);
}

enum att_rc audit_check_consistency(uint64_t old, const struct audit_hash *old_root, uint64_t size,
                                    const struct audit_hash *root, const struct audit_proof *proof,
                                    struct att_err *err)
{
    static const char why[] = "the new tree does not continue the old one";
    if (old == 0 || old > size || proof->n > AUDIT_PROOF_MAX) {
        return refuse(err, "proofConsistency", "the new size is below the old one");
    }
    bool ok;
    if (old == size) {
        ok = proof->n == 0 && same(old_root, root);
    } else if ((old & (old - 1)) == 0) { /* the old tree is a subtree: its root is not sent */
        ok = consistent(old, old_root, size, root, old_root, proof->hash, proof->n);
    } else {
        ok = proof->n > 0 &&
             consistent(old, old_root, size, root, &proof->hash[0], proof->hash + 1, proof->n - 1);
    }
    return ok ? ATT_OK : refuse(err, "proofConsistency", why);
}
