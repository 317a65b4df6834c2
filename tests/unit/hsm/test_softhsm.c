/* The key store on a real module: SoftHSM2. */
#include "pkcs11/hsm/internal.h"
#include "tests/support/softhsm.h"

#include <dlfcn.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64], serial[17], serial_too[17];
static struct att_secret pin, wrong_pin;

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

static void new_id(uint8_t id[HSM_KEY_ID_LEN])
{
    assert_int_equal(att_random(id, HSM_KEY_ID_LEN, NULL), ATT_OK);
}

static bool verifies(const struct hsm_key *key, const uint8_t digest[32], const uint8_t raw[64])
{
    EVP_PKEY *pkey = NULL;
    assert_int_equal(att_keytype_key(ATT_SLICE(key->spki, key->spki_len), &pkey, NULL), ATT_OK);
    ECDSA_SIG *sig = ECDSA_SIG_new();
    assert_int_equal(ECDSA_SIG_set0(sig, BN_bin2bn(raw, 32, NULL), BN_bin2bn(raw + 32, 32, NULL)),
                     1);
    unsigned char *der = NULL;
    int len = i2d_ECDSA_SIG(sig, &der);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(pkey, NULL);
    assert_int_equal(EVP_PKEY_verify_init(ctx), 1);
    bool good = EVP_PKEY_verify(ctx, der, (size_t)len, digest, 32) == 1;
    EVP_PKEY_CTX_free(ctx);
    OPENSSL_free(der);
    ECDSA_SIG_free(sig);
    EVP_PKEY_free(pkey);
    return good;
}

