/* Allow lists of IMA: what is read, what is found in it, and every refusal of the reader alone. */
#include "tests/unit/verify/harness.h"

#include "provision/verify/imadraft.h"

#include <stdlib.h>

#define A64  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define B64  "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define HEAD VERIFY_IMALIST_HEADER

static struct verify_imalist *list_of(const char *text)
{
    struct verify_imalist *list = NULL;
    struct att_err err = {0};
    if (verify_imalist_parse(att_slice_str(text), &list, &err)) {
        fail_msg("%s", err.msg);
    }
    return list;
}

static void refused(const char *text, enum att_rc rc, const char *says)
{
    struct verify_imalist *list = NULL;
    struct att_err err = {0};
    assert_int_equal(verify_imalist_parse(att_slice_str(text), &list, &err), rc);
    assert_null(list);
    if (!strstr(err.msg, says)) {
        fail_msg("\"%s\" does not say \"%s\"", err.msg, says);
    }
}

static bool has(const struct verify_imalist *list, const char *name, unsigned kind, uint8_t byte,
                bool *ret_named)
{
    uint8_t digest[64];
    memset(digest, byte, sizeof(digest));
    return verify_imalist_has(list, att_slice_str(name), kind, digest, ret_named);
}

static void test_looks_up(void **state)
{
    (void)state;
    verify_autoimalist *list = list_of(
        HEAD "# a comment\nsha256:" A64 " /usr/bin/a\nsha256:" B64 " /usr/bin/a\n"
             "verity:sha256:" A64 " /srv/m\nsha384:" A64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa /b\n"
             "sha256:" A64 " /odd\\x0aname\\x5c\n");
    unsigned file = verify_imalist_kind("ima", "sha256", 32);
    unsigned verity = verify_imalist_kind("verity", "sha256", 32);
    bool named = false;
    assert_int_equal(verify_imalist_count(list), 5);
    assert_true(has(list, "/usr/bin/a", file, 0xaa, &named));
    assert_true(has(list, "/usr/bin/a", file, 0xbb, &named));
    assert_false(has(list, "/usr/bin/a", file, 0xcc, &named));
    assert_true(named);
    assert_false(has(list, "/usr/bin/a", verity, 0xaa, &named)); /* of the file, not fs-verity's */
    assert_true(has(list, "/srv/m", verity, 0xaa, &named));
    assert_false(has(list, "/srv/m", file, 0xaa, &named));
    assert_true(has(list, "/b", verify_imalist_kind("", "sha384", 48), 0xaa, &named));
    assert_true(has(list, "/odd\nname\\", file, 0xaa, &named));
    assert_false(has(list, "/usr/bin/", file, 0xaa, &named));
    assert_false(named);
    assert_false(has(list, "", file, 0xaa, &named));
}

static void test_kinds(void **state)
{
    (void)state;
    assert_int_equal(verify_imalist_kind("", "sha1", 20), 0);
    assert_int_equal(verify_imalist_kind("", "md5", 16), 0);
    assert_int_equal(verify_imalist_kind("", "sha256", 31), 0);
    assert_int_not_equal(verify_imalist_kind("", "sha512", 64), 0);
    assert_string_equal(verify_imalist_kind_name(verify_imalist_kind("verity", "sha512", 64)),
                        "verity:sha512");
}

