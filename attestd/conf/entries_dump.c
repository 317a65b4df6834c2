/* Entries as JSON, the other way round from entries_json.c. */
#include "attestd/conf/entries.h"

#include "attestd/base/json.h"

#include <string.h>

static json_t *digests_json(char *const *digests, size_t n)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < n; i++) {
        if (json_array_append_new(list, json_string(digests[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *workload_json(const struct conf_workload *w)
{
    json_t *json = json_object();
    int bad = json == NULL;
    if (w->has_uid) {
        bad |= json_object_set_new(json, "uid", json_integer(w->uid));
    }
    if (w->unit) {
        bad |= json_object_set_new(json, "unit", json_string(w->unit));
    }
    if (w->n_exe_sha256) {
        bad |=
            json_object_set_new(json, "exe_sha256", digests_json(w->exe_sha256, w->n_exe_sha256));
    }
    if (w->n_script_sha256) {
        bad |= json_object_set_new(json, "script_sha256",
                                   digests_json(w->script_sha256, w->n_script_sha256));
    }
    if (w->manifest_path) {
        bad |= json_object_set_new(
            json, "manifest",
            json_pack("{s:s, s:s}", "path", w->manifest_path, "sha256", w->manifest_sha256));
    }
    if (bad) {
        json_decref(json);
        return NULL;
    }
    return json;
}

enum att_rc conf_measured_to_json(const struct conf_measured *m, json_t **ret_json,
                                  struct att_err *err)
{
    *ret_json = NULL;
    if (!m->manifest) {
        return ATT_OK;
    }
    json_t *json = json_pack("{s:s, s:I, s:I}", "manifest", m->manifest, "level",
                             (json_int_t)m->level, "reread_s", (json_int_t)m->reread_s);
    int bad = json == NULL;
    if (m->n_roots) {
        bad |= json_object_set_new(json, "roots", digests_json(m->roots, m->n_roots));
    }
    if (m->n_signers) {
        bad |= json_object_set_new(json, "signers", digests_json(m->signers, m->n_signers));
    }
    if (bad) {
        json_decref(json);
        return att_fail(err, ATT_E_NOMEM, "measured");
    }
    *ret_json = json;
    return ATT_OK;
}

enum att_rc conf_workloads_to_json(const struct conf_entry *entry, json_t **ret_json,
                                   struct att_err *err)
{
    json_t *list = json_array();
    int bad = list == NULL;
    for (size_t i = 0; i < entry->n_workload; i++) {
        bad |= json_array_append_new(list, workload_json(&entry->workload[i]));
    }
    if (bad) {
        json_decref(list);
        return att_fail(err, ATT_E_NOMEM, "entry \"%s\"", entry->name);
    }
    *ret_json = list;
    return ATT_OK;
}

enum att_rc conf_entry_to_json(const struct conf_entry *entry, json_t **ret_json,
                               struct att_err *err)
{
    json_t *work = NULL, *hosts = json_array();
    enum att_rc rc = conf_workloads_to_json(entry, &work, err);
    int bad = hosts == NULL;
    for (size_t i = 0; i < entry->n_hosts; i++) {
        bad |= json_array_append_new(hosts, json_string(entry->hosts[i].text));
    }
    if (rc != ATT_OK || bad) {
        json_decref(work);
        json_decref(hosts);
        return rc != ATT_OK ? rc : att_fail(err, ATT_E_NOMEM, "entry \"%s\"", entry->name);
    }
    json_t *json =
        json_pack("{s:s, s:s, s:o, s:o, s:s, s:s*, s:s}", "name", entry->name, "owner",
                  entry->owner, "hosts", hosts, "workload", work, "key",
                  conf_key_kind_name(entry->key), "hsm", entry->hsm, "profile", entry->profile);
    json_t *measured = NULL;
    if (json && entry->key_type != ATT_KEYTYPE_P256 && /* the default is not written */
        json_object_set_new(json, "key_type", json_string(att_keytype_name(entry->key_type))) !=
            0) {
        json_decref(json);
        json = NULL;
    }
    if (!json) {
        return att_fail(err, ATT_E_NOMEM, "entry \"%s\"", entry->name);
    }
    rc = conf_measured_to_json(&entry->measured, &measured, err);
    if (rc != ATT_OK || (measured && json_object_set_new(json, "measured", measured) != 0) ||
        (entry->n_audiences &&
         json_object_set_new(json, "audiences",
                             digests_json(entry->audiences, entry->n_audiences)) != 0) ||
        (entry->n_federates_with &&
         json_object_set_new(json, "federates_with",
                             digests_json(entry->federates_with, entry->n_federates_with)) != 0)) {
        json_decref(json);
        return rc != ATT_OK ? rc : att_fail(err, ATT_E_NOMEM, "entry \"%s\"", entry->name);
    }
    *ret_json = json;
    return ATT_OK;
}

enum att_rc conf_entries_to_json(const struct conf_entries *entries, json_t **ret_json,
                                 struct att_err *err)
{
    att_autojson *list = json_array();
    for (size_t i = 0; i < entries->n_agents; i++) {
        json_t *entry = NULL;
        enum att_rc rc = conf_entry_to_json(&entries->agents[i], &entry, err);
        if (rc != ATT_OK) {
            return rc;
        }
        if (json_array_append_new(list, entry) != 0) {
            return att_fail(err, ATT_E_NOMEM, "entries");
        }
    }
    json_t *json = json_pack("{s:s, s:O}", "trust_domain", entries->trust_domain, "agents", list);
    if (!json) {
        return att_fail(err, ATT_E_NOMEM, "entries");
    }
    *ret_json = json;
    return ATT_OK;
}
