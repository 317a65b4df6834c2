#include "tpm/parse/systemd.h"

#include "attestd/base/enc.h"
#include "attestd/base/hash.h"

#include <string.h>

#define RECORD_SEPARATOR 0x1E
#define VALUES_MAX       256 /* JSON values of a record */

static enum att_rc bad(const struct parse_systemd_record *record, struct att_err *err,
                       const char *what)
{
    if (record->pcr < PARSE_PCR_COUNT) {
        return att_fail(err, ATT_E_PARSE, "pcr%u record %zu: %s (offset %zu)", record->pcr,
                        record->number, what, record->offset);
    }
    return att_fail(err, ATT_E_PARSE, "record %zu: %s (offset %zu)", record->number, what,
                    record->offset);
}

void parse_systemd_record_done(struct parse_systemd_record *record)
{
    if (record) {
        json_decref(record->json);
        *record = (struct parse_systemd_record){0};
    }
}

enum att_rc parse_systemd_init(struct parse_systemd *ret_log, struct att_slice bytes,
                               struct att_err *err)
{
    if (bytes.len > PARSE_SYSTEMD_MAX) {
        return att_fail(err, ATT_E_LIMIT, "systemd log: %zu bytes, at most %zu taken", bytes.len,
                        PARSE_SYSTEMD_MAX);
    }
    *ret_log = (struct parse_systemd){.bytes = bytes};
    return ATT_OK;
}

/* ---- a record -------------------------------------------------------------------------------- */

static const char *take_digest(struct parse_systemd_record *record, const json_t *item)
{
    const char *alg = json_string_value(json_object_get(item, "hashAlg"));
    const char *hex = json_string_value(json_object_get(item, "digest"));
    uint16_t id = parse_alg_by_name(alg);
    size_t len = parse_alg_digest_len(id);
    if (!alg || !hex) {
        return "a digest without hashAlg or digest";
    }
    if (len == 0) {
        return "a digest of a hash that is not known";
    }
    if (parse_systemd_digest_of(record, id).len) {
        return "two digests of one hash";
    }
    record->digests[record->n_digests].alg = id;
    if (strpbrk(hex, "ABCDEF") ||
        att_unhex_exact(record->digests[record->n_digests].value, len, hex, NULL) != ATT_OK) {
        return "a digest that is not the lowercase hex of its hash's length";
    }
    record->n_digests++;
    return NULL;
}

static const char *take_pcr(struct parse_systemd_record *record)
{
    const json_t *pcr = json_object_get(record->json, "pcr");
    if (!pcr) {
        return NULL; /* an NvPCR's */
    }
    json_int_t value = json_is_integer(pcr) ? json_integer_value(pcr) : -1;
    if (value < 0 || value >= PARSE_PCR_COUNT) {
        return "\"pcr\" is not 0…23";
    }
    record->pcr = (uint32_t)value;
    return NULL;
}

static const char *take_members(struct parse_systemd_record *record)
{
    const char *fault = take_pcr(record);
    const json_t *digests = json_object_get(record->json, "digests");
    const json_t *content = json_object_get(record->json, "content");
    const char *owner = json_string_value(json_object_get(record->json, "content_type"));
    if (!fault && (!owner || strcmp(owner, "systemd") != 0)) {
        fault = "\"content_type\" is not systemd";
    }
    size_t n = json_array_size(digests);
    if (!fault && (n == 0 || n > PARSE_SYSTEMD_ALGS)) {
        fault = "\"digests\" is not a list of 1 to 8";
    }
    for (size_t i = 0; !fault && i < n; i++) {
        fault = take_digest(record, json_array_get(digests, i));
    }
    if (fault) {
        return fault;
    }
    record->string = json_string_value(json_object_get(content, "string"));
    const char *type = json_string_value(json_object_get(content, "eventType"));
    record->type = type ? type : "";
    return NULL;
}

/* Every digest: a string that one bank has and another not would be two stories in one record. */
static enum att_rc look_covered(struct parse_systemd_record *record, struct att_err *err)
{
    record->covered = record->string != NULL;
    struct att_slice text = att_slice_str(record->string);
    for (size_t i = 0; record->covered && i < record->n_digests; i++) {
        uint8_t digest[ATT_HASH_MAX];
        size_t len = 0;
        enum att_rc rc =
            att_hash_v(parse_alg_openssl_name(record->digests[i].alg), digest, &len, &text, 1, err);
        if (rc != ATT_OK) {
            return rc;
        }
        record->covered = memcmp(digest, record->digests[i].value, len) == 0;
    }
    return ATT_OK;
}

enum att_rc parse_systemd_next(struct parse_systemd *log, struct parse_systemd_record *ret_record,
                               struct att_err *err)
{
    *ret_record = (struct parse_systemd_record){
        .number = log->number, .offset = log->pos, .pcr = PARSE_SYSTEMD_NO_PCR};
    size_t left = log->bytes.len - log->pos;
    if (left == 0) {
        return ATT_E_NOTFOUND;
    }
    if (log->number >= PARSE_SYSTEMD_RECORDS_MAX) {
        return att_fail(err, ATT_E_LIMIT, "record %zu: at most %d are read", log->number,
                        PARSE_SYSTEMD_RECORDS_MAX);
    }
    const uint8_t *at = log->bytes.ptr + log->pos;
    size_t window = left < PARSE_SYSTEMD_RECORD_MAX ? left : PARSE_SYSTEMD_RECORD_MAX;
    const uint8_t *end = memchr(at, '\n', window);
    if (!end) {
        return bad(ret_record, err,
                   window == left ? "it is cut off: its line has no end" : "it is beyond 16 KiB");
    }
    ret_record->size = (size_t)(end - at) + 1;
    struct att_slice text = ATT_SLICE(at, (size_t)(end - at));
    if (text.len && text.ptr[0] == RECORD_SEPARATOR) {
        text = ATT_SLICE(text.ptr + 1, text.len - 1);
    }
    struct att_err why = {0};
    if (att_json_parse_few(text, PARSE_SYSTEMD_RECORD_MAX, VALUES_MAX, &ret_record->json, &why) !=
            ATT_OK ||
        !json_is_object(ret_record->json)) {
        return bad(ret_record, err, "it is no JSON object");
    }
    const char *fault = take_members(ret_record);
    enum att_rc rc = fault ? bad(ret_record, err, fault) : look_covered(ret_record, err);
    if (rc == ATT_OK) {
        log->pos += ret_record->size;
        log->number++;
    }
    return rc;
}

