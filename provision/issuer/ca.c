/* state_dir/ca: three roots apart, workload and attestation intermediates, TLS and view signer. */
#include "provision/issuer/ca.h"

#include "attestd/base/io.h"
#include "certs/bundle.h"
#include "certs/key.h"
#include "certs/oid.h"

#include <errno.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DAY_S            ((int64_t)86400)
#define ROOT_S           (3652 * DAY_S)
#define INTERMEDIATE_S   (1826 * DAY_S)
#define ENDPOINT_S       (397 * DAY_S)
#define ENDPOINT_RENEW_S (30 * DAY_S)
#define PATH_ROOM        4096
#define SERVER_NAMES_MAX 3
#define COMMON_NAME_ROOM 128

static void ca_path(char ret[PATH_ROOM], const char *state_dir, const char *file)
{
    snprintf(ret, PATH_ROOM, "%s/ca/%s", state_dir, file);
}

/* ---- making
 * ------------------------------------------------------------------------------------------- */

struct maker {
    const char *state_dir; /* holds ca/ */
    const char *trust_domain;
    int64_t now;
};

static enum att_rc save_cert(const struct maker *m, const char *file, const X509 *cert,
                             struct att_err *err)
{
    char path[PATH_ROOM];
    ca_path(path, m->state_dir, file);
    att_autobuf pem = {0};
    enum att_rc rc = certs_pem_dump(cert, &pem, err);
    return rc ? rc : att_io_write_file(path, att_buf_slice(&pem), 0644, err);
}

static enum att_rc save_key(const struct maker *m, const char *file, EVP_PKEY *key,
                            struct att_err *err)
{
    char path[PATH_ROOM];
    ca_path(path, m->state_dir, file);
    return certs_key_save(key, path, err);
}

/* Signs a TBS and reads the certificate back. */
static enum att_rc sign_cert(struct att_slice tbs, EVP_PKEY *ca_key, X509 **ret_cert,
                             struct att_err *err)
{
    att_autobuf der = {0};
    enum att_rc rc = certs_tbs_sign(tbs, ca_key, &der, err);
    return rc ? rc : certs_cert_parse(att_buf_slice(&der), ret_cert, err);
}

/* A CA certificate and its key: self-issued where ca is NULL. constrained: name constraints. */
static enum att_rc make_ca(const struct maker *m, const char *name, const char *title,
                           const X509 *ca, EVP_PKEY *ca_key, bool constrained, X509 **ret_cert,
                           EVP_PKEY **ret_key, struct att_err *err)
{
    char cn[COMMON_NAME_ROOM], file[64];
    certs_autokey *key = NULL;
    certs_autox509 *cert = NULL;
    att_autobuf spki = {0}, tbs = {0};
    uint8_t digest[ATT_SHA256_LEN];
    snprintf(cn, sizeof cn, "%.60s %s", m->trust_domain, title);
    struct certs_ca_spec spec = {.validity =
                                     certs_validity_from(m->now, ca ? INTERMEDIATE_S : ROOT_S),
                                 .common_name = cn,
                                 .trust_domain = constrained ? m->trust_domain : NULL};
    enum att_rc rc = certs_key_generate(&key, err);
    if (!rc) {
        rc = certs_key_spki(key, &spki, err);
    }
    if (!rc) {
        rc = certs_serial_new(spec.serial, err);
    }
    if (!rc) {
        spec.spki = att_buf_slice(&spki);
        rc = ca ? certs_intermediate_tbs(&spec, ca, &tbs, digest, err)
                : certs_root_tbs(&spec, &tbs, digest, err);
    }
    if (!rc) {
        rc = sign_cert(att_buf_slice(&tbs), ca ? ca_key : key, &cert, err);
    }
    if (!rc) {
        snprintf(file, sizeof file, "%s.key", name);
        rc = save_key(m, file, key, err);
    }
    if (!rc) {
        snprintf(file, sizeof file, "%s.crt", name);
        rc = save_cert(m, file, cert, err);
    }
    if (rc) {
        att_err_prefix(err, "making %s", name);
        return rc;
    }
    *ret_cert = cert;
    *ret_key = key;
    cert = NULL;
    key = NULL;
    return ATT_OK;
}

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

