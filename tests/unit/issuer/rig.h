/* An issuer in a folder of its own, a clock that the test sets, an account that signs JWS, and a
 * software TPM (tests/support/forge) that can solve an activation challenge: M0–M7 against the
 * request handlers, without sockets. Included by each test program of this folder. */
#ifndef TESTS_UNIT_ISSUER_RIG_H
#define TESTS_UNIT_ISSUER_RIG_H

#include "attestd/base/io.h"
#include "certs/chain.h"
#include "certs/csr.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "provision/enrol/messages.h"
#include "provision/issuer/ca.h"
#include "tests/support/forge.h"
#include "tests/support/postgres.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/core_names.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <unistd.h>

#define RIG      __attribute__((unused)) static
#define RIG_URL  "https://127.0.0.1:8443/acme"
#define RIG_PCRS "sha256:0,1,2,3,4,5,6,7,14,16"
#define RIG_NAME "portfolio-rebalancer"

struct rig {
    char dir[128];
    char store[TEST_SPEC_MAX]; /* over PostgreSQL with ATT_TEST_STORE=postgres */
    struct issuer *issuer;
};

static int64_t rig_time = FORGE_NOW;

RIG int64_t rig_clock(void)
{
    return rig_time;
}

#define rig_ok(call)                                                                               \
    do {                                                                                           \
        struct att_err err = {0};                                                                  \
        enum att_rc rig_rc = (call);                                                               \
        if (rig_rc) {                                                                              \
            print_error("%s:%d: %s: %s (%s)\n", __FILE__, __LINE__, att_rc_name(rig_rc), err.msg,  \
                        err.reason);                                                               \
        }                                                                                          \
        assert_int_equal(rig_rc, ATT_OK);                                                          \
    } while (0)

RIG void rig_write(const char *dir, const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    rig_ok(att_io_write_file(path, att_slice_str(text), 0644, &err));
}

/* enrolment: "boot: …" lines of the enrolment and of the profile; extra: more of the file. */
RIG void rig_config(struct rig *r, const char *boot, const char *extra)
{
    char text[4096];
    snprintf(text, sizeof text,
             "trust_domain: bank.example\n"
             "listen: \"127.0.0.1:8443\"\n"
             "url: \"" RIG_URL "\"\n"
             "state_dir: %s/state\nrun_dir: %s/run\npolicies_dir: %s/policies\n"
             "store: \"%s\"\n"
             "ek:\n  roots_dir: %s/ek\n"
             "enrolment:\n  boot: %s\n  pcrs: \"" RIG_PCRS "\"\n  logs: [firmware]\n"
             "  ek: certificate\n  ak_lifetime: 7d\n"
             "profiles:\n"
             "  - name: trading\n    description: one hour\n    lifetime: 1h\n    keys: [tpm]\n"
             "    boot: %s\n    pcrs: \"" RIG_PCRS "\"\n    logs: [firmware]\n"
             "  - name: other\n    description: another\n    lifetime: 1h\n    keys: [tpm]\n"
             "    boot: none\n    pcrs: \"" RIG_PCRS "\"\n    logs: [firmware]\n%s",
             r->dir, r->dir, r->dir, r->store, r->dir, boot, boot, extra ? extra : "");
    rig_write(r->dir, "issuer.yaml", text);
}

RIG void rig_open(struct rig *r)
{
    char path[256];
    snprintf(path, sizeof path, "%s/issuer.yaml", r->dir);
    rig_ok(issuer_open(path, &r->issuer, &err));
    r->issuer->clock = rig_clock;
}

RIG void rig_pem(const char *dir, const char *name, const X509 *cert)
{
    att_autobuf pem = {0};
    char path[256];
    rig_ok(certs_pem_dump(cert, &pem, &err));
    snprintf(path, sizeof path, "%s/%s", dir, name);
    rig_ok(att_io_write_file(path, att_buf_slice(&pem), 0644, &err));
}

