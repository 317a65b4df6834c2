/* First whether: the components of a PCR are an automaton, and all ways through it are followed at
 * once, so that a component that repeats never hides the one after it. Then, where there is no way,
 * what is wrong: the events are laid along the components, each where it fits best. */
#include "provision/verify/sequence.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"

#include <stdio.h>
#include <string.h>

/* ---- one event and one component ------------------------------------------------------------- */

static bool same_event(const struct verify_component *component, const struct verify_event *event)
{
    return component->log == event->log && component->pcr == event->pcr &&
           (component->log == VERIFY_LOG_FIRMWARE ? component->type_code == event->type_code
                                                  : !strcmp(component->type, event->type)) &&
           (!component->name[0] || !strcmp(component->name, event->name));
}

static bool is_variant(const struct verify_variant *variant, const struct verify_event *event,
                       size_t digest_len)
{
    switch (variant->kind) {
    case VERIFY_VARIANT_DIGEST:
        return !memcmp(variant->digest, event->digest, digest_len);
    case VERIFY_VARIANT_SIGNER:
        return event->covered && event->has_signer &&
               !memcmp(variant->digest, event->signer, ATT_SHA256_LEN);
    case VERIFY_VARIANT_TEXT:
        return event->covered && event->text && !strcmp(variant->text, event->text);
    case VERIFY_VARIANT_PATTERN:
        return event->covered && event->text && verify_glob(variant->text, event->text);
    }
    return false;
}

enum verify_fit verify_fit_of(const struct verify_component *component,
                              const struct verify_event *event, size_t digest_len, int64_t now,
                              const struct verify_variant **ret_variant)
{
    enum verify_fit fit = VERIFY_FIT_UNKNOWN;
    bool by_digest = false;
    if (!same_event(component, event)) {
        return VERIFY_FIT_OTHER;
    }
    for (size_t i = 0; i < component->n_variants; i++) {
        const struct verify_variant *variant = &component->variants[i];
        by_digest = by_digest || variant->kind == VERIFY_VARIANT_DIGEST;
        if (!is_variant(variant, event, digest_len)) {
            continue;
        }
        enum verify_fit this =
            variant->not_before && now < variant->not_before ? VERIFY_FIT_NOT_YET_VALID
            : variant->not_after && now > variant->not_after ? VERIFY_FIT_EXPIRED
                                                             : VERIFY_FIT_ALLOWED;
        if (this < fit) {
            fit = this;
            if (ret_variant) {
                *ret_variant = variant;
            }
        }
        if (fit == VERIFY_FIT_ALLOWED) {
            return fit;
        }
    }
    return fit == VERIFY_FIT_UNKNOWN && !by_digest && !event->covered ? VERIFY_FIT_UNCHECKED : fit;
}

/* ---- whether --------------------------------------------------------------------------------- */

struct judge {
    const struct verify_policy *policy;
    const struct verify_bootlog *bootlog;
    int64_t now;
    struct verify_verdict *verdict;
    unsigned pcr;
    const struct verify_component *components[VERIFY_COMPONENTS_MAX]; /* of this PCR */
    size_t n;
    size_t taken[VERIFY_COMPONENTS_MAX]; /* events laid to each */
};

static bool allowed(const struct judge *j, size_t component, const struct verify_event *event)
{
    return verify_fit_of(j->components[component], event, j->bootlog->digest_len, j->now, NULL) ==
           VERIFY_FIT_ALLOWED;
}

/* State 2i: component i is next, none of its events came; 2i+1: at least one did, it repeats. */
struct states {
    bool at[2 * VERIFY_COMPONENTS_MAX + 2];
};

static void close_over(const struct judge *j, struct states *states)
{
    for (size_t i = 0; i < j->n; i++) {
        if (states->at[2 * i + 1] ||
            (states->at[2 * i] && !verify_count_required(j->components[i]->count))) {
            states->at[2 * (i + 1)] = true;
        }
    }
}

static void step(const struct judge *j, const struct verify_event *event, struct states *states)
{
    struct states after = {0};
    for (size_t i = 0; i < j->n; i++) {
        if ((states->at[2 * i] || states->at[2 * i + 1]) && allowed(j, i, event)) {
            after.at[verify_count_repeats(j->components[i]->count) ? 2 * i + 1 : 2 * (i + 1)] =
                true;
        }
    }
    close_over(j, &after);
    *states = after;
}

static bool is_sequence(const struct judge *j)
{
    struct states states = {.at = {true}};
    close_over(j, &states);
    for (size_t e = 0; e < j->bootlog->n; e++) {
        if (j->bootlog->list[e].pcr == j->pcr) {
            step(j, &j->bootlog->list[e], &states);
        }
    }
    return states.at[2 * j->n];
}

/* ---- what is wrong --------------------------------------------------------------------------- */

