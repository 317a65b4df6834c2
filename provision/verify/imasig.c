#include "provision/verify/imasig.h"

#include "attestd/base/enc.h"

#include <openssl/err.h>
#include <openssl/rsa.h>
#include <openssl/sha.h>
#include <openssl/x509v3.h>
#include <string.h>

#define TYPE_DIGSIG        3
#define TYPE_VERITY_DIGSIG 6
#define RSA_BITS_LEAST     2048

/* enum hash_algo of the kernel's include/uapi/linux/hash_info.h. */
static const struct {
    uint8_t code;
    const char *name, *openssl;
} hashes[] = {{4, "sha256", "SHA256"}, {5, "sha384", "SHA384"}, {6, "sha512", "SHA512"}};

static const char *const words[] = {"is not there",
                                    "is malformed",
                                    "is by a key that is not allowed",
                                    "does not hold",
                                    "was not verified: too many before it do not hold",
                                    "holds"};

const char *verify_imasig_word(enum verify_imasig sig)
{
    return words[(unsigned)sig < 6 ? sig : VERIFY_IMASIG_MALFORMED];
}

/* ---- keys ------------------------------------------------------------------------------------ */

void verify_imasig_key_done(struct verify_imasig_key *key)
{
    EVP_PKEY_free(key->key);
    *key = (struct verify_imasig_key){0};
}

static bool key_fits(const EVP_PKEY *key)
{
    if (EVP_PKEY_is_a(key, "RSA")) {
        return EVP_PKEY_get_bits(key) >= RSA_BITS_LEAST;
    }
    char group[64] = "";
    return EVP_PKEY_is_a(key, "EC") && EVP_PKEY_get_group_name(key, group, sizeof(group), NULL) &&
           (!strcmp(group, "prime256v1") || !strcmp(group, "secp384r1") ||
            !strcmp(group, "secp521r1"));
}

/* The kernel's key id: of the subject key identifier, where the certificate has none of the hash
 * of the key's bits (RFC 5280 §4.2.1.2, method 1). */
static bool keyid_of(X509 *cert, uint8_t ret[4])
{
    const ASN1_OCTET_STRING *ski = X509_get0_subject_key_id(cert);
    const ASN1_BIT_STRING *bits = X509_get0_pubkey_bitstr(cert);
    uint8_t sha1[SHA_DIGEST_LENGTH];
    unsigned len = 0;
    if (ski && ASN1_STRING_length(ski) >= 4) {
        memcpy(ret, ASN1_STRING_get0_data(ski) + ASN1_STRING_length(ski) - 4, 4);
        return true;
    }
    if (!bits || EVP_Digest(ASN1_STRING_get0_data(bits), (size_t)ASN1_STRING_length(bits), sha1,
                            &len, EVP_sha1(), NULL) != 1) {
        return false;
    }
    memcpy(ret, sha1 + sizeof(sha1) - 4, 4);
    return true;
}

enum att_rc verify_imasig_key_parse(const char *base64, struct verify_imasig_key *ret,
                                    struct att_err *err)
{
    att_autobuf der = ATT_BUF_INIT(VERIFY_IMASIG_CERT_MAX);
    struct att_err why = {0};
    if (!base64 || att_unb64(&der, att_slice_str(base64), &why) || der.len == 0) {
        return att_fail(err, ATT_E_PARSE, "expected a DER certificate in base64, at most %d bytes",
                        VERIFY_IMASIG_CERT_MAX);
    }
    const uint8_t *at = der.ptr;
    X509 *cert = d2i_X509(NULL, &at, (long)der.len);
    struct verify_imasig_key key = {.key = cert ? X509_get_pubkey(cert) : NULL};
    bool whole = cert && at == der.ptr + der.len;
    bool good = whole && key.key && key_fits(key.key) && keyid_of(cert, key.keyid);
    X509_free(cert);
    ERR_clear_error();
    if (!good) {
        EVP_PKEY_free(key.key);
        return att_fail(err, ATT_E_PARSE,
                        whole ? "expected a key of RSA with 2048 bits or more, or on P-256, P-384 "
                                "or P-521"
                              : "expected one DER certificate and nothing behind it");
    }
    att_sha256(key.cert_sha256, att_buf_slice(&der));
    *ret = key;
    return ATT_OK;
}

/* ---- signatures ------------------------------------------------------------------------------ */

struct header {
    uint8_t type, version, hash;
    struct att_slice keyid, sig;
};

