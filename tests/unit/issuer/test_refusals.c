/* The refusals that have to be tests, over the wire's handlers: one thing wrong at a time, and each
 * time the reason by name, in the answer and in the record, and that nothing was issued or stored
 * half. The table of what is tested where: docs/TESTING.md. */
#include "tests/unit/issuer/stage.h"

/* Some of what those headers make wrong is wrong only in a verifier's input. */
#pragma GCC diagnostic ignored "-Wunused-function"
#include "tests/unit/verify/agent_quote.h"

EVP_PKEY *stranger;

/* ---- what is stored
 * ------------------------------------------------------------------------------------------------
 */

static enum att_rc count_all(void *user, const void *record, struct att_err *err)
{
    (void)record;
    (void)err;
    ++*(int *)user;
    return ATT_OK;
}

struct kept {
    int hosts, eks, claims, orders, certs, aks, valid_aks, uses_left;
    char clock[256];
};

static enum att_rc count_ak(void *user, const void *record, struct att_err *err)
{
    struct kept *k = user;
    const struct store_ak *ak = record;
    (void)err;
    k->aks++;
    k->valid_aks += strcmp(ak->state, STORE_AK_VALID) == 0;
    if (strcmp(ak->state, STORE_AK_ENDED) == 0) {
        assert_int_equal(ak->secret.len, 0);
        assert_int_equal(ak->m1.len, 0);
    }
    return ATT_OK;
}

static enum att_rc take_uses(void *user, const void *record, struct att_err *err)
{
    (void)err;
    ((struct kept *)user)->uses_left = (int)((const struct store_ticket *)record)->uses_left;
    return ATT_OK;
}

static enum att_rc take_clock(void *user, const void *record, struct att_err *err)
{
    (void)err;
    char *text = issuer_host_clock_text(record);
    snprintf(((struct kept *)user)->clock, sizeof((struct kept *)user)->clock, "%s", text);
    free(text);
    return ATT_OK;
}

static enum att_rc look(void *user, struct store_tx *tx, struct att_err *err)
{
    struct kept *k = user;
    const struct {
        const struct store_table *table;
        store_each_fn each;
        void *user;
    } all[] = {
        {&store_hosts, count_all, &k->hosts},
        {&store_host_eks, count_all, &k->eks},
        {&store_ek_claims, count_all, &k->claims},
        {&store_orders, count_all, &k->orders},
        {&store_certs, count_all, &k->certs},
        {&store_aks, count_ak, k},
        {&store_tickets, take_uses, k},
        {&store_hosts, take_clock, k},
    };
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; !rc && i < sizeof all / sizeof all[0]; i++) {
        rc = store_each(tx, all[i].table, NULL, NULL, all[i].each, all[i].user, err);
    }
    return rc;
}

static struct kept kept(struct rig *r)
{
    struct kept k;
    memset(&k, 0, sizeof k);
    rig_ok(store_run(r->issuer->store, false, look, &k, &err));
    return k;
}

/* The newest record, which is a refusal for this reason; the caller owns it. */
static json_t *refusal(struct rig *r, const char *reason)
{
    rig_audited(r, "refused", reason);
    json_t *result = rig_admin(r, "audit.list", json_pack("{s:i}", "limit", 1));
    json_t *record = json_incref(
        json_object_get(json_array_get(json_object_get(result, "records"), 0), "record"));
    json_decref(result);
    return record;
}

/* ---- M1
 * ------------------------------------------------------------------------------------------------
 */

static void ek_cert_of_other_tpm(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek_cert_spec.subject = stranger;
}

/* CVE-2021-3406: the certificate of one TPM, the key of another. */
static void ek_spki_swap(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    EVP_PKEY *other = EVP_RSA_gen(2048);
    struct parse_public pub = f->ek.pub;
    assert_int_equal(parse_public_set_pkey(&pub, other, NULL), ATT_OK);
    att_buf_reset(&f->ek.area);
    assert_int_equal(parse_public_encode(&pub, &f->ek.area, NULL), ATT_OK);
    EVP_PKEY_free(other);
}

static void ek_attributes(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek.pub.attrs |= PARSE_OA_NO_DA;
}

/* It would decrypt anybody's credential. */
static void ek_unrestricted(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek.pub.attrs &= ~PARSE_OA_RESTRICTED;
}

static void ek_policy(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek.pub.policy[0] ^= 1;
}

