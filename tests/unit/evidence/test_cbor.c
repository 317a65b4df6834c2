/* Log manifest, statement and attestation object. The expected encodings come from an independent
 * encoder written from RFC 8949 §4.2.1. */
#include "attestd/base/enc.h"
#include "provision/evidence/attobj.h"
#include "provision/evidence/statement.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define MANIFEST                                                                                   \
    "82a3646e616d65686669726d77617265666c656e677468056673686132353658202cf24dba5fb0a30e26e83b2a"   \
    "c5b9e29e1b161e5c1fa7425e73043362938b9824a3646e616d6563696d61666c656e67746819012c6673686132"   \
    "353658209835fa6bf4e20a9b9ea812506302e98982721a6cf8d2cae67af57129bf21ae90"
#define STATEMENT_BODY                                                                             \
    "646c6f6773" MANIFEST "656c6576656c00676b65794e616d655822000b2222222222222222222222222222"     \
    "222222222222222222222222222222222222686b657953746f72656374706d6973656c6563746f7273"           \
    "82687569643a3130303067706174683a2f786a6964656e746966696572781d7370696666653a2f2f"             \
    "62616e6b2e6578616d706c652f6167656e742f616b686f73744c6f6748656164582033333333333333"           \
    "33333333333333333333333333333333333333333333333333"
#define ROOT                                                                                       \
    "6c6d616e6966657374526f6f74582044444444444444444444444444444444444444444444444444444444444444" \
    "44"
#define ATTOBJ_BODY                                                                                \
    "63666d746374706d6761747453746d74a663616c6726637369674353494763766572"                         \
    "63322e3063783563824230014330020367707562417265614250416863657274496e666f424349"

static struct att_buf unhex(const char *hex)
{
    struct att_buf bytes = {0};
    assert_int_equal(att_unhex(&bytes, att_slice_str(hex), NULL), ATT_OK);
    return bytes;
}

static struct evidence_logs two_logs(void)
{
    struct evidence_logs logs = {0};
    char a[300];
    memset(a, 'a', sizeof a);
    assert_int_equal(evidence_logs_add(&logs, "ima", ATT_SLICE_ARRAY(a), NULL), ATT_OK);
    assert_int_equal(evidence_logs_add(&logs, "firmware", ATT_SLICE_LIT("hello"), NULL), ATT_OK);
    return logs;
}

static struct evidence_statement sample(void)
{
    struct evidence_statement s = {.identifier = "spiffe://bank.example/agent/a",
                                   .key_store = "tpm",
                                   .key_name = {0x00, 0x0b},
                                   .key_name_len = 34,
                                   .logs = two_logs()};
    memset(s.key_name + 2, 0x22, 32);
    memset(s.host_log_head, 0x33, 32);
    memset(s.manifest_root, 0x44, 32);
    s.selectors[s.n_selectors++] = strdup("uid:1000");
    s.selectors[s.n_selectors++] = strdup("path:/x");
    return s;
}

static void refuse_statement(const char *hex, enum att_rc want, const char *word)
{
    struct att_buf cbor = unhex(hex);
    struct att_err err = {0};
    struct evidence_statement s = {.level = 77};
    assert_int_equal(evidence_statement_parse(att_buf_slice(&cbor), &s, &err), want);
    if (!strstr(err.msg, word)) {
        fail_msg("\"%s\" is not in \"%s\"", word, err.msg);
    }
    assert_int_equal(s.level, 77); /* untouched */
    att_buf_done(&cbor);
}

static void refuse_attobj(const char *hex, enum att_rc want, const char *word)
{
    struct att_buf cbor = unhex(hex);
    struct att_err err = {0};
    struct evidence_attobj a = {0};
    assert_int_equal(evidence_attobj_parse(att_buf_slice(&cbor), &a, &err), want);
    if (!strstr(err.msg, word)) {
        fail_msg("\"%s\" is not in \"%s\"", word, err.msg);
    }
    att_buf_done(&cbor);
}

