#include "attestd/conf/issuer_conf.h"

#include "attestd/base/enc.h"
#include "attestd/conf/check.h"
#include "attestd/conf/issuer_admin.h"
#include "attestd/conf/hsms.h"
#include "attestd/conf/issuer_devices.h"
#include "attestd/conf/issuer_dns.h"
#include "attestd/conf/issuer_federation.h"
#include "attestd/conf/issuer_jwt.h"
#include "attestd/conf/issuer_tpm.h"
#include "attestd/conf/load.h"
#include "attestd/conf/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define PTR CYAML_FLAG_POINTER
#define OPT (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define STR(type, member, flags)                                                                   \
    CYAML_FIELD_STRING_PTR(#member, (flags), struct type, member, 0, 4096)
#define STRS(type, member, flags, least, most)                                                     \
    CYAML_FIELD_SEQUENCE_COUNT(#member, (flags), struct type, member, n_##member,                  \
                               &conf_schema_string, (least), (most))

static const cyaml_schema_field_t deny_fields[] = {
    STR(conf_deny, manufacturer, PTR),
    STRS(conf_deny, versions, OPT, 1, CONF_DENY_MAX),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t deny_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_deny, deny_fields),
};
static const cyaml_schema_field_t ek_fields[] = {
    STR(conf_ek, roots_dir, PTR),
    CYAML_FIELD_SEQUENCE_COUNT("deny", OPT, struct conf_ek, deny, n_deny, &deny_entry, 0,
                               CONF_DENY_MAX),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t enrolment_fields[] = {
    STR(conf_enrolment, boot, PTR),
    STR(conf_enrolment, pcrs, PTR),
    STRS(conf_enrolment, logs, OPT, 0, CONF_LOGS_MAX),
    STRS(conf_enrolment, policy_signers, OPT, 1, CONF_SIGNERS_MAX),
    STR(conf_enrolment, mode, OPT),
    STR(conf_enrolment, ek, OPT),
    STR(conf_enrolment, ak_lifetime, OPT),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t profile_fields[] = {
    STR(conf_profile, name, PTR),
    STR(conf_profile, description, OPT),
    STR(conf_profile, lifetime, OPT),
    STRS(conf_profile, keys, OPT, 1, 4),
    STRS(conf_profile, key_types, OPT, 1, 3),
    STRS(conf_profile, hsms, OPT, 1, CONF_PROFILE_HSMS_MAX),
    STR(conf_profile, boot, PTR),
    STR(conf_profile, pcrs, PTR),
    STRS(conf_profile, logs, OPT, 0, CONF_LOGS_MAX),
    STRS(conf_profile, policy_signers, OPT, 1, CONF_SIGNERS_MAX),
    STR(conf_profile, mode, OPT),
    STR(conf_profile, parent_policy, OPT),
    STR(conf_profile, retention, OPT),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t profile_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_profile, profile_fields),
};
static const cyaml_schema_field_t tls_fields[] = {
    STR(conf_issuer_tls, cert_file, PTR),
    STR(conf_issuer_tls, key_file, PTR),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t crl_fields[] = {
    STR(conf_crl, listen, OPT),
    STR(conf_crl, url, OPT),
    STR(conf_crl, lifetime, OPT),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t ca_fields[] = {
    STR(conf_ca, keys, OPT),
    STR(conf_ca, hsm_user, OPT),
    STR(conf_ca, hsm_dir, OPT),
    STR(conf_ca, publish_wait, OPT),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t fields[] = {
    STR(conf_issuer, trust_domain, PTR),
    STR(conf_issuer, listen, OPT),
    STR(conf_issuer, url, PTR),
    STRS(conf_issuer, proxy_from, OPT, 0, CONF_RANGES_MAX),
    STR(conf_issuer, state_dir, OPT),
    STR(conf_issuer, run_dir, OPT),
    STR(conf_issuer, policies_dir, OPT),
    STR(conf_issuer, store, OPT),
    STR(conf_issuer, store_password_file, OPT),
    CYAML_FIELD_UINT("threads", CYAML_FLAG_OPTIONAL, struct conf_issuer, threads),
    CYAML_FIELD_BOOL_PTR("eab_required", OPT, struct conf_issuer, eab_required_set),
    CYAML_FIELD_MAPPING_PTR("ek", PTR, struct conf_issuer, ek, ek_fields),
    CYAML_FIELD_MAPPING_PTR("enrolment", PTR, struct conf_issuer, enrolment, enrolment_fields),
    CYAML_FIELD_SEQUENCE_COUNT("profiles", PTR, struct conf_issuer, profiles, n_profiles,
                               &profile_entry, 1, CONF_PROFILES_MAX),
    CYAML_FIELD_MAPPING_PTR("dns", OPT, struct conf_issuer, dns, conf_dns_fields),
    CYAML_FIELD_MAPPING_PTR("devices", OPT, struct conf_issuer, devices, conf_devices_fields),
    CYAML_FIELD_MAPPING_PTR("limits", OPT, struct conf_issuer, limits, conf_limits_fields),
    CYAML_FIELD_MAPPING_PTR("tls", OPT, struct conf_issuer, tls, tls_fields),
    CYAML_FIELD_MAPPING_PTR("crl", OPT, struct conf_issuer, crl, crl_fields),
    CYAML_FIELD_MAPPING_PTR("admin", OPT, struct conf_issuer, admin, conf_admin_fields),
    CYAML_FIELD_MAPPING_PTR("ca", OPT, struct conf_issuer, ca, ca_fields),
    CYAML_FIELD_MAPPING_PTR("jwt", OPT, struct conf_issuer, jwt, conf_jwt_fields),
    CYAML_FIELD_MAPPING_PTR("federation", OPT, struct conf_issuer, federation,
                            conf_federation_fields),
    CYAML_FIELD_MAPPING_PTR("hsm", OPT, struct conf_issuer, hsm, conf_hsm_fields),
    CYAML_FIELD_MAPPING_PTR("log_tpm", OPT, struct conf_issuer, log_tpm, conf_log_tpm_fields),
    STR(conf_issuer, metrics_listen, OPT),
    STR(conf_issuer, drain_notice, OPT),
    STR(conf_issuer, drain_timeout, OPT),
    STR(conf_issuer, ca_warning, OPT),
    STR(conf_issuer, evidence_lifetime, OPT),
    STR(conf_issuer, log, OPT),
    STR(conf_issuer, log_level, OPT),
    STR(conf_issuer, control_group, OPT),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct conf_issuer, fields),
};

void conf_issuer_free(struct conf_issuer *conf)
{
    conf_schema_free(&schema, conf);
}

/* A list of one word, where the file has none. */
static bool default_list(char ***list, unsigned *n, const struct conf_node *given, const char *word)
{
    if (given) {
        return true;
    }
    *list = calloc(1, sizeof **list);
    if (!*list || !((*list)[0] = strdup(word))) {
        return false; /* cyaml_free frees by the count, which is still 0 */
    }
    *n = 1;
    return true;
}

static bool default_store(struct conf_issuer *conf)
{
    if (!conf->store && asprintf(&conf->store, "%s/issuer.db", conf->state_dir) < 0) {
        conf->store = NULL;
    }
    return conf->store != NULL;
}

static bool ca_defaults(struct conf_ca *ca)
{
    return !ca || (conf_default(&ca->keys, "file") && conf_default(&ca->publish_wait, "24h"));
}

static bool default_metrics(struct conf_issuer *conf)
{
    if (!conf->metrics_listen &&
        asprintf(&conf->metrics_listen, "unix:%s/metrics.sock", conf->run_dir) < 0) {
        conf->metrics_listen = NULL;
    }
    return conf->metrics_listen != NULL;
}

static bool fill_defaults(struct conf_issuer *conf, const struct conf_node *root)
{
    struct conf_enrolment *en = conf->enrolment;
    conf->eab_required = !conf->eab_required_set || *conf->eab_required_set;
    if (!conf_tree_get(root, "threads")) {
        conf->threads = 4;
    }
    bool ok = conf_default(&conf->listen, "127.0.0.1:8443") &&
              conf_default(&conf->state_dir, "/var/lib/attest-issuerd") && default_store(conf) &&
              conf_default(&conf->run_dir, "/run/attest-issuerd") &&
              conf_default(&conf->policies_dir, "/etc/attestd/policies") && default_metrics(conf) &&
              conf_default(&conf->drain_timeout, "10s") && conf_default(&conf->ca_warning, "90d") &&
              conf_default(&conf->evidence_lifetime, "400d") && conf_default(&conf->log, "text") &&
              conf_default(&conf->log_level, "info") &&
              conf_default(&conf->control_group, "attestd-admin") &&
              conf_default(&en->mode, "enforce") && conf_default(&en->ek, "certificate") &&
              conf_default(&en->ak_lifetime, "7d") &&
              default_list(&en->logs, &en->n_logs,
                           conf_tree_get(conf_tree_get(root, "enrolment"), "logs"), "firmware");
    ok = ok && conf_hsm_defaults(conf->hsm) && ca_defaults(conf->ca) &&
         conf_dns_defaults(conf, root) && conf_devices_defaults(conf) &&
         conf_limits_defaults(conf, root) && conf_admin_defaults(conf) &&
         conf_jwt_defaults(conf->jwt) && conf_federation_defaults(conf->federation) &&
         conf_log_tpm_defaults(conf);
    const struct conf_node *list = conf_tree_get(root, "profiles");
    const struct conf_node *given = list ? list->first : NULL;
    for (unsigned i = 0; ok && i < conf->n_profiles; i++, given = given->next) {
        struct conf_profile *p = &conf->profiles[i];
        ok = conf_default(&p->description, p->name) && conf_default(&p->lifetime, "1h") &&
             conf_default(&p->mode, "enforce") &&
             default_list(&p->keys, &p->n_keys, conf_tree_get(given, "keys"), "tpm") &&
             default_list(&p->key_types, &p->n_key_types, conf_tree_get(given, "key_types"),
                          "ec-p256") &&
             default_list(&p->logs, &p->n_logs, conf_tree_get(given, "logs"), "firmware");
    }
    return ok;
}

static void check_crl(struct conf_check *check, struct conf_issuer *conf)
{
    const struct conf_crl *crl = conf->crl;
    conf->crl_lifetime_s = 86400;
    if (!crl) {
        return;
    }
    if (crl->listen) {
        conf_check_listen(check, "crl.listen", crl->listen, conf->crl_host, &conf->crl_port);
    }
    (void)conf_check_http_url(check, "crl.url", crl->url);
    if (crl->lifetime) {
        (void)conf_check_duration(check, "crl.lifetime", crl->lifetime, 120, &conf->crl_lifetime_s);
    }
}

static void check_drain(struct conf_check *check, struct conf_issuer *conf)
{
    (void)conf_check_duration(check, "drain_timeout", conf->drain_timeout, 1,
                              &conf->drain_timeout_s);
    if (conf->drain_notice) {
        (void)conf_check_duration(check, "drain_notice", conf->drain_notice, 1,
                                  &conf->drain_notice_s);
    }
    if (conf->drain_timeout_s + conf->drain_notice_s > 80) {
        conf_bad(check, "drain_timeout",
                 "expected at most 80s with drain_notice, since systemd ends what has not ended "
                 "after 90 s, found %llds",
                 (long long)(conf->drain_timeout_s + conf->drain_notice_s));
    }
}

/* ---- the deny list ---- */

/* "a.b.c.d" (four 16-bit numbers), or "id:" and 8 or 16 hex digits. */
static bool version_form(const char *text)
{
    unsigned v[4];
    char end = 0;
    if (strchr(text, '.')) {
        return strspn(text, "0123456789.") == strlen(text) && strlen(text) <= 23 &&
               sscanf(text, "%5u.%5u.%5u.%5u%c", &v[0], &v[1], &v[2], &v[3], &end) == 4 &&
               (v[0] | v[1] | v[2] | v[3]) <= 0xffff;
    }
    size_t len = strncmp(text, "id:", 3) == 0 ? strlen(text + 3) : 0;
    return (len == 8 || len == 16) && strspn(text + 3, "0123456789abcdefABCDEF") == len;
}

static bool manufacturer_id(const char *text, char ret[12])
{
    size_t len = strlen(text);
    if (len == 11 && strncmp(text, "id:", 3) == 0 &&
        strspn(text + 3, "0123456789abcdefABCDEF") == 8) {
        snprintf(ret, 12, "%s", text);
        return true;
    }
    if (len == 0 || len > 4) {
        return false;
    }
    uint8_t bytes[4] = {0};
    for (size_t i = 0; i < len; i++) {
        if (text[i] < 0x20 || text[i] > 0x7e) {
            return false;
        }
        bytes[i] = (uint8_t)text[i];
    }
    snprintf(ret, 12, "id:%02X%02X%02X%02X", bytes[0], bytes[1], bytes[2], bytes[3]);
    return true;
}

static void check_deny(struct conf_check *check, struct conf_ek *ek)
{
    for (unsigned i = 0; i < ek->n_deny; i++) {
        struct conf_deny *deny = &ek->deny[i];
        if (!manufacturer_id(deny->manufacturer, deny->manufacturer_id)) {
            conf_bad(check, conf_path("ek.deny[%u].manufacturer", i).text,
                     "expected the TPM's four characters such as \"STM \" or \"id:53544D20\", "
                     "found \"%.40s\"",
                     deny->manufacturer);
        }
        for (unsigned k = 0; k < deny->n_versions; k++) {
            if (!version_form(deny->versions[k])) {
                conf_bad(check, conf_path("ek.deny[%u].versions[%u]", i, k).text,
                         "expected a version such as \"1.258.0.0\" or \"id:00010102\", found "
                         "\"%.40s\"",
                         deny->versions[k]);
            }
        }
    }
}

/* ---- all of it ---- */

static bool has_word(char *const *list, size_t n, const char *word)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], word) == 0) {
            return true;
        }
    }
    return false;
}

