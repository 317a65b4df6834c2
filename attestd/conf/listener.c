#include "attestd/conf/check.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST_ROOM sizeof(((struct conf_listener *)0)->host)

static bool parse_port(const char *text, uint16_t *ret)
{
    size_t len = strlen(text);
    if (len == 0 || len > 5 || strspn(text, "0123456789") != len || (len > 1 && *text == '0')) {
        return false;
    }
    long port = strtol(text, NULL, 10);
    *ret = (uint16_t)port;
    return port <= 65535;
}

void conf_check_listen(struct conf_check *check, const char *path, const char *listen,
                       char ret_host[64], uint16_t *ret_port)
{
    const char *colon = strrchr(listen, ':');
    const char *host = listen;
    size_t len = colon ? (size_t)(colon - host) : 0;
    bool v6 = len > 2 && host[0] == '[' && host[len - 1] == ']';
    if (v6) {
        host++;
        len -= 2;
    }
    uint8_t addr[16];
    bool ok = colon && len < HOST_ROOM;
    if (ok) {
        snprintf(ret_host, HOST_ROOM, "%.*s", (int)len, host);
        ok = inet_pton(v6 ? AF_INET6 : AF_INET, ret_host, addr) == 1 &&
             parse_port(colon + 1, ret_port);
    }
    if (!ok) {
        conf_bad(check, path,
                 "expected ADDRESS:PORT such as 127.0.0.1:8443 or [::1]:8443, found \"%.80s\"",
                 listen);
    }
}

void conf_check_metrics(struct conf_check *check, const char *listen, struct conf_listener *ret_at)
{
    static const char word[] = "unix:";
    const char *path = listen + (sizeof word - 1);
    if (strcmp(listen, "none") == 0) {
        ret_at->none = true;
    } else if (strncmp(listen, word, sizeof word - 1) != 0) {
        conf_check_listen(check, "metrics_listen", listen, ret_at->host, &ret_at->port);
    } else if (path[0] != '/' || strlen(path) >= sizeof ret_at->path) {
        conf_bad(check, "metrics_listen",
                 "expected unix:/PATH of at most %zu characters, ADDRESS:PORT or none, found "
                 "\"%.120s\"",
                 sizeof ret_at->path - 1, listen);
    } else {
        snprintf(ret_at->path, sizeof ret_at->path, "%s", path);
    }
}
