/* attestd-keyd: options, configuration, sandbox, signals. */
#include "attestd/keyd/keyd.h"

#include "attestd/base/io.h"
#include "attestd/base/log.h"
#include "attestd/conf/conf.h"
#include "attestd/proc/keyd_proto.h"
#include "attestd/proc/notify.h"

#include <errno.h>
#include <getopt.h>
#include <openssl/crypto.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CONFIG_DEFAULT   "/etc/attestd/attestd.yaml"
#define SECURE_HEAP      65536 /* bytes, locked: where libcrypto keeps private numbers */
#define STATUS_PERIOD_MS 10000
#define END_S            10 /* for what is under way; a TPM that does not answer is not waited for */

enum { EXIT_REFUSED = 1, EXIT_USAGE = 2 };

struct paths {
    char dir[1024], socket_dir[1024], socket[1024], sign_socket[1024], ticket[1024];
    char ticket_dir[1024], config_dir[1024], device[1024], hsm_sockets[KEYD_HSMS_MAX][1024];
    char policy_key[1024], policies[1024];
};

struct command {
    const char *config;
    struct proc_users clients, signers, exporters;
    uid_t hsm_user;
    bool check;
};

static void usage(FILE *to)
{
    fputs(
        "usage: attestd-keyd [--config FILE] [--client USER]... [--signer USER]...\n"
        "                    [--exporter USER]... [--hsm-user USER] [--check]\n"
        "Holds the host's TPM and the agents' keys, and answers attestd on\n"
        "RUN_DIR/keyd/keyd.sock.\n"
        "  --config FILE  configuration, shared with attestd (" CONFIG_DEFAULT ")\n"
        "  --client USER  who may ask, beside root: attestd's user (default: the user that\n"
        "                 attestd-keyd runs as). Others than that user reach the socket through\n"
        "                 the group that attestd-keyd runs as\n"
        "  --signer USER  the same for signatures, on RUN_DIR/keyd/sign.sock: attestd-tokend's\n"
        "  --exporter USER  who among these is given the private keys of agents whose entry says\n"
        "                 exportable: attestd-spiffed's (default: nobody)\n"
        "  --hsm-user USER  who serves run_dir/hsm/NAME/hsm.sock, beside root: attestd-hsmd's\n"
        "                 user, for modules whose user the configuration does not name (default:\n"
        "                 the user that attestd-keyd runs as)\n"
        "  --check        read the configuration, say what is wrong in it, exit\n"
        "  --help, --version\n",
        to);
}

static enum att_rc load_config(const char *path, struct conf_attestd **ret, struct att_err *err)
{
    struct conf_errors *errors = calloc(1, sizeof *errors);
    if (!errors) {
        return att_fail(err, ATT_E_NOMEM, "configuration");
    }
    enum att_rc rc = conf_attestd_load(path, ret, errors, err);
    for (size_t i = 0; i < errors->n; i++) {
        att_autobuf line = {0};
        conf_error_text(&errors->v[i], path, &line);
        const char *text = att_buf_cstr(&line);
        fprintf(stderr, "%s\n", text ? text : "");
    }
    free(errors);
    return rc;
}

/* ---- events → log -------------------------------------------------------------------------- */

