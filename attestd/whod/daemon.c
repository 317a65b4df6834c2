/* attestd-whod: options, configuration, privileges, sandbox, signals. */
#include "attestd/whod/whod.h"

#include "attestd/base/io.h"
#include "attestd/base/log.h"
#include "attestd/conf/conf.h"
#include "attestd/proc/notify.h"
#include "attestd/proc/sandbox.h"

#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CONFIG_DEFAULT   "/etc/attestd/attestd.yaml"
#define STATUS_PERIOD_MS 10000

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };

struct command {
    const char *config;
    const char *run_dir; /* NULL: the file's */
    bool check;
    struct proc_users clients;
};

static void usage(FILE *to)
{
    fputs("usage: attestd-whod [--config FILE] [--run-dir DIR] [--client USER]... [--check]\n"
          "Tells attestd and tokend which process is calling, on RUN_DIR/whod.sock.\n"
          "  --config FILE  configuration, shared with attestd (" CONFIG_DEFAULT ")\n"
          "  --run-dir DIR  in place of the configuration's run_dir\n"
          "  --client USER  this user (name or number) may ask, beside root; may be given several\n"
          "                 times; without it our own user may\n"
          "  --check        read the configuration, say what is wrong in it, exit\n"
          "  --help, --version\n",
          to);
}

static enum att_rc load_config(const struct command *cmd, struct conf_attestd **ret,
                               struct att_err *err)
{
    struct conf_errors *errors = calloc(1, sizeof *errors);
    if (!errors) {
        return att_fail(err, ATT_E_NOMEM, "configuration");
    }
    struct conf_attestd *conf = NULL;
    enum att_rc rc = conf_attestd_load(cmd->config, &conf, errors, err);
    for (size_t i = 0; i < errors->n; i++) {
        att_autobuf line = {0};
        conf_error_text(&errors->v[i], cmd->config, &line);
        const char *text = att_buf_cstr(&line);
        fprintf(stderr, "%s\n", text ? text : "");
    }
    free(errors);
    if (rc == ATT_OK && cmd->run_dir) {
        rc = conf_path_set(&conf->run_dir, cmd->run_dir, err);
    }
    if (rc != ATT_OK) {
        conf_attestd_free(conf);
        return rc;
    }
    *ret = conf;
    return ATT_OK;
}

/* ---- start and loop ------------------------------------------------------------------------ */

static enum att_rc drop_privileges(struct att_err *err)
{
    bool ptrace = false, reads = false;
    enum att_rc rc = whod_caps_drop(&ptrace, &reads, err);
    if (rc == ATT_OK && !(ptrace && reads)) {
        att_log(ATT_WARN, "whod.privileges", ATT_S("CAP_SYS_PTRACE", ptrace ? "yes" : "no"),
                ATT_S("CAP_DAC_READ_SEARCH", reads ? "yes" : "no"),
                ATT_S("message", "only processes of our own user can be told"));
    }
    return rc;
}

static enum att_rc enter_sandbox(struct att_err *err)
{
    const struct proc_sandbox_opts opts = {.profile = PROC_PROFILE_WHOD};
    struct proc_sandbox_report report;
    enum att_rc rc = proc_sandbox_enter(&opts, &report, err);
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "whod.sandbox", ATT_S("profile", report.profile),
                ATT_S("seccomp", report.seccomp), ATT_S("reason", report.reason));
    }
    return rc;
}

static enum att_rc start(const struct command *cmd, const struct conf_attestd *conf,
                         struct whod **ret_whod, struct att_err *err)
{
    char socket_path[1100];
    struct whod *whod = NULL;
    snprintf(socket_path, sizeof socket_path, "%s/whod.sock", conf->run_dir);
    mode_t mask = umask(022);
    enum att_rc rc = att_io_mkdirs(conf->run_dir, 0755, err);
    umask(mask);
    if (rc == ATT_OK) {
        const struct whod_opts opts = {socket_path, cmd->clients};
        rc = whod_new(&opts, &whod, err);
    }
    if (rc == ATT_OK) {
        rc = drop_privileges(err);
    }
    if (rc == ATT_OK) {
        rc = enter_sandbox(err);
    }
    if (rc == ATT_OK) {
        rc = whod_start(whod, err);
    }
    if (rc != ATT_OK) {
        whod_free(whod);
        return rc;
    }
    att_log(ATT_INFO, "whod.ready", ATT_S("socket", socket_path));
    *ret_whod = whod;
    return ATT_OK;
}

