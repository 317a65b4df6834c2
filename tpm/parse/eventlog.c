#include "tpm/parse/eventlog.h"

#include "attestd/base/enc.h"
#include "attestd/base/hash.h"

#include <string.h>

#define SPEC_ID_SIGNATURE  "Spec ID Event03" /* and a NUL */
#define LOCALITY_SIGNATURE "StartupLocality" /* and a NUL */

static bool has_signature(struct att_slice data, const char *signature)
{
    size_t len = strlen(signature) + 1;
    return data.len >= len && memcmp(data.ptr, signature, len) == 0;
}

/* The SHA-1 form, which record 0 has in every log: TCG_PCR_EVENT, PFP 1.06 clause 10.2.1. */
static void take_sha1_event(struct att_cur *cur, struct parse_eventlog_event *event)
{
    event->pcr = att_cur_le32(cur);
    event->type = att_cur_le32(cur);
    event->n_digests = 1;
    event->digests[0].alg = PARSE_ALG_SHA1;
    event->digests[0].digest = att_cur_take(cur, 20);
    uint32_t size = att_cur_le32(cur);
    if (size > PARSE_EVENTLOG_EVENT_MAX) {
        cur->failed = true;
    }
    event->data = att_cur_take(cur, size);
}

/* Messages begin with the event; PCR and number are the reader's way to it. */
static enum att_rc bad_event(const struct parse_eventlog_event *event, struct att_err *err,
                             const char *what)
{
    if (event->pcr < PARSE_PCR_COUNT) {
        return att_fail(err, ATT_E_PARSE, "pcr%u event %zu: %s (offset %zu)", event->pcr,
                        event->number, what, event->offset);
    }
    return att_fail(err, ATT_E_PARSE, "event %zu: %s (offset %zu)", event->number, what,
                    event->offset);
}

/* TCG_EfiSpecIDEvent, PFP 1.06 clause 10.4.5.1. */
static enum att_rc take_spec_id(struct parse_eventlog *log, struct att_slice data,
                                struct att_err *err)
{
    struct att_cur cur = att_cur_init(data);
    (void)att_cur_take(&cur, sizeof SPEC_ID_SIGNATURE);
    (void)att_cur_le32(&cur);    /* platformClass */
    (void)att_cur_take(&cur, 4); /* minor, major, errata, uintnSize */
    uint32_t n = att_cur_le32(&cur);
    if (cur.failed || n == 0 || n > PARSE_EVENTLOG_ALGS) {
        return att_fail(err, ATT_E_PARSE, "event 0: Spec ID names %u algorithms, 1…%d expected", n,
                        PARSE_EVENTLOG_ALGS);
    }
    for (uint32_t i = 0; i < n; i++) {
        uint16_t alg = att_cur_le16(&cur), len = att_cur_le16(&cur);
        size_t known = parse_alg_digest_len(alg);
        if (cur.failed || len == 0 || len > PARSE_DIGEST_MAX || (known && known != len)) {
            return att_fail(err, ATT_E_PARSE, "event 0: Spec ID gives algorithm 0x%04x %u bytes",
                            alg, len);
        }
        for (uint32_t j = 0; j < i; j++) {
            if (log->algs[j].alg == alg) {
                return att_fail(err, ATT_E_PARSE, "event 0: Spec ID names algorithm 0x%04x twice",
                                alg);
            }
        }
        log->algs[i].alg = alg;
        log->algs[i].len = len;
    }
    uint8_t vendor = att_cur_u8(&cur);
    (void)att_cur_take(&cur, vendor);
    if (!att_cur_done(&cur)) {
        return att_fail(err, ATT_E_PARSE, "event 0: Spec ID is not as long as its %zu bytes",
                        data.len);
    }
    log->n_algs = n;
    return ATT_OK;
}

