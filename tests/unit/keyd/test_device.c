/* What keyd does for another server than an attest-issuerd, and that it does nothing of it unless
 * its own configuration says so. */
#include "tests/unit/keyd/common.h"

#include "certs/dns.h"
#include "tpm/parse/attest.h"
#include "tpm/parse/makecred.h"
#include "tpm/parse/sig.h"

static void one_key(struct fixture *f, const char *store, struct proc_key *ret)
{
    struct att_err err = {0};
    assert_ok(proc_keyd_key_create(f->client, "a", store, ret, &err));
}

static int folder_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->tpm = *state;
    make_folder(f);
    *state = f;
    return 0;
}
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, folder_setup, keyd_teardown)

static void begin(struct fixture *f, enum keyd_acme acme, bool rsa)
{
    struct keyd_opts opts = options(f);
    opts.acme = acme;
    opts.ak_rsa = rsa;
    start_opts(f, &opts, "ready");
}

/* ---- refused ---- */

static void nothing_without_the_section(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key;
    struct proc_key_evidence ev = {0};
    struct proc_ak_creation made = {0};
    att_autobuf out = {0};
    char authz[128];
    begin(f, KEYD_ACME_NONE, false);
    one_key(f, "tpm", &key);
    key_authorization(f, authz);
    assert_refused(proc_keyd_key_certify(f->client, key.key_id, authz, &ev, &err), ATT_E_DENIED,
                   "notAcme");
    assert_refused(proc_keyd_key_csr_device(f->client, key.key_id, "x", &out, &err), ATT_E_DENIED,
                   "notAcme");
    assert_refused(proc_keyd_ak_creation(f->client, &made, &err), ATT_E_DENIED, "notAcme");
    assert_refused(
        proc_keyd_ak_activate(f->client, ATT_SLICE_LIT("x"), ATT_SLICE_LIT("y"), &out, &err),
        ATT_E_DENIED, "notAcme");
    assert_int_equal(out.len, 0);
    stop(f);
    begin(f, KEYD_ACME, false); /* a server, but no attestation CA */
    assert_refused(proc_keyd_ak_creation(f->client, &made, &err), ATT_E_DENIED, "notAcme");
    assert_refused(
        proc_keyd_ak_activate(f->client, ATT_SLICE_LIT("x"), ATT_SLICE_LIT("y"), &out, &err),
        ATT_E_DENIED, "notAcme");
    proc_key_done(&key);
    stop(f);
}

static void refused_by_name(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key, memory;
    struct proc_key_evidence ev = {0};
    att_autobuf out = {0};
    char authz[128], other[128];
    begin(f, KEYD_ACME_CA, false);
    one_key(f, "tpm", &key);
    one_key(f, "memory", &memory);
    key_authorization(f, authz);
    memcpy(other, authz, sizeof other);
    other[strlen(TOKEN) + 3] ^= 1;
    assert_refused(proc_keyd_key_certify(f->client, key.key_id, other, &ev, &err), ATT_E_DENIED,
                   "keyAuthorization"); /* somebody else's account */
    assert_refused(proc_keyd_key_certify(f->client, memory.key_id, authz, &ev, &err),
                   ATT_E_UNSUPPORTED, "keyStore");
    att_err_clear(&err);
    assert_int_equal(proc_keyd_key_csr_device(f->client, key.key_id, "a/b", &out, &err),
                     ATT_E_INVAL);
    att_err_clear(&err);
    assert_ok(proc_keyd_freeze(f->client, "a", &err));
    assert_refused(proc_keyd_key_certify(f->client, key.key_id, authz, &ev, &err), ATT_E_DENIED,
                   "frozen");
    assert_refused(proc_keyd_key_csr_device(f->client, key.key_id, "x", &out, &err), ATT_E_DENIED,
                   "frozen");
    assert_ok(proc_keyd_thaw(f->client, "a", &err));
    assert_int_equal(out.len, 0);
    proc_key_done(&key);
    proc_key_done(&memory);
    stop(f);
}

/* ---- done ---- */

