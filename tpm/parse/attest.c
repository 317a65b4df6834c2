#include "tpm/parse/attest.h"

#include "attestd/base/slice.h"

#define NAME_MAX_LEN (2 + PARSE_DIGEST_MAX)
#define DATA_MAX     (2 + PARSE_DIGEST_MAX) /* TPM2B_DATA: Part 2 clause 10.4.3 */
#define PCR_SEL_MAX  16                     /* entries of a TPML_PCR_SELECTION */

enum att_rc parse_attest_header(struct att_slice bytes, uint32_t *ret_magic, uint16_t *ret_type,
                                struct att_err *err)
{
    struct att_cur cur = att_cur_init(bytes);
    uint32_t magic = att_cur_be32(&cur);
    uint16_t type = att_cur_be16(&cur);
    if (cur.failed) {
        return att_fail(err, ATT_E_PARSE, "attestation: %zu bytes have no magic and type",
                        bytes.len);
    }
    *ret_magic = magic;
    *ret_type = type;
    return ATT_OK;
}

/* The raw bytes of a TPML_PCR_SELECTION, walked but not judged. */
static struct att_slice take_pcr_selection(struct att_cur *cur)
{
    const uint8_t *from = cur->ptr;
    size_t before = cur->left;
    uint32_t count = att_cur_be32(cur);
    if (count > PCR_SEL_MAX) {
        cur->failed = true;
    }
    for (uint32_t i = 0; i < count && !cur->failed; i++) {
        (void)att_cur_be16(cur);
        uint8_t size = att_cur_u8(cur);
        (void)att_cur_take(cur, size);
    }
    return cur->failed ? (struct att_slice){NULL, 0} : ATT_SLICE(from, before - cur->left);
}

static void take_body(struct att_cur *cur, struct parse_attest *a)
{
    switch (a->type) {
    case PARSE_ATTEST_QUOTE:
        a->u.quote.pcr_select = take_pcr_selection(cur);
        a->u.quote.pcr_digest = att_cur_take_be16(cur, PARSE_DIGEST_MAX);
        break;
    case PARSE_ATTEST_CERTIFY:
        a->u.certify.name = att_cur_take_be16(cur, NAME_MAX_LEN);
        a->u.certify.qualified_name = att_cur_take_be16(cur, NAME_MAX_LEN);
        break;
    case PARSE_ATTEST_NV:
        a->u.nv.index_name = att_cur_take_be16(cur, NAME_MAX_LEN);
        a->u.nv.offset = att_cur_be16(cur);
        a->u.nv.contents = att_cur_take_be16(cur, PARSE_ATTEST_MAX);
        break;
    default:
        a->u.creation.object_name = att_cur_take_be16(cur, NAME_MAX_LEN);
        a->u.creation.creation_hash = att_cur_take_be16(cur, PARSE_DIGEST_MAX);
        break;
    }
}

static bool known_type(uint16_t type)
{
    return type == PARSE_ATTEST_QUOTE || type == PARSE_ATTEST_CERTIFY || type == PARSE_ATTEST_NV ||
           type == PARSE_ATTEST_CREATION;
}

static enum att_rc refuse(struct att_err *err, const char *reason, const char *what, uint32_t got)
{
    enum att_rc rc = att_fail(err, ATT_E_PARSE, "attestation: %s, it has 0x%x", what, got);
    att_err_reason(err, reason);
    return rc;
}