/* root: the TPM maker's. */
RIG void rig_new(struct rig *r, const X509 *root, const char *boot)
{
    const char *tmp = getenv("TMPDIR");
    char ek[160];
    rig_time = FORGE_NOW;
    snprintf(r->dir, sizeof r->dir, "%.80s/issuer-test-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(r->dir));
    snprintf(ek, sizeof ek, "%s/state", r->dir);
    test_store_new(ek, "issuer.db", r->store);
    snprintf(ek, sizeof ek, "%s/ek", r->dir);
    rig_ok(att_io_mkdirs(ek, 0755, &err));
    rig_pem(ek, "root.pem", root);
    rig_config(r, boot, NULL);
    char path[256];
    snprintf(path, sizeof path, "%s/issuer.yaml", r->dir);
    rig_ok(issuer_init(path, &err));
    rig_open(r);
}

RIG void rig_free(struct rig *r)
{
    char command[200];
    issuer_free(r->issuer);
    snprintf(command, sizeof command, "rm -rf '%s'", r->dir);
    assert_int_equal(system(command), 0);
}

/* One admin operation; args as by json_pack. The caller owns the result. */
RIG json_t *rig_admin(struct rig *r, const char *op, json_t *args)
{
    json_t *result = NULL;
    rig_ok(issuer_admin(r->issuer, NULL, op, args, &result, &err));
    json_decref(args);
    return result;
}

RIG void rig_admin_done(struct rig *r, const char *op, json_t *args)
{
    json_decref(rig_admin(r, op, args));
}

RIG void rig_admin_refused(struct rig *r, const char *op, json_t *args, const char *reason)
{
    json_t *result = NULL;
    struct att_err err = {0};
    assert_int_not_equal(issuer_admin(r->issuer, NULL, op, args, &result, &err), ATT_OK);
    assert_string_equal(err.reason, reason);
    assert_null(result);
    json_decref(args);
}

/* ---- a client
 * ------------------------------------------------------------------------------------ */

/* A text that must fit. */
RIG void rig_copy(char *to, size_t room, const char *from)
{
    assert_true(strlen(from) < room);
    memcpy(to, from, strlen(from) + 1);
}

struct client {
    struct rig *rig;
    EVP_PKEY *key;
    char kid[256];
    char thumbprint[ACME_THUMBPRINT_LEN];
    struct issuer_response last;
    json_t *body; /* of the last answer; NULL when it is not JSON */
    /* Whether the same is to be asked again, with another nonce; NULL: never. For those who ask
     * over a network (tests/support/fleet). */
    bool (*again)(struct client *c);
};

RIG void client_new(struct client *c, struct rig *rig)
{
    att_autobuf spki = {0};
    *c = (struct client){.rig = rig, .key = forge_p256()};
    forge_spki(c->key, &spki);
    rig_ok(acme_spki_thumbprint(att_buf_slice(&spki), c->thumbprint, &err));
}

RIG void client_free(struct client *c)
{
    EVP_PKEY_free(c->key);
    json_decref(c->body);
    issuer_response_done(&c->last);
}

RIG json_t *client_jwk(struct client *c)
{
    att_autobuf spki = {0};
    json_t *jwk = NULL;
    forge_spki(c->key, &spki);
    rig_ok(acme_spki_to_jwk(att_buf_slice(&spki), &jwk, &err));
    return jwk;
}

RIG void client_nonce(struct client *c, char ret[ACME_NONCE_TEXT])
{
    struct issuer_request request = {.method = ISSUER_HEAD, .path = "/acme/newNonce"};
    struct issuer_response response;
    issuer_handle(c->rig->issuer, &request, &response);
    assert_int_equal(response.status, 200);
    snprintf(ret, ACME_NONCE_TEXT, "%s", response.nonce);
    issuer_response_done(&response);
}

/* Hands the bytes in; keeps the answer. */
RIG int client_send(struct client *c, const char *path, struct att_slice body,
                    const char *content_type, const char *etag)
{
    struct issuer_request request = {.method = ISSUER_POST,
                                     .path = path,
                                     .content_type = content_type,
                                     .if_none_match = etag,
                                     .body = body};
    issuer_response_done(&c->last);
    json_decref(c->body);
    c->body = NULL;
    issuer_handle(c->rig->issuer, &request, &c->last);
    if (c->last.body.len && c->last.body.ptr[0] == '{') {
        rig_ok(att_json_parse(att_buf_slice(&c->last.body), 1 << 20, &c->body, &err));
    }
    return c->last.status;
}

/* A signed request as somebody who does everything right would send it. */
RIG void client_sign(struct client *c, const char *url, const char *nonce, bool jwk,
                     struct att_slice payload, struct att_buf *ret_text)
{
    att_autobuf header = {0};
    json_t *key = jwk ? client_jwk(c) : NULL;
    struct acme_signer signer = acme_signer_pkey(c->key);
    rig_ok(acme_jws_protected(nonce, url, key, jwk ? NULL : c->kid, &header, &err));
    rig_ok(acme_jws_sign(&signer, att_buf_slice(&header), payload, ret_text, &err));
    json_decref(key);
}

RIG int client_post(struct client *c, const char *url, bool jwk, struct att_slice payload)
{
    att_autobuf text = {0};
    char nonce[ACME_NONCE_TEXT];
    char copy[256]; /* url may be part of the last answer */
    rig_copy(copy, sizeof copy, url);
    const char *path = strstr(copy, "/acme");
    int status;
    do {
        att_buf_reset(&text);
        client_nonce(c, nonce);
        client_sign(c, copy, nonce, jwk, payload, &text);
        status = client_send(c, path, att_buf_slice(&text), "application/jose+json", NULL);
    } while (c->again && c->again(c));
    assert_true(c->last.nonce[0] != 0); /* RFC 8555 §6.5: on every answer to a POST */
    return status;
}

RIG int client_post_text(struct client *c, const char *url, const char *payload)
{
    return client_post(c, url, false, att_slice_str(payload));
}

RIG int client_get(struct client *c, const char *url)
{
    return client_post(c, url, false, ATT_SLICE(NULL, 0));
}

/* The reason of the last refusal: the subproblem's word, else the type's. */
RIG const char *client_reason(struct client *c)
{
    const json_t *problem = c->body;
    if (json_object_get(problem, "error")) {
        problem = json_object_get(problem, "error");
    }
    const json_t *sub = json_array_get(json_object_get(problem, "subproblems"), 0);
    const char *type = json_string_value(json_object_get(sub ? sub : problem, "type"));
    const char *colon = type ? strrchr(type, ':') : NULL;
    return colon ? colon + 1 : "";
}

RIG void client_refused(struct client *c, const char *reason)
{
    if (strcmp(client_reason(c), reason) != 0) {
        print_error("expected %s, got %d %.*s\n", reason, c->last.status, (int)c->last.body.len,
                    (const char *)c->last.body.ptr);
    }
    assert_string_equal(client_reason(c), reason);
}

RIG const char *client_text(struct client *c, const char *name)
{
    const char *text = json_string_value(json_object_get(c->body, name));
    assert_non_null(text);
    return text;
}

/* newAccount with a ticket's EAB; ticket as by ticket.create, or NULL. */
RIG int client_account(struct client *c, const json_t *ticket)
{
    att_autobuf payload = {0}, mac = {0};
    struct acme_account_request request = {.terms_agreed = true};
    json_t *jwk = client_jwk(c);
    if (ticket) {
        rig_ok(att_json_b64u(ticket, "macKey", 64, &mac, &err));
        rig_ok(acme_eab_create(json_string_value(json_object_get(ticket, "kid")),
                               att_buf_slice(&mac), RIG_URL "/newAccount", jwk, &request.eab,
                               &err));
    }
    rig_ok(acme_account_request_encode(&request, &payload, &err));
    int status = client_post(c, RIG_URL "/newAccount", true, att_buf_slice(&payload));
    rig_copy(c->kid, sizeof c->kid, c->last.location);
    acme_account_request_done(&request);
    json_decref(jwk);
    return status;
}

RIG json_t *rig_ticket(struct rig *r, const char *ek, int uses)
{
    json_t *args = json_pack("{s:i}", "uses", uses);
    if (ek) {
        json_object_set_new(args, "ek", json_string(ek));
    }
    json_t *result = rig_admin(r, "ticket.create", args);
    json_t *ticket = json_incref(json_object_get(result, "ticket"));
    json_decref(result);
    return ticket;
}

/* ---- a TPM
 * ---------------------------------------------------------------------------------------- */

/* The keys live in base; each message is made by a forge of its own that borrows them. */
struct tpm {
    struct forge *base;
    char ek_id[VERIFY_ID_HEX];
    struct verify_clock clock;
    struct att_buf ak_cert;   /* DER, once issued */
    forge_mutate mutate;      /* what the test makes wrong */
    const char *identifier;   /* of the agent; NULL: the usual one */
    bool no_ek_cert;          /* there is none in its NV */
    bool no_log;              /* its host sends none with its statements */
    bool memory;              /* the agent's key is in the host's memory */
    bool hsm;                 /* or, with memory, in an HSM */
    bool exportable;          /* … and its agent is given it */
    const uint8_t *k, *nonce; /* while it answers M1 */
};

static _Thread_local struct tpm *rig_tpm; /* of the forge being built */

RIG void tpm_build(struct tpm *t, forge_mutate mutate)
{
    *t = (struct tpm){.base = forge_new(FORGE_EK_RSA, FORGE_ENROL)};
    forge_build(t->base, mutate);
    t->clock = t->base->clock;
    att_autobuf spki = {0};
    uint8_t digest[ATT_SHA256_LEN];
    forge_spki(t->base->ek.pkey, &spki);
    att_sha256(digest, att_buf_slice(&spki));
    att_hex(t->ek_id, ATT_SLICE_ARRAY(digest));
}

RIG void tpm_new(struct tpm *t)
{
    tpm_build(t, NULL);
}

RIG void tpm_own_ek(struct forge *f, enum forge_stage stage)
{
    if (stage == FORGE_KEYS) {
        EVP_PKEY_free(f->ek.pkey);
        f->ek.pkey = EVP_RSA_gen(2048);
        assert_non_null(f->ek.pkey);
        rig_ok(parse_public_set_pkey(&f->ek.pub, f->ek.pkey, &err));
    }
}

/* With an EK of its own; the forge's RSA EK is otherwise one for all. */
RIG void tpm_new_other(struct tpm *t)
{
    tpm_build(t, tpm_own_ek);
}

RIG void tpm_free(struct tpm *t)
{
    att_buf_done(&t->ak_cert);
    forge_free(t->base);
}

RIG void tpm_borrow(struct forge_key *to, const struct forge_key *from)
{
    EVP_PKEY_free(to->pkey);
    EVP_PKEY_up_ref(from->pkey);
    to->pkey = from->pkey;
    to->pub = from->pub;
}

RIG void tpm_stage(struct forge *f, enum forge_stage stage)
{
    struct tpm *t = rig_tpm;
    if (stage == FORGE_KEYS) {
        tpm_borrow(&f->ek, &t->base->ek);
        tpm_borrow(&f->ak, &t->base->ak);
        tpm_borrow(&f->srk, &t->base->srk);
        tpm_borrow(&f->parent, &t->base->parent);
        tpm_borrow(&f->agent, &t->base->agent);
        f->certify_signer = f->quote_signer = f->ak.pkey;
        f->clock = t->clock;
        f->memory = t->memory;
        f->hsm = t->hsm;
        f->exportable = t->exportable;
        f->identifier = t->identifier ? t->identifier : f->identifier;
    }
    if (stage == FORGE_EVIDENCE && t->ak_cert.len) {
        att_buf_reset(&f->ak_cert);
        att_buf_put_slice(&f->ak_cert, att_buf_slice(&t->ak_cert));
    }
    if (stage == FORGE_QUOTE && t->k) {
        att_autobuf manifest = {0};
        rig_ok(evidence_manifest_encode(&f->logs, &manifest, &err));
        enrol_schedule_quote_extra(t->k, t->nonce, att_buf_slice(&manifest), f->extra);
    }
    if (t->mutate) {
        t->mutate(f, stage);
    }
}

/* KDFa of TCG Part 1 §11.4.10.2, SHA-256, one block. */
RIG void tpm_kdfa(const uint8_t seed[32], const char *label, struct att_slice context,
                  uint32_t bits, uint8_t ret[32])
{
    uint8_t counter[4] = {0, 0, 0, 1}, tail[4] = {0, 0, (uint8_t)(bits >> 8), (uint8_t)bits};
    const struct att_slice parts[] = {ATT_SLICE_ARRAY(counter), ATT_SLICE(label, strlen(label) + 1),
                                      context, ATT_SLICE_ARRAY(tail)};
    att_hmac_sha256_v(ret, ATT_SLICE(seed, 32), parts, 4);
}

/* TPM2_ActivateCredential with an RSA EK: TCG Part 1 clause 24. False: TPM_RC_INTEGRITY, since the
 * credential is for another object than this TPM's AK. */
RIG bool tpm_activate(struct tpm *t, struct att_slice blob, struct att_slice secret, uint8_t cv[32])
{
    struct att_cur cur = att_cur_init(secret);
    struct att_slice wrapped = att_cur_take_be16(&cur, 256);
    assert_true(att_cur_done(&cur));
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(t->base->ek.pkey, NULL);
    uint8_t seed[256], key[32], mac_key[32], mac[32], plain[64];
    size_t seed_len = sizeof seed;
    char *label = OPENSSL_strdup("IDENTITY");
    assert_true(EVP_PKEY_decrypt_init(ctx) == 1 &&
                EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_OAEP_PADDING) == 1 &&
                EVP_PKEY_CTX_set_rsa_oaep_md(ctx, EVP_sha256()) == 1 &&
                EVP_PKEY_CTX_set0_rsa_oaep_label(ctx, label, 9) == 1 &&
                EVP_PKEY_decrypt(ctx, seed, &seed_len, wrapped.ptr, wrapped.len) == 1);
    EVP_PKEY_CTX_free(ctx);
    assert_int_equal(seed_len, 32);
    struct att_slice name = parse_name_slice(&t->base->ak.name);
    cur = att_cur_init(blob);
    struct att_slice all = att_cur_take_be16(&cur, 256);
    assert_true(att_cur_done(&cur));
    cur = att_cur_init(all);
    struct att_slice integrity = att_cur_take_be16(&cur, 32);
    struct att_slice encrypted = att_cur_take(&cur, cur.left);
    tpm_kdfa(seed, "INTEGRITY", ATT_SLICE(NULL, 0), 256, mac_key);
    const struct att_slice parts[] = {encrypted, name};
    att_hmac_sha256_v(mac, ATT_SLICE_ARRAY(mac_key), parts, 2);
    if (!att_slice_eq(integrity, ATT_SLICE_ARRAY(mac))) {
        return false;
    }
    tpm_kdfa(seed, "STORAGE", name, 128, key);
    uint8_t iv[16] = {0};
    int n = 0;
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    assert_true(EVP_DecryptInit_ex(cipher, EVP_aes_128_cfb128(), NULL, key, iv) == 1 &&
                EVP_DecryptUpdate(cipher, plain, &n, encrypted.ptr, (int)encrypted.len) == 1);
    EVP_CIPHER_CTX_free(cipher);
    assert_int_equal(n, 34);
    assert_int_equal(plain[0] << 8 | plain[1], 32);
    memcpy(cv, plain + 2, 32);
    return true;
}

