/* Reading the components of a boot policy. */
#include "provision/verify/components.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/hash.h"
#include "attestd/base/json.h"
#include "provision/verify/logs.h"
#include "provision/verify/members.h"
#include "tpm/parse/eventlog_explain.h"

#include <stdlib.h>
#include <string.h>

static const char *const counts[] = {"one", "optional", "some", "any"};

const char *verify_count_word(enum verify_count count)
{
    return counts[(unsigned)count < 4 ? count : 0];
}

bool verify_count_required(enum verify_count count)
{
    return count == VERIFY_COUNT_ONE || count == VERIFY_COUNT_SOME;
}

bool verify_count_repeats(enum verify_count count)
{
    return count == VERIFY_COUNT_SOME || count == VERIFY_COUNT_ANY;
}

bool verify_glob(const char *pattern, const char *text)
{
    const char *star = NULL, *mark = NULL;
    while (*text) {
        if (*pattern == '*') {
            star = pattern++;
            mark = text;
        } else if (*pattern == '?' || *pattern == *text) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star + 1;
            text = ++mark;
        } else {
            return false;
        }
    }
    while (*pattern == '*') {
        pattern++;
    }
    return *pattern == '\0';
}

void verify_components_done(struct verify_components *components)
{
    for (size_t i = 0; i < components->n; i++) {
        free(components->list[i].variants);
    }
    free(components->list);
    *components = (struct verify_components){0};
}

/* ---- variants -------------------------------------------------------------------------------- */

static enum att_rc variant_content(const json_t *json, size_t digest_len,
                                   struct verify_variant *variant, struct att_err *err)
{
    const json_t *digest = json_object_get(json, "digest"),
                 *signer = json_object_get(json, "signer");
    const json_t *exact = json_object_get(json, "text"),
                 *pattern = json_object_get(json, "pattern");
    if (!!digest + !!signer + !!exact + !!pattern != 1) {
        return att_fail(err, ATT_E_PARSE, "expected exactly one of digest, signer, text, pattern");
    }
    if (digest) {
        variant->kind = VERIFY_VARIANT_DIGEST;
        return verify_member_hex(digest, "digest", digest_len, variant->digest, err);
    }
    if (signer) {
        variant->kind = VERIFY_VARIANT_SIGNER;
        return verify_member_hex(signer, "signer", ATT_SHA256_LEN, variant->digest, err);
    }
    variant->kind = exact ? VERIFY_VARIANT_TEXT : VERIFY_VARIANT_PATTERN;
    return verify_member_text(json, exact ? "text" : "pattern",
                              exact ? VERIFY_TEXT_MAX : VERIFY_PATTERN_MAX, false, &variant->text,
                              err);
}

static enum att_rc variant_parse(const json_t *json, size_t digest_len,
                                 struct verify_variant *variant, struct att_err *err)
{
    static const char *const known[] = {"digest", "signer",    "text",     "pattern",
                                        "label",  "notBefore", "notAfter", NULL};
    enum att_rc rc = verify_member_only(json, known, err);
    rc = rc ? rc : variant_content(json, digest_len, variant, err);
    rc = rc ? rc : verify_member_text(json, "label", VERIFY_LABEL_MAX, true, &variant->label, err);
    rc = rc ? rc : verify_member_time(json, "notBefore", &variant->not_before, err);
    rc = rc ? rc : verify_member_time(json, "notAfter", &variant->not_after, err);
    if (!rc && variant->not_before && variant->not_after &&
        variant->not_after <= variant->not_before) {
        rc = att_fail(err, ATT_E_PARSE, "notAfter is not after notBefore");
    }
    return rc;
}

static enum att_rc variants_parse(const json_t *json, size_t digest_len,
                                  struct verify_component *component, struct att_err *err)
{
    const json_t *list = json_object_get(json, "variants");
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n < 1 || n > VERIFY_VARIANTS_MAX) {
        return att_fail(err, ATT_E_PARSE, "variants: expected a list of 1-%d", VERIFY_VARIANTS_MAX);
    }
    component->variants = calloc(n, sizeof(*component->variants));
    if (!component->variants) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a boot policy");
    }
    component->n_variants = n;
    for (size_t i = 0; i < n; i++) {
        struct att_err why = {0};
        enum att_rc rc =
            variant_parse(json_array_get(list, i), digest_len, &component->variants[i], &why);
        if (rc) {
            return att_fail(err, rc, "variants[%zu]: %s", i, why.msg);
        }
    }
    return ATT_OK;
}