static void log_event(void *user, enum keyd_event event, const char *what,
                      const struct att_err *err)
{
    (void)user;
    const struct att_err none = {0};
    const struct att_err *e = err ? err : &none;
    switch (event) {
    case KEYD_EVENT_READY:
        att_log(ATT_INFO, "keyd.ready", ATT_S("tpm", "ok"));
        break;
    case KEYD_EVENT_WAITING:
        att_log_err(ATT_WARN, "keyd.tpm-away", e);
        break;
    case KEYD_EVENT_FAILED:
        att_log_err(ATT_ERROR, "keyd.failed", e);
        break;
    case KEYD_EVENT_BAD:
        att_log(ATT_ERROR, "keyd.bad-file", ATT_S("file", what), ATT_S("message", e->msg));
        break;
    case KEYD_EVENT_REFUSED:
        att_log(e->rc == ATT_E_DENIED || e->rc == ATT_E_AUTH ? ATT_WARN : ATT_INFO, "keyd.refused",
                ATT_S("operation", what), ATT_S("code", att_rc_name(e->rc)),
                ATT_S("reason", e->reason), ATT_S("message", e->msg));
        break;
    case KEYD_EVENT_SKIPPED:
        att_log(ATT_WARN, "keyd.nv-skipped", ATT_S("index", what),
                ATT_S("message", "not read: expected a written index with OWNERREAD, or with "
                                 "AUTHREAD and NO_DA"));
        break;
    case KEYD_EVENT_SEALED:
        att_log_err(ATT_ERROR, "keyd.sealed", e);
        break;
    case KEYD_EVENT_OPENED:
        att_log(ATT_INFO, "keyd.opened", ATT_S("by", what));
        break;
    case KEYD_EVENT_RECOVERY:
        att_log(ATT_WARN, "keyd.recovery", ATT_S("by", what),
                ATT_S("message", "the keys were opened by a recovery approval"));
        break;
    case KEYD_EVENT_COUNTER:
        att_log(err ? ATT_ERROR : ATT_INFO, "keyd.policy-counter", ATT_S("what", what),
                ATT_S("message", e->msg));
        break;
    case KEYD_EVENT_MIGRATED:
        att_log(ATT_INFO, "keyd.migrated", ATT_S("what", what));
        break;
    case KEYD_EVENT_POLICY:
        att_log(ATT_WARN, "keyd.policy-refused", ATT_S("file", what), ATT_S("reason", e->reason),
                ATT_S("message", e->msg));
        break;
    case KEYD_EVENT_EXPORTED:
        att_log(ATT_WARN, "keyd.exported", ATT_S("what", what));
        break;
    case KEYD_EVENT_CREATED:
        att_log(ATT_INFO, "keyd.created", ATT_S("what", what));
        break;
    }
}

/* ---- paths --------------------------------------------------------------------------------- */

static enum att_rc join(char *ret, size_t room, const char *a, const char *b, struct att_err *err)
{
    int len = snprintf(ret, room, "%s%s", a, b);
    return len >= 0 && (size_t)len < room
               ? ATT_OK
               : att_fail(err, ATT_E_INVAL, "path too long: %.60s…%s", a, b);
}

static void folder_of(const char *path, char *ret, size_t room)
{
    snprintf(ret, room, "%s", path);
    char *slash = strrchr(ret, '/');
    if (slash && slash != ret) {
        *slash = 0;
    } else {
        snprintf(ret, room, "%s", slash ? "/" : ".");
    }
}

_Static_assert(KEYD_HSMS_MAX == CONF_HSMS_MAX && PROC_HSM_NAME_MAX == CONF_HSM_NAME_MAX,
               "a module of the configuration is one of keyd's");

static enum att_rc hsm_socket(const char *run_dir, const char *name, char ret[1024],
                              struct att_err *err)
{
    int len = snprintf(ret, 1024, "%s/hsm/%s/hsm.sock", run_dir, name);
    return len > 0 && len < 1024 ? ATT_OK : att_fail(err, ATT_E_INVAL, "run_dir: too long");
}

static enum att_rc find_paths(const struct conf_attestd *conf, const char *config,
                              struct paths *paths, struct att_err *err)
{
    const char *credentials = getenv("CREDENTIALS_DIRECTORY");
    *paths = (struct paths){0};
    enum att_rc rc = join(paths->dir, sizeof paths->dir, conf->state_dir, "/keyd", err);
    if (rc == ATT_OK) {
        rc = join(paths->socket_dir, sizeof paths->socket_dir, conf->run_dir, "/keyd", err);
    }
    if (rc == ATT_OK) {
        rc = join(paths->socket, sizeof paths->socket, paths->socket_dir, "/keyd.sock", err);
    }
    if (rc == ATT_OK) {
        rc = join(paths->sign_socket, sizeof paths->sign_socket, paths->socket_dir, "/sign.sock",
                  err);
    }
    for (unsigned i = 0; rc == ATT_OK && i < conf->n_hsms; i++) {
        rc = hsm_socket(conf->run_dir, conf->hsms[i].name, paths->hsm_sockets[i], err);
    }
    if (rc == ATT_OK && conf->ticket_file) {
        rc = join(paths->ticket, sizeof paths->ticket, conf->ticket_file, "", err);
    } else if (rc == ATT_OK && credentials) {
        rc = join(paths->ticket, sizeof paths->ticket, credentials, "/attestd.ticket", err);
    }
    if (rc == ATT_OK && strncmp(conf->tpm->tcti, "device:", 7) == 0) {
        rc = join(paths->device, sizeof paths->device, conf->tpm->tcti + 7, "", err);
    }
    if (rc == ATT_OK && conf->tpm->policies) {
        rc = join(paths->policy_key, sizeof paths->policy_key, conf->tpm->policy_key, "", err);
    }
    if (rc == ATT_OK && conf->tpm->policies) {
        rc = join(paths->policies, sizeof paths->policies, conf->tpm->policies, "", err);
    }
    if (paths->ticket[0]) {
        folder_of(paths->ticket, paths->ticket_dir, sizeof paths->ticket_dir);
    }
    folder_of(config, paths->config_dir, sizeof paths->config_dir);
    return rc;
}

