/* What attestd may reach from inside its sandbox, and which chains it leaves in place when it
 * starts. */
#include "attestd/base/io.h"
#include "attestd/host/internal.h"
#include "certs/build.h"
#include "certs/install.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct rig {
    char base[64];
    struct host host;
    struct host_options opts;
    struct conf_attestd *conf;
    char conf_path[128];
};

static void path_in(const struct rig *r, const char *name, char ret[256])
{
    int len = snprintf(ret, 256, "%s/%s", r->base, name);
    assert_in_range(len, 1, 255);
}

static void put_file(const struct rig *r, const char *name, const char *text)
{
    char path[256];
    path_in(r, name, path);
    assert_int_equal(att_io_write_file(path, att_slice_str(text), 0600, NULL), ATT_OK);
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    struct att_err err = {0};
    char path[256];
    att_autobuf text = {0};
    snprintf(r->base, sizeof(r->base), "/tmp/att-start.XXXXXX");
    assert_non_null(mkdtemp(r->base));
    path_in(r, "etc", path);
    assert_int_equal(att_io_mkdirs(path, 0755, NULL), ATT_OK);
    path_in(r, "state/keyd", path);
    assert_int_equal(att_io_mkdirs(path, 0755, NULL), ATT_OK);
    path_in(r, "run", path);
    assert_int_equal(att_io_mkdirs(path, 0755, NULL), ATT_OK);
    put_file(r, "state/keyd/issuer.json", "{}");
    att_buf_printf(&text,
                   "issuer: { url: \"https://127.0.0.1:1/acme\", ca_file: %s/etc/ca.pem }\n"
                   "tpm: { tcti: \"swtpm:path=/nonexistent\" }\nstate_dir: %s/state\n"
                   "run_dir: %s/run\n",
                   r->base, r->base, r->base);
    put_file(r, "etc/attestd.yaml", att_buf_cstr(&text));
    snprintf(r->conf_path, sizeof(r->conf_path), "%s/etc/attestd.yaml", r->base);
    r->opts.conf_path = r->conf_path;
    assert_int_equal(host_conf_load(&r->opts, &r->conf, &err), ATT_OK);
    r->host.opts = &r->opts;
    r->host.conf = r->conf;
    pthread_mutex_init(&r->host.lock, NULL);
    for (int i = 0; i < HOST_SAVE_LOCKS; i++) {
        pthread_mutex_init(&r->host.save_locks[i], NULL);
    }
    assert_int_equal(host_paths_init(&r->host.paths, r->conf, &err), ATT_OK);
    assert_int_equal(host_paths_make(&r->host.paths, &err), ATT_OK);
    assert_int_equal(agent_registry_new(&r->host.reg, &err), ATT_OK);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    char command[128];
    agent_registry_free(r->host.reg);
    host_paths_done(&r->host.paths);
    conf_attestd_free(r->conf);
    snprintf(command, sizeof(command), "rm -rf '%s'", r->base);
    int rc = system(command);
    free(r);
    return rc;
}

/* ---- sandbox -----------------------------------------------------------------------------------
 */

static bool refused(const struct rig *r, const char *name, int flags)
{
    char path[256];
    path_in(r, name, path);
    int fd = open(path, flags | O_CLOEXEC, 0600);
    if (fd >= 0) {
        close(fd);
        return false;
    }
    return errno == EACCES;
}

static int inside(struct rig *r)
{
    struct att_err err = {0};
    if (host_sandbox_enter(&r->host, &err) != ATT_OK) {
        fprintf(stderr, "  %s\n", err.msg);
        return 1;
    }
    /* keyd's folder, in the same state_dir, by the same user. */
    if (!refused(r, "state/keyd/issuer.json", O_RDONLY) ||
        !refused(r, "state/keyd/issuer.json", O_WRONLY) ||
        !refused(r, "state/keyd/new", O_WRONLY | O_CREAT) || !refused(r, "state", O_RDONLY)) {
        return 2;
    }
    char keyd[256], moved[256];
    path_in(r, "state/keyd/issuer.json", keyd);
    path_in(r, "state/host/stolen", moved);
    if (rename(keyd, moved) == 0 || unlink(keyd) == 0) {
        return 3;
    }
    if (refused(r, "state/host/new", O_WRONLY | O_CREAT) ||
        refused(r, "run/new", O_WRONLY | O_CREAT)) {
        return 4;
    }
    return 0;
}

/* An editor and att_io_write_file() replace a file: the name stays, the inode does not. */
static int reloads(struct rig *r, int go)
{
    char byte;
    struct att_err err = {0};
    struct conf_attestd *conf = NULL;
    if (host_sandbox_enter(&r->host, NULL) != ATT_OK || read(go, &byte, 1) != 1) {
        return 1;
    }
    if (host_conf_load(&r->opts, &conf, &err) != ATT_OK) {
        fprintf(stderr, "  %s\n", err.msg);
        return 2;
    }
    bool fresh = conf->log_json;
    conf_attestd_free(conf);
    return fresh && !refused(r, "etc/ca.pem", O_RDONLY) ? 0 : 3;
}

static bool have_landlock(void)
{
    return syscall(444, NULL, (size_t)0, 1u) > 0;
}

