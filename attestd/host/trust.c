#include "attestd/host/trust.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "certs/bundle.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define ANCHOR_HEX  16
#define PATH_ROOM   4096
#define CA_FILE_MAX ((size_t)CERTS_BUNDLE_MAX_LEN)

/* ---- where -------------------------------------------------------------------------------------
 */

static bool anchor_of(const struct host_issuer *issuer, char ret[ANCHOR_HEX + 1])
{
    uint8_t digest[ATT_SHA256_LEN];
    att_autobuf text = {0};
    if (issuer->given_pin) {
        memcpy(digest, issuer->ca_sha256, sizeof(digest));
    } else if (att_io_read_file(issuer->given_file, CA_FILE_MAX, &text, NULL) == ATT_OK) {
        att_sha256(digest, att_buf_slice(&text));
    } else {
        return false;
    }
    att_hex(ret, ATT_SLICE(digest, ANCHOR_HEX / 2));
    return true;
}

static bool path_of(const struct host *host, const struct host_issuer *issuer, char ret[PATH_ROOM])
{
    char anchor[ANCHOR_HEX + 1];
    return anchor_of(issuer, anchor) && snprintf(ret, PATH_ROOM, "%s/" HOST_TRUST_PREFIX "%s.pem",
                                                 host->paths.dir, anchor) < PATH_ROOM;
}

enum att_rc host_trust_apply(const struct host *host, struct host_issuer *issuer,
                             struct att_err *err)
{
    char path[PATH_ROOM];
    certs_autostack *roots = NULL;
    memcpy(issuer->given_file, issuer->ca_file, sizeof(issuer->given_file));
    issuer->given_pin = issuer->has_pin;
    if (!path_of(host, issuer, path) || (access(path, F_OK) != 0 && errno == ENOENT)) {
        return ATT_OK;
    }
    /* One that is there and cannot be read: what was given may be a root that is retired since, and
     * its key in anybody's hands. */
    struct att_err why = {0};
    if (certs_bundle_load(path, &roots, &why) != ATT_OK) {
        enum att_rc rc =
            att_fail(err, ATT_E_IO, "what was learned of the issuer's roots cannot be read: %.300s",
                     why.msg);
        att_err_reason(err, "issuerRoots");
        return rc;
    }
    memcpy(issuer->ca_file, path, strlen(path) + 1);
    issuer->has_pin = false;
    issuer->learned = true;
    return ATT_OK;
}

/* ---- what --------------------------------------------------------------------------------------
 */

static bool is_retired(const X509 *cert, const struct host_view *view)
{
    uint8_t digest[ATT_SHA256_LEN];
    bool found = false;
    for (size_t i = 0; i < view->n_retired && !found; i++) {
        found = certs_cert_sha256(cert, digest, NULL) == ATT_OK &&
                memcmp(digest, view->retired[i], sizeof(digest)) == 0;
    }
    return found;
}

static bool holds(const STACK_OF(X509) * certs, const X509 *cert)
{
    for (int i = 0; i < sk_X509_num(certs); i++) {
        if (X509_cmp(sk_X509_value(certs, i), cert) == 0) {
            return true;
        }
    }
    return false;
}

/* only: NULL, or what those must be among. */
static enum att_rc add(STACK_OF(X509) * to, const STACK_OF(X509) * from,
                       const STACK_OF(X509) * only, const struct host_view *view,
                       struct att_err *err)
{
    for (int i = 0; from && i < sk_X509_num(from); i++) {
        X509 *cert = sk_X509_value(from, i);
        if (is_retired(cert, view) || holds(to, cert) || (only && !holds(only, cert))) {
            continue;
        }
        if (!X509_up_ref(cert)) {
            return att_fail(err, ATT_E_NOMEM, "no memory for a root");
        }
        if (!sk_X509_push(to, cert)) {
            X509_free(cert);
            return att_fail(err, ATT_E_NOMEM, "no memory for a root");
        }
    }
    return ATT_OK;
}

static bool same(const STACK_OF(X509) * a, const STACK_OF(X509) * b)
{
    bool equal = a && b && sk_X509_num(a) == sk_X509_num(b);
    for (int i = 0; equal && i < sk_X509_num(a); i++) {
        equal = holds(b, sk_X509_value(a, i));
    }
    return equal;
}

/* Those that were learned for what was given before. */
static void drop_others(const struct host *host, const char *path)
{
    DIR *dir = opendir(host->paths.dir);
    const struct dirent *at;
    while (dir && (at = readdir(dir))) {
        char other[PATH_ROOM];
        if (strncmp(at->d_name, HOST_TRUST_PREFIX, strlen(HOST_TRUST_PREFIX)) == 0 &&
            snprintf(other, sizeof(other), "%s/%s", host->paths.dir, at->d_name) < PATH_ROOM &&
            strcmp(other, path) != 0) {
            (void)unlink(other);
        }
    }
    if (dir) {
        closedir(dir);
    }
}

enum att_rc host_trust_learn(struct host *host, const struct host_view *view, struct att_err *err)
{
    struct host_issuer issuer;
    char path[PATH_ROOM];
    certs_autostack *given = NULL, *now = NULL, *roots = sk_X509_new_null();
    if (!view->issuer_roots) {
        return ATT_OK; /* never rotated */
    }
    enum att_rc rc = roots ? host_issuer_get(host, &issuer, err)
                           : att_fail(err, ATT_E_NOMEM, "no memory for roots");
    if (rc == ATT_OK && !path_of(host, &issuer, path)) {
        rc = att_fail(err, ATT_E_IO, "%s cannot be read", issuer.given_file);
    }
    if (rc == ATT_OK && issuer.learned) {
        rc = certs_bundle_load(path, &now, err);
    }
    if (rc == ATT_OK && !issuer.given_pin) {
        rc = certs_bundle_load(issuer.given_file, &given, err);
    }
    if (rc ==
        ATT_OK) { /* what once was dropped of it stays away: a view names it for a time only */
        rc = add(roots, given, now, view, err);
    }
    if (rc == ATT_OK) {
        rc = add(roots, view->issuer_roots, NULL, view, err);
    }
    if (rc != ATT_OK || (now && same(now, roots))) {
        return rc;
    }
    rc = certs_bundle_save(roots, path, err);
    if (rc == ATT_OK) {
        drop_others(host, path);
        att_log(ATT_INFO, "issuer.roots", ATT_N("roots", sk_X509_num(roots)),
                ATT_N("version", view->version));
        HOST_LOCKED(host);
        host->generation += host->generation != 0; /* clients are made anew */
    }
    return rc;
}
