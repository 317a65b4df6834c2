/* verify_ek, verify_ak (M1), the AK certificate, the deny list. */
#include "tests/unit/verify/harness.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "certs/chain.h"
#include "certs/oid.h"

#include <stdlib.h>
#include <unistd.h>

#define AT(s)                                                                                      \
    if (stage != (s)) {                                                                            \
        return;                                                                                    \
    }

static EVP_PKEY *stranger;

static void ek_pub_trailing(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    att_buf_u8(&f->ek.area, 0);
    f->ek_in.ek_pub = att_buf_slice(&f->ek.area);
}

static void ek_pub_missing(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->ek_in.ek_pub = (struct att_slice){0};
}

static void cert_trailing(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    att_buf_put(&f->ek_cert, "x", 1);
    f->ek_in.ek_cert = att_buf_slice(&f->ek_cert);
}

static void template_attributes(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek.pub.attrs |= PARSE_OA_NO_DA;
}

/* An EK that is not restricted would decrypt anybody's credential. */
static void template_unrestricted(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek.pub.attrs &= ~PARSE_OA_RESTRICTED;
    f->ek.pub.sym = (struct parse_sym){.alg = PARSE_ALG_NULL};
}

static void template_duplicable(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek.pub.attrs &= ~PARSE_OA_FIXED_TPM;
}

static void template_policy(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek.pub.policy[0] ^= 1;
}

/* CVE-2021-3406: the certificate of one TPM, the key of another. */
static void spki_swap(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    struct parse_public pub = f->ek.pub;
    assert_int_equal(parse_public_set_pkey(&pub, stranger, NULL), ATT_OK);
    att_buf_reset(&f->ek.area);
    assert_int_equal(parse_public_encode(&pub, &f->ek.area, NULL), ATT_OK);
    f->ek_in.ek_pub = att_buf_slice(&f->ek.area);
}

static void cert_of_other_tpm(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek_cert_spec.subject = stranger;
}

static void untrusted_root(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    certs_ek_store_free(f->roots);
    struct forge *other = forge_new(FORGE_EK_P256, FORGE_ENROL);
    f->roots = other->roots;
    other->roots = NULL;
    forge_free(other);
}

static void no_roots(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->ek_in.roots = NULL;
}

static void foreign_issuer(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek_cert_spec.foreign_issuer = true;
}

static void self_signed(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek_cert_spec.self_signed = true;
}

static void empty_chain(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->ek_in.n_ek_chain = 0;
}

static void expired(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek_cert_spec.not_after = FORGE_NOW - 1;
}

static void not_yet(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek_cert_spec.not_before = FORGE_NOW + 3600;
}

static void is_ca(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek_cert_spec.ca = true;
}

static void no_eku(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek_cert_spec.no_eku = true;
}

static void no_san(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek_cert_spec.no_san = true;
}

static void no_cert(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->ek_in.ek_cert = (struct att_slice){0};
}

static void deny_list(struct forge *f, const char *manufacturer, const char *version)
{
    static struct verify_deny deny;
    static const char *versions[1];
    versions[0] = version;
    deny = (struct verify_deny){
        .manufacturer = manufacturer, .versions = versions, .n_versions = version ? 1 : 0};
    f->ek_in.deny = &deny;
    f->ek_in.n_deny = 1;
}

static void denied_maker(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    deny_list(f, "IBM", NULL);
}

static void denied_padded(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        f->ek_cert_spec.manufacturer = "id:53544D20";
    }
    if (stage == FORGE_DONE) {
        deny_list(f, "STM ", NULL);
        f->ek_in.manufacturer[0] = '\0';
    }
}

static void denied_version(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    deny_list(f, "IBM", "8228.293.18.0"); /* 0x2024 0x0125 0x0012 0 */
}

static void denied_in_certificate(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    deny_list(f, "IBM", "8228.293"); /* id:20240125 */
    f->ek_in.have_version = false;
}

/* The claim names a harmless maker; the certificate's maker and the claimed version decide. */
static void denied_whatever_is_claimed(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    deny_list(f, "IBM", "8228.293.18.0");
    memcpy(f->ek_in.manufacturer, "494e5443", 9);
}

/* ---- what must be accepted ------------------------------------------------------------------- */

static void padded(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_KEYS)
    f->ek_cert_spec.padding = 300;
}

