/* A small CA for the tests of this folder. */
#ifndef TESTS_CERTS_FIXTURE_H
#define TESTS_CERTS_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "certs/build.h"
#include "certs/bundle.h"
#include "certs/chain.h"
#include "certs/csr.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "certs/san.h"
#include "certs/tls.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TD  "bank.example"
#define ID  "spiffe://bank.example/agent/rebalancer"
#define EK  "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define DAY 86400

#define assert_ok(expr)                                                                            \
    do {                                                                                           \
        struct att_err err_ = {0}, *err = &err_;                                                   \
        enum att_rc rc_ = (expr);                                                                  \
        if (rc_ != ATT_OK) {                                                                       \
            fail_msg("%s: %s (%s:%d)", #expr, err->msg, err->file, err->line);                     \
        }                                                                                          \
    } while (0)

struct ca {
    EVP_PKEY *root_key, *key;
    X509 *root, *cert;
};

static inline struct att_slice spki_of(EVP_PKEY *key, uint8_t buf[CERTS_SPKI_MAX])
{
    struct att_buf der = {0};
    assert_ok(certs_key_spki(key, &der, err));
    assert_true(der.len <= CERTS_SPKI_MAX);
    memcpy(buf, der.ptr, der.len);
    struct att_slice spki = {buf, der.len};
    att_buf_done(&der);
    return spki;
}

static inline X509 *sign(const struct att_buf *tbs, const X509 *ca, EVP_PKEY *key)
{
    struct att_buf der = {0};
    X509 *cert = NULL;
    assert_ok(certs_tbs_sign_for(att_buf_slice(tbs), ca, key, &der, err));
    assert_ok(certs_cert_parse(att_buf_slice(&der), &cert, err));
    att_buf_done(&der);
    return cert;
}

static inline X509 *make_root(EVP_PKEY *key, const char *cn)
{
    uint8_t buf[CERTS_SPKI_MAX], digest[ATT_SHA256_LEN];
    struct att_buf tbs = {0};
    struct certs_ca_spec spec = {.validity = certs_validity_from(att_now_utc_s(), 3650 * DAY),
                                 .spki = spki_of(key, buf),
                                 .common_name = cn};
    assert_ok(certs_serial_new(spec.serial, err));
    assert_ok(certs_root_tbs(&spec, &tbs, digest, err));
    X509 *root = sign(&tbs, NULL, key);
    att_buf_done(&tbs);
    return root;
}

static inline X509 *make_intermediate(EVP_PKEY *key, const char *trust_domain, const X509 *root,
                                      EVP_PKEY *root_key)
{
    uint8_t buf[CERTS_SPKI_MAX], digest[ATT_SHA256_LEN];
    struct att_buf tbs = {0};
    /* Names differ, or one below the other would count as self-issued (RFC 5280 §6.1). */
    static int number;
    char name[40];
    snprintf(name, sizeof name, "test intermediate %d", ++number);
    /* Shorter each time: one under another must not outlive it, whatever second it is. */
    int64_t lifetime_s = (3000 - number) * DAY;
    struct certs_ca_spec spec = {.validity = certs_validity_from(att_now_utc_s(), lifetime_s),
                                 .spki = spki_of(key, buf),
                                 .common_name = name,
                                 .trust_domain = trust_domain};
    assert_ok(certs_serial_new(spec.serial, err));
    assert_ok(certs_intermediate_tbs(&spec, root, &tbs, digest, err));
    X509 *cert = sign(&tbs, root, root_key);
    att_buf_done(&tbs);
    return cert;
}

static inline void ca_init(struct ca *ca, const char *trust_domain)
{
    assert_ok(certs_key_generate(&ca->root_key, err));
    assert_ok(certs_key_generate(&ca->key, err));
    ca->root = make_root(ca->root_key, "test root");
    ca->cert = make_intermediate(ca->key, trust_domain, ca->root, ca->root_key);
}

static inline void ca_done(struct ca *ca)
{
    EVP_PKEY_free(ca->root_key);
    EVP_PKEY_free(ca->key);
    X509_free(ca->root);
    X509_free(ca->cert);
}

static inline struct certs_leaf_spec leaf_spec(struct att_slice spki)
{
    struct certs_leaf_spec spec = {.validity = certs_validity_from(att_now_utc_s(), 3600),
                                   .spki = spki,
                                   .spiffe_id = ID,
                                   .holding = {CERTS_STORE_TPM, "ovmf-guest", {1, 2, 3}}};
    assert_ok(certs_serial_new(spec.serial, err));
    return spec;
}

static inline X509 *make_leaf_as(const struct ca *ca, EVP_PKEY *key, const char *id)
{
    uint8_t buf[CERTS_SPKI_MAX], digest[ATT_SHA256_LEN];
    struct att_buf tbs = {0};
    struct certs_leaf_spec spec = leaf_spec(spki_of(key, buf));
    spec.spiffe_id = id;
    struct certs_cert_info issuer; /* made seconds ago on a slow machine */
    assert_ok(certs_cert_info(ca->cert, &issuer, err));
    if (spec.validity.not_after > issuer.not_after) {
        spec.validity.not_after = issuer.not_after;
    }
    assert_ok(certs_leaf_tbs(&spec, ca->cert, &tbs, digest, err));
    X509 *cert = sign(&tbs, ca->cert, ca->key);
    att_buf_done(&tbs);
    return cert;
}

static inline X509 *make_leaf(const struct ca *ca, EVP_PKEY *key)
{
    return make_leaf_as(ca, key, ID);
}

static inline X509 *make_server(const struct ca *ca, EVP_PKEY *key)
{
    uint8_t buf[CERTS_SPKI_MAX], digest[ATT_SHA256_LEN];
    static const char *const names[] = {"localhost", "127.0.0.1", "::1"};
    struct att_buf tbs = {0};
    struct certs_server_spec spec = {.validity = certs_validity_from(att_now_utc_s(), 30 * DAY),
                                     .spki = spki_of(key, buf),
                                     .names = names,
                                     .n_names = 3};
    assert_ok(certs_serial_new(spec.serial, err));
    assert_ok(certs_server_tbs(&spec, ca->cert, &tbs, digest, err));
    X509 *cert = sign(&tbs, ca->cert, ca->key);
    att_buf_done(&tbs);
    return cert;
}

static inline X509 *make_ak(const struct ca *ca, EVP_PKEY *key)
{
    uint8_t buf[CERTS_SPKI_MAX], digest[ATT_SHA256_LEN];
    struct att_buf tbs = {0};
    struct certs_ak_spec spec = {.validity = certs_validity_from(att_now_utc_s(), 7 * DAY),
                                 .spki = spki_of(key, buf),
                                 .ek_id = EK,
                                 .manufacturer = "id:00001014",
                                 .model = "swtpm",
                                 .version = "id:20191023"};
    assert_ok(certs_serial_new(spec.serial, err));
    assert_ok(certs_ak_tbs(&spec, ca->cert, &tbs, digest, err));
    X509 *cert = sign(&tbs, ca->cert, ca->key);
    att_buf_done(&tbs);
    return cert;
}

/* A stack with its own references; n certificates. */
static inline STACK_OF(X509) * stack_of(size_t n, ...)
{
    STACK_OF(X509) *stack = sk_X509_new_null();
    va_list ap;
    va_start(ap, n);
    for (size_t i = 0; i < n; i++) {
        X509 *cert = va_arg(ap, X509 *);
        assert_int_equal(X509_up_ref(cert), 1);
        assert_true(sk_X509_push(stack, cert) > 0);
    }
    va_end(ap);
    return stack;
}

static inline void temp_dir(char ret[256])
{
    const char *base = getenv("TMPDIR");
    snprintf(ret, 256, "%s/att-certs-XXXXXX", base && strlen(base) < 200 ? base : "/tmp");
    assert_non_null(mkdtemp(ret));
}

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static inline void temp_remove(const char *dir)
{
    assert_int_equal(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static inline void path_in(char ret[512], const char *dir, const char *file)
{
    assert_true(snprintf(ret, 512, "%s/%s", dir, file) < 512);
}

static inline void write_pem(const char *dir, const char *file, const STACK_OF(X509) * certs)
{
    char path[512];
    struct att_buf pem = {0};
    path_in(path, dir, file);
    assert_ok(certs_pem_dump_all(certs, &pem, err));
    assert_ok(att_io_write_file(path, att_buf_slice(&pem), 0644, err));
    att_buf_done(&pem);
}

#endif
