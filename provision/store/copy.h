/* The content of an SQLite store into another, new one. */
#ifndef PROVISION_STORE_COPY_H
#define PROVISION_STORE_COPY_H

#include "provision/store/store.h"

#define STORE_COPY_TABLES 64

struct store_copy_report {
    size_t n;
    struct {
        char name[64];
        int64_t rows;
    } table[STORE_COPY_TABLES];
    struct store_audit head; /* of the chain, verified in the new store */
};

/* from is an SQLite database (of an older schema, it is migrated first). Every table of it, those
 * that this program's records do not know, too, goes row by row into to, in one transaction; then
 * it is read back: the digest over all rows of each table is that of the old one's, and the audit
 * chain holds to the same head. Else nothing stands in the new store, but its empty tables.
 * ATT_E_EXISTS, reason "storeNotEmpty", names a table of to that has rows. Nobody may write to from
 * meanwhile: what is written after the start is not copied. */
ATT_MUST_USE enum att_rc store_copy(const struct store_place *from, const struct store_place *to,
                                    struct store_copy_report *ret_report, struct att_err *err);

#endif
