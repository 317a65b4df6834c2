/* state_dir/ca: three roots apart, workload and attestation intermediates, TLS and view signer. */
#include "provision/issuer/ca_files.h"
#include "provision/issuer/dns_ca.h"
#include "provision/issuer/generations.h"
#include "provision/issuer/kinds.h"

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
#define COMMON_NAME_ROOM 128
#define ONE_NAME_ROOM    48

void issuer_ca_path(char ret[ISSUER_CA_PATH], const char *state_dir, const char *file)
{
    snprintf(ret, ISSUER_CA_PATH, "%s/ca/%s", state_dir, file);
}

/* ---- making
 * ------------------------------------------------------------------------------------------- */

struct maker {
    const char *state_dir; /* holds ca/ */
    const char *trust_domain;
    int64_t now;
    struct issuer_hsm *hsm;
    bool in_hsm; /* where the keys are made */
};

static enum att_rc save_cert(const struct maker *m, const char *file, const X509 *cert,
                             struct att_err *err)
{
    char path[ISSUER_CA_PATH];
    issuer_ca_path(path, m->state_dir, file);
    att_autobuf pem = {0};
    enum att_rc rc = certs_pem_dump(cert, &pem, err);
    return rc ? rc : att_io_write_file(path, att_buf_slice(&pem), 0644, err);
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
    char cn[COMMON_NAME_ROOM], file[64], ref[ISSUER_KEYREF_MAX];
    certs_autokey *key = NULL;
    certs_autox509 *cert = NULL;
    att_autobuf spki = {0}, tbs = {0};
    uint8_t digest[ATT_SHA256_LEN];
    snprintf(cn, sizeof cn, "%.60s %s", m->trust_domain, title);
    struct certs_ca_spec spec = {.validity =
                                     certs_validity_from(m->now, ca ? INTERMEDIATE_S : ROOT_S),
                                 .common_name = cn,
                                 .trust_domain = constrained ? m->trust_domain : NULL};
    enum att_rc rc = issuer_key_make(m->hsm, m->in_hsm, m->state_dir, name, ref, &key, err);
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
        rc = issuer_key_note(m->state_dir, name, ref, err);
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

enum att_rc issuer_ca_make(const struct conf_issuer *conf, struct issuer_hsm *hsm, const char *name,
                           const char *title, const X509 *ca, EVP_PKEY *ca_key, X509 **ret_cert,
                           EVP_PKEY **ret_key, struct att_err *err)
{
    struct maker m = {conf->state_dir, conf->trust_domain, att_now_utc_s(), hsm, conf->ca_keys_hsm};
    return make_ca(&m, name, title, ca, ca_key, false, ret_cert, ret_key, err);
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
        rc = issuer_endpoint_make(m->state_dir, conf, true, troot, troot_key, m->now, err);
    }
    if (!rc) {
        rc = issuer_endpoint_make(m->state_dir, conf, false, troot, troot_key, m->now, err);
    }
    if (!rc) {
        rc = save_cert(m, "bundle.pem", wroot, err);
    }
    if (!rc) {
        rc = save_cert(m, "ak-roots.pem", aroot, err);
    }
    return rc ? rc : save_cert(m, "tls-root.pem", troot, err);
}

