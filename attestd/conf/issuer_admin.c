#include "attestd/conf/issuer_admin.h"

#include "attestd/conf/schema.h"

#include <stdlib.h>
#include <string.h>

#define PTR CYAML_FLAG_POINTER
#define OPT (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define STR(type, member, flags)                                                                   \
    CYAML_FIELD_STRING_PTR(#member, (flags), struct type, member, 0, 4096)
#define STRS(type, member, flags, least, most)                                                     \
    CYAML_FIELD_SEQUENCE_COUNT(#member, (flags), struct type, member, n_##member,                  \
                               &conf_schema_string, (least), (most))
#define MOST          CONF_ADMIN_LIST_MAX
#define ID_MAX        1024
#define LEEWAY_MAX_S  300
#define TOKEN_LEAST_S 60

static const cyaml_schema_field_t oidc_fields[] = {
    STR(conf_admin_oidc, issuer, PTR),
    STR(conf_admin_oidc, audience, PTR),
    STRS(conf_admin_oidc, algs, OPT, 1, 3),
    STR(conf_admin_oidc, jwks_file, OPT),
    STR(conf_admin_oidc, ca_file, OPT),
    STRS(conf_admin_oidc, claims, OPT, 0, MOST),
    STR(conf_admin_oidc, leeway, OPT),
    STR(conf_admin_oidc, max_lifetime, OPT),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t oidc_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_admin_oidc, oidc_fields),
};
static const cyaml_schema_field_t person_fields[] = {
    STR(conf_admin_person, name, PTR),
    STRS(conf_admin_person, ids, PTR, 1, MOST),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t person_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_admin_person, person_fields),
};
static const cyaml_schema_field_t binding_fields[] = {
    STRS(conf_admin_binding, principals, PTR, 1, MOST),
    STRS(conf_admin_binding, roles, PTR, 1, 5),
    STRS(conf_admin_binding, paths, OPT, 1, MOST),
    STRS(conf_admin_binding, labels, OPT, 1, MOST),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t binding_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_admin_binding, binding_fields),
};
const cyaml_schema_field_t conf_admin_fields[] = {
    STR(conf_admin, listen, OPT),
    CYAML_FIELD_BOOL_PTR("four_eyes", OPT, struct conf_admin, four_eyes_set),
    CYAML_FIELD_BOOL_PTR("agents", OPT, struct conf_admin, agents_set),
    STR(conf_admin, client_ca_file, OPT),
    STR(conf_admin, client_crl_file, OPT),
    STR(conf_admin, proposal_lifetime, OPT),
    CYAML_FIELD_SEQUENCE_COUNT("oidc", OPT, struct conf_admin, oidc, n_oidc, &oidc_entry, 0, MOST),
    CYAML_FIELD_SEQUENCE_COUNT("people", OPT, struct conf_admin, people, n_people, &person_entry, 0,
                               CONF_DENY_MAX),
    CYAML_FIELD_SEQUENCE_COUNT("bindings", OPT, struct conf_admin, bindings, n_bindings,
                               &binding_entry, 0, CONF_DENY_MAX),
    CYAML_FIELD_END,
};

static const char *const role_names[] = {"registrar",   "approver", "revoker",
                                         "ca-operator", "auditor",  NULL};

const char *conf_admin_role_name(enum conf_admin_role role)
{
    for (unsigned i = 0; role_names[i]; i++) {
        if ((unsigned)role == 1U << i) {
            return role_names[i];
        }
    }
    return NULL;
}

bool conf_admin_defaults(struct conf_issuer *conf)
{
    struct conf_admin *admin = conf->admin;
    if (!admin) {
        return true;
    }
    admin->four_eyes = !admin->four_eyes_set || *admin->four_eyes_set;
    admin->agents = admin->agents_set && *admin->agents_set;
    bool ok = conf_default(&admin->proposal_lifetime, "7d");
    for (unsigned i = 0; ok && i < admin->n_oidc; i++) {
        ok = conf_default(&admin->oidc[i].leeway, "60s") &&
             conf_default(&admin->oidc[i].max_lifetime, "24h");
    }
    return ok;
}

