#include "attestd/host/journal.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUFFIX      ".jsonl"
#define BROKEN      "hostLogEdited"
#define NAME_DIGITS 20
#define LISTED_MAX  4096

struct host_journal {
    struct host_journal_opts opts;
    char *dir;
    pthread_mutex_t lock;      /* what follows but for synced */
    pthread_mutex_t sync_lock; /* around a sync; taken before lock */
    int fd;
    uint64_t seq, offset; /* of the last whole record; where the next one goes */
    uint64_t missed, missed_ever;
    uint8_t head[ATT_SHA256_LEN], synced[ATT_SHA256_LEN];
    bool dirty;
    uint64_t firsts[LISTED_MAX]; /* first numbers of the segments, ascending */
    size_t n_segments;
};

static void hash_line(struct att_slice line, uint8_t ret[ATT_SHA256_LEN])
{
    const struct att_slice parts[] = {ATT_SLICE_LIT(HOST_JOURNAL_FORM), line};
    att_sha256_v(ret, parts, 2);
}

static void segment_path(const struct host_journal *j, uint64_t first, char ret[4096])
{
    snprintf(ret, 4096, "%s/%0*llu" SUFFIX, j->dir, NAME_DIGITS, (unsigned long long)first);
}

/* ---- reading what is there ---------------------------------------------------------------------
 */

static int by_number(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static enum att_rc list_segments(struct host_journal *j, struct att_err *err)
{
    DIR *dir = opendir(j->dir);
    if (!dir) {
        return att_fail_errno(err, ATT_E_IO, "cannot read %s", j->dir);
    }
    j->n_segments = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        const char *name = entry->d_name;
        if (strspn(name, "0123456789") == NAME_DIGITS && strcmp(name + NAME_DIGITS, SUFFIX) == 0 &&
            j->n_segments < LISTED_MAX) {
            j->firsts[j->n_segments++] = strtoull(name, NULL, 10);
        }
    }
    closedir(dir);
    qsort(j->firsts, j->n_segments, sizeof(uint64_t), by_number);
    return ATT_OK;
}

static enum att_rc edited(struct att_err *err, uint64_t seq, const char *what)
{
    (void)!att_fail(err, ATT_E_PARSE, "record %llu %s", (unsigned long long)seq, what);
    att_err_reason(err, BROKEN);
    return ATT_E_PARSE;
}

/* One line of the segment. anchored: head is the hash of the line before it; else that line is gone
 * with its file, and this one gives the hash that the chain begins with. */
static enum att_rc take_line(struct host_journal *j, struct att_slice line, bool anchored,
                             struct att_err *err)
{
    att_autojson *json = NULL;
    uint8_t prev[ATT_SHA256_LEN];
    const char *text = NULL;
    uint64_t want = j->seq + 1;
    if (att_json_parse_few(line, HOST_JOURNAL_LINE_MAX, 64, &json, NULL) != ATT_OK ||
        att_json_str(json, "prev", &text, NULL) != ATT_OK ||
        att_unhex_exact(prev, sizeof(prev), text, NULL) != ATT_OK) {
        return edited(err, want, "is not a record");
    }
    if (json_integer_value(json_object_get(json, "seq")) != (json_int_t)want) {
        return edited(err, want, "has another number");
    }
    if (anchored && memcmp(prev, j->head, sizeof(prev)) != 0) {
        return edited(err, want, "does not follow the one before it");
    }
    hash_line(line, j->head);
    j->seq = want;
    return ATT_OK;
}

static enum att_rc load_segment(struct host_journal *j, uint64_t first, struct att_buf *ret_bytes,
                                struct att_err *err)
{
    char path[4096];
    segment_path(j, first, path);
    enum att_rc rc = att_io_read_file(path, ret_bytes->max, ret_bytes, err);
    if (rc == ATT_E_LIMIT) {
        att_err_clear(err);
        return edited(err, first, "is in a file that is longer than any is made");
    }
    return rc;
}

/* What the first line of the last segment has to follow: zeros, or the last line of the segment
 * before it, which was synced whole before the last one was begun. */
