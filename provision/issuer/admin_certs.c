#include "provision/issuer/admin_certs.h"

#include "attestd/base/io.h"
#include "certs/bundle.h"
#include "certs/oid.h"
#include "certs/san.h"
#include "provision/issuer/ca.h"
#include "provision/issuer/generations.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define CRL_FILE_MAX ((size_t)16 << 20)
#define CRLS_MAX     64
#define LOOK_MS      1000
#define AUTH_LEVEL   2 /* RSA 2048, P-224, no SHA-1 */

struct stamp {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec at;
};

struct issuer_client_ca {
    char *file[2]; /* roots, lists (NULL: none) */
    pthread_mutex_t lock;
    X509_STORE *store; /* counted */
    struct stamp stamp[2];
    int64_t look_ms;
};

/* ---- files ----------------------------------------------------------------------------------- */

static bool stamp_of(const char *path, struct stamp *ret)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return false;
    }
    memset(ret, 0, sizeof *ret);
    ret->dev = st.st_dev;
    ret->ino = st.st_ino;
    ret->size = st.st_size;
    ret->at = st.st_mtim;
    return true;
}

static bool same_stamp(const struct stamp *a, const struct stamp *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
           a->at.tv_sec == b->at.tv_sec && a->at.tv_nsec == b->at.tv_nsec;
}

/* A list that does not say when the next one comes would be in force for ever. */
static enum att_rc add_crl(X509_STORE *store, X509_CRL *crl, const char *path, unsigned n,
                           struct att_err *err)
{
    if (!X509_CRL_get0_nextUpdate(crl)) {
        return att_fail(err, ATT_E_PARSE, "%s: PEM block %u: the list has no nextUpdate", path, n);
    }
    return X509_STORE_add_crl(store, crl) == 1
               ? ATT_OK
               : att_fail_openssl(err, ATT_E_CRYPTO, "%s: PEM block %u", path, n);
}

static enum att_rc add_crls(X509_STORE *store, const char *path, struct att_err *err)
{
    att_autobuf pem = ATT_BUF_INIT(CRL_FILE_MAX);
    enum att_rc rc = att_io_read_file(path, CRL_FILE_MAX, &pem, err);
    if (rc) {
        return rc;
    }
    BIO *bio = BIO_new_mem_buf(pem.len ? (const char *)pem.ptr : "", (int)pem.len);
    unsigned n = 0;
    if (!bio) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    X509_CRL *crl;
    ERR_clear_error();
    while (!rc && (crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL))) {
        n++;
        rc = n > CRLS_MAX
                 ? att_fail(err, ATT_E_LIMIT, "%s: more than %d revocation lists", path, CRLS_MAX)
                 : add_crl(store, crl, path, n, err);
        X509_CRL_free(crl);
    }
    BIO_free(bio);
    /* The end of the file is an error of its own; any other is of a block that cannot be read. */
    unsigned long last = ERR_peek_last_error();
    bool at_end = ERR_GET_LIB(last) == ERR_LIB_PEM && ERR_GET_REASON(last) == PEM_R_NO_START_LINE;
    ERR_clear_error();
    if (!rc && (!at_end || !n)) {
        rc = att_fail(err, ATT_E_PARSE, "%s: PEM block %u: expected X509 CRL", path, n + 1);
    }
    return rc;
}

static enum att_rc add_roots(X509_STORE *store, const char *path, struct att_err *err)
{
    certs_autostack *roots = NULL;
    enum att_rc rc = certs_bundle_load(path, &roots, err);
    for (int i = 0; !rc && i < sk_X509_num(roots); i++) {
        if (X509_STORE_add_cert(store, sk_X509_value(roots, i)) != 1) {
            rc = att_fail_openssl(err, ATT_E_CRYPTO, "%s", path);
        }
    }
    return rc;
}

/* Into use when all of it is good. */
static enum att_rc load(struct issuer_client_ca *ca, struct att_err *err)
{
    struct stamp stamp[2] = {{0}, {0}};
    for (size_t i = 0; i < 2 && ca->file[i]; i++) {
        if (!stamp_of(ca->file[i], &stamp[i])) {
            return att_fail_errno(err, ATT_E_IO, "%s", ca->file[i]);
        }
    }
    X509_STORE *store = X509_STORE_new();
    enum att_rc rc =
        store ? add_roots(store, ca->file[0], err) : att_fail(err, ATT_E_NOMEM, "no memory");
    if (!rc && ca->file[1]) {
        rc = add_crls(store, ca->file[1], err);
    }
    if (rc) {
        X509_STORE_free(store);
        return rc;
    }
    X509_STORE_free(ca->store);
    ca->store = store;
    memcpy(ca->stamp, stamp, sizeof stamp);
    return ATT_OK;
}

