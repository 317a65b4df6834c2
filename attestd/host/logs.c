/* The logs, before and after the quote. */
#include "attestd/host/internal.h"

#include "attestd/base/io.h"
#include "tpm/parse/eventlog.h"
#include "tpm/parse/ima.h"
#include "tpm/parse/systemd.h"

#include <string.h>

/* A log may have grown beyond what travels when it is read again. */
#define READ_MAX (EVIDENCE_LOG_MAX + EVIDENCE_TAIL_MAX)

static const char *path_of(const struct conf_attestd_logs *logs, const char *name)
{
    if (strcmp(name, "firmware") == 0) {
        return logs->firmware;
    }
    if (strcmp(name, "systemd") == 0) {
        return logs->systemd;
    }
    return strcmp(name, "ima") == 0 ? logs->ima : NULL;
}

static const struct conf_attestd_logs *paths_of(struct host *host)
{
    HOST_LOCKED(host);
    return host->conf->logs; /* freed only at the end */
}

/* ---- before the quote ------------------------------------------------------------------------ */

static bool is_known(const struct acme_wanted *wanted, const uint8_t sha256[ATT_SHA256_LEN])
{
    for (size_t i = 0; i < wanted->n_known; i++) {
        if (memcmp(wanted->known[i], sha256, ATT_SHA256_LEN) == 0) {
            return true;
        }
    }
    return false;
}

/* The longest that the issuer knows of what this log was. */
static bool find_seen(struct host *host, const struct acme_wanted *wanted,
                      const struct evidence_log *log, struct host_log_seen *ret_seen)
{
    bool found = false;
    HOST_LOCKED(host);
    for (size_t i = 0; i < HOST_LOGS_SEEN; i++) {
        const struct host_log_seen *seen = &host->logs_seen[i];
        if (strcmp(seen->name, log->name) == 0 && seen->length <= log->length &&
            is_known(wanted, seen->sha256) && (!found || seen->length > ret_seen->length)) {
            *ret_seen = *seen;
            found = true;
        }
    }
    return found;
}

static void remember(struct host *host, const struct evidence_log *log)
{
    HOST_LOCKED(host);
    for (size_t i = 0; i < HOST_LOGS_SEEN; i++) {
        if (memcmp(host->logs_seen[i].sha256, log->sha256, sizeof log->sha256) == 0) {
            return;
        }
    }
    struct host_log_seen *seen = &host->logs_seen[host->next_log_seen++ % HOST_LOGS_SEEN];
    memcpy(seen->name, log->name, sizeof seen->name);
    seen->length = log->length;
    memcpy(seen->sha256, log->sha256, sizeof seen->sha256);
}

/* Only where the log still begins with it: a reboot starts another. */
static enum att_rc put_base(struct host *host, const struct acme_wanted *wanted,
                            struct evidence_logs *logs, const char *name, struct att_err *err)
{
    const struct evidence_log *log = evidence_logs_find(logs, name);
    struct host_log_seen seen;
    if (!log || strcmp(name, "firmware") == 0) {
        return ATT_OK;
    }
    remember(host, log);
    if (!find_seen(host, wanted, log, &seen)) {
        return ATT_OK;
    }
    uint8_t digest[ATT_SHA256_LEN];
    att_sha256(digest, ATT_SLICE(log->data.ptr, (size_t)seen.length));
    return memcmp(digest, seen.sha256, sizeof digest) == 0
               ? evidence_logs_set_base(logs, name, seen.length, seen.sha256, err)
               : ATT_OK;
}

enum att_rc host_logs_collect(struct host *host, const struct acme_wanted *wanted,
                              struct evidence_logs *ret_logs, struct att_err *err)
{
    struct evidence_logs logs = {0};
    const struct conf_attestd_logs *paths = paths_of(host);
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; rc == ATT_OK && i < wanted->n_logs; i++) {
        const char *path = path_of(paths, wanted->logs[i]);
        if (!path) {
            continue; /* a log that we do not know is one that we do not have */
        }
        att_autobuf bytes = ATT_BUF_INIT(EVIDENCE_LOG_MAX);
        struct att_err why = {0};
        rc = att_io_read_file(path, EVIDENCE_LOG_MAX, &bytes, &why);
        if (rc == ATT_E_NOTFOUND) {
            rc = ATT_OK; /* not sent; the issuer decides what that means */
            continue;
        }
        if (rc != ATT_OK) {
            rc = att_fail(err, rc, "%s log: %s", wanted->logs[i], why.msg);
            break;
        }
        rc = evidence_logs_add(&logs, wanted->logs[i], att_buf_slice(&bytes), err);
        if (rc == ATT_OK) {
            rc = put_base(host, wanted, &logs, wanted->logs[i], err);
        }
    }
    if (rc != ATT_OK) {
        evidence_logs_done(&logs);
        return rc;
    }
    *ret_logs = logs;
    return ATT_OK;
}

