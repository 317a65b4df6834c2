#include "attestd/workload/match.h"

#include "attestd/base/enc.h"
#include "attestd/workload/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* In the order in which they are compared. */
static const char *const members[] = {"uid", "unit", "exe_sha256", "script_sha256", "manifest"};
enum { UID, UNIT, EXE, SCRIPT, MANIFEST, FITS };

/* ---- one alternative ---- */

static void say(struct workload_misfit *ret, const char *fmt, ...) ATT_PRINTF(2, 3);
static void say(struct workload_misfit *ret, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(ret->text, sizeof ret->text, fmt, args);
    va_end(args);
}

/* A program that runs with two users' rights (set-uid) is neither's. */
static bool uid_fits(const struct conf_workload *w, const struct workload_facts *facts,
                     struct workload_misfit *ret)
{
    if (!w->has_uid || (facts->uid == w->uid && facts->euid == w->uid)) {
        return true;
    }
    if (facts->uid == facts->euid) {
        say(ret, "wants user %u, the caller is user %u", w->uid, facts->uid);
    } else {
        say(ret, "wants user %u, the caller is user %u with the rights of %u", w->uid, facts->uid,
            facts->euid);
    }
    return false;
}

static bool unit_fits(const struct conf_workload *w, const struct workload_facts *facts,
                      struct workload_misfit *ret)
{
    size_t len = w->unit ? strlen(w->unit) : 0;
    bool slice = len > 6 && strcmp(w->unit + len - 6, ".slice") == 0;
    if (!w->unit || (slice ? workload_cgroup_in_slice(att_slice_str(facts->cgroup), w->unit)
                           : strcmp(w->unit, facts->unit) == 0)) {
        return true;
    }
    say(ret, "wants unit %.120s, the caller is in %.120s", w->unit,
        facts->unit[0] ? facts->unit : "none");
    return false;
}

static bool listed(char *const *list, size_t n, const uint8_t sha256[ATT_SHA256_LEN])
{
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE(sha256, ATT_SHA256_LEN));
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], hex) == 0) {
            return true;
        }
    }
    return false;
}

static bool exe_fits(const struct conf_workload *w, const struct workload_caller *caller,
                     struct workload_misfit *ret)
{
    if (w->n_exe_sha256 == 0 || listed(w->exe_sha256, w->n_exe_sha256, caller->exe_sha256)) {
        return true;
    }
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE_ARRAY(caller->exe_sha256));
    say(ret, "its executable %.120s has %s, which is not listed", caller->exe_path, hex);
    return false;
}

static bool script_fits(const struct conf_workload *w, const struct workload_caller *caller,
                        struct workload_misfit *ret)
{
    if (w->n_script_sha256 == 0) {
        return true;
    }
    if (!caller->script.known) {
        say(ret, "wants a script, none that can be read was found in its command line");
        return false;
    }
    if (listed(w->script_sha256, w->n_script_sha256, caller->script.sha256)) {
        return true;
    }
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE_ARRAY(caller->script.sha256));
    say(ret, "its script %.120s has %s, which is not listed", caller->script_path, hex);
    return false;
}

static const struct workload_digest *file_of(const struct workload_caller *caller,
                                             const struct workload_wanted *wanted, const char *path)
{
    for (size_t i = 0; wanted && i < wanted->n && i < caller->n_files; i++) {
        if (att_slice_eq_str(wanted->paths[i], path)) {
            return &caller->files[i];
        }
    }
    return NULL;
}

static bool manifest_fits(const struct conf_workload *w, const struct workload_caller *caller,
                          const struct workload_wanted *wanted, struct workload_misfit *ret)
{
    if (!w->manifest_path) {
        return true;
    }
    const struct workload_digest *file = file_of(caller, wanted, w->manifest_path);
    if (!file || !file->known) {
        say(ret, "its manifest %.200s cannot be read", w->manifest_path);
        return false;
    }
    if (listed(&w->manifest_sha256, 1, file->sha256)) {
        return true;
    }
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE_ARRAY(file->sha256));
    say(ret, "its manifest %.120s has %s, which is not the one listed", w->manifest_path, hex);
    return false;
}

/* The first member that does not fit, or FITS. */
static int compare(const struct conf_workload *w, const struct workload_caller *caller,
                   const struct workload_wanted *wanted, struct workload_misfit *ret)
{
    int at = !w->has_uid && !w->unit                  ? UID
             : !uid_fits(w, &caller->facts, ret)      ? UID
             : !unit_fits(w, &caller->facts, ret)     ? UNIT
             : !exe_fits(w, caller, ret)              ? EXE
             : !script_fits(w, caller, ret)           ? SCRIPT
             : !manifest_fits(w, caller, wanted, ret) ? MANIFEST
                                                      : FITS;
    if (at != FITS) {
        ret->member = members[at];
        if (!w->has_uid && !w->unit) { /* entries refuse it; no rule is no reason to grant */
            say(ret, "names neither uid nor unit");
        }
    }
    return at;
}