static enum att_rc make_endpoint(const struct maker *m, const struct conf_issuer *conf, bool tls,
                                 const X509 *ca, EVP_PKEY *ca_key, struct att_err *err)
{
    certs_autokey *key = NULL;
    certs_autox509 *cert = NULL;
    att_autobuf spki = {0}, tbs = {0};
    uint8_t digest[ATT_SHA256_LEN], serial[CERTS_SERIAL_LEN];
    char url_host[256];
    const char *names[SERVER_NAMES_MAX];
    size_t n_names = server_names(conf, url_host, names);
    enum att_rc rc = certs_key_generate(&key, err);
    if (!rc) {
        rc = certs_key_spki(key, &spki, err);
    }
    if (!rc) {
        rc = certs_serial_new(serial, err);
    }
    struct certs_validity validity = certs_validity_from(m->now, ENDPOINT_S);
    if (!rc && tls) {
        struct certs_server_spec spec = {
            .validity = validity, .spki = att_buf_slice(&spki), .names = names, .n_names = n_names};
        memcpy(spec.serial, serial, sizeof serial);
        rc = certs_server_tbs(&spec, ca, &tbs, digest, err);
    } else if (!rc) {
        struct certs_signer_spec spec = {.validity = validity,
                                         .spki = att_buf_slice(&spki),
                                         .common_name = "attestd host view signer"};
        memcpy(spec.serial, serial, sizeof serial);
        rc = certs_view_signer_tbs(&spec, ca, &tbs, digest, err);
    }
    if (!rc) {
        rc = sign_cert(att_buf_slice(&tbs), ca_key, &cert, err);
    }
    /* Key first: a crash in between leaves a pair that does not match, which loading makes anew. */
    if (!rc) {
        rc = save_key(m, tls ? "tls.key" : "view.key", key, err);
    }
    return rc ? rc : save_cert(m, tls ? "tls.crt" : "view.crt", cert, err);
}

static enum att_rc make_all(const struct maker *m, const struct conf_issuer *conf,
                            struct att_err *err)
{
    certs_autox509 *wroot = NULL, *wca = NULL, *aroot = NULL, *aca = NULL, *troot = NULL;
    certs_autokey *wroot_key = NULL, *wca_key = NULL, *aroot_key = NULL, *aca_key = NULL,
                  *troot_key = NULL;
    enum att_rc rc =
        make_ca(m, "workload-root", "Workload Root", NULL, NULL, false, &wroot, &wroot_key, err);
    if (!rc) {
        rc = make_ca(m, "workload-ca", "Workload CA", wroot, wroot_key, true, &wca, &wca_key, err);
    }
    if (!rc) {
        rc = make_ca(m, "attest-root", "Attestation Root", NULL, NULL, false, &aroot, &aroot_key,
                     err);
    }
    if (!rc) {
        rc =
            make_ca(m, "attest-ca", "Attestation CA", aroot, aroot_key, false, &aca, &aca_key, err);
    }
    if (!rc) {
        rc = make_ca(m, "tls-root", "Issuer TLS Root", NULL, NULL, false, &troot, &troot_key, err);
    }
    if (!rc) {
        rc = make_endpoint(m, conf, true, troot, troot_key, err);
    }
    if (!rc) {
        rc = make_endpoint(m, conf, false, troot, troot_key, err);
    }
    if (!rc) {
        rc = save_cert(m, "bundle.pem", wroot, err);
    }
    if (!rc) {
        rc = save_cert(m, "ak-roots.pem", aroot, err);
    }
    return rc ? rc : save_cert(m, "tls-root.pem", troot, err);
}

