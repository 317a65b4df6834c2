/* read() and write() of this program (relay.h). Without <unistd.h>, whose own definitions for
 * _FORTIFY_SOURCE would be in the way. */
#include "pkcs11/token/relay.h"

#include <sys/syscall.h>

/* Here, so that whoever links the relay links these two functions, too. */
int token_relay_stand_in = -1;

static bool is_relay(int fd)
{
    return fd >= 0 && fd == token_relay_stand_in;
}

long syscall(long number, ...);
ssize_t read(int fd, void *at, size_t len);
ssize_t write(int fd, const void *bytes, size_t len);

__attribute__((visibility("default"))) ssize_t read(int fd, void *at, size_t len)
{
    return is_relay(fd) ? token_relay_read(at, len) : syscall(SYS_read, fd, at, len);
}

__attribute__((visibility("default"))) ssize_t write(int fd, const void *bytes, size_t len)
{
    return is_relay(fd) ? token_relay_write(bytes, len) : syscall(SYS_write, fd, bytes, len);
}
