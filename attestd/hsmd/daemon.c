/* attestd-hsmd: options, configuration, PIN, sandbox, module, signals. */
#include "attestd/hsmd/hsmd.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/base/log.h"
#include "attestd/conf/conf.h"
#include "attestd/conf/issuer_conf.h"
#include "attestd/conf/p11uri.h"
#include "attestd/proc/notify.h"

#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CONFIG_DEFAULT        "/etc/attestd/attestd.yaml"
#define CONFIG_DEFAULT_ISSUER "/etc/attestd/issuer.yaml"
#define POLL_MS               5000 /* the token is looked after */
#define POLL_AWAY_MS          1000
#define WAIT_MS               20000 /* below keyd's patience, so that it hears why */
#define END_S                 10    /* a module that does not answer is not waited for */

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };

struct command {
    const char *config; /* NULL: the default */
    const char *module;
    bool issuer; /* config is issuer.yaml: the token holds authorities' keys */
    bool check;
    struct proc_users clients;
};

/* Everything that lasts until the end; never freed, since the process leaves by _exit(). */
struct parts {
    const struct conf_attestd_hsm *module; /* the one that this process is for */
    const void *whole;                     /* the configuration of which it is a part */
    const char *run_dir;
    bool issuer;
    const char *hsm_dir; /* of the issuer's socket; NULL: run_dir/hsm */
    enum att_log_level log_least;
    bool log_json;
    struct conf_p11uri uri;
    char socket_dir[1024], socket[1100], mark_path[1100], module_dir[1024];
    struct att_secret pin;
    struct hsmd_mark mark;
    struct hsmd *hsmd;
    struct hsm *hsm;
    int64_t loading_since_ms;
    atomic_bool loaded; /* hsmd_stuck knows from here on */
};

static void usage(FILE *to)
{
    fputs("usage: attestd-hsmd [--issuer] [--config FILE] [--module NAME] [--client USER]...\n"
          "                    [--check]\n"
          "Runs one PKCS#11 module of the configuration, and serves attestd-keyd the keys of its\n"
          "token on RUN_DIR/hsm/NAME/hsm.sock (with --issuer: attest-issuerd, on\n"
          "RUN_DIR/hsm/hsm.sock). A process each for several modules.\n"
          "  --issuer       the configuration is the issuer's (" CONFIG_DEFAULT_ISSUER "); its\n"
          "                 section hsm is the one module\n"
          "  --config FILE  configuration, shared with attestd (" CONFIG_DEFAULT ")\n"
          "  --module NAME  which of hsms (" CONF_HSM_DEFAULT ": as the section hsm is called)\n"
          "  --client USER  who may ask, beside root: keyd's user, or the issuer's (default:\n"
          "                 the user that attestd-hsmd runs as)\n"
          "  --check        read the configuration, say what is wrong in it, exit\n"
          "  --help, --version\n",
          to);
}

static const char *config_of(const struct command *cmd)
{
    return cmd->config ? cmd->config : cmd->issuer ? CONFIG_DEFAULT_ISSUER : CONFIG_DEFAULT;
}

static enum att_rc no_module(const struct command *cmd, const struct conf_attestd *conf,
                             struct att_err *err)
{
    char names[CONF_HSMS_MAX * (CONF_HSM_NAME_MAX + 2) + 1] = "";
    if (conf->n_hsms == 0) {
        return att_fail(err, ATT_E_NOTFOUND,
                        "%s: no hsm or hsms section: this host has no HSM to serve",
                        config_of(cmd));
    }
    for (unsigned i = 0, at = 0; i < conf->n_hsms; i++) {
        at += (unsigned)snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "",
                                 conf->hsms[i].name);
    }
    return att_fail(err, ATT_E_NOTFOUND, "%s: no HSM module \"%.64s\": expected one of: %s",
                    config_of(cmd), cmd->module, names);
}

/* What is loaded lasts until the end. */
static enum att_rc load_host(const struct command *cmd, struct conf_errors *errors,
                             struct parts *parts, struct att_err *err)
{
    struct conf_attestd *conf = NULL;
    enum att_rc rc = conf_attestd_load(config_of(cmd), &conf, errors, err);
    if (rc != ATT_OK) {
        return rc;
    }
    parts->whole = conf;
    parts->module = conf_attestd_hsm_find(conf, cmd->module);
    parts->run_dir = conf->run_dir;
    parts->log_least = conf->log_least;
    parts->log_json = conf->log_json;
    return parts->module ? ATT_OK : no_module(cmd, conf, err);
}

