/* Claims as the wire form of google.protobuf.Struct (struct.proto's field numbers), which
 * ValidateJWTSVID answers with. No I/O. */
#ifndef ATTESTD_SPIFFE_JWT_CLAIMS_H
#define ATTESTD_SPIFFE_JWT_CLAIMS_H

#include "attestd/base/buf.h"

#include <jansson.h>

#define JWT_CLAIMS_DEPTH_MAX 16

/* Appends. ATT_E_LIMIT: deeper than JWT_CLAIMS_DEPTH_MAX, or longer than ret's maximum. */
ATT_MUST_USE enum att_rc jwt_claims_encode(const json_t *object, struct att_buf *ret,
                                           struct att_err *err);

#endif
