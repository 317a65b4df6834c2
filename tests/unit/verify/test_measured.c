/* verify_measured: one thing wrong at a time; what IMA says is a guest's own list
 * (tests/vectors/ima: template ima-ngv2, one file under fs-verity). */
#include "tests/unit/verify/harness.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "provision/verify/measured.h"

#include <stdlib.h>

#define VERITY_FILE "/mnt/verity.bin"
#define VERITY      "41538d55bccb86736a021cd76139682d96e2941788781ea6ba9265c55785ac1d"
#define WEIGHTS     "/mnt/weights 0.bin" /* IMA writes "_" for the space */
#define WEIGHTS_SHA "84dffa49d5d2baef678d2601f70969dfdca8b3ba3a2ece8bba90142c3c7a1bad"
#define PYTHON      "/bin/busybox"
#define PYTHON_SHA  "3d9f2889d6782537624a4e1a10e68a2ddd53e0ee8bac02676f27308f42ec6bf6"

struct rig {
    struct manifest manifest;
    struct att_buf document, ima;
    struct evidence_logs logs;
    struct verify_agent_facts agent;
    char root[2 * ATT_SHA256_LEN + 1];
    char *roots[1], *signers[1];
    struct verify_measured_in in;
};

static void put_file(struct rig *r, const char *path, enum manifest_role role, const char *sha256,
                     const char *verity)
{
    struct manifest_file file = {.path = (char *)(uintptr_t)path, .role = role, .size = 1};
    memset(file.sha256, 0xee, sizeof(file.sha256));
    memset(file.verity, 0xee, sizeof(file.verity));
    assert_true(!sha256 || att_unhex_exact(file.sha256, 32, sha256, NULL) == ATT_OK);
    assert_true(!verity || att_unhex_exact(file.verity, 32, verity, NULL) == ATT_OK);
    assert_int_equal(manifest_add_file(&r->manifest, &file, NULL), ATT_OK);
}

static void finish(struct rig *r)
{
    assert_int_equal(manifest_finish(&r->manifest, NULL), ATT_OK);
    att_buf_reset(&r->document);
    assert_int_equal(manifest_encode(&r->manifest, &r->document, NULL), ATT_OK);
    att_hex(r->root, ATT_SLICE_ARRAY(r->manifest.root));
    memcpy(r->agent.manifest_root, r->manifest.root, ATT_SHA256_LEN);
    r->agent.have_manifest_root = true;
    r->in.document = att_buf_slice(&r->document);
}

/* The guest's list without its last entry, a violation. */
static void load_ima(struct rig *r, bool violation)
{
    char path[4300];
    const char *vectors = getenv("ATT_VECTORS");
    (void)snprintf(path, sizeof(path), "%s/ima/ima.ascii", vectors ? vectors : "tests/vectors");
    assert_int_equal(att_io_read_file(path, (size_t)4 << 20, &r->ima, NULL), ATT_OK);
    if (!violation) {
        size_t end = r->ima.len - 1;
        while (r->ima.ptr[end - 1] != '\n') {
            end--;
        }
        r->ima.len = end;
    }
    assert_int_equal(evidence_logs_add(&r->logs, "ima", att_buf_slice(&r->ima), NULL), ATT_OK);
    r->agent.ima_used = r->ima.len;
}

/* One more entry, before or behind where the host cuts its list. */
static void measured_next(struct rig *r, bool in_tail, const char *digest, const char *path)
{
    char line[400];
    struct evidence_log *log = &r->logs.log[0];
    struct att_buf *part = in_tail ? &log->tail : &log->data;
    (void)snprintf(line, sizeof(line),
                   "10 0123456789abcdef0123456789abcdef01234567 ima-ngv2 %s %s\n", digest, path);
    if (in_tail && part->max == 0) {
        *part = ATT_BUF_INIT(EVIDENCE_TAIL_MAX);
    }
    att_buf_put_str(part, line);
    assert_int_equal(att_buf_ok(part, NULL), ATT_OK);
    r->agent.ima_used = log->data.len + log->tail.len;
}

