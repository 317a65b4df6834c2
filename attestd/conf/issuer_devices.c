#include "attestd/conf/issuer_devices.h"

#include "attestd/conf/schema.h"

#include <string.h>

#define AK_LIFETIME_MAX_S ((int64_t)31 * 86400)

#define PTR CYAML_FLAG_POINTER
#define OPT (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define STR(type, member, flags)                                                                   \
    CYAML_FIELD_STRING_PTR(#member, (flags), struct type, member, 0, 4096)

static const cyaml_schema_field_t profile_fields[] = {
    STR(conf_device_profile, name, PTR),
    STR(conf_device_profile, description, OPT),
    STR(conf_device_profile, lifetime, OPT),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t profile_entry = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct conf_device_profile, profile_fields),
};
const cyaml_schema_field_t conf_devices_fields[] = {
    CYAML_FIELD_SEQUENCE_COUNT("profiles", PTR, struct conf_devices, profiles, n_profiles,
                               &profile_entry, 1, CONF_PROFILES_MAX),
    CYAML_FIELD_BOOL("attestation_ca", CYAML_FLAG_OPTIONAL, struct conf_devices, attestation_ca),
    STR(conf_devices, ak_lifetime, OPT),
    CYAML_FIELD_END,
};

bool conf_devices_defaults(struct conf_issuer *conf)
{
    struct conf_devices *devices = conf->devices;
    bool ok = !devices || conf_default(&devices->ak_lifetime, "1d");
    for (unsigned i = 0; ok && devices && i < devices->n_profiles; i++) {
        struct conf_device_profile *p = &devices->profiles[i];
        ok = conf_default(&p->description, p->name) && conf_default(&p->lifetime, "1d");
    }
    return ok;
}

static void check_profile(struct conf_check *check, const struct conf_issuer *conf, unsigned i)
{
    struct conf_device_profile *p = &conf->devices->profiles[i];
    struct conf_path at = conf_path("devices.profiles[%u].name", i);
    (void)conf_check_name(check, at.text, p->name);
    bool twice = conf_issuer_profile(conf, p->name) || conf_dns_profile(conf, p->name) ||
                 strcmp(p->name, CONF_ENROLMENT) == 0;
    for (unsigned k = 0; k < i; k++) {
        twice = twice || strcmp(conf->devices->profiles[k].name, p->name) == 0;
    }
    if (twice) {
        conf_bad(check, at.text, "profile \"%.64s\" stands there twice", p->name);
    }
    if (strcmp(p->name, CONF_ATTESTATION_CA) == 0) {
        conf_bad(check, at.text,
                 "\"" CONF_ATTESTATION_CA "\" is the name of what the attestation CA gives");
    }
    (void)conf_check_text(check, conf_path("devices.profiles[%u].description", i).text,
                          p->description, 256);
    (void)conf_check_duration(check, conf_path("devices.profiles[%u].lifetime", i).text,
                              p->lifetime, CONF_LIFETIME_MIN_S, &p->lifetime_s);
}

void conf_devices_check(struct conf_check *check, struct conf_issuer *conf)
{
    struct conf_devices *devices = conf->devices;
    for (unsigned i = 0; devices && i < devices->n_profiles; i++) {
        check_profile(check, conf, i);
    }
    if (devices) {
        (void)conf_check_duration(check, "devices.ak_lifetime", devices->ak_lifetime,
                                  CONF_LIFETIME_MIN_S, &devices->ak_lifetime_s);
        if (devices->ak_lifetime_s > AK_LIFETIME_MAX_S) {
            conf_bad(check, "devices.ak_lifetime", "expected at most 31d, found \"%.40s\"",
                     devices->ak_lifetime);
        }
    }
}

const struct conf_device_profile *conf_device_profile(const struct conf_issuer *conf,
                                                      const char *name)
{
    for (unsigned i = 0; conf->devices && i < conf->devices->n_profiles; i++) {
        if (strcmp(conf->devices->profiles[i].name, name) == 0) {
            return &conf->devices->profiles[i];
        }
    }
    return NULL;
}
