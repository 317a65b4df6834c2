/* Identities, roles and scopes. */
#include "provision/issuer/who.h"

#include <stdio.h>
#include <string.h>

#define PERSON "person:"

/* ---- identities ------------------------------------------------------------------------------ */

static void identify(struct issuer_who *who, const struct conf_admin *admin)
{
    const char *person = conf_admin_person(admin, who->id);
    snprintf(who->identity, sizeof who->identity, "%s%.*s", person ? PERSON : "",
             ISSUER_WHO_MAX - (int)sizeof PERSON, person ? person : who->id);
}

void issuer_who_local(struct issuer_who *ret_who, const struct conf_admin *admin,
                      const struct att_ctl_peer *peer)
{
    *ret_who = (struct issuer_who){.uid = peer ? (int64_t)peer->uid : -1};
    if (peer) {
        snprintf(ret_who->id, sizeof ret_who->id, "uid:%lld", (long long)ret_who->uid);
    } else {
        snprintf(ret_who->id, sizeof ret_who->id, "issuer");
    }
    identify(ret_who, admin);
}

enum att_rc issuer_who_remote(struct issuer_who *ret_who, const struct conf_admin *admin,
                              const char *id, const char *peer, struct att_err *err)
{
    if (strlen(id) >= sizeof ret_who->id) {
        return issuer_refuse(err, ATT_E_LIMIT, "principal", "the caller's name is too long");
    }
    *ret_who = (struct issuer_who){.remote = true, .uid = -1};
    snprintf(ret_who->id, sizeof ret_who->id, "%s", id);
    snprintf(ret_who->peer, sizeof ret_who->peer, "%s", peer ? peer : "");
    identify(ret_who, admin);
    return ATT_OK;
}

void issuer_who_put(json_t *record, const struct issuer_who *who)
{
    json_object_set_new(record, "uid",
                        who && who->remote ? NULL : json_integer(who ? who->uid : -1));
    if (!who) {
        return;
    }
    json_object_set_new(record, "principal", json_string(who->id));
    if (strcmp(who->id, who->identity) != 0) {
        json_object_set_new(record, "person", json_string(who->identity + strlen(PERSON)));
    }
    if (who->peer[0]) {
        json_object_set_new(record, "address", json_string(who->peer));
    }
    if (who->proposed_by) {
        json_object_set_new(record, "proposedBy", json_string(who->proposed_by));
    }
}

bool issuer_who_is(const struct issuer_who *who, const struct conf_admin *admin,
                   const char *identity)
{
    const char *person = conf_admin_person(admin, identity);
    return identity[0] && (strcmp(who->identity, identity) == 0 || strcmp(who->id, identity) == 0 ||
                           (person && strncmp(who->identity, PERSON, strlen(PERSON)) == 0 &&
                            strcmp(who->identity + strlen(PERSON), person) == 0));
}

/* ---- duties ---------------------------------------------------------------------------------- */

#define REGISTRAR   CONF_ROLE_REGISTRAR
#define APPROVER    CONF_ROLE_APPROVER
#define REVOKER     CONF_ROLE_REVOKER
#define CA_OPERATOR CONF_ROLE_CA_OPERATOR
#define AUDITOR     CONF_ROLE_AUDITOR
#define EVERY       ((unsigned)(REGISTRAR | APPROVER | REVOKER | CA_OPERATOR | AUDITOR))