#define REACH_MAX 10

/* What keyd may reach, for good. */
static void find_reach(const struct paths *paths, struct proc_sandbox_path list[REACH_MAX])
{
    size_t n = 0;
    list[n++] = (struct proc_sandbox_path){paths->dir, PROC_PATH_WRITE};
    list[n++] = (struct proc_sandbox_path){paths->socket_dir, PROC_PATH_WRITE};
    list[n++] = (struct proc_sandbox_path){paths->config_dir, PROC_PATH_READ}; /* SIGHUP */
    if (paths->ticket_dir[0]) {
        list[n++] = (struct proc_sandbox_path){paths->ticket_dir, PROC_PATH_READ};
    }
    if (paths->policies[0]) {
        list[n++] = (struct proc_sandbox_path){paths->policy_key, PROC_PATH_READ};
        list[n++] = (struct proc_sandbox_path){paths->policies, PROC_PATH_READ};
    }
    if (paths->device[0]) {
        list[n++] = (struct proc_sandbox_path){paths->device, PROC_PATH_DEVICE};
    }
    list[n].path = NULL;
}

static enum att_rc enter_sandbox(const struct paths *paths, struct keyd *keyd, struct att_err *err)
{
    struct proc_sandbox_path list[REACH_MAX];
    find_reach(paths, list);
    const struct proc_sandbox_opts opts = {PROC_PROFILE_KEYD, list, true};
    struct proc_sandbox_report report;
    enum att_rc rc = proc_sandbox_enter(&opts, &report, err);
    if (rc == ATT_OK) {
        keyd_set_sandbox(keyd, &report);
        att_log(ATT_INFO, "keyd.sandbox", ATT_S("profile", report.profile),
                ATT_S("seccomp", report.seccomp), ATT_N("landlock", report.landlock_abi),
                ATT_S("reason", report.reason));
    }
    return rc;
}

/* ---- the loop ------------------------------------------------------------------------------ */

static bool differ(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") != 0;
}

/* Of a module keyd looks at nothing else. */
static bool same_hsms(const struct conf_attestd *one, const struct conf_attestd *other)
{
    bool same = one->n_hsms == other->n_hsms;
    for (unsigned i = 0; same && i < one->n_hsms; i++) {
        same = strcmp(one->hsms[i].name, other->hsms[i].name) == 0 &&
               !differ(one->hsms[i].user, other->hsms[i].user);
    }
    return same;
}

static bool rsa_of(const struct conf_attestd *conf)
{
    return conf->acme && strcmp(conf->acme->ak, "rsa-2048") == 0;
}

/* first: what keyd was started with. */
static enum att_rc check_reload(const struct conf_attestd *first, const struct conf_attestd *conf,
                                const char *config, const struct paths *paths, struct att_err *err)
{
    const struct {
        const char *key;
        bool changed;
    } fixed[] = {
        {"tpm.tcti", strcmp(conf->tpm->tcti, first->tpm->tcti) != 0},
        {"state_dir", strcmp(conf->state_dir, first->state_dir) != 0},
        {"run_dir", strcmp(conf->run_dir, first->run_dir) != 0},
        {"tpm.pcr", strcmp(conf->tpm->pcr, first->tpm->pcr) != 0},
        {"tpm.policy_key", differ(conf->tpm->policy_key, first->tpm->policy_key)},
        {"tpm.policy_ref", differ(conf->tpm->policy_ref, first->tpm->policy_ref)},
        {"tpm.policies", differ(conf->tpm->policies, first->tpm->policies)},
        {"hsm, hsms or default_hsm", !same_hsms(conf, first)},
        {"the AK (acme, acme.ak)", rsa_of(conf) != rsa_of(first)},
        {"signatures", conf->signatures->per_second != first->signatures->per_second ||
                           conf->signatures->burst != first->signatures->burst},
    };
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++) {
        if (fixed[i].changed) {
            return att_fail(err, ATT_E_CONFLICT,
                            "%s cannot change while running: restart attestd-keyd", fixed[i].key);
        }
    }
    struct paths at_start;
    struct proc_sandbox_path list[REACH_MAX];
    enum att_rc rc = find_paths(first, config, &at_start, err);
    if (rc != ATT_OK) {
        return rc;
    }
    find_reach(&at_start, list);
    return !paths->ticket[0] || proc_sandbox_covers(list, paths->ticket)
               ? ATT_OK
               : att_fail(err, ATT_E_CONFLICT,
                          "ticket_file: %.300s is in a folder that attestd-keyd gave up access to "
                          "when it started: restart attestd-keyd",
                          paths->ticket);
}