enum att_rc issuer_ca_create(const struct conf_issuer *conf, struct att_err *err)
{
    char dir[PATH_ROOM], tmp[PATH_ROOM + 32], tmp_ca[PATH_ROOM + 40];
    ca_path(dir, conf->state_dir, "");
    dir[strlen(dir) - 1] = 0;
    if (access(dir, F_OK) == 0) {
        return att_fail(err, ATT_E_EXISTS, "%s: there is a CA already", dir);
    }
    /* Made beside and renamed when complete: there is a whole CA or none. */
    snprintf(tmp, sizeof tmp, "%s/.init.%ld", conf->state_dir, (long)getpid());
    snprintf(tmp_ca, sizeof tmp_ca, "%s/ca", tmp);
    enum att_rc rc = att_io_mkdirs(conf->state_dir, 0700, err);
    if (!rc) {
        rc = att_io_mkdirs(tmp_ca, 0700, err);
    }
    struct maker m = {.state_dir = tmp, .trust_domain = conf->trust_domain, .now = att_now_utc_s()};
    if (!rc) {
        rc = make_all(&m, conf, err);
    }
    if (!rc && rename(tmp_ca, dir) != 0) {
        rc = att_fail_errno(err, errno == EEXIST || errno == ENOTEMPTY ? ATT_E_EXISTS : ATT_E_IO,
                            "%s: cannot be put in place", dir);
    }
    rmdir(tmp);
    return rc;
}

/* ---- loading
 * -------------------------------------------------------------------------------------------- */

static enum att_rc load_cert(const char *state_dir, const char *file, X509 **ret_cert,
                             struct att_err *err)
{
    char path[PATH_ROOM];
    ca_path(path, state_dir, file);
    att_autobuf pem = {0};
    certs_autostack *certs = NULL;
    enum att_rc rc = att_io_read_file(path, CERTS_CHAIN_MAX_LEN, &pem, err);
    if (!rc) {
        rc = certs_pem_parse(att_buf_slice(&pem), &certs, err);
        if (rc) {
            att_err_prefix(err, "%s", path);
        }
    }
    if (!rc && sk_X509_num(certs) != 1) {
        rc = att_fail(err, ATT_E_PARSE, "%s: expected one certificate", path);
    }
    if (!rc) {
        *ret_cert = sk_X509_shift(certs);
    }
    return rc;
}

static enum att_rc load_pair(const char *state_dir, const char *name, X509 **ret_cert,
                             EVP_PKEY **ret_key, struct att_err *err)
{
    char file[64], path[PATH_ROOM];
    snprintf(file, sizeof file, "%s.crt", name);
    enum att_rc rc = load_cert(state_dir, file, ret_cert, err);
    if (rc) {
        return rc;
    }
    snprintf(file, sizeof file, "%s.key", name);
    ca_path(path, state_dir, file);
    rc = certs_key_load(path, ret_key, err);
    return rc ? rc : certs_cert_matches_key(*ret_cert, *ret_key, err);
}

static enum att_rc pem_text(const X509 *cert, char **ret_pem, struct att_err *err)
{
    struct att_buf pem = {0};
    enum att_rc rc = certs_pem_dump(cert, &pem, err);
    char *text = issuer_steal_text(&pem);
    if (rc || !text) {
        free(text);
        return rc ? rc : att_fail(err, ATT_E_NOMEM, "no memory");
    }
    *ret_pem = text;
    return ATT_OK;
}

/* Whether an endpoint's pair is there, matches, lasts, and stands for the names. */
static bool endpoint_good(const struct conf_issuer *conf, const char *name, bool tls, int64_t now)
{
    certs_autox509 *cert = NULL;
    certs_autokey *key = NULL;
    struct certs_cert_info info;
    if (load_pair(conf->state_dir, name, &cert, &key, NULL) || certs_cert_info(cert, &info, NULL) ||
        info.not_after < now + ENDPOINT_RENEW_S || info.not_before > now) {
        return false;
    }
    char url_host[256];
    const char *names[SERVER_NAMES_MAX];
    size_t n = tls ? server_names(conf, url_host, names) : 0;
    for (size_t i = 0; i < n; i++) {
        if (X509_check_ip_asc(cert, names[i], 0) != 1 &&
            X509_check_host(cert, names[i], strlen(names[i]), 0, NULL) != 1) {
            return false;
        }
    }
    return true;
}

