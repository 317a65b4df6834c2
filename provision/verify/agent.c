#include "provision/verify/agent.h"

#include "attestd/base/enc.h"
#include "certs/chain.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "provision/evidence/attobj.h"
#include "provision/evidence/formula.h"
#include "provision/evidence/statement.h"
#include "provision/verify/keyplace.h"
#include "provision/verify/steps.h"
#include "tpm/parse/sig.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

static const enum verify_reason agent_plan[] = {
    VERIFY_REASON_MALFORMED,
    VERIFY_REASON_KEY_STORE,
    VERIFY_REASON_KEY_TYPE,
    VERIFY_REASON_KEY_HSM,
    VERIFY_REASON_AK_UNKNOWN,
    VERIFY_REASON_AK_ATTRIBUTES,
    VERIFY_REASON_CERTIFY_TYPE,
    VERIFY_REASON_CERTIFY_SIGNATURE,
    VERIFY_REASON_CERTIFY_NONCE,
    VERIFY_REASON_CERTIFY_NAME,
    VERIFY_REASON_KEY_ATTRIBUTES,
    VERIFY_REASON_KEY_PARENT,
    VERIFY_REASON_QUOTE_MAGIC,
    VERIFY_REASON_QUOTE_TYPE,
    VERIFY_REASON_QUOTE_SIGNATURE,
    VERIFY_REASON_AK_HIERARCHY,
    VERIFY_REASON_QUOTE_NONCE,
    VERIFY_REASON_PCR_SELECTION,
    VERIFY_REASON_PCR_DIGEST,
    VERIFY_REASON_TPM_CLEARED,
    VERIFY_REASON_CLOCK_ROLLBACK,
    VERIFY_REASON_AK_STALE,
    VERIFY_REASON_EVIDENCE_MISMATCH,
    VERIFY_REASON_LOG_MISSING,
    VERIFY_REASON_LOG_REPLAY,
    VERIFY_REASON_POLICY_MISSING,
    VERIFY_REASON_POLICY_UNSIGNED,
    VERIFY_REASON_POLICY_SIGNER,
    VERIFY_REASON_POLICY_NOT_YET_VALID,
    VERIFY_REASON_POLICY_EXPIRED,
    VERIFY_REASON_BOOT_POLICY,
};

/* Everything read from what the host sent; the slices point into it. */
struct read {
    enum evidence_fmt fmt;
    struct att_slice ak_cert, certify_sig, cert_info, pub_area, spki, attributes;
    int alg;
    struct parse_public ak, key;
    struct parse_name ak_name, key_name;
    uint8_t ak_spki[VERIFY_SPKI_MAX], key_spki[VERIFY_SPKI_MAX];
    size_t ak_spki_len, key_spki_len;
    enum att_keytype type; /* NONE: no type that we know; then why_type says why */
    struct att_err why_type;
    struct verify_statement certify, quote;
    struct evidence_statement evidence;
    struct verify_key_place place;
    struct evidence_hsm_attrs attrs; /* EVIDENCE_FMT_HSM */
    const char *store;               /* set by check_store */
    struct verify_replayed replayed; /* set by judge_quote */
    bool stated;                     /* the statement is quoted, for this order, now */
};

static void pkey_done(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
}

/* ---- malformed ------------------------------------------------------------------------------- */

static bool read_statement(const struct verify_agent_in *in, struct read *read,
                           struct verify_verdict *verdict)
{
    if (in->att_obj.len == 0) {
        read->ak_cert = in->ak_cert;
        read->certify_sig = in->certify_sig;
        read->cert_info = in->cert_info;
        read->pub_area = in->pub_area;
        read->spki = in->spki;
        read->attributes = in->attributes;
        read->alg = att_keytype_modulus(in->spki).len ? EVIDENCE_COSE_PS256 : EVIDENCE_COSE_ES256;
        read->fmt = in->attributes.len ? EVIDENCE_FMT_HSM
                    : in->spki.len     ? EVIDENCE_FMT_HOST
                                       : EVIDENCE_FMT_TPM;
        return true;
    }
    struct evidence_attobj attobj;
    struct att_err err = {0};
    if (evidence_attobj_parse(in->att_obj, &attobj, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "attObj: %s", err.msg);
        return false;
    }
    if (attobj.x5c_len < 1) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "attObj: x5c is empty");
        return false;
    }
    read->ak_cert = attobj.x5c[0];
    read->certify_sig = attobj.sig;
    read->cert_info = attobj.cert_info;
    read->pub_area = attobj.pub_area;
    read->spki = attobj.spki;
    read->attributes = attobj.attributes;
    read->alg = attobj.alg;
    read->fmt = attobj.fmt;
    return true;
}

