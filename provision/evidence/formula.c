#include "provision/evidence/formula.h"

void evidence_certify_extra(uint8_t ret[ATT_SHA256_LEN], struct att_slice key_authorization)
{
    att_sha256(ret, key_authorization);
}

void evidence_hsm_digest(uint8_t ret[ATT_SHA256_LEN], struct att_slice key_authorization,
                         struct att_slice attributes)
{
    const struct att_slice parts[] = {key_authorization, attributes};
    att_sha256_v(ret, parts, 2);
}

void evidence_quote_extra(uint8_t ret[ATT_SHA256_LEN], struct att_slice key_authorization,
                          struct att_slice cert_info, struct att_slice evidence)
{
    uint8_t cert_info_hash[ATT_SHA256_LEN], evidence_hash[ATT_SHA256_LEN];
    att_sha256(cert_info_hash, cert_info);
    att_sha256(evidence_hash, evidence);
    /* Two digests of fixed length end the input, so keyAuthorization cannot run into them. */
    const struct att_slice parts[] = {ATT_SLICE_LIT("attestd-q/1"), key_authorization,
                                      ATT_SLICE_ARRAY(cert_info_hash),
                                      ATT_SLICE_ARRAY(evidence_hash)};
    att_sha256_v(ret, parts, sizeof parts / sizeof parts[0]);
}

void evidence_user_quote_extra(uint8_t ret[ATT_SHA256_LEN], struct att_slice nonce,
                               struct att_slice manifest)
{
    uint8_t manifest_hash[ATT_SHA256_LEN];
    att_sha256(manifest_hash, manifest);
    const struct att_slice parts[] = {ATT_SLICE_LIT("attestd-user-q/1"), nonce,
                                      ATT_SLICE_ARRAY(manifest_hash)};
    att_sha256_v(ret, parts, sizeof parts / sizeof parts[0]);
}
