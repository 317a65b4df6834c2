/* One token for attestctl token: a JWT-SVID from attestd, what a profile's service gives for one,
 * or what it gives for the agent's own certificate and key; from a cache where there is one. Errors
 * are reported here. */
#ifndef ATTESTD_CTL_TOKENGET_H
#define ATTESTD_CTL_TOKENGET_H

#include "attestd/base/hash.h"
#include "attestd/conf/exchange.h"
#include "attestd/ctl/ctl.h"

struct tokenget_job {
    const struct ctl_ctx *ctx;
    const char *audience, *name, *cache; /* cache: NULL or a file */
    const struct conf_exchange *profile; /* NULL: the JWT-SVID itself */
};
struct tokenget {
    json_t *result; /* {"token", "expiresAt", "boundTo"?}; tokenget_done */
    int64_t expires_at;
    bool bound;                     /* to a certificate, which has … */
    uint8_t sha256[ATT_SHA256_LEN]; /* … this digest */
};
void tokenget_done(struct tokenget *got);

enum ctl_exit tokenget_run(const struct tokenget_job *job, struct tokenget *ret_got);
/* A token that is bound to a certificate which is not in force any more. False also where nobody
 * says which one is. */
bool tokenget_outdated(const struct tokenget *got);

#endif
