/* The ticket that an operator gives on the control socket: locked memory, never a file. */
#include "attestd/host/internal.h"

#include <string.h>

#define WAIT_MS 50000 /* less than attestctl waits for an answer */
#define LOOK_MS 250

enum att_rc host_ticket_get(struct host *host, struct host_ticket *ret_ticket, uint64_t *ret_n,
                            struct att_err *err)
{
    const char *file;
    {
        HOST_LOCKED(host);
        const struct host_given *given = &host->given;
        if (given->ticket.mac_key.len) {
            struct host_ticket copy = given->ticket;
            copy.mac_key = (struct att_secret){0};
            enum att_rc rc =
                att_secret_copy(&copy.mac_key, att_secret_slice(&given->ticket.mac_key), err);
            if (rc == ATT_OK) {
                *ret_ticket = copy;
                *ret_n = given->n;
            }
            return rc;
        }
        file = host->conf->ticket_file; /* freed only at the end */
    }
    *ret_n = 0;
    return host_ticket_load(file, ret_ticket, err);
}

void host_given_drop(struct host *host, uint64_t n, const struct att_err *refused)
{
    HOST_LOCKED(host);
    struct host_given *given = &host->given;
    if (refused && given->n != n) {
        return; /* another was given meanwhile */
    }
    if (refused) {
        given->refused_n = n;
        host_error_note(&given->refused, refused);
    }
    host_ticket_done(&given->ticket);
    pthread_cond_broadcast(&host->changed);
}

/* ---- taking one ---- */

static enum att_rc other_issuer(struct att_err *err, const char *what, const char *ours,
                                const char *theirs)
{
    enum att_rc rc =
        att_fail(err, ATT_E_CONFLICT, "the ticket is for %s %.200s, configured is %.200s", what,
                 theirs, ours);
    att_err_reason(err, "issuerOther");
    return rc;
}

/* Under lock. */
static enum att_rc check(const struct host *host, const struct host_ticket *ticket,
                         struct att_err *err)
{
    if (host->rec.kid[0]) {
        enum att_rc rc =
            att_fail(err, ATT_E_CONFLICT, "this host has the account %s already", host->rec.kid);
        att_err_reason(err, "alreadyEnrolled");
        return rc;
    }
    if (host->conf->acme) {
        return other_issuer(err, "the server", host->conf->acme->directory, ticket->url);
    }
    const struct conf_attestd_issuer *conf = host->conf->issuer;
    if (conf && conf->url && strcmp(conf->url, ticket->url) != 0) {
        return other_issuer(err, "the issuer", conf->url, ticket->url);
    }
    if (conf && conf->ca_sha256 &&
        memcmp(conf->ca_sha256_bytes, ticket->ca_sha256_bytes, ATT_SHA256_LEN) != 0) {
        return other_issuer(err, "an issuer with the root", conf->ca_sha256, ticket->ca_sha256);
    }
    if (!ticket->mac_key.locked) {
        return att_fail(err, ATT_E_LIMIT,
                        "no locked memory for the ticket's key: RLIMIT_MEMLOCK is too small");
    }
    return ATT_OK;
}

/* Takes the ticket over. Under lock. */
static uint64_t put(struct host *host, struct host_ticket *ticket)
{
    host_ticket_done(&host->given.ticket);
    host->given.ticket = *ticket;
    *ticket = (struct host_ticket){0};
    host->last_error = (struct agent_error){0};
    host->generation += host->generation != 0; /* clients of this issuer, with this root */
    host_nudge(host);
    return ++host->given.n;
}

static enum att_rc take(struct host *host, struct host_ticket *ticket, uint64_t *ret_n,
                        struct att_err *err)
{
    {
        HOST_LOCKED(host);
        enum att_rc rc = check(host, ticket, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    enum att_rc rc = proc_keyd_issuer(host->keyd, ticket->url, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "keyd");
        return rc;
    }
    HOST_LOCKED(host);
    rc = check(host, ticket, err); /* the host thread may have enrolled meanwhile */
    if (rc == ATT_OK) {
        *ret_n = put(host, ticket);
    }
    return rc;
}

/* ---- what comes of it ---- */

static int refused(const struct agent_error *why, struct att_err *err)
{
    (void)!att_fail(err, ATT_E_DENIED, "%s", why->message);
    att_err_reason(err, why->reason);
    return -1;
}

/* 1: enrolled or pending; -1: refused, err says why; 0: not yet. Under lock. */
static int outcome(const struct host *host, uint64_t n, struct att_err *err)
{
    if (host->given.refused_n >= n) {
        return refused(&host->given.refused, err);
    }
    if (!host->rec.kid[0]) {
        return 0;
    }
    if (host->rec.ak_url[0] && (host->phase == HOST_PENDING || host->phase == HOST_ENROLLED)) {
        return 1;
    }
    bool denied = strcmp(host->last_error.code, att_rc_name(ATT_E_DENIED)) == 0;
    return denied ? refused(&host->last_error, err) : 0;
}

static enum att_rc await(struct host *host, uint64_t n, int64_t until_ms, json_t **ret_result,
                         struct att_err *err)
{
    HOST_LOCKED(host);
    for (;;) {
        int state = outcome(host, n, err);
        int64_t left = until_ms - att_boottime_ms();
        if (state < 0) {
            return ATT_E_DENIED;
        }
        if (state > 0) {
            *ret_result = host_enrolment_json(host);
            return *ret_result ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory for the answer");
        }
        if (left <= 0 || atomic_load(&host->stop)) {
            return att_fail(err, ATT_E_TIMEOUT,
                            "not enrolled within %d s; attestd goes on trying until it is "
                            "restarted. Last error: %s",
                            WAIT_MS / 1000,
                            host->last_error.at ? host->last_error.message : "none");
        }
        host_wait(host, left < LOOK_MS ? left : LOOK_MS);
    }
}

enum att_rc host_given_enrol(struct host *host, struct att_slice text, json_t **ret_result,
                             struct att_err *err)
{
    int64_t until_ms = att_boottime_ms() + WAIT_MS;
    struct host_ticket ticket = {0};
    uint64_t n = 0;
    enum att_rc rc = host_ticket_parse(text, &ticket, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "ticket");
        att_err_reason(err, "ticketMalformed");
        return rc;
    }
    rc = take(host, &ticket, &n, err);
    host_ticket_done(&ticket);
    return rc == ATT_OK ? await(host, n, until_ms, ret_result, err) : rc;
}
