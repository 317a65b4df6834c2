/* What others read of us, over TLS on a listener of its own: OpenID Connect Discovery 1.0 §4, a JWK
 * Set (RFC 7517 §5), and the SPIFFE bundle ("SPIFFE Trust Domain and Bundle" §4, profile
 * https_web). Nothing here is a secret, and nothing is asked of the client. */
#include "provision/issuer/jwt.h"

#include "attestd/base/io.h"
#include "attestd/web/plain.h"
#include "certs/bundle.h"
#include "certs/chain.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "certs/tls.h"
#include "provision/issuer/ca.h"
#include "provision/issuer/generations.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/obj_mac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BODY_MAX  ((size_t)1 << 20)
#define CACHE_S   60
#define HINT_S    30    /* spiffe_refresh_hint: half of the least that publish_wait can be */
#define LOOK_MS   10000 /* how often the files of a certificate are looked at */
#define CHAIN_MAX 65536
#define DER_MAX   8192
#define POINT_MAX 66     /* a coordinate on P-521 */
#define STALE_MS  900000 /* so long a document is given that cannot be made anew */
#define KINDS     3

/* ---- documents ------------------------------------------------------------------------------- */

static const char *path_of(const char *issuer)
{
    const char *host = strstr(issuer, "://");
    const char *path = host ? strchr(host + 3, '/') : NULL;
    return path ? path : "";
}

static json_t *discovery(const struct conf_jwt *conf)
{
    return json_pack("{s:s, s:o, s:s, s:[s], s:[s], s:[s], s:[s,s,s,s,s,s]}", "issuer",
                     conf->issuer, "jwks_uri", json_sprintf("%s/keys", conf->issuer),
                     "authorization_endpoint", "", "response_types_supported", "id_token",
                     "subject_types_supported", "public", "id_token_signing_alg_values_supported",
                     "ES256", "claims_supported", "iss", "sub", "aud", "exp", "iat", "jti");
}

struct reading {
    struct issuer *issuer;
    const char *use;
    json_t *keys;
    int64_t version;
};

/* The view's version grows with every change of a key or a root, and never shrinks. */
static enum att_rc read_keys(void *user, struct store_tx *tx, struct att_err *err)
{
    struct reading *r = user;
    att_autobuf version = {0};
    json_decref(r->keys);
    r->keys = NULL;
    enum att_rc rc = issuer_generations_check(r->issuer, tx, err);
    rc = rc ? rc : issuer_jwt_public(tx, r->use, &r->keys, err);
    rc = rc ? rc : store_meta_get(tx, "view_version", &version, err);
    if (!rc) {
        struct att_cur cur = att_cur_init(att_buf_slice(&version));
        r->version = (int64_t)att_cur_be64(&cur);
    }
    return rc;
}

static enum att_rc read_now(struct reading *r, struct att_err *err)
{
    enum att_rc rc = store_run(r->issuer->store, false, read_keys, r, err);
    if (rc == ATT_E_RETRY) {
        rc = issuer_generations_refresh(r->issuer, err);
        rc = rc ? rc : store_run(r->issuer->store, false, read_keys, r, err);
    }
    return rc;
}

static json_t *coordinate(const EVP_PKEY *key, const char *name, int len)
{
    BIGNUM *bn = NULL;
    uint8_t bytes[POINT_MAX];
    att_autobuf text = {0};
    bool ok = EVP_PKEY_get_bn_param(key, name, &bn) == 1 && BN_bn2binpad(bn, bytes, len) == len;
    BN_free(bn);
    if (ok) {
        att_buf_b64u(&text, (struct att_slice){bytes, (size_t)len});
    }
    return ok ? json_string(att_buf_cstr(&text)) : NULL;
}

