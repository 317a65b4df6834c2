/* What attestctl's own verifier reads from strangers: keys, checkpoints, proofs. */
#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "attestd/ctl/tlog.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NAME "example.com/log"

static EVP_PKEY *signer;
static struct tlog_key own_key;

static void make_key(void)
{
    static const uint8_t seed[32] = {1};
    uint8_t hash[32], tail[2 + 32] = {'\n', 1};
    size_t len = 32;
    signer = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof seed);
    if (!signer || EVP_PKEY_get_raw_public_key(signer, tail + 2, &len) != 1) {
        __builtin_trap();
    }
    const struct att_slice parts[] = {ATT_SLICE_LIT(NAME), ATT_SLICE_ARRAY(tail)};
    att_sha256_v(hash, parts, 2);
    strcpy(own_key.name, NAME);
    memcpy(own_key.id, hash, 4);
    memcpy(own_key.key, tail + 2, 32);
}

/* A log's owner signs whatever he likes: what stands behind the signature. */
static void check_signed(struct att_slice text)
{
    uint8_t sig[4 + 64];
    size_t len = 64;
    att_autobuf note = {0};
    struct tlog_head head;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    memcpy(sig, own_key.id, 4);
    bool ok = md && EVP_DigestSignInit(md, NULL, NULL, NULL, signer) == 1 &&
              EVP_DigestSign(md, sig + 4, &len, text.ptr, text.len) == 1;
    EVP_MD_CTX_free(md);
    if (!ok) {
        __builtin_trap();
    }
    att_buf_put_slice(&note, text);
    att_buf_put_str(&note, "\n\xe2\x80\x94 " NAME " ");
    att_buf_b64(&note, ATT_SLICE_ARRAY(sig));
    att_buf_u8(&note, '\n');
    if (tlog_head_open(att_buf_slice(&note), &own_key, &head, NULL) == ATT_OK) {
        char lines[600];
        att_autobuf root = {0};
        att_buf_b64(&root, ATT_SLICE_ARRAY(head.root));
        int n = snprintf(lines, sizeof lines, NAME "\n%llu\n%s\n", (unsigned long long)head.size,
                         att_buf_cstr(&root));
        if (text.len < (size_t)n || memcmp(text.ptr, lines, (size_t)n) != 0) {
            __builtin_trap(); /* the three are the first three, in one form alone */
        }
    }
}

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
    if (!signer) {
        make_key();
    }
    if (size && size < TLOG_NOTE_MAX && data[size - 1] == '\n') {
        check_signed(bytes);
    }
    (void)tlog_entry_ok(bytes, 1);
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
