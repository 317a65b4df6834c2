#include "provision/oidc/jwks.h"

#include "provision/acme/jwk.h"

#include <stdlib.h>
#include <string.h>

#define VALUES_MAX 4096

static enum att_rc bad(struct att_err *err, const char *what)
{
    enum att_rc rc = att_fail(err, ATT_E_PARSE, "JWK set: %s", what);
    att_err_reason(err, "jwksForm");
    return rc;
}

void oidc_jwks_free(struct oidc_jwks *jwks)
{
    for (size_t i = 0; jwks && i < jwks->n; i++) {
        EVP_PKEY_free(jwks->key[i].pkey);
    }
    free(jwks);
}

const struct oidc_key *oidc_jwks_find(const struct oidc_jwks *jwks, const char *kid)
{
    for (size_t i = 0; jwks && i < jwks->n; i++) {
        if (strcmp(jwks->key[i].kid, kid) == 0) {
            return &jwks->key[i];
        }
    }
    return NULL;
}

/* A provider that publishes its private key, or a secret, is to be told, not used. */
static bool has_secret(const json_t *jwk)
{
    static const char *const members[] = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"};
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        if (json_object_get(jwk, members[i])) {
            return true;
        }
    }
    return false;
}

static bool is_or_absent(const json_t *jwk, const char *name, const char *wanted)
{
    const json_t *value = json_object_get(jwk, name);
    const char *text = json_string_value(value);
    return !value || (text && strcmp(text, wanted) == 0);
}

/* RFC 7517 §4.3 */
static bool verifies(const json_t *jwk)
{
    const json_t *ops = json_object_get(jwk, "key_ops");
    bool found = !ops;
    for (size_t i = 0; i < json_array_size(ops); i++) {
        const char *op = json_string_value(json_array_get(ops, i));
        found = found || (op && strcmp(op, "verify") == 0);
    }
    return found && is_or_absent(jwk, "use", "sig");
}

/* False: not a key for us. */
static bool take_key(const json_t *jwk, struct oidc_key *ret)
{
    struct oidc_key key = {0};
    const json_t *kid = json_object_get(jwk, "kid"), *alg = json_object_get(jwk, "alg");
    size_t len = json_string_length(kid);
    if (!json_is_string(kid) || len == 0 || len > OIDC_KID_MAX || !verifies(jwk) ||
        acme_jwk_pkey(jwk, &key.pkey, NULL)) {
        return false;
    }
    memcpy(key.kid, json_string_value(kid), len + 1);
    bool ec = EVP_PKEY_is_a(key.pkey, "EC") == 1;
    key.algs = ec ? (unsigned)OIDC_ES256 : (unsigned)(OIDC_RS256 | OIDC_PS256);
    if (alg) {
        key.algs &= json_is_string(alg) ? oidc_alg_parse(json_string_value(alg)) : 0;
    }
    if (!key.algs) {
        EVP_PKEY_free(key.pkey);
        return false;
    }
    *ret = key;
    return true;
}

static enum att_rc take_keys(const json_t *keys, struct oidc_jwks *jwks, struct att_err *err)
{
    size_t i;
    json_t *jwk;
    json_array_foreach((json_t *)(uintptr_t)keys, i, jwk)
    {
        struct oidc_key key;
        if (!json_is_object(jwk)) {
            return bad(err, "a key is not an object");
        }
        if (has_secret(jwk)) {
            return bad(err, "there is private or symmetric key material in it");
        }
        if (!take_key(jwk, &key)) {
            jwks->skipped++;
            continue;
        }
        if (oidc_jwks_find(jwks, key.kid)) {
            EVP_PKEY_free(key.pkey);
            return bad(err, "a kid stands there twice");
        }
        jwks->key[jwks->n++] = key;
    }
    return jwks->n ? ATT_OK : bad(err, "none of its keys can be used (P-256 or RSA, with a kid)");
}

enum att_rc oidc_jwks_parse(struct att_slice text, struct oidc_jwks **ret_jwks, struct att_err *err)
{
    att_autojson *json = NULL;
    if (text.len > OIDC_JWKS_MAX) {
        enum att_rc rc = att_fail(err, ATT_E_LIMIT, "JWK set: %zu bytes, at most %zu are read",
                                  text.len, OIDC_JWKS_MAX);
        att_err_reason(err, "jwksSize");
        return rc;
    }
    if (att_json_parse_few(text, OIDC_JWKS_MAX, VALUES_MAX, &json, NULL)) {
        return bad(err, "not JSON without duplicates");
    }
    const json_t *keys = json_object_get(json, "keys");
    if (!json_is_array(keys) || json_array_size(keys) > OIDC_KEYS_MAX) {
        return bad(err, "\"keys\": expected an array of 64 at most");
    }
    struct oidc_jwks *jwks = calloc(1, sizeof *jwks);
    enum att_rc rc =
        jwks ? take_keys(keys, jwks, err) : att_fail(err, ATT_E_NOMEM, "JWK set: no memory");
    if (rc) {
        oidc_jwks_free(jwks);
        return rc;
    }
    *ret_jwks = jwks;
    return ATT_OK;
}
