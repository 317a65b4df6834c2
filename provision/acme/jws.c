#include "provision/acme/jws.h"

#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "provision/acme/jwk.h"

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#define OUTER_VALUES_MAX 8 /* of three members; what is wrong with more is said by count */
#define SIGNATURE_MAX    ((size_t)512) /* RSA 4096 */
#define CERT_MAX         ((size_t)16 << 10)

#define MALFORMED "malformed"

/* The forms differ only in what the protected header must have. */
enum form { REQUEST, KEY_CHANGE, EAB, SIGNED };

void acme_jws_done(struct acme_jws *jws)
{
    if (!jws) {
        return;
    }
    free(jws->nonce);
    free(jws->url);
    free(jws->kid);
    json_decref(jws->jwk);
    for (size_t i = 0; i < ACME_X5C_MAX; i++) {
        att_buf_done(&jws->x5c[i]);
    }
    att_buf_done(&jws->payload);
    att_buf_done(&jws->signature);
    att_buf_done(&jws->input);
    *jws = (struct acme_jws){0};
}

static enum att_rc malformed(struct att_err *err, const char *what)
{
    enum att_rc rc = att_fail(err, ATT_E_PARSE, "JWS: %s", what);
    att_err_reason(err, MALFORMED);
    return rc;
}

/* ---- protected header ------------------------------------------------------------------------ */
static enum att_rc take_alg(const json_t *header, enum form form, struct acme_jws *jws,
                            struct att_err *err)
{
    const char *alg = json_string_value(json_object_get(header, "alg"));
    if (!alg) {
        return malformed(err, "\"alg\" is missing");
    }
    if (form == EAB) {
        jws->alg = strcmp(alg, "HS256") == 0 ? ACME_ALG_HS256 : ACME_ALG_NONE;
    } else if (strcmp(alg, "ES256") == 0) {
        jws->alg = ACME_ALG_ES256;
    } else if (strcmp(alg, "RS256") == 0 && form != SIGNED) {
        jws->alg = ACME_ALG_RS256;
    }
    if (jws->alg == ACME_ALG_NONE) {
        enum att_rc rc =
            att_fail(err, ATT_E_UNSUPPORTED, "JWS: alg \"%.32s\" is not accepted", alg);
        att_err_reason(err, "badSignatureAlgorithm");
        return rc;
    }
    return ATT_OK;
}

static enum att_rc take_text(const json_t *header, const char *name, size_t max, char **ret_text,
                             struct att_err *err)
{
    const json_t *member = json_object_get(header, name);
    const char *text = json_string_value(member);
    if (!text || text[0] == 0 || json_string_length(member) > max) {
        enum att_rc rc =
            att_fail(err, ATT_E_PARSE, "JWS: \"%s\": expected a text of 1 … %zu bytes", name, max);
        att_err_reason(err, MALFORMED);
        return rc;
    }
    *ret_text = strdup(text);
    return *ret_text ? ATT_OK : att_fail(err, ATT_E_NOMEM, "JWS: no memory");
}

