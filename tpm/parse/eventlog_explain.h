/* The event log for people and for policies: type names, and what a payload means, said only where
 * the payload is what was hashed. */
#ifndef TPM_PARSE_EVENTLOG_EXPLAIN_H
#define TPM_PARSE_EVENTLOG_EXPLAIN_H

#include "attestd/base/json.h"
#include "tpm/parse/eventlog.h"

/* "EV_EFI_VARIABLE_BOOT"…; NULL for a type without a name. */
const char *parse_eventlog_type_name(uint32_t type);
/* The reverse; false for a name that is none. */
bool parse_eventlog_type_by_name(const char *name, uint32_t *ret_type);

/* How much of an event's payload is what was hashed. */
enum parse_eventlog_cover {
    PARSE_EVENTLOG_COVERS_NONE = 0, /* the payload is a comment: believe nothing in it */
    PARSE_EVENTLOG_COVERS_ALL,      /* the whole payload (or all but its final NUL) */
    PARSE_EVENTLOG_COVERS_PART,     /* only *ret_measured; the rest is a comment */
};

/* Does the payload have the event's digests (all of those libcrypto can compute, at least one)?
 * Part: the variable's data alone for EV_EFI_VARIABLE_BOOT (TCG EFI Platform 1.22 clause 7.8), what
 * stands after GRUB's "grub_cmd: ", "kernel_cmdline: ", "module_cmdline: " for EV_IPL. ret_measured
 * (may be NULL) borrows the measured bytes. Never more than NONE for types whose digest is of
 * something that is not in the log (images, firmware blobs, microcode, tables in memory). */
enum parse_eventlog_cover parse_eventlog_covers(const struct parse_eventlog_event *event,
                                                struct att_slice *ret_measured);

/* UEFI_VARIABLE_DATA, PFP 1.06 clause 10.2.6. Borrows; name_utf16 is little-endian UTF-16 without
 * NUL. */
struct parse_eventlog_variable {
    uint8_t guid[16];
    struct att_slice name_utf16, data;
};
ATT_MUST_USE enum att_rc parse_eventlog_variable(struct att_slice payload,
                                                 struct parse_eventlog_variable *ret_variable,
                                                 struct att_err *err);

/* {"format": "crypto-agile" | "sha1", "events": [{"event": N, "pcr": N, "type": "EV_…" | "0x…",
 * "digests": {"sha256": hex, …}, "size": N, "digestCoversPayload": bool, "measured": {"offset": N,
 * "length": N}, "payload": {…}}], "pcrs": {"sha256": {"0": hex, …}}}. measured is there where the
 * digest covers a part; payload where its form is known and could be read, and is a comment
 * wherever the digest does not cover it ("pcr" is absent for events that belong to none). pcrs has,
 * per bank, the PCRs that have events; a bank that cannot be replayed is {"error": sentence}. The
 * caller owns the result. Errors as in parse_eventlog_next. */
ATT_MUST_USE enum att_rc parse_eventlog_explain(struct att_slice bytes, json_t **ret_json,
                                                struct att_err *err);

#endif
