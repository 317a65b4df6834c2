/* RFC 7515, RFC 7638 and RFC 8555 examples, and requests made by python3-acme. Refusals first. */
#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "provision/acme/jws.h"
#include "provision/acme/problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <openssl/evp.h>
#include <openssl/x509.h>

#define P256_JWK                                                                                   \
    "{\"x\": \"FumAqcrjo1VJQPBcZQZN7-E8eyaohRBdAc14f-9Cje0\", \"y\": "                             \
    "\"fF_23t3jmwzoWhNKl_RN8EMENGLi4T3vIu7GZDozDbE\", \"crv\": \"P-256\", \"kty\": \"EC\"}"
#define P256_SPKI                                                                                  \
    "3059301306072a8648ce3d020106082a8648ce3d0301070342000416e980a9cae3a3554940f05c65064defe13c"   \
    "7b26a885105d01cd787fef428ded7c5ff6dedde39b0ce85a134a97f44df043043462e2e13def22eec6643a330d"   \
    "b1"
#define KID_REQUEST                                                                                \
    "{\"protected\": "                                                                             \
    "\"eyJhbGciOiAiRVMyNTYiLCAia2lkIjogImh0dHBzOi8vY2EuZXhhbXBsZS9hY21lL2FjY3QvMSIsICJub25jZSI6I"  \
    "CJBUUlEQkEiLCAidXJsIjogImh0dHBzOi8vY2EuZXhhbXBsZS9hY21lL3gifQ\", \"signature\": "             \
    "\"0j0_LIsYTJYbT4ttKqn7jYL41bYJT2ybi5gxvx_i4IsLEuyDmA0zVrsHKWJJF_ydJxkDUvEJRzsFyXEs1XDyRw\", " \
    "\"payload\": \"eyJhIjoxfQ\"}"
#define JWK_REQUEST                                                                                \
    "{\"protected\": "                                                                             \
    "\"eyJhbGciOiAiRVMyNTYiLCAiandrIjogeyJ4IjogIkZ1bUFxY3JqbzFWSlFQQmNaUVpONy1FOGV5YW9oUkJkQWMxN"  \
    "GYtOUNqZTAiLCAieSI6ICJmRl8yM3Qzam13em9XaE5LbF9STjhFTUVOR0xpNFQzdkl1N0daRG96RGJFIiwgImNydiI6"  \
    "ICJQLTI1NiIsICJrdHkiOiAiRUMifSwgIm5vbmNlIjogIkFRSURCQSIsICJ1cmwiOiAiaHR0cHM6Ly9jYS5leGFtcGx"  \
    "lL2FjbWUveCJ9\", \"signature\": "                                                             \
    "\"dCFYolxB_pz1Wl5wA_u9BY3IZHYMjltoT8CT4b3zGzmByHEu-xmnvzH-hR_p0F7Gs1tJ4inzDlUQ9DNy87tpBw\", " \
    "\"payload\": \"eyJhIjoxfQ\"}"
#define EAB                                                                                        \
    "{\"protected\": "                                                                             \
    "\"eyJhbGciOiAiSFMyNTYiLCAia2lkIjogImtpZC0xIiwgInVybCI6ICJodHRwczovL2NhLmV4YW1wbGUvYWNtZS9uZ"  \
    "XctYWNjb3VudCJ9\", \"signature\": \"U7TuuB5uekIAqyFP4cgzm_XpEf5gdy9GpL3PXWm3rjU\", "          \
    "\"payload\": "                                                                                \
    "\"eyJ4IjogIkZ1bUFxY3JqbzFWSlFQQmNaUVpONy1FOGV5YW9oUkJkQWMxNGYtOUNqZTAiLCAieSI6ICJmRl8yM3Qza"  \
    "m13em9XaE5LbF9STjhFTUVOR0xpNFQzdkl1N0daRG96RGJFIiwgImNydiI6ICJQLTI1NiIsICJrdHkiOiAiRUMifQ\"}"
#define NEW_ACCOUNT "https://ca.example/acme/new-account"

static json_t *json_of(const char *text)
{
    json_t *json = NULL;
    assert_int_equal(att_json_parse(att_slice_str(text), 1 << 20, &json, NULL), ATT_OK);
    return json;
}

static void expect_err(const struct att_err *err, enum att_rc rc, const char *reason,
                       const char *word)
{
    if (err->rc != rc || strcmp(err->reason, reason) != 0 || !strstr(err->msg, word)) {
        fail_msg("expected %s/%s/\"%s\", got %s/%s/\"%s\"", att_rc_name(rc), reason, word,
                 att_rc_name(err->rc), err->reason, err->msg);
    }
}

