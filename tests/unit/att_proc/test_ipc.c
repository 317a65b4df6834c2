/* The codec of keyd's socket: refusals first. */
#include "attestd/proc/keyd_proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct proc_op *op_of(enum proc_keyd_op op)
{
    const struct proc_op *found = proc_op_find(proc_keyd_table, (uint16_t)op);
    assert_non_null(found);
    return found;
}

/* A value of the shape's greatest or smallest size for each field. */
static void fill(const struct proc_shape *shape, bool greatest, struct proc_value *values,
                 uint8_t *letters, struct att_slice *items)
{
    for (size_t i = 0; i < PROC_FIELDS_MAX && shape->fields[i].name; i++) {
        const struct proc_field *field = &shape->fields[i];
        uint32_t n = greatest ? field->max : field->min;
        values[i] = (struct proc_value){.num = n, .bytes = ATT_SLICE(letters, n)};
        if (field->type == PROC_LIST) {
            n = n > 3 ? 3 : n;
            for (uint32_t k = 0; k < n; k++) {
                items[k] = ATT_SLICE(letters, field->item_max);
            }
            values[i] = (struct proc_value){.items = items, .item_count = n};
        }
    }
}

static void every_shape_round_trips(void **state)
{
    (void)state;
    uint8_t *letters = malloc(PROC_FRAME_MAX);
    struct proc_msg *msg = malloc(sizeof *msg);
    struct att_slice items[3];
    memset(letters, 'a', PROC_FRAME_MAX);
    for (const struct proc_op *op = proc_keyd_table; op->name; op++) {
        for (int which = 0; which < 4; which++) {
            const struct proc_shape *shape = which & 1 ? &op->request : &op->reply;
            struct proc_value values[PROC_FIELDS_MAX] = {0};
            fill(shape, which & 2, values, letters, items);
            att_autobuf bytes = {0};
            struct att_err err = {0};
            assert_int_equal(proc_msg_encode(shape, values, &bytes, &err), ATT_OK);
            assert_true(bytes.len <= PROC_FRAME_MAX - PROC_HEADER_LEN - 1);
            assert_int_equal(proc_msg_parse(shape, att_buf_slice(&bytes), msg, &err), ATT_OK);
            att_autobuf again = {0};
            assert_int_equal(proc_msg_encode(shape, msg->v, &again, &err), ATT_OK);
            assert_true(att_slice_eq(att_buf_slice(&bytes), att_buf_slice(&again)));
        }
    }
    free(msg);
    free(letters);
}

static void truncation_at_every_length_is_refused(void **state)
{
    (void)state;
    uint8_t letters[8192];
    struct att_slice items[3];
    struct proc_msg *msg = malloc(sizeof *msg);
    memset(letters, 'a', sizeof letters);
    for (const struct proc_op *op = proc_keyd_table; op->name; op++) {
        const struct proc_shape *shape = &op->request;
        struct proc_value values[PROC_FIELDS_MAX] = {0};
        fill(shape, false, values, letters, items);
        att_autobuf bytes = {0};
        assert_int_equal(proc_msg_encode(shape, values, &bytes, NULL), ATT_OK);
        for (size_t len = 0; len < bytes.len; len++) {
            /* A copy of exactly len bytes, so that reading one more is seen. */
            uint8_t *cut = malloc(len ? len : 1);
            memcpy(cut, bytes.ptr, len);
            struct att_err err = {0};
            assert_int_not_equal(proc_msg_parse(shape, ATT_SLICE(cut, len), msg, &err), ATT_OK);
            assert_true(err.msg[0]);
            free(cut);
        }
        att_buf_u8(&bytes, 0);
        assert_int_equal(proc_msg_parse(shape, att_buf_slice(&bytes), msg, NULL), ATT_E_PARSE);
    }
    free(msg);
}

