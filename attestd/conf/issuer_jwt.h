/* The section `jwt` of issuer.yaml. Internal to attestd/conf. */
#ifndef CONF_ISSUER_JWT_H
#define CONF_ISSUER_JWT_H

#include "attestd/conf/check.h"
#include "attestd/conf/issuer_conf.h"

#include <cyaml/cyaml.h>

extern const cyaml_schema_field_t conf_jwt_fields[];

/* What the file leaves out; false without memory. */
bool conf_jwt_defaults(struct conf_jwt *jwt);
void conf_jwt_check(struct conf_check *check, struct conf_issuer *conf);

#endif
