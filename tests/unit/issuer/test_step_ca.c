/* The attestation CA's endpoints in Smallstep's dialect: what they give is good for permanent
 * identifiers and for nothing else, and each thing that is asked of EK, AK, host and solution
 * refuses alone. The real client: tests/interop/test_step_client.sh. */
#include "tests/unit/issuer/stage.h"

#include "provision/evidence/attobj.h"
#include "provision/store/store_internal.h"

#define URL_ATTEST "/acme/attestation-ca/attest"
#define URL_SECRET "/acme/attestation-ca/secret"

static void stage_step(struct stage *s)
{
    forge_shift_s = att_now_utc_s() + 60 - FORGE_NOW;
    stage_new(s, "none");
    rig_time = FORGE_NOW + forge_shift_s;
    stage_enrol(s);
    reconfigure(&s->rig, "trust_domain: ",
                "devices:\n  profiles: [ { name: device } ]\n  attestation_ca: true\n"
                "trust_domain: ");
    restart_with_names(&s->rig);
    /* The dialect has no member for the maker's intermediates. */
    rig_pem(s->rig.dir, "ek/intermediate.pem", s->tpm.base->maker_ca);
    reload(&s->rig);
}

struct reply {
    int status;
    char phrase[40];
    json_t *body;
};

static void ask_as(struct rig *r, const char *path, const char *body, const char *peer,
                   enum issuer_method method, struct reply *ret)
{
    struct issuer_request request = {
        .method = method, .path = path, .body = att_slice_str(body), .peer = peer};
    struct issuer_response response;
    json_decref(ret->body);
    ret->body = NULL;
    issuer_handle(r->issuer, &request, &response);
    ret->status = response.status;
    memcpy(ret->phrase, response.phrase, sizeof ret->phrase);
    if (response.body.len) {
        rig_ok(att_json_parse(att_buf_slice(&response.body), 1 << 20, &ret->body, &err));
    }
    issuer_response_done(&response);
}

static void ask(struct rig *r, const char *path, const char *body, struct reply *ret)
{
    ask_as(r, path, body, NULL, ISSUER_POST, ret);
}

static void refused(const struct reply *reply, int status, const char *reason)
{
    const char *detail = issuer_string(reply->body, "detail");
    if (reply->status != status || strncmp(detail, reason, strlen(reason)) != 0) {
        print_error("expected %d %s, got %d %s\n", status, reason, reply->status, detail);
    }
    assert_int_equal(reply->status, status);
    assert_int_equal(strncmp(detail, reason, strlen(reason)), 0);
    /* What step shows its user: the status line. */
    assert_string_equal(reply->phrase, reason);
}

static void set_b64(json_t *obj, const char *name, struct att_slice bytes)
{
    att_autobuf text = {0};
    att_buf_b64(&text, bytes);
    json_object_set_new(obj, name, json_string(att_buf_cstr(&text)));
}

/* What a test makes wrong. */
struct how {
    EVP_PKEY *ek;                  /* named instead of the TPM's */
    const struct att_buf *ek_cert; /* NULL: the TPM's */
    uint32_t ak_clear, ak_set;     /* attributes of the AK */
    uint16_t type;                 /* of the statement; 0: TPM_ST_ATTEST_CREATION */
    bool other_data;               /* creation data that was not certified */
    bool other_name;               /* the statement is of another key */
    EVP_PKEY *signer;              /* of the statement */
    int version;                   /* 0: 2 */
};

