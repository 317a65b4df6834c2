#include "provision/manifest/verity.h"

#include "attestd/base/buf.h"

#include <string.h>

#define DESCRIPTOR_LEN 256

enum att_rc manifest_hash_init(struct manifest_hash *hash, struct att_err *err)
{
    *hash = (struct manifest_hash){.whole = EVP_MD_CTX_new()};
    return hash->whole && EVP_DigestInit_ex(hash->whole, EVP_sha256(), NULL) == 1
               ? ATT_OK
               : att_fail_openssl(err, ATT_E_CRYPTO, "SHA-256");
}

void manifest_hash_done(struct manifest_hash *hash)
{
    EVP_MD_CTX_free(hash->whole);
    hash->whole = NULL;
}

/* A hash for this level; a full block of hashes becomes one of the level above. The last block of
 * all waits: whether it is the root shows only at the end. */
static enum att_rc put(struct manifest_hash *hash, unsigned level,
                       const uint8_t digest[ATT_SHA256_LEN], struct att_err *err)
{
    uint8_t up[ATT_SHA256_LEN], mine[ATT_SHA256_LEN];
    memcpy(mine, digest, sizeof mine);
    for (;; level++, memcpy(mine, up, sizeof mine)) {
        if (level >= MANIFEST_VERITY_LEVELS) {
            return att_fail(err, ATT_E_LIMIT, "a file too large for fs-verity");
        }
        if (level == hash->n_levels) {
            hash->level[hash->n_levels++].filled = 0;
        }
        bool full = hash->level[level].filled == MANIFEST_VERITY_BLOCK;
        if (full) {
            att_sha256(up, ATT_SLICE_ARRAY(hash->level[level].block));
            hash->level[level].filled = 0;
        }
        memcpy(hash->level[level].block + hash->level[level].filled, mine, sizeof mine);
        hash->level[level].filled += sizeof mine;
        if (!full) {
            return ATT_OK;
        }
    }
}

static enum att_rc close_block(struct manifest_hash *hash, struct att_err *err)
{
    uint8_t digest[ATT_SHA256_LEN];
    memset(hash->block + hash->filled, 0, sizeof hash->block - hash->filled);
    att_sha256(digest, ATT_SLICE_ARRAY(hash->block));
    hash->filled = 0;
    return put(hash, 0, digest, err);
}

enum att_rc manifest_hash_update(struct manifest_hash *hash, struct att_slice bytes,
                                 struct att_err *err)
{
    if (EVP_DigestUpdate(hash->whole, bytes.ptr, bytes.len) != 1) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "SHA-256");
    }
    hash->size += bytes.len;
    while (bytes.len) {
        if (hash->filled == sizeof hash->block) {
            enum att_rc rc = close_block(hash, err);
            if (rc != ATT_OK) {
                return rc;
            }
        }
        size_t room = sizeof hash->block - hash->filled;
        size_t n = bytes.len < room ? bytes.len : room;
        memcpy(hash->block + hash->filled, bytes.ptr, n);
        hash->filled += n;
        bytes.ptr += n;
        bytes.len -= n;
    }
    return ATT_OK;
}

/* The root hash: of the one data block, of the top level's one block of hashes, or zeroes for an
 * empty file. */
static enum att_rc find_root(struct manifest_hash *hash, uint8_t ret_root[ATT_SHA256_LEN],
                             struct att_err *err)
{
    memset(ret_root, 0, ATT_SHA256_LEN);
    enum att_rc rc = hash->filled ? close_block(hash, err) : ATT_OK;
    for (unsigned i = 0; rc == ATT_OK && i < hash->n_levels; i++) {
        uint8_t *block = hash->level[i].block;
        size_t filled = hash->level[i].filled;
        if (i + 1 == hash->n_levels && filled == ATT_SHA256_LEN) {
            memcpy(ret_root, block, ATT_SHA256_LEN); /* one hash is the root, not a level */
            return ATT_OK;
        }
        uint8_t up[ATT_SHA256_LEN];
        memset(block + filled, 0, MANIFEST_VERITY_BLOCK - filled);
        att_sha256(up, ATT_SLICE(block, MANIFEST_VERITY_BLOCK));
        rc = put(hash, i + 1, up, err);
    }
    return rc;
}

/* struct fsverity_descriptor, little endian. */
enum att_rc manifest_hash_final(struct manifest_hash *hash, uint8_t ret_sha256[ATT_SHA256_LEN],
                                uint8_t ret_verity[ATT_SHA256_LEN], struct att_err *err)
{
    uint8_t descriptor[DESCRIPTOR_LEN] = {1 /* version */, 1 /* SHA-256 */, 12 /* log2 block */};
    unsigned len = ATT_SHA256_LEN;
    for (unsigned i = 0; i < 8; i++) {
        descriptor[8 + i] = (uint8_t)(hash->size >> (8 * i));
    }
    enum att_rc rc = find_root(hash, descriptor + 16, err);
    if (rc == ATT_OK && EVP_DigestFinal_ex(hash->whole, ret_sha256, &len) != 1) {
        rc = att_fail_openssl(err, ATT_E_CRYPTO, "SHA-256");
    }
    if (rc == ATT_OK) {
        att_sha256(ret_verity, ATT_SLICE_ARRAY(descriptor));
    }
    return rc;
}
