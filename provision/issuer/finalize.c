/* M5 and M6: the certificate. */
#include "provision/issuer/alternates.h"
#include "provision/issuer/generations.h"
#include "provision/issuer/ca.h"
#include "provision/issuer/order.h"
#include "provision/issuer/revoke.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct m5 {
    struct issuer_call *call;
    struct att_buf csr;
    struct store_order order;
    struct store_cert cert;
    bool refused; /* the order died of it */
};

static enum att_rc load(void *user, struct store_tx *tx, struct att_err *err)
{
    struct m5 *m = user;
    return issuer_order_load(m->call, tx, &m->order, err);
}

static enum att_rc not_ready(struct m5 *m, const struct store_order *order, struct att_err *err)
{
    const char *status = issuer_order_status(order, m->call->now);
    if (strcmp(status, "ready") == 0) {
        return ATT_OK;
    }
    return issuer_problem(
        m->call, err, ACME_P_ORDER_NOT_READY, NULL, "the order is %s%s", status,
        strcmp(order->status, "ready") == 0 ? ": its verdict is older than 5 minutes" : "");
}

static enum att_rc bad_csr(struct issuer_call *call, const struct att_err *why, struct att_err *err)
{
    bool word = why->reason[0] && strcmp(why->reason, "badCSR") != 0;
    return issuer_problem(call, err, ACME_P_BAD_CSR, word ? why->reason : NULL, "%s", why->msg);
}

/* The CSR is for the key that was certified (order.key_spki from here on), and not for the
 * account's.
 */
static enum att_rc check_csr(struct m5 *m, struct att_err *err)
{
    struct issuer_call *call = m->call;
    struct att_err why = {0};
    struct verify_verdict *verdict = verify_verdict_new();
    att_autojson *jwk = issuer_json(call->account.jwk);
    att_autobuf account = {0};
    enum att_rc rc =
        verdict ? acme_jwk_to_spki(jwk, &account, &why) : att_fail(&why, ATT_E_NOMEM, "no memory");
    if (!rc) {
        struct att_slice keys[] = {att_buf_slice(&account)};
        if (verify_csr(att_buf_slice(&m->csr), m->order.identifier,
                       att_buf_slice(&m->order.key_spki), keys, 1, verdict) != VERIFY_ACCEPTED) {
            rc = verify_verdict_err(verdict, &why);
        }
    }
    verify_verdict_free(verdict);
    if (rc == ATT_E_NOMEM || rc == ATT_E_INTERNAL || rc == ATT_E_CRYPTO) {
        if (err) {
            *err = why;
        }
        return rc;
    }
    return rc ? bad_csr(call, &why, err) : ATT_OK;
}

/* No account's key may be certified, whoever's it is. */
static enum att_rc check_accounts(struct m5 *m, struct store_tx *tx, struct att_err *err)
{
    char thumbprint[ACME_THUMBPRINT_LEN];
    struct store_account account = {0};
    enum att_rc rc = acme_spki_thumbprint(att_buf_slice(&m->order.key_spki), thumbprint, err);
    if (rc) {
        return rc;
    }
    rc = store_find(tx, &store_accounts, "thumbprint", thumbprint, &account, NULL);
    store_record_done(&store_accounts, &account);
    if (rc == ATT_E_NOTFOUND) {
        return ATT_OK;
    }
    return rc ? att_fail(err, rc, "accounts cannot be read")
              : issuer_problem(m->call, err, ACME_P_BAD_CSR, "csrAccountKey",
                               "the CSR's key is an account key");
}

/* The verdict demanded a key of the kind that the entry names, and the entry is still that version.
 * The profile may allow others by now, or have another lifetime. */
