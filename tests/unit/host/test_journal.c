/* The host's own log: its chain, what a crash or a full disk leaves, files that follow one another,
 * and one that does not hold together. */
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/host/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[64];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/att-journal.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

static struct host_journal *open_journal(uint64_t segment_max, unsigned segments)
{
    const struct host_journal_opts opts = {
        .dir = dir, .segment_max = segment_max, .segments = segments};
    struct host_journal *j = NULL;
    struct att_err err = {0};
    if (host_journal_open(&opts, &j, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
    return j;
}

static void add(struct host_journal *j, const char *agent)
{
    assert_int_equal(host_journal_add(j, "granted", json_pack("{s:s}", "agent", agent), NULL),
                     ATT_OK);
}

static char *segment(uint64_t first)
{
    static char path[128];
    snprintf(path, sizeof(path), "%s/%020llu.jsonl", dir, (unsigned long long)first);
    return path;
}

/* Line n (from 0) of a segment, parsed; ret_hash: what the next one has to say of it. */
static json_t *line(uint64_t first, size_t n, char ret_hash[65])
{
    att_autobuf bytes = {0};
    assert_int_equal(att_io_read_file(segment(first), 1 << 20, &bytes, NULL), ATT_OK);
    const uint8_t *at = bytes.ptr, *end = memchr(at, '\n', bytes.len);
    for (; n > 0; n--) {
        at = end + 1;
        end = memchr(at, '\n', bytes.len - (size_t)(at - bytes.ptr));
        assert_non_null(end);
    }
    json_t *json = NULL;
    uint8_t hash[ATT_SHA256_LEN];
    struct att_slice text = ATT_SLICE(at, (size_t)(end - at));
    const struct att_slice parts[] = {ATT_SLICE_LIT("attestd-hostlog/1"), text};
    att_sha256_v(hash, parts, 2);
    att_hex(ret_hash, ATT_SLICE_ARRAY(hash));
    assert_int_equal(att_json_parse(text, 1 << 20, &json, NULL), ATT_OK);
    return json;
}

static const char *str(const json_t *json, const char *name)
{
    const char *s = json_string_value(json_object_get(json, name));
    return s ? s : "";
}

static void test_chain(void **state)
{
    (void)state;
    struct host_journal *j = open_journal(1 << 20, 4);
    add(j, "a");
    add(j, "b");
    uint8_t head[ATT_SHA256_LEN];
    char hash[3][65], text[65];
    assert_int_equal(host_journal_head(j, head, NULL), ATT_OK);
    json_t *records[3];
    for (size_t i = 0; i < 3; i++) {
        records[i] = line(1, i, hash[i]);
        assert_int_equal(json_integer_value(json_object_get(records[i], "seq")), i + 1);
    }
    assert_string_equal(str(records[0], "kind"), "begin");
    assert_string_equal(str(records[0], "prev"),
                        "0000000000000000000000000000000000000000000000000000000000000000");
    assert_string_equal(str(records[1], "prev"), hash[0]);
    assert_string_equal(str(records[2], "prev"), hash[1]);
    assert_string_equal(str(records[2], "agent"), "b");
    att_hex(text, ATT_SLICE_ARRAY(head));
    assert_string_equal(text, hash[2]);
    for (size_t i = 0; i < 3; i++) {
        json_decref(records[i]);
    }
    /* Members cannot take the place of the log's own. */
    assert_int_equal(host_journal_add(j, "refused", json_pack("{s:i}", "seq", 99), NULL), ATT_OK);
    host_journal_close(j);
    /* It goes on after a restart. */
    j = open_journal(1 << 20, 4);
    add(j, "c");
    json_t *after = line(1, 3, hash[0]), *last = line(1, 4, hash[1]);
    assert_int_equal(json_integer_value(json_object_get(after, "seq")), 4);
    assert_string_equal(str(last, "prev"), hash[0]);
    json_decref(after);
    json_decref(last);
    host_journal_close(j);
}

/* What was being written when the power went was never quoted. */
static void test_torn_line(void **state)
{
    (void)state;
    struct host_journal *j = open_journal(1 << 20, 4);
    uint8_t before[ATT_SHA256_LEN], after[ATT_SHA256_LEN];
    add(j, "a");
    assert_int_equal(host_journal_head(j, before, NULL), ATT_OK);
    host_journal_close(j);
    FILE *f = fopen(segment(1), "a");
    assert_non_null(f);
    fputs("{\"seq\":3,\"at\":17", f);
    fclose(f);
    j = open_journal(1 << 20, 4);
    assert_int_equal(host_journal_head(j, after, NULL), ATT_OK);
    assert_memory_equal(before, after, sizeof(before));
    add(j, "b");
    char hash[65];
    json_t *record = line(1, 2, hash);
    assert_string_equal(str(record, "agent"), "b");
    json_decref(record);
    host_journal_close(j);
}

static void bend(const char *from, const char *to)
{
    char command[256];
    snprintf(command, sizeof(command), "sed -i 's/%s/%s/' %s", from, to, segment(1));
    assert_int_equal(system(command), 0);
}

static void expect_anew(const char *message)
{
    struct host_journal *j = open_journal(1 << 20, 4);
    char hash[65], bad[160];
    json_t *record = line(1, 0, hash);
    assert_string_equal(str(record, "kind"), "begin");
    assert_string_equal(str(record, "reason"), "hostLogEdited");
    assert_string_equal(str(record, "detail"), message);
    snprintf(bad, sizeof(bad), "%s.bad", segment(1));
    assert_int_equal(unlink(bad), 0);
    json_decref(record);
    add(j, "a");
    add(j, "b");
    host_journal_close(j);
}

static void test_edited_is_kept_aside(void **state)
{
    (void)state;
    struct host_journal *j = open_journal(1 << 20, 4);
    add(j, "a");
    add(j, "b");
    host_journal_close(j);
    bend("\"agent\":\"a\"", "\"agent\":\"z\"");
    expect_anew("record 3 does not follow the one before it");
    bend("\"seq\":2", "\"seq\":5");
    expect_anew("record 2 has another number");
    bend("\"kind\":\"granted\",\"agent\":\"a\"", "");
    expect_anew("record 2 is not a record");
    bend("\"prev\":\"[0-9a-f]*\",\"kind\":\"granted\",\"agent\":\"a\"", "\"kind\":\"granted\"");
    expect_anew("record 2 is not a record");
}

/* A file's first record is held against what is known of the one before it. */
static void test_first_line_of_a_file(void **state)
{
    (void)state;
    struct host_journal *j = open_journal(1 << 20, 4);
    add(j, "a");
    host_journal_close(j);
    bend("\"prev\":\"0000", "\"prev\":\"1111");
    expect_anew("record 1 does not follow the one before it");
    j = open_journal(1, 4); /* a file for each record */
    add(j, "c");
    host_journal_close(j);
    char command[256], message[80];
    bend("\"agent\":\"b\"", "\"agent\":\"z\"");
    snprintf(message, sizeof(message), "record 4 does not follow the one before it");
    j = open_journal(1 << 20, 4);
    char hash[65];
    json_t *record = line(1, 0, hash);
    assert_string_equal(str(record, "reason"), "hostLogEdited");
    assert_string_equal(str(record, "detail"), message);
    json_decref(record);
    host_journal_close(j);
    snprintf(command, sizeof(command), "%s.bad", segment(4));
    assert_int_equal(access(command, F_OK), 0);
}

static void test_segments(void **state)
{
    (void)state;
    struct host_journal *j = open_journal(200, 3);
    for (int i = 0; i < 12; i++) {
        add(j, "portfolio-rebalancer");
    }
    uint64_t seq, missed;
    host_journal_counts(j, &seq, &missed);
    assert_true(seq > 13); /* those that say what was dropped */
    assert_int_equal(missed, 0);
    assert_int_not_equal(access(segment(1), F_OK), 0);
    uint8_t before[ATT_SHA256_LEN], after[ATT_SHA256_LEN];
    assert_int_equal(host_journal_head(j, before, NULL), ATT_OK);
    host_journal_close(j);
    j = open_journal(200, 3);
    assert_int_equal(host_journal_head(j, after, NULL), ATT_OK);
    assert_memory_equal(before, after, sizeof(before));
    uint64_t again;
    host_journal_counts(j, &again, &missed);
    assert_int_equal(seq, again);
    host_journal_close(j);
    char command[256];
    snprintf(command, sizeof(command),
             "test $(ls %s/*.jsonl | wc -l) -le 3 && grep -qh dropped %s/*", dir, dir);
    assert_int_equal(system(command), 0);
}

/* A file that was begun and never written to: the log ends in the one before. */
static void test_empty_segment(void **state)
{
    (void)state;
    struct host_journal *j = open_journal(1 << 20, 4);
    add(j, "a");
    host_journal_close(j);
    FILE *f = fopen(segment(3), "w");
    assert_non_null(f);
    fclose(f);
    j = open_journal(1 << 20, 4);
    uint64_t seq, missed;
    host_journal_counts(j, &seq, &missed);
    assert_int_equal(seq, 2);
    host_journal_close(j);
}

/* A disk that is full (here: a limit of a file's size): nothing half written, the next one says how
 * many are missing. */
static void test_missed(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    struct host_journal *j = open_journal(1 << 20, 4);
    add(j, "a");
    struct rlimit before, small;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    struct stat st;
    assert_int_equal(stat(segment(1), &st), 0);
    small.rlim_cur = (rlim_t)st.st_size + 20; /* room for a part of the next line */
    struct att_err err = {0};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    assert_int_equal(host_journal_add(j, "granted", json_pack("{s:s}", "agent", "b"), &err),
                     ATT_E_IO);
    assert_int_equal(host_journal_add(j, "granted", NULL, NULL), ATT_E_IO);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    add(j, "c");
    char hash[65], prev[65];
    json_t *last = line(1, 2, hash), *second = line(1, 1, prev);
    assert_int_equal(json_integer_value(json_object_get(last, "missed")), 2);
    assert_int_equal(json_integer_value(json_object_get(last, "seq")), 3);
    assert_string_equal(str(last, "prev"), prev);
    json_decref(last);
    json_decref(second);
    uint64_t seq, missed;
    host_journal_counts(j, &seq, &missed);
    assert_int_equal(missed, 2);
    host_journal_close(j);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_chain),
                                       TEST(test_torn_line),
                                       TEST(test_first_line_of_a_file),
                                       TEST(test_segments),
                                       TEST(test_edited_is_kept_aside),
                                       TEST(test_missed),
                                       TEST(test_empty_segment)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
