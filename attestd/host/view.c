#include "attestd/host/view.h"
#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/json.h"
#include "attestd/host/federation.h"
#include "certs/bundle.h"
#include "certs/san.h"
#include "provision/acme/jws.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>

void host_view_done(struct host_view *view)
{
    json_decref(view->json);
    free(view->entries);
    certs_stack_cleanup(&view->bundle);
    certs_stack_cleanup(&view->issuer_roots);
    host_federation_free(view->federation);
    *view = (struct host_view){0};
}

static enum att_rc int_member(const json_t *obj, const char *name, int64_t least, int64_t *ret,
                              struct att_err *err)
{
    const json_t *value = json_object_get(obj, name);
    if (!json_is_integer(value) || json_integer_value(value) < least) {
        return att_fail(err, ATT_E_PARSE, "%s: expected a whole number of at least %lld", name,
                        (long long)least);
    }
    *ret = json_integer_value(value);
    return ATT_OK;
}

/* The name, the SPIFFE ID and the view's trust domain say the same. */
static enum att_rc check_identity(const struct agent_entry *entry, const char *trust_domain,
                                  struct att_err *err)
{
    struct att_slice name;
    enum att_rc rc =
        certs_spiffe_agent_name(att_slice_str(entry->spiffe_id), trust_domain, &name, err);
    if (rc == ATT_OK && !att_slice_eq_str(name, entry->name)) {
        rc = att_fail(err, ATT_E_PARSE, "its spiffeId is %.200s", entry->spiffe_id);
    }
    return rc;
}

static enum att_rc parse_entry(const json_t *obj, const char *trust_domain,
                               struct agent_entry *ret_entry, struct att_err *err)
{
    struct agent_entry entry = {0};
    enum att_rc rc = att_json_str(obj, "name", &entry.name, err);
    if (rc == ATT_OK) {
        rc = att_json_str(obj, "spiffeId", &entry.spiffe_id, err);
    }
    if (rc == ATT_OK) {
        rc = att_json_str(obj, "key", &entry.key_store, err);
    }
    if (rc == ATT_OK) {
        rc = att_json_str(obj, "profile", &entry.profile, err);
    }
    if (rc == ATT_OK && json_object_get(obj, "keyType")) {
        rc = att_json_str(obj, "keyType", &entry.key_type, err);
    }
    if (rc == ATT_OK && json_object_get(obj, "hsm")) {
        rc = att_json_str(obj, "hsm", &entry.hsm, err);
    }
    if (rc == ATT_OK) {
        rc = int_member(obj, "lifetimeS", 0, &entry.lifetime_s, err);
    }
    if (rc == ATT_OK) {
        rc = check_identity(&entry, trust_domain, err);
    }
    if (rc == ATT_OK) {
        *ret_entry = entry;
    }
    return rc;
}

static enum att_rc parse_entries(struct host_view *view, struct att_err *err)
{
    const json_t *list = json_object_get(view->json, "entries");
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > AGENT_MAX) {
        return att_fail(err, ATT_E_PARSE, "entries: expected an array of at most %d", AGENT_MAX);
    }
    view->entries = calloc(n ? n : 1, sizeof(*view->entries));
    if (!view->entries) {
        return att_fail(err, ATT_E_NOMEM, "no memory for %zu entries", n);
    }
    for (size_t i = 0; i < n; i++) {
        enum att_rc rc =
            parse_entry(json_array_get(list, i), view->trust_domain, &view->entries[i], err);
        if (rc != ATT_OK) {
            att_err_prefix(err, "entries[%zu]", i);
            return rc;
        }
        view->n_entries = i + 1;
    }
    return ATT_OK;
}

static enum att_rc parse_host(struct host_view *view, struct att_err *err)
{
    const json_t *host = json_object_get(view->json, "host");
    const char *state;
    enum att_rc rc = att_json_str(host, "id", &view->host_id, err);
    if (rc == ATT_OK) {
        rc = att_json_str(host, "state", &state, err);
    }
    if (rc == ATT_OK && (strlen(state) == 0 || strlen(state) >= sizeof(view->host_state))) {
        rc = att_fail(err, ATT_E_PARSE, "host.state: expected a word");
    }
    if (rc == ATT_OK) {
        memcpy(view->host_state, state, strlen(state) + 1);
    }
    return rc;
}

