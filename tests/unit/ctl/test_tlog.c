/* attestctl's own verifier of the audit log: notes, trees, folders and proofs of a key that the
 * test holds, so that what is looked at behind the signature is reached, each refusal alone. */
#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "attestd/base/io.h"
#include "attestd/ctl/tlog.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define ORIGIN "issuer.example/log"
#define DASH   "\xe2\x80\x94 "
#define HANGS  60 /* seconds after which a call that does not end has failed */

static EVP_PKEY *signer, *tpms[2];
static struct tlog_key key;
static struct tlog_tpm_keys tpm_keys;
static char dir[64];

/* ---- a log's side ---- */

static void put_line(struct att_buf *note, const char *name, const uint8_t id[4],
                     struct att_slice sig)
{
    att_autobuf raw = {0};
    att_buf_put(&raw, id, 4);
    att_buf_put_slice(&raw, sig);
    att_buf_put_str(note, DASH);
    att_buf_put_str(note, name);
    att_buf_u8(note, ' ');
    att_buf_b64(note, att_buf_slice(&raw));
    att_buf_u8(note, '\n');
}

/* wrong: a signature of other bytes. */
static void sign(struct att_buf *note, EVP_PKEY *with, const uint8_t id[4], const char *text,
                 bool wrong)
{
    uint8_t sig[128];
    size_t len = sizeof sig;
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    const EVP_MD *hash = EVP_PKEY_is_a(with, "EC") ? EVP_sha256() : NULL;
    assert_int_equal(EVP_DigestSignInit(md, NULL, hash, NULL, with), 1);
    assert_int_equal(EVP_DigestSign(md, sig, &len, (const uint8_t *)text, strlen(text) - wrong), 1);
    EVP_MD_CTX_free(md);
    put_line(note, ORIGIN, id, ATT_SLICE(sig, len));
}

static void signed_note(struct att_buf *note, const char *text)
{
    att_buf_put_str(note, text);
    att_buf_u8(note, '\n');
    sign(note, signer, key.id, text, false);
}

static char *checkpoint(uint64_t size, const uint8_t root[TLOG_HASH], const char *more)
{
    static char text[512];
    att_autobuf b64 = {0};
    att_buf_b64(&b64, ATT_SLICE(root, TLOG_HASH));
    snprintf(text, sizeof text, ORIGIN "\n%llu\n%s\n%s", (unsigned long long)size,
             att_buf_cstr(&b64), more);
    return text;
}

static void entry_of(uint64_t seq, struct att_buf *entry)
{
    att_buf_printf(entry, "attestd-decision/1\n%llu\n2026-01-01T00:00:00Z\nticket\ndone\n\n%064d\n",
                   (unsigned long long)seq, 0);
}

static void leaf_of(uint64_t seq, uint8_t ret[TLOG_HASH])
{
    att_autobuf entry = {0};
    entry_of(seq, &entry);
    tlog_leaf(att_buf_slice(&entry), ret);
}

static void root_of(uint64_t n, uint8_t ret[TLOG_HASH])
{
    att_autobuf all = {0};
    for (uint64_t i = 0; i < n; i++) {
        uint8_t leaf[TLOG_HASH];
        leaf_of(i + 1, leaf);
        att_buf_put(&all, leaf, sizeof leaf);
    }
    assert_int_equal(tlog_root(all.ptr, n, ret, NULL), ATT_OK);
}

static void put_file(const char *path, struct att_slice bytes)
{
    char file[256];
    snprintf(file, sizeof file, "%s/%s", dir, path);
    char *slash = strrchr(file, '/');
    *slash = 0;
    assert_int_equal(att_io_mkdirs(file, 0755, NULL), ATT_OK);
    *slash = '/';
    assert_int_equal(att_io_write_file(file, bytes, 0644, NULL), ATT_OK);
}

/* n < 256 entries in the files of that width; more: what stands behind them. */
static void put_log(uint64_t n, const char *width, struct att_slice more_entries,
                    struct att_slice more_hashes)
{
    char path[64];
    att_autobuf entries = {0}, hashes = {0};
    for (uint64_t i = 0; i < n; i++) {
        uint8_t leaf[TLOG_HASH];
        att_autobuf entry = {0};
        entry_of(i + 1, &entry);
        att_buf_be16(&entries, (uint16_t)entry.len);
        att_buf_put_slice(&entries, att_buf_slice(&entry));
        leaf_of(i + 1, leaf);
        att_buf_put(&hashes, leaf, sizeof leaf);
    }
    att_buf_put_slice(&entries, more_entries);
    att_buf_put_slice(&hashes, more_hashes);
    snprintf(path, sizeof path, "tile/entries/000%s", width);
    put_file(path, att_buf_slice(&entries));
    snprintf(path, sizeof path, "tile/0/000%s", width);
    put_file(path, att_buf_slice(&hashes));
}

