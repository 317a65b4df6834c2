#include "provision/oidc/jwt.h"

#include "attestd/base/enc.h"
#include "provision/acme/jws.h"

#include <openssl/err.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_MAX    ((size_t)4096)
#define VALUES_MAX    512 /* of the claims: groups are among them */
#define SIGNATURE_MAX ((size_t)512)
#define AUDIENCES_MAX 32

static enum att_rc bad(struct att_err *err, const char *reason, const char *what)
{
    enum att_rc rc = att_fail(err, ATT_E_AUTH, "token: %s", what);
    att_err_reason(err, reason);
    return rc;
}

static enum att_rc bad_form(struct att_err *err, const char *what)
{
    return bad(err, "tokenForm", what);
}

static const struct {
    const char *name;
    enum oidc_alg alg;
} algs[] = {{"ES256", OIDC_ES256}, {"RS256", OIDC_RS256}, {"PS256", OIDC_PS256}};

unsigned oidc_alg_parse(const char *name)
{
    for (size_t i = 0; i < sizeof algs / sizeof algs[0]; i++) {
        if (strcmp(algs[i].name, name) == 0) {
            return algs[i].alg;
        }
    }
    return 0;
}

void oidc_jwt_done(struct oidc_jwt *jwt)
{
    json_decref(jwt->claims);
    att_buf_done(&jwt->signature);
    att_buf_done(&jwt->input);
    *jwt = (struct oidc_jwt){0};
}

/* ---- form ----------------------------------------------------------------------------------- */

/* Three parts between exactly two dots. */
static bool split(struct att_slice text, struct att_slice part[3])
{
    for (size_t i = 0; i < 3; i++) {
        const uint8_t *dot = text.len ? memchr(text.ptr, '.', text.len) : NULL;
        if ((i < 2) != (dot != NULL)) {
            return false;
        }
        size_t len = dot ? (size_t)(dot - text.ptr) : text.len;
        part[i] = ATT_SLICE(text.ptr, len);
        text = dot ? ATT_SLICE(dot + 1, text.len - len - 1) : ATT_SLICE(NULL, 0);
        if (i < 2 && !part[i].len) {
            return false;
        }
    }
    return true;
}

static enum att_rc take_alg(const json_t *header, struct oidc_jwt *jwt, struct att_err *err)
{
    const char *name = json_string_value(json_object_get(header, "alg"));
    unsigned alg = name ? oidc_alg_parse(name) : 0;
    if (!alg) {
        return bad(err, "tokenAlg", "its alg is none of ES256, RS256 and PS256");
    }
    jwt->alg = (enum oidc_alg)alg;
    return ATT_OK;
}

/* What is typed as something else (a logout token, say) is no credential. */
static bool typ_ok(const json_t *header, const char *const *types)
{
    const json_t *typ = json_object_get(header, "typ");
    const char *text = typ ? json_string_value(typ) : "";
    for (size_t i = 0; text && types[i]; i++) {
        if (strcmp(text, types[i]) == 0 && (text[0] || !typ)) {
            return true;
        }
    }
    return false;
}

static enum att_rc take_header(struct att_slice part, const char *const *types,
                               struct oidc_jwt *jwt, struct att_err *err)
{
    att_autobuf raw = ATT_BUF_INIT(HEADER_MAX);
    att_autojson *header = NULL;
    if (att_unb64u(&raw, part, NULL) ||
        att_json_parse_few(att_buf_slice(&raw), HEADER_MAX, 64, &header, NULL) ||
        !json_is_object(header)) {
        return bad_form(err, "its header is not base64url of a JSON object");
    }
    /* RFC 7515 §4.1.11: we understand no extension. */
    if (json_object_get(header, "crit") || json_object_get(header, "b64")) {
        return bad_form(err, "crit and b64 are not accepted");
    }
    if (!typ_ok(header, types)) {
        return bad_form(err, "its typ is not that of such a token");
    }
    enum att_rc rc = take_alg(header, jwt, err);
    const json_t *kid = json_object_get(header, "kid");
    size_t len = json_string_length(kid);
    if (rc) {
        return rc;
    }
    if (!json_is_string(kid) || len == 0 || len > OIDC_KID_MAX) {
        return bad(err, "tokenKid", "its header names no key (kid)");
    }
    memcpy(jwt->kid, json_string_value(kid), len + 1);
    return ATT_OK;
}

