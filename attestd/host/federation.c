#include "attestd/host/federation.h"

#include "attestd/base/hash.h"
#include "attestd/base/log.h"
#include "attestd/agent/registry.h"
#include "attestd/proc/caller.h"
#include "certs/bundle.h"
#include "certs/chain.h"
#include "certs/oid.h"
#include "certs/san.h"

#include <stdlib.h>
#include <string.h>

void host_federation_free(struct host_federation *federation)
{
    for (size_t i = 0; federation && i < federation->n; i++) {
        att_buf_done(&federation->v[i].roots);
        att_buf_done(&federation->v[i].keys);
        att_buf_done(&federation->v[i].agents);
    }
    free(federation);
}

/* ---- a bundle -------------------------------------------------------------------------------- */

static enum att_rc parse_roots(const char *pem, struct host_federated *ret, struct att_err *err)
{
    certs_autostack *roots = NULL;
    size_t marks[PROC_FEDERATED_ROOTS_MAX + 1] = {0};
    ret->roots = ATT_BUF_INIT(PROC_FEDERATED_DER_MAX);
    enum att_rc rc = *pem ? certs_bundle_parse(att_slice_str(pem), &roots, err) : ATT_OK;
    size_t n = roots ? (size_t)sk_X509_num(roots) : 0;
    if (rc == ATT_OK && n > PROC_FEDERATED_ROOTS_MAX) {
        rc = att_fail(err, ATT_E_LIMIT, "roots: at most %d", PROC_FEDERATED_ROOTS_MAX);
    }
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        rc = certs_cert_der(sk_X509_value(roots, (int)i), &ret->roots, err);
        marks[i + 1] = ret->roots.len;
    }
    rc = rc == ATT_OK ? att_buf_ok(&ret->roots, err) : rc;
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        ret->root[i] = ATT_SLICE(ret->roots.ptr + marks[i], marks[i + 1] - marks[i]);
    }
    ret->n_roots = rc == ATT_OK ? n : 0;
    return rc;
}

static enum att_rc parse_keys(const json_t *keys, struct host_federated *ret, struct att_err *err)
{
    ret->keys = ATT_BUF_INIT(PROC_JWT_KEYS_MAX);
    att_autojson *set = json_pack("{s:O}", "keys", keys);
    return set ? att_json_dump(set, false, &ret->keys, err)
               : att_fail(err, ATT_E_NOMEM, "no memory for keys");
}

/* What is in a bundle is another trust domain's word. The issuer has looked at it, perhaps with an
 * OpenSSL that knows more than this host's: what cannot be read here costs that trust domain's
 * agents their trust, and not this host its view. */
static enum att_rc parse_bundle(const char *pem, const json_t *keys, struct host_federated *ret,
                                struct att_err *err)
{
    struct att_err why = {0};
    enum att_rc rc = parse_roots(pem, ret, &why);
    rc = rc == ATT_OK ? parse_keys(keys, ret, &why) : rc;
    if (rc == ATT_OK) {
        return ATT_OK;
    }
    if (rc == ATT_E_NOMEM) {
        return att_fail(err, rc, "%s", why.msg);
    }
    att_err_prefix(&why, "the bundle of %.80s is left out", ret->trust_domain);
    att_log_err(ATT_ERROR, "federation.unreadable", &why);
    att_buf_done(&ret->roots);
    att_buf_done(&ret->keys);
    ret->n_roots = 0;
    att_autojson *none = json_array();
    return parse_keys(none, ret, err);
}

