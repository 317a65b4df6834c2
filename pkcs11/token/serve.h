/* One workload's connection, from its first byte to its end, inside a process made for it: a relay
 * that lets only scanned frames through, in front of p11-kit's own RPC server. */
#ifndef TOKEN_SERVE_H
#define TOKEN_SERVE_H

#include "pkcs11/token/module.h"

#include <sys/types.h>

#define TOKEN_SERVE_RATE  20000 /* frames in a second, on average */
#define TOKEN_SERVE_BURST 4000  /* … and at once */

struct token_serve_opts {
    int client; /* the accepted socket, on a listener with SO_PASSCRED */
    pid_t pid;  /* who connected; bytes that another process writes end the connection */
    const struct token_store *store;
    /* Called when the one thread is made and before the first byte is read: from then on nothing
     * is opened or made. False ends it. NULL: nothing. */
    bool (*confine)(void *user);
    void *user;
};

/* Blocks until the client or the relay ends the connection. NULL: the client closed it; else why it
 * was ended, in words for a log. The socket is left open, so that this can be told before the
 * client sees the end, and perhaps ends itself. Needs no file, no new socket. */
const char *token_serve(const struct token_serve_opts *opts);

#endif
