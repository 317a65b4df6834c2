/* tpm/ek, tpm/nv: endorsement keys of every kind that swtpm and we can make, their certificates,
 * and credentials activated with them. */
#include "attestd/base/io.h"
#include "tests/unit/att_tpm/common.h"
#include "tpm/ak.h"
#include "tpm/ek.h"
#include "tpm/nv.h"
#include "tpm/parse/makecred.h"
#include "tpm/session.h"

#include <openssl/pem.h>
#include <openssl/x509.h>

struct sealed_credential {
    struct att_buf blob, secret;
    uint8_t value[32];
};

static void make_credential(struct tpm_context *ctx, const struct tpm_ek *ek,
                            struct sealed_credential *ret)
{
    struct parse_public pub;
    tpm_autoak ak = {0};
    *ret = (struct sealed_credential){0};
    assert_ok(att_random(ret->value, sizeof(ret->value), err));
    assert_ok(parse_public_parse(att_buf_slice(&ek->pub), &pub, err));
    assert_ok(tpm_ak_get(ctx, &ak, err));
    assert_ok(parse_makecred_create(&pub, ATT_SLICE_ARRAY(ret->value), &ak.name, &ret->blob,
                                    &ret->secret, err));
}

static void credential_done(struct sealed_credential *c)
{
    att_buf_done(&c->blob);
    att_buf_done(&c->secret);
}

/* Finds it, checks it against its certificate, and solves a challenge, twice. */
static void find_and_activate(const struct swtpm *tpm, enum parse_ek_template only,
                              enum parse_ek_template want, bool cert, bool persistent)
{
    struct tpm_context *ctx = open_tpm(tpm);
    tpm_autoek ek = {0};
    assert_ok(find_ek(ctx, only, &ek, err));
    assert_int_equal(ek.kind, want);
    assert_int_equal(ek.cert.len != 0, cert);
    assert_int_equal(ek.persistent != 0, persistent);
    for (unsigned i = 0; i < 2; i++) {
        struct sealed_credential c;
        att_autobuf value = {0};
        make_credential(ctx, &ek, &c);
        assert_ok(tpm_ek_activate(ctx, &ek, att_buf_slice(&c.blob), att_buf_slice(&c.secret),
                                  &value, err));
        assert_true(att_slice_eq(att_buf_slice(&value), ATT_SLICE_ARRAY(c.value)));
        credential_done(&c);
    }
    /* Policy sessions and the EK are gone again. */
    assert_int_equal(count(ctx, TPM_HANDLES_LOADED_SESSION), 1);
    assert_true(count(ctx, TPM_HANDLES_TRANSIENT) <= 2);
    tpm_context_free(ctx);
}

static X509 *to_x509(const struct att_buf *der)
{
    const unsigned char *p = der->ptr;
    X509 *cert = d2i_X509(NULL, &p, (long)der->len);
    assert_non_null(cert);
    assert_ptr_equal(p, der->ptr + der->len);
    return cert;
}

/* ---- refusals ---------------------------------------------------------------------------------
 */

