/* A stock client's attestation object: members in any order, all else strict. */
#include "provision/evidence/attobj.h"

#include "provision/evidence/cbor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static const char *const names[] = {"ver", "alg", "x5c", "sig", "certInfo", "pubArea"};
#define N (sizeof names / sizeof names[0])

static void put_member(struct att_buf *to, const char *name)
{
    evidence_cbor_put_text(to, name);
    if (strcmp(name, "ver") == 0) {
        evidence_cbor_put_text(to, "2.0");
    } else if (strcmp(name, "alg") == 0) {
        evidence_cbor_put_int(to, EVIDENCE_COSE_ES256);
    } else if (strcmp(name, "x5c") == 0) {
        evidence_cbor_put_array(to, 1);
        evidence_cbor_put_bytes(to, att_slice_str("cert"));
    } else {
        evidence_cbor_put_bytes(to, att_slice_str(name));
    }
}

/* skip, twice: an index of names, or -1. */
static void build(struct att_buf *to, size_t from, int skip, int twice, const char *fmt, bool last)
{
    att_autobuf statement = {0};
    size_t n = 0;
    for (size_t i = 0; i < N; i++) {
        size_t at = (from + i) % N;
        for (int k = 0; k < ((int)at == skip ? 0 : (int)at == twice ? 2 : 1); k++, n++) {
            put_member(&statement, names[at]);
        }
    }
    evidence_cbor_put_map(to, 2);
    if (!last) {
        evidence_cbor_put_text(to, "fmt");
        evidence_cbor_put_text(to, fmt);
    }
    evidence_cbor_put_text(to, "attStmt");
    evidence_cbor_put_map(to, n);
    att_buf_put_slice(to, att_buf_slice(&statement));
    if (last) {
        evidence_cbor_put_text(to, "fmt");
        evidence_cbor_put_text(to, fmt);
    }
}

static void any_order(void **state)
{
    (void)state;
    for (size_t from = 0; from < N; from++) {
        for (int last = 0; last < 2; last++) {
            att_autobuf cbor = {0};
            struct evidence_attobj obj = {0};
            build(&cbor, from, -1, -1, "tpm", last);
            assert_int_equal(evidence_attobj_parse_standard(att_buf_slice(&cbor), &obj, NULL),
                             ATT_OK);
            assert_true(att_slice_eq(obj.cert_info, att_slice_str("certInfo")));
            assert_true(att_slice_eq(obj.pub_area, att_slice_str("pubArea")));
            assert_true(att_slice_eq(obj.sig, att_slice_str("sig")));
            assert_int_equal(obj.x5c_len, 1);
            assert_int_equal(obj.alg, EVIDENCE_COSE_ES256);
        }
    }
}

static void refused(struct att_buf *cbor, const char *why)
{
    struct evidence_attobj obj = {0};
    struct att_err err = {0};
    assert_int_equal(evidence_attobj_parse_standard(att_buf_slice(cbor), &obj, &err), ATT_E_PARSE);
    if (!strstr(err.msg, why)) {
        print_error("expected \"%s\" in: %s\n", why, err.msg);
    }
    assert_non_null(strstr(err.msg, why));
    assert_int_equal(obj.x5c_len, 0); /* untouched */
}

static void all_else(void **state)
{
    (void)state;
    for (size_t i = 0; i < N; i++) {
        att_autobuf without = {0}, with = {0};
        build(&without, 0, (int)i, -1, "tpm", false);
        refused(&without, names[i]);
        build(&with, 0, -1, (int)i, "tpm", false);
        refused(&with, "is there twice");
    }
}

static void other_formats(void **state)
{
    (void)state;
    static const char *const formats[] = {"attestd-hsm", "attestd-host", "packed", "step"};
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++) {
        for (int last = 0; last < 2; last++) {
            att_autobuf cbor = {0};
            struct evidence_attobj obj = {0};
            build(&cbor, 0, -1, -1, formats[i], last);
            assert_int_equal(evidence_attobj_parse_standard(att_buf_slice(&cbor), &obj, NULL),
                             ATT_E_PARSE);
        }
    }
}

static void bytes_after(void **state)
{
    (void)state;
    att_autobuf cbor = {0};
    build(&cbor, 0, -1, -1, "tpm", false);
    att_buf_u8(&cbor, 0);
    refused(&cbor, "after its end");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_order),
        cmocka_unit_test(all_else),
        cmocka_unit_test(other_formats),
        cmocka_unit_test(bytes_after),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