static void create(struct hsm *hsm, uint8_t id[HSM_KEY_ID_LEN], struct hsm_key *ret_key)
{
    struct att_err err = {0};
    new_id(id);
    if (hsm_key_create(hsm, id, ATT_KEYTYPE_P256, ret_key, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
}

static void sign_ok(struct hsm *hsm, const uint8_t *id, const struct hsm_key *key)
{
    uint8_t digest[32], raw[64];
    struct att_err err = {0};
    assert_int_equal(att_random(digest, sizeof digest, NULL), ATT_OK);
    if (hsm_key_sign(hsm, id, digest, raw, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
    assert_true(verifies(key, digest, raw));
    digest[0] ^= 1;
    assert_false(verifies(key, digest, raw));
}

static void sign_refused(struct hsm *hsm, const uint8_t *id, enum att_rc rc, const char *reason)
{
    uint8_t digest[32] = {1}, raw[64] = {0};
    static const uint8_t untouched[64];
    struct att_err err = {0};
    assert_int_equal(hsm_key_sign(hsm, id, digest, raw, &err), rc);
    assert_string_equal(err.reason, reason);
    assert_memory_equal(raw, untouched, sizeof raw);
}

/* An object of somebody else, with a label that is not ours or an id of another length. */
static void foreign_key(struct hsm *hsm, const char *label, const uint8_t *id, size_t id_len)
{
    CK_SESSION_HANDLE session;
    CK_MECHANISM mechanism = {CKM_EC_KEY_PAIR_GEN, NULL, 0};
    CK_BBOOL yes = CK_TRUE;
    uint8_t curve[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}, copy[32];
    char text[32];
    memcpy(copy, id, id_len);
    strcpy(text, label);
    CK_ATTRIBUTE public[] = {{CKA_EC_PARAMS, curve, sizeof curve}, {CKA_TOKEN, &yes, 1}};
    CK_ATTRIBUTE private[] = {{CKA_TOKEN, &yes, 1},
                              {CKA_PRIVATE, &yes, 1},
                              {CKA_SIGN, &yes, 1},
                              {CKA_ID, copy, id_len},
                              {CKA_LABEL, text, strlen(text)}};
    CK_OBJECT_HANDLE handles[2];
    CK_FUNCTION_LIST *module = hsm->module;
    assert_int_equal(
        module->C_OpenSession(hsm->slot, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &session),
        CKR_OK);
    assert_int_equal(module->C_GenerateKeyPair(session, &mechanism, public, 2, private, 5,
                                               &handles[0], &handles[1]),
                     CKR_OK);
    assert_int_equal(module->C_CloseSession(session), CKR_OK);
}

/* ---- what it does --------------------------------------------------------------------------- */

static void test_create_sign_read_destroy(void **state)
{
    (void)state;
    struct hsm *hsm = open_it();
    uint8_t id[HSM_KEY_ID_LEN];
    struct hsm_key key, again;
    create(hsm, id, &key);
    sign_ok(hsm, id, &key);
    assert_int_equal(hsm_key_read(hsm, id, &again, NULL), ATT_OK);
    assert_memory_equal(&again, &key, sizeof key);
    assert_int_equal(hsm_key_destroy(hsm, id, NULL), ATT_OK);
    sign_refused(hsm, id, ATT_E_NOTFOUND, "keyGone");
    assert_int_equal(hsm_key_read(hsm, id, &again, NULL), ATT_E_NOTFOUND);
    assert_int_equal(hsm_key_destroy(hsm, id, NULL), ATT_OK); /* absent is fine */
    hsm_free(hsm);
}

/* RSA: both schemes by a key of each size; the other type's mechanism is refused by the module. */
static void test_rsa(void **state)
{
    (void)state;
    struct hsm *hsm = open_it();
    const enum att_keytype types[] = {ATT_KEYTYPE_RSA2048, ATT_KEYTYPE_RSA3072};
    uint8_t id[HSM_KEY_ID_LEN], digest[64] = {9}, sig[HSM_SIGNATURE_MAX], raw[64];
    for (size_t i = 0; i < 2; i++) {
        struct hsm_key key, again;
        struct att_err err = {0};
        EVP_PKEY *pkey = NULL;
        size_t len = 0;
        new_id(id);
        assert_int_equal(hsm_key_create(hsm, id, types[i], &key, &err), ATT_OK);
        assert_int_equal(key.type, types[i]);
        assert_int_equal(hsm_key_read(hsm, id, &again, NULL), ATT_OK);
        assert_memory_equal(&again, &key, sizeof key);
        assert_int_equal(att_keytype_key(ATT_SLICE(key.spki, key.spki_len), &pkey, NULL), ATT_OK);
        for (size_t n = 32; n <= 64; n += 16) {
            for (int scheme = ATT_RSA_PKCS1; scheme <= ATT_RSA_PSS; scheme++) {
                struct att_slice is = ATT_SLICE(digest, n);
                assert_int_equal(
                    hsm_key_sign_rsa(hsm, id, (enum att_rsa_scheme)scheme, is, sig, &len, NULL),
                    ATT_OK);
                assert_int_equal(len, att_keytype_sig_len(types[i]));
                assert_int_equal(att_rsa_verify(pkey, (enum att_rsa_scheme)scheme, is,
                                                ATT_SLICE(sig, len), NULL),
                                 ATT_OK);
            }
        }
        EVP_PKEY_free(pkey);
        assert_int_equal(
            hsm_key_sign_rsa(hsm, id, ATT_RSA_PKCS1, ATT_SLICE(digest, 20), sig, &len, NULL),
            ATT_E_INVAL); /* SHA-1 */
        assert_int_equal(hsm_key_sign(hsm, id, digest, raw, &err), ATT_E_UNSUPPORTED);
        assert_string_equal(err.reason, "keyType");
        assert_int_equal(hsm_key_destroy(hsm, id, NULL), ATT_OK);
        assert_int_equal(hsm_key_read(hsm, id, &again, NULL), ATT_E_NOTFOUND);
    }
    struct hsm_key key;
    struct att_err err = {0};
    size_t len = 0;
    create(hsm, id, &key);
    assert_int_equal(hsm_key_sign_rsa(hsm, id, ATT_RSA_PSS, ATT_SLICE(digest, 32), sig, &len, &err),
                     ATT_E_UNSUPPORTED);
    assert_string_equal(err.reason, "keyType");
    sign_ok(hsm, id, &key);
    hsm_free(hsm);
}

static void test_attributes_are_read_back(void **state)
{
    (void)state;
    struct hsm *hsm = open_it();
    uint8_t id[HSM_KEY_ID_LEN];
    struct hsm_key key;
    create(hsm, id, &key);
    const uint32_t true_ones = 1u << HSM_ATTR_LOCAL | 1u << HSM_ATTR_ALWAYS_SENSITIVE |
                               1u << HSM_ATTR_NEVER_EXTRACTABLE | 1u << HSM_ATTR_SENSITIVE |
                               1u << HSM_ATTR_TOKEN | 1u << HSM_ATTR_PRIVATE | 1u << HSM_ATTR_SIGN;
    assert_int_equal(key.stated, (1u << HSM_ATTR_COUNT) - 1);
    assert_int_equal(key.holds, true_ones);
    /* … and they are what SoftHSM really holds to. */
    CK_OBJECT_HANDLE private;
    struct hsm_call call = {.hsm = hsm, .module = hsm->module, .session = hsm->parked};
    assert_int_equal(hsm_object_find(&call, CKO_PRIVATE_KEY, id, &private, NULL), ATT_OK);
    uint8_t value[64];
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE attr = {CKA_VALUE, value, sizeof value}, change = {CKA_EXTRACTABLE, &yes, 1};
    assert_int_equal(hsm->module->C_GetAttributeValue(hsm->parked, private, &attr, 1),
                     CKR_ATTRIBUTE_SENSITIVE);
    assert_int_not_equal(hsm->module->C_SetAttributeValue(hsm->parked, private, &change, 1),
                         CKR_OK);
    hsm_free(hsm);
}

static void test_attribute_rules(void **state)
{
    (void)state;
    const uint32_t all = (1u << HSM_ATTR_COUNT) - 1;
    const uint32_t good = 1u << HSM_ATTR_LOCAL | 1u << HSM_ATTR_ALWAYS_SENSITIVE |
                          1u << HSM_ATTR_NEVER_EXTRACTABLE | 1u << HSM_ATTR_SENSITIVE |
                          1u << HSM_ATTR_TOKEN | 1u << HSM_ATTR_PRIVATE | 1u << HSM_ATTR_SIGN;
    assert_int_equal(hsm_object_check(all, good, NULL), ATT_OK);
    static const enum hsm_attr needed[] = {HSM_ATTR_LOCAL,
                                           HSM_ATTR_ALWAYS_SENSITIVE,
                                           HSM_ATTR_NEVER_EXTRACTABLE,
                                           HSM_ATTR_SENSITIVE,
                                           HSM_ATTR_TOKEN,
                                           HSM_ATTR_PRIVATE,
                                           HSM_ATTR_SIGN};
    static const enum hsm_attr barred[] = {HSM_ATTR_EXTRACTABLE, HSM_ATTR_DECRYPT, HSM_ATTR_UNWRAP,
                                           HSM_ATTR_DERIVE};
    for (size_t i = 0; i < sizeof needed / sizeof needed[0]; i++) {
        struct att_err err = {0};
        uint32_t bit = 1u << needed[i];
        assert_int_equal(hsm_object_check(all, good & ~bit, &err), ATT_E_UNSUPPORTED);
        assert_string_equal(err.reason, "keyAttributes");
        assert_non_null(strstr(err.msg, hsm_attr_name(needed[i])));
        assert_int_equal(hsm_object_check(all & ~bit, good, NULL), ATT_E_UNSUPPORTED);
    }
    for (size_t i = 0; i < sizeof barred / sizeof barred[0]; i++) {
        struct att_err err = {0};
        uint32_t bit = 1u << barred[i];
        assert_int_equal(hsm_object_check(all, good | bit, &err), ATT_E_UNSUPPORTED);
        assert_non_null(strstr(err.msg, hsm_attr_name(barred[i])));
    }
    assert_int_equal(hsm_object_check(all & ~(1u << HSM_ATTR_EXTRACTABLE), good, NULL),
                     ATT_E_UNSUPPORTED);
    /* Of a later version of the standard: may be unknown. */
    assert_int_equal(hsm_object_check(all & ~(1u << HSM_ATTR_COPYABLE), good, NULL), ATT_OK);
}

static void test_an_id_is_used_once(void **state)
{
    (void)state;
    struct hsm *hsm = open_it();
    uint8_t id[HSM_KEY_ID_LEN];
    struct hsm_key key, other;
    struct att_err err = {0};
    create(hsm, id, &key);
    assert_int_equal(hsm_key_create(hsm, id, ATT_KEYTYPE_P256, &other, &err), ATT_E_EXISTS);
    sign_ok(hsm, id, &key);
    hsm_free(hsm);
}

static void test_others_objects_are_left_alone(void **state)
{
    (void)state;
    struct hsm *hsm = open_it();
    uint8_t id[HSM_KEY_ID_LEN], ids[64][HSM_KEY_ID_LEN];
    size_t before = 0, after = 0;
    assert_int_equal(hsm_key_list(hsm, NULL, ids, 64, &before, NULL), ATT_OK);
    new_id(id);
    foreign_key(hsm, "payments", id, sizeof id);
    sign_refused(hsm, id, ATT_E_NOTFOUND, "keyGone");
    assert_int_equal(hsm_key_destroy(hsm, id, NULL), ATT_OK); /* not there, for us */
    foreign_key(hsm, HSM_LABEL, id, sizeof id - 1);
    assert_int_equal(hsm_key_list(hsm, NULL, ids, 64, &after, NULL), ATT_OK);
    assert_int_equal(after, before);
    /* It is still there. */
    CK_ATTRIBUTE template[] = {{CKA_ID, id, sizeof id}};
    CK_OBJECT_HANDLE found;
    CK_ULONG count = 0;
    assert_int_equal(hsm->module->C_FindObjectsInit(hsm->parked, template, 1), CKR_OK);
    assert_int_equal(hsm->module->C_FindObjects(hsm->parked, &found, 1, &count), CKR_OK);
    assert_int_equal(hsm->module->C_FindObjectsFinal(hsm->parked), CKR_OK);
    assert_int_equal(count, 1);
    /* Two keys with one of our ids: which one is meant nobody knows. */
    foreign_key(hsm, HSM_LABEL, id, sizeof id);
    foreign_key(hsm, HSM_LABEL, id, sizeof id);
    sign_refused(hsm, id, ATT_E_CONFLICT, "keyTwice");
    /* … but that both are to go, and the one of somebody else stays. */
    assert_int_equal(hsm_key_destroy(hsm, id, NULL), ATT_OK);
    sign_refused(hsm, id, ATT_E_NOTFOUND, "keyGone");
    assert_int_equal(hsm->module->C_FindObjectsInit(hsm->parked, template, 1), CKR_OK);
    assert_int_equal(hsm->module->C_FindObjects(hsm->parked, &found, 1, &count), CKR_OK);
    assert_int_equal(hsm->module->C_FindObjectsFinal(hsm->parked), CKR_OK);
    assert_int_equal(count, 1);
    hsm_free(hsm);
}

static void test_list_in_pages(void **state)
{
    (void)state;
    struct hsm *hsm = open_it();
    uint8_t made[5][HSM_KEY_ID_LEN], page[2][HSM_KEY_ID_LEN], last[HSM_KEY_ID_LEN] = {0};
    struct hsm_key key;
    size_t seen = 0, count = 0;
    bool found[5] = {false};
    for (size_t i = 0; i < 5; i++) {
        create(hsm, made[i], &key);
    }
    const uint8_t *after = NULL;
    for (;;) {
        assert_int_equal(hsm_key_list(hsm, after, page, 2, &count, NULL), ATT_OK);
        for (size_t i = 0; i < count; i++) {
            assert_true(memcmp(page[i], last, sizeof last) > 0);
            memcpy(last, page[i], sizeof last);
            for (size_t k = 0; k < 5; k++) {
                found[k] = found[k] || memcmp(made[k], last, sizeof last) == 0;
            }
            seen++;
        }
        after = last;
        if (count < 2) {
            break;
        }
    }
    assert_true(seen >= 5);
    for (size_t i = 0; i < 5; i++) {
        assert_true(found[i]);
        assert_int_equal(hsm_key_destroy(hsm, made[i], NULL), ATT_OK);
    }
    hsm_free(hsm);
}

/* ---- which token ---------------------------------------------------------------------------- */

static void test_two_tokens_of_one_label(void **state)
{
    (void)state;
    struct hsm_opts opts = options();
    struct hsm *hsm = open_it();
    uint8_t id[HSM_KEY_ID_LEN];
    struct hsm_key key;
    create(hsm, id, &key);
    hsm_free(hsm);
    opts.serial = serial_too;
    hsm = open_with(&opts);
    sign_refused(hsm, id, ATT_E_NOTFOUND, "keyGone");
    struct hsm_info info;
    hsm_info_get(hsm, &info);
    assert_string_equal(info.serial, serial_too);
    hsm_free(hsm);
    hsm = open_it();
    sign_ok(hsm, id, &key);
    hsm_free(hsm);
}

static void test_refuses_a_token_that_is_not_there(void **state)
{
    (void)state;
    static const char *const wrong[][2] = {
        {"agents", "0000000000000000"}, {"agent", NULL}, {"agents", NULL}, {"agents", NULL}};
    for (size_t i = 0; i < 4; i++) {
        struct hsm_opts opts = options();
        struct att_err err = {0};
        opts.manufacturer = i == 2 ? "Other project" : "SoftHSM project";
        opts.model = i == 3 ? "SoftHSM" : "SoftHSM v2";
        opts.label = wrong[i][0];
        opts.serial = wrong[i][1] ? wrong[i][1] : serial;
        struct hsm *hsm = open_with(&opts);
        assert_int_equal(hsm_poll(hsm, &err), ATT_E_GONE);
        assert_string_equal(err.reason, "tokenGone");
        hsm_free(hsm);
    }
}

static void test_refuses_a_module_that_is_none(void **state)
{
    (void)state;
    static const char *const paths[] = {"/nowhere/libnone.so",
                                        "/usr/lib/x86_64-linux-gnu/libz.so.1"};
    for (size_t i = 0; i < 2; i++) {
        struct hsm_opts opts = options();
        struct hsm *hsm = NULL;
        struct att_err err = {0};
        opts.module_path = paths[i];
        assert_int_equal(hsm_new(&opts, &hsm, &err), ATT_E_UNSUPPORTED);
        assert_string_equal(err.reason, "moduleLoad");
        assert_null(hsm);
    }
}

/* ---- the PIN -------------------------------------------------------------------------------- */

static unsigned logins;
static enum att_rc count_login(void *user, struct att_err *err)
{
    (void)user;
    (void)err;
    logins++;
    return ATT_OK;
}
static unsigned refusals;
static void count_refusal(void *user)
{
    (void)user;
    refusals++;
}

static void test_a_wrong_pin_is_tried_once(void **state)
{
    (void)state;
    struct hsm_opts opts = options();
    opts.pin = &wrong_pin;
    opts.may_login = count_login;
    opts.pin_refused = count_refusal;
    logins = refusals = 0;
    struct hsm *hsm = open_with(&opts);
    uint8_t id[HSM_KEY_ID_LEN] = {1};
    struct hsm_key key;
    for (int i = 0; i < 20; i++) {
        struct att_err err = {0};
        assert_int_equal(hsm_poll(hsm, &err), ATT_E_AUTH);
        assert_string_equal(err.reason, "pinRefused");
        assert_int_equal(err.domain, ATT_DOM_PKCS11);
        assert_int_equal(err.native, CKR_PIN_INCORRECT);
        sign_refused(hsm, id, ATT_E_AUTH, "pinRefused");
        assert_int_equal(hsm_key_create(hsm, id, ATT_KEYTYPE_P256, &key, NULL), ATT_E_AUTH);
    }
    assert_int_equal(logins, 1);
    assert_int_equal(refusals, 1);
    hsm_free(hsm);
}

static enum att_rc no_login(void *user, struct att_err *err)
{
    (void)user;
    return att_fail(err, ATT_E_AUTH, "not now");
}

static void test_nobody_logs_in_where_it_is_barred(void **state)
{
    (void)state;
    struct hsm_opts opts = options();
    opts.may_login = no_login;
    struct hsm *hsm = open_with(&opts);
    struct att_err err = {0};
    assert_int_equal(hsm_poll(hsm, &err), ATT_E_AUTH);
    assert_string_equal(err.msg, "not now");
    CK_SESSION_INFO info;
    assert_int_equal(hsm->module->C_GetSessionInfo(hsm->parked, &info), CKR_OK);
    assert_int_equal(info.state, CKS_RW_PUBLIC_SESSION);
    hsm_free(hsm);
}

/* ---- things that go away --------------------------------------------------------------------- */

static void wait_for(struct hsm *hsm, enum att_rc wanted)
{
    enum att_rc rc = ATT_OK;
    for (int i = 0; i < 1000; i++) {
        const struct timespec pause = {0, 20000000};
        rc = hsm_poll(hsm, NULL);
        if (rc == wanted) {
            return;
        }
        nanosleep(&pause, NULL);
    }
    fail_msg("poll: %s, expected %s", att_rc_name(rc), att_rc_name(wanted));
}

static void test_a_token_goes_and_comes_back(void **state)
{
    (void)state;
    struct hsm *hsm = open_it();
    uint8_t id[HSM_KEY_ID_LEN], other[HSM_KEY_ID_LEN];
    struct hsm_key key;
    char path[256];
    create(hsm, id, &key);
    softhsm_token_dir(folder, serial, path, sizeof path);
    softhsm_run("mv %s %s/away", path, folder);
    wait_for(hsm, ATT_E_GONE);
    sign_refused(hsm, id, ATT_E_GONE, "tokenGone");
    struct att_err err = {0};
    new_id(other);
    struct hsm_key none;
    assert_int_equal(hsm_key_create(hsm, other, ATT_KEYTYPE_P256, &none, &err), ATT_E_GONE);
    assert_int_equal(hsm_key_destroy(hsm, id, NULL), ATT_E_GONE);
    softhsm_run("mv %s/away %s", folder, path);
    wait_for(hsm, ATT_OK);
    sign_ok(hsm, id, &key);
    assert_int_equal(hsm_key_read(hsm, other, &none, NULL), ATT_E_NOTFOUND);
    hsm_free(hsm);
}

/* Every way in which what we hold can be gone: one retry mends it within the call. */
static void test_lost_login_sessions_and_handles(void **state)
{
    (void)state;
    struct hsm *hsm = open_it();
    uint8_t id[HSM_KEY_ID_LEN];
    struct hsm_key key;
    struct hsm_info before, after;
    create(hsm, id, &key);
    for (int way = 0; way < 5; way++) {
        sign_ok(hsm, id, &key);
        hsm_info_get(hsm, &before);
        if (way == 0) {
            assert_int_equal(hsm->module->C_Logout(hsm->parked), CKR_OK);
        } else if (way == 1) {
            assert_int_equal(hsm->module->C_CloseAllSessions(hsm->slot), CKR_OK);
        } else if (way == 2) {
            for (size_t i = 0; i < HSM_CACHE; i++) {
                hsm->cache[i].handle = 0x7fffffff;
            }
        } else if (way == 3) {
            assert_int_equal(hsm->module->C_Finalize(NULL), CKR_OK);
        } else { /* nothing is refused then: the key is just not to be seen */
            memset(hsm->cache, 0, sizeof hsm->cache);
            assert_int_equal(hsm->module->C_Logout(hsm->parked), CKR_OK);
        }
        sign_ok(hsm, id, &key);
        hsm_info_get(hsm, &after);
        assert_int_equal(after.connections, before.connections + 1);
    }
    uint8_t ids[64][HSM_KEY_ID_LEN];
    size_t all = 0, count = 0;
    assert_int_equal(hsm_key_list(hsm, NULL, ids, 64, &all, NULL), ATT_OK);
    assert_true(all > 0);
    assert_int_equal(hsm->module->C_Logout(hsm->parked), CKR_OK);
    assert_int_equal(hsm_key_list(hsm, NULL, ids, 64, &count, NULL), ATT_OK);
    assert_int_equal(count, all);
    assert_int_equal(hsm->module->C_Logout(hsm->parked), CKR_OK);
    wait_for(hsm, ATT_OK); /* the poll mends it, too */
    hsm_info_get(hsm, &after);
    assert_true(after.connected);
    hsm_free(hsm);
}

/* ---- many threads ---------------------------------------------------------------------------- */

struct crowd {
    struct hsm *hsm;
    const uint8_t *id;
    const struct hsm_key *key;
    unsigned good, bad;
};

static void *sign_often(void *arg)
{
    struct crowd *crowd = arg;
    for (int i = 0; i < 50; i++) {
        uint8_t digest[32] = {(uint8_t)i}, raw[64];
        struct att_err err = {0};
        bool good = hsm_key_sign(crowd->hsm, crowd->id, digest, raw, &err) == ATT_OK &&
                    verifies(crowd->key, digest, raw);
        if (!good) {
            print_message("%s\n", err.msg);
        }
        crowd->good += good;
        crowd->bad += !good;
    }
    return NULL;
}

static void run_crowd(unsigned sessions)
{
    struct hsm_opts opts = options();
    opts.sessions = sessions;
    struct hsm *hsm = open_with(&opts);
    uint8_t id[HSM_KEY_ID_LEN];
    struct hsm_key key;
    create(hsm, id, &key);
    pthread_t threads[12];
    struct crowd crowd[12];
    for (size_t i = 0; i < 12; i++) {
        crowd[i] = (struct crowd){hsm, id, &key, 0, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, sign_often, &crowd[i]), 0);
    }
    for (int i = 0; i < 5; i++) { /* the login is lost while they sign */
        const struct timespec pause = {0, 10000000};
        nanosleep(&pause, NULL);
        pthread_mutex_lock(&hsm->lock);
        if (hsm->connected) {
            hsm->users++; /* as a call: parked holds meanwhile */
            pthread_mutex_unlock(&hsm->lock);
            (void)hsm->module->C_Logout(hsm->parked);
            pthread_mutex_lock(&hsm->lock);
            hsm->users--;
            pthread_cond_broadcast(&hsm->changed);
        }
        pthread_mutex_unlock(&hsm->lock);
    }
    unsigned good = 0;
    for (size_t i = 0; i < 12; i++) {
        pthread_join(threads[i], NULL);
        good += crowd[i].good;
        /* One retry each: what is lost twice within a call is told. */
        assert_int_equal(crowd[i].good + crowd[i].bad, 50);
    }
    assert_true(good >= 12 * 50 - 5 * 12);
    assert_true(hsm->open_count <= sessions);
    assert_int_equal(hsm->users, 0);
    hsm_free(hsm);
}

static void test_threads_share_sessions(void **state)
{
    (void)state;
    run_crowd(4);
    run_crowd(1);
}

/* A token with one session in all: the login's serves, too. */
static void test_a_single_session(void **state)
{
    (void)state;
    struct hsm *hsm = open_it();
    uint8_t id[HSM_KEY_ID_LEN];
    struct hsm_key key;
    create(hsm, id, &key);
    pthread_mutex_lock(&hsm->lock);
    hsm->limit = hsm->open_count = hsm->idle_count = 1;
    hsm->idle[0] = hsm->parked;
    pthread_mutex_unlock(&hsm->lock);
    sign_ok(hsm, id, &key);
    sign_ok(hsm, id, &key);
    assert_int_equal(hsm_key_destroy(hsm, id, NULL), ATT_OK);
    hsm_free(hsm);
}

/* ---- points ---------------------------------------------------------------------------------- */

static void test_points(void **state)
{
    (void)state;
    struct hsm *hsm = open_it();
    uint8_t id[HSM_KEY_ID_LEN], xy[64], value[70] = {0x04, 0x41, 0x04};
    struct hsm_key key;
    create(hsm, id, &key);
    hsm_free(hsm);
    const uint8_t *made = att_p256_of_spki(ATT_SLICE(key.spki, key.spki_len));
    assert_non_null(made);
    memcpy(value + 3, made, 64);
    assert_int_equal(hsm_object_point_parse(ATT_SLICE(value, 67), xy, NULL), ATT_OK);
    assert_memory_equal(xy, made, 64);
    assert_int_equal(hsm_object_point_parse(ATT_SLICE(value + 2, 65), xy, NULL), ATT_OK); /* bare */
    for (size_t len = 0; len <= 70; len++) {
        if (len != 67) {
            assert_int_equal(hsm_object_point_parse(ATT_SLICE(value, len), xy, NULL),
                             ATT_E_PROTOCOL);
        }
    }
    value[2] = 0x02; /* compressed */
    assert_int_equal(hsm_object_point_parse(ATT_SLICE(value, 67), xy, NULL), ATT_E_PROTOCOL);
    value[2] = 0x04;
    value[66] ^= 1; /* not on the curve */
    assert_int_equal(hsm_object_point_parse(ATT_SLICE(value, 67), xy, NULL), ATT_E_PROTOCOL);
}

static void test_what_the_flags_say_of_the_pin(void **state)
{
    (void)state;
    const CK_FLAGS set = CKF_USER_PIN_INITIALIZED;
    const struct {
        CK_FLAGS flags;
        const char *name;
    } cases[] = {
        {0, "notSet"},
        {CKF_USER_PIN_LOCKED, "notSet"},
        {set, "ok"},
        {set | CKF_SO_PIN_LOCKED, "ok"},
        {set | CKF_USER_PIN_COUNT_LOW, "countLow"},
        {set | CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY, "finalTry"},
        {set | CKF_USER_PIN_LOCKED | CKF_USER_PIN_FINAL_TRY | CKF_USER_PIN_COUNT_LOW, "locked"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_string_equal(hsm_pin_name(hsm_pin_of(cases[i].flags)), cases[i].name);
    }
    struct hsm *hsm = open_it();
    struct hsm_info info;
    hsm_info_get(hsm, &info);
    assert_string_equal(hsm_pin_name(info.pin), "unknown");
    wait_for(hsm, ATT_OK);
    hsm_info_get(hsm, &info);
    assert_string_equal(hsm_pin_name(info.pin), "ok");
    hsm_free(hsm);
}

static void test_errors_have_names(void **state)
{
    (void)state;
    struct att_err err = {0};
    assert_int_equal(hsm_errors_set(CKR_DEVICE_MEMORY, "C_X", &err), ATT_E_LIMIT);
    assert_string_equal(err.msg, "C_X: CKR_DEVICE_MEMORY");
    assert_string_equal(err.reason, "tokenFull");
    att_err_clear(&err);
    assert_int_equal(hsm_errors_set(0x80000001, "C_X", &err), ATT_E_PROTOCOL); /* a vendor's */
    assert_string_equal(err.msg, "C_X: CK_RV 0x80000001");
    static const CK_RV again[] = {CKR_SESSION_HANDLE_INVALID, CKR_SESSION_CLOSED,
                                  CKR_DEVICE_ERROR,           CKR_DEVICE_REMOVED,
                                  CKR_USER_NOT_LOGGED_IN,     CKR_OBJECT_HANDLE_INVALID};
    for (size_t i = 0; i < sizeof again / sizeof again[0]; i++) {
        assert_true(hsm_errors_again(again[i]));
    }
    static const CK_RV never[] = {CKR_PIN_INCORRECT, CKR_PIN_LOCKED,    CKR_PIN_EXPIRED,
                                  CKR_PIN_INVALID,   CKR_PIN_LEN_RANGE, CKR_OK};
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) {
        assert_false(hsm_errors_again(never[i]));
    }
}

static int setup(void **state)
{
    (void)state;
    softhsm_init(folder);
    softhsm_token(folder, "agents", serial);
    softhsm_token(folder, "agents", serial_too);
    assert_int_equal(att_secret_copy(&pin, ATT_SLICE_LIT(SOFTHSM_PIN), NULL), ATT_OK);
    assert_int_equal(att_secret_copy(&wrong_pin, ATT_SLICE_LIT("1234-abce"), NULL), ATT_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    softhsm_done(folder);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create_sign_read_destroy),
        cmocka_unit_test(test_rsa),
        cmocka_unit_test(test_attributes_are_read_back),
        cmocka_unit_test(test_attribute_rules),
        cmocka_unit_test(test_an_id_is_used_once),
        cmocka_unit_test(test_others_objects_are_left_alone),
        cmocka_unit_test(test_list_in_pages),
        cmocka_unit_test(test_two_tokens_of_one_label),
        cmocka_unit_test(test_refuses_a_token_that_is_not_there),
        cmocka_unit_test(test_refuses_a_module_that_is_none),
        cmocka_unit_test(test_a_wrong_pin_is_tried_once),
        cmocka_unit_test(test_nobody_logs_in_where_it_is_barred),
        cmocka_unit_test(test_a_token_goes_and_comes_back),
        cmocka_unit_test(test_lost_login_sessions_and_handles),
        cmocka_unit_test(test_threads_share_sessions),
        cmocka_unit_test(test_a_single_session),
        cmocka_unit_test(test_points),
        cmocka_unit_test(test_what_the_flags_say_of_the_pin),
        cmocka_unit_test(test_errors_have_names),
    };
    if (!softhsm_available()) {
        puts("softhsm2 is not installed");
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, setup, teardown);
    fflush(NULL);
    _exit(failed); /* SoftHSM 2.6.1 crashes in its destructors */
}