static void refuses_wrong_credentials(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoek p384 = {0}, rsa = {0};
    struct sealed_credential c;
    att_autobuf value = {0};
    (void)state;
    assert_ok(find_ek(ctx, PARSE_EK_H3, &p384, err));
    assert_ok(find_ek(ctx, PARSE_EK_L1, &rsa, err));
    make_credential(ctx, &p384, &c);
    struct att_slice blob = att_buf_slice(&c.blob), secret = att_buf_slice(&c.secret);
    /* for another EK */
    assert_refused(tpm_ek_activate(ctx, &rsa, blob, secret, &value, err), ATT_E_AUTH, "activation");
    /* altered, in every part */
    for (size_t at = 2; at < c.blob.len; at += 7) {
        c.blob.ptr[at] ^= 1;
        struct att_err err = {0};
        assert_int_equal(tpm_ek_activate(ctx, &p384, blob, secret, &value, &err), ATT_E_AUTH);
        assert_string_equal(err.reason, "activation");
        c.blob.ptr[at] ^= 1;
    }
    c.secret.ptr[c.secret.len - 1] ^= 1;
    assert_refused(tpm_ek_activate(ctx, &p384, blob, secret, &value, err), ATT_E_AUTH,
                   "activation");
    c.secret.ptr[c.secret.len - 1] ^= 1;
    /* sizes that do not fit */
    assert_refused(
        tpm_ek_activate(ctx, &p384, ATT_SLICE(blob.ptr, blob.len - 1), secret, &value, err),
        ATT_E_PARSE, "");
    assert_refused(tpm_ek_activate(ctx, &p384, (struct att_slice){0}, secret, &value, err),
                   ATT_E_PARSE, "");
    assert_refused(tpm_ek_activate(ctx, &p384, blob, ATT_SLICE(secret.ptr, 1), &value, err),
                   ATT_E_PARSE, "");
    assert_int_equal(value.len, 0);
    assert_int_equal(count(ctx, TPM_HANDLES_LOADED_SESSION), 1);
    assert_ok(tpm_ek_activate(ctx, &p384, blob, secret, &value, err));
    credential_done(&c);
    /* made for another AK: any other Name */
    struct parse_public pub;
    struct parse_name other = {0};
    att_autobuf blob2 = {0}, secret2 = {0};
    assert_ok(parse_public_parse(att_buf_slice(&p384.pub), &pub, err));
    assert_ok(tpm_context_srk(ctx, NULL, &other, NULL, err));
    assert_ok(parse_makecred_create(&pub, ATT_SLICE_LIT("x"), &other, &blob2, &secret2, err));
    assert_refused(
        tpm_ek_activate(ctx, &p384, att_buf_slice(&blob2), att_buf_slice(&secret2), &value, err),
        ATT_E_AUTH, "activation");
    tpm_context_free(ctx);
}

static void nv_refusals(void **state)
{
    struct tpm_context *ctx;
    att_autobuf bytes = {0};
    (void)state;
    assert_int_equal(swtpm_sh(&the_tpm, "tpm2_nvdefine 0x01800001 -C o -s 4 -a "
                                        "'ownerwrite|ownerread|no_da'\n"
                                        "tpm2_nvdefine 0x01800002 -C o -s 4 -a "
                                        "'ownerwrite|policyread|no_da'\n"
                                        "printf abcd | tpm2_nvwrite 0x01800002 -C o -i -"),
                     0);
    ctx = open_tpm(&the_tpm);
    assert_refused(tpm_nv_read(ctx, 0x01c0000a, 64, &bytes, err), ATT_E_NOTFOUND, "");
    assert_refused(tpm_nv_read(ctx, 0x81010001, 64, &bytes, err), ATT_E_INVAL, "");
    assert_refused(tpm_nv_read(ctx, 0x01c00002, 64, &bytes, err), ATT_E_LIMIT, "");
    assert_refused(tpm_nv_read(ctx, 0x01800001, 64, &bytes, err), ATT_E_CONFLICT, "");
    assert_refused(tpm_nv_read(ctx, 0x01800002, 64, &bytes, err), ATT_E_DENIED, "");
    uint32_t indices[4];
    size_t n = 0;
    assert_refused(tpm_nv_list(ctx, 0x01800002, 0x01800001, indices, 4, &n, err), ATT_E_INVAL, "");
    assert_ok(tpm_nv_list(ctx, 0x01800000, 0x0180ffff, indices, 4, &n, err));
    assert_int_equal(n, 2);
    assert_int_equal(indices[1], 0x01800002);
    assert_int_equal(bytes.len, 0);
    tpm_context_free(ctx);
    assert_int_equal(swtpm_sh(&the_tpm, "printf abcd | tpm2_nvwrite 0x01800001 -C o -i -"), 0);
    ctx = open_tpm(&the_tpm);
    assert_ok(tpm_nv_read(ctx, 0x01800001, 64, &bytes, err)); /* by the owner */
    assert_true(att_slice_eq_str(att_buf_slice(&bytes), "abcd"));
    tpm_context_free(ctx);
    assert_int_equal(swtpm_sh(&the_tpm, "tpm2_nvundefine 0x01800001 -C o; "
                                        "tpm2_nvundefine 0x01800002 -C o"),
                     0);
}

