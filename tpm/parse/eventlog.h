/* The firmware's event log: TCG PC Client Platform Firmware Profile 1.06, clause 10; the SHA-1 form
 * of TCG EFI Protocol 1.22, which is parsed but proves nothing. Little endian, packed.
 *
 * An event's type is never hashed, and its payload only for some types: believe neither without
 * parse_eventlog_covers (eventlog_explain.h). */
#ifndef TPM_PARSE_EVENTLOG_H
#define TPM_PARSE_EVENTLOG_H

#include "attestd/base/err.h"
#include "attestd/base/slice.h"
#include "tpm/parse/pcr.h"
#include "tpm/parse/types.h"

#define PARSE_EVENTLOG_MAX       ((size_t)4 << 20)
#define PARSE_EVENTLOG_EVENT_MAX ((size_t)1 << 20)
#define PARSE_EVENTLOG_ALGS      16

/* Event types, PFP 1.06 clause 10.4.1 */
#define PARSE_EV_PREBOOT_CERT                  0x00000000u
#define PARSE_EV_POST_CODE                     0x00000001u
#define PARSE_EV_NO_ACTION                     0x00000003u
#define PARSE_EV_SEPARATOR                     0x00000004u
#define PARSE_EV_ACTION                        0x00000005u
#define PARSE_EV_EVENT_TAG                     0x00000006u
#define PARSE_EV_S_CRTM_CONTENTS               0x00000007u
#define PARSE_EV_S_CRTM_VERSION                0x00000008u
#define PARSE_EV_CPU_MICROCODE                 0x00000009u
#define PARSE_EV_PLATFORM_CONFIG_FLAGS         0x0000000Au
#define PARSE_EV_TABLE_OF_DEVICES              0x0000000Bu
#define PARSE_EV_COMPACT_HASH                  0x0000000Cu
#define PARSE_EV_IPL                           0x0000000Du
#define PARSE_EV_IPL_PARTITION_DATA            0x0000000Eu
#define PARSE_EV_NONHOST_CODE                  0x0000000Fu
#define PARSE_EV_NONHOST_CONFIG                0x00000010u
#define PARSE_EV_NONHOST_INFO                  0x00000011u
#define PARSE_EV_OMIT_BOOT_DEVICE_EVENTS       0x00000012u
#define PARSE_EV_POST_CODE2                    0x00000013u
#define PARSE_EV_EFI_EVENT_BASE                0x80000000u
#define PARSE_EV_EFI_VARIABLE_DRIVER_CONFIG    0x80000001u
#define PARSE_EV_EFI_VARIABLE_BOOT             0x80000002u
#define PARSE_EV_EFI_BOOT_SERVICES_APPLICATION 0x80000003u
#define PARSE_EV_EFI_BOOT_SERVICES_DRIVER      0x80000004u
#define PARSE_EV_EFI_RUNTIME_SERVICES_DRIVER   0x80000005u
#define PARSE_EV_EFI_GPT_EVENT                 0x80000006u
#define PARSE_EV_EFI_ACTION                    0x80000007u
#define PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB    0x80000008u
#define PARSE_EV_EFI_HANDOFF_TABLES            0x80000009u
#define PARSE_EV_EFI_PLATFORM_FIRMWARE_BLOB2   0x8000000Au
#define PARSE_EV_EFI_HANDOFF_TABLES2           0x8000000Bu
#define PARSE_EV_EFI_VARIABLE_BOOT2            0x8000000Cu
#define PARSE_EV_EFI_GPT_EVENT2                0x8000000Du
#define PARSE_EV_EFI_HCRTM_EVENT               0x80000010u
#define PARSE_EV_EFI_VARIABLE_AUTHORITY        0x800000E0u
#define PARSE_EV_EFI_SPDM_FIRMWARE_BLOB        0x800000E1u
#define PARSE_EV_EFI_SPDM_FIRMWARE_CONFIG      0x800000E2u

struct parse_eventlog_digest {
    uint16_t alg;
    struct att_slice digest;
};

