/* A PostgreSQL of this test program's own (tests/support/postgres.sh), started when it is first
 * asked for and ended with the program; and which store a test is to use: the same test programs
 * run over both, with ATT_TEST_STORE=postgres in the environment over PostgreSQL. */
#ifndef TESTS_SUPPORT_POSTGRES_H
#define TESTS_SUPPORT_POSTGRES_H

#include <stdbool.h>
#include <stddef.h>

#define TEST_SPEC_MAX 256

bool test_store_is_postgres(void);
/* A new, empty database; its spec for store_open. Skips the whole program (exit 77) where there is
 * no PostgreSQL. */
void test_postgres_database(char ret_spec[TEST_SPEC_MAX]);
/* The spec of a new store: dir/name in SQLite, or a new database. */
void test_store_new(const char *dir, const char *name, char ret_spec[TEST_SPEC_MAX]);
/* Statements from outside of the store, each by itself; fails the test with what the database says.
 * spec as test_store_new gave it. */
void test_store_sql(const char *spec, const char *sql);
/* The same, the first column of the first row as text ("" where there is none) into ret. */
void test_store_ask(const char *spec, const char *sql, char *ret, size_t room);
/* The server goes away (at once: SIGQUIT) and comes back; start returns when it answers. */
void test_postgres_stop(void);
void test_postgres_start(void);
/* Stops (SIGSTOP) every process of the server, or lets them go on: a server that says nothing. */
void test_postgres_freeze(bool frozen);

#endif
