/* What is renewed while we serve: the TLS certificate and the signer of host views. Nothing waits
 * for it: connections keep the context that they began with, new ones get the new one, and hosts
 * pin the root. */
#include "provision/issuer/ca_files.h"
#include "provision/issuer/tls_root.h"

#include "attestd/base/io.h"
#include "certs/key.h"
#include "certs/oid.h"

#include <errno.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DAY_S            ((int64_t)86400)
#define ENDPOINT_S       (397 * DAY_S)
#define SERVER_NAMES_MAX 3
#define PAUSE_LEAST_MS   ((int64_t)60000)
#define PAUSE_MOST_MS    ((int64_t)3600000)
#define WARN_PERIOD_MS   (DAY_S * 1000)

/* ---- counting
 * ------------------------------------------------------------------------------------------------
 */

static void endpoints_free(struct issuer_endpoints *e)
{
    if (e) {
        X509_free(e->tls);
        X509_free(e->view);
        EVP_PKEY_free(e->tls_key);
        EVP_PKEY_free(e->view_key);
        EVP_PKEY_free(e->view_before);
        SSL_CTX_free(e->ssl);
        att_buf_done(&e->view_der);
        X509_free(e->root);
        certs_stack_cleanup(&e->also);
        for (size_t i = 0; i < e->n_roots; i++) {
            att_buf_done(&e->root_der[i]);
        }
        free(e);
    }
}

struct issuer_endpoints *issuer_endpoints_get(struct issuer_ca *ca)
{
    pthread_mutex_lock(&ca->lock);
    struct issuer_endpoints *e = ca->endpoints;
    atomic_fetch_add(&e->refs, 1);
    pthread_mutex_unlock(&ca->lock);
    return e;
}

void issuer_endpoints_put(struct issuer_endpoints *endpoints)
{
    if (endpoints && atomic_fetch_sub(&endpoints->refs, 1) == 1) {
        endpoints_free(endpoints);
    }
}

void issuer_endpoints_cleanup(struct issuer_endpoints **endpoints)
{
    issuer_endpoints_put(*endpoints);
    *endpoints = NULL;
}

/* ---- making
 * ------------------------------------------------------------------------------------------------
 */

/* Host names and addresses that the TLS certificate must stand for. */
static size_t server_names(const struct conf_issuer *conf, char url_host[256],
                           const char *names[SERVER_NAMES_MAX])
{
    const char *start = strstr(conf->url, "://");
    start = start ? start + 3 : conf->url;
    size_t len = *start == '[' ? strcspn(++start, "]") : strcspn(start, ":/");
    snprintf(url_host, 256, "%.*s", (int)(len < 255 ? len : 255), start);
    size_t n = 0;
    names[n++] = url_host;
    if (strcmp(conf->listen_host, url_host) != 0 && strcmp(conf->listen_host, "0.0.0.0") != 0 &&
        strcmp(conf->listen_host, "::") != 0) {
        names[n++] = conf->listen_host;
    }
    return n;
}

/* Not beyond the root's end: towards it, certificates get shorter. */
static enum att_rc endpoint_tbs(const struct conf_issuer *conf, bool tls, const X509 *ca,
                                struct att_slice spki, int64_t now, struct att_buf *ret_tbs,
                                struct att_err *err)
{
    uint8_t digest[ATT_SHA256_LEN], serial[CERTS_SERIAL_LEN];
    char url_host[256];
    const char *names[SERVER_NAMES_MAX];
    size_t n_names = server_names(conf, url_host, names);
    struct certs_validity validity = certs_validity_from(now, ENDPOINT_S);
    int64_t end = issuer_ca_end(ca);
    validity.not_after = end < validity.not_after ? end : validity.not_after;
    enum att_rc rc = certs_serial_new(serial, err);
    if (rc) {
        return rc;
    }
    if (tls) {
        struct certs_server_spec spec = {
            .validity = validity, .spki = spki, .names = names, .n_names = n_names};
        memcpy(spec.serial, serial, sizeof serial);
        return certs_server_tbs(&spec, ca, ret_tbs, digest, err);
    }
    struct certs_signer_spec spec = {
        .validity = validity, .spki = spki, .common_name = "attestd host view signer"};
    memcpy(spec.serial, serial, sizeof serial);
    return certs_view_signer_tbs(&spec, ca, ret_tbs, digest, err);
}

