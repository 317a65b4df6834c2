#include "attestd/ctl/source.h"

#include "attestd/base/io.h"
#include "tpm/parse/attest.h"
#include "tpm/parse/eventlog.h"
#include "tpm/parse/pcr_file.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define QUOTE_FILE_MAX ((size_t)64 << 10)
#define ALL_BOOT_PCRS  "sha256:0,1,2,3,4,5,6,7,8,9,11,12,13,14"

static const char *const names[][2] = {
    {"firmware", "eventlog"}, {"systemd", "systemd"}, {"ima", "ima"}};
#define N_NAMES (sizeof names / sizeof names[0])

void ctl_source_done(struct ctl_source *source)
{
    evidence_logs_done(&source->logs);
}

/* ---- files of a quote ------------------------------------------------------------------------ */

/* A folder, or an object of base64url members. ATT_E_NOTFOUND where there is none. */
struct folder {
    const char *dir;
    const json_t *files;
};

static enum att_rc get(const struct folder *from, const char *name, const char *suffix, size_t max,
                       struct att_buf *ret, struct att_err *err)
{
    char path[4096], file[64];
    snprintf(file, sizeof file, "%s%s", name, suffix);
    if (from->files) {
        return json_object_get(from->files, file) ? att_json_b64u(from->files, file, max, ret, err)
                                                  : ATT_E_NOTFOUND;
    }
    if ((size_t)snprintf(path, sizeof path, "%s/%s", from->dir, file) >= sizeof path) {
        return att_fail(err, ATT_E_INVAL, "path too long");
    }
    struct att_err mine = {0};
    enum att_rc rc = att_io_read_file(path, max, ret, &mine);
    if (rc != ATT_OK && rc != ATT_E_NOTFOUND && err) {
        *err = mine;
    }
    return rc;
}

static enum att_rc take_logs(const struct folder *from, struct ctl_source *source,
                             struct att_err *err)
{
    for (size_t i = 0; i < N_NAMES; i++) {
        att_autobuf bytes = ATT_BUF_INIT(EVIDENCE_LOG_MAX), tail = ATT_BUF_INIT(EVIDENCE_TAIL_MAX);
        enum att_rc rc = get(from, names[i][1], "", EVIDENCE_LOG_MAX, &bytes, err);
        if (rc == ATT_E_NOTFOUND) {
            continue;
        }
        rc = rc ? rc : evidence_logs_add(&source->logs, names[i][0], att_buf_slice(&bytes), err);
        if (rc == ATT_OK) {
            rc = get(from, names[i][1], ".tail", EVIDENCE_TAIL_MAX, &tail, err);
            rc = rc == ATT_E_NOTFOUND ? ATT_OK
                 : rc                 ? rc
                      : evidence_logs_set_tail(&source->logs, names[i][0], att_buf_slice(&tail),
                                               err);
        }
        if (rc != ATT_OK) {
            return rc;
        }
        source->bits |= verify_log_bit(att_slice_str(names[i][0]));
    }
    return ATT_OK;
}

/* The values have no selection of their own that we would believe: the quote's is meant. */
static enum att_rc take_values(const struct folder *from, struct ctl_source *source,
                               struct att_err *err)
{
    att_autobuf quote = ATT_BUF_INIT(QUOTE_FILE_MAX), pcrs = ATT_BUF_INIT(QUOTE_FILE_MAX);
    struct parse_attest attest;
    struct parse_pcr_sel sel;
    static const char *const both[] = {"quote", "pcrs"};
    struct att_buf *into[] = {&quote, &pcrs};
    for (size_t i = 0; i < 2; i++) {
        enum att_rc rc = get(from, both[i], "", QUOTE_FILE_MAX, into[i], err);
        if (rc) {
            return rc == ATT_E_NOTFOUND
                       ? att_fail(err, rc,
                                  "%s: not there; expected a folder of evidence with "
                                  "quote, pcrs and eventlog",
                                  both[i])
                       : rc;
        }
    }
    enum att_rc rc = parse_attest_quote(att_buf_slice(&quote), &attest, err);
    rc = rc ? rc : parse_pcr_sel_from_raw(attest.u.quote.pcr_select, &sel, err);
    rc = rc ? rc : parse_pcr_file_parse(att_buf_slice(&pcrs), &sel, &source->pcrs, err);
    return rc;
}

