/* tpm/context: opening, reopening, what the TPM says of itself, and which SRK is used. */
#include "tests/unit/att_tpm/common.h"
#include "tpm/seal.h"
#include "tpm/session.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void refuses_unknown_tctis(void **state)
{
    static const char *const bad[] = {
        "", "cmd:true", "/tmp/evil.so", "libtss2-tcti-device.so", "devices:x", "swtpm2"};
    struct tpm_context *ctx = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct tpm_options options = {.tcti = bad[i]};
        assert_refused(tpm_context_open(&options, &ctx, err), ATT_E_INVAL, "");
    }
    struct tpm_options none = {0};
    assert_refused(tpm_context_open(&none, &ctx, err), ATT_E_INVAL, "");
    assert_null(ctx);
}

static void refuses_bad_handles(void **state)
{
    struct tpm_context *ctx = NULL;
    struct tpm_options options = {.tcti = the_tpm.tcti, .srk_handle = 0x01c00002};
    (void)state;
    assert_refused(tpm_context_open(&options, &ctx, err), ATT_E_INVAL, "");
    options = (struct tpm_options){.tcti = the_tpm.tcti, .ak_handle = 0x81800000};
    assert_refused(tpm_context_open(&options, &ctx, err), ATT_E_INVAL, "");
    options = (struct tpm_options){.tcti = the_tpm.tcti, .srk_name = ATT_SLICE_LIT("name")};
    assert_refused(tpm_context_open(&options, &ctx, err), ATT_E_PARSE, "");
}

static void nobody_there_is_gone(void **state)
{
    struct tpm_context *ctx = NULL;
    struct tpm_options options = {.tcti = "swtpm:path=/nonexistent/sock"};
    (void)state;
    assert_refused(tpm_context_open(&options, &ctx, err), ATT_E_GONE, "");
    options.tcti = "device:/nonexistent/tpmrm0";
    assert_refused(tpm_context_open(&options, &ctx, err), ATT_E_GONE, "tpmMissing");
}

/* ---- a device that cannot be opened, and why ------------------------------------------------- */

static int refused_as(const char *path, const char *word)
{
    char tcti[160];
    struct tpm_context *ctx = NULL;
    struct att_err why = {0};
    (void)snprintf(tcti, sizeof(tcti), "device:%s", path);
    struct tpm_options options = {.tcti = tcti};
    enum att_rc rc = tpm_context_open(&options, &ctx, &why);
    bool as_it_should = rc == ATT_E_GONE && strcmp(why.reason, word) == 0;
    if (!as_it_should) {
        (void)fprintf(stderr, "%s: %s \"%s\" %s; expected \"%s\"\n", path, att_rc_name(rc),
                      why.reason, why.msg, word);
    }
    tpm_context_free(ctx);
    return as_it_should ? 0 : 1;
}

/* A terminal in exclusive mode refuses to be opened again as /dev/tpm0 does: EBUSY, of a real open.
 * Only to those who are not root; so is EACCES. */
static int devices_as_nobody(const char *closed)
{
    int terminal = posix_openpt(O_RDWR | O_NOCTTY);
    char path[64];
    if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0 ||
        ptsname_r(terminal, path, sizeof(path)) != 0) {
        return 2;
    }
    int held = open(path, O_RDWR | O_NOCTTY);
    if (held < 0 || ioctl(held, TIOCEXCL) != 0 || fchmod(held, 0666) != 0 ||
        (getuid() == 0 && setuid(65534) != 0)) {
        return 2;
    }
    int wrong = refused_as(path, "tpmBusy");
    return wrong + refused_as(closed, "tpmDenied");
}

