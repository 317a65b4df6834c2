#include "provision/verify/steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* "a.b.c.d" or a prefix of it: the parts as 16-bit groups of the firmware version, most significant
 * first. 0: not of that form. */
static size_t dotted_parts(const char *text, uint16_t ret_parts[4])
{
    size_t n = 0;
    while (n < 4) {
        size_t digits = strspn(text, "0123456789");
        if (digits < 1 || digits > 5) {
            return 0;
        }
        unsigned long value = strtoul(text, NULL, 10);
        if (value > UINT16_MAX) {
            return 0;
        }
        ret_parts[n++] = (uint16_t)value;
        text += digits;
        if (*text == '\0') {
            return n;
        }
        if (*text != '.') {
            return 0;
        }
        text++;
    }
    return 0;
}

/* "53544D20" of "id:53544D20"; NULL when it is not of that form. */
static const char *hex_of_id(const char *text)
{
    bool form = text && !strncmp(text, "id:", 3) && strlen(text) == 11 &&
                strspn(text + 3, "0123456789abcdefABCDEF") == 8;
    return form ? text + 3 : NULL;
}

/* "id:00010102" or "id:0001010200000000": the version's parts in hex, two or all four of them. */
static size_t version_of_id(const char *text, uint16_t ret_parts[4])
{
    size_t len = !strncmp(text, "id:", 3) ? strlen(text + 3) : 0;
    if ((len != 8 && len != 16) || strspn(text + 3, "0123456789abcdefABCDEF") != len) {
        return 0;
    }
    unsigned long long value = strtoull(text + 3, NULL, 16);
    for (size_t i = 0; i < len / 4; i++) {
        ret_parts[i] = (uint16_t)(value >> (4 * (len - 4 * (i + 1))));
    }
    return len / 4;
}

static size_t version_parts(const char *text, uint16_t ret_parts[4])
{
    size_t n = version_of_id(text, ret_parts);
    return n ? n : dotted_parts(text, ret_parts);
}

enum att_rc verify_deny_check(const struct verify_deny *deny, struct att_err *err)
{
    size_t len = deny->manufacturer ? strlen(deny->manufacturer) : 0;
    if ((len < 1 || len > 4) && !hex_of_id(deny->manufacturer)) {
        return att_fail(err, ATT_E_PARSE,
                        "deny list: manufacturer: expected 1-4 characters or id: and 8 hex digits");
    }
    for (size_t i = 0; i < deny->n_versions; i++) {
        uint16_t parts[4];
        if (!deny->versions[i] || !version_parts(deny->versions[i], parts)) {
            return att_fail(err, ATT_E_PARSE,
                            "deny list: versions[%zu]: expected a.b.c.d, each 0-65535, or its "
                            "beginning, or id: and 8 or 16 hex digits, found \"%.40s\"",
                            i, deny->versions[i] ? deny->versions[i] : "");
        }
    }
    return ATT_OK;
}

/* "STM " as the 8 hex digits of TPM_PT_MANUFACTURER; makers pad with spaces or with NUL. */
static bool is_manufacturer(const char *name, const char *hex)
{
    static const char pads[] = {' ', '\0'};
    if (hex_of_id(name)) {
        return !strcasecmp(hex_of_id(name), hex);
    }
    size_t len = strlen(name);
    while (len > 0 && name[len - 1] == ' ') {
        len--;
    }
    for (size_t i = 0; i < sizeof(pads); i++) {
        unsigned char id[4];
        char text[9];
        for (size_t k = 0; k < 4; k++) {
            id[k] = (unsigned char)(k < len ? name[k] : pads[i]);
        }
        (void)snprintf(text, sizeof(text), "%02x%02x%02x%02x", id[0], id[1], id[2], id[3]);
        if (!strcasecmp(text, hex)) {
            return true;
        }
    }
    return false;
}

/* How many of the four parts are known (an EK certificate states two). A rule that is finer does
 * not match; or, where nobody will ever say more, matches by what is known. */
struct known {
    const uint16_t *version;
    size_t n;
    bool last;
};

static const char *rule_that_denies(const struct verify_deny *deny, const struct known *known)
{
    if (deny->n_versions == 0) {
        return "all versions";
    }
    for (size_t i = 0; i < deny->n_versions; i++) {
        uint16_t parts[4];
        size_t n = version_parts(deny->versions[i], parts);
        bool finer = n > known->n;
        size_t same = finer ? known->n : n;
        if (n > 0 && (!finer || known->last) &&
            !memcmp(parts, known->version, same * sizeof(parts[0]))) {
            return deny->versions[i];
        }
    }
    return NULL;
}

static void split_version(uint64_t version, uint16_t ret[4])
{
    for (int i = 0; i < 4; i++) {
        ret[i] = (uint16_t)(version >> (48 - 16 * i));
    }
}

