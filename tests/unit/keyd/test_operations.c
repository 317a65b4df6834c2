/* Every operation against a real (software) TPM, judged with the issuer's own parsers; each
 * refusal with its reason. */
#include "tests/unit/keyd/common.h"

#include "attestd/base/enc.h"
#include "attestd/keyd/internal.h"
#include "attestd/proc/keyd_token.h"
#include "certs/csr.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "provision/enrol/schedule.h"
#include "tpm/parse/attest.h"
#include "tpm/parse/makecred.h"
#include "tpm/parse/pcr.h"
#include "tpm/parse/sig.h"

#define HEADER(url)                                                                                \
    "{\"alg\":\"ES256\",\"nonce\":\"bm9uY2U\",\"url\":\"" url "\",\"kid\":\"" ISSUER "/account/"   \
    "1\"}"

/* ---- the account --------------------------------------------------------------------------- */

static void verify_jws(struct fixture *f, struct att_slice header, struct att_slice payload,
                       const uint8_t sig[64])
{
    struct att_err err = {0};
    struct proc_account account;
    EVP_PKEY *key = NULL;
    att_autobuf input = {.max = 16 << 20}, der = {0};
    assert_ok(proc_keyd_account(f->client, &account, &err));
    assert_ok(certs_key_from_spki(att_buf_slice(&account.spki), &key, &err));
    acme_jws_input(header, payload, &input);
    assert_ok(certs_sig_der(ATT_SLICE(sig, 32), ATT_SLICE(sig + 32, 32), &der, &err));
    assert_ok(certs_sig_verify(key, att_buf_slice(&input), att_buf_slice(&der), &err));
    EVP_PKEY_free(key);
    proc_account_done(&account);
}

static void account_signs_only_for_the_issuer(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    uint8_t sig[64];
    struct att_slice payload = ATT_SLICE_LIT("{}");
    assert_refused(proc_keyd_account_sign(f->client,
                                          ATT_SLICE_LIT(HEADER("https://evil.example/acme/x")),
                                          payload, sig, &err),
                   ATT_E_DENIED, "jwsUrl");
    assert_refused(proc_keyd_account_sign(
                       f->client, ATT_SLICE_LIT(HEADER("https://issuer.example:8443/acme-2/x")),
                       payload, sig, &err),
                   ATT_E_DENIED, "jwsUrl");
    assert_refused(
        proc_keyd_account_sign(f->client,
                               ATT_SLICE_LIT("{\"alg\":\"none\",\"nonce\":\"n\",\"url\":\"" ISSUER
                                             "/x\",\"kid\":\"" ISSUER "/a\"}"),
                               payload, sig, &err),
        ATT_E_DENIED, "jwsAlg");
    assert_refused(
        proc_keyd_account_sign(
            f->client,
            ATT_SLICE_LIT(
                "{\"alg\":\"ES256\",\"nonce\":\"n\",\"url\":\"" ISSUER
                "/x\",\"jwk\":{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}}"),
            payload, sig, &err),
        ATT_E_DENIED, "jwsJwk");
    assert_refused(
        proc_keyd_account_sign(f->client,
                               ATT_SLICE_LIT("{\"alg\":\"ES256\",\"nonce\":\"n\",\"url\":\"" ISSUER
                                             "/x\",\"kid\":\"https://evil.example/a\"}"),
                               payload, sig, &err),
        ATT_E_DENIED, "jwsKid");
    assert_refused(proc_keyd_account_sign(f->client, ATT_SLICE_LIT("not json"), payload, sig, &err),
                   ATT_E_DENIED, "jwsHeader");
}

