#include "attestd/conf/local.h"

#include "attestd/base/json.h"
#include "attestd/conf/entries_json.h"
#include "attestd/conf/load.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_ROOM 4400

void conf_local_free(struct conf_local *local)
{
    for (size_t i = 0; local && i < local->n; i++) {
        free(local->rules[i].name);
        conf_workloads_free(local->rules[i].workload, local->rules[i].n_workload);
    }
    if (local) {
        free(local->rules);
        free(local);
    }
}

const struct conf_local_rule *conf_local_find(const struct conf_local *local, const char *agent)
{
    for (size_t i = 0; local && i < local->n; i++) { /* a file with errors may lack names */
        if (local->rules[i].name && strcmp(local->rules[i].name, agent) == 0) {
            return &local->rules[i];
        }
    }
    return NULL;
}

/* ---- one file ---- */

static enum att_rc parse(struct att_slice yaml, void **ret, struct conf_errors *errors,
                         struct att_err *err)
{
    struct conf_local *local = NULL;
    struct conf_node *root = conf_tree_parse(yaml, errors);
    json_t *json = root ? conf_entries_tree_json(root) : NULL;
    enum att_rc rc = ATT_OK;
    if (root && !json) {
        rc = att_fail(err, ATT_E_NOMEM, "local rules");
    } else if (root) {
        struct conf_check check = {errors, root};
        rc = conf_local_decode(&check, json, &local, err);
    }
    json_decref(json);
    conf_tree_free(root);
    if (rc == ATT_OK) {
        rc = conf_errors_rc(errors, err);
    }
    if (rc != ATT_OK) {
        conf_local_free(local);
        return rc;
    }
    *ret = local;
    return ATT_OK;
}

enum att_rc conf_local_parse(struct att_slice yaml, struct conf_local **ret_local,
                             struct conf_errors *errors, struct att_err *err)
{
    void *local = NULL;
    enum att_rc rc = conf_parse_with(parse, yaml, &local, errors, err);
    if (rc == ATT_OK) {
        *ret_local = local;
    }
    return rc;
}

/* ---- the folder ---- */

static bool ends_in(const char *name, const char *end)
{
    size_t len = strlen(name), n = strlen(end);
    return len > n && strcmp(name + len - n, end) == 0;
}

/* With .yml, so that it is refused by name: a rule that is left out would refuse nobody. */
static int is_ours(const struct dirent *entry)
{
    const char *name = entry->d_name;
    return name[0] != '.' && (ends_in(name, ".yaml") || ends_in(name, ".yml"));
}

/* Moves the rules of one file behind the others'. */
static enum att_rc take(struct conf_local *all, struct conf_local *one, const char *file,
                        struct conf_errors *errors, struct att_err *err)
{
    struct conf_local_rule *more = realloc(all->rules, (all->n + one->n + 1) * sizeof *more);
    if (!more) {
        return att_fail(err, ATT_E_NOMEM, "local rules");
    }
    all->rules = more;
    for (size_t i = 0; i < one->n; i++) {
        const struct conf_local_rule *first = conf_local_find(all, one->rules[i].name);
        if (first) {
            conf_error_add(errors, 0, "", "agent \"%.64s\" stands in %s, too", one->rules[i].name,
                           first->file);
            return att_fail(err, ATT_E_PARSE, "%s: agent \"%.64s\" stands in %s, too", file,
                            one->rules[i].name, first->file);
        }
        snprintf(one->rules[i].file, sizeof one->rules[i].file, "%s", file);
    }
    memcpy(more + all->n, one->rules, one->n * sizeof *more);
    all->n += one->n;
    one->n = 0;
    return ATT_OK;
}

