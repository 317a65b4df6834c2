/* What an agent's files are, by name: for attestd, which may not read them itself. Which files are
 * asked for is attestd's affair; that nobody learns a file's content by this is ours: digests and
 * names only, and the bytes of files that everybody may read. */
#include "attestd/whod/whod.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/proc/who_proto.h"
#include "attestd/workload/caller.h"
#include "attestd/workload/measure.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(WORKLOAD_MEASURE_PATH_MAX < PROC_WHO_PATH_MAX, "with its NUL");

struct whod_measurer {
    atomic_uint busy;
    struct workload_measures *measures;
};

enum att_rc whod_measurer_new(struct whod_measurer **ret_measurer, struct att_err *err)
{
    struct whod_measurer *measurer = calloc(1, sizeof *measurer);
    enum att_rc rc = measurer ? workload_measures_new(&measurer->measures, err)
                              : att_fail(err, ATT_E_NOMEM, "measurer");
    if (rc != ATT_OK) {
        free(measurer);
        return rc;
    }
    *ret_measurer = measurer;
    return ATT_OK;
}

void whod_measurer_free(struct whod_measurer *measurer)
{
    if (measurer) {
        workload_measures_free(measurer->measures);
        free(measurer);
    }
}

/* ---- whose files ---- */

/* The first process's root is the host's. Without the right to look at it (all of one user, in
 * tests and try-outs) our own has to do. */
static int host_root(void)
{
    int fd = open("/proc/1/root", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 ? fd : open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
}

static enum att_rc open_root(const struct proc_peer *peer, pid_t pid, int *ret_root,
                             struct att_err *err)
{
    ATT_CLEANUP(workload_process_done) struct workload_process process = {.pidfd = -1, .dir = -1};
    if (pid == 0) {
        *ret_root = host_root();
        return *ret_root >= 0 ? ATT_OK : att_fail_errno(err, ATT_E_IO, "/");
    }
    enum att_rc rc = workload_process_open(peer->passed, pid, 0, &process, err);
    if (rc == ATT_OK) {
        *ret_root = openat(process.dir, "root", O_PATH | O_DIRECTORY | O_CLOEXEC);
        rc = *ret_root >= 0 ? ATT_OK : att_fail_errno(err, ATT_E_GONE, "its root");
    }
    return rc;
}

/* As a C string; the table's bounds leave room for the NUL in what may be a path. */
static enum att_rc path_of(struct att_slice from, char ret[WORKLOAD_MEASURE_PATH_MAX + 1],
                           struct att_err *err)
{
    if (from.len > WORKLOAD_MEASURE_PATH_MAX || from.len == 0 || from.ptr[0] != '/' ||
        memchr(from.ptr, 0, from.len)) {
        return att_fail(err, ATT_E_INVAL, "expected an absolute path of at most %d bytes",
                        WORKLOAD_MEASURE_PATH_MAX);
    }
    memcpy(ret, from.ptr, from.len);
    ret[from.len] = 0;
    return ATT_OK;
}

/* ---- READ ---- */

static enum att_rc read_chunk(int fd, uint32_t offset, const struct proc_op *op,
                              struct att_buf *ret_payload, struct att_err *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return att_fail_errno(err, ATT_E_IO, "stat");
    }
    if (!(st.st_mode & S_IROTH)) {
        (void)!att_fail(err, ATT_E_DENIED, "not a file that everybody may read (mode %04o)",
                        (unsigned)st.st_mode & 07777);
        att_err_reason(err, "notPublic");
        return ATT_E_DENIED;
    }
    if (st.st_size > PROC_WHO_READ_MAX) {
        return att_fail(err, ATT_E_LIMIT, "%lld bytes, at most %u are read", (long long)st.st_size,
                        PROC_WHO_READ_MAX);
    }
    uint8_t *bytes = malloc(PROC_WHO_CHUNK_MAX);
    ssize_t got = bytes ? pread(fd, bytes, PROC_WHO_CHUNK_MAX, (off_t)offset) : -1;
    enum att_rc rc = got >= 0 ? ATT_OK : att_fail_errno(err, ATT_E_IO, "read");
    if (rc == ATT_OK) {
        const struct proc_value reply[] = {
            [PROC_WHO_READ_REP_SIZE] = {.num = (uint64_t)st.st_size},
            [PROC_WHO_READ_REP_BYTES] = {.bytes = ATT_SLICE(bytes, (size_t)got)}};
        rc = proc_reply_encode(op, reply, ret_payload, err);
    }
    free(bytes);
    return rc;
}

