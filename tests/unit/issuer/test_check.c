/* --check beside a running issuer: it reads, says what is wrong, and leaves no trace. */
#include "tests/unit/issuer/stage.h"

#include <ftw.h>
#include <sys/stat.h>

/* Every path below the folder with its size, times and content, as one digest each. */
static struct att_buf *snapshot_to;

static int see(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)ftw;
    uint8_t digest[ATT_SHA256_LEN];
    char hex[2 * ATT_SHA256_LEN + 1] = "";
    att_autobuf bytes = {.max = 64 << 20};
    if (type == FTW_F) {
        rig_ok(att_io_read_file(path, 64 << 20, &bytes, &err));
        att_sha256(digest, att_buf_slice(&bytes));
        att_hex(hex, ATT_SLICE_ARRAY(digest));
    }
    att_buf_printf(snapshot_to, "%s %o %lld %lld.%09ld %lld.%09ld %s\n", path,
                   (unsigned)st->st_mode, (long long)st->st_ino, (long long)st->st_mtim.tv_sec,
                   st->st_mtim.tv_nsec, (long long)st->st_ctim.tv_sec, st->st_ctim.tv_nsec, hex);
    return 0;
}

static void snapshot(const char *dir, struct att_buf *ret)
{
    snapshot_to = ret;
    assert_int_equal(nftw(dir, see, 16, FTW_PHYS), 0);
    snapshot_to = NULL;
}

static void config_path(const struct rig *r, char path[192])
{
    snprintf(path, 192, "%s/issuer.yaml", r->dir);
}

/* Asserts that --check gives rc and changes nothing below the rig's folder. */
static void check_leaves_no_trace(struct rig *r, enum att_rc want)
{
    char path[192];
    att_autobuf before = {0}, after = {0};
    struct att_err why = {0};
    config_path(r, path);
    snapshot(r->dir, &before);
    assert_true(before.len > 1000);
    assert_int_equal(issuer_check(path, &why), want);
    snapshot(r->dir, &after);
    assert_string_equal(att_buf_cstr(&before), att_buf_cstr(&after));
}

static void add_policy(struct stage *s, bool broken)
{
    char dir[160];
    att_autobuf json = {0};
    snprintf(dir, sizeof dir, "%s/policies", s->rig.dir);
    rig_ok(att_io_mkdirs(dir, 0755, &err));
    forge_policy_json(s->tpm.base, &json);
    rig_write(dir, broken ? "broken.json" : "new.json", broken ? "{" : att_buf_cstr(&json));
}

static void beside_a_running_issuer(void **state)
{
    (void)state;
    struct stage s;
    stage_enrolled(&s, "none");
    rig_ok(issuer_audit_save_head(s.rig.issuer, &err));
    add_policy(&s, false);
    /* A name that the TLS certificate does not stand for: a start would make a new one. */
    reconfigure(&s.rig, "url: \"https://127.0.0.1", "url: \"https://127.0.0.2");
    check_leaves_no_trace(&s.rig, ATT_OK);
    json_t *list = rig_admin(&s.rig, "policy.list", json_object());
    assert_int_equal(json_array_size(json_object_get(list, "policies")), 0);
    json_decref(list);
    add_policy(&s, true);
    check_leaves_no_trace(&s.rig, ATT_E_PARSE);
    stage_free(&s);
}

/* The keys of the one that runs stay, too, when a second one is started. */
static void second_start_renews_nothing(void **state)
{
    (void)state;
    struct stage s;
    char path[192];
    att_autobuf before = {0}, after = {0};
    struct issuer *second = NULL;
    struct att_err why = {0};
    stage_enrolled(&s, "none");
    reconfigure(&s.rig, "url: \"https://127.0.0.1", "url: \"https://127.0.0.2");
    config_path(&s.rig, path);
    snapshot(s.rig.dir, &before);
    assert_int_equal(issuer_open(path, &second, &why), ATT_E_EXISTS);
    assert_string_equal(why.reason, "stateDirInUse");
    snapshot(s.rig.dir, &after);
    assert_string_equal(att_buf_cstr(&before), att_buf_cstr(&after));
    stage_free(&s);
}

static void before_the_first_start(void **state)
{
    (void)state;
    struct stage s;
    char db[192];
    stage_new(&s, "none");
    issuer_free(s.rig.issuer);
    s.rig.issuer = NULL;
    check_leaves_no_trace(&s.rig, ATT_OK);
    if (test_store_is_postgres()) {
        char tables[16];
        test_store_sql(s.rig.store, "INSERT INTO migrations (number, applied_at) VALUES (99, 0)");
        check_leaves_no_trace(&s.rig, ATT_E_UNSUPPORTED);
        test_postgres_database(s.rig.store);
        rig_config(&s.rig, "none", NULL);
        check_leaves_no_trace(&s.rig, ATT_OK);
        test_store_ask(s.rig.store, "SELECT COUNT(*) FROM pg_tables WHERE schemaname = 'public'",
                       tables, sizeof tables);
        assert_string_equal(tables, "0");
        test_postgres_stop();
        check_leaves_no_trace(&s.rig, ATT_E_UNREACHABLE);
        test_postgres_start();
        stage_free(&s);
        return;
    }
    snprintf(db, sizeof db, "%s/state", s.rig.dir);
    rig_write(db, "issuer.db", "this is no database");
    check_leaves_no_trace(&s.rig, ATT_E_PARSE);
    snprintf(db, sizeof db, "%s/state/issuer.db", s.rig.dir);
    assert_int_equal(unlink(db), 0);
    check_leaves_no_trace(&s.rig, ATT_OK);
    stage_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beside_a_running_issuer),
        cmocka_unit_test(second_start_renews_nothing),
        cmocka_unit_test(before_the_first_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
