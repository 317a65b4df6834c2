/* Digests of files that change, and the cache of executables. */
#include "attestd/base/io.h"
#include "attestd/workload/digest.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    struct workload_cache *cache;
    char dir[64];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_int_equal(workload_cache_new(4, &f->cache, NULL), ATT_OK);
    snprintf(f->dir, sizeof f->dir, "/tmp/att-digest.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", f->dir);
    assert_int_equal(system(command), 0);
    workload_cache_free(f->cache);
    free(f);
    return 0;
}

static int make(struct fixture *f, const char *name, size_t len)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)len), 0);
    return fd;
}

/* A ctime older than two seconds, which the cache believes. */
static void let_it_age(void)
{
    struct timespec wait = {3, 100000000};
    nanosleep(&wait, NULL);
}

static void test_digest_refuses_what_is_not_regular(void **state)
{
    struct fixture *f = *state;
    uint8_t sha256[ATT_SHA256_LEN];
    struct att_err err = {0};
    att_autofd dir = open(f->dir, O_RDONLY | O_DIRECTORY);
    att_autofd null = open("/dev/zero", O_RDONLY);
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(workload_digest(dir, 100, sha256, &err), ATT_E_INVAL);
    assert_string_equal(err.reason, "notRegular");
    assert_int_equal(workload_digest(null, 100, sha256, NULL), ATT_E_INVAL);
    assert_int_equal(workload_digest(ends[0], 100, sha256, NULL), ATT_E_INVAL);
    assert_int_equal(workload_cache_digest(f->cache, ends[0], sha256, NULL), ATT_E_INVAL);
    close(ends[0]);
    close(ends[1]);
}

static void test_digest_refuses_what_is_too_large(void **state)
{
    struct fixture *f = *state;
    uint8_t sha256[ATT_SHA256_LEN];
    struct att_err err = {0};
    att_autofd fd = make(f, "a", 101);
    assert_int_equal(workload_digest(fd, 100, sha256, &err), ATT_E_LIMIT);
    assert_string_equal(err.reason, "fileTooLarge");
    assert_int_equal(workload_digest(fd, 101, sha256, NULL), ATT_OK);
    att_autofd huge = make(f, "huge", (size_t)WORKLOAD_EXE_MAX + 1); /* sparse */
    assert_int_equal(workload_cache_digest(f->cache, huge, sha256, NULL), ATT_E_LIMIT);
}

struct writer {
    int fd;
    atomic_bool stop;
    atomic_int writes;
};

static void *keep_writing(void *arg)
{
    struct writer *w = arg;
    while (!atomic_load(&w->stop)) {
        assert_int_equal(pwrite(w->fd, "x", 1, 0), 1);
        atomic_fetch_add(&w->writes, 1);
        usleep(500);
    }
    return NULL;
}

static void test_digest_refuses_what_changes_under_it(void **state)
{
    struct fixture *f = *state;
    if (getenv("ATT_VALGRIND")) {
        skip(); /* 64 MiB take longer there than a digest may */
    }
    uint8_t sha256[ATT_SHA256_LEN];
    struct att_err err = {0};
    att_autofd fd = make(f, "a", (size_t)64 << 20);
    struct writer w = {.fd = fd};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, keep_writing, &w), 0);
    enum att_rc rc = ATT_OK;
    /* The writer has its turns while it is read, or the test is none: again. */
    for (int before = 0, i = 0; i < 50 && atomic_load(&w.writes) < before + 3; i++) {
        before = atomic_load(&w.writes);
        att_err_clear(&err);
        rc = workload_cache_digest(f->cache, fd, sha256, &err);
    }
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);
    assert_int_equal(rc, ATT_E_RETRY);
    assert_string_equal(err.reason, "fileChanging");
    struct workload_cache_counts counts;
    workload_cache_count(f->cache, &counts);
    assert_int_equal(counts.used, 0);
}

