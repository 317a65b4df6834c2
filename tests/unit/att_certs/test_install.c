#include "tests/unit/att_certs/fixture.h"

#include "certs/install.h"

#include <dirent.h>
#include <signal.h>
#include <sys/wait.h>

struct world {
    char dir[256];
    struct att_buf one, two; /* PEM chains */
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    struct ca ca, other;
    temp_dir(w->dir);
    ca_init(&ca, TD);
    ca_init(&other, TD);
    assert_ok(certs_pem_dump(ca.root, &w->one, err));
    assert_ok(certs_pem_dump(other.root, &w->two, err));
    ca_done(&ca);
    ca_done(&other);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    att_buf_done(&w->one);
    att_buf_done(&w->two);
    temp_remove(w->dir);
    free(w);
    return 0;
}

static int generations(const char *dir)
{
    char path[512];
    path_in(path, dir, ".gen");
    DIR *d = opendir(path);
    int n = 0;
    for (const struct dirent *e; d && (e = readdir(d));) {
        n += e->d_name[0] != '.';
    }
    if (d) {
        closedir(d);
    }
    return n;
}

static void assert_installed(const char *dir, const char *name, const struct att_buf *chain,
                             const char *uri)
{
    att_autobuf pem = {0}, ref = {0};
    assert_ok(certs_install_load(dir, name, &pem, &ref, err));
    assert_true(att_slice_eq(att_buf_slice(&pem), att_buf_slice(chain)));
    assert_true(att_slice_eq_str(att_buf_slice(&ref), uri));
}

static void test_refuses(void **state)
{
    struct world *w = *state;
    att_autobuf a = {0}, b = {0};
    struct att_slice pem = att_buf_slice(&w->one);
    assert_int_equal(certs_install(w->dir, "../x", pem, "k", NULL), ATT_E_PARSE);
    assert_int_equal(certs_install(w->dir, ".gen", pem, "k", NULL), ATT_E_PARSE);
    assert_int_equal(certs_install(w->dir, "x", ATT_SLICE_LIT("no PEM"), "k", NULL), ATT_E_PARSE);
    assert_int_equal(certs_install(w->dir, "x", pem, "", NULL), ATT_E_INVAL);
    assert_int_equal(certs_install(w->dir, "x", pem, "a\nb", NULL), ATT_E_INVAL);
    assert_int_equal(certs_install_load(w->dir, "x", &a, &b, NULL), ATT_E_NOTFOUND);
    assert_int_equal(generations(w->dir), 0);
    char path[512];
    path_in(path, w->dir, "plain"); /* somebody else's folder is not replaced */
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(certs_install(w->dir, "plain", pem, "k", NULL), ATT_E_CONFLICT);
    assert_int_equal(generations(w->dir), 0);
    assert_ok(certs_install_remove(w->dir, "x", err));
}

static void test_switches(void **state)
{
    struct world *w = *state;
    char path[512];
    struct stat st;
    assert_ok(certs_install(w->dir, "a.1", att_buf_slice(&w->one), "tpm:1", err));
    assert_ok(certs_install(w->dir, "a", att_buf_slice(&w->one), "tpm:1", err));
    assert_installed(w->dir, "a", &w->one, "tpm:1");
    path_in(path, w->dir, "a/chain.pem");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    for (int i = 0; i < 5; i++) {
        assert_ok(certs_install(w->dir, "a", att_buf_slice(&w->two), "tpm:2", err));
        assert_installed(w->dir, "a", &w->two, "tpm:2");
    }
    assert_installed(w->dir, "a.1", &w->one, "tpm:1");
    assert_int_equal(generations(w->dir), 3); /* a: new and previous; a.1: one */
    assert_ok(certs_install_remove(w->dir, "a", err));
    att_autobuf a = {0}, b = {0};
    assert_int_equal(certs_install_load(w->dir, "a", &a, &b, NULL), ATT_E_NOTFOUND);
    assert_installed(w->dir, "a.1", &w->one, "tpm:1");
    assert_int_equal(generations(w->dir), 1);
}

/* What an interrupted install leaves behind is in nobody's way. */
static void test_leftovers(void **state)
{
    struct world *w = *state;
    char path[512];
    assert_ok(certs_install(w->dir, "b", att_buf_slice(&w->one), "tpm:1", err));
    path_in(path, w->dir, ".gen/b.2");
    assert_int_equal(mkdir(path, 0755), 0);
    path_in(path, w->dir, ".gen/b.2/chain.pem");
    assert_ok(att_io_write_file(path, ATT_SLICE_LIT("half"), 0644, err));
    path_in(path, w->dir, ".b.new");
    assert_int_equal(symlink(".gen/b.2", path), 0);
    assert_installed(w->dir, "b", &w->one, "tpm:1");
    assert_ok(certs_install(w->dir, "b", att_buf_slice(&w->two), "tpm:2", err));
    assert_installed(w->dir, "b", &w->two, "tpm:2");
    path_in(path, w->dir, ".gen/b.2");
    assert_int_equal(access(path, F_OK), -1);
}

