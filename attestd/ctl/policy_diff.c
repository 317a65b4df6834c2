/* attestctl policy diff OLD NEW: what changed, in the terms of the policy. */
#include "attestd/ctl/source.h"

#include <stdio.h>
#include <string.h>

static const char *arg(const struct ctl_args *args, const char *name)
{
    return json_string_value(json_object_get(args->json, name));
}

/* {"what", "component"?, "old"?, "new"?} */
static void say(json_t *changes, const char *what, const char *component, json_t *old, json_t *new)
{
    json_t *change = json_pack("{s:s}", "what", what);
    if (component) {
        json_object_set_new(change, "component", json_string(component));
    }
    if (old) {
        json_object_set(change, "old", old);
    }
    if (new) {
        json_object_set(change, "new", new);
    }
    json_array_append_new(changes, change);
}

static json_t *find_component(const json_t *list, const char *id)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *component = json_array_get(list, i);
        if (strcmp(json_string_value(json_object_get(component, "id")), id) == 0) {
            return component;
        }
    }
    return NULL;
}

/* What a variant allows: without its label and window. */
static json_t *content_of(const json_t *variant)
{
    static const char *const kinds[] = {"digest", "signer", "text", "pattern"};
    for (size_t i = 0; i < 4; i++) {
        if (json_object_get(variant, kinds[i])) {
            return json_object_get(variant, kinds[i]);
        }
    }
    return NULL;
}

static json_t *find_variant(const json_t *list, const json_t *variant)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_t *other = json_array_get(list, i);
        if (json_equal(content_of(other), content_of(variant))) {
            return other;
        }
    }
    return NULL;
}

static void diff_variants(json_t *changes, const char *id, const json_t *old, const json_t *new)
{
    for (size_t i = 0; i < json_array_size(old); i++) {
        json_t *variant = json_array_get(old, i), *now = find_variant(new, variant);
        if (!now) {
            say(changes, "variant removed", id, variant, NULL);
        } else if (!json_equal(variant, now)) {
            say(changes, "variant changed", id, variant, now);
        }
    }
    for (size_t i = 0; i < json_array_size(new); i++) {
        json_t *variant = json_array_get(new, i);
        if (!find_variant(old, variant)) {
            say(changes, "variant added", id, NULL, variant);
        }
    }
}

static void diff_members(json_t *changes, const char *id, const json_t *old, const json_t *new,
                         const char *nested)
{
    const char *key = NULL;
    json_t *value = NULL;
    char what[80];
    json_object_foreach((json_t *)(uintptr_t)old, key, value)
    {
        if (strcmp(key, nested) != 0 && !json_equal(value, json_object_get(new, key))) {
            snprintf(what, sizeof what, "%.60s", key);
            say(changes, what, id, value, json_object_get(new, key));
        }
    }
    json_object_foreach((json_t *)(uintptr_t) new, key, value)
    {
        if (strcmp(key, nested) != 0 && !json_object_get(old, key)) {
            snprintf(what, sizeof what, "%.60s", key);
            say(changes, what, id, NULL, value);
        }
    }
}

/* The ima rule: lists and prefixes that came and went, by what names them; the rest by member. */
static void diff_items(json_t *changes, const char *member, const char *key, const json_t *old,
                       const json_t *new)
{
    char what[80];
    for (unsigned gone = 0; gone < 2; gone++) {
        const json_t *one = json_object_get(gone ? old : new, member);
        const json_t *other = json_object_get(gone ? new : old, member);
        for (size_t i = 0; i < json_array_size(one); i++) {
            json_t *item = json_array_get(one, i), *same = NULL;
            for (size_t k = 0; !same && k < json_array_size(other); k++) {
                json_t *candidate = json_array_get(other, k);
                same = json_equal(json_object_get(candidate, key), json_object_get(item, key))
                           ? candidate
                           : NULL;
            }
            if (!same) {
                snprintf(what, sizeof what, "%.40s %s", member, gone ? "removed" : "added");
                say(changes, what, "ima", gone ? item : NULL, gone ? NULL : item);
            } else if (gone && !json_equal(item, same)) {
                snprintf(what, sizeof what, "%.40s changed", member);
                say(changes, what, "ima", item, same);
            }
        }
    }
}

