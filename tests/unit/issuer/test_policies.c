/* Policies of components at the issuer: judged by, signed or not, in each mode, rolled back, and
 * run dry over stored evidence. */
#include "tests/unit/issuer/stage.h"

#include "provision/verify/draft.h"
#include "provision/verify/policy_signed.h"

#define PROFILE_NONE  "keys: [tpm]\n    boot: none"
#define PROFILE_FORGE "keys: [tpm]\n    boot: forge"

/* The policy "forge" of components, drafted from the rig's TPM. */
static json_t *draft(struct stage *s, int version)
{
    att_autobuf text = {0};
    verify_autoverdict *verdict = verify_verdict_new();
    const struct verify_draft_in in = {.name = "forge",
                                       .version = (uint32_t)version,
                                       .pcrs = &s->tpm.base->pcrs,
                                       .logs = &s->tpm.base->logs,
                                       .now = rig_time};
    json_t *json = NULL;
    rig_ok(verify_policy_draft(&in, &text, verdict, &err));
    rig_ok(att_json_parse(att_buf_slice(&text), VERIFY_POLICY_BYTES_MAX, &json, &err));
    return json;
}

/* Args for policy.apply or policy.dryrun; key NULL: unsigned. */
static json_t *args_of(const json_t *policy, EVP_PKEY *key)
{
    att_autobuf text = {0}, envelope = {0};
    uint8_t signer[ATT_SHA256_LEN];
    rig_ok(att_json_dump(policy, false, &text, &err));
    if (key) {
        rig_ok(verify_policy_sign(att_buf_slice(&text), key, &envelope, signer, &err));
    }
    return json_pack("{s:s}", "text", att_buf_cstr(key ? &envelope : &text));
}

static void fingerprint(EVP_PKEY *key, char hex[2 * ATT_SHA256_LEN + 1])
{
    att_autobuf spki = {0};
    uint8_t digest[ATT_SHA256_LEN];
    forge_spki(key, &spki);
    att_sha256(digest, att_buf_slice(&spki));
    att_hex(hex, ATT_SLICE_ARRAY(digest));
}

static void other_loader(struct forge *f, enum forge_stage stage)
{
    for (size_t i = 0; stage == FORGE_KEYS && i < f->n_events; i++) {
        if (f->events[i].type == PARSE_EV_EFI_BOOT_SERVICES_APPLICATION) {
            att_sha256(f->events[i].digest, ATT_SLICE_LIT("another loader's image"));
        }
    }
}

static void judged(struct stage *s, struct order *o, const char *reason)
{
    s->tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_order(&s->client, RIG_NAME, o), 201);
    const char *status = rig_m4(&s->client, &s->tpm, o, s->ak);
    if (reason) {
        assert_string_equal(status, "invalid");
        client_refused(&s->client, reason);
        rig_audited(&s->rig, "refused", reason);
    } else {
        if (strcmp(status, "valid") != 0) {
            client_refused(&s->client, "nothing");
        }
        assert_string_equal(status, "valid");
    }
}

static json_t *last_record(struct stage *s)
{
    json_t *result = rig_admin(&s->rig, "audit.list", json_pack("{s:i}", "limit", 1));
    json_t *record = json_incref(
        json_object_get(json_array_get(json_object_get(result, "records"), 0), "record"));
    json_decref(result);
    return record;
}

static void with_components(struct stage *s)
{
    stage_enrolled(s, "none");
    reconfigure(&s->rig, PROFILE_NONE, PROFILE_FORGE);
    att_autojson *policy = draft(s, 3);
    rig_admin_done(&s->rig, "policy.apply", args_of(policy, NULL));
}

