/* Who is at the other end of a unix socket, by SO_PEERCRED: for a server the process that
 * connected, for a client the process that listens. */
#ifndef ATTESTD_PROC_PEER_H
#define ATTESTD_PROC_PEER_H

#include "attestd/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define PROC_USERS_MAX 8

/* The users that a socket is for. Root always is. */
struct proc_users {
    uid_t uids[PROC_USERS_MAX];
    size_t count;
};

/* By name, or by number in decimal. ATT_E_NOTFOUND: this machine has no such user; ATT_E_LIMIT:
 * more than PROC_USERS_MAX. */
ATT_MUST_USE enum att_rc proc_user_find(const char *name, uid_t *ret_uid, struct att_err *err);
/* The same for groups. */
ATT_MUST_USE enum att_rc proc_group_find(const char *name, gid_t *ret_gid, struct att_err *err);
ATT_MUST_USE enum att_rc proc_users_add(struct proc_users *users, const char *name,
                                        struct att_err *err);
bool proc_users_have(const struct proc_users *users, uid_t uid);

struct proc_peer {
    uid_t uid;
    gid_t gid;
    pid_t pid;
    int passed; /* the descriptor that came with a request (PROC_OP_FD), the server's; else -1 */
};
ATT_MUST_USE enum att_rc proc_peer_get(int fd, struct proc_peer *ret_peer, struct att_err *err);

#endif
