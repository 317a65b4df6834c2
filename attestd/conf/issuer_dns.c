#include "attestd/conf/issuer_dns.h"

#include "attestd/conf/schema.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PTR CYAML_FLAG_POINTER
#define OPT (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define STR(type, member, flags)                                                                   \
    CYAML_FIELD_STRING_PTR(#member, (flags), struct type, member, 0, 4096)
#define STRS(type, member, flags, least, most)                                                     \
    CYAML_FIELD_SEQUENCE_COUNT(#member, (flags), struct type, member, n_##member,                  \
                               &conf_schema_string, (least), (most))
#define LIMIT(member) CYAML_FIELD_UINT(#member, CYAML_FLAG_OPTIONAL, struct conf_limits, member)

static const cyaml_schema_field_t profile_fields[] = {
    STR(conf_dns_profile, name, PTR),
    STR(conf_dns_profile, description, OPT),
    STR(conf_dns_profile, lifetime, OPT),
    STRS(conf_dns_profile, names, PTR, 1, CONF_DNS_NAMES_MAX),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t profile_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_dns_profile, profile_fields),
};
const cyaml_schema_field_t conf_dns_fields[] = {
    CYAML_FIELD_SEQUENCE_COUNT("profiles", PTR, struct conf_dns, profiles, n_profiles,
                               &profile_entry, 1, CONF_PROFILES_MAX),
    CYAML_FIELD_UINT("http_port", CYAML_FLAG_OPTIONAL, struct conf_dns, http_port),
    STRS(conf_dns, allow, OPT, 0, CONF_RANGES_MAX),
    STR(conf_dns, timeout, OPT),
    CYAML_FIELD_END,
};
const cyaml_schema_field_t conf_limits_fields[] = {
    LIMIT(account_orders),     LIMIT(account_fruitless_orders),
    LIMIT(account_enrolments), LIMIT(host_orders),
    LIMIT(address_requests),   LIMIT(address_accounts),
    LIMIT(address_step),       CYAML_FIELD_END,
};

bool conf_dns_defaults(struct conf_issuer *conf, const struct conf_node *root)
{
    struct conf_dns *dns = conf->dns;
    if (!dns) {
        return true;
    }
    if (!conf_tree_get(conf_tree_get(root, "dns"), "http_port")) {
        dns->http_port = 80;
    }
    bool ok = conf_default(&dns->timeout, "10s");
    for (unsigned i = 0; ok && i < dns->n_profiles; i++) {
        struct conf_dns_profile *p = &dns->profiles[i];
        ok = conf_default(&p->description, p->name) && conf_default(&p->lifetime, "7d");
    }
    return ok;
}

bool conf_limits_defaults(struct conf_issuer *conf, const struct conf_node *root)
{
    if (!conf->limits) {
        conf->limits = calloc(1, sizeof *conf->limits); /* freed with the rest */
    }
    struct conf_limits *l = conf->limits;
    if (!l) {
        return false;
    }
    const struct {
        const char *name;
        unsigned *value, otherwise;
    } all[] = {
        /* 100 agents of a host with lifetimes of 2 minutes make 750 orders, by 80 s each. */
        {"account_orders", &l->account_orders, CONF_LIMIT_ORDERS},
        {"account_fruitless_orders", &l->account_fruitless_orders, CONF_LIMIT_FRUITLESS},
        {"account_enrolments", &l->account_enrolments, CONF_LIMIT_ENROLMENTS},
        {"host_orders", &l->host_orders, CONF_LIMIT_ORDERS},
        {"address_requests", &l->address_requests, 600000},
        {"address_accounts", &l->address_accounts, 2000},
        {"address_step", &l->address_step, CONF_LIMIT_STEP},
    };
    const struct conf_node *given = conf_tree_get(root, "limits");
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (!given || !conf_tree_get(given, all[i].name)) {
            *all[i].value = all[i].otherwise;
        }
    }
    return true;
}

/* "*." before a suffix: any name below it. The rest is a host name. */
static bool pattern_ok(const char *pattern)
{
    const char *name = strncmp(pattern, "*.", 2) == 0 ? pattern + 2 : pattern;
    size_t len = strnlen(name, 254);
    bool ends = len > 0 && len <= 253 && name[0] != '.' && name[len - 1] != '.';
    return ends && !strstr(name, "..") &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") == len;
}

static void check_profile(struct conf_check *check, const struct conf_issuer *conf, unsigned i)
{
    struct conf_dns_profile *p = &conf->dns->profiles[i];
    struct conf_path at = conf_path("dns.profiles[%u].name", i);
    (void)conf_check_name(check, at.text, p->name);
    bool twice = conf_issuer_profile(conf, p->name) || strcmp(p->name, CONF_ENROLMENT) == 0;
    for (unsigned k = 0; k < i; k++) {
        twice = twice || strcmp(conf->dns->profiles[k].name, p->name) == 0;
    }
    if (twice) {
        conf_bad(check, at.text, "profile \"%.64s\" stands there twice", p->name);
    }
    (void)conf_check_text(check, conf_path("dns.profiles[%u].description", i).text, p->description,
                          256);
    (void)conf_check_duration(check, conf_path("dns.profiles[%u].lifetime", i).text, p->lifetime,
                              CONF_LIFETIME_MIN_S, &p->lifetime_s);
    for (unsigned k = 0; k < p->n_names; k++) {
        if (!pattern_ok(p->names[k])) {
            conf_bad(check, conf_path("dns.profiles[%u].names[%u]", i, k).text,
                     "expected a host name in lowercase, or \"*.\" and one, found \"%.80s\"",
                     p->names[k]);
        }
    }
}

