/* Installing on a disk that does not sync: after any failure what is in service is whole, the old
 * chain or the new one. */
#include "tests/unit/att_certs/fixture.h"

#include "certs/install.h"

#include <errno.h>
#include <sys/syscall.h>

static int fail_at, calls;

static int sync_or_fail(long number, int fd)
{
    if (++calls == fail_at) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(number, fd);
}

/* In the place of libc's. */
int fsync(int fd)
{
    return sync_or_fail(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return sync_or_fail(SYS_fdatasync, fd);
}

static void test_a_failing_sync_leaves_something_whole_in_service(void **state)
{
    (void)state;
    char dir[256];
    struct ca ca, other;
    att_autobuf one = {0}, two = {0};
    temp_dir(dir);
    ca_init(&ca, TD);
    ca_init(&other, TD);
    assert_ok(certs_pem_dump(ca.root, &one, err));
    assert_ok(certs_pem_dump(other.root, &two, err));
    assert_ok(certs_install(dir, "a", att_buf_slice(&one), "k1", err));
    calls = 0;
    assert_ok(certs_install(dir, "a", att_buf_slice(&two), "k2", err));
    int syncs = calls;
    assert_true(syncs >= 3);
    int old = 0, new = 0;
    for (int i = 1; i <= syncs; i++) {
        att_autobuf pem = {0}, uri = {0};
        fail_at = 0;
        assert_ok(certs_install(dir, "a", att_buf_slice(&one), "k1", err));
        calls = 0;
        fail_at = i;
        assert_int_equal(certs_install(dir, "a", att_buf_slice(&two), "k2", NULL), ATT_E_IO);
        fail_at = 0;
        assert_ok(certs_install_load(dir, "a", &pem, &uri, err));
        bool is_new = att_slice_eq_str(att_buf_slice(&uri), "k2");
        assert_true(is_new || att_slice_eq_str(att_buf_slice(&uri), "k1"));
        assert_true(att_slice_eq(att_buf_slice(&pem), att_buf_slice(is_new ? &two : &one)));
        old += !is_new;
        new += is_new;
    }
    assert_true(old > 0 && new > 0); /* before the switch, and after it */
    ca_done(&ca);
    ca_done(&other);
    temp_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_failing_sync_leaves_something_whole_in_service),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
