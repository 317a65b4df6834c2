/* keyd with sealing on: other boots, policies that come and go, the counter, the move of a host
 * that was not sealed, kills in the middle of it. */
#include "tests/unit/keyd/sealing.h"

#include "attestd/keyd/internal.h"

/* ---- refusals ------------------------------------------------------------------------------ */

static void another_boot_signs_nothing(void **state)
{
    struct sealed *s = *state;
    struct att_err err = {0};
    struct proc_key key = {0};
    struct proc_account account = {0};
    char id[PROC_KEY_ID_LEN + 1], why[512];
    struct parse_pcr_set good = pcrs_now(s);
    write_policy(s, &v1, &good);
    start_opts(&s->f, &s->opts, "ready");
    make_key(&s->f, "alpha", id);
    assert_ok(signs(&s->f, id, SPIFFE("alpha"), &err));
    stop(&s->f);
    extend16(s);
    start_opts(&s->f, &s->opts, "sealed");
    why_sealed(&s->f, why);
    assert_non_null(strstr(why, "pcr16 is "));
    assert_null(strstr(why, "pcr7 "));
    assert_refused(signs(&s->f, id, SPIFFE("alpha"), &err), ATT_E_DENIED, "bootSealed");
    assert_refused(proc_keyd_account(s->f.client, &account, &err), ATT_E_DENIED, "bootSealed");
    assert_refused(proc_keyd_key_create(s->f.client, "alpha", "tpm", &key, &err), ATT_E_DENIED,
                   "bootSealed");
    /* Nor one that is in no TPM. */
    assert_refused(proc_keyd_key_create(s->f.client, "alpha", "memory", &key, &err), ATT_E_DENIED,
                   "bootSealed");
    /* What a recovery would have to be signed for. */
    json_t *json = sealing(&s->f);
    assert_true(json_is_integer(json_object_get(json_object_get(json, "now"), "resetCount")));
    json_decref(json);
    /* A new policy, while keyd runs: the same key. */
    stop(&s->f);
    struct parse_pcr_set bad = pcrs_now(s);
    start_opts(&s->f, &s->opts, "sealed");
    write_policy(s, &(struct spec){.file = "b.json", .version = 2, .counter = INDEX}, &bad);
    assert_ok(keyd_reload_policies(s->f.keyd, &err));
    wait_state(s->f.client, "ready");
    assert_ok(signs(&s->f, id, SPIFFE("alpha"), &err));
    assert_int_equal(number(&s->f, "by", "version"), 2);
    assert_int_equal(number(&s->f, "counter", "value"), 2);
    stop(&s->f);
    /* The old kernel with the old policy, which was good enough once. */
    reset16(s);
    start_opts(&s->f, &s->opts, "sealed");
    assert_refused(signs(&s->f, id, SPIFFE("alpha"), &err), ATT_E_DENIED, "policyCounter");
}

static void assert_cause(struct fixture *f, const char *word)
{
    att_autojson *info = NULL;
    struct att_err err = {0};
    assert_ok(proc_keyd_info(f->client, &info, &err));
    const char *cause = json_string_value(json_object_get(info, "cause"));
    assert_non_null(cause);
    assert_string_equal(cause, word);
}