static enum att_rc move(const char *state_dir, const char *from, const char *to,
                        struct att_err *err)
{
    char old[ISSUER_CA_PATH], new[ISSUER_CA_PATH];
    issuer_ca_path(old, state_dir, from);
    issuer_ca_path(new, state_dir, to);
    return rename(old, new) == 0 ? ATT_OK : att_fail_errno(err, ATT_E_IO, "rename %s", old);
}

static void files_of(bool tls, const char *ret_names[4])
{
    static const char *const all[2][4] = {{"view.key", "view.crt", "view.key.new", "view.crt.new"},
                                          {"tls.key", "tls.crt", "tls.key.new", "tls.crt.new"}};
    for (size_t i = 0; i < 4; i++) {
        ret_names[i] = all[tls ? 1 : 0][i];
    }
}

static enum att_rc write_cert(const char *state_dir, const char *file, const X509 *cert,
                              struct att_err *err)
{
    char path[ISSUER_CA_PATH];
    issuer_ca_path(path, state_dir, file);
    att_autobuf pem = {0};
    enum att_rc rc = certs_pem_dump(cert, &pem, err);
    return rc ? rc : att_io_write_file(path, att_buf_slice(&pem), 0644, err);
}

/* audit.head is signed by the view signer: until it is written anew, the one before counts, too. */
static enum att_rc keep_signer(const char *state_dir, struct att_err *err)
{
    certs_autox509 *now = NULL;
    if (issuer_ca_load_cert(state_dir, "view.crt", &now, NULL)) {
        return ATT_OK; /* the first one, or one that can vouch for nothing */
    }
    return write_cert(state_dir, "view.before.crt", now, err);
}

/* A crash between the two renames leaves the new key with the old certificate: finish_move. */
static enum att_rc put_in_place(const char *state_dir, bool tls, EVP_PKEY *key, const X509 *cert,
                                struct att_err *err)
{
    const char *names[4];
    char path[ISSUER_CA_PATH];
    files_of(tls, names);
    issuer_ca_path(path, state_dir, names[2]);
    enum att_rc rc = certs_key_save(key, path, err);
    if (!rc) {
        rc = write_cert(state_dir, names[3], cert, err);
    }
    if (!rc && !tls) {
        rc = keep_signer(state_dir, err);
    }
    if (!rc) {
        rc = move(state_dir, names[2], names[0], err);
    }
    return rc ? rc : move(state_dir, names[3], names[1], err);
}

enum att_rc issuer_endpoint_make(const char *state_dir, const struct conf_issuer *conf, bool tls,
                                 const X509 *ca, EVP_PKEY *ca_key, int64_t now, struct att_err *err)
{
    certs_autokey *key = NULL;
    certs_autox509 *cert = NULL;
    att_autobuf spki = {0}, tbs = {0}, der = {0};
    enum att_rc rc = certs_key_generate(&key, err);
    if (!rc) {
        rc = certs_key_spki(key, &spki, err);
    }
    if (!rc) {
        rc = endpoint_tbs(conf, tls, ca, att_buf_slice(&spki), now, &tbs, err);
    }
    if (!rc) {
        rc = certs_tbs_sign(att_buf_slice(&tbs), ca_key, &der, err);
    }
    if (!rc) {
        rc = certs_cert_parse(att_buf_slice(&der), &cert, err);
    }
    return rc ? rc : put_in_place(state_dir, tls, key, cert, err);
}

/* ---- judging what is there
 * -----------------------------------------------------------------------------------
 */

int64_t issuer_endpoint_renew_at(const X509 *cert)
{
    struct certs_cert_info info;
    return certs_cert_info(cert, &info, NULL)
               ? 0
               : info.not_before + (info.not_after - info.not_before) / 3 * 2;
}

/* Due at two thirds of its life, unless a new one could not last longer; and when the clock was
 * wrong at its making. */
static bool due(const X509 *cert, int64_t root_end, int64_t now)
{
    struct certs_cert_info info;
    if (certs_cert_info(cert, &info, NULL)) {
        return true;
    }
    return info.not_before > now || (now >= issuer_endpoint_renew_at(cert) &&
                                     (info.not_after < root_end || info.not_after <= now));
}

static bool has_names(X509 *cert, const struct conf_issuer *conf)
{
    char url_host[256];
    const char *names[SERVER_NAMES_MAX];
    size_t n = server_names(conf, url_host, names);
    for (size_t i = 0; i < n; i++) {
        if (X509_check_ip_asc(cert, names[i], 0) != 1 &&
            X509_check_host(cert, names[i], strlen(names[i]), 0, NULL) != 1) {
            return false;
        }
    }
    return true;
}

