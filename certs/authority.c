#include "certs/authority.h"

#include "certs/chain.h"
#include "certs/der.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "certs/tbs.h"

#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#define PROBE_ROOM 400

/* ---- the request ------------------------------------------------------------------------------
 */

static bool add_extensions(X509_REQ *req, const char *trust_domain)
{
    att_autobuf exts = {0};
    size_t seq = certs_der_begin(&exts, DER_SEQUENCE);
    certs_ext_intermediate(&exts, trust_domain);
    certs_der_end(&exts, seq);
    const unsigned char *p = exts.ptr;
    X509_EXTENSIONS *list = NULL;
    bool ok = att_buf_ok(&exts, NULL) == ATT_OK &&
              (list = d2i_X509_EXTENSIONS(NULL, &p, (long)exts.len)) != NULL &&
              X509_REQ_add_extensions(req, list) == 1;
    sk_X509_EXTENSION_pop_free(list, X509_EXTENSION_free);
    return ok;
}

static bool set_subject(X509_REQ *req, const char *common_name)
{
    X509_NAME *name = X509_REQ_get_subject_name(req);
    return X509_NAME_add_entry_by_NID(name, NID_commonName, MBSTRING_UTF8,
                                      (const unsigned char *)common_name, -1, -1, 0) == 1;
}

enum att_rc certs_authority_csr(const struct certs_authority_spec *spec, EVP_PKEY *key,
                                struct att_buf *ret_der, struct att_err *err)
{
    att_autobuf spki = {0};
    certs_autokey *pub = NULL;
    enum att_rc rc = certs_key_spki(key, &spki, err);
    if (!rc) {
        rc = certs_key_from_spki(att_buf_slice(&spki), &pub, err);
    }
    if (rc) {
        return rc;
    }
    X509_REQ *req = X509_REQ_new();
    uint8_t *der = NULL;
    int len = -1;
    if (req && X509_REQ_set_version(req, 0) && set_subject(req, spec->common_name) &&
        X509_REQ_set_pubkey(req, pub) == 1 && add_extensions(req, spec->trust_domain) &&
        X509_REQ_sign(req, key, EVP_sha256()) > 0) {
        len = i2d_X509_REQ(req, &der);
    }
    X509_REQ_free(req);
    if (len <= 0) {
        rc = certs_key_remote_error(err);
        return rc ? rc : att_fail_openssl(err, ATT_E_CRYPTO, "make a CA's request");
    }
    att_buf_put(ret_der, der, (size_t)len);
    OPENSSL_free(der);
    return att_buf_ok(ret_der, err);
}

/* ---- what came back ---------------------------------------------------------------------------
 */

static enum att_rc refuse(struct att_err *err, const char *reason, const X509 *cert,
                          const char *what)
{
    char name[200] = "";
    if (cert) {
        X509_NAME_oneline(X509_get_subject_name(cert), name, sizeof name);
    }
    enum att_rc rc = att_fail(err, ATT_E_AUTH, "%s%s%s", name, name[0] ? ": " : "", what);
    att_err_reason(err, reason);
    return rc;
}

static enum att_rc check_shape(const STACK_OF(X509) * chain, struct att_slice spki,
                               struct att_err *err)
{
    int n = sk_X509_num(chain);
    if (n < 2 || n > CERTS_AUTHORITY_CHAIN_MAX) {
        return refuse(err, "caChain", NULL,
                      "expected 2 … 5 certificates: the intermediate, what is between, the root");
    }
    X509 *root = sk_X509_value(chain, n - 1);
    if (X509_NAME_cmp(X509_get_subject_name(root), X509_get_issuer_name(root)) != 0) {
        return refuse(err, "caChain", root, "expected a root last, which is issued by itself");
    }
    return certs_cert_matches_spki(sk_X509_value(chain, 0), spki, NULL)
               ? refuse(err, "caKey", sk_X509_value(chain, 0),
                        "is for another key than the request's")
               : ATT_OK;
}

/* Path lengths: the intermediate has none below itself but leaves; one at place i has i CAs. */
static enum att_rc check_cas(const STACK_OF(X509) * chain, struct att_err *err)
{
    for (int i = 0; i < sk_X509_num(chain); i++) {
        X509 *cert = sk_X509_value(chain, i);
        long length = X509_get_pathlen(cert);
        if (X509_check_ca(cert) != 1) {
            return refuse(err, "caBasic", cert, "is not a CA (basicConstraints)");
        }
        if (i == 0 && length != 0) {
            return refuse(err, "caPathLength", cert, "expected path length 0");
        }
        if (length >= 0 && length < i) {
            return refuse(err, "caPathLength", cert,
                          "allows fewer CAs below itself than there are");
        }
        uint32_t usage = X509_get_key_usage(cert);
        if (!(usage & KU_KEY_CERT_SIGN) || (i == 0 && !(usage & KU_CRL_SIGN))) {
            return refuse(err, "caKeyUsage", cert, "expected keyCertSign and cRLSign");
        }
    }
    return ATT_OK;
}

