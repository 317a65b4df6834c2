/* Keys in a host's memory: who may have them, what the certificate says, and that the record is
 * enough to judge the evidence again. */
#include "tests/unit/issuer/stage.h"

#include "provision/enrol/messages.h"

#define TPM_ONLY   "lifetime: 1h\n    keys: [tpm]\n    boot: forge"
#define EXPORTABLE "lifetime: 10m\n    keys: [tpm, memory, exportable]\n    boot: forge"
#define MEMORY     "lifetime: 15m\n    keys: [tpm, memory]\n    boot: forge"

static void entry(struct stage *s, const char *key)
{
    char selector[80];
    snprintf(selector, sizeof selector, "ek:%s", s->tpm.ek_id);
    rig_entries_with(&s->rig, selector, key);
}

static void stage_memory(struct stage *s)
{
    stage_enrolled(s, "forge");
    reconfigure(&s->rig, TPM_ONLY, MEMORY);
    entry(s, "memory");
    s->tpm.memory = true;
}

static void ready_order(struct stage *s, struct order *o)
{
    assert_int_equal(rig_order(&s->client, RIG_NAME, o), 201);
    assert_string_equal(rig_m4(&s->client, &s->tpm, o, s->ak), "valid");
}

static void refused_order(struct stage *s, const char *reason)
{
    struct order o;
    assert_int_equal(rig_order(&s->client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s->client, &s->tpm, &o, s->ak), "invalid");
    rig_audited(&s->rig, "refused", reason);
    assert_int_equal(rig_rows(&s->rig, &store_certs), 0);
}

static void without_leave(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    char text[512];
    stage_enrolled(&s, "forge");
    /* An entry that no profile lets through is not taken. */
    snprintf(text, sizeof text,
             "trust_domain: bank.example\nagents:\n"
             "  - { name: " RIG_NAME ", owner: x@bank.example, hosts: [ \"ek:%s\" ],\n"
             "      workload: { uid: 1 }, key: memory, profile: trading }\n",
             s.tpm.ek_id);
    rig_admin_refused(&s.rig, "entry.apply",
                      json_pack("{s:s, s:s}", "text", text, "filename", "e.yaml"), "keyStore");
    /* A host that sends one all the same. */
    s.tpm.memory = true;
    refused_order(&s, "keyStore");
    /* The profile allows it, the entry does not say so. */
    reconfigure(&s.rig, TPM_ONLY, MEMORY);
    refused_order(&s, "keyStore");
    /* The entry says so, the host sends a TPM's key; and the other way round above. */
    entry(&s, "memory");
    s.tpm.memory = false;
    refused_order(&s, "keyStore");
    /* The entry says so; the profile, by now, does not: no order at all. */
    reconfigure(&s.rig, MEMORY, TPM_ONLY);
    assert_int_not_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    client_refused(&s.client, "keyStore");
    stage_free(&s);
}

static void another_quote(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_QUOTE) {
        f->quote_signer = f->account; /* another host's AK */
    }
}

static void another_digest(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_EVIDENCE) {
        f->statement.key_spki[31] ^= 1;
    }
}

static void evidence_refused(void **state)
{
    (void)state;
    struct stage s;
    stage_memory(&s);
    s.tpm.mutate = another_quote;
    refused_order(&s, "quoteSignature");
    s.tpm.mutate = another_digest;
    refused_order(&s, "evidenceMismatch");
    stage_free(&s);
}

static void finalize_refused(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_memory(&s);
    /* Not the key whose digest was quoted. */
    EVP_PKEY *other = forge_p256();
    ready_order(&s, &o);
    assert_int_not_equal(rig_finalize(&s.client, &o, other, FORGE_IDENTIFIER), 200);
    client_refused(&s.client, "csrKey");
    EVP_PKEY_free(other);
    /* The profile stopped allowing it, and lives long, between verdict and certificate. */
    ready_order(&s, &o);
    reconfigure(&s.rig, MEMORY, TPM_ONLY);
    assert_int_not_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER),
                         200);
    client_refused(&s.client, "keyStore");
    /* The entry's key changed meanwhile. */
    reconfigure(&s.rig, TPM_ONLY, MEMORY);
    ready_order(&s, &o);
    entry(&s, "tpm");
    assert_int_not_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER),
                         200);
    client_refused(&s.client, "notAssigned");
    assert_int_equal(rig_rows(&s.rig, &store_certs), 0);
    stage_free(&s);
}

/* An entry that is taken away and made anew begins to count its versions again: what was judged for
 * the one before is not for this one. */
