/* What is PostgreSQL's alone: its dialect, its options, several issuers at once, a server that goes
 * away. What both stores must do stands in the other files, which run over both. */
#include "provision/store/dialect.h"
#include "provision/store/postgres.h"
#include "provision/store/store_internal.h"
#include "tests/support/postgres.h"
#include "tests/unit/store/schema16.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ok(call)                                                                                   \
    do {                                                                                           \
        struct att_err err = {0};                                                                  \
        enum att_rc got = (call);                                                                  \
        if (got) {                                                                                 \
            print_error("%s:%d: %s: %s\n", __FILE__, __LINE__, att_rc_name(got), err.msg);         \
        }                                                                                          \
        assert_int_equal(got, ATT_OK);                                                             \
    } while (0)

/* ---- dialect
 * ---------------------------------------------------------------------------------- */

static void translated(const char *sql, bool script, const char *expected)
{
    att_autobuf text = {0};
    ok(store_dialect_postgres(sql, script, &text, &err));
    assert_string_equal(att_buf_cstr(&text), expected);
}

static void dialect(void **state)
{
    (void)state;
    translated("SELECT a FROM t WHERE b = ?1 AND c = ?12", false,
               "SELECT a FROM t WHERE b = $1 AND c = $12");
    translated("UPDATE t SET a = x'', b = x'00ff', c = '?1 x'''' instr(' WHERE instr(d, ?1) > 0",
               false,
               "UPDATE t SET a = '\\x'::bytea, b = '\\x00ff'::bytea, c = '?1 x'''' instr('"
               " WHERE strpos(d, $1) > 0");
    translated("CREATE TABLE t (a TEXT PRIMARY KEY, TEXTURE BLOB, \"BLOB\" TEXT)", true,
               "CREATE TABLE t (a TEXT COLLATE \"C\" PRIMARY KEY, TEXTURE BYTEA, \"BLOB\" TEXT"
               " COLLATE \"C\")");
    translated("SELECT TEXT FROM t", false, "SELECT TEXT FROM t");
    att_autobuf text = {0};
    assert_int_equal(store_dialect_postgres("a = ?", false, &text, NULL), ATT_E_INVAL);
}

