/* The store: migrations, transactions, tickets under contention, crashes, a full disk. */
#include "provision/store/store_internal.h"
#include "tests/support/postgres.h"
#include "tests/unit/store/schema16.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct place {
    char dir[128], path[TEST_SPEC_MAX];
    struct store *store;
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

static int setup(void **state)
{
    static struct place p;
    const char *tmp = getenv("TMPDIR");
    memset(&p, 0, sizeof p);
    snprintf(p.dir, sizeof p.dir, "%.80s/store-test-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(p.dir)) {
        return -1;
    }
    test_store_new(p.dir, "t.db", p.path);
    *state = &p;
    return store_open(p.path, &p.store, NULL) ? -1 : 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    char command[200];
    store_free(p->store);
    snprintf(command, sizeof command, "rm -rf '%s'", p->dir);
    return system(command);
}

static void reopen(struct place *p)
{
    store_free(p->store);
    p->store = NULL;
    ok(store_open(p->path, &p->store, &err));
}

/* ---- records
 * ---------------------------------------------------------------------------------------- */

static enum att_rc put_cert(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_put(tx, &store_certs, user, err);
}

static enum att_rc get_cert(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_get(tx, &store_certs, "01", user, err);
}

static void fixed_columns_stay(void **state)
{
    struct place *p = *state;
    char serial[] = "01", id[] = "c1", kind[] = "agent", intent[] = STORE_CERT_INTENT,
         issued[] = STORE_CERT_ISSUED, subject[] = "spiffe://t/agent/a", other[] = "other",
         empty[] = "";
    struct store_cert cert = {.serial = serial,
                              .id = id,
                              .kind = kind,
                              .status = intent,
                              .subject = subject,
                              .account = empty,
                              .host = empty,
                              .ord = empty,
                              .profile = empty,
                              .pem = empty,
                              .decision = empty,
                              .reason = empty,
                              .not_after = 100};
    struct att_err why = {0};
    ok(store_run(p->store, true, put_cert, &cert, &err));
    cert.status = issued;
    ok(store_run(p->store, true, put_cert, &cert, &err));
    cert.status = intent;
    cert.subject = other;
    assert_int_equal(store_run(p->store, true, put_cert, &cert, &why), ATT_E_INTERNAL);
    assert_non_null(strstr(why.msg, "certs"));
    cert.subject = subject;
    cert.not_after = 101;
    assert_int_equal(store_run(p->store, true, put_cert, &cert, &why), ATT_E_INTERNAL);
    struct store_cert there = {0};
    ok(store_run(p->store, false, get_cert, &there, &err));
    assert_string_equal(there.status, issued);
    assert_string_equal(there.subject, subject);
    assert_int_equal(there.not_after, 100);
    store_record_done(&store_certs, &there);
}

/* ---- transactions
 * ----------------------------------------------------------------------------------- */

static enum att_rc put_ticket(void *user, struct store_tx *tx, struct att_err *err)
{
    char kid[] = "t1", empty[] = "";
    struct store_ticket t = {.kid = kid,
                             .ek = empty,
                             .label = empty,
                             .uses_left = *(int *)user,
                             .expires_at = 1000,
                             .created_at = 1};
    uint8_t key[] = {0, 1, 2, 0, 255};
    att_buf_put(&t.mac_key, key, sizeof key);
    enum att_rc rc = store_insert(tx, &store_tickets, &t, err);
    att_buf_done(&t.mac_key);
    return rc;
}

static enum att_rc put_then_fail(void *user, struct store_tx *tx, struct att_err *err)
{
    enum att_rc rc = put_ticket(user, tx, err);
    return rc ? rc : att_fail(err, ATT_E_DENIED, "no");
}

static enum att_rc get_ticket(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_get(tx, &store_tickets, "t1", user, err);
}

static void refused_leaves_nothing(void **state)
{
    struct place *p = *state;
    int uses = 1;
    struct store_ticket t = {0};
    struct att_err why = {0};
    assert_int_equal(store_run(p->store, true, put_then_fail, &uses, &why), ATT_E_DENIED);
    assert_int_equal(store_run(p->store, false, get_ticket, &t, NULL), ATT_E_NOTFOUND);
    assert_null(t.kid);
    ok(store_run(p->store, true, put_ticket, &uses, &err));
    att_err_clear(&why);
    assert_int_equal(store_run(p->store, true, put_ticket, &uses, &why), ATT_E_EXISTS);
    reopen(p);
    ok(store_run(p->store, false, get_ticket, &t, &err));
    assert_string_equal(t.kid, "t1");
    assert_string_equal(t.ek, "");
    assert_int_equal(t.mac_key.len, 5);
    assert_memory_equal(t.mac_key.ptr, "\0\1\2\0\377", 5);
    store_record_done(&store_tickets, &t);
}

