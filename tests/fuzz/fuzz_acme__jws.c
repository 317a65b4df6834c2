/* A request body as an ACME server gets it, its key, its external account binding; a signed
 * document. What parses must survive verification, whatever its verdict. */
#include "provision/acme/jws.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct acme_jws jws = {0}, eab = {0};
    char thumbprint[ACME_THUMBPRINT_LEN];
    if (acme_jws_parse(ATT_SLICE(data, size), ACME_JWS_MAX, &jws, NULL) == ATT_OK) {
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
