#include "attestd/conf/exchange.h"

#include "attestd/conf/check.h"
#include "attestd/conf/load.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JWT_TYPE "urn:ietf:params:oauth:token-type:jwt"

static const char *const grants[] = {"token-exchange",     "jwt-bearer",         "client-assertion",
                                     "client-credentials", "aws-roles-anywhere", NULL};
static const char *const auths[] = {"none", "tls", NULL};
static const char *const bounds[] = {"required", "unchecked", NULL};
static const char *const bodies[] = {"form", "json", NULL};
/* What the grant sets: a profile that could name these could send the token elsewhere in the
 * request, or a secret. */
static const char *const reserved[] = {
    "grant_type",    "subject_token",         "subject_token_type", "assertion", "client_id",
    "client_secret", "client_assertion_type", "client_assertion",   NULL};

/* The scalars of a profile. */
struct words {
    const char *endpoint, *grant, *audience, *body, *client_id, *client_auth, *bound,
        *introspection, *subject_token_type, *token, *lifetime, *timeout, *ca_file,
        *trust_anchor_arn, *profile_arn, *role_arn, *region, *session_duration, *session_name;
};
/* Which grants know a key, and which want it. */
#define JWT_GRANTS                                                                                 \
    (1U << CONF_GRANT_TOKEN_EXCHANGE | 1U << CONF_GRANT_JWT_BEARER |                               \
     1U << CONF_GRANT_CLIENT_ASSERTION)
#define OAUTH      (JWT_GRANTS | 1U << CONF_GRANT_CLIENT_CREDENTIALS)
#define AWS        (1U << CONF_GRANT_AWS_ROLES_ANYWHERE)
#define ALL        (OAUTH | AWS)
#define AT(member) #member, offsetof(struct words, member)
static const struct {
    const char *key;
    size_t at;
    unsigned known_by, wanted_by;
} known[] = {
    {AT(endpoint), ALL, ALL},
    {AT(grant), ALL, ALL},
    {AT(audience), JWT_GRANTS, JWT_GRANTS},
    {AT(body), OAUTH, 0},
    {AT(client_id), OAUTH, 0},
    {AT(client_auth), OAUTH, 0},
    {AT(bound), OAUTH, 0},
    {AT(introspection), OAUTH, 0},
    {AT(subject_token_type), 1U << CONF_GRANT_TOKEN_EXCHANGE, 0},
    {AT(token), OAUTH, 0},
    {AT(lifetime), OAUTH, 0},
    {AT(timeout), ALL, 0},
    {AT(ca_file), ALL, 0},
    {AT(trust_anchor_arn), AWS, AWS},
    {AT(profile_arn), AWS, AWS},
    {AT(role_arn), AWS, AWS},
    {AT(region), AWS, AWS},
    {AT(session_duration), AWS, 0},
    {AT(session_name), AWS, 0},
};
#define KNOWN (sizeof known / sizeof known[0])

void conf_exchange_free(struct conf_exchange *x)
{
    if (!x) {
        return;
    }
    char *all[] = {x->endpoint,   x->audience,        x->client_id,     x->subject_token_type,
                   x->token,      x->ca_file,         x->introspection, x->aws.trust_anchor_arn,
                   x->aws.region, x->aws.profile_arn, x->aws.role_arn,  x->aws.session_name};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        free(all[i]);
    }
    for (size_t i = 0; i < x->n_fields; i++) {
        free(x->fields[i].name);
        free(x->fields[i].value);
    }
    free(x);
}

/* ---- form ---- */

static bool is_reserved(const char *name)
{
    size_t i = 0;
    while (reserved[i] && strcmp(reserved[i], name) != 0) {
        i++;
    }
    return reserved[i];
}

static void take_scalar(struct conf_check *check, const struct conf_node *node, struct words *words)
{
    for (size_t i = 0; i < KNOWN; i++) {
        if (strcmp(node->key, known[i].key) == 0) {
            if (node->kind != CONF_SCALAR) {
                conf_bad(check, node->key, "expected text, found a %s", conf_kind_name(node->kind));
                return;
            }
            const char **at = (const char **)(void *)((char *)words + known[i].at);
            *at = node->text;
            return;
        }
    }
    conf_bad(check, node->key,
             "unknown key, expected one of: endpoint, grant, audience, body, client_id, "
             "client_auth, bound, introspection, subject_token_type, fields, token, lifetime, "
             "timeout, ca_file, trust_anchor_arn, profile_arn, role_arn, region, "
             "session_duration, session_name");
}

