#include "certs/build.h"

#include "certs/chain.h"
#include "certs/der.h"
#include "certs/key.h"
#include "certs/oid.h"
#include "certs/san.h"
#include "certs/tbs.h"

#include <arpa/inet.h>
#include <openssl/x509v3.h>
#include <string.h>

struct certs_validity certs_validity_from(int64_t now_s, int64_t lifetime_s)
{
    return (struct certs_validity){now_s - CERTS_BACKDATE_S, now_s + lifetime_s};
}

enum att_rc certs_serial_new(uint8_t ret_serial[CERTS_SERIAL_LEN], struct att_err *err)
{
    enum att_rc rc = att_random(ret_serial, CERTS_SERIAL_LEN, err);
    /* 0x40 … 0x7f in front: positive without a sign byte, and never shorter. */
    ret_serial[0] = (uint8_t)((ret_serial[0] & 0x3f) | 0x40);
    return rc;
}

enum att_rc certs_leaf_tbs(const struct certs_leaf_spec *spec, const X509 *ca_cert,
                           struct att_buf *ret_tbs, uint8_t ret_digest[ATT_SHA256_LEN],
                           struct att_err *err)
{
    struct certs_spiffe_id id;
    att_autobuf holding = {0};
    enum att_rc rc = certs_spiffe_parse(att_slice_str(spec->spiffe_id), &id, err);
    if (rc == ATT_OK && id.path.len == 0) {
        rc = att_fail(err, ATT_E_INVAL, "a leaf's SPIFFE ID must have a path");
    }
    if (rc == ATT_OK) {
        rc = certs_key_holding_encode(&spec->holding, &holding, err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    struct certs_tbs tbs = {
        .serial = spec->serial, .validity = spec->validity, .spki = spec->spki, .ca_cert = ca_cert};
    struct att_buf *exts = &tbs.extensions;
    size_t m = certs_ext_begin(exts, CERTS_EXT_SAN, true);
    size_t names = certs_der_begin(exts, DER_SEQUENCE);
    certs_der_put(exts, DER_CONTEXT(6), att_slice_str(spec->spiffe_id));
    certs_der_end(exts, names);
    certs_ext_end(exts, m);
    certs_ext_key_usage(exts, CERTS_KU_DIGITAL_SIGNATURE);
    certs_ext_eku(exts, (const char *const[]){CERTS_EKU_SERVER, CERTS_EKU_CLIENT, NULL}, false);
    certs_ext_basic_leaf(exts);
    if (spec->crl_url) {
        certs_ext_crl(exts, spec->crl_url);
    }
    m = certs_ext_begin(exts, CERTS_OID_KEY_HOLDING, false);
    att_buf_put_slice(exts, att_buf_slice(&holding));
    certs_ext_end(exts, m);
    if (spec->measured.level) {
        m = certs_ext_begin(exts, CERTS_OID_MEASURED, false);
        rc = certs_measured_encode(&spec->measured, exts, err);
        certs_ext_end(exts, m);
    }
    if (rc == ATT_OK && spec->sealed.sealed) {
        m = certs_ext_begin(exts, CERTS_OID_SEALED, false);
        rc = certs_sealed_encode(&spec->sealed, exts, err);
        certs_ext_end(exts, m);
    }
    if (rc == ATT_OK && spec->hsm.name[0]) {
        m = certs_ext_begin(exts, CERTS_OID_HSM, false);
        rc = certs_hsm_encode(&spec->hsm, exts, err);
        certs_ext_end(exts, m);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    return certs_tbs_finish(&tbs, ret_tbs, ret_digest, err);
}

static bool is_hex_id(const char *text)
{
    return text && strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static bool attr_ok(const char *text)
{
    size_t len = text ? strnlen(text, 65) : 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < 0x20 || text[i] > 0x7e) {
            return false;
        }
    }
    return len > 0 && len <= 64;
}

/* EK Credential Profile §3.2.9: the attributes are RDNs of a directoryName. */
static void put_tcg_name(struct att_buf *buf, const struct certs_ak_spec *spec)
{
    const char *const attrs[][2] = {{CERTS_OID_TPM_MANUFACTURER, spec->manufacturer},
                                    {CERTS_OID_TPM_MODEL, spec->model},
                                    {CERTS_OID_TPM_VERSION, spec->version}};
    size_t general = certs_der_begin(buf, DER_CONTEXT_C(4)); /* explicit: Name is a CHOICE */
    size_t name = certs_der_begin(buf, DER_SEQUENCE);
    for (size_t i = 0; i < 3; i++) {
        certs_put_rdn(buf, attrs[i][0], attrs[i][1]);
    }
    certs_der_end(buf, name);
    certs_der_end(buf, general);
}

/* RFC 4043 §2: otherName { id-on-permanentIdentifier, [0] PermanentIdentifier { identifierValue }
 * }; without an assigner the value is unique by itself, as a SHA-256 digest is. */
void certs_put_permanent_id(struct att_buf *buf, const char *ek_id)
{
    size_t other = certs_der_begin(buf, DER_CONTEXT_C(0));
    certs_der_put_oid(buf, CERTS_OID_PERMANENT_ID);
    size_t value = certs_der_begin(buf, DER_CONTEXT_C(0));
    size_t seq = certs_der_begin(buf, DER_SEQUENCE);
    certs_der_put(buf, DER_UTF8, att_slice_str(ek_id));
    certs_der_end(buf, seq);
    certs_der_end(buf, value);
    certs_der_end(buf, other);
}

enum att_rc certs_ak_tbs(const struct certs_ak_spec *spec, const X509 *ca_cert,
                         struct att_buf *ret_tbs, uint8_t ret_digest[ATT_SHA256_LEN],
                         struct att_err *err)
{
    if (!is_hex_id(spec->ek_id)) {
        return att_fail(err, ATT_E_INVAL, "expected the EK id as 64 lowercase hex digits");
    }
    if (!attr_ok(spec->manufacturer) || !attr_ok(spec->model) || !attr_ok(spec->version)) {
        return att_fail(err, ATT_E_INVAL,
                        "expected TPM manufacturer, model and version of 1 … 64 printable bytes");
    }
    struct certs_tbs tbs = {
        .serial = spec->serial, .validity = spec->validity, .spki = spec->spki, .ca_cert = ca_cert};
    struct att_buf *exts = &tbs.extensions;
    size_t m = certs_ext_begin(exts, CERTS_EXT_SAN, true);
    size_t names = certs_der_begin(exts, DER_SEQUENCE);
    put_tcg_name(exts, spec);
    certs_put_permanent_id(exts, spec->ek_id);
    if (spec->uri) {
        certs_der_put(exts, DER_CONTEXT(6), att_slice_str(spec->uri));
    }
    certs_der_end(exts, names);
    certs_ext_end(exts, m);
    certs_ext_key_usage(exts, CERTS_KU_DIGITAL_SIGNATURE);
    certs_ext_eku(exts, (const char *const[]){CERTS_OID_EKU_AK, NULL}, false);
    certs_ext_basic_leaf(exts);
    return certs_tbs_finish(&tbs, ret_tbs, ret_digest, err);
}

enum att_rc certs_device_tbs(const struct certs_server_spec *spec, const X509 *ca_cert,
                             struct att_buf *ret_tbs, uint8_t ret_digest[ATT_SHA256_LEN],
                             struct att_err *err)
{
    if (!is_hex_id(spec->device_id)) {
        return att_fail(err, ATT_E_INVAL, "expected the device's id as 64 lowercase hex digits");
    }
    struct certs_tbs tbs = {.serial = spec->serial,
                            .validity = spec->validity,
                            .spki = spec->spki,
                            .any_key = true,
                            .ca_cert = ca_cert};
    struct att_buf *exts = &tbs.extensions;
    size_t m = certs_ext_begin(exts, CERTS_EXT_SAN, true); /* the subject is empty */
    size_t names = certs_der_begin(exts, DER_SEQUENCE);
    certs_put_permanent_id(exts, spec->device_id);
    certs_der_end(exts, names);
    certs_ext_end(exts, m);
    certs_ext_key_usage(exts, CERTS_KU_DIGITAL_SIGNATURE);
    certs_ext_eku(exts, (const char *const[]){CERTS_EKU_CLIENT, NULL}, false);
    certs_ext_basic_leaf(exts);
    if (spec->crl_url) {
        certs_ext_crl(exts, spec->crl_url);
    }
    return certs_tbs_finish(&tbs, ret_tbs, ret_digest, err);
}

static bool dns_name_ok(const char *name)
{
    size_t len = strnlen(name, 254), label = 0;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        bool alnum = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (c == '.' ? label == 0 : !alnum && c != '-' && c != '_') {
            return false;
        }
        label = c == '.' ? 0 : label + 1;
    }
    return len > 0 && len <= 253 && label > 0;
}

static enum att_rc put_server_name(struct att_buf *buf, const char *name, struct att_err *err)
{
    uint8_t addr[16];
    if (inet_pton(AF_INET, name, addr) == 1) {
        certs_der_put(buf, DER_CONTEXT(7), ATT_SLICE(addr, 4));
    } else if (inet_pton(AF_INET6, name, addr) == 1) {
        certs_der_put(buf, DER_CONTEXT(7), ATT_SLICE(addr, 16));
    } else if (dns_name_ok(name)) {
        certs_der_put(buf, DER_CONTEXT(2), att_slice_str(name));
    } else {
        return att_fail(err, ATT_E_INVAL, "expected a DNS name or an IP address, found \"%.80s\"",
                        name);
    }
    return ATT_OK;
}

enum att_rc certs_server_tbs(const struct certs_server_spec *spec, const X509 *ca_cert,
                             struct att_buf *ret_tbs, uint8_t ret_digest[ATT_SHA256_LEN],
                             struct att_err *err)
{
    if (spec->n_names == 0 || spec->n_names > 32) {
        return att_fail(err, ATT_E_INVAL, "a TLS certificate for %zu names, expected 1 … 32",
                        spec->n_names);
    }
    struct certs_tbs tbs = {
        .serial = spec->serial, .validity = spec->validity, .spki = spec->spki, .ca_cert = ca_cert};
    struct att_buf *exts = &tbs.extensions;
    size_t m = certs_ext_begin(exts, CERTS_EXT_SAN, true);
    size_t names = certs_der_begin(exts, DER_SEQUENCE);
    for (size_t i = 0; i < spec->n_names; i++) {
        enum att_rc rc = put_server_name(exts, spec->names[i], err);
        if (rc != ATT_OK) {
            att_buf_done(exts);
            return rc;
        }
    }
    certs_der_end(exts, names);
    certs_ext_end(exts, m);
    certs_ext_key_usage(exts, CERTS_KU_DIGITAL_SIGNATURE);
    certs_ext_eku(exts, (const char *const[]){CERTS_EKU_SERVER, NULL}, false);
    certs_ext_basic_leaf(exts);
    return certs_tbs_finish(&tbs, ret_tbs, ret_digest, err);
}

enum att_rc certs_view_signer_tbs(const struct certs_signer_spec *spec, const X509 *ca_cert,
                                  struct att_buf *ret_tbs, uint8_t ret_digest[ATT_SHA256_LEN],
                                  struct att_err *err)
{
    if (!attr_ok(spec->common_name)) {
        return att_fail(err, ATT_E_INVAL, "expected a common name of 1 … 64 printable bytes");
    }
    struct certs_tbs tbs = {.serial = spec->serial,
                            .validity = spec->validity,
                            .spki = spec->spki,
                            .ca_cert = ca_cert,
                            .common_name = spec->common_name};
    struct att_buf *exts = &tbs.extensions;
    certs_ext_key_usage(exts, CERTS_KU_DIGITAL_SIGNATURE);
    certs_ext_eku(exts, (const char *const[]){CERTS_OID_EKU_HOST_VIEW, NULL}, true);
    certs_ext_basic_leaf(exts);
    return certs_tbs_finish(&tbs, ret_tbs, ret_digest, err);
}

/* GeneralSubtree { base }, minimum absent (RFC 5280 §4.2.1.10: always 0). */
static void put_subtree(struct att_buf *buf, uint8_t tag, struct att_slice base)
{
    size_t m = certs_der_begin(buf, DER_SEQUENCE);
    certs_der_put(buf, tag, base);
    certs_der_end(buf, m);
}

static void put_name_constraints(struct att_buf *exts, const char *trust_domain)
{
    static const uint8_t everywhere[32] = {0}; /* address and mask, all zero */
    size_t m = certs_ext_begin(exts, CERTS_EXT_NAME_CONSTRAINTS, true);
    size_t seq = certs_der_begin(exts, DER_SEQUENCE);
    size_t permitted = certs_der_begin(exts, DER_CONTEXT_C(0));
    put_subtree(exts, DER_CONTEXT(6), att_slice_str(trust_domain)); /* URI host, exactly */
    certs_der_end(exts, permitted);
    size_t excluded = certs_der_begin(exts, DER_CONTEXT_C(1));
    put_subtree(exts, DER_CONTEXT(2), ATT_SLICE(NULL, 0)); /* every DNS name */
    put_subtree(exts, DER_CONTEXT(7), ATT_SLICE(everywhere, 8));
    put_subtree(exts, DER_CONTEXT(7), ATT_SLICE(everywhere, 32));
    certs_der_end(exts, excluded);
    certs_der_end(exts, seq);
    certs_ext_end(exts, m);
}

void certs_ext_intermediate(struct att_buf *exts, const char *trust_domain)
{
    certs_ext_key_usage(exts, CERTS_KU_CA);
    certs_ext_basic_ca(exts, true);
    if (trust_domain) {
        put_name_constraints(exts, trust_domain);
    }
}

enum att_rc certs_intermediate_tbs(const struct certs_ca_spec *spec, const X509 *ca_cert,
                                   struct att_buf *ret_tbs, uint8_t ret_digest[ATT_SHA256_LEN],
                                   struct att_err *err)
{
    if (!attr_ok(spec->common_name)) {
        return att_fail(err, ATT_E_INVAL, "expected a common name of 1 … 64 printable bytes");
    }
    if (spec->trust_domain) {
        enum att_rc rc = certs_trust_domain_check(att_slice_str(spec->trust_domain), err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    struct certs_tbs tbs = {.serial = spec->serial,
                            .validity = spec->validity,
                            .spki = spec->spki,
                            .ca_cert = ca_cert,
                            .common_name = spec->common_name};
    certs_ext_intermediate(&tbs.extensions, spec->trust_domain);
    return certs_tbs_finish(&tbs, ret_tbs, ret_digest, err);
}

/* ca_cert NULL: self-issued. */
static enum att_rc root_tbs(const struct certs_ca_spec *spec, const X509 *ca_cert,
                            struct att_buf *ret_tbs, uint8_t ret_digest[ATT_SHA256_LEN],
                            struct att_err *err)
{
    if (!attr_ok(spec->common_name)) {
        return att_fail(err, ATT_E_INVAL, "expected a common name of 1 … 64 printable bytes");
    }
    if (spec->trust_domain) {
        return att_fail(err, ATT_E_INVAL, "name constraints belong to the intermediate");
    }
    struct certs_tbs tbs = {.serial = spec->serial,
                            .validity = spec->validity,
                            .spki = spec->spki,
                            .ca_cert = ca_cert,
                            .common_name = spec->common_name};
    certs_ext_key_usage(&tbs.extensions, CERTS_KU_CA);
    certs_ext_basic_ca(&tbs.extensions, false);
    return certs_tbs_finish(&tbs, ret_tbs, ret_digest, err);
}

enum att_rc certs_root_tbs(const struct certs_ca_spec *spec, struct att_buf *ret_tbs,
                           uint8_t ret_digest[ATT_SHA256_LEN], struct att_err *err)
{
    return root_tbs(spec, NULL, ret_tbs, ret_digest, err);
}

enum att_rc certs_cross_tbs(const struct certs_ca_spec *spec, const X509 *ca_cert,
                            struct att_buf *ret_tbs, uint8_t ret_digest[ATT_SHA256_LEN],
                            struct att_err *err)
{
    return root_tbs(spec, ca_cert, ret_tbs, ret_digest, err);
}

/* OtherName's content: type-id, [0] { PermanentIdentifier }. */
static bool take_permanent_id(const GENERAL_NAME *name, char ret[2 * ATT_SHA256_LEN + 1])
{
    ASN1_OBJECT *oid = NULL;
    ASN1_TYPE *value = NULL;
    if (name->type != GEN_OTHERNAME || GENERAL_NAME_get0_otherName(name, &oid, &value) != 1 ||
        !certs_oid_is(oid, CERTS_OID_PERMANENT_ID) || ASN1_TYPE_get(value) != V_ASN1_SEQUENCE) {
        return false;
    }
    const ASN1_STRING *seq = value->value.sequence;
    struct att_cur cur =
        att_cur_init(ATT_SLICE(ASN1_STRING_get0_data(seq), (size_t)ASN1_STRING_length(seq)));
    struct att_cur in = att_cur_init(certs_der_take(&cur, DER_SEQUENCE));
    struct att_slice text = certs_der_take(&in, DER_UTF8);
    char id[2 * ATT_SHA256_LEN + 1] = "";
    if (!att_cur_done(&in) || !att_cur_done(&cur) || text.len != sizeof id - 1) {
        return false;
    }
    memcpy(id, text.ptr, text.len);
    if (!is_hex_id(id)) {
        return false;
    }
    memcpy(ret, id, sizeof id);
    return true;
}

enum att_rc certs_ak_ek_id(const X509 *ak_cert, char ret[2 * ATT_SHA256_LEN + 1],
                           struct att_err *err)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(ak_cert, NID_subject_alt_name, NULL, NULL);
    char id[2 * ATT_SHA256_LEN + 1] = "";
    int found = 0;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        found += take_permanent_id(sk_GENERAL_NAME_value(names, i), id);
    }
    GENERAL_NAMES_free(names);
    if (found != 1) {
        return att_fail(err, ATT_E_PARSE,
                        "AK certificate: expected one PermanentIdentifier of 64 hex digits, found "
                        "%d",
                        found);
    }
    memcpy(ret, id, sizeof id);
    return ATT_OK;
}