/* A request with this protected header; the signature is 64 zero bytes. */
static char *request_of(const char *header, const char *extra)
{
    struct att_buf text = {0};
    const uint8_t zero[64] = {0};
    att_buf_put_str(&text, "{\"protected\":\"");
    att_buf_b64u(&text, att_slice_str(header));
    att_buf_put_str(&text, "\",\"payload\":\"e30\",\"signature\":\"");
    att_buf_b64u(&text, ATT_SLICE_ARRAY(zero));
    att_buf_put_str(&text, "\"");
    att_buf_put_str(&text, extra);
    att_buf_put_str(&text, "}");
    assert_non_null(att_buf_cstr(&text));
    return (char *)text.ptr;
}

static void refuse_text(const char *text, enum att_rc rc, const char *reason, const char *word)
{
    struct acme_jws jws = {0};
    struct att_err err = {0};
    assert_int_equal(acme_jws_parse(att_slice_str(text), 1 << 20, &jws, &err), rc);
    expect_err(&err, rc, reason, word);
    assert_null(jws.url);
}

static void refuse_header(const char *header, enum att_rc rc, const char *reason, const char *word)
{
    char *text = request_of(header, "");
    refuse_text(text, rc, reason, word);
    free(text);
}

/* ---- form --------------------------------------------------------------------------------------
 */
static void test_outer_form(void **state)
{
    (void)state;
    const char *const compact = "eyJhbGciOiJFUzI1NiJ9.e30.AAAA";
    refuse_text(compact, ATT_E_PARSE, "malformed", "JWS");
    refuse_text("", ATT_E_PARSE, "malformed", "JWS");
    refuse_text("[]", ATT_E_PARSE, "malformed", "protected, payload and signature only");
    refuse_text("{\"payload\":\"\",\"signatures\":[]}", ATT_E_PARSE, "malformed", "only");
    refuse_text("{\"payload\":\"\",\"signatures\":[],\"protected\":\"\"}", ATT_E_PARSE, "malformed",
                "a text each");
    refuse_text("{\"payload\":\"\",\"signature\":\"\",\"protected\":\"\"}", ATT_E_PARSE,
                "malformed", "protected header");
    refuse_text("{\"payload\":\"\",\"signature\":\"\",\"protected\":\"\",}", ATT_E_PARSE,
                "malformed", "JWS");
    refuse_text("{\"payload\":\"\" \"signature\":\"\",\"protected\":\"\"}", ATT_E_PARSE,
                "malformed", "JWS");
    refuse_text("{\"payload\":\"\",\"signature\":\"\",\"protected\":\"", ATT_E_PARSE, "malformed",
                "JWS");
    /* detached: no payload */
    refuse_text("{\"protected\":\"e30\",\"signature\":\"\",\"x\":\"\"}", ATT_E_PARSE, "malformed",
                "");
    char *text = request_of("{\"alg\":\"ES256\"}", ",\"header\":{\"kid\":\"x\"}");
    refuse_text(text, ATT_E_PARSE, "malformed", "only");
    free(text);
    text = request_of("{\"alg\":\"ES256\"}", ",\"payload\":\"\"");
    refuse_text(text, ATT_E_PARSE, "malformed", "twice");
    free(text);
    refuse_text(KID_REQUEST " x", ATT_E_PARSE, "malformed", "JWS");
    struct acme_jws jws = {0};
    assert_int_equal(acme_jws_parse(att_slice_str(KID_REQUEST), 100, &jws, NULL), ATT_E_LIMIT);
}

/* The usual form is read without jansson, others by it: the same comes out. */
static void test_outer_spellings(void **state)
{
    (void)state;
    char *request = request_of("{\"alg\":\"ES256\",\"nonce\":\"AQID\",\"url\":\"https://x/y\","
                               "\"kid\":\"https://x/1\"}",
                               "");
    struct acme_jws usual = {0};
    assert_int_equal(acme_jws_parse(att_slice_str(request), 1 << 20, &usual, NULL), ATT_OK);
    const char *head = strstr(request, "eyJ"), *signature = strstr(request, "AAAA");
    struct att_slice parts[] = {ATT_SLICE(head, strcspn(head, "\"")),
                                ATT_SLICE(signature, strcspn(signature, "\""))};
    static const char *const forms[][3] = {
        {"\n{ \"protected\"\t:\r\n\"", "\" , \"payload\": \"e30\",\"signature\":\"", "\" } "},
        {"{\"protected\":\"", "\",\"payload\":\"\\u0065\\u00330\",\"signature\":\"", "\"}"},
        {"{\"\\u0070rotected\":\"", "\",\"signature\":\"", "\",\"payload\":\"e30\"}"},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        att_autobuf text = {0};
        struct acme_jws jws = {0};
        att_buf_put_str(&text, forms[i][0]);
        att_buf_put_slice(&text, parts[0]);
        att_buf_put_str(&text, forms[i][1]);
        att_buf_put_slice(&text, parts[1]);
        att_buf_put_str(&text, forms[i][2]);
        assert_int_equal(acme_jws_parse(att_buf_slice(&text), 1 << 20, &jws, NULL), ATT_OK);
        assert_true(att_slice_eq(att_buf_slice(&jws.input), att_buf_slice(&usual.input)));
        assert_true(att_slice_eq(att_buf_slice(&jws.payload), att_buf_slice(&usual.payload)));
        assert_true(att_slice_eq(att_buf_slice(&jws.signature), att_buf_slice(&usual.signature)));
        acme_jws_done(&jws);
    }
    acme_jws_done(&usual);
    free(request);
}