static bool is_crl_file(const char *name)
{
    size_t len = strlen(name), stem = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-");
    return len < HOST_CRL_FILE_ROOM && stem > 0 && strcmp(name + stem, ".crl") == 0;
}

/* "crls": absent while there is one authority. */
static enum att_rc parse_crls(struct host_view *view, struct att_err *err)
{
    const json_t *list = json_object_get(view->json, "crls"), *one;
    struct host_crl_files *crls = &view->crls;
    size_t i;
    if (!list) {
        snprintf(crls->v[crls->n++], HOST_CRL_FILE_ROOM, HOST_CRL_FIRST);
        return ATT_OK;
    }
    if (!json_is_array(list) || json_array_size(list) == 0 ||
        json_array_size(list) > HOST_CRLS_MAX) {
        return att_fail(err, ATT_E_PARSE, "crls: expected a list of 1 … %d names", HOST_CRLS_MAX);
    }
    json_array_foreach(list, i, one)
    {
        const char *name = json_string_value(one);
        if (!name || !is_crl_file(name)) {
            return att_fail(err, ATT_E_PARSE, "crls: expected NAME.crl of a-z, 0-9 and -");
        }
        snprintf(crls->v[crls->n++], HOST_CRL_FILE_ROOM, "%s", name);
    }
    return ATT_OK;
}

/* "issuerRoots": absent until the issuer's TLS root was rotated. */
static enum att_rc parse_roots(struct host_view *view, struct att_err *err)
{
    const json_t *roots = json_object_get(view->json, "issuerRoots");
    const json_t *retired = json_object_get(roots, "retired");
    const char *pem;
    if (!roots) {
        return ATT_OK;
    }
    enum att_rc rc = att_json_str(roots, "pem", &pem, err);
    if (rc == ATT_OK) {
        rc = certs_bundle_parse(att_slice_str(pem), &view->issuer_roots, err);
    }
    if (rc == ATT_OK && (!json_is_array(retired) || json_array_size(retired) > HOST_RETIRED_MAX)) {
        rc = att_fail(err, ATT_E_PARSE, "retired: expected a list of at most %d digests",
                      HOST_RETIRED_MAX);
    }
    for (size_t i = 0; rc == ATT_OK && i < json_array_size(retired); i++) {
        const char *hex = json_string_value(json_array_get(retired, i));
        rc = att_unhex_exact(view->retired[view->n_retired++], ATT_SHA256_LEN, hex ? hex : "", err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "issuerRoots");
    }
    return rc;
}

static enum att_rc parse_members(struct host_view *view, struct att_err *err)
{
    int64_t version = 0;
    const char *issued_at, *bundle;
    enum att_rc rc = int_member(view->json, "version", 1, &version, err);
    if (rc == ATT_OK) {
        view->version = (uint64_t)version;
        rc = att_json_str(view->json, "issuedAt", &issued_at, err);
    }
    if (rc == ATT_OK) {
        rc = att_time_parse(issued_at, &view->issued_at, err);
    }
    if (rc == ATT_OK) {
        rc = att_json_str(view->json, "trustDomain", &view->trust_domain, err);
    }
    if (rc == ATT_OK) {
        rc = parse_host(view, err);
    }
    if (rc == ATT_OK) {
        rc = att_json_str(view->json, "bundle", &bundle, err);
    }
    if (rc == ATT_OK) {
        view->bundle_pem = att_slice_str(bundle);
        rc = certs_bundle_parse(view->bundle_pem, &view->bundle, err);
    }
    if (rc == ATT_OK) {
        rc = parse_crls(view, err);
    }
    if (rc == ATT_OK) {
        rc = parse_roots(view, err);
    }
    if (rc == ATT_OK) {
        rc = parse_entries(view, err);
    }
    return rc == ATT_OK
               ? host_federation_new(view->json, view->trust_domain, &view->federation, err)
               : rc;
}

