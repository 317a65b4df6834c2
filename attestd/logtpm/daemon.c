/* attest-issuerd-tpm: options, configuration, sandbox, signals. */
#include "attestd/logtpm/logtpm.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/base/log.h"
#include "attestd/conf/issuer_conf.h"
#include "attestd/proc/notify.h"

#include <errno.h>
#include <getopt.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PROGRAM        "attest-issuerd-tpm"
#define CONFIG_DEFAULT "/etc/attestd/issuer.yaml"
#define POLL_MS        5000
#define POLL_AWAY_MS   1000
#define END_S          10
#define SECURE_HEAP    ((size_t)64 << 10)

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };

struct command {
    const char *config, *reason;
    enum { DO_SERVE, DO_CHECK, DO_NEW_LOG, DO_NEW_COUNTER } act;
    struct proc_users clients;
};

struct parts {
    struct conf_issuer *conf;
    char socket[1100], device[1024], owner[1100]; /* owner: the password's file, or "" */
    struct logtpm *logtpm;
};

static void usage(FILE *to)
{
    fputs("usage: " PROGRAM " [--config FILE] [--client USER]... [--check]\n"
          "       " PROGRAM " [--config FILE] --new-log | --new-counter --reason TEXT\n"
          "Signs checkpoints of the issuer's audit log by a key in this machine's TPM, and counts\n"
          "them there, for attest-issuerd, on DIR/log.sock (issuer.yaml: log_tpm).\n"
          "  --config FILE  the issuer's configuration (" CONFIG_DEFAULT ")\n"
          "  --client USER  who may ask, beside root (default: the user that this runs as)\n"
          "  --check        read the configuration, say what is wrong in it, exit\n"
          "  --new-log      sign another log from now on, since the one before was ended\n"
          "  --new-counter  make the TPM's counter anew, since it was removed\n"
          "  --reason TEXT  why: it becomes part of the audit log\n"
          "  --help, --version\n"
          "The two acts are done while " PROGRAM " does not run, as its user.\n",
          to);
}

static enum att_rc load_config(const struct command *cmd, struct parts *parts, struct att_err *err)
{
    struct conf_errors *errors = calloc(1, sizeof *errors);
    if (!errors) {
        return att_fail(err, ATT_E_NOMEM, "configuration");
    }
    enum att_rc rc = conf_issuer_load(cmd->config, &parts->conf, errors, err);
    for (size_t i = 0; i < errors->n; i++) {
        att_autobuf line = {0};
        conf_error_text(&errors->v[i], cmd->config, &line);
        const char *text = att_buf_cstr(&line);
        fprintf(stderr, "%s\n", text ? text : "");
    }
    free(errors);
    if (!rc && !parts->conf->log_tpm) {
        rc = att_fail(err, ATT_E_NOTFOUND, "%s: no log_tpm section: no TPM is to sign the log",
                      cmd->config);
    }
    return rc;
}

/* ---- start
 * ----------------------------------------------------------------------------------------- */

/* A credential that is not there is none. */
static bool find_owner(struct parts *parts)
{
    const char *file = parts->conf->log_tpm->owner_password_file;
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    int len = 0;
    if (file) {
        len = snprintf(parts->owner, sizeof parts->owner, "%s", file);
    } else if (folder) {
        len = snprintf(parts->owner, sizeof parts->owner, "%s/" LOGTPM_CREDENTIAL, folder);
    }
    bool ok = len >= 0 && (size_t)len < sizeof parts->owner;
    if (ok && !file && parts->owner[0] && access(parts->owner, F_OK) != 0 && errno == ENOENT) {
        parts->owner[0] = 0;
    }
    return ok;
}

static enum att_rc find_paths(struct parts *parts, struct att_err *err)
{
    const struct conf_log_tpm *conf = parts->conf->log_tpm;
    int len = snprintf(parts->socket, sizeof parts->socket, "%s/log.sock", conf->dir);
    bool ok = len > 0 && (size_t)len < sizeof parts->socket && strlen(conf->tcti) < 1024;
    if (ok && strncmp(conf->tcti, "device:", 7) == 0) {
        snprintf(parts->device, sizeof parts->device, "%s", conf->tcti + 7);
    }
    ok = ok && find_owner(parts);
    return ok ? ATT_OK : att_fail(err, ATT_E_LIMIT, "log_tpm: too long a path");
}

/* run_dir is for all to enter; the socket's folder, which is in it as a rule, for the group. */
static enum att_rc make_socket_dir(const struct parts *parts, struct att_err *err)
{
    char above[1100];
    snprintf(above, sizeof above, "%.1000s", parts->conf->log_tpm->dir);
    char *slash = strrchr(above, '/');
    mode_t mask = umask(022);
    enum att_rc rc = ATT_OK;
    if (slash && slash != above) {
        *slash = 0;
        rc = att_io_mkdirs(above, 0755, err);
    }
    rc = rc ? rc : att_io_mkdirs(parts->conf->log_tpm->dir, 0750, err);
    umask(mask);
    return rc;
}

