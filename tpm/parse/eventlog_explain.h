/* The event log for people and for policies: type names, and what a payload means, said only where
 * the payload is what was hashed. */
#ifndef TPM_PARSE_EVENTLOG_EXPLAIN_H
#define TPM_PARSE_EVENTLOG_EXPLAIN_H

#include "attestd/base/json.h"
#include "tpm/parse/eventlog.h"

/* "EV_EFI_VARIABLE_BOOT"…; NULL for a type without a name. */
const char *parse_eventlog_type_name(uint32_t type);

/* Is H(what of the payload is measured) equal to every digest of the event? 1: the payload may be
 * believed as far as its PCR's value is. 0: the payload is a comment. The measured bytes are the
 * payload itself; for EV_EFI_VARIABLE_BOOT also the variable's data alone, and for EV_IPL the text
 * without its NUL (what GRUB and systemd measure). *ret_measured (may be NULL) borrows them.
 * Always 0 for types whose digest is of something that is not in the log (images, firmware blobs).
 */
int parse_eventlog_covers(const struct parse_eventlog_event *event, struct att_slice *ret_measured);

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
 * "digests": {"sha256": hex, …}, "digestCoversPayload": bool, "payload": {…} | absent}], "pcrs":
 * {"sha256": {"0": hex, …}}} with the PCRs that have events. payload is there only where it could
 * be read; where digestCoversPayload is false it is a comment, and "payloadNote" says so. The
 * caller owns the result. Errors as in parse_eventlog_next. */
ATT_MUST_USE enum att_rc parse_eventlog_explain(struct att_slice bytes, json_t **ret_json,
                                                struct att_err *err);

#endif
