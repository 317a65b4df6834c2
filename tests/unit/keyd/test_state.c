/* keyd's folder and its TPM under bad luck: two processes, another TPM, damaged files, a TPM that
 * goes and comes, kill -9 at any instant. */
#include "tests/unit/keyd/common.h"

#include "attestd/keyd/internal.h"
#include "certs/csr.h"

#include <dirent.h>
#include <signal.h>
#include <sys/prctl.h>

static void copy_state(const struct fixture *from, const struct fixture *to)
{
    char command[512];
    put(command, sizeof command, "cp -a '%s' '%s'", from->dir, to->dir);
    assert_int_equal(system(command), 0);
}

static bool reported_bad(struct fixture *f, const char *name)
{
    att_autojson *info = NULL;
    struct att_err err = {0};
    bool found = false;
    assert_ok(proc_keyd_info(f->client, &info, &err));
    const json_t *bad = json_object_get(info, "bad");
    for (size_t i = 0; i < json_array_size(bad); i++) {
        found = found || strstr(json_string_value(json_array_get(bad, i)), name);
    }
    return found;
}

/* ---- one folder, one keyd, one TPM --------------------------------------------------------- */

static void second_keyd_is_refused(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct keyd *second = NULL;
    struct keyd_opts opts = options(f);
    char elsewhere[200];
    put(elsewhere, sizeof elsewhere, "%s/other.sock", f->base);
    opts.socket_path = elsewhere;
    assert_int_equal(keyd_new(&opts, &second, &err), ATT_E_CONFLICT);
    assert_non_null(strstr(err.msg, "another keyd"));
    assert_null(second);
    wait_state(f->client, "ready");
}

static void another_tpm_opens_nothing(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key, none;
    struct swtpm other;
    att_autobuf host = {0}, account = {0}, again = {0};
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    char authz[128];
    key_authorization(f, authz);
    struct fixture thief = {.tpm = &other};
    make_folder(&thief);
    copy_state(f, &thief);
    read_whole(&thief, "host.pem", &host);
    read_whole(&thief, "account.pem", &account);
    assert_ok(swtpm_new(&other, NULL, &err));
    const struct keyd_opts opts = options(&thief);
    start_opts(&thief, &opts, "foreignTpm");
    att_autojson *info = NULL;
    assert_ok(proc_keyd_info(thief.client, &info, &err));
    const char *reason = json_string_value(json_object_get(info, "reason"));
    assert_non_null(reason);
    assert_non_null(strstr(reason, "sealed in another TPM"));
    struct proc_account acc;
    struct proc_key_evidence ev;
    struct proc_identity id;
    uint8_t sig[64];
    att_autobuf der = {0}, cbor = {0};
    statement(&key, SPIFFE("a"), &cbor);
    assert_refused(proc_keyd_account(thief.client, &acc, &err), ATT_E_DENIED, "foreignTpm");
    assert_refused(
        proc_keyd_account_sign(thief.client, ATT_SLICE_LIT("{}"), (struct att_slice){0}, sig, &err),
        ATT_E_DENIED, "foreignTpm");
    assert_refused(proc_keyd_identity(thief.client, &id, &err), ATT_E_DENIED, "foreignTpm");
    assert_refused(proc_keyd_key_create(thief.client, "a", "tpm", &none, &err), ATT_E_DENIED,
                   "foreignTpm");
    assert_refused(proc_keyd_key_csr(thief.client, key.key_id, SPIFFE("a"), &der, &err),
                   ATT_E_DENIED, "foreignTpm");
    assert_refused(proc_keyd_key_evidence(thief.client, key.key_id, authz, att_buf_slice(&cbor),
                                          SELECTION, &ev, &err),
                   ATT_E_DENIED, "foreignTpm");
    stop(&thief);
    /* Nothing was made anew over what is sealed elsewhere. */
    read_whole(&thief, "host.pem", &again);
    assert_true(att_slice_eq(att_buf_slice(&host), att_buf_slice(&again)));
    att_buf_reset(&again);
    read_whole(&thief, "account.pem", &again);
    assert_true(att_slice_eq(att_buf_slice(&account), att_buf_slice(&again)));
    proc_keyd_free(thief.client);
    swtpm_done(&other);
    remove_folder(thief.base);
    proc_key_done(&key);
}