static void refuse_manifest(const char *hex, enum att_rc want, const char *word)
{
    struct att_buf cbor = unhex(hex);
    struct att_err err = {0};
    struct evidence_logs logs = {0};
    assert_int_equal(evidence_manifest_parse(att_buf_slice(&cbor), &logs, &err), want);
    if (!strstr(err.msg, word)) {
        fail_msg("\"%s\" is not in \"%s\"", word, err.msg);
    }
    att_buf_done(&cbor);
}

static void test_hostile_lengths(void **state)
{
    (void)state;
    /* An array, a map, a byte string and a text of 2^60 and more: refused without allocating. */
    refuse_manifest("9b1000000000000000", ATT_E_LIMIT, "at most");
    refuse_manifest("9bffffffffffffffff", ATT_E_LIMIT, "at most");
    refuse_statement("bb1000000000000000", ATT_E_LIMIT, "at most");
    refuse_attobj("a263666d747b1000000000000000", ATT_E_PARSE, "truncated");
    refuse_attobj("a17bffffffffffffffff", ATT_E_PARSE, "truncated");
    refuse_attobj("a263666d746374706d6761747453746d74a1637369675b1000000000000000", ATT_E_PARSE,
                  "truncated");
    refuse_attobj("a263666d746374706d6761747453746d74a1637835639b1000000000000000", ATT_E_LIMIT,
                  "at most 8");
}

static void test_wrong_kinds(void **state)
{
    (void)state;
    refuse_statement("", ATT_E_PARSE, "CBOR ends");
    refuse_statement("80", ATT_E_PARSE, "expected a map, found an array");
    refuse_statement("bf", ATT_E_PARSE, "another kind");   /* indefinite length */
    refuse_statement("c0a0", ATT_E_PARSE, "another kind"); /* tag */
    refuse_statement("f6", ATT_E_PARSE, "another kind");
    refuse_statement("a1656c6576656c04", ATT_E_LIMIT, "level");
    refuse_statement("a1656c6576656c20", ATT_E_LIMIT, "level"); /* -1 */
    refuse_statement("a1656c6576656cf90000", ATT_E_PARSE, "level");
    refuse_statement("a101", ATT_E_PARSE, "expected a text");
    refuse_statement("a16a6964656e74696669657261ff", ATT_E_PARSE, "not UTF-8");
    refuse_statement("a16a6964656e7469666965726107", ATT_E_PARSE, "control characters");
    refuse_statement("a16b686f73744c6f674865616441aa", ATT_E_PARSE, "expected 32 bytes, found 1");
}

static void test_members(void **state)
{
    (void)state;
    refuse_statement("a0", ATT_E_PARSE, "\"logs\" is missing");
    refuse_statement("a1637861780a", ATT_E_PARSE, "unknown member \"xax\"");
    refuse_statement("a2656c6576656c00656c6576656c00", ATT_E_PARSE, "\"level\" is there twice");
    refuse_statement("a8" STATEMENT_BODY, ATT_E_PARSE, "CBOR ends");
    refuse_statement("a7" STATEMENT_BODY "00", ATT_E_PARSE, "1 bytes after its end");
    refuse_attobj("a163666d746374706d", ATT_E_PARSE, "\"attStmt\" is missing");
    refuse_attobj("a163666d74637470", ATT_E_PARSE, "truncated");
    refuse_attobj("a163666d746370706d", ATT_E_PARSE, "\"ppm\" is none known here");
    refuse_attobj("a2" ATTOBJ_BODY "00", ATT_E_PARSE, "after its end");
}

