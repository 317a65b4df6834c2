/* Tokens: the form, the algorithms, the claims at their edges. */
#include "tests/unit/oidc/sign.h"

#define HEAD   "{\"alg\":\"ES256\",\"kid\":\"k\"}"
#define CLAIMS "\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"s\""

static EVP_PKEY *ec, *rsa;

static int keys_up(void **state)
{
    (void)state;
    ec = EVP_EC_gen("P-256");
    rsa = EVP_RSA_gen(2048);
    return ec && rsa ? 0 : 1;
}

static int keys_down(void **state)
{
    (void)state;
    EVP_PKEY_free(ec);
    EVP_PKEY_free(rsa);
    return 0;
}

static enum att_rc parse(const char *header, const char *claims, struct oidc_jwt *ret,
                         struct att_err *err)
{
    att_autobuf token = {0};
    sign_token(ec, false, 0, header, claims, &token);
    return oidc_jwt_parse(att_buf_slice(&token), ret, err);
}

static void test_form(void **state)
{
    (void)state;
    struct oidc_jwt jwt;
    static const char *const bad[] = {"",          ".",        "..",         "a.b",
                                      "a.b.c.d",   "e30.e30.", "e30=.e30.x", "bm8.e30.x",
                                      "e30.bm8.x", "e30.W10.x" /* claims: an array */};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct att_err err = {0};
        assert_int_equal(oidc_jwt_parse(att_slice_str(bad[i]), &jwt, &err), ATT_E_AUTH);
        assert_true(strcmp(err.reason, "tokenForm") == 0 || strcmp(err.reason, "tokenAlg") == 0);
    }
    refused(parse("{\"alg\":\"ES256\",\"kid\":\"k\",\"crit\":[]}", "{}", &jwt, &err), ATT_E_AUTH,
            "tokenForm");
    refused(parse("{\"alg\":\"ES256\",\"kid\":\"k\",\"b64\":true}", "{}", &jwt, &err), ATT_E_AUTH,
            "tokenForm");
    refused(parse("{\"alg\":\"ES256\",\"alg\":\"ES256\",\"kid\":\"k\"}", "{}", &jwt, &err),
            ATT_E_AUTH, "tokenForm");
    refused(parse("{\"alg\":\"ES256\",\"kid\":\"k\",\"typ\":\"dpop+jwt\"}", "{}", &jwt, &err),
            ATT_E_AUTH, "tokenForm");
    refused(parse(HEAD, "{\"a\":1,\"a\":2}", &jwt, &err), ATT_E_AUTH, "tokenForm");
    refused(parse("{\"alg\":\"ES256\"}", "{}", &jwt, &err), ATT_E_AUTH, "tokenKid");
    refused(parse("{\"alg\":\"ES256\",\"kid\":\"\"}", "{}", &jwt, &err), ATT_E_AUTH, "tokenKid");
    refused(parse("{\"alg\":\"ES256\",\"kid\":7}", "{}", &jwt, &err), ATT_E_AUTH, "tokenKid");
    static const char *const algs[] = {"none", "HS256", "HS512", "ES384", "EdDSA", "es256", ""};
    for (size_t i = 0; i < sizeof algs / sizeof algs[0]; i++) {
        char header[80];
        snprintf(header, sizeof header, "{\"alg\":\"%s\",\"kid\":\"k\"}", algs[i]);
        refused(parse(header, "{}", &jwt, &err), ATT_E_AUTH, "tokenAlg");
    }
    assert_int_equal(parse(HEAD, "{}", &jwt, NULL), ATT_OK);
    assert_string_equal(jwt.kid, "k");
    assert_string_equal(oidc_jwt_issuer(&jwt), "");
    oidc_jwt_done(&jwt);
}

