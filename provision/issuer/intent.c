/* Signing with a record before and a record after. */
#include "provision/issuer/ca.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool fill_cert(struct store_cert *cert, const struct issuer_intent *intent,
                      const char *serial, const char *id)
{
    return issuer_set(&cert->serial, serial) && issuer_set(&cert->id, id) &&
           issuer_set(&cert->kind, intent->kind == ISSUER_CA_AGENT ? "agent" : "ak") &&
           issuer_set(&cert->status, STORE_CERT_INTENT) &&
           issuer_set(&cert->subject, intent->subject) &&
           issuer_set(&cert->account, intent->account) && issuer_set(&cert->host, intent->host) &&
           issuer_set(&cert->ord, intent->ord) && issuer_set(&cert->profile, intent->profile) &&
           issuer_set(&cert->pem, "") && issuer_set(&cert->decision, intent->decision) &&
           issuer_set(&cert->reason, "");
}

static json_t *cert_record(const struct store_cert *cert, const char *kind, const char *outcome)
{
    uint8_t digest[ATT_SHA256_LEN];
    char hex[65];
    att_sha256(digest, att_buf_slice(&cert->tbs));
    att_hex(hex, ATT_SLICE_ARRAY(digest));
    json_t *record = issuer_record(kind, outcome, NULL, NULL, cert->subject);
    json_object_set_new(record, "serial", json_string(cert->serial));
    json_object_set_new(record, "certificateKind", json_string(cert->kind));
    json_object_set_new(record, "tbsSha256", json_string(hex));
    json_object_set_new(record, "host", json_string(cert->host));
    json_object_set_new(record, "decision", json_string(cert->decision));
    json_object_set_new(record, "notAfter", issuer_time_json(cert->not_after));
    return record;
}

enum att_rc issuer_intent_make(struct issuer *issuer, struct store_tx *tx,
                               struct issuer_intent *intent, int64_t now,
                               struct store_cert *ret_cert, struct att_err *err)
{
    bool agent = intent->kind == ISSUER_CA_AGENT;
    uint8_t *serial = agent ? intent->leaf.serial : intent->ak.serial;
    uint8_t digest[ATT_SHA256_LEN];
    char hex[2 * CERTS_SERIAL_LEN + 1], id[ISSUER_ID_LEN];
    struct store_cert cert = {.created_at = now};
    enum att_rc rc = certs_serial_new(serial, err);
    if (!rc) {
        rc = issuer_new_id(id, err);
    }
    if (!rc) {
        att_hex(hex, ATT_SLICE(serial, CERTS_SERIAL_LEN));
        rc = fill_cert(&cert, intent, hex, id) ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        const struct certs_validity *v = agent ? &intent->leaf.validity : &intent->ak.validity;
        cert.not_before = v->not_before;
        cert.not_after = v->not_after;
        rc = agent ? certs_leaf_tbs(&intent->leaf, issuer->ca->workload_ca, &cert.tbs, digest, err)
                   : certs_ak_tbs(&intent->ak, issuer->ca->attest_ca, &cert.tbs, digest, err);
    }
    /* A serial number that was ever used is refused by the table's key. */
    if (!rc) {
        rc = store_insert(tx, &store_certs, &cert, err);
    }
    if (!rc) {
        rc = issuer_audit(tx, now, cert_record(&cert, "intent", "done"), NULL, err);
    }
    if (rc) {
        store_record_done(&store_certs, &cert);
        return rc;
    }
    *ret_cert = cert;
    return ATT_OK;
}

struct outcome {
    struct issuer *issuer;
    struct store_cert *cert;
    const char *pem;
    const char *reason; /* abandoned, when not NULL */
};

