/* Canonical requests byte by byte: those of the published signing test suite (awslabs/aws-c-auth,
 * tests/aws-signing-test-suite/v4, by their names) that need no query. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/ctl/sigv4.h"

#include <string.h>

#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define HOST                                                                                       \
    {                                                                                              \
        "host", "example.amazonaws.com"                                                            \
    }
#define DATE                                                                                       \
    {                                                                                              \
        "x-amz-date", "20150830T123600Z"                                                           \
    }

/* hash: of the canonical request, as the suite's string to sign has it. */
static void is(const char *method, const char *path, const struct sigv4_header *headers, size_t n,
               const char *body, const char *canonical, const char *hash)
{
    const struct sigv4_request request = {method, path, headers, n, att_slice_str(body)};
    att_autobuf text = {0}, names = {0}, to_sign = {0}, expected = {0};
    assert_int_equal(sigv4_canonical(&request, &text, &names, NULL), ATT_OK);
    assert_string_equal(att_buf_cstr(&text), canonical);
    assert_int_equal(sigv4_string_to_sign("AWS4-HMAC-SHA256", "20150830T123600Z",
                                          "20150830/us-east-1/service/aws4_request",
                                          att_buf_slice(&text), &to_sign, NULL),
                     ATT_OK);
    att_buf_printf(
        &expected,
        "AWS4-HMAC-SHA256\n20150830T123600Z\n20150830/us-east-1/service/aws4_request\n%s", hash);
    assert_string_equal(att_buf_cstr(&to_sign), att_buf_cstr(&expected));
}

static void test_refused(void **state)
{
    (void)state;
    const struct sigv4_header twice[] = {HOST, DATE, HOST};
    struct sigv4_header many[SIGV4_HEADERS_MAX + 1];
    struct sigv4_request request = {"GET", "/", twice, 3, att_slice_str("")};
    att_autobuf text = {0}, names = {0};
    struct att_err err = {0};
    assert_int_equal(sigv4_canonical(&request, &text, &names, &err), ATT_E_INVAL);
    assert_non_null(strstr(err.msg, "host is there twice"));
    for (size_t i = 0; i < SIGV4_HEADERS_MAX + 1; i++) {
        many[i] = (struct sigv4_header)DATE;
    }
    request.headers = many;
    request.n_headers = SIGV4_HEADERS_MAX + 1;
    att_err_clear(&err);
    assert_int_equal(sigv4_canonical(&request, &text, &names, &err), ATT_E_INVAL);
    assert_non_null(strstr(err.msg, "at most 16"));
}

static void test_get_vanilla(void **state)
{
    (void)state;
    const struct sigv4_header headers[] = {DATE, HOST};
    is("GET", "/", headers, 2, "",
       "GET\n/"
       "\n\nhost:example.amazonaws.com\nx-amz-date:20150830T123600Z\n\nhost;x-amz-date\n" EMPTY,
       "bb579772317eb040ac9ed261061d46c1f17a8133879d6129b6e1c25292927e63");
}

static void test_get_header_value_trim(void **state)
{
    (void)state;
    const struct sigv4_header headers[] = {
        {"my-header2", "  \"a   b   c\"  "}, DATE, {"my-header1", " value1"}, HOST};
    is("GET", "/", headers, 4, "",
       "GET\n/\n\nhost:example.amazonaws.com\nmy-header1:value1\nmy-header2:\"a b c\"\n"
       "x-amz-date:20150830T123600Z\n\nhost;my-header1;my-header2;x-amz-date\n" EMPTY,
       "a726db9b0df21c14f559d0a978e563112acb1b9e05476f0a6a1c7d68f28605c7");
}

static void test_get_header_value_order(void **state)
{
    (void)state;
    const struct sigv4_header headers[] = {
        HOST, {"my-header1", "value4,value1,value3,value2"}, DATE};
    is("GET", "/", headers, 3, "",
       "GET\n/\n\nhost:example.amazonaws.com\nmy-header1:value4,value1,value3,value2\n"
       "x-amz-date:20150830T123600Z\n\nhost;my-header1;x-amz-date\n" EMPTY,
       "31ce73cd3f3d9f66977ad3dd957dc47af14df92fcd8509f59b349e9137c58b86");
}

static void test_paths(void **state)
{
    (void)state;
    const struct sigv4_header headers[] = {HOST, DATE};
    /* get-utf8 */
    is("GET", "/\xe1\x88\xb4", headers, 2, "",
       "GET\n/%E1%88%B4\n\nhost:example.amazonaws.com\nx-amz-date:20150830T123600Z\n\n"
       "host;x-amz-date\n" EMPTY,
       "2a0a97d02205e45ce2e994789806b19270cfbbb0921b278ccf58f5249ac42102");
    /* get-unreserved */
    is("GET", "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", headers, 2, "",
       "GET\n/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz\n\n"
       "host:example.amazonaws.com\nx-amz-date:20150830T123600Z\n\nhost;x-amz-date\n" EMPTY,
       "6a968768eefaa713e2a6b16b589a8ea192661f098f37349f4e2c0082757446f9");
    /* get-space-normalized */
    is("GET", "/example space/", headers, 2, "",
       "GET\n/example%20space/\n\nhost:example.amazonaws.com\nx-amz-date:20150830T123600Z\n\n"
       "host;x-amz-date\n" EMPTY,
       "63ee75631ed7234ae61b5f736dfc7754cdccfedbff4b5128a915706ee9390d86");
}

static void test_posts(void **state)
{
    (void)state;
    const struct sigv4_header
        plain[] = {HOST, DATE},
        mixed[] = {HOST, DATE, {"my-header1", "VALUE1"}},
        form[] = {{"x-amz-content-sha256",
                   "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e"},
                  {"content-type", "application/x-www-form-urlencoded"},
                  DATE,
                  {"content-length", "13"},
                  HOST};
    /* post-vanilla, post-header-value-case, post-x-www-form-urlencoded */
    is("POST", "/", plain, 2, "",
       "POST\n/"
       "\n\nhost:example.amazonaws.com\nx-amz-date:20150830T123600Z\n\nhost;x-amz-date\n" EMPTY,
       "553f88c9e4d10fc9e109e2aeb65f030801b70c2f6468faca261d401ae622fc87");
    is("POST", "/", mixed, 3, "",
       "POST\n/\n\nhost:example.amazonaws.com\nmy-header1:VALUE1\nx-amz-date:20150830T123600Z\n\n"
       "host;my-header1;x-amz-date\n" EMPTY,
       "d51ced243e649e3de6ef63afbbdcbca03131a21a7103a1583706a64618606a93");
    is("POST", "/", form, 5, "Param1=value1",
       "POST\n/\n\ncontent-length:13\ncontent-type:application/x-www-form-urlencoded\n"
       "host:example.amazonaws.com\n"
       "x-amz-content-sha256:9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e\n"
       "x-amz-date:20150830T123600Z\n\n"
       "content-length;content-type;host;x-amz-content-sha256;x-amz-date\n"
       "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e",
       "b1edd1d03544c25390e32085d55b57acc9a3961bb59415ff86c45c3d89d16cfb");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_get_vanilla),
                                       cmocka_unit_test(test_get_header_value_trim),
                                       cmocka_unit_test(test_get_header_value_order),
                                       cmocka_unit_test(test_paths),
                                       cmocka_unit_test(test_posts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
