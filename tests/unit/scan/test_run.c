/* A tree that others wrote, scanned as if it were "/": what is found, what is not, what is said of
 * it; hostile files; and that no value is left in what the scan returns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/scan/scan.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define TOKEN "q7Zk2Xv9Lm4RtB8wNc1Hs6Jd"
#define OTHER "Pf5GyAeUoTiKxVbMnQz3h7Gj"
#define SHAPED                                                                                     \
    "gh"                                                                                           \
    "p_" OTHER TOKEN

static char root[64];
static struct scan_findings found;

static const char *at(const char *path)
{
    static char whole[4096];
    snprintf(whole, sizeof whole, "%s%s", root, path);
    return whole;
}

static void folders_of(const char *path)
{
    char whole[4096];
    snprintf(whole, sizeof whole, "%s", at(path));
    for (char *slash = strchr(whole + strlen(root) + 1, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        *slash = 0;
        (void)mkdir(whole, 0755);
        *slash = '/';
    }
}

static void put(const char *path, const char *bytes, size_t len)
{
    folders_of(path);
    FILE *file = fopen(at(path), "w");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, len, file), len);
    fclose(file);
}

static void text(const char *path, const char *content)
{
    put(path, content, strlen(content));
}

static int gone(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static int setup(void **state)
{
    (void)state;
    strcpy(root, "/tmp/att-scan-XXXXXX");
    return mkdtemp(root) && chmod(root, 0755) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    scan_findings_done(&found);
    return nftw(root, gone, 16, FTW_DEPTH | FTW_PHYS);
}

static enum att_rc run_with(const char *const *paths, size_t n_paths, struct att_err *err)
{
    const struct scan_options options = {
        .root = root, .paths = paths, .n_paths = n_paths, .units = true, .homes = true};
    scan_findings_done(&found);
    return scan_run(&options, &found, err);
}

static void run(void)
{
    struct att_err err = {0};
    if (run_with(NULL, 0, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
}

/* path is one below root. */
static const struct scan_finding *find(const char *path, const char *name)
{
    for (size_t i = 0; i < found.n; i++) {
        if (strcmp(found.list[i].path, at(path)) == 0 && strcmp(found.list[i].name, name) == 0) {
            return &found.list[i];
        }
    }
    return NULL;
}

static void expect(const char *path, const char *name, uint32_t line, enum scan_kind kind,
                   const char *unit)
{
    const struct scan_finding *f = find(path, name);
    if (!f) {
        fail_msg("%s %s was not found (%zu were)", path, name, found.n);
        return;
    }
    assert_int_equal(f->line, line);
    assert_int_equal(f->kind, kind);
    assert_string_equal(f->unit, unit);
}

static void skipped(enum scan_skip why, uint64_t n)
{
    if (found.skipped[why].n != n) {
        fail_msg("%s: %d, expected %d", scan_skip_id(why), (int)found.skipped[why].n, (int)n);
    }
}

/* ---- nothing where there is nothing ---- */

static void test_empty(void **state)
{
    (void)state;
    run();
    assert_int_equal(found.n, 0);
    assert_true(scan_findings_complete(&found));
}

static void test_not_there(void **state)
{
    (void)state;
    struct att_err err = {0};
    const char *path = "/no\nsuch";
    assert_int_equal(run_with(&path, 1, &err), ATT_E_NOTFOUND);
    assert_string_equal(err.msg, "/no\\x0asuch: no such file or folder");
    const char *user = "nobody-here";
    struct scan_options options = {.root = root, .users = &user, .n_users = 1, .homes = true};
    att_err_clear(&err);
    assert_int_equal(scan_run(&options, &found, &err), ATT_E_NOTFOUND);
    assert_non_null(strstr(err.msg, "--user: \"nobody-here\""));
    options = (struct scan_options){.root = "/no/such/root"};
    att_err_clear(&err);
    assert_int_equal(scan_run(&options, &found, &err), ATT_E_NOTFOUND);
    assert_non_null(strstr(err.msg, "--root"));
}

/* ---- units ---- */