static void test_sandbox_keeps_keyds_folder_out_of_reach(void **state)
{
    struct rig *r = *state;
    if (!have_landlock()) {
        skip();
    }
    pid_t pid = fork();
    if (pid == 0) {
        _exit(inside(r));
    }
    int status = 0;
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_replaced_configuration_is_still_read(void **state)
{
    struct rig *r = *state;
    int go[2];
    att_autobuf text = {0};
    put_file(r, "etc/ca.pem", "old");
    assert_int_equal(pipe(go), 0);
    pid_t pid = fork();
    if (pid == 0) {
        _exit(reloads(r, go[0]));
    }
    usleep(300000); /* it has entered */
    assert_int_equal(att_io_read_file(r->conf_path, 65536, &text, NULL), ATT_OK);
    att_buf_put_str(&text, "log: json\n");
    put_file(r, "etc/attestd.yaml", att_buf_cstr(&text));
    put_file(r, "etc/ca.pem", "new");
    assert_int_equal(write(go[1], "x", 1), 1);
    int status = 0;
    waitpid(pid, &status, 0);
    close(go[0]);
    close(go[1]);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- chains ------------------------------------------------------------------------------------
 */

static void install(struct rig *r, const char *name)
{
    att_autobuf spki = {0}, tbs = {0}, der = {0}, pem = {0};
    uint8_t digest[ATT_SHA256_LEN];
    unsigned char *bytes = NULL;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    int len = i2d_PUBKEY(key, &bytes);
    att_buf_put(&spki, bytes, (size_t)len);
    OPENSSL_free(bytes);
    struct certs_ca_spec spec = {.validity = certs_validity_from(att_now_utc_s(), 3600),
                                 .spki = att_buf_slice(&spki),
                                 .common_name = "any certificate"};
    certs_autox509 *cert = NULL;
    assert_int_equal(certs_serial_new(spec.serial, NULL), ATT_OK);
    assert_int_equal(certs_root_tbs(&spec, &tbs, digest, NULL), ATT_OK);
    assert_int_equal(certs_tbs_sign(att_buf_slice(&tbs), key, &der, NULL), ATT_OK);
    assert_int_equal(certs_cert_parse(att_buf_slice(&der), &cert, NULL), ATT_OK);
    assert_int_equal(certs_pem_dump(cert, &pem, NULL), ATT_OK);
    assert_int_equal(
        certs_install(r->host.paths.agents, name, att_buf_slice(&pem), "pkcs11:id=%00", NULL),
        ATT_OK);
    EVP_PKEY_free(key);
}

static bool installed(struct rig *r, const char *name)
{
    att_autobuf pem = {0}, uri = {0};
    return certs_install_load(r->host.paths.agents, name, &pem, &uri, NULL) == ATT_OK;
}

static bool kept(struct rig *r, const char *name)
{
    char file[128], path[256];
    snprintf(file, sizeof(file), "state/host/withdrawn/%s.pem", name);
    path_in(r, file, path);
    return access(path, F_OK) == 0;
}

static void save(struct rig *r, const char *name, enum agent_state life)
{
    struct agent_record rec = {.key_store = "tpm", .profile = "p", .lifetime_s = 3600};
    struct att_err err = {0};
    snprintf(rec.name, sizeof(rec.name), "%s", name);
    snprintf(rec.spiffe_id, sizeof(rec.spiffe_id), "spiffe://bank.example/agent/%s", name);
    rec.life.state = life;
    if (life == AGENT_VALID) {
        snprintf(rec.key_id, sizeof(rec.key_id), "%032d", 1);
        snprintf(rec.serial, sizeof(rec.serial), "01");
        rec.issued = 1;
        rec.dates = (struct agent_dates){.not_before = att_now_utc_s() - 60,
                                         .not_after = att_now_utc_s() + 3540,
                                         .renew_at = att_now_utc_s() + 1700,
                                         .installed_at = att_now_utc_s(),
                                         .installed_boot_ms = att_boottime_ms()};
    }
    enum att_rc rc = agent_record_save(r->host.paths.records, &rec, &err);
    if (rc != ATT_OK) {
        fprintf(stderr, "  %s\n", err.msg);
    }
    assert_int_equal(rc, ATT_OK);
}

static void test_chain_without_a_record_is_withdrawn(void **state)
{
    struct rig *r = *state;
    struct att_err err = {0};
    install(r, "good");
    save(r, "good", AGENT_VALID);
    install(r, "damaged"); /* its key is an orphan to keyd, and goes */
    put_file(r, "state/host/records/damaged.json", "{\"version\":1}");
    install(r, "stranger");
    install(r, "beginner"); /* killed between installing and writing that down */
    save(r, "beginner", AGENT_ABSENT);
    assert_int_equal(host_agents_load(&r->host, &err), ATT_OK);
    assert_true(installed(r, "good"));
    assert_false(installed(r, "damaged"));
    assert_false(installed(r, "stranger"));
    assert_false(installed(r, "beginner"));
    assert_true(kept(r, "damaged"));
    assert_true(kept(r, "stranger"));
    assert_false(kept(r, "good"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sandbox_keeps_keyds_folder_out_of_reach, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_replaced_configuration_is_still_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chain_without_a_record_is_withdrawn, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