static json_t *attest_body(struct tpm *t, const struct how *how)
{
    att_autobuf ek = {0}, area = {0}, made = {0}, sig = {0}, cert = {0};
    static const uint8_t data[] = "creation data", other[] = "other data";
    uint8_t digest[ATT_SHA256_LEN];
    struct parse_public ak = t->base->ak.pub;
    struct parse_name name;
    ak.attrs = (ak.attrs & ~how->ak_clear) | how->ak_set;
    forge_spki(how->ek ? how->ek : t->base->ek.pkey, &ek);
    rig_ok(parse_public_encode(&ak, &area, &err));
    rig_ok(parse_name_of_area(att_buf_slice(how->other_name ? &t->base->srk.area : &area), &name,
                              &err));
    att_sha256(digest, ATT_SLICE_ARRAY(data));
    struct parse_attest attest = {.magic = PARSE_MAGIC,
                                  .type = how->type ? how->type : PARSE_ATTEST_CREATION};
    attest.u.creation.object_name = parse_name_slice(&name);
    attest.u.creation.creation_hash = ATT_SLICE_ARRAY(digest);
    rig_ok(parse_attest_encode(&attest, &made, &err));
    forge_sign(how->signer ? how->signer : t->base->ak.pkey, PARSE_ALG_SHA256, att_buf_slice(&made),
               &sig);
    put(&cert, att_buf_slice(how->ek_cert ? how->ek_cert : &t->base->ek_cert));
    json_t *params = json_object(), *certs = json_object(), *body = json_object();
    set_b64(params, "public", att_buf_slice(&area));
    set_b64(params, "createData", how->other_data ? ATT_SLICE_ARRAY(other) : ATT_SLICE_ARRAY(data));
    set_b64(params, "createAttestation", att_buf_slice(&made));
    set_b64(params, "createSignature", att_buf_slice(&sig));
    set_b64(certs, "c", att_buf_slice(&cert));
    set_b64(body, "ek", att_buf_slice(&ek));
    json_object_set_new(body, "tpmInfo",
                        json_pack("{s:i, s:s, s:s, s:s}", "version",
                                  how->version ? how->version : 2, "manufacturer", "1229081856",
                                  "model", "m", "firmwareVersion", "1.2"));
    json_object_set_new(body, "ekCerts", json_pack("[O]", json_object_get(certs, "c")));
    json_object_set_new(body, "params", params);
    json_decref(certs);
    return body;
}

static void attest_as(struct rig *r, struct tpm *t, const struct how *how, const char *peer,
                      struct reply *ret)
{
    json_t *body = attest_body(t, how);
    issuer_autofree *text = issuer_json_text(body);
    ask_as(r, URL_ATTEST, text, peer, ISSUER_POST, ret);
    json_decref(body);
}

static void attest(struct rig *r, struct tpm *t, const struct how *how, struct reply *ret)
{
    attest_as(r, t, how, NULL, ret);
}

/* TPM2_ActivateCredential, as what POST secret wants. */
static char *solve(struct tpm *t, const struct reply *reply)
{
    att_autobuf credential = {0}, secret = {0};
    uint8_t cv[32];
    rig_ok(att_unb64(&credential, att_slice_str(issuer_string(reply->body, "credential")), &err));
    rig_ok(att_unb64(&secret, att_slice_str(issuer_string(reply->body, "secret")), &err));
    assert_true(tpm_activate(t, att_buf_slice(&credential), att_buf_slice(&secret), cv));
    json_t *body = json_object();
    set_b64(body, "secret", ATT_SLICE_ARRAY(cv));
    char *text = issuer_json_text(body);
    json_decref(body);
    return text;
}

static void enrolled(struct stage *s, struct att_buf *ret_der)
{
    struct reply reply = {0};
    attest(&s->rig, &s->tpm, &(struct how){0}, &reply);
    assert_int_equal(reply.status, 200);
    issuer_autofree *solution = solve(&s->tpm, &reply);
    ask(&s->rig, URL_SECRET, solution, &reply);
    assert_int_equal(reply.status, 200);
    const json_t *chain = json_object_get(reply.body, "chain");
    assert_int_equal(json_array_size(chain), 2);
    rig_ok(att_unb64(ret_der, att_slice_str(json_string_value(json_array_get(chain, 0))), &err));
    json_decref(reply.body);
}

/* ---- what is given, and what it is good for ---- */

