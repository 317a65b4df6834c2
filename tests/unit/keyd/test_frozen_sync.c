/* Freezing and thawing on a disk that does not sync: what answers failure is frozen, also after a
 * restart. */
#include "tests/unit/keyd/common.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/syscall.h>

static atomic_bool fail_folder;

/* In the place of libc's: the next sync of a folder fails. */
int fsync(int fd)
{
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) && atomic_exchange(&fail_folder, false)) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

static void a_thaw_that_answers_failure_stays_frozen(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key, none;
    assert_ok(proc_keyd_freeze(f->client, "a", &err));
    atomic_store(&fail_folder, true);
    assert_int_equal(proc_keyd_thaw(f->client, "a", NULL), ATT_E_IO);
    assert_false(atomic_load(&fail_folder));
    for (int i = 0; i < 2; i++) { /* here, and as the next start reads it */
        assert_refused(proc_keyd_key_create(f->client, "a", "tpm", &none, &err), ATT_E_DENIED,
                       "frozen");
        stop(f);
        start(f);
    }
    assert_ok(proc_keyd_thaw(f->client, "a", &err));
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    proc_key_done(&key);
    /* A freeze holds from its answer on, whichever it is. */
    atomic_store(&fail_folder, true);
    assert_int_equal(proc_keyd_freeze(f->client, "b", NULL), ATT_E_IO);
    assert_refused(proc_keyd_key_create(f->client, "b", "tpm", &none, &err), ATT_E_DENIED,
                   "frozen");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_KEYD(a_thaw_that_answers_failure_stays_frozen),
    };
    return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
