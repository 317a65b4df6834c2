/* keyd's file of a key in the HSM, agents/<id>.hsm. */
#include "attestd/keyd/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define ID  "000102030405060708090a0b0c0d0e0f"
#define CKA "000102030405060708090a0b0c0d0e0f10111213"
/* The base point of P-256 (SEC 2 §2.4.2). */
#define HEAD "3059301306072a8648ce3d020106082a8648ce3d030107034200"
#define G                                                                                          \
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c" \
    "0f9e162bce33576b315ececbb6406837bf51f5"

static void write(char ret[2048], const char *id, const char *agent, const char *state,
                  const char *cka, const char *spki)
{
    snprintf(ret, 2048,
             "{\"version\":1,\"id\":\"%s\",\"agent\":\"%s\",\"state\":\"%s\",\"created\":12,"
             "\"activations\":3,\"ckaId\":\"%s\",\"spki\":\"%s\"}",
             id, agent, state, cka, spki);
}

static void write_in(char ret[2048], int version, const char *module)
{
    snprintf(ret, 2048,
             "{\"version\":%d,\"id\":\"" ID
             "\",\"agent\":\"web\",\"module\":\"%s\",\"state\":\"new\","
             "\"created\":12,\"activations\":3,\"ckaId\":\"" CKA "\",\"spki\":\"" HEAD G "\"}",
             version, module);
}

static void test_module(void **state)
{
    (void)state;
    char text[2048];
    struct keyd_hsm_file file;
    write_in(text, 2, "payments");
    assert_int_equal(keyd_hsm_file_parse(att_slice_str(text), &file, NULL), ATT_OK);
    assert_string_equal(file.module, "payments");
    static const char *const bad[] = {"", "Payments", "../payments",
                                      "a23456789012345678901234567890123"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_in(text, 2, bad[i]);
        assert_int_equal(keyd_hsm_file_parse(att_slice_str(text), &file, NULL), ATT_E_PARSE);
    }
    write_in(text, 1, "payments"); /* of when there was no such member */
    assert_int_equal(keyd_hsm_file_parse(att_slice_str(text), &file, NULL), ATT_E_PARSE);
    static const char *const tokens[] = {"\"t\",\"tokenSerial\":\"11\"", /* the good one */
                                         "\"\",\"tokenSerial\":\"11\"",
                                         "\"t\",\"tokenSerial\":\"\"", "1,\"tokenSerial\":\"11\"",
                                         "\"t\",\"tokenSerial\":\"12345678901234567\""};
    for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
        struct keyd_hsm_file other = {.id = ""};
        write_in(text, 3, "payments");
        snprintf(strrchr(text, '}'), 200, ",\"tokenLabel\":%s}", tokens[i]);
        assert_int_equal(keyd_hsm_file_parse(att_slice_str(text), &other, NULL),
                         i == 0 ? ATT_OK : ATT_E_PARSE);
        assert_string_equal(other.token_serial, i == 0 ? "11" : "");
    }
    write_in(text, 3, "payments");
    assert_int_equal(keyd_hsm_file_parse(att_slice_str(text), &file, NULL), ATT_E_PARSE);
    assert_string_equal(file.module, "payments");
}

static void test_takes_what_is_written(void **state)
{
    (void)state;
    char text[2048];
    struct keyd_hsm_file file;
    write(text, ID, "web", "active", CKA, HEAD G);
    assert_int_equal(keyd_hsm_file_parse(att_slice_str(text), &file, NULL), ATT_OK);
    assert_string_equal(file.module, "default"); /* version 1 */
    assert_string_equal(file.id, ID);
    assert_string_equal(file.agent, "web");
    assert_int_equal(file.state, KEYD_KEY_ACTIVE);
    assert_false(file.waste);
    assert_int_equal(file.created_at, 12);
    assert_int_equal(file.active_seq, 3);
    assert_int_equal(file.cka_id[19], 0x13);
    static const char *const waste[][2] = {{"making", ""}, {"making", HEAD G}, {"gone", HEAD G}};
    for (size_t i = 0; i < 3; i++) {
        write(text, ID, "web", waste[i][0], CKA, waste[i][1]);
        assert_int_equal(keyd_hsm_file_parse(att_slice_str(text), &file, NULL), ATT_OK);
        assert_true(file.waste);
    }
}

static void test_refuses(void **state)
{
    (void)state;
    static const char *const bad[][5] = {
        {"000102030405060708090a0b0c0d0e0", "web", "new", CKA, HEAD G},
        {"../../etc/passwd", "web", "new", CKA, HEAD G},
        {ID, "Web", "new", CKA, HEAD G},
        {ID, "", "new", CKA, HEAD G},
        {ID, "web", "lost", CKA, HEAD G},
        {ID, "web", "", CKA, HEAD G},
        {ID, "web", "new", "00", HEAD G},
        {ID, "web", "new", CKA "00", HEAD G},
        {ID, "web", "new", CKA, ""},
        {ID, "web", "new", CKA, HEAD},
        {ID, "web", "new", CKA, HEAD G "00"},
        {ID, "web", "gone", CKA, "00"},
        {ID, "web", "new", CKA, "4059301306072a8648ce3d020106082a8648ce3d030107034200" G},
        {ID, "web", "new", CKA, /* not on the curve */
         HEAD
         "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb"
         "4a7c0f9e162bce33576b315ececbb6406837bf51f6"},
    };
    char text[2048];
    struct keyd_hsm_file file = {.id = "untouched"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write(text, bad[i][0], bad[i][1], bad[i][2], bad[i][3], bad[i][4]);
        if (keyd_hsm_file_parse(att_slice_str(text), &file, NULL) == ATT_OK) {
            fail_msg("case %zu is taken", i);
        }
    }
    static const char *const forms[] = {"", "[]", "{}", "{\"version\":1}"};
    for (size_t i = 0; i < 4; i++) {
        assert_int_not_equal(keyd_hsm_file_parse(att_slice_str(forms[i]), &file, NULL), ATT_OK);
    }
    write(text, ID, "web", "new", CKA, HEAD G);
    text[11] = '2'; /* version */
    assert_int_equal(keyd_hsm_file_parse(att_slice_str(text), &file, NULL), ATT_E_PARSE);
    assert_string_equal(file.id, "untouched");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_takes_what_is_written),
                                       cmocka_unit_test(test_module),
                                       cmocka_unit_test(test_refuses)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
