/* Environments and arguments of running processes. A process decides how its memory answers (a file
 * system of its own below it need not), so a thread reads, and is left behind where it gets none.
 */
#include "attestd/scan/internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/io.h"
#include "attestd/workload/text.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX     ((size_t)64 << 10)
#define LEFT_MAX     32 /* readers that wait for ever */
#define LEFT_USER    4  /* of one user's processes: nobody hides what is another's */
#define SLOW_MS      2000
#define READER_STACK ((size_t)256 << 10)

/* ---- the reader ---- */

struct reader {
    pthread_mutex_t lock;
    pthread_cond_t change;
    struct att_secret buf;
    int dir;              /* /proc/PID, by a descriptor of its own */
    const char *what;     /* static: the file there */
    bool busy, end, left; /* left: nobody waits for it any more */
    ssize_t len;
    int error;
};

static void reader_free(struct reader *r)
{
    att_secret_done(&r->buf);
    pthread_cond_destroy(&r->change);
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static ssize_t read_all(int fd, uint8_t *to, size_t size)
{
    size_t len = 0;
    while (len < size) {
        ssize_t n = read(fd, to + len, size - len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 && len == 0 ? -1 : (ssize_t)len;
        }
        len += (size_t)n;
    }
    return (ssize_t)len;
}

static void *work(void *user)
{
    struct reader *r = user;
    pthread_mutex_lock(&r->lock);
    while (!r->end && !r->left) {
        if (!r->busy) {
            pthread_cond_wait(&r->change, &r->lock);
            continue;
        }
        pthread_mutex_unlock(&r->lock);
        int fd = openat(r->dir, r->what, O_RDONLY | O_CLOEXEC); /* this may wait, too */
        ssize_t len = fd >= 0 ? read_all(fd, r->buf.ptr, r->buf.len) : -1;
        int error = errno;
        if (fd >= 0) {
            close(fd);
        }
        close(r->dir);
        pthread_mutex_lock(&r->lock);
        r->len = len;
        r->error = error;
        r->busy = false;
        pthread_cond_broadcast(&r->change);
    }
    bool left = r->left;
    pthread_mutex_unlock(&r->lock);
    if (left) {
        reader_free(r);
    }
    return NULL;
}

struct procs {
    struct scan_ctx *ctx;
    struct reader *reader;
    pthread_t thread;
    unsigned left;
    uid_t left_of[LEFT_MAX]; /* whose processes these were */
    int slow_ms;
};

/* Whether a process of that user may hold one more reader. root's own hide nothing from root. */
static bool may_wait(const struct procs *p, uid_t uid)
{
    unsigned n = 0;
    for (unsigned i = 0; i < p->left; i++) {
        n += p->left_of[i] == uid;
    }
    return p->left < LEFT_MAX && (uid == 0 || n < LEFT_USER);
}

static bool reader_start(struct procs *p)
{
    pthread_attr_t attr;
    struct reader *r = calloc(1, sizeof *r);
    if (!r || att_secret_new(&r->buf, SCAN_FILE_MAX + 1, NULL) != ATT_OK) {
        free(r);
        return false;
    }
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->change, &clock);
    pthread_condattr_destroy(&clock);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, READER_STACK);
    bool ok = pthread_create(&p->thread, &attr, work, r) == 0;
    pthread_attr_destroy(&attr);
    if (!ok) {
        reader_free(r);
        return false;
    }
    p->reader = r;
    return true;
}

static void reader_end(struct procs *p)
{
    if (p->reader) {
        pthread_mutex_lock(&p->reader->lock);
        p->reader->end = true;
        pthread_cond_broadcast(&p->reader->change);
        pthread_mutex_unlock(&p->reader->lock);
        pthread_join(p->thread, NULL);
        reader_free(p->reader);
        p->reader = NULL;
    }
}

static struct timespec until(int ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    return t;
}

/* Takes dir. False: no answer in time; the reader is gone. */
static bool reader_read(struct procs *p, int dir, const char *what, ssize_t *ret_len,
                        int *ret_error)
{
    struct reader *r = p->reader;
    struct timespec end = until(p->slow_ms);
    int rc = 0;
    pthread_mutex_lock(&r->lock);
    r->dir = dir;
    r->what = what;
    r->busy = true;
    pthread_cond_broadcast(&r->change);
    while (r->busy && rc == 0) {
        rc = pthread_cond_timedwait(&r->change, &r->lock, &end);
    }
    bool ok = !r->busy;
    if (ok) {
        *ret_len = r->len;
        *ret_error = r->error;
    } else {
        r->left = true;
        p->reader = NULL;
        p->left_of[p->left++] = p->ctx->now.uid;
        pthread_detach(p->thread);
    }
    pthread_mutex_unlock(&r->lock);
    return ok;
}

/* ---- one process ---- */

