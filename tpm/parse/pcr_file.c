#include "tpm/parse/pcr_file.h"

#include <string.h>

#define SELECTIONS     16 /* TPM2_NUM_PCR_BANKS */
#define SELECTION_LEN  8  /* hash, sizeofSelect, 4 bytes of bits, one of padding */
#define LIST_DIGESTS   8
#define DIGEST_ROOM    64 /* sizeof(TPMU_HA) */
#define HEAD_LEN       (4 + SELECTIONS * SELECTION_LEN + 4)
#define LIST_LEN       (4 + LIST_DIGESTS * (2 + DIGEST_ROOM))
#define SELECTION_MASK 3 /* bytes of the bit map that are used */

static void le16(struct att_buf *buf, uint16_t v)
{
    att_buf_u8(buf, (uint8_t)(v & 0xff));
    att_buf_u8(buf, (uint8_t)(v >> 8));
}

static void le32(struct att_buf *buf, uint32_t v)
{
    le16(buf, (uint16_t)(v & 0xffff));
    le16(buf, (uint16_t)(v >> 16));
}

static void zeroes(struct att_buf *buf, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        att_buf_u8(buf, 0);
    }
}

static void put_selection(struct att_buf *buf, const struct parse_pcr_sel *sel)
{
    le32(buf, 1);
    le16(buf, sel->bank);
    att_buf_u8(buf, SELECTION_MASK);
    for (unsigned i = 0; i < SELECTION_MASK; i++) {
        att_buf_u8(buf, (uint8_t)(sel->mask >> (8 * i) & 0xff));
    }
    zeroes(buf, 2 + (SELECTIONS - 1) * SELECTION_LEN);
}

static unsigned count_of(uint32_t mask)
{
    return (unsigned)__builtin_popcount(mask);
}

static void put_digests(struct att_buf *buf, const struct parse_pcr_set *set)
{
    unsigned left = count_of(set->sel.mask), lists = (left + LIST_DIGESTS - 1) / LIST_DIGESTS;
    le32(buf, lists);
    unsigned pcr = 0;
    for (unsigned list = 0; list < lists; list++) {
        unsigned here = left < LIST_DIGESTS ? left : LIST_DIGESTS;
        le32(buf, here);
        for (unsigned i = 0; i < here; i++, pcr++) {
            while ((set->sel.mask & (1U << pcr)) == 0) {
                pcr++;
            }
            le16(buf, (uint16_t)set->digest_len);
            att_buf_put(buf, set->value[pcr], set->digest_len);
            zeroes(buf, DIGEST_ROOM - set->digest_len);
        }
        zeroes(buf, (LIST_DIGESTS - here) * (2 + DIGEST_ROOM));
        left -= here;
    }
}

enum att_rc parse_pcr_file_encode(const struct parse_pcr_set *set, struct att_buf *ret_bytes,
                                  struct att_err *err)
{
    if (set->sel.mask == 0 || set->sel.mask >> PARSE_PCR_COUNT != 0 ||
        set->digest_len != parse_alg_digest_len(set->sel.bank) || set->digest_len == 0) {
        return att_fail(err, ATT_E_INVAL, "PCR file: not a set of PCR values");
    }
    put_selection(ret_bytes, &set->sel);
    put_digests(ret_bytes, set);
    return att_buf_ok(ret_bytes, err);
}

enum att_rc parse_pcr_file_parse(struct att_slice bytes, const struct parse_pcr_sel *want,
                                 struct parse_pcr_set *ret_set, struct att_err *err)
{
    struct parse_pcr_set set = {.sel = *want, .digest_len = parse_alg_digest_len(want->bank)};
    unsigned n = count_of(want->mask);
    size_t lists = (n + LIST_DIGESTS - 1) / LIST_DIGESTS;
    if (bytes.len != HEAD_LEN + lists * LIST_LEN || set.digest_len == 0 ||
        set.digest_len > DIGEST_ROOM) {
        return att_fail(err, ATT_E_PARSE, "PCR file: %zu bytes, expected %zu for %u PCRs",
                        bytes.len, HEAD_LEN + lists * LIST_LEN, n);
    }
    unsigned pcr = 0;
    for (unsigned i = 0; i < n; i++, pcr++) {
        while ((want->mask & (1U << pcr)) == 0) {
            pcr++;
        }
        size_t at = HEAD_LEN + (i / LIST_DIGESTS) * LIST_LEN + 4 +
                    (i % LIST_DIGESTS) * (2 + DIGEST_ROOM) + 2;
        memcpy(set.value[pcr], bytes.ptr + at, set.digest_len);
    }
    /* Everything but the values has one form only. */
    att_autobuf again = {0};
    enum att_rc rc = parse_pcr_file_encode(&set, &again, err);
    if (rc == ATT_OK && !att_slice_eq(att_buf_slice(&again), bytes)) {
        rc = att_fail(err, ATT_E_PARSE, "PCR file: not in the form of this selection");
    }
    if (rc == ATT_OK) {
        *ret_set = set;
    }
    return rc;
}