static void texts(void **state)
{
    (void)state;
    static const char *const good[] = {
        "", "a", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xed\x9f\xbf"};
    static const char *const bad[] = {"\x80",         "\xc0\x80",        "\xc3",
                                      "\xe0\x80\x80", "\xed\xa0\x80",    "\xf4\x90\x80\x80",
                                      "a\xff",        "\xf0\x80\x80\x80"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(store_dialect_text_ok(att_slice_str(good[i])));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(store_dialect_text_ok(att_slice_str(bad[i])));
    }
    assert_false(store_dialect_text_ok(ATT_SLICE("a\0b", 3)));
}

/* ---- options
 * ---------------------------------------------------------------------------------- */

static void option_is(const char *conninfo, const char *key, const char *value)
{
    struct store_db db = {0};
    const char *found = NULL;
    ok(store_pg_options(&db, conninfo, &err));
    for (size_t i = 0; i < db.n_options; i++) {
        found = strcmp(db.keys[i], key) == 0 ? db.values[i] : found;
    }
    assert_non_null(found);
    assert_string_equal(found, value);
    store_pg_options_done(&db);
}

static void options(void **state)
{
    (void)state;
    option_is("postgresql://u@db.example/x", "sslmode", "verify-full");
    option_is("host=db.example dbname=x", "sslmode", "verify-full");
    option_is("host=/run/postgresql,db.example dbname=x", "sslmode", "verify-full");
    option_is("hostaddr=127.0.0.1 host=/x dbname=x", "sslmode", "verify-full");
    option_is("postgresql://u@db.example/x?sslmode=require", "sslmode", "require");
    option_is("host=/run/postgresql dbname=x", "sslmode", "disable");
    option_is("dbname=x", "target_session_attrs", "read-write");
    option_is("dbname=x", "connect_timeout", "3");
}

/* What libpq takes from elsewhere may be a network: TLS stays on. */
static void options_from_elsewhere(void **state)
{
    (void)state;
    static const char *const kept[] = {"PGSERVICE", "PGHOST", "PGHOSTADDR"};
    char *before[3] = {0};
    for (size_t i = 0; i < 3; i++) {
        before[i] = getenv(kept[i]) ? strdup(getenv(kept[i])) : NULL;
        unsetenv(kept[i]);
    }
    option_is("dbname=x", "sslmode", "disable");
    option_is("service=bank", "sslmode", "verify-full");
    option_is("postgresql:///x?service=bank", "sslmode", "verify-full");
    option_is("service=bank host=/run/postgresql", "sslmode", "verify-full");
    option_is("service=bank sslmode=require", "sslmode", "require");
    static const struct {
        const char *name, *value, *conninfo, *sslmode;
    } cases[] = {
        {"PGSERVICE", "bank", "dbname=x", "verify-full"},
        {"PGSERVICE", "bank", "host=/run/postgresql", "verify-full"},
        {"PGHOSTADDR", "192.0.2.1", "host=/run/postgresql", "verify-full"},
        {"PGHOST", "db.example", "dbname=x", "verify-full"},
        {"PGHOST", "/run/postgresql,db.example", "dbname=x", "verify-full"},
        {"PGHOST", "/run/postgresql", "dbname=x", "disable"},
        {"PGHOST", "db.example", "host=/run/postgresql", "disable"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        setenv(cases[i].name, cases[i].value, 1);
        option_is(cases[i].conninfo, "sslmode", cases[i].sslmode);
        unsetenv(cases[i].name);
    }
    for (size_t i = 0; i < 3; i++) {
        if (before[i]) {
            setenv(kept[i], before[i], 1);
        }
        free(before[i]);
    }
}

/* A password is refused and in no message. */
static void no_password_in_it(void **state)
{
    (void)state;
    static const char *const specs[] = {"postgres://u:hush@db.example/x",
                                        "postgres:host=/x password=hush",
                                        "postgres:host=/x sslpassword=hush",
                                        "postgres:password=hush broken", "postgres://u:hush@[x"};
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        struct store *store = NULL;
        struct att_err why = {0};
        assert_int_equal(store_open(specs[i], &store, &why), ATT_E_INVAL);
        assert_null(strstr(why.msg, "hush"));
        assert_null(store);
    }
}

static void password_file(void **state)
{
    (void)state;
    char spec[TEST_SPEC_MAX], path[] = "/tmp/att-password-XXXXXX";
    struct att_err why = {0};
    test_postgres_database(spec);
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "\n", 1), 1);
    const struct store_place place = {spec, path};
    assert_int_equal(store_check(&place, &why), ATT_E_INVAL);
    assert_non_null(strstr(why.msg, "holds no password"));
    assert_int_equal(pwrite(fd, "hush\n", 5, 0), 5);
    ok(store_check(&place, &err));
    assert_int_equal(fchmod(fd, 0644), 0);
    att_err_clear(&why);
    assert_int_equal(store_check(&place, &why), ATT_E_INVAL);
    assert_non_null(strstr(why.msg, "everybody may read it"));
    close(fd);
    assert_int_equal(unlink(path), 0);
    att_err_clear(&why);
    assert_int_equal(store_check(&place, &why), ATT_E_NOTFOUND);
    /* As the configuration leaves it where systemd gave this process nothing. */
    const struct store_place unknown = {spec, "credential:db"};
    att_err_clear(&why);
    assert_int_equal(store_check(&unknown, &why), ATT_E_INVAL);
    assert_non_null(strstr(why.msg, "credential:db: systemd gave this process no credentials"));
}