/* ---- M1, M2
 * ------------------------------------------------------------------------------------------ */

struct enrolment {
    struct att_buf payload, body;
    char url[256];
    struct enrol_m1_response response;
    bool activated;
    uint8_t cv[32]; /* zeroes where it was not */
};

RIG void enrolment_done(struct enrolment *e)
{
    att_buf_done(&e->payload);
    att_buf_done(&e->body);
    enrol_m1_response_done(&e->response);
}

RIG void put(struct att_buf *to, struct att_slice from)
{
    att_buf_put_slice(to, from);
}

/* other: the EK certificate of a second EK it lists, or NULL. */
RIG int rig_m1(struct client *c, struct tpm *t, const struct att_buf *other, struct enrolment *e)
{
    struct enrol_m1_request request = {.n_ek_chain = t->no_ek_cert ? 0 : 1};
    *e = (struct enrolment){0};
    if (!t->no_ek_cert) {
        put(&request.ek_cert, att_buf_slice(&t->base->ek_cert));
        put(&request.ek_chain[0], t->base->chain[0]);
    }
    put(&request.ek_pub, att_buf_slice(&t->base->ek.area));
    put(&request.ak_pub, att_buf_slice(&t->base->ak.area));
    if (other) {
        put(&request.other_ek_certs[request.n_other_ek_certs++], att_buf_slice(other));
    }
    snprintf(request.manufacturer, sizeof request.manufacturer, "49424d00");
    snprintf(request.version, sizeof request.version, "%016llx",
             (unsigned long long)t->clock.firmware_version);
    rig_ok(enrol_m1_request_encode(&request, &e->payload, &err));
    enrol_m1_request_done(&request);
    int status = client_post(c, RIG_URL "/newAttestationKey", false, att_buf_slice(&e->payload));
    if (status == 201) {
        put(&e->body, att_buf_slice(&c->last.body));
        rig_copy(e->url, sizeof e->url, c->last.location);
        rig_ok(enrol_m1_response_parse(att_buf_slice(&e->body), &e->response, &err));
        e->activated = tpm_activate(t, att_buf_slice(&e->response.credential_blob),
                                    att_buf_slice(&e->response.encrypted_secret), e->cv);
    }
    return status;
}

