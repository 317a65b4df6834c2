#include "certs/san.h"

#include "certs/der.h"
#include "certs/oid.h"

#include <openssl/x509v3.h>
#include <string.h>

#define SCHEME "spiffe://"

static bool is_lower_or_digit(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_mark(uint8_t c)
{
    return c == '.' || c == '-' || c == '_';
}

/* SPIFFE-ID §2.1 */
enum att_rc certs_trust_domain_check(struct att_slice text, struct att_err *err)
{
    if (text.len == 0 || text.len > CERTS_TRUST_DOMAIN_MAX) {
        return att_fail(err, ATT_E_PARSE, "trust domain of %zu bytes, expected 1 … %d", text.len,
                        CERTS_TRUST_DOMAIN_MAX);
    }
    for (size_t i = 0; i < text.len; i++) {
        if (!is_lower_or_digit(text.ptr[i]) && !is_mark(text.ptr[i])) {
            return att_fail(err, ATT_E_PARSE,
                            "trust domain: expected only a-z 0-9 . - _, found byte 0x%02x at %zu",
                            text.ptr[i], i);
        }
    }
    return ATT_OK;
}

/* SPIFFE-ID §2.2; path starts with '/' or is empty. */
static enum att_rc path_check(struct att_slice path, struct att_err *err)
{
    size_t start = 1;
    if (path.len == 0) {
        return ATT_OK;
    }
    for (size_t i = 1; i <= path.len; i++) {
        if (i < path.len && path.ptr[i] != '/') {
            uint8_t c = path.ptr[i];
            if (!is_lower_or_digit(c) && !(c >= 'A' && c <= 'Z') && !is_mark(c)) {
                return att_fail(err, ATT_E_PARSE,
                                "SPIFFE ID path: expected only a-z A-Z 0-9 . - _, found byte "
                                "0x%02x",
                                c);
            }
            continue;
        }
        struct att_slice segment = {path.ptr + start, i - start};
        if (segment.len == 0) {
            return att_fail(err, ATT_E_PARSE, "SPIFFE ID path: empty segment or trailing slash");
        }
        if (att_slice_eq_str(segment, ".") || att_slice_eq_str(segment, "..")) {
            return att_fail(err, ATT_E_PARSE, "SPIFFE ID path: \".\" or \"..\" as a segment");
        }
        start = i + 1;
    }
    return ATT_OK;
}

enum att_rc certs_spiffe_parse(struct att_slice text, struct certs_spiffe_id *ret_id,
                               struct att_err *err)
{
    const size_t head = sizeof SCHEME - 1;
    if (text.len > CERTS_SPIFFE_ID_MAX) {
        return att_fail(err, ATT_E_LIMIT, "SPIFFE ID of %zu bytes, expected at most %d", text.len,
                        CERTS_SPIFFE_ID_MAX);
    }
    if (text.len <= head || memcmp(text.ptr, SCHEME, head) != 0) {
        return att_fail(err, ATT_E_PARSE, "expected a SPIFFE ID, " SCHEME "<trust domain>/<path>");
    }
    struct att_slice rest = {text.ptr + head, text.len - head};
    const uint8_t *slash = memchr(rest.ptr, '/', rest.len);
    size_t td_len = slash ? (size_t)(slash - rest.ptr) : rest.len;
    struct certs_spiffe_id id = {{rest.ptr, td_len}, {rest.ptr + td_len, rest.len - td_len}};
    enum att_rc rc = certs_trust_domain_check(id.trust_domain, err);
    if (rc == ATT_OK) {
        rc = path_check(id.path, err);
    }
    if (rc == ATT_OK) {
        *ret_id = id;
    }
    return rc;
}

enum att_rc certs_agent_name_check(struct att_slice name, struct att_err *err)
{
    bool ok = name.len > 0 && name.len <= CERTS_AGENT_NAME_MAX && is_lower_or_digit(name.ptr[0]);
    for (size_t i = 0; ok && i < name.len; i++) {
        ok = is_lower_or_digit(name.ptr[i]) || is_mark(name.ptr[i]);
    }
    return ok ? ATT_OK
              : att_fail(err, ATT_E_PARSE,
                         "expected a name of [a-z0-9][a-z0-9._-]{0,63}, found %zu bytes that are "
                         "not one",
                         name.len);
}

enum att_rc certs_spiffe_agent(struct att_buf *ret_text, const char *trust_domain, const char *name,
                               struct att_err *err)
{
    enum att_rc rc = certs_trust_domain_check(att_slice_str(trust_domain), err);
    if (rc == ATT_OK) {
        rc = certs_agent_name_check(att_slice_str(name), err);
    }
    if (rc != ATT_OK) {
        return rc;
    }
    att_buf_printf(ret_text, SCHEME "%s/agent/%s", trust_domain, name);
    return att_buf_ok(ret_text, err);
}

enum att_rc certs_spiffe_agent_name(struct att_slice text, const char *trust_domain,
                                    struct att_slice *ret_name, struct att_err *err)
{
    static const char prefix[] = "/agent/";
    const size_t head = sizeof prefix - 1;
    struct certs_spiffe_id id = {0};
    enum att_rc rc = certs_spiffe_parse(text, &id, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (!att_slice_eq_str(id.trust_domain, trust_domain)) {
        return att_fail(err, ATT_E_DENIED, "trust domain \"%.*s\", ours is \"%s\"",
                        (int)id.trust_domain.len, (const char *)id.trust_domain.ptr, trust_domain);
    }
    if (id.path.len <= head || memcmp(id.path.ptr, prefix, head) != 0) {
        return att_fail(err, ATT_E_PARSE, "expected the path /agent/<name>");
    }
    struct att_slice name = {id.path.ptr + head, id.path.len - head};
    rc = certs_agent_name_check(name, err);
    if (rc == ATT_OK) {
        *ret_name = name;
    }
    return rc;
}

static enum att_rc one_uri(const GENERAL_NAMES *names, struct att_slice *ret, struct att_err *err)
{
    int found = 0;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type == GEN_URI) {
            const ASN1_IA5STRING *uri = name->d.uniformResourceIdentifier;
            *ret = ATT_SLICE(ASN1_STRING_get0_data(uri), (size_t)ASN1_STRING_length(uri));
            found++;
        }
    }
    if (found != 1) {
        return att_fail(err, ATT_E_PARSE, "expected exactly one URI SAN, found %d", found);
    }
    return ATT_OK;
}

