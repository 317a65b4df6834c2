#include "provision/issuer/proxy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define V2_FIXED 16

static const uint8_t v1_sign[6] = {'P', 'R', 'O', 'X', 'Y', ' '};
static const uint8_t v2_sign[12] = {0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d,
                                    0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a};

static const struct {
    const char *word, *expected;
} says[ISSUER_PROXY_RESULTS] = {
    [ISSUER_PROXY_MISSING] = {"proxyMissing", "a PROXY header before TLS, version 1 or 2"},
    [ISSUER_PROXY_TOO_LONG] = {"proxyTooLong",
                               "at most 107 bytes with CR LF (version 1) or 536 (version 2)"},
    [ISSUER_PROXY_LINE] = {"proxyLine", "two addresses and two ports, one space between, CR LF"},
    [ISSUER_PROXY_VERSION] = {"proxyVersion", "version 2 behind the binary signature"},
    [ISSUER_PROXY_COMMAND] = {"proxyCommand", "LOCAL or PROXY"},
    [ISSUER_PROXY_FAMILY] = {"proxyFamily", "TCP over IPv4 or IPv6, or unspecified"},
    [ISSUER_PROXY_ADDRESS] = {"proxyAddress", "12 bytes of addresses (IPv4), or 36 (IPv6)"},
    [ISSUER_PROXY_TLV] = {"proxyTlv", "TLVs that end with the header"},
    [ISSUER_PROXY_CUT] = {"proxyCut", "a whole header"},
    [ISSUER_PROXY_LATE] = {"proxyLate", "a header within the time for a handshake"},
};

const char *issuer_proxy_word(enum issuer_proxy_result result)
{
    return says[result].word;
}

const char *issuer_proxy_expected(enum issuer_proxy_result result)
{
    return says[result].expected;
}

/* An address as it is counted. */
static void set_source(struct issuer_proxy_source *source, bool v6, const uint8_t *address)
{
    static const uint8_t mapped[12] = {[10] = 0xff, 0xff};
    bool is_mapped = v6 && memcmp(address, mapped, sizeof mapped) == 0;
    *source = (struct issuer_proxy_source){.known = true, .v6 = v6 && !is_mapped};
    memcpy(source->address, is_mapped ? address + 12 : address, source->v6 ? 16 : 4);
}

/* ---- version 1 ------------------------------------------------------------------------------ */

/* The next field of the line, which ends at a space or with the text. NULL: it is empty. */
static char *field(char **at)
{
    char *start = *at, *end = start ? strchr(start, ' ') : NULL;
    if (end) {
        *end = 0;
    }
    *at = end ? end + 1 : NULL;
    return start && start[0] ? start : NULL;
}

static bool port_ok(const char *text)
{
    size_t len = text ? strspn(text, "0123456789") : 0;
    if (len == 0 || len > 5 || text[len] || (text[0] == '0' && len > 1)) {
        return false;
    }
    unsigned port = 0;
    for (size_t i = 0; i < len; i++) {
        port = port * 10 + (unsigned)(text[i] - '0');
    }
    return port <= 65535;
}

/* "TCP4 SOURCE DESTINATION PORT PORT" */
static enum issuer_proxy_result parse_fields(char *line, struct issuer_proxy_source *ret)
{
    char *at = line;
    const char *family = field(&at);
    if (family && strcmp(family, "UNKNOWN") == 0) {
        return ISSUER_PROXY_OK; /* whatever follows */
    }
    bool v6 = family && strcmp(family, "TCP6") == 0;
    if (!family || (!v6 && strcmp(family, "TCP4") != 0)) {
        return ISSUER_PROXY_FAMILY;
    }
    uint8_t from[16], to[16];
    const char *source = field(&at), *destination = field(&at);
    const char *from_port = field(&at), *to_port = field(&at);
    int af = v6 ? AF_INET6 : AF_INET;
    if (!source || inet_pton(af, source, from) != 1 || !destination ||
        inet_pton(af, destination, to) != 1 || !port_ok(from_port) || !port_ok(to_port) || at) {
        return ISSUER_PROXY_LINE;
    }
    set_source(ret, v6, from);
    return ISSUER_PROXY_OK;
}

static enum issuer_proxy_result parse_line(struct att_slice bytes, size_t *ret_len,
                                           struct issuer_proxy_source *ret)
{
    char line[ISSUER_PROXY_LINE_MAX + 1];
    size_t most = bytes.len < ISSUER_PROXY_LINE_MAX ? bytes.len : ISSUER_PROXY_LINE_MAX, n = 0;
    const uint8_t *p = bytes.ptr + sizeof v1_sign;
    most -= sizeof v1_sign;
    while (n < most && p[n] >= 0x20 && p[n] <= 0x7e) {
        line[n] = (char)p[n];
        n++;
    }
    bool room = sizeof v1_sign + most == ISSUER_PROXY_LINE_MAX;
    if (n == most || (n + 1 == most && p[n] == '\r')) {
        return room ? ISSUER_PROXY_TOO_LONG : ISSUER_PROXY_MORE;
    }
    if (p[n] != '\r' || p[n + 1] != '\n') {
        return ISSUER_PROXY_LINE;
    }
    line[n] = 0;
    *ret_len = sizeof v1_sign + n + 2;
    return parse_fields(line, ret);
}

