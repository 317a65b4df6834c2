#include "certs/ekcert.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "certs/chain.h"
#include "certs/der.h"
#include "certs/key.h"
#include "certs/mut.h"
#include "certs/oid.h"

#include <dirent.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define STORE_FILE_MAX ((size_t)4 << 20)

static const char *const verdict_names[] = {
    [CERTS_EK_REFUSED] = "refused",  [CERTS_EK_MALFORMED] = "malformed",
    [CERTS_EK_KEY_TYPE] = "keyType", [CERTS_EK_IS_CA] = "isCa",
    [CERTS_EK_EKU] = "eku",          [CERTS_EK_KEY_USAGE] = "keyUsage",
    [CERTS_EK_SAN] = "san",          [CERTS_EK_CRITICAL] = "criticalExtension",
    [CERTS_EK_NO_PATH] = "noPath",   [CERTS_EK_SIGNATURE] = "signature",
    [CERTS_EK_EXPIRED] = "expired",  [CERTS_EK_OK] = "ok",
};

const char *certs_ek_verdict_name(enum certs_ek_verdict verdict)
{
    size_t i = (size_t)verdict;
    return i < sizeof verdict_names / sizeof *verdict_names ? verdict_names[i] : "refused";
}

/* ---- the makers ---- */

struct certs_ek_store {
    STACK_OF(X509) * roots, *intermediates;
};

void certs_ek_store_free(struct certs_ek_store *store)
{
    if (store) {
        sk_X509_pop_free(store->roots, X509_free);
        sk_X509_pop_free(store->intermediates, X509_free);
        free(store);
    }
}

static void store_cleanup(struct certs_ek_store **store)
{
    certs_ek_store_free(*store);
}

size_t certs_ek_store_roots(const struct certs_ek_store *store)
{
    return (size_t)sk_X509_num(store->roots);
}

/* Takes cert. */
static enum att_rc store_add(struct certs_ek_store *store, X509 *cert, struct att_err *err)
{
    int n = sk_X509_num(store->roots) + sk_X509_num(store->intermediates);
    if (n >= CERTS_EK_STORE_MAX || X509_check_ca(cert) == 0) {
        X509_free(cert);
        return n >= CERTS_EK_STORE_MAX
                   ? att_fail(err, ATT_E_LIMIT, "more than %d certificates", CERTS_EK_STORE_MAX)
                   : att_fail(err, ATT_E_PARSE, "a certificate that is not a CA's");
    }
    STACK_OF(X509) *to = X509_self_signed(cert, 1) == 1 ? store->roots : store->intermediates;
    if (!sk_X509_push(to, cert)) {
        X509_free(cert);
        return att_fail(err, ATT_E_NOMEM, "certificates");
    }
    return ATT_OK;
}

/* An operator's file: comments between the blocks are welcome here, unlike in what peers send. */
static enum att_rc store_add_pem(struct certs_ek_store *store, struct att_slice pem,
                                 struct att_err *err)
{
    BIO *bio = BIO_new_mem_buf(pem.ptr, (int)pem.len);
    enum att_rc rc = bio ? ATT_OK : att_fail(err, ATT_E_NOMEM, "certificates");
    int n = 0;
    while (rc == ATT_OK) {
        X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
        if (!cert) {
            unsigned long e = ERR_peek_last_error();
            bool end = ERR_GET_LIB(e) == ERR_LIB_PEM && ERR_GET_REASON(e) == PEM_R_NO_START_LINE;
            if (end && n > 0) {
                ERR_clear_error();
                break;
            }
            rc = att_fail_openssl(err, ATT_E_PARSE, "certificate %d cannot be read", n + 1);
        } else {
            rc = store_add(store, cert, err);
            n++;
        }
    }
    BIO_free(bio);
    return rc;
}