static void another_entry_of_that_name(void **state)
{
    (void)state;
    struct stage s;
    struct order ready, pending;
    att_autobuf payload = {0};
    stage_memory(&s);
    rig_admin_done(&s.rig, "entry.delete", json_pack("{s:s}", "name", RIG_NAME));
    entry(&s, "memory");
    ready_order(&s, &ready);
    s.tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_order(&s.client, RIG_NAME, &pending), 201);
    rig_m4_payload(&s.client, &s.tpm, &pending, s.ak, &payload);
    rig_admin_done(&s.rig, "entry.delete", json_pack("{s:s}", "name", RIG_NAME));
    entry(&s, "tpm");
    assert_int_not_equal(rig_finalize(&s.client, &ready, s.tpm.base->agent.pkey, FORGE_IDENTIFIER),
                         200);
    client_refused(&s.client, "notAssigned");
    assert_int_equal(client_post(&s.client, pending.challenge, false, att_buf_slice(&payload)),
                     200);
    client_refused(&s.client, "keyStore");
    /* Also for a key of the kind that this one names: the order was the other's. */
    assert_int_equal(rig_order(&s.client, RIG_NAME, &pending), 201);
    rig_admin_done(&s.rig, "entry.delete", json_pack("{s:s}", "name", RIG_NAME));
    entry(&s, "tpm");
    s.tpm.memory = false;
    assert_string_equal(rig_m4(&s.client, &s.tpm, &pending, s.ak), "invalid");
    client_refused(&s.client, "notAssigned");
    assert_int_equal(rig_rows(&s.rig, &store_certs), 0);
    assert_int_equal(client_get(&s.client, pending.url), 200);
    assert_string_equal(client_text(&s.client, "status"), "invalid");
    stage_free(&s);
}

static void long_lives_are_not_configured(void **state)
{
    (void)state;
    struct stage s;
    struct issuer_settings *none = NULL;
    struct att_err why = {0};
    char path[192];
    stage_memory(&s);
    att_autobuf text = {0}, more = {0};
    snprintf(path, sizeof path, "%s/issuer.yaml", s.rig.dir);
    rig_ok(att_io_read_file(path, 65536, &text, &err));
    const char *all = att_buf_cstr(&text), *at = strstr(all, "lifetime: 15m");
    assert_non_null(at);
    att_buf_put(&more, all, (size_t)(at - all));
    att_buf_put_str(&more, "lifetime: 16m");
    att_buf_put_str(&more, at + strlen("lifetime: 15m"));
    rig_ok(att_io_write_file(path, att_buf_slice(&more), 0644, &err));
    assert_int_not_equal(issuer_settings_load(path, &none, &why), ATT_OK);
    stage_free(&s);
}

/* As an auditor would: the record and what it names, no issuer and no host. */
static void judge_again(struct stage *s, const json_t *record)
{
    const char *m4 = issuer_string(json_object_get(record, "evidence"), "m4");
    json_t *shown = rig_admin(&s->rig, "audit.evidence", json_pack("{s:s}", "sha256", m4));
    att_autobuf bytes = {0}, key_auth = {0};
    rig_ok(att_unb64u(&bytes, att_slice_str(issuer_string(shown, "data")), &err));
    struct enrol_m4_request m = {0};
    rig_ok(enrol_m4_request_parse(att_buf_slice(&bytes), &m, &err));
    json_t *log = rig_admin(
        &s->rig, "audit.evidence",
        json_pack("{s:s}", "sha256",
                  issuer_string(json_object_get(json_object_get(record, "evidence"), "logs"),
                                "firmware")));
    att_autobuf log_bytes = {0};
    rig_ok(att_unb64u(&log_bytes, att_slice_str(issuer_string(log, "data")), &err));
    struct evidence_logs logs = {0};
    rig_ok(evidence_logs_add(&logs, "firmware", att_buf_slice(&log_bytes), &err));
    att_buf_printf(&key_auth, "%s.%s", issuer_string(record, "token"),
                   issuer_string(record, "account"));
    verify_autoverdict *verdict = verify_verdict_new();
    struct verify_agent_in in = {
        .att_obj = att_buf_slice(&m.attobj),
        .evidence = att_buf_slice(&m.evidence),
        .quoted = {att_buf_slice(&m.quote.attest), att_buf_slice(&m.quote.sig), &m.pcrs, &logs},
        .key_authorization = att_buf_cstr(&key_auth),
        .identifier = issuer_string(record, "subject"),
        .key_stores = VERIFY_KEY_MEMORY,
        .key_types = VERIFY_TYPE(ATT_KEYTYPE_P256),
        .entry_store = VERIFY_KEY_MEMORY,
        .ak = {.ak_pub = att_buf_slice(&s->tpm.base->ak.area)},
        .boot = {.logs = VERIFY_LOG_FIRMWARE, .boot_none = true, .now = rig_time},
    };
    rig_ok(parse_pcr_sel_parse(issuer_string(record, "pcrSelection"), &in.boot.selection, &err));
    struct verify_agent_facts facts = {0};
    assert_int_equal(verify_agent(&in, verdict, &facts), VERIFY_ACCEPTED);
    assert_string_equal(facts.key_store, "memory");
    evidence_logs_done(&logs);
    enrol_m4_request_done(&m);
    json_decref(log);
    json_decref(shown);
}