static void bounds_are_kept_both_ways(void **state)
{
    (void)state;
    const struct proc_shape *shape = &op_of(PROC_KEYD_FREEZE)->request;
    struct proc_msg msg;
    char name[PROC_AGENT_MAX + 2];
    memset(name, 'a', sizeof name);
    struct proc_value value = {.bytes = ATT_SLICE(name, PROC_AGENT_MAX + 1)};
    att_autobuf bytes = {0};
    struct att_err err = {0};
    assert_int_equal(proc_msg_encode(shape, &value, &bytes, &err), ATT_E_LIMIT);
    assert_non_null(strstr(err.msg, "agent"));
    value.bytes.len = 0;
    assert_int_equal(proc_msg_encode(shape, &value, &bytes, NULL), ATT_E_PARSE);
    att_buf_reset(&bytes);
    att_buf_field_be32(&bytes, ATT_SLICE(name, PROC_AGENT_MAX + 1));
    assert_int_equal(proc_msg_parse(shape, att_buf_slice(&bytes), &msg, NULL), ATT_E_PARSE);
    att_buf_reset(&bytes);
    att_buf_be32(&bytes, 0xffffffff);
    assert_int_equal(proc_msg_parse(shape, att_buf_slice(&bytes), &msg, NULL), ATT_E_PARSE);
}

static void text_must_be_clean(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        bool ok;
    } cases[] = {
        {"abc", 3, true},
        {"\xc3\xa4", 2, true},          /* ä */
        {"\xe2\x82\xac", 3, true},      /* € */
        {"\xf0\x9f\x94\x91", 4, true},  /* U+1F511 */
        {"a\0b", 3, false},             /* NUL */
        {"a\nb", 3, false},             /* a control character */
        {"a\x7f", 2, false},            /* DEL */
        {"\xc0\x80", 2, false},         /* overlong NUL */
        {"\xc1\xbf", 2, false},         /* overlong */
        {"\xe0\x80\x80", 3, false},     /* overlong */
        {"\xed\xa0\x80", 3, false},     /* a surrogate */
        {"\xf4\x90\x80\x80", 4, false}, /* beyond U+10FFFF */
        {"\xc3", 1, false},             /* cut */
        {"\xe2\x82", 2, false},         /* cut */
        {"\x80", 1, false},             /* alone */
        {"\xff", 1, false},
    };
    const struct proc_shape *shape = &op_of(PROC_KEYD_FREEZE)->request;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct proc_msg msg;
        att_autobuf bytes = {0};
        att_buf_field_be32(&bytes, ATT_SLICE(cases[i].bytes, cases[i].len));
        enum att_rc rc = proc_msg_parse(shape, att_buf_slice(&bytes), &msg, NULL);
        assert_int_equal(rc, cases[i].ok ? ATT_OK : ATT_E_PARSE);
    }
}

static void lists_are_bounded(void **state)
{
    (void)state;
    const struct proc_shape *shape = &op_of(PROC_KEYD_KEY_LIST)->reply;
    struct proc_msg *msg = malloc(sizeof *msg);
    att_autobuf bytes = {0};
    att_buf_be32(&bytes, PROC_KEY_PAGE + 1);
    for (int i = 0; i < PROC_KEY_PAGE + 1; i++) {
        att_buf_be32(&bytes, 0);
    }
    assert_int_equal(proc_msg_parse(shape, att_buf_slice(&bytes), msg, NULL), ATT_E_LIMIT);
    att_buf_reset(&bytes);
    att_buf_be32(&bytes, 0xffffffff);
    assert_int_equal(proc_msg_parse(shape, att_buf_slice(&bytes), msg, NULL), ATT_E_LIMIT);
    att_buf_reset(&bytes);
    att_buf_be32(&bytes, 1);
    att_buf_be32(&bytes, shape->fields[0].item_max + 1);
    memset(att_buf_extend(&bytes, shape->fields[0].item_max + 1), 0, shape->fields[0].item_max + 1);
    assert_int_equal(proc_msg_parse(shape, att_buf_slice(&bytes), msg, NULL), ATT_E_PARSE);
    free(msg);
}

static void frames_are_bounded(void **state)
{
    (void)state;
    struct proc_frame frame;
    assert_int_equal(proc_frame_parse(ATT_SLICE_LIT("12345"), &frame, NULL), ATT_E_PARSE);
    uint8_t *big = calloc(1, PROC_FRAME_MAX + 1);
    assert_int_equal(proc_frame_parse(ATT_SLICE(big, PROC_FRAME_MAX + 1), &frame, NULL),
                     ATT_E_LIMIT);
    att_autobuf out = {0};
    assert_int_equal(
        proc_frame_encode(1, 2, ATT_SLICE(big, PROC_FRAME_MAX - PROC_HEADER_LEN + 1), &out, NULL),
        ATT_E_LIMIT);
    assert_int_equal(out.len, 0);
    free(big);
    assert_int_equal(proc_frame_encode(7, 9, ATT_SLICE_LIT("xy"), &out, NULL), ATT_OK);
    assert_memory_equal(out.ptr, "\0\0\0\x08\0\0\0\x07\0\x09xy", 12);
    assert_int_equal(proc_frame_parse(ATT_SLICE(out.ptr + 4, 8), &frame, NULL), ATT_OK);
    assert_int_equal(frame.id, 7);
    assert_int_equal(frame.op, 9);
    assert_true(att_slice_eq_str(frame.payload, "xy"));
}

