/* The events of a boot as a policy looks at them: of the firmware's and systemd's logs, in the
 * order in which they were extended, with what their payload says only where the payload was
 * hashed. Of logs that replay to the quoted PCRs. */
#ifndef ATTESTD_VERIFY_BOOTLOG_H
#define ATTESTD_VERIFY_BOOTLOG_H

#include "attestd/base/hash.h"
#include "provision/verify/components.h"
#include "provision/verify/logs.h"

#define VERIFY_BOOT_EVENTS_MAX 4096

struct verify_event {
    uint32_t log; /* VERIFY_LOG_FIRMWARE or _SYSTEMD */
    unsigned pcr;
    size_t number; /* in its log */
    uint32_t type_code;
    char type[VERIFY_TYPE_MAX + 1]; /* "EV_IPL", "0x80000099", "phase" */
    char name[VERIFY_NAME_MAX + 1]; /* as in a component; a comment unless covered */
    uint8_t digest[PARSE_DIGEST_MAX];
    bool covered; /* the digest is that of the payload, or of its text */
    char *text;   /* what was hashed, where it is text; NULL otherwise */
    char *hint;   /* a comment for people: an image's file; may be NULL */
    bool has_signer;
    uint8_t signer[ATT_SHA256_LEN];
};

struct verify_bootlog {
    struct verify_event *list;
    size_t n, room;
    size_t digest_len;
    bool too_many; /* more than VERIFY_BOOT_EVENTS_MAX: list is not all */
};

struct verify_bootlog_in {
    uint16_t bank;
    uint32_t pcr_mask;         /* events of other PCRs are passed over */
    struct att_slice firmware; /* empty: no such log */
    struct att_slice systemd;  /* as far as it was replayed */
};

/* ATT_E_NOMEM; ATT_E_PARSE for logs that do not parse. */
ATT_MUST_USE enum att_rc verify_bootlog_read(const struct verify_bootlog_in *in,
                                             struct verify_bootlog *ret, struct att_err *err);
void verify_bootlog_done(struct verify_bootlog *bootlog);

/* Text as a component's variant compares it; NULL where the bytes are none. The caller frees it. */
char *verify_text_of(struct att_slice bytes);
/* The certificate (DER) in an EV_EFI_VARIABLE_AUTHORITY's variable; empty where there is none. */
struct att_slice verify_signer_of(struct att_slice variable_data);

#endif