static void ek_foreign_issuer(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek_cert_spec.foreign_issuer = true;
}

static void ek_self_signed(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek_cert_spec.self_signed = true;
}

static void ek_trailing(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    att_buf_u8(&f->ek.area, 0);
}

static void ak_signs_anything_else(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ak.pub.attrs |= PARSE_OA_DECRYPT;
}

static void ak_from_outside(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ak.pub.attrs &= ~PARSE_OA_SENSITIVE_DATA_ORIGIN;
}

static const struct {
    const char *name;
    forge_mutate mutate;
    const char *reason;
} first_messages[] = {
    {"EK certificate of another TPM", ek_cert_of_other_tpm, "ekCertMismatch"},
    {"EK SPKI swap", ek_spki_swap, "ekCertMismatch"},
    {"EK template changed", ek_attributes, "ekTemplate"},
    {"EK unrestricted", ek_unrestricted, "ekTemplate"},
    {"EK policy changed", ek_policy, "ekTemplate"},
    {"untrusted EK issuer", ek_foreign_issuer, "ekChain"},
    {"EK certificate signed by itself", ek_self_signed, "ekChain"},
    {"ekPub with a byte more", ek_trailing, "malformed"},
    {"AK unrestricted", ak_unrestricted, "akAttributes"},
    {"AK not fixedTPM", ak_duplicable, "akAttributes"},
    {"AK decrypts", ak_signs_anything_else, "akAttributes"},
    {"AK from outside", ak_from_outside, "akAttributes"},
};

static void m1(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof first_messages / sizeof first_messages[0]; i++) {
        struct stage s;
        struct enrolment e;
        print_message("%s\n", first_messages[i].name);
        tpm_build(&s.tpm, first_messages[i].mutate);
        rig_new(&s.rig, s.tpm.base->maker_root, "none");
        client_new(&s.client, &s.rig);
        json_t *ticket = rig_ticket(&s.rig, NULL, 1);
        assert_int_equal(client_account(&s.client, ticket), 201);
        json_decref(ticket);
        struct kept before = kept(&s.rig);
        assert_int_equal(before.uses_left, 1);
        assert_true(rig_m1(&s.client, &s.tpm, NULL, &e) >= 400);
        client_refused(&s.client, first_messages[i].reason);
        json_decref(refusal(&s.rig, first_messages[i].reason));
        struct kept after = kept(&s.rig);
        assert_memory_equal(&before, &after, sizeof before);
        enrolment_done(&e);
        stage_free(&s);
    }
}

/* The AK that is named is not the one in the TPM: the issuer computes the Name itself, and the TPM
 * does not open what is for another. */
static void ak_name_swap(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment e;
    stage_new(&s, "none");
    json_t *ticket = rig_ticket(&s.rig, s.tpm.ek_id, 1);
    assert_int_equal(client_account(&s.client, ticket), 201);
    json_decref(ticket);
    struct parse_public pub = s.tpm.base->ak.pub;
    rig_ok(parse_public_set_pkey(&pub, stranger, &err));
    att_autobuf own = {0};
    put(&own, att_buf_slice(&s.tpm.base->ak.area));
    att_buf_reset(&s.tpm.base->ak.area);
    rig_ok(parse_public_encode(&pub, &s.tpm.base->ak.area, &err));
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    assert_false(e.activated);
    assert_true(rig_m2(&s.client, &s.tpm, &e) >= 400);
    client_refused(&s.client, "activation");
    json_decref(refusal(&s.rig, "activation"));
    struct kept after = kept(&s.rig);
    assert_int_equal(after.hosts + after.eks + after.certs + after.valid_aks, 0);
    assert_int_equal(after.uses_left, 1);
    enrolment_done(&e);
    /* With its own AK it gets in: nothing else was wrong. */
    att_buf_reset(&s.tpm.base->ak.area);
    put(&s.tpm.base->ak.area, att_buf_slice(&own));
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    assert_true(e.activated);
    assert_int_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    enrolment_done(&e);
    stage_free(&s);
}

/* ---- M2
 * ------------------------------------------------------------------------------------------------
 */

static void other_boot(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    (void)forge_event_add(f, 14, PARSE_EV_IPL, "MokListX");
}