static enum att_rc put_orphan(void *user, struct store_tx *tx, struct att_err *err)
{
    (void)user;
    char ek[] = "aa", host[] = "nobody";
    struct store_host_ek row = {.ek = ek, .host = host};
    return store_insert(tx, &store_host_eks, &row, err);
}

static void foreign_keys_hold(void **state)
{
    struct place *p = *state;
    assert_int_equal(store_run(p->store, true, put_orphan, NULL, NULL), ATT_E_CONFLICT);
}

static void private_file(void **state)
{
    struct place *p = *state;
    struct stat st;
    assert_int_equal(stat(p->path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

/* ---- tickets
 * ------------------------------------------------------------------------------------------ */

static enum att_rc spend(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_ticket_spend(tx, "t1", *(int64_t *)user, err);
}

static atomic_int spent;

static void *spender(void *user)
{
    struct place *p = user;
    for (int i = 0; i < 20; i++) {
        int64_t now = 10;
        struct att_err err = {0};
        enum att_rc rc = store_run(p->store, true, spend, &now, &err);
        if (rc == ATT_OK) {
            atomic_fetch_add(&spent, 1);
        } else if (rc != ATT_E_DENIED || strcmp(err.reason, "ticketInvalid") != 0) {
            atomic_fetch_add(&spent, 1000);
        }
    }
    return NULL;
}

static void ticket_race(void **state)
{
    struct place *p = *state;
    int uses = 7;
    pthread_t threads[8];
    ok(store_run(p->store, true, put_ticket, &uses, &err));
    atomic_store(&spent, 0);
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, spender, p), 0);
    }
    for (size_t i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&spent), 7);
}

static void expired_ticket(void **state)
{
    struct place *p = *state;
    int uses = 1;
    int64_t late = 1000, early = 999;
    struct att_err why = {0};
    ok(store_run(p->store, true, put_ticket, &uses, &err));
    assert_int_equal(store_run(p->store, true, spend, &late, &why), ATT_E_DENIED);
    assert_string_equal(why.reason, "ticketInvalid");
    ok(store_run(p->store, true, spend, &early, &err));
}

/* ---- schema
 * --------------------------------------------------------------------------------------------- */

static enum att_rc newer(void *user, struct store_tx *tx, struct att_err *err)
{
    (void)user;
    return store_exec(tx, "INSERT INTO migrations (number, applied_at) VALUES (99, 0)", NULL, 0,
                      NULL, NULL, NULL, err);
}

struct old_rows {
    int claims, eks;
};

static enum att_rc see_claim(void *user, const void *record, struct att_err *err)
{
    const struct store_ek_claim *claim = record;
    (void)err;
    assert_string_equal(claim->id, "listed@h1");
    assert_string_equal(claim->ek, "listed");
    assert_string_equal(claim->host, "h1");
    ((struct old_rows *)user)->claims++;
    return ATT_OK;
}

static enum att_rc see_ek(void *user, const void *record, struct att_err *err)
{
    const struct store_host_ek *row = record;
    (void)err;
    assert_string_not_equal(row->ek, "listed");
    ((struct old_rows *)user)->eks++;
    return ATT_OK;
}

/* Back to the first schema, with a host that proved one EK, was made by another and lists a third.
 */
static enum att_rc first_schema(void *user, struct store_tx *tx, struct att_err *err)
{
    (void)user;
    return tx->store->ops->script(
        tx->con,
        "DROP TABLE audit_leaves; DROP TABLE ek_claims; ALTER TABLE tickets DROP COLUMN uses; DROP "
        "INDEX hosts_account;"
        "ALTER TABLE orders DROP COLUMN measured; ALTER TABLE orders DROP COLUMN authz;"
        "ALTER TABLE orders DROP COLUMN parent; ALTER TABLE orders DROP COLUMN hsm;"
        "ALTER TABLE tickets DROP COLUMN created_by; ALTER TABLE hosts DROP COLUMN registered_by;"
        "DROP TABLE proposals; DROP TABLE admin_requests; DROP TABLE allowlists;"
        "DROP TABLE jwt_keys; DROP TABLE federated;"
        "ALTER TABLE orders DROP COLUMN replaces; ALTER TABLE certs DROP COLUMN replaced;"
        "ALTER TABLE certs DROP COLUMN firmware;"
        "DROP TABLE step_pending; DROP TABLE dns_authzs; DROP TABLE dns_orders; DROP TABLE "
        "renewals;"
        "DROP TABLE authorities; DROP TABLE issuers; ALTER TABLE hosts DROP COLUMN view_seen;"
        "DROP INDEX accounts_ticket; DROP INDEX blobs_created; DROP INDEX aks_account;"
        "ALTER TABLE aks DROP COLUMN clock; DROP INDEX certs_created;"
        "DROP INDEX certs_host_created; DROP INDEX certs_host_end; DROP INDEX certs_subject_end;"
        "DROP INDEX aks_ended; DROP INDEX certs_status_kind_end;"
        "DROP INDEX hosts_state; DROP INDEX hosts_label;"
        "CREATE INDEX certs_status ON certs (status);"
        "DROP INDEX orders_account_recent; CREATE INDEX orders_account ON orders (account);"
        "DROP INDEX certs_bytes; CREATE INDEX certs_host ON certs (host);"
        "CREATE INDEX certs_subject ON certs (subject);"
        "DELETE FROM migrations WHERE number > 1;"
        "INSERT INTO hosts (id, label, labels, state, account, reason, manufacturer, model, "
        "version,"
        " ek_source, notes, created_at, updated_at, seen_at)"
        " VALUES ('h1', '', '{}', 'pending', '', '', '', '', '', 'certificate', '{}', 1, 1, 1);"
        "INSERT INTO host_eks (ek, host, proven) VALUES ('h1', 'h1', 0), ('second', 'h1', 1),"
        " ('listed', 'h1', 0);",
        err);
}

