/* Length-prefixed messages out of DATA frames: a byte (0: not compressed), a big-endian length, the
 * message (gRPC over HTTP/2, "Length-Prefixed-Message"). Bytes in, messages out; no I/O. */
#ifndef ATTESTD_SPIFFE_INBOX_H
#define ATTESTD_SPIFFE_INBOX_H

#include "attestd/base/buf.h"
#include "attestd/spiffe/header.h"

#define GRPC_PREFIX_LEN 5

struct grpc_inbox {
    uint8_t prefix[GRPC_PREFIX_LEN];
    size_t prefix_len;
    size_t want; /* bytes of the message, once the prefix is whole */
    struct att_buf message;
};

/* max: of a message; memory is taken as its bytes come, not as its prefix announces. */
void grpc_inbox_init(struct grpc_inbox *inbox, size_t max);
void grpc_inbox_done(struct grpc_inbox *inbox);
/* Takes bytes up to the end of one message; ret_used: how many. GRPC_RESOURCE_EXHAUSTED: it is
 * longer than max; GRPC_INTERNAL: it is compressed, which was not agreed on. */
enum grpc_status grpc_inbox_put(struct grpc_inbox *inbox, struct att_slice bytes, size_t *ret_used);
/* A whole message is there. */
bool grpc_inbox_full(const struct grpc_inbox *inbox);
/* Nothing is there, not even a part of a prefix. */
bool grpc_inbox_empty(const struct grpc_inbox *inbox);

#endif
