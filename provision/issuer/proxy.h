/* The header that a balancer puts before a connection's first byte, so that whose it is stays
 * known: HAProxy's PROXY protocol, versions 1 and 2 (doc/proxy-protocol.txt, "2. The PROXY protocol
 * header"). Only who is configured as a balancer is asked for one, and then it has to be there. */
#ifndef PROVISION_ISSUER_PROXY_H
#define PROVISION_ISSUER_PROXY_H

#include "attestd/base/slice.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ISSUER_PROXY_LINE_MAX 107 /* version 1, with CR LF */
#define ISSUER_PROXY_MAX      536 /* version 2, with its TLVs; a header that is longer is refused */

/* Keep the order with issuer_proxy_word. */
enum issuer_proxy_result {
    ISSUER_PROXY_OK,
    ISSUER_PROXY_MORE,     /* all bytes belong to it, and it is not whole */
    ISSUER_PROXY_GONE,     /* the peer ended before its first byte: a check that only connects */
    ISSUER_PROXY_MISSING,  /* what came is no header */
    ISSUER_PROXY_TOO_LONG, /* no end of line in time, or a length beyond ISSUER_PROXY_MAX */
    ISSUER_PROXY_LINE,     /* version 1: not its fields */
    ISSUER_PROXY_VERSION,  /* the signature of version 2, another version */
    ISSUER_PROXY_COMMAND,  /* neither LOCAL nor PROXY */
    ISSUER_PROXY_FAMILY,   /* neither TCP over IPv4 or IPv6, nor unspecified */
    ISSUER_PROXY_ADDRESS,  /* version 2: no room for the addresses of its family */
    ISSUER_PROXY_TLV,      /* a TLV that goes beyond the header */
    ISSUER_PROXY_CUT,      /* the peer ended within it */
    ISSUER_PROXY_LATE,     /* not whole when the time for a handshake was over */
    ISSUER_PROXY_RESULTS
};

/* Whose the connection is. known false: the peer's own (LOCAL as of health checks, UNKNOWN,
 * AF_UNSPEC). IPv4-mapped IPv6 is IPv4. */
struct issuer_proxy_source {
    bool known, v6;
    uint8_t address[16]; /* network order; IPv4: the first four */
};

/* The header at the beginning of bytes. OK: it is *ret_len bytes long. */
enum issuer_proxy_result issuer_proxy_parse(struct att_slice bytes, size_t *ret_len,
                                            struct issuer_proxy_source *ret_source);

struct issuer_proxy_reader {
    uint8_t bytes[ISSUER_PROXY_MAX];
    size_t len;
};
/* Takes what has come from a socket, never a byte beyond the header, and never waits. */
enum issuer_proxy_result issuer_proxy_read(struct issuer_proxy_reader *reader, int fd,
                                           struct issuer_proxy_source *ret_source);

/* A refusal's name ("proxyMissing"), for logs and metrics, and what was expected; NULL for the
 * first three. Static. */
const char *issuer_proxy_word(enum issuer_proxy_result result);
const char *issuer_proxy_expected(enum issuer_proxy_result result);
/* "192.0.2.1", "2001:db8::1". known only. */
void issuer_proxy_text(const struct issuer_proxy_source *source, char ret[INET6_ADDRSTRLEN]);

#endif