#define N "\"nonce\":\"AQID\","
#define U "\"url\":\"https://x/y\","
#define K "\"kid\":\"https://x/1\""

static void test_header_form(void **state)
{
    (void)state;
    refuse_header("[]", ATT_E_PARSE, "malformed", "protected header");
    refuse_header("{\"alg\":\"ES256\",\"alg\":\"ES256\"}", ATT_E_PARSE, "malformed",
                  "without duplicates");
    refuse_header("{" N U K "}", ATT_E_PARSE, "malformed", "\"alg\" is missing");
    refuse_header("{\"alg\":\"ES256\"," U K "}", ATT_E_PARSE, "badNonce", "no nonce");
    refuse_header("{\"alg\":\"ES256\",\"nonce\":\"a+b/\"," U K "}", ATT_E_PARSE, "malformed",
                  "not base64url");
    refuse_header("{\"alg\":\"ES256\",\"nonce\":\"\"," U K "}", ATT_E_PARSE, "malformed",
                  "\"nonce\"");
    refuse_header("{\"alg\":\"ES256\"," N K "}", ATT_E_PARSE, "malformed", "\"url\"");
    refuse_header("{\"alg\":\"ES256\"," N U "\"x\":1}", ATT_E_PARSE, "malformed", "neither");
    refuse_header("{\"alg\":\"ES256\"," N U K ",\"jwk\":{}}", ATT_E_PARSE, "malformed", "both");
    refuse_header("{\"alg\":\"ES256\"," N U "\"jwk\":\"x\"}", ATT_E_PARSE, "malformed", "\"jwk\"");
    refuse_header("{\"alg\":\"ES256\"," N U "\"kid\":1}", ATT_E_PARSE, "malformed", "\"kid\"");
    refuse_header("{\"alg\":\"ES256\",\"b64\":false,\"crit\":[\"b64\"]," N U K "}", ATT_E_PARSE,
                  "malformed", "\"crit\" and \"b64\"");
    refuse_header("{\"alg\":\"ES256\",\"b64\":true," N U K "}", ATT_E_PARSE, "malformed",
                  "\"b64\"");
    refuse_header("{\"alg\":\"ES256\",\"crit\":[]," N U K "}", ATT_E_PARSE, "malformed",
                  "\"crit\"");
}

static void test_algorithms(void **state)
{
    (void)state;
    static const char *const bad[] = {"none", "HS256", "ES384", "RS1", "PS256", "EdDSA", "es256"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char header[160];
        snprintf(header, sizeof header, "{\"alg\":\"%s\"," N U K "}", bad[i]);
        refuse_header(header, ATT_E_UNSUPPORTED, "badSignatureAlgorithm", bad[i]);
    }
    /* … whose problem document names what would do (RFC 8555 §6.2). */
    struct acme_problem problem;
    struct att_err err = {0};
    struct acme_jws jws = {0};
    json_t *doc = NULL;
    char *text = request_of("{\"alg\":\"none\"," N U K "}", "");
    assert_int_not_equal(acme_jws_parse(att_slice_str(text), 4096, &jws, &err), ATT_OK);
    acme_problem_from_err(&problem, &err);
    assert_int_equal(problem.status, 400);
    assert_int_equal(acme_problem_encode(&problem, &doc, NULL), ATT_OK);
    assert_int_equal(json_array_size(json_object_get(doc, "algorithms")), 2);
    json_decref(doc);
    free(text);
}

/* ---- keys --------------------------------------------------------------------------------------
 */
static void refuse_key(const char *text, const char *word)
{
    json_t *jwk = json_of(text);
    struct att_buf spki = {0};
    struct att_err err = {0};
    char thumbprint[ACME_THUMBPRINT_LEN] = "untouched";
    assert_int_not_equal(acme_jwk_to_spki(jwk, &spki, &err), ATT_OK);
    expect_err(&err, ATT_E_PARSE, "badPublicKey", word);
    assert_int_not_equal(acme_jwk_thumbprint(jwk, thumbprint, NULL), ATT_OK);
    assert_string_equal(thumbprint, "untouched");
    json_decref(jwk);
}

