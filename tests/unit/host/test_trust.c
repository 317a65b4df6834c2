/* What a host keeps of what views say of the issuer's own roots, and what it trusts then. */
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/host/federation.h"
#include "attestd/host/trust.h"
#include "certs/bundle.h"
#include "tests/unit/host/world.h"

#include <glob.h>
#include <sys/stat.h>
#include <unistd.h>

#define URL "https://issuer.example:8443/acme"

/* before is the root that was given; then is the one that takes its place. */
struct rig {
    struct host host;
    struct conf_attestd conf;
    struct conf_attestd_issuer issuer;
    struct world *before, *then;
    char dir[64], state[128], file[128], url[64], pin[65];
};

static X509 *root_of(const struct world *w)
{
    X509 *root = NULL;
    assert_int_equal(certs_cert_parse(att_buf_slice(&w->root), &root, NULL), ATT_OK);
    return root;
}

static void put_roots(const char *path, const struct world *const *worlds, size_t n)
{
    certs_autostack *roots = sk_X509_new_null();
    for (size_t i = 0; i < n; i++) {
        assert_true(sk_X509_push(roots, root_of(worlds[i])));
    }
    assert_int_equal(certs_bundle_save(roots, path, NULL), ATT_OK);
}

static void give_file(struct rig *r, const struct world *other)
{
    const struct world *const worlds[] = {r->before, other};
    put_roots(r->file, worlds, other ? 2 : 1);
    r->issuer.ca_file = r->file;
}

static void give_pin(struct rig *r)
{
    att_sha256(r->issuer.ca_sha256_bytes, att_buf_slice(&r->before->root));
    att_hex(r->pin, ATT_SLICE_ARRAY(r->issuer.ca_sha256_bytes));
    r->issuer.ca_sha256 = r->pin;
}

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    void *made = NULL;
    assert_int_equal(world_setup(&made), 0);
    r->before = made;
    assert_int_equal(world_setup(&made), 0);
    r->then = made;
    snprintf(r->dir, sizeof(r->dir), "/tmp/trust-test-XXXXXX");
    assert_non_null(mkdtemp(r->dir));
    snprintf(r->state, sizeof(r->state), "%s/state", r->dir);
    snprintf(r->file, sizeof(r->file), "%s/ca.pem", r->dir);
    snprintf(r->url, sizeof(r->url), "%s", URL);
    pthread_mutex_init(&r->host.lock, NULL);
    pthread_cond_init(&r->host.changed, NULL);
    r->issuer.url = r->url;
    r->conf.issuer = &r->issuer;
    r->conf.state_dir = r->state;
    r->conf.run_dir = r->dir;
    r->host.conf = &r->conf;
    r->host.bundle = sk_X509_new_null();
    assert_int_equal(host_paths_init(&r->host.paths, &r->conf, NULL), ATT_OK);
    assert_int_equal(host_paths_make(&r->host.paths, NULL), ATT_OK);
    assert_int_equal(agent_registry_new(&r->host.reg, NULL), ATT_OK);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    void *made = r->before;
    char command[128];
    world_teardown(&made);
    made = r->then;
    world_teardown(&made);
    host_selectors_unref(&r->host.selectors);
    json_decref(r->host.token_view);
    host_federation_free(r->host.federation);
    sk_X509_pop_free(r->host.bundle, X509_free);
    agent_registry_free(r->host.reg);
    host_paths_done(&r->host.paths);
    pthread_cond_destroy(&r->host.changed);
    pthread_mutex_destroy(&r->host.lock);
    snprintf(command, sizeof(command), "rm -rf '%s'", r->dir);
    assert_int_equal(system(command), 0);
    free(r);
    return 0;
}

