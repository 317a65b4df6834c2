/* The comparison of a manifest with what a prober sees: each difference alone, named with both
 * digests. */
#include "provision/manifest/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ONES   "0101010101010101010101010101010101010101010101010101010101010101"
#define NINES  "0909090909090909090909090909090909090909090909090909090909090909"
#define TWOS   "0202020202020202020202020202020202020202020202020202020202020202"
#define SCRIPT "/opt/agent/agent.py"
#define MODEL  "/opt/agent/model/w.bin"
#define LINK   "/opt/agent/model/latest"

/* What the disk would be; each test changes one thing. */
struct disk {
    struct manifest manifest;
    struct manifest_seen script, model, link;
    struct manifest_name names[4];
    size_t n_names;
    enum att_rc list_rc;
    size_t measured;
};

static enum att_rc measure(void *user, const struct manifest_ask *asks, size_t n,
                           struct manifest_seen *ret, struct att_err *err)
{
    struct disk *disk = user;
    (void)err;
    for (size_t i = 0; i < n; i++) {
        disk->measured++;
        assert_int_equal(asks[i].size, strcmp(asks[i].path, LINK) == 0 ? UINT64_MAX : 5);
        ret[i] = strcmp(asks[i].path, SCRIPT) == 0  ? disk->script
                 : strcmp(asks[i].path, MODEL) == 0 ? disk->model
                                                    : disk->link;
    }
    return ATT_OK;
}

static enum att_rc list(void *user, const char *path, struct manifest_name **ret_names,
                        size_t *ret_n, struct att_err *err)
{
    struct disk *disk = user;
    if (disk->list_rc != ATT_OK) {
        return att_fail(err, disk->list_rc, "not a folder");
    }
    bool top = strcmp(path, "/opt/agent/model") == 0;
    *ret_n = top ? disk->n_names : 0;
    *ret_names = NULL;
    if (*ret_n) {
        *ret_names = calloc(*ret_n, sizeof **ret_names);
        memcpy(*ret_names, disk->names, *ret_n * sizeof **ret_names);
    }
    return ATT_OK;
}

static void setup(struct disk *disk)
{
    memset(disk, 0, sizeof *disk);
    struct manifest_file file = {.path = (char[]){SCRIPT}, .role = MANIFEST_SCRIPT, .size = 5};
    memset(file.sha256, 1, sizeof file.sha256);
    memset(file.verity, 2, sizeof file.verity);
    assert_int_equal(manifest_add_file(&disk->manifest, &file, NULL), ATT_OK);
    file.path = (char[]){MODEL};
    assert_int_equal(manifest_add_file(&disk->manifest, &file, NULL), ATT_OK);
    assert_int_equal(manifest_add_link(&disk->manifest, LINK, "w.bin", NULL), ATT_OK);
    assert_int_equal(manifest_add_dir(&disk->manifest, "/opt/agent/model", NULL), ATT_OK);
    assert_int_equal(manifest_finish(&disk->manifest, NULL), ATT_OK);
    disk->script = (struct manifest_seen){.kind = MANIFEST_REGULAR, .size = 5, .has_sha256 = true};
    memset(disk->script.sha256, 1, sizeof disk->script.sha256);
    disk->model = (struct manifest_seen){.kind = MANIFEST_REGULAR, .size = 5, .has_verity = true};
    memset(disk->model.verity, 2, sizeof disk->model.verity);
    disk->link = (struct manifest_seen){.kind = MANIFEST_SYMLINK, .text = "w.bin"};
    disk->names[0] = (struct manifest_name){"w.bin", MANIFEST_REGULAR};
    disk->names[1] = (struct manifest_name){"latest", MANIFEST_SYMLINK};
    disk->n_names = 2;
}

static void run(struct disk *disk, struct manifest_report *report)
{
    struct manifest_prober prober = {disk, measure, list};
    assert_int_equal(manifest_check(&disk->manifest, &prober, report, NULL), ATT_OK);
    assert_int_equal(disk->measured, 3); /* whatever was found first */
}

/* All on one device, or it is said that they are not. */
static void test_devices(void **state)
{
    (void)state;
    struct disk disk;
    struct manifest_report report;
    setup(&disk);
    disk.script.dev_major = disk.model.dev_major = 254;
    run(&disk, &report);
    assert_true(report.has_device && !report.devices_differ);
    assert_int_equal(report.dev_major, 254);
    assert_int_equal(report.dev_minor, 0);
    disk.measured = 0;
    disk.model.dev_minor = 1;
    run(&disk, &report);
    assert_true(report.devices_differ);
    manifest_done(&disk.manifest);
}

