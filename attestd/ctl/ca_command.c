/* The rotation of the issuer's authorities. */
#include "attestd/ctl/ctl.h"

#include "attestd/base/io.h"
#include "attestd/base/json.h"

#include <stdio.h>

#define KIND                                                                                       \
    {                                                                                              \
        CTL_POSITIONAL, "kind", NULL, true                                                         \
    }
#define ID                                                                                         \
    {                                                                                              \
        CTL_POSITIONAL, "id", NULL, true                                                           \
    }
#define OUT                                                                                        \
    {                                                                                              \
        CTL_OPTION, "out", NULL, false                                                             \
    }
#define FLAG(n, key)                                                                               \
    {                                                                                              \
        CTL_FLAG, n, key, false                                                                    \
    }
#define MAKING                                                                                     \
    FLAG("new-root", "newRoot"), FLAG("csr", NULL),                                                \
    {                                                                                              \
        CTL_OPTION, "keys", NULL, false                                                            \
    }

/* PEM (a request, a bundle) goes to --out, or is all that is printed. */
static enum ctl_exit show_pem(const struct ctl_ctx *ctx, const struct ctl_args *args,
                              const json_t *result)
{
    att_autojson *rest = json_deep_copy(result); /* what is in the file is not shown, too */
    const char *csr = json_string_value(json_object_get(result, "csr"));
    const char *pem = csr ? csr : json_string_value(json_object_get(result, "pem"));
    struct att_err err = {0};
    if (pem && args->out) {
        if (att_io_write_file(args->out, att_slice_str(pem), 0644, &err)) {
            return ctl_report(&err);
        }
    } else if (pem && !ctx->json && !csr) {
        fputs(pem, stdout);
        return CTL_OK;
    }
    if (ctx->json) {
        ctl_print_json(result);
        return CTL_OK;
    }
    if (args->out) {
        json_object_del(rest, "csr");
        json_object_del(rest, "pem");
    }
    ctl_print_object(rest, 0);
    return CTL_OK;
}

const struct ctl_command ctl_ca_commands[] = {
    {.noun = "ca",
     .verb = "rotate",
     .help = "takes the step of a rotation that is due, or says what is waited for",
     .at_issuer = true,
     .op = "ca.rotate",
     .params = {KIND, FLAG("start", NULL), MAKING, OUT},
     .show = show_pem},
    {.noun = "ca",
     .verb = "prepare",
     .help = "makes the next generation of an authority, or a request for its certificate",
     .at_issuer = true,
     .op = "ca.prepare",
     .params = {KIND, MAKING, OUT},
     .show = show_pem},
    {.noun = "ca",
     .verb = "chain",
     .help = "takes the certificates that came back for a request: intermediate … root",
     .at_issuer = true,
     .op = "ca.chain",
     .params = {ID, {CTL_FILE, "FILE", NULL, true}}},
    {.noun = "ca",
     .verb = "publish",
     .help = "puts a new root into every bundle; nothing is signed under it yet",
     .at_issuer = true,
     .op = "ca.publish",
     .params = {ID}},
    {.noun = "ca",
     .verb = "activate",
     .help = "lets the new generation sign, once every bundle has its root",
     .at_issuer = true,
     .op = "ca.activate",
     .params = {ID, FLAG("force", NULL)}},
    {.noun = "ca",
     .verb = "retire",
     .help = "ends an old generation that no certificate needs, or one that never signed",
     .at_issuer = true,
     .op = "ca.retire",
     .params = {ID, FLAG("force", NULL)}},
    {.noun = "ca",
     .verb = "bundle",
     .help = "the roots to trust: workload, attestation, dns or tls",
     .at_issuer = true,
     .op = "ca.bundle",
     .params = {KIND, OUT},
     .show = show_pem},
    {.noun = "ca",
     .verb = "jwt",
     .help = "the public keys of tokens, as they are published",
     .at_issuer = true,
     .op = "ca.jwt",
     .show = ctl_json_show},
    {.noun = "ca",
     .verb = "jwt-replace",
     .help = "a new key signs tokens at once; --withdraw: no other is published any more",
     .at_issuer = true,
     .op = "ca.jwt.replace",
     .params = {FLAG("withdraw", NULL)}},
    {.noun = NULL},
};