static const struct {
    const char *name;
    forge_mutate mutate;
    const char *reason;
} activations[] = {
    {"quote with a byte more", quote_trailing, "malformed"},
    {"quote without magic", quote_no_magic, "quoteMagic"},
    {"Certify as quote", quote_is_certify, "quoteType"},
    {"NV_Certify as quote", quote_is_nv, "quoteType"},
    {"NV_Certify whose contents look like PCRs", quote_is_nv_like_pcrs, "quoteType"},
    {"quote by another key", quote_other_key, "quoteSignature"},
    {"quote signed with SHA-1", quote_sig_sha1, "quoteSignature"},
    {"AK in the owner hierarchy", ak_in_owner, "akHierarchy"},
    {"constant nonce", quote_constant_nonce, "quoteNonce"},
    {"empty nonce", quote_empty_nonce, "quoteNonce"},
    {"other PCRs", selection_other, "pcrSelection"},
    {"empty selection", selection_empty, "pcrSelection"},
    {"bank twice", selection_bank_twice, "pcrSelection"},
    {"values that are not quoted", pcrs_not_quoted, "pcrSelection"},
    {"PCR value not in the digest", pcr_value_changed, "pcrDigest"},
    {"event dropped", log_event_dropped, "logReplay"},
    {"payload rewritten", log_payload_rewritten, "logReplay"},
    {"boot not allowed", other_boot, "bootPolicy"},
};

static void m2(void **state)
{
    (void)state;
    struct stage s;
    struct enrolment e;
    stage_new(&s, "forge");
    json_t *ticket = rig_ticket(&s.rig, s.tpm.ek_id, 1);
    assert_int_equal(client_account(&s.client, ticket), 201);
    json_decref(ticket);
    for (size_t i = 0; i < sizeof activations / sizeof activations[0]; i++) {
        print_message("%s\n", activations[i].name);
        assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
        struct kept before = kept(&s.rig);
        s.tpm.mutate = activations[i].mutate;
        assert_true(rig_m2(&s.client, &s.tpm, &e) >= 400);
        client_refused(&s.client, activations[i].reason);
        json_t *record = refusal(&s.rig, activations[i].reason);
        assert_string_equal(issuer_string(json_object_get(record, "verdict"), "reason"),
                            activations[i].reason);
        json_decref(record);
        s.tpm.mutate = NULL;
        /* It was the one try. */
        assert_true(rig_m2(&s.client, &s.tpm, &e) >= 400);
        client_refused(&s.client, "activation");
        struct kept after = kept(&s.rig);
        assert_memory_equal(&before, &after, sizeof before);
        assert_int_equal(after.hosts + after.eks + after.certs + after.valid_aks, 0);
        assert_int_equal(after.uses_left, 1);
        enrolment_done(&e);
    }
    assert_int_equal(rig_m1(&s.client, &s.tpm, NULL, &e), 201);
    assert_int_equal(rig_m2(&s.client, &s.tpm, &e), 200);
    assert_int_equal(kept(&s.rig).uses_left, 0);
    enrolment_done(&e);
    stage_free(&s);
}

/* ---- M4
 * ------------------------------------------------------------------------------------------------
 */

