/* The steps of authorities and of the keys of tokens: over HTTPS two CA operators take each, it is
 * the step that was approved and no other, and one that was taken is said to be taken. */
#include "provision/issuer/jwt.h"
#include "provision/store/store_internal.h"
#include "tests/unit/issuer/admin_stage.h"

static const struct {
    const char *op, *args;
} ca_steps[] = {{"ca.prepare", "{\"kind\":\"workload\",\"csr\":true}"},
                {"ca.rotate", "{\"kind\":\"workload\"}"},
                {"ca.chain", "{\"id\":\"0123456789abcdef\",\"text\":\"\"}"},
                {"ca.publish", "{\"id\":\"0123456789abcdef\"}"},
                {"ca.activate", "{\"id\":\"0123456789abcdef\"}"},
                {"ca.retire", "{\"id\":\"0123456789abcdef\"}"},
                {"ca.jwt.replace", "{}"}};

/* Each step of an authority is the CA operator's alone, asks for a request id, and is done once. */
static void a_step_of_an_authority_is_the_operators(void **state)
{
    (void)state;
    struct stage s;
    stage_new(&s, "none");
    with_admin(&s);
    for (size_t i = 0; i < sizeof ca_steps / sizeof ca_steps[0]; i++) {
        const char *op = ca_steps[i].op, *args = ca_steps[i].args;
        struct att_err none = {0}, first = {0}, again = {0};
        char id[40];
        refused_as(&s, "carol", op, issuer_json(args), ATT_E_DENIED, "roleMissing");
        refused_as(&s, "west", op, issuer_json(args), ATT_E_DENIED, "roleMissing");
        refused_as(&s, "desk", op, issuer_json(args), ATT_E_DENIED, "roleMissing");
        assert_int_equal(as_with(&s, "op", "", op, issuer_json(args), NULL, &none), ATT_E_INVAL);
        assert_string_equal(none.reason, "usage");
        assert_non_null(strstr(none.msg, "new for each request"));
        snprintf(id, sizeof id, "step-of-authority-%zu", i);
        enum att_rc rc = as_with(&s, "op", id, op, issuer_json(args), NULL, &first);
        assert_true(rc == ATT_OK || strncmp(first.reason, "ca", 2) == 0);
        assert_int_equal(as_with(&s, "op", id, op, issuer_json(args), NULL, &again),
                         ATT_E_CONFLICT);
        assert_string_equal(again.reason, "requestDone");
        assert_true(refusals_of(&s, op) >= 5);
    }
    stage_free(&s);
}

static size_t rows_of_authorities(struct stage *s)
{
    att_autojson *status = rig_admin(&s->rig, "ca.status", json_object());
    return json_array_size(json_object_get(status, "generations"));
}

/* A step of an authority takes two CA operators over HTTPS; nothing is made before the second one.
 * The socket takes it at once, and is named in the record. */
static void a_step_takes_two_operators(void **state)
{
    (void)state;
    struct stage s;
    att_autojson *done = NULL;
    struct att_err why = {0};
    stage_new(&s, "none");
    with_admin(&s);
    att_autojson *id = proposed(&s, "op", "ca.prepare", json_pack("{s:s}", "kind", "attestation"));
    assert_int_equal(rows_of_authorities(&s), 0);
    refused_as(&s, "op", "proposal.approve", json_pack("{s:O}", "id", id), ATT_E_CONFLICT,
               "fourEyes");
    static const char *const others[] = {"carol", "bob", "desk"};
    for (size_t i = 0; i < 3; i++) {
        refused_as(&s, others[i], "proposal.approve", json_pack("{s:O}", "id", id), ATT_E_DENIED,
                   "roleMissing");
    }
    /* Two steps that rest on the same: what the first one changes makes the second one stale. */
    att_autojson *second = proposed(&s, "op", "ca.prepare", json_pack("{s:s}", "kind", "workload"));
    rig_ok(as(&s, "op2", "proposal.approve", json_pack("{s:O}", "id", id), &done, &err));
    assert_string_equal(issuer_string(done, "state"), "prepared");
    assert_string_equal(issuer_string(json_object_get(done, "proposal"), "decidedBy"),
                        "spiffe://staff.example/op2");
    assert_int_equal(rows_of_authorities(&s), 2);
    refused_as(&s, "op2", "proposal.approve", json_pack("{s:O}", "id", id), ATT_E_CONFLICT,
               "proposalClosed");
    refused_as(&s, "op2", "proposal.approve", json_pack("{s:O}", "id", second), ATT_E_CONFLICT,
               "proposalStale");
    assert_int_equal(rows_of_authorities(&s), 2);
    /* What the step itself refuses leaves the proposal open. */
    att_autojson *third =
        proposed(&s, "op", "ca.prepare", json_pack("{s:s}", "kind", "attestation"));
    refused_as(&s, "op2", "proposal.approve", json_pack("{s:O}", "id", third), ATT_E_CONFLICT,
               "caBusy");
    att_autojson *shown = rig_admin(&s.rig, "proposal.show", json_pack("{s:O}", "id", third));
    assert_string_equal(issuer_string(shown, "state"), "open");
    assert_true(json_is_false(json_object_get(shown, "stale")));
    assert_int_equal(at_socket(&s, 0, "ca.prepare", json_pack("{s:s}", "kind", "workload"), &why),
                     ATT_OK);
    assert_int_equal(rows_of_authorities(&s), 4);
    att_autojson *list = rig_admin(&s.rig, "audit.list", json_pack("{s:s}", "kind", "ca"));
    const json_t *records = json_object_get(list, "records");
    const json_t *by_two = json_object_get(json_array_get(records, 0), "record");
    const json_t *by_socket =
        json_object_get(json_array_get(records, json_array_size(records) - 1), "record");
    assert_string_equal(issuer_string(by_two, "principal"), "spiffe://staff.example/op2");
    assert_string_equal(issuer_string(by_two, "proposedBy"), "spiffe://staff.example/op");
    assert_int_equal(json_integer_value(json_object_get(by_socket, "uid")), 0);
    stage_free(&s);
}