static enum att_rc take_claims(struct att_slice part, struct oidc_jwt *jwt, struct att_err *err)
{
    att_autobuf raw = ATT_BUF_INIT(OIDC_TOKEN_MAX);
    if (att_unb64u(&raw, part, NULL) ||
        att_json_parse_few(att_buf_slice(&raw), OIDC_TOKEN_MAX, VALUES_MAX, &jwt->claims, NULL) ||
        !json_is_object(jwt->claims)) {
        return bad_form(err, "its claims are not base64url of a JSON object");
    }
    return ATT_OK;
}

static enum att_rc parse(struct att_slice text, const char *const *types, struct oidc_jwt *jwt,
                         struct att_err *err)
{
    struct att_slice part[3];
    if (text.len > OIDC_TOKEN_MAX || !split(text, part)) {
        return bad_form(err, "expected three parts of base64url, 16 KiB at most");
    }
    enum att_rc rc = take_header(part[0], types, jwt, err);
    rc = rc ? rc : take_claims(part[1], jwt, err);
    if (rc) {
        return rc;
    }
    jwt->signature = ATT_BUF_INIT(SIGNATURE_MAX);
    if (att_unb64u(&jwt->signature, part[2], NULL)) {
        return bad_form(err, "its signature is not base64url, or too long");
    }
    jwt->input = ATT_BUF_INIT(OIDC_TOKEN_MAX);
    att_buf_put(&jwt->input, text.ptr, part[0].len + 1 + part[1].len);
    return att_buf_ok(&jwt->input, err);
}

enum att_rc oidc_jwt_parse_as(struct att_slice text, const char *const *types,
                              struct oidc_jwt *ret_jwt, struct att_err *err)
{
    struct oidc_jwt jwt = {0};
    enum att_rc rc = parse(text, types, &jwt, err);
    if (rc) {
        oidc_jwt_done(&jwt);
        return rc;
    }
    *ret_jwt = jwt;
    return ATT_OK;
}

enum att_rc oidc_jwt_parse(struct att_slice text, struct oidc_jwt *ret_jwt, struct att_err *err)
{
    /* RFC 9068 §2.1 has at+jwt. */
    static const char *const types[] = {"", "JWT", "at+jwt", "application/at+jwt", NULL};
    return oidc_jwt_parse_as(text, types, ret_jwt, err);
}

const char *oidc_jwt_issuer(const struct oidc_jwt *jwt)
{
    const char *iss = json_string_value(json_object_get(jwt->claims, "iss"));
    return iss ? iss : "";
}

/* ---- signature ------------------------------------------------------------------------------ */

/* RFC 7518 §3.5: SHA-256 throughout, the salt as long as the digest. */
static bool pss_holds(const struct oidc_jwt *jwt, EVP_PKEY *key)
{
    EVP_PKEY_CTX *options = NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && jwt->signature.len == (size_t)EVP_PKEY_get_size(key) &&
              EVP_DigestVerifyInit_ex(ctx, &options, "SHA256", NULL, NULL, key, NULL) == 1 &&
              EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) == 1 &&
              EVP_PKEY_CTX_set_rsa_mgf1_md(options, EVP_sha256()) == 1 &&
              EVP_PKEY_CTX_set_rsa_pss_saltlen(options, RSA_PSS_SALTLEN_DIGEST) == 1 &&
              EVP_DigestVerify(ctx, jwt->signature.ptr, jwt->signature.len, jwt->input.ptr,
                               jwt->input.len) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    return ok;
}

enum att_rc oidc_jwt_verify(const struct oidc_jwt *jwt, EVP_PKEY *key, struct att_err *err)
{
    bool ec = EVP_PKEY_is_a(key, "EC") == 1;
    if (ec != (jwt->alg == OIDC_ES256) || (!ec && EVP_PKEY_is_a(key, "RSA") != 1)) {
        return bad(err, "tokenAlg", "its alg does not fit the key that its kid names");
    }
    /* Borrowed for the length of the call. */
    const struct acme_jws jws = {.alg = ec ? ACME_ALG_ES256 : ACME_ALG_RS256,
                                 .signature = jwt->signature,
                                 .input = jwt->input};
    bool holds = jwt->alg == OIDC_PS256 ? pss_holds(jwt, key)
                                        : acme_jws_verify_key(&jws, key, NULL) == ATT_OK;
    return holds ? ATT_OK : bad(err, "tokenSignature", "its signature does not verify");
}