static void test_units(void **state)
{
    (void)state;
    text("/etc/systemd/system/a.service",
         "[Service]\nEnvironment=A_TOKEN=" TOKEN "\nEnvironmentFile=-/etc/a.d/*.env\n"
         "EnvironmentFile=/etc/absent\nExecStart=/bin/a --api-key " OTHER "\n"
         "LoadCredential=db_password:/etc/keys/db\nSetCredential=c_token:" OTHER "\n");
    text("/etc/a.d/1.env", "B_TOKEN=" TOKEN "\n");
    text("/etc/a.d/2.conf", "C_TOKEN=" TOKEN "\n");
    text("/etc/keys/db", "tr0ub4dor&3\n");
    text("/usr/lib/systemd/system/b@.service", "[Service]\nEnvironmentFile=%E/b/%i-%p.env\n");
    text("/etc/b/one-b.env", "B_SECRET=" TOKEN "\n");
    text("/etc/b/one-c.env", "B_SECRET=" TOKEN "\n");
    text("/etc/systemd/system.conf", "[Manager]\nDefaultEnvironment=M_TOKEN=" TOKEN "\n");
    run();
    expect("/etc/systemd/system/a.service", "A_TOKEN", 2, SCAN_GENERIC, "a.service");
    expect("/etc/systemd/system/a.service", "--api-key", 5, SCAN_GENERIC, "a.service");
    expect("/etc/systemd/system/a.service", "c_token", 7, SCAN_GENERIC, "a.service");
    expect("/etc/a.d/1.env", "B_TOKEN", 1, SCAN_GENERIC, "a.service");
    assert_null(find("/etc/a.d/2.conf", "C_TOKEN"));
    expect("/etc/keys/db", "db_password", 0, SCAN_GENERIC, "a.service");
    expect("/etc/b/one-b.env", "B_SECRET", 1, SCAN_GENERIC, "b@.service");
    assert_null(find("/etc/b/one-c.env", "B_SECRET"));
    expect("/etc/systemd/system.conf", "M_TOKEN", 2, SCAN_GENERIC, "");
    skipped(SCAN_SKIP_ABSENT, 1);
    assert_int_equal(found.skipped[SCAN_SKIP_ABSENT].examples[0].line, 4);
    /* what the unit has in the path's place is not said */
    assert_null(strstr(found.skipped[SCAN_SKIP_ABSENT].examples[0].path, "absent"));
    assert_true(scan_findings_complete(&found));
}

static bool overridden(const char *path, const char *name)
{
    const struct scan_finding *f = find(path, name);
    assert_non_null(f);
    return f->overridden;
}

/* systemd.unit(5): what is in force is not what is on the disk. */
static void test_order(void **state)
{
    (void)state;
    text("/usr/lib/systemd/system/a.service", "[Service]\nEnvironment=OLD_TOKEN=" TOKEN "\n");
    text("/etc/systemd/system/a.service",
         "[Service]\nEnvironment=A_TOKEN=" TOKEN " B_TOKEN=" TOKEN "\n");
    text("/usr/lib/systemd/system/a.service.d/10-x.conf",
         "[Service]\nEnvironment=X_TOKEN=" TOKEN "\n");
    text("/etc/systemd/system/a.service.d/10-x.conf", "[Service]\nEnvironment=B_TOKEN=none\n");
    text("/run/systemd/system/a.service.d/20-y.conf", "[Service]\nEnvironment=Y_TOKEN=" TOKEN "\n");
    text("/etc/systemd/system/b.service", "[Service]\nEnvironment=C_TOKEN=" TOKEN "\n");
    text("/etc/systemd/system/b.service.d/z.conf",
         "[Service]\nEnvironment=\nEnvironment=D_TOKEN=" TOKEN "\n");
    assert_int_equal(symlink("/dev/null", at("/etc/systemd/system/masked.service")), 0);
    run();
    assert_true(overridden("/usr/lib/systemd/system/a.service", "OLD_TOKEN"));
    assert_false(overridden("/etc/systemd/system/a.service", "A_TOKEN"));
    assert_true(overridden("/etc/systemd/system/a.service", "B_TOKEN"));
    assert_true(overridden("/usr/lib/systemd/system/a.service.d/10-x.conf", "X_TOKEN"));
    assert_false(overridden("/run/systemd/system/a.service.d/20-y.conf", "Y_TOKEN"));
    assert_true(overridden("/etc/systemd/system/b.service", "C_TOKEN"));
    assert_false(overridden("/etc/systemd/system/b.service.d/z.conf", "D_TOKEN"));
    assert_true(scan_findings_complete(&found)); /* a masked unit is no news */
}