/* ---- what works -------------------------------------------------------------------------------
 */

static void reads_certificates_exactly(void **state)
{
    struct tpm_context *ctx = open_tpm(&the_tpm);
    tpm_autoekcerts certs = {0};
    X509_STORE *store = X509_STORE_new();
    (void)state;
    assert_int_equal(X509_STORE_load_file(store, the_tpm.ek_roots), 1);
    assert_ok(tpm_ek_read_certs(ctx, &certs, err));
    assert_int_equal(certs.certs_count, 2);
    assert_int_equal(certs.chain_count, 0);
    assert_int_equal(certs.certs[0].nv_index, 0x01c00002);
    assert_int_equal(certs.certs[0].kind, PARSE_EK_L1);
    assert_int_equal(certs.certs[1].nv_index, 0x01c00016);
    assert_int_equal(certs.certs[1].kind, PARSE_EK_H3);
    for (size_t i = 0; i < 2; i++) {
        X509 *cert = to_x509(&certs.certs[i].der);
        X509_STORE_CTX *verify = X509_STORE_CTX_new();
        assert_int_equal(X509_STORE_CTX_init(verify, store, cert, NULL), 1);
        assert_int_equal(X509_verify_cert(verify), 1);
        X509_STORE_CTX_free(verify);
        X509_free(cert);
    }
    X509_STORE_free(store);
    tpm_context_free(ctx);
}

static void prefers_p384_over_rsa(void **state)
{
    (void)state;
    find_and_activate(&the_tpm, PARSE_EK_NONE, PARSE_EK_H3, true, true);
}

static void activates_with_rsa(void **state)
{
    (void)state;
    find_and_activate(&the_tpm, PARSE_EK_L1, PARSE_EK_L1, true, true);
}

static void activates_with_other_templates(void **state)
{
    (void)state;
    find_and_activate(&the_tpm, PARSE_EK_L2, PARSE_EK_L2, false, false);
    find_and_activate(&the_tpm, PARSE_EK_H2, PARSE_EK_H2, false, false);
    find_and_activate(&the_tpm, PARSE_EK_H1, PARSE_EK_H1, false, false);
}

static void recreates_missing_persistent_keys(void **state)
{
    struct swtpm tpm = {0};
    (void)state;
    assert_ok(swtpm_new(&tpm, NULL, err));
    assert_int_equal(swtpm_sh(&tpm, "tpm2_evictcontrol -C p -c 0x81010001 || "
                                    "tpm2_evictcontrol -C o -c 0x81010001"),
                     0);
    assert_int_equal(swtpm_sh(&tpm, "tpm2_evictcontrol -C p -c 0x81010016 || "
                                    "tpm2_evictcontrol -C o -c 0x81010016"),
                     0);
    find_and_activate(&tpm, PARSE_EK_NONE, PARSE_EK_H3, true, false);
    find_and_activate(&tpm, PARSE_EK_L1, PARSE_EK_L1, true, false);
    swtpm_done(&tpm);
}

/* The certificate of an RSA EK is all there is, as in most TPMs with firmware from before 2018. */
static void an_rsa_only_ek_does(void **state)
{
    struct swtpm tpm = {0};
    (void)state;
    assert_ok(swtpm_new(&tpm, NULL, err));
    assert_int_equal(swtpm_sh(&tpm, "tpm2_nvundefine 0x01c00016 -C p || "
                                    "tpm2_nvundefine 0x01c00016 -C o"),
                     0);
    assert_int_equal(swtpm_sh(&tpm, "tpm2_evictcontrol -C p -c 0x81010016 || "
                                    "tpm2_evictcontrol -C o -c 0x81010016"),
                     0);
    find_and_activate(&tpm, PARSE_EK_NONE, PARSE_EK_L1, true, true);
    swtpm_done(&tpm);
}