/* One of these PCRs ("10", "9"…) in "sha256:0,1,10". */
static bool selects(const char *pcrs, const char *const *wanted)
{
    const char *at = strchr(pcrs, ':');
    while (at && *at) {
        size_t n = strcspn(++at, ",");
        for (size_t i = 0; wanted[i]; i++) {
            if (strlen(wanted[i]) == n && strncmp(at, wanted[i], n) == 0) {
                return true;
            }
        }
        at += n;
    }
    return false;
}

/* A log that cannot be held to the quoted PCRs proves nothing: asking for one would refuse every
 * host. */
static void check_logs(struct conf_check *check, const char *path, char *const *logs, unsigned n,
                       const char *pcrs)
{
    static const char *const ima[] = {"10", NULL};
    static const char *const systemd[] = {"9", "11", "12", "13", "15", NULL};
    if (!conf_check_words(check, path, logs, n, conf_log_names)) {
        return;
    }
    bool has_ima = has_word(logs, n, "ima"), has_systemd = has_word(logs, n, "systemd");
    if ((has_ima || has_systemd) && !has_word(logs, n, "firmware")) {
        conf_bad(check, path,
                 "systemd and ima go on from firmware: expected firmware among them, too");
    }
    if (has_ima && !selects(pcrs, ima)) {
        conf_bad(check, path, "ima needs PCR 10 among the pcrs, found \"%.64s\"", pcrs);
    }
    if (has_systemd && !selects(pcrs, systemd)) {
        conf_bad(check, path,
                 "systemd needs one of PCR 9, 11, 12, 13 and 15 among the pcrs, found "
                 "\"%.64s\"",
                 pcrs);
    }
}

