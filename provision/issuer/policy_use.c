/* What profiles want of their boot policies: who signs them, and what their findings do. The mode
 * stands in the store, so that it changes without a restart and is the same for every issuer of it.
 */
#include "provision/issuer/context.h"
#include "provision/issuer/who.h"

#include "attestd/base/enc.h"

#include <stdio.h>
#include <string.h>

#define LOGGED_MAX 8 /* findings of a verdict; the record has the rest */

static void mode_key(char *ret, size_t room, const char *profile)
{
    (void)snprintf(ret, room, "policy_mode/%s", profile);
}

enum att_rc issuer_policy_use(struct store_tx *tx, const struct conf_issuer *conf,
                              const char *profile, struct issuer_policy_use *ret,
                              struct att_err *err)
{
    bool enrolment = strcmp(profile, CONF_ENROLMENT) == 0;
    const struct conf_profile *p = enrolment ? NULL : conf_issuer_profile(conf, profile);
    struct issuer_policy_use use = {0};
    const char *mode = enrolment ? conf->enrolment->mode : p ? p->mode : "enforce";
    char key[128];
    att_autobuf said = {0};
    if (enrolment) {
        use.signers = (const uint8_t(*)[ATT_SHA256_LEN])conf->enrolment->signers;
        use.n_signers = conf->enrolment->n_policy_signers;
    } else if (p) {
        use.signers = (const uint8_t(*)[ATT_SHA256_LEN])p->signers;
        use.n_signers = p->n_policy_signers;
    }
    mode_key(key, sizeof key, profile);
    enum att_rc rc = store_meta_get(tx, key, &said, NULL);
    if (rc && rc != ATT_E_NOTFOUND) {
        return att_fail(err, rc, "policy modes cannot be read");
    }
    if (!rc && said.len) {
        mode = att_buf_cstr(&said);
    }
    if (verify_mode_from_word(mode, &use.mode)) {
        use.mode = VERIFY_MODE_ENFORCE; /* what nobody knows is not lenient */
    }
    *ret = use;
    return ATT_OK;
}

enum att_rc issuer_policy_set_mode(struct store_tx *tx, const char *profile, const char *mode,
                                   const struct issuer_who *who, int64_t now, struct att_err *err)
{
    char key[128];
    enum verify_mode known = VERIFY_MODE_ENFORCE;
    bool back = strcmp(mode, "default") == 0;
    if (!back && verify_mode_from_word(mode, &known)) {
        return issuer_refuse(err, ATT_E_INVAL, "usage",
                             "mode: expected enforce, warn, observe or default, found \"%.40s\"",
                             mode);
    }
    mode_key(key, sizeof key, profile);
    enum att_rc rc = store_meta_set(tx, key, att_slice_str(back ? "" : mode), err);
    if (!rc) {
        json_t *record = issuer_record("policyMode", "done", NULL, NULL, profile);
        json_object_set_new(record, "mode", json_string(mode));
        issuer_who_put(record, who);
        rc = issuer_audit(tx, now, record, NULL, err);
    }
    return rc;
}

enum att_rc issuer_policy_signed_by(const struct verify_policy *policy, const char *profile,
                                    const uint8_t (*signers)[ATT_SHA256_LEN], size_t n,
                                    struct att_err *err)
{
    if (n == 0) {
        return ATT_OK;
    }
    if (!policy->is_signed) {
        return issuer_refuse(err, ATT_E_DENIED, "policyUnsigned",
                             "policy %s: %s takes it only signed, and it is not", policy->name,
                             profile);
    }
    for (size_t i = 0; i < n; i++) {
        if (memcmp(signers[i], policy->signer, ATT_SHA256_LEN) == 0) {
            return ATT_OK;
        }
    }
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE_ARRAY(policy->signer));
    return issuer_refuse(err, ATT_E_DENIED, "policySigner",
                         "policy %s: signed by key %s, none of the %zu whose signature %s takes",
                         policy->name, hex, n, profile);
}

enum att_rc issuer_policy_signer_check(struct issuer *issuer, const struct verify_policy *policy,
                                       struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    const struct conf_issuer *conf = settings->conf;
    const struct conf_enrolment *en = conf->enrolment;
    enum att_rc rc = ATT_OK;
    if (strcmp(en->boot, policy->name) == 0) {
        rc = issuer_policy_signed_by(policy, CONF_ENROLMENT, (const uint8_t(*)[32])en->signers,
                                     en->n_policy_signers, err);
    }
    for (unsigned i = 0; !rc && i < conf->n_profiles; i++) {
        const struct conf_profile *p = &conf->profiles[i];
        if (strcmp(p->boot, policy->name) == 0) {
            rc = issuer_policy_signed_by(policy, p->name, (const uint8_t(*)[32])p->signers,
                                         p->n_policy_signers, err);
        }
    }
    return rc;
}

void issuer_policy_log(const struct verify_verdict *verdict, const char *host, const char *what)
{
    for (size_t i = 0; i < verdict->n_findings && i < LOGGED_MAX; i++) {
        const struct verify_finding *f = &verdict->findings[i];
        bool loud = verdict->mode != VERIFY_MODE_OBSERVE && f->severity != VERIFY_SEVERITY_INFO;
        att_log(loud ? ATT_WARN : ATT_INFO, "policy.finding", ATT_S("host", host),
                ATT_S("what", what), ATT_S("mode", verify_mode_word(verdict->mode)),
                ATT_S("id", verify_finding_word(f->id)),
                ATT_S("severity", verify_severity_word(f->severity)), ATT_S("detail", f->detail));
    }
}

json_t *issuer_policy_note(const struct verify_verdict *verdict)
{
    json_int_t n = (json_int_t)(verdict->n_findings + verdict->findings_left_out);
    return n == 0 ? NULL
                  : json_pack("{s:s, s:I, s:I, s:s}", "mode", verify_mode_word(verdict->mode),
                              "refusing", (json_int_t)verdict->n_refusing, "findings", n, "first",
                              verdict->n_findings ? verdict->findings[0].detail : "");
}