/* Each is valid CBOR of the same content in another encoding. */
static void test_not_deterministic(void **state)
{
    (void)state;
    struct att_buf good = unhex("a7" STATEMENT_BODY);
    struct att_err err = {0};
    struct evidence_statement s = {0};
    /* map head in two bytes */
    refuse_statement("b807" STATEMENT_BODY, ATT_E_PARSE, "not the deterministic encoding");
    /* members in another order */
    refuse_manifest("81a3666c656e67746800646e616d6563696d6166736861323536582000000000000000000000"
                    "00000000000000000000000000000000000000000000",
                    ATT_E_PARSE, "not the deterministic encoding");
    /* an integer that is longer than it must be */
    refuse_manifest("81a3646e616d6563696d61666c656e677468180066736861323536582000000000000000000000"
                    "00000000000000000000000000000000000000000000",
                    ATT_E_PARSE, "not the deterministic encoding");
    refuse_attobj("b802" ATTOBJ_BODY, ATT_E_PARSE, "not the deterministic encoding");
    assert_int_equal(evidence_statement_parse(att_buf_slice(&good), &s, &err), ATT_OK);
    evidence_statement_done(&s);
    att_buf_done(&good);
}

static void test_manifest_order(void **state)
{
    (void)state;
#define ONE(name_hex)                                                                              \
    "a3646e616d65" name_hex "666c656e67746800"                                                     \
    "667368613235365820"                                                                           \
    "0000000000000000000000000000000000000000000000000000000000000000"
    refuse_manifest("82" ONE("63696d61") ONE("686669726d77617265"), ATT_E_PARSE, "not sorted");
    refuse_manifest("82" ONE("63696d61") ONE("63696d61"), ATT_E_PARSE, "not sorted");
    refuse_manifest("81" ONE("63696d62"), ATT_E_PARSE, "expected firmware");
    refuse_manifest("84", ATT_E_LIMIT, "at most 3");
}

static void test_manifest_vector(void **state)
{
    (void)state;
    struct att_buf want = unhex(MANIFEST), got = {0};
    struct evidence_logs logs = two_logs(), back = {0};
    assert_int_equal(evidence_manifest_encode(&logs, &got, NULL), ATT_OK);
    assert_true(att_slice_eq(att_buf_slice(&got), att_buf_slice(&want)));
    assert_int_equal(evidence_manifest_parse(att_buf_slice(&want), &back, NULL), ATT_OK);
    assert_true(evidence_logs_match(&logs, &back));
    assert_false(back.log[0].has_data);
    back.log[1].length++;
    assert_false(evidence_logs_match(&logs, &back));
    back.log[1].length--;
    back.log[0].sha256[31] ^= 1;
    assert_false(evidence_logs_match(&logs, &back));
    evidence_logs_done(&logs);
    att_buf_done(&want);
    att_buf_done(&got);
}

static void test_statement_vectors(void **state)
{
    (void)state;
    const char *const vectors[] = {"a7" STATEMENT_BODY, "a8" STATEMENT_BODY ROOT};
    for (size_t i = 0; i < 2; i++) {
        struct evidence_statement s = sample(), back = {0};
        struct att_buf want = unhex(vectors[i]), got = {0};
        s.has_manifest_root = i == 1;
        assert_int_equal(evidence_statement_encode(&s, &got, NULL), ATT_OK);
        assert_true(att_slice_eq(att_buf_slice(&got), att_buf_slice(&want)));
        assert_int_equal(evidence_statement_parse(att_buf_slice(&want), &back, NULL), ATT_OK);
        assert_string_equal(back.identifier, s.identifier);
        assert_int_equal(back.n_selectors, 2);
        assert_string_equal(back.selectors[1], "path:/x");
        assert_int_equal(back.has_manifest_root, i == 1);
        assert_memory_equal(back.key_name, s.key_name, 34);
        assert_memory_equal(back.host_log_head, s.host_log_head, 32);
        assert_true(evidence_logs_match(&back.logs, &s.logs));
        evidence_statement_done(&s);
        evidence_statement_done(&back);
        att_buf_done(&want);
        att_buf_done(&got);
    }
}

