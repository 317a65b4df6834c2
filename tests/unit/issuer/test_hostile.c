/* What an enrolled attacker, or one who can write the database, tries against others. */
#include "provision/store/store_internal.h"
#include "tests/unit/issuer/stage.h"

static void trust_maker_of(struct rig *r, const struct tpm *t, const char *name)
{
    char ek[160];
    snprintf(ek, sizeof ek, "%s/ek", r->dir);
    rig_pem(ek, name, t->base->maker_root);
    reload(r);
}

static void account_of(struct client *c, struct rig *r, const char *ek)
{
    client_new(c, r);
    json_t *ticket = rig_ticket(r, ek, 1);
    assert_int_equal(client_account(c, ticket), 201);
    json_decref(ticket);
}

static const char *state_of(struct client *c)
{
    return issuer_string(json_object_get(c->body, "host"), "state");
}

static int enrol(struct client *c, struct tpm *t, const struct att_buf *other)
{
    struct enrolment e;
    int status = rig_m1(c, t, other, &e);
    if (status == 201) {
        t->clock.clock_ms += 1000;
        status = rig_m2(c, t, &e);
    }
    enrolment_done(&e);
    return status;
}

/* ---- claims of others' EKs
 * ------------------------------------------------------------------------------- */

struct claim {
    struct rig rig;
    struct tpm stranger, victim;
    struct client thief, owner;
};

/* A stranger with a genuine TPM enrols, and lists somebody's EK certificate as one of its own. */
static void claim_new(struct claim *c, const struct att_buf *listed)
{
    tpm_new(&c->stranger);
    tpm_new_other(&c->victim);
    rig_new(&c->rig, c->stranger.base->maker_root, "none");
    trust_maker_of(&c->rig, &c->victim, "second.pem");
    account_of(&c->thief, &c->rig, NULL);
    assert_int_equal(enrol(&c->thief, &c->stranger, listed ? listed : &c->victim.base->ek_cert),
                     200);
    assert_string_equal(state_of(&c->thief), "pending");
    account_of(&c->owner, &c->rig, c->victim.ek_id);
}

static void claim_free(struct claim *c)
{
    client_free(&c->thief);
    client_free(&c->owner);
    rig_free(&c->rig);
    tpm_free(&c->stranger);
    tpm_free(&c->victim);
}

/* An operator who speaks of the victim's EK does not mean the stranger. */
static void claimed_ek_names_nobody_else(void **state)
{
    (void)state;
    struct claim c;
    claim_new(&c, NULL);
    rig_admin_refused(&c.rig, "host.approve", json_pack("{s:s}", "id", c.victim.ek_id),
                      "hostUnknown");
    json_t *host = rig_admin(&c.rig, "host.show", json_pack("{s:s}", "id", c.stranger.ek_id));
    assert_string_equal(issuer_string(host, "state"), "pending");
    assert_int_equal(json_array_size(json_object_get(host, "eks")), 1);
    assert_int_equal(json_array_size(json_object_get(host, "claimedEks")), 1);
    json_decref(host);
    assert_int_equal(enrol(&c.owner, &c.victim, NULL), 200);
    assert_string_equal(state_of(&c.owner), "approved");
    /* From now on the EK is its owner's, and whoever lists it is refused. */
    assert_int_not_equal(enrol(&c.thief, &c.stranger, &c.victim.base->ek_cert), 200);
    client_refused(&c.thief, "hostUnknown");
    claim_free(&c);
}

/* Banned, the stranger does not take the owner of the EK along; but since the banned TPM itself
 * could come like that, an operator looks first, whatever the ticket says. */