static void account_and_keys_survive_a_restart(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_account before, after;
    struct proc_key key;
    struct certs_csr csr;
    att_autobuf der = {0};
    assert_ok(proc_keyd_account(f->client, &before, &err));
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    stop(f);
    assert_ok(swtpm_reset(f->tpm, &err)); /* a reboot */
    start(f);
    assert_ok(proc_keyd_account(f->client, &after, &err));
    assert_string_equal(before.thumbprint, after.thumbprint);
    assert_ok(proc_keyd_key_csr(f->client, key.key_id, SPIFFE("a"), &der, &err));
    assert_ok(certs_csr_verify(att_buf_slice(&der), SPIFFE("a"), &csr, &err));
    proc_account_done(&before);
    proc_account_done(&after);
    proc_key_done(&key);
}

static void no_secret_is_on_disk(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_account account;
    struct proc_key key;
    char command[400];
    assert_ok(proc_keyd_account(f->client, &account, &err));
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    const struct att_secret *secrets[] = {&f->keyd->host_secret, &f->keyd->account_priv};
    for (size_t i = 0; i < 2; i++) {
        char hex[65];
        assert_int_equal(secrets[i]->len, 32);
        assert_true(secrets[i]->locked);
        att_hex(hex, att_secret_slice(secrets[i]));
        put(command, sizeof command,
            "cd '%s' && test -z \"$(find . -type f -size +0 -exec sh -c 'xxd -p \"$1\" | tr -d "
            "\"\\n\" | grep -l %s' _ {} \\;)\"",
            f->dir, hex);
        assert_int_equal(system(command), 0);
    }
    proc_account_done(&account);
    proc_key_done(&key);
}

/* ---- damaged files ------------------------------------------------------------------------- */

static void damaged_key_files_are_set_aside(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key keys[4], *list = NULL;
    size_t count = 0;
    char name[4][64];
    for (int i = 0; i < 4; i++) {
        assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &keys[i], &err));
        put(name[i], sizeof name[i], "agents/%s.%s", keys[i].key_id, i == 1 ? "json" : "pem");
    }
    stop(f);
    att_autobuf sealed = {.max = 65536};
    read_whole(f, "host.pem", &sealed);
    att_autobuf whole = {.max = 65536};
    read_whole(f, name[0], &whole);
    overwrite(f, name[0],
              "-----BEGIN TSS2 PRIVATE KEY-----\nAAAA\n-----END TSS2 PRIVATE KEY-----\n");
    overwrite(f, name[1], "{\"version\":1}");
    overwrite(f, name[2], att_buf_cstr(&sealed)); /* a whole object, but no agent's key */
    start(f);
    assert_ok(proc_keyd_key_list(f->client, &list, &count, &err));
    assert_int_equal(count, 1);
    assert_string_equal(list[0].key_id, keys[3].key_id);
    for (int i = 0; i < 3; i++) {
        char bad[80];
        put(bad, sizeof bad, "%s.bad", name[i]);
        assert_false(exists(f, name[i]));
        assert_true(exists(f, bad));
        assert_true(reported_bad(f, keys[i].key_id));
    }
    proc_keys_free(list, count);
    stop(f);
    start(f); /* reported as long as it is there */
    assert_true(reported_bad(f, keys[0].key_id));
    /* Restored from a backup it works again: the sidecar, with the authValue's seed, was kept. */
    char sidecar[64];
    put(sidecar, sizeof sidecar, "agents/%s.json", keys[0].key_id);
    assert_true(exists(f, sidecar));
    stop(f);
    overwrite(f, name[0], att_buf_cstr(&whole));
    start(f);
    att_autobuf der = {0};
    assert_ok(proc_keyd_key_csr(f->client, keys[0].key_id, SPIFFE("a"), &der, &err));
    for (int i = 0; i < 4; i++) {
        proc_key_done(&keys[i]);
    }
}

