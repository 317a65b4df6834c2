/* keyd with sealing on: what a first start leaves in the TPM, and which of a folder's policies are
 * in force. */
#include "tests/unit/keyd/sealing.h"

/* Ended between NV_DefineSpace and NV_Increment, at the first start and at a recovery. */
static void a_counter_begun_is_finished(void **state)
{
    static const char *const begin[] = {"tpm2_nvdefine",
                                        "0x01804154",
                                        "-C",
                                        "o",
                                        "-s",
                                        "8",
                                        "-a",
                                        "authwrite|ownerread|no_da|nt=counter",
                                        NULL};
    static const char *const foreign[] = {"tpm2_nvdefine",
                                          "0x01804154",
                                          "-C",
                                          "o",
                                          "-s",
                                          "8",
                                          "-a",
                                          "ownerwrite|ownerread|no_da",
                                          NULL};
    static const char *const away[] = {"tpm2_nvundefine", "0x01804154", "-C", "o", NULL};
    struct sealed *s = *state;
    char why[512];
    struct parse_pcr_set good = pcrs_now(s);
    write_policy(s, &v1, &good);
    assert_int_equal(swtpm_tool(&s->tpm, foreign), 0);
    start_opts(&s->f, &s->opts, "failed"); /* counterTaken */
    why_sealed(&s->f, why);
    assert_non_null(strstr(why, "in use by something else"));
    stop(&s->f);
    assert_int_equal(swtpm_tool(&s->tpm, away), 0);
    assert_int_equal(swtpm_tool(&s->tpm, begin), 0);
    start_opts(&s->f, &s->opts, "ready");
    assert_int_equal(number(&s->f, "counter", "value"), 1);
    stop(&s->f);
    start_opts(&s->f, &s->opts, "ready");
    stop(&s->f);
    /* Recorded and begun: still for an operator, whose recovery defines it anew. */
    assert_int_equal(swtpm_tool(&s->tpm, away), 0);
    assert_int_equal(swtpm_tool(&s->tpm, begin), 0);
    start_opts(&s->f, &s->opts, "sealed");
    json_int_t reset = number(&s->f, "now", "resetCount");
    write_policy(s,
                 &(struct spec){.file = "r.json",
                                .version = 1,
                                .recovery = true,
                                .reset_count = (uint32_t)reset,
                                .not_after = 4102444800},
                 &good);
    struct att_err err = {0};
    assert_ok(keyd_reload_policies(s->f.keyd, &err));
    wait_state(s->f.client, "ready");
    assert_true(number(&s->f, "counter", "value") == 2);
}

static bool counter_defined(const struct sealed *s)
{
    static const char *const look[] = {"tpm2_nvreadpublic", "0x01804154", NULL};
    return swtpm_tool(&s->tpm, look) == 0;
}

/* Each retry of a first start in a boot that is not approved leaves the TPM's NV alone. */
static void retries_wear_no_counter(void **state)
{
    struct sealed *s = *state;
    struct att_err err = {0};
    struct parse_pcr_set good = pcrs_now(s);
    write_policy(s, &v1, &good);
    extend16(s);
    start_opts(&s->f, &s->opts, "sealed");
    for (int i = 0; i < 3; i++) {
        assert_ok(keyd_reload_policies(s->f.keyd, &err));
        usleep(400000);
    }
    wait_state(s->f.client, "sealed");
    stop(&s->f);
    assert_false(counter_defined(s));
    assert_false(exists(&s->f, "host.pem"));
    reset16(s);
    start_opts(&s->f, &s->opts, "ready");
    assert_int_equal(number(&s->f, "counter", "value"), 1);
}

/* Nor where the counter starts above the policy's version: then it is kept for the policy that
 * reaches it, and so is the secret that its authValue is derived from. */
static void retries_keep_their_counter(void **state)
{
    struct sealed *s = *state;
    struct att_err err = {0};
    struct parse_pcr_set good = pcrs_now(s);
    char why[512];
    /* This TPM counted to 2 once. */
    write_policy(s, &(struct spec){.file = "a.json", .version = 2, .counter = INDEX}, &good);
    start_opts(&s->f, &s->opts, "ready");
    assert_int_equal(number(&s->f, "counter", "value"), 2);
    stop(&s->f);
    remove_folder(s->f.dir);
    write_policy(s, &v1, &good);
    start_opts(&s->f, &s->opts, "sealed");
    for (int i = 0; i < 3; i++) {
        assert_ok(keyd_reload_policies(s->f.keyd, &err));
        usleep(400000);
    }
    why_sealed(&s->f, why);
    assert_non_null(strstr(why, "is older than"));
    assert_int_equal(number(&s->f, "counter", "value"), 3);
    write_policy(s, &(struct spec){.file = "b.json", .version = 4, .counter = INDEX}, &good);
    assert_ok(keyd_reload_policies(s->f.keyd, &err));
    wait_state(s->f.client, "ready");
    assert_int_equal(number(&s->f, "counter", "value"), 4); /* its authValue was right */
    stop(&s->f);
    start_opts(&s->f, &s->opts, "ready");
}

