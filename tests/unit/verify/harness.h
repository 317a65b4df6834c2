/* What the tests of this folder share: one wrong thing at a time, and what the verdict must be. */
#ifndef ATTESTD_TESTS_VERIFY_HARNESS_H
#define ATTESTD_TESTS_VERIFY_HARNESS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "tests/support/forge.h"

struct forged_case {
    const char *name;
    forge_mutate mutate;
    enum verify_reason reason; /* VERIFY_REASON_NONE: must be accepted */
};

static inline void print_verdict(const struct verify_verdict *verdict)
{
    att_autobuf text = {0};
    verify_verdict_text(verdict, &text);
    print_message("%.*s", (int)text.len, (const char *)text.ptr);
}

/* Refused for exactly this reason; whatever came before it passed. */
static inline void assert_refused(const struct verify_verdict *verdict, enum verify_reason reason,
                                  const char *name)
{
    if (verify_verdict_result(verdict) != VERIFY_REFUSED) {
        print_verdict(verdict);
        fail_msg("%s: accepted, expected %s", name, verify_reason_word(reason));
    }
    const struct verify_check *refusal = verify_verdict_refusal(verdict);
    assert_non_null(refusal);
    if (refusal->reason != reason || refusal->outcome != VERIFY_FAIL) {
        print_verdict(verdict);
        fail_msg("%s: refused by %s, expected %s", name, verify_reason_word(refusal->reason),
                 verify_reason_word(reason));
    }
    assert_true(refusal->detail[0] != '\0');
    for (const struct verify_check *check = verdict->checks; check != refusal; check++) {
        if (check->outcome != VERIFY_PASS && check->outcome != VERIFY_SKIP) {
            print_verdict(verdict);
            fail_msg("%s: %s did not pass before %s", name, verify_reason_word(check->reason),
                     verify_reason_word(reason));
        }
    }
    struct att_err err = {0};
    assert_int_not_equal(verify_verdict_err(verdict, &err), ATT_OK);
    assert_string_equal(err.reason, verify_reason_word(reason));
}

static inline void assert_accepted(const struct verify_verdict *verdict, const char *name)
{
    if (verify_verdict_result(verdict) != VERIFY_ACCEPTED) {
        print_verdict(verdict);
        fail_msg("%s: refused", name);
    }
    assert_null(verify_verdict_refusal(verdict));
}

static inline const struct verify_check *find_check(const struct verify_verdict *verdict,
                                                    enum verify_reason reason)
{
    for (size_t i = 0; i < verdict->n_checks; i++) {
        if (verdict->checks[i].reason == reason) {
            return &verdict->checks[i];
        }
    }
    return NULL;
}

#endif