enum att_rc parse_eventlog_init(struct parse_eventlog *ret_log, struct att_slice bytes,
                                struct att_err *err)
{
    if (bytes.len > PARSE_EVENTLOG_MAX) {
        return att_fail(err, ATT_E_LIMIT, "event log: %zu bytes, at most %zu taken", bytes.len,
                        PARSE_EVENTLOG_MAX);
    }
    struct parse_eventlog log = {.bytes = bytes};
    struct parse_eventlog_event first = {0};
    struct att_cur cur = att_cur_init(bytes);
    take_sha1_event(&cur, &first);
    if (cur.failed) {
        return att_fail(err, ATT_E_PARSE, "event log: %zu bytes have no first event", bytes.len);
    }
    if (first.type == PARSE_EV_NO_ACTION && has_signature(first.data, SPEC_ID_SIGNATURE)) {
        log.crypto_agile = 1;
        enum att_rc rc = take_spec_id(&log, first.data, err);
        if (rc != ATT_OK) {
            return rc;
        }
    } else {
        log.n_algs = 1;
        log.algs[0].alg = PARSE_ALG_SHA1;
        log.algs[0].len = 20;
    }
    *ret_log = log;
    return ATT_OK;
}

/* Firmware hands out the buffer, not the log: the rest is then 0x00 or 0xFF. Neither is an event: a
 * crypto-agile event has at least one digest, PCR 0xFFFFFFFF is none. In the SHA-1 form zeroes
 * would be events of PCR 0 with an all-zero digest, which no hash gives. */
static bool only_padding(struct att_slice rest)
{
    if (rest.len == 0 || (rest.ptr[0] != 0x00 && rest.ptr[0] != 0xFF)) {
        return rest.len == 0;
    }
    return memcmp(rest.ptr, rest.ptr + 1, rest.len - 1) == 0;
}

static uint16_t declared_len(const struct parse_eventlog *log, uint16_t alg)
{
    for (size_t i = 0; i < log->n_algs; i++) {
        if (log->algs[i].alg == alg) {
            return log->algs[i].len;
        }
    }
    return 0;
}

/* TCG_PCR_EVENT2, PFP 1.06 clause 10.2.2. */
static enum att_rc take_event2(const struct parse_eventlog *log, struct att_cur *cur,
                               struct parse_eventlog_event *event, struct att_err *err)
{
    event->pcr = att_cur_le32(cur);
    event->type = att_cur_le32(cur);
    uint32_t n = att_cur_le32(cur);
    if (cur->failed) {
        return bad_event(event, err, "the log ends inside its header");
    }
    if (n == 0 || n > log->n_algs) {
        return bad_event(event, err, "its number of digests is not that of the Spec ID event");
    }
    for (uint32_t i = 0; i < n; i++) {
        uint16_t alg = att_cur_le16(cur), len = declared_len(log, alg);
        if (!cur->failed && len == 0) {
            return bad_event(event, err, "a digest of an algorithm that Spec ID does not name");
        }
        if (parse_eventlog_digest_of(event, alg).len != 0) {
            return bad_event(event, err, "two digests of one algorithm");
        }
        event->digests[i].alg = alg;
        event->digests[i].digest = att_cur_take(cur, len);
        event->n_digests = i + 1;
    }
    uint32_t size = att_cur_le32(cur);
    if (!cur->failed && size > PARSE_EVENTLOG_EVENT_MAX) {
        return bad_event(event, err, "its payload is beyond 1 MiB");
    }
    event->data = att_cur_take(cur, size);
    return cur->failed ? bad_event(event, err, "it is longer than what is left of the log")
                       : ATT_OK;
}

enum att_rc parse_eventlog_next(struct parse_eventlog *log, struct parse_eventlog_event *ret_event,
                                struct att_err *err)
{
    struct att_slice rest = {log->bytes.ptr + log->pos, log->bytes.len - log->pos};
    if (only_padding(rest)) {
        return ATT_E_NOTFOUND;
    }
    struct parse_eventlog_event event = {.number = log->number, .offset = log->pos};
    struct att_cur cur = att_cur_init(rest);
    if (log->crypto_agile && log->number > 0) {
        enum att_rc rc = take_event2(log, &cur, &event, err);
        if (rc != ATT_OK) {
            return rc;
        }
    } else {
        take_sha1_event(&cur, &event);
        if (cur.failed) {
            return bad_event(&event, err, "it is longer than what is left of the log, or 1 MiB");
        }
    }
    bool no_pcr = event.type == PARSE_EV_NO_ACTION && event.pcr == PARSE_EVENTLOG_NO_PCR;
    if (event.pcr >= PARSE_PCR_COUNT && !no_pcr) {
        return bad_event(&event, err, "its PCR is not 0…23");
    }
    log->pos += rest.len - cur.left;
    log->number++;
    *ret_event = event;
    return ATT_OK;
}

