/* The making of a new generation: keys and certificates, or a request for one. */
#include "certs/authority.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "provision/issuer/ca_files.h"
#include "provision/issuer/kinds.h"
#include "provision/issuer/rotate.h"

#include "attestd/base/io.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY_S          ((int64_t)86400)
#define ROOT_S         (3652 * DAY_S)
#define INTERMEDIATE_S (1826 * DAY_S)
#define TITLE_ROOM     128
#define KEYS_FOLDER    "keys"

/* Everything that becomes the rows. */
struct making {
    struct issuer_rotation *r;
    const struct issuer_kind *kind;
    bool workload;
    struct store_authority first, row; /* first: that of state_dir/ca, where it is no row yet */
    X509 *old_root, *root, *ca;
    EVP_PKEY *old_root_key, *root_key, *key;
    char root_ref[ISSUER_KEYREF_MAX], ref[ISSUER_KEYREF_MAX];
};

static void making_done(struct making *m)
{
    store_record_done(&store_authorities, &m->first);
    store_record_done(&store_authorities, &m->row);
    X509_free(m->old_root);
    X509_free(m->root);
    X509_free(m->ca);
    EVP_PKEY_free(m->old_root_key);
    EVP_PKEY_free(m->root_key);
    EVP_PKEY_free(m->key);
}

static struct issuer *issuer_of(const struct making *m)
{
    return m->r->call->issuer;
}

/* ---- what there is ----------------------------------------------------------------------------
 */

static enum att_rc may_begin(const struct making *m, struct store_tx *tx,
                             const struct issuer_rotation_rows *rows, bool forget,
                             struct att_err *err)
{
    if (rows->under_way.id) {
        return issuer_refuse(err, ATT_E_CONFLICT, "caBusy", "authority %s is %s: it comes first",
                             rows->under_way.id, rows->under_way.state);
    }
    return issuer_rotate_room(tx, m->r->kind, m->r->call->now, forget, err);
}

static enum att_rc fill_first(struct making *m, struct att_err *err)
{
    const struct issuer_authority first = issuer_authority_first(issuer_of(m), m->r->kind);
    const X509 *root = issuer_kind_first_root(issuer_of(m), m->r->kind);
    struct store_authority *row = &m->first;
    char id[ISSUER_GENERATION_ID], ref[ISSUER_KEYREF_MAX], root_ref[ISSUER_KEYREF_MAX];
    issuer_autofree *root_pem = NULL;
    struct certs_cert_info info;
    if (!first.ca || !root) {
        return issuer_refuse(err, ATT_E_NOTFOUND, "caUnknown",
                             "this issuer has no authority of kind %s", m->kind->word);
    }
    snprintf(ref, sizeof ref, "file:%s-%s", m->kind->stem, m->kind->root_only ? "root" : "ca");
    snprintf(root_ref, sizeof root_ref, "file:%s-root", m->kind->stem);
    enum att_rc rc = issuer_generation_id(X509_get0_pubkey(first.ca), id, err);
    if (!rc) {
        rc = issuer_ca_pem_text(root, &root_pem, err);
    }
    if (!rc) {
        rc = certs_cert_info(first.ca, &info, err);
    }
    if (rc) {
        return rc;
    }
    row->created_at = row->published_at = row->activated_at = info.not_before;
    return issuer_set(&row->id, id) && issuer_set(&row->kind, m->r->kind) &&
                   issuer_set(&row->state, STORE_AUTHORITY_ACTIVE) &&
                   issuer_set(&row->keyref, ref) && issuer_set(&row->root_keyref, root_ref) &&
                   issuer_set(&row->chain, m->kind->root_only ? root_pem : first.pem) &&
                   issuer_set(&row->root, root_pem) && issuer_set(&row->csr, "")
               ? ATT_OK
               : att_fail(err, ATT_E_NOMEM, "no memory");
}