/* Where the files lie and how the kernel was started: for level 3 alone. */
static void test_statement_device(void **state)
{
    (void)state;
    struct evidence_statement s = sample(), back = {0};
    struct att_buf cbor = {0};
    struct att_err err = {0};
    s.has_device = true;
    s.device_major = 254;
    s.device_minor = 3;
    strcpy(s.command_line, "ro roothash=00 quiet");
    assert_int_equal(evidence_statement_encode(&s, &cbor, &err), ATT_E_INVAL);
    assert_non_null(strstr(err.msg, "device goes with manifestRoot"));
    s.has_manifest_root = true;
    assert_int_equal(evidence_statement_encode(&s, &cbor, NULL), ATT_OK);
    assert_int_equal(evidence_statement_parse(att_buf_slice(&cbor), &back, NULL), ATT_OK);
    assert_true(back.has_device && back.device_major == 254 && back.device_minor == 3);
    assert_string_equal(back.command_line, s.command_line);
    evidence_statement_done(&back);
    uint8_t *member = memmem(cbor.ptr, cbor.len, "fdevice\x82", 8);
    assert_non_null(member);
    member[7] = 0x81; /* the major number alone */
    err = (struct att_err){0};
    assert_int_equal(evidence_statement_parse(att_buf_slice(&cbor), &back, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "[major, minor]"));
    att_buf_done(&cbor);
    evidence_statement_done(&s);
}

static void test_statement_values(void **state)
{
    (void)state;
    struct evidence_statement s = sample();
    struct att_buf out = {0};
    struct att_err err = {0};
    s.key_name_len = 33;
    assert_int_equal(evidence_statement_encode(&s, &out, &err), ATT_E_INVAL);
    assert_non_null(strstr(err.msg, "no TPM Name"));
    s.key_name_len = 34;
    s.level = 4;
    assert_int_equal(evidence_statement_encode(&s, &out, NULL), ATT_E_INVAL);
    s.level = 3;
    strcpy(s.key_store, "hsm");
    assert_int_equal(evidence_statement_encode(&s, &out, NULL), ATT_E_INVAL);
    strcpy(s.key_store, "tpm");
    s.identifier[3] = '\n';
    assert_int_equal(evidence_statement_encode(&s, &out, NULL), ATT_E_INVAL);
    s.identifier[3] = 0;
    s.identifier[0] = 0;
    assert_int_equal(evidence_statement_encode(&s, &out, NULL), ATT_E_INVAL);
    assert_int_equal(out.len, 0);
    evidence_statement_done(&s);
}

/* The module of a key in an HSM: there or not, of no other key, a name. */
static void test_statement_hsm(void **state)
{
    (void)state;
    static const char *const bad[] = {"Vault", ".x", "a b", "v\xc3\xa4"};
    struct evidence_statement s = sample(), back = {0};
    struct att_buf out = {0};
    struct att_err err = {0};
    strcpy(s.hsm, "vault");
    assert_int_equal(evidence_statement_encode(&s, &out, &err), ATT_E_INVAL);
    assert_non_null(strstr(err.msg, "hsm goes with keyStore"));
    strcpy(s.key_store, "hsm");
    s.key_name_len = 0;
    s.has_key_spki = true;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        strcpy(s.hsm, bad[i]);
        assert_int_equal(evidence_statement_encode(&s, &out, NULL), ATT_E_INVAL);
    }
    memset(s.hsm, 'a', EVIDENCE_HSM_NAME_MAX);
    s.hsm[EVIDENCE_HSM_NAME_MAX] = 0;
    assert_int_equal(evidence_statement_encode(&s, &out, NULL), ATT_OK);
    assert_int_equal(evidence_statement_parse(att_buf_slice(&out), &back, NULL), ATT_OK);
    assert_string_equal(back.hsm, s.hsm);
    evidence_statement_done(&back);
    for (size_t n = 0; n < out.len; n++) {
        assert_int_not_equal(evidence_statement_parse(ATT_SLICE(out.ptr, n), &back, NULL), ATT_OK);
    }
    uint8_t *name = memmem(out.ptr, out.len, "aaaa", 4);
    assert_non_null(name);
    name[3] = 'A';
    att_err_clear(&err);
    assert_int_equal(evidence_statement_parse(att_buf_slice(&out), &back, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "no module's name"));
    name[3] = 'a';
    name[-1]++; /* 33 characters: one of the next name */
    assert_int_not_equal(evidence_statement_parse(att_buf_slice(&out), &back, NULL), ATT_OK);
    att_buf_done(&out);
    evidence_statement_done(&s);
}