static enum att_rc store_add_file(struct certs_ek_store *store, const char *path,
                                  struct att_err *err)
{
    att_autobuf bytes = {0};
    enum att_rc rc = att_io_read_file(path, STORE_FILE_MAX, &bytes, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (bytes.len && bytes.ptr[0] == DER_SEQUENCE) {
        X509 *cert = NULL;
        rc = certs_cert_parse(att_buf_slice(&bytes), &cert, err);
        if (rc == ATT_OK) {
            rc = store_add(store, cert, err);
        }
    } else {
        rc = store_add_pem(store, att_buf_slice(&bytes), err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "%s", path);
    }
    return rc;
}

static int wanted(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');
    return entry->d_name[0] != '.' && dot &&
           (strcmp(dot, ".pem") == 0 || strcmp(dot, ".crt") == 0 || strcmp(dot, ".cer") == 0);
}

static enum att_rc store_add_folder(struct certs_ek_store *store, const char *dir,
                                    struct att_err *err)
{
    struct dirent **names = NULL;
    int n = scandir(dir, &names, wanted, alphasort);
    if (n < 0) {
        return att_fail_errno(err, errno == ENOENT ? ATT_E_NOTFOUND : ATT_E_IO, "%s", dir);
    }
    enum att_rc rc = ATT_OK;
    for (int i = 0; i < n; i++) {
        att_autobuf path = {0};
        att_buf_printf(&path, "%s/%s", dir, names[i]->d_name);
        const char *text = att_buf_cstr(&path);
        if (rc == ATT_OK) {
            rc = text ? store_add_file(store, text, err) : att_fail(err, ATT_E_NOMEM, "path");
        }
        free(names[i]);
    }
    free(names);
    return rc;
}

enum att_rc certs_ek_store_load(const char *path, struct certs_ek_store **ret_store,
                                struct att_err *err)
{
    ATT_CLEANUP(store_cleanup) struct certs_ek_store *store = calloc(1, sizeof *store);
    if (!store || !(store->roots = sk_X509_new_null()) ||
        !(store->intermediates = sk_X509_new_null())) {
        return att_fail(err, ATT_E_NOMEM, "EK roots");
    }
    struct stat st;
    bool file = stat(path, &st) == 0 && S_ISREG(st.st_mode);
    enum att_rc rc = file ? store_add_file(store, path, err) : store_add_folder(store, path, err);
    if (rc == ATT_OK && sk_X509_num(store->roots) == 0) {
        rc = att_fail(err, ATT_E_PARSE, "%s: no root certificate%s", path,
                      file ? "" : " in any *.pem, *.crt or *.cer");
    }
    if (rc == ATT_OK) {
        *ret_store = store;
        store = NULL;
    }
    return rc;
}

/* ---- one certificate ---- */

enum att_rc certs_ek_strip(struct att_slice nv, struct att_slice *ret_der, struct att_err *err)
{
    if (nv.len > CERTS_EK_NV_MAX) {
        return att_fail(err, ATT_E_LIMIT, "EK certificate of %zu bytes, at most %d are read",
                        nv.len, CERTS_EK_NV_MAX);
    }
    struct att_cur cur = att_cur_init(nv);
    struct att_slice der = certs_der_take_whole(&cur, DER_SEQUENCE);
    if (cur.failed) {
        return att_fail(err, ATT_E_PARSE, "EK certificate: expected DER at the front");
    }
    for (size_t i = 0; i < cur.left; i++) {
        if (cur.ptr[i] != 0x00 && cur.ptr[i] != 0xff) {
            return att_fail(err, ATT_E_PARSE,
                            "EK certificate: byte 0x%02x follows it, expected padding of 00 or ff",
                            cur.ptr[i]);
        }
    }
    *ret_der = der;
    return ATT_OK;
}

struct judge {
    struct certs_ek_info *info;
    struct att_err *err;
};

static enum att_rc refuse(const struct judge *judge, enum certs_ek_verdict verdict,
                          const char *what)
{
    enum att_rc rc = verdict == CERTS_EK_MALFORMED ? ATT_E_PARSE : ATT_E_AUTH;
    memset(judge->info, 0, sizeof *judge->info);
    judge->info->verdict = verdict;
    att_fail_openssl(judge->err, rc, "EK certificate (%s): %s", certs_ek_verdict_name(verdict),
                     what);
    att_err_reason(judge->err, "ekChain");
    return rc;
}

static enum att_rc check_key(const struct judge *judge, const X509 *cert)
{
    const EVP_PKEY *key = X509_get0_pubkey(cert);
    char group[32] = "";
    size_t len = 0;
    bool ok = false;
    if (key && EVP_PKEY_is_a(key, "RSA")) {
        ok = EVP_PKEY_get_bits(key) >= 2048 && EVP_PKEY_get_bits(key) <= 4096;
    } else if (key && EVP_PKEY_get_group_name(key, group, sizeof group, &len) == 1) {
        ok = certs_key_is_p256(key) || strcmp(group, "secp384r1") == 0 ||
             strcmp(group, "P-384") == 0;
    }
    if (!ok) {
        return refuse(judge, CERTS_EK_KEY_TYPE,
                      "expected a key of RSA 2048 … 4096, P-256 or P-384");
    }
    uint8_t *der = NULL;
    int der_len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    if (der_len <= 0 || (size_t)der_len > sizeof judge->info->spki) {
        OPENSSL_free(der);
        return refuse(judge, CERTS_EK_MALFORMED, "its public key cannot be read");
    }
    uint8_t digest[ATT_SHA256_LEN];
    memcpy(judge->info->spki, der, (size_t)der_len);
    judge->info->spki_len = (size_t)der_len;
    att_sha256(digest, ATT_SLICE(der, (size_t)der_len));
    att_hex(judge->info->ek_id, ATT_SLICE_ARRAY(digest));
    OPENSSL_free(der);
    return ATT_OK;
}

static enum att_rc check_usage(const struct judge *judge, const X509 *cert)
{
    X509 *mut = certs_mut_x509(cert);
    if ((X509_get_extension_flags(mut) & EXFLAG_CA) || X509_check_ca(mut) != 0 ||
        X509_NAME_cmp(X509_get_subject_name(cert), X509_get_issuer_name(cert)) == 0) {
        return refuse(judge, CERTS_EK_IS_CA, "it is a CA's or self-issued");
    }
    EXTENDED_KEY_USAGE *eku = X509_get_ext_d2i(cert, NID_ext_key_usage, NULL, NULL);
    bool found = false;
    for (int i = 0; i < sk_ASN1_OBJECT_num(eku); i++) {
        found |= certs_oid_is(sk_ASN1_OBJECT_value(eku, i), CERTS_OID_EKU_EK);
    }
    EXTENDED_KEY_USAGE_free(eku);
    if (!found) {
        return refuse(judge, CERTS_EK_EKU,
                      "expected extended key usage " CERTS_OID_EKU_EK " (tcg-kp-EKCertificate)");
    }
    uint32_t usage = X509_get_key_usage(mut); /* all ones when absent */
    if (!(usage & (KU_KEY_ENCIPHERMENT | KU_KEY_AGREEMENT)) ||
        (usage != UINT32_MAX && usage & (KU_KEY_CERT_SIGN | KU_CRL_SIGN))) {
        return refuse(judge, CERTS_EK_KEY_USAGE,
                      "expected key usage keyEncipherment or keyAgreement, and no CA's");
    }
    return ATT_OK;
}

/* Once, printable and short, or not at all. */
static bool take_attr(const X509_NAME *name, const char *oid, char ret[CERTS_EK_ATTR_MAX + 1])
{
    for (int i = 0; i < X509_NAME_entry_count(name); i++) {
        const X509_NAME_ENTRY *entry = X509_NAME_get_entry(name, i);
        if (!certs_oid_is(X509_NAME_ENTRY_get_object(entry), oid)) {
            continue;
        }
        const ASN1_STRING *value = X509_NAME_ENTRY_get_data(entry);
        const uint8_t *text = ASN1_STRING_get0_data(value);
        int len = ASN1_STRING_length(value);
        if (*ret || len <= 0 || len > CERTS_EK_ATTR_MAX) {
            return false;
        }
        for (int k = 0; k < len; k++) {
            if (text[k] < 0x20 || text[k] > 0x7e) {
                return false;
            }
        }
        memcpy(ret, text, (size_t)len);
        ret[len] = 0;
    }
    return true;
}

/* EK Credential Profile §3.2.9 */
static enum att_rc check_san(const struct judge *judge, const X509 *cert)
{
    struct certs_ek_info *info = judge->info;
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    bool ok = names != NULL;
    for (int i = 0; ok && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type == GEN_DIRNAME) {
            const X509_NAME *dn = name->d.directoryName;
            ok = take_attr(dn, CERTS_OID_TPM_MANUFACTURER, info->manufacturer) &&
                 take_attr(dn, CERTS_OID_TPM_MODEL, info->model) &&
                 take_attr(dn, CERTS_OID_TPM_VERSION, info->version);
        }
    }
    GENERAL_NAMES_free(names);
    if (!ok || !*info->manufacturer || !*info->model || !*info->version) {
        return refuse(judge, CERTS_EK_SAN,
                      "expected TPM manufacturer, model and version, each once, in its SAN");
    }
    return ATT_OK;
}