static void test_size(void **state)
{
    (void)state;
    struct oidc_jwt jwt;
    att_autobuf token = {0};
    char *claims = malloc(OIDC_TOKEN_MAX);
    memset(claims, ' ', OIDC_TOKEN_MAX);
    claims[0] = '{';
    claims[OIDC_TOKEN_MAX - 2] = '}';
    claims[OIDC_TOKEN_MAX - 1] = 0;
    sign_token(ec, false, 0, HEAD, claims, &token);
    assert_true(token.len > OIDC_TOKEN_MAX);
    refused(oidc_jwt_parse(att_buf_slice(&token), &jwt, &err), ATT_E_AUTH, "tokenForm");
    free(claims);
}

static enum att_rc verify(EVP_PKEY *signer, bool pss, int salt, const char *alg, EVP_PKEY *key,
                          struct att_err *err)
{
    att_autobuf token = {0};
    struct oidc_jwt jwt;
    char header[80];
    snprintf(header, sizeof header, "{\"alg\":\"%s\",\"kid\":\"k\"}", alg);
    sign_token(signer, pss, salt, header, "{}", &token);
    assert_int_equal(oidc_jwt_parse(att_buf_slice(&token), &jwt, NULL), ATT_OK);
    enum att_rc rc = oidc_jwt_verify(&jwt, key, err);
    oidc_jwt_done(&jwt);
    return rc;
}

static void test_signatures(void **state)
{
    (void)state;
    EVP_PKEY *other = EVP_EC_gen("P-256");
    assert_int_equal(verify(ec, false, 0, "ES256", ec, NULL), ATT_OK);
    assert_int_equal(verify(rsa, false, 0, "RS256", rsa, NULL), ATT_OK);
    assert_int_equal(verify(rsa, true, 32, "PS256", rsa, NULL), ATT_OK);
    refused(verify(ec, false, 0, "ES256", other, &err), ATT_E_AUTH, "tokenSignature");
    refused(verify(rsa, true, 20, "PS256", rsa, &err), ATT_E_AUTH, "tokenSignature"); /* the salt */
    refused(verify(rsa, true, 32, "RS256", rsa, &err), ATT_E_AUTH, "tokenSignature");
    refused(verify(rsa, false, 0, "PS256", rsa, &err), ATT_E_AUTH, "tokenSignature");
    refused(verify(ec, false, 0, "RS256", ec, &err), ATT_E_AUTH, "tokenAlg");
    refused(verify(ec, false, 0, "PS256", ec, &err), ATT_E_AUTH, "tokenAlg");
    refused(verify(rsa, false, 0, "ES256", rsa, &err), ATT_E_AUTH, "tokenAlg");
    refused(verify(ec, false, 0, "ES256", rsa, &err), ATT_E_AUTH, "tokenAlg");
    EVP_PKEY_free(other);
}

static enum att_rc claims_are(const char *claims, const char **ret_sub, struct att_err *err)
{
    static char tenant[] = "tid=bank", *const wanted[] = {tenant};
    static char kept[300];
    const struct oidc_expect expect = {ISS, AUD, 60, 3600, wanted, strstr(claims, "tid") ? 1 : 0};
    struct oidc_jwt jwt;
    const char *sub = NULL;
    assert_int_equal(parse(HEAD, claims, &jwt, NULL), ATT_OK);
    enum att_rc rc = oidc_jwt_check(&jwt, &expect, NOW, &sub, err);
    if (!rc && ret_sub) {
        snprintf(kept, sizeof kept, "%s", sub);
        *ret_sub = kept;
    }
    oidc_jwt_done(&jwt);
    return rc;
}

