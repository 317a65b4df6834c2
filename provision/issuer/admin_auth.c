#include "provision/issuer/admin_auth.h"

#include "certs/bundle.h"
#include "certs/oid.h"
#include "certs/san.h"
#include "provision/issuer/admin_certs.h"
#include "provision/oidc/provider.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct issuer_admin_auth {
    const struct conf_admin *conf; /* the settings', who own this */
    struct issuer_client_ca *ca;   /* NULL: none */
    struct oidc_provider *oidc[CONF_ADMIN_LIST_MAX];
    unsigned n_oidc;
};

enum att_rc issuer_admin_auth_new(const struct conf_issuer *conf,
                                  struct issuer_admin_auth **ret_auth, struct att_err *err)
{
    const struct conf_admin *admin = conf->admin;
    *ret_auth = NULL;
    if (!admin || !admin->listen) {
        return ATT_OK;
    }
    struct issuer_admin_auth *auth = calloc(1, sizeof *auth);
    enum att_rc rc = auth ? ATT_OK : att_fail(err, ATT_E_NOMEM, "admin: no memory");
    if (!rc && admin->client_ca_file) {
        rc = issuer_client_ca_new(admin->client_ca_file,
                                  admin->no_crl ? NULL : admin->client_crl_file, &auth->ca, err);
        if (rc) {
            att_err_prefix(err, "admin.client_ca_file");
        }
    }
    for (unsigned i = 0; !rc && i < admin->n_oidc; i++) {
        const struct conf_admin_oidc *o = &admin->oidc[i];
        rc = oidc_provider_new(&(struct oidc_provider_config){.issuer = o->issuer,
                                                              .jwks_file = o->jwks_file,
                                                              .ca_file = o->ca_file},
                               &auth->oidc[i], err);
        auth->n_oidc += !rc;
        if (rc) {
            att_err_prefix(err, "admin.oidc[%u]", i);
        }
    }
    if (rc) {
        issuer_admin_auth_free(auth);
        return rc;
    }
    auth->conf = admin;
    *ret_auth = auth;
    return ATT_OK;
}

void issuer_admin_auth_free(struct issuer_admin_auth *auth)
{
    if (!auth) {
        return;
    }
    for (unsigned i = 0; i < auth->n_oidc; i++) {
        oidc_provider_free(auth->oidc[i]);
    }
    issuer_client_ca_free(auth->ca);
    free(auth);
}

void issuer_admin_auth_start(struct issuer_admin_auth *auth)
{
    for (unsigned i = 0; auth && i < auth->n_oidc; i++) {
        oidc_provider_start(auth->oidc[i]);
    }
}

/* ---- certificates ---------------------------------------------------------------------------- */

/* The CA named in the configuration may not speak for this trust domain. */
static enum att_rc name_client(const struct issuer *issuer, const X509 *cert, struct att_buf *ret,
                               struct att_err *err)
{
    struct certs_spiffe_id id;
    if (certs_san_spiffe(cert, ret, NULL) == ATT_OK) {
        enum att_rc rc = certs_spiffe_parse(att_buf_slice(ret), &id, err);
        if (!rc && att_slice_eq_str(id.trust_domain, issuer->trust_domain)) {
            rc = issuer_refuse(err, ATT_E_AUTH, "certName",
                               "the certificate names %s, for which only this issuer's own CA "
                               "speaks",
                               issuer->trust_domain);
        }
        return rc;
    }
    att_buf_reset(ret);
    return issuer_client_subject(cert, ret, err);
}

/* Does it say that it is an agent's of this trust domain? For whose words a refusal is told in. */
static bool is_ours(const struct issuer *issuer, const X509 *cert)
{
    att_autobuf text = {0};
    struct certs_spiffe_id id;
    return certs_san_spiffe(cert, &text, NULL) == ATT_OK &&
           certs_spiffe_parse(att_buf_slice(&text), &id, NULL) == ATT_OK &&
           att_slice_eq_str(id.trust_domain, issuer->trust_domain);
}

