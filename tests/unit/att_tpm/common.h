/* What the tests of tpm/ share: one software TPM per program, a context per test. */
#ifndef ATT_TESTS_UNIT_ATT_TPM_COMMON_H
#define ATT_TESTS_UNIT_ATT_TPM_COMMON_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attestd/base/clock.h"
#include "attestd/base/hash.h"
#include "tests/support/swtpm.h"
#include "tpm/context.h"
#include "tpm/ek.h"
#include "tpm/key.h"
#include "tpm/parse/public.h"
#include "tpm/parse/sig.h"

static struct swtpm the_tpm;
static const uint8_t auth_a[TPM_KEY_AUTH_LEN] = {0xa1, 2,  3,  4,  5, 6, 7, 8, 9, 10,  11,
                                                 12,   13, 14, 15, 0, 0, 0, 0, 0, 0,   0,
                                                 0,    0,  0,  0,  0, 0, 0, 0, 0, 0x5a};
#define AUTH_A ATT_SLICE_ARRAY(auth_a)

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        struct att_err err_ = {0};                                                                 \
        struct att_err *err = &err_;                                                               \
        enum att_rc rc_ = (call);                                                                  \
        if (rc_ != ATT_OK) {                                                                       \
            fail_msg("%s: %s: %s", #call, att_rc_name(rc_), err->msg);                             \
        }                                                                                          \
    } while (0)
/* Fails with this code and reason word ("" for none). */
#define assert_refused(call, code, word)                                                           \
    do {                                                                                           \
        struct att_err err_ = {0};                                                                 \
        struct att_err *err = &err_;                                                               \
        enum att_rc rc_ = (call);                                                                  \
        if (rc_ != (code) || err->rc != (code) || strcmp(err->reason, (word)) != 0 ||              \
            err->msg[0] == '\0') {                                                                 \
            fail_msg("%s: %s, %s, \"%s\": %s; expected %s, \"%s\"", #call, att_rc_name(rc_),       \
                     att_rc_name(err->rc), err->reason, err->msg, att_rc_name(code), (word));      \
        }                                                                                          \
    } while (0)

/* The certificates in NV, and the EK that goes with them. */
static inline enum att_rc find_ek(struct tpm_context *ctx, enum parse_ek_template only,
                                  struct tpm_ek *ret_ek, struct att_err *err)
{
    tpm_autoekcerts certs = {0};
    enum att_rc rc = tpm_ek_read_certs(ctx, &certs, err);
    return rc == ATT_OK ? tpm_ek_find(ctx, &certs, only, ret_ek, err) : rc;
}

static inline int group_setup(void **state)
{
    struct att_err err = {0};
    (void)state;
    if (!swtpm_available()) {
        (void)fprintf(stderr, "swtpm is not installed\n");
        return -1;
    }
    if (swtpm_new(&the_tpm, NULL, &err) != ATT_OK) {
        (void)fprintf(stderr, "%s\n", err.msg);
        return -1;
    }
    return 0;
}

static inline int group_teardown(void **state)
{
    (void)state;
    swtpm_done(&the_tpm);
    return 0;
}

static inline struct tpm_context *open_tpm(const struct swtpm *tpm)
{
    struct tpm_context *ctx = NULL;
    struct tpm_options options = {.tcti = tpm->tcti};
    assert_ok(tpm_context_open(&options, &ctx, err));
    return ctx;
}

static inline size_t count(struct tpm_context *ctx, enum tpm_handle_kind kind)
{
    size_t n = 999;
    assert_ok(tpm_context_count_handles(ctx, kind, &n, err));
    return n;
}

/* Does the blob's key verify this signature of a digest? By OpenSSL. */
static inline bool verifies(const struct tpm_blob *blob, const uint8_t digest[32],
                            const struct tpm_signature *sig)
{
    struct parse_public pub;
    EVP_PKEY *pkey = NULL;
    assert_ok(parse_public_parse(att_buf_slice(&blob->pub), &pub, err));
    assert_ok(parse_public_pkey(&pub, &pkey, err));
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(pkey, NULL);
    assert_true(ctx && EVP_PKEY_verify_init(ctx) > 0);
    bool ok = EVP_PKEY_verify(ctx, sig->der, sig->der_len, digest, 32) == 1;
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(pkey);
    return ok;
}

static inline void create_key(struct tpm_context *ctx, struct tpm_blob *ret_blob)
{
    assert_ok(tpm_key_create(ctx, AUTH_A, ret_blob, err));
}

static inline bool signs(struct tpm_context *ctx, const struct tpm_blob *blob)
{
    uint8_t digest[32];
    struct tpm_signature sig;
    struct att_err err = {0};
    att_sha256(digest, ATT_SLICE_LIT("some message"));
    if (tpm_key_sign(ctx, blob, AUTH_A, digest, &sig, &err) != ATT_OK) {
        (void)fprintf(stderr, "sign: %s\n", err.msg);
        return false;
    }
    return verifies(blob, digest, &sig);
}

#endif
