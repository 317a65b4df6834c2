#include "provision/manifest/oms.h"

#include "attestd/base/enc.h"
#include "attestd/base/json.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALUES_MAX  ((size_t)64 << 10)
#define PAYLOAD_TYP "application/vnd.in-toto+json"
#define MEDIA_TYP   "application/vnd.dev.sigstore.bundle"
#define STATEMENT   "https://in-toto.io/Statement/v1"
#define PREDICATE   "https://model_signing/signature/v1.0"

void manifest_oms_done(struct manifest_oms *oms)
{
    for (size_t i = 0; i < oms->n; i++) {
        free(oms->files[i].name);
    }
    free(oms->files);
    *oms = (struct manifest_oms){0};
}

static enum att_rc refuse(struct att_err *err, enum att_rc rc, const char *reason, const char *text)
{
    (void)!att_fail(err, rc, "model-signing bundle: %s", text);
    att_err_reason(err, reason);
    return rc;
}

static enum att_rc bad_form(struct att_err *err, const char *text)
{
    return refuse(err, ATT_E_PARSE, "bundleForm", text);
}

static const char *text_at(const json_t *obj, const char *name)
{
    const json_t *member = json_object_get(obj, name);
    const char *text = json_string_value(member);
    return text && strlen(text) == json_string_length(member) ? text : NULL;
}

static bool base64_at(const json_t *obj, const char *name, struct att_buf *ret)
{
    const char *text = text_at(obj, name);
    return text && text[0] && att_unb64(ret, att_slice_str(text), NULL) == ATT_OK && ret->len;
}

/* ---- who signed ---- */

static void free_stack(STACK_OF(X509) * *stack)
{
    sk_X509_pop_free(*stack, X509_free);
}

static enum att_rc take_chain(const json_t *certs, STACK_OF(X509) * chain, struct att_err *err)
{
    size_t n = json_array_size(certs);
    if (n < 1 || n > MANIFEST_OMS_CERTS_MAX) {
        return bad_form(err, "expected 1 … 8 certificates");
    }
    for (size_t i = 0; i < n; i++) {
        att_autobuf der = {0};
        if (!base64_at(json_array_get(certs, i), "rawBytes", &der)) {
            return bad_form(err, "a certificate's rawBytes are not base64");
        }
        const unsigned char *at = der.ptr;
        X509 *cert = d2i_X509(NULL, &at, (long)der.len);
        if (!cert || at != der.ptr + der.len || sk_X509_push(chain, cert) <= 0) {
            X509_free(cert);
            return bad_form(err, "a certificate that does not parse");
        }
    }
    return ATT_OK;
}

/* For code signing (RFC 5280 §4.2.1.12), and under one that the operator trusts. */
static enum att_rc check_chain(const struct manifest_oms_trust *trust, STACK_OF(X509) * chain,
                               struct att_err *err)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    X509 *leaf = sk_X509_value(chain, 0);
    bool ok = store && ctx;
    for (int i = 0; ok && i < sk_X509_num(trust->roots); i++) {
        ok = X509_STORE_add_cert(store, sk_X509_value(trust->roots, i)) == 1;
    }
    ok = ok && X509_STORE_CTX_init(ctx, store, leaf, chain) == 1;
    if (ok) {
        X509_VERIFY_PARAM *param = X509_STORE_CTX_get0_param(ctx);
        X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN);
        X509_VERIFY_PARAM_set_depth(param, MANIFEST_OMS_CERTS_MAX);
        X509_VERIFY_PARAM_set_time(param, (time_t)trust->at);
        ok = X509_verify_cert(ctx) == 1;
    }
    const char *why = ctx ? X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx)) : "";
    /* Of a certificate without the extension X509_get_extended_key_usage says "all". */
    if (ok && (!(X509_get_extension_flags(leaf) & EXFLAG_XKUSAGE) ||
               !(X509_get_extended_key_usage(leaf) & XKU_CODE_SIGN))) {
        why = "no extendedKeyUsage codeSigning";
        ok = false;
    }
    if (!ok) {
        (void)!att_fail(err, ATT_E_AUTH,
                        "model-signing bundle: its certificate leads to none that is trusted for "
                        "code signing (%s)",
                        why);
        att_err_reason(err, "bundleSignature");
    }
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    return ok ? ATT_OK : ATT_E_AUTH;
}