static const char *item_of(uint32_t log)
{
    return log == VERIFY_LOG_SYSTEMD ? "record" : "event";
}

static void add(const struct judge *j, enum verify_finding_id id,
                const struct verify_component *component, const struct verify_event *event,
                const char *detail)
{
    struct verify_finding finding = {.id = id, .pcr = j->pcr};
    finding.severity = component ? component->severity : VERIFY_SEVERITY_UNSET;
    if (component) {
        memcpy(finding.component, component->id, sizeof(finding.component));
    }
    if (event) {
        finding.log = verify_log_name(event->log);
        finding.event = event->number;
        (void)snprintf(
            finding.detail, sizeof(finding.detail), "pcr%u %s %zu (%s%s%s): %s", event->pcr,
            item_of(event->log), event->number, component ? component->id : event->type,
            component || !event->name[0] ? "" : " ", component ? "" : event->name, detail);
    } else {
        (void)snprintf(finding.detail, sizeof(finding.detail), "pcr%u component %s: %s", j->pcr,
                       component ? component->id : "-", detail);
    }
    (void)snprintf(finding.remedy, sizeof(finding.remedy), "%s",
                   component && component->remedy ? component->remedy : verify_finding_remedy(id));
    verify_policy_finding(j->policy, &finding, j->verdict);
}

/* "4af2... \"6.1.0-18\"" of the first variant, and how many there are. */
static void expected(const struct verify_component *component, char *ret, size_t room)
{
    const struct verify_variant *variant = &component->variants[0];
    char what[96];
    if (variant->kind == VERIFY_VARIANT_DIGEST || variant->kind == VERIFY_VARIANT_SIGNER) {
        char hex[17];
        att_hex(hex, ATT_SLICE(variant->digest, 8));
        (void)snprintf(what, sizeof(what), "%s%s...%s%.40s%s",
                       variant->kind == VERIFY_VARIANT_SIGNER ? "signer " : "", hex,
                       variant->label ? " \"" : "", variant->label ? variant->label : "",
                       variant->label ? "\"" : "");
    } else {
        (void)snprintf(what, sizeof(what), "%s \"%.60s\"",
                       variant->kind == VERIFY_VARIANT_TEXT ? "text" : "pattern", variant->text);
    }
    if (component->n_variants == 1) {
        (void)snprintf(ret, room, "%s", what);
    } else {
        (void)snprintf(ret, room, "one of %zu variants: %s, ...", component->n_variants, what);
    }
}

static void found(const struct verify_event *event, size_t digest_len, char *ret, size_t room)
{
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE(event->digest, ATT_SHA256_LEN));
    if (event->text) {
        (void)snprintf(ret, room, "\"%.60s\" (%s)", event->text, hex);
    } else {
        (void)snprintf(ret, room, "%s%s", hex, digest_len > ATT_SHA256_LEN ? "..." : "");
    }
}

/* An event that is component i's, but not as it may be. */
static void add_misfit(const struct judge *j, size_t i, const struct verify_event *event)
{
    const struct verify_component *component = j->components[i];
    const struct verify_variant *variant = NULL;
    char have[160], want[160], detail[512], at[ATT_TIME_TEXT_LEN];
    enum verify_fit fit = verify_fit_of(component, event, j->bootlog->digest_len, j->now, &variant);
    found(event, j->bootlog->digest_len, have, sizeof(have));
    expected(component, want, sizeof(want));
    if (fit == VERIFY_FIT_ALLOWED) {
        return;
    }
    if (variant && (fit == VERIFY_FIT_EXPIRED || fit == VERIFY_FIT_NOT_YET_VALID)) {
        bool expired = fit == VERIFY_FIT_EXPIRED;
        att_time_text(at, expired ? variant->not_after : variant->not_before);
        (void)snprintf(detail, sizeof(detail), "%s%s%s%s was allowed %s %s", have,
                       variant->label ? " \"" : "", variant->label ? variant->label : "",
                       variant->label ? "\"" : "", expired ? "until" : "only from", at);
        add(j, expired ? VERIFY_FINDING_VARIANT_EXPIRED : VERIFY_FINDING_VARIANT_NOT_YET_VALID,
            component, event, detail);
        return;
    }
    if (fit == VERIFY_FIT_UNCHECKED) {
        (void)snprintf(
            detail, sizeof(detail),
            "%s is not the digest of the event's payload, so the payload proves nothing; "
            "expected %s",
            have, want);
        add(j, VERIFY_FINDING_PAYLOAD_UNCHECKED, component, event, detail);
        return;
    }
    (void)snprintf(detail, sizeof(detail), "found %s, expected %s", have, want);
    add(j, VERIFY_FINDING_VARIANT_UNKNOWN, component, event, detail);
}

