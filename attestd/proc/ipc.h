/* Frames and messages between attestd's processes on one host: a table of operations, each with
 * its request's and reply's fields as data, one strict codec for all of them, and a server.
 *
 * A frame is be32 length (of what follows it, at most PROC_FRAME_MAX), be32 id, be16 operation,
 * payload. A reply repeats id and carries the operation | PROC_REPLY; its payload starts with one
 * byte: 0, then the reply's fields, or 1, then three texts: code (att_rc_name), reason, message. */
#ifndef ATTESTD_PROC_IPC_H
#define ATTESTD_PROC_IPC_H

#include "attestd/base/buf.h"
#include "attestd/proc/peer.h"

#define PROC_FRAME_MAX  ((size_t)256 << 10) /* bytes after the length word */
#define PROC_HEADER_LEN 6                   /* id, operation */
#define PROC_REPLY      0x8000u
#define PROC_FIELDS_MAX 18
#define PROC_ITEMS_MAX  256

/* How a field travels. BYTES and TEXT: be32 length and the bytes; TEXT holds no NUL and no control
 * character and is valid UTF-8. LIST: be32 count, then each item as BYTES. Numbers are big-endian.
 */
enum proc_type { PROC_U32 = 1, PROC_U64, PROC_BYTES, PROC_TEXT, PROC_LIST };

struct proc_field {
    const char *name;
    enum proc_type type;
    /* BYTES, TEXT: bounds of the length in bytes. LIST: bounds of the count. Numbers: of the value.
     */
    uint32_t min, max;
    uint32_t item_max; /* LIST: the longest item in bytes */
};

/* A list of fields; ends at the first without a name. */
struct proc_shape {
    struct proc_field fields[PROC_FIELDS_MAX];
};

enum proc_op_flag {
    PROC_OP_AGAIN = 1,  /* harmless to repeat: the client may resend it when the peer went away */
    PROC_OP_FD = 2,     /* exactly one descriptor travels with the request (SCM_RIGHTS) */
    PROC_OP_SECRET = 4, /* the server wipes its copies of the reply once it is sent */
};

struct proc_op {
    uint16_t op;
    uint16_t flags;
    const char *name;
    struct proc_shape request, reply;
};
/* table ends at the first without a name. NULL: none. */
const struct proc_op *proc_op_find(const struct proc_op *table, uint16_t op);

/* One field's value: num for numbers, bytes for BYTES and TEXT, items for LIST. */
struct proc_value {
    uint64_t num;
    struct att_slice bytes;
    const struct att_slice *items;
    size_t item_count;
};

/* The values of a message, in its shape's order. Borrows from the frame and from itself. */
struct proc_msg {
    struct proc_value v[PROC_FIELDS_MAX];
    size_t count;
    struct att_slice items[PROC_ITEMS_MAX]; /* where the lists' items stand */
    size_t items_used;
};

/* Decodes fields of this shape, exactly: bounds are checked and nothing may be left. ATT_E_PARSE or
 * ATT_E_LIMIT names the field. */
ATT_MUST_USE enum att_rc proc_msg_parse(const struct proc_shape *shape, struct att_slice payload,
                                        struct proc_msg *ret_msg, struct att_err *err);
/* Appends the fields; the same bounds hold (ATT_E_INVAL or ATT_E_LIMIT names the field). */
ATT_MUST_USE enum att_rc proc_msg_encode(const struct proc_shape *shape,
                                         const struct proc_value *values, struct att_buf *ret_bytes,
                                         struct att_err *err);

/* A frame without its length word. */
struct proc_frame {
    uint32_t id;
    uint16_t op;
    struct att_slice payload; /* borrowed */
};
ATT_MUST_USE enum att_rc proc_frame_parse(struct att_slice bytes, struct proc_frame *ret_frame,
                                          struct att_err *err);
/* Appends a whole frame, length word included. */
ATT_MUST_USE enum att_rc proc_frame_encode(uint32_t id, uint16_t op, struct att_slice payload,
                                           struct att_buf *ret_bytes, struct att_err *err);

