/* The sections `dns` and `limits` of issuer.yaml. Internal to attestd/conf. */
#ifndef CONF_ISSUER_DNS_H
#define CONF_ISSUER_DNS_H

#include "attestd/conf/check.h"
#include "attestd/conf/issuer_conf.h"

#include <cyaml/cyaml.h>

extern const cyaml_schema_field_t conf_dns_fields[], conf_limits_fields[];

/* What the file leaves out; false without memory. limits are always there afterwards. */
bool conf_dns_defaults(struct conf_issuer *conf, const struct conf_node *root);
bool conf_limits_defaults(struct conf_issuer *conf, const struct conf_node *root);
void conf_dns_check(struct conf_check *check, struct conf_issuer *conf);
/* "10.0.0.0/8"; ret has room for n. */
void conf_ranges_check(struct conf_check *check, const char *path, char *const *texts, unsigned n,
                       struct conf_range *ret);
/* The same, or one address, IPv4 not as IPv6; not a range of all addresses. */
void conf_peers_check(struct conf_check *check, const char *path, char *const *texts, unsigned n,
                      struct conf_range *ret);
void conf_limits_check(struct conf_check *check, const struct conf_limits *limits);

#endif
