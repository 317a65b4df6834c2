/* The section `log_tpm` of issuer.yaml. Internal to attestd/conf. */
#ifndef CONF_ISSUER_TPM_H
#define CONF_ISSUER_TPM_H

#include "attestd/conf/check.h"
#include "attestd/conf/issuer_conf.h"

#include <cyaml/cyaml.h>

extern const cyaml_schema_field_t conf_log_tpm_fields[];

/* What the file leaves out; false without memory. */
bool conf_log_tpm_defaults(struct conf_issuer *conf);
void conf_log_tpm_check(struct conf_check *check, struct conf_issuer *conf);

#endif
