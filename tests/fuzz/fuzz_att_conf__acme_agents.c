/* A file of agents for another server: refused, or each has a name of its own and says whose. */
#include "attestd/conf/acme_agents.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_acme_agents *agents = NULL;
    if (conf_acme_agents_parse(ATT_SLICE(data, size), &agents, NULL, NULL) != ATT_OK) {
        return 0;
    }
    for (size_t i = 0; i < agents->n; i++) {
        const struct conf_acme_agent *agent = &agents->agents[i];
        if (!agent->name || agent->n_workload == 0 ||
            (agent->identifier && !conf_identifier_ok(agent->identifier))) {
            abort();
        }
        for (size_t k = 0; k < i; k++) {
            if (strcmp(agents->agents[k].name, agent->name) == 0) {
                abort();
            }
        }
    }
    conf_acme_agents_free(agents);
    return 0;
}
