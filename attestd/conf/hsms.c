#include "attestd/conf/hsms.h"

#include "attestd/conf/p11uri.h"
#include "attestd/conf/schema.h"

#include <stdlib.h>
#include <string.h>

#define OPT (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define STR(member, flags)                                                                         \
    CYAML_FIELD_STRING_PTR(#member, (flags), struct conf_attestd_hsm, member, 0, 4096)

#define FIELDS(name_flags)                                                                         \
    {                                                                                              \
        STR(name, name_flags), STR(user, OPT), STR(module, CYAML_FLAG_POINTER),                    \
            STR(token, CYAML_FLAG_POINTER),                                                        \
            CYAML_FIELD_SEQUENCE_COUNT("files", OPT, struct conf_attestd_hsm, files, n_files,      \
                                       &conf_schema_string, 0, CONF_HSM_FILES_MAX),                \
            STR(sandbox, OPT),                                                                     \
            CYAML_FIELD_UINT("sessions", CYAML_FLAG_OPTIONAL, struct conf_attestd_hsm, sessions),  \
            CYAML_FIELD_END,                                                                       \
    }
const cyaml_schema_field_t conf_hsm_fields[] = FIELDS(OPT);
static const cyaml_schema_field_t named_fields[] = FIELDS(CYAML_FLAG_POINTER);
const cyaml_schema_value_t conf_hsm_named = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_attestd_hsm, named_fields),
};

/* A module and where it stands: "hsm", "hsms[1]". */
struct place {
    struct conf_attestd_hsm *hsm;
    struct conf_path path;
    struct conf_p11uri uri;
    bool uri_ok;
};

static struct conf_path field(const struct place *place, const char *name)
{
    return conf_path("%s.%s", place->path.text, name);
}

/* Becomes a folder's name, a unit's instance and part of a socket's path. */
static void check_name(struct conf_check *check, const struct place *place)
{
    struct conf_path at = field(place, "name");
    const char *name = place->hsm->name;
    if (conf_check_name(check, at.text, name) && strlen(name) > CONF_HSM_NAME_MAX) {
        conf_bad(check, at.text, "expected at most %d characters, found %zu", CONF_HSM_NAME_MAX,
                 strlen(name));
    }
}

/* The text of the URI is never shown: somebody may have written a PIN into it. */
static void check_one(struct conf_check *check, struct place *place)
{
    static const char *const sandboxes[] = {"local", "network", NULL};
    struct conf_attestd_hsm *hsm = place->hsm;
    struct att_err err = {0};
    check_name(check, place);
    if (hsm->user) {
        (void)conf_check_text(check, field(place, "user").text, hsm->user, 64);
    }
    (void)conf_check_path(check, field(place, "module").text, hsm->module);
    place->uri_ok = conf_p11uri_parse(att_slice_str(hsm->token), &place->uri, &err) == ATT_OK;
    if (!place->uri_ok) {
        conf_bad(check, field(place, "token").text, "%s", err.msg);
    }
    (void)conf_check_word(check, field(place, "sandbox").text, hsm->sandbox, sandboxes);
    for (unsigned i = 0; i < hsm->n_files; i++) {
        struct conf_path at = conf_path("%s.files[%u]", place->path.text, i);
        (void)conf_check_path(check, at.text, hsm->files[i]);
    }
    hsm->sessions = hsm->sessions ? hsm->sessions : 4;
    if (hsm->sessions > CONF_HSM_SESSIONS_MAX) {
        conf_bad(check, field(place, "sessions").text, "expected 1 … %d, found %u",
                 CONF_HSM_SESSIONS_MAX, hsm->sessions);
    }
    hsm->network = strcmp(hsm->sandbox, "network") == 0;
}

bool conf_hsm_defaults(struct conf_attestd_hsm *hsm)
{
    return !hsm ||
           (conf_default(&hsm->name, CONF_HSM_DEFAULT) && conf_default(&hsm->sandbox, "local"));
}

void conf_hsm_check(struct conf_check *check, struct conf_attestd_hsm *hsm)
{
    struct place place = {.hsm = hsm, .path = conf_path("hsm")};
    check_one(check, &place);
}

