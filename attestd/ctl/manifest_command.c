/* attestctl manifest create, check, sign: what an agent is made of. Needs no daemon. */
#include "attestd/ctl/manifest.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/workload/measure.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "provision/manifest/sign.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define READ_FOR_MS ((int64_t)3600 * 1000) /* one file, at most */

const struct ctl_command ctl_manifest_commands[] = {
    {.noun = "manifest",
     .verb = "create",
     .help = "digests of an agent's files, ROLE=PATH or PATH each; enables fs-verity on them",
     .params = {{CTL_WORDS, "PATH", "paths", true},
                {CTL_OPTION, "out", NULL, false},
                {CTL_OPTION, "key", NULL, false},
                {CTL_FLAG, "no-verity", NULL, false},
                {CTL_OPTION, "bundle", NULL, false},
                {CTL_OPTION, "bundle-dir", NULL, false},
                {CTL_OPTION, "bundle-key", NULL, false},
                {CTL_OPTION, "bundle-roots", NULL, false}},
     .show = ctl_manifest_create},
    {.noun = "manifest",
     .verb = "check",
     .help = "compares this machine's files with a manifest, and its signer",
     .params = {{CTL_POSITIONAL, "FILE", NULL, true},
                {CTL_OPTION, "signer", NULL, false},
                {CTL_OPTION, "root", NULL, false},
                {CTL_OPTION, "bundle", NULL, false},
                {CTL_OPTION, "bundle-dir", NULL, false},
                {CTL_OPTION, "bundle-key", NULL, false},
                {CTL_OPTION, "bundle-roots", NULL, false}},
     .show = ctl_manifest_check},
    {.noun = "manifest",
     .verb = "sign",
     .help = "signs a manifest with an operator's P-256 key; says the signer's digest",
     .params = {{CTL_POSITIONAL, "FILE", NULL, true},
                {CTL_OPTION, "key", NULL, true},
                {CTL_OPTION, "out", NULL, false}},
     .show = ctl_manifest_sign},
    {.noun = NULL},
};

static const char *option(const struct ctl_args *args, const char *name)
{
    return json_string_value(json_object_get(args->json, name));
}

/* ---- out ---- */

static enum att_rc sign_with(struct manifest *manifest, const char *key_file, struct att_err *err)
{
    certs_autokey *key = NULL;
    enum att_rc rc = certs_key_load(key_file, &key, err);
    return rc == ATT_OK ? manifest_sign(manifest, key, err) : rc;
}

static enum att_rc write_out(const struct manifest *manifest, const char *path, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(MANIFEST_MAX);
    enum att_rc rc = manifest_encode(manifest, &text, err);
    if (rc == ATT_OK && path) {
        /* It holds no secret, and whod tells it only where everybody may read it. */
        return att_io_write_file(path, att_buf_slice(&text), 0644, err);
    }
    if (rc == ATT_OK && (fwrite(text.ptr, 1, text.len, stdout) != text.len || fflush(stdout))) {
        rc = att_fail_errno(err, ATT_E_IO, "standard output");
    }
    return rc;
}

/* To stderr: standard output may be the manifest. */
static void tell(const struct manifest *manifest)
{
    char root[2 * ATT_SHA256_LEN + 1], signer[2 * ATT_SHA256_LEN + 1] = "";
    uint8_t sha256[ATT_SHA256_LEN];
    att_hex(root, ATT_SLICE_ARRAY(manifest->root));
    if (manifest_verify(manifest, sha256, NULL) == ATT_OK) {
        att_hex(signer, ATT_SLICE_ARRAY(sha256));
    }
    fprintf(stderr, "root %s\n", root);
    if (signer[0]) {
        fprintf(stderr, "signer %s\n", signer);
    }
}

