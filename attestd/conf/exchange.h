/* Profiles of token exchanges: how a JWT-SVID becomes a token of somebody else's service. One file
 * for each, /etc/attestd/exchange.d/NAME.yaml:
 *
 *   endpoint: https://sts.googleapis.com/v1/token    https only
 *   grant: token-exchange        RFC 8693; jwt-bearer: RFC 7523 §2.1; client-assertion: RFC 7523
 *                                §2.2 with client_credentials
 *   audience: AUDIENCE           of the JWT-SVID
 *   body: form                   or json, for services that want that; default form
 *   client_id: ID                sent when given; client-assertion requires it
 *   subject_token_type: URN      token-exchange only; default …:token-type:jwt
 *   fields: { scope: S }         more of the request, sent as they are; never what the grant sets
 *   token: access_token          path in the answer, "a.b" goes deeper
 *   lifetime: 5m                 believed where the answer has no expires_in; default 5m
 *   timeout: 10s                 of the whole exchange, 1 s to 60 s; default 10s
 *   ca_file: /path               instead of the system's roots
 *
 * Immutable once made; see conf.h for errors. No secret belongs into a profile. */
#ifndef CONF_EXCHANGE_H
#define CONF_EXCHANGE_H

#include "attestd/conf/conf.h"

#define CONF_EXCHANGE_FIELDS_MAX 32
#define CONF_EXCHANGE_TEXT_MAX   4096 /* bytes of a value */
#define CONF_EXCHANGE_ROOTS      "/etc/ssl/certs/ca-certificates.crt"

enum conf_grant { CONF_GRANT_TOKEN_EXCHANGE, CONF_GRANT_JWT_BEARER, CONF_GRANT_CLIENT_ASSERTION };

struct conf_exchange_field {
    char *name, *value;
};
struct conf_exchange {
    char *endpoint, *audience, *client_id, *subject_token_type, *token, *ca_file;
    /* client_id: NULL when not given; subject_token_type: NULL unless token-exchange */
    enum conf_grant grant;
    bool json; /* the body */
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
