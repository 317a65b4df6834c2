/* The sweep of a store in which much has ended: a second at a time, and gone on with. */
#include "provision/issuer/sweep.h"
#include "provision/store/store_internal.h"
#include "tests/unit/issuer/stage.h"

#define ENDED 5000

static const struct store_db_ops *real;

static enum att_rc slow_begin(struct store_db *db, enum store_mode mode, struct store_con **ret_con,
                              struct att_err *err)
{
    usleep((ISSUER_SWEEP_MS + 100) * 1000);
    return real->begin(db, mode, ret_con, err);
}

static enum att_rc run_sql(void *user, struct store_tx *tx, struct att_err *err)
{
    return tx->store->ops->script(tx->con, user, err);
}

static void sql(struct stage *s, char *text)
{
    rig_ok(store_run(s->rig.issuer->store, true, run_sql, text, &err));
}

static void many_ended(struct stage *s)
{
    char text[1500];
    bool postgres = test_store_is_postgres();
    sql(s, "INSERT INTO accounts (id, thumbprint, jwk, status, ticket, eab, contact, created_at)"
           " VALUES ('a', 't', '', 'valid', '', '', '', 1)");
    snprintf(text, sizeof text,
             "INSERT INTO orders (id, account, host, ak, identifier_type, identifier, profile,"
             " status, chall_status, error, token, pcr_selection, logs, policy, entry,"
             " entry_version, clock, decision, cert, measured, authz, replaces, parent, key_spki,"
             " created_at, expires_at, verdict_at)"
             " %sSELECT 'o' || i, 'a', 'h', '', 'spiffe-id', '', '', 'pending', 'pending', '',"
             " 'n' || i, '', '', '', '', 1, '', '', '', '', '', '', '', %s, i, 1000, 0 FROM %s",
             postgres ? ""
                      : "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s"
                        " WHERE i < 5000) ",
             postgres ? "''::bytea" : "x''", postgres ? "generate_series(1, 5000) AS s(i)" : "s");
    sql(s, text);
    assert_int_equal(rig_rows(&s->rig, &store_orders), ENDED);
}

/* One transaction takes longer than the turn: each turn has one, and the loop goes on between. */
static void a_turn_ends_in_time(void **state)
{
    (void)state;
    struct stage s;
    struct issuer_sweep sweep = {0};
    struct store_db_ops slow;
    stage_new(&s, "none");
    many_ended(&s);
    struct store *store = s.rig.issuer->store;
    real = store->ops;
    slow = *real;
    slow.begin = slow_begin;
    for (int left = ENDED - 2000; left > -2000; left -= 2000) {
        store->ops = &slow;
        issuer_sweep_tick(s.rig.issuer, &sweep);
        store->ops = real;
        assert_int_equal(rig_rows(&s.rig, &store_orders), left > 0 ? left : 0);
        assert_int_equal(sweep.more, left > 0);
    }
    stage_free(&s);
}

/* Where it takes no time, all of it goes in one turn; what fails waits for the next minute. */
static void the_rest_goes_at_once(void **state)
{
    (void)state;
    struct stage s;
    struct issuer_sweep sweep = {0};
    stage_new(&s, "none");
    many_ended(&s);
    sql(&s, "ALTER TABLE step_pending RENAME TO away");
    issuer_sweep_tick(s.rig.issuer, &sweep);
    sql(&s, "ALTER TABLE away RENAME TO step_pending");
    assert_int_equal(rig_rows(&s.rig, &store_orders), ENDED);
    assert_false(sweep.more);
    issuer_sweep_tick(s.rig.issuer, &sweep); /* not yet */
    assert_int_equal(rig_rows(&s.rig, &store_orders), ENDED);
    sweep.last_ms = 0;
    for (int turn = 0; turn < 3 && (turn == 0 || sweep.more); turn++) {
        issuer_sweep_tick(s.rig.issuer, &sweep);
    }
    assert_int_equal(rig_rows(&s.rig, &store_orders), 0);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_turn_ends_in_time),
        cmocka_unit_test(the_rest_goes_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