/* RFC 8555 §6.5.2: a nonce that is not base64url is malformed, not merely bad. */
static enum att_rc take_nonce(const json_t *header, struct acme_jws *jws, struct att_err *err)
{
    if (!json_object_get(header, "nonce")) {
        enum att_rc rc = att_fail(err, ATT_E_PARSE, "JWS: there is no nonce");
        att_err_reason(err, "badNonce");
        return rc;
    }
    enum att_rc rc = take_text(header, "nonce", 256, &jws->nonce, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autobuf raw = {0};
    if (att_unb64u(&raw, att_slice_str(jws->nonce), NULL) != ATT_OK) {
        return malformed(err, "the nonce is not base64url");
    }
    return ATT_OK;
}

static enum att_rc take_jwk(const json_t *header, struct acme_jws *jws, struct att_err *err)
{
    json_t *jwk = json_object_get(header, "jwk");
    if (!json_is_object(jwk)) {
        return malformed(err, "\"jwk\" is not an object");
    }
    jws->jwk = json_deep_copy(jwk);
    return jws->jwk ? ATT_OK : att_fail(err, ATT_E_NOMEM, "JWS: no memory");
}

/* RFC 8555 §6.2: exactly one of jwk and kid. */
static enum att_rc take_key(const json_t *header, enum form form, struct acme_jws *jws,
                            struct att_err *err)
{
    bool has_jwk = json_object_get(header, "jwk") != NULL;
    bool has_kid = json_object_get(header, "kid") != NULL;
    if (has_jwk == has_kid) {
        return malformed(err, has_jwk ? "both \"jwk\" and \"kid\"" : "neither \"jwk\" nor \"kid\"");
    }
    if ((form == EAB && has_jwk) || (form == KEY_CHANGE && has_kid)) {
        return malformed(err, form == EAB ? "expected \"kid\", found \"jwk\""
                                          : "expected \"jwk\", found \"kid\"");
    }
    return has_jwk ? take_jwk(header, jws, err)
                   : take_text(header, "kid", ACME_KID_MAX, &jws->kid, err);
}

static enum att_rc take_x5c(const json_t *header, struct acme_jws *jws, struct att_err *err)
{
    const json_t *x5c = json_object_get(header, "x5c");
    size_t n = json_array_size(x5c);
    if (n == 0 || n > ACME_X5C_MAX) {
        return malformed(err, "\"x5c\": expected an array of 1 … 8 certificates");
    }
    for (; jws->x5c_len < n; jws->x5c_len++) {
        const char *text = json_string_value(json_array_get(x5c, jws->x5c_len));
        struct att_buf *der = &jws->x5c[jws->x5c_len];
        *der = ATT_BUF_INIT(CERT_MAX);
        if (!text || att_unb64(der, att_slice_str(text), NULL) != ATT_OK || der->len == 0) {
            return malformed(err, "\"x5c\": a certificate is not base64, or too long");
        }
    }
    return ATT_OK;
}

static enum att_rc take_signed(const json_t *header, const char *typ, struct acme_jws *jws,
                               struct att_err *err)
{
    const char *found = json_string_value(json_object_get(header, "typ"));
    if (!found || strcmp(found, typ) != 0) {
        return malformed(err, "\"typ\" is not the one expected here");
    }
    if (json_object_size(header) != 3) {
        return malformed(err, "header: expected alg, typ and x5c only");
    }
    return take_x5c(header, jws, err);
}

static enum att_rc take_header(struct att_slice text, enum form form, const char *typ,
                               struct acme_jws *jws, struct att_err *err)
{
    att_autojson *header = NULL;
    if (att_json_parse(text, ACME_PROTECTED_MAX, &header, NULL) != ATT_OK ||
        !json_is_object(header)) {
        return malformed(err, "the protected header is not a JSON object without duplicates");
    }
    /* RFC 7515 §4.1.11: we understand no extension; RFC 8555 §6.2 forbids b64=false. */
    if (json_object_get(header, "crit") || json_object_get(header, "b64")) {
        return malformed(err, "\"crit\" and \"b64\" are not accepted");
    }
    enum att_rc rc = take_alg(header, form, jws, err);
    if (rc != ATT_OK || form == SIGNED) {
        return rc == ATT_OK ? take_signed(header, typ, jws, err) : rc;
    }
    if (form == REQUEST) {
        rc = take_nonce(header, jws, err);
    } else if (json_object_get(header, "nonce")) { /* RFC 8555 §7.3.4, §7.3.5 */
        rc = malformed(err, "an inner JWS must not have a nonce");
    }
    if (rc == ATT_OK) {
        rc = take_text(header, "url", ACME_URL_MAX, &jws->url, err);
    }
    return rc == ATT_OK ? take_key(header, form, jws, err) : rc;
}

/* ---- outer object ---------------------------------------------------------------------------- */
/* The three members as texts, where they stand. */
struct outer {
    struct att_slice part[3];
};
enum part { PROTECTED, PAYLOAD, SIGNATURE };
static const char *const part_names[] = {"protected", "payload", "signature"};

static enum att_rc take_b64u(const struct outer *outer, enum part part, size_t max,
                             struct att_buf *ret_bytes, struct att_err *err)
{
    struct att_slice text = outer->part[part];
    *ret_bytes = ATT_BUF_INIT(max);
    enum att_rc rc = text.len / 4 * 3 > max ? att_fail(err, ATT_E_LIMIT, "more than %zu bytes", max)
                                            : att_unb64u(ret_bytes, text, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "JWS: \"%s\"", part_names[part]);
        att_err_reason(err, MALFORMED);
    }
    return rc;
}