static enum att_rc check_key(const struct m5 *m, const struct conf_entry *entry,
                             enum certs_key_store *ret_store, struct att_err *err)
{
    const struct conf_profile *profile =
        conf_issuer_profile(m->call->settings->conf, m->order.profile);
    const char *key = conf_key_kind_name(entry->key);
    if (!profile || !issuer_profile_allows(profile, entry->key)) {
        return issuer_refuse(err, ATT_E_DENIED, "keyStore",
                             "profile %s does not allow %s keys since the verdict",
                             m->order.profile, key);
    }
    if (!issuer_profile_allows_type(profile, entry->key_type)) {
        return issuer_refuse(err, ATT_E_DENIED, "keyType",
                             "profile %s does not allow %s keys since the verdict",
                             m->order.profile, att_keytype_name(entry->key_type));
    }
    if (entry->key == CONF_KEY_HSM && !issuer_profile_allows_hsm(profile, m->order.hsm)) {
        return issuer_refuse(err, ATT_E_DENIED, "keyHsm",
                             "profile %s does not allow keys in the HSM module \"%s\" since the "
                             "verdict",
                             m->order.profile, m->order.hsm);
    }
    *ret_store = certs_key_store_parse(key);
    return ATT_OK;
}

static enum att_rc intend(struct m5 *m, struct store_tx *tx, enum certs_key_store key_store,
                          struct att_err *err)
{
    struct issuer_call *call = m->call;
    const struct conf_profile *profile =
        conf_issuer_profile(call->settings->conf, m->order.profile);
    struct issuer_intent intent = {
        .kind = ISSUER_CA_AGENT,
        .leaf = {.validity = certs_validity_from(call->now, profile->lifetime_s),
                 .spki = att_buf_slice(&m->order.key_spki),
                 .spiffe_id = m->order.identifier,
                 .holding = {.store = key_store}},
        .subject = m->order.identifier,
        .account = m->order.account,
        .host = m->order.host,
        .ord = m->order.id,
        .profile = m->order.profile,
        .decision = m->order.decision};
    const struct conf_crl *crl = call->settings->conf->crl;
    char url[ACME_URL_MAX];
    enum att_rc rc = issuer_intent_authority(call->issuer, tx, &intent, err);
    if (!rc && crl && crl->url) {
        snprintf(url, sizeof url, "%s/%s", crl->url, intent.by.crl);
        intent.leaf.crl_url = url;
    }
    size_t name = strcspn(m->order.policy, "/");
    snprintf(intent.leaf.holding.boot, sizeof intent.leaf.holding.boot, "%.*s", (int)name,
             m->order.policy);
    if (!rc) {
        rc = att_unhex_exact(intent.leaf.holding.decision, sizeof intent.leaf.holding.decision,
                             m->order.decision, err);
    }
    snprintf(intent.leaf.hsm.name, sizeof intent.leaf.hsm.name, "%s", m->order.hsm);
    if (!rc) {
        rc = issuer_measured_leaf(m->order.measured, &intent.leaf.measured, err);
    }
    if (!rc) {
        rc = issuer_sealed_leaf(m->order.parent, &intent.leaf.sealed, err);
    }
    return rc ? rc : issuer_intent_make(call->issuer, tx, &intent, call->now, &m->cert, err);
}