static void no_good_policy_no_keys(void **state)
{
    struct sealed *s = *state;
    struct att_err err = {0};
    struct parse_pcr_set good = pcrs_now(s);
    att_autobuf text = {0};
    char seen[64], path[300], id[PROC_KEY_ID_LEN + 1];
    struct proc_account account = {0};
    /* None at all, then only bad ones. */
    start_opts(&s->f, &s->opts, "sealed");
    assert_refused(proc_keyd_account(s->f.client, &account, &err), ATT_E_DENIED, "policyMissing");
    write_policy(s, &(struct spec){.file = "b.json", .version = 1, .by_stranger = true}, &good);
    write_policy(s, &(struct spec){.file = "c.json", .version = 1, .not_after = 1700000000}, &good);
    write_policy(s, &v1, &good);
    put(path, sizeof path, "%s/a.json", s->policies);
    assert_ok(att_io_read_file(path, 65536, &text, &err));
    remove_policy(s, "a.json");
    put(path, sizeof path, "%s/d.json", s->policies); /* cut */
    assert_ok(att_io_write_file(path, ATT_SLICE(text.ptr, text.len / 2), 0644, &err));
    uint8_t *version = memmem(text.ptr, text.len, "\"version\": 1", 12);
    assert_non_null(version);
    version[11] = '9';
    put(path, sizeof path, "%s/e.json", s->policies); /* edited */
    assert_ok(att_io_write_file(path, att_buf_slice(&text), 0644, &err));
    assert_ok(keyd_reload_policies(s->f.keyd, &err));
    for (int i = 0; i < 1200; i++) {
        file_state(&s->f, "e.json", seen);
        if (strcmp(seen, "not listed") != 0) {
            break;
        }
        usleep(50000);
    }
    assert_string_equal(seen, "policySignature");
    file_state(&s->f, "b.json", seen);
    assert_string_equal(seen, "policyKey");
    file_state(&s->f, "c.json", seen);
    assert_string_equal(seen, "policyExpired");
    file_state(&s->f, "d.json", seen);
    assert_string_equal(seen, "parse");
    assert_refused(proc_keyd_account(s->f.client, &account, &err), ATT_E_DENIED, "policyMissing");
    write_policy(s, &v1, &good);
    assert_ok(keyd_reload_policies(s->f.keyd, &err));
    wait_state(s->f.client, "ready");
    make_key(&s->f, "alpha", id);
    assert_ok(signs(&s->f, id, SPIFFE("alpha"), &err));
    /* A host that counts takes no policy that does not. */
    write_policy(s, &(struct spec){.file = "f.json", .version = 5}, &good);
    assert_ok(keyd_reload_policies(s->f.keyd, &err));
    file_state(&s->f, "f.json", seen);
    assert_string_equal(seen, "policyCounterNone");
    write_policy(s, &(struct spec){.file = "g.json", .version = 6, .counter = v1.counter + 1},
                 &good);
    assert_ok(keyd_reload_policies(s->f.keyd, &err));
    file_state(&s->f, "g.json", seen);
    assert_string_equal(seen, "policyCounterIndex");
    /* Nor does sealing end because a line is left out, or change. */
    stop(&s->f);
    struct keyd_opts other = s->opts;
    other.sealing = (struct keyd_sealing){0};
    start_opts(&s->f, &other, "failed");
    stop(&s->f);
    other.sealing = (struct keyd_sealing){.mode = KEYD_PCR_7};
    start_opts(&s->f, &other, "failed");
    assert_cause(&s->f, "sealingMode");
    stop(&s->f);
    other.sealing = s->opts.sealing;
    other.sealing.policy_ref = "attestd/other";
    start_opts(&s->f, &other, "failed");
    stop(&s->f);
    start_opts(&s->f, &s->opts, "ready");
    assert_ok(signs(&s->f, id, SPIFFE("alpha"), &err));
}

static void a_lost_counter_needs_a_recovery(void **state)
{
    struct sealed *s = *state;
    struct att_err err = {0};
    struct parse_pcr_set good = pcrs_now(s);
    char id[PROC_KEY_ID_LEN + 1], why[512];
    write_policy(s, &v1, &good);
    start_opts(&s->f, &s->opts, "ready");
    make_key(&s->f, "alpha", id);
    stop(&s->f);
    assert_int_equal(swtpm_tool(&s->tpm, (const char *const[]){"tpm2_nvundefine", "0x01804154",
                                                               "-C", "o", NULL}),
                     0);
    start_opts(&s->f, &s->opts, "sealed");
    assert_refused(signs(&s->f, id, SPIFFE("alpha"), &err), ATT_E_DENIED, "counterMissing");
    json_int_t reset = number(&s->f, "now", "resetCount");
    /* For another boot; then for this one. */
    write_policy(s,
                 &(struct spec){.file = "r.json",
                                .version = 1,
                                .recovery = true,
                                .reset_count = (uint32_t)reset + 1,
                                .not_after = 4102444800},
                 &good);
    assert_ok(keyd_reload_policies(s->f.keyd, &err));
    for (int i = 0; i < 1200; i++) {
        why_sealed(&s->f, why);
        if (strstr(why, "resetCount")) {
            break;
        }
        usleep(50000);
    }
    assert_refused(signs(&s->f, id, SPIFFE("alpha"), &err), ATT_E_DENIED, "recoveryOver");
    write_policy(s,
                 &(struct spec){.file = "r.json",
                                .version = 1,
                                .recovery = true,
                                .reset_count = (uint32_t)reset,
                                .not_after = 4102444800},
                 &good);
    assert_ok(keyd_reload_policies(s->f.keyd, &err));
    wait_state(s->f.client, "ready");
    assert_ok(signs(&s->f, id, SPIFFE("alpha"), &err));
    json_t *json = sealing(&s->f);
    assert_true(json_is_true(json_object_get(json_object_get(json, "by"), "recovery")));
    json_decref(json);
    /* Defined anew it stands above version 1, which is over. */
    assert_true(number(&s->f, "counter", "value") == 2);
    stop(&s->f);
    remove_policy(s, "r.json");
    start_opts(&s->f, &s->opts, "sealed");
    write_policy(s, &(struct spec){.file = "b.json", .version = 2, .counter = INDEX}, &good);
    assert_ok(keyd_reload_policies(s->f.keyd, &err));
    wait_state(s->f.client, "ready");
    assert_ok(signs(&s->f, id, SPIFFE("alpha"), &err));
}