struct att_slice parse_eventlog_digest_of(const struct parse_eventlog_event *event, uint16_t alg)
{
    for (size_t i = 0; i < event->n_digests; i++) {
        if (event->digests[i].alg == alg) {
            return event->digests[i].digest;
        }
    }
    return (struct att_slice){NULL, 0};
}

/* ---- replay -----------------------------------------------------------------------------------
 */

static void reset_values(struct parse_eventlog_pcrs *pcrs)
{
    for (unsigned i = 17; i <= 22; i++) {
        memset(pcrs->value[i], 0xFF, pcrs->digest_len);
    }
}

/* PFP 1.06 clause 10.4.5.3: PCR 0 starts at the locality of TPM2_Startup. */
static enum att_rc take_locality(struct parse_eventlog_pcrs *pcrs,
                                 const struct parse_eventlog_event *event, bool *seen,
                                 struct att_err *err)
{
    if (!has_signature(event->data, LOCALITY_SIGNATURE)) {
        return ATT_OK;
    }
    uint8_t locality = event->data.len == sizeof LOCALITY_SIGNATURE + 1
                           ? event->data.ptr[sizeof LOCALITY_SIGNATURE]
                           : 0xFF;
    if (locality != 0 && locality != 3 && locality != 4) {
        return bad_event(event, err, "StartupLocality is not 0, 3 or 4");
    }
    if (*seen) {
        return bad_event(event, err, "a second StartupLocality");
    }
    if (pcrs->with_events & 1) {
        return bad_event(event, err, "StartupLocality after PCR 0 was extended");
    }
    *seen = true;
    pcrs->startup_locality = locality;
    pcrs->value[0][pcrs->digest_len - 1] = locality;
    return ATT_OK;
}

static enum att_rc extend(struct parse_eventlog_pcrs *pcrs,
                          const struct parse_eventlog_event *event, struct att_err *err)
{
    struct att_slice digest = parse_eventlog_digest_of(event, pcrs->bank);
    if (digest.len != pcrs->digest_len) {
        return bad_event(event, err, "it has no digest of the replayed bank");
    }
    struct att_slice parts[] = {ATT_SLICE(pcrs->value[event->pcr], pcrs->digest_len), digest};
    size_t len = 0;
    uint8_t next[ATT_HASH_MAX];
    enum att_rc rc = att_hash_v(parse_alg_openssl_name(pcrs->bank), next, &len, parts, 2, err);
    if (rc != ATT_OK) {
        return rc;
    }
    memcpy(pcrs->value[event->pcr], next, pcrs->digest_len);
    pcrs->with_events |= (uint32_t)1 << event->pcr;
    pcrs->last_event[event->pcr] = event->number;
    return ATT_OK;
}

/* Values that are looked for on the way. */
struct watch {
    const struct parse_pcr_set *at;
    uint32_t passed; /* bit i: PCR i held its value of at */
};

static void look(struct watch *watch, const struct parse_eventlog_pcrs *pcrs, uint32_t pcr)
{
    if (watch && pcr < PARSE_PCR_COUNT && (watch->at->sel.mask >> pcr & 1) &&
        memcmp(pcrs->value[pcr], watch->at->value[pcr], pcrs->digest_len) == 0) {
        watch->passed |= (uint32_t)1 << pcr;
    }
}

static enum att_rc replay_all(struct parse_eventlog *log, struct parse_eventlog_pcrs *pcrs,
                              struct watch *watch, struct att_err *err)
{
    bool locality_seen = false;
    struct parse_eventlog_event event;
    enum att_rc rc;
    for (uint32_t pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        look(watch, pcrs, pcr);
    }
    while ((rc = parse_eventlog_next(log, &event, err)) == ATT_OK) {
        rc = event.type == PARSE_EV_NO_ACTION ? take_locality(pcrs, &event, &locality_seen, err)
                                              : extend(pcrs, &event, err);
        if (rc != ATT_OK) {
            return rc;
        }
        look(watch, pcrs, event.type == PARSE_EV_NO_ACTION ? 0 : event.pcr);
        pcrs->n_events++;
    }
    return rc == ATT_E_NOTFOUND ? ATT_OK : rc;
}

