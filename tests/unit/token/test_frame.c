/* The scanner: what no stock client sends is refused, refusals first. */
#include "pkcs11/token/frame.h"

#include "attestd/base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void begin(struct att_buf *buf, uint32_t call, const char *args)
{
    att_buf_be32(buf, call);
    att_buf_field_be32(buf, att_slice_str(args));
}

static enum token_frame_verdict check(const struct att_buf *buf, bool initialized)
{
    struct token_frame_state state = {initialized};
    struct att_err err = {0};
    /* A copy of exactly this length, so that reading one byte more is seen. */
    uint8_t *exact = malloc(buf->len ? buf->len : 1);
    memcpy(exact, buf->ptr, buf->len);
    enum token_frame_verdict verdict = token_frame_check(&state, ATT_SLICE(exact, buf->len), &err);
    free(exact);
    assert_true(verdict == TOKEN_FRAME_PASS || err.msg[0]);
    return verdict;
}

static void initialize(struct att_buf *buf)
{
    begin(buf, 1, "ayyay");
    att_buf_u8(buf, 1);
    att_buf_field_be32(buf, ATT_SLICE_LIT("PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1"));
    att_buf_u8(buf, 0);
    att_buf_u8(buf, 1);
    att_buf_field_be32(buf, ATT_SLICE_LIT("\0"));
}

static void find_init(struct att_buf *buf, uint32_t count)
{
    begin(buf, 26, "uaA");
    att_buf_be64(buf, 1);
    att_buf_be32(buf, count);
    for (uint32_t i = 0; i < count; i++) {
        att_buf_be32(buf, 0x100); /* KEY_TYPE */
        att_buf_u8(buf, 1);
        att_buf_be32(buf, 8);
        att_buf_be64(buf, 3);
    }
}

static void heads_with_odd_lengths_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint32_t code, options, message;
        enum att_rc rc;
    } cases[] = {
        {0, 6, 8, ATT_E_PARSE},
        {1, TOKEN_FRAME_OPTIONS_MAX + 1, 8, ATT_E_LIMIT},
        {1, 0xffffffff, 8, ATT_E_LIMIT},
        {1, 6, 7, ATT_E_LIMIT},
        {1, 6, 0, ATT_E_LIMIT},
        {1, 6, TOKEN_FRAME_MESSAGE_MAX + 1, ATT_E_LIMIT},
        {1, 6, 0xffffffff, ATT_E_LIMIT},
        {1, TOKEN_FRAME_OPTIONS_MAX, TOKEN_FRAME_MESSAGE_MAX, ATT_OK},
        {0xffffffff, 0, 8, ATT_OK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        att_autobuf buf = {0};
        struct token_frame_head head;
        struct att_err err = {0};
        att_buf_be32(&buf, cases[i].code);
        att_buf_be32(&buf, cases[i].options);
        att_buf_be32(&buf, cases[i].message);
        assert_int_equal(token_frame_head(buf.ptr, &head, &err), cases[i].rc);
    }
}

static void truncation_at_every_length_is_refused(void **state)
{
    (void)state;
    att_autobuf init = {0}, find = {0};
    initialize(&init);
    find_init(&find, 3);
    assert_int_equal(check(&init, false), TOKEN_FRAME_PASS);
    assert_int_equal(check(&find, true), TOKEN_FRAME_PASS);
    while (init.len-- > 1) {
        assert_int_equal(check(&init, false), TOKEN_FRAME_REFUSED);
    }
    while (find.len-- > 1) {
        assert_int_equal(check(&find, true), TOKEN_FRAME_REFUSED);
    }
}

static void trailing_bytes_are_refused(void **state)
{
    (void)state;
    att_autobuf buf = {0};
    find_init(&buf, 1);
    att_buf_u8(&buf, 0);
    assert_int_equal(check(&buf, true), TOKEN_FRAME_REFUSED);
}