static enum att_rc check_alone(const struct judge *judge, struct att_slice der, X509 **ret_cert)
{
    certs_autox509 *cert = NULL;
    struct certs_cert_info times;
    if (certs_cert_parse(der, &cert, NULL) != ATT_OK ||
        certs_cert_info(cert, &times, NULL) != ATT_OK) {
        return refuse(judge, CERTS_EK_MALFORMED, "expected one DER certificate");
    }
    judge->info->not_before = times.not_before;
    judge->info->not_after = times.not_after;
    enum att_rc rc = check_key(judge, cert);
    if (rc == ATT_OK) {
        rc = check_usage(judge, cert);
    }
    if (rc == ATT_OK) {
        rc = check_san(judge, cert);
    }
    if (rc == ATT_OK) {
        *ret_cert = cert;
        cert = NULL;
    }
    return rc;
}

enum att_rc certs_ek_parse(struct att_slice der, struct certs_ek_info *ret_info,
                           struct att_err *err)
{
    struct certs_ek_info info = {0};
    certs_autox509 *cert = NULL;
    enum att_rc rc = check_alone(&(struct judge){&info, err}, der, &cert);
    if (rc == ATT_OK) {
        *ret_info = info;
    }
    return rc;
}

static enum certs_ek_verdict path_verdict(int code)
{
    switch (code) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return CERTS_EK_EXPIRED;
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_UNABLE_TO_DECRYPT_CERT_SIGNATURE:
    case X509_V_ERR_CA_MD_TOO_WEAK:
        return CERTS_EK_SIGNATURE;
    case X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION:
        return CERTS_EK_CRITICAL;
    default:
        return CERTS_EK_NO_PATH;
    }
}

