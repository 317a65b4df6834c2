/* DiscoveryRequests: each refusal alone, what a request means to its stream; and DER in PEM. */
#include "attestd/spiffe/sds_request.h"
#include "attestd/spiffe/sds_secret.h"
#include "secret.pb-c.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char *parse(const Envoy__Service__Secret__V3__DiscoveryRequest *message,
                         struct sds_request *ret)
{
    uint8_t bytes[16384];
    assert_true(protobuf_c_message_get_packed_size(&message->base) <= sizeof bytes);
    size_t len = protobuf_c_message_pack(&message->base, bytes);
    return sds_request_parse(ATT_SLICE(bytes, len), ret);
}

static void test_requests_refused_one_by_one(void **state)
{
    char name[SDS_NAME_MAX + 2], token[SDS_TOKEN_MAX + 2], *names[SDS_NAMES_MAX + 1];
    struct sds_request request = {0};
    Envoy__Service__Secret__V3__DiscoveryRequest message;
    (void)state;
    envoy__service__secret__v3__discovery_request__init(&message);
    memset(name, 'n', sizeof name);
    name[SDS_NAME_MAX + 1] = '\0';
    memset(token, '1', sizeof token);
    token[SDS_TOKEN_MAX + 1] = '\0';
    for (size_t i = 0; i <= SDS_NAMES_MAX; i++) {
        names[i] = "ROOTCA";
    }
    message.resource_names = names;
    message.n_resource_names = SDS_NAMES_MAX + 1;
    assert_string_equal(parse(&message, &request), "resource_names: 16 at most");
    message.n_resource_names = SDS_NAMES_MAX;
    assert_null(parse(&message, &request));
    assert_string_equal(request.names, "ROOTCA\n"); /* each once */
    sds_request_done(&request);
    message.n_resource_names = 1;
    const char *const bad[] = {name, "", "a b", "a\nb", "\x7f", "\xc3\xbc"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        names[0] = (char *)(uintptr_t)bad[i];
        assert_memory_equal(parse(&message, &request), "resource_names: 1 to 512", 24);
    }
    name[SDS_NAME_MAX] = '\0';
    names[0] = name;
    assert_null(parse(&message, &request));
    sds_request_done(&request);
    message.type_url = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    assert_memory_equal(parse(&message, &request), "type_url: ", 10);
    message.type_url = SDS_SECRET_TYPE;
    message.version_info = token;
    assert_memory_equal(parse(&message, &request), "version_info, ", 14);
    message.version_info = "";
    message.response_nonce = token;
    assert_memory_equal(parse(&message, &request), "version_info, ", 14);
    token[SDS_TOKEN_MAX] = '\0';
    assert_null(parse(&message, &request));
    sds_request_done(&request);
    assert_string_equal(sds_request_parse(ATT_SLICE("\x1a\xff", 2), &request),
                        "the request is no DiscoveryRequest");
}

static void test_what_a_request_means(void **state)
{
    static const struct {
        const char *nonce, *version;
        bool rejects, first;
        enum sds_meaning meaning;
    } cases[] = {
        {"", "", false, true, SDS_SUBSCRIBES},  {"7", "v1", false, true, SDS_SUBSCRIBES},
        {"", "", false, false, SDS_SUBSCRIBES}, {"2", "v1", false, false, SDS_ACCEPTS},
        {"1", "v1", false, false, SDS_STALE},   {"22", "v1", false, false, SDS_STALE},
        {"1", "v1", true, false, SDS_STALE},    {"2", "v1", true, false, SDS_REJECTS},
        {"2", "v0", false, false, SDS_REJECTS}, {"2", "", false, false, SDS_REJECTS},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct sds_request request = {.rejects = cases[i].rejects};
        snprintf(request.nonce, sizeof request.nonce, "%s", cases[i].nonce);
        snprintf(request.version, sizeof request.version, "%s", cases[i].version);
        assert_int_equal(sds_request_meaning(&request, cases[i].first, "2", "v1"),
                         cases[i].meaning);
    }
    struct sds_request early = {.nonce = "2", .version = "v1"}; /* before any response */
    assert_int_equal(sds_request_meaning(&early, false, "", ""), SDS_STALE);
}

