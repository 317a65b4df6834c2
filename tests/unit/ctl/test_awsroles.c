/* CreateSession: each refusal of an answer by its word; then the request byte by byte ("The IAM
 * Roles Anywhere authentication signing process", tasks 1 to 4) and what an SDK is given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/ctl/awsroles.h"

#include "attestd/base/json.h"
#include "certs/key.h"
#include "certs/oid.h"

#include <openssl/bn.h>
#include <openssl/x509.h>
#include <string.h>

static char endpoint[] = "https://rolesanywhere.eu-central-1.amazonaws.com/sessions",
            port443[] = "https://a.example:443/sessions", port[] = "https://a.example:8443",
            anchor[] = "arn:aws:rolesanywhere:eu-central-1:1:trust-anchor/t",
            profile_arn[] = "arn:aws:rolesanywhere:eu-central-1:1:profile/p",
            role[] = "arn:aws:iam::1:role/r", region[] = "eu-central-1", name[] = "a@b";

static struct conf_exchange profile(void)
{
    return (struct conf_exchange){.endpoint = endpoint,
                                  .grant = CONF_GRANT_AWS_ROLES_ANYWHERE,
                                  .aws = {.trust_anchor_arn = anchor,
                                          .profile_arn = profile_arn,
                                          .role_arn = role,
                                          .region = region}};
}

#define NOW 1635940800 /* 2021-11-03T12:00:00Z */
#define SET(members)                                                                               \
    "{\"credentialSet\":[{\"credentials\":{" members "}}],\"subjectArn\":\"arn:x\"}"
#define KEYS "\"accessKeyId\":\"ASIA1\",\"secretAccessKey\":\"s/+=\",\"sessionToken\":\"tok\""
#define GOOD SET(KEYS ",\"expiration\":\"2021-11-03T13:00:00Z\"")

static enum att_rc answer(int status, const char *type, const char *body,
                          struct exchange_token *ret, struct att_err *err)
{
    struct conf_exchange p = profile();
    return awsroles_answer(&p, status, type, att_slice_str(body), NOW, ret, err);
}

static void refused(int status, const char *type, const char *body, enum att_rc rc,
                    const char *reason, const char *words)
{
    struct exchange_token token = {0};
    struct att_err err = {0};
    assert_int_equal(answer(status, type, body, &token, &err), rc);
    assert_string_equal(err.reason, reason);
    if (!strstr(err.msg, words)) {
        fail_msg("\"%s\" is not in: %s", words, err.msg);
    }
    assert_null(token.token.ptr);
}

#define LONG "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_refused(void **state)
{
    (void)state;
    refused(302, "", GOOD, ATT_E_PROTOCOL, "redirect", "not followed");
    refused(403, "AccessDeniedException", "{\"message\":\"Untrusted signature\"}", ATT_E_DENIED,
            "AccessDeniedException", "status 403: Untrusted signature");
    refused(403, "AccessDeniedException:http://x/", "{\"Message\":\"no\"}", ATT_E_DENIED,
            "AccessDeniedException", "no");
    refused(400, "", "{\"__type\":\"com.x#ValidationException\",\"message\":\"no\"}", ATT_E_DENIED,
            "ValidationException", "no");
    refused(500, "", "oops", ATT_E_RETRY, "answerStatus", "status 500");
    refused(429, "ThrottlingException", "", ATT_E_RETRY, "ThrottlingException", "status 429");
    refused(403, "a b", "{\"message\":\"\\u001b[2J " LONG "\"}", ATT_E_DENIED, "answerStatus",
            "?[2J [...]");
    refused(201, "", "<html>", ATT_E_PROTOCOL, "answerForm", "JSON object");
    refused(201, "", "[]", ATT_E_PROTOCOL, "answerForm", "JSON object");
    refused(201, "", "{}", ATT_E_PROTOCOL, "answerToken", "credentialSet[0].credentials");
    refused(201, "", "{\"credentialSet\":[]}", ATT_E_PROTOCOL, "answerToken", "credentialSet");
    refused(201, "", SET("\"accessKeyId\":\"A\",\"secretAccessKey\":\"s\""), ATT_E_PROTOCOL,
            "answerToken", "sessionToken");
    refused(201, "", SET("\"accessKeyId\":\"A\",\"secretAccessKey\":\"\",\"sessionToken\":\"t\""),
            ATT_E_PROTOCOL, "answerToken", "secretAccessKey");
    refused(201, "",
            SET("\"accessKeyId\":\"A\\nB\",\"secretAccessKey\":\"s\",\"sessionToken\":\"t\""),
            ATT_E_PROTOCOL, "answerToken", "visible");
    refused(201, "", SET(KEYS), ATT_E_PROTOCOL, "answerLifetime", "expiration");
    refused(201, "", SET(KEYS ",\"expiration\":\"tomorrow\""), ATT_E_PROTOCOL, "answerLifetime",
            "RFC 3339");
    refused(201, "", SET(KEYS ",\"expiration\":\"2021-11-03T12:00:00Z\""), ATT_E_PROTOCOL,
            "answerLifetime", "to come");
    refused(201, "", SET(KEYS ",\"expiration\":\"2021-11-03T13:00:00+02:00\""), ATT_E_PROTOCOL,
            "answerLifetime", "RFC 3339");
}

