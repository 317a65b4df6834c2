/* MakeCredential: its refusals, and real TPMs (swtpm with the EKs of swtpm_setup) that activate
 * what it makes. Needs swtpm, swtpm_setup and tpm2-tools for the latter. */
#include "vectors.h"

#include "tpm/parse/makecred.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void load_key(const char *file, struct parse_public *ret)
{
    att_autobuf area = {0};
    read_vector(file, &area);
    assert_ok(parse_public_parse(att_buf_slice(&area), ret, err));
}

static void load_name(struct parse_name *ret)
{
    att_autobuf bytes = {0};
    read_vector("ak.name", &bytes);
    assert_ok(parse_name_parse(att_buf_slice(&bytes), ret, err));
}

/* ---- refusals ---------------------------------------------------------------------------------
 */

static void test_arguments_that_are_refused(void **state)
{
    (void)state;
    struct parse_public ek;
    struct parse_name name;
    load_name(&name);
    static const uint8_t cv[65];
    att_autobuf blob = {0}, secret = {0};
#define REFUSED(file, change, cv_len, code, text)                                                  \
    load_key(file, &ek);                                                                           \
    change;                                                                                        \
    assert_refused(                                                                                \
        parse_makecred_create(&ek, ATT_SLICE(cv, (cv_len)), &name, &blob, &secret, err), code, "", \
        text);                                                                                     \
    assert_int_equal(blob.len + secret.len, 0)
    REFUSED("ek_rsa.area", (void)0, 0, ATT_E_INVAL, "credential of 0 bytes");
    REFUSED("ek_rsa.area", (void)0, 33, ATT_E_INVAL, "credential of 33 bytes, not 1…32");
    REFUSED("ek_p384.area", (void)0, 49, ATT_E_INVAL, "not 1…48");
    REFUSED("ak.area", (void)0, 32, ATT_E_INVAL, "not a storage key");
    REFUSED("sealed.area", (void)0, 32, ATT_E_INVAL, "not a storage key");
    REFUSED("ek_rsa.area", ek.attrs &= ~PARSE_OA_RESTRICTED, 32, ATT_E_INVAL, "not a storage key");
    REFUSED("ek_p256.area", ek.y[5] ^= 1, 32, ATT_E_PARSE, "");
    REFUSED("ek_rsa.area", ek.unique_len = 0, 32, ATT_E_PARSE, "modulus");
    REFUSED("ek_rsa.area", name.len = 4, 32, ATT_E_PARSE, "2 digest bytes");
#undef REFUSED
}

static void test_sizes_and_freshness(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        size_t hash, secret;
    } eks[] = {{"ek_rsa.area", 32, 256},
               {"ek_p256.area", 32, 2 * (2 + 32)},
               {"ek_p384.area", 48, 2 * (2 + 48)}};
    struct parse_name name;
    load_name(&name);
    for (size_t i = 0; i < 3; i++) {
        struct parse_public ek;
        load_key(eks[i].file, &ek);
        att_autobuf blob = {0}, secret = {0}, blob2 = {0}, secret2 = {0};
        struct att_slice cv = ATT_SLICE_LIT("0123456789abcdef0123456789abcdef");
        assert_ok(parse_makecred_create(&ek, cv, &name, &blob, &secret, err));
        assert_ok(parse_makecred_create(&ek, cv, &name, &blob2, &secret2, err));
        assert_int_equal(blob.len, 2 + 2 + eks[i].hash + 2 + cv.len);
        assert_int_equal(secret.len, 2 + eks[i].secret);
        assert_int_equal(secret.ptr[0] << 8 | secret.ptr[1], eks[i].secret);
        assert_int_equal(blob.ptr[0] << 8 | blob.ptr[1], blob.len - 2);
        assert_false(att_slice_eq(att_buf_slice(&blob), att_buf_slice(&blob2)));
        assert_false(att_slice_eq(att_buf_slice(&secret), att_buf_slice(&secret2)));
    }
}

/* ---- against a TPM ----------------------------------------------------------------------------
 */

struct tpm {
    char dir[64];
    pid_t pid;
};

static pid_t start(const char *const argv[], int quiet)
{
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (quiet) {
        posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
        posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    }
    char *args[32] = {NULL};
    for (size_t i = 0; argv[i] && i < 31; i++) {
        args[i] = strdup(argv[i]);
    }
    pid_t pid = -1;
    int failed = posix_spawnp(&pid, args[0], &actions, NULL, args, environ);
    for (size_t i = 0; args[i]; i++) {
        free(args[i]);
    }
    posix_spawn_file_actions_destroy(&actions);
    return failed ? -1 : pid;
}

