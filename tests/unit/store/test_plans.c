/* By what the database finds its rows, in a store with many: what each request, each minute's sweep
 * and each step of a rotation asks must not read a whole table of hosts, AK records, orders or
 * certificates. The database's own EXPLAIN says so, over 5000 rows each and its statistics. */
#include "provision/store/store_internal.h"
#include "tests/support/postgres.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char dir[128];

/* In both databases' words: SQLite has no generate_series, PostgreSQL no blob literal like it. */
static void fill(const char *spec, const char *table, const char *columns, const char *values)
{
    char sql[2048];
    bool postgres = test_store_is_postgres();
    assert_true(snprintf(sql, sizeof sql, "INSERT INTO %s (%s) %sSELECT %s FROM %s", table, columns,
                         postgres ? ""
                                  : "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s"
                                    " WHERE i < 5000) ",
                         values,
                         postgres ? "generate_series(1, 5000) AS s(i)" : "s") < (int)sizeof sql);
    test_store_sql(spec, sql);
}

static void store_of_many(const char *spec)
{
    const char *none = test_store_is_postgres() ? "''::bytea" : "x''";
    char values[1024];
    fill(spec, "accounts", "id, thumbprint, jwk, status, ticket, eab, contact, created_at",
         "'a' || i, 't' || i, '', 'valid', '', '', '', i");
    fill(spec, "hosts",
         "id, label, labels, state, account, reason, manufacturer, model, version, ek_source,"
         " notes, created_at, updated_at, seen_at, registered_by, view_seen",
         "'h' || i, 'l', '', 'approved', 't' || i, '', '', '', '', '', '', i, i, i, '', 7");
    snprintf(values, sizeof values,
             "'k' || i, 'a' || i, 'e' || i, 'h' || i, 'valid', '', '', '', '', '', '', '', %s, %s,"
             " %s, %s, %s, %s, 0, 0, 0, 1, %s, i, 1000000 + i",
             none, none, none, none, none, none, none);
    fill(spec, "aks",
         "id, account, ek, host, state, ended_reason, pcr_selection, logs, profile_boot, facts,"
         " cert, clock, secret, nonce, pub, name, ek_pub, m1, clock_ms, reset_count,"
         " restart_count, safe, firmware, created_at, expires_at",
         values);
    snprintf(values, sizeof values,
             "'o' || i, 'a' || i, 'h' || i, '', 'spiffe-id', '', '', 'pending', 'pending', '',"
             " 'n' || i, '', '', '', '', 1, '', '', '', '', '', '', '', %s, i, 1000000 + i, 0",
             none);
    fill(spec, "orders",
         "id, account, host, ak, identifier_type, identifier, profile, status, chall_status, error,"
         " token, pcr_selection, logs, policy, entry, entry_version, clock, decision, cert,"
         " measured, authz, replaces, parent, key_spki, created_at, expires_at, verdict_at",
         values);
    snprintf(values, sizeof values,
             "'c' || i, 'i' || i, 'agent', 'issued', 's' || i, 'a' || i, 'h' || i, 'o' || i, '',"
             " '', '', '', '', %s, i, i, i, 0",
             none);
    fill(spec, "certs",
         "serial, id, kind, status, subject, account, host, ord, profile, pem, decision, reason,"
         " replaced, tbs, not_before, not_after, created_at, ended_at",
         values);
    test_store_sql(spec, "ANALYZE");
}

struct plan {
    struct store *store;
    char text[4096];
};

static enum att_rc add_line(void *user, const struct store_row *row, struct att_err *err)
{
    struct plan *p = user;
    (void)err;
    struct att_slice line = p->store->ops->row_bytes(row, p->store->ops->shared ? 0 : 3);
    size_t at = strlen(p->text);
    snprintf(p->text + at, sizeof p->text - at, "%.*s\n", (int)line.len, (const char *)line.ptr);
    return ATT_OK;
}

struct asked {
    struct plan *plan;
    const char *sql;
};

static enum att_rc explain(void *user, struct store_tx *tx, struct att_err *err)
{
    struct asked *a = user;
    return store_exec(tx, a->sql, NULL, 0, add_line, a->plan, NULL, err);
}

