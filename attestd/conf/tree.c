#include "attestd/conf/tree.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

static void error_addv(struct conf_errors *errors, int line, const char *field, const char *fmt,
                       va_list args) ATT_PRINTF(4, 0);

/* What was found, and the name of a key, may hold anything; a terminal or a log is where it goes.
 */
static void clean(char *text)
{
    for (char *c = text; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) {
            *c = '?';
        }
    }
}

static void error_addv(struct conf_errors *errors, int line, const char *field, const char *fmt,
                       va_list args)
{
    if (errors->n == CONF_ERRORS_MAX) {
        errors->dropped++;
        return;
    }
    struct conf_error *e = &errors->v[errors->n++];
    e->line = line;
    snprintf(e->field, sizeof e->field, "%s", field);
    (void)vsnprintf(e->text, sizeof e->text, fmt, args);
    clean(e->field);
    clean(e->text);
}

void conf_error_add(struct conf_errors *errors, int line, const char *field, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    error_addv(errors, line, field, fmt, args);
    va_end(args);
}

void conf_error_at(struct conf_errors *errors, const struct conf_node *root, const char *path,
                   const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    error_addv(errors, conf_tree_line(root, path), path, fmt, args);
    va_end(args);
}

void conf_error_text(const struct conf_error *error, const char *file, struct att_buf *ret_text)
{
    att_buf_printf(ret_text, "%s:", file);
    if (error->line > 0) {
        att_buf_printf(ret_text, "%d:", error->line);
    }
    if (*error->field) {
        att_buf_printf(ret_text, " %s:", error->field);
    }
    att_buf_printf(ret_text, " %s", error->text);
}

enum att_rc conf_errors_rc(const struct conf_errors *errors, struct att_err *err)
{
    if (errors->n == 0) {
        return ATT_OK;
    }
    const struct conf_error *e = &errors->v[0];
    size_t more = errors->n + errors->dropped - 1;
    char rest[40] = "";
    if (more) {
        snprintf(rest, sizeof rest, " (and %zu more)", more);
    }
    return att_fail(err, ATT_E_PARSE, "line %d: %s%s%s%s", e->line, e->field, *e->field ? ": " : "",
                    e->text, rest);
}

const char *conf_kind_name(enum conf_kind kind)
{
    return kind == CONF_SCALAR ? "one value" : kind == CONF_SEQUENCE ? "a list" : "a mapping";
}

void conf_tree_free(struct conf_node *node)
{
    while (node) {
        struct conf_node *next = node->next;
        conf_tree_free(node->first); /* as deep as CONF_TREE_DEPTH_MAX */
        free(node->key);
        free(node->text);
        free(node);
        node = next;
    }
}

const struct conf_node *conf_tree_get(const struct conf_node *mapping, const char *key)
{
    for (const struct conf_node *kid = mapping && mapping->kind == CONF_MAPPING ? mapping->first
                                                                                : NULL;
         kid; kid = kid->next) {
        if (strcmp(kid->key, key) == 0) {
            return kid;
        }
    }
    return NULL;
}

static const struct conf_node *child_at(const struct conf_node *seq, unsigned long at)
{
    if (seq->kind != CONF_SEQUENCE) {
        return at == 0 ? seq : NULL; /* one given in place of a list of one */
    }
    const struct conf_node *kid = seq->first;
    while (kid && at--) {
        kid = kid->next;
    }
    return kid;
}

int conf_tree_line(const struct conf_node *root, const char *path)
{
    const struct conf_node *node = root;
    int line = root ? root->line : 0;
    while (node && *path) {
        if (*path == '[') {
            char *end = NULL;
            node = child_at(node, strtoul(path + 1, &end, 10));
            path = *end == ']' ? end + 1 : end;
        } else {
            char key[CONF_PATH_MAX];
            path += *path == '.';
            size_t len = strcspn(path, ".[");
            snprintf(key, sizeof key, "%.*s", (int)len, path);
            node = conf_tree_get(node, key);
            path += len;
            if (len == 0) {
                break;
            }
        }
        line = node ? node->line : line;
    }
    return line;
}

/* ---- reading ---- */

struct reader {
    yaml_parser_t parser;
    struct conf_errors *errors;
    struct conf_node *root;
    struct conf_node *open[CONF_TREE_DEPTH_MAX]; /* the containers around the next event */
    size_t depth, nodes;
    char *key; /* read, its value still to come */
    bool done; /* one whole document was read */
};

static int line_of(const yaml_event_t *event)
{
    return (int)event->start_mark.line + 1;
}

static bool bad(struct reader *r, const yaml_event_t *event, const char *what)
{
    conf_error_add(r->errors, line_of(event), "", "%s", what);
    return false;
}

