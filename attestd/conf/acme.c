#include "attestd/conf/acme.h"

#include "attestd/base/enc.h"

#include <string.h>

#define OPT               (CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL)
#define STR(type, member) CYAML_FIELD_STRING_PTR(#member, OPT, struct type, member, 0, 4096)
#define KID_MAX           256

static const cyaml_schema_field_t eab_fields[] = {
    STR(conf_attestd_eab, kid),
    STR(conf_attestd_eab, key_file),
    CYAML_FIELD_END,
};
static const cyaml_schema_field_t attestation_ca_fields[] = {
    STR(conf_attestd_attestation_ca, url),
    STR(conf_attestd_attestation_ca, ca_file),
    CYAML_FIELD_END,
};
const cyaml_schema_field_t conf_acme_fields[] = {
    STR(conf_attestd_acme, directory),
    STR(conf_attestd_acme, ca_file),
    STR(conf_attestd_acme, ca_sha256),
    STR(conf_attestd_acme, roots),
    STR(conf_attestd_acme, agents),
    CYAML_FIELD_MAPPING_PTR("eab", OPT, struct conf_attestd_acme, eab, eab_fields),
    CYAML_FIELD_MAPPING_PTR("attestation_ca", OPT, struct conf_attestd_acme, attestation_ca,
                            attestation_ca_fields),
    STR(conf_attestd_acme, ak_certificate),
    STR(conf_attestd_acme, ak),
    CYAML_FIELD_END,
};

size_t conf_acme_origin(const char *directory)
{
    static const char scheme[] = "https://";
    size_t n = sizeof scheme - 1;
    return strlen(directory) < n ? strlen(directory) : n + strcspn(directory + n, "/");
}

static bool required(struct conf_check *check, const char *path, const char *text)
{
    if (!text) {
        conf_bad(check, path, "required in this section, found nothing");
    }
    return text != NULL;
}

static void default_to(struct conf_check *check, char **text, const char *other)
{
    if (!*text && other && !conf_default(text, other)) {
        conf_bad(check, "acme", "no memory");
    }
}

static void check_server(struct conf_check *check, struct conf_attestd_acme *acme)
{
    if (required(check, "acme.directory", acme->directory) &&
        conf_check_url(check, "acme.directory", acme->directory) &&
        acme->directory[conf_acme_origin(acme->directory)] == '\0') {
        conf_bad(check, "acme.directory",
                 "expected the URL of a directory, https://HOST/PATH, "
                 "found no path in \"%.80s\"",
                 acme->directory);
    }
    (void)conf_check_path(check, "acme.ca_file", acme->ca_file);
    if (conf_check_hex256(check, "acme.ca_sha256", acme->ca_sha256) && acme->ca_sha256 &&
        att_unhex_exact(acme->ca_sha256_bytes, ATT_SHA256_LEN, acme->ca_sha256, NULL) != ATT_OK) {
        conf_bad(check, "acme.ca_sha256", "cannot be read");
    }
    if (!acme->ca_file == !acme->ca_sha256) {
        conf_bad(check, "acme", "expected ca_file or ca_sha256, found %s",
                 acme->ca_file ? "both" : "neither");
    }
    default_to(check, &acme->roots, acme->ca_file);
    (void)(required(check, "acme.roots", acme->roots) &&
           conf_check_path(check, "acme.roots", acme->roots));
    (void)(required(check, "acme.agents", acme->agents) &&
           conf_check_path(check, "acme.agents", acme->agents));
}

static void check_eab(struct conf_check *check, const struct conf_attestd_eab *eab)
{
    if (required(check, "acme.eab.kid", eab->kid)) {
        (void)conf_check_text(check, "acme.eab.kid", eab->kid, KID_MAX);
    }
    if (required(check, "acme.eab.key_file", eab->key_file)) {
        (void)conf_check_path(check, "acme.eab.key_file", eab->key_file);
    }
}

static void check_ak(struct conf_check *check, struct conf_attestd_acme *acme)
{
    static const char *const kinds[] = {"rsa-2048", "ec-p256", NULL};
    struct conf_attestd_attestation_ca *ca = acme->attestation_ca;
    default_to(check, &acme->ak, kinds[0]);
    (void)conf_check_word(check, "acme.ak", acme->ak, kinds);
    if (!ca == !acme->ak_certificate) {
        conf_bad(check, "acme",
                 "expected attestation_ca or ak_certificate, found %s: the server wants a "
                 "certificate of the attestation key",
                 ca ? "both" : "neither");
    }
    (void)conf_check_path(check, "acme.ak_certificate", acme->ak_certificate);
    if (!ca) {
        return;
    }
    if (required(check, "acme.attestation_ca.url", ca->url)) {
        (void)conf_check_url(check, "acme.attestation_ca.url", ca->url);
    }
    default_to(check, &ca->ca_file, acme->ca_file);
    (void)(required(check, "acme.attestation_ca.ca_file", ca->ca_file) &&
           conf_check_path(check, "acme.attestation_ca.ca_file", ca->ca_file));
}

/* One server: there is one account key, and agents come from one place. */
void conf_acme_check(struct conf_check *check, struct conf_attestd *conf)
{
    if (conf->issuer) {
        conf_bad(check, "acme", "expected issuer or acme, found both");
    }
    if (conf->ticket_file) {
        conf_bad(check, "ticket_file", "is an attest-issuerd's: expected acme.eab beside acme");
    }
    check_server(check, conf->acme);
    if (conf->acme->eab) {
        check_eab(check, conf->acme->eab);
    }
    check_ak(check, conf->acme);
}
