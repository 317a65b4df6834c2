#include "tests/support/forge_parts.h"

#include "certs/build.h"
#include "certs/chain.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void forge_must(bool ok, const char *what)
{
    if (!ok) {
        (void)fprintf(stderr, "forge: %s failed\n", what);
        abort();
    }
}

int64_t forge_shift_s;

static void set_times(X509 *cert, int64_t not_before, int64_t not_after)
{
    forge_must(
        ASN1_TIME_set(X509_getm_notBefore(cert), (time_t)(not_before + forge_shift_s)) != NULL &&
            ASN1_TIME_set(X509_getm_notAfter(cert), (time_t)(not_after + forge_shift_s)) != NULL,
        "validity");
}

static void set_name(X509_NAME *name, const char *cn)
{
    forge_must(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)cn, -1,
                                          -1, 0) == 1,
               "name");
}

static void set_serial(X509 *cert)
{
    static uint64_t serial = 0x1000;
    forge_must(ASN1_INTEGER_set_uint64(X509_get_serialNumber(cert), ++serial) == 1, "serial");
}

static void add_ext(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    forge_must(ext && X509_add_ext(cert, ext, -1) == 1, value);
    X509_EXTENSION_free(ext);
}

X509 *forge_ca(EVP_PKEY *key, const char *name, X509 *issuer, EVP_PKEY *issuer_key)
{
    X509 *cert = X509_new();
    forge_must(cert && X509_set_version(cert, X509_VERSION_3) == 1, "CA");
    set_serial(cert);
    set_name(X509_get_subject_name(cert), name);
    X509 *from = issuer ? issuer : cert;
    X509_NAME *issuer_name = X509_NAME_dup(X509_get_subject_name(from));
    forge_must(X509_set_issuer_name(cert, issuer_name) == 1 && X509_set_pubkey(cert, key) == 1,
               "CA names");
    X509_NAME_free(issuer_name);
    set_times(cert, FORGE_NOW - 86400, FORGE_NOW + 365 * 86400);
    add_ext(cert, from, NID_basic_constraints, "critical,CA:TRUE");
    add_ext(cert, from, NID_key_usage, "critical,keyCertSign,cRLSign");
    add_ext(cert, from, NID_subject_key_identifier, "hash");
    if (issuer) {
        add_ext(cert, from, NID_authority_key_identifier, "keyid:always");
    }
    forge_must(X509_sign(cert, issuer ? issuer_key : key, EVP_sha256()) > 0, "CA signature");
    return cert;
}

/* Critical SAN with a directoryName of the three TCG attributes: EK Credential Profile 3.1.2. */
static void add_tcg_san(X509 *cert, const struct forge_ek_cert *spec)
{
    const struct {
        const char *oid, *value;
    } attributes[] = {{"2.23.133.2.1", spec->manufacturer},
                      {"2.23.133.2.2", spec->model},
                      {"2.23.133.2.3", spec->version}};
    X509_NAME *name = X509_NAME_new();
    for (size_t i = 0; i < 3; i++) {
        ASN1_OBJECT *oid = OBJ_txt2obj(attributes[i].oid, 1);
        forge_must(X509_NAME_add_entry_by_OBJ(name, oid, V_ASN1_UTF8STRING,
                                              (const unsigned char *)attributes[i].value, -1, -1,
                                              0) == 1,
                   "TCG attribute");
        ASN1_OBJECT_free(oid);
    }
    GENERAL_NAME *general = GENERAL_NAME_new();
    general->type = GEN_DIRNAME;
    general->d.directoryName = name;
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    forge_must(sk_GENERAL_NAME_push(names, general) > 0 &&
                   X509_add1_ext_i2d(cert, NID_subject_alt_name, names, 1, X509V3_ADD_DEFAULT) == 1,
               "SAN");
    GENERAL_NAMES_free(names);
}

static void put_der(X509 *cert, struct att_buf *ret)
{
    unsigned char *der = NULL;
    int len = i2d_X509(cert, &der);
    forge_must(len > 0, "DER of a certificate");
    att_buf_put(ret, der, (size_t)len);
    OPENSSL_free(der);
}