/* RFC 7518 §6.2.1: what a root may be on and an account's key may not. NULL: it is neither. */
static json_t *wide_jwk(const EVP_PKEY *key)
{
    static const struct {
        const char *group, *crv;
        int len;
    } curves[] = {{SN_secp384r1, "P-384", 48}, {SN_secp521r1, "P-521", POINT_MAX}};
    char group[64] = "";
    size_t len = 0;
    if (EVP_PKEY_is_a(key, "EC") != 1 ||
        EVP_PKEY_get_group_name(key, group, sizeof group, &len) != 1) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof curves / sizeof curves[0]; i++) {
        if (strcmp(group, curves[i].group) == 0) {
            return json_pack("{s:s, s:s, s:o, s:o}", "kty", "EC", "crv", curves[i].crv, "x",
                             coordinate(key, OSSL_PKEY_PARAM_EC_PUB_X, curves[i].len), "y",
                             coordinate(key, OSSL_PKEY_PARAM_EC_PUB_Y, curves[i].len));
        }
    }
    return NULL;
}

static json_t *root_jwk(const X509 *root)
{
    att_autobuf spki = {0};
    json_t *jwk = NULL;
    const EVP_PKEY *key = X509_get0_pubkey(root);
    if (!key || certs_key_spki(key, &spki, NULL)) {
        return NULL;
    }
    return acme_spki_to_jwk(att_buf_slice(&spki), &jwk, NULL) ? wide_jwk(key) : jwk;
}

/* RFC 7517 §4.7: x5c is base64, not base64url. A root whose key cannot be written is left out, and
 * the others are not lost with it. */
enum att_rc issuer_jwt_add_root(const X509 *root, json_t *keys, struct att_err *err)
{
    att_autobuf der = ATT_BUF_INIT(DER_MAX);
    unsigned char text[DER_MAX * 2];
    struct att_err why = {0};
    att_autojson *jwk = root_jwk(root);
    if (!jwk || certs_cert_der(root, &der, &why)) {
        char name[128] = "";
        (void)X509_NAME_oneline(X509_get_subject_name(root), name, sizeof name);
        att_log(ATT_WARN, "jwt.rootLeftOut", ATT_S("root", name),
                ATT_S("expected", "RSA of 2048 to 4096 bits, or P-256, P-384, P-521"));
        return ATT_OK;
    }
    (void)EVP_EncodeBlock(text, der.ptr, (int)der.len);
    json_object_set_new(jwk, "use", json_string("x509-svid"));
    json_object_set_new(jwk, "x5c", json_pack("[s]", (const char *)text));
    return json_array_append(keys, jwk) == 0 ? ATT_OK
                                             : att_fail(err, ATT_E_NOMEM, "bundle: no memory");
}

static enum att_rc bundle(struct issuer *issuer, json_t **ret_json, struct att_err *err)
{
    struct reading r = {.issuer = issuer, .use = "jwt-svid"};
    certs_autostack *roots = NULL;
    att_autojson *keys = json_array();
    enum att_rc rc = read_now(&r, err);
    if (!rc) {
        rc = certs_bundle_parse(att_slice_str(issuer_generations_now(issuer)->bundle), &roots, err);
    }
    for (int i = 0; !rc && i < sk_X509_num(roots); i++) {
        rc = issuer_jwt_add_root(sk_X509_value(roots, i), keys, err);
    }
    if (!rc && json_array_extend(keys, r.keys) != 0) {
        rc = att_fail(err, ATT_E_NOMEM, "bundle: no memory");
    }
    json_decref(r.keys);
    if (!rc) {
        *ret_json = json_pack("{s:O, s:I, s:i}", "keys", keys, "spiffe_sequence",
                              (json_int_t)r.version, "spiffe_refresh_hint", HINT_S);
    }
    return rc;
}

static enum att_rc key_set(struct issuer *issuer, json_t **ret_json, struct att_err *err)
{
    struct reading r = {.issuer = issuer, .use = "sig"};
    enum att_rc rc = read_now(&r, err);
    if (!rc) {
        *ret_json = json_pack("{s:o}", "keys", r.keys);
    }
    return rc;
}

