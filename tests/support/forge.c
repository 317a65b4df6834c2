#include "tests/support/forge.h"

#include "attestd/base/enc.h"
#include "certs/key.h"
#include "provision/evidence/attobj.h"
#include "provision/evidence/formula.h"
#include "tests/support/forge_parts.h"
#include "tpm/parse/sig.h"

#include <openssl/ec.h>
#include <openssl/rsa.h>
#include <stdlib.h>
#include <string.h>

/* ---- keys ------------------------------------------------------------------------------------ */

EVP_PKEY *forge_p256(void)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    forge_must(key != NULL, "P-256 key");
    return key;
}

/* Slow to make, and nothing depends on its being fresh. */
static EVP_PKEY *rsa_key(void)
{
    static EVP_PKEY *key;
    if (!key) {
        key = EVP_RSA_gen(2048);
        forge_must(key != NULL, "RSA key");
    }
    EVP_PKEY_up_ref(key);
    return key;
}

void forge_spki(EVP_PKEY *key, struct att_buf *ret_der)
{
    unsigned char *der = NULL;
    int len = i2d_PUBKEY(key, &der);
    forge_must(len > 0, "SubjectPublicKeyInfo");
    att_buf_put(ret_der, der, (size_t)len);
    OPENSSL_free(der);
}

void forge_sign(EVP_PKEY *key, uint16_t hash, struct att_slice bytes, struct att_buf *ret_sig)
{
    uint8_t der[600];
    size_t len = sizeof(der);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    forge_must(EVP_DigestSignInit_ex(ctx, NULL, parse_alg_openssl_name(hash), NULL, NULL, key,
                                     NULL) == 1 &&
                   EVP_DigestSign(ctx, der, &len, bytes.ptr, bytes.len) == 1,
               "signature");
    EVP_MD_CTX_free(ctx);
    struct att_err err = {0};
    forge_must(!parse_sig_from_der(PARSE_ALG_ECDSA, hash, ATT_SLICE(der, len), ret_sig, &err),
               err.msg);
}

static void key_done(struct forge_key *key)
{
    EVP_PKEY_free(key->pkey);
    att_buf_done(&key->area);
}

/* Area and Name of what pub is now. */
static void key_seal(struct forge_key *key)
{
    struct att_err err = {0};
    att_buf_reset(&key->area);
    forge_must(!parse_public_encode(&key->pub, &key->area, &err), err.msg);
    /* A public area that the parser refuses has a Name all the same. */
    uint8_t digest[ATT_HASH_MAX];
    size_t len = 0;
    struct att_slice area = att_buf_slice(&key->area);
    const char *hash = parse_alg_openssl_name(key->pub.name_alg);
    forge_must(hash && !att_hash_v(hash, digest, &len, &area, 1, &err), "Name");
    key->name.bytes[0] = (uint8_t)(key->pub.name_alg >> 8);
    key->name.bytes[1] = (uint8_t)key->pub.name_alg;
    memcpy(key->name.bytes + 2, digest, len);
    key->name.len = 2 + len;
}

