/* attestd-spiffed: options, configuration, socket, sandbox, signals. */
#include "attestd/spiffe/spiffed.h"

#include "attestd/base/io.h"
#include "attestd/base/log.h"
#include "attestd/conf/conf.h"
#include "attestd/proc/listen.h"
#include "attestd/proc/notify.h"
#include "attestd/proc/peer.h"
#include "attestd/proc/sandbox.h"

#include <event2/event.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define CONFIG_DEFAULT      "/etc/attestd/attestd.yaml"
#define CONNECTIONS_DEFAULT 1024
#define PER_UID_DEFAULT     256
#define FILES_PER_CONN      2 /* the socket and the pidfd */
#define SLOW_DEFAULT_S      30
#define STATUS_PERIOD_MS    10000

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };

struct settings {
    const char *config, *run_dir;
    unsigned connections, per_uid, slow_s;
    uid_t attestd_user, whod_user, keyd_user;
    bool check;
};

struct paths {
    char public_dir[1024], socket[1024], workload[1024], whod[1024], keyd[1024], config_dir[1024];
};

struct daemon {
    const struct settings *set;
    struct event_base *base;
    struct spiffed *spiffed;
    struct proc_listen listening;
};

static void usage(FILE *to)
{
    fputs("usage: attestd-spiffed [--config FILE] [--run-dir DIR] [--connections N] [--per-uid N]\n"
          "       [--slow SECONDS] [--attestd-user USER] [--whod-user USER] [--keyd-user USER]\n"
          "       [--check]\n"
          "Serves the SPIFFE Workload API and attestd.v1.Signer on RUN_DIR/public/api.sock.\n"
          "  --config FILE    configuration, shared with attestd (" CONFIG_DEFAULT ")\n"
          "  --run-dir DIR    instead of the configured one\n"
          "  --connections N  at one time, in all (1024)\n"
          "  --per-uid N      at one time, of one user (256)\n"
          "  --slow SECONDS   who reads nothing for so long is cut (30)\n"
          "  --attestd-user USER, --whod-user USER, --keyd-user USER\n"
          "                   whose processes these are (default: our own user's); no other's but\n"
          "                   root's is asked anything\n"
          "  --check          read the configuration, say what is wrong in it, exit\n"
          "  --help, --version\n",
          to);
}

/* ---- configuration ------------------------------------------------------------------------- */

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
        {paths->public_dir, "/public"},      {paths->socket, "/public/api.sock"},
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
    const struct proc_sandbox_opts opts = {PROC_PROFILE_SPIFFED, list, false};
    struct proc_sandbox_report report;
    enum att_rc rc = proc_sandbox_enter(&opts, &report, err);
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "spiffed.sandbox", ATT_S("profile", report.profile),
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
    rlim_t room = limit.rlim_cur > 500 ? (limit.rlim_cur - 200) / FILES_PER_CONN : 64;
    if (room < connections) {
        att_log(ATT_WARN, "spiffed.few-files", ATT_N("limit", limit.rlim_cur),
                ATT_N("connections", room));
        return (unsigned)room;
    }
    return connections;
}

/* ---- signals and time ---------------------------------------------------------------------- */

static void reload(const struct settings *set)
{
    struct conf_attestd *conf = NULL;
    struct att_err err = {0};
    proc_notify_reloading();
    if (load_config(set, &conf, &err) == ATT_OK) {
        att_log_setup("attestd-spiffed", conf->log_least, conf->log_json);
        att_log(ATT_INFO, "spiffed.reloaded", ATT_S("config", set->config));
    } else {
        att_log_err(ATT_ERROR, "spiffed.reload-refused", &err);
    }
    conf_attestd_free(conf);
    proc_notify_ready(NULL);
}

static void on_signal(evutil_socket_t number, short what, void *arg)
{
    struct daemon *daemon = arg;
    (void)what;
    if (number == SIGHUP) {
        reload(daemon->set);
        return;
    }
    att_log(ATT_INFO, "spiffed.stopping", ATT_S("signal", number == SIGTERM ? "TERM" : "INT"));
    event_base_loopbreak(daemon->base);
}

static void on_status(evutil_socket_t fd, short what, void *arg)
{
    char status[128];
    (void)fd;
    (void)what;
    spiffed_status(((struct daemon *)arg)->spiffed, status, sizeof status);
    proc_notify_status(status);
    proc_notify_watchdog();
}

static enum att_rc add(struct daemon *daemon, evutil_socket_t fd, short what, event_callback_fn fn,
                       int64_t period_ms, struct att_err *err)
{
    struct event *event = event_new(daemon->base, fd, (short)(what | EV_PERSIST), fn, daemon);
    const struct timeval period = {(time_t)(period_ms / 1000),
                                   (suseconds_t)(period_ms % 1000) * 1000};
    return event && event_add(event, period_ms ? &period : NULL) == 0
               ? ATT_OK
               : att_fail(err, ATT_E_NOMEM, "events");
}

static enum att_rc add_events(struct daemon *daemon, struct att_err *err)
{
    int64_t period = proc_notify_watchdog_period_ms();
    period = period > 0 && period < STATUS_PERIOD_MS ? period / 2 : STATUS_PERIOD_MS / 2;
    enum att_rc rc = add(daemon, -1, 0, on_status, period, err);
    const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; rc == ATT_OK && i < sizeof signals / sizeof signals[0]; i++) {
        rc = add(daemon, signals[i], EV_SIGNAL, on_signal, 0, err);
    }
    return rc;
}

/* ---- start --------------------------------------------------------------------------------- */

