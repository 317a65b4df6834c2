#include "attestd/ctl/ctl.h"

#include "attestd/base/text.h"

#include <stdio.h>
#include <string.h>

#define CELL_MAX 512

/* ASCII: then a control character of the C1 range is an escape, and so is DEL, which JSON allows.
 */
static int put_ascii(const char *bytes, size_t len, void *user)
{
    const int *indent = user;
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] == 0x7f) {
            fputs("\\u007F", stdout);
        } else {
            putchar(bytes[i]);
        }
        if (bytes[i] == '\n') { /* the layout's: in a string it is an escape */
            printf("%*s", *indent, "");
        }
    }
    return 0;
}

void ctl_print_json_inner(const json_t *json, int indent)
{
    (void)json_dump_callback(json, put_ascii, &indent,
                             JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_ENSURE_ASCII);
}

void ctl_print_json(const json_t *json)
{
    ctl_print_json_inner(json, 0);
    putchar('\n');
}

static const json_t *member_at(const json_t *object, const char *path)
{
    char key[64];
    while (object) {
        const char *dot = strchr(path, '.');
        if (!dot) {
            return json_object_get(object, path);
        }
        snprintf(key, sizeof key, "%.*s", (int)(dot - path), path);
        object = json_object_get(object, key);
        path = dot + 1;
    }
    return NULL;
}

static void join_array(const json_t *array, char *buf, size_t size)
{
    size_t used = 0;
    buf[0] = 0;
    for (size_t i = 0; i < json_array_size(array) && used + 1 < size; i++) {
        const json_t *item = json_array_get(array, i);
        char *text = json_dumps(item, JSON_ENCODE_ANY | JSON_COMPACT);
        const char *shown = json_is_string(item) ? json_string_value(item) : text ? text : "";
        int put = snprintf(buf + used, size - used, "%s%s", i ? "," : "", shown);
        used += put > 0 ? (size_t)put : 0;
        json_free_t release = NULL;
        json_get_alloc_funcs(NULL, &release);
        release(text);
    }
}

static void join_object(const json_t *object, char *buf, size_t size)
{
    size_t used = 0;
    const char *key = NULL;
    json_t *value = NULL;
    buf[0] = 0;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        char inner[CELL_MAX];
        const char *text = ctl_text(object, key, inner, sizeof inner);
        int put = snprintf(buf + used, size - used, "%s%s=%s", used ? "," : "", key, text);
        used += put > 0 ? (size_t)put : 0;
        if (used >= size) {
            return;
        }
    }
}

static bool is_clean(const char *text)
{
    bool ok = true;
    while (*text && ok) {
        text += att_text_next(text, &ok);
    }
    return ok;
}

/* Whatever a daemon passes on from elsewhere must not steer the terminal, nor begin a line. */
static const char *clean_string(const json_t *value, char *buf, size_t size)
{
    const char *text = json_string_value(value);
    if (!text[0] || is_clean(text)) {
        return text[0] ? text : "-";
    }
    snprintf(buf, size, "%s", text);
    att_text_clean(buf);
    return buf;
}

const char *ctl_text(const json_t *object, const char *path, char *buf, size_t size)
{
    const json_t *value = member_at(object, path);
    snprintf(buf, size, "-");
    if (json_is_string(value)) {
        return clean_string(value, buf, size);
    }
    if (json_is_integer(value)) {
        snprintf(buf, size, "%lld", (long long)json_integer_value(value));
    } else if (json_is_real(value)) {
        snprintf(buf, size, "%.2f", json_real_value(value));
    } else if (json_is_boolean(value)) {
        snprintf(buf, size, "%s", json_is_true(value) ? "yes" : "no");
    } else if (json_is_array(value) && json_array_size(value)) {
        join_array(value, buf, size);
    } else if (json_is_object(value) && json_object_size(value)) {
        join_object(value, buf, size);
    }
    att_text_clean(buf);
    return buf;
}

static void put_clean(const char *text, int width)
{
    int put = 0;
    for (; *text; put++) {
        bool ok;
        size_t len = att_text_next(text, &ok);
        fwrite(ok ? text : "?", 1, ok ? len : 1, stdout);
        text += len;
    }
    for (; put < width; put++) {
        putchar(' ');
    }
}

static int width_of(const char *text)
{
    int width = 0;
    for (bool ok; *text; width++) {
        text += att_text_next(text, &ok);
    }
    return width;
}

static void put_row(const struct ctl_table *table, size_t n_columns, const json_t *row)
{
    char cell[CELL_MAX];
    for (size_t c = 0; c < n_columns; c++) {
        const struct ctl_column *column = &table->columns[c];
        put_clean(row ? ctl_text(row, column->member, cell, sizeof cell) : column->title,
                  c + 1 < n_columns ? table->widths[c] + 2 : 0);
    }
    putchar('\n');
}

void ctl_table_rows(struct ctl_table *table, const json_t *list)
{
    size_t n_columns = 0, n = json_array_size(list);
    char cell[CELL_MAX];
    for (; n_columns < CTL_COLUMNS_MAX && table->columns[n_columns].title; n_columns++) {
        const struct ctl_column *column = &table->columns[n_columns];
        int *width = &table->widths[n_columns], len = (int)strlen(column->title);
        *width = len > *width ? len : *width;
        for (size_t i = 0; i < n; i++) {
            len = width_of(ctl_text(json_array_get(list, i), column->member, cell, sizeof cell));
            *width = len > *width ? len : *width;
        }
    }
    if (!table->titled) {
        put_row(table, n_columns, NULL);
        table->titled = true;
    }
    for (size_t i = 0; i < n; i++) {
        put_row(table, n_columns, json_array_get(list, i));
    }
}

void ctl_print_list(const json_t *list, const struct ctl_column *columns)
{
    struct ctl_table table = {.columns = columns};
    ctl_table_rows(&table, list);
}

static bool is_nested(const json_t *value)
{
    return json_is_array(value) && json_is_object(json_array_get(value, 0));
}

void ctl_print_object(const json_t *object, int indent)
{
    const char *key = NULL;
    json_t *value = NULL;
    char cell[CELL_MAX];
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        printf("%*s", indent, "");
        if (json_is_object(value) && json_object_size(value)) {
            put_clean(key, 0);
            puts(":");
            ctl_print_object(value, indent + 2);
        } else if (is_nested(value)) {
            put_clean(key, 0);
            puts(":");
            for (size_t i = 0; i < json_array_size(value); i++) {
                printf("%*s-\n", indent + 2, "");
                ctl_print_object(json_array_get(value, i), indent + 4);
            }
        } else {
            put_clean(key, 18 - indent);
            putchar(' ');
            put_clean(ctl_text(object, key, cell, sizeof cell), 0);
            putchar('\n');
        }
    }
}