enum att_rc host_view_payload_parse(struct att_slice json, struct host_view *ret_view,
                                    struct att_err *err)
{
    struct host_view view = {0};
    enum att_rc rc = att_json_parse(json, HOST_VIEW_MAX, &view.json, err);
    if (rc == ATT_OK) {
        rc = parse_members(&view, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "hostView");
        host_view_done(&view);
        return rc;
    }
    *ret_view = view;
    return ATT_OK;
}

/* The certificate of x5c with the pinned digest, as the only root. */
static enum att_rc pinned_root(const STACK_OF(X509) * certs, const uint8_t *sha256,
                               STACK_OF(X509) * *ret_roots, struct att_err *err)
{
    for (int i = 0; i < sk_X509_num(certs); i++) {
        X509 *cert = sk_X509_value(certs, i);
        uint8_t digest[ATT_SHA256_LEN];
        enum att_rc rc = certs_cert_sha256(cert, digest, err);
        if (rc != ATT_OK) {
            return rc;
        }
        if (memcmp(digest, sha256, sizeof(digest)) != 0) {
            continue;
        }
        certs_autostack *roots = sk_X509_new_null();
        if (!roots || !X509_up_ref(cert)) {
            return att_fail(err, ATT_E_NOMEM, "no memory for a root");
        }
        if (!sk_X509_push(roots, cert)) {
            X509_free(cert);
            return att_fail(err, ATT_E_NOMEM, "no memory for a root");
        }
        *ret_roots = roots;
        roots = NULL;
        return ATT_OK;
    }
    return att_fail(err, ATT_E_AUTH, "the signer's chain does not hold the pinned root");
}

static enum att_rc check_signer(const struct acme_jws *jws, const struct host_view_anchor *anchor,
                                int64_t at_s, struct att_err *err)
{
    struct att_slice ders[ACME_X5C_MAX];
    for (size_t i = 0; i < jws->x5c_len; i++) {
        ders[i] = att_buf_slice(&jws->x5c[i]);
    }
    certs_autostack *certs = NULL;
    certs_autostack *pinned = NULL;
    enum att_rc rc = certs_der_parse(ders, jws->x5c_len, &certs, err);
    const STACK_OF(X509) *roots = anchor->roots;
    if (rc == ATT_OK && !roots) {
        rc = pinned_root(certs, anchor->root_sha256, &pinned, err);
        roots = pinned;
    }
    if (rc == ATT_OK) {
        rc = certs_chain_verify(certs, roots, CERTS_PURPOSE_HOST_VIEW, at_s, err);
    }
    if (rc != ATT_OK) {
        att_err_prefix(err, "hostView's signer");
        att_err_reason(err, "hostViewSigner");
        return ATT_E_AUTH;
    }
    rc = acme_jws_verify_cert(jws, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "hostView");
        att_err_reason(err, "hostViewSignature");
        return ATT_E_AUTH;
    }
    return ATT_OK;
}

enum att_rc host_view_parse(struct att_slice jws_text, const struct host_view_anchor *anchor,
                            int64_t at_s, struct host_view *ret_view, struct att_err *err)
{
    struct acme_jws jws = {0};
    enum att_rc rc = acme_jws_parse_signed(jws_text, HOST_VIEW_MAX, HOST_VIEW_TYP, &jws, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "hostView");
        return rc;
    }
    struct host_view view = {0};
    /* A cached document is judged at the time it states: first read, but used only if the signature
     * over that very statement holds. */
    if (at_s != 0) {
        rc = check_signer(&jws, anchor, at_s, err);
    }
    if (rc == ATT_OK) {
        rc = host_view_payload_parse(att_buf_slice(&jws.payload), &view, err);
    }
    if (rc == ATT_OK && at_s == 0) {
        rc = check_signer(&jws, anchor, view.issued_at, err);
    }
    acme_jws_done(&jws);
    if (rc == ATT_OK && anchor->host_id && anchor->host_id[0] &&
        strcmp(anchor->host_id, view.host_id) != 0) {
        rc = att_fail(err, ATT_E_AUTH, "hostView is about host %.64s, not about this one",
                      view.host_id);
        att_err_reason(err, "hostViewHost");
    }
    if (rc != ATT_OK) {
        host_view_done(&view);
        return rc;
    }
    *ret_view = view;
    return ATT_OK;
}