static void account_signs_what_verifies(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    uint8_t sig[64];
    struct att_slice header = ATT_SLICE_LIT(HEADER(ISSUER "/new-order"));
    assert_ok(proc_keyd_account_sign(f->client, header, ATT_SLICE_LIT("{\"a\":1}"), sig, &err));
    verify_jws(f, header, ATT_SLICE_LIT("{\"a\":1}"), sig);
    assert_ok(proc_keyd_account_sign(f->client, header, (struct att_slice){0}, sig, &err));
    verify_jws(f, header, (struct att_slice){0}, sig);
    /* jwk: our own, as newAccount needs it. */
    struct proc_account account;
    att_autobuf text = {0};
    assert_ok(proc_keyd_account(f->client, &account, &err));
    assert_ok(acme_jws_protected("n", ISSUER "/new-account", account.jwk, NULL, &text, &err));
    assert_ok(
        proc_keyd_account_sign(f->client, att_buf_slice(&text), ATT_SLICE_LIT("{}"), sig, &err));
    verify_jws(f, att_buf_slice(&text), ATT_SLICE_LIT("{}"), sig);
    char thumbprint[ACME_THUMBPRINT_LEN];
    assert_ok(acme_spki_thumbprint(att_buf_slice(&account.spki), thumbprint, &err));
    assert_string_equal(thumbprint, account.thumbprint);
    proc_account_done(&account);
}

static void long_payloads_are_signed_in_parts(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct att_slice header = ATT_SLICE_LIT(HEADER(ISSUER "/chall/1"));
    static const size_t lengths[] = {PROC_JWS_PAYLOAD_MAX, PROC_JWS_PAYLOAD_MAX + 1,
                                     2 * PROC_JWS_PAYLOAD_MAX + 2, 3 << 20};
    uint8_t *bytes = malloc(PROC_JWS_TOTAL_MAX + 1), sig[64];
    for (size_t i = 0; i < PROC_JWS_TOTAL_MAX + 1; i++) {
        bytes[i] = (uint8_t)(i * 7 + i / 251);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_ok(
            proc_keyd_account_sign(f->client, header, ATT_SLICE(bytes, lengths[i]), sig, &err));
        verify_jws(f, header, ATT_SLICE(bytes, lengths[i]), sig);
    }
    assert_int_equal(proc_keyd_account_sign(f->client, header,
                                            ATT_SLICE(bytes, PROC_JWS_TOTAL_MAX + 1), sig, &err),
                     ATT_E_LIMIT);
    att_err_clear(&err);
    assert_refused(proc_keyd_account_sign(f->client,
                                          ATT_SLICE_LIT(HEADER("https://evil.example/x")),
                                          ATT_SLICE(bytes, lengths[1]), sig, &err),
                   ATT_E_DENIED, "jwsUrl");
    free(bytes);
}

/* ---- keys ---------------------------------------------------------------------------------- */

static void one_key(struct fixture *f, const char *agent, struct proc_key *ret)
{
    struct att_err err = {0};
    assert_ok(proc_keyd_key_create(f->client, agent, "tpm", ret, &err));
}

static void keys_are_what_the_issuer_asks_for(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key;
    struct parse_public pub;
    struct parse_name name;
    struct proc_key_evidence ev = {0};
    char authz[128];
    att_autobuf spki = {0}, cbor = {0};
    one_key(f, "rebalancer", &key);
    assert_string_equal(key.agent, "rebalancer");
    assert_string_equal(key.state, "new");
    assert_string_equal(key.store, "tpm");
    assert_string_equal(key.type, "ec-p256");
    key_authorization(f, authz);
    statement(&key, SPIFFE("rebalancer"), &cbor);
    assert_ok(proc_keyd_key_evidence(f->client, key.key_id, authz, att_buf_slice(&cbor), SELECTION,
                                     &ev, &err));
    assert_ok(parse_public_parse(att_buf_slice(&ev.pub_area), &pub, &err));
    assert_ok(parse_public_check_agent(&pub, &err));
    assert_ok(parse_name_of_area(att_buf_slice(&ev.pub_area), &name, &err));
    assert_true(att_slice_eq(parse_name_slice(&name), att_buf_slice(&key.name)));
    assert_ok(parse_public_spki(&pub, &spki, &err));
    assert_true(att_slice_eq(att_buf_slice(&spki), att_buf_slice(&key.spki)));
    char path[300];
    struct stat st;
    snprintf(path, sizeof path, "%s/agents/%s.pem", f->dir, key.key_id);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    proc_key_evidence_done(&ev);
    proc_key_done(&key);
}