enum att_rc parse_attest_parse(struct att_slice bytes, struct parse_attest *ret_attest,
                               struct att_err *err)
{
    if (bytes.len > PARSE_ATTEST_MAX) {
        return att_fail(err, ATT_E_LIMIT, "attestation: %zu bytes, at most %d taken", bytes.len,
                        PARSE_ATTEST_MAX);
    }
    struct parse_attest a = {0};
    enum att_rc rc = parse_attest_header(bytes, &a.magic, &a.type, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (a.magic != PARSE_MAGIC) {
        return refuse(err, "magic", "magic is not TPM_GENERATED (0xff544347)", a.magic);
    }
    if (!known_type(a.type)) {
        return refuse(err, "type", "type is none of quote, certify, nv, creation", a.type);
    }
    struct att_cur cur = att_cur_init(ATT_SLICE(bytes.ptr + 6, bytes.len - 6));
    a.qualified_signer = att_cur_take_be16(&cur, NAME_MAX_LEN);
    a.extra_data = att_cur_take_be16(&cur, DATA_MAX);
    a.clock.clock = att_cur_be64(&cur);
    a.clock.reset_count = att_cur_be32(&cur);
    a.clock.restart_count = att_cur_be32(&cur);
    a.clock.safe = att_cur_u8(&cur);
    a.firmware_version = att_cur_be64(&cur);
    if (!cur.failed && a.clock.safe > 1) {
        return att_fail(err, ATT_E_PARSE, "attestation: safe is %u, not a TPMI_YES_NO",
                        a.clock.safe);
    }
    take_body(&cur, &a);
    if (cur.failed) {
        return att_fail(err, ATT_E_PARSE,
                        "attestation: a field is longer than what is left of %zu "
                        "bytes, or than a TPM writes",
                        bytes.len);
    }
    if (!att_cur_done(&cur)) {
        return att_fail(err, ATT_E_PARSE, "attestation: %zu bytes too many", cur.left);
    }
    *ret_attest = a;
    return ATT_OK;
}

enum att_rc parse_attest_quote(struct att_slice bytes, struct parse_attest *ret_attest,
                               struct att_err *err)
{
    uint32_t magic = 0;
    uint16_t type = 0;
    enum att_rc rc = parse_attest_header(bytes, &magic, &type, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (magic != PARSE_MAGIC) {
        return refuse(err, "quoteMagic", "magic is not TPM_GENERATED (0xff544347)", magic);
    }
    if (type != PARSE_ATTEST_QUOTE) {
        return refuse(err, "quoteType", "type is not TPM_ST_ATTEST_QUOTE (0x8018)", type);
    }
    return parse_attest_parse(bytes, ret_attest, err);
}

enum att_rc parse_attest_certify(struct att_slice bytes, struct parse_attest *ret_attest,
                                 struct att_err *err)
{
    uint32_t magic = 0;
    uint16_t type = 0;
    enum att_rc rc = parse_attest_header(bytes, &magic, &type, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (magic != PARSE_MAGIC) {
        return refuse(err, "certifyType", "magic is not TPM_GENERATED (0xff544347)", magic);
    }
    if (type != PARSE_ATTEST_CERTIFY) {
        return refuse(err, "certifyType", "type is not TPM_ST_ATTEST_CERTIFY (0x8017)", type);
    }
    return parse_attest_parse(bytes, ret_attest, err);
}

static void put_body(struct att_buf *buf, const struct parse_attest *a)
{
    switch (a->type) {
    case PARSE_ATTEST_QUOTE:
        att_buf_put_slice(buf, a->u.quote.pcr_select);
        att_buf_field_be16(buf, a->u.quote.pcr_digest);
        break;
    case PARSE_ATTEST_CERTIFY:
        att_buf_field_be16(buf, a->u.certify.name);
        att_buf_field_be16(buf, a->u.certify.qualified_name);
        break;
    case PARSE_ATTEST_NV:
        att_buf_field_be16(buf, a->u.nv.index_name);
        att_buf_be16(buf, a->u.nv.offset);
        att_buf_field_be16(buf, a->u.nv.contents);
        break;
    case PARSE_ATTEST_CREATION:
        att_buf_field_be16(buf, a->u.creation.object_name);
        att_buf_field_be16(buf, a->u.creation.creation_hash);
        break;
    default:
        break;
    }
}

enum att_rc parse_attest_encode(const struct parse_attest *attest, struct att_buf *ret_bytes,
                                struct att_err *err)
{
    att_buf_be32(ret_bytes, attest->magic);
    att_buf_be16(ret_bytes, attest->type);
    att_buf_field_be16(ret_bytes, attest->qualified_signer);
    att_buf_field_be16(ret_bytes, attest->extra_data);
    att_buf_be64(ret_bytes, attest->clock.clock);
    att_buf_be32(ret_bytes, attest->clock.reset_count);
    att_buf_be32(ret_bytes, attest->clock.restart_count);
    att_buf_u8(ret_bytes, attest->clock.safe);
    att_buf_be64(ret_bytes, attest->firmware_version);
    put_body(ret_bytes, attest);
    return att_buf_ok(ret_bytes, err);
}

enum att_rc parse_attest_unwrap(struct att_slice tpm2b, struct att_slice *ret_bytes,
                                struct att_err *err)
{
    struct att_cur cur = att_cur_init(tpm2b);
    struct att_slice bytes = att_cur_take_be16(&cur, PARSE_ATTEST_MAX);
    if (!att_cur_done(&cur)) {
        return att_fail(err, ATT_E_PARSE, "TPM2B_ATTEST: its size is not that of its %zu bytes",
                        tpm2b.len);
    }
    *ret_bytes = bytes;
    return ATT_OK;
}