static void check_boot(struct conf_check *check, const char *path, const char *boot, bool *ret_none)
{
    *ret_none = strcmp(boot, "none") == 0;
    (void)conf_check_name(check, path, boot);
}

/* Who may sign the policy, and what is done with its findings. */
static void check_policy(struct conf_check *check, const char *signers_path, const char *mode_path,
                         char *const *hex, unsigned n, uint8_t (*ret)[32], const char *mode)
{
    static const char *const modes[] = {"enforce", "warn", "observe", NULL};
    for (unsigned i = 0; i < n; i++) {
        struct att_err why = {0};
        if (att_unhex_exact(ret[i], 32, hex[i], &why)) {
            conf_bad(
                check, signers_path,
                "expected the SHA-256 of a public key, 64 hex digits, as attestctl policy sign "
                "prints it, found \"%.80s\"",
                hex[i]);
        }
    }
    (void)conf_check_word(check, mode_path, mode, modes);
}

static void check_enrolment(struct conf_check *check, struct conf_enrolment *en)
{
    static const char *const kinds[] = {"certificate", "inventory", NULL};
    check_boot(check, "enrolment.boot", en->boot, &en->boot_none);
    (void)conf_check_pcrs(check, "enrolment.pcrs", en->pcrs);
    check_logs(check, "enrolment.logs", en->logs, en->n_logs, en->pcrs);
    check_policy(check, "enrolment.policy_signers", "enrolment.mode", en->policy_signers,
                 en->n_policy_signers, en->signers, en->mode);
    (void)conf_check_word(check, "enrolment.ek", en->ek, kinds);
    en->ek_inventory = strcmp(en->ek, "inventory") == 0;
    (void)conf_check_duration(check, "enrolment.ak_lifetime", en->ak_lifetime, 600,
                              &en->ak_lifetime_s);
}

