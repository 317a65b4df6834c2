/* What strangers send to the attestation CA's endpoints: what is taken is within its caps. */
#include "provision/enrol/step.h"

#include "provision/enrol/messages.h"

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
        enrol_step_attest_done(&request);
    }
    (void)!enrol_step_secret_parse(ATT_SLICE(data, size), secret, NULL);
    return 0;
}
