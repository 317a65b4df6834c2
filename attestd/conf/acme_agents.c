#include "attestd/conf/acme_agents.h"

#include "attestd/conf/entries_json.h"
#include "attestd/conf/load.h"

#include <stdlib.h>
#include <string.h>

void conf_acme_agents_free(struct conf_acme_agents *agents)
{
    for (size_t i = 0; agents && i < agents->n; i++) {
        free(agents->agents[i].name);
        free(agents->agents[i].identifier);
        free(agents->agents[i].profile);
        conf_workloads_free(agents->agents[i].workload, agents->agents[i].n_workload);
    }
    if (agents) {
        free(agents->agents);
        free(agents);
    }
}

bool conf_identifier_ok(const char *text)
{
    size_t len = strlen(text), i = 0;
    while (i < len && text[i] > ' ' && text[i] <= '~' && text[i] != '/') {
        i++;
    }
    return len > 0 && i == len && len <= CONF_IDENTIFIER_MAX;
}

static enum att_rc parse(struct att_slice yaml, void **ret, struct conf_errors *errors,
                         struct att_err *err)
{
    struct conf_acme_agents *agents = NULL;
    struct conf_node *root = conf_tree_parse(yaml, errors);
    json_t *json = root ? conf_entries_tree_json(root) : NULL;
    enum att_rc rc = ATT_OK;
    if (root && !json) {
        rc = att_fail(err, ATT_E_NOMEM, "agents");
    } else if (root) {
        struct conf_check check = {errors, root};
        rc = conf_acme_agents_decode(&check, json, &agents, err);
    }
    json_decref(json);
    conf_tree_free(root);
    if (rc == ATT_OK) {
        rc = conf_errors_rc(errors, err);
    }
    if (rc != ATT_OK) {
        conf_acme_agents_free(agents);
        return rc;
    }
    *ret = agents;
    return ATT_OK;
}

enum att_rc conf_acme_agents_parse(struct att_slice yaml, struct conf_acme_agents **ret_agents,
                                   struct conf_errors *errors, struct att_err *err)
{
    void *agents = NULL;
    enum att_rc rc = conf_parse_with(parse, yaml, &agents, errors, err);
    if (rc == ATT_OK) {
        *ret_agents = agents;
    }
    return rc;
}

enum att_rc conf_acme_agents_load(const char *path, struct conf_acme_agents **ret_agents,
                                  struct conf_errors *errors, struct att_err *err)
{
    void *agents = NULL;
    enum att_rc rc = conf_load_with(parse, path, &agents, errors, err);
    if (rc == ATT_OK) {
        *ret_agents = agents;
    }
    return rc;
}