static const struct issuer_duty duties[] = {
    {"host.import", REGISTRAR, ISSUER_REACH_PART, APPROVER, true},
    {"host.approve", APPROVER, ISSUER_REACH_PART, 0, false},
    {"host.rebind", APPROVER, ISSUER_REACH_PART, 0, false},
    {"host.ban", REVOKER, ISSUER_REACH_PART, 0, false},
    {"host.evict", REVOKER, ISSUER_REACH_PART, 0, false},
    {"ticket.create", REGISTRAR, ISSUER_REACH_ALL, 0, false},
    {"entry.apply", REGISTRAR, ISSUER_REACH_PART, APPROVER, true},
    {"entry.delete", REGISTRAR, ISSUER_REACH_PART, 0, false},
    {"policy.apply", REGISTRAR, ISSUER_REACH_ALL, APPROVER, true},
    /* A list does nothing until a policy names it, which is what needs a second person. */
    {"allowlist.part", REGISTRAR, ISSUER_REACH_ALL, 0, false},
    {"allowlist.apply", REGISTRAR, ISSUER_REACH_ALL, 0, false},
    {"allowlist.delete", REGISTRAR, ISSUER_REACH_ALL, 0, false},
    {"policy.mode", REGISTRAR, ISSUER_REACH_ALL, APPROVER, false},
    {"cert.revoke", REVOKER, ISSUER_REACH_PART, 0, false},
    {"cert.renew", REVOKER, ISSUER_REACH_PART, 0, false},
    {"audit.erase", CA_OPERATOR, ISSUER_REACH_ALL, AUDITOR, false},
    /* By another CA operator. The socket acts at once, as ever: it is the way out. */
    {"ca.prepare", CA_OPERATOR, ISSUER_REACH_ALL, CA_OPERATOR, false},
    {"ca.rotate", CA_OPERATOR, ISSUER_REACH_ALL, CA_OPERATOR, false},
    {"ca.chain", CA_OPERATOR, ISSUER_REACH_ALL, CA_OPERATOR, false},
    {"ca.publish", CA_OPERATOR, ISSUER_REACH_ALL, CA_OPERATOR, false},
    {"ca.activate", CA_OPERATOR, ISSUER_REACH_ALL, CA_OPERATOR, false},
    {"ca.retire", CA_OPERATOR, ISSUER_REACH_ALL, CA_OPERATOR, false},
    {"ca.jwt.replace", CA_OPERATOR, ISSUER_REACH_ALL, CA_OPERATOR, false},
    {"federation.refresh", CA_OPERATOR, ISSUER_REACH_ALL, 0, false},
    /* What was learned of a trust domain counts no more: whom agents trust hangs on it. */
    {"federation.reset", CA_OPERATOR, ISSUER_REACH_ALL, CA_OPERATOR, false},
    /* These ask for the roles of what was proposed. */
    {"proposal.approve", APPROVER | AUDITOR | CA_OPERATOR, ISSUER_REACH_PART, 0, false},
    {"proposal.reject", EVERY, ISSUER_REACH_PART, 0, false},
};

struct issuer_duty issuer_duty_of(const char *op, bool write)
{
    for (size_t i = 0; i < sizeof duties / sizeof duties[0]; i++) {
        if (strcmp(duties[i].op, op) == 0) {
            return duties[i];
        }
    }
    if (write) {
        unsigned roles = strncmp(op, "ca.", 3) == 0 ? (unsigned)CA_OPERATOR : 0;
        return (struct issuer_duty){op, roles, ISSUER_REACH_ALL, roles, false};
    }
    /* A noun with its dot is all of its reading; ca's is named one by one. */
    static const char *const read[] = {"status",     "host.",  "entry.",     "policy.",
                                       "allowlist.", "cert.",  "proposal.",  "ca.status",
                                       "ca.bundle",  "ca.jwt", "federation."};
    for (size_t i = 0; i < sizeof read / sizeof read[0]; i++) {
        size_t len = strlen(read[i]);
        bool noun = read[i][len - 1] == '.';
        if (noun ? strncmp(op, read[i], len) == 0 : strcmp(op, read[i]) == 0) {
            return (struct issuer_duty){op, EVERY, ISSUER_REACH_ANY, 0, false};
        }
    }
    unsigned roles = strncmp(op, "audit.", 6) == 0 ? (unsigned)AUDITOR : 0;
    return (struct issuer_duty){op, roles, ISSUER_REACH_ANY, 0, false};
}

/* ---- scopes ---------------------------------------------------------------------------------- */

static void role_words(unsigned roles, char *ret, size_t room)
{
    size_t len = 0;
    *ret = 0;
    for (unsigned bit = 1; bit <= AUDITOR; bit <<= 1) {
        if ((roles & bit) && len < room) {
            int n = snprintf(ret + len, room - len, "%s%s", len ? " or " : "",
                             conf_admin_role_name((enum conf_admin_role)bit));
            len += n > 0 ? (size_t)n : 0;
        }
    }
}

static enum att_rc refuse_role(const struct issuer_scope *scope, struct att_err *err)
{
    char words[120];
    if (!scope->roles) {
        return issuer_refuse(err, ATT_E_DENIED, "roleMissing",
                             "no role has this operation: it is for the issuer's own socket");
    }
    role_words(scope->roles, words, sizeof words);
    return issuer_refuse(err, ATT_E_DENIED, "roleMissing", "%.200s is no %s", scope->id, words);
}

/* The next binding of one of the scope's roles to its id, after at (NULL: the first). */
static const struct conf_admin_binding *next(const struct issuer_scope *scope,
                                             const struct conf_admin_binding *at)
{
    const struct conf_admin *admin = scope->admin;
    if (!admin) {
        return NULL;
    }
    for (unsigned i = at ? (unsigned)(at - admin->bindings) + 1 : 0; i < admin->n_bindings; i++) {
        const struct conf_admin_binding *b = &admin->bindings[i];
        if ((b->role_set & scope->roles) && conf_admin_binds(admin, b, scope->id)) {
            return b;
        }
    }
    return NULL;
}

static bool is_whole(const struct conf_admin_binding *b)
{
    return b->n_paths == 0 && b->n_labels == 0;
}

