#include "attestd/conf/schema.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STRING_MAX 4096

const cyaml_schema_value_t conf_schema_string = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 0, STRING_MAX),
};

struct walk {
    struct conf_errors *errors;
    char path[CONF_PATH_MAX];
};

static void walk_value(struct walk *w, const cyaml_schema_value_t *schema,
                       const struct conf_node *node);

/* Appends to the path; the returned length restores it. */
static size_t push(struct walk *w, const char *key, size_t index)
{
    size_t len = strlen(w->path);
    char *end = w->path + len;
    size_t room = sizeof w->path - len;
    if (key) {
        snprintf(end, room, "%s%s", len ? "." : "", key);
    } else {
        snprintf(end, room, "[%zu]", index);
    }
    return len;
}

static const cyaml_schema_field_t *field_of(const cyaml_schema_field_t *fields, const char *key)
{
    for (; fields->key; fields++) {
        if (strcmp(fields->key, key) == 0) {
            return fields;
        }
    }
    return NULL;
}

static void list_keys(const cyaml_schema_field_t *fields, char *ret, size_t room)
{
    size_t len = 0;
    *ret = 0;
    for (; fields->key && len < room; fields++) {
        int n = snprintf(ret + len, room - len, "%s%s", len ? ", " : "", fields->key);
        len += n > 0 ? (size_t)n : 0;
    }
}

static void walk_mapping(struct walk *w, const cyaml_schema_value_t *schema,
                         const struct conf_node *node)
{
    char keys[256];
    const cyaml_schema_field_t *fields = schema->mapping.fields;
    for (const struct conf_node *kid = node->first; kid; kid = kid->next) {
        const cyaml_schema_field_t *field = field_of(fields, kid->key);
        size_t mark = push(w, kid->key, 0);
        if (field) {
            walk_value(w, &field->value, kid);
        } else {
            list_keys(fields, keys, sizeof keys);
            conf_error_add(w->errors, kid->line, w->path, "unknown key, expected one of: %s", keys);
        }
        w->path[mark] = 0;
    }
    for (; fields->key; fields++) {
        if (!(fields->value.flags & CYAML_FLAG_OPTIONAL) && !conf_tree_get(node, fields->key)) {
            size_t mark = push(w, fields->key, 0);
            conf_error_add(w->errors, node->line, w->path, "required, found nothing");
            w->path[mark] = 0;
        }
    }
}

static void walk_sequence(struct walk *w, const cyaml_schema_value_t *schema,
                          const struct conf_node *node)
{
    size_t i = 0;
    if (node->n < schema->sequence.min || node->n > schema->sequence.max) {
        conf_error_add(w->errors, node->line, w->path, "expected a list of %u … %u, found %zu",
                       schema->sequence.min, schema->sequence.max, node->n);
        return;
    }
    for (const struct conf_node *kid = node->first; kid; kid = kid->next, i++) {
        size_t mark = push(w, NULL, i);
        walk_value(w, schema->sequence.entry, kid);
        w->path[mark] = 0;
    }
}

static void walk_scalar(struct walk *w, const cyaml_schema_value_t *schema,
                        const struct conf_node *node)
{
    size_t len = strlen(node->text);
    if (schema->type == CYAML_BOOL) {
        if (strcmp(node->text, "true") != 0 && strcmp(node->text, "false") != 0) {
            conf_error_add(w->errors, node->line, w->path,
                           "expected true or false, found \"%.60s\"", node->text);
        }
    } else if (schema->type == CYAML_UINT) {
        if (len == 0 || len > 9 || strspn(node->text, "0123456789") != len) {
            conf_error_add(w->errors, node->line, w->path,
                           "expected a whole number, found \"%.60s\"", node->text);
        }
    } else if (len > STRING_MAX) {
        conf_error_add(w->errors, node->line, w->path, "expected at most %d bytes, found %zu",
                       STRING_MAX, len);
    }
}

static void walk_value(struct walk *w, const cyaml_schema_value_t *schema,
                       const struct conf_node *node)
{
    enum conf_kind want = schema->type == CYAML_MAPPING    ? CONF_MAPPING
                          : schema->type == CYAML_SEQUENCE ? CONF_SEQUENCE
                                                           : CONF_SCALAR;
    if (node->kind != want) {
        conf_error_add(w->errors, node->line, w->path, "expected %s, found %s",
                       conf_kind_name(want), conf_kind_name(node->kind));
    } else if (want == CONF_MAPPING) {
        walk_mapping(w, schema, node);
    } else if (want == CONF_SEQUENCE) {
        walk_sequence(w, schema, node);
    } else {
        walk_scalar(w, schema, node);
    }
}

/* libcyaml's own words, in case it refuses what the walk let pass. */
struct last_words {
    char text[256];
};

static void on_log(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
    __attribute__((format(printf, 3, 0)));

static void on_log(cyaml_log_t level, void *ctx, const char *fmt, va_list args)
{
    struct last_words *words = ctx;
    if (level >= CYAML_LOG_ERROR && !*words->text) {
        (void)vsnprintf(words->text, sizeof words->text, fmt, args);
        words->text[strcspn(words->text, "\n")] = 0;
    }
}

static cyaml_config_t config_for(struct last_words *words)
{
    return (cyaml_config_t){
        .log_fn = on_log,
        .log_ctx = words,
        .log_level = CYAML_LOG_ERROR,
        .mem_fn = cyaml_mem,
        .flags = CYAML_CFG_NO_ALIAS,
    };
}

bool conf_schema_load(struct att_slice yaml, const struct conf_node *root,
                      const cyaml_schema_value_t *schema, void **ret_data,
                      struct conf_errors *errors)
{
    struct walk w = {.errors = errors};
    size_t before = errors->n;
    walk_value(&w, schema, root);
    if (errors->n != before) {
        return false;
    }
    struct last_words words = {{0}};
    cyaml_config_t config = config_for(&words);
    cyaml_data_t *data = NULL;
    cyaml_err_t rc = cyaml_load_data(yaml.ptr, yaml.len, &config, schema, &data, NULL);
    if (rc != CYAML_OK || !data) {
        conf_error_add(errors, 0, "", "%s: %s", cyaml_strerror(rc), words.text);
        return false;
    }
    *ret_data = data;
    return true;
}

void conf_schema_free(const cyaml_schema_value_t *schema, void *data)
{
    struct last_words words = {{0}};
    cyaml_config_t config = config_for(&words);
    if (data) {
        (void)cyaml_free(&config, schema, data, 0);
    }
}