static size_t keys_of_tokens(struct stage *s)
{
    att_autojson *told = rig_admin(&s->rig, "ca.jwt", json_object());
    return json_array_size(json_object_get(told, "keys"));
}

/* Whatever changes something of ca.*, those too that nobody put into the table. */
static void no_write_of_ca_is_one_persons(void **state)
{
    (void)state;
    struct issuer_admin_op op;
    size_t seen = 0;
    for (size_t n = 0; issuer_admin_op_at(n, &op); n++) {
        if (op.write && strncmp(op.op, "ca.", 3) == 0) {
            assert_int_equal(issuer_duty_of(op.op, true).approver, CONF_ROLE_CA_OPERATOR);
            seen++;
        }
    }
    assert_int_equal(seen, 7);
    assert_int_equal(issuer_duty_of("ca.anything", true).approver, CONF_ROLE_CA_OPERATOR);
    assert_int_equal(issuer_duty_of("ca.jwt.anything", true).approver, CONF_ROLE_CA_OPERATOR);
}

/* All tokens of the trust domain end with it. */
static void keys_of_tokens_are_replaced_by_two(void **state)
{
    (void)state;
    struct stage s;
    att_autojson *shown = NULL;
    stage_new(&s, "none");
    with_admin(&s);
    reconfigure(&s.rig, "profiles:\n", "jwt:\n  issuer: https://tokens.bank.example\nprofiles:\n");
    rig_ok(issuer_jwt_start(s.rig.issuer, &err));
    assert_int_equal(keys_of_tokens(&s), 1);
    att_autojson *id = proposed(&s, "op", "ca.jwt.replace", json_object());
    att_autojson *second = proposed(&s, "op", "ca.jwt.replace", json_pack("{s:b}", "withdraw", 1));
    assert_int_equal(keys_of_tokens(&s), 1);
    refused_as(&s, "op", "proposal.approve", json_pack("{s:O}", "id", id), ATT_E_CONFLICT,
               "fourEyes");
    rig_ok(as(&s, "op2", "proposal.show", json_pack("{s:O}", "id", id), &shown, &err));
    assert_string_equal(issuer_string(json_object_get(shown, "effect"), "step"), "replace");
    /* Steps of authorities do not concern it; another replacement does. */
    rig_ok(at_socket(&s, 0, "ca.prepare", json_pack("{s:s}", "kind", "workload"), &err));
    rig_ok(as(&s, "op2", "proposal.approve", json_pack("{s:O}", "id", id), NULL, &err));
    assert_int_equal(keys_of_tokens(&s), 2);
    refused_as(&s, "op2", "proposal.approve", json_pack("{s:O}", "id", second), ATT_E_CONFLICT,
               "proposalStale");
    assert_int_equal(keys_of_tokens(&s), 2);
    stage_free(&s);
}

/* An approval that was looked at, and is not carried out yet. */
struct approving {
    struct issuer_who who;
    struct issuer_admin_call call;
    struct issuer_approval approval;
};

static void look_at(struct stage *s, const json_t *id, struct approving *a)
{
    const struct conf_admin *admin = s->rig.issuer->settings->conf->admin;
    rig_ok(issuer_who_remote(&a->who, admin, "spiffe://staff.example/op2", "192.0.2.1", &err));
    a->call = (struct issuer_admin_call){.issuer = s->rig.issuer,
                                         .args = json_pack("{s:O}", "id", id),
                                         .who = &a->who,
                                         .conf = admin,
                                         .now = rig_time,
                                         .result = json_object()};
    a->approval = (struct issuer_approval){.call = &a->call};
    rig_ok(store_run(s->rig.issuer->store, false, issuer_approval_check, &a->approval, &err));
}

static void approving_done(struct approving *a)
{
    issuer_approval_done(&a->approval);
    json_decref((json_t *)(uintptr_t)a->call.args);
    json_decref(a->call.result);
}

static void stale_now(struct approving *a)
{
    struct att_err err = {0};
    assert_int_equal(issuer_approval_carry_out(&a->approval, &err), ATT_E_CONFLICT);
    assert_string_equal(err.reason, "proposalStale");
    approving_done(a);
}

