/* The event logs that travel with a quote: the `logs` member (JSON, gzip) and the log manifest
 * (CBOR) by which a signature covers them. docs/PROTOCOL.md, "Common members". */
#ifndef ATTESTD_PROVISION_EVIDENCE_LOGS_H
#define ATTESTD_PROVISION_EVIDENCE_LOGS_H

#include "attestd/base/hash.h"
#include "attestd/base/json.h"

#define EVIDENCE_LOGS_MAX     3
#define EVIDENCE_LOG_MAX      ((size_t)4 << 20) /* bytes of a log unpacked */
#define EVIDENCE_TAIL_MAX     ((size_t)64 << 10)
#define EVIDENCE_LOG_NAME_LEN 16 /* with the NUL */
#define EVIDENCE_MANIFEST_MAX ((size_t)1 << 10)

/* name: "firmware", "systemd", "ima". data is empty where only the digest is known (the other side
 * has the bytes already); has_data tells that from an empty log. length and sha256, and so every
 * signature, are of the log without its tail. */
struct evidence_log {
    char name[EVIDENCE_LOG_NAME_LEN];
    uint64_t length; /* bytes unpacked */
    uint8_t sha256[ATT_SHA256_LEN];
    bool has_data;
    struct att_buf data;
    /* What the log had grown by when it was read again after the quote; only replay to the quoted
     * PCRs binds it. Never of the firmware's. */
    struct att_buf tail;
    /* The log begins with these bytes, which the other side may have: then only the rest travels.
     * After parsing, until evidence_logs_supply: has_data is false and data has the rest. */
    bool has_base;
    uint64_t base_length;
    uint8_t base_sha256[ATT_SHA256_LEN];
};
/* Owns; sorted by name, no name twice. {0} is the empty set. */
struct evidence_logs {
    struct evidence_log log[EVIDENCE_LOGS_MAX];
    size_t n;
};
void evidence_logs_done(struct evidence_logs *logs);
bool evidence_log_name_known(const char *name);
/* Copies the bytes, computes length and digest, keeps the order. ATT_E_EXISTS, ATT_E_INVAL (name),
 * ATT_E_LIMIT. */
ATT_MUST_USE enum att_rc evidence_logs_add(struct evidence_logs *logs, const char *name,
                                           struct att_slice bytes, struct att_err *err);
/* The tail of a log that is there; at most EVIDENCE_TAIL_MAX (ATT_E_LIMIT), none for the firmware's
 * (ATT_E_INVAL). Replaces an earlier one. */
ATT_MUST_USE enum att_rc evidence_logs_set_tail(struct evidence_logs *logs, const char *name,
                                                struct att_slice bytes, struct att_err *err);
/* Says that the other side may have its first length bytes, which have this SHA-256. */
ATT_MUST_USE enum att_rc evidence_logs_set_base(struct evidence_logs *logs, const char *name,
                                                uint64_t length,
                                                const uint8_t sha256[ATT_SHA256_LEN],
                                                struct att_err *err);
/* NULL when absent. */
const struct evidence_log *evidence_logs_find(const struct evidence_logs *logs, const char *name);

/* The JSON array. Logs whose digest is among known travel without data, those whose base is among
 * them with the rest only. The caller owns *ret_json. */
ATT_MUST_USE enum att_rc evidence_logs_encode(const struct evidence_logs *logs,
                                              const uint8_t (*known)[ATT_SHA256_LEN],
                                              size_t n_known, json_t **ret_json,
                                              struct att_err *err);
/* Unpacks with EVIDENCE_LOG_MAX as the bound, and compares length and SHA-256 with what is there.
 * json NULL is the empty set. Any order on the wire, sorted in ret_logs. */
ATT_MUST_USE enum att_rc evidence_logs_parse(const json_t *json, struct evidence_logs *ret_logs,
                                             struct att_err *err);
/* Fills a log that came without data, or with what stands behind its base, from bytes the caller
 * had (the log, or the base); ATT_E_AUTH when they are not those. */
ATT_MUST_USE enum att_rc evidence_logs_supply(struct evidence_logs *logs, const char *name,
                                              struct att_slice bytes, struct att_err *err);

/* The log manifest, deterministic CBOR; appended. */
ATT_MUST_USE enum att_rc evidence_manifest_encode(const struct evidence_logs *logs,
                                                  struct att_buf *ret_cbor, struct att_err *err);
/* Names, lengths and digests; has_data is false in all. */
ATT_MUST_USE enum att_rc evidence_manifest_parse(struct att_slice cbor,
                                                 struct evidence_logs *ret_logs,
                                                 struct att_err *err);
/* Same names, lengths and digests? */
bool evidence_logs_match(const struct evidence_logs *a, const struct evidence_logs *b);

/* One gzip member, no file name, no time: the same bytes give the same text. Appended. */
ATT_MUST_USE enum att_rc evidence_gzip(struct att_slice bytes, struct att_buf *ret_gz,
                                       struct att_err *err);
/* Exactly one member, nothing after it, at most max bytes unpacked (ATT_E_LIMIT). Appended. */
ATT_MUST_USE enum att_rc evidence_gunzip(struct att_slice gz, size_t max, struct att_buf *ret_bytes,
                                         struct att_err *err);

#endif