static void a_leap_of_versions_is_told(void **state)
{
    struct sealed *s = *state;
    struct parse_pcr_set good = pcrs_now(s);
    write_policy(s, &(struct spec){.file = "a.json", .version = 20261128, .counter = INDEX}, &good);
    start_opts(&s->f, &s->opts, "ready");
    assert_int_equal(number(&s->f, "counter", "value"), 1);
    assert_int_equal(number(&s->f, "by", "version"), 20261128);
}

static void by_pcr_7(void **state)
{
    struct sealed *s = *state;
    struct att_err err = {0};
    char id[PROC_KEY_ID_LEN + 1];
    s->opts.sealing = (struct keyd_sealing){.mode = KEYD_PCR_7};
    start_opts(&s->f, &s->opts, "ready");
    make_key(&s->f, "alpha", id);
    stop(&s->f);
    start_opts(&s->f, &s->opts, "ready");
    assert_ok(signs(&s->f, id, SPIFFE("alpha"), &err));
    stop(&s->f);
    assert_int_equal(
        swtpm_tool(&s->tpm,
                   (const char *const[]){
                       "tpm2_pcrextend",
                       "7:sha256=00000000000000000000000000000000000000000000000000000000000000aa",
                       NULL}),
        0);
    start_opts(&s->f, &s->opts, "sealed");
    assert_refused(signs(&s->f, id, SPIFFE("alpha"), &err), ATT_E_DENIED, "bootSealed");
    stop(&s->f);
    assert_ok(swtpm_reset(&s->tpm, &err));
    start_opts(&s->f, &s->opts, "ready");
    assert_ok(signs(&s->f, id, SPIFFE("alpha"), &err));
}

/* ---- the move ------------------------------------------------------------------------------ */

static void start_unsealed(struct sealed *s)
{
    const struct keyd_opts plain = options(&s->f);
    start_opts(&s->f, &plain, "ready");
}