static const char *device(struct stage *s, struct client *c, const struct att_buf *ak_cert)
{
    char payload[256], key_auth[256], url[256], token[128];
    att_autobuf chain = {0}, cbor = {0}, text = {0}, out = {0};
    snprintf(payload, sizeof payload,
             "{\"identifiers\":[{\"type\":\"permanent-identifier\",\"value\":\"%s\"}]}",
             s->tpm.ek_id);
    assert_int_equal(client_post_text(c, RIG_URL "/newOrder", payload), 201);
    rig_copy(url, sizeof url,
             json_string_value(json_array_get(json_object_get(c->body, "authorizations"), 0)));
    assert_int_equal(client_get(c, url), 200);
    const json_t *challenge = json_array_get(json_object_get(c->body, "challenges"), 0);
    rig_copy(token, sizeof token, issuer_string(challenge, "token"));
    rig_copy(url, sizeof url, issuer_string(challenge, "url"));
    snprintf(key_auth, sizeof key_auth, "%s.%s", token, c->thumbprint);
    struct forge *f = forge_new(FORGE_EK_RSA, FORGE_ORDER);
    f->key_authorization = f->quoted_key_authorization = f->certified_key_authorization = key_auth;
    rig_tpm = &s->tpm;
    forge_build(f, tpm_stage);
    rig_ok(certs_cert_der(s->rig.issuer->ca->attest_ca, &chain, &err));
    struct evidence_attobj obj = {.x5c = {att_buf_slice(ak_cert), att_buf_slice(&chain)},
                                  .x5c_len = 2,
                                  .alg = EVIDENCE_COSE_ES256,
                                  .sig = att_buf_slice(&f->certify_sig),
                                  .cert_info = att_buf_slice(&f->certify_bytes),
                                  .pub_area = att_buf_slice(&f->agent.area)};
    rig_ok(evidence_attobj_encode(&obj, &cbor, &err));
    att_buf_b64u(&text, att_buf_slice(&cbor));
    att_buf_put_str(&out, "{\"attObj\":\"");
    att_buf_put_str(&out, att_buf_cstr(&text));
    att_buf_put_str(&out, "\"}");
    forge_free(f);
    return client_post(c, url, false, att_buf_slice(&out)) == 200 ? client_text(c, "status") : "";
}

struct row {
    char serial[64], status[32];
    bool set_intent;
};

/* The endpoints' AK certificate; made an intent again, as an issuer that died leaves it. */
static enum att_rc find_ak(void *user, const void *record, struct att_err *err)
{
    struct row *row = user;
    const struct store_cert *cert = record;
    (void)err;
    if (strcmp(cert->kind, "ak") == 0 && !cert->account[0]) {
        snprintf(row->serial, sizeof row->serial, "%s", cert->serial);
        snprintf(row->status, sizeof row->status, "%s", cert->status);
    }
    return ATT_OK;
}

static enum att_rc look_at_ak(void *user, struct store_tx *tx, struct att_err *err)
{
    struct row *row = user;
    struct store_cert cert = {0};
    enum att_rc rc = store_each(tx, &store_certs, NULL, NULL, find_ak, row, err);
    if (rc || !row->set_intent) {
        return rc;
    }
    rc = store_get(tx, &store_certs, row->serial, &cert, err);
    if (!rc) {
        rc = issuer_set(&cert.status, STORE_CERT_INTENT) && issuer_set(&cert.pem, "")
                 ? store_put(tx, &store_certs, &cert, err)
                 : ATT_E_NOMEM;
    }
    store_record_done(&store_certs, &cert);
    return rc;
}

static void ak_is(struct rig *r, const char *status)
{
    struct row row = {.set_intent = false};
    rig_ok(store_run(r->issuer->store, false, look_at_ak, &row, &err));
    assert_string_equal(row.status, status);
}

static void given(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    att_autobuf der = {0};
    stage_step(&s);
    enrolled(&s, &der);
    certs_autox509 *cert = NULL;
    char id[VERIFY_ID_HEX];
    rig_ok(certs_cert_parse(att_buf_slice(&der), &cert, &err));
    rig_ok(certs_ak_ek_id(cert, id, &err));
    assert_string_equal(id, s.tpm.ek_id);
    rig_ok(certs_cert_matches_key(cert, s.tpm.base->ak.pkey, &err));
    assert_string_equal(device(&s, &s.client, &der), "valid");
    /* Never an agent's: M4 asks for the AK certificate of the enrolment. */
    att_buf_reset(&s.tpm.ak_cert);
    put(&s.tpm.ak_cert, att_buf_slice(&der));
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "invalid");
    client_refused(&s.client, "akUnknown");
    assert_int_equal(rig_rows(&s.rig, &store_certs), 0);
    /* A ban ends it with the rest. */
    ak_is(&s.rig, STORE_CERT_ISSUED);
    rig_admin_done(&s.rig, "host.ban", json_pack("{s:s, s:s}", "id", s.tpm.ek_id, "reason", "x"));
    ak_is(&s.rig, STORE_CERT_REVOKED);
    stage_free(&s);
}