/* ---- ids and patterns ------------------------------------------------------------------------ */

bool conf_admin_pattern_fits(const char *pattern, const char *text)
{
    size_t len = strlen(pattern);
    return len && pattern[len - 1] == '*' ? strncmp(pattern, text, len - 1) == 0
                                          : strcmp(pattern, text) == 0;
}

const char *conf_admin_person(const struct conf_admin *admin, const char *id)
{
    for (unsigned i = 0; admin && i < admin->n_people; i++) {
        for (unsigned k = 0; k < admin->people[i].n_ids; k++) {
            if (strcmp(admin->people[i].ids[k], id) == 0) {
                return admin->people[i].name;
            }
        }
    }
    return NULL;
}

bool conf_admin_binds(const struct conf_admin *admin, const struct conf_admin_binding *binding,
                      const char *id)
{
    static const char word[] = "person:";
    const char *person = conf_admin_person(admin, id);
    for (unsigned i = 0; i < binding->n_principals; i++) {
        const char *pattern = binding->principals[i];
        bool named = strncmp(pattern, word, sizeof word - 1) == 0;
        if (named ? person && strcmp(pattern + sizeof word - 1, person) == 0
                  : conf_admin_pattern_fits(pattern, id)) {
            return true;
        }
    }
    return false;
}

/* "spiffe://" + a trust domain + "/" + something, before a "*" where one may end it. */
static bool spiffe_ok(const char *text)
{
    const char *rest = strncmp(text, "spiffe://", 9) == 0 ? text + 9 : NULL;
    const char *slash = rest ? strchr(rest, '/') : NULL;
    return slash && slash > rest && slash[1] &&
           strspn(rest, "abcdefghijklmnopqrstuvwxyz0123456789.-_") == (size_t)(slash - rest);
}

/* "oidc:ISSUER#SUB" with an issuer that is configured. */
static bool oidc_ok(const struct conf_admin *admin, const char *text)
{
    const char *rest = text + 5, *hash = strchr(rest, '#');
    size_t len = hash ? (size_t)(hash - rest) : 0;
    for (unsigned i = 0; hash && hash[1] && i < admin->n_oidc; i++) {
        if (strlen(admin->oidc[i].issuer) == len &&
            strncmp(admin->oidc[i].issuer, rest, len) == 0) {
            return true;
        }
    }
    return false;
}

static bool uid_ok(const char *text)
{
    size_t len = strlen(text + 4);
    return len > 0 && len < 10 && strspn(text + 4, "0123456789") == len &&
           (len == 1 || text[4] != '0');
}

/* The star is for the end, and never of what says whose names they are. */
static bool star_ok(const char *text)
{
    const char *star = strchr(text, '*');
    return !star || (!star[1] && strncmp(text, "x509:", 5) != 0);
}

static void check_id(struct conf_check *check, const char *path, const struct conf_admin *admin,
                     const char *text, bool pattern)
{
    bool form = strncmp(text, "spiffe://", 9) == 0 ? spiffe_ok(text)
                : strncmp(text, "oidc:", 5) == 0   ? oidc_ok(admin, text)
                : strncmp(text, "x509:", 5) == 0   ? text[5] != 0
                : strncmp(text, "uid:", 4) == 0    ? !pattern && uid_ok(text)
                                                   : false;
    bool star = pattern ? star_ok(text) : true;
    if (!form || !star || strlen(text) > ID_MAX) {
        conf_bad(check, path,
                 "expected spiffe://…, x509:SUBJECT, oidc:ISSUER#SUB of an issuer in oidc%s, "
                 "found \"%.80s\"",
                 pattern ? ", or person:NAME" : ", or uid:N", text);
    }
}

/* ---- sections -------------------------------------------------------------------------------- */