static void loop(struct whod *whod, const sigset_t *signals)
{
    int64_t period = proc_notify_watchdog_period_ms();
    period = period > 0 && period < STATUS_PERIOD_MS ? period : STATUS_PERIOD_MS;
    const struct timespec wait = {period / 1000, (period % 1000) * 1000000};
    for (;;) {
        char status[200];
        whod_status(whod, status, sizeof status);
        proc_notify_status(status);
        proc_notify_watchdog();
        int got = sigtimedwait(signals, NULL, &wait);
        if (got == SIGTERM || got == SIGINT) {
            att_log(ATT_INFO, "whod.stopping", ATT_S("signal", got == SIGTERM ? "TERM" : "INT"),
                    ATT_S("status", status));
            return;
        }
    }
}

static int run(const struct command *cmd)
{
    struct conf_attestd *conf = NULL;
    struct whod *whod = NULL;
    struct att_err err = {0};
    sigset_t signals;
    if (load_config(cmd, &conf, &err) != ATT_OK) {
        fprintf(stderr, "attestd-whod: %s\n", err.msg);
        return EXIT_REFUSED;
    }
    att_log_setup("attestd-whod", conf->log_least, conf->log_json);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP); /* nothing of its configuration can change: let it pass */
    sigprocmask(SIG_BLOCK, &signals, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error like a full disk */
    umask(077);
    enum att_rc rc = start(cmd, conf, &whod, &err);
    conf_attestd_free(conf);
    if (rc != ATT_OK) {
        att_log_err(ATT_ERROR, "whod.start", &err);
        return EXIT_REFUSED;
    }
    proc_notify_ready("ready");
    loop(whod, &signals);
    proc_notify_stopping("stopping");
    whod_free(whod);
    return EXIT_SUCCESS;
}

static int check_config(const struct command *cmd)
{
    struct conf_attestd *conf = NULL;
    struct att_err err = {0};
    enum att_rc rc = load_config(cmd, &conf, &err);
    conf_attestd_free(conf);
    fprintf(rc == ATT_OK ? stdout : stderr, "%s: %s\n", cmd->config, rc == ATT_OK ? "ok" : err.msg);
    return rc == ATT_OK ? EXIT_SUCCESS : EXIT_REFUSED;
}

/* -1: go on; else the exit code. */
static int take_option(struct command *cmd, int option)
{
    struct att_err err = {0};
    switch (option) {
    case 'c':
        cmd->config = optarg;
        return -1;
    case 'r':
        cmd->run_dir = optarg;
        return -1;
    case 'u':
        if (proc_users_add(&cmd->clients, optarg, &err) != ATT_OK) {
            fprintf(stderr, "attestd-whod: --client: %s\n", err.msg);
            return EXIT_REFUSED;
        }
        return -1;
    case 'k':
        cmd->check = true;
        return -1;
    case 'h':
        usage(stdout);
        return EXIT_SUCCESS;
    case 'v':
        puts("attestd-whod " ATT_VERSION);
        return EXIT_SUCCESS;
    default:
        usage(stderr);
        return EXIT_USAGE;
    }
}

int whod_main(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"run-dir", required_argument, NULL, 'r'},
                                            {"client", required_argument, NULL, 'u'},
                                            {"check", no_argument, NULL, 'k'},
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
    if (optind != argc) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (cmd.clients.count == 0) {
        cmd.clients = (struct proc_users){{geteuid()}, 1};
    }
    return cmd.check ? check_config(&cmd) : run(&cmd);
}
