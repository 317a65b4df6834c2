/* An agent's files measured through whod's socket: what whod could not look at is no refusal, what
 * it had no time for is asked for again, and few measure at a time. whod's answers are scripted
 * here, since a disk that fails is not at hand; the real one is in integration/test_measured_agent.
 */
#include "attestd/host/measure.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/host/internal.h"
#include "attestd/proc/who_proto.h"
#include "provision/manifest/check.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define N_FILES 5
#define NOBODY  65534

struct rig {
    struct host host;
    struct proc_server *server;
    char dir[64], path[100], root[2 * ATT_SHA256_LEN + 1];
    char *roots[1];
    struct manifest manifest;
    struct att_buf document;
    struct conf_measured measured;
    /* what whod shall say */
    enum manifest_kind kind_of_last; /* of the last file */
    size_t within_a_request;         /* files measured by one */
    bool other_digest;               /* of the first file */
    enum att_rc read_rc;
    size_t document_len; /* bytes that READ gives, of the whole */
    unsigned wait_ms;    /* … before MEASURE is answered */
    /* what it was asked */
    atomic_uint requests, now, most;
    uint64_t sizes[N_FILES];
    uint64_t within_ms;
};

static enum att_rc answer_read(struct rig *r, const struct proc_op *op, struct att_buf *ret_payload,
                               struct att_err *err)
{
    if (r->read_rc != ATT_OK) {
        return att_fail(err, r->read_rc, "scripted");
    }
    const struct proc_value reply[] = {[PROC_WHO_READ_REP_SIZE] = proc_num(r->document.len),
                                       [PROC_WHO_READ_REP_BYTES] =
                                           proc_bytes(ATT_SLICE(r->document.ptr, r->document_len))};
    enum att_rc rc = proc_reply_encode(op, reply, ret_payload, err);
    r->document_len = r->document_len < r->document.len ? 0 : r->document_len;
    return rc;
}

static size_t number_of(struct att_slice path)
{
    return (size_t)(path.ptr[path.len - 1] - '0');
}

static enum att_rc answer_measure(struct rig *r, const struct proc_op *op,
                                  const struct proc_value *v, struct att_buf *ret_payload,
                                  struct att_err *err)
{
    const struct proc_value *paths = &v[PROC_WHO_MEASURE_REQ_PATHS];
    struct att_slice items[PROC_WHO_BATCH_MAX];
    uint8_t bytes[PROC_WHO_BATCH_MAX][82 + 4] = {{0}};
    unsigned now = atomic_fetch_add(&r->now, 1) + 1;
    unsigned most = atomic_load(&r->most);
    while (now > most && !atomic_compare_exchange_weak(&r->most, &most, now)) {
    }
    atomic_fetch_add(&r->requests, 1);
    usleep(r->wait_ms * 1000);
    r->within_ms = v[PROC_WHO_MEASURE_REQ_WITHIN_MS].num;
    for (size_t i = 0; i < paths->item_count; i++) {
        size_t n = number_of(paths->items[i]);
        bool yet = i >= r->within_a_request, good = n + 1 < N_FILES || !r->kind_of_last;
        struct att_cur size = att_cur_init(v[PROC_WHO_MEASURE_REQ_SIZES].items[i]);
        r->sizes[n] = att_cur_be64(&size);
        bytes[i][0] = (uint8_t)(yet ? MANIFEST_NOT_YET : good ? MANIFEST_REGULAR : r->kind_of_last);
        bytes[i][1] = !yet && good ? 2 : 0;
        bytes[i][9] = (uint8_t)(n + 1);
        memset(bytes[i] + 42, r->other_digest && n == 0 ? 99 : (int)(n + 1), ATT_SHA256_LEN);
        memcpy(bytes[i] + 82, "busy", 4);
        items[i] = ATT_SLICE(bytes[i], yet || !good ? 86 : 82);
    }
    const struct proc_value reply[] = {
        [PROC_WHO_MEASURE_REP_SEEN] = {.items = items, .item_count = paths->item_count}};
    enum att_rc rc = proc_reply_encode(op, reply, ret_payload, err);
    atomic_fetch_sub(&r->now, 1);
    return rc;
}