static enum att_rc load_issuer(const struct command *cmd, struct conf_errors *errors,
                               struct parts *parts, struct att_err *err)
{
    struct conf_issuer *conf = NULL;
    enum att_rc rc = conf_issuer_load(config_of(cmd), &conf, errors, err);
    if (rc != ATT_OK) {
        return rc;
    }
    parts->whole = conf;
    if (!conf->hsm) {
        return att_fail(err, ATT_E_NOTFOUND, "%s: no hsm section: there is no HSM to serve",
                        config_of(cmd));
    }
    if (strcmp(conf->hsm->name, cmd->module) != 0) {
        return att_fail(err, ATT_E_NOTFOUND, "%s: no HSM module \"%.64s\": expected %s",
                        config_of(cmd), cmd->module, conf->hsm->name);
    }
    parts->module = conf->hsm;
    parts->hsm_dir = conf->ca ? conf->ca->hsm_dir : NULL;
    parts->issuer = true;
    parts->run_dir = conf->run_dir;
    parts->log_least = conf->log_least;
    parts->log_json = conf->log_json;
    return ATT_OK;
}

static enum att_rc load_config(const struct command *cmd, struct parts *parts, struct att_err *err)
{
    struct conf_errors *errors = calloc(1, sizeof *errors);
    if (!errors) {
        return att_fail(err, ATT_E_NOMEM, "configuration");
    }
    enum att_rc rc =
        cmd->issuer ? load_issuer(cmd, errors, parts, err) : load_host(cmd, errors, parts, err);
    for (size_t i = 0; i < errors->n; i++) {
        att_autobuf line = {0};
        conf_error_text(&errors->v[i], config_of(cmd), &line);
        const char *text = att_buf_cstr(&line);
        fprintf(stderr, "%s\n", text ? text : "");
    }
    free(errors);
    return rc ? rc : conf_p11uri_parse(att_slice_str(parts->module->token), &parts->uri, err);
}

/* ---- events → log ---------------------------------------------------------------------------- */

static void log_event(void *user, const char *event, const struct att_err *err)
{
    char name[64];
    (void)user;
    if (strcmp(event, "tokenReady") == 0) {
        att_log(ATT_INFO, "hsmd.token-ready", ATT_S("token", "ok"));
    } else if (strcmp(event, "tokenAway") == 0) {
        att_log_err(ATT_WARN, "hsmd.token-away", err);
    } else if (strcmp(event, "failed") == 0) {
        att_log_err(ATT_ERROR, "hsmd.failed", err);
    } else if (strcmp(event, "pinWarning") == 0) {
        att_log_err(ATT_WARN, "hsmd.pin-warning", err);
    } else if (strcmp(event, "pinOk") == 0) {
        att_log(ATT_INFO, "hsmd.pin-ok", ATT_S("pin", "ok"));
    } else {
        snprintf(name, sizeof name, "%.40s", event);
        att_log(ATT_INFO, "hsmd.refused", ATT_S("operation", name),
                ATT_S("code", att_rc_name(err ? err->rc : ATT_E_INTERNAL)),
                ATT_S("reason", err ? err->reason : ""), ATT_S("message", err ? err->msg : ""));
    }
}

/* ---- start ----------------------------------------------------------------------------------- */

static enum att_rc find_paths(struct parts *parts, struct att_err *err)
{
    const char *name = parts->issuer ? "" : parts->module->name;
    int len = parts->hsm_dir
                  ? snprintf(parts->socket_dir, sizeof parts->socket_dir, "%s", parts->hsm_dir)
                  : snprintf(parts->socket_dir, sizeof parts->socket_dir, "%s/hsm%s%s",
                             parts->run_dir, name[0] ? "/" : "", name);
    if (len < 0 || (size_t)len >= sizeof parts->socket_dir) {
        return att_fail(err, ATT_E_INVAL, "run_dir: too long");
    }
    snprintf(parts->socket, sizeof parts->socket, "%s/hsm.sock", parts->socket_dir);
    snprintf(parts->mark_path, sizeof parts->mark_path, "%s/pin-refused", parts->socket_dir);
    snprintf(parts->module_dir, sizeof parts->module_dir, "%s", parts->module->module);
    char *slash = strrchr(parts->module_dir, '/');
    slash[slash == parts->module_dir] = 0; /* absolute: there is one */
    return ATT_OK;
}

static enum att_rc make_socket_dir(const struct parts *parts, struct att_err *err)
{
    mode_t mask = umask(022);
    char above[1100]; /* on a host of all modules: theirs to enter */
    snprintf(above, sizeof above, "%s%s", parts->run_dir, parts->issuer ? "" : "/hsm");
    enum att_rc rc = parts->hsm_dir ? ATT_OK : att_io_mkdirs(above, 0755, err);
    if (rc == ATT_OK) {
        rc = att_io_mkdirs(parts->socket_dir, 0750, err);
    }
    umask(mask);
    return rc;
}

