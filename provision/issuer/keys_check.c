/* Does what the store says fit what this issuer has? For `--check`, and at the start of one that
 * shares its store with others. */
#include "provision/issuer/jwt_internal.h"

#include "certs/bundle.h"
#include "certs/oid.h"
#include "provision/issuer/generations.h"
#include "provision/issuer/keys_check.h"
#include "provision/issuer/signer.h"

#include <stdio.h>
#include <string.h>

#define META "authorities.first" /* digests of those that `init` made */

static enum att_rc digests(const struct issuer_ca *ca, struct att_buf *ret, struct att_err *err)
{
    const X509 *const certs[] = {ca->workload_ca, ca->attest_ca, ca->tls_root};
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; !rc && i < sizeof certs / sizeof certs[0]; i++) {
        struct certs_cert_info info = {0};
        char hex[2 * ATT_SHA256_LEN + 1];
        rc = certs_cert_info(certs[i], &info, err);
        att_hex(hex, ATT_SLICE_ARRAY(info.sha256));
        att_buf_put_str(ret, rc ? "" : hex);
        att_buf_put_str(ret, "\n");
    }
    return rc ? rc : att_buf_ok(ret, err);
}

static enum att_rc check_first(struct issuer *issuer, struct store_tx *tx, bool put,
                               struct att_err *err)
{
    att_autobuf own = {0}, known = {0};
    enum att_rc rc = digests(issuer->ca, &own, err);
    if (rc) {
        return rc;
    }
    rc = store_meta_get(tx, META, &known, NULL);
    if (rc == ATT_E_NOTFOUND) {
        return put ? store_meta_set(tx, META, att_buf_slice(&own), err) : ATT_OK;
    }
    if (rc) {
        return att_fail(err, rc, "the store cannot be read");
    }
    return att_slice_eq(att_buf_slice(&own), att_buf_slice(&known))
               ? ATT_OK
               : issuer_refuse(err, ATT_E_CONFLICT, "caOther",
                               "state_dir/ca is another CA than that of the issuers of this store: "
                               "expected a copy of theirs");
}

enum att_rc issuer_first_check(void *user, struct store_tx *tx, struct att_err *err)
{
    return check_first(user, tx, true, err);
}

/* ---- every key that may sign ----------------------------------------------------------------- */

static enum att_rc try_authority(void *user, const void *record, struct att_err *err)
{
    struct issuer *issuer = user;
    const struct store_authority *row = record;
    certs_autostack *chain = NULL;
    certs_autokey *key = NULL;
    struct att_err why = {0};
    bool tls = strcmp(row->kind, "tls") == 0;
    bool ahead = strcmp(row->state, STORE_AUTHORITY_PREPARED) == 0 ||
                 strcmp(row->state, STORE_AUTHORITY_PUBLISHED) == 0;
    bool retired = strcmp(row->state, STORE_AUTHORITY_RETIRED) == 0;
    if (!row->chain[0] || retired || (tls && !ahead)) {
        return ATT_OK; /* as issuer_generations asks for keys */
    }
    enum att_rc rc = certs_pem_parse(att_slice_str(row->chain), &chain, &why);
    rc = rc ? rc
            : issuer_key_open(issuer->ca->hsm, issuer->state_dir, row->keyref,
                              sk_X509_value(chain, 0), &key, &why);
    rc = rc ? rc : issuer_key_try(key, &why);
    return rc ? issuer_refuse(err, ATT_E_CONFLICT, "caKeyMissing",
                              "the key of authority %.40s (%.20s) cannot be used here: %.200s",
                              row->id, row->state, why.msg)
              : ATT_OK;
}

/* Keys that signed before are only published. */
static enum att_rc try_tokens(struct issuer *issuer, struct store_tx *tx, struct att_err *err)
{
    struct jwt_rows rows = {.n = 0};
    int64_t now = issuer->clock();
    enum att_rc rc = jwt_rows_read(tx, &rows, err);
    const struct store_jwt_key *signing = rc ? NULL : jwt_rows_signing(&rows, now);
    for (size_t i = 0; !rc && i < rows.n; i++) {
        EVP_PKEY *key = NULL;
        struct att_err why = {0};
        if (&rows.v[i] < signing) {
            continue;
        }
        rc = jwt_key_open(issuer, &rows.v[i], &key, &why);
        rc = rc ? rc : issuer_key_try(key, &why);
        EVP_PKEY_free(key);
        if (rc) {
            rc = issuer_refuse(err, ATT_E_CONFLICT, "jwtKeyMissing", "%.380s", why.msg);
        }
    }
    jwt_rows_done(&rows);
    return rc;
}

enum att_rc issuer_keys_check(void *user, struct store_tx *tx, struct att_err *err)
{
    struct issuer *issuer = user;
    enum att_rc rc = check_first(issuer, tx, false, err);
    rc = rc ? rc : store_each(tx, &store_authorities, NULL, NULL, try_authority, issuer, err);
    return rc || !issuer->settings->conf->jwt ? rc : try_tokens(issuer, tx, err);
}
