/* Writers that share a commit: what one does wrong is undone alone, what the database gives up is
 * given up by all, nobody is told of success before a commit, and the log is folded back. */
#include "provision/store/sqlite.h"
#include "provision/store/store_internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 8
#define ROUNDS  40

struct place {
    char dir[128], path[160];
    struct store *store;
    atomic_int commits; /* that SQLite did */
};

static atomic_int syncs;

/* SQLite's own goes through here. */
int fdatasync(int fd)
{
    atomic_fetch_add(&syncs, 1);
    return (int)syscall(SYS_fdatasync, fd);
}

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    const char *tmp = getenv("TMPDIR");
    snprintf(p->dir, sizeof p->dir, "%.80s/batch-test-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(p->dir)) {
        return -1;
    }
    snprintf(p->path, sizeof p->path, "%s/t.db", p->dir);
    *state = p;
    return store_open(p->path, &p->store, NULL) ? -1 : 0;
}

static int teardown(void **state)
{
    struct place *p = *state;
    char command[200];
    store_free(p->store);
    snprintf(command, sizeof command, "rm -rf '%s'", p->dir);
    int rc = system(command);
    free(p);
    return rc;
}

/* A disk takes its time, which is when others come to stand behind a writer; a tmpfs takes none. */
static int count_commit(void *user)
{
    usleep(2000);
    atomic_fetch_add(&((struct place *)user)->commits, 1);
    return 0;
}

static sqlite3 *writing(struct place *p)
{
    return p->store->db->writer.con->sqlite;
}

/* ---- writers
 * --------------------------------------------------------------------------------------------- */

struct writer {
    struct place *p;
    int number, done, failed;
    int64_t value;
    struct att_slice big;
};

/* Each third call fails after it has written. */
static enum att_rc count_or_fail(void *user, struct store_tx *tx, struct att_err *err)
{
    struct writer *w = user;
    char key[32];
    snprintf(key, sizeof key, "own.%d", w->number);
    enum att_rc rc = store_meta_count(tx, key, &w->value, err);
    if (!rc) {
        rc = store_meta_count(tx, "all", &w->value, err);
    }
    if (!rc) {
        rc = store_audit_append(tx, 1, key, NULL, err);
    }
    if (!rc && (w->done + w->failed) % 3 == 2) {
        rc = att_fail(err, ATT_E_DENIED, "no");
    }
    return rc;
}

static void *run_writer(void *user)
{
    struct writer *w = user;
    for (int i = 0; i < ROUNDS; i++) {
        struct att_err err = {0};
        enum att_rc rc = store_run(w->p->store, true, count_or_fail, w, &err);
        if (rc == ATT_OK) {
            w->done++;
        } else if (rc == ATT_E_DENIED && strcmp(err.msg, "no") == 0) {
            w->failed++;
        } else {
            w->failed += 1000;
        }
    }
    return NULL;
}

struct numbers {
    int number;
    int64_t own, all;
};

static enum att_rc read_number(struct store_tx *tx, const char *key, int64_t *ret,
                               struct att_err *err)
{
    att_autobuf bytes = {0};
    enum att_rc rc = store_meta_get(tx, key, &bytes, err);
    struct att_cur cur = att_cur_init(att_buf_slice(&bytes));
    *ret = (int64_t)att_cur_be64(&cur);
    return rc;
}

static enum att_rc read_numbers(void *user, struct store_tx *tx, struct att_err *err)
{
    struct numbers *n = user;
    char key[32];
    snprintf(key, sizeof key, "own.%d", n->number);
    enum att_rc rc = read_number(tx, key, &n->own, err);
    return rc ? rc : read_number(tx, "all", &n->all, err);
}

static enum att_rc verify_chain(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_audit_verify(tx, NULL, user, err);
}

