/* A JWT-SVID exchanged for a token of somebody else's service, as a profile says
 * (attestd/conf/exchange.h). No token is ever in an error. */
#ifndef ATTESTD_CTL_EXCHANGE_H
#define ATTESTD_CTL_EXCHANGE_H

#include "attestd/base/buf.h"
#include "attestd/apiclient/agent.h"
#include "attestd/conf/exchange.h"

#define EXCHANGE_ANSWER_MAX   ((size_t)64 << 10) /* bytes of an answer */
#define EXCHANGE_TOKEN_MAX    ((size_t)16 << 10)
#define EXCHANGE_LIFETIME_MAX 86400 /* s; a token that lives longer is renewed as if it did not */

struct exchange_token {
    struct att_buf token; /* visible ASCII; the owner wipes it (exchange_token_done) */
    int64_t lifetime_s;   /* from now, 1 … EXCHANGE_LIFETIME_MAX */
};
void exchange_token_done(struct exchange_token *token);

/* The request's body (RFC 8693 §2.1, RFC 7523 §2.1 and §2.2, RFC 6749 §4.4.2). Appended; it holds
 * the JWT-SVID; jwt is NULL where the grant sends none. */
ATT_MUST_USE enum att_rc exchange_body(const struct conf_exchange *profile, const char *jwt,
                                       struct att_buf *ret_body, struct att_err *err);
/* What came. Reasons: redirect (3xx), the OAuth error's own name where it has one (RFC 6749 §5.2),
 * else answerStatus; answerForm (not JSON, or not an object), answerToken (none, or not in the form
 * of one), answerType (a token that its bearer cannot use), answerLifetime. */
ATT_MUST_USE enum att_rc exchange_answer(const struct conf_exchange *profile, int status,
                                         struct att_slice body, struct exchange_token *ret_token,
                                         struct att_err *err);
/* What a service refused: its name for it as the reason (else answerStatus), its text without what
 * may be a token; name and text: or NULL. */
ATT_MUST_USE enum att_rc exchange_refused(const char *endpoint, int status, const char *name,
                                          const char *text, struct att_err *err);
/* Both, over HTTPS: TLS 1.2 at least, host and chain verified, no redirects; proxies as the
 * environment says. agent: whose certificate and key TLS shows where the profile says so, and to
 * which the token must be bound (bound.h), else NULL; a token ends with its certificate. As
 * acme_http_perform, and the reasons above. */
ATT_MUST_USE enum att_rc exchange_run(const struct conf_exchange *profile, const char *jwt,
                                      const struct apiclient_agent *agent,
                                      struct exchange_token *ret_token, struct att_err *err);

#endif