/* Exactly this finding, and the error names it. */
static void finds(struct disk *disk, enum manifest_trouble trouble, const char *path,
                  const char *one, const char *two)
{
    struct manifest_report *report = calloc(1, sizeof *report);
    struct att_err err = {0};
    run(disk, report);
    assert_int_equal(report->n, 1);
    assert_int_equal(report->findings[0].trouble, trouble);
    assert_string_equal(report->findings[0].path, path);
    assert_non_null(strstr(report->findings[0].text, one));
    assert_non_null(strstr(report->findings[0].text, two));
    assert_int_equal(manifest_report_err(report, &err), ATT_E_DENIED);
    assert_string_equal(err.reason, "modelDigest");
    assert_non_null(strstr(err.msg, path));
    assert_non_null(strstr(err.msg, one));
    assert_non_null(strstr(err.msg, two));
    free(report);
    manifest_done(&disk->manifest);
}

static void test_check_changed(void **state)
{
    (void)state;
    struct disk disk;
    setup(&disk);
    memset(disk.script.sha256, 9, sizeof disk.script.sha256);
    finds(&disk, MANIFEST_CHANGED, SCRIPT, "expected sha256 " ONES, "found " NINES);
}

static void test_check_verity_differs(void **state)
{
    (void)state;
    struct disk disk;
    setup(&disk);
    memset(disk.model.verity, 9, sizeof disk.model.verity);
    finds(&disk, MANIFEST_CHANGED, MODEL, "expected verity " TWOS, "found " NINES);
}

/* The kernel's digest counts where there is one, whatever a reading would have given. */
static void test_check_verity_is_not_read_around(void **state)
{
    (void)state;
    struct disk disk;
    setup(&disk);
    memset(disk.model.verity, 9, sizeof disk.model.verity);
    disk.model.has_sha256 = true;
    memset(disk.model.sha256, 1, sizeof disk.model.sha256);
    finds(&disk, MANIFEST_CHANGED, MODEL, "expected verity " TWOS, "found " NINES);
}

static void test_check_size_differs(void **state)
{
    (void)state;
    struct disk disk;
    setup(&disk);
    disk.model.size = 6;
    finds(&disk, MANIFEST_CHANGED, MODEL, "verity", "found");
}

static void test_check_missing(void **state)
{
    (void)state;
    struct disk disk;
    setup(&disk);
    disk.script = (struct manifest_seen){.kind = MANIFEST_ABSENT};
    finds(&disk, MANIFEST_MISSING, SCRIPT, ONES, "found nothing");
}

static void test_check_file_became_a_link(void **state)
{
    (void)state;
    struct disk disk;
    setup(&disk);
    disk.script = (struct manifest_seen){.kind = MANIFEST_SYMLINK, .text = "/opt/other.py"};
    finds(&disk, MANIFEST_NOT_ONE, SCRIPT, ONES, "a symbolic link");
}

static void test_check_not_measured(void **state)
{
    (void)state;
    struct disk disk;
    setup(&disk);
    disk.script.has_sha256 = false; /* a prober that says nothing proves nothing */
    finds(&disk, MANIFEST_NOT_ONE, SCRIPT, "not measured", "not measured");
}

/* What could not be looked at is neither good nor bad. */
static void unknown(struct disk *disk, const char *path, const char *says)
{
    struct manifest_report *report = calloc(1, sizeof *report);
    struct att_err err = {0};
    run(disk, report);
    assert_int_equal(report->n, 1);
    assert_int_equal(report->n_unknown, 1);
    assert_int_equal(report->findings[0].trouble, MANIFEST_UNKNOWN);
    assert_string_equal(report->findings[0].path, path);
    assert_int_equal(manifest_report_err(report, &err), ATT_E_RETRY);
    assert_string_equal(err.reason, "notMeasured");
    assert_non_null(strstr(err.msg, path));
    assert_non_null(strstr(err.msg, says));
    free(report);
    manifest_done(&disk->manifest);
}

static void test_check_cannot_tell(void **state)
{
    (void)state;
    struct disk disk;
    setup(&disk);
    disk.script = (struct manifest_seen){.kind = MANIFEST_UNREADABLE, .text = "I/O error"};
    unknown(&disk, SCRIPT, "I/O error");
    setup(&disk);
    disk.script = (struct manifest_seen){.kind = MANIFEST_NOT_YET, .text = "it takes too long"};
    unknown(&disk, SCRIPT, "takes too long");
    setup(&disk);
    disk.link = (struct manifest_seen){.kind = MANIFEST_UNREADABLE, .text = "I/O error"};
    unknown(&disk, LINK, "I/O error");
    setup(&disk);
    disk.list_rc = ATT_E_IO;
    unknown(&disk, "/opt/agent/model", "not a folder");
    setup(&disk);
    disk.names[disk.n_names++] = (struct manifest_name){"x", MANIFEST_UNREADABLE};
    unknown(&disk, "/opt/agent/model/x", "cannot be told");
}

