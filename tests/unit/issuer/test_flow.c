/* M0–M7 against the handlers: refusals, each alone, then the way that works. */
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

static void nothing_issued(struct stage *s)
{
    assert_int_equal(rig_rows(&s->rig, &store_certs), 0);
}

/* ---- enrolment
 * ------------------------------------------------------------------------------------- */

static void account_needs_ticket(void **state)
{
    (void)state;
    struct stage s;
    stage_new(&s, "none");
    assert_int_equal(client_account(&s.client, NULL), 403);
    client_refused(&s.client, "externalAccountRequired");
    json_t *ticket = rig_ticket(&s.rig, NULL, 1);
    json_object_set_new(ticket, "macKey",
                        json_string("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"));
    assert_int_not_equal(client_account(&s.client, ticket), 201);
    client_refused(&s.client, "unauthorized");
    json_object_set_new(ticket, "kid", json_string("nobody"));
    assert_int_not_equal(client_account(&s.client, ticket), 201);
    client_refused(&s.client, "ticketInvalid");
    json_decref(ticket);
    assert_int_equal(rig_rows(&s.rig, &store_accounts), 0);
    ticket = rig_ticket(&s.rig, NULL, 1);
    rig_time += 3601;
    assert_int_not_equal(client_account(&s.client, ticket), 201);
    client_refused(&s.client, "ticketInvalid");
    assert_int_equal(rig_rows(&s.rig, &store_accounts), 0);
    json_decref(ticket);
    stage_free(&s);
}

static void wrong_value_ends_the_challenge(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment e;
    stage_new(&s, "none");
    json_t *ticket = rig_ticket(&s.rig, s.tpm.ek_id, 1);
    assert_int_equal(client_account(&s.client, ticket), 201);
    json_decref(ticket);
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    e.cv[5] ^= 1;
    assert_int_not_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    client_refused(&s.client, "activation");
    rig_audited(&s.rig, "refused", "activation");
    e.cv[5] ^= 1; /* the right one now: too late, one try only */
    assert_int_not_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    client_refused(&s.client, "activation");
    assert_int_equal(rig_rows(&s.rig, &store_hosts), 0);
    assert_int_equal(rig_rows(&s.rig, &store_host_eks), 0);
    enrolment_done(&e);
    /* The ticket was not spent by that. */
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    assert_int_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    /* And a right answer is good once. */
    assert_int_not_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    client_refused(&s.client, "activation");
    enrolment_done(&e);
    stage_free(&s);
}

static void late_answer(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment e;
    stage_new(&s, "none");
    json_t *ticket = rig_ticket(&s.rig, s.tpm.ek_id, 1);
    assert_int_equal(client_account(&s.client, ticket), 201);
    json_decref(ticket);
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    rig_time += 120;
    assert_int_not_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    client_refused(&s.client, "activation");
    assert_int_equal(rig_rows(&s.rig, &store_hosts), 0);
    enrolment_done(&e);
    stage_free(&s);
}

static void replaced_challenge(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment first, second;
    stage_new(&s, "none");
    json_t *ticket = rig_ticket(&s.rig, s.tpm.ek_id, 1);
    assert_int_equal(client_account(&s.client, ticket), 201);
    json_decref(ticket);
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &first), 201);
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &second), 201);
    assert_int_not_equal(rig_m2(&s.client, &s.tpm, &first), 200);
    client_refused(&s.client, "activation");
    assert_int_equal(rig_m2(&s.client, &s.tpm, &second), 200);
    enrolment_done(&first);
    enrolment_done(&second);
    stage_free(&s);
}

static void another_account_answers(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment e;
    struct client other;
    stage_new(&s, "none");
    client_new(&other, &s.rig);
    json_t *ticket = rig_ticket(&s.rig, s.tpm.ek_id, 1);
    assert_int_equal(client_account(&s.client, ticket), 201);
    json_decref(ticket);
    ticket = rig_ticket(&s.rig, NULL, 1);
    assert_int_equal(client_account(&other, ticket), 201);
    json_decref(ticket);
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    assert_int_not_equal(rig_m2(&other, &s.tpm, &e), 200);
    client_refused(&other, "akUnknown");
    assert_int_equal(rig_m2(&s.client, &s.tpm, &e), 200); /* which did its owner no harm */
    enrolment_done(&e);
    client_free(&other);
    stage_free(&s);
}