static void check_oidc(struct conf_check *check, struct conf_admin *admin, unsigned i)
{
    static const char *const algs[] = {"ES256", "RS256", "PS256", NULL};
    struct conf_admin_oidc *o = &admin->oidc[i];
    struct conf_path at = conf_path("admin.oidc[%u].issuer", i);
    if (conf_check_url(check, at.text, o->issuer) && strpbrk(o->issuer, "#?*")) {
        conf_bad(check, at.text, "expected an address without query, fragment and \"*\"");
    }
    for (unsigned k = 0; k < i; k++) {
        if (strcmp(admin->oidc[k].issuer, o->issuer) == 0) {
            conf_bad(check, at.text, "issuer \"%.80s\" stands there twice", o->issuer);
        }
    }
    (void)conf_check_text(check, conf_path("admin.oidc[%u].audience", i).text, o->audience, 255);
    (void)conf_check_words(check, conf_path("admin.oidc[%u].algs", i).text, o->algs, o->n_algs,
                           algs);
    if ((o->jwks_file == NULL) == (o->ca_file == NULL)) {
        conf_bad(check, conf_path("admin.oidc[%u]", i).text,
                 "expected exactly one of jwks_file (keys) and ca_file (roots of the server that "
                 "has them)");
    }
    (void)conf_check_path(check, conf_path("admin.oidc[%u].jwks_file", i).text, o->jwks_file);
    (void)conf_check_path(check, conf_path("admin.oidc[%u].ca_file", i).text, o->ca_file);
    for (unsigned k = 0; k < o->n_claims; k++) {
        const char *equals = strchr(o->claims[k], '=');
        if (!equals || equals == o->claims[k] || !equals[1]) {
            conf_bad(check, conf_path("admin.oidc[%u].claims[%u]", i, k).text,
                     "expected NAME=VALUE, found \"%.80s\"", o->claims[k]);
        }
    }
    at = conf_path("admin.oidc[%u].leeway", i);
    if (conf_check_duration(check, at.text, o->leeway, 0, &o->leeway_s) &&
        o->leeway_s > LEEWAY_MAX_S) {
        conf_bad(check, at.text, "expected at most 300s, found \"%.40s\"", o->leeway);
    }
    (void)conf_check_duration(check, conf_path("admin.oidc[%u].max_lifetime", i).text,
                              o->max_lifetime, TOKEN_LEAST_S, &o->max_lifetime_s);
}

static void check_person(struct conf_check *check, const struct conf_admin *admin, unsigned i)
{
    const struct conf_admin_person *p = &admin->people[i];
    (void)conf_check_name(check, conf_path("admin.people[%u].name", i).text, p->name);
    for (unsigned k = 0; k < i; k++) {
        if (strcmp(admin->people[k].name, p->name) == 0) {
            conf_bad(check, conf_path("admin.people[%u].name", i).text,
                     "\"%.64s\" stands there twice", p->name);
        }
    }
    for (unsigned k = 0; k < p->n_ids; k++) {
        struct conf_path at = conf_path("admin.people[%u].ids[%u]", i, k);
        check_id(check, at.text, admin, p->ids[k], false);
        const char *first = conf_admin_person(admin, p->ids[k]);
        if (first && strcmp(first, p->name) != 0) {
            conf_bad(check, at.text, "\"%.80s\" is %.64s's already", p->ids[k], first);
        }
    }
}