/* Completes the second rename of put_in_place, where a crash left it. */
static void finish_move(const char *state_dir, bool tls)
{
    const char *names[4];
    char path[ISSUER_CA_PATH];
    certs_autox509 *cert = NULL;
    certs_autokey *key = NULL;
    files_of(tls, names);
    issuer_ca_path(path, state_dir, names[0]);
    if (issuer_ca_load_cert(state_dir, names[3], &cert, NULL) == ATT_OK &&
        certs_key_load(path, &key, NULL) == ATT_OK &&
        certs_cert_matches_key(cert, key, NULL) == ATT_OK) {
        (void)!move(state_dir, names[3], names[1], NULL);
    }
}

static bool issued_by(X509 *root, X509 *cert)
{
    return X509_check_issued(root, cert) == X509_V_OK &&
           X509_verify(cert, X509_get0_pubkey(root)) == 1;
}

/* Whether an endpoint's pair is there, matches, is this root's, lasts, and stands for the names. */
static bool endpoint_good(X509 *root, const struct conf_issuer *conf, bool tls, int64_t now)
{
    certs_autox509 *cert = NULL;
    certs_autokey *key = NULL;
    finish_move(conf->state_dir, tls);
    return issuer_ca_load_pair(conf->state_dir, tls ? "tls" : "view", &cert, &key, NULL) ==
               ATT_OK &&
           issued_by(root, cert) && !due(cert, issuer_ca_end(root), now) &&
           (!tls || has_names(cert, conf));
}

static enum att_rc make_due(const struct issuer_ca *ca, const struct conf_issuer *conf, int64_t now,
                            struct att_err *err)
{
    issuer_autotlsroot now_used = {0};
    certs_autokey *key = NULL;
    enum att_rc rc = issuer_tls_root_load(conf->state_dir, &now_used, err);
    if (rc) {
        return rc;
    }
    bool tls = !conf->tls && !endpoint_good(now_used.root, conf, true, now);
    bool view = !endpoint_good(now_used.root, conf, false, now);
    if (!tls && !view) {
        return ATT_OK;
    }
    rc = issuer_key_open(ca->hsm, conf->state_dir, now_used.keyref, now_used.root, &key, err);
    if (!rc && tls) {
        rc = issuer_endpoint_make(conf->state_dir, conf, true, now_used.root, key, now, err);
    }
    if (!rc && view) {
        rc = issuer_endpoint_make(conf->state_dir, conf, false, now_used.root, key, now, err);
    }
    return rc;
}

/* ---- loading
 * ------------------------------------------------------------------------------------------------
 */

static enum att_rc push(STACK_OF(X509) * chain, X509 *cert, struct att_err *err)
{
    if (!chain || !X509_up_ref(cert)) {
        return att_fail(err, ATT_E_NOMEM, "TLS chain: no memory");
    }
    if (!sk_X509_push(chain, cert)) {
        X509_free(cert);
        return att_fail(err, ATT_E_NOMEM, "TLS chain: no memory");
    }
    return ATT_OK;
}

static enum att_rc own_chain(struct issuer_endpoints *e, const char *state_dir,
                             STACK_OF(X509) * *ret_chain, struct att_err *err)
{
    enum att_rc rc = issuer_ca_load_pair(state_dir, "tls", &e->tls, &e->tls_key, err);
    if (rc) {
        return rc;
    }
    /* The root goes along: hosts that pin it by digest must see it. What leads to the root before
     * comes first, so that who has that one only does not end at the new one. */
    certs_autostack *chain = sk_X509_new_null();
    rc = push(chain, e->tls, err);
    for (int i = 0; !rc && e->also && i < sk_X509_num(e->also); i++) {
        rc = push(chain, sk_X509_value(e->also, i), err);
    }
    if (!rc) {
        rc = push(chain, e->root, err);
    }
    if (!rc) {
        *ret_chain = chain;
        chain = NULL;
    }
    return rc;
}

