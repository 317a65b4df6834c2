/* Notes, verifiers' keys, checkpoints, tiles' paths, bundles and leaves: their one spelling, and
 * what is refused. */
#include "provision/audit/leaf.h"
#include "provision/audit/note.h"
#include "provision/audit/tile.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

/* The example of golang.org/x/mod/sumdb/note. */
#define GO_VKEY "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
#define GO_NOTE                                                                                    \
    "If you think cryptography is the answer to your problem,\n"                                   \
    "then you don't know what your problem is.\n\n"                                                \
    "\xe2\x80\x94 PeterNeumann "                                                                   \
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=" \
    "\n"

static void refused(enum att_rc rc, enum att_rc want, const struct att_err *err, const char *reason)
{
    assert_int_equal(rc, want);
    assert_string_equal(err->reason, reason);
}

static void foreign_note(void **state)
{
    (void)state;
    struct audit_vkey vkey;
    struct audit_note note;
    struct att_err err = {0};
    char text[AUDIT_VKEY_MAX], bent[sizeof GO_NOTE];
    assert_int_equal(audit_vkey_parse(ATT_SLICE_LIT(GO_VKEY "\n"), &vkey, &err), ATT_OK);
    audit_vkey_text(&vkey, text);
    assert_string_equal(text, GO_VKEY);
    assert_int_equal(audit_note_parse(ATT_SLICE_LIT(GO_NOTE), &note, &err), ATT_OK);
    assert_int_equal(audit_note_verify(&note, &vkey, &err), ATT_OK);
    memcpy(bent, GO_NOTE, sizeof bent);
    bent[3] = 'w';
    assert_int_equal(audit_note_parse(att_slice_str(bent), &note, &err), ATT_OK);
    refused(audit_note_verify(&note, &vkey, &err), ATT_E_AUTH, &err, "logSignature");
    vkey.id ^= 1; /* nobody signed */
    assert_int_equal(audit_note_parse(ATT_SLICE_LIT(GO_NOTE), &note, &err), ATT_OK);
    refused(audit_note_verify(&note, &vkey, &err), ATT_E_AUTH, &err, "logSignature");
}

static void keys_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", /* id */
        "PeterNeumanm+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", /* name */
        "PeterNeumann+c74f20a3+Ahpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW", /* algorithm */
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10Q=", /* short */
        "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct audit_vkey vkey;
        struct att_err err = {0};
        refused(audit_vkey_parse(att_slice_str(bad[i]), &vkey, &err), ATT_E_PARSE, &err, "logKey");
    }
}

static void notes_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "\n\n",
                                      "text\n",
                                      "text\n\n",
                                      "text\n\nno signature\n",
                                      "text\n\n\xe2\x80\x94 name AAAAAAAA", /* no newline */
                                      "text\n\n\xe2\x80\x94 name\n",        /* no signature */
                                      "text\n\n\xe2\x80\x94 name AAAA\n",   /* three bytes */
                                      "text\n\n\xe2\x80\x94 na+me AAAAAAAA\n",
                                      "text\n\n\xe2\x80\x94  AAAAAAAA\n",
                                      "text\n\n\xe2\x80\x94 name AAAAAAA\n",
                                      "te\x01xt\n\n\xe2\x80\x94 name AAAAAAAA\n",
                                      "te\xfft\n\n\xe2\x80\x94 name AAAAAAAA\n"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct audit_note note;
        struct att_err err = {0};
        refused(audit_note_parse(att_slice_str(bad[i]), &note, &err), ATT_E_PARSE, &err, "logNote");
    }
    struct audit_note note;
    static char big[AUDIT_NOTE_MAX + 1];
    assert_int_equal(audit_note_parse(ATT_SLICE_ARRAY(big), &note, NULL), ATT_E_LIMIT);
}

static void own_checkpoint(void **state)
{
    (void)state;
    EVP_PKEY *key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    uint8_t raw[AUDIT_ED25519_LEN];
    size_t len = sizeof raw;
    struct audit_vkey vkey, other;
    struct audit_note note;
    struct audit_checkpoint c = {.origin = "issuer.example/log", .size = 42}, back;
    struct att_err err = {0};
    att_autobuf text = {0}, bytes = {0};
    memset(c.root.bytes, 7, sizeof c.root.bytes);
    assert_int_equal(EVP_PKEY_get_raw_public_key(key, raw, &len), 1);
    assert_int_equal(audit_vkey_make("issuer.example/log", raw, &vkey, &err), ATT_OK);
    assert_int_equal(audit_vkey_make("a b", raw, &other, NULL), ATT_E_INVAL);
    audit_checkpoint_text(&c, &text);
    att_buf_put_slice(&bytes, att_buf_slice(&text));
    att_buf_u8(&bytes, '\n');
    assert_int_equal(audit_note_sign(att_buf_slice(&text), &vkey, key, &bytes, &err), ATT_OK);
    assert_int_equal(audit_note_parse(att_buf_slice(&bytes), &note, &err), ATT_OK);
    assert_int_equal(note.n, 1);
    assert_int_equal(audit_note_verify(&note, &vkey, &err), ATT_OK);
    assert_int_equal(audit_checkpoint_parse(note.text, &back, &err), ATT_OK);
    assert_int_equal(back.size, 42);
    assert_string_equal(back.origin, c.origin);
    assert_memory_equal(&back.root, &c.root, sizeof c.root);
    /* The same name, another key. */
    raw[0] ^= 1;
    assert_int_equal(audit_vkey_make("issuer.example/log", raw, &other, &err), ATT_OK);
    refused(audit_note_verify(&note, &other, &err), ATT_E_AUTH, &err, "logSignature");
    EVP_PKEY_free(key);
}

