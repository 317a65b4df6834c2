/* The function list, refusals first, over a store with OpenSSL keys. */
#include "pkcs11/token/module.h"

#include "attestd/base/buf.h"

#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <p11-kit/pkcs11.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct agent_key {
    EVP_PKEY *key;
    char id[33];
    struct att_slice cert;
};

static struct fixture {
    struct agent_key keys[2];
    int now; /* which of keys is in force; -1: none */
    enum att_rc view_rc, sign_rc;
    unsigned views, signatures;
} fx;

static CK_FUNCTION_LIST *f;
static CK_SESSION_HANDLE session;

static struct att_slice make_cert(EVP_PKEY *key)
{
    X509 *cert = X509_new();
    unsigned char *der = NULL;
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 4711);
    X509_gmtime_adj(X509_getm_notBefore(cert), 0);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC,
                               (const unsigned char *)"market-data", -1, -1, 0);
    X509_set_issuer_name(cert, X509_get_subject_name(cert));
    X509_set_pubkey(cert, key);
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    int len = i2d_X509(cert, &der);
    X509_free(cert);
    return ATT_SLICE(der, (size_t)len);
}

static enum att_rc view(void *user, uint64_t known, struct token_view *ret, struct att_err *err)
{
    (void)user;
    fx.views++;
    if (fx.view_rc != ATT_OK) {
        return att_fail(err, fx.view_rc, "as told");
    }
    if (fx.now < 0) {
        return att_fail(err, ATT_E_NOTFOUND, "none");
    }
    const struct agent_key *key = &fx.keys[fx.now];
    ret->generation = (uint64_t)fx.now + 1;
    ret->same = known == ret->generation;
    strcpy(ret->spiffe_id, "spiffe://bank.example/agent/market-data");
    strcpy(ret->key_id, key->id);
    ret->chain = &key->cert;
    ret->chain_count = 1;
    ret->bundle = &fx.keys[0].cert;
    ret->bundle_count = 1;
    return ATT_OK;
}

static enum att_rc sign(void *user, const char *key_id, struct att_slice digest,
                        uint8_t ret_signature[TOKEN_SIGNATURE_LEN], struct att_err *err)
{
    (void)user;
    fx.signatures++;
    if (fx.sign_rc != ATT_OK) {
        return att_fail(err, fx.sign_rc, "as told");
    }
    const struct agent_key *key = &fx.keys[strcmp(key_id, fx.keys[1].id) == 0];
    uint8_t der[128];
    size_t len = sizeof der;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key->key, NULL);
    assert_int_equal(EVP_PKEY_sign_init(ctx), 1);
    assert_int_equal(EVP_PKEY_sign(ctx, der, &len, digest.ptr, digest.len), 1);
    const uint8_t *at = der;
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &at, (long)len);
    BN_bn2binpad(ECDSA_SIG_get0_r(sig), ret_signature, 32);
    BN_bn2binpad(ECDSA_SIG_get0_s(sig), ret_signature + 32, 32);
    ECDSA_SIG_free(sig);
    EVP_PKEY_CTX_free(ctx);
    return ATT_OK;
}

static enum att_rc random_bytes(void *user, uint8_t *ret, size_t len, struct att_err *err)
{
    (void)user;
    (void)err;
    memset(ret, 0xa5, len);
    return ATT_OK;
}

static struct token_store store = {.view = view, .sign = sign, .random = random_bytes};