RIG void rig_m2_payload(struct client *c, struct tpm *t, struct enrolment *e,
                        struct att_buf *ret_payload)
{
    uint8_t k[ENROL_K_LEN];
    struct enrol_transcript transcript = {e->url, c->thumbprint, att_buf_slice(&e->payload),
                                          att_buf_slice(&e->body)};
    rig_ok(enrol_schedule_k(ATT_SLICE_ARRAY(e->cv), &transcript, k, &err));
    struct forge *f = forge_new(FORGE_EK_RSA, FORGE_ENROL);
    rig_tpm = t;
    t->k = k;
    t->nonce = e->response.nonce;
    forge_build(f, tpm_stage);
    t->k = NULL;
    struct enrol_m2_request request = {.pcrs = f->pcrs};
    enrol_schedule_proof(k, request.proof);
    put(&request.quote.attest, att_buf_slice(&f->quote_bytes));
    put(&request.quote.sig, att_buf_slice(&f->quote_sig));
    rig_ok(evidence_logs_add(&request.logs, "firmware", att_buf_slice(&f->log_bytes), &err));
    rig_ok(enrol_m2_request_encode(&request, NULL, 0, ret_payload, &err));
    enrol_m2_request_done(&request);
    forge_free(f);
}

RIG int rig_m2(struct client *c, struct tpm *t, struct enrolment *e)
{
    att_autobuf payload = {0};
    rig_m2_payload(c, t, e, &payload);
    int status = client_post(c, e->url, false, att_buf_slice(&payload));
    if (status == 200) {
        certs_autostack *certs = NULL;
        rig_ok(certs_pem_parse(att_slice_str(client_text(c, "akCertificate")), &certs, &err));
        att_buf_reset(&t->ak_cert);
        rig_ok(certs_cert_der(sk_X509_value(certs, 0), &t->ak_cert, &err));
    }
    return status;
}