static void check_certify(struct fixture *f)
{
    struct att_err err = {0};
    struct proc_key key;
    struct proc_identity id;
    struct proc_key_evidence ev = {0};
    struct parse_public ak;
    struct parse_attest attest;
    struct certs_dns_csr csr;
    att_autobuf der = {0};
    uint8_t extra[ATT_SHA256_LEN];
    char authz[128];
    one_key(f, "tpm", &key);
    key_authorization(f, authz);
    assert_ok(proc_keyd_identity(f->client, &id, &err));
    assert_ok(parse_public_parse(id.ak_pub, &ak, &err));
    assert_ok(proc_keyd_key_certify(f->client, key.key_id, authz, &ev, &err));
    assert_ok(
        parse_sig_verify(&ak, att_buf_slice(&ev.cert_sig), att_buf_slice(&ev.cert_info), &err));
    assert_ok(parse_attest_certify(att_buf_slice(&ev.cert_info), &attest, &err));
    att_sha256(extra, att_slice_str(authz));
    assert_true(att_slice_eq(attest.extra_data, ATT_SLICE_ARRAY(extra)));
    assert_true(att_slice_eq(attest.u.certify.name, att_buf_slice(&key.name)));
    assert_int_equal(ev.quote.attest.len, 0);
    assert_ok(proc_keyd_key_csr_device(f->client, key.key_id, "serial-0815", &der, &err));
    assert_ok(certs_device_csr_verify(att_buf_slice(&der), "serial-0815", &csr, &err));
    assert_true(att_slice_eq(ATT_SLICE(csr.spki, csr.spki_len), att_buf_slice(&key.spki)));
    proc_key_evidence_done(&ev);
    proc_identity_done(&id);
    proc_key_done(&key);
}

static bool has(struct att_slice in, struct att_slice what)
{
    return memmem(in.ptr, in.len, what.ptr, what.len) != NULL;
}

/* What an attestation CA looks at: a statement of its own making by the AK itself, whose creation
 * data are those that came along; and a credential that only this TPM with this AK solves. */
static void check_attestation_ca(struct fixture *f, uint16_t type)
{
    struct att_err err = {0};
    struct proc_identity id;
    struct proc_ak_creation made = {0};
    struct parse_public ek, ak;
    struct parse_name name;
    att_autobuf blob = {0}, secret = {0}, solved = {0};
    uint8_t value[32], digest[ATT_SHA256_LEN];
    memset(value, 0x5a, sizeof value);
    assert_ok(proc_keyd_identity(f->client, &id, &err));
    assert_ok(parse_public_parse(id.ak_pub, &ak, &err));
    assert_int_equal(ak.type, type);
    assert_ok(proc_keyd_ak_creation(f->client, &made, &err));
    struct att_slice attest = att_buf_slice(&made.attestation);
    assert_memory_equal(attest.ptr, "\xffTCG\x80\x1a", 6);
    att_sha256(digest, att_buf_slice(&made.data));
    assert_true(has(attest, ATT_SLICE_ARRAY(digest)));
    assert_true(has(attest, id.ak_name));
    assert_ok(parse_sig_verify(&ak, att_buf_slice(&made.signature), attest, &err));
    assert_ok(parse_public_parse(id.ek_pub, &ek, &err));
    assert_ok(parse_name_parse(id.ak_name, &name, &err));
    assert_ok(parse_makecred_create(&ek, ATT_SLICE_ARRAY(value), &name, &blob, &secret, &err));
    assert_ok(proc_keyd_ak_activate(f->client, att_buf_slice(&blob), att_buf_slice(&secret),
                                    &solved, &err));
    assert_true(att_slice_eq(att_buf_slice(&solved), ATT_SLICE_ARRAY(value)));
    /* For another AK the TPM says no. */
    name.bytes[5] ^= 1;
    att_buf_reset(&blob);
    att_buf_reset(&secret);
    att_buf_reset(&solved);
    assert_ok(parse_makecred_create(&ek, ATT_SLICE_ARRAY(value), &name, &blob, &secret, &err));
    assert_refused(proc_keyd_ak_activate(f->client, att_buf_slice(&blob), att_buf_slice(&secret),
                                         &solved, &err),
                   ATT_E_AUTH, "activation");
    proc_ak_creation_done(&made);
    proc_identity_done(&id);
}

static void what_such_a_server_wants(void **state)
{
    struct fixture *f = *state;
    begin(f, KEYD_ACME_CA, false);
    check_certify(f);
    check_attestation_ca(f, PARSE_ALG_ECC);
    stop(f);
    begin(f, KEYD_ACME_CA, true);
    check_certify(f);
    check_attestation_ca(f, PARSE_ALG_RSA);
    stop(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FOLDER(nothing_without_the_section),
        WITH_FOLDER(refused_by_name),
        WITH_FOLDER(what_such_a_server_wants),
    };
    return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