static void judged_by_components(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    with_components(&s);
    judged(&s, &o, NULL);
    assert_int_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER), 200);
    s.tpm.mutate = other_loader;
    judged(&s, &o, "bootPolicy");
    att_autojson *record = last_record(&s);
    assert_non_null(strstr(issuer_string(record, "detail"), "pcr4 event 14 ("));
    assert_string_equal(issuer_string(record, "mode"), "enforce");
    const json_t *finding =
        json_array_get(json_object_get(json_object_get(record, "verdict"), "findings"), 0);
    assert_string_equal(issuer_string(finding, "id"), "variantUnknown");
    assert_string_equal(issuer_string(finding, "severity"), "refuse");
    assert_int_equal(json_integer_value(json_object_get(finding, "event")), 14);
    assert_true(issuer_string(finding, "remedy")[0] != 0);
    stage_free(&s);
}

/* What the version before this one took: GRUB's labels told components apart, one by a pattern. */
static const char labelled[] =
    "{\"format\":2,\"name\":\"forge\",\"version\":7,\"bank\":\"sha256\",\"components\":["
    "{\"id\":\"grub\",\"pcr\":8,\"type\":\"EV_IPL\",\"name\":\"grub_cmd\",\"count\":\"any\","
    "\"variants\":[{\"pattern\":\"*\"}]},"
    "{\"id\":\"cmdline\",\"pcr\":8,\"type\":\"EV_IPL\",\"name\":\"kernel_cmdline\","
    "\"variants\":[{\"text\":\"ro quiet\"}]}],\"logs\":[\"firmware\"]}";

static enum att_rc put_labelled(void *user, struct store_tx *tx, struct att_err *why)
{
    struct store_policy row = {.version = 7, .updated_at = rig_time};
    (void)user;
    enum att_rc rc = issuer_set(&row.name, "forge") && issuer_set(&row.json, labelled)
                         ? store_put(tx, &store_policies, &row, why)
                         : ATT_E_NOMEM;
    store_record_done(&store_policies, &row);
    return rc;
}

/* Stored by an earlier version, refused by this one: the issuer starts, lists it, says why it
 * cannot be used, refuses what it would have judged, and takes the next version. */
static void stored_before(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "none");
    reconfigure(&s.rig, PROFILE_NONE, PROFILE_FORGE);
    rig_ok(store_run(s.rig.issuer->store, true, put_labelled, NULL, &err));
    issuer_free(s.rig.issuer);
    s.rig.issuer = NULL;
    rig_open(&s.rig);
    json_t *list = rig_admin(&s.rig, "policy.list", json_object());
    const json_t *row = json_array_get(json_object_get(list, "policies"), 0);
    assert_string_equal(issuer_string(row, "name"), "forge");
    assert_int_equal(json_integer_value(json_object_get(row, "version")), 7);
    assert_non_null(strstr(issuer_string(row, "error"), "in no digest"));
    json_decref(list);
    json_t *shown = rig_admin(&s.rig, "policy.show", json_pack("{s:s}", "name", "forge"));
    assert_non_null(json_object_get(json_object_get(shown, "policy"), "components"));
    assert_non_null(strstr(issuer_string(shown, "error"), "(cmdline) of pcr8"));
    json_decref(shown);
    judged(&s, &o, "policyMissing");
    att_autojson *record = last_record(&s);
    assert_non_null(strstr(issuer_string(record, "detail"), "forge version 7 cannot be used"));
    att_autojson *policy = draft(&s, 8);
    rig_admin_done(&s.rig, "policy.apply", args_of(policy, NULL));
    judged(&s, &o, NULL);
    stage_free(&s);
}

static void missing_policy(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "none");
    reconfigure(&s.rig, PROFILE_NONE, "mode: observe\n    " PROFILE_FORGE);
    judged(&s, &o, "policyMissing"); /* in every mode: never accept-all */
    stage_free(&s);
}