static void checkpoints_refused(void **state)
{
    (void)state;
#define ROOT "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
    static const char *const bad[] = {"",
                                      "log\n",
                                      "log\n1\n",
                                      "log\n01\n" ROOT "\n",
                                      "log\n-1\n" ROOT "\n",
                                      "log\n\n" ROOT "\n",
                                      "log\n99999999999999999999\n" ROOT "\n",
                                      "\n1\n" ROOT "\n",
                                      "log\n1\nBwcHBw==\n",
                                      ("log\n1\n" ROOT)};
    struct audit_checkpoint c;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct att_err err = {0};
        refused(audit_checkpoint_parse(att_slice_str(bad[i]), &c, &err), ATT_E_PARSE, &err,
                "logCheckpoint");
    }
    assert_int_equal(audit_checkpoint_parse(ATT_SLICE_LIT("log\n0\n" ROOT "\nmore\n"), &c, NULL),
                     ATT_OK);
}

static void paths(void **state)
{
    (void)state;
    static const struct {
        struct audit_tile tile;
        const char *path;
    } good[] = {{{0, 0, 256}, "tile/0/000"},
                {{AUDIT_ENTRIES, 0, 5}, "tile/entries/000.p/5"},
                {{3, 1234067, 256}, "tile/3/x001/x234/067"},
                {{1, 1000, 255}, "tile/1/x001/000.p/255"}};
    static const char *const bad[] = {"",
                                      "checkpoint",
                                      "tile/0/0",
                                      "tile/0/0000",
                                      "tile/8/000",
                                      "tile/00/000",
                                      "tile/0/x000/001",
                                      "tile/0/001/002",
                                      "tile/0/x001",
                                      "tile/0/000.p/0",
                                      "tile/0/000.p/256",
                                      "tile/0/000.p/05",
                                      "tile/0/000.p/",
                                      "tile/0/000/",
                                      "tile/entries/../../../etc/passwd",
                                      "tile/0/x999/x999/x999/x999/x999/x999/x999/x999/999",
                                      "tile/0/%30%30%30"};
    struct audit_tile tile;
    char path[AUDIT_PATH_MAX];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        audit_tile_path(&good[i].tile, path);
        assert_string_equal(path, good[i].path);
        assert_int_equal(audit_tile_parse(path, &tile, NULL), ATT_OK);
        assert_int_equal(tile.level, good[i].tile.level);
        assert_int_equal(tile.index, good[i].tile.index);
        assert_int_equal(tile.width, good[i].tile.width);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(audit_tile_parse(bad[i], &tile, NULL), ATT_E_PARSE);
    }
    const struct audit_tile last = {7, INT64_MAX, 1};
    audit_tile_path(&last, path);
    assert_int_equal(audit_tile_parse(path, &tile, NULL), ATT_OK);
}

static void leaves(void **state)
{
    (void)state;
    static const char record[] = "{\"kind\":\"issue\",\"outcome\":\"refused\","
                                 "\"reason\":\"bootPolicy\",\"subject\":\"spiffe://a/agent/b\"}";
    static const char ban[] = "{\"kind\":\"host\",\"outcome\":\"done\",\"reason\":\"dbserver\"}";
    uint8_t salt[AUDIT_SALT_LEN] = {9}, other[AUDIT_SALT_LEN] = {8};
    att_autobuf leaf = {0}, of_ban = {0};
    assert_int_equal(audit_leaf_make(7, 1000, record, salt, &leaf, NULL), ATT_OK);
    struct att_slice bytes = att_buf_slice(&leaf);
    static const char begin[] = "attestd-decision/1\n7\n1000\nissue\nrefused\nbootPolicy\n";
    assert_int_equal(bytes.len, sizeof begin - 1 + 65);
    assert_memory_equal(bytes.ptr, begin, sizeof begin - 1);
    assert_true(audit_leaf_is(bytes, 7, 1000, record, ATT_SLICE_ARRAY(salt)));
    assert_false(audit_leaf_is(bytes, 8, 1000, record, ATT_SLICE_ARRAY(salt)));
    assert_false(audit_leaf_is(bytes, 7, 1001, record, ATT_SLICE_ARRAY(salt)));
    assert_false(audit_leaf_is(bytes, 7, 1000, ban, ATT_SLICE_ARRAY(salt)));
    assert_false(audit_leaf_is(bytes, 7, 1000, record, ATT_SLICE_ARRAY(other)));
    assert_false(audit_leaf_is(bytes, 7, 1000, record, ATT_SLICE(salt, 0)));
    /* What an operator typed is not published, though it looks like a word. */
    assert_int_equal(audit_leaf_make(1, 1, ban, salt, &of_ban, NULL), ATT_OK);
    assert_null(memmem(of_ban.ptr, of_ban.len, "dbserver", 8));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(foreign_note),
        cmocka_unit_test(keys_refused),
        cmocka_unit_test(notes_refused),
        cmocka_unit_test(own_checkpoint),
        cmocka_unit_test(checkpoints_refused),
        cmocka_unit_test(paths),
        cmocka_unit_test(leaves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