static enum att_rc handle(void *user, const struct proc_peer *peer, const struct proc_op *op,
                          const struct proc_msg *request, struct att_buf *ret_payload,
                          struct att_err *err)
{
    (void)peer;
    return op->op == PROC_WHO_READ ? answer_read(user, op, ret_payload, err)
                                   : answer_measure(user, op, request->v, ret_payload, err);
}

static void serve(struct rig *r)
{
    const struct proc_server_opts opts = {.path = r->path,
                                          .clients = {.uids = {getuid()}, .count = 1},
                                          .table = proc_who_table,
                                          .handler = handle,
                                          .user = r,
                                          .frame_timeout_ms = 3000};
    assert_int_equal(proc_server_new(&opts, &r->server, NULL), ATT_OK);
    assert_int_equal(proc_server_start(r->server, NULL), ATT_OK);
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    snprintf(r->dir, sizeof r->dir, "/tmp/att-hmeasure.XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->path, sizeof r->path, "%s/whod.sock", r->dir);
    for (size_t i = 0; i < N_FILES; i++) {
        char path[] = "/a/0";
        path[3] = (char)('0' + i);
        struct manifest_file file = {.path = path, .role = MANIFEST_MODEL, .size = i + 1};
        memset(file.sha256, (int)(i + 1), sizeof file.sha256);
        assert_int_equal(manifest_add_file(&r->manifest, &file, NULL), ATT_OK);
    }
    assert_int_equal(manifest_finish(&r->manifest, NULL), ATT_OK);
    r->document = ATT_BUF_INIT(MANIFEST_MAX);
    assert_int_equal(manifest_encode(&r->manifest, &r->document, NULL), ATT_OK);
    r->document_len = r->document.len;
    att_hex(r->root, ATT_SLICE_ARRAY(r->manifest.root));
    r->roots[0] = r->root;
    static char at[] = "/a/manifest.json";
    r->measured = (struct conf_measured){
        .manifest = at, .roots = r->roots, .n_roots = 1, .level = 1, .reread_s = 60};
    r->within_a_request = PROC_WHO_BATCH_MAX;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&r->host.lock, NULL);
    pthread_cond_init(&r->host.changed, &attr);
    pthread_condattr_destroy(&attr);
    assert_int_equal(
        proc_caller_new(r->path, "whod", getuid(), proc_who_table, 10000, &r->host.measurer, NULL),
        ATT_OK);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    char command[100];
    proc_caller_free(r->host.measurer);
    proc_server_free(r->server);
    manifest_done(&r->manifest);
    att_buf_done(&r->document);
    pthread_cond_destroy(&r->host.changed);
    pthread_mutex_destroy(&r->host.lock);
    snprintf(command, sizeof command, "rm -rf '%s'", r->dir);
    int rc = system(command);
    free(r);
    return rc;
}

static void gives(struct rig *r, enum att_rc want, const char *reason, const char *says)
{
    ATT_CLEANUP(host_measured_done) struct host_measured m = {0};
    struct att_err err = {0};
    enum att_rc rc = host_measure(&r->host, &r->measured, &m, &err);
    if (rc != want || strcmp(err.reason, reason) != 0 || !strstr(err.msg, says)) {
        fail_msg("expected %s %s \"%s\", got %s %s: %s", att_rc_name(want), reason, says,
                 att_rc_name(rc), err.reason, err.msg);
    }
    assert_int_equal(m.demanded, want == ATT_OK);
}

static void test_agrees(void **state)
{
    struct rig *r = *state;
    serve(r);
    gives(r, ATT_OK, "", "");
    assert_int_equal(r->requests, 1);
    for (size_t i = 0; i < N_FILES; i++) {
        assert_int_equal(r->sizes[i], i + 1); /* whod reads no file of another size */
    }
}

/* A renewal that cannot look is another time's; only what was seen takes keys away. */
static void test_cannot_tell_is_no_refusal(void **state)
{
    struct rig *r = *state;
    serve(r);
    r->kind_of_last = MANIFEST_UNREADABLE;
    gives(r, ATT_E_RETRY, "notMeasured", "/a/4 is notMeasured");
    r->other_digest = true;
    gives(r, ATT_E_DENIED, "modelDigest", "/a/0 is changed");
    r->other_digest = false;
    r->kind_of_last = MANIFEST_OTHER;
    gives(r, ATT_E_DENIED, "modelDigest", "/a/4 is notAFile");
    r->kind_of_last = 0;
    r->read_rc = ATT_E_IO;
    gives(r, ATT_E_IO, "", "scripted");
    r->read_rc = ATT_E_DENIED;
    gives(r, ATT_E_DENIED, "manifestMissing", "scripted");
    r->read_rc = ATT_OK;
    r->document_len = r->document.len / 2; /* and no more comes */
    gives(r, ATT_E_RETRY, "notMeasured", "manifest changes while it is read");
}