static void modes(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    with_components(&s);
    s.tpm.mutate = other_loader;
    judged(&s, &o, "bootPolicy");
    static const char *const lenient[] = {"observe", "warn"};
    for (size_t i = 0; i < 2; i++) {
        json_t *result =
            rig_admin(&s.rig, "policy.mode",
                      json_pack("{s:s, s:s}", "profile", "trading", "mode", lenient[i]));
        assert_string_equal(issuer_string(result, "mode"), lenient[i]);
        json_decref(result);
        att_autojson *changed = last_record(&s);
        assert_string_equal(issuer_string(changed, "kind"), "policyMode");
        judged(&s, &o, NULL);
        att_autojson *record = last_record(&s);
        assert_string_equal(issuer_string(record, "mode"), lenient[i]);
        assert_int_equal(
            json_array_size(json_object_get(json_object_get(record, "verdict"), "findings")), 1);
        json_t *host = rig_admin(&s.rig, "host.show", json_pack("{s:s}", "id", s.tpm.ek_id));
        const json_t *note = json_object_get(json_object_get(host, "lastVerdict"), "policy");
        assert_string_equal(issuer_string(note, "mode"), lenient[i]);
        assert_int_equal(json_integer_value(json_object_get(note, "refusing")), 1);
        json_decref(host);
        assert_int_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER),
                         200);
    }
    json_t *status = rig_admin(&s.rig, "status", json_object());
    assert_string_equal(
        issuer_string(json_array_get(json_object_get(status, "profiles"), 0), "mode"), "warn");
    json_decref(status);
    /* What only the mode let through is not signed for once it is enforced. */
    judged(&s, &o, NULL);
    rig_admin_done(&s.rig, "policy.mode",
                   json_pack("{s:s, s:s}", "profile", "trading", "mode", "default"));
    assert_int_not_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER),
                         200);
    client_refused(&s.client, "bootPolicy");
    judged(&s, &o, "bootPolicy");
    rig_admin_refused(&s.rig, "policy.mode",
                      json_pack("{s:s, s:s}", "profile", "trading", "mode", "off"), "usage");
    rig_admin_refused(&s.rig, "policy.mode",
                      json_pack("{s:s, s:s}", "profile", "nobody", "mode", "warn"),
                      "profileUnknown");
    stage_free(&s);
}

/* The mode of enrolment is its own. */
static void mode_of_enrolment(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment e;
    stage_new(&s, "forge");
    att_autojson *policy = draft(&s, 4);
    rig_admin_done(&s.rig, "policy.apply", args_of(policy, NULL));
    s.tpm.mutate = other_loader;
    json_t *ticket = rig_ticket(&s.rig, s.tpm.ek_id, 1);
    assert_int_equal(client_account(&s.client, ticket), 201);
    json_decref(ticket);
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    assert_int_not_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    client_refused(&s.client, "bootPolicy");
    enrolment_done(&e);
    rig_admin_done(&s.rig, "policy.mode",
                   json_pack("{s:s, s:s}", "profile", "enrolment", "mode", "observe"));
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    assert_int_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    enrolment_done(&e);
    stage_free(&s);
}

static void signed_policies(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    char hex[2 * ATT_SHA256_LEN + 1], hex_other[2 * ATT_SHA256_LEN + 1], lines[400], others[400];
    EVP_PKEY *key = forge_p256(), *other = forge_p256();
    fingerprint(key, hex);
    fingerprint(other, hex_other);
    snprintf(lines, sizeof lines, "policy_signers: [ \"%s\" ]\n    " PROFILE_FORGE, hex);
    snprintf(others, sizeof others, "policy_signers: [ \"%s\" ]\n    " PROFILE_FORGE, hex_other);
    with_components(&s);
    judged(&s, &o, NULL);
    /* Signatures are demanded from now on: what is stored has none. */
    reconfigure(&s.rig, PROFILE_FORGE, lines);
    judged(&s, &o, "policyUnsigned");
    att_autojson *policy = draft(&s, 4);
    rig_admin_refused(&s.rig, "policy.apply", args_of(policy, NULL), "policyUnsigned");
    rig_admin_refused(&s.rig, "policy.apply", args_of(policy, other), "policySigner");
    rig_admin_done(&s.rig, "policy.apply", args_of(policy, key));
    judged(&s, &o, NULL);
    json_t *shown = rig_admin(&s.rig, "policy.show", json_pack("{s:s}", "name", "forge"));
    assert_string_equal(issuer_string(shown, "signer"), hex);
    assert_string_equal(issuer_string(json_object_get(shown, "policy"), "name"), "forge");
    json_decref(shown);
    /* The key is replaced: its policies go with it. */
    reconfigure(&s.rig, lines, others);
    judged(&s, &o, "policySigner");
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
    stage_free(&s);
}

