/* What the doctor says of the TPM. Who may open its device: plain files stand in for the devices,
 * since only modes are read. */
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

/* ---- what keyd says of its TPM --------------------------------------------------------------- */

#define HEALTHY                                                                                    \
    "{\"state\": \"ready\", \"bad\": [], \"tpm\": {\"ekCertificate\": true, \"ek\": {\"kind\": "   \
    "\"P-384\", \"highRange\": true, \"handle\": \"0x81010016\", \"certificate\": "                \
    "\"0x01c00016\"}, "                                                                            \
    "\"banks\": [\"sha256\"], \"inLockout\": false, \"lockoutCounter\": 0, \"lockoutMax\": 32, "   \
    "\"lockoutIntervalS\": 7200}}"

/* INFO with one thing changed: path is "tpm.banks" or "state", value its JSON. */
static json_t *changed(const char *path, const char *value)
{
    json_t *info = json_loads(HEALTHY, 0, NULL);
    json_t *into = strncmp(path, "tpm.", 4) == 0 ? json_object_get(info, "tpm") : info;
    json_t *new_value = json_loads(value, JSON_DECODE_ANY, NULL);
    assert_non_null(new_value);
    json_object_set_new(into, path + (into == info ? 0 : 4), new_value);
    return info;
}

/* Of all lines exactly this one is not ok; it says and advises that. optional: as it should be. */
static void only(json_t *info, const char *name, bool optional, const char *says, const char *mend)
{
    json_t *checks = json_array();
    host_doctor_tpm(checks, info);
    size_t bad = 0;
    for (size_t i = 0; i < json_array_size(checks); i++) {
        const json_t *check = json_array_get(checks, i);
        const char *advice = json_string_value(json_object_get(check, "mend"));
        if (json_is_true(json_object_get(check, "ok"))) {
            assert_null(advice);
            continue;
        }
        bad++;
        assert_string_equal(json_string_value(json_object_get(check, "name")), name);
        assert_int_equal(json_is_true(json_object_get(check, "optional")), optional);
        assert_non_null(strstr(json_string_value(json_object_get(check, "detail")), says));
        assert_non_null(advice);
        if (!strstr(advice, mend)) {
            fail_msg("%s: \"%s\" is not in \"%s\"", name, mend, advice);
        }
    }
    assert_int_equal(bad, name[0] ? 1 : 0);
    json_decref(checks);
    json_decref(info);
}

static void doctor_says_why_there_is_no_tpm(void **state)
{
    static const struct {
        const char *cause, *mend;
    } rows[] = {{"tpmBusy", "fuser"},         {"tpmDenied", "70-attestd.rules"},
                {"tpmMissing", "firmware"},   {"foreignTpm", "new ticket"},
                {"ekCertMismatch", "maker"},  {"hostSecretMissing", "restore"},
                {"somethingElse", "tpm.tcti"}};
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        json_t *info = changed("state", "\"tpmGone\"");
        json_object_set_new(info, "reason", json_string("no TPM at device:/dev/tpm0"));
        json_object_set_new(info, "cause", json_string(rows[i].cause));
        only(info, "tpm", false, "no TPM at", rows[i].mend);
    }
    only(changed("state", "\"starting\""), "tpm", false, "starting", "fuser");
    only(changed("state", "\"tpmSilent\""), "tpm", false, "tpmSilent", "fuser");
}

static void doctor_names_what_a_tpm_lacks(void **state)
{
    (void)state;
    only(changed("state", "\"ready\""), "", false, "", "");
    only(changed("tpm.ekCertificate", "false"), "ekCertificate", false, "NV", "inventory");
    only(changed("tpm.ek", "{\"kind\": \"none\"}"), "ekKey", false, "no endorsement key", "TCG");
    only(changed("tpm.ek", "{}"), "ekKey", false, "no endorsement key", "TCG");
    only(changed("tpm.banks", "[\"sha1\", \"sha256\"]"), "sha1Bank", true, "in use",
         "switched off");
    only(changed("tpm.banks", "[]"), "pcrBank", false, "none", "tpm2_pcrallocate");
    only(changed("tpm.banks", "[\"unknown\"]"), "pcrBank", false, "unknown", "tpm2_pcrallocate");
    only(changed("tpm.banks", "[\"sha384\"]"), "", false, "", "");
    only(changed("tpm.inLockout", "true"), "tpmLockout", false, "of 32", "7200 s");
    only(changed("bad", "[\"host.pem.bad\"]"), "keydState", false, "1 state", ".bad");
}

/* What keyd of another version leaves out, or says in another form. */
static void doctor_reads_any_info(void **state)
{
    static const char *const infos[] = {"{}", "[]", "{\"tpm\": 1, \"state\": 2}",
                                        "{\"tpm\": {\"banks\": [1, null], \"ek\": []}}"};
    (void)state;
    for (size_t i = 0; i < sizeof(infos) / sizeof(infos[0]); i++) {
        json_t *checks = json_array(), *info = json_loads(infos[i], 0, NULL);
        host_doctor_tpm(checks, info);
        assert_true(json_array_size(checks) >= 2);
        assert_false(json_is_true(json_object_get(json_array_get(checks, 0), "ok")));
        json_decref(checks);
        json_decref(info);
    }
    /* Many banks are cut off, not written past the end. */
    json_t *info = changed("tpm.banks", "[]"), *banks = json_array();
    for (int i = 0; i < 100; i++) {
        json_array_append_new(banks, json_string("sha3-256"));
    }
    json_object_set_new(json_object_get(info, "tpm"), "banks", banks);
    only(info, "pcrBank", false, "sha3-256", "tpm2_pcrallocate");
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
        cmocka_unit_test(doctor_says_why_there_is_no_tpm),
        cmocka_unit_test(doctor_names_what_a_tpm_lacks),
        cmocka_unit_test(doctor_reads_any_info),
    };
    return cmocka_run_group_tests(tests, make, done);
}