static void check_parent_policy(struct conf_check *check, const char *path, struct conf_profile *p)
{
    const char *text = p->parent_policy ? p->parent_policy : "none";
    p->parent_pcr7 = strcmp(text, "7") == 0;
    if (p->parent_pcr7 || strcmp(text, "none") == 0) {
        return;
    }
    p->has_parent_policy =
        strspn(text, "0123456789abcdef") == 2 * ATT_SHA256_LEN &&
        att_unhex_exact(p->parent_policy_bytes, ATT_SHA256_LEN, text, NULL) == ATT_OK;
    if (!p->has_parent_policy) {
        conf_bad(check, path, "expected none, 7 or 64 lowercase hex digits, found \"%.80s\"", text);
    }
    if (p->n_keys && !has_word(p->keys, p->n_keys, "tpm")) {
        conf_bad(check, path, "no key but a TPM's meets it, and keys has no tpm");
    }
}

static void check_key_types(struct conf_check *check, const char *path,
                            const struct conf_profile *p)
{
    static const char *const types[] = {"ec-p256", "rsa-2048", "rsa-3072", NULL};
    bool rsa = has_word(p->key_types, p->n_key_types, "rsa-2048") ||
               has_word(p->key_types, p->n_key_types, "rsa-3072");
    if (conf_check_words(check, path, p->key_types, p->n_key_types, types) && rsa &&
        !has_word(p->keys, p->n_keys, "hsm")) {
        conf_bad(check, path, "RSA keys are made in an HSM only, and keys has no hsm");
    }
}

