/* A request body as an ACME server gets it, its key, its external account binding; a signed
 * document. What parses must survive verification, whatever its verdict. */
#include "provision/acme/jws.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was taken without jansson is what jansson makes of it. */
static void compare(struct att_slice text, const struct acme_jws *jws)
{
    att_autojson *json = NULL;
    att_autobuf payload = {0}, signature = {0};
    if (att_json_parse(text, ACME_JWS_MAX, &json, NULL) != ATT_OK || json_object_size(json) != 3 ||
        att_json_b64u(json, "payload", ACME_JWS_MAX, &payload, NULL) != ATT_OK ||
        att_json_b64u(json, "signature", ACME_JWS_MAX, &signature, NULL) != ATT_OK ||
        !json_is_string(json_object_get(json, "protected")) ||
        !att_slice_eq(att_buf_slice(&payload), att_buf_slice(&jws->payload)) ||
        !att_slice_eq(att_buf_slice(&signature), att_buf_slice(&jws->signature))) {
        __builtin_trap();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct acme_jws jws = {0}, eab = {0};
    char thumbprint[ACME_THUMBPRINT_LEN];
    if (acme_jws_parse(ATT_SLICE(data, size), ACME_JWS_MAX, &jws, NULL) == ATT_OK) {
        compare(ATT_SLICE(data, size), &jws);
        if (jws.jwk && acme_jwk_thumbprint(jws.jwk, thumbprint, NULL) == ATT_OK) {
            (void)!acme_jws_verify_jwk(&jws, jws.jwk, NULL);
        }
        acme_jws_done(&jws);
    }
    if (acme_jws_parse_signed(ATT_SLICE(data, size), ACME_JWS_MAX, "attestd-hostview", &jws,
                              NULL) == ATT_OK) {
        (void)!acme_jws_verify_cert(&jws, NULL);
        acme_jws_done(&jws);
    }
    json_t *json = NULL;
    if (att_json_parse(ATT_SLICE(data, size), ACME_JWS_MAX, &json, NULL) == ATT_OK) {
        if (acme_eab_parse(json, &eab, NULL) == ATT_OK) {
            (void)!acme_eab_verify(&eab, ATT_SLICE_LIT("key"), "https://ca/a", json, NULL);
            acme_jws_done(&eab);
        }
        struct att_buf spki = {0};
        if (acme_jwk_to_spki(json, &spki, NULL) == ATT_OK) {
            json_t *again = NULL;
            if (acme_spki_to_jwk(att_buf_slice(&spki), &again, NULL) != ATT_OK) {
                __builtin_trap();
            }
            json_decref(again);
        }
        att_buf_done(&spki);
        json_decref(json);
    }
    return 0;
}
