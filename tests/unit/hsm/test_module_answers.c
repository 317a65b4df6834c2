/* Tokens that cannot be used, and answers of a module that cannot be: SoftHSM with one function or
 * another exchanged. */
#include "pkcs11/hsm/internal.h"
#include "tests/support/softhsm.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static char folder[64], serial[17];
static struct att_secret pin;

static struct hsm_opts options(void)
{
    return (struct hsm_opts){.module_path = SOFTHSM_MODULE,
                             .label = "agents",
                             .serial = serial,
                             .pin = &pin,
                             .sessions = 4,
                             .wait_ms = 20000};
}

static struct hsm *open_with(const struct hsm_opts *opts)
{
    struct hsm *hsm = NULL;
    struct att_err err = {0};
    if (hsm_new(opts, &hsm, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
    return hsm;
}

static struct hsm *open_it(void)
{
    struct hsm_opts opts = options();
    return open_with(&opts);
}

static unsigned logins;
static enum att_rc count_login(void *user, struct att_err *err)
{
    (void)user;
    (void)err;
    logins++;
    return ATT_OK;
}

static CK_FUNCTION_LIST *real; /* SoftHSM's own functions, where one is exchanged */

static CK_RV list_twice(CK_BBOOL present, CK_SLOT_ID *list, CK_ULONG *count)
{
    CK_ULONG room = *count;
    CK_RV rv = real->C_GetSlotList(present, list, count);
    if (rv == CKR_OK && list && *count && 2 * *count <= room) {
        memcpy(list + *count, list, *count * sizeof *list);
        *count *= 2;
    }
    return rv;
}

/* No serial number tells them apart: keys would be made in the one and looked for in the other. */
static void test_two_tokens_alike(void **state)
{
    (void)state;
    struct att_err err = {0};
    struct hsm *hsm = open_it();
    real = hsm->module;
    CK_FUNCTION_LIST twice = *real;
    twice.C_GetSlotList = list_twice;
    hsm->module = &twice;
    assert_int_equal(hsm_poll(hsm, &err), ATT_E_CONFLICT);
    assert_string_equal(err.reason, "tokenAmbiguous");
    hsm->module = real;
    hsm_free(hsm);
}

static CK_RV sign_short(CK_SESSION_HANDLE session, unsigned char *data, CK_ULONG len,
                        unsigned char *signature, CK_ULONG *signature_len)
{
    CK_RV rv = real->C_Sign(session, data, len, signature, signature_len);
    *signature_len -= rv == CKR_OK;
    return rv;
}

static CK_RV destroy_nothing(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object)
{
    (void)session;
    (void)object;
    return CKR_OK;
}

/* CKR_OK, and it is not so. */
static void test_answers_that_cannot_be(void **state)
{
    (void)state;
    struct att_err err = {0};
    struct hsm *hsm = open_it();
    uint8_t id[HSM_KEY_ID_LEN], digest[32] = {1}, raw[64];
    struct hsm_key key;
    assert_int_equal(att_random(id, sizeof id, NULL), ATT_OK);
    assert_int_equal(hsm_key_create(hsm, id, ATT_KEYTYPE_P256, &key, &err), ATT_OK);
    real = hsm->module;
    CK_FUNCTION_LIST bad = *real;
    bad.C_Sign = sign_short;
    bad.C_DestroyObject = destroy_nothing;
    hsm->module = &bad;
    assert_int_equal(hsm_key_sign(hsm, id, digest, raw, &err), ATT_E_PROTOCOL);
    assert_string_equal(err.reason, "moduleAnswer");
    att_err_clear(&err);
    assert_int_equal(hsm_key_destroy(hsm, id, &err), ATT_E_PROTOCOL);
    assert_string_equal(err.reason, "moduleAnswer");
    hsm->module = real;
    assert_int_equal(hsm_key_sign(hsm, id, digest, raw, NULL), ATT_OK);
    assert_int_equal(hsm_key_destroy(hsm, id, &err), ATT_OK);
    hsm_free(hsm);
}

/* A token as C_InitToken leaves it: no user PIN. */
static void test_no_pin_is_told_without_a_try(void **state)
{
    (void)state;
    static char bare[17];
    char token[256];
    struct att_err err = {0};
    struct hsm *hsm = open_it();
    CK_SLOT_ID slots[16];
    CK_ULONG count = 16;
    CK_TOKEN_INFO info;
    unsigned char label[33] = "agents                          ", so_pin[] = SOFTHSM_SO_PIN;
    assert_int_equal(hsm_poll(hsm, &err), ATT_OK);
    assert_int_equal(hsm->module->C_GetSlotList(CK_TRUE, slots, &count), CKR_OK);
    CK_SLOT_ID last = slots[count - 1]; /* SoftHSM has an uninitialized one at the end */
    assert_int_equal(hsm->module->C_InitToken(last, so_pin, sizeof so_pin - 1, label), CKR_OK);
    assert_int_equal(hsm->module->C_GetTokenInfo(last, &info), CKR_OK);
    memcpy(bare, info.serialNumber, 16);
    hsm_free(hsm);
    struct hsm_opts opts = options();
    opts.serial = bare;
    opts.may_login = count_login;
    logins = 0;
    hsm = open_with(&opts);
    assert_int_equal(hsm_poll(hsm, &err), ATT_E_DENIED);
    assert_string_equal(err.reason, "pinNotSet");
    assert_int_equal(logins, 0);
    hsm_free(hsm);
    softhsm_token_dir(folder, bare, token, sizeof token);
    softhsm_run("rm -r %s", token);
}

static int setup(void **state)
{
    (void)state;
    softhsm_init(folder);
    softhsm_token(folder, "agents", serial);
    return att_secret_copy(&pin, ATT_SLICE_LIT(SOFTHSM_PIN), NULL) != ATT_OK;
}

static int teardown(void **state)
{
    (void)state;
    att_secret_done(&pin);
    softhsm_done(folder);
    return 0;
}

int main(void)
{
    if (!softhsm_available()) {
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_tokens_alike),
        cmocka_unit_test(test_answers_that_cannot_be),
        cmocka_unit_test(test_no_pin_is_told_without_a_try),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