/* The profile is keyd's: a TPM, a folder, a socket, and nothing else. */
static enum att_rc enter_sandbox(const struct parts *parts, struct att_err *err)
{
    struct proc_sandbox_path list[5] = {{parts->conf->log_tpm->state_dir, PROC_PATH_WRITE},
                                        {parts->conf->log_tpm->dir, PROC_PATH_WRITE}};
    size_t n = 2;
    char folder[1100]; /* whoever changes the password replaces the file */
    if (parts->owner[0]) {
        snprintf(folder, sizeof folder, "%s", parts->owner);
        *strrchr(folder, '/') = 0;
        list[n++] = (struct proc_sandbox_path){folder[0] ? folder : "/", PROC_PATH_READ};
    }
    if (parts->device[0]) {
        list[n++] = (struct proc_sandbox_path){parts->device, PROC_PATH_DEVICE};
    }
    list[n] = (struct proc_sandbox_path){NULL, PROC_PATH_READ};
    const struct proc_sandbox_opts opts = {PROC_PROFILE_KEYD, list, true};
    struct proc_sandbox_report report;
    enum att_rc rc = proc_sandbox_enter(&opts, &report, err);
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "logtpm.sandbox", ATT_S("profile", report.profile),
                ATT_S("seccomp", report.seccomp), ATT_N("landlock", report.landlock_abi),
                ATT_S("reason", report.reason));
    }
    return rc;
}

static enum att_rc make(const struct command *cmd, struct parts *parts, struct att_err *err)
{
    const struct conf_log_tpm *conf = parts->conf->log_tpm;
    enum att_rc rc = find_paths(parts, err);
    if (!rc && cmd->act == DO_SERVE) {
        rc = make_socket_dir(parts, err);
    }
    const struct logtpm_opts opts = {.tcti = conf->tcti,
                                     .dir = conf->state_dir,
                                     .socket_path = cmd->act == DO_SERVE ? parts->socket : NULL,
                                     .owner_file = parts->owner[0] ? parts->owner : NULL,
                                     .counter = conf->counter_index,
                                     .counter_interval_s = conf->counter_interval_s,
                                     .clients = cmd->clients};
    rc = rc ? rc : logtpm_new(&opts, &parts->logtpm, err);
    return rc ? rc : enter_sandbox(parts, err);
}

/* ---- loop and end
 * ---------------------------------------------------------------------------------- */

static void loop(struct parts *parts, const sigset_t *signals)
{
    bool told = false;
    for (;;) {
        char status[256];
        logtpm_poll(parts->logtpm);
        logtpm_status(parts->logtpm, status, sizeof status);
        bool ready = logtpm_ready(parts->logtpm);
        if (!told) { /* the issuer waits for the TPM by itself */
            proc_notify_ready(status);
            told = true;
        }
        proc_notify_status(status);
        proc_notify_watchdog();
        int64_t pause = ready ? POLL_MS : POLL_AWAY_MS;
        const struct timespec wait = {pause / 1000, (pause % 1000) * 1000000};
        int got = sigtimedwait(signals, NULL, &wait);
        if (got == SIGTERM || got == SIGINT) {
            att_log(ATT_INFO, "logtpm.stopping", ATT_S("signal", got == SIGTERM ? "TERM" : "INT"));
            return;
        }
    }
}

/* Whatever is on the disk is whole at any instant, so an end without goodbye loses nothing. */
static void *end_at_last(void *arg)
{
    struct timespec left = {.tv_sec = END_S};
    (void)arg;
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
    att_log(ATT_ERROR, "logtpm.end-forced",
            ATT_S("message", "the TPM did not answer until the end"));
    _exit(EXIT_REFUSED);
}

static void finish(struct parts *parts)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, end_at_last, NULL) == 0) {
        pthread_detach(thread);
    }
    logtpm_free(parts->logtpm);
    conf_issuer_free(parts->conf);
}

static void prepare(sigset_t *signals)
{
    sigemptyset(signals);
    sigaddset(signals, SIGTERM);
    sigaddset(signals, SIGINT);
    sigaddset(signals, SIGHUP);            /* nothing of the configuration changes under way */
    sigprocmask(SIG_BLOCK, signals, NULL); /* before threads: they inherit it */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error like a full disk */
    /* Traces of TSS hold what goes to the TPM: whoever starts us does not turn them on. */
    (void)setenv("TSS2_LOG", "all+NONE", 1);
    umask(077);
    (void)!CRYPTO_secure_malloc_init(SECURE_HEAP, 32);
}

