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

#endif
