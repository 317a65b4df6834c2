#include "attestd/proc/keyd_token.h"

#include "attestd/proc/caller.h"

#include <stdlib.h>
#include <string.h>

struct proc_keyd {
    struct proc_caller *caller;
};

enum att_rc proc_keyd_new(const char *socket_path, uid_t user, int64_t timeout_ms,
                          struct proc_keyd **ret_keyd, struct att_err *err)
{
    struct proc_keyd *keyd = calloc(1, sizeof *keyd);
    if (!keyd) {
        return att_fail(err, ATT_E_NOMEM, "client");
    }
    enum att_rc rc =
        proc_caller_new(socket_path, "keyd", user, proc_keyd_table, timeout_ms, &keyd->caller, err);
    if (rc != ATT_OK) {
        free(keyd);
        return rc;
    }
    *ret_keyd = keyd;
    return ATT_OK;
}

void proc_keyd_free(struct proc_keyd *keyd)
{
    if (keyd) {
        proc_caller_free(keyd->caller);
        free(keyd);
    }
}

static enum att_rc call(struct proc_keyd *keyd, enum proc_keyd_op which,
                        const struct proc_value *values, struct proc_answer *answer,
                        struct att_err *err)
{
    return proc_call(keyd->caller, (uint16_t)which, values, -1, answer, err);
}

static struct att_slice field(const struct proc_answer *reply, size_t i)
{
    return reply->msg.v[i].bytes;
}

static enum att_rc take_copy(struct att_slice from, struct att_buf *ret, struct att_err *err)
{
    *ret = ATT_BUF_INIT(PROC_FRAME_MAX);
    att_buf_put_slice(ret, from);
    return att_buf_ok(ret, err);
}

static enum att_rc take_json(struct att_slice from, json_t **ret, struct att_err *err)
{
    enum att_rc rc = att_json_parse(from, PROC_FRAME_MAX, ret, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "keyd's reply");
        return ATT_E_PROTOCOL;
    }
    return ATT_OK;
}

/* ---- host ---------------------------------------------------------------------------------- */

enum att_rc proc_keyd_info(struct proc_keyd *keyd, json_t **ret_info, struct att_err *err)
{
    proc_autoanswer reply = {0};
    enum att_rc rc = call(keyd, PROC_KEYD_INFO, NULL, &reply, err);
    return rc == ATT_OK ? take_json(field(&reply, PROC_INFO_REP_JSON), ret_info, err) : rc;
}

static enum att_rc copy_items(const struct proc_value *value, struct att_slice **ret,
                              size_t *ret_count, struct att_err *err)
{
    if (value->item_count == 0) {
        return ATT_OK;
    }
    *ret = calloc(value->item_count, sizeof **ret);
    if (!*ret) {
        return att_fail(err, ATT_E_NOMEM, "a list of %zu", value->item_count);
    }
    memcpy(*ret, value->items, value->item_count * sizeof **ret);
    *ret_count = value->item_count;
    return ATT_OK;
}

enum att_rc proc_keyd_identity(struct proc_keyd *keyd, struct proc_identity *ret_identity,
                               struct att_err *err)
{
    proc_autoanswer reply = {0};
    enum att_rc rc = call(keyd, PROC_KEYD_IDENTITY, NULL, &reply, err);
    if (rc != ATT_OK) {
        return rc;
    }
    const struct proc_value *v = reply.msg.v;
    struct proc_identity id = {
        .ek_cert = v[PROC_IDENTITY_REP_EK_CERT].bytes,
        .ek_pub = v[PROC_IDENTITY_REP_EK_PUB].bytes,
        .ak_pub = v[PROC_IDENTITY_REP_AK_PUB].bytes,
        .srk_pub = v[PROC_IDENTITY_REP_SRK_PUB].bytes,
        .ak_name = v[PROC_IDENTITY_REP_AK_NAME].bytes,
        .reset_count = (uint32_t)v[PROC_IDENTITY_REP_RESET_COUNT].num,
        .restart_count = (uint32_t)v[PROC_IDENTITY_REP_RESTART_COUNT].num,
    };
    proc_take_text(v[PROC_IDENTITY_REP_MANUFACTURER].bytes, id.manufacturer,
                   sizeof id.manufacturer);
    proc_take_text(v[PROC_IDENTITY_REP_FIRMWARE].bytes, id.firmware, sizeof id.firmware);
    rc = copy_items(&v[PROC_IDENTITY_REP_EK_CERTS], &id.ek_certs, &id.ek_cert_count, err);
    if (rc == ATT_OK) {
        rc = copy_items(&v[PROC_IDENTITY_REP_EK_CHAIN], &id.ek_chain, &id.ek_chain_count, err);
    }
    if (rc != ATT_OK) {
        proc_identity_done(&id);
        return rc;
    }
    id.store = reply.frame; /* the slices' memory moves with it */
    reply.frame = (struct att_buf){0};
    *ret_identity = id;
    return ATT_OK;
}

