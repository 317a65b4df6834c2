/* SPIFFE IDs (SPIFFE-ID standard §2) and where they stand in certificates (X509-SVID §2, §4). */
#ifndef CERTS_SAN_H
#define CERTS_SAN_H

#include "attestd/base/buf.h"

#include <openssl/x509.h>

#define CERTS_SPIFFE_ID_MAX    2048 /* bytes, without NUL */
#define CERTS_TRUST_DOMAIN_MAX 255
#define CERTS_AGENT_NAME_MAX   64
#define CERTS_IDENTIFIER_MAX   255 /* of a permanent identifier, bytes */

struct certs_spiffe_id {
    struct att_slice trust_domain; /* borrowed from the text, both */
    struct att_slice path;         /* with its leading '/'; empty for a trust domain's own id */
};

/* spiffe:// + trust domain [a-z0-9.-_]{1,255} + segments of [a-zA-Z0-9.-_]+, none "." or "..", no
 * trailing slash, no query, fragment, port, user or percent escape; at most 2048 bytes in all. */
ATT_MUST_USE enum att_rc certs_spiffe_parse(struct att_slice text, struct certs_spiffe_id *ret_id,
                                            struct att_err *err);
ATT_MUST_USE enum att_rc certs_trust_domain_check(struct att_slice text, struct att_err *err);
/* [a-z0-9][a-z0-9._-]{0,63} */
ATT_MUST_USE enum att_rc certs_agent_name_check(struct att_slice name, struct att_err *err);
/* Appends spiffe://<trust domain>/agent/<name>; both are checked. */
ATT_MUST_USE enum att_rc certs_spiffe_agent(struct att_buf *ret_text, const char *trust_domain,
                                            const char *name, struct att_err *err);
/* The name in spiffe://<trust domain>/agent/<name> (borrowed from text); ATT_E_DENIED for another
 * trust domain, ATT_E_PARSE for a path that is not /agent/<name>. */
ATT_MUST_USE enum att_rc certs_spiffe_agent_name(struct att_slice text, const char *trust_domain,
                                                 struct att_slice *ret_name, struct att_err *err);

/* Appends the SPIFFE ID of a leaf: exactly one URI SAN and it is a SPIFFE ID with a path (other
 * kinds of SAN may stand beside it), X509-SVID §2 and §5.2. */
ATT_MUST_USE enum att_rc certs_san_spiffe(const X509 *cert, struct att_buf *ret_text,
                                          struct att_err *err);

/* 1 to CERTS_IDENTIFIER_MAX printable bytes of ASCII, none of them '/' or a space
 * (draft-ietf-acme-device-attest §3). */
ATT_MUST_USE enum att_rc certs_identifier_check(struct att_slice text, struct att_err *err);
/* ATT_OK when the leaf's SANs hold exactly one PermanentIdentifier (RFC 4043 §2), and its value is
 * this; names of other kinds may stand beside it. ATT_E_AUTH, reason chainSan. */
ATT_MUST_USE enum att_rc certs_san_is_permanent(const X509 *cert, const char *identifier,
                                                struct att_err *err);

#endif
