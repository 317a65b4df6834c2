/* attestctl's own verifier of a host's log: a good one, and every way of falsifying one, in which
 * exactly that is found. */
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/ctl/hostlog.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define RECORDS 6

static char dir[64];
static char lines[RECORDS][400];
static uint8_t heads[RECORDS][ATT_SHA256_LEN];

/* Chained from line i on, as a writer would. */
static void chain(size_t i, const uint8_t prev[ATT_SHA256_LEN], const char *rest)
{
    char hex[65];
    att_hex(hex, ATT_SLICE(prev, ATT_SHA256_LEN));
    snprintf(lines[i], sizeof lines[i], "{\"seq\":%zu,\"at\":%zu,\"prev\":\"%s\",%s}", i + 1,
             1000 + 10 * i, hex, rest);
    const struct att_slice parts[] = {ATT_SLICE_LIT("attestd-hostlog/1"), att_slice_str(lines[i])};
    att_sha256_v(heads[i], parts, 2);
}

static void make(size_t from, const char *rest)
{
    static const uint8_t zeros[ATT_SHA256_LEN];
    for (size_t i = from; i < RECORDS; i++) {
        chain(i, i ? heads[i - 1] : zeros, rest);
    }
}

/* Lines from … before to, into the file of the first of them. */
static void put(size_t from, size_t to)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%020zu.jsonl", dir, from + 1);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (size_t i = from; i < to; i++) {
        if (lines[i][0]) {
            fprintf(f, "%s\n", lines[i]);
        }
    }
    fclose(f);
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/att-hostlog.XXXXXX");
    make(0, "\"kind\":\"granted\",\"agent\":\"a\"");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

static struct hostlog_anchor anchor(uint64_t decision, int64_t at, size_t record)
{
    struct hostlog_anchor a = {.decision = decision, .at = at, .host = "aa"};
    memcpy(a.head, heads[record], sizeof a.head);
    return a;
}

static void refused(const char *reason, struct hostlog_anchor *anchors, size_t n)
{
    struct att_err err = {0};
    struct hostlog_facts facts = {0};
    assert_int_not_equal(hostlog_verify(dir, anchors, n, false, &facts, &err), ATT_OK);
    assert_string_equal(err.reason, reason);
    assert_int_equal(facts.last, 0);
}

static void test_good(void **state)
{
    (void)state;
    struct hostlog_anchor anchors[] = {anchor(9, 1062, 5), anchor(3, 1025, 2)};
    struct hostlog_facts facts;
    put(0, 4);
    put(4, RECORDS);
    assert_int_equal(hostlog_verify(dir, anchors, 2, false, &facts, NULL), ATT_OK);
    assert_int_equal(facts.first, 1);
    assert_int_equal(facts.last, RECORDS);
    assert_memory_equal(facts.head, heads[RECORDS - 1], ATT_SHA256_LEN);
    assert_int_equal(anchors[0].decision, 3); /* in the order of their decisions */
    assert_int_equal(anchors[0].found_seq, 3);
    assert_int_equal(anchors[1].found_seq, 6);
    assert_int_equal(hostlog_verify(dir, NULL, 0, false, &facts, NULL), ATT_OK);
}

static void test_record(void **state)
{
    (void)state;
    struct hostlog_record r;
    struct att_err err = {0};
    assert_int_equal(hostlog_record_parse(att_slice_str(lines[2]), &r, NULL), ATT_OK);
    assert_memory_equal(r.hash, heads[2], ATT_SHA256_LEN);
    char zeros[65];
    memset(zeros, '0', 64);
    zeros[64] = 0;
    static const char *const bad[] = {
        "[]",
        "{\"at\":1,\"prev\":\"%s\",\"kind\":\"granted\"}",
        "{\"seq\":0,\"at\":1,\"prev\":\"%s\",\"kind\":\"granted\"}",
        "{\"seq\":\"1\",\"at\":1,\"prev\":\"%s\",\"kind\":\"granted\"}",
        "{\"seq\":1,\"prev\":\"%s\",\"kind\":\"granted\"}",
        "{\"seq\":1,\"at\":-1,\"prev\":\"%s\",\"kind\":\"granted\"}",
        "{\"seq\":1,\"at\":1,\"prev\":\"00%s\",\"kind\":\"granted\"}",
        "{\"seq\":1,\"at\":1,\"kind\":\"granted\"}",
        "{\"seq\":1,\"at\":1,\"prev\":\"%s\"}",
        "{\"seq\":1,\"at\":1,\"prev\":\"%s\",\"kind\":\"\"}",
        "{\"seq\":1,\"at\":1,\"prev\":\"%s\",\"kind\":\"granted\",\"missed\":\"1\"}",
        "{\"seq\":1,\"at\":1,\"prev\":\"%s\",\"kind\":\"dropped\",\"upTo\":-1}",
        "{\"seq\":1,\"seq\":1,\"at\":1,\"prev\":\"%s\",\"kind\":\"granted\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char text[400];
        const char *at = strstr(bad[i], "%s");
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at ? at - bad[i] : 2), bad[i],
                 at ? zeros : "", at ? at + 2 : "");
        att_err_clear(&err);
        assert_int_equal(hostlog_record_parse(att_slice_str(text), &r, &err), ATT_E_PARSE);
        assert_string_equal(err.reason, "hostLogRecord");
    }
    snprintf(lines[3], sizeof lines[3], "no record");
    put(0, RECORDS);
    refused("hostLogRecord", NULL, 0);
}