void proc_identity_done(struct proc_identity *identity)
{
    if (identity) {
        free(identity->ek_certs);
        free(identity->ek_chain);
        att_buf_done(&identity->store);
        *identity = (struct proc_identity){0};
    }
}

enum att_rc proc_keyd_account(struct proc_keyd *keyd, struct proc_account *ret_account,
                              struct att_err *err)
{
    proc_autoanswer reply = {0};
    enum att_rc rc = call(keyd, PROC_KEYD_ACCOUNT, NULL, &reply, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct proc_account account = {0};
    proc_take_text(field(&reply, PROC_ACCOUNT_REP_THUMBPRINT), account.thumbprint,
                   sizeof account.thumbprint);
    rc = take_copy(field(&reply, PROC_ACCOUNT_REP_SPKI), &account.spki, err);
    if (rc == ATT_OK) {
        rc = take_json(field(&reply, PROC_ACCOUNT_REP_JWK), &account.jwk, err);
    }
    if (rc != ATT_OK) {
        proc_account_done(&account);
        return rc;
    }
    *ret_account = account;
    return ATT_OK;
}

void proc_account_done(struct proc_account *account)
{
    if (account) {
        att_json_done(&account->jwk);
        att_buf_done(&account->spki);
        *account = (struct proc_account){0};
    }
}

/* PROC_JWS_PAYLOAD_MAX is a multiple of 3, as parts before the last must be. */
static enum att_rc sign_in_parts(struct proc_keyd *keyd, struct att_slice protected_json,
                                 struct att_slice payload, uint8_t ret_sig[64], struct att_err *err)
{
    struct proc_value values[] = {proc_bytes(protected_json), {0}, {0}};
    proc_autoanswer start = {0};
    enum att_rc rc = call(keyd, PROC_KEYD_SIGN_START, values, &start, err);
    if (rc != ATT_OK) {
        return rc;
    }
    values[PROC_SIGN_PART_REQ_HANDLE] =
        (struct proc_value){.num = start.msg.v[PROC_SIGN_START_REP_HANDLE].num};
    for (size_t at = 0; at < payload.len;) {
        size_t step = payload.len - at;
        step = step < PROC_JWS_PAYLOAD_MAX ? step : PROC_JWS_PAYLOAD_MAX;
        values[PROC_SIGN_PART_REQ_OFFSET].num = at;
        values[PROC_SIGN_PART_REQ_CHUNK] = proc_bytes(ATT_SLICE(payload.ptr + at, step));
        proc_autoanswer part = {0};
        rc = call(keyd, PROC_KEYD_SIGN_PART, values, &part, err);
        if (rc != ATT_OK) {
            return rc;
        }
        at += step;
    }
    values[PROC_SIGN_END_REQ_LENGTH].num = payload.len;
    proc_autoanswer last = {0};
    rc = call(keyd, PROC_KEYD_SIGN_END, values, &last, err);
    if (rc == ATT_OK) {
        memcpy(ret_sig, field(&last, PROC_ACCOUNT_SIGN_REP_SIGNATURE).ptr, 64);
    }
    return rc;
}

enum att_rc proc_keyd_account_sign(struct proc_keyd *keyd, struct att_slice protected_json,
                                   struct att_slice payload, uint8_t ret_sig[64],
                                   struct att_err *err)
{
    if (payload.len > PROC_JWS_PAYLOAD_MAX) {
        return sign_in_parts(keyd, protected_json, payload, ret_sig, err);
    }
    const struct proc_value values[] = {
        [PROC_ACCOUNT_SIGN_REQ_PROTECTED] = proc_bytes(protected_json),
        [PROC_ACCOUNT_SIGN_REQ_PAYLOAD] = proc_bytes(payload),
    };
    proc_autoanswer reply = {0};
    enum att_rc rc = call(keyd, PROC_KEYD_ACCOUNT_SIGN, values, &reply, err);
    if (rc == ATT_OK) {
        memcpy(ret_sig, field(&reply, PROC_ACCOUNT_SIGN_REP_SIGNATURE).ptr, 64);
    }
    return rc;
}

/* ---- quotes -------------------------------------------------------------------------------- */

void proc_quote_done(struct proc_quote *quote)
{
    if (quote) {
        att_buf_done(&quote->attest);
        att_buf_done(&quote->sig);
        att_json_done(&quote->pcrs);
        *quote = (struct proc_quote){0};
    }
}

static enum att_rc take_quote(struct att_slice attest, struct att_slice sig, struct att_slice pcrs,
                              struct proc_quote *ret_quote, struct att_err *err)
{
    struct proc_quote quote = {0};
    enum att_rc rc = take_copy(attest, &quote.attest, err);
    if (rc == ATT_OK) {
        rc = take_copy(sig, &quote.sig, err);
    }
    if (rc == ATT_OK) {
        rc = take_json(pcrs, &quote.pcrs, err);
    }
    if (rc != ATT_OK) {
        proc_quote_done(&quote);
        return rc;
    }
    *ret_quote = quote;
    return ATT_OK;
}

enum att_rc proc_keyd_enrol_prove(struct proc_keyd *keyd, const struct proc_enrol_args *args,
                                  uint8_t ret_proof[32], struct proc_quote *ret_quote,
                                  struct att_err *err)
{
    const struct proc_value values[] = {
        [PROC_ENROL_PROVE_REQ_CREDENTIAL_BLOB] = proc_bytes(args->credential_blob),
        [PROC_ENROL_PROVE_REQ_ENCRYPTED_SECRET] = proc_bytes(args->encrypted_secret),
        [PROC_ENROL_PROVE_REQ_AK_URL] = proc_text(args->ak_url),
        [PROC_ENROL_PROVE_REQ_M1_SHA256] = proc_bytes(ATT_SLICE(args->m1_sha256, 32)),
        [PROC_ENROL_PROVE_REQ_M1_REPLY_SHA256] = proc_bytes(ATT_SLICE(args->m1_reply_sha256, 32)),
        [PROC_ENROL_PROVE_REQ_NONCE] = proc_bytes(args->nonce),
        [PROC_ENROL_PROVE_REQ_PCR_SELECTION] = proc_text(args->pcr_selection),
        [PROC_ENROL_PROVE_REQ_LOG_MANIFEST] = proc_bytes(args->log_manifest),
    };
    proc_autoanswer reply = {0};
    enum att_rc rc = call(keyd, PROC_KEYD_ENROL_PROVE, values, &reply, err);
    if (rc == ATT_OK) {
        rc = take_quote(field(&reply, PROC_ENROL_PROVE_REP_ATTEST),
                        field(&reply, PROC_ENROL_PROVE_REP_SIG),
                        field(&reply, PROC_ENROL_PROVE_REP_PCRS), ret_quote, err);
    }
    if (rc == ATT_OK) {
        memcpy(ret_proof, field(&reply, PROC_ENROL_PROVE_REP_PROOF).ptr, 32);
    }
    return rc;
}

enum att_rc proc_keyd_user_quote(struct proc_keyd *keyd, struct att_slice nonce,
                                 const char *pcr_selection, struct att_slice log_manifest,
                                 struct proc_quote *ret_quote, uint8_t ret_extra_data[32],
                                 struct att_err *err)
{
    const struct proc_value values[] = {
        [PROC_USER_QUOTE_REQ_NONCE] = proc_bytes(nonce),
        [PROC_USER_QUOTE_REQ_PCR_SELECTION] = proc_text(pcr_selection),
        [PROC_USER_QUOTE_REQ_LOG_MANIFEST] = proc_bytes(log_manifest),
    };
    proc_autoanswer reply = {0};
    enum att_rc rc = call(keyd, PROC_KEYD_USER_QUOTE, values, &reply, err);
    if (rc == ATT_OK) {
        rc = take_quote(field(&reply, PROC_USER_QUOTE_REP_ATTEST),
                        field(&reply, PROC_USER_QUOTE_REP_SIG),
                        field(&reply, PROC_USER_QUOTE_REP_PCRS), ret_quote, err);
    }
    if (rc == ATT_OK) {
        memcpy(ret_extra_data, field(&reply, PROC_USER_QUOTE_REP_EXTRA_DATA).ptr, 32);
    }
    return rc;
}

/* ---- keys ---------------------------------------------------------------------------------- */

void proc_key_done(struct proc_key *key)
{
    if (key) {
        att_buf_done(&key->name);
        att_buf_done(&key->spki);
        *key = (struct proc_key){0};
    }
}

static enum att_rc take_key(const struct proc_value *v, struct proc_key *ret_key,
                            struct att_err *err)
{
    struct proc_key key = {.created_at = (int64_t)v[PROC_KEY_REC_CREATED_AT].num};
    proc_take_text(v[PROC_KEY_REC_KEY_ID].bytes, key.key_id, sizeof key.key_id);
    proc_take_text(v[PROC_KEY_REC_AGENT].bytes, key.agent, sizeof key.agent);
    proc_take_text(v[PROC_KEY_REC_STATE].bytes, key.state, sizeof key.state);
    proc_take_text(v[PROC_KEY_REC_KEY_STORE].bytes, key.store, sizeof key.store);
    proc_take_text(v[PROC_KEY_REC_KEY_TYPE].bytes, key.type, sizeof key.type);
    proc_take_text(v[PROC_KEY_REC_HSM].bytes, key.hsm, sizeof key.hsm);
    key.usual = v[PROC_KEY_REC_USUAL].num == 1;
    enum att_rc rc = take_copy(v[PROC_KEY_REC_NAME].bytes, &key.name, err);
    if (rc == ATT_OK) {
        rc = take_copy(v[PROC_KEY_REC_SPKI].bytes, &key.spki, err);
    }
    if (rc != ATT_OK) {
        proc_key_done(&key);
        return rc;
    }
    *ret_key = key;
    return ATT_OK;
}

enum att_rc proc_keyd_key_create_type(struct proc_keyd *keyd, const char *agent, const char *store,
                                      const char *type, const char *hsm, struct proc_key *ret_key,
                                      struct att_err *err)
{
    const struct proc_value values[] = {
        [PROC_KEY_CREATE_REQ_AGENT] = proc_text(agent),
        [PROC_KEY_CREATE_REQ_KEY_STORE] = proc_text(store),
        [PROC_KEY_CREATE_REQ_KEY_TYPE] = proc_text(type),
        [PROC_KEY_CREATE_REQ_HSM] = proc_text(hsm),
    };
    proc_autoanswer reply = {0};
    enum att_rc rc = call(keyd, PROC_KEYD_KEY_CREATE, values, &reply, err);
    return rc == ATT_OK ? take_key(reply.msg.v, ret_key, err) : rc;
}

enum att_rc proc_keyd_key_create(struct proc_keyd *keyd, const char *agent, const char *store,
                                 struct proc_key *ret_key, struct att_err *err)
{
    return proc_keyd_key_create_type(keyd, agent, store, "ec-p256", "", ret_key, err);
}

void proc_keys_free(struct proc_key *keys, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        proc_key_done(&keys[i]);
    }
    free(keys);
}

