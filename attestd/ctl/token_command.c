/* attestctl token: a JWT-SVID for who may use attestd's control socket, or what a profile's service
 * gives for it; once, or kept fresh in a file. */
#include "attestd/ctl/token_command.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/conf/exchange.h"
#include "attestd/ctl/exchange.h"

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

struct job {
    const struct ctl_ctx *ctx;
    const char *audience, *name, *out;
    struct conf_exchange *profile; /* NULL: the JWT-SVID itself */
};

/* ---- one token ---- */

static enum ctl_exit ask(const struct job *job, json_t **ret_result)
{
    const char *audience = job->profile ? job->profile->audience : job->audience;
    att_autojson *args = json_pack("{s:s, s:s}", "name", job->name, "audience", audience);
    struct att_err err = {0};
    if (!args) {
        (void)att_fail(&err, ATT_E_INVAL, "--audience: expected UTF-8 text");
        return ctl_report(&err);
    }
    return ctl_call(job->ctx, false, "token", args, ret_result);
}

/* The JWT-SVID in result becomes the profile's token. */
static enum ctl_exit exchange(const struct job *job, json_t *result, int64_t *ret_expires_at)
{
    char until[ATT_TIME_TEXT_LEN];
    struct att_err err = {0};
    struct exchange_token got = {0};
    const char *jwt = json_string_value(json_object_get(result, "token"));
    if (!jwt) {
        (void)att_fail(&err, ATT_E_PROTOCOL, "attestd answered without a token");
        return ctl_report(&err);
    }
    int64_t asked_at = att_now_utc_s();
    if (exchange_run(job->profile, jwt, &got, &err) != ATT_OK) {
        enum ctl_exit code = ctl_report(&err);
        return err.rc == ATT_E_UNREACHABLE ? CTL_UNREACHABLE : code;
    }
    *ret_expires_at = asked_at + got.lifetime_s;
    att_time_text(until, *ret_expires_at);
    json_object_clear(result);
    json_object_set_new(result, "token", json_string((const char *)got.token.ptr));
    json_object_set_new(result, "expiresAt", json_string(until));
    exchange_token_done(&got);
    return CTL_OK;
}

static enum ctl_exit obtain(const struct job *job, json_t **ret_result, int64_t *ret_expires_at)
{
    att_autojson *result = NULL;
    struct att_err err = {0};
    enum ctl_exit rc = ask(job, &result);
    if (rc == CTL_OK && job->profile) {
        rc = exchange(job, result, ret_expires_at);
    } else if (rc == CTL_OK) {
        const char *until = NULL;
        if (att_json_str(result, "expiresAt", &until, &err) != ATT_OK ||
            att_time_parse(until, ret_expires_at, &err) != ATT_OK) {
            rc = ctl_report(&err);
        }
    }
    if (rc == CTL_OK) {
        *ret_result = result;
        result = NULL;
    }
    return rc;
}

/* Whoever reads the file can use the token: nobody but the caller, and never half of it. */
static enum ctl_exit show(const struct job *job, const json_t *result)
{
    char until[64];
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
        printf("%s: until %s\n", job->out, ctl_text(result, "expiresAt", until, sizeof until));
        fflush(stdout);
    } else if (job->ctx->json) {
        ctl_print_json(result);
    } else {
        puts(token);
    }
    return CTL_OK;
}

static enum ctl_exit once(const struct job *job, int64_t *ret_expires_at)
{
    att_autojson *result = NULL;
    enum ctl_exit rc = obtain(job, &result, ret_expires_at);
    return rc == CTL_OK ? show(job, result) : rc;
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
 * wait for a signal goes by that. */
static bool wait_or_end(const sigset_t *ends, int64_t ms)
{
    int64_t until = att_boottime_ms() + ms;
    for (int64_t left; (left = until - att_boottime_ms()) > 0;) {
        left = left > 5000 ? 5000 : left;
        struct timespec step = {.tv_sec = left / 1000, .tv_nsec = left % 1000 * 1000000};
        if (sigtimedwait(ends, NULL, &step) > 0) {
            return true;
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
static enum ctl_exit keep_fresh(const struct job *job)
{
    sigset_t ends;
    int64_t expires_at = 0, retry_ms = RETRY_FIRST_MS;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    enum ctl_exit rc = once(job, &expires_at);
    if (rc != CTL_OK) {
        return rc;
    }
    for (int64_t wait_ms = until_next(expires_at); !wait_or_end(&ends, wait_ms);) {
        if (once(job, &expires_at) == CTL_OK) {
            retry_ms = RETRY_FIRST_MS;
            wait_ms = until_next(expires_at);
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

enum ctl_exit ctl_token_run(const struct ctl_ctx *ctx, const struct ctl_args *args,
                            const json_t *result)
{
    (void)result; /* nothing was asked yet */
    const char *profile = json_string_value(json_object_get(args->json, "exchange"));
    bool refresh = json_object_get(args->json, "refresh");
    struct job job = {.ctx = ctx,
                      .name = json_string_value(json_object_get(args->json, "name")),
                      .audience = json_string_value(json_object_get(args->json, "audience")),
                      .out = args->out};
    if (!profile == !job.audience) {
        return usage("expected one of --audience and --exchange; a profile has an audience");
    }
    if (refresh && !job.out) {
        return usage("--refresh: expected --out FILE");
    }
    int64_t expires_at = 0;
    enum ctl_exit rc = profile ? load(profile, &job.profile) : CTL_OK;
    if (rc == CTL_OK) {
        (void)signal(SIGPIPE, SIG_IGN); /* libcurl's connections */
        rc = refresh ? keep_fresh(&job) : once(&job, &expires_at);
    }
    conf_exchange_free(job.profile);
    return rc;
}