static int run_status(const char *const argv[], int quiet)
{
    pid_t pid = start(argv, quiet);
    int status = -1;
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status)
                                                                           : -1;
}

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})
#define run(...)                                                                                   \
    do {                                                                                           \
        assert_int_equal(run_status(ARGS(__VA_ARGS__), 0), 0);                                     \
        assert_int_equal(run_status(ARGS("tpm2_flushcontext", "-Q", "-t"), 0), 0);                 \
    } while (0)

static int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

static int stop_tpm(void **state)
{
    struct tpm *tpm = *state;
    if (tpm) {
        if (tpm->pid > 0) {
            kill(tpm->pid, SIGTERM);
            waitpid(tpm->pid, NULL, 0);
        }
        (void)!chdir("/");
        nftw(tpm->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
        free(tpm);
    }
    return 0;
}

static int start_tpm(void **state)
{
    *state = NULL;
    if (run_status(ARGS("sh", "-c",
                        "command -v swtpm && command -v swtpm_setup && "
                        "command -v tpm2_activatecredential"),
                   1) != 0) {
        print_message("swtpm or tpm2-tools are not here: skipped\n");
        return 0;
    }
    struct tpm *tpm = calloc(1, sizeof *tpm);
    snprintf(tpm->dir, sizeof tpm->dir, "/tmp/attestd-makecred-XXXXXX");
    if (!mkdtemp(tpm->dir) || chdir(tpm->dir) != 0 || mkdir("state", 0700) != 0) {
        free(tpm);
        return -1;
    }
    *state = tpm;
    if (run_status(ARGS("swtpm_setup", "--tpm2", "--tpmstate", "state", "--createek"), 1) != 0) {
        return -1;
    }
    char server[128], ctrl[128], tcti[128];
    snprintf(server, sizeof server, "type=unixio,path=%s/sock", tpm->dir);
    snprintf(ctrl, sizeof ctrl, "type=unixio,path=%s/sock.ctrl", tpm->dir);
    snprintf(tcti, sizeof tcti, "swtpm:path=%s/sock", tpm->dir);
    tpm->pid = start(ARGS("swtpm", "socket", "--tpm2", "--tpmstate", "dir=state", "--server",
                          server, "--ctrl", ctrl, "--flags", "not-need-init,startup-clear"),
                     1);
    setenv("TPM2TOOLS_TCTI", tcti, 1);
    for (int i = 0; i < 3000 && access("sock.ctrl", F_OK) != 0; i++) {
        usleep(20000);
    }
    return tpm->pid > 0 ? 0 : -1;
}

/* What tpm2_activatecredential reads: magic, version 1, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET. */
static void write_credential(const struct parse_public *ek, const struct parse_name *name,
                             struct att_slice cv)
{
    att_autobuf blob = {0}, secret = {0}, file = {0};
    assert_ok(parse_makecred_create(ek, cv, name, &blob, &secret, err));
    att_buf_be32(&file, 0xBADCC0DE);
    att_buf_be32(&file, 1);
    att_buf_put_slice(&file, att_buf_slice(&blob));
    att_buf_put_slice(&file, att_buf_slice(&secret));
    assert_ok(att_io_write_file("cred.in", att_buf_slice(&file), 0600, err));
}

/* Activates cred.in; policy: by PolicySecret(endorsement), else by the empty password. */
static int activate(const char *ek, int policy)
{
    (void)unlink("cred.out");
    const char *auth = "";
    if (policy) {
        run("tpm2_startauthsession", "-Q", "--policy-session", "-S", "session.ctx");
        run("tpm2_policysecret", "-Q", "-S", "session.ctx", "-c", "e");
        auth = "session:session.ctx";
    }
    int status = run_status(ARGS("tpm2_activatecredential", "-Q", "-c", "ak.ctx", "-C", ek, "-i",
                                 "cred.in", "-o", "cred.out", "-P", auth),
                            1);
    assert_int_equal(run_status(ARGS("tpm2_flushcontext", "-Q", "-t"), 0), 0);
    if (policy) {
        assert_int_equal(run_status(ARGS("tpm2_flushcontext", "-Q", "session.ctx"), 0), 0);
    }
    return status;
}

static void read_area(const char *file, struct parse_public *ret, struct parse_name *ret_name)
{
    att_autobuf tpm2b = {0};
    read_file_at(".", file, &tpm2b);
    struct att_slice area;
    assert_ok(parse_public_unwrap(att_buf_slice(&tpm2b), &area, err));
    assert_ok(parse_public_parse(area, ret, err));
    assert_ok(parse_name_of_area(area, ret_name, err));
}

static void check_ek(const char *ek_ref, enum parse_ek_template want, int policy)
{
    struct parse_public ek, ak;
    struct parse_name ek_name, ak_name;
    enum parse_ek_template which = PARSE_EK_NONE;
    run("tpm2_readpublic", "-Q", "-c", ek_ref, "-o", "ek.pub");
    read_area("ek.pub", &ek, &ek_name);
    read_area("ak.pub", &ak, &ak_name);
    assert_ok(parse_public_check_ek(&ek, &which, err));
    assert_int_equal(which, want);
    static const size_t lengths[] = {1, 16, 32};
    for (size_t i = 0; i < 3; i++) {
        struct att_slice cv = ATT_SLICE("0123456789abcdef0123456789abcdef", lengths[i]);
        write_credential(&ek, &ak_name, cv);
        assert_int_equal(activate(ek_ref, policy), 0);
        att_autobuf out = {0};
        read_file_at(".", "cred.out", &out);
        assert_true(att_slice_eq(att_buf_slice(&out), cv));
    }
    /* made for another Name: the TPM refuses */
    ak_name.bytes[10] ^= 1;
    write_credential(&ek, &ak_name, ATT_SLICE_LIT("0123456789abcdef"));
    assert_int_not_equal(activate(ek_ref, policy), 0);
    assert_int_not_equal(access("cred.out", F_OK), 0);
}

static void test_a_tpm_activates_what_we_make(void **state)
{
    if (!*state) {
        skip();
    }
    run("tpm2_createprimary", "-Q", "-C", "e", "-G", "ecc256:ecdsa-sha256:null", "-c", "ak.ctx",
        "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|sign|noda");
    run("tpm2_readpublic", "-Q", "-c", "ak.ctx", "-o", "ak.pub");
    struct parse_public ak;
    struct parse_name name;
    read_area("ak.pub", &ak, &name);
    assert_ok(parse_public_check_ak(&ak, err));
    check_ek("0x81010001", PARSE_EK_L1, 1);
    check_ek("0x81010016", PARSE_EK_H3, 0); /* userWithAuth: the empty password is enough */
    run("tpm2_createek", "-Q", "-G", "ecc", "-c", "ek.ctx", "-u", "ek.pub");
    check_ek("ek.ctx", PARSE_EK_L2, 1);
}

/* The high range's RSA-3072 and P-256, which swtpm_setup does not make: from our own templates, as
 * far as this TPM has them. */
static void test_a_tpm_activates_for_high_range_templates(void **state)
{
    if (!*state) {
        skip();
    }
    static const struct {
        enum parse_ek_template which;
        const char *alg, *hash;
    } eks[] = {{PARSE_EK_H6, "rsa3072:null:aes256cfb", "sha384"},
               {PARSE_EK_H2, "ecc256:null:aes128cfb", "sha256"},
               {PARSE_EK_H1, "rsa2048:null:aes128cfb", "sha256"}};
    int done = 0;
    for (size_t i = 0; i < 3; i++) {
        struct parse_public template;
        assert_ok(parse_public_ek_template(eks[i].which, &template, err));
        assert_ok(att_io_write_file("policy", ATT_SLICE(template.policy, template.policy_len), 0600,
                                    err));
        int failed = run_status(
            ARGS("tpm2_createprimary", "-Q", "-C", "e", "-G", eks[i].alg, "-g", eks[i].hash, "-c",
                 "high.ctx", "-L", "policy", "-a",
                 "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|adminwithpolicy|restricted|"
                 "decrypt"),
            1);
        assert_int_equal(run_status(ARGS("tpm2_flushcontext", "-Q", "-t"), 0), 0);
        if (failed) {
            print_message("this TPM has no %s: left out\n", eks[i].alg);
            continue;
        }
        check_ek("high.ctx", eks[i].which, 0);
        done++;
    }
    assert_true(done >= 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arguments_that_are_refused),
        cmocka_unit_test(test_sizes_and_freshness),
        cmocka_unit_test(test_a_tpm_activates_what_we_make),
        cmocka_unit_test(test_a_tpm_activates_for_high_range_templates),
    };
    return cmocka_run_group_tests(tests, start_tpm, stop_tpm);
}
