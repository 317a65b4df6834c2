/* attestctl token. */
#ifndef ATTESTD_CTL_TOKEN_COMMAND_H
#define ATTESTD_CTL_TOKEN_COMMAND_H

#include "attestd/ctl/ctl.h"

enum ctl_exit ctl_token_run(const struct ctl_ctx *ctx, const struct ctl_args *args,
                            const json_t *result);

#endif