bool workload_match_misfit(const struct conf_workload *workload,
                           const struct workload_caller *caller,
                           const struct workload_wanted *wanted, struct workload_misfit *ret)
{
    struct workload_misfit misfit = {0};
    bool fits = compare(workload, caller, wanted, &misfit) == FITS;
    if (!fits) {
        *ret = misfit;
    }
    return !fits;
}

/* ---- all ---- */

static bool want(struct workload_wanted *wanted, const char *path)
{
    for (size_t i = 0; i < wanted->n; i++) {
        if (att_slice_eq_str(wanted->paths[i], path)) {
            return true;
        }
    }
    if (wanted->n == WORKLOAD_FILES_MAX) {
        return false;
    }
    wanted->paths[wanted->n++] = att_slice_str(path);
    return true;
}

enum att_rc workload_match_wanted(const struct workload_rule *rules, size_t n,
                                  const struct workload_caller *caller,
                                  struct workload_wanted *ret_wanted, struct att_err *err)
{
    struct workload_wanted wanted = {.n = 0};
    struct workload_misfit misfit;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < rules[i].n; k++) {
            const struct conf_workload *w = &rules[i].workload[k];
            if (compare(w, caller, NULL, &misfit) == MANIFEST && !want(&wanted, w->manifest_path)) {
                return att_fail(err, ATT_E_LIMIT,
                                "more than %d manifests would have to be read for one caller",
                                WORKLOAD_FILES_MAX);
            }
        }
    }
    *ret_wanted = wanted;
    return ATT_OK;
}

/* The names of those that fit, as far as there is room. */
static enum att_rc ambiguous(const struct workload_rule *rules, const bool *fits, size_t n,
                             struct att_err *err)
{
    char names[300] = "";
    size_t used = 0;
    for (size_t i = 0; i < n && used < sizeof names; i++) {
        if (fits[i]) {
            int len = snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "",
                               rules[i].agent);
            used += len > 0 ? (size_t)len : 0;
        }
    }
    (void)!att_fail(err, ATT_E_DENIED, "the caller fits several agents: %s", names);
    att_err_reason(err, "ambiguous");
    return ATT_E_DENIED;
}

static enum att_rc not_assigned(const char *agent, const struct workload_misfit *nearest,
                                struct att_err *err)
{
    if (!agent) {
        (void)!att_fail(err, ATT_E_DENIED, "no agent is assigned to this host");
    } else {
        (void)!att_fail(err, ATT_E_DENIED, "no agent fits; nearest is %s: %s", agent,
                        nearest->text);
    }
    att_err_reason(err, "notAssigned");
    return ATT_E_DENIED;
}

/* How many of the members that it gives hold before the first that does not. */
static int members_held(const struct conf_workload *w, int at)
{
    const bool given[] = {w->has_uid, w->unit != NULL, w->n_exe_sha256 > 0, w->n_script_sha256 > 0,
                          w->manifest_path != NULL};
    int held = 0;
    for (int i = 0; i < at; i++) {
        held += given[i];
    }
    return held;
}

/* FITS, or how far the best alternative of a rule comes. */
static int best_of(const struct workload_rule *rule, const struct workload_caller *caller,
                   const struct workload_wanted *wanted, struct workload_misfit *ret_misfit)
{
    int best = -1;
    for (size_t k = 0; k < rule->n; k++) {
        struct workload_misfit misfit = {0};
        int at = compare(&rule->workload[k], caller, wanted, &misfit);
        if (at == FITS) {
            return FITS;
        }
        int held = members_held(&rule->workload[k], at);
        if (held > best) {
            best = held;
            *ret_misfit = misfit;
        }
    }
    return best;
}

enum att_rc workload_match(const struct workload_rule *rules, size_t n,
                           const struct workload_caller *caller,
                           const struct workload_wanted *wanted, size_t *ret_rule,
                           struct att_err *err)
{
    struct workload_misfit nearest = {0};
    const char *nearest_agent = NULL;
    size_t found = 0, at = 0;
    int best = -1;
    bool *fits = calloc(n ? n : 1, sizeof *fits);
    if (!fits) {
        return att_fail(err, ATT_E_NOMEM, "%zu agents", n);
    }
    for (size_t i = 0; i < n; i++) {
        struct workload_misfit misfit = {0};
        int how = best_of(&rules[i], caller, wanted, &misfit);
        if (how == FITS) {
            fits[i] = true;
            found++;
            at = i;
        } else if (how > best) {
            best = how;
            nearest = misfit;
            nearest_agent = rules[i].agent;
        }
    }
    enum att_rc rc = found == 1  ? ATT_OK
                     : found > 1 ? ambiguous(rules, fits, n, err)
                                 : not_assigned(nearest_agent, &nearest, err);
    free(fits);
    if (rc == ATT_OK) {
        *ret_rule = at;
    }
    return rc;
}
