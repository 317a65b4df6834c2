/* To which addresses the issuer connects on somebody else's word: the public's only, unless an
 * operator allowed a range (dns.allow). */
#ifndef PROVISION_ISSUER_ADDRS_H
#define PROVISION_ISSUER_ADDRS_H

#include "attestd/conf/issuer_conf.h"

#include <sys/socket.h>

/* NULL: it may be connected to. Else what it is, for a sentence: "loopback", "private",
 * "link-local", "multicast", "unspecified", "an IPv4 address in IPv6" … An IPv4 address inside an
 * IPv6 one (mapped, compatible, NAT64, 6to4, Teredo) is refused whatever it is, unless a range of
 * IPv6 covers it. */
const char *issuer_addr_refused(const struct sockaddr *address, const struct conf_range *allow,
                                size_t n_allow);
/* Is it in one of the ranges? IPv4 in IPv6 (mapped) is IPv4. */
bool issuer_addr_listed(const struct sockaddr *address, const struct conf_range *ranges, size_t n);
/* Whom an address is counted as: the IPv4 address (mapped in IPv6, too, as a socket of both kinds
 * has it), or the /64 of an IPv6 one. address: network order, 16 bytes of v6, else 4. */
#define ISSUER_ADDR_GROUP 9
void issuer_addr_group(bool v6, const uint8_t *address, uint8_t ret[ISSUER_ADDR_GROUP]);

#endif
