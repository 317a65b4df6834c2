/* The relay in front of p11-kit's server: a client's socket as that server may see it. What it
 * reads are whole frames that the scanner let pass, written by the one process that connected; what
 * it writes leaves a frame at a time.
 *
 * p11-kit's server knows descriptors, which it reads and writes by read() and write(). A pipe and a
 * thread in front of it would cost each call of a workload a switch of threads. So the program has
 * a read() and a write() of its own, which the dynamic linker finds before libc's: for one
 * descriptor, the relay's stand-in, they are what follows here, for all others the system's. The
 * stand-in itself is a pipe that has ended: should a version of p11-kit come by another way, it
 * reads the end of its input, and nothing that was not scanned. */
#ifndef TOKEN_RELAY_H
#define TOKEN_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define TOKEN_RELAY_WHY_MAX 160

/* There is one in a process, as there is one token, used by one thread. client: the accepted
 * socket, on a listener with SO_PASSCRED. pid: who connected. Gives the stand-in, -1: none was
 * left. */
int token_relay_begin(int client, pid_t pid);
/* Nothing more is read. */
void token_relay_refuse(const char *why);
/* Closes the stand-in. NULL: the client closed; else why the connection was ended, in words for a
 * log, until the next begin. */
const char *token_relay_end(void);

/* relay_calls.c; -1: none */
extern int token_relay_stand_in;
/* read() and write() of it. 0 at the end, whoever made it; -1 and errno. */
ssize_t token_relay_read(void *at, size_t len);
ssize_t token_relay_write(const void *bytes, size_t len);

#endif