static enum att_rc take_outer(const struct outer *outer, enum form form, const char *typ,
                              struct acme_jws *jws, struct att_err *err)
{
    att_autobuf header = {0};
    enum att_rc rc = take_b64u(outer, PROTECTED, ACME_PROTECTED_MAX, &header, err);
    if (rc == ATT_OK) {
        rc = take_header(att_buf_slice(&header), form, typ, jws, err);
    }
    if (rc == ATT_OK) {
        rc = take_b64u(outer, PAYLOAD, ACME_JWS_MAX, &jws->payload, err);
    }
    if (rc == ATT_OK) {
        rc = take_b64u(outer, SIGNATURE, SIGNATURE_MAX, &jws->signature, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    jws->input = ATT_BUF_INIT(2 * ACME_JWS_MAX);
    att_buf_put_slice(&jws->input, outer->part[PROTECTED]);
    att_buf_u8(&jws->input, '.');
    att_buf_put_slice(&jws->input, outer->part[PAYLOAD]);
    return att_buf_ok(&jws->input, err);
}

static enum att_rc parse_outer(const struct outer *outer, enum form form, const char *typ,
                               struct acme_jws *ret_jws, struct att_err *err)
{
    struct acme_jws jws = {0};
    enum att_rc rc = take_outer(outer, form, typ, &jws, err);
    if (rc != ATT_OK) {
        acme_jws_done(&jws);
        return rc;
    }
    *ret_jws = jws;
    return ATT_OK;
}

static enum att_rc parse_json(const json_t *json, enum form form, const char *typ,
                              struct acme_jws *ret_jws, struct att_err *err)
{
    struct outer outer;
    if (!json_is_object(json) || json_object_size(json) != 3) {
        return malformed(err, "expected an object with protected, payload and signature only");
    }
    for (size_t i = 0; i < 3; i++) {
        const json_t *member = json_object_get(json, part_names[i]);
        if (!json_is_string(member)) {
            return malformed(err, "protected, payload and signature: expected a text each");
        }
        outer.part[i] = ATT_SLICE(json_string_value(member), json_string_length(member));
    }
    return parse_outer(&outer, form, typ, ret_jws, err);
}

static void skip_space(struct att_slice *text)
{
    while (text->len && memchr(" \t\r\n", text->ptr[0], 4)) {
        text->ptr++;
        text->len--;
    }
}

static bool skip_char(struct att_slice *text, char c)
{
    skip_space(text);
    if (!text->len || text->ptr[0] != (uint8_t)c) {
        return false;
    }
    text->ptr++;
    text->len--;
    return true;
}

/* A string without escapes; what else JSON forbids in it, base64url and our names do, too. */
static bool take_string(struct att_slice *text, struct att_slice *ret)
{
    const uint8_t *end = skip_char(text, '"') ? memchr(text->ptr, '"', text->len) : NULL;
    if (!end) {
        return false;
    }
    *ret = ATT_SLICE(text->ptr, (size_t)(end - text->ptr));
    text->ptr = end + 1;
    text->len -= ret->len + 1;
    return !ret->len || !memchr(ret->ptr, '\\', ret->len);
}

/* The form that everybody sends, without building JSON values of it: a body is nearly all base64url
 * and jansson looks at it character by character. Whatever is not exactly three different members
 * of plain strings is left to jansson to judge. */
static bool scan_outer(struct att_slice text, struct outer *ret)
{
    struct outer outer = {0};
    bool have[3] = {false, false, false};
    for (size_t n = 0; n < 3; n++) {
        struct att_slice name, value;
        if (!skip_char(&text, n ? ',' : '{') || !take_string(&text, &name) ||
            !skip_char(&text, ':') || !take_string(&text, &value)) {
            return false;
        }
        size_t i = 0;
        while (i < 3 && !att_slice_eq_str(name, part_names[i])) {
            i++;
        }
        if (i == 3 || have[i]) {
            return false;
        }
        have[i] = true;
        outer.part[i] = value;
    }
    bool whole = skip_char(&text, '}');
    skip_space(&text);
    *ret = outer;
    return whole && text.len == 0;
}

static enum att_rc parse_text(struct att_slice text, size_t max, enum form form, const char *typ,
                              struct acme_jws *ret_jws, struct att_err *err)
{
    struct outer outer;
    if (text.len <= max && scan_outer(text, &outer)) {
        return parse_outer(&outer, form, typ, ret_jws, err);
    }
    att_autojson *json = NULL;
    enum att_rc rc = att_json_parse_few(text, max, OUTER_VALUES_MAX, &json, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "JWS");
        att_err_reason(err, MALFORMED);
        return rc;
    }
    return parse_json(json, form, typ, ret_jws, err);
}

enum att_rc acme_jws_parse(struct att_slice text, size_t max, struct acme_jws *ret_jws,
                           struct att_err *err)
{
    return parse_text(text, max, REQUEST, NULL, ret_jws, err);
}

enum att_rc acme_jws_parse_signed(struct att_slice text, size_t max, const char *typ,
                                  struct acme_jws *ret_jws, struct att_err *err)
{
    return parse_text(text, max, SIGNED, typ, ret_jws, err);
}

enum att_rc acme_jws_parse_key_change(const json_t *inner, struct acme_jws *ret_jws,
                                      struct att_err *err)
{
    return parse_json(inner, KEY_CHANGE, NULL, ret_jws, err);
}

enum att_rc acme_eab_parse(const json_t *eab, struct acme_jws *ret_jws, struct att_err *err)
{
    enum att_rc rc = parse_json(eab, EAB, NULL, ret_jws, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "externalAccountBinding");
    }
    return rc;
}

