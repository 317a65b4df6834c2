/* The logs of a host, read before a quote and after it. */
#include "attestd/host/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "tests/support/imalist.h"

struct rig {
    char dir[64], firmware[96], systemd[96], ima[96];
    struct conf_attestd_logs paths;
    struct conf_attestd conf;
    struct host host;
    json_t *pcrs; /* as a quote's */
    struct att_buf list;
};

static void write_file(const char *path, struct att_slice bytes)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes.ptr, 1, bytes.len, f), bytes.len);
    assert_int_equal(fclose(f), 0);
}

static void load(const char *name, struct att_buf *ret)
{
    char path[4300];
    const char *root = getenv("ATT_VECTORS");
    snprintf(path, sizeof path, "%s/ima/%s", root ? root : "tests/vectors", name);
    assert_int_equal(att_io_read_file(path, (size_t)1 << 20, ret, NULL), ATT_OK);
}

/* A guest's firmware log and list; its PCRs 0-10 are what will be quoted. */
static void rig_new(struct rig *r)
{
    att_autobuf firmware = {0}, text = {0};
    att_autojson *all = NULL;
    memset(r, 0, sizeof *r);
    snprintf(r->dir, sizeof r->dir, "/tmp/att-logs.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->firmware, sizeof r->firmware, "%s/firmware", r->dir);
    snprintf(r->systemd, sizeof r->systemd, "%s/systemd", r->dir);
    snprintf(r->ima, sizeof r->ima, "%s/ima", r->dir);
    load("eventlog.bin", &firmware);
    load("ima.bin", &r->list);
    load("pcrs.json", &text);
    write_file(r->firmware, att_buf_slice(&firmware));
    write_file(r->ima, att_buf_slice(&r->list));
    assert_int_equal(att_json_parse(att_buf_slice(&text), text.len, &all, NULL), ATT_OK);
    json_t *values = json_object();
    for (int i = 0; i <= 11; i++) {
        char index[16];
        snprintf(index, sizeof index, "%d", i);
        json_object_set(values, index, json_object_get(json_object_get(all, "sha256"), index));
    }
    r->pcrs = json_pack("{s:o}", "sha256", values);
    r->paths = (struct conf_attestd_logs){r->firmware, r->systemd, r->ima};
    r->conf.logs = &r->paths;
    r->host.conf = &r->conf;
    pthread_mutex_init(&r->host.lock, NULL);
}

static void rig_done(struct rig *r)
{
    unlink(r->firmware);
    unlink(r->systemd);
    unlink(r->ima);
    rmdir(r->dir);
    json_decref(r->pcrs);
    att_buf_done(&r->list);
    pthread_mutex_destroy(&r->host.lock);
}

static void put_entry(struct rig *r, const char *name)
{
    uint8_t digest[ATT_SHA256_LEN];
    struct imalist_entry entry = imalist_file(name, digest);
    imalist_binary(&entry, &r->list);
    write_file(r->ima, att_buf_slice(&r->list));
}

/* The TPM has extended that entry, too. */
static void quote_entry(struct rig *r, const char *name)
{
    uint8_t digest[ATT_SHA256_LEN], value[ATT_SHA256_LEN];
    char hex[65];
    struct imalist_entry entry = imalist_file(name, digest);
    json_t *bank = json_object_get(r->pcrs, "sha256");
    assert_int_equal(
        att_unhex_exact(value, sizeof value, json_string_value(json_object_get(bank, "10")), NULL),
        ATT_OK);
    imalist_extend(&entry, value);
    att_hex(hex, ATT_SLICE_ARRAY(value));
    json_object_set_new(bank, "10", json_string(hex));
}

static const struct acme_wanted wanted_all = {.logs = {"firmware", "systemd", "ima"}, .n_logs = 3};

static struct evidence_logs collect(struct rig *r, const struct acme_wanted *wanted)
{
    struct evidence_logs logs = {0};
    assert_int_equal(host_logs_collect(&r->host, wanted, &logs, NULL), ATT_OK);
    return logs;
}

static bool again_after(struct rig *r, struct evidence_logs *logs)
{
    bool again = false;
    struct att_err err = {0};
    if (host_logs_read_again(&r->host, logs, r->pcrs, &again, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
    return again;
}

static size_t tail_of(const struct evidence_logs *logs, const char *name)
{
    return evidence_logs_find(logs, name)->tail.len;
}

/* ---- refusals and second tries --------------------------------------------------------------- */

static void test_other_log(void **state)
{
    (void)state;
    struct rig r;
    struct att_err err = {0};
    bool again = false;
    rig_new(&r);
    struct evidence_logs logs = collect(&r, &wanted_all);
    r.list.ptr[100] ^= 1;
    write_file(r.ima, att_buf_slice(&r.list));
    assert_int_equal(host_logs_read_again(&r.host, &logs, r.pcrs, &again, &err), ATT_E_RETRY);
    assert_non_null(strstr(err.msg, "ima log: it no longer begins with what was signed"));
    write_file(r.ima, ATT_SLICE(r.list.ptr, 10));
    assert_int_equal(host_logs_read_again(&r.host, &logs, r.pcrs, &again, NULL), ATT_E_RETRY);
    unlink(r.ima);
    assert_int_equal(host_logs_read_again(&r.host, &logs, r.pcrs, &again, NULL), ATT_E_NOTFOUND);
    evidence_logs_done(&logs);
    rig_done(&r);
}

/* IMA lists an entry before it extends: a quote in between is of the list before. */
static void test_listed_not_extended(void **state)
{
    (void)state;
    struct rig r;
    rig_new(&r);
    put_entry(&r, "/usr/bin/early");
    struct evidence_logs logs = collect(&r, &wanted_all);
    assert_true(again_after(&r, &logs));
    quote_entry(&r, "/usr/bin/early"); /* the next quote has it */
    assert_false(again_after(&r, &logs));
    assert_int_equal(tail_of(&logs, "ima"), 0);
    evidence_logs_done(&logs);
    rig_done(&r);
}

static void test_systemd_not_yet(void **state)
{
    (void)state;
    struct rig r;
    att_autobuf log = {0};
    rig_new(&r);
    systemdlog_record(&log, 11, "phase", "sysinit", NULL);
    write_file(r.systemd, att_buf_slice(&log));
    struct evidence_logs logs = collect(&r, &wanted_all);
    assert_true(again_after(&r, &logs));
    uint8_t value[ATT_SHA256_LEN] = {0};
    char hex[65];
    systemdlog_extend("sysinit", value);
    att_hex(hex, ATT_SLICE_ARRAY(value));
    json_object_set_new(json_object_get(r.pcrs, "sha256"), "11", json_string(hex));
    assert_false(again_after(&r, &logs));
    systemdlog_record(&log, 11, "phase", "ready", NULL); /* after the quote */
    write_file(r.systemd, att_buf_slice(&log));
    assert_false(again_after(&r, &logs));
    assert_true(tail_of(&logs, "systemd") > 0);
    evidence_logs_done(&logs);
    rig_done(&r);
}

static void test_too_much(void **state)
{
    (void)state;
    struct rig r;
    rig_new(&r);
    struct evidence_logs logs = collect(&r, &wanted_all);
    size_t before = r.list.len;
    while (r.list.len - before <= EVIDENCE_TAIL_MAX) {
        uint8_t digest[ATT_SHA256_LEN];
        struct imalist_entry entry = imalist_file("/usr/bin/many", digest);
        imalist_binary(&entry, &r.list);
        quote_entry(&r, "/usr/bin/many");
    }
    write_file(r.ima, att_buf_slice(&r.list));
    assert_true(again_after(&r, &logs)); /* the quote is behind what may travel */
    assert_int_equal(tail_of(&logs, "ima"), EVIDENCE_TAIL_MAX);
    evidence_logs_done(&logs);
    rig_done(&r);
}

/* ---- what is sent ---------------------------------------------------------------------------- */

static void test_tail(void **state)
{
    (void)state;
    struct rig r;
    rig_new(&r);
    struct evidence_logs logs = collect(&r, &wanted_all);
    assert_null(evidence_logs_find(&logs, "systemd")); /* there is no such file */
    assert_false(again_after(&r, &logs));
    assert_int_equal(tail_of(&logs, "ima"), 0);
    put_entry(&r, "/usr/bin/between");
    quote_entry(&r, "/usr/bin/between"); /* it came before the quote */
    put_entry(&r, "/usr/bin/after");     /* and this one after */
    assert_false(again_after(&r, &logs));
    assert_int_equal(tail_of(&logs, "ima"), r.list.len - evidence_logs_find(&logs, "ima")->length);
    evidence_logs_done(&logs);
    rig_done(&r);
}

static void test_base(void **state)
{
    (void)state;
    struct rig r;
    struct acme_wanted wanted = wanted_all;
    rig_new(&r);
    struct evidence_logs first = collect(&r, &wanted);
    const struct evidence_log *sent = evidence_logs_find(&first, "ima");
    memcpy(wanted.known[wanted.n_known++], sent->sha256, ATT_SHA256_LEN);
    put_entry(&r, "/usr/bin/later");
    struct evidence_logs second = collect(&r, &wanted);
    const struct evidence_log *log = evidence_logs_find(&second, "ima");
    assert_true(log->has_base && log->has_data);
    assert_int_equal(log->base_length, sent->length);
    assert_memory_equal(log->base_sha256, sent->sha256, ATT_SHA256_LEN);
    assert_false(evidence_logs_find(&second, "firmware")->has_base);
    evidence_logs_done(&second);
    /* What the issuer does not know, and what the log no longer begins with, is no base. */
    second = collect(&r, &wanted_all);
    assert_false(evidence_logs_find(&second, "ima")->has_base);
    evidence_logs_done(&second);
    r.list.ptr[50] ^= 1;
    write_file(r.ima, att_buf_slice(&r.list));
    second = collect(&r, &wanted);
    assert_false(evidence_logs_find(&second, "ima")->has_base);
    evidence_logs_done(&second);
    evidence_logs_done(&first);
    rig_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_other_log),
        cmocka_unit_test(test_listed_not_extended),
        cmocka_unit_test(test_systemd_not_yet),
        cmocka_unit_test(test_too_much),
        cmocka_unit_test(test_tail),
        cmocka_unit_test(test_base),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