/* Which of the two CAs it is of, its path to it says. */
static enum att_rc by_certificate(struct issuer *issuer, const struct issuer_admin_auth *auth,
                                  const struct issuer_credential *c, struct att_buf *ret_id,
                                  struct att_err *err)
{
    struct att_err why = {0}, agent = {0};
    enum att_rc rc = issuer_refuse(&why, ATT_E_AUTH, "certUntrusted",
                                   "no CA of clients' certificates is configured");
    if (auth->ca) {
        att_err_clear(&why);
        rc = issuer_client_ca_verify(auth->ca, c->cert, c->sent, issuer->clock(), &why);
        if (!rc) {
            return name_client(issuer, c->cert, ret_id, err);
        }
    }
    bool foreign = strcmp(why.reason, "certUntrusted") == 0;
    if (foreign && auth->conf->agents) {
        rc = issuer_client_agent_verify(issuer, c->cert, c->sent, ret_id, &agent);
        why = is_ours(issuer, c->cert) || !auth->ca ? agent : why;
    }
    if (rc && err) {
        *err = why;
    }
    return rc;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static unsigned algs_of(const struct conf_admin_oidc *o)
{
    unsigned algs = o->n_algs ? 0 : (unsigned)(OIDC_ES256 | OIDC_RS256);
    for (unsigned i = 0; i < o->n_algs; i++) {
        algs |= oidc_alg_parse(o->algs[i]);
    }
    return algs;
}

static enum att_rc check_token(const struct conf_admin_oidc *o, struct oidc_provider *provider,
                               const struct oidc_jwt *jwt, int64_t now, struct att_buf *ret_id,
                               struct att_err *err)
{
    EVP_PKEY *key = NULL;
    const char *sub = NULL;
    if (!(algs_of(o) & (unsigned)jwt->alg)) {
        return issuer_refuse(err, ATT_E_AUTH, "tokenAlg",
                             "token: its alg is not one that is configured for %.200s", o->issuer);
    }
    enum att_rc rc = oidc_provider_key(provider, jwt->kid, jwt->alg, &key, err);
    rc = rc ? rc : oidc_jwt_verify(jwt, key, err);
    EVP_PKEY_free(key);
    const struct oidc_expect expect = {o->issuer,         o->audience, o->leeway_s,
                                       o->max_lifetime_s, o->claims,   o->n_claims};
    rc = rc ? rc : oidc_jwt_check(jwt, &expect, now, &sub, err);
    if (rc) {
        return rc;
    }
    att_buf_printf(ret_id, "oidc:%s#%s", o->issuer, sub);
    return att_buf_ok(ret_id, err);
}

static enum att_rc by_token(struct issuer *issuer, const struct issuer_admin_auth *auth,
                            const char *text, struct att_buf *ret_id, struct att_err *err)
{
    struct oidc_jwt jwt;
    enum att_rc rc = oidc_jwt_parse(att_slice_str(text), &jwt, err);
    if (rc) {
        return rc;
    }
    rc = ATT_E_AUTH;
    unsigned i = 0;
    while (i < auth->n_oidc && strcmp(auth->conf->oidc[i].issuer, oidc_jwt_issuer(&jwt)) != 0) {
        i++;
    }
    rc = i < auth->n_oidc
             ? check_token(&auth->conf->oidc[i], auth->oidc[i], &jwt, issuer->clock(), ret_id, err)
             : issuer_refuse(err, ATT_E_AUTH, "tokenIssuer",
                             "token: its iss is no issuer that is configured");
    oidc_jwt_done(&jwt);
    return rc;
}

/* RFC 6750 §2.1 */
static const char *bearer(const char *header)
{
    static const char scheme[] = "Bearer ";
    if (strncasecmp(header, scheme, sizeof scheme - 1) != 0) {
        return NULL;
    }
    header += sizeof scheme - 1;
    return header + strspn(header, " ");
}

enum att_rc issuer_admin_authenticate(struct issuer *issuer, struct issuer_settings *settings,
                                      const struct issuer_credential *c, struct issuer_who *ret_who,
                                      struct att_err *err)
{
    const struct issuer_admin_auth *auth = settings->admin;
    const char *token = c->authorization ? bearer(c->authorization) : NULL;
    att_autobuf id = ATT_BUF_INIT(ISSUER_WHO_MAX);
    *ret_who = (struct issuer_who){.remote = true, .uid = -1};
    snprintf(ret_who->peer, sizeof ret_who->peer, "%s", c->peer ? c->peer : "");
    enum att_rc rc;
    if (!auth) {
        rc = issuer_refuse(err, ATT_E_AUTH, "certUntrusted", "nobody is known here");
    } else if (c->authorization && c->cert) {
        rc = issuer_refuse(err, ATT_E_AUTH, "credentials",
                           "a certificate and a token: expected one of them");
    } else if (c->authorization && !token) {
        rc = issuer_refuse(err, ATT_E_AUTH, "tokenForm", "Authorization: expected Bearer TOKEN");
    } else if (token) {
        rc = by_token(issuer, auth, token, &id, err);
    } else if (c->cert) {
        rc = by_certificate(issuer, auth, c, &id, err);
    } else {
        rc = issuer_refuse(err, ATT_E_AUTH, "certMissing",
                           "neither a client certificate nor a token came with the request");
    }
    const char *text = rc ? NULL : att_buf_cstr(&id);
    if (!rc && !text) {
        rc = att_fail(err, ATT_E_LIMIT, "the caller's name is too long");
    }
    return rc ? rc : issuer_who_remote(ret_who, settings->conf->admin, text, c->peer, err);
}
