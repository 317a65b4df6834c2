#include "attestd/base/enc.h"
#include "provision/enrol/messages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void has(const struct att_err *err, const char *word)
{
    if (!strstr(err->msg, word)) {
        fail_msg("\"%s\" is not in \"%s\"", word, err->msg);
    }
}

static void put(struct att_buf *buf, const char *text)
{
    att_buf_put_str(buf, text);
}

/* Sets (or with value NULL deletes) one member of a JSON text; what value is, is JSON text too. */
static struct att_buf edit(struct att_slice text, const char *name, const char *value)
{
    json_t *obj = NULL;
    struct att_buf out = {0};
    assert_int_equal(att_json_parse(text, 1 << 20, &obj, NULL), ATT_OK);
    if (value) {
        json_t *v = json_loads(value, JSON_DECODE_ANY, NULL);
        assert_non_null(v);
        assert_int_equal(json_object_set_new(obj, name, v), 0);
    } else {
        assert_int_equal(json_object_del(obj, name), 0);
    }
    assert_int_equal(att_json_dump(obj, false, &out, NULL), ATT_OK);
    json_decref(obj);
    return out;
}

/* ---- M1 request --------------------------------------------------------------------------------
 */
static struct att_buf m1_text(void)
{
    struct enrol_m1_request m1 = {.manufacturer = "49424d00", .version = "2016051100001000"};
    struct att_buf text = {0};
    put(&m1.ek_cert, "ek");
    put(&m1.ek_chain[m1.n_ek_chain++], "ca1");
    put(&m1.ek_chain[m1.n_ek_chain++], "ca2");
    put(&m1.ek_pub, "ekpub");
    put(&m1.ak_pub, "akpub");
    put(&m1.other_ek_certs[m1.n_other_ek_certs++], "ecc");
    assert_int_equal(enrol_m1_request_encode(&m1, &text, NULL), ATT_OK);
    enrol_m1_request_done(&m1);
    return text;
}

static void refuse_m1(const char *name, const char *value, const char *word)
{
    struct att_buf good = m1_text();
    struct att_buf text = edit(att_buf_slice(&good), name, value);
    struct enrol_m1_request m1 = {0};
    struct att_err err = {0};
    assert_int_not_equal(enrol_m1_request_parse(att_buf_slice(&text), &m1, &err), ATT_OK);
    has(&err, word);
    assert_string_equal(err.reason, "malformed");
    att_buf_done(&text);
    att_buf_done(&good);
}

static void test_m1_refusals(void **state)
{
    (void)state;
    refuse_m1("akPub", NULL, "\"akPub\"");
    refuse_m1("ekPub", "\"\"", "\"ekPub\" is empty");
    refuse_m1("ekPub", "\"A=\"", "not base64url");
    refuse_m1("ekCert", "\"\"", "\"ekCert\" is empty");
    refuse_m1("ekChain", "{}", "\"ekChain\": expected an array");
    refuse_m1("ekChain", "[\"\"]", "\"ekChain\"");
    refuse_m1("otherEkCerts", "[1]", "\"otherEkCerts\"");
    refuse_m1("otherEkCerts", "[\"YQ\",\"YQ\",\"YQ\",\"YQ\",\"YQ\",\"YQ\",\"YQ\",\"YQ\",\"YQ\"]",
              "at most 8");
    refuse_m1("surplus", "1", "unknown members");
    refuse_m1("firmware", NULL, "\"firmware\"");
    refuse_m1("firmware", "{\"manufacturer\":\"49424D00\",\"version\":\"2016051100001000\"}",
              "lowercase");
    refuse_m1("firmware", "{\"manufacturer\":\"49424d00\",\"version\":\"20\"}", "16");
    refuse_m1("firmware",
              "{\"manufacturer\":\"49424d00\",\"version\":\"2016051100001000\",\"x\":1}",
              "unknown members");
}

static void test_m1_text_refusals(void **state)
{
    (void)state;
    struct enrol_m1_request m1 = {0};
    struct att_err err = {0};
    const char twice[] = "{\"ekPub\":\"YQ\",\"ekPub\":\"YQ\"}";
    assert_int_equal(enrol_m1_request_parse(ATT_SLICE_LIT("[]"), &m1, NULL), ATT_E_PARSE);
    assert_int_equal(enrol_m1_request_parse(ATT_SLICE_LIT("{} "), &m1, NULL), ATT_E_PARSE);
    assert_int_equal(enrol_m1_request_parse(att_slice_str(twice), &m1, &err), ATT_E_PARSE);
    has(&err, "twice");
    char *big = malloc(ENROL_M1_MAX + 1);
    memset(big, ' ', ENROL_M1_MAX + 1);
    assert_int_equal(enrol_m1_request_parse(ATT_SLICE(big, ENROL_M1_MAX + 1), &m1, NULL),
                     ATT_E_LIMIT);
    free(big);
    struct enrol_m1_request empty = {0};
    struct att_buf out = {0};
    assert_int_equal(enrol_m1_request_encode(&empty, &out, NULL), ATT_E_INVAL);
}

