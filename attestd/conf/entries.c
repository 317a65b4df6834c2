/* The YAML file of entries, and what entries are good for. The rules are in entries_json.c: the
 * file is turned into the JSON form first. */
#include "attestd/conf/entries.h"

#include "attestd/base/json.h"
#include "attestd/conf/check.h"
#include "attestd/conf/entries_json.h"
#include "attestd/conf/load.h"

#include <stdlib.h>
#include <string.h>

static const char *const key_kinds[] = {"", "tpm", "hsm", "memory", "exportable"};

const char *conf_key_kind_name(enum conf_key_kind kind)
{
    size_t i = (size_t)kind;
    return i < sizeof key_kinds / sizeof *key_kinds ? key_kinds[i] : "";
}

enum conf_key_kind conf_key_kind_parse(const char *name)
{
    for (int i = CONF_KEY_TPM; i <= CONF_KEY_EXPORTABLE; i++) {
        if (strcmp(name, key_kinds[i]) == 0) {
            return (enum conf_key_kind)i;
        }
    }
    return (enum conf_key_kind)0;
}

/* ---- YAML → JSON ---- */

static bool is_number(const char *key)
{
    return key &&
           (strcmp(key, "uid") == 0 || strcmp(key, "level") == 0 || strcmp(key, "reread_s") == 0);
}

/* YAML does not say which scalars are numbers; here it is what these keys have. */
static json_t *scalar_json(const struct conf_node *node)
{
    size_t len = strlen(node->text);
    bool number = node->plain && is_number(node->key) && len > 0 && len <= 10 &&
                  strspn(node->text, "0123456789") == len && (len == 1 || node->text[0] != '0');
    return number ? json_integer(strtoll(node->text, NULL, 10)) : json_string(node->text);
}

json_t *conf_entries_tree_json(const struct conf_node *node)
{
    if (node->kind == CONF_SCALAR) {
        return scalar_json(node);
    }
    bool map = node->kind == CONF_MAPPING;
    json_t *json = map ? json_object() : json_array();
    for (const struct conf_node *kid = node->first; json && kid; kid = kid->next) {
        json_t *value = conf_entries_tree_json(kid); /* as deep as CONF_TREE_DEPTH_MAX */
        int rc =
            map ? json_object_set_new(json, kid->key, value) : json_array_append_new(json, value);
        if (rc != 0) {
            json_decref(json);
            return NULL;
        }
    }
    if (json && map) { /* one workload in place of a list of one */
        json_t *one = json_object_get(json, "workload");
        if (json_is_object(one)) {
            json_t *list = json_pack("[O]", one);
            if (!list || json_object_set_new(json, "workload", list) != 0) {
                json_decref(json);
                return NULL;
            }
        }
    }
    return json;
}

static enum att_rc parse(struct att_slice yaml, void **ret, struct conf_errors *errors,
                         struct att_err *err)
{
    struct conf_entries *entries = NULL;
    struct conf_node *root = conf_tree_parse(yaml, errors);
    json_t *json = root ? conf_entries_tree_json(root) : NULL;
    enum att_rc rc = ATT_OK;
    if (root && !json) {
        rc = att_fail(err, ATT_E_NOMEM, "entries");
    } else if (root) {
        struct conf_check check = {errors, root};
        rc = conf_entries_decode(&check, json, &entries, err);
    }
    json_decref(json);
    conf_tree_free(root);
    if (rc == ATT_OK) {
        rc = conf_errors_rc(errors, err);
    }
    if (rc != ATT_OK) {
        conf_entries_free(entries);
        return rc;
    }
    *ret = entries;
    return ATT_OK;
}

enum att_rc conf_entries_parse(struct att_slice yaml, struct conf_entries **ret_entries,
                               struct conf_errors *errors, struct att_err *err)
{
    void *entries = NULL;
    enum att_rc rc = conf_parse_with(parse, yaml, &entries, errors, err);
    if (rc == ATT_OK) {
        *ret_entries = entries;
    }
    return rc;
}

enum att_rc conf_entries_load(const char *path, struct conf_entries **ret_entries,
                              struct conf_errors *errors, struct att_err *err)
{
    void *entries = NULL;
    enum att_rc rc = conf_load_with(parse, path, &entries, errors, err);
    if (rc == ATT_OK) {
        *ret_entries = entries;
    }
    return rc;
}

/* ---- structs ---- */

static void texts_free(char **texts, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(texts[i]);
    }
    free(texts);
}

static void workload_done(struct conf_workload *w)
{
    free(w->unit);
    texts_free(w->exe_sha256, w->n_exe_sha256);
    texts_free(w->script_sha256, w->n_script_sha256);
    free(w->manifest_path);
    free(w->manifest_sha256);
}

void conf_workloads_free(struct conf_workload *workloads, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        workload_done(&workloads[i]);
    }
    free(workloads);
}

void conf_measured_done(struct conf_measured *measured)
{
    free(measured->manifest);
    texts_free(measured->roots, measured->n_roots);
    texts_free(measured->signers, measured->n_signers);
    *measured = (struct conf_measured){0};
}

static void entry_done(struct conf_entry *entry)
{
    conf_measured_done(&entry->measured);
    free(entry->name);
    free(entry->owner);
    free(entry->profile);
    free(entry->hsm);
    texts_free(entry->audiences, entry->n_audiences);
    texts_free(entry->federates_with, entry->n_federates_with);
    for (size_t i = 0; i < entry->n_hosts; i++) {
        free(entry->hosts[i].text);
        free(entry->hosts[i].key);
        free(entry->hosts[i].value);
    }
    free(entry->hosts);
    conf_workloads_free(entry->workload, entry->n_workload);
}

void conf_entry_free(struct conf_entry *entry)
{
    if (entry) {
        entry_done(entry);
        free(entry);
    }
}

void conf_entries_free(struct conf_entries *entries)
{
    if (!entries) {
        return;
    }
    for (size_t i = 0; i < entries->n_agents; i++) {
        entry_done(&entries->agents[i]);
    }
    free(entries->agents);
    free(entries->trust_domain);
    free(entries);
}

bool conf_entry_selects(const struct conf_entry *entry, const char *ek_id, const json_t *labels)
{
    for (size_t i = 0; i < entry->n_hosts; i++) {
        const struct conf_host_selector *host = &entry->hosts[i];
        if (host->kind == CONF_HOST_EK) {
            if (ek_id && strcmp(host->key, ek_id) == 0) {
                return true;
            }
            continue;
        }
        const char *value = json_string_value(json_object_get(labels, host->key));
        if (value && strcmp(value, host->value) == 0) {
            return true;
        }
    }
    return false;
}

bool conf_audience_ok(const char *text)
{
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        if (text[i] <= 0x20 || text[i] > 0x7e) {
            return false;
        }
    }
    return len > 0 && len <= CONF_AUDIENCE_MAX;
}

bool conf_entry_federates_with(const struct conf_entry *entry, const char *trust_domain)
{
    for (size_t i = 0; i < entry->n_federates_with; i++) {
        if (strcmp(entry->federates_with[i], trust_domain) == 0) {
            return true;
        }
    }
    return false;
}

bool conf_entry_allows_audience(const struct conf_entry *entry, const char *audience)
{
    for (size_t i = 0; i < entry->n_audiences; i++) {
        if (strcmp(entry->audiences[i], audience) == 0) {
            return true;
        }
    }
    return false;
}