static enum att_rc given_chain(struct issuer_endpoints *e, const struct conf_issuer_tls *tls,
                               STACK_OF(X509) * *ret_chain, struct att_err *err)
{
    att_autobuf pem = {0};
    enum att_rc rc = att_io_read_file(tls->cert_file, CERTS_CHAIN_MAX_LEN, &pem, err);
    if (!rc) {
        rc = certs_pem_parse(att_buf_slice(&pem), ret_chain, err);
    }
    if (rc) {
        att_err_prefix(err, "tls.cert_file %s", tls->cert_file);
        return rc;
    }
    X509 *leaf = sk_X509_value(*ret_chain, 0);
    X509_up_ref(leaf);
    e->tls = leaf;
    return certs_key_load(tls->key_file, &e->tls_key, err);
}

static enum att_rc load_tls(struct issuer_endpoints *e, const struct conf_issuer *conf,
                            struct att_err *err)
{
    certs_autostack *chain = NULL;
    e->given = conf->tls != NULL;
    enum att_rc rc = conf->tls ? given_chain(e, conf->tls, &chain, err)
                               : own_chain(e, conf->state_dir, &chain, err);
    if (rc) {
        return rc;
    }
    /* Tickets pin the last certificate of what is sent: ours is our own root. */
    uint8_t digest[ATT_SHA256_LEN];
    X509 *last = sk_X509_value(chain, sk_X509_num(chain) - 1);
    rc = certs_cert_sha256(last, digest, err);
    if (!rc) {
        att_hex(e->ca_sha256, ATT_SLICE_ARRAY(digest));
        rc = certs_tls_server_new(chain, e->tls_key, &e->ssl, err);
    }
    return rc;
}

static void load_signer_before(struct issuer_endpoints *e, const char *state_dir)
{
    certs_autox509 *before = NULL;
    if (issuer_ca_load_cert(state_dir, "view.before.crt", &before, NULL) == ATT_OK) {
        e->view_before = X509_get_pubkey(before);
    }
}

static enum att_rc add_der(struct issuer_endpoints *e, const X509 *cert, struct att_err *err)
{
    return e->n_roots == ISSUER_TLS_CHAIN_MAX
               ? att_fail(err, ATT_E_LIMIT, "tls-root.json: too many certificates")
               : certs_cert_der(cert, &e->root_der[e->n_roots++], err);
}

static enum att_rc load_root(struct issuer_endpoints *e, const char *state_dir, struct att_err *err)
{
    issuer_autotlsroot root = {0};
    enum att_rc rc = issuer_tls_root_load(state_dir, &root, err);
    for (int i = 0; !rc && root.also && i < sk_X509_num(root.also); i++) {
        rc = add_der(e, sk_X509_value(root.also, i), err);
    }
    if (!rc) {
        rc = add_der(e, root.root, err);
    }
    if (!rc) {
        e->root = root.root;
        e->also = root.also;
        memcpy(e->root_ref, root.keyref, sizeof e->root_ref);
        root = (struct issuer_tls_root){0};
    }
    return rc;
}

static enum att_rc load_endpoints(const struct conf_issuer *conf, struct issuer_endpoints **ret,
                                  struct att_err *err)
{
    struct issuer_endpoints *e = calloc(1, sizeof *e);
    if (!e) {
        return att_fail(err, ATT_E_NOMEM, "CA: no memory");
    }
    atomic_init(&e->refs, 1);
    enum att_rc rc = load_root(e, conf->state_dir, err);
    if (!rc) {
        rc = issuer_ca_load_pair(conf->state_dir, "view", &e->view, &e->view_key, err);
    }
    if (!rc) {
        rc = certs_cert_der(e->view, &e->view_der, err);
    }
    if (!rc) {
        load_signer_before(e, conf->state_dir);
        rc = load_tls(e, conf, err);
    }
    if (rc) {
        endpoints_free(e);
        return rc;
    }
    e->under_root = issued_by(e->root, e->view) && (e->given || issued_by(e->root, e->tls));
    *ret = e;
    return ATT_OK;
}

static void tell(const char *event, const X509 *cert)
{
    struct certs_cert_info info = {0};
    char end[ATT_TIME_TEXT_LEN];
    (void)!certs_cert_info(cert, &info, NULL);
    att_time_text(end, info.not_after);
    att_log(ATT_INFO, event, ATT_S("serial", info.serial_hex), ATT_S("notAfter", end));
}

