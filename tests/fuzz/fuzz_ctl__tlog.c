/* What attestctl's own verifier reads from strangers: keys, checkpoints, proofs. */
#include "attestd/ctl/tlog.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    struct tlog_key key, own;
    struct tlog_head head;
    struct tlog_proof proof = {0};
    struct att_slice bytes = ATT_SLICE(data, size);
    if (tlog_key_parse(att_slice_str(text), &key, NULL) != ATT_OK) {
        __builtin_trap();
    }
    (void)!tlog_key_parse(bytes, &own, NULL);
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