/* What one file asks for takes no host down that another would open. */
static void a_policy_of_another_bank_is_passed_over(void **state)
{
    struct sealed *s = *state;
    struct parse_pcr_set good = pcrs_now(s);
    struct parse_pcr_set other = {.sel = {PARSE_ALG_SHA512, good.sel.mask}, .digest_len = 64};
    struct att_err err = {0};
    char seen[64];
    write_policy(s, &(struct spec){.file = "z.json", .version = 2, .counter = INDEX}, &other);
    start_opts(&s->f, &s->opts, "sealed"); /* policyMissing, and not failed */
    file_state(&s->f, "z.json", seen);
    assert_string_equal(seen, "policyBank");
    write_policy(s, &v1, &good);
    assert_ok(keyd_reload_policies(s->f.keyd, &err));
    wait_state(s->f.client, "ready");
    assert_int_equal(number(&s->f, "by", "version"), 1);
    assert_ok(keyd_reload_policies(s->f.keyd, &err));
    file_state(&s->f, "a.json", seen);
    assert_string_equal(seen, "ok");
}

static void too_many_boots_leave_the_oldest_out(void **state)
{
    struct sealed *s = *state;
    struct parse_pcr_set good = pcrs_now(s), elsewhere = good;
    char name[32], seen[64];
    memset(elsewhere.value[7], 0xee, sizeof elsewhere.value[7]);
    for (uint32_t i = 1; i <= 6; i++) {
        put(name, sizeof name, "p%u.json", i);
        write_policy(s, &(struct spec){.file = name, .version = i, .counter = INDEX, .boots = 64},
                     i == 4 ? &good : &elsewhere);
    }
    write_policy(s,
                 &(struct spec){.file = "r.json",
                                .version = 1,
                                .recovery = true,
                                .reset_count = 7,
                                .not_after = 4102444800},
                 &elsewhere);
    start_opts(&s->f, &s->opts, "ready");
    assert_int_equal(number(&s->f, "by", "version"), 4);
    static const char *const want[] = {
        "policyLeftOut", "policyLeftOut", "policyLeftOut", "ok", "ok", "ok"};
    for (unsigned i = 1; i <= 6; i++) {
        put(name, sizeof name, "p%u.json", i);
        file_state(&s->f, name, seen);
        assert_string_equal(seen, want[i - 1]);
    }
    file_state(&s->f, "r.json", seen);
    assert_string_equal(seen, "ok");
}

static void many_files_hide_no_newer_one(void **state)
{
    struct sealed *s = *state;
    struct parse_pcr_set good = pcrs_now(s), elsewhere = good;
    char name[32], seen[64];
    memset(elsewhere.value[7], 0xee, sizeof elsewhere.value[7]);
    for (uint32_t i = 0; i < 40; i++) {
        put(name, sizeof name, "a%02u.json", i);
        write_policy(s, &(struct spec){.file = name, .version = 100 + i, .counter = INDEX},
                     &elsewhere);
    }
    write_policy(s, &(struct spec){.file = "z.json", .version = 200, .counter = INDEX}, &good);
    start_opts(&s->f, &s->opts, "ready");
    assert_int_equal(number(&s->f, "by", "version"), 200);
    assert_int_equal(number(&s->f, "policyFiles", NULL), 41);
    json_t *json = sealing(&s->f);
    assert_int_equal(json_array_size(json_object_get(json, "policies")), 32);
    json_decref(json);
    file_state(&s->f, "a39.json", seen); /* the fifteen newest beside it */
    assert_string_equal(seen, "ok");
    file_state(&s->f, "a25.json", seen);
    assert_string_equal(seen, "ok");
    file_state(&s->f, "a00.json", seen);
    assert_string_equal(seen, "policyLeftOut");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_TPM(a_counter_begun_is_finished),
        WITH_TPM(retries_wear_no_counter),
        WITH_TPM(retries_keep_their_counter),
        WITH_TPM(a_policy_of_another_bank_is_passed_over),
        WITH_TPM(too_many_boots_leave_the_oldest_out),
        WITH_TPM(many_files_hide_no_newer_one),
    };
    cmocka_set_test_filter(getenv("SEAL_ONLY"));
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