static void untrusted_root(void **state)
{
    (void)state;
    struct stage s;
    struct tpm stranger;
    struct enrolment e;
    stage_new(&s, "none");
    tpm_new(&stranger);
    json_t *ticket = rig_ticket(&s.rig, NULL, 1);
    assert_int_equal(client_account(&s.client, ticket), 201);
    json_decref(ticket);
    assert_int_not_equal(rig_m1(&s.client, &stranger, NULL, &e), 201);
    client_refused(&s.client, "ekChain");
    rig_audited(&s.rig, "refused", "ekChain");
    assert_int_equal(rig_rows(&s.rig, &store_aks), 0);
    enrolment_done(&e);
    tpm_free(&stranger);
    stage_free(&s);
}

/* A ticket that names no EK makes a pending host, which gets nothing until it is approved. */
static void pending_host(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment e;
    struct order o;
    char selector[80];
    stage_new(&s, "none");
    snprintf(selector, sizeof selector, "ek:%s", s.tpm.ek_id);
    rig_entries(&s.rig, selector);
    json_t *ticket = rig_ticket(&s.rig, NULL, 1);
    assert_int_equal(client_account(&s.client, ticket), 201);
    json_decref(ticket);
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    assert_int_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(s.client.body, "host"), "state")),
        "pending");
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 403);
    client_refused(&s.client, "hostUnknown");
    assert_int_equal(rig_rows(&s.rig, &store_orders), 0);
    rig_admin_done(&s.rig, "host.approve", json_pack("{s:s}", "id", s.tpm.ek_id));
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    enrolment_done(&e);
    stage_free(&s);
}

static void ticket_of_another_ek(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment e;
    char other[65];
    memset(other, 'a', 64);
    other[64] = 0;
    stage_new(&s, "none");
    json_t *ticket = rig_ticket(&s.rig, other, 1);
    assert_int_equal(client_account(&s.client, ticket), 201);
    json_decref(ticket);
    assert_int_not_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    client_refused(&s.client, "ticketInvalid");
    assert_int_equal(rig_rows(&s.rig, &store_aks), 0);
    enrolment_done(&e);
    stage_free(&s);
}

/* The AK is a primary: whoever may use the TPM can make it. A second account gets nothing. */
static void second_account(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment e;
    struct client thief;
    stage_enrolled(&s, "none");
    client_new(&thief, &s.rig);
    json_t *ticket = rig_ticket(&s.rig, NULL, 2);
    assert_int_equal(client_account(&thief, ticket), 201);
    json_decref(ticket);
    assert_int_equal(rig_m1(&thief, &s.tpm, NULL, &e), 201);
    s.tpm.clock.clock_ms += 1000;
    assert_int_not_equal(rig_m2(&thief, &s.tpm, &e), 200);
    client_refused(&thief, "accountMismatch");
    rig_audited(&s.rig, "refused", "accountMismatch");
    enrolment_done(&e);
    /* Until an operator says so. */
    rig_admin_done(&s.rig, "host.rebind", json_pack("{s:s}", "id", s.tpm.ek_id));
    assert_int_equal(rig_m1(&thief, &s.tpm, NULL, &e), 201);
    assert_int_equal(rig_m2(&thief, &s.tpm, &e), 200);
    enrolment_done(&e);
    client_free(&thief);
    stage_free(&s);
}

