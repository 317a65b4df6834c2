/* Tokens as ValidateJWTSVID judges them, each wrong in one thing; and claims as a Struct. */
#include "attestd/spiffe/jwt_claims.h"
#include "attestd/spiffe/service.h"
#include "tests/unit/oidc/sign.h"

#define ID      "spiffe://bank.example/agent/alpha"
#define H       "{\"alg\":\"ES256\",\"kid\":\"k\",\"typ\":\"JWT\"}"
#define C(rest) "{\"sub\":\"" ID "\",\"aud\":\"a\",\"exp\":1800000200,\"iat\":1799999990" rest "}"

struct rig {
    EVP_PKEY *key, *other;
    struct oidc_jwks *jwks, *theirs; /* of bank.example: key; of partner.example: other */
    struct jwt_keys keys;
};

static struct oidc_jwks *set_of(EVP_PKEY *key, const char *kid)
{
    att_autobuf text = {0};
    json_t *jwk = NULL;
    struct oidc_jwks *jwks = NULL;
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(key, &der);
    assert_true(len > 0);
    assert_int_equal(acme_spki_to_jwk(ATT_SLICE(der, (size_t)len), &jwk, NULL), ATT_OK);
    OPENSSL_free(der);
    json_object_set_new(jwk, "kid", json_string(kid));
    json_object_set_new(jwk, "alg", json_string("ES256"));
    json_t *set = json_pack("{s:[o]}", "keys", jwk);
    assert_int_equal(att_json_dump(set, false, &text, NULL), ATT_OK);
    json_decref(set);
    assert_int_equal(oidc_jwks_parse(att_buf_slice(&text), &jwks, NULL), ATT_OK);
    return jwks;
}

static void rig_new(struct rig *r)
{
    *r = (struct rig){.key = EVP_EC_gen("P-256"), .other = EVP_EC_gen("P-256")};
    r->jwks = set_of(r->key, "k");
    r->theirs = set_of(r->other, "theirs");
    r->keys.of[0].trust_domain = "bank.example";
    r->keys.of[0].jwks = r->jwks;
    r->keys.n = 1;
}

static void rig_free(struct rig *r)
{
    oidc_jwks_free(r->jwks);
    oidc_jwks_free(r->theirs);
    EVP_PKEY_free(r->key);
    EVP_PKEY_free(r->other);
}

/* reason "": it holds. */
static void judged(const struct rig *r, EVP_PKEY *key, const char *header, const char *claims,
                   const char *reason)
{
    att_autobuf token = {0};
    struct oidc_jwt jwt = {0};
    struct att_err err = {0};
    sign_token(key, false, 0, header, claims, &token);
    enum att_rc rc = spiffed_jwt_judge(&r->keys, att_buf_cstr(&token), "a", NOW, &jwt, &err);
    if (strcmp(err.reason, reason) != 0) {
        print_error("%s: expected \"%s\", got %s (%s)\n", claims, reason, err.reason, err.msg);
    }
    assert_string_equal(err.reason, reason);
    assert_int_equal(rc, reason[0] ? ATT_E_AUTH : ATT_OK);
    oidc_jwt_done(&jwt);
}

