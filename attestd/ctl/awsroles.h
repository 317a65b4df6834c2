/* AWS IAM Roles Anywhere: temporary credentials for a certificate. CreateSession is signed with the
 * agent's key where it is (SigV4-X509), and what comes is given as the AWS SDKs' credential_process
 * expects it. No secret is ever in an error. */
#ifndef ATTESTD_CTL_AWSROLES_H
#define ATTESTD_CTL_AWSROLES_H

#include "attestd/apiclient/agent.h"
#include "attestd/ctl/exchange.h"

/* A request before and after it is signed. */
struct awsroles_request {
    struct att_buf body, x509, chain; /* chain: empty where there is no intermediate certificate */
    struct att_buf canonical, signed_headers, to_sign;
    const char *algorithm;
    char date[17];   /* 20211103T120000Z */
    char scope[128]; /* 20211103/eu-west-1/rolesanywhere/aws4_request */
    char host[300];
    char serial[64]; /* decimal */
};
/* chain: the agent's certificate first. now: UTC seconds. ATT_E_INVAL: a serial number, host or
 * region that has no place; ATT_E_LIMIT: more than five intermediate certificates. */
ATT_MUST_USE enum att_rc awsroles_prepare(const struct conf_exchange *profile,
                                          const STACK_OF(X509) * chain,
                                          enum apiclient_key_type type, int64_t now,
                                          struct awsroles_request *ret_request,
                                          struct att_err *err);
void awsroles_request_done(struct awsroles_request *request);
/* The value of the header Authorization; signature: over to_sign. Appended. */
ATT_MUST_USE enum att_rc awsroles_authorization(const struct awsroles_request *request,
                                                struct att_slice signature,
                                                struct att_buf *ret_value, struct att_err *err);
/* What came. ret_token: one line of JSON, credential_process version 1. error_type: of the header
 * X-Amzn-ErrorType, or "". Reasons: the service's own (AccessDeniedException), else answerStatus;
 * redirect, answerForm, answerToken (no credentials, or not in their form), answerLifetime (no
 * expiration, or it is over). */
ATT_MUST_USE enum att_rc awsroles_answer(const struct conf_exchange *profile, int status,
                                         const char *error_type, struct att_slice body, int64_t now,
                                         struct exchange_token *ret_token, struct att_err *err);
/* All of it, over HTTPS as exchange_run. */
ATT_MUST_USE enum att_rc awsroles_run(const struct conf_exchange *profile,
                                      const struct apiclient_agent *agent,
                                      struct exchange_token *ret_token, struct att_err *err);

#endif
