/* Whose operation is whose: every one has its roles, four eyes hold for hosts that enrol, an
 * agent's own certificate is a credential until it is revoked. */
#include "provision/issuer/admin_https.h"
#include "tests/unit/issuer/admin_stage.h"

#include "certs/oid.h"

#define ADMIN_NOBODY                                                                               \
    "admin:\n"                                                                                     \
    "  listen: \"127.0.0.1:0\"\n"                                                                  \
    "  agents: true\n"                                                                             \
    "  bindings:\n"                                                                                \
    "    - { principals: [\"spiffe://staff.example/op\"], roles: [ca-operator] }\n"

/* Said here once more, by hand: what is not in this list has effects. */
static bool only_reads(const char *op)
{
    static const char *const read[] = {
        "status",         "host.list",       "host.show",      "entry.list",    "entry.show",
        "policy.list",    "policy.show",     "policy.dryrun",  "cert.list",     "ca.status",
        "ca.bundle",      "ca.jwt",          "audit.list",     "audit.why",     "audit.evidence",
        "audit.verify",   "audit.prove",     "audit.export",   "proposal.list", "proposal.show",
        "allowlist.list", "federation.list", "federation.show"};
    for (size_t i = 0; i < sizeof read / sizeof read[0]; i++) {
        if (strcmp(read[i], op) == 0) {
            return true;
        }
    }
    return false;
}

/* A new operation has to say whose it is. */
static void every_operation_has_its_roles(void **state)
{
    (void)state;
    struct issuer_admin_op op;
    size_t n = 0;
    for (; issuer_admin_op_at(n, &op); n++) {
        const struct issuer_duty duty = issuer_duty_of(op.op, op.write);
        if (duty.roles == 0) {
            print_error("%s is nobody's\n", op.op);
        }
        assert_int_not_equal(duty.roles, 0);
        assert_true(op.write == (duty.reach != ISSUER_REACH_ANY));
        assert_true(op.write == !only_reads(op.op));
    }
    assert_true(n > 30);
    /* What nobody knows is for the socket alone. */
    assert_int_equal(issuer_duty_of("host.teleport", true).roles, 0);
    assert_int_equal(issuer_duty_of("backup.create", false).roles, 0);
    assert_int_equal(issuer_duty_of("ca.anything", true).roles, CONF_ROLE_CA_OPERATOR);
    assert_int_equal(issuer_duty_of("ca.anything", false).roles, 0);
    assert_int_equal(issuer_duty_of("ca.statusAndMore", false).roles, 0);
    assert_int_equal(issuer_duty_of("audit.anything", false).roles, CONF_ROLE_AUDITOR);
}

/* Who bans an EK that nobody has met made that host: he does not approve it, by no way. */
static void a_ban_is_lifted_by_somebody_else(void **state)
{
    (void)state;
    struct stage s;
    struct att_err why = {0};
    const char *ek = "00000000000000000000000000000000000000000000000000000000000000aa";
    stage_new(&s, "none");
    with_admin(&s);
    rig_ok(
        as(&s, "dave", "host.ban", json_pack("{s:s, s:s}", "id", ek, "reason", "x"), NULL, &err));
    refused_as(&s, "dave", "host.approve", json_pack("{s:s}", "id", ek), ATT_E_CONFLICT,
               "fourEyes");
    assert_int_equal(at_socket(&s, 1001, "host.approve", json_pack("{s:s}", "id", ek), &why),
                     ATT_E_CONFLICT);
    assert_string_equal(why.reason, "fourEyes");
    /* His it stays when somebody else has banned it, too. */
    rig_ok(
        as(&s, "alice", "host.ban", json_pack("{s:s, s:s}", "id", ek, "reason", "y"), NULL, &err));
    refused_as(&s, "dave", "host.approve", json_pack("{s:s}", "id", ek), ATT_E_CONFLICT,
               "fourEyes");
    refused_as(&s, "alice", "host.approve", json_pack("{s:s}", "id", ek), ATT_E_CONFLICT,
               "fourEyes");
    rig_ok(as(&s, "bob", "host.approve", json_pack("{s:s}", "id", ek), NULL, &err));
    stage_free(&s);
}

