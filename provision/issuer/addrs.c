/* Ranges by the special-purpose registries (RFC 6890 and its updates). */
#include "provision/issuer/addrs.h"

#include <netinet/in.h>
#include <string.h>

struct special {
    uint8_t address[16];
    unsigned bits;
    const char *what;
};

static const struct special v4[] = {
    {{0}, 8, "unspecified"},
    {{10}, 8, "private"},
    {{100, 64}, 10, "shared by carriers"},
    {{127}, 8, "loopback"},
    {{169, 254}, 16, "link-local"},
    {{172, 16}, 12, "private"},
    {{192, 0, 0}, 24, "reserved"},
    {{192, 0, 2}, 24, "for documentation"},
    {{192, 88, 99}, 24, "a 6to4 relay"},
    {{192, 168}, 16, "private"},
    {{198, 18}, 15, "for benchmarks"},
    {{198, 51, 100}, 24, "for documentation"},
    {{203, 0, 113}, 24, "for documentation"},
    {{224}, 4, "multicast"},
    {{240}, 4, "reserved"}, /* and 255.255.255.255 */
};
static const struct special v6[] = {
    {{0}, 128, "unspecified"},
    {{[15] = 1}, 128, "loopback"},
    {{[10] = 0xff, 0xff}, 96, "an IPv4 address in IPv6"},
    {{0}, 96, "an IPv4 address in IPv6"},
    {{0x00, 0x64, 0xff, 0x9b}, 96, "an IPv4 address in IPv6"},
    {{0x00, 0x64, 0xff, 0x9b, 0x00, 0x01}, 48, "an IPv4 address in IPv6"},
    {{0x01}, 64, "for discarding"},
    {{0x20, 0x01}, 23, "reserved"}, /* Teredo and others */
    {{0x20, 0x01, 0x0d, 0xb8}, 32, "for documentation"},
    {{0x20, 0x02}, 16, "an IPv4 address in IPv6"},
    {{0x3f, 0xff}, 20, "for documentation"},
    {{0x5f}, 16, "for segment routing"},
    {{0xfc}, 7, "private"},
    {{0xfe, 0x80}, 10, "link-local"},
    {{0xfe, 0xc0}, 10, "private"},
    {{0xff}, 8, "multicast"},
};

static bool within(const uint8_t *address, const uint8_t *range, unsigned bits)
{
    unsigned whole = bits / 8, rest = bits % 8;
    if (memcmp(address, range, whole) != 0) {
        return false;
    }
    return rest == 0 || ((address[whole] ^ range[whole]) >> (8 - rest)) == 0;
}

static bool allowed(const uint8_t *address, bool is_v6, const struct conf_range *allow, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (allow[i].v6 == is_v6 && within(address, allow[i].address, allow[i].bits)) {
            return true;
        }
    }
    return false;
}

void issuer_addr_group(bool is_v6, const uint8_t *address, uint8_t ret[ISSUER_ADDR_GROUP])
{
    static const uint8_t mapped[12] = {[10] = 0xff, 0xff};
    bool is_mapped = is_v6 && memcmp(address, mapped, sizeof mapped) == 0;
    memset(ret, 0, ISSUER_ADDR_GROUP);
    ret[0] = is_v6 && !is_mapped;
    memcpy(ret + 1, is_mapped ? address + 12 : address, ret[0] ? 8 : 4);
}

bool issuer_addr_listed(const struct sockaddr *address, const struct conf_range *ranges, size_t n)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    if (address->sa_family == AF_INET) {
        memcpy(&in, address, sizeof in);
        return allowed((const uint8_t *)&in.sin_addr, false, ranges, n);
    }
    if (address->sa_family != AF_INET6) {
        return false;
    }
    memcpy(&in6, address, sizeof in6);
    const uint8_t *bytes = in6.sin6_addr.s6_addr;
    return IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr) ? allowed(bytes + 12, false, ranges, n)
                                                : allowed(bytes, true, ranges, n);
}

static const char *special(const uint8_t *address, const struct special *table, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (within(address, table[i].address, table[i].bits)) {
            return table[i].what;
        }
    }
    return NULL;
}

const char *issuer_addr_refused(const struct sockaddr *address, const struct conf_range *allow,
                                size_t n_allow)
{
    uint8_t bytes[16];
    if (address->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, address, sizeof in);
        memcpy(bytes, &in.sin_addr, 4);
        return allowed(bytes, false, allow, n_allow) ? NULL
                                                     : special(bytes, v4, sizeof v4 / sizeof v4[0]);
    }
    if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, address, sizeof in6);
        memcpy(bytes, &in6.sin6_addr, 16);
        return allowed(bytes, true, allow, n_allow) ? NULL
                                                    : special(bytes, v6, sizeof v6 / sizeof v6[0]);
    }
    return "of no family that is served";
}