static void banned_host_and_its_other_eks(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment e;
    struct order o;
    stage_enrolled(&s, "none");
    rig_admin_done(&s.rig, "host.ban",
                   json_pack("{s:s, s:s}", "id", s.tpm.ek_id, "reason", "stolen"));
    assert_int_not_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    client_refused(&s.client, "hostBanned");
    assert_int_not_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    client_refused(&s.client, "hostBanned");
    assert_int_equal(client_get(&s.client, RIG_URL "/hostView"), 403);
    client_refused(&s.client, "hostBanned");
    rig_admin_refused(&s.rig, "host.evict", json_pack("{s:s}", "id", s.tpm.ek_id), "hostBanned");
    /* A TPM that lists the banned EK among its own is that TPM. */
    struct forge *sibling = forge_new(FORGE_EK_P256, FORGE_ENROL);
    forge_build(sibling, NULL);
    struct client c;
    client_new(&c, &s.rig);
    struct tpm other = {.base = sibling, .clock = sibling->clock};
    json_t *ticket = rig_ticket(&s.rig, NULL, 1);
    assert_int_equal(client_account(&c, ticket), 201);
    json_decref(ticket);
    char ek[160];
    snprintf(ek, sizeof ek, "%s/ek", s.rig.dir);
    rig_pem(ek, "sibling.pem", sibling->maker_root);
    struct issuer_settings *fresh = NULL;
    char config[160];
    snprintf(config, sizeof config, "%s/issuer.yaml", s.rig.dir);
    rig_ok(issuer_settings_load(config, &fresh, &err));
    issuer_settings_put(s.rig.issuer->settings);
    s.rig.issuer->settings = fresh;
    enrolment_done(&e);
    assert_int_not_equal(rig_m1(&c, &other, &s.tpm.base->ek_cert, &e), 201);
    client_refused(&c, "hostBanned");
    enrolment_done(&e);
    client_free(&c);
    forge_free(sibling);
    stage_free(&s);
}

/* A host that lists an EK it did not have when it enrolled is not the host it was. */
static void unknown_second_ek(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment e;
    stage_enrolled(&s, "none");
    struct forge *sibling = forge_new(FORGE_EK_P256, FORGE_ENROL);
    forge_build(sibling, NULL);
    assert_int_not_equal(rig_m1(&s.client, &s.tpm, &sibling->ek_cert, &e), 201);
    client_refused(&s.client, "hostUnknown");
    enrolment_done(&e);
    forge_free(sibling);
    stage_free(&s);
}

static void cleared_tpm(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment e;
    struct order o;
    stage_enrolled(&s, "none");
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "valid");
    assert_int_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER), 200);
    s.tpm.clock.reset_count = 0;
    s.tpm.clock.restart_count = 0;
    s.tpm.clock.clock_ms = 1000;
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    assert_int_not_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    client_refused(&s.client, "tpmCleared");
    enrolment_done(&e);
    json_t *host = rig_admin(&s.rig, "host.show", json_pack("{s:s}", "id", s.tpm.ek_id));
    assert_string_equal(issuer_string(host, "state"), "pending");
    assert_string_equal(issuer_string(host, "reason"), "tpmCleared");
    size_t i;
    json_t *row;
    assert_int_equal(json_array_size(json_object_get(host, "certificates")), 0); /* none live */
    json_t *certs = rig_admin(&s.rig, "cert.list", json_pack("{s:s}", "host", s.tpm.ek_id));
    json_array_foreach(json_object_get(certs, "certificates"), i, row)
    {
        assert_string_equal(issuer_string(row, "status"), "revoked");
    }
    assert_true(i >= 2);
    json_decref(certs);
    json_array_foreach(json_object_get(host, "aks"), i, row)
    {
        assert_string_equal(issuer_string(row, "state"), "ended");
    }
    json_decref(host);
    assert_int_not_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    client_refused(&s.client, "hostUnknown");
    /* It may enrol again; an operator decides. */
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    assert_int_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(s.client.body, "host"), "state")),
        "pending");
    enrolment_done(&e);
    stage_free(&s);
}

/* ---- orders
 * ------------------------------------------------------------------------------------------ */