static bool read_key(struct att_slice area, const char *what, struct parse_public *pub,
                     struct parse_name *name, uint8_t spki[VERIFY_SPKI_MAX], size_t *spki_len,
                     struct verify_verdict *verdict)
{
    att_autobuf der = ATT_BUF_INIT(VERIFY_SPKI_MAX);
    struct att_err err = {0};
    if (!verify_step_area(area, what, pub, verdict)) {
        return false;
    }
    if (parse_name_of_area(area, name, &err) || parse_public_spki(pub, &der, &err) ||
        att_buf_ok(&der, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "%s: %s", what, err.msg);
        return false;
    }
    memcpy(spki, der.ptr, der.len);
    *spki_len = der.len;
    return true;
}

/* What a TPM states of the key. */
static bool read_certified(const struct verify_agent_in *in, struct read *read,
                           struct verify_verdict *verdict)
{
    return read_key(read->pub_area, "pubArea", &read->key, &read->key_name, read->key_spki,
                    &read->key_spki_len, verdict) &&
           verify_step_statement(read->cert_info, PARSE_ATTEST_CERTIFY, "certInfo", &read->certify,
                                 verdict) &&
           verify_step_signature(read->certify_sig, "attObj sig", verdict) &&
           verify_key_place_read(in, &read->place, verdict);
}

/* The key itself, in the one encoding that we write: P-256 or RSA; nothing of a TPM's key beside
 * it. An RSA key of a size or exponent that nobody is given is whole all the same: keyType refuses.
 */
static bool read_stated(const struct verify_agent_in *in, struct read *read,
                        struct verify_verdict *verdict)
{
    struct att_err err = {0};
    bool hsm = read->fmt == EVIDENCE_FMT_HSM;
    if ((read->certify_sig.len && !hsm) || read->cert_info.len || read->pub_area.len ||
        in->srk_pub.len || in->parent_pub.len) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED,
                    "fmt %s: certInfo, its signature, pubArea, srkPub and parentPub are of a key "
                    "in a TPM",
                    evidence_fmt_name(read->fmt));
        return false;
    }
    if (hsm && evidence_hsm_attrs_parse(read->attributes, &read->attrs, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "attObj: %s", err.msg);
        return false;
    }
    if (read->spki.len > sizeof(read->key_spki)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "spki (%zu bytes): too long", read->spki.len);
        return false;
    }
    enum att_rc rc = att_keytype_of_spki(read->spki, &read->type, &read->why_type);
    if (rc != ATT_OK && rc != ATT_E_DENIED) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "spki (%zu bytes): %s", read->spki.len,
                    read->why_type.msg);
        return false;
    }
    size_t sig_len = att_keytype_sig_len(read->type);
    if (hsm && rc == ATT_OK && read->certify_sig.len != sig_len) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED,
                    "attObj sig: %zu bytes, expected %zu of a key of type %s",
                    read->certify_sig.len, sig_len, att_keytype_name(read->type));
        return false;
    }
    memcpy(read->key_spki, read->spki.ptr, read->spki.len);
    read->key_spki_len = read->spki.len;
    return true;
}

