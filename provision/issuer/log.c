/* The audit log's place in the issuer: opened at start, published as time goes, served. */
#include "provision/issuer/context.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PERIOD_MS 1500  /* a checkpoint at most so often: each is a handful of syncs */
#define PAUSE_MS  10000 /* after a failure */
#define END_STEPS 16    /* at the end of the process; the next one does the rest */

/* Another log never has the same name: hosts of the verifier keep the checkpoints by it. */
char *issuer_log_origin(const char *base_url, int64_t now)
{
    char at[32], *origin = NULL;
    struct tm tm;
    time_t t = (time_t)now;
    const char *host = strstr(base_url, "://");
    gmtime_r(&t, &tm);
    strftime(at, sizeof at, "%Y%m%dT%H%M%SZ", &tm);
    return asprintf(&origin, "%s/log/%s", host ? host + 3 : base_url, at) < 0 ? NULL : origin;
}

enum att_rc issuer_log_start(struct issuer *issuer, struct att_err *err)
{
    issuer_autofree *origin = issuer_log_origin(issuer->base_url, att_now_utc_s());
    if (!origin) {
        return att_fail(err, ATT_E_NOMEM, "audit log: no memory");
    }
    /* Who had a head has been here before, and then the guard must be, too. */
    issuer_autofree *head = NULL;
    if (asprintf(&head, "%s/audit.head", issuer->state_dir) < 0) {
        head = NULL;
        return att_fail(err, ATT_E_NOMEM, "audit log: no memory");
    }
    bool joins = store_shared(issuer->store) && access(head, F_OK) && errno == ENOENT;
    return audit_log_open(issuer->state_dir, origin, joins, issuer->store, &issuer->log, err);
}

void issuer_log_tick(struct issuer *issuer, bool at_end)
{
    struct att_err err = {0};
    int64_t now = att_boottime_ms();
    bool behind = true;
    enum att_rc rc = ATT_OK;
    if (!issuer->log || atomic_load(&issuer->log_broken) || (!at_end && now < issuer->log_ms)) {
        return;
    }
    if (issuer->head_broken) { /* said by who saw it: not these records either */
        atomic_store(&issuer->log_broken, true);
        return;
    }
    for (int i = 0; !rc && behind && i < (at_end ? END_STEPS : 1); i++) {
        rc = audit_log_publish(issuer->log, issuer->store, &behind, &err);
    }
    if (!rc && at_end) {
        rc = audit_log_seal(issuer->log, &err);
    }
    atomic_store(&issuer->log_waits, rc != ATT_OK);
    if (!rc) {
        atomic_store(&issuer->log_published, (long long)audit_log_size(issuer->log));
    }
    if (!rc && !behind) {
        atomic_store(&issuer->log_published_at, att_now_utc_s());
    }
    issuer->log_ms = rc ? now + PAUSE_MS : behind ? now : now + PERIOD_MS;
    if (rc) {
        att_log_err(ATT_ERROR, "audit.log", &err);
    }
    if (rc == ATT_E_AUTH) { /* said once; what was published stays */
        atomic_store(&issuer->log_broken, true);
    }
}

bool issuer_log_get(struct issuer *issuer, const char *rest, struct issuer_response *response)
{
    bool final = false;
    if (audit_log_read(issuer->state_dir, rest, &response->body, &final, NULL)) {
        att_buf_reset(&response->body);
        return false;
    }
    response->status = 200;
    response->content_type = final ? "application/octet-stream" : "text/plain; charset=utf-8";
    response->cache = final ? "public, max-age=31536000, immutable" : "no-cache";
    return true;
}
