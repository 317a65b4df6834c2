/* What spiffed is told: a revocation list that is longer than a frame, and a number that moves with
 * everything that is in force. */
#include "attestd/host/internal.h"
#include "attestd/proc/workload_proto.h"

#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static struct host *host;
static struct proc_msg msg;
static char file[64];
static uint8_t *kept; /* what msg borrows from */

static X509 *make_named_ca(const char *cn, EVP_PKEY **ret_key)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *ca = X509_new();
    X509_NAME *name = X509_get_subject_name(ca);
    X509_set_version(ca, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(ca), 1);
    X509_gmtime_adj(X509_getm_notBefore(ca), 0);
    X509_gmtime_adj(X509_getm_notAfter(ca), 3600);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const uint8_t *)cn, -1, -1, 0);
    X509_set_issuer_name(ca, name);
    X509_set_pubkey(ca, key);
    ASN1_OCTET_STRING *id = ASN1_OCTET_STRING_new();
    ASN1_OCTET_STRING_set(id, (const uint8_t *)"0123456789abcdefghij", 20);
    X509_add1_ext_i2d(ca, NID_subject_key_identifier, id, 0, 0);
    ASN1_OCTET_STRING_free(id);
    assert_true(X509_sign(ca, key, EVP_sha256()) > 0);
    *ret_key = key;
    return ca;
}

static X509 *make_ca(EVP_PKEY **ret_key)
{
    return make_named_ca("ca", ret_key);
}

