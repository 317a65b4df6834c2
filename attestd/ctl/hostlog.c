#include "attestd/ctl/hostlog.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/ctl/tlog.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORM   "attestd-hostlog/1"
#define DIGITS 20
#define SUFFIX ".jsonl"

/* ---- one record --------------------------------------------------------------------------------
 */

static bool take_number(const json_t *json, const char *name, bool required, uint64_t *ret)
{
    const json_t *n = json_object_get(json, name);
    *ret = (uint64_t)json_integer_value(n);
    return n ? json_is_integer(n) && json_integer_value(n) >= 0 : !required;
}

enum att_rc hostlog_record_parse(struct att_slice line, struct hostlog_record *ret_record,
                                 struct att_err *err)
{
    att_autojson *json = NULL;
    struct hostlog_record r = {0};
    uint64_t at = 0;
    const struct att_slice parts[] = {ATT_SLICE_LIT(FORM), line};
    if (att_json_parse_few(line, HOSTLOG_LINE_MAX, 64, &json, NULL) || !json_is_object(json)) {
        return tlog_refuse(err, ATT_E_PARSE, "hostLogRecord", "is not one JSON object");
    }
    const char *prev = json_string_value(json_object_get(json, "prev"));
    const char *kind = json_string_value(json_object_get(json, "kind"));
    const char *bad = !take_number(json, "seq", true, &r.seq) || r.seq == 0         ? "seq"
                      : !take_number(json, "at", true, &at)                         ? "at"
                      : !prev || att_unhex_exact(r.prev, sizeof r.prev, prev, NULL) ? "prev"
                      : !kind || !kind[0] || strlen(kind) >= sizeof r.kind          ? "kind"
                      : !take_number(json, "upTo", false, &r.dropped_up_to)         ? "upTo"
                      : !take_number(json, "missed", false, &r.missed)              ? "missed"
                                                                                    : NULL;
    if (bad) {
        return tlog_refuse(err, ATT_E_PARSE, "hostLogRecord", "%s is missing, or not as it must be",
                           bad);
    }
    memcpy(r.kind, kind, strlen(kind) + 1);
    r.at = (int64_t)at;
    if (strcmp(kind, "dropped") != 0) {
        r.dropped_up_to = 0;
    }
    att_sha256_v(r.hash, parts, 2);
    *ret_record = r;
    return ATT_OK;
}

/* ---- anchors -----------------------------------------------------------------------------------
 */

static enum att_rc no_anchor(struct att_err *err, const char *what)
{
    return tlog_refuse(err, ATT_E_PARSE, "hostLogAnchor", "%s", what);
}

/* "attestd-decision/1\n<number>\n<seconds>\n…" */
static bool read_leaf(struct att_slice leaf, struct hostlog_anchor *anchor)
{
    char text[80] = "";
    char *end;
    memcpy(text, leaf.ptr, leaf.len < sizeof text - 1 ? leaf.len : sizeof text - 1);
    char *number = strchr(text, '\n');
    if (!number) {
        return false;
    }
    errno = 0;
    anchor->decision = strtoull(number + 1, &end, 10);
    anchor->at = *end == '\n' ? strtoll(end + 1, &end, 10) : -1;
    return errno == 0 && *end == '\n' && anchor->decision > 0 && anchor->at >= 0;
}

enum att_rc hostlog_anchor_parse(struct att_slice record, struct att_slice leaf,
                                 struct hostlog_anchor *ret_anchor, struct att_err *err)
{
    att_autojson *json = NULL;
    struct hostlog_anchor anchor = {0};
    if (!record.len) {
        return no_anchor(err, "the decision's record is not shown: its head cannot be read");
    }
    if (att_json_parse(record, (size_t)8 << 20, &json, NULL) || !json_is_object(json)) {
        return no_anchor(err, "the decision's record is not one JSON object");
    }
    const char *head = json_string_value(json_object_get(json, "hostLogHead"));
    const char *host = json_string_value(json_object_get(json, "host"));
    if (!head) {
        return no_anchor(err, "the decision holds no head of a host's log");
    }
    if (att_unhex_exact(anchor.head, sizeof anchor.head, head, NULL) || !host ||
        strlen(host) >= sizeof anchor.host || !read_leaf(leaf, &anchor)) {
        return no_anchor(err, "hostLogHead, host or the leaf are not as the issuer writes them");
    }
    memcpy(anchor.host, host, strlen(host) + 1);
    *ret_anchor = anchor;
    return ATT_OK;
}

static int by_decision(const void *a, const void *b)
{
    const struct hostlog_anchor *x = a, *y = b;
    return (x->decision > y->decision) - (x->decision < y->decision);
}

