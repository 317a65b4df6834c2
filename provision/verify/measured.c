#include "provision/verify/measured.h"

#include "attestd/base/enc.h"
#include "provision/verify/dmverity.h"
#include "provision/verify/steps.h"
#include "tpm/parse/ima.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const enum verify_reason measured_plan[] = {
    VERIFY_REASON_MANIFEST_MISSING, VERIFY_REASON_MANIFEST_ROOT, VERIFY_REASON_MANIFEST_SIGNATURE,
    VERIFY_REASON_MODEL_DIGEST, VERIFY_REASON_MEASURED_LEVEL};
#define N_PLAN (sizeof(measured_plan) / sizeof(measured_plan[0]))

/* What IMA said last of a listed path, in the manifest's hash. */
enum said { SAID_NOTHING = 0, SAID_SAME, SAID_OTHER };
struct path {
    char name[MANIFEST_PATH_MAX + 1]; /* as IMA writes it: "_" for each space */
    const struct manifest_file *file;
    enum said said;
    /* It was another file once in this boot, or one in a hash that cannot be compared. IMA does not
     * list a path and digest twice: if that one came back, nothing would say so. */
    bool was_other;
    char found[2 * ATT_SHA256_LEN + 1]; /* SAID_OTHER */
    bool verity;
    size_t entry;
};

/* ---- the manifest ---------------------------------------------------------------------------- */

static bool read_manifest(const struct verify_measured_in *in, struct manifest *manifest,
                          struct verify_verdict *verdict)
{
    struct att_err err = {0};
    if (in->document.len == 0 || !in->agent->have_manifest_root) {
        verify_fail(verdict, VERIFY_REASON_MANIFEST_MISSING,
                    "the entry demands measured files, the evidence has no %s",
                    in->document.len ? "manifest root" : "manifest");
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_MANIFEST_MISSING, "a manifest of %zu bytes came along",
                in->document.len);
    if (manifest_parse(in->document, manifest, &err) != ATT_OK) {
        verify_fail(verdict, VERIFY_REASON_MANIFEST_ROOT, "%s", err.msg);
        return false;
    }
    if (memcmp(manifest->root, in->agent->manifest_root, ATT_SHA256_LEN) != 0) {
        char sent[2 * ATT_SHA256_LEN + 1], quoted[2 * ATT_SHA256_LEN + 1];
        att_hex(sent, ATT_SLICE_ARRAY(manifest->root));
        att_hex(quoted, ATT_SLICE_ARRAY(in->agent->manifest_root));
        verify_fail(verdict, VERIFY_REASON_MANIFEST_ROOT,
                    "the manifest that was sent has root %s, the quoted evidence names %s", sent,
                    quoted);
        return false;
    }
    return true;
}

static bool check_allowed(const struct verify_measured_in *in, const struct manifest *manifest,
                          struct verify_verdict *verdict)
{
    struct att_err err = {0};
    bool allowed = manifest_allowed(manifest, &in->wanted, &err) == ATT_OK;
    if (!allowed && strcmp(err.reason, "manifestSignature") != 0) {
        verify_fail(verdict, VERIFY_REASON_MANIFEST_ROOT, "%s", err.msg);
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_MANIFEST_ROOT, "the manifest is the one that was quoted");
    if (!allowed) {
        verify_fail(verdict, VERIFY_REASON_MANIFEST_SIGNATURE, "%s", err.msg);
        return false;
    }
    if (in->wanted.n_signers) {
        verify_pass(verdict, VERIFY_REASON_MANIFEST_SIGNATURE,
                    "the entry names its root or its signer");
    } else {
        verify_skip(verdict, VERIFY_REASON_MANIFEST_SIGNATURE, "the entry names its root");
    }
    return true;
}

