/* The HSM modules of attestd.yaml: the section hsm, which is one module, and the list hsms.
 * Internal to attestd/conf. */
#ifndef CONF_HSMS_H
#define CONF_HSMS_H

#include "attestd/conf/check.h"

#include <cyaml/cyaml.h>

/* A module's keys: of a section, which may leave its name out, and of a member of the list. */
extern const cyaml_schema_field_t conf_hsm_fields[];
extern const cyaml_schema_value_t conf_hsm_named;

/* What the file leaves out; hsm NULL: the section is not there. False without memory. */
bool conf_hsm_defaults(struct conf_attestd_hsm *hsm);
/* The section hsm by itself. */
void conf_hsm_check(struct conf_check *check, struct conf_attestd_hsm *hsm);

/* Every module by itself, and that no two are the same; fills what may be left out. */
void conf_hsms_check(struct conf_check *check, struct conf_attestd *conf);
/* After a check without an error: one list, the host's default first. */
ATT_MUST_USE enum att_rc conf_hsms_settle(struct conf_attestd *conf, struct att_err *err);

#endif