static void take_fields(struct conf_check *check, const struct conf_node *fields,
                        struct conf_exchange *x)
{
    if (fields->kind != CONF_MAPPING || fields->n > CONF_EXCHANGE_FIELDS_MAX) {
        conf_bad(check, "fields", "expected a mapping of at most %d names",
                 CONF_EXCHANGE_FIELDS_MAX);
        return;
    }
    for (const struct conf_node *f = fields->first; f; f = f->next) {
        struct conf_path path = conf_path("fields.%.60s", f->key);
        if (f->kind != CONF_SCALAR) {
            conf_bad(check, path.text, "expected text, found a %s", conf_kind_name(f->kind));
        } else if (is_reserved(f->key)) {
            conf_bad(check, path.text, "the grant sets this, a profile does not");
        } else if (conf_check_text(check, path.text, f->key, 64) &&
                   conf_check_text(check, path.text, f->text, CONF_EXCHANGE_TEXT_MAX)) {
            struct conf_exchange_field *to = &x->fields[x->n_fields++];
            to->name = strdup(f->key);
            to->value = strdup(f->text);
        }
    }
}

/* ---- values ---- */

static int word_index(const char *text, const char *const *words)
{
    for (int i = 0; words[i]; i++) {
        if (strcmp(words[i], text) == 0) {
            return i;
        }
    }
    return 0;
}

static void check_text(struct conf_check *check, const char *path, const char *text)
{
    if (text) {
        (void)conf_check_text(check, path, text, CONF_EXCHANGE_TEXT_MAX);
    }
}

/* No empty name in the path, so that "a..b" is not read as something else. */
static void check_token(struct conf_check *check, const char *text)
{
    size_t len = text ? strlen(text) : 0;
    if (text && (len == 0 || len > 128 || text[0] == '.' || text[len - 1] == '.' ||
                 strstr(text, "..") || !conf_check_text(check, "token", text, 128))) {
        conf_bad(check, "token", "expected the path of a member, a or a.b, found \"%.80s\"", text);
    }
}

/* Known before all else: it says which keys there are. */
static bool take_grant(struct conf_check *check, const struct words *w, struct conf_exchange *x)
{
    if (!w->grant) {
        conf_bad(check, "grant", "required");
    }
    if (!w->grant || !conf_check_word(check, "grant", w->grant, grants)) {
        return false;
    }
    x->grant = (enum conf_grant)word_index(w->grant, grants);
    return true;
}

static void check_keys(struct conf_check *check, const struct words *w,
                       const struct conf_exchange *x)
{
    unsigned grant = 1U << x->grant;
    for (size_t i = 0; i < KNOWN; i++) {
        const char *const *at = (const char *const *)(const void *)((const char *)w + known[i].at);
        if (*at && !(known[i].known_by & grant)) {
            conf_bad(check, known[i].key, "does not belong to the grant %s", grants[x->grant]);
        } else if (!*at && (known[i].wanted_by & grant)) {
            conf_bad(check, known[i].key, "required");
        }
    }
    if (x->n_fields && !(grant & OAUTH)) {
        conf_bad(check, "fields", "does not belong to the grant %s", grants[x->grant]);
    }
}

/* How the client shows who it is, and whether the token must be bound to that. */
static void check_client(struct conf_check *check, const struct words *w, struct conf_exchange *x)
{
    if (w->client_auth && conf_check_word(check, "client_auth", w->client_auth, auths)) {
        x->client_tls = word_index(w->client_auth, auths) == 1;
    }
    x->bound_required = x->client_tls;
    if (w->bound && conf_check_word(check, "bound", w->bound, bounds)) {
        x->bound_required = x->client_tls && word_index(w->bound, bounds) == 0;
    }
    if (x->grant == CONF_GRANT_CLIENT_ASSERTION && !w->client_id) {
        conf_bad(check, "client_id", "required by the grant client-assertion");
    } else if (x->client_tls && !w->client_id) {
        conf_bad(check, "client_id", "required by client_auth: tls (RFC 8705)");
    }
    if (x->grant == CONF_GRANT_CLIENT_CREDENTIALS && !x->client_tls) {
        conf_bad(check, "client_auth", "the grant client-credentials requires tls");
    }
    if (!x->client_tls && (w->bound || w->introspection)) {
        conf_bad(check, w->bound ? "bound" : "introspection", "belongs to client_auth: tls only");
    } else if (!x->bound_required && w->introspection) {
        conf_bad(check, "introspection", "belongs to bound: required only");
    }
    (void)conf_check_url(check, "introspection", w->introspection);
}

