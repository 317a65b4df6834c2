/* Profiles of token exchanges: how a JWT-SVID becomes a token of somebody else's service. One file
 * for each, /etc/attestd/exchange.d/NAME.yaml:
 *
 *   endpoint: https://sts.googleapis.com/v1/token    https only
 *   grant: token-exchange        RFC 8693; jwt-bearer: RFC 7523 §2.1; client-assertion: RFC 7523
 *                                §2.2 with client_credentials; client-credentials: by the
 *                                certificate alone; aws-roles-anywhere: CreateSession, below
 *   audience: AUDIENCE           of the JWT-SVID; not where none is sent
 *   body: form                   or json, for services that want that; default form
 *   client_id: ID                sent when given; client-assertion and client_auth require it
 *   client_auth: tls             the agent's certificate and key in TLS (RFC 8705 §2.1); default
 * none bound: required              with client_auth: the token must say that it is bound to that
 *                                certificate (RFC 8705 §3); or unchecked
 *   introspection: URL           where that is asked (RFC 7662); without it the token is a JWT
 *   subject_token_type: URN      token-exchange only; default …:token-type:jwt
 *   fields: { scope: S }         more of the request, sent as they are; never what the grant sets
 *   token: access_token          path in the answer, "a.b" goes deeper
 *   lifetime: 5m                 believed where the answer has no expires_in; default 5m
 *   timeout: 10s                 of the whole exchange, 1 s to 60 s; default 10s
 *   ca_file: /path               instead of the system's roots
 *
 * Of aws-roles-anywhere only, which knows of the above endpoint (…/sessions), timeout and ca_file:
 *   trust_anchor_arn, profile_arn, role_arn: ARN;  region: eu-central-1
 *   session_duration: 1h         15m to 12h; default the service's
 *   session_name: NAME           2 to 64 of [A-Za-z0-9_=,.@-]
 *
 * Immutable once made; see conf.h for errors. No secret belongs into a profile. */
#ifndef CONF_EXCHANGE_H
#define CONF_EXCHANGE_H

#include "attestd/conf/conf.h"

#define CONF_EXCHANGE_FIELDS_MAX 32
#define CONF_EXCHANGE_TEXT_MAX   4096 /* bytes of a value */
#define CONF_EXCHANGE_ROOTS      "/etc/ssl/certs/ca-certificates.crt"

enum conf_grant {
    CONF_GRANT_TOKEN_EXCHANGE,
    CONF_GRANT_JWT_BEARER,
    CONF_GRANT_CLIENT_ASSERTION,
    CONF_GRANT_CLIENT_CREDENTIALS,
    CONF_GRANT_AWS_ROLES_ANYWHERE,
};

struct conf_exchange_field {
    char *name, *value;
};
/* NULL and 0 where the grant is another. */
struct conf_aws {
    char *trust_anchor_arn, *profile_arn, *role_arn, *region, *session_name; /* the last: or NULL */
    int64_t duration_s;                                                      /* 0: not given */
};
struct conf_exchange {
    char *endpoint, *audience, *client_id, *subject_token_type, *token, *ca_file;
    /* audience, client_id: NULL when not given; subject_token_type: NULL unless token-exchange */
    enum conf_grant grant;
    bool json; /* the body */
    bool client_tls, bound_required;
    char *introspection; /* NULL: none */
    struct conf_aws aws;
    struct conf_exchange_field fields[CONF_EXCHANGE_FIELDS_MAX];
    size_t n_fields;
    int64_t lifetime_s, timeout_s;
};

ATT_MUST_USE enum att_rc conf_exchange_parse(struct att_slice yaml,
                                             struct conf_exchange **ret_exchange,
                                             struct conf_errors *errors, struct att_err *err);
ATT_MUST_USE enum att_rc conf_exchange_load(const char *path, struct conf_exchange **ret_exchange,
                                            struct conf_errors *errors, struct att_err *err);
void conf_exchange_free(struct conf_exchange *exchange);

#endif
