/* The headers of one gRPC request (gRPC over HTTP/2, "Requests"; RFC 9113 §8). libnghttp2's own
 * checks are switched off, because they reset what stock clients send as :authority on a unix
 * socket (a path, raw or percent-encoded, or "localhost"): what they would have refused is refused
 * here. Bytes in, verdict out; no I/O. */
#ifndef ATTESTD_SPIFFE_HEADER_H
#define ATTESTD_SPIFFE_HEADER_H

#include "attestd/base/slice.h"

#include <stdbool.h>

#define GRPC_HEADERS_MAX      64    /* fields of one request */
#define GRPC_HEADER_BYTES_MAX 16384 /* names, values and 32 a field (RFC 9113 §6.5.2) */
#define GRPC_PATH_MAX         127
#define GRPC_MARK_MAX         63

/* The codes of gRPC's status.proto that this server answers. */
enum grpc_status {
    GRPC_OK = 0,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_FAILED_PRECONDITION = 9,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
};

/* {0} at first; mark is the one further name that is looked for (NULL: none). */
struct grpc_headers {
    const char *mark;
    unsigned count, seen, marks; /* seen: bits of the known ones; marks: how often mark came */
    size_t bytes;
    bool malformed, regular, post, grpc, trailers, identity, mark_true, timeout_bad;
    bool fresh, fresh_bad; /* attestd-fresh: "true", or something else */
    int64_t timeout_us;    /* -1: none */
    char path[GRPC_PATH_MAX + 1];
    const char *why; /* of malformed */
};

enum grpc_headers_verdict {
    GRPC_HEADERS_REFUSED = 0, /* answered with grpc-status */
    GRPC_HEADERS_OK,
    GRPC_HEADERS_MALFORMED, /* RST_STREAM PROTOCOL_ERROR (RFC 9113 §8.1.1) */
    GRPC_HEADERS_HTTP,      /* answered with an HTTP status */
};

void grpc_headers_init(struct grpc_headers *headers, const char *mark);
/* False: beyond GRPC_HEADERS_MAX or GRPC_HEADER_BYTES_MAX; the connection is to end. */
bool grpc_headers_add(struct grpc_headers *headers, struct att_slice name, struct att_slice value);
/* After the last one. ret_code: the HTTP status (405, 415) or enum grpc_status; ret_why: a sentence
 * in static storage. */
enum grpc_headers_verdict grpc_headers_check(const struct grpc_headers *headers, int *ret_code,
                                             const char **ret_why);
/* The mark came exactly once, with the value "true". */
bool grpc_headers_marked(const struct grpc_headers *headers);

/* "grpc-timeout": one to eight digits and a unit of H M S m u n. False: not of that form. */
bool grpc_timeout_parse(struct att_slice value, int64_t *ret_us);
/* grpc-message: percent-encodes all but printable ASCII (and '%'); cut to fit. Returns its length.
 */
size_t grpc_message_encode(const char *text, char *ret, size_t room);

#endif