static void creation_is_refused(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key = {0};
    assert_int_equal(proc_keyd_key_create(f->client, "Bad/Name", "tpm", &key, &err), ATT_E_INVAL);
    att_err_clear(&err);
    assert_int_equal(proc_keyd_key_create(f->client, "..", "tpm", &key, &err), ATT_E_INVAL);
    for (int i = 0; i < KEYD_AGENT_KEYS_MAX; i++) {
        one_key(f, "many", &key);
        proc_key_done(&key);
    }
    att_err_clear(&err);
    assert_int_equal(proc_keyd_key_create(f->client, "many", "tpm", &key, &err), ATT_E_LIMIT);
    one_key(f, "other", &key);
    proc_key_done(&key);
    att_err_clear(&err);
    assert_refused(proc_keyd_key_create(f->client, "other", "paper", &key, &err), ATT_E_UNSUPPORTED,
                   "keyStore");
    att_err_clear(&err); /* no HSM is configured here */
    assert_refused(proc_keyd_key_create(f->client, "other", "hsm", &key, &err), ATT_E_UNSUPPORTED,
                   "keyStore");
}

static const struct proc_key *listed(const struct proc_key *keys, size_t count, const char *id)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(keys[i].key_id, id) == 0) {
            return &keys[i];
        }
    }
    return NULL;
}

static void expect_state(struct fixture *f, const char *id, const char *want)
{
    struct att_err err = {0};
    struct proc_key *keys = NULL;
    size_t count = 0;
    assert_ok(proc_keyd_key_list(f->client, &keys, &count, &err));
    const struct proc_key *key = listed(keys, count, id);
    if (want) {
        assert_non_null(key);
        assert_string_equal(key->state, want);
    } else {
        assert_null(key);
    }
    proc_keys_free(keys, count);
}

static void states_move_and_last(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key first, second, other;
    one_key(f, "a", &first);
    one_key(f, "a", &second);
    one_key(f, "b", &other);
    assert_ok(proc_keyd_key_activate(f->client, first.key_id, &err));
    assert_ok(proc_keyd_key_activate(f->client, other.key_id, &err));
    expect_state(f, first.key_id, "active");
    assert_ok(proc_keyd_key_activate(f->client, second.key_id, &err));
    expect_state(f, first.key_id, "retired");
    expect_state(f, second.key_id, "active");
    expect_state(f, other.key_id, "active");
    assert_ok(proc_keyd_key_retire(f->client, other.key_id, &err));
    assert_ok(proc_keyd_key_destroy(f->client, first.key_id, &err));
    assert_ok(proc_keyd_key_destroy(f->client, first.key_id, &err)); /* absent is what was wanted */
    assert_int_equal(proc_keyd_key_activate(f->client, first.key_id, &err), ATT_E_NOTFOUND);
    att_err_clear(&err);
    stop(f);
    start(f);
    expect_state(f, first.key_id, NULL);
    expect_state(f, second.key_id, "active");
    expect_state(f, other.key_id, "retired");
    proc_key_done(&first);
    proc_key_done(&second);
    proc_key_done(&other);
}

static void long_lists_come_in_pages(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key *keys = NULL;
    size_t count = 0;
    char agent[16];
    for (int i = 0; i < PROC_KEY_PAGE + 5; i++) {
        struct proc_key key;
        snprintf(agent, sizeof agent, "a%d", i);
        one_key(f, agent, &key);
        proc_key_done(&key);
    }
    assert_ok(proc_keyd_key_list(f->client, &keys, &count, &err));
    assert_int_equal(count, PROC_KEY_PAGE + 5);
    for (size_t i = 1; i < count; i++) {
        assert_true(strcmp(keys[i - 1].key_id, keys[i].key_id) < 0);
    }
    proc_keys_free(keys, count);
}

/* ---- evidence ------------------------------------------------------------------------------ */

