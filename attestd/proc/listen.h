/* The public socket: systemd's (LISTEN_FDS), or one that we bind. */
#ifndef PROC_LISTEN_H
#define PROC_LISTEN_H

#include "attestd/base/err.h"

#include <stdbool.h>

struct proc_listen {
    int fd;
    bool activated; /* systemd's: its file is not ours to remove */
    char path[108];
};

/* dir is made (0755) where it is missing. ATT_E_CONFLICT: another process serves the socket. */
ATT_MUST_USE enum att_rc proc_listen_open(const char *dir, const char *path,
                                          struct proc_listen *ret_listen, struct att_err *err);
void proc_listen_close(struct proc_listen *listening);

/* Who connects can send descriptors along (SCM_RIGHTS), and whoever gives up the last of a TCP
 * socket waits as long as its SO_LINGER says: in recvmsg(2) without room for it, or in the close(2)
 * of a connection that has it unread. Once, before the first accept: no connection that is made
 * from here on takes descriptors (SO_PASSRIGHTS, Linux 6.16). On older kernels, and where the
 * listener took them until now (systemd's, once a boot), what stands between begin and end is
 * interrupted after PROC_LINGER_MS by SIGALRM, which is the process's for this alone. Not for a
 * listener whose clients pass descriptors on purpose. */
#define PROC_LINGER_MS 2
ATT_MUST_USE enum att_rc proc_listen_no_descriptors(int listen_fd, struct att_err *err);
void proc_linger_begin(void);
void proc_linger_end(void);
void proc_close_client(int *fd); /* between the two; sets -1 */

#endif