static void make_keys(struct forge *forge, enum forge_ek ek)
{
    struct att_err err = {0};
    static const enum parse_ek_template templates[] = {PARSE_EK_L2, PARSE_EK_L1, PARSE_EK_H3};
    forge->ek.pkey = ek == FORGE_EK_RSA    ? rsa_key()
                     : ek == FORGE_EK_P384 ? EVP_EC_gen("P-384")
                                           : forge_p256();
    forge->ak.pkey = forge_p256();
    forge->srk.pkey = forge_p256();
    forge->parent.pkey = forge_p256();
    forge->agent.pkey = forge_p256();
    forge->account = forge_p256();
    bool good = !parse_public_ek_template(templates[ek], &forge->ek.pub, &err) &&
                !parse_public_set_pkey(&forge->ek.pub, forge->ek.pkey, &err);
    parse_public_ak_template(&forge->ak.pub);
    parse_public_srk_template(&forge->srk.pub, 0);
    parse_public_srk_template(&forge->parent.pub, 0);
    parse_public_agent_template(&forge->agent.pub);
    /* Under the policy parent of keys.md. */
    forge->parent.pub.attrs &= ~PARSE_OA_USER_WITH_AUTH;
    forge->parent.pub.policy_len = ATT_SHA256_LEN;
    memset(forge->parent.pub.policy, 0x5c, ATT_SHA256_LEN);
    good = good && !parse_public_set_pkey(&forge->ak.pub, forge->ak.pkey, &err) &&
           !parse_public_set_pkey(&forge->srk.pub, forge->srk.pkey, &err) &&
           !parse_public_set_pkey(&forge->parent.pub, forge->parent.pkey, &err) &&
           !parse_public_set_pkey(&forge->agent.pub, forge->agent.pkey, &err);
    forge_must(good, err.msg[0] ? err.msg : "public areas");
    forge->certify_signer = forge->quote_signer = forge->ak.pkey;
}

static void make_authorities(struct forge *forge)
{
    forge->maker_root_key = forge_p256();
    forge->maker_ca_key = forge_p256();
    forge->att_root_key = forge_p256();
    forge->att_ca_key = forge_p256();
    forge->maker_root = forge_ca(forge->maker_root_key, "Maker root", NULL, NULL);
    forge->maker_ca =
        forge_ca(forge->maker_ca_key, "Maker CA", forge->maker_root, forge->maker_root_key);
    forge->att_root = forge_ca(forge->att_root_key, "Attestation root", NULL, NULL);
    forge->att_ca =
        forge_ca(forge->att_ca_key, "Attestation CA", forge->att_root, forge->att_root_key);
    forge->roots = forge_store(forge->maker_root);
}

struct forge *forge_new(enum forge_ek ek, enum forge_kind kind)
{
    struct forge *forge = calloc(1, sizeof(*forge));
    struct att_err err = {0};
    forge_must(forge != NULL, "memory");
    forge->kind = kind;
    make_keys(forge, ek);
    make_authorities(forge);
    forge->ek_cert_spec = (struct forge_ek_cert){.not_before = FORGE_NOW - 3600,
                                                 .not_after = FORGE_NOW + 86400,
                                                 .manufacturer = "id:49424D00",
                                                 .model = "forge",
                                                 .version = "id:20240125"};
    forge->ak_hierarchy = PARSE_RH_ENDORSEMENT;
    forge->hierarchy = PARSE_RH_OWNER;
    forge->clock = (struct verify_clock){.clock_ms = 500000,
                                         .reset_count = 7,
                                         .restart_count = 1,
                                         .safe = true,
                                         .firmware_version = UINT64_C(0x2024012500120000)};
    forge->previous = forge->clock;
    forge->previous.clock_ms = 400000;
    forge_must(!parse_pcr_sel_parse("sha256:0,1,2,3,4,5,6,7,14,16", &forge->selection, &err),
               err.msg);
    forge_events_default(forge);
    forge->identifier = FORGE_IDENTIFIER;
    forge->key_authorization = FORGE_KEYAUTH;
    forge->quoted_key_authorization = forge->certified_key_authorization = FORGE_KEYAUTH;
    forge->magic_certify = forge->magic_quote = PARSE_MAGIC;
    forge_must(!att_random(forge->proof, sizeof(forge->proof), &err) &&
                   !att_random(forge->extra, sizeof(forge->extra), &err),
               "random");
    return forge;
}