void forge_ek_certificate(struct forge *forge)
{
    const struct forge_ek_cert *spec = &forge->ek_cert_spec;
    EVP_PKEY *subject = spec->subject ? spec->subject : forge->ek.pkey;
    EVP_PKEY *foreign = spec->foreign_issuer ? forge_p256() : NULL;
    EVP_PKEY *signer = spec->self_signed ? subject : foreign ? foreign : forge->maker_ca_key;
    X509 *cert = X509_new();
    forge_must(cert && X509_set_version(cert, X509_VERSION_3) == 1, "EK certificate");
    set_serial(cert);
    X509_NAME *issuer =
        spec->self_signed ? X509_NAME_new() : X509_NAME_dup(X509_get_subject_name(forge->maker_ca));
    if (spec->self_signed) {
        set_name(issuer, "EK");
        set_name(X509_get_subject_name(cert), "EK");
    }
    forge_must(X509_set_issuer_name(cert, issuer) == 1 && X509_set_pubkey(cert, subject) == 1,
               "EK certificate's names");
    X509_NAME_free(issuer);
    set_times(cert, spec->not_before, spec->not_after);
    bool rsa = EVP_PKEY_get_base_id(subject) == EVP_PKEY_RSA;
    add_ext(cert, forge->maker_ca, NID_basic_constraints,
            spec->ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
    add_ext(cert, forge->maker_ca, NID_key_usage,
            rsa ? "critical,keyEncipherment" : "critical,keyAgreement");
    add_ext(cert, forge->maker_ca, NID_ext_key_usage,
            spec->no_eku ? "2.23.133.8.3" : "2.23.133.8.1");
    if (!spec->no_san) {
        add_tcg_san(cert, spec);
    }
    if (!spec->self_signed) {
        add_ext(cert, forge->maker_ca, NID_authority_key_identifier, "keyid:always");
    }
    forge_must(X509_sign(cert, signer, EVP_sha256()) > 0, "EK certificate's signature");
    put_der(cert, &forge->ek_cert);
    for (size_t i = 0; i < spec->padding; i++) {
        att_buf_u8(&forge->ek_cert, 0xff);
    }
    X509_free(cert);
    EVP_PKEY_free(foreign);
    att_buf_reset(&forge->chain_der);
    put_der(forge->maker_ca, &forge->chain_der);
    forge->chain[0] = att_buf_slice(&forge->chain_der);
}

void forge_ak_certificate(struct forge *forge, const char *ek_id)
{
    att_autobuf spki = {0}, tbs = {0};
    uint8_t digest[ATT_SHA256_LEN];
    struct certs_ak_spec spec = {.validity = {FORGE_NOW - 60, FORGE_NOW + 86400},
                                 .ek_id = ek_id,
                                 .manufacturer = forge->ek_cert_spec.manufacturer,
                                 .model = forge->ek_cert_spec.model,
                                 .version = forge->ek_cert_spec.version};
    forge_spki(forge->ak.pkey, &spki);
    spec.spki = att_buf_slice(&spki);
    struct att_err err = {0};
    bool good = !certs_serial_new(spec.serial, &err) &&
                !certs_ak_tbs(&spec, forge->att_ca, &tbs, digest, &err) &&
                !certs_tbs_sign(att_buf_slice(&tbs), forge->att_ca_key, &forge->ak_cert, &err);
    forge_must(good, err.msg[0] ? err.msg : "AK certificate");
}

struct certs_ek_store *forge_store(X509 *root)
{
    char dir[] = "/tmp/forge-roots-XXXXXX", path[64];
    struct certs_ek_store *store = NULL;
    struct att_err err = {0};
    forge_must(mkdtemp(dir) != NULL, "mkdtemp");
    (void)snprintf(path, sizeof(path), "%s/root.pem", dir);
    FILE *file = fopen(path, "w");
    forge_must(file && PEM_write_X509(file, root) == 1 && fclose(file) == 0, "root.pem");
    forge_must(!certs_ek_store_load(dir, &store, &err), err.msg);
    (void)unlink(path);
    (void)rmdir(dir);
    return store;
}