static enum att_rc one_host(const struct hostlog_anchor *anchors, size_t n, struct att_err *err)
{
    const char *host = "";
    for (size_t i = 0; i < n; i++) {
        if (anchors[i].host[0] && host[0] && strcmp(anchors[i].host, host) != 0) {
            return tlog_refuse(err, ATT_E_INVAL, "hostLogHost",
                               "decision %llu is of host %.12s, another of %.12s",
                               (unsigned long long)anchors[i].decision, anchors[i].host, host);
        }
        host = anchors[i].host[0] ? anchors[i].host : host;
    }
    return ATT_OK;
}

/* ---- the folder --------------------------------------------------------------------------------
 */

static int by_name(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static enum att_rc list(const char *path, uint64_t *ret_firsts, size_t *ret_n, struct att_err *err)
{
    DIR *dir = opendir(path);
    size_t n = 0;
    if (!dir) {
        return att_fail_errno(err, errno == ENOENT ? ATT_E_NOTFOUND : ATT_E_IO, "cannot read %s",
                              path);
    }
    for (struct dirent *entry; n < HOSTLOG_FILES_MAX && (entry = readdir(dir));) {
        const char *name = entry->d_name;
        if (strspn(name, "0123456789") == DIGITS && strcmp(name + DIGITS, SUFFIX) == 0) {
            ret_firsts[n++] = strtoull(name, NULL, 10);
        }
    }
    closedir(dir);
    if (n == 0) {
        return tlog_refuse(err, ATT_E_NOTFOUND, "hostLogTruncated", "%s holds no host's log", path);
    }
    qsort(ret_firsts, n, sizeof *ret_firsts, by_name);
    *ret_n = n;
    return ATT_OK;
}

struct walk {
    struct hostlog_anchor *anchors;
    size_t n;
    struct hostlog_record last; /* seq 0: none yet */
    struct hostlog_facts facts;
    uint64_t dropped_up_to;
};

static enum att_rc take(struct walk *w, const struct hostlog_record *r, struct att_err *err)
{
    bool first = w->last.seq == 0;
    if (!first && r->seq != w->last.seq + 1) {
        return tlog_refuse(err, ATT_E_AUTH, "hostLogTruncated", "record %llu is not there",
                           (unsigned long long)w->last.seq + 1);
    }
    if (!first && memcmp(r->prev, w->last.hash, sizeof r->prev) != 0) {
        return tlog_refuse(err, ATT_E_AUTH, "hostLogEdited",
                           "record %llu is not the one that record %llu was made after",
                           (unsigned long long)w->last.seq, (unsigned long long)r->seq);
    }
    if (first) {
        static const uint8_t zeros[ATT_SHA256_LEN];
        if (r->seq == 1 && memcmp(r->prev, zeros, sizeof zeros) != 0) {
            return tlog_refuse(err, ATT_E_AUTH, "hostLogEdited",
                               "record 1 says that there was one before it");
        }
        w->facts.first = r->seq;
        w->facts.first_at = r->at;
    }
    if (r->dropped_up_to > w->dropped_up_to) {
        w->dropped_up_to = r->dropped_up_to;
    }
    w->facts.missed += r->missed;
    for (size_t i = 0; i < w->n; i++) {
        if (memcmp(w->anchors[i].head, r->hash, sizeof r->hash) == 0) {
            w->anchors[i].found_seq = r->seq;
        }
    }
    w->last = *r;
    return ATT_OK;
}

static enum att_rc read_file(struct walk *w, const char *dir, uint64_t first, struct att_err *err)
{
    char path[4096];
    att_autobuf bytes = ATT_BUF_INIT(HOSTLOG_FILE_MAX);
    snprintf(path, sizeof path, "%s/%0*llu" SUFFIX, dir, DIGITS, (unsigned long long)first);
    enum att_rc rc = att_io_read_file(path, HOSTLOG_FILE_MAX, &bytes, err);
    size_t line = 1;
    for (size_t at = 0; !rc && at < bytes.len; line++) {
        struct hostlog_record r;
        const uint8_t *end = memchr(bytes.ptr + at, '\n', bytes.len - at);
        size_t len = end ? (size_t)(end - (bytes.ptr + at)) : bytes.len - at;
        rc = hostlog_record_parse(ATT_SLICE(bytes.ptr + at, len), &r, err);
        rc = rc ? rc : take(w, &r, err);
        at += len + 1;
    }
    if (rc) {
        att_err_prefix(err, "%s:%zu", path, line - 1);
    }
    return rc;
}

/* ---- the verdict -------------------------------------------------------------------------------
 */

static enum att_rc missing(const struct walk *w, const struct hostlog_anchor *a,
                           struct att_err *err)
{
    char at[ATT_TIME_TEXT_LEN] = "an unknown time", last[ATT_TIME_TEXT_LEN];
    unsigned long long decision = (unsigned long long)a->decision;
    att_time_text(last, w->last.at);
    if (a->at) {
        att_time_text(at, a->at);
    }
    if (a->at && a->at >= w->last.at) {
        return tlog_refuse(err, ATT_E_AUTH, "hostLogTruncated",
                           "the log ends with record %llu of %s, before the head that decision "
                           "%llu of %s holds",
                           (unsigned long long)w->last.seq, last, decision, at);
    }
    return tlog_refuse(err, ATT_E_AUTH, "hostLogHead",
                       "no record of this log has the head that decision %llu (%s) holds", decision,
                       at);
}

/* The log's own numbers and times say that it was of a record from before its beginning: whoever
 * wrote the log anew chose them. So it is one only where the caller takes its word. */
static bool is_before(const struct walk *w, const struct hostlog_anchor *a)
{
    return !a->found_seq && w->facts.first > 1 && a->at && a->at <= w->facts.first_at;
}

static enum att_rc check_dropped(const struct walk *w, bool allow_dropped, struct att_err *err)
{
    size_t found = 0;
    const struct hostlog_anchor *lost = NULL;
    for (size_t i = 0; i < w->n; i++) {
        found += w->anchors[i].found_seq != 0;
        lost = !lost && is_before(w, &w->anchors[i]) ? &w->anchors[i] : lost;
    }
    if (!lost || (allow_dropped && found)) {
        return ATT_OK;
    }
    return tlog_refuse(err, ATT_E_AUTH, "hostLogDropped",
                       "the log begins with record %llu, and the head that decision %llu holds is "
                       "not in it: %s",
                       (unsigned long long)w->facts.first, (unsigned long long)lost->decision,
                       found ? "that it was dropped is the log's own word"
                             : "nothing anchors this log, give the proof of a later decision");
}

static enum att_rc judge(struct walk *w, bool allow_dropped, struct att_err *err)
{
    uint64_t before = 0, of = 0;
    if (w->facts.first > 1 && w->dropped_up_to + 1 < w->facts.first) {
        return tlog_refuse(err, ATT_E_AUTH, "hostLogTruncated",
                           "it begins with record %llu, and no record says that those before it "
                           "were dropped",
                           (unsigned long long)w->facts.first);
    }
    for (size_t i = 0; i < w->n; i++) {
        const struct hostlog_anchor *a = &w->anchors[i];
        if (!before && is_before(w, a)) {
            continue; /* an earlier one that was found would lie before it */
        }
        if (!a->found_seq) {
            return missing(w, a, err);
        }
        if (a->found_seq < before) {
            return tlog_refuse(err, ATT_E_AUTH, "hostLogRolledBack",
                               "decision %llu holds the head of record %llu, the earlier decision "
                               "%llu that of record %llu",
                               (unsigned long long)a->decision, (unsigned long long)a->found_seq,
                               (unsigned long long)of, (unsigned long long)before);
        }
        before = a->found_seq;
        of = a->decision;
    }
    return check_dropped(w, allow_dropped, err);
}

enum att_rc hostlog_verify(const char *dir, struct hostlog_anchor *anchors, size_t n,
                           bool allow_dropped, struct hostlog_facts *ret_facts, struct att_err *err)
{
    uint64_t *firsts = calloc(HOSTLOG_FILES_MAX, sizeof *firsts);
    struct walk w = {.anchors = anchors, .n = n};
    size_t n_files = 0;
    if (!firsts) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a list of files");
    }
    enum att_rc rc = one_host(anchors, n, err);
    rc = rc ? rc : list(dir, firsts, &n_files, err);
    if (!rc && n) {
        qsort(anchors, n, sizeof *anchors, by_decision);
    }
    for (size_t i = 0; !rc && i < n_files; i++) {
        rc = read_file(&w, dir, firsts[i], err);
    }
    free(firsts);
    if (!rc && !w.last.seq) {
        rc = tlog_refuse(err, ATT_E_AUTH, "hostLogTruncated", "%s: no record", dir);
    }
    rc = rc ? rc : judge(&w, allow_dropped, err);
    if (!rc) {
        w.facts.last = w.last.seq;
        w.facts.last_at = w.last.at;
        memcpy(w.facts.head, w.last.hash, sizeof w.facts.head);
        *ret_facts = w.facts;
    }
    return rc;
}