static enum att_rc read_before(struct host_journal *j, uint64_t first, bool *ret_known,
                               struct att_err *err)
{
    att_autobuf bytes = ATT_BUF_INIT(2 * j->opts.segment_max + 2 * HOST_JOURNAL_LINE_MAX);
    memset(j->head, 0, sizeof(j->head));
    *ret_known = first == 1 || j->n_segments > 1;
    if (first == 1 || j->n_segments < 2) {
        return ATT_OK;
    }
    enum att_rc rc = load_segment(j, j->firsts[j->n_segments - 2], &bytes, err);
    if (rc == ATT_OK && (bytes.len < 2 || bytes.ptr[bytes.len - 1] != '\n')) {
        return edited(err, first - 1, "is not there");
    }
    if (rc == ATT_OK) {
        size_t end = bytes.len - 1;
        const uint8_t *before = memrchr(bytes.ptr, '\n', end);
        size_t at = before ? (size_t)(before - bytes.ptr) + 1 : 0;
        hash_line(ATT_SLICE(bytes.ptr + at, end - at), j->head);
    }
    return rc;
}

/* The last segment, whole. What follows the last newline was being written when the power went. */
static enum att_rc read_segment(struct host_journal *j, uint64_t first, struct att_err *err)
{
    att_autobuf bytes = ATT_BUF_INIT(2 * j->opts.segment_max + 2 * HOST_JOURNAL_LINE_MAX);
    bool known = false;
    enum att_rc rc = load_segment(j, first, &bytes, err);
    if (rc == ATT_OK) {
        rc = read_before(j, first, &known, err);
    }
    j->seq = first - 1;
    j->offset = 0;
    while (rc == ATT_OK && j->offset < bytes.len) {
        const uint8_t *at = bytes.ptr + j->offset;
        const uint8_t *end = memchr(at, '\n', bytes.len - j->offset);
        if (!end) {
            break;
        }
        rc = take_line(j, ATT_SLICE(at, (size_t)(end - at)), known || j->offset > 0, err);
        j->offset += (uint64_t)(end - at) + 1;
    }
    return rc;
}

/* ---- writing -----------------------------------------------------------------------------------
 */

static enum att_rc open_segment(struct host_journal *j, uint64_t first, struct att_err *err)
{
    char path[4096];
    segment_path(j, first, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return att_fail_errno(err, ATT_E_IO, "cannot open %s", path);
    }
    enum att_rc rc = att_io_sync_folder_of(path, err);
    if (rc != ATT_OK) {
        close(fd);
        return rc;
    }
    att_close(&j->fd);
    j->fd = fd;
    if (j->n_segments == 0 || j->firsts[j->n_segments - 1] != first) {
        j->firsts[j->n_segments++] = first;
    }
    return ATT_OK;
}

static void put_hash(json_t *record, const char *name, const uint8_t hash[ATT_SHA256_LEN])
{
    char hex[2 * ATT_SHA256_LEN + 1];
    att_hex(hex, ATT_SLICE(hash, ATT_SHA256_LEN));
    json_object_set_new(record, name, json_string(hex));
}

static enum att_rc encode(const struct host_journal *j, const char *kind, json_t *members,
                          struct att_buf *ret_line, struct att_err *err)
{
    att_autojson *record =
        json_pack("{s:I, s:I}", "seq", (json_int_t)(j->seq + 1), "at", (json_int_t)att_now_utc_s());
    put_hash(record, "prev", j->head);
    json_object_set_new(record, "kind", json_string(kind));
    if (j->missed) {
        json_object_set_new(record, "missed", json_integer((json_int_t)j->missed));
    }
    if (members && json_object_update_missing(record, members) != 0) {
        return att_fail(err, ATT_E_NOMEM, "no memory for a record");
    }
    enum att_rc rc = att_json_dump(record, false, ret_line, err);
    att_buf_u8(ret_line, '\n');
    return rc == ATT_OK ? att_buf_ok(ret_line, err) : rc;
}

/* The whole line or nothing of it: what a full disk took a part of is cut off again. */
static enum att_rc write_line(struct host_journal *j, struct att_slice line, struct att_err *err)
{
    for (size_t done = 0; done < line.len;) {
        ssize_t n =
            pwrite(j->fd, line.ptr + done, line.len - done, (off_t)(j->offset + (uint64_t)done));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            enum att_rc rc = att_fail_errno(err, ATT_E_IO, "cannot write to %s", j->dir);
            int cut = ftruncate(j->fd, (off_t)j->offset);
            (void)cut; /* the next line is written over it */
            return rc;
        }
        done += (size_t)n;
    }
    j->offset += line.len;
    return ATT_OK;
}

