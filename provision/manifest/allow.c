#include "provision/manifest/allow.h"

#include "attestd/base/enc.h"

#include <string.h>

static bool listed(char *const *list, size_t n, const char *hex)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], hex) == 0) {
            return true;
        }
    }
    return false;
}

enum att_rc manifest_allowed(const struct manifest *manifest, const struct manifest_wanted *wanted,
                             struct att_err *err)
{
    char root[2 * ATT_SHA256_LEN + 1], hex[2 * ATT_SHA256_LEN + 1];
    uint8_t signer[ATT_SHA256_LEN];
    struct att_err why = {0};
    att_hex(root, ATT_SLICE_ARRAY(manifest->root));
    if (listed(wanted->roots, wanted->n_roots, root)) {
        return ATT_OK;
    }
    if (wanted->n_signers == 0) {
        (void)!att_fail(err, ATT_E_DENIED, "the manifest's root is %s, the entry allows %s%s", root,
                        wanted->n_roots ? wanted->roots[0] : "none",
                        wanted->n_roots > 1 ? " and others" : "");
        att_err_reason(err, "manifestRoot");
        return ATT_E_DENIED;
    }
    if (manifest_verify(manifest, signer, &why) != ATT_OK) {
        (void)!att_fail(err, ATT_E_DENIED, "%.300s", why.msg);
        att_err_reason(err, "manifestSignature");
        return ATT_E_DENIED;
    }
    att_hex(hex, ATT_SLICE_ARRAY(signer));
    if (!listed(wanted->signers, wanted->n_signers, hex)) {
        (void)!att_fail(err, ATT_E_DENIED, "the manifest is signed by %s, the entry allows %s%s",
                        hex, wanted->signers[0], wanted->n_signers > 1 ? " and others" : "");
        att_err_reason(err, "manifestSignature");
        return ATT_E_DENIED;
    }
    return ATT_OK;
}