static void errors_come_back_whole(void **state)
{
    (void)state;
    const struct proc_op *op = op_of(PROC_KEYD_KEY_DESTROY);
    struct proc_msg msg;
    for (int rc = ATT_OK + 1; rc <= ATT_E_INTERNAL; rc++) {
        struct att_err cause = {0}, got = {0};
        (void)!att_fail(&cause, (enum att_rc)rc, "what \"happened\"\n\x80");
        att_err_reason(&cause, "someReason");
        att_autobuf payload = ATT_BUF_INIT(PROC_FRAME_MAX);
        proc_reply_encode_err((enum att_rc)rc, &cause, &payload);
        assert_int_equal(proc_reply_parse(op, att_buf_slice(&payload), &msg, &got), rc);
        assert_string_equal(got.reason, "someReason");
        assert_string_equal(got.msg, "what \"happened\"??");
    }
}

static void replies_without_form_are_protocol_errors(void **state)
{
    (void)state;
    const struct proc_op *op = op_of(PROC_KEYD_ACCOUNT_SIGN);
    struct proc_msg msg;
    assert_int_equal(proc_reply_parse(op, (struct att_slice){0}, &msg, NULL), ATT_E_PROTOCOL);
    assert_int_equal(proc_reply_parse(op, ATT_SLICE_LIT("\x02"), &msg, NULL), ATT_E_PROTOCOL);
    assert_int_equal(proc_reply_parse(op, ATT_SLICE("\0\0\0\0\x01x", 6), &msg, NULL),
                     ATT_E_PROTOCOL);
    assert_int_equal(proc_reply_parse(op, ATT_SLICE("\x01\0\0", 3), &msg, NULL), ATT_E_PROTOCOL);
    /* An error whose code is no code of ours. */
    assert_int_equal(
        proc_reply_parse(op, ATT_SLICE("\x01\0\0\0\x02ok\0\0\0\0\0\0\0\0", 15), &msg, NULL),
        ATT_E_PROTOCOL);
}

static void names_have_their_form(void **state)
{
    (void)state;
    static const char *const good[] = {"a", "0", "portfolio-rebalancer", "a.b_c-d", "a-"};
    static const char *const bad[] = {"", "-a", ".a", "A", "a/b", "a b", "ä", "_x"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        assert_true(proc_agent_name_ok(att_slice_str(good[i])));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(proc_agent_name_ok(att_slice_str(bad[i])));
    }
    assert_true(proc_key_id_ok(ATT_SLICE_LIT("0123456789abcdef0123456789abcdef")));
    assert_false(proc_key_id_ok(ATT_SLICE_LIT("0123456789ABCDEF0123456789abcdef")));
    assert_false(proc_key_id_ok(ATT_SLICE_LIT("0123456789abcdef0123456789abcde")));
    assert_false(proc_key_id_ok(ATT_SLICE_LIT("../..6789abcdef0123456789abcdef")));
}

static void operations_are_numbered_once(void **state)
{
    (void)state;
    for (const struct proc_op *a = proc_keyd_table; a->name; a++) {
        assert_true(a->op && a->op < PROC_REPLY);
        assert_ptr_equal(proc_op_find(proc_keyd_table, a->op), a);
        for (const struct proc_op *b = a + 1; b->name; b++) {
            assert_int_not_equal(a->op, b->op);
            assert_string_not_equal(a->name, b->name);
        }
    }
    assert_null(proc_op_find(proc_keyd_table, 0));
    assert_null(proc_op_find(proc_keyd_table, 0x7fff));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(truncation_at_every_length_is_refused),
        cmocka_unit_test(bounds_are_kept_both_ways),
        cmocka_unit_test(text_must_be_clean),
        cmocka_unit_test(lists_are_bounded),
        cmocka_unit_test(frames_are_bounded),
        cmocka_unit_test(errors_come_back_whole),
        cmocka_unit_test(replies_without_form_are_protocol_errors),
        cmocka_unit_test(names_have_their_form),
        cmocka_unit_test(operations_are_numbered_once),
        cmocka_unit_test(every_shape_round_trips),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
