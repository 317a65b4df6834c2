/* gRPC over HTTP/2 with prior knowledge, the server's side of one connection: libnghttp2 for
 * frames and HPACK, libevent for waiting, no thread. A call has one request message and one answer
 * (unary) or many (server streaming), or many of both (bidirectional streaming: each request
 * message is the handler's as soon as it is whole, none is queued). Everything a peer can make us
 * keep is bounded: headers, requests, streams, what is queued for a stream (the newest message, and
 * the one that is being sent; or a few answers in order) and for the socket. Who does not read is
 * cut.
 *
 * Everything here runs in the thread of the event base. */
#ifndef ATTESTD_SPIFFE_GRPC_H
#define ATTESTD_SPIFFE_GRPC_H

#include "attestd/base/err.h"
#include "attestd/base/slice.h"
#include "attestd/spiffe/header.h"

#include <sys/types.h>

#define GRPC_REQUEST_MAX ((size_t)64 << 10)  /* bytes of a request message */
#define GRPC_WAITING_MAX ((size_t)256 << 10) /* of all unfinished requests of a connection */
#define GRPC_ANSWER_MAX  ((size_t)4 << 20)   /* what clients take by default */
#define GRPC_STREAMS_MAX 128                 /* open at one time on a connection */
#define GRPC_QUEUE_MAX   8 /* answers that wait in order behind the one under way */

struct event_base;
struct grpc_conn;
struct grpc_call;

/* An answer, shared by the streams that it goes to. */
struct grpc_bytes {
    unsigned refs;
    bool secret;    /* wiped with the last reference, and where it was sent from; a call that is
                       refused does not send it any more */
    bool own;       /* one stream's alone: counted while it waits (grpc_handler.waits) */
    size_t len;     /* with the prefix of a message */
    uint8_t data[]; /* prefix and message */
};
/* One reference, the caller's; room for len bytes of message at data + 5. NULL: no memory, or more
 * than GRPC_ANSWER_MAX. */
struct grpc_bytes *grpc_bytes_new(size_t len);
struct grpc_bytes *grpc_bytes_ref(struct grpc_bytes *bytes);
void grpc_bytes_unref(struct grpc_bytes *bytes);

enum grpc_kind {
    GRPC_UNARY,
    GRPC_SERVER_STREAM, /* answers more than once */
    GRPC_BIDI           /* is asked more than once, too */
};

struct grpc_method {
    const char *path; /* NULL ends the list */
    enum grpc_kind kind;
    const char *mark; /* a header that must come exactly once with the value "true"; NULL: none */
    int id;           /* the handler's own */
};

struct grpc_handler {
    /* The whole request is here. message borrows. The handler answers now or later. GRPC_BIDI: for
     * each message; the call ends with OK when the client has sent its last. */
    void (*request)(void *user, struct grpc_call *call, const struct grpc_method *method,
                    struct att_slice message);
    /* The call is over, whoever ended it; only for calls that request was called for. */
    void (*ended)(void *user, struct grpc_call *call);
    /* The connection is over and all its calls; user is not used any more. */
    void (*closed)(void *user);
    /* Why it was cut, for the log; may be NULL. */
    void (*cut)(void *user, const char *why);
    /* grpc_conn_challenge was answered; NULL where that is not called. */
    void (*answered)(void *user);
    /* A call begins; before its headers. False: too many, it gets an error. May be NULL. */
    bool (*begin)(void *user);
    /* One for which begin was true is no more. */
    void (*end)(void *user);
    /* So many bytes of answers that are one stream's alone wait for this peer's reading from now
     * on, or, negative, do not any more. May be NULL. */
    void (*waits)(void *user, int64_t bytes);
};

struct grpc_opts {
    struct event_base *base;
    const struct grpc_method *methods;
    const struct grpc_handler *handler;
    int64_t slow_ms;  /* a stream or connection that takes nothing for so long is cut, and a request
                         that is not complete by then */
    int64_t hello_ms; /* within which the client's preface and SETTINGS come */
};

/* fd is the connection's from here on, also when it fails. writer: the only process whose bytes are
 * taken (SCM_CREDENTIALS; the socket has SO_PASSCRED on), 0: any. opts stay the caller's and must
 * last. */
ATT_MUST_USE enum att_rc grpc_conn_new(const struct grpc_opts *opts, int fd, pid_t writer,
                                       void *user, struct grpc_conn **ret_conn,
                                       struct att_err *err);
/* Asks for a sign of the writer now: a PING (RFC 9113 §6.7) with bytes that nobody knew before. The
 * handler's answered is called when they came back, from the writer like everything else; not
 * within hello_ms: it is cut. Once for a connection. ATT_E_NOMEM, or the errors of att_random. */
ATT_MUST_USE enum att_rc grpc_conn_challenge(struct grpc_conn *conn, struct att_err *err);
/* Ends it soon, from the event base. why (static): for the log; NULL: not for what it did, and
 * calls that were finished are answered first as far as the socket takes it. */
void grpc_conn_cut(struct grpc_conn *conn, const char *why);
/* Ends it now, with all its calls; not from inside a handler. */
void grpc_conn_free(struct grpc_conn *conn);
/* Looks for peers that read nothing; about once a second. */
void grpc_conn_tick(struct grpc_conn *conn);
void *grpc_conn_user(const struct grpc_conn *conn);

struct grpc_conn *grpc_call_conn(const struct grpc_call *call);
void grpc_call_set(struct grpc_call *call, void *state); /* the handler's own */
void *grpc_call_get(const struct grpc_call *call);
/* Takes a reference. On a stream a message that was not begun yet gives way to a newer one: each is
 * the complete state. */
void grpc_call_send(struct grpc_call *call, struct grpc_bytes *bytes);
/* The same for a call whose messages are answers of their own, which all go out, in order; not
 * together with grpc_call_send. False: too many wait, nothing was taken. */
bool grpc_call_append(struct grpc_call *call, struct grpc_bytes *bytes);
/* After what was sent. message: a sentence for people; NULL: none. Nothing may be sent after it. */
void grpc_call_finish(struct grpc_call *call, enum grpc_status status, const char *message);
bool grpc_call_finished(const struct grpc_call *call);
/* The header attestd-fresh came; attestd-kept is to go with the first message. */
bool grpc_call_wants_fresh(const struct grpc_call *call);
void grpc_call_kept(struct grpc_call *call);

#endif
