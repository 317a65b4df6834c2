#include "certs/bundle.h"

#include "attestd/base/io.h"
#include "certs/mut.h"
#include "certs/oid.h"
#include "certs/pem.h"

#include <openssl/x509v3.h>

static enum att_rc check_root(const STACK_OF(X509) * roots, int at, struct att_err *err)
{
    X509 *root = certs_mut_x509(sk_X509_value(roots, at));
    for (int i = 0; i < at; i++) {
        if (X509_cmp(root, sk_X509_value(roots, i)) == 0) {
            return att_fail(err, ATT_E_PARSE, "certificate %d of the bundle is there twice",
                            at + 1);
        }
    }
    if (X509_check_ca(root) != 1) {
        return att_fail(err, ATT_E_PARSE, "certificate %d of the bundle is not a CA's", at + 1);
    }
    if (X509_self_signed(root, 1) != 1) {
        return att_fail_openssl(err, ATT_E_PARSE,
                                "certificate %d of the bundle is not self-signed: not a root",
                                at + 1);
    }
    return ATT_OK;
}

enum att_rc certs_bundle_parse(struct att_slice pem, STACK_OF(X509) * *ret_roots,
                               struct att_err *err)
{
    certs_autostack *roots = NULL;
    enum att_rc rc =
        certs_pem_parse_max(pem, CERTS_BUNDLE_MAX_LEN, CERTS_BUNDLE_MAX_CERTS, &roots, err);
    for (int i = 0; rc == ATT_OK && i < sk_X509_num(roots); i++) {
        rc = check_root(roots, i, err);
    }
    if (rc == ATT_OK) {
        *ret_roots = roots;
        roots = NULL;
    }
    return rc;
}

enum att_rc certs_bundle_load(const char *path, STACK_OF(X509) * *ret_roots, struct att_err *err)
{
    att_autobuf pem = {0};
    enum att_rc rc = att_io_read_file(path, CERTS_BUNDLE_MAX_LEN, &pem, err);
    if (rc != ATT_OK) {
        return rc;
    }
    rc = certs_bundle_parse(att_buf_slice(&pem), ret_roots, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "%s", path);
    }
    return rc;
}

enum att_rc certs_bundle_save(const STACK_OF(X509) * roots, const char *path, struct att_err *err)
{
    att_autobuf pem = {0};
    certs_autostack *again = NULL;
    enum att_rc rc = certs_pem_dump_all(roots, &pem, err);
    if (rc == ATT_OK) {
        rc = certs_bundle_parse(att_buf_slice(&pem), &again, err); /* what load will refuse */
    }
    return rc == ATT_OK ? att_io_write_file(path, att_buf_slice(&pem), 0644, err) : rc;
}