static bool read_all(const struct verify_agent_in *in, struct read *read,
                     struct verify_verdict *verdict)
{
    struct att_err err = {0};
    if (!in->key_authorization || !in->key_authorization[0] || !in->identifier ||
        !in->identifier[0]) {
        verify_fail(verdict, VERIFY_REASON_INTERNAL, "no order to judge the evidence by");
        return false;
    }
    if (!read_statement(in, read, verdict) ||
        !read_key(in->ak.ak_pub, "the AK's public area", &read->ak, &read->ak_name, read->ak_spki,
                  &read->ak_spki_len, verdict) ||
        !(read->fmt == EVIDENCE_FMT_TPM ? read_certified : read_stated)(in, read, verdict) ||
        !verify_step_quote_form(&in->quoted, &read->quote, verdict)) {
        return false;
    }
    if (evidence_statement_parse(in->evidence, &read->evidence, &err)) {
        verify_fail(verdict, VERIFY_REASON_MALFORMED, "evidence: %s", err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_MALFORMED, "every structure parses whole");
    return true;
}

/* ---- the key's statement --------------------------------------------------------------------- */

/* The kinds of key, each with the one format of statement that speaks for it. */
static const struct {
    const char *name;
    uint32_t bit;
    enum evidence_fmt fmt;
} kinds[] = {{"tpm", VERIFY_KEY_TPM, EVIDENCE_FMT_TPM},
             {"hsm", VERIFY_KEY_HSM, EVIDENCE_FMT_HSM},
             {"memory", VERIFY_KEY_MEMORY, EVIDENCE_FMT_HOST},
             {"exportable", VERIFY_KEY_EXPORTABLE, EVIDENCE_FMT_HOST}};

/* "tpm" for its bit; for people. */
static const char *kind_name(uint32_t bit)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (bit == kinds[i].bit) {
            return kinds[i].name;
        }
    }
    return "none";
}

static bool check_store(const struct verify_agent_in *in, struct read *read,
                        struct verify_verdict *verdict)
{
    size_t i = 0, n = sizeof(kinds) / sizeof(kinds[0]);
    while (i < n && strcmp(read->evidence.key_store, kinds[i].name) != 0) {
        i++;
    }
    if (i == n || kinds[i].fmt != read->fmt) {
        verify_fail(verdict, VERIFY_REASON_KEY_STORE,
                    "evidence says keyStore \"%s\", for which a statement of fmt \"%s\" does not "
                    "speak",
                    read->evidence.key_store, evidence_fmt_name(read->fmt));
        return false;
    }
    if (!(in->key_stores & kinds[i].bit)) {
        verify_fail(verdict, VERIFY_REASON_KEY_STORE,
                    "the profile does not allow keys of kind \"%s\"", kinds[i].name);
        return false;
    }
    if (in->entry_store && in->entry_store != kinds[i].bit) {
        verify_fail(verdict, VERIFY_REASON_KEY_STORE,
                    "evidence says keyStore \"%s\", the agent's entry says \"%s\"", kinds[i].name,
                    kind_name(in->entry_store));
        return false;
    }
    read->store = kinds[i].name;
    verify_pass(verdict, VERIFY_REASON_KEY_STORE, "a key of kind \"%s\", as the profile allows",
                kinds[i].name);
    return true;
}

/* "ec-p256" for its bit; for people. */
static const char *type_name(uint32_t bit)
{
    for (unsigned i = ATT_KEYTYPE_P256; i < ATT_KEYTYPE_COUNT; i++) {
        if (bit == VERIFY_TYPE(i)) {
            return att_keytype_name((enum att_keytype)i);
        }
    }
    return "none";
}

/* Which types there are, RSA of 2048 bits or more with exponent 65537, is att_keytype's rule; only
 * an HSM's key may be of RSA. A TPM's type is its public area's (keyAttributes). */
static bool check_type(const struct verify_agent_in *in, const struct read *read,
                       struct verify_verdict *verdict)
{
    enum att_keytype type = read->fmt == EVIDENCE_FMT_TPM ? ATT_KEYTYPE_P256 : read->type;
    if (type == ATT_KEYTYPE_NONE) {
        verify_fail(verdict, VERIFY_REASON_KEY_TYPE, "spki: %s", read->why_type.msg);
        return false;
    }
    if (att_keytype_is_rsa(type) && read->fmt != EVIDENCE_FMT_HSM) {
        verify_fail(verdict, VERIFY_REASON_KEY_TYPE,
                    "a key of kind \"%s\" is on P-256, this one is of type \"%s\"", read->store,
                    att_keytype_name(type));
        return false;
    }
    if (!(in->key_types & VERIFY_TYPE(type))) {
        verify_fail(verdict, VERIFY_REASON_KEY_TYPE,
                    "the profile does not allow keys of type \"%s\"", att_keytype_name(type));
        return false;
    }
    if (in->entry_type && in->entry_type != VERIFY_TYPE(type)) {
        verify_fail(verdict, VERIFY_REASON_KEY_TYPE,
                    "the key is of type \"%s\", the agent's entry says \"%s\"",
                    att_keytype_name(type), type_name(in->entry_type));
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_KEY_TYPE, "a key of type \"%s\", as the profile allows",
                att_keytype_name(type));
    return true;
}