/* ---- what the kernel says -------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct path *)a)->name, ((const struct path *)b)->name);
}

static struct path *paths_of(const struct manifest *manifest)
{
    struct path *paths = calloc(manifest->n_files, sizeof(*paths));
    for (size_t i = 0; paths && i < manifest->n_files; i++) {
        char *name = paths[i].name;
        memcpy(name, manifest->files[i].path, strlen(manifest->files[i].path) + 1);
        while ((name = strchr(name, ' ')) != NULL) {
            *name = '_';
        }
        paths[i].file = &manifest->files[i];
    }
    if (paths) {
        qsort(paths, manifest->n_files, sizeof(*paths), by_name);
    }
    return paths;
}

static void hear(struct path *path, const struct parse_ima_entry *entry)
{
    if (strcmp(entry->alg, "sha256") != 0 || entry->file.len != ATT_SHA256_LEN) {
        path->was_other = true; /* and what was said before stays said */
        return;
    }
    path->verity = strcmp(entry->kind, "verity") == 0;
    path->entry = entry->number;
    const uint8_t *want = path->verity ? path->file->verity : path->file->sha256;
    path->said = memcmp(entry->file.ptr, want, ATT_SHA256_LEN) == 0 ? SAID_SAME : SAID_OTHER;
    path->was_other |= path->said == SAID_OTHER;
    att_hex(path->found, entry->file);
}

/* All that leads to the quoted PCR: where the host cuts its list in data and tail is its own
 * choice.
 */
static bool listen_to(struct att_slice list_bytes, struct path *paths, size_t n,
                      size_t *ret_violations, struct att_err *err)
{
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    enum att_rc rc = parse_ima_init(&list, list_bytes, err);
    while (rc == ATT_OK) {
        struct parse_ima_entry entry;
        rc = parse_ima_next(&list, &entry, err);
        if (rc != ATT_OK) {
            break;
        }
        if (entry.violation) { /* its name is bound to nothing */
            ++*ret_violations;
            continue;
        }
        struct path key;
        if (entry.name.len >= sizeof(key.name)) {
            continue;
        }
        memcpy(key.name, entry.name.ptr, entry.name.len);
        key.name[entry.name.len] = '\0';
        struct path *path = bsearch(&key, paths, n, sizeof(*paths), by_name);
        if (path) {
            hear(path, &entry);
        }
    }
    return rc == ATT_E_NOTFOUND;
}

static bool contradicted(const struct path *paths, size_t n, struct verify_verdict *verdict)
{
    for (size_t i = 0; i < n; i++) {
        if (paths[i].said == SAID_OTHER) {
            char want[2 * ATT_SHA256_LEN + 1];
            att_hex(want, ATT_SLICE(paths[i].verity ? paths[i].file->verity : paths[i].file->sha256,
                                    ATT_SHA256_LEN));
            verify_fail(verdict, VERIFY_REASON_MODEL_DIGEST,
                        "%.110s: the manifest has %s %s, IMA's entry %zu, the last of it, %s",
                        paths[i].file->path, paths[i].verity ? "verity" : "sha256", want,
                        paths[i].entry, paths[i].found);
            return true;
        }
    }
    return false;
}

/* The list as far as it was replayed. */
static bool whole_list(const struct evidence_log *ima, size_t used, struct att_buf *room,
                       struct att_slice *ret, struct att_err *err)
{
    struct att_slice bytes = verify_step_whole(ima, room);
    if (att_buf_ok(room, err) != ATT_OK) {
        return false;
    }
    if (used == 0 || used > bytes.len) {
        (void)!att_fail(err, ATT_E_INTERNAL, "%zu of its %zu bytes were replayed", used, bytes.len);
        return false;
    }
    bytes.len = used;
    *ret = bytes;
    return true;
}

/* Level 2 is reached; is 3? False: ret_lacks says what is missing. */
static bool on_device(const struct verify_measured_in *in, struct att_slice list,
                      const struct verify_verdict *verdict, uint8_t ret_root[ATT_SHA256_LEN],
                      char ret_lacks[VERIFY_DETAIL_MAX])
{
    const struct verify_agent_facts *agent = in->agent;
    const struct verify_dmverity_boot boot = {.boot = in->boot,
                                              .quoted = in->quoted,
                                              .systemd_used = agent->systemd_used,
                                              .command_line = agent->command_line,
                                              .verdict = verdict};
    char event[VERIFY_DETAIL_MAX] = "";
    if (!agent->has_device || !in->boot || !in->quoted) {
        (void)snprintf(ret_lacks, VERIFY_DETAIL_MAX,
                       "the host names no device that has all of the files");
        return false;
    }
    if (!verify_dmverity_device(list, agent->device_major, agent->device_minor, ret_root, ret_lacks,
                                VERIFY_DETAIL_MAX)) {
        return false;
    }
    if (!verify_dmverity_booted(&boot, ret_root, event, sizeof(event))) {
        memcpy(ret_lacks, event, VERIFY_DETAIL_MAX);
        return false;
    }
    return true;
}