/* ---- keys ---- */

static void make_keys(void)
{
    static const uint8_t seed[32] = {7};
    uint8_t hash[32], tail[2 + 32] = {'\n', 1};
    att_autobuf b64 = {0}, text = {0}, tpm_text = {0};
    size_t len = 32;
    signer = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof seed);
    assert_int_equal(EVP_PKEY_get_raw_public_key(signer, tail + 2, &len), 1);
    const struct att_slice parts[] = {ATT_SLICE_LIT(ORIGIN), ATT_SLICE_ARRAY(tail)};
    att_sha256_v(hash, parts, 2);
    att_buf_b64(&b64, ATT_SLICE(tail + 1, 33));
    att_buf_printf(&text, ORIGIN "+%02x%02x%02x%02x+%s", hash[0], hash[1], hash[2], hash[3],
                   att_buf_cstr(&b64));
    assert_int_equal(tlog_key_parse(att_buf_slice(&text), &key, NULL), ATT_OK);
    for (size_t i = 0; i < 2; i++) {
        uint8_t spki[1 + TLOG_SPKI] = {2}, *at = spki + 1;
        att_autobuf one = {0};
        tpms[i] = EVP_EC_gen("P-256");
        assert_int_equal(i2d_PUBKEY(tpms[i], &at), TLOG_SPKI);
        att_sha256(hash, ATT_SLICE(spki + 1, TLOG_SPKI));
        att_buf_b64(&one, ATT_SLICE_ARRAY(spki));
        att_buf_printf(&tpm_text, ORIGIN "+%02x%02x%02x%02x+%s\n", hash[0], hash[1], hash[2],
                       hash[3], att_buf_cstr(&one));
    }
    assert_int_equal(tlog_tpm_keys_parse(att_buf_slice(&tpm_text), &tpm_keys, NULL), ATT_OK);
    assert_int_equal(tpm_keys.n, 2);
}