/* Under which alone the account key signs: of another server than an attest-issuerd its origin, for
 * nobody knows how it lays out its URLs. */
static const char *issuer_url(const struct conf_attestd *conf, char ret[PROC_ISSUER_URL_MAX + 1])
{
    if (!conf->acme) {
        return conf->issuer ? conf->issuer->url : NULL;
    }
    snprintf(ret, PROC_ISSUER_URL_MAX + 1, "%.*s", (int)conf_acme_origin(conf->acme->directory),
             conf->acme->directory);
    return ret;
}

static enum keyd_acme acme_of(const struct conf_attestd *conf)
{
    return !conf->acme ? KEYD_ACME_NONE : conf->acme->attestation_ca ? KEYD_ACME_CA : KEYD_ACME;
}

static void reload(const char *config, const struct conf_attestd *first, struct keyd *keyd)
{
    struct conf_attestd *conf = NULL;
    struct paths paths;
    struct att_err err = {0};
    char url[PROC_ISSUER_URL_MAX + 1];
    proc_notify_reloading();
    enum att_rc rc = load_config(config, &conf, &err);
    if (rc == ATT_OK) {
        rc = find_paths(conf, config, &paths, &err);
    }
    if (rc == ATT_OK) {
        rc = check_reload(first, conf, config, &paths, &err);
    }
    if (rc == ATT_OK) {
        rc = keyd_set_ticket(keyd, paths.ticket[0] ? paths.ticket : NULL, &err);
    }
    if (rc == ATT_OK) {
        att_log_setup("attestd-keyd", conf->log_least, conf->log_json);
        rc = keyd_set_issuer(keyd, issuer_url(conf, url), &err);
    }
    if (rc == ATT_OK) {
        keyd_set_acme(keyd, acme_of(conf));
    }
    if (rc == ATT_OK) {
        rc = keyd_reload_policies(keyd, &err);
    }
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "keyd.reloaded", ATT_S("config", config));
    } else {
        att_log_err(ATT_ERROR, "keyd.reload-refused", &err);
    }
    conf_attestd_free(conf);
    proc_notify_ready(NULL);
}

static void loop(const char *config, const struct conf_attestd *conf, struct keyd *keyd,
                 const sigset_t *signals)
{
    int64_t period = proc_notify_watchdog_period_ms();
    period = period > 0 && period < STATUS_PERIOD_MS ? period : STATUS_PERIOD_MS;
    const struct timespec wait = {period / 1000, (period % 1000) * 1000000};
    for (;;) {
        char status[256];
        keyd_status(keyd, status, sizeof status);
        proc_notify_status(status);
        proc_notify_watchdog();
        int got = sigtimedwait(signals, NULL, &wait);
        if (got == SIGHUP) {
            reload(config, conf, keyd);
        } else if (got == SIGTERM || got == SIGINT) {
            att_log(ATT_INFO, "keyd.stopping", ATT_S("signal", got == SIGTERM ? "TERM" : "INT"));
            return;
        }
    }
}

/* run_dir is for all to enter: attestd's control socket may be a group's. */
static enum att_rc make_socket_dir(const struct conf_attestd *conf, const struct paths *paths,
                                   struct att_err *err)
{
    mode_t mask = umask(022);
    enum att_rc rc = att_io_mkdirs(conf->run_dir, 0755, err);
    if (rc == ATT_OK) {
        rc = att_io_mkdirs(paths->socket_dir, 0750, err);
    }
    umask(mask);
    return rc;
}