static void given(const char *body, int64_t lifetime_s)
{
    struct exchange_token token = {0};
    assert_int_equal(answer(201, "", body, &token, NULL), ATT_OK);
    assert_string_equal((const char *)token.token.ptr,
                        "{\"Version\":1,\"AccessKeyId\":\"ASIA1\",\"SecretAccessKey\":\"s/+=\","
                        "\"SessionToken\":\"tok\",\"Expiration\":\"2021-11-03T13:00:00Z\"}");
    assert_int_equal(token.lifetime_s, lifetime_s);
    exchange_token_done(&token);
}

static void test_given(void **state)
{
    (void)state;
    given(GOOD, 3600);
    given(SET(KEYS ",\"expiration\":\"2021-11-03T13:00:00.123Z\""), 3600);
}

/* ---- the request ---- */

static X509 *certificate(EVP_PKEY *key, const char *subject, const char *issuer, const char *serial)
{
    X509 *cert = X509_new();
    BIGNUM *number = NULL;
    X509_NAME *of = X509_NAME_new(), *by = X509_NAME_new();
    assert_true(cert && of && by && BN_dec2bn(&number, serial));
    X509_NAME_add_entry_by_txt(of, "CN", MBSTRING_ASC, (const unsigned char *)subject, -1, -1, 0);
    X509_NAME_add_entry_by_txt(by, "CN", MBSTRING_ASC, (const unsigned char *)issuer, -1, -1, 0);
    assert_non_null(BN_to_ASN1_INTEGER(number, X509_get_serialNumber(cert)));
    assert_true(X509_set_subject_name(cert, of) && X509_set_issuer_name(cert, by) &&
                X509_set_pubkey(cert, key) && X509_gmtime_adj(X509_getm_notBefore(cert), 0) &&
                X509_gmtime_adj(X509_getm_notAfter(cert), 60) &&
                X509_sign(cert, key, EVP_sha256()) > 0);
    BN_free(number);
    X509_NAME_free(of);
    X509_NAME_free(by);
    return cert;
}

static void put_b64(struct att_buf *text, X509 *cert)
{
    uint8_t *der = NULL;
    char encoded[4096];
    int len = i2d_X509(cert, &der);
    assert_true(len > 0 && len < 2048);
    att_buf_put(text, encoded, (size_t)EVP_EncodeBlock((unsigned char *)encoded, der, len));
    OPENSSL_free(der);
}

/* 20 bytes, all ones but the sign's: the longest serial number that RFC 5280 §4.1.2.2 allows. */
#define SERIAL "730750818665451459101842416358141509827966271487"