static void initialize_comes_first_and_once(void **state)
{
    (void)state;
    att_autobuf init = {0}, info = {0};
    initialize(&init);
    begin(&info, 3, "");
    assert_int_equal(check(&init, true), TOKEN_FRAME_REFUSED);
    assert_int_equal(check(&info, false), TOKEN_FRAME_REFUSED);
    struct token_frame_state conn = {0};
    assert_int_equal(token_frame_check(&conn, att_buf_slice(&init), NULL), TOKEN_FRAME_PASS);
    assert_true(conn.initialized);
    assert_int_equal(token_frame_check(&conn, att_buf_slice(&info), NULL), TOKEN_FRAME_PASS);
}

static void another_calls_signature_is_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {"", "u", "uaAu", "uaa", "\0\0\0"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        att_autobuf buf = {0};
        begin(&buf, 26, wrong[i]);
        att_buf_be64(&buf, 1);
        att_buf_be32(&buf, 0);
        assert_int_equal(check(&buf, true), TOKEN_FRAME_REFUSED);
    }
}

static void calls_that_are_not_served_become_refusals(void **state)
{
    (void)state;
    /* InitToken, SetPIN, Encrypt, GenerateKey, WrapKey, DeriveKey, SessionCancel (3.0), a later one
     */
    static const uint32_t numbers[] = {9, 15, 30, 58, 60, 62, 67, 255};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        att_autobuf buf = {0};
        begin(&buf, numbers[i], "whatever");
        assert_int_equal(check(&buf, true), TOKEN_FRAME_UNSERVED);
    }
    static const uint32_t none[] = {0, 256, 0x7fffffff, 0xffffffff};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        att_autobuf buf = {0};
        begin(&buf, none[i], "u");
        assert_int_equal(check(&buf, true), TOKEN_FRAME_REFUSED);
    }
}

static void too_many_attributes_are_refused(void **state)
{
    (void)state;
    att_autobuf most = {0}, more = {0}, lie = {0}, rooms = {0};
    find_init(&most, TOKEN_FRAME_ATTRS_MAX);
    find_init(&more, TOKEN_FRAME_ATTRS_MAX + 1);
    assert_int_equal(check(&most, true), TOKEN_FRAME_PASS);
    assert_int_equal(check(&more, true), TOKEN_FRAME_REFUSED);
    begin(&lie, 26, "uaA");
    att_buf_be64(&lie, 1);
    att_buf_be32(&lie, 0xffffffff);
    assert_int_equal(check(&lie, true), TOKEN_FRAME_REFUSED);
    begin(&rooms, 24, "uufA");
    att_buf_be64(&rooms, 1);
    att_buf_be64(&rooms, 64);
    att_buf_be32(&rooms, 0x10000000);
    assert_int_equal(check(&rooms, true), TOKEN_FRAME_REFUSED);
}

/* p11-kit allocates the announced length and writes the decoded one: they must be the same. */
static void a_value_longer_than_announced_never_passes(void **state)
{
    (void)state;
    static const struct {
        uint32_t type, announced;
        size_t value; /* bytes behind the announced length */
    } cases[] = {
        {0x100, 0, 8}, {0x100, 4, 8}, {0x100, 9, 8},
        {0x001, 0, 1}, {0x001, 8, 1}, {0x100, 0x7fffffff, 8},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        att_autobuf buf = {0};
        begin(&buf, 26, "uaA");
        att_buf_be64(&buf, 1);
        att_buf_be32(&buf, 1);
        att_buf_be32(&buf, cases[i].type);
        att_buf_u8(&buf, 1);
        att_buf_be32(&buf, cases[i].announced);
        memset(att_buf_extend(&buf, cases[i].value), 0, cases[i].value);
        assert_int_equal(check(&buf, true), TOKEN_FRAME_UNSERVED);
    }
    att_autobuf list = {0}; /* ALLOWED_MECHANISMS: two are there, room for one */
    begin(&list, 26, "uaA");
    att_buf_be64(&list, 1);
    att_buf_be32(&list, 1);
    att_buf_be32(&list, 0x40000600);
    att_buf_u8(&list, 1);
    att_buf_be32(&list, 8);
    att_buf_be32(&list, 2);
    att_buf_be64(&list, 1);
    att_buf_be64(&list, 2);
    assert_int_equal(check(&list, true), TOKEN_FRAME_UNSERVED);
}