static enum keyd_pcr_mode pcr_mode(const char *word)
{
    return strcmp(word, "signed") == 0 ? KEYD_PCR_SIGNED
           : strcmp(word, "7") == 0    ? KEYD_PCR_7
                                       : KEYD_PCR_NONE;
}

static enum att_rc find_hsms(const struct conf_attestd *conf, const struct command *cmd,
                             const struct paths *paths, struct keyd_hsm_opts ret[KEYD_HSMS_MAX],
                             struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    for (unsigned i = 0; rc == ATT_OK && i < conf->n_hsms; i++) {
        const struct conf_attestd_hsm *hsm = &conf->hsms[i];
        ret[i] = (struct keyd_hsm_opts){hsm->name, paths->hsm_sockets[i], cmd->hsm_user};
        if (hsm->user) {
            rc = proc_user_find(hsm->user, &ret[i].user, err);
        }
        if (rc != ATT_OK) {
            att_err_prefix(err, "HSM module %s: user", hsm->name);
        }
    }
    return rc;
}

static enum att_rc start(const struct conf_attestd *conf, const struct command *cmd,
                         struct keyd **ret, struct att_err *err)
{
    struct paths paths;
    struct keyd *keyd = NULL;
    struct keyd_hsm_opts hsms[KEYD_HSMS_MAX];
    char url[PROC_ISSUER_URL_MAX + 1];
    enum att_rc rc = find_paths(conf, cmd->config, &paths, err);
    if (rc == ATT_OK) {
        rc = find_hsms(conf, cmd, &paths, hsms, err);
    }
    if (rc == ATT_OK) {
        rc = make_socket_dir(conf, &paths, err);
    }
    if (rc == ATT_OK) {
        const struct keyd_opts opts = {
            .tcti = conf->tpm->tcti,
            .sealing = {pcr_mode(conf->tpm->pcr), conf->tpm->policy_key, conf->tpm->policy_ref,
                        conf->tpm->policies},
            .dir = paths.dir,
            .socket_path = paths.socket,
            .issuer_url = issuer_url(conf, url),
            .acme = acme_of(conf),
            .ak_rsa = rsa_of(conf),
            .ticket_path = paths.ticket[0] ? paths.ticket : NULL,
            .clients = cmd->clients,
            .signers = cmd->signers,
            .exporters = cmd->exporters,
            .hsms = hsms,
            .n_hsms = conf->n_hsms,
            .sign_socket_path = paths.sign_socket,
            .quota = {conf->signatures->per_second, conf->signatures->burst},
            .on_event = log_event,
        };
        rc = keyd_new(&opts, &keyd, err);
    }
    if (rc == ATT_OK) {
        rc = enter_sandbox(&paths, keyd, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_start(keyd, err);
    }
    if (rc != ATT_OK) {
        keyd_free(keyd);
        return rc;
    }
    *ret = keyd;
    return ATT_OK;
}

/* Our secrets have locked pages of their own; what ESYS copies to its heap (the authValue in its
 * session, the response of an unseal) has not. Where the limit allows, nothing of this process is
 * ever swapped; pages are locked as they are touched, so that this costs no memory. */
static void lock_memory(void)
{
    struct rlimit limit;
    bool may = getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY;
    if (!may || mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0) {
        att_log(ATT_INFO, "keyd.memory-not-locked",
                ATT_S("message", may ? strerror(errno)
                                     : "LimitMEMLOCK is not infinity: only our own secrets are "
                                       "kept out of swap"));
    }
}

/* Whatever is on disk is whole at any instant, so an end without goodbye loses nothing. */
static void *end_at_last(void *arg)
{
    struct timespec left = {.tv_sec = END_S};
    (void)arg;
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
    att_log(ATT_ERROR, "keyd.end-forced", ATT_S("message", "the TPM did not answer until the end"));
    _exit(EXIT_REFUSED);
}

static void bound_the_end(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, end_at_last, NULL) == 0) {
        pthread_detach(thread);
    }
}

