/* Allow lists in numbers: what asks for all of them reads them without their texts, of which each
 * may have 16 MiB. */
#include "provision/store/store_internal.h"

#include <stddef.h>

static const struct store_column columns[] = {
    {"sha256", STORE_TEXT, offsetof(struct store_allowlist_sum, sha256), false},
    {"label", STORE_TEXT, offsetof(struct store_allowlist_sum, label), false},
    {"bytes", STORE_INT, offsetof(struct store_allowlist_sum, bytes), false},
    {"entries", STORE_INT, offsetof(struct store_allowlist_sum, entries), false},
    {"created_at", STORE_INT, offsetof(struct store_allowlist_sum, created_at), false},
};
static const struct store_table sums = {"allowlists", columns, sizeof columns / sizeof columns[0],
                                        sizeof(struct store_allowlist_sum)};

enum att_rc store_allowlist_sums(struct store_tx *tx, store_each_fn each, void *user,
                                 struct att_err *err)
{
    return store_walk(tx, &sums,
                      "SELECT sha256, label, CAST(length(data) AS BIGINT) AS bytes, entries,"
                      " created_at FROM allowlists ORDER BY sha256",
                      NULL, 0, each, user, err);
}