enum att_rc issuer_ca_create(const struct conf_issuer *conf, struct issuer_hsm *hsm,
                             struct att_err *err)
{
    char dir[ISSUER_CA_PATH], tmp[ISSUER_CA_PATH + 32], tmp_ca[ISSUER_CA_PATH + 40];
    issuer_ca_path(dir, conf->state_dir, "");
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
    struct maker m = {tmp, conf->trust_domain, att_now_utc_s(), hsm, conf->ca_keys_hsm};
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

enum att_rc issuer_ca_load_cert(const char *state_dir, const char *file, X509 **ret_cert,
                                struct att_err *err)
{
    char path[ISSUER_CA_PATH];
    issuer_ca_path(path, state_dir, file);
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

enum att_rc issuer_ca_load_pair(const char *state_dir, const char *name, X509 **ret_cert,
                                EVP_PKEY **ret_key, struct att_err *err)
{
    char file[64], path[ISSUER_CA_PATH];
    snprintf(file, sizeof file, "%s.crt", name);
    enum att_rc rc = issuer_ca_load_cert(state_dir, file, ret_cert, err);
    if (rc) {
        return rc;
    }
    snprintf(file, sizeof file, "%s.key", name);
    issuer_ca_path(path, state_dir, file);
    rc = certs_key_load(path, ret_key, err);
    return rc ? rc : certs_cert_matches_key(*ret_cert, *ret_key, err);
}

enum att_rc issuer_ca_load_authority(struct issuer_hsm *hsm, const char *state_dir,
                                     const char *name, X509 **ret_cert, EVP_PKEY **ret_key,
                                     struct att_err *err)
{
    char file[64];
    certs_autox509 *cert = NULL;
    snprintf(file, sizeof file, "%s.crt", name);
    enum att_rc rc = issuer_ca_load_cert(state_dir, file, &cert, err);
    if (!rc) {
        rc = issuer_key_load(hsm, state_dir, name, cert, ret_key, err);
    }
    if (!rc) {
        *ret_cert = cert;
        cert = NULL;
    }
    return rc;
}

enum att_rc issuer_ca_pem_text(const X509 *cert, char **ret_pem, struct att_err *err)
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

int64_t issuer_ca_end(const X509 *cert)
{
    struct certs_cert_info info;
    return cert && certs_cert_info(cert, &info, NULL) == ATT_OK ? info.not_after : 0;
}

const char *issuer_ca_kind_name(enum issuer_ca_kind kind)
{
    static const char *const names[] = {
        [ISSUER_CA_AGENT] = "agent", [ISSUER_CA_AK] = "ak", [ISSUER_CA_DNS] = "dns"};
    return names[kind];
}

enum att_rc issuer_ca_apart(const STACK_OF(X509) * chain, const X509 *other, const char *whose,
                            struct att_err *err)
{
    for (int i = 0; other && i < sk_X509_num(chain); i++) {
        const X509 *cert = sk_X509_value(chain, i);
        if (EVP_PKEY_eq(X509_get0_pubkey(cert), X509_get0_pubkey(other)) == 1) {
            enum att_rc rc = att_fail(err, ATT_E_AUTH,
                                      "certificate %d has the key of %s: expected authorities that "
                                      "have no key in common",
                                      i + 1, whose);
            att_err_reason(err, "caChain");
            return rc;
        }
    }
    return ATT_OK;
}

struct issuer_authority issuer_authority_first(const struct issuer *issuer, const char *kind)
{
    const struct issuer_ca *ca = issuer->ca;
    const struct issuer_dns_ca *dns = issuer->dns_ca;
    struct issuer_authority by = {.id = "", .lacks = ""};
    if (strcmp(kind, "ak") == 0) {
        by = (struct issuer_authority){ca->attest_ca,
                                       ca->attest_key,
                                       ca->attest_pem,
                                       ca->attest_end,
                                       "",
                                       "attestation.crl",
                                       ""};
    } else if (strcmp(kind, "tls") == 0) {
        by.ca = ca->tls_root;
        by.end = ca->tls_root_end;
        by.crl = "";
    } else if (strcmp(kind, "dns") != 0) {
        by = (struct issuer_authority){ca->workload_ca,
                                       ca->workload_key,
                                       ca->workload_pem,
                                       ca->workload_end,
                                       "",
                                       "workload.crl",
                                       ""};
    } else if (dns) {
        by = (struct issuer_authority){dns->ca, dns->key, dns->pem, dns->end, "", "dns.crl", ""};
    }
    return by;
}

/* A renewal that fails (a full disk, a key that is kept elsewhere) keeps nobody from serving with
 * certificates that are still good: of those under another root than the one in use hosts may know
 * nothing any more. */
static enum att_rc first_endpoints(struct issuer_ca *ca, const struct conf_issuer *conf,
                                   int64_t now, struct att_err *err)
{
    struct att_err why = {0};
    enum att_rc rc = issuer_endpoints_refresh(ca, conf, now, &why);
    const struct issuer_endpoints *e = ca->endpoints;
    if (rc && e && e->under_root && issuer_ca_end(e->tls) > now && issuer_ca_end(e->view) > now) {
        att_log_err(ATT_ERROR, "tls.renewalFailed", &why);
        return ATT_OK;
    }
    if (rc && err) {
        *err = why;
    }
    return rc;
}

static enum att_rc load_all(struct issuer_ca *ca, const struct conf_issuer *conf, bool renew,
                            struct att_err *err)
{
    const char *dir = conf->state_dir;
    enum att_rc rc = issuer_ca_load_cert(dir, "workload-root.crt", &ca->workload_root, err);
    if (!rc) {
        rc = issuer_ca_load_authority(ca->hsm, dir, "workload-ca", &ca->workload_ca,
                                      &ca->workload_key, err);
    }
    if (!rc) {
        rc = issuer_ca_load_cert(dir, "attest-root.crt", &ca->attest_root, err);
    }
    if (!rc) {
        rc = issuer_ca_load_authority(ca->hsm, dir, "attest-ca", &ca->attest_ca, &ca->attest_key,
                                      err);
    }
    if (!rc) {
        rc = issuer_ca_load_cert(dir, "tls-root.crt", &ca->tls_root, err);
    }
    if (!rc) {
        rc = issuer_ca_pem_text(ca->workload_root, &ca->bundle, err);
    }
    if (!rc) {
        rc = issuer_ca_pem_text(ca->workload_ca, &ca->workload_pem, err);
    }
    if (!rc) {
        rc = issuer_ca_pem_text(ca->attest_ca, &ca->attest_pem, err);
    }
    if (!rc) {
        ca->workload_end = issuer_ca_end(ca->workload_ca);
        ca->attest_end = issuer_ca_end(ca->attest_ca);
        ca->tls_root_end = issuer_ca_end(ca->tls_root);
    }
    if (rc) {
        return rc;
    }
    return renew ? first_endpoints(ca, conf, att_now_utc_s(), err)
                 : issuer_endpoints_load(ca, conf, err);
}

enum att_rc issuer_ca_load(const struct conf_issuer *conf, bool renew, struct issuer_ca **ret_ca,
                           struct att_err *err)
{
    struct issuer_ca *ca = calloc(1, sizeof *ca);
    if (!ca) {
        return att_fail(err, ATT_E_NOMEM, "CA: no memory");
    }
    pthread_mutex_init(&ca->lock, NULL);
    pthread_mutex_init(&ca->making, NULL);
    pthread_mutex_init(&ca->generations_lock, NULL);
    enum att_rc rc = issuer_new_id(ca->self, err);
    if (!rc) {
        rc = issuer_hsm_new(conf, &ca->hsm, err);
    }
    if (!rc) {
        rc = load_all(ca, conf, renew, err);
    }
    if (rc) {
        att_err_prefix(err, "CA (made by `attest-issuerd init`)");
        issuer_ca_free(ca);
        return rc;
    }
    *ret_ca = ca;
    return ATT_OK;
}

enum att_rc issuer_ca_try(const struct issuer_ca *ca, struct att_err *err)
{
    enum att_rc rc = issuer_key_try(ca->workload_key, err);
    if (rc) {
        att_err_prefix(err, "workload-ca's key");
        return rc;
    }
    rc = issuer_key_try(ca->attest_key, err);
    if (rc) {
        att_err_prefix(err, "attest-ca's key");
    }
    return rc;
}

void issuer_ca_free(struct issuer_ca *ca)
{
    if (!ca) {
        return;
    }
    X509 *const certs[] = {ca->workload_root, ca->workload_ca, ca->attest_root, ca->attest_ca,
                           ca->tls_root};
    for (size_t i = 0; i < sizeof certs / sizeof certs[0]; i++) {
        X509_free(certs[i]);
    }
    EVP_PKEY_free(ca->workload_key);
    EVP_PKEY_free(ca->attest_key);
    issuer_endpoints_put(ca->endpoints);
    issuer_generations_free(atomic_load(&ca->generations));
    issuer_hsm_put(ca->hsm);
    pthread_mutex_destroy(&ca->generations_lock);
    pthread_mutex_destroy(&ca->making);
    pthread_mutex_destroy(&ca->lock);
    free(ca->bundle);
    free(ca->workload_pem);
    free(ca->attest_pem);
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

static json_t *authority(const X509 *cert, const char *name, const char *state_dir, int64_t now)
{
    struct certs_cert_info info;
    char subject[256], issuer[256], sha256[65], path[ISSUER_CA_PATH], file[64];
    if (certs_cert_info(cert, &info, NULL)) {
        return json_null();
    }
    name_text(X509_get_subject_name(cert), subject);
    name_text(X509_get_issuer_name(cert), issuer);
    att_hex(sha256, ATT_SLICE_ARRAY(info.sha256));
    snprintf(file, sizeof file, "%s.crt", name);
    if (state_dir) {
        issuer_ca_path(path, state_dir, file);
    }
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:o, s:o, s:I, s:s, s:s*}", "name", name, "subject", subject,
        "issuer", issuer, "serial", info.serial_hex, "notBefore", issuer_time_json(info.not_before),
        "notAfter", issuer_time_json(info.not_after), "endsInS", (json_int_t)(info.not_after - now),
        "sha256", sha256, "file", state_dir ? path : NULL);
}

/* Replaced: others of its kind are in use, and it is none of them, nor their root. */
static bool first_is_over(const struct issuer_ca *ca, const char *kind, const X509 *cert)
{
    const struct issuer_generations *now = atomic_load(&ca->generations);
    bool over = false;
    for (size_t i = 0; kind && now && i < now->n; i++) {
        const struct issuer_generation *g = &now->v[i];
        if (strcmp(g->kind, kind) == 0 && issuer_generation_counts(g)) {
            if (X509_cmp(g->ca, cert) == 0 || X509_cmp(g->root, cert) == 0) {
                return false;
            }
            over = true;
        }
    }
    return over;
}

/* "workload-ca", of a later generation "workload-ca-ID". */
static void name_one(const struct issuer_generation *g, const char *what, char ret[ONE_NAME_ROOM])
{
    const struct issuer_kind *kind = issuer_kind_of(g->kind);
    snprintf(ret, ONE_NAME_ROOM, "%s-%s-%s", kind ? kind->stem : g->kind, what, g->id);
}

/* Its root is not the first one's. */
static bool has_new_root(const struct issuer_ca *ca, const struct issuer_generation *g)
{
    const X509 *first = strcmp(g->kind, "ak") == 0    ? ca->attest_root
                        : strcmp(g->kind, "tls") == 0 ? ca->tls_root
                        : strcmp(g->kind, "dns") == 0 ? ca->dns_root
                                                      : ca->workload_root;
    return !first || X509_cmp(g->root, first) != 0;
}

/* It signs with its root itself. */
static bool is_root(const struct issuer_generation *g)
{
    const struct issuer_kind *kind = issuer_kind_of(g->kind);
    return kind && kind->root_only;
}

/* Those of the store; their certificates are there, in no file of their own. */
static void add_generations(const struct issuer_ca *ca, int64_t now, json_t *list)
{
    const struct issuer_generations *all = atomic_load(&ca->generations);
    char name[ONE_NAME_ROOM];
    for (size_t i = 0; all && i < all->n; i++) {
        const struct issuer_generation *g = &all->v[i];
        if (!issuer_generation_counts(g)) {
            continue;
        }
        if (!g->first && !is_root(g)) {
            name_one(g, "ca", name);
            json_array_append_new(list, authority(g->ca, name, NULL, now));
        }
        if (has_new_root(ca, g) && strcmp(g->state, STORE_AUTHORITY_OUTGOING) != 0) {
            name_one(g, "root", name);
            json_array_append_new(list, authority(g->root, name, NULL, now));
        }
    }
}

json_t *issuer_ca_status(struct issuer_ca *ca, const char *state_dir, int64_t now)
{
    issuer_autoendpoints *e = issuer_endpoints_get(ca);
    const struct {
        const char *name;
        const X509 *cert;
        bool renewed;
        const char *kind;
    } all[] = {{"workload-root", ca->workload_root, false, "agent"},
               {"workload-ca", ca->workload_ca, false, "agent"},
               {"attest-root", ca->attest_root, false, "ak"},
               {"attest-ca", ca->attest_ca, false, "ak"},
               {"tls-root", ca->tls_root, false, "tls"},
               {"tls", e->tls, !e->given, NULL},
               {"view", e->view, true, NULL}};
    json_t *list = json_array();
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        json_t *one = authority(all[i].cert, all[i].name, state_dir, now);
        if (all[i].renewed) {
            json_object_set_new(one, "renewAt",
                                issuer_time_json(issuer_endpoint_renew_at(all[i].cert)));
        }
        if (first_is_over(ca, all[i].kind, all[i].cert)) {
            json_object_set_new(one, "replaced", json_true());
        }
        json_array_append_new(list, one);
    }
    add_generations(ca, now, list);
    return list;
}