static enum att_rc read_rows(void *user, struct store_tx *tx, struct att_err *err)
{
    enum att_rc rc = store_each(tx, &store_ek_claims, NULL, NULL, see_claim, user, err);
    return rc ? rc : store_each(tx, &store_host_eks, NULL, NULL, see_ek, user, err);
}

static void old_listings_become_claims(void **state)
{
    struct place *p = *state;
    struct old_rows rows = {0};
    ok(store_run(p->store, true, first_schema, NULL, &err));
    reopen(p);
    ok(store_run(p->store, false, read_rows, &rows, &err));
    assert_int_equal(rows.claims, 1);
    assert_int_equal(rows.eks, 2);
}

static enum att_rc to_schema_16(void *user, struct store_tx *tx, struct att_err *err)
{
    (void)user;
    return tx->store->ops->script(tx->con, schema_16, err);
}

static void upgraded_from_16(void **state)
{
    struct place *p = *state;
    ok(store_run(p->store, true, to_schema_16, NULL, &err));
    reopen(p);
    ok(store_run(p->store, false, see_upgraded, NULL, &err));
}

static void newest_migration_is_the_version(void **state)
{
    (void)state;
    for (size_t i = 1; i < store_n_migrations; i++) {
        assert_true(store_migrations[i].number > store_migrations[i - 1].number);
    }
    assert_int_equal(store_migrations[store_n_migrations - 1].number, STORE_SCHEMA_VERSION);
}

static void newer_schema_is_refused(void **state)
{
    struct place *p = *state;
    ok(store_run(p->store, true, newer, NULL, &err));
    store_free(p->store);
    p->store = NULL;
    struct att_err why = {0};
    assert_int_equal(store_open(p->path, &p->store, &why), ATT_E_UNSUPPORTED);
    assert_null(p->store);
}

static void not_a_database(void **state)
{
    struct place *p = *state;
    char path[180];
    struct store *other = NULL;
    struct att_err why = {0};
    snprintf(path, sizeof path, "%s/junk.db", p->dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < 500; i++) {
        fputs("this is not a database\n", f);
    }
    fclose(f);
    assert_int_equal(store_open(path, &other, &why), ATT_E_IO);
    assert_string_equal(why.reason, "storeCorrupt");
    assert_null(other);
}

/* ---- crash and full disk
 * ----------------------------------------------------------------------------------- */

static enum att_rc two_counters(void *user, struct store_tx *tx, struct att_err *err)
{
    int64_t *n = user;
    enum att_rc rc = store_meta_count(tx, "a", &n[0], err);
    return rc ? rc : store_meta_count(tx, "b", &n[1], err);
}

/* kill -9 at any instant: both counters moved or none, and what was reported is there. */
static void killed(void **state)
{
    struct place *p = *state;
    int64_t n[2] = {0}, last = 0;
    store_free(p->store);
    p->store = NULL;
    for (int round = 0; round < 12; round++) {
        int pipes[2];
        assert_int_equal(pipe(pipes), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct store *store = NULL;
            int64_t m[2];
            if (store_open(p->path, &store, NULL)) {
                _exit(1);
            }
            while (!store_run(store, true, two_counters, m, NULL)) {
                if (write(pipes[1], &m[0], sizeof m[0]) < 0) {
                    _exit(1);
                }
            }
            _exit(1);
        }
        close(pipes[1]);
        int64_t seen = 0, value;
        while (seen < 5 + round && read(pipes[0], &value, sizeof value) == sizeof value) {
            last = value;
            seen++;
        }
        usleep((useconds_t)(round * 137));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        while (read(pipes[0], &value, sizeof value) == sizeof value) {
            last = value;
        }
        close(pipes[0]);
        ok(store_open(p->path, &p->store, &err));
        ok(store_run(p->store, true, two_counters, n, &err));
        assert_int_equal(n[0], n[1]);
        assert_true(n[0] > last);
        last = n[0];
        store_free(p->store);
        p->store = NULL;
    }
}