#define LOWER   "abcdefghijklmnopqrstuvwxyz"
#define LETTERS LOWER "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

/* arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE, of this service. */
static void check_arn(struct conf_check *check, const char *key, const char *text,
                      const char *service, const char *resource)
{
    char middle[40], end[40];
    snprintf(middle, sizeof middle, ":%s:", service);
    snprintf(end, sizeof end, ":%s/", resource);
    const char *at = text ? strstr(text, middle) : NULL;
    const char *to = at ? strstr(at, end) : NULL;
    if (text && (strlen(text) > 1011 || strncmp(text, "arn:aws", 7) != 0 || !to ||
                 !to[strlen(end)] || strspn(text, LETTERS ":/_+=,.@-") != strlen(text))) {
        conf_bad(check, key, "expected arn:aws:%s:…:%s/…, found \"%.100s\"", service, resource,
                 text);
    }
}

static void check_aws(struct conf_check *check, const struct words *w, struct conf_exchange *x)
{
    size_t name = w->session_name ? strlen(w->session_name) : 2;
    const char *path = w->endpoint ? strstr(w->endpoint + strcspn(w->endpoint, "."), "/") : NULL;
    check_arn(check, "trust_anchor_arn", w->trust_anchor_arn, "rolesanywhere", "trust-anchor");
    check_arn(check, "profile_arn", w->profile_arn, "rolesanywhere", "profile");
    check_arn(check, "role_arn", w->role_arn, "iam", "role");
    if (w->region && (strspn(w->region, LOWER "0123456789-") != strlen(w->region) ||
                      strlen(w->region) < 2 || strlen(w->region) > 32)) {
        conf_bad(check, "region", "expected a region such as eu-central-1, found \"%.40s\"",
                 w->region);
    }
    if (name < 2 || name > 64 ||
        (w->session_name && strspn(w->session_name, LETTERS "_=,.@-") != name)) {
        conf_bad(check, "session_name", "expected 2 to 64 of [A-Za-z0-9_=,.@-], found \"%.80s\"",
                 w->session_name);
    }
    if (path && (strstr(path, "/./") || strstr(path, "/../"))) {
        conf_bad(check, "endpoint", "expected a path without . and ..");
    }
    if (w->session_duration &&
        conf_check_duration(check, "session_duration", w->session_duration, 1,
                            &x->aws.duration_s) &&
        (x->aws.duration_s < 900 || x->aws.duration_s > 43200)) {
        conf_bad(check, "session_duration", "expected 15m to 12h, found \"%.40s\"",
                 w->session_duration);
    }
}

static void check_times(struct conf_check *check, const struct words *w, struct conf_exchange *x)
{
    if (w->lifetime) {
        (void)conf_check_duration(check, "lifetime", w->lifetime, 1, &x->lifetime_s);
    }
    if (w->timeout && conf_check_duration(check, "timeout", w->timeout, 1, &x->timeout_s) &&
        x->timeout_s > 60) {
        conf_bad(check, "timeout", "expected 1s to 60s, found \"%.40s\"", w->timeout);
    }
}

