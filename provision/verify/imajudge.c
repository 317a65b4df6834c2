#include "provision/verify/imajudge.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

_Static_assert(VERIFY_MEMO_EXCLUDES == VERIFY_IMA_EXCLUDES_MAX, "a count for each prefix");

#define SHOWN_HEX       64 /* digits of a digest in a finding; of longer ones the first */
#define SHOWN_NAME      96
#define DIGEST_TEXT     (SHOWN_HEX + 40) /* with the name of its kind */
#define ALLOWED_COUNTED 100              /* digests of one name */

struct judge {
    const struct verify_policy_in *in;
    const struct verify_imarule *rule;
    struct verify_verdict *verdict;
    uint32_t valid; /* allow lists that are valid now, as bits */
    char aggregate_alg[16];
    uint8_t aggregate[PARSE_DIGEST_MAX]; /* of entry 0 */
    size_t aggregate_len;
    struct verify_ima_judged state;
    size_t *tries; /* signatures that may still turn out not to hold; of state, or a finding's */
};

/* What an entry is. */
struct opinion {
    enum { LISTED, SIGNED, EXCLUDED, VIOLATION_ALLOWED, AGGREGATE, BAD } is;
    size_t exclude;            /* which prefix */
    enum verify_finding_id id; /* of BAD */
    char detail[VERIFY_FINDING_DETAIL_MAX];
};

/* ---- words ----------------------------------------------------------------------------------- */

static void say(struct opinion *o, const struct parse_ima_entry *entry, enum verify_finding_id id,
                const char *fmt, ...) ATT_PRINTF(4, 5);

