#include "provision/issuer/clashes.h"

#include <stdio.h>

#define WHAT_MAX 280
#define KEY_MAX  512

static void key_of(const char *what, const char *name, char ret[KEY_MAX])
{
    snprintf(ret, KEY_MAX, "%s/%s", what, name);
}

/* Its group's index; -1: it is in none yet. */
static json_int_t group_of(const struct issuer_clashes *c, const char *what, const char *name)
{
    char key[KEY_MAX];
    key_of(what, name, key);
    const json_t *index = json_object_get(c->of, key);
    return index ? json_integer_value(index) : -1;
}

static int join(struct issuer_clashes *c, json_int_t group, const char *what, const char *name)
{
    char key[KEY_MAX];
    key_of(what, name, key);
    json_t *names = json_object_get(json_array_get(c->groups, (size_t)group), "names");
    return json_array_append_new(names, json_string(name)) |
           json_object_set_new(c->of, key, json_integer(group));
}

static json_int_t group_new(struct issuer_clashes *c, const char *what)
{
    json_t *group = json_pack("{s:s, s:[]}", "what", what, "names");
    return json_array_append_new(c->groups, group) == 0 ? (json_int_t)json_array_size(c->groups) - 1
                                                        : -1;
}

/* An agent that clashes with both makes one of two groups. */
static int merge(struct issuer_clashes *c, json_int_t into, json_int_t from, const char *what)
{
    json_t *group = json_incref(json_array_get(c->groups, (size_t)from));
    const json_t *names = json_object_get(group, "names");
    int bad = json_array_set_new(c->groups, (size_t)from, json_null());
    for (size_t i = 0; i < json_array_size(names); i++) {
        bad |= join(c, into, what, json_string_value(json_array_get(names, i)));
    }
    json_decref(group);
    return bad;
}

static int note(struct issuer_clashes *c, const char *what, const char *a, const char *b)
{
    json_int_t of_a = group_of(c, what, a), of_b = group_of(c, what, b);
    if (of_a >= 0 && of_a == of_b) {
        return 0;
    }
    if (of_a >= 0 && of_b >= 0) {
        return of_a < of_b ? merge(c, of_a, of_b, what) : merge(c, of_b, of_a, what);
    }
    json_int_t group = of_a >= 0 ? of_a : of_b >= 0 ? of_b : group_new(c, what);
    int bad = group < 0 ? -1 : 0;
    if (!bad && of_a < 0) {
        bad = join(c, group, what, a);
    }
    if (!bad && of_b < 0) {
        bad = join(c, group, what, b);
    }
    return bad;
}

enum att_rc issuer_clashes_note(struct issuer_clashes *c, const struct conf_entry *a,
                                const struct conf_entry *b, struct att_err *err)
{
    struct conf_entry_clash clash;
    char what[WHAT_MAX];
    if (!conf_entry_clashes(a, b, &clash)) {
        return ATT_OK;
    }
    if (clash.by_unit) {
        snprintf(what, sizeof what, "unit %s", clash.unit);
    } else {
        snprintf(what, sizeof what, "uid %u without different units", clash.uid);
    }
    c->groups = c->groups ? c->groups : json_array();
    c->of = c->of ? c->of : json_object();
    return note(c, what, a->name, b->name) == 0 ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
}

static json_t *warning(const json_t *group)
{
    const json_t *names = json_object_get(group, "names");
    size_t n = json_array_size(names);
    size_t shown = n > ISSUER_CLASHES_NAMES_MAX ? ISSUER_CLASHES_NAMES_MAX : n;
    att_autobuf text = {0};
    for (size_t i = 0; i < shown; i++) {
        att_buf_printf(&text, "%s%s", i ? ", " : "agents ",
                       json_string_value(json_array_get(names, i)));
    }
    if (shown < n) {
        att_buf_printf(&text, " and %zu more", n - shown);
    }
    att_buf_printf(&text,
                   " share %s and may meet on a host: digests narrow, they do not isolate one from "
                   "the other",
                   json_string_value(json_object_get(group, "what")));
    const char *line = att_buf_cstr(&text);
    return line ? json_string(line) : NULL;
}

json_t *issuer_clashes_warnings(const struct issuer_clashes *c)
{
    att_autojson *list = json_array();
    size_t more = 0;
    int bad = list ? 0 : -1;
    for (size_t i = 0; !bad && i < json_array_size(c->groups); i++) {
        const json_t *group = json_array_get(c->groups, i);
        if (!json_is_object(group)) {
            continue;
        }
        if (json_array_size(list) == ISSUER_CLASHES_MAX) {
            more++;
        } else {
            bad = json_array_append_new(list, warning(group));
        }
    }
    if (!bad && more) {
        bad = json_array_append_new(list, json_sprintf("and %zu more groups of agents", more));
    }
    return bad ? NULL : json_incref(list);
}

void issuer_clashes_done(struct issuer_clashes *c)
{
    json_decref(c->groups);
    json_decref(c->of);
    *c = (struct issuer_clashes){0};
}
