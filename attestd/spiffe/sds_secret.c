#include "attestd/spiffe/sds_secret.h"

#include "attestd/spiffe/sds_request.h"
#include "secret.pb-c.h"

#include <limits.h>
#include <openssl/asn1.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdlib.h>

#define PEM_LINE 48 /* bytes in a line of 64 characters (RFC 7468 §2) */

/* ---- PEM ----------------------------------------------------------------------------------- */

/* The first object of ders, which goes on behind it. Empty: it is none. */
static struct att_slice next_object(struct att_slice *ders)
{
    const unsigned char *at = ders->ptr;
    long len = 0;
    int tag = 0, class = 0;
    if (ders->len > LONG_MAX ||
        ASN1_get_object(&at, &len, &tag, &class, (long)ders->len) != V_ASN1_CONSTRUCTED ||
        tag != V_ASN1_SEQUENCE || class != V_ASN1_UNIVERSAL) {
        return (struct att_slice){0};
    }
    size_t whole = (size_t)(at - ders->ptr) + (size_t)len;
    struct att_slice one = ATT_SLICE(ders->ptr, whole);
    *ders = ATT_SLICE(ders->ptr + whole, ders->len - whole);
    return one;
}

enum att_rc sds_pem_put(struct att_buf *pem, const char *label, struct att_slice ders,
                        struct att_err *err)
{
    BIO *bio = BIO_new(BIO_s_mem());
    bool ok = bio != NULL;
    while (ok && ders.len) {
        struct att_slice one = next_object(&ders);
        if (!one.len) {
            BIO_free(bio);
            return att_fail(err, ATT_E_PARSE, "%s: not DER", label);
        }
        ok = PEM_write_bio(bio, label, "", one.ptr, (long)one.len) > 0;
    }
    char *text = NULL;
    long len = ok ? BIO_get_mem_data(bio, &text) : 0;
    if (len > 0) {
        att_buf_put(pem, text, (size_t)len);
    }
    BIO_free(bio);
    return ok && !pem->failed ? ATT_OK : att_fail(err, ATT_E_NOMEM, "%s", label);
}

/* By lines: PEM_write_bio leaves the rest of a line in memory that it frees as it is. */
enum att_rc sds_pem_put_key(struct att_buf *pem, struct att_slice pkcs8, struct att_err *err)
{
    unsigned char line[PEM_LINE * 4 / 3 + 1];
    att_buf_put_str(pem, "-----BEGIN PRIVATE KEY-----\n");
    for (size_t at = 0; at < pkcs8.len; at += PEM_LINE) {
        size_t take = pkcs8.len - at < PEM_LINE ? pkcs8.len - at : PEM_LINE;
        int len = EVP_EncodeBlock(line, pkcs8.ptr + at, (int)take);
        att_buf_put(pem, line, (size_t)len);
        att_buf_u8(pem, '\n');
    }
    att_buf_put_str(pem, "-----END PRIVATE KEY-----\n");
    OPENSSL_cleanse(line, sizeof line);
    return pem->failed ? att_fail(err, ATT_E_NOMEM, "a private key") : ATT_OK;
}

/* ---- messages ------------------------------------------------------------------------------ */

static Envoy__Service__Secret__V3__DataSource source(struct att_slice bytes)
{
    Envoy__Service__Secret__V3__DataSource one = ENVOY__SERVICE__SECRET__V3__DATA_SOURCE__INIT;
    one.specifier_case = ENVOY__SERVICE__SECRET__V3__DATA_SOURCE__SPECIFIER_INLINE_BYTES;
    one.inline_bytes = (ProtobufCBinaryData){bytes.len, (uint8_t *)(uintptr_t)bytes.ptr};
    return one;
}

static bool pack(const ProtobufCMessage *message, ProtobufCBinaryData *ret)
{
    size_t len = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = len <= GRPC_ANSWER_MAX ? malloc(len + 1) : NULL;
    if (bytes) {
        *ret = (ProtobufCBinaryData){protobuf_c_message_pack(message, bytes), bytes};
    }
    return bytes != NULL;
}

static bool pack_context(const struct sds_secret *secret, ProtobufCBinaryData *ret)
{
    Envoy__Service__Secret__V3__Secret message;
    Envoy__Service__Secret__V3__CertificateValidationContext context =
        ENVOY__SERVICE__SECRET__V3__CERTIFICATE_VALIDATION_CONTEXT__INIT;
    Envoy__Service__Secret__V3__DataSource trusted_ca = source(secret->trusted_ca);
    Envoy__Service__Secret__V3__DataSource crl = source(secret->crl);
    context.trusted_ca = &trusted_ca;
    context.crl = secret->crl.len ? &crl : NULL;
    context.only_verify_leaf_cert_crl = secret->crl.len > 0;
    envoy__service__secret__v3__secret__init(&message);
    message.name = (char *)(uintptr_t)secret->name;
    message.type_case = ENVOY__SERVICE__SECRET__V3__SECRET__TYPE_VALIDATION_CONTEXT;
    message.validation_context = &context;
    return pack(&message.base, ret);
}

static bool pack_certificate(const struct sds_secret *secret, ProtobufCBinaryData *ret)
{
    Envoy__Service__Secret__V3__Secret message;
    Envoy__Service__Secret__V3__TlsCertificate certificate =
        ENVOY__SERVICE__SECRET__V3__TLS_CERTIFICATE__INIT;
    Envoy__Service__Secret__V3__DataSource chain = source(secret->chain);
    Envoy__Service__Secret__V3__DataSource key = source(secret->key);
    certificate.certificate_chain = &chain;
    certificate.private_key = &key;
    envoy__service__secret__v3__secret__init(&message);
    message.name = (char *)(uintptr_t)secret->name;
    message.type_case = ENVOY__SERVICE__SECRET__V3__SECRET__TYPE_TLS_CERTIFICATE;
    message.tls_certificate = &certificate;
    return pack(&message.base, ret);
}

struct grpc_bytes *sds_response_encode(const struct sds_secret *secrets, size_t n,
                                       const char *version, const char *nonce)
{
    Envoy__Service__Secret__V3__DiscoveryResponse message;
    Envoy__Service__Secret__V3__Any all[SDS_NAMES_MAX], *resources[SDS_NAMES_MAX];
    struct grpc_bytes *bytes = NULL;
    size_t made = 0;
    bool ok = n <= SDS_NAMES_MAX, secret = false;
    for (; ok && made < n; made++) {
        resources[made] = &all[made];
        envoy__service__secret__v3__any__init(&all[made]);
        all[made].type_url = (char *)(uintptr_t)SDS_SECRET_TYPE;
        secret = secret || secrets[made].chain.len;
        ok = secrets[made].chain.len ? pack_certificate(&secrets[made], &all[made].value)
                                     : pack_context(&secrets[made], &all[made].value);
    }
    if (ok) {
        envoy__service__secret__v3__discovery_response__init(&message);
        message.version_info = (char *)(uintptr_t)version;
        message.nonce = (char *)(uintptr_t)nonce;
        message.type_url = (char *)(uintptr_t)SDS_SECRET_TYPE;
        message.resources = resources;
        message.n_resources = n;
        bytes = grpc_bytes_new(protobuf_c_message_get_packed_size(&message.base));
    }
    if (bytes) {
        bytes->secret = secret;
        (void)protobuf_c_message_pack(&message.base, bytes->data + 5);
    }
    for (size_t i = 0; i < made; i++) { /* there may be a private key in it */
        OPENSSL_cleanse(all[i].value.data, all[i].value.len);
        free(all[i].value.data);
    }
    return bytes;
}