static struct conf_node *add_node(struct reader *r, const yaml_event_t *event, enum conf_kind kind)
{
    struct conf_node *node = ++r->nodes > CONF_TREE_NODES_MAX ? NULL : calloc(1, sizeof *node);
    if (!node) {
        (void)bad(r, event, "too many values");
        return NULL;
    }
    node->kind = kind;
    node->line = line_of(event);
    node->key = r->key;
    r->key = NULL;
    if (r->depth == 0) {
        r->root = node;
        return node;
    }
    struct conf_node *parent = r->open[r->depth - 1];
    if (parent->last) {
        parent->last->next = node;
    } else {
        parent->first = node;
    }
    parent->last = node;
    parent->n++;
    return node;
}

static bool take_key(struct reader *r, const yaml_event_t *event)
{
    struct conf_node *parent = r->open[r->depth - 1];
    const char *key = (const char *)event->data.scalar.value;
    if (parent->n >= CONF_TREE_KEYS_MAX) {
        return bad(r, event, "too many keys in one mapping");
    }
    if (conf_tree_get(parent, key)) {
        conf_error_add(r->errors, line_of(event), key, "this key stands here twice");
        return false;
    }
    r->key = strdup(key);
    return r->key || bad(r, event, "out of memory");
}

static bool take_scalar(struct reader *r, const yaml_event_t *event)
{
    const char *text = (const char *)event->data.scalar.value;
    if (event->data.scalar.anchor || event->data.scalar.tag) {
        return bad(r, event, "expected no anchor (&) and no tag (!)");
    }
    if (strlen(text) != event->data.scalar.length) {
        return bad(r, event, "a NUL byte in a value");
    }
    if (r->depth && r->open[r->depth - 1]->kind == CONF_MAPPING && !r->key) {
        return take_key(r, event);
    }
    struct conf_node *node = add_node(r, event, CONF_SCALAR);
    if (!node) {
        return false;
    }
    node->plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    node->text = strdup(text);
    return node->text || bad(r, event, "out of memory");
}

static bool take_start(struct reader *r, const yaml_event_t *event, enum conf_kind kind)
{
    bool map = kind == CONF_MAPPING;
    if (map ? event->data.mapping_start.anchor || event->data.mapping_start.tag
            : event->data.sequence_start.anchor || event->data.sequence_start.tag) {
        return bad(r, event, "expected no anchor (&) and no tag (!)");
    }
    if (r->depth && r->open[r->depth - 1]->kind == CONF_MAPPING && !r->key) {
        return bad(r, event, "expected a plain word as key");
    }
    if (r->depth == CONF_TREE_DEPTH_MAX) {
        return bad(r, event, "nested too deep");
    }
    struct conf_node *node = add_node(r, event, kind);
    if (node) {
        r->open[r->depth++] = node;
    }
    return node != NULL;
}

static bool take_event(struct reader *r, const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_DOCUMENT_START_EVENT:
        return !r->done || bad(r, event, "expected one YAML document");
    case YAML_DOCUMENT_END_EVENT:
        r->done = true;
        return true;
    case YAML_ALIAS_EVENT:
        return bad(r, event, "expected no alias (*)");
    case YAML_SCALAR_EVENT:
        return take_scalar(r, event);
    case YAML_SEQUENCE_START_EVENT:
        return take_start(r, event, CONF_SEQUENCE);
    case YAML_MAPPING_START_EVENT:
        return take_start(r, event, CONF_MAPPING);
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        r->depth--;
        return true;
    default:
        return true;
    }
}

static bool read_all(struct reader *r)
{
    for (bool more = true; more;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&r->parser, &event)) {
            int line = (int)(r->parser.problem_mark.line ? r->parser.problem_mark.line
                                                         : r->parser.context_mark.line) +
                       1;
            conf_error_add(r->errors, line, "", "not YAML: %s",
                           r->parser.problem ? r->parser.problem : "cannot be read");
            return false;
        }
        more = event.type != YAML_STREAM_END_EVENT;
        bool ok = take_event(r, &event);
        yaml_event_delete(&event);
        if (!ok) {
            return false;
        }
    }
    return true;
}

struct conf_node *conf_tree_parse(struct att_slice yaml, struct conf_errors *errors)
{
    struct reader r = {.errors = errors};
    if (yaml.len > CONF_FILE_MAX) {
        conf_error_add(errors, 0, "", "%zu bytes, at most %d are read", yaml.len, CONF_FILE_MAX);
        return NULL;
    }
    if (!yaml_parser_initialize(&r.parser)) {
        conf_error_add(errors, 0, "", "out of memory");
        return NULL;
    }
    yaml_parser_set_input_string(&r.parser, yaml.ptr ? yaml.ptr : (const uint8_t *)"", yaml.len);
    bool ok = read_all(&r);
    yaml_parser_delete(&r.parser);
    free(r.key);
    if (ok && !r.root) {
        conf_error_add(errors, 0, "", "the file is empty");
        ok = false;
    }
    if (!ok) {
        conf_tree_free(r.root);
        return NULL;
    }
    return r.root;
}
