/* A file of local rules: refused, or each rule has a name and alternatives that say whose. */
#include "attestd/conf/local.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_local *local = NULL;
    if (conf_local_parse(ATT_SLICE(data, size), &local, NULL, NULL) != ATT_OK) {
        return 0;
    }
    for (size_t i = 0; i < local->n; i++) {
        const struct conf_local_rule *rule = &local->rules[i];
        if (!rule->name || rule->n_workload == 0 || conf_local_find(local, rule->name) != rule) {
            abort();
        }
        for (size_t k = 0; k < rule->n_workload; k++) {
            if (!rule->workload[k].has_uid && !rule->workload[k].unit) {
                abort();
            }
        }
    }
    conf_local_free(local);
    return 0;
}
