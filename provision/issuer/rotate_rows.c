/* What a rotation asks of all rows: room for another one, and that the kinds have no key in common.
 */
#include "certs/key.h"
#include "certs/oid.h"
#include "provision/issuer/ca_files.h"
#include "provision/issuer/kinds.h"
#include "provision/issuer/rotate.h"

#include <stdio.h>
#include <string.h>

#define SKEW_S 120 /* between the clocks of issuers */

/* What take_row of provision/issuer/generations.c can hold. */
_Static_assert(ISSUER_KINDS *ISSUER_GENERATIONS_TOP <= ISSUER_GENERATIONS_MAX, "all have room");

/* ---- room -------------------------------------------------------------------------------------
 */

struct summary {
    char id[ISSUER_GENERATION_ID];
    bool retired;
    int64_t created_at, activated_at, retired_at;
};

struct summaries {
    struct summary v[ISSUER_GENERATIONS_MAX];
    size_t n;
};

static enum att_rc take_summary(void *user, const void *record, struct att_err *err)
{
    struct summaries *all = user;
    const struct store_authority *row = record;
    if (all->n == ISSUER_GENERATIONS_MAX) {
        return att_fail(err, ATT_E_LIMIT, "more than %d generations of one authority",
                        ISSUER_GENERATIONS_MAX);
    }
    struct summary *to = &all->v[all->n++];
    snprintf(to->id, sizeof to->id, "%s", row->id);
    to->retired = strcmp(row->state, STORE_AUTHORITY_RETIRED) == 0;
    to->created_at = row->created_at;
    to->activated_at = row->activated_at;
    to->retired_at = row->retired_at;
    return ATT_OK;
}

/* From when on the next one signed; where that row is gone, a later one's time, which is longer. */
static int64_t signed_until(const struct summaries *all, const struct summary *one)
{
    int64_t until = one->retired_at;
    for (size_t i = 0; i < all->n; i++) {
        int64_t next = all->v[i].activated_at;
        if (next > one->activated_at && next < until) {
            until = next;
        }
    }
    return until + SKEW_S;
}

/* Its list is asked for as long as there is a certificate that might be on it. */
static enum att_rc outlived(struct store_tx *tx, const char *kind, int64_t now,
                            const struct summaries *all, const struct summary *one, bool *ret_is,
                            struct att_err *err)
{
    int64_t end = 0;
    enum att_rc rc = ATT_OK;
    if (one->retired && one->activated_at) {
        rc = store_cert_last_end(tx, kind, signed_until(all, one), now, &end, err);
    }
    *ret_is = !rc && one->retired && !end;
    return rc;
}

static enum att_rc forget_one(struct store_tx *tx, const char *id, struct att_err *err)
{
    att_log(ATT_INFO, "ca.forgotten", ATT_S("authority", id));
    return store_delete(tx, &store_authorities, id, err);
}

/* Of the TLS root those that never signed go first: hosts that were away are told for as long as
 * there is room which roots are no longer one. */
static bool goes_before(const char *kind, const struct summary *a, const struct summary *b)
{
    bool tls = strcmp(kind, "tls") == 0;
    return tls && !a->activated_at != !b->activated_at ? !a->activated_at
                                                       : a->created_at < b->created_at;
}

/* Gives up the oldest that may go; *ret_done false: there is none. */
static enum att_rc give_up_oldest(struct store_tx *tx, const char *kind, int64_t now, bool forget,
                                  struct summaries *all, bool *ret_done, struct att_err *err)
{
    struct summary *oldest = NULL;
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; i < all->n && !rc; i++) {
        bool may_go = false;
        rc = outlived(tx, kind, now, all, &all->v[i], &may_go, err);
        if (!rc && may_go && (!oldest || goes_before(kind, &all->v[i], oldest))) {
            oldest = &all->v[i];
        }
    }
    *ret_done = !rc && oldest;
    if (!rc && oldest && forget) {
        rc = forget_one(tx, oldest->id, err);
    }
    if (!rc && oldest) {
        *oldest = all->v[--all->n];
    }
    return rc;
}

enum att_rc issuer_rotate_room(struct store_tx *tx, const char *kind, int64_t now, bool forget,
                               struct att_err *err)
{
    struct summaries all = {0};
    bool done = true;
    enum att_rc rc = store_each(tx, &store_authorities, "kind", kind, take_summary, &all, err);
    while (!rc && all.n >= ISSUER_GENERATIONS_TOP && done) {
        rc = give_up_oldest(tx, kind, now, forget, &all, &done, err);
    }
    return rc || all.n < ISSUER_GENERATIONS_TOP
               ? rc
               : issuer_refuse(err, ATT_E_LIMIT, "caTooMany",
                               "the store has %zu generations of this authority, of which none can "
                               "be forgotten: certificates of their time are in force",
                               all.n);
}

/* ---- apart ------------------------------------------------------------------------------------
 */

struct apart {
    const char *kind;
    const STACK_OF(X509) * chain;
};

static enum att_rc apart_from_pem(const struct apart *a, const char *pem, const char *whose,
                                  struct att_err *err)
{
    certs_autostack *certs = NULL;
    enum att_rc rc = pem && pem[0] ? certs_pem_parse(att_slice_str(pem), &certs, err) : ATT_OK;
    for (int i = 0; !rc && certs && i < sk_X509_num(certs); i++) {
        rc = issuer_ca_apart(a->chain, sk_X509_value(certs, i), whose, err);
    }
    return rc;
}

/* Retired ones, too: somebody may still trust them. */
static enum att_rc apart_from_row(void *user, const void *record, struct att_err *err)
{
    const struct apart *a = user;
    const struct store_authority *row = record;
    if (strcmp(row->kind, a->kind) == 0) {
        return ATT_OK;
    }
    enum att_rc rc = apart_from_pem(a, row->chain, row->id, err);
    return rc ? rc : apart_from_pem(a, row->root, row->id, err);
}

enum att_rc issuer_rotate_apart(const struct issuer *issuer, struct store_tx *tx, const char *kind,
                                const STACK_OF(X509) * chain, struct att_err *err)
{
    struct apart a = {kind, chain};
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; i < ISSUER_KINDS && !rc; i++) {
        const struct issuer_kind *other = &issuer_kinds[i];
        char whose[32];
        if (strcmp(other->kind, kind) == 0) {
            continue;
        }
        snprintf(whose, sizeof whose, "%s-root", other->stem);
        rc = issuer_ca_apart(chain, issuer_kind_first_root(issuer, other->kind), whose, err);
        if (!rc) {
            snprintf(whose, sizeof whose, "%s-ca", other->stem);
            rc = issuer_ca_apart(chain, issuer_authority_first(issuer, other->kind).ca, whose, err);
        }
    }
    return rc ? rc : store_each(tx, &store_authorities, NULL, NULL, apart_from_row, &a, err);
}
