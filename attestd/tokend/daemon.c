/* attestd-tokend: options, configuration, socket, sandbox, signals. */
#include "attestd/tokend/tokend.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/base/log.h"
#include "attestd/conf/conf.h"
#include "attestd/proc/notify.h"
#include "attestd/proc/peer.h"
#include "attestd/proc/sandbox.h"
#include "attestd/proc/listen.h"

#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_DEFAULT      "/etc/attestd/attestd.yaml"
#define CONNECTIONS_DEFAULT 4096
#define PER_UID_DEFAULT     1024
#define UNKNOWN_PER_UID     64
#define UNPROVEN_MAX        512 /* and at most half of the connections */
#define FILES_PER_CONN      3   /* pidfd, channel, and the client while it is being identified */
#define STATUS_PERIOD_MS    10000

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };

struct settings {
    const char *config, *run_dir;
    unsigned connections, per_uid;
    uid_t attestd_user, whod_user, keyd_user;
    bool check;
};

struct paths {
    char public_dir[1024], socket[1024], workload[1024], whod[1024], keyd[1024], config_dir[1024];
};

static void usage(FILE *to)
{
    fputs("usage: attestd-tokend [--config FILE] [--run-dir DIR] [--connections N] [--per-uid N]\n"
          "       [--attestd-user USER] [--whod-user USER] [--keyd-user USER] [--check]\n"
          "Serves each agent's key as a PKCS#11 token on RUN_DIR/public/pkcs11.sock, for p11-kit's "
          "client.\n"
          "  --config FILE    configuration, shared with attestd (" CONFIG_DEFAULT ")\n"
          "  --run-dir DIR    instead of the configured one\n"
          "  --connections N  at one time, in all (4096)\n"
          "  --per-uid N      at one time, of one user (1024)\n"
          "  --attestd-user USER, --whod-user USER, --keyd-user USER\n"
          "                   whose processes these are (default: our own user's); no other's but\n"
          "                   root's is asked anything\n"
          "  --check          read the configuration, say what is wrong in it, exit\n"
          "  --help, --version\n",
          to);
}

static enum att_rc load_config(const struct settings *set, struct conf_attestd **ret,
                               struct att_err *err)
{
    struct conf_errors *errors = calloc(1, sizeof *errors);
    if (!errors) {
        return att_fail(err, ATT_E_NOMEM, "configuration");
    }
    enum att_rc rc = conf_attestd_load(set->config, ret, errors, err);
    for (size_t i = 0; i < errors->n; i++) {
        att_autobuf line = {0};
        conf_error_text(&errors->v[i], set->config, &line);
        const char *text = att_buf_cstr(&line);
        fprintf(stderr, "%s\n", text ? text : "");
    }
    free(errors);
    if (rc == ATT_OK && set->run_dir) {
        rc = conf_path_set(&(*ret)->run_dir, set->run_dir, err);
    }
    return rc;
}

static enum att_rc join(char *ret, size_t room, const char *a, const char *b, struct att_err *err)
{
    int len = snprintf(ret, room, "%s%s", a, b);
    return len >= 0 && (size_t)len < room
               ? ATT_OK
               : att_fail(err, ATT_E_INVAL, "path too long: %.60s…%s", a, b);
}

static enum att_rc find_paths(const struct conf_attestd *conf, const struct settings *set,
                              struct paths *paths, struct att_err *err)
{
    const struct {
        char *ret;
        const char *name;
    } list[] = {
        {paths->public_dir, "/public"},      {paths->socket, "/public/pkcs11.sock"},
        {paths->workload, "/workload.sock"}, {paths->whod, "/whod.sock"},
        {paths->keyd, "/keyd/sign.sock"},
    };
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < sizeof list / sizeof list[0]; i++) {
        rc = join(list[i].ret, sizeof paths->socket, conf->run_dir, list[i].name, err);
    }
    if (rc == ATT_OK) {
        rc = join(paths->config_dir, sizeof paths->config_dir, set->config, "", err);
    }
    char *slash = strrchr(paths->config_dir, '/');
    if (slash) {
        slash[slash == paths->config_dir] = 0;
    } else {
        snprintf(paths->config_dir, sizeof paths->config_dir, ".");
    }
    return rc;
}