/* What a module says of its token is for people and records: no check rests on it. */
static void tell_module(const struct read *read, struct verify_verdict *verdict)
{
    const struct evidence_hsm_token *token = &read->evidence.hsm_token;
    if (read->evidence.has_hsm_token) {
        verify_pass(verdict, VERIFY_REASON_KEY_HSM,
                    "a key in the HSM module \"%s\" (the host's word); its token by the module's "
                    "word: manufacturer \"%s\", model \"%s\", serial number \"%s\"",
                    read->evidence.hsm, token->manufacturer, token->model, token->serial);
    } else {
        verify_pass(verdict, VERIFY_REASON_KEY_HSM,
                    "a key in the HSM module \"%s\" (the host's word)", read->evidence.hsm);
    }
}

/* Which of its host's HSM modules has the key is the host's word, as its keyStore is. A host of a
 * version before that does not say: it is refused only where the profile names modules. */
static bool check_hsm(const struct verify_agent_in *in, const struct read *read,
                      struct verify_verdict *verdict)
{
    const char *name = read->evidence.hsm;
    bool allowed = in->n_hsms == 0;
    if (read->fmt != EVIDENCE_FMT_HSM) {
        verify_skip(verdict, VERIFY_REASON_KEY_HSM, "a key of kind \"%s\" is in no HSM",
                    read->store);
        return true;
    }
    if (!name[0] && in->n_hsms) {
        verify_fail(
            verdict, VERIFY_REASON_KEY_HSM,
            "the profile names the HSM modules that it allows, and the host does not say in "
            "which one the key is");
        return false;
    }
    for (size_t i = 0; i < in->n_hsms && !allowed; i++) {
        allowed = strcmp(in->hsms[i], name) == 0;
    }
    if (!allowed) {
        verify_fail(verdict, VERIFY_REASON_KEY_HSM,
                    "the profile does not allow keys in the HSM module \"%s\"", name);
        return false;
    }
    if (name[0] && in->entry_hsm && strcmp(in->entry_hsm, name) != 0) {
        verify_fail(verdict, VERIFY_REASON_KEY_HSM,
                    "the key is in the HSM module \"%s\", the agent's entry says \"%s\"", name,
                    in->entry_hsm);
        return false;
    }
    if (!name[0]) {
        verify_skip(verdict, VERIFY_REASON_KEY_HSM,
                    "the host does not say which of its HSM modules has the key");
    } else {
        tell_module(read, verdict);
    }
    return true;
}

static bool check_known(const struct verify_agent_in *in, const struct read *read,
                        struct verify_verdict *verdict)
{
    struct att_err err = {0};
    certs_autox509 *cert = NULL;
    struct att_slice spki = ATT_SLICE(read->ak_spki, read->ak_spki_len);
    bool issued = in->ak.ak_cert.len > 0;
    if (issued && !att_slice_eq(read->ak_cert, in->ak.ak_cert)) {
        verify_fail(verdict, VERIFY_REASON_AK_UNKNOWN,
                    "x5c[0] is not the AK certificate that this host's enrolment was given");
        return false;
    }
    /* What was issued is known byte by byte and is not read again. */
    if (issued ? certs_der_matches_spki(read->ak_cert, spki, &err)
               : certs_cert_parse(read->ak_cert, &cert, &err) ||
                     certs_cert_matches_spki(cert, spki, &err)) {
        verify_fail(verdict, VERIFY_REASON_AK_UNKNOWN, "x5c[0] is not for the AK on record: %s",
                    err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_AK_UNKNOWN, "the AK is the one on record");
    return true;
}

static bool check_certify_header(const struct read *read, struct verify_verdict *verdict)
{
    const struct verify_statement *certify = &read->certify;
    if (certify->magic != PARSE_MAGIC) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_TYPE,
                    "certInfo starts with 0x%08x, expected TPM_GENERATED 0x%08x", certify->magic,
                    PARSE_MAGIC);
        return false;
    }
    if (certify->type != PARSE_ATTEST_CERTIFY || !certify->parsed) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_TYPE,
                    "certInfo has type 0x%04x (%s), expected 0x%04x (a TPM2_Certify)",
                    certify->type, verify_statement_name(certify->type), PARSE_ATTEST_CERTIFY);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CERTIFY_TYPE, "certInfo is a TPM2_Certify");
    return true;
}