void forge_free(struct forge *forge)
{
    if (!forge) {
        return;
    }
    struct forge_key *keys[] = {&forge->ek, &forge->ak, &forge->srk, &forge->parent, &forge->agent};
    struct att_buf *bufs[] = {&forge->ek_cert,     &forge->ak_cert,  &forge->certify_bytes,
                              &forge->certify_sig, &forge->evidence, &forge->quote_bytes,
                              &forge->quote_sig,   &forge->att_obj,  &forge->log_bytes,
                              &forge->csr,         &forge->scratch,  &forge->chain_der};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        key_done(keys[i]);
    }
    for (size_t i = 0; i < sizeof(bufs) / sizeof(bufs[0]); i++) {
        att_buf_done(bufs[i]);
    }
    EVP_PKEY_free(forge->account);
    EVP_PKEY_free(forge->maker_root_key);
    EVP_PKEY_free(forge->maker_ca_key);
    EVP_PKEY_free(forge->att_root_key);
    EVP_PKEY_free(forge->att_ca_key);
    X509_free(forge->maker_root);
    X509_free(forge->maker_ca);
    X509_free(forge->att_root);
    X509_free(forge->att_ca);
    certs_ek_store_free(forge->roots);
    evidence_statement_done(&forge->statement);
    evidence_logs_done(&forge->logs);
    verify_policy_free(forge->policy);
    free(forge);
}

/* ---- stages ---------------------------------------------------------------------------------- */

static void stage(struct forge *forge, forge_mutate mutate, enum forge_stage at)
{
    if (mutate) {
        mutate(forge, at);
    }
}

static void derive_names(struct forge *forge)
{
    struct att_err err = {0};
    struct parse_name chain[3] = {forge->srk.name, forge->parent.name, forge->agent.name};
    size_t n = 3;
    if (forge->no_parent) {
        chain[1] = forge->agent.name;
        n = 2;
    }
    forge_must(
        !parse_name_qualified(forge->ak_hierarchy, &forge->ak.name, 1, &forge->signer, &err) &&
            !parse_name_qualified(forge->hierarchy, chain, n, &forge->key_qualified, &err),
        "qualified Names");
}

static void derive_keys(struct forge *forge)
{
    att_autobuf spki = {0};
    uint8_t digest[ATT_SHA256_LEN];
    char ek_id[VERIFY_ID_HEX];
    key_seal(&forge->ek);
    key_seal(&forge->ak);
    key_seal(&forge->srk);
    key_seal(&forge->parent);
    key_seal(&forge->agent);
    derive_names(forge);
    forge_ek_certificate(forge);
    forge_spki(forge->ek.pkey, &spki);
    att_sha256(digest, att_buf_slice(&spki));
    att_hex(ek_id, ATT_SLICE_ARRAY(digest));
    forge_ak_certificate(forge, ek_id);
}

static void fill_head(const struct forge *forge, struct parse_attest *attest, uint32_t magic,
                      uint16_t type)
{
    *attest = (struct parse_attest){
        .magic = magic,
        .type = type,
        .qualified_signer = parse_name_slice(&forge->signer),
        .clock = {.clock = forge->clock.clock_ms,
                  .reset_count = forge->clock.reset_count,
                  .restart_count = forge->clock.restart_count,
                  .safe = forge->clock.safe},
        .firmware_version = forge->clock.firmware_version,
    };
}

static void seal(const struct parse_attest *attest, EVP_PKEY *signer, struct att_buf *ret_bytes,
                 struct att_buf *ret_sig)
{
    struct att_err err = {0};
    forge_must(!parse_attest_encode(attest, ret_bytes, &err), err.msg);
    forge_sign(signer, PARSE_ALG_SHA256, att_buf_slice(ret_bytes), ret_sig);
}

static void derive_certify(struct forge *forge, forge_mutate mutate)
{
    fill_head(forge, &forge->certify, forge->magic_certify, PARSE_ATTEST_CERTIFY);
    evidence_certify_extra(forge->certify_extra, att_slice_str(forge->certified_key_authorization));
    forge->certify.extra_data = ATT_SLICE_ARRAY(forge->certify_extra);
    forge->certify.u.certify.name = parse_name_slice(&forge->agent.name);
    forge->certify.u.certify.qualified_name = parse_name_slice(&forge->key_qualified);
    stage(forge, mutate, FORGE_CERTIFY);
    seal(&forge->certify, forge->certify_signer, &forge->certify_bytes, &forge->certify_sig);
}