static enum att_rc enter_sandbox(const struct conf_attestd *conf, const struct paths *paths,
                                 struct att_err *err)
{
    const struct proc_sandbox_path list[] = {
        {conf->run_dir, PROC_PATH_READ},
        {paths->public_dir, PROC_PATH_WRITE}, /* our socket is removed at the end */
        {paths->config_dir, PROC_PATH_READ},  /* SIGHUP reads it again */
        {NULL, PROC_PATH_READ},
    };
    const struct proc_sandbox_opts opts = {PROC_PROFILE_TOKEND, list, false};
    struct proc_sandbox_report report;
    enum att_rc rc = proc_sandbox_enter(&opts, &report, err);
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "tokend.sandbox", ATT_S("profile", report.profile),
                ATT_S("seccomp", report.seccomp), ATT_N("landlock", report.landlock_abi),
                ATT_S("reason", report.reason));
    }
    return rc;
}

/* Descriptors for as many connections as are allowed, or fewer connections. */
static unsigned fit_files(unsigned connections)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return connections;
    }
    limit.rlim_cur = limit.rlim_max;
    (void)!setrlimit(RLIMIT_NOFILE, &limit);
    rlim_t room = limit.rlim_cur > 1000 ? (limit.rlim_cur - 500) / FILES_PER_CONN : 64;
    if (room < connections) {
        att_log(ATT_WARN, "tokend.few-files", ATT_N("limit", limit.rlim_cur),
                ATT_N("connections", room));
        return (unsigned)room;
    }
    return connections;
}

/* ---- the loop
 * ---------------------------------------------------------------------------------------- */

static void reload(const struct settings *set)
{
    struct conf_attestd *conf = NULL;
    struct att_err err = {0};
    proc_notify_reloading();
    if (load_config(set, &conf, &err) == ATT_OK) {
        att_log_setup("attestd-tokend", conf->log_least, conf->log_json);
        att_log(ATT_INFO, "tokend.reloaded", ATT_S("config", set->config));
    } else {
        att_log_err(ATT_ERROR, "tokend.reload-refused", &err);
    }
    conf_attestd_free(conf);
    proc_notify_ready(NULL);
}

static bool take_signals(int signals, struct tokend *tokend, const struct settings *set)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD) {
            tokend_child_signal(tokend);
        } else if (info.ssi_signo == SIGHUP) {
            reload(set);
        } else {
            att_log(ATT_INFO, "tokend.stopping",
                    ATT_S("signal", info.ssi_signo == SIGTERM ? "TERM" : "INT"));
            return false;
        }
    }
    return true;
}

static void loop(int signals, struct tokend *tokend, const struct settings *set)
{
    int64_t told_at_ms = 0;
    int64_t period = proc_notify_watchdog_period_ms();
    period = period > 0 && period < STATUS_PERIOD_MS ? period : STATUS_PERIOD_MS;
    for (bool woken = true; !woken || take_signals(signals, tokend, set);) {
        int64_t now = att_boottime_ms();
        if (now - told_at_ms >= period / 2) {
            char status[128];
            tokend_status(tokend, status, sizeof status);
            proc_notify_status(status);
            proc_notify_watchdog();
            told_at_ms = now;
        }
        woken = tokend_turn(tokend);
    }
}

static int block_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error like a full disk */
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static enum att_rc start(const struct conf_attestd *conf, const struct settings *set,
                         const struct paths *paths, struct proc_listen *listening,
                         struct tokend **ret, struct att_err *err)
{
    enum att_rc rc = proc_listen_open(paths->public_dir, paths->socket, listening, err);
    if (rc == ATT_OK) {
        unsigned connections = fit_files(set->connections);
        unsigned half = connections > 1 ? connections / 2 : 1;
        const struct tokend_opts opts = {
            .listen_fd = listening->fd,
            .workload_path = paths->workload,
            .whod_path = paths->whod,
            .keyd_path = paths->keyd,
            .attestd_user = set->attestd_user,
            .whod_user = set->whod_user,
            .keyd_user = set->keyd_user,
            .connections_max = connections,
            .per_uid_max = set->per_uid,
            .unknown_per_uid_max = UNKNOWN_PER_UID,
            .unproven_max = half < UNPROVEN_MAX ? half : UNPROVEN_MAX,
        };
        rc = tokend_new(&opts, ret, err);
    }
    return rc == ATT_OK ? enter_sandbox(conf, paths, err) : rc;
}