static const struct {
    const char *name;
    forge_mutate mutate;
    const char *reason;
} statements[] = {
    {"attObj with a byte more", att_obj_trailing, "malformed"},
    {"evidence with a byte more", evidence_trailing, "malformed"},
    {"quote with a byte more", quote_trailing, "malformed"},
    {"signature with a byte more", quote_sig_trailing, "malformed"},
    {"srkPub with a byte more", srk_trailing, "malformed"},
    {"evidence says hsm", store_lies, "malformed"},

    {"certify without magic", certify_no_magic, "certifyType"},
    {"CertifyCreation as Certify", certify_is_creation, "certifyType"},
    {"quote as Certify", certify_is_quote, "certifyType"},
    {"NV_Certify as Certify", certify_is_nv, "certifyType"},
    {"agent key of another TPM", certify_by_other_tpm, "certifySignature"},
    {"key certifies itself", certify_by_itself, "certifySignature"},
    {"attObj names RS256", certify_alg_rs256, "certifySignature"},
    {"certify of another order", certify_other_order, "certifyNonce"},
    {"certify without nonce", certify_no_nonce, "certifyNonce"},
    {"pubArea of another key", certify_name_swap, "certifyName"},
    {"certify without Name", certify_empty_name, "certifyName"},

    {"agent key imported", key_imported, "keyAttributes"},
    {"agent key not fixedTPM", key_not_fixed_tpm, "keyAttributes"},
    {"agent key not fixedParent", key_not_fixed_parent, "keyAttributes"},
    {"agent key from outside", key_from_outside, "keyAttributes"},
    {"agent key restricted", key_restricted, "keyAttributes"},
    {"agent key with adminWithPolicy", key_admin_with_policy, "keyAttributes"},
    {"agent key without userWithAuth", key_without_user_auth, "keyAttributes"},
    {"agent key with a policy", key_with_policy, "keyAttributes"},
    {"key under a foreign parent", key_foreign_parent, "keyParent"},
    {"LoadExternal key", key_external, "keyParent"},
    {"key in the endorsement hierarchy", key_owner_is_endorsement, "keyParent"},
    {"key in the null hierarchy", key_under_null, "keyParent"},
    {"parent duplicable", parent_duplicable, "keyParent"},
    {"SRK with other attributes", srk_not_standard, "keyParent"},

    {"quote without magic", quote_no_magic, "quoteMagic"},
    {"Certify as quote", quote_is_certify, "quoteType"},
    {"NV_Certify as quote", quote_is_nv, "quoteType"},
    {"NV_Certify whose contents look like PCRs", quote_is_nv_like_pcrs, "quoteType"},
    {"quote by another key", quote_other_key, "quoteSignature"},
    {"quote by the agent's key", quote_by_agent_key, "quoteSignature"},
    {"quote signed with SHA-1", quote_sig_sha1, "quoteSignature"},
    {"AK in the owner hierarchy", ak_in_owner, "akHierarchy"},
    {"nonce of another order", quote_other_order, "quoteNonce"},
    {"replay by another account", quote_other_account, "quoteNonce"},
    {"constant nonce", quote_constant_nonce, "quoteNonce"},
    {"no nonce", quote_empty_nonce, "quoteNonce"},
    {"evidence swapped after the quote", evidence_swapped, "quoteNonce"},

    {"other selection", selection_other, "pcrSelection"},
    {"empty selection", selection_empty, "pcrSelection"},
    {"selection of count 0", selection_count_0, "pcrSelection"},
    {"bank twice", selection_bank_twice, "pcrSelection"},
    {"SHA-1 bank", selection_sha1, "pcrSelection"},
    {"values that are not quoted", pcrs_not_quoted, "pcrSelection"},
    {"PCR value not in the digest", pcr_value_changed, "pcrDigest"},
    {"digest of other values", pcr_digest_changed, "pcrDigest"},

    {"clock backwards", clock_back, "clockRollback"},
    {"restartCount backwards", restart_back, "clockRollback"},
    {"rebooted since the enrolment", rebooted, "akStale"},
    {"firmware changed", firmware_changed, "akStale"},
    {"certify of another boot than the quote", certify_of_other_boot, "akStale"},

    {"evidence names another agent", evidence_other_agent, "evidenceMismatch"},
    {"evidence names a longer name", evidence_longer_name, "evidenceMismatch"},
    {"evidence names another key", evidence_other_key, "evidenceMismatch"},
    {"evidence lists another log", evidence_other_log, "evidenceMismatch"},
    {"evidence lists no log", evidence_without_log, "evidenceMismatch"},

    {"event dropped", log_event_dropped, "logReplay"},
    {"event added", log_event_added, "logReplay"},
    {"payload rewritten", log_payload_rewritten, "logReplay"},
    {"type rewritten", log_type_rewritten, "logReplay"},
    {"PCR without events, but with a value", pcr_without_events, "logReplay"},
    {"boot not allowed", other_boot, "bootPolicy"},
};

static void refused_statement(struct stage *s, forge_mutate mutate, const char *reason)
{
    struct order o;
    assert_int_equal(rig_order(&s->client, RIG_NAME, &o), 201);
    s->tpm.mutate = mutate;
    assert_string_equal(rig_m4(&s->client, &s->tpm, &o, s->ak), "invalid");
    client_refused(&s->client, reason);
    s->tpm.mutate = NULL;
    json_t *record = refusal(&s->rig, reason);
    assert_string_equal(issuer_string(record, "kind"), "issue");
    assert_string_equal(issuer_string(record, "subject"), FORGE_IDENTIFIER);
    assert_string_equal(issuer_string(json_object_get(record, "verdict"), "reason"), reason);
    json_decref(record);
    /* Good evidence does not revive the order, nor has it a certificate. */
    assert_string_equal(rig_m4(&s->client, &s->tpm, &o, s->ak), "");
    assert_int_equal(rig_finalize(&s->client, &o, s->tpm.base->agent.pkey, FORGE_IDENTIFIER), 403);
    assert_int_equal(client_get(&s->client, o.url), 200);
    assert_string_equal(client_text(&s->client, "status"), "invalid");
    assert_null(json_object_get(s->client.body, "certificate"));
}

