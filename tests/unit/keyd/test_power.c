/* What keyd does not sync, and a loss of power may undo (docs/ARCHITECTURE.md). */
#include "tests/unit/keyd/common.h"

/* Destroying is not synced: the PEM may be back after a loss of power. Its sidecar is kept until
 * that cannot be, so that it is a key, which attestd destroys again, and no riddle. */
static void a_destroyed_key_may_come_back_whole(void **state)
{
    struct fixture *f = *state;
    struct proc_key gone, later, *list = NULL;
    struct att_err err = {0};
    size_t count = 0;
    char pem[64], json[64];
    att_autobuf blob = {0}, csr = {0};
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &gone, &err));
    put(pem, sizeof pem, "agents/%s.pem", gone.key_id);
    put(json, sizeof json, "agents/%s.json", gone.key_id);
    read_whole(f, pem, &blob);
    assert_ok(proc_keyd_key_destroy(f->client, gone.key_id, &err));
    assert_false(exists(f, pem));
    assert_true(exists(f, json));
    stop(f);
    overwrite(f, pem, att_buf_cstr(&blob));
    start(f);
    assert_ok(proc_keyd_key_list(f->client, &list, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(list[0].key_id, gone.key_id);
    proc_keys_free(list, count);
    assert_ok(proc_keyd_key_csr(f->client, gone.key_id, SPIFFE("a"), &csr, &err));
    assert_ok(proc_keyd_key_destroy(f->client, gone.key_id, &err));
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &later, &err)); /* syncs the folder */
    assert_false(exists(f, json));
    proc_key_done(&gone);
    proc_key_done(&later);
}

/* An activation that a loss of power undid is no damage: the key is new again, and whoever has the
 * record says so once more. */
static void an_activation_may_be_undone(void **state)
{
    struct fixture *f = *state;
    struct proc_key first, second;
    struct att_err err = {0};
    char name[64];
    att_autobuf before = {0};
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &first, &err));
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &second, &err));
    assert_ok(proc_keyd_key_activate(f->client, first.key_id, &err));
    put(name, sizeof name, "agents/%s.json", second.key_id);
    read_whole(f, name, &before);
    assert_ok(proc_keyd_key_activate(f->client, second.key_id, &err));
    stop(f);
    overwrite(f, name, att_buf_cstr(&before));
    start(f);
    two_keys(f, second.key_id, "new", "active");
    assert_ok(proc_keyd_key_activate(f->client, second.key_id, &err));
    proc_key_done(&first);
    proc_key_done(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_KEYD(a_destroyed_key_may_come_back_whole),
        WITH_KEYD(an_activation_may_be_undone),
    };
    return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
