/* What the evidence says of the HSM that has a key. */
#include "attestd/host/issue.h"

#include <stdio.h>
#include <string.h>

static bool take_text(const json_t *object, const char *name, char *ret, size_t room)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text && (size_t)snprintf(ret, room, "%s", text) < room;
}

/* What keyd heard of the module's token; nothing: it is left out, which no check rests on. */
static void put_hsm_token(struct host *host, struct evidence_statement *st)
{
    struct evidence_hsm_token *token = &st->hsm_token;
    att_autojson *info = NULL;
    const json_t *modules, *module;
    size_t i;
    if (proc_keyd_info(host->keyd, &info, NULL) != ATT_OK) {
        return;
    }
    modules = json_object_get(host_hsm_info(info), "modules");
    json_array_foreach(modules, i, module)
    {
        const char *name = json_string_value(json_object_get(module, "name"));
        const json_t *from = json_object_get(module, "token");
        if (name && strcmp(name, st->hsm) == 0) {
            st->has_hsm_token =
                take_text(from, "manufacturer", token->manufacturer, sizeof(token->manufacturer)) &&
                take_text(from, "model", token->model, sizeof(token->model)) &&
                take_text(from, "serial", token->serial, sizeof(token->serial));
        }
    }
}

void host_issue_put_hsm(const struct host_issue *job, const struct acme_wanted *wanted,
                        struct evidence_statement *st)
{
    const struct proc_key *key = &job->key;
    _Static_assert(sizeof(key->hsm) == sizeof(st->hsm), "a module's name fits");
    if (wanted->reads_hsm && strcmp(key->store, "hsm") == 0) {
        memcpy(st->hsm, key->hsm, sizeof(st->hsm));
        if (wanted->reads_hsm_token && st->hsm[0]) {
            put_hsm_token(job->host, st);
        }
    }
}
