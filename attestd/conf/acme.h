/* The section acme of attestd.yaml: a server that is no attest-issuerd. Internal to attestd/conf.
 */
#ifndef CONF_ACME_H
#define CONF_ACME_H

#include "attestd/conf/check.h"
#include "attestd/conf/schema.h"

extern const cyaml_schema_field_t conf_acme_fields[];
/* Notes what is wrong, and fills what has another key as its default. */
void conf_acme_check(struct conf_check *check, struct conf_attestd *conf);

#endif
