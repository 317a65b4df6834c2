#include "attestd/conf/entries_json.h"

#include "attestd/base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOWER  "abcdefghijklmnopqrstuvwxyz"
#define UPPER  "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

/* Where we are, and whether memory ran out on the way. */
struct decode {
    struct conf_check *check;
    bool nomem;
};

static const char *type_name(const json_t *json)
{
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        return "a mapping";
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "text";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    default:
        return "true, false or null";
    }
}

static struct conf_path sub(const char *path, const char *key)
{
    return *path ? conf_path("%.100s.%s", path, key) : conf_path("%s", key);
}

/* obj is a mapping with no keys but these (NULL-ended). */
static bool check_keys(struct decode *d, const char *path, const json_t *obj,
                       const char *const *keys)
{
    if (!json_is_object(obj)) {
        conf_bad(d->check, path, "expected a mapping, found %s", obj ? type_name(obj) : "nothing");
        return false;
    }
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)obj, key, value)
    {
        size_t i = 0;
        while (keys[i] && strcmp(keys[i], key) != 0) {
            i++;
        }
        if (!keys[i]) {
            char list[128] = "";
            for (size_t k = 0, len = 0; keys[k] && len < sizeof list; k++) {
                int n = snprintf(list + len, sizeof list - len, "%s%s", k ? ", " : "", keys[k]);
                len += n > 0 ? (size_t)n : 0;
            }
            conf_bad(d->check, sub(path, key).text, "unknown key, expected one of: %s", list);
        }
    }
    return true;
}

/* Borrowed text of a member; NULL when it is not there or not text (then noted). */
static const char *text_of(struct decode *d, const char *path, const json_t *obj, const char *key,
                           bool required)
{
    const json_t *value = json_object_get(obj, key);
    if (!value) {
        if (required) {
            conf_bad(d->check, sub(path, key).text, "required, found nothing");
        }
        return NULL;
    }
    if (!json_is_string(value) || strlen(json_string_value(value)) != json_string_length(value)) {
        conf_bad(d->check, sub(path, key).text, "expected text, found %s", type_name(value));
        return NULL;
    }
    return json_string_value(value);
}

static char *copy(struct decode *d, const char *text)
{
    char *dup = text ? strdup(text) : NULL;
    d->nomem |= text && !dup;
    return dup;
}

/* An array of least … most members; NULL (noted when it was required or is wrong) otherwise. */
static const json_t *list_of(struct decode *d, const char *path, const json_t *obj, const char *key,
                             size_t least, size_t most, bool required)
{
    const json_t *value = json_object_get(obj, key);
    struct conf_path at = sub(path, key);
    if (!value) {
        if (required) {
            conf_bad(d->check, at.text, "required, found nothing");
        }
        return NULL;
    }
    if (!json_is_array(value)) {
        conf_bad(d->check, at.text, "expected a list, found %s", type_name(value));
        return NULL;
    }
    size_t n = json_array_size(value);
    if (n < least || n > most) {
        conf_bad(d->check, at.text, "expected a list of %zu … %zu, found %zu", least, most, n);
        return NULL;
    }
    return value;
}

static void *alloc(struct decode *d, size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    d->nomem |= !p;
    return p;
}

/* ---- hosts ---- */

static bool label_value_ok(const char *text)
{
    size_t len = strlen(text);
    return len > 0 && len <= 128 && strspn(text, LOWER UPPER DIGITS "._-") == len &&
           !strchr("._-", text[0]);
}

