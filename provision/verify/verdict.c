#include "provision/verify/verdict.h"

#include "attestd/base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct verify_verdict *verify_verdict_new(void)
{
    return calloc(1, sizeof(struct verify_verdict));
}

void verify_verdict_free(struct verify_verdict *verdict)
{
    if (verdict) {
        free(verdict->findings);
    }
    free(verdict);
}

void verify_verdict_cleanup(struct verify_verdict **verdict)
{
    verify_verdict_free(*verdict);
    *verdict = NULL;
}

static struct verify_check *append(struct verify_verdict *verdict, enum verify_reason reason)
{
    if (verdict->n_checks >= VERIFY_CHECKS_MAX) {
        verdict->overflow = true;
        return NULL;
    }
    struct verify_check *check = &verdict->checks[verdict->n_checks++];
    *check = (struct verify_check){.reason = reason};
    return check;
}

/* Further findings of one check stand next to the first, so that the list stays in order. */
static struct verify_check *insert_after(struct verify_verdict *verdict, size_t at)
{
    enum verify_reason reason = verdict->checks[at].reason;
    if (!append(verdict, reason)) {
        return NULL;
    }
    for (size_t i = verdict->n_checks - 1; i > at + 1; i--) {
        verdict->checks[i] = verdict->checks[i - 1];
    }
    verdict->checks[at + 1] = (struct verify_check){.reason = reason};
    return &verdict->checks[at + 1];
}

void verify_plan(struct verify_verdict *verdict, const enum verify_reason *reasons, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        (void)append(verdict, reasons[i]);
    }
}

static struct verify_check *place(struct verify_verdict *verdict, enum verify_reason reason,
                                  enum verify_outcome outcome)
{
    size_t last_failed = SIZE_MAX;
    for (size_t i = 0; i < verdict->n_checks; i++) {
        struct verify_check *check = &verdict->checks[i];
        if (check->reason != reason) {
            continue;
        }
        if (check->outcome == VERIFY_NOT_REACHED) {
            return check;
        }
        if (check->outcome == VERIFY_FAIL) {
            last_failed = i;
        }
    }
    if (outcome == VERIFY_FAIL && last_failed != SIZE_MAX) {
        return insert_after(verdict, last_failed);
    }
    return append(verdict, reason);
}

static void set(struct verify_verdict *verdict, enum verify_reason reason,
                enum verify_outcome outcome, const char *fmt, va_list args) ATT_PRINTF(4, 0);

static void set(struct verify_verdict *verdict, enum verify_reason reason,
                enum verify_outcome outcome, const char *fmt, va_list args)
{
    struct verify_check *check = place(verdict, reason, outcome);
    if (check) {
        check->outcome = outcome;
        (void)vsnprintf(check->detail, sizeof(check->detail), fmt, args);
        att_text_clean(check->detail); /* it may quote what came, cut within a character */
    }
}

void verify_pass(struct verify_verdict *verdict, enum verify_reason reason, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    set(verdict, reason, VERIFY_PASS, fmt, args);
    va_end(args);
}

void verify_fail(struct verify_verdict *verdict, enum verify_reason reason, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    set(verdict, reason, VERIFY_FAIL, fmt, args);
    va_end(args);
}

void verify_skip(struct verify_verdict *verdict, enum verify_reason reason, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    set(verdict, reason, VERIFY_SKIP, fmt, args);
    va_end(args);
}

void verify_finding_add(struct verify_verdict *verdict, const struct verify_finding *finding)
{
    if (finding->severity == VERIFY_SEVERITY_REFUSE || finding->severity == VERIFY_SEVERITY_UNSET) {
        verdict->n_refusing++;
    }
    if (!verdict->findings) {
        verdict->findings = calloc(VERIFY_FINDINGS_MAX, sizeof(*verdict->findings));
        verdict->overflow = verdict->overflow || !verdict->findings;
    }
    if (!verdict->findings || verdict->n_findings >= VERIFY_FINDINGS_MAX) {
        verdict->findings_left_out++;
        return;
    }
    struct verify_finding *mine = &verdict->findings[verdict->n_findings++];
    *mine = *finding;
    att_text_clean(mine->detail); /* it may quote what came, cut within a character */
    att_text_clean(mine->remedy);
}

bool verify_verdict_failed(const struct verify_verdict *verdict)
{
    for (size_t i = 0; i < verdict->n_checks; i++) {
        if (verdict->checks[i].outcome == VERIFY_FAIL) {
            return true;
        }
    }
    return verdict->overflow;
}

enum verify_result verify_verdict_result(const struct verify_verdict *verdict)
{
    size_t passed = 0;
    if (!verdict || verdict->overflow) {
        return VERIFY_REFUSED;
    }
    for (size_t i = 0; i < verdict->n_checks; i++) {
        enum verify_outcome outcome = verdict->checks[i].outcome;
        if (outcome == VERIFY_PASS) {
            passed++;
        } else if (outcome != VERIFY_SKIP) {
            return VERIFY_REFUSED;
        }
    }
    return passed > 0 ? VERIFY_ACCEPTED : VERIFY_REFUSED;
}

