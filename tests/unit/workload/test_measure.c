/* Files of a manifest, as whod and attestctl look at them: what is no file, what is a link, what
 * changed between two looks. fs-verity itself needs a kernel that has it: tests/boot. */
#include "attestd/base/clock.h"
#include "attestd/workload/measure.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cmocka.h>

#define FAR (att_boottime_ms() + 60000)

struct place {
    char dir[64], file[100];
    int root;
};

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

static int setup(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    char real[4096];
    snprintf(p->dir, sizeof p->dir, "/tmp/att-measure.XXXXXX");
    assert_non_null(mkdtemp(p->dir));
    assert_non_null(realpath(p->dir, real));
    assert_string_equal(real, p->dir);
    snprintf(p->file, sizeof p->file, "%s/file", p->dir);
    put(p->file, "one");
    p->root = open("/", O_PATH | O_DIRECTORY);
    *state = p;
    return p->root >= 0 ? 0 : -1;
}

static int teardown(void **state)
{
    struct place *p = *state;
    char command[120];
    snprintf(command, sizeof command, "rm -rf '%s'", p->dir);
    close(p->root);
    int rc = system(command);
    free(p);
    return rc;
}

static void is_digest(const struct workload_measured *seen, const char *text)
{
    uint8_t want[ATT_SHA256_LEN];
    att_sha256(want, att_slice_str(text));
    assert_int_equal(seen->kind, WORKLOAD_REGULAR);
    assert_true(seen->has_sha256);
    assert_false(seen->has_verity);
    assert_int_equal(seen->size, strlen(text));
    assert_memory_equal(seen->sha256, want, sizeof want);
}

static void measure(int root, const char *path, struct workload_measures *measures,
                    int64_t max_age_s, int64_t deadline_ms, struct workload_measured *ret)
{
    const struct workload_measuring how = {measures, max_age_s, deadline_ms, UINT64_MAX};
    workload_measure(root, path, &how, ret);
}

static void look(const struct place *p, const char *name, struct workload_measures *measures,
                 struct workload_measured *ret)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", p->dir, name);
    measure(p->root, path, measures, 3600, FAR, ret);
}

static void test_measure_no_file(void **state)
{
    struct place *p = *state;
    struct workload_measured seen;
    char path[200];
    look(p, "absent", NULL, &seen);
    assert_int_equal(seen.kind, WORKLOAD_ABSENT);
    look(p, "file/below", NULL, &seen);
    assert_int_equal(seen.kind, WORKLOAD_ABSENT);
    measure(p->root, p->dir, NULL, 0, FAR, &seen);
    assert_int_equal(seen.kind, WORKLOAD_FOLDER);
    snprintf(path, sizeof path, "%s/fifo", p->dir);
    assert_int_equal(mkfifo(path, 0644), 0); /* not opened: it would never end */
    look(p, "fifo", NULL, &seen);
    assert_int_equal(seen.kind, WORKLOAD_OTHER);
    measure(p->root, "/proc/self/status", NULL, 0, FAR, &seen);
    assert_int_not_equal(seen.kind, WORKLOAD_REGULAR);
    measure(p->root, "/proc/version", NULL, 0, FAR, &seen);
    assert_int_equal(seen.kind, WORKLOAD_OTHER);
    assert_non_null(strstr(seen.text, "kernel makes up"));
    assert_false(seen.has_sha256);
    measure(p->root, p->file, NULL, 0, att_boottime_ms() - 1, &seen);
    assert_int_equal(seen.kind, WORKLOAD_NOT_YET); /* which says nothing against the file */
    assert_non_null(strstr(seen.text, "too long"));
}

static void test_measure_links(void **state)
{
    struct place *p = *state;
    struct workload_measured seen;
    char path[200];
    snprintf(path, sizeof path, "%s/link", p->dir);
    assert_int_equal(symlink("file", path), 0);
    look(p, "link", NULL, &seen); /* itself, not what it leads to */
    assert_int_equal(seen.kind, WORKLOAD_SYMLINK);
    assert_string_equal(seen.text, "file");
    snprintf(path, sizeof path, "%s/way", p->dir);
    assert_int_equal(symlink(p->dir, path), 0);
    look(p, "way/file", NULL, &seen);
    assert_int_equal(seen.kind, WORKLOAD_OTHER);
    assert_non_null(strstr(seen.text, "link on the way"));
    snprintf(path, sizeof path, "%s/hard", p->dir);
    assert_int_equal(link(p->file, path), 0);
    look(p, "hard", NULL, &seen);
    is_digest(&seen, "one");
    look(p, "../../../../../..", NULL, &seen); /* not above the root */
    assert_int_equal(seen.kind, WORKLOAD_FOLDER);
}

