/* M8 and the keys of tokens: each refusal by its own reason, the records, the rotation, and the
 * documents that others read. */
#include "tests/unit/issuer/tokens.h"

#include "provision/oidc/provider.h"

/* By the served set of keys, as a relying party would. */
static void check_token(struct stage *s, const char *text, const char *audience, bool good)
{
    att_autobuf body = ATT_BUF_INIT(1 << 20);
    struct oidc_jwks *jwks = NULL;
    struct oidc_jwt jwt = {0};
    const char *sub = NULL;
    const struct oidc_expect expect = {
        .issuer = ISS, .audience = audience, .leeway_s = 0, .lifetime_max_s = 300};
    rig_ok(issuer_jwt_document(s->rig.issuer, "/keys", &body, &err));
    rig_ok(oidc_jwks_parse(att_buf_slice(&body), &jwks, &err));
    rig_ok(oidc_jwt_parse(att_slice_str(text), &jwt, &err));
    const struct oidc_key *key = oidc_jwks_find(jwks, jwt.kid);
    assert_int_equal(key != NULL, good);
    if (good) {
        rig_ok(oidc_jwt_verify(&jwt, key->pkey, &err));
        rig_ok(oidc_jwt_check(&jwt, &expect, rig_time, &sub, &err));
        assert_string_equal(sub, ID);
    }
    oidc_jwt_done(&jwt);
    oidc_jwks_free(jwks);
}

static void minted(void **state)
{
    (void)state;
    struct stage s;
    struct held held;
    stage_tokens(&s, &held);
    assert_int_equal(ask(&s, &held, &right), 200);
    char token[2048];
    rig_copy(token, sizeof token, client_text(&s.client, "token"));
    assert_int_equal(json_integer_value(json_object_get(s.client.body, "expiresAt")),
                     rig_time + 300);
    check_token(&s, token, AUD, true);
    /* The record has the jti and no token. */
    json_t *list = rig_admin(&s.rig, "audit.list", json_pack("{s:i}", "limit", 1));
    char *dump = json_dumps(list, 0);
    const json_t *record =
        json_object_get(json_array_get(json_object_get(list, "records"), 0), "record");
    assert_string_equal(issuer_string(record, "kind"), "token");
    assert_string_equal(issuer_string(record, "outcome"), "granted");
    assert_int_equal(strlen(issuer_string(record, "jti")), 32);
    assert_null(strstr(dump, strrchr(token, '.') + 1));
    free(dump);
    json_decref(list);
    /* It ends with the certificate, if that is sooner. */
    rig_time += 3600 - 100;
    json_t *all = rig_admin(&s.rig, "cert.list", json_pack("{s:s}", "kind", "agent"));
    json_decref(all);
    assert_int_equal(ask(&s, &held, &right), 200);
    assert_true(json_integer_value(json_object_get(s.client.body, "expiresAt")) <= rig_time + 100);
    stage_free(&s);
}

static void proofs(void **state)
{
    (void)state;
    struct stage s;
    struct held held;
    stage_tokens(&s, &held);
    EVP_PKEY *other = forge_p256();
    refused(&s, &held, &(struct asking){.key = other}, "tokenProof");
    refused(&s, &held, &(struct asking){.typ = "JWT"}, "tokenProof");
    refused(&s, &held, &(struct asking){.nonce = "of-before"}, "tokenNonce");
    refused(&s, &held, &(struct asking){.kid = "00ff"}, "noCertificate");
    refused(&s, &held, &(struct asking){.audience = "https://other.example"}, "audienceDenied");
    refused(&s, &held, &(struct asking){.id = "spiffe://bank.example/agent/elsewhere"},
            "notAssigned");
    refused(&s, &held, &(struct asking){.id = "spiffe://other.example/agent/" RIG_NAME},
            "notAssigned");
    assert_int_equal(ask(&s, &held, &(struct asking){.audience = "with space"}), 400);
    client_refused(&s.client, "malformed");
    /* Another account, which is no host's. */
    struct client stranger, mine = s.client;
    client_new(&stranger, &s.rig);
    json_t *ticket = rig_ticket(&s.rig, NULL, 1);
    assert_int_equal(client_account(&stranger, ticket), 201);
    json_decref(ticket);
    s.client = stranger;
    refused(&s, &held, &right, "hostUnknown");
    client_free(&s.client);
    s.client = mine;
    assert_int_equal(ask(&s, &held, &right), 200); /* nothing else was wrong */
    EVP_PKEY_free(other);
    stage_free(&s);
}