static enum att_rc check_path(const struct judge *judge, const struct certs_ek_store *store,
                              X509 *cert, STACK_OF(X509) * untrusted, int64_t at_s)
{
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    if (!ctx || X509_STORE_CTX_init(ctx, NULL, cert, untrusted) != 1) {
        X509_STORE_CTX_free(ctx);
        return att_fail_openssl(judge->err, ATT_E_NOMEM, "EK path validation");
    }
    X509_STORE_CTX_set0_trusted_stack(ctx, store->roots);
    X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
    X509_VERIFY_PARAM_set_time(param, (time_t)at_s);
    X509_VERIFY_PARAM_set_auth_level(param, 1); /* no SHA-1, no RSA-1024 */
    /* No purpose: libcrypto's would want its own EKUs and not know the TCG's. */
    int ok = X509_verify_cert(ctx);
    int code = X509_STORE_CTX_get_error(ctx);
    X509_STORE_CTX_free(ctx);
    return ok == 1 ? ATT_OK
                   : refuse(judge, path_verdict(code), X509_verify_cert_error_string(code));
}

static enum att_rc gather(const struct judge *judge, const struct certs_ek_store *store,
                          const struct att_slice *chain, size_t n_chain,
                          STACK_OF(X509) * *ret_untrusted)
{
    certs_autostack *all = sk_X509_new_null();
    if (n_chain > CERTS_EK_CHAIN_MAX) {
        return refuse(judge, CERTS_EK_MALFORMED, "too many certificates in its chain");
    }
    for (size_t i = 0; i < n_chain; i++) {
        X509 *cert = NULL;
        if (certs_cert_parse(chain[i], &cert, NULL) != ATT_OK) {
            return refuse(judge, CERTS_EK_MALFORMED, "a member of its chain cannot be read");
        }
        if (!sk_X509_push(all, cert)) {
            X509_free(cert);
            return att_fail(judge->err, ATT_E_NOMEM, "certificates");
        }
    }
    for (int i = 0; i < sk_X509_num(store->intermediates); i++) {
        X509 *cert = sk_X509_value(store->intermediates, i);
        if (!X509_up_ref(cert) || !sk_X509_push(all, cert)) {
            return att_fail(judge->err, ATT_E_NOMEM, "certificates");
        }
    }
    *ret_untrusted = all;
    all = NULL;
    return ATT_OK;
}

enum att_rc certs_ek_verify(const struct certs_ek_store *store, struct att_slice cert,
                            const struct att_slice *chain, size_t n_chain, int64_t at_s,
                            struct certs_ek_info *ret_info, struct att_err *err)
{
    const struct judge judge = {ret_info, err};
    memset(ret_info, 0, sizeof *ret_info);
    struct att_slice der = {0};
    struct att_err why = {0};
    if (certs_ek_strip(cert, &der, &why) != ATT_OK) {
        return refuse(&judge, CERTS_EK_MALFORMED, why.msg);
    }
    certs_autox509 *ek = NULL;
    certs_autostack *untrusted = NULL;
    enum att_rc rc = check_alone(&judge, der, &ek);
    if (rc == ATT_OK) {
        rc = gather(&judge, store, chain, n_chain, &untrusted);
    }
    if (rc == ATT_OK) {
        rc = check_path(&judge, store, ek, untrusted, at_s);
    }
    if (rc == ATT_OK) {
        ret_info->verdict = CERTS_EK_OK;
    }
    return rc;
}