static void a_damaged_host_secret_is_never_replaced(void **state)
{
    struct fixture *f = *state;
    struct proc_key key;
    struct att_err err = {0};
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    proc_key_done(&key);
    stop(f);
    overwrite(f, "host.pem", "nonsense");
    const struct keyd_opts opts = options(f);
    for (int round = 0; round < 2; round++) {
        start_opts(f, &opts, "failed");
        assert_false(exists(f, "host.pem"));
        assert_true(exists(f, "host.pem.bad"));
        assert_true(reported_bad(f, "host.pem"));
        struct proc_key none;
        assert_refused(proc_keyd_key_create(f->client, "b", "tpm", &none, &err), ATT_E_CONFLICT,
                       "keydFailed");
        stop(f);
    }
}

static void a_missing_host_secret_is_not_made_beside_keys(void **state)
{
    struct fixture *f = *state;
    struct proc_key key;
    struct att_err err = {0};
    char path[300];
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    proc_key_done(&key);
    stop(f);
    file_path(f, "host.pem", path);
    assert_int_equal(unlink(path), 0);
    const struct keyd_opts opts = options(f);
    start_opts(f, &opts, "failed");
    assert_false(exists(f, "host.pem"));
}

static void a_damaged_account_is_never_replaced(void **state)
{
    struct fixture *f = *state;
    struct proc_account account;
    struct att_err err = {0};
    assert_ok(proc_keyd_account(f->client, &account, &err));
    proc_account_done(&account);
    stop(f);
    overwrite(f, "account.pem", "nonsense");
    const struct keyd_opts opts = options(f);
    start_opts(f, &opts, "failed");
    assert_true(exists(f, "account.pem.bad"));
    stop(f);
    start_opts(f, &opts, "ready"); /* keys can be used; the account is an operator's matter */
    assert_int_equal(proc_keyd_account(f->client, &account, &err), ATT_E_CONFLICT);
    assert_false(exists(f, "account.pem"));
}

static void a_damaged_freeze_list_freezes_all(void **state)
{
    struct fixture *f = *state;
    struct proc_key key, none;
    struct att_err err = {0};
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    proc_key_done(&key);
    assert_ok(proc_keyd_freeze(f->client, "b", &err));
    stop(f);
    overwrite(f, "frozen.json", "{\"version\":1,\"agents\":[7]}");
    start(f);
    assert_true(exists(f, "frozen.json.bad"));
    assert_refused(proc_keyd_key_create(f->client, "a", "tpm", &none, &err), ATT_E_DENIED,
                   "frozen");
    assert_ok(proc_keyd_thaw(f->client, "a", &err));
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    proc_key_done(&key);
}

/* Killed after the damaged list was set aside and before the new one was written. */
static void a_freeze_list_that_was_set_aside_freezes_all(void **state)
{
    struct fixture *f = *state;
    struct proc_key key, none;
    struct att_err err = {0};
    char from[300], to[300];
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    proc_key_done(&key);
    assert_ok(proc_keyd_freeze(f->client, "a", &err));
    stop(f);
    file_path(f, "frozen.json", from);
    file_path(f, "frozen.json.bad", to);
    assert_int_equal(rename(from, to), 0);
    start(f);
    assert_refused(proc_keyd_key_create(f->client, "a", "tpm", &none, &err), ATT_E_DENIED,
                   "frozen");
    assert_ok(proc_keyd_thaw(f->client, "a", &err));
    stop(f);
    start(f); /* an operator has spoken since */
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    proc_key_done(&key);
}

/* There, but it cannot be looked at: that is not the same as absent. */
static void an_unreadable_account_is_never_replaced(void **state)
{
    struct fixture *f = *state;
    struct proc_account account;
    struct att_err err = {0};
    char path[300], target[16];
    assert_ok(proc_keyd_account(f->client, &account, &err));
    proc_account_done(&account);
    stop(f);
    file_path(f, "account.pem", path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("account.pem", path), 0);
    const struct keyd_opts opts = options(f);
    start_opts(f, &opts, "tpmGone"); /* not ready: the file may come back */
    assert_int_not_equal(proc_keyd_account(f->client, &account, &err), ATT_OK);
    assert_int_equal(readlink(path, target, sizeof target), 11);
}