static void say(struct opinion *o, const struct parse_ima_entry *entry, enum verify_finding_id id,
                const char *fmt, ...)
{
    char name[SHOWN_NAME + 1], what[VERIFY_FINDING_DETAIL_MAX - SHOWN_NAME - 40];
    size_t len = entry->name.len < SHOWN_NAME ? entry->name.len : SHOWN_NAME;
    va_list args;
    memcpy(name, entry->name.ptr, len);
    name[len] = '\0';
    att_text_clean(name);
    va_start(args, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    o->is = BAD;
    o->id = id;
    (void)snprintf(o->detail, sizeof(o->detail), "pcr%d entry %zu: %s: %s", PARSE_IMA_PCR,
                   entry->number, name, what);
}

static void digest_text(char ret[DIGEST_TEXT], const char *kind, struct att_slice digest)
{
    char hex[2 * PARSE_DIGEST_MAX + 1];
    att_hex(hex, ATT_SLICE(digest.ptr, digest.len < PARSE_DIGEST_MAX ? digest.len : 0));
    bool longer = strlen(hex) > SHOWN_HEX;
    (void)snprintf(ret, DIGEST_TEXT, "%s:%.*s%s", kind, SHOWN_HEX, hex, longer ? "…" : "");
}

static void seen_text(char ret[DIGEST_TEXT], const struct parse_ima_entry *entry)
{
    char kind[32];
    (void)snprintf(kind, sizeof(kind), "%s%s",
                   strcmp(entry->kind, "verity") ? "" : "verity:", entry->alg);
    digest_text(ret, kind, entry->file);
}

/* A digest that a name may have now, and how many there are, counted up to one more than
 * ALLOWED_COUNTED. */
static size_t allowed_text(const struct judge *j, struct att_slice name, char ret[DIGEST_TEXT])
{
    size_t n = 0;
    for (size_t i = 0; i < j->rule->n_lists; i++) {
        struct verify_imalist_entry entry;
        for (size_t at = 0; (j->valid >> i & 1) && n <= ALLOWED_COUNTED &&
                            verify_imalist_next(j->rule->lists[i].list, name, &at, &entry);) {
            if (n++ == 0) {
                digest_text(ret, verify_imalist_kind_name(entry.kind),
                            ATT_SLICE(entry.digest, verify_imalist_kind_len(entry.kind)));
            }
        }
    }
    return n;
}

/* ---- one entry ------------------------------------------------------------------------------- */

static bool template_allowed(const struct judge *j, const struct parse_ima_template *tmpl)
{
    for (size_t i = 0; i < j->rule->n_templates; i++) {
        if (j->rule->templates[i] == tmpl) {
            return true;
        }
    }
    return false;
}

/* What the allow lists say of an entry. */
struct listing {
    const struct verify_ima_allow *allow; /* has it; one that is valid now, if any */
    bool valid;                           /* and it is */
    bool named;                           /* one of them has its name, whatever its window */
    bool named_now;                       /* one that is valid now does */
};

static struct listing find(const struct judge *j, const struct parse_ima_entry *entry,
                           unsigned kind)
{
    struct listing found = {0};
    for (size_t i = 0; i < j->rule->n_lists; i++) {
        const struct verify_ima_allow *allow = &j->rule->lists[i];
        bool named = false, valid = j->valid >> i & 1;
        bool has = verify_imalist_has(allow->list, entry->name, kind, entry->file.ptr, &named);
        found.named |= named;
        found.named_now |= named && valid;
        if (has && valid) {
            found.allow = allow;
            found.valid = true;
            return found;
        }
        found.allow = has ? allow : found.allow;
    }
    return found;
}

static bool excluded(const struct judge *j, struct att_slice name, size_t *ret_which)
{
    for (size_t i = 0; i < j->rule->n_excludes; i++) {
        const struct verify_ima_exclude *exclude = &j->rule->excludes[i];
        if (name.len >= exclude->len && memcmp(name.ptr, exclude->prefix, exclude->len) == 0) {
            *ret_which = i;
            return true;
        }
    }
    return false;
}

static void say_window(const struct judge *j, const struct parse_ima_entry *entry,
                       const struct verify_ima_allow *allow, struct opinion *o)
{
    char seen[DIGEST_TEXT], limit[ATT_TIME_TEXT_LEN];
    bool late = allow->not_after && j->in->now > allow->not_after;
    seen_text(seen, entry);
    att_time_text(limit, late ? allow->not_after : allow->not_before);
    say(o, entry, VERIFY_FINDING_IMA_WINDOW, "%s: its allow list%s%.40s %s %s", seen,
        allow->label ? " " : "", allow->label ? allow->label : "",
        late ? "was valid until" : "is valid from", limit);
}

static void say_unknown(const struct judge *j, const struct parse_ima_entry *entry,
                        const struct listing *found, struct opinion *o)
{
    char seen[DIGEST_TEXT], allowed[DIGEST_TEXT] = "", more[40] = "";
    seen_text(seen, entry);
    if (!found->named) {
        say(o, entry, VERIFY_FINDING_IMA_UNLISTED, "%s: no allow list has this name", seen);
        return;
    }
    if (!found->named_now) {
        say(o, entry, VERIFY_FINDING_IMA_DIGEST,
            "%s, which no allow list has; those with this name are outside of their window", seen);
        return;
    }
    size_t n = allowed_text(j, entry->name, allowed);
    if (n > ALLOWED_COUNTED) {
        (void)snprintf(more, sizeof(more), " or one of %d others and more", ALLOWED_COUNTED - 1);
    } else if (n > 1) {
        (void)snprintf(more, sizeof(more), " or one of %zu others", n - 1);
    }
    say(o, entry, VERIFY_FINDING_IMA_DIGEST, "%s, allowed is %s%s", seen, allowed, more);
}

static void say_signature(const struct parse_ima_entry *entry, enum verify_imasig sig,
                          const uint8_t keyid[4], struct opinion *o)
{
    char seen[DIGEST_TEXT], id[9];
    att_hex(id, ATT_SLICE(keyid, 4));
    seen_text(seen, entry);
    say(o, entry, VERIFY_FINDING_IMA_SIGNATURE,
        "%s: no allow list has it, and its signature (key id %s) %s", seen, id,
        verify_imasig_word(sig));
}

/* Its form is the rule's: is it listed, signed, or left open? */
static void judge_form(const struct judge *j, const struct parse_ima_entry *entry, unsigned kind,
                       struct opinion *o)
{
    uint8_t keyid[4];
    const struct listing found = find(j, entry, kind);
    if (found.valid) {
        o->is = LISTED;
        return;
    }
    enum verify_imasig sig = j->rule->n_keys ? verify_imasig_check(j->rule->keys, j->rule->n_keys,
                                                                   entry, j->tries, keyid)
                                             : VERIFY_IMASIG_NONE;
    if (sig == VERIFY_IMASIG_GOOD) {
        o->is = SIGNED;
    } else if (!found.named && excluded(j, entry->name, &o->exclude)) {
        o->is = EXCLUDED;
    } else if (found.allow) {
        say_window(j, entry, found.allow, o);
    } else if (sig != VERIFY_IMASIG_NONE && !found.named_now) {
        say_signature(entry, sig, keyid, o);
    } else {
        say_unknown(j, entry, &found, o);
    }
}

static void judge_file(const struct judge *j, const struct parse_ima_entry *entry,
                       struct opinion *o)
{
    unsigned kind = verify_imalist_kind(entry->kind, entry->alg, entry->file.len);
    if (!template_allowed(j, entry->tmpl)) {
        say(o, entry, VERIFY_FINDING_IMA_TEMPLATE,
            "its template is %s, which the policy does not "
            "take",
            entry->tmpl->name);
    } else if (!kind) {
        say(o, entry, VERIFY_FINDING_IMA_TEMPLATE,
            "its digest is of %s, expected sha256, sha384 or sha512", entry->alg);
    } else {
        judge_form(j, entry, kind, o);
    }
}

/* A list that went through a kexec has another boot_aggregate, of the same PCRs. */
static bool is_aggregate(const struct judge *j, const struct parse_ima_entry *entry)
{
    return att_slice_eq_str(entry->name, "boot_aggregate") &&
           strcmp(entry->alg, j->aggregate_alg) == 0 &&
           att_slice_eq(entry->file, ATT_SLICE(j->aggregate, j->aggregate_len));
}

static void judge_entry(const struct judge *j, const struct parse_ima_entry *entry,
                        struct opinion *o)
{
    if (entry->violation && j->in->policy->ima_violations) {
        o->is = VIOLATION_ALLOWED;
    } else if (entry->violation) {
        say(o, entry, VERIFY_FINDING_IMA_VIOLATION,
            "a violation: the kernel could not measure a file, and this name is bound to nothing");
    } else if (entry->number == 0 || is_aggregate(j, entry)) {
        o->is = AGGREGATE;
    } else {
        judge_file(j, entry, o);
    }
}

/* ---- the list -------------------------------------------------------------------------------- */

static void tell(const struct judge *j, const struct parse_ima_entry *entry,
                 const struct opinion *o)
{
    struct verify_finding finding = {.id = o->id,
                                     .severity = j->rule->severity,
                                     .component = "ima",
                                     .log = "ima",
                                     .pcr = PARSE_IMA_PCR,
                                     .event = entry->number};
    (void)snprintf(finding.detail, sizeof(finding.detail), "%s", o->detail);
    if (j->rule->remedy) {
        (void)snprintf(finding.remedy, sizeof(finding.remedy), "%s", j->rule->remedy);
    }
    verify_policy_finding(j->in->policy, &finding, j->verdict);
}

/* tries: those that were left before it was judged. */
static void count(struct judge *j, const struct parse_ima_entry *entry, const struct opinion *o,
                  size_t tries)
{
    struct verify_ima_judged *state = &j->state;
    state->n_listed += o->is == LISTED;
    state->n_signed += o->is == SIGNED;
    state->n_violations += o->is == VIOLATION_ALLOWED;
    if (o->is == EXCLUDED) {
        state->n_excluded++;
        state->excluded[o->exclude]++;
    }
    if (o->is != BAD) {
        return;
    }
    if (state->n_found < VERIFY_MEMO_FOUND) {
        state->found[state->n_found++] =
            (struct verify_ima_seen){entry->offset, entry->number, tries};
    } else {
        state->left_out[o->id]++;
    }
}

/* What was found in the part that was judged before, told again. */
static enum att_rc tell_found(struct judge *j, struct parse_ima *list, struct att_err *err)
{
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; !rc && i < j->state.n_found; i++) {
        struct parse_ima_entry entry;
        struct opinion o = {.is = BAD};
        size_t tries = j->state.found[i].tries;
        j->tries = &tries;
        list->pos = j->state.found[i].offset;
        list->number = j->state.found[i].number;
        rc = parse_ima_next(list, &entry, err);
        if (!rc) {
            judge_entry(j, &entry, &o);
            tell(j, &entry, &o);
        }
    }
    j->tries = &j->state.tries;
    return rc;
}