/* A difference counts whatever else could not be looked at, and is the one that is named. */
static void test_check_differs_beside_unknown(void **state)
{
    (void)state;
    struct disk disk;
    struct manifest_report *report = calloc(1, sizeof *report);
    struct att_err err = {0};
    setup(&disk);
    disk.script = (struct manifest_seen){.kind = MANIFEST_UNREADABLE, .text = "I/O error"};
    memset(disk.model.verity, 9, sizeof disk.model.verity);
    disk.script.size = 5;
    run(&disk, report);
    assert_int_equal(report->n, 2);
    assert_int_equal(manifest_report_err(report, &err), ATT_E_DENIED);
    assert_string_equal(err.reason, "modelDigest");
    assert_non_null(strstr(err.msg, MODEL));
    manifest_done(&disk.manifest);
    setup(&disk); /* however many are unknown before it */
    for (int i = 0; i < 2 * MANIFEST_FINDINGS_MAX; i++) {
        char path[64];
        struct manifest_file file = {.path = path, .role = MANIFEST_FILE, .size = 5};
        snprintf(path, sizeof path, "/a/%d", i);
        assert_int_equal(manifest_add_file(&disk.manifest, &file, NULL), ATT_OK);
    }
    assert_int_equal(manifest_finish(&disk.manifest, NULL), ATT_OK);
    disk.link = (struct manifest_seen){.kind = MANIFEST_UNREADABLE, .text = "I/O error"};
    memset(disk.model.verity, 9, sizeof disk.model.verity);
    struct manifest_prober prober = {&disk, measure, list};
    assert_int_equal(manifest_check(&disk.manifest, &prober, report, NULL), ATT_OK);
    assert_int_equal(report->n, report->n_unknown + 1);
    assert_int_equal(manifest_report_err(report, &err), ATT_E_DENIED);
    assert_non_null(strstr(err.msg, MODEL));
    manifest_done(&disk.manifest);
    free(report);
}

/* Not read, since its size says enough. */
static void test_check_size_differs_unread(void **state)
{
    (void)state;
    struct disk disk;
    setup(&disk);
    disk.script.size = 6;
    disk.script.has_sha256 = false;
    finds(&disk, MANIFEST_CHANGED, SCRIPT, "expected 5 bytes with sha256 " ONES, "found 6 bytes");
}

static void test_check_link_leads_elsewhere(void **state)
{
    (void)state;
    struct disk disk;
    setup(&disk);
    memcpy(disk.link.text, "x.bin", 6);
    finds(&disk, MANIFEST_CHANGED, LINK, "expected a link to w.bin", "x.bin");
    setup(&disk);
    disk.link = disk.script;
    finds(&disk, MANIFEST_CHANGED, LINK, "expected a link to w.bin", "a regular file");
}

static void test_check_extra(void **state)
{
    (void)state;
    struct disk disk;
    setup(&disk);
    disk.names[disk.n_names++] = (struct manifest_name){"evil.so", MANIFEST_REGULAR};
    finds(&disk, MANIFEST_EXTRA, "/opt/agent/model/evil.so", "a regular file", "not listed");
    setup(&disk);
    disk.names[disk.n_names++] = (struct manifest_name){"door", MANIFEST_SYMLINK};
    finds(&disk, MANIFEST_EXTRA, "/opt/agent/model/door", "a symbolic link", "not listed");
}

static void test_check_folder_is_none(void **state)
{
    (void)state;
    struct disk disk;
    setup(&disk);
    disk.list_rc = ATT_E_DENIED;
    finds(&disk, MANIFEST_NOT_ONE, "/opt/agent/model", "not a folder", "not a folder");
}

/* A prober that fails is no finding, and no agreement. */
static void test_check_prober_fails(void **state)
{
    (void)state;
    struct disk disk;
    struct manifest_report *report = calloc(1, sizeof *report);
    setup(&disk);
    disk.list_rc = ATT_E_UNREACHABLE;
    struct manifest_prober prober = {&disk, measure, list};
    assert_int_equal(manifest_check(&disk.manifest, &prober, report, NULL), ATT_E_UNREACHABLE);
    free(report);
    manifest_done(&disk.manifest);
}

static void test_check_agrees(void **state)
{
    (void)state;
    struct disk disk;
    struct manifest_report *report = calloc(1, sizeof *report);
    setup(&disk);
    disk.names[disk.n_names++] = (struct manifest_name){"empty", MANIFEST_FOLDER};
    run(&disk, report);
    assert_int_equal(report->n, 0);
    assert_int_equal(report->by_verity, 1);
    assert_int_equal(report->by_sha256, 1);
    assert_int_equal(manifest_report_err(report, NULL), ATT_OK);
    free(report);
    manifest_done(&disk.manifest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_check_changed),
        cmocka_unit_test(test_check_verity_differs),
        cmocka_unit_test(test_check_verity_is_not_read_around),
        cmocka_unit_test(test_check_size_differs),
        cmocka_unit_test(test_check_missing),
        cmocka_unit_test(test_check_file_became_a_link),
        cmocka_unit_test(test_check_not_measured),
        cmocka_unit_test(test_check_cannot_tell),
        cmocka_unit_test(test_check_differs_beside_unknown),
        cmocka_unit_test(test_check_size_differs_unread),
        cmocka_unit_test(test_check_link_leads_elsewhere),
        cmocka_unit_test(test_check_extra),
        cmocka_unit_test(test_check_folder_is_none),
        cmocka_unit_test(test_check_prober_fails),
        cmocka_unit_test(test_check_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