static void what_a_kill_left_is_collected(void **state)
{
    struct fixture *f = *state;
    struct proc_key key;
    struct att_err err = {0};
    char pem[64], json[64], path[300];
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    stop(f);
    put(pem, sizeof pem, "agents/%s.pem", key.key_id);
    put(json, sizeof json, "agents/%s.json", key.key_id);
    file_path(f, pem, path);
    assert_int_equal(unlink(path), 0); /* a sidecar alone: creation or destruction cut off */
    overwrite(f, "agents/00000000000000000000000000000000.pem.tmp.1.1", "half");
    overwrite(f, "host.pem.tmp.1.1", "half");
    start(f);
    assert_false(exists(f, json));
    assert_false(exists(f, "agents/00000000000000000000000000000000.pem.tmp.1.1"));
    assert_false(exists(f, "host.pem.tmp.1.1"));
    assert_false(reported_bad(f, key.key_id)); /* nothing was damaged */
    proc_key_done(&key);
}

static void two_active_keys_are_settled(void **state)
{
    struct fixture *f = *state;
    struct proc_key first, second;
    struct att_err err = {0};
    char name[64];
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &first, &err));
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &second, &err));
    assert_ok(proc_keyd_key_activate(f->client, first.key_id, &err));
    put(name, sizeof name, "agents/%s.json", first.key_id);
    att_autobuf before = {0};
    read_whole(f, name, &before);
    assert_ok(proc_keyd_key_activate(f->client, second.key_id, &err));
    stop(f);
    overwrite(f, name, att_buf_cstr(&before)); /* as if killed between the two files */
    start(f);
    two_keys(f, second.key_id, "active", "retired");
    proc_key_done(&first);
    proc_key_done(&second);
}

/* ---- the TPM goes and comes ---------------------------------------------------------------- */

static void keyd_outlives_its_tpm(void **state)
{
    struct fixture *f = *state;
    struct proc_key key, *list = NULL;
    struct att_err err = {0};
    size_t count = 0;
    att_autobuf der = {0};
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    swtpm_stop(f->tpm);
    assert_int_equal(proc_keyd_key_csr(f->client, key.key_id, SPIFFE("a"), &der, &err), ATT_E_GONE);
    att_err_clear(&err);
    wait_state(f->client, "tpmGone");
    assert_ok(proc_keyd_key_list(f->client, &list, &count, &err)); /* needs no TPM */
    assert_int_equal(count, 1);
    proc_keys_free(list, count);
    assert_ok(swtpm_start(f->tpm, false, &err));
    enum att_rc rc = ATT_E_GONE;
    for (int i = 0; i < 1200 && rc != ATT_OK; i++) {
        att_err_clear(&err);
        rc = proc_keyd_key_csr(f->client, key.key_id, SPIFFE("a"), &der, &err);
        usleep(100000);
    }
    assert_int_equal(rc, ATT_OK);
    proc_key_done(&key);
}

/* The TPM stops to answer within a command. */
static void a_silent_tpm_is_said(void **state)
{
    struct fixture *f = *state;
    struct proc_key key, none, *list = NULL;
    struct proc_keyd *hasty = NULL;
    struct att_err err = {0};
    size_t count = 0;
    att_autobuf der = {0};
    att_autojson *info = NULL;
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    tpm_queue_set_stuck_ms(f->keyd->queue, 1500);
    assert_ok(proc_keyd_new(f->sock, getuid(), 1000, &hasty, &err));
    assert_int_equal(kill(f->tpm->pid, SIGSTOP), 0);
    assert_int_equal(proc_keyd_key_csr(hasty, key.key_id, SPIFFE("a"), &der, &err), ATT_E_TIMEOUT);
    att_err_clear(&err);
    wait_state(f->client, "tpmSilent");
    assert_ok(proc_keyd_info(f->client, &info, &err));
    const char *reason = json_string_value(json_object_get(info, "reason"));
    assert_non_null(reason);
    assert_non_null(strstr(reason, "has not answered a sign for"));
    assert_refused(proc_keyd_key_create(f->client, "a", "tpm", &none, &err), ATT_E_TIMEOUT,
                   "tpmSilent");
    assert_ok(proc_keyd_key_list(f->client, &list, &count, &err)); /* needs no TPM */
    assert_int_equal(count, 1);
    proc_keys_free(list, count);
    assert_ok(proc_keyd_freeze(f->client, "b", &err)); /* nor does this */
    assert_int_equal(kill(f->tpm->pid, SIGCONT), 0);
    wait_state(f->client, "ready");
    assert_ok(proc_keyd_key_csr(f->client, key.key_id, SPIFFE("a"), &der, &err));
    proc_keyd_free(hasty);
    proc_key_done(&key);
}

