/* What a boot policy found in a boot: each finding has an id, a severity, what it is about, and
 * what to do about it. All are collected; the severity decides whether one refuses, the profile's
 * mode whether refusing is done. The words are a contract: add, never rename. */
#ifndef ATTESTD_VERIFY_FINDINGS_H
#define ATTESTD_VERIFY_FINDINGS_H

#include "attestd/base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#define VERIFY_FINDINGS_MAX       64
#define VERIFY_FINDING_DETAIL_MAX 320
#define VERIFY_REMEDY_MAX         256
#define VERIFY_COMPONENT_ID_MAX   64

/* X(constant, word, remedy where the policy gives none) */
#define VERIFY_FINDINGS(X)                                                                         \
    X(BANK, "bank", "quote the bank that the policy is written for, or write one for this bank")   \
    X(PCR_UNCOVERED, "pcrUncovered",                                                               \
      "add the PCR to the profile's pcrs, or take it out of the "                                  \
      "policy")                                                                                    \
    X(PCR_VALUE, "pcrValue",                                                                       \
      "find out what changed (attestctl eventlog show); allow the new "                            \
      "value only if the change was yours")                                                        \
    X(VARIANT_UNKNOWN, "variantUnknown",                                                           \
      "find out who changed this component; if the change was "                                    \
      "yours, add its digest as a variant and apply the policy")                                   \
    X(VARIANT_EXPIRED, "variantExpired",                                                           \
      "update the host to a variant that is still allowed, or "                                    \
      "prolong its window")                                                                        \
    X(VARIANT_NOT_YET_VALID, "variantNotYetValid",                                                 \
      "the host is ahead of the roll-out: wait, or "                                               \
      "move the variant's notBefore")                                                              \
    X(PAYLOAD_UNCHECKED, "payloadUnchecked",                                                       \
      "allow this component by digest: its event's text "                                          \
      "is not what was hashed")                                                                    \
    X(COMPONENT_MISSING, "componentMissing",                                                       \
      "find out why it was not measured; if it may be "                                            \
      "absent, say count: optional")                                                               \
    X(COMPONENT_DUPLICATED, "componentDuplicated",                                                 \
      "find out what measured it again; if that is "                                               \
      "healthy, say count: some or any")                                                           \
    X(COMPONENT_ORDER, "componentOrder",                                                           \
      "find out what changed the order of the boot; the "                                          \
      "policy lists components in the order of the log")                                           \
    X(EVENT_UNEXPECTED, "eventUnexpected",                                                         \
      "find out what measured it; if it belongs to a good "                                        \
      "boot, add a component for it")                                                              \
    X(TOO_MANY_EVENTS, "tooManyEvents", "no healthy boot has that many events: look at the log")   \
    X(IMA_UNLISTED, "imaUnlisted",                                                                 \
      "find out what put the file there; if it belongs there, add it to an allow list (attestctl " \
      "allowlist draft) and apply list and policy")                                                \
    X(IMA_DIGEST, "imaDigest",                                                                     \
      "find out who changed the file; if it was an update of yours, add its digest to an allow "   \
      "list; the entry of the old one stays in the list until the host reboots")                   \
    X(IMA_WINDOW, "imaWindow",                                                                     \
      "update the file and reboot the host, or move the window of the allow list that has it")     \
    X(IMA_TEMPLATE, "imaTemplate",                                                                 \
      "boot with ima_template=ima-ng and ima_hash=sha256, or others that the policy takes")        \
    X(IMA_SIGNATURE, "imaSignature",                                                               \
      "find out who changed the file or its signature; install it again from its package")         \
    X(IMA_VIOLATION, "imaViolation",                                                               \
      "find out what was open for writing while it was measured (the kernel's audit log has it: "  \
      "open_writers, ToMToU), and reboot; or say imaViolations: allow")                            \
    X(IMA_EXCLUDED, "imaExcluded", "nothing has to be done: the policy leaves these names open")

enum verify_finding_id {
#define VERIFY_FINDING_ENUM(id, word, remedy) VERIFY_FINDING_##id,
    VERIFY_FINDINGS(VERIFY_FINDING_ENUM)
#undef VERIFY_FINDING_ENUM
        VERIFY_FINDING_COUNT
};

enum verify_severity {
    VERIFY_SEVERITY_UNSET = 0, /* refuse, where it counts */
    VERIFY_SEVERITY_REFUSE,
    VERIFY_SEVERITY_WARN,
    VERIFY_SEVERITY_INFO,
};

/* What a profile does with findings that refuse. Only ENFORCE refuses for them; a policy that is
 * missing, expired or not signed as demanded refuses in every mode. */
enum verify_mode {
    VERIFY_MODE_ENFORCE = 0,
    VERIFY_MODE_WARN,    /* recorded, logged as a warning */
    VERIFY_MODE_OBSERVE, /* recorded */
};

struct verify_finding {
    enum verify_finding_id id;
    enum verify_severity severity;
    char component[VERIFY_COMPONENT_ID_MAX + 1]; /* "" where it is about none */
    const char *log;                             /* static; NULL where it is about no event */
    unsigned pcr;                                /* PARSE_PCR_COUNT where it is about none */
    size_t event;                                /* number in log */
    char detail[VERIFY_FINDING_DETAIL_MAX];      /* "pcr4 event 10 (kernel): …" */
    char remedy[VERIFY_REMEDY_MAX];
};

const char *verify_finding_word(enum verify_finding_id id);
const char *verify_finding_remedy(enum verify_finding_id id); /* where the policy gives none */
/* ATT_E_NOTFOUND for a word that is none. */
ATT_MUST_USE enum att_rc verify_finding_from_word(const char *word, enum verify_finding_id *ret);
const char *verify_severity_word(enum verify_severity severity); /* "refuse" "warn" "info" */
ATT_MUST_USE enum att_rc verify_severity_from_word(const char *word, enum verify_severity *ret);
const char *verify_mode_word(enum verify_mode mode); /* "enforce" "warn" "observe" */
ATT_MUST_USE enum att_rc verify_mode_from_word(const char *word, enum verify_mode *ret);

/* {"id", "severity", "component"?, "log"?, "pcr"?, "event"?, "detail", "remedy"}; NULL without
 * memory. */
json_t *verify_finding_json(const struct verify_finding *finding);

#endif