/* The reply's payload: status byte and fields, or status byte and error. */
ATT_MUST_USE enum att_rc proc_reply_encode(const struct proc_op *op,
                                           const struct proc_value *values,
                                           struct att_buf *ret_payload, struct att_err *err);
void proc_reply_encode_err(enum att_rc rc, const struct att_err *cause,
                           struct att_buf *ret_payload);
/* ATT_OK and the fields; or the peer's error, with its code, reason and message in err; or
 * ATT_E_PROTOCOL when the bytes are not a reply to op. */
ATT_MUST_USE enum att_rc proc_reply_parse(const struct proc_op *op, struct att_slice payload,
                                          struct proc_msg *ret_msg, struct att_err *err);

/* The code whose att_rc_name is name; ATT_E_PROTOCOL for a name that is none. */
enum att_rc proc_rc_by_name(struct att_slice name);

/* ---- transport: blocking descriptors, absolute deadlines on att_boottime_ms ---- */

/* Sends or receives a whole frame. ATT_E_TIMEOUT at the deadline, ATT_E_GONE when the peer closed,
 * ATT_E_LIMIT when it announces more than PROC_FRAME_MAX. deadline_ms < 0 waits for ever. */
ATT_MUST_USE enum att_rc proc_frame_send(int fd, struct att_slice frame, int64_t deadline_ms,
                                         struct att_err *err);
/* The same; passed (borrowed; -1: none) travels with the first byte. */
ATT_MUST_USE enum att_rc proc_frame_send_fd(int fd, struct att_slice frame, int passed,
                                            int64_t deadline_ms, struct att_err *err);
/* The frame without its length word replaces the content of ret_bytes. */
ATT_MUST_USE enum att_rc proc_frame_recv(int fd, struct att_buf *ret_bytes, int64_t deadline_ms,
                                         struct att_err *err);

/* The same; a descriptor that came with it is the caller's to close (-1: none came). More than one
 * is ATT_E_PROTOCOL, and none of them stays open. */
ATT_MUST_USE enum att_rc proc_frame_recv_fd(int fd, struct att_buf *ret_bytes, int *ret_passed,
                                            int64_t deadline_ms, struct att_err *err);

/* ---- server: one thread per connection ---- */

#define PROC_CONNECTIONS_MAX 16

struct proc_server;

/* Answers one decoded request: writes the reply's payload by proc_reply_encode, or returns an
 * error, which the server sends. Called from several threads at once. */
typedef enum att_rc proc_handler_fn(void *user, const struct proc_peer *peer,
                                    const struct proc_op *op, const struct proc_msg *request,
                                    struct att_buf *ret_payload, struct att_err *err);

struct proc_server_opts {
    const char *path; /* unix socket; a stale one is replaced, a live one is ATT_E_CONFLICT */
    struct proc_users
        clients; /* who may connect beside root (SO_PEERCRED); others are hung up on */
    gid_t group; /* of the socket's file, through which clients reach it; 0: the process's own */
    const struct proc_op *table; /* ends at the first without a name */
    proc_handler_fn *handler;
    void *user;
    int64_t frame_timeout_ms; /* how long a frame may take from its first byte to its last */
    unsigned connections;     /* at most; 0: PROC_CONNECTIONS_MAX */
};

/* Binds and listens, or takes over the socket of this path that systemd listens on (then its mode
 * is the unit's, and the socket stays when the server ends). Serving starts with proc_server_start,
 * so that a process can enter its sandbox in between. The mode is 0600, or 0660 when others than
 * this process's own user are clients: they reach it through its group. */
ATT_MUST_USE enum att_rc proc_server_new(const struct proc_server_opts *opts,
                                         struct proc_server **ret_server, struct att_err *err);
ATT_MUST_USE enum att_rc proc_server_start(struct proc_server *server, struct att_err *err);
/* Stops accepting, ends every connection after its current request, joins all threads, unlinks. */
void proc_server_free(struct proc_server *server);

#endif