enum att_rc issuer_jwt_document(struct issuer *issuer, const char *path, struct att_buf *ret_body,
                                struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    const struct conf_jwt *conf = settings->conf->jwt;
    const char *prefix = conf ? path_of(conf->issuer) : "";
    size_t len = strlen(prefix);
    att_autojson *json = NULL;
    enum att_rc rc = ATT_OK;
    if (!conf || !issuer->jwt || strncmp(path, prefix, len) != 0) {
        return att_fail(err, ATT_E_NOTFOUND, "%.80s: no such document", path);
    }
    path += len;
    if (strcmp(path, "/.well-known/openid-configuration") == 0) {
        json = discovery(conf);
    } else if (strcmp(path, "/keys") == 0) {
        rc = key_set(issuer, &json, err);
    } else if (strcmp(path, "/bundle") == 0) {
        rc = bundle(issuer, &json, err);
    } else {
        return att_fail(err, ATT_E_NOTFOUND, "%.80s: no such document", path);
    }
    if (!rc && !json) {
        rc = att_fail(err, ATT_E_NOMEM, "%.80s: no memory", path);
    }
    return rc ? rc : att_json_dump(json, false, ret_body, err);
}

/* ---- the listener ---------------------------------------------------------------------------- */

/* All but `web` belongs to the listener's thread once it runs. */
struct issuer_jwt_server {
    struct issuer *issuer;
    struct web_plain *web;
    char *cert_file, *key_file; /* NULL: the certificate of ACME's endpoint */
    SSL_CTX *own;
    struct timespec seen[2];
    int64_t look_ms;
    struct {
        char path[256];
        struct att_buf body;
        int64_t at_ms;
    } last[KINDS]; /* what was given of each document */
};

static void keep_last(struct issuer_jwt_server *server, const char *path,
                      const struct att_buf *body)
{
    size_t at = 0;
    while (at < KINDS - 1 && server->last[at].path[0] && strcmp(server->last[at].path, path) != 0) {
        at++;
    }
    if (strlen(path) < sizeof server->last[at].path) {
        snprintf(server->last[at].path, sizeof server->last[at].path, "%s", path);
        att_buf_reset(&server->last[at].body);
        att_buf_put_slice(&server->last[at].body, att_buf_slice(body));
        server->last[at].at_ms = att_boottime_ms();
    }
}

/* Keys change by the month; that the database is away is no reason to believe nobody. */
static bool give_last(const struct issuer_jwt_server *server, const char *path,
                      struct att_buf *ret_body)
{
    for (size_t i = 0; i < KINDS; i++) {
        if (server->last[i].path[0] && strcmp(server->last[i].path, path) == 0 &&
            !server->last[i].body.failed && server->last[i].at_ms + STALE_MS > att_boottime_ms()) {
            att_buf_put_slice(ret_body, att_buf_slice(&server->last[i].body));
            return !ret_body->failed;
        }
    }
    return false;
}

static void send_document(void *user, const struct web_request *request, struct web_answer *ret)
{
    struct issuer_jwt_server *server = user;
    struct att_err err = {0};
    ret->body = ATT_BUF_INIT(BODY_MAX);
    enum att_rc rc = issuer_jwt_document(server->issuer, request->path, &ret->body, &err);
    if (rc == ATT_E_NOTFOUND) {
        return; /* 404 */
    }
    if (rc) {
        att_log_err(ATT_ERROR, "jwt.document", &err);
        att_buf_reset(&ret->body);
        if (!give_last(server, request->path, &ret->body)) {
            att_buf_reset(&ret->body);
            ret->status = "503 Service Unavailable";
            snprintf(ret->headers, sizeof ret->headers, "Retry-After: 5\r\n");
            return;
        }
    } else {
        keep_last(server, request->path, &ret->body);
    }
    ret->status = "200 OK";
    snprintf(ret->headers, sizeof ret->headers,
             "Content-Type: application/json\r\nCache-Control: max-age=%d\r\n", CACHE_S);
}

static enum att_rc load_own(struct issuer_jwt_server *server, struct att_err *err)
{
    att_autobuf pem = ATT_BUF_INIT(CHAIN_MAX);
    certs_autostack *chain = NULL;
    certs_autokey *key = NULL;
    SSL_CTX *fresh = NULL;
    enum att_rc rc = att_io_read_file(server->cert_file, CHAIN_MAX, &pem, err);
    rc = rc ? rc : certs_pem_parse(att_buf_slice(&pem), &chain, err);
    rc = rc ? rc : certs_key_load(server->key_file, &key, err);
    rc = rc ? rc : certs_tls_server_new(chain, key, &fresh, err);
    if (rc) {
        att_err_prefix(err, "jwt.cert_file %s", server->cert_file);
        return rc;
    }
    SSL_CTX_free(server->own);
    server->own = fresh;
    return ATT_OK;
}

