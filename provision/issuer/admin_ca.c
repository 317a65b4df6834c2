/* The authorities' rotation, for operators. */
#include "provision/issuer/ca_files.h"
#include "provision/issuer/kinds.h"
#include "provision/issuer/jwt.h"
#include "provision/issuer/rotate.h"

#include <string.h>

static enum att_rc kind_arg(const struct issuer_admin_call *call, const char **ret_kind,
                            struct att_err *err)
{
    const char *word = issuer_arg(call, "kind");
    const struct issuer_kind *kind = issuer_kind_by_word(word);
    if (!kind) {
        return issuer_refuse(err, ATT_E_INVAL, "usage",
                             "kind: expected workload, attestation, dns or tls, found \"%.40s\"",
                             word);
    }
    *ret_kind = kind->kind;
    return ATT_OK;
}

static bool flag(const struct issuer_admin_call *call, const char *name)
{
    return json_is_true(json_object_get(call->args, name));
}

static enum att_rc rotation_of(struct issuer_admin_call *call, struct issuer_rotation *ret,
                               struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(call->issuer);
    const char *keys = issuer_arg(call, "keys");
    *ret = (struct issuer_rotation){.call = call,
                                    .new_root = flag(call, "newRoot"),
                                    .csr = flag(call, "csr"),
                                    .in_hsm = keys ? strcmp(keys, "hsm") == 0
                                                   : settings->conf->ca_keys_hsm};
    if (keys && !ret->in_hsm && strcmp(keys, "file") != 0) {
        return issuer_refuse(err, ATT_E_INVAL, "usage",
                             "keys: expected file or hsm, found \"%.40s\"", keys);
    }
    if (ret->new_root && ret->csr) {
        return issuer_refuse(err, ATT_E_INVAL, "usage",
                             "newRoot and csr: a request's root is made by who signs it");
    }
    enum att_rc rc = kind_arg(call, &ret->kind, err);
    if (!rc && ret->csr && issuer_kind_of(ret->kind)->root_only) {
        rc = issuer_refuse(err, ATT_E_INVAL, "usage",
                           "csr: the issuer's own TLS has no intermediate that somebody else could "
                           "sign");
    }
    return rc;
}

enum att_rc issuer_admin_ca_prepare(struct issuer_admin_call *call, struct store_tx *tx,
                                    struct att_err *err)
{
    struct issuer_rotation r;
    (void)tx;
    enum att_rc rc = rotation_of(call, &r, err);
    return rc ? rc : issuer_rotate_prepare(&r, err);
}

enum att_rc issuer_admin_ca_rotate(struct issuer_admin_call *call, struct store_tx *tx,
                                   struct att_err *err)
{
    struct issuer_rotation r;
    (void)tx;
    enum att_rc rc = rotation_of(call, &r, err);
    return rc ? rc : issuer_rotate_next(&r, flag(call, "start"), err);
}

static struct issuer_rotation of_id(struct issuer_admin_call *call)
{
    return (struct issuer_rotation){
        .call = call, .id = issuer_arg(call, "id"), .force = flag(call, "force")};
}

enum att_rc issuer_admin_ca_chain(struct issuer_admin_call *call, struct store_tx *tx,
                                  struct att_err *err)
{
    struct issuer_rotation r = of_id(call);
    (void)tx;
    r.chain = issuer_arg(call, "text");
    return issuer_rotate_chain(&r, err);
}

enum att_rc issuer_admin_ca_publish(struct issuer_admin_call *call, struct store_tx *tx,
                                    struct att_err *err)
{
    struct issuer_rotation r = of_id(call);
    (void)tx;
    return issuer_rotate_publish(&r, err);
}

enum att_rc issuer_admin_ca_activate(struct issuer_admin_call *call, struct store_tx *tx,
                                     struct att_err *err)
{
    struct issuer_rotation r = of_id(call);
    (void)tx;
    return issuer_rotate_activate(&r, err);
}

enum att_rc issuer_admin_ca_retire(struct issuer_admin_call *call, struct store_tx *tx,
                                   struct att_err *err)
{
    struct issuer_rotation r = of_id(call);
    (void)tx;
    return issuer_rotate_retire(&r, err);
}

enum att_rc issuer_admin_ca_bundle(struct issuer_admin_call *call, struct store_tx *tx,
                                   struct att_err *err)
{
    const struct issuer_generations *now = issuer_generations_now(call->issuer);
    const char *kind = NULL;
    issuer_autofree *first = NULL;
    (void)tx;
    enum att_rc rc = kind_arg(call, &kind, err);
    if (rc) {
        return rc;
    }
    const char *pem = strcmp(kind, "agent") == 0 ? now->bundle
                      : strcmp(kind, "ak") == 0  ? now->ak_roots
                      : strcmp(kind, "dns") == 0 ? now->dns_roots
                                                 : now->tls_roots;
    const X509 *root = issuer_kind_first_root(call->issuer, kind);
    if (!pem && !root) {
        return issuer_refuse(err, ATT_E_NOTFOUND, "caUnknown",
                             "this issuer has no authority of kind %s", issuer_arg(call, "kind"));
    }
    if (!pem) { /* never rotated */
        rc = issuer_ca_pem_text(root, &first, err);
        pem = first;
    }
    if (!rc) {
        json_object_set_new(call->result, "pem", json_string(pem));
    }
    return rc;
}

enum att_rc issuer_admin_ca_jwt(struct issuer_admin_call *call, struct store_tx *tx,
                                struct att_err *err)
{
    json_t *keys = NULL;
    enum att_rc rc = issuer_jwt_public(tx, "sig", &keys, err);
    rc = rc ? rc : issuer_jwt_tell(call->issuer, tx, keys, err);
    return rc ? rc
           : json_object_set_new(call->result, "keys", keys) == 0
               ? ATT_OK
               : att_fail(err, ATT_E_NOMEM, "no memory");
}

enum att_rc issuer_admin_ca_jwt_replace(struct issuer_admin_call *call, struct store_tx *tx,
                                        struct att_err *err)
{
    char kid[ACME_THUMBPRINT_LEN];
    (void)tx;
    enum att_rc rc = issuer_jwt_replace(call->issuer, flag(call, "withdraw"), call, kid, err);
    return rc ? rc
           : json_object_set_new(call->result, "kid", json_string(kid)) == 0
               ? ATT_OK
               : att_fail(err, ATT_E_NOMEM, "no memory");
}