static enum att_rc complete(struct outcome *o, struct store_tx *tx, struct att_err *err)
{
    bool issued = o->reason == NULL;
    if (strcmp(o->cert->kind, "ak") == 0) {
        struct store_ak ak = {0};
        enum att_rc rc = store_get(tx, &store_aks, o->cert->ord, &ak, err);
        if (!rc && issued) {
            rc = issuer_set(&ak.cert, o->pem) ? store_put(tx, &store_aks, &ak, err)
                                              : att_fail(err, ATT_E_NOMEM, "no memory");
        }
        store_record_done(&store_aks, &ak);
        return rc;
    }
    struct store_order order = {0};
    enum att_rc rc = store_get(tx, &store_orders, o->cert->ord, &order, err);
    if (!rc) {
        rc = issuer_set(&order.status, issued ? "valid" : "invalid") &&
                     issuer_set(&order.cert, issued ? o->cert->id : "")
                 ? store_put(tx, &store_orders, &order, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    store_record_done(&store_orders, &order);
    return rc;
}

static enum att_rc write_outcome(void *user, struct store_tx *tx, struct att_err *err)
{
    struct outcome *o = user;
    int64_t now = o->issuer->clock();
    struct store_cert row = {0};
    enum att_rc rc = store_get(tx, &store_certs, o->cert->serial, &row, err);
    if (rc) {
        return rc;
    }
    if (strcmp(row.status, STORE_CERT_INTENT) != 0) {
        /* Revoked (a ban) between intent and signature: the signature is thrown away. */
        rc = issuer_refuse(err, ATT_E_DENIED, "hostBanned",
                           "certificate %s: is %s before it was issued", row.serial, row.status);
        store_record_done(&store_certs, &row);
        return rc;
    }
    bool ok = issuer_set(&row.status, o->reason ? STORE_CERT_ABANDONED : STORE_CERT_ISSUED) &&
              issuer_set(&row.pem, o->pem) && issuer_set(&row.reason, o->reason);
    row.ended_at = o->reason ? now : 0;
    rc = ok ? store_put(tx, &store_certs, &row, err) : att_fail(err, ATT_E_NOMEM, "no memory");
    if (!rc) {
        rc = complete(o, tx, err);
        /* What it was for may have been swept away since; then nobody waits for it. */
        if (rc == ATT_E_NOTFOUND) {
            att_err_clear(err);
            rc = ATT_OK;
        }
    }
    if (!rc) {
        json_t *record = cert_record(&row, o->reason ? "abandoned" : "issued", "done");
        if (o->reason) {
            json_object_set_new(record, "reason", json_string(o->reason));
        }
        rc = issuer_audit(tx, now, record, NULL, err);
    }
    store_record_done(&store_certs, &row);
    return rc;
}

static enum att_rc sign_pem(struct issuer *issuer, const struct store_cert *cert, char **ret_pem,
                            struct att_err *err)
{
    bool agent = strcmp(cert->kind, "ak") != 0;
    const struct issuer_ca *ca = issuer->ca;
    att_autobuf der = {0}, pem = {0};
    enum att_rc rc =
        certs_tbs_sign_for(att_buf_slice(&cert->tbs), agent ? ca->workload_ca : ca->attest_ca,
                           agent ? ca->workload_key : ca->attest_key, &der, err);
    if (!rc) {
        rc = certs_pem_put(att_buf_slice(&der), &pem, err);
    }
    if (!rc) {
        att_buf_put_str(&pem, agent ? ca->workload_pem : ca->attest_pem);
    }
    char *text = rc ? NULL : issuer_steal_text(&pem);
    if (!rc && !text) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        *ret_pem = text;
    }
    return rc;
}

enum att_rc issuer_intent_sign(struct issuer *issuer, struct store_cert *cert, struct att_err *err)
{
    issuer_autofree *pem = NULL;
    enum att_rc rc = sign_pem(issuer, cert, &pem, err);
    struct outcome o = {.issuer = issuer, .cert = cert, .pem = pem};
    if (!rc) {
        rc = store_run(issuer->store, true, write_outcome, &o, err);
    }
    if (!rc && !issuer_set(&cert->pem, pem)) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        atomic_fetch_add(&issuer->counters.issued, 1);
    }
    return rc;
}

/* ---- recovery
 * -------------------------------------------------------------------------------------------- */

struct pending {
    char serial[64][2 * CERTS_SERIAL_LEN + 1];
    size_t n;
    struct store_cert *one;
    const char *want;
};

static enum att_rc collect(void *user, const void *record, struct att_err *err)
{
    (void)err;
    struct pending *p = user;
    const struct store_cert *cert = record;
    if (p->n < 64) {
        snprintf(p->serial[p->n++], sizeof p->serial[0], "%s", cert->serial);
    }
    return ATT_OK;
}

static enum att_rc list_intents(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_each(tx, &store_certs, "status", STORE_CERT_INTENT, collect, user, err);
}

static enum att_rc load_intent(void *user, struct store_tx *tx, struct att_err *err)
{
    struct pending *p = user;
    return store_get(tx, &store_certs, p->want, p->one, err);
}

static enum att_rc finish_one(struct issuer *issuer, struct store_cert *cert, struct att_err *err)
{
    /* Its order has died long since, or the certificate would be of no use. */
    if (cert->created_at + ISSUER_ORDER_S > issuer->clock()) {
        enum att_rc rc = issuer_intent_sign(issuer, cert, err);
        if (!rc) {
            att_log(ATT_INFO, "intent.completed", ATT_S("serial", cert->serial),
                    ATT_S("subject", cert->subject));
        }
        return rc;
    }
    struct outcome o = {.issuer = issuer, .cert = cert, .pem = "", .reason = "expired"};
    enum att_rc rc = store_run(issuer->store, true, write_outcome, &o, err);
    if (!rc) {
        att_log(ATT_WARN, "intent.abandoned", ATT_S("serial", cert->serial),
                ATT_S("subject", cert->subject));
    }
    return rc;
}

enum att_rc issuer_intent_recover(struct issuer *issuer, struct att_err *err)
{
    struct pending p = {0};
    do {
        p.n = 0;
        enum att_rc rc = store_run(issuer->store, false, list_intents, &p, err);
        for (size_t i = 0; i < p.n && !rc; i++) {
            struct store_cert cert = {0};
            p.one = &cert;
            p.want = p.serial[i];
            rc = store_run(issuer->store, false, load_intent, &p, err);
            if (!rc) {
                rc = finish_one(issuer, &cert, err);
            }
            store_record_done(&store_certs, &cert);
        }
        if (rc) {
            att_err_prefix(err, "completing interrupted signatures");
            return rc;
        }
    } while (p.n == 64);
    return ATT_OK;
}