/* ---- verification ---------------------------------------------------------------------------- */
static enum att_rc wrong(struct att_err *err, const char *what)
{
    enum att_rc rc = att_fail(err, ATT_E_AUTH, "JWS: %s", what);
    att_err_reason(err, "unauthorized");
    return rc;
}

/* RFC 7518 §3.4: r and s as 32 big-endian bytes each; OpenSSL wants them as DER. */
static int es256_der(struct att_slice rs, unsigned char **ret_der)
{
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(rs.ptr, 32, NULL);
    BIGNUM *s = BN_bin2bn(rs.ptr + 32, 32, NULL);
    int len = -1;
    if (sig && r && s && ECDSA_SIG_set0(sig, r, s) == 1) {
        r = s = NULL; /* sig owns them now */
        len = i2d_ECDSA_SIG(sig, ret_der);
    }
    BN_free(r);
    BN_free(s);
    ECDSA_SIG_free(sig);
    return len;
}

static enum att_rc digest_verify(EVP_PKEY *pkey, struct att_slice input, const unsigned char *sig,
                                 size_t sig_len, struct att_err *err)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int ok = ctx && EVP_DigestVerifyInit_ex(ctx, NULL, "SHA256", NULL, NULL, pkey, NULL) == 1
                 ? EVP_DigestVerify(ctx, sig, sig_len, input.ptr, input.len)
                 : -1;
    EVP_MD_CTX_free(ctx);
    if (ok == 1) {
        return ATT_OK;
    }
    ERR_clear_error();
    return wrong(err, "the signature does not verify");
}

static enum att_rc verify_pkey(const struct acme_jws *jws, EVP_PKEY *pkey, struct att_err *err)
{
    struct att_slice sig = att_buf_slice(&jws->signature), input = att_buf_slice(&jws->input);
    bool ec = EVP_PKEY_is_a(pkey, "EC") == 1;
    if (jws->alg != (ec ? ACME_ALG_ES256 : ACME_ALG_RS256)) {
        return wrong(err, "the algorithm does not fit the key");
    }
    if (!ec) {
        return sig.len == (size_t)EVP_PKEY_get_size(pkey)
                   ? digest_verify(pkey, input, sig.ptr, sig.len, err)
                   : wrong(err, "the signature does not have the length of the modulus");
    }
    if (sig.len != ACME_ES256_LEN) {
        return wrong(err, "an ES256 signature has 64 bytes");
    }
    unsigned char *der = NULL;
    int len = es256_der(sig, &der);
    if (len <= 0) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "JWS: signature could not be converted");
    }
    enum att_rc rc = digest_verify(pkey, input, der, (size_t)len, err);
    OPENSSL_free(der);
    return rc;
}