static void diff_ima(json_t *changes, json_t *old, json_t *new)
{
    if (!old || !new) {
        if (old || new) {
            say(changes, old ? "ima rule removed" : "ima rule added", NULL, old, new);
        }
        return;
    }
    att_autojson *before = json_copy(old), *after = json_copy(new);
    diff_items(changes, "allowlists", "sha256", old, new);
    diff_items(changes, "excludes", "prefix", old, new);
    json_object_del(before, "excludes");
    json_object_del(after, "excludes");
    diff_members(changes, "ima", before, after, "allowlists");
}

static json_t *diff(const json_t *old, const json_t *new)
{
    json_t *changes = json_array();
    const json_t *before = json_object_get(old, "components");
    const json_t *after = json_object_get(new, "components");
    att_autojson *rest_old = json_copy((json_t *)(uintptr_t)old);
    att_autojson *rest_new = json_copy((json_t *)(uintptr_t) new);
    json_object_del(rest_old, "ima");
    json_object_del(rest_new, "ima");
    diff_members(changes, NULL, rest_old, rest_new, "components");
    diff_ima(changes, json_object_get(old, "ima"), json_object_get(new, "ima"));
    for (size_t i = 0; i < json_array_size(before); i++) {
        json_t *component = json_array_get(before, i);
        const char *id = json_string_value(json_object_get(component, "id"));
        json_t *now = find_component(after, id);
        if (!now) {
            say(changes, "component removed", id, component, NULL);
            continue;
        }
        diff_members(changes, id, component, now, "variants");
        diff_variants(changes, id, json_object_get(component, "variants"),
                      json_object_get(now, "variants"));
    }
    for (size_t i = 0; i < json_array_size(after); i++) {
        json_t *component = json_array_get(after, i);
        const char *id = json_string_value(json_object_get(component, "id"));
        if (!find_component(before, id)) {
            say(changes, "component added", id, NULL, component);
        }
    }
    return changes;
}

/* Those that are in both: their order is part of what is allowed. */
static bool same_order(const json_t *old, const json_t *new)
{
    const json_t *before = json_object_get(old, "components");
    const json_t *after = json_object_get(new, "components");
    size_t at = 0;
    for (size_t i = 0; i < json_array_size(before); i++) {
        json_t *now = find_component(
            after, json_string_value(json_object_get(json_array_get(before, i), "id")));
        while (now && at < json_array_size(after) && json_array_get(after, at) != now) {
            at++;
        }
        if (now && at == json_array_size(after)) {
            return false;
        }
    }
    return true;
}

static void print_change(const json_t *change)
{
    char what[100], component[100], old[400], new[400];
    printf("%s%s%s\n",
           json_object_get(change, "component")
               ? ctl_text(change, "component", component, sizeof component)
               : "",
           json_object_get(change, "component") ? ": " : "",
           ctl_text(change, "what", what, sizeof what));
    if (json_object_get(change, "old")) {
        printf("  - %s\n", ctl_text(change, "old", old, sizeof old));
    }
    if (json_object_get(change, "new")) {
        printf("  + %s\n", ctl_text(change, "new", new, sizeof new));
    }
}

enum ctl_exit ctl_policy_diff(const struct ctl_ctx *ctx, const struct ctl_args *args,
                              const json_t *result)
{
    (void)result;
    verify_autopolicy *old = NULL, *new = NULL;
    struct att_err err = {0};
    enum att_rc rc = ctl_policy_load(arg(args, "old"), &old, NULL, &err);
    rc = rc ? rc : ctl_policy_load(arg(args, "new"), &new, NULL, &err);
    if (rc) {
        err.rc = rc;
        return ctl_report(&err);
    }
    att_autojson *changes = diff(old->json, new->json);
    if (!same_order(old->json, new->json)) {
        say(changes, "order of components", NULL, NULL, NULL);
    }
    if (ctx->json) {
        att_autojson *json = json_pack("{s:O}", "changes", changes);
        ctl_print_json(json);
        return CTL_OK;
    }
    for (size_t i = 0; i < json_array_size(changes); i++) {
        print_change(json_array_get(changes, i));
    }
    printf("%zu changes\n", json_array_size(changes));
    return CTL_OK;
}