/* Ticket naming the EK, account, M1, M2: an approved host. Gives the AK URL. */
RIG void rig_enrol(struct client *c, struct tpm *t, char ret_ak_url[256])
{
    struct enrolment e;
    json_t *ticket = rig_ticket(c->rig, t->ek_id, 1);
    assert_int_equal(client_account(c, ticket), 201);
    json_decref(ticket);
    assert_int_equal(rig_m1(c, t, NULL, &e), 201);
    int status = rig_m2(c, t, &e);
    if (status != 200) {
        client_refused(c, "nothing");
    }
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(c->body, "host"), "state")), "approved");
    snprintf(ret_ak_url, 256, "%s", e.url);
    enrolment_done(&e);
}

/* ---- entries, M3–M6
 * ------------------------------------------------------------------------------------ */

/* key: the store that the agent's entry names. */
RIG void rig_entries_with(struct rig *r, const char *host, const char *key)
{
    char text[1024];
    snprintf(text, sizeof text,
             "trust_domain: bank.example\nagents:\n"
             "  - name: " RIG_NAME "\n    owner: trading@bank.example\n    hosts: [ \"%s\" ]\n"
             "    workload: { uid: 1001 }\n    key: %s\n    profile: trading\n"
             "  - name: elsewhere\n    owner: x@bank.example\n"
             "    hosts: [ \"label:zone=nowhere\" ]\n"
             "    workload: { uid: 1002 }\n    key: tpm\n    profile: trading\n",
             host, key);
    rig_admin_done(r, "entry.apply", json_pack("{s:s, s:s}", "text", text, "filename", "e.yaml"));
}

