/* What the files of the transport share: conn.c (sockets, frames), call.c (one stream). */
#ifndef ATTESTD_SPIFFE_INTERNAL_H
#define ATTESTD_SPIFFE_INTERNAL_H

#include "attestd/spiffe/budget.h"
#include "attestd/spiffe/grpc.h"
#include "attestd/spiffe/inbox.h"

#include <event2/event.h>
#include <nghttp2/nghttp2.h>

#define GRPC_OUT_MAX           65536 /* bytes waiting for the socket */
#define GRPC_CONTINUATIONS_MAX 4     /* of one header block, and … */
#define GRPC_BLOCK_MAX         32768 /* … its bytes before HPACK */

struct grpc_call {
    struct grpc_call *next, **at; /* of the connection's list */
    struct grpc_conn *conn;
    int32_t stream;
    struct grpc_headers headers;
    const struct grpc_method *method;
    struct grpc_inbox inbox;
    bool begun;     /* the handler has seen it */
    bool counted;   /* the handler's end is to be called */
    bool refused;   /* the handler's begin was false */
    bool answered;  /* response headers are submitted */
    bool finished;  /* status is set */
    bool deferred;  /* libnghttp2 waits for resume_data */
    bool done;      /* trailers are submitted */
    bool delivered; /* a whole message went to libnghttp2 */
    bool kept;      /* attestd-kept is to be said */
    bool remote_ended;
    enum grpc_status status;
    char *status_text;
    struct grpc_bytes *now, *later;
    struct grpc_bytes *queue[GRPC_QUEUE_MAX]; /* of grpc_call_append, oldest first */
    unsigned queued;
    size_t sent;              /* of now */
    int64_t waiting_since_ms; /* to be sent, and nothing was; 0: nothing waits */
    int64_t made_ms;
    struct event *deadline;
    void *state;
};

struct grpc_conn {
    const struct grpc_opts *opts;
    void *user;
    int fd;
    pid_t writer;
    nghttp2_session *session;
    struct event *readable, *writable, *work;
    struct grpc_call *calls;
    struct grpc_budget budget;
    size_t waiting; /* bytes of unfinished requests */
    unsigned continuations;
    size_t block;       /* bytes of the header block under way */
    const uint8_t *out; /* what libnghttp2 gave and the socket did not take; its own memory */
    size_t out_len;
    bool out_secret; /* … and it is wiped when the socket took it */
    int64_t out_since_ms, made_ms;
    bool hello; /* the client's SETTINGS came */
    uint8_t challenge[8];
    bool challenged; /* and not answered yet */
    bool cut, in_work, over;
    const char *why;
};

/* ---- call.c ---- */
struct grpc_call *grpc_call_new(struct grpc_conn *conn, int32_t stream);
void grpc_call_free(struct grpc_call *call);
/* All of its headers are here. */
void grpc_call_headers(struct grpc_call *call);
void grpc_call_data(struct grpc_call *call, struct att_slice bytes);
void grpc_call_end(struct grpc_call *call); /* of the request */
void grpc_call_tick(struct grpc_call *call, int64_t now_ms);

/* ---- conn.c ---- */
void grpc_conn_wake(struct grpc_conn *conn); /* there is something to send, or to end */

#endif
