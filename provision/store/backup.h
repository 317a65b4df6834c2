/* A copy of a database that is in use. */
#ifndef PROVISION_STORE_BACKUP_H
#define PROVISION_STORE_BACKUP_H

#include "attestd/base/err.h"

#include <stdint.h>

/* Writes the SQLite database of spec, as it is at one instant between two commits, into a new file
 * (mode 0600), synced and checked. Others may read and write it meanwhile. ATT_E_UNSUPPORTED: spec
 * is a PostgreSQL, which has tools of its own; ATT_E_EXISTS: to is there; ATT_E_NOTFOUND: the
 * database is not. ret_records: of the audit chain, in the copy. */
ATT_MUST_USE enum att_rc store_backup(const char *spec, const char *to, int64_t *ret_records,
                                      struct att_err *err);

#endif
