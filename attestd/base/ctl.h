/* Control sockets (docs/PROTOCOL.md "Local sockets"): frames of be32 length and one JSON object.
 * A server with a thread per connection, bounded; a blocking client. */
#ifndef ATTESTD_BASE_CTL_H
#define ATTESTD_BASE_CTL_H

#include "attestd/base/json.h"

#include <sys/types.h>

#define ATT_CTL_FRAME_MAX        ((size_t)8 << 20)
#define ATT_CTL_CONNECTIONS_MAX  32
#define ATT_CTL_CONNECTIONS_ROOT 4 /* beyond those, for uid 0 alone */

struct att_ctl_server;

/* Who called, by SO_PEERCRED at connect. */
struct att_ctl_peer {
    uid_t uid;
    gid_t gid;
    pid_t pid;
};

/* Answers one request. args is an object (maybe empty), borrowed. On ATT_OK *ret_result is the
 * caller's to release, or stays NULL for an empty object; else err says why and is sent to the
 * peer. Called from several threads at once. */
typedef enum att_rc att_ctl_handler(void *user, const struct att_ctl_peer *peer, const char *op,
                                    const json_t *args, json_t **ret_result, struct att_err *err);

/* Listens at path (an old socket there is replaced; anything else is an error), mode 0600, or 0660
 * and owned by group where group is not NULL. Only root, the server's own user and members of group
 * (the peer's gid or supplementary groups) are answered; others get "denied". */
ATT_MUST_USE enum att_rc att_ctl_server_new(const char *path, const char *group,
                                            att_ctl_handler *handler, void *user,
                                            struct att_ctl_server **ret_server,
                                            struct att_err *err);
/* How long one frame may take, from its first byte to its last: 30 s unless set, before the first
 * connection. */
void att_ctl_server_frame_timeout(struct att_ctl_server *server, int timeout_ms);
/* Stops accepting, ends the connections, waits for handlers, removes the socket. NULL is fine. */
void att_ctl_server_free(struct att_ctl_server *server);

/* One request, one reply. ATT_E_UNREACHABLE when nothing listens, ATT_E_DENIED (reason "socket")
 * when the socket's mode or the server refuses this user; a refusal by the handler comes back with
 * the handler's own code, reason and message; ATT_E_TIMEOUT after timeout_ms in all. args may be
 * NULL. */
ATT_MUST_USE enum att_rc att_ctl_call(const char *path, const char *op, const json_t *args,
                                      int timeout_ms, json_t **ret_result, struct att_err *err);

#endif