static void failures_are_their_own(void **state)
{
    struct place *p = *state;
    struct writer w[THREADS];
    pthread_t threads[THREADS];
    sqlite3_commit_hook(writing(p), count_commit, p);
    for (int i = 0; i < THREADS; i++) {
        w[i] = (struct writer){.p = p, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, run_writer, &w[i]), 0);
    }
    int done = 0;
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(w[i].failed, ROUNDS / 3);
        done += w[i].done;
    }
    sqlite3_commit_hook(writing(p), NULL, NULL);
    for (int i = 0; i < THREADS; i++) {
        struct numbers n = {.number = i};
        assert_int_equal(store_run(p->store, false, read_numbers, &n, NULL), ATT_OK);
        assert_int_equal(n.own, w[i].done);
        assert_int_equal(n.all, done);
    }
    struct store_audit head = {0};
    assert_int_equal(store_run(p->store, false, verify_chain, &head, NULL), ATT_OK);
    assert_int_equal(head.seq, done);
    /* Eight writers at a time have less than half as many commits as successes. */
    assert_true(atomic_load(&p->commits) > 0);
    assert_true(atomic_load(&p->commits) < done / 2);
}

/* ---- the whole given up
 * ---------------------------------------------------------------------------------- */

static atomic_bool has_turn;

/* The first writer has its turn, and waits for others to stand behind it. */
static void await_turn(void)
{
    for (int i = 0; i < 120000 && !atomic_load(&has_turn); i++) {
        usleep(500);
    }
    assert_true(atomic_load(&has_turn));
    atomic_store(&has_turn, false);
}

/* Waits until so many others stand behind it, so that all share one batch. */
static void await_row(struct place *p, unsigned n)
{
    struct store_writer *w = &p->store->db->writer;
    atomic_store(&has_turn, true);
    for (int i = 0; i < 120000; i++) {
        pthread_mutex_lock(&w->lock);
        unsigned waiting = w->waiting;
        pthread_mutex_unlock(&w->lock);
        if (waiting >= n) {
            return;
        }
        usleep(500);
    }
    fail();
}

static enum att_rc put_big(void *user, struct store_tx *tx, struct att_err *err)
{
    struct writer *w = user;
    char sha256[65];
    if (w->number == 0) {
        await_row(w->p, 2); /* one small writer and the big one */
        return store_meta_count(tx, "first", &w->value, err);
    }
    return w->big.len ? store_blob_put(tx, w->big, 1, sha256, err)
                      : store_meta_count(tx, "small", &w->value, err);
}

static void *run_once(void *user)
{
    struct writer *w = user;
    struct att_err err = {0};
    w->failed = (int)store_run(w->p->store, true, put_big, w, &err);
    w->done = strcmp(err.reason, "diskFull") == 0;
    return NULL;
}

static enum att_rc pragma(void *user, struct store_tx *tx, struct att_err *err)
{
    return tx->store->ops->script(tx->con, user, err);
}

static void full_disk_fails_those_before(void **state)
{
    struct place *p = *state;
    static uint8_t bytes[1 << 20];
    char sql[] = "PRAGMA max_page_count = 60", more[] = "PRAGMA max_page_count = 1000000";
    struct writer w[3];
    pthread_t threads[3];
    assert_int_equal(store_run(p->store, true, pragma, sql, NULL), ATT_OK);
    for (int i = 0; i < 3; i++) {
        w[i] = (struct writer){.p = p, .number = i};
    }
    w[2].big = ATT_SLICE_ARRAY(bytes);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, run_once, &w[i]), 0);
        if (i == 0) {
            await_turn();
        }
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    /* The first was in the batch that was given up, and was told so; the second either too, or it
     * came after. */
    assert_int_equal(w[2].failed, ATT_E_IO);
    assert_true(w[2].done);
    assert_int_equal(w[0].failed, ATT_E_IO);
    assert_true(w[0].done);
    assert_int_equal(store_run(p->store, true, pragma, more, NULL), ATT_OK);
    struct writer after = {.p = p, .number = 1};
    run_once(&after);
    assert_int_equal(after.failed, ATT_OK);
    assert_int_equal(after.value, w[1].failed == ATT_OK ? 2 : 1);
}

/* ---- a transaction that is no more
 * ----------------------------------------------------------------------------- */

/* What SQLite does by itself after an error of the disk or of memory, in a read, too; and a writer
 * that does not look at that statement's result. */