/* ---- homes ---- */

static void test_homes(void **state)
{
    (void)state;
    char line[128];
    snprintf(line, sizeof line, "bob:x:%u:%u::/home/bob:/bin/sh\nbroken\nx:y:z\n",
             (unsigned)getuid(), (unsigned)getgid());
    text("/etc/passwd", line);
    text("/home/bob/.netrc", "machine a login b password tr0ub4dor\n");
    text("/home/bob/.aws/credentials",
         "[default]\naws_access_key_id = AK"
         "IAQ7ZK2XVNLM4RTBXW\n"
         "aws_secret_access_key = q7Zk2Xv9Lm4RtB8wNc1Hs6Jd3Pf5Gy/eUo+iKxVb\n");
    text("/home/bob/.docker/config.json",
         "{\"auths\": {\"r.example\": {\"auth\": \"Ym9iOnNlY3I=\"}}}");
    text("/home/bob/.config/systemd/user/u.service",
         "[Service]\nEnvironmentFile=%h/u.env\nEnvironmentFile=/etc/shadow\n");
    text("/home/bob/u.env", "U_TOKEN=" TOKEN "\n");
    text("/etc/shadow", "S_TOKEN=" TOKEN "\n");
    text("/home/bob/.ssh/id_ed25519",
         "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n");
    text("/home/bob/.ssh/id_ed25519.pub",
         "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOq7Zk2Xv9Lm4R bob\n");
    text("/home/eve/.vault-token", TOKEN "\n"); /* in no passwd */
    text("/etc/credstore/app.token", TOKEN);
    text("/etc/credstore/hsm-pin", "4711\n");
    text("/etc/default/app", "export APP_TOKEN=\"" TOKEN "\"\n");
    run();
    expect("/home/bob/.netrc", "password", 1, SCAN_PASSWORD, "");
    expect("/home/bob/.aws/credentials", "aws_access_key_id", 2, SCAN_AWS_KEY_ID, "");
    expect("/home/bob/.aws/credentials", "aws_secret_access_key", 3, SCAN_AWS_SECRET, "");
    expect("/home/bob/.docker/config.json", "auth", 1, SCAN_REGISTRY, "");
    expect("/home/bob/u.env", "U_TOKEN", 1, SCAN_GENERIC, "u.service");
    expect("/home/bob/.ssh/id_ed25519", "-", 1, SCAN_SSH_KEY, "");
    assert_null(find("/home/bob/.ssh/id_ed25519.pub", "-"));
    expect("/home/eve/.vault-token", "vault-token", 0, SCAN_VAULT, "");
    expect("/etc/credstore/app.token", "app.token", 0, SCAN_GENERIC, "");
    expect("/etc/credstore/hsm-pin", "hsm-pin", 0, SCAN_PIN, "");
    expect("/etc/default/app", "APP_TOKEN", 1, SCAN_GENERIC, "");
    /* a user's unit makes nobody read what is not the user's */
    assert_null(find("/etc/shadow", "S_TOKEN"));
    skipped(SCAN_SKIP_OUTSIDE, 1);
}

