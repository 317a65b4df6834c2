/* What a token rests on: the verdict of the certificate that its proof names, by what is demanded
 * now, and nothing that was said of other agents or at an enrolment meanwhile. */
#include "tests/unit/issuer/tokens.h"

#define OTHER    "reporter"
#define OTHER_ID "spiffe://bank.example/agent/" OTHER

/* A second agent, whose profile asks nothing of the boot. */
static void two_agents(struct stage *s, struct held *first, struct held *second)
{
    char text[2048];
    stage_enrolled(s, "forge");
    reconfigure(&s->rig, "profiles:\n", "jwt:\n  issuer: " ISS "\nprofiles:\n");
    rig_ok(issuer_jwt_start(s->rig.issuer, &err));
    snprintf(text, sizeof text,
             "trust_domain: bank.example\nagents:\n"
             "  - name: " RIG_NAME "\n    owner: x@bank.example\n    hosts: [ \"ek:%s\" ]\n"
             "    workload: { uid: 1001 }\n    key: tpm\n    profile: trading\n"
             "    audiences: [ \"" AUD "\" ]\n"
             "  - name: " OTHER "\n    owner: x@bank.example\n    hosts: [ \"ek:%s\" ]\n"
             "    workload: { uid: 1003 }\n    key: tpm\n    profile: other\n"
             "    audiences: [ \"" AUD "\" ]\n",
             s->tpm.ek_id, s->tpm.ek_id);
    rig_admin_done(&s->rig, "entry.apply",
                   json_pack("{s:s, s:s}", "text", text, "filename", "e.yaml"));
    issue(s, first);
    issue_to(s, OTHER, OTHER_ID, second);
    assert_int_equal(ask(s, first, &right), 200);
    assert_int_equal(ask(s, second, &(struct asking){.id = OTHER_ID}), 200);
    rig_time += 1;
}

static void no_of(struct stage *s, const char *agent, forge_mutate mutate, const char *reason)
{
    struct order o;
    s->tpm.mutate = mutate;
    s->tpm.identifier = strcmp(agent, OTHER) == 0 ? OTHER_ID : FORGE_IDENTIFIER;
    s->tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_order(&s->client, agent, &o), 201);
    assert_string_equal(rig_m4(&s->client, &s->tpm, &o, s->ak), "invalid");
    client_refused(&s->client, reason);
    s->tpm.mutate = NULL;
    rig_time += 1;
}

static void other_loader(struct forge *f, enum forge_stage stage)
{
    for (size_t i = 0; stage == FORGE_KEYS && i < f->n_events; i++) {
        if (f->events[i].type == PARSE_EV_EFI_BOOT_SERVICES_APPLICATION) {
            att_sha256(f->events[i].digest, ATT_SLICE_LIT("another loader's image"));
        }
    }
}

static void quote_magic(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->magic_quote ^= 1;
    }
}

static void certify_magic(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->magic_certify ^= 1;
    }
}

/* A boot that one policy refuses counts for those whom it judges, until they are judged again: the
 * yes of a laxer profile does not take it away. */
static void laxer_profile(void **state)
{
    (void)state;
    struct stage s;
    struct held first, second;
    const struct asking other = {.id = OTHER_ID};
    two_agents(&s, &first, &second);
    no_of(&s, RIG_NAME, other_loader, "bootPolicy");
    refused(&s, &first, &right, "verdictRefused");
    assert_int_equal(ask(&s, &second, &other), 200);
    issue_to(&s, OTHER, OTHER_ID, &second);
    assert_int_equal(ask(&s, &second, &other), 200);
    refused(&s, &first, &right, "verdictRefused");
    rig_time += 1;
    issue(&s, &first);
    assert_int_equal(ask(&s, &first, &right), 200);
    stage_free(&s);
}

/* One agent's key is no matter of the others'; a quote is. */
static void whose_refusal(void **state)
{
    (void)state;
    struct stage s;
    struct held first, second;
    const struct asking other = {.id = OTHER_ID};
    two_agents(&s, &first, &second);
    no_of(&s, OTHER, certify_magic, "certifyType");
    refused(&s, &second, &other, "verdictRefused");
    assert_int_equal(ask(&s, &first, &right), 200);
    no_of(&s, OTHER, quote_magic, "quoteMagic");
    refused(&s, &first, &right, "verdictRefused");
    stage_free(&s);
}

/* Others' verdicts do not make this one younger. */
static void own_age(void **state)
{
    (void)state;
    struct stage s;
    struct held first, second;
    two_agents(&s, &first, &second);
    reconfigure(&s.rig, "  issuer: " ISS "\n", "  issuer: " ISS "\n  evidence_max_age: 10m\n");
    rig_time += 600;
    issue_to(&s, OTHER, OTHER_ID, &second);
    assert_int_equal(ask(&s, &second, &(struct asking){.id = OTHER_ID}), 200);
    refused(&s, &first, &right, "evidenceStale");
    stage_free(&s);
}

/* An enrolment is judged by other rules than an agent is. */
static void enrolled_again(void **state)
{
    (void)state;
    struct stage s;
    struct held first, second;
    struct enrolment e;
    two_agents(&s, &first, &second);
    no_of(&s, RIG_NAME, other_loader, "bootPolicy");
    s.tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    assert_int_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    enrolment_done(&e);
    refused(&s, &first, &right, "akUnknown"); /* its verdict was of the AK of before */
    refused(&s, &second, &(struct asking){.id = OTHER_ID}, "akUnknown");
    stage_free(&s);
}