static void ban_of_a_claimant(void **state)
{
    (void)state;
    struct claim c;
    claim_new(&c, NULL);
    rig_admin_done(&c.rig, "host.ban",
                   json_pack("{s:s, s:s}", "id", c.stranger.ek_id, "reason", "secret reason"));
    assert_int_equal(enrol(&c.owner, &c.victim, NULL), 200);
    assert_string_equal(state_of(&c.owner), "pending");
    json_t *host = rig_admin(&c.rig, "host.show", json_pack("{s:s}", "id", c.victim.ek_id));
    assert_non_null(strstr(issuer_string(host, "reason"), "banned host"));
    json_decref(host);
    rig_admin_done(&c.rig, "host.approve", json_pack("{s:s}", "id", c.victim.ek_id));
    assert_int_equal(enrol(&c.owner, &c.victim, NULL), 200);
    assert_string_equal(state_of(&c.owner), "approved");
    /* The reason of a ban is not for everybody who can name an EK. */
    struct client other;
    struct enrolment e;
    account_of(&other, &c.rig, NULL);
    assert_int_not_equal(rig_m1(&other, &c.stranger, NULL, &e), 201);
    client_refused(&other, "hostBanned");
    assert_null(strstr((const char *)att_buf_cstr(&other.last.body), "secret reason"));
    enrolment_done(&e);
    client_free(&other);
    claim_free(&c);
}

/* The stranger lists an EK that the owner only lists, too: the owner enrols at each boot all the
 * same, with the stranger banned or not. */
static void claim_of_a_second_ek(void **state)
{
    (void)state;
    struct claim c;
    struct forge *second = forge_new(FORGE_EK_P256, FORGE_ENROL);
    forge_build(second, NULL);
    claim_new(&c, &second->ek_cert);
    assert_int_equal(enrol(&c.owner, &c.victim, &second->ek_cert), 200);
    assert_string_equal(state_of(&c.owner), "approved");
    c.victim.clock.reset_count++;
    assert_int_equal(enrol(&c.owner, &c.victim, &second->ek_cert), 200);
    rig_admin_done(&c.rig, "host.ban",
                   json_pack("{s:s, s:s}", "id", c.stranger.ek_id, "reason", "x"));
    c.victim.clock.reset_count++;
    assert_int_equal(enrol(&c.owner, &c.victim, &second->ek_cert), 200);
    assert_string_equal(state_of(&c.owner), "approved");
    forge_free(second);
    claim_free(&c);
}

static enum att_rc put_ek(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_put(tx, &store_host_eks, user, err);
}

/* An operator's import neither takes an EK from a host that proved it. */
static void import_and_ban_take_nothing(void **state)
{
    (void)state;
    struct stage s;
    char csv[256];
    stage_enrolled(&s, "none");
    static const char second[] = "1111111111111111111111111111111111111111111111111111111111111111";
    struct store_host_ek row = {.ek = (char *)(uintptr_t)second, .host = s.tpm.ek_id, .proven = 1};
    rig_ok(store_run(s.rig.issuer->store, true, put_ek, &row, &err));
    snprintf(csv, sizeof csv, "ek,label,labels\n%s,x,\n", second);
    rig_admin_refused(&s.rig, "host.import", json_pack("{s:s}", "text", csv), "ekTaken");
    rig_admin_done(&s.rig, "host.ban", json_pack("{s:s, s:s}", "id", second, "reason", "x"));
    json_t *host = rig_admin(&s.rig, "host.show", json_pack("{s:s}", "id", s.tpm.ek_id));
    assert_string_equal(issuer_string(host, "state"), "banned");
    json_decref(host);
    stage_free(&s);
}

/* ---- one account, one host
 * ------------------------------------------------------------------------------- */

static void second_host_of_an_account(void **state)
{
    (void)state;
    struct stage s;
    struct tpm other;
    tpm_new_other(&other);
    stage_new(&s, "none");
    trust_maker_of(&s.rig, &other, "second.pem");
    json_t *ticket = rig_ticket(&s.rig, NULL, 5);
    assert_int_equal(client_account(&s.client, ticket), 201);
    json_decref(ticket);
    assert_int_equal(enrol(&s.client, &s.tpm, NULL), 200);
    assert_int_not_equal(enrol(&s.client, &other, NULL), 200);
    client_refused(&s.client, "accountMismatch");
    assert_int_equal(rig_rows(&s.rig, &store_hosts), 1);
    tpm_free(&other);
    stage_free(&s);
}

/* One ticket does not fill the account table. */
static void accounts_of_a_ticket(void **state)
{
    (void)state;
    struct stage s;
    stage_new(&s, "none");
    json_t *ticket = rig_ticket(&s.rig, NULL, 1);
    int made = 0;
    for (int i = 0; i < 40; i++) {
        struct client c;
        client_new(&c, &s.rig);
        made += client_account(&c, ticket) == 201;
        client_free(&c);
    }
    assert_in_range(made, 1, 20);
    json_decref(ticket);
    stage_free(&s);
}

