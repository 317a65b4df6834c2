/* What the account key may be made to sign (RFC 8555 §6.2): read here again, whoever asks. */
#include "attestd/keyd/internal.h"

#include <string.h>

#define HEADER_MAX 4096

static enum att_rc check_key_member(const json_t *header, const char *issuer_url,
                                    const json_t *own_jwk, struct att_err *err)
{
    const json_t *jwk = json_object_get(header, "jwk");
    const json_t *kid = json_object_get(header, "kid");
    if (!jwk == !kid) {
        return keyd_deny(err, "jwsHeader", "exactly one of jwk and kid expected");
    }
    if (jwk) {
        return json_equal(jwk, own_jwk) ? ATT_OK
                                        : keyd_deny(err, "jwsJwk", "jwk is not the account key");
    }
    struct att_err cause = {0};
    const char *text = json_string_value(kid);
    if (!text || keyd_url_under(issuer_url, att_slice_str(text), &cause) != ATT_OK) {
        return keyd_deny(err, "jwsKid", "kid: %s", text ? cause.msg : "not a string");
    }
    return ATT_OK;
}

enum att_rc keyd_jws_check(struct att_slice protected_json, const char *issuer_url,
                           const json_t *own_jwk, bool *ret_kid, struct att_err *err)
{
    att_autojson *header = NULL;
    struct att_err cause = {0};
    enum att_rc rc = att_json_parse(protected_json, HEADER_MAX, &header, &cause);
    if (rc != ATT_OK || !json_is_object(header)) {
        return keyd_deny(err, "jwsHeader", "protected header: %s",
                         rc != ATT_OK ? cause.msg : "not an object");
    }
    const char *alg = json_string_value(json_object_get(header, "alg"));
    if (!alg || strcmp(alg, "ES256") != 0) {
        return keyd_deny(err, "jwsAlg", "alg must be ES256, is %.20s", alg ? alg : "absent");
    }
    /* alg, nonce, url and one of jwk and kid: no crit, no b64, nothing that changes the meaning. */
    const char *nonce = json_string_value(json_object_get(header, "nonce"));
    const char *url = json_string_value(json_object_get(header, "url"));
    if (!nonce || !nonce[0] || !url || json_object_size(header) != 4) {
        return keyd_deny(err, "jwsHeader",
                         "exactly alg, nonce, url and one of jwk and kid expected");
    }
    if (keyd_url_under(issuer_url, att_slice_str(url), &cause) != ATT_OK) {
        return keyd_deny(err, "jwsUrl", "url %.80s: %s", url, cause.msg);
    }
    rc = check_key_member(header, issuer_url, own_jwk, err);
    if (rc == ATT_OK) {
        *ret_kid = json_object_get(header, "kid") != NULL;
    }
    return rc;
}
