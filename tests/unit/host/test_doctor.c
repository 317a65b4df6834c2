/* Who may open the TPM's device: plain files stand in for the devices, since only modes are read.
 */
#include "attestd/host/internal.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define KEYD  4001
#define OTHER 4002

static char dir[64], raw[96], managed[96];

static void set(const char *path, uid_t uid, gid_t gid, mode_t mode)
{
    assert_int_equal(chown(path, uid, gid), 0);
    assert_int_equal(chmod(path, mode), 0);
}

/* who NULL: nobody; else "<who> may open <which>" and no more. */
static void others_are(const char *path, const char *who, const char *which)
{
    char text[200], expected[200] = "";
    host_device_others(path, KEYD, text, sizeof(text));
    if (who) {
        snprintf(expected, sizeof(expected), "%s may open %s", who, which);
    }
    assert_string_equal(text, expected);
}

static void doctor_names_everybody_who_may_open(void **state)
{
    (void)state;
    if (getuid() != 0) {
        skip();
    }
    set(raw, 0, 0, 0600);
    set(managed, KEYD, 0, 0606);
    others_are(managed, "everybody", managed);
    set(managed, KEYD, 0, 0604); /* no TPM answers to who only reads; still not as it should be */
    others_are(managed, "everybody", managed);
    set(managed, KEYD, OTHER, 0660);
    others_are(managed, "group 4002", managed);
    set(managed, OTHER, 0, 0600);
    others_are(managed, "uid 4002", managed);
    /* As Debian's tpm-udev leaves them. */
    set(managed, OTHER, OTHER, 0660);
    set(raw, OTHER, 0, 0660);
    char text[200];
    host_device_others(managed, KEYD, text, sizeof(text));
    assert_non_null(strstr(text, "uid 4002 may open"));
    assert_non_null(strstr(text, "group 4002 may open"));
    assert_non_null(strstr(text, "/tpm0"));
}

static void doctor_sees_the_device_without_resource_manager(void **state)
{
    (void)state;
    if (getuid() != 0) {
        skip();
    }
    set(managed, KEYD, 0, 0600);
    set(raw, OTHER, 0, 0660);
    others_are(managed, "uid 4002", raw);
    others_are(raw, "uid 4002", raw);
    set(raw, KEYD, 0, 0600);
    set(managed, KEYD, OTHER, 0660);
    others_are(raw, "group 4002", managed);
}

static void doctor_is_content_with_keyd_and_root(void **state)
{
    (void)state;
    if (getuid() != 0) {
        skip();
    }
    set(managed, KEYD, 0, 0600);
    set(raw, 0, 0, 0600);
    others_are(managed, NULL, NULL);
    others_are(raw, NULL, NULL);
    set(managed, 0, 0, 0660); /* group root */
    others_are(managed, NULL, NULL);
    set(managed, KEYD, OTHER, 0600); /* a group without rights */
    others_are(managed, NULL, NULL);
    others_are("/nonexistent/tpmrm0", NULL, NULL);
}

static int make(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/att-doctor.XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(raw, sizeof(raw), "%s/tpm0", dir);
    snprintf(managed, sizeof(managed), "%s/tpmrm0", dir);
    close(open(raw, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    close(open(managed, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    return 0;
}

static int done(void **state)
{
    (void)state;
    unlink(raw);
    unlink(managed);
    return rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(doctor_names_everybody_who_may_open),
        cmocka_unit_test(doctor_sees_the_device_without_resource_manager),
        cmocka_unit_test(doctor_is_content_with_keyd_and_root),
    };
    return cmocka_run_group_tests(tests, make, done);
}
