/* The public socket: systemd's (LISTEN_FDS), or one that we bind. */
#ifndef TOKEND_LISTEN_H
#define TOKEND_LISTEN_H

#include "attestd/base/err.h"

#include <stdbool.h>

struct tokend_listen {
    int fd;
    bool activated; /* systemd's: its file is not ours to remove */
    char path[108];
};

/* dir is made (0755) where it is missing. ATT_E_CONFLICT: another process serves the socket. */
ATT_MUST_USE enum att_rc tokend_listen_open(const char *dir, const char *path,
                                            struct tokend_listen *ret_listen, struct att_err *err);
void tokend_listen_close(struct tokend_listen *listening);

#endif
