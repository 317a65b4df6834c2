#include "provision/issuer/dns_ca.h"

#include "attestd/base/io.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "provision/issuer/ca_files.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The intermediate's certificate is written last: where it is, the rest is, too. */
static enum att_rc make(const struct conf_issuer *conf, struct issuer_hsm *hsm, struct att_err *err)
{
    certs_autox509 *root = NULL, *ca = NULL;
    certs_autokey *root_key = NULL, *key = NULL;
    enum att_rc rc =
        issuer_ca_make(conf, hsm, "dns-root", "DNS Root", NULL, NULL, &root, &root_key, err);
    if (!rc) {
        rc = issuer_ca_make(conf, hsm, "dns-ca", "DNS CA", root, root_key, &ca, &key, err);
    }
    if (!rc) {
        att_log(ATT_INFO, "ca.dnsMade", ATT_S("state_dir", conf->state_dir),
                ATT_S("root", "ca/dns-root.crt"));
    }
    return rc;
}

static enum att_rc load(const struct conf_issuer *conf, struct issuer_hsm *hsm,
                        struct issuer_dns_ca *ca, struct att_err *err)
{
    enum att_rc rc = issuer_ca_load_cert(conf->state_dir, "dns-root.crt", &ca->root, err);
    if (!rc) {
        rc = issuer_ca_load_authority(hsm, conf->state_dir, "dns-ca", &ca->ca, &ca->key, err);
    }
    if (!rc) {
        rc = issuer_ca_pem_text(ca->ca, &ca->pem, err);
    }
    if (!rc) {
        ca->end = issuer_ca_end(ca->ca);
    }
    return rc;
}

enum att_rc issuer_dns_ca_create(const struct conf_issuer *conf, struct issuer_hsm *hsm,
                                 struct att_err *err)
{
    char path[ISSUER_CA_PATH];
    issuer_ca_path(path, conf->state_dir, "dns-ca.crt");
    if (access(path, F_OK) == 0) {
        return att_fail(err, ATT_E_EXISTS, "%s: there is an authority for DNS names already", path);
    }
    return make(conf, hsm, err);
}

static enum att_rc refuse_shared(const char *path, struct att_err *err)
{
    enum att_rc rc =
        att_fail(err, ATT_E_NOTFOUND,
                 "%s: is not there, and the issuers of one database have one authority for DNS "
                 "names: `attest-issuerd init` makes it at one of them, ca/dns-* is copied to "
                 "each",
                 path);
    att_err_reason(err, "dnsCa");
    return rc;
}

enum att_rc issuer_dns_ca_load(const struct conf_issuer *conf, struct issuer_hsm *hsm, bool create,
                               struct issuer_dns_ca **ret_ca, struct att_err *err)
{
    char path[ISSUER_CA_PATH];
    issuer_ca_path(path, conf->state_dir, "dns-ca.crt");
    if (access(path, F_OK) != 0) {
        if (store_spec_shared(conf->store)) {
            return refuse_shared(path, err);
        }
        enum att_rc rc = create ? make(conf, hsm, err) : ATT_OK;
        if (rc || !create) {
            *ret_ca = NULL;
            return rc;
        }
    }
    struct issuer_dns_ca *ca = calloc(1, sizeof *ca);
    enum att_rc rc = ca ? load(conf, hsm, ca, err) : att_fail(err, ATT_E_NOMEM, "CA: no memory");
    if (rc) {
        att_err_prefix(err, "the authority for DNS names");
        issuer_dns_ca_free(ca);
        return rc;
    }
    *ret_ca = ca;
    return ATT_OK;
}

void issuer_dns_ca_free(struct issuer_dns_ca *ca)
{
    if (ca) {
        X509_free(ca->root);
        X509_free(ca->ca);
        EVP_PKEY_free(ca->key);
        free(ca->pem);
        free(ca);
    }
}
