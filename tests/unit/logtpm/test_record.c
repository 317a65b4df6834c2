/* What attest-issuerd-tpm signs and what it remembers: each refusal alone, with its reason. */
#include "attestd/logtpm/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORIGIN "issuer.example/log/1"
#define NOW    1790000000

/* Leaves 0 … n-1 of a tree whose leaf i is its number, with `other` in the place of leaf 2. */
struct leaves {
    bool forked;
};

static struct audit_hash leaf_of(const struct leaves *l, uint64_t i)
{
    char text[24];
    snprintf(text, sizeof text, "%llu%s", (unsigned long long)i, l->forked && i == 2 ? "x" : "");
    return audit_tree_leaf(att_slice_str(text));
}

static struct audit_hash root_of(const struct leaves *l, uint64_t n)
{
    static struct audit_tree tree;
    tree = (struct audit_tree){0};
    for (uint64_t i = 0; i < n; i++) {
        struct audit_hash leaf = leaf_of(l, i);
        assert_int_equal(audit_tree_append(&tree, &leaf, NULL, NULL, NULL), ATT_OK);
    }
    return audit_tree_root(&tree);
}

static enum att_rc read_hash(void *user, unsigned level, uint64_t index, struct audit_hash *ret,
                             struct att_err *err)
{
    (void)err;
    assert_int_equal(level, 0);
    *ret = leaf_of(user, index);
    return ATT_OK;
}

struct asked {
    struct att_buf text;
    struct audit_proof proof;
    struct att_slice items[AUDIT_PROOF_MAX];
    struct logtpm_request request;
};

static void ask(struct asked *a, struct leaves *l, uint64_t old, uint64_t size, uint64_t counter)
{
    struct audit_checkpoint c = {.origin = ORIGIN, .size = size, .counter = counter};
    c.root = root_of(l, size);
    *a = (struct asked){.text = {0}};
    audit_checkpoint_text(&c, &a->text);
    if (old && old < size) {
        assert_int_equal(audit_prove_consistency(old, size, read_hash, l, &a->proof, NULL), ATT_OK);
    }
    for (size_t i = 0; i < a->proof.n; i++) {
        a->items[i] = ATT_SLICE_ARRAY(a->proof.hash[i].bytes);
    }
    a->request = (struct logtpm_request){att_buf_slice(&a->text), old, a->items, a->proof.n};
}

static struct logtpm_record record_at(struct leaves *l, uint64_t size, uint64_t counter)
{
    struct logtpm_record r = {.counter = counter, .raises = 3, .raises_at = NOW};
    if (size) {
        r.last = (struct audit_checkpoint){.origin = ORIGIN, .size = size, .counter = counter};
        r.last.root = root_of(l, size);
    }
    return r;
}

static void judged(const struct logtpm_record *r, struct asked *a, uint64_t counter,
                   unsigned raises, enum att_rc want, const char *reason)
{
    struct audit_checkpoint c = {.size = 12345};
    struct att_err err = {0};
    enum att_rc rc = logtpm_judge(r, &a->request, counter, raises, &c, &err);
    if (rc != want) {
        print_error("%s: %s\n", att_rc_name(rc), err.msg);
    }
    assert_int_equal(rc, want);
    assert_string_equal(err.reason, reason);
    assert_true((rc == ATT_OK) == (c.size != 12345));
    att_buf_done(&a->text);
}

static void test_signs_what_continues(void **state)
{
    struct leaves l = {false};
    struct asked a;
    (void)state;
    struct logtpm_record none = record_at(&l, 0, 7);
    ask(&a, &l, 0, 5, 7);
    judged(&none, &a, 7, 1, ATT_OK, "");
    struct logtpm_record r = record_at(&l, 5, 7);
    for (uint64_t size = 5; size <= 300; size += 59) {
        ask(&a, &l, 5, size, 7);
        judged(&r, &a, 7, 0, ATT_OK, "");
    }
    ask(&a, &l, 5, 5, 8); /* the same, sealed */
    judged(&r, &a, 7, 1, ATT_OK, "");
    ask(&a, &l, 3, 5, 7); /* the call that led here, once more: its answer was lost */
    judged(&r, &a, 7, 0, ATT_OK, "");
    r.counter = r.last.counter = 8; /* signed and not raised: again */
    ask(&a, &l, 5, 9, 8);
    judged(&r, &a, 7, 0, ATT_OK, "");
}

