/* The components of a boot policy: what a good boot measures, in the order of the log, each with
 * the variants that are allowed. In the policy's JSON: "components": [{"id": "kernel", "log":
 * "firmware" | "systemd"?, "pcr": 4, "type": "EV_EFI_BOOT_SERVICES_APPLICATION", "name":
 * "SecureBoot"?, "count": "one" | "optional" | "some" | "any"?, "severity": "refuse" | "warn" |
 * "info"?, "remedy": text?, "variants": [{"digest": hex} | {"signer": hex} | {"text": text} |
 *     {"pattern": glob}, each with "label"?, "notBefore"?, "notAfter"?]}, …]
 *
 * id: 1-64 of [a-z0-9._-], unique. type: of the firmware's log the type's name or "0x…"; of
 * systemd's the record's eventType. name: of a UEFI variable, an EV_EVENT_TAG's id ("0x8f3b22ec"),
 * the label of a GRUB event ("kernel_cmdline"); absent: any. log, pcr, type and name say which
 * event is meant, and prove nothing by themselves: types and GRUB's labels are not hashed, so where
 * EV_IPL components of one PCR have different names none of them may have a pattern. count: one
 * (the default), optional (0-1), some (1 and more), any (0 and more).
 *
 * A variant is a digest of the policy's bank; or signer, SHA-256 of the certificate (DER) by which
 * an EV_EFI_VARIABLE_AUTHORITY says that an image was allowed; or text, the exact text that was
 * hashed; or pattern, that text with "*" for any run of characters and "?" for one. signer, text
 * and pattern look only at payloads whose digest is that of the payload. Text that was hashed as
 * UTF-16 is compared as its ASCII, a final NUL left away; text with other characters can be allowed
 * by digest only. notBefore, notAfter: RFC 3339, a window of its own inside the policy's. */
#ifndef ATTESTD_VERIFY_COMPONENTS_H
#define ATTESTD_VERIFY_COMPONENTS_H

#include "provision/verify/findings.h"
#include "tpm/parse/pcr.h"

#define VERIFY_COMPONENTS_MAX 512
#define VERIFY_VARIANTS_MAX   256 /* of a component */
#define VERIFY_TEXT_MAX       4096
#define VERIFY_PATTERN_MAX    512
#define VERIFY_LABEL_MAX      256
#define VERIFY_TYPE_MAX       48
#define VERIFY_NAME_MAX       64

enum verify_variant_kind {
    VERIFY_VARIANT_DIGEST = 1,
    VERIFY_VARIANT_SIGNER,
    VERIFY_VARIANT_TEXT,
    VERIFY_VARIANT_PATTERN,
};

struct verify_variant {
    enum verify_variant_kind kind;
    uint8_t digest[PARSE_DIGEST_MAX]; /* digest (of the bank), signer (32 bytes) */
    const char *text;                 /* text, pattern; borrowed from the policy */
    const char *label;                /* NULL: none */
    int64_t not_before, not_after;    /* UTC seconds; 0: open */
};

enum verify_count {
    VERIFY_COUNT_ONE = 0,
    VERIFY_COUNT_OPTIONAL,
    VERIFY_COUNT_SOME,
    VERIFY_COUNT_ANY,
};

struct verify_component {
    char id[VERIFY_COMPONENT_ID_MAX + 1];
    uint32_t log; /* VERIFY_LOG_FIRMWARE or VERIFY_LOG_SYSTEMD */
    unsigned pcr;
    char type[VERIFY_TYPE_MAX + 1];
    uint32_t type_code;             /* of the firmware's log */
    char name[VERIFY_NAME_MAX + 1]; /* "": any */
    enum verify_count count;
    enum verify_severity severity; /* UNSET: the policy's for the finding's id */
    const char *remedy;            /* NULL: the finding's own */
    struct verify_variant *variants;
    size_t n_variants;
};

struct verify_components {
    struct verify_component *list;
    size_t n;
    uint32_t pcr_mask; /* PCRs of the components */
    uint32_t logs;     /* VERIFY_LOG_* of the components */
};

const char *verify_count_word(enum verify_count count);
bool verify_count_required(enum verify_count count); /* one, some */
bool verify_count_repeats(enum verify_count count);  /* some, any */

/* json: the member's value, which must stay as long as the components do. digest_len: the bank's.
 */
ATT_MUST_USE enum att_rc verify_components_parse(const json_t *json, size_t digest_len,
                                                 struct verify_components *ret,
                                                 struct att_err *err);
void verify_components_done(struct verify_components *components);

/* "*" any run, "?" one character; the whole text. In time of text times pattern at worst. */
bool verify_glob(const char *pattern, const char *text);

#endif