static void orders_refused(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "none");
    const struct {
        const char *payload, *reason;
    } cases[] = {
        {"{\"identifiers\":[{\"type\":\"spiffe-id\","
         "\"value\":\"spiffe://bank.example/agent/elsewhere\"}]}",
         "notAssigned"},
        {"{\"identifiers\":[{\"type\":\"spiffe-id\","
         "\"value\":\"spiffe://bank.example/agent/nobody\"}]}",
         "notAssigned"},
        {"{\"identifiers\":[{\"type\":\"spiffe-id\","
         "\"value\":\"spiffe://evil.example/agent/" RIG_NAME "\"}]}",
         "notAssigned"},
        {"{\"identifiers\":[{\"type\":\"dns\",\"value\":\"bank.example\"}]}",
         "unsupportedIdentifier"},
        {"{\"identifiers\":[{\"type\":\"spiffe-id\",\"value\":\"" FORGE_IDENTIFIER "\"}],"
         "\"profile\":\"other\"}",
         "invalidProfile"},
        {"{\"identifiers\":[{\"type\":\"spiffe-id\",\"value\":\"" FORGE_IDENTIFIER "\"},"
         "{\"type\":\"spiffe-id\",\"value\":\"" FORGE_IDENTIFIER "\"}]}",
         "rejectedIdentifier"},
        {"{\"identifiers\":[]}", "malformed"},
        {"{\"identifiers\":[{\"type\":\"spiffe-id\",\"value\":\"" FORGE_IDENTIFIER "\"}],"
         "\"notAfter\":\"2030-01-01T00:00:00Z\"}",
         "malformed"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_true(client_post_text(&s.client, RIG_URL "/newOrder", cases[i].payload) >= 400);
        client_refused(&s.client, cases[i].reason);
    }
    assert_int_equal(rig_rows(&s.rig, &store_orders), 0);
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    stage_free(&s);
}

static void mutate_clock_back(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->clock.clock_ms -= 300000;
    }
}

static void mutate_reboot(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->clock.reset_count++;
        f->clock.restart_count = 0;
    }
}

static void mutate_resume(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->clock.restart_count++;
    }
}

static void mutate_imported(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->agent.pub.attrs &= ~(PARSE_OA_FIXED_TPM | PARSE_OA_FIXED_PARENT);
    }
}

static void mutate_agent_name(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->identifier = "spiffe://bank.example/agent/elsewhere";
    }
}

static void mutate_pcr(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_LOG) {
        f->pcrs.value[16][0] ^= 1;
    }
}

static EVP_PKEY *foreign_key;

static void mutate_signer(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->quote_signer = foreign_key;
    }
}

static void mutate_order(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->certified_key_authorization = FORGE_KEYAUTH;
    }
}

static void mutate_quote_order(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->quoted_key_authorization = FORGE_KEYAUTH;
    }
}

static void evidence_refused(void **state)
{
    (void)state;
    struct stage s;
    stage_enrolled(&s, "none");
    foreign_key = forge_p256();
    const struct {
        forge_mutate mutate;
        const char *reason;
    } cases[] = {
        {mutate_clock_back, "clockRollback"},
        {mutate_reboot, "akStale"},
        {mutate_resume, "akStale"},
        {mutate_imported, "keyAttributes"},
        {mutate_agent_name, "evidenceMismatch"},
        {mutate_pcr, "logReplay"},
        {mutate_signer, "quoteSignature"},
        {mutate_order, "certifyNonce"},
        {mutate_quote_order, "quoteNonce"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct order o;
        assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
        s.tpm.mutate = cases[i].mutate;
        assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "invalid");
        client_refused(&s.client, cases[i].reason);
        rig_audited(&s.rig, "refused", cases[i].reason);
        /* The order died of it; no evidence revives it, and it cannot be finalized. */
        s.tpm.mutate = NULL;
        assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "");
        client_refused(&s.client, "malformed");
        assert_int_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER),
                         403);
        client_refused(&s.client, "orderNotReady");
        assert_int_equal(client_get(&s.client, o.url), 200);
        assert_string_equal(client_text(&s.client, "status"), "invalid");
    }
    nothing_issued(&s);
    EVP_PKEY_free(foreign_key);
    stage_free(&s);
}

