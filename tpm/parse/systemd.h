/* systemd's user-space measurement log, /run/log/systemd/tpm2-measure.log: records in JSON, each on
 * a line of its own, with or without RFC 7464's record separator (0x1E) before it:
 *   {"pcr": 11, "digests": [{"hashAlg": "sha256", "digest": hex}…], "content_type": "systemd",
 *    "content": {"string": "enter-initrd", "bootId": hex, "timestamp": N, "eventType": "phase"}}
 * (systemd 254 and later, src/shared/tpm2-util.c, a subset of the TCG's Canonical Event Log). The
 * digest is of the string, but for event type volume-key, where it is an HMAC with the volume's
 * key. Nothing else of a record is hashed: not its type, not its time, not its boot id. A record
 * without "pcr" (NvPCRs, systemd 259) extends no PCR. */
#ifndef TPM_PARSE_SYSTEMD_H
#define TPM_PARSE_SYSTEMD_H

#include "attestd/base/err.h"
#include "attestd/base/json.h"
#include "attestd/base/slice.h"
#include "tpm/parse/pcr.h"
#include "tpm/parse/types.h"

#define PARSE_SYSTEMD_MAX        ((size_t)4 << 20)
#define PARSE_SYSTEMD_RECORD_MAX ((size_t)16 << 10)
/* A boot has some dozens. Each costs a JSON parser and a hash, several times what IMA's entry does.
 */
#define PARSE_SYSTEMD_RECORDS_MAX 8192
#define PARSE_SYSTEMD_ALGS        8
#define PARSE_SYSTEMD_NO_PCR      0xFFFFFFFFu

/* Owns json, which string and type borrow from. */
struct parse_systemd_record {
    size_t number; /* from 0 */
    size_t offset; /* of its first byte */
    size_t size;
    uint32_t pcr; /* < 24, or PARSE_SYSTEMD_NO_PCR */
    size_t n_digests;
    struct {
        uint16_t alg;
        uint8_t value[PARSE_DIGEST_MAX];
    } digests[PARSE_SYSTEMD_ALGS];
    const char *string; /* NULL: absent */
    const char *type;   /* "" where the record has none */
    bool covered;       /* each digest is of string */
    json_t *json;
};

struct parse_systemd {
    struct att_slice bytes;
    size_t pos, number;
};

/* ATT_E_LIMIT above PARSE_SYSTEMD_MAX. An empty log is one without records. */
ATT_MUST_USE enum att_rc parse_systemd_init(struct parse_systemd *ret_log, struct att_slice bytes,
                                            struct att_err *err);
/* ATT_E_NOTFOUND at the end, err untouched; ATT_E_LIMIT behind PARSE_SYSTEMD_RECORDS_MAX. A record
 * that is not whole (its line has no end), not JSON, without digests, with a digest that is not as
 * long as its hash or comes twice, is ATT_E_PARSE: "record 4: … (offset 812)".
 * parse_systemd_record_done, also after an error. */
ATT_MUST_USE enum att_rc parse_systemd_next(struct parse_systemd *log,
                                            struct parse_systemd_record *ret_record,
                                            struct att_err *err);
void parse_systemd_record_done(struct parse_systemd_record *record);
/* The record's digest of that bank; empty when it has none. */
struct att_slice parse_systemd_digest_of(const struct parse_systemd_record *record, uint16_t bank);

struct parse_systemd_pcrs {
    uint16_t bank;
    size_t digest_len;
    uint8_t value[PARSE_PCR_COUNT][PARSE_DIGEST_MAX];
    uint32_t with_records;
    size_t last_record[PARSE_PCR_COUNT];
    size_t n_records;
    size_t used; /* bytes of the log that were replayed */
};

struct parse_systemd_replay {
    uint16_t bank;
    const uint8_t (*start)[PARSE_DIGEST_MAX]; /* values before the first record; NULL: zeroes */
    size_t at_least;                          /* as in parse_ima_replay */
    /* Behind at_least the replay ends where the PCRs of mask have their values of until. */
    const struct parse_pcr_set *until;
    uint32_t mask;
};
/* PCRs of mask are held to a grammar, since types are not hashed: 9, 11, 12, 13 and 15 only; the
 * digest is of the string, but for volume-key in PCR 15. "pcr11 record 4: …". */
ATT_MUST_USE enum att_rc parse_systemd_replay(struct att_slice bytes,
                                              const struct parse_systemd_replay *how,
                                              struct parse_systemd_pcrs *ret_pcrs,
                                              struct att_err *err);

/* {"format": "systemd", "events": [{"event": N, "pcr": N, "type": "phase", "digests": {…},
 * "digestCoversPayload": bool, "payload": {"string": …}}], "pcrs": {"sha256": {"11": hex}}}: PCRs
 * that start at zero, as they do where nothing was measured into them before. */
ATT_MUST_USE enum att_rc parse_systemd_explain(struct att_slice bytes, json_t **ret_json,
                                               struct att_err *err);

#endif