static enum att_rc load_pin(struct parts *parts, struct att_err *err)
{
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    char path[1100];
    if (parts->uri.pin_source[0]) {
        return hsmd_pin_load(parts->uri.pin_source, &parts->pin, err);
    }
    if (!folder) {
        return att_fail(err, ATT_E_NOTFOUND,
                        "no PIN: expected pin-source=file:/PATH in the token of module %s, or "
                        "the systemd credential " HSMD_CREDENTIAL,
                        parts->module->name);
    }
    snprintf(path, sizeof path, "%.1000s/" HSMD_CREDENTIAL, folder);
    return hsmd_pin_load(path, &parts->pin, err);
}

/* The PIN's file is not among them. */
static enum att_rc enter_sandbox(struct parts *parts, struct att_err *err)
{
    const struct conf_attestd_hsm *conf = parts->module;
    struct proc_sandbox_path list[CONF_HSM_FILES_MAX + 3];
    size_t n = 0;
    list[n++] = (struct proc_sandbox_path){parts->socket_dir, PROC_PATH_WRITE};
    list[n++] = (struct proc_sandbox_path){parts->module_dir, PROC_PATH_READ};
    for (unsigned i = 0; i < conf->n_files; i++) {
        list[n++] = (struct proc_sandbox_path){conf->files[i], PROC_PATH_MODULE};
    }
    list[n] = (struct proc_sandbox_path){NULL, PROC_PATH_READ};
    const struct proc_sandbox_opts opts = {
        conf->network ? PROC_PROFILE_HSMD_NETWORK : PROC_PROFILE_HSMD, list, true};
    struct proc_sandbox_report report;
    enum att_rc rc = proc_sandbox_enter(&opts, &report, err);
    if (rc == ATT_OK) {
        hsmd_set_sandbox(parts->hsmd, &report);
        att_log(ATT_INFO, "hsmd.sandbox", ATT_S("profile", report.profile),
                ATT_S("seccomp", report.seccomp), ATT_N("landlock", report.landlock_abi),
                ATT_S("reason", report.reason));
    }
    return rc;
}

static enum att_rc may_login(void *user, struct att_err *err)
{
    const struct parts *parts = user;
    return hsmd_mark_check(&parts->mark, err);
}

static void pin_refused(void *user)
{
    const struct parts *parts = user;
    struct att_err err = {0};
    if (hsmd_mark_set(&parts->mark, &err) != ATT_OK) {
        att_log_err(ATT_ERROR, "hsmd.pin-mark", &err);
    }
}

static enum att_rc load_module(struct parts *parts, struct att_err *err)
{
    const struct hsm_opts opts = {
        .module_path = parts->module->module,
        .label = parts->uri.token,
        .serial = parts->uri.serial,
        .manufacturer = parts->uri.manufacturer,
        .model = parts->uri.model,
        .pin = &parts->pin,
        .sessions = parts->module->sessions,
        .wait_ms = WAIT_MS,
        .may_login = may_login,
        .pin_refused = pin_refused,
        .user = parts,
    };
    return hsm_new(&opts, &parts->hsm, err);
}

static bool is_stuck(const struct parts *parts)
{
    return atomic_load(&parts->loaded)
               ? hsmd_stuck(parts->hsmd)
               : att_boottime_ms() - parts->loading_since_ms > HSMD_STUCK_MS;
}

/* The loop itself may be the one that waits for the module; so may the start. */
static void *watch(void *arg)
{
    const struct parts *parts = arg;
    for (;;) {
        const struct timespec pause = {POLL_MS / 1000, 0};
        (void)nanosleep(&pause, NULL);
        if (is_stuck(parts)) {
            att_log(ATT_ERROR, "hsmd.stuck",
                    ATT_S("message", "the module has not answered for a minute; ending, for "
                                     "another process to load it anew"));
            _exit(EXIT_REFUSED);
        }
    }
    return NULL;
}

static enum att_rc start_watch(struct parts *parts, struct att_err *err)
{
    pthread_t thread;
    int failed = pthread_create(&thread, NULL, watch, parts);
    if (failed) {
        errno = failed;
        return att_fail_errno(err, ATT_E_IO, "start a thread");
    }
    pthread_detach(thread);
    return ATT_OK;
}

static enum att_rc start(const struct command *cmd, struct parts *parts, struct att_err *err)
{
    enum att_rc rc = find_paths(parts, err);
    if (rc == ATT_OK) {
        rc = make_socket_dir(parts, err);
    }
    if (rc == ATT_OK) {
        rc = load_pin(parts, err);
    }
    if (rc == ATT_OK) {
        parts->mark =
            (struct hsmd_mark){parts->mark_path, parts->uri.token, parts->uri.serial, &parts->pin};
        const struct hsmd_opts opts = {parts->socket, cmd->clients, log_event, NULL};
        rc = hsmd_new(&opts, &parts->hsmd, err);
    }
    if (rc == ATT_OK) {
        rc = enter_sandbox(parts, err);
    }
    if (rc == ATT_OK) {
        parts->loading_since_ms = att_boottime_ms();
        rc = start_watch(parts, err);
    }
    if (rc == ATT_OK) {
        rc = load_module(parts, err);
    }
    if (rc == ATT_OK) {
        rc = hsmd_start(parts->hsmd, parts->hsm, err);
    }
    if (rc == ATT_OK) {
        atomic_store(&parts->loaded, true);
    }
    return rc;
}

