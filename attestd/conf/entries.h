/* Entries: which agent may run where, as what, with which kind of key. The YAML file of `attestctl
 * entry apply -f`, and the JSON form that travels on the admin socket and lies in the store; see
 * conf.h for errors. One set of rules for both. */
#ifndef CONF_ENTRIES_H
#define CONF_ENTRIES_H

#include "attestd/base/keytype.h"
#include "attestd/conf/conf.h"

#include <jansson.h>

#define CONF_AGENTS_MAX    10000
#define CONF_HOSTS_MAX     256
#define CONF_WORKLOADS_MAX 16
#define CONF_EXES_MAX      64
#define CONF_AUDIENCES_MAX 16
#define CONF_FEDERATES_MAX 16
#define CONF_AUDIENCE_MAX  255 /* characters of an audience */

enum conf_key_kind { CONF_KEY_TPM = 1, CONF_KEY_HSM, CONF_KEY_MEMORY, CONF_KEY_EXPORTABLE };
const char *conf_key_kind_name(enum conf_key_kind kind);
enum conf_key_kind conf_key_kind_parse(const char *name); /* 0: unknown */

/* All members that are given must match. */
struct conf_workload {
    bool has_uid;
    uint32_t uid;
    char *unit;        /* NULL: any; uid or unit is always given */
    char **exe_sha256; /* 64 lowercase hex digits each; any of them */
    size_t n_exe_sha256;
    char **script_sha256; /* of the file that an interpreter runs; any of them */
    size_t n_script_sha256;
    char *manifest_path;   /* both or neither */
    char *manifest_sha256; /* 64 lowercase hex digits */
};

/* What the agent's files must be (docs/PROTOCOL.md, "An agent's manifest"). */
#define CONF_REREAD_S 3600
struct conf_measured {
    char *manifest; /* path of the manifest, as the host sees it; NULL: nothing is demanded */
    char **roots;   /* 64 lowercase hex digits each; any of them, or … */
    size_t n_roots;
    char **signers; /* … signed by a key with this SHA-256 of its SubjectPublicKeyInfo */
    size_t n_signers;
    unsigned level;    /* the least, 1 to 3 */
    uint32_t reread_s; /* what was read without fs-verity is read anew after this time */
};

enum conf_host_kind { CONF_HOST_LABEL = 1, CONF_HOST_EK };
struct conf_host_selector {
    enum conf_host_kind kind;
    char *text;  /* as written: "label:zone=trading" */
    char *key;   /* label: "zone"; ek: 64 lowercase hex digits */
    char *value; /* label: "trading"; ek: NULL */
};

struct conf_entry {
    char *name;
    char *owner;
    struct conf_host_selector *hosts; /* at least one; any of them */
    size_t n_hosts;
    struct conf_workload *workload; /* at least one; alternatives */
    size_t n_workload;
    struct conf_measured measured;
    enum conf_key_kind key;
    enum att_keytype key_type; /* ATT_KEYTYPE_P256 unless the entry says otherwise */
    char *hsm; /* which module of the host's, with CONF_KEY_HSM; NULL: the host's default */
    char *profile;
    char **audiences; /* for which tokens are minted: exactly these; none: no tokens */
    size_t n_audiences;
    char **federates_with; /* trust domains whose bundles it is given; none unless said */
    size_t n_federates_with;
};
struct conf_entries {
    char *trust_domain;
    struct conf_entry *agents; /* names differ; may be none */
    size_t n_agents;
};

ATT_MUST_USE enum att_rc conf_entries_load(const char *path, struct conf_entries **ret_entries,
                                           struct conf_errors *errors, struct att_err *err);
ATT_MUST_USE enum att_rc conf_entries_parse(struct att_slice yaml,
                                            struct conf_entries **ret_entries,
                                            struct conf_errors *errors, struct att_err *err);
void conf_entries_free(struct conf_entries *entries);

/* {"name", "owner", "hosts": ["label:zone=trading"], "workload": [{"uid": 1001, "unit"?,
 * "exe_sha256"?:
 * ["<hex>"], "script_sha256"?: ["<hex>"], "manifest"?: {"path", "sha256"}}],
 * "measured"?: {"manifest", "roots"?: ["<hex>"], "signers"?: ["<hex>"], "level"?: 1, "reread_s"?:
 * 3600}, "key": "hsm", "key_type"?: "rsa-2048", "hsm"?: "payments", "profile", "audiences"?:
 * ["https://api.example"], "federates_with"?: ["partner.example"]}. The same entry gives the same
 * JSON, byte for byte when dumped sorted.
 */
ATT_MUST_USE enum att_rc conf_entry_to_json(const struct conf_entry *entry, json_t **ret_json,
                                            struct att_err *err);
/* Strict: unknown members, wrong types and every rule of the file are errors. */
ATT_MUST_USE enum att_rc conf_entry_from_json(const json_t *json, struct conf_entry **ret_entry,
                                              struct att_err *err);
void conf_entry_free(struct conf_entry *entry); /* of conf_entry_from_json */
/* {"trust_domain", "agents": [entry…]} */
ATT_MUST_USE enum att_rc conf_entries_to_json(const struct conf_entries *entries, json_t **ret_json,
                                              struct att_err *err);
ATT_MUST_USE enum att_rc conf_entries_from_json(const json_t *json,
                                                struct conf_entries **ret_entries,
                                                struct att_err *err);
/* The workload array alone, as hostView carries it. */
ATT_MUST_USE enum att_rc conf_workloads_to_json(const struct conf_entry *entry, json_t **ret_json,
                                                struct att_err *err);
/* Its reader: strict, as entries are. */
ATT_MUST_USE enum att_rc conf_workloads_from_json(const json_t *json,
                                                  struct conf_workload **ret_workloads,
                                                  size_t *ret_n, struct att_err *err);
void conf_workloads_free(struct conf_workload *workloads, size_t n);
/* An entry's member measured in the same way; *ret_json NULL: it has none. */
ATT_MUST_USE enum att_rc conf_measured_to_json(const struct conf_measured *measured,
                                               json_t **ret_json, struct att_err *err);
/* json NULL: none. */
ATT_MUST_USE enum att_rc conf_measured_from_json(const json_t *json,
                                                 struct conf_measured *ret_measured,
                                                 struct att_err *err);
void conf_measured_done(struct conf_measured *measured);
/* 1 to CONF_AUDIENCE_MAX printable characters of ASCII without space. */
bool conf_audience_ok(const char *text);
/* Whether tokens for this audience are minted for it. */
bool conf_entry_allows_audience(const struct conf_entry *entry, const char *audience);
bool conf_entry_federates_with(const struct conf_entry *entry, const char *trust_domain);
/* Whether a host with this EK id and these labels ({"zone": "trading"}, may be NULL) is selected.
 */
bool conf_entry_selects(const struct conf_entry *entry, const char *ek_id, const json_t *labels);

/* Two agents that one host may run as the same user (or in the same unit) without telling them
 * apart by unit: exe_sha256, script_sha256 and manifest are in the hands of that user's own
 * processes. */
struct conf_entry_clash {
    bool by_unit; /* the same unit; else the same uid */
    uint32_t uid;
    const char *unit; /* borrowed */
};
bool conf_entry_clashes(const struct conf_entry *a, const struct conf_entry *b,
                        struct conf_entry_clash *ret_clash);

#endif