static void check_values(struct conf_check *check, const struct words *w, struct conf_exchange *x)
{
    bool granted = take_grant(check, w, x);
    if (granted) {
        check_keys(check, w, x);
    }
    if (granted && x->grant != CONF_GRANT_AWS_ROLES_ANYWHERE) {
        check_client(check, w, x);
    }
    (void)conf_check_url(check, "endpoint", w->endpoint);
    check_text(check, "audience", w->audience);
    check_text(check, "client_id", w->client_id);
    check_text(check, "subject_token_type", w->subject_token_type);
    check_token(check, w->token);
    if (w->body && conf_check_word(check, "body", w->body, bodies)) {
        x->json = word_index(w->body, bodies) == 1;
    }
    if (w->ca_file) {
        (void)conf_check_path(check, "ca_file", w->ca_file);
    }
    check_times(check, w, x);
    if (granted && x->grant == CONF_GRANT_AWS_ROLES_ANYWHERE) {
        check_aws(check, w, x);
    }
}

static bool copy(const char *text, const char *fallback, char **ret)
{
    const char *from = text ? text : fallback;
    *ret = from ? strdup(from) : NULL;
    return *ret || !from;
}

static enum att_rc keep(const struct words *w, struct conf_exchange *x, struct att_err *err)
{
    const char *type = x->grant == CONF_GRANT_TOKEN_EXCHANGE ? JWT_TYPE : NULL;
    bool good = copy(w->endpoint, NULL, &x->endpoint) && copy(w->audience, NULL, &x->audience) &&
                copy(w->client_id, NULL, &x->client_id) &&
                copy(w->subject_token_type, type, &x->subject_token_type) &&
                copy(w->token, "access_token", &x->token) &&
                copy(w->ca_file, CONF_EXCHANGE_ROOTS, &x->ca_file) &&
                copy(w->introspection, NULL, &x->introspection) &&
                copy(w->trust_anchor_arn, NULL, &x->aws.trust_anchor_arn) &&
                copy(w->profile_arn, NULL, &x->aws.profile_arn) &&
                copy(w->role_arn, NULL, &x->aws.role_arn) &&
                copy(w->region, NULL, &x->aws.region) &&
                copy(w->session_name, NULL, &x->aws.session_name);
    for (size_t i = 0; i < x->n_fields; i++) {
        good = good && x->fields[i].name && x->fields[i].value;
    }
    return good ? ATT_OK : att_fail(err, ATT_E_NOMEM, "exchange profile");
}

static void read_tree(const struct conf_node *root, struct conf_errors *errors, struct words *words,
                      struct conf_exchange *x)
{
    struct conf_check check = {errors, root};
    if (root->kind != CONF_MAPPING) {
        conf_error_add(errors, root->line, "", "expected a mapping");
        return;
    }
    for (const struct conf_node *node = root->first; node; node = node->next) {
        if (strcmp(node->key, "fields") == 0) {
            take_fields(&check, node, x);
        } else {
            take_scalar(&check, node, words);
        }
    }
    check_values(&check, words, x);
}

static enum att_rc parse(struct att_slice yaml, void **ret, struct conf_errors *errors,
                         struct att_err *err)
{
    struct words words = {0};
    struct conf_exchange *x = calloc(1, sizeof *x);
    if (!x) {
        return att_fail(err, ATT_E_NOMEM, "exchange profile");
    }
    x->lifetime_s = 300;
    x->timeout_s = 10;
    struct conf_node *root = conf_tree_parse(yaml, errors);
    if (root) {
        read_tree(root, errors, &words, x);
    }
    enum att_rc rc = conf_errors_rc(errors, err);
    rc = rc ? rc : keep(&words, x, err);
    conf_tree_free(root);
    if (rc != ATT_OK) {
        conf_exchange_free(x);
        return rc;
    }
    *ret = x;
    return ATT_OK;
}

static enum att_rc give(enum att_rc rc, void *made, struct conf_exchange **ret_exchange)
{
    if (rc == ATT_OK) {
        *ret_exchange = made;
    }
    return rc;
}

enum att_rc conf_exchange_parse(struct att_slice yaml, struct conf_exchange **ret_exchange,
                                struct conf_errors *errors, struct att_err *err)
{
    void *made = NULL;
    enum att_rc rc = conf_parse_with(parse, yaml, &made, errors, err);
    return give(rc, made, ret_exchange);
}

enum att_rc conf_exchange_load(const char *path, struct conf_exchange **ret_exchange,
                               struct conf_errors *errors, struct att_err *err)
{
    void *made = NULL;
    enum att_rc rc = conf_load_with(parse, path, &made, errors, err);
    return give(rc, made, ret_exchange);
}
