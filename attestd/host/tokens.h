/* Tokens (JWT-SVIDs) of this host's agents: asked for at the issuer, kept in memory until half of
 * their life is over, and given again while the issuer is away, as long as they live. */
#ifndef ATTESTD_HOST_TOKENS_H
#define ATTESTD_HOST_TOKENS_H

#include "attestd/base/json.h"

struct host;
struct host_tokens;

struct host_token_reply {
    char *token, *spiffe_id; /* host_token_reply_done wipes them */
    int64_t expires_at;      /* UTC seconds */
    bool kept;               /* from memory: it may have been given before */
};
void host_token_reply_done(struct host_token_reply *reply);

ATT_MUST_USE enum att_rc host_tokens_new(struct host_tokens **ret_tokens, struct att_err *err);
void host_tokens_free(struct host_tokens *tokens); /* NULL is fine */

/* What the view says of tokens: its "tokens" ({"issuer", "keys"}; NULL: the issuer mints none) and
 * each entry's "audiences". NULL: no memory. The caller owns it. */
json_t *host_tokens_view(const json_t *view);

/* fresh: not one that is kept, unless the issuer cannot be asked (reply->kept says so).
 * audience: 1 to PROC_AUDIENCES_MAX texts, order and repetition do not matter. Blocks for seconds
 * at most. ATT_E_DENIED, by reason: tokensOff, audienceDenied, noCertificate, frozen, and the
 * issuer's; ATT_E_RETRY evidenceStale and the like: the agent is renewed first, ask
 * again; tokenWait: the issuer is slow; ATT_E_LIMIT
 * tokenRate; ATT_E_INVAL; ATT_E_UNREACHABLE. */
ATT_MUST_USE enum att_rc host_token_get(struct host *host, const char *agent,
                                        const char *const *audience, size_t n, bool fresh,
                                        struct host_token_reply *ret_reply, struct att_err *err);
/* The same without asking the issuer, nor waiting for it: what is kept (also what is not fresh any
 * more, while the issuer is away or another question is on its way), or the refusal that is known;
 * ATT_E_RETRY tokenWait: another question has been on its way for long. ATT_E_NOTFOUND
 * tokenNotKept: host_token_get would ask now. */
ATT_MUST_USE enum att_rc host_token_kept(struct host *host, const char *agent,
                                         const char *const *audience, size_t n,
                                         struct host_token_reply *ret_reply, struct att_err *err);
/* {"issuer", "keys"} of the view in force. ATT_E_NOTFOUND, reason tokensOff. The caller owns it. */
ATT_MUST_USE enum att_rc host_token_keys(struct host *host, json_t **ret_tokens,
                                         struct att_err *err);

#endif