static void ask_device(const struct verify_measured_in *in, struct att_slice list,
                       const struct verify_verdict *verdict, struct verify_measured_facts *facts)
{
    uint8_t root[ATT_SHA256_LEN];
    if (on_device(in, list, verdict, root, facts->lacks)) {
        memcpy(facts->verity_root, root, sizeof(facts->verity_root));
        facts->level = 3;
    }
}

static bool ask_kernel(const struct verify_measured_in *in, const struct manifest *manifest,
                       struct verify_verdict *verdict, struct verify_measured_facts *facts)
{
    const struct evidence_log *ima =
        in->logs_asked & VERIFY_LOG_IMA ? evidence_logs_find(in->logs, "ima") : NULL;
    size_t violations = 0;
    struct att_err err = {0};
    att_autobuf room = {0};
    struct att_slice list = {0};
    facts->level = 1;
    if (!ima) {
        verify_skip(verdict, VERIFY_REASON_MODEL_DIGEST,
                    "IMA's list is not among the logs: the host's own word");
        return true;
    }
    struct path *paths = paths_of(manifest);
    if (!paths || !whole_list(ima, in->agent->ima_used, &room, &list, &err) ||
        !listen_to(list, paths, manifest->n_files, &violations, &err)) {
        verify_fail(verdict, VERIFY_REASON_INTERNAL, "IMA's list: %s", err.msg);
        free(paths);
        return false;
    }
    bool bad = contradicted(paths, manifest->n_files, verdict);
    for (size_t i = 0; i < manifest->n_files; i++) {
        facts->n_ima += paths[i].said == SAID_SAME && !paths[i].was_other;
        facts->n_replaced += paths[i].said == SAID_SAME && paths[i].was_other;
    }
    free(paths);
    if (bad) {
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_MODEL_DIGEST,
                "IMA's list has %zu of the %zu files, none with another digest now", facts->n_ima,
                manifest->n_files);
    facts->level = facts->n_ima == manifest->n_files && violations == 0 ? 2 : 1;
    if (facts->level == 2) {
        ask_device(in, list, verdict, facts);
    }
    return true;
}

static bool judge(const struct verify_measured_in *in, struct verify_verdict *verdict,
                  struct verify_measured_facts *facts)
{
    ATT_CLEANUP(manifest_done) struct manifest manifest = {0};
    if (!read_manifest(in, &manifest, verdict) || !check_allowed(in, &manifest, verdict)) {
        return false;
    }
    memcpy(facts->root, manifest.root, sizeof(facts->root));
    facts->n_files = manifest.n_files;
    if (!ask_kernel(in, &manifest, verdict, facts)) {
        return false;
    }
    if (facts->level == 2 && in->level == 3) {
        verify_fail(verdict, VERIFY_REASON_MEASURED_LEVEL,
                    "level 3 is demanded, level 2 is reached: %.270s", facts->lacks);
        return false;
    }
    if (facts->level < in->level) {
        verify_fail(verdict, VERIFY_REASON_MEASURED_LEVEL,
                    "level %u is demanded, level %u is reached: IMA's list confirms %zu of %zu "
                    "files%s",
                    in->level, facts->level, facts->n_ima, facts->n_files,
                    facts->n_replaced ? "; others of them were other files before in this boot, "
                                        "and may be again unseen: reboot"
                                      : "");
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_MEASURED_LEVEL, "level %u of %u demanded", facts->level,
                in->level);
    return true;
}

enum verify_result verify_measured(const struct verify_measured_in *in,
                                   struct verify_verdict *verdict,
                                   struct verify_measured_facts *ret)
{
    struct verify_measured_facts facts = {0};
    if (verify_verdict_failed(verdict)) {
        return VERIFY_REFUSED;
    }
    if (!in->demanded) {
        *ret = facts;
        return VERIFY_ACCEPTED;
    }
    verify_plan(verdict, measured_plan, N_PLAN);
    if (!judge(in, verdict, &facts) || verify_verdict_result(verdict) != VERIFY_ACCEPTED) {
        return VERIFY_REFUSED;
    }
    *ret = facts;
    return VERIFY_ACCEPTED;
}