static char state_of_newest(struct stage *s)
{
    att_autojson *status = rig_admin(&s->rig, "ca.status", json_object());
    const json_t *all = json_object_get(status, "generations");
    size_t i;
    json_t *row;
    json_array_foreach(all, i, row)
    {
        const char *state = issuer_string(row, "state");
        if (strcmp(state, "prepared") == 0 || strcmp(state, "published") == 0) {
            return state[1];
        }
    }
    return 0;
}

/* Two who approve at once, or one who does it twice: the second one finds another step due, and
 * takes none. */
static void the_step_is_the_one_that_was_approved(void **state)
{
    (void)state;
    struct stage s;
    struct approving first, again;
    att_autojson *shown = NULL;
    stage_new(&s, "none");
    with_admin(&s);
    /* A new authority: "prepare" itself. */
    att_autojson *made = proposed(&s, "op", "ca.prepare", json_pack("{s:s}", "kind", "workload"));
    look_at(&s, made, &again);
    rig_ok(at_socket(&s, 0, "ca.prepare", json_pack("{s:s}", "kind", "attestation"), &err));
    stale_now(&again);
    assert_int_equal(rows_of_authorities(&s), 2);
    /* "Whatever is due": the publishing. */
    att_autojson *id = proposed(&s, "op", "ca.rotate", json_pack("{s:s}", "kind", "attestation"));
    rig_ok(as(&s, "op2", "proposal.show", json_pack("{s:O}", "id", id), &shown, &err));
    assert_string_equal(issuer_string(json_object_get(shown, "effect"), "step"), "publish");
    look_at(&s, id, &first);
    look_at(&s, id, &again);
    rig_ok(issuer_approval_carry_out(&first.approval, &err));
    approving_done(&first);
    assert_int_equal(state_of_newest(&s), 'u');
    stale_now(&again);
    assert_int_equal(state_of_newest(&s), 'u');
    stage_free(&s);
}

static enum att_rc approve_within(void *user, struct store_tx *tx, struct att_err *err)
{
    return issuer_admin_proposal_approve(user, tx, err);
}

static enum att_rc run_sql(void *user, struct store_tx *tx, struct att_err *err)
{
    return tx->store->ops->script(tx->con, user, err);
}

/* Its own transactions would wait for the one that they are in. */
static void a_step_is_not_taken_inside_a_transaction(void **state)
{
    (void)state;
    struct stage s;
    struct approving a;
    struct att_err why = {0};
    bool steps = false;
    stage_new(&s, "none");
    with_admin(&s);
    att_autojson *id = proposed(&s, "op", "ca.prepare", json_pack("{s:s}", "kind", "workload"));
    look_at(&s, id, &a);
    rig_ok(issuer_approval_in_steps(&a.call, &steps, &err));
    assert_true(steps);
    assert_int_equal(store_run(s.rig.issuer->store, true, approve_within, &a.call, &why),
                     ATT_E_INTERNAL);
    assert_int_equal(rows_of_authorities(&s), 0);
    /* What cannot be read is no "no". */
    rig_ok(store_run(s.rig.issuer->store, true, run_sql, "ALTER TABLE proposals RENAME TO away",
                     &err));
    assert_int_not_equal(issuer_approval_in_steps(&a.call, &steps, &why), ATT_OK);
    rig_ok(store_run(s.rig.issuer->store, true, run_sql, "ALTER TABLE away RENAME TO proposals",
                     &err));
    approving_done(&a);
    stage_free(&s);
}

/* What fails after the commit does not undo the step. */
static void a_step_that_was_taken_is_said_to_be(void **state)
{
    (void)state;
    struct stage s;
    char command[400];
    att_autojson *done = NULL;
    stage_new(&s, "none");
    with_admin(&s);
    att_autojson *id = proposed(&s, "op", "ca.prepare", json_pack("{s:s}", "kind", "workload"));
    snprintf(command, sizeof command,
             "rm -f '%s/state/ca/bundle.pem' && mkdir '%s/state/ca/bundle.pem'", s.rig.dir,
             s.rig.dir);
    assert_int_equal(system(command), 0);
    rig_ok(as(&s, "op2", "proposal.approve", json_pack("{s:O}", "id", id), &done, &err));
    assert_string_equal(issuer_string(done, "step"), "prepared");
    assert_string_not_equal(issuer_string(done, "warning"), "");
    assert_string_equal(issuer_string(json_object_get(done, "proposal"), "state"), "approved");
    assert_int_equal(refusals_of(&s, "proposal.approve"), 0);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_of_an_authority_is_the_operators),
        cmocka_unit_test(a_step_takes_two_operators),
        cmocka_unit_test(no_write_of_ca_is_one_persons),
        cmocka_unit_test(keys_of_tokens_are_replaced_by_two),
        cmocka_unit_test(the_step_is_the_one_that_was_approved),
        cmocka_unit_test(a_step_is_not_taken_inside_a_transaction),
        cmocka_unit_test(a_step_that_was_taken_is_said_to_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
