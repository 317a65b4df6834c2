#include "tpm/parse/name.h"

#include "attestd/base/hash.h"
#include "tpm/parse/public.h"

#include <string.h>

#define CHAIN_MAX 8

struct att_slice parse_name_slice(const struct parse_name *name)
{
    return (struct att_slice){name->bytes, name->len};
}

/* ret = alg and H_alg(parts). */
static enum att_rc hash_name(uint16_t alg, const struct att_slice *parts, size_t n,
                             struct parse_name *ret, struct att_err *err)
{
    const char *hash = parse_alg_openssl_name(alg);
    if (!hash) {
        return att_fail(err, ATT_E_UNSUPPORTED, "name: 0x%04x is not a hash algorithm", alg);
    }
    uint8_t digest[ATT_HASH_MAX];
    size_t len = 0;
    enum att_rc rc = att_hash_v(hash, digest, &len, parts, n, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct parse_name name = {.len = 2 + len};
    name.bytes[0] = (uint8_t)(alg >> 8);
    name.bytes[1] = (uint8_t)alg;
    memcpy(name.bytes + 2, digest, len);
    *ret = name;
    return ATT_OK;
}

enum att_rc parse_name_of_area(struct att_slice area, struct parse_name *ret_name,
                               struct att_err *err)
{
    struct parse_public pub;
    enum att_rc rc = parse_public_parse(area, &pub, err);
    if (rc != ATT_OK) {
        return rc;
    }
    /* Part 1 clause 16: nameAlg and H_nameAlg(publicArea) */
    return hash_name(pub.name_alg, &area, 1, ret_name, err);
}

enum att_rc parse_name_parse(struct att_slice bytes, struct parse_name *ret_name,
                             struct att_err *err)
{
    struct att_cur cur = att_cur_init(bytes);
    uint16_t alg = att_cur_be16(&cur);
    size_t len = parse_alg_digest_len(alg);
    if (cur.failed || len == 0) {
        return att_fail(err, ATT_E_PARSE, "name: does not begin with a hash algorithm");
    }
    if (cur.left != len) {
        return att_fail(err, ATT_E_PARSE, "name: %zu digest bytes where %s has %zu", cur.left,
                        parse_alg_name(alg), len);
    }
    struct parse_name name = {.len = bytes.len};
    memcpy(name.bytes, bytes.ptr, bytes.len);
    *ret_name = name;
    return ATT_OK;
}

enum att_rc parse_name_qualified(uint32_t hierarchy, const struct parse_name *chain, size_t n,
                                 struct parse_name *ret_name, struct att_err *err)
{
    if (n == 0 || n > CHAIN_MAX) {
        return att_fail(err, ATT_E_INVAL, "qualified name: a chain of %zu objects, not 1…%d", n,
                        CHAIN_MAX);
    }
    struct parse_name qn = {.len = 4};
    for (size_t i = 0; i < 4; i++) {
        qn.bytes[i] = (uint8_t)(hierarchy >> (24 - 8 * i));
    }
    for (size_t i = 0; i < n; i++) {
        struct parse_name checked;
        enum att_rc rc = parse_name_parse(parse_name_slice(&chain[i]), &checked, err);
        if (rc != ATT_OK) {
            return rc;
        }
        /* Part 1 clause 26.5: QN_B = nameAlg_B ‖ H_B(QN_A ‖ NAME_B) */
        struct att_slice parts[] = {parse_name_slice(&qn), parse_name_slice(&checked)};
        struct parse_name next;
        rc = hash_name((uint16_t)(checked.bytes[0] << 8 | checked.bytes[1]), parts, 2, &next, err);
        if (rc != ATT_OK) {
            return rc;
        }
        qn = next;
    }
    *ret_name = qn;
    return ATT_OK;
}