enum ctl_exit ctl_manifest_create(const struct ctl_ctx *ctx, const struct ctl_args *args,
                                  const json_t *result)
{
    (void)ctx;
    (void)result;
    ATT_CLEANUP(manifest_done) struct manifest manifest = {0};
    struct ctl_manifest_made made;
    struct att_err err = {0};
    enum att_rc rc =
        ctl_manifest_make(json_object_get(args->json, "paths"),
                          !json_object_get(args->json, "no-verity"), &manifest, &made, &err);
    if (rc == ATT_OK) {
        rc = ctl_manifest_bundle(args, &manifest, &err);
    }
    if (rc == ATT_OK && option(args, "key")) {
        rc = sign_with(&manifest, option(args, "key"), &err);
    }
    if (rc == ATT_OK) {
        rc = write_out(&manifest, args->out, &err);
    }
    if (rc != ATT_OK) {
        return ctl_report(&err);
    }
    fprintf(stderr, "%zu files, %zu links, %zu folders; fs-verity on %zu%s%s%s\n", manifest.n_files,
            manifest.n_links, manifest.n_dirs, made.enabled, made.without ? " (" : "",
            made.without ? made.why : "", made.without ? ")" : "");
    tell(&manifest);
    return CTL_OK;
}

static enum att_rc load(const char *path, struct manifest *ret, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(MANIFEST_MAX);
    enum att_rc rc = att_io_read_file(path, MANIFEST_MAX, &text, err);
    if (rc == ATT_OK) {
        rc = manifest_parse(att_buf_slice(&text), ret, err);
        if (rc != ATT_OK) {
            att_err_prefix(err, "%s", path);
        }
    }
    return rc;
}

enum ctl_exit ctl_manifest_sign(const struct ctl_ctx *ctx, const struct ctl_args *args,
                                const json_t *result)
{
    (void)ctx;
    (void)result;
    ATT_CLEANUP(manifest_done) struct manifest manifest = {0};
    struct att_err err = {0};
    const char *path = option(args, "FILE");
    enum att_rc rc = load(path, &manifest, &err);
    if (rc == ATT_OK) {
        rc = sign_with(&manifest, option(args, "key"), &err);
    }
    if (rc == ATT_OK) {
        rc = write_out(&manifest, args->out ? args->out : path, &err);
    }
    if (rc != ATT_OK) {
        return ctl_report(&err);
    }
    tell(&manifest);
    return CTL_OK;
}

/* ---- check ---- */

static enum att_rc measure(void *user, const struct manifest_ask *asks, size_t n,
                           struct manifest_seen *ret, struct att_err *err)
{
    const int *root = user;
    (void)err;
    struct workload_measured seen;
    for (size_t i = 0; i < n; i++) {
        /* Read also where the size says that it is another: people want to see both digests. */
        struct workload_measuring how = {.deadline_ms = att_boottime_ms() + READ_FOR_MS,
                                         .size = UINT64_MAX};
        workload_measure(*root, asks[i].path, &how, &seen);
        ret[i].kind = (enum manifest_kind)seen.kind;
        ret[i].size = seen.size;
        ret[i].has_verity = seen.has_verity;
        ret[i].has_sha256 = seen.has_sha256;
        memcpy(ret[i].verity, seen.verity, sizeof seen.verity);
        memcpy(ret[i].sha256, seen.sha256, sizeof seen.sha256);
        memcpy(ret[i].text, seen.text, sizeof seen.text);
    }
    return ATT_OK;
}
_Static_assert((int)WORKLOAD_NOT_YET == (int)MANIFEST_NOT_YET &&
                   (int)WORKLOAD_SYMLINK == (int)MANIFEST_SYMLINK,
               "the same kinds in the same order");
_Static_assert(WORKLOAD_MEASURE_PATH_MAX == MANIFEST_PATH_MAX, "one bound");

static enum att_rc list(void *user, const char *path, struct manifest_name **ret_names,
                        size_t *ret_n, struct att_err *err)
{
    const int *root = user;
    struct workload_name *names = NULL;
    enum att_rc rc = workload_list(*root, path, &names, ret_n, err);
    struct manifest_name *copy = NULL;
    if (rc == ATT_OK && *ret_n && !(copy = calloc(*ret_n, sizeof *copy))) {
        rc = att_fail(err, ATT_E_NOMEM, "names");
    }
    for (size_t i = 0; rc == ATT_OK && i < *ret_n; i++) {
        memcpy(copy[i].name, names[i].name, sizeof copy[i].name);
        copy[i].kind = (enum manifest_kind)names[i].kind;
    }
    free(names);
    *ret_names = copy;
    return rc;
}

enum att_rc ctl_manifest_look(const struct manifest *manifest, struct manifest_report *ret_report,
                              struct att_err *err)
{
    att_autofd root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    struct manifest_prober prober = {.user = &root, .measure = measure, .list = list};
    return root >= 0 ? manifest_check(manifest, &prober, ret_report, err)
                     : att_fail_errno(err, ATT_E_IO, "/");
}