static enum att_rc see(void *user, struct store_tx *tx, struct att_err *err)
{
    struct making *m = user;
    struct issuer_rotation_rows rows = {.kind = m->r->kind};
    enum att_rc rc = issuer_rotate_rows(tx, &rows, err);
    if (!rc) {
        rc = may_begin(m, tx, &rows, false, err);
    }
    if (!rc && !rows.active.id) {
        rc = fill_first(m, err);
    }
    const struct store_authority *active = rows.active.id ? &rows.active : &m->first;
    if (!rc) {
        certs_autostack *roots = NULL;
        rc = certs_pem_parse(att_slice_str(active->root), &roots, err);
        m->old_root = rc ? NULL : sk_X509_shift(roots);
    }
    if (!rc) {
        snprintf(m->root_ref, sizeof m->root_ref, "%s", active->root_keyref);
    }
    issuer_rotate_rows_done(&rows);
    return rc;
}

/* ---- making -----------------------------------------------------------------------------------
 */

static enum att_rc new_key(struct making *m, char ref[ISSUER_KEYREF_MAX], EVP_PKEY **ret_key,
                           struct att_err *err)
{
    struct issuer *issuer = issuer_of(m);
    uint8_t random[8];
    char hex[17], name[40], folder[ISSUER_CA_PATH];
    enum att_rc rc = att_random(random, sizeof random, err);
    att_hex(hex, ATT_SLICE_ARRAY(random));
    snprintf(name, sizeof name, KEYS_FOLDER "/%s", hex);
    issuer_ca_path(folder, issuer->state_dir, KEYS_FOLDER);
    if (!rc && !m->r->in_hsm) {
        rc = att_io_mkdirs(folder, 0700, err);
    }
    return rc ? rc
              : issuer_key_make(issuer->ca->hsm, m->r->in_hsm, issuer->state_dir, name, ref,
                                ret_key, err);
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

enum form { ROOT, CROSS, INTERMEDIATE };

/* by NULL: self-issued, with key. */
static enum att_rc make_cert(struct making *m, enum form form, EVP_PKEY *subject_key,
                             const char *common_name, const X509 *by, EVP_PKEY *by_key,
                             X509 **ret_cert, struct att_err *err)
{
    att_autobuf spki = {0}, tbs = {0}, der = {0};
    uint8_t digest[ATT_SHA256_LEN];
    int64_t now = m->r->call->now;
    struct certs_ca_spec spec = {
        .validity = certs_validity_from(now, form == INTERMEDIATE ? INTERMEDIATE_S : ROOT_S),
        .common_name = common_name,
        .trust_domain = form == INTERMEDIATE && m->workload ? issuer_of(m)->trust_domain : NULL};
    if (by) {
        spec.validity.not_after = least(spec.validity.not_after, issuer_ca_end(by));
    }
    enum att_rc rc = certs_key_spki(subject_key, &spki, err);
    if (!rc) {
        rc = certs_serial_new(spec.serial, err);
    }
    if (!rc) {
        spec.spki = att_buf_slice(&spki);
        rc = form == ROOT    ? certs_root_tbs(&spec, &tbs, digest, err)
             : form == CROSS ? certs_cross_tbs(&spec, by, &tbs, digest, err)
                             : certs_intermediate_tbs(&spec, by, &tbs, digest, err);
    }
    if (!rc) {
        rc = certs_tbs_sign_for(att_buf_slice(&tbs), by, by ? by_key : subject_key, &der, err);
    }
    return rc ? rc : certs_cert_parse(att_buf_slice(&der), ret_cert, err);
}

/* Each generation has a name of its own: by it verifiers look for revocation lists. */
static void title(const struct making *m, const char *what, const EVP_PKEY *key,
                  char ret[TITLE_ROOM])
{
    char id[ISSUER_GENERATION_ID] = "";
    (void)!issuer_generation_id(key, id, NULL);
    snprintf(ret, TITLE_ROOM, "%.28s %s %s %.8s", issuer_of(m)->trust_domain, m->kind->title, what,
             id);
}

static enum att_rc open_old_root(struct making *m, struct att_err *err)
{
    struct att_err why = {0};
    struct issuer *issuer = issuer_of(m);
    enum att_rc rc = m->root_ref[0]
                         ? issuer_key_open(issuer->ca->hsm, issuer->state_dir, m->root_ref,
                                           m->old_root, &m->old_root_key, &why)
                         : att_fail(&why, ATT_E_NOTFOUND, "it was never here");
    return rc ? issuer_refuse(err, ATT_E_CONFLICT, "caRootAway",
                              "the root's key is not here (%.200s): with --csr its certificate is "
                              "made where the key is",
                              why.msg)
              : ATT_OK;
}

static enum att_rc make_root(struct making *m, struct att_buf *cross, struct att_err *err)
{
    char name[TITLE_ROOM];
    certs_autox509 *cert = NULL;
    struct att_err away = {0};
    bool can_cross = open_old_root(m, &away) == ATT_OK;
    /* Tickets and hosts pin the TLS root: without a way from there to the new one they are lost. */
    if (!can_cross && m->kind->root_only) {
        *err = away;
        return away.rc;
    }
    enum att_rc rc = new_key(m, m->root_ref, &m->root_key, err);
    if (!rc) {
        title(m, "Root", m->root_key, name);
        rc = make_cert(m, ROOT, m->root_key, name, NULL, NULL, &m->root, err);
    }
    /* For whoever has the old root only; without its key there is the overlap of the bundles. */
    if (!rc && can_cross) {
        rc = make_cert(m, CROSS, m->root_key, name, m->old_root, m->old_root_key, &cert, err);
    }
    if (!rc && cert) {
        rc = certs_pem_dump(cert, cross, err);
    }
    json_object_set_new(m->r->call->result, "crossSigned", json_boolean(can_cross));
    return rc;
}

static enum att_rc take_old_root(struct making *m, struct att_err *err)
{
    enum att_rc rc = open_old_root(m, err);
    if (!rc && !(X509_up_ref(m->old_root) && EVP_PKEY_up_ref(m->old_root_key))) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    if (!rc) {
        m->root = m->old_root;
        m->root_key = m->old_root_key;
    }
    return rc;
}

static enum att_rc make_intermediate(struct making *m, struct att_err *err)
{
    char name[TITLE_ROOM];
    if (m->kind->root_only) {
        memcpy(m->ref, m->root_ref, sizeof m->ref);
        if (!X509_up_ref(m->root) || !EVP_PKEY_up_ref(m->root_key)) {
            return att_fail(err, ATT_E_NOMEM, "no memory");
        }
        m->ca = m->root;
        m->key = m->root_key;
        return ATT_OK;
    }
    enum att_rc rc = new_key(m, m->ref, &m->key, err);
    if (!rc) {
        title(m, "CA", m->key, name);
        rc = make_cert(m, INTERMEDIATE, m->key, name, m->root, m->root_key, &m->ca, err);
    }
    return rc;
}

/* The chain after a leaf: the intermediate (or the root that signs), and the new root under the old
 * one. */
static enum att_rc make_signed(struct making *m, struct att_err *err)
{
    att_autobuf cross = {0}, chain = {0}, root = {0};
    bool new_root = m->r->new_root || m->kind->root_only;
    enum att_rc rc = new_root ? make_root(m, &cross, err) : take_old_root(m, err);
    if (!rc) {
        rc = make_intermediate(m, err);
    }
    if (!rc) {
        rc = certs_pem_dump(m->ca, &chain, err);
    }
    if (!rc) {
        att_buf_put_slice(&chain, att_buf_slice(&cross));
        rc = certs_pem_dump(m->root, &root, err);
    }
    if (!rc && !(issuer_set(&m->row.state, STORE_AUTHORITY_PREPARED) &&
                 issuer_set(&m->row.chain, att_buf_cstr(&chain)) &&
                 issuer_set(&m->row.root, att_buf_cstr(&root)) && issuer_set(&m->row.csr, "") &&
                 issuer_set(&m->row.root_keyref, m->root_ref))) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    return rc;
}

static enum att_rc make_request(struct making *m, struct att_err *err)
{
    char name[TITLE_ROOM];
    att_autobuf der = {0}, pem = {0};
    enum att_rc rc = new_key(m, m->ref, &m->key, err);
    if (!rc) {
        title(m, "CA", m->key, name);
        const struct certs_authority_spec spec = {name,
                                                  m->workload ? issuer_of(m)->trust_domain : NULL};
        rc = certs_authority_csr(&spec, m->key, &der, err);
    }
    if (!rc) {
        rc = certs_pem_encode("CERTIFICATE REQUEST", att_buf_slice(&der), &pem, err);
    }
    if (!rc &&
        !(issuer_set(&m->row.state, STORE_AUTHORITY_REQUESTED) && issuer_set(&m->row.chain, "") &&
          issuer_set(&m->row.root, "") && issuer_set(&m->row.csr, att_buf_cstr(&pem)) &&
          issuer_set(&m->row.root_keyref, ""))) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    return rc;
}

/* ---- keeping ----------------------------------------------------------------------------------
 */

/* Looked at again: another issuer may have begun meanwhile. */
static enum att_rc keep(void *user, struct store_tx *tx, struct att_err *err)
{
    struct making *m = user;
    struct issuer_rotation_rows rows = {.kind = m->r->kind};
    enum att_rc rc = issuer_approval_holds(m->r->call, tx, err);
    if (!rc) {
        rc = issuer_rotate_rows(tx, &rows, err);
    }
    if (!rc) {
        rc = may_begin(m, tx, &rows, true, err);
    }
    if (!rc && !rows.active.id) {
        rc = m->first.id ? store_insert(tx, &store_authorities, &m->first, err)
                         : att_fail(err, ATT_E_INTERNAL, "the active authority is gone");
    }
    if (!rc) {
        rc = store_insert(tx, &store_authorities, &m->row, err);
    }
    if (!rc) {
        rc = issuer_rotate_note(m->r, tx, &m->row, m->r->csr ? "requested" : "prepared", err);
    }
    issuer_rotate_rows_done(&rows);
    return rc;
}

static enum att_rc make(struct making *m, struct att_err *err)
{
    char id[ISSUER_GENERATION_ID] = "";
    enum att_rc rc = m->r->csr ? make_request(m, err) : make_signed(m, err);
    if (!rc) {
        rc = issuer_generation_id(m->key, id, err);
    }
    m->row.created_at = m->r->call->now;
    if (!rc && !(issuer_set(&m->row.id, id) && issuer_set(&m->row.kind, m->r->kind) &&
                 issuer_set(&m->row.keyref, m->ref))) {
        rc = att_fail(err, ATT_E_NOMEM, "no memory");
    }
    return rc;
}

enum att_rc issuer_rotate_prepare(struct issuer_rotation *r, struct att_err *err)
{
    struct making m = {
        .r = r, .kind = issuer_kind_of(r->kind), .workload = strcmp(r->kind, "agent") == 0};
    struct store *store = r->call->issuer->store;
    enum att_rc rc = store_run(store, false, see, &m, err);
    if (!rc) {
        rc = make(&m, err);
    }
    if (!rc) {
        rc = store_run(store, true, keep, &m, err);
    }
    if (!rc) {
        json_object_set_new(r->call->result, "key", json_string(m.row.keyref));
        if (r->csr) {
            json_object_set_new(r->call->result, "csr", json_string(m.row.csr));
        }
        issuer_rotate_done(r);
    }
    making_done(&m);
    return rc;
}
