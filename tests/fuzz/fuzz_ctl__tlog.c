/* What attestctl's own verifier reads from strangers: keys, checkpoints, proofs. */
#include "attestd/ctl/tlog.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    static const char tpm[] =
        "example.com/log+de61a5ec+AjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0I"
        "ABJIHs3Kz87Z0SN2UHUWyGHZ5bflix0BE9r0f4iJ+Se5BCjzZG3RMv/eCYshAF0FJBTy5bZ9/Q7GXR5w/hgoqtj8=";
    struct tlog_tpm_keys keys, other;
    struct tlog_tpm_seen seen;
    struct tlog_key key, own;
    struct tlog_head head;
    struct tlog_proof proof = {0};
    struct att_slice bytes = ATT_SLICE(data, size);
    if (tlog_key_parse(att_slice_str(text), &key, NULL) != ATT_OK) {
        __builtin_trap();
    }
    (void)!tlog_key_parse(bytes, &own, NULL);
    (void)!tlog_tpm_keys_parse(bytes, &other, NULL);
    if (tlog_tpm_keys_parse(att_slice_str(tpm), &keys, NULL) != ATT_OK) {
        __builtin_trap();
    }
    (void)!tlog_tpm_check(bytes, &keys, &seen, NULL);
    /* Nobody but that key's owner makes one that opens, and he made none with three such lines. */
    if (tlog_head_open(bytes, &key, &head, NULL) == ATT_OK) {
        __builtin_trap();
    }
    if (tlog_proof_parse(bytes, &proof, NULL) == ATT_OK) {
        if (proof.n > TLOG_PATH_MAX || tlog_proof_check(&proof, &key, &head, NULL) == ATT_OK) {
            __builtin_trap();
        }
        uint8_t root[TLOG_HASH], leaf[TLOG_HASH];
        tlog_leaf(att_buf_slice(&proof.leaf), leaf);
        (void)tlog_path_root(proof.index, proof.seq, leaf, (const uint8_t(*)[TLOG_HASH])proof.path,
                             proof.n, root);
    }
    tlog_proof_done(&proof);
    return 0;
}