static int run(const struct command *cmd)
{
    const char *config = cmd->config;
    struct conf_attestd *conf = NULL;
    struct keyd *keyd = NULL;
    struct att_err err = {0};
    sigset_t signals;
    if (load_config(config, &conf, &err) != ATT_OK) {
        fprintf(stderr, "attestd-keyd: %s\n", err.msg);
        return EXIT_REFUSED;
    }
    att_log_setup("attestd-keyd", conf->log_least, conf->log_json);
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL); /* before threads: they inherit it */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error like a full disk */
    /* Traces of TSS hold what goes to the TPM: whoever starts us does not turn them on. */
    (void)setenv("TSS2_LOG", "all+NONE", 1);
    umask(077);
    if (CRYPTO_secure_malloc_init(SECURE_HEAP, 32) != 1) {
        att_log(ATT_WARN, "keyd.secure-heap", ATT_S("message", "libcrypto's heap is not locked"));
    }
    lock_memory();
    enum att_rc rc = start(conf, cmd, &keyd, &err);
    if (rc != ATT_OK) {
        conf_attestd_free(conf);
        att_log_err(ATT_ERROR, "keyd.start", &err);
        return EXIT_REFUSED;
    }
    proc_notify_ready("waiting for the TPM");
    loop(config, conf, keyd, &signals);
    proc_notify_stopping("stopping");
    bound_the_end();
    keyd_free(keyd);
    conf_attestd_free(conf);
    return EXIT_SUCCESS;
}

static int check_config(const char *config)
{
    struct conf_attestd *conf = NULL;
    struct att_err err = {0};
    enum att_rc rc = load_config(config, &conf, &err);
    conf_attestd_free(conf);
    fprintf(rc == ATT_OK ? stdout : stderr, "%s: %s\n", config, rc == ATT_OK ? "ok" : err.msg);
    return rc == ATT_OK ? EXIT_SUCCESS : EXIT_REFUSED;
}

static int bad_user(const char *option, const struct att_err *err)
{
    fprintf(stderr, "attestd-keyd: %s: %s\n", option, err->msg);
    return EXIT_REFUSED;
}

/* A list of users says nothing of root, who is let in by itself elsewhere, and is given no key. */
static int add_exporter(struct command *cmd, const char *name)
{
    struct att_err err = {0};
    uid_t uid;
    if (proc_user_find(name, &uid, &err) == ATT_OK && uid == 0) {
        (void)!att_fail(&err, ATT_E_INVAL,
                        "expected the user that attestd-spiffed runs as, found root, who is given "
                        "no private key");
        return bad_user("--exporter", &err);
    }
    return proc_users_add(&cmd->exporters, name, &err) == ATT_OK ? -1
                                                                 : bad_user("--exporter", &err);
}

/* -1: go on; else the exit code. */
static int take_option(struct command *cmd, int option)
{
    struct att_err err = {0};
    switch (option) {
    case 'c':
        cmd->config = optarg;
        return -1;
    case 'u':
        return proc_users_add(&cmd->clients, optarg, &err) == ATT_OK ? -1
                                                                     : bad_user("--client", &err);
    case 's':
        return proc_users_add(&cmd->signers, optarg, &err) == ATT_OK ? -1
                                                                     : bad_user("--signer", &err);
    case 'e':
        return add_exporter(cmd, optarg);
    case 'm':
        return proc_user_find(optarg, &cmd->hsm_user, &err) == ATT_OK
                   ? -1
                   : bad_user("--hsm-user", &err);
    case 'k':
        cmd->check = true;
        return -1;
    case 'h':
        usage(stdout);
        return EXIT_SUCCESS;
    case 'v':
        puts("attestd-keyd " ATT_VERSION);
        return EXIT_SUCCESS;
    default:
        usage(stderr);
        return EXIT_USAGE;
    }
}

int keyd_main(int argc, char **argv)
{
    static const struct option options[] = {{"config", required_argument, NULL, 'c'},
                                            {"client", required_argument, NULL, 'u'},
                                            {"signer", required_argument, NULL, 's'},
                                            {"hsm-user", required_argument, NULL, 'm'},
                                            {"exporter", required_argument, NULL, 'e'},
                                            {"check", no_argument, NULL, 'k'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, 'v'},
                                            {NULL, 0, NULL, 0}};
    struct command cmd = {.config = CONFIG_DEFAULT, .hsm_user = geteuid()};
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
    const struct proc_users self = {{geteuid()}, 1};
    cmd.clients = cmd.clients.count ? cmd.clients : self;
    cmd.signers = cmd.signers.count ? cmd.signers : self;
    return cmd.check ? check_config(cmd.config) : run(&cmd);
}
