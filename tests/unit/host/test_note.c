/* Records without which something may not happen: on the disk, or refused. */
#include "attestd/host/internal.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

static unsigned syncs;
static bool sync_fails;

/* In libc's place: what is synced, and a disk that does not take it. */
int fdatasync(int fd)
{
    syncs++;
    if (sync_fails) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

static char dir[64];
static struct host *host;

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/att-note.XXXXXX");
    host = calloc(1, sizeof(*host));
    if (!host || !mkdtemp(dir)) {
        return -1;
    }
    host->paths.decisions = dir;
    pthread_mutex_init(&host->notes.lock, NULL);
    host_notes_open(host);
    sync_fails = false;
    return host->notes.journal ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    host_notes_close(host);
    pthread_mutex_destroy(&host->notes.lock);
    free(host);
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    return system(command);
}

static json_t *members(void)
{
    return json_pack("{s:s}", "agent", "alpha");
}

static void test_it_is_synced(void **state)
{
    (void)state;
    uint8_t head[ATT_SHA256_LEN];
    syncs = 0;
    host_note(host, "granted", members());
    assert_int_equal(syncs, 0); /* nobody waits for the disk where a record may be lost */
    assert_int_equal(host_note_must(host, "exported", members(), NULL), ATT_OK);
    assert_int_equal(syncs, 1);
    host_notes_head(host, head);
    assert_int_equal(syncs, 1); /* nothing was left to be synced */
}

static void test_a_disk_that_does_not_take_it(void **state)
{
    (void)state;
    struct att_err err = {0};
    sync_fails = true;
    assert_int_equal(host_note_must(host, "exported", members(), &err), ATT_E_UNREACHABLE);
    assert_string_equal(err.reason, "hostLog");
    assert_non_null(strstr(err.msg, "cannot sync"));
    sync_fails = false;
    assert_int_equal(host_note_must(host, "exported", members(), NULL), ATT_OK);
}

static void test_a_record_that_says_nothing(void **state)
{
    (void)state;
    uint64_t before, after, missed;
    host_journal_counts(host->notes.journal, &before, &missed);
    assert_int_equal(host_note_must(host, "exported", NULL, NULL), ATT_E_NOMEM);
    host_journal_counts(host->notes.journal, &after, &missed);
    assert_int_equal(before, after);
}

static void test_no_log(void **state)
{
    (void)state;
    struct att_err err = {0};
    host_notes_close(host);
    host->notes.tried_ms = att_boottime_ms(); /* it was tried just now */
    assert_int_equal(host_note_must(host, "exported", members(), &err), ATT_E_UNREACHABLE);
    assert_string_equal(err.reason, "hostLog");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(test_it_is_synced),
                                       TEST(test_a_disk_that_does_not_take_it),
                                       TEST(test_a_record_that_says_nothing), TEST(test_no_log)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