/* ---- claims --------------------------------------------------------------------------------- */

static bool has_audience(const json_t *aud, const char *wanted)
{
    if (json_is_string(aud)) {
        return strcmp(json_string_value(aud), wanted) == 0;
    }
    for (size_t i = 0; i < json_array_size(aud) && i < AUDIENCES_MAX; i++) {
        const char *one = json_string_value(json_array_get(aud, i));
        if (one && strcmp(one, wanted) == 0) {
            return true;
        }
    }
    return false;
}

/* RFC 7519 §2 NumericDate: an integer, or one with a fraction. False: not a number of this era. */
static bool take_date(const json_t *claims, const char *name, int64_t *ret)
{
    const json_t *value = json_object_get(claims, name);
    double number = json_number_value(value);
    if (!json_is_number(value) || !(number >= 0) || !(number < 253402300800.0)) {
        return false;
    }
    *ret = json_is_integer(value) ? json_integer_value(value) : (int64_t)number;
    return true;
}

bool oidc_jwt_has_audience(const struct oidc_jwt *jwt, const char *audience)
{
    return has_audience(json_object_get(jwt->claims, "aud"), audience);
}

enum att_rc oidc_jwt_check_times(const struct oidc_jwt *jwt, int64_t leeway_s,
                                 int64_t lifetime_max_s, int64_t now, struct att_err *err)
{
    const json_t *claims = jwt->claims;
    int64_t exp = 0;
    static const char *const starts[] = {"nbf", "iat"};
    if (!take_date(claims, "exp", &exp)) {
        return bad_form(err, "it has no exp that is a time");
    }
    if (exp + leeway_s <= now) {
        return bad(err, "tokenExpired", "it has expired");
    }
    for (size_t i = 0; i < 2; i++) {
        int64_t from = 0;
        if (json_object_get(claims, starts[i]) && !take_date(claims, starts[i], &from)) {
            return bad_form(err, "its nbf or iat is not a time");
        }
        if (from - leeway_s > now) {
            return bad(err, "tokenNotYet", "it is not valid yet (nbf, iat)");
        }
    }
    if (lifetime_max_s && exp - now > lifetime_max_s + leeway_s) {
        return bad(err, "tokenLifetime", "it lives longer than is accepted here");
    }
    return ATT_OK;
}

static enum att_rc check_subject(const json_t *claims, const char **ret_sub, struct att_err *err)
{
    const json_t *sub = json_object_get(claims, "sub");
    const char *text = json_string_value(sub);
    size_t len = json_string_length(sub);
    for (size_t i = 0; text && i < len; i++) {
        if (text[i] < 0x20 || text[i] > 0x7e) {
            text = NULL;
        }
    }
    if (!text || len == 0 || len > OIDC_SUB_MAX) {
        return bad(err, "tokenSubject", "its sub is not 1 to 255 characters of ASCII");
    }
    *ret_sub = text;
    return ATT_OK;
}

static bool has_claim(const json_t *claims, const char *wanted)
{
    const char *equals = strchr(wanted, '=');
    const json_t *value =
        equals ? json_object_getn(claims, wanted, (size_t)(equals - wanted)) : NULL;
    return json_is_string(value) && strcmp(json_string_value(value), equals + 1) == 0;
}

enum att_rc oidc_jwt_check(const struct oidc_jwt *jwt, const struct oidc_expect *expect,
                           int64_t now, const char **ret_sub, struct att_err *err)
{
    const json_t *claims = jwt->claims;
    if (strcmp(oidc_jwt_issuer(jwt), expect->issuer) != 0) {
        return bad(err, "tokenIssuer", "its iss is not the issuer that is configured");
    }
    if (!has_audience(json_object_get(claims, "aud"), expect->audience)) {
        return bad(err, "tokenAudience", "its aud does not name this service");
    }
    enum att_rc rc = oidc_jwt_check_times(jwt, expect->leeway_s, expect->lifetime_max_s, now, err);
    for (size_t i = 0; !rc && i < expect->n_claims; i++) {
        if (!has_claim(claims, expect->claims[i])) {
            rc = att_fail(err, ATT_E_AUTH, "token: it has no claim %.100s", expect->claims[i]);
            att_err_reason(err, "tokenClaim");
        }
    }
    return rc ? rc : check_subject(claims, ret_sub, err);
}
