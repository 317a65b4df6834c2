/* keyd and a TPM that is not as it should be: certificates in NV that nobody may read, another TPM
 * in the place of the first. */
#include "tests/unit/keyd/common.h"

static void read_tpm(struct fixture *f, json_t **ret_info, const json_t **ret_tpm)
{
    struct att_err err = {0};
    assert_ok(proc_keyd_info(f->client, ret_info, &err));
    *ret_tpm = json_object_get(*ret_info, "tpm");
    assert_non_null(*ret_tpm);
}

/* ---- NV ------------------------------------------------------------------------------------ */

static bool skipped(const json_t *tpm, const char *index)
{
    const json_t *list = json_object_get(tpm, "nvSkipped");
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (strcmp(json_string_value(json_array_get(list, i)), index) == 0) {
            return true;
        }
    }
    return false;
}

/* An index whose authValue is somebody's, without NO_DA: each wrong guess would be counted, and
 * some starts later the TPM would lock everybody out. */
static void no_guess_counts_as_an_attack(void **state)
{
    struct fixture *f = *state;
    stop(f); /* a swtpm serves one client at a time */
    assert_int_equal(swtpm_sh(f->tpm,
                              "tpm2_nvdefine 0x01c0001e -C o -s 16 -p secret -a "
                              "'authread|authwrite|ownerwrite' && "
                              "printf 0123456789abcdef | tpm2_nvwrite 0x01c0001e -C o -i - && "
                              "tpm2_nvdefine 0x01c00100 -C o -s 16 -p secret -a "
                              "'authread|authwrite|ownerwrite' && "
                              "printf 0123456789abcdef | tpm2_nvwrite 0x01c00100 -C o -i -"),
                     0);
    for (int i = 0; i < 3; i++) {
        att_autojson *info = NULL;
        const json_t *tpm = NULL;
        start(f);
        read_tpm(f, &info, &tpm);
        stop(f);
        assert_int_equal(json_integer_value(json_object_get(tpm, "lockoutCounter")), 0);
        assert_true(skipped(tpm, "0x01c0001e"));
        assert_true(skipped(tpm, "0x01c00100"));
        assert_true(json_is_true(json_object_get(tpm, "ekCertificate")));
    }
    /* The TPM does count: what was kept from happening. */
    (void)!swtpm_sh(f->tpm, "tpm2_nvread 0x01c0001e -C 0x01c0001e -P wrong");
    att_autojson *info = NULL;
    const json_t *tpm = NULL;
    start(f);
    read_tpm(f, &info, &tpm);
    stop(f);
    assert_int_equal(json_integer_value(json_object_get(tpm, "lockoutCounter")), 1);
    assert_int_equal(swtpm_sh(f->tpm, "tpm2_dictionarylockout -c; tpm2_nvundefine 0x01c0001e -C o; "
                                      "tpm2_nvundefine 0x01c00100 -C o"),
                     0);
}

/* ---- another TPM --------------------------------------------------------------------------- */

/* tpm's socket is from now on that of another TPM. */
static void swap_state(struct swtpm *tpm, const struct swtpm *other)
{
    char command[900];
    struct att_err err = {0};
    swtpm_stop(tpm);
    put(command, sizeof command, "mv '%s/state' '%s/state.own' && cp -a '%s/state' '%s/state'",
        tpm->dir, tpm->dir, other->dir, tpm->dir);
    assert_int_equal(system(command), 0);
    assert_ok(swtpm_start(tpm, false, &err));
}

static void swap_back(struct swtpm *tpm)
{
    char command[900];
    struct att_err err = {0};
    swtpm_stop(tpm);
    put(command, sizeof command, "rm -rf '%s/state' && mv '%s/state.own' '%s/state'", tpm->dir,
        tpm->dir, tpm->dir);
    assert_int_equal(system(command), 0);
    assert_ok(swtpm_start(tpm, false, &err));
}

/* In the very process that made the host secret, where no record named the SRK at the start. */
static void a_tpm_swapped_under_the_first_keyd_is_foreign(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct swtpm other = {0};
    struct proc_key key, none;
    struct proc_identity id = {0};
    assert_ok(swtpm_new(&other, NULL, &err));
    swtpm_stop(&other);
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    swap_state(f->tpm, &other);
    enum att_rc rc = ATT_E_GONE;
    for (int i = 0; i < 1200 && rc == ATT_E_GONE; i++) {
        att_err_clear(&err);
        rc = proc_keyd_key_create(f->client, "b", "tpm", &none, &err);
        usleep(100000);
    }
    assert_int_equal(rc, ATT_E_DENIED);
    assert_string_equal(err.reason, "foreignTpm");
    att_err_clear(&err);
    wait_state(f->client, "foreignTpm");
    assert_refused(proc_keyd_identity(f->client, &id, &err), ATT_E_DENIED, "foreignTpm");
    assert_refused(proc_keyd_key_create(f->client, "b", "tpm", &none, &err), ATT_E_DENIED,
                   "foreignTpm");
    /* The right one again: nothing was spoilt. */
    stop(f);
    swap_back(f->tpm);
    start(f);
    att_autobuf der = {0};
    assert_ok(proc_keyd_key_csr(f->client, key.key_id, SPIFFE("a"), &der, &err));
    proc_key_done(&key);
    swtpm_done(&other);
}

int main(void)
{
    cmocka_set_test_filter(getenv("ATT_TEST_FILTER"));
    const struct CMUnitTest tests[] = {
        WITH_KEYD(no_guess_counts_as_an_attack),
        WITH_KEYD(a_tpm_swapped_under_the_first_keyd_is_foreign),
    };
    return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