static void rig_new(struct rig *r, bool violation)
{
    memset(r, 0, sizeof(*r));
    put_file(r, PYTHON, MANIFEST_EXECUTABLE, PYTHON_SHA, NULL);
    put_file(r, VERITY_FILE, MANIFEST_MODEL, NULL, VERITY);
    put_file(r, WEIGHTS, MANIFEST_MODEL, WEIGHTS_SHA, NULL);
    load_ima(r, violation);
    r->roots[0] = r->root;
    r->in = (struct verify_measured_in){.demanded = true,
                                        .wanted = {r->roots, 1, NULL, 0},
                                        .level = 2,
                                        .logs = &r->logs,
                                        .logs_asked = VERIFY_LOG_IMA | VERIFY_LOG_FIRMWARE,
                                        .agent = &r->agent};
    finish(r);
}

static void rig_done(struct rig *r)
{
    manifest_done(&r->manifest);
    att_buf_done(&r->document);
    att_buf_done(&r->ima);
    evidence_logs_done(&r->logs);
}

static void accepted(struct rig *r, unsigned level, size_t by_ima)
{
    struct verify_measured_facts facts = {0};
    verify_autoverdict *verdict = verify_verdict_new();
    enum verify_result result = verify_measured(&r->in, verdict, &facts);
    if (result != VERIFY_ACCEPTED) {
        struct att_err err = {0};
        (void)!verify_verdict_err(verdict, &err);
        fail_msg("refused: %s: %s", err.reason, err.msg);
    }
    assert_int_equal(facts.level, level);
    assert_int_equal(facts.n_ima, by_ima);
    rig_done(r);
}

static void refused(struct rig *r, const char *reason, const char *one, const char *two)
{
    struct verify_measured_facts facts = {.level = 99};
    struct att_err err = {0};
    verify_autoverdict *verdict = verify_verdict_new();
    assert_int_equal(verify_measured(&r->in, verdict, &facts), VERIFY_REFUSED);
    assert_int_equal(facts.level, 99);
    assert_int_equal(verify_verdict_err(verdict, &err), ATT_E_DENIED);
    assert_string_equal(err.reason, reason);
    if (!strstr(err.msg, one) || !strstr(err.msg, two)) {
        fail_msg("expected \"%s\" and \"%s\": %s", one, two, err.msg);
    }
    rig_done(r);
}

static void test_no_manifest(void **state)
{
    (void)state;
    struct rig r;
    rig_new(&r, false);
    r.in.document = (struct att_slice){0};
    refused(&r, "manifestMissing", "no manifest", "demands");
    rig_new(&r, false);
    r.agent.have_manifest_root = false; /* one that no quote speaks of */
    refused(&r, "manifestMissing", "no manifest root", "demands");
}

static void test_other_than_quoted(void **state)
{
    (void)state;
    struct rig r;
    rig_new(&r, false);
    r.agent.manifest_root[0] ^= 1;
    refused(&r, "manifestRoot", r.root, "quoted evidence names");
}

static void test_edited(void **state)
{
    (void)state;
    struct rig r;
    rig_new(&r, false);
    uint8_t *size = (uint8_t *)strstr((char *)r.document.ptr, "\"size\":1") + 7;
    *size = '2';
    refused(&r, "manifestRoot", "what it lists has root", r.root);
    rig_new(&r, false);
    r.in.document.len -= 2;
    refused(&r, "manifestRoot", "JSON", "manifest");
}

static void test_not_allowed(void **state)
{
    (void)state;
    struct rig r;
    char other[] = PYTHON_SHA;
    rig_new(&r, false);
    r.roots[0] = other;
    refused(&r, "manifestRoot", r.root, PYTHON_SHA);
}

