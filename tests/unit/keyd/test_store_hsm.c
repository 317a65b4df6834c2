/* keyd's store "hsm" before an hsmd that hangs, or that a key's destruction is refused by: one of
 * our own, since no HSM does so when it is asked to. What a real one does:
 * tests/integration/test_hsmd.py and test_main_job_hsm.sh. */
#include "attestd/keyd/internal.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"
#include "attestd/proc/hsm_proto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define ID    "000102030405060708090a0b0c0d0e0f"
#define STUCK "100102030405060708090a0b0c0d0e0f"
#define CKA   "000102030405060708090a0b0c0d0e0f101112"
#define HEAD  "3059301306072a8648ce3d020106082a8648ce3d030107034200"
#define G                                                                                          \
    "046b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c" \
    "0f9e162bce33576b315ececbb6406837bf51f5"

struct hsmd {
    char base[64], dir[96], sock[96], keyd[96];
    struct proc_server *server;
    struct keyd *k;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool hangs, late; /* late: it has no session free in time, and says so */
    unsigned waiting, destroyed;
};

static enum att_rc serve(void *user, const struct proc_peer *peer, const struct proc_op *op,
                         const struct proc_msg *request, struct att_buf *ret_payload,
                         struct att_err *err)
{
    struct hsmd *h = user;
    uint8_t bytes[64] = {1};
    (void)peer;
    pthread_mutex_lock(&h->lock);
    h->waiting++;
    pthread_cond_broadcast(&h->changed);
    while (h->hangs) {
        pthread_cond_wait(&h->changed, &h->lock);
    }
    h->waiting--;
    bool late = h->late;
    pthread_mutex_unlock(&h->lock);
    if (late) {
        return att_fail(err, ATT_E_TIMEOUT, "the token's sessions are all in use");
    }
    struct proc_value values[PROC_FIELDS_MAX] = {{.num = 0}};
    att_autobuf spki = {0};
    if (op->op == PROC_HSM_SIGN) {
        values[PROC_HSM_SIGN_REP_SIGNATURE].bytes = ATT_SLICE_ARRAY(bytes);
    } else if (op->op == PROC_HSM_CREATE) {
        assert_int_equal(att_unhex(&spki, ATT_SLICE_LIT(HEAD G), NULL), ATT_OK);
        values[PROC_HSM_KEY_REP_SPKI].bytes = att_buf_slice(&spki);
    } else if (op->op == PROC_HSM_DESTROY) {
        if (request->v[PROC_HSM_REQ_KEY_ID].bytes.ptr[19] == 0xff) {
            return att_fail(err, ATT_E_CONFLICT, "the token has two keys with this CKA_ID");
        }
        h->destroyed++;
    }
    return proc_reply_encode(op, values, ret_payload, err);
}

static void write_key(const struct hsmd *h, const char *id, const char *state, const char *last)
{
    char path[256], text[1024];
    int len = snprintf(text, sizeof text,
                       "{\"version\":1,\"id\":\"%s\",\"agent\":\"web\",\"state\":\"%s\","
                       "\"created\":12,\"activations\":3,\"ckaId\":\"" CKA "%s\","
                       "\"spki\":\"" HEAD G "\"}",
                       id, state, last);
    snprintf(path, sizeof path, "%s/agents/%s.hsm", h->dir, id);
    assert_int_equal(att_io_write_file(path, ATT_SLICE(text, (size_t)len), 0600, NULL), ATT_OK);
}

static bool there(const struct hsmd *h, const char *id)
{
    char path[256];
    snprintf(path, sizeof path, "%s/agents/%s.hsm", h->dir, id);
    return access(path, F_OK) == 0;
}

static void make(struct hsmd *h)
{
    char path[256];
    memset(h, 0, sizeof *h);
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->changed, NULL);
    snprintf(h->base, sizeof h->base, "/tmp/att-hsm.XXXXXX");
    assert_non_null(mkdtemp(h->base));
    snprintf(h->dir, sizeof h->dir, "%s/keyd", h->base);
    snprintf(h->sock, sizeof h->sock, "%s/hsm.sock", h->base);
    snprintf(h->keyd, sizeof h->keyd, "%s/keyd.sock", h->base);
    snprintf(path, sizeof path, "%s/agents", h->dir);
    assert_int_equal(att_io_mkdirs(path, 0700, NULL), ATT_OK);
}

static void start(struct hsmd *h)
{
    struct att_err err = {0};
    const struct proc_server_opts server = {.path = h->sock,
                                            .clients = {{getuid()}, 1},
                                            .table = proc_hsm_table,
                                            .handler = serve,
                                            .user = h,
                                            .frame_timeout_ms = 10000};
    const struct keyd_opts opts = {.tcti = "none",
                                   .dir = h->dir,
                                   .socket_path = h->keyd,
                                   .hsm_socket_path = h->sock,
                                   .hsm_user = getuid(),
                                   .clients = {{getuid()}, 1},
                                   .signers = {{getuid()}, 1}};
    assert_int_equal(proc_server_new(&server, &h->server, &err), ATT_OK);
    assert_int_equal(proc_server_start(h->server, &err), ATT_OK);
    assert_int_equal(keyd_new(&opts, &h->k, &err), ATT_OK);
}