#define X "\"x\":\"FumAqcrjo1VJQPBcZQZN7-E8eyaohRBdAc14f-9Cje0\","
#define Y "\"y\":\"fF_23t3jmwzoWhNKl_RN8EMENGLi4T3vIu7GZDozDbE\""

static void test_bad_keys(void **state)
{
    (void)state;
    refuse_key("{}", "\"kty\"");
    refuse_key("{\"kty\":\"oct\",\"k\":\"AAAA\"}", "private");
    refuse_key("{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AA\"}", "\"kty\"");
    refuse_key("{\"kty\":\"EC\",\"crv\":\"P-384\"," X Y "}", "P-256");
    refuse_key("{\"kty\":\"EC\",\"crv\":\"P-256\"," X Y ",\"d\":\"AQ\"}", "private");
    refuse_key("{\"kty\":\"EC\",\"crv\":\"P-256\"," Y "}", "32 bytes");
    /* 33 bytes with a leading zero; 31 bytes */
    refuse_key("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"ABbpgKnK46NVSUDwXGUGTe_hPHsmqIUQXQHNeH_v"
               "Qo3t\"," Y "}",
               "32 bytes");
    refuse_key("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"6YCpyuOjVUlA8FxlBk3v4Tx7JqiFEF0BzXh_70KN"
               "7Q\"," Y "}",
               "32 bytes");
    /* not on the curve (invalid-curve attack): y with its last bit flipped */
    refuse_key("{\"kty\":\"EC\",\"crv\":\"P-256\"," X
               "\"y\":\"fF_23t3jmwzoWhNKl_RN8EMENGLi4T3vIu7GZDozDbA\"}",
               "curve");
    /* the point at infinity's all-zero coordinates */
    refuse_key("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
               "AAA\",\"y\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}",
               "curve");
}

static char *rsa_jwk(size_t n_len, uint8_t first, const char *e)
{
    struct att_buf text = {0};
    uint8_t n[600];
    memset(n, 0xa5, sizeof n);
    n[0] = first;
    att_buf_put_str(&text, "{\"kty\":\"RSA\",\"e\":\"");
    att_buf_put_str(&text, e);
    att_buf_put_str(&text, "\",\"n\":\"");
    att_buf_b64u(&text, ATT_SLICE(n, n_len));
    att_buf_put_str(&text, "\"}");
    assert_non_null(att_buf_cstr(&text));
    return (char *)text.ptr;
}

