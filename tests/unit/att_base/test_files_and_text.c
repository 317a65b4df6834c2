/* io, json, clock, err, log. */
#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/base/json.h"
#include "attestd/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[] = "/tmp/att-base-XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static const char *at(const char *name)
{
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return path;
}

static void test_read_refuses_absent_and_large(void **state)
{
    (void)state;
    att_autobuf buf = {0};
    struct att_err err = {0};
    assert_int_equal(att_io_read_file(at("absent"), 10, &buf, &err), ATT_E_NOTFOUND);
    assert_non_null(strstr(err.msg, "absent"));
    assert_int_equal(att_io_write_file(at("ten"), ATT_SLICE_LIT("0123456789"), 0600, NULL), ATT_OK);
    assert_int_equal(att_io_read_file(at("ten"), 9, &buf, NULL), ATT_E_LIMIT);
    att_buf_reset(&buf);
    assert_int_equal(att_io_read_file(at("ten"), 10, &buf, NULL), ATT_OK);
    assert_int_equal(buf.len, 10);
}

static void test_staged_is_not_seen(void **state)
{
    (void)state;
    struct att_io_staged staged = {0};
    char path[256], tmp[sizeof staged.tmp];
    att_autobuf buf = {0};
    snprintf(path, sizeof path, "%s", at("staged"));
    assert_int_equal(att_io_stage(at("no/folder"), ATT_SLICE_LIT("x"), 0600, &staged, NULL),
                     ATT_E_IO);
    assert_int_equal(staged.tmp[0], 0);
    assert_int_equal(att_io_stage(path, ATT_SLICE_LIT("given up"), 0600, &staged, NULL), ATT_OK);
    memcpy(tmp, staged.tmp, sizeof tmp);
    assert_int_equal(access(path, F_OK), -1);
    att_io_unstage(&staged);
    att_io_unstage(&staged);
    assert_int_equal(access(tmp, F_OK), -1);
    assert_int_equal(att_io_stage(path, ATT_SLICE_LIT("kept"), 0640, &staged, NULL), ATT_OK);
    assert_int_equal(att_io_commit(&staged, path, NULL), ATT_OK);
    att_io_unstage(&staged); /* nothing is staged any more */
    assert_int_equal(att_io_sync_folder_of(path, NULL), ATT_OK);
    assert_int_equal(att_io_read_file(path, 10, &buf, NULL), ATT_OK);
    assert_true(att_slice_eq_str(att_buf_slice(&buf), "kept"));
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
}

static void test_write_replaces_whole_or_not_at_all(void **state)
{
    (void)state;
    struct att_err err = {0};
    assert_int_equal(att_io_write_file(at("f"), ATT_SLICE_LIT("old"), 0640, NULL), ATT_OK);
    struct stat st;
    assert_int_equal(stat(at("f"), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0640);
    /* A folder in the way: the rename fails, nothing is left behind. */
    assert_int_equal(mkdir(at("folder"), 0700), 0);
    assert_int_equal(att_io_write_file(at("folder"), ATT_SLICE_LIT("x"), 0600, &err), ATT_E_IO);
    assert_int_equal(rmdir(at("folder")), 0);
    att_err_clear(&err);
    assert_int_equal(att_io_write_file(at("no/such/folder"), ATT_SLICE_LIT("x"), 0600, &err),
                     ATT_E_IO);
    assert_non_null(strstr(err.msg, "no/such/folder"));
    char command[128];
    snprintf(command, sizeof command, "ls %s | grep -q tmp", dir);
    assert_int_not_equal(system(command), 0);
}

static void test_set_aside_never_overwrites(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        char text[8];
        snprintf(text, sizeof text, "v%d", i);
        assert_int_equal(att_io_write_file(at("state"), att_slice_str(text), 0600, NULL), ATT_OK);
        assert_int_equal(att_io_set_aside(at("state"), NULL), ATT_OK);
    }
    att_autobuf buf = {0};
    assert_int_equal(att_io_read_file(at("state.bad"), 10, &buf, NULL), ATT_OK);
    assert_int_equal(att_io_read_file(at("state.bad.1"), 10, &buf, NULL), ATT_OK);
    assert_int_equal(att_io_read_file(at("state.bad.2"), 10, &buf, NULL), ATT_OK);
    assert_string_equal(att_buf_cstr(&buf), "v0v1v2");
    assert_int_equal(att_io_read_file(at("state"), 10, &buf, NULL), ATT_E_NOTFOUND);
}

