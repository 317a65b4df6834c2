#include "attestd/host/measure.h"

#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/host/internal.h"
#include "attestd/proc/who_proto.h"
#include "provision/manifest/check.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUSY_TRIES 100 /* of BUSY_MS: others measure meanwhile */
#define BUSY_MS    200

#define CALLER_MS ((int64_t)60000) /* for all of a caller's files */
#define TURN_MS   ((int64_t)2000)  /* how long a caller waits until it is its turn */

/* Whose files, and how old what whod read of them may be. */
struct look {
    struct host *host;
    pid_t pid;
    int pidfd;
    uint32_t max_age_s;
    int64_t deadline_ms; /* CLOCK_BOOTTIME, for all of it; INT64_MAX: none */
};

void host_measured_done(struct host_measured *measured)
{
    manifest_done(&measured->manifest);
    att_buf_done(&measured->document);
    *measured = (struct host_measured){0};
}

/* ---- whod ---- */

static enum att_rc cannot_tell(struct att_err *err, const char *why)
{
    (void)!att_fail(err, ATT_E_RETRY, "its files cannot be measured now: %s", why);
    att_err_reason(err, "notMeasured");
    return ATT_E_RETRY;
}

/* whod measures for few at a time: waits for a turn. A foreign server in its place says nothing
 * about the files. */
static enum att_rc ask(const struct look *look, uint16_t op, const struct proc_value *values,
                       struct proc_answer *ret_answer, struct att_err *err)
{
    for (int tries = 0;; tries++) {
        struct att_err why = {0};
        if (att_boottime_ms() >= look->deadline_ms) {
            return cannot_tell(err, "it takes too long");
        }
        enum att_rc rc = proc_call(look->host->measurer, op, values, look->pidfd, ret_answer, &why);
        if (rc == ATT_E_DENIED && strcmp(why.reason, "foreignServer") == 0) {
            rc = why.rc = ATT_E_UNREACHABLE;
        }
        bool busy = rc == ATT_E_LIMIT && strcmp(why.reason, "measuring") == 0;
        if (!busy || tries == BUSY_TRIES || atomic_load(&look->host->stop)) {
            if (busy) {
                return cannot_tell(err, why.msg);
            }
            if (rc != ATT_OK && err) {
                *err = why;
            }
            return rc;
        }
        proc_answer_done(ret_answer);
        usleep(BUSY_MS * 1000);
    }
}

static enum att_rc read_document(const struct look *look, const char *path, struct att_buf *ret,
                                 struct att_err *err)
{
    static const char changing[] = "the manifest changes while it is read";
    enum att_rc rc = ATT_OK;
    *ret = ATT_BUF_INIT(MANIFEST_MAX);
    uint64_t size = 1;
    while (rc == ATT_OK && ret->len < size) {
        proc_autoanswer answer = {0};
        const struct proc_value values[] = {[PROC_WHO_READ_REQ_PID] = proc_num((uint64_t)look->pid),
                                            [PROC_WHO_READ_REQ_PATH] = proc_text(path),
                                            [PROC_WHO_READ_REQ_OFFSET] = proc_num(ret->len)};
        rc = ask(look, PROC_WHO_READ, values, &answer, err);
        if (rc != ATT_OK) {
            break;
        }
        struct att_slice bytes = answer.msg.v[PROC_WHO_READ_REP_BYTES].bytes;
        uint64_t is = answer.msg.v[PROC_WHO_READ_REP_SIZE].num;
        if (ret->len && is != size) {
            return cannot_tell(err, changing);
        }
        size = is;
        att_buf_put_slice(ret, bytes);
        rc = att_buf_ok(ret, err);
        if (rc == ATT_OK && bytes.len == 0) {
            break;
        }
    }
    if (rc == ATT_OK && ret->len != size) {
        return cannot_tell(err, changing);
    }
    if (rc == ATT_E_NOTFOUND || rc == ATT_E_DENIED) {
        att_err_prefix(err, "manifest");
        att_err_reason(err, "manifestMissing");
        rc = ATT_E_DENIED;
    }
    return rc;
}

static bool take_seen(struct att_slice item, struct manifest_seen *ret)
{
    struct att_cur cur = att_cur_init(item);
    uint8_t kind = att_cur_u8(&cur), flags = att_cur_u8(&cur);
    ret->size = att_cur_be64(&cur);
    struct att_slice verity = att_cur_take(&cur, ATT_SHA256_LEN);
    struct att_slice sha256 = att_cur_take(&cur, ATT_SHA256_LEN);
    ret->dev_major = att_cur_be32(&cur);
    ret->dev_minor = att_cur_be32(&cur);
    struct att_slice text = att_cur_take(&cur, cur.left);
    if (cur.failed || kind > MANIFEST_NOT_YET || flags > 3 || text.len > MANIFEST_PATH_MAX ||
        memchr(text.ptr, 0, text.len)) {
        return false;
    }
    ret->kind = (enum manifest_kind)kind;
    ret->has_verity = flags & 1;
    ret->has_sha256 = flags & 2;
    memcpy(ret->verity, verity.ptr, ATT_SHA256_LEN);
    memcpy(ret->sha256, sha256.ptr, ATT_SHA256_LEN);
    memcpy(ret->text, text.ptr, text.len);
    ret->text[text.len] = 0;
    return true;
}

