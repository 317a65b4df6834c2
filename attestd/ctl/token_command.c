/* attestctl token: a JWT-SVID for who may use attestd's control socket, or what a profile's service
 * gives for it or for the agent's certificate; once, from a cache, or kept fresh in a file. */
#include "attestd/ctl/token_command.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/conf/exchange.h"
#include "attestd/ctl/tokenget.h"

#include <errno.h>
#include <openssl/rand.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PROFILES       "/etc/attestd/exchange.d"
#define RETRY_FIRST_MS 1000
#define RETRY_MOST_MS  60000
#define LOOK_MS        5000 /* between looks whether the certificate is another one */

struct job {
    struct tokenget_job get;
    const char *out;
};

/* Whoever reads the file can use the token: nobody but the caller, and never half of it. */
static enum ctl_exit show(const struct job *job, const json_t *result)
{
    char until[64], bound[64];
    const char *token = json_string_value(json_object_get(result, "token"));
    struct att_err err = {0};
    if (!token) {
        (void)att_fail(&err, ATT_E_PROTOCOL, "attestd answered without a token");
        return ctl_report(&err);
    }
    if (job->out) {
        if (att_io_write_file(job->out, att_slice_str(token), 0600, &err) != ATT_OK) {
            return ctl_report(&err);
        }
        bool tied = json_object_get(result, "boundTo");
        printf("%s: until %s%s%s\n", job->out, ctl_text(result, "expiresAt", until, sizeof until),
               tied ? ", bound to certificate " : "",
               tied ? ctl_text(result, "boundTo", bound, sizeof bound) : "");
        fflush(stdout);
    } else if (job->get.ctx->json) {
        ctl_print_json(result);
    } else {
        puts(token);
    }
    return CTL_OK;
}

/* ret_got: on success only. */
static enum ctl_exit once(const struct job *job, struct tokenget *ret_got)
{
    struct tokenget got = {0};
    enum ctl_exit rc = tokenget_run(&job->get, &got);
    rc = rc == CTL_OK ? show(job, got.result) : rc;
    if (rc != CTL_OK) {
        tokenget_done(&got);
        return rc;
    }
    tokenget_done(ret_got);
    *ret_got = got;
    return CTL_OK;
}

/* ---- kept fresh ---- */

/* ms ± a tenth, so that many that began together do not stay together. */
static int64_t jittered(int64_t ms)
{
    uint32_t random = UINT32_MAX / 2;
    (void)RAND_bytes((unsigned char *)&random, sizeof random);
    return ms - ms / 10 + (int64_t)((double)ms / 5 * ((double)random / UINT32_MAX));
}

/* Whether it is time to end. On the clock that counts while the machine sleeps, in steps, since no
 * wait for a signal goes by that. A token whose certificate was replaced is not waited for. */
static bool wait_or_end(const sigset_t *ends, int64_t ms, const struct tokenget *got)
{
    int64_t until = att_boottime_ms() + ms;
    for (int64_t left; (left = until - att_boottime_ms()) > 0;) {
        left = left > LOOK_MS ? LOOK_MS : left;
        struct timespec step = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
        if (sigtimedwait(ends, NULL, &step) > 0) {
            return true;
        }
        if (got->bound && tokenget_outdated(got)) {
            return false;
        }
    }
    return false;
}

/* Half of what is left; with less than two seconds, one. */
static int64_t until_next(int64_t expires_at)
{
    int64_t left_ms = expires_at * 1000 - att_now_utc_ms();
    return left_ms > 2000 ? jittered(left_ms / 2) : 1000;
}

/* What the first attempt says is the exit code: a wrong profile is seen at start. After that
 * nothing ends this but a signal; the file keeps what it has until there is something newer. */