/* The agent's key where it is in no TPM. */
static EVP_PKEY *outside_key(const struct forge *forge)
{
    return forge->outside ? forge->outside : forge->agent.pkey;
}

/* RSASSA-PSS over SHA-256 with a salt as long as the digest (PS256, RFC 7518 §3.5). */
static bool sign_pss(EVP_PKEY *key, struct att_slice message, struct att_buf *ret)
{
    uint8_t sig[512];
    size_t len = sizeof sig;
    EVP_PKEY_CTX *pctx = NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = ctx && EVP_DigestSignInit(ctx, &pctx, EVP_sha256(), NULL, key) == 1 &&
              EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) == 1 &&
              EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, RSA_PSS_SALTLEN_DIGEST) == 1 &&
              EVP_DigestSign(ctx, sig, &len, message.ptr, message.len) == 1;
    EVP_MD_CTX_free(ctx);
    att_buf_put(ret, sig, ok ? len : 0);
    return ok;
}

static void derive_hsm(struct forge *forge, forge_mutate mutate)
{
    struct att_err err = {0};
    att_autobuf message = {0}, der = {0};
    const uint32_t good = 1u << EVIDENCE_HSM_LOCAL | 1u << EVIDENCE_HSM_ALWAYS_SENSITIVE |
                          1u << EVIDENCE_HSM_NEVER_EXTRACTABLE | 1u << EVIDENCE_HSM_SENSITIVE |
                          1u << EVIDENCE_HSM_TOKEN | 1u << EVIDENCE_HSM_PRIVATE |
                          1u << EVIDENCE_HSM_SIGN;
    forge->attrs = (struct evidence_hsm_attrs){(1u << EVIDENCE_HSM_COUNT) - 1, good};
    forge->hsm_signer = outside_key(forge);
    stage(forge, mutate, FORGE_CERTIFY);
    forge_must(!evidence_hsm_attrs_encode(&forge->attrs, &forge->certify_bytes, &err), err.msg);
    att_buf_put_str(&message, forge->certified_key_authorization);
    att_buf_put_slice(&message, att_buf_slice(&forge->certify_bytes));
    if (EVP_PKEY_is_a(forge->hsm_signer, "RSA")) {
        forge_must(sign_pss(forge->hsm_signer, att_buf_slice(&message), &forge->certify_sig),
                   "PS256");
        return;
    }
    forge_must(!certs_sign(forge->hsm_signer, att_buf_slice(&message), &der, &err) &&
                   !certs_sig_raw(att_buf_slice(&der), &forge->certify_sig, &err),
               err.msg);
}

static void derive_evidence(struct forge *forge, forge_mutate mutate)
{
    struct att_err err = {0};
    struct evidence_statement *statement = &forge->statement;
    (void)strncpy(statement->identifier, forge->identifier, sizeof(statement->identifier) - 1);
    if (forge->memory) {
        att_autobuf spki = {0};
        forge_spki(outside_key(forge), &spki);
        (void)strncpy(statement->key_store,
                      forge->hsm          ? "hsm"
                      : forge->exportable ? "exportable"
                                          : "memory",
                      sizeof(statement->key_store) - 1);
        statement->has_key_spki = true;
        att_sha256(statement->key_spki, att_buf_slice(&spki));
    } else {
        memcpy(statement->key_store, "tpm", 4);
        memcpy(statement->key_name, forge->agent.name.bytes, forge->agent.name.len);
        statement->key_name_len = forge->agent.name.len;
    }
    statement->has_manifest_root = true;
    memset(statement->manifest_root, 0xa5, sizeof(statement->manifest_root));
    memset(statement->host_log_head, 0x11, sizeof(statement->host_log_head));
    statement->level = 1;
    att_autobuf manifest = {0};
    forge_must(!evidence_manifest_encode(&forge->logs, &manifest, &err) &&
                   !evidence_manifest_parse(att_buf_slice(&manifest), &statement->logs, &err),
               err.msg);
    stage(forge, mutate, FORGE_EVIDENCE);
    forge_must(!evidence_statement_encode(statement, &forge->evidence, &err), err.msg);
}