RIG void rig_entries(struct rig *r, const char *host)
{
    rig_entries_with(r, host, "tpm");
}

RIG void rig_policy(struct rig *r, struct tpm *t)
{
    att_autobuf json = {0};
    forge_policy_json(t->base, &json);
    rig_admin_done(r, "policy.apply", json_pack("{s:s}", "text", att_buf_cstr(&json)));
}

struct order {
    char url[256], authz[256], challenge[256], finalize[256], token[128];
};

RIG int rig_order(struct client *c, const char *agent, struct order *o)
{
    char payload[512];
    snprintf(payload, sizeof payload,
             "{\"identifiers\":[{\"type\":\"spiffe-id\","
             "\"value\":\"spiffe://bank.example/agent/%s\"}]}",
             agent);
    int status = client_post_text(c, RIG_URL "/newOrder", payload);
    if (status == 201) {
        rig_copy(o->url, sizeof o->url, c->last.location);
        snprintf(o->finalize, sizeof o->finalize, "%s", client_text(c, "finalize"));
        snprintf(o->authz, sizeof o->authz, "%s",
                 json_string_value(json_array_get(json_object_get(c->body, "authorizations"), 0)));
        int got = client_get(c, o->authz);
        if (got == 404 && c->again) {
            return got; /* a new order waits for no disk: the database that fell may have lost it */
        }
        assert_int_equal(got, 200);
        const json_t *challenge = json_array_get(json_object_get(c->body, "challenges"), 0);
        snprintf(o->challenge, sizeof o->challenge, "%s", issuer_string(challenge, "url"));
        snprintf(o->token, sizeof o->token, "%s", issuer_string(challenge, "token"));
        assert_string_equal(issuer_string(challenge, "pcrSelection"), RIG_PCRS);
    }
    return status;
}