static void revoked(void **state)
{
    (void)state;
    struct stage s;
    struct held held;
    stage_tokens(&s, &held);
    rig_admin_done(&s.rig, "cert.revoke", json_pack("{s:s}", "serial", held.serial));
    refused(&s, &held, &right, "certRevoked");
    issue(&s, &held);
    assert_int_equal(ask(&s, &held, &right), 200);
    token_entries(&s, ""); /* the entry allows none any more */
    refused(&s, &held, &right, "audienceDenied");
    rig_admin_done(&s.rig, "entry.delete", json_pack("{s:s}", "name", RIG_NAME));
    refused(&s, &held, &right, "notAssigned");
    rig_admin_done(&s.rig, "host.ban", json_pack("{s:s, s:s}", "id", s.tpm.ek_id, "reason", "x"));
    refused(&s, &held, &right, "hostBanned");
    stage_free(&s);
}

static void wrong_magic(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->magic_quote ^= 1;
    }
}

static void freshness(void **state)
{
    (void)state;
    struct stage s;
    struct held held;
    struct order o;
    stage_tokens(&s, &held);
    reconfigure(&s.rig, "  issuer: " ISS "\n", "  issuer: " ISS "\n  evidence_max_age: 10m\n");
    rig_time += 600;
    assert_int_equal(ask(&s, &held, &right), 200);
    rig_time += 1;
    refused(&s, &held, &right, "evidenceStale");
    rig_time -= 601 + 61; /* the issuer's clock goes back behind the verdict */
    refused(&s, &held, &right, "clockBack");
    rig_time += 61;
    assert_int_equal(ask(&s, &held, &right), 200);
    s.tpm.mutate = wrong_magic; /* a verdict of "no" since */
    s.tpm.clock.clock_ms += 1000;
    assert_int_equal(rig_order(&s.client, RIG_NAME, &o), 201);
    assert_string_equal(rig_m4(&s.client, &s.tpm, &o, s.ak), "invalid");
    refused(&s, &held, &right, "verdictRefused");
    s.tpm.mutate = NULL;
    rig_time += 1;
    issue(&s, &held);
    assert_int_equal(ask(&s, &held, &right), 200);
    rig_time += 3600; /* the certificate ends, the evidence was too old before */
    refused(&s, &held, &right, "noCertificate");
    stage_free(&s);
}

static int published(struct stage *s)
{
    att_autobuf body = ATT_BUF_INIT(1 << 20);
    json_t *json = NULL;
    rig_ok(issuer_jwt_document(s->rig.issuer, "/keys", &body, &err));
    rig_ok(att_json_parse(att_buf_slice(&body), 1 << 20, &json, &err));
    int n = (int)json_array_size(json_object_get(json, "keys"));
    json_decref(json);
    return n;
}

static void kid_now(struct stage *s, const struct held *held, char ret[ACME_THUMBPRINT_LEN])
{
    assert_int_equal(ask(s, held, &right), 200);
    rig_copy(ret, ACME_THUMBPRINT_LEN, client_text(&s->client, "kid"));
}

struct looking {
    struct issuer *issuer;
    const char *gone; /* the only key is taken away before; the failure brings it back */
};