static enum att_rc refresh_endpoints(const struct conf_issuer *conf, struct att_err *err)
{
    struct maker m = {conf->state_dir, conf->trust_domain, att_now_utc_s()};
    certs_autox509 *root = NULL;
    certs_autokey *key = NULL;
    bool tls = !conf->tls && !endpoint_good(conf, "tls", true, m.now);
    bool view = !endpoint_good(conf, "view", false, m.now);
    if (!tls && !view) {
        return ATT_OK;
    }
    enum att_rc rc = load_pair(conf->state_dir, "tls-root", &root, &key, err);
    if (!rc && tls) {
        rc = make_endpoint(&m, conf, true, root, key, err);
    }
    if (!rc && view) {
        rc = make_endpoint(&m, conf, false, root, key, err);
    }
    return rc;
}

static enum att_rc own_chain(struct issuer_ca *ca, const char *state_dir,
                             STACK_OF(X509) * *ret_chain, struct att_err *err)
{
    enum att_rc rc = load_pair(state_dir, "tls", &ca->tls, &ca->tls_key, err);
    if (rc) {
        return rc;
    }
    /* The root goes along: hosts that pin it by digest must see it. */
    certs_autostack *chain = sk_X509_new_null();
    X509 *const certs[] = {ca->tls, ca->tls_root};
    for (size_t i = 0; i < 2; i++) {
        if (!chain || !X509_up_ref(certs[i])) {
            return att_fail(err, ATT_E_NOMEM, "TLS chain: no memory");
        }
        if (!sk_X509_push(chain, certs[i])) {
            X509_free(certs[i]);
            return att_fail(err, ATT_E_NOMEM, "TLS chain: no memory");
        }
    }
    *ret_chain = chain;
    chain = NULL;
    return ATT_OK;
}

static enum att_rc given_chain(struct issuer_ca *ca, const struct conf_issuer_tls *tls,
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
    ca->tls = leaf;
    return certs_key_load(tls->key_file, &ca->tls_key, err);
}

static enum att_rc load_tls(struct issuer_ca *ca, const struct conf_issuer *conf,
                            struct att_err *err)
{
    certs_autostack *chain = NULL;
    enum att_rc rc = conf->tls ? given_chain(ca, conf->tls, &chain, err)
                               : own_chain(ca, conf->state_dir, &chain, err);
    if (rc) {
        return rc;
    }
    /* Tickets pin the last certificate of what is sent: ours is our own root. */
    uint8_t digest[ATT_SHA256_LEN];
    X509 *last = sk_X509_value(chain, sk_X509_num(chain) - 1);
    rc = certs_cert_sha256(last, digest, err);
    if (!rc) {
        att_hex(ca->ca_sha256, ATT_SLICE_ARRAY(digest));
        rc = certs_tls_server_new(chain, ca->tls_key, &ca->ssl, err);
    }
    return rc;
}

static enum att_rc load_all(struct issuer_ca *ca, const struct conf_issuer *conf,
                            struct att_err *err)
{
    const char *dir = conf->state_dir;
    enum att_rc rc = load_cert(dir, "workload-root.crt", &ca->workload_root, err);
    if (!rc) {
        rc = load_pair(dir, "workload-ca", &ca->workload_ca, &ca->workload_key, err);
    }
    if (!rc) {
        rc = load_cert(dir, "attest-root.crt", &ca->attest_root, err);
    }
    if (!rc) {
        rc = load_pair(dir, "attest-ca", &ca->attest_ca, &ca->attest_key, err);
    }
    if (!rc) {
        rc = load_cert(dir, "tls-root.crt", &ca->tls_root, err);
    }
    if (!rc) {
        rc = refresh_endpoints(conf, err);
    }
    if (!rc) {
        rc = load_pair(dir, "view", &ca->view, &ca->view_key, err);
    }
    if (!rc) {
        rc = load_tls(ca, conf, err);
    }
    if (!rc) {
        rc = pem_text(ca->workload_root, &ca->bundle, err);
    }
    if (!rc) {
        rc = pem_text(ca->workload_ca, &ca->workload_pem, err);
    }
    if (!rc) {
        rc = pem_text(ca->attest_ca, &ca->attest_pem, err);
    }
    if (!rc) {
        rc = certs_cert_der(ca->view, &ca->view_der, err);
    }
    return rc ? rc : certs_cert_der(ca->tls_root, &ca->tls_root_der, err);
}