/* A file that changed a moment ago may change again within the same tick of ctime. */
static void test_cache_does_not_keep_what_is_fresh(void **state)
{
    struct fixture *f = *state;
    uint8_t a[ATT_SHA256_LEN], b[ATT_SHA256_LEN];
    struct workload_cache_counts counts;
    att_autofd fd = make(f, "a", 100);
    assert_int_equal(workload_cache_digest(f->cache, fd, a, NULL), ATT_OK);
    assert_int_equal(pwrite(fd, "x", 1, 0), 1);
    assert_int_equal(workload_cache_digest(f->cache, fd, b, NULL), ATT_OK);
    assert_memory_not_equal(a, b, sizeof a);
    workload_cache_count(f->cache, &counts);
    assert_int_equal(counts.hits, 0);
    assert_int_equal(counts.used, 0);
}

static void test_cache_is_bounded_and_sees_changes(void **state)
{
    struct fixture *f = *state;
    uint8_t first[6][ATT_SHA256_LEN], again[ATT_SHA256_LEN];
    struct workload_cache_counts counts;
    int fds[6];
    for (int i = 0; i < 6; i++) {
        char name[8];
        snprintf(name, sizeof name, "%d", i);
        fds[i] = make(f, name, 1000 + (size_t)i);
    }
    let_it_age();
    for (int i = 0; i < 6; i++) {
        assert_int_equal(workload_cache_digest(f->cache, fds[i], first[i], NULL), ATT_OK);
    }
    workload_cache_count(f->cache, &counts);
    assert_int_equal(counts.used, 4);
    assert_int_equal(counts.evictions, 2);
    assert_int_equal(workload_cache_digest(f->cache, fds[5], again, NULL), ATT_OK);
    assert_memory_equal(again, first[5], sizeof again);
    workload_cache_count(f->cache, &counts);
    assert_int_equal(counts.hits, 1);
    /* The same size, and its times set back: ctime tells. */
    struct stat st;
    assert_int_equal(fstat(fds[5], &st), 0);
    assert_int_equal(pwrite(fds[5], "x", 1, 500), 1);
    const struct timespec times[] = {st.st_atim, st.st_mtim};
    assert_int_equal(futimens(fds[5], times), 0);
    assert_int_equal(workload_cache_digest(f->cache, fds[5], again, NULL), ATT_OK);
    assert_memory_not_equal(again, first[5], sizeof again);
    for (int i = 0; i < 6; i++) {
        close(fds[i]);
    }
}

struct asker {
    struct fixture *f;
    int fd;
    uint8_t sha256[ATT_SHA256_LEN];
    enum att_rc rc;
};

static void *ask(void *arg)
{
    struct asker *a = arg;
    a->rc = workload_cache_digest(a->f->cache, a->fd, a->sha256, NULL);
    return NULL;
}

/* Eight workers of one program that start together: it is read once. */
static void test_cache_reads_a_file_once(void **state)
{
    struct fixture *f = *state;
    att_autofd fd = make(f, "a", (size_t)48 << 20);
    struct asker askers[8];
    pthread_t threads[8];
    struct workload_cache_counts counts;
    let_it_age();
    for (int i = 0; i < 8; i++) {
        askers[i] = (struct asker){.f = f, .fd = fd};
        assert_int_equal(pthread_create(&threads[i], NULL, ask, &askers[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(askers[i].rc, ATT_OK);
        assert_memory_equal(askers[i].sha256, askers[0].sha256, ATT_SHA256_LEN);
    }
    workload_cache_count(f->cache, &counts);
    assert_int_equal(counts.misses, 1);
    assert_int_equal(counts.hits, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_digest_refuses_what_is_not_regular, setup, teardown),
        cmocka_unit_test_setup_teardown(test_digest_refuses_what_is_too_large, setup, teardown),
        cmocka_unit_test_setup_teardown(test_digest_refuses_what_changes_under_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cache_does_not_keep_what_is_fresh, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cache_is_bounded_and_sees_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cache_reads_a_file_once, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
