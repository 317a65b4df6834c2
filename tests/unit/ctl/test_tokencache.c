/* The cache file of attestctl token: what is refused and never overwritten, what is passed over,
 * what comes back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "attestd/ctl/tokencache.h"

#include "attestd/base/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[] = "/tmp/att-tokencache.XXXXXX", path[64];
static uint8_t key[ATT_SHA256_LEN] = {1, 2, 3}, other[ATT_SHA256_LEN] = {9};

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir)) {
        return -1;
    }
    snprintf(path, sizeof path, "%s/cache", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char link[80];
    snprintf(link, sizeof link, "%s.lock", path);
    (void)unlink(link);
    snprintf(link, sizeof link, "%s/link", dir);
    (void)unlink(link);
    (void)unlink(path);
    return rmdir(dir);
}

static void put(const char *text, mode_t mode)
{
    assert_int_equal(att_io_write_file(path, att_slice_str(text), mode, NULL), ATT_OK);
}

static void load_fails(const char *from, enum att_rc rc, const char *reason, const char *words)
{
    struct tokencache cache = {0};
    struct att_err err = {0};
    assert_int_equal(tokencache_load(from, key, &cache, &err), rc);
    assert_string_equal(err.reason, reason);
    if (!strstr(err.msg, words)) {
        fail_msg("\"%s\" is not in: %s", words, err.msg);
    }
    assert_null(cache.token.ptr);
}

static void test_refused(void **state)
{
    (void)state;
    char link[64];
    snprintf(link, sizeof link, "%s/link", dir);
    load_fails(path, ATT_E_NOTFOUND, "", "not there");
    put("", 0600);
    load_fails(path, ATT_E_NOTFOUND, "", "is empty");
    put("-----BEGIN PRIVATE KEY-----\n", 0600);
    load_fails(path, ATT_E_DENIED, "cacheFile", "is not overwritten");
    put("{}", 0600);
    load_fails(path, ATT_E_DENIED, "cacheFile", "is not overwritten");
    put("{}", 0640);
    load_fails(path, ATT_E_DENIED, "cacheFile", "mode 0600");
    load_fails(dir, ATT_E_DENIED, "cacheFile", "mode 0600");
    assert_int_equal(symlink(path, link), 0);
    load_fails(link, ATT_E_DENIED, "cacheFile", "found a link");
    if (geteuid() == 0) {
        put("{}", 0600);
        assert_int_equal(chown(path, 1, 1), 0);
        load_fails(path, ATT_E_DENIED, "cacheFile", "of this user's own");
    }
    char *huge = malloc(70000);
    memset(huge, ' ', 69999);
    huge[69999] = 0;
    put(huge, 0600);
    free(huge);
    load_fails(path, ATT_E_DENIED, "cacheFile", "is not overwritten");
}

#define FORM(kind, k, issued, ends, token)                                                         \
    "{\"kind\":\"" kind "\",\"key\":\"" k "\",\"issuedAt\":" issued ",\"expiresAt\":" ends         \
    ",\"token\":\"" token "\"}"
#define KIND "attestctl token cache 1"
#define KEY  "0102030000000000000000000000000000000000000000000000000000000000"

static enum att_rc parse(const char *text, struct tokencache *ret)
{
    return tokencache_parse(att_slice_str(text), key, ret, NULL);
}

static void test_form(void **state)
{
    (void)state;
    struct tokencache cache = {0};
    assert_int_equal(parse(FORM("x", KEY, "5", "9", "t"), &cache), ATT_E_PARSE);
    assert_int_equal(parse(FORM(KIND, KEY, "0", "9", "t"), &cache), ATT_E_PARSE);
    assert_int_equal(parse(FORM(KIND, KEY, "9", "9", "t"), &cache), ATT_E_PARSE);
    assert_int_equal(parse(FORM(KIND, KEY, "5", "9", ""), &cache), ATT_E_PARSE);
    assert_int_equal(parse(FORM(KIND, KEY, "5", "9", "a\\nb"), &cache), ATT_E_PARSE);
    assert_int_equal(parse(FORM(KIND, "", "5", "9", "t"), &cache), ATT_E_NOTFOUND);
    assert_int_equal(parse("[]", &cache), ATT_E_PARSE);
    assert_null(cache.token.ptr);
    assert_int_equal(parse(FORM(KIND, KEY, "5", "9", "t {u}"), &cache), ATT_OK);
    assert_string_equal((const char *)cache.token.ptr, "t {u}");
    assert_int_equal(cache.issued_at, 5);
    assert_int_equal(cache.expires_at, 9);
    tokencache_done(&cache);
}

static void test_saved_and_loaded(void **state)
{
    (void)state;
    struct stat st;
    struct tokencache cache = {.issued_at = 100, .expires_at = 200}, back = {0};
    (void)unlink(path);
    att_buf_put_str(&cache.token, "{\"Version\":1}");
    assert_int_equal(tokencache_save(path, key, &cache, NULL), ATT_OK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(tokencache_load(path, other, &back, NULL), ATT_E_NOTFOUND);
    assert_null(back.token.ptr);
    assert_int_equal(tokencache_load(path, key, &back, NULL), ATT_OK);
    assert_string_equal((const char *)back.token.ptr, "{\"Version\":1}");
    assert_int_equal(back.expires_at, 200);
    tokencache_done(&back);
    tokencache_done(&cache);
}

/* What others may have written is not taken away. */
static void test_removed(void **state)
{
    (void)state;
    struct tokencache cache = {.issued_at = 100, .expires_at = 200};
    struct att_err err = {0};
    (void)unlink(path);
    assert_int_equal(tokencache_remove(path, &err), ATT_OK);
    put("somebody's notes", 0600);
    assert_int_equal(tokencache_remove(path, &err), ATT_E_DENIED);
    assert_string_equal(err.reason, "cacheFile");
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(tokencache_remove(path, NULL), ATT_E_DENIED);
    put("{}", 0640);
    assert_int_equal(tokencache_remove(path, NULL), ATT_E_DENIED);
    (void)unlink(path);
    att_buf_put_str(&cache.token, "t");
    assert_int_equal(tokencache_save(path, key, &cache, NULL), ATT_OK);
    assert_int_equal(tokencache_remove(path, &err), ATT_OK);
    assert_int_equal(access(path, F_OK), -1);
    tokencache_done(&cache);
}