/* Names as hosts' attestd.yaml has them (conf/hsms.c). */
static void check_hsms(struct conf_check *check, unsigned i, const struct conf_profile *p)
{
    for (unsigned k = 0; k < p->n_hsms; k++) {
        struct conf_path at = conf_path("profiles[%u].hsms[%u]", i, k);
        if (conf_check_name(check, at.text, p->hsms[k]) && strlen(p->hsms[k]) > CONF_HSM_NAME_MAX) {
            conf_bad(check, at.text, "expected at most %d characters, found %zu", CONF_HSM_NAME_MAX,
                     strlen(p->hsms[k]));
        } else if (has_word(p->hsms, k, p->hsms[k])) {
            conf_bad(check, at.text, "module \"%s\" stands there twice", p->hsms[k]);
        }
    }
    if (p->n_hsms && !has_word(p->keys, p->n_keys, "hsm")) {
        conf_bad(check, conf_path("profiles[%u].hsms", i).text,
                 "modules of an HSM, and keys has no hsm");
    }
}

/* Keys that no hardware holds have certificates of minutes. */
static void check_short(struct conf_check *check, const char *path, const struct conf_profile *p)
{
    bool exportable = has_word(p->keys, p->n_keys, "exportable");
    bool memory = has_word(p->keys, p->n_keys, "memory");
    if (exportable && p->lifetime_s > CONF_EXPORTABLE_MAX_S) {
        conf_bad(check, path,
                 "expected at most 10m in a profile that allows exportable keys, found \"%.40s\"",
                 p->lifetime);
    } else if (memory && p->lifetime_s > CONF_MEMORY_MAX_S) {
        conf_bad(check, path,
                 "expected at most 15m in a profile that allows memory keys, found \"%.40s\"",
                 p->lifetime);
    }
}