/* What a module says of its token: beside the module's name only, three printable texts. */
static void test_statement_hsm_token(void **state)
{
    (void)state;
    struct evidence_statement s = sample(), back = {0};
    struct att_buf out = {0};
    struct att_err err = {0};
    const struct evidence_hsm_token token = {"SoftHSM project", "SoftHSM v2", "3f0a"};
    strcpy(s.key_store, "hsm");
    s.key_name_len = 0;
    s.has_key_spki = s.has_hsm_token = true;
    s.hsm_token = token;
    assert_int_equal(evidence_statement_encode(&s, &out, &err), ATT_E_INVAL);
    assert_non_null(strstr(err.msg, "hsmToken goes with hsm"));
    strcpy(s.hsm, "vault");
    att_err_clear(&err);
    s.hsm_token.model[2] = '\n';
    assert_int_equal(evidence_statement_encode(&s, &out, &err), ATT_E_INVAL);
    assert_non_null(strstr(err.msg, "hsmToken: expected printable ASCII"));
    assert_int_equal(out.len, 0);
    s.hsm_token = token;
    assert_int_equal(evidence_statement_encode(&s, &out, NULL), ATT_OK);
    assert_int_equal(evidence_statement_parse(att_buf_slice(&out), &back, NULL), ATT_OK);
    assert_true(back.has_hsm_token && evidence_hsm_token_equal(&back.hsm_token, &token));
    evidence_statement_done(&back);
    for (size_t n = 0; n < out.len; n++) {
        assert_int_not_equal(evidence_statement_parse(ATT_SLICE(out.ptr, n), &back, NULL), ATT_OK);
    }
    uint8_t *at = memmem(out.ptr, out.len, "SoftHSM v2", 10);
    assert_non_null(at);
    at[3] = 0xc3; /* in the bytes, too; with the next one it is a letter, and no ASCII */
    at[4] = 0xa4;
    att_err_clear(&err);
    assert_int_equal(evidence_statement_parse(att_buf_slice(&out), &back, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "hsmToken: expected printable ASCII"));
    at[3] = 't';
    at[4] = 'H';
    at = memmem(out.ptr, out.len, "hsmToken", 8);
    assert_non_null(at);
    assert_int_equal(at[8], 0x83); /* an array of three */
    at[8] = 0x82;
    att_err_clear(&err);
    assert_int_equal(evidence_statement_parse(att_buf_slice(&out), &back, &err), ATT_E_PARSE);
    assert_non_null(strstr(err.msg, "expected [manufacturer, model, serial]"));
    /* Without it, as hosts of before say it. */
    s.has_hsm_token = false;
    att_buf_reset(&out);
    assert_int_equal(evidence_statement_encode(&s, &out, NULL), ATT_OK);
    assert_null(memmem(out.ptr, out.len, "hsmToken", 8));
    assert_int_equal(evidence_statement_parse(att_buf_slice(&out), &back, NULL), ATT_OK);
    assert_false(back.has_hsm_token);
    evidence_statement_done(&back);
    att_buf_done(&out);
    evidence_statement_done(&s);
}