static void works_without_certificates(void **state)
{
    struct swtpm tpm = {0};
    struct swtpm_options options = {.no_ek_cert = true};
    (void)state;
    assert_ok(swtpm_new(&tpm, &options, err));
    find_and_activate(&tpm, PARSE_EK_NONE, PARSE_EK_L2, false, false);
    swtpm_done(&tpm);
}

/* A certificate that is not for this TPM's key: that kind is passed over, and named when it is the
 * only one. */
static void refuses_a_certificate_for_another_key(void **state)
{
    struct swtpm tpm = {0}, other = {0};
    struct tpm_context *ctx;
    tpm_autoekcerts certs = {0};
    tpm_autoek ek = {0};
    char path[SWTPM_PATH + 32];
    (void)state;
    assert_ok(swtpm_new(&other, NULL, err));
    ctx = open_tpm(&other);
    assert_ok(tpm_ek_read_certs(ctx, &certs, err));
    tpm_context_free(ctx);
    struct swtpm_options options = {.no_ek_cert = true};
    assert_ok(swtpm_new(&tpm, &options, err));
    (void)snprintf(path, sizeof(path), "%s/foreign.der", tpm.dir);
    assert_ok(att_io_write_file(path, att_buf_slice(&certs.certs[1].der), 0600, err));
    assert_int_equal(swtpm_sh(&tpm,
                              "tpm2_nvdefine 0x01c00016 -C o -s 1200 -a "
                              "'ownerwrite|ownerread|authread|no_da'\n"
                              "{ cat foreign.der; head -c 1200 /dev/zero | tr '\\000' '\\377'; } | "
                              "head -c 1200 > padded\n"
                              "tpm2_nvwrite 0x01c00016 -C o -i padded"),
                     0);
    ctx = open_tpm(&tpm);
    assert_refused(find_ek(ctx, PARSE_EK_NONE, &ek, err), ATT_E_DENIED, "ekCertMismatch");
    assert_refused(find_ek(ctx, PARSE_EK_H3, &ek, err), ATT_E_DENIED, "ekCertMismatch");
    /* the padding was not taken for a part of it */
    tpm_autoekcerts again = {0};
    assert_ok(tpm_ek_read_certs(ctx, &again, err));
    assert_int_equal(again.certs_count, 1);
    assert_true(
        att_slice_eq(att_buf_slice(&again.certs[0].der), att_buf_slice(&certs.certs[1].der)));
    tpm_context_free(ctx);
    swtpm_done(&tpm);
    swtpm_done(&other);
}

/* A P-256 EK with a certificate is what we like best; a chain in NV is split at its certificates;
 * an index with rubbish is passed over. */
