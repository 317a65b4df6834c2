#include "provision/evidence/attobj.h"

#include "provision/evidence/cbor.h"

#include <string.h>

/* Both in deterministic order: shorter names first, then bytewise. */
enum { FMT, ATT_STMT, OUTER };
static const char *const outer[OUTER] = {"fmt", "attStmt"};
enum { ALG, SIG, VER, X5C, SPKI, PUB_AREA, CERT_INFO, ATTRIBUTES, MEMBERS };
static const char *const members[MEMBERS] = {"alg",  "sig",     "ver",      "x5c",
                                             "spki", "pubArea", "certInfo", "attributes"};

#define BIT(member) (1u << (member))
/* What a format's attStmt has: all of it, nothing else. */
static const struct {
    const char *name, *version;
    unsigned members;
} formats[] = {
    [EVIDENCE_FMT_TPM] = {"tpm", "2.0",
                          BIT(ALG) | BIT(SIG) | BIT(VER) | BIT(X5C) | BIT(PUB_AREA) |
                              BIT(CERT_INFO)},
    [EVIDENCE_FMT_HOST] = {"attestd-host", "1.0", BIT(VER) | BIT(X5C) | BIT(SPKI)},
    [EVIDENCE_FMT_HSM] = {"attestd-hsm", "1.0",
                          BIT(ALG) | BIT(SIG) | BIT(VER) | BIT(X5C) | BIT(SPKI) | BIT(ATTRIBUTES)},
};
#define FORMATS (sizeof formats / sizeof formats[0])

const char *evidence_fmt_name(enum evidence_fmt fmt)
{
    return (size_t)fmt < FORMATS ? formats[fmt].name : "none";
}

static bool has(const struct evidence_attobj *attobj, unsigned member)
{
    return (formats[attobj->fmt].members & BIT(member)) != 0;
}

static void put_member(const struct evidence_attobj *attobj, unsigned member,
                       struct att_buf *ret_cbor)
{
    switch (member) {
    case ALG:
        evidence_cbor_put_int(ret_cbor, attobj->alg);
        break;
    case SIG:
        evidence_cbor_put_bytes(ret_cbor, attobj->sig);
        break;
    case VER:
        evidence_cbor_put_text(ret_cbor, formats[attobj->fmt].version);
        break;
    case X5C:
        evidence_cbor_put_array(ret_cbor, attobj->x5c_len);
        for (size_t i = 0; i < attobj->x5c_len; i++) {
            evidence_cbor_put_bytes(ret_cbor, attobj->x5c[i]);
        }
        break;
    case SPKI:
        evidence_cbor_put_bytes(ret_cbor, attobj->spki);
        break;
    case PUB_AREA:
        evidence_cbor_put_bytes(ret_cbor, attobj->pub_area);
        break;
    case ATTRIBUTES:
        evidence_cbor_put_bytes(ret_cbor, attobj->attributes);
        break;
    default:
        evidence_cbor_put_bytes(ret_cbor, attobj->cert_info);
        break;
    }
}

static void put(const struct evidence_attobj *attobj, struct att_buf *ret_cbor)
{
    evidence_cbor_put_map(ret_cbor, OUTER);
    evidence_cbor_put_text(ret_cbor, outer[FMT]);
    evidence_cbor_put_text(ret_cbor, formats[attobj->fmt].name);
    evidence_cbor_put_text(ret_cbor, outer[ATT_STMT]);
    size_t n = 0;
    for (unsigned i = 0; i < MEMBERS; i++) {
        n += has(attobj, i);
    }
    evidence_cbor_put_map(ret_cbor, n);
    for (unsigned i = 0; i < MEMBERS; i++) {
        if (has(attobj, i)) {
            evidence_cbor_put_text(ret_cbor, members[i]);
            put_member(attobj, i, ret_cbor);
        }
    }
}

static enum att_rc check_x5c(const struct evidence_attobj *attobj, enum att_rc code,
                             struct att_err *err)
{
    if (attobj->x5c_len == 0 || attobj->x5c_len > EVIDENCE_X5C_MAX) {
        return att_fail(err, code, "x5c: expected 1 … %d certificates, found %zu", EVIDENCE_X5C_MAX,
                        attobj->x5c_len);
    }
    for (size_t i = 0; i < attobj->x5c_len; i++) {
        if (attobj->x5c[i].len == 0 || attobj->x5c[i].len > EVIDENCE_CERT_MAX) {
            return att_fail(err, code, "x5c: certificate %zu has %zu bytes", i, attobj->x5c[i].len);
        }
    }
    return ATT_OK;
}

