#include "certs/crl.h"

#include "attestd/base/enc.h"
#include "certs/chain.h"
#include "certs/key.h"

#include <openssl/asn1.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <time.h>

static const struct {
    enum certs_crl_reason reason;
    const char *name;
} reasons[] = {
    {CERTS_CRL_UNSPECIFIED, "unspecified"},
    {CERTS_CRL_KEY_COMPROMISE, "keyCompromise"},
    {CERTS_CRL_AFFILIATION_CHANGED, "affiliationChanged"},
    {CERTS_CRL_SUPERSEDED, "superseded"},
    {CERTS_CRL_CESSATION_OF_OPERATION, "cessationOfOperation"},
    {CERTS_CRL_PRIVILEGE_WITHDRAWN, "privilegeWithdrawn"},
};
#define N_REASONS (sizeof reasons / sizeof reasons[0])

const char *certs_crl_reason_name(enum certs_crl_reason reason)
{
    for (size_t i = 0; i < N_REASONS; i++) {
        if (reasons[i].reason == reason) {
            return reasons[i].name;
        }
    }
    return reasons[0].name;
}

bool certs_crl_reason_parse(const char *name, enum certs_crl_reason *ret_reason)
{
    for (size_t i = 0; name && i < N_REASONS; i++) {
        if (strcmp(reasons[i].name, name) == 0) {
            *ret_reason = reasons[i].reason;
            return true;
        }
    }
    return false;
}

bool certs_crl_reason_from(int64_t code, enum certs_crl_reason *ret_reason)
{
    for (size_t i = 0; i < N_REASONS; i++) {
        if ((int64_t)reasons[i].reason == code) {
            *ret_reason = reasons[i].reason;
            return true;
        }
    }
    return false;
}

void certs_crl_cleanup(X509_CRL **crl)
{
    X509_CRL_free(*crl);
}

/* ---- making one -------------------------------------------------------------------------------
 */

static bool set_reason(X509_REVOKED *revoked, enum certs_crl_reason reason)
{
    if (reason == CERTS_CRL_UNSPECIFIED) {
        return true;
    }
    ASN1_ENUMERATED *value = ASN1_ENUMERATED_new();
    bool ok = value && ASN1_ENUMERATED_set(value, (long)reason) &&
              X509_REVOKED_add1_ext_i2d(revoked, NID_crl_reason, value, 0, 0) == 1;
    ASN1_ENUMERATED_free(value);
    return ok;
}

static bool add_entry(X509_CRL *crl, const struct certs_crl_entry *entry)
{
    X509_REVOKED *revoked = X509_REVOKED_new();
    BIGNUM *number = BN_bin2bn(entry->serial, (int)entry->serial_len, NULL);
    ASN1_INTEGER *serial = number ? BN_to_ASN1_INTEGER(number, NULL) : NULL;
    ASN1_TIME *at = ASN1_TIME_set(NULL, (time_t)entry->revoked_at);
    bool ok = revoked && serial && at && X509_REVOKED_set_serialNumber(revoked, serial) &&
              X509_REVOKED_set_revocationDate(revoked, at) && set_reason(revoked, entry->reason);
    if (ok && X509_CRL_add0_revoked(crl, revoked)) {
        revoked = NULL; /* the list's */
    } else {
        ok = false;
    }
    X509_REVOKED_free(revoked);
    BN_free(number);
    ASN1_INTEGER_free(serial);
    ASN1_TIME_free(at);
    return ok;
}

static bool set_times(X509_CRL *crl, const struct certs_crl_spec *spec)
{
    ASN1_TIME *from = ASN1_TIME_set(NULL, (time_t)spec->this_update);
    ASN1_TIME *to = ASN1_TIME_set(NULL, (time_t)spec->next_update);
    bool ok =
        from && to && X509_CRL_set1_lastUpdate(crl, from) && X509_CRL_set1_nextUpdate(crl, to);
    ASN1_TIME_free(from);
    ASN1_TIME_free(to);
    return ok;
}

/* RFC 5280 §5.2.1, §5.2.3. */
static bool add_extensions(X509_CRL *crl, const X509 *ca_cert, uint64_t number)
{
    ASN1_INTEGER *value = ASN1_INTEGER_new();
    AUTHORITY_KEYID *aki = AUTHORITY_KEYID_new();
    const ASN1_OCTET_STRING *id = X509_get0_subject_key_id((X509 *)(uintptr_t)ca_cert);
    if (aki && id) {
        aki->keyid = ASN1_OCTET_STRING_dup(id);
    }
    bool ok = value && aki && aki->keyid && ASN1_INTEGER_set_uint64(value, number) &&
              X509_CRL_add1_ext_i2d(crl, NID_crl_number, value, 0, 0) == 1 &&
              X509_CRL_add1_ext_i2d(crl, NID_authority_key_identifier, aki, 0, 0) == 1;
    ASN1_INTEGER_free(value);
    AUTHORITY_KEYID_free(aki);
    return ok;
}