static void test_rejects_edited(void **state)
{
    (void)state;
    char *name = strstr(lines[2], "\"a\"");
    assert_non_null(name);
    name[1] = 'b';
    put(0, RECORDS);
    refused("hostLogEdited", NULL, 0);
}

static void test_rejects_truncated(void **state)
{
    (void)state;
    struct hostlog_anchor late = anchor(7, 1050, 5);
    put(0, 5);
    assert_int_equal(late.found_seq, 0);
    refused("hostLogTruncated", &late, 1); /* its end */
    char kept[400];
    memcpy(kept, lines[2], sizeof kept);
    lines[2][0] = 0;
    put(0, RECORDS);
    refused("hostLogTruncated", NULL, 0); /* its middle */
    memcpy(lines[2], kept, sizeof kept);
    lines[0][0] = 0;
    put(0, RECORDS);
    refused("hostLogTruncated", NULL, 0); /* its beginning */
}

/* Its beginning, and a record says so; a head from before is of a record that was dropped. */
static void test_dropped(void **state)
{
    (void)state;
    struct hostlog_facts facts;
    chain(4, heads[3], "\"kind\":\"dropped\",\"upTo\":2");
    make(5, "\"kind\":\"granted\"");
    struct hostlog_anchor anchors[] = {anchor(3, 1015, 1), anchor(5, 1075, 5)};
    put(2, RECORDS);
    refused("hostLogDropped", anchors, 2); /* the log's own word */
    assert_int_equal(hostlog_verify(dir, anchors, 2, true, &facts, NULL), ATT_OK);
    assert_int_equal(facts.first, 3);
    assert_int_equal(anchors[0].found_seq, 0);
    assert_int_equal(anchors[1].found_seq, 6);
    /* More is missing than it says; and a word of another kind of record says nothing. */
    put(3, RECORDS);
    char path[128];
    snprintf(path, sizeof path, "%s/%020d.jsonl", dir, 3);
    assert_int_equal(remove(path), 0);
    refused("hostLogTruncated", NULL, 0);
    chain(4, heads[3], "\"kind\":\"granted\",\"upTo\":3");
    make(5, "\"kind\":\"granted\"");
    put(3, RECORDS);
    refused("hostLogTruncated", NULL, 0);
}

/* Two records, made now by whoever wants what was decided forgotten: nothing of it was quoted. */
static void test_rejects_forged_beginning(void **state)
{
    (void)state;
    struct hostlog_facts facts;
    struct att_err err = {0};
    struct hostlog_anchor old = anchor(3, 1005, 0);
    memset(lines, 0, sizeof lines);
    chain(1, heads[5], "\"kind\":\"granted\"");
    chain(2, heads[1], "\"kind\":\"dropped\",\"upTo\":1");
    put(1, 3);
    refused("hostLogDropped", &old, 1);
    assert_int_equal(hostlog_verify(dir, &old, 1, true, &facts, &err), ATT_E_AUTH);
    assert_string_equal(err.reason, "hostLogDropped");
}

static void test_rejects_record_before_the_first(void **state)
{
    (void)state;
    chain(0, heads[5], "\"kind\":\"granted\"");
    make(1, "\"kind\":\"granted\"");
    put(0, RECORDS);
    refused("hostLogEdited", NULL, 0);
}