/* What the parser would refuse is not sent either. */
static enum att_rc check(const struct evidence_attobj *attobj, enum att_rc code,
                         struct att_err *err)
{
    if ((size_t)attobj->fmt >= FORMATS) {
        return att_fail(err, code, "fmt: %d is none", (int)attobj->fmt);
    }
    int rsa = attobj->fmt == EVIDENCE_FMT_HSM ? EVIDENCE_COSE_PS256 : EVIDENCE_COSE_RS256;
    if (has(attobj, ALG) && attobj->alg != EVIDENCE_COSE_ES256 && attobj->alg != rsa) {
        return att_fail(err, code, "alg: expected -7 or %d, found %d", rsa, attobj->alg);
    }
    enum att_rc rc = check_x5c(attobj, code, err);
    const struct {
        unsigned member;
        const struct att_slice *bytes;
        size_t max;
    } parts[] = {{SIG, &attobj->sig, EVIDENCE_TPM_MAX},
                 {SPKI, &attobj->spki, EVIDENCE_SPKI_MAX},
                 {PUB_AREA, &attobj->pub_area, EVIDENCE_TPM_MAX},
                 {CERT_INFO, &attobj->cert_info, EVIDENCE_TPM_MAX},
                 {ATTRIBUTES, &attobj->attributes, EVIDENCE_HSM_ATTRS_MAX}};
    for (size_t i = 0; rc == ATT_OK && i < sizeof parts / sizeof parts[0]; i++) {
        size_t len = parts[i].bytes->len;
        if (has(attobj, parts[i].member) ? len == 0 || len > parts[i].max : len > 0) {
            rc = att_fail(err, code, "%s: %zu bytes, expected %s%zu in fmt %s",
                          members[parts[i].member], len, has(attobj, parts[i].member) ? "1 … " : "",
                          has(attobj, parts[i].member) ? parts[i].max : 0,
                          formats[attobj->fmt].name);
        }
    }
    return rc;
}

enum att_rc evidence_attobj_encode(const struct evidence_attobj *attobj, struct att_buf *ret_cbor,
                                   struct att_err *err)
{
    enum att_rc rc = check(attobj, ATT_E_INVAL, err);
    if (rc != ATT_OK) {
        return rc;
    }
    put(attobj, ret_cbor);
    return att_buf_ok(ret_cbor, err);
}

static enum att_rc take_x5c(struct evidence_cbor *cbor, struct evidence_attobj *attobj,
                            struct att_err *err)
{
    enum att_rc rc = evidence_cbor_array(cbor, "x5c", EVIDENCE_X5C_MAX, &attobj->x5c_len, err);
    for (size_t i = 0; rc == ATT_OK && i < attobj->x5c_len; i++) {
        rc = evidence_cbor_bytes(cbor, "x5c certificate", EVIDENCE_CERT_MAX, &attobj->x5c[i], err);
    }
    return rc;
}

static enum att_rc take_literal(struct evidence_cbor *cbor, const char *what, const char *literal,
                                struct att_err *err)
{
    char text[32];
    enum att_rc rc = evidence_cbor_text(cbor, what, text, sizeof text, err);
    if (rc == ATT_OK && strcmp(text, literal) != 0) {
        rc = att_fail(err, ATT_E_PARSE, "%s: expected \"%s\", found \"%s\"", what, literal, text);
    }
    return rc;
}

static enum att_rc take_member(struct evidence_cbor *cbor, size_t member,
                               struct evidence_attobj *attobj, struct att_err *err)
{
    int32_t alg = 0;
    enum att_rc rc;
    switch (member) {
    case ALG:
        rc = evidence_cbor_int(cbor, "alg", 1 << 16, &alg, err);
        attobj->alg = alg;
        return rc;
    case SIG:
        return evidence_cbor_bytes(cbor, "sig", EVIDENCE_TPM_MAX, &attobj->sig, err);
    case VER:
        return take_literal(cbor, "ver", formats[attobj->fmt].version, err);
    case X5C:
        return take_x5c(cbor, attobj, err);
    case SPKI:
        return evidence_cbor_bytes(cbor, "spki", EVIDENCE_SPKI_MAX, &attobj->spki, err);
    case ATTRIBUTES:
        return evidence_cbor_bytes(cbor, "attributes", EVIDENCE_HSM_ATTRS_MAX, &attobj->attributes,
                                   err);
    case PUB_AREA:
        return evidence_cbor_bytes(cbor, "pubArea", EVIDENCE_TPM_MAX, &attobj->pub_area, err);
    default:
        return evidence_cbor_bytes(cbor, "certInfo", EVIDENCE_TPM_MAX, &attobj->cert_info, err);
    }
}