static void put_into_use(struct issuer_ca *ca, struct issuer_endpoints *fresh)
{
    pthread_mutex_lock(&ca->lock);
    struct issuer_endpoints *old = ca->endpoints;
    ca->endpoints = fresh;
    pthread_mutex_unlock(&ca->lock);
    if (!old) {
        return; /* the start */
    }
    if (X509_cmp(old->tls, fresh->tls) != 0) {
        tell("tls.renewed", fresh->tls);
    }
    if (X509_cmp(old->view, fresh->view) != 0) {
        tell("viewSigner.renewed", fresh->view);
        atomic_store(&ca->signer_changed, true);
    }
    if (strcmp(old->ca_sha256, fresh->ca_sha256) != 0) {
        att_log(ATT_WARN, "tls.pinChanged", ATT_S("old", old->ca_sha256),
                ATT_S("new", fresh->ca_sha256));
    }
    issuer_endpoints_put(old);
}

enum att_rc issuer_endpoints_load(struct issuer_ca *ca, const struct conf_issuer *conf,
                                  struct att_err *err)
{
    struct issuer_endpoints *e = NULL;
    enum att_rc rc = load_endpoints(conf, &e, err);
    if (!rc) {
        put_into_use(ca, e);
    }
    return rc;
}

enum att_rc issuer_endpoints_refresh(struct issuer_ca *ca, const struct conf_issuer *conf,
                                     int64_t now, struct att_err *err)
{
    struct issuer_endpoints *fresh = NULL;
    struct att_err why = {0};
    pthread_mutex_lock(&ca->making);
    enum att_rc made = make_due(ca, conf, now, &why);
    enum att_rc rc = load_endpoints(conf, &fresh, made ? NULL : &why);
    if (!rc && made && !fresh->under_root && ca->endpoints) {
        issuer_endpoints_put(fresh); /* its root has changed, and nothing could be made under it */
    } else if (!rc) {
        put_into_use(ca, fresh);
    }
    pthread_mutex_unlock(&ca->making);
    if ((made || rc) && err) {
        *err = why;
    }
    return made ? made : rc;
}

/* ---- while serving
 * ------------------------------------------------------------------------------------------
 */

static bool any_due(struct issuer_ca *ca, int64_t now)
{
    issuer_autoendpoints *e = issuer_endpoints_get(ca);
    int64_t end = issuer_ca_end(e->root);
    return (!e->given && due(e->tls, end, now)) || due(e->view, end, now);
}

static void note_result(struct issuer_ca *ca, enum att_rc rc, const struct att_err *err,
                        int64_t now)
{
    pthread_mutex_lock(&ca->lock);
    ca->failed_at = rc ? now : 0;
    ca->failure = *err;
    pthread_mutex_unlock(&ca->lock);
    if (!rc) {
        ca->pause_ms = ca->try_ms = 0;
        return;
    }
    int64_t pause = 2 * ca->pause_ms;
    ca->pause_ms = pause < PAUSE_LEAST_MS  ? PAUSE_LEAST_MS
                   : pause > PAUSE_MOST_MS ? PAUSE_MOST_MS
                                           : pause;
    ca->try_ms = att_boottime_ms() + ca->pause_ms;
    att_log(ATT_ERROR, "tls.renewalFailed", ATT_S("code", att_rc_name(rc)),
            ATT_S("reason", err->reason), ATT_S("message", err->msg),
            ATT_N("nextMs", ca->pause_ms));
}

static void warn(struct issuer_ca *ca, const struct conf_issuer *conf, int64_t now)
{
    att_autojson *warnings = issuer_ca_warnings(ca, conf, now);
    size_t i;
    json_t *text;
    json_array_foreach(warnings, i, text)
    {
        att_log(ATT_WARN, "ca.warning", ATT_S("message", json_string_value(text)));
    }
    ca->warn_ms = att_boottime_ms() + WARN_PERIOD_MS;
}

void issuer_ca_tick(struct issuer *issuer, bool at_once)
{
    struct issuer_ca *ca = issuer->ca;
    issuer_autosettings *settings = issuer_settings_get(issuer);
    int64_t now = issuer->clock(), now_ms = att_boottime_ms();
    if (at_once || (now_ms >= ca->try_ms && any_due(ca, now))) {
        struct att_err err = {0};
        enum att_rc rc = issuer_endpoints_refresh(ca, settings->conf, now, &err);
        note_result(ca, rc, &err, now);
        issuer->status_changed = true;
    }
    /* The head is signed by the new signer at once. */
    if (atomic_exchange(&ca->signer_changed, false)) {
        issuer->head_missing = true;
    }
    if (at_once || now_ms >= ca->warn_ms) {
        warn(ca, settings->conf, now);
    }
}