static enum att_rc append_page(const struct proc_value *page, struct proc_key **keys, size_t *count,
                               struct att_err *err)
{
    struct proc_key *more = realloc(*keys, (*count + page->item_count) * sizeof *more);
    if (!more) {
        return att_fail(err, ATT_E_NOMEM, "%zu keys", *count + page->item_count);
    }
    *keys = more;
    struct proc_msg *record = calloc(1, sizeof *record);
    enum att_rc rc = record ? ATT_OK : att_fail(err, ATT_E_NOMEM, "a key record");
    for (size_t i = 0; rc == ATT_OK && i < page->item_count; i++) {
        rc = proc_msg_parse(&proc_key_record_shape, page->items[i], record, err);
        if (rc != ATT_OK) {
            rc = ATT_E_PROTOCOL;
        } else {
            rc = take_key(record->v, &more[*count], err);
        }
        *count += rc == ATT_OK;
    }
    free(record);
    return rc;
}

enum att_rc proc_keyd_key_list(struct proc_keyd *keyd, struct proc_key **ret_keys,
                               size_t *ret_count, struct att_err *err)
{
    struct proc_key *keys = NULL;
    size_t count = 0;
    for (;;) {
        const struct proc_value values[] = {[PROC_KEY_LIST_REQ_AFTER] =
                                                proc_text(count ? keys[count - 1].key_id : "")};
        proc_autoanswer reply = {0};
        enum att_rc rc = call(keyd, PROC_KEYD_KEY_LIST, values, &reply, err);
        const struct proc_value *page = &reply.msg.v[PROC_KEY_LIST_REP_RECORDS];
        if (rc == ATT_OK && page->item_count == 0) {
            break;
        }
        size_t before = count;
        if (rc == ATT_OK) {
            rc = append_page(page, &keys, &count, err);
        }
        if (rc == ATT_OK && before && strcmp(keys[before - 1].key_id, keys[before].key_id) >= 0) {
            rc = att_fail(err, ATT_E_PROTOCOL, "keyd's key list does not go on in order");
        }
        if (rc != ATT_OK) {
            proc_keys_free(keys, count);
            return rc;
        }
    }
    *ret_keys = keys;
    *ret_count = count;
    return ATT_OK;
}