static void test_m1_round_trip(void **state)
{
    (void)state;
    struct att_buf text = m1_text(), again = {0};
    struct enrol_m1_request m1 = {0};
    assert_int_equal(enrol_m1_request_parse(att_buf_slice(&text), &m1, NULL), ATT_OK);
    assert_int_equal(m1.n_ek_chain, 2);
    assert_true(att_slice_eq_str(att_buf_slice(&m1.ek_chain[1]), "ca2"));
    assert_true(att_slice_eq_str(att_buf_slice(&m1.other_ek_certs[0]), "ecc"));
    assert_string_equal(m1.version, "2016051100001000");
    assert_int_equal(enrol_m1_request_encode(&m1, &again, NULL), ATT_OK);
    assert_true(att_slice_eq(att_buf_slice(&text), att_buf_slice(&again)));
    enrol_m1_request_done(&m1);
    att_buf_done(&again);
    /* A TPM without an EK certificate. */
    struct att_buf bare = edit(att_buf_slice(&text), "ekCert", NULL);
    assert_int_equal(enrol_m1_request_parse(att_buf_slice(&bare), &m1, NULL), ATT_OK);
    assert_int_equal(m1.ek_cert.len, 0);
    enrol_m1_request_done(&m1);
    att_buf_done(&bare);
    att_buf_done(&text);
}

/* ---- M1 response -------------------------------------------------------------------------------
 */
static struct att_buf m1_answer(void)
{
    struct enrol_m1_response m1 = {
        .expires_at = 1795449600,
        .wanted = {.pcr_selection = "sha256:0,7", .logs = {"firmware"}, .n_logs = 1, .n_known = 1}};
    struct att_buf text = {0};
    att_buf_field_be16(&m1.credential_blob, ATT_SLICE_LIT("blob"));
    att_buf_field_be16(&m1.encrypted_secret, ATT_SLICE_LIT("secret"));
    memset(m1.nonce, 9, sizeof m1.nonce);
    memset(m1.wanted.known[0], 5, 32);
    assert_int_equal(enrol_m1_response_encode(&m1, &text, NULL), ATT_OK);
    enrol_m1_response_done(&m1);
    return text;
}

static void refuse_m1_answer(const char *name, const char *value, const char *word)
{
    struct att_buf good = m1_answer();
    struct att_buf text = edit(att_buf_slice(&good), name, value);
    struct enrol_m1_response m1 = {0};
    struct att_err err = {0};
    assert_int_not_equal(enrol_m1_response_parse(att_buf_slice(&text), &m1, &err), ATT_OK);
    has(&err, word);
    att_buf_done(&text);
    att_buf_done(&good);
}

static void test_m1_answer(void **state)
{
    (void)state;
    refuse_m1_answer("status", "\"valid\"", "expected \"pending\"");
    refuse_m1_answer("expires", "\"soon\"", "expected a time");
    refuse_m1_answer("nonce", "\"AAAA\"", "expected 32 bytes, found 3");
    refuse_m1_answer("nonce", NULL, "\"nonce\"");
    refuse_m1_answer("credentialBlob", "\"AAVi\"", "TPM2B");  /* says 5 bytes, has 1 */
    refuse_m1_answer("encryptedSecret", "\"AABi\"", "TPM2B"); /* trailing byte */
    refuse_m1_answer("pcrSelection", NULL, "\"pcrSelection\" is missing");
    refuse_m1_answer("known", "[\"zz\"]", "\"known\"");
    refuse_m1_answer("logs", "\"firmware\"", "\"logs\"");
    struct att_buf good = m1_answer();
    struct att_buf text = edit(att_buf_slice(&good), "laterAddition", "{}"); /* ignored */
    struct enrol_m1_response m1 = {0};
    assert_int_equal(enrol_m1_response_parse(att_buf_slice(&text), &m1, NULL), ATT_OK);
    assert_int_equal(m1.expires_at, 1795449600);
    assert_string_equal(m1.wanted.pcr_selection, "sha256:0,7");
    assert_string_equal(m1.wanted.logs[0], "firmware");
    assert_int_equal(m1.wanted.known[0][31], 5);
    assert_int_equal(m1.nonce[31], 9);
    assert_int_equal(m1.credential_blob.len, 6);
    enrol_m1_response_done(&m1);
    att_buf_done(&text);
    att_buf_done(&good);
}