static void decode_host(struct decode *d, const char *path, const json_t *json,
                        struct conf_host_selector *ret)
{
    const char *text = json_string_value(json);
    const char *eq = text ? strchr(text, '=') : NULL;
    char key[CONF_NAME_MAX + 1] = "";
    if (text && strncmp(text, "ek:", 3) == 0 && strlen(text) == 67 &&
        strspn(text + 3, DIGITS "abcdef") == 64) {
        ret->kind = CONF_HOST_EK;
        ret->text = copy(d, text);
        ret->key = copy(d, text + 3);
        return;
    }
    if (eq && strncmp(text, "label:", 6) == 0 && (size_t)(eq - text - 6) < sizeof key) {
        snprintf(key, sizeof key, "%.*s", (int)(eq - text - 6), text + 6);
        if (conf_name_check(key, NULL) == ATT_OK && label_value_ok(eq + 1)) {
            ret->kind = CONF_HOST_LABEL;
            ret->text = copy(d, text);
            ret->key = copy(d, key);
            ret->value = copy(d, eq + 1);
            return;
        }
    }
    conf_bad(d->check, path,
             "expected \"label:KEY=VALUE\" or \"ek:<64 hex digits>\", found %s%.80s",
             text ? "" : type_name(json), text ? text : "");
}

/* ---- workloads ---- */

static void decode_uid(struct decode *d, const char *path, const json_t *json,
                       struct conf_workload *w)
{
    const json_t *uid = json_object_get(json, "uid");
    if (!uid) {
        return;
    }
    json_int_t value = json_is_integer(uid) ? json_integer_value(uid) : -1;
    if (value < 0 || value >= UINT32_MAX) {
        conf_bad(d->check, sub(path, "uid").text,
                 "expected a user id, 0 … 4294967294, found %s%.60s",
                 json_is_string(uid) ? "" : type_name(uid),
                 json_is_string(uid) ? json_string_value(uid) : "");
        return;
    }
    w->has_uid = true;
    w->uid = (uint32_t)value;
}