static void derive_quote(struct forge *forge, forge_mutate mutate)
{
    struct att_err err = {0};
    size_t len = 0;
    fill_head(forge, &forge->quote, forge->magic_quote, PARSE_ATTEST_QUOTE);
    forge_must(
        !parse_pcr_sel_raw(&forge->selection, forge->selection_raw, &err) &&
            !parse_pcr_set_digest(&forge->pcrs, PARSE_ALG_SHA256, forge->pcr_digest, &len, &err),
        err.msg);
    forge->quote.u.quote.pcr_select = ATT_SLICE_ARRAY(forge->selection_raw);
    forge->quote.u.quote.pcr_digest = ATT_SLICE(forge->pcr_digest, len);
    if (forge->kind == FORGE_ENROL) {
        forge->quote.extra_data = ATT_SLICE_ARRAY(forge->extra);
    } else {
        evidence_quote_extra(forge->quote_extra, att_slice_str(forge->quoted_key_authorization),
                             att_buf_slice(&forge->certify_bytes), att_buf_slice(&forge->evidence));
        forge->quote.extra_data = ATT_SLICE_ARRAY(forge->quote_extra);
    }
    stage(forge, mutate, FORGE_QUOTE);
    seal(&forge->quote, forge->quote_signer, &forge->quote_bytes, &forge->quote_sig);
}

void forge_policy_json(const struct forge *forge, struct att_buf *ret_json)
{
    att_buf_put_str(ret_json, "{\"name\":\"forge\",\"version\":3,\"bank\":\"sha256\",\"pcrs\":{");
    const char *comma = "";
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        if (forge->pcrs.sel.mask & (1U << pcr)) {
            att_buf_printf(ret_json, "%s\"%u\":[\"%064x\",\"", comma, pcr, 1);
            att_buf_hex(ret_json, ATT_SLICE(forge->pcrs.value[pcr], ATT_SHA256_LEN));
            att_buf_put_str(ret_json, "\"]");
            comma = ",";
        }
    }
    att_buf_put_str(ret_json, "},\"logs\":[\"firmware\"],\"notBefore\":\"2026-01-01T00:00:00Z\","
                              "\"notAfter\":\"2027-01-01T00:00:00Z\"}");
}

static void derive_boot(struct forge *forge, forge_mutate mutate)
{
    att_autobuf json = {0};
    struct att_err err = {0};
    forge_extend(forge);
    stage(forge, mutate, FORGE_PCRS);
    forge_policy_json(forge, &json);
    forge_must(!verify_policy_parse(att_buf_slice(&json), &forge->policy, &err), err.msg);
    stage(forge, mutate, FORGE_LOG);
    forge_log_encode(forge, &forge->log_bytes);
    forge_must(!evidence_logs_add(&forge->logs, "firmware", att_buf_slice(&forge->log_bytes), &err),
               err.msg);
}