/* A request that waits for a new view is woken by the very rebind that takes the host away. */
static void view_after_rebind(void **state)
{
    (void)state;
    struct stage s;
    struct issuer_response answer = {0};
    struct att_err why = {0};
    stage_enrolled(&s, "none");
    rig_ok(issuer_view_answer(s.rig.issuer, s.tpm.ek_id, s.client.thumbprint, 0, &answer, &err));
    assert_int_equal(answer.status, 200);
    issuer_response_done(&answer);
    rig_admin_done(&s.rig, "host.rebind", json_pack("{s:s}", "id", s.tpm.ek_id));
    assert_int_equal(
        issuer_view_answer(s.rig.issuer, s.tpm.ek_id, s.client.thumbprint, 0, &answer, &why),
        ATT_E_DENIED);
    assert_int_equal(answer.body.len, 0);
    issuer_response_done(&answer);
    stage_free(&s);
}

/* ---- the deny list
 * ---------------------------------------------------------------------------------------- */

static void maker_and_firmware_denied(void **state)
{
    (void)state;
    static const char *const lists[] = {
        "{ manufacturer: \"IBM\" }", "{ manufacturer: \"id:49424D00\" }",
        "{ manufacturer: \"id:49424d00\", versions: [\"%u.%u.%u.%u\"] }",
        "{ manufacturer: \"IBM\", versions: [\"id:%04x%04x\"] }",
        "{ manufacturer: \"IBM\", versions: [\"id:%04x%04x%04x%04x\"] }"};
    struct stage s;
    stage_new(&s, "none");
    json_t *ticket = rig_ticket(&s.rig, s.tpm.ek_id, 1);
    assert_int_equal(client_account(&s.client, ticket), 201);
    json_decref(ticket);
    uint64_t v = s.tpm.clock.firmware_version;
    char before[400] = "  roots_dir: ", path[200];
    snprintf(path, sizeof path, "%s/ek\n", s.rig.dir);
    strncat(before, path, sizeof before - strlen(before) - 1);
    for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++) {
        char rule[160], after[800];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        snprintf(rule, sizeof rule, lists[i], (unsigned)(v >> 48), (unsigned)(v >> 32 & 0xffff),
                 (unsigned)(v >> 16 & 0xffff), (unsigned)(v & 0xffff));
#pragma GCC diagnostic pop
        snprintf(after, sizeof after, "%s  deny:\n    - %s\n", before, rule);
        reconfigure(&s.rig, before, after);
        assert_int_not_equal(enrol(&s.client, &s.tpm, NULL), 200);
        client_refused(&s.client, "firmwareDenied");
        rig_audited(&s.rig, "refused", "firmwareDenied");
        reconfigure(&s.rig, after, before);
    }
    stage_free(&s);
}

/* ---- TPMs without an EK certificate
 * ----------------------------------------------------------------------- */

static void inventory_is_the_operators(void **state)
{
    (void)state;
    struct stage s;
    struct client named, first;
    struct tpm other;
    tpm_new_other(&other);
    stage_new(&s, "none");
    trust_maker_of(&s.rig, &other, "second.pem");
    reconfigure(&s.rig, "ek: certificate", "ek: inventory");
    other.no_ek_cert = true;
    /* Anybody can make up a TPM; a ticket for any host does not make it one. */
    account_of(&first, &s.rig, NULL);
    assert_int_not_equal(enrol(&first, &other, NULL), 200);
    client_refused(&first, "hostUnknown");
    assert_int_equal(rig_rows(&s.rig, &store_hosts), 0);
    account_of(&named, &s.rig, other.ek_id);
    assert_int_equal(enrol(&named, &other, NULL), 200);
    assert_string_equal(state_of(&named), "approved");
    /* What once came with a certificate, and its maker, does not leave it out. */
    rig_enrol(&s.client, &s.tpm, s.ak);
    s.tpm.no_ek_cert = true;
    assert_int_not_equal(enrol(&s.client, &s.tpm, NULL), 200);
    client_refused(&s.client, "ekChain");
    client_free(&first);
    client_free(&named);
    tpm_free(&other);
    stage_free(&s);
}

