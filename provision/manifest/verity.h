/* The digest by which fs-verity knows a file, computed without the kernel: SHA-256, blocks of 4096
 * bytes, no salt (Linux, Documentation/filesystems/fsverity.rst, "Merkle tree", "fs-verity
 * descriptor"). Of a file of any length in constant memory. */
#ifndef ATTESTD_PROVISION_MANIFEST_VERITY_H
#define ATTESTD_PROVISION_MANIFEST_VERITY_H

#include "attestd/base/hash.h"

#include <openssl/evp.h>

#define MANIFEST_VERITY_BLOCK  4096
#define MANIFEST_VERITY_LEVELS 8 /* as the kernel: 128 hashes a block, 2^64 bytes need no more */

/* Both digests of one pass over a file. {0}, then manifest_hash_done. */
struct manifest_hash {
    EVP_MD_CTX *whole; /* SHA-256 of the content */
    uint64_t size;
    uint8_t block[MANIFEST_VERITY_BLOCK];
    size_t filled;
    unsigned n_levels; /* of hashes that wait for their block to be full */
    struct {
        uint8_t block[MANIFEST_VERITY_BLOCK];
        size_t filled;
    } level[MANIFEST_VERITY_LEVELS];
};
ATT_MUST_USE enum att_rc manifest_hash_init(struct manifest_hash *hash, struct att_err *err);
ATT_MUST_USE enum att_rc manifest_hash_update(struct manifest_hash *hash, struct att_slice bytes,
                                              struct att_err *err);
ATT_MUST_USE enum att_rc manifest_hash_final(struct manifest_hash *hash,
                                             uint8_t ret_sha256[ATT_SHA256_LEN],
                                             uint8_t ret_verity[ATT_SHA256_LEN],
                                             struct att_err *err);
void manifest_hash_done(struct manifest_hash *hash);

#endif