static void test_rsa_limits(void **state)
{
    (void)state;
    const struct {
        size_t len;
        uint8_t first;
        const char *e, *word;
    } bad[] = {
        {128, 0xa5, "AQAB", "2048"},        {255, 0xa5, "AQAB", "2048"},
        {256, 0x7f, "AQAB", "2048"},        {513, 0xa5, "AQAB", "\"n\""},
        {256, 0x00, "AQAB", "leading"},     {256, 0xa5, "Aw", "exponent"}, /* 3 */
        {256, 0xa5, "AQAA", "exponent"},                                   /* even */
        {256, 0xa5, "", "\"n\" and \"e\""}, {256, 0xa5, "AAEAAQ", "leading"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char *text = rsa_jwk(bad[i].len, bad[i].first, bad[i].e);
        refuse_key(text, bad[i].word);
        free(text);
    }
    const size_t good[] = {256, 384, 512};
    for (size_t i = 0; i < 3; i++) {
        char *text = rsa_jwk(good[i], 0xa5, "AQAB");
        json_t *jwk = json_of(text), *back = NULL;
        struct att_buf spki = {0};
        assert_int_equal(acme_jwk_to_spki(jwk, &spki, NULL), ATT_OK);
        assert_int_equal(acme_spki_to_jwk(att_buf_slice(&spki), &back, NULL), ATT_OK);
        assert_true(json_equal(jwk, back));
        json_decref(jwk);
        json_decref(back);
        att_buf_done(&spki);
        free(text);
    }
}

static void test_spki(void **state)
{
    (void)state;
    struct att_buf spki = {0};
    json_t *jwk = NULL, *want = json_of(P256_JWK);
    char thumbprint[ACME_THUMBPRINT_LEN];
    assert_int_equal(att_unhex(&spki, att_slice_str(P256_SPKI), NULL), ATT_OK);
    assert_int_equal(acme_spki_to_jwk(ATT_SLICE(spki.ptr, spki.len - 1), &jwk, NULL), ATT_E_PARSE);
    att_buf_u8(&spki, 0);
    struct att_err err = {0};
    assert_int_equal(acme_spki_to_jwk(att_buf_slice(&spki), &jwk, &err), ATT_E_PARSE);
    assert_string_equal(err.reason, "badPublicKey");
    spki.len--;
    assert_int_equal(acme_spki_to_jwk(att_buf_slice(&spki), &jwk, NULL), ATT_OK);
    assert_true(json_equal(jwk, want));
    struct att_buf again = {0};
    assert_int_equal(acme_jwk_to_spki(jwk, &again, NULL), ATT_OK);
    assert_true(att_slice_eq(att_buf_slice(&again), att_buf_slice(&spki)));
    assert_int_equal(acme_spki_thumbprint(att_buf_slice(&spki), thumbprint, NULL), ATT_OK);
    assert_string_equal(thumbprint, "3go-qIWoBnedilMT5cwC9HI9w7WipQJneO0XEPZQkTw");
    json_decref(jwk);
    json_decref(want);
    att_buf_done(&spki);
    att_buf_done(&again);
}

/* RFC 7638 §3.1. */
static void test_rfc7638(void **state)
{
    (void)state;
    json_t *jwk = json_of(
        "{\"kty\":\"RSA\",\"n\":\"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86z"
        "wu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5"
        "w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpb"
        "ISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8aw"
        "apJzKnqDKgw\",\"e\":\"AQAB\",\"alg\":\"RS256\",\"kid\":\"2011-04-29\"}");
    char thumbprint[ACME_THUMBPRINT_LEN];
    assert_int_equal(acme_jwk_thumbprint(jwk, thumbprint, NULL), ATT_OK);
    assert_string_equal(thumbprint, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    json_decref(jwk);
}

/* ---- verification ------------------------------------------------------------------------------
 */
static struct acme_jws jws_of(enum acme_alg alg, const char *input, const char *signature)
{
    struct acme_jws jws = {.alg = alg};
    att_buf_put_str(&jws.input, input);
    assert_int_equal(att_unb64u(&jws.signature, att_slice_str(signature), NULL), ATT_OK);
    return jws;
}

static void refuse_signature(const struct acme_jws *jws, const json_t *jwk, const char *word)
{
    struct att_err err = {0};
    assert_int_equal(acme_jws_verify_jwk(jws, jwk, &err), ATT_E_AUTH);
    expect_err(&err, ATT_E_AUTH, "unauthorized", word);
}

/* RFC 7515 appendix A.3 (ES256). */
static void test_rfc7515_es256(void **state)
{
    (void)state;
    json_t *jwk = json_of("{\"kty\":\"EC\",\"crv\":\"P-256\","
                          "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
                          "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}");
    struct acme_jws jws = jws_of(
        ACME_ALG_ES256,
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGF"
        "tcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU"
        "1Q");
    assert_int_equal(acme_jws_verify_jwk(&jws, jwk, NULL), ATT_OK);
    jws.signature.ptr[40] ^= 1;
    refuse_signature(&jws, jwk, "does not verify");
    jws.signature.ptr[40] ^= 1;
    jws.input.ptr[30] ^= 1;
    refuse_signature(&jws, jwk, "does not verify");
    jws.input.ptr[30] ^= 1;
    jws.alg = ACME_ALG_RS256;
    refuse_signature(&jws, jwk, "does not fit the key");
    jws.alg = ACME_ALG_HS256; /* the public key as a MAC key: never */
    refuse_signature(&jws, jwk, "does not fit the key");
    jws.alg = ACME_ALG_ES256;
    jws.signature.len--;
    refuse_signature(&jws, jwk, "64 bytes");
    jws.signature.len = 64;
    memset(jws.signature.ptr, 0, 64); /* r = s = 0 */
    refuse_signature(&jws, jwk, "does not verify");
    json_t *other = json_of(P256_JWK);
    refuse_signature(&jws, other, "does not verify");
    json_decref(other);
    json_decref(jwk);
    acme_jws_done(&jws);
}

/* RFC 7515 appendix A.2 (RS256). */
static void test_rfc7515_rs256(void **state)
{
    (void)state;
    json_t *jwk = json_of(
        "{\"kty\":\"RSA\",\"n\":\"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp"
        "-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzj"
        "b_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZl"
        "xvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54"
        "h4FRWyuXpoQ\",\"e\":\"AQAB\"}");
    struct acme_jws jws = jws_of(
        ACME_ALG_RS256,
        "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGF"
        "tcGxlLmNvbS9pc19yb290Ijp0cnVlfQ",
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt"
        "_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArL"
        "IARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7no"
        "OPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQ"
        "Ge77Rw");
    assert_int_equal(acme_jws_verify_jwk(&jws, jwk, NULL), ATT_OK);
    jws.signature.ptr[0] ^= 1;
    refuse_signature(&jws, jwk, "does not verify");
    jws.signature.len--;
    refuse_signature(&jws, jwk, "length of the modulus");
    jws.alg = ACME_ALG_ES256;
    refuse_signature(&jws, jwk, "does not fit the key");
    json_decref(jwk);
    acme_jws_done(&jws);
}

static void test_python_requests(void **state)
{
    (void)state;
    json_t *key = json_of(P256_JWK);
    struct acme_jws jws = {0};
    assert_int_equal(acme_jws_parse(att_slice_str(KID_REQUEST), 1 << 20, &jws, NULL), ATT_OK);
    assert_string_equal(jws.kid, "https://ca.example/acme/acct/1");
    assert_string_equal(jws.url, "https://ca.example/acme/x");
    assert_string_equal(jws.nonce, "AQIDBA");
    assert_null(jws.jwk);
    assert_true(att_slice_eq_str(att_buf_slice(&jws.payload), "{\"a\":1}"));
    assert_int_equal(acme_jws_verify_jwk(&jws, key, NULL), ATT_OK);
    acme_jws_done(&jws);
    assert_int_equal(acme_jws_parse(att_slice_str(JWK_REQUEST), 1 << 20, &jws, NULL), ATT_OK);
    assert_null(jws.kid);
    assert_int_equal(acme_jws_verify_jwk(&jws, jws.jwk, NULL), ATT_OK);
    struct att_buf spki = {0};
    assert_int_equal(acme_jwk_to_spki(key, &spki, NULL), ATT_OK);
    assert_int_equal(acme_jws_verify_spki(&jws, att_buf_slice(&spki), NULL), ATT_OK);
    att_buf_done(&spki);
    acme_jws_done(&jws);
    json_decref(key);
}

/* ---- external account binding ------------------------------------------------------------------
 */
static void test_eab(void **state)
{
    (void)state;
    json_t *account = json_of(P256_JWK), *eab = json_of(EAB);
    json_t *other = json_of("{\"kty\":\"EC\",\"crv\":\"P-256\","
                            "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
                            "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}");
    uint8_t mac[32];
    for (size_t i = 0; i < sizeof mac; i++) {
        mac[i] = (uint8_t)i;
    }
    struct acme_jws jws = {0};
    struct att_err err = {0};
    assert_int_equal(acme_eab_parse(eab, &jws, NULL), ATT_OK);
    assert_string_equal(jws.kid, "kid-1");
    /* another key, another URL, another account, no key */
    mac[31] ^= 1;
    assert_int_equal(acme_eab_verify(&jws, ATT_SLICE_ARRAY(mac), NEW_ACCOUNT, account, &err),
                     ATT_E_AUTH);
    expect_err(&err, ATT_E_AUTH, "unauthorized", "MAC");
    mac[31] ^= 1;
    att_err_clear(&err);
    assert_int_equal(acme_eab_verify(&jws, ATT_SLICE(mac, 0), NEW_ACCOUNT, account, &err),
                     ATT_E_AUTH);
    att_err_clear(&err);
    assert_int_equal(
        acme_eab_verify(&jws, ATT_SLICE_ARRAY(mac), "https://ca.example/acme/x", account, &err),
        ATT_E_PARSE);
    expect_err(&err, ATT_E_PARSE, "malformed", "\"url\"");
    att_err_clear(&err);
    assert_int_equal(acme_eab_verify(&jws, ATT_SLICE_ARRAY(mac), NEW_ACCOUNT, other, &err),
                     ATT_E_PARSE);
    expect_err(&err, ATT_E_PARSE, "malformed", "another key");
    assert_int_equal(acme_eab_verify(&jws, ATT_SLICE_ARRAY(mac), NEW_ACCOUNT, account, NULL),
                     ATT_OK);
    acme_jws_done(&jws);

    json_t *ours = NULL;
    assert_int_equal(
        acme_eab_create("kid-1", ATT_SLICE_ARRAY(mac), NEW_ACCOUNT, account, &ours, NULL), ATT_OK);
    assert_int_equal(acme_eab_parse(ours, &jws, NULL), ATT_OK);
    assert_int_equal(acme_eab_verify(&jws, ATT_SLICE_ARRAY(mac), NEW_ACCOUNT, account, NULL),
                     ATT_OK);
    acme_jws_done(&jws);
    json_decref(ours);
    json_decref(other);
    json_decref(eab);
    json_decref(account);
}

static void test_eab_form(void **state)
{
    (void)state;
    static const struct {
        const char *header, *reason, *word;
    } bad[] = {
        {"{\"alg\":\"ES256\"," U K "}", "badSignatureAlgorithm", "ES256"},
        {"{\"alg\":\"none\"," U K "}", "badSignatureAlgorithm", "none"},
        {"{\"alg\":\"HS256\"," N U K "}", "malformed", "must not have a nonce"},
        {"{\"alg\":\"HS256\"," U "\"jwk\":{}}", "malformed", "expected \"kid\""},
        {"{\"alg\":\"HS256\"," K "}", "malformed", "\"url\""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char *text = request_of(bad[i].header, "");
        json_t *json = json_of(text);
        struct acme_jws jws = {0};
        struct att_err err = {0};
        assert_int_not_equal(acme_eab_parse(json, &jws, &err), ATT_OK);
        expect_err(&err, err.rc, bad[i].reason, bad[i].word);
        json_decref(json);
        free(text);
    }
}

/* ---- signing -----------------------------------------------------------------------------------
 */
struct parts {
    EVP_PKEY *pkey;
    int calls;
};

/* What a separate key process does: it sees header and payload, and makes the input itself. */
static enum att_rc sign_parts(void *user, struct att_slice header, struct att_slice payload,
                              uint8_t ret_rs[ACME_ES256_LEN], struct att_err *err)
{
    struct parts *parts = user;
    struct att_buf input = {0};
    parts->calls++;
    acme_jws_input(header, payload, &input);
    const struct acme_signer signer = acme_signer_pkey(parts->pkey);
    enum att_rc rc = signer.sign(signer.user, att_buf_slice(&input), ret_rs, err);
    att_buf_done(&input);
    return rc;
}

static void test_sign(void **state)
{
    (void)state;
    struct parts parts = {.pkey = EVP_EC_gen("P-256")};
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(parts.pkey, &der);
    struct att_slice spki = ATT_SLICE(der, (size_t)len);
    const struct acme_signer signers[] = {acme_signer_pkey(parts.pkey),
                                          {.user = &parts, .sign_parts = sign_parts}};
    json_t *jwk = NULL;
    assert_int_equal(acme_spki_to_jwk(spki, &jwk, NULL), ATT_OK);
    struct att_buf header = {0}, text = {0};
    assert_int_equal(acme_jws_protected("AQID", "https://x/y", jwk, "kid", &header, NULL),
                     ATT_E_INVAL);
    assert_int_equal(acme_jws_protected("AQID", "https://x/y", NULL, NULL, &header, NULL),
                     ATT_E_INVAL);
    assert_int_equal(acme_jws_protected("AQID", "https://x/y", jwk, NULL, &header, NULL), ATT_OK);
    const struct acme_signer none = {0};
    assert_int_equal(acme_jws_sign(&none, att_buf_slice(&header), ATT_SLICE_LIT(""), &text, NULL),
                     ATT_E_INVAL);
    for (size_t i = 0; i < 2; i++) {
        struct acme_jws jws = {0};
        text.len = 0;
        assert_int_equal(acme_jws_sign(&signers[i], att_buf_slice(&header),
                                       i ? ATT_SLICE_LIT("{}") : (struct att_slice){0}, &text,
                                       NULL),
                         ATT_OK);
        assert_int_equal(acme_jws_parse(att_buf_slice(&text), 1 << 20, &jws, NULL), ATT_OK);
        assert_int_equal(jws.payload.len, i ? 2 : 0); /* POST-as-GET has none */
        assert_int_equal(acme_jws_verify_spki(&jws, spki, NULL), ATT_OK);
        acme_jws_done(&jws);
    }
    assert_int_equal(parts.calls, 1);
    json_decref(jwk);
    att_buf_done(&header);
    att_buf_done(&text);
    OPENSSL_free(der);
    EVP_PKEY_free(parts.pkey);
}

/* ---- signed documents (hostView) ---------------------------------------------------------------
 */
static struct att_buf self_signed(EVP_PKEY *pkey)
{
    X509 *cert = X509_new();
    struct att_buf der = {0};
    unsigned char *raw = NULL;
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    assert_int_equal(X509_set_pubkey(cert, pkey), 1);
    assert_true(X509_sign(cert, pkey, EVP_sha256()) > 0);
    int len = i2d_X509(cert, &raw);
    att_buf_put(&der, raw, (size_t)len);
    OPENSSL_free(raw);
    X509_free(cert);
    return der;
}

static void refuse_signed(const char *header, const char *word)
{
    char *text = request_of(header, "");
    struct acme_jws jws = {0};
    struct att_err err = {0};
    assert_int_not_equal(
        acme_jws_parse_signed(att_slice_str(text), 4096, "attestd-hostview", &jws, &err), ATT_OK);
    expect_err(&err, err.rc, err.reason, word);
    free(text);
}

#define T "\"typ\":\"attestd-hostview\","

static void test_signed_document(void **state)
{
    (void)state;
    refuse_signed("{\"alg\":\"RS256\"," T "\"x5c\":[\"MAA=\"]}", "RS256");
    refuse_signed("{\"alg\":\"ES256\",\"typ\":\"other\",\"x5c\":[\"MAA=\"]}", "\"typ\"");
    refuse_signed("{\"alg\":\"ES256\",\"x5c\":[\"MAA=\"]}", "\"typ\"");
    refuse_signed("{\"alg\":\"ES256\"," T "\"x5c\":[]}", "\"x5c\"");
    refuse_signed("{\"alg\":\"ES256\"," T "\"x5c\":[\"MAA\"]}", "base64");
    refuse_signed("{\"alg\":\"ES256\"," T "\"x5c\":[\"\"]}", "base64");
    refuse_signed("{\"alg\":\"ES256\"," T "\"x5c\":[\"MAA=\"],\"kid\":\"x\"}", "only");

    EVP_PKEY *pkey = EVP_EC_gen("P-256"), *stranger = EVP_EC_gen("P-256");
    struct att_buf cert = self_signed(pkey), header = {0}, text = {0};
    const struct att_slice chain[] = {att_buf_slice(&cert), att_buf_slice(&cert)};
    assert_int_equal(acme_jws_protected_x5c("attestd-hostview", chain, 2, &header, NULL), ATT_OK);
    for (int i = 0; i < 2; i++) {
        const struct acme_signer signer = acme_signer_pkey(i ? stranger : pkey);
        struct acme_jws jws = {0};
        text.len = 0;
        assert_int_equal(
            acme_jws_sign(&signer, att_buf_slice(&header), ATT_SLICE_LIT("{}"), &text, NULL),
            ATT_OK);
        assert_int_equal(
            acme_jws_parse_signed(att_buf_slice(&text), 1 << 20, "attestd-hostview", &jws, NULL),
            ATT_OK);
        assert_int_equal(jws.x5c_len, 2);
        assert_int_equal(acme_jws_verify_cert(&jws, NULL), i ? ATT_E_AUTH : ATT_OK);
        acme_jws_done(&jws);
    }
    /* A signed document is no request, and a request no signed document. */
    struct acme_jws jws = {0};
    assert_int_not_equal(acme_jws_parse(att_buf_slice(&text), 1 << 20, &jws, NULL), ATT_OK);
    assert_int_not_equal(
        acme_jws_parse_signed(att_slice_str(KID_REQUEST), 1 << 20, "attestd-hostview", &jws, NULL),
        ATT_OK);
    att_buf_done(&cert);
    att_buf_done(&header);
    att_buf_done(&text);
    EVP_PKEY_free(pkey);
    EVP_PKEY_free(stranger);
}

static void test_key_change(void **state)
{
    (void)state;
    char *text = request_of("{\"alg\":\"ES256\"," U "\"jwk\":" P256_JWK "}", "");
    char *with_nonce = request_of("{\"alg\":\"ES256\"," N U "\"jwk\":" P256_JWK "}", "");
    char *with_kid = request_of("{\"alg\":\"ES256\"," U K "}", "");
    json_t *good = json_of(text), *nonce = json_of(with_nonce), *kid = json_of(with_kid);
    struct acme_jws jws = {0};
    assert_int_equal(acme_jws_parse_key_change(nonce, &jws, NULL), ATT_E_PARSE);
    assert_int_equal(acme_jws_parse_key_change(kid, &jws, NULL), ATT_E_PARSE);
    assert_int_equal(acme_jws_parse_key_change(good, &jws, NULL), ATT_OK);
    acme_jws_done(&jws);
    json_decref(good);
    json_decref(nonce);
    json_decref(kid);
    free(text);
    free(with_nonce);
    free(with_kid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_outer_form),
        cmocka_unit_test(test_outer_spellings),
        cmocka_unit_test(test_header_form),
        cmocka_unit_test(test_algorithms),
        cmocka_unit_test(test_bad_keys),
        cmocka_unit_test(test_rsa_limits),
        cmocka_unit_test(test_spki),
        cmocka_unit_test(test_rfc7638),
        cmocka_unit_test(test_rfc7515_es256),
        cmocka_unit_test(test_rfc7515_rs256),
        cmocka_unit_test(test_python_requests),
        cmocka_unit_test(test_eab),
        cmocka_unit_test(test_eab_form),
        cmocka_unit_test(test_sign),
        cmocka_unit_test(test_signed_document),
        cmocka_unit_test(test_key_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
