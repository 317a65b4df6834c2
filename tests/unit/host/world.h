/* A root with a view signer and a TLS server, and views that it signs. */
#ifndef TESTS_UNIT_HOST_WORLD_H
#define TESTS_UNIT_HOST_WORLD_H

#include "attestd/base/clock.h"
#include "certs/build.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "provision/acme/jws.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#define WORLD __attribute__((unused)) static

/* And a workload root. */
struct world {
    EVP_PKEY *root_key, *signer_key, *server_key, *workload_key;
    struct att_buf root, signer, server, workload, workload_pem;
};

WORLD EVP_PKEY *new_key(struct att_buf *ret_spki)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(key, &der);
    assert_true(len > 0);
    att_buf_put(ret_spki, der, (size_t)len);
    OPENSSL_free(der);
    return key;
}

WORLD void make_root(EVP_PKEY **ret_key, struct att_buf *ret_der, const char *name)
{
    att_autobuf spki = {0}, tbs = {0};
    uint8_t digest[ATT_SHA256_LEN];
    *ret_key = new_key(&spki);
    struct certs_ca_spec spec = {.validity = certs_validity_from(att_now_utc_s(), 86400),
                                 .spki = att_buf_slice(&spki),
                                 .common_name = name};
    assert_int_equal(certs_serial_new(spec.serial, NULL), ATT_OK);
    assert_int_equal(certs_root_tbs(&spec, &tbs, digest, NULL), ATT_OK);
    assert_int_equal(certs_tbs_sign(att_buf_slice(&tbs), *ret_key, ret_der, NULL), ATT_OK);
}

WORLD void make_leaf(const struct world *w, bool server, EVP_PKEY **ret_key, struct att_buf *ret)
{
    att_autobuf spki = {0}, tbs = {0};
    uint8_t digest[ATT_SHA256_LEN], serial[CERTS_SERIAL_LEN];
    certs_autox509 *ca = NULL;
    *ret_key = new_key(&spki);
    assert_int_equal(certs_cert_parse(att_buf_slice(&w->root), &ca, NULL), ATT_OK);
    assert_int_equal(certs_serial_new(serial, NULL), ATT_OK);
    struct certs_validity validity = certs_validity_from(att_now_utc_s(), 3600);
    if (server) {
        const char *const names[] = {"127.0.0.1"};
        struct certs_server_spec spec = {
            .validity = validity, .spki = att_buf_slice(&spki), .names = names, .n_names = 1};
        memcpy(spec.serial, serial, sizeof(serial));
        assert_int_equal(certs_server_tbs(&spec, ca, &tbs, digest, NULL), ATT_OK);
    } else {
        struct certs_signer_spec spec = {
            .validity = validity, .spki = att_buf_slice(&spki), .common_name = "view"};
        memcpy(spec.serial, serial, sizeof(serial));
        assert_int_equal(certs_view_signer_tbs(&spec, ca, &tbs, digest, NULL), ATT_OK);
    }
    assert_int_equal(certs_tbs_sign(att_buf_slice(&tbs), w->root_key, ret, NULL), ATT_OK);
}

WORLD int world_setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    make_root(&w->root_key, &w->root, "TLS root");
    make_root(&w->workload_key, &w->workload, "workload root");
    make_leaf(w, false, &w->signer_key, &w->signer);
    make_leaf(w, true, &w->server_key, &w->server);
    certs_autox509 *root = NULL;
    assert_int_equal(certs_cert_parse(att_buf_slice(&w->workload), &root, NULL), ATT_OK);
    assert_int_equal(certs_pem_dump(root, &w->workload_pem, NULL), ATT_OK);
    *state = w;
    return 0;
}

WORLD int world_teardown(void **state)
{
    struct world *w = *state;
    EVP_PKEY_free(w->root_key);
    EVP_PKEY_free(w->signer_key);
    EVP_PKEY_free(w->server_key);
    EVP_PKEY_free(w->workload_key);
    att_buf_done(&w->root);
    att_buf_done(&w->signer);
    att_buf_done(&w->server);
    att_buf_done(&w->workload);
    att_buf_done(&w->workload_pem);
    free(w);
    return 0;
}

WORLD void sign(const char *typ, EVP_PKEY *key, const struct att_buf *leaf,
                const struct att_buf *root, const json_t *json, struct att_buf *ret)
{
    const struct att_slice chain[] = {att_buf_slice(leaf), att_buf_slice(root)};
    att_autobuf text = {0}, header = {0};
    struct acme_signer signer = acme_signer_pkey(key);
    assert_int_equal(att_json_dump(json, false, &text, NULL), ATT_OK);
    assert_int_equal(acme_jws_protected_x5c(typ, chain, 2, &header, NULL), ATT_OK);
    assert_int_equal(
        acme_jws_sign(&signer, att_buf_slice(&header), att_buf_slice(&text), ret, NULL), ATT_OK);
}

#endif