/* Statements as the store's files have them, with values of a day on which little is to be done. */
static const struct {
    const char *sql, *index; /* index: the one that it needs; NULL: any */
} asked[] = {
    /* values.c, each minute */
    {"SELECT id FROM orders WHERE expires_at < 1000 LIMIT 2000", NULL},
    {"SELECT id FROM aks WHERE state <> 'valid' AND expires_at < 1000 LIMIT 2000", "aks_ended"},
    {"SELECT serial FROM certs WHERE not_after < 1 AND tbs <> x'' AND status <> 'intent' LIMIT "
     "5000",
     NULL},
    /* values.c, each newOrder */
    {"SELECT COUNT(*), COUNT(CASE WHEN status <> 'valid' THEN 1 END) FROM orders"
     " WHERE account = 'a7' AND created_at >= 1",
     "orders_account_recent"},
    {"SELECT COUNT(*) FROM aks WHERE account = 'a7' AND created_at >= 1", NULL},
    /* store.c, each request and each order */
    {"SELECT id FROM accounts WHERE thumbprint = 't7'", NULL},
    {"SELECT id FROM hosts WHERE account = 't7'", NULL},
    {"SELECT id FROM aks WHERE host = 'h7'", NULL},
    {"SELECT serial FROM certs WHERE id = 'i7'", NULL},
    /* certs.c: revocation, lists, a host's and an agent's certificates, every 5 s the intents */
    {"SELECT serial FROM certs WHERE status = 'revoked' AND kind = 'agent' AND not_after > 9000"
     " ORDER BY serial LIMIT 10",
     "certs_status_kind_end"},
    {"SELECT serial FROM certs WHERE host = 'h7' AND not_after > 9000 AND status IN ('issued',"
     " 'intent') ORDER BY created_at DESC, serial LIMIT 10",
     NULL},
    {"SELECT serial FROM certs WHERE subject = 's7' AND not_after > 9000 AND status IN ('issued',"
     " 'intent') ORDER BY created_at DESC, serial LIMIT 10",
     NULL},
    {"SELECT serial FROM certs WHERE status = 'intent'", "certs_status_kind_end"},
    {"SELECT serial FROM certs ORDER BY created_at DESC, serial LIMIT 10", NULL},
    /* a page of them behind one that was listed, of all and of a host */
    {"SELECT serial FROM certs WHERE created_at <= 4000 AND (created_at < 4000 OR serial > 'c7')"
     " ORDER BY created_at DESC, serial LIMIT 10",
     "certs_created"},
    {"SELECT serial FROM certs WHERE host = 'h7' AND created_at <= 4000 AND (created_at < 4000 OR"
     " serial > 'c7') ORDER BY created_at DESC, serial LIMIT 10",
     NULL},
    /* lists.c: a page of the hosts, of those in a state; how many there are; by name */
    {"SELECT id, notes FROM hosts WHERE id > 'h7' ORDER BY id LIMIT 10", NULL},
    {"SELECT id, notes FROM hosts WHERE state = 'pending' AND id > 'h7' ORDER BY id LIMIT 10",
     "hosts_state"},
    {"SELECT id FROM hosts WHERE label = 'none' LIMIT 10", "hosts_label"},
    {"SELECT id FROM hosts WHERE label = 'none' OR (id >= '77777777' AND id < '77777777g') LIMIT"
     " 10",
     "hosts_label"},
    /* authorities.c: the last step of a rotation */
    {"SELECT COALESCE(MAX(not_after), 0) FROM certs WHERE kind = 'agent' AND created_at <= 4000"
     " AND not_after > 4990 AND status IN ('issued', 'intent')",
     "certs_status_kind_end"},
};

static void no_whole_table(void **state)
{
    (void)state;
    char spec[TEST_SPEC_MAX];
    struct store *store = NULL;
    struct att_err err = {0};
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%.80s/store-plans-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
    test_store_new(dir, "plans.db", spec);
    assert_int_equal(store_open(spec, &store, &err), ATT_OK);
    store_of_many(spec);
    for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
        /* One buffer each: statements are kept prepared under the address of their text. */
        static char texts[sizeof asked / sizeof asked[0]][1024];
        char *sql = texts[i];
        struct plan plan = {.store = store};
        struct asked a = {&plan, sql};
        snprintf(sql, sizeof texts[i], "EXPLAIN %s%s", store->ops->shared ? "" : "QUERY PLAN ",
                 asked[i].sql);
        assert_int_equal(store_run(store, true, explain, &a, &err), ATT_OK);
        /* SQLite's "SCAN certs USING INDEX …" is a walk in an order that ends at its LIMIT. */
        bool whole = strstr(plan.text, "Seq Scan") != NULL;
        for (const char *at = plan.text; (at = strstr(at, "SCAN ")) != NULL; at++) {
            const char *end = strchr(at, '\n'), *index = strstr(at, "USING INDEX");
            whole = whole || !index || index > end;
        }
        bool other = asked[i].index && !strstr(plan.text, asked[i].index);
        if (whole || other || !plan.text[0]) {
            fail_msg("%s\n%s", asked[i].sql, plan.text);
        }
    }
    store_free(store);
    char command[160];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_whole_table)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