static void other_version_denied(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    deny_list(f, "IBM", "8228.293.17.0");
}

static void other_maker_denied(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    deny_list(f, "NTC", NULL);
}

static void inventory(struct forge *f, enum forge_stage stage)
{
    AT(FORGE_DONE)
    f->ek_in.ek_cert = (struct att_slice){0};
    f->ek_in.inventory = true;
}

static const struct forged_case cases[] = {
    {"honest", NULL, VERIFY_REASON_NONE},
    {"NV padding", padded, VERIFY_REASON_NONE},
    {"another version denied", other_version_denied, VERIFY_REASON_NONE},
    {"another maker denied", other_maker_denied, VERIFY_REASON_NONE},
    {"inventory", inventory, VERIFY_REASON_NONE},

    {"ekPub with a byte more", ek_pub_trailing, VERIFY_REASON_MALFORMED},
    {"no ekPub", ek_pub_missing, VERIFY_REASON_MALFORMED},
    {"certificate with a byte more", cert_trailing, VERIFY_REASON_MALFORMED},
    {"EK attributes changed", template_attributes, VERIFY_REASON_EK_TEMPLATE},
    {"EK unrestricted", template_unrestricted, VERIFY_REASON_EK_TEMPLATE},
    {"EK duplicable", template_duplicable, VERIFY_REASON_EK_TEMPLATE},
    {"EK policy changed", template_policy, VERIFY_REASON_EK_TEMPLATE},
    {"untrusted root", untrusted_root, VERIFY_REASON_EK_CHAIN},
    {"no roots at all", no_roots, VERIFY_REASON_EK_CHAIN},
    {"signed by another key", foreign_issuer, VERIFY_REASON_EK_CHAIN},
    {"self-signed", self_signed, VERIFY_REASON_EK_CHAIN},
    {"no intermediate", empty_chain, VERIFY_REASON_EK_CHAIN},
    {"expired", expired, VERIFY_REASON_EK_CHAIN},
    {"not yet valid", not_yet, VERIFY_REASON_EK_CHAIN},
    {"is a CA", is_ca, VERIFY_REASON_EK_CHAIN},
    {"no EKU", no_eku, VERIFY_REASON_EK_CHAIN},
    {"no TCG attributes", no_san, VERIFY_REASON_EK_CHAIN},
    {"no certificate", no_cert, VERIFY_REASON_EK_CHAIN},
    {"EK SPKI swap", spki_swap, VERIFY_REASON_EK_CERT_MISMATCH},
    {"certificate of another TPM", cert_of_other_tpm, VERIFY_REASON_EK_CERT_MISMATCH},
    {"maker denied", denied_maker, VERIFY_REASON_FIRMWARE_DENIED},
    {"maker denied, padded", denied_padded, VERIFY_REASON_FIRMWARE_DENIED},
    {"version denied", denied_version, VERIFY_REASON_FIRMWARE_DENIED},
    {"version in the certificate denied", denied_in_certificate, VERIFY_REASON_FIRMWARE_DENIED},
    {"claimed maker is another", denied_whatever_is_claimed, VERIFY_REASON_FIRMWARE_DENIED},
};

static void run(const struct forged_case *c, enum forge_ek ek)
{
    struct forge *forge = forge_new(ek, FORGE_ENROL);
    verify_autoverdict *verdict = verify_verdict_new();
    struct verify_ek_facts facts;
    memset(&facts, 0x5a, sizeof(facts));
    forge_build(forge, c->mutate);
    enum verify_result result = verify_ek(&forge->ek_in, verdict, &facts);
    if (c->reason == VERIFY_REASON_NONE) {
        assert_accepted(verdict, c->name);
        assert_int_equal(result, VERIFY_ACCEPTED);
        att_autobuf spki = {0};
        uint8_t digest[ATT_SHA256_LEN];
        char id[VERIFY_ID_HEX];
        forge_spki(forge->ek.pkey, &spki);
        att_sha256(digest, att_buf_slice(&spki));
        att_hex(id, ATT_SLICE_ARRAY(digest));
        assert_string_equal(facts.id, id);
        assert_int_equal(facts.from_certificate, forge->ek_in.ek_cert.len > 0);
    } else {
        assert_refused(verdict, c->reason, c->name);
        assert_int_equal(result, VERIFY_REFUSED);
        assert_int_equal(facts.id[0], 0x5a);
    }
    forge_free(forge);
}