static enum att_rc load_one(struct conf_local *all, const char *dir, const char *name,
                            void (*on_errors)(const char *path, const struct conf_errors *errors),
                            struct att_err *err)
{
    char path[PATH_ROOM];
    void *one = NULL;
    struct conf_errors *errors = calloc(1, sizeof *errors);
    if (!errors) {
        return att_fail(err, ATT_E_NOMEM, "local rules");
    }
    int len = snprintf(path, sizeof path, "%s/%s", dir, name);
    enum att_rc rc;
    if (len <= 0 || (size_t)len >= sizeof path || strlen(name) >= CONF_LOCAL_FILE_LEN) {
        rc = att_fail(err, ATT_E_LIMIT, "%s: a name too long", dir);
    } else if (ends_in(name, ".yml")) {
        conf_error_add(errors, 0, "", "name it .yaml");
        rc = att_fail(err, ATT_E_PARSE, "%s: name it .yaml", path);
    } else {
        rc = conf_load_with(parse, path, &one, errors, err);
    }
    if (rc == ATT_OK) {
        rc = take(all, one, name, errors, err);
    }
    if (rc != ATT_OK && on_errors) {
        on_errors(path, errors);
    }
    conf_local_free(one);
    free(errors);
    return rc;
}

/* Over what the rules say, wherever it stands. */
static enum att_rc number_of(struct conf_local *local, struct att_err *err)
{
    uint8_t sha256[ATT_SHA256_LEN];
    att_autobuf text = {0};
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < local->n; i++) {
        const struct conf_local_rule *rule = &local->rules[i];
        const struct conf_entry entry = {
            .name = rule->name, .workload = rule->workload, .n_workload = rule->n_workload};
        json_t *workload = NULL;
        rc = conf_workloads_to_json(&entry, &workload, err);
        att_autojson *part = json_pack("[s, o]", rule->name, workload);
        if (rc == ATT_OK) {
            rc = part ? att_json_dump(part, true, &text, err)
                      : att_fail(err, ATT_E_NOMEM, "local rules");
        }
    }
    if (rc == ATT_OK && local->n) {
        att_sha256(sha256, att_buf_slice(&text));
        struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(sha256));
        uint64_t number = att_cur_be64(&cur);
        local->number = number ? number : 1;
    }
    return rc;
}

static enum att_rc load_all(struct conf_local *all, const char *dir, struct dirent **names, int n,
                            void (*on_errors)(const char *path, const struct conf_errors *errors),
                            struct att_err *err)
{
    struct att_err why = {0};
    enum att_rc rc = n > CONF_LOCAL_FILES_MAX
                         ? att_fail(err, ATT_E_LIMIT, "%s: %d files, at most %d are read", dir, n,
                                    CONF_LOCAL_FILES_MAX)
                         : ATT_OK;
    for (int i = 0; i < n && n <= CONF_LOCAL_FILES_MAX; i++) {
        enum att_rc one = load_one(all, dir, names[i]->d_name, on_errors, &why);
        if (rc == ATT_OK && one != ATT_OK) { /* the first; on_errors has heard of all */
            rc = att_fail(err, one, "%s", why.msg);
        }
        att_err_clear(&why);
    }
    return rc == ATT_OK ? number_of(all, err) : rc;
}

enum att_rc conf_local_load(const char *dir, struct conf_local **ret_local,
                            void (*on_errors)(const char *path, const struct conf_errors *errors),
                            struct att_err *err)
{
    struct dirent **names = NULL;
    struct conf_local *all = calloc(1, sizeof *all);
    if (!all) {
        return att_fail(err, ATT_E_NOMEM, "local rules");
    }
    int n = scandir(dir, &names, is_ours, alphasort);
    enum att_rc rc = n < 0 && errno != ENOENT ? att_fail_errno(err, ATT_E_IO, "%s", dir) : ATT_OK;
    if (n > 0) {
        rc = load_all(all, dir, names, n, on_errors, err);
    }
    for (int i = 0; i < n; i++) {
        free(names[i]);
    }
    free(names);
    if (rc != ATT_OK) {
        conf_local_free(all);
        return rc;
    }
    *ret_local = all;
    return ATT_OK;
}
