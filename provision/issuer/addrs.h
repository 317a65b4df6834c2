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

#endif