static bool denied(const struct verify_deny *deny, size_t n_deny, const char *manufacturer,
                   const struct known *known, const char *who, struct verify_verdict *verdict)
{
    const uint16_t *version = known->version;
    if (!strncmp(manufacturer, "id:", 3)) {
        manufacturer += 3;
    }
    for (size_t i = 0; i < n_deny; i++) {
        if (!is_manufacturer(deny[i].manufacturer, manufacturer)) {
            continue;
        }
        const char *rule = rule_that_denies(&deny[i], known);
        if (rule) {
            verify_fail(verdict, VERIFY_REASON_FIRMWARE_DENIED,
                        "the deny list has manufacturer \"%s\", %s; %s %s, version %u.%u.%u.%u",
                        deny[i].manufacturer, rule, who, manufacturer, version[0], version[1],
                        version[2], version[3]);
            return true;
        }
    }
    return false;
}

enum verify_result verify_firmware(const struct verify_deny *deny, size_t n_deny,
                                   const char *manufacturer, uint64_t quoted_version,
                                   const uint64_t *claimed, struct verify_verdict *verdict)
{
    static const enum verify_reason plan[] = {VERIFY_REASON_FIRMWARE_DENIED};
    uint16_t version[4];
    const struct known known = {version, 4, false};
    verify_plan(verdict, plan, 1);
    split_version(quoted_version, version);
    if (claimed && *claimed != quoted_version) {
        verify_fail(verdict, VERIFY_REASON_FIRMWARE_DENIED,
                    "the host claims firmware version %016llx, its TPM signs %016llx",
                    (unsigned long long)*claimed, (unsigned long long)quoted_version);
    } else if (!denied(deny, n_deny, manufacturer, &known, "the TPM signs", verdict)) {
        verify_pass(verdict, VERIFY_REASON_FIRMWARE_DENIED,
                    "firmware %u.%u.%u.%u, as the TPM signs it, is not denied", version[0],
                    version[1], version[2], version[3]);
    }
    return verify_verdict_result(verdict);
}

/* The certificate's "id:00020003" is the upper half of the firmware version: TCG EK Credential
 * Profile 2.6 §3.1.2. */
static bool certificate_version(const char *text, uint16_t ret[4])
{
    if (strncmp(text, "id:", 3) != 0 || strlen(text) != 11 ||
        strspn(text + 3, "0123456789abcdefABCDEF") != 8) {
        return false;
    }
    unsigned long value = strtoul(text + 3, NULL, 16);
    ret[0] = (uint16_t)(value >> 16);
    ret[1] = (uint16_t)value;
    ret[2] = ret[3] = 0;
    return true;
}

bool verify_step_deny(const struct verify_ek_in *in, const struct verify_ek_facts *facts,
                      struct verify_verdict *verdict)
{
    uint16_t certified[4] = {0}, said[4];
    struct known by_cert = {certified, certificate_version(facts->version, certified) ? 2 : 0,
                            false};
    struct known by_host = {said, !in->have_version ? 0 : in->half ? 2 : 4, false};
    by_host.last = in->half && by_host.n > 0;
    by_cert.last = in->half && (by_cert.n > 0 || by_host.n == 0);
    split_version(in->version, said);
    if (denied(in->deny, in->n_deny, facts->manufacturer, &by_cert, "the EK certificate says",
               verdict)) {
        return false;
    }
    const char *claimed = in->manufacturer[0] ? in->manufacturer : facts->manufacturer;
    if (denied(in->deny, in->n_deny, claimed, &by_host, "the host says", verdict)) {
        return false;
    }
    /* A host that claims another maker does not get round the rules for the certificate's. */
    if (in->have_version &&
        denied(in->deny, in->n_deny, facts->manufacturer, &by_host, "the host says", verdict)) {
        return false;
    }
    verify_pass(verdict, VERIFY_REASON_FIRMWARE_DENIED,
                "manufacturer %s is not denied with what is known of its firmware",
                facts->manufacturer);
    return true;
}

enum verify_result verify_firmware_unsigned(const struct verify_deny *deny, size_t n_deny,
                                            const char *manufacturer, const char *version,
                                            const char *claimed, struct verify_verdict *verdict)
{
    static const enum verify_reason plan[] = {VERIFY_REASON_FIRMWARE_DENIED};
    struct verify_ek_facts facts = {0};
    const struct verify_ek_in in = {.deny = deny,
                                    .n_deny = n_deny,
                                    .have_version = claimed[0] != 0,
                                    .version = strtoull(claimed, NULL, 16) << 32,
                                    .half = true};
    snprintf(facts.manufacturer, sizeof facts.manufacturer, "%s", manufacturer);
    snprintf(facts.version, sizeof facts.version, "%s", version);
    verify_plan(verdict, plan, 1);
    (void)verify_step_deny(&in, &facts, verdict);
    return verify_verdict_result(verdict);
}
