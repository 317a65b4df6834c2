/* The main thread: start, timers, signals, end. */
#include "attestd/host/federation.h"
#include "attestd/host/internal.h"
#include "attestd/base/io.h"
#include "attestd/host/metrics.h"
#include "attestd/proc/notify.h"
#include "attestd/proc/who_proto.h"
#include "attestd/web/plain.h"

#include <event2/event.h>

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct loop {
    struct host *host;
    struct host_keydwatch *watch;
    struct event_base *base;
    int timer_fd, jump_fd; /* CLOCK_BOOTTIME; CLOCK_REALTIME, cancelled when the clock is set */
    struct event *events[8];
    size_t n_events;
};

/* ---- configuration -----------------------------------------------------------------------------
 */

static void print_errors(const char *path, const struct conf_errors *errors)
{
    for (size_t i = 0; i < errors->n; i++) {
        att_autobuf line = {0};
        conf_error_text(&errors->v[i], path, &line);
        const char *text = att_buf_cstr(&line);
        fprintf(stderr, "%s\n", text ? text : "out of memory");
    }
    if (errors->dropped) {
        fprintf(stderr, "%s: %zu more errors\n", path, errors->dropped);
    }
}

enum att_rc host_conf_load(const struct host_options *opts, struct conf_attestd **ret_conf,
                           struct att_err *err)
{
    struct conf_errors *errors = calloc(1, sizeof(*errors));
    if (!errors) {
        return att_fail(err, ATT_E_NOMEM, "no memory for the configuration");
    }
    struct conf_attestd *conf = NULL;
    enum att_rc rc = conf_attestd_load(opts->conf_path, &conf, errors, err);
    if (rc != ATT_OK) {
        print_errors(opts->conf_path, errors);
    }
    free(errors);
    if (rc == ATT_OK && opts->state_dir) {
        rc = conf_path_set(&conf->state_dir, opts->state_dir, err);
    }
    if (rc == ATT_OK && opts->run_dir) {
        rc = conf_path_set(&conf->run_dir, opts->run_dir, err);
    }
    if (rc != ATT_OK) {
        conf_attestd_free(conf);
        return rc;
    }
    if (opts->log) {
        conf->log_json = strcmp(opts->log, "json") == 0;
    }
    *ret_conf = conf;
    return ATT_OK;
}

/* SIGHUP. The old configuration stays readable for threads that are in the middle of using it. */
static void reload(struct host *host)
{
    proc_notify_reloading();
    struct att_err err = {0};
    struct conf_attestd *conf = NULL;
    struct conf_acme_agents *agents = NULL;
    ATT_CLEANUP(host_local_unref) struct host_local *local = NULL;
    enum att_rc rc = host_conf_load(host->opts, &conf, &err);
    if (rc == ATT_OK) {
        rc = host_local_load(host->opts->conf_path, &local, &err);
    }
    if (rc == ATT_OK) {
        rc = host_acme_agents_load(conf, &agents, &err);
    }
    struct conf_attestd **kept = NULL;
    if (rc == ATT_OK) {
        kept = realloc(host->old_confs, (host->n_old_confs + 1) * sizeof(struct conf_attestd *));
        rc = kept ? ATT_OK : att_fail(&err, ATT_E_NOMEM, "no memory to reload");
    }
    if (kept) {
        host->old_confs = kept;
    }
    if (rc == ATT_OK) {
        rc = host_reload_check(host, conf, &err);
    }
    if (rc != ATT_OK) {
        att_log_err(ATT_ERROR, "conf.notReloaded", &err);
        conf_attestd_free(conf);
        conf_acme_agents_free(agents);
    } else {
        HOST_LOCKED(host);
        host->old_confs[host->n_old_confs++] = host->conf;
        host->conf = conf;
        struct host_local *before = host->local;
        host->local = local;
        local = before; /* let go at the end */
        host_acme_agents_put(host, agents);
        host->generation += host->generation != 0; /* clients are made anew */
        host_nudge(host);
        att_log_setup("attestd", conf->log_least, conf->log_json);
        att_log(ATT_INFO, "conf.reloaded", ATT_S("file", host->opts->conf_path));
    }
    proc_notify_ready("reloaded");
}

/* ---- the loop ----------------------------------------------------------------------------------
 */

