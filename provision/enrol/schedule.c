#include "provision/enrol/schedule.h"

#include "attestd/base/buf.h"

#include <string.h>

#define THUMBPRINT_LEN 43

static const char label[] = "attestd-ak/1";

enum att_rc enrol_schedule_k_digests(struct att_slice cv, const char *ak_url,
                                     const char *thumbprint,
                                     const uint8_t m1_payload_sha256[ATT_SHA256_LEN],
                                     const uint8_t m1_response_sha256[ATT_SHA256_LEN],
                                     uint8_t ret_k[ENROL_K_LEN], struct att_err *err)
{
    if (cv.len != ENROL_CV_LEN) {
        return att_fail(err, ATT_E_INVAL, "activated credential: expected %d bytes, found %zu",
                        ENROL_CV_LEN, cv.len);
    }
    if (!ak_url || !ak_url[0]) {
        return att_fail(err, ATT_E_INVAL, "enrolment: there is no AK URL");
    }
    if (!thumbprint || strlen(thumbprint) != THUMBPRINT_LEN) {
        return att_fail(err, ATT_E_INVAL, "enrolment: the thumbprint must have %d characters",
                        THUMBPRINT_LEN);
    }
    /* Only the URL varies in length, so no two transcripts give the same info. */
    att_autobuf info = {0};
    att_buf_put_str(&info, label);
    att_buf_put_str(&info, ak_url);
    att_buf_put_str(&info, thumbprint);
    att_buf_put(&info, m1_payload_sha256, ATT_SHA256_LEN);
    att_buf_put(&info, m1_response_sha256, ATT_SHA256_LEN);
    enum att_rc rc = att_buf_ok(&info, err);
    if (rc != ATT_OK) {
        return rc;
    }
    return att_hkdf_sha256(ret_k, ENROL_K_LEN, cv, (struct att_slice){0}, att_buf_slice(&info),
                           err);
}

enum att_rc enrol_schedule_k(struct att_slice cv, const struct enrol_transcript *transcript,
                             uint8_t ret_k[ENROL_K_LEN], struct att_err *err)
{
    uint8_t payload[ATT_SHA256_LEN], response[ATT_SHA256_LEN];
    att_sha256(payload, transcript->m1_payload);
    att_sha256(response, transcript->m1_response);
    return enrol_schedule_k_digests(cv, transcript->ak_url, transcript->thumbprint, payload,
                                    response, ret_k, err);
}

void enrol_schedule_proof(const uint8_t k[ENROL_K_LEN], uint8_t ret_proof[ATT_SHA256_LEN])
{
    const struct att_slice part = ATT_SLICE_LIT("proof");
    att_hmac_sha256_v(ret_proof, ATT_SLICE(k, ENROL_K_LEN), &part, 1);
}

void enrol_schedule_quote_extra(const uint8_t k[ENROL_K_LEN], const uint8_t nonce[ENROL_NONCE_LEN],
                                struct att_slice manifest, uint8_t ret_extra[ATT_SHA256_LEN])
{
    uint8_t manifest_hash[ATT_SHA256_LEN];
    att_sha256(manifest_hash, manifest);
    const struct att_slice parts[] = {ATT_SLICE_LIT("quote"), ATT_SLICE(nonce, ENROL_NONCE_LEN),
                                      ATT_SLICE_ARRAY(manifest_hash)};
    att_hmac_sha256_v(ret_extra, ATT_SLICE(k, ENROL_K_LEN), parts, 3);
}