static void keyd_starts_without_its_tpm(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_account account;
    stop(f);
    swtpm_stop(f->tpm);
    const struct keyd_opts opts = options(f);
    start_opts(f, &opts, "tpmGone");
    assert_int_equal(proc_keyd_account(f->client, &account, &err), ATT_E_GONE);
    assert_ok(swtpm_start(f->tpm, false, &err));
    wait_state(f->client, "ready");
    assert_ok(proc_keyd_account(f->client, &account, &err));
    proc_account_done(&account);
}

static void a_wrong_tcti_is_said(void **state)
{
    struct fixture *f = *state;
    struct keyd_opts opts = options(f);
    stop(f);
    opts.tcti = "nonsense:x";
    start_opts(f, &opts, "failed");
}

/* ---- kill -9 ------------------------------------------------------------------------------- */

/* The whole program, in a process of its own: configuration, sandbox, threads. */
static pid_t spawn(const struct fixture *f, const char *config)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a failing test leaves nobody behind */
        char option[] = "--config", program[] = "attestd-keyd", path[200];
        char *argv[] = {program, option, path, NULL};
        put(path, sizeof path, "%s", config);
        if (!freopen("/dev/null", "w", stderr)) {
            _exit(99);
        }
        _exit(keyd_main(3, argv));
    }
    (void)f;
    return pid;
}

static void write_config(const struct fixture *f, char config[200])
{
    struct att_err err = {0};
    att_autobuf text = {0};
    put(config, 200, "%s/attestd.yaml", f->base);
    att_buf_printf(&text,
                   "issuer:\n  url: %s\n  ca_file: %s/ca.pem\ntpm:\n  tcti: \"%s\"\n"
                   "state_dir: %s\nrun_dir: %s/run\n",
                   ISSUER, f->base, f->tpm->tcti, f->base, f->base);
    assert_ok(att_io_write_file(config, att_buf_slice(&text), 0600, &err));
}

static void check_folder(const struct fixture *f)
{
    char path[300];
    file_path(f, "agents", path);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    size_t pems = 0, sidecars = 0;
    for (struct dirent *entry; (entry = readdir(dir));) {
        assert_null(strstr(entry->d_name, ".tmp."));
        assert_null(strstr(entry->d_name, ".bad"));
        pems += strstr(entry->d_name, ".pem") != NULL;
        sidecars += strstr(entry->d_name, ".json") != NULL;
    }
    closedir(dir);
    assert_int_equal(pems, sidecars);
}

#define KILLS 40

/* Creates, activates and destroys until its keyd is killed; counts the keys it was told of. */
static void work(struct proc_keyd *client, char told[64][PROC_KEY_ID_LEN + 1], size_t *ret_told)
{
    size_t n = *ret_told;
    for (int i = 0; n < 60 && i < 100; i++) {
        struct proc_key key;
        char agent[16];
        put(agent, sizeof agent, "agent-%zu", n % 8);
        if (proc_keyd_key_create(client, agent, "tpm", &key, NULL) != ATT_OK) {
            break;
        }
        put(told[n++], PROC_KEY_ID_LEN + 1, "%s", key.key_id);
        enum att_rc rc = proc_keyd_key_activate(client, key.key_id, NULL);
        proc_key_done(&key);
        if (n > 12) { /* the oldest goes; told or not, it is no longer expected */
            rc = proc_keyd_key_destroy(client, told[0], NULL);
            memmove(told[0], told[1], --n * sizeof told[0]);
        }
        if (rc != ATT_OK) {
            break;
        }
    }
    *ret_told = n;
}