RIG void rig_m4_payload(struct client *c, struct tpm *t, const struct order *o, const char *ak_url,
                        struct att_buf *ret_payload)
{
    char key_auth[256];
    snprintf(key_auth, sizeof key_auth, "%s.%s", o->token, c->thumbprint);
    struct forge *f = forge_new(FORGE_EK_RSA, FORGE_ORDER);
    f->key_authorization = f->quoted_key_authorization = f->certified_key_authorization = key_auth;
    rig_tpm = t;
    forge_build(f, tpm_stage);
    struct enrol_m4_request request = {.pcrs = f->pcrs, .ak_url = strdup(ak_url)};
    put(&request.attobj, att_buf_slice(&f->att_obj));
    put(&request.evidence, att_buf_slice(&f->evidence));
    put(&request.quote.attest, att_buf_slice(&f->quote_bytes));
    put(&request.quote.sig, att_buf_slice(&f->quote_sig));
    if (!t->memory) {
        put(&request.srk_pub, att_buf_slice(&f->srk.area));
        if (!f->no_parent) {
            put(&request.parent_pub, att_buf_slice(&f->parent.area));
        }
    }
    if (!t->no_log) {
        rig_ok(evidence_logs_add(&request.logs, "firmware", att_buf_slice(&f->log_bytes), &err));
    }
    for (size_t i = 0; i < f->logs.n; i++) {
        const struct evidence_log *log = &f->logs.log[i];
        if (log->has_data && strcmp(log->name, "firmware") != 0) {
            rig_ok(evidence_logs_add(&request.logs, log->name, att_buf_slice(&log->data), &err));
        }
        if (log->tail.len) {
            rig_ok(
                evidence_logs_set_tail(&request.logs, log->name, att_buf_slice(&log->tail), &err));
        }
    }
    rig_ok(enrol_m4_request_encode(&request, NULL, 0, ret_payload, &err));
    enrol_m4_request_done(&request);
    forge_free(f);
}