static void test_signers(void **state)
{
    (void)state;
    certs_autokey *key = NULL, *stranger = NULL;
    char signer[2 * ATT_SHA256_LEN + 1];
    uint8_t sha256[ATT_SHA256_LEN];
    struct rig r;
    assert_int_equal(certs_key_generate(&key, NULL), ATT_OK);
    assert_int_equal(certs_key_generate(&stranger, NULL), ATT_OK);
    assert_int_equal(certs_key_spki_sha256(key, sha256, NULL), ATT_OK);
    att_hex(signer, ATT_SLICE_ARRAY(sha256));

    rig_new(&r, false);
    r.signers[0] = signer;
    r.in.wanted = (struct manifest_wanted){NULL, 0, r.signers, 1};
    refused(&r, "manifestSignature", "not signed", "");

    rig_new(&r, false);
    r.in.wanted = (struct manifest_wanted){NULL, 0, r.signers, 1};
    r.signers[0] = signer;
    assert_int_equal(manifest_sign(&r.manifest, stranger, NULL), ATT_OK);
    finish(&r);
    refused(&r, "manifestSignature", "signed by", signer);

    rig_new(&r, false);
    r.in.wanted = (struct manifest_wanted){NULL, 0, r.signers, 1};
    r.signers[0] = signer;
    assert_int_equal(manifest_sign(&r.manifest, key, NULL), ATT_OK);
    char *last = r.manifest.signature + strlen(r.manifest.signature) - 5;
    *last = *last == 'A' ? 'B' : 'A';
    finish(&r);
    refused(&r, "manifestSignature", "does not hold", "");

    rig_new(&r, false);
    r.in.wanted = (struct manifest_wanted){NULL, 0, r.signers, 1};
    r.signers[0] = signer;
    assert_int_equal(manifest_sign(&r.manifest, key, NULL), ATT_OK);
    finish(&r);
    accepted(&r, 2, 3);
}

/* The kernel measured something else under a listed path: both digests are named. */
static void test_ima_contradicts(void **state)
{
    (void)state;
    struct rig r;
    rig_new(&r, false);
    r.in.level = 1; /* also where the host's word alone would do */
    put_file(&r, "/mnt/weights_2.bin", MANIFEST_MODEL, WEIGHTS_SHA, NULL);
    finish(&r);
    refused(&r, "modelDigest", "/mnt/weights_2.bin: the manifest has sha256 " WEIGHTS_SHA,
            "3624cdd10aae9f01354bed4173591ece49bfdc0abdc85c5af67fab7b0c8bb5cb");
}

static void test_verity_contradicts(void **state)
{
    (void)state;
    struct rig r;
    rig_new(&r, false);
    for (size_t i = 0; i < r.manifest.n_files; i++) {
        if (strcmp(r.manifest.files[i].path, VERITY_FILE) == 0) {
            memset(r.manifest.files[i].verity, 9, ATT_SHA256_LEN);
        }
    }
    finish(&r);
    refused(&r, "modelDigest", VERITY_FILE ": the manifest has verity 0909", VERITY);
}

#define OTHER_SHA "3624cdd10aae9f01354bed4173591ece49bfdc0abdc85c5af67fab7b0c8bb5cb"

/* What the host calls the tail is as much of the quoted PCR as the rest. */
static void test_ima_tail(void **state)
{
    (void)state;
    struct rig r;
    rig_new(&r, false);
    r.in.level = 1;
    measured_next(&r, true, "ima:sha256:" OTHER_SHA, PYTHON);
    refused(&r, "modelDigest", PYTHON ": the manifest has sha256 " PYTHON_SHA, OTHER_SHA);
    rig_new(&r, false); /* a listed file that is there only */
    put_file(&r, "/opt/prompt.txt", MANIFEST_PROMPT, WEIGHTS_SHA, NULL);
    finish(&r);
    measured_next(&r, true, "ima:sha256:" WEIGHTS_SHA, "/opt/prompt.txt");
    accepted(&r, 2, 4);
    rig_new(&r, false); /* behind what was quoted: the next certificate's affair */
    size_t used = r.agent.ima_used;
    measured_next(&r, true, "ima:sha256:" OTHER_SHA, PYTHON);
    r.agent.ima_used = used;
    accepted(&r, 2, 3);
    rig_new(&r, false); /* asked for, and nobody says how far it was replayed */
    r.agent.ima_used = 0;
    struct verify_measured_facts facts = {0};
    verify_autoverdict *verdict = verify_verdict_new();
    assert_int_equal(verify_measured(&r.in, verdict, &facts), VERIFY_REFUSED);
    rig_done(&r);
}