static void test_refuses_another_tree(void **state)
{
    struct leaves l = {false}, fork = {true};
    struct asked a;
    (void)state;
    struct logtpm_record r = record_at(&l, 5, 7);
    ask(&a, &l, 5, 4, 7);
    judged(&r, &a, 7, 1, ATT_E_AUTH, "logRolledBack");
    ask(&a, &fork, 5, 9, 7);
    judged(&r, &a, 7, 1, ATT_E_AUTH, "logForked");
    ask(&a, &fork, 5, 5, 7);
    judged(&r, &a, 7, 1, ATT_E_AUTH, "logForked");
    ask(&a, &l, 4, 9, 7);
    judged(&r, &a, 7, 1, ATT_E_CONFLICT, "logOld");
    ask(&a, &l, 5, 9, 7);
    a.request.n--;
    judged(&r, &a, 7, 1, ATT_E_AUTH, "logForked");
    ask(&a, &l, 5, 9, 7);
    a.items[0].len--;
    judged(&r, &a, 7, 1, ATT_E_PARSE, "logNote");
    struct logtpm_record none = record_at(&l, 0, 7);
    ask(&a, &l, 0, 9, 7);
    a.request.n = 1;
    a.items[0] = a.request.text;
    a.items[0].len = 32;
    judged(&none, &a, 7, 1, ATT_E_AUTH, "logForked");
    ask(&a, &l, 0, 0, 7); /* an empty tree has one root */
    judged(&none, &a, 7, 1, ATT_OK, "");
    struct audit_checkpoint c = {.origin = ORIGIN, .counter = 7, .root = root_of(&l, 1)};
    a = (struct asked){.text = {0}};
    audit_checkpoint_text(&c, &a.text);
    a.request.text = att_buf_slice(&a.text);
    judged(&none, &a, 7, 1, ATT_E_AUTH, "logForked");
}

static void test_refuses_another_log(void **state)
{
    struct leaves l = {false};
    struct asked a;
    (void)state;
    struct logtpm_record r = record_at(&l, 5, 7);
    strcpy(r.last.origin, "issuer.example/log/2");
    ask(&a, &l, 5, 9, 7);
    judged(&r, &a, 7, 1, ATT_E_AUTH, "logOrigin");
    r = record_at(&l, 0, 7);
    strcpy(r.ended, ORIGIN);
    ask(&a, &l, 0, 9, 7);
    judged(&r, &a, 7, 1, ATT_E_AUTH, "logOrigin");
}

static void test_refuses_counters(void **state)
{
    struct leaves l = {false};
    struct asked a;
    (void)state;
    struct logtpm_record r = record_at(&l, 5, 7);
    ask(&a, &l, 5, 9, 6);
    judged(&r, &a, 7, 1, ATT_E_AUTH, "logRolledBack");
    ask(&a, &l, 5, 9, 9);
    judged(&r, &a, 7, 1, ATT_E_DENIED, "counterValue");
    ask(&a, &l, 5, 9, 8);
    judged(&r, &a, 7, 0, ATT_E_LIMIT, "counterEarly");
    r.counter = r.last.counter = 8;
    ask(&a, &l, 5, 9, 7); /* 8 was signed */
    judged(&r, &a, 7, 1, ATT_E_AUTH, "logRolledBack");
}

