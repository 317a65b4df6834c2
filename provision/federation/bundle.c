#include "provision/federation/bundle.h"

#include "attestd/base/enc.h"
#include "certs/bundle.h"
#include "certs/chain.h"
#include "certs/oid.h"
#include "certs/san.h"
#include "provision/federation/jwk.h"

#include <openssl/x509v3.h>
#include <string.h>
#include <strings.h>

#define VALUES_MAX 8192

static enum att_rc refuse(struct att_err *err, enum att_rc rc, const char *reason, const char *what)
{
    rc = att_fail(err, rc, "bundle: %s", what);
    att_err_reason(err, reason);
    return rc;
}

void federation_bundle_done(struct federation_bundle *bundle)
{
    certs_stack_cleanup(&bundle->roots);
    json_decref(bundle->keys);
    *bundle = (struct federation_bundle){.sequence = -1, .hint_s = -1};
}

static enum att_rc begin(struct federation_bundle *bundle, struct att_err *err)
{
    *bundle = (struct federation_bundle){.sequence = -1, .hint_s = -1};
    bundle->roots = sk_X509_new_null();
    bundle->keys = json_array();
    return bundle->roots && bundle->keys ? ATT_OK : att_fail(err, ATT_E_NOMEM, "bundle: no memory");
}

/* ---- roots ----------------------------------------------------------------------------------- */

/* X509-SVID §3.1: a signing certificate that has a SPIFFE ID has its trust domain's. */
static bool names_another(const X509 *cert, const char *trust_domain)
{
    int found = -1;
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, &found, NULL);
    bool another = !names && found != -1; /* there twice, or not to be read */
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        struct certs_spiffe_id id;
        if (name->type != GEN_URI) {
            continue;
        }
        const ASN1_IA5STRING *uri = name->d.uniformResourceIdentifier;
        struct att_slice text =
            ATT_SLICE(ASN1_STRING_get0_data(uri), (size_t)ASN1_STRING_length(uri));
        if (text.len >= 9 && strncasecmp((const char *)text.ptr, "spiffe://", 9) == 0) {
            another = another || certs_spiffe_parse(text, &id, NULL) != ATT_OK ||
                      !att_slice_eq_str(id.trust_domain, trust_domain);
        }
    }
    GENERAL_NAMES_free(names);
    return another;
}

/* X509-SVID §6.2: such an element is ignored. */
static bool has_no_cert(const json_t *jwk)
{
    const json_t *x5c = json_object_get(jwk, "x5c");
    return !x5c || (json_is_array(x5c) && json_array_size(x5c) == 0);
}

/* X509-SVID §6.2: what follows the first certificate is ignored. */
static enum att_rc read_cert(const json_t *jwk, X509 **ret_cert, struct att_buf *der,
                             struct att_err *err)
{
    const json_t *text = json_array_get(json_object_get(jwk, "x5c"), 0);
    if (!json_is_string(text)) {
        return refuse(err, ATT_E_PARSE, "bundleRoot",
                      "x509-svid: x5c: expected an array that begins with a certificate");
    }
    *der = ATT_BUF_INIT(CERTS_CERT_MAX);
    struct att_slice b64 =
        ATT_SLICE((const uint8_t *)json_string_value(text), json_string_length(text));
    if (att_unb64(der, b64, NULL) != ATT_OK ||
        certs_cert_parse(att_buf_slice(der), ret_cert, NULL) != ATT_OK) {
        return refuse(err, ATT_E_PARSE, "bundleRoot",
                      "x509-svid: x5c: not one certificate in base64");
    }
    return ATT_OK;
}

