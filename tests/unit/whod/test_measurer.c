/* What whod tells of files, asked as attestd asks it: bytes of public files only, and few at once.
 */
#include "attestd/base/io.h"
#include "attestd/proc/who_proto.h"
#include "attestd/whod/whod.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#define LARGE_LEN ((uint64_t)256 << 30) /* no content: more than can be hashed in a test */

static char dir[] = "/tmp/att-measurer-XXXXXX", small[64], large[64];
static struct whod_measurer *measurer;
static struct proc_peer self;

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir)) {
        return -1;
    }
    snprintf(small, sizeof small, "%s/small", dir);
    snprintf(large, sizeof large, "%s/large", dir);
    self = (struct proc_peer){.pid = getpid(), .passed = (int)syscall(SYS_pidfd_open, getpid(), 0)};
    return self.passed < 0 ||
           att_io_write_file(small, ATT_SLICE_LIT("bytes"), 0644, NULL) != ATT_OK ||
           att_io_write_file(large, ATT_SLICE_LIT(""), 0644, NULL) != ATT_OK ||
           truncate(large, (off_t)LARGE_LEN) != 0 || whod_measurer_new(&measurer, NULL) != ATT_OK;
}

static int teardown(void **state)
{
    (void)state;
    whod_measurer_free(measurer);
    close(self.passed);
    return unlink(small) != 0 || unlink(large) != 0 || rmdir(dir) != 0;
}

static enum att_rc read_small(struct att_err *err)
{
    att_autobuf reply = {0};
    const struct proc_value v[PROC_FIELDS_MAX] = {
        [PROC_WHO_READ_REQ_PID] = {.num = (uint64_t)getpid()},
        [PROC_WHO_READ_REQ_PATH] = {.bytes = att_slice_str(small)}};
    return whod_measurer_answer(measurer, &self, proc_op_find(proc_who_table, PROC_WHO_READ), v,
                                &reply, err);
}

/* whod may read what its clients may not: a file's bytes are told when all may read them. */
static void test_measurer_reads_public_files_only(void **state)
{
    (void)state;
    static const mode_t closed[] = {0600, 0640, 0660};
    struct att_err err = {0};
    assert_int_equal(read_small(&err), ATT_OK);
    for (size_t i = 0; i < sizeof closed / sizeof closed[0]; i++) {
        att_err_clear(&err);
        assert_int_equal(chmod(small, closed[i]), 0);
        assert_int_equal(read_small(&err), ATT_E_DENIED);
        assert_string_equal(err.reason, "notPublic");
    }
    assert_int_equal(chmod(small, 0644), 0);
    assert_int_equal(read_small(&err), ATT_OK);
}

static atomic_bool stop;

static void *measure_on(void *arg)
{
    const uint8_t size[8] = {(uint8_t)(LARGE_LEN >> 56), (uint8_t)(LARGE_LEN >> 48),
                             (uint8_t)(LARGE_LEN >> 40), (uint8_t)(LARGE_LEN >> 32)};
    const struct att_slice path = att_slice_str(large), len = ATT_SLICE_ARRAY(size);
    const struct proc_value v[PROC_FIELDS_MAX] = {
        [PROC_WHO_MEASURE_REQ_PID] = {.num = (uint64_t)getpid()},
        [PROC_WHO_MEASURE_REQ_WITHIN_MS] = {.num = 500},
        [PROC_WHO_MEASURE_REQ_SIZES] = {.items = &len, .item_count = 1},
        [PROC_WHO_MEASURE_REQ_PATHS] = {.items = &path, .item_count = 1}};
    while (!atomic_load(&stop)) {
        att_autobuf reply = {0};
        (void)!whod_measurer_answer(measurer, &self, proc_op_find(proc_who_table, PROC_WHO_MEASURE),
                                    v, &reply, NULL);
    }
    return arg;
}

static void test_measurer_is_for_few_at_once(void **state)
{
    (void)state;
    pthread_t threads[WHOD_MEASURING_MAX];
    struct att_err err = {0};
    enum att_rc rc = ATT_OK;
    for (int i = 0; i < WHOD_MEASURING_MAX; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, measure_on, NULL), 0);
    }
    for (int i = 0; rc == ATT_OK && i < 60000; i++) {
        att_err_clear(&err);
        rc = read_small(&err);
        usleep(1000);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < WHOD_MEASURING_MAX; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(rc, ATT_E_LIMIT);
    assert_string_equal(err.reason, "measuring");
    assert_int_equal(read_small(&err), ATT_OK); /* their places are given back */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_measurer_reads_public_files_only),
        cmocka_unit_test(test_measurer_is_for_few_at_once),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