static bool path_in(const struct conf_admin_binding *b, const char *spiffe_id)
{
    bool in = b->n_paths == 0;
    for (unsigned i = 0; i < b->n_paths && spiffe_id; i++) {
        in = in || conf_admin_pattern_fits(b->paths[i], spiffe_id);
    }
    return in;
}

/* All of the binding's labels. */
static bool labels_in(const struct conf_admin_binding *b, const json_t *labels)
{
    for (unsigned i = 0; i < b->n_labels; i++) {
        const char *equals = strchr(b->labels[i], '=');
        const json_t *value =
            json_object_getn(labels, b->labels[i], (size_t)(equals - b->labels[i]));
        if (!json_is_string(value) || strcmp(json_string_value(value), equals + 1) != 0) {
            return false;
        }
    }
    return true;
}

/* Whatever hosts the entry selects have the binding's label. */
static bool selectors_in(const struct conf_admin_binding *b, const struct conf_entry *entry)
{
    for (size_t i = 0; b->n_labels && i < entry->n_hosts; i++) {
        const struct conf_host_selector *s = &entry->hosts[i];
        att_autojson *labels = s->kind == CONF_HOST_LABEL ? json_object() : NULL;
        if (!labels || json_object_set_new(labels, s->key, json_string(s->value)) ||
            !labels_in(b, labels)) {
            return false;
        }
    }
    return true;
}

static enum att_rc refuse_scope(const struct issuer_scope *scope, const char *what,
                                struct att_err *err)
{
    char words[120];
    role_words(scope->roles, words, sizeof words);
    return issuer_refuse(err, ATT_E_DENIED, "roleScope", "%.200s is no %s of %.100s", scope->id,
                         words, what);
}

enum att_rc issuer_scope_all(const struct issuer_scope *scope, struct att_err *err)
{
    const struct conf_admin_binding *b = NULL;
    while (!scope->all && (b = next(scope, b))) {
        if (is_whole(b)) {
            return ATT_OK;
        }
    }
    return scope->all ? ATT_OK : refuse_scope(scope, "everything", err);
}

enum att_rc issuer_scope_enter(const struct conf_admin *admin, const struct issuer_who *who,
                               unsigned roles, enum issuer_reach reach,
                               struct issuer_scope *ret_scope, struct att_err *err)
{
    const struct issuer_scope scope = {admin, who->id, roles, !who->remote};
    if (!scope.all && !next(&scope, NULL)) {
        return refuse_role(&scope, err);
    }
    enum att_rc rc = reach == ISSUER_REACH_ALL ? issuer_scope_all(&scope, err) : ATT_OK;
    if (!rc) {
        *ret_scope = scope;
    }
    return rc;
}

enum att_rc issuer_who_bound(const struct conf_admin *admin, const struct issuer_who *who,
                             struct att_err *err)
{
    struct issuer_scope scope;
    return issuer_scope_enter(admin, who, EVERY, ISSUER_REACH_ANY, &scope, err);
}

enum att_rc issuer_scope_host(const struct issuer_scope *scope, const char *host,
                              const json_t *labels, struct att_err *err)
{
    char what[80];
    const struct conf_admin_binding *b = NULL;
    while (!scope->all && (b = next(scope, b))) {
        if (is_whole(b) || (b->n_paths == 0 && labels_in(b, labels))) {
            return ATT_OK;
        }
    }
    snprintf(what, sizeof what, "host %.12s with its labels", host);
    return scope->all ? ATT_OK : refuse_scope(scope, what, err);
}

enum att_rc issuer_scope_agent(const struct issuer_scope *scope, const char *spiffe_id,
                               const struct conf_entry *entry, struct att_err *err)
{
    const struct conf_admin_binding *b = NULL;
    while (!scope->all && (b = next(scope, b))) {
        if (is_whole(b) || (b->n_paths && path_in(b, spiffe_id) && selectors_in(b, entry))) {
            return ATT_OK;
        }
    }
    return scope->all ? ATT_OK : refuse_scope(scope, spiffe_id, err);
}

enum att_rc issuer_scope_cert(const struct issuer_scope *scope, struct store_tx *tx,
                              const struct store_cert *cert, struct att_err *err)
{
    if (scope->all) {
        return ATT_OK;
    }
    struct store_host host = {0};
    enum att_rc rc = store_get(tx, &store_hosts, cert->host, &host, NULL);
    if (rc && rc != ATT_E_NOTFOUND) {
        return att_fail(err, rc, "hosts cannot be read");
    }
    att_autojson *labels = issuer_json(rc ? "" : host.labels);
    store_record_done(&store_hosts, &host);
    const struct conf_admin_binding *b = NULL;
    while ((b = next(scope, b))) {
        if (path_in(b, cert->subject) && labels_in(b, labels)) {
            return ATT_OK;
        }
    }
    return refuse_scope(scope, cert->subject, err);
}