static enum att_rc check_spec(const struct certs_crl_spec *spec, const X509 *ca_cert,
                              EVP_PKEY *ca_key, struct att_err *err)
{
    if (spec->n_entries > CERTS_CRL_ENTRIES_MAX) {
        return att_fail(err, ATT_E_LIMIT, "CRL: %zu certificates, at most %d", spec->n_entries,
                        CERTS_CRL_ENTRIES_MAX);
    }
    for (size_t i = 0; i < spec->n_entries; i++) {
        size_t len = spec->entries[i].serial_len;
        if (len == 0 || len > CERTS_CRL_SERIAL_MAX) {
            return att_fail(err, ATT_E_INVAL, "CRL: a serial number of %zu bytes", len);
        }
    }
    if (spec->next_update <= spec->this_update) {
        return att_fail(err, ATT_E_INVAL, "CRL: nextUpdate is not after thisUpdate");
    }
    return EVP_PKEY_eq(X509_get0_pubkey(ca_cert), ca_key) == 1
               ? ATT_OK
               : att_fail(err, ATT_E_INVAL, "CRL: the key is not the CA certificate's");
}

enum att_rc certs_crl_create(const struct certs_crl_spec *spec, const X509 *ca_cert,
                             EVP_PKEY *ca_key, struct att_buf *ret_der, struct att_err *err)
{
    enum att_rc rc = check_spec(spec, ca_cert, ca_key, err);
    if (rc) {
        return rc;
    }
    certs_autocrl *crl = X509_CRL_new();
    bool ok = crl && X509_CRL_set_version(crl, 1) &&
              X509_CRL_set_issuer_name(crl, X509_get_subject_name(ca_cert)) &&
              set_times(crl, spec) && add_extensions(crl, ca_cert, spec->number);
    for (size_t i = 0; ok && i < spec->n_entries; i++) {
        ok = add_entry(crl, &spec->entries[i]);
    }
    uint8_t *der = NULL;
    int len = ok && X509_CRL_sort(crl) && X509_CRL_sign(crl, ca_key, EVP_sha256()) > 0
                  ? i2d_X509_CRL(crl, &der)
                  : -1;
    if (len <= 0) {
        rc = certs_key_remote_error(err);
        return rc ? rc : att_fail_openssl(err, ATT_E_CRYPTO, "make a CRL");
    }
    att_buf_put(ret_der, der, (size_t)len);
    OPENSSL_free(der);
    return att_buf_ok(ret_der, err);
}

enum att_rc certs_crl_dump(struct att_slice der, struct att_buf *ret_pem, struct att_err *err)
{
    return certs_pem_encode("X509 CRL", der, ret_pem, err);
}

/* ---- reading one ------------------------------------------------------------------------------
 */

/* A critical extension says that the list is not what it looks like: a delta, for another CA's
 * certificates, for some of them only (RFC 5280 §5.2). */
static enum att_rc check_form(const X509_CRL *crl, struct att_err *err)
{
    if (X509_CRL_get_version(crl) != 1 || !X509_CRL_get0_nextUpdate(crl)) {
        return att_fail(err, ATT_E_PARSE, "CRL: expected version 2 with nextUpdate");
    }
    for (int i = 0; i < X509_CRL_get_ext_count(crl); i++) {
        if (X509_EXTENSION_get_critical(X509_CRL_get_ext(crl, i))) {
            return att_fail(err, ATT_E_PARSE, "CRL: a critical extension: not a complete list");
        }
    }
    return ATT_OK;
}

enum att_rc certs_crl_parse(struct att_slice der, X509_CRL **ret_crl, struct att_err *err)
{
    if (der.len > CERTS_CRL_MAX) {
        return att_fail(err, ATT_E_LIMIT, "CRL of %zu bytes, at most %zu are read", der.len,
                        CERTS_CRL_MAX);
    }
    const uint8_t *at = der.ptr;
    certs_autocrl *crl = der.len ? d2i_X509_CRL(NULL, &at, (long)der.len) : NULL;
    if (!crl) {
        return att_fail_openssl(err, ATT_E_PARSE, "expected a DER CRL");
    }
    if (at != der.ptr + der.len) {
        return att_fail(err, ATT_E_PARSE, "%zu bytes follow the CRL",
                        der.len - (size_t)(at - der.ptr));
    }
    enum att_rc rc = check_form(crl, err);
    if (!rc) {
        *ret_crl = crl;
        crl = NULL;
    }
    return rc;
}

