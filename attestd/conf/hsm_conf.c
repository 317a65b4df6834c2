#include "attestd/conf/hsm_conf.h"

#include "attestd/conf/p11uri.h"
#include "attestd/conf/schema.h"

#include <string.h>

#define OPT (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define STR(member, flags)                                                                         \
    CYAML_FIELD_STRING_PTR(#member, (flags), struct conf_attestd_hsm, member, 0, 4096)

const cyaml_schema_field_t conf_hsm_fields[] = {
    STR(module, CYAML_FLAG_POINTER),
    STR(token, CYAML_FLAG_POINTER),
    CYAML_FIELD_SEQUENCE_COUNT("files", OPT, struct conf_attestd_hsm, files, n_files,
                               &conf_schema_string, 0, CONF_HSM_FILES_MAX),
    STR(sandbox, OPT),
    CYAML_FIELD_UINT("sessions", CYAML_FLAG_OPTIONAL, struct conf_attestd_hsm, sessions),
    CYAML_FIELD_END,
};

bool conf_hsm_defaults(struct conf_attestd_hsm *hsm)
{
    return !hsm || conf_default(&hsm->sandbox, "local");
}

/* The text of the URI is never shown: somebody may have written a PIN into it. */
void conf_hsm_check(struct conf_check *check, struct conf_attestd_hsm *hsm)
{
    static const char *const sandboxes[] = {"local", "network", NULL};
    struct conf_p11uri uri;
    struct att_err err = {0};
    (void)conf_check_path(check, "hsm.module", hsm->module);
    if (conf_p11uri_parse(att_slice_str(hsm->token), &uri, &err) != ATT_OK) {
        conf_bad(check, "hsm.token", "%s", err.msg);
    }
    (void)conf_check_word(check, "hsm.sandbox", hsm->sandbox, sandboxes);
    for (unsigned i = 0; i < hsm->n_files; i++) {
        struct conf_path at = conf_path("hsm.files[%u]", i);
        (void)conf_check_path(check, at.text, hsm->files[i]);
    }
    hsm->sessions = hsm->sessions ? hsm->sessions : 4;
    if (hsm->sessions > CONF_HSM_SESSIONS_MAX) {
        conf_bad(check, "hsm.sessions", "expected 1 … %d, found %u", CONF_HSM_SESSIONS_MAX,
                 hsm->sessions);
    }
    hsm->network = strcmp(hsm->sandbox, "network") == 0;
}
