/* libcyaml schemas, checked whole: libcyaml stops at the first thing that does not fit;
 * conf_schema_load first walks the document along the same schema and notes them all. Internal to
 * attestd/conf. */
#ifndef CONF_SCHEMA_H
#define CONF_SCHEMA_H

#include "attestd/conf/tree.h"

#include <cyaml/cyaml.h>

extern const cyaml_schema_value_t conf_schema_string; /* entry of a list of strings */

/* On success *ret_data is schema's struct; free it with conf_schema_free. On failure errors has at
 * least one entry and *ret_data is untouched. */
bool conf_schema_load(struct att_slice yaml, const struct conf_node *root,
                      const cyaml_schema_value_t *schema, void **ret_data,
                      struct conf_errors *errors);
void conf_schema_free(const cyaml_schema_value_t *schema, void *data);

#endif