static enum att_rc look_for_signer(void *user, struct store_tx *tx, struct att_err *why)
{
    const struct looking *look = user;
    char kid[ACME_THUMBPRINT_LEN];
    EVP_PKEY *key = NULL;
    enum att_rc rc = look->gone ? store_delete(tx, &store_jwt_keys, look->gone, why) : ATT_OK;
    if (rc == ATT_OK) {
        rc = issuer_jwt_signer(look->issuer, tx, rig_time, kid, &key, why);
    }
    EVP_PKEY_free(key);
    return rc;
}

static void signer_missing(struct stage *s, const char *gone, const char *word)
{
    struct looking look = {s->rig.issuer, gone};
    struct att_err why = {0};
    assert_int_equal(store_run(look.issuer->store, true, look_for_signer, &look, &why),
                     ATT_E_RETRY);
    assert_string_equal(why.reason, "jwtKeyMissing");
    assert_non_null(strstr(why.msg, word));
}

/* Published before it signs; kept until the last token has ended. */
static void rotation(void **state)
{
    (void)state;
    struct stage s;
    struct held held;
    char first[ACME_THUMBPRINT_LEN], kid[ACME_THUMBPRINT_LEN], token[2048];
    stage_tokens(&s, &held);
    reconfigure(&s.rig, "  issuer: " ISS "\n", "  issuer: " ISS "\n  rotate: 6h\n");
    kid_now(&s, &held, first);
    assert_int_equal(published(&s), 1);
    const int64_t begin = rig_time, period = 6 * 3600;
    issuer_jwt_tick(s.rig.issuer);
    assert_int_equal(published(&s), 1);
    rig_time = begin + period - 3600; /* publish_wait before the change */
    issuer_jwt_tick(s.rig.issuer);
    assert_int_equal(published(&s), 2);
    issuer_jwt_tick(s.rig.issuer); /* once */
    assert_int_equal(published(&s), 2);
    issue(&s, &held);
    kid_now(&s, &held, kid);
    assert_string_equal(kid, first); /* the new one does not sign yet */
    rig_time = begin + period - 1;
    issue(&s, &held);
    kid_now(&s, &held, kid);
    assert_string_equal(kid, first);
    rig_copy(token, sizeof token, client_text(&s.client, "token"));
    rig_time = begin + period + 1;
    issue(&s, &held);
    kid_now(&s, &held, kid);
    assert_string_not_equal(kid, first);
    check_token(&s, token, AUD, true);
    rig_time = begin + period + ISSUER_JWT_LINGER_S - 1;
    issuer_jwt_tick(s.rig.issuer);
    assert_int_equal(published(&s), 2);
    rig_time = begin + period + ISSUER_JWT_LINGER_S;
    issuer_jwt_tick(s.rig.issuer);
    assert_int_equal(published(&s), 1);
    check_token(&s, token, AUD, false); /* its key is unknown */
    rig_audited(&s.rig, "removed", "ended");
    stage_free(&s);
}

/* A key that is lost: the next one signs at once, and the old one is believed by nobody. */
static void withdrawn(void **state)
{
    (void)state;
    struct stage s;
    struct held held;
    char first[ACME_THUMBPRINT_LEN], second[ACME_THUMBPRINT_LEN], third[ACME_THUMBPRINT_LEN];
    stage_tokens(&s, &held);
    kid_now(&s, &held, first);
    rig_ok(issuer_jwt_replace(s.rig.issuer, false, NULL, second, &err));
    assert_int_equal(published(&s), 2);
    rig_time += 1;
    kid_now(&s, &held, third);
    assert_string_equal(third, second);
    rig_ok(issuer_jwt_replace(s.rig.issuer, true, NULL, third, &err));
    rig_audited(&s.rig, "replaced", "");
    assert_int_equal(published(&s), 1);
    kid_now(&s, &held, first);
    assert_string_equal(first, third);
    /* A file that is gone is said by name, and nothing is signed. */
    char command[300];
    issuer_jwt_free(s.rig.issuer);
    snprintf(command, sizeof command, "rm -r '%s/state/ca/jwt'", s.rig.dir);
    assert_int_equal(system(command), 0);
    rig_ok(issuer_jwt_start(s.rig.issuer, &err));
    assert_int_equal(ask(&s, &held, &right), 429);
    signer_missing(&s, NULL, "cannot be used here");
    signer_missing(&s, third, "no key for tokens yet");
    /* Not while tokens of the last key live (it may be another issuer's); then the next one signs.
     */
    issuer_jwt_tick(s.rig.issuer);
    assert_int_equal(published(&s), 1);
    rig_time += ISSUER_JWT_LINGER_S;
    issuer_jwt_tick(s.rig.issuer);
    assert_int_equal(published(&s), 2);
    rig_audited(&s.rig, "published", "");
    issue(&s, &held);
    kid_now(&s, &held, second);
    assert_string_not_equal(second, third);
    stage_free(&s);
}

