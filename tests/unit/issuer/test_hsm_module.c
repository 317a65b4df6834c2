/* Which HSM module has an agent's key: what hosts are asked, which of them a profile allows, what
 * record and certificate say, and what changed by the time of finalize. */
#include "tests/unit/issuer/stage.h"

#define TPM_ONLY "    keys: [tpm]\n    boot: none"
#define ANY      "    keys: [tpm, hsm]\n    boot: none"
#define VAULT    "    keys: [tpm, hsm]\n    hsms: [vault, cards]\n    boot: none"
#define CARDS    "    keys: [tpm, hsm]\n    hsms: [cards]\n    boot: none"

static const char *module; /* what the host says */
static bool with_token;
static void says_module(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_EVIDENCE && module) {
        snprintf(f->statement.hsm, sizeof f->statement.hsm, "%s", module);
        f->statement.has_hsm_token = with_token;
        f->statement.hsm_token = (struct evidence_hsm_token){"Maker", "Model 7", "0815"};
    }
}

static void entry(struct stage *s, const char *key)
{
    char selector[80];
    snprintf(selector, sizeof selector, "ek:%s", s->tpm.ek_id);
    rig_entries_with(&s->rig, selector, key);
}

static void stage_hsm(struct stage *s, const char *profile, const char *key)
{
    stage_enrolled(s, "none");
    reconfigure(&s->rig, TPM_ONLY, profile);
    entry(s, key);
    s->tpm.memory = s->tpm.hsm = true;
    s->tpm.mutate = says_module;
    module = "vault";
}

static void ready_order(struct stage *s, struct order *o)
{
    assert_int_equal(rig_order(&s->client, RIG_NAME, o), 201);
    assert_string_equal(rig_m4(&s->client, &s->tpm, o, s->ak), "valid");
}

static void refused_order(struct stage *s)
{
    struct order o;
    assert_int_equal(rig_order(&s->client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s->client, &s->tpm, &o, s->ak), "invalid");
    client_refused(&s->client, "keyHsm");
    rig_audited(&s->rig, "refused", "keyHsm");
    assert_int_equal(rig_rows(&s->rig, &store_certs), 0);
}

static void hosts_are_told(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_hsm(&s, ANY, "hsm");
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    assert_int_equal(client_get(&s.client, o.authz), 200);
    const json_t *c = json_array_get(json_object_get(s.client.body, "challenges"), 0);
    const json_t *reads = json_object_get(c, "evidence");
    assert_int_equal(json_array_size(reads), 2);
    assert_string_equal(json_string_value(json_array_get(reads, 0)), "hsm");
    assert_string_equal(json_string_value(json_array_get(reads, 1)), "hsmToken");
    stage_free(&s);
}

static void profile_names_others(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_hsm(&s, VAULT, "hsm");
    module = "payments";
    refused_order(&s);
    module = NULL; /* a host of a version before */
    refused_order(&s);
    module = "vault";
    ready_order(&s, &o);
    stage_free(&s);
}

static void entry_names_another(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_hsm(&s, ANY, "hsm\n    hsm: cards");
    refused_order(&s);
    module = NULL; /* it does not say: nothing demands that it does */
    ready_order(&s, &o);
    /* The profile does not allow what the entry names: no order, and no such entry. */
    entry(&s, "hsm\n    hsm: payments");
    reconfigure(&s.rig, ANY, VAULT);
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 403);
    client_refused(&s.client, "keyHsm");
    char text[512];
    snprintf(text, sizeof text,
             "trust_domain: bank.example\nagents:\n"
             "  - { name: " RIG_NAME ", owner: x@bank.example, hosts: [ \"ek:%s\" ],\n"
             "      workload: { uid: 1 }, key: hsm, hsm: other, profile: trading }\n",
             s.tpm.ek_id);
    rig_admin_refused(&s.rig, "entry.apply",
                      json_pack("{s:s, s:s}", "text", text, "filename", "e.yaml"), "keyHsm");
    stage_free(&s);
}

static void changed_before_finalize(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_hsm(&s, VAULT, "hsm");
    ready_order(&s, &o);
    reconfigure(&s.rig, VAULT, CARDS);
    assert_int_not_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER),
                         200);
    client_refused(&s.client, "keyHsm");
    assert_int_equal(rig_rows(&s.rig, &store_certs), 0);
    stage_free(&s);
}

static void said(struct stage *s, const char *name)
{
    struct order o;
    char url[256];
    certs_autostack *certs = NULL;
    struct certs_hsm hsm = {""};
    ready_order(s, &o);
    json_t *list = rig_admin(&s->rig, "audit.list", json_pack("{s:i}", "limit", 1));
    const json_t *record =
        json_object_get(json_array_get(json_object_get(list, "records"), 0), "record");
    assert_string_equal(issuer_string(record, "keyStore"), "hsm");
    const char *kept = json_string_value(json_object_get(record, "hsm"));
    assert_string_equal(kept ? kept : "", name);
    const json_t *token = json_object_get(record, "hsmToken");
    if (with_token) {
        assert_string_equal(issuer_string(token, "manufacturer"), "Maker");
        assert_string_equal(issuer_string(token, "model"), "Model 7");
        assert_string_equal(issuer_string(token, "serial"), "0815");
    } else {
        assert_null(token);
    }
    json_decref(list);
    assert_int_equal(rig_finalize(&s->client, &o, s->tpm.base->agent.pkey, FORGE_IDENTIFIER), 200);
    snprintf(url, sizeof url, "%s", client_text(&s->client, "certificate"));
    assert_int_equal(client_get(&s->client, url), 200);
    rig_ok(certs_pem_parse(att_buf_slice(&s->client.last.body), &certs, &err));
    enum att_rc rc = certs_hsm_get(sk_X509_value(certs, 0), &hsm, NULL);
    assert_int_equal(rc, name[0] ? ATT_OK : ATT_E_NOTFOUND);
    assert_string_equal(hsm.name, name);
}

static void record_and_certificate_say_so(void **state)
{
    (void)state;
    struct stage s;
    stage_hsm(&s, VAULT, "hsm");
    said(&s, "vault");
    with_token = true;
    said(&s, "vault");
    with_token = false;
    reconfigure(&s.rig, VAULT, ANY);
    module = NULL;
    said(&s, "");
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hosts_are_told),
        cmocka_unit_test(profile_names_others),
        cmocka_unit_test(entry_names_another),
        cmocka_unit_test(changed_before_finalize),
        cmocka_unit_test(record_and_certificate_say_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