static int setup(void **state)
{
    (void)state;
    make_keys();
    snprintf(dir, sizeof dir, "/tmp/att-tlog.XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    EVP_PKEY_free(signer);
    EVP_PKEY_free(tpms[0]);
    EVP_PKEY_free(tpms[1]);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    return system(command);
}

/* ---- trees ---- */

static void test_paths(void **state)
{
    static uint8_t path[TLOG_PATH_MAX][TLOG_HASH];
    uint8_t leaf[TLOG_HASH], other[TLOG_HASH], root[TLOG_HASH], want[TLOG_HASH];
    (void)state;
    leaf_of(1, leaf);
    leaf_of(2, other);
    assert_false(tlog_path_root(0, 0, leaf, path, 0, root)); /* no leaves */
    assert_true(tlog_path_root(0, 1, leaf, path, 0, root));
    assert_memory_equal(root, leaf, TLOG_HASH);
    assert_false(tlog_path_root(0, 1, leaf, path, 1, root));
    assert_false(tlog_path_root(1, 1, leaf, path, 0, root));
    memcpy(path[0], other, TLOG_HASH);
    assert_true(tlog_path_root(0, 2, leaf, path, 1, root));
    tlog_node(leaf, other, want);
    assert_memory_equal(root, want, TLOG_HASH);
    assert_false(tlog_path_root(0, 2, leaf, path, 0, root));
    assert_false(tlog_path_root(0, 2, leaf, path, 2, root));
    assert_false(tlog_path_root(2, 2, leaf, path, 1, root));
    /* The last leaf of 2^k + 1 stands alone: one hash. */
    for (unsigned k = 1; k < 63; k++) {
        assert_true(tlog_path_root(1ULL << k, (1ULL << k) + 1, leaf, path, 1, root));
        assert_false(tlog_path_root(1ULL << k, (1ULL << k) + 1, leaf, path, 2, root));
        assert_true(tlog_path_root(0, 1ULL << k, leaf, path, k, root));
    }
    alarm(HANGS);
    assert_true(tlog_path_root(0, UINT64_MAX, leaf, path, 64, root));
    assert_false(tlog_path_root(0, UINT64_MAX, leaf, path, 63, root));
    assert_true(tlog_path_root(0, 1ULL << 63, leaf, path, 63, root));
    alarm(0);
}

/* ---- heads ---- */

static void opens(struct att_buf *note, const char *reason)
{
    struct tlog_head head;
    struct att_err err = {0};
    enum att_rc rc = tlog_head_open(att_buf_slice(note), &key, &head, &err);
    assert_string_equal(err.reason, reason);
    assert_true((rc == ATT_OK) == !reason[0]);
    att_buf_done(note);
}

static void test_signatures(void **state)
{
    static const uint8_t root[TLOG_HASH] = {9}, strange[4] = {1, 2, 3, 4};
    struct att_buf note = {0};
    (void)state;
    char *text = checkpoint(3, root, "");
    signed_note(&note, text);
    opens(&note, "");
    signed_note(&note, text); /* two of one key: both have to hold */
    sign(&note, signer, key.id, text, true);
    opens(&note, "logSignature");
    att_buf_printf(&note, "%s\n", text);
    sign(&note, signer, key.id, text, true);
    sign(&note, signer, key.id, text, false);
    opens(&note, "logSignature");
    att_buf_printf(&note, "%s\n", text); /* another's is nobody's business, be it what it will */
    put_line(&note, "somebody", strange, ATT_SLICE_LIT("anything"));
    sign(&note, signer, key.id, text, false);
    opens(&note, "");
    att_buf_printf(&note, "%s\n", text);
    put_line(&note, "somebody", key.id, ATT_SLICE_LIT("anything"));
    opens(&note, "logSignature");
    signed_note(&note, text);
    att_buf_put_str(&note, DASH "somebody !!!!\n");
    opens(&note, "logSignature");
    signed_note(&note, text);
    note.len--;
    opens(&note, "logNote");
    att_buf_put_str(&note, text);
    opens(&note, "logNote");
}

static void test_checkpoints(void **state)
{
    static const char *const texts[][2] = {
        {ORIGIN "\n3\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n", ""},
        {ORIGIN "\n0\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n", ""},
        {ORIGIN "\n999999999999999999\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\nmore\n", ""},
        {ORIGIN "\n9223372036854775807\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n",
         "logCheckpoint"},
        {ORIGIN "\n03\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n", "logCheckpoint"},
        {ORIGIN "\n-3\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n", "logCheckpoint"},
        {ORIGIN "\n3 \nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n", "logCheckpoint"},
        {ORIGIN "\n\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n", "logCheckpoint"},
        {ORIGIN "\n3\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBw==\n", "logCheckpoint"},
        {ORIGIN "\n3\n", "logCheckpoint"},
        {"\n" ORIGIN "\n3\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n", "logCheckpoint"},
        {ORIGIN "\n\n3\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n", "logCheckpoint"},
        {"another.example/log\n3\nBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\n", "logOrigin"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct att_buf note = {0};
        signed_note(&note, texts[i][0]);
        opens(&note, texts[i][1]);
    }
}

/* ---- the second signature ---- */

static void by_tpm(const char *text, int first, int second, const char *reason, int which,
                   uint64_t counter)
{
    const int lines[] = {first, second}; /* 0: none; ±1, ±2: whose; below 0: a wrong one */
    att_autobuf note = {0};
    struct tlog_tpm_seen seen = {.which = -1};
    struct att_err err = {0};
    signed_note(&note, text);
    for (size_t i = 0; i < 2; i++) {
        int of = abs(lines[i]) - 1;
        if (of >= 0) {
            sign(&note, tpms[of], tpm_keys.key[of].id, text, lines[i] < 0);
        }
    }
    enum att_rc rc = tlog_tpm_check(att_buf_slice(&note), &tpm_keys, &seen, &err);
    assert_string_equal(err.reason, reason);
    assert_true((rc == ATT_OK) == !reason[0]);
    assert_int_equal(seen.which, which);
    assert_int_equal(seen.counter, counter);
}

static void test_tpm(void **state)
{
    static const uint8_t root[TLOG_HASH] = {9};
    (void)state;
    char *text = checkpoint(3, root, "tpm-counter 7\n");
    by_tpm(text, 1, 0, "", 0, 7);
    by_tpm(text, 0, 2, "", 1, 7);
    by_tpm(text, 1, 2, "", 1, 7);
    by_tpm(text, 0, 0, "logTpmMissing", -1, 0);
    by_tpm(text, -1, 0, "logTpmSignature", -1, 0);
    by_tpm(text, 1, -2, "logTpmSignature", -1, 0); /* of two, one does not hold */
    by_tpm(text, -1, 2, "logTpmSignature", -1, 0);
    by_tpm(checkpoint(3, root, "more\ntpm-counter 7\n"), 1, 0, "", 0, 0);
    by_tpm(checkpoint(3, root, "tpm-counter 18446744073709551617\n"), 1, 0, "", 0, 0);
    by_tpm(checkpoint(3, root, "tpm-counter 7x\n"), 1, 0, "", 0, 0);
    by_tpm(checkpoint(3, root, ""), 1, 0, "", 0, 0);
}

/* ---- folders ---- */

static void verifies(const struct tlog_head *head, const struct tlog_head *since, enum att_rc want,
                     const char *reason)
{
    struct tlog_source source = {.where = dir};
    struct att_err err = {0};
    uint64_t tiles = 99;
    enum att_rc rc = tlog_verify(&source, head, since, &tiles, &err);
    assert_int_equal(rc, want);
    assert_string_equal(err.reason, reason);
    assert_int_equal(tiles, rc ? 99 : head->size ? 1 : 0);
}

static void clean(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s/tile", dir);
    assert_int_equal(system(command), 0);
}

static void test_folders(void **state)
{
    static const struct att_slice nothing;
    struct tlog_head none = {.origin = ORIGIN}, one = {.size = 1}, three = {.size = 3}, head;
    (void)state;
    root_of(0, none.root);
    root_of(1, one.root);
    root_of(3, three.root);
    verifies(&none, NULL, ATT_OK, "");
    verifies(&none, &none, ATT_OK, "");
    head = none;
    head.root[0]++;
    verifies(&head, NULL, ATT_E_AUTH, "logRoot");
    verifies(&none, &one, ATT_E_AUTH, "logTruncated");
    verifies(&one, NULL, ATT_E_AUTH, "logTruncated"); /* no file */
    put_log(1, ".p/1", nothing, nothing);
    verifies(&one, NULL, ATT_OK, "");
    put_log(3, ".p/3", nothing, nothing);
    verifies(&three, NULL, ATT_OK, "");
    verifies(&three, &none, ATT_OK, "");
    verifies(&three, &one, ATT_OK, "");
    verifies(&three, &three, ATT_OK, "");
    verifies(&one, &three, ATT_E_AUTH, "logTruncated");
    head = none;
    head.root[0]++;
    verifies(&three, &head, ATT_E_AUTH, "logForked"); /* also of a tree without leaves */
    head = one;
    head.root[31]++;
    verifies(&three, &head, ATT_E_AUTH, "logForked");
    head = three;
    head.root[31]++;
    verifies(&three, &head, ATT_E_AUTH, "logForked");
    verifies(&head, NULL, ATT_E_AUTH, "logRoot");
    head.size = TLOG_SIZE_MAX + 1;
    verifies(&head, NULL, ATT_E_LIMIT, "");
    head.size = 999999999999999999;
    verifies(&head, NULL, ATT_E_LIMIT, "");
}

/* What stands behind a tile's width is in no hash: nobody is shown it as the log's. */
static void test_more_than_the_width(void **state)
{
    static const struct att_slice nothing;
    struct tlog_head three = {.size = 3};
    (void)state;
    clean();
    root_of(3, three.root);
    put_log(3, ".p/3", ATT_SLICE_LIT("\0\1x"), nothing);
    verifies(&three, NULL, ATT_E_AUTH, "logEntries");
    put_log(3, ".p/3", ATT_SLICE_LIT("\0"), nothing);
    verifies(&three, NULL, ATT_E_AUTH, "logEntries");
    put_log(3, ".p/3", nothing, ATT_SLICE_LIT("x"));
    verifies(&three, NULL, ATT_E_AUTH, "logTile");
    clean(); /* only the whole tile is left, which begins so */
    put_log(3, "", ATT_SLICE_LIT("\0\1x"), ATT_SLICE_LIT("x"));
    verifies(&three, NULL, ATT_OK, "");
    put_log(2, "", nothing, nothing);
    verifies(&three, NULL, ATT_E_AUTH, "logEntries");
}

/* ---- proofs ---- */

/* Of a log with one leaf: the leaf, a line behind it, and which number it says that it has. */
static void proves(const char *behind, uint64_t seq, uint64_t index, const char *reason)
{
    struct tlog_proof proof = {.seq = seq, .index = index};
    struct tlog_head head;
    struct att_err err = {0};
    uint8_t root[TLOG_HASH];
    entry_of(1, &proof.leaf);
    att_buf_put_str(&proof.leaf, behind);
    tlog_leaf(att_buf_slice(&proof.leaf), root);
    signed_note(&proof.checkpoint, checkpoint(1, root, ""));
    enum att_rc rc = tlog_proof_check(&proof, &key, &head, &err);
    assert_string_equal(err.reason, reason);
    assert_true((rc == ATT_OK) == !reason[0]);
    tlog_proof_done(&proof);
}

static void test_proofs(void **state)
{
    (void)state;
    proves("", 1, 0, "");
    proves("", 2, 1, "proofIndex");
    proves("", 1, 1, "proofIndex");
    proves("a line that no entry of ours has\n", 1, 0, "proofIndex");
    proves("x", 1, 0, "proofIndex");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),       cmocka_unit_test(test_signatures),
        cmocka_unit_test(test_checkpoints), cmocka_unit_test(test_tpm),
        cmocka_unit_test(test_folders),     cmocka_unit_test(test_more_than_the_width),
        cmocka_unit_test(test_proofs),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