static enum att_rc parse_one(const json_t *obj, const char *own, struct host_federation *all,
                             struct att_err *err)
{
    struct host_federated *ret = &all->v[all->n];
    const char *name = NULL, *pem = NULL;
    enum att_rc rc = att_json_str(obj, "trustDomain", &name, err);
    if (rc == ATT_OK) {
        rc = certs_trust_domain_check(att_slice_str(name), err);
    }
    for (size_t i = 0; rc == ATT_OK && i < all->n; i++) {
        if (strcmp(all->v[i].trust_domain, name) == 0) {
            rc = att_fail(err, ATT_E_PARSE, "trustDomain: %.80s is there twice", name);
        }
    }
    if (rc == ATT_OK && strcmp(name, own) == 0) {
        rc = att_fail(err, ATT_E_PARSE, "trustDomain: %.80s is our own", name);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    memcpy(ret->trust_domain, name, strlen(name) + 1);
    all->n++; /* what is in it is freed with the rest */
    rc = att_json_str(obj, "roots", &pem, err);
    const json_t *keys = json_object_get(obj, "keys");
    if (rc == ATT_OK && !json_is_array(keys)) {
        rc = att_fail(err, ATT_E_PARSE, "keys: expected an array");
    }
    return rc == ATT_OK ? parse_bundle(pem, keys, ret, err) : rc;
}

/* ---- who is given it --------------------------------------------------------------------------
 */

static struct host_federated *find(struct host_federation *all, const char *name)
{
    for (size_t i = 0; i < all->n; i++) {
        if (strcmp(all->v[i].trust_domain, name) == 0) {
            return &all->v[i];
        }
    }
    return NULL;
}

/* A trust domain of which nothing is known yet is no error: its bundle comes with a later view. */
static enum att_rc add_agent(struct host_federation *all, const json_t *entry, struct att_err *err)
{
    const json_t *list = json_object_get(entry, "federatesWith");
    const char *agent = json_string_value(json_object_get(entry, "name"));
    if (!list) {
        return ATT_OK;
    }
    if (!agent || !json_is_array(list) || json_array_size(list) > PROC_FEDERATED_MAX) {
        return att_fail(err, ATT_E_PARSE, "federatesWith: expected a list of at most %d",
                        PROC_FEDERATED_MAX);
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        for (size_t k = 0; name && k < i; k++) {
            const char *before = json_string_value(json_array_get(list, k));
            name = before && strcmp(before, name) == 0 ? NULL : name;
        }
        if (!name) {
            return att_fail(err, ATT_E_PARSE,
                            "federatesWith: expected names of trust domains, none twice");
        }
        struct host_federated *one = find(all, name);
        if (one) {
            att_buf_put_str(&one->agents, agent);
            att_buf_put_str(&one->agents, "\n");
        }
    }
    return ATT_OK;
}

static uint64_t number_of(const struct host_federation *all)
{
    att_autobuf text = {0};
    uint8_t sha256[ATT_SHA256_LEN];
    for (size_t i = 0; i < all->n; i++) {
        const struct host_federated *one = &all->v[i];
        att_buf_field_be32(&text, att_slice_str(one->trust_domain));
        att_buf_field_be32(&text, att_buf_slice(&one->roots));
        att_buf_field_be32(&text, att_buf_slice(&one->keys));
        att_buf_field_be32(&text, att_buf_slice(&one->agents));
    }
    att_sha256(sha256, att_buf_slice(&text));
    struct att_cur cur = att_cur_init(ATT_SLICE_ARRAY(sha256));
    uint64_t number = att_cur_be64(&cur);
    return number ? number : 1;
}

static enum att_rc parse(const json_t *view, const char *own, struct host_federation *all,
                         struct att_err *err)
{
    const json_t *list = json_object_get(view, "federation");
    const json_t *entries = json_object_get(view, "entries");
    enum att_rc rc = ATT_OK;
    if (list && (!json_is_array(list) || json_array_size(list) > PROC_FEDERATED_MAX)) {
        return att_fail(err, ATT_E_PARSE, "expected a list of at most %d trust domains",
                        PROC_FEDERATED_MAX);
    }
    for (size_t i = 0; rc == ATT_OK && i < json_array_size(list); i++) {
        rc = parse_one(json_array_get(list, i), own, all, err);
        if (rc != ATT_OK) {
            att_err_prefix(err, "[%zu]", i);
        }
    }
    for (size_t i = 0; i < all->n; i++) {
        all->v[i].agents = ATT_BUF_INIT(PROC_FEDERATED_AGENTS_MAX);
    }
    for (size_t i = 0; rc == ATT_OK && i < json_array_size(entries); i++) {
        rc = add_agent(all, json_array_get(entries, i), err);
    }
    for (size_t i = 0; rc == ATT_OK && i < all->n; i++) {
        rc = att_buf_ok(&all->v[i].agents, err);
    }
    all->number = number_of(all);
    return rc;
}

enum att_rc host_federation_new(const json_t *view, const char *own,
                                struct host_federation **ret_federation, struct att_err *err)
{
    struct host_federation *all = calloc(1, sizeof *all);
    enum att_rc rc =
        all ? parse(view, own, all, err) : att_fail(err, ATT_E_NOMEM, "no memory for bundles");
    if (rc != ATT_OK) {
        att_err_prefix(err, "federation");
        host_federation_free(all);
        return rc;
    }
    *ret_federation = all;
    return ATT_OK;
}

/* ---- FEDERATION ------------------------------------------------------------------------------ */

enum att_rc host_federation_answer(const struct host_federation *federation,
                                   const struct proc_op *op, const struct proc_value *v,
                                   struct att_buf *ret_payload, struct att_err *err)
{
    static const struct host_federated nothing;
    uint64_t index = v[PROC_WORKLOAD_FEDERATION_REQ_INDEX].num;
    size_t n = federation ? federation->n : 0;
    if (index >= n && index > 0) {
        return att_fail(err, ATT_E_INVAL, "index %llu of %zu trust domains",
                        (unsigned long long)index, n);
    }
    const struct host_federated *one = n ? &federation->v[index] : &nothing;
    const struct proc_value reply[] = {
        [PROC_WORKLOAD_FEDERATION_REP_NUMBER] = proc_num(federation ? federation->number : 0),
        [PROC_WORKLOAD_FEDERATION_REP_COUNT] = proc_num(n),
        [PROC_WORKLOAD_FEDERATION_REP_TRUST_DOMAIN] = proc_text(one->trust_domain),
        [PROC_WORKLOAD_FEDERATION_REP_ROOTS] = {.items = one->root, .item_count = one->n_roots},
        [PROC_WORKLOAD_FEDERATION_REP_KEYS] = proc_bytes(att_buf_slice(&one->keys)),
        [PROC_WORKLOAD_FEDERATION_REP_AGENTS] = proc_bytes(att_buf_slice(&one->agents))};
    return proc_reply_encode(op, reply, ret_payload, err);
}