static void off(void **state)
{
    (void)state;
    struct stage s;
    struct reply reply = {0};
    stage_new(&s, "none");
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    assert_int_equal(reply.status, 404);
    ask(&s.rig, URL_SECRET, "{}", &reply);
    assert_int_equal(reply.status, 404);
    stage_free(&s);
    stage_step(&s);
    ask_as(&s.rig, URL_ATTEST, "", NULL, ISSUER_GET, &reply);
    assert_int_equal(reply.status, 405);
    ask(&s.rig, "/acme/attestation-ca/other", "{}", &reply);
    assert_int_equal(reply.status, 404);
    /* Permanent identifiers alone do not open them. */
    reconfigure(&s.rig, "  attestation_ca: true\n", "");
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    assert_int_equal(reply.status, 404);
    json_decref(reply.body);
    stage_free(&s);
}

/* ---- EK and AK ---- */

static void keys(void **state)
{
    (void)state;
    struct stage s;
    struct reply reply = {0};
    EVP_PKEY *other = forge_p256();
    stage_step(&s);
    struct forge *foreign = forge_new(FORGE_EK_RSA, FORGE_ENROL); /* another maker, the same EK */
    forge_build(foreign, NULL);
    const struct {
        struct how how;
        const char *reason;
    } cases[] = {
        {{.ek = other}, "ekCertMismatch"},
        {{.ek_cert = &foreign->ek_cert}, "ekChain"},
        {{.ak_clear = PARSE_OA_RESTRICTED}, "akAttributes"},
        {{.ak_clear = PARSE_OA_FIXED_TPM}, "akAttributes"},
        {{.ak_clear = PARSE_OA_SENSITIVE_DATA_ORIGIN}, "akAttributes"},
        {{.ak_set = PARSE_OA_ENCRYPTED_DUPLICATION}, "akAttributes"},
        {{.type = PARSE_ATTEST_CERTIFY}, "certifyType"},
        {{.other_data = true}, "certifyName"},
        {{.other_name = true}, "certifyName"},
        {{.signer = other}, "certifySignature"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        attest(&s.rig, &s.tpm, &cases[i].how, &reply);
        refused(&reply, 403, cases[i].reason);
    }
    json_decref(reply.body);
    forge_free(foreign);
    EVP_PKEY_free(other);
    stage_free(&s);
}

static void forms(void **state)
{
    (void)state;
    struct stage s;
    struct reply reply = {0};
    stage_step(&s);
    static const char *const members[] = {"tpmInfo", "ek", "ekCerts", "params"};
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        json_t *body = attest_body(&s.tpm, &(struct how){0});
        json_object_del(body, members[i]);
        issuer_autofree *text = issuer_json_text(body);
        ask(&s.rig, URL_ATTEST, text, &reply);
        refused(&reply, 400, "malformed");
        json_decref(body);
    }
    /* Never without a certificate of the EK. */
    json_t *body = attest_body(&s.tpm, &(struct how){0});
    json_object_set_new(body, "ekCerts", json_array());
    issuer_autofree *none = issuer_json_text(body);
    ask(&s.rig, URL_ATTEST, none, &reply);
    refused(&reply, 400, "malformed");
    json_decref(body);
    attest(&s.rig, &s.tpm, &(struct how){.version = 1}, &reply);
    refused(&reply, 400, "malformed");
    ask(&s.rig, URL_SECRET, "{\"secret\":\"AAAA\"}", &reply);
    refused(&reply, 400, "malformed");
    ask(&s.rig, URL_SECRET, "x", &reply);
    refused(&reply, 400, "malformed");
    json_decref(reply.body);
    stage_free(&s);
}

/* ---- hosts ---- */

static void hosts(void **state)
{
    (void)state;
    struct stage s;
    struct tpm tpm;
    struct reply reply = {0};
    stage_step(&s);
    tpm_new_other(&tpm);
    rig_pem(s.rig.dir, "ek/other.pem", tpm.base->maker_root);
    rig_pem(s.rig.dir, "ek/other-ca.pem", tpm.base->maker_ca);
    reload(&s.rig);
    attest(&s.rig, &tpm, &(struct how){0}, &reply);
    refused(&reply, 403, "hostUnknown"); /* whoever has a genuine TPM is not let in by that */
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    assert_int_equal(reply.status, 200);
    issuer_autofree *solution = solve(&s.tpm, &reply);
    rig_admin_done(&s.rig, "host.ban", json_pack("{s:s, s:s}", "id", s.tpm.ek_id, "reason", "x"));
    ask(&s.rig, URL_SECRET, solution, &reply);
    refused(&reply, 403, "hostBanned");
    rig_audited(&s.rig, "refused", "hostBanned"); /* its TPM asked */
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    refused(&reply, 403, "hostBanned");
    json_decref(reply.body);
    tpm_free(&tpm);
    stage_free(&s);
}

