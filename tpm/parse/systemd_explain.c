#include "tpm/parse/systemd.h"

#include "attestd/base/enc.h"

#include <string.h>

static json_t *hex_json(struct att_slice bytes)
{
    char hex[2 * PARSE_DIGEST_MAX + 1];
    att_hex(hex, bytes);
    return json_string(hex);
}

static enum att_rc explain_record(const struct parse_systemd_record *record, json_t *events,
                                  struct att_err *err)
{
    json_t *digests = json_object(), *payload = json_object();
    for (size_t i = 0; i < record->n_digests; i++) {
        uint16_t alg = record->digests[i].alg;
        json_object_set_new(digests, parse_alg_name(alg),
                            hex_json(parse_systemd_digest_of(record, alg)));
    }
    if (record->string) {
        json_object_set_new(payload, "string", json_string(record->string));
    }
    json_t *event = json_pack("{s:I, s:s, s:o, s:b, s:o}", "event", (json_int_t)record->number,
                              "type", record->type, "digests", digests, "digestCoversPayload",
                              record->covered ? 1 : 0, "payload", payload);
    if (event && record->pcr < PARSE_PCR_COUNT) {
        json_object_set_new(event, "pcr", json_integer(record->pcr));
    }
    if (!event || json_array_append_new(events, event) != 0) {
        return att_fail(err, ATT_E_NOMEM, "systemd log: no memory to explain it");
    }
    return ATT_OK;
}

static json_t *bank_json(struct att_slice bytes, uint16_t bank)
{
    struct parse_systemd_pcrs pcrs;
    struct att_err why = {0};
    struct parse_systemd_replay how = {.bank = bank, .at_least = SIZE_MAX, .mask = 0xffffff};
    json_t *json = json_object();
    if (parse_systemd_replay(bytes, &how, &pcrs, &why) != ATT_OK) {
        json_object_set_new(json, "error", json_string(why.msg));
        return json;
    }
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        char index[3] = {(char)('0' + pcr / 10), (char)('0' + pcr % 10), 0};
        if (pcrs.with_records >> pcr & 1) {
            json_object_set_new(json, pcr < 10 ? index + 1 : index,
                                hex_json(ATT_SLICE(pcrs.value[pcr], pcrs.digest_len)));
        }
    }
    return json;
}

enum att_rc parse_systemd_explain(struct att_slice bytes, json_t **ret_json, struct att_err *err)
{
    struct parse_systemd log;
    att_autojson *events = json_array(), *pcrs = json_object();
    enum att_rc rc = parse_systemd_init(&log, bytes, err);
    bool first = true;
    while (rc == ATT_OK) {
        ATT_CLEANUP(parse_systemd_record_done) struct parse_systemd_record record = {0};
        rc = parse_systemd_next(&log, &record, err);
        rc = rc ? rc : explain_record(&record, events, err);
        for (size_t i = 0; rc == ATT_OK && first && i < record.n_digests; i++) {
            uint16_t alg = record.digests[i].alg; /* the banks that the first record has */
            json_object_set_new(pcrs, parse_alg_name(alg), bank_json(bytes, alg));
        }
        first = false;
    }
    if (rc != ATT_E_NOTFOUND) {
        return rc;
    }
    json_t *json =
        json_pack("{s:s, s:O, s:O}", "format", "systemd", "events", events, "pcrs", pcrs);
    if (!json) {
        return att_fail(err, ATT_E_NOMEM, "systemd log: no memory to explain it");
    }
    *ret_json = json;
    return ATT_OK;
}