static void a_host_moves_in(void **state)
{
    struct sealed *s = *state;
    struct att_err err = {0};
    struct parse_pcr_set good = pcrs_now(s);
    struct proc_account before = {0}, after = {0};
    struct proc_key spare = {0}, fresh = {0};
    char id[PROC_KEY_ID_LEN + 1], pem[64];
    start_unsealed(s);
    assert_ok(proc_keyd_account(s->f.client, &before, &err));
    make_key(&s->f, "alpha", id);
    assert_ok(proc_keyd_key_create(s->f.client, "alpha", "tpm", &spare, &err));
    stop(&s->f);
    assert_false(exists(&s->f, "parent.pem"));
    assert_true(same_parent(&s->f, "host.pem", "account.pem"));

    write_policy(s, &v1, &good);
    start_opts(&s->f, &s->opts, "ready");
    /* The account is the same, the key in use still signs, where it stands. */
    assert_ok(proc_keyd_account(s->f.client, &after, &err));
    assert_string_equal(before.thumbprint, after.thumbprint);
    assert_ok(signs(&s->f, id, SPIFFE("alpha"), &err));
    assert_int_equal(number(&s->f, "keysOutside", NULL), 1);
    put(pem, sizeof pem, "agents/%s.pem", id);
    assert_true(same_parent(&s->f, "host.pem", "account.pem"));
    assert_true(same_parent(&s->f, pem, "parent.pem")); /* the SRK */
    assert_false(same_parent(&s->f, pem, "host.pem"));
    /* The one made ahead is given up; the next is made within. */
    struct proc_key *list = NULL;
    size_t count = 0;
    assert_ok(proc_keyd_key_list(s->f.client, &list, &count, &err));
    assert_int_equal(count, 1);
    proc_keys_free(list, count);
    assert_ok(proc_keyd_key_create(s->f.client, "alpha", "tpm", &fresh, &err));
    put(pem, sizeof pem, "agents/%s.pem", fresh.key_id);
    assert_true(same_parent(&s->f, pem, "host.pem"));
    assert_int_equal(number(&s->f, "keysOutside", NULL), 1);
    assert_true(number(&s->f, "counter", "value") == 1);
    /* And its evidence names its parent. */
    char authz[128];
    att_autobuf cbor = {0};
    struct proc_key_evidence evidence = {0};
    key_authorization(&s->f, authz);
    statement(&fresh, SPIFFE("alpha"), &cbor);
    assert_ok(proc_keyd_key_evidence(s->f.client, fresh.key_id, authz, att_buf_slice(&cbor),
                                     SELECTION, &evidence, &err));
    uint8_t want[PARSE_POLICY_LEN];
    struct parse_public pub;
    struct parse_name name;
    assert_ok(parse_seal_policy_key(policy_key, &pub, &err));
    assert_ok(parse_public_name(&pub, &name, &err));
    parse_seal_authorize(&name, att_slice_str(REF), want);
    assert_ok(parse_public_parse(att_buf_slice(&evidence.parent_pub), &pub, &err));
    assert_memory_equal(pub.policy, want, sizeof want);
    proc_key_evidence_done(&evidence);
    /* Nothing of the unsealed host opens in another boot. */
    stop(&s->f);
    extend16(s);
    start_opts(&s->f, &s->opts, "sealed");
    assert_refused(signs(&s->f, id, SPIFFE("alpha"), &err), ATT_E_DENIED, "bootSealed");
    proc_account_done(&before);
    proc_account_done(&after);
    proc_key_done(&spare);
    proc_key_done(&fresh);
}

/* SIGKILL at some instant of the first start with sealing on, then the next start: as if nothing
 * had been. SEAL_KILLS: how many. */
static void a_kill_in_the_middle_of_the_move(void **state)
{
    struct sealed *s = *state;
    struct att_err err = {0};
    struct proc_account before = {0}, after = {0};
    char id[PROC_KEY_ID_LEN + 1], saved[300], command[700];
    const char *wanted = getenv("SEAL_KILLS");
    unsigned n = wanted ? (unsigned)strtoul(wanted, NULL, 10) : 8, moved = 0;
    struct parse_pcr_set good = pcrs_now(s);
    start_unsealed(s);
    assert_ok(proc_keyd_account(s->f.client, &before, &err));
    make_key(&s->f, "alpha", id);
    stop(&s->f);
    put(saved, sizeof saved, "%s/saved", s->f.base);
    put(command, sizeof command, "cp -a '%s' '%s'", s->f.dir, saved);
    assert_int_equal(system(command), 0);
    for (unsigned i = 0; i < n; i++) {
        put(command, sizeof command, "rm -rf '%s'; cp -a '%s' '%s'", s->f.dir, saved, s->f.dir);
        assert_int_equal(system(command), 0);
        /* The folder goes back to what it was, the TPM's counter does not. */
        write_policy(s, &(struct spec){.file = "a.json", .version = i + 1, .counter = INDEX},
                     &good);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            struct keyd *keyd = NULL;
            if (keyd_new(&s->opts, &keyd, &err) != ATT_OK || keyd_start(keyd, &err) != ATT_OK) {
                _exit(3);
            }
            pause();
            _exit(0);
        }
        usleep(15000 + i * 250000 / n);
        assert_int_equal(kill(child, SIGKILL), 0);
        assert_int_equal(waitpid(child, NULL, 0), child);
        moved += exists(&s->f, "parent.json") && !same_parent(&s->f, "host.pem", "parent.pem");
        start_opts(&s->f, &s->opts, "ready");
        assert_ok(proc_keyd_account(s->f.client, &after, &err));
        assert_string_equal(before.thumbprint, after.thumbprint);
        assert_ok(signs(&s->f, id, SPIFFE("alpha"), &err));
        proc_account_done(&after);
        stop(&s->f);
        assert_false(same_parent(&s->f, "host.pem", "parent.pem"));
        assert_true(same_parent(&s->f, "host.pem", "account.pem"));
    }
    fprintf(stderr, "  %u kills, %u of them after the host secret had moved\n", n, moved);
    proc_account_done(&before);
}