static void add_missing(const struct judge *j, size_t i)
{
    const struct verify_component *component = j->components[i];
    char detail[512], want[160];
    expected(component, want, sizeof(want));
    (void)snprintf(detail, sizeof(detail), "missing from the %s log; expected %s %s%s%s, %s",
                   verify_log_name(component->log),
                   component->count == VERIFY_COUNT_ONE ? "exactly one" : "at least one",
                   component->type, component->name[0] ? " " : "", component->name, want);
    add(j, VERIFY_FINDING_COMPONENT_MISSING, component, NULL, detail);
}

static bool full(const struct judge *j, size_t i)
{
    return j->taken[i] > 0 && !verify_count_repeats(j->components[i]->count);
}

static bool lacking(const struct judge *j, size_t i)
{
    return j->taken[i] == 0 && verify_count_required(j->components[i]->count);
}

#define NOWHERE SIZE_MAX

/* The first component from at on that this event can be laid to. skip: also past some that lack
 * theirs. exact: as one of its variants that is allowed. */
static size_t place(const struct judge *j, size_t at, const struct verify_event *event, bool exact,
                    bool skip)
{
    for (size_t i = at; i < j->n; i++) {
        enum verify_fit fit =
            verify_fit_of(j->components[i], event, j->bootlog->digest_len, j->now, NULL);
        if (!full(j, i) && (exact ? fit == VERIFY_FIT_ALLOWED : fit != VERIFY_FIT_OTHER)) {
            return i;
        }
        if (!skip && lacking(j, i)) {
            return NOWHERE;
        }
    }
    return NOWHERE;
}

/* It is there before: once more, or at the wrong place. */
static bool add_again(struct judge *j, size_t at, const struct verify_event *event)
{
    for (size_t i = 0; i < j->n && i <= at; i++) {
        if (!allowed(j, i, event)) {
            continue;
        }
        bool again = j->taken[i] > 0;
        add(j, again ? VERIFY_FINDING_COMPONENT_DUPLICATED : VERIFY_FINDING_COMPONENT_ORDER,
            j->components[i], event,
            again ? "measured once more; the policy allows it once"
                  : "measured after components that it must come before");
        j->taken[i]++; /* so it is not missing, too */
        return true;
    }
    return false;
}

static void lay(struct judge *j, size_t *at, const struct verify_event *event)
{
    size_t to = place(j, *at, event, true, false);
    if (to == NOWHERE) {
        to = place(j, *at, event, true, true);
    }
    if (to == NOWHERE && add_again(j, *at, event)) {
        return;
    }
    if (to == NOWHERE) {
        to = place(j, *at, event, false, false);
    }
    if (to == NOWHERE) {
        to = place(j, *at, event, false, true);
    }
    if (to == NOWHERE) {
        char have[160], detail[512];
        found(event, j->bootlog->digest_len, have, sizeof(have));
        (void)snprintf(detail, sizeof(detail), "%s belongs to no component that may come here",
                       have);
        add(j, VERIFY_FINDING_EVENT_UNEXPECTED, NULL, event, detail);
        return;
    }
    add_misfit(j, to, event);
    j->taken[to]++;
    *at = to;
}

static void explain(struct judge *j)
{
    size_t at = 0, before = j->verdict->n_findings + j->verdict->findings_left_out;
    for (size_t e = 0; e < j->bootlog->n; e++) {
        if (j->bootlog->list[e].pcr == j->pcr) {
            lay(j, &at, &j->bootlog->list[e]);
        }
    }
    for (size_t i = 0; i < j->n; i++) {
        if (lacking(j, i)) {
            add_missing(j, i);
        }
    }
    /* The order in which events are laid is a guess; that there is no way is not. */
    if (j->verdict->n_findings + j->verdict->findings_left_out == before) {
        add(j, VERIFY_FINDING_COMPONENT_ORDER, j->n ? j->components[j->n - 1] : NULL, NULL,
            "the events are not a sequence of the components, though each fits one");
    }
}

void verify_sequence_judge(const struct verify_policy *policy, const struct verify_bootlog *bootlog,
                           uint32_t mask, int64_t now, struct verify_verdict *verdict)
{
    mask &= ~policy->unjudged;
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        struct judge j = {
            .policy = policy, .bootlog = bootlog, .now = now, .verdict = verdict, .pcr = pcr};
        /* By its value alone: the events of such a PCR are not looked at. */
        bool by_value = policy->pcr_mask >> pcr & 1 && !(policy->components.pcr_mask >> pcr & 1);
        if (!(mask >> pcr & 1) || by_value) {
            continue;
        }
        for (size_t i = 0; i < policy->components.n; i++) {
            if (policy->components.list[i].pcr == pcr) {
                j.components[j.n++] = &policy->components.list[i];
            }
        }
        if (!is_sequence(&j)) {
            explain(&j);
        }
    }
}