/* What the operator says it must be. */
static enum att_rc check_expected(const struct ctl_args *args, const struct manifest *manifest,
                                  char ret_signer[2 * ATT_SHA256_LEN + 1], struct att_err *err)
{
    const char *root = option(args, "root"), *signer = option(args, "signer");
    char is[2 * ATT_SHA256_LEN + 1];
    uint8_t sha256[ATT_SHA256_LEN];
    att_hex(is, ATT_SLICE_ARRAY(manifest->root));
    if (root && strcmp(root, is) != 0) {
        (void)!att_fail(err, ATT_E_DENIED, "the manifest has root %s, expected %.64s", is, root);
        att_err_reason(err, "manifestRoot");
        return ATT_E_DENIED;
    }
    ret_signer[0] = 0;
    if (!manifest->signature && !signer) {
        return ATT_OK;
    }
    enum att_rc rc = manifest_verify(manifest, sha256, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_hex(ret_signer, ATT_SLICE_ARRAY(sha256));
    if (signer && strcmp(signer, ret_signer) != 0) {
        rc = att_fail(err, ATT_E_DENIED, "the manifest is signed by %s, expected %.64s", ret_signer,
                      signer);
        att_err_reason(err, "manifestSignature");
    }
    return rc;
}

static json_t *report_json(const struct manifest *manifest, const struct manifest_report *report,
                           const char *signer)
{
    char root[2 * ATT_SHA256_LEN + 1];
    att_hex(root, ATT_SLICE_ARRAY(manifest->root));
    json_t *findings = json_array();
    for (size_t i = 0; i < report->n && i < MANIFEST_FINDINGS_MAX; i++) {
        const struct manifest_finding *f = &report->findings[i];
        json_array_append_new(findings,
                              json_pack("{s:s, s:s, s:s}", "path", f->path, "is",
                                        manifest_trouble_name(f->trouble), "text", f->text));
    }
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:o}", "root", root, "signer", signer, "files",
                     (json_int_t)manifest->n_files, "byVerity", (json_int_t)report->by_verity,
                     "bySha256", (json_int_t)report->by_sha256, "differences",
                     (json_int_t)report->n, "findings", findings);
}

static void print_report(const struct manifest *manifest, const struct manifest_report *report,
                         const char *signer)
{
    char root[2 * ATT_SHA256_LEN + 1];
    att_hex(root, ATT_SLICE_ARRAY(manifest->root));
    for (size_t i = 0; i < report->n && i < MANIFEST_FINDINGS_MAX; i++) {
        const struct manifest_finding *f = &report->findings[i];
        printf("%-8s %s\n         %s\n", manifest_trouble_name(f->trouble), f->path, f->text);
    }
    printf("root %s\nsigner %s\n", root, signer[0] ? signer : "none");
    printf("%zu files agree by fs-verity, %zu by reading; %zu differences\n", report->by_verity,
           report->by_sha256, report->n);
}

enum ctl_exit ctl_manifest_check(const struct ctl_ctx *ctx, const struct ctl_args *args,
                                 const json_t *result)
{
    (void)result;
    ATT_CLEANUP(manifest_done) struct manifest manifest = {0};
    struct manifest_report *report = calloc(1, sizeof *report);
    char signer[2 * ATT_SHA256_LEN + 1] = "";
    struct att_err err = {0};
    enum att_rc rc = report ? load(option(args, "FILE"), &manifest, &err)
                            : att_fail(&err, ATT_E_NOMEM, "report");
    if (rc == ATT_OK) {
        rc = check_expected(args, &manifest, signer, &err);
    }
    if (rc == ATT_OK) {
        rc = ctl_manifest_bundle(args, &manifest, &err);
    }
    if (rc == ATT_OK) {
        rc = ctl_manifest_look(&manifest, report, &err);
    }
    if (rc == ATT_OK && ctx->json) {
        att_autojson *json = report_json(&manifest, report, signer);
        ctl_print_json(json);
    } else if (rc == ATT_OK) {
        print_report(&manifest, report, signer);
    }
    if (rc == ATT_OK) {
        rc = manifest_report_err(report, &err);
    }
    free(report);
    return rc == ATT_OK ? CTL_OK : ctl_report(&err);
}