/* The authValue that this host's counter has, by its host secret; keyd runs. */
static void counter_auth(const struct fixture *f, uint8_t ret[TPM_KEY_AUTH_LEN])
{
    struct att_err err = {0};
    assert_ok(tpm_key_auth_derive(att_secret_slice(&f->keyd->host_secret),
                                  ATT_SLICE_LIT("policy-counter/1"), ret, &err));
}

/* As tpm_counter_define leaves it, or, not incremented, an end in the middle of it. */
static void leave_counter(const struct sealed *s, struct att_slice auth, bool incremented)
{
    char value[5 + 2 * TPM_KEY_AUTH_LEN] = "hex:";
    struct tpm_context *ctx = NULL;
    struct att_err err = {0};
    const struct tpm_options options = {.tcti = s->tpm.tcti};
    if (incremented) {
        assert_ok(tpm_context_open(&options, &ctx, &err));
        assert_ok(tpm_counter_define(ctx, INDEX, auth, &err));
        tpm_context_free(ctx);
        return;
    }
    att_hex(value + 4, auth);
    assert_int_equal(swtpm_tool(&s->tpm, (const char *const[]){"tpm2_nvdefine", "0x01804154", "-C",
                                                               "o", "-s", "8", "-a",
                                                               "authwrite|ownerread|no_da|"
                                                               "nt=counter",
                                                               "-p", value, NULL}),
                     0);
}

/* The files as they were before the host moved in. */
static void put_back(const struct sealed *s, const char *saved, const char *files)
{
    char command[900];
    put(command, sizeof command, "cd '%s' && cp -a %s '%s'", saved, files, s->f.dir);
    assert_int_equal(system(command), 0);
}

/* Power cuts while the counter is made, one for each step: a first policy of version 1 opens. */
static void a_cut_costs_no_step_of_the_counter(void **state)
{
    static const struct {
        const char *what;
        bool incremented, recorded;
    } cuts[] = {{"defined, not incremented", false, false},
                {"incremented, not recorded", true, false},
                {"recorded, the host secret not moved", true, true}};
    struct sealed *s = *state;
    struct parse_pcr_set good = pcrs_now(s);
    uint8_t auth[TPM_KEY_AUTH_LEN];
    char id[PROC_KEY_ID_LEN + 1], saved[300], command[700];
    struct att_err err = {0};
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        fprintf(stderr, "  %s\n", cuts[i].what);
        if (i) { /* a TPM that never had a counter */
            assert_int_equal(teardown(state), 0);
            assert_int_equal(setup(state), 0);
            s = *state;
        }
        start_unsealed(s);
        make_key(&s->f, "alpha", id);
        counter_auth(&s->f, auth);
        stop(&s->f);
        put(saved, sizeof saved, "%s/saved", s->f.base);
        put(command, sizeof command, "cp -a '%s' '%s'", s->f.dir, saved);
        assert_int_equal(system(command), 0);
        write_policy(s, &v1, &good);
        if (cuts[i].recorded) {
            start_opts(&s->f, &s->opts, "ready");
            stop(&s->f);
            put_back(s, saved, "host.pem");
        } else {
            leave_counter(s, ATT_SLICE_ARRAY(auth), cuts[i].incremented);
        }
        start_opts(&s->f, &s->opts, "ready");
        assert_int_equal(number(&s->f, "counter", "value"), 1);
        assert_ok(signs(&s->f, id, SPIFFE("alpha"), &err));
        /* It is one that keyd can raise. */
        write_policy(s, &(struct spec){.file = "a.json", .version = 2, .counter = INDEX}, &good);
        assert_ok(keyd_reload_policies(s->f.keyd, &err));
        assert_int_equal(number(&s->f, "counter", "value"), 2);
        stop(&s->f);
    }
}

/* Made by somebody who had the owner's authorisation and not our authValue, before the host moves
 * in: keyd could never raise it, so it is defined anew, which is a step higher. */