/* A view under by, which names these roots and calls retired (NULL: none) over. */
static enum att_rc hears(struct rig *r, const struct world *by, int64_t version,
                         const struct world *const *roots, size_t n, const struct world *retired,
                         struct att_err *err)
{
    char now[ATT_TIME_TEXT_LEN], hex[65];
    uint8_t digest[ATT_SHA256_LEN];
    att_autobuf pem = {0}, jws = {0};
    json_t *over = json_array();
    for (size_t i = 0; i < n; i++) {
        certs_autox509 *root = root_of(roots[i]);
        assert_int_equal(certs_pem_dump(root, &pem, NULL), ATT_OK);
    }
    if (retired) {
        att_sha256(digest, att_buf_slice(&retired->root));
        att_hex(hex, ATT_SLICE_ARRAY(digest));
        json_array_append_new(over, json_string(hex));
    }
    att_time_text(now, att_now_utc_s());
    json_t *json = json_pack("{s:I, s:s, s:s, s:{s:s, s:s}, s:[], s:s, s:[], s:{s:s, s:o}}",
                             "version", (json_int_t)version, "issuedAt", now, "trustDomain",
                             "bank.example", "host", "id", "aa", "state", "approved", "entries",
                             "bundle", att_buf_cstr(&r->before->workload_pem), "policies",
                             "issuerRoots", "pem", att_buf_cstr(&pem), "retired", over);
    assert_non_null(json);
    sign("attestd-hostview", by->signer_key, &by->signer, &by->root, json, &jws);
    json_decref(json);
    return host_view_accept(&r->host, att_buf_slice(&jws), err);
}