/* The paths asks[which[…]]; those not measured yet are which afterwards. */
static enum att_rc measure_some(const struct look *look, const struct manifest_ask *asks,
                                size_t *which, size_t *n, struct manifest_seen *ret,
                                struct att_err *err)
{
    struct att_slice paths[PROC_WHO_BATCH_MAX], sizes[PROC_WHO_BATCH_MAX];
    uint8_t numbers[PROC_WHO_BATCH_MAX][sizeof(uint64_t)];
    proc_autoanswer answer = {0};
    for (size_t i = 0; i < *n; i++) {
        paths[i] = att_slice_str(asks[which[i]].path);
        for (size_t k = 0; k < sizeof numbers[i]; k++) {
            numbers[i][k] = (uint8_t)(asks[which[i]].size >> (56 - 8 * k));
        }
        sizes[i] = ATT_SLICE_ARRAY(numbers[i]);
    }
    int64_t left_ms = look->deadline_ms - att_boottime_ms();
    left_ms = left_ms < 0 ? 0 : left_ms > UINT32_MAX ? UINT32_MAX : left_ms;
    const struct proc_value values[] = {
        [PROC_WHO_MEASURE_REQ_PID] = proc_num((uint64_t)look->pid),
        [PROC_WHO_MEASURE_REQ_MAX_AGE_S] = proc_num(look->max_age_s),
        [PROC_WHO_MEASURE_REQ_WITHIN_MS] = proc_num((uint64_t)left_ms),
        [PROC_WHO_MEASURE_REQ_SIZES] = {.items = sizes, .item_count = *n},
        [PROC_WHO_MEASURE_REQ_PATHS] = {.items = paths, .item_count = *n}};
    enum att_rc rc = ask(look, PROC_WHO_MEASURE, values, &answer, err);
    if (rc != ATT_OK) {
        return rc;
    }
    const struct proc_value *seen = &answer.msg.v[PROC_WHO_MEASURE_REP_SEEN];
    bool ok = seen->item_count == *n;
    size_t later = 0;
    for (size_t i = 0; ok && i < seen->item_count; i++) {
        ok = take_seen(seen->items[i], &ret[which[i]]);
        if (ok && ret[which[i]].kind == MANIFEST_NOT_YET) {
            ok = i > 0; /* or it would never end */
            which[later++] = which[i];
        }
    }
    *n = later;
    return ok ? ATT_OK : att_fail(err, ATT_E_PROTOCOL, "whod: an answer that has not its form");
}

static enum att_rc measure(void *user, const struct manifest_ask *asks, size_t n,
                           struct manifest_seen *ret, struct att_err *err)
{
    size_t which[MANIFEST_BATCH];
    enum att_rc rc = ATT_OK;
    for (size_t i = 0; i < n; i++) {
        which[i] = i;
    }
    while (rc == ATT_OK && n > 0) {
        rc = measure_some(user, asks, which, &n, ret, err);
    }
    return rc;
}
_Static_assert(MANIFEST_BATCH <= PROC_WHO_BATCH_MAX, "one request");

static bool take_name(struct att_slice item, struct manifest_name *ret)
{
    if (item.len < 2 || item.len > sizeof ret->name || item.ptr[0] > MANIFEST_UNREADABLE ||
        memchr(item.ptr + 1, 0, item.len - 1) || memchr(item.ptr + 1, '/', item.len - 1)) {
        return false;
    }
    ret->kind = (enum manifest_kind)item.ptr[0];
    memcpy(ret->name, item.ptr + 1, item.len - 1);
    ret->name[item.len - 1] = 0;
    return true;
}