static void challenge_of_another(void **state)
{
    (void)state;
    struct stage s;
    struct order mine, other;
    stage_enrolled(&s, "none");
    assert_int_equal(rig_order(&s.client, RIG_NAME, &mine), 201);
    assert_int_equal(rig_order(&s.client, RIG_NAME, &other), 201);
    /* Evidence for one order at another's challenge. */
    struct order crossed = mine;
    snprintf(crossed.challenge, sizeof crossed.challenge, "%s", other.challenge);
    assert_string_equal(rig_m4(&s.client, &s.tpm, &crossed, s.ak), "invalid");
    client_refused(&s.client, "certifyNonce");
    /* An AK that is none of this account's. */
    assert_string_equal(rig_m4(&s.client, &s.tpm, &mine, RIG_URL "/ak/nobody"), "invalid");
    client_refused(&s.client, "akUnknown");
    /* Another account's order. */
    struct client thief;
    client_new(&thief, &s.rig);
    json_t *ticket = rig_ticket(&s.rig, NULL, 1);
    assert_int_equal(client_account(&thief, ticket), 201);
    json_decref(ticket);
    assert_int_equal(rig_order(&s.client, RIG_NAME, &mine), 201);
    assert_int_equal(client_get(&thief, mine.url), 403);
    client_refused(&thief, "unauthorized");
    assert_string_equal(rig_m4(&thief, &s.tpm, &mine, s.ak), "");
    client_refused(&thief, "unauthorized");
    nothing_issued(&s);
    client_free(&thief);
    stage_free(&s);
}

static void token_expires(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "none");
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    rig_time += 300;
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "");
    client_refused(&s.client, "malformed");
    stage_free(&s);
}

/* ---- finalize
 * ------------------------------------------------------------------------------------------ */

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

static void finalize_refused(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "forge");
    EVP_PKEY *key = s.tpm.base->agent.pkey;
    /* Before any verdict. */
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    assert_int_equal(rig_finalize(&s.client, &o, key, FORGE_IDENTIFIER), 403);
    client_refused(&s.client, "orderNotReady");
    /* Wrong CSRs leave a ready order ready. */
    ready_order(&s, &o);
    EVP_PKEY *other = forge_p256();
    assert_int_equal(rig_finalize(&s.client, &o, other, FORGE_IDENTIFIER), 400);
    client_refused(&s.client, "csrKey");
    assert_int_equal(rig_finalize(&s.client, &o, s.client.key, FORGE_IDENTIFIER), 400);
    assert_string_equal(client_text(&s.client, "type"), "urn:ietf:params:acme:error:badCSR");
    assert_int_equal(rig_finalize(&s.client, &o, key, "spiffe://bank.example/agent/elsewhere"),
                     400);
    client_refused(&s.client, "csrName");
    EVP_PKEY_free(other);
    /* A verdict holds for five minutes. */
    rig_time += 300;
    assert_int_equal(rig_finalize(&s.client, &o, key, FORGE_IDENTIFIER), 403);
    client_refused(&s.client, "orderNotReady");
    /* Another boot policy meanwhile. */
    ready_order(&s, &o);
    att_autobuf json = {0};
    forge_policy_json(s.tpm.base, &json);
    char *version = strstr((char *)(uintptr_t)att_buf_cstr(&json), "\"version\":3");
    assert_non_null(version);
    version[10] = '4';
    rig_admin_done(&s.rig, "policy.apply", json_pack("{s:s}", "text", att_buf_cstr(&json)));
    assert_int_not_equal(rig_finalize(&s.client, &o, key, FORGE_IDENTIFIER), 200);
    client_refused(&s.client, "policyExpired");
    /* The entry changed, then went. */
    ready_order(&s, &o);
    rig_entries(&s.rig, "label:zone=trading");
    assert_int_not_equal(rig_finalize(&s.client, &o, key, FORGE_IDENTIFIER), 200);
    client_refused(&s.client, "notAssigned");
    char selector[80];
    snprintf(selector, sizeof selector, "ek:%s", s.tpm.ek_id);
    rig_entries(&s.rig, selector);
    ready_order(&s, &o);
    rig_admin_done(&s.rig, "entry.delete", json_pack("{s:s}", "name", RIG_NAME));
    assert_int_not_equal(rig_finalize(&s.client, &o, key, FORGE_IDENTIFIER), 200);
    client_refused(&s.client, "notAssigned");
    rig_entries(&s.rig, selector);
    /* Banned between verdict and finalize. */
    ready_order(&s, &o);
    rig_admin_done(&s.rig, "host.ban", json_pack("{s:s, s:s}", "id", s.tpm.ek_id, "reason", "x"));
    assert_int_not_equal(rig_finalize(&s.client, &o, key, FORGE_IDENTIFIER), 200);
    client_refused(&s.client, "hostBanned");
    rig_audited(&s.rig, "refused", "hostBanned");
    nothing_issued(&s);
    stage_free(&s);
}