/* To ban an approved host and to approve it again changes no label. */
static void a_ban_is_no_way_to_labels(void **state)
{
    (void)state;
    struct stage s;
    stage_enrolled(&s, "none");
    with_admin(&s);
    const char *ek = s.tpm.ek_id;
    refused_as(&s, "bob", "host.approve", json_pack("{s:s, s:s}", "id", ek, "label", "h2"),
               ATT_E_CONFLICT, "fourEyes");
    rig_ok(
        as(&s, "dave", "host.ban", json_pack("{s:s, s:s}", "id", ek, "reason", "x"), NULL, &err));
    refused_as(&s, "dave", "host.approve", json_pack("{s:s}", "id", ek), ATT_E_CONFLICT,
               "fourEyes");
    refused_as(&s, "bob", "host.approve", json_pack("{s:s, s:s}", "id", ek, "label", "h2"),
               ATT_E_CONFLICT, "fourEyes");
    refused_as(&s, "bob", "host.approve",
               json_pack("{s:s, s:{s:s}}", "id", ek, "labels", "zone", "trading"), ATT_E_CONFLICT,
               "fourEyes");
    rig_ok(as(&s, "bob", "host.approve", json_pack("{s:s}", "id", ek), NULL, &err));
    stage_free(&s);
}

static int enrol_with(struct stage *s, const json_t *ticket, char state[16])
{
    struct enrolment e;
    assert_int_equal(client_account(&s->client, ticket), 201);
    int status = rig_m1(&s->client, &s->tpm, NULL, &e);
    if (status == 201) {
        status = rig_m2(&s->client, &s->tpm, &e);
        enrolment_done(&e);
    }
    const json_t *host = json_object_get(s->client.body, "host");
    const char *text = json_string_value(json_object_get(host, "state"));
    snprintf(state, 16, "%s", text ? text : "");
    return status;
}

/* Alice makes a ticket that names the EK: the host registers, and somebody else approves it. */
static void a_ticket_only_registers(void **state)
{
    (void)state;
    struct stage s;
    json_t *made = NULL;
    char now[16];
    stage_new(&s, "none");
    with_admin(&s);
    rig_ok(as(&s, "alice", "ticket.create", json_pack("{s:s}", "ek", s.tpm.ek_id), &made, &err));
    assert_int_equal(enrol_with(&s, json_object_get(made, "ticket"), now), 200);
    assert_string_equal(now, "pending");
    json_decref(made);
    refused_as(&s, "alice", "host.approve", json_pack("{s:s}", "id", s.tpm.ek_id), ATT_E_CONFLICT,
               "fourEyes");
    struct att_err why = {0}; /* the same person over the other transport */
    assert_int_equal(
        at_socket(&s, 1000, "host.approve", json_pack("{s:s}", "id", s.tpm.ek_id), &why),
        ATT_E_CONFLICT);
    assert_string_equal(why.reason, "fourEyes");
    refused_as(&s, "carol", "host.approve", json_pack("{s:s}", "id", s.tpm.ek_id), ATT_E_DENIED,
               "roleMissing");
    rig_ok(as(&s, "bob", "host.approve", json_pack("{s:s, s:s}", "id", s.tpm.ek_id, "label", "h"),
              NULL, &err));
    /* Nor does she let another account take it over. */
    refused_as(&s, "alice", "host.rebind", json_pack("{s:s}", "id", s.tpm.ek_id), ATT_E_CONFLICT,
               "fourEyes");
    stage_free(&s);
}

/* Without the section nothing is different: one person, a ticket, an approved host. */
static void without_the_section_one_is_enough(void **state)
{
    (void)state;
    struct stage s;
    char now[16];
    stage_new(&s, "none");
    json_t *ticket = rig_ticket(&s.rig, s.tpm.ek_id, 1);
    assert_int_equal(enrol_with(&s, ticket, now), 200);
    assert_string_equal(now, "approved");
    json_decref(ticket);
    stage_free(&s);
}