static void only_utf8(void **state)
{
    (void)state;
    char spec[TEST_SPEC_MAX], ascii[TEST_SPEC_MAX];
    struct att_err why = {0};
    struct store *store = NULL;
    test_postgres_database(spec);
    test_store_sql(spec, "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    snprintf(ascii, sizeof ascii, "%.*slatin", (int)(strstr(spec, "dbname=") + 7 - spec), spec);
    assert_int_equal(store_open(ascii, &store, &why), ATT_E_UNSUPPORTED);
    assert_non_null(strstr(why.msg, "expected UTF8"));
}

/* ---- several issuers
 * -------------------------------------------------------------------------- */

#define ISSUERS 3
#define EACH    20

struct issuer_of {
    const char *spec;
    struct store *store;
    pthread_t thread;
    struct att_err why;
};

static void *open_it(void *user)
{
    struct issuer_of *i = user;
    (void)!store_open(i->spec, &i->store, &i->why);
    return NULL;
}

/* All find the whole schema, made once. */
static void start_at_once(void **state)
{
    (void)state;
    char spec[TEST_SPEC_MAX], n[16];
    struct issuer_of issuers[ISSUERS] = {0};
    test_postgres_database(spec);
    for (size_t i = 0; i < ISSUERS; i++) {
        issuers[i].spec = spec;
        assert_int_equal(pthread_create(&issuers[i].thread, NULL, open_it, &issuers[i]), 0);
    }
    for (size_t i = 0; i < ISSUERS; i++) {
        pthread_join(issuers[i].thread, NULL);
        if (!issuers[i].store) {
            fail_msg("%s", issuers[i].why.msg);
        }
        store_free(issuers[i].store);
    }
    test_store_ask(spec, "SELECT COUNT(*) FROM migrations", n, sizeof n);
    assert_int_equal(atoi(n), store_n_migrations); /* each once */
    test_store_ask(spec, "SELECT MAX(number) FROM migrations", n, sizeof n);
    assert_int_equal(atoi(n), STORE_SCHEMA_VERSION);
}

static enum att_rc tell_usable(void *user, struct store_tx *tx, struct att_err *err)
{
    struct store_issuer row = {.id = user, .name = "b:/s", .lacks = "", .jwt = "kid", .seen_at = 9};
    return store_put(tx, &store_issuers, &row, err);
}

/* What an issuer of schema 16 writes that began before the upgrade and runs on beside the others,
 * until it is its turn: it is taken, and what it does not know stays. */
static void upgraded_beside_an_old_issuer(void **state)
{
    (void)state;
    char spec[TEST_SPEC_MAX], n[16], id[] = "i1";
    struct store *store = NULL;
    test_postgres_database(spec);
    ok(store_open(spec, &store, &err));
    store_free(store);
    test_store_sql(spec, schema_16);
    ok(store_open(spec, &store, &err));
    ok(store_run(store, false, see_upgraded, NULL, &err));
    ok(store_run(store, true, tell_usable, id, &err));
    test_store_sql(
        spec,
        "INSERT INTO issuers (id, name, generation, lacks, seen_at) VALUES ('i1', 'a:/s', 4, '', "
        "11)"
        " ON CONFLICT (id) DO UPDATE SET name = excluded.name, generation = excluded.generation,"
        " lacks = excluded.lacks, seen_at = excluded.seen_at;"
        "INSERT INTO issuers (id, name, generation, lacks, seen_at) VALUES ('i2', 'c:/s', 4, '', "
        "11);"
        "UPDATE federated SET records_paid_at = 5, unrecorded = 2;"
        "INSERT INTO federated (name, bundle, sha256, source, outcome, reason, detail, sequence,"
        " hint_s, anew, failures, tried_at, fetched_at, changed_at) VALUES ('p.example', '{}', "
        "'bb',"
        " 'endpoint', 'updated', '', '', 5, 300, 0, 0, 20, 20, 20) ON CONFLICT (name) DO UPDATE SET"
        " sha256 = excluded.sha256, sequence = excluded.sequence;");
    test_store_ask(spec, "SELECT COUNT(*) FROM issuers WHERE id = 'i1' AND jwt = 'kid'", n,
                   sizeof n);
    assert_string_equal(n, "1");
    test_store_ask(spec, "SELECT COUNT(*) FROM issuers WHERE id = 'i2' AND jwt = ''", n, sizeof n);
    assert_string_equal(n, "1");
    test_store_ask(spec,
                   "SELECT COUNT(*) FROM federated WHERE sha256 = 'bb' AND records_paid_at = 5 AND"
                   " unrecorded = 2",
                   n, sizeof n);
    assert_string_equal(n, "1");
    store_free(store);
}

static enum att_rc append(void *user, struct store_tx *tx, struct att_err *err)
{
    int64_t n = 0;
    (void)user;
    enum att_rc rc = store_meta_count(tx, "n", &n, err);
    return rc ? rc : store_audit_append(tx, n, "{\"kind\":\"test\"}", NULL, err);
}

static void *append_all(void *user)
{
    struct issuer_of *i = user;
    for (int n = 0; n < EACH; n++) {
        if (n % 2 ? store_run(i->store, true, append, NULL, &i->why)
                  : store_run_soft(i->store, append, NULL, &i->why)) {
            break;
        }
    }
    return NULL;
}

static enum att_rc verify(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_audit_verify(tx, NULL, user, err);
}

/* Reading what is there and writing what follows it: nobody's is lost, nobody fails for another. */
static void one_chain(void **state)
{
    (void)state;
    char spec[TEST_SPEC_MAX];
    struct issuer_of w[2 * ISSUERS] = {0};
    struct store_audit head = {0};
    test_postgres_database(spec);
    for (size_t i = 0; i < 2 * ISSUERS; i++) {
        w[i].spec = spec;
        if (i < ISSUERS) {
            ok(store_open(spec, &w[i].store, &err));
        } else {
            w[i].store = w[i - ISSUERS].store;
        }
    }
    for (size_t i = 0; i < 2 * ISSUERS; i++) {
        assert_int_equal(pthread_create(&w[i].thread, NULL, append_all, &w[i]), 0);
    }
    for (size_t i = 0; i < 2 * ISSUERS; i++) {
        pthread_join(w[i].thread, NULL);
        assert_string_equal(w[i].why.msg, "");
    }
    ok(store_run(w[0].store, false, verify, &head, &err));
    assert_int_equal(head.seq, 2 * ISSUERS * EACH);
    assert_int_equal(head.at, head.seq);
    for (size_t i = 0; i < ISSUERS; i++) {
        store_free(w[i].store);
    }
}

static atomic_int inside, most_inside;

static enum att_rc stay(void *user, struct store_tx *tx, struct att_err *err)
{
    struct store_audit head;
    (void)user;
    int now = atomic_fetch_add(&inside, 1) + 1;
    int most = atomic_load(&most_inside);
    while (now > most && !atomic_compare_exchange_weak(&most_inside, &most, now)) {
    }
    usleep(20000);
    enum att_rc rc = store_audit_head(tx, &head, err);
    atomic_fetch_sub(&inside, 1);
    return rc;
}

static void *read_some(void *user)
{
    struct issuer_of *i = user;
    for (int n = 0; n < 3 && !store_run(i->store, false, stay, NULL, &i->why); n++) {
    }
    return NULL;
}

/* More threads than connections wait for one. */
static void pool_is_bounded(void **state)
{
    (void)state;
    char spec[TEST_SPEC_MAX];
    static struct issuer_of r[48];
    struct store *store = NULL;
    test_postgres_database(spec);
    ok(store_open(spec, &store, &err));
    for (size_t i = 0; i < 48; i++) {
        r[i] = (struct issuer_of){.store = store};
        assert_int_equal(pthread_create(&r[i].thread, NULL, read_some, &r[i]), 0);
    }
    for (size_t i = 0; i < 48; i++) {
        pthread_join(r[i].thread, NULL);
        assert_string_equal(r[i].why.msg, "");
    }
    assert_true(store->db->n_open <= STORE_PG_CONNECTIONS_MAX);
    assert_true(atomic_load(&most_inside) <= STORE_PG_CONNECTIONS_MAX);
    store_free(store);
}

/* ---- what goes wrong
 * --------------------------------------------------------------------------- */

static enum att_rc ignore_failure(void *user, struct store_tx *tx, struct att_err *err)
{
    (void)user;
    struct att_err own = {0};
    (void)err;
    enum att_rc rc = append(NULL, tx, &own);
    assert_int_equal(rc, ATT_OK);
    assert_int_equal(tx->store->ops->script(tx->con, "SELECT no_such_thing", &own), ATT_E_IO);
    return ATT_OK;
}

/* PostgreSQL answers such a COMMIT with a ROLLBACK and no error. */
static void failed_statement_fails_the_whole(void **state)
{
    (void)state;
    char spec[TEST_SPEC_MAX], n[16];
    struct store *store = NULL;
    struct att_err why = {0};
    test_postgres_database(spec);
    ok(store_open(spec, &store, &err));
    assert_int_equal(store_run(store, true, ignore_failure, NULL, &why), ATT_E_IO);
    assert_non_null(strstr(why.msg, "given up"));
    test_store_ask(spec, "SELECT COUNT(*) FROM audit", n, sizeof n);
    assert_string_equal(n, "0");
    ok(store_run(store, true, append, NULL, &err));
    store_free(store);
}

static enum att_rc find_nonsense(void *user, struct store_tx *tx, struct att_err *err)
{
    struct store_order order = {0};
    (void)user;
    assert_int_equal(store_get(tx, &store_orders, "\xff\xfe", &order, NULL), ATT_E_NOTFOUND);
    return append(NULL, tx, err);
}

static void not_utf8_is_not_there(void **state)
{
    (void)state;
    char spec[TEST_SPEC_MAX];
    struct store *store = NULL;
    test_postgres_database(spec);
    ok(store_open(spec, &store, &err));
    ok(store_run(store, true, find_nonsense, NULL, &err));
    store_free(store);
}

static enum att_rc killed_inside(void *user, struct store_tx *tx, struct att_err *err)
{
    enum att_rc rc = append(NULL, tx, err);
    test_store_sql(user, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE"
                         " datname = current_database() AND pid <> pg_backend_pid()");
    return rc ? rc : append(NULL, tx, err);
}

/* In a transaction it is that one's failure; before it nobody notices. */
static void lost_connections(void **state)
{
    (void)state;
    char spec[TEST_SPEC_MAX], n[16];
    struct store *store = NULL;
    struct att_err why = {0};
    test_postgres_database(spec);
    ok(store_open(spec, &store, &err));
    ok(store_run(store, true, append, NULL, &err));
    assert_int_equal(store_run(store, true, killed_inside, spec, &why), ATT_E_UNREACHABLE);
    assert_string_equal(why.reason, "storeDown");
    test_store_ask(spec, "SELECT COUNT(*) FROM audit", n, sizeof n);
    assert_string_equal(n, "1");
    ok(store_run(store, true, append, NULL, &err));
    test_store_sql(spec, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE"
                         " datname = current_database() AND pid <> pg_backend_pid()");
    ok(store_run(store, false, verify, NULL, &err));
    store_free(store);
}

static void server_away_and_back(void **state)
{
    (void)state;
    char spec[TEST_SPEC_MAX];
    struct store *store = NULL;
    struct store_audit head = {0};
    struct att_err why = {0};
    test_postgres_database(spec);
    ok(store_open(spec, &store, &err));
    ok(store_run(store, true, append, NULL, &err));
    test_postgres_stop();
    assert_int_equal(store_run(store, true, append, NULL, &why), ATT_E_UNREACHABLE);
    assert_string_equal(why.reason, "storeDown");
    att_err_clear(&why);
    assert_int_equal(store_run(store, false, verify, &head, &why), ATT_E_UNREACHABLE);
    test_postgres_start();
    usleep(300000); /* for a quarter of a second it is not asked again */
    ok(store_run(store, true, append, NULL, &err));
    ok(store_run(store, false, verify, &head, &err));
    assert_int_equal(head.seq, 2);
    store_free(store);
}

/* A server that takes the connection and says nothing more: no call waits for it for ever. */
static void silent_server(void **state)
{
    (void)state;
    char spec[TEST_SPEC_MAX];
    struct store *store = NULL;
    struct att_err why = {0};
    test_postgres_database(spec);
    ok(store_open(spec, &store, &err));
    ok(store_run(store, true, append, NULL, &err));
    test_postgres_freeze(true);
    enum att_rc rc = store_run(store, true, append, NULL, &why);
    test_postgres_freeze(false);
    assert_int_equal(rc, ATT_E_UNREACHABLE);
    assert_string_equal(why.reason, "storeDown");
    usleep(300000);
    ok(store_run(store, true, append, NULL, &err));
    store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dialect),
        cmocka_unit_test(texts),
        cmocka_unit_test(options),
        cmocka_unit_test(options_from_elsewhere),
        cmocka_unit_test(no_password_in_it),
        cmocka_unit_test(password_file),
        cmocka_unit_test(only_utf8),
        cmocka_unit_test(start_at_once),
        cmocka_unit_test(upgraded_beside_an_old_issuer),
        cmocka_unit_test(one_chain),
        cmocka_unit_test(pool_is_bounded),
        cmocka_unit_test(failed_statement_fails_the_whole),
        cmocka_unit_test(not_utf8_is_not_there),
        cmocka_unit_test(lost_connections),
        cmocka_unit_test(server_away_and_back),
        cmocka_unit_test(silent_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