static void lock_fails(const char *of, enum att_rc rc, const char *reason, const char *words)
{
    struct att_err err = {0};
    int fd = -1;
    assert_int_equal(tokencache_lock(of, 50, &fd, &err), rc);
    assert_string_equal(err.reason, reason);
    if (!strstr(err.msg, words)) {
        fail_msg("\"%s\" is not in: %s", words, err.msg);
    }
    assert_int_equal(fd, -1);
}

static void test_locked(void **state)
{
    (void)state;
    char lock[80], absent[80];
    struct stat st;
    att_autofd one = -1, two = -1;
    snprintf(lock, sizeof lock, "%s.lock", path);
    snprintf(absent, sizeof absent, "%s/none/cache", dir);
    lock_fails(absent, ATT_E_IO, "cacheLock", "No such file");
    assert_int_equal(symlink("/etc/hostname", lock), 0);
    lock_fails(path, ATT_E_DENIED, "cacheFile", "found a link");
    assert_int_equal(unlink(lock), 0);
    assert_int_equal(mkfifo(lock, 0600), 0);
    lock_fails(path, ATT_E_DENIED, "cacheFile", "of this user's own");
    assert_int_equal(unlink(lock), 0);
    if (geteuid() == 0) {
        int made = open(lock, O_CREAT | O_WRONLY, 0666);
        assert_true(made >= 0 && fchown(made, 1, 1) == 0);
        close(made);
        lock_fails(path, ATT_E_DENIED, "cacheFile", "of this user's own");
        assert_int_equal(unlink(lock), 0);
    }
    assert_int_equal(tokencache_lock(path, 0, &one, NULL), ATT_OK);
    assert_int_equal(stat(lock, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    lock_fails(path, ATT_E_TIMEOUT, "cacheLock", "another process holds it");
    att_close(&one);
    assert_int_equal(tokencache_lock(path, 0, &two, NULL), ATT_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_refused), cmocka_unit_test(test_form),
                                       cmocka_unit_test(test_saved_and_loaded),
                                       cmocka_unit_test(test_removed),
                                       cmocka_unit_test(test_locked)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