/* Borrows the log's bytes. */
struct parse_eventlog_event {
    size_t number; /* 0 is the Spec ID event, or the first of a SHA-1 log */
    size_t offset; /* of its first byte in the log */
    uint32_t pcr;  /* < 24, or PARSE_EVENTLOG_NO_PCR for EV_NO_ACTION events that name 0xFFFFFFFF */
    uint32_t type;
    size_t n_digests;
    struct parse_eventlog_digest digests[PARSE_EVENTLOG_ALGS];
    struct att_slice data;
};
#define PARSE_EVENTLOG_NO_PCR 0xFFFFFFFFu

/* An iterator over a log. Borrows the bytes, allocates nothing, may be copied. */
struct parse_eventlog {
    struct att_slice bytes;
    int crypto_agile; /* 0: the SHA-1 form */
    size_t n_algs;    /* SHA-1 form: 1 */
    struct {
        uint16_t alg, len;
    } algs[PARSE_EVENTLOG_ALGS];
    size_t pos, number; /* of the next event */
};

/* Looks at record 0. ATT_E_LIMIT above PARSE_EVENTLOG_MAX; an empty log is ATT_E_PARSE. */
ATT_MUST_USE enum att_rc parse_eventlog_init(struct parse_eventlog *ret_log, struct att_slice bytes,
                                             struct att_err *err);
/* The next event (the first call gives record 0). ATT_E_NOTFOUND: no more; err is not touched then.
 * A tail of nothing but 0x00 or nothing but 0xFF ends the log. A crypto-agile event has digests
 * only of algorithms that record 0 names, none twice, at least one. Messages name the event: "pcr7
 * event 41: …". After an error the iterator must not be used again. */
ATT_MUST_USE enum att_rc parse_eventlog_next(struct parse_eventlog *log,
                                             struct parse_eventlog_event *ret_event,
                                             struct att_err *err);
/* The event's digest of that algorithm; an empty slice when it has none. */
struct att_slice parse_eventlog_digest_of(const struct parse_eventlog_event *event, uint16_t alg);

/* What the PCRs of one bank hold after the log's events. */
struct parse_eventlog_pcrs {
    uint16_t bank;
    size_t digest_len;
    int crypto_agile;
    uint8_t value[PARSE_PCR_COUNT][PARSE_DIGEST_MAX];
    uint32_t with_events; /* bit i: PCR i was extended; the others hold their reset value */
    size_t last_event[PARSE_PCR_COUNT]; /* number of the last event extended, where there is one */
    size_t n_events;
    uint8_t startup_locality; /* 0 where the log does not say */
};

/* Replays: EV_NO_ACTION is not extended; PCR 0 starts as StartupLocality says; PCRs 17–22 start at
 * all ones. ATT_E_NOTFOUND when the log lacks the bank; ATT_E_PARSE as in parse_eventlog_next, or
 * when StartupLocality comes twice or after PCR 0 was extended. */
ATT_MUST_USE enum att_rc parse_eventlog_replay(struct att_slice bytes, uint16_t bank,
                                               struct parse_eventlog_pcrs *ret_pcrs,
                                               struct att_err *err);
/* Bit i of ret_mask: at some point of the replay, start and end included, PCR i held its value of
 * at (PCRs outside at's selection: 0). So a log goes on from earlier values, or starts again.
 * Errors as in parse_eventlog_replay, whose bank is at's. */
ATT_MUST_USE enum att_rc parse_eventlog_passes(struct att_slice bytes,
                                               const struct parse_pcr_set *at, uint32_t *ret_mask,
                                               struct att_err *err);
/* Do these PCRs (quoted and selected, those in mask) have the replayed values? A PCR without events
 * must hold its reset value. ATT_E_DENIED, reason "logReplay", message like "pcr7 event 41: after
 * this last event the log replays to …, the quote has …"; ATT_E_INVAL when the banks differ. A
 * SHA-1 log is refused. */
ATT_MUST_USE enum att_rc parse_eventlog_check(const struct parse_eventlog_pcrs *replayed,
                                              const struct parse_pcr_set *quoted, uint32_t mask,
                                              struct att_err *err);

#endif
