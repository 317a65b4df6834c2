/* Certificates for permanent identifiers: a stock device-attest-01 client with an AK certificate of
 * ours. Each check of the statement, of the store and of the CSR refuses alone, by its name; and no
 * way leads from here to an agent's name. */
#include "provision/store/store_internal.h"
#include "tests/unit/issuer/device.h"

/* ---- what is given ---- */

static void given(void **state)
{
    (void)state;
    struct stage s;
    struct client c;
    struct order o;
    stage_devices(&s);
    stranger(&s, &c);
    ready(&s, &c, &o);
    rig_audited(&s.rig, "granted", "");
    assert_int_equal(finalize(&s, &c, &o), 200);
    assert_string_equal(client_text(&c, "status"), "valid");
    certs_autox509 *leaf = certificate(&c);
    assert_int_equal(X509_NAME_entry_count(X509_get_subject_name(leaf)), 0);
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    assert_int_equal(sk_GENERAL_NAME_num(names), 1);
    assert_int_equal(sk_GENERAL_NAME_value(names, 0)->type, GEN_OTHERNAME);
    GENERAL_NAMES_free(names);
    char id[VERIFY_ID_HEX];
    rig_ok(certs_ak_ek_id(leaf, id, &err)); /* reads any certificate's PermanentIdentifier */
    assert_string_equal(id, s.tpm.ek_id);
    assert_int_equal(X509_get_extended_key_usage(leaf), XKU_SSL_CLIENT);
    rig_ok(certs_cert_matches_key(leaf, s.tpm.base->agent.pkey, &err));
    assert_int_equal(rig_rows(&s.rig, &store_certs), 0); /* of agents */
    client_free(&c);
    stage_free(&s);
}

/* Also with the host's own account, an RFC 4043 SAN in the CSR, and whatever `alg` says. */
static void other_ways(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_devices(&s);
    assert_int_equal(device_order(&s.client, s.tpm.ek_id, &o), 201);
    assert_string_equal(answer(&s, &s.client, &o, &(struct how){.alg = EVIDENCE_COSE_RS256}),
                        "valid");
    struct csr csr = {.permanent = true, .permanent_value = s.tpm.ek_id};
    assert_int_equal(finalize_with(&s.client, &o, s.tpm.base->agent.pkey, &csr), 200);
    stage_free(&s);
}

/* ---- newOrder ---- */

static void orders(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    char text[512];
    stage_now(&s);
    assert_int_not_equal(device_order(&s.client, s.tpm.ek_id, &o), 201); /* off unless configured */
    client_refused(&s.client, "unsupportedIdentifier");
    reconfigure(&s.rig, "url: ", DEVICES);
    restart_with_names(&s.rig);
    assert_int_not_equal(device_order(&s.client, "0123", &o), 201);
    client_refused(&s.client, "rejectedIdentifier");
    assert_int_not_equal(device_order(&s.client, "a/b", &o), 201);
    client_refused(&s.client, "malformed");
    snprintf(text, sizeof text,
             "{\"identifiers\":[{\"type\":\"permanent-identifier\",\"value\":\"%s\"},"
             "{\"type\":\"spiffe-id\",\"value\":\"spiffe://bank.example/agent/" RIG_NAME "\"}]}",
             s.tpm.ek_id);
    assert_int_not_equal(client_post_text(&s.client, RIG_URL "/newOrder", text), 201);
    client_refused(&s.client, "rejectedIdentifier");
    snprintf(text, sizeof text,
             "{\"identifiers\":[{\"type\":\"permanent-identifier\",\"value\":\"%s\"}],"
             "\"profile\":\"trading\"}",
             s.tpm.ek_id);
    assert_int_not_equal(client_post_text(&s.client, RIG_URL "/newOrder", text), 201);
    client_refused(&s.client, "invalidProfile");
    snprintf(text, sizeof text,
             "{\"identifiers\":[{\"type\":\"spiffe-id\","
             "\"value\":\"spiffe://bank.example/agent/" RIG_NAME "\"}],\"profile\":\"device\"}");
    assert_int_not_equal(client_post_text(&s.client, RIG_URL "/newOrder", text), 201);
    client_refused(&s.client, "invalidProfile");
    stage_free(&s);
}