static void test_refuses_other_texts(void **state)
{
    static const char *const behind[] = {"x\n", "tpm-counter 8\n", "\n", " "};
    struct leaves l = {false};
    struct asked a;
    (void)state;
    struct logtpm_record r = record_at(&l, 5, 7);
    for (size_t i = 0; i < sizeof behind / sizeof *behind; i++) {
        ask(&a, &l, 5, 9, 7);
        att_buf_put_str(&a.text, behind[i]);
        a.request.text = att_buf_slice(&a.text);
        judged(&r, &a, 7, 1, ATT_E_PARSE, "logNote");
    }
    ask(&a, &l, 5, 9, 0); /* no counter */
    judged(&r, &a, 7, 1, ATT_E_PARSE, "logNote");
    ask(&a, &l, 5, 9, 7);
    a.request.text.len--;
    judged(&r, &a, 7, 1, ATT_E_PARSE, "logNote");
    ask(&a, &l, 5, 9, 7);
    a.request.text = ATT_SLICE_LIT("any digest");
    judged(&r, &a, 7, 1, ATT_E_PARSE, "logNote");
}

static void test_raises(void **state)
{
    struct logtpm_record r = {.raises = 0, .raises_at = NOW};
    (void)state;
    assert_int_equal(logtpm_raises(&r, NOW, 3600), 0);
    assert_int_equal(logtpm_raises(&r, NOW + 3599, 3600), 0);
    assert_int_equal(logtpm_raises(&r, NOW + 3600, 3600), 1);
    assert_int_equal(logtpm_raises(&r, NOW - 86400, 3600), 0); /* a clock that was wrong */
    assert_int_equal(logtpm_raises(&r, NOW + 365 * 86400, 3600), LOGTPM_RAISES);
    r.raises = LOGTPM_RAISES;
    assert_int_equal(logtpm_raises(&r, NOW + 3600, 3600), LOGTPM_RAISES);
    /* It rose while the clock was fourteen years ahead: an interval after that is seen there is one
     * again; a clock that is right changes nothing. */
    r = (struct logtpm_record){.raises = 0, .raises_at = NOW + 14 * 365 * 86400LL};
    logtpm_record_clock(&r, NOW);
    assert_int_equal(logtpm_raises(&r, NOW, 3600), 0);
    logtpm_record_clock(&r, NOW + 3600);
    assert_int_equal(logtpm_raises(&r, NOW + 3600, 3600), 1);
}

static void fits(uint64_t remembered, uint64_t counter, enum att_rc want, const char *reason)
{
    const struct logtpm_record r = {.counter = remembered};
    struct att_err err = {0};
    assert_int_equal(logtpm_record_fits(&r, counter, &err), want);
    assert_string_equal(err.reason, reason);
}

static void test_counter_against_record(void **state)
{
    (void)state;
    fits(7, 7, ATT_OK, "");
    fits(8, 7, ATT_OK, ""); /* signed, not raised yet */
    fits(6, 7, ATT_E_AUTH, "logRolledBack");
    fits(9, 7, ATT_E_CONFLICT, "counterForeign");
}

static void same(const struct logtpm_record *r)
{
    att_autobuf text = {0}, again = {0};
    struct logtpm_record back;
    struct att_err err = {0};
    assert_int_equal(logtpm_record_encode(r, &text, NULL), ATT_OK);
    assert_int_equal(logtpm_record_parse(att_buf_slice(&text), &back, &err), ATT_OK);
    assert_int_equal(logtpm_record_encode(&back, &again, NULL), ATT_OK);
    assert_true(att_slice_eq(att_buf_slice(&text), att_buf_slice(&again)));
}