static int setup(void **state)
{
    (void)state;
    fx = (struct fixture){0};
    for (int i = 0; i < 2; i++) {
        fx.keys[i].key = EVP_EC_gen("P-256");
        memset(fx.keys[i].id, '1' + i, 32);
        fx.keys[i].cert = make_cert(fx.keys[i].key);
    }
    store.no_slots = false;
    token_module_reset(&store);
    f = token_module_functions();
    assert_int_equal(f->C_Initialize(NULL), CKR_OK);
    assert_int_equal(f->C_OpenSession(1, CKF_SERIAL_SESSION, NULL, NULL, &session), CKR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    token_module_reset(&store);
    for (int i = 0; i < 2; i++) {
        EVP_PKEY_free(fx.keys[i].key);
        OPENSSL_free((void *)(uintptr_t)fx.keys[i].cert.ptr);
    }
    return 0;
}

static CK_OBJECT_HANDLE find(CK_OBJECT_CLASS class)
{
    CK_ATTRIBUTE templ[] = {{CKA_CLASS, &class, sizeof class}};
    CK_OBJECT_HANDLE found[8] = {0};
    CK_ULONG count = 0;
    assert_int_equal(f->C_FindObjectsInit(session, templ, 1), CKR_OK);
    assert_int_equal(f->C_FindObjects(session, found, 8, &count), CKR_OK);
    assert_int_equal(f->C_FindObjectsFinal(session), CKR_OK);
    return count ? found[0] : 0;
}

static CK_MECHANISM ecdsa = {CKM_ECDSA, NULL, 0};

static CK_RV sign_once(CK_OBJECT_HANDLE key, CK_BYTE *digest, CK_ULONG len, CK_BYTE *sig)
{
    CK_ULONG sig_len = 64;
    CK_RV rv = f->C_SignInit(session, &ecdsa, key);
    return rv == CKR_OK ? f->C_Sign(session, digest, len, sig, &sig_len) : rv;
}

/* ---- refusals ----------------------------------------------------------------------------------
 */

static void every_pointer_is_filled(void **state)
{
    (void)state;
    void *const *at = (void *const *)(const void *)&f->C_Initialize;
    void *const *end = (void *const *)(const void *)(f + 1);
    size_t n = 0;
    for (; at < end; at++, n++) {
        assert_non_null(*at);
    }
    assert_int_equal(n, 68);
}

static void what_is_not_served_says_so(void **state)
{
    (void)state;
    CK_OBJECT_HANDLE key = find(CKO_PRIVATE_KEY), other;
    CK_ULONG len = 0;
    CK_BYTE bytes[8] = {0};
    assert_int_equal(f->C_InitToken(1, bytes, 4, bytes), CKR_FUNCTION_NOT_SUPPORTED);
    assert_int_equal(f->C_SetPIN(session, bytes, 4, bytes, 4), CKR_FUNCTION_NOT_SUPPORTED);
    assert_int_equal(f->C_EncryptInit(session, &ecdsa, key), CKR_FUNCTION_NOT_SUPPORTED);
    assert_int_equal(f->C_DecryptInit(session, &ecdsa, key), CKR_FUNCTION_NOT_SUPPORTED);
    assert_int_equal(f->C_GenerateKey(session, &ecdsa, NULL, 0, &other),
                     CKR_FUNCTION_NOT_SUPPORTED);
    assert_int_equal(f->C_GenerateKeyPair(session, &ecdsa, NULL, 0, NULL, 0, &other, &other),
                     CKR_FUNCTION_NOT_SUPPORTED);
    assert_int_equal(f->C_WrapKey(session, &ecdsa, key, key, bytes, &len),
                     CKR_FUNCTION_NOT_SUPPORTED);
    assert_int_equal(f->C_UnwrapKey(session, &ecdsa, key, bytes, 8, NULL, 0, &other),
                     CKR_FUNCTION_NOT_SUPPORTED);
    assert_int_equal(f->C_DeriveKey(session, &ecdsa, key, NULL, 0, &other),
                     CKR_FUNCTION_NOT_SUPPORTED);
    assert_int_equal(f->C_GetOperationState(session, NULL, &len), CKR_FUNCTION_NOT_SUPPORTED);
    assert_int_equal(f->C_GetFunctionStatus(session), CKR_FUNCTION_NOT_PARALLEL);
    CK_SLOT_ID slot;
    assert_int_equal(f->C_WaitForSlotEvent(0, &slot, NULL), CKR_FUNCTION_NOT_SUPPORTED);
    assert_int_equal(f->C_WaitForSlotEvent(CKF_DONT_BLOCK, &slot, NULL), CKR_NO_EVENT);
}

static void nothing_can_be_changed(void **state)
{
    (void)state;
    CK_OBJECT_HANDLE key = find(CKO_PRIVATE_KEY), other;
    char label[] = "mine";
    CK_ATTRIBUTE templ[] = {{CKA_LABEL, label, 4}};
    CK_SESSION_HANDLE rw;
    assert_int_equal(f->C_SetAttributeValue(session, key, templ, 1), CKR_TOKEN_WRITE_PROTECTED);
    assert_int_equal(f->C_CopyObject(session, key, templ, 1, &other), CKR_ACTION_PROHIBITED);
    assert_int_equal(f->C_DestroyObject(session, key), CKR_TOKEN_WRITE_PROTECTED);
    /* pkcs11-tool --test asks for one; nothing can be written in it. */
    CK_SESSION_INFO info;
    assert_int_equal(f->C_OpenSession(1, CKF_SERIAL_SESSION | CKF_RW_SESSION, NULL, NULL, &rw),
                     CKR_OK);
    assert_int_equal(f->C_GetSessionInfo(rw, &info), CKR_OK);
    assert_int_equal(info.state, CKS_RW_PUBLIC_SESSION);
    assert_int_equal(info.flags, CKF_SERIAL_SESSION | CKF_RW_SESSION);
    assert_int_equal(f->C_SetAttributeValue(rw, key, templ, 1), CKR_TOKEN_WRITE_PROTECTED);
    assert_int_equal(f->C_DestroyObject(rw, key), CKR_TOKEN_WRITE_PROTECTED);
    CK_OBJECT_CLASS data = CKO_DATA;
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE object[] = {{CKA_CLASS, &data, sizeof data}, {CKA_TOKEN, &yes, sizeof yes}};
    assert_int_not_equal(f->C_CreateObject(rw, object, 2, &other), CKR_OK);
    assert_int_equal(f->C_CloseSession(rw), CKR_OK);
    assert_int_equal(f->C_GetSessionInfo(session, &info), CKR_OK);
    assert_int_equal(info.flags, CKF_SERIAL_SESSION);
    assert_int_equal(f->C_OpenSession(1, 0, NULL, NULL, &rw), CKR_SESSION_PARALLEL_NOT_SUPPORTED);
    assert_int_equal(f->C_OpenSession(2, CKF_SERIAL_SESSION, NULL, NULL, &rw), CKR_SLOT_ID_INVALID);
}

static void the_private_value_is_sensitive(void **state)
{
    (void)state;
    CK_BYTE bytes[256];
    CK_BBOOL extractable = CK_TRUE, sensitive = CK_FALSE;
    CK_ATTRIBUTE templ[] = {{CKA_VALUE, bytes, sizeof bytes},
                            {CKA_EXTRACTABLE, &extractable, 1},
                            {CKA_SENSITIVE, &sensitive, 1},
                            {CKA_MODULUS, bytes, sizeof bytes}};
    CK_OBJECT_HANDLE key = find(CKO_PRIVATE_KEY);
    assert_int_equal(f->C_GetAttributeValue(session, key, templ, 1), CKR_ATTRIBUTE_SENSITIVE);
    assert_int_equal(templ[0].ulValueLen, CK_UNAVAILABLE_INFORMATION);
    assert_int_equal(f->C_GetAttributeValue(session, key, templ + 1, 2), CKR_OK);
    assert_false(extractable);
    assert_true(sensitive);
    assert_int_equal(f->C_GetAttributeValue(session, key, templ + 3, 1),
                     CKR_ATTRIBUTE_TYPE_INVALID);
    CK_ATTRIBUTE small = {CKA_ID, bytes, 3};
    assert_int_equal(f->C_GetAttributeValue(session, key, &small, 1), CKR_BUFFER_TOO_SMALL);
    assert_int_equal(f->C_GetAttributeValue(session, 12345, &small, 1), CKR_OBJECT_HANDLE_INVALID);
}

static void private_and_foreign_objects_are_not_taken(void **state)
{
    (void)state;
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    CK_KEY_TYPE type = CKK_EC, rsa = CKK_RSA;
    CK_BBOOL yes = CK_TRUE;
    CK_BYTE params[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07},
            point[67] = {0};
    CK_OBJECT_HANDLE object;
    CK_ATTRIBUTE templ[] = {{CKA_CLASS, &class, sizeof class},
                            {CKA_KEY_TYPE, &type, sizeof type},
                            {CKA_EC_PARAMS, params, sizeof params},
                            {CKA_EC_POINT, point, sizeof point},
                            {CKA_TOKEN, &yes, 1}};
    assert_int_equal(f->C_CreateObject(session, templ, 4, &object), CKR_ATTRIBUTE_VALUE_INVALID);
    class = CKO_SECRET_KEY;
    assert_int_equal(f->C_CreateObject(session, templ, 4, &object), CKR_ATTRIBUTE_VALUE_INVALID);
    class = CKO_PUBLIC_KEY;
    assert_int_equal(f->C_CreateObject(session, templ, 5, &object), CKR_TOKEN_WRITE_PROTECTED);
    assert_int_equal(f->C_CreateObject(session, templ, 3, &object), CKR_TEMPLATE_INCOMPLETE);
    assert_int_equal(f->C_CreateObject(session, templ + 1, 3, &object), CKR_TEMPLATE_INCOMPLETE);
    assert_int_equal(f->C_CreateObject(session, templ, 4, &object), CKR_ATTRIBUTE_VALUE_INVALID);
    params[9] = 0x08;
    assert_int_equal(f->C_CreateObject(session, templ, 4, &object), CKR_CURVE_NOT_SUPPORTED);
    templ[1].pValue = &rsa; /* with a curve's attributes */
    assert_int_equal(f->C_CreateObject(session, templ, 4, &object), CKR_TEMPLATE_INCOMPLETE);
    type = CKK_DSA;
    templ[1].pValue = &type;
    assert_int_equal(f->C_CreateObject(session, templ, 4, &object), CKR_ATTRIBUTE_VALUE_INVALID);
}

static void signing_is_refused_out_of_order_and_by_length(void **state)
{
    (void)state;
    CK_OBJECT_HANDLE key = find(CKO_PRIVATE_KEY), pub = find(CKO_PUBLIC_KEY), data = find(CKO_DATA);
    CK_BYTE digest[65] = {1}, sig[64];
    CK_ULONG len = 64;
    CK_MECHANISM rsa = {CKM_RSA_PKCS, NULL, 0}, odd = {CKM_ECDSA, digest, 4};
    assert_int_equal(f->C_Sign(session, digest, 32, sig, &len), CKR_OPERATION_NOT_INITIALIZED);
    assert_int_equal(f->C_SignUpdate(session, digest, 32), CKR_OPERATION_NOT_INITIALIZED);
    assert_int_equal(f->C_SignFinal(session, sig, &len), CKR_OPERATION_NOT_INITIALIZED);
    assert_int_equal(f->C_SignInit(session, &rsa, key), CKR_MECHANISM_INVALID);
    assert_int_equal(f->C_SignInit(session, &odd, key), CKR_MECHANISM_PARAM_INVALID);
    assert_int_equal(f->C_SignInit(session, &ecdsa, pub), CKR_KEY_FUNCTION_NOT_PERMITTED);
    assert_int_equal(f->C_SignInit(session, &ecdsa, data), CKR_KEY_HANDLE_INVALID);
    assert_int_equal(f->C_SignInit(session, &ecdsa, 99999), CKR_KEY_HANDLE_INVALID);
    assert_int_equal(f->C_SignInit(session + 1, &ecdsa, key), CKR_SESSION_HANDLE_INVALID);
    assert_int_equal(sign_once(key, digest, 19, sig), CKR_DATA_LEN_RANGE);
    assert_int_equal(sign_once(key, digest, 65, sig), CKR_DATA_LEN_RANGE);
    assert_int_equal(f->C_SignInit(session, &ecdsa, key), CKR_OK);
    assert_int_equal(f->C_SignInit(session, &ecdsa, key), CKR_OPERATION_ACTIVE);
    assert_int_equal(f->C_SignUpdate(session, digest, 32), CKR_FUNCTION_NOT_SUPPORTED);
    assert_int_equal(f->C_Sign(session, digest, 32, sig, &len), CKR_OPERATION_NOT_INITIALIZED);
    assert_int_equal(fx.signatures, 0);
}

static void questions_of_size_cost_no_signature(void **state)
{
    (void)state;
    CK_BYTE digest[32] = {1}, sig[64];
    CK_ULONG len = 0;
    assert_int_equal(f->C_SignInit(session, &ecdsa, find(CKO_PRIVATE_KEY)), CKR_OK);
    assert_int_equal(f->C_Sign(session, digest, 32, NULL, &len), CKR_OK);
    assert_int_equal(len, 64);
    len = 63;
    assert_int_equal(f->C_Sign(session, digest, 32, sig, &len), CKR_BUFFER_TOO_SMALL);
    assert_int_equal(len, 64);
    assert_int_equal(fx.signatures, 0);
    assert_int_equal(f->C_Sign(session, digest, 32, sig, &len), CKR_OK);
    assert_int_equal(fx.signatures, 1);
}

static void a_login_confers_nothing(void **state)
{
    (void)state;
    CK_BYTE pin[] = "0000";
    CK_SESSION_INFO info;
    assert_int_equal(f->C_Login(session, CKU_SO, pin, 4), CKR_USER_TYPE_INVALID);
    assert_int_equal(f->C_Logout(session), CKR_USER_NOT_LOGGED_IN);
    assert_int_equal(f->C_Login(session, CKU_USER, pin, 4), CKR_OK);
    assert_int_equal(f->C_Login(session, CKU_USER, pin, 4), CKR_USER_ALREADY_LOGGED_IN);
    assert_int_equal(f->C_GetSessionInfo(session, &info), CKR_OK);
    assert_int_equal(info.state, CKS_RO_USER_FUNCTIONS);
    assert_int_equal(f->C_CloseAllSessions(1), CKR_OK);
    assert_int_equal(f->C_Logout(session), CKR_SESSION_HANDLE_INVALID);
}

static void errors_of_the_store_have_their_codes(void **state)
{
    (void)state;
    static const struct {
        enum att_rc rc;
        CK_RV rv;
    } cases[] = {
        {ATT_E_DENIED, CKR_FUNCTION_REJECTED}, {ATT_E_NOTFOUND, CKR_KEY_HANDLE_INVALID},
        {ATT_E_LIMIT, CKR_FUNCTION_FAILED},    {ATT_E_UNREACHABLE, CKR_DEVICE_ERROR},
        {ATT_E_LOCKOUT, CKR_DEVICE_ERROR},     {ATT_E_TIMEOUT, CKR_DEVICE_ERROR},
        {ATT_E_GONE, CKR_DEVICE_REMOVED},      {ATT_E_NOMEM, CKR_HOST_MEMORY},
        {ATT_E_INTERNAL, CKR_GENERAL_ERROR},
    };
    CK_BYTE digest[32] = {1}, sig[64];
    CK_OBJECT_HANDLE key = find(CKO_PRIVATE_KEY);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fx.sign_rc = cases[i].rc;
        assert_int_equal(sign_once(key, digest, 32, sig), cases[i].rv);
    }
    fx.sign_rc = ATT_OK;
    assert_int_equal(sign_once(key, digest, 32, sig), CKR_OK);
}