/* One answer's names behind those before. */
static enum att_rc more_names(const struct look *look, const char *path,
                              struct manifest_name **names, size_t *n, bool *ret_more,
                              struct att_err *err)
{
    proc_autoanswer answer = {0};
    const char *after = *n ? (*names)[*n - 1].name : "";
    const struct proc_value values[] = {[PROC_WHO_LIST_REQ_PID] = proc_num((uint64_t)look->pid),
                                        [PROC_WHO_LIST_REQ_PATH] = proc_text(path),
                                        [PROC_WHO_LIST_REQ_AFTER] =
                                            proc_bytes(att_slice_str(after))};
    enum att_rc rc = ask(look, PROC_WHO_LIST, values, &answer, err);
    if (rc != ATT_OK) {
        return rc;
    }
    const struct proc_value *got = &answer.msg.v[PROC_WHO_LIST_REP_NAMES];
    *ret_more = answer.msg.v[PROC_WHO_LIST_REP_MORE].num != 0;
    struct manifest_name *all = realloc(*names, (*n + got->item_count + 1) * sizeof **names);
    if (!all) {
        return att_fail(err, ATT_E_NOMEM, "names");
    }
    *names = all;
    for (size_t i = 0; i < got->item_count; i++) {
        struct manifest_name *name = &all[*n];
        if (!take_name(got->items[i], name) || (*n && strcmp(all[*n - 1].name, name->name) >= 0)) {
            return att_fail(err, ATT_E_PROTOCOL, "whod: names that have not their form");
        }
        ++*n;
    }
    return *ret_more && got->item_count == 0
               ? att_fail(err, ATT_E_PROTOCOL, "whod: names without an end")
               : ATT_OK;
}

static enum att_rc list(void *user, const char *path, struct manifest_name **ret_names,
                        size_t *ret_n, struct att_err *err)
{
    struct manifest_name *names = NULL;
    size_t n = 0;
    bool more = true;
    enum att_rc rc = ATT_OK;
    while (rc == ATT_OK && more) {
        rc = more_names(user, path, &names, &n, &more, err);
    }
    if (rc != ATT_OK) {
        free(names);
        return rc;
    }
    *ret_names = names;
    *ret_n = n;
    return ATT_OK;
}

/* ---- the judgement ---- */

static enum att_rc compare(const struct look *look, struct host_measured *m, struct att_err *err)
{
    struct manifest_prober prober = {(void *)(uintptr_t)look, measure, list};
    struct manifest_report *report = calloc(1, sizeof *report);
    enum att_rc rc = report ? manifest_check(&m->manifest, &prober, report, err)
                            : att_fail(err, ATT_E_NOMEM, "report");
    if (rc == ATT_OK) {
        m->by_verity = report->by_verity;
        m->by_sha256 = report->by_sha256;
        m->has_device = report->has_device && !report->devices_differ;
        m->dev_major = report->dev_major;
        m->dev_minor = report->dev_minor;
        rc = manifest_report_err(report, err);
    }
    for (size_t i = 1; report && i < report->n && i < MANIFEST_FINDINGS_MAX; i++) {
        const struct manifest_finding *f = &report->findings[i]; /* the first is the error's */
        att_log(ATT_WARN, "manifest.differs", ATT_S("path", f->path),
                ATT_S("is", manifest_trouble_name(f->trouble)), ATT_S("message", f->text));
    }
    free(report);
    return rc;
}

static enum att_rc measure_all(const struct look *look, const struct conf_measured *measured,
                               struct host_measured *m, struct att_err *err)
{
    const struct manifest_wanted wanted = {measured->roots, measured->n_roots, measured->signers,
                                           measured->n_signers};
    enum att_rc rc = read_document(look, measured->manifest, &m->document, err);
    if (rc != ATT_OK) {
        return rc;
    }
    rc = manifest_parse(att_buf_slice(&m->document), &m->manifest, err);
    if (rc == ATT_E_PARSE || rc == ATT_E_AUTH || rc == ATT_E_LIMIT || rc == ATT_E_UNSUPPORTED) {
        att_err_prefix(err, "%.150s", measured->manifest);
        att_err_reason(err, "manifestRoot");
        return ATT_E_DENIED;
    }
    if (rc == ATT_OK) {
        rc = manifest_allowed(&m->manifest, &wanted, err);
    }
    /* Only now does anybody look at the files it names. */
    return rc == ATT_OK ? compare(look, m, err) : rc;
}

static enum att_rc measure_by(struct look *look, const struct conf_measured *measured,
                              struct host_measured *ret, struct att_err *err)
{
    struct host_measured m = {.demanded = true, .level = measured->level};
    struct att_err why = {0};
    enum att_rc rc = measure_all(look, measured, &m, &why);
    if (rc != ATT_OK) {
        host_measured_done(&m);
        why.rc = rc;
        if (err) {
            *err = why;
        }
        return rc;
    }
    *ret = m;
    return ATT_OK;
}

enum att_rc host_measure(struct host *host, const struct conf_measured *measured,
                         struct host_measured *ret, struct att_err *err)
{
    struct look look = {host, 0, -1, measured->reread_s, INT64_MAX};
    int ends[2] = {-1, -1};
    if (pipe2(ends, O_CLOEXEC) != 0) {
        return att_fail_errno(err, ATT_E_IO, "pipe");
    }
    look.pidfd = ends[0]; /* some descriptor goes with each request */
    enum att_rc rc = measure_by(&look, measured, ret, err);
    att_close(&ends[0]);
    att_close(&ends[1]);
    return rc;
}

