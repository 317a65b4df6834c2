/* A stock client of device-attest-01 for permanent identifiers, as its tests need it. */
#ifndef TESTS_UNIT_ISSUER_DEVICE_H
#define TESTS_UNIT_ISSUER_DEVICE_H

#include "tests/unit/issuer/stage.h"

#include "provision/evidence/attobj.h"
#include "provision/issuer/dns.h"

#include "provision/acme/requests.h"

#include <openssl/conf.h>
#include <openssl/x509v3.h>

#define DEVICES "devices:\n  profiles:\n    - { name: device, lifetime: 2h }\nurl: "

/* Paths of certificates are judged by the issuer's clock, its authorities are made now. */
RIG void stage_now(struct stage *s)
{
    forge_shift_s = att_now_utc_s() + 60 - FORGE_NOW;
    stage_new(s, "none");
    rig_time = FORGE_NOW + forge_shift_s;
    stage_enrol(s);
}

RIG void stage_devices(struct stage *s)
{
    stage_now(s);
    reconfigure(&s->rig, "url: ", "crl: {url: \"http://crl.bank.example\"}\n" DEVICES);
    restart_with_names(&s->rig);
}

/* A client with an account of its own, which no host has. */
RIG void stranger(struct stage *s, struct client *c)
{
    json_t *ticket = rig_ticket(&s->rig, NULL, 1);
    client_new(c, &s->rig);
    assert_int_equal(client_account(c, ticket), 201);
    json_decref(ticket);
}

RIG int device_order(struct client *c, const char *id, struct order *o)
{
    char payload[256];
    snprintf(payload, sizeof payload,
             "{\"identifiers\":[{\"type\":\"permanent-identifier\",\"value\":\"%s\"}]}", id);
    int status = client_post_text(c, RIG_URL "/newOrder", payload);
    if (status == 201) {
        rig_copy(o->url, sizeof o->url, c->last.location);
        rig_copy(o->finalize, sizeof o->finalize, client_text(c, "finalize"));
        rig_copy(o->authz, sizeof o->authz,
                 json_string_value(json_array_get(json_object_get(c->body, "authorizations"), 0)));
        assert_int_equal(client_get(c, o->authz), 200);
        const json_t *challenge = json_array_get(json_object_get(c->body, "challenges"), 0);
        assert_string_equal(issuer_string(challenge, "type"), "device-attest-01");
        rig_copy(o->challenge, sizeof o->challenge, issuer_string(challenge, "url"));
        rig_copy(o->token, sizeof o->token, issuer_string(challenge, "token"));
    }
    return status;
}

/* What the statement is made of, beside what the forge is told to do. */
struct how {
    forge_mutate mutate;
    struct att_slice ak_cert; /* empty: the TPM's */
    const char *token;        /* NULL: the order's */
    bool no_chain;            /* x5c is the AK certificate alone */
    int alg;                  /* 0: ES256 */
    const X509 *chain;        /* NULL: our attestation intermediate */
};

RIG void put_payload(const struct evidence_attobj *obj, struct att_buf *ret_payload)
{
    att_autobuf cbor = {0}, text = {0};
    rig_ok(evidence_attobj_encode(obj, &cbor, &err));
    att_buf_b64u(&text, att_buf_slice(&cbor));
    att_buf_put_str(ret_payload, "{\"attObj\":\"");
    att_buf_put_str(ret_payload, att_buf_cstr(&text));
    att_buf_put_str(ret_payload, "\"}");
}

RIG void statement(struct stage *s, struct client *c, const struct order *o, const struct how *how,
                   struct att_buf *ret_payload)
{
    char key_auth[256];
    att_autobuf chain = {0};
    const X509 *ca = how->chain ? how->chain : s->rig.issuer->ca->attest_ca;
    snprintf(key_auth, sizeof key_auth, "%s.%s", how->token ? how->token : o->token, c->thumbprint);
    struct forge *f = forge_new(FORGE_EK_RSA, FORGE_ORDER);
    f->key_authorization = f->quoted_key_authorization = f->certified_key_authorization = key_auth;
    rig_tpm = &s->tpm;
    s->tpm.mutate = how->mutate;
    forge_build(f, tpm_stage);
    s->tpm.mutate = NULL;
    rig_ok(certs_cert_der(ca, &chain, &err));
    struct evidence_attobj obj = {
        .fmt = EVIDENCE_FMT_TPM,
        .x5c = {how->ak_cert.len ? how->ak_cert : att_buf_slice(&s->tpm.ak_cert),
                att_buf_slice(&chain)},
        .x5c_len = how->no_chain ? 1 : 2,
        .alg = how->alg ? how->alg : EVIDENCE_COSE_ES256,
        .sig = att_buf_slice(&f->certify_sig),
        .cert_info = att_buf_slice(&f->certify_bytes),
        .pub_area = att_buf_slice(&f->agent.area)};
    put_payload(&obj, ret_payload);
    forge_free(f);
}