/* Gives the challenge's status: "valid", "invalid", or "" when the request was refused. */
RIG const char *rig_m4(struct client *c, struct tpm *t, const struct order *o, const char *ak_url)
{
    att_autobuf payload = {0};
    rig_m4_payload(c, t, o, ak_url, &payload);
    int status = client_post(c, o->challenge, false, att_buf_slice(&payload));
    return status == 200 ? client_text(c, "status") : "";
}

RIG int rig_finalize(struct client *c, const struct order *o, EVP_PKEY *key, const char *uri)
{
    att_autobuf csr = {0}, payload = {0};
    rig_ok(certs_csr_create(key, uri, &csr, &err));
    rig_ok(acme_finalize_request_encode(att_buf_slice(&csr), &payload, &err));
    return client_post(c, o->finalize, false, att_buf_slice(&payload));
}

/* ---- what is stored
 * ---------------------------------------------------------------------------------------- */

struct rig_count {
    const struct store_table *table;
    int n;
};

RIG enum att_rc rig_count_one(void *user, const void *record, struct att_err *err)
{
    (void)err;
    struct rig_count *count = user;
    if (count->table != &store_certs ||
        strcmp(((const struct store_cert *)record)->kind, "agent") == 0) {
        count->n++;
    }
    return ATT_OK;
}

RIG enum att_rc rig_count_tx(void *user, struct store_tx *tx, struct att_err *err)
{
    struct rig_count *count = user;
    return store_each(tx, count->table, NULL, NULL, rig_count_one, count, err);
}

/* Rows of a table; of certificates those of agents. */
RIG int rig_rows(struct rig *r, const struct store_table *table)
{
    struct rig_count count = {table, 0};
    rig_ok(store_run(r->issuer->store, false, rig_count_tx, &count, &err));
    return count.n;
}

/* The newest audit record is a refusal with this reason. */
RIG void rig_audited(struct rig *r, const char *outcome, const char *reason)
{
    json_t *result = rig_admin(r, "audit.list", json_pack("{s:i}", "limit", 1));
    const json_t *record =
        json_object_get(json_array_get(json_object_get(result, "records"), 0), "record");
    assert_string_equal(issuer_string(record, "outcome"), outcome);
    assert_string_equal(issuer_string(record, "reason"), reason);
    json_decref(result);
}

#endif
