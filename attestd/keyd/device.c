/* What another server than an attest-issuerd is told: KEY_CERTIFY, KEY_CSR_DEVICE; and what an
 * attestation CA in Smallstep's dialect is: AK_CREATION, AK_ACTIVATE. Each is refused unless keyd's
 * own configuration says that such a server is used: attestd alone cannot switch it on. */
#include "attestd/keyd/internal.h"

#include "certs/csr.h"
#include "certs/key.h"

#include <string.h>

static enum att_rc allowed(const struct keyd *keyd, enum keyd_acme least, struct att_err *err)
{
    if (atomic_load(&keyd->acme) >= (int)least) {
        return ATT_OK;
    }
    return keyd_deny(err, "notAcme", "keyd's configuration has no section acme%s",
                     least == KEYD_ACME_CA ? " with attestation_ca" : "");
}

/* ---- KEY_CERTIFY --------------------------------------------------------------------------- */

static enum att_rc get_key(struct keyd *keyd, struct att_slice id, struct keyd_key *ret_key,
                           struct att_err *err)
{
    enum att_rc rc = allowed(keyd, KEYD_ACME, err);
    if (rc == ATT_OK) {
        rc = keyd_ready(keyd, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_keys_get(keyd, id, ret_key, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_store_ready(keyd, ret_key, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_frozen_check(keyd, ret_key->agent, err);
    }
    if (rc == ATT_OK && ret_key->name.len == 0) {
        rc = att_fail(err, ATT_E_UNSUPPORTED, "key %s is of kind %s: no TPM speaks for it",
                      ret_key->id, ret_key->store->name);
        att_err_reason(err, "keyStore");
    }
    return rc;
}

KEYD_OPERATION(key_certify)
{
    struct att_slice authz = request->v[PROC_KEY_CERTIFY_REQ_KEY_AUTHORIZATION].bytes;
    keyd_autokey key = {0};
    keyd_autoproof proof = {0};
    enum att_rc rc = get_key(keyd, request->v[PROC_KEY_CERTIFY_REQ_KEY_ID].bytes, &key, err);
    if (rc == ATT_OK) {
        rc = keyd_check_key_authorization(keyd, authz, err);
    }
    if (rc == ATT_OK) {
        rc = key.store->prove(keyd, &key, authz, &proof, err);
    }
    const struct proc_value values[] = {
        [PROC_KEY_CERTIFY_REP_CERT_INFO] = {.bytes = att_buf_slice(&proof.statement)},
        [PROC_KEY_CERTIFY_REP_CERT_SIG] = {.bytes = att_buf_slice(&proof.sig)},
        [PROC_KEY_CERTIFY_REP_PUB_AREA] = {.bytes = att_buf_slice(&proof.pub_area)},
    };
    return rc == ATT_OK ? proc_reply_encode(op, values, ret_payload, err) : rc;
}

/* ---- KEY_CSR_DEVICE ------------------------------------------------------------------------ */

KEYD_OPERATION(key_csr_device)
{
    char identifier[PROC_IDENTIFIER_MAX + 1];
    keyd_autokey key = {0};
    att_autobuf der = ATT_BUF_INIT(PROC_CERT_MAX);
    KEYD_TEXT(request->v[PROC_KEY_CSR_DEVICE_REQ_IDENTIFIER].bytes, identifier);
    enum att_rc rc = get_key(keyd, request->v[PROC_KEY_CSR_DEVICE_REQ_KEY_ID].bytes, &key, err);
    if (rc == ATT_OK) {
        rc = keyd_csr_create(keyd, &key, certs_csr_create_device, identifier, &der, err);
    }
    const struct proc_value values[] = {[PROC_KEY_CSR_REP_CSR] = {.bytes = att_buf_slice(&der)}};
    return rc == ATT_OK ? proc_reply_encode(op, values, ret_payload, err) : rc;
}

/* ---- AK_CREATION --------------------------------------------------------------------------- */

static enum att_rc run_creation(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    return tpm_ak_creation(ctx, arg, err);
}

KEYD_OPERATION(ak_creation)
{
    (void)request;
    tpm_autocreation made = {0};
    enum att_rc rc = allowed(keyd, KEYD_ACME_CA, err);
    if (rc == ATT_OK) {
        rc = keyd_ready(keyd, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_run(keyd, TPM_OP_OTHER, TPM_PRIO_RENEWAL, "", run_creation, &made, err);
    }
    const struct proc_value values[] = {
        [PROC_AK_CREATION_REP_DATA] = {.bytes = att_buf_slice(&made.data)},
        [PROC_AK_CREATION_REP_ATTESTATION] = {.bytes = att_buf_slice(&made.attest)},
        [PROC_AK_CREATION_REP_SIGNATURE] = {.bytes = att_buf_slice(&made.sig)},
    };
    return rc == ATT_OK ? proc_reply_encode(op, values, ret_payload, err) : rc;
}

/* ---- AK_ACTIVATE --------------------------------------------------------------------------- */

KEYD_OPERATION(ak_activate)
{
    const struct proc_value *v = request->v;
    att_autobuf secret = ATT_BUF_INIT(PROC_AK_SECRET_MAX);
    enum att_rc rc = allowed(keyd, KEYD_ACME_CA, err);
    if (rc == ATT_OK) {
        rc = keyd_ready(keyd, err);
    }
    if (rc == ATT_OK) {
        rc = keyd_activate(keyd, v[PROC_AK_ACTIVATE_REQ_CREDENTIAL_BLOB].bytes,
                           v[PROC_AK_ACTIVATE_REQ_ENCRYPTED_SECRET].bytes, &secret, err);
    }
    if (rc == ATT_OK) {
        const struct proc_value values[] = {
            [PROC_AK_ACTIVATE_REP_SECRET] = {.bytes = att_buf_slice(&secret)}};
        rc = proc_reply_encode(op, values, ret_payload, err);
    }
    if (secret.ptr) {
        att_wipe(secret.ptr, secret.cap);
    }
    return rc;
}
