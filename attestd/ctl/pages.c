/* A list page by page: each is printed before the next is asked for, so that neither side ever
 * holds the whole. JSON comes out as it would in one answer. */
#include "attestd/ctl/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PAGE 1000

struct pages {
    const struct ctl_command *command;
    bool json;
    struct ctl_table table;
    json_int_t left; /* rows that are still to be shown; < 0: all */
    size_t shown;
};

static void open_list(const struct pages *p)
{
    printf("{\n  \"%s\": [", p->command->list);
}

static void put_page(struct pages *p, const json_t *list)
{
    if (!p->json) {
        ctl_table_rows(&p->table, list);
    }
    for (size_t i = 0; p->json && i < json_array_size(list); i++) {
        if (p->shown + i == 0) {
            open_list(p);
        }
        fputs(p->shown + i ? ",\n    " : "\n    ", stdout);
        ctl_print_json_inner(json_array_get(list, i), 4);
    }
    p->shown += json_array_size(list);
    p->left -= p->left > 0 ? (json_int_t)json_array_size(list) : 0;
}

/* What the last answer says beside its list; "next" where --limit ended it. */
static void close_list(const struct pages *p, const json_t *last)
{
    const char *key;
    json_t *value;
    if (!p->json) {
        return;
    }
    if (!p->shown) {
        open_list(p);
    }
    fputs(p->shown ? "\n  ]" : "]", stdout);
    json_object_foreach((json_t *)(uintptr_t)last, key, value)
    {
        if (strcmp(key, p->command->list) != 0) {
            att_autojson *name = json_string(key);
            fputs(",\n  ", stdout);
            ctl_print_json_inner(name, 2);
            fputs(": ", stdout);
            ctl_print_json_inner(value, 2);
        }
    }
    fputs("\n}\n", stdout);
}

static enum ctl_exit bad(const char *what)
{
    fprintf(stderr, "attestctl: %s\n", what);
    return CTL_FAILED;
}

/* ret_next: the cursor for the next page, or NULL. */
static enum ctl_exit one_page(const struct ctl_ctx *ctx, struct pages *p, json_t *asked,
                              json_t **ret_next)
{
    att_autojson *page = NULL;
    json_int_t n = p->left < 0 || p->left > PAGE ? PAGE : p->left;
    json_object_set_new(asked, "limit", json_integer(n));
    enum ctl_exit rc = ctl_call(ctx, p->command->at_issuer, p->command->op, asked, &page);
    if (rc != CTL_OK) {
        return rc;
    }
    const json_t *list = json_object_get(page, p->command->list);
    json_t *next = json_object_get(page, "next");
    if (!json_is_array(list) || (json_int_t)json_array_size(list) > n ||
        (next && (!json_is_string(next) || json_equal(next, json_object_get(asked, "after"))))) {
        return bad("the answer is no page of a list");
    }
    put_page(p, list);
    if (!next || p->left == 0) {
        close_list(p, page);
        return CTL_OK;
    }
    *ret_next = json_incref(next);
    return CTL_OK;
}

enum ctl_exit ctl_pages_run(const struct ctl_ctx *ctx, const struct ctl_command *command,
                            const struct ctl_args *args)
{
    const json_t *limit = json_object_get(args->json, "limit");
    struct pages p = {.command = command,
                      .json = ctx->json,
                      .table = {.columns = command->columns},
                      .left = limit           ? json_integer_value(limit)
                              : command->most ? (json_int_t)command->most
                                              : -1};
    if (limit && p.left < 1) {
        fprintf(stderr, "attestctl: --limit: expected 1 or more, found %lld\n", (long long)p.left);
        return CTL_USAGE;
    }
    for (;;) {
        att_autojson *next = NULL;
        enum ctl_exit rc = one_page(ctx, &p, args->json, &next);
        if (rc == CTL_OK && (fflush(stdout) != 0 || ferror(stdout))) {
            fprintf(stderr, "attestctl: standard output: %s\n", strerror(errno));
            return CTL_FAILED;
        }
        if (rc != CTL_OK || !next) {
            return rc;
        }
        json_object_set(args->json, "after", next);
    }
}