static enum att_rc find_key(const json_t *bundle, const struct manifest_oms_trust *trust,
                            EVP_PKEY **ret_key, struct att_err *err)
{
    const json_t *material = json_object_get(bundle, "verificationMaterial");
    const json_t *public = json_object_get(material, "publicKey");
    const json_t *chain_json =
        json_object_get(json_object_get(material, "x509CertificateChain"), "certificates");
    ATT_CLEANUP(free_stack) STACK_OF(X509) *chain = sk_X509_new_null();
    if (!json_is_object(material)) {
        return bad_form(err, "no verificationMaterial");
    }
    if (json_is_object(public) == json_is_array(chain_json)) {
        return refuse(err, ATT_E_UNSUPPORTED, "bundleForm",
                      "expected the method key or certificate");
    }
    if (json_is_object(public)) {
        if (!trust->key || EVP_PKEY_up_ref(trust->key) != 1) {
            return refuse(err, ATT_E_AUTH, "bundleSignature",
                          "it is signed by a key, a certificate is expected");
        }
        *ret_key = trust->key;
        return ATT_OK;
    }
    if (!trust->roots) {
        return refuse(err, ATT_E_AUTH, "bundleSignature",
                      "it is signed by a certificate, a key is expected");
    }
    enum att_rc rc = chain ? take_chain(chain_json, chain, err)
                           : att_fail(err, ATT_E_NOMEM, "model-signing bundle");
    rc = rc == ATT_OK ? check_chain(trust, chain, err) : rc;
    if (rc == ATT_OK) {
        *ret_key = X509_get_pubkey(sk_X509_value(chain, 0));
        rc = *ret_key ? ATT_OK : bad_form(err, "a key that does not parse");
    }
    return rc;
}

/* The hash that goes with the curve. */
static const EVP_MD *hash_of(EVP_PKEY *key)
{
    char group[32] = "";
    if (EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_GROUP_NAME, group, sizeof group,
                                       NULL) != 1) {
        return NULL;
    }
    return strcmp(group, "prime256v1") == 0  ? EVP_sha256()
           : strcmp(group, "secp384r1") == 0 ? EVP_sha384()
           : strcmp(group, "secp521r1") == 0 ? EVP_sha512()
                                             : NULL;
}

static void free_key(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
}
static void free_md(EVP_MD_CTX **ctx)
{
    EVP_MD_CTX_free(*ctx);
}

/* DSSE protocol 1.0: PAE(type, payload). */
static enum att_rc check_signature(const json_t *bundle, const json_t *envelope,
                                   struct att_slice payload, const struct manifest_oms_trust *trust,
                                   struct att_err *err)
{
    const json_t *signatures = json_object_get(envelope, "signatures");
    att_autobuf sig = {0}, pae = ATT_BUF_INIT(MANIFEST_OMS_MAX);
    ATT_CLEANUP(free_key) EVP_PKEY *key = NULL;
    ATT_CLEANUP(free_md) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (json_array_size(signatures) != 1 ||
        !base64_at(json_array_get(signatures, 0), "sig", &sig)) {
        return bad_form(err, "expected exactly one signature");
    }
    enum att_rc rc = find_key(bundle, trust, &key, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_buf_printf(&pae, "DSSEv1 %zu %s %zu ", strlen(PAYLOAD_TYP), PAYLOAD_TYP, payload.len);
    att_buf_put_slice(&pae, payload);
    const EVP_MD *md = hash_of(key);
    rc = att_buf_ok(&pae, err);
    if (rc == ATT_OK && (!md || !ctx || EVP_DigestVerifyInit(ctx, NULL, md, NULL, key) != 1 ||
                         EVP_DigestVerify(ctx, sig.ptr, sig.len, pae.ptr, pae.len) != 1)) {
        rc = refuse(err, ATT_E_AUTH, "bundleSignature", "its signature does not hold");
    }
    return rc;
}

/* ---- the statement ---- */

static bool name_ok(const char *name)
{
    char path[MANIFEST_PATH_MAX + 2];
    size_t len = strlen(name);
    if (len == 0 || len >= MANIFEST_PATH_MAX) {
        return false;
    }
    path[0] = '/';
    memcpy(path + 1, name, len + 1);
    return manifest_path_ok(path);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct manifest_oms_file *)a)->name,
                  ((const struct manifest_oms_file *)b)->name);
}

