/* Sealing over suspend and hibernation, under a keyd that goes on running: the TPM forgets the
 * objects, sessions and saved contexts that keyd has in it, and counts a restart. What kernel and
 * firmware send to it (TPM2_Shutdown(STATE), a reset, TPM2_Startup) goes over keyd's own
 * connection, since swtpm serves one. */
#include "attestd/keyd/internal.h"
#include "tests/unit/keyd/sealing.h"
#include "tpm/internal.h"

struct night {
    const struct sealed *s;
    bool wakes_by_boot; /* hibernation: firmware starts the TPM with CLEAR, PCRs begin again */
    bool other_boot;    /* … and measures something else */
};

static enum att_rc run_night(struct tpm_context *ctx, void *arg, struct att_err *err)
{
    const struct night *night = arg;
    char socket[300];
    put(socket, sizeof socket, "%s/sock.ctrl", night->s->tpm.dir);
    const char *const reset[] = {"swtpm_ioctl", "--unix", socket, "-i", NULL};
    if (Esys_Shutdown(ctx->esys, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, TPM2_SU_STATE) ||
        swtpm_tool(&night->s->tpm, reset) != 0 ||
        Esys_Startup(ctx->esys, night->wakes_by_boot ? TPM2_SU_CLEAR : TPM2_SU_STATE)) {
        return att_fail(err, ATT_E_INTERNAL, "the TPM did not go to sleep and wake");
    }
    TPML_DIGEST_VALUES digests = {.count = 1, .digests = {{.hashAlg = TPM2_ALG_SHA256}}};
    digests.digests[0].digest.sha256[0] = 0xaa;
    if (night->other_boot && Esys_PCR_Extend(ctx->esys, ESYS_TR_PCR16, ESYS_TR_PASSWORD,
                                             ESYS_TR_NONE, ESYS_TR_NONE, &digests)) {
        return att_fail(err, ATT_E_INTERNAL, "PCR 16");
    }
    return ATT_OK;
}

static void sleep_and_wake(struct sealed *s, struct night night)
{
    struct att_err err = {0};
    night.s = s;
    assert_ok(tpm_queue_run(s->f.keyd->queue, TPM_OP_OTHER, TPM_PRIO_RENEWAL, "",
                            att_boottime_ms() + 30000, run_night, &night, &err));
}

static void counts(struct sealed *s, uint32_t *ret_reset, uint32_t *ret_restart)
{
    struct proc_identity identity = {0};
    struct att_err err = {0};
    enum att_rc rc = ATT_E_GONE;
    for (int i = 0; i < 200 && rc != ATT_OK; i++) { /* the first may find the objects gone */
        rc = proc_keyd_identity(s->f.client, &identity, &err);
        usleep(rc == ATT_OK ? 0 : 50000);
    }
    assert_int_equal(rc, ATT_OK);
    *ret_reset = identity.reset_count;
    *ret_restart = identity.restart_count;
    proc_identity_done(&identity);
}

/* Signs within ten seconds, as a renewal that is tried again; a job is never run twice, so the
 * first may be told that the objects are gone. What else it is told is the test's failure. */
static void signs_again(struct sealed *s, const char *id)
{
    struct att_err err = {0};
    enum att_rc rc = ATT_E_GONE;
    for (int i = 0; i < 200 && rc != ATT_OK; i++) {
        err = (struct att_err){0};
        rc = signs(&s->f, id, SPIFFE("alpha"), &err);
        if (rc != ATT_OK && rc != ATT_E_GONE && rc != ATT_E_RETRY) {
            break;
        }
        usleep(rc == ATT_OK ? 0 : 50000);
    }
    say(&err);
    assert_int_equal(rc, ATT_OK);
}

static void started(struct sealed *s, char id[PROC_KEY_ID_LEN + 1])
{
    struct parse_pcr_set good = pcrs_now(s);
    write_policy(s, &v1, &good);
    start_opts(&s->f, &s->opts, "ready");
    make_key(&s->f, "alpha", id);
    struct att_err err = {0};
    assert_ok(signs(&s->f, id, SPIFFE("alpha"), &err));
}

/* Transient objects are lost; the same key is loaded through the policy again, whose PCRs stayed.
 */
static void resumed(void **state)
{
    struct sealed *s = *state;
    char id[PROC_KEY_ID_LEN + 1], other[PROC_KEY_ID_LEN + 1];
    uint32_t reset = 0, restart = 0, reset_now = 0, restart_now = 0;
    started(s, id);
    counts(s, &reset, &restart);
    json_int_t loads = number(&s->f, "opened", NULL);
    sleep_and_wake(s, (struct night){0});
    signs_again(s, id);
    counts(s, &reset_now, &restart_now);
    assert_int_equal(reset_now, reset);
    assert_int_equal(restart_now, restart + 1);
    assert_true(number(&s->f, "opened", NULL) > loads); /* the policy was asked again */
    wait_state(s->f.client, "ready");
    make_key(&s->f, "beta", other);
    assert_true(number(&s->f, "counter", "value") == 1); /* the counter is not touched */
}

/* The machine woke by a boot that the policy allows: the same. */
static void hibernated(void **state)
{
    struct sealed *s = *state;
    char id[PROC_KEY_ID_LEN + 1];
    uint32_t reset = 0, restart = 0, reset_now = 0, restart_now = 0;
    started(s, id);
    counts(s, &reset, &restart);
    sleep_and_wake(s, (struct night){.wakes_by_boot = true});
    signs_again(s, id);
    counts(s, &reset_now, &restart_now);
    assert_int_equal(reset_now, reset);
    assert_int_equal(restart_now, restart + 1);
}

/* By another boot: nothing that was loaded before the night signs any more. */
static void hibernated_and_woken_by_another_boot(void **state)
{
    struct sealed *s = *state;
    char id[PROC_KEY_ID_LEN + 1];
    struct att_err err = {0};
    started(s, id);
    sleep_and_wake(s, (struct night){.wakes_by_boot = true, .other_boot = true});
    enum att_rc rc = ATT_E_GONE;
    for (int i = 0; i < 200 && (rc == ATT_E_GONE || rc == ATT_E_RETRY); i++) {
        err = (struct att_err){0};
        rc = signs(&s->f, id, SPIFFE("alpha"), &err);
        usleep(50000);
    }
    say(&err);
    assert_int_equal(rc, ATT_E_DENIED);
    assert_string_equal(err.reason, "bootSealed");
    assert_true(number(&s->f, "refused", NULL) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_TPM(resumed),
        WITH_TPM(hibernated),
        WITH_TPM(hibernated_and_woken_by_another_boot),
    };
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
