/* The audit log's second signer as the issuer sees it: attest-issuerd-tpm's client. */
#include "provision/issuer/log_tpm.h"

#include "attestd/base/clock.h"
#include "attestd/base/log.h"
#include "attestd/proc/caller.h"
#include "attestd/proc/logtpm_proto.h"
#include "provision/issuer/context.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CALL_TIMEOUT_MS 4000  /* the main loop waits for it */
#define START_WAIT_MS   30000 /* a machine's boot: the other process, or its TPM, comes later */
#define START_PAUSE_MS  250

struct issuer_log_tpm {
    struct proc_caller *caller;
    /* Of the start, until issuer_log_tpm_say: what becomes a record. */
    bool linked;
    char before[AUDIT_COSIGN_BEFORE_MAX + 1];
    uint64_t counter;
};

/* ---- calls
 * ----------------------------------------------------------------------------------------- */

static enum att_rc look(void *user, struct audit_cosigned *ret, struct att_err *err)
{
    struct issuer_log_tpm *tpm = user;
    proc_autoanswer answer = {0};
    enum att_rc rc = proc_call(tpm->caller, PROC_LOGTPM_STATE, NULL, -1, &answer, err);
    if (rc) {
        return rc;
    }
    const struct proc_value *v = answer.msg.v;
    struct audit_cosigned now = {.counter = v[PROC_LOGTPM_STATE_REP_COUNTER].num,
                                 .was = v[PROC_LOGTPM_STATE_REP_WAS].num};
    memcpy(now.spki, v[PROC_LOGTPM_STATE_REP_SPKI].bytes.ptr, sizeof now.spki);
    proc_take_text(v[PROC_LOGTPM_STATE_REP_ORIGIN].bytes, now.last.origin, sizeof now.last.origin);
    now.last.size = v[PROC_LOGTPM_STATE_REP_SIZE].num;
    memcpy(now.last.root.bytes, v[PROC_LOGTPM_STATE_REP_ROOT].bytes.ptr, AUDIT_HASH_LEN);
    now.last.counter = v[PROC_LOGTPM_STATE_REP_LAST_COUNTER].num;
    proc_take_text(v[PROC_LOGTPM_STATE_REP_BEFORE].bytes, now.before, sizeof now.before);
    *ret = now;
    return ATT_OK;
}

static enum att_rc sign(void *user, struct att_slice text, uint64_t old,
                        const struct audit_proof *proof, uint8_t *ret_der, size_t *ret_len,
                        struct att_err *err)
{
    struct issuer_log_tpm *tpm = user;
    proc_autoanswer answer = {0};
    struct att_slice hashes[AUDIT_PROOF_MAX];
    for (size_t i = 0; i < proof->n; i++) {
        hashes[i] = ATT_SLICE_ARRAY(proof->hash[i].bytes);
    }
    const struct proc_value values[] = {
        [PROC_LOGTPM_SIGN_REQ_TEXT] = proc_bytes(text),
        [PROC_LOGTPM_SIGN_REQ_OLD] = proc_num(old),
        [PROC_LOGTPM_SIGN_REQ_PROOF] = {.items = hashes, .item_count = proof->n},
    };
    enum att_rc rc = proc_call(tpm->caller, PROC_LOGTPM_SIGN, values, -1, &answer, err);
    if (!rc) {
        struct att_slice sig = answer.msg.v[PROC_LOGTPM_SIGN_REP_SIGNATURE].bytes;
        memcpy(ret_der, sig.ptr, sig.len); /* the table's bound */
        *ret_len = sig.len;
    }
    return rc;
}

static enum att_rc raise_counter(void *user, uint64_t counter, struct att_err *err)
{
    struct issuer_log_tpm *tpm = user;
    proc_autoanswer answer = {0};
    const struct proc_value values[] = {[PROC_LOGTPM_RAISE_REQ_COUNTER] = proc_num(counter)};
    enum att_rc rc = proc_call(tpm->caller, PROC_LOGTPM_RAISE, values, -1, &answer, err);
    if (!rc) {
        att_log(ATT_INFO, "audit.counter", ATT_N("counter", (long long)counter));
    }
    return rc;
}

/* ---- start
 * ----------------------------------------------------------------------------------------- */

static enum att_rc new_tpm(const struct conf_issuer *conf, struct issuer_log_tpm **ret_tpm,
                           struct att_err *err)
{
    char socket[1100];
    uid_t user = geteuid();
    enum att_rc rc = ATT_OK;
    if (conf->log_tpm->user) {
        rc = proc_user_find(conf->log_tpm->user, &user, err);
        if (rc) {
            att_err_prefix(err, "log_tpm.user");
            return rc;
        }
    }
    struct issuer_log_tpm *tpm = calloc(1, sizeof *tpm);
    if (!tpm) {
        return att_fail(err, ATT_E_NOMEM, "log_tpm: no memory");
    }
    snprintf(socket, sizeof socket, "%.1000s/log.sock", conf->log_tpm->dir);
    rc = proc_caller_new(socket, "attest-issuerd-tpm", user, proc_logtpm_table, CALL_TIMEOUT_MS,
                         &tpm->caller, err);
    if (rc) {
        issuer_log_tpm_free(tpm);
        return rc;
    }
    *ret_tpm = tpm;
    return ATT_OK;
}

