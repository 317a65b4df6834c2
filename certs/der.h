/* A few lines of DER (X.690) for this folder: a writer for what we build and a strict reader for
 * the small structures that OpenSSL has no type for. Internal to certs/. */
#ifndef CERTS_DER_H
#define CERTS_DER_H

#include "attestd/base/buf.h"

#define DER_BOOLEAN      0x01
#define DER_INTEGER      0x02
#define DER_BITS         0x03
#define DER_OCTETS       0x04
#define DER_OID          0x06
#define DER_UTF8         0x0c
#define DER_PRINTABLE    0x13
#define DER_SEQUENCE     0x30
#define DER_SET          0x31
#define DER_CONTEXT(n)   (0x80 | (n)) /* primitive */
#define DER_CONTEXT_C(n) (0xa0 | (n)) /* constructed */

/* AlgorithmIdentifier of ecdsa-with-SHA256 (RFC 5758 §3.2: no parameters). */
extern const struct att_slice certs_der_ecdsa_sha256;
/* AlgorithmIdentifier of sha256WithRSAEncryption (RFC 4055 §5: parameters NULL). */
extern const struct att_slice certs_der_rsa_sha256;

/* Opens an element; the mark goes to der_end, which writes the length in front of what came since.
 */
size_t certs_der_begin(struct att_buf *buf, uint8_t tag);
void certs_der_end(struct att_buf *buf, size_t mark);
void certs_der_put(struct att_buf *buf, uint8_t tag, struct att_slice content);
/* Unsigned big-endian bytes as a minimal positive INTEGER. */
void certs_der_put_uint(struct att_buf *buf, struct att_slice bytes);
/* Dotted text; buf fails on anything else. Arcs up to 128 bits (the UUID arc 2.25). */
void certs_der_put_oid(struct att_buf *buf, const char *dotted);
/* UTCTime through 2049, GeneralizedTime after (RFC 5280 §4.1.2.5). */
void certs_der_put_time(struct att_buf *buf, int64_t utc_s);

/* The content of the next element, which must have this tag and a definite length in its shortest
 * form; else cur fails and the slice is empty. */
struct att_slice certs_der_take(struct att_cur *cur, uint8_t tag);
/* The next element whole, header included. */
struct att_slice certs_der_take_whole(struct att_cur *cur, uint8_t tag);

#endif
