/* The host's HSM modules: which there are, and which a key is in. A key's file names its module,
 * and the key is never asked for in another one: where the configuration does not name that module
 * any more, the key is kept and not used. */
#include "attestd/keyd/hsmlink.h"

#include <stdio.h>
#include <string.h>

enum att_rc keyd_hsms_new(struct keyd *keyd, const struct keyd_opts *opts, struct att_err *err)
{
    if (opts->n_hsms > KEYD_HSMS_MAX) {
        return att_fail(err, ATT_E_LIMIT, "%zu HSM modules, at most %d", opts->n_hsms,
                        KEYD_HSMS_MAX);
    }
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < opts->n_hsms; i++) {
        rc = keyd_hsm_new(keyd, &opts->hsms[i], &keyd->hsms[i], err);
        keyd->n_hsms += rc == ATT_OK;
    }
    return rc;
}

enum att_rc keyd_hsms_start(struct keyd *keyd, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < keyd->n_hsms; i++) {
        rc = keyd_hsm_start(keyd->hsms[i], err);
    }
    return rc;
}

void keyd_hsms_free(struct keyd *keyd)
{
    for (size_t i = 0; i < keyd->n_hsms; i++) {
        keyd_hsm_free(keyd->hsms[i]);
    }
    keyd->n_hsms = 0;
}

struct keyd_hsm *keyd_hsms_find(const struct keyd *keyd, const char *name)
{
    for (size_t i = 0; i < keyd->n_hsms; i++) {
        if (strcmp(keyd_hsm_name(keyd->hsms[i]), name) == 0) {
            return keyd->hsms[i];
        }
    }
    return NULL;
}

/* ---- refusals -------------------------------------------------------------------------------- */

static enum att_rc no_module(const struct keyd *keyd, const char *name, struct att_err *err)
{
    char names[KEYD_HSMS_MAX * (PROC_HSM_NAME_MAX + 2) + 1] = "";
    for (size_t i = 0, at = 0; i < keyd->n_hsms; i++) {
        at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "",
                               keyd_hsm_name(keyd->hsms[i]));
    }
    (void)!att_fail(err, ATT_E_UNSUPPORTED,
                    "this host has no HSM module \"%s\" (attestd.yaml has: %s)", name, names);
    att_err_reason(err, "hsmModule");
    return ATT_E_UNSUPPORTED;
}

static enum att_rc no_hsm(struct att_err *err)
{
    (void)!att_fail(err, ATT_E_UNSUPPORTED,
                    "this host has no HSM (no hsm or hsms section in attestd.yaml)");
    att_err_reason(err, "keyStore");
    return ATT_E_UNSUPPORTED;
}

enum att_rc keyd_hsms_of(const struct keyd *keyd, const struct keyd_key *key,
                         struct keyd_hsm **ret_hsm, struct att_err *err)
{
    struct keyd_hsm *hsm = keyd_hsms_find(keyd, key->module);
    if (!hsm) {
        return keyd->n_hsms ? no_module(keyd, key->module, err) : no_hsm(err);
    }
    *ret_hsm = hsm;
    return ATT_OK;
}

enum att_rc keyd_hsms_choose(struct keyd *keyd, struct att_slice name, struct keyd_key *key,
                             struct att_err *err)
{
    struct keyd_hsm *ignored;
    if (keyd->n_hsms == 0) {
        return no_hsm(err);
    }
    KEYD_TEXT(name.len ? name : att_slice_str(keyd_hsm_name(keyd->hsms[0])), key->module);
    return keyd_hsms_of(keyd, key, &ignored, err);
}

bool keyd_hsms_usual(const struct keyd *keyd, const struct keyd_key *key)
{
    return keyd->n_hsms && strcmp(keyd_hsm_name(keyd->hsms[0]), key->module) == 0;
}

enum att_rc keyd_hsms_ready(struct keyd *keyd, const struct keyd_key *key, struct att_err *err)
{
    struct keyd_hsm *ignored;
    return keyd_hsms_of(keyd, key, &ignored, err);
}

/* ---- INFO ------------------------------------------------------------------------------------ */

static json_int_t keys_in(const struct keyd *keyd, const char *module)
{
    json_int_t count = 0;
    for (size_t i = 0; i < keyd->keys_count; i++) {
        count += strcmp(keyd->keys[i].module, module) == 0;
    }
    return count;
}

static bool told(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *other = json_string_value(json_object_get(json_array_get(list, i), "name"));
        if (other && strcmp(other, name) == 0) {
            return true;
        }
    }
    return false;
}

#define ELSEWHERE_MAX 16 /* names of modules that are shown */

static json_t *elsewhere(const struct keyd *keyd)
{
    json_t *list = json_array();
    for (size_t i = 0; i < keyd->keys_count && json_array_size(list) < ELSEWHERE_MAX; i++) {
        const char *module = keyd->keys[i].module;
        if (module[0] && !keyd_hsms_find(keyd, module) && !told(list, module)) {
            json_array_append_new(
                list, json_pack("{s:s, s:I}", "name", module, "keys", keys_in(keyd, module)));
        }
    }
    return list;
}

void keyd_hsms_describe(const struct keyd *keyd, json_t *object)
{
    json_t *modules = json_array();
    for (size_t i = 0; i < keyd->n_hsms; i++) {
        const char *name = keyd_hsm_name(keyd->hsms[i]);
        json_t *one = json_pack("{s:s, s:I, s:I}", "name", name, "keys", keys_in(keyd, name),
                                "keysMax", (json_int_t)keyd_store_hsm.keys_max);
        if (one) {
            keyd_hsm_describe(keyd->hsms[i], one);
        }
        json_array_append_new(modules, one);
    }
    json_object_set_new(object, "configured", json_boolean(keyd->n_hsms));
    json_object_set_new(object, "modules", modules);
    json_object_set_new(object, "elsewhere", elsewhere(keyd));
}