static void prefers_p256_and_reads_chains(void **state)
{
    struct swtpm tpm = {0};
    struct tpm_context *ctx;
    tpm_autoek ek = {0};
    tpm_autoekcerts certs = {0};
    struct parse_public pub;
    EVP_PKEY *pkey = NULL;
    char path[SWTPM_PATH + 32];
    (void)state;
    assert_ok(swtpm_new(&tpm, NULL, err));
    ctx = open_tpm(&tpm);
    assert_ok(find_ek(ctx, PARSE_EK_L2, &ek, err));
    assert_int_equal(ek.cert.len, 0);
    assert_ok(parse_public_parse(att_buf_slice(&ek.pub), &pub, err));
    assert_ok(parse_public_pkey(&pub, &pkey, err));
    (void)snprintf(path, sizeof(path), "%s/p256.pem", tpm.dir);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_PUBKEY(file, pkey), 1);
    (void)fclose(file);
    EVP_PKEY_free(pkey);
    tpm_context_free(ctx);
    assert_int_equal(
        swtpm_sh(&tpm,
                 "openssl ecparam -genkey -name prime256v1 -noout -out tmp.key\n"
                 "openssl req -new -key tmp.key -subj / -out tmp.csr\n"
                 "openssl x509 -req -in tmp.csr -CA ca/issuercert.pem -CAkey ca/signkey.pem "
                 "-force_pubkey p256.pem -set_serial 77 -days 30 -outform DER -out p256.der\n"
                 "openssl x509 -in ca/issuercert.pem -outform DER -out chain\n"
                 "openssl x509 -in ca/swtpm-localca-rootca-cert.pem -outform DER >> chain\n"
                 "split -b 1500 -d -a 1 chain part\n"
                 "for i in 0 1; do tpm2_nvdefine 0x01c0010$i -C o -s $(stat -c %s part$i) -a "
                 "'ownerwrite|ownerread|authread|no_da'; tpm2_nvwrite 0x01c0010$i -C o -i part$i; "
                 "done\n"
                 "tpm2_nvdefine 0x01c0000a -C o -s $(stat -c %s p256.der) -a "
                 "'ownerwrite|ownerread|authread|no_da'\n"
                 "tpm2_nvwrite 0x01c0000a -C o -i p256.der\n"
                 "tpm2_nvdefine 0x01c00014 -C o -s 5 -a 'ownerwrite|ownerread|authread|no_da'\n"
                 "printf 12345 | tpm2_nvwrite 0x01c00014 -C o -i -\n"),
        0);
    find_and_activate(&tpm, PARSE_EK_NONE, PARSE_EK_L2, true, false);
    ctx = open_tpm(&tpm);
    assert_ok(tpm_ek_read_certs(ctx, &certs, err));
    assert_int_equal(certs.certs_count, 3);
    assert_int_equal(certs.chain_count, 2);
    for (size_t i = 0; i < 2; i++) {
        X509_free(to_x509(&certs.chain[i]));
    }
    tpm_context_free(ctx);
    swtpm_done(&tpm);
}

static void uses_the_endorsement_authorisation(void **state)
{
    struct swtpm tpm = {0};
    struct tpm_context *ctx = NULL;
    tpm_autoek ek = {0};
    tpm_autoak ak = {0};
    struct sealed_credential c;
    att_autobuf value = {0};
    (void)state;
    assert_ok(swtpm_new(&tpm, NULL, err));
    assert_int_equal(swtpm_sh(&tpm, "tpm2_changeauth -c e endorse"), 0);
    ctx = open_tpm(&tpm);
    assert_refused(tpm_ak_get(ctx, &ak, err), ATT_E_AUTH, "");
    tpm_context_free(ctx);
    struct tpm_options options = {.tcti = tpm.tcti, .endorsement_auth = ATT_SLICE_LIT("endorse")};
    assert_ok(tpm_context_open(&options, &ctx, err));
    for (unsigned i = 0; i < 2; i++) {
        assert_ok(find_ek(ctx, i == 0 ? PARSE_EK_H3 : PARSE_EK_L1, &ek, err));
        make_credential(ctx, &ek, &c);
        assert_ok(tpm_ek_activate(ctx, &ek, att_buf_slice(&c.blob), att_buf_slice(&c.secret),
                                  &value, err));
        assert_true(att_slice_eq(att_buf_slice(&value), ATT_SLICE_ARRAY(c.value)));
        credential_done(&c);
        att_buf_reset(&value);
        tpm_ek_done(&ek);
        ek = (struct tpm_ek){0};
    }
    assert_true(count(ctx, TPM_HANDLES_LOADED_SESSION) <= 1);
    tpm_context_free(ctx);
    swtpm_done(&tpm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_wrong_credentials),
        cmocka_unit_test(nv_refusals),
        cmocka_unit_test(refuses_a_certificate_for_another_key),
        cmocka_unit_test(reads_certificates_exactly),
        cmocka_unit_test(prefers_p384_over_rsa),
        cmocka_unit_test(activates_with_rsa),
        cmocka_unit_test(activates_with_other_templates),
        cmocka_unit_test(recreates_missing_persistent_keys),
        cmocka_unit_test(an_rsa_only_ek_does),
        cmocka_unit_test(works_without_certificates),
        cmocka_unit_test(prefers_p256_and_reads_chains),
        cmocka_unit_test(uses_the_endorsement_authorisation),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