/* An approved host is not taken over by a ticket either. */
static void a_ticket_takes_no_host_over(void **state)
{
    (void)state;
    struct stage s;
    json_t *made = NULL;
    char now[16];
    stage_enrolled(&s, "none");
    with_admin(&s);
    rig_ok(as(&s, "alice", "ticket.create", json_pack("{s:s}", "ek", s.tpm.ek_id), &made, &err));
    struct client other = s.client;
    client_new(&s.client, &s.rig);
    assert_int_not_equal(enrol_with(&s, json_object_get(made, "ticket"), now), 200);
    client_refused(&s.client, "accountMismatch");
    client_free(&s.client);
    s.client = other;
    json_decref(made);
    stage_free(&s);
}

static X509 *issued(struct stage *s, STACK_OF(X509) * *ret_chain)
{
    struct order o;
    EVP_PKEY *key = NULL;
    STACK_OF(X509) *chain = NULL;
    char url[256];
    assert_int_equal(rig_order(&s->client, RIG_NAME, &o), 201);
    s->tpm.clock.clock_ms += 1000;
    assert_string_equal(rig_m4(&s->client, &s->tpm, &o, s->ak), "valid");
    key = s->tpm.base->agent.pkey;
    assert_int_equal(rig_finalize(&s->client, &o, key, FORGE_IDENTIFIER), 200);
    snprintf(url, sizeof url, "%s", client_text(&s->client, "certificate"));
    assert_int_equal(client_get(&s->client, url), 200);
    rig_ok(certs_pem_parse(att_buf_slice(&s->client.last.body), &chain, &err));
    *ret_chain = chain;
    return sk_X509_value(chain, 0);
}

static int ask_with(struct stage *s, X509 *cert, STACK_OF(X509) * chain, const char *body,
                    char reason[40])
{
    struct issuer_admin_answer answer;
    att_autojson *json = NULL;
    const struct issuer_admin_request request = {
        .method = ISSUER_POST,
        .path = ISSUER_ADMIN_PATH,
        .content_type = "application/json",
        .credential = {.cert = cert, .sent = chain, .peer = "192.0.2.7"},
        .body = att_slice_str(body)};
    issuer_admin_answer(s->rig.issuer, &request, &answer);
    rig_ok(att_json_parse(att_buf_slice(&answer.body), 8 << 20, &json, &err));
    const char *text = json_string_value(json_object_get(json_object_get(json, "error"), "reason"));
    snprintf(reason, 40, "%s", text ? text : "");
    att_buf_done(&answer.body);
    return answer.status;
}

static int ask(struct stage *s, X509 *cert, STACK_OF(X509) * chain, const char *op, char reason[40])
{
    char body[80];
    snprintf(body, sizeof body, "{\"op\":\"%s\"}", op);
    return ask_with(s, cert, chain, body, reason);
}

enum wrong { NOTHING, KIND, SUBJECT, BYTES };
struct change {
    const char *serial;
    enum wrong wrong;
    const char *pem; /* of another certificate */
};

/* The row of a certificate, with one thing that is another's. */
static enum att_rc change_row(void *user, struct store_tx *tx, struct att_err *err)
{
    const struct change *c = user;
    struct store_cert row = {0};
    enum att_rc rc = store_get(tx, &store_certs, c->serial, &row, err);
    assert_int_equal(rc, ATT_OK);
    assert_int_equal(store_delete(tx, &store_certs, c->serial, err), ATT_OK);
    assert_true(c->wrong != KIND || issuer_set(&row.kind, "ak"));
    assert_true(c->wrong != SUBJECT ||
                issuer_set(&row.subject, "spiffe://bank.example/agent/other"));
    assert_true(c->wrong != BYTES || issuer_set(&row.pem, c->pem));
    rc = store_insert(tx, &store_certs, &row, err);
    store_record_done(&store_certs, &row);
    return rc;
}

static enum att_rc put_back(void *user, struct store_tx *tx, struct att_err *err)
{
    const struct store_cert *row = user;
    enum att_rc rc = store_delete(tx, &store_certs, row->serial, err);
    return rc ? rc : store_insert(tx, &store_certs, row, err);
}

static enum att_rc read_row(void *user, struct store_tx *tx, struct att_err *err)
{
    struct store_cert *row = user;
    const char *serial = row->serial;
    row->serial = NULL;
    return store_get(tx, &store_certs, serial, row, err);
}