static void evidence_is_refused_by_name(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key, other;
    struct proc_key_evidence ev = {0};
    char authz[128];
    att_autobuf good = {0}, agent = {0}, path = {0}, swapped = {0}, tail = {0};
    one_key(f, "a", &key);
    one_key(f, "b", &other);
    key_authorization(f, authz);
    statement(&key, SPIFFE("a"), &good);
    statement(&key, SPIFFE("b"), &agent);
    statement(&key, "spiffe://bank.example/other/a", &path);
    statement(&other, SPIFFE("a"), &swapped);
    att_buf_put_slice(&tail, att_buf_slice(&good));
    att_buf_u8(&tail, 0);
#define EVIDENCE(id, auth, cbor, sel)                                                              \
    proc_keyd_key_evidence(f->client, (id), (auth), att_buf_slice(&(cbor)), (sel), &ev, &err)
    assert_refused(EVIDENCE(key.key_id, authz, agent, SELECTION), ATT_E_DENIED, "evidenceAgent");
    assert_refused(EVIDENCE(key.key_id, authz, path, SELECTION), ATT_E_DENIED, "evidenceAgent");
    assert_refused(EVIDENCE(key.key_id, authz, swapped, SELECTION), ATT_E_DENIED, "evidenceKey");
    assert_refused(EVIDENCE(other.key_id, authz, good, SELECTION), ATT_E_DENIED, "evidenceKey");
    char foreign[128];
    snprintf(foreign, sizeof foreign, "%s", authz);
    foreign[strlen(foreign) - 1] = foreign[strlen(foreign) - 1] == 'A' ? 'B' : 'A';
    assert_refused(EVIDENCE(key.key_id, foreign, good, SELECTION), ATT_E_DENIED,
                   "keyAuthorization");
    assert_refused(EVIDENCE(key.key_id, authz + 1, good, SELECTION), ATT_E_DENIED,
                   "keyAuthorization");
    assert_refused(EVIDENCE(key.key_id, TOKEN, good, SELECTION), ATT_E_DENIED, "keyAuthorization");
    authz[3] = '.';
    assert_refused(EVIDENCE(key.key_id, authz, good, SELECTION), ATT_E_DENIED, "keyAuthorization");
    authz[3] = 'A';
    assert_int_equal(EVIDENCE(key.key_id, authz, tail, SELECTION), ATT_E_PARSE);
    att_err_clear(&err);
    assert_int_equal(EVIDENCE(key.key_id, authz, good, "sha256:"), ATT_E_PARSE);
    att_err_clear(&err);
    assert_int_equal(EVIDENCE(key.key_id, authz, good, "sha1:0"), ATT_E_UNSUPPORTED);
    att_err_clear(&err);
    assert_int_equal(EVIDENCE("00000000000000000000000000000000", authz, good, SELECTION),
                     ATT_E_NOTFOUND);
    att_err_clear(&err);
    assert_ok(EVIDENCE(key.key_id, authz, good, SELECTION)); /* only what was wrong made it fail */
    proc_key_evidence_done(&ev);
    proc_key_done(&key);
    proc_key_done(&other);
}

static void check_quote(const struct proc_quote *quote, const struct parse_public *ak,
                        const uint8_t extra[32])
{
    struct att_err err = {0};
    struct parse_attest attest;
    struct parse_pcr_sel sel;
    struct parse_pcr_set set;
    uint8_t raw[PARSE_PCR_RAW_LEN], digest[PARSE_DIGEST_MAX];
    size_t len = 0;
    assert_ok(
        parse_sig_verify(ak, att_buf_slice(&quote->sig), att_buf_slice(&quote->attest), &err));
    assert_ok(parse_attest_quote(att_buf_slice(&quote->attest), &attest, &err));
    assert_true(att_slice_eq(attest.extra_data, ATT_SLICE(extra, 32)));
    assert_ok(parse_pcr_sel_parse(SELECTION, &sel, &err));
    assert_ok(parse_pcr_sel_raw(&sel, raw, &err));
    assert_true(att_slice_eq(attest.u.quote.pcr_select, ATT_SLICE_ARRAY(raw)));
    assert_ok(parse_pcr_set_from_json(quote->pcrs, &sel, &set, &err));
    assert_ok(parse_pcr_set_digest(&set, PARSE_ALG_SHA256, digest, &len, &err));
    assert_true(att_slice_eq(attest.u.quote.pcr_digest, ATT_SLICE(digest, len)));
}