static int run(const struct settings *set)
{
    struct conf_attestd *conf = NULL;
    struct tokend *tokend = NULL;
    struct proc_listen listening = {.fd = -1};
    struct paths paths = {0};
    struct att_err err = {0};
    if (load_config(set, &conf, &err) != ATT_OK) {
        fprintf(stderr, "attestd-tokend: %s\n", err.msg);
        conf_attestd_free(conf);
        return EXIT_REFUSED;
    }
    att_log_setup("attestd-tokend", conf->log_least, conf->log_json);
    umask(022);
    att_autofd signals = block_signals();
    enum att_rc rc = find_paths(conf, set, &paths, &err);
    if (rc == ATT_OK) {
        rc = start(conf, set, &paths, &listening, &tokend, &err);
    }
    if (rc == ATT_OK) {
        rc = tokend_wake_by(tokend, signals, &err);
    }
    conf_attestd_free(conf);
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "tokend.ready", ATT_S("socket", paths.socket),
                ATT_N("activated", listening.activated));
        proc_notify_ready("serving");
        loop(signals, tokend, set);
        proc_notify_stopping("stopping");
    } else {
        att_log_err(ATT_ERROR, "tokend.start", &err);
    }
    tokend_free(tokend);
    proc_listen_close(&listening);
    return rc == ATT_OK ? EXIT_SUCCESS : EXIT_REFUSED;
}

static bool number(const char *text, unsigned *ret)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || value < 1 || value > 100000) {
        fprintf(stderr,
                "attestd-tokend: a number of connections from 1 to 100000 expected, found "
                "\"%s\"\n",
                text);
        return false;
    }
    *ret = (unsigned)value;
    return true;
}

static bool user(const char *option, const char *name, uid_t *ret)
{
    struct att_err err = {0};
    if (proc_user_find(name, ret, &err) != ATT_OK) {
        fprintf(stderr, "attestd-tokend: %s: %s\n", option, err.msg);
        return false;
    }
    return true;
}

static int check(const struct settings *set)
{
    struct conf_attestd *conf = NULL;
    struct att_err err = {0};
    enum att_rc rc = load_config(set, &conf, &err);
    conf_attestd_free(conf);
    fprintf(rc == ATT_OK ? stdout : stderr, "%s: %s\n", set->config, rc == ATT_OK ? "ok" : err.msg);
    return rc == ATT_OK ? EXIT_SUCCESS : EXIT_REFUSED;
}

int tokend_main(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"run-dir", required_argument, NULL, 'r'},
                                            {"connections", required_argument, NULL, 'n'},
                                            {"per-uid", required_argument, NULL, 'u'},
                                            {"attestd-user", required_argument, NULL, 'A'},
                                            {"whod-user", required_argument, NULL, 'W'},
                                            {"keyd-user", required_argument, NULL, 'K'},
                                            {"check", no_argument, NULL, 'k'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'v'},
                                            {NULL, 0, NULL, 0}};
    struct settings set = {.config = CONFIG_DEFAULT,
                           .connections = CONNECTIONS_DEFAULT,
                           .per_uid = PER_UID_DEFAULT,
                           .attestd_user = geteuid(),
                           .whod_user = geteuid(),
                           .keyd_user = geteuid()};
    bool ok = true, known = true;
    for (int got; (got = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (got) {
        case 'c':
            set.config = optarg;
            break;
        case 'r':
            set.run_dir = optarg;
            break;
        case 'n':
            ok = number(optarg, &set.connections) && ok;
            break;
        case 'u':
            ok = number(optarg, &set.per_uid) && ok;
            break;
        case 'A':
            known = user("--attestd-user", optarg, &set.attestd_user) && known;
            break;
        case 'W':
            known = user("--whod-user", optarg, &set.whod_user) && known;
            break;
        case 'K':
            known = user("--keyd-user", optarg, &set.keyd_user) && known;
            break;
        case 'k':
            set.check = true;
            break;
        case 'h':
            usage(stdout);
            return EXIT_SUCCESS;
        case 'v':
            puts("attestd-tokend " ATT_VERSION);
            return EXIT_SUCCESS;
        default:
            ok = false;
        }
    }
    if (!ok || optind != argc) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (!known) {
        return EXIT_REFUSED;
    }
    return set.check ? check(&set) : run(&set);
}