static void test_request(void **state)
{
    (void)state;
    certs_autokey *key = NULL;
    certs_autostack *chain = sk_X509_new_null();
    att_autobuf expected = {0}, authorization = {0}, leaf = {0}, middle = {0};
    struct conf_exchange p = profile();
    struct awsroles_request r = {0};
    assert_int_equal(certs_key_generate(&key, NULL), ATT_OK);
    assert_true(sk_X509_push(chain, certificate(key, "leaf", "middle", SERIAL)) == 1 &&
                sk_X509_push(chain, certificate(key, "middle", "root", "7")) == 2 &&
                sk_X509_push(chain, certificate(key, "root", "root", "1")) == 3);
    put_b64(&leaf, sk_X509_value(chain, 0));
    put_b64(&middle, sk_X509_value(chain, 1));
    p.aws.duration_s = 900;
    p.aws.session_name = name;
    assert_int_equal(awsroles_prepare(&p, chain, APICLIENT_EC_P256, NOW, &r, NULL), ATT_OK);
    assert_string_equal(
        att_buf_cstr(&r.body),
        "{\"profileArn\":\"arn:aws:rolesanywhere:eu-central-1:1:profile/p\","
        "\"roleArn\":\"arn:aws:iam::1:role/r\","
        "\"trustAnchorArn\":\"arn:aws:rolesanywhere:eu-central-1:1:trust-anchor/t\","
        "\"durationSeconds\":900,\"roleSessionName\":\"a@b\"}");
    att_buf_printf(&expected,
                   "POST\n/sessions\n\ncontent-type:application/json\n"
                   "host:rolesanywhere.eu-central-1.amazonaws.com\nx-amz-date:20211103T120000Z\n"
                   "x-amz-x509:%s\nx-amz-x509-chain:%s\n\n"
                   "content-type;host;x-amz-date;x-amz-x509;x-amz-x509-chain\n"
                   /* sha256sum of that body */
                   "%s",
                   att_buf_cstr(&leaf), att_buf_cstr(&middle),
                   "5387875b7c2a09bbd70ce8902810f899841972f03b19c0e8d464c913198ba796");
    assert_string_equal(att_buf_cstr(&r.canonical), att_buf_cstr(&expected));
    assert_int_equal(strncmp(att_buf_cstr(&r.to_sign),
                             "AWS4-X509-ECDSA-SHA256\n20211103T120000Z\n"
                             "20211103/eu-central-1/rolesanywhere/aws4_request\n",
                             89),
                     0);
    assert_int_equal(
        awsroles_authorization(&r, ATT_SLICE_LIT("\x30\x45\xff"), &authorization, NULL), ATT_OK);
    assert_string_equal(att_buf_cstr(&authorization),
                        "AWS4-X509-ECDSA-SHA256 Credential=" SERIAL
                        "/20211103/eu-central-1/rolesanywhere/aws4_request, "
                        "SignedHeaders=content-type;host;x-amz-date;x-amz-x509;x-amz-x509-chain, "
                        "Signature=3045ff");
    awsroles_request_done(&r);
}

/* Without an intermediate certificate there is no such header; other hosts, RSA. */
static void test_variants(void **state)
{
    (void)state;
    certs_autokey *key = NULL;
    certs_autostack *chain = sk_X509_new_null();
    struct conf_exchange p = profile();
    struct awsroles_request r = {0};
    assert_int_equal(certs_key_generate(&key, NULL), ATT_OK);
    assert_true(sk_X509_push(chain, certificate(key, "leaf", "root", "255")) == 1);
    p.endpoint = port443;
    assert_int_equal(awsroles_prepare(&p, chain, APICLIENT_RSA, NOW, &r, NULL), ATT_OK);
    assert_string_equal(r.host, "a.example");
    assert_string_equal(r.serial, "255");
    assert_string_equal(r.algorithm, "AWS4-X509-RSA-SHA256");
    assert_string_equal(att_buf_cstr(&r.signed_headers), "content-type;host;x-amz-date;x-amz-x509");
    assert_null(strstr(att_buf_cstr(&r.canonical), "x-amz-x509-chain"));
    assert_null(strstr(att_buf_cstr(&r.body), "durationSeconds"));
    awsroles_request_done(&r);
    p.endpoint = port;
    assert_int_equal(awsroles_prepare(&p, chain, APICLIENT_EC_P256, NOW, &r, NULL), ATT_OK);
    assert_string_equal(r.host, "a.example:8443");
    assert_int_equal(strncmp(att_buf_cstr(&r.canonical), "POST\n/\n\n", 8), 0);
    awsroles_request_done(&r);
    struct att_err err = {0};
    struct awsroles_request none = {0};
    for (int i = 0; i < 6; i++) {
        assert_true(sk_X509_push(chain, certificate(key, "ca", "upper", "2")) > 0);
    }
    assert_int_equal(awsroles_prepare(&p, chain, APICLIENT_EC_P256, NOW, &none, &err), ATT_E_LIMIT);
    assert_non_null(strstr(err.msg, "at most 5"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_refused), cmocka_unit_test(test_given),
                                       cmocka_unit_test(test_request),
                                       cmocka_unit_test(test_variants)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