static void m4(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    stage_enrolled(&s, "forge");
    for (size_t i = 0; i < sizeof statements / sizeof statements[0]; i++) {
        print_message("%s\n", statements[i].name);
        struct kept before = kept(&s.rig);
        refused_statement(&s, statements[i].mutate, statements[i].reason);
        struct kept after = kept(&s.rig);
        before.orders++;
        /* The host's clock on record, too: a refusal moves nothing. */
        assert_memory_equal(&before, &after, sizeof before);
    }
    assert_int_equal(rig_rows(&s.rig, &store_certs), 0);
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "valid");
    assert_int_equal(rig_finalize(&s.client, &o, s.tpm.base->agent.pkey, FORGE_IDENTIFIER), 200);
    stage_free(&s);
}

/* A quote of before the enrolment's boot, or of a TPM that was cleared: it costs the host its AK
 * and its approval. */
static void m4_cleared(void **state)
{
    (void)state;
    const forge_mutate all[] = {earlier_boot, cleared, cleared_reset_down};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct stage s;
        stage_enrolled(&s, "none");
        struct order o;
        assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
        s.tpm.mutate = all[i];
        assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "invalid");
        client_refused(&s.client, "tpmCleared");
        struct kept after = kept(&s.rig);
        assert_int_equal(after.valid_aks, 0);
        assert_string_equal(after.clock, "");
        assert_int_equal(rig_rows(&s.rig, &store_certs), 0);
        json_t *host = rig_admin(&s.rig, "host.show", json_pack("{s:s}", "id", s.tpm.ek_id));
        assert_string_equal(issuer_string(host, "state"), "pending");
        assert_string_equal(issuer_string(host, "reason"), "tpmCleared");
        json_decref(host);
        stage_free(&s);
    }
}

/* A profile whose policy is not there, or is over, approves of nothing. */
static void m4_policy(void **state)
{
    (void)state;
    struct stage s;
    stage_enrolled(&s, "none");
    reconfigure(&s.rig, "keys: [tpm]\n    boot: none", "keys: [tpm]\n    boot: nowhere");
    refused_statement(&s, NULL, "policyMissing");
    att_autobuf json = {0};
    forge_policy_json(s.tpm.base, &json);
    char *from = strstr((char *)(uintptr_t)att_buf_cstr(&json), "\"notBefore\":\"");
    char *until = strstr((char *)(uintptr_t)att_buf_cstr(&json), "\"notAfter\":\"");
    assert_true(from && until);
    memcpy(from + 13, "2019", 4);
    memcpy(until + 12, "2020", 4);
    rig_admin_done(&s.rig, "policy.apply", json_pack("{s:s}", "text", att_buf_cstr(&json)));
    reconfigure(&s.rig, "keys: [tpm]\n    boot: nowhere", "keys: [tpm]\n    boot: forge");
    refused_statement(&s, NULL, "policyExpired");
    assert_int_equal(rig_rows(&s.rig, &store_certs), 0);
    stage_free(&s);
}

/* A policy is read once, and again when it changed: what counts is what is stored now. */
static void m4_policy_changes(void **state)
{
    (void)state;
    struct stage s;
    stage_enrolled(&s, "forge");
    for (int version = 4; version < 8; version++) {
        struct order o;
        att_autobuf json = {0};
        forge_policy_json(s.tpm.base, &json);
        char *text = (char *)(uintptr_t)att_buf_cstr(&json);
        char *at = strstr(text, "\"version\":3"), *pcrs = strstr(text, "\"pcrs\"");
        assert_true(at && pcrs);
        char *value = strstr(pcrs, "\",\""); /* the second that is allowed: the real one */
        assert_non_null(value);
        at[10] = (char)('0' + version);
        if (version % 2) {
            value[3] = value[3] == '0' ? '1' : '0';
        }
        rig_admin_done(&s.rig, "policy.apply", json_pack("{s:s}", "text", text));
        if (version % 2) {
            refused_statement(&s, NULL, "bootPolicy");
            continue;
        }
        for (int i = 0; i < 2; i++) {
            assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
            assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "valid");
        }
    }
    stage_free(&s);
}