static bool parse_header(struct att_slice field, struct header *ret)
{
    struct att_cur cur = att_cur_init(field);
    ret->type = att_cur_u8(&cur);
    ret->version = att_cur_u8(&cur);
    ret->hash = att_cur_u8(&cur);
    ret->keyid = att_cur_take(&cur, 4);
    ret->sig = att_cur_take(&cur, att_cur_be16(&cur));
    return att_cur_done(&cur) && ret->sig.len > 0 &&
           ((ret->type == TYPE_DIGSIG && ret->version == 2) ||
            (ret->type == TYPE_VERITY_DIGSIG && ret->version == 3));
}

static struct att_slice sig_field(const struct parse_ima_entry *entry)
{
    for (size_t i = 0; i < entry->n_fields && !entry->violation; i++) {
        if (entry->tmpl->fields[i] == PARSE_IMA_SIG) {
            return entry->fields[i];
        }
    }
    return ATT_SLICE(NULL, 0);
}

/* What was signed, by OpenSSL's name of its hash; NULL: the signature cannot be of this digest. */
static const char *signed_digest(const struct header *header, const struct parse_ima_entry *entry,
                                 uint8_t ret[ATT_HASH_MAX], size_t *ret_len)
{
    bool verity = strcmp(entry->kind, "verity") == 0;
    for (size_t i = 0; i < sizeof(hashes) / sizeof(hashes[0]); i++) {
        if (hashes[i].code != header->hash || strcmp(hashes[i].name, entry->alg) != 0 ||
            verity != (header->type == TYPE_VERITY_DIGSIG)) {
            continue;
        }
        const uint8_t id[2] = {header->type, header->hash};
        const struct att_slice parts[] = {ATT_SLICE_ARRAY(id), entry->file};
        if (verity) {
            return att_hash_v(hashes[i].openssl, ret, ret_len, parts, 2, NULL) ? NULL
                                                                               : hashes[i].openssl;
        }
        if (entry->file.len > ATT_HASH_MAX) {
            return NULL;
        }
        memcpy(ret, entry->file.ptr, entry->file.len);
        *ret_len = entry->file.len;
        return hashes[i].openssl;
    }
    return NULL;
}

static bool holds(EVP_PKEY *key, const char *hash, struct att_slice digest, struct att_slice sig)
{
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    EVP_MD *md = EVP_MD_fetch(NULL, hash, NULL);
    bool good =
        ctx && md && EVP_PKEY_verify_init(ctx) == 1 &&
        (!EVP_PKEY_is_a(key, "RSA") || EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) == 1) &&
        EVP_PKEY_CTX_set_signature_md(ctx, md) == 1 &&
        EVP_PKEY_verify(ctx, sig.ptr, sig.len, digest.ptr, digest.len) == 1;
    EVP_PKEY_CTX_free(ctx);
    EVP_MD_free(md);
    ERR_clear_error();
    return good;
}

enum verify_imasig verify_imasig_check(const struct verify_imasig_key *keys, size_t n,
                                       const struct parse_ima_entry *entry, size_t *tries,
                                       uint8_t ret_keyid[4])
{
    struct att_slice field = sig_field(entry);
    struct header header;
    uint8_t digest[ATT_HASH_MAX];
    size_t len = 0;
    memset(ret_keyid, 0, 4);
    /* security.ima of a file that is not signed has its digest there: types 1 and 4. */
    if (field.len == 0 || field.ptr[0] == 1 || field.ptr[0] == 4) {
        return VERIFY_IMASIG_NONE;
    }
    if (!parse_header(field, &header)) {
        return VERIFY_IMASIG_MALFORMED;
    }
    memcpy(ret_keyid, header.keyid.ptr, 4);
    const char *hash = signed_digest(&header, entry, digest, &len);
    if (!hash) {
        return VERIFY_IMASIG_MALFORMED;
    }
    for (size_t i = 0; i < n; i++) {
        if (memcmp(keys[i].keyid, header.keyid.ptr, 4) != 0) {
            continue;
        }
        if (*tries == 0) {
            return VERIFY_IMASIG_UNTRIED;
        }
        if (holds(keys[i].key, hash, ATT_SLICE(digest, len), header.sig)) {
            return VERIFY_IMASIG_GOOD;
        }
        (*tries)--;
        return VERIFY_IMASIG_BAD;
    }
    return VERIFY_IMASIG_UNKNOWN;
}
