/* An SQLite database's content in a new PostgreSQL: all of it, or nothing. */
#include "provision/store/copy.h"
#include "provision/store/store_internal.h"
#include "tests/support/postgres.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOBS 350 /* more than are read at a time */

struct place {
    char dir[64], from[96], to[TEST_SPEC_MAX];
};

#define ok(call)                                                                                   \
    do {                                                                                           \
        struct att_err err = {0};                                                                  \
        enum att_rc got = (call);                                                                  \
        if (got) {                                                                                 \
            print_error("%s:%d: %s: %s\n", __FILE__, __LINE__, att_rc_name(got), err.msg);         \
        }                                                                                          \
        assert_int_equal(got, ATT_OK);                                                             \
    } while (0)

static enum att_rc fill(void *user, struct store_tx *tx, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    char digest[65], record[64];
    (void)user;
    for (int i = 0; i < BLOBS && !rc; i++) {
        uint8_t bytes[3] = {(uint8_t)i, 0, (uint8_t)(i >> 8)};
        snprintf(record, sizeof record, "{\"kind\":\"test\",\"n\":%d}", i);
        rc = store_blob_put(tx, ATT_SLICE(bytes, (size_t)i % 4), i, digest, err);
        rc = rc ? rc : store_audit_append(tx, i, record, NULL, err);
    }
    return rc ? rc
              : tx->store->ops->script(
                    tx->con,
                    "INSERT INTO hosts (id, label, labels, state, account, reason, manufacturer,"
                    " model, version, ek_source, notes, created_at, updated_at, seen_at) VALUES"
                    " ('h1', 'Zürich', '{}', 'banned', '', '', '', '', '', 'certificate', '{}',"
                    " -1, 9223372036854775807, 0);"
                    "INSERT INTO host_eks (ek, host, proven) VALUES ('B', 'h1', 0),"
                    " ('a', 'h1', 1), ('_', 'h1', 1);"
                    "INSERT INTO meta (key, value) VALUES ('view_version', x'00000000000000ff');"
                    /* Of a version that this program does not know. */
                    "CREATE TABLE later (n BIGINT PRIMARY KEY, word TEXT NOT NULL);"
                    "INSERT INTO later (n, word) VALUES (-3, ''), (7, 'x');",
                    err);
}

static int setup(void **state)
{
    static struct place p;
    struct store *store = NULL;
    snprintf(p.dir, sizeof p.dir, "/tmp/copy-test-XXXXXX");
    if (!mkdtemp(p.dir)) {
        return -1;
    }
    snprintf(p.from, sizeof p.from, "sqlite:%s/t.db", p.dir);
    test_postgres_database(p.to);
    ok(store_open(p.from, &store, &err));
    ok(store_run(store, true, fill, NULL, &err));
    store_free(store);
    *state = &p;
    return 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", p->dir);
    return system(command);
}

static enum att_rc copy(struct place *p, struct store_copy_report *report, struct att_err *err)
{
    const struct store_place from = {p->from, NULL}, to = {p->to, NULL};
    return store_copy(&from, &to, report, err);
}

static void make_target(struct place *p, const char *more)
{
    struct store *store = NULL;
    ok(store_open(p->to, &store, &err));
    store_free(store);
    test_store_sql(p->to, "CREATE TABLE later (n BIGINT PRIMARY KEY, word TEXT NOT NULL)");
    if (more) {
        test_store_sql(p->to, more);
    }
}

static void is(struct place *p, const char *sql, const char *expected)
{
    char found[128];
    test_store_ask(p->to, sql, found, sizeof found);
    assert_string_equal(found, expected);
}

static int64_t rows(const struct store_copy_report *report, const char *table)
{
    for (size_t i = 0; i < report->n; i++) {
        if (strcmp(report->table[i].name, table) == 0) {
            return report->table[i].rows;
        }
    }
    return -1;
}

static void everything(void **state)
{
    struct place *p = *state;
    struct store_copy_report report = {0};
    make_target(p, NULL);
    ok(copy(p, &report, &err));
    assert_int_equal(rows(&report, "audit"), BLOBS);
    assert_int_equal(rows(&report, "host_eks"), 3);
    assert_int_equal(rows(&report, "later"), 2);
    assert_int_equal(rows(&report, "orders"), 0);
    assert_int_equal(rows(&report, "migrations"), -1); /* each store's own */
    assert_int_equal(report.head.seq, BLOBS);
    is(p, "SELECT COUNT(*) FROM audit", "350");
    is(p, "SELECT label || updated_at FROM hosts", "Zürich9223372036854775807");
    is(p, "SELECT encode(value, 'hex') FROM meta", "00000000000000ff");
    is(p, "SELECT string_agg(ek, '' ORDER BY ek) FROM host_eks", "B_a"); /* by bytes */
    is(p, "SELECT SUM(n) FROM later", "4");
    /* Once is enough. */
    struct att_err why = {0};
    assert_int_equal(copy(p, &report, &why), ATT_E_EXISTS);
    assert_string_equal(why.reason, "storeNotEmpty");
}

static void nothing_in(struct place *p)
{
    is(p, "SELECT COUNT(*) FROM blobs", "0");
    is(p, "SELECT COUNT(*) FROM hosts", "0");
    is(p, "SELECT COUNT(*) FROM meta", "0");
}

static void one_table_in_use(void **state)
{
    struct place *p = *state;
    struct store_copy_report report = {0};
    struct att_err why = {0};
    make_target(p, "INSERT INTO later (n, word) VALUES (1, '')");
    assert_int_equal(copy(p, &report, &why), ATT_E_EXISTS);
    assert_string_equal(why.reason, "storeNotEmpty");
    assert_non_null(strstr(why.msg, "later"));
    nothing_in(p);
}

/* A database that changes what it is given: the rows are as many, and not the same. */
static void changed_on_the_way(void **state)
{
    struct place *p = *state;
    struct store_copy_report report = {0};
    struct att_err why = {0};
    make_target(p, "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS"
                   " $$BEGIN NEW.word = 'y'; RETURN NEW; END$$");
    test_store_sql(p->to, "CREATE TRIGGER change BEFORE INSERT ON later FOR EACH ROW"
                          " EXECUTE FUNCTION change()");
    assert_int_equal(copy(p, &report, &why), ATT_E_INTERNAL);
    assert_string_equal(why.reason, "copyDiffers");
    assert_non_null(strstr(why.msg, "later"));
    nothing_in(p);
}

static void broken_chain(void **state)
{
    struct place *p = *state;
    struct store_copy_report report = {0};
    struct att_err why = {0};
    make_target(p, NULL);
    test_store_sql(p->from + strlen("sqlite:"), "UPDATE audit SET record = '{}' WHERE seq = 17");
    assert_int_equal(copy(p, &report, &why), ATT_E_AUTH);
    assert_string_equal(why.reason, "auditEdited");
    nothing_in(p);
}

static void table_that_is_not_there(void **state)
{
    struct place *p = *state;
    struct store_copy_report report = {0};
    struct att_err why = {0};
    assert_int_not_equal(copy(p, &report, &why), ATT_OK);
    assert_non_null(strstr(why.msg, "later"));
    nothing_in(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(everything, setup, teardown),
        cmocka_unit_test_setup_teardown(one_table_in_use, setup, teardown),
        cmocka_unit_test_setup_teardown(changed_on_the_way, setup, teardown),
        cmocka_unit_test_setup_teardown(broken_chain, setup, teardown),
        cmocka_unit_test_setup_teardown(table_that_is_not_there, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