static void imported_ek_without_certificate(void **state)
{
    (void)state;
    struct stage s;
    char csv[160];
    stage_new(&s, "none");
    reconfigure(&s.rig, "ek: certificate", "ek: inventory");
    snprintf(csv, sizeof csv, "ek,label,labels\n%s,cloud-1,\n", s.tpm.ek_id);
    rig_admin_done(&s.rig, "host.import", json_pack("{s:s}", "text", csv));
    s.tpm.no_ek_cert = true;
    client_free(&s.client);
    account_of(&s.client, &s.rig, NULL);
    assert_int_equal(enrol(&s.client, &s.tpm, NULL), 200);
    assert_string_equal(state_of(&s.client), "approved");
    stage_free(&s);
}

/* ---- between verdict and signature
 * ----------------------------------------------------------------------- */

static void ready(struct stage *s, struct order *o)
{
    s->tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_order(&s->client, RIG_NAME, o), 201);
    assert_string_equal(rig_m4(&s->client, &s->tpm, o, s->ak), "valid");
}

static void finalize_denied(struct stage *s, const struct order *o, const char *reason)
{
    assert_int_not_equal(rig_finalize(&s->client, o, s->tpm.base->agent.pkey, FORGE_IDENTIFIER),
                         200);
    client_refused(&s->client, reason);
    assert_int_equal(rig_finalize(&s->client, o, s->tpm.base->agent.pkey, FORGE_IDENTIFIER), 403);
    client_refused(&s->client, "orderNotReady");
}

static void basis_changes_before_finalize(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "none");
    static const char asked[] = "    boot: none\n    pcrs: \"" RIG_PCRS "\"\n";
    static const char more[] = "    boot: none\n    pcrs: \"" RIG_PCRS ",17\"\n";
    ready(&s, &o);
    reconfigure(&s.rig, asked, more);
    finalize_denied(&s, &o, "policyExpired");
    reconfigure(&s.rig, more, asked);
    char roots[200], deny[300];
    snprintf(roots, sizeof roots, "  roots_dir: %s/ek\n", s.rig.dir);
    snprintf(deny, sizeof deny, "%s  deny:\n    - { manufacturer: IBM }\n", roots);
    ready(&s, &o);
    reconfigure(&s.rig, roots, deny);
    finalize_denied(&s, &o, "firmwareDenied");
    reconfigure(&s.rig, deny, roots);
    ready(&s, &o);
    reconfigure(&s.rig, "    keys: [tpm]\n    boot: none", "    keys: [hsm]\n    boot: none");
    finalize_denied(&s, &o, "keyStore");
    reconfigure(&s.rig, "    keys: [hsm]\n    boot: none", "    keys: [tpm]\n    boot: none");
    /* The AK's enrolment ends within the five minutes. */
    reconfigure(&s.rig, "ak_lifetime: 7d", "ak_lifetime: 10m");
    struct enrolment e;
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    s.tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    snprintf(s.ak, sizeof s.ak, "%s", e.url);
    enrolment_done(&e);
    rig_time += 500;
    ready(&s, &o);
    rig_time += 150;
    finalize_denied(&s, &o, "akStale");
    stage_free(&s);
}

static enum att_rc count_blobs(void *user, const struct store_row *row, struct att_err *err)
{
    (void)row;
    (void)err;
    ++*(int *)user;
    return ATT_OK;
}

static enum att_rc list_blobs(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_exec(tx, "SELECT sha256 FROM blobs", NULL, 0, count_blobs, user, NULL, err);
}

static int blobs(struct rig *r)
{
    int n = 0;
    rig_ok(store_run(r->issuer->store, false, list_blobs, &n, &err));
    return n;
}

/* A ticket and no TPM: neither rows nor evidence without end. */
static void tries_without_end(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment e;
    stage_new(&s, "none");
    json_t *ticket = rig_ticket(&s.rig, NULL, 1);
    assert_int_equal(client_account(&s.client, ticket), 201);
    json_decref(ticket);
    int status = 201, n = 0;
    for (; status == 201 && n < 100; n++) {
        status = rig_m1(&s.client, &s.tpm, NULL, &e);
        if (status == 201 && n == 0) {
            e.cv[0] ^= 1;
            assert_int_not_equal(rig_m2(&s.client, &s.tpm, &e), 200);
            client_refused(&s.client, "activation");
            assert_int_equal(blobs(&s.rig), 1); /* M1 alone */
        }
        enrolment_done(&e);
    }
    assert_int_equal(status, 429);
    assert_int_equal(n, CONF_LIMIT_ENROLMENTS + 1);
    assert_int_equal(s.client.last.retry_after_s, 60);
    rig_time += ISSUER_RECENT_S + 1;
    assert_int_equal(enrol(&s.client, &s.tpm, NULL), 200);
    stage_free(&s);
}