/* The other file, then the right one: were the other one put back, IMA would not list it again. */
static void test_ima_lists_once(void **state)
{
    (void)state;
    struct rig r;
    rig_new(&r, false);
    measured_next(&r, false, "ima:sha256:" OTHER_SHA, PYTHON);
    measured_next(&r, false, "ima:sha256:" PYTHON_SHA, PYTHON);
    refused(&r, "measuredLevel", "2 of 3 files", "reboot");
    rig_new(&r, false);
    r.in.level = 1;
    measured_next(&r, true, "ima:sha256:" OTHER_SHA, PYTHON);
    measured_next(&r, true, "ima:sha256:" PYTHON_SHA, PYTHON);
    accepted(&r, 1, 2);
}

/* Of a digest in another hash nothing is known, and it takes nothing back. */
static void test_ima_another_hash(void **state)
{
    (void)state;
    struct rig r;
    rig_new(&r, false);
    r.in.level = 1;
    measured_next(&r, false, "ima:sha256:" OTHER_SHA, PYTHON);
    measured_next(&r, false, "ima:sha1:0123456789abcdef0123456789abcdef01234567", PYTHON);
    refused(&r, "modelDigest", PYTHON_SHA, OTHER_SHA);
    rig_new(&r, false);
    measured_next(&r, false, "ima:sha1:0123456789abcdef0123456789abcdef01234567", PYTHON);
    measured_next(&r, false, "ima:sha256:" PYTHON_SHA, PYTHON);
    refused(&r, "measuredLevel", "2 of 3 files", "reboot");
}

static void test_level_not_reached(void **state)
{
    (void)state;
    struct rig r;
    rig_new(&r, false); /* a file that IMA never saw */
    put_file(&r, "/opt/prompt.txt", MANIFEST_PROMPT, WEIGHTS_SHA, NULL);
    finish(&r);
    refused(&r, "measuredLevel", "level 2 is demanded, level 1 is reached", "3 of 4 files");
    rig_new(&r, false); /* a list that was not asked for was not replayed either */
    r.in.logs_asked = VERIFY_LOG_FIRMWARE;
    refused(&r, "measuredLevel", "level 1 is reached", "0 of");
    rig_new(&r, true); /* a violation: the kernel could not measure something */
    refused(&r, "measuredLevel", "level 1 is reached", "3 of 3");
}

static void test_levels(void **state)
{
    (void)state;
    struct rig r;
    rig_new(&r, false);
    accepted(&r, 2, 3); /* sha256, verity, and a name with a space */
    rig_new(&r, true);
    r.in.level = 1;
    accepted(&r, 1, 3);
    rig_new(&r, false);
    r.in.level = 1;
    r.in.logs_asked = 0;
    accepted(&r, 1, 0);
    rig_new(&r, false);
    r.in.demanded = false;
    r.in.document = (struct att_slice){0};
    accepted(&r, 0, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_manifest),
        cmocka_unit_test(test_other_than_quoted),
        cmocka_unit_test(test_edited),
        cmocka_unit_test(test_not_allowed),
        cmocka_unit_test(test_signers),
        cmocka_unit_test(test_ima_contradicts),
        cmocka_unit_test(test_verity_contradicts),
        cmocka_unit_test(test_ima_tail),
        cmocka_unit_test(test_ima_lists_once),
        cmocka_unit_test(test_ima_another_hash),
        cmocka_unit_test(test_level_not_reached),
        cmocka_unit_test(test_levels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