enum att_rc issuer_client_ca_new(const char *ca_file, const char *crl_file,
                                 struct issuer_client_ca **ret_ca, struct att_err *err)
{
    struct issuer_client_ca *ca = calloc(1, sizeof *ca);
    if (!ca) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    pthread_mutex_init(&ca->lock, NULL);
    ca->file[0] = strdup(ca_file);
    ca->file[1] = crl_file ? strdup(crl_file) : NULL;
    enum att_rc rc = ca->file[0] && (ca->file[1] || !crl_file)
                         ? load(ca, err)
                         : att_fail(err, ATT_E_NOMEM, "no memory");
    if (rc) {
        issuer_client_ca_free(ca);
        return rc;
    }
    *ret_ca = ca;
    return ATT_OK;
}

void issuer_client_ca_free(struct issuer_client_ca *ca)
{
    if (ca) {
        X509_STORE_free(ca->store);
        pthread_mutex_destroy(&ca->lock);
        free(ca->file[0]);
        free(ca->file[1]);
        free(ca);
    }
}

/* What was replaced by something bad is told of once; what was there stays, and its lists end by
 * themselves. */
static X509_STORE *store_now(struct issuer_client_ca *ca)
{
    int64_t now = att_boottime_ms();
    pthread_mutex_lock(&ca->lock);
    bool look = !ca->look_ms || now - ca->look_ms >= LOOK_MS;
    struct stamp have[2] = {{0}, {0}};
    bool changed = false;
    for (size_t i = 0; look && i < 2 && ca->file[i]; i++) {
        changed =
            changed || (stamp_of(ca->file[i], &have[i]) && !same_stamp(&have[i], &ca->stamp[i]));
    }
    if (look) {
        ca->look_ms = now;
    }
    if (changed) {
        struct att_err err = {0};
        if (load(ca, &err)) {
            memcpy(ca->stamp, have, sizeof have);
            att_log_err(ATT_ERROR, "admin.client_ca", &err);
        } else {
            att_log(ATT_INFO, "admin.client_ca", ATT_S("file", ca->file[0]));
        }
    }
    X509_STORE *store = ca->store;
    X509_STORE_up_ref(store);
    pthread_mutex_unlock(&ca->lock);
    return store;
}

/* ---- verifying ------------------------------------------------------------------------------- */

static const char *reason_of(int code)
{
    switch (code) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return "certExpired";
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return "certNotYet";
    case X509_V_ERR_CERT_REVOKED:
        return "certRevoked";
    case X509_V_ERR_UNABLE_TO_GET_CRL:
    case X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER:
    case X509_V_ERR_DIFFERENT_CRL_SCOPE:
        return "crlMissing";
    case X509_V_ERR_CRL_HAS_EXPIRED:
    case X509_V_ERR_CRL_NOT_YET_VALID:
        return "crlStale";
    case X509_V_ERR_INVALID_PURPOSE:
        return "certPurpose";
    case X509_V_ERR_SUBJECT_NAME_EMPTY:
        return "certName";
    default:
        return "certUntrusted";
    }
}

/* The EKU must say client: a certificate without one is for everything, and for nobody here. */
static bool is_client(X509 *cert)
{
    return (X509_get_extension_flags(cert) & EXFLAG_XKUSAGE) &&
           (X509_get_extended_key_usage(cert) & XKU_SSL_CLIENT);
}

enum att_rc issuer_client_ca_verify(struct issuer_client_ca *ca, X509 *cert, STACK_OF(X509) * sent,
                                    int64_t now, struct att_err *err)
{
    X509_STORE *store = store_now(ca);
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    if (!ctx || X509_STORE_CTX_init(ctx, store, cert, sent) != 1) {
        X509_STORE_CTX_free(ctx);
        X509_STORE_free(store);
        return att_fail_openssl(err, ATT_E_CRYPTO, "client certificate");
    }
    X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
    unsigned long flags = X509_V_FLAG_X509_STRICT;
    flags |= ca->file[1] ? X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL : 0;
    X509_VERIFY_PARAM_set_flags(param, flags);
    X509_VERIFY_PARAM_set_time(param, (time_t)now);
    X509_VERIFY_PARAM_set_auth_level(param, AUTH_LEVEL);
    X509_VERIFY_PARAM_set_depth(param, CERTS_CHAIN_MAX_CERTS);
    (void)X509_VERIFY_PARAM_set_purpose(param, X509_PURPOSE_SSL_CLIENT);
    int code = X509_verify_cert(ctx) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(ctx);
    int depth = X509_STORE_CTX_get_error_depth(ctx);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    ERR_clear_error();
    if (code != X509_V_OK) {
        return issuer_refuse(err, ATT_E_AUTH, reason_of(code), "client certificate: %s (depth %d)",
                             X509_verify_cert_error_string(code), depth);
    }
    return is_client(cert) ? ATT_OK
                           : issuer_refuse(err, ATT_E_AUTH, "certPurpose",
                                           "client certificate: its extended key usage does not "
                                           "say clientAuth");
}