/* ---- the statement ---- */

static EVP_PKEY *other_key;
static struct parse_name other_name;

static void other_signer(struct forge *f, enum forge_stage at)
{
    if (at == FORGE_KEYS) {
        f->certify_signer = other_key;
    }
}

static void no_magic(struct forge *f, enum forge_stage at)
{
    if (at == FORGE_KEYS) {
        f->magic_certify = 0x41545444;
    }
}

static void a_quote(struct forge *f, enum forge_stage at)
{
    if (at == FORGE_CERTIFY) {
        f->certify.type = PARSE_ATTEST_QUOTE;
        f->certify.u.quote.pcr_select = ATT_SLICE("\0\0\0\0", 4);
        f->certify.u.quote.pcr_digest = ATT_SLICE("", 0);
    }
}

static void another_name(struct forge *f, enum forge_stage at)
{
    if (at == FORGE_CERTIFY) {
        other_name = f->srk.name;
        f->certify.u.certify.name = parse_name_slice(&other_name);
    }
}

static void movable(struct forge *f, enum forge_stage at)
{
    if (at == FORGE_KEYS) {
        f->agent.pub.attrs &= ~PARSE_OA_FIXED_TPM;
    }
}

static void imported(struct forge *f, enum forge_stage at)
{
    if (at == FORGE_KEYS) {
        f->agent.pub.attrs &= ~PARSE_OA_SENSITIVE_DATA_ORIGIN;
    }
}

static void restricted(struct forge *f, enum forge_stage at)
{
    if (at == FORGE_KEYS) {
        f->agent.pub.attrs |= PARSE_OA_RESTRICTED;
        f->agent.pub.scheme = (struct parse_scheme){PARSE_ALG_ECDSA, PARSE_ALG_SHA256, 0};
    }
}