static void rolled_back(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    EVP_PKEY *key = forge_p256();
    with_components(&s); /* version 3 */
    att_autojson *five = draft(&s, 5), *four = draft(&s, 4);
    rig_admin_done(&s.rig, "policy.apply", args_of(five, NULL));
    rig_admin_refused(&s.rig, "policy.apply", args_of(four, NULL), "policyRolledBack");
    rig_admin_refused(&s.rig, "policy.apply", args_of(four, key), "policyRolledBack");
    json_t *same = rig_admin(&s.rig, "policy.apply", args_of(five, NULL));
    assert_true(json_is_false(json_object_get(same, "changed")));
    json_decref(same);
    rig_admin_refused(&s.rig, "policy.apply", args_of(five, key), "policyVersion");
    judged(&s, &o, NULL);
    EVP_PKEY_free(key);
    stage_free(&s);
}

static json_t *dryrun(struct stage *s, const json_t *policy, bool all)
{
    json_t *args = args_of(policy, NULL);
    json_object_set_new(args, "all", json_boolean(all));
    return rig_admin(&s->rig, "policy.dryrun", args);
}

static int64_t number(const json_t *json, const char *name)
{
    return json_integer_value(json_object_get(json, name));
}

static void dry_run(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    with_components(&s);
    att_autojson *policy = draft(&s, 4);
    /* Enrolled under boot: none, so not of this policy's fleet yet; but its evidence is kept. */
    att_autojson *nobody = dryrun(&s, policy, false), *all = dryrun(&s, policy, true);
    assert_int_equal(json_array_size(json_object_get(nobody, "hosts")), 0);
    assert_int_equal(number(all, "passed"), 1);
    judged(&s, &o, NULL);
    att_autojson *good = dryrun(&s, policy, false);
    assert_int_equal(number(good, "passed"), 1);
    assert_int_equal(number(good, "refused"), 0);
    /* Last evidence of another loader: refused, and kept all the same. */
    s.tpm.mutate = other_loader;
    judged(&s, &o, "bootPolicy");
    int aks = rig_rows(&s.rig, &store_aks), orders = rig_rows(&s.rig, &store_orders);
    att_autojson *record = last_record(&s);
    att_autojson *bad = dryrun(&s, policy, false);
    assert_int_equal(number(bad, "refused"), 1);
    const json_t *row = json_array_get(json_object_get(bad, "hosts"), 0);
    assert_string_equal(issuer_string(row, "host"), s.tpm.ek_id);
    assert_string_equal(issuer_string(row, "outcome"), "refuse");
    assert_string_equal(issuer_string(row, "reason"), "bootPolicy");
    const json_t *finding = json_array_get(json_object_get(row, "findings"), 0);
    assert_non_null(strstr(issuer_string(finding, "detail"), "pcr4 event 14 ("));
    /* The policy of tomorrow allows it. */
    json_t *list = json_object_get(policy, "components"), *component = NULL;
    size_t i = 0;
    json_array_foreach(list, i, component)
    {
        if (strcmp(issuer_string(component, "type"), "EV_EFI_BOOT_SERVICES_APPLICATION") == 0) {
            uint8_t digest[ATT_SHA256_LEN];
            char hex[2 * ATT_SHA256_LEN + 1];
            att_sha256(digest, ATT_SLICE_LIT("another loader's image"));
            att_hex(hex, ATT_SLICE_ARRAY(digest));
            json_array_append_new(json_object_get(component, "variants"),
                                  json_pack("{s:s}", "digest", hex));
        }
    }
    att_autojson *tomorrow = dryrun(&s, policy, false);
    assert_int_equal(number(tomorrow, "passed"), 1);
    /* Nothing was done: no rows, no record, the policy in force is still the old one. */
    att_autojson *after = last_record(&s);
    assert_true(json_equal(record, after));
    assert_int_equal(rig_rows(&s.rig, &store_aks), aks);
    assert_int_equal(rig_rows(&s.rig, &store_orders), orders);
    judged(&s, &o, "bootPolicy");
    rig_admin_done(&s.rig, "policy.apply", args_of(policy, NULL));
    judged(&s, &o, NULL);
    stage_free(&s);
}