/* One thing wrong at a time; the line that it is in is named. */
static void test_refusals(void **state)
{
    (void)state;
    static const char good[] = "sha256:" A64 " /a\n";
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"", "line 1: expected \"# attestd IMA allow list 1\""},
        {"# attestd IMA allow list 2\nsha256:" A64 " /a\n", "line 1"},
        {HEAD, "it has no entry"},
        {HEAD "\nsha256:" A64 " /a\n", "line 2: it is empty"},
        {HEAD "sha256:" A64 " /a", "line 2: the last line has no newline"},
        {HEAD "sha1:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa /a\n", "line 2: expected \"sha256:\""},
        {HEAD "ima:sha256:" A64 " /a\n", "line 2: expected \"sha256:\""},
        {HEAD "sha256:" A64 "a /a\n", "line 2: expected the digest in hex"},
        {HEAD "sha256:" A64 "\n", "line 2: expected the digest in hex"},
        {HEAD "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA /a\n",
         "line 2: expected the digest in hex"},
        {HEAD "sha512:" A64 " /a\n", "line 2: expected the digest in hex"},
        {HEAD "sha256:" A64 " \n", "line 2: expected a name"},
        {HEAD "sha256:" A64 "  /a\n", "line 2: expected a name"},
        {HEAD "sha256:" A64 " /a b\n", "line 2: expected a name"},
        {HEAD "sha256:" A64 " /a\t\n", "line 2: expected a name"},
        {HEAD "sha256:" A64 " /a\\x41\n", "line 2: expected a name"},
        {HEAD "sha256:" A64 " /a\\x0\n", "line 2: expected a name"},
        {HEAD "sha256:" A64 " /a\\x00\n", "line 2: expected a name"},
        {HEAD "sha256:" A64 " /a\xff\n", "line 2: expected a name"},
        {HEAD "sha256:" A64 " /a\xc3\\xa4\n", "line 2: expected a name"},
        {HEAD "sha256:" A64 " /a\\xc3\\xa4\n", "line 2: expected a name"},
        {HEAD "# \xff\nsha256:" A64 " /a\n", "line 2: expected a comment in UTF-8"},
        {HEAD "# one\nsha256:" A64 " /a\nsha256:" B64 " /a\nsha256:" A64 " /a\n",
         "line 5: the same name and digest as line 3"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refused(bad[i].text, ATT_E_PARSE, bad[i].says);
    }
    att_autobuf text = ATT_BUF_INIT(1 << 20);
    att_buf_put_str(&text, HEAD);
    att_buf_put_str(&text, good);
    verify_imalist_free(list_of(att_buf_cstr(&text)));
    att_buf_put_str(&text, "sha256:" A64 " /");
    for (size_t i = 0; i < VERIFY_IMALIST_NAME_MAX; i++) {
        att_buf_u8(&text, 'n');
    }
    att_buf_u8(&text, '\n');
    refused(att_buf_cstr(&text), ATT_E_PARSE, "line 3: its name is longer than 4096 bytes");
}

/* What is drafted is sorted, each line once, and reads as what was put in. */
static void test_draft(void **state)
{
    (void)state;
    att_autobuf lines = {0}, text = {0};
    uint8_t digest[32];
    memset(digest, 0xaa, sizeof(digest));
    static const char *const names[] = {"/z", "/a\tb\\", "/z", "/m"};
    for (size_t i = 0; i < 4; i++) {
        const struct verify_imalist_entry entry = {.name = att_slice_str(names[i]),
                                                   .kind = verify_imalist_kind("", "sha256", 32),
                                                   .digest = digest};
        verify_imalist_put(&lines, &entry);
    }
    assert_int_equal(verify_imadraft_list(att_buf_slice(&lines), "from a test", &text, NULL),
                     ATT_OK);
    assert_string_equal(att_buf_cstr(&text), HEAD "# from a test\nsha256:" A64 " /a\\x09b\\x5c\n"
                                                  "sha256:" A64 " /m\nsha256:" A64 " /z\n");
    verify_autoimalist *list = list_of(att_buf_cstr(&text));
    bool named = false;
    assert_true(has(list, "/a\tb\\", verify_imalist_kind("", "sha256", 32), 0xaa, &named));
    att_autobuf none = {0};
    assert_int_equal(verify_imadraft_list(ATT_SLICE_LIT("nonsense\n"), NULL, &none, NULL),
                     ATT_E_INVAL);
}

/* 50,000 names: each is found, none beside it. */
static void test_many(void **state)
{
    (void)state;
    att_autobuf text = ATT_BUF_INIT(VERIFY_IMALIST_BYTES_MAX);
    att_buf_put_str(&text, HEAD);
    for (size_t i = 0; i < 50000; i++) {
        att_buf_printf(&text, "sha256:" A64 " /usr/lib/file-%zu\n", i);
    }
    verify_autoimalist *list = list_of(att_buf_cstr(&text));
    unsigned kind = verify_imalist_kind("", "sha256", 32);
    for (size_t i = 0; i < 60000; i++) {
        char name[64];
        bool named = false;
        snprintf(name, sizeof(name), "/usr/lib/file-%zu", i);
        assert_int_equal(has(list, name, kind, 0xaa, &named), i < 50000);
        assert_int_equal(named, i < 50000);
    }
}