static enum att_rc check_root(const json_t *jwk, X509 *cert, const char *trust_domain,
                              struct att_err *err)
{
    if (X509_check_ca(cert) != 1 || X509_self_signed(cert, 1) != 1) {
        return refuse(err, ATT_E_PARSE, "bundleRoot",
                      "x509-svid: expected the certificate of a self-signed CA");
    }
    if (!federation_jwk_is_of(jwk, X509_get0_pubkey(cert))) {
        return refuse(err, ATT_E_PARSE, "bundleRootKey",
                      "x509-svid: its key is not that of its certificate");
    }
    if (names_another(cert, trust_domain)) {
        return refuse(err, ATT_E_PARSE, "bundleDomain",
                      "x509-svid: the certificate is of another trust domain");
    }
    return ATT_OK;
}

static enum att_rc push_root(STACK_OF(X509) * roots, X509 *cert, struct att_err *err)
{
    for (int i = 0; i < sk_X509_num(roots); i++) {
        if (X509_cmp(cert, sk_X509_value(roots, i)) == 0) {
            return refuse(err, ATT_E_PARSE, "bundleRoot",
                          "x509-svid: a certificate is there twice");
        }
    }
    if (X509_up_ref(cert) != 1) {
        return att_fail(err, ATT_E_NOMEM, "bundle: no memory");
    }
    if (sk_X509_push(roots, cert) <= 0) {
        X509_free(cert);
        return att_fail(err, ATT_E_NOMEM, "bundle: no memory");
    }
    return ATT_OK;
}

static enum att_rc take_root(const json_t *jwk, const char *trust_domain,
                             struct federation_bundle *bundle, size_t *used, struct att_err *err)
{
    att_autobuf der = {0};
    certs_autox509 *cert = NULL;
    enum att_rc rc = read_cert(jwk, &cert, &der, err);
    if (rc == ATT_OK) {
        *used += der.len;
        rc = check_root(jwk, cert, trust_domain, err);
    }
    if (rc == ATT_OK &&
        (sk_X509_num(bundle->roots) == FEDERATION_ROOTS_MAX || *used > FEDERATION_ROOTS_DER_MAX)) {
        rc = refuse(err, ATT_E_LIMIT, "bundleKeys", "more than 32 roots, or than 64 KiB of them");
    }
    return rc == ATT_OK ? push_root(bundle->roots, cert, err) : rc;
}

/* ---- keys of JWT-SVIDs ----------------------------------------------------------------------- */

static bool has_kid(const json_t *keys, const char *kid)
{
    for (size_t i = 0; i < json_array_size(keys); i++) {
        const char *one = json_string_value(json_object_get(json_array_get(keys, i), "kid"));
        if (one && strcmp(one, kid) == 0) {
            return true;
        }
    }
    return false;
}

static enum att_rc take_key(const json_t *jwk, struct federation_bundle *bundle,
                            struct att_err *err)
{
    const json_t *kid = json_object_get(jwk, "kid"), *alg = json_object_get(jwk, "alg");
    size_t len = json_string_length(kid);
    json_t *own = NULL;
    if (!json_is_string(kid) || len == 0 || len > FEDERATION_KID_MAX ||
        has_kid(bundle->keys, json_string_value(kid))) {
        return refuse(err, ATT_E_PARSE, "bundleKid",
                      "jwt-svid: kid: expected 1 to 255 characters, and no kid twice");
    }
    if (!federation_jwk_known(jwk)) { /* RFC 7517 §5 */
        bundle->ignored++;
        return ATT_OK;
    }
    if (!federation_jwk_public(jwk, &own) || (alg && !json_is_string(alg))) {
        json_decref(own);
        return refuse(
            err, ATT_E_PARSE, "bundleKey",
            "jwt-svid: not a public key on P-256, P-384 or P-521, nor RSA of 2048 to 4096 "
            "bits");
    }
    if (json_array_size(bundle->keys) == FEDERATION_KEYS_MAX) {
        json_decref(own);
        return refuse(err, ATT_E_LIMIT, "bundleKeys", "more than 32 keys of JWT-SVIDs");
    }
    int bad = json_object_set(own, "kid", (json_t *)(uintptr_t)kid);
    bad |= alg ? json_object_set(own, "alg", (json_t *)(uintptr_t)alg) : 0;
    bad |= json_array_append_new(bundle->keys, own);
    return bad ? att_fail(err, ATT_E_NOMEM, "bundle: no memory") : ATT_OK;
}