static void a_strangers_counter_is_not_adopted(void **state)
{
    struct sealed *s = *state;
    struct att_err err = {0};
    struct parse_pcr_set good = pcrs_now(s);
    char id[PROC_KEY_ID_LEN + 1];
    start_unsealed(s);
    make_key(&s->f, "alpha", id);
    stop(&s->f);
    leave_counter(s, ATT_SLICE_LIT("a stranger's"), true);
    write_policy(s, &v1, &good);
    start_opts(&s->f, &s->opts, "sealed");
    assert_refused(signs(&s->f, id, SPIFFE("alpha"), &err), ATT_E_DENIED, "policyCounter");
    write_policy(s, &(struct spec){.file = "b.json", .version = 3, .counter = INDEX}, &good);
    assert_ok(keyd_reload_policies(s->f.keyd, &err));
    wait_state(s->f.client, "ready");
    assert_int_equal(number(&s->f, "counter", "value"), 3);
    assert_ok(signs(&s->f, id, SPIFFE("alpha"), &err));
}

/* Files that a cut or a hand left. */
static void damaged_files_are_refused(void **state)
{
    struct sealed *s = *state;
    struct att_err err = {0};
    struct parse_pcr_set good = pcrs_now(s);
    char id[PROC_KEY_ID_LEN + 1], from[300], to[300];
    write_policy(s, &v1, &good);
    start_opts(&s->f, &s->opts, "ready");
    make_key(&s->f, "alpha", id);
    stop(&s->f);
    /* Tickets are for speed: none, or bad ones, only cost a verification. */
    overwrite(&s->f, "tickets.json", "{");
    start_opts(&s->f, &s->opts, "ready");
    assert_true(exists(&s->f, "tickets.json.bad"));
    assert_true(exists(&s->f, "tickets.json"));
    stop(&s->f);
    /* Without the parent, or the record of it, nothing is made in its place. */
    file_path(&s->f, "parent.pem", from);
    file_path(&s->f, "kept", to);
    assert_int_equal(rename(from, to), 0);
    start_opts(&s->f, &s->opts, "failed");
    stop(&s->f);
    assert_false(exists(&s->f, "parent.pem"));
    assert_int_equal(rename(to, from), 0);
    file_path(&s->f, "parent.json", from);
    assert_int_equal(rename(from, to), 0);
    start_opts(&s->f, &s->opts, "failed");
    stop(&s->f);
    assert_false(exists(&s->f, "parent.json"));
    assert_int_equal(rename(to, from), 0);
    start_opts(&s->f, &s->opts, "ready");
    assert_ok(signs(&s->f, id, SPIFFE("alpha"), &err));
    stop(&s->f);
    overwrite(&s->f, "parent.json", "{\"version\":1,\"pcr\":\"signed\",\"more\":1}");
    start_opts(&s->f, &s->opts, "failed");
    stop(&s->f);
    assert_true(exists(&s->f, "parent.json.bad"));
    start_opts(&s->f, &s->opts, "failed"); /* and not made anew */
}

static void a_cleared_tpm_is_foreign(void **state)
{
    struct sealed *s = *state;
    struct parse_pcr_set good = pcrs_now(s);
    write_policy(s, &v1, &good);
    start_opts(&s->f, &s->opts, "ready");
    stop(&s->f);
    assert_int_equal(swtpm_tool(&s->tpm, (const char *const[]){"tpm2_clear", "-c", "p", NULL}), 0);
    start_opts(&s->f, &s->opts, "foreignTpm");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_TPM(another_boot_signs_nothing),
        WITH_TPM(no_good_policy_no_keys),
        WITH_TPM(a_lost_counter_needs_a_recovery),
        WITH_TPM(a_leap_of_versions_is_told),
        WITH_TPM(by_pcr_7),
        WITH_TPM(a_host_moves_in),
        WITH_TPM(a_kill_in_the_middle_of_the_move),
        WITH_TPM(a_cut_costs_no_step_of_the_counter),
        WITH_TPM(a_strangers_counter_is_not_adopted),
        WITH_TPM(damaged_files_are_refused),
        WITH_TPM(a_cleared_tpm_is_foreign),
    };
    cmocka_set_test_filter(getenv("SEAL_ONLY"));
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