static void the_ak(struct fixture *f, struct parse_public *ret)
{
    struct att_err err = {0};
    struct proc_identity id;
    assert_ok(proc_keyd_identity(f->client, &id, &err));
    assert_ok(parse_public_parse(id.ak_pub, ret, &err));
    assert_ok(parse_public_check_ak(ret, &err));
    proc_identity_done(&id);
}

static void evidence_binds_key_account_and_boot(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key;
    struct proc_key_evidence ev = {0};
    struct parse_public ak;
    struct parse_attest certify;
    char authz[128];
    uint8_t extra[32];
    att_autobuf cbor = {0};
    one_key(f, "a", &key);
    the_ak(f, &ak);
    key_authorization(f, authz);
    statement(&key, SPIFFE("a"), &cbor);
    assert_ok(EVIDENCE(key.key_id, authz, cbor, SELECTION));
    assert_ok(
        parse_sig_verify(&ak, att_buf_slice(&ev.cert_sig), att_buf_slice(&ev.cert_info), &err));
    assert_ok(parse_attest_certify(att_buf_slice(&ev.cert_info), &certify, &err));
    evidence_certify_extra(extra, att_slice_str(authz));
    assert_true(att_slice_eq(certify.extra_data, ATT_SLICE_ARRAY(extra)));
    assert_true(att_slice_eq(certify.u.certify.name, att_buf_slice(&key.name)));
    /* Its place: a child of the SRK in the owner hierarchy. */
    struct parse_name chain[2], qualified;
    assert_ok(parse_name_of_area(att_buf_slice(&ev.srk_pub), &chain[0], &err));
    assert_ok(parse_name_of_area(att_buf_slice(&ev.pub_area), &chain[1], &err));
    assert_ok(parse_name_qualified(PARSE_RH_OWNER, chain, 2, &qualified, &err));
    assert_true(att_slice_eq(certify.u.certify.qualified_name, parse_name_slice(&qualified)));
    assert_int_equal(ev.parent_pub.len, 0);
    evidence_quote_extra(extra, att_slice_str(authz), att_buf_slice(&ev.cert_info),
                         att_buf_slice(&cbor));
    check_quote(&ev.quote, &ak, extra);
    proc_key_evidence_done(&ev);
    proc_key_done(&key);
}

static void quotes_for_an_operator_are_of_their_own_kind(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_quote quote;
    struct parse_public ak;
    uint8_t extra[32], want[32];
    the_ak(f, &ak);
    assert_int_equal(proc_keyd_user_quote(f->client, ATT_SLICE_LIT("1234567"), SELECTION, NO_LOGS,
                                          &quote, extra, &err),
                     ATT_E_INVAL);
    att_err_clear(&err);
    assert_int_equal(proc_keyd_user_quote(f->client, ATT_SLICE_LIT("12345678"), SELECTION,
                                          ATT_SLICE_LIT("junk"), &quote, extra, &err),
                     ATT_E_PARSE);
    att_err_clear(&err);
    assert_ok(proc_keyd_user_quote(f->client, ATT_SLICE_LIT("12345678"), SELECTION, NO_LOGS, &quote,
                                   extra, &err));
    evidence_user_quote_extra(want, ATT_SLICE_LIT("12345678"), NO_LOGS);
    assert_memory_equal(extra, want, 32);
    check_quote(&quote, &ak, want);
    proc_quote_done(&quote);
}

/* ---- KEY_TOKEN ----------------------------------------------------------------------------- */

static enum att_rc token(struct fixture *f, const struct proc_key *key, const char *id,
                         struct att_buf *ret, struct att_err *err)
{
    static const char quote[] = "a\"b";
    const struct att_slice audience[] = {ATT_SLICE_LIT("https://api.example"),
                                         att_slice_str(quote)};
    att_buf_reset(ret);
    return proc_keyd_key_token(f->client, key->key_id, "0a1b", "of-the-issuer", id, audience, 2,
                               ret, err);
}