static bool is_person(const struct conf_admin *admin, const char *name)
{
    for (unsigned i = 0; i < admin->n_people; i++) {
        if (strcmp(admin->people[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static void check_scope(struct conf_check *check, const struct conf_issuer *conf,
                        const struct conf_admin_binding *b, unsigned i)
{
    size_t td = strlen(conf->trust_domain);
    for (unsigned k = 0; k < b->n_paths; k++) {
        const char *p = b->paths[k];
        bool ok = strncmp(p, "spiffe://", 9) == 0 && strncmp(p + 9, conf->trust_domain, td) == 0 &&
                  strncmp(p + 9 + td, "/agent/", 7) == 0 && p[16 + td] && star_ok(p);
        if (!ok) {
            conf_bad(check, conf_path("admin.bindings[%u].paths[%u]", i, k).text,
                     "expected spiffe://%.80s/agent/NAME, or the beginning of one and \"*\", found "
                     "\"%.80s\"",
                     conf->trust_domain, p);
        }
    }
    for (unsigned k = 0; k < b->n_labels; k++) {
        const char *equals = strchr(b->labels[k], '=');
        if (!equals || equals == b->labels[k] || !equals[1]) {
            conf_bad(check, conf_path("admin.bindings[%u].labels[%u]", i, k).text,
                     "expected KEY=VALUE, found \"%.80s\"", b->labels[k]);
        }
    }
    if (b->n_paths && b->n_labels > 1) {
        conf_bad(check, conf_path("admin.bindings[%u].labels", i).text,
                 "beside paths expected one label: an agent's selector names one");
    }
}

static void check_binding(struct conf_check *check, const struct conf_issuer *conf, unsigned i)
{
    const struct conf_admin *admin = conf->admin;
    struct conf_admin_binding *b = &conf->admin->bindings[i];
    for (unsigned k = 0; k < b->n_principals; k++) {
        struct conf_path at = conf_path("admin.bindings[%u].principals[%u]", i, k);
        if (strncmp(b->principals[k], "person:", 7) != 0) {
            check_id(check, at.text, admin, b->principals[k], true);
        } else if (!is_person(admin, b->principals[k] + 7)) {
            conf_bad(check, at.text, "there is no \"%.64s\" in admin.people", b->principals[k] + 7);
        }
    }
    if (conf_check_words(check, conf_path("admin.bindings[%u].roles", i).text, b->roles, b->n_roles,
                         role_names)) {
        for (unsigned k = 0; k < b->n_roles; k++) {
            for (unsigned r = 0; role_names[r]; r++) {
                b->role_set |= strcmp(role_names[r], b->roles[k]) == 0 ? 1U << r : 0;
            }
        }
    }
    check_scope(check, conf, b, i);
}

static void check_clients(struct conf_check *check, struct conf_admin *admin)
{
    (void)conf_check_path(check, "admin.client_ca_file", admin->client_ca_file);
    admin->no_crl = admin->client_crl_file && strcmp(admin->client_crl_file, "none") == 0;
    if (!admin->no_crl) {
        (void)conf_check_path(check, "admin.client_crl_file", admin->client_crl_file);
    }
    if ((admin->client_ca_file == NULL) != (admin->client_crl_file == NULL)) {
        conf_bad(check, "admin",
                 "client_ca_file and client_crl_file belong together; client_crl_file: none where "
                 "that CA has no list");
    }
    if (admin->listen && !admin->client_ca_file && !admin->agents && !admin->n_oidc) {
        conf_bad(check, "admin.listen",
                 "nobody could use it: expected client_ca_file, agents: true or oidc");
    }
}

void conf_admin_check(struct conf_check *check, struct conf_issuer *conf)
{
    struct conf_admin *admin = conf->admin;
    if (!admin) {
        return;
    }
    if (admin->listen) {
        conf_check_listen(check, "admin.listen", admin->listen, admin->listen_host,
                          &admin->listen_port);
    }
    check_clients(check, admin);
    (void)conf_check_duration(check, "admin.proposal_lifetime", admin->proposal_lifetime, 60,
                              &admin->proposal_lifetime_s);
    for (unsigned i = 0; i < admin->n_oidc; i++) {
        check_oidc(check, admin, i);
    }
    for (unsigned i = 0; i < admin->n_people; i++) {
        check_person(check, admin, i);
    }
    for (unsigned i = 0; i < admin->n_bindings; i++) {
        check_binding(check, conf, i);
    }
}