static void test_keys_and_history(void **state)
{
    (void)state;
    uint8_t bytes[4096];
    const char *source = getenv("ATT_SOURCE_DIR");
    char path[512];
    static const char *const stores[] = {"shrouded.p12", "k.jks", "certs-clear.p12"};
    static const char *const places[] = {"/home/bob/own.p12", "/home/bob/.ssh/store",
                                         "/home/bob/roots.p12"};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/tests/fuzz/corpus/fuzz_scan__store/%s",
                 source ? source : ".", stores[i]);
        FILE *file = fopen(path, "rb");
        assert_non_null(file);
        size_t len = fread(bytes, 1, sizeof bytes, file);
        fclose(file);
        put(places[i], (const char *)bytes, len);
    }
    text("/home/bob/tls.key", "-----BEGIN PRIVATE KEY-----\n"
                              "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n");
    text("/home/bob/.bash_history", "ls\nexport B_TOKEN=" TOKEN "\ncurl --api-key " OTHER " h\n");
    text("/etc/app/tls.key", "-----BEGIN PRIVATE KEY-----\n"
                             "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg\n");
    run();
    expect("/home/bob/own.p12", "-", 0, SCAN_KEYSTORE, "");
    expect("/home/bob/.ssh/store", "-", 0, SCAN_KEYSTORE, ""); /* whatever its name */
    assert_null(find("/home/bob/roots.p12", "-"));
    skipped(SCAN_SKIP_BINARY, 0);
    expect("/home/bob/tls.key", "-", 1, SCAN_PRIVATE_KEY, "");
    expect("/etc/app/tls.key", "-", 1, SCAN_PRIVATE_KEY, "");
    expect("/home/bob/.bash_history", "B_TOKEN", 2, SCAN_GENERIC, "");
    expect("/home/bob/.bash_history", "--api-key", 3, SCAN_GENERIC, "");
    assert_int_equal(find("/home/bob/.bash_history", "B_TOKEN")->source, SCAN_SRC_HISTORY);
}

/* ---- hostile files ---- */

/* A home whose files take their time takes it from nobody else. */
static void test_slow_home(void **state)
{
    (void)state;
    char path[64];
    char *large = malloc(1 << 17);
    memset(large, 'x', 1 << 17);
    for (size_t i = 0; i < (1 << 17); i += 64) {
        large[i] = '\n';
    }
    for (int i = 0; i < 40; i++) {
        snprintf(path, sizeof path, "/home/bob/.ssh/big%02d", i);
        put(path, large, 1 << 17);
    }
    free(large);
    text("/home/bob/.vault-token", TOKEN "\n");
    text("/home/carol/.vault-token", TOKEN "\n");
    text("/home/bob/.zshrc", "B_TOKEN=" TOKEN "\n");
    const struct scan_options options = {.root = root, .homes = true, .home_ms = 1};
    /* Carol's home has a millisecond of its own, which a busy machine may take from it. */
    for (int tries = 0; tries < 50; tries++) {
        scan_findings_done(&found);
        assert_int_equal(scan_run(&options, &found, NULL), ATT_OK);
        if (find("/home/carol/.vault-token", "vault-token")) {
            break;
        }
    }
    assert_true(found.skipped[SCAN_SKIP_MANY].n >= 20);
    assert_true(found.looked.files < 30);
    assert_false(scan_findings_complete(&found));
    expect("/home/carol/.vault-token", "vault-token", 0, SCAN_VAULT, "");
    run(); /* a minute is enough */
    skipped(SCAN_SKIP_MANY, 0);
    assert_true(found.looked.files >= 43);
    expect("/home/bob/.vault-token", "vault-token", 0, SCAN_VAULT, "");
    expect("/home/bob/.zshrc", "B_TOKEN", 1, SCAN_GENERIC, "");
}

