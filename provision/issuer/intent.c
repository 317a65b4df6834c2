/* Signing with a record before and a record after. */
#include "certs/dns.h"
#include "provision/issuer/generations.h"
#include "provision/issuer/renewal.h"

#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FOREIGN        "foreignIntent"
#define PAUSE_LEAST_MS 1000
#define PAUSE_MOST_MS  60000
#define BATCH          64
/* In a store that others use, too, an intent may be another issuer's that is about to sign; after
 * this time it has died. Should it live, the first outcome stands, and it takes that. */
#define GRACE_S 10
#define LOOK_MS 5000

static bool fill_cert(struct store_cert *cert, const struct issuer_intent *intent,
                      const char *serial, const char *id)
{
    return issuer_set(&cert->serial, serial) && issuer_set(&cert->id, id) &&
           issuer_set(&cert->kind, issuer_ca_kind_name(intent->kind)) &&
           issuer_set(&cert->status, STORE_CERT_INTENT) &&
           issuer_set(&cert->subject, intent->subject) &&
           issuer_set(&cert->account, intent->account) && issuer_set(&cert->host, intent->host) &&
           issuer_set(&cert->ord, intent->ord) && issuer_set(&cert->profile, intent->profile) &&
           issuer_set(&cert->pem, "") && issuer_set(&cert->decision, intent->decision) &&
           issuer_set(&cert->reason, "") && issuer_set(&cert->replaced, "") &&
           issuer_set(&cert->firmware, intent->firmware ? intent->firmware : "");
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
    if (cert->profile && cert->profile[0]) {
        json_object_set_new(record, "profile", json_string(cert->profile));
    }
    json_object_set_new(record, "notAfter", issuer_time_json(cert->not_after));
    return record;
}

static uint8_t *serial_of(struct issuer_intent *intent)
{
    return intent->kind == ISSUER_CA_AGENT ? intent->leaf.serial
           : intent->kind == ISSUER_CA_AK  ? intent->ak.serial
                                           : intent->dns.serial;
}

static struct certs_validity *validity_of(struct issuer_intent *intent)
{
    return intent->kind == ISSUER_CA_AGENT ? &intent->leaf.validity
           : intent->kind == ISSUER_CA_AK  ? &intent->ak.validity
                                           : &intent->dns.validity;
}

static enum att_rc make_tbs(const struct issuer_intent *intent, const X509 *ca, struct att_buf *tbs,
                            struct att_err *err)
{
    uint8_t digest[ATT_SHA256_LEN];
    return intent->kind == ISSUER_CA_AGENT ? certs_leaf_tbs(&intent->leaf, ca, tbs, digest, err)
           : intent->kind == ISSUER_CA_AK  ? certs_ak_tbs(&intent->ak, ca, tbs, digest, err)
           : intent->dns.device_id         ? certs_device_tbs(&intent->dns, ca, tbs, digest, err)
                                           : certs_dns_tbs(&intent->dns, ca, tbs, digest, err);
}

enum att_rc issuer_intent_authority(struct issuer *issuer, struct store_tx *tx,
                                    struct issuer_intent *intent, struct att_err *err)
{
    const char *kind = issuer_ca_kind_name(intent->kind);
    enum att_rc rc = issuer_generations_check(issuer, tx, err);
    if (rc) {
        return rc;
    }
    struct issuer_authority by = issuer_authority_of(issuer, kind);
    if (!by.ca) {
        return att_fail(err, ATT_E_INTERNAL, "no authority for this certificate");
    }
    if (!by.key || by.lacks[0]) {
        rc = att_fail(err, ATT_E_RETRY, "the authority for %s cannot sign now: %s", kind,
                      by.lacks[0] ? by.lacks : "its key is not here");
        att_err_reason(err, "caKeyMissing");
        return rc;
    }
    intent->by = by;
    return ATT_OK;
}