/* ---- M2 ----------------------------------------------------------------------------------------
 */
static struct parse_pcr_set pcrs(void)
{
    struct parse_pcr_set set = {0};
    const char text[] =
        "{\"sha256\":{\"0\":\""
        "1111111111111111111111111111111111111111111111111111111111111111\",\"7\":\""
        "2222222222222222222222222222222222222222222222222222222222222222\"}}";
    assert_int_equal(parse_pcr_set_parse(att_slice_str(text), NULL, &set, NULL), ATT_OK);
    return set;
}

static struct att_buf m2_text(void)
{
    struct enrol_m2_request m2 = {.pcrs = pcrs()};
    struct att_buf text = {0};
    memset(m2.proof, 3, sizeof m2.proof);
    put(&m2.quote.attest, "attest");
    put(&m2.quote.sig, "sig");
    assert_int_equal(evidence_logs_add(&m2.logs, "firmware", ATT_SLICE_LIT("log"), NULL), ATT_OK);
    assert_int_equal(enrol_m2_request_encode(&m2, NULL, 0, &text, NULL), ATT_OK);
    enrol_m2_request_done(&m2);
    return text;
}

static void refuse_m2(const char *name, const char *value, const char *word)
{
    struct att_buf good = m2_text();
    struct att_buf text = edit(att_buf_slice(&good), name, value);
    struct enrol_m2_request m2 = {0};
    struct att_err err = {0};
    assert_int_not_equal(enrol_m2_request_parse(att_buf_slice(&text), &m2, &err), ATT_OK);
    has(&err, word);
    assert_string_equal(err.reason, "malformed");
    att_buf_done(&text);
    att_buf_done(&good);
}

