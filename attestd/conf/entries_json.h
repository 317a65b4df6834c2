/* The rules of entries, on their JSON form. Internal to attestd/conf. */
#ifndef CONF_ENTRIES_JSON_H
#define CONF_ENTRIES_JSON_H

#include "attestd/conf/acme_agents.h"
#include "attestd/conf/check.h"
#include "attestd/conf/entries.h"
#include "attestd/conf/local.h"

/* ATT_OK also when errors were noted (*ret_entries may then be NULL or in part); another code only
 * when it could not be judged at all. The caller frees *ret_entries either way. */
ATT_MUST_USE enum att_rc conf_entries_decode(struct conf_check *check, const json_t *json,
                                             struct conf_entries **ret_entries,
                                             struct att_err *err);

/* The same of a file of local rules. */
ATT_MUST_USE enum att_rc conf_local_decode(struct conf_check *check, const json_t *json,
                                           struct conf_local **ret_local, struct att_err *err);
/* The same of the agents of acme.agents. */
ATT_MUST_USE enum att_rc conf_acme_agents_decode(struct conf_check *check, const json_t *json,
                                                 struct conf_acme_agents **ret_agents,
                                                 struct att_err *err);
/* The YAML document as JSON; one workload in place of a list is a list of one. NULL: no memory. */
json_t *conf_entries_tree_json(const struct conf_node *node);

#endif
