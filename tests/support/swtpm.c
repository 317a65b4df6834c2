#include "tests/support/swtpm.h"

#include "attestd/base/buf.h"
#include "attestd/base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

bool swtpm_available(void)
{
    static const char *const paths[] = {"/usr/bin/swtpm", "/usr/bin/swtpm_setup",
                                        "/usr/bin/swtpm_localca"};
    for (size_t i = 0; i < 3; i++) {
        if (access(paths[i], X_OK) != 0) {
            return false;
        }
    }
    return true;
}

/* ---- running programs ----------------------------------------------------------------------- */

static void child_io(const char *log)
{
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    int out = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (in < 0 || out < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) {
        _exit(126);
    }
}

static pid_t spawn(const struct swtpm *tpm, const char *log, const char *const argv[])
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid != 0) {
        return pid;
    }
    /* A test that crashes leaves nothing running. */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || chdir(tpm->dir) != 0) {
        _exit(126);
    }
    child_io(log);
    (void)setenv("TPM2TOOLS_TCTI", tpm->tcti, 1);
    (void)setenv("LC_ALL", "C", 1);
    (void)unsetenv("TSS2_LOG");
    char *args[32];
    size_t n = 0;
    for (; argv[n] && n < 31; n++) {
        args[n] = strdup(argv[n]);
    }
    args[n] = NULL;
    execvp(args[0], args);
    _exit(127);
}

static int wait_for(pid_t pid)
{
    int status = 0;
    if (pid < 0) {
        return 126;
    }
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return 126;
        }
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int run(const struct swtpm *tpm, const char *const argv[])
{
    char log[SWTPM_PATH + 16];
    (void)snprintf(log, sizeof(log), "%s/tool.out", tpm->dir);
    int status = wait_for(spawn(tpm, log, argv));
    if (status != 0) {
        att_autobuf text = {0};
        if (att_io_read_file(log, 65536, &text, NULL) == ATT_OK) {
            (void)fprintf(stderr, "%s: exit %d\n%.*s", argv[0], status, (int)text.len,
                          (const char *)text.ptr);
        }
    }
    return status;
}

int swtpm_tool(const struct swtpm *tpm, const char *const argv[])
{
    return run(tpm, argv);
}

int swtpm_sh(const struct swtpm *tpm, const char *command)
{
    return run(tpm, (const char *const[]){"sh", "-ec", command, NULL});
}

/* ---- making -----------------------------------------------------------------------------------
 */

static enum att_rc write_text(const struct swtpm *tpm, const char *name, const struct att_buf *text,
                              struct att_err *err)
{
    char path[SWTPM_PATH + 32];
    (void)snprintf(path, sizeof(path), "%s/%s", tpm->dir, name);
    enum att_rc rc = att_buf_ok(text, err);
    return rc == ATT_OK ? att_io_write_file(path, att_buf_slice(text), 0600, err) : rc;
}

static enum att_rc write_configs(const struct swtpm *tpm, struct att_err *err)
{
    const char *d = tpm->dir;
    att_autobuf ca = {0}, ca_options = {0}, setup = {0};
    att_buf_printf(&ca,
                   "statedir = %s/ca\nsigningkey = %s/ca/signkey.pem\n"
                   "issuercert = %s/ca/issuercert.pem\ncertserial = %s/ca/certserial\n",
                   d, d, d, d);
    att_buf_put_str(&ca_options, "--platform-manufacturer attestd\n--platform-version 1\n"
                                 "--platform-model swtpm\n");
    att_buf_printf(&setup,
                   "create_certs_tool = /usr/bin/swtpm_localca\n"
                   "create_certs_tool_config = %s/localca.conf\n"
                   "create_certs_tool_options = %s/localca.options\n"
                   "active_pcr_banks = sha256\n",
                   d, d);
    enum att_rc rc = write_text(tpm, "localca.conf", &ca, err);
    if (rc == ATT_OK) {
        rc = write_text(tpm, "localca.options", &ca_options, err);
    }
    return rc == ATT_OK ? write_text(tpm, "setup.conf", &setup, err) : rc;
}

