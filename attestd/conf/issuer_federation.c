#include "attestd/conf/issuer_federation.h"

#include "attestd/conf/issuer_dns.h"
#include "attestd/conf/schema.h"

#include <string.h>

#define PTR CYAML_FLAG_POINTER
#define OPT (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define STR(type, member, flags)                                                                   \
    CYAML_FIELD_STRING_PTR(#member, (flags), struct type, member, 0, 4096)
#define SPIFFE      "spiffe://"
#define REFRESH_MAX (7 * 86400)

static const cyaml_schema_field_t domain_fields[] = {
    STR(conf_federated, name, PTR),
    STR(conf_federated, url, PTR),
    STR(conf_federated, profile, OPT),
    STR(conf_federated, ca_file, OPT),
    STR(conf_federated, spiffe_id, OPT),
    STR(conf_federated, bundle_file, OPT),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t domain_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_federated, domain_fields),
};
const cyaml_schema_field_t conf_federation_fields[] = {
    CYAML_FIELD_SEQUENCE_COUNT("trust_domains", PTR, struct conf_federation, trust_domains,
                               n_trust_domains, &domain_entry, 1, CONF_FEDERATION_MAX),
    CYAML_FIELD_SEQUENCE_COUNT("allow", OPT, struct conf_federation, allow, n_allow,
                               &conf_schema_string, 0, CONF_RANGES_MAX),
    STR(conf_federation, refresh_min, OPT),
    STR(conf_federation, refresh_max, OPT),
    STR(conf_federation, timeout, OPT),
    CYAML_FIELD_END,
};

bool conf_federation_defaults(struct conf_federation *f)
{
    bool ok = !f || (conf_default(&f->refresh_min, "1m") && conf_default(&f->refresh_max, "1h") &&
                     conf_default(&f->timeout, "10s"));
    for (unsigned i = 0; ok && f && i < f->n_trust_domains; i++) {
        ok = conf_default(&f->trust_domains[i].profile, "https_web");
    }
    return ok;
}

static struct conf_path member(unsigned i, const char *name)
{
    return conf_path("federation.trust_domains[%u].%s", i, name);
}

/* The endpoint's own bundle is what it is believed by, so it must be of that trust domain. */
static bool is_id_of(const char *id, const char *trust_domain)
{
    size_t head = sizeof SPIFFE - 1, len = strlen(trust_domain);
    return strlen(id) <= 2048 && strncmp(id, SPIFFE, head) == 0 &&
           strncmp(id + head, trust_domain, len) == 0 && id[head + len] == '/' &&
           id[head + len + 1];
}

static void check_profile(struct conf_check *check, unsigned i, struct conf_federated *d)
{
    static const char *const words[] = {"https_web", "https_spiffe", NULL};
    if (!conf_check_word(check, member(i, "profile").text, d->profile, words)) {
        return;
    }
    d->by_spiffe = strcmp(d->profile, "https_spiffe") == 0;
    if (d->by_spiffe && d->ca_file) {
        conf_bad(check, member(i, "ca_file").text,
                 "expected with profile: https_web only; https_spiffe believes the trust domain's "
                 "own bundle");
    }
    if (d->by_spiffe && !(d->spiffe_id && d->bundle_file)) {
        conf_bad(check, member(i, "profile").text,
                 "https_spiffe needs spiffe_id, the endpoint's, and bundle_file, the bundle to "
                 "begin with");
    }
    if (!d->by_spiffe && (d->spiffe_id || d->bundle_file)) {
        conf_bad(check, member(i, d->spiffe_id ? "spiffe_id" : "bundle_file").text,
                 "expected with profile: https_spiffe only");
    }
    if (d->by_spiffe && d->spiffe_id && !is_id_of(d->spiffe_id, d->name)) {
        conf_bad(check, member(i, "spiffe_id").text,
                 "expected a SPIFFE ID of %.80s with a path, found \"%.120s\"", d->name,
                 d->spiffe_id);
    }
}

static void check_domain(struct conf_check *check, const struct conf_issuer *conf, unsigned i)
{
    struct conf_federated *d = &conf->federation->trust_domains[i];
    struct conf_path at = member(i, "name");
    (void)conf_check_trust_domain(check, at.text, d->name);
    if (strcmp(d->name, conf->trust_domain) == 0) {
        conf_bad(check, at.text, "\"%.80s\" is this issuer's own trust domain", d->name);
    }
    for (unsigned k = 0; k < i; k++) {
        if (strcmp(conf->federation->trust_domains[k].name, d->name) == 0) {
            conf_bad(check, at.text, "trust domain \"%.80s\" stands there twice", d->name);
        }
    }
    struct conf_path url = member(i, "url");
    if (conf_check_url(check, url.text, d->url) && strpbrk(d->url, "@#")) {
        conf_bad(check, url.text, "expected an https URL without a user or fragment");
    }
    (void)conf_check_path(check, member(i, "ca_file").text, d->ca_file);
    (void)conf_check_path(check, member(i, "bundle_file").text, d->bundle_file);
    check_profile(check, i, d);
}

void conf_federation_check(struct conf_check *check, struct conf_issuer *conf)
{
    struct conf_federation *f = conf->federation;
    if (!f) {
        return;
    }
    for (unsigned i = 0; i < f->n_trust_domains; i++) {
        check_domain(check, conf, i);
    }
    conf_ranges_check(check, "federation.allow", f->allow, f->n_allow, f->ranges);
    bool ok =
        conf_check_duration(check, "federation.refresh_min", f->refresh_min, 1, &f->refresh_min_s);
    ok = conf_check_duration(check, "federation.refresh_max", f->refresh_max, 1,
                             &f->refresh_max_s) &&
         ok;
    if (ok && (f->refresh_max_s > REFRESH_MAX || f->refresh_min_s > f->refresh_max_s)) {
        conf_bad(check, "federation.refresh_max",
                 "expected at least refresh_min (%.40s) and at most 7d, found \"%.40s\"",
                 f->refresh_min, f->refresh_max);
    }
    if (conf_check_duration(check, "federation.timeout", f->timeout, 1, &f->timeout_s) &&
        f->timeout_s > 60) {
        conf_bad(check, "federation.timeout", "expected at most 60s, found \"%.40s\"", f->timeout);
    }
}

const struct conf_federated *conf_federated(const struct conf_federation *conf, const char *name)
{
    for (unsigned i = 0; conf && i < conf->n_trust_domains; i++) {
        if (strcmp(conf->trust_domains[i].name, name) == 0) {
            return &conf->trust_domains[i];
        }
    }
    return NULL;
}