static enum att_rc replay(struct att_slice bytes, uint16_t bank, struct watch *watch,
                          struct parse_eventlog_pcrs *ret_pcrs, struct att_err *err)
{
    struct parse_eventlog log;
    enum att_rc rc = parse_eventlog_init(&log, bytes, err);
    if (rc != ATT_OK) {
        return rc;
    }
    const char *name = parse_alg_name(bank);
    if (!name || declared_len(&log, bank) == 0) {
        return att_fail(err, ATT_E_NOTFOUND, "event log: it has no %s bank", name ? name : "such");
    }
    struct parse_eventlog_pcrs pcrs;
    memset(&pcrs, 0, sizeof pcrs);
    pcrs.bank = bank;
    pcrs.digest_len = parse_alg_digest_len(bank);
    pcrs.crypto_agile = log.crypto_agile;
    reset_values(&pcrs);
    rc = replay_all(&log, &pcrs, watch, err);
    if (rc == ATT_OK) {
        *ret_pcrs = pcrs;
    }
    return rc;
}

enum att_rc parse_eventlog_replay(struct att_slice bytes, uint16_t bank,
                                  struct parse_eventlog_pcrs *ret_pcrs, struct att_err *err)
{
    return replay(bytes, bank, NULL, ret_pcrs, err);
}

enum att_rc parse_eventlog_passes(struct att_slice bytes, const struct parse_pcr_set *at,
                                  uint32_t *ret_mask, struct att_err *err)
{
    struct parse_eventlog_pcrs pcrs;
    struct watch watch = {.at = at};
    enum att_rc rc = replay(bytes, at->sel.bank, &watch, &pcrs, err);
    if (rc == ATT_OK) {
        *ret_mask = watch.passed;
    }
    return rc;
}

/* The first 8 bytes of each say which is which; a whole SHA-512 pair would not fit a message. */
static enum att_rc mismatch(const struct parse_eventlog_pcrs *replayed,
                            const struct parse_pcr_set *quoted, unsigned pcr, struct att_err *err)
{
    char ours[17], theirs[17];
    att_hex(ours, ATT_SLICE(replayed->value[pcr], 8));
    att_hex(theirs, ATT_SLICE(quoted->value[pcr], 8));
    enum att_rc rc;
    if (replayed->with_events >> pcr & 1) {
        rc =
            att_fail(err, ATT_E_DENIED,
                     "pcr%u event %zu: after this last event the log replays to %s…, the quote has "
                     "%s…",
                     pcr, replayed->last_event[pcr], ours, theirs);
    } else {
        rc = att_fail(err, ATT_E_DENIED,
                      "pcr%u: the log has no event, so %s… is expected, the quote has %s…", pcr,
                      ours, theirs);
    }
    att_err_reason(err, "logReplay");
    return rc;
}

enum att_rc parse_eventlog_check(const struct parse_eventlog_pcrs *replayed,
                                 const struct parse_pcr_set *quoted, uint32_t mask,
                                 struct att_err *err)
{
    if (!replayed->crypto_agile) {
        enum att_rc rc = att_fail(err, ATT_E_DENIED, "event log: a SHA-1 log proves nothing");
        att_err_reason(err, "logReplay");
        return rc;
    }
    if (replayed->bank != quoted->sel.bank || replayed->digest_len != quoted->digest_len) {
        return att_fail(err, ATT_E_INVAL, "event log: replayed in another bank than the quote's");
    }
    for (unsigned i = 0; i < PARSE_PCR_COUNT; i++) {
        if (!(mask >> i & 1) || !(quoted->sel.mask >> i & 1)) {
            continue;
        }
        if (!att_slice_eq(ATT_SLICE(replayed->value[i], replayed->digest_len),
                          ATT_SLICE(quoted->value[i], quoted->digest_len))) {
            return mismatch(replayed, quoted, i, err);
        }
    }
    return ATT_OK;
}