static void test_pem_of_what_is_not_der(void **state)
{
    struct att_err err = {0};
    att_autobuf pem = ATT_BUF_INIT(4096);
    const struct att_slice bad[] = {
        ATT_SLICE("\x30\x05\x01", 3),         /* cut off */
        ATT_SLICE("\x04\x01\x00", 3),         /* another type */
        ATT_SLICE("\x30\x80\x00\x00", 4),     /* indefinite length: BER */
        ATT_SLICE("\x30\x01\x05\x30\xff", 5), /* the second one */
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(sds_pem_put(&pem, "CERTIFICATE", bad[i], &err), ATT_E_PARSE);
        assert_string_equal(err.msg, "CERTIFICATE: not DER");
    }
    assert_int_equal(pem.len, 0);
    assert_int_equal(sds_pem_put(&pem, "X", ATT_SLICE("\x30\x01\x05\x30\x02\x05\x00", 7), &err),
                     ATT_OK);
    assert_string_equal(att_buf_cstr(&pem), "-----BEGIN X-----\nMAEF\n-----END X-----\n"
                                            "-----BEGIN X-----\nMAIFAA==\n-----END X-----\n");
}

/* Libcrypto's own PEM of the same bytes is the same text: lines that are full, cut, one alone. */
static void test_pem_of_a_key(void **state)
{
    static const size_t lengths[] = {1, 47, 48, 49, 96, 138, 256};
    uint8_t bytes[256];
    struct att_err err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(i * 37 + 11);
    }
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        char *expected = NULL;
        att_autobuf pem = ATT_BUF_INIT(1024);
        BIO *bio = BIO_new(BIO_s_mem());
        assert_true(PEM_write_bio(bio, "PRIVATE KEY", "", bytes, (long)lengths[i]) > 0);
        long len = BIO_get_mem_data(bio, &expected);
        assert_int_equal(sds_pem_put_key(&pem, ATT_SLICE(bytes, lengths[i]), &err), ATT_OK);
        assert_int_equal(pem.len, len);
        assert_memory_equal(pem.ptr, expected, pem.len);
        BIO_free(bio);
    }
    att_autobuf full = ATT_BUF_INIT(64);
    assert_int_equal(sds_pem_put_key(&full, ATT_SLICE(bytes, 138), &err), ATT_E_NOMEM);
    assert_string_equal(err.msg, "a private key");
}

static Envoy__Service__Secret__V3__DiscoveryResponse *respond(const struct sds_secret *secrets,
                                                              size_t n, bool secret)
{
    struct grpc_bytes *bytes = sds_response_encode(secrets, n, "v1", "7");
    assert_non_null(bytes);
    assert_int_equal(bytes->secret, secret);
    Envoy__Service__Secret__V3__DiscoveryResponse *got =
        envoy__service__secret__v3__discovery_response__unpack(NULL, bytes->len - 5,
                                                               bytes->data + 5);
    grpc_bytes_unref(bytes);
    assert_non_null(got);
    assert_int_equal(got->n_resources, n);
    assert_string_equal(got->version_info, "v1");
    assert_string_equal(got->nonce, "7");
    return got;
}

/* What has a key in it says so, and is wiped with its last reference; roots alone do not. */
static void test_responses(void **state)
{
    const struct sds_secret secrets[] = {
        {.name = "ROOTCA", .trusted_ca = ATT_SLICE_LIT("roots"), .crl = ATT_SLICE_LIT("lists")},
        {.name = "default", .chain = ATT_SLICE_LIT("chain"), .key = ATT_SLICE_LIT("key")},
    };
    (void)state;
    Envoy__Service__Secret__V3__DiscoveryResponse *got = respond(secrets, 1, false);
    envoy__service__secret__v3__discovery_response__free_unpacked(got, NULL);
    got = respond(secrets, 2, true);
    Envoy__Service__Secret__V3__Secret *one = envoy__service__secret__v3__secret__unpack(
        NULL, got->resources[1]->value.len, got->resources[1]->value.data);
    assert_non_null(one);
    assert_string_equal(one->name, "default");
    assert_int_equal(one->type_case, ENVOY__SERVICE__SECRET__V3__SECRET__TYPE_TLS_CERTIFICATE);
    assert_memory_equal(one->tls_certificate->certificate_chain->inline_bytes.data, "chain", 5);
    assert_int_equal(one->tls_certificate->private_key->inline_bytes.len, 3);
    assert_memory_equal(one->tls_certificate->private_key->inline_bytes.data, "key", 3);
    envoy__service__secret__v3__secret__free_unpacked(one, NULL);
    envoy__service__secret__v3__discovery_response__free_unpacked(got, NULL);
    struct sds_secret many[SDS_NAMES_MAX + 1] = {0};
    assert_null(sds_response_encode(many, SDS_NAMES_MAX + 1, "v1", "7"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests_refused_one_by_one),
        cmocka_unit_test(test_what_a_request_means),
        cmocka_unit_test(test_pem_of_what_is_not_der),
        cmocka_unit_test(test_pem_of_a_key),
        cmocka_unit_test(test_responses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