static void done(struct hsmd *h)
{
    char command[128];
    keyd_free(h->k);
    proc_server_free(h->server);
    snprintf(command, sizeof command, "rm -rf '%s'", h->base);
    (void)!system(command);
    pthread_cond_destroy(&h->changed);
    pthread_mutex_destroy(&h->lock);
}

static void set(struct hsmd *h, bool hangs, bool late)
{
    pthread_mutex_lock(&h->lock);
    h->hangs = hangs;
    h->late = late;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

static enum att_rc sign(struct hsmd *h, enum tpm_prio prio, struct att_err *err)
{
    const uint8_t digest[32] = {1};
    struct keyd_sig sig;
    keyd_autokey key = {0};
    assert_int_equal(keyd_keys_get(h->k, att_slice_str(ID), &key, NULL), ATT_OK);
    return keyd_key_sign(h->k, &key, prio, ATT_SLICE_ARRAY(digest), &sig, err);
}

/* One signature under way, which hsmd has. */
struct waiter {
    struct hsmd *h;
    pthread_t thread;
    enum att_rc rc;
};

static void *wait_for_it(void *user)
{
    struct waiter *w = user;
    struct att_err err = {0};
    w->rc = sign(w->h, TPM_PRIO_HANDSHAKE, &err);
    return NULL;
}

static void begin(struct waiter *w, struct hsmd *h)
{
    *w = (struct waiter){.h = h};
    assert_int_equal(pthread_create(&w->thread, NULL, wait_for_it, w), 0);
    pthread_mutex_lock(&h->lock);
    while (!h->waiting) {
        pthread_cond_wait(&h->changed, &h->lock);
    }
    pthread_mutex_unlock(&h->lock);
}

static void busy_at_once(struct hsmd *h)
{
    struct att_err err = {0};
    int64_t begun = att_boottime_ms();
    assert_int_equal(sign(h, TPM_PRIO_HANDSHAKE, &err), ATT_E_RETRY);
    assert_string_equal(err.reason, "tokenBusy");
    assert_in_range(att_boottime_ms() - begun, 0, 2000);
}

/* The few links on which tokend's signatures come are not all to wait for a module that hangs. */
static void test_hangs(void **state)
{
    (void)state;
    struct hsmd h;
    struct waiter w;
    struct att_err err = {0};
    make(&h);
    write_key(&h, ID, "active", "13");
    start(&h);
    assert_int_equal(sign(&h, TPM_PRIO_HANDSHAKE, &err), ATT_OK);
    set(&h, true, false);
    begin(&w, &h);
    usleep(3200000);
    busy_at_once(&h);
    set(&h, false, false);
    pthread_join(w.thread, NULL);
    assert_int_equal(w.rc, ATT_OK);
    assert_int_equal(sign(&h, TPM_PRIO_HANDSHAKE, &err), ATT_OK);
    /* Once it was late one at a time is asked, also of those that came just now. */
    set(&h, false, true);
    assert_int_equal(sign(&h, TPM_PRIO_HANDSHAKE, &err), ATT_E_TIMEOUT);
    set(&h, true, false);
    begin(&w, &h);
    busy_at_once(&h);
    set(&h, false, false);
    pthread_join(w.thread, NULL);
    assert_int_equal(w.rc, ATT_OK);
    set(&h, true, false);
    struct waiter two[2];
    begin(&two[0], &h);
    two[1] = (struct waiter){.h = &h};
    assert_int_equal(pthread_create(&two[1].thread, NULL, wait_for_it, &two[1]), 0);
    usleep(300000);
    set(&h, false, false);
    for (int i = 0; i < 2; i++) {
        pthread_join(two[i].thread, NULL);
        assert_int_equal(two[i].rc, ATT_OK); /* side by side again */
    }
    done(&h);
}

/* A key that the token does not let go must not keep the others. */
static void test_one_stays(void **state)
{
    (void)state;
    struct hsmd h;
    make(&h);
    write_key(&h, ID, "gone", "13");
    write_key(&h, STUCK, "gone", "ff");
    start(&h);
    for (int i = 0; i < 3; i++) {
        struct att_err err = {0};
        keyd_autokey key = {.store = &keyd_store_hsm, .agent = "web"};
        assert_int_equal(keyd_new_id(key.id, &err), ATT_OK);
        assert_int_equal(keyd_store_hsm.create(h.k, &key, &err), ATT_OK); /* sweeps */
    }
    assert_false(there(&h, ID));
    assert_true(there(&h, STUCK));
    assert_int_equal(h.destroyed, 1);
    done(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hangs),
                                       cmocka_unit_test(test_one_stays)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