static enum att_rc append(struct host_journal *j, const char *kind, json_t *members,
                          struct att_err *err)
{
    att_autobuf line = ATT_BUF_INIT(HOST_JOURNAL_LINE_MAX);
    enum att_rc rc = encode(j, kind, members, &line, err);
    if (rc == ATT_OK) {
        rc = write_line(j, att_buf_slice(&line), err);
    }
    if (rc == ATT_OK) {
        hash_line(ATT_SLICE(line.ptr, line.len - 1), j->head);
        j->seq++;
        j->missed = 0;
        j->dirty = true;
    }
    return rc;
}

static enum att_rc sync_file(struct host_journal *j, struct att_err *err)
{
    return fdatasync(j->fd) == 0 ? ATT_OK : att_fail_errno(err, ATT_E_IO, "cannot sync %s", j->dir);
}

/* The record that says so is on disk before the file goes. */
static enum att_rc drop_oldest(struct host_journal *j, struct att_err *err)
{
    char path[4096];
    segment_path(j, j->firsts[0], path);
    att_autojson *members = json_pack("{s:I}", "upTo", (json_int_t)(j->firsts[1] - 1));
    enum att_rc rc = append(j, "dropped", members, err);
    rc = rc == ATT_OK ? sync_file(j, err) : rc;
    rc = rc == ATT_OK ? att_io_unlink(path, err) : rc;
    if (rc == ATT_OK) {
        memmove(j->firsts, j->firsts + 1, (--j->n_segments) * sizeof(uint64_t));
    }
    return rc;
}

/* The file before is synced whole: a sync of the newest speaks for all. */
static enum att_rc next_segment(struct host_journal *j, struct att_err *err)
{
    enum att_rc rc = sync_file(j, err);
    rc = rc == ATT_OK && j->n_segments == LISTED_MAX ? drop_oldest(j, err) : rc;
    rc = rc == ATT_OK ? open_segment(j, j->seq + 1, err) : rc;
    if (rc == ATT_OK) {
        j->offset = 0;
    }
    return rc;
}

enum att_rc host_journal_add(struct host_journal *j, const char *kind, json_t *members,
                             struct att_err *err)
{
    att_autojson *owned = members;
    pthread_mutex_lock(&j->lock);
    enum att_rc rc = ATT_OK;
    if (j->offset >= j->opts.segment_max) {
        rc = next_segment(j, err);
    }
    if (rc == ATT_OK) {
        rc = append(j, kind, owned, err);
    }
    j->missed += rc != ATT_OK;
    j->missed_ever += rc != ATT_OK;
    if (rc == ATT_OK && j->n_segments > j->opts.segments) {
        rc = drop_oldest(j, err);
    }
    pthread_mutex_unlock(&j->lock);
    return rc;
}