void issuer_log_tpm_free(struct issuer_log_tpm *tpm)
{
    if (tpm) {
        proc_caller_free(tpm->caller);
        free(tpm);
    }
}

static bool comes_later(enum att_rc rc)
{
    return rc == ATT_E_RETRY || rc == ATT_E_GONE || rc == ATT_E_UNREACHABLE || rc == ATT_E_TIMEOUT;
}

static enum att_rc cosign_when_there(struct issuer *issuer, const struct audit_cosigner *cosigner,
                                     struct audit_cosigned *ret_now, bool *ret_linked,
                                     struct att_err *err)
{
    struct att_err why = {0};
    int64_t until = att_boottime_ms() + START_WAIT_MS;
    enum att_rc rc = ATT_OK;
    do {
        if (comes_later(rc)) {
            const struct timespec pause = {0, START_PAUSE_MS * 1000000L};
            (void)nanosleep(&pause, NULL);
        }
        att_err_clear(&why);
        rc = audit_log_cosign(issuer->log, issuer->store, cosigner, ret_now, ret_linked, &why);
    } while (comes_later(rc) && att_boottime_ms() < until);
    if (comes_later(rc)) {
        att_err_prefix(&why, "the log's TPM does not answer, and nothing else sees a disk that was "
                             "taken back");
        att_err_reason(&why, "logTpmAway");
    }
    if (rc && err) {
        *err = why;
    }
    return rc;
}

enum att_rc issuer_log_tpm_start(struct issuer *issuer, struct att_err *err)
{
    const struct conf_issuer *conf = issuer->settings->conf;
    struct audit_cosigned now = {0};
    if (!conf->log_tpm) {
        return ATT_OK;
    }
    enum att_rc rc = new_tpm(conf, &issuer->log_tpm, err);
    if (rc) {
        return rc;
    }
    struct issuer_log_tpm *tpm = issuer->log_tpm;
    const struct audit_cosigner cosigner = {look, sign, raise_counter, tpm,
                                            1000 * conf->log_tpm->counter_interval_s};
    rc = cosign_when_there(issuer, &cosigner, &now, &tpm->linked, err);
    if (!rc) {
        snprintf(tpm->before, sizeof tpm->before, "%s", now.before);
        tpm->counter = now.counter;
    }
    return rc;
}

/* Nobody at the socket: that there is none is told apart, since another folder is the usual cause.
 */
static enum att_rc away(const char *dir, enum att_rc rc, struct att_err *err)
{
    char socket[1100];
    struct stat st;
    snprintf(socket, sizeof socket, "%.1000s/log.sock", dir);
    if (stat(socket, &st) != 0 && errno == ENOENT) {
        att_err_clear(err);
        rc = att_fail(err, ATT_E_UNREACHABLE,
                      "%s is not there: attest-issuerd-tpm does not run, or its log_tpm.dir is "
                      "another",
                      socket);
    }
    att_err_reason(err, "logTpmAway");
    return rc;
}

enum att_rc issuer_log_tpm_check(const struct conf_issuer *conf, struct att_err *err)
{
    struct issuer_log_tpm *tpm = NULL;
    struct audit_cosigned now = {0};
    struct att_err why = {0};
    if (!conf->log_tpm) {
        return ATT_OK;
    }
    enum att_rc rc = new_tpm(conf, &tpm, &why);
    rc = rc ? rc : look(tpm, &now, &why);
    if (comes_later(rc)) {
        rc = away(conf->log_tpm->dir, rc, &why);
    }
    rc = rc ? rc : audit_cosign_check(conf->state_dir, &now, &why);
    issuer_log_tpm_free(tpm);
    if (rc) {
        att_err_prefix(&why, "log_tpm");
        if (err) {
            *err = why;
        }
    }
    return rc;
}

static enum att_rc say(void *user, struct store_tx *tx, struct att_err *err)
{
    struct issuer *issuer = user;
    char id[9];
    const struct issuer_log_tpm *tpm = issuer->log_tpm;
    const struct audit_p256_vkey *vkey = audit_log_tpm_vkey(issuer->log);
    json_t *record = issuer_record("logTpm", "done", NULL, tpm->before, NULL);
    snprintf(id, sizeof id, "%08x", (unsigned)vkey->id);
    json_object_set_new(record, "log", json_string(vkey->name));
    json_object_set_new(record, "keyId", json_string(id));
    json_object_set_new(record, "newKey", json_boolean(tpm->linked));
    json_object_set_new(record, "counter", json_integer((json_int_t)tpm->counter));
    return issuer_audit(tx, att_now_utc_s(), record, NULL, err);
}

/* The record before the file: a key that auditors can be told of is in the log. */
enum att_rc issuer_log_tpm_say(struct issuer *issuer, struct att_err *err)
{
    struct issuer_log_tpm *tpm = issuer->log_tpm;
    if (!tpm || (!tpm->linked && !tpm->before[0])) {
        return ATT_OK;
    }
    enum att_rc rc = store_run(issuer->store, true, say, issuer, err);
    return rc || !tpm->linked ? rc : audit_log_save_tpm_vkey(issuer->log, err);
}
