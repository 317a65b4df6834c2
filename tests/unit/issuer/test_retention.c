/* Records of a profile that are older than its retention: emptied, named, and nothing else touched;
 * chain, log and proofs hold. */
#include "provision/issuer/retention.h"
#include "tests/unit/issuer/rig.h"

#define DAY     86400
#define RECORDS 40

struct decided {
    const char *kind, *profile;
    int64_t at;
};

static enum att_rc decide(void *user, struct store_tx *tx, struct att_err *err)
{
    const struct decided *d = user;
    json_t *record = issuer_record(d->kind, "granted", NULL, NULL, "spiffe://bank.example/agent/a");
    json_object_set_new(record, "profile", json_string(d->profile));
    return issuer_audit(tx, d->at, record, NULL, err);
}

struct seen {
    unsigned empty, kept, retention;
    bool wrong;
};

static enum att_rc see(void *user, const struct store_audit *a, struct att_err *err)
{
    struct seen *seen = user;
    (void)err;
    seen->empty += a->record[0] == 0;
    seen->kept += strstr(a->record, "\"kind\":\"issue\"") != NULL;
    seen->retention += strstr(a->record, "\"kind\":\"retention\"") != NULL;
    /* Only those of the profile, and only old ones. */
    seen->wrong |= a->record[0] == 0 && (a->seq % 2 == 0 || a->at >= rig_time - 400 * DAY);
    return ATT_OK;
}

static enum att_rc look(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_audit_each(tx, 1, 0, see, user, err);
}

static struct seen count(struct rig *r)
{
    struct seen seen = {0};
    rig_ok(store_run(r->issuer->store, false, look, &seen, &err));
    return seen;
}

static void publish(struct rig *r)
{
    bool behind = true;
    while (behind) {
        rig_ok(audit_log_publish(r->issuer->log, r->issuer->store, &behind, &err));
    }
}

static void verify(struct rig *r)
{
    json_t *result = NULL;
    rig_ok(issuer_audit_save_head(r->issuer, &err));
    publish(r);
    rig_ok(issuer_audit_verify(r->issuer, &result, &err));
    json_decref(result);
}

static void test_by_profile_and_age(void **state)
{
    (void)state;
    struct tpm tpm;
    struct rig r = {0};
    tpm_new(&tpm);
    rig_new(&r, tpm.base->maker_root, "none");
    struct conf_profile profile = {
        .name = (char *)"trading", .retention = (char *)"400d", .retention_s = 400 * DAY};
    /* Odd numbers of the profile, from the first on; every second half of them too young. */
    for (int i = 0; i < RECORDS; i++) {
        struct decided d = {"issue", i % 2 == 0 ? "trading" : "other",
                            rig_time - (i < RECORDS / 2 ? 500 : 10) * DAY};
        rig_ok(store_run(r.issuer->store, true, decide, &d, &err));
    }
    bool more = true;
    /* Without leaves nothing is taken: the log would commit to an empty record. */
    rig_ok(issuer_retention_step(r.issuer, &profile, &more, &err));
    assert_int_equal(count(&r).empty, 0);
    publish(&r);
    verify(&r);
    rig_ok(issuer_retention_step(r.issuer, &profile, &more, &err));
    assert_false(more);
    struct seen seen = count(&r);
    assert_int_equal(seen.empty, RECORDS / 4);
    assert_int_equal(seen.kept, RECORDS - RECORDS / 4);
    assert_int_equal(seen.retention, 1);
    assert_false(seen.wrong);
    verify(&r);
    /* Once is enough. */
    rig_ok(issuer_retention_step(r.issuer, &profile, &more, &err));
    assert_int_equal(count(&r).retention, 1);
    /* What was young is old later on; that which says what was emptied stays for ever. */
    rig_time += 1000 * (int64_t)DAY;
    rig_ok(issuer_retention_step(r.issuer, &profile, &more, &err));
    seen = count(&r);
    assert_int_equal(seen.empty, RECORDS / 2);
    assert_int_equal(seen.retention, 2);
    verify(&r);
    rig_free(&r);
    tpm_free(&tpm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_by_profile_and_age)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