static void status_line(struct host *host)
{
    char text[200];
    {
        HOST_LOCKED(host);
        size_t n = agent_registry_count(host->reg), valid = 0;
        for (size_t i = 0; i < n; i++) {
            valid += agent_life_serving(&agent_registry_at(host->reg, i)->rec.life);
        }
        snprintf(text, sizeof(text), "%s; %zu of %zu agents have certificates%s%s",
                 host_phase_name(host->phase), valid, n,
                 host->last_error.at ? "; last error: " : "",
                 host->last_error.at
                     ? host->last_error.reason[0] ? host->last_error.reason : host->last_error.code
                     : "");
    }
    proc_notify_status(text);
}

static void arm(struct loop *loop)
{
    int64_t wait;
    {
        HOST_LOCKED(loop->host);
        wait = host_agents_wait_ms(loop->host, host_now());
        /* With the same look at the clock: who is ready now is in no timer. */
        pthread_cond_broadcast(&loop->host->changed);
    }
    struct itimerspec at = {
        .it_value = {.tv_sec = (time_t)(wait / 1000), .tv_nsec = (long)(wait % 1000) * 1000000}};
    (void)timerfd_settime(loop->timer_fd, 0, &at, NULL);
}

static void observe_clock(struct host *host)
{
    HOST_LOCKED(host);
    int64_t jump = agent_clock_observe(&host->clock, att_now_utc_ms(), att_boottime_ms());
    if (jump != 0) {
        host->clock_jump_ms = jump;
        host->clock_jump_at = att_now_utc_s();
        att_log(ATT_WARN, "clock.jump", ATT_N("ms", jump));
    }
    pthread_cond_broadcast(&host->changed);
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
    (void)what;
    struct loop *loop = arg;
    uint64_t count;
    if (fd >= 0 && read(fd, &count, sizeof(count)) < 0 && errno != ECANCELED && errno != EAGAIN) {
        att_log(ATT_ERROR, "timer.broken", ATT_N("errno", errno));
    }
    observe_clock(loop->host);
    status_line(loop->host);
    arm(loop);
}

/* Fires only by being cancelled: somebody set the wall clock. */
static void arm_jump(int fd)
{
    struct itimerspec never = {.it_value = {.tv_sec = (time_t)INT32_MAX * 4}};
    (void)timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, NULL);
}

static void on_jump(evutil_socket_t fd, short what, void *arg)
{
    on_tick(fd, what, arg);
    arm_jump(fd);
}

static void on_watchdog(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct loop *loop = arg;
    HOST_LOCKED(loop->host); /* a lock that nobody gives back is a reason to be restarted */
    proc_notify_watchdog();
}

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
    (void)what;
    struct loop *loop = arg;
    if (sig == SIGHUP) {
        reload(loop->host);
        return;
    }
    att_log(ATT_INFO, "stopping", ATT_N("signal", sig));
    event_base_loopbreak(loop->base);
}

static enum att_rc add(struct loop *loop, evutil_socket_t fd, short what, event_callback_fn fn,
                       int64_t period_ms, struct att_err *err)
{
    struct event *event = event_new(loop->base, fd, (short)(what | EV_PERSIST), fn, loop);
    struct timeval period = {.tv_sec = (time_t)(period_ms / 1000),
                             .tv_usec = (suseconds_t)(period_ms % 1000) * 1000};
    if (!event || event_add(event, period_ms ? &period : NULL) != 0) {
        return att_fail(err, ATT_E_NOMEM, "cannot set up the event loop");
    }
    loop->events[loop->n_events++] = event;
    return ATT_OK;
}

static enum att_rc loop_init(struct loop *loop, struct att_err *err)
{
    loop->base = event_base_new();
    loop->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    loop->jump_fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (!loop->base || loop->timer_fd < 0 || loop->jump_fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "cannot set up the event loop");
    }
    arm_jump(loop->jump_fd);
    const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < sizeof(signals) / sizeof(signals[0]); i++) {
        rc = add(loop, signals[i], EV_SIGNAL, on_signal, 0, err);
    }
    if (rc == ATT_OK) {
        rc = add(loop, loop->timer_fd, EV_READ, on_tick, 0, err);
    }
    if (rc == ATT_OK) {
        rc = add(loop, loop->jump_fd, EV_READ, on_jump, 0, err);
    }
    if (rc == ATT_OK) {
        rc = add(loop, loop->host->wake_fd, EV_READ, on_tick, 0, err);
    }
    if (rc == ATT_OK) {
        rc = host_keydwatch_new(loop->host, loop->base, &loop->watch, err);
    }
    int64_t watchdog = proc_notify_watchdog_period_ms();
    if (rc == ATT_OK && watchdog > 0) {
        rc = add(loop, -1, 0, on_watchdog, watchdog, err);
    }
    return rc;
}