struct careless {
    struct writer w;
    enum att_rc then, refused;
    bool other;
};

static enum att_rc goes_on(void *user, struct store_tx *tx, struct att_err *err)
{
    struct careless *c = user;
    if (c->other) {
        await_row(c->w.p, 1);
        return store_meta_count(tx, "first", &c->w.value, err);
    }
    assert_int_equal(store_exec(tx, "ROLLBACK", NULL, 0, NULL, NULL, NULL, NULL), ATT_OK);
    c->then = store_meta_count(tx, "after", &c->w.value, NULL);
    if (c->refused) {
        c->refused = att_fail(err, ATT_E_DENIED, "what concerns another");
        att_err_reason(err, "hostBanned");
    }
    return c->refused;
}

static void *run_careless(void *user)
{
    struct careless *c = user;
    struct att_err err = {0};
    c->w.failed = (int)store_run(c->w.p->store, true, goes_on, c, &err);
    c->w.done = strcmp(err.reason, "hostBanned") == 0 || strstr(err.msg, "another") != NULL;
    return NULL;
}

static enum att_rc read_after(void *user, struct store_tx *tx, struct att_err *err)
{
    return read_number(tx, "after", user, err);
}

static void nothing_is_written_beside_a_transaction(void **state)
{
    struct place *p = *state;
    int64_t n = 0;
    struct careless c = {.w = {.p = p}};
    run_careless(&c);
    assert_int_equal(c.then, ATT_E_IO);
    assert_int_equal(c.w.failed, ATT_E_IO);
    assert_int_equal(store_run(p->store, false, read_after, &n, NULL), ATT_E_NOTFOUND);
    struct writer after = {.p = p, .number = 1};
    run_once(&after);
    assert_int_equal(after.failed, ATT_OK);
}

/* Who shared the commit hears that the store failed, and not why another was refused. */
static void refusal_of_another_is_not_told(void **state)
{
    struct place *p = *state;
    int64_t n = 0;
    pthread_t thread;
    struct careless first = {.w = {.p = p}, .other = true},
                    second = {.w = {.p = p}, .refused = ATT_E_DENIED};
    assert_int_equal(pthread_create(&thread, NULL, run_careless, &first), 0);
    await_turn();
    run_careless(&second);
    pthread_join(thread, NULL);
    assert_int_equal(second.w.failed, ATT_E_DENIED);
    assert_int_equal(first.w.failed, ATT_E_IO);
    assert_false(first.w.done);
    assert_int_equal(store_run(p->store, false, read_after, &n, NULL), ATT_E_NOTFOUND);
}

/* ---- soft writers
 * ----------------------------------------------------------------------------------------- */

static enum att_rc count_soft(void *user, struct store_tx *tx, struct att_err *err)
{
    return store_meta_count(tx, "soft", user, err);
}

static enum att_rc read_soft(void *user, struct store_tx *tx, struct att_err *err)
{
    return read_number(tx, "soft", user, err);
}

static void soft_does_not_wait_for_the_disk(void **state)
{
    struct place *p = *state;
    int64_t value = 0, seen = 0;
    assert_int_equal(store_run(p->store, true, count_soft, &value, NULL), ATT_OK);
    int before = atomic_load(&syncs);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(store_run_soft(p->store, count_soft, &value, NULL), ATT_OK);
        assert_int_equal(store_run(p->store, false, read_soft, &seen, NULL), ATT_OK);
        assert_int_equal(seen, i + 2);
    }
    assert_int_equal(atomic_load(&syncs), before);
    for (int i = 0; i < 3; i++) {
        before = atomic_load(&syncs);
        assert_int_equal(store_run(p->store, true, count_soft, &value, NULL), ATT_OK);
        assert_true(atomic_load(&syncs) > before); /* the log as a whole, what was soft included */
    }
}

struct mixed {
    struct place *p;
    bool soft, first;
    int64_t value;
};

static enum att_rc count_mixed(void *user, struct store_tx *tx, struct att_err *err)
{
    struct mixed *m = user;
    if (m->first) {
        await_row(m->p, 1);
    }
    return store_meta_count(tx, "soft", &m->value, err);
}