static void demands(void **state)
{
    (void)state;
    struct stage s;
    struct held first, second;
    char roots[200], deny[300];
    static const char asked[] = "    boot: none\n    pcrs: \"" RIG_PCRS "\"\n";
    static const char more[] = "    boot: none\n    pcrs: \"" RIG_PCRS ",17\"\n";
    const struct asking other = {.id = OTHER_ID};
    two_agents(&s, &first, &second);
    reconfigure(&s.rig, asked, more);
    refused(&s, &second, &other, "policyExpired");
    assert_int_equal(ask(&s, &first, &right), 200);
    reconfigure(&s.rig, more, asked);
    snprintf(roots, sizeof roots, "  roots_dir: %s/ek\n", s.rig.dir);
    snprintf(deny, sizeof deny, "%s  deny:\n    - { manufacturer: IBM }\n", roots);
    reconfigure(&s.rig, roots, deny);
    refused(&s, &first, &right, "firmwareDenied");
    reconfigure(&s.rig, deny, roots);
    assert_int_equal(ask(&s, &first, &right), 200);
    /* The next version of the policy: nothing was judged by it. */
    att_autobuf text = {0};
    json_t *policy = NULL;
    forge_policy_json(s.tpm.base, &text);
    rig_ok(att_json_parse(att_buf_slice(&text), 1 << 20, &policy, &err));
    json_object_set_new(policy, "version",
                        json_integer(json_integer_value(json_object_get(policy, "version")) + 1));
    char *raised = json_dumps(policy, 0);
    rig_admin_done(&s.rig, "policy.apply", json_pack("{s:s}", "text", raised));
    free(raised);
    json_decref(policy);
    refused(&s, &first, &right, "policyExpired");
    assert_int_equal(ask(&s, &second, &other), 200);
    stage_free(&s);
}

/* What only the mode let through bears no token once the mode is another. */
static void enforced_since(void **state)
{
    (void)state;
    struct stage s;
    struct held first, second;
    two_agents(&s, &first, &second);
    static const char enforce[] = "    boot: forge\n    pcrs";
    static const char observe[] = "    boot: forge\n    mode: observe\n    pcrs";
    reconfigure(&s.rig, enforce, observe);
    s.tpm.mutate = other_loader;
    issue(&s, &first);
    s.tpm.mutate = NULL;
    assert_int_equal(ask(&s, &first, &right), 200);
    reconfigure(&s.rig, observe, enforce);
    refused(&s, &first, &right, "bootPolicy");
    stage_free(&s);
}

struct ak_change {
    const char *id;
    int64_t resets, expires_at;
};

static enum att_rc change_ak(void *user, struct store_tx *tx, struct att_err *why)
{
    const struct ak_change *change = user;
    struct store_ak ak = {0};
    enum att_rc rc = store_get(tx, &store_aks, change->id, &ak, why);
    if (!rc) {
        ak.reset_count += change->resets;
        ak.expires_at = change->expires_at ? change->expires_at : ak.expires_at;
        rc = store_put(tx, &store_aks, &ak, why);
    }
    store_record_done(&store_aks, &ak);
    return rc;
}

static void ak(void **state)
{
    (void)state;
    struct stage s;
    struct held first, second;
    two_agents(&s, &first, &second);
    struct ak_change change = {.id = strrchr(s.ak, '/') + 1, .resets = -1};
    rig_ok(store_run(s.rig.issuer->store, true, change_ak, &change, &err));
    refused(&s, &first, &right, "akStale"); /* of the boot before */
    change.resets = 1;
    rig_ok(store_run(s.rig.issuer->store, true, change_ak, &change, &err));
    assert_int_equal(ask(&s, &first, &right), 200);
    change.resets = 0;
    change.expires_at = rig_time;
    rig_ok(store_run(s.rig.issuer->store, true, change_ak, &change, &err));
    refused(&s, &first, &right, "akStale");
    stage_free(&s);
}

static enum att_rc sweep(void *user, struct store_tx *tx, struct att_err *why)
{
    bool more = false;
    (void)user;
    return store_sweep(tx, rig_time, 1000, &more, why);
}

/* The verdict is kept for as long as the certificate. */
static void swept(void **state)
{
    (void)state;
    struct stage s;
    struct held first, second;
    two_agents(&s, &first, &second);
    rig_time += 3000;
    rig_ok(store_run(s.rig.issuer->store, true, sweep, NULL, &err));
    assert_int_equal(ask(&s, &first, &right), 200);
    rig_time += 3600;
    rig_ok(store_run(s.rig.issuer->store, true, sweep, NULL, &err));
    assert_int_equal(rig_rows(&s.rig, &store_orders), 0);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(laxer_profile),
        cmocka_unit_test(whose_refusal),
        cmocka_unit_test(own_age),
        cmocka_unit_test(enrolled_again),
        cmocka_unit_test(demands),
        cmocka_unit_test(enforced_since),
        cmocka_unit_test(ak),
        cmocka_unit_test(swept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