static void caps_hold(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s;
    CK_RV rv = CKR_OK;
    int n = 1;
    while (n < 1000 && (rv = f->C_OpenSession(1, CKF_SERIAL_SESSION, NULL, NULL, &s)) == CKR_OK) {
        n++;
    }
    assert_int_equal(rv, CKR_SESSION_COUNT);
    assert_int_equal(n, 256);
}

static void nobodys_agent_has_no_slot(void **state)
{
    (void)state;
    CK_ULONG count = 7;
    CK_SLOT_INFO info;
    store.no_slots = true;
    token_module_reset(&store);
    assert_int_equal(f->C_GetSlotList(CK_TRUE, NULL, &count), CKR_CRYPTOKI_NOT_INITIALIZED);
    assert_int_equal(f->C_Initialize(NULL), CKR_OK);
    assert_int_equal(f->C_GetSlotList(CK_TRUE, NULL, &count), CKR_OK);
    assert_int_equal(count, 0);
    assert_int_equal(f->C_GetSlotInfo(1, &info), CKR_SLOT_ID_INVALID);
    assert_int_equal(f->C_OpenSession(2, CKF_SERIAL_SESSION, NULL, NULL, &session),
                     CKR_SLOT_ID_INVALID);
    /* A session, lest libp11 waits for ever in a forked child; with nothing in it. */
    CK_OBJECT_HANDLE object;
    assert_int_equal(f->C_OpenSession(1, CKF_SERIAL_SESSION, NULL, NULL, &session), CKR_OK);
    assert_int_equal(f->C_FindObjectsInit(session, NULL, 0), CKR_OK);
    assert_int_equal(f->C_FindObjects(session, &object, 1, &count), CKR_OK);
    assert_int_equal(count, 0);
    assert_int_equal(f->C_SignInit(session, &ecdsa, 64), CKR_KEY_HANDLE_INVALID);
    assert_int_equal(fx.views, 0);
}

