/* Sealing: the storage parent, its policies, its counter, and the way of what was sealed before.
 *
 * Order of what is written, so that a kill at any point leaves what the next start goes on from:
 * parent.pem, parent.json (only then anything stands under the parent); the counter, parent.json
 * with it; host.pem anew, account.pem anew, each whole under the one parent or the other. */
#include "attestd/keyd/internal.h"

#include "attestd/base/io.h"
#include "tpm/counter.h"
#include "tpm/seal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PARENT_FILE  "parent.pem"
#define RECORD_FILE  "parent.json"
#define HOST_FILE    "host.pem"
#define COUNTER_SEED "policy-counter/1"

/* ---- birth and end ------------------------------------------------------------------------- */

static enum att_rc copy_text(const char *from, char **ret, struct att_err *err)
{
    *ret = strdup(from ? from : "");
    return *ret ? ATT_OK : att_fail(err, ATT_E_NOMEM, "text");
}

enum att_rc keyd_seal_new(struct keyd *keyd, const struct keyd_sealing *opts, struct att_err *err)
{
    struct keyd_seal *seal = &keyd->seal;
    seal->mode = opts->mode;
    enum att_rc rc = copy_text(opts->policy_key, &seal->policy_key, err);
    if (rc == ATT_OK) {
        rc = copy_text(opts->policy_ref, &seal->policy_ref, err);
    }
    if (rc == ATT_OK) {
        rc = copy_text(opts->policies_dir, &seal->policies_dir, err);
    }
    return rc;
}

void keyd_seal_free(struct keyd *keyd)
{
    tpm_blob_done(&keyd->seal.parent);
    att_secret_done(&keyd->seal.pending);
    free(keyd->seal.policy_key);
    free(keyd->seal.policy_ref);
    free(keyd->seal.policies_dir);
}

/* ---- what others ask ----------------------------------------------------------------------- */

bool keyd_seal_outside(const struct keyd *keyd, const struct parse_name *parent)
{
    return keyd->seal.mode != KEYD_PCR_NONE && keyd->seal.parent_name.len != 0 &&
           !att_slice_eq(parse_name_slice(parent), parse_name_slice(&keyd->seal.parent_name));
}

bool keyd_seal_refusal(const struct att_err *err)
{
    static const char *const reasons[] = {"bootSealed",     "policySignature", "policyCounter",
                                          "counterMissing", "recoveryOver",    "policyMissing"};
    for (size_t i = 0; err->rc == ATT_E_DENIED && i < sizeof reasons / sizeof reasons[0]; i++) {
        if (strcmp(err->reason, reasons[i]) == 0) {
            return true;
        }
    }
    return false;
}

enum att_rc keyd_store_ready(struct keyd *keyd, const struct keyd_key *key, struct att_err *err)
{
    bool shut = false;
    if (keyd->seal.mode != KEYD_PCR_NONE) {
        pthread_mutex_lock(&keyd->lock);
        shut = !keyd->seal.opened;
        pthread_mutex_unlock(&keyd->lock);
    }
    enum att_rc rc = shut ? keyd_ready(keyd, err) : ATT_OK;
    return rc == ATT_OK ? key->store->ready(keyd, key, err) : rc;
}

enum att_rc keyd_seal_parent_pub(const struct keyd *keyd, const struct parse_name *parent,
                                 struct att_buf *ret_pub, struct att_err *err)
{
    if (keyd->seal.mode != KEYD_PCR_NONE && !keyd_seal_outside(keyd, parent)) {
        att_buf_put_slice(ret_pub, att_buf_slice(&keyd->seal.parent.pub));
    }
    return att_buf_ok(ret_pub, err);
}