const struct verify_check *verify_verdict_refusal(const struct verify_verdict *verdict)
{
    static const struct verify_check nothing = {.reason = VERIFY_REASON_INTERNAL,
                                                .detail = "the verdict holds no check that passed"};
    if (verify_verdict_result(verdict) == VERIFY_ACCEPTED) {
        return NULL;
    }
    const struct verify_check *left_out = NULL;
    for (size_t i = 0; i < verdict->n_checks; i++) {
        const struct verify_check *check = &verdict->checks[i];
        if (check->outcome == VERIFY_FAIL) {
            return check;
        }
        if (check->outcome == VERIFY_NOT_REACHED && !left_out) {
            left_out = check;
        }
    }
    return left_out ? left_out : &nothing;
}

enum att_rc verify_verdict_err(const struct verify_verdict *verdict, struct att_err *err)
{
    const struct verify_check *refusal = verify_verdict_refusal(verdict);
    if (!refusal) {
        return ATT_OK;
    }
    enum att_rc rc = refusal->reason == VERIFY_REASON_INTERNAL ? ATT_E_INTERNAL : ATT_E_DENIED;
    rc = att_fail(err, rc, "%s", refusal->detail[0] ? refusal->detail : "a check was not reached");
    att_err_reason(err, verify_reason_word(refusal->reason));
    return rc;
}

const char *verify_outcome_word(enum verify_outcome outcome)
{
    switch (outcome) {
    case VERIFY_PASS:
        return "pass";
    case VERIFY_FAIL:
        return "fail";
    case VERIFY_SKIP:
        return "skip";
    case VERIFY_NOT_REACHED:
        break;
    }
    return "notReached";
}

static json_t *check_json(const struct verify_check *check)
{
    return json_pack("{s:s, s:s, s:s}", "check", verify_reason_word(check->reason), "outcome",
                     verify_outcome_word(check->outcome), "detail", check->detail);
}

static bool set_findings(const struct verify_verdict *verdict, json_t *json)
{
    if (verdict->n_findings + verdict->findings_left_out == 0) {
        return true;
    }
    json_t *list = json_array();
    bool good = true;
    for (size_t i = 0; i < verdict->n_findings; i++) {
        good = json_array_append_new(list, verify_finding_json(&verdict->findings[i])) == 0 && good;
    }
    good = json_object_set_new(json, "mode", json_string(verify_mode_word(verdict->mode))) == 0 &&
           json_object_set_new(json, "findings", list) == 0 && good;
    return good && (verdict->findings_left_out == 0 ||
                    json_object_set_new(json, "findingsLeftOut",
                                        json_integer((json_int_t)verdict->findings_left_out)) == 0);
}

enum att_rc verify_verdict_json(const struct verify_verdict *verdict, json_t **ret_json,
                                struct att_err *err)
{
    json_t *list = json_array();
    for (size_t i = 0; i < verdict->n_checks; i++) {
        if (json_array_append_new(list, check_json(&verdict->checks[i]))) {
            json_decref(list);
            return att_fail(err, ATT_E_NOMEM, "no memory for the verdict's JSON");
        }
    }
    const struct verify_check *refusal = verify_verdict_refusal(verdict);
    json_t *json = refusal ? json_pack("{s:b, s:s, s:s, s:o}", "accepted", 0, "reason",
                                       verify_reason_word(refusal->reason), "detail",
                                       refusal->detail, "checks", list)
                           : json_pack("{s:b, s:o}", "accepted", 1, "checks", list);
    if (!json || !set_findings(verdict, json)) {
        json_decref(json);
        return att_fail(err, ATT_E_NOMEM, "no memory for the verdict's JSON");
    }
    *ret_json = json;
    return ATT_OK;
}

void verify_verdict_text(const struct verify_verdict *verdict, struct att_buf *ret_text)
{
    for (size_t i = 0; i < verdict->n_checks; i++) {
        const struct verify_check *check = &verdict->checks[i];
        att_buf_printf(ret_text, "%-10s  %-16s  %s\n", verify_outcome_word(check->outcome),
                       verify_reason_word(check->reason),
                       check->detail[0] ? check->detail : verify_reason_proves(check->reason));
    }
    for (size_t i = 0; i < verdict->n_findings; i++) {
        const struct verify_finding *finding = &verdict->findings[i];
        att_buf_printf(ret_text, "%-10s  %-16s  %s\n%30s%s\n",
                       verify_severity_word(finding->severity), verify_finding_word(finding->id),
                       finding->detail, "-> ", finding->remedy);
    }
    if (verdict->findings_left_out) {
        att_buf_printf(ret_text, "%zu further findings\n", verdict->findings_left_out);
    }
}