static enum att_rc take_statement(struct evidence_cbor *cbor, struct evidence_attobj *attobj,
                                  struct att_err *err)
{
    size_t n = 0, member = 0;
    unsigned seen = 0;
    enum att_rc rc = evidence_cbor_map(cbor, "attStmt", MEMBERS, &n, err);
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        rc = evidence_cbor_key(cbor, "attStmt", members, MEMBERS, &seen, &member, err);
        if (rc == ATT_OK && !has(attobj, (unsigned)member)) {
            rc = att_fail(err, ATT_E_PARSE, "attStmt: \"%s\" is no member of fmt %s",
                          members[member], formats[attobj->fmt].name);
        }
        if (rc == ATT_OK) {
            rc = take_member(cbor, member, attobj, err);
        }
    }
    return rc == ATT_OK
               ? evidence_cbor_have("attStmt", members, formats[attobj->fmt].members, seen, err)
               : rc;
}

static enum att_rc take_format(struct evidence_cbor *cbor, enum evidence_fmt *ret_fmt,
                               struct att_err *err)
{
    char text[32];
    enum att_rc rc = evidence_cbor_text(cbor, "fmt", text, sizeof text, err);
    for (size_t i = 0; rc == ATT_OK && i < FORMATS; i++) {
        if (strcmp(text, formats[i].name) == 0) {
            *ret_fmt = (enum evidence_fmt)i;
            return ATT_OK;
        }
    }
    return rc == ATT_OK ? att_fail(err, ATT_E_PARSE, "fmt: \"%s\" is none known here", text) : rc;
}

/* ordered: fmt comes before what depends on it; else attStmt is read as fmt "tpm"'s. */
static enum att_rc take_outer(struct evidence_cbor *cbor, bool ordered,
                              struct evidence_attobj *attobj, struct att_err *err)
{
    size_t n = 0, member = 0;
    unsigned seen = 0;
    enum att_rc rc = evidence_cbor_map(cbor, "attObj", OUTER, &n, err);
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        rc = evidence_cbor_key(cbor, "attObj", outer, OUTER, &seen, &member, err);
        if (rc == ATT_OK && ordered && member == ATT_STMT && !(seen & BIT(FMT))) {
            rc = att_fail(err, ATT_E_PARSE, "attObj: expected \"fmt\" first");
        }
        if (rc == ATT_OK) {
            rc = member == FMT ? take_format(cbor, &attobj->fmt, err)
                               : take_statement(cbor, attobj, err);
        }
    }
    if (rc == ATT_OK) {
        rc = evidence_cbor_have("attObj", outer, (1u << OUTER) - 1, seen, err);
    }
    return rc == ATT_OK ? evidence_cbor_end(cbor, "attObj", err) : rc;
}

static enum att_rc read_all(struct att_slice cbor, bool ordered, struct evidence_attobj *attobj,
                            struct att_err *err)
{
    if (cbor.len > EVIDENCE_ATTOBJ_MAX) {
        return att_fail(err, ATT_E_LIMIT, "attObj: %zu bytes, at most %zu", cbor.len,
                        EVIDENCE_ATTOBJ_MAX);
    }
    struct evidence_cbor reader = {cbor};
    enum att_rc rc = take_outer(&reader, ordered, attobj, err);
    return rc == ATT_OK ? check(attobj, ATT_E_PARSE, err) : rc;
}

enum att_rc evidence_attobj_parse_standard(struct att_slice cbor,
                                           struct evidence_attobj *ret_attobj, struct att_err *err)
{
    struct evidence_attobj attobj = {.fmt = EVIDENCE_FMT_TPM};
    enum att_rc rc = read_all(cbor, false, &attobj, err);
    if (rc == ATT_OK && attobj.fmt != EVIDENCE_FMT_TPM) {
        rc = att_fail(err, ATT_E_PARSE, "fmt: expected \"tpm\", found \"%s\"",
                      formats[attobj.fmt].name);
    }
    if (rc == ATT_OK) {
        *ret_attobj = attobj;
    }
    return rc;
}

enum att_rc evidence_attobj_parse(struct att_slice cbor, struct evidence_attobj *ret_attobj,
                                  struct att_err *err)
{
    struct evidence_attobj attobj = {0};
    enum att_rc rc = read_all(cbor, true, &attobj, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autobuf again = ATT_BUF_INIT(EVIDENCE_ATTOBJ_MAX + 1024);
    put(&attobj, &again);
    if (!att_slice_eq(att_buf_slice(&again), cbor)) {
        return att_fail(err, ATT_E_PARSE, "attObj: not the deterministic encoding");
    }
    *ret_attobj = attobj;
    return ATT_OK;
}