enum att_rc host_measure_agent(struct host *host, const char *agent, struct host_measured *ret,
                               struct att_err *err)
{
    ATT_CLEANUP(host_selectors_unref) struct host_selectors *selectors = NULL;
    {
        HOST_LOCKED(host);
        selectors = host_selectors_ref(host->selectors);
    }
    for (size_t i = 0; selectors && i < selectors->n; i++) {
        if (strcmp(selectors->rules[i].agent, agent) != 0) {
            continue;
        }
        if (selectors->measured_bad[i].rc != ATT_OK) {
            *err = selectors->measured_bad[i];
            err->rc = ATT_E_DENIED;
            return ATT_E_DENIED;
        }
        const struct conf_measured *measured = &selectors->measured[i];
        return measured->manifest ? host_measure(host, measured, ret, err) : ATT_OK;
    }
    return ATT_OK;
}

/* ---- a caller ---- */

static bool runs(const struct manifest *manifest, enum manifest_role role,
                 const uint8_t sha256[ATT_SHA256_LEN], size_t *ret_n)
{
    bool found = false;
    for (size_t i = 0; i < manifest->n_files; i++) {
        const struct manifest_file *file = &manifest->files[i];
        *ret_n += file->role == role;
        found |= file->role == role && sha256 && memcmp(file->sha256, sha256, ATT_SHA256_LEN) == 0;
    }
    return found;
}

static enum att_rc check_program(const struct manifest *manifest,
                                 const struct workload_caller *caller, struct att_err *err)
{
    size_t executables = 0, scripts = 0;
    bool exe = runs(manifest, MANIFEST_EXECUTABLE, caller->exe_sha256, &executables);
    bool script = runs(manifest, MANIFEST_SCRIPT,
                       caller->script.known ? caller->script.sha256 : NULL, &scripts);
    const char *what = executables && !exe ? "executable" : scripts && !script ? "script" : NULL;
    if (!what) {
        return ATT_OK;
    }
    char hex[2 * ATT_SHA256_LEN + 1] = "none";
    if (what[0] == 'e') {
        att_hex(hex, ATT_SLICE_ARRAY(caller->exe_sha256));
    } else if (caller->script.known) {
        att_hex(hex, ATT_SLICE_ARRAY(caller->script.sha256));
    }
    (void)!att_fail(err, ATT_E_DENIED,
                    "it runs %s %.150s with sha256 %s, which its manifest does "
                    "not list as one",
                    what, what[0] == 'e' ? caller->exe_path : caller->script_path, hex);
    att_err_reason(err, "modelDigest");
    return ATT_E_DENIED;
}

/* A place, once it is this agent's turn; NULL: not within a short time. Under the lock. */
static char *free_place(struct host_measuring *m, const char *agent)
{
    char *place = NULL;
    for (size_t i = 0; i < HOST_MEASURING_MAX; i++) {
        if (strcmp(m->agents[i], agent) == 0) {
            return NULL;
        }
        place = m->agents[i][0] ? place : m->agents[i];
    }
    return place;
}

/* Each of these holds a connection to tokend, and others must come in to be told who they are. */
static char *wait_for_turn(struct host *host, const char *agent)
{
    struct host_measuring *m = &host->measuring;
    int64_t until_ms = att_boottime_ms() + TURN_MS, left_ms = TURN_MS;
    HOST_LOCKED(host);
    if (m->waiting >= HOST_MEASURING_WAIT) {
        return NULL;
    }
    m->waiting++;
    char *place = free_place(m, agent);
    while (!place && left_ms > 0 && !atomic_load(&host->stop)) {
        host_wait(host, left_ms);
        left_ms = until_ms - att_boottime_ms();
        place = free_place(m, agent);
    }
    m->waiting--;
    if (place) {
        memcpy(place, agent, strlen(agent) + 1);
    }
    return place;
}

static void end_turn(struct host *host, char *place)
{
    HOST_LOCKED(host);
    place[0] = '\0';
    pthread_cond_broadcast(&host->changed);
}

enum att_rc host_measure_caller(struct host *host, const struct host_decision *decision,
                                const struct host_caller *from,
                                const struct conf_measured *measured, struct att_err *err)
{
    ATT_CLEANUP(host_measured_done) struct host_measured m = {0};
    struct look look = {host, from->pid, from->pidfd, measured->reread_s,
                        att_boottime_ms() + CALLER_MS};
    char *place =
        strlen(decision->agent) <= AGENT_NAME_MAX ? wait_for_turn(host, decision->agent) : NULL;
    if (!place) {
        return cannot_tell(err, "other processes' files are measured");
    }
    enum att_rc rc = measure_by(&look, measured, &m, err);
    end_turn(host, place);
    return rc == ATT_OK ? check_program(&m.manifest, &decision->caller, err) : rc;
}
