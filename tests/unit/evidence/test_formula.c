/* Expected values come from a few lines of Python over the text of docs/PROTOCOL.md. */
#include "attestd/base/enc.h"
#include "provision/evidence/formula.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

static void expect(const uint8_t got[ATT_SHA256_LEN], const char *want)
{
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE(got, ATT_SHA256_LEN));
    assert_string_equal(hex, want);
}

static void test_formulas(void **state)
{
    (void)state;
    uint8_t got[ATT_SHA256_LEN];
    struct att_slice ka = ATT_SLICE_LIT("tok.thp");
    evidence_certify_extra(got, ka);
    expect(got, "5d1c7bf34345fdfe46f1ae53a4fbc1c57f043076288e98ed55dae9f6352c47a2");
    evidence_quote_extra(got, ka, ATT_SLICE_LIT("certinfo"), ATT_SLICE_LIT("evidence"));
    expect(got, "18ce81867a98f66c015a01af271e75d62eb43413268202072f56b58dc30b68bd");
    evidence_quote_extra(got, ka, (struct att_slice){0}, ATT_SLICE_LIT("evidence"));
    expect(got, "4b973e1a650e0860e00d01a3efecc2e74daf9116b7024f2474354ba2f6bfb2c8");
    evidence_user_quote_extra(got, ATT_SLICE_LIT("nonce"), ATT_SLICE_LIT("manifest"));
    expect(got, "84df86202c4bcc62c5a0c0f5d34f3a6898d50109e8fcdeff68cf4366a24178c9");
}

/* An operator's nonce can never be chosen so that his quote answers an order. */
static void test_user_quote_is_apart(void **state)
{
    (void)state;
    uint8_t order[ATT_SHA256_LEN], user[ATT_SHA256_LEN];
    evidence_quote_extra(order, ATT_SLICE_LIT("t.p"), ATT_SLICE_LIT("c"), ATT_SLICE_LIT("e"));
    evidence_user_quote_extra(user, ATT_SLICE_ARRAY(order), ATT_SLICE_LIT(""));
    assert_memory_not_equal(order, user, sizeof user);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_formulas),
        cmocka_unit_test(test_user_quote_is_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