/* ---- what works ---------------------------------------------------------------------------------
 */

static void signature_verifies_here_and_elsewhere(void **state)
{
    (void)state;
    CK_BYTE digest[32] = {5}, sig[64];
    CK_OBJECT_HANDLE pub = find(CKO_PUBLIC_KEY), object = 0;
    assert_int_equal(sign_once(find(CKO_PRIVATE_KEY), digest, 32, sig), CKR_OK);
    assert_int_equal(f->C_VerifyInit(session, &ecdsa, pub), CKR_OK);
    assert_int_equal(f->C_Verify(session, digest, 32, sig, 64), CKR_OK);
    /* brought along as a session object */
    CK_BYTE params[16], point[80];
    CK_OBJECT_CLASS class = CKO_PUBLIC_KEY;
    CK_KEY_TYPE type = CKK_EC;
    CK_ATTRIBUTE templ[] = {{CKA_EC_PARAMS, params, sizeof params},
                            {CKA_EC_POINT, point, sizeof point},
                            {CKA_CLASS, &class, sizeof class},
                            {CKA_KEY_TYPE, &type, sizeof type}};
    assert_int_equal(f->C_GetAttributeValue(session, pub, templ, 2), CKR_OK);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(f->C_CreateObject(session, templ, 4, &object), CKR_OK);
    }
    CK_OBJECT_HANDLE ninth;
    assert_int_equal(f->C_CreateObject(session, templ, 4, &ninth), CKR_DEVICE_MEMORY);
    assert_int_equal(f->C_SignInit(session, &ecdsa, object), CKR_KEY_FUNCTION_NOT_PERMITTED);
    assert_int_equal(f->C_VerifyInit(session, &ecdsa, object), CKR_OK);
    assert_int_equal(f->C_Verify(session, digest, 32, sig, 64), CKR_OK);
    sig[7] ^= 1;
    assert_int_equal(f->C_VerifyInit(session, &ecdsa, object), CKR_OK);
    assert_int_equal(f->C_Verify(session, digest, 32, sig, 64), CKR_SIGNATURE_INVALID);
    assert_int_equal(f->C_VerifyInit(session, &ecdsa, object), CKR_OK);
    assert_int_equal(f->C_Verify(session, digest, 32, sig, 63), CKR_SIGNATURE_LEN_RANGE);
    assert_int_equal(f->C_DestroyObject(session, object), CKR_OK);
    assert_int_equal(f->C_DestroyObject(session, object), CKR_OBJECT_HANDLE_INVALID);
}