/* Digests in the order of the resources, as the subject has them. */
static enum att_rc take_files(struct manifest_oms *oms, const json_t *resources,
                              struct att_buf *digests, struct att_err *err)
{
    size_t n = json_array_size(resources);
    if (n < 1 || n > MANIFEST_FILES_MAX || !(oms->files = calloc(n, sizeof *oms->files))) {
        return bad_form(err, "expected 1 … 8192 resources");
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *resource = json_array_get(resources, i);
        const char *name = text_at(resource, "name"), *digest = text_at(resource, "digest");
        const char *algorithm = text_at(resource, "algorithm");
        struct manifest_oms_file *file = &oms->files[oms->n];
        if (!name || !name_ok(name) || !algorithm || strcmp(algorithm, "sha256") != 0 || !digest ||
            att_unhex_exact(file->sha256, ATT_SHA256_LEN, digest, NULL) != ATT_OK) {
            return bad_form(err, "a resource without a relative name and a sha256 digest");
        }
        if (!(file->name = strdup(name))) {
            return att_fail(err, ATT_E_NOMEM, "model-signing bundle");
        }
        oms->n++;
        att_buf_put(digests, file->sha256, ATT_SHA256_LEN);
    }
    qsort(oms->files, oms->n, sizeof *oms->files, by_name);
    for (size_t i = 1; i < oms->n; i++) {
        if (by_name(&oms->files[i - 1], &oms->files[i]) == 0) {
            return bad_form(err, "a resource stands there twice");
        }
    }
    return att_buf_ok(digests, err);
}

static enum att_rc take_statement(struct manifest_oms *oms, const json_t *statement,
                                  struct att_err *err)
{
    const json_t *predicate = json_object_get(statement, "predicate");
    const json_t *how = json_object_get(predicate, "serialization");
    const json_t *subjects = json_object_get(statement, "subject");
    const char *type = text_at(statement, "_type"), *kind = text_at(statement, "predicateType");
    const char *method = text_at(how, "method"), *hash = text_at(how, "hash_type");
    if (!type || strcmp(type, STATEMENT) != 0 || !kind || strcmp(kind, PREDICATE) != 0) {
        return bad_form(err, "expected an in-toto statement of " PREDICATE);
    }
    if (!method || strcmp(method, "files") != 0 || !hash || strcmp(hash, "sha256") != 0 ||
        !json_is_false(json_object_get(how, "allow_symlinks"))) {
        return refuse(err, ATT_E_UNSUPPORTED, "bundleForm",
                      "expected serialization by files, sha256, without symbolic links");
    }
    att_autobuf digests = {0};
    enum att_rc rc = take_files(oms, json_object_get(predicate, "resources"), &digests, err);
    if (rc != ATT_OK) {
        return rc;
    }
    uint8_t all[ATT_SHA256_LEN], said[ATT_SHA256_LEN];
    const char *subject = text_at(json_object_get(json_array_get(subjects, 0), "digest"), "sha256");
    att_sha256(all, att_buf_slice(&digests));
    return json_array_size(subjects) == 1 && subject &&
                   att_unhex_exact(said, sizeof said, subject, NULL) == ATT_OK &&
                   memcmp(all, said, sizeof all) == 0
               ? ATT_OK
               : bad_form(err, "its subject's digest is not that of its resources");
}