enum att_rc acme_jws_verify_spki(const struct acme_jws *jws, struct att_slice spki_der,
                                 struct att_err *err)
{
    EVP_PKEY *pkey = NULL;
    enum att_rc rc = acme_jwk_pkey_from_spki(spki_der, &pkey, err);
    if (rc == ATT_OK) {
        rc = verify_pkey(jws, pkey, err);
        EVP_PKEY_free(pkey);
    }
    return rc;
}

enum att_rc acme_jws_verify_jwk(const struct acme_jws *jws, const json_t *jwk, struct att_err *err)
{
    EVP_PKEY *pkey = NULL;
    enum att_rc rc = acme_jwk_pkey(jwk, &pkey, err);
    if (rc == ATT_OK) {
        rc = verify_pkey(jws, pkey, err);
        EVP_PKEY_free(pkey);
    }
    return rc;
}

enum att_rc acme_jws_verify_key(const struct acme_jws *jws, EVP_PKEY *key, struct att_err *err)
{
    enum att_rc rc = acme_jwk_accept(key, err);
    return rc == ATT_OK ? verify_pkey(jws, key, err) : rc;
}

enum att_rc acme_jws_verify_cert(const struct acme_jws *jws, struct att_err *err)
{
    if (jws->x5c_len == 0) {
        return malformed(err, "there is no certificate in it");
    }
    const unsigned char *at = jws->x5c[0].ptr;
    X509 *cert = d2i_X509(NULL, &at, (long)jws->x5c[0].len);
    EVP_PKEY *pkey = cert ? X509_get0_pubkey(cert) : NULL;
    enum att_rc rc;
    if (!pkey || at != jws->x5c[0].ptr + jws->x5c[0].len) {
        ERR_clear_error();
        rc = malformed(err, "x5c[0] is not a certificate");
    } else {
        rc = acme_jws_verify_key(jws, pkey, err);
    }
    X509_free(cert);
    return rc;
}

/* ---- external account binding ---------------------------------------------------------------- */
static enum att_rc same_key(struct att_slice payload, const json_t *account_jwk,
                            struct att_err *err)
{
    att_autojson *inner = NULL;
    att_autobuf a = {0}, b = {0};
    if (att_json_parse(payload, ACME_PROTECTED_MAX, &inner, NULL) != ATT_OK ||
        acme_jwk_to_spki(inner, &a, NULL) != ATT_OK) {
        return malformed(err, "externalAccountBinding: its payload is not a public key");
    }
    enum att_rc rc = acme_jwk_to_spki(account_jwk, &b, err);
    if (rc == ATT_OK && !att_slice_eq(att_buf_slice(&a), att_buf_slice(&b))) {
        rc =
            malformed(err, "externalAccountBinding: its payload is another key than the account's");
    }
    return rc;
}

enum att_rc acme_eab_verify(const struct acme_jws *eab, struct att_slice mac_key, const char *url,
                            const json_t *account_jwk, struct att_err *err)
{
    if (eab->alg != ACME_ALG_HS256 || mac_key.len == 0) {
        return wrong(err, "externalAccountBinding: no MAC to check");
    }
    uint8_t mac[ATT_SHA256_LEN];
    const struct att_slice input = att_buf_slice(&eab->input);
    att_hmac_sha256_v(mac, mac_key, &input, 1);
    if (!att_slice_eq_secret(ATT_SLICE_ARRAY(mac), att_buf_slice(&eab->signature))) {
        return wrong(err, "externalAccountBinding: the MAC does not verify");
    }
    if (!eab->url || strcmp(eab->url, url) != 0) {
        return malformed(err, "externalAccountBinding: \"url\" is not that of the request");
    }
    return same_key(att_buf_slice(&eab->payload), account_jwk, err);
}
