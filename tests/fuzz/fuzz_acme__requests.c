/* The bodies of keyChange, revokeCert, a deactivation and a challenge's answer; a certificate
 * identifier and renewal information. What parses can be written and parsed again. */
#include "provision/acme/requests.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void identifier(const uint8_t *data, size_t size)
{
    char text[2 * ACME_CERT_ID_LEN] = "", again[ACME_CERT_ID_LEN];
    struct acme_cert_id id;
    memcpy(text, data, size < sizeof text - 1 ? size : sizeof text - 1);
    if (acme_cert_id_parse(text, &id, NULL) == ATT_OK &&
        (acme_cert_id_encode(&id, again, NULL) != ATT_OK || strcmp(again, text) != 0)) {
        abort();
    }
}

static void renewal(struct att_slice text)
{
    json_t *json = NULL, *again = NULL;
    struct acme_renewal_info info = {0}, back = {0};
    if (att_json_parse(text, 65536, &json, NULL) == ATT_OK &&
        acme_renewal_info_parse(json, &info, NULL) == ATT_OK) {
        if (acme_renewal_info_encode(&info, &again, NULL) != ATT_OK ||
            acme_renewal_info_parse(again, &back, NULL) != ATT_OK || back.start != info.start ||
            back.end != info.end) {
            abort();
        }
        acme_renewal_info_done(&info);
        acme_renewal_info_done(&back);
    }
    json_decref(json);
    json_decref(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct att_slice text = {data, size};
    struct acme_revocation_request revocation = {0};
    struct acme_key_change change = {0};
    (void)!acme_deactivation_parse(text, NULL);
    (void)!acme_challenge_answer_parse(text, NULL);
    if (acme_revocation_request_parse(text, &revocation, NULL) == ATT_OK) {
        if (revocation.reason < 0 || revocation.reason > 9 || revocation.cert.len == 0) {
            abort();
        }
        acme_revocation_request_done(&revocation);
    }
    if (acme_key_change_parse(text, &change, NULL) == ATT_OK) {
        acme_key_change_done(&change);
    }
    identifier(data, size);
    renewal(text);
    return 0;
}
