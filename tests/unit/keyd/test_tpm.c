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

int main(void)
{
    cmocka_set_test_filter(getenv("ATT_TEST_FILTER"));
    const struct CMUnitTest tests[] = {
        WITH_KEYD(no_guess_counts_as_an_attack),
    };
    return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
