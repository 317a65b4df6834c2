#include "provision/acme/nonce.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct acme_nonces *make(uint32_t id, uint64_t epoch, size_t window)
{
    struct acme_nonces *nonces = NULL;
    assert_int_equal(acme_nonces_new(id, epoch, window, &nonces, NULL), ATT_OK);
    return nonces;
}

static void refuse(struct acme_nonces *nonces, const char *text, enum att_rc rc, const char *word)
{
    struct att_err err = {0};
    assert_int_equal(acme_nonces_spend(nonces, text, &err), rc);
    assert_string_equal(err.reason, "badNonce");
    assert_non_null(strstr(err.msg, word));
}

static void test_refusals(void **state)
{
    (void)state;
    struct acme_nonces *nonces = make(1, 7, 64), *other = make(1, 7, 64);
    char text[ACME_NONCE_TEXT], changed[ACME_NONCE_TEXT];
    acme_nonces_issue(nonces, text);
    assert_int_equal(strlen(text), 48);
    refuse(nonces, NULL, ATT_E_PARSE, "not one of ours");
    refuse(nonces, "", ATT_E_PARSE, "not one of ours");
    refuse(nonces, "AAAA", ATT_E_PARSE, "not one of ours");
    refuse(nonces, "!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!", ATT_E_PARSE,
           "not one of ours");
    for (size_t i = 0; i < 48; i++) { /* every character counts */
        memcpy(changed, text, sizeof changed);
        changed[i] = changed[i] == 'A' ? 'B' : 'A';
        refuse(nonces, changed, ATT_E_AUTH, "not issued");
    }
    refuse(other, text, ATT_E_AUTH, "not issued"); /* the process before a restart, say */
    assert_int_equal(acme_nonces_spend(nonces, text, NULL), ATT_OK);
    refuse(nonces, text, ATT_E_CONFLICT, "spent already");
    acme_nonces_free(nonces);
    acme_nonces_free(other);
    struct acme_nonces *none = NULL;
    assert_int_equal(acme_nonces_new(1, 1, 0, &none, NULL), ATT_E_INVAL);
    assert_int_equal(acme_nonces_new(1, 1, ACME_NONCE_WINDOW_MAX + 1, &none, NULL), ATT_E_INVAL);
}

static void test_window(void **state)
{
    (void)state;
    enum { WINDOW = 128 };
    struct acme_nonces *nonces = make(1, 1, WINDOW);
    char text[2 * WINDOW + 1][ACME_NONCE_TEXT];
    for (size_t i = 0; i <= WINDOW; i++) {
        acme_nonces_issue(nonces, text[i]);
    }
    refuse(nonces, text[0], ATT_E_CONFLICT, "too old"); /* exactly one fell out */
    for (size_t i = WINDOW; i >= 1; i--) {              /* any order */
        assert_int_equal(acme_nonces_spend(nonces, text[i], NULL), ATT_OK);
    }
    for (size_t i = 1; i <= WINDOW; i++) {
        refuse(nonces, text[i], ATT_E_CONFLICT, "spent already");
    }
    /* A spent number's place is used again: the old nonce stays spent. */
    for (size_t i = WINDOW + 1; i <= 2 * WINDOW; i++) {
        acme_nonces_issue(nonces, text[i]);
    }
    refuse(nonces, text[1], ATT_E_CONFLICT, "too old");
    refuse(nonces, text[WINDOW], ATT_E_CONFLICT, "too old");
    assert_int_equal(acme_nonces_spend(nonces, text[WINDOW + 1], NULL), ATT_OK);
    acme_nonces_free(nonces);
}

/* Eight threads try to spend the same nonces: each is spent exactly once. */
enum { ROUNDS = 400, THREADS = 8 };
static char shared[ROUNDS][ACME_NONCE_TEXT];
static atomic_int spent;

static void *spender(void *user)
{
    for (size_t i = 0; i < ROUNDS; i++) {
        if (acme_nonces_spend(user, shared[i], NULL) == ATT_OK) {
            atomic_fetch_add(&spent, 1);
        }
    }
    return NULL;
}

static void test_race(void **state)
{
    (void)state;
    struct acme_nonces *nonces = make(2, 2, 1024);
    pthread_t threads[THREADS];
    for (size_t i = 0; i < ROUNDS; i++) {
        acme_nonces_issue(nonces, shared[i]);
    }
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, spender, nonces), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&spent), ROUNDS);
    acme_nonces_free(nonces);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_race),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