enum att_rc certs_san_spiffe(const X509 *cert, struct att_buf *ret_text, struct att_err *err)
{
    int crit = -1; /* -2: the extension stands there twice */
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, &crit, NULL);
    if (!names) {
        return att_fail(err, ATT_E_PARSE, "%s subject alternative name in the certificate",
                        crit == -1 ? "no" : "not exactly one readable");
    }
    struct att_slice uri = {0};
    struct certs_spiffe_id id;
    enum att_rc rc = one_uri(names, &uri, err);
    if (rc == ATT_OK) {
        rc = certs_spiffe_parse(uri, &id, err);
    }
    if (rc == ATT_OK && id.path.len == 0) { /* X509-SVID §5.2: a leaf's id has a path */
        rc = att_fail(err, ATT_E_PARSE, "a leaf's SPIFFE ID must have a path");
    }
    if (rc == ATT_OK) {
        att_buf_put_slice(ret_text, uri);
        rc = att_buf_ok(ret_text, err);
    }
    GENERAL_NAMES_free(names);
    return rc;
}

enum att_rc certs_identifier_check(struct att_slice text, struct att_err *err)
{
    size_t i = 0;
    while (i < text.len && text.ptr[i] > ' ' && text.ptr[i] <= '~' && text.ptr[i] != '/') {
        i++;
    }
    return text.len > 0 && i == text.len && text.len <= CERTS_IDENTIFIER_MAX
               ? ATT_OK
               : att_fail(err, ATT_E_INVAL,
                          "permanent identifier: expected 1 … %d printable characters without "
                          "space and /",
                          CERTS_IDENTIFIER_MAX);
}

/* PermanentIdentifier ::= SEQUENCE { identifierValue UTF8String OPTIONAL, assigner OBJECT
 * IDENTIFIER OPTIONAL }. False: the name is of another kind. */
static bool permanent_value(const GENERAL_NAME *name, struct att_slice *ret)
{
    ASN1_OBJECT *oid = NULL;
    ASN1_TYPE *value = NULL;
    *ret = ATT_SLICE(NULL, 0);
    if (name->type != GEN_OTHERNAME || GENERAL_NAME_get0_otherName(name, &oid, &value) != 1 ||
        !certs_oid_is(oid, CERTS_OID_PERMANENT_ID)) {
        return false;
    }
    if (ASN1_TYPE_get(value) != V_ASN1_SEQUENCE) {
        return true;
    }
    const ASN1_STRING *seq = value->value.sequence;
    struct att_cur cur =
        att_cur_init(ATT_SLICE(ASN1_STRING_get0_data(seq), (size_t)ASN1_STRING_length(seq)));
    struct att_cur in = att_cur_init(certs_der_take(&cur, DER_SEQUENCE));
    struct att_slice text = certs_der_take(&in, DER_UTF8);
    if (!in.failed && !cur.failed) {
        *ret = text;
    }
    return true;
}

enum att_rc certs_san_is_permanent(const X509 *cert, const char *identifier, struct att_err *err)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    struct att_slice value = {0};
    char found[64] = "";
    int n = 0;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        struct att_slice one;
        if (permanent_value(sk_GENERAL_NAME_value(names, i), &one)) {
            value = one;
            n++;
        }
    }
    enum att_rc rc = ATT_OK;
    if (n != 1) {
        rc = att_fail(err, ATT_E_AUTH, "the certificate has %d permanent identifiers, expected 1",
                      n);
    } else if (!att_slice_eq_str(value, identifier)) {
        size_t len = value.len < sizeof found ? value.len : sizeof found - 1;
        memcpy(found, value.ptr ? (const char *)value.ptr : "", value.ptr ? len : 0);
        rc = att_fail(err, ATT_E_AUTH, "the certificate is for %s, ordered was %.80s", found,
                      identifier);
    }
    if (rc != ATT_OK) {
        att_err_reason(err, "chainSan");
    }
    GENERAL_NAMES_free(names);
    return rc;
}