static void test_links(void **state)
{
    (void)state;
    text("/etc/passwd", "bob:x:1000:1000::/home/bob:/bin/sh\n");
    text("/root/secret", "machine a password tr0ub4dor\n");
    text("/home/bob/real", "machine a password tr0ub4dor\n");
    assert_int_equal(symlink("/root/secret", at("/home/bob/.netrc")), 0);
    assert_int_equal(symlink("../../root", at("/home/bob/.aws")), 0);
    text("/root/credentials", "aws_session_token = " TOKEN "\n");
    run();
    assert_null(find("/home/bob/.netrc", "password"));
    assert_null(find("/home/bob/.aws/credentials", "aws_session_token"));
    skipped(SCAN_SKIP_LINK, 3); /* .netrc, .aws/credentials, .aws/config */
    assert_false(scan_findings_complete(&found));
    if (geteuid() != 0) {
        return;
    }
    /* Out of a home a link counts where root or the caller made it, and stays in the tree. */
    text("/opt/x.service", "[Service]\nEnvironment=X_TOKEN=" TOKEN "\n");
    folders_of("/etc/systemd/system/x");
    assert_int_equal(symlink("/../../opt/x.service", at("/etc/systemd/system/x.service")), 0);
    text("/opt/y.service", "[Service]\nEnvironment=Y_TOKEN=" TOKEN "\n");
    assert_int_equal(symlink("/opt/y.service", at("/etc/systemd/system/y.service")), 0);
    assert_int_equal(lchown(at("/etc/systemd/system/y.service"), 1000, 1000), 0);
    run();
    expect("/etc/systemd/system/x.service", "X_TOKEN", 2, SCAN_GENERIC, "x.service");
    assert_null(find("/etc/systemd/system/y.service", "Y_TOKEN"));
    /* A hard link to somebody else's file, as a kernel without protected_hardlinks allows. */
    assert_int_equal(unlink(at("/home/bob/.netrc")), 0);
    char from[4096];
    strcpy(from, at("/root/secret"));
    assert_int_equal(link(from, at("/home/bob/.netrc")), 0);
    run();
    assert_null(find("/home/bob/.netrc", "password"));
}

static void test_no_files(void **state)
{
    (void)state;
    text("/etc/passwd", "bob:x:1000:1000::/home/bob:/bin/sh\n");
    folders_of("/home/bob/x");
    assert_int_equal(mkfifo(at("/home/bob/.netrc"), 0666), 0); /* opening it would wait */
    assert_int_equal(mkdir(at("/home/bob/.npmrc"), 0755), 0);
    folders_of("/home/bob/.kube/x");
    bool device = geteuid() == 0 && mknod(at("/home/bob/.kube/config"), S_IFCHR | 0666, 5) == 0;
    int sparse = open(at("/home/bob/.pgpass"), O_CREAT | O_WRONLY, 0600);
    assert_true(sparse >= 0 && ftruncate(sparse, (off_t)1 << 40) == 0);
    close(sparse);
    run();
    assert_int_equal(found.n, 0);
    skipped(SCAN_SKIP_SPECIAL, device ? 2 : 1);
    skipped(SCAN_SKIP_LARGE, 1);
    assert_false(scan_findings_complete(&found));
}

static void test_bytes(void **state)
{
    (void)state;
    text("/etc/passwd", "bob:x:1000:1000::/home/bob:/bin/sh\n");
    put("/home/bob/.netrc", "\0\1\2 machine a password tr0ub4dor\n", 33);
    text("/home/bob/.env", "A=\xff\xfe\nB_TOKEN=" TOKEN "\n");
    /* one line of a million bytes, and a file with a hostile name */
    char *line = malloc(1000001);
    memset(line, 'a', 1000000);
    line[1000000] = 0;
    text("/home/bob/.npmrc", line);
    free(line);
    text("/etc/default/a\n\x1b[31m\xff", "B_TOKEN=" TOKEN "\n");
    run();
    skipped(SCAN_SKIP_BINARY, 1);
    expect("/home/bob/.env", "B_TOKEN", 2, SCAN_GENERIC, "");
    expect("/etc/default/a\n\x1b[31m\xff", "B_TOKEN", 1, SCAN_GENERIC, "");
    char shown[256];
    scan_escape(shown, sizeof shown, find("/etc/default/a\n\x1b[31m\xff", "B_TOKEN")->path);
    assert_non_null(strstr(shown, "/etc/default/a\\x0a\\x1b[31m\\xff"));
}

static void test_many(void **state)
{
    (void)state;
    size_t cap = (size_t)1 << 18, len = 0;
    char *all = malloc(cap);
    for (int i = 0; i < 2000; i++) {
        len += (size_t)snprintf(all + len, cap - len, "N%d_TOKEN=" TOKEN "%d\n", i, i);
    }
    put("/etc/default/many", all, len);
    text("/etc/default/one", "O_TOKEN=" TOKEN "\n");
    free(all);
    run();
    assert_int_equal(found.n, SCAN_FINDINGS_PLACE + 1); /* one file does not hide another */
    assert_non_null(find("/etc/default/one", "O_TOKEN"));
    skipped(SCAN_SKIP_MANY, 1);
}