enum att_rc keyd_seal_srk_of(struct keyd *keyd, struct parse_name *name, struct att_err *err)
{
    tpm_autoblob parent = {0};
    struct parse_name have;
    if (!keyd_state_exists(keyd, PARENT_FILE)) {
        return ATT_OK;
    }
    enum att_rc rc = keyd_state_blob(keyd, PARENT_FILE, TPM_BLOB_KEY, &parent, err);
    if (rc == ATT_OK) {
        rc = tpm_blob_name(&parent, &have, err);
    }
    if (rc == ATT_OK && att_slice_eq(parse_name_slice(&have), parse_name_slice(name))) {
        *name = parent.parent_name;
    }
    return rc;
}

/* ---- the parent ---------------------------------------------------------------------------- */

static enum att_rc deny(struct att_err *err, enum att_rc rc, const char *reason)
{
    att_err_reason(err, reason);
    return rc;
}

static enum att_rc read_key(struct keyd_seal *seal, struct att_err *err)
{
    att_autobuf pem = ATT_BUF_INIT(PARSE_POLICY_KEY_PEM_MAX);
    struct parse_name name;
    enum att_rc rc = att_io_read_file(seal->policy_key, PARSE_POLICY_KEY_PEM_MAX, &pem, err);
    if (rc == ATT_OK) {
        rc = parse_seal_policy_key_pem(att_buf_slice(&pem), &seal->key, err);
    }
    if (rc == ATT_OK) {
        rc = parse_public_name(&seal->key, &name, err);
    }
    if (rc == ATT_OK) {
        parse_seal_authorize(&name, att_slice_str(seal->policy_ref), seal->auth_policy);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "tpm.policy_key");
    }
    return rc;
}

/* What of the worker's a step needs. */
struct step {
    struct keyd *keyd;
    struct tpm_parent_policy *policy;
    struct tpm_blob *blob;
    const struct att_secret *secret;
    struct tpm_counter counter;
    uint32_t version; /* that the counter is raised to */
};

/* Which bank to read where nothing says it. */
static uint16_t usual_bank(const struct tpm_info *info)
{
    return !tpm_info_has_bank(info, PARSE_ALG_SHA256) && tpm_info_has_bank(info, PARSE_ALG_SHA384)
               ? PARSE_ALG_SHA384
               : PARSE_ALG_SHA256;
}

static enum att_rc run_own_pcrs(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct step *step = arg;
    struct tpm_info info;
    struct parse_pcr_sel sel = {PARSE_ALG_SHA256, 1u << 7};
    enum att_rc rc = tpm_context_info(ctx, &info, err);
    if (rc == ATT_OK) {
        sel.bank = usual_bank(&info);
    }
    return rc == ATT_OK ? tpm_quote_pcr_read(ctx, &sel, &step->keyd->seal.own, err) : rc;
}

static enum att_rc run_create_parent(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct step *step = arg;
    return tpm_parent_create(ctx, step->keyd->seal.auth_policy, step->blob, err);
}

static enum att_rc on_worker(struct keyd *keyd, tpm_queue_fn *fn, struct step *step,
                             struct att_err *err)
{
    return keyd_run(keyd, TPM_OP_SEAL, TPM_PRIO_HANDSHAKE, "", fn, step, err);
}

/* The parent's authPolicy where PCR 7's value is the policy. */
static enum att_rc own_policy(struct keyd_seal *seal, struct tpm_parent_policy *ret_policy,
                              struct att_err *err)
{
    enum att_rc rc = tpm_parent_policy_direct(&seal->own, ret_policy, err);
    return rc == ATT_OK
               ? parse_seal_branch_digest(&ret_policy->approvals[0].branch, seal->auth_policy, err)
               : rc;
}

