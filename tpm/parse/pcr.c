#include "tpm/parse/pcr.h"

#include "attestd/base/enc.h"
#include "attestd/base/hash.h"

#include <stdio.h>
#include <string.h>

#define ALL_PCRS     (((uint32_t)1 << PARSE_PCR_COUNT) - 1)
#define SET_JSON_MAX ((size_t)16 << 10)
#define SELECT_LEN   3

/* The banks whose values we believe: SHA-1 is not among them. */
static enum att_rc check_bank(uint16_t bank, struct att_err *err)
{
    if (bank == PARSE_ALG_SHA256 || bank == PARSE_ALG_SHA384 || bank == PARSE_ALG_SHA512) {
        return ATT_OK;
    }
    const char *name = parse_alg_name(bank);
    return att_fail(err, ATT_E_UNSUPPORTED,
                    "PCR selection: bank %s (0x%04x) is not sha256, sha384 or sha512",
                    name ? name : "unknown", bank);
}

static enum att_rc check_sel(const struct parse_pcr_sel *sel, struct att_err *err)
{
    enum att_rc rc = check_bank(sel->bank, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (sel->mask == 0 || (sel->mask & ~ALL_PCRS)) {
        return att_fail(err, ATT_E_INVAL, "PCR selection: mask 0x%08x is empty or names PCRs ≥ %d",
                        sel->mask, PARSE_PCR_COUNT);
    }
    return ATT_OK;
}

/* A decimal index without leading zeros, at most two digits. Returns the bytes it took, or 0. */
static size_t take_index(const char *text, unsigned *ret_index)
{
    if (text[0] < '0' || text[0] > '9') {
        return 0;
    }
    unsigned value = (unsigned)(text[0] - '0');
    if (value == 0 || text[1] < '0' || text[1] > '9') {
        *ret_index = value;
        return 1;
    }
    *ret_index = value * 10 + (unsigned)(text[1] - '0');
    return 2;
}

enum att_rc parse_pcr_sel_parse(const char *text, struct parse_pcr_sel *ret_sel,
                                struct att_err *err)
{
    const char *colon = text ? strchr(text, ':') : NULL;
    if (!colon || strlen(text) >= PARSE_PCR_TEXT_MAX || colon - text > 8) {
        return att_fail(err, ATT_E_PARSE, "PCR selection: not of the form \"sha256:0,1,7\"");
    }
    char bank[9] = "";
    memcpy(bank, text, (size_t)(colon - text));
    struct parse_pcr_sel sel = {.bank = parse_alg_by_name(bank)};
    enum att_rc rc = check_bank(sel.bank, err);
    if (rc != ATT_OK) {
        return rc;
    }
    const char *at = colon + 1;
    for (;;) {
        unsigned index = 0;
        size_t took = take_index(at, &index);
        at += took;
        if (took == 0 || (*at != ',' && *at != 0)) {
            return att_fail(err, ATT_E_PARSE, "PCR selection: no PCR number at \"%.16s\"",
                            at - took);
        }
        if (index >= PARSE_PCR_COUNT) {
            return att_fail(err, ATT_E_PARSE, "PCR selection: PCR %u, the last is 23", index);
        }
        if (sel.mask >> index) {
            return att_fail(err, ATT_E_PARSE, "PCR selection: PCR %u is not above the one before",
                            index);
        }
        sel.mask |= (uint32_t)1 << index;
        if (*at == 0) {
            *ret_sel = sel;
            return ATT_OK;
        }
        at++;
    }
}

enum att_rc parse_pcr_sel_text(const struct parse_pcr_sel *sel, char ret_text[PARSE_PCR_TEXT_MAX],
                               struct att_err *err)
{
    enum att_rc rc = check_sel(sel, err);
    if (rc != ATT_OK) {
        return rc;
    }
    char text[PARSE_PCR_TEXT_MAX];
    int used = snprintf(text, sizeof text, "%s", parse_alg_name(sel->bank));
    char sep = ':';
    for (unsigned i = 0; i < PARSE_PCR_COUNT; i++) {
        if (sel->mask >> i & 1) {
            used += snprintf(text + used, sizeof text - (size_t)used, "%c%u", sep, i);
            sep = ',';
        }
    }
    memcpy(ret_text, text, sizeof text);
    return ATT_OK;
}

enum att_rc parse_pcr_sel_raw(const struct parse_pcr_sel *sel, uint8_t ret_raw[PARSE_PCR_RAW_LEN],
                              struct att_err *err)
{
    enum att_rc rc = check_sel(sel, err);
    if (rc != ATT_OK) {
        return rc;
    }
    const uint8_t raw[PARSE_PCR_RAW_LEN] = {0,
                                            0,
                                            0,
                                            1, /* count */
                                            (uint8_t)(sel->bank >> 8),
                                            (uint8_t)sel->bank,
                                            SELECT_LEN,
                                            (uint8_t)sel->mask,
                                            (uint8_t)(sel->mask >> 8),
                                            (uint8_t)(sel->mask >> 16)};
    memcpy(ret_raw, raw, sizeof raw);
    return ATT_OK;
}

enum att_rc parse_pcr_sel_from_raw(struct att_slice raw, struct parse_pcr_sel *ret_sel,
                                   struct att_err *err)
{
    struct att_cur cur = att_cur_init(raw);
    uint32_t count = att_cur_be32(&cur);
    if (!cur.failed && count != 1) {
        return att_fail(err, ATT_E_PARSE, "PCR selection: it lists %u banks, exactly 1 expected",
                        count);
    }
    struct parse_pcr_sel sel = {.bank = att_cur_be16(&cur)};
    uint8_t size = att_cur_u8(&cur);
    if (!cur.failed && size != SELECT_LEN) {
        return att_fail(err, ATT_E_PARSE, "PCR selection: sizeofSelect %u, 3 expected", size);
    }
    for (unsigned i = 0; i < SELECT_LEN; i++) {
        sel.mask |= (uint32_t)att_cur_u8(&cur) << (8 * i);
    }
    if (!att_cur_done(&cur)) {
        return att_fail(err, ATT_E_PARSE, "PCR selection: %zu bytes, 10 expected", raw.len);
    }
    enum att_rc rc = check_bank(sel.bank, err);
    if (rc != ATT_OK) {
        return rc;
    }
    if (sel.mask == 0) {
        return att_fail(err, ATT_E_PARSE, "PCR selection: it selects no PCR");
    }
    *ret_sel = sel;
    return ATT_OK;
}

/* ---- values ---------------------------------------------------------------------------------- */

/* The only member of obj; NULL when it has another number of members. */
static const char *only_member(const json_t *obj, json_t **ret_value)
{
    if (!json_is_object(obj) || json_object_size(obj) != 1) {
        return NULL;
    }
    const char *name = NULL;
    json_t *value = NULL;
    void *iter = json_object_iter((json_t *)(uintptr_t)obj); /* jansson's iterators are not const */
    name = json_object_iter_key(iter);
    value = json_object_iter_value(iter);
    *ret_value = value;
    return name;
}

static enum att_rc take_value(struct parse_pcr_set *set, const char *key, const json_t *value,
                              struct att_err *err)
{
    unsigned index = 0;
    size_t took = take_index(key, &index);
    if (took == 0 || key[took] != 0 || index >= PARSE_PCR_COUNT) {
        return att_fail(err, ATT_E_PARSE, "pcrs: \"%.16s\" is not a PCR number 0…23", key);
    }
    const char *text = json_string_value(value);
    if (!text || json_string_length(value) != 2 * set->digest_len ||
        strspn(text, "0123456789abcdef") != 2 * set->digest_len) {
        return att_fail(err, ATT_E_PARSE, "pcrs: PCR %u is not %zu lowercase hex digits", index,
                        2 * set->digest_len);
    }
    set->sel.mask |= (uint32_t)1 << index;
    return att_unhex_exact(set->value[index], set->digest_len, text, err);
}

static enum att_rc check_wanted(const struct parse_pcr_set *set, const struct parse_pcr_sel *want,
                                struct att_err *err)
{
    if (set->sel.mask == 0) {
        return att_fail(err, ATT_E_PARSE, "pcrs: no values");
    }
    if (!want) {
        return ATT_OK;
    }
    if (want->bank != set->sel.bank) {
        return att_fail(err, ATT_E_PARSE, "pcrs: bank %s where %s was asked for",
                        parse_alg_name(set->sel.bank), parse_alg_name(want->bank));
    }
    if (want->mask != set->sel.mask) {
        return att_fail(err, ATT_E_PARSE, "pcrs: PCRs 0x%06x where 0x%06x were asked for",
                        set->sel.mask, want->mask);
    }
    return ATT_OK;
}

enum att_rc parse_pcr_set_from_json(const json_t *json, const struct parse_pcr_sel *want,
                                    struct parse_pcr_set *ret_set, struct att_err *err)
{
    json_t *values = NULL;
    const char *bank = only_member(json, &values);
    if (!bank || !json_is_object(values)) {
        return att_fail(err, ATT_E_PARSE, "pcrs: not an object with exactly one bank");
    }
    struct parse_pcr_set set;
    memset(&set, 0, sizeof set);
    set.sel.bank = parse_alg_by_name(bank);
    enum att_rc rc = check_bank(set.sel.bank, err);
    if (rc != ATT_OK) {
        return rc;
    }
    set.digest_len = parse_alg_digest_len(set.sel.bank);
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(values, key, value)
    {
        rc = take_value(&set, key, value, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    rc = check_wanted(&set, want, err);
    if (rc == ATT_OK) {
        *ret_set = set;
    }
    return rc;
}

enum att_rc parse_pcr_set_parse(struct att_slice text, const struct parse_pcr_sel *want,
                                struct parse_pcr_set *ret_set, struct att_err *err)
{
    att_autojson *json = NULL;
    enum att_rc rc = att_json_parse(text, SET_JSON_MAX, &json, err);
    return rc == ATT_OK ? parse_pcr_set_from_json(json, want, ret_set, err) : rc;
}

static enum att_rc check_set(const struct parse_pcr_set *set, struct att_err *err)
{
    enum att_rc rc = check_sel(&set->sel, err);
    if (rc == ATT_OK && set->digest_len != parse_alg_digest_len(set->sel.bank)) {
        rc = att_fail(err, ATT_E_INVAL, "pcrs: digest_len %zu is not that of bank %s",
                      set->digest_len, parse_alg_name(set->sel.bank));
    }
    return rc;
}

enum att_rc parse_pcr_set_json(const struct parse_pcr_set *set, json_t **ret_json,
                               struct att_err *err)
{
    enum att_rc rc = check_set(set, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autojson *json = json_object();
    json_t *values = json_object();
    if (!json || json_object_set_new(json, parse_alg_name(set->sel.bank), values) != 0) {
        return att_fail(err, ATT_E_NOMEM, "pcrs: no memory for JSON");
    }
    for (unsigned i = 0; i < PARSE_PCR_COUNT; i++) {
        if (set->sel.mask >> i & 1) {
            char key[4], hex[2 * PARSE_DIGEST_MAX + 1];
            snprintf(key, sizeof key, "%u", i % PARSE_PCR_COUNT);
            att_hex(hex, ATT_SLICE(set->value[i], set->digest_len));
            if (json_object_set_new(values, key, json_string(hex)) != 0) {
                return att_fail(err, ATT_E_NOMEM, "pcrs: no memory for JSON");
            }
        }
    }
    *ret_json = json;
    json = NULL;
    return ATT_OK;
}

enum att_rc parse_pcr_set_values(const struct parse_pcr_set *set, struct att_buf *ret_bytes,
                                 struct att_err *err)
{
    enum att_rc rc = check_set(set, err);
    if (rc != ATT_OK) {
        return rc;
    }
    for (unsigned i = 0; i < PARSE_PCR_COUNT; i++) {
        if (set->sel.mask >> i & 1) {
            att_buf_put(ret_bytes, set->value[i], set->digest_len);
        }
    }
    return att_buf_ok(ret_bytes, err);
}

enum att_rc parse_pcr_set_digest(const struct parse_pcr_set *set, uint16_t hash,
                                 uint8_t ret_digest[PARSE_DIGEST_MAX], size_t *ret_len,
                                 struct att_err *err)
{
    const char *name = parse_alg_openssl_name(hash);
    if (!name) {
        return att_fail(err, ATT_E_INVAL, "pcrs: 0x%04x is not a hash", hash);
    }
    att_autobuf values = {0};
    enum att_rc rc = parse_pcr_set_values(set, &values, err);
    if (rc != ATT_OK) {
        return rc;
    }
    struct att_slice all = att_buf_slice(&values);
    return att_hash_v(name, ret_digest, ret_len, &all, 1, err);
}