/* systemd.unit(5): letters, digits and :-_.\@, with a suffix that holds processes. */
static bool unit_ok(const char *unit)
{
    static const char *const suffixes[] = {".service", ".scope", ".slice"};
    size_t len = strlen(unit);
    if (len > 255 || strspn(unit, LOWER UPPER DIGITS ":-_.\\@") != len) {
        return false;
    }
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        size_t n = strlen(suffixes[i]);
        if (len > n && strcmp(unit + len - n, suffixes[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* A list of SHA-256 digests under this key, where there is one. */
static void decode_digests(struct decode *d, const char *path, const json_t *json, const char *key,
                           char ***ret_list, size_t *ret_n)
{
    const json_t *list = list_of(d, path, json, key, 1, CONF_EXES_MAX, false);
    if (!list || !(*ret_list = alloc(d, json_array_size(list), sizeof **ret_list))) {
        return;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        struct conf_path at = conf_path("%.90s.%s[%zu]", path, key, i);
        if (conf_check_hex256(d->check, at.text, text ? text : "")) {
            (*ret_list)[(*ret_n)++] = copy(d, text);
        }
    }
}

static void decode_manifest(struct decode *d, const char *path, const json_t *json,
                            struct conf_workload *w)
{
    static const char *const keys[] = {"path", "sha256", NULL};
    const json_t *manifest = json_object_get(json, "manifest");
    struct conf_path at = sub(path, "manifest");
    if (!manifest || !check_keys(d, at.text, manifest, keys)) {
        return;
    }
    const char *file = text_of(d, at.text, manifest, "path", true);
    const char *sha256 = text_of(d, at.text, manifest, "sha256", true);
    (void)conf_check_path(d->check, sub(at.text, "path").text, file);
    (void)conf_check_hex256(d->check, sub(at.text, "sha256").text, sha256);
    w->manifest_path = copy(d, file);
    w->manifest_sha256 = copy(d, sha256);
}

static void decode_workload(struct decode *d, const char *path, const json_t *json,
                            struct conf_workload *w)
{
    static const char *const keys[] = {"uid",           "unit",     "exe_sha256",
                                       "script_sha256", "manifest", NULL};
    if (!check_keys(d, path, json, keys)) {
        return;
    }
    decode_uid(d, path, json, w);
    const char *unit = text_of(d, path, json, "unit", false);
    if (unit && !unit_ok(unit)) {
        conf_bad(d->check, sub(path, "unit").text,
                 "expected a unit such as rebalancer.service, found \"%.80s\"", unit);
    }
    w->unit = copy(d, unit);
    if (!json_object_get(json, "uid") && !json_object_get(json, "unit")) {
        conf_bad(d->check, path,
                 "expected uid or unit: exe_sha256, script_sha256 and manifest do not tell "
                 "processes apart");
    }
    decode_digests(d, path, json, "exe_sha256", &w->exe_sha256, &w->n_exe_sha256);
    decode_digests(d, path, json, "script_sha256", &w->script_sha256, &w->n_script_sha256);
    decode_manifest(d, path, json, w);
}

static uint32_t number_of(struct decode *d, const char *path, const json_t *json, const char *key,
                          json_int_t least, json_int_t most, uint32_t otherwise)
{
    const json_t *member = json_object_get(json, key);
    json_int_t value = json_is_integer(member) ? json_integer_value(member) : -1;
    if (!member) {
        return otherwise;
    }
    if (value < least || value > most) {
        conf_bad(d->check, sub(path, key).text, "expected a number, %lld … %lld", (long long)least,
                 (long long)most);
        return otherwise;
    }
    return (uint32_t)value;
}

static void decode_measured(struct decode *d, const char *path, const json_t *json,
                            struct conf_measured *m)
{
    static const char *const keys[] = {"manifest", "roots", "signers", "level", "reread_s", NULL};
    if (!json || !check_keys(d, path, json, keys)) {
        return;
    }
    const char *file = text_of(d, path, json, "manifest", true);
    (void)conf_check_path(d->check, sub(path, "manifest").text, file);
    m->manifest = copy(d, file);
    decode_digests(d, path, json, "roots", &m->roots, &m->n_roots);
    decode_digests(d, path, json, "signers", &m->signers, &m->n_signers);
    m->level = number_of(d, path, json, "level", 1, 3, 1);
    m->reread_s = number_of(d, path, json, "reread_s", 0, 30 * 86400, CONF_REREAD_S);
    if (!json_object_get(json, "roots") && !json_object_get(json, "signers")) {
        conf_bad(d->check, path, "expected roots or signers: any manifest would do otherwise");
    }
}

/* ---- entries ---- */

static void decode_key(struct decode *d, const char *path, const json_t *json,
                       struct conf_entry *entry)
{
    static const char *const kinds[] = {"tpm", "hsm", "memory", "exportable", NULL};
    const char *key = text_of(d, path, json, "key", true);
    if (key && conf_check_word(d->check, sub(path, "key").text, key, kinds)) {
        entry->key = conf_key_kind_parse(key);
    }
}

/* A TPM's and a memory key are on P-256: an RSA key takes a TPM seconds to make. */
static void decode_key_type(struct decode *d, const char *path, const json_t *json,
                            struct conf_entry *entry)
{
    static const char *const types[] = {"ec-p256", "rsa-2048", "rsa-3072", NULL};
    const char *type = text_of(d, path, json, "key_type", false);
    struct conf_path at = sub(path, "key_type");
    entry->key_type = ATT_KEYTYPE_P256;
    if (!type || !conf_check_word(d->check, at.text, type, types)) {
        return;
    }
    entry->key_type = att_keytype_parse(att_slice_str(type));
    if (att_keytype_is_rsa(entry->key_type) && entry->key && entry->key != CONF_KEY_HSM) {
        conf_bad(d->check, at.text, "RSA keys are made in an HSM only, found \"%s\" with key: %s",
                 type, conf_key_kind_name(entry->key));
    }
}

/* Which modules a host has, its own configuration says: what has none of this name refuses. */
static void decode_hsm(struct decode *d, const char *path, const json_t *json,
                       struct conf_entry *entry)
{
    const char *name = text_of(d, path, json, "hsm", false);
    struct conf_path at = sub(path, "hsm");
    if (!name || !conf_check_name(d->check, at.text, name)) {
        return;
    }
    if (strlen(name) > CONF_HSM_NAME_MAX) {
        conf_bad(d->check, at.text, "expected at most %d characters, found %zu", CONF_HSM_NAME_MAX,
                 strlen(name));
    }
    if (entry->key && entry->key != CONF_KEY_HSM) {
        conf_bad(d->check, at.text, "expected with key: hsm only, found \"%s\" with key: %s", name,
                 conf_key_kind_name(entry->key));
    }
    entry->hsm = copy(d, name);
}

/* Exact texts: a pattern would let one relying party's name stand for another's. */
static void decode_audiences(struct decode *d, const char *path, const json_t *json,
                             struct conf_entry *entry)
{
    const json_t *list = list_of(d, path, json, "audiences", 1, CONF_AUDIENCES_MAX, false);
    if (!list || !(entry->audiences = alloc(d, json_array_size(list), sizeof(char *)))) {
        return;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct conf_path at = conf_path("%.100s%saudiences[%zu]", path, *path ? "." : "", i);
        const char *text = json_string_value(json_array_get(list, i));
        if (!text || !conf_audience_ok(text)) {
            conf_bad(d->check, at.text,
                     "expected 1 to %d printable characters without space, found \"%.80s\"",
                     CONF_AUDIENCE_MAX, text ? text : "no text");
            continue;
        }
        if (conf_entry_allows_audience(entry, text)) {
            conf_bad(d->check, at.text, "\"%.80s\" stands there twice", text);
            continue;
        }
        char *own = copy(d, text);
        if (own) {
            entry->audiences[entry->n_audiences++] = own;
        }
    }
}

static void decode_federates(struct decode *d, const char *path, const json_t *json,
                             struct conf_entry *entry)
{
    const json_t *list = list_of(d, path, json, "federates_with", 1, CONF_FEDERATES_MAX, false);
    if (!list || !(entry->federates_with = alloc(d, json_array_size(list), sizeof(char *)))) {
        return;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        struct conf_path at = conf_path("%.100s%sfederates_with[%zu]", path, *path ? "." : "", i);
        const char *text = json_string_value(json_array_get(list, i));
        if (!text) {
            conf_bad(d->check, at.text, "expected a trust domain's name");
            continue;
        }
        if (!conf_check_trust_domain(d->check, at.text, text)) {
            continue;
        }
        if (conf_entry_federates_with(entry, text)) {
            conf_bad(d->check, at.text, "\"%.80s\" stands there twice", text);
            continue;
        }
        char *own = copy(d, text);
        if (own) {
            entry->federates_with[entry->n_federates_with++] = own;
        }
    }
}

static void decode_entry(struct decode *d, const char *path, const json_t *json,
                         struct conf_entry *entry)
{
    static const char *const keys[] = {"name",     "owner",     "hosts",          "workload",
                                       "measured", "key",       "key_type",       "hsm",
                                       "profile",  "audiences", "federates_with", NULL};
    if (!check_keys(d, path, json, keys)) {
        return;
    }
    const char *name = text_of(d, path, json, "name", true);
    const char *owner = text_of(d, path, json, "owner", true);
    const char *profile = text_of(d, path, json, "profile", true);
    (void)conf_check_name(d->check, sub(path, "name").text, name);
    (void)conf_check_text(d->check, sub(path, "owner").text, owner, 256);
    (void)conf_check_name(d->check, sub(path, "profile").text, profile);
    entry->name = copy(d, name);
    entry->owner = copy(d, owner);
    entry->profile = copy(d, profile);
    decode_key(d, path, json, entry);
    decode_key_type(d, path, json, entry);
    decode_hsm(d, path, json, entry);
    decode_audiences(d, path, json, entry);
    decode_federates(d, path, json, entry);
    decode_measured(d, sub(path, "measured").text, json_object_get(json, "measured"),
                    &entry->measured);
    const json_t *hosts = list_of(d, path, json, "hosts", 1, CONF_HOSTS_MAX, true);
    if (hosts && (entry->hosts = alloc(d, json_array_size(hosts), sizeof *entry->hosts))) {
        entry->n_hosts = json_array_size(hosts);
        for (size_t i = 0; i < entry->n_hosts; i++) {
            decode_host(d, conf_path("%.100s%shosts[%zu]", path, *path ? "." : "", i).text,
                        json_array_get(hosts, i), &entry->hosts[i]);
        }
    }
    const json_t *work = list_of(d, path, json, "workload", 1, CONF_WORKLOADS_MAX, true);
    if (work && (entry->workload = alloc(d, json_array_size(work), sizeof *entry->workload))) {
        entry->n_workload = json_array_size(work);
        for (size_t i = 0; i < entry->n_workload; i++) {
            decode_workload(d, conf_path("%.100s%sworkload[%zu]", path, *path ? "." : "", i).text,
                            json_array_get(work, i), &entry->workload[i]);
        }
    }
}

static void check_duplicates(struct decode *d, const struct conf_entries *entries)
{
    json_t *seen = json_object();
    d->nomem |= !seen;
    for (size_t i = 0; seen && i < entries->n_agents; i++) {
        const char *name = entries->agents[i].name;
        if (!name) {
            continue;
        }
        const json_t *first = json_object_get(seen, name);
        if (first) {
            conf_bad(d->check, conf_path("agents[%zu].name", i).text,
                     "agent \"%.64s\" stands there twice, first as agents[%lld]", name,
                     (long long)json_integer_value(first));
        } else if (json_object_set_new(seen, name, json_integer((json_int_t)i)) != 0) {
            d->nomem = true;
        }
    }
    json_decref(seen);
}

enum att_rc conf_entries_decode(struct conf_check *check, const json_t *json,
                                struct conf_entries **ret_entries, struct att_err *err)
{
    static const char *const keys[] = {"trust_domain", "agents", NULL};
    struct decode d = {check, false};
    if (!check_keys(&d, "", json, keys)) {
        return ATT_OK;
    }
    struct conf_entries *entries = alloc(&d, 1, sizeof *entries);
    if (!entries) {
        return att_fail(err, ATT_E_NOMEM, "entries");
    }
    *ret_entries = entries;
    const char *trust_domain = text_of(&d, "", json, "trust_domain", true);
    (void)conf_check_trust_domain(check, "trust_domain", trust_domain);
    entries->trust_domain = copy(&d, trust_domain);
    const json_t *agents = list_of(&d, "", json, "agents", 0, CONF_AGENTS_MAX, true);
    if (agents && (entries->agents = alloc(&d, json_array_size(agents), sizeof *entries->agents))) {
        entries->n_agents = json_array_size(agents);
        for (size_t i = 0; i < entries->n_agents; i++) {
            decode_entry(&d, conf_path("agents[%zu]", i).text, json_array_get(agents, i),
                         &entries->agents[i]);
        }
        check_duplicates(&d, entries);
    }
    return d.nomem ? att_fail(err, ATT_E_NOMEM, "entries") : ATT_OK;
}

/* ---- local rules ---- */

static void decode_workloads(struct decode *d, const char *path, const json_t *json,
                             struct conf_workload **ret, size_t *ret_n)
{
    const json_t *work = list_of(d, path, json, "workload", 1, CONF_WORKLOADS_MAX, true);
    if (!work || !(*ret = alloc(d, json_array_size(work), sizeof **ret))) {
        return;
    }
    *ret_n = json_array_size(work);
    for (size_t i = 0; i < *ret_n; i++) {
        decode_workload(d, conf_path("%.100s.workload[%zu]", path, i).text, json_array_get(work, i),
                        &(*ret)[i]);
    }
}

static void decode_local_rule(struct decode *d, const char *path, const json_t *json,
                              struct conf_local_rule *rule)
{
    static const char *const keys[] = {"name", "workload", NULL};
    if (!check_keys(d, path, json, keys)) {
        return;
    }
    const char *name = text_of(d, path, json, "name", true);
    (void)conf_check_name(d->check, sub(path, "name").text, name);
    rule->name = copy(d, name);
    decode_workloads(d, path, json, &rule->workload, &rule->n_workload);
    for (size_t i = 0; i < rule->n_workload; i++) {
        if (rule->workload[i].manifest_path) {
            conf_bad(d->check, conf_path("%.100s.workload[%zu].manifest", path, i).text,
                     "manifests are named by the issuer's entries only");
        }
    }
}

enum att_rc conf_local_decode(struct conf_check *check, const json_t *json,
                              struct conf_local **ret_local, struct att_err *err)
{
    static const char *const keys[] = {"agents", NULL};
    struct decode d = {check, false};
    if (!check_keys(&d, "", json, keys)) {
        return ATT_OK;
    }
    struct conf_local *local = alloc(&d, 1, sizeof *local);
    const json_t *agents = list_of(&d, "", json, "agents", 0, CONF_AGENTS_MAX, true);
    if (local && agents &&
        (local->rules = alloc(&d, json_array_size(agents), sizeof *local->rules))) {
        for (size_t i = 0; i < json_array_size(agents); i++) {
            struct conf_local_rule *rule = &local->rules[i];
            struct conf_path at = conf_path("agents[%zu]", i);
            decode_local_rule(&d, at.text, json_array_get(agents, i), rule);
            if (rule->name && conf_local_find(local, rule->name)) {
                conf_bad(check, sub(at.text, "name").text, "agent \"%.64s\" stands there twice",
                         rule->name);
            }
            local->n++;
        }
    }
    *ret_local = local;
    return d.nomem ? att_fail(err, ATT_E_NOMEM, "local rules") : ATT_OK;
}

/* ---- agents of acme.agents ---- */

static void decode_acme_agent(struct decode *d, const char *path, const json_t *json,
                              struct conf_acme_agent *agent)
{
    static const char *const keys[] = {"name", "identifier", "key", "profile", "workload", NULL};
    if (!check_keys(d, path, json, keys)) {
        return;
    }
    const char *name = text_of(d, path, json, "name", true);
    (void)conf_check_name(d->check, sub(path, "name").text, name);
    agent->name = copy(d, name);
    const char *identifier = text_of(d, path, json, "identifier", false);
    if (identifier && !conf_identifier_ok(identifier)) {
        conf_bad(d->check, sub(path, "identifier").text,
                 "expected ek, or 1 … %d printable characters without space and /, found "
                 "\"%.80s\"",
                 CONF_IDENTIFIER_MAX, identifier);
    } else if (identifier && strcmp(identifier, CONF_IDENTIFIER_EK) != 0) {
        agent->identifier = copy(d, identifier);
    }
    const char *key = text_of(d, path, json, "key", false);
    if (key && strcmp(key, "tpm") != 0) {
        conf_bad(d->check, sub(path, "key").text,
                 "expected tpm, found \"%.80s\": nothing else can be shown to such a server", key);
    }
    const char *profile = text_of(d, path, json, "profile", false);
    (void)conf_check_text(d->check, sub(path, "profile").text, profile, CONF_NAME_MAX - 1);
    agent->profile = copy(d, profile);
    decode_workloads(d, path, json, &agent->workload, &agent->n_workload);
}

static bool is_twice(const struct conf_acme_agents *agents, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; name && i < agents->n; i++) {
        n += agents->agents[i].name && strcmp(agents->agents[i].name, name) == 0;
    }
    return n > 1;
}

enum att_rc conf_acme_agents_decode(struct conf_check *check, const json_t *json,
                                    struct conf_acme_agents **ret_agents, struct att_err *err)
{
    static const char *const keys[] = {"agents", NULL};
    struct decode d = {check, false};
    if (!check_keys(&d, "", json, keys)) {
        return ATT_OK;
    }
    struct conf_acme_agents *all = alloc(&d, 1, sizeof *all);
    const json_t *agents = list_of(&d, "", json, "agents", 0, CONF_AGENTS_MAX, true);
    if (all && agents && (all->agents = alloc(&d, json_array_size(agents), sizeof *all->agents))) {
        for (size_t i = 0; i < json_array_size(agents); i++) {
            struct conf_path at = conf_path("agents[%zu]", i);
            all->n++;
            decode_acme_agent(&d, at.text, json_array_get(agents, i), &all->agents[i]);
            if (is_twice(all, all->agents[i].name)) {
                conf_bad(check, sub(at.text, "name").text, "agent \"%.64s\" stands there twice",
                         all->agents[i].name);
            }
        }
    }
    *ret_agents = all;
    return d.nomem ? att_fail(err, ATT_E_NOMEM, "agents") : ATT_OK;
}

enum att_rc conf_entries_from_json(const json_t *json, struct conf_entries **ret_entries,
                                   struct att_err *err)
{
    struct conf_entries *entries = NULL;
    struct conf_errors *errors = calloc(1, sizeof *errors);
    if (!errors) {
        return att_fail(err, ATT_E_NOMEM, "entries");
    }
    struct conf_check check = {errors, NULL};
    enum att_rc rc = conf_entries_decode(&check, json, &entries, err);
    if (rc == ATT_OK && errors->n) {
        rc = att_fail(err, ATT_E_PARSE, "%s: %s", errors->v[0].field, errors->v[0].text);
    }
    free(errors);
    if (rc != ATT_OK) {
        conf_entries_free(entries);
        return rc;
    }
    *ret_entries = entries;
    return ATT_OK;
}

enum att_rc conf_entry_from_json(const json_t *json, struct conf_entry **ret_entry,
                                 struct att_err *err)
{
    struct conf_errors *errors = calloc(1, sizeof *errors);
    struct conf_entry *entry = calloc(1, sizeof *entry);
    enum att_rc rc = errors && entry ? ATT_OK : att_fail(err, ATT_E_NOMEM, "entry");
    if (rc == ATT_OK) {
        struct conf_check check = {errors, NULL};
        struct decode d = {&check, false};
        decode_entry(&d, "", json, entry);
        rc = d.nomem     ? att_fail(err, ATT_E_NOMEM, "entry")
             : errors->n ? att_fail(err, ATT_E_PARSE, "entry: %s: %s", errors->v[0].field,
                                    errors->v[0].text)
                         : ATT_OK;
    }
    free(errors);
    if (rc != ATT_OK) {
        conf_entry_free(entry);
        return rc;
    }
    *ret_entry = entry;
    return ATT_OK;
}

enum att_rc conf_measured_from_json(const json_t *json, struct conf_measured *ret_measured,
                                    struct att_err *err)
{
    struct conf_errors *errors = calloc(1, sizeof *errors);
    struct conf_measured measured = {0};
    if (!errors) {
        return att_fail(err, ATT_E_NOMEM, "measured");
    }
    struct conf_check check = {errors, NULL};
    struct decode d = {&check, false};
    decode_measured(&d, "measured", json, &measured);
    enum att_rc rc =
        d.nomem     ? att_fail(err, ATT_E_NOMEM, "measured")
        : errors->n ? att_fail(err, ATT_E_PARSE, "%s: %s", errors->v[0].field, errors->v[0].text)
                    : ATT_OK;
    free(errors);
    if (rc != ATT_OK) {
        conf_measured_done(&measured);
        return rc;
    }
    *ret_measured = measured;
    return ATT_OK;
}

enum att_rc conf_workloads_from_json(const json_t *json, struct conf_workload **ret_workloads,
                                     size_t *ret_n, struct att_err *err)
{
    size_t n = json_array_size(json);
    struct conf_errors *errors = calloc(1, sizeof *errors);
    struct conf_workload *list = calloc(n ? n : 1, sizeof *list);
    enum att_rc rc = errors && list ? ATT_OK : att_fail(err, ATT_E_NOMEM, "workload");
    if (rc == ATT_OK && (n == 0 || n > CONF_WORKLOADS_MAX)) {
        rc = att_fail(err, ATT_E_PARSE, "workload: expected a list of 1 … %d", CONF_WORKLOADS_MAX);
        n = 0;
    }
    if (rc == ATT_OK) {
        struct conf_check check = {errors, NULL};
        struct decode d = {&check, false};
        for (size_t i = 0; i < n; i++) {
            decode_workload(&d, conf_path("workload[%zu]", i).text, json_array_get(json, i),
                            &list[i]);
        }
        rc = d.nomem ? att_fail(err, ATT_E_NOMEM, "workload")
             : errors->n
                 ? att_fail(err, ATT_E_PARSE, "%s: %s", errors->v[0].field, errors->v[0].text)
                 : ATT_OK;
    }
    free(errors);
    if (rc != ATT_OK) {
        conf_workloads_free(list, list ? n : 0);
        return rc;
    }
    *ret_workloads = list;
    *ret_n = n;
    return ATT_OK;
}
