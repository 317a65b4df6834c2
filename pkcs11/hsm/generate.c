/* A pair of keys by the module: its templates. */
#include "pkcs11/hsm/internal.h"

#include <string.h>

#define FEW_PRIVATE 9

/* The attributes behind the first few are of later versions of the standard, or taken as given by
 * some modules and refused in a template. */
struct templates {
    CK_BBOOL yes, no;
    CK_OBJECT_CLASS public_class, private_class;
    CK_KEY_TYPE type;
    CK_ULONG bits;
    uint8_t id[HSM_KEY_ID_LEN], curve[10], exponent[3];
    char label[sizeof HSM_LABEL];
    CK_ATTRIBUTE of_public[10], of_private[14];
    CK_ULONG n_public, few_public;
};

static void put(struct templates *t, CK_ATTRIBUTE_TYPE type, void *value, size_t len)
{
    t->of_public[t->n_public++] = (CK_ATTRIBUTE){type, value, len};
}

static void fill_public(struct templates *t, bool rsa)
{
    put(t, CKA_CLASS, &t->public_class, sizeof t->public_class);
    put(t, CKA_KEY_TYPE, &t->type, sizeof t->type);
    put(t, CKA_TOKEN, &t->yes, sizeof t->yes);
    if (rsa) { /* PKCS#11 2.40 mechanisms §2.1.4 */
        put(t, CKA_MODULUS_BITS, &t->bits, sizeof t->bits);
        put(t, CKA_PUBLIC_EXPONENT, t->exponent, sizeof t->exponent);
    } else {
        put(t, CKA_EC_PARAMS, t->curve, sizeof t->curve);
    }
    put(t, CKA_ID, t->id, sizeof t->id);
    put(t, CKA_LABEL, t->label, strlen(t->label));
    t->few_public = t->n_public;
    put(t, CKA_PRIVATE, &t->no, sizeof t->no);
    put(t, CKA_MODIFIABLE, &t->no, sizeof t->no);
    put(t, CKA_COPYABLE, &t->no, sizeof t->no);
}

static void fill_private(struct templates *t)
{
    const CK_ATTRIBUTE all[] = {
        {CKA_CLASS, &t->private_class, sizeof t->private_class},
        {CKA_KEY_TYPE, &t->type, sizeof t->type},
        {CKA_TOKEN, &t->yes, sizeof t->yes},
        {CKA_PRIVATE, &t->yes, sizeof t->yes},
        {CKA_SENSITIVE, &t->yes, sizeof t->yes},
        {CKA_EXTRACTABLE, &t->no, sizeof t->no},
        {CKA_SIGN, &t->yes, sizeof t->yes},
        {CKA_ID, t->id, sizeof t->id},
        {CKA_LABEL, t->label, strlen(t->label)},
        /* FEW_PRIVATE */
        {CKA_DECRYPT, &t->no, sizeof t->no},
        {CKA_UNWRAP, &t->no, sizeof t->no},
        {CKA_DERIVE, &t->no, sizeof t->no},
        {CKA_MODIFIABLE, &t->no, sizeof t->no},
        {CKA_COPYABLE, &t->no, sizeof t->no},
    };
    memcpy(t->of_private, all, sizeof all);
}

CK_RV hsm_generate(struct hsm_call *call, const uint8_t id[HSM_KEY_ID_LEN], enum att_keytype type,
                   bool all, CK_OBJECT_HANDLE *ret_public, CK_OBJECT_HANDLE *ret_private)
{
    static const uint8_t p256[] = {0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07};
    bool rsa = att_keytype_is_rsa(type);
    CK_MECHANISM mechanism = {rsa ? CKM_RSA_PKCS_KEY_PAIR_GEN : CKM_EC_KEY_PAIR_GEN, NULL, 0};
    struct templates t = {.yes = CK_TRUE,
                          .no = CK_FALSE,
                          .public_class = CKO_PUBLIC_KEY,
                          .private_class = CKO_PRIVATE_KEY,
                          .type = rsa ? CKK_RSA : CKK_EC,
                          .bits = 8 * att_keytype_modulus_len(type),
                          .exponent = {0x01, 0x00, 0x01},
                          .label = HSM_LABEL};
    memcpy(t.id, id, sizeof t.id);
    memcpy(t.curve, p256, sizeof t.curve);
    fill_public(&t, rsa);
    fill_private(&t);
    return call->module->C_GenerateKeyPair(
        call->session, &mechanism, t.of_public, all ? t.n_public : t.few_public, t.of_private,
        all ? sizeof t.of_private / sizeof t.of_private[0] : FEW_PRIVATE, ret_public, ret_private);
}