static void loop_done(struct loop *loop)
{
    host_keydwatch_free(loop->watch);
    for (size_t i = 0; i < loop->n_events; i++) {
        event_free(loop->events[i]);
    }
    if (loop->base) {
        event_base_free(loop->base);
    }
    att_close(&loop->timer_fd);
    att_close(&loop->jump_fd);
}

/* ---- start -------------------------------------------------------------------------------------
 */

/* What the kernel says in one line; empty where it cannot be read, is longer, or is not plain text.
 */
static void read_line(const char *path, char *ret, size_t size)
{
    att_autobuf text = {0};
    ret[0] = '\0';
    if (att_io_read_file(path, size, &text, NULL) != ATT_OK) {
        return;
    }
    size_t len = text.len;
    while (len > 0 && text.ptr[len - 1] <= ' ') {
        len--;
    }
    for (size_t i = 0; i < len; i++) {
        if (text.ptr[i] < ' ' || text.ptr[i] > '~') {
            return;
        }
    }
    if (len < size) {
        memcpy(ret, text.ptr, len);
        ret[len] = '\0';
    }
}

static enum att_rc load_ak(struct host *host, struct att_err *err)
{
    host->ak_pem = ATT_BUF_INIT(CERTS_CHAIN_MAX_LEN);
    enum att_rc rc =
        att_io_read_file(host->paths.ak_chain, CERTS_CHAIN_MAX_LEN, &host->ak_pem, err);
    if (rc == ATT_OK) {
        certs_autostack *certs = NULL;
        rc = certs_pem_parse(att_buf_slice(&host->ak_pem), &certs, err);
        if (rc == ATT_E_PARSE && att_io_set_aside(host->paths.ak_chain, NULL) == ATT_OK) {
            att_err_prefix(err, "%s (kept as .bad)", host->paths.ak_chain);
        }
    }
    if (rc != ATT_OK) {
        att_buf_reset(&host->ak_pem); /* enrolment makes another */
    }
    return rc;
}

/* Everything on disk. Only what cannot be read is an error (a record is written again, and must not
 * take the place of one that a disk would not give): bad files were set aside. */
static enum att_rc load_state(struct host *host, struct att_err *err)
{
    struct att_err why = {0};
    enum att_rc rc = host_record_load(host->paths.record, &host->rec, &why);
    if (rc != ATT_OK && rc != ATT_E_NOTFOUND && rc != ATT_E_PARSE) {
        return att_fail(err, rc, "%s", why.msg);
    }
    if (rc == ATT_E_PARSE) {
        att_log_err(ATT_ERROR, "host.recordBad", &why);
    }
    att_err_clear(&why);
    rc = load_ak(host, &why);
    if (rc != ATT_OK && rc != ATT_E_NOTFOUND) {
        att_log_err(ATT_ERROR, "host.akCertificateBad", &why);
    }
    rc = host_agents_load(host, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (host->conf->acme) {
        return host_acme_start(host, err);
    }
    att_err_clear(&why);
    rc = host_view_load(host, &why);
    if (rc != ATT_OK && rc != ATT_E_NOTFOUND) {
        att_log_err(ATT_ERROR, "host.viewBad", &why);
    }
    return ATT_OK;
}

/* The folder that a file is in: who replaces a file atomically gives its name to another inode. */
static const char *folder_of(const char *path, char ret[4096])
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    if (!path || (slash && (size_t)(slash - path) >= 4096)) {
        return NULL;
    }
    if (!slash || slash == path) {
        return slash ? path : "."; /* a file in / is allowed alone */
    }
    memcpy(ret, path, (size_t)(slash - path));
    ret[slash - path] = '\0';
    return ret;
}

struct reach {
    char conf_dir[4096], ca_dir[4096], ticket_dir[4096], acme_dirs[6][4096];
    struct proc_sandbox_path paths[16];
};