static void statements(void **state)
{
    (void)state;
    struct stage s;
    struct client c;
    stage_devices(&s);
    stranger(&s, &c);
    other_key = forge_p256();
    refused(&s, &c, &(struct how){.mutate = no_magic}, "certifyType");
    refused(&s, &c, &(struct how){.mutate = a_quote}, "certifyType");
    refused(&s, &c, &(struct how){.mutate = other_signer}, "certifySignature");
    refused(&s, &c, &(struct how){.token = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, "certifyNonce");
    refused(&s, &c, &(struct how){.mutate = another_name}, "certifyName");
    refused(&s, &c, &(struct how){.mutate = movable}, "keyAttributes");
    refused(&s, &c, &(struct how){.mutate = imported}, "keyAttributes");
    refused(&s, &c, &(struct how){.mutate = restricted}, "keyAttributes");
    EVP_PKEY_free(other_key);
    client_free(&c);
    stage_free(&s);
}

static void other_formats(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    att_autobuf payload = {0}, spki = {0};
    stage_devices(&s);
    forge_spki(s.tpm.base->agent.pkey, &spki);
    struct evidence_attobj obj = {.fmt = EVIDENCE_FMT_HOST,
                                  .x5c = {att_buf_slice(&s.tpm.ak_cert)},
                                  .x5c_len = 1,
                                  .spki = att_buf_slice(&spki)};
    put_payload(&obj, &payload);
    assert_int_equal(device_order(&s.client, s.tpm.ek_id, &o), 201);
    assert_int_equal(client_post(&s.client, o.challenge, false, att_buf_slice(&payload)), 200);
    client_refused(&s.client, "malformed");
    /* What is no statement at all ends no challenge. */
    assert_int_equal(device_order(&s.client, s.tpm.ek_id, &o), 201);
    static const char *const none[] = {"{}", "[]", "{\"attObj\":1}", "{\"attObj\":\"*\"}", "x"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        assert_int_equal(client_post_text(&s.client, o.challenge, none[i]), 400);
        client_refused(&s.client, "malformed");
    }
    assert_string_equal(answer(&s, &s.client, &o, &(struct how){0}), "valid");
    stage_free(&s);
}

/* ---- the AK certificate ---- */

/* One that our attestation CA's key signs, with this serial number and identifier. */
static void forge_ak(struct stage *s, const char *ek_id, const uint8_t *serial, bool ak_use,
                     struct att_buf *ret_der)
{
    att_autobuf spki = {0}, tbs = {0};
    uint8_t digest[ATT_SHA256_LEN];
    const struct issuer_ca *ca = s->rig.issuer->ca;
    struct certs_validity validity = certs_validity_from(rig_time, 3600);
    forge_spki(s->tpm.base->ak.pkey, &spki);
    if (ak_use) {
        struct certs_ak_spec spec = {.validity = validity,
                                     .spki = att_buf_slice(&spki),
                                     .ek_id = ek_id,
                                     .manufacturer = "id:00000000",
                                     .model = "m",
                                     .version = "v"};
        memcpy(spec.serial, serial, sizeof spec.serial);
        rig_ok(certs_ak_tbs(&spec, ca->attest_ca, &tbs, digest, &err));
    } else {
        struct certs_server_spec spec = {
            .validity = validity, .spki = att_buf_slice(&spki), .device_id = ek_id};
        memcpy(spec.serial, serial, sizeof spec.serial);
        rig_ok(certs_device_tbs(&spec, ca->attest_ca, &tbs, digest, &err));
    }
    rig_ok(certs_tbs_sign(att_buf_slice(&tbs), ca->attest_key, ret_der, &err));
}

static void ak_certificates(void **state)
{
    (void)state;
    struct stage s;
    struct client c;
    att_autobuf cert = {0};
    uint8_t serial[CERTS_SERIAL_LEN];
    stage_devices(&s);
    stranger(&s, &c);
    rig_ok(certs_serial_new(serial, &err));
    /* Of somebody else's attestation CA. */
    refused(
        &s, &c,
        &(struct how){.ak_cert = att_buf_slice(&s.tpm.base->ak_cert), .chain = s.tpm.base->att_ca},
        "akCertificate");
    /* No path to the root. */
    refused(&s, &c, &(struct how){.no_chain = true}, "akCertificate");
    /* Ours, but for another use (2.23.133.8.3 is not there). */
    forge_ak(&s, s.tpm.ek_id, serial, false, &cert);
    refused(&s, &c, &(struct how){.ak_cert = att_buf_slice(&cert)}, "akCertificate");
    /* Ours by its signature, and not on record. */
    att_buf_reset(&cert);
    forge_ak(&s, s.tpm.ek_id, serial, true, &cert);
    refused(&s, &c, &(struct how){.ak_cert = att_buf_slice(&cert)}, "akUnknown");
    /* On record by its number, with other bytes. */
    certs_autox509 *own = NULL;
    rig_ok(certs_cert_parse(att_buf_slice(&s.tpm.ak_cert), &own, &err));
    const ASN1_INTEGER *number = X509_get0_serialNumber(own);
    assert_int_equal(ASN1_STRING_length(number), CERTS_SERIAL_LEN);
    memcpy(serial, ASN1_STRING_get0_data(number), sizeof serial);
    att_buf_reset(&cert);
    forge_ak(&s, s.tpm.ek_id, serial, true, &cert);
    refused(&s, &c, &(struct how){.ak_cert = att_buf_slice(&cert)}, "akUnknown");
    /* Over. */
    rig_time += 8 * 86400;
    refused(&s, &c, &(struct how){0}, "akCertificate");
    client_free(&c);
    stage_free(&s);
}

static void of_another_tpm(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    char id[VERIFY_ID_HEX];
    stage_devices(&s);
    memset(id, 'a', sizeof id - 1);
    id[sizeof id - 1] = 0;
    assert_int_equal(device_order(&s.client, id, &o), 201);
    assert_string_equal(answer(&s, &s.client, &o, &(struct how){0}), "invalid");
    client_refused(&s.client, "identifierMismatch");
    stage_free(&s);
}

/* ---- the store's word ---- */

static enum att_rc drop_ek(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_delete(tx, &store_host_eks, user, err);
}

static void hosts(void **state)
{
    (void)state;
    struct stage s;
    struct client c;
    struct order o;
    stage_devices(&s);
    stranger(&s, &c);
    /* Banned after the verdict, and before it. */
    ready(&s, &c, &o);
    rig_admin_done(&s.rig, "host.ban", json_pack("{s:s, s:s}", "id", s.tpm.ek_id, "reason", "x"));
    assert_int_equal(finalize(&s, &c, &o), 403);
    client_refused(&c, "hostBanned");
    rig_audited(&s.rig, "refused", "hostBanned");
    refused(&s, &c, &(struct how){0}, "hostBanned");
    client_free(&c);
    stage_free(&s);
    /* The host's record is gone. */
    stage_devices(&s);
    stranger(&s, &c);
    rig_admin_done(&s.rig, "host.evict", json_pack("{s:s}", "id", s.tpm.ek_id));
    refused(&s, &c, &(struct how){0}, "hostUnknown");
    client_free(&c);
    stage_free(&s);
    /* The EK is not that host's any more. */
    stage_devices(&s);
    stranger(&s, &c);
    rig_ok(store_run(s.rig.issuer->store, true, drop_ek, s.tpm.ek_id, &err));
    refused(&s, &c, &(struct how){0}, "identifierMismatch");
    client_free(&c);
    stage_free(&s);
}

/* What the enrolment signed is asked of the deny list again: after the verdict, and before it. */
static void firmware(void **state)
{
    (void)state;
    struct stage s;
    struct client c;
    struct order o;
    char before[200], after[400];
    stage_devices(&s);
    stranger(&s, &c);
    ready(&s, &c, &o);
    uint64_t v = s.tpm.clock.firmware_version;
    snprintf(before, sizeof before, "  roots_dir: %s/ek\n", s.rig.dir);
    snprintf(after, sizeof after,
             "%s  deny:\n    - { manufacturer: IBM, versions: [\"%u.%u.%u.%u\"] }\n", before,
             (unsigned)(v >> 48), (unsigned)(v >> 32 & 0xffff), (unsigned)(v >> 16 & 0xffff),
             (unsigned)(v & 0xffff));
    reconfigure(&s.rig, before, after);
    assert_int_equal(finalize(&s, &c, &o), 403);
    client_refused(&c, "firmwareDenied");
    rig_audited(&s.rig, "refused", "firmwareDenied");
    refused(&s, &c, &(struct how){0}, "firmwareDenied");
    client_free(&c);
    stage_free(&s);
}

/* Whoever names an EK writes no record of its host: until its TPM has spoken it is the account's.
 */
static void strangers_records(void **state)
{
    (void)state;
    struct stage s;
    struct client c;
    struct order o;
    stage_devices(&s);
    stranger(&s, &c);
    assert_int_equal(device_order(&c, s.tpm.ek_id, &o), 201);
    assert_int_equal(client_post_text(&c, o.challenge, "{\"attObj\":\"AA\"}"), 200);
    rig_audited(&s.rig, "refused", "malformed");
    json_t *result = rig_admin(&s.rig, "audit.list", json_pack("{s:i}", "limit", 1));
    const json_t *record =
        json_object_get(json_array_get(json_object_get(result, "records"), 0), "record");
    assert_string_equal(issuer_string(record, "subject"), c.thumbprint);
    assert_string_equal(issuer_string(record, "identifier"), s.tpm.ek_id);
    json_decref(result);
    client_free(&c);
    stage_free(&s);
}

/* An AK certificate speaks until its TPM enrols again, or it is revoked. */
static void ended_aks(void **state)
{
    (void)state;
    struct stage s;
    struct client c;
    struct order o;
    struct enrolment e;
    att_autobuf before = {0};
    stage_devices(&s);
    stranger(&s, &c);
    put(&before, att_buf_slice(&s.tpm.ak_cert));
    ready(&s, &c, &o);
    s.tpm.clock.reset_count++;
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    assert_int_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    enrolment_done(&e);
    assert_int_equal(finalize(&s, &c, &o), 403);
    client_refused(&c, "akUnknown");
    refused(&s, &c, &(struct how){.ak_cert = att_buf_slice(&before)}, "akUnknown");
    ready(&s, &c, &o); /* the new one does */
    certs_autox509 *cert = NULL;
    struct certs_cert_info info;
    rig_ok(certs_cert_parse(att_buf_slice(&s.tpm.ak_cert), &cert, &err));
    rig_ok(certs_cert_info(cert, &info, &err));
    rig_admin_done(&s.rig, "cert.revoke",
                   json_pack("{s:s, s:s}", "serial", info.serial_hex, "reason", "keyCompromise"));
    refused(&s, &c, &(struct how){0}, "akUnknown");
    client_free(&c);
    stage_free(&s);
}

/* Another host's account does not speak of this one, with whatever AK certificate. */
static void accounts(void **state)
{
    (void)state;
    struct stage s;
    struct client other;
    struct tpm tpm;
    struct order o;
    char ak[256];
    stage_devices(&s);
    tpm_new_other(&tpm);
    client_new(&other, &s.rig);
    rig_pem(s.rig.dir, "ek/other.pem", tpm.base->maker_root);
    reload(&s.rig);
    rig_enrol(&other, &tpm, ak);
    refused(&s, &other, &(struct how){0}, "accountMismatch");
    /* Nor may one account answer another's challenge. */
    assert_int_equal(device_order(&s.client, s.tpm.ek_id, &o), 201);
    assert_string_equal(answer(&s, &other, &o, &(struct how){0}), "");
    client_refused(&other, "unauthorized");
    client_free(&other);
    tpm_free(&tpm);
    stage_free(&s);
}

/* ---- once, and only for what it is ---- */

static void once(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_devices(&s);
    assert_int_equal(device_order(&s.client, s.tpm.ek_id, &o), 201);
    assert_int_equal(finalize(&s, &s.client, &o), 403);
    client_refused(&s.client, "orderNotReady");
    assert_string_equal(answer(&s, &s.client, &o, &(struct how){0}), "valid");
    assert_string_equal(answer(&s, &s.client, &o, &(struct how){0}), "");
    client_refused(&s.client, "malformed");
    rig_time += ISSUER_ORDER_S + 1;
    assert_int_equal(finalize(&s, &s.client, &o), 403);
    client_refused(&s.client, "orderNotReady");
    assert_int_equal(device_order(&s.client, s.tpm.ek_id, &o), 201);
    rig_time += ISSUER_ORDER_S + 1;
    assert_string_equal(answer(&s, &s.client, &o, &(struct how){0}), "");
    client_refused(&s.client, "malformed");
    stage_free(&s);
}

static void at_noun(char ret[256], const char *url, const char *noun)
{
    snprintf(ret, 256, RIG_URL "/%s/%s", noun, strrchr(url, '/') + 1);
}

/* Resources of one type are nothing to the routes of another. */
static void routes_apart(void **state)
{
    (void)state;
    struct stage s;
    struct order o, agent;
    char url[256];
    att_autobuf payload = {0};
    stage_devices(&s);
    reconfigure(&s.rig, "trust_domain: ",
                "dns:\n  profiles:\n    - { name: web, lifetime: 1h, names: [\"*.localhost\"] }\n"
                "trust_domain: ");
    issuer_free(s.rig.issuer);
    rig_open(&s.rig);
    assert_int_equal(device_order(&s.client, s.tpm.ek_id, &o), 201);
    at_noun(url, o.url, "dns-order");
    assert_int_equal(client_get(&s.client, url), 404);
    at_noun(url, o.authz, "dns-authz");
    assert_int_equal(client_get(&s.client, url), 404);
    assert_int_equal(client_post_text(&s.client, url, "{\"status\":\"deactivated\"}"), 404);
    at_noun(url, o.challenge, "dns-challenge");
    assert_int_equal(client_post_text(&s.client, url, "{}"), 404);
    at_noun(url, o.challenge, "challenge");
    statement(&s, &s.client, &o, &(struct how){0}, &payload);
    assert_int_not_equal(client_post(&s.client, url, false, att_buf_slice(&payload)), 200);
    assert_string_equal(answer(&s, &s.client, &o, &(struct how){0}), "valid");
    struct order wrong = o;
    at_noun(wrong.finalize, o.finalize, "dns-finalize");
    assert_int_equal(finalize(&s, &s.client, &wrong), 404);
    at_noun(wrong.finalize, o.finalize, "finalize");
    assert_int_equal(rig_finalize(&s.client, &wrong, s.tpm.base->agent.pkey,
                                  "spiffe://bank.example/agent/" RIG_NAME),
                     404);
    /* And the other way round. */
    assert_int_equal(rig_order(&s.client, RIG_NAME, &agent), 201);
    at_noun(wrong.challenge, agent.challenge, "device-challenge");
    assert_string_equal(answer(&s, &s.client, &wrong, &(struct how){0}), "");
    assert_int_equal(s.client.last.status, 404);
    at_noun(wrong.finalize, agent.finalize, "device-finalize");
    assert_int_equal(finalize(&s, &s.client, &wrong), 404);
    assert_int_equal(rig_rows(&s.rig, &store_certs), 0);
    stage_free(&s);
}

/* ---- finalize ---- */

static void csrs(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    EVP_PKEY *key = NULL, *other = forge_p256();
    char wrong[VERIFY_ID_HEX];
    stage_devices(&s);
    key = s.tpm.base->agent.pkey;
    rig_copy(wrong, sizeof wrong, s.tpm.ek_id);
    wrong[0] = wrong[0] == '0' ? '1' : '0';
    ready(&s, &s.client, &o);
    const struct {
        EVP_PKEY *key;
        struct csr csr;
        const char *reason;
    } cases[] = {
        {other, {.cn = s.tpm.ek_id}, "csrKey"},
        {key, {.cn = s.tpm.ek_id, .signer = other}, "csrSignature"},
        {key, {.cn = "another"}, "csrName"},
        {key, {.permanent = true, .permanent_value = wrong}, "csrName"},
        {key, {.san = "URI:spiffe://bank.example/agent/" RIG_NAME}, "csrName"},
        {key, {.cn = s.tpm.ek_id, .san = "DNS:bank.example"}, "csrName"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(finalize_with(&s.client, &o, cases[i].key, &cases[i].csr), 400);
        client_refused(&s.client, cases[i].reason);
        assert_int_equal(client_get(&s.client, o.url), 200);
        assert_string_equal(client_text(&s.client, "status"), "ready"); /* RFC 8555 §7.4 */
    }
    assert_int_equal(finalize(&s, &s.client, &o), 200);
    EVP_PKEY_free(other);
    stage_free(&s);
}

static const struct store_db_ops *real;
static bool deaf; /* what is committed is not answered */

static enum att_rc deaf_begin(struct store_db *db, enum store_mode mode, struct store_con **ret_con,
                              struct att_err *err)
{
    deaf = mode != STORE_READ;
    return real->begin(db, mode, ret_con, err);
}

static enum att_rc deaf_commit(struct store_con *con, struct att_err *err)
{
    enum att_rc rc = real->commit(con, err);
    return rc || !deaf ? rc : att_fail(err, ATT_E_UNREACHABLE, "no answer");
}

/* The decision stands although nobody was told: the order becomes valid without a further
 * request. */
static void unanswered(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    struct store_db_ops ops;
    stage_devices(&s);
    ready(&s, &s.client, &o);
    real = s.rig.issuer->store->ops;
    ops = *real;
    ops.begin = deaf_begin;
    ops.commit = deaf_commit;
    s.rig.issuer->store->ops = &ops;
    assert_int_equal(finalize(&s, &s.client, &o), 503);
    s.rig.issuer->store->ops = real;
    s.rig.issuer->intent_try_ms = 0;
    issuer_intent_tick(s.rig.issuer);
    assert_int_equal(client_get(&s.client, o.url), 200);
    assert_string_equal(client_text(&s.client, "status"), "valid");
    stage_free(&s);
}

static void of_an_account(struct forge *f, enum forge_stage at)
{
    if (at == FORGE_KEYS) {
        EVP_PKEY_free(f->agent.pkey);
        EVP_PKEY_up_ref(other_key);
        f->agent.pkey = other_key;
        rig_ok(parse_public_set_pkey(&f->agent.pub, other_key, &err));
    }
}

static void account_key(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_devices(&s);
    other_key = s.client.key;
    assert_int_equal(device_order(&s.client, s.tpm.ek_id, &o), 201);
    assert_string_equal(answer(&s, &s.client, &o, &(struct how){.mutate = of_an_account}), "valid");
    assert_int_equal(finalize_with(&s.client, &o, other_key, &(struct csr){.cn = s.tpm.ek_id}),
                     400);
    client_refused(&s.client, "csrAccountKey");
    stage_free(&s);
}

/* ---- a ban reaches what was issued ---- */

static enum att_rc find_device(void *user, const void *record, struct att_err *err)
{
    const struct store_cert *cert = record;
    (void)err;
    if (strcmp(cert->kind, "dns") == 0) {
        snprintf(user, 32, "%s", cert->status);
    }
    return ATT_OK;
}

static enum att_rc each_cert(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_each(tx, &store_certs, NULL, NULL, find_device, user, err);
}

static void banned(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    char status[32] = "";
    stage_devices(&s);
    ready(&s, &s.client, &o);
    assert_int_equal(finalize(&s, &s.client, &o), 200);
    rig_ok(store_run(s.rig.issuer->store, false, each_cert, status, &err));
    assert_string_equal(status, STORE_CERT_ISSUED);
    rig_admin_done(&s.rig, "host.ban", json_pack("{s:s, s:s}", "id", s.tpm.ek_id, "reason", "x"));
    rig_ok(store_run(s.rig.issuer->store, false, each_cert, status, &err));
    assert_string_equal(status, STORE_CERT_REVOKED);
    stage_free(&s);
}

/* replaces (RFC 9773 §5) works for these as for others. */
static void replaces(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    struct acme_cert_id id = {0};
    char text[ACME_CERT_ID_LEN], payload[512];
    stage_devices(&s);
    ready(&s, &s.client, &o);
    assert_int_equal(finalize(&s, &s.client, &o), 200);
    certs_autox509 *leaf = certificate(&s.client);
    const ASN1_OCTET_STRING *aki = X509_get0_authority_key_id(leaf);
    const ASN1_INTEGER *serial = X509_get0_serialNumber(leaf);
    id.aki_len = (size_t)ASN1_STRING_length(aki);
    memcpy(id.aki, ASN1_STRING_get0_data(aki), id.aki_len);
    id.serial_len = (size_t)ASN1_STRING_length(serial);
    memcpy(id.serial, ASN1_STRING_get0_data(serial), id.serial_len);
    rig_ok(acme_cert_id_encode(&id, text, &err));
    snprintf(payload, sizeof payload,
             "{\"identifiers\":[{\"type\":\"permanent-identifier\",\"value\":\"%s\"}],"
             "\"replaces\":\"%s\"}",
             s.tpm.ek_id, text);
    assert_int_equal(client_post_text(&s.client, RIG_URL "/newOrder", payload), 201);
    assert_int_equal(client_post_text(&s.client, RIG_URL "/newOrder", payload), 409);
    client_refused(&s.client, "alreadyReplaced");
    /* A client drops what cannot be said and orders without it: no fault that is counted. */
    for (int i = 0; i <= ISSUER_RECENT_REFUSALS; i++) {
        assert_int_equal(client_post_text(&s.client, RIG_URL "/newOrder", payload), 409);
    }
    assert_int_equal(device_order(&s.client, s.tpm.ek_id, &o), 201);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(given),          cmocka_unit_test(other_ways),
        cmocka_unit_test(orders),         cmocka_unit_test(statements),
        cmocka_unit_test(other_formats),  cmocka_unit_test(ak_certificates),
        cmocka_unit_test(of_another_tpm), cmocka_unit_test(hosts),
        cmocka_unit_test(ended_aks),      cmocka_unit_test(accounts),
        cmocka_unit_test(once),           cmocka_unit_test(routes_apart),
        cmocka_unit_test(csrs),           cmocka_unit_test(account_key),
        cmocka_unit_test(banned),         cmocka_unit_test(replaces),
        cmocka_unit_test(firmware),       cmocka_unit_test(strangers_records),
        cmocka_unit_test(unanswered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