/* A serial that was issued is not enough: it is an agent's, this agent's, and this certificate. */
static void an_agents_certificate_is_the_one_that_was_issued(void **state)
{
    (void)state;
    struct stage s;
    STACK_OF(X509) *chain = NULL;
    char reason[40], serial[64];
    struct certs_cert_info info;
    stage_enrolled(&s, "none");
    rig_time = att_now_utc_s();
    X509 *leaf = issued(&s, &chain);
    with_admin(&s);
    rig_ok(certs_cert_info(leaf, &info, &err));
    snprintf(serial, sizeof serial, "%s", info.serial_hex);
    struct store *store = s.rig.issuer->store;
    struct store_cert row = {.serial = serial};
    rig_ok(store_run(store, false, read_row, &row, &err));
    const char *intermediate = strstr(row.pem + 1, "-----BEGIN CERTIFICATE-----");
    assert_non_null(intermediate);
    for (enum wrong wrong = NOTHING; wrong <= BYTES; wrong++) {
        struct change change = {serial, wrong, intermediate};
        rig_ok(store_run(store, true, change_row, &change, &err));
        assert_int_equal(ask(&s, leaf, chain, "audit.list", reason), wrong ? 401 : 200);
        assert_string_equal(reason, wrong ? "certRevoked" : "");
        rig_ok(store_run(store, true, put_back, &row, &err));
    }
    store_record_done(&store_certs, &row);
    sk_X509_pop_free(chain, X509_free);
    stage_free(&s);
}

#define TPM_ONLY   "one hour\n    lifetime: 1h\n    keys: [tpm]"
#define EXPORTABLE "one hour\n    lifetime: 10m\n    keys: [tpm, exportable]"

/* A key that may have been copied is no credential, however good its certificate is. */
static void an_exportable_key_is_no_credential(void **state)
{
    (void)state;
    struct stage s;
    STACK_OF(X509) *chain = NULL;
    char reason[40], selector[80];
    stage_enrolled(&s, "none");
    snprintf(selector, sizeof selector, "ek:%s", s.tpm.ek_id);
    reconfigure(&s.rig, TPM_ONLY, EXPORTABLE);
    rig_entries_with(&s.rig, selector, "exportable");
    with_admin(&s);
    reconfigure(&s.rig, TPM_ONLY, EXPORTABLE);
    s.tpm.memory = s.tpm.exportable = true;
    rig_time = att_now_utc_s();
    X509 *leaf = issued(&s, &chain);
    assert_int_equal(ask(&s, leaf, chain, "audit.list", reason), 401);
    assert_string_equal(reason, "certExportable");
    sk_X509_pop_free(chain, X509_free);
    stage_free(&s);
}

/* Of an identity that nobody gave a role nothing is read, and not much is recorded. */
static void who_has_no_role_is_not_read(void **state)
{
    (void)state;
    struct stage s;
    STACK_OF(X509) *chain = NULL;
    char reason[40];
    stage_enrolled(&s, "none");
    rig_time = att_now_utc_s();
    X509 *leaf = issued(&s, &chain);
    with_admin(&s);
    assert_int_equal(ask_with(&s, leaf, chain, "{", reason), 400);
    rig_config(&s.rig, "none", ADMIN_NOBODY);
    reload(&s.rig);
    for (int i = 0; i < 40; i++) {
        assert_int_equal(ask_with(&s, leaf, chain, "{", reason), 403);
        assert_string_equal(reason, "roleMissing");
    }
    assert_int_equal(refusals_of(&s, ""), 32);
    sk_X509_pop_free(chain, X509_free);
    stage_free(&s);
}