/* ---- which event ----------------------------------------------------------------------------- */

static enum att_rc id_parse(const json_t *json, struct verify_component *component,
                            struct att_err *err)
{
    const char *id = NULL;
    enum att_rc rc = verify_member_text(json, "id", VERIFY_COMPONENT_ID_MAX, false, &id, err);
    if (!rc && strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789._-") != strlen(id)) {
        rc =
            att_fail(err, ATT_E_PARSE, "id: expected 1-%d of [a-z0-9._-]", VERIFY_COMPONENT_ID_MAX);
    }
    if (!rc) {
        memcpy(component->id, id, strlen(id) + 1);
    }
    return rc;
}

static bool type_code(const char *word, uint32_t *ret)
{
    if (!strncmp(word, "0x", 2)) {
        uint8_t bytes[4];
        struct att_err why = {0};
        if (att_unhex_exact(bytes, 4, word + 2, &why)) {
            return false;
        }
        *ret = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
               bytes[3];
        return true;
    }
    return parse_eventlog_type_by_name(word, ret);
}

static enum att_rc type_parse(const json_t *json, struct verify_component *component,
                              struct att_err *err)
{
    const char *word = NULL;
    enum att_rc rc = verify_member_text(json, "type", VERIFY_TYPE_MAX, false, &word, err);
    if (rc) {
        return rc;
    }
    memcpy(component->type, word, strlen(word) + 1);
    if (component->log == VERIFY_LOG_FIRMWARE &&
        (!type_code(word, &component->type_code) || component->type_code == PARSE_EV_NO_ACTION)) {
        return att_fail(err, ATT_E_PARSE,
                        "type: expected an event type that is extended, like EV_IPL or 0x0000000d, "
                        "found \"%.40s\"",
                        word);
    }
    return ATT_OK;
}

static enum att_rc event_parse(const json_t *json, struct verify_component *component,
                               struct att_err *err)
{
    const json_t *log = json_object_get(json, "log"), *pcr = json_object_get(json, "pcr");
    const char *name = NULL;
    component->log =
        log ? verify_log_bit(att_slice_str(json_string_value(log))) : VERIFY_LOG_FIRMWARE;
    if (component->log != VERIFY_LOG_FIRMWARE && component->log != VERIFY_LOG_SYSTEMD) {
        return att_fail(err, ATT_E_PARSE, "log: expected \"firmware\" or \"systemd\"");
    }
    json_int_t n = json_is_integer(pcr) ? json_integer_value(pcr) : -1;
    if (n < 0 || n >= PARSE_PCR_COUNT) {
        return att_fail(err, ATT_E_PARSE, "pcr: expected a number 0-23");
    }
    component->pcr = (unsigned)n;
    if (component->log == VERIFY_LOG_SYSTEMD && !(VERIFY_PCRS_SYSTEMD >> component->pcr & 1)) {
        return att_fail(err, ATT_E_PARSE,
                        "pcr: systemd measures into 9, 11, 12, 13 and 15, found %u",
                        component->pcr);
    }
    enum att_rc rc = type_parse(json, component, err);
    rc = rc ? rc : verify_member_text(json, "name", VERIFY_NAME_MAX, true, &name, err);
    if (!rc && name) {
        memcpy(component->name, name, strlen(name) + 1);
    }
    return rc;
}

/* ---- components ------------------------------------------------------------------------------ */

static enum att_rc count_parse(const json_t *json, struct verify_component *component,
                               struct att_err *err)
{
    const json_t *value = json_object_get(json, "count");
    const char *word = json_string_value(value);
    for (unsigned i = 0; value && word && i < 4; i++) {
        if (!strcmp(word, counts[i])) {
            component->count = (enum verify_count)i;
            return ATT_OK;
        }
    }
    return value ? att_fail(err, ATT_E_PARSE,
                            "count: expected \"one\", \"optional\", \"some\" or \"any\"")
                 : ATT_OK;
}

