/* The audit log in the issuer: what it does when the chain under it is another. */
#include "tests/unit/issuer/stage.h"

static uint64_t published(struct rig *r)
{
    att_autobuf note = {0};
    bool final = false;
    unsigned long long size = 0;
    rig_ok(audit_log_read(r->issuer->state_dir, "checkpoint", &note, &final, &err));
    const char *line = strchr(att_buf_cstr(&note), '\n');
    assert_non_null(line);
    assert_int_equal(sscanf(line, "\n%llu\n", &size), 1);
    return size;
}

static void decide(struct rig *r)
{
    json_t *ticket = rig_admin(r, "ticket.create", json_object());
    assert_non_null(ticket);
    json_decref(ticket);
}

static void broken_chain_is_not_published(void **state)
{
    (void)state;
    struct stage s;
    char last[32], change[128];
    struct att_err why = {0};
    stage_new(&s, "none");
    struct issuer *issuer = s.rig.issuer;
    decide(&s.rig);
    rig_ok(issuer_audit_save_head(issuer, &err));
    issuer_log_tick(issuer, true);
    uint64_t before = published(&s.rig);
    assert_true(before > 0);
    test_store_ask(s.rig.store, "SELECT max(seq) FROM audit", last, sizeof last);
    assert_int_equal(strtoull(last, NULL, 10), before);
    snprintf(change, sizeof change, "UPDATE audit SET record = '{}' WHERE seq = %s", last);
    test_store_sql(s.rig.store, change);
    decide(&s.rig);
    assert_int_equal(issuer_audit_save_head(issuer, &why), ATT_E_AUTH);
    assert_true(issuer->head_broken);
    issuer_log_tick(issuer, true);
    assert_int_equal(published(&s.rig), before);
    assert_true(atomic_load(&issuer->log_broken)); /* `issuer status` says it */
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broken_chain_is_not_published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