static bool check_certify_signature(const struct read *read, struct verify_verdict *verdict)
{
    struct att_err err = {0};
    if (read->alg != EVIDENCE_COSE_ES256) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_SIGNATURE,
                    "attObj says alg %d, expected %d (ES256, the AK's scheme)", read->alg,
                    EVIDENCE_COSE_ES256);
        return false;
    }
    if (parse_sig_verify(&read->ak, read->certify_sig, read->cert_info, &err)) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_SIGNATURE, "attObj sig: %s", err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CERTIFY_SIGNATURE, "certInfo is signed by the AK");
    return true;
}

static bool check_certify_nonce(const struct verify_agent_in *in, const struct read *read,
                                struct verify_verdict *verdict)
{
    uint8_t extra[ATT_SHA256_LEN];
    evidence_certify_extra(extra, att_slice_str(in->key_authorization));
    if (!att_slice_eq_secret(read->certify.attest.extra_data, ATT_SLICE_ARRAY(extra))) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_NONCE,
                    "certInfo.extraData (%zu bytes) is not SHA-256 of this order's "
                    "keyAuthorization",
                    read->certify.attest.extra_data.len);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CERTIFY_NONCE, "certInfo was made for this order");
    return true;
}

static bool check_certify_name(const struct read *read, struct verify_verdict *verdict)
{
    char name[2 * sizeof(read->key_name.bytes) + 1];
    att_hex(name, parse_name_slice(&read->key_name));
    if (!att_slice_eq(read->certify.attest.u.certify.name, parse_name_slice(&read->key_name))) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_NAME,
                    "certInfo names another object than pubArea, whose Name is %s", name);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CERTIFY_NAME, "certInfo names the key %s", name);
    return true;
}