enum att_rc issuer_ca_load(const struct conf_issuer *conf, struct issuer_ca **ret_ca,
                           struct att_err *err)
{
    struct issuer_ca *ca = calloc(1, sizeof *ca);
    if (!ca) {
        return att_fail(err, ATT_E_NOMEM, "CA: no memory");
    }
    enum att_rc rc = load_all(ca, conf, err);
    if (rc) {
        att_err_prefix(err, "CA (made by `attest-issuerd init`)");
        issuer_ca_free(ca);
        return rc;
    }
    *ret_ca = ca;
    return ATT_OK;
}

void issuer_ca_free(struct issuer_ca *ca)
{
    if (!ca) {
        return;
    }
    X509 *const certs[] = {ca->workload_root, ca->workload_ca, ca->attest_root, ca->attest_ca,
                           ca->tls_root,      ca->tls,         ca->view};
    for (size_t i = 0; i < sizeof certs / sizeof certs[0]; i++) {
        X509_free(certs[i]);
    }
    EVP_PKEY_free(ca->workload_key);
    EVP_PKEY_free(ca->attest_key);
    EVP_PKEY_free(ca->tls_key);
    EVP_PKEY_free(ca->view_key);
    SSL_CTX_free(ca->ssl);
    free(ca->bundle);
    free(ca->workload_pem);
    free(ca->attest_pem);
    att_buf_done(&ca->view_der);
    att_buf_done(&ca->tls_root_der);
    free(ca);
}

/* ---- telling
 * ------------------------------------------------------------------------------------------------
 */

static void name_text(const X509_NAME *name, char ret[256])
{
    ret[0] = 0;
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio && X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253) >= 0) {
        int n = BIO_read(bio, ret, 255);
        ret[n > 0 ? n : 0] = 0;
    }
    BIO_free(bio);
}

static json_t *authority(const X509 *cert, const char *name, const char *state_dir)
{
    struct certs_cert_info info;
    char subject[256], issuer[256], sha256[65], path[PATH_ROOM], file[64];
    if (certs_cert_info(cert, &info, NULL)) {
        return json_null();
    }
    name_text(X509_get_subject_name(cert), subject);
    name_text(X509_get_issuer_name(cert), issuer);
    att_hex(sha256, ATT_SLICE_ARRAY(info.sha256));
    snprintf(file, sizeof file, "%s.crt", name);
    ca_path(path, state_dir, file);
    return json_pack("{s:s, s:s, s:s, s:s, s:o, s:o, s:s, s:s}", "name", name, "subject", subject,
                     "issuer", issuer, "serial", info.serial_hex, "notBefore",
                     issuer_time_json(info.not_before), "notAfter",
                     issuer_time_json(info.not_after), "sha256", sha256, "file", path);
}

json_t *issuer_ca_status(const struct issuer_ca *ca, const char *state_dir)
{
    const struct {
        const char *name;
        const X509 *cert;
    } all[] = {{"workload-root", ca->workload_root},
               {"workload-ca", ca->workload_ca},
               {"attest-root", ca->attest_root},
               {"attest-ca", ca->attest_ca},
               {"tls-root", ca->tls_root},
               {"tls", ca->tls},
               {"view", ca->view}};
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        json_array_append_new(list, authority(all[i].cert, all[i].name, state_dir));
    }
    return list;
}
