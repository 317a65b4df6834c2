/* The chain shows every way of rewriting it. */
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

static enum att_rc fill(void *user, struct store_tx *tx, struct att_err *err)
{
    for (int i = 1; i <= 9; i++) {
        char record[64];
        snprintf(record, sizeof record, "{\"kind\":\"test\",\"n\":%d}", i);
        enum att_rc rc = store_audit_append(tx, 1000 + i, record, user, err);
        if (rc) {
            return rc;
        }
    }
    return ATT_OK;
}

static enum att_rc tamper(void *user, struct store_tx *tx, struct att_err *err)
{
    return tx->store->ops->script(tx->con, user, err);
}

struct verification {
    const struct store_audit *expect;
    struct store_audit found;
};

static enum att_rc verify(void *user, struct store_tx *tx, struct att_err *err)
{
    struct verification *v = user;
    return store_audit_verify(tx, v->expect, &v->found, err);
}

/* A chain of nine, the script run over it, and what is said then. reason NULL: nothing. */
static void check(const char *script, bool with_head, const char *reason, const char *record)
{
    char dir[] = "/tmp/audit-test-XXXXXX", path[TEST_SPEC_MAX], command[96];
    struct store *store = NULL;
    struct store_audit head = {0};
    struct att_err err = {0};
    assert_non_null(mkdtemp(dir));
    test_store_new(dir, "t.db", path);
    assert_int_equal(store_open(path, &store, &err), ATT_OK);
    assert_int_equal(store_run(store, true, fill, &head, &err), ATT_OK);
    assert_int_equal(head.seq, 9);
    if (script) {
        assert_int_equal(store_run(store, true, tamper, (void *)(uintptr_t)script, &err), ATT_OK);
    }
    struct verification v = {.expect = with_head ? &head : NULL};
    enum att_rc rc = store_run(store, false, verify, &v, &err);
    if (reason) {
        assert_int_equal(rc, ATT_E_AUTH);
        assert_string_equal(err.reason, reason);
        assert_non_null(strstr(err.msg, record));
    } else {
        assert_int_equal(rc, ATT_OK);
    }
    store_free(store);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

static void edits(void **state)
{
    (void)state;
    check("UPDATE audit SET record = '{\"kind\":\"test\",\"n\":7}' WHERE seq = 5", true,
          "auditEdited", "record 5");
    check("UPDATE audit SET at = at + 1 WHERE seq = 9", true, "auditEdited", "record 9");
    check("UPDATE audit SET hash = x'00' WHERE seq = 3", true, "auditEdited", "record 3");
}

static void deletions(void **state)
{
    (void)state;
    check("DELETE FROM audit WHERE seq = 4", true, "auditMissing", "record 4");
    check("DELETE FROM audit WHERE seq = 1", true, "auditMissing", "record 1");
    /* Cut off at the end: only the head knows. */
    check("DELETE FROM audit WHERE seq >= 8", true, "auditTruncated", "record 9");
    check("DELETE FROM audit", true, "auditTruncated", "record 9");
}

static void reorderings(void **state)
{
    (void)state;
    check("UPDATE audit SET seq = 100 WHERE seq = 4; UPDATE audit SET seq = 4 WHERE seq = 5;"
          "UPDATE audit SET seq = 5 WHERE seq = 100",
          true, "auditEdited", "record 4");
    /* Hashes made to fit their place, but not the place before. */
    check("UPDATE audit SET prev = (SELECT prev FROM audit WHERE seq = 2) WHERE seq = 6", true,
          "auditEdited", "record 6");
}

static enum att_rc erase(void *user, struct store_tx *tx, struct att_err *err)
{
    static const char *const says[] = {"3", "4", "[2,4]", "[4]", "[2,5]", "[]", "[\"4\"]"};
    char record[64];
    snprintf(record, sizeof record, "{\"kind\":\"erase\",\"erases\":%s}", says[*(int *)user]);
    enum att_rc rc = store_audit_erase(tx, 4, err);
    return rc ? rc : store_audit_append(tx, 2000, record, NULL, err);
}

/* Emptied, and no later record says so, or one says it of another. */
static void erasures(void **state)
{
    (void)state;
    check("UPDATE audit SET record = '' WHERE seq = 4", true, "auditEdited", "record 4");
    for (int says = 0; says < 7; says++) {
        bool good = says >= 1 && says <= 3;
        char dir[] = "/tmp/audit-test-XXXXXX", path[64], command[96];
        struct store *store = NULL;
        struct att_err err = {0};
        struct verification v = {0};
        assert_non_null(mkdtemp(dir));
        snprintf(path, sizeof path, "%s/t.db", dir);
        assert_int_equal(store_open(path, &store, &err), ATT_OK);
        assert_int_equal(store_run(store, true, fill, NULL, &err), ATT_OK);
        assert_int_equal(store_run(store, true, erase, &says, &err), ATT_OK);
        assert_int_equal(store_run(store, false, verify, &v, &err), good ? ATT_OK : ATT_E_AUTH);
        assert_string_equal(err.reason, good ? "" : "auditEdited");
        att_err_clear(&err);
        assert_int_equal(store_run(store, true, erase, &says, &err), ATT_E_NOTFOUND);
        store_free(store);
        snprintf(command, sizeof command, "rm -rf '%s'", dir);
        assert_int_equal(system(command), 0);
    }
}

static enum att_rc fill_many(void *user, struct store_tx *tx, struct att_err *err)
{
    const int *n = user;
    enum att_rc rc = ATT_OK;
    for (int i = 1; !rc && i <= *n; i++) {
        bool first = i == 1 || i == 10000 || i == 10001, second = i == *n;
        rc = store_audit_append(tx, 1,
                                first    ? "{\"a\":1}"
                                : second ? "{\"b\":1}"
                                         : "{}",
                                NULL, err);
    }
    return rc;
}

struct found {
    int64_t seq[8];
    size_t n;
};

static enum att_rc take_found(void *user, const struct store_audit *a, struct att_err *err)
{
    struct found *f = user;
    (void)err;
    assert_true(f->n < 8);
    f->seq[f->n++] = a->seq;
    return ATT_OK;
}

static enum att_rc search(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_audit_search(tx, "\"a\"", "\"b\"", take_found, user, err);
}

/* More records than one statement looks at, hits on both sides of the border. */
static void searches(void **state)
{
    (void)state;
    char dir[] = "/tmp/audit-test-XXXXXX", path[TEST_SPEC_MAX], command[96];
    struct store *store = NULL;
    struct found f = {{0}, 0};
    int n = 10003;
    assert_non_null(mkdtemp(dir));
    test_store_new(dir, "t.db", path);
    assert_int_equal(store_open(path, &store, NULL), ATT_OK);
    assert_int_equal(store_run(store, false, search, &f, NULL), ATT_OK);
    assert_int_equal(f.n, 0);
    assert_int_equal(store_run(store, true, fill_many, &n, NULL), ATT_OK);
    assert_int_equal(store_run(store, false, search, &f, NULL), ATT_OK);
    const int64_t expected[] = {1, 10000, 10001, 10003};
    assert_int_equal(f.n, 4);
    assert_memory_equal(f.seq, expected, sizeof expected);
    store_free(store);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

static void untouched(void **state)
{
    (void)state;
    check(NULL, true, NULL, NULL);
    check(NULL, false, NULL, NULL);
    check("DELETE FROM audit WHERE seq >= 8", false, NULL,
          NULL); /* without a head, unseen: so there is one */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(edits),    cmocka_unit_test(deletions), cmocka_unit_test(reorderings),
        cmocka_unit_test(erasures), cmocka_unit_test(searches),  cmocka_unit_test(untouched),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