/* ---- the set --------------------------------------------------------------------------------- */

/* A host hands them on as one text, and so do agents' answers. */
static enum att_rc check_keys_text(const struct federation_bundle *bundle, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(FEDERATION_KEYS_TEXT_MAX);
    return att_json_dump(bundle->keys, false, &text, NULL) == ATT_OK
               ? ATT_OK
               : refuse(err, ATT_E_LIMIT, "bundleKeys", "more than 60 KiB of keys of JWT-SVIDs");
}

static enum att_rc take_elements(const json_t *keys, const char *trust_domain,
                                 struct federation_bundle *bundle, struct att_err *err)
{
    size_t used = 0;
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < json_array_size(keys); i++) {
        const json_t *jwk = json_array_get(keys, i);
        const char *use = json_string_value(json_object_get(jwk, "use"));
        if (!json_is_object(jwk)) {
            rc = refuse(err, ATT_E_PARSE, "bundleForm", "keys: expected objects");
        } else if (federation_jwk_has_secret(jwk)) {
            rc = refuse(err, ATT_E_PARSE, "bundlePrivateKey",
                        "there is private or symmetric key material in it");
        } else if (use && strcmp(use, "x509-svid") == 0 && !has_no_cert(jwk)) {
            rc = take_root(jwk, trust_domain, bundle, &used, err);
        } else if (use && strcmp(use, "jwt-svid") == 0) {
            rc = take_key(jwk, bundle, err);
        } else {
            bundle->ignored++;
        }
    }
    return rc;
}

static bool whole_number(const json_t *json, const char *name, int64_t *ret)
{
    const json_t *value = json_object_get(json, name);
    if (value && (!json_is_integer(value) || json_integer_value(value) < 0)) {
        return false;
    }
    *ret = value ? json_integer_value(value) : -1;
    return true;
}

static enum att_rc take_set(const json_t *json, const char *trust_domain,
                            struct federation_bundle *bundle, struct att_err *err)
{
    const json_t *keys = json_object_get(json, "keys");
    if (!json_is_array(keys)) {
        return refuse(err, ATT_E_PARSE, "bundleForm", "keys: expected an array");
    }
    if (!whole_number(json, "spiffe_sequence", &bundle->sequence)) {
        return refuse(err, ATT_E_PARSE, "bundleForm", "spiffe_sequence: expected a whole number");
    }
    if (!whole_number(json, "spiffe_refresh_hint", &bundle->hint_s)) {
        return refuse(err, ATT_E_PARSE, "bundleForm",
                      "spiffe_refresh_hint: expected a whole number");
    }
    if (json_array_size(keys) > FEDERATION_ELEMENTS_MAX) {
        return refuse(err, ATT_E_LIMIT, "bundleKeys", "keys: more than 128 elements");
    }
    enum att_rc rc = take_elements(keys, trust_domain, bundle, err);
    return rc == ATT_OK ? check_keys_text(bundle, err) : rc;
}

enum att_rc federation_bundle_parse(struct att_slice text, const char *trust_domain,
                                    struct federation_bundle *ret_bundle, struct att_err *err)
{
    att_autojson *json = NULL;
    struct federation_bundle bundle;
    if (text.len > FEDERATION_BUNDLE_MAX) {
        return refuse(err, ATT_E_LIMIT, "bundleSize", "more than 262144 bytes");
    }
    if (att_json_parse_few(text, FEDERATION_BUNDLE_MAX, VALUES_MAX, &json, NULL) != ATT_OK ||
        !json_is_object(json)) {
        return refuse(err, ATT_E_PARSE, "bundleForm", "not a JSON object without duplicates");
    }
    enum att_rc rc = begin(&bundle, err);
    rc = rc == ATT_OK ? take_set(json, trust_domain, &bundle, err) : rc;
    if (rc != ATT_OK) {
        federation_bundle_done(&bundle);
        return rc;
    }
    *ret_bundle = bundle;
    return ATT_OK;
}