static int files(struct stage *s)
{
    char command[300];
    int n = -1;
    snprintf(command, sizeof command, "ls '%s/state/ca/jwt' | wc -l", s->rig.dir);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    assert_int_equal(fscanf(pipe, "%d", &n), 1);
    pclose(pipe);
    return n;
}

static bool recorded(struct stage *s, const char *kid, const char *reason)
{
    json_t *list = rig_admin(&s->rig, "audit.list", json_pack("{s:s}", "kind", "jwtKey"));
    const json_t *records = json_object_get(list, "records"), *one;
    bool found = false;
    size_t i;
    json_array_foreach(records, i, one)
    {
        const json_t *record = json_object_get(one, "record");
        found = found || (strcmp(issuer_string(record, "outcome"), "removed") == 0 &&
                          strcmp(issuer_string(record, "reason"), reason) == 0 &&
                          strcmp(issuer_string(record, "subject"), kid) == 0);
    }
    json_decref(list);
    return found;
}

/* Keys that are gone are nowhere: not the files that a copied folder brings, not those that a
 * refused replacement made; and the record says when each went. */
static void gone(void **state)
{
    (void)state;
    struct stage s;
    struct held held;
    char kid[ACME_THUMBPRINT_LEN], first[ACME_THUMBPRINT_LEN], command[600];
    stage_tokens(&s, &held);
    kid_now(&s, &held, first);
    assert_int_equal(files(&s), 1);
    for (int i = 1; i < ISSUER_JWT_KEYS_MAX; i++) {
        rig_time += 1;
        rig_ok(issuer_jwt_replace(s.rig.issuer, false, NULL, kid, &err));
    }
    assert_int_equal(files(&s), ISSUER_JWT_KEYS_MAX);
    struct att_err why = {0};
    rig_time += 1;
    assert_int_equal(issuer_jwt_replace(s.rig.issuer, false, NULL, kid, &why), ATT_E_CONFLICT);
    assert_string_equal(why.reason, "jwtKeysMany");
    assert_int_equal(files(&s), ISSUER_JWT_KEYS_MAX);
    /* As another issuer's copy. */
    snprintf(command, sizeof command,
             "cp -r '%s/state/ca/jwt' '%s/copy' && touch -d 2001-01-01 '%s'/copy/*", s.rig.dir,
             s.rig.dir, s.rig.dir);
    assert_int_equal(system(command), 0);
    rig_ok(issuer_jwt_replace(s.rig.issuer, true, NULL, kid, &err));
    assert_int_equal(files(&s), 1);
    assert_true(recorded(&s, first, "withdrawn"));
    snprintf(command, sizeof command, "cp -p '%s'/copy/* '%s/state/ca/jwt'", s.rig.dir, s.rig.dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(files(&s), ISSUER_JWT_KEYS_MAX + 1);
    issuer_jwt_tick(s.rig.issuer);
    assert_int_equal(files(&s), 1);
    kid_now(&s, &held, first);
    assert_string_equal(first, kid);
    stage_free(&s);
}

static void documents(void **state)
{
    (void)state;
    struct stage s;
    struct held held;
    att_autobuf body = ATT_BUF_INIT(1 << 20);
    char *uri = NULL;
    json_t *json = NULL;
    stage_tokens(&s, &held);
    rig_ok(issuer_jwt_document(s.rig.issuer, "/.well-known/openid-configuration", &body, &err));
    rig_ok(oidc_discovery_parse(att_buf_slice(&body), ISS, &uri, &err));
    assert_string_equal(uri, ISS "/keys");
    free(uri);
    att_buf_reset(&body);
    rig_ok(issuer_jwt_document(s.rig.issuer, "/bundle", &body, &err));
    rig_ok(att_json_parse(att_buf_slice(&body), 1 << 20, &json, &err));
    const json_t *keys = json_object_get(json, "keys");
    assert_int_equal(json_array_size(keys), 2);
    assert_string_equal(issuer_string(json_array_get(keys, 0), "use"), "x509-svid");
    assert_null(json_object_get(json_array_get(keys, 0), "kid"));
    assert_int_equal(json_array_size(json_object_get(json_array_get(keys, 0), "x5c")), 1);
    assert_string_equal(issuer_string(json_array_get(keys, 1), "use"), "jwt-svid");
    assert_true(issuer_string(json_array_get(keys, 1), "kid")[0] != 0);
    json_int_t sequence = json_integer_value(json_object_get(json, "spiffe_sequence"));
    assert_true(sequence > 0);
    json_decref(json);
    char kid[ACME_THUMBPRINT_LEN];
    rig_ok(issuer_jwt_replace(s.rig.issuer, false, NULL, kid, &err));
    att_buf_reset(&body);
    rig_ok(issuer_jwt_document(s.rig.issuer, "/bundle", &body, &err));
    rig_ok(att_json_parse(att_buf_slice(&body), 1 << 20, &json, &err));
    assert_true(json_integer_value(json_object_get(json, "spiffe_sequence")) > sequence);
    json_decref(json);
    struct att_err none = {0};
    assert_int_equal(issuer_jwt_document(s.rig.issuer, "/other", &body, &none), ATT_E_NOTFOUND);
    stage_free(&s);
}

static void root_of(const char *group, const char *crv, size_t len)
{
    EVP_PKEY *key = EVP_EC_gen(group);
    X509 *cert = X509_new();
    json_t *keys = json_array();
    assert_non_null(key);
    assert_int_equal(X509_set_pubkey(cert, key), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(cert), 0));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(cert), 3600));
    assert_true(X509_sign(cert, key, EVP_sha384()) > 0);
    rig_ok(issuer_jwt_add_root(cert, keys, &err));
    assert_int_equal(json_array_size(keys), crv ? 1 : 0);
    const json_t *jwk = json_array_get(keys, 0);
    if (crv) {
        assert_string_equal(issuer_string(jwk, "crv"), crv);
        assert_int_equal(strlen(issuer_string(jwk, "x")), len);
        assert_int_equal(strlen(issuer_string(jwk, "y")), len);
        assert_int_equal(json_array_size(json_object_get(jwk, "x5c")), 1);
    }
    json_decref(keys);
    X509_free(cert);
    EVP_PKEY_free(key);
}

/* Roots from outside are on other curves than accounts' keys. */
static void roots(void **state)
{
    (void)state;
    root_of("P-256", "P-256", 43);
    root_of("P-384", "P-384", 64);
    root_of("P-521", "P-521", 88);
    root_of("secp256k1", NULL, 0);
}

/* Without the section there is no such resource. */
static void off(void **state)
{
    (void)state;
    struct stage s;
    struct held held;
    stage_enrolled(&s, "forge");
    issue(&s, &held);
    assert_int_equal(ask(&s, &held, &right), 404);
    client_refused(&s.client, "tokensOff");
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(minted),    cmocka_unit_test(proofs),   cmocka_unit_test(revoked),
        cmocka_unit_test(freshness), cmocka_unit_test(rotation), cmocka_unit_test(withdrawn),
        cmocka_unit_test(documents), cmocka_unit_test(off),      cmocka_unit_test(gone),
        cmocka_unit_test(roots),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