/* More generations than an agent has keys in force and retired: a change of the bundle is one, too.
 */
static void an_old_handle_has_room(void **state)
{
    (void)state;
    CK_BYTE digest[32] = {5}, sig[64];
    CK_OBJECT_HANDLE old = find(CKO_PRIVATE_KEY);
    for (int i = 1; i < 16; i++) {
        fx.now = i % 2;
        assert_int_not_equal(find(CKO_PRIVATE_KEY), old);
        assert_int_equal(sign_once(old, digest, 32, sig), CKR_OK);
    }
    fx.now = 0;
    (void)find(CKO_PRIVATE_KEY);
    assert_int_equal(f->C_SignInit(session, &ecdsa, old), CKR_KEY_HANDLE_INVALID);
}

static void rotation_shows_at_the_next_search(void **state)
{
    (void)state;
    CK_BYTE digest[32] = {5}, sig[64];
    CK_OBJECT_HANDLE old = find(CKO_PRIVATE_KEY), old_pub = find(CKO_PUBLIC_KEY);
    fx.now = 1;
    assert_int_equal(sign_once(old, digest, 32, sig), CKR_OK);
    CK_OBJECT_HANDLE fresh = find(CKO_PRIVATE_KEY);
    assert_int_not_equal(old, fresh);
    assert_int_equal(sign_once(old, digest, 32, sig), CKR_OK);
    assert_int_equal(f->C_VerifyInit(session, &ecdsa, old_pub), CKR_OK);
    assert_int_equal(f->C_Verify(session, digest, 32, sig, 64), CKR_OK);
    assert_int_equal(sign_once(fresh, digest, 32, sig), CKR_OK);
    assert_int_equal(f->C_VerifyInit(session, &ecdsa, old_pub), CKR_OK);
    assert_int_equal(f->C_Verify(session, digest, 32, sig, 64), CKR_SIGNATURE_INVALID);
    /* attestd away: what was known holds; no certificate: nothing is found, handles still work */
    fx.view_rc = ATT_E_UNREACHABLE;
    assert_int_equal(find(CKO_PRIVATE_KEY), fresh);
    fx.view_rc = ATT_OK;
    fx.now = -1;
    assert_int_equal(find(CKO_PRIVATE_KEY), 0);
    assert_int_equal(sign_once(fresh, digest, 32, sig), CKR_OK);
}