/* ---- as the issuer keeps it ------------------------------------------------------------------ */

enum att_rc federation_bundle_to_json(const struct federation_bundle *bundle, json_t **ret_json,
                                      struct att_err *err)
{
    att_autobuf pem = {0};
    enum att_rc rc =
        sk_X509_num(bundle->roots) > 0 ? certs_pem_dump_all(bundle->roots, &pem, err) : ATT_OK;
    if (rc != ATT_OK) {
        return rc;
    }
    const char *text = pem.len ? att_buf_cstr(&pem) : "";
    *ret_json = text ? json_pack("{s:s, s:O}", "roots", text, "keys", bundle->keys) : NULL;
    return *ret_json ? ATT_OK : att_fail(err, ATT_E_NOMEM, "bundle: no memory");
}

enum att_rc federation_bundle_from_json(const json_t *json, struct federation_bundle *ret_bundle,
                                        struct att_err *err)
{
    struct federation_bundle bundle = {.sequence = -1, .hint_s = -1};
    const char *pem = NULL;
    json_t *keys = json_object_get(json, "keys");
    enum att_rc rc = att_json_str(json, "roots", &pem, err);
    if (rc == ATT_OK && !json_is_array(keys)) {
        rc = att_fail(err, ATT_E_PARSE, "keys: expected an array");
    }
    if (rc == ATT_OK && *pem) {
        rc = certs_bundle_parse(att_slice_str(pem), &bundle.roots, err);
    }
    if (rc == ATT_OK && !bundle.roots && !(bundle.roots = sk_X509_new_null())) {
        rc = att_fail(err, ATT_E_NOMEM, "bundle: no memory");
    }
    if (rc != ATT_OK) {
        federation_bundle_done(&bundle);
        return rc;
    }
    bundle.keys = json_deep_copy(keys);
    if (!bundle.keys) {
        federation_bundle_done(&bundle);
        return att_fail(err, ATT_E_NOMEM, "bundle: no memory");
    }
    *ret_bundle = bundle;
    return ATT_OK;
}

static bool has_root_key(const struct federation_bundle *bundle, const X509 *root)
{
    for (int i = 0; i < sk_X509_num(bundle->roots); i++) {
        if (EVP_PKEY_eq(X509_get0_pubkey(sk_X509_value(bundle->roots, i)),
                        X509_get0_pubkey(root)) == 1) {
            return true;
        }
    }
    return false;
}

static bool has_key(const struct federation_bundle *bundle, const json_t *key)
{
    for (size_t i = 0; i < json_array_size(bundle->keys); i++) {
        if (federation_jwk_same(json_array_get(bundle->keys, i), key)) {
            return true;
        }
    }
    return false;
}

const char *federation_bundle_shared(const struct federation_bundle *a,
                                     const struct federation_bundle *b)
{
    for (int i = 0; i < sk_X509_num(a->roots); i++) {
        if (has_root_key(b, sk_X509_value(a->roots, i))) {
            return "a root";
        }
    }
    for (size_t i = 0; i < json_array_size(a->keys); i++) {
        if (has_key(b, json_array_get(a->keys, i))) {
            return "a key of JWT-SVIDs";
        }
    }
    return NULL;
}

static bool is_within(const struct federation_bundle *a, const struct federation_bundle *b)
{
    for (int i = 0; i < sk_X509_num(a->roots); i++) {
        if (!has_root_key(b, sk_X509_value(a->roots, i))) {
            return false;
        }
    }
    for (size_t i = 0; i < json_array_size(a->keys); i++) {
        if (!has_key(b, json_array_get(a->keys, i))) {
            return false;
        }
    }
    return true;
}

bool federation_bundle_same(const struct federation_bundle *a, const struct federation_bundle *b)
{
    bool any = sk_X509_num(a->roots) > 0 || json_array_size(a->keys) > 0;
    return any && is_within(a, b) && is_within(b, a);
}