struct warnings {
    json_t *list;
    int64_t now;
};

static void warn_end(struct warnings *w, const X509 *cert, const char *name, int64_t from,
                     const char *what)
{
    int64_t end = issuer_ca_end(cert);
    if (w->now < from) {
        return;
    }
    int64_t days = (end - w->now) / DAY_S;
    json_array_append_new(w->list, end <= w->now ? json_sprintf("%s has ended: %s", name, what)
                                                 : json_sprintf("%s ends in %lld days: %s", name,
                                                                (long long)days, what));
}

static void warn_authority(struct warnings *w, const X509 *cert, const char *name,
                           const struct conf_issuer *conf)
{
    warn_end(w, cert, name, issuer_ca_end(cert) - conf->ca_warning_s,
             "nothing that it signs lasts longer; it has to be replaced");
}

static void warn_generations(struct warnings *w, const struct issuer_ca *ca,
                             const struct conf_issuer *conf)
{
    const struct issuer_generations *now = atomic_load(&ca->generations);
    char name[ONE_NAME_ROOM];
    for (size_t i = 0; now && i < now->n; i++) {
        const struct issuer_generation *g = &now->v[i];
        if (issuer_generation_counts(g) && !g->first && !is_root(g)) {
            name_one(g, "ca", name);
            warn_authority(w, g->ca, name, conf);
        }
        /* The active one's: it is outlived by none of those that are on their way out. */
        if (strcmp(g->state, STORE_AUTHORITY_ACTIVE) == 0 && has_new_root(ca, g)) {
            name_one(g, "root", name);
            warn_authority(w, g->root, name, conf);
        }
    }
}