/* Bad signatures are no evidence: what a host is judged by tomorrow is its last good quote. */
static void other_signature(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_QUOTE) {
        f->quote_signer = f->agent.pkey;
    }
}

static void dry_run_of_good_quotes_only(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    with_components(&s);
    judged(&s, &o, NULL);
    s.tpm.mutate = other_signature;
    judged(&s, &o, "quoteSignature");
    att_autojson *policy = draft(&s, 4);
    att_autojson *result = dryrun(&s, policy, false);
    assert_int_equal(number(result, "passed"), 1);
    assert_int_equal(number(result, "unknown"), 0);
    stage_free(&s);
}

/* One list too many is refused by name, and there is room again when one went. */
static void room_for_allowlists(void **state)
{
    (void)state;
    struct stage s;
    char first[65] = "";
    stage_new(&s, "none");
    for (size_t i = 0; i <= 256; i++) {
        att_autobuf text = {0};
        att_autojson *result = NULL;
        struct att_err why = {0};
        att_buf_printf(&text, VERIFY_IMALIST_HEADER "sha256:%064zx /a\n", i);
        enum att_rc rc = issuer_allowlist_apply(s.rig.issuer, NULL, att_buf_slice(&text), "x",
                                                false, NULL, &result, &why);
        if (i == 256) {
            assert_int_equal(rc, ATT_E_CONFLICT);
            assert_string_equal(why.reason, "allowlistsMany");
            break;
        }
        assert_int_equal(rc, ATT_OK);
        if (i == 0) {
            snprintf(first, sizeof first, "%s",
                     json_string_value(json_object_get(result, "sha256")));
        }
    }
    json_t *shown = rig_admin(&s.rig, "allowlist.list", json_object());
    const json_t *lists = json_object_get(shown, "allowlists");
    assert_int_equal(json_array_size(lists), 256);
    const json_t *one = json_array_get(lists, 0);
    assert_int_equal(json_integer_value(json_object_get(one, "bytes")),
                     sizeof VERIFY_IMALIST_HEADER - 1 + 75);
    assert_int_equal(json_integer_value(json_object_get(one, "entries")), 1);
    assert_string_equal(issuer_string(one, "label"), "x");
    assert_string_equal(issuer_string(one, "policies"), "");
    json_decref(shown);
    rig_admin_done(&s.rig, "allowlist.delete", json_pack("{s:s}", "sha256", first));
    att_autobuf text = {0};
    att_buf_printf(&text, VERIFY_IMALIST_HEADER "sha256:%064x /a\n", 256);
    rig_ok(issuer_allowlist_apply(s.rig.issuer, NULL, att_buf_slice(&text), "x", false, NULL, NULL,
                                  &err));
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(judged_by_components),
        cmocka_unit_test(stored_before),
        cmocka_unit_test(missing_policy),
        cmocka_unit_test(modes),
        cmocka_unit_test(mode_of_enrolment),
        cmocka_unit_test(signed_policies),
        cmocka_unit_test(rolled_back),
        cmocka_unit_test(dry_run),
        cmocka_unit_test(dry_run_of_good_quotes_only),
        cmocka_unit_test(room_for_allowlists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
