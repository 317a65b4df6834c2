#include "attestd/conf/exchange.h"

#include "attestd/conf/check.h"
#include "attestd/conf/load.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define JWT_TYPE "urn:ietf:params:oauth:token-type:jwt"

static const char *const grants[] = {"token-exchange", "jwt-bearer", "client-assertion", NULL};
static const char *const bodies[] = {"form", "json", NULL};
/* What the grant sets: a profile that could name these could send the token elsewhere in the
 * request, or a secret. */
static const char *const reserved[] = {
    "grant_type",    "subject_token",         "subject_token_type", "assertion", "client_id",
    "client_secret", "client_assertion_type", "client_assertion",   NULL};

/* The scalars of a profile. */
struct words {
    const char *endpoint, *grant, *audience, *body, *client_id, *subject_token_type, *token,
        *lifetime, *timeout, *ca_file;
};
static const struct {
    const char *key;
    size_t at;
    bool required;
} known[] = {
    {"endpoint", offsetof(struct words, endpoint), true},
    {"grant", offsetof(struct words, grant), true},
    {"audience", offsetof(struct words, audience), true},
    {"body", offsetof(struct words, body), false},
    {"client_id", offsetof(struct words, client_id), false},
    {"subject_token_type", offsetof(struct words, subject_token_type), false},
    {"token", offsetof(struct words, token), false},
    {"lifetime", offsetof(struct words, lifetime), false},
    {"timeout", offsetof(struct words, timeout), false},
    {"ca_file", offsetof(struct words, ca_file), false},
};
#define KNOWN (sizeof known / sizeof known[0])

void conf_exchange_free(struct conf_exchange *x)
{
    if (!x) {
        return;
    }
    char *all[] = {x->endpoint,           x->audience, x->client_id,
                   x->subject_token_type, x->token,    x->ca_file};
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
             "subject_token_type, fields, token, lifetime, timeout, ca_file");
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

static void check_grant(struct conf_check *check, const struct words *w, struct conf_exchange *x)
{
    if (!w->grant || !conf_check_word(check, "grant", w->grant, grants)) {
        return;
    }
    x->grant = (enum conf_grant)word_index(w->grant, grants);
    if (x->grant == CONF_GRANT_CLIENT_ASSERTION && !w->client_id) {
        conf_bad(check, "client_id", "required by the grant client-assertion");
    }
    if (x->grant != CONF_GRANT_TOKEN_EXCHANGE && w->subject_token_type) {
        conf_bad(check, "subject_token_type", "belongs to the grant token-exchange only");
    }
}

static void check_values(struct conf_check *check, const struct words *w, struct conf_exchange *x)
{
    for (size_t i = 0; i < KNOWN; i++) {
        const char *const *at = (const char *const *)(const void *)((const char *)w + known[i].at);
        if (known[i].required && !*at) {
            conf_bad(check, known[i].key, "required");
        }
    }
    (void)conf_check_url(check, "endpoint", w->endpoint);
    check_grant(check, w, x);
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
    if (w->lifetime) {
        (void)conf_check_duration(check, "lifetime", w->lifetime, 1, &x->lifetime_s);
    }
    if (w->timeout && conf_check_duration(check, "timeout", w->timeout, 1, &x->timeout_s) &&
        x->timeout_s > 60) {
        conf_bad(check, "timeout", "expected 1s to 60s, found \"%.40s\"", w->timeout);
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
                copy(w->ca_file, CONF_EXCHANGE_ROOTS, &x->ca_file);
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