static void nesting_never_passes(void **state)
{
    (void)state;
    static const uint32_t nested[] = {0x40000211, 0x40000212, 0x40000213};
    for (size_t i = 0; i < 3; i++) {
        att_autobuf templ = {0}, rooms = {0};
        begin(&templ, 26, "uaA");
        att_buf_be64(&templ, 1);
        att_buf_be32(&templ, 1);
        att_buf_be32(&templ, nested[i]);
        att_buf_u8(&templ, 1);
        att_buf_be32(&templ, 24);
        assert_int_equal(check(&templ, true), TOKEN_FRAME_UNSERVED);
        begin(&rooms, 24, "uufA");
        att_buf_be64(&rooms, 1);
        att_buf_be64(&rooms, 64);
        att_buf_be32(&rooms, 1);
        att_buf_be32(&rooms, nested[i]);
        att_buf_be32(&rooms, 24);
        att_buf_be32(&rooms, 1);
        assert_int_equal(check(&rooms, true), TOKEN_FRAME_UNSERVED);
    }
}

static void room(struct att_buf *buf, uint32_t bytes)
{
    begin(buf, 64, "ufy");
    att_buf_be64(buf, 1);
    att_buf_be32(buf, bytes);
}

static void room_beyond_the_cap_is_not_allocated(void **state)
{
    (void)state;
    att_autobuf most = {0}, more = {0}, none = {0}, attrs = {0}, handles = {0};
    room(&most, TOKEN_FRAME_ROOM_MAX);
    room(&more, TOKEN_FRAME_ROOM_MAX + 1);
    assert_int_equal(check(&most, true), TOKEN_FRAME_PASS);
    assert_int_equal(check(&more, true), TOKEN_FRAME_UNSERVED);
    room(&none, 0xffffffff); /* version 1: a buffer of no bytes */
    assert_int_equal(check(&none, true), TOKEN_FRAME_PASS);
    begin(&attrs, 24, "uufA");
    att_buf_be64(&attrs, 1);
    att_buf_be64(&attrs, 64);
    att_buf_be32(&attrs, 2);
    for (int i = 0; i < 2; i++) {
        att_buf_be32(&attrs, 0x11);
        att_buf_be32(&attrs, 0xffffffff);
    }
    assert_int_equal(check(&attrs, true), TOKEN_FRAME_UNSERVED);
    begin(&handles, 27, "ufu");
    att_buf_be64(&handles, 1);
    att_buf_be32(&handles, TOKEN_FRAME_LIST_MAX + 1);
    assert_int_equal(check(&handles, true), TOKEN_FRAME_UNSERVED);
}

static enum token_frame_verdict sign_init(uint32_t mechanism, size_t parameter)
{
    att_autobuf buf = {0};
    static const uint8_t zero[64];
    begin(&buf, 42, "uMu");
    att_buf_be64(&buf, 1);
    att_buf_be32(&buf, mechanism);
    if (parameter) {
        att_buf_field_be32(&buf, ATT_SLICE(zero, parameter));
    } else {
        att_buf_be32(&buf, 0xffffffff);
    }
    att_buf_be64(&buf, 64);
    return check(&buf, true);
}