static void host_view(struct stage *s, int64_t *ret_version)
{
    struct acme_jws jws = {0};
    assert_int_equal(client_get(&s->client, RIG_URL "/hostView"), 200);
    rig_ok(acme_jws_parse_signed(att_buf_slice(&s->client.last.body), ACME_JWS_MAX,
                                 "attestd-hostview", &jws, &err));
    rig_ok(acme_jws_verify_cert(&jws, &err));
    struct att_slice chain[2] = {att_buf_slice(&jws.x5c[0]), att_buf_slice(&jws.x5c[1])};
    assert_int_equal(jws.x5c_len, 2);
    certs_autostack *certs = NULL, *roots = sk_X509_new_null();
    rig_ok(certs_der_parse(chain, 2, &certs, &err));
    X509_up_ref(s->rig.issuer->ca->tls_root);
    sk_X509_push(roots, s->rig.issuer->ca->tls_root);
    rig_ok(certs_chain_verify(certs, roots, CERTS_PURPOSE_HOST_VIEW, att_now_utc_s(), &err));
    att_autojson *view = NULL;
    rig_ok(att_json_parse(att_buf_slice(&jws.payload), 1 << 20, &view, &err));
    assert_int_equal(json_array_size(json_object_get(view, "entries")), 1);
    const json_t *entry = json_array_get(json_object_get(view, "entries"), 0);
    assert_string_equal(issuer_string(entry, "name"), RIG_NAME);
    assert_string_equal(issuer_string(entry, "spiffeId"), FORGE_IDENTIFIER);
    assert_int_equal(json_integer_value(json_object_get(entry, "lifetimeS")), 3600);
    assert_string_equal(issuer_string(json_object_get(view, "host"), "id"), s->tpm.ek_id);
    *ret_version = json_integer_value(json_object_get(view, "version"));
    acme_jws_done(&jws);
}

/* Chain, SAN, key, extension: what anybody who gets the certificate will look at. */
static void check_chain(struct stage *s)
{
    certs_autostack *certs = NULL, *roots = sk_X509_new_null();
    rig_ok(certs_pem_parse(att_buf_slice(&s->client.last.body), &certs, &err));
    assert_int_equal(sk_X509_num(certs), 2);
    X509_up_ref(s->rig.issuer->ca->workload_root);
    sk_X509_push(roots, s->rig.issuer->ca->workload_root);
    rig_ok(certs_chain_verify(certs, roots, CERTS_PURPOSE_WORKLOAD, att_now_utc_s(), &err));
    rig_ok(certs_cert_matches_key(sk_X509_value(certs, 0), s->tpm.base->agent.pkey, &err));
    struct certs_key_holding holding;
    rig_ok(certs_key_holding_get(sk_X509_value(certs, 0), &holding, &err));
    assert_string_equal(holding.boot, "forge");
    assert_int_equal(holding.store, CERTS_STORE_TPM);
    /* The digest in it finds the decision. */
    struct certs_cert_info info;
    rig_ok(certs_cert_info(sk_X509_value(certs, 0), &info, &err));
    json_t *why = rig_admin(&s->rig, "audit.why", json_pack("{s:s}", "id", info.serial_hex));
    bool found = false;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(why, "records"), i, row)
    {
        issuer_autofree *text = issuer_json_text(json_object_get(row, "record"));
        uint8_t digest[ATT_SHA256_LEN];
        att_sha256(digest, att_slice_str(text));
        found = found || memcmp(digest, holding.decision, sizeof digest) == 0;
    }
    assert_true(found);
    json_decref(why);
}