/* Without the log that the challenge asks for. */
static void m4_log_missing(void **state)
{
    (void)state;
    struct stage s;
    stage_enrolled(&s, "none");
    s.tpm.no_log = true;
    struct kept before = kept(&s.rig);
    struct order o;
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    s.tpm.mutate = evidence_without_log;
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "invalid");
    client_refused(&s.client, "logMissing");
    json_decref(refusal(&s.rig, "logMissing"));
    before.orders++;
    struct kept after = kept(&s.rig);
    assert_memory_equal(&before, &after, sizeof before);
    stage_free(&s);
}

/* The profile no longer takes keys of this kind: no new order, and none of those under way. */
static void key_store(void **state)
{
    (void)state;
    struct stage s;
    struct order o, late;
    stage_enrolled(&s, "none");
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    reconfigure(&s.rig, "keys: [tpm]\n    boot: none", "keys: [hsm]\n    boot: none");
    struct kept before = kept(&s.rig);
    assert_int_equal(rig_order(&s.client, RIG_NAME, &late), 403);
    client_refused(&s.client, "keyStore");
    assert_string_equal(client_text(&s.client, "type"),
                        "urn:ietf:params:acme:error:rejectedIdentifier");
    json_decref(refusal(&s.rig, "keyStore"));
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "invalid");
    client_refused(&s.client, "keyStore");
    json_decref(refusal(&s.rig, "keyStore"));
    struct kept after = kept(&s.rig);
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(rig_rows(&s.rig, &store_certs), 0);
    stage_free(&s);
}

/* ---- M5
 * ------------------------------------------------------------------------------------------------
 */

/* A CSR for another key, with the account's, or with any other account's, even where a TPM holds
 * that one: the order stays ready for a good one and the record says why. */
static void m5(void **state)
{
    (void)state;
    struct stage s;
    struct order o;
    struct client owner;
    stage_enrolled(&s, "none");
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "valid");
    EVP_PKEY *key = s.tpm.base->agent.pkey;
    const struct {
        EVP_PKEY *key;
        const char *uri, *reason;
    } cases[] = {
        {stranger, FORGE_IDENTIFIER, "csrKey"},
        {s.client.key, FORGE_IDENTIFIER, "csrAccountKey"},
        {key, "spiffe://bank.example/agent/elsewhere", "csrName"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(rig_finalize(&s.client, &o, cases[i].key, cases[i].uri), 400);
        client_refused(&s.client, cases[i].reason);
        assert_string_equal(client_text(&s.client, "type"), "urn:ietf:params:acme:error:badCSR");
        json_decref(refusal(&s.rig, cases[i].reason));
        assert_int_equal(client_get(&s.client, o.url), 200);
        assert_string_equal(client_text(&s.client, "status"), "ready");
    }
    /* The agent's key is some other account's key. */
    client_new(&owner, &s.rig);
    EVP_PKEY_free(owner.key);
    EVP_PKEY_up_ref(key);
    owner.key = key;
    json_t *ticket = rig_ticket(&s.rig, NULL, 1);
    assert_int_equal(client_account(&owner, ticket), 201);
    json_decref(ticket);
    assert_int_equal(rig_finalize(&s.client, &o, key, FORGE_IDENTIFIER), 400);
    client_refused(&s.client, "csrAccountKey");
    json_decref(refusal(&s.rig, "csrAccountKey"));
    assert_int_equal(rig_rows(&s.rig, &store_certs), 0);
    client_free(&owner);
    stage_free(&s);
}

static int setup(void **state)
{
    (void)state;
    stranger = forge_p256();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    EVP_PKEY_free(stranger);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(m1),
        cmocka_unit_test(ak_name_swap),
        cmocka_unit_test(m2),
        cmocka_unit_test(m4),
        cmocka_unit_test(m4_cleared),
        cmocka_unit_test(m4_policy),
        cmocka_unit_test(m4_policy_changes),
        cmocka_unit_test(m4_log_missing),
        cmocka_unit_test(key_store),
        cmocka_unit_test(m5),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