/* host.pem under the parent that is to be made anew: then it must not be. */
static enum att_rc refuse_to_replace(struct keyd *keyd, struct att_err *err)
{
    tpm_autoblob parent = {0}, host = {0};
    struct parse_name name;
    if (!keyd_state_exists(keyd, PARENT_FILE) || !keyd_state_exists(keyd, HOST_FILE)) {
        return ATT_OK;
    }
    enum att_rc rc = keyd_state_blob(keyd, PARENT_FILE, TPM_BLOB_KEY, &parent, err);
    if (rc == ATT_OK) {
        rc = keyd_state_blob(keyd, HOST_FILE, TPM_BLOB_SEALED, &host, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_blob_name(&parent, &name, err);
    }
    if (rc == ATT_OK &&
        att_slice_eq(parse_name_slice(&name), parse_name_slice(&host.parent_name))) {
        rc = att_fail(err, ATT_E_CONFLICT, "%s is missing, and %s stands under the storage parent",
                      RECORD_FILE, HOST_FILE);
        (void)deny(err, rc, "parentRecordMissing");
    }
    return rc;
}

static enum att_rc make_parent(struct keyd *keyd, struct att_err *err)
{
    tpm_autoparentpolicy policy = {0};
    tpm_autoblob blob = {0};
    struct step step = {.keyd = keyd, .blob = &blob};
    enum att_rc rc = refuse_to_replace(keyd, err);
    if (rc == ATT_OK && keyd->seal.mode == KEYD_PCR_7) {
        rc = on_worker(keyd, run_own_pcrs, &step, err);
        if (rc == ATT_OK) {
            rc = own_policy(&keyd->seal, &policy, err);
        }
    }
    if (rc == ATT_OK) {
        rc = on_worker(keyd, run_create_parent, &step, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_state_write_blob(keyd, PARENT_FILE, &blob, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_seal_record(keyd, err);
    }
    if (rc == ATT_OK) {
        keyd_tell(keyd, KEYD_EVENT_CREATED, "storageParent", NULL);
    }
    return rc;
}

static enum att_rc load_parent(struct keyd *keyd, struct att_err *err)
{
    struct keyd_seal *seal = &keyd->seal;
    tpm_autoparentpolicy policy = {0};
    if (!keyd_state_exists(keyd, RECORD_FILE) && !keyd_state_was_bad(keyd, RECORD_FILE)) {
        enum att_rc made = make_parent(keyd, err);
        if (made != ATT_OK) {
            return made;
        }
    }
    enum att_rc rc = keyd_seal_read_record(keyd, err);
    if (rc == ATT_E_NOTFOUND) { /* set aside before */
        att_err_clear(err);
        rc = att_fail(err, ATT_E_CONFLICT, "%s is missing: it was set aside as .bad", RECORD_FILE);
        (void)deny(err, rc, "parentRecordMissing");
    }
    if (rc == ATT_OK && seal->mode == KEYD_PCR_7) {
        rc = own_policy(seal, &policy, err);
    }
    if (rc == ATT_OK) {
        tpm_blob_done(&seal->parent);
        rc = keyd_state_blob(keyd, PARENT_FILE, TPM_BLOB_KEY, &seal->parent, err);
        if (rc == ATT_E_NOTFOUND) {
            att_err_clear(err);
            rc = att_fail(err, ATT_E_CONFLICT, "%s is missing: what stands under it is lost",
                          PARENT_FILE);
            (void)deny(err, rc, "parentMissing");
        }
    }
    if (rc == ATT_OK) {
        rc = tpm_parent_check(&seal->parent, seal->auth_policy, err);
    }
    struct parse_name name;
    if (rc == ATT_OK) {
        rc = tpm_blob_name(&seal->parent, &name, err);
    }
    if (rc == ATT_OK) {
        pthread_mutex_lock(&keyd->lock);
        seal->parent_name = name;
        pthread_mutex_unlock(&keyd->lock);
    }
    return rc;
}

/* ---- the counter --------------------------------------------------------------------------- */

static enum att_rc counter_auth(struct att_slice host_secret, uint8_t ret[TPM_KEY_AUTH_LEN],
                                struct att_err *err)
{
    return tpm_key_auth_derive(host_secret, ATT_SLICE_LIT(COUNTER_SEED), ret, err);
}

static void tell_counter(struct keyd *keyd, const char *what, uint64_t value,
                         const struct att_err *err)
{
    char text[64];
    snprintf(text, sizeof text, "%s %" PRIu64, what, value);
    keyd_tell(keyd, KEYD_EVENT_COUNTER, text, err);
}

/* One that is there was left by an end between its definition and the record of it. With the
 * authValue of this host secret it is this host's, and goes on as it is: defined anew it would
 * stand one step higher, above a policy of version 1. Another authValue is that of a host secret
 * that was lost before it was on the disk, or of somebody who made the index: nobody could raise
 * it, so it is not taken. */
static enum att_rc adopt_or_define(struct tpm_context *ctx, uint32_t index, struct att_slice auth,
                                   bool *ret_adopted, struct att_err *err)
{
    struct tpm_counter there;
    enum att_rc rc = tpm_counter_read(ctx, index, &there, err);
    if (rc == ATT_OK && there.defined && !there.ours && !there.begun) {
        rc = att_fail(err, ATT_E_CONFLICT, "NV index 0x%08" PRIx32 " is in use by something else",
                      index);
        return deny(err, rc, "counterTaken");
    }
    if (rc == ATT_OK) {
        rc = tpm_counter_adopt(ctx, index, auth, ret_adopted, err);
    }
    if (rc == ATT_OK && there.defined && !*ret_adopted) {
        rc = tpm_counter_undefine(ctx, index, err);
    }
    return rc == ATT_OK && !*ret_adopted ? tpm_counter_define(ctx, index, auth, err) : rc;
}

static enum att_rc define_counter(struct tpm_context *ctx, uint32_t index, struct att_slice secret,
                                  bool *ret_adopted, struct tpm_counter *ret, struct att_err *err)
{
    uint8_t auth[TPM_KEY_AUTH_LEN];
    enum att_rc rc = counter_auth(secret, auth, err);
    if (rc == ATT_OK) {
        rc = adopt_or_define(ctx, index, ATT_SLICE_ARRAY(auth), ret_adopted, err);
        att_wipe(auth, sizeof auth);
    }
    return rc == ATT_OK ? tpm_counter_read(ctx, index, ret, err) : rc;
}

enum att_rc keyd_seal_define_counter(struct keyd *keyd, struct tpm_context *ctx,
                                     struct att_slice host_secret, struct att_err *err)
{
    struct keyd_seal *seal = &keyd->seal;
    struct tpm_counter counter;
    bool adopted = false;
    if (seal->mode != KEYD_PCR_SIGNED || !seal->counter_wanted) {
        return ATT_OK;
    }
    /* An earlier try's: each definition would be one more step that no policy can take back. */
    if (seal->counter_held && !seal->counter_missing && seal->counter == seal->counter_wanted) {
        return ATT_OK;
    }
    enum att_rc rc = tpm_parent_fits(ctx, err);
    if (rc == ATT_OK) {
        rc = define_counter(ctx, seal->counter_wanted, host_secret, &adopted, &counter, err);
    }
    if (rc == ATT_OK) {
        seal->counter_held = true;
        pthread_mutex_lock(&keyd->lock);
        seal->counter = seal->counter_wanted;
        seal->counter_missing = false;
        seal->counter_value = counter.value;
        pthread_mutex_unlock(&keyd->lock);
        tell_counter(keyd, adopted ? "found as it was defined," : "defined", counter.value, NULL);
    }
    return rc;
}

static enum att_rc run_look_at_counter(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct step *step = arg;
    /* The SRK first: in a TPM that was cleared or swapped everything is missing. */
    enum att_rc rc = tpm_context_srk(ctx, NULL, NULL, NULL, err);
    return rc == ATT_OK ? tpm_counter_read(ctx, step->keyd->seal.counter, &step->counter, err) : rc;
}

/* A recorded counter that is not there is an alarm, whatever the policies say. */
static enum att_rc look_at_counter(struct keyd *keyd, struct att_err *err)
{
    struct keyd_seal *seal = &keyd->seal;
    struct step step = {.keyd = keyd};
    if (!seal->counter) {
        return ATT_OK;
    }
    enum att_rc rc = on_worker(keyd, run_look_at_counter, &step, err);
    if (rc != ATT_OK) {
        return rc;
    }
    pthread_mutex_lock(&keyd->lock);
    bool news = !step.counter.ours && !seal->counter_missing;
    seal->counter_missing = !step.counter.ours;
    seal->counter_value = step.counter.value;
    pthread_mutex_unlock(&keyd->lock);
    if (news) {
        struct att_err alarm = {0};
        (void)!att_fail(&alarm, ATT_E_DENIED,
                        "the policy counter at NV index 0x%08" PRIx32 " is %s: somebody took it "
                        "away",
                        seal->counter, step.counter.defined ? "another one" : "missing");
        (void)deny(&alarm, ATT_E_DENIED, "counterMissing");
        keyd_tell(keyd, KEYD_EVENT_COUNTER, "missing", &alarm);
    }
    return ATT_OK;
}

/* ---- prepare ------------------------------------------------------------------------------- */

static enum att_rc run_set(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct step *step = arg;
    return tpm_parent_set(ctx, &step->keyd->seal.parent, step->policy, err);
}

/* For who has to sign a recovery approval. */
static enum att_rc run_now(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct step *step = arg;
    struct keyd_seal *seal = &step->keyd->seal;
    struct parse_pcr_sel all = {PARSE_ALG_SHA256, 0xffffff};
    struct parse_pcr_set now;
    struct tpm_clock clock;
    struct tpm_info info;
    enum att_rc rc = tpm_context_info(ctx, &info, err);
    if (rc == ATT_OK) {
        all.bank = usual_bank(&info);
        for (size_t i = step->policy->n; i-- > 0;) {
            uint16_t bank = step->policy->approvals[i].pcrs.sel.bank;
            all.bank = tpm_info_has_bank(&info, bank) ? bank : all.bank;
        }
        rc = tpm_quote_pcr_read(ctx, &all, &now, err);
    }
    if (rc == ATT_OK) {
        rc = tpm_context_clock(ctx, &clock, err);
    }
    if (rc == ATT_OK) {
        pthread_mutex_lock(&step->keyd->lock);
        seal->now = now;
        seal->reset_count = clock.reset_count;
        seal->now_known = true;
        pthread_mutex_unlock(&step->keyd->lock);
    }
    return rc;
}

static enum att_rc refuse_silent_fallback(struct keyd *keyd, struct att_err *err)
{
    if (!keyd_state_exists(keyd, RECORD_FILE) && !keyd_state_was_bad(keyd, RECORD_FILE)) {
        return ATT_OK;
    }
    enum att_rc rc = att_fail(err, ATT_E_CONFLICT,
                              "tpm.pcr is none, but this host's keys stand under a storage parent "
                              "(%s): sealing does not end by leaving a line out",
                              RECORD_FILE);
    return deny(err, rc, "sealingOff");
}

static enum att_rc policy_missing(const struct keyd_seal *seal, struct att_err *err)
{
    (void)!att_fail(err, ATT_E_DENIED,
                    seal->counter_missing
                        ? "the policy counter is missing, and no recovery approval is in %s"
                        : "no PCR policy in %s is valid here",
                    seal->policies_dir);
    return deny(err, ATT_E_DENIED, seal->counter_missing ? "counterMissing" : "policyMissing");
}

/* Policies as they are in the folder now, given to the TPM's context. */
static enum att_rc take_policies(struct keyd *keyd, struct att_err *err)
{
    struct keyd_seal *seal = &keyd->seal;
    tpm_autoparentpolicy policy = {0};
    struct step step = {.keyd = keyd, .policy = &policy};
    enum att_rc rc = look_at_counter(keyd, err);
    if (rc == ATT_OK) {
        rc = seal->mode == KEYD_PCR_7 ? own_policy(seal, &policy, err)
                                      : keyd_seal_read_policies(keyd, &policy, err);
    }
    if (rc == ATT_OK) {
        rc = on_worker(keyd, run_now, &step, err);
    }
    if (rc == ATT_OK) {
        keyd_seal_read_tickets(keyd, &policy);
        bool none = policy.n == 0;
        rc = on_worker(keyd, run_set, &step, err);
        rc = rc == ATT_OK && none ? policy_missing(seal, err) : rc;
    }
    return rc;
}

enum att_rc keyd_seal_prepare(struct keyd *keyd, struct att_err *err)
{
    struct keyd_seal *seal = &keyd->seal;
    if (seal->mode == KEYD_PCR_NONE) {
        return refuse_silent_fallback(keyd, err);
    }
    enum att_rc rc = seal->mode == KEYD_PCR_SIGNED ? read_key(seal, err) : ATT_OK;
    if (rc == ATT_OK) {
        rc = load_parent(keyd, err);
    }
    return rc == ATT_OK ? take_policies(keyd, err) : rc;
}

/* ---- settle -------------------------------------------------------------------------------- */

static enum att_rc run_reseal(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct step *step = arg;
    return tpm_seal_create(ctx, att_secret_slice(step->secret), (struct att_slice){0}, step->blob,
                           err);
}

static enum att_rc run_define_counter(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct step *step = arg;
    return keyd_seal_define_counter(step->keyd, ctx, att_secret_slice(step->secret), err);
}

static enum att_rc add_counter(struct keyd *keyd, struct att_err *err)
{
    struct step step = {.keyd = keyd, .secret = &keyd->host_secret};
    enum att_rc rc = on_worker(keyd, run_define_counter, &step, err);
    return rc == ATT_OK ? keyd_seal_record(keyd, err) : rc;
}

static enum att_rc move_host_secret(struct keyd *keyd, struct att_err *err)
{
    tpm_autoblob old = {0}, blob = {0};
    struct step step = {.keyd = keyd, .blob = &blob, .secret = &keyd->host_secret};
    enum att_rc rc = keyd_state_blob(keyd, HOST_FILE, TPM_BLOB_SEALED, &old, err);
    if (rc != ATT_OK || !keyd_seal_outside(keyd, &old.parent_name)) {
        return rc;
    }
    if (!keyd->seal.counter && keyd->seal.counter_wanted) {
        rc = add_counter(keyd, err);
    }
    if (rc == ATT_OK) {
        rc = on_worker(keyd, run_reseal, &step, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_state_write_blob(keyd, HOST_FILE, &blob, err);
    }
    if (rc == ATT_OK) {
        keyd_tell(keyd, KEYD_EVENT_MIGRATED, HOST_FILE, NULL);
    }
    return rc;
}

/* What the worker knows of how the parent was opened; tickets that are new are kept. */
static enum att_rc run_report(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct step *step = arg;
    struct tpm_parent_stats stats;
    (void)err;
    tpm_parent_stats(ctx, &stats);
    pthread_mutex_lock(&step->keyd->lock);
    bool fresh = stats.verified != step->keyd->seal.stats.verified;
    step->keyd->seal.stats = stats;
    pthread_mutex_unlock(&step->keyd->lock);
    if (fresh) {
        keyd_seal_write_tickets(step->keyd, ctx);
    }
    return ATT_OK;
}

/* INFO refreshes them, too. */
static struct tpm_parent_stats stats_now(struct keyd *keyd)
{
    pthread_mutex_lock(&keyd->lock);
    struct tpm_parent_stats stats = keyd->seal.stats;
    pthread_mutex_unlock(&keyd->lock);
    return stats;
}

static enum att_rc run_raise(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct step *step = arg;
    struct keyd *keyd = step->keyd;
    uint8_t auth[TPM_KEY_AUTH_LEN];
    enum att_rc rc = counter_auth(att_secret_slice(&keyd->host_secret), auth, err);
    if (rc == ATT_OK) {
        rc = tpm_counter_raise(ctx, keyd->seal.counter, ATT_SLICE_ARRAY(auth), step->version, err);
        att_wipe(auth, sizeof auth);
    }
    return rc == ATT_OK ? tpm_counter_read(ctx, keyd->seal.counter, &step->counter, err) : rc;
}

/* The policy that opened the parent is accepted: older ones are over. It is on the disk before: a
 * power cut that brought the older one back beside a raised counter would seal the host. */
static enum att_rc raise_counter(struct keyd *keyd, uint32_t version, struct att_err *err)
{
    struct step step = {.keyd = keyd, .version = version};
    struct att_err why = {0};
    if (version > keyd->seal.counter_value && keyd_seal_sync_policies(keyd, &why) != ATT_OK) {
        tell_counter(keyd, "not raised to", version, &why);
        return ATT_OK;
    }
    enum att_rc rc = on_worker(keyd, run_raise, &step, &why);
    if (rc == ATT_E_LIMIT || rc == ATT_E_AUTH) {
        tell_counter(keyd, "not raised to", version, &why);
        return ATT_OK; /* older policies stay possible, and INFO shows the counter behind */
    }
    if (rc != ATT_OK) {
        if (err) {
            *err = why;
        }
        return rc;
    }
    pthread_mutex_lock(&keyd->lock);
    bool news = keyd->seal.counter_value != step.counter.value;
    keyd->seal.counter_value = step.counter.value;
    pthread_mutex_unlock(&keyd->lock);
    if (news) {
        tell_counter(keyd, "raised to", step.counter.value, NULL);
    }
    return ATT_OK;
}

static void tell_opened(struct keyd *keyd, const struct tpm_parent_stats *by)
{
    char what[192];
    snprintf(what, sizeof what, "boot %s of PCR policy %s version %" PRIu32, by->label, by->policy,
             by->version);
    keyd_tell(keyd, by->recovery ? KEYD_EVENT_RECOVERY : KEYD_EVENT_OPENED, what, NULL);
}

static enum att_rc run_probe(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    (void)arg;
    return tpm_parent_probe(ctx, err);
}

/* After an opening: what to remember of it, and what it obliges to. */
static enum att_rc after_opening(struct keyd *keyd, struct att_err *err)
{
    struct keyd_seal *seal = &keyd->seal;
    struct step step = {.keyd = keyd};
    enum att_rc rc = on_worker(keyd, run_report, &step, err);
    if (rc != ATT_OK) {
        return rc;
    }
    const struct tpm_parent_stats by = stats_now(keyd);
    tell_opened(keyd, &by);
    if (seal->counter && seal->counter_missing && by.recovery) {
        seal->counter_wanted = seal->counter;
        rc = add_counter(keyd, err); /* the operator has seen to it */
    } else if (!seal->counter && seal->counter_wanted) {
        rc = add_counter(keyd, err);
    }
    if (rc == ATT_OK && seal->counter && !by.recovery && by.version) {
        rc = raise_counter(keyd, by.version, err);
    }
    return rc;
}

enum att_rc keyd_seal_settle(struct keyd *keyd, struct att_err *err)
{
    struct step step = {.keyd = keyd};
    if (keyd->seal.mode == KEYD_PCR_NONE) {
        return ATT_OK;
    }
    enum att_rc rc = move_host_secret(keyd, err);
    if (rc == ATT_OK && stats_now(keyd).opened == 0) {
        /* Also where an earlier try had opened the host secret: in this boot? */
        rc = on_worker(keyd, run_probe, &step, err);
    }
    if (rc == ATT_OK) {
        rc = after_opening(keyd, err);
    }
    if (rc == ATT_OK) {
        pthread_mutex_lock(&keyd->lock);
        keyd->seal.opened = true;
        keyd->seal.now_known = false;
        pthread_mutex_unlock(&keyd->lock);
    }
    return rc;
}

enum att_rc keyd_seal_tidy(struct keyd *keyd, struct att_err *err)
{
    if (keyd->seal.mode == KEYD_PCR_NONE) {
        return ATT_OK;
    }
    enum att_rc rc = keyd_account_reseal(keyd, err);
    return rc == ATT_OK ? keyd_keys_drop_outside(keyd, err) : rc;
}

/* ---- while it runs ------------------------------------------------------------------------- */

enum att_rc keyd_reload_policies(struct keyd *keyd, struct att_err *err)
{
    struct step step = {.keyd = keyd};
    if (keyd->seal.mode != KEYD_PCR_SIGNED) {
        return ATT_OK;
    }
    pthread_mutex_lock(&keyd->lock);
    bool ready = keyd->phase == KEYD_READY;
    keyd->nudged = true;
    pthread_cond_broadcast(&keyd->changed);
    pthread_mutex_unlock(&keyd->lock);
    if (!ready) {
        return ATT_OK;
    }
    enum att_rc rc = take_policies(keyd, err);
    if (rc == ATT_OK) {
        rc = on_worker(keyd, run_probe, &step, err);
    }
    return rc == ATT_OK ? after_opening(keyd, err) : rc;
}

/* ---- INFO ---------------------------------------------------------------------------------- */

/* Those in force first. */
static json_t *files_json(const struct keyd_seal *seal)
{
    json_t *list = json_array();
    for (size_t round = 0; round < 2; round++) {
        for (size_t i = 0; i < seal->n_files; i++) {
            const struct keyd_policy_file *f = &seal->files[i];
            bool in_force = strcmp(f->state, "ok") == 0;
            if (in_force == (round == 0) && json_array_size(list) < KEYD_POLICIES_SHOWN) {
                json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:I, s:b}", "file", f->file,
                                                      "state", f->state, "name", f->name, "version",
                                                      (json_int_t)f->version, "recovery",
                                                      (int)f->recovery));
            }
        }
    }
    return list;
}

json_t *keyd_seal_json(const struct keyd *keyd)
{
    static const char *const modes[] = {"none", "7", "signed"};
    const struct keyd_seal *seal = &keyd->seal;
    const struct tpm_parent_stats *stats = &seal->stats;
    json_t *json = json_pack("{s:s}", "pcr", modes[seal->mode]);
    if (seal->mode == KEYD_PCR_NONE || !json) {
        return json;
    }
    json_object_set_new(json, "open", json_boolean(seal->opened));
    json_object_set_new(json, "opened", json_integer((json_int_t)stats->opened));
    json_object_set_new(json, "refused", json_integer((json_int_t)stats->refused));
    json_object_set_new(json, "pcrChanged", json_integer((json_int_t)stats->pcr_changed));
    json_object_set_new(json, "keysOutside", json_integer((json_int_t)keyd_keys_outside(keyd)));
    if (stats->policy[0]) {
        json_object_set_new(json, "by",
                            json_pack("{s:s, s:I, s:s, s:b}", "policy", stats->policy, "version",
                                      (json_int_t)stats->version, "boot", stats->label, "recovery",
                                      (int)stats->recovery));
    }
    if (seal->mode == KEYD_PCR_SIGNED) {
        json_object_set_new(json, "policies", files_json(seal));
        json_object_set_new(json, "policyFiles", json_integer((json_int_t)seal->n_files));
        json_object_set_new(json, "counter",
                            seal->counter ? json_pack("{s:o, s:I, s:b}", "index",
                                                      json_sprintf("0x%08" PRIx32, seal->counter),
                                                      "value", (json_int_t)seal->counter_value,
                                                      "missing", (int)seal->counter_missing)
                                          : json_null());
    }
    if (seal->now_known) {
        json_t *pcrs = NULL;
        if (parse_pcr_set_json(&seal->now, &pcrs, NULL) == ATT_OK) {
            json_object_set_new(
                json, "now",
                json_pack("{s:I, s:o}", "resetCount", (json_int_t)seal->reset_count, "pcrs", pcrs));
        }
    }
    return json;
}
