/* An enrolment ticket: the file that `attestctl ticket create` writes. */
#ifndef ATTESTD_HOST_TICKET_H
#define ATTESTD_HOST_TICKET_H

#include "attestd/base/hash.h"
#include "attestd/base/secret.h"

#define HOST_TICKET_MAX ((size_t)16 << 10)

struct host_ticket {
    char url[2049]; /* issuer's base URL */
    char ca_sha256[65];
    uint8_t ca_sha256_bytes[ATT_SHA256_LEN];
    char kid[257];
    char host[257];            /* label, may be empty; for people only */
    struct att_secret mac_key; /* 32 bytes */
};
void host_ticket_done(struct host_ticket *ticket);

/* {"url", "caSha256", "kid", "macKey", "host"?}, nothing else. */
ATT_MUST_USE enum att_rc host_ticket_parse(struct att_slice text, struct host_ticket *ret_ticket,
                                           struct att_err *err);
/* The configured file (may be NULL), else $CREDENTIALS_DIRECTORY/attestd.ticket. ATT_E_NOTFOUND
 * when neither is there. */
ATT_MUST_USE enum att_rc host_ticket_load(const char *file, struct host_ticket *ret_ticket,
                                          struct att_err *err);

#endif