static void test_judge(void **state)
{
    (void)state;
    struct rig r;
    rig_new(&r);
    judged(&r, r.key, H, C(""), "");
    judged(&r, r.key, "{\"alg\":\"ES256\",\"kid\":\"k\"}", C(""), "");
    judged(&r, r.key, "{\"alg\":\"ES256\",\"kid\":\"k\",\"typ\":\"JOSE\"}", C(""), "");
    judged(&r, r.other, H, C(""), "tokenSignature");
    judged(&r, r.key, "{\"alg\":\"none\",\"kid\":\"k\"}", C(""), "tokenAlg");
    judged(&r, r.key, "{\"alg\":\"HS256\",\"kid\":\"k\"}", C(""), "tokenAlg");
    judged(&r, r.key, "{\"alg\":\"EdDSA\",\"kid\":\"k\"}", C(""), "tokenAlg");
    judged(&r, r.key, "{\"alg\":\"RS256\",\"kid\":\"k\"}", C(""), "tokenAlg");
    judged(&r, r.key, "{\"alg\":\"ES256\",\"kid\":\"other\"}", C(""), "tokenKid");
    judged(&r, r.key, "{\"alg\":\"ES256\"}", C(""), "tokenKid");
    judged(&r, r.key, "{\"alg\":\"ES256\",\"kid\":\"k\",\"kid\":\"k\"}", C(""), "tokenForm");
    judged(&r, r.key, "{\"alg\":\"ES256\",\"kid\":\"k\",\"typ\":\"at+jwt\"}", C(""), "tokenForm");
    judged(&r, r.key, "{\"alg\":\"ES256\",\"kid\":\"k\",\"crit\":[]}", C(""), "tokenForm");
    judged(&r, r.key, H, "{\"aud\":\"a\",\"exp\":1800000200}", "tokenSubject");
    judged(&r, r.key, H, "{\"sub\":\"spiffe://other.example/x\",\"aud\":\"a\",\"exp\":1800000200}",
           "tokenDomain");
    judged(&r, r.key, H,
           "{\"sub\":\"spiffe://bank.example.evil/x\",\"aud\":\"a\",\"exp\":1800000200}",
           "tokenDomain");
    judged(&r, r.key, H, "{\"sub\":\"" ID "\",\"aud\":[\"b\",\"c\"],\"exp\":1800000200}",
           "tokenAudience");
    judged(&r, r.key, H, "{\"sub\":\"" ID "\",\"exp\":1800000200}", "tokenAudience");
    judged(&r, r.key, H, "{\"sub\":\"" ID "\",\"aud\":[\"b\",\"a\"],\"exp\":1800000200}", "");
    judged(&r, r.key, H, "{\"sub\":\"" ID "\",\"aud\":\"a\"}", "tokenForm");
    judged(&r, r.key, H, "{\"sub\":\"" ID "\",\"aud\":\"a\",\"exp\":1799999970}", "tokenExpired");
    judged(&r, r.key, H, "{\"sub\":\"" ID "\",\"aud\":\"a\",\"exp\":1799999971}", "");
    judged(&r, r.key, H, C(",\"nbf\":1800000031"), "tokenNotYet");
    judged(&r, r.key, H, C(",\"nbf\":1800000030"), "");
    rig_free(&r);
}

#define PARTNER "{\"sub\":\"spiffe://partner.example/agent/x\",\"aud\":\"a\",\"exp\":1800000200}"
#define THEIRS  "{\"alg\":\"ES256\",\"kid\":\"theirs\"}"

/* A token of another trust domain holds by that one's keys alone, and where the agent federates
 * with it. */
static void test_federated(void **state)
{
    (void)state;
    struct rig r;
    rig_new(&r);
    judged(&r, r.other, THEIRS, PARTNER, "tokenDomain");
    r.keys.of[1].trust_domain = "partner.example";
    r.keys.of[1].jwks = r.theirs;
    r.keys.n = 2;
    judged(&r, r.other, THEIRS, PARTNER, "");
    judged(&r, r.key, H, PARTNER, "tokenKid");      /* ours, for one of theirs */
    judged(&r, r.other, THEIRS, C(""), "tokenKid"); /* theirs, for one of ours */
    judged(&r, r.key, THEIRS, PARTNER, "tokenSignature");
    judged(&r, r.other, THEIRS,
           "{\"sub\":\"spiffe://third.example/x\",\"aud\":\"a\",\"exp\":1800000200}",
           "tokenDomain");
    judged(&r, r.key, H, C(""), "");
    r.keys.of[1].jwks = NULL; /* it has none that verifies here */
    judged(&r, r.other, THEIRS, PARTNER, "tokenKid");
    rig_free(&r);
}

static void test_claims(void **state)
{
    (void)state;
    /* {"a": true}: map entry {1: "a", 2: Value{4: 1}} */
    static const uint8_t expected[] = {0x0a, 0x07, 0x0a, 0x01, 'a', 0x12, 0x02, 0x20, 0x01};
    att_autobuf out = ATT_BUF_INIT(4096);
    json_t *json = json_pack("{s:b}", "a", 1);
    assert_int_equal(jwt_claims_encode(json, &out, NULL), ATT_OK);
    assert_true(att_slice_eq(att_buf_slice(&out), ATT_SLICE_ARRAY(expected)));
    json_decref(json);
    json_t *deep = json_array();
    for (int i = 0; i < JWT_CLAIMS_DEPTH_MAX + 1; i++) {
        deep = json_pack("[o]", deep);
    }
    json = json_pack("{s:o}", "a", deep);
    att_buf_reset(&out);
    assert_int_equal(jwt_claims_encode(json, &out, NULL), ATT_E_LIMIT);
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_judge),
                                       cmocka_unit_test(test_federated),
                                       cmocka_unit_test(test_claims)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
