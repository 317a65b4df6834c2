/* Other chains for the same leaf (RFC 8555 §7.4.2): an intermediate that another root signed, too.
 * An operator puts them into state_dir/ca as workload-alternate.pem and dns-alternate.pem. */
#include "provision/issuer/alternates.h"

#include "attestd/base/io.h"
#include "certs/chain.h"
#include "certs/oid.h"
#include "provision/issuer/ca_files.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static enum att_rc fits(const char *path, struct att_slice pem, X509 *ca, struct att_err *err)
{
    certs_autostack *chain = NULL;
    enum att_rc rc = certs_pem_parse(pem, &chain, err);
    if (rc) {
        att_err_prefix(err, "%s", path);
        return rc;
    }
    const X509 *first = sk_X509_value(chain, 0);
    if (X509_NAME_cmp(X509_get_subject_name(first), X509_get_subject_name(ca)) != 0 ||
        EVP_PKEY_eq(X509_get0_pubkey(first), X509_get0_pubkey(ca)) != 1) {
        return att_fail(err, ATT_E_INVAL,
                        "%s: expected first a certificate of the intermediate's name and key",
                        path);
    }
    return ATT_OK;
}

enum att_rc issuer_alternate_load(const char *state_dir, const char *name, X509 *ca, char **ret_pem,
                                  struct att_err *err)
{
    char path[ISSUER_CA_PATH], file[64];
    att_autobuf pem = {0};
    snprintf(file, sizeof file, "%s-alternate.pem", name);
    issuer_ca_path(path, state_dir, file);
    if (access(path, F_OK) != 0 && errno == ENOENT) {
        return ATT_OK;
    }
    enum att_rc rc = att_io_read_file(path, CERTS_CHAIN_MAX_LEN, &pem, err);
    if (!rc) {
        rc = fits(path, att_buf_slice(&pem), ca, err);
    }
    if (!rc) {
        *ret_pem = issuer_steal_text(&pem);
        rc = *ret_pem ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    return rc;
}

/* They are of the authorities of state_dir/ca: a leaf of a later generation has none. */
const char *issuer_alternate_of(const struct issuer *issuer, const struct store_cert *cert)
{
    static const char end[] = "-----END CERTIFICATE-----\n";
    const char *leaf = strstr(cert->pem, end);
    struct issuer_authority first = issuer_authority_first(issuer, cert->kind);
    if (!leaf || !first.pem || strcmp(leaf + sizeof end - 1, first.pem) != 0) {
        return NULL;
    }
    return strcmp(cert->kind, "agent") == 0 ? issuer->workload_alternate
           : strcmp(cert->kind, "dns") == 0 ? issuer->dns_alternate
                                            : NULL;
}

enum att_rc issuer_alternate_put(const struct issuer *issuer, const struct store_cert *cert,
                                 struct att_buf *ret_pem, struct att_err *err)
{
    static const char end[] = "-----END CERTIFICATE-----\n";
    const char *leaf = strstr(cert->pem, end), *chain = issuer_alternate_of(issuer, cert);
    if (!leaf || !chain) {
        return att_fail(err, ATT_E_NOTFOUND, "there is one chain only");
    }
    att_buf_put(ret_pem, cert->pem, (size_t)(leaf - cert->pem) + sizeof end - 1);
    att_buf_put_str(ret_pem, chain);
    return att_buf_ok(ret_pem, err);
}