static void *run_mixed(void *user)
{
    struct mixed *m = user;
    int rc = m->soft ? (int)store_run_soft(m->p->store, count_mixed, m, NULL)
                     : (int)store_run(m->p->store, true, count_mixed, m, NULL);
    return rc ? m : NULL;
}

/* Whoever of the two comes first, the one that is not soft waits for the disk. */
static void soft_beside_others(void **state)
{
    struct place *p = *state;
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        void *failed = NULL;
        struct mixed first = {.p = p, .soft = i == 0, .first = true},
                     second = {.p = p, .soft = i != 0};
        int before = atomic_load(&syncs);
        assert_int_equal(pthread_create(&thread, NULL, run_mixed, &first), 0);
        await_turn();
        assert_null(run_mixed(&second));
        pthread_join(thread, &failed);
        assert_null(failed);
        assert_true(atomic_load(&syncs) > before);
    }
}

/* ---- a checkpoint in the background
 * ----------------------------------------------------------------------- */

static void log_is_folded_back(void **state)
{
    struct place *p = *state;
    char wal[180];
    static uint8_t bytes[32768];
    struct stat st;
    snprintf(wal, sizeof wal, "%s-wal", p->path);
    struct writer w = {.p = p, .number = 1, .big = ATT_SLICE_ARRAY(bytes)};
    off_t largest = 0;
    for (int i = 0; i < 1400; i++) {
        memset(bytes, i, sizeof bytes);
        memcpy(bytes, &i, sizeof i);
        run_once(&w);
        assert_int_equal(w.failed, ATT_OK);
        if (stat(wal, &st) == 0 && st.st_size > largest) {
            largest = st.st_size;
        }
    }
    /* 1400 × 10 pages of 4 KiB and more went through it. */
    assert_true(largest > 4000 * 4096);
    assert_true(largest < (off_t)8000 * 4096);
}

/* ---- kill -9
 * ----------------------------------------------------------------------------------------- */

static void told_is_kept(void **state)
{
    struct place *p = *state;
    atomic_int *told = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(told, MAP_FAILED);
    store_free(p->store);
    p->store = NULL;
    for (int round = 0; round < 5; round++) {
        pid_t child = fork();
        if (child == 0) {
            struct store *store = NULL;
            if (store_open(p->path, &store, NULL)) {
                _exit(1);
            }
            struct place inner = {.store = store};
            static struct writer w[THREADS];
            pthread_t threads[THREADS];
            for (int i = 0; i < THREADS; i++) {
                w[i] = (struct writer){.p = &inner, .number = i};
                pthread_create(&threads[i], NULL, run_writer, &w[i]);
            }
            for (;;) { /* what a writer was told of, the parent may count on */
                int sum = 0;
                for (int i = 0; i < THREADS; i++) {
                    sum += __atomic_load_n(&w[i].done, __ATOMIC_ACQUIRE);
                }
                atomic_store(told, sum);
            }
        }
        usleep(100000);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, NULL, 0), child);
        struct store_audit head = {0};
        assert_int_equal(store_open(p->path, &p->store, NULL), ATT_OK);
        static int64_t before;
        assert_int_equal(store_run(p->store, false, verify_chain, &head, NULL), ATT_OK);
        assert_true(head.seq >= before + atomic_load(told));
        before = head.seq;
        atomic_store(told, 0);
        store_free(p->store);
        p->store = NULL;
    }
    assert_int_equal(munmap(told, 4096), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(failures_are_their_own, setup, teardown),
        cmocka_unit_test_setup_teardown(full_disk_fails_those_before, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_written_beside_a_transaction, setup, teardown),
        cmocka_unit_test_setup_teardown(refusal_of_another_is_not_told, setup, teardown),
        cmocka_unit_test_setup_teardown(soft_does_not_wait_for_the_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(soft_beside_others, setup, teardown),
        cmocka_unit_test_setup_teardown(log_is_folded_back, setup, teardown),
        cmocka_unit_test_setup_teardown(told_is_kept, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