static bool files_changed(struct issuer_jwt_server *server)
{
    const char *const files[] = {server->cert_file, server->key_file};
    bool changed = false;
    for (size_t i = 0; i < 2; i++) {
        struct stat st;
        if (stat(files[i], &st) == 0 && (st.st_mtim.tv_sec != server->seen[i].tv_sec ||
                                         st.st_mtim.tv_nsec != server->seen[i].tv_nsec)) {
            server->seen[i] = st.st_mtim;
            changed = true;
        }
    }
    return changed;
}

/* An operator's certificate that was renewed is taken into use by itself; one that is no good (half
 * of a pair that is being replaced) leaves the one before. */
static SSL_CTX *context(void *user)
{
    struct issuer_jwt_server *server = user;
    SSL_CTX *ctx = NULL;
    if (!server->cert_file) {
        issuer_autoendpoints *endpoints = issuer_endpoints_get(server->issuer->ca);
        ctx = endpoints->ssl;
        return ctx && SSL_CTX_up_ref(ctx) == 1 ? ctx : NULL;
    }
    int64_t now_ms = att_boottime_ms();
    struct att_err err = {0};
    if (now_ms >= server->look_ms) {
        server->look_ms = now_ms + LOOK_MS;
        if (files_changed(server) && load_own(server, &err)) {
            att_log_err(ATT_ERROR, "jwt.certificate", &err);
            server->seen[0].tv_sec = -1; /* looked at again */
        }
    }
    ctx = server->own;
    return ctx && SSL_CTX_up_ref(ctx) == 1 ? ctx : NULL;
}

static enum att_rc start(struct issuer_jwt_server *server, const struct conf_jwt *conf,
                         struct att_err *err)
{
    if (conf->cert_file) {
        if (!issuer_set(&server->cert_file, conf->cert_file) ||
            !issuer_set(&server->key_file, conf->key_file)) {
            return att_fail(err, ATT_E_NOMEM, "jwt.listen: no memory");
        }
        (void)files_changed(server);
        enum att_rc rc = load_own(server, err);
        if (rc) {
            return rc;
        }
    }
    const struct web_opts opts = {.what = "jwt.listen",
                                  .host = conf->listen_host,
                                  .port = conf->listen_port,
                                  .handler = send_document,
                                  .tls = context,
                                  .user = server};
    return web_plain_new(&opts, &server->web, err);
}

enum att_rc issuer_jwt_server_new(struct issuer *issuer, struct issuer_jwt_server **ret_server,
                                  struct att_err *err)
{
    issuer_autosettings *settings = issuer_settings_get(issuer);
    const struct conf_jwt *conf = settings->conf->jwt;
    *ret_server = NULL;
    if (!conf || !conf->listen || !issuer->jwt) {
        return ATT_OK;
    }
    struct issuer_jwt_server *server = calloc(1, sizeof *server);
    if (!server) {
        return att_fail(err, ATT_E_NOMEM, "jwt.listen: no memory");
    }
    server->issuer = issuer;
    enum att_rc rc = start(server, conf, err);
    if (rc) {
        issuer_jwt_server_free(server);
        return rc;
    }
    *ret_server = server;
    att_log(ATT_INFO, "jwt.listening", ATT_S("listen", conf->listen),
            ATT_N("port", web_plain_port(server->web)), ATT_S("issuer", conf->issuer));
    return ATT_OK;
}

void issuer_jwt_server_free(struct issuer_jwt_server *server)
{
    if (server) {
        web_plain_free(server->web);
        SSL_CTX_free(server->own);
        free(server->cert_file);
        free(server->key_file);
        for (size_t i = 0; i < KINDS; i++) {
            att_buf_done(&server->last[i].body);
        }
        free(server);
    }
}

uint16_t issuer_jwt_server_port(const struct issuer_jwt_server *server)
{
    return server ? web_plain_port(server->web) : 0;
}
