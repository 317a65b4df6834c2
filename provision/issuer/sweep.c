/* Housekeeping of the store. */
#include "provision/issuer/sweep.h"

#include "attestd/proc/notify.h"
#include "provision/issuer/retention.h"

#define PERIOD_MS 60000
#define AGE_S     3600
#define BLOBS     500 /* a minute: they are big, and requests wait */
#define CERTS     5000
#define ROWS      2000 /* of each kind, in one transaction */

struct sweep {
    int64_t before, evidence_before, removed;
    bool first, more;
};

static enum att_rc sweep_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    struct sweep *s = user;
    enum att_rc rc = store_sweep(tx, s->before, ROWS, &s->more, err);
    if (!rc && s->first) {
        rc = store_cert_sweep(tx, s->evidence_before, CERTS, &s->removed, err);
    }
    return rc || !s->first ? rc : store_blob_sweep(tx, s->evidence_before, BLOBS, &s->removed, err);
}

static void sweep_turn(struct issuer *issuer, struct issuer_sweep *sweep, struct sweep *s)
{
    struct att_err err = {0};
    int64_t from = att_boottime_ms();
    do {
        s->more = false;
        if (store_run(issuer->store, true, sweep_tx, s, &err)) {
            att_log_err(ATT_ERROR, "store.sweep", &err);
            s->more = false;
        }
        s->first = false;
        proc_notify_watchdog();
    } while (s->more && att_boottime_ms() - from < ISSUER_SWEEP_MS);
    sweep->more = s->more;
}

void issuer_sweep_tick(struct issuer *issuer, struct issuer_sweep *sweep)
{
    int64_t now = att_boottime_ms(), utc = att_now_utc_s();
    bool due = now - sweep->last_ms >= PERIOD_MS;
    if (!due && !sweep->more) {
        return;
    }
    issuer_autosettings *settings = issuer_settings_get(issuer);
    struct sweep s = {.before = utc - AGE_S,
                      .evidence_before = utc - settings->conf->evidence_lifetime_s,
                      .first = due};
    sweep->last_ms = due ? now : sweep->last_ms;
    sweep_turn(issuer, sweep, &s);
    if (due) {
        issuer_retention_tick(issuer, settings->conf);
    }
}