static enum att_rc check_ekus(const STACK_OF(X509) * chain, struct att_err *err)
{
    for (int i = 0; i + 1 < sk_X509_num(chain); i++) {
        X509 *cert = sk_X509_value(chain, i);
        uint32_t usage = X509_get_extended_key_usage(cert);
        bool both = (usage & XKU_SSL_SERVER) && (usage & XKU_SSL_CLIENT);
        if (usage != UINT32_MAX && !both && !(usage & XKU_ANYEKU)) {
            return refuse(err, "caEku", cert,
                          "has an extended key usage without serverAuth and clientAuth");
        }
    }
    return ATT_OK;
}

static enum att_rc check_times(const STACK_OF(X509) * chain, int64_t at_s, int64_t least_s,
                               struct att_err *err)
{
    int64_t end = INT64_MAX;
    for (int i = sk_X509_num(chain) - 1; i >= 0; i--) {
        X509 *cert = sk_X509_value(chain, i);
        struct certs_cert_info info;
        enum att_rc rc = certs_cert_info(cert, &info, err);
        if (rc) {
            return rc;
        }
        if (at_s < info.not_before || at_s > info.not_after) {
            return refuse(err, "caValidity", cert, "is not valid now");
        }
        if (info.not_after > end) {
            return refuse(err, "caValidity", cert, "outlives the certificate above it");
        }
        end = info.not_after;
    }
    return end - at_s < least_s ? refuse(err, "caValidity", sk_X509_value(chain, 0),
                                         "ends too soon to be worth a rotation")
                                : ATT_OK;
}

static enum att_rc check_signatures(const STACK_OF(X509) * chain, struct att_err *err)
{
    int n = sk_X509_num(chain);
    for (int i = 0; i < n; i++) {
        X509 *cert = sk_X509_value(chain, i), *by = sk_X509_value(chain, i + 1 < n ? i + 1 : i);
        int md = NID_undef, bits = 0;
        if (X509_NAME_cmp(X509_get_issuer_name(cert), X509_get_subject_name(by)) != 0 ||
            X509_verify(cert, X509_get0_pubkey(by)) != 1) {
            return refuse(err, "caSignature", cert, "is not signed by the certificate after it");
        }
        if (X509_get_signature_info(cert, &md, NULL, &bits, NULL) != 1 || md == NID_sha1 ||
            md == NID_md5 || bits < 112) {
            return refuse(err, "caAlgorithm", cert, "is signed with SHA-1 or something weaker");
        }
    }
    return ATT_OK;
}

/* ---- names ------------------------------------------------------------------------------------
 */

/* A certificate with this subjectAltName ("URI:…"), as constraints are asked of one. */
static X509 *make_probe(EVP_PKEY *key, const char *name)
{
    X509 *probe = X509_new(), *read = NULL;
    X509_EXTENSION *san = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, name);
    uint8_t *der = NULL;
    int len = -1;
    if (probe && san && X509_set_version(probe, 2) && X509_set_pubkey(probe, key) == 1 &&
        X509_gmtime_adj(X509_getm_notBefore(probe), 0) &&
        X509_gmtime_adj(X509_getm_notAfter(probe), 60) && X509_add_ext(probe, san, -1) == 1 &&
        X509_sign(probe, key, EVP_sha256()) > 0) {
        len = i2d_X509(probe, &der);
    }
    const unsigned char *p = der;
    read = len > 0 ? d2i_X509(NULL, &p, len) : NULL;
    OPENSSL_free(der);
    X509_EXTENSION_free(san);
    X509_free(probe);
    if (read) {
        (void)X509_check_purpose(read, -1, 0); /* reads its extensions */
    }
    return read;
}

/* X509_V_OK when constraints permit the name; what is wrong otherwise; -1: it could not be asked.
 */
static int permitted(X509 *ca, EVP_PKEY *key, const char *name)
{
    NAME_CONSTRAINTS *constraints = X509_get_ext_d2i(ca, NID_name_constraints, NULL, NULL);
    X509 *probe = make_probe(key, name);
    int verdict = !probe        ? -1
                  : constraints ? NAME_CONSTRAINTS_check(probe, constraints)
                                : X509_V_OK;
    NAME_CONSTRAINTS_free(constraints);
    X509_free(probe);
    return verdict;
}

