/* The store's one SQL, in another database's words. What is written once (tables.c, migrations.c,
 * each statement) is SQLite's; PostgreSQL's is made from it here, so that nobody keeps two lists:
 *
 *   ?1            $1
 *   x'00ff'       '\x00ff'::bytea
 *   instr(        strpos(
 *   and in scripts:
 *   BLOB          BYTEA
 *   TEXT          TEXT COLLATE "C"   (compared by bytes, as SQLite does, whatever the database's
 *                                     locale; keys and indexes have their order)
 *
 * Words are whole words outside of quotes. BIGINT, CHECK, REFERENCES, partial indexes and
 * ON CONFLICT are the same in both. */
#ifndef PROVISION_STORE_DIALECT_H
#define PROVISION_STORE_DIALECT_H

#include "attestd/base/buf.h"

#include <stdbool.h>

/* Appends. ATT_E_INVAL names what has no translation: a "?" without a number. */
ATT_MUST_USE enum att_rc store_dialect_postgres(const char *sql, bool script,
                                                struct att_buf *ret_sql, struct att_err *err);

/* PostgreSQL keeps no text that is not well-formed UTF-8 (RFC 3629), nor a NUL. */
bool store_dialect_text_ok(struct att_slice text);

#endif
