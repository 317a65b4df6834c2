#include "attestd/host/selectors.h"

#include "attestd/base/hash.h"

#include <stdlib.h>
#include <string.h>

/* The list is the rule's from here on; only this file gives it back. */
static void rule_done(struct workload_rule *rule)
{
    free((char *)(uintptr_t)rule->agent);
    conf_workloads_free((struct conf_workload *)(uintptr_t)rule->workload, rule->n);
}

static void selectors_free(struct host_selectors *selectors)
{
    for (size_t i = 0; i < selectors->n; i++) {
        rule_done(&selectors->rules[i]);
        conf_measured_done(&selectors->measured[i]);
    }
    free(selectors->rules);
    free(selectors->bad);
    free(selectors->measured);
    free(selectors->measured_bad);
    free(selectors);
}

static enum att_rc add(struct host_selectors *selectors, const json_t *entry, struct att_err *err)
{
    const char *name;
    enum att_rc rc = att_json_str(entry, "name", &name, err);
    char *copy = rc == ATT_OK ? strdup(name) : NULL;
    if (rc != ATT_OK || !copy) {
        return rc != ATT_OK ? rc : att_fail(err, ATT_E_NOMEM, "selectors");
    }
    struct workload_rule *rule = &selectors->rules[selectors->n];
    struct conf_measured *measured = &selectors->measured[selectors->n];
    struct att_err *measured_bad = &selectors->measured_bad[selectors->n];
    struct att_err *bad = &selectors->bad[selectors->n++];
    struct conf_workload *list = NULL;
    rule->agent = copy;
    rc = conf_workloads_from_json(json_object_get(entry, "workload"), &list, &rule->n, bad);
    rule->workload = list;
    if (rc != ATT_OK) {
        att_err_reason(bad, "workloadUnknown");
    }
    if (conf_measured_from_json(json_object_get(entry, "measured"), measured, measured_bad) !=
        ATT_OK) {
        att_err_reason(measured_bad, "measuredUnknown");
        conf_workloads_free((struct conf_workload *)(uintptr_t)rule->workload, rule->n);
        rule->workload = NULL;
        rule->n = 0; /* it fits nobody */
        *bad = *measured_bad;
    }
    return rc == ATT_E_NOMEM ? att_fail(err, rc, "selectors") : ATT_OK;
}

/* Over names, workloads and what is demanded of files, in the view's order. */
static enum att_rc number_of(const json_t *entries, uint64_t *ret_number, struct att_err *err)
{
    uint8_t sha256[ATT_SHA256_LEN];
    att_autobuf text = {0};
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < json_array_size(entries); i++) {
        const json_t *entry = json_array_get(entries, i);
        att_autojson *part =
            json_pack("[O, O?, O?]", json_object_get(entry, "name"),
                      json_object_get(entry, "workload"), json_object_get(entry, "measured"));
        rc = part ? att_json_dump(part, true, &text, err) : att_fail(err, ATT_E_NOMEM, "selectors");
    }
    if (rc == ATT_OK) {
        att_sha256(sha256, att_buf_slice(&text));
        struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(sha256));
        uint64_t number = att_cur_be64(&cur);
        *ret_number = number ? number : 1;
    }
    return rc;
}

enum att_rc host_selectors_new(const json_t *entries, struct host_selectors **ret_selectors,
                               struct att_err *err)
{
    size_t n = json_array_size(entries);
    struct host_selectors *selectors = calloc(1, sizeof(*selectors));
    if (!selectors) {
        return att_fail(err, ATT_E_NOMEM, "selectors");
    }
    selectors->refs = 1;
    selectors->rules = calloc(n ? n : 1, sizeof(*selectors->rules));
    selectors->bad = calloc(n ? n : 1, sizeof(*selectors->bad));
    selectors->measured = calloc(n ? n : 1, sizeof(*selectors->measured));
    selectors->measured_bad = calloc(n ? n : 1, sizeof(*selectors->measured_bad));
    enum att_rc rc =
        selectors->rules && selectors->bad && selectors->measured && selectors->measured_bad
            ? ATT_OK
            : att_fail(err, ATT_E_NOMEM, "selectors");
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        rc = add(selectors, json_array_get(entries, i), err);
    }
    if (rc == ATT_OK) {
        rc = number_of(entries, &selectors->number, err);
    }
    if (rc != ATT_OK) {
        selectors_free(selectors);
        return rc;
    }
    *ret_selectors = selectors;
    return ATT_OK;
}

struct host_selectors *host_selectors_ref(struct host_selectors *selectors)
{
    if (selectors) {
        __atomic_add_fetch(&selectors->refs, 1, __ATOMIC_RELAXED);
    }
    return selectors;
}

void host_selectors_unref(struct host_selectors **selectors)
{
    struct host_selectors *gone = *selectors;
    *selectors = NULL;
    if (gone && __atomic_sub_fetch(&gone->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        selectors_free(gone);
    }
}