enum att_rc issuer_intent_make(struct issuer *issuer, struct store_tx *tx,
                               struct issuer_intent *intent, int64_t now,
                               struct store_cert *ret_cert, struct att_err *err)
{
    char hex[2 * CERTS_SERIAL_LEN + 1], id[ISSUER_ID_LEN];
    struct store_cert cert = {.created_at = now};
    enum att_rc rc = intent->by.ca ? ATT_OK : issuer_intent_authority(issuer, tx, intent, err);
    const struct issuer_authority *by = &intent->by;
    if (!rc) {
        rc = certs_serial_new(serial_of(intent), err);
    }
    if (!rc) {
        rc = issuer_new_id(id, err);
    }
    if (!rc) {
        att_hex(hex, ATT_SLICE(serial_of(intent), CERTS_SERIAL_LEN));
        rc = fill_cert(&cert, intent, hex, id) ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        struct certs_validity *v = validity_of(intent);
        /* Towards the end of a CA's life a shorter certificate is better than none; below the
         * least lifetime there is none. */
        v->not_after = v->not_after < by->end ? v->not_after : by->end;
        cert.not_before = v->not_before;
        cert.not_after = v->not_after;
        rc = make_tbs(intent, by->ca, &cert.tbs, err);
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

/* ---- one thread an intent
 * ------------------------------------------------------------------------------------ */

/* On the stack of the thread that works on it. */
struct issuer_claim {
    const char *serial;
    struct issuer_claim *next;
};

static bool claimed(const struct issuer *issuer, const char *serial)
{
    for (const struct issuer_claim *c = issuer->claims; c; c = c->next) {
        if (strcmp(c->serial, serial) == 0) {
            return true;
        }
    }
    return false;
}

/* wait: until nobody else has it. False: somebody has. ret_waited: somebody had. */
static bool claim(struct issuer *issuer, struct issuer_claim *mine, bool wait, bool *ret_waited)
{
    pthread_mutex_lock(&issuer->claim_lock);
    bool taken = claimed(issuer, mine->serial);
    *ret_waited = taken;
    while (taken && wait) {
        pthread_cond_wait(&issuer->claim_gone, &issuer->claim_lock);
        taken = claimed(issuer, mine->serial);
    }
    if (!taken) {
        mine->next = issuer->claims;
        issuer->claims = mine;
    }
    pthread_mutex_unlock(&issuer->claim_lock);
    return !taken;
}

static void unclaim(struct issuer *issuer, struct issuer_claim *mine)
{
    pthread_mutex_lock(&issuer->claim_lock);
    struct issuer_claim **at = &issuer->claims;
    while (*at != mine) {
        at = &(*at)->next;
    }
    *at = mine->next;
    pthread_cond_broadcast(&issuer->claim_gone);
    pthread_mutex_unlock(&issuer->claim_lock);
}

/* ---- outcomes
 * ------------------------------------------------------------------------------------------------
 */

struct outcome {
    struct issuer *issuer;
    struct store_cert *cert;
    const char *pem;
    const char *reason, *detail; /* abandoned, when reason is not NULL */
    bool ended;                  /* it was not an intent any more: nothing was written */
    bool taken;                  /* another issuer was quicker: cert->pem is what it issued */
};

static bool set_problem(char **error, const char *reason, const char *detail)
{
    struct acme_problem problem = {0};
    json_t *json = NULL;
    acme_problem_set(&problem, ACME_P_SERVER_INTERNAL, "the certificate was not issued: %s",
                     detail);
    acme_problem_add(&problem, reason, detail);
    if (acme_problem_encode(&problem, &json, NULL)) {
        return false;
    }
    issuer_autofree *text = issuer_json_text(json);
    json_decref(json);
    return text && issuer_set(error, text);
}

static enum att_rc void_order(struct store_tx *tx, const struct store_cert *cert,
                              const char *reason, const char *detail, struct att_err *err)
{
    struct store_order order = {0};
    enum att_rc rc = store_get(tx, &store_orders, cert->ord, &order, err);
    if (!rc && strcmp(order.status, "processing") == 0) {
        rc = issuer_set(&order.status, "invalid") && set_problem(&order.error, reason, detail)
                 ? store_put(tx, &store_orders, &order, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    store_record_done(&store_orders, &order);
    return rc;
}

static enum att_rc void_dns_order(struct store_tx *tx, const struct store_cert *cert,
                                  const char *reason, const char *detail, struct att_err *err)
{
    struct store_dns_order order = {0};
    enum att_rc rc = store_get(tx, &store_dns_orders, cert->ord, &order, err);
    if (!rc && strcmp(order.status, "processing") == 0) {
        rc = issuer_set(&order.status, "invalid") && set_problem(&order.error, reason, detail)
                 ? store_put(tx, &store_dns_orders, &order, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    store_record_done(&store_dns_orders, &order);
    return rc;
}

enum att_rc issuer_intent_void(struct store_tx *tx, const struct store_cert *cert,
                               const char *reason, const char *detail, struct att_err *err)
{
    enum att_rc rc = ATT_E_NOTFOUND;
    if (strcmp(cert->kind, "dns") == 0) {
        rc = void_dns_order(tx, cert, reason, detail, err);
    } else if (strcmp(cert->kind, "ak") != 0) {
        rc = void_order(tx, cert, reason, detail, err);
    }
    if (rc == ATT_E_NOTFOUND) {
        att_err_clear(err); /* an AK's, or swept away since: nobody waits */
        rc = ATT_OK;
    }
    return rc;
}

static enum att_rc complete_ak(const struct outcome *o, struct store_tx *tx, struct att_err *err)
{
    struct store_ak ak = {0};
    enum att_rc rc = store_get(tx, &store_aks, o->cert->ord, &ak, err);
    if (!rc) {
        rc = issuer_set(&ak.cert, o->pem) ? store_put(tx, &store_aks, &ak, err)
                                          : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    store_record_done(&store_aks, &ak);
    return rc;
}

static enum att_rc complete_order(const struct outcome *o, struct store_tx *tx, struct att_err *err)
{
    struct store_order order = {0};
    enum att_rc rc = store_get(tx, &store_orders, o->cert->ord, &order, err);
    if (!rc) {
        /* Tokens rest on its verdict for as long (issuer_order_basis): it is not swept before. */
        bool longer = o->issuer->jwt && order.expires_at < o->cert->not_after;
        order.expires_at = longer ? o->cert->not_after : order.expires_at;
        rc = issuer_set(&order.status, "valid") && issuer_set(&order.cert, o->cert->id)
                 ? store_put(tx, &store_orders, &order, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        rc = issuer_replaces_done(tx, order.replaces, order.id, err);
    }
    store_record_done(&store_orders, &order);
    return rc;
}

static enum att_rc complete_dns_order(const struct outcome *o, struct store_tx *tx,
                                      struct att_err *err)
{
    struct store_dns_order order = {0};
    enum att_rc rc = store_get(tx, &store_dns_orders, o->cert->ord, &order, err);
    if (!rc) {
        rc = issuer_set(&order.status, "valid") && issuer_set(&order.cert, o->cert->id)
                 ? store_put(tx, &store_dns_orders, &order, err)
                 : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        rc = issuer_replaces_done(tx, order.replaces, order.id, err);
    }
    store_record_done(&store_dns_orders, &order);
    return rc;
}

static enum att_rc complete(const struct outcome *o, struct store_tx *tx, struct att_err *err)
{
    if (o->reason) {
        return issuer_intent_void(tx, o->cert, o->reason, o->detail, err);
    }
    enum att_rc rc = strcmp(o->cert->kind, "ak") == 0    ? complete_ak(o, tx, err)
                     : strcmp(o->cert->kind, "dns") == 0 ? complete_dns_order(o, tx, err)
                                                         : complete_order(o, tx, err);
    /* What it was for may have been swept away since; then nobody waits for it. */
    if (rc == ATT_E_NOTFOUND) {
        att_err_clear(err);
        rc = ATT_OK;
    }
    return rc;
}

static json_t *outcome_record(const struct outcome *o, const struct store_cert *row)
{
    json_t *record = cert_record(row, o->reason ? "abandoned" : "issued", "done");
    if (o->reason) {
        json_object_set_new(record, "reason", json_string(o->reason));
        json_object_set_new(record, "detail", json_string(o->detail));
    }
    return record;
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
    if (strcmp(row.status, STORE_CERT_ISSUED) == 0) {
        o->taken = true; /* two signatures of the same bytes; the other one is in use */
        rc = issuer_set(&o->cert->pem, row.pem) ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
        store_record_done(&store_certs, &row);
        return rc;
    }
    if (strcmp(row.status, STORE_CERT_INTENT) != 0) {
        /* Revoked (a ban) between intent and signature: the signature is thrown away. */
        o->ended = true;
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
    }
    if (!rc) {
        rc = issuer_audit(tx, now, outcome_record(o, &row), NULL, err);
    }
    store_record_done(&store_certs, &row);
    return rc;
}

/* A TBS of our own names the authority that it was made for by subject and key id: not looked for
 * by reading it (0.2 ms of libcrypto's for each certificate), as nothing else has these bytes. */
static bool made_for(struct att_slice tbs, X509 *ca)
{
    const uint8_t *name = NULL;
    size_t name_len = 0;
    const ASN1_OCTET_STRING *key_id = X509_get0_subject_key_id(ca);
    return key_id && X509_NAME_get0_der(X509_get_subject_name(ca), &name, &name_len) == 1 &&
           memmem(tbs.ptr, tbs.len, name, name_len) &&
           memmem(tbs.ptr, tbs.len, ASN1_STRING_get0_data(key_id),
                  (size_t)ASN1_STRING_length(key_id));
}

/* The one that it was made for, which may be on its way out; ca NULL: none of ours. */
static struct issuer_authority made_by(const struct issuer *issuer, const struct store_cert *cert)
{
    struct issuer_authority all[ISSUER_GENERATIONS_MAX + 1];
    size_t n = issuer_authorities_all(issuer, cert->kind, all);
    for (size_t i = 0; i < n; i++) {
        if (all[i].ca && made_for(att_buf_slice(&cert->tbs), all[i].ca)) {
            return all[i];
        }
    }
    return (struct issuer_authority){0};
}

static enum att_rc sign_pem(struct issuer *issuer, const struct store_cert *cert, char **ret_pem,
                            struct att_err *err)
{
    struct issuer_authority by = made_by(issuer, cert);
    att_autobuf der = {0}, pem = {0};
    /* Made before the CA was replaced: nobody could verify it. */
    if (!by.ca || !by.key) {
        enum att_rc rc = att_fail(err, ATT_E_INVAL,
                                  "certificate %s: was to be issued by another CA", cert->serial);
        att_err_reason(err, FOREIGN);
        return rc;
    }
    enum att_rc rc = certs_tbs_sign_for(att_buf_slice(&cert->tbs), by.ca, by.key, &der, err);
    if (!rc) {
        rc = certs_pem_encode("CERTIFICATE", att_buf_slice(&der), &pem, err);
    }
    if (!rc) {
        att_buf_put_str(&pem, by.pem);
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

/* The intent is the calling thread's. */
static enum att_rc sign_claimed(struct issuer *issuer, struct store_cert *cert, bool *ret_ended,
                                struct att_err *err)
{
    issuer_autofree *pem = NULL;
    enum att_rc rc = sign_pem(issuer, cert, &pem, err);
    struct outcome o = {.issuer = issuer, .cert = cert, .pem = pem};
    if (!rc) {
        rc = store_run(issuer->store, true, write_outcome, &o, err);
    }
    if (!rc && !o.taken && !issuer_set(&cert->pem, pem)) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc && !o.taken) {
        atomic_fetch_add(&issuer->counters.issued, 1);
    }
    *ret_ended = o.ended;
    return rc;
}

struct look {
    const char *serial;
    struct store_cert *cert;
    bool useless; /* what it is for is over */
};

static enum att_rc load_intent(void *user, struct store_tx *tx, struct att_err *err)
{
    struct look *l = user;
    struct store_ak ak = {0};
    struct store_host host = {0};
    struct store_order order = {0};
    struct store_dns_order dns = {0};
    enum att_rc rc = store_get(tx, &store_certs, l->serial, l->cert, err);
    if (rc || strcmp(l->cert->status, STORE_CERT_INTENT) != 0) {
        return rc;
    }
    if (strcmp(l->cert->kind, "ak") == 0 && !l->cert->account[0]) { /* no record beside it */
        rc = store_get(tx, &store_hosts, l->cert->host, &host, err);
        l->useless = rc || strcmp(host.state, STORE_HOST_APPROVED) != 0;
    } else if (strcmp(l->cert->kind, "ak") == 0) {
        rc = store_get(tx, &store_aks, l->cert->ord, &ak, err);
        l->useless = rc || strcmp(ak.state, STORE_AK_VALID) != 0;
    } else if (strcmp(l->cert->kind, "dns") == 0) {
        rc = store_get(tx, &store_dns_orders, l->cert->ord, &dns, err);
        l->useless = rc || strcmp(dns.status, "processing") != 0;
    } else {
        rc = store_get(tx, &store_orders, l->cert->ord, &order, err);
        l->useless = rc || strcmp(order.status, "processing") != 0;
    }
    store_record_done(&store_aks, &ak);
    store_record_done(&store_hosts, &host);
    store_record_done(&store_orders, &order);
    store_record_done(&store_dns_orders, &dns);
    if (rc == ATT_E_NOTFOUND) {
        att_err_clear(err);
        rc = ATT_OK;
    }
    return rc;
}

/* A recovery was quicker than the request: its outcome is ours. */
static enum att_rc take_outcome(struct issuer *issuer, struct store_cert *cert, bool *ret_open,
                                struct att_err *err)
{
    struct store_cert now = {0};
    struct look look = {.serial = cert->serial, .cert = &now};
    enum att_rc rc = store_run(issuer->store, false, load_intent, &look, err);
    if (!rc) {
        *ret_open = strcmp(now.status, STORE_CERT_INTENT) == 0;
        if (strcmp(now.status, STORE_CERT_ISSUED) == 0) {
            rc = issuer_set(&cert->pem, now.pem) ? ATT_OK : att_fail(err, ATT_E_NOMEM, "no memory");
        } else if (!*ret_open) {
            rc =
                issuer_refuse(err, ATT_E_DENIED, "hostBanned",
                              "certificate %s: is %s before it was issued", now.serial, now.status);
        }
    }
    store_record_done(&store_certs, &now);
    return rc;
}

enum att_rc issuer_intent_sign(struct issuer *issuer, struct store_cert *cert, struct att_err *err)
{
    struct issuer_claim mine = {.serial = cert->serial};
    bool waited = false, open = true, ended = false;
    (void)claim(issuer, &mine, true, &waited);
    enum att_rc rc = waited ? take_outcome(issuer, cert, &open, err) : ATT_OK;
    if (!rc && open) {
        rc = sign_claimed(issuer, cert, &ended, err);
    }
    unclaim(issuer, &mine);
    if (rc && !ended) {
        atomic_store(&issuer->intents_left, 1);
        issuer_poke(issuer);
    }
    return rc;
}

void issuer_intent_unsure(struct issuer *issuer, enum att_rc rc)
{
    if (rc == ATT_E_UNREACHABLE || rc == ATT_E_IO) {
        atomic_store(&issuer->intents_left, 1);
        issuer_poke(issuer);
    }
}

/* ---- recovery
 * -------------------------------------------------------------------------------------------- */

struct pending {
    char serial[BATCH][2 * CERTS_SERIAL_LEN + 1];
    char after[2 * CERTS_SERIAL_LEN + 1]; /* those up to here were looked at */
    size_t n;
};

/* In the order of serial numbers. */
static enum att_rc collect(void *user, const void *record, struct att_err *err)
{
    (void)err;
    struct pending *p = user;
    const struct store_cert *cert = record;
    if (p->n < BATCH && strcmp(cert->serial, p->after) > 0) {
        snprintf(p->serial[p->n++], sizeof p->serial[0], "%s", cert->serial);
    }
    return ATT_OK;
}

static enum att_rc list_intents(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_each(tx, &store_certs, "status", STORE_CERT_INTENT, collect, user, err);
}

static enum att_rc abandon(struct issuer *issuer, struct store_cert *cert, const char *reason,
                           const char *detail, struct att_err *err)
{
    struct outcome o = {
        .issuer = issuer, .cert = cert, .pem = "", .reason = reason, .detail = detail};
    enum att_rc rc = store_run(issuer->store, true, write_outcome, &o, err);
    if (!rc && !o.taken) {
        att_log(ATT_WARN, "intent.abandoned", ATT_S("serial", cert->serial),
                ATT_S("subject", cert->subject), ATT_S("reason", reason), ATT_S("detail", detail));
    }
    return rc;
}

static enum att_rc finish(struct issuer *issuer, const struct look *look, struct att_err *err)
{
    struct store_cert *cert = look->cert;
    bool ended = false;
    if (look->useless) {
        return abandon(issuer, cert, "superseded", "what it was for has ended", err);
    }
    /* The client has given up long since, and its evidence is old. */
    if (cert->created_at + ISSUER_ORDER_S <= issuer->clock()) {
        return abandon(issuer, cert, "expired",
                       "it could not be signed and stored within 300 s: order again", err);
    }
    struct att_err why = {0};
    enum att_rc rc = sign_claimed(issuer, cert, &ended, &why);
    if (!rc) {
        att_log(ATT_INFO, "intent.completed", ATT_S("serial", cert->serial),
                ATT_S("subject", cert->subject));
        return ATT_OK;
    }
    if (strcmp(why.reason, FOREIGN) == 0 && store_shared(issuer->store)) {
        return ATT_OK; /* that of an issuer with another CA; it expires if nobody signs it */
    }
    if (strcmp(why.reason, FOREIGN) == 0) {
        return abandon(issuer, cert, "caReplaced",
                       "the CA was replaced before it was signed: order again", err);
    }
    if (err) {
        *err = why;
    }
    return ended ? ATT_OK : rc;
}

/* One intent, unless somebody works on it, who will say when it is left. */
static enum att_rc finish_one(struct issuer *issuer, const char *serial, bool others,
                              struct att_err *err)
{
    struct store_cert cert = {0};
    struct look look = {.serial = serial, .cert = &cert};
    struct issuer_claim mine = {.serial = serial};
    bool busy = false;
    if (!claim(issuer, &mine, false, &busy)) {
        return ATT_OK;
    }
    enum att_rc rc = store_run(issuer->store, false, load_intent, &look, err);
    bool fresh = others && cert.created_at + GRACE_S > issuer->clock();
    if (!rc && !fresh && strcmp(cert.status, STORE_CERT_INTENT) == 0) {
        rc = finish(issuer, &look, err);
    }
    unclaim(issuer, &mine);
    store_record_done(&store_certs, &cert);
    return rc;
}

enum att_rc issuer_intent_recover(struct issuer *issuer, bool others, size_t *ret_left,
                                  struct att_err *err)
{
    struct pending p = {0};
    size_t left = 0;
    do {
        p.n = 0;
        enum att_rc rc = store_run(issuer->store, false, list_intents, &p, err);
        if (rc) {
            att_err_prefix(err, "completing interrupted signatures");
            return rc;
        }
        for (size_t i = 0; i < p.n; i++) {
            struct att_err why = {0};
            if (finish_one(issuer, p.serial[i], others, &why)) {
                left++;
                if (err) {
                    *err = why;
                }
            }
            memcpy(p.after, p.serial[i], sizeof p.after);
        }
        /* What fails for 64 in a row fails for all. */
    } while (p.n == BATCH && left < BATCH);
    *ret_left = left;
    return ATT_OK;
}

/* What an issuer that died left behind; whoever of the others comes first. */
static void look_after_others(struct issuer *issuer, int64_t now)
{
    struct att_err err = {0};
    size_t left = 0;
    if (!store_shared(issuer->store) || now < issuer->intent_look_ms) {
        return;
    }
    issuer->intent_look_ms = now + LOOK_MS;
    if (issuer_intent_recover(issuer, true, &left, &err) || left) {
        att_log_err(ATT_WARN, "intent.others", &err);
    }
}

void issuer_intent_tick(struct issuer *issuer)
{
    int64_t now = att_boottime_ms();
    look_after_others(issuer, now);
    if (now < issuer->intent_try_ms || !atomic_exchange(&issuer->intents_left, 0)) {
        return;
    }
    struct att_err err = {0};
    size_t left = 0;
    enum att_rc rc = issuer_intent_recover(issuer, false, &left, &err);
    if (!rc && !left) {
        issuer->intent_pause_ms = 0;
        return;
    }
    int64_t pause = 2 * issuer->intent_pause_ms;
    pause = pause < PAUSE_LEAST_MS ? PAUSE_LEAST_MS : pause > PAUSE_MOST_MS ? PAUSE_MOST_MS : pause;
    issuer->intent_pause_ms = pause;
    issuer->intent_try_ms = att_boottime_ms() + pause;
    atomic_store(&issuer->intents_left, 1);
    att_log(ATT_WARN, "intent.left", ATT_N("intents", (int64_t)left),
            ATT_S("code", att_rc_name(err.rc)), ATT_S("reason", err.reason),
            ATT_S("message", err.msg), ATT_N("nextMs", pause));
}