static void test_ecc(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        run(&cases[i], FORGE_EK_P256);
    }
}

static void test_rsa_and_p384(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        /* These two put a P-256 key into the EK's place. */
        if (cases[i].mutate != spki_swap && cases[i].mutate != cert_of_other_tpm) {
            run(&cases[i], FORGE_EK_RSA);
            run(&cases[i], FORGE_EK_P384);
        }
    }
}

/* NV padding is no part of the certificate, nor of what is recorded of it. */
static void test_padding(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ENROL);
    forge_build(forge, padded);
    verify_autoverdict *verdict = verify_verdict_new();
    struct verify_ek_facts facts;
    assert_int_equal(verify_ek(&forge->ek_in, verdict, &facts), VERIFY_ACCEPTED);
    uint8_t digest[ATT_SHA256_LEN];
    char hex[VERIFY_ID_HEX], id[VERIFY_ID_HEX];
    att_sha256(digest, ATT_SLICE(forge->ek_cert.ptr, forge->ek_cert.len - 300));
    att_hex(hex, ATT_SLICE_ARRAY(digest));
    assert_string_equal(facts.cert_sha256, hex);
    assert_int_equal(verify_ek_id_of_cert(forge->ek_in.ek_cert, id, NULL), ATT_OK);
    assert_string_equal(id, facts.id);
    assert_string_equal(facts.manufacturer, "id:49424D00");
    assert_string_equal(facts.template_name, "L-2");
    forge_free(forge);
}

static void test_firmware_signed(void **state)
{
    (void)state;
    static const char *versions[] = {"1.2.3.4"};
    const struct verify_deny deny = {"IBM", versions, 1};
    const uint64_t is = UINT64_C(0x0001000200030004), other = is + 1;
    const struct {
        const char *maker;
        uint64_t quoted;
        const uint64_t *claimed;
        bool accepted;
    } rows[] = {
        {"id:49424D00", is, &is, false},      {"id:49424D00", is, NULL, false},
        {"id:49424D00", other, &other, true}, {"id:49424D00", other, NULL, true},
        {"id:49424D00", other, &is, false}, /* claims another than the TPM signs */
        {"id:494E5443", is, &is, true},       {"id:494E5443", is, &other, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        verify_autoverdict *verdict = verify_verdict_new();
        enum verify_result result =
            verify_firmware(&deny, 1, rows[i].maker, rows[i].quoted, rows[i].claimed, verdict);
        assert_int_equal(result, rows[i].accepted ? VERIFY_ACCEPTED : VERIFY_REFUSED);
        if (!rows[i].accepted) {
            assert_refused(verdict, VERIFY_REASON_FIRMWARE_DENIED, rows[i].maker);
        }
    }
}

static void test_deny_form(void **state)
{
    (void)state;
    static const char *const bad[] = {"",        "1.",     ".1", "1..2",     "1.2.3.4.5", "65536",
                                      "1.2.3.x", "1.2.3 ", "-1", "1.2.3.4.", "0000001",   "a"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const struct verify_deny deny = {"IFX", &bad[i], 1};
        assert_int_equal(verify_deny_check(&deny, NULL), ATT_E_PARSE);
    }
    static const char *const good[] = {"1", "7.63", "7.63.3353.0", "65535.0.0.65535"};
    const struct verify_deny deny = {"STM ", good, 4};
    assert_int_equal(verify_deny_check(&deny, NULL), ATT_OK);
    const struct verify_deny no_maker = {"", good, 4}, long_maker = {"INTEL", good, 4};
    assert_int_equal(verify_deny_check(&no_maker, NULL), ATT_E_PARSE);
    assert_int_equal(verify_deny_check(&long_maker, NULL), ATT_E_PARSE);
}

/* ---- the AK ---------------------------------------------------------------------------------- */

static void ak_case(const char *name, void (*change)(struct parse_public *),
                    enum verify_reason reason)
{
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ENROL);
    if (change) {
        change(&forge->ak.pub);
    }
    forge_build(forge, NULL);
    verify_autoverdict *verdict = verify_verdict_new();
    struct verify_ak_facts facts;
    enum verify_result result = verify_ak(att_buf_slice(&forge->ak.area), verdict, &facts);
    if (reason == VERIFY_REASON_NONE) {
        assert_accepted(verdict, name);
        assert_memory_equal(facts.name.bytes, forge->ak.name.bytes, forge->ak.name.len);
        att_autobuf spki = {0};
        forge_spki(forge->ak.pkey, &spki);
        assert_true(att_slice_eq(ATT_SLICE(facts.spki, facts.spki_len), att_buf_slice(&spki)));
    } else {
        assert_refused(verdict, reason, name);
        assert_int_equal(result, VERIFY_REFUSED);
    }
    forge_free(forge);
}