/* Those of which no more than their number is kept. */
static void tell_left_out(const struct judge *j)
{
    for (unsigned id = 0; id < VERIFY_FINDING_COUNT; id++) {
        for (size_t n = 0; n < j->state.left_out[id]; n++) {
            struct verify_finding finding = {.id = (enum verify_finding_id)id,
                                             .severity = j->rule->severity,
                                             .component = "ima",
                                             .pcr = PARSE_IMA_PCR,
                                             .detail = "a further entry of IMA's list"};
            verify_policy_finding(j->in->policy, &finding, j->verdict);
        }
    }
}

static enum att_rc judge_until(struct judge *j, struct parse_ima *list, size_t end,
                               struct att_err *err)
{
    list->pos = j->state.used;
    list->number = j->state.n_entries;
    while (list->pos < end) {
        struct parse_ima_entry entry;
        struct opinion o = {.is = BAD};
        enum att_rc rc = parse_ima_next(list, &entry, err);
        if (rc) {
            return rc == ATT_E_NOTFOUND ? att_fail(err, ATT_E_INTERNAL, "it ends too early") : rc;
        }
        size_t tries = j->state.tries, before = j->state.n_found;
        judge_entry(j, &entry, &o);
        count(j, &entry, &o, tries);
        if (j->state.n_found > before) {
            tell(j, &entry, &o);
        }
    }
    j->state.used = list->pos;
    j->state.n_entries = list->number;
    return ATT_OK;
}