static void proof_is_by_the_key_in_force(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key;
    att_autobuf proof = {0}, h = {0}, c = {0}, sig = {0}, der = {0};
    certs_autokey *pub = NULL;
    one_key(f, "a", &key);
    assert_refused(token(f, &key, SPIFFE("a"), &proof, &err), ATT_E_DENIED, "keyState");
    assert_ok(proc_keyd_key_activate(f->client, key.key_id, &err));
    assert_refused(token(f, &key, SPIFFE("b"), &proof, &err), ATT_E_DENIED, "tokenAgent");
    assert_refused(token(f, &key, "https://bank.example/agent/a", &proof, &err), ATT_E_DENIED,
                   "tokenAgent");
    assert_ok(proc_keyd_freeze(f->client, "a", &err));
    assert_refused(token(f, &key, SPIFFE("a"), &proof, &err), ATT_E_DENIED, "frozen");
    assert_ok(proc_keyd_thaw(f->client, "a", &err));
    assert_ok(token(f, &key, SPIFFE("a"), &proof, &err));
    char *head = strdup(att_buf_cstr(&proof));
    char *claims = strchr(head, '.') + 1, *end = strchr(claims, '.');
    size_t input = (size_t)(end - head);
    claims[-1] = *end = 0;
    assert_ok(att_unb64u(&h, att_slice_str(head), &err));
    assert_ok(att_unb64u(&c, att_slice_str(claims), &err));
    assert_ok(att_unb64u(&sig, att_slice_str(end + 1), &err));
    assert_string_equal(att_buf_cstr(&h), "{\"alg\":\"ES256\",\"typ\":\"attestd-token\","
                                          "\"kid\":\"0a1b\"}");
    assert_string_equal(att_buf_cstr(&c),
                        "{\"nonce\":\"of-the-issuer\",\"spiffeId\":\"" SPIFFE(
                            "a") "\","
                                 "\"audience\":[\"https://api.example\",\"a\\\"b\"]}");
    assert_int_equal(sig.len, 64);
    assert_ok(certs_key_from_spki(att_buf_slice(&key.spki), &pub, &err));
    assert_ok(certs_sig_der(ATT_SLICE(sig.ptr, 32), ATT_SLICE(sig.ptr + 32, 32), &der, &err));
    assert_ok(certs_sig_verify(pub, ATT_SLICE(proof.ptr, input), att_buf_slice(&der), &err));
    free(head);
    proc_key_done(&key);
}

/* ---- CSR ----------------------------------------------------------------------------------- */

static void csr_is_for_this_agent_only(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key;
    struct certs_csr csr;
    att_autobuf der = {0};
    one_key(f, "a", &key);
    assert_refused(proc_keyd_key_csr(f->client, key.key_id, SPIFFE("b"), &der, &err), ATT_E_DENIED,
                   "csrAgent");
    assert_refused(
        proc_keyd_key_csr(f->client, key.key_id, "spiffe://bank.example/x/agent/a", &der, &err),
        ATT_E_DENIED, "csrAgent");
    assert_refused(
        proc_keyd_key_csr(f->client, key.key_id, "https://bank.example/agent/a", &der, &err),
        ATT_E_DENIED, "csrAgent");
    assert_int_equal(der.len, 0);
    assert_ok(proc_keyd_key_csr(f->client, key.key_id, SPIFFE("a"), &der, &err));
    assert_ok(certs_csr_verify(att_buf_slice(&der), SPIFFE("a"), &csr, &err));
    assert_true(att_slice_eq(ATT_SLICE(csr.spki, csr.spki_len), att_buf_slice(&key.spki)));
    proc_key_done(&key);
}

/* ---- enrolment ----------------------------------------------------------------------------- */

struct challenge {
    uint8_t cv[32], m1[32], reply[32], nonce[32];
    struct att_buf blob, secret;
    struct parse_public ak;
};