static void killed_at_any_instant(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    static char told[64][PROC_KEY_ID_LEN + 1];
    size_t told_count = 0;
    char config[200], thumbprint[44] = "";
    stop(f);
    write_config(f, config);
    for (int round = 0; round < KILLS; round++) {
        pid_t pid = spawn(f, config);
        wait_state(f->client, "ready");
        struct proc_account account;
        assert_ok(proc_keyd_account(f->client, &account, &err));
        if (round > 0) {
            assert_string_equal(account.thumbprint, thumbprint);
        }
        memcpy(thumbprint, account.thumbprint, sizeof thumbprint);
        proc_account_done(&account);
        struct proc_key *keys = NULL;
        size_t count = 0;
        assert_ok(proc_keyd_key_list(f->client, &keys, &count, &err));
        for (size_t i = 0; i < told_count; i++) { /* whoever was told of a key finds it again */
            bool found = false;
            for (size_t k = 0; k < count; k++) {
                found = found || strcmp(keys[k].key_id, told[i]) == 0;
            }
            assert_true(found);
        }
        proc_keys_free(keys, count);
        check_folder(f);
        pid_t killer = fork();
        if (killer == 0) {
            usleep((useconds_t)(rand() % 60000));
            kill(pid, SIGKILL);
            _exit(0);
        }
        work(f->client, told, &told_count);
        int status = 0;
        waitpid(killer, NULL, 0);
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        assert_true(WIFSIGNALED(status));
    }
    start(f);
    struct proc_key *keys = NULL;
    size_t count = 0;
    assert_ok(proc_keyd_key_list(f->client, &keys, &count, &err));
    assert_true(count >= told_count && count > 0);
    for (size_t i = 0; i < count; i++) { /* all listed keys load and sign */
        char id[128];
        att_autobuf der = {0};
        struct certs_csr csr;
        put(id, sizeof id, SPIFFE("%s"), keys[i].agent);
        assert_ok(proc_keyd_key_csr(f->client, keys[i].key_id, id, &der, &err));
        assert_ok(certs_csr_verify(att_buf_slice(&der), id, &csr, &err));
    }
    proc_keys_free(keys, count);
}

