/* federation.*: other trust domains, for operators. */
#include "provision/issuer/admin.h"
#include "provision/issuer/federation_internal.h"

#include "certs/chain.h"

#include <string.h>

static enum att_rc unknown(const char *name, struct att_err *err)
{
    return issuer_refuse(err, ATT_E_NOTFOUND, "federationUnknown",
                         "trust domain %.80s is not in the issuer's configuration", name);
}

static void put_text(json_t *json, const char *name, const char *text)
{
    if (text && text[0]) {
        json_object_set_new(json, name, json_string(text));
    }
}

static json_t *summary(const struct conf_federated *d, const struct store_federated *row)
{
    json_t *json =
        json_pack("{s:s, s:s, s:s}", "trustDomain", d->name, "url", d->url, "profile", d->profile);
    att_autojson *kept = issuer_json(row->bundle);
    struct federation_bundle bundle = {.sequence = -1};
    put_text(json, "spiffeId", d->spiffe_id);
    put_text(json, "outcome", row->outcome[0] ? row->outcome : "none");
    put_text(json, "reason", row->reason);
    put_text(json, "detail", row->detail);
    json_object_set_new(json, "failures", json_integer(row->failures));
    json_object_set_new(json, "triedAt", issuer_time_json(row->tried_at));
    json_object_set_new(json, "fetchedAt", issuer_time_json(row->fetched_at));
    json_object_set_new(json, "changedAt", issuer_time_json(row->changed_at));
    if (row->unrecorded) {
        json_object_set_new(json, "unrecorded", json_integer(row->unrecorded));
    }
    put_text(json, "source", row->source);
    put_text(json, "sha256", row->sha256);
    if (row->sequence >= 0) {
        json_object_set_new(json, "sequence", json_integer(row->sequence));
    }
    if (row->anew) {
        json_object_set_new(json, "anew", json_true());
    }
    if (row->bundle[0] && federation_bundle_from_json(kept, &bundle, NULL) == ATT_OK) {
        json_object_set_new(json, "roots", json_integer(sk_X509_num(bundle.roots)));
        json_object_set_new(json, "keys", json_integer((json_int_t)json_array_size(bundle.keys)));
        federation_bundle_done(&bundle);
    }
    return json;
}

enum att_rc issuer_admin_federation_list(struct issuer_admin_call *call, struct store_tx *tx,
                                         struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(call->issuer);
    const struct conf_federation *conf = settings->conf->federation;
    json_t *list = json_array();
    json_object_set_new(call->result, "trustDomains", list);
    enum att_rc rc = ATT_OK;
    for (unsigned i = 0; !rc && conf && i < conf->n_trust_domains; i++) {
        struct store_federated row = {0};
        rc = federation_row(tx, conf->trust_domains[i].name, &row, err);
        if (!rc) {
            json_array_append_new(list, summary(&conf->trust_domains[i], &row));
        }
        store_record_done(&store_federated, &row);
    }
    return rc;
}

static void put_root(json_t *list, const X509 *root)
{
    struct certs_cert_info info = {0};
    char hex[2 * ATT_SHA256_LEN + 1], name[200] = "";
    if (certs_cert_info(root, &info, NULL) == ATT_OK) {
        att_hex(hex, ATT_SLICE_ARRAY(info.sha256));
        (void)X509_NAME_oneline(X509_get_subject_name(root), name, sizeof name);
        json_array_append_new(list, json_pack("{s:s, s:s, s:o, s:o}", "sha256", hex, "subject",
                                              name, "notBefore", issuer_time_json(info.not_before),
                                              "notAfter", issuer_time_json(info.not_after)));
    }
}

/* The bundle itself: each root in brief and as PEM, each key as a JWK. */
static void put_bundle(json_t *json, const struct store_federated *row)
{
    att_autojson *kept = issuer_json(row->bundle);
    struct federation_bundle bundle = {.sequence = -1};
    if (!row->bundle[0] || federation_bundle_from_json(kept, &bundle, NULL) != ATT_OK) {
        return;
    }
    json_t *roots = json_array();
    for (int i = 0; i < sk_X509_num(bundle.roots); i++) {
        put_root(roots, sk_X509_value(bundle.roots, i));
    }
    json_object_set_new(json, "roots", roots);
    json_object_set(json, "keys", bundle.keys);
    json_object_set(json, "pem", json_object_get(kept, "roots"));
    federation_bundle_done(&bundle);
}

enum att_rc issuer_admin_federation_show(struct issuer_admin_call *call, struct store_tx *tx,
                                         struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(call->issuer);
    const char *name = issuer_arg(call, "name");
    const struct conf_federated *d = conf_federated(settings->conf->federation, name);
    struct store_federated row = {0};
    if (!d) {
        return unknown(name, err);
    }
    enum att_rc rc = federation_row(tx, name, &row, err);
    if (!rc) {
        json_t *json = summary(d, &row);
        put_bundle(json, &row);
        json_object_update(call->result, json);
        json_decref(json);
    }
    store_record_done(&store_federated, &row);
    return rc;
}

enum att_rc issuer_admin_federation_refresh(struct issuer_admin_call *call, struct store_tx *tx,
                                            struct att_err *err)
{
    enum issuer_federation_outcome outcome = ISSUER_FEDERATION_UNCHANGED;
    const char *name = issuer_arg(call, "name");
    (void)tx;
    enum att_rc rc = issuer_federation_look(call->issuer, name, &outcome, err);
    if (!rc) {
        json_object_set_new(call->result, "trustDomain", json_string(name));
        json_object_set_new(call->result, "outcome", json_string(issuer_federation_word(outcome)));
    }
    return rc;
}

/* What is given stays in force until the next bundle is there. */
enum att_rc issuer_admin_federation_reset(struct issuer_admin_call *call, struct store_tx *tx,
                                          struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(call->issuer);
    const char *name = issuer_arg(call, "name");
    struct store_federated row = {0};
    if (!conf_federated(settings->conf->federation, name)) {
        return unknown(name, err);
    }
    enum att_rc rc = federation_row(tx, name, &row, err);
    row.anew++; /* a look that is under way is of before: federation_take tells it by the number */
    row.tried_at = 0;
    rc = rc ? rc : store_put(tx, &store_federated, &row, err);
    rc = rc ? rc
            : issuer_admin_audit(call, tx, issuer_record("federation", "reset", NULL, NULL, name),
                                 err);
    if (!rc) {
        json_object_set_new(call->result, "trustDomain", json_string(name));
    }
    store_record_done(&store_federated, &row);
    return rc;
}