/* A list of n certificates. */
static X509_CRL *make_crl_of(const char *cn, size_t n, uint64_t number)
{
    EVP_PKEY *key;
    X509 *ca = make_named_ca(cn, &key);
    struct certs_crl_entry *entries = calloc(n, sizeof *entries);
    struct certs_crl_spec spec = {.this_update = att_now_utc_s(),
                                  .next_update = att_now_utc_s() + 3600,
                                  .number = number,
                                  .entries = entries,
                                  .n_entries = n};
    att_autobuf der = ATT_BUF_INIT(CERTS_CRL_MAX);
    X509_CRL *crl = NULL;
    for (size_t i = 0; i < n; i++) {
        entries[i] = (struct certs_crl_entry){.serial_len = 16, .revoked_at = spec.this_update};
        memset(entries[i].serial, 0x11, 16);
        memcpy(entries[i].serial, &(uint32_t){(uint32_t)i + 1}, 4);
        entries[i].serial[0] |= 1;
        entries[i].serial[0] &= 0x7f;
    }
    struct att_err err = {0};
    if (certs_crl_create(&spec, ca, key, &der, &err) != ATT_OK ||
        certs_crl_parse(att_buf_slice(&der), &crl, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
    free(entries);
    X509_free(ca);
    EVP_PKEY_free(key);
    return crl;
}

static X509_CRL *make_crl(size_t n, uint64_t number)
{
    return make_crl_of("ca", n, number);
}

static void keep_list(X509_CRL *crl, struct att_buf *pem)
{
    uint8_t *der = NULL;
    int len = i2d_X509_CRL(crl, &der);
    assert_int_equal(certs_crl_dump(ATT_SLICE(der, (size_t)len), pem, NULL), ATT_OK);
    OPENSSL_free(der);
}

/* One more list in force. */
static void have_list(X509_CRL *crl, uint64_t number)
{
    struct host_crl *one = &host->crls.v[host->crls.n++];
    snprintf(one->file, sizeof one->file, "list-%zu.crl", host->crls.n);
    one->crl = crl;
    one->info.number = number;
}

static int setup(void **state)
{
    EVP_PKEY *key;
    (void)state;
    host = calloc(1, sizeof *host);
    pthread_mutex_init(&host->lock, NULL);
    pthread_cond_init(&host->changed, NULL);
    host->bundle = sk_X509_new_null();
    sk_X509_push(host->bundle, make_ca(&key));
    EVP_PKEY_free(key);
    strcpy(host->trust_domain, "bank.example");
    snprintf(file, sizeof file, "/tmp/att-standing.%d", (int)getpid());
    host->paths.crl = file;
    atomic_store(&host->stop, true); /* WATCH answers at once */
    return agent_registry_new(&host->reg, NULL) == ATT_OK ? 0 : 1;
}

static int teardown(void **state)
{
    (void)state;
    sk_X509_pop_free(host->bundle, X509_free);
    host_crls_done(&host->crls);
    agent_registry_free(host->reg);
    pthread_cond_destroy(&host->changed);
    pthread_mutex_destroy(&host->lock);
    free(host);
    free(kept);
    kept = NULL;
    unlink(file);
    return 0;
}

static enum att_rc ask(uint16_t which, uint64_t first, uint64_t second, struct att_err *err)
{
    const struct proc_op *op = proc_op_find(proc_workload_table, which);
    const struct proc_value values[] = {{.num = first}, {.num = second}};
    att_autobuf payload = ATT_BUF_INIT(PROC_FRAME_MAX);
    enum att_rc rc = host_standing_answer(host, op, values, &payload, err);
    if (rc == ATT_OK) {
        free(kept);
        size_t len;
        kept = att_buf_steal(&payload, &len);
        rc = proc_reply_parse(op, ATT_SLICE(kept, len), &msg, err);
    }
    return rc;
}

static uint64_t standing(void)
{
    assert_int_equal(ask(PROC_WORKLOAD_WATCH, 0, 0, NULL), ATT_OK);
    assert_true(msg.v[PROC_WORKLOAD_WATCH_REP_STANDING].num != 0);
    return msg.v[PROC_WORKLOAD_WATCH_REP_STANDING].num;
}

static void a_list_longer_than_a_frame_comes_in_parts(void **state)
{
    att_autobuf all = ATT_BUF_INIT(CERTS_CRL_MAX);
    uint8_t *der = NULL;
    (void)state;
    have_list(make_crl(12000, 7), 7);
    assert_int_equal(ask(PROC_WORKLOAD_BUNDLE, 0, 0, NULL), ATT_OK);
    size_t size = msg.v[PROC_WORKLOAD_BUNDLE_REP_CRL_SIZE].num;
    assert_true(size > 2 * PROC_CRL_PART_MAX);
    assert_int_equal(msg.v[PROC_WORKLOAD_BUNDLE_REP_CRL_NUMBER].num, 7);
    assert_true(
        att_slice_eq_str(msg.v[PROC_WORKLOAD_BUNDLE_REP_TRUST_DOMAIN].bytes, "bank.example"));
    unsigned parts = 0;
    for (; all.len < size; parts++) {
        assert_int_equal(ask(PROC_WORKLOAD_CRL, 7, all.len, NULL), ATT_OK);
        att_buf_put_slice(&all, msg.v[PROC_WORKLOAD_CRL_REP_BYTES].bytes);
    }
    int len = i2d_X509_CRL(host->crls.v[0].crl, &der);
    assert_int_equal(parts, (size + PROC_CRL_PART_MAX - 1) / PROC_CRL_PART_MAX);
    assert_true(att_slice_eq(att_buf_slice(&all), ATT_SLICE(der, (size_t)len)));
    OPENSSL_free(der);
}

static void parts_of_another_list_are_refused(void **state)
{
    struct att_err err = {0};
    (void)state;
    assert_int_equal(ask(PROC_WORKLOAD_CRL, 7, 0, &err), ATT_E_RETRY); /* there is none */
    assert_string_equal(err.reason, "crlOther");
    have_list(make_crl(1, 8), 8);
    att_err_clear(&err);
    assert_int_equal(ask(PROC_WORKLOAD_CRL, 7, 0, &err), ATT_E_RETRY);
    assert_string_equal(err.reason, "crlOther");
    att_err_clear(&err);
    assert_int_equal(ask(PROC_WORKLOAD_CRL, 8, 1 << 20, &err), ATT_E_INVAL);
}

static void the_list_that_was_kept_is_served_until_there_is_another(void **state)
{
    att_autobuf der = ATT_BUF_INIT(CERTS_CRL_MAX), pem = {0};
    X509_CRL *crl = make_crl(3, 5);
    (void)state;
    uint8_t *at = att_buf_extend(&der, (size_t)i2d_X509_CRL(crl, NULL));
    i2d_X509_CRL(crl, &at);
    X509_CRL_free(crl);
    assert_int_equal(certs_crl_dump(att_buf_slice(&der), &pem, NULL), ATT_OK);
    assert_int_equal(att_io_write_file(file, att_buf_slice(&pem), 0600, NULL), ATT_OK);
    assert_int_equal(ask(PROC_WORKLOAD_BUNDLE, 0, 0, NULL), ATT_OK);
    assert_int_equal(msg.v[PROC_WORKLOAD_BUNDLE_REP_CRL_NUMBER].num, 5);
    assert_int_equal(ask(PROC_WORKLOAD_CRL, 5, 0, NULL), ATT_OK);
    assert_true(att_slice_eq(msg.v[PROC_WORKLOAD_CRL_REP_BYTES].bytes, att_buf_slice(&der)));
    have_list(make_crl(1, 6), 6);
    assert_int_equal(ask(PROC_WORKLOAD_BUNDLE, 0, 0, NULL), ATT_OK);
    assert_int_equal(msg.v[PROC_WORKLOAD_BUNDLE_REP_CRL_NUMBER].num, 6);
    host_crls_done(&host->crls);
    assert_int_equal(att_io_write_file(file, ATT_SLICE_LIT("no list"), 0600, NULL), ATT_OK);
    assert_int_equal(ask(PROC_WORKLOAD_BUNDLE, 0, 0, NULL), ATT_OK);
    assert_int_equal(msg.v[PROC_WORKLOAD_BUNDLE_REP_CRL_SIZE].num, 0);
}

static void lists_of_two_authorities_come_together(void **state)
{
    att_autobuf all = ATT_BUF_INIT(CERTS_CRL_MAX);
    (void)state;
    have_list(make_crl(2, 4), 4);
    have_list(make_crl(1, 9), 9);
    for (size_t i = 0; i < 2; i++) {
        uint8_t *at = att_buf_extend(&all, (size_t)i2d_X509_CRL(host->crls.v[i].crl, NULL));
        i2d_X509_CRL(host->crls.v[i].crl, &at);
    }
    assert_int_equal(ask(PROC_WORKLOAD_BUNDLE, 0, 0, NULL), ATT_OK);
    uint64_t number = msg.v[PROC_WORKLOAD_BUNDLE_REP_CRL_NUMBER].num;
    assert_int_equal(msg.v[PROC_WORKLOAD_BUNDLE_REP_CRL_SIZE].num, all.len);
    assert_int_equal(ask(PROC_WORKLOAD_CRL, number, 0, NULL), ATT_OK);
    assert_true(att_slice_eq(msg.v[PROC_WORKLOAD_CRL_REP_BYTES].bytes, att_buf_slice(&all)));
    X509_CRL_free(host->crls.v[1].crl);
    host->crls.v[1].crl = make_crl(1, 10);
    assert_int_equal(ask(PROC_WORKLOAD_BUNDLE, 0, 0, NULL), ATT_OK);
    assert_true(msg.v[PROC_WORKLOAD_BUNDLE_REP_CRL_NUMBER].num != number);
}

/* After a restart one list has come and the other authority's issuer is away: what was kept of it
 * stands, beside the new list of the first. */
static void a_kept_list_of_another_authority_stands(void **state)
{
    att_autobuf pem = ATT_BUF_INIT(CERTS_CRL_MAX), all = ATT_BUF_INIT(CERTS_CRL_MAX);
    certs_autocrl *a = make_crl_of("a", 1, 3), *b = make_crl_of("b", 2, 7);
    (void)state;
    keep_list(a, &pem);
    keep_list(b, &pem);
    assert_int_equal(att_io_write_file(file, att_buf_slice(&pem), 0600, NULL), ATT_OK);
    have_list(make_crl_of("a", 3, 4), 4);
    have_list(NULL, 0);
    X509_CRL *const want[] = {host->crls.v[0].crl, b};
    for (size_t i = 0; i < 2; i++) {
        uint8_t *at = att_buf_extend(&all, (size_t)i2d_X509_CRL(want[i], NULL));
        i2d_X509_CRL(want[i], &at);
    }
    assert_int_equal(ask(PROC_WORKLOAD_BUNDLE, 0, 0, NULL), ATT_OK);
    uint64_t number = msg.v[PROC_WORKLOAD_BUNDLE_REP_CRL_NUMBER].num;
    assert_int_equal(msg.v[PROC_WORKLOAD_BUNDLE_REP_CRL_SIZE].num, all.len);
    assert_int_equal(ask(PROC_WORKLOAD_CRL, number, 0, NULL), ATT_OK);
    assert_true(att_slice_eq(msg.v[PROC_WORKLOAD_CRL_REP_BYTES].bytes, att_buf_slice(&all)));
}

/* …in the file, too, until the second has come. */
static void the_file_keeps_what_has_not_come(void **state)
{
    att_autobuf pem = ATT_BUF_INIT(CERTS_CRL_MAX);
    certs_autocrl *a = make_crl_of("a", 1, 3), *b = make_crl_of("b", 2, 7);
    X509_CRL *lists[HOST_CRLS_MAX] = {NULL};
    size_t n = 0;
    (void)state;
    keep_list(a, &pem);
    keep_list(b, &pem);
    assert_int_equal(att_io_write_file(file, att_buf_slice(&pem), 0600, NULL), ATT_OK);
    have_list(NULL, 0);
    have_list(NULL, 0);
    host->crls.v[0].crl = make_crl_of("a", 3, 4);
    assert_int_equal(host_crls_keep(host, 0, host->crls.v[0].crl, NULL), ATT_OK);
    host_crls_kept(file, lists, &n);
    assert_int_equal(n, 2);
    assert_int_equal(X509_CRL_match(lists[0], host->crls.v[0].crl), 0);
    assert_int_equal(X509_CRL_match(lists[1], b), 0);
    X509_CRL_free(lists[0]);
    X509_CRL_free(lists[1]);
    host->crls.v[1].crl = make_crl_of("c", 1, 1); /* all have come: b's authority is no more */
    n = 0;
    assert_int_equal(host_crls_keep(host, 1, host->crls.v[1].crl, NULL), ATT_OK);
    host_crls_kept(file, lists, &n);
    assert_int_equal(n, 2);
    assert_int_equal(X509_CRL_match(lists[1], host->crls.v[1].crl), 0);
    X509_CRL_free(lists[0]);
    X509_CRL_free(lists[1]);
}

static void no_roots_are_no_bundle(void **state)
{
    struct att_err err = {0};
    (void)state;
    sk_X509_pop_free(host->bundle, X509_free);
    host->bundle = NULL;
    assert_int_equal(ask(PROC_WORKLOAD_BUNDLE, 0, 0, &err), ATT_E_NOTFOUND);
    assert_string_equal(err.reason, "noBundle");
}

static void the_number_moves_with_view_list_and_start(void **state)
{
    (void)state;
    uint64_t first = standing();
    assert_int_equal(standing(), first);
    host->view_version++;
    uint64_t second = standing();
    assert_true(second != first);
    have_list(make_crl(1, 3), 3);
    uint64_t third = standing();
    assert_true(third != second);
    host->started_at++;
    assert_true(standing() != third);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_list_longer_than_a_frame_comes_in_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(parts_of_another_list_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(the_list_that_was_kept_is_served_until_there_is_another,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(lists_of_two_authorities_come_together, setup, teardown),
        cmocka_unit_test_setup_teardown(a_kept_list_of_another_authority_stands, setup, teardown),
        cmocka_unit_test_setup_teardown(the_file_keeps_what_has_not_come, setup, teardown),
        cmocka_unit_test_setup_teardown(no_roots_are_no_bundle, setup, teardown),
        cmocka_unit_test_setup_teardown(the_number_moves_with_view_list_and_start, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
