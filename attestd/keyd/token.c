/* KEY_TOKEN: what an agent's key says when a token is asked for (docs/PROTOCOL.md, M8). Header and
 * claims are written here from parts that were looked at here; nothing else is ever signed so. */
#include "attestd/keyd/token.h"

#include "attestd/base/enc.h"
#include "attestd/proc/keyd_token.h"
#include "certs/san.h"

#include <string.h>

#define PROOF_TYP "attestd-token"
#define TEXT_MAX  4096

static enum att_rc check_agent(struct att_slice id, const char *agent, struct att_err *err)
{
    struct certs_spiffe_id spiffe;
    char path[PROC_AGENT_MAX + 16] = "/agent/";
    memcpy(path + 7, agent, strlen(agent) + 1);
    if (certs_spiffe_parse(id, &spiffe, NULL) != ATT_OK || !att_slice_eq_str(spiffe.path, path)) {
        return keyd_deny(err, "tokenAgent", "the key is agent %s's, not that of %.*s", agent,
                         (int)(id.len < 200 ? id.len : 200), (const char *)id.ptr);
    }
    return ATT_OK;
}

static json_t *text_of(struct att_slice bytes)
{
    return json_stringn((const char *)bytes.ptr, bytes.len);
}

/* NULL: no memory, or no UTF-8. */
static json_t *claims_of(const struct proc_value *v)
{
    const struct proc_value *list = &v[PROC_KEY_TOKEN_REQ_AUDIENCE];
    json_t *audience = json_array();
    for (size_t i = 0; audience && i < list->item_count; i++) {
        if (json_array_append_new(audience, text_of(list->items[i])) != 0) {
            json_decref(audience);
            audience = NULL;
        }
    }
    return json_pack("{s:o, s:o, s:o}", "nonce", text_of(v[PROC_KEY_TOKEN_REQ_NONCE].bytes),
                     "spiffeId", text_of(v[PROC_KEY_TOKEN_REQ_SPIFFE_ID].bytes), "audience",
                     audience);
}

/* base64url(header) "." base64url(claims) */
static enum att_rc write_input(const struct keyd_key *key, const struct proc_value *v,
                               struct att_buf *ret, struct att_err *err)
{
    att_autobuf h = ATT_BUF_INIT(TEXT_MAX), c = ATT_BUF_INIT(TEXT_MAX);
    att_autojson *header =
        json_pack("{s:s, s:s, s:o}", "alg", att_keytype_is_rsa(key->type) ? "RS256" : "ES256",
                  "typ", PROOF_TYP, "kid", text_of(v[PROC_KEY_TOKEN_REQ_SERIAL].bytes));
    att_autojson *claims = claims_of(v);
    if (!header || !claims) {
        return att_fail(err, ATT_E_INVAL, "serial, nonce, spiffeId, audience: expected UTF-8");
    }
    enum att_rc rc = att_json_dump(header, false, &h, err);
    rc = rc != ATT_OK ? rc : att_json_dump(claims, false, &c, err);
    if (rc == ATT_OK) {
        att_buf_b64u(ret, att_buf_slice(&h));
        att_buf_put_str(ret, ".");
        att_buf_b64u(ret, att_buf_slice(&c));
        rc = att_buf_ok(ret, err);
    }
    return rc;
}

static enum att_rc sign(struct keyd *keyd, const struct keyd_key *key, struct att_buf *text,
                        struct att_err *err)
{
    uint8_t digest[ATT_SHA256_LEN];
    struct keyd_sig sig;
    bool rsa = att_keytype_is_rsa(key->type);
    att_sha256(digest, att_buf_slice(text));
    enum att_rc rc = keyd_key_sign(keyd, key, TPM_PRIO_RENEWAL, rsa ? KEYD_RSA_PKCS1 : KEYD_ECDSA,
                                   ATT_SLICE_ARRAY(digest), &sig, err);
    if (rc == ATT_OK) {
        att_buf_put_str(text, ".");
        att_buf_b64u(text, ATT_SLICE(sig.bytes, sig.len));
        rc = att_buf_ok(text, err);
    }
    return rc;
}

KEYD_OPERATION(key_token)
{
    const struct proc_value *v = request->v;
    keyd_autokey key = {0};
    att_autobuf text = ATT_BUF_INIT(PROC_PROOF_MAX);
    enum att_rc rc = keyd_keys_get(keyd, v[PROC_KEY_TOKEN_REQ_KEY_ID].bytes, &key, err);
    if (rc == ATT_OK && key.state != KEYD_KEY_ACTIVE) {
        rc = keyd_deny(err, "keyState", "key %s is not its agent's key in force", key.id);
    }
    rc = rc != ATT_OK ? rc : keyd_store_ready(keyd, &key, err);
    rc = rc != ATT_OK ? rc : keyd_frozen_check(keyd, key.agent, err);
    rc = rc != ATT_OK ? rc : check_agent(v[PROC_KEY_TOKEN_REQ_SPIFFE_ID].bytes, key.agent, err);
    rc = rc != ATT_OK ? rc : write_input(&key, v, &text, err);
    rc = rc != ATT_OK ? rc : sign(keyd, &key, &text, err);
    const struct proc_value values[] = {
        [PROC_KEY_TOKEN_REP_PROOF] = {.bytes = att_buf_slice(&text)}};
    return rc == ATT_OK ? proc_reply_encode(op, values, ret_payload, err) : rc;
}