static bool check_key_attributes(const struct read *read, struct verify_verdict *verdict)
{
    struct att_err err = {0};
    if (parse_public_check_agent(&read->key, &err)) {
        verify_fail(verdict, VERIFY_REASON_KEY_ATTRIBUTES, "%s", err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_KEY_ATTRIBUTES,
                "the key was born in the TPM and cannot leave it");
    return true;
}

static bool judge_certified(const struct verify_agent_in *in, const struct read *read,
                            struct verify_verdict *verdict)
{
    return check_certify_header(read, verdict) && check_certify_signature(read, verdict) &&
           check_certify_nonce(in, read, verdict) && check_certify_name(read, verdict) &&
           check_key_attributes(read, verdict) &&
           verify_key_place_check(in, &read->place, &read->key_name,
                                  read->certify.attest.u.certify.qualified_name, verdict);
}

/* No TPM speaks for the key. Which key it is, for whom and when, the quote says (quoteNonce over
 * evidence, evidenceMismatch); that it is held as said rests on the host, whose boot is judged. */
static bool judge_stated(const struct verify_agent_in *in, struct verify_verdict *verdict)
{
    static const enum verify_reason certified[] = {
        VERIFY_REASON_CERTIFY_TYPE, VERIFY_REASON_CERTIFY_SIGNATURE, VERIFY_REASON_CERTIFY_NONCE,
        VERIFY_REASON_CERTIFY_NAME, VERIFY_REASON_KEY_ATTRIBUTES};
    for (size_t i = 0; i < sizeof(certified) / sizeof(certified[0]); i++) {
        verify_skip(verdict, certified[i],
                    "the key is in the host's memory: no TPM2_Certify speaks for it, the quote "
                    "carries its digest");
    }
    if (verify_key_place_demanded(in)) {
        verify_fail(verdict, VERIFY_REASON_KEY_PARENT,
                    "a key under the policy that was issued is demanded, this one is in no TPM");
        return false;
    }
    verify_skip(verdict, VERIFY_REASON_KEY_PARENT,
                "the key is in the host's memory: it has no parent in a TPM");
    return true;
}

/* ---- an HSM's key ------------------------------------------------------------------------------
 */

static enum att_rc verify_hsm_sig(const struct read *read, EVP_PKEY *key, struct att_slice message,
                                  struct att_err *err)
{
    struct att_slice sig = read->certify_sig; /* of the length that its key's type has */
    uint8_t digest[ATT_SHA256_LEN];
    att_autobuf der = {0};
    if (att_keytype_is_rsa(read->type)) {
        att_sha256(digest, message);
        return att_rsa_verify(key, ATT_RSA_PSS, ATT_SLICE_ARRAY(digest), sig, err);
    }
    enum att_rc rc = certs_sig_der(ATT_SLICE(sig.ptr, sig.len / 2),
                                   ATT_SLICE(sig.ptr + sig.len / 2, sig.len / 2), &der, err);
    return rc == ATT_OK ? certs_sig_verify(key, message, att_buf_slice(&der), err) : rc;
}

/* It is used by who speaks for it, now: its own signature. */
static bool check_hsm_signature(const struct verify_agent_in *in, const struct read *read,
                                struct verify_verdict *verdict)
{
    struct att_err err = {0};
    att_autobuf message = {0};
    ATT_CLEANUP(pkey_done) EVP_PKEY *key = NULL;
    bool rsa = att_keytype_is_rsa(read->type);
    int alg = rsa ? EVIDENCE_COSE_PS256 : EVIDENCE_COSE_ES256;
    if (read->alg != alg) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_SIGNATURE,
                    "attObj says alg %d, expected %d (%s)", read->alg, alg,
                    rsa ? "PS256" : "ES256");
        return false;
    }
    att_buf_put_str(&message, in->key_authorization);
    att_buf_put_slice(&message, read->attributes);
    enum att_rc rc = att_buf_ok(&message, &err);
    if (rc == ATT_OK) {
        rc = att_keytype_key(ATT_SLICE(read->key_spki, read->key_spki_len), &key, &err);
    }
    if (rc == ATT_OK) {
        rc = verify_hsm_sig(read, key, att_buf_slice(&message), &err);
    }
    if (rc != ATT_OK) {
        verify_fail(verdict, VERIFY_REASON_CERTIFY_SIGNATURE,
                    "attObj sig is not the key's over this order's keyAuthorization and its "
                    "attributes: %s",
                    err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CERTIFY_SIGNATURE,
                "the key itself signed this order's keyAuthorization and its attributes");
    return true;
}