static void check_profile(struct conf_check *check, struct conf_issuer *conf, unsigned i)
{
    static const char *const kinds[] = {"tpm", "hsm", "memory", "exportable", NULL};
    struct conf_profile *p = &conf->profiles[i];
    (void)conf_check_name(check, conf_path("profiles[%u].name", i).text, p->name);
    if (strcmp(p->name, CONF_ENROLMENT) == 0) {
        conf_bad(check, conf_path("profiles[%u].name", i).text,
                 "\"" CONF_ENROLMENT "\" is the name of what hosts enrol by, not of a profile");
    }
    for (unsigned k = 0; k < i; k++) {
        if (strcmp(conf->profiles[k].name, p->name) == 0) {
            conf_bad(check, conf_path("profiles[%u].name", i).text,
                     "profile \"%.64s\" stands there twice", p->name);
        }
    }
    (void)conf_check_text(check, conf_path("profiles[%u].description", i).text, p->description,
                          256);
    struct conf_path at = conf_path("profiles[%u].lifetime", i);
    if (conf_check_duration(check, at.text, p->lifetime, CONF_LIFETIME_MIN_S, &p->lifetime_s)) {
        check_short(check, at.text, p);
    }
    (void)conf_check_words(check, conf_path("profiles[%u].keys", i).text, p->keys, p->n_keys,
                           kinds);
    check_key_types(check, conf_path("profiles[%u].key_types", i).text, p);
    check_hsms(check, i, p);
    check_boot(check, conf_path("profiles[%u].boot", i).text, p->boot, &p->boot_none);
    (void)conf_check_pcrs(check, conf_path("profiles[%u].pcrs", i).text, p->pcrs);
    check_logs(check, conf_path("profiles[%u].logs", i).text, p->logs, p->n_logs, p->pcrs);
    check_policy(check, conf_path("profiles[%u].policy_signers", i).text,
                 conf_path("profiles[%u].mode", i).text, p->policy_signers, p->n_policy_signers,
                 p->signers, p->mode);
    check_parent_policy(check, conf_path("profiles[%u].parent_policy", i).text, p);
}

/* What a record names goes no later than the record. */
static void check_retention(struct conf_check *check, const struct conf_issuer *conf, unsigned i)
{
    struct conf_profile *p = &conf->profiles[i];
    struct conf_path at = conf_path("profiles[%u].retention", i);
    if (p->retention && conf_check_duration(check, at.text, p->retention, 86400, &p->retention_s) &&
        p->retention_s < conf->evidence_lifetime_s) {
        conf_bad(check, at.text,
                 "expected no less than evidence_lifetime (%.40s), found \"%.40s\": evidence would "
                 "outlast the record that names it",
                 conf->evidence_lifetime, p->retention);
    }
}

static bool is_postgres(const char *store)
{
    return strncmp(store, "postgres:", 9) == 0 || strncmp(store, "postgresql:", 11) == 0;
}

/* "credential:NAME" becomes the path that systemd gave it. Without one it stays: processes that
 * never ask the database, and commands beside the unit, read this file too. */
static void check_password_file(struct conf_check *check, struct conf_issuer *conf)
{
    static const char word[] = "credential:";
    const char *path = "store_password_file", *name = conf->store_password_file;
    if (strncmp(name, word, sizeof word - 1) != 0) {
        (void)conf_check_path(check, path, name);
        return;
    }
    name += sizeof word - 1;
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    char *full = NULL;
    if (!*name || strchr(name, '/')) {
        conf_bad(check, path, "expected credential:NAME, found \"%.80s\"",
                 conf->store_password_file);
    } else if (folder && asprintf(&full, "%s/%s", folder, name) >= 0) {
        free(conf->store_password_file);
        conf->store_password_file = full;
    }
}

/* A connection string is never quoted in a complaint: it might have a password in it. */
static void check_store(struct conf_check *check, struct conf_issuer *conf)
{
    bool postgres = is_postgres(conf->store);
    if (!postgres) {
        const char *path = conf->store + (strncmp(conf->store, "sqlite:", 7) == 0 ? 7 : 0);
        (void)conf_check_path(check, "store", path);
    }
    if (!conf->store_password_file) {
        return;
    }
    if (!postgres) {
        conf_bad(check, "store_password_file", "a store that is a file takes no password");
    } else {
        check_password_file(check, conf);
    }
}

static void check_ca(struct conf_check *check, struct conf_issuer *conf)
{
    static const char *const kinds[] = {"file", "hsm", NULL};
    const struct conf_ca *ca = conf->ca;
    conf->ca_publish_wait_s = 86400;
    if (conf->hsm) {
        conf_hsm_check(check, conf->hsm);
    }
    if (!ca) {
        return;
    }
    conf->ca_keys_hsm = strcmp(ca->keys, "hsm") == 0;
    if (conf_check_word(check, "ca.keys", ca->keys, kinds) && conf->ca_keys_hsm && !conf->hsm) {
        conf_bad(check, "ca.keys", "hsm needs a section hsm, which names the token");
    }
    if (ca->hsm_dir) {
        (void)conf_check_path(check, "ca.hsm_dir", ca->hsm_dir);
    }
    (void)conf_check_duration(check, "ca.publish_wait", ca->publish_wait, 0,
                              &conf->ca_publish_wait_s);
}

