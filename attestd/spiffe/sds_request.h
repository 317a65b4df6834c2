/* A DiscoveryRequest of Envoy's Secret Discovery Service (xDS v3, state of the world). Bytes in,
 * struct out; no I/O. */
#ifndef ATTESTD_SPIFFE_SDS_REQUEST_H
#define ATTESTD_SPIFFE_SDS_REQUEST_H

#include "attestd/base/slice.h"

#include <stdbool.h>
#include <stddef.h>

#define SDS_SECRET_TYPE "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
#define SDS_NAMES_MAX   16
#define SDS_NAME_MAX    512 /* bytes */
#define SDS_TOKEN_MAX   64  /* of a version or a nonce: ours are shorter */
#define SDS_DETAIL_MAX  200 /* bytes that are kept of a client's words */

struct sds_request {
    char *names; /* sorted, each once, a newline behind each; owned. "": none */
    size_t name_count;
    char version[SDS_TOKEN_MAX + 1], nonce[SDS_TOKEN_MAX + 1];
    bool rejects; /* error_detail is there */
    char detail[SDS_DETAIL_MAX + 1];
};

/* NULL, and *ret, which the caller gives to sds_request_done; or what is wrong with it, a sentence
 * in static storage, and *ret is untouched. */
const char *sds_request_parse(struct att_slice message, struct sds_request *ret);
void sds_request_done(struct sds_request *request);

/* What a request means to a stream ("xDS REST and gRPC protocol", ACK/NACK and resource updates).
 */
enum sds_meaning {
    SDS_STALE,      /* answers a response that is not the last one: as if it had not come */
    SDS_SUBSCRIBES, /* answers none: the first one, or names before any response came */
    SDS_ACCEPTS,
    SDS_REJECTS /* with error_detail, or with another version than that of the response */
};
/* nonce, version: of the last response of this stream; nonce "": there was none. first: nothing
 * came on this stream before. */
enum sds_meaning sds_request_meaning(const struct sds_request *request, bool first,
                                     const char *nonce, const char *version);

#endif