static void nothing_known_and_attestd_away_is_an_error(void **state)
{
    (void)state;
    fx.view_rc = ATT_E_UNREACHABLE;
    assert_int_equal(f->C_FindObjectsInit(session, NULL, 0), CKR_DEVICE_ERROR);
    assert_int_equal(f->C_FindObjects(session, NULL, 0, NULL), CKR_OPERATION_NOT_INITIALIZED);
    fx.view_rc = ATT_OK;
    assert_int_not_equal(find(CKO_PRIVATE_KEY), 0);
}

static void digests_are_openssls(void **state)
{
    (void)state;
    static const struct {
        CK_MECHANISM_TYPE type;
        const char *name;
    } all[] = {{CKM_SHA_1, "SHA1"},
               {CKM_SHA256, "SHA256"},
               {CKM_SHA384, "SHA384"},
               {CKM_SHA512, "SHA512"}};
    CK_BYTE data[] = "abc", want[64], got[64];
    for (size_t i = 0; i < 4; i++) {
        CK_MECHANISM mechanism = {all[i].type, NULL, 0};
        size_t want_len;
        CK_ULONG len = 64;
        EVP_Q_digest(NULL, all[i].name, NULL, data, 3, want, &want_len);
        assert_int_equal(f->C_Digest(session, data, 3, got, &len), CKR_OPERATION_NOT_INITIALIZED);
        assert_int_equal(f->C_DigestInit(session, &mechanism), CKR_OK);
        assert_int_equal(f->C_DigestInit(session, &mechanism), CKR_OPERATION_ACTIVE);
        len = 1;
        assert_int_equal(f->C_Digest(session, data, 3, got, &len), CKR_BUFFER_TOO_SMALL);
        assert_int_equal(len, want_len);
        assert_int_equal(f->C_Digest(session, data, 3, got, &len), CKR_OK);
        assert_memory_equal(got, want, want_len);
        assert_int_equal(f->C_DigestInit(session, &mechanism), CKR_OK);
        assert_int_equal(f->C_DigestUpdate(session, data, 1), CKR_OK);
        assert_int_equal(f->C_DigestUpdate(session, data + 1, 2), CKR_OK);
        assert_int_equal(f->C_Digest(session, data, 3, got, &len), CKR_OPERATION_ACTIVE);
        assert_int_equal(f->C_DigestFinal(session, got, &len), CKR_OK);
        assert_memory_equal(got, want, want_len);
    }
    CK_MECHANISM md5 = {CKM_MD5, NULL, 0};
    assert_int_equal(f->C_DigestInit(session, &md5), CKR_MECHANISM_INVALID);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_pointer_is_filled),
        TEST(what_is_not_served_says_so),
        TEST(nothing_can_be_changed),
        TEST(the_private_value_is_sensitive),
        TEST(private_and_foreign_objects_are_not_taken),
        TEST(signing_is_refused_out_of_order_and_by_length),
        TEST(questions_of_size_cost_no_signature),
        TEST(a_login_confers_nothing),
        TEST(errors_of_the_store_have_their_codes),
        TEST(caps_hold),
        TEST(nobodys_agent_has_no_slot),
        TEST(signature_verifies_here_and_elsewhere),
        TEST(rotation_shows_at_the_next_search),
        TEST(an_old_handle_has_room),
        TEST(nothing_known_and_attestd_away_is_an_error),
        TEST(digests_are_openssls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