/* ---- version 2 ------------------------------------------------------------------------------ */

static bool tlvs_ok(const uint8_t *p, size_t len)
{
    while (len >= 3) {
        size_t value = (size_t)p[1] << 8 | p[2];
        if (value > len - 3) {
            return false;
        }
        p += 3 + value;
        len -= 3 + value;
    }
    return len == 0;
}

static enum issuer_proxy_result parse_binary(struct att_slice bytes, size_t *ret_len,
                                             struct issuer_proxy_source *ret)
{
    const uint8_t *p = bytes.ptr;
    if (bytes.len < V2_FIXED) {
        return ISSUER_PROXY_MORE;
    }
    if (p[12] >> 4 != 2) {
        return ISSUER_PROXY_VERSION;
    }
    unsigned command = p[12] & 0xf, family = p[13];
    size_t len = (size_t)p[14] << 8 | p[15];
    if (command > 1) {
        return ISSUER_PROXY_COMMAND;
    }
    if (len > ISSUER_PROXY_MAX - V2_FIXED) {
        return ISSUER_PROXY_TOO_LONG;
    }
    bool known = command == 1 && family != 0;
    if (known && family != 0x11 && family != 0x21) {
        return ISSUER_PROXY_FAMILY;
    }
    size_t addresses = !known ? 0 : family == 0x11 ? 12 : 36;
    if (len < addresses) {
        return ISSUER_PROXY_ADDRESS;
    }
    if (bytes.len < V2_FIXED + len) {
        return ISSUER_PROXY_MORE;
    }
    *ret_len = V2_FIXED + len;
    if (!known) {
        return ISSUER_PROXY_OK; /* the rest is not to be looked at */
    }
    if (!tlvs_ok(p + V2_FIXED + addresses, len - addresses)) {
        return ISSUER_PROXY_TLV;
    }
    set_source(ret, family == 0x21, p + V2_FIXED);
    return ISSUER_PROXY_OK;
}

/* ---- both ----------------------------------------------------------------------------------- */

/* As far as they go. */
static bool begins(struct att_slice bytes, const uint8_t *sign, size_t len)
{
    return memcmp(bytes.ptr, sign, bytes.len < len ? bytes.len : len) == 0;
}

enum issuer_proxy_result issuer_proxy_parse(struct att_slice bytes, size_t *ret_len,
                                            struct issuer_proxy_source *ret_source)
{
    *ret_len = 0;
    *ret_source = (struct issuer_proxy_source){0};
    if (bytes.len == 0) {
        return ISSUER_PROXY_MORE;
    }
    if (begins(bytes, v2_sign, sizeof v2_sign)) {
        return parse_binary(bytes, ret_len, ret_source);
    }
    if (begins(bytes, v1_sign, sizeof v1_sign)) {
        return bytes.len < sizeof v1_sign ? ISSUER_PROXY_MORE
                                          : parse_line(bytes, ret_len, ret_source);
    }
    return ISSUER_PROXY_MISSING;
}

enum issuer_proxy_result issuer_proxy_read(struct issuer_proxy_reader *reader, int fd,
                                           struct issuer_proxy_source *ret_source)
{
    size_t had = reader->len, whole = 0;
    ssize_t n = recv(fd, reader->bytes + had, sizeof reader->bytes - had, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return ISSUER_PROXY_MORE;
    }
    if (n <= 0) {
        return had ? ISSUER_PROXY_CUT : ISSUER_PROXY_GONE;
    }
    enum issuer_proxy_result result =
        issuer_proxy_parse(ATT_SLICE(reader->bytes, had + (size_t)n), &whole, ret_source);
    if (result != ISSUER_PROXY_OK && result != ISSUER_PROXY_MORE) {
        return result;
    }
    size_t take = result == ISSUER_PROXY_OK ? whole - had : (size_t)n;
    if (recv(fd, reader->bytes + had, take, MSG_DONTWAIT) != (ssize_t)take) {
        return ISSUER_PROXY_CUT;
    }
    reader->len = had + take;
    return result;
}

void issuer_proxy_text(const struct issuer_proxy_source *source, char ret[INET6_ADDRSTRLEN])
{
    if (!inet_ntop(source->v6 ? AF_INET6 : AF_INET, source->address, ret, INET6_ADDRSTRLEN)) {
        ret[0] = 0;
    }
}