#define OTHER_EK "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

static enum att_rc claim_ek(void *user, struct store_tx *tx, struct att_err *err)
{
    char id[160], ek[VERIFY_ID_HEX], host[] = OTHER_EK;
    rig_copy(ek, sizeof ek, user);
    snprintf(id, sizeof id, "%s@%s", ek, host);
    struct store_ek_claim claim = {.id = id, .ek = ek, .host = host};
    return store_put(tx, &store_ek_claims, &claim, err);
}

/* A banned host lists this EK: perhaps it is the same TPM. An operator who knows it is not says so
 * by host.approve. */
static void banned_elsewhere(void **state)
{
    (void)state;
    struct stage s;
    struct reply reply = {0};
    att_autobuf der = {0};
    stage_step(&s);
    enrolled(&s, &der);
    assert_string_equal(device(&s, &s.client, &der), "valid");
    rig_admin_done(&s.rig, "host.ban", json_pack("{s:s, s:s}", "id", OTHER_EK, "reason", "x"));
    rig_ok(store_run(s.rig.issuer->store, true, claim_ek, s.tpm.ek_id, &err));
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    refused(&reply, 403, "hostBanned");
    assert_string_equal(device(&s, &s.client, &der), "invalid");
    client_refused(&s.client, "hostBanned");
    rig_time++;
    rig_admin_done(&s.rig, "host.approve", json_pack("{s:s}", "id", s.tpm.ek_id));
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    assert_int_equal(reply.status, 200);
    assert_string_equal(device(&s, &s.client, &der), "valid");
    json_decref(reply.body);
    stage_free(&s);
}

static void deny(struct stage *s, const char *old, const char *rule)
{
    char before[400], after[400], path[200];
    snprintf(path, sizeof path, "  roots_dir: %s/ek\n", s->rig.dir);
    snprintf(before, sizeof before, "%s%s", path, old);
    snprintf(after, sizeof after, "%s%s", path, rule);
    reconfigure(&s->rig, before, after);
}

#define RULE(version) "  deny:\n    - { manufacturer: IBM, versions: [\"" version "\"] }\n"

/* Two parts of the version are known at most, and the host says them: a finer rule denies what it
 * may be about; at attest, at secret, and of an AK that is there. */
static void firmware(void **state)
{
    (void)state;
    struct stage s;
    struct reply reply = {0};
    att_autobuf der = {0};
    stage_step(&s);
    enrolled(&s, &der);
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    issuer_autofree *solution = solve(&s.tpm, &reply);
    deny(&s, "", RULE("1.3.0.7"));
    assert_string_equal(device(&s, &s.client, &der), "valid");
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    assert_int_equal(reply.status, 200);
    deny(&s, RULE("1.3.0.7"), RULE("1.2.0.7"));
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    refused(&reply, 403, "firmwareDenied");
    ask(&s.rig, URL_SECRET, solution, &reply);
    refused(&reply, 403, "firmwareDenied");
    assert_string_equal(device(&s, &s.client, &der), "invalid");
    client_refused(&s.client, "firmwareDenied");
    json_decref(reply.body);
    stage_free(&s);
}

/* ---- solutions ---- */

/* Its certificate was decided and not signed: who comes next signs it. */
static void left_behind(void **state)
{
    (void)state;
    struct stage s;
    att_autobuf der = {0};
    size_t left = 0;
    struct row row = {.set_intent = true};
    stage_step(&s);
    enrolled(&s, &der);
    rig_ok(store_run(s.rig.issuer->store, true, look_at_ak, &row, &err));
    ak_is(&s.rig, STORE_CERT_INTENT);
    rig_ok(issuer_intent_recover(s.rig.issuer, false, &left, &err));
    assert_int_equal(left, 0);
    ak_is(&s.rig, STORE_CERT_ISSUED);
    stage_free(&s);
}

static const struct store_db_ops *real;
static unsigned writes;
static bool away;