static void challenge(struct fixture *f, struct challenge *c, size_t cv_len, bool for_other_name)
{
    struct att_err err = {0};
    struct proc_identity id;
    struct parse_public ek;
    struct parse_name name;
    *c = (struct challenge){0};
    memset(c->cv, 0x11, 32);
    memset(c->m1, 0x22, 32);
    memset(c->reply, 0x33, 32);
    memset(c->nonce, 0x44, 32);
    assert_ok(proc_keyd_identity(f->client, &id, &err));
    assert_ok(parse_public_parse(id.ek_pub, &ek, &err));
    assert_ok(parse_public_parse(id.ak_pub, &c->ak, &err));
    assert_ok(parse_name_parse(id.ak_name, &name, &err));
    if (for_other_name) {
        name.bytes[5] ^= 1;
    }
    assert_ok(
        parse_makecred_create(&ek, ATT_SLICE(c->cv, cv_len), &name, &c->blob, &c->secret, &err));
    proc_identity_done(&id);
}

static enum att_rc answer(struct fixture *f, const struct challenge *c, const char *url,
                          uint8_t proof[32], struct proc_quote *quote, struct att_err *err)
{
    const struct proc_enrol_args args = {att_buf_slice(&c->blob),
                                         att_buf_slice(&c->secret),
                                         url,
                                         c->m1,
                                         c->reply,
                                         ATT_SLICE_ARRAY(c->nonce),
                                         SELECTION,
                                         NO_LOGS};
    return proc_keyd_enrol_prove(f->client, &args, proof, quote, err);
}

static void enrolment_proves_what_the_issuer_computes(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct challenge c;
    struct proc_quote quote;
    struct proc_account account;
    uint8_t proof[32], want[32], k[32], extra[32];
    challenge(f, &c, 32, false);
    assert_ok(answer(f, &c, ISSUER "/ak/1", proof, &quote, &err));
    assert_ok(proc_keyd_account(f->client, &account, &err));
    assert_ok(enrol_schedule_k_digests(ATT_SLICE_ARRAY(c.cv), ISSUER "/ak/1", account.thumbprint,
                                       c.m1, c.reply, k, &err));
    enrol_schedule_proof(k, want);
    assert_memory_equal(proof, want, 32);
    enrol_schedule_quote_extra(k, c.nonce, NO_LOGS, extra);
    check_quote(&quote, &c.ak, extra);
    proc_account_done(&account);
    proc_quote_done(&quote);
    att_buf_done(&c.blob);
    att_buf_done(&c.secret);
}

static void enrolment_is_refused_by_name(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct challenge c;
    struct proc_quote quote;
    uint8_t proof[32];
    challenge(f, &c, 32, false);
    assert_refused(answer(f, &c, "https://evil.example/acme/ak/1", proof, &quote, &err),
                   ATT_E_DENIED, "akUrl");
    c.blob.ptr[c.blob.len - 1] ^= 1;
    assert_refused(answer(f, &c, ISSUER "/ak/1", proof, &quote, &err), ATT_E_AUTH, "activation");
    att_buf_done(&c.blob);
    att_buf_done(&c.secret);
    challenge(f, &c, 32, true); /* made for another object than our AK */
    assert_refused(answer(f, &c, ISSUER "/ak/1", proof, &quote, &err), ATT_E_AUTH, "activation");
    att_buf_done(&c.blob);
    att_buf_done(&c.secret);
    challenge(f, &c, 16, false); /* solved, but not the 32 bytes of the protocol */
    assert_refused(answer(f, &c, ISSUER "/ak/1", proof, &quote, &err), ATT_E_AUTH, "activation");
    att_buf_done(&c.blob);
    att_buf_done(&c.secret);
}

/* ---- freeze, identity, info ---------------------------------------------------------------- */