static void only_plain_mechanisms_pass(void **state)
{
    (void)state;
    assert_int_equal(sign_init(0x1041, 0), TOKEN_FRAME_PASS);      /* ECDSA */
    assert_int_equal(sign_init(1, 0), TOKEN_FRAME_PASS);           /* RSA_PKCS: the token says no */
    assert_int_equal(sign_init(0xffffffff, 0), TOKEN_FRAME_PASS);  /* the null mechanism */
    assert_int_equal(sign_init(0x0d, 24), TOKEN_FRAME_REFUSED);    /* RSA_PKCS_PSS as bytes */
    assert_int_equal(sign_init(0x1050, 24), TOKEN_FRAME_UNSERVED); /* ECDH1_DERIVE */
    assert_int_equal(sign_init(0x1087, 40), TOKEN_FRAME_UNSERVED); /* AES_GCM */
    assert_int_equal(sign_init(0x80000001, 0), TOKEN_FRAME_UNSERVED);
    /* SHA256_RSA_PKCS_PSS as bytes: where p11-kit has it, its shape is PSS's */
    assert_int_equal(sign_init(0x43, 24),
                     TOKEN_PSS_WITH_HASH ? TOKEN_FRAME_REFUSED : TOKEN_FRAME_UNSERVED);
    assert_int_equal(sign_init(0x46, 24), TOKEN_FRAME_UNSERVED); /* SHA224_RSA_PKCS */
}

/* Hash, MGF and salt as three numbers, without a length in front. */
static void pss_has_three_numbers(void **state)
{
    (void)state;
    const uint32_t types[] = {0x0d, 0x43, 0x44, 0x45}; /* the last three hash, too */
    for (size_t type = 0; type < (TOKEN_PSS_WITH_HASH ? 4 : 1); type++) {
        for (int numbers = 0; numbers <= 4; numbers++) {
            att_autobuf buf = {0};
            begin(&buf, 42, "uMu");
            att_buf_be64(&buf, 1);
            att_buf_be32(&buf, types[type]);
            for (int i = 0; i < numbers; i++) {
                att_buf_be64(&buf, 0x250);
            }
            att_buf_be64(&buf, 64);
            assert_int_equal(check(&buf, true),
                             numbers == 3 ? TOKEN_FRAME_PASS : TOKEN_FRAME_REFUSED);
        }
    }
}

static void the_refusal_is_a_whole_frame(void **state)
{
    (void)state;
    uint8_t frame[TOKEN_FRAME_REFUSAL_LEN];
    struct token_frame_head head;
    token_frame_refusal(0x12345678, frame);
    assert_int_equal(token_frame_head(frame, &head, NULL), ATT_OK);
    assert_int_equal(head.code, 0x12345678);
    assert_int_equal(head.options_len + head.message_len + TOKEN_FRAME_HEAD, sizeof frame);
    struct att_cur cur = att_cur_init(ATT_SLICE(frame + 12, head.message_len));
    assert_int_equal(att_cur_be32(&cur), 16);
    assert_true(att_slice_eq_str(att_cur_take_be32(&cur, 8), "ufy"));
    assert_int_equal(att_cur_be64(&cur), 0);
    assert_int_equal(att_cur_be32(&cur), 0);
    assert_true(att_cur_done(&cur));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heads_with_odd_lengths_are_refused),
        cmocka_unit_test(truncation_at_every_length_is_refused),
        cmocka_unit_test(trailing_bytes_are_refused),
        cmocka_unit_test(initialize_comes_first_and_once),
        cmocka_unit_test(another_calls_signature_is_refused),
        cmocka_unit_test(calls_that_are_not_served_become_refusals),
        cmocka_unit_test(too_many_attributes_are_refused),
        cmocka_unit_test(a_value_longer_than_announced_never_passes),
        cmocka_unit_test(nesting_never_passes),
        cmocka_unit_test(room_beyond_the_cap_is_not_allocated),
        cmocka_unit_test(only_plain_mechanisms_pass),
        cmocka_unit_test(pss_has_three_numbers),
        cmocka_unit_test(the_refusal_is_a_whole_frame),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
