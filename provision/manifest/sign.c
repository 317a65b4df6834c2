#include "provision/manifest/sign.h"

#include "attestd/base/enc.h"
#include "attestd/base/json.h"
#include "certs/key.h"
#include "provision/acme/jws.h"

#include <stdlib.h>
#include <string.h>

enum att_rc manifest_sign(struct manifest *manifest, EVP_PKEY *key, struct att_err *err)
{
    att_autobuf spki = {0}, header = {0}, input = {0}, text = {0};
    json_t *jwk = NULL;
    uint8_t rs[ACME_ES256_LEN];
    enum att_rc rc = certs_key_is_p256(key) ? certs_key_spki(key, &spki, err)
                                            : att_fail(err, ATT_E_INVAL, "expected a P-256 key");
    if (rc == ATT_OK) {
        rc = acme_spki_to_jwk(att_buf_slice(&spki), &jwk, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    att_autojson *json =
        json_pack("{s:s, s:s, s:o}", "alg", "ES256", "typ", MANIFEST_TYP, "jwk", jwk);
    rc = json ? att_json_dump(json, false, &header, err) : att_fail(err, ATT_E_NOMEM, "JWS header");
    if (rc == ATT_OK) {
        struct acme_signer signer = acme_signer_pkey(key);
        acme_jws_input(att_buf_slice(&header), ATT_SLICE_ARRAY(manifest->root), &input);
        rc = att_buf_ok(&input, err);
        rc = rc == ATT_OK ? signer.sign(signer.user, att_buf_slice(&input), rs, err) : rc;
    }
    if (rc == ATT_OK) {
        att_buf_b64u(&text, att_buf_slice(&header));
        att_buf_put_str(&text, "..");
        att_buf_b64u(&text, ATT_SLICE_ARRAY(rs));
        rc = att_buf_ok(&text, err);
    }
    if (rc == ATT_OK) {
        char *signature = (char *)att_buf_steal(&text, NULL);
        rc = signature ? ATT_OK : att_fail(err, ATT_E_NOMEM, "signature");
        if (rc == ATT_OK) {
            free(manifest->signature);
            manifest->signature = signature;
        }
    }
    return rc;
}

static enum att_rc refuse(struct att_err *err, enum att_rc rc, const char *text)
{
    (void)!att_fail(err, rc, "manifest: %s", text);
    att_err_reason(err, "manifestSignature");
    return rc;
}

/* Exactly the three members: nothing that a later reader might take for more. */
static enum att_rc take_header(struct att_slice bytes, struct att_buf *ret_spki,
                               struct att_err *err)
{
    att_autojson *header = NULL;
    enum att_rc rc = att_json_parse_few(bytes, MANIFEST_SIG_MAX, 16, &header, err);
    const char *alg = json_string_value(json_object_get(header, "alg"));
    const char *typ = json_string_value(json_object_get(header, "typ"));
    if (rc != ATT_OK || !alg || !typ || strcmp(alg, "ES256") != 0 ||
        strcmp(typ, MANIFEST_TYP) != 0 || json_object_size(header) != 3) {
        att_err_clear(err);
        return refuse(err, ATT_E_PARSE,
                      "the signature's header: expected alg ES256, typ " MANIFEST_TYP
                      " and jwk, nothing else");
    }
    rc = acme_jwk_to_spki(json_object_get(header, "jwk"), ret_spki, err);
    if (rc == ATT_OK && certs_key_check_spki(att_buf_slice(ret_spki), NULL) != ATT_OK) {
        rc = refuse(err, ATT_E_PARSE, "the signature's jwk: expected a key on P-256");
    }
    return rc;
}

enum att_rc manifest_verify(const struct manifest *manifest, uint8_t ret_signer[ATT_SHA256_LEN],
                            struct att_err *err)
{
    const char *text = manifest->signature;
    const char *dots = text ? strstr(text, "..") : NULL;
    struct acme_jws jws = {.alg = ACME_ALG_ES256};
    att_autobuf header = {0}, spki = {0};
    if (!dots) {
        return refuse(err, ATT_E_NOTFOUND, "it is not signed");
    }
    enum att_rc rc = att_unb64u(&header, ATT_SLICE(text, (size_t)(dots - text)), err);
    if (rc == ATT_OK) {
        rc = att_unb64u(&jws.signature, att_slice_str(dots + 2), err);
    }
    if (rc == ATT_OK) {
        rc = take_header(att_buf_slice(&header), &spki, err);
    }
    if (rc == ATT_OK) {
        /* The header as it stands there, not as it would be written anew. */
        att_buf_put(&jws.input, text, (size_t)(dots - text));
        att_buf_put_str(&jws.input, ".");
        att_buf_b64u(&jws.input, ATT_SLICE_ARRAY(manifest->root));
        rc = att_buf_ok(&jws.input, err);
    }
    if (rc == ATT_OK && acme_jws_verify_spki(&jws, att_buf_slice(&spki), NULL) != ATT_OK) {
        rc = refuse(err, ATT_E_AUTH, "its signature does not hold for its root");
    }
    if (rc == ATT_OK) {
        att_sha256(ret_signer, att_buf_slice(&spki));
    } else {
        att_err_reason(err, "manifestSignature"); /* that of a JWS inside would mislead */
    }
    acme_jws_done(&jws);
    return rc;
}
