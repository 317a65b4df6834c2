#include "provision/issuer/tls_root.h"

#include "attestd/base/io.h"
#include "certs/oid.h"
#include "provision/issuer/ca_files.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FILE_NAME "tls-root.json"
#define FIRST_REF "file:tls-root"
#define FILE_MAX  ((size_t)64 << 10)
#define ALSO_MAX  2

void issuer_tls_root_done(struct issuer_tls_root *root)
{
    X509_free(root->root);
    certs_stack_cleanup(&root->also);
    *root = (struct issuer_tls_root){0};
}

static enum att_rc load_first(const char *state_dir, struct issuer_tls_root *ret,
                              struct att_err *err)
{
    snprintf(ret->keyref, sizeof ret->keyref, FIRST_REF);
    return issuer_ca_load_cert(state_dir, "tls-root.crt", &ret->root, err);
}

static enum att_rc parse_certs(const json_t *json, const char *member, STACK_OF(X509) * *ret,
                               struct att_err *err)
{
    const char *pem = NULL;
    enum att_rc rc = att_json_str(json, member, &pem, err);
    return rc || !pem[0] ? rc : certs_pem_parse(att_slice_str(pem), ret, err);
}

static enum att_rc parse(struct att_slice text, struct issuer_tls_root *ret, struct att_err *err)
{
    att_autojson *json = NULL;
    certs_autostack *roots = NULL;
    const char *ref = NULL;
    enum att_rc rc = att_json_parse(text, FILE_MAX, &json, err);
    if (!rc && json_integer_value(json_object_get(json, "version")) != 1) {
        rc = att_fail(err, ATT_E_PARSE, "version: expected 1");
    }
    if (!rc) {
        rc = att_json_str(json, "key", &ref, err);
    }
    if (!rc && strlen(ref) >= sizeof ret->keyref) {
        rc = att_fail(err, ATT_E_PARSE, "key: expected file:NAME or hsm:CKA_ID");
    }
    if (!rc) {
        rc = parse_certs(json, "root", &roots, err);
    }
    if (!rc && (!roots || sk_X509_num(roots) != 1)) {
        rc = att_fail(err, ATT_E_PARSE, "root: expected one certificate");
    }
    if (!rc) {
        rc = parse_certs(json, "also", &ret->also, err);
    }
    if (!rc && ret->also && sk_X509_num(ret->also) > ALSO_MAX) {
        rc = att_fail(err, ATT_E_PARSE, "also: expected at most %d certificates", ALSO_MAX);
    }
    if (!rc) {
        snprintf(ret->keyref, sizeof ret->keyref, "%s", ref);
        ret->root = sk_X509_shift(roots);
    }
    return rc;
}

enum att_rc issuer_tls_root_load(const char *state_dir, struct issuer_tls_root *ret,
                                 struct att_err *err)
{
    char path[ISSUER_CA_PATH];
    att_autobuf text = {0};
    issuer_autotlsroot root = {0};
    issuer_ca_path(path, state_dir, FILE_NAME);
    enum att_rc rc = ATT_OK;
    if (access(path, F_OK) != 0) {
        rc = load_first(state_dir, &root, err);
    } else {
        rc = att_io_read_file(path, FILE_MAX, &text, err);
        if (!rc) {
            rc = parse(att_buf_slice(&text), &root, err);
            if (rc) {
                att_err_prefix(err, "%s", path);
            }
        }
    }
    if (!rc) {
        *ret = root;
        root = (struct issuer_tls_root){0};
    }
    return rc;
}

enum att_rc issuer_tls_root_save(const char *state_dir, const char *keyref, const X509 *root,
                                 const char *also, bool *ret_changed, struct att_err *err)
{
    char path[ISSUER_CA_PATH];
    att_autobuf pem = {0}, text = {0}, there = {0};
    issuer_ca_path(path, state_dir, FILE_NAME);
    *ret_changed = false;
    enum att_rc rc = certs_pem_dump(root, &pem, err);
    if (rc) {
        return rc;
    }
    att_autojson *json = json_pack("{s:i, s:s, s:s, s:s}", "version", 1, "key", keyref, "root",
                                   att_buf_cstr(&pem), "also", also);
    rc = json ? att_json_dump(json, false, &text, err) : att_fail(err, ATT_E_NOMEM, "no memory");
    if (rc || (att_io_read_file(path, FILE_MAX, &there, NULL) == ATT_OK &&
               att_slice_eq(att_buf_slice(&there), att_buf_slice(&text)))) {
        return rc;
    }
    rc = att_io_write_file(path, att_buf_slice(&text), 0644, err);
    *ret_changed = !rc;
    return rc;
}