/* What is remembered is of an inode and its times; a fresh one is not remembered at all. */
static void test_measure_remembers(void **state)
{
    struct place *p = *state;
    struct workload_measures *measures = NULL;
    struct workload_measured seen;
    char other[200];
    assert_int_equal(workload_measures_new(&measures, NULL), ATT_OK);
    sleep(4); /* its ctime is believed from now on */
    look(p, "file", measures, &seen);
    is_digest(&seen, "one");
    look(p, "file", measures, &seen);
    is_digest(&seen, "one");
    put(p->file, "two"); /* in place, of the same length */
    look(p, "file", measures, &seen);
    is_digest(&seen, "two");
    put(p->file, "six"); /* within its ctime's grain, perhaps */
    look(p, "file", measures, &seen);
    is_digest(&seen, "six");
    snprintf(other, sizeof other, "%s/other", p->dir);
    put(other, "ten");
    assert_int_equal(rename(other, p->file), 0); /* replaced between two looks */
    look(p, "file", measures, &seen);
    is_digest(&seen, "ten");
    measure(p->root, p->file, measures, 0, FAR, &seen); /* read anew */
    is_digest(&seen, "ten");
    workload_measures_free(measures);
}

/* tmpfs does not note a writing through a mapping: such a file is not remembered. */
static void test_measure_in_memory(void **state)
{
    struct place *p = *state;
    struct workload_measures *measures = NULL;
    struct workload_measured seen;
    struct statfs fs;
    struct stat before, after;
    char path[] = "/dev/shm/att-measure.XXXXXX";
    if (statfs("/dev/shm", &fs) != 0 || fs.f_type != TMPFS_MAGIC) {
        print_message("no tmpfs here: skipped\n");
        skip();
    }
    int fd = mkstemp(path);
    assert_int_equal(write(fd, "one", 3), 3);
    char *mapped = mmap(NULL, 3, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(mapped != MAP_FAILED);
    assert_int_equal(workload_measures_new(&measures, NULL), ATT_OK);
    mapped[2] = 'x'; /* its page may be written to from now on without a fault */
    sleep(4);        /* its ctime is believed from now on */
    measure(p->root, path, measures, 3600, FAR, &seen);
    is_digest(&seen, "onx");
    assert_int_equal(fstat(fd, &before), 0);
    mapped[0] = 'i';
    assert_int_equal(fstat(fd, &after), 0);
    assert_int_equal(before.st_ctim.tv_nsec, after.st_ctim.tv_nsec); /* which is the point */
    measure(p->root, path, measures, 3600, FAR, &seen);
    is_digest(&seen, "inx");
    munmap(mapped, 3);
    unlink(path);
    close(fd);
    workload_measures_free(measures);
}

/* Sparse and of another size than is listed: nobody reads a terabyte to say no. */
static void test_measure_other_size(void **state)
{
    struct place *p = *state;
    struct workload_measured seen;
    struct workload_measuring how = {.deadline_ms = FAR, .size = 3};
    workload_measure(p->root, p->file, &how, &seen);
    is_digest(&seen, "one");
    struct stat st;
    assert_int_equal(stat(p->file, &st), 0);
    assert_int_equal(seen.dev_major, major(st.st_dev));
    assert_int_equal(seen.dev_minor, minor(st.st_dev));
    assert_int_equal(truncate(p->file, (off_t)1 << 40), 0);
    workload_measure(p->root, p->file, &how, &seen);
    assert_int_equal(seen.kind, WORKLOAD_REGULAR);
    assert_int_equal(seen.size, (uint64_t)1 << 40);
    assert_false(seen.has_sha256 || seen.has_verity);
}

static void test_measure_lists(void **state)
{
    struct place *p = *state;
    struct workload_name *names = NULL;
    size_t n = 99;
    char path[200];
    struct att_err err = {0};
    snprintf(path, sizeof path, "%s/a", p->dir);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(workload_list(p->root, p->dir, &names, &n, NULL), ATT_OK);
    assert_int_equal(n, 2);
    assert_string_equal(names[0].name, "a");
    assert_int_equal(names[0].kind, WORKLOAD_FOLDER);
    assert_int_equal(names[1].kind, WORKLOAD_REGULAR);
    free(names);
    snprintf(path, sizeof path, "%s/absent", p->dir);
    assert_int_equal(workload_list(p->root, path, &names, &n, NULL), ATT_OK);
    assert_int_equal(n, 0);
    assert_int_equal(workload_list(p->root, p->file, &names, &n, &err), ATT_E_DENIED);
    assert_string_equal(err.msg, "not a folder");
    snprintf(path, sizeof path, "%s/below", p->file);
    assert_int_equal(workload_list(p->root, path, &names, &n, &err), ATT_E_DENIED);
    assert_int_equal(workload_list(p->root, "/proc/self/fd", &names, &n, &err), ATT_E_DENIED);
    err = (struct att_err){0};
    assert_int_equal(workload_list(p->root, "/proc/sys", &names, &n, &err), ATT_E_DENIED);
    assert_string_equal(err.msg, "a folder that the kernel makes up");
    snprintf(path, sizeof path, "%s/link", p->dir);
    assert_int_equal(symlink("a", path), 0);
    assert_int_equal(workload_list(p->root, path, &names, &n, NULL), ATT_E_DENIED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_measure_no_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_measure_links, setup, teardown),
        cmocka_unit_test_setup_teardown(test_measure_remembers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_measure_in_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_measure_other_size, setup, teardown),
        cmocka_unit_test_setup_teardown(test_measure_lists, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
