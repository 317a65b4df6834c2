/* A file of revocation lists is taken whole, or not at all. */
#include "provision/issuer/admin_certs.h"

#include "attestd/base/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LISTS_MAX 64

static EVP_PKEY *key;
static char dir[64], roots[96], lists[96];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/client-crls-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(roots, sizeof roots, "%s/roots.pem", dir);
    snprintf(lists, sizeof lists, "%s/lists.pem", dir);
    key = EVP_EC_gen("P-256");
    X509 *root = X509_new();
    BASIC_CONSTRAINTS constraints = {.ca = 1};
    X509_NAME *name = X509_NAME_new();
    assert_true(key && root && name);
    assert_true(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)"staff",
                                           -1, -1, 0));
    assert_true(X509_set_version(root, X509_VERSION_3) &&
                ASN1_INTEGER_set(X509_get_serialNumber(root), 1) &&
                X509_set_subject_name(root, name) && X509_set_issuer_name(root, name) &&
                X509_gmtime_adj(X509_getm_notBefore(root), 0) &&
                X509_gmtime_adj(X509_getm_notAfter(root), 86400) && X509_set_pubkey(root, key) &&
                X509_add1_ext_i2d(root, NID_basic_constraints, &constraints, 1, 0) == 1 &&
                X509_sign(root, key, EVP_sha256()));
    FILE *out = fopen(roots, "w");
    assert_true(out && PEM_write_X509(out, root));
    assert_int_equal(fclose(out), 0);
    X509_NAME_free(name);
    X509_free(root);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(roots);
    unlink(lists);
    rmdir(dir);
    EVP_PKEY_free(key);
    return 0;
}

/* Each list is another CA's: an X509_STORE takes no list twice. */
static void add_list(FILE *out, int n, bool next)
{
    X509_CRL *crl = X509_CRL_new();
    X509_NAME *name = X509_NAME_new();
    ASN1_TIME *now = X509_gmtime_adj(NULL, 0), *then = X509_gmtime_adj(NULL, 3600);
    char text[24];
    snprintf(text, sizeof text, "staff %d", n);
    assert_true(
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (unsigned char *)text, -1, -1, 0));
    assert_true(X509_CRL_set_version(crl, X509_CRL_VERSION_2) &&
                X509_CRL_set_issuer_name(crl, name) && X509_CRL_set1_lastUpdate(crl, now) &&
                (!next || X509_CRL_set1_nextUpdate(crl, then)) &&
                X509_CRL_sign(crl, key, EVP_sha256()) && PEM_write_X509_CRL(out, crl));
    ASN1_TIME_free(now);
    ASN1_TIME_free(then);
    X509_NAME_free(name);
    X509_CRL_free(crl);
}

static void is(enum att_rc want, const char *text)
{
    struct issuer_client_ca *ca = NULL;
    struct att_err err = {0};
    assert_int_equal(issuer_client_ca_new(roots, lists, &ca, &err), want);
    assert_non_null(strstr(err.msg, text));
    issuer_client_ca_free(ca);
}

static void what_follows_a_bad_block_is_not_dropped(void **state)
{
    (void)state;
    FILE *out = fopen(lists, "w");
    assert_non_null(out);
    add_list(out, 1, true);
    fputs("-----BEGIN X509 CRL-----\nnot base64 at all!\n-----END X509 CRL-----\n", out);
    add_list(out, 2, true);
    assert_int_equal(fclose(out), 0);
    is(ATT_E_PARSE, "PEM block 2");
    /* DER that is no list. */
    out = fopen(lists, "w");
    assert_non_null(out);
    add_list(out, 1, true);
    fputs("-----BEGIN X509 CRL-----\nMAMCAQE=\n-----END X509 CRL-----\n", out);
    assert_int_equal(fclose(out), 0);
    is(ATT_E_PARSE, "PEM block 2");
    /* Cut off. */
    out = fopen(lists, "w");
    assert_non_null(out);
    add_list(out, 1, true);
    fputs("-----BEGIN X509 CRL-----\nMAMCAQE=\n", out);
    assert_int_equal(fclose(out), 0);
    is(ATT_E_PARSE, "PEM block 2");
    /* None. */
    out = fopen(lists, "w");
    assert_non_null(out);
    assert_int_equal(fclose(out), 0);
    is(ATT_E_PARSE, "PEM block 1");
}

static void there_are_so_many(void **state)
{
    (void)state;
    for (int n = LISTS_MAX; n <= LISTS_MAX + 1; n++) {
        FILE *out = fopen(lists, "w");
        assert_non_null(out);
        for (int i = 0; i < n; i++) {
            add_list(out, i, true);
        }
        fputs("And a word behind them.\n", out);
        assert_int_equal(fclose(out), 0);
        is(n > LISTS_MAX ? ATT_E_LIMIT : ATT_OK, n > LISTS_MAX ? "more than 64" : "");
    }
}

static void a_list_says_when_it_ends(void **state)
{
    (void)state;
    FILE *out = fopen(lists, "w");
    assert_non_null(out);
    add_list(out, 1, true);
    add_list(out, 2, false);
    assert_int_equal(fclose(out), 0);
    is(ATT_E_PARSE, "PEM block 2: the list has no nextUpdate");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_follows_a_bad_block_is_not_dropped),
        cmocka_unit_test(there_are_so_many),
        cmocka_unit_test(a_list_says_when_it_ends),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