static enum att_rc check_own_names(X509 *cert, EVP_PKEY *key, const char *trust_domain,
                                   struct att_err *err)
{
    char foreign[4][PROBE_ROOM];
    int at = X509_get_ext_by_NID(cert, NID_name_constraints, -1);
    const X509_EXTENSION *ext = at >= 0 ? X509_get_ext(cert, at) : NULL;
    if (!ext || !X509_EXTENSION_get_critical(ext)) {
        return refuse(err, "caConstraints", cert,
                      "expected critical name constraints for the trust domain, as requested");
    }
    snprintf(foreign[0], PROBE_ROOM, "URI:spiffe://other.%s/agent/probe", trust_domain);
    snprintf(foreign[1], PROBE_ROOM, "URI:spiffe://elsewhere.invalid/agent/probe");
    snprintf(foreign[2], PROBE_ROOM, "DNS:%s", trust_domain);
    snprintf(foreign[3], PROBE_ROOM, "IP:192.0.2.1");
    for (size_t i = 0; i < 4; i++) {
        if (permitted(cert, key, foreign[i]) <= 0) { /* X509_V_OK, or not known */
            char text[PROBE_ROOM + 40];
            snprintf(text, sizeof text, "its name constraints let %.*s through", PROBE_ROOM - 1,
                     foreign[i]);
            return refuse(err, "caConstraints", cert, text);
        }
    }
    return ATT_OK;
}

static enum att_rc check_names(const STACK_OF(X509) * chain, const char *trust_domain,
                               struct att_err *err)
{
    char name[PROBE_ROOM];
    certs_autokey *key = NULL;
    enum att_rc rc = certs_key_generate(&key, err);
    if (!rc) {
        rc = check_own_names(sk_X509_value(chain, 0), key, trust_domain, err);
    }
    snprintf(name, sizeof name, "URI:spiffe://%s/agent/probe", trust_domain);
    for (int i = 0; !rc && i < sk_X509_num(chain); i++) {
        X509 *cert = sk_X509_value(chain, i);
        if (permitted(cert, key, name) != X509_V_OK) {
            rc = refuse(err, "caConstraints", cert,
                        "its name constraints refuse the trust domain's own names");
        }
    }
    return rc;
}

/* ---- all of it --------------------------------------------------------------------------------
 */

static enum att_rc check_path(const STACK_OF(X509) * chain, int64_t at_s, struct att_err *err)
{
    int n = sk_X509_num(chain);
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    X509_VERIFY_PARAM *param = X509_VERIFY_PARAM_new();
    int error = X509_V_ERR_OUT_OF_MEM;
    if (store && ctx && param && X509_STORE_add_cert(store, sk_X509_value(chain, n - 1)) == 1 &&
        X509_STORE_CTX_init(ctx, store, sk_X509_value(chain, 0),
                            (STACK_OF(X509) *)(uintptr_t)chain) == 1) {
        X509_VERIFY_PARAM_set_depth(param, CERTS_AUTHORITY_CHAIN_MAX);
        X509_VERIFY_PARAM_set_time(param, (time_t)at_s);
        X509_VERIFY_PARAM_set_flags(param,
                                    X509_V_FLAG_X509_STRICT | X509_V_FLAG_CHECK_SS_SIGNATURE);
        X509_STORE_CTX_set0_param(ctx, param);
        param = NULL;
        error = X509_verify_cert(ctx) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(ctx);
    }
    X509_VERIFY_PARAM_free(param);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    return error == X509_V_OK ? ATT_OK
                              : refuse(err, "caPath", NULL, X509_verify_cert_error_string(error));
}

enum att_rc certs_authority_check(const STACK_OF(X509) * chain,
                                  const struct certs_authority_spec *spec, struct att_slice spki,
                                  int64_t at_s, int64_t least_s, struct att_err *err)
{
    enum att_rc rc = check_shape(chain, spki, err);
    if (!rc) {
        rc = check_cas(chain, err);
    }
    if (!rc) {
        rc = check_ekus(chain, err);
    }
    if (!rc) {
        rc = check_times(chain, at_s, least_s, err);
    }
    if (!rc) {
        rc = check_signatures(chain, err);
    }
    if (!rc && spec->trust_domain) {
        rc = check_names(chain, spec->trust_domain, err);
    }
    return rc ? rc : check_path(chain, at_s, err);
}