struct att_slice parse_systemd_digest_of(const struct parse_systemd_record *record, uint16_t bank)
{
    for (size_t i = 0; i < record->n_digests; i++) {
        if (record->digests[i].alg == bank) {
            return ATT_SLICE(record->digests[i].value, parse_alg_digest_len(bank));
        }
    }
    return (struct att_slice){NULL, 0};
}

/* ---- replay ---------------------------------------------------------------------------------- */

static bool may_be_in(uint32_t pcr)
{
    return pcr == 9 || (pcr >= 11 && pcr <= 13) || pcr == 15;
}

static const char *fault_of(const struct parse_systemd_record *record)
{
    if (!may_be_in(record->pcr)) {
        return "systemd measures nothing into this PCR";
    }
    if (!record->covered && !(record->pcr == 15 && strcmp(record->type, "volume-key") == 0)) {
        return "payload does not match its digest";
    }
    return NULL;
}

static enum att_rc extend(struct parse_systemd_pcrs *pcrs,
                          const struct parse_systemd_record *record, uint32_t mask,
                          struct att_err *err)
{
    if (record->pcr >= PARSE_PCR_COUNT || !(mask >> record->pcr & 1)) {
        return ATT_OK;
    }
    const char *fault = fault_of(record);
    struct att_slice digest = parse_systemd_digest_of(record, pcrs->bank);
    if (fault || digest.len != pcrs->digest_len) {
        return bad(record, err, fault ? fault : "it has no digest of the replayed bank");
    }
    uint8_t *value = pcrs->value[record->pcr], next[ATT_HASH_MAX];
    struct att_slice parts[] = {ATT_SLICE(value, pcrs->digest_len), digest};
    size_t len = 0;
    enum att_rc rc = att_hash_v(parse_alg_openssl_name(pcrs->bank), next, &len, parts, 2, err);
    if (rc == ATT_OK) {
        memcpy(value, next, pcrs->digest_len);
        pcrs->with_records |= (uint32_t)1 << record->pcr;
        pcrs->last_record[record->pcr] = record->number;
    }
    return rc;
}

static bool reached(const struct parse_systemd_pcrs *pcrs, const struct parse_systemd_replay *how)
{
    for (unsigned pcr = 0; how->until && pcr < PARSE_PCR_COUNT; pcr++) {
        if ((how->mask >> pcr & 1) &&
            memcmp(pcrs->value[pcr], how->until->value[pcr], pcrs->digest_len) != 0) {
            return false;
        }
    }
    return true;
}

static enum att_rc replay_all(struct parse_systemd *log, const struct parse_systemd_replay *how,
                              struct parse_systemd_pcrs *pcrs, struct att_err *err)
{
    size_t at_least = how->at_least == SIZE_MAX ? log->bytes.len : how->at_least;
    if (at_least > log->bytes.len) {
        return att_fail(err, ATT_E_PARSE, "systemd log: its signed part has %zu bytes, it has %zu",
                        at_least, log->bytes.len);
    }
    while (log->pos < at_least || !reached(pcrs, how)) {
        ATT_CLEANUP(parse_systemd_record_done) struct parse_systemd_record record = {0};
        enum att_rc rc = parse_systemd_next(log, &record, err);
        if (rc == ATT_E_NOTFOUND) {
            break;
        }
        if (rc == ATT_OK && record.offset < at_least && record.size > at_least - record.offset) {
            rc = bad(&record, err, "the signed part of the log ends inside it");
        }
        rc = rc ? rc : extend(pcrs, &record, how->mask, err);
        if (rc != ATT_OK) {
            return rc;
        }
        pcrs->n_records++;
    }
    pcrs->used = log->pos;
    return ATT_OK;
}

enum att_rc parse_systemd_replay(struct att_slice bytes, const struct parse_systemd_replay *how,
                                 struct parse_systemd_pcrs *ret_pcrs, struct att_err *err)
{
    struct parse_systemd log;
    struct parse_systemd_pcrs pcrs;
    enum att_rc rc = parse_systemd_init(&log, bytes, err);
    memset(&pcrs, 0, sizeof pcrs);
    pcrs.bank = how->bank;
    pcrs.digest_len = parse_alg_digest_len(how->bank);
    if (rc == ATT_OK && pcrs.digest_len == 0) {
        rc = att_fail(err, ATT_E_UNSUPPORTED, "systemd log: bank 0x%04x is not known", how->bank);
    }
    if (how->start) {
        memcpy(pcrs.value, how->start, sizeof pcrs.value);
    }
    rc = rc ? rc : replay_all(&log, how, &pcrs, err);
    if (rc == ATT_OK) {
        *ret_pcrs = pcrs;
    }
    return rc;
}
