/* What strangers send to the attestation CA's endpoints, and what such a CA answers us: what is
 * taken is within its caps, and a request that was read is read the same when it is written again.
 */
#include "provision/enrol/step.h"

#include "provision/enrol/messages.h"

#include <string.h>

static void check_answers(struct att_slice body)
{
    struct att_buf chain[ENROL_STEP_CERTS_MAX] = {{0}}, credential = {0}, secret = {0};
    size_t n = 0;
    if (enrol_step_secret_answer_parse(body, chain, &n, NULL) == ATT_OK) {
        for (size_t i = 0; i < n; i++) {
            if (chain[i].len == 0 || chain[i].len > ENROL_CERT_MAX) {
                __builtin_trap();
            }
            att_buf_done(&chain[i]);
        }
    }
    if (enrol_step_attest_answer_parse(body, &credential, &secret, NULL) == ATT_OK &&
        (credential.len == 0 || secret.len == 0)) {
        __builtin_trap();
    }
    att_buf_done(&credential);
    att_buf_done(&secret);
}

static void check_again(const struct enrol_step_attest *request)
{
    struct enrol_step_attest again = {0};
    att_autobuf body = {0};
    if (enrol_step_attest_encode(request, &body, NULL) != ATT_OK) {
        __builtin_trap();
    }
    if (body.len > ENROL_STEP_BODY_MAX) {
        return;
    }
    if (enrol_step_attest_parse(att_buf_slice(&body), &again, NULL) != ATT_OK ||
        !att_slice_eq(att_buf_slice(&again.ak_pub), att_buf_slice(&request->ak_pub)) ||
        strcmp(again.version, request->version) != 0 ||
        strcmp(again.manufacturer, request->manufacturer) != 0) {
        __builtin_trap();
    }
    enrol_step_attest_done(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct enrol_step_attest request = {0};
    uint8_t secret[ENROL_STEP_SECRET_LEN];
    if (enrol_step_attest_parse(ATT_SLICE(data, size), &request, NULL) == ATT_OK) {
        bool ok = request.n_ek_certs >= 1 && request.n_ek_certs <= ENROL_STEP_CERTS_MAX &&
                  request.ek.len && request.ak_pub.len && request.create_data.len &&
                  request.create_attestation.len && request.create_signature.len;
        for (size_t i = 0; i < request.n_ek_certs; i++) {
            ok = ok && request.ek_certs[i].len && request.ek_certs[i].len <= ENROL_CERT_MAX;
        }
        if (!ok) {
            __builtin_trap();
        }
        check_again(&request);
        enrol_step_attest_done(&request);
    }
    check_answers(ATT_SLICE(data, size));
    (void)!enrol_step_secret_parse(ATT_SLICE(data, size), secret, NULL);
    return 0;
}
