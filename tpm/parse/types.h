/* Constants of TPM 2.0 structures, by their own names, so that a verifier needs no TSS headers.
 * Values: TCG TPM 2.0 Library, Part 2 (the clause stands at each group). */
#ifndef TPM_PARSE_TYPES_H
#define TPM_PARSE_TYPES_H

#include <stddef.h>
#include <stdint.h>

/* Part 2 clause 6.3, TPM_ALG_ID */
#define PARSE_ALG_RSA          ((uint16_t)0x0001)
#define PARSE_ALG_SHA1         ((uint16_t)0x0004)
#define PARSE_ALG_HMAC         ((uint16_t)0x0005)
#define PARSE_ALG_AES          ((uint16_t)0x0006)
#define PARSE_ALG_MGF1         ((uint16_t)0x0007)
#define PARSE_ALG_KEYEDHASH    ((uint16_t)0x0008)
#define PARSE_ALG_XOR          ((uint16_t)0x000A)
#define PARSE_ALG_SHA256       ((uint16_t)0x000B)
#define PARSE_ALG_SHA384       ((uint16_t)0x000C)
#define PARSE_ALG_SHA512       ((uint16_t)0x000D)
#define PARSE_ALG_NULL         ((uint16_t)0x0010)
#define PARSE_ALG_SM3_256      ((uint16_t)0x0012)
#define PARSE_ALG_RSASSA       ((uint16_t)0x0014)
#define PARSE_ALG_RSAES        ((uint16_t)0x0015)
#define PARSE_ALG_RSAPSS       ((uint16_t)0x0016)
#define PARSE_ALG_OAEP         ((uint16_t)0x0017)
#define PARSE_ALG_ECDSA        ((uint16_t)0x0018)
#define PARSE_ALG_ECDH         ((uint16_t)0x0019)
#define PARSE_ALG_KDF1_800_56A ((uint16_t)0x0020)
#define PARSE_ALG_KDF2         ((uint16_t)0x0021)
#define PARSE_ALG_KDF1_800_108 ((uint16_t)0x0022)
#define PARSE_ALG_ECC          ((uint16_t)0x0023)
#define PARSE_ALG_SHA3_256     ((uint16_t)0x0027)
#define PARSE_ALG_SHA3_384     ((uint16_t)0x0028)
#define PARSE_ALG_SHA3_512     ((uint16_t)0x0029)
#define PARSE_ALG_CFB          ((uint16_t)0x0043)

/* Part 2 clause 6.4, TPM_ECC_CURVE */
#define PARSE_ECC_P256 ((uint16_t)0x0003)
#define PARSE_ECC_P384 ((uint16_t)0x0004)

/* Part 2 clause 8.3, TPMA_OBJECT */
#define PARSE_OA_FIXED_TPM             ((uint32_t)1 << 1)
#define PARSE_OA_ST_CLEAR              ((uint32_t)1 << 2)
#define PARSE_OA_FIXED_PARENT          ((uint32_t)1 << 4)
#define PARSE_OA_SENSITIVE_DATA_ORIGIN ((uint32_t)1 << 5)
#define PARSE_OA_USER_WITH_AUTH        ((uint32_t)1 << 6)
#define PARSE_OA_ADMIN_WITH_POLICY     ((uint32_t)1 << 7)
#define PARSE_OA_FIRMWARE_LIMITED      ((uint32_t)1 << 8)
#define PARSE_OA_SVN_LIMITED           ((uint32_t)1 << 9)
#define PARSE_OA_NO_DA                 ((uint32_t)1 << 10)
#define PARSE_OA_ENCRYPTED_DUPLICATION ((uint32_t)1 << 11)
#define PARSE_OA_RESTRICTED            ((uint32_t)1 << 16)
#define PARSE_OA_DECRYPT               ((uint32_t)1 << 17)
#define PARSE_OA_SIGN                  ((uint32_t)1 << 18)
#define PARSE_OA_X509_SIGN             ((uint32_t)1 << 19)

/* Part 2 clause 6.2, TPM_GENERATED, and clause 6.9, TPM_ST */
#define PARSE_MAGIC           ((uint32_t)0xFF544347)
#define PARSE_ATTEST_NV       ((uint16_t)0x8014)
#define PARSE_ATTEST_CERTIFY  ((uint16_t)0x8017)
#define PARSE_ATTEST_QUOTE    ((uint16_t)0x8018)
#define PARSE_ATTEST_CREATION ((uint16_t)0x801A)

/* Part 2 clause 7.4, TPM_RH */
#define PARSE_RH_OWNER       ((uint32_t)0x40000001)
#define PARSE_RH_NULL        ((uint32_t)0x40000007)
#define PARSE_RH_ENDORSEMENT ((uint32_t)0x4000000B)
#define PARSE_RH_PLATFORM    ((uint32_t)0x4000000C)

/* Caps */
#define PARSE_DIGEST_MAX 64  /* SHA-512 */
#define PARSE_RSA_MAX    384 /* bytes of a 3072-bit modulus */
#define PARSE_COORD_MAX  48  /* bytes of a P-384 coordinate */
#define PARSE_PCR_COUNT  24
#define PARSE_AREA_MAX   1024 /* bytes of a TPMT_PUBLIC we take */
#define PARSE_ATTEST_MAX 4096 /* bytes of a TPMS_ATTEST we take */
#define PARSE_SIG_MAX    1024 /* bytes of a TPMT_SIGNATURE we take */

/* Digest length in bytes; 0 for what is not a hash known here. SHA-1, SHA-2, SHA-3, SM3. */
size_t parse_alg_digest_len(uint16_t alg);
/* "sha1", "sha256", "sha384", "sha512", "sm3_256", "sha3_256"…; NULL for what is not a hash. */
const char *parse_alg_name(uint16_t alg);
/* The reverse; 0 when the text names no hash known here. */
uint16_t parse_alg_by_name(const char *name);
/* OpenSSL's name of the hash ("SHA256"), for att_hash_v and EVP_get_digestbyname; NULL likewise. */
const char *parse_alg_openssl_name(uint16_t alg);

#endif
