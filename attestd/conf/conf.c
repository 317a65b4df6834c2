#include "attestd/conf/conf.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/conf/acme.h"
#include "attestd/conf/check.h"
#include "attestd/conf/hsms.h"
#include "attestd/conf/load.h"
#include "attestd/conf/schema.h"

#include <stdlib.h>
#include <string.h>

#define OPT (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define STR(type, member, flags)                                                                   \
    CYAML_FIELD_STRING_PTR(#member, (flags), struct type, member, 0, 4096)

static const cyaml_schema_field_t issuer_fields[] = {
    STR(conf_attestd_issuer, url, OPT),
    STR(conf_attestd_issuer, ca_file, OPT),
    STR(conf_attestd_issuer, ca_sha256, OPT),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t tpm_fields[] = {
    STR(conf_attestd_tpm, tcti, OPT),       STR(conf_attestd_tpm, pcr, OPT),
    STR(conf_attestd_tpm, policy_key, OPT), STR(conf_attestd_tpm, policy_ref, OPT),
    STR(conf_attestd_tpm, policies, OPT),   CYAML_FIELD_END,
};
static const cyaml_schema_field_t signatures_fields[] = {
    CYAML_FIELD_UINT("per_second", CYAML_FLAG_OPTIONAL, struct conf_attestd_signatures, per_second),
    CYAML_FIELD_UINT("burst", CYAML_FLAG_OPTIONAL, struct conf_attestd_signatures, burst),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t logs_fields[] = {
    STR(conf_attestd_logs, firmware, OPT),
    STR(conf_attestd_logs, systemd, OPT),
    STR(conf_attestd_logs, ima, OPT),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t fields[] = {
    CYAML_FIELD_MAPPING_PTR("issuer", OPT, struct conf_attestd, issuer, issuer_fields),
    CYAML_FIELD_MAPPING_PTR("acme", OPT, struct conf_attestd, acme, conf_acme_fields),
    CYAML_FIELD_MAPPING_PTR("tpm", OPT, struct conf_attestd, tpm, tpm_fields),
    STR(conf_attestd, state_dir, OPT),
    STR(conf_attestd, run_dir, OPT),
    STR(conf_attestd, ticket_file, OPT),
    CYAML_FIELD_MAPPING_PTR("logs", OPT, struct conf_attestd, logs, logs_fields),
    CYAML_FIELD_MAPPING_PTR("signatures", OPT, struct conf_attestd, signatures, signatures_fields),
    CYAML_FIELD_MAPPING_PTR("hsm", OPT, struct conf_attestd, hsm, conf_hsm_fields),
    CYAML_FIELD_SEQUENCE_COUNT("hsms", OPT, struct conf_attestd, hsms, n_hsms, &conf_hsm_named, 0,
                               CONF_HSMS_MAX),
    STR(conf_attestd, default_hsm, OPT),
    STR(conf_attestd, log, OPT),
    STR(conf_attestd, log_level, OPT),
    STR(conf_attestd, metrics_listen, OPT),
    STR(conf_attestd, control_group, OPT),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct conf_attestd, fields),
};

void conf_attestd_free(struct conf_attestd *conf)
{
    conf_schema_free(&schema, conf);
}

static bool fill_defaults(struct conf_attestd *conf)
{
    conf->tpm = conf->tpm ? conf->tpm : calloc(1, sizeof *conf->tpm);
    conf->logs = conf->logs ? conf->logs : calloc(1, sizeof *conf->logs);
    conf->signatures = conf->signatures ? conf->signatures : calloc(1, sizeof *conf->signatures);
    return conf->tpm && conf->logs && conf->signatures &&
           conf_default(&conf->tpm->tcti, "device:/dev/tpmrm0") &&
           conf_default(&conf->tpm->pcr, "none") &&
           conf_default(&conf->logs->firmware,
                        "/sys/kernel/security/tpm0/binary_bios_measurements") &&
           conf_default(&conf->logs->systemd, "/run/log/systemd/tpm2-measure.log") &&
           conf_default(&conf->logs->ima, "/sys/kernel/security/ima/binary_runtime_measurements") &&
           conf_default(&conf->state_dir, "/var/lib/attestd") &&
           conf_default(&conf->run_dir, "/run/attestd") && conf_default(&conf->log, "text") &&
           conf_default(&conf->log_level, "info") && conf_default(&conf->metrics_listen, "none") &&
           conf_default(&conf->control_group, "attestd-admin");
}

static void check_issuer(struct conf_check *check, struct conf_attestd_issuer *issuer)
{
    (void)conf_check_url(check, "issuer.url", issuer->url);
    (void)conf_check_path(check, "issuer.ca_file", issuer->ca_file);
    if (conf_check_hex256(check, "issuer.ca_sha256", issuer->ca_sha256) && issuer->ca_sha256 &&
        att_unhex_exact(issuer->ca_sha256_bytes, ATT_SHA256_LEN, issuer->ca_sha256, NULL) !=
            ATT_OK) {
        conf_bad(check, "issuer.ca_sha256", "cannot be read");
    }
    if (issuer->ca_file && issuer->ca_sha256) {
        conf_bad(check, "issuer.ca_sha256", "expected ca_file or ca_sha256, found both");
    }
    bool ca = issuer->ca_file || issuer->ca_sha256;
    if (issuer->url && !ca) {
        conf_bad(check, "issuer", "expected ca_file or ca_sha256 beside url, found neither");
    }
    if (!issuer->url) {
        conf_bad(check, "issuer.url", "required in this section, found nothing");
    }
}

/* What attestd-keyd can open: it has no network, and its folder is not the one it was started in.
 */
static void check_tcti(struct conf_check *check, const char *tcti)
{
    static const char *const good[] = {"device:/", "swtpm:path=/", "tabrmd:"};
    static const char *const network[] = {"mssim", "swtpm:host=", "swtpm:port="};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        if (strncmp(tcti, good[i], strlen(good[i])) == 0) {
            (void)conf_check_text(check, "tpm.tcti", tcti, 1024);
            return;
        }
    }
    bool tcp = false;
    for (size_t i = 0; i < sizeof network / sizeof *network; i++) {
        tcp = tcp || strncmp(tcti, network[i], strlen(network[i])) == 0;
    }
    const char *why = tcp                         ? " (over TCP: attestd-keyd has no network)"
                      : strcmp(tcti, "none") == 0 ? " (a host without a TPM is not served: no HSM "
                                                    "proves how it booted)"
                                                  : "";
    conf_bad(check, "tpm.tcti",
             "expected device:/PATH, swtpm:path=/SOCKET or tabrmd:…, found \"%.80s\"%s", tcti, why);
}

static void check_sealing(struct conf_check *check, struct conf_attestd_tpm *tpm)
{
    static const char *const modes[] = {"none", "7", "signed", NULL};
    bool given = tpm->policy_key || tpm->policy_ref || tpm->policies;
    if (!conf_check_word(check, "tpm.pcr", tpm->pcr, modes)) {
        return;
    }
    if (strcmp(tpm->pcr, "signed") != 0) {
        if (given) {
            conf_bad(check, "tpm.pcr",
                     "expected signed beside policy_key, policy_ref or policies, found %s",
                     tpm->pcr);
        }
        return;
    }
    if (!tpm->policy_key) {
        conf_bad(check, "tpm.policy_key", "required with pcr: signed, found nothing");
    }
    (void)conf_check_path(check, "tpm.policy_key", tpm->policy_key);
    (void)conf_check_path(check, "tpm.policies", tpm->policies);
    (void)conf_check_policy_ref(check, "tpm.policy_ref", tpm->policy_ref);
    if (!conf_default(&tpm->policy_ref, "attestd") ||
        !conf_default(&tpm->policies, "/etc/attestd/pcr-policies")) {
        conf_bad(check, "tpm", "no memory");
    }
}

static void check_signatures(struct conf_check *check, struct conf_attestd_signatures *signatures)
{
    if (signatures->per_second > CONF_SIGNATURES_MAX) {
        conf_bad(check, "signatures.per_second", "expected at most %d, found %u",
                 CONF_SIGNATURES_MAX, signatures->per_second);
    }
    if (signatures->burst > CONF_SIGNATURES_MAX) {
        conf_bad(check, "signatures.burst", "expected at most %d, found %u", CONF_SIGNATURES_MAX,
                 signatures->burst);
    }
    if (signatures->burst && !signatures->per_second) {
        conf_bad(check, "signatures.burst", "expected per_second beside it, found none");
    }
    if (signatures->burst == 0) {
        signatures->burst = 2 * signatures->per_second;
    }
}

static void check_all(struct conf_check *check, struct conf_attestd *conf)
{
    conf_hsms_check(check, conf);
    if (conf->issuer) {
        check_issuer(check, conf->issuer);
    }
    if (conf->acme) {
        conf_acme_check(check, conf);
    }
    check_tcti(check, conf->tpm->tcti);
    check_sealing(check, conf->tpm);
    check_signatures(check, conf->signatures);
    (void)conf_check_path(check, "state_dir", conf->state_dir);
    (void)conf_check_path(check, "run_dir", conf->run_dir);
    (void)conf_check_path(check, "ticket_file", conf->ticket_file);
    (void)conf_check_path(check, "logs.firmware", conf->logs->firmware);
    (void)conf_check_path(check, "logs.systemd", conf->logs->systemd);
    (void)conf_check_path(check, "logs.ima", conf->logs->ima);
    conf_check_log(check, conf->log, conf->log_level, &conf->log_json, &conf->log_least);
    conf_check_metrics(check, conf->metrics_listen, &conf->metrics_at);
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
        if (fill_defaults(data)) {
            check_all(&check, data);
            rc = errors->n ? ATT_OK : conf_hsms_settle(data, err);
        } else {
            rc = att_fail(err, ATT_E_NOMEM, "configuration");
        }
    }
    conf_tree_free(root);
    if (rc == ATT_OK) {
        rc = conf_errors_rc(errors, err);
    }
    if (rc != ATT_OK) {
        conf_attestd_free(data);
        return rc;
    }
    *ret = data;
    return ATT_OK;
}

enum att_rc conf_parse_with(conf_parse_fn *fn, struct att_slice yaml, void **ret,
                            struct conf_errors *errors, struct att_err *err)
{
    struct conf_errors *own = errors ? NULL : calloc(1, sizeof *own);
    if (!errors && !own) {
        return att_fail(err, ATT_E_NOMEM, "configuration");
    }
    struct conf_errors *to = errors ? errors : own;
    to->n = 0;
    to->dropped = 0;
    enum att_rc rc = fn(yaml, ret, to, err);
    free(own);
    return rc;
}

enum att_rc conf_load_with(conf_parse_fn *fn, const char *path, void **ret,
                           struct conf_errors *errors, struct att_err *err)
{
    att_autobuf yaml = ATT_BUF_INIT(CONF_FILE_MAX);
    struct att_err why = {0};
    if (errors) {
        errors->n = 0;
        errors->dropped = 0;
    }
    enum att_rc rc = att_io_read_file(path, CONF_FILE_MAX, &yaml, &why);
    if (rc != ATT_OK) {
        if (errors) {
            /* Where it is shown, the path stands before it. */
            size_t n = strlen(path);
            bool twice = strncmp(why.msg, path, n) == 0 && strncmp(why.msg + n, ": ", 2) == 0;
            conf_error_add(errors, 0, "", "%s", why.msg + (twice ? n + 2 : 0));
        }
        return att_fail(err, rc, "%s", why.msg);
    }
    rc = conf_parse_with(fn, att_buf_slice(&yaml), ret, errors, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "%s", path);
    }
    return rc;
}

enum att_rc conf_attestd_parse(struct att_slice yaml, struct conf_attestd **ret_conf,
                               struct conf_errors *errors, struct att_err *err)
{
    void *conf = NULL;
    enum att_rc rc = conf_parse_with(parse, yaml, &conf, errors, err);
    if (rc == ATT_OK) {
        *ret_conf = conf;
    }
    return rc;
}

enum att_rc conf_attestd_load(const char *path, struct conf_attestd **ret_conf,
                              struct conf_errors *errors, struct att_err *err)
{
    void *conf = NULL;
    enum att_rc rc = conf_load_with(parse, path, &conf, errors, err);
    if (rc == ATT_OK) {
        *ret_conf = conf;
    }
    return rc;
}

enum att_rc conf_path_set(char **path, const char *value, struct att_err *err)
{
    if (!value || value[0] != '/' || strlen(value) > 1024) {
        return att_fail(err, ATT_E_INVAL, "expected an absolute path, found \"%.80s\"",
                        value ? value : "");
    }
    char *copy = strdup(value);
    if (!copy) {
        return att_fail(err, ATT_E_NOMEM, "path");
    }
    free(*path);
    *path = copy;
    return ATT_OK;
}
