/* Agents that ask for tokens: their entries, certificates, proofs and refusals. */
#ifndef TESTS_UNIT_ISSUER_TOKENS_H
#define TESTS_UNIT_ISSUER_TOKENS_H

#include "tests/unit/issuer/stage.h"

#include "provision/issuer/jwt.h"

#define ISS   "https://id.bank.example"
#define AUD   "https://api.example"
#define AUD_2 "sts.example"
#define ID    "spiffe://bank.example/agent/" RIG_NAME

RIG void token_entries(struct stage *s, const char *audiences)
{
    char text[1024];
    snprintf(text, sizeof text,
             "trust_domain: bank.example\nagents:\n"
             "  - name: " RIG_NAME "\n    owner: x@bank.example\n    hosts: [ \"ek:%s\" ]\n"
             "    workload: { uid: 1001 }\n    key: tpm\n    profile: trading\n%s",
             s->tpm.ek_id, audiences);
    rig_admin_done(&s->rig, "entry.apply",
                   json_pack("{s:s, s:s}", "text", text, "filename", "e.yaml"));
}

struct held { /* the agent's certificate in force */
    char serial[64];
};

RIG void issue_to(struct stage *s, const char *agent, const char *id, struct held *held)
{
    struct order o;
    s->tpm.clock.clock_ms += 1000;
    s->tpm.identifier = id;
    assert_int_equal(rig_order(&s->client, agent, &o), 201);
    assert_string_equal(rig_m4(&s->client, &s->tpm, &o, s->ak), "valid");
    assert_int_equal(rig_finalize(&s->client, &o, s->tpm.base->agent.pkey, id), 200);
    json_t *list =
        rig_admin(&s->rig, "cert.list",
                  json_pack("{s:s, s:s, s:s}", "kind", "agent", "status", "issued", "name", agent));
    const json_t *cert = json_array_get(json_object_get(list, "certificates"), 0);
    rig_copy(held->serial, sizeof held->serial, issuer_string(cert, "serial"));
    json_decref(list);
    assert_true(held->serial[0] != 0);
}

RIG void issue(struct stage *s, struct held *held)
{
    issue_to(s, RIG_NAME, FORGE_IDENTIFIER, held);
}

RIG void stage_tokens(struct stage *s, struct held *held)
{
    stage_enrolled(s, "forge");
    reconfigure(&s->rig, "profiles:\n", "jwt:\n  issuer: " ISS "\nprofiles:\n");
    rig_ok(issuer_jwt_start(s->rig.issuer, &err));
    token_entries(s, "    audiences: [ \"" AUD "\", \"" AUD_2 "\" ]\n");
    issue(s, held);
}

RIG void compact(EVP_PKEY *key, const json_t *header, const json_t *claims, struct att_buf *ret)
{
    att_autobuf h = {0}, c = {0};
    uint8_t rs[ACME_ES256_LEN];
    struct acme_signer signer = acme_signer_pkey(key);
    rig_ok(att_json_dump(header, false, &h, &err));
    rig_ok(att_json_dump(claims, false, &c, &err));
    acme_jws_input(att_buf_slice(&h), att_buf_slice(&c), ret);
    rig_ok(signer.sign(signer.user, att_buf_slice(ret), rs, &err));
    att_buf_put_str(ret, ".");
    att_buf_b64u(ret, ATT_SLICE_ARRAY(rs));
}

struct asking {
    const char *id, *audience, *typ, *nonce, *kid; /* NULL: as it should be */
    EVP_PKEY *key;
};

RIG int ask(struct stage *s, const struct held *held, const struct asking *how)
{
    char nonce[ACME_NONCE_TEXT];
    att_autobuf proof = {0}, text = {0};
    client_nonce(&s->client, nonce);
    att_autojson *header =
        json_pack("{s:s, s:s, s:s}", "alg", "ES256", "typ", how->typ ? how->typ : "attestd-token",
                  "kid", how->kid ? how->kid : held->serial);
    att_autojson *claims =
        json_pack("{s:s, s:s, s:[s]}", "nonce", how->nonce ? how->nonce : nonce, "spiffeId",
                  how->id ? how->id : ID, "audience", how->audience ? how->audience : AUD);
    compact(how->key ? how->key : s->tpm.base->agent.pkey, header, claims, &proof);
    att_autojson *payload = json_pack("{s:s}", "proof", att_buf_cstr(&proof));
    att_autobuf bytes = {0};
    rig_ok(att_json_dump(payload, false, &bytes, &err));
    client_sign(&s->client, RIG_URL "/newToken", nonce, false, att_buf_slice(&bytes), &text);
    return client_send(&s->client, "/acme/newToken", att_buf_slice(&text), "application/jose+json",
                       NULL);
}

RIG void refused(struct stage *s, const struct held *held, const struct asking *how,
                 const char *reason)
{
    assert_int_not_equal(ask(s, held, how), 200);
    client_refused(&s->client, reason);
    rig_audited(&s->rig, "refused", reason);
}

static const struct asking right = {0};

#endif
