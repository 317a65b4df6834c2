/* An OpenSSF Model Signing bundle beside a manifest: --bundle, --bundle-dir, and --bundle-key or
 * --bundle-roots. */
#include "attestd/ctl/manifest.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "certs/oid.h"
#include "provision/manifest/oms.h"

#include <limits.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <stdlib.h>
#include <string.h>

static enum att_rc load_key(const char *path, EVP_PKEY **ret_key, struct att_err *err)
{
    att_autobuf pem = ATT_BUF_INIT((size_t)16 << 10);
    enum att_rc rc = att_io_read_file(path, (size_t)16 << 10, &pem, err);
    BIO *bio = rc == ATT_OK ? BIO_new_mem_buf(pem.ptr, (int)pem.len) : NULL;
    if (rc == ATT_OK && (!bio || !(*ret_key = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL)))) {
        rc = att_fail_openssl(err, ATT_E_PARSE, "%s: expected a public key in PEM", path);
    }
    BIO_free(bio);
    return rc;
}

/* All certificates of a PEM file, of whatever key. */
static enum att_rc load_roots(const char *path, STACK_OF(X509) * *ret_roots, struct att_err *err)
{
    att_autobuf pem = ATT_BUF_INIT((size_t)1 << 20);
    enum att_rc rc = att_io_read_file(path, (size_t)1 << 20, &pem, err);
    if (rc != ATT_OK) {
        return rc;
    }
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    STACK_OF(X509) *roots = sk_X509_new_null();
    for (X509 *cert; bio && roots && (cert = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL;) {
        if (sk_X509_push(roots, cert) <= 0) {
            X509_free(cert);
            break;
        }
    }
    ERR_clear_error();
    BIO_free(bio);
    if (!roots || sk_X509_num(roots) == 0) {
        sk_X509_pop_free(roots, X509_free);
        return att_fail(err, ATT_E_PARSE, "%s: expected certificates in PEM", path);
    }
    *ret_roots = roots;
    return ATT_OK;
}

static const char *option(const struct ctl_args *args, const char *name)
{
    return json_string_value(json_object_get(args->json, name));
}

enum att_rc ctl_manifest_bundle(const struct ctl_args *args, const struct manifest *manifest,
                                struct att_err *err)
{
    const char *file = option(args, "bundle"), *folder = option(args, "bundle-dir");
    const char *key_file = option(args, "bundle-key"), *roots_file = option(args, "bundle-roots");
    if (!file && !folder && !key_file && !roots_file) {
        return ATT_OK;
    }
    if (!file || !folder || !key_file == !roots_file) {
        return att_fail(err, ATT_E_INVAL,
                        "expected --bundle, --bundle-dir, and one of --bundle-key and "
                        "--bundle-roots");
    }
    char dir[PATH_MAX], own[PATH_MAX];
    if (!realpath(folder, dir) || !realpath(file, own)) {
        return att_fail(err, ATT_E_NOTFOUND, "%.200s or %.200s is not there", folder, file);
    }
    certs_autokey *key = NULL;
    certs_autostack *roots = NULL;
    att_autobuf json = ATT_BUF_INIT(MANIFEST_OMS_MAX);
    ATT_CLEANUP(manifest_oms_done) struct manifest_oms oms = {0};
    enum att_rc rc = key_file ? load_key(key_file, &key, err) : load_roots(roots_file, &roots, err);
    if (rc == ATT_OK) {
        rc = att_io_read_file(file, MANIFEST_OMS_MAX, &json, err);
    }
    if (rc == ATT_OK) {
        const struct manifest_oms_trust trust = {key, roots, att_now_utc_s()};
        rc = manifest_oms_parse(att_buf_slice(&json), &trust, &oms, err);
    }
    return rc == ATT_OK ? manifest_oms_check(&oms, manifest, dir, own, err) : rc;
}