enum att_rc host_journal_head(struct host_journal *j, uint8_t ret_head[ATT_SHA256_LEN],
                              struct att_err *err)
{
    uint8_t head[ATT_SHA256_LEN];
    enum att_rc rc = ATT_OK;
    pthread_mutex_lock(&j->sync_lock);
    pthread_mutex_lock(&j->lock);
    memcpy(head, j->head, sizeof(head));
    bool dirty = j->dirty;
    j->dirty = false;
    /* A copy: the file may be followed by another meanwhile, which syncs it first. */
    int fd = dirty ? fcntl(j->fd, F_DUPFD_CLOEXEC, 3) : -1;
    pthread_mutex_unlock(&j->lock);
    if (dirty && (fd < 0 || fdatasync(fd) != 0)) {
        rc = att_fail_errno(err, ATT_E_IO, "cannot sync %s", j->dir);
        pthread_mutex_lock(&j->lock);
        j->dirty = true;
        pthread_mutex_unlock(&j->lock);
    } else {
        memcpy(j->synced, head, sizeof(head));
    }
    memcpy(ret_head, j->synced, ATT_SHA256_LEN);
    pthread_mutex_unlock(&j->sync_lock);
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

void host_journal_counts(struct host_journal *j, uint64_t *ret_seq, uint64_t *ret_missed)
{
    pthread_mutex_lock(&j->lock);
    *ret_seq = j->seq;
    *ret_missed = j->missed_ever;
    pthread_mutex_unlock(&j->lock);
}

/* ---- opening -----------------------------------------------------------------------------------
 */

/* A log that is not one any more is kept for people to look at; another begins. */
static enum att_rc set_aside(struct host_journal *j, struct att_err *err)
{
    char path[4096];
    for (size_t i = 0; i < j->n_segments; i++) {
        segment_path(j, j->firsts[i], path);
        enum att_rc rc = att_io_set_aside(path, err);
        if (rc != ATT_OK) {
            return rc;
        }
    }
    j->n_segments = 0;
    j->seq = j->offset = 0;
    memset(j->head, 0, sizeof(j->head));
    return ATT_OK;
}

static enum att_rc begin(struct host_journal *j, const struct att_err *why, struct att_err *err)
{
    enum att_rc rc = open_segment(j, 1, err);
    json_t *members = json_object();
    if (why->rc != ATT_OK) {
        json_object_set_new(members, "reason", json_string(why->reason));
        json_object_set_new(members, "detail", json_string(why->msg));
    }
    if (rc == ATT_OK) {
        rc = append(j, "begin", members, err);
    }
    json_decref(members);
    return rc == ATT_OK ? sync_file(j, err) : rc;
}

static enum att_rc load(struct host_journal *j, struct att_err *err)
{
    struct att_err why = {0};
    enum att_rc rc = list_segments(j, err);
    if (rc == ATT_OK && j->n_segments) {
        uint64_t last = j->firsts[j->n_segments - 1];
        rc = last ? read_segment(j, last, &why) : edited(&why, 0, "is none");
        if (rc != ATT_OK && rc != ATT_E_PARSE) {
            return att_fail(err, rc, "%s", why.msg);
        }
        if (rc == ATT_OK && j->offset == 0 && last > 1) { /* begun, and nothing of it written */
            char path[4096];
            segment_path(j, last, path);
            j->n_segments--;
            rc = att_io_unlink(path, err);
            return rc == ATT_OK ? load(j, err) : rc;
        }
        if (rc == ATT_OK && j->seq) {
            rc = open_segment(j, last, err);
            if (rc == ATT_OK && ftruncate(j->fd, (off_t)j->offset) != 0) {
                rc = att_fail_errno(err, ATT_E_IO, "cannot cut %s", j->dir);
            }
            j->dirty = true;
            return rc;
        }
    }
    rc = set_aside(j, err);
    return rc == ATT_OK ? begin(j, &why, err) : rc;
}

enum att_rc host_journal_open(const struct host_journal_opts *opts,
                              struct host_journal **ret_journal, struct att_err *err)
{
    struct host_journal *j = calloc(1, sizeof(*j));
    if (j) {
        j->opts = *opts;
        j->fd = -1;
        j->dir = strdup(opts->dir);
        pthread_mutex_init(&j->lock, NULL);
        pthread_mutex_init(&j->sync_lock, NULL);
    }
    if (!j || !j->dir) {
        host_journal_close(j);
        return att_fail(err, ATT_E_NOMEM, "no memory for the host's log");
    }
    enum att_rc rc = att_io_mkdirs(j->dir, 0700, err);
    if (rc == ATT_OK) {
        rc = load(j, err);
    }
    if (rc == ATT_OK) {
        uint8_t head[ATT_SHA256_LEN];
        rc = host_journal_head(j, head, err);
    }
    if (rc != ATT_OK) {
        host_journal_close(j);
        return rc;
    }
    *ret_journal = j;
    return ATT_OK;
}

void host_journal_close(struct host_journal *j)
{
    if (!j) {
        return;
    }
    if (j->fd >= 0) {
        (void)!sync_file(j, NULL);
        att_close(&j->fd);
    }
    pthread_mutex_destroy(&j->lock);
    pthread_mutex_destroy(&j->sync_lock);
    free(j->dir);
    free(j);
}