static void ak_unrestricted(struct parse_public *pub)
{
    pub->attrs &= ~PARSE_OA_RESTRICTED;
}

static void ak_not_fixed_tpm(struct parse_public *pub)
{
    pub->attrs &= ~PARSE_OA_FIXED_TPM;
}

static void ak_not_fixed_parent(struct parse_public *pub)
{
    pub->attrs &= ~PARSE_OA_FIXED_PARENT;
}

static void ak_imported(struct parse_public *pub)
{
    pub->attrs &= ~PARSE_OA_SENSITIVE_DATA_ORIGIN;
}

static void ak_no_sign(struct parse_public *pub)
{
    pub->attrs &= ~PARSE_OA_SIGN;
}

static void ak_decrypt(struct parse_public *pub)
{
    pub->attrs |= PARSE_OA_DECRYPT;
}

static void ak_no_scheme(struct parse_public *pub)
{
    pub->scheme = (struct parse_scheme){.alg = PARSE_ALG_NULL};
}

static void ak_sha1(struct parse_public *pub)
{
    pub->scheme.hash = PARSE_ALG_SHA1;
}

static void ak_policy(struct parse_public *pub)
{
    pub->policy_len = ATT_SHA256_LEN;
}

static void test_ak(void **state)
{
    (void)state;
    ak_case("honest", NULL, VERIFY_REASON_NONE);
    ak_case("unrestricted", ak_unrestricted, VERIFY_REASON_AK_ATTRIBUTES);
    ak_case("not fixedTPM", ak_not_fixed_tpm, VERIFY_REASON_AK_ATTRIBUTES);
    ak_case("not fixedParent", ak_not_fixed_parent, VERIFY_REASON_AK_ATTRIBUTES);
    ak_case("imported", ak_imported, VERIFY_REASON_AK_ATTRIBUTES);
    ak_case("does not sign", ak_no_sign, VERIFY_REASON_AK_ATTRIBUTES);
    ak_case("decrypts", ak_decrypt, VERIFY_REASON_AK_ATTRIBUTES);
    ak_case("no scheme", ak_no_scheme, VERIFY_REASON_AK_ATTRIBUTES);
    ak_case("SHA-1", ak_sha1, VERIFY_REASON_AK_ATTRIBUTES);
    ak_case("with a policy", ak_policy, VERIFY_REASON_AK_ATTRIBUTES);
}

/* ---- certificates without a TPM's public area (`attestctl verify`) ----------------------------
 */

