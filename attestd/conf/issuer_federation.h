/* The section `federation` of issuer.yaml. Internal to attestd/conf. */
#ifndef CONF_ISSUER_FEDERATION_H
#define CONF_ISSUER_FEDERATION_H

#include "attestd/conf/check.h"
#include "attestd/conf/issuer_conf.h"

#include <cyaml/cyaml.h>

extern const cyaml_schema_field_t conf_federation_fields[];

/* What the file leaves out; false without memory. */
bool conf_federation_defaults(struct conf_federation *federation);
void conf_federation_check(struct conf_check *check, struct conf_issuer *conf);

#endif