/* Whatever whod's deadline leaves out is asked for again. */
static void test_not_yet_is_asked_again(void **state)
{
    struct rig *r = *state;
    serve(r);
    r->within_a_request = 2;
    gives(r, ATT_OK, "", "");
    assert_int_equal(r->requests, 3);
    r->within_a_request = 0; /* a whod that never comes to an end */
    gives(r, ATT_E_PROTOCOL, "", "not its form");
}

/* Somebody else's server where whod's socket should be. */
static void test_foreign_server(void **state)
{
    struct rig *r = *state;
    int ready[2];
    if (getuid() == 0) {
        assert_int_equal(chown(r->dir, NOBODY, NOBODY), 0);
    } else {
        proc_caller_free(r->host.measurer);
        assert_int_equal(proc_caller_new(r->path, "whod", getuid() + 1, proc_who_table, 10000,
                                         &r->host.measurer, NULL),
                         ATT_OK);
    }
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        if (getuid() == 0 && (setgid(NOBODY) != 0 || setuid(NOBODY) != 0)) {
            _exit(1);
        }
        serve(r);
        (void)!write(ready[1], "x", 1);
        pause();
        _exit(0);
    }
    char byte;
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    gives(r, ATT_E_UNREACHABLE, "foreignServer", "whod");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

/* ---- callers ---- */

struct caller {
    struct rig *rig;
    const char *agent;
    pthread_t thread;
    enum att_rc rc;
    struct att_err err;
    int64_t took_ms;
};

static void *call(void *user)
{
    struct caller *c = user;
    struct host_decision *decision = calloc(1, sizeof *decision);
    struct host_caller from = {.pid = getpid(), .pidfd = STDIN_FILENO};
    int64_t began = att_boottime_ms();
    decision->agent = c->agent;
    c->rc = host_measure_caller(&c->rig->host, decision, &from, &c->rig->measured, &c->err);
    c->took_ms = att_boottime_ms() - began;
    free(decision);
    return NULL;
}

static void test_caller(void **state)
{
    struct rig *r = *state;
    serve(r);
    struct caller c = {.rig = r, .agent = "one"};
    call(&c);
    assert_int_equal(c.rc, ATT_OK);
    assert_in_range(r->within_ms, 1, 60000); /* of a caller's one deadline */
    r->kind_of_last = MANIFEST_UNREADABLE;
    call(&c);
    assert_int_equal(c.rc, ATT_E_RETRY);
    assert_string_equal(c.err.reason, "notMeasured");
}

/* Twelve come at once for two agents: one of each is measured, few wait, the others hear so. */
static void test_callers_take_turns(void **state)
{
    struct rig *r = *state;
    struct caller c[12];
    size_t granted = 0;
    serve(r);
    r->wait_ms = 3000;
    for (size_t i = 0; i < 12; i++) {
        c[i] = (struct caller){.rig = r, .agent = i % 2 ? "one" : "two"};
        assert_int_equal(pthread_create(&c[i].thread, NULL, call, &c[i]), 0);
    }
    for (size_t i = 0; i < 12; i++) {
        pthread_join(c[i].thread, NULL);
        granted += c[i].rc == ATT_OK;
        if (c[i].rc != ATT_OK) {
            assert_int_equal(c[i].rc, ATT_E_RETRY);
            assert_string_equal(c[i].err.reason, "notMeasured");
            assert_in_range(c[i].took_ms, 0, 2900);
        }
    }
    assert_int_equal(granted, 2);
    assert_int_equal(r->most, 2);
    r->wait_ms = 0; /* the places are free again */
    call(&c[0]);
    assert_int_equal(c[0].rc, ATT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_agrees, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cannot_tell_is_no_refusal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_yet_is_asked_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign_server, setup, teardown),
        cmocka_unit_test_setup_teardown(test_caller, setup, teardown),
        cmocka_unit_test_setup_teardown(test_callers_take_turns, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
