/* attestctl token: a JWT-SVID for who may use attestd's control socket. */
#include "attestd/base/io.h"
#include "attestd/ctl/token_command.h"

#include <stdio.h>
#include <string.h>

/* Whoever reads the file can use the token: nobody but the caller, and never half of it. */
enum ctl_exit ctl_token_show(const struct ctl_ctx *ctx, const struct ctl_args *args,
                             const json_t *result)
{
    char until[64];
    const char *token = json_string_value(json_object_get(result, "token"));
    struct att_err err = {0};
    if (!token) {
        (void)!att_fail(&err, ATT_E_PROTOCOL, "attestd answered without a token");
        return ctl_report(&err);
    }
    if (args->out) {
        if (att_io_write_file(args->out, att_slice_str(token), 0600, &err) != ATT_OK) {
            return ctl_report(&err);
        }
        printf("%s: until %s\n", args->out, ctl_text(result, "expiresAt", until, sizeof until));
    } else if (ctx->json) {
        ctl_print_json(result);
    } else {
        puts(token);
    }
    return CTL_OK;
}