/* ---- loop and end ---------------------------------------------------------------------------- */

static bool ready(struct parts *parts)
{
    struct hsm_info info;
    hsm_info_get(parts->hsm, &info);
    return info.connected;
}

static void loop(struct parts *parts, const sigset_t *signals)
{
    for (;;) {
        char status[300];
        hsmd_poll(parts->hsmd);
        hsmd_status(parts->hsmd, status, sizeof status);
        proc_notify_status(status);
        proc_notify_watchdog();
        int64_t pause = ready(parts) ? POLL_MS : POLL_AWAY_MS;
        const struct timespec wait = {pause / 1000, (pause % 1000) * 1000000};
        int got = sigtimedwait(signals, NULL, &wait);
        if (got == SIGTERM || got == SIGINT) {
            hsmd_status(parts->hsmd, status, sizeof status);
            att_log(ATT_INFO, "hsmd.stopping", ATT_S("signal", got == SIGTERM ? "TERM" : "INT"),
                    ATT_S("status", status));
            return;
        }
    }
}

static void *end_at_last(void *arg)
{
    struct timespec left = {.tv_sec = END_S};
    (void)arg;
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
    att_log(ATT_ERROR, "hsmd.end-forced", ATT_S("message", "the module did not return"));
    _exit(EXIT_REFUSED);
}

/* SoftHSM 2.6.1 crashes in its destructors, and others have threads that outlive them: neither runs
 * after this. */
static _Noreturn void leave(struct parts *parts, int code)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, end_at_last, NULL) == 0) {
        pthread_detach(thread);
    }
    hsmd_free(parts->hsmd);
    hsm_free(parts->hsm);
    att_secret_done(&parts->pin);
    fflush(NULL);
    _exit(code);
}

static int run(const struct command *cmd)
{
    static struct parts parts;
    struct att_err err = {0};
    sigset_t signals;
    if (load_config(cmd, &parts, &err) != ATT_OK) {
        fprintf(stderr, "attestd-hsmd: %s\n", err.msg);
        return EXIT_REFUSED;
    }
    att_log_setup("attestd-hsmd", parts.log_least, parts.log_json);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);            /* a module cannot change: let it pass */
    sigprocmask(SIG_BLOCK, &signals, NULL); /* before threads: they inherit it */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error like a full disk */
    umask(077);
    if (start(cmd, &parts, &err) != ATT_OK) {
        att_log_err(ATT_ERROR, "hsmd.start", &err);
        leave(&parts, EXIT_REFUSED);
    }
    att_log(ATT_INFO, "hsmd.ready", ATT_S("socket", parts.socket),
            ATT_S("name", parts.module->name), ATT_S("module", parts.module->module));
    proc_notify_ready("waiting for the token");
    loop(&parts, &signals);
    proc_notify_stopping("stopping");
    leave(&parts, EXIT_SUCCESS);
}

static int check_config(const struct command *cmd)
{
    static struct parts parts; /* as the process ends, so does what it holds */
    struct att_err err = {0};
    enum att_rc rc = load_config(cmd, &parts, &err);
    fprintf(rc == ATT_OK ? stdout : stderr, "%s: %s\n", config_of(cmd),
            rc == ATT_OK ? "ok" : err.msg);
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
    case 'm':
        cmd->module = optarg;
        return -1;
    case 'u':
        if (proc_users_add(&cmd->clients, optarg, &err) != ATT_OK) {
            fprintf(stderr, "attestd-hsmd: --client: %s\n", err.msg);
            return EXIT_REFUSED;
        }
        return -1;
    case 'i':
        cmd->issuer = true;
        return -1;
    case 'k':
        cmd->check = true;
        return -1;
    case 'h':
        usage(stdout);
        return EXIT_SUCCESS;
    case 'v':
        puts("attestd-hsmd " ATT_VERSION);
        return EXIT_SUCCESS;
    default:
        usage(stderr);
        return EXIT_USAGE;
    }
}

int hsmd_main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"module", required_argument, NULL, 'm'},
        {"client", required_argument, NULL, 'u'}, {"check", no_argument, NULL, 'k'},
        {"issuer", no_argument, NULL, 'i'},       {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},      {NULL, 0, NULL, 0}};
    struct command cmd = {.module = CONF_HSM_DEFAULT};
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