static enum att_rc write_roots(const struct swtpm *tpm, struct att_err *err)
{
    att_autobuf pem = {0};
    enum att_rc rc = att_io_read_file(tpm->issuer_ca, 65536, &pem, err);
    if (rc == ATT_OK) {
        rc = att_io_read_file(tpm->root_ca, 65536, &pem, err);
    }
    return rc == ATT_OK ? att_io_write_file(tpm->ek_roots, att_buf_slice(&pem), 0600, err) : rc;
}

static enum att_rc manufacture(const struct swtpm *tpm, const struct swtpm_options *options,
                               struct att_err *err)
{
    char state[SWTPM_PATH + 16], config[SWTPM_PATH + 16];
    (void)snprintf(state, sizeof(state), "%s/state", tpm->dir);
    (void)snprintf(config, sizeof(config), "%s/setup.conf", tpm->dir);
    const char *argv[16] = {"swtpm_setup", "--tpm2",
                            "--tpm-state", state,
                            "--config",    config,
                            "--pcr-banks", options->pcr_banks ? options->pcr_banks : "sha256",
                            "--createek",  "--lock-nvram"};
    if (!options->no_ek_cert) {
        argv[10] = "--create-ek-cert";
        argv[11] = "--create-platform-cert";
    }
    if (run(tpm, argv) != 0) {
        return att_fail(err, ATT_E_IO, "swtpm_setup failed in %s", tpm->dir);
    }
    return options->no_ek_cert ? ATT_OK : write_roots(tpm, err);
}

/* Does somebody listen at this path? Looked up, not tried out: swtpm serves one client at a time
 * and turns the next one away while it still has the probe. Flag 0x10000 is __SO_ACCEPTCON. */
static bool listens(const char *table, const char *path)
{
    size_t len = strlen(path);
    for (const char *at = strstr(table, path); at; at = strstr(at + 1, path)) {
        const char *line = at;
        while (line > table && line[-1] != '\n') {
            line--;
        }
        if ((at[len] == '\n' || at[len] == '\0') && strstr(line, " 00010000 ") &&
            strstr(line, " 00010000 ") < at) {
            return true;
        }
    }
    return false;
}

static bool ready(const struct swtpm *tpm)
{
    char data[SWTPM_PATH + 16], ctrl[SWTPM_PATH + 16];
    att_autobuf table = {0};
    (void)snprintf(data, sizeof(data), "%s/sock", tpm->dir);
    (void)snprintf(ctrl, sizeof(ctrl), "%s/sock.ctrl", tpm->dir);
    const char *text = att_io_read_file("/proc/net/unix", (size_t)4 << 20, &table, NULL) == ATT_OK
                           ? att_buf_cstr(&table)
                           : NULL;
    return text && listens(text, data) && listens(text, ctrl);
}

static enum att_rc wait_socket(struct swtpm *tpm, struct att_err *err)
{
    for (int n = 0; n < 2000; n++) {
        struct timespec pause = {.tv_nsec = 5000000};
        if (ready(tpm)) {
            return ATT_OK;
        }
        if (waitpid(tpm->pid, NULL, WNOHANG) == tpm->pid) {
            tpm->pid = 0;
            return att_fail(err, ATT_E_IO, "swtpm exited at once: see %s/swtpm.log", tpm->dir);
        }
        (void)nanosleep(&pause, NULL);
    }
    return att_fail(err, ATT_E_TIMEOUT, "swtpm opened no sockets in %s", tpm->dir);
}