static enum att_rc answer_read(int root, const struct proc_op *op, const struct proc_value *v,
                               struct att_buf *ret_payload, struct att_err *err)
{
    char path[WORKLOAD_MEASURE_PATH_MAX + 1];
    enum att_rc rc = path_of(v[PROC_WHO_READ_REQ_PATH].bytes, path, err);
    if (rc != ATT_OK) {
        return rc;
    }
    att_autofd fd = workload_measure_open(root, path);
    if (fd < 0) { /* EINVAL: no regular file, or one that the kernel makes up */
        bool absent = errno == ENOENT || errno == ENOTDIR,
             wrong = errno == ELOOP || errno == EINVAL;
        return att_fail_errno(err,
                              absent  ? ATT_E_NOTFOUND
                              : wrong ? ATT_E_DENIED
                                      : ATT_E_IO,
                              "%.200s", path);
    }
    rc = read_chunk(fd, (uint32_t)v[PROC_WHO_READ_REQ_OFFSET].num, op, ret_payload, err);
    if (rc != ATT_OK) {
        att_err_prefix(err, "%.200s", path);
    }
    return rc;
}

/* ---- MEASURE ---- */

static void put_seen(struct att_buf *item, const struct workload_measured *seen)
{
    *item = ATT_BUF_INIT(PROC_WHO_SEEN_MAX);
    att_buf_u8(item, (uint8_t)seen->kind);
    att_buf_u8(item, (uint8_t)((seen->has_verity ? 1 : 0) | (seen->has_sha256 ? 2 : 0)));
    att_buf_be64(item, seen->size);
    att_buf_put(item, seen->verity, sizeof seen->verity);
    att_buf_put(item, seen->sha256, sizeof seen->sha256);
    att_buf_be32(item, seen->dev_major);
    att_buf_be32(item, seen->dev_minor);
    att_buf_put_str(item, seen->text);
}

static bool sizes_fit(const struct proc_value *sizes, const struct proc_value *paths)
{
    bool fit = sizes->item_count == paths->item_count;
    for (size_t i = 0; fit && i < sizes->item_count; i++) {
        fit = sizes->items[i].len == sizeof(uint64_t);
    }
    return fit;
}

static enum att_rc answer_measure(struct whod_measurer *measurer, int root,
                                  const struct proc_op *op, const struct proc_value *v,
                                  struct att_buf *ret_payload, struct att_err *err)
{
    const struct proc_value *paths = &v[PROC_WHO_MEASURE_REQ_PATHS];
    struct att_buf items[PROC_WHO_BATCH_MAX] = {{0}};
    struct att_slice slices[PROC_WHO_BATCH_MAX];
    const struct proc_value *sizes = &v[PROC_WHO_MEASURE_REQ_SIZES];
    uint64_t within_ms = v[PROC_WHO_MEASURE_REQ_WITHIN_MS].num;
    within_ms = within_ms < WHOD_MEASURE_MS ? within_ms : WHOD_MEASURE_MS;
    struct workload_measuring how = {.measures = measurer->measures,
                                     .max_age_s = (int64_t)v[PROC_WHO_MEASURE_REQ_MAX_AGE_S].num,
                                     .deadline_ms = att_boottime_ms() + (int64_t)within_ms};
    enum att_rc rc = sizes_fit(sizes, paths)
                         ? ATT_OK
                         : att_fail(err, ATT_E_INVAL, "expected a size of 8 bytes for each path");
    for (size_t i = 0; rc == ATT_OK && i < paths->item_count; i++) {
        char path[WORKLOAD_MEASURE_PATH_MAX + 1];
        struct workload_measured seen;
        rc = path_of(paths->items[i], path, err);
        if (rc == ATT_OK) {
            struct att_cur size = att_cur_init(sizes->items[i]);
            how.size = att_cur_be64(&size);
            workload_measure(root, path, &how, &seen);
            if (i == 0 && seen.kind == WORKLOAD_NOT_YET) {
                seen.kind = WORKLOAD_UNREADABLE; /* it had all the time there is */
            }
            put_seen(&items[i], &seen);
            slices[i] = att_buf_slice(&items[i]);
            rc = att_buf_ok(&items[i], err);
        }
    }
    if (rc == ATT_OK) {
        const struct proc_value reply[] = {
            [PROC_WHO_MEASURE_REP_SEEN] = {.items = slices, .item_count = paths->item_count}};
        rc = proc_reply_encode(op, reply, ret_payload, err);
    }
    for (size_t i = 0; i < PROC_WHO_BATCH_MAX; i++) {
        att_buf_done(&items[i]);
    }
    return rc;
}