#define ACME_FILES 6
/* The files that the section acme names; NULL: not given. */
static void acme_files(const struct conf_attestd *conf, const char *ret[ACME_FILES])
{
    static const struct conf_attestd_acme none = {0};
    const struct conf_attestd_acme *acme = conf->acme ? conf->acme : &none;
    ret[0] = acme->ca_file;
    ret[1] = acme->roots;
    ret[2] = acme->agents;
    ret[3] = acme->eab ? acme->eab->key_file : NULL;
    ret[4] = acme->attestation_ca ? acme->attestation_ca->ca_file : NULL;
    ret[5] = acme->ak_certificate;
}

static void find_reach(const struct host *host, const struct conf_attestd *conf, struct reach *ret)
{
    const char *ca_file = conf->issuer ? conf->issuer->ca_file : NULL;
    const struct proc_sandbox_path wanted[] = {
        {host->paths.dir, PROC_PATH_WRITE},
        {conf->run_dir, PROC_PATH_WRITE},
        {folder_of(host->opts->conf_path, ret->conf_dir), PROC_PATH_READ},
        {folder_of(ca_file, ret->ca_dir), PROC_PATH_READ},
        {folder_of(conf->ticket_file, ret->ticket_dir), PROC_PATH_READ},
        {getenv("CREDENTIALS_DIRECTORY"), PROC_PATH_READ},
        {conf->logs->firmware, PROC_PATH_READ},
        {conf->logs->systemd, PROC_PATH_READ},
        {conf->logs->ima, PROC_PATH_READ}};
    size_t n = 0;
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
        if (wanted[i].path) {
            ret->paths[n++] = wanted[i];
        }
    }
    const char *files[ACME_FILES];
    acme_files(conf, files);
    for (size_t i = 0; i < ACME_FILES; i++) {
        const char *dir = folder_of(files[i], ret->acme_dirs[i]);
        if (dir) {
            ret->paths[n++] = (struct proc_sandbox_path){dir, PROC_PATH_READ};
        }
    }
    ret->paths[n].path = NULL;
}

enum att_rc host_reload_check(const struct host *host, const struct conf_attestd *conf,
                              struct att_err *err)
{
    const struct conf_attestd *first = host->n_old_confs ? host->old_confs[0] : host->conf;
    const struct {
        const char *key, *path;
    } named[] = {{"issuer.ca_file", conf->issuer ? conf->issuer->ca_file : NULL},
                 {"ticket_file", conf->ticket_file},
                 {"logs.firmware", conf->logs->firmware},
                 {"logs.systemd", conf->logs->systemd},
                 {"logs.ima", conf->logs->ima}};
    struct reach reach;
    const char *files[ACME_FILES];
    if (!conf->acme != !first->acme) {
        return att_fail(err, ATT_E_CONFLICT,
                        "an attest-issuerd and another server (section acme) do not take each "
                        "other's place while running: restart attestd");
    }
    if (strcmp(conf->state_dir, first->state_dir) != 0 ||
        strcmp(conf->run_dir, first->run_dir) != 0) {
        return att_fail(err, ATT_E_CONFLICT,
                        "state_dir and run_dir cannot change while running: restart attestd");
    }
    if (strcmp(conf->metrics_listen, first->metrics_listen) != 0) {
        return att_fail(err, ATT_E_CONFLICT,
                        "metrics_listen cannot change while running: restart attestd");
    }
    find_reach(host, first, &reach);
    for (size_t i = 0; i < sizeof(named) / sizeof(named[0]); i++) {
        if (!proc_sandbox_covers(reach.paths, named[i].path)) {
            return att_fail(err, ATT_E_CONFLICT,
                            "%s: %.300s is in a folder that attestd gave up access to when it "
                            "started: restart attestd",
                            named[i].key, named[i].path);
        }
    }
    acme_files(conf, files);
    for (size_t i = 0; i < ACME_FILES; i++) {
        if (!proc_sandbox_covers(reach.paths, files[i])) {
            return att_fail(err, ATT_E_CONFLICT,
                            "acme: %.300s is in a folder that attestd gave up access to when it "
                            "started: restart attestd",
                            files[i]);
        }
    }
    return ATT_OK;
}