static void check_all(struct conf_check *check, struct conf_issuer *conf)
{
    (void)conf_check_trust_domain(check, "trust_domain", conf->trust_domain);
    conf_check_listen(check, "listen", conf->listen, conf->listen_host, &conf->listen_port);
    check_crl(check, conf);
    conf_check_metrics(check, conf->metrics_listen, &conf->metrics_at);
    check_drain(check, conf);
    (void)conf_check_url(check, "url", conf->url);
    (void)conf_check_path(check, "state_dir", conf->state_dir);
    (void)conf_check_path(check, "run_dir", conf->run_dir);
    (void)conf_check_path(check, "policies_dir", conf->policies_dir);
    check_store(check, conf);
    (void)conf_check_duration(check, "ca_warning", conf->ca_warning, 86400, &conf->ca_warning_s);
    (void)conf_check_duration(check, "evidence_lifetime", conf->evidence_lifetime, 86400,
                              &conf->evidence_lifetime_s);
    if (conf->threads < 1 || conf->threads > 64) {
        conf_bad(check, "threads", "expected 1 … 64, found %u", conf->threads);
    }
    (void)conf_check_path(check, "ek.roots_dir", conf->ek->roots_dir);
    check_deny(check, conf->ek);
    check_enrolment(check, conf->enrolment);
    for (unsigned i = 0; i < conf->n_profiles; i++) {
        check_profile(check, conf, i);
        check_retention(check, conf, i);
    }
    check_ca(check, conf);
    conf_peers_check(check, "proxy_from", conf->proxy_from, conf->n_proxy_from, conf->proxies);
    conf_dns_check(check, conf);
    conf_devices_check(check, conf);
    conf_jwt_check(check, conf);
    conf_federation_check(check, conf);
    conf_log_tpm_check(check, conf);
    conf_limits_check(check, conf->limits);
    conf_admin_check(check, conf);
    if (conf->tls) {
        (void)conf_check_path(check, "tls.cert_file", conf->tls->cert_file);
        (void)conf_check_path(check, "tls.key_file", conf->tls->key_file);
    }
    conf_check_log(check, conf->log, conf->log_level, &conf->log_json, &conf->log_least);
    (void)conf_check_group(check, &conf->control_group);
}

static enum att_rc parse(struct att_slice yaml, void **ret, struct conf_errors *errors,
                         struct att_err *err)
{
    void *data = NULL;
    struct conf_node *root = conf_tree_parse(yaml, errors);
    enum att_rc rc = ATT_OK;
    if (root && conf_schema_load(yaml, root, &schema, &data, errors)) {
        struct conf_check check = {errors, root};
        if (fill_defaults(data, root)) {
            check_all(&check, data);
        } else {
            rc = att_fail(err, ATT_E_NOMEM, "configuration");
        }
    }
    conf_tree_free(root);
    if (rc == ATT_OK) {
        rc = conf_errors_rc(errors, err);
    }
    if (rc != ATT_OK) {
        conf_issuer_free(data);
        return rc;
    }
    *ret = data;
    return ATT_OK;
}

enum att_rc conf_issuer_parse(struct att_slice yaml, struct conf_issuer **ret_conf,
                              struct conf_errors *errors, struct att_err *err)
{
    void *conf = NULL;
    enum att_rc rc = conf_parse_with(parse, yaml, &conf, errors, err);
    if (rc == ATT_OK) {
        *ret_conf = conf;
    }
    return rc;
}

enum att_rc conf_issuer_load(const char *path, struct conf_issuer **ret_conf,
                             struct conf_errors *errors, struct att_err *err)
{
    void *conf = NULL;
    enum att_rc rc = conf_load_with(parse, path, &conf, errors, err);
    if (rc == ATT_OK) {
        *ret_conf = conf;
    }
    return rc;
}

const struct conf_profile *conf_issuer_profile(const struct conf_issuer *conf, const char *name)
{
    for (unsigned i = 0; i < conf->n_profiles; i++) {
        if (strcmp(conf->profiles[i].name, name) == 0) {
            return &conf->profiles[i];
        }
    }
    return NULL;
}