static bool parse_range(const char *text, struct conf_range *ret)
{
    char address[64];
    const char *slash = strchr(text, '/');
    size_t len = slash ? (size_t)(slash - text) : 0;
    if (!slash || len >= sizeof address || strlen(slash + 1) > 3 || !slash[1] ||
        strspn(slash + 1, "0123456789") != strlen(slash + 1)) {
        return false;
    }
    memcpy(address, text, len);
    address[len] = 0;
    *ret = (struct conf_range){.bits = (unsigned)atoi(slash + 1)};
    ret->v6 = strchr(address, ':') != NULL;
    unsigned most = ret->v6 ? 128 : 32;
    if (inet_pton(ret->v6 ? AF_INET6 : AF_INET, address, ret->address) != 1 || ret->bits > most) {
        return false;
    }
    for (unsigned bit = ret->bits; bit < most; bit++) {
        if (ret->address[bit / 8] & (0x80 >> (bit % 8))) {
            return false; /* 10.1.2.3/8 is most likely a mistake */
        }
    }
    return true;
}

void conf_ranges_check(struct conf_check *check, const char *path, char *const *texts, unsigned n,
                       struct conf_range *ret)
{
    for (unsigned i = 0; i < n; i++) {
        if (!parse_range(texts[i], &ret[i])) {
            conf_bad(check, conf_path("%.80s[%u]", path, i).text,
                     "expected a range such as 10.0.0.0/8 or fd00::/8, without host bits, found "
                     "\"%.60s\"",
                     texts[i]);
        }
    }
}

void conf_peers_check(struct conf_check *check, const char *path, char *const *texts, unsigned n,
                      struct conf_range *ret)
{
    static const uint8_t mapped[12] = {[10] = 0xff, 0xff};
    for (unsigned i = 0; i < n; i++) {
        char text[80];
        const char *bits = strchr(texts[i], '/') ? "" : strchr(texts[i], ':') ? "/128" : "/32";
        int len = snprintf(text, sizeof text, "%s%s", texts[i], bits);
        if (len < 0 || (size_t)len >= sizeof text || !parse_range(text, &ret[i]) ||
            ret[i].bits == 0 || (ret[i].v6 && memcmp(ret[i].address, mapped, 12) == 0)) {
            conf_bad(check, conf_path("%.80s[%u]", path, i).text,
                     "expected an address such as 10.0.0.7, or a range such as 10.0.0.0/24 or "
                     "fd00::/64, without host bits and not of all addresses, found \"%.60s\"",
                     texts[i]);
        }
    }
}

void conf_dns_check(struct conf_check *check, struct conf_issuer *conf)
{
    struct conf_dns *dns = conf->dns;
    if (!dns) {
        return;
    }
    for (unsigned i = 0; i < dns->n_profiles; i++) {
        check_profile(check, conf, i);
    }
    if (dns->http_port < 1 || dns->http_port > 65535) {
        conf_bad(check, "dns.http_port", "expected 1 … 65535, found %u", dns->http_port);
    }
    conf_ranges_check(check, "dns.allow", dns->allow, dns->n_allow, dns->ranges);
    if (conf_check_duration(check, "dns.timeout", dns->timeout, 1, &dns->timeout_s) &&
        dns->timeout_s > 60) {
        conf_bad(check, "dns.timeout", "expected at most 60s, found \"%.40s\"", dns->timeout);
    }
}

void conf_limits_check(struct conf_check *check, const struct conf_limits *limits)
{
    if (limits->account_orders < 1 || limits->account_fruitless_orders < 1 ||
        limits->account_enrolments < 1 || limits->host_orders < 1) {
        conf_bad(check, "limits",
                 "expected at least 1 order and 1 enrolment; 0 means no limit for "
                 "address_requests, address_accounts and address_step only");
    }
}

static bool matches(const char *pattern, const char *name)
{
    size_t name_len = strlen(name), suffix = strlen(pattern);
    if (strncmp(pattern, "*.", 2) != 0) {
        return strcmp(pattern, name) == 0;
    }
    suffix -= 1; /* ".example" */
    return name_len > suffix && strcmp(name + name_len - suffix, pattern + 1) == 0;
}

bool conf_dns_profile_allows(const struct conf_dns_profile *profile, const char *name)
{
    for (unsigned i = 0; i < profile->n_names; i++) {
        if (matches(profile->names[i], name)) {
            return true;
        }
    }
    return false;
}

const struct conf_dns_profile *conf_dns_profile(const struct conf_issuer *conf, const char *name)
{
    for (unsigned i = 0; conf->dns && i < conf->dns->n_profiles; i++) {
        if (strcmp(conf->dns->profiles[i].name, name) == 0) {
            return &conf->dns->profiles[i];
        }
    }
    return NULL;
}
