#include "provision/evidence/hsmattrs.h"

#include "provision/evidence/cbor.h"

/* In the order of deterministic CBOR: shorter names first, then bytewise. */
static const struct {
    const char *name;
    enum evidence_hsm_attr attr;
} order[EVIDENCE_HSM_COUNT] = {
    {"sign", EVIDENCE_HSM_SIGN},
    {"local", EVIDENCE_HSM_LOCAL},
    {"token", EVIDENCE_HSM_TOKEN},
    {"derive", EVIDENCE_HSM_DERIVE},
    {"unwrap", EVIDENCE_HSM_UNWRAP},
    {"decrypt", EVIDENCE_HSM_DECRYPT},
    {"private", EVIDENCE_HSM_PRIVATE},
    {"copyable", EVIDENCE_HSM_COPYABLE},
    {"sensitive", EVIDENCE_HSM_SENSITIVE},
    {"modifiable", EVIDENCE_HSM_MODIFIABLE},
    {"extractable", EVIDENCE_HSM_EXTRACTABLE},
    {"alwaysSensitive", EVIDENCE_HSM_ALWAYS_SENSITIVE},
    {"neverExtractable", EVIDENCE_HSM_NEVER_EXTRACTABLE},
};

#define ALL       ((1u << EVIDENCE_HSM_COUNT) - 1)
#define BIT(attr) (1u << EVIDENCE_HSM_##attr)
#define MUST                                                                                       \
    (BIT(LOCAL) | BIT(ALWAYS_SENSITIVE) | BIT(NEVER_EXTRACTABLE) | BIT(SENSITIVE) | BIT(TOKEN) |   \
     BIT(PRIVATE) | BIT(SIGN))
#define MUST_BE_TOLD (MUST | BIT(EXTRACTABLE))
#define MUST_NOT     (BIT(EXTRACTABLE) | BIT(DECRYPT) | BIT(UNWRAP) | BIT(DERIVE))

enum att_rc evidence_hsm_attrs_encode(const struct evidence_hsm_attrs *attrs,
                                      struct att_buf *ret_cbor, struct att_err *err)
{
    if ((attrs->stated & ~ALL) || (attrs->holds & ~attrs->stated)) {
        return att_fail(err, ATT_E_INVAL, "attributes of a key: stated %#x, true %#x",
                        attrs->stated, attrs->holds);
    }
    evidence_cbor_put_map(ret_cbor, (size_t)__builtin_popcount(attrs->stated));
    for (size_t i = 0; i < EVIDENCE_HSM_COUNT; i++) {
        if (attrs->stated >> order[i].attr & 1) {
            evidence_cbor_put_text(ret_cbor, order[i].name);
            evidence_cbor_put_bool(ret_cbor, attrs->holds >> order[i].attr & 1);
        }
    }
    return att_buf_ok(ret_cbor, err);
}

enum att_rc evidence_hsm_attrs_parse(struct att_slice bytes, struct evidence_hsm_attrs *ret_attrs,
                                     struct att_err *err)
{
    const char *names[EVIDENCE_HSM_COUNT];
    struct evidence_hsm_attrs attrs = {0, 0};
    struct evidence_cbor cbor = {bytes};
    size_t n = 0, index = 0, next = 0;
    unsigned seen = 0;
    for (size_t i = 0; i < EVIDENCE_HSM_COUNT; i++) {
        names[i] = order[i].name;
    }
    if (bytes.len > EVIDENCE_HSM_ATTRS_MAX) {
        return att_fail(err, ATT_E_LIMIT, "attributes: %zu bytes, at most %zu", bytes.len,
                        EVIDENCE_HSM_ATTRS_MAX);
    }
    enum att_rc rc = evidence_cbor_map(&cbor, "attributes", EVIDENCE_HSM_COUNT, &n, err);
    for (size_t i = 0; rc == ATT_OK && i < n; i++) {
        bool value = false;
        rc = evidence_cbor_key(&cbor, "attributes", names, EVIDENCE_HSM_COUNT, &seen, &index, err);
        if (rc == ATT_OK && index < next) { /* the bytes are signed: there is one form of them */
            rc = att_fail(err, ATT_E_PARSE, "attributes: \"%s\" is out of order", names[index]);
        }
        next = index + 1;
        if (rc == ATT_OK) {
            rc = evidence_cbor_bool(&cbor, names[index], &value, err);
        }
        if (rc == ATT_OK) {
            attrs.stated |= 1u << order[index].attr;
            attrs.holds |= value ? 1u << order[index].attr : 0;
        }
    }
    if (rc == ATT_OK) {
        rc = evidence_cbor_end(&cbor, "attributes", err);
    }
    att_autobuf again = ATT_BUF_INIT(EVIDENCE_HSM_ATTRS_MAX);
    if (rc == ATT_OK) { /* lengths have longer forms, too */
        rc = evidence_hsm_attrs_encode(&attrs, &again, err);
    }
    if (rc == ATT_OK && !att_slice_eq(att_buf_slice(&again), bytes)) {
        rc = att_fail(err, ATT_E_PARSE, "attributes: not in their shortest form");
    }
    if (rc == ATT_OK) {
        *ret_attrs = attrs;
    }
    return rc;
}

enum att_rc evidence_hsm_attrs_check(const struct evidence_hsm_attrs *attrs, struct att_err *err)
{
    for (size_t i = 0; i < EVIDENCE_HSM_COUNT; i++) {
        uint32_t bit = 1u << order[i].attr;
        bool told = (attrs->stated & bit) != 0, holds = (attrs->holds & bit) != 0;
        bool wants = (MUST & bit) != 0;
        if (((MUST_BE_TOLD & bit) && !told) || (wants && !holds) || ((MUST_NOT & bit) && holds)) {
            return att_fail(err, ATT_E_DENIED, "the module %s that %s is %s, expected %s",
                            told ? "states" : "does not state", order[i].name,
                            !told   ? "anything"
                            : holds ? "true"
                                    : "false",
                            wants ? "true" : "false");
        }
    }
    return ATT_OK;
}