/* Signals are the loop's: the threads are made while they are blocked. */
static enum att_rc make_service(struct daemon *daemon, const struct paths *paths,
                                unsigned connections, struct att_err *err)
{
    const struct settings *set = daemon->set;
    const struct spiffed_opts opts = {
        .base = daemon->base,
        .listen_fd = daemon->listening.fd,
        .workload_path = paths->workload,
        .whod_path = paths->whod,
        .keyd_path = paths->keyd,
        .attestd_user = set->attestd_user,
        .whod_user = set->whod_user,
        .keyd_user = set->keyd_user,
        .connections_max = connections,
        .per_uid_max = set->per_uid,
        .slow_ms = (int64_t)set->slow_s * 1000,
    };
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    enum att_rc rc = spiffed_new(&opts, &daemon->spiffed, err);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

static enum att_rc start(struct daemon *daemon, const struct conf_attestd *conf,
                         const struct paths *paths, struct att_err *err)
{
    enum att_rc rc = proc_listen_open(paths->public_dir, paths->socket, &daemon->listening, err);
    unsigned connections = fit_files(daemon->set->connections);
    if (rc == ATT_OK && !(daemon->base = event_base_new())) {
        rc = att_fail(err, ATT_E_NOMEM, "events");
    }
    if (rc == ATT_OK) {
        rc = enter_sandbox(conf, paths, err);
    }
    if (rc == ATT_OK) {
        rc = make_service(daemon, paths, connections, err);
    }
    return rc == ATT_OK ? add_events(daemon, err) : rc;
}

/* Ends by _exit(): a thread may wait for attestd's answer for seconds. */
static _Noreturn void run(const struct settings *set)
{
    struct daemon daemon = {.set = set, .listening.fd = -1};
    struct conf_attestd *conf = NULL;
    struct paths paths = {0};
    struct att_err err = {0};
    if (load_config(set, &conf, &err) != ATT_OK) {
        fprintf(stderr, "attestd-spiffed: %s\n", err.msg);
        _exit(EXIT_REFUSED);
    }
    att_log_setup("attestd-spiffed", conf->log_least, conf->log_json);
    umask(022);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error like a full disk */
    enum att_rc rc = find_paths(conf, set, &paths, &err);
    if (rc == ATT_OK) {
        rc = start(&daemon, conf, &paths, &err);
    }
    conf_attestd_free(conf);
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "spiffed.ready", ATT_S("socket", paths.socket),
                ATT_N("activated", daemon.listening.activated));
        proc_notify_ready("serving");
        (void)event_base_dispatch(daemon.base);
        proc_notify_stopping("stopping");
        spiffed_end(daemon.spiffed);
    } else {
        att_log_err(ATT_ERROR, "spiffed.start", &err);
    }
    proc_listen_close(&daemon.listening);
    _exit(rc == ATT_OK ? EXIT_SUCCESS : EXIT_REFUSED);
}

/* ---- the command line ---------------------------------------------------------------------- */

static bool number(const char *text, unsigned *ret)
{
    char *end;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || value < 1 || value > 100000) {
        fprintf(stderr, "attestd-spiffed: a number from 1 to 100000 expected, found \"%s\"\n",
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
        fprintf(stderr, "attestd-spiffed: %s: %s\n", option, err.msg);
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

static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                        {"run-dir", required_argument, NULL, 'r'},
                                        {"connections", required_argument, NULL, 'n'},
                                        {"per-uid", required_argument, NULL, 'u'},
                                        {"slow", required_argument, NULL, 's'},
                                        {"attestd-user", required_argument, NULL, 'A'},
                                        {"whod-user", required_argument, NULL, 'W'},
                                        {"keyd-user", required_argument, NULL, 'K'},
                                        {"check", no_argument, NULL, 'k'},
                                        {"help", no_argument, NULL, 'h'},
                                        {"version", no_argument, NULL, 'v'},
                                        {NULL, 0, NULL, 0}};

/* -1: go on; else the exit code. */
static int take_option(int option, struct settings *set)
{
    switch (option) {
    case 'c':
        set->config = optarg;
        return -1;
    case 'r':
        set->run_dir = optarg;
        return -1;
    case 'n':
        return number(optarg, &set->connections) ? -1 : EXIT_USAGE;
    case 'u':
        return number(optarg, &set->per_uid) ? -1 : EXIT_USAGE;
    case 's':
        return number(optarg, &set->slow_s) ? -1 : EXIT_USAGE;
    case 'A':
        return user("--attestd-user", optarg, &set->attestd_user) ? -1 : EXIT_REFUSED;
    case 'W':
        return user("--whod-user", optarg, &set->whod_user) ? -1 : EXIT_REFUSED;
    case 'K':
        return user("--keyd-user", optarg, &set->keyd_user) ? -1 : EXIT_REFUSED;
    case 'k':
        set->check = true;
        return -1;
    case 'h':
        usage(stdout);
        return EXIT_SUCCESS;
    case 'v':
        puts("attestd-spiffed " ATT_VERSION);
        return EXIT_SUCCESS;
    default:
        usage(stderr);
        return EXIT_USAGE;
    }
}

int spiffed_main(int argc, char **argv)
{
    struct settings set = {.config = CONFIG_DEFAULT,
                           .connections = CONNECTIONS_DEFAULT,
                           .per_uid = PER_UID_DEFAULT,
                           .slow_s = SLOW_DEFAULT_S,
                           .attestd_user = geteuid(),
                           .whod_user = geteuid(),
                           .keyd_user = geteuid()};
    for (int got; (got = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        int status = take_option(got, &set);
        if (status >= 0) {
            return status;
        }
    }
    if (optind != argc) {
        usage(stderr);
        return EXIT_USAGE;
    }
    if (set.check) {
        return check(&set);
    }
    run(&set);
}