/* Written anew from record 3 on: it holds together, and is not what was quoted. */
static void test_rejects_other_head(void **state)
{
    (void)state;
    struct hostlog_anchor a = anchor(7, 1035, 3);
    make(2, "\"kind\":\"granted\",\"agent\":\"b\"");
    put(0, RECORDS);
    refused("hostLogHead", &a, 1);
    struct hostlog_anchor given = a; /* by somebody who does not know when */
    given.decision = 0;
    given.at = 0;
    refused("hostLogHead", &given, 1);
}

static void test_rejects_rolled_back(void **state)
{
    (void)state;
    struct hostlog_anchor anchors[] = {anchor(7, 1055, 5), anchor(8, 1056, 2)};
    put(0, RECORDS);
    refused("hostLogRolledBack", anchors, 2);
    anchors[1] = anchor(8, 1056, 5); /* the same twice is none */
    anchors[0] = anchor(7, 1055, 5);
    struct hostlog_facts facts;
    assert_int_equal(hostlog_verify(dir, anchors, 2, false, &facts, NULL), ATT_OK);
}

static void test_rejects_two_hosts(void **state)
{
    (void)state;
    struct hostlog_anchor anchors[] = {anchor(7, 1055, 4), anchor(8, 1056, 5)};
    anchors[1].host[0] = 'b';
    put(0, RECORDS);
    refused("hostLogHost", anchors, 2);
}

static void test_rejects_none(void **state)
{
    (void)state;
    refused("hostLogTruncated", NULL, 0);
    lines[0][0] = 0;
    put(0, 1);
    refused("hostLogTruncated", NULL, 0);
}

static void test_anchor(void **state)
{
    (void)state;
    static const char leaf[] = "attestd-decision/1\n17\n1790000000\nissue\ngranted\n-\nab\n";
    char record[300], hex[65];
    struct hostlog_anchor a;
    struct att_err err = {0};
    att_hex(hex, ATT_SLICE_ARRAY(heads[2]));
    snprintf(record, sizeof record, "{\"kind\":\"issue\",\"host\":\"aa\",\"hostLogHead\":\"%s\"}",
             hex);
    assert_int_equal(hostlog_anchor_parse(att_slice_str(record), att_slice_str(leaf), &a, NULL),
                     ATT_OK);
    assert_int_equal(a.decision, 17);
    assert_int_equal(a.at, 1790000000);
    assert_string_equal(a.host, "aa");
    assert_memory_equal(a.head, heads[2], ATT_SHA256_LEN);
    static const char *const bad[] = {"", "[]", "{\"host\":\"aa\"}",
                                      "{\"host\":\"aa\",\"hostLogHead\":\"00\"}",
                                      "{\"hostLogHead\":\"%\"}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        snprintf(record, sizeof record, "%s", bad[i]);
        if (strchr(bad[i], '%')) {
            snprintf(record, sizeof record, "{\"hostLogHead\":\"%s\"}", hex);
        }
        att_err_clear(&err);
        assert_int_equal(hostlog_anchor_parse(att_slice_str(record), att_slice_str(leaf), &a, &err),
                         ATT_E_PARSE);
        assert_string_equal(err.reason, "hostLogAnchor");
    }
    snprintf(record, sizeof record, "{\"host\":\"aa\",\"hostLogHead\":\"%s\"}", hex);
    static const char *const leaves[] = {"", "attestd-decision/1\n", "attestd-decision/1\nx\n1\n",
                                         "attestd-decision/1\n1\nx\n",
                                         "attestd-decision/1\n0\n1\n"};
    for (size_t i = 0; i < sizeof leaves / sizeof leaves[0]; i++) {
        assert_int_equal(
            hostlog_anchor_parse(att_slice_str(record), att_slice_str(leaves[i]), &a, NULL),
            ATT_E_PARSE);
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_good),
        TEST(test_record),
        TEST(test_rejects_edited),
        TEST(test_rejects_truncated),
        TEST(test_dropped),
        TEST(test_rejects_forged_beginning),
        TEST(test_rejects_record_before_the_first),
        TEST(test_rejects_other_head),
        TEST(test_rejects_rolled_back),
        TEST(test_rejects_two_hosts),
        TEST(test_rejects_none),
        TEST(test_anchor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