/* Of a key in no TPM: keySpki in keyName's place. */
static void test_statement_of_other_stores(void **state)
{
    (void)state;
    static const char *const stores[] = {"memory", "hsm", "exportable"};
    for (size_t i = 0; i < 3; i++) {
        struct evidence_statement s = sample(), back = {0};
        struct att_buf out = {0};
        struct att_err err = {0};
        strcpy(s.key_store, stores[i]);
        assert_int_equal(evidence_statement_encode(&s, &out, &err), ATT_E_INVAL);
        assert_non_null(strstr(err.msg, "goes with keySpki, found keyName"));
        s.has_key_spki = true;
        memset(s.key_spki, 0x55, 32);
        att_err_clear(&err);
        assert_int_equal(evidence_statement_encode(&s, &out, &err), ATT_E_INVAL);
        assert_non_null(strstr(err.msg, "found keyName keySpki"));
        s.key_name_len = 0;
        assert_int_equal(evidence_statement_encode(&s, &out, &err), ATT_OK);
        assert_int_equal(evidence_statement_parse(att_buf_slice(&out), &back, &err), ATT_OK);
        assert_string_equal(back.key_store, stores[i]);
        assert_int_equal(back.key_name_len, 0);
        assert_true(back.has_key_spki);
        assert_memory_equal(back.key_spki, s.key_spki, 32);
        evidence_statement_done(&back);
        for (size_t n = 0; n < out.len; n++) {
            assert_int_not_equal(evidence_statement_parse(ATT_SLICE(out.ptr, n), &back, NULL),
                                 ATT_OK);
        }
        /* The TPM's word over it, and a word that is none. */
        uint8_t *word = memmem(out.ptr, out.len, stores[i], strlen(stores[i]));
        assert_non_null(word);
        word[0] ^= 1;
        att_err_clear(&err);
        assert_int_equal(evidence_statement_parse(att_buf_slice(&out), &back, &err), ATT_E_PARSE);
        assert_non_null(strstr(err.msg, "expected tpm, hsm, memory or exportable"));
        att_buf_reset(&out);
        strcpy(s.key_store, "tpm");
        att_err_clear(&err);
        assert_int_equal(evidence_statement_encode(&s, &out, &err), ATT_E_INVAL);
        assert_non_null(strstr(err.msg, "goes with keyName, found  keySpki"));
        strcpy(s.key_store, stores[i]);
        s.has_key_spki = false;
        att_err_clear(&err);
        assert_int_equal(evidence_statement_encode(&s, &out, &err), ATT_E_INVAL);
        assert_non_null(strstr(err.msg, "found neither"));
        att_buf_done(&out);
        evidence_statement_done(&s);
    }
}

static void test_attobj_host(void **state)
{
    (void)state;
    /* {"fmt": "attestd-host", "attStmt": {"ver": "1.0", "x5c": [h'3001'], "spki": 'KEY'}} */
#define HOST_FMT  "63666d746c617474657374642d686f7374"
#define HOST_STMT "6761747453746d74a36376657263312e3063783563814230016473706b69434b4559"
    struct att_buf want = unhex("a2" HOST_FMT HOST_STMT);
    struct evidence_attobj a = {.fmt = EVIDENCE_FMT_HOST,
                                .x5c = {ATT_SLICE_LIT("\x30\x01")},
                                .x5c_len = 1,
                                .spki = ATT_SLICE_LIT("KEY")};
    struct evidence_attobj back = {0};
    struct att_buf got = {0};
    struct att_err err = {0};
    assert_int_equal(evidence_attobj_encode(&a, &got, NULL), ATT_OK);
    assert_true(att_slice_eq(att_buf_slice(&got), att_buf_slice(&want)));
    assert_int_equal(evidence_attobj_parse(att_buf_slice(&want), &back, &err), ATT_OK);
    assert_int_equal(back.fmt, EVIDENCE_FMT_HOST);
    assert_true(att_slice_eq(back.spki, a.spki));
    assert_int_equal(back.cert_info.len + back.sig.len + back.pub_area.len, 0);
    for (size_t n = 0; n < want.len; n++) {
        assert_int_not_equal(evidence_attobj_parse(ATT_SLICE(want.ptr, n), &back, NULL), ATT_OK);
    }
    /* A member of the other format, a version of the other, the wrong order, a format of none. */
    refuse_attobj("a2" HOST_FMT "6761747453746d74a46376657263312e306378356381423001647370"
                  "6b69434b45596863657274496e666f424349",
                  ATT_E_PARSE, "\"certInfo\" is no member of fmt attestd-host");
    refuse_attobj("a263666d746374706d6761747453746d74a163616c6726", ATT_E_PARSE, "sig");
    refuse_attobj("a263666d746374706d" HOST_STMT, ATT_E_PARSE, "ver: expected \"2.0\"");
    refuse_attobj("a2" HOST_STMT HOST_FMT, ATT_E_PARSE, "expected \"fmt\" first");
    refuse_attobj("a263666d74667061636b6564" HOST_STMT, ATT_E_PARSE,
                  "\"packed\" is none known here");
    /* What does not belong to the format is not encoded either. */
    a.sig = ATT_SLICE_LIT("SIG");
    assert_int_equal(evidence_attobj_encode(&a, &got, &err), ATT_E_INVAL);
    assert_non_null(strstr(err.msg, "sig: 3 bytes, expected 0 in fmt attestd-host"));
    a.sig = (struct att_slice){0};
    a.spki.len = 0;
    assert_int_equal(evidence_attobj_encode(&a, &got, NULL), ATT_E_INVAL);
    att_buf_done(&want);
    att_buf_done(&got);
}