static void says_why_a_device_is_closed(void **state)
{
    (void)state;
    assert_int_equal(refused_as("/dev/att-no-such-tpm", "tpmMissing"), 0);
    assert_int_equal(refused_as("/dev/null", ""), 0); /* opens, and is no TPM */
    char closed[] = "/tmp/att-device.XXXXXX";
    int file = mkstemp(closed);
    assert_true(file >= 0 && fchmod(file, 0) == 0);
    (void)close(file);
    pid_t child = fork();
    if (child == 0) {
        _exit(devices_as_nobody(closed));
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(unlink(closed), 0);
}

static void starts_a_tpm_that_nobody_started(void **state)
{
    struct tpm_context *ctx;
    struct tpm_clock clock;
    (void)state;
    swtpm_stop(&the_tpm);
    assert_ok(swtpm_start(&the_tpm, true, err));
    ctx = open_tpm(&the_tpm);
    assert_ok(tpm_context_clock(ctx, &clock, err));
    assert_true(clock.reset_count > 0);
    tpm_context_free(ctx);
}

static void says_what_it_is(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    struct tpm_info info;
    uint8_t a[100], b[100];
    (void)state;
    assert_ok(tpm_context_info(ctx, &info, err));
    assert_string_equal(info.manufacturer_text, "IBM");
    assert_int_equal(info.manufacturer, 0x49424d00);
    assert_non_null(strstr(info.vendor, "SW"));
    assert_true(info.firmware_version != 0);
    assert_int_equal(info.transient_min, 3);
    assert_false(info.in_lockout);
    assert_int_equal(info.banks_count, 1);
    assert_int_equal(info.banks[0], PARSE_ALG_SHA256);
    assert_ok(tpm_context_random(ctx, a, sizeof(a), err));
    assert_ok(tpm_context_random(ctx, b, sizeof(b), err));
    assert_memory_not_equal(a, b, sizeof(a));
    tpm_context_free(ctx);
}

static void gone_and_back(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    struct tpm_clock before, after;
    struct parse_name srk1, srk2;
    (void)state;
    assert_ok(tpm_context_clock(ctx, &before, err));
    assert_ok(tpm_context_srk(ctx, NULL, &srk1, NULL, err));
    swtpm_stop(&the_tpm);
    assert_refused(tpm_context_clock(ctx, &after, err), ATT_E_GONE, "");
    assert_refused(tpm_context_reopen(ctx, err), ATT_E_GONE, "");
    assert_refused(tpm_context_clock(ctx, &after, err), ATT_E_GONE, "");
    assert_false(tpm_context_alive(ctx));
    assert_ok(swtpm_start(&the_tpm, false, err));
    assert_ok(tpm_context_reopen(ctx, err));
    assert_true(tpm_context_alive(ctx));
    assert_ok(tpm_context_clock(ctx, &after, err));
    assert_int_equal(after.reset_count, before.reset_count + 1);
    assert_int_equal(after.restart_count, 0);
    assert_ok(tpm_context_srk(ctx, NULL, &srk2, NULL, err));
    assert_true(att_slice_eq(parse_name_slice(&srk1), parse_name_slice(&srk2)));
    tpm_context_free(ctx);
}

/* A reset without a broken connection, as a laptop's resume without saved state: our objects are
 * no longer there. */
static void reset_behind_our_back_is_gone(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoblob blob = {0};
    uint8_t digest[32] = {0};
    struct tpm_signature sig;
    (void)state;
    create_key(ctx, &blob);
    assert_true(signs(ctx, &blob));
    assert_int_equal(swtpm_tool(&the_tpm, (const char *const[]){"swtpm_ioctl", "--unix",
                                                                "sock.ctrl", "-i", NULL}),
                     0);
    assert_refused(tpm_key_sign(ctx, &blob, AUTH_A, digest, &sig, err), ATT_E_GONE, "");
    assert_ok(tpm_context_reopen(ctx, err));
    assert_true(signs(ctx, &blob));
    tpm_context_free(ctx);
}

/* ---- SRK --------------------------------------------------------------------------------------
 */

#define SRK_ATTRS                                                                                  \
    "-a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt|noda' "
#define PERSIST "tpm2_evictcontrol -C o -c srk.ctx 0x81000001; tpm2_flushcontext -t\n"
#define EVICT   "tpm2_evictcontrol -C o -c 0x81000001\n"

static bool srk_is_persistent(struct tpm_context *ctx, struct parse_name *ret_name)
{
    bool persistent = false;
    att_autobuf area = {0};
    struct parse_name name;
    assert_ok(tpm_context_srk(ctx, &area, ret_name, &persistent, err));
    assert_ok(parse_name_of_area(att_buf_slice(&area), &name, err));
    assert_true(att_slice_eq(parse_name_slice(&name), parse_name_slice(ret_name)));
    return persistent;
}

static void uses_only_an_srk_of_ours(void **state)
{
    struct parse_name transient, name;
    (void)state;
    struct tpm_context *ctx = open_tpm(&the_tpm);
    assert_false(srk_is_persistent(ctx, &transient));
    tpm_context_free(ctx);

    /* one with an authValue */
    assert_int_equal(swtpm_sh(&the_tpm, "tpm2_createprimary -C o -g sha256 -G ecc256:aes128cfb "
                                        "-p sss -c srk.ctx " SRK_ATTRS "\n" PERSIST),
                     0);
    ctx = open_tpm(&the_tpm);
    assert_false(srk_is_persistent(ctx, &name));
    assert_true(att_slice_eq(parse_name_slice(&name), parse_name_slice(&transient)));
    tpm_context_free(ctx);
    /* an RSA one */
    assert_int_equal(swtpm_sh(&the_tpm,
                              EVICT "tpm2_createprimary -C o -g sha256 -G "
                                    "rsa2048:aes128cfb -c srk.ctx " SRK_ATTRS "\n" PERSIST),
                     0);
    ctx = open_tpm(&the_tpm);
    assert_false(srk_is_persistent(ctx, &name));
    tpm_context_free(ctx);
    /* one with other attributes: no noDA */
    assert_int_equal(
        swtpm_sh(
            &the_tpm, EVICT
            "tpm2_createprimary -C o -g sha256 -G ecc256:aes128cfb -c srk.ctx -a "
            "'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt'\n" PERSIST),
        0);
    ctx = open_tpm(&the_tpm);
    assert_false(srk_is_persistent(ctx, &name));
    tpm_context_free(ctx);
    assert_int_equal(swtpm_sh(&the_tpm, EVICT), 0);
}

/* Keys made under the persistent SRK of the other variant go on working when it is evicted. */
static void knows_both_srk_variants(void **state)
{
    struct parse_name transient, zeros;
    tpm_autoblob blob = {0}, blob2 = {0};
    (void)state;
    struct tpm_context *ctx = open_tpm(&the_tpm);
    assert_false(srk_is_persistent(ctx, &transient));
    create_key(ctx, &blob2);
    tpm_context_free(ctx);
    assert_int_equal(swtpm_sh(&the_tpm,
                              "{ printf '\\040\\000'; head -c 128 /dev/zero; "
                              "printf '\\040\\000'; head -c 128 /dev/zero; } > unique\n"
                              "tpm2_createprimary -C o -g sha256 -G ecc256:aes128cfb -u unique "
                              "-c srk.ctx " SRK_ATTRS "\n" PERSIST),
                     0);
    ctx = open_tpm(&the_tpm);
    assert_true(srk_is_persistent(ctx, &zeros));
    assert_false(att_slice_eq(parse_name_slice(&zeros), parse_name_slice(&transient)));
    create_key(ctx, &blob);
    assert_int_equal(blob.parent_handle, 0x81000001);
    assert_true(signs(ctx, &blob));
    assert_true(signs(ctx, &blob2)); /* made under the transient one */
    tpm_context_free(ctx);
    assert_int_equal(swtpm_sh(&the_tpm, EVICT), 0);
    ctx = open_tpm(&the_tpm);
    assert_true(signs(ctx, &blob));
    assert_true(signs(ctx, &blob2));
    assert_true(count(ctx, TPM_HANDLES_TRANSIENT) <= 3);
    tpm_context_free(ctx);
}

static void refuses_another_srk_than_pinned(void **state)
{
    struct parse_name name;
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoblob blob = {0};
    (void)state;
    assert_ok(tpm_context_srk(ctx, NULL, &name, NULL, err));
    tpm_context_free(ctx);
    struct tpm_options options = {.tcti = the_tpm.tcti, .srk_name = parse_name_slice(&name)};
    assert_ok(tpm_context_open(&options, &ctx, err));
    create_key(ctx, &blob);
    tpm_blob_done(&blob);
    tpm_context_free(ctx);
    name.bytes[5] ^= 1;
    assert_ok(tpm_context_open(&options, &ctx, err));
    assert_refused(tpm_key_create(ctx, AUTH_A, &blob, err), ATT_E_DENIED, "srkName");
    assert_refused(tpm_context_srk(ctx, NULL, NULL, NULL, err), ATT_E_DENIED, "srkName");
    assert_int_equal(count(ctx, TPM_HANDLES_TRANSIENT), 0);
    tpm_context_free(ctx);
}

static void wants_the_owners_authorisation(void **state)
{
    struct tpm_context *ctx = NULL;
    struct tpm_options options = {.tcti = the_tpm.tcti};
    (void)state;
    assert_int_equal(swtpm_sh(&the_tpm, "tpm2_changeauth -c o owner1"), 0);
    assert_ok(tpm_context_open(&options, &ctx, err));
    assert_refused(tpm_context_srk(ctx, NULL, NULL, NULL, err), ATT_E_AUTH, "");
    tpm_context_free(ctx);
    options.owner_auth = ATT_SLICE_LIT("owner2");
    assert_ok(tpm_context_open(&options, &ctx, err));
    assert_refused(tpm_context_srk(ctx, NULL, NULL, NULL, err), ATT_E_AUTH, "");
    assert_int_equal(count(ctx, TPM_HANDLES_LOADED_SESSION), 0);
    tpm_context_free(ctx);
    options.owner_auth = ATT_SLICE_LIT("owner1");
    assert_ok(tpm_context_open(&options, &ctx, err));
    assert_ok(tpm_context_srk(ctx, NULL, NULL, NULL, err));
    assert_int_equal(count(ctx, TPM_HANDLES_LOADED_SESSION), 0);
    tpm_context_free(ctx);
    assert_int_equal(swtpm_sh(&the_tpm, "tpm2_changeauth -c o -p owner1"), 0);
}

/* What another program left in the TPM is not ours to flush. */
static void never_flushes_what_is_not_ours(void **state)
{
    tpm_autoblob blob = {0};
    (void)state;
    assert_int_equal(swtpm_sh(&the_tpm, "tpm2_createprimary -C o -G ecc -c x.ctx; "
                                        "tpm2_createprimary -C o -G ecc -c y.ctx"),
                     0);
    struct tpm_context *ctx = open_tpm(&the_tpm);
    assert_int_equal(count(ctx, TPM_HANDLES_TRANSIENT), 2);
    /* One slot is not enough for the SRK and a key beside it: the caller is told to try again. */
    assert_refused(tpm_key_create(ctx, AUTH_A, &blob, err), ATT_E_RETRY, "");
    tpm_context_free(ctx);
    ctx = open_tpm(&the_tpm);
    assert_int_equal(count(ctx, TPM_HANDLES_TRANSIENT), 2);
    tpm_context_free(ctx);
    assert_int_equal(swtpm_sh(&the_tpm, "tpm2_flushcontext -t"), 0);
}

/* A killed process leaves its objects in a TPM without a resource manager; who owns it alone starts
 * over. */
static void exclusive_flushes_what_a_killed_process_left(void **state)
{
    const struct tpm_options options = {.tcti = the_tpm.tcti, .exclusive = true};
    struct tpm_context *ctx = NULL;
    tpm_autoblob blob = {0};
    (void)state;
    assert_int_equal(swtpm_sh(&the_tpm, "tpm2_createprimary -C o -G ecc -c x.ctx; "
                                        "tpm2_createprimary -C o -G ecc -c y.ctx; "
                                        "tpm2_startauthsession -S s.ctx"),
                     0);
    assert_ok(tpm_context_open(&options, &ctx, err));
    assert_int_equal(count(ctx, TPM_HANDLES_TRANSIENT), 0);
    assert_int_equal(count(ctx, TPM_HANDLES_LOADED_SESSION), 0);
    assert_int_equal(count(ctx, TPM_HANDLES_SAVED_SESSION), 0);
    assert_ok(tpm_key_create(ctx, AUTH_A, &blob, err));
    tpm_context_free(ctx);
    assert_true(tpm_context_single_client("swtpm:path=/x"));
    assert_true(tpm_context_single_client("device:/dev/tpm0"));
    assert_false(tpm_context_single_client("device:/dev/tpmrm0"));
    assert_false(tpm_context_single_client("tabrmd:bus_type=system"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_unknown_tctis),
        cmocka_unit_test(refuses_bad_handles),
        cmocka_unit_test(nobody_there_is_gone),
        cmocka_unit_test(says_why_a_device_is_closed),
        cmocka_unit_test(starts_a_tpm_that_nobody_started),
        cmocka_unit_test(says_what_it_is),
        cmocka_unit_test(gone_and_back),
        cmocka_unit_test(reset_behind_our_back_is_gone),
        cmocka_unit_test(uses_only_an_srk_of_ours),
        cmocka_unit_test(knows_both_srk_variants),
        cmocka_unit_test(refuses_another_srk_than_pinned),
        cmocka_unit_test(wants_the_owners_authorisation),
        cmocka_unit_test(never_flushes_what_is_not_ours),
        cmocka_unit_test(exclusive_flushes_what_a_killed_process_left),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