static enum att_rc component_parse(const json_t *json, size_t digest_len,
                                   struct verify_component *component, struct att_err *err)
{
    static const char *const known[] = {"id",    "log",      "pcr",    "type",     "name",
                                        "count", "severity", "remedy", "variants", NULL};
    enum att_rc rc = verify_member_only(json, known, err);
    rc = rc ? rc : id_parse(json, component, err);
    rc = rc ? rc : event_parse(json, component, err);
    rc = rc ? rc : count_parse(json, component, err);
    rc = rc ? rc : verify_member_severity(json, &component->severity, err);
    rc = rc ? rc
            : verify_member_text(json, "remedy", VERIFY_REMEDY_MAX - 1, true, &component->remedy,
                                 err);
    return rc ? rc : variants_parse(json, digest_len, component, err);
}

static enum att_rc unique(const struct verify_components *components, size_t n, struct att_err *err)
{
    for (size_t i = 0; i < n; i++) {
        if (!strcmp(components->list[i].id, components->list[n].id)) {
            return att_fail(err, ATT_E_PARSE, "id: there is one before with this id");
        }
    }
    return ATT_OK;
}

static enum att_rc list_parse(const json_t *json, size_t digest_len,
                              struct verify_components *components, struct att_err *err)
{
    for (size_t i = 0; i < components->n; i++) {
        struct verify_component *component = &components->list[i];
        struct att_err why = {0};
        enum att_rc rc = component_parse(json_array_get(json, i), digest_len, component, &why);
        rc = rc ? rc : unique(components, i, &why);
        if (rc) {
            return att_fail(err, rc, "boot policy: components[%zu]%s%s%s: %s", i,
                            component->id[0] ? " (" : "", component->id,
                            component->id[0] ? ")" : "", why.msg);
        }
        components->pcr_mask |= 1U << component->pcr;
        components->logs |= component->log;
    }
    return ATT_OK;
}

static bool has_pattern(const struct verify_component *component)
{
    for (size_t i = 0; i < component->n_variants; i++) {
        if (component->variants[i].kind == VERIFY_VARIANT_PATTERN) {
            return true;
        }
    }
    return false;
}

static bool is_ipl(const struct verify_component *component)
{
    return component->log == VERIFY_LOG_FIRMWARE && component->type_code == PARSE_EV_IPL;
}

/* GRUB's label is in no digest: who has the log can give an event another one, and so another
 * component. Where each lists what it may be, that wins little; a pattern of one would let the
 * events of all others in. */
static enum att_rc check_labels(const struct verify_components *components, struct att_err *err)
{
    for (size_t i = 0; i < components->n; i++) {
        const struct verify_component *one = &components->list[i];
        for (size_t k = 0; is_ipl(one) && has_pattern(one) && k < components->n; k++) {
            const struct verify_component *other = &components->list[k];
            if (is_ipl(other) && other->pcr == one->pcr && strcmp(other->name, one->name) != 0) {
                return att_fail(err, ATT_E_PARSE,
                                "boot policy: components[%zu] (%s): a pattern, and components[%zu] "
                                "(%s) of pcr%u has another name: the name of an EV_IPL event is in "
                                "no digest, so the pattern would hold for both; expected digest or "
                                "text, or the same name in all EV_IPL components of this PCR",
                                i, one->id, k, other->id, one->pcr);
            }
        }
    }
    return ATT_OK;
}

enum att_rc verify_components_parse(const json_t *json, size_t digest_len,
                                    struct verify_components *ret, struct att_err *err)
{
    struct verify_components components = {.n = json_array_size(json)};
    if (!json_is_array(json) || components.n < 1 || components.n > VERIFY_COMPONENTS_MAX) {
        return att_fail(err, ATT_E_PARSE, "boot policy: components: expected a list of 1-%d",
                        VERIFY_COMPONENTS_MAX);
    }
    components.list = calloc(components.n, sizeof(*components.list));
    if (!components.list) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a boot policy");
    }
    enum att_rc rc = list_parse(json, digest_len, &components, err);
    rc = rc ? rc : check_labels(&components, err);
    if (rc) {
        verify_components_done(&components);
        return rc;
    }
    *ret = components;
    return ATT_OK;
}