static void test_record(void **state)
{
    static const char *const bent[][2] = {{"\"version\":1", "\"version\":2"},
                                          {"\"size\":5", "\"size\":-5"},
                                          {"\"counter\":7", "\"counter\":0"},
                                          {"\"counter\":7", "\"counter\":6"},
                                          {"\"raises\":3", "\"raises\":99"},
                                          {"issuer.example", "issuer example"},
                                          {"\"was\":0,", ""},
                                          {"}", ",\"more\":1}"}};
    struct leaves l = {false};
    (void)state;
    struct logtpm_record r = record_at(&l, 5, 7);
    same(&r);
    for (size_t i = 0; i < sizeof bent / sizeof *bent; i++) {
        att_autobuf text = {0}, wrong = {0};
        struct logtpm_record back;
        struct att_err err = {0};
        assert_int_equal(logtpm_record_encode(&r, &text, NULL), ATT_OK);
        const char *all = att_buf_cstr(&text), *at = strstr(all, bent[i][0]);
        assert_non_null(at);
        att_buf_printf(&wrong, "%.*s%s%s", (int)(at - all), all, bent[i][1],
                       at + strlen(bent[i][0]));
        assert_int_equal(logtpm_record_parse(att_buf_slice(&wrong), &back, &err), ATT_E_CONFLICT);
        assert_string_equal(err.reason, "logTpmRecord");
    }
}

static void test_operators_word(void **state)
{
    char long_reason[LOGTPM_REASON_MAX + 2];
    struct leaves l = {false};
    (void)state;
    struct logtpm_record r = record_at(&l, 5, 7), before = r;
    memset(long_reason, 'x', sizeof long_reason - 1);
    long_reason[sizeof long_reason - 1] = 0;
    assert_int_equal(logtpm_record_new_log(&r, "", NOW, NULL), ATT_E_INVAL);
    assert_int_equal(logtpm_record_new_log(&r, "a\nb", NOW, NULL), ATT_E_INVAL);
    assert_int_equal(logtpm_record_new_log(&r, long_reason, NOW, NULL), ATT_E_INVAL);
    assert_memory_equal(&r, &before, sizeof r);
    assert_int_equal(logtpm_record_new_log(&r, "an \"older\" backup", NOW, NULL), ATT_OK);
    assert_string_equal(r.ended, ORIGIN);
    assert_string_equal(r.last.origin, "");
    assert_int_equal(r.counter, 7);
    assert_non_null(strstr(r.before, "\"size\":5"));
    same(&r);
    /* a second one ends: the first one stays ended */
    r.last = (struct audit_checkpoint){.origin = "second.example/log", .size = 2, .counter = 7};
    assert_int_equal(logtpm_record_new_log(&r, "again", NOW, NULL), ATT_OK);
    assert_string_equal(r.ended, ORIGIN " second.example/log");
    same(&r);
    struct asked a;
    ask(&a, &l, 0, 5, 7);
    judged(&r, &a, 7, 1, ATT_E_AUTH, "logOrigin");
    for (int i = 0; i < 64; i++) {
        struct att_err err = {0};
        struct logtpm_record was = r;
        memset(r.last.origin, 'a', AUDIT_NAME_MAX);
        if (logtpm_record_new_log(&r, "again", NOW, &err) != ATT_OK) {
            assert_string_equal(err.reason, "logTpmRecord");
            assert_string_equal(r.ended, was.ended);
            assert_true(i > 5);
            break;
        }
        same(&r);
        assert_true(i < 8);
    }
    r = before;
    assert_int_equal(logtpm_record_new_counter(&r, 9, "removed", NOW, NULL), ATT_OK);
    assert_int_equal(r.was, 7);
    assert_int_equal(r.counter, 9);
    assert_string_equal(r.last.origin, ORIGIN);
    same(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signs_what_continues),   cmocka_unit_test(test_refuses_another_tree),
        cmocka_unit_test(test_refuses_another_log),    cmocka_unit_test(test_refuses_counters),
        cmocka_unit_test(test_refuses_other_texts),    cmocka_unit_test(test_raises),
        cmocka_unit_test(test_counter_against_record), cmocka_unit_test(test_record),
        cmocka_unit_test(test_operators_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