static enum att_rc watched_begin(struct store_db *db, enum store_mode mode,
                                 struct store_con **ret_con, struct att_err *err)
{
    writes += mode != STORE_READ;
    return away && mode != STORE_READ
               ? att_fail(err, ATT_E_UNREACHABLE, "the database of HOST went away")
               : real->begin(db, mode, ret_con, err);
}

static bool deaf; /* what is committed is not answered */

static enum att_rc begin_write(struct store_db *db, enum store_mode mode,
                               struct store_con **ret_con, struct att_err *err)
{
    deaf = mode != STORE_READ;
    return real->begin(db, mode, ret_con, err);
}

static enum att_rc watched_commit(struct store_con *con, struct att_err *err)
{
    enum att_rc rc = real->commit(con, err);
    return rc || !deaf ? rc : att_fail(err, ATT_E_UNREACHABLE, "no answer");
}

/* The decision stands although nobody was told: it is signed without a further request. */
static void unanswered(void **state)
{
    (void)state;
    struct stage s;
    struct reply reply = {0};
    struct store_db_ops watched;
    stage_step(&s);
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    issuer_autofree *solution = solve(&s.tpm, &reply);
    real = s.rig.issuer->store->ops;
    watched = *real;
    watched.begin = begin_write;
    watched.commit = watched_commit;
    s.rig.issuer->store->ops = &watched;
    ask(&s.rig, URL_SECRET, solution, &reply);
    assert_int_equal(reply.status, 503);
    s.rig.issuer->store->ops = real;
    ak_is(&s.rig, STORE_CERT_INTENT);
    s.rig.issuer->intent_try_ms = 0;
    issuer_intent_tick(s.rig.issuer);
    ak_is(&s.rig, STORE_CERT_ISSUED);
    json_decref(reply.body);
    stage_free(&s);
}

/* Our own troubles burn no solution, and tell nothing of the inside; a stranger takes no writer's
 * turn. */
static void store_away(void **state)
{
    (void)state;
    struct stage s;
    struct reply reply = {0};
    struct store_db_ops watched;
    stage_step(&s);
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    issuer_autofree *solution = solve(&s.tpm, &reply);
    real = s.rig.issuer->store->ops;
    watched = *real;
    watched.begin = watched_begin;
    s.rig.issuer->store->ops = &watched;
    away = true;
    ask(&s.rig, URL_SECRET, solution, &reply);
    assert_int_equal(reply.status, 503);
    assert_null(strstr(issuer_string(reply.body, "detail"), "HOST"));
    away = false;
    writes = 0;
    ask(&s.rig, URL_SECRET, "{\"secret\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"}",
        &reply);
    refused(&reply, 403, "activation");
    assert_int_equal(writes, 0);
    ask(&s.rig, URL_SECRET, solution, &reply);
    assert_int_equal(reply.status, 200);
    s.rig.issuer->store->ops = real;
    json_decref(reply.body);
    stage_free(&s);
}

static void solutions(void **state)
{
    (void)state;
    struct stage s;
    struct reply reply = {0};
    stage_step(&s);
    ask(&s.rig, URL_SECRET, "{\"secret\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"}",
        &reply);
    refused(&reply, 403, "activation");
    /* Once. */
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    issuer_autofree *first = solve(&s.tpm, &reply);
    ask(&s.rig, URL_SECRET, first, &reply);
    assert_int_equal(reply.status, 200);
    ask(&s.rig, URL_SECRET, first, &reply);
    refused(&reply, 403, "activation");
    /* In time. */
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    issuer_autofree *late = solve(&s.tpm, &reply);
    rig_time += ISSUER_AK_PENDING_S;
    ask(&s.rig, URL_SECRET, late, &reply);
    refused(&reply, 403, "activation");
    json_decref(reply.body);
    stage_free(&s);
}

static void bounded(void **state)
{
    (void)state;
    struct stage s;
    struct reply reply = {0};
    stage_step(&s);
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    issuer_autofree *oldest = solve(&s.tpm, &reply);
    for (int i = 0; i < STORE_STEP_OF_SOURCE; i++) {
        attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
        assert_int_equal(reply.status, 200);
    }
    issuer_autofree *newest = solve(&s.tpm, &reply);
    assert_int_equal(rig_rows(&s.rig, &store_step_pending), STORE_STEP_OF_SOURCE);
    ask(&s.rig, URL_SECRET, oldest, &reply);
    refused(&reply, 403, "activation");
    ask(&s.rig, URL_SECRET, newest, &reply);
    assert_int_equal(reply.status, 200);
    for (int i = 0; i < CONF_LIMIT_STEP; i++) {
        ask_as(&s.rig, URL_SECRET, "x", "192.0.2.1", ISSUER_POST, &reply);
        assert_int_equal(reply.status, 400);
    }
    ask_as(&s.rig, URL_SECRET, "x", "192.0.2.1", ISSUER_POST, &reply);
    assert_int_equal(reply.status, 429);
    ask_as(&s.rig, URL_SECRET, "x", "192.0.2.2", ISSUER_POST, &reply);
    assert_int_equal(reply.status, 400);
    json_decref(reply.body);
    stage_free(&s);
}