/* One name would be two sockets in one place, and one token would be logged in to by two. */
static void check_two(struct conf_check *check, const struct place *one, const struct place *other)
{
    if (strcmp(one->hsm->name, other->hsm->name) == 0) {
        conf_bad(check, field(other, "name").text,
                 "expected another name than that of %s, found \"%s\" again", one->path.text,
                 other->hsm->name);
    }
    if (one->uri_ok && other->uri_ok && strcmp(one->hsm->module, other->hsm->module) == 0 &&
        strcmp(one->uri.token, other->uri.token) == 0 &&
        strcmp(one->uri.serial, other->uri.serial) == 0) {
        conf_bad(check, field(other, "token").text,
                 "expected another token than that of %s, found the same module, label and serial",
                 one->path.text);
    }
}

static void check_default(struct conf_check *check, const struct conf_attestd *conf,
                          const struct place *places, unsigned n)
{
    const char *name = conf->default_hsm;
    for (unsigned i = 0; name && i < n; i++) {
        if (strcmp(places[i].hsm->name, name) == 0) {
            return;
        }
    }
    if (name) {
        conf_bad(check, "default_hsm",
                 "expected the name of a module of this file, found \"%.64s\"", name);
    }
}

void conf_hsms_check(struct conf_check *check, struct conf_attestd *conf)
{
    struct place places[CONF_HSMS_MAX + 1];
    unsigned n = 0;
    if (conf->hsm) {
        places[n++] = (struct place){.hsm = conf->hsm, .path = conf_path("hsm")};
    }
    for (unsigned i = 0; i < conf->n_hsms; i++) {
        places[n++] = (struct place){.hsm = &conf->hsms[i], .path = conf_path("hsms[%u]", i)};
    }
    if (n > CONF_HSMS_MAX) {
        conf_bad(check, "hsms", "expected at most %d modules with the section hsm, found %u",
                 CONF_HSMS_MAX, n);
    }
    for (unsigned i = 0; i < n; i++) {
        if (!conf_hsm_defaults(places[i].hsm)) {
            conf_bad(check, places[i].path.text, "no memory");
            return;
        }
        check_one(check, &places[i]);
        for (unsigned k = 0; k < i; k++) {
            check_two(check, &places[k], &places[i]);
        }
    }
    check_default(check, conf, places, n);
}

const struct conf_attestd_hsm *conf_attestd_hsm_find(const struct conf_attestd *conf,
                                                     const char *name)
{
    for (unsigned i = 0; i < conf->n_hsms; i++) {
        if (strcmp(conf->hsms[i].name, name) == 0) {
            return &conf->hsms[i];
        }
    }
    return NULL;
}

/* The section hsm becomes the list's first. */
static enum att_rc join(struct conf_attestd *conf, struct att_err *err)
{
    struct conf_attestd_hsm *all = calloc(conf->n_hsms + 1, sizeof *all);
    if (!all) {
        return att_fail(err, ATT_E_NOMEM, "configuration");
    }
    all[0] = *conf->hsm;
    if (conf->n_hsms) {
        memcpy(all + 1, conf->hsms, conf->n_hsms * sizeof *all);
    }
    free(conf->hsm);
    free(conf->hsms);
    conf->hsm = NULL;
    conf->hsms = all;
    conf->n_hsms++;
    return ATT_OK;
}

enum att_rc conf_hsms_settle(struct conf_attestd *conf, struct att_err *err)
{
    enum att_rc rc = conf->hsm ? join(conf, err) : ATT_OK;
    if (rc != ATT_OK || conf->n_hsms == 0) {
        return rc;
    }
    const char *wanted = conf->default_hsm ? conf->default_hsm : CONF_HSM_DEFAULT;
    const struct conf_attestd_hsm *first = conf_attestd_hsm_find(conf, wanted);
    if (first && first != conf->hsms) {
        struct conf_attestd_hsm kept = *first;
        size_t at = (size_t)(first - conf->hsms);
        memmove(conf->hsms + 1, conf->hsms, at * sizeof kept);
        conf->hsms[0] = kept;
    }
    return conf_default(&conf->default_hsm, conf->hsms[0].name)
               ? ATT_OK
               : att_fail(err, ATT_E_NOMEM, "configuration");
}