static void certificate_says_so(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_memory(&s);
    rig_time = att_now_utc_s();
    ready_order(&s, &o);
    json_t *list = rig_admin(&s.rig, "audit.list", json_pack("{s:i}", "limit", 1));
    const json_t *record =
        json_object_get(json_array_get(json_object_get(list, "records"), 0), "record");
    assert_string_equal(issuer_string(record, "keyStore"), "memory");
    judge_again(&s, record);
    json_decref(list);
    assert_int_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER), 200);
    char url[256];
    snprintf(url, sizeof url, "%s", client_text(&s.client, "certificate"));
    assert_int_equal(client_get(&s.client, url), 200);
    certs_autostack *certs = NULL;
    rig_ok(certs_pem_parse(att_buf_slice(&s.client.last.body), &certs, &err));
    struct certs_key_holding holding;
    struct certs_cert_info info;
    rig_ok(certs_key_holding_get(sk_X509_value(certs, 0), &holding, &err));
    rig_ok(certs_cert_info(sk_X509_value(certs, 0), &info, &err));
    assert_int_equal(holding.store, CERTS_STORE_MEMORY);
    assert_string_equal(holding.boot, "forge");
    assert_true(info.not_after <= rig_time + 900);
    rig_admin_done(&s.rig, "audit.verify", json_object());
    stage_free(&s);
}

/* The profile allows it and the entry says so, or there is no certificate; and that says so. */
static void exportable_keys(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    char text[512], url[256];
    stage_memory(&s);
    snprintf(text, sizeof text,
             "trust_domain: bank.example\nagents:\n"
             "  - { name: " RIG_NAME ", owner: x@bank.example, hosts: [ \"ek:%s\" ],\n"
             "      workload: { uid: 1 }, key: exportable, profile: trading }\n",
             s.tpm.ek_id);
    rig_admin_refused(&s.rig, "entry.apply",
                      json_pack("{s:s, s:s}", "text", text, "filename", "e.yaml"), "keyStore");
    s.tpm.exportable = true;
    refused_order(&s, "keyStore"); /* the profile allows memory alone */
    reconfigure(&s.rig, MEMORY, EXPORTABLE);
    refused_order(&s, "keyStore"); /* the entry says memory */
    entry(&s, "exportable");
    s.tpm.exportable = false;
    refused_order(&s, "keyStore"); /* a key that was made to stay */
    s.tpm.exportable = true;
    ready_order(&s, &o);
    reconfigure(&s.rig, EXPORTABLE, MEMORY);
    assert_int_not_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER),
                         200);
    client_refused(&s.client, "keyStore"); /* not allowed any more since the verdict */
    assert_int_equal(rig_rows(&s.rig, &store_certs), 0);
    reconfigure(&s.rig, MEMORY, EXPORTABLE);
    rig_time = att_now_utc_s();
    ready_order(&s, &o);
    assert_int_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER), 200);
    snprintf(url, sizeof url, "%s", client_text(&s.client, "certificate"));
    assert_int_equal(client_get(&s.client, url), 200);
    certs_autostack *certs = NULL;
    rig_ok(certs_pem_parse(att_buf_slice(&s.client.last.body), &certs, &err));
    struct certs_key_holding holding;
    struct certs_cert_info info;
    rig_ok(certs_key_holding_get(sk_X509_value(certs, 0), &holding, &err));
    rig_ok(certs_cert_info(sk_X509_value(certs, 0), &info, &err));
    assert_int_equal(holding.store, CERTS_STORE_EXPORTABLE);
    assert_true(info.not_after <= rig_time + 600);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_leave),
        cmocka_unit_test(evidence_refused),
        cmocka_unit_test(finalize_refused),
        cmocka_unit_test(another_entry_of_that_name),
        cmocka_unit_test(long_lives_are_not_configured),
        cmocka_unit_test(certificate_says_so),
        cmocka_unit_test(exportable_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