static void an_agent_is_known_until_it_is_revoked(void **state)
{
    (void)state;
    struct stage s;
    STACK_OF(X509) *chain = NULL;
    char reason[40], serial[64];
    struct certs_cert_info info;
    stage_enrolled(&s, "none");
    rig_time = att_now_utc_s(); /* the CA is of today */
    X509 *leaf = issued(&s, &chain);
    with_admin(&s);
    assert_int_equal(ask(&s, leaf, chain, "audit.list", reason), 200);
    /* Expired, by the issuer's clock. */
    rig_time += 3700;
    assert_int_equal(ask(&s, leaf, chain, "audit.list", reason), 401);
    assert_string_equal(reason, "certExpired");
    rig_time -= 3700;
    /* Without the intermediate there is no path. */
    assert_int_equal(ask(&s, leaf, NULL, "audit.list", reason), 401);
    assert_string_equal(reason, "certUntrusted");
    /* Revocation by those who have other agents, then by its own. */
    rig_ok(certs_cert_info(leaf, &info, &err));
    snprintf(serial, sizeof serial, "%s", info.serial_hex);
    refused_as(&s, "other", "cert.revoke", json_pack("{s:s}", "serial", serial), ATT_E_DENIED,
               "roleScope");
    refused_as(&s, "carol", "cert.revoke", json_pack("{s:s}", "serial", serial), ATT_E_DENIED,
               "roleMissing");
    rig_ok(as(&s, "desk", "cert.revoke", json_pack("{s:s}", "serial", serial), NULL, &err));
    assert_int_equal(ask(&s, leaf, chain, "audit.list", reason), 401);
    assert_string_equal(reason, "certRevoked");
    sk_X509_pop_free(chain, X509_free);
    stage_free(&s);
}

/* Records are erased by two: the CA operator proposes, an auditor approves. */
static void erasing_takes_two_roles(void **state)
{
    (void)state;
    struct stage s;
    stage_new(&s, "none");
    with_admin(&s);
    refused_as(&s, "carol", "audit.erase", json_pack("{s:i, s:s}", "seq", 1, "reason", "x"),
               ATT_E_DENIED, "roleMissing");
    att_autojson *id =
        proposed(&s, "op", "audit.erase", json_pack("{s:i, s:s}", "seq", 1, "reason", "x"));
    refused_as(&s, "bob", "proposal.approve", json_pack("{s:O}", "id", id), ATT_E_DENIED,
               "roleMissing");
    refused_as(&s, "op", "proposal.approve", json_pack("{s:O}", "id", id), ATT_E_CONFLICT,
               "fourEyes");
    refused_as(&s, "op2", "proposal.approve", json_pack("{s:O}", "id", id), ATT_E_DENIED,
               "roleMissing");
    /* It came as far as the erasing itself: the record is not in the published log yet. */
    refused_as(&s, "carol", "proposal.approve", json_pack("{s:O}", "id", id), ATT_E_RETRY,
               "logBehind");
    /* A proposal ends by itself. */
    rig_time += 8 * 86400;
    refused_as(&s, "carol", "proposal.approve", json_pack("{s:O}", "id", id), ATT_E_CONFLICT,
               "proposalClosed");
    rig_time -= 8 * 86400;
    stage_free(&s);
}

/* One who makes proposals without end is stopped, and takes nobody else's room. */
static void proposals_have_room(void **state)
{
    (void)state;
    struct stage s;
    stage_new(&s, "none");
    with_admin(&s);
    for (int i = 0; i < 64; i++) {
        rig_ok(as(&s, "op", "audit.erase", json_pack("{s:i, s:s}", "seq", 1, "reason", "x"), NULL,
                  &err));
    }
    refused_as(&s, "op", "audit.erase", json_pack("{s:i, s:s}", "seq", 1, "reason", "x"),
               ATT_E_CONFLICT, "proposalsFull");
    rig_ok(as(&s, "alice", "policy.mode",
              json_pack("{s:s, s:s}", "profile", "trading", "mode", "warn"), NULL, &err));
    stage_free(&s);
}

static enum att_rc fill_day(void *user, struct store_tx *tx, struct att_err *err)
{
    const int64_t *n = user;
    for (int64_t i = 0; i < *n; i++) {
        char id[40];
        struct store_proposal p = {.created_at = rig_time, .expires_at = rig_time + 3600};
        snprintf(id, sizeof id, "of-today-%03d", (int)i);
        assert_true(issuer_set(&p.id, id) && issuer_set(&p.op, "audit.erase") &&
                    issuer_set(&p.args, "") && issuer_set(&p.sha256, "") &&
                    issuer_set(&p.effect, "") && issuer_set(&p.state, STORE_PROPOSAL_REJECTED) &&
                    issuer_set(&p.by_who, "spiffe://staff.example/op") &&
                    issuer_set(&p.by_id, "spiffe://staff.example/op") &&
                    issuer_set(&p.decided_by, "") && issuer_set(&p.reason, ""));
        enum att_rc rc = store_insert(tx, &store_proposals, &p, err);
        store_record_done(&store_proposals, &p);
        if (rc) {
            return rc;
        }
    }
    return ATT_OK;
}