static bool small(int dir, const char *name, struct att_buf *text)
{
    char bytes[4096];
    att_autofd fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    for (ssize_t n; fd >= 0 && text->len < TEXT_MAX && (n = read(fd, bytes, sizeof bytes)) > 0;) {
        att_buf_put(text, bytes, (size_t)n);
    }
    return fd >= 0 && text->len > 0 && !text->failed;
}

/* Its user, unit and executable, for ctx->now. */
static bool describe(struct procs *p, int dir, uint32_t pid)
{
    att_autobuf status = {0}, cgroup = {0};
    struct workload_status s;
    struct att_slice path, unit = {0};
    char exe[SCAN_PATH_MAX] = "", name[SCAN_UNIT_MAX + 1] = "";
    if (!small(dir, "status", &status) ||
        workload_status_parse(att_buf_slice(&status), &s, NULL) != ATT_OK) {
        return false;
    }
    if (small(dir, "cgroup", &cgroup) &&
        workload_cgroup_parse(att_buf_slice(&cgroup), &path, NULL) == ATT_OK) {
        unit = workload_cgroup_unit(path);
    }
    if (unit.len && unit.len < sizeof name) {
        memcpy(name, unit.ptr, unit.len);
    }
    ssize_t n = readlinkat(dir, "exe", exe, sizeof exe - 1);
    exe[n > 0 ? n : 0] = 0;
    p->ctx->now = (struct scan_finding){
        .path = scan_findings_text(p->ctx->findings, exe[0] ? exe : "-"),
        .unit = scan_findings_text(p->ctx->findings, name),
        .pid = pid,
        .uid = s.uid[WORKLOAD_EFFECTIVE],
    };
    return true;
}

static void skip(struct procs *p, uint32_t pid, const char *what, enum scan_skip why)
{
    char shown[64];
    snprintf(shown, sizeof shown, "/proc/%u/%s", pid, what);
    scan_findings_skip(p->ctx->findings, why, shown, 0);
}

static void part(struct procs *p, int dir, uint32_t pid, const char *what, enum scan_source source,
                 void (*parse)(struct scan_text, const struct scan_sink *))
{
    static const struct scan_place place = {.source = SCAN_SRC_ENVIRON};
    ssize_t len = 0;
    int error = 0;
    int own = fcntl(dir, F_DUPFD_CLOEXEC, 0);
    bool may = may_wait(p, p->ctx->now.uid), ready = may && (p->reader || reader_start(p));
    if (own < 0 || !ready) {
        skip(p, pid, what, may ? SCAN_SKIP_FAILED : SCAN_SKIP_SLOW);
        if (own >= 0) {
            close(own);
        }
        return;
    }
    if (!reader_read(p, own, what, &len, &error)) {
        skip(p, pid, what, SCAN_SKIP_SLOW);
        return;
    }
    if (len < 0) { /* it ended, or became somebody else's by exec */
        if (error != ESRCH && error != ENOENT) {
            skip(p, pid, what,
                 error == EACCES || error == EPERM ? SCAN_SKIP_DENIED : SCAN_SKIP_FAILED);
        }
        return;
    }
    if ((size_t)len > SCAN_FILE_MAX) {
        skip(p, pid, what, SCAN_SKIP_CUT);
    }
    p->ctx->now.source = source;
    scan_bytes(p->ctx, (struct scan_text){p->reader->buf.ptr, (size_t)len}, &place, parse);
}

static void one(struct procs *p, int proc, const char *name)
{
    char *end = NULL;
    unsigned long pid = strtoul(name, &end, 10);
    if (*end || name[0] < '1' || name[0] > '9' || pid == (unsigned long)getpid()) {
        return;
    }
    att_autofd dir = openat(proc, name, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || !describe(p, dir, (uint32_t)pid)) {
        return; /* it has ended */
    }
    p->ctx->findings->looked.processes++;
    part(p, dir, (uint32_t)pid, "environ", SCAN_SRC_ENVIRON, scan_environ);
    part(p, dir, (uint32_t)pid, "cmdline", SCAN_SRC_ARGUMENT, scan_cmdline);
}

void scan_processes(struct scan_ctx *ctx)
{
    struct procs p = {.ctx = ctx,
                      .slow_ms = ctx->options->slow_ms ? ctx->options->slow_ms : SLOW_MS};
    size_t n = 0;
    enum scan_skip why = SCAN_SKIPS;
    att_autofd proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int list = proc >= 0 ? openat(proc, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    char **names = list >= 0 ? scan_names(list, &n, &why) : NULL;
    if (list < 0 || why != SCAN_SKIPS) {
        scan_findings_skip(ctx->findings, why == SCAN_SKIPS ? SCAN_SKIP_FAILED : why, "/proc", 0);
    }
    for (size_t i = 0; i < n; i++) {
        one(&p, proc, names[i]);
    }
    free(names);
    reader_end(&p);
}
