/* `init --root offline`: the roots' keys are never here. The first run makes the intermediates'
 * keys and requests; whoever has the roots signs them; a later run takes the chains, checks them,
 * makes the rest, and puts the whole folder in place by one rename. Until then there is no CA, and
 * each run goes on where the one before ended. */
#include "provision/issuer/ca_files.h"

#include "attestd/base/io.h"
#include "certs/authority.h"
#include "certs/chain.h"
#include "certs/key.h"
#include "certs/oid.h"

#include <errno.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEAST_S   2592000
#define CSR_MAX   16384
#define NAME_ROOM 100

struct offline {
    const struct conf_issuer *conf;
    struct issuer_hsm *hsm;
    char dir[ISSUER_CA_PATH]; /* state_dir/offline; the coming CA is ca/ in it */
};

static const struct part {
    const char *name, *root, *title, *root_copy;
    bool workload;
} parts[2] = {{"workload-ca", "workload-root", "Workload CA", "bundle.pem", true},
              {"attest-ca", "attest-root", "Attestation CA", "ak-roots.pem", false}};

static bool path_of(const struct offline *o, const struct part *part, const char *suffix,
                    char ret[ISSUER_CA_PATH])
{
    return snprintf(ret, ISSUER_CA_PATH, "%.3900s/%s.%s", o->dir, part->name, suffix) > 0;
}

/* ---- requests ---------------------------------------------------------------------------------
 */

/* The request is written last: where it is, its key is. */
static enum att_rc request(const struct offline *o, const struct part *part, struct att_err *err)
{
    char path[ISSUER_CA_PATH], ref[ISSUER_KEYREF_MAX], cn[NAME_ROOM];
    certs_autokey *key = NULL;
    att_autobuf der = {0}, pem = {0};
    path_of(o, part, "csr", path);
    if (access(path, F_OK) == 0) {
        return ATT_OK;
    }
    snprintf(cn, sizeof cn, "%.40s %s", o->conf->trust_domain, part->title);
    const struct certs_authority_spec spec = {cn, part->workload ? o->conf->trust_domain : NULL};
    enum att_rc rc =
        issuer_key_make(o->hsm, o->conf->ca_keys_hsm, o->dir, part->name, ref, &key, err);
    if (!rc) {
        rc = issuer_key_note(o->dir, part->name, ref, err);
    }
    if (!rc) {
        rc = certs_authority_csr(&spec, key, &der, err);
    }
    if (!rc) {
        rc = certs_pem_encode("CERTIFICATE REQUEST", att_buf_slice(&der), &pem, err);
    }
    return rc ? rc : att_io_write_file(path, att_buf_slice(&pem), 0644, err);
}

static enum att_rc spki_of(const struct offline *o, const struct part *part,
                           struct att_buf *ret_spki, struct att_err *err)
{
    char path[ISSUER_CA_PATH];
    att_autobuf pem = {0};
    path_of(o, part, "csr", path);
    enum att_rc rc = att_io_read_file(path, CSR_MAX, &pem, err);
    if (rc) {
        return rc;
    }
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    X509_REQ *req = bio ? PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL) : NULL;
    uint8_t *der = NULL;
    int len = req ? i2d_X509_PUBKEY(X509_REQ_get_X509_PUBKEY(req), &der) : -1;
    if (len > 0) {
        att_buf_put(ret_spki, der, (size_t)len);
    }
    OPENSSL_free(der);
    X509_REQ_free(req);
    BIO_free(bio);
    return len > 0 ? att_buf_ok(ret_spki, err) : att_fail_openssl(err, ATT_E_PARSE, "%s", path);
}

/* ---- chains -----------------------------------------------------------------------------------
 */

static enum att_rc put_cert(const struct offline *o, const char *name, const char *suffix,
                            const X509 *cert, struct att_err *err)
{
    char path[ISSUER_CA_PATH], file[NAME_ROOM];
    att_autobuf pem = {0};
    snprintf(file, sizeof file, "%s%s", name, suffix);
    issuer_ca_path(path, o->dir, file);
    enum att_rc rc = certs_pem_dump(cert, &pem, err);
    return rc ? rc : att_io_write_file(path, att_buf_slice(&pem), 0644, err);
}

static enum att_rc read_chain(const struct offline *o, const struct part *part,
                              STACK_OF(X509) * *ret_chain, struct att_err *err)
{
    char path[ISSUER_CA_PATH];
    att_autobuf pem = {0}, spki = {0};
    STACK_OF(X509) *chain = NULL;
    const struct certs_authority_spec spec = {.trust_domain =
                                                  part->workload ? o->conf->trust_domain : NULL};
    path_of(o, part, "chain.pem", path);
    enum att_rc rc = att_io_read_file(path, CERTS_CHAIN_MAX_LEN, &pem, err);
    if (!rc) {
        rc = certs_pem_parse(att_buf_slice(&pem), &chain, err);
    }
    if (!rc) {
        rc = spki_of(o, part, &spki, err);
    }
    if (!rc) {
        rc = certs_authority_check(chain, &spec, att_buf_slice(&spki), att_now_utc_s(), LEAST_S,
                                   err);
    }
    if (!rc && sk_X509_num(chain) != 2) {
        rc = att_fail(err, ATT_E_AUTH, "expected two certificates: the intermediate and the root");
        att_err_reason(err, "caChain");
    }
    if (rc) {
        att_err_prefix(err, "%s", path);
        certs_stack_cleanup(&chain);
    }
    *ret_chain = chain;
    return rc;
}

