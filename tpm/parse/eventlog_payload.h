/* Internal to tpm/parse: what an event's payload says, as JSON for people. */
#ifndef TPM_PARSE_EVENTLOG_PAYLOAD_H
#define TPM_PARSE_EVENTLOG_PAYLOAD_H

#include "attestd/base/json.h"
#include "tpm/parse/eventlog.h"

/* A new JSON object; NULL when the type's form is not known, the payload does not have it, or there
 * is no memory. The payload is hostile: nothing here says that it is true. */
json_t *parse_eventlog_payload_json(const struct parse_eventlog_event *event);

/* A UEFI device path as text ("PciRoot(0x0)/Pci(0x1,0x1)/…/\EFI\BOOT\BOOTX64.EFI"), a new JSON
 * string; NULL when it is malformed. PFP names it in UEFI_IMAGE_LOAD_EVENT; UEFI 2.10 clause 10. */
json_t *parse_eventlog_device_path_json(struct att_slice path);

/* UTF-16LE up to its first NUL as a new JSON string; what is no character becomes U+FFFD. NULL for
 * an odd number of bytes. */
json_t *parse_eventlog_utf16_json(struct att_slice utf16);

#define PARSE_GUID_TEXT_LEN 37
/* "8be4df61-93ca-11d2-aa0d-00e098032b8c" of the 16 bytes in their mixed order. */
void parse_eventlog_guid_text(char ret[PARSE_GUID_TEXT_LEN], const uint8_t guid[16]);

#endif