static void test_attobj_vector(void **state)
{
    (void)state;
    struct att_buf want = unhex("a2" ATTOBJ_BODY);
    struct evidence_attobj a = {.alg = EVIDENCE_COSE_ES256,
                                .x5c = {ATT_SLICE_LIT("\x30\x01"), ATT_SLICE_LIT("\x30\x02\x03")},
                                .x5c_len = 2,
                                .sig = ATT_SLICE_LIT("SIG"),
                                .cert_info = ATT_SLICE_LIT("CI"),
                                .pub_area = ATT_SLICE_LIT("PA")};
    struct evidence_attobj back = {0};
    struct att_buf got = {0};
    struct att_err err = {0};
    assert_int_equal(evidence_attobj_encode(&a, &got, NULL), ATT_OK);
    assert_true(att_slice_eq(att_buf_slice(&got), att_buf_slice(&want)));
    assert_int_equal(evidence_attobj_parse(att_buf_slice(&want), &back, &err), ATT_OK);
    assert_int_equal(back.alg, -7);
    assert_int_equal(back.x5c_len, 2);
    assert_true(att_slice_eq(back.x5c[1], a.x5c[1]));
    assert_true(att_slice_eq(back.pub_area, a.pub_area));
    /* Every prefix is refused. */
    for (size_t n = 0; n < want.len; n++) {
        assert_int_not_equal(evidence_attobj_parse(ATT_SLICE(want.ptr, n), &back, NULL), ATT_OK);
    }
    /* Values that the wire allows and we do not. */
    a.alg = -8;
    assert_int_equal(evidence_attobj_encode(&a, &got, NULL), ATT_E_INVAL);
    a.alg = EVIDENCE_COSE_RS256;
    a.x5c_len = 0;
    assert_int_equal(evidence_attobj_encode(&a, &got, NULL), ATT_E_INVAL);
    a.x5c_len = 1;
    a.sig.len = 0;
    assert_int_equal(evidence_attobj_encode(&a, &got, NULL), ATT_E_INVAL);
    att_buf_done(&want);
    att_buf_done(&got);
}

static void test_attobj_without_x5c(void **state)
{
    (void)state;
    refuse_attobj("a263666d746374706d6761747453746d74a663616c6726637369674353494763766572"
                  "63322e306378356380677075624172656142504168636572"
                  "74496e666f424349",
                  ATT_E_PARSE, "x5c: expected 1");
    /* alg -8 (EdDSA) */
    refuse_attobj("a263666d746374706d6761747453746d74a663616c67276373696743534947"
                  "6376657263322e306378356382423001433002036770756241726561425041"
                  "6863657274496e666f424349",
                  ATT_E_PARSE, "alg: expected -7 or -257, found -8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hostile_lengths),
        cmocka_unit_test(test_wrong_kinds),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_not_deterministic),
        cmocka_unit_test(test_manifest_order),
        cmocka_unit_test(test_manifest_vector),
        cmocka_unit_test(test_statement_vectors),
        cmocka_unit_test(test_statement_device),
        cmocka_unit_test(test_statement_values),
        cmocka_unit_test(test_attobj_vector),
        cmocka_unit_test(test_attobj_host),
        cmocka_unit_test(test_statement_of_other_stores),
        cmocka_unit_test(test_statement_hsm),
        cmocka_unit_test(test_attobj_without_x5c),
        cmocka_unit_test(test_statement_hsm_token),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