void proc_key_evidence_done(struct proc_key_evidence *evidence)
{
    if (evidence) {
        att_buf_done(&evidence->cert_info);
        att_buf_done(&evidence->cert_sig);
        proc_quote_done(&evidence->quote);
        att_buf_done(&evidence->pub_area);
        att_buf_done(&evidence->srk_pub);
        att_buf_done(&evidence->parent_pub);
        *evidence = (struct proc_key_evidence){0};
    }
}

static enum att_rc take_evidence(const struct proc_answer *reply, struct proc_key_evidence *ev,
                                 struct att_err *err)
{
    const struct {
        size_t field;
        struct att_buf *to;
    } copies[] = {
        {PROC_KEY_EVIDENCE_REP_CERT_INFO, &ev->cert_info},
        {PROC_KEY_EVIDENCE_REP_CERT_SIG, &ev->cert_sig},
        {PROC_KEY_EVIDENCE_REP_PUB_AREA, &ev->pub_area},
        {PROC_KEY_EVIDENCE_REP_SRK_PUB, &ev->srk_pub},
        {PROC_KEY_EVIDENCE_REP_PARENT_PUB, &ev->parent_pub},
    };
    for (size_t i = 0; i < sizeof copies / sizeof copies[0]; i++) {
        enum att_rc rc = take_copy(field(reply, copies[i].field), copies[i].to, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    return take_quote(field(reply, PROC_KEY_EVIDENCE_REP_ATTEST),
                      field(reply, PROC_KEY_EVIDENCE_REP_QUOTE_SIG),
                      field(reply, PROC_KEY_EVIDENCE_REP_PCRS), &ev->quote, err);
}

enum att_rc proc_keyd_key_evidence(struct proc_keyd *keyd, const char *key_id,
                                   const char *key_authorization, struct att_slice evidence_cbor,
                                   const char *pcr_selection,
                                   struct proc_key_evidence *ret_evidence, struct att_err *err)
{
    const struct proc_value values[] = {
        [PROC_KEY_EVIDENCE_REQ_KEY_ID] = proc_text(key_id),
        [PROC_KEY_EVIDENCE_REQ_KEY_AUTHORIZATION] = proc_text(key_authorization),
        [PROC_KEY_EVIDENCE_REQ_EVIDENCE] = proc_bytes(evidence_cbor),
        [PROC_KEY_EVIDENCE_REQ_PCR_SELECTION] = proc_text(pcr_selection),
    };
    proc_autoanswer reply = {0};
    struct proc_key_evidence evidence = {0};
    enum att_rc rc = call(keyd, PROC_KEYD_KEY_EVIDENCE, values, &reply, err);
    if (rc == ATT_OK) {
        rc = take_evidence(&reply, &evidence, err);
    }
    if (rc != ATT_OK) {
        proc_key_evidence_done(&evidence);
        return rc;
    }
    *ret_evidence = evidence;
    return ATT_OK;
}

enum att_rc proc_keyd_key_csr(struct proc_keyd *keyd, const char *key_id, const char *spiffe_id,
                              struct att_buf *ret_der, struct att_err *err)
{
    const struct proc_value values[] = {
        [PROC_KEY_CSR_REQ_KEY_ID] = proc_text(key_id),
        [PROC_KEY_CSR_REQ_SPIFFE_ID] = proc_text(spiffe_id),
    };
    proc_autoanswer reply = {0};
    enum att_rc rc = call(keyd, PROC_KEYD_KEY_CSR, values, &reply, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_buf_put_slice(ret_der, field(&reply, PROC_KEY_CSR_REP_CSR));
    return att_buf_ok(ret_der, err);
}

enum att_rc proc_keyd_key_certify(struct proc_keyd *keyd, const char *key_id,
                                  const char *key_authorization,
                                  struct proc_key_evidence *ret_evidence, struct att_err *err)
{
    const struct proc_value values[] = {
        [PROC_KEY_CERTIFY_REQ_KEY_ID] = proc_text(key_id),
        [PROC_KEY_CERTIFY_REQ_KEY_AUTHORIZATION] = proc_text(key_authorization),
    };
    proc_autoanswer reply = {0};
    struct proc_key_evidence ev = {0};
    enum att_rc rc = call(keyd, PROC_KEYD_KEY_CERTIFY, values, &reply, err);
    if (rc == ATT_OK) {
        rc = take_copy(field(&reply, PROC_KEY_CERTIFY_REP_CERT_INFO), &ev.cert_info, err);
    }
    if (rc == ATT_OK) {
        rc = take_copy(field(&reply, PROC_KEY_CERTIFY_REP_CERT_SIG), &ev.cert_sig, err);
    }
    if (rc == ATT_OK) {
        rc = take_copy(field(&reply, PROC_KEY_CERTIFY_REP_PUB_AREA), &ev.pub_area, err);
    }
    if (rc != ATT_OK) {
        proc_key_evidence_done(&ev);
        return rc;
    }
    *ret_evidence = ev;
    return ATT_OK;
}

enum att_rc proc_keyd_key_csr_device(struct proc_keyd *keyd, const char *key_id,
                                     const char *identifier, struct att_buf *ret_der,
                                     struct att_err *err)
{
    const struct proc_value values[] = {
        [PROC_KEY_CSR_DEVICE_REQ_KEY_ID] = proc_text(key_id),
        [PROC_KEY_CSR_DEVICE_REQ_IDENTIFIER] = proc_text(identifier),
    };
    proc_autoanswer reply = {0};
    enum att_rc rc = call(keyd, PROC_KEYD_KEY_CSR_DEVICE, values, &reply, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_buf_put_slice(ret_der, field(&reply, PROC_KEY_CSR_REP_CSR));
    return att_buf_ok(ret_der, err);
}

void proc_ak_creation_done(struct proc_ak_creation *creation)
{
    att_buf_done(&creation->data);
    att_buf_done(&creation->attestation);
    att_buf_done(&creation->signature);
    *creation = (struct proc_ak_creation){0};
}

enum att_rc proc_keyd_ak_creation(struct proc_keyd *keyd, struct proc_ak_creation *ret_creation,
                                  struct att_err *err)
{
    proc_autoanswer reply = {0};
    struct proc_ak_creation made = {0};
    enum att_rc rc = call(keyd, PROC_KEYD_AK_CREATION, NULL, &reply, err);
    if (rc == ATT_OK) {
        rc = take_copy(field(&reply, PROC_AK_CREATION_REP_DATA), &made.data, err);
    }
    if (rc == ATT_OK) {
        rc = take_copy(field(&reply, PROC_AK_CREATION_REP_ATTESTATION), &made.attestation, err);
    }
    if (rc == ATT_OK) {
        rc = take_copy(field(&reply, PROC_AK_CREATION_REP_SIGNATURE), &made.signature, err);
    }
    if (rc != ATT_OK) {
        proc_ak_creation_done(&made);
        return rc;
    }
    *ret_creation = made;
    return ATT_OK;
}

enum att_rc proc_keyd_ak_activate(struct proc_keyd *keyd, struct att_slice credential,
                                  struct att_slice encrypted_secret, struct att_buf *ret_secret,
                                  struct att_err *err)
{
    const struct proc_value values[] = {
        [PROC_AK_ACTIVATE_REQ_CREDENTIAL_BLOB] = proc_bytes(credential),
        [PROC_AK_ACTIVATE_REQ_ENCRYPTED_SECRET] = proc_bytes(encrypted_secret),
    };
    proc_autoanswer reply = {0};
    enum att_rc rc = call(keyd, PROC_KEYD_AK_ACTIVATE, values, &reply, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_buf_put_slice(ret_secret, field(&reply, PROC_AK_ACTIVATE_REP_SECRET));
    return att_buf_ok(ret_secret, err);
}

enum att_rc proc_keyd_key_token(struct proc_keyd *keyd, const char *key_id, const char *serial,
                                const char *nonce, const char *spiffe_id,
                                const struct att_slice *audience, size_t n_audience,
                                struct att_buf *ret_proof, struct att_err *err)
{
    const struct proc_value values[] = {
        [PROC_KEY_TOKEN_REQ_KEY_ID] = proc_text(key_id),
        [PROC_KEY_TOKEN_REQ_SERIAL] = proc_text(serial),
        [PROC_KEY_TOKEN_REQ_NONCE] = proc_text(nonce),
        [PROC_KEY_TOKEN_REQ_SPIFFE_ID] = proc_text(spiffe_id),
        [PROC_KEY_TOKEN_REQ_AUDIENCE] = {.items = audience, .item_count = n_audience},
    };
    proc_autoanswer reply = {0};
    enum att_rc rc = call(keyd, (enum proc_keyd_op)PROC_KEYD_KEY_TOKEN, values, &reply, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_buf_put_slice(ret_proof, field(&reply, PROC_KEY_TOKEN_REP_PROOF));
    return att_buf_ok(ret_proof, err);
}

/* The operations that take one text and answer nothing. */
static enum att_rc simple(struct proc_keyd *keyd, enum proc_keyd_op op, const char *arg,
                          struct att_err *err)
{
    const struct proc_value values[] = {proc_text(arg)};
    proc_autoanswer reply = {0};
    return call(keyd, op, values, &reply, err);
}

enum att_rc proc_keyd_key_activate(struct proc_keyd *keyd, const char *key_id, struct att_err *err)
{
    return simple(keyd, PROC_KEYD_KEY_ACTIVATE, key_id, err);
}

enum att_rc proc_keyd_key_retire(struct proc_keyd *keyd, const char *key_id, struct att_err *err)
{
    return simple(keyd, PROC_KEYD_KEY_RETIRE, key_id, err);
}

enum att_rc proc_keyd_key_destroy(struct proc_keyd *keyd, const char *key_id, struct att_err *err)
{
    return simple(keyd, PROC_KEYD_KEY_DESTROY, key_id, err);
}

enum att_rc proc_keyd_issuer(struct proc_keyd *keyd, const char *url, struct att_err *err)
{
    return simple(keyd, PROC_KEYD_ISSUER, url, err);
}

enum att_rc proc_keyd_freeze(struct proc_keyd *keyd, const char *agent, struct att_err *err)
{
    return simple(keyd, PROC_KEYD_FREEZE, agent, err);
}

enum att_rc proc_keyd_thaw(struct proc_keyd *keyd, const char *agent, struct att_err *err)
{
    return simple(keyd, PROC_KEYD_THAW, agent, err);
}