RIG const char *answer(struct stage *s, struct client *c, const struct order *o,
                       const struct how *how)
{
    att_autobuf payload = {0};
    statement(s, c, o, how, &payload);
    int status = client_post(c, o->challenge, false, att_buf_slice(&payload));
    return status == 200 ? client_text(c, "status") : "";
}

/* The whole way up to the verdict, which is this refusal; nothing can be done with the order. */
RIG void refused(struct stage *s, struct client *c, const struct how *how, const char *reason)
{
    struct order o;
    assert_int_equal(device_order(c, s->tpm.ek_id, &o), 201);
    assert_string_equal(answer(s, c, &o, how), "invalid");
    client_refused(c, reason);
    rig_audited(&s->rig, "refused", reason);
    assert_int_equal(client_get(c, o.url), 200);
    assert_string_equal(client_text(c, "status"), "invalid");
    client_refused(c, reason);
}

/* ---- CSRs ---- */

struct csr {
    const char *cn, *san; /* as X509V3_EXT_conf_nid takes it; NULL: none */
    bool permanent;       /* the SAN that the certificate will have */
    const char *permanent_value;
    EVP_PKEY *signer; /* NULL: the key */
};

RIG void add_permanent(STACK_OF(X509_EXTENSION) * exts, const char *value)
{
    static const char text[] = "otherName:1.3.6.1.5.5.7.8.3;SEQUENCE:pid";
    char conf[200];
    snprintf(conf, sizeof conf, "[pid]\nv=UTF8:%s\n", value);
    BIO *bio = BIO_new_mem_buf(conf, -1);
    CONF *c = NCONF_new(NULL);
    long line = 0;
    assert_true(NCONF_load_bio(c, bio, &line) > 0);
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_nconf(&ctx, c);
    X509_EXTENSION *ext = X509V3_EXT_nconf_nid(c, &ctx, NID_subject_alt_name, text);
    assert_non_null(ext);
    sk_X509_EXTENSION_push(exts, ext);
    NCONF_free(c);
    BIO_free(bio);
}

RIG int finalize_with(struct client *c, const struct order *o, EVP_PKEY *key, const struct csr *how)
{
    X509_REQ *req = X509_REQ_new();
    STACK_OF(X509_EXTENSION) *exts = sk_X509_EXTENSION_new_null();
    uint8_t *der = NULL;
    att_autobuf payload = {0};
    if (how->cn) {
        X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(req), "CN", MBSTRING_UTF8,
                                   (const unsigned char *)how->cn, -1, -1, 0);
    }
    if (how->san) {
        sk_X509_EXTENSION_push(exts,
                               X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, how->san));
    }
    if (how->permanent) {
        add_permanent(exts, how->permanent_value);
    }
    X509_REQ_set_version(req, X509_REQ_VERSION_1);
    if (sk_X509_EXTENSION_num(exts)) {
        X509_REQ_add_extensions(req, exts);
    }
    X509_REQ_set_pubkey(req, key);
    assert_true(X509_REQ_sign(req, how->signer ? how->signer : key, EVP_sha256()) > 0);
    int len = i2d_X509_REQ(req, &der);
    assert_true(len > 0);
    rig_ok(acme_finalize_request_encode(ATT_SLICE(der, (size_t)len), &payload, &err));
    OPENSSL_free(der);
    sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
    X509_REQ_free(req);
    return client_post(c, o->finalize, false, att_buf_slice(&payload));
}

RIG int finalize(struct stage *s, struct client *c, const struct order *o)
{
    return finalize_with(c, o, s->tpm.base->agent.pkey, &(struct csr){.cn = s->tpm.ek_id});
}

RIG void ready(struct stage *s, struct client *c, struct order *o)
{
    assert_int_equal(device_order(c, s->tpm.ek_id, o), 201);
    const char *status = answer(s, c, o, &(struct how){0});
    if (strcmp(status, "valid") != 0) {
        client_refused(c, "nothing");
    }
}

RIG X509 *certificate(struct client *c)
{
    certs_autostack *certs = NULL;
    char url[256];
    rig_copy(url, sizeof url, client_text(c, "certificate"));
    assert_int_equal(client_get(c, url), 200);
    rig_ok(certs_pem_parse(att_buf_slice(&c->last.body), &certs, &err));
    assert_int_equal(sk_X509_num(certs), 2);
    return sk_X509_shift(certs);
}

#endif
