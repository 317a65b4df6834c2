/* A verdict: an ordered list of named checks. It starts as a refusal, and is an acceptance only
 * when every check that was planned has passed or was skipped where that is allowed, with why.
 * Checks that were planned and not run show as not reached. Not for use by two threads at once. */
#ifndef ATTESTD_VERIFY_VERDICT_H
#define ATTESTD_VERIFY_VERDICT_H

#include "attestd/base/buf.h"
#include "provision/verify/findings.h"
#include "provision/verify/reason.h"

#include <jansson.h>

/* Never compare with anything but VERIFY_ACCEPTED; zero and garbage are refusals. */
enum verify_result {
    VERIFY_REFUSED = 0,
    VERIFY_ACCEPTED = 0x5ace,
};

enum verify_outcome {
    VERIFY_NOT_REACHED = 0,
    VERIFY_FAIL,
    VERIFY_PASS,
    VERIFY_SKIP,
};

#define VERIFY_CHECKS_MAX 96
#define VERIFY_DETAIL_MAX 320

struct verify_check {
    enum verify_reason reason; /* its name, and the word of the refusal when it fails */
    enum verify_outcome outcome;
    char detail[VERIFY_DETAIL_MAX]; /* a sentence: what, where, expected, found; why for a skip */
};

struct verify_verdict {
    struct verify_check checks[VERIFY_CHECKS_MAX];
    size_t n_checks;
    bool overflow; /* more findings than room: refused */
    /* What the boot policy found, of every severity; at most VERIFY_FINDINGS_MAX. */
    struct verify_finding *findings;
    size_t n_findings, findings_left_out;
    size_t n_refusing; /* findings that refuse, those left out among them */
    enum verify_mode mode;
};

/* About 32 KiB; NULL without memory. */
struct verify_verdict *verify_verdict_new(void);
void verify_verdict_free(struct verify_verdict *verdict);
void verify_verdict_cleanup(struct verify_verdict **verdict);
#define verify_autoverdict ATT_CLEANUP(verify_verdict_cleanup) struct verify_verdict

/* Appends checks that must be run, in order. Plans may follow one another in one verdict: the
 * issuer's own checks before the library's (run, not only planned: verify_*() accepts only when the
 * whole verdict does) or after them. */
void verify_plan(struct verify_verdict *verdict, const enum verify_reason *reasons, size_t n);
/* Set the outcome of the first planned check of that name that has none yet; without such a plan
 * they append. verify_fail on a check that already failed appends a further finding. A check that
 * failed never becomes anything else. */
void verify_pass(struct verify_verdict *verdict, enum verify_reason reason, const char *fmt, ...)
    ATT_PRINTF(3, 4);
void verify_fail(struct verify_verdict *verdict, enum verify_reason reason, const char *fmt, ...)
    ATT_PRINTF(3, 4);
void verify_skip(struct verify_verdict *verdict, enum verify_reason reason, const char *fmt, ...)
    ATT_PRINTF(3, 4);

/* Adds a finding; its severity must be set. Those beyond the room are counted. Refuses nothing by
 * itself: verify_policy_check makes a check of them. */
void verify_finding_add(struct verify_verdict *verdict, const struct verify_finding *finding);

/* VERIFY_ACCEPTED when there is at least one check that passed, none failed and none was left out.
 */
ATT_MUST_USE enum verify_result verify_verdict_result(const struct verify_verdict *verdict);
/* The first check that failed, else the first not reached; NULL when the verdict is acceptance. */
const struct verify_check *verify_verdict_refusal(const struct verify_verdict *verdict);
/* True when a check has failed: nothing further is worth running. */
bool verify_verdict_failed(const struct verify_verdict *verdict);
/* Fills err (ATT_E_DENIED, reason word, detail) from the refusal. ATT_OK for an acceptance. */
ATT_MUST_USE enum att_rc verify_verdict_err(const struct verify_verdict *verdict,
                                            struct att_err *err);

/* "pass" | "fail" | "skip" | "notReached". */
const char *verify_outcome_word(enum verify_outcome outcome);
/* {"accepted": bool, "reason": word (refusals only), "detail": sentence (refusals only),
 *  "checks": [{"check": word, "outcome": word, "detail": sentence}…], and where the boot policy
 *  found something "mode": word, "findings": […] (findings.h)}; the caller owns it. */
ATT_MUST_USE enum att_rc verify_verdict_json(const struct verify_verdict *verdict,
                                             json_t **ret_json, struct att_err *err);
/* One line a check, for people: "pass  quoteNonce    detail"; then the findings and remedies. */
void verify_verdict_text(const struct verify_verdict *verdict, struct att_buf *ret_text);

#endif