/* Each refusal is a record that stays: their number has an end. */
static void refusals_without_end(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "none");
    int refused = 0;
    for (int i = 0; i < ISSUER_RECENT_REFUSALS + 50; i++) {
        refused += rig_order(&s.client, "elsewhere", &o) == 403;
    }
    assert_int_equal(refused, ISSUER_RECENT_REFUSALS);
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 429);
    rig_time += ISSUER_RECENT_S + 1;
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    stage_free(&s);
}

static void orders_without_end(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "none");
    int status = 201, n = 0;
    for (; status == 201 && n < 2000; n++) {
        status = rig_order(&s.client, RIG_NAME, &o);
    }
    assert_int_equal(status, 429);
    assert_int_equal(n, CONF_LIMIT_FRUITLESS + 1);
    rig_time += ISSUER_RECENT_S + 1;
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    stage_free(&s);
}

/* ---- the audit log
 * ---------------------------------------------------------------------------------------- */

struct rewrite {
    char *records[64];
    int64_t at[64];
    size_t n;
};

static enum att_rc keep_record(void *user, const struct store_audit *a, struct att_err *err)
{
    struct rewrite *r = user;
    (void)err;
    assert_true(r->n < 64);
    r->at[r->n] = a->at;
    r->records[r->n++] = strdup(a->record);
    return ATT_OK;
}

/* The whole chain again with good hashes, and one word of one record changed. */
static enum att_rc rewrite_chain(void *user, struct store_tx *tx, struct att_err *err)
{
    struct rewrite *r = user;
    enum att_rc rc = store_audit_each(tx, 0, 0, keep_record, r, err);
    rc = rc ? rc : store_exec(tx, "DELETE FROM audit", NULL, 0, NULL, NULL, NULL, err);
    for (size_t i = 0; i < r->n; i++) {
        char *word = i == 1 ? strstr(r->records[i], "granted") : NULL;
        word = word ? word : i == 1 ? strstr(r->records[i], "done") : NULL;
        if (word) {
            memcpy(word, "d0ne", 4);
        }
        rc = rc ? rc : store_audit_append(tx, r->at[i], r->records[i], NULL, err);
        free(r->records[i]);
    }
    return rc;
}

static void rewritten_log_is_not_signed(void **state)
{
    (void)state;
    for (int restart = 0; restart < 2; restart++) {
        struct stage s;
        struct rewrite r = {0};
        struct att_err why = {0};
        stage_enrolled(&s, "none");
        rig_ok(issuer_audit_save_head(s.rig.issuer, &err));
        rig_admin_done(&s.rig, "audit.verify", json_object());
        if (restart) {
            struct store *store = s.rig.issuer->store;
            rig_ok(store_run(store, true, rewrite_chain, &r, &err));
            issuer_free(s.rig.issuer);
            rig_open(&s.rig);
            json_t *list = rig_admin(&s.rig, "audit.list", json_pack("{s:s}", "kind", "config"));
            assert_int_equal(json_array_size(json_object_get(list, "records")), 1);
            json_decref(list);
        } else {
            rig_ok(store_run(s.rig.issuer->store, true, rewrite_chain, &r, &err));
            rig_admin_done(&s.rig, "host.approve", json_pack("{s:s}", "id", s.tpm.ek_id));
            assert_int_equal(issuer_audit_save_head(s.rig.issuer, &why), ATT_E_AUTH);
            assert_string_equal(why.reason, "auditEdited");
            assert_int_equal(issuer_audit_save_head(s.rig.issuer, &why), ATT_OK);
            rig_admin_refused(&s.rig, "audit.verify", json_object(), "auditEdited");
        }
        stage_free(&s);
    }
}

/* ---- import
 * -----------------------------------------------------------------------------------------------
 */