static int run(const struct command *cmd)
{
    struct parts parts = {0};
    struct att_err err = {0};
    sigset_t signals;
    if (load_config(cmd, &parts, &err) != ATT_OK) {
        fprintf(stderr, PROGRAM ": %s\n", err.msg);
        conf_issuer_free(parts.conf);
        return EXIT_REFUSED;
    }
    att_log_setup(PROGRAM, parts.conf->log_least, parts.conf->log_json);
    prepare(&signals);
    enum att_rc rc = make(cmd, &parts, &err);
    rc = rc ? rc : logtpm_start(parts.logtpm, &err);
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "logtpm.serving", ATT_S("socket", parts.socket));
        loop(&parts, &signals);
        proc_notify_stopping("stopping");
    } else {
        att_log_err(ATT_ERROR, "logtpm.start", &err);
    }
    finish(&parts);
    return rc == ATT_OK ? EXIT_SUCCESS : EXIT_REFUSED;
}

/* ---- what an operator does
 * ------------------------------------------------------------------------- */

/* What another user wrote here, the service could not read. */
static enum att_rc check_owner(const struct conf_log_tpm *conf, struct att_err *err)
{
    struct stat st;
    if (stat(conf->state_dir, &st) != 0) {
        return att_fail_errno(err, ATT_E_NOTFOUND, "%s", conf->state_dir);
    }
    return st.st_uid == geteuid()
               ? ATT_OK
               : att_fail(err, ATT_E_DENIED,
                          "%s belongs to user %u: run this as that user (runuser -u)",
                          conf->state_dir, (unsigned)st.st_uid);
}

static int act(const struct command *cmd)
{
    struct parts parts = {0};
    struct att_err err = {0};
    char said[500] = "";
    sigset_t signals;
    enum att_rc rc = load_config(cmd, &parts, &err);
    rc = rc ? rc : check_owner(parts.conf->log_tpm, &err);
    att_log_setup(PROGRAM, ATT_WARN, false);
    if (rc == ATT_OK) {
        prepare(&signals);
        sigprocmask(SIG_UNBLOCK, &signals, NULL);
        rc = make(cmd, &parts, &err);
    }
    if (rc == ATT_OK) {
        rc = cmd->act == DO_NEW_LOG
                 ? logtpm_new_log(parts.logtpm, cmd->reason, said, sizeof said, &err)
                 : logtpm_new_counter(parts.logtpm, cmd->reason, said, sizeof said, &err);
    }
    if (rc == ATT_OK) {
        printf("%s\n", said);
    } else {
        fprintf(stderr, PROGRAM ": %s%s%s%s\n", err.msg, err.reason[0] ? " (" : "", err.reason,
                err.reason[0] ? ")" : "");
    }
    finish(&parts);
    return rc == ATT_OK ? EXIT_SUCCESS : EXIT_REFUSED;
}

static int check_config(const struct command *cmd)
{
    struct parts parts = {0};
    struct att_err err = {0};
    enum att_rc rc = load_config(cmd, &parts, &err);
    fprintf(rc == ATT_OK ? stdout : stderr, "%s: %s\n", cmd->config, rc == ATT_OK ? "ok" : err.msg);
    conf_issuer_free(parts.conf);
    return rc == ATT_OK ? EXIT_SUCCESS : EXIT_REFUSED;
}

/* ---- options
 * --------------------------------------------------------------------------------------- */

/* -1: go on; else the exit code. */
static int take_option(struct command *cmd, int option)
{
    struct att_err err = {0};
    switch (option) {
    case 'c':
        cmd->config = optarg;
        return -1;
    case 'u':
        if (proc_users_add(&cmd->clients, optarg, &err) != ATT_OK) {
            fprintf(stderr, PROGRAM ": --client: %s\n", err.msg);
            return EXIT_REFUSED;
        }
        return -1;
    case 'r':
        cmd->reason = optarg;
        return -1;
    case 'k':
    case 'l':
    case 'n':
        if (cmd->act != DO_SERVE) {
            usage(stderr);
            return EXIT_USAGE;
        }
        cmd->act = option == 'k' ? DO_CHECK : option == 'l' ? DO_NEW_LOG : DO_NEW_COUNTER;
        return -1;
    case 'h':
        usage(stdout);
        return EXIT_SUCCESS;
    case 'v':
        puts(PROGRAM " " ATT_VERSION);
        return EXIT_SUCCESS;
    default:
        usage(stderr);
        return EXIT_USAGE;
    }
}

int logtpm_main(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"client", required_argument, NULL, 'u'},
                                            {"reason", required_argument, NULL, 'r'},
                                            {"check", no_argument, NULL, 'k'},
                                            {"new-log", no_argument, NULL, 'l'},
                                            {"new-counter", no_argument, NULL, 'n'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'v'},
                                            {NULL, 0, NULL, 0}};
    struct command cmd = {.config = CONFIG_DEFAULT};
    for (int got; (got = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        int code = take_option(&cmd, got);
        if (code >= 0) {
            return code;
        }
    }
    bool acts = cmd.act == DO_NEW_LOG || cmd.act == DO_NEW_COUNTER;
    if (optind != argc || acts != (cmd.reason != NULL)) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (cmd.clients.count == 0) {
        cmd.clients = (struct proc_users){{geteuid()}, 1};
    }
    return cmd.act == DO_CHECK ? check_config(&cmd) : acts ? act(&cmd) : run(&cmd);
}