/* ---- LIST ---- */

static enum att_rc put_names(const struct workload_name *names, size_t n, struct att_slice after,
                             const struct proc_op *op, struct att_buf *ret_payload,
                             struct att_err *err)
{
    uint8_t(*items)[WORKLOAD_NAME_MAX + 1] = calloc(PROC_WHO_NAMES_MAX, sizeof *items);
    struct att_slice slices[PROC_WHO_NAMES_MAX];
    size_t count = 0, at = 0;
    char last[WORKLOAD_NAME_MAX + 1] = "";
    memcpy(last, after.ptr ? (const char *)after.ptr : "", after.len);
    while (at < n && after.len && strcmp(names[at].name, last) <= 0) {
        at++;
    }
    for (; items && at < n && count < PROC_WHO_NAMES_MAX; at++, count++) {
        size_t len = strlen(names[at].name);
        items[count][0] = (uint8_t)names[at].kind;
        memcpy(items[count] + 1, names[at].name, len);
        slices[count] = ATT_SLICE(items[count], len + 1);
    }
    const struct proc_value reply[] = {
        [PROC_WHO_LIST_REP_MORE] = {.num = at < n},
        [PROC_WHO_LIST_REP_NAMES] = {.items = slices, .item_count = count}};
    enum att_rc rc = items ? proc_reply_encode(op, reply, ret_payload, err)
                           : att_fail(err, ATT_E_NOMEM, "names");
    free(items);
    return rc;
}

static enum att_rc answer_list(int root, const struct proc_op *op, const struct proc_value *v,
                               struct att_buf *ret_payload, struct att_err *err)
{
    char path[WORKLOAD_MEASURE_PATH_MAX + 1];
    struct workload_name *names = NULL;
    size_t n = 0;
    enum att_rc rc = path_of(v[PROC_WHO_LIST_REQ_PATH].bytes, path, err);
    if (rc == ATT_OK) {
        rc = workload_list(root, path, &names, &n, err);
    }
    if (rc == ATT_OK) {
        rc = put_names(names, n, v[PROC_WHO_LIST_REQ_AFTER].bytes, op, ret_payload, err);
    }
    free(names);
    return rc;
}

enum att_rc whod_measurer_answer(struct whod_measurer *measurer, const struct proc_peer *peer,
                                 const struct proc_op *op, const struct proc_value *v,
                                 struct att_buf *ret_payload, struct att_err *err)
{
    att_autofd root = -1;
    if (atomic_fetch_add(&measurer->busy, 1) >= WHOD_MEASURING_MAX) {
        atomic_fetch_sub(&measurer->busy, 1);
        (void)!att_fail(err, ATT_E_LIMIT, "%d requests measure files already", WHOD_MEASURING_MAX);
        att_err_reason(err, "measuring");
        return ATT_E_LIMIT;
    }
    enum att_rc rc = open_root(peer, (pid_t)v[0].num, &root, err);
    if (rc == ATT_OK) {
        rc = op->op == PROC_WHO_READ      ? answer_read(root, op, v, ret_payload, err)
             : op->op == PROC_WHO_MEASURE ? answer_measure(measurer, root, op, v, ret_payload, err)
                                          : answer_list(root, op, v, ret_payload, err);
    }
    atomic_fetch_sub(&measurer->busy, 1);
    return rc;
}
_Static_assert(PROC_WHO_READ_REQ_PID == 0 && PROC_WHO_MEASURE_REQ_PID == 0 &&
                   PROC_WHO_LIST_REQ_PID == 0,
               "v[0] is the pid");