static enum att_rc put_chain(const struct offline *o, const struct part *part,
                             const STACK_OF(X509) * chain, struct att_err *err)
{
    enum att_rc rc = put_cert(o, part->name, ".crt", sk_X509_value(chain, 0), err);
    if (!rc) {
        rc = put_cert(o, part->root, ".crt", sk_X509_value(chain, 1), err);
    }
    return rc ? rc : put_cert(o, part->root_copy, "", sk_X509_value(chain, 1), err);
}

/* The root of the issuer's own TLS has its key here: it signs again each year. Made once, by the
 * first run: its certificate is written last. */
static enum att_rc tls_root(const struct offline *o, X509 **ret_root, EVP_PKEY **ret_key,
                            struct att_err *err)
{
    struct conf_issuer there = *o->conf;
    char path[ISSUER_CA_PATH];
    issuer_ca_path(path, o->dir, "tls-root.crt");
    there.state_dir = (char *)(uintptr_t)o->dir;
    return access(path, F_OK) == 0
               ? issuer_ca_load_authority(o->hsm, o->dir, "tls-root", ret_root, ret_key, err)
               : issuer_ca_make(&there, o->hsm, "tls-root", "Issuer TLS Root", NULL, NULL, ret_root,
                                ret_key, err);
}

static enum att_rc make_rest(const struct offline *o, const X509 *root, EVP_PKEY *key,
                             struct att_err *err)
{
    int64_t now = att_now_utc_s();
    enum att_rc rc = put_cert(o, "tls-root", ".pem", root, err);
    if (!rc) {
        rc = issuer_endpoint_make(o->dir, o->conf, true, root, key, now, err);
    }
    if (!rc) {
        rc = issuer_endpoint_make(o->dir, o->conf, false, root, key, now, err);
    }
    return rc;
}

static bool have_chains(const struct offline *o)
{
    char path[ISSUER_CA_PATH];
    for (size_t i = 0; i < 2; i++) {
        path_of(o, &parts[i], "chain.pem", path);
        if (access(path, F_OK) != 0) {
            return false;
        }
    }
    return true;
}

/* Whoever trusts one root must not trust what is under another one by it. */
static enum att_rc keys_apart(const STACK_OF(X509) * workload, const STACK_OF(X509) * attest,
                              const X509 *root, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    for (int i = 0; !rc && i < sk_X509_num(workload); i++) {
        rc = issuer_ca_apart(attest, sk_X509_value(workload, i), "workload-ca.chain.pem", err);
    }
    if (!rc) {
        rc = issuer_ca_apart(workload, root, "tls-root", err);
        if (rc) {
            att_err_prefix(err, "workload-ca.chain.pem");
        }
    }
    if (!rc) {
        rc = issuer_ca_apart(attest, root, "tls-root", err);
        if (rc) {
            att_err_prefix(err, "attest-ca.chain.pem");
        }
    }
    return rc;
}

static enum att_rc complete(const struct offline *o, const char *target, struct att_err *err)
{
    char made[ISSUER_CA_PATH];
    certs_autox509 *root = NULL;
    certs_autokey *key = NULL;
    certs_autostack *workload = NULL, *attest = NULL;
    enum att_rc rc = read_chain(o, &parts[0], &workload, err);
    if (!rc) {
        rc = read_chain(o, &parts[1], &attest, err);
    }
    if (!rc) {
        rc = tls_root(o, &root, &key, err);
    }
    if (!rc) {
        rc = keys_apart(workload, attest, root, err);
    }
    if (!rc) {
        rc = put_chain(o, &parts[0], workload, err);
    }
    if (!rc) {
        rc = put_chain(o, &parts[1], attest, err);
    }
    if (!rc) {
        rc = make_rest(o, root, key, err);
    }
    snprintf(made, sizeof made, "%.4000s/ca", o->dir);
    if (!rc && rename(made, target) != 0) {
        rc = att_fail_errno(err, errno == EEXIST || errno == ENOTEMPTY ? ATT_E_EXISTS : ATT_E_IO,
                            "%s: cannot be put in place", target);
    }
    return rc;
}

enum att_rc issuer_ca_offline(const struct conf_issuer *conf, struct issuer_hsm *hsm,
                              bool *ret_complete, struct att_err *err)
{
    struct offline o = {.conf = conf, .hsm = hsm};
    char target[ISSUER_CA_PATH], folder[ISSUER_CA_PATH];
    snprintf(o.dir, sizeof o.dir, "%.3800s/offline", conf->state_dir);
    snprintf(target, sizeof target, "%.4000s/ca", conf->state_dir);
    snprintf(folder, sizeof folder, "%.4000s/ca", o.dir);
    *ret_complete = false;
    if (access(target, F_OK) == 0) {
        return att_fail(err, ATT_E_EXISTS, "%s: there is a CA already", target);
    }
    enum att_rc rc = att_io_mkdirs(conf->state_dir, 0700, err);
    if (!rc) {
        rc = att_io_mkdirs(folder, 0700, err);
    }
    for (size_t i = 0; i < 2 && !rc; i++) {
        rc = request(&o, &parts[i], err);
    }
    if (!rc) {
        certs_autox509 *root = NULL;
        certs_autokey *key = NULL;
        rc = tls_root(&o, &root, &key, err);
    }
    if (!rc && have_chains(&o)) {
        rc = complete(&o, target, err);
        *ret_complete = rc == ATT_OK;
    }
    return rc;
}