static enum att_rc take_aggregate(struct judge *j, struct parse_ima *list, struct att_err *err)
{
    struct parse_ima_entry entry;
    enum att_rc rc = parse_ima_next(list, &entry, err);
    if (rc || entry.file.len > sizeof(j->aggregate)) {
        return rc ? rc : att_fail(err, ATT_E_INTERNAL, "its first digest is too long");
    }
    memcpy(j->aggregate_alg, entry.alg, sizeof(j->aggregate_alg));
    memcpy(j->aggregate, entry.file.ptr, entry.file.len);
    j->aggregate_len = entry.file.len;
    return ATT_OK;
}

/* The policy's text names the rule and its lists by digest; which of those are valid is the time's
 * word. */
static void rule_key(const struct judge *j, uint8_t ret[ATT_SHA256_LEN])
{
    const uint8_t valid[4] = {(uint8_t)(j->valid >> 24), (uint8_t)(j->valid >> 16),
                              (uint8_t)(j->valid >> 8), (uint8_t)j->valid};
    const struct att_slice parts[] = {ATT_SLICE_ARRAY(j->in->policy->digest),
                                      ATT_SLICE_ARRAY(valid)};
    att_sha256_v(ret, parts, 2);
}

/* The signed part from where it was left, which is kept; then what came behind it. */
static enum att_rc judge_list(struct judge *j, struct att_err *err)
{
    ATT_CLEANUP(parse_ima_done) struct parse_ima list = {0};
    const struct evidence_log *log = j->in->ima_log;
    struct verify_ima_judged known;
    uint8_t key[ATT_SHA256_LEN];
    j->state.tries = VERIFY_IMASIG_TRIES;
    rule_key(j, key);
    if ((verify_memo_get_judged(j->in->memo, log->sha256, key, &known) ||
         (log->has_base && verify_memo_get_judged(j->in->memo, log->base_sha256, key, &known))) &&
        known.used <= log->data.len) {
        j->state = known;
    }
    enum att_rc rc = parse_ima_init(&list, j->in->ima, err);
    rc = rc ? rc : take_aggregate(j, &list, err);
    rc = rc ? rc : tell_found(j, &list, err);
    rc = rc ? rc : judge_until(j, &list, log->data.len, err);
    if (rc) {
        return rc;
    }
    verify_memo_put_judged(j->in->memo, log->sha256, key, &j->state);
    rc = judge_until(j, &list, j->in->ima.len, err);
    tell_left_out(j);
    return rc;
}