json_t *issuer_ca_warnings(struct issuer_ca *ca, const struct conf_issuer *conf, int64_t now)
{
    issuer_autoendpoints *e = issuer_endpoints_get(ca);
    struct warnings w = {json_array(), now};
    const struct {
        const char *name;
        const X509 *cert;
        const char *kind;
    } cas[] = {{"workload-root", ca->workload_root, "agent"},
               {"workload-ca", ca->workload_ca, "agent"},
               {"attest-root", ca->attest_root, "ak"},
               {"attest-ca", ca->attest_ca, "ak"},
               {"tls-root", ca->tls_root, "tls"}};
    for (size_t i = 0; i < sizeof cas / sizeof cas[0]; i++) {
        if (!first_is_over(ca, cas[i].kind, cas[i].cert)) {
            warn_authority(&w, cas[i].cert, cas[i].name, conf);
        }
    }
    warn_generations(&w, ca, conf);
    if (e->given) {
        warn_end(&w, e->tls, "tls", issuer_endpoint_renew_at(e->tls),
                 "replace tls.cert_file and tls.key_file, then SIGHUP");
    }
    pthread_mutex_lock(&ca->lock);
    if (ca->failed_at) {
        json_array_append_new(
            w.list, json_sprintf("renewing TLS certificate or view signer failed: %s; the old ones "
                                 "stay in use",
                                 ca->failure.msg));
    }
    pthread_mutex_unlock(&ca->lock);
    return w.list;
}