static void heard(struct rig *r, const struct world *by, int64_t version,
                  const struct world *const *roots, size_t n, const struct world *retired)
{
    struct att_err err = {0};
    if (hears(r, by, version, roots, n, retired, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
    assert_int_equal(r->host.view_kept, version);
}

/* The file of what was learned: fails where there is not exactly one. */
static void learned_file(struct rig *r, char ret[256])
{
    glob_t found;
    char pattern[256];
    snprintf(pattern, sizeof(pattern), "%s/" HOST_TRUST_PREFIX "*.pem", r->host.paths.dir);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_int_equal(found.gl_pathc, 1);
    snprintf(ret, 256, "%s", found.gl_pathv[0]);
    globfree(&found);
}

static void trusts(struct rig *r, const struct world *const *worlds, size_t n)
{
    struct host_issuer issuer;
    certs_autostack *roots = NULL;
    assert_int_equal(host_issuer_get(&r->host, &issuer, NULL), ATT_OK);
    assert_true(issuer.learned && !issuer.has_pin);
    assert_int_equal(certs_bundle_load(issuer.ca_file, &roots, NULL), ATT_OK);
    assert_int_equal(sk_X509_num(roots), n);
    for (size_t i = 0; i < n; i++) {
        certs_autox509 *root = root_of(worlds[i]);
        bool there = false;
        for (int k = 0; k < sk_X509_num(roots); k++) {
            there = there || X509_cmp(sk_X509_value(roots, k), root) == 0;
        }
        assert_true(there);
    }
}

static void refuses(struct rig *r, const struct world *by, int64_t version)
{
    struct att_err err = {0};
    const struct world *const own[] = {by};
    assert_int_equal(hears(r, by, version, own, 1, NULL, &err), ATT_E_AUTH);
    assert_string_equal(err.reason, "hostViewSigner");
}

/* Both, then the new one alone: what is under the old one is refused, however new it says to be. */
static void rotated(struct rig *r)
{
    const struct world *const both[] = {r->before, r->then}, *const last[] = {r->then};
    refuses(r, r->then, 2);
    heard(r, r->before, 2, both, 2, NULL);
    trusts(r, both, 2);
    heard(r, r->then, 3, last, 1, r->before);
    trusts(r, last, 1);
    refuses(r, r->before, 9);
    assert_int_equal(r->host.view_version, 3);
}

static void test_a_pinned_host_learns_and_drops(void **state)
{
    struct rig *r = *state;
    give_pin(r);
    rotated(r);
}

static void test_a_host_with_a_file_learns_and_drops(void **state)
{
    struct rig *r = *state;
    give_file(r, NULL);
    rotated(r);
}

/* Another CA's, for tls.cert_file: nobody's but the operator's to take away. */
static void test_a_foreign_root_of_the_file_stays(void **state)
{
    struct rig *r = *state;
    void *made = NULL;
    assert_int_equal(world_setup(&made), 0);
    struct world *foreign = made;
    const struct world *const all[] = {r->before, foreign, r->then}, *const last[] = {r->then},
                              *const kept[] = {foreign, r->then};
    const struct world *const both[] = {r->before, r->then};
    give_file(r, foreign);
    heard(r, r->before, 2, both, 2, NULL);
    trusts(r, all, 3);
    heard(r, r->then, 3, last, 1, r->before);
    trusts(r, kept, 2);
    refuses(r, r->before, 9);
    world_teardown(&made);
}

/* The issuer remembers retired ones for a time only. */
static void test_a_dropped_root_stays_away(void **state)
{
    struct rig *r = *state;
    const struct world *const both[] = {r->before, r->then}, *const last[] = {r->then};
    give_file(r, NULL);
    heard(r, r->before, 2, both, 2, NULL);
    heard(r, r->then, 3, last, 1, r->before);
    heard(r, r->then, 4, last, 1, NULL);
    trusts(r, last, 1);
}

/* A disk that fails just there: in force, but not said to be had, so that it is asked for again. */
static void test_what_is_not_kept_is_not_acknowledged(void **state)
{
    struct rig *r = *state;
    const struct world *const both[] = {r->before, r->then};
    struct att_err err = {0};
    char view[128], bundle[128], aside[128];
    struct host_paths own = r->host.paths;
    give_pin(r);
    snprintf(view, sizeof(view), "%s/view.jws", r->dir);
    snprintf(bundle, sizeof(bundle), "%s/bundle.pem", r->dir);
    snprintf(aside, sizeof(aside), "%s/aside", r->dir);
    r->host.paths.view = view;
    r->host.paths.bundle = bundle;
    assert_int_equal(rename(own.dir, aside), 0);
    assert_int_not_equal(hears(r, r->before, 2, both, 2, NULL, &err), ATT_OK);
    assert_int_equal(access(view, F_OK), 0); /* that far it came */
    assert_int_equal(r->host.view_version, 2);
    assert_int_equal(r->host.view_kept, 0);
    assert_int_equal(rename(aside, own.dir), 0);
    heard(r, r->before, 2, both, 2, NULL);
    trusts(r, both, 2);
    r->host.paths = own;
}

/* A roots file that is there and cannot be read: not back to what was given. */
static void test_a_damaged_file_is_not_passed_over(void **state)
{
    struct rig *r = *state;
    const struct world *const both[] = {r->before, r->then}, *const last[] = {r->then};
    struct host_issuer issuer;
    struct att_err err = {0};
    char path[256];
    give_pin(r);
    heard(r, r->before, 2, both, 2, NULL);
    heard(r, r->then, 3, last, 1, r->before);
    learned_file(r, path);
    assert_int_equal(att_io_write_file(path, att_slice_str("damaged\n"), 0644, NULL), ATT_OK);
    assert_int_equal(host_issuer_get(&r->host, &issuer, &err), ATT_E_IO);
    assert_string_equal(err.reason, "issuerRoots");
    assert_int_equal(hears(r, r->before, 9, both, 1, NULL, &err), ATT_E_IO);
    assert_int_equal(host_view_load(&r->host, &err), ATT_E_IO);
    assert_int_equal(access(r->host.paths.view, F_OK), 0); /* nothing was set aside */
    /* An operator takes it away: what he gave counts again. */
    assert_int_equal(unlink(path), 0);
    assert_int_equal(host_issuer_get(&r->host, &issuer, NULL), ATT_OK);
    assert_true(issuer.has_pin && !issuer.learned);
}

/* A crash after the view was written, before its roots were: made up for at the start. */
static void test_a_start_learns_what_is_missing(void **state)
{
    struct rig *r = *state;
    const struct world *const both[] = {r->before, r->then};
    struct att_err err = {0};
    char path[256];
    give_pin(r);
    heard(r, r->before, 2, both, 2, NULL);
    learned_file(r, path);
    assert_int_equal(unlink(path), 0);
    r->host.view_version = r->host.view_kept = 0;
    assert_int_equal(host_view_load(&r->host, &err), ATT_OK);
    assert_int_equal(r->host.view_kept, 2);
    trusts(r, both, 2);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_pinned_host_learns_and_drops),
        TEST(test_a_host_with_a_file_learns_and_drops),
        TEST(test_a_foreign_root_of_the_file_stays),
        TEST(test_a_dropped_root_stays_away),
        TEST(test_what_is_not_kept_is_not_acknowledged),
        TEST(test_a_damaged_file_is_not_passed_over),
        TEST(test_a_start_learns_what_is_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