enum att_rc issuer_client_subject(const X509 *cert, struct att_buf *ret_id, struct att_err *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    const X509_NAME *name = X509_get_subject_name(cert);
    char *text = NULL;
    /* ASCII, as `openssl x509 -nameopt RFC2253` shows it: everything else is escaped. */
    bool ok = bio && X509_NAME_entry_count(name) > 0 &&
              X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) > 0;
    long len = ok ? BIO_get_mem_data(bio, &text) : 0;
    if (len <= 0 || memchr(text, 0, (size_t)len)) {
        BIO_free(bio);
        return issuer_refuse(err, ATT_E_AUTH, "certName",
                             "client certificate: neither a SPIFFE ID nor a subject");
    }
    att_buf_put_str(ret_id, "x509:");
    att_buf_put(ret_id, text, (size_t)len);
    BIO_free(bio);
    return att_buf_ok(ret_id, err);
}

/* ---- agents ---------------------------------------------------------------------------------- */

struct look_up {
    X509 *cert;
    const char *serial, *spiffe_id;
    bool good;
};

/* The first certificate of what was issued is this one, byte for byte. */
static bool is_issued(const struct store_cert *row, X509 *cert)
{
    certs_autostack *chain = NULL;
    return !certs_pem_parse(att_slice_str(row->pem), &chain, NULL) && sk_X509_num(chain) > 0 &&
           X509_cmp(sk_X509_value(chain, 0), cert) == 0;
}

static enum att_rc look_up(void *user, struct store_tx *tx, struct att_err *err)
{
    struct look_up *l = user;
    struct store_cert row = {0};
    enum att_rc rc = store_get(tx, &store_certs, l->serial, &row, NULL);
    l->good = !rc && strcmp(row.status, STORE_CERT_ISSUED) == 0 && strcmp(row.kind, "agent") == 0 &&
              strcmp(row.subject, l->spiffe_id) == 0 && is_issued(&row, l->cert);
    store_record_done(&store_certs, &row);
    return rc && rc != ATT_E_NOTFOUND ? att_fail(err, rc, "certificates cannot be read") : ATT_OK;
}

static enum att_rc verify_chain(struct issuer *issuer, X509 *cert, STACK_OF(X509) * sent,
                                struct att_err *err)
{
    certs_autostack *roots = NULL;
    struct att_err why = {0};
    enum att_rc rc =
        certs_bundle_parse(att_slice_str(issuer_generations_now(issuer)->bundle), &roots, err);
    STACK_OF(X509) *chain = sk_X509_new_null();
    bool ok = !rc && chain && sk_X509_push(chain, cert);
    for (int i = 0; ok && i < sk_X509_num(sent) && i < CERTS_CHAIN_MAX_CERTS; i++) {
        ok = sk_X509_value(sent, i) == cert || sk_X509_push(chain, sk_X509_value(sent, i));
    }
    if (!rc) {
        rc = ok ? certs_chain_verify(chain, roots, CERTS_PURPOSE_WORKLOAD, issuer->clock(), &why)
                : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    sk_X509_free(chain);
    if (rc && why.reason[0]) {
        const char *reason = strcmp(why.reason, "chainExpired") == 0  ? "certExpired"
                             : strcmp(why.reason, "chainNotYet") == 0 ? "certNotYet"
                                                                      : "certUntrusted";
        return issuer_refuse(err, ATT_E_AUTH, reason, "client certificate: %s", why.msg);
    }
    return rc;
}

/* A key of which there may be copies is no person's and no program's alone: two roles that are held
 * by two of them could be one thief's. */
static enum att_rc check_kept(const X509 *cert, struct att_err *err)
{
    struct certs_key_holding holding = {0};
    if (certs_key_holding_get(cert, &holding, NULL)) { /* each that was issued here says it */
        return issuer_refuse(err, ATT_E_AUTH, "certUntrusted",
                             "client certificate: it does not say how its key is held");
    }
    return holding.store == CERTS_STORE_EXPORTABLE
               ? issuer_refuse(err, ATT_E_AUTH, "certExportable",
                               "client certificate: its key may leave its store, and is no "
                               "credential here")
               : ATT_OK;
}

enum att_rc issuer_client_agent_verify(struct issuer *issuer, X509 *cert, STACK_OF(X509) * sent,
                                       struct att_buf *ret_id, struct att_err *err)
{
    struct certs_cert_info info;
    enum att_rc rc = verify_chain(issuer, cert, sent, err);
    rc = rc ? rc : certs_cert_info(cert, &info, err);
    if (rc) {
        return rc;
    }
    att_autobuf id = {0};
    rc = certs_san_spiffe(cert, &id, err);
    if (rc) {
        return rc;
    }
    struct look_up l = {cert, info.serial_hex, att_buf_cstr(&id), false};
    if (!l.spiffe_id) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    rc = store_run(issuer->store, false, look_up, &l, err);
    if (!rc && !l.good) {
        rc = issuer_refuse(err, ATT_E_AUTH, "certRevoked",
                           "client certificate %s is revoked, or none that was issued here",
                           info.serial_hex);
    }
    rc = rc ? rc : check_kept(cert, err);
    att_buf_put(ret_id, id.ptr, id.len);
    return rc ? rc : att_buf_ok(ret_id, err);
}
