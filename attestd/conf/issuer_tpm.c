#include "attestd/conf/issuer_tpm.h"

#include "attestd/conf/schema.h"

#include <stdio.h>
#include <string.h>

#define OPT         (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define STR(member) CYAML_FIELD_STRING_PTR(#member, OPT, struct conf_log_tpm, member, 0, 4096)

/* The owner's indices (TCG Registry of Reserved TPM 2.0 Handles, 2.2). */
#define INDEX_FIRST 0x01800000ul
#define INDEX_LAST  0x01bffffful

const cyaml_schema_field_t conf_log_tpm_fields[] = {
    STR(tcti),
    STR(dir),
    STR(user),
    STR(state_dir),
    STR(counter),
    STR(counter_interval),
    STR(owner_password_file),
    CYAML_FIELD_END,
};

bool conf_log_tpm_defaults(struct conf_issuer *conf)
{
    struct conf_log_tpm *tpm = conf->log_tpm;
    if (tpm && !tpm->dir && asprintf(&tpm->dir, "%s/tpm", conf->run_dir) < 0) {
        tpm->dir = NULL;
        return false;
    }
    return !tpm || (conf_default(&tpm->tcti, "device:/dev/tpmrm0") &&
                    conf_default(&tpm->state_dir, "/var/lib/attest-issuerd-tpm") &&
                    conf_default(&tpm->counter, "0x01804c47") &&
                    conf_default(&tpm->counter_interval, "1h"));
}

static bool read_index(const char *text, uint32_t *ret)
{
    static const char digits[] = "0123456789abcdefABCDEF";
    unsigned long value = 0;
    if (strncmp(text, "0x", 2) != 0 || strlen(text) != 10 || strspn(text + 2, digits) != 8 ||
        sscanf(text + 2, "%8lx", &value) != 1) {
        return false;
    }
    *ret = (uint32_t)value;
    return value >= INDEX_FIRST && value <= INDEX_LAST;
}

void conf_log_tpm_check(struct conf_check *check, struct conf_issuer *conf)
{
    static const char *const good[] = {"device:/", "swtpm:path=/", "tabrmd:"};
    struct conf_log_tpm *tpm = conf->log_tpm;
    bool known = false;
    if (!tpm) {
        return;
    }
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        known = known || strncmp(tpm->tcti, good[i], strlen(good[i])) == 0;
    }
    if (!known) {
        conf_bad(check, "log_tpm.tcti",
                 "expected device:/PATH, swtpm:path=/SOCKET or tabrmd:…, found \"%.80s\"",
                 tpm->tcti);
    }
    (void)conf_check_path(check, "log_tpm.dir", tpm->dir);
    (void)conf_check_path(check, "log_tpm.state_dir", tpm->state_dir);
    if (tpm->owner_password_file) {
        (void)conf_check_path(check, "log_tpm.owner_password_file", tpm->owner_password_file);
    }
    if (!read_index(tpm->counter, &tpm->counter_index)) {
        conf_bad(check, "log_tpm.counter",
                 "expected an NV index of the owner's, 0x01800000 … 0x01bfffff in eight digits, "
                 "found \"%.80s\"",
                 tpm->counter);
    }
    (void)conf_check_duration(check, "log_tpm.counter_interval", tpm->counter_interval, 60,
                              &tpm->counter_interval_s);
}