/* A name that is cut within a character where the verdict quotes it. */
static void evidence_for_a_long_name(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_EVIDENCE) {
        memset(f->statement.identifier, 'a', 99);
        strcpy(f->statement.identifier + 99, "\xc3\xa9");
    }
}

static void record_of_a_refusal_is_whole(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "none");
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    s.tpm.mutate = evidence_for_a_long_name;
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "invalid");
    client_refused(&s.client, "evidenceMismatch");
    rig_audited(&s.rig, "refused", "evidenceMismatch");
    json_t *result = rig_admin(&s.rig, "audit.list", json_pack("{s:i}", "limit", 1));
    const json_t *record =
        json_object_get(json_array_get(json_object_get(result, "records"), 0), "record");
    assert_string_equal(issuer_string(json_object_get(record, "verdict"), "reason"),
                        "evidenceMismatch");
    json_decref(result);
    /* The same of an order: the sentence is in the record. */
    char payload[512], name[64];
    memset(name, 'a', 63);
    name[63] = 0;
    snprintf(payload, sizeof payload,
             "{\"identifiers\":[{\"type\":\"spiffe-id\",\"value\":\"" FORGE_IDENTIFIER
             "\"}],\"profile\":\"%s\xc3\xa9\"}",
             name);
    assert_int_equal(client_post_text(&s.client, RIG_URL "/newOrder", payload), 400);
    client_refused(&s.client, "invalidProfile");
    rig_audited(&s.rig, "refused", "invalidProfile");
    result = rig_admin(&s.rig, "audit.list", json_pack("{s:i}", "limit", 1));
    record = json_object_get(json_array_get(json_object_get(result, "records"), 0), "record");
    assert_non_null(strstr(issuer_string(record, "detail"), name));
    json_decref(result);
    stage_free(&s);
}

static void import_dry_run(void **state)
{
    (void)state;
    struct stage s;
    char csv[512];
    static const char one[] = "1111111111111111111111111111111111111111111111111111111111111111";
    stage_enrolled(&s, "none");
    snprintf(csv, sizeof csv, "ek,label,labels\n%s,new,zone=a\n%s,old,zone=b\n", one, s.tpm.ek_id);
    for (int dry = 1; dry >= 0; dry--) {
        json_t *result =
            rig_admin(&s.rig, "host.import", json_pack("{s:s, s:b}", "text", csv, "dryRun", dry));
        assert_int_equal(json_array_size(json_object_get(result, "added")), 1);
        assert_int_equal(json_array_size(json_object_get(result, "changed")), 1);
        assert_true(json_is_true(json_object_get(result, "dryRun")) == (dry == 1));
        json_decref(result);
        assert_int_equal(rig_rows(&s.rig, &store_hosts), dry ? 1 : 2);
        json_t *host = rig_admin(&s.rig, "host.show", json_pack("{s:s}", "id", s.tpm.ek_id));
        assert_string_equal(issuer_string(host, "label"), dry ? "" : "old");
        json_decref(host);
    }
    snprintf(csv, sizeof csv, "ek,label,labels\n%s,a,\n%s,b,\n", one, one);
    struct att_err err = {0};
    json_t *result = NULL, *args = json_pack("{s:s}", "text", csv);
    assert_int_equal(issuer_admin(s.rig.issuer, NULL, "host.import", args, &result, &err),
                     ATT_E_PARSE);
    json_decref(args);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(claimed_ek_names_nobody_else),
        cmocka_unit_test(ban_of_a_claimant),
        cmocka_unit_test(claim_of_a_second_ek),
        cmocka_unit_test(import_and_ban_take_nothing),
        cmocka_unit_test(second_host_of_an_account),
        cmocka_unit_test(accounts_of_a_ticket),
        cmocka_unit_test(view_after_rebind),
        cmocka_unit_test(maker_and_firmware_denied),
        cmocka_unit_test(inventory_is_the_operators),
        cmocka_unit_test(imported_ek_without_certificate),
        cmocka_unit_test(basis_changes_before_finalize),
        cmocka_unit_test(tries_without_end),
        cmocka_unit_test(orders_without_end),
        cmocka_unit_test(refusals_without_end),
        cmocka_unit_test(rewritten_log_is_not_signed),
        cmocka_unit_test(record_of_a_refusal_is_whole),
        cmocka_unit_test(import_dry_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
