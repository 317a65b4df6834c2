/* What cannot be read is nobody's fault but ours: no verdict, no record of a refusal, nothing
 * ended, and the same request holds when the store is well again. */
#include "provision/store/store_internal.h"
#include "tests/unit/issuer/stage.h"

static enum att_rc run_sql(void *user, struct store_tx *tx, struct att_err *err)
{
    return tx->store->ops->script(tx->con, user, err);
}

/* A table that statements do not find: each gets an error that is not "there is no such row". */
static void take_away(struct rig *r, const char *table, bool back)
{
    char sql[128];
    snprintf(sql, sizeof sql, "ALTER TABLE %s%s RENAME TO %s%s", table, back ? "_away" : "", table,
             back ? "" : "_away");
    rig_ok(store_run(r->issuer->store, true, run_sql, sql, &err));
}

struct kept {
    int audit, orders, aks, certs;
};

static enum att_rc read_head(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_audit_head(tx, user, err);
}

static struct kept kept(struct rig *r)
{
    struct store_audit head = {0};
    rig_ok(store_run(r->issuer->store, false, read_head, &head, &err));
    return (struct kept){(int)head.seq, rig_rows(r, &store_orders), rig_rows(r, &store_aks),
                         rig_rows(r, &store_certs)};
}

static void internal(struct client *c)
{
    assert_int_equal(c->last.status, 500);
    client_refused(c, "serverInternal");
}

static void statement_of_an_agent(void **state)
{
    (void)state;
    static const char *const tables[] = {"hosts", "entries", "aks", "policies"};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        struct stage s;
        struct order o;
        stage_enrolled(&s, "forge");
        assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
        struct kept before = kept(&s.rig);
        take_away(&s.rig, tables[i], false);
        assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "");
        internal(&s.client);
        take_away(&s.rig, tables[i], true);
        struct kept after = kept(&s.rig);
        assert_memory_equal(&before, &after, sizeof before);
        assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "valid");
        /* The same at finalize: the order stays ready. */
        before = kept(&s.rig);
        take_away(&s.rig, tables[i], false);
        assert_int_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER),
                         500);
        internal(&s.client);
        take_away(&s.rig, tables[i], true);
        after = kept(&s.rig);
        assert_memory_equal(&before, &after, sizeof before);
        assert_int_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER),
                         200);
        stage_free(&s);
    }
}

static void enrolment(void **state)
{
    (void)state;
    static const char *const tables[] = {"tickets", "hosts", "host_eks", "policies"};
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++) {
        struct stage s;
        struct enrolment e = {0};
        att_autobuf payload = {0};
        stage_new(&s, "forge");
        json_t *ticket = rig_ticket(&s.rig, s.tpm.ek_id, 1);
        assert_int_equal(client_account(&s.client, ticket), 201);
        json_decref(ticket);
        struct kept before = kept(&s.rig);
        if (strcmp(tables[i], "policies") != 0) {
            take_away(&s.rig, tables[i], false);
            assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 500);
            internal(&s.client);
            enrolment_done(&e);
            take_away(&s.rig, tables[i], true);
        }
        struct kept after = kept(&s.rig);
        assert_memory_equal(&before, &after, sizeof before);
        assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
        before = kept(&s.rig);
        /* An answer that could not be judged is not the one try. */
        take_away(&s.rig, tables[i], false);
        assert_int_equal(rig_m2(&s.client, &s.tpm, &e), 500);
        internal(&s.client);
        take_away(&s.rig, tables[i], true);
        after = kept(&s.rig);
        assert_memory_equal(&before, &after, sizeof before);
        assert_int_equal(rig_m2(&s.client, &s.tpm, &e), 200);
        enrolment_done(&e);
        stage_free(&s);
    }
}

static void reading(void **state)
{
    (void)state;
    struct stage s;
    stage_enrolled(&s, "none");
    take_away(&s.rig, "hosts", false);
    assert_int_equal(client_get(&s.client, RIG_URL "/hostView"), 500);
    internal(&s.client);
    take_away(&s.rig, "hosts", true);
    take_away(&s.rig, "aks", false);
    assert_int_equal(client_get(&s.client, s.ak), 500);
    internal(&s.client);
    take_away(&s.rig, "aks", true);
    assert_int_equal(client_get(&s.client, s.ak), 200);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statement_of_an_agent),
        cmocka_unit_test(enrolment),
        cmocka_unit_test(reading),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