static void frozen_agents_get_nothing(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key, other;
    struct proc_key_evidence ev = {0};
    char authz[128];
    att_autobuf cbor = {0}, der = {0};
    one_key(f, "a", &key);
    one_key(f, "b", &other);
    key_authorization(f, authz);
    statement(&key, SPIFFE("a"), &cbor);
    assert_ok(proc_keyd_freeze(f->client, "a", &err));
    for (int round = 0; round < 2; round++) {
        struct proc_key none;
        assert_refused(proc_keyd_key_create(f->client, "a", "tpm", &none, &err), ATT_E_DENIED,
                       "frozen");
        assert_refused(EVIDENCE(key.key_id, authz, cbor, SELECTION), ATT_E_DENIED, "frozen");
        assert_refused(proc_keyd_key_csr(f->client, key.key_id, SPIFFE("a"), &der, &err),
                       ATT_E_DENIED, "frozen");
        assert_refused(proc_keyd_key_activate(f->client, key.key_id, &err), ATT_E_DENIED, "frozen");
        assert_ok(proc_keyd_key_csr(f->client, other.key_id, SPIFFE("b"), &der, &err));
        stop(f); /* and still after a restart */
        start(f);
    }
    assert_ok(proc_keyd_thaw(f->client, "a", &err));
    assert_ok(EVIDENCE(key.key_id, authz, cbor, SELECTION));
    proc_key_evidence_done(&ev);
    proc_key_done(&key);
    proc_key_done(&other);
}

static void identity_is_whole(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_identity id;
    struct parse_public pub;
    struct parse_name name;
    enum parse_ek_template kind = PARSE_EK_NONE;
    assert_ok(proc_keyd_identity(f->client, &id, &err));
    assert_true(id.ek_cert_count >= 1);
    assert_true(id.ek_cert.len > 100);
    bool among = false;
    for (size_t i = 0; i < id.ek_cert_count; i++) {
        among = among || att_slice_eq(id.ek_certs[i], id.ek_cert);
    }
    assert_true(among);
    assert_ok(parse_public_parse(id.ek_pub, &pub, &err));
    assert_ok(parse_public_check_ek(&pub, &kind, &err));
    assert_ok(parse_public_parse(id.srk_pub, &pub, &err));
    assert_ok(parse_public_check_storage(&pub, &err));
    assert_ok(parse_name_of_area(id.ak_pub, &name, &err));
    assert_true(att_slice_eq(parse_name_slice(&name), id.ak_name));
    assert_string_equal(id.manufacturer, "49424d00"); /* swtpm says IBM */
    assert_int_equal(strlen(id.firmware), 16);
    proc_identity_done(&id);
}

static void info_tells_the_tpm(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key;
    att_autojson *info = NULL;
    one_key(f, "a", &key);
    proc_key_done(&key);
    assert_ok(proc_keyd_info(f->client, &info, &err));
    const char *state_text = NULL, *manufacturer = NULL, *bank = NULL;
    json_int_t keys = 0, counter = -1, created = 0;
    assert_int_equal(json_unpack(info, "{s:s, s:I, s:{s:s, s:I, s:[s]}, s:{s:{s:I}}, s:[], s:[]}",
                                 "state", &state_text, "keys", &keys, "tpm", "manufacturer",
                                 &manufacturer, "lockoutCounter", &counter, "banks", &bank, "ops",
                                 tpm_op_name(TPM_OP_CREATE), "n", &created, "bad", "frozen"),
                     0);
    assert_string_equal(state_text, "ready");
    assert_string_equal(manufacturer, "49424d00");
    assert_string_equal(bank, "sha256");
    assert_int_equal(keys, 1);
    assert_int_equal(counter, 0);
    assert_int_equal(created, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_KEYD(account_signs_only_for_the_issuer),
        WITH_KEYD(creation_is_refused),
        WITH_KEYD(evidence_is_refused_by_name),
        WITH_KEYD(enrolment_is_refused_by_name),
        WITH_KEYD(proof_is_by_the_key_in_force),
        WITH_KEYD(csr_is_for_this_agent_only),
        WITH_KEYD(frozen_agents_get_nothing),
        WITH_KEYD(quotes_for_an_operator_are_of_their_own_kind),
        WITH_KEYD(account_signs_what_verifies),
        WITH_KEYD(long_payloads_are_signed_in_parts),
        WITH_KEYD(keys_are_what_the_issuer_asks_for),
        WITH_KEYD(states_move_and_last),
        WITH_KEYD(long_lists_come_in_pages),
        WITH_KEYD(evidence_binds_key_account_and_boot),
        WITH_KEYD(enrolment_proves_what_the_issuer_computes),
        WITH_KEYD(identity_is_whole),
        WITH_KEYD(info_tells_the_tpm),
    };
    return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
