/* A YAML document as nodes that know their line. Read by libyaml's events with everything refused
 * that a configuration does not need: anchors, aliases, tags, several documents, duplicate or
 * non-scalar keys, NUL bytes, deep nesting. Internal to attestd/conf. */
#ifndef CONF_TREE_H
#define CONF_TREE_H

#include "attestd/conf/conf.h"

#define CONF_TREE_DEPTH_MAX 12
#define CONF_TREE_NODES_MAX 500000
#define CONF_TREE_KEYS_MAX  64 /* of one mapping */
#define CONF_PATH_MAX       128

enum conf_kind { CONF_SCALAR, CONF_SEQUENCE, CONF_MAPPING };

struct conf_node {
    enum conf_kind kind;
    int line;                              /* of the value */
    char *key;                             /* where the parent is a mapping */
    char *text;                            /* scalar */
    bool plain;                            /* scalar without quotes */
    struct conf_node *first, *last, *next; /* children in order; the next child of the parent */
    size_t n;
};

/* NULL, with at least one error noted, when it cannot be read. */
struct conf_node *conf_tree_parse(struct att_slice yaml, struct conf_errors *errors);
void conf_tree_free(struct conf_node *node);
const struct conf_node *conf_tree_get(const struct conf_node *mapping, const char *key);
/* Line of "profiles[1].lifetime", or of the nearest node above it that exists. */
int conf_tree_line(const struct conf_node *root, const char *path);
const char *conf_kind_name(enum conf_kind kind);

/* Notes an error; beyond the maximum it is only counted. */
void conf_error_add(struct conf_errors *errors, int line, const char *field, const char *fmt, ...)
    ATT_PRINTF(4, 5);
/* The same at the line of a path. */
void conf_error_at(struct conf_errors *errors, const struct conf_node *root, const char *path,
                   const char *fmt, ...) ATT_PRINTF(4, 5);
/* ATT_OK when there is none; else ATT_E_PARSE and a summary. */
ATT_MUST_USE enum att_rc conf_errors_rc(const struct conf_errors *errors, struct att_err *err);

#endif