/* A name of any bytes can be written, in one way, and the text is UTF-8: an upload is JSON. */
static void test_not_utf8(void **state)
{
    (void)state;
    att_autobuf text = {0};
    uint8_t digest[32];
    memset(digest, 0xaa, sizeof(digest));
    static const char *const names[] = {"/tmp/\xff",         "/tmp/\xc3\xa4", "/tmp/\xe2\x82",
                                        "/tmp/\xed\xa0\x80", "/tmp/\xc0\xaf", "/\xf0\x9f\x98\x80"};
    att_buf_put_str(&text, HEAD);
    for (size_t i = 0; i < 6; i++) {
        const struct verify_imalist_entry entry = {.name = att_slice_str(names[i]),
                                                   .kind = verify_imalist_kind("", "sha256", 32),
                                                   .digest = digest};
        verify_imalist_put(&text, &entry);
    }
    assert_string_equal(att_buf_cstr(&text),
                        HEAD "sha256:" A64 " /tmp/\\xff\nsha256:" A64 " /tmp/\xc3\xa4\n"
                             "sha256:" A64 " /tmp/\\xe2\\x82\nsha256:" A64
                             " /tmp/\\xed\\xa0\\x80\nsha256:" A64 " /tmp/\\xc0\\xaf\n"
                             "sha256:" A64 " /\xf0\x9f\x98\x80\n");
    verify_autoimalist *list = list_of(att_buf_cstr(&text));
    for (size_t i = 0; i < 6; i++) {
        bool named = false;
        assert_true(has(list, names[i], verify_imalist_kind("", "sha256", 32), 0xaa, &named));
    }
}

/* 200,000 digests of one name: the work is by the line, not by its square. Walking the name's lines
 * for each would take 2e10 steps, which no time limit of a test allows. */
static void test_one_name(void **state)
{
    (void)state;
    att_autobuf text = ATT_BUF_INIT(VERIFY_IMALIST_BYTES_MAX);
    att_buf_put_str(&text, HEAD);
    for (size_t i = 0; i < 200000; i++) {
        att_buf_printf(&text, "sha256:%064zx /a\n", i);
    }
    verify_autoimalist *list = list_of(att_buf_cstr(&text));
    assert_int_equal(verify_imalist_count(list), 200000);
    unsigned kind = verify_imalist_kind("", "sha256", 32);
    for (size_t i = 0; i < 400000; i++) {
        uint8_t digest[32] = {0};
        bool named = false;
        for (size_t k = 0; k < 4; k++) {
            digest[31 - k] = (uint8_t)(i >> 8 * k);
        }
        assert_int_equal(verify_imalist_has(list, ATT_SLICE_LIT("/a"), kind, digest, &named),
                         i < 200000);
        assert_true(named);
    }
    att_buf_printf(&text, "sha256:%064x /a\n", 7);
    refused(att_buf_cstr(&text), ATT_E_PARSE, "line 200002: the same name and digest as line 9");
}

/* Comments have an end, too: an upload goes by whole lines. */
static void test_long_comment(void **state)
{
    (void)state;
    for (size_t len = VERIFY_IMALIST_LINE_MAX; len <= VERIFY_IMALIST_LINE_MAX + 1; len++) {
        att_autobuf text = {0};
        att_buf_put_str(&text, HEAD "#");
        for (size_t i = 1; i < len; i++) {
            att_buf_u8(&text, 'c');
        }
        att_buf_put_str(&text, "\nsha256:" A64 " /a\n");
        if (len > VERIFY_IMALIST_LINE_MAX) {
            refused(att_buf_cstr(&text), ATT_E_PARSE, "line 2: it is longer than 32768 bytes");
        } else {
            verify_imalist_free(list_of(att_buf_cstr(&text)));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_looks_up), cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_draft),
        cmocka_unit_test(test_many),     cmocka_unit_test(test_not_utf8),
        cmocka_unit_test(test_one_name), cmocka_unit_test(test_long_comment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
