/* Proposals in numbers: what asks for many of them reads them without their arguments, of which
 * each may have a MiB. */
#include "provision/store/store_internal.h"

/* The columns of store_proposals in their order. */
#define LIGHT                                                                                      \
    "SELECT id, op, '' AS args, sha256, effect, state, by_who, by_id, decided_by, reason,"         \
    " created_at, expires_at, decided_at FROM proposals"

#define PAGE " AND id > ?2 ORDER BY id LIMIT ?3"

enum att_rc store_proposal_list(struct store_tx *tx, const char *state, int64_t since,
                                const char *after, int64_t limit, store_each_fn each, void *user,
                                struct att_err *err)
{
    const struct store_value values[] = {STORE_VINT(since), STORE_VTEXT(after ? after : ""),
                                         STORE_VINT(limit), STORE_VTEXT(state ? state : "")};
    return state ? store_walk(tx, &store_proposals,
                              LIGHT " WHERE state = ?4 AND created_at > ?1" PAGE, values, 4, each,
                              user, err)
                 : store_walk(tx, &store_proposals, LIGHT " WHERE created_at > ?1" PAGE, values, 3,
                              each, user, err);
}