/* The module's word, carried by the host whose boot is judged; not a proof of the HSM's. */
static bool judge_hsm(const struct verify_agent_in *in, const struct read *read,
                      struct verify_verdict *verdict)
{
    struct att_err err = {0};
    static const char hsm[] = "the key is in an HSM: no TPM2_Certify speaks for it";
    verify_skip(verdict, VERIFY_REASON_CERTIFY_TYPE, "%s", hsm);
    if (!check_hsm_signature(in, read, verdict)) {
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_CERTIFY_NONCE, "the signature was made for this order");
    verify_skip(verdict, VERIFY_REASON_CERTIFY_NAME, "%s", hsm);
    if (evidence_hsm_attrs_check(&read->attrs, &err)) {
        verify_fail(verdict, VERIFY_REASON_KEY_ATTRIBUTES, "%s", err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_KEY_ATTRIBUTES,
                "the HSM's module states that the key was made there and never leaves it");
    if (verify_key_place_demanded(in)) {
        verify_fail(verdict, VERIFY_REASON_KEY_PARENT,
                    "a key under the policy that was issued is demanded, this one is in no TPM");
        return false;
    }
    verify_skip(verdict, VERIFY_REASON_KEY_PARENT, "%s", hsm);
    return true;
}

/* ---- now, and for whom ----------------------------------------------------------------------- */

static bool check_stale(const struct verify_agent_in *in, const struct read *read,
                        struct verify_verdict *verdict)
{
    struct verify_clock now = verify_clock_of(&read->quote.attest);
    /* A key outside the TPM has no certInfo that could be of another boot. */
    struct verify_clock certify =
        read->fmt == EVIDENCE_FMT_TPM ? verify_clock_of(&read->certify.attest) : now;
    const struct verify_clock *before = in->ak.enrolled;
    const char *why = NULL;
    if (in->ak.expires_at && in->boot.now >= in->ak.expires_at) {
        why = "the AK's enrolment expired";
    } else if (certify.reset_count != now.reset_count ||
               certify.restart_count != now.restart_count ||
               certify.firmware_version != now.firmware_version) {
        why = "certInfo and the quote are of different boots or firmware";
    } else if (before && before->reset_count != now.reset_count) {
        why = "the host rebooted since its AK was enrolled";
    } else if (before && before->restart_count != now.restart_count) {
        /* A hibernation starts the PCRs again and leaves resetCount alone. */
        why = "the host was suspended or hibernated since its AK was enrolled";
    } else if (before && before->firmware_version != now.firmware_version) {
        why = "the TPM's firmware changed since its AK was enrolled";
    }
    if (why) {
        verify_fail(verdict, VERIFY_REASON_AK_STALE,
                    "%s: it has to enrol again (resetCount %u, restartCount %u, firmware %016llx "
                    "enrolled; now %u, %u, %016llx)",
                    why, before ? before->reset_count : 0U, before ? before->restart_count : 0U,
                    before ? (unsigned long long)before->firmware_version : 0ULL, now.reset_count,
                    now.restart_count, (unsigned long long)now.firmware_version);
        return false;
    }
    if (!before) {
        verify_skip(verdict, VERIFY_REASON_AK_STALE, "there is no enrolment record here");
    } else {
        verify_pass(verdict, VERIFY_REASON_AK_STALE,
                    "the AK was enrolled in this boot (resetCount %u, restartCount %u)",
                    now.reset_count, now.restart_count);
    }
    return true;
}

static bool same_key(const struct read *read)
{
    const struct evidence_statement *evidence = &read->evidence;
    uint8_t digest[ATT_SHA256_LEN];
    if (read->fmt == EVIDENCE_FMT_TPM) {
        return att_slice_eq(ATT_SLICE(evidence->key_name, evidence->key_name_len),
                            parse_name_slice(&read->key_name));
    }
    att_sha256(digest, ATT_SLICE(read->key_spki, read->key_spki_len));
    return evidence->has_key_spki &&
           att_slice_eq(ATT_SLICE_ARRAY(evidence->key_spki), ATT_SLICE_ARRAY(digest));
}

static bool check_evidence(const struct verify_agent_in *in, const struct read *read,
                           struct verify_verdict *verdict)
{
    const struct evidence_statement *evidence = &read->evidence;
    if (strcmp(evidence->identifier, in->identifier) != 0) {
        verify_fail(verdict, VERIFY_REASON_EVIDENCE_MISMATCH,
                    "evidence is for \"%.100s\", expected \"%.100s\"", evidence->identifier,
                    in->identifier);
        return false;
    }
    if (!same_key(read)) {
        verify_fail(verdict, VERIFY_REASON_EVIDENCE_MISMATCH,
                    "evidence names another key than the %s one",
                    read->fmt == EVIDENCE_FMT_TPM ? "certified" : "sent");
        return false;
    }
    if (!evidence_logs_match(&evidence->logs, in->quoted.logs)) {
        verify_fail(verdict, VERIFY_REASON_EVIDENCE_MISMATCH,
                    "evidence lists other logs than were sent (%zu listed, %zu sent)",
                    evidence->logs.n, in->quoted.logs->n);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_EVIDENCE_MISMATCH,
                "evidence is for this order's identifier, this key and these %zu logs",
                evidence->logs.n);
    return true;
}

static bool judge_key(const struct verify_agent_in *in, struct read *read,
                      struct verify_verdict *verdict)
{
    return check_store(in, read, verdict) && check_type(in, read, verdict) &&
           check_hsm(in, read, verdict) && check_known(in, read, verdict) &&
           verify_step_ak(&read->ak, verdict) &&
           (read->fmt == EVIDENCE_FMT_TPM   ? judge_certified(in, read, verdict)
            : read->fmt == EVIDENCE_FMT_HSM ? judge_hsm(in, read, verdict)
                                            : judge_stated(in, verdict));
}

static bool judge_quote(const struct verify_agent_in *in, struct read *read,
                        struct verify_verdict *verdict)
{
    uint8_t extra[ATT_SHA256_LEN];
    struct verify_clock clock;
    evidence_quote_extra(extra, att_slice_str(in->key_authorization),
                         read->fmt == EVIDENCE_FMT_HSM ? read->attributes : read->cert_info,
                         in->evidence);
    const struct parse_attest *other = read->fmt == EVIDENCE_FMT_TPM ? &read->certify.attest : NULL;
    if (!verify_step_quote(&in->quoted, &read->quote, other, &read->ak, ATT_SLICE_ARRAY(extra),
                           &in->boot.selection, verdict)) {
        return false;
    }
    clock = verify_clock_of(&read->quote.attest);
    read->stated =
        verify_step_clock(in->ak.clock, "there is no enrolment record here", &clock, verdict) &&
        check_stale(in, read, verdict) && check_evidence(in, read, verdict);
    return read->stated && verify_step_boot(&in->boot, &in->quoted, &read->replayed, verdict);
}

static void fill(const struct read *read, struct verify_agent_facts *facts)
{
    facts->key_name = read->key_name;
    memcpy(facts->spki, read->key_spki, read->key_spki_len);
    facts->spki_len = read->key_spki_len;
    facts->key_store = read->store;
    facts->key_type =
        att_keytype_name(read->fmt == EVIDENCE_FMT_TPM ? ATT_KEYTYPE_P256 : read->type);
    memcpy(facts->hsm, read->evidence.hsm, sizeof(facts->hsm));
    facts->has_hsm_token = read->evidence.has_hsm_token;
    facts->hsm_token = read->evidence.hsm_token;
    facts->have_manifest_root = read->evidence.has_manifest_root;
    memcpy(facts->manifest_root, read->evidence.manifest_root, sizeof(facts->manifest_root));
    memcpy(facts->host_log_head, read->evidence.host_log_head, sizeof(facts->host_log_head));
    facts->level = read->evidence.level;
    facts->ima_used = read->replayed.ima_used;
    facts->systemd_used = read->replayed.systemd_used;
    const struct parse_public *parent = &read->place.parent;
    facts->parent_sealed = read->place.n > 1 && !(parent->attrs & PARSE_OA_USER_WITH_AUTH) &&
                           parent->policy_len == sizeof(facts->parent_policy);
    if (facts->parent_sealed) {
        memcpy(facts->parent_policy, parent->policy, sizeof(facts->parent_policy));
    }
    facts->has_device = read->evidence.has_device;
    facts->device_major = read->evidence.device_major;
    facts->device_minor = read->evidence.device_minor;
    memcpy(facts->command_line, read->evidence.command_line, sizeof(facts->command_line));
}

static bool judge(const struct verify_agent_in *in, struct read *read,
                  struct verify_verdict *verdict, struct verify_agent_facts *ret)
{
    struct verify_agent_facts facts = {0};
    if (!read_all(in, read, verdict) || !judge_key(in, read, verdict) ||
        !judge_quote(in, read, verdict) ||
        !verify_step_facts(&in->boot, &in->quoted, &read->quote, &facts.quote, verdict) ||
        verify_verdict_result(verdict) != VERIFY_ACCEPTED) {
        if (ret && read->stated) {
            memcpy(ret->host_log_head, read->evidence.host_log_head, sizeof(ret->host_log_head));
        }
        return false;
    }
    fill(read, &facts);
    if (ret) {
        *ret = facts;
    }
    return true;
}

enum verify_result verify_agent(const struct verify_agent_in *in, struct verify_verdict *verdict,
                                struct verify_agent_facts *ret)
{
    if (verify_verdict_failed(verdict)) {
        return VERIFY_REFUSED;
    }
    verify_plan(verdict, agent_plan, sizeof(agent_plan) / sizeof(agent_plan[0]));
    struct read *read = calloc(1, sizeof(*read));
    if (!read) {
        verify_fail(verdict, VERIFY_REASON_INTERNAL, "no memory for the evidence");
        return VERIFY_REFUSED;
    }
    enum verify_result result = judge(in, read, verdict, ret) ? VERIFY_ACCEPTED : VERIFY_REFUSED;
    evidence_statement_done(&read->evidence);
    free(read);
    return result;
}
