/* What this host's own agents.d adds to the issuer's entries: fewer callers, never more. */
#include "attestd/host/local.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_errors(const char *path, const struct conf_errors *errors)
{
    for (size_t i = 0; i < errors->n; i++) {
        att_autobuf line = {0};
        conf_error_text(&errors->v[i], path, &line);
        const char *text = att_buf_cstr(&line);
        fprintf(stderr, "%s\n", text ? text : "out of memory");
    }
}

enum att_rc host_local_load(const char *conf_path, struct host_local **ret_local,
                            struct att_err *err)
{
    char dir[4200];
    const char *slash = strrchr(conf_path, '/');
    int len = snprintf(dir, sizeof(dir), "%.*s/" HOST_LOCAL_DIR,
                       slash ? (int)(slash - conf_path) : 1, slash ? conf_path : ".");
    struct host_local *local = calloc(1, sizeof(*local));
    if (!local) {
        return att_fail(err, ATT_E_NOMEM, "local rules");
    }
    local->refs = 1;
    enum att_rc rc = len > 0 && (size_t)len < sizeof(dir)
                         ? conf_local_load(dir, &local->conf, print_errors, err)
                         : att_fail(err, ATT_E_LIMIT, "the configuration's folder: too long");
    if (rc != ATT_OK) {
        free(local);
        return rc;
    }
    *ret_local = local;
    return ATT_OK;
}

struct host_local *host_local_ref(struct host_local *local)
{
    if (local) {
        __atomic_add_fetch(&local->refs, 1, __ATOMIC_RELAXED);
    }
    return local;
}

void host_local_unref(struct host_local **local)
{
    struct host_local *gone = *local;
    *local = NULL;
    if (gone && __atomic_sub_fetch(&gone->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        conf_local_free(gone->conf);
        free(gone);
    }
}

uint64_t host_local_mix(const struct host_local *local, uint64_t selectors)
{
    uint64_t number = local && selectors ? selectors ^ local->conf->number : selectors;
    return selectors && !number ? 1 : number;
}

enum att_rc host_local_check(const struct host_local *local, const char *agent,
                             const struct workload_caller *caller, struct att_err *err)
{
    const struct conf_local_rule *rule = conf_local_find(local ? local->conf : NULL, agent);
    struct workload_misfit misfit = {0};
    for (size_t i = 0; rule && i < rule->n_workload; i++) {
        if (!workload_match_misfit(&rule->workload[i], caller, NULL, &misfit)) {
            return ATT_OK;
        }
    }
    if (!rule) {
        return ATT_OK;
    }
    (void)!att_fail(err, ATT_E_DENIED,
                    "agent %.64s: " HOST_LOCAL_DIR "/%.100s of this host: %.200s", agent,
                    rule->file, misfit.text);
    att_err_reason(err, "localRule");
    return ATT_E_DENIED;
}