/* A host's label finds what was decided about the host, also where a ticket's record has the word.
 */
static void why_by_label(void **state)
{
    (void)state;
    struct stage s;
    stage_enrolled(&s, "forge");
    json_decref(rig_admin(&s.rig, "host.approve",
                          json_pack("{s:s, s:s}", "id", s.tpm.ek_id, "label", "web-17")));
    json_decref(rig_admin(&s.rig, "ticket.create", json_pack("{s:s}", "host", "web-17")));
    json_t *why = rig_admin(&s.rig, "audit.why", json_pack("{s:s}", "id", "web-17"));
    unsigned tickets = 0, enrolments = 0;
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(why, "records"), i, row)
    {
        const char *kind = issuer_string(json_object_get(row, "record"), "kind");
        tickets += strcmp(kind, "ticket") == 0;
        enrolments += strcmp(kind, "enrol") == 0;
    }
    assert_int_equal(tickets, 1);
    assert_int_equal(enrolments, 1);
    json_decref(why);
    stage_free(&s);
}

static void certificate(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    /* The handlers' clock is the real one here: the chain is verified at the present time. */
    stage_enrolled(&s, "forge");
    rig_time = att_now_utc_s();
    int64_t version = 0, later = 0;
    host_view(&s, &version);
    for (int round = 0; round < 3; round++) {
        ready_order(&s, &o);
        assert_int_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER),
                         200);
        assert_string_equal(client_text(&s.client, "status"), "valid");
        char url[256];
        snprintf(url, sizeof url, "%s", client_text(&s.client, "certificate"));
        assert_int_equal(client_get(&s.client, url), 200);
        assert_string_equal(s.client.last.content_type, "application/pem-certificate-chain");
        check_chain(&s);
        assert_int_equal(rig_rows(&s.rig, &store_certs), round + 1);
        /* Once. */
        assert_int_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER),
                         403);
        client_refused(&s.client, "orderNotReady");
    }
    /* hostView: unchanged is 304, and the version grows with what it shows. */
    char etag[32];
    snprintf(etag, sizeof etag, "\"%lld\"", (long long)version);
    att_autobuf text = {0};
    char nonce[ACME_NONCE_TEXT];
    client_nonce(&s.client, nonce);
    client_sign(&s.client, RIG_URL "/hostView", nonce, false, ATT_SLICE(NULL, 0), &text);
    assert_int_equal(client_send(&s.client, "/acme/hostView", att_buf_slice(&text),
                                 "application/jose+json", etag),
                     304);
    rig_admin_done(&s.rig, "host.approve", json_pack("{s:s}", "id", s.tpm.ek_id));
    host_view(&s, &later);
    assert_true(later > version);
    rig_ok(issuer_audit_save_head(s.rig.issuer, &err));
    rig_admin_done(&s.rig, "audit.verify", json_object());
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(account_needs_ticket),
        cmocka_unit_test(wrong_value_ends_the_challenge),
        cmocka_unit_test(late_answer),
        cmocka_unit_test(replaced_challenge),
        cmocka_unit_test(another_account_answers),
        cmocka_unit_test(untrusted_root),
        cmocka_unit_test(pending_host),
        cmocka_unit_test(ticket_of_another_ek),
        cmocka_unit_test(second_account),
        cmocka_unit_test(banned_host_and_its_other_eks),
        cmocka_unit_test(unknown_second_ek),
        cmocka_unit_test(cleared_tpm),
        cmocka_unit_test(orders_refused),
        cmocka_unit_test(evidence_refused),
        cmocka_unit_test(challenge_of_another),
        cmocka_unit_test(token_expires),
        cmocka_unit_test(finalize_refused),
        cmocka_unit_test(certificate),
        cmocka_unit_test(why_by_label),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
