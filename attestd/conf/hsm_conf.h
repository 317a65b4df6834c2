/* The section `hsm`, the same in attestd.yaml and issuer.yaml: one token of one PKCS#11 module, for
 * attestd-hsmd. Internal to attestd/conf. */
#ifndef CONF_HSM_CONF_H
#define CONF_HSM_CONF_H

#include "attestd/conf/check.h"
#include "attestd/conf/conf.h"

#include <cyaml/cyaml.h>

extern const cyaml_schema_field_t conf_hsm_fields[];

/* What the file leaves out; hsm NULL: the section is not there. False without memory. */
bool conf_hsm_defaults(struct conf_attestd_hsm *hsm);
void conf_hsm_check(struct conf_check *check, struct conf_attestd_hsm *hsm);

#endif