/* What was decided counts for a day. */
static void proposals_of_a_day_are_bounded(void **state)
{
    (void)state;
    struct stage s;
    int64_t n = 256;
    stage_new(&s, "none");
    with_admin(&s);
    rig_ok(store_run(s.rig.issuer->store, true, fill_day, &n, &err));
    refused_as(&s, "op", "audit.erase", json_pack("{s:i, s:s}", "seq", 1, "reason", "x"),
               ATT_E_CONFLICT, "proposalsFull");
    rig_time += 86400 + 1;
    rig_ok(
        as(&s, "op", "audit.erase", json_pack("{s:i, s:s}", "seq", 1, "reason", "x"), NULL, &err));
    rig_time -= 86400 + 1;
    stage_free(&s);
}

#define LINES_MAX ((size_t)20000)

static char *hosts_csv(size_t lines)
{
    att_autobuf text = {0};
    att_buf_put_str(&text, "ek,label,labels\n");
    for (size_t i = 0; i < lines; i++) {
        att_buf_printf(&text, "%064zx,,\n", i + 1);
    }
    char *copy = strdup(att_buf_cstr(&text));
    assert_non_null(copy);
    return copy;
}

/* What is proposed can be shown, and is gone when it was decided; what is too big is not made. */
static void a_proposal_can_be_read(void **state)
{
    (void)state;
    struct stage s;
    json_t *made = NULL, *shown = NULL;
    char *big = hosts_csv(LINES_MAX), *fits = hosts_csv(10000);
    stage_new(&s, "none");
    with_admin(&s);
    refused_as(&s, "alice", "host.import", json_pack("{s:s}", "text", big), ATT_E_LIMIT,
               "proposalSize");
    struct att_err why = {0};
    assert_int_equal(
        as(&s, "alice", "host.import", json_pack("{s:s}", "text", "ek,label,labels\n"), NULL, &why),
        ATT_E_PARSE);
    rig_ok(as(&s, "alice", "host.import", json_pack("{s:s}", "text", fits), &made, &err));
    json_t *id = proposal_id(made);
    rig_ok(as(&s, "bob", "proposal.show", json_pack("{s:O}", "id", id), &shown, &err));
    assert_string_equal(json_string_value(json_object_get(json_object_get(shown, "args"), "text")),
                        fits);
    json_decref(shown);
    rig_ok(as(&s, "bob", "proposal.reject", json_pack("{s:O, s:s}", "id", id, "reason", "x"), NULL,
              &err));
    rig_ok(as(&s, "bob", "proposal.show", json_pack("{s:O}", "id", id), &shown, &err));
    assert_null(json_object_get(shown, "args"));
    assert_int_equal(json_string_length(json_object_get(shown, "sha256")), 64);
    json_decref(shown);
    json_decref(id);
    free(big);
    free(fits);
    stage_free(&s);
}

static enum att_rc spoil(void *user, struct store_tx *tx, struct att_err *err)
{
    struct store_proposal p = {0};
    enum att_rc rc = store_get(tx, &store_proposals, json_string_value(user), &p, err);
    rc = rc                                 ? rc
         : issuer_set(&p.args, "{\"y\":1}") ? store_put(tx, &store_proposals, &p, err)
                                            : ATT_E_NOMEM;
    store_record_done(&store_proposals, &p);
    return rc;
}