static enum att_rc put_blob(void *user, struct store_tx *tx, struct att_err *err)
{
    char digest[65];
    int64_t n;
    enum att_rc rc = store_meta_count(tx, "before", &n, err);
    return rc ? rc : store_blob_put(tx, *(struct att_slice *)user, 1, digest, err);
}

static enum att_rc read_before(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_meta_get(tx, "before", user, err);
}

static enum att_rc pragma(void *user, struct store_tx *tx, struct att_err *err)
{
    return tx->store->ops->script(tx->con, user, err);
}

/* On the connection that writes. */
static void limit_pages(struct place *p, int pages)
{
    char sql[64];
    snprintf(sql, sizeof sql, "PRAGMA max_page_count = %d", pages);
    ok(store_run(p->store, true, pragma, sql, &err));
}

static void disk_full(void **state)
{
    struct place *p = *state;
    struct att_err why = {0};
    static uint8_t big[1 << 20];
    struct att_slice bytes = ATT_SLICE_ARRAY(big);
    limit_pages(p, 60);
    assert_int_equal(store_run(p->store, true, put_blob, &bytes, &why), ATT_E_IO);
    assert_string_equal(why.reason, "diskFull");
    att_autobuf before = {0};
    assert_int_equal(store_run(p->store, false, read_before, &before, NULL), ATT_E_NOTFOUND);
    limit_pages(p, 1000000);
    ok(store_run(p->store, true, put_blob, &bytes, &err));
}

/* Somebody else (a copy, an operator's tool) holds the database. */
static void held_by_another(void **state)
{
    struct place *p = *state;
    struct att_err why = {0};
    sqlite3 *other = NULL;
    char path[TEST_SPEC_MAX], soon[] = "PRAGMA busy_timeout = 50";
    struct att_slice bytes = ATT_SLICE_LIT("x");
    snprintf(path, sizeof path, "%s/t.db", p->dir);
    ok(store_run(p->store, true, pragma, soon, &err));
    assert_int_equal(sqlite3_open_v2(path, &other, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(store_run(p->store, true, put_blob, &bytes, &why), ATT_E_RETRY);
    assert_string_equal(why.reason, "storeBusy");
    assert_int_equal(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    ok(store_run(p->store, true, put_blob, &bytes, &err));
}

/* ---- blobs
 * ----------------------------------------------------------------------------------------------------
 */

static enum att_rc blob_twice(void *user, struct store_tx *tx, struct att_err *err)
{
    char a[65], b[65];
    att_autobuf back = {0};
    (void)user;
    enum att_rc rc = store_blob_put(tx, ATT_SLICE_LIT("abc"), 1, a, err);
    if (!rc) {
        rc = store_blob_put(tx, ATT_SLICE_LIT("abc"), 2, b, err);
    }
    if (!rc) {
        rc = store_blob_get(tx, a, &back, err);
    }
    assert_string_equal(a, b);
    assert_string_equal(a, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(store_blob_has(tx, a));
    a[0] = 'c';
    assert_false(store_blob_has(tx, a));
    assert_true(att_slice_eq(att_buf_slice(&back), ATT_SLICE_LIT("abc")));
    return rc;
}

static void blobs(void **state)
{
    struct place *p = *state;
    ok(store_run(p->store, true, blob_twice, NULL, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(refused_leaves_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(fixed_columns_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(foreign_keys_hold, setup, teardown),
        cmocka_unit_test_setup_teardown(ticket_race, setup, teardown),
        cmocka_unit_test_setup_teardown(expired_ticket, setup, teardown),
        cmocka_unit_test_setup_teardown(old_listings_become_claims, setup, teardown),
        cmocka_unit_test_setup_teardown(upgraded_from_16, setup, teardown),
        cmocka_unit_test(newest_migration_is_the_version),
        cmocka_unit_test_setup_teardown(newer_schema_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(killed, setup, teardown),
        cmocka_unit_test_setup_teardown(blobs, setup, teardown),
    };
    const struct CMUnitTest of_files[] = {
        cmocka_unit_test_setup_teardown(private_file, setup, teardown),
        cmocka_unit_test_setup_teardown(not_a_database, setup, teardown),
        cmocka_unit_test_setup_teardown(disk_full, setup, teardown),
        cmocka_unit_test_setup_teardown(held_by_another, setup, teardown),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed || test_store_is_postgres() ? failed
                                              : cmocka_run_group_tests(of_files, NULL, NULL);
}