static enum att_rc fill(void *user, struct store_tx *tx, struct att_err *why)
{
    (void)user;
    enum att_rc rc = ATT_OK;
    for (int i = 0; rc == ATT_OK && i < STORE_STEP_MAX; i++) {
        char secret[16], ek[16];
        snprintf(secret, sizeof secret, "s%d", i);
        snprintf(ek, sizeof ek, "e%d", i);
        struct store_step row = {.secret = secret,
                                 .ek = ek,
                                 .source = (char[]){""},
                                 .facts = (char[]){"{}"},
                                 .seq = i + 1,
                                 .created_at = rig_time,
                                 .expires_at = rig_time + 60};
        rc = store_insert(tx, &store_step_pending, &row, why);
    }
    return rc;
}

/* Of other EKs there are as many as are kept: nobody's gives way, until their time is over. */
static void full(void **state)
{
    (void)state;
    struct stage s;
    struct reply reply = {0};
    stage_step(&s);
    rig_ok(store_run(s.rig.issuer->store, true, fill, NULL, &err));
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    refused(&reply, 429, "stepFull");
    assert_int_equal(rig_rows(&s.rig, &store_step_pending), STORE_STEP_MAX);
    rig_time += 60;
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    assert_int_equal(reply.status, 200);
    json_decref(reply.body);
    stage_free(&s);
}

/* Who names another's EK drives its own requests out, not the host's. */
static void strangers(void **state)
{
    (void)state;
    struct stage s;
    struct reply reply = {0};
    stage_step(&s);
    attest_as(&s.rig, &s.tpm, &(struct how){0}, "192.0.2.1", &reply);
    issuer_autofree *mine = solve(&s.tpm, &reply);
    for (int i = 0; i < 3 * STORE_STEP_OF_SOURCE; i++) {
        attest_as(&s.rig, &s.tpm, &(struct how){0}, "192.0.2.2", &reply);
        assert_int_equal(reply.status, 200);
    }
    ask_as(&s.rig, URL_SECRET, mine, "192.0.2.1", ISSUER_POST, &reply);
    assert_int_equal(reply.status, 200);
    json_decref(reply.body);
    stage_free(&s);
}

static void limits(void **state)
{
    (void)state;
    struct stage s;
    struct reply reply = {0};
    att_autobuf der = {0};
    stage_step(&s);
    reconfigure(&s.rig, "trust_domain: ", "limits: { address_step: 0 }\ntrust_domain: ");
    for (int i = 0; i <= CONF_LIMIT_STEP; i++) {
        ask_as(&s.rig, URL_SECRET, "x", "192.0.2.1", ISSUER_POST, &reply);
        assert_int_equal(reply.status, 400);
    }
    for (int i = 0; i < ISSUER_RECENT_STEP_AKS; i++) {
        att_buf_reset(&der);
        enrolled(&s, &der);
    }
    attest(&s.rig, &s.tpm, &(struct how){0}, &reply);
    issuer_autofree *solution = solve(&s.tpm, &reply);
    ask(&s.rig, URL_SECRET, solution, &reply);
    refused(&reply, 429, "hostStep");
    json_decref(reply.body);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given),
        cmocka_unit_test(off),
        cmocka_unit_test(keys),
        cmocka_unit_test(forms),
        cmocka_unit_test(hosts),
        cmocka_unit_test(solutions),
        cmocka_unit_test(bounded),
        cmocka_unit_test(full),
        cmocka_unit_test(banned_elsewhere),
        cmocka_unit_test(firmware),
        cmocka_unit_test(left_behind),
        cmocka_unit_test(store_away),
        cmocka_unit_test(strangers),
        cmocka_unit_test(limits),
        cmocka_unit_test(unanswered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
