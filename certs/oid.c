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

enum att_rc certs_extension(const X509 *cert, const char *dotted, const char *what,
                            struct att_slice *ret_value, struct att_err *err)
{
    ASN1_OBJECT *oid = NULL;
    enum att_rc rc = certs_oid(dotted, &oid, err);
    if (rc != ATT_OK) {
        return rc;
    }
    int at = X509_get_ext_by_OBJ(cert, oid, -1);
    int second = at >= 0 ? X509_get_ext_by_OBJ(cert, oid, at) : -1;
    ASN1_OBJECT_free(oid);
    if (at < 0) {
        return att_fail(err, ATT_E_NOTFOUND, "the certificate says nothing of %s", what);
    }
    if (second >= 0) {
        return att_fail(err, ATT_E_PARSE, "the extension on %s stands there twice", what);
    }
    const ASN1_OCTET_STRING *value = X509_EXTENSION_get_data(X509_get_ext(cert, at));
    *ret_value = ATT_SLICE(ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value));
    return ATT_OK;
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
