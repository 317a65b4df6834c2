/* What a host does after a reboot, a resume or a hibernation: the old AK record is refused, a new
 * enrolment makes it good again, and the record says which it was. */
#include "tests/unit/issuer/rig.h"

struct stage {
    struct rig rig;
    struct tpm tpm;
    struct client client;
    char ak[256];
};

static void stage_new(struct stage *s, const char *boot)
{
    tpm_new(&s->tpm);
    rig_new(&s->rig, s->tpm.base->maker_root, boot);
    client_new(&s->client, &s->rig);
    if (strcmp(boot, "none") != 0) {
        rig_policy(&s->rig, &s->tpm);
    }
}

static void stage_free(struct stage *s)
{
    client_free(&s->client);
    rig_free(&s->rig);
    tpm_free(&s->tpm);
}

/* An approved host with one agent assigned to it by its EK id. */
static void stage_enrolled(struct stage *s, const char *boot)
{
    char selector[80];
    stage_new(s, boot);
    rig_enrol(&s->client, &s->tpm, s->ak);
    snprintf(selector, sizeof selector, "ek:%s", s->tpm.ek_id);
    rig_entries(&s->rig, selector);
}

static void ready_order(struct stage *s, struct order *o)
{
    s->tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_order(&s->client, RIG_NAME, o), 201);
    const char *status = rig_m4(&s->client, &s->tpm, o, s->ak);
    if (strcmp(status, "valid") != 0) {
        client_refused(&s->client, "nothing");
    }
    assert_int_equal(client_get(&s->client, o->url), 200);
    assert_string_equal(client_text(&s->client, "status"), "ready");
}

/* What the newest record of an accepted enrolment says about the time before it. */
static const char *newest_enrolment(struct stage *s)
{
    static char since[32];
    json_t *audit = rig_admin(&s->rig, "audit.list", json_pack("{s:s}", "kind", "enrol"));
    const json_t *records = json_object_get(audit, "records");
    const json_t *record =
        json_object_get(json_array_get(records, json_array_size(records) - 1), "record");
    assert_string_equal(issuer_string(record, "outcome"), "granted");
    rig_copy(since, sizeof since, issuer_string(record, "since"));
    json_decref(audit);
    return since;
}

/* Reboot: the old AK record is stale, a new enrolment under the same account and no ticket makes it
 * good again; logs that the issuer has need not be sent twice. */
static void reboot(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    struct enrolment e;
    stage_enrolled(&s, "none");
    s.tpm.clock.reset_count++;
    s.tpm.clock.restart_count = 0;
    s.tpm.clock.clock_ms += 60000;
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "invalid");
    client_refused(&s.client, "akStale");
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    assert_int_equal(e.response.wanted.n_known, 1);
    assert_int_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "invalid"); /* the record that ended */
    client_refused(&s.client, "akUnknown");
    snprintf(s.ak, sizeof s.ak, "%s", e.url);
    ready_order(&s, &o);
    assert_string_equal(newest_enrolment(&s), "rebooted");
    enrolment_done(&e);
    stage_free(&s);
}

static void mutate_other_log(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->events[1].digest[0] ^= 1; /* the firmware volume; a separator follows in its PCR */
    }
}

static void mutate_old_log(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_PCRS) {
        memset(f->pcrs.value, 0, sizeof f->pcrs.value);
    }
}

static void enrols_again(struct stage *s, const char *since)
{
    struct order o;
    struct enrolment e;
    assert_int_equal(rig_order(&s->client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s->client, &s->tpm, &o, s->ak), "invalid");
    client_refused(&s->client, "akStale");
    assert_int_equal(rig_m1(&s->client, &s->tpm, NULL, &e), 201);
    assert_int_equal(rig_m2(&s->client, &s->tpm, &e), 200);
    assert_string_equal(newest_enrolment(s), since);
    snprintf(s->ak, sizeof s->ak, "%s", e.url);
    enrolment_done(&e);
    ready_order(s, &o);
}

/* restartCount alone does not say whether the PCRs started again: M4 wants a new enrolment either
 * way, and M2's record says which it was. */
static void resume_and_hibernation(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment e;
    stage_enrolled(&s, "none");
    assert_string_equal(newest_enrolment(&s), "first");
    s.tpm.clock.restart_count++;
    s.tpm.clock.clock_ms += 1000;
    enrols_again(&s, "resumed");
    /* Hibernated, and the log is that of before. */
    s.tpm.clock.restart_count++;
    s.tpm.mutate = mutate_old_log;
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    assert_int_not_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    client_refused(&s.client, "logReplay");
    enrolment_done(&e);
    s.tpm.mutate = mutate_other_log;
    enrols_again(&s, "hibernated");
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reboot),
        cmocka_unit_test(resume_and_hibernation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