static void test_json_refuses(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "{\"a\":1,\"a\":2}", "{} x", "", "{\"a\":\"\\u0000\"}", "[1,]", "nul", "{\"a\" 1}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        json_t *json = NULL;
        assert_int_equal(att_json_parse(att_slice_str(bad[i]), 1000, &json, NULL), ATT_E_PARSE);
        assert_null(json);
    }
    char deep[200];
    memset(deep, '[', 100);
    memset(deep + 100, ']', 100);
    json_t *json = NULL;
    assert_int_equal(att_json_parse(ATT_SLICE(deep, 200), 1000, &json, NULL), ATT_E_LIMIT);
    assert_int_equal(att_json_parse(ATT_SLICE_LIT("[1]"), 2, &json, NULL), ATT_E_LIMIT);
    /* brackets inside strings are text */
    assert_int_equal(att_json_parse(ATT_SLICE_LIT("[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"]"),
                                    1000, &json, NULL),
                     ATT_OK);
    json_decref(json);
}

static void test_json_member_errors_name_the_member(void **state)
{
    (void)state;
    att_autojson *json = json_pack("{s:i, s:s}", "n", 1, "b", "YQ==");
    struct att_err err = {0};
    const char *s = NULL;
    assert_int_equal(att_json_str(json, "n", &s, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "\"n\""));
    att_err_clear(&err);
    att_autobuf out = {0};
    assert_int_equal(att_json_b64u(json, "b", 100, &out, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "\"b\""));
    assert_int_equal(att_json_b64u(json, "b", 1, &out, NULL), ATT_E_LIMIT);
}

static void test_durations_and_times_refuse(void **state)
{
    (void)state;
    static const char *const bad[] = {"",  "0",   "-1s",          "1w", "1 h",
                                      "h", "1hh", "99999999999d", "0x5"};
    int64_t s = 0;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(att_duration_parse(bad[i], &s, NULL), ATT_E_PARSE);
    }
    assert_int_equal(att_duration_parse("90", &s, NULL), ATT_OK);
    assert_int_equal(s, 90);
    assert_int_equal(att_duration_parse("7d", &s, NULL), ATT_OK);
    assert_int_equal(s, 604800);
    assert_int_equal(att_time_parse("2026-11-23 15:53:21", &s, NULL), ATT_E_PARSE);
    assert_int_equal(att_time_parse("2026-11-23T15:53:21Z", &s, NULL), ATT_OK);
    char text[ATT_TIME_TEXT_LEN];
    att_time_text(text, s);
    assert_string_equal(text, "2026-11-23T15:53:21Z");
}

static void test_first_error_stays(void **state)
{
    (void)state;
    struct att_err err = {0};
    errno = ENOENT;
    assert_int_equal(att_fail_errno(&err, ATT_E_IO, "open %s", "x"), ATT_E_IO);
    assert_int_equal(att_fail(&err, ATT_E_PARSE, "later"), ATT_E_PARSE);
    assert_int_equal(err.rc, ATT_E_IO);
    assert_int_equal(err.native, ENOENT);
    att_err_prefix(&err, "while %s", "testing");
    assert_string_equal(err.msg, "while testing: open x: No such file or directory");
}

/* A value with a line break must not become a second line. */
static void test_log_lines_cannot_be_forged(void **state)
{
    (void)state;
    for (int json = 0; json < 2; json++) {
        int saved = dup(STDERR_FILENO);
        int fd = open(at("log"), O_RDWR | O_CREAT | O_TRUNC, 0600);
        dup2(fd, STDERR_FILENO);
        att_log_setup("test", ATT_INFO, json);
        att_log(ATT_INFO, "x", ATT_S("v", "a\nlevel=error \"q\"\\\x1b[31m"), ATT_N("n", -7),
                ATT_S("none", NULL));
        att_log(ATT_DEBUG, "silent", ATT_N("n", 1));
        dup2(saved, STDERR_FILENO);
        close(saved);
        close(fd);
        att_autobuf buf = {0};
        assert_int_equal(att_io_read_file(at("log"), 10000, &buf, NULL), ATT_OK);
        const char *line = att_buf_cstr(&buf);
        assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
        assert_null(strchr(line, 0x1b));
        assert_null(strstr(line, "silent"));
        if (json) {
            att_autojson *parsed = NULL;
            assert_int_equal(att_json_parse(att_buf_slice(&buf), 10000, &parsed, NULL), ATT_OK);
            assert_int_equal(json_integer_value(json_object_get(parsed, "n")), -7);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_refuses_absent_and_large),
        cmocka_unit_test(test_staged_is_not_seen),
        cmocka_unit_test(test_write_replaces_whole_or_not_at_all),
        cmocka_unit_test(test_set_aside_never_overwrites),
        cmocka_unit_test(test_json_refuses),
        cmocka_unit_test(test_json_member_errors_name_the_member),
        cmocka_unit_test(test_durations_and_times_refuse),
        cmocka_unit_test(test_first_error_stays),
        cmocka_unit_test(test_log_lines_cannot_be_forged),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