/* Whatever is left open stands in the record. */
static void tell_excluded(const struct judge *j)
{
    for (size_t i = 0; i < j->rule->n_excludes; i++) {
        if (!j->state.excluded[i]) {
            continue;
        }
        enum verify_severity said = j->in->policy->severities[VERIFY_FINDING_IMA_EXCLUDED];
        struct verify_finding finding = {.id = VERIFY_FINDING_IMA_EXCLUDED,
                                         .severity = said ? said : VERIFY_SEVERITY_INFO,
                                         .component = "ima",
                                         .pcr = PARSE_IMA_PCR};
        (void)snprintf(finding.detail, sizeof(finding.detail),
                       "pcr%d: %u entries begin with %.100s and are left open: %.150s",
                       PARSE_IMA_PCR, j->state.excluded[i], j->rule->excludes[i].prefix,
                       j->rule->excludes[i].reason);
        verify_policy_finding(j->in->policy, &finding, j->verdict);
    }
}

static void sum_up(const struct judge *j, char ret[VERIFY_IMAJUDGE_SUM_MAX])
{
    char sig[48] = "", violations[48] = "";
    if (j->state.n_signed) {
        (void)snprintf(sig, sizeof(sig), ", %zu signed", j->state.n_signed);
    }
    if (j->state.n_violations) {
        (void)snprintf(violations, sizeof(violations), ", %zu violations", j->state.n_violations);
    }
    (void)snprintf(ret, VERIFY_IMAJUDGE_SUM_MAX,
                   "; IMA: %zu entries, %zu on allow lists%s, %zu excluded%s", j->state.n_entries,
                   j->state.n_listed, sig, j->state.n_excluded, violations);
}

void verify_ima_judge(const struct verify_policy_in *in, char ret_sum[VERIFY_IMAJUDGE_SUM_MAX],
                      struct verify_verdict *verdict)
{
    struct judge j = {.in = in, .rule = &in->policy->ima, .verdict = verdict};
    const struct verify_ima_allow *unbound = verify_imarule_unbound(j.rule);
    struct att_err err = {0};
    ret_sum[0] = '\0';
    if (unbound) {
        char hex[2 * ATT_SHA256_LEN + 1];
        att_hex(hex, ATT_SLICE_ARRAY(unbound->sha256));
        verify_fail(verdict, VERIFY_REASON_POLICY_MISSING,
                    "boot policy %s version %u: its allow list %s is not here", in->policy->name,
                    in->policy->version, hex);
        return;
    }
    if (!in->ima_log || in->ima.len < in->ima_log->data.len || in->ima.len == 0) {
        verify_fail(verdict, VERIFY_REASON_INTERNAL, "IMA's list was not replayed");
        return;
    }
    for (size_t i = 0; i < j.rule->n_lists; i++) {
        j.valid |= (uint32_t)verify_ima_allow_valid(&j.rule->lists[i], in->now) << i;
    }
    if (judge_list(&j, &err)) {
        verify_fail(verdict, VERIFY_REASON_INTERNAL, "IMA's list: %s", err.msg);
        return;
    }
    tell_excluded(&j);
    sum_up(&j, ret_sum);
}