static void test_certificates_alone(void **state)
{
    (void)state;
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ORDER);
    forge_build(forge, NULL);
    STACK_OF(X509) *roots = sk_X509_new_null(), *none = sk_X509_new_null();
    sk_X509_push(roots, forge->att_root);
    att_autobuf ca = {0};
    assert_int_equal(certs_cert_der(forge->att_ca, &ca, NULL), ATT_OK);
    struct att_slice chain = att_buf_slice(&ca), ak = att_buf_slice(&forge->ak_cert),
                     area = att_buf_slice(&forge->ak.area);
    struct verify_ek_facts facts;
    char ek_id[VERIFY_ID_HEX];
    const struct {
        const char *name;
        struct att_slice cert, area;
        const STACK_OF(X509) * roots;
        size_t n_chain;
        int64_t now;
        enum verify_reason reason;
    } rows[] = {
        {"honest", ak, area, roots, 1, FORGE_NOW, VERIFY_REASON_NONE},
        {"not compared", ak, {0}, roots, 1, FORGE_NOW, VERIFY_REASON_NONE},
        {"no root", ak, area, none, 1, FORGE_NOW, VERIFY_REASON_AK_CERTIFICATE},
        {"no intermediate", ak, area, roots, 0, FORGE_NOW, VERIFY_REASON_AK_CERTIFICATE},
        {"expired", ak, area, roots, 1, FORGE_NOW + 90000, VERIFY_REASON_AK_CERTIFICATE},
        {"another key", ak, att_buf_slice(&forge->agent.area), roots, 1, FORGE_NOW,
         VERIFY_REASON_AK_CERTIFICATE},
        {"an EK certificate",
         att_buf_slice(&forge->ek_cert),
         {0},
         roots,
         1,
         FORGE_NOW,
         VERIFY_REASON_AK_CERTIFICATE},
        {"a CA certificate", chain, {0}, roots, 0, FORGE_NOW, VERIFY_REASON_AK_CERTIFICATE},
        {"nothing", {0}, area, roots, 1, FORGE_NOW, VERIFY_REASON_MALFORMED},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        verify_autoverdict *verdict = verify_verdict_new();
        (void)!verify_ak_certificate(rows[i].cert, &chain, rows[i].n_chain, rows[i].area,
                                     rows[i].roots, rows[i].now, verdict, ek_id);
        if (rows[i].reason == VERIFY_REASON_NONE) {
            assert_accepted(verdict, rows[i].name);
        } else {
            assert_refused(verdict, rows[i].reason, rows[i].name);
        }
    }
    verify_autoverdict *other = verify_verdict_new();
    assert_int_equal(verify_ek_certificate(att_buf_slice(&forge->ek_cert), forge->roots, ek_id,
                                           FORGE_NOW, other, &facts),
                     VERIFY_REFUSED); /* the maker's intermediate is not in the folder */
    assert_refused(other, VERIFY_REASON_EK_CHAIN, "no intermediate");
    sk_X509_free(roots);
    sk_X509_free(none);
    forge_free(forge);
}

/* ---- makers' own certificates ---------------------------------------------------------------- */

static const char *vector_dir(void)
{
    static char path[4096];
    const char *source = getenv("ATT_SOURCE_DIR"), *dir = getenv("ATTESTD_VECTORS");
    if (dir) {
        return dir;
    }
    (void)snprintf(path, sizeof(path), "%s/../shared/vectors", source ? source : ".");
    return path;
}

/* The real roots load, and none of them makes the forge's maker a genuine one. */
static void test_real_roots(void **state)
{
    (void)state;
    char from[4200], dir[] = "/tmp/verify-roots-XXXXXX", to[64];
    (void)snprintf(from, sizeof(from), "%s/ek-roots-real.pem", vector_dir());
    att_autobuf pem = {0};
    if (att_io_read_file(from, 1 << 20, &pem, NULL)) {
        print_message("[  SKIP  ] %s is not there\n", from);
        skip();
    }
    assert_non_null(mkdtemp(dir));
    (void)snprintf(to, sizeof(to), "%s/roots.pem", dir);
    assert_int_equal(att_io_write_file(to, att_buf_slice(&pem), 0600, NULL), ATT_OK);
    struct certs_ek_store *store = NULL;
    struct att_err err = {0};
    enum att_rc rc = certs_ek_store_load(dir, &store, &err);
    (void)unlink(to);
    (void)rmdir(dir);
    if (rc) {
        fail_msg("real roots: %s", err.msg);
    }
    assert_true(certs_ek_store_roots(store) >= 10);
    struct forge *forge = forge_new(FORGE_EK_P256, FORGE_ENROL);
    forge_build(forge, NULL);
    forge->ek_in.roots = store;
    verify_autoverdict *verdict = verify_verdict_new();
    assert_int_equal(verify_ek(&forge->ek_in, verdict, NULL), VERIFY_REFUSED);
    assert_refused(verdict, VERIFY_REASON_EK_CHAIN, "real roots");
    forge_free(forge);
    certs_ek_store_free(store);
}

static int setup(void **state)
{
    (void)state;
    stranger = forge_p256();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    EVP_PKEY_free(stranger);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ecc),
        cmocka_unit_test(test_rsa_and_p384),
        cmocka_unit_test(test_padding),
        cmocka_unit_test(test_firmware_signed),
        cmocka_unit_test(test_deny_form),
        cmocka_unit_test(test_ak),
        cmocka_unit_test(test_certificates_alone),
        cmocka_unit_test(test_real_roots),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