static void test_unreadable(void **state)
{
    (void)state;
    text("/etc/default/mine", "M_TOKEN=" TOKEN "\n");
    text("/etc/default/roots", "R_TOKEN=" TOKEN "\n");
    assert_int_equal(chmod(at("/etc/default/roots"), 0600), 0);
    if (geteuid() != 0) {
        skip();
    }
    pid_t child = fork();
    if (child == 0) { /* as nobody */
        bool ok = setgid(65534) == 0 && setuid(65534) == 0;
        const struct scan_options options = {.root = root, .units = true, .homes = true};
        struct scan_findings mine = {0};
        ok = ok && scan_run(&options, &mine, NULL) == ATT_OK && mine.n == 1 &&
             mine.skipped[SCAN_SKIP_DENIED].n == 1 &&
             strstr(mine.skipped[SCAN_SKIP_DENIED].examples[0].path, "/etc/default/roots") &&
             !scan_findings_complete(&mine);
        scan_findings_done(&mine);
        _exit(ok ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

/* A pattern that finds nothing in ever so many folders costs a home's time, too. */
static void test_folders_without_end(void **state)
{
    const struct scan_options options = {.root = root, .units = true, .home_ms = 3};
    char path[128];
    (void)state;
    text("/etc/passwd", "bob:x:1000:1000::/home/bob:/bin/sh\n");
    text("/home/bob/.config/systemd/user/u.service",
         "[Service]\nEnvironmentFile=/home/bob/*/*/*/*.none\n");
    for (int i = 0; i < 12 * 12 * 12; i++) {
        snprintf(path, sizeof path, "/home/bob/%d/%d/%d/x", i / 144, i / 12 % 12, i % 12);
        folders_of(path);
    }
    scan_findings_done(&found);
    assert_int_equal(scan_run(&options, &found, NULL), ATT_OK);
    assert_true(found.skipped[SCAN_SKIP_MANY].n > 0);
    assert_false(scan_findings_complete(&found));
}

/* Nor do ever so many folders of drop-ins that hold none. */
static void test_dropins_without_end(void **state)
{
    const struct scan_options options = {.root = root, .units = true, .home_ms = 3};
    char path[128];
    (void)state;
    text("/etc/passwd", "bob:x:1000:1000::/home/bob:/bin/sh\n");
    for (int i = 0; i < 2000; i++) {
        snprintf(path, sizeof path, "/home/bob/.config/systemd/user/%d.service.d/x", i);
        folders_of(path);
    }
    scan_findings_done(&found);
    assert_int_equal(scan_run(&options, &found, NULL), ATT_OK);
    assert_true(found.skipped[SCAN_SKIP_MANY].n > 0);
}

/* ---- folders that are named ---- */

static void test_paths(void **state)
{
    (void)state;
    text("/srv/app/.env", "A_TOKEN=" TOKEN "\n");
    text("/srv/app/deep/er/prod.env", "B_TOKEN=" TOKEN "\n");
    text("/srv/app/compose.yaml", "services:\n  a:\n    environment:\n      - C_TOKEN=" TOKEN "\n");
    text("/srv/app/notes.txt", "D_TOKEN=" TOKEN "\n");
    text("/srv/app/.git/config.env", "E_TOKEN=" TOKEN "\n");
    text("/srv/named.txt", "F_TOKEN=" TOKEN "\n");
    assert_int_equal(symlink("../named.txt", at("/srv/app/link.env")), 0);
    const char *paths[] = {"/srv/app/", "/srv/named.txt"};
    assert_int_equal(run_with(paths, 2, NULL), ATT_OK);
    expect("/srv/app/.env", "A_TOKEN", 1, SCAN_GENERIC, "");
    expect("/srv/app/deep/er/prod.env", "B_TOKEN", 1, SCAN_GENERIC, "");
    expect("/srv/app/compose.yaml", "C_TOKEN", 4, SCAN_GENERIC, "");
    assert_null(find("/srv/app/notes.txt", "D_TOKEN"));
    expect("/srv/named.txt", "F_TOKEN", 1, SCAN_GENERIC, "");
    assert_null(find("/srv/app/link.env", "F_TOKEN"));
    skipped(SCAN_SKIP_LINK, 1);
    assert_int_equal(found.n, 4);
}

/* ---- no value in what comes back ---- */

static bool holds(const void *bytes, size_t len, const char *value)
{
    for (size_t i = 0; i + 6 <= strlen(value); i++) {
        if (memmem(bytes, len, value + i, 6)) {
            return true;
        }
    }
    return false;
}

static void clean_of(const char *value)
{
    assert_false(holds(found.list, found.cap * sizeof *found.list, value));
    for (size_t i = 0; i < found.n_texts; i++) {
        assert_false(holds(found.texts[i], strlen(found.texts[i]), value));
    }
}

static void test_no_value(void **state)
{
    (void)state;
    text("/etc/default/a",
         "A_TOKEN=" TOKEN "\nKEY=\"-----BEGIN PRIVATE KEY-----\n"
         "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg=\n" OTHER "=" TOKEN "\n");
    text("/etc/systemd/system/a.service",
         "[Service]\nEnvironmentFile=/etc/" OTHER "/x\n" OTHER "\nEnvironment=" OTHER "\n");
    text("/etc/systemd/system/b.service", "[Service]\nEnvironment=" OTHER "=" SHAPED "\n");
    run();
    assert_true(found.n >= 3);
    assert_non_null(find("/etc/systemd/system/b.service", "(withheld)"));
    clean_of(TOKEN);
    clean_of(OTHER);
    clean_of("MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg");
}

static void test_escape(void **state)
{
    (void)state;
    char shown[64], path[128];
    scan_escape(shown, sizeof shown, "/a\\b\n\x7f\xc3\xa9\xe2\x80\xae");
    assert_string_equal(shown, "/a\\x5cb\\x0a\\x7f\xc3\xa9\\xe2\\x80\\xae");
    snprintf(path, sizeof path, "/var/gh%s%s%s/x", "p_", TOKEN, OTHER);
    scan_escape(shown, sizeof shown, path);
    assert_string_equal(shown, "/var/(withheld)/x");
    char small[12];
    scan_escape(small, sizeof small, "/aaaaaaaaaaaaaaaaaaa");
    assert_string_equal(small, "/aaaaaaa...");
    scan_escape(shown, sizeof shown, "");
    assert_string_equal(shown, "");
}

static void test_merge(void **state)
{
    (void)state;
    struct scan_finding f = {.source = SCAN_SRC_ENVIRON, .kind = SCAN_OPENAI, .at = "", .pid = 7};
    f.path = scan_findings_text(&found, "/bin/a");
    f.unit = scan_findings_text(&found, "a.service");
    strcpy(f.name, "K");
    for (f.pid = 7; f.pid < 10; f.pid++) {
        scan_findings_add(&found, &f);
    }
    f.uid = 1; /* another user's is another */
    scan_findings_add(&found, &f);
    scan_findings_merge(&found);
    assert_int_equal(found.n, 2);
    assert_int_equal(found.list[0].pid, 7);
    assert_int_equal(found.list[0].more, 2);
    assert_int_equal(found.list[1].more, 0);
}

#define TREE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TREE(test_no_value),
        TREE(test_empty),
        TREE(test_not_there),
        TREE(test_units),
        TREE(test_order),
        TREE(test_homes),
        TREE(test_links),
        TREE(test_no_files),
        TREE(test_bytes),
        TREE(test_many),
        TREE(test_unreadable),
        TREE(test_paths),
        TREE(test_escape),
        TREE(test_merge),
        TREE(test_folders_without_end),
        TREE(test_dropins_without_end),
        TREE(test_keys_and_history),
        TREE(test_slow_home),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