enum att_rc manifest_oms_parse(struct att_slice json, const struct manifest_oms_trust *trust,
                               struct manifest_oms *ret_oms, struct att_err *err)
{
    att_autojson *bundle = NULL, *statement = NULL;
    att_autobuf payload = ATT_BUF_INIT(MANIFEST_OMS_MAX);
    struct manifest_oms oms = {0};
    struct att_err why = {0};
    if (att_json_parse_few(json, MANIFEST_OMS_MAX, VALUES_MAX, &bundle, &why) != ATT_OK) {
        return bad_form(err, why.msg);
    }
    const json_t *envelope = json_object_get(bundle, "dsseEnvelope");
    const char *media = text_at(bundle, "mediaType"), *type = text_at(envelope, "payloadType");
    if (!media || strncmp(media, MEDIA_TYP, strlen(MEDIA_TYP)) != 0) {
        return bad_form(err, "expected a mediaType of a Sigstore bundle");
    }
    if (!json_is_object(envelope) || !type || strcmp(type, PAYLOAD_TYP) != 0 ||
        !base64_at(envelope, "payload", &payload)) {
        return bad_form(err, "expected a DSSE envelope with an in-toto payload");
    }
    enum att_rc rc = check_signature(bundle, envelope, att_buf_slice(&payload), trust, err);
    if (rc != ATT_OK) {
        return rc; /* nothing that is not signed is read further */
    }
    if (att_json_parse_few(att_buf_slice(&payload), MANIFEST_OMS_MAX, VALUES_MAX, &statement,
                           &why) != ATT_OK) {
        return bad_form(err, why.msg);
    }
    rc = take_statement(&oms, statement, err);
    if (rc != ATT_OK) {
        manifest_oms_done(&oms);
        return rc;
    }
    *ret_oms = oms;
    return ATT_OK;
}

/* ---- against the files ---- */

/* The name below dir, NULL: not below it. */
static const char *below(const char *path, const char *dir)
{
    size_t len = strlen(dir);
    return strncmp(path, dir, len) == 0 && path[len] == '/' ? path + len + 1 : NULL;
}

static enum att_rc differs(struct att_err *err, const char *path, const char *expected,
                           const char *is)
{
    (void)!att_fail(err, ATT_E_DENIED, "%.150s: the model-signing bundle has %s, found %s", path,
                    expected, is);
    att_err_reason(err, "bundleFile");
    return ATT_E_DENIED;
}

static enum att_rc check_file(const struct manifest_oms *oms, const struct manifest_file *file,
                              const char *name, struct att_err *err)
{
    char want[2 * ATT_SHA256_LEN + 1], is[2 * ATT_SHA256_LEN + 1];
    struct manifest_oms_file key = {.name = (char *)(uintptr_t)name};
    const struct manifest_oms_file *listed =
        bsearch(&key, oms->files, oms->n, sizeof *oms->files, by_name);
    att_hex(is, ATT_SLICE_ARRAY(file->sha256));
    if (!listed) {
        return differs(err, file->path, "no such file", is);
    }
    att_hex(want, ATT_SLICE_ARRAY(listed->sha256));
    return strcmp(want, is) == 0 ? ATT_OK : differs(err, file->path, want, is);
}

enum att_rc manifest_oms_check(const struct manifest_oms *oms, const struct manifest *manifest,
                               const char *dir, const char *except, struct att_err *err)
{
    for (size_t i = 0; i < manifest->n_files; i++) {
        const struct manifest_file *file = &manifest->files[i];
        const char *name = below(file->path, dir);
        if (name && strcmp(file->path, except) != 0) {
            enum att_rc rc = check_file(oms, file, name, err);
            if (rc != ATT_OK) {
                return rc;
            }
        }
    }
    for (size_t i = 0; i < manifest->n_links; i++) {
        if (below(manifest->links[i].path, dir)) {
            return differs(err, manifest->links[i].path, "no such link", "one");
        }
    }
    for (size_t i = 0; i < oms->n; i++) {
        char path[2 * MANIFEST_PATH_MAX + 2], want[2 * ATT_SHA256_LEN + 1];
        snprintf(path, sizeof path, "%s/%s", dir, oms->files[i].name);
        if (!manifest_find_file(manifest, path)) {
            att_hex(want, ATT_SLICE_ARRAY(oms->files[i].sha256));
            return differs(err, path, want, "nothing");
        }
    }
    return ATT_OK;
}