enum att_rc host_sandbox_enter(struct host *host, struct att_err *err)
{
    struct reach reach;
    find_reach(host, host->conf, &reach);
    struct proc_sandbox_opts opts = {.profile = PROC_PROFILE_ATTESTD, .paths = reach.paths};
    enum att_rc rc = proc_sandbox_enter(&opts, &host->sandbox, err);
    if (rc == ATT_OK) {
        att_log(ATT_INFO, "sandbox", ATT_S("profile", host->sandbox.profile),
                ATT_S("seccomp", host->sandbox.seccomp),
                ATT_N("landlock", host->sandbox.landlock_abi),
                ATT_S("reason", host->sandbox.reason));
    }
    return rc;
}

static enum att_rc init_locks(struct host *host, struct att_err *err)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&host->lock, NULL);
    pthread_mutex_init(&host->freeze_lock, NULL);
    pthread_mutex_init(&host->notes.lock, NULL);
    for (size_t i = 0; i < HOST_SAVE_LOCKS; i++) {
        pthread_mutex_init(&host->save_locks[i], NULL);
    }
    pthread_cond_init(&host->changed, &attr);
    pthread_condattr_destroy(&attr);
    host->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return host->wake_fd < 0 ? att_fail_errno(err, ATT_E_IO, "eventfd") : ATT_OK;
}

static enum att_rc start(struct host *host, struct att_err *err)
{
    enum att_rc rc = host_paths_init(&host->paths, host->conf, err);
    if (rc == ATT_OK) {
        rc = host_paths_make(&host->paths, err);
    }
    if (rc == ATT_OK) {
        rc = att_io_mkdirs(host->conf->run_dir, 0755, err);
    }
    if (rc == ATT_OK) {
        rc = host_lock_take(host->paths.lock, &host->lock_fd, err);
    }
    if (rc == ATT_OK) {
        rc = agent_registry_new(&host->reg, err);
    }
    host->keyd_uid = geteuid();
    if (rc == ATT_OK && host->opts->keyd_user) {
        rc = proc_user_find(host->opts->keyd_user, &host->keyd_uid, err);
    }
    host->tokend_uid = geteuid();
    if (rc == ATT_OK && host->opts->tokend_user) {
        rc = proc_user_find(host->opts->tokend_user, &host->tokend_uid, err);
    }
    host->spiffed_uid = geteuid();
    if (rc == ATT_OK && host->opts->spiffed_user) {
        rc = proc_user_find(host->opts->spiffed_user, &host->spiffed_uid, err);
    }
    uid_t whod_uid = geteuid();
    if (rc == ATT_OK && host->opts->whod_user) {
        rc = proc_user_find(host->opts->whod_user, &whod_uid, err);
    }
    if (rc == ATT_OK && host->opts->ipc_group) {
        rc = proc_group_find(host->opts->ipc_group, &host->ipc_gid, err);
    }
    if (rc == ATT_OK) {
        rc =
            proc_keyd_new(host->paths.keyd, host->keyd_uid, HOST_KEYD_TIMEOUT_MS, &host->keyd, err);
    }
    if (rc == ATT_OK) {
        rc = proc_caller_new(host->paths.whod, "whod", whod_uid, proc_who_table,
                             HOST_WHOD_TIMEOUT_MS, &host->whod, err);
    }
    if (rc == ATT_OK) {
        rc = proc_caller_new(host->paths.whod, "whod", whod_uid, proc_who_table,
                             HOST_MEASURE_TIMEOUT_MS, &host->measurer, err);
    }
    /* Without it every start counts as another boot. */
    read_line("/proc/sys/kernel/random/boot_id", host->boot_id, sizeof(host->boot_id));
    read_line("/proc/cmdline", host->command_line, sizeof(host->command_line));
    /* Before the first byte of anybody else's is read, and before there are threads. */
    if (rc == ATT_OK) {
        rc = host_sandbox_enter(host, err);
    }
    if (rc == ATT_OK) {
        rc = host_tokens_new(&host->tokens, err);
    }
    if (rc == ATT_OK) {
        rc = host_local_load(host->opts->conf_path, &host->local, err);
    }
    if (rc == ATT_OK) {
        rc = load_state(host, err);
    }
    if (rc == ATT_OK) {
        host_notes_open(host);
    }
    return rc;
}