/* Each time at the last second that is good and at the first that is not. */
static void test_times(void **state)
{
    (void)state;
    const struct {
        const char *claims, *reason;
    } all[] = {
        {"{" CLAIMS ",\"exp\":1799999941}", NULL},
        {"{" CLAIMS ",\"exp\":1799999940}", "tokenExpired"},
        {"{" CLAIMS ",\"exp\":1800003660}", NULL},
        {"{" CLAIMS ",\"exp\":1800003661}", "tokenLifetime"},
        {"{" CLAIMS ",\"exp\":1800000600,\"nbf\":1800000060}", NULL},
        {"{" CLAIMS ",\"exp\":1800000600,\"nbf\":1800000061}", "tokenNotYet"},
        {"{" CLAIMS ",\"exp\":1800000600,\"iat\":1800000060}", NULL},
        {"{" CLAIMS ",\"exp\":1800000600,\"iat\":1800000061}", "tokenNotYet"},
        {"{" CLAIMS ",\"exp\":1800000600.5}", NULL},
        {"{" CLAIMS ",\"exp\":\"1800000600\"}", "tokenForm"},
        {"{" CLAIMS ",\"exp\":-1}", "tokenForm"},
        {"{" CLAIMS ",\"exp\":1e300}", "tokenForm"},
        {"{" CLAIMS ",\"exp\":9223372036854775807}", "tokenForm"},
        {"{" CLAIMS ",\"exp\":1800000600,\"nbf\":null}", "tokenForm"},
        {"{" CLAIMS "}", "tokenForm"},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct att_err err = {0};
        enum att_rc rc = claims_are(all[i].claims, NULL, &err);
        assert_int_equal(rc, all[i].reason ? ATT_E_AUTH : ATT_OK);
        assert_string_equal(err.reason, all[i].reason ? all[i].reason : "");
    }
}

#define WITH(more) "{\"exp\":1800000600," more "}"

static void test_claims(void **state)
{
    (void)state;
    const char *sub = NULL;
    assert_int_equal(claims_are(WITH(CLAIMS), &sub, NULL), ATT_OK);
    assert_string_equal(sub, "s");
    const struct {
        const char *claims, *reason;
    } all[] = {
        {WITH("\"iss\":\"" ISS "/\",\"aud\":\"" AUD "\",\"sub\":\"s\""), "tokenIssuer"},
        {WITH("\"iss\":[\"" ISS "\"],\"aud\":\"" AUD "\",\"sub\":\"s\""), "tokenIssuer"},
        {WITH("\"iss\":\"" ISS "\",\"aud\":\"" AUD "2\",\"sub\":\"s\""), "tokenAudience"},
        {WITH("\"iss\":\"" ISS "\",\"aud\":[],\"sub\":\"s\""), "tokenAudience"},
        {WITH("\"iss\":\"" ISS "\",\"aud\":{\"a\":\"" AUD "\"},\"sub\":\"s\""), "tokenAudience"},
        {WITH("\"iss\":\"" ISS "\",\"aud\":[1,\"" AUD "\"],\"sub\":\"s\""), NULL},
        {WITH("\"iss\":\"" ISS "\",\"aud\":\"" AUD "\""), "tokenSubject"},
        {WITH("\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"\""), "tokenSubject"},
        {WITH("\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":7"), "tokenSubject"},
        {WITH("\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"a\\nb\""), "tokenSubject"},
        {WITH("\"iss\":\"" ISS "\",\"aud\":\"" AUD "\",\"sub\":\"\\u00e9\""), "tokenSubject"},
        {WITH(CLAIMS ",\"tid\":\"bank\""), NULL},
        {WITH(CLAIMS ",\"tid\":\"bank2\""), "tokenClaim"},
        {WITH(CLAIMS ",\"tid\":[\"bank\"]"), "tokenClaim"},
        {WITH(CLAIMS ",\"x\":\"tid\""), "tokenClaim"},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        struct att_err err = {0};
        enum att_rc rc = claims_are(all[i].claims, NULL, &err);
        assert_int_equal(rc, all[i].reason ? ATT_E_AUTH : ATT_OK);
        assert_string_equal(err.reason, all[i].reason ? all[i].reason : "");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_form),       cmocka_unit_test(test_size),
        cmocka_unit_test(test_signatures), cmocka_unit_test(test_times),
        cmocka_unit_test(test_claims),
    };
    return cmocka_run_group_tests(tests, keys_up, keys_down);
}