static void the_program_ends_cleanly(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key;
    char config[200];
    int status = 0;
    stop(f);
    write_config(f, config);
    pid_t pid = spawn(f, config);
    wait_state(f->client, "ready");
    att_autojson *info = NULL;
    assert_ok(proc_keyd_info(f->client, &info, &err));
    const char *profile = NULL, *seccomp = NULL;
    assert_int_equal(
        json_unpack(info, "{s:{s:s, s:s}}", "sandbox", "profile", &profile, "seccomp", &seccomp),
        0);
    assert_string_equal(profile, ATT_SANITIZED ? "keyd-relaxed" : "keyd");
    assert_string_equal(seccomp, ATT_SANITIZED ? "deny-list" : "allow-list");
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    proc_key_done(&key);
    pid_t second = spawn(f, config);
    waitpid(second, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_int_equal(kill(pid, SIGHUP), 0);
    usleep(200000);
    wait_state(f->client, "ready");
    /* A TPM that goes and comes back inside the sandbox: files and libraries are still reachable.
     */
    assert_ok(swtpm_reset(f->tpm, &err));
    enum att_rc rc = ATT_E_GONE;
    for (int i = 0; i < 1200 && rc != ATT_OK; i++) {
        att_err_clear(&err);
        rc = proc_keyd_key_create(f->client, "a", "tpm", &key, &err);
        usleep(100000);
    }
    assert_ok(rc);
    proc_key_done(&key);
    assert_int_equal(kill(pid, SIGTERM), 0);
    waitpid(pid, &status, 0);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_not_equal(access(f->sock, F_OK), 0);
}

static void the_program_ends_though_the_tpm_is_silent(void **state)
{
    struct fixture *f = *state;
    struct proc_keyd *hasty = NULL;
    struct proc_key key;
    struct att_err err = {0};
    char config[200];
    int status = 0, waited = 0;
    stop(f);
    write_config(f, config);
    pid_t pid = spawn(f, config);
    wait_state(f->client, "ready");
    assert_ok(proc_keyd_new(f->sock, getuid(), 500, &hasty, &err));
    assert_int_equal(kill(f->tpm->pid, SIGSTOP), 0);
    assert_int_equal(proc_keyd_key_create(hasty, "a", "tpm", &key, &err), ATT_E_TIMEOUT);
    att_err_clear(&err);
    assert_int_equal(kill(pid, SIGTERM), 0);
    while (waitpid(pid, &status, WNOHANG) == 0 && waited++ < 1200) {
        usleep(100000);
    }
    assert_int_equal(kill(f->tpm->pid, SIGCONT), 0);
    assert_true(waited < 1200);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    proc_keyd_free(hasty);
    start(f);
}

static void await_mode(const char *path, mode_t mode)
{
    struct stat st = {0};
    for (int i = 0; i < 1200 && (stat(path, &st) != 0 || (st.st_mode & 0777) != mode); i++) {
        usleep(50000);
    }
    assert_int_equal(st.st_mode & 0777, mode);
}

/* Made for the group's sake: the control socket in it has its own mode. */
static void the_run_folder_can_be_entered(void **state)
{
    struct fixture *f = *state;
    char config[200], run[200];
    int status = 0;
    stop(f);
    write_config(f, config);
    put(run, sizeof run, "%s/made/run", f->base);
    att_autobuf text = {0};
    struct att_err err = {0};
    assert_ok(att_io_read_file(config, 65536, &text, &err));
    char *line = strstr(att_buf_cstr(&text) ? (char *)text.ptr : "", "run_dir:");
    assert_non_null(line);
    text.len = (size_t)(line - (char *)text.ptr);
    att_buf_printf(&text, "run_dir: %s\n", run);
    assert_ok(att_io_write_file(config, att_buf_slice(&text), 0600, &err));
    pid_t pid = spawn(f, config);
    await_mode(run, 0755);
    put(config, sizeof config, "%s/keyd", run); /* the socket's own folder: its group's */
    await_mode(config, 0750);
    assert_int_equal(kill(pid, SIGKILL), 0);
    waitpid(pid, &status, 0);
    start(f);
}

int main(void)
{
    cmocka_set_test_filter(getenv("ATT_TEST_FILTER"));
    const struct CMUnitTest tests[] = {
        WITH_KEYD(second_keyd_is_refused),
        WITH_KEYD(another_tpm_opens_nothing),
        WITH_KEYD(damaged_key_files_are_set_aside),
        WITH_KEYD(a_damaged_host_secret_is_never_replaced),
        WITH_KEYD(a_missing_host_secret_is_not_made_beside_keys),
        WITH_KEYD(a_damaged_account_is_never_replaced),
        WITH_KEYD(a_damaged_freeze_list_freezes_all),
        WITH_KEYD(a_freeze_list_that_was_set_aside_freezes_all),
        WITH_KEYD(an_unreadable_account_is_never_replaced),
        WITH_KEYD(what_a_kill_left_is_collected),
        WITH_KEYD(two_active_keys_are_settled),
        WITH_KEYD(no_secret_is_on_disk),
        WITH_KEYD(account_and_keys_survive_a_restart),
        WITH_KEYD(keyd_outlives_its_tpm),
        WITH_KEYD(a_silent_tpm_is_said),
        WITH_KEYD(the_program_ends_though_the_tpm_is_silent),
        WITH_KEYD(the_run_folder_can_be_entered),
        WITH_KEYD(keyd_starts_without_its_tpm),
        WITH_KEYD(a_wrong_tcti_is_said),
        WITH_KEYD(the_program_ends_cleanly),
        WITH_KEYD(killed_at_any_instant),
    };
    return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