/* ---- after it -------------------------------------------------------------------------------- */

static bool ima_leads_to(struct att_slice bytes, size_t signed_len,
                         const struct parse_pcr_set *quoted,
                         const uint8_t start[][PARSE_DIGEST_MAX])
{
    struct parse_ima_pcrs pcrs;
    struct parse_ima_replay how = {.bank = quoted->sel.bank,
                                   .start = start,
                                   .at_least = signed_len,
                                   .until = quoted->value[PARSE_IMA_PCR]};
    return !(quoted->sel.mask >> PARSE_IMA_PCR & 1) ||
           (parse_ima_replay(bytes, &how, &pcrs, NULL) == ATT_OK &&
            memcmp(pcrs.value[PARSE_IMA_PCR], how.until, pcrs.digest_len) == 0);
}

static bool systemd_leads_to(struct att_slice bytes, size_t signed_len,
                             const struct parse_pcr_set *quoted,
                             const uint8_t start[][PARSE_DIGEST_MAX])
{
    struct parse_systemd_pcrs pcrs;
    struct parse_systemd_replay how = {.bank = quoted->sel.bank,
                                       .start = start,
                                       .at_least = signed_len,
                                       .until = quoted,
                                       .mask = quoted->sel.mask & ~(1U << PARSE_IMA_PCR)};
    if (parse_systemd_replay(bytes, &how, &pcrs, NULL) != ATT_OK) {
        return false;
    }
    for (unsigned pcr = 9; pcr < PARSE_PCR_COUNT; pcr++) { /* below nobody measures any more */
        if ((how.mask >> pcr & 1) &&
            memcmp(pcrs.value[pcr], quoted->value[pcr], pcrs.digest_len) != 0) {
            return false;
        }
    }
    return true;
}

static bool leads_to(const struct evidence_logs *logs, const char *name, struct att_slice bytes,
                     size_t signed_len, const struct parse_pcr_set *quoted)
{
    const struct evidence_log *firmware = evidence_logs_find(logs, "firmware");
    struct parse_eventlog_pcrs start;
    if (!firmware || parse_eventlog_replay(att_buf_slice(&firmware->data), quoted->sel.bank, &start,
                                           NULL) != ATT_OK) {
        return true; /* without it nothing can be said here */
    }
    const uint8_t(*values)[PARSE_DIGEST_MAX] = (const uint8_t(*)[PARSE_DIGEST_MAX])start.value;
    return strcmp(name, "ima") == 0 ? ima_leads_to(bytes, signed_len, quoted, values)
                                    : systemd_leads_to(bytes, signed_len, quoted, values);
}

static enum att_rc read_one_again(const char *path, struct evidence_logs *logs,
                                  const struct evidence_log *log,
                                  const struct parse_pcr_set *quoted, bool *ret_again,
                                  struct att_err *err)
{
    att_autobuf bytes = ATT_BUF_INIT(READ_MAX);
    struct att_err why = {0};
    enum att_rc rc = att_io_read_file(path, READ_MAX, &bytes, &why);
    if (rc != ATT_OK) {
        return att_fail(err, rc, "%s log: %s", log->name, why.msg);
    }
    struct att_slice all = att_buf_slice(&bytes);
    size_t len = log->data.len;
    if (all.len < len || !att_slice_eq(ATT_SLICE(all.ptr, len), att_buf_slice(&log->data))) {
        return att_fail(err, ATT_E_RETRY, "%s log: it no longer begins with what was signed",
                        log->name);
    }
    if (!leads_to(logs, log->name, all, len, quoted)) {
        *ret_again = true;
    }
    struct att_slice tail = ATT_SLICE(all.ptr + len, all.len - len);
    if (tail.len > EVIDENCE_TAIL_MAX) {
        tail.len = EVIDENCE_TAIL_MAX; /* the quote is in it or not, as leads_to said for all */
        *ret_again = !leads_to(logs, log->name, ATT_SLICE(all.ptr, len + tail.len), len, quoted) ||
                     *ret_again;
    }
    return evidence_logs_set_tail(logs, log->name, tail, err);
}

enum att_rc host_logs_read_again(struct host *host, struct evidence_logs *logs, const json_t *pcrs,
                                 bool *ret_again, struct att_err *err)
{
    static const char *const growing[] = {"systemd", "ima"};
    const struct conf_attestd_logs *paths = paths_of(host);
    struct parse_pcr_set quoted;
    enum att_rc rc = parse_pcr_set_from_json(pcrs, NULL, &quoted, err);
    *ret_again = false;
    for (size_t i = 0; rc == ATT_OK && i < sizeof growing / sizeof growing[0]; i++) {
        const struct evidence_log *log = evidence_logs_find(logs, growing[i]);
        if (log) {
            rc = read_one_again(path_of(paths, growing[i]), logs, log, &quoted, ret_again, err);
        }
    }
    return rc;
}
