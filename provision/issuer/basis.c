/* What a verdict rests on, asked again: when the certificate is made, and for as long as tokens
 * rest on that certificate. */
#include "provision/issuer/ca.h"
#include "provision/issuer/order.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A verdict older than this bears no token (the most that jwt.evidence_max_age can be), so no
 * refusal of before counts. */
#define REFUSED_KEPT_S (86400 + 3600)

static enum att_rc check_policy(const struct issuer_call *call, struct store_tx *tx,
                                const struct store_order *order, struct att_err *err)
{
    const char *slash = strrchr(order->policy, '/');
    char name[VERIFY_POLICY_NAME_MAX + 1];
    snprintf(name, sizeof name, "%.*s", slash ? (int)(slash - order->policy) : 0, order->policy);
    const struct conf_profile *profile = conf_issuer_profile(call->settings->conf, order->profile);
    issuer_autopolicy *policy = NULL;
    enum att_rc rc = issuer_policy_get(call->issuer, tx, name, &policy, err);
    if (rc) {
        return rc;
    }
    long long judged = slash ? atoll(slash + 1) : -1;
    long long now = strcmp(name, "none") == 0 ? 0 : policy ? (long long)policy->v->version : -1;
    if (policy && policy->v->not_after && call->now > policy->v->not_after) {
        now = -1;
    }
    struct issuer_policy_use use;
    rc = issuer_policy_use(tx, call->settings->conf, order->profile, &use, err);
    if (rc) {
        return rc;
    }
    if (use.mode == VERIFY_MODE_ENFORCE && strstr(order->policy, ISSUER_UNENFORCED)) {
        return issuer_refuse(err, ATT_E_DENIED, "bootPolicy",
                             "boot policy %s is enforced since the verdict, which had findings",
                             name);
    }
    if (policy) {
        rc = issuer_policy_signed_by(policy->v, order->profile, use.signers, use.n_signers, err);
        if (rc) {
            return rc;
        }
    }
    if (!profile || strcmp(profile->boot, name) != 0 || now != judged) {
        return issuer_refuse(err, ATT_E_DENIED, "policyExpired",
                             "the verdict rests on boot policy %s, which is not the current one",
                             order->policy);
    }
    return ATT_OK;
}

/* What the verdict rests on besides the policy: the profile's demands, the enrolment, and what is
 * known of the TPM's firmware; any of them may have changed since. */
static enum att_rc check_rest(const struct issuer_call *call, const struct store_order *order,
                              const struct store_host *host, const struct store_ak *ak,
                              struct att_err *err)
{
    const struct issuer_settings *s = call->settings;
    const struct conf_profile *profile = conf_issuer_profile(s->conf, order->profile);
    issuer_autofree *logs = profile ? issuer_logs_join(profile->logs, profile->n_logs) : NULL;
    if (!profile || !logs || strcmp(profile->pcrs, order->pcr_selection) != 0 ||
        strcmp(logs, order->logs) != 0) {
        return issuer_refuse(err, ATT_E_DENIED, "policyExpired",
                             "profile %s asks for other evidence since the verdict",
                             order->profile);
    }
    enum att_rc rc = issuer_sealed_again(order->parent, profile, err);
    if (rc) {
        return rc;
    }
    if (ak->expires_at <= call->now) {
        return issuer_refuse(err, ATT_E_DENIED, "akStale", "the AK's enrolment expired");
    }
    struct att_cur cur = att_cur_init(att_buf_slice(&ak->firmware));
    struct verify_verdict *verdict = verify_verdict_new();
    rc = !verdict ? att_fail(err, ATT_E_NOMEM, "no memory")
         : verify_firmware(s->deny, s->n_deny, host->manufacturer, att_cur_be64(&cur), NULL,
                           verdict) == VERIFY_ACCEPTED
             ? ATT_OK
             : verify_verdict_err(verdict, err);
    verify_verdict_free(verdict);
    return rc;
}

enum att_rc issuer_order_basis(const struct issuer_call *call, struct store_tx *tx,
                               const struct store_order *order, const struct store_host *host,
                               const struct store_ak *ak, struct att_err *err)
{
    enum att_rc rc = check_policy(call, tx, order, err);
    return rc ? rc : check_rest(call, order, host, ak, err);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static bool begins(const char *reason, const char *const *words)
{
    while (*words && strncmp(reason, *words, strlen(*words)) != 0) {
        words++;
    }
    return *words != NULL;
}

/* Whom a refusal speaks of: the agent ("agent/NAME"), all whose boot is judged by the same policy
 * ("boot/NAME"), or, where nothing says that it is less, the whole host. */
static char *scope_of(const struct store_order *order, const char *reason)
{
    static const char *const own[] = {"key",      "certify",   "measured", "manifest",
                                      "evidence", "malformed", "internal", NULL};
    static const char *const boot[] = {"boot", "policy", "log", "ima", NULL};
    char *scope = NULL;
    int n = begins(reason, own) ? asprintf(&scope, "agent/%s", order->entry)
            : begins(reason, boot)
                ? asprintf(&scope, "boot/%.*s", (int)strcspn(order->policy, "/"), order->policy)
                : asprintf(&scope, "host");
    return n < 0 ? NULL : scope;
}

enum att_rc issuer_refusal_note(json_t *notes, const struct store_order *order, const char *reason,
                                int64_t now, struct att_err *err)
{
    json_t *all = json_object_get(notes, "refused"), *one;
    const char *key;
    void *next;
    int64_t at;
    if (!all) {
        all = json_object();
        json_object_set_new(notes, "refused", all);
    }
    json_object_foreach_safe(all, next, key, one)
    {
        if (att_time_parse(issuer_string(one, "at"), &at, NULL) || at < now - REFUSED_KEPT_S) {
            json_object_del(all, key);
        }
    }
    issuer_autofree *scope = scope_of(order, reason);
    return scope && json_object_set_new(
                        all, scope,
                        json_pack("{s:o, s:s}", "at", issuer_time_json(now), "reason", reason)) == 0
               ? ATT_OK
               : att_fail(err, ATT_E_NOMEM, "no memory");
}

enum att_rc issuer_refusal_check(const json_t *notes, const struct store_order *order,
                                 struct att_err *err)
{
    static const char *const reasons[] = {"keyX", "bootX", "X"}; /* one of each scope */
    const json_t *all = json_object_get(notes, "refused");
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        issuer_autofree *scope = scope_of(order, reasons[i]);
        const json_t *one = scope ? json_object_get(all, scope) : NULL;
        int64_t at = 0;
        if (!scope) {
            return att_fail(err, ATT_E_NOMEM, "no memory");
        }
        if (one &&
            (att_time_parse(issuer_string(one, "at"), &at, NULL) || at >= order->verdict_at)) {
            return issuer_refuse(err, ATT_E_DENIED, "verdictRefused",
                                 "refused since this certificate's verdict (%.80s): %.80s", scope,
                                 issuer_string(one, "reason"));
        }
    }
    return ATT_OK;
}