static enum att_rc refuse(struct att_err *err, const char *reason, const char *what)
{
    (void)!att_fail(err, ATT_E_AUTH, "%s", what);
    att_err_reason(err, reason);
    return ATT_E_AUTH;
}

static bool utc(const ASN1_TIME *time, int64_t *ret)
{
    struct tm tm;
    if (!time || ASN1_TIME_to_tm(time, &tm) != 1) {
        return false;
    }
    *ret = (int64_t)timegm(&tm);
    return true;
}

/* The key identifier decides between CAs of one name; a list without one is nobody's. */
static bool is_of(X509_CRL *crl, const X509 *ca)
{
    AUTHORITY_KEYID *aki = X509_CRL_get_ext_d2i(crl, NID_authority_key_identifier, NULL, NULL);
    const ASN1_OCTET_STRING *id = X509_get0_subject_key_id((X509 *)(uintptr_t)ca);
    bool same = aki && aki->keyid && id && ASN1_OCTET_STRING_cmp(aki->keyid, id) == 0 &&
                X509_NAME_cmp(X509_CRL_get_issuer(crl), X509_get_subject_name(ca)) == 0;
    AUTHORITY_KEYID_free(aki);
    return same;
}

enum att_rc certs_crl_verify(X509_CRL *crl, const X509 *ca, int64_t at_s, struct att_err *err)
{
    int64_t from = 0, to = 0;
    if (!is_of(crl, ca)) {
        return refuse(err, "crlIssuer", "the CRL is another CA's");
    }
    if (X509_CRL_get_signature_nid(crl) != NID_ecdsa_with_SHA256) {
        return refuse(err, "crlAlgorithm", "the CRL is not signed with ecdsa-with-SHA256");
    }
    if (X509_CRL_verify(crl, X509_get0_pubkey(ca)) != 1) {
        return refuse(err, "crlSignature", "the CRL's signature does not verify");
    }
    if (!utc(X509_CRL_get0_lastUpdate(crl), &from) || !utc(X509_CRL_get0_nextUpdate(crl), &to)) {
        return refuse(err, "crlStale", "the CRL has no time");
    }
    if (at_s < from) {
        return refuse(err, "crlNotYet", "the CRL's thisUpdate is in the future");
    }
    return at_s > to ? refuse(err, "crlStale", "the CRL's nextUpdate is over") : ATT_OK;
}

enum att_rc certs_crl_info(X509_CRL *crl, struct certs_crl_info *ret_info, struct att_err *err)
{
    struct certs_crl_info info = {0};
    ASN1_INTEGER *number = X509_CRL_get_ext_d2i(crl, NID_crl_number, NULL, NULL);
    bool ok = number && ASN1_INTEGER_get_uint64(&info.number, number) == 1 &&
              utc(X509_CRL_get0_lastUpdate(crl), &info.this_update) &&
              utc(X509_CRL_get0_nextUpdate(crl), &info.next_update);
    ASN1_INTEGER_free(number);
    if (!ok) {
        return att_fail(err, ATT_E_PARSE, "CRL: expected cRLNumber below 2^64 and times");
    }
    const STACK_OF(X509_REVOKED) *list = X509_CRL_get_REVOKED(crl);
    info.n_entries = list ? (size_t)sk_X509_REVOKED_num(list) : 0;
    *ret_info = info;
    return ATT_OK;
}

bool certs_crl_has(X509_CRL *crl, const char *serial_hex)
{
    uint8_t serial[CERTS_CRL_SERIAL_MAX];
    size_t digits = strlen(serial_hex);
    if (digits == 0 || digits % 2 || digits / 2 > sizeof serial ||
        att_unhex_exact(serial, digits / 2, serial_hex, NULL)) {
        return false;
    }
    BIGNUM *number = BN_bin2bn(serial, (int)(digits / 2), NULL);
    ASN1_INTEGER *wanted = number ? BN_to_ASN1_INTEGER(number, NULL) : NULL;
    X509_REVOKED *found = NULL;
    bool has = wanted && X509_CRL_get0_by_serial(crl, &found, wanted) == 1;
    ASN1_INTEGER_free(wanted);
    BN_free(number);
    return has;
}
