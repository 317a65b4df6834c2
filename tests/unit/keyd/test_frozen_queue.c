/* A freeze that arrives while a request waits: for the TPM's worker, or for the files. It holds
 * from its answer on. */
#include "attestd/agent/registry.h"
#include "attestd/keyd/internal.h"
#include "tests/support/sleeps.h"
#include "tests/unit/keyd/common.h"

/* keyd keeps what an agent's record may name, and some that were left over. */
_Static_assert(AGENT_RETIRED_MAX + 2 + 4 <= KEYD_AGENT_KEYS_MAX, "room for an agent's keys");
_Static_assert(AGENT_MAX *KEYD_AGENT_KEYS_MAX <= KEYD_KEYS_MAX, "room for all agents' keys");

/* ---- the worker, held up --------------------------------------------------------------------- */

struct gate {
    struct keyd *keyd;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool entered, open;
    pthread_t thread;
};

static enum att_rc stand(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    struct gate *gate = arg;
    (void)ctx;
    (void)err;
    pthread_mutex_lock(&gate->lock);
    gate->entered = true;
    pthread_cond_broadcast(&gate->changed);
    while (!gate->open) {
        pthread_cond_wait(&gate->changed, &gate->lock);
    }
    pthread_mutex_unlock(&gate->lock);
    return ATT_OK;
}

static void *hold_worker(void *arg)
{
    struct gate *gate = arg;
    struct att_err err = {0};
    (void)!keyd_run(gate->keyd, TPM_OP_OTHER, TPM_PRIO_HANDSHAKE, "", stand, gate, &err);
    return NULL;
}

static void gate_close(struct gate *gate, struct keyd *keyd)
{
    *gate = (struct gate){.keyd = keyd};
    pthread_mutex_init(&gate->lock, NULL);
    pthread_cond_init(&gate->changed, NULL);
    assert_int_equal(pthread_create(&gate->thread, NULL, hold_worker, gate), 0);
    pthread_mutex_lock(&gate->lock);
    while (!gate->entered) {
        pthread_cond_wait(&gate->changed, &gate->lock);
    }
    pthread_mutex_unlock(&gate->lock);
}

static void gate_open(struct gate *gate)
{
    pthread_mutex_lock(&gate->lock);
    gate->open = true;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->lock);
    pthread_join(gate->thread, NULL);
    pthread_mutex_destroy(&gate->lock);
    pthread_cond_destroy(&gate->changed);
}

static size_t waiting(struct keyd *keyd)
{
    struct tpm_queue_stats stats;
    tpm_queue_stats(keyd->queue, &stats);
    return stats.waiting;
}

/* ---- requests from another thread --------------------------------------------------------------
 */

struct request {
    struct proc_keyd *client;
    const char *key_id; /* to activate; NULL: create one */
    struct proc_key key;
    enum att_rc rc;
    struct att_err err;
    pthread_t thread;
};

static void *ask(void *arg)
{
    struct request *request = arg;
    request->rc =
        request->key_id
            ? proc_keyd_key_activate(request->client, request->key_id, &request->err)
            : proc_keyd_key_create(request->client, "a", "tpm", &request->key, &request->err);
    return NULL;
}

static void request_start(struct request *request, struct fixture *f, const char *key_id)
{
    *request = (struct request){.client = f->client, .key_id = key_id};
    assert_int_equal(pthread_create(&request->thread, NULL, ask, request), 0);
}

static void request_is_refused(struct request *request)
{
    pthread_join(request->thread, NULL);
    assert_int_equal(request->rc, ATT_E_DENIED);
    assert_string_equal(request->err.reason, "frozen");
}

/* What FREEZE does under files, while the test holds that. */
static void freeze_in_memory(struct keyd *keyd)
{
    pthread_mutex_lock(&keyd->lock);
    keyd->frozen = realloc(keyd->frozen, (keyd->frozen_count + 1) * sizeof *keyd->frozen);
    assert_non_null(keyd->frozen);
    keyd_text(ATT_SLICE_LIT("a"), keyd->frozen[keyd->frozen_count++], sizeof *keyd->frozen);
    pthread_mutex_unlock(&keyd->lock);
}

static size_t keys_of(struct fixture *f)
{
    struct proc_key *list = NULL;
    struct att_err err = {0};
    size_t count = 0;
    assert_ok(proc_keyd_key_list(f->client, &list, &count, &err));
    proc_keys_free(list, count);
    return count;
}

static size_t files_of(const struct fixture *f)
{
    char path[300];
    size_t n = 0;
    file_path(f, "agents", path);
    DIR *dir = opendir(path);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        n += entry->d_name[0] != '.';
    }
    closedir(dir);
    return n;
}

/* ---- tests -------------------------------------------------------------------------------------
 */

static void frozen_while_a_creation_waits_for_the_tpm(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct gate gate;
    struct request request;
    struct tpm_queue_stats stats;
    gate_close(&gate, f->keyd);
    request_start(&request, f, NULL);
    WAIT_FOR(waiting(f->keyd) == 1); /* beyond all checks but the worker's */
    assert_ok(proc_keyd_freeze(f->client, "a", &err));
    gate_open(&gate);
    request_is_refused(&request);
    assert_int_equal(keys_of(f), 0);
    tpm_queue_stats(f->keyd->queue, &stats);
    assert_int_equal(stats.ops[TPM_OP_CREATE].failed,
                     1); /* the worker said so, not a later check */
}

static void frozen_while_a_new_key_waits_for_the_files(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct request request;
    pthread_mutex_lock(&f->keyd->files);
    request_start(&request, f, NULL);
    WAIT_FOR(sleeps_on(&f->keyd->files, sizeof f->keyd->files)); /* the TPM has made it */
    freeze_in_memory(f->keyd);
    pthread_mutex_unlock(&f->keyd->files);
    request_is_refused(&request);
    assert_int_equal(keys_of(f), 0);
    assert_int_equal(files_of(f), 0);
    struct proc_key key;
    assert_ok(proc_keyd_thaw(f->client, "a", &err));
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &key, &err));
    assert_int_equal(files_of(f), 2);
    proc_key_done(&key);
}

static void frozen_while_an_activation_waits_for_the_files(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key first, second;
    struct request request;
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &first, &err));
    assert_ok(proc_keyd_key_create(f->client, "a", "tpm", &second, &err));
    assert_ok(proc_keyd_key_activate(f->client, first.key_id, &err));
    pthread_mutex_lock(&f->keyd->files);
    request_start(&request, f, second.key_id);
    WAIT_FOR(sleeps_on(&f->keyd->files, sizeof f->keyd->files));
    freeze_in_memory(f->keyd);
    pthread_mutex_unlock(&f->keyd->files);
    request_is_refused(&request);
    two_keys(f, first.key_id, "active", "new");
    stop(f);
    start(f);
    two_keys(f, first.key_id, "active", "new"); /* on disk, too */
    proc_key_done(&first);
    proc_key_done(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_KEYD(frozen_while_a_creation_waits_for_the_tpm),
        WITH_KEYD(frozen_while_a_new_key_waits_for_the_files),
        WITH_KEYD(frozen_while_an_activation_waits_for_the_files),
    };
    return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