static void test_m2_request(void **state)
{
    (void)state;
    refuse_m2("proof", NULL, "\"proof\"");
    refuse_m2("proof", "\"AAAA\"", "expected 32 bytes");
    refuse_m2("quote", NULL, "\"quote\"");
    refuse_m2("quote", "{\"attest\":\"YQ\"}", "\"sig\"");
    refuse_m2("quote", "{\"attest\":\"YQ\",\"sig\":\"YQ\",\"x\":1}", "unknown members");
    refuse_m2("pcrs", NULL, "\"pcrs\" is missing");
    refuse_m2("pcrs", "{}", "pcrs");
    refuse_m2("logs", NULL, "\"logs\" is missing");
    refuse_m2("logs", "[{}]", "\"name\"");
    refuse_m2("extra", "null", "unknown members");
    struct att_buf text = m2_text();
    struct enrol_m2_request m2 = {0};
    struct att_err err = {0};
    if (enrol_m2_request_parse(att_buf_slice(&text), &m2, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(m2.pcrs.sel.mask, 1u | 1u << 7);
    assert_int_equal(m2.pcrs.value[7][0], 0x22);
    assert_true(att_slice_eq_str(att_buf_slice(&m2.quote.sig), "sig"));
    assert_true(att_slice_eq_str(att_buf_slice(&m2.logs.log[0].data), "log"));
    enrol_m2_request_done(&m2);
    att_buf_done(&text);
}

static struct att_buf m2_answer(void)
{
    struct enrol_m2_response m2 = {.expires_at = 1795449600, .host_approved = true};
    struct att_buf text = {0};
    memset(m2.host_id, 'a', 64);
    put(&m2.ak_certificate, "-----BEGIN CERTIFICATE-----\n");
    assert_int_equal(enrol_m2_response_encode(&m2, &text, NULL), ATT_OK);
    enrol_m2_response_done(&m2);
    return text;
}

static void refuse_m2_answer(const char *name, const char *value, const char *word)
{
    struct att_buf good = m2_answer();
    struct att_buf text = edit(att_buf_slice(&good), name, value);
    struct enrol_m2_response m2 = {0};
    struct att_err err = {0};
    assert_int_not_equal(enrol_m2_response_parse(att_buf_slice(&text), &m2, &err), ATT_OK);
    has(&err, word);
    att_buf_done(&text);
    att_buf_done(&good);
}

static void test_m2_answer(void **state)
{
    (void)state;
    refuse_m2_answer("status", "\"pending\"", "expected \"valid\"");
    refuse_m2_answer("akCertificate", "\"\"", "\"akCertificate\"");
    refuse_m2_answer("host", NULL, "\"host\"");
    refuse_m2_answer("host", "{\"id\":\"aa\",\"state\":\"approved\"}", "64 lowercase hex");
    struct att_buf text = m2_answer();
    struct enrol_m2_response m2 = {0};
    assert_int_equal(enrol_m2_response_parse(att_buf_slice(&text), &m2, NULL), ATT_OK);
    assert_true(m2.host_approved);
    enrol_m2_response_done(&m2);
    /* Anything but "approved" is not approved. */
    struct att_buf odd = edit(att_buf_slice(&text), "host",
                              "{\"id\":\"0000000000000000000000000000000000000000000000000000000"
                              "000000000\",\"state\":\"Approved\"}");
    assert_int_equal(enrol_m2_response_parse(att_buf_slice(&odd), &m2, NULL), ATT_OK);
    assert_false(m2.host_approved);
    enrol_m2_response_done(&m2);
    att_buf_done(&odd);
    att_buf_done(&text);
}

/* ---- M4 ----------------------------------------------------------------------------------------
 */
static struct att_buf m4_text(void)
{
    struct enrol_m4_request m4 = {.pcrs = pcrs(), .ak_url = strdup("https://ca/acme/ak/1")};
    struct att_buf text = {0};
    put(&m4.attobj, "attobj");
    put(&m4.evidence, "evidence");
    put(&m4.quote.attest, "attest");
    put(&m4.quote.sig, "sig");
    put(&m4.srk_pub, "srk");
    put(&m4.parent_pub, "parent");
    assert_int_equal(enrol_m4_request_encode(&m4, NULL, 0, &text, NULL), ATT_OK);
    enrol_m4_request_done(&m4);
    return text;
}

static void refuse_m4(const char *name, const char *value, const char *word)
{
    struct att_buf good = m4_text();
    struct att_buf text = edit(att_buf_slice(&good), name, value);
    struct enrol_m4_request m4 = {0};
    struct att_err err = {0};
    assert_int_not_equal(enrol_m4_request_parse(att_buf_slice(&text), &m4, &err), ATT_OK);
    has(&err, word);
    assert_string_equal(err.reason, "malformed");
    att_buf_done(&text);
    att_buf_done(&good);
}

static void test_m4_request(void **state)
{
    (void)state;
    static const char *const required[] = {"attObj", "ak", "evidence", "quote", "pcrs", "logs"};
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
        char word[32];
        snprintf(word, sizeof word, "\"%s\"", required[i]);
        refuse_m4(required[i], NULL, word);
    }
    refuse_m4("ak", "\"\"", "\"ak\"");
    refuse_m4("parentPub", "\"\"", "\"parentPub\" is empty");
    refuse_m4("srkPub", "\"\"", "\"srkPub\" is empty");
    refuse_m4("parentCounter", "\"0x02804154\"", "expected an NV index"); /* no NV index */
    refuse_m4("parentCounter", "\"0x0180415\"", "expected an NV index");
    refuse_m4("parentCounter", "25182548", "expected an NV index");
    struct att_buf text = m4_text();
    /* The draft lets clients add members that a server does not know. */
    struct att_buf more = edit(att_buf_slice(&text), "laterAddition", "1");
    struct enrol_m4_request m4 = {0};
    assert_int_equal(enrol_m4_request_parse(att_buf_slice(&more), &m4, NULL), ATT_OK);
    assert_string_equal(m4.ak_url, "https://ca/acme/ak/1");
    assert_true(att_slice_eq_str(att_buf_slice(&m4.evidence), "evidence"));
    assert_true(att_slice_eq_str(att_buf_slice(&m4.parent_pub), "parent"));
    assert_int_equal(m4.logs.n, 0);
    enrol_m4_request_done(&m4);
    att_buf_done(&more);
    more = edit(att_buf_slice(&text), "parentCounter", "\"0x01804154\"");
    assert_int_equal(enrol_m4_request_parse(att_buf_slice(&more), &m4, NULL), ATT_OK);
    assert_int_equal(m4.parent_counter, 0x01804154);
    enrol_m4_request_done(&m4);
    att_buf_done(&more);
    more = edit(att_buf_slice(&text), "parentPub", NULL);
    assert_int_equal(enrol_m4_request_parse(att_buf_slice(&more), &m4, NULL), ATT_OK);
    assert_int_equal(m4.parent_pub.len, 0);
    enrol_m4_request_done(&m4);
    att_buf_done(&more);
    att_buf_done(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_m1_refusals),   cmocka_unit_test(test_m1_text_refusals),
        cmocka_unit_test(test_m1_round_trip), cmocka_unit_test(test_m1_answer),
        cmocka_unit_test(test_m2_request),    cmocka_unit_test(test_m2_answer),
        cmocka_unit_test(test_m4_request),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