/* Who rejects could have approved; a proposal that nobody can read can be rejected. */
static void who_rejects_has_its_reach(void **state)
{
    (void)state;
    struct stage s;
    json_t *made = NULL, *shown = NULL;
    stage_new(&s, "none");
    with_admin(&s);
    rig_ok(as(&s, "alice", "policy.mode",
              json_pack("{s:s, s:s}", "profile", "trading", "mode", "warn"), &made, &err));
    json_t *mode = proposal_id(made);
    rig_ok(as(&s, "alice", "host.import",
              json_pack("{s:s}", "text",
                        "ek,label,labels\n"
                        "00000000000000000000000000000000000000000000000000000000000000bb,,\n"),
              &made, &err));
    json_t *hosts = proposal_id(made);
    refused_as(&s, "west", "proposal.reject", json_pack("{s:O, s:s}", "id", mode, "reason", "x"),
               ATT_E_DENIED, "roleScope");
    refused_as(&s, "west", "proposal.reject", json_pack("{s:O, s:s}", "id", hosts, "reason", "x"),
               ATT_E_DENIED, "roleScope");
    rig_ok(store_run(s.rig.issuer->store, true, spoil, hosts, &err));
    refused_as(&s, "west", "proposal.reject", json_pack("{s:O, s:s}", "id", hosts, "reason", "x"),
               ATT_E_DENIED, "roleScope");
    rig_ok(as(&s, "bob", "proposal.show", json_pack("{s:O}", "id", hosts), &shown, &err));
    assert_non_null(json_object_get(shown, "wouldFail"));
    json_decref(shown);
    rig_ok(as(&s, "bob", "proposal.reject", json_pack("{s:O, s:s}", "id", hosts, "reason", "x"),
              NULL, &err));
    /* And what a proposal did says whose it was. */
    rig_ok(as(&s, "bob", "proposal.approve", json_pack("{s:O}", "id", mode), NULL, &err));
    json_t *listed = rig_admin(&s.rig, "audit.list", json_pack("{s:s}", "kind", "policyMode"));
    const json_t *record =
        json_object_get(json_array_get(json_object_get(listed, "records"), 0), "record");
    assert_string_equal(json_string_value(json_object_get(record, "proposedBy")), "person:alice");
    json_decref(listed);
    json_decref(mode);
    json_decref(hosts);
    stage_free(&s);
}

/* Refusals are recorded, and no more than so many of one in ten minutes. */
static void refusals_are_bounded(void **state)
{
    (void)state;
    struct stage s;
    stage_new(&s, "none");
    with_admin(&s);
    char reason[40];
    for (int i = 0; i < 200; i++) {
        refused_as(&s, "carol", "host.evict", json_pack("{s:s}", "id", "x"), ATT_E_DENIED,
                   "roleMissing");
        assert_int_equal(ask(&s, NULL, NULL, "status", reason), 401);
        assert_string_equal(reason, "certMissing");
    }
    json_t *listed =
        rig_admin(&s.rig, "audit.list", json_pack("{s:s, s:i}", "kind", "admin", "limit", 1000));
    size_t i, known = 0, strangers = 0;
    json_t *row;
    json_array_foreach(json_object_get(listed, "records"), i, row)
    {
        const json_t *record = json_object_get(row, "record");
        const char *who = json_string_value(json_object_get(record, "principal"));
        known += strcmp(who, "spiffe://staff.example/carol") == 0;
        strangers += who[0] == 0;
    }
    assert_int_equal(known, 128);
    assert_int_equal(strangers, 32);
    json_decref(listed);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_operation_has_its_roles),
        cmocka_unit_test(a_ban_is_lifted_by_somebody_else),
        cmocka_unit_test(a_ban_is_no_way_to_labels),
        cmocka_unit_test(a_ticket_only_registers),
        cmocka_unit_test(without_the_section_one_is_enough),
        cmocka_unit_test(a_ticket_takes_no_host_over),
        cmocka_unit_test(an_agent_is_known_until_it_is_revoked),
        cmocka_unit_test(erasing_takes_two_roles),
        cmocka_unit_test(proposals_have_room),
        cmocka_unit_test(proposals_of_a_day_are_bounded),
        cmocka_unit_test(a_proposal_can_be_read),
        cmocka_unit_test(who_rejects_has_its_reach),
        cmocka_unit_test(refusals_are_bounded),
        cmocka_unit_test(an_agents_certificate_is_the_one_that_was_issued),
        cmocka_unit_test(an_exportable_key_is_no_credential),
        cmocka_unit_test(who_has_no_role_is_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