static enum ctl_exit keep_fresh(const struct job *job, struct tokenget *got)
{
    static const struct tokenget none;
    sigset_t ends;
    int64_t retry_ms = RETRY_FIRST_MS;
    bool good = true;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    enum ctl_exit rc = once(job, got);
    if (rc != CTL_OK) {
        return rc;
    }
    for (int64_t wait_ms = until_next(got->expires_at);
         !wait_or_end(&ends, wait_ms, good ? got : &none);) {
        good = once(job, got) == CTL_OK;
        if (good) {
            retry_ms = RETRY_FIRST_MS;
            wait_ms = until_next(got->expires_at);
        } else {
            wait_ms = jittered(retry_ms);
            retry_ms = retry_ms * 2 > RETRY_MOST_MS ? RETRY_MOST_MS : retry_ms * 2;
        }
    }
    return CTL_OK;
}

/* ---- the command ---- */

static enum ctl_exit report_errors(const char *path, const struct conf_errors *errors,
                                   const struct att_err *err)
{
    for (size_t i = 0; i < errors->n; i++) {
        att_autobuf text = {0};
        conf_error_text(&errors->v[i], path, &text);
        const char *line = att_buf_cstr(&text);
        fprintf(stderr, "attestctl: %s\n", line ? line : path);
    }
    return errors->n ? CTL_FAILED : ctl_report(err);
}

/* A word is a file of the folder; with a slash in it, it is a path. */
static enum ctl_exit load(const char *profile, struct conf_exchange **ret_profile)
{
    char path[4200];
    struct att_err err = {0};
    if (strchr(profile, '/')) {
        snprintf(path, sizeof path, "%.4100s", profile);
    } else if (conf_name_check(profile, &err) == ATT_OK) {
        snprintf(path, sizeof path, PROFILES "/%s.yaml", profile);
    } else {
        att_err_prefix(&err, "--exchange");
        (void)ctl_report(&err);
        return CTL_USAGE;
    }
    struct conf_errors *errors = calloc(1, sizeof *errors);
    if (!errors) {
        (void)att_fail(&err, ATT_E_NOMEM, "--exchange");
        return ctl_report(&err);
    }
    enum ctl_exit rc = conf_exchange_load(path, ret_profile, errors, &err) == ATT_OK
                           ? CTL_OK
                           : report_errors(path, errors, &err);
    free(errors);
    return rc;
}

static enum ctl_exit usage(const char *words)
{
    fprintf(stderr, "attestctl: token: %s\n", words);
    return CTL_USAGE;
}

static enum ctl_exit check_usage(const struct job *job, const char *profile, bool refresh)
{
    if (!profile == !job->get.audience) {
        return usage("expected one of --audience and --exchange; a profile has an audience");
    }
    if (refresh && !job->out) {
        return usage("--refresh: expected --out FILE");
    }
    if (job->get.cache && !profile) {
        return usage("--cache: expected --exchange PROFILE");
    }
    if (job->get.cache && refresh) {
        return usage("--cache is for one call after the other, --refresh for one that stays: "
                     "expected one of them");
    }
    return CTL_OK;
}

enum ctl_exit ctl_token_run(const struct ctl_ctx *ctx, const struct ctl_args *args,
                            const json_t *result)
{
    (void)result; /* nothing was asked yet */
    const char *profile = json_string_value(json_object_get(args->json, "exchange"));
    bool refresh = json_object_get(args->json, "refresh");
    struct conf_exchange *loaded = NULL;
    struct tokenget got = {0};
    struct job job = {
        .get = {.ctx = ctx,
                .name = json_string_value(json_object_get(args->json, "name")),
                .audience = json_string_value(json_object_get(args->json, "audience")),
                .cache = json_string_value(json_object_get(args->json, "cache"))},
        .out = args->out};
    enum ctl_exit rc = check_usage(&job, profile, refresh);
    if (rc == CTL_OK && profile) {
        rc = load(profile, &loaded);
        job.get.profile = loaded;
    }
    if (rc == CTL_OK) {
        (void)signal(SIGPIPE, SIG_IGN); /* libcurl's connections */
        rc = refresh ? keep_fresh(&job, &got) : once(&job, &got);
    }
    tokenget_done(&got);
    conf_exchange_free(loaded);
    return rc;
}