static void report_start(const struct host *host)
{
    char kinds[64];
    snprintf(kinds, sizeof(kinds), "%zu", agent_registry_count(host->reg));
    att_log(ATT_INFO, "started", ATT_S("version", ATT_VERSION),
            ATT_S("stateDir", host->conf->state_dir), ATT_S("runDir", host->conf->run_dir),
            ATT_S("agents", kinds), ATT_N("viewVersion", (int64_t)host->view_version));
}

/* A group that this machine lacks leaves the socket to root. */
static const char *control_group(const struct conf_attestd *conf)
{
    if (conf->control_group && !getgrnam(conf->control_group)) {
        att_log(ATT_WARN, "control.noGroup", ATT_S("group", conf->control_group),
                ATT_S("access", "root only"));
        return NULL;
    }
    return conf->control_group;
}

static enum att_rc run(struct host *host, struct loop *loop, struct att_err *err)
{
    enum att_rc rc = start(host, err);
    if (rc == ATT_OK) {
        rc = loop_init(loop, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    /* Signals are main's. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    rc = att_ctl_server_new(host->paths.control, control_group(host->conf), host_control, host,
                            &host->ctl, err);
    if (rc == ATT_OK) {
        rc = host_workload_start(host, err);
    }
    if (rc == ATT_OK) {
        rc = host_metrics_start(host, &host->metrics, err);
    }
    if (rc == ATT_OK) {
        rc = host_threads_start(host, err);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != ATT_OK) {
        return rc;
    }
    report_start(host);
    observe_clock(host);
    arm(loop);
    proc_notify_ready("starting");
    if (event_base_dispatch(loop->base) < 0) {
        return att_fail(err, ATT_E_INTERNAL, "the event loop failed");
    }
    return ATT_OK;
}

static void finish(struct host *host)
{
    proc_notify_stopping("stopping");
    atomic_store(&host->stop, true);
    host_clients_cancel(host, true);
    if (host->reg) {
        host_wake(host);
    }
    att_ctl_server_free(host->ctl);
    web_plain_free(host->metrics);
    proc_server_free(host->workload_server);
    host_threads_join(host);
    host_notes_close(host);
    host_clients_free(host);
    proc_keyd_free(host->keyd);
    proc_caller_free(host->whod);
    proc_caller_free(host->measurer);
    host_tokens_free(host->tokens);
    json_decref(host->token_view);
    host_federation_free(host->federation);
    host_selectors_unref(&host->selectors);
    host_local_unref(&host->local);
    conf_acme_agents_free(host->acme_agents);
    conf_acme_agents_free(host->acme_applied);
    proc_identity_done(&host->identity);
    proc_account_done(&host->account);
    host_ticket_done(&host->given.ticket);
    agent_registry_free(host->reg);
    host_spares_free(host);
    host_token_done(&host->token);
    certs_stack_cleanup(&host->bundle);
    host_crls_done(&host->crls);
    att_buf_done(&host->ak_pem);
    host_paths_done(&host->paths);
    for (size_t i = 0; i < host->n_old_confs; i++) {
        conf_attestd_free(host->old_confs[i]);
    }
    free(host->old_confs);
    conf_attestd_free(host->conf);
    att_close(&host->wake_fd);
    att_close(&host->lock_fd); /* last: the folder may be another's now */
    pthread_cond_destroy(&host->changed);
    for (size_t i = 0; i < HOST_SAVE_LOCKS; i++) {
        pthread_mutex_destroy(&host->save_locks[i]);
    }
    pthread_mutex_destroy(&host->freeze_lock);
    pthread_mutex_destroy(&host->notes.lock);
    pthread_mutex_destroy(&host->lock);
}

enum att_rc host_run(const struct host_options *opts, struct conf_attestd *conf,
                     struct att_err *err)
{
    struct host *host = calloc(1, sizeof(*host));
    if (!host) {
        conf_attestd_free(conf);
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    host->opts = opts;
    host->conf = conf;
    host->lock_fd = host->wake_fd = -1;
    host->started_at = att_now_utc_s();
    struct loop loop = {.host = host, .timer_fd = -1, .jump_fd = -1};
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a limit of file sizes is an error like a full disk */
    att_log_setup("attestd", conf->log_least, conf->log_json);
    enum att_rc rc = init_locks(host, err);
    if (rc == ATT_OK) {
        rc = run(host, &loop, err);
    }
    finish(host);
    loop_done(&loop);
    free(host);
    return rc;
}
