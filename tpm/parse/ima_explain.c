/* An IMA list for people and programs. */
#include "tpm/parse/ima_fields.h"

#include "attestd/base/enc.h"
#include "attestd/base/hash.h"

#include <string.h>

static const uint16_t banks[] = {PARSE_ALG_SHA1, PARSE_ALG_SHA256, PARSE_ALG_SHA384};
#define N_BANKS (sizeof banks / sizeof banks[0])

static json_t *hex_json(struct att_slice bytes)
{
    att_autobuf text = ATT_BUF_INIT(2 * PARSE_IMA_ENTRY_MAX + 1);
    att_buf_hex(&text, bytes);
    const char *hex = att_buf_cstr(&text);
    return hex ? json_string(hex) : NULL;
}

/* A path is bytes; what is not UTF-8 is shown as "?". */
static json_t *text_json(struct att_slice text)
{
    json_t *json = json_stringn((const char *)text.ptr, text.len);
    if (json || text.len == 0) {
        return json ? json : json_string("");
    }
    att_autobuf copy = ATT_BUF_INIT(PARSE_IMA_ENTRY_MAX + 1);
    for (size_t i = 0; i < text.len; i++) {
        att_buf_u8(&copy, text.ptr[i] < 0x20 || text.ptr[i] > 0x7e ? '?' : text.ptr[i]);
    }
    const char *s = att_buf_cstr(&copy);
    return s ? json_string(s) : NULL;
}

static void put_payload(const struct parse_ima_entry *entry, json_t *payload)
{
    char digest[16 + 1 + 2 * PARSE_DIGEST_MAX + 1];
    size_t n = strlen(entry->alg);
    memcpy(digest, entry->alg, n);
    digest[n] = ':';
    att_hex(digest + n + 1, entry->file);
    json_object_set_new(payload, "digest", json_string(digest));
    if (entry->kind[0]) {
        json_object_set_new(payload, "kind", json_string(entry->kind));
    }
    json_object_set_new(payload, "path", text_json(entry->name));
    for (size_t i = 2; i < entry->n_fields; i++) {
        struct att_slice field = entry->fields[i];
        const char *name = parse_ima_field_name(entry->tmpl, i);
        if (field.len == 0) {
            continue;
        }
        if (entry->tmpl->fields[i] == PARSE_IMA_UINT32 ||
            entry->tmpl->fields[i] == PARSE_IMA_UINT16) {
            json_int_t value = 0;
            for (size_t k = field.len; k > 0; k--) {
                value = value << 8 | field.ptr[k - 1];
            }
            json_object_set_new(payload, name, json_integer(value));
        } else if (entry->tmpl->fields[i] == PARSE_IMA_XATTRNAMES) {
            json_object_set_new(payload, name, text_json(ATT_SLICE(field.ptr, field.len - 1)));
        } else {
            json_object_set_new(payload, name, hex_json(field));
        }
    }
}

static enum att_rc put_digests(const struct parse_ima_entry *entry, json_t *digests,
                               bool *ret_covers, struct att_err *err)
{
    *ret_covers = false;
    for (size_t i = 0; i < N_BANKS; i++) {
        uint8_t digest[ATT_HASH_MAX];
        size_t len = parse_alg_digest_len(banks[i]);
        enum att_rc rc = ATT_OK;
        if (entry->violation) {
            memset(digest, 0xff, len);
        } else {
            rc = att_hash_v(parse_alg_openssl_name(banks[i]), digest, &len, entry->parts,
                            entry->n_parts, err);
            *ret_covers = *ret_covers || att_slice_eq(ATT_SLICE(digest, len), entry->shown);
        }
        if (rc != ATT_OK) {
            return rc;
        }
        json_object_set_new(digests, parse_alg_name(banks[i]), hex_json(ATT_SLICE(digest, len)));
    }
    if (!entry->violation && entry->shown.len == 64) { /* a list that shows SHA-512 */
        uint8_t digest[ATT_HASH_MAX];
        size_t len = 0;
        enum att_rc rc = att_hash_v("SHA512", digest, &len, entry->parts, entry->n_parts, err);
        *ret_covers = rc == ATT_OK && att_slice_eq(ATT_SLICE(digest, len), entry->shown);
        return rc;
    }
    return ATT_OK;
}

static enum att_rc explain_entry(const struct parse_ima_entry *entry, json_t *events,
                                 struct att_err *err)
{
    json_t *digests = json_object(), *payload = json_object();
    bool covers = false;
    enum att_rc rc = put_digests(entry, digests, &covers, err);
    put_payload(entry, payload);
    json_t *event = json_pack("{s:I, s:I, s:s, s:o, s:b}", "event", (json_int_t)entry->number,
                              "pcr", (json_int_t)entry->pcr, "template", entry->tmpl->name,
                              "digests", digests, "digestCoversPayload", covers ? 1 : 0);
    if (event && entry->violation) {
        json_object_set_new(event, "violation", json_true());
    }
    if (event) {
        json_object_set_new(event, "payload", payload);
    } else {
        json_decref(payload);
    }
    if (rc == ATT_OK && json_array_append(events, event) != 0) {
        rc = att_fail(err, ATT_E_NOMEM, "IMA list: no memory to explain it");
    }
    json_decref(event);
    return rc;
}

/* A bank that cannot be replayed says why; the others and the events are still worth looking at. */
static void put_pcrs(struct att_slice bytes, json_t *pcrs)
{
    for (size_t i = 0; i < N_BANKS; i++) {
        struct parse_ima_pcrs replayed;
        struct att_err why = {0};
        struct parse_ima_replay how = {.bank = banks[i], .at_least = SIZE_MAX};
        json_t *bank = json_object();
        if (parse_ima_replay(bytes, &how, &replayed, &why) != ATT_OK) {
            json_object_set_new(bank, "error", json_string(why.msg));
        } else {
            for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
                char index[4] = {(char)('0' + pcr / 10), (char)('0' + pcr % 10), 0, 0};
                if (replayed.with_entries >> pcr & 1) {
                    json_object_set_new(
                        bank, pcr < 10 ? index + 1 : index,
                        hex_json(ATT_SLICE(replayed.value[pcr], replayed.digest_len)));
                }
            }
        }
        json_object_set_new(pcrs, parse_alg_name(banks[i]), bank);
    }
}

enum att_rc parse_ima_explain(struct att_slice bytes, json_t **ret_json, struct att_err *err)
{
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    struct parse_ima_entry entry;
    att_autojson *events = json_array(), *pcrs = json_object();
    enum att_rc rc = parse_ima_init(&list, bytes, err);
    while (rc == ATT_OK) {
        rc = parse_ima_next(&list, &entry, err);
        if (rc == ATT_OK) {
            rc = explain_entry(&entry, events, err);
        }
    }
    if (rc != ATT_E_NOTFOUND) {
        return rc;
    }
    put_pcrs(bytes, pcrs);
    json_t *json = json_pack("{s:s, s:O, s:O}", "format", list.ascii ? "ima-ascii" : "ima-binary",
                             "events", events, "pcrs", pcrs);
    if (!json) {
        return att_fail(err, ATT_E_NOMEM, "IMA list: no memory to explain it");
    }
    *ret_json = json;
    return ATT_OK;
}
