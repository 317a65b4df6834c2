#include "certs/oid.h"

#include <openssl/objects.h>
#include <string.h>

enum att_rc certs_oid(const char *dotted, ASN1_OBJECT **ret_obj, struct att_err *err)
{
    ASN1_OBJECT *obj = OBJ_txt2obj(dotted, 1);
    if (!obj) {
        return att_fail_openssl(err, ATT_E_CRYPTO, "object identifier %s", dotted);
    }
    *ret_obj = obj;
    return ATT_OK;
}

bool certs_oid_is(const ASN1_OBJECT *obj, const char *dotted)
{
    char text[128];
    int len = obj ? OBJ_obj2txt(text, sizeof text, obj, 1) : -1;
    return len > 0 && (size_t)len < sizeof text && strcmp(text, dotted) == 0;
}

void certs_key_cleanup(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
    *key = NULL;
}

void certs_x509_cleanup(X509 **cert)
{
    X509_free(*cert);
    *cert = NULL;
}

void certs_stack_cleanup(STACK_OF(X509) * *certs)
{
    sk_X509_pop_free(*certs, X509_free);
    *certs = NULL;
}
