/* Host-local rules: the .yaml files of agents.d beside attestd.yaml. They narrow who an agent's
 * callers may be on this host, after the issuer's entry has granted; they never add a name and
 * never widen:
 *
 *   agents:
 *     - name: portfolio-rebalancer
 *       workload: { uid: 1001, unit: rebalancer.service }     one, or a list of alternatives
 *
 * workload is as in entries (entries.h), without manifest. An agent stands in one file, once.
 * Immutable once made; see conf.h for errors. */
#ifndef CONF_LOCAL_H
#define CONF_LOCAL_H

#include "attestd/conf/entries.h"

#define CONF_LOCAL_FILES_MAX 64
#define CONF_LOCAL_FILE_LEN  256 /* of a file's name, with the NUL */

struct conf_local_rule {
    char *name;
    struct conf_workload *workload;
    size_t n_workload;
    char file[CONF_LOCAL_FILE_LEN]; /* where it stands; empty when it was parsed from memory */
};
struct conf_local {
    struct conf_local_rule *rules; /* names differ */
    size_t n;
    uint64_t number; /* of what the files say; 0: no rule */
};

ATT_MUST_USE enum att_rc conf_local_parse(struct att_slice yaml, struct conf_local **ret_local,
                                          struct conf_errors *errors, struct att_err *err);
/* All .yaml files of the folder, in order of name; a folder that is not there has none. on_errors
 * is told of each file with errors; all files are read. ATT_E_PARSE, ATT_E_LIMIT, ATT_E_IO: nothing
 * is given. */
ATT_MUST_USE enum att_rc conf_local_load(const char *dir, struct conf_local **ret_local,
                                         void (*on_errors)(const char *path,
                                                           const struct conf_errors *errors),
                                         struct att_err *err);
void conf_local_free(struct conf_local *local);
/* NULL: nothing narrows this agent here. local NULL is fine. */
const struct conf_local_rule *conf_local_find(const struct conf_local *local, const char *agent);

#endif