enum att_rc swtpm_start(struct swtpm *tpm, bool no_startup, struct att_err *err)
{
    char log[SWTPM_PATH + 16], server[SWTPM_PATH + 32], ctrl[SWTPM_PATH + 40],
        state[SWTPM_PATH + 16];
    (void)snprintf(log, sizeof(log), "%s/swtpm.log", tpm->dir);
    (void)snprintf(server, sizeof(server), "type=unixio,path=%s/sock", tpm->dir);
    (void)snprintf(ctrl, sizeof(ctrl), "type=unixio,path=%s/sock.ctrl", tpm->dir);
    (void)snprintf(state, sizeof(state), "dir=%s/state", tpm->dir);
    const char *const argv[] = {
        "swtpm",      "socket",  "--tpm2",
        "--server",   server,    "--ctrl",
        ctrl,         "--flags", no_startup ? "not-need-init" : "not-need-init,startup-clear",
        "--tpmstate", state,     NULL};
    tpm->pid = spawn(tpm, log, argv);
    if (tpm->pid < 0) {
        tpm->pid = 0;
        return att_fail_errno(err, ATT_E_IO, "starting swtpm");
    }
    return wait_socket(tpm, err);
}

void swtpm_stop(struct swtpm *tpm)
{
    char path[SWTPM_PATH + 16];
    if (tpm->pid <= 0) {
        return;
    }
    (void)kill(tpm->pid, SIGKILL);
    (void)wait_for(tpm->pid);
    tpm->pid = 0;
    (void)snprintf(path, sizeof(path), "%s/sock", tpm->dir);
    (void)unlink(path);
    (void)snprintf(path, sizeof(path), "%s/sock.ctrl", tpm->dir);
    (void)unlink(path);
}

enum att_rc swtpm_reset(struct swtpm *tpm, struct att_err *err)
{
    swtpm_stop(tpm);
    return swtpm_start(tpm, false, err);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

void swtpm_done(struct swtpm *tpm)
{
    swtpm_stop(tpm);
    if (tpm->dir[0] == '/') {
        (void)nftw(tpm->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    }
    *tpm = (struct swtpm){0};
}

enum att_rc swtpm_new(struct swtpm *ret_tpm, const struct swtpm_options *options,
                      struct att_err *err)
{
    static const struct swtpm_options defaults;
    struct swtpm tpm = {0};
    const char *tmp = getenv("TMPDIR");
    char path[SWTPM_PATH + 16];
    options = options ? options : &defaults;
    /* A socket's path has at most 107 bytes. */
    if (!tmp || tmp[0] != '/' || strlen(tmp) > 70) {
        tmp = "/tmp";
    }
    (void)snprintf(tpm.dir, sizeof(tpm.dir), "%s/att-swtpm-XXXXXX", tmp);
    if (!mkdtemp(tpm.dir)) {
        return att_fail_errno(err, ATT_E_IO, "making %s", tpm.dir);
    }
    (void)snprintf(tpm.tcti, sizeof(tpm.tcti), "swtpm:path=%s/sock", tpm.dir);
    (void)snprintf(tpm.root_ca, sizeof(tpm.root_ca), "%s/ca/swtpm-localca-rootca-cert.pem",
                   tpm.dir);
    (void)snprintf(tpm.issuer_ca, sizeof(tpm.issuer_ca), "%s/ca/issuercert.pem", tpm.dir);
    (void)snprintf(tpm.issuer_ca_key, sizeof(tpm.issuer_ca_key), "%s/ca/signkey.pem", tpm.dir);
    (void)snprintf(tpm.ek_roots, sizeof(tpm.ek_roots), "%s/ek-roots.pem", tpm.dir);
    (void)snprintf(path, sizeof(path), "%s/state", tpm.dir);
    enum att_rc rc = att_io_mkdirs(path, 0700, err);
    if (rc == ATT_OK) {
        (void)snprintf(path, sizeof(path), "%s/ca", tpm.dir);
        rc = att_io_mkdirs(path, 0700, err);
    }
    if (rc == ATT_OK) {
        rc = write_configs(&tpm, err);
    }
    if (rc == ATT_OK) {
        rc = manufacture(&tpm, options, err);
    }
    if (rc == ATT_OK) {
        rc = swtpm_start(&tpm, options->no_startup, err);
    }
    if (rc != ATT_OK) {
        swtpm_done(&tpm);
        return rc;
    }
    *ret_tpm = tpm;
    return ATT_OK;
}