static enum att_rc grant(void *user, struct store_tx *tx, struct att_err *err)
{
    struct m5 *m = user;
    struct store_order order = {0};
    struct store_host host = {0};
    struct store_ak ak = {0};
    struct store_entry entry = {0};
    issuer_autoentry *parsed = NULL;
    enum certs_key_store key_store = CERTS_STORE_NONE;
    enum att_rc rc = store_get(tx, &store_orders, m->order.id, &order, err);
    if (!rc) {
        rc = not_ready(m, &order, err);
    }
    if (!rc) {
        rc = issuer_order_check(m->call, tx, &order, order.ak, &host, &ak, &entry, &parsed, err);
    }
    if (!rc && entry.version != order.entry_version) {
        rc = issuer_refuse(err, ATT_E_DENIED, "notAssigned",
                           "the entry of agent %s changed after the verdict", order.entry);
    }
    if (!rc) {
        rc = issuer_order_basis(m->call, tx, &m->order, &host, &ak, err);
    }
    if (!rc) {
        rc = check_key(m, parsed->v, &key_store, err);
    }
    if (!rc) {
        rc = check_accounts(m, tx, err);
    }
    if (!rc) {
        rc = intend(m, tx, key_store, err);
    }
    if (!rc) {
        rc = issuer_set(&order.status, "processing") ? store_put(tx, &store_orders, &order, err)
                                                     : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    store_record_done(&store_orders, &order);
    store_record_done(&store_hosts, &host);
    store_record_done(&store_aks, &ak);
    store_record_done(&store_entries, &entry);
    return rc;
}

struct refusal {
    struct m5 *m;
    const struct att_err *why;
    bool dies;
};

static enum att_rc refuse(void *user, struct store_tx *tx, struct att_err *err)
{
    struct refusal *r = user;
    struct m5 *m = r->m;
    struct store_order order = {0};
    json_t *record =
        issuer_record("issue", "refused", r->why->reason, r->why->msg, m->order.identifier);
    json_object_set_new(record, "message", json_string("finalize"));
    json_object_set_new(record, "order", json_string(m->order.id));
    json_object_set_new(record, "host", json_string(m->order.host));
    json_object_set_new(record, "decision", json_string(m->order.decision));
    enum att_rc rc = issuer_audit(tx, m->call->now, record, NULL, err);
    if (!rc && r->dies) {
        rc = store_get(tx, &store_orders, m->order.id, &order, err);
        if (!rc && strcmp(order.status, "ready") == 0) {
            rc = issuer_set(&order.status, "invalid") ? store_put(tx, &store_orders, &order, err)
                                                      : att_fail(err, ATT_E_NOMEM, "no memory");
        }
    }
    store_record_done(&store_orders, &order);
    return rc;
}

static enum att_rc answer(struct m5 *m, struct att_err *err)
{
    struct issuer_call *call = m->call;
    store_record_done(&store_orders, &m->order);
    enum att_rc rc = store_run(call->issuer->store, false, load, m, err);
    if (rc) {
        return rc;
    }
    if (strcmp(m->order.status, "processing") == 0) {
        call->response->retry_after_s = 1;
    }
    snprintf(call->response->location, sizeof call->response->location, "%s/order/%s",
             call->issuer->base_url, m->order.id);
    return issuer_reply(call, 200, issuer_order_json(call->issuer, &m->order, call->now), err);
}

/* The intent stands and is tried again (issuer_intent_tick): the order is processing, which the
 * client polls (RFC 8555 §7.4), and it is not told that it failed. */
static enum att_rc late(struct m5 *m, const struct att_err *why, struct att_err *err)
{
    if (why->rc == ATT_E_DENIED) {
        if (err) {
            *err = *why;
        }
        return why->rc;
    }
    att_log(ATT_ERROR, "certificate.late", ATT_S("agent", m->order.entry),
            ATT_S("serial", m->cert.serial), ATT_S("order", m->order.id),
            ATT_S("code", att_rc_name(why->rc)), ATT_S("reason", why->reason),
            ATT_S("detail", why->msg));
    return answer(m, err);
}

static enum att_rc run(struct m5 *m, struct att_err *err)
{
    struct issuer_call *call = m->call;
    struct store *store = call->issuer->store;
    struct att_err why = {0};
    enum att_rc rc = store_run(store, false, load, m, err);
    if (!rc) {
        rc = not_ready(m, &m->order, err);
    }
    if (!rc) {
        rc = acme_finalize_request_parse(att_buf_slice(&call->jws.payload), &m->csr, err);
    }
    if (rc) {
        return rc;
    }
    rc = check_csr(m, &why);
    if (!rc) {
        rc = store_run(store, true, grant, m, &why);
    }
    if (rc == ATT_E_RETRY && strcmp(why.reason, "caChanged") == 0) {
        struct att_err stale = {0};
        if (issuer_generations_refresh(call->issuer, &stale) == ATT_OK) {
            att_err_clear(&why);
            rc = store_run(store, true, grant, m, &why);
        }
    }
    if (rc) {
        issuer_intent_unsure(call->issuer, rc);
        /* A bad CSR leaves the order ready for a good one (RFC 8555 §7.4); a host or an entry that
         * is no longer what was judged ends it. */
        struct refusal r = {m, &why, !call->has_problem};
        struct att_err lost = {0};
        if (rc == ATT_E_DENIED && store_run(store, true, refuse, &r, &lost)) {
            att_log_err(ATT_ERROR, "audit.lost", &lost);
        }
        if (err) {
            *err = why;
        }
        return rc;
    }
    rc = issuer_intent_sign(call->issuer, &m->cert, &why);
    if (rc) {
        return late(m, &why, err);
    }
    att_log(ATT_INFO, "certificate.issued", ATT_S("agent", m->order.entry),
            ATT_S("host", m->order.host), ATT_S("serial", m->cert.serial),
            ATT_S("profile", m->order.profile), ATT_N("not_after", m->cert.not_after));
    return answer(m, err);
}

enum att_rc issuer_finalize(struct issuer_call *call, struct att_err *err)
{
    struct m5 *m = calloc(1, sizeof *m);
    if (!m) {
        return att_fail(err, ATT_E_NOMEM, "no memory");
    }
    m->call = call;
    enum att_rc rc = run(m, err);
    att_buf_done(&m->csr);
    store_record_done(&store_orders, &m->order);
    store_record_done(&store_certs, &m->cert);
    free(m);
    return rc;
}

/* ---- M6
 * ----------------------------------------------------------------------------------------------------------
 */

struct m6 {
    struct issuer_call *call;
    struct store_cert cert;
};

static enum att_rc load_cert(void *user, struct store_tx *tx, struct att_err *err)
{
    struct m6 *m = user;
    return store_find(tx, &store_certs, "id", m->call->id, &m->cert, err);
}

static enum att_rc put_chain(struct m6 *m, bool alternate, struct att_err *err)
{
    struct issuer_call *call = m->call;
    struct issuer_response *response = call->response;
    bool more = issuer_alternate_of(call->issuer, &m->cert) != NULL;
    if (alternate) {
        enum att_rc rc = issuer_alternate_put(call->issuer, &m->cert, &response->body, err);
        if (rc) {
            return rc;
        }
    } else {
        att_buf_put_str(&response->body, m->cert.pem);
    }
    if (more) { /* RFC 8555 §7.4.2 */
        snprintf(response->alternate, sizeof response->alternate, "%s/%s/%s",
                 call->issuer->base_url, alternate ? "certificate" : "alternate", call->id);
    }
    response->status = 200;
    response->content_type = "application/pem-certificate-chain";
    return att_buf_ok(&response->body, err);
}

static enum att_rc give_chain(struct issuer_call *call, bool alternate, struct att_err *err)
{
    struct m6 m = {.call = call};
    if (call->jws.payload.len) {
        return issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                              "this resource is read with POST-as-GET: expected an empty payload");
    }
    enum att_rc rc = store_run(call->issuer->store, false, load_cert, &m, err);
    if (!rc && strcmp(m.cert.account, call->account.id) != 0) {
        rc = issuer_problem(call, err, ACME_P_UNAUTHORIZED, NULL, "another account's resource");
    }
    if (!rc && strcmp(m.cert.status, STORE_CERT_ISSUED) != 0) {
        rc = issuer_problem(call, err, ACME_P_MALFORMED, NULL, "the certificate is %s",
                            m.cert.status);
    }
    if (!rc && !m.cert.pem[0]) {
        rc = issuer_problem(call, err, ACME_P_MALFORMED, NULL,
                            "the certificate ended long since and is not kept");
        call->problem.status = 404;
    }
    if (!rc) {
        rc = put_chain(&m, alternate, err);
    }
    store_record_done(&store_certs, &m.cert);
    return rc;
}

enum att_rc issuer_certificate(struct issuer_call *call, struct att_err *err)
{
    return give_chain(call, false, err);
}

enum att_rc issuer_alternate(struct issuer_call *call, struct att_err *err)
{
    return give_chain(call, true, err);
}