static enum att_rc from_folder(const struct folder *from, struct ctl_source *ret,
                               struct att_err *err)
{
    struct ctl_source source = {0};
    enum att_rc rc = take_values(from, &source, err);
    rc = rc ? rc : take_logs(from, &source, err);
    if (rc) {
        ctl_source_done(&source);
        return rc;
    }
    *ret = source;
    return ATT_OK;
}

enum att_rc ctl_source_from_quote(const json_t *files, struct ctl_source *ret, struct att_err *err)
{
    return from_folder(&(struct folder){.files = files}, ret, err);
}

/* ---- a log and values ------------------------------------------------------------------------ */

static void keep(struct parse_pcr_set *set, uint32_t mask)
{
    set->sel.mask &= mask;
    for (unsigned pcr = 0; pcr < PARSE_PCR_COUNT; pcr++) {
        if (!(set->sel.mask >> pcr & 1)) {
            memset(set->value[pcr], 0, sizeof set->value[pcr]);
        }
    }
}

static enum att_rc replay(struct att_slice log, const struct parse_pcr_sel *sel,
                          struct parse_pcr_set *ret, struct att_err *err)
{
    struct parse_eventlog_pcrs pcrs;
    enum att_rc rc = parse_eventlog_replay(log, sel->bank, &pcrs, err);
    if (rc == ATT_OK) {
        *ret = (struct parse_pcr_set){.sel = *sel, .digest_len = pcrs.digest_len};
        memcpy(ret->value, pcrs.value, sizeof ret->value);
        keep(ret, sel->mask);
    }
    return rc;
}

static enum att_rc read_values(const char *path, const struct parse_pcr_sel *sel, bool all,
                               struct parse_pcr_set *ret, struct att_err *err)
{
    att_autobuf text = ATT_BUF_INIT(QUOTE_FILE_MAX);
    enum att_rc rc = att_io_read_file(path, QUOTE_FILE_MAX, &text, err);
    rc = rc ? rc : parse_pcr_set_parse(att_buf_slice(&text), NULL, ret, err);
    if (!rc && !all && (ret->sel.bank != sel->bank || (sel->mask & ~ret->sel.mask))) {
        rc = att_fail(err, ATT_E_INVAL, "it has not all of the PCRs that are selected");
    }
    if (rc) {
        att_err_prefix(err, "%s", path);
    } else if (!all) {
        keep(ret, sel->mask);
    }
    return rc;
}

static enum att_rc from_log(const char *path, const char *values, const char *selection,
                            struct ctl_source *ret, struct att_err *err)
{
    struct ctl_source source = {.bits = VERIFY_LOG_FIRMWARE, .replayed = !values};
    struct parse_pcr_sel sel;
    att_autobuf log = ATT_BUF_INIT(EVIDENCE_LOG_MAX);
    enum att_rc rc = parse_pcr_sel_parse(selection ? selection : ALL_BOOT_PCRS, &sel, err);
    rc = rc ? rc : att_io_read_file(path, EVIDENCE_LOG_MAX, &log, err);
    rc = rc ? rc : evidence_logs_add(&source.logs, "firmware", att_buf_slice(&log), err);
    if (rc == ATT_OK) {
        rc = values ? read_values(values, &sel, !selection, &source.pcrs, err)
                    : replay(att_buf_slice(&log), &sel, &source.pcrs, err);
    }
    if (rc) {
        ctl_source_done(&source);
        return rc;
    }
    *ret = source;
    return ATT_OK;
}

enum att_rc ctl_source_read(const char *path, const char *values, const char *selection,
                            struct ctl_source *ret, struct att_err *err)
{
    struct stat st;
    if (stat(path, &st) != 0) {
        return att_fail(err, ATT_E_NOTFOUND, "%s: no such file or folder", path);
    }
    if (S_ISDIR(st.st_mode) && (values || selection)) {
        return att_fail(err, ATT_E_INVAL,
                        "%s: a folder of evidence has its PCR values, as they were quoted", path);
    }
    enum att_rc rc = S_ISDIR(st.st_mode) ? from_folder(&(struct folder){.dir = path}, ret, err)
                                         : from_log(path, values, selection, ret, err);
    if (rc && rc != ATT_E_INVAL) {
        att_err_prefix(err, "%s", path);
    }
    return rc;
}
