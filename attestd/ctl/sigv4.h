/* AWS Signature Version 4 as far as a request without a query needs it: the canonical request and
 * the string to sign ("AWS Signature Version 4 for API requests"; for X.509 keys "The IAM Roles
 * Anywhere authentication signing process"). No key is here. */
#ifndef ATTESTD_CTL_SIGV4_H
#define ATTESTD_CTL_SIGV4_H

#include "attestd/base/buf.h"

#define SIGV4_HEADERS_MAX 16

struct sigv4_header {
    const char *name; /* in lower case */
    const char *value;
};
struct sigv4_request {
    const char *method;
    const char *path;                   /* of the URL, from its "/"; encoded once more here */
    const struct sigv4_header *headers; /* all are signed; in any order, none twice */
    size_t n_headers;
    struct att_slice body;
};

/* ret_signed: "host;x-amz-date". Both appended. ATT_E_INVAL: too many headers, or one twice. */
ATT_MUST_USE enum att_rc sigv4_canonical(const struct sigv4_request *request,
                                         struct att_buf *ret_text, struct att_buf *ret_signed,
                                         struct att_err *err);
/* date: "20150830T123600Z"; scope: "20150830/us-east-1/service/aws4_request". Appended. */
ATT_MUST_USE enum att_rc sigv4_string_to_sign(const char *algorithm, const char *date,
                                              const char *scope, struct att_slice canonical,
                                              struct att_buf *ret_text, struct att_err *err);

#endif