static void derive_inputs(struct forge *forge)
{
    struct verify_boot boot = {.selection = forge->selection,
                               .logs = VERIFY_LOG_FIRMWARE,
                               .policy = forge->policy,
                               .now = FORGE_NOW};
    struct verify_quoted quoted = {.attest = att_buf_slice(&forge->quote_bytes),
                                   .signature = att_buf_slice(&forge->quote_sig),
                                   .pcrs = &forge->pcrs,
                                   .logs = &forge->logs};
    const struct verify_clock *previous = forge->no_previous ? NULL : &forge->previous;
    forge->ek_in = (struct verify_ek_in){.ek_cert = att_buf_slice(&forge->ek_cert),
                                         .ek_chain = forge->chain,
                                         .n_ek_chain = 1,
                                         .ek_pub = att_buf_slice(&forge->ek.area),
                                         .manufacturer = "49424d00",
                                         .have_version = true,
                                         .version = forge->clock.firmware_version,
                                         .roots = forge->roots,
                                         .now = FORGE_NOW};
    forge->enrol_in = (struct verify_enrol_in){.ak_pub = att_buf_slice(&forge->ak.area),
                                               .proof = ATT_SLICE_ARRAY(forge->proof),
                                               .expected_proof = ATT_SLICE_ARRAY(forge->proof),
                                               .expected_extra = ATT_SLICE_ARRAY(forge->extra),
                                               .quoted = quoted,
                                               .boot = boot,
                                               .previous = previous};
    forge->agent_in = (struct verify_agent_in){
        .att_obj = att_buf_slice(&forge->att_obj),
        .evidence = att_buf_slice(&forge->evidence),
        .quoted = quoted,
        .srk_pub = forge->memory ? (struct att_slice){0} : att_buf_slice(&forge->srk.area),
        .parent_pub = forge->no_parent || forge->memory ? (struct att_slice){0}
                                                        : att_buf_slice(&forge->parent.area),
        .key_authorization = forge->key_authorization,
        .identifier = forge->identifier,
        .key_types = VERIFY_TYPE(ATT_KEYTYPE_P256),
        .key_stores = forge->hsm          ? VERIFY_KEY_HSM
                      : forge->exportable ? VERIFY_KEY_EXPORTABLE
                      : forge->memory     ? VERIFY_KEY_MEMORY
                                          : VERIFY_KEY_TPM,
        .ak = {.ak_pub = att_buf_slice(&forge->ak.area),
               .ak_cert = att_buf_slice(&forge->ak_cert),
               .clock = previous,
               .enrolled = previous,
               .expires_at = FORGE_NOW + 3600},
        .boot = boot};
}

static void derive_attobj(struct forge *forge)
{
    struct att_err err = {0};
    att_autobuf spki = {0};
    struct evidence_attobj attobj = {.x5c = {att_buf_slice(&forge->ak_cert)}, .x5c_len = 1};
    if (forge->memory) {
        forge_spki(outside_key(forge), &spki);
        attobj.fmt = EVIDENCE_FMT_HOST;
        attobj.spki = att_buf_slice(&spki);
        if (forge->hsm) {
            attobj.fmt = EVIDENCE_FMT_HSM;
            attobj.alg = forge->hsm_alg                             ? forge->hsm_alg
                         : EVP_PKEY_is_a(outside_key(forge), "RSA") ? EVIDENCE_COSE_PS256
                                                                    : EVIDENCE_COSE_ES256;
            attobj.sig = att_buf_slice(&forge->certify_sig);
            attobj.attributes = att_buf_slice(&forge->certify_bytes);
        }
    } else {
        attobj.alg = EVIDENCE_COSE_ES256;
        attobj.sig = att_buf_slice(&forge->certify_sig);
        attobj.cert_info = att_buf_slice(&forge->certify_bytes);
        attobj.pub_area = att_buf_slice(&forge->agent.area);
    }
    forge_must(!evidence_attobj_encode(&attobj, &forge->att_obj, &err), err.msg);
}

void forge_build(struct forge *forge, forge_mutate mutate)
{
    stage(forge, mutate, FORGE_KEYS);
    derive_keys(forge);
    derive_boot(forge, mutate);
    if (forge->kind == FORGE_ORDER) {
        if (!forge->memory) {
            derive_certify(forge, mutate);
        } else if (forge->hsm) {
            derive_hsm(forge, mutate);
        }
        derive_evidence(forge, mutate);
    }
    derive_quote(forge, mutate);
    if (forge->kind == FORGE_ORDER) {
        derive_attobj(forge);
    }
    derive_inputs(forge);
    stage(forge, mutate, FORGE_DONE);
}
