/* Where something of our own listens: an address, a unix socket, or nowhere. */
#ifndef CONF_LISTENER_H
#define CONF_LISTENER_H

#include <stdbool.h>
#include <stdint.h>

struct conf_listener {
    bool none;
    char path[108]; /* of a unix socket; "": an address */
    char host[64];  /* without brackets */
    uint16_t port;
};

#endif