/* In steps: nothing is seen before the switch, and a generation that is given up goes. */
static void test_steps(void **state)
{
    struct world *w = *state;
    struct certs_install_gen gen = {0};
    assert_int_equal(certs_install_begin(w->dir, "../x", "k", &gen, NULL), ATT_E_PARSE);
    assert_int_equal(certs_install_begin(w->dir, "s", "a\nb", &gen, NULL), ATT_E_INVAL);
    assert_int_equal(gen.number, 0);
    assert_ok(certs_install(w->dir, "s", att_buf_slice(&w->one), "tpm:1", err));
    assert_ok(certs_install_begin(w->dir, "s", "tpm:2", &gen, err));
    assert_installed(w->dir, "s", &w->one, "tpm:1");
    assert_ok(certs_install_fill(&gen, att_buf_slice(&w->two), err));
    assert_installed(w->dir, "s", &w->one, "tpm:1");
    int before = generations(w->dir);
    certs_install_gen_done(&gen);
    assert_int_equal(generations(w->dir), before - 1);
    assert_ok(certs_install_begin(w->dir, "s", "tpm:2", &gen, err));
    assert_ok(certs_install_fill(&gen, att_buf_slice(&w->two), err));
    assert_ok(certs_install_switch(&gen, err));
    assert_installed(w->dir, "s", &w->two, "tpm:2");
    certs_install_gen_done(&gen); /* in force: it stays */
    certs_install_gen_done(&gen);
    assert_installed(w->dir, "s", &w->two, "tpm:2");
}

/* After a loss of power the link may be the old one, or the new one too early: whoever knows the
 * key in force has it put right, and nothing else is pointed to. */
static void test_settles(void **state)
{
    struct world *w = *state;
    char path[512];
    bool changed = true;
    assert_int_equal(certs_install_settle(w->dir, "absent", "tpm:1", &changed, NULL),
                     ATT_E_NOTFOUND);
    assert_ok(certs_install(w->dir, "t", att_buf_slice(&w->one), "tpm:1", err));
    assert_ok(certs_install(w->dir, "t", att_buf_slice(&w->two), "tpm:2", err));
    assert_ok(certs_install_settle(w->dir, "t", "tpm:2", &changed, err));
    assert_false(changed);
    assert_ok(certs_install_settle(w->dir, "t", "tpm:1", &changed, err));
    assert_true(changed);
    assert_installed(w->dir, "t", &w->one, "tpm:1");
    path_in(path, w->dir, "t");
    assert_int_equal(unlink(path), 0);
    assert_ok(certs_install_settle(w->dir, "t", "tpm:2", &changed, err));
    assert_true(changed);
    assert_installed(w->dir, "t", &w->two, "tpm:2");
    /* One that was begun, of the key but without its chain, is none. */
    struct certs_install_gen gen = {0};
    assert_ok(certs_install_begin(w->dir, "t", "tpm:3", &gen, err));
    assert_int_equal(certs_install_settle(w->dir, "t", "tpm:3", &changed, NULL), ATT_E_NOTFOUND);
    assert_false(changed);
    assert_installed(w->dir, "t", &w->two, "tpm:2");
    certs_install_gen_done(&gen);
}

/* kill -9 at any instant: the pair is always the old one or the new one, never mixed. */
static void test_killed(void **state)
{
    struct world *w = *state;
    assert_ok(certs_install(w->dir, "c", att_buf_slice(&w->one), "tpm:1", err));
    for (unsigned i = 0; i < 40; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            for (int k = 0;; k++) {
                bool odd = k & 1;
                if (certs_install(w->dir, "c", att_buf_slice(odd ? &w->one : &w->two),
                                  odd ? "tpm:1" : "tpm:2", NULL) != ATT_OK) {
                    _exit(1);
                }
            }
        }
        usleep(500 + 1373 * i);
        int status = 0;
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status));
        att_autobuf pem = {0}, uri = {0};
        assert_ok(certs_install_load(w->dir, "c", &pem, &uri, err));
        bool one = att_slice_eq_str(att_buf_slice(&uri), "tpm:1");
        assert_true(att_slice_eq(att_buf_slice(&pem), att_buf_slice(one ? &w->one : &w->two)));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refuses),   cmocka_unit_test(test_switches),
        cmocka_unit_test(test_steps),     cmocka_unit_test(test_settles),
        cmocka_unit_test(test_leftovers), cmocka_unit_test(test_killed),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
