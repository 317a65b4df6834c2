/* keyd with several HSM modules: which one a key goes to, that a key is never asked for in another
 * one, and that a module that is away or hangs delays nobody else's keys. Real ones are in
 * integration/test_hsm_modules.sh. */
#include "attestd/keyd/hsmlink.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define SPKI                                                                                       \
    "3059301306072a8648ce3d020106082a8648ce3d030107034200046b17d1f2e12c4247f8bce6e563a440f277037d" \
    "812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
#define READY                                                                                      \
    "{\"version\":1,\"state\":\"ready\",\"pin\":\"ok\",\"silentMs\":0,\"configured\":{\"label\":"  \
    "\"here\",\"serial\":\"11\"}}"

/* An attestd-hsmd of which the test counts what it is asked. */
struct module {
    char sock[96];
    struct proc_server *server;
    atomic_int signs, destroys;
    atomic_bool hangs; /* a signature does not come back before this is over */
};
struct rig {
    char dir[64];
    struct keyd keyd;
    struct module a, b;
};

static void pause_ms(long ms)
{
    const struct timespec wait = {ms / 1000, (ms % 1000) * 1000000};
    (void)nanosleep(&wait, NULL);
}

#define wait_until(condition)                                                                      \
    do {                                                                                           \
        for (int i_ = 0; !(condition); i_++) {                                                     \
            if (i_ > 1500) {                                                                       \
                fail_msg("waited in vain: %s", #condition);                                        \
            }                                                                                      \
            pause_ms(10);                                                                          \
        }                                                                                          \
    } while (0)

static enum att_rc serve(void *user, const struct proc_peer *peer, const struct proc_op *op,
                         const struct proc_msg *request, struct att_buf *ret_payload,
                         struct att_err *err)
{
    struct module *module = user;
    (void)peer;
    (void)request;
    if (op->op == PROC_HSM_INFO) {
        const struct proc_value values[] = {{.bytes = ATT_SLICE_LIT(READY)}};
        return proc_reply_encode(op, values, ret_payload, err);
    }
    if (op->op == PROC_HSM_READ) {
        uint8_t spki[sizeof SPKI / 2];
        assert_int_equal(att_unhex_exact(spki, sizeof spki, SPKI, err), ATT_OK);
        const struct proc_value values[] = {
            {.bytes = ATT_SLICE_ARRAY(spki)}, {.num = 0}, {.num = 0}};
        return proc_reply_encode(op, values, ret_payload, err);
    }
    if (op->op == PROC_HSM_DESTROY_IN) {
        atomic_fetch_add(&module->destroys, 1);
        return proc_reply_encode(op, NULL, ret_payload, err);
    }
    if (op->op == PROC_HSM_SIGN) {
        static const uint8_t raw[ATT_P256_XY_LEN] = {1};
        const struct proc_value values[] = {
            [PROC_HSM_SIGN_REP_SIGNATURE] = {.bytes = ATT_SLICE_ARRAY(raw)}};
        atomic_fetch_add(&module->signs, 1);
        while (atomic_load(&module->hangs)) {
            pause_ms(10);
        }
        return proc_reply_encode(op, values, ret_payload, err);
    }
    return att_fail(err, ATT_E_UNSUPPORTED, "not asked for here");
}

static void serve_it(struct module *module)
{
    const struct proc_server_opts opts = {.path = module->sock,
                                          .clients = {{geteuid()}, 1},
                                          .table = proc_hsm_table,
                                          .handler = serve,
                                          .user = module,
                                          .frame_timeout_ms = 5000};
    assert_int_equal(proc_server_new(&opts, &module->server, NULL), ATT_OK);
    assert_int_equal(proc_server_start(module->server, NULL), ATT_OK);
}

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);
    char agents[96];
    assert_non_null(rig);
    strcpy(rig->dir, "/tmp/att-hsms-XXXXXX");
    assert_non_null(mkdtemp(rig->dir));
    snprintf(agents, sizeof agents, "%s/agents", rig->dir);
    assert_int_equal(att_io_mkdirs(agents, 0700, NULL), ATT_OK);
    strcpy(rig->keyd.dir, rig->dir);
    pthread_mutex_init(&rig->keyd.lock, NULL);
    snprintf(rig->a.sock, sizeof rig->a.sock, "%s/a.sock", rig->dir);
    snprintf(rig->b.sock, sizeof rig->b.sock, "%s/b.sock", rig->dir);
    const struct keyd_hsm_opts modules[] = {{"default", rig->a.sock, geteuid()},
                                            {"payments", rig->b.sock, geteuid()}};
    const struct keyd_opts opts = {.hsms = modules, .n_hsms = 2};
    assert_int_equal(keyd_hsms_new(&rig->keyd, &opts, NULL), ATT_OK);
    *state = rig;
    return 0;
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    char command[120];
    atomic_store(&rig->a.hangs, false);
    atomic_store(&rig->b.hangs, false);
    for (size_t i = 0; i < rig->keyd.keys_count; i++) {
        keyd_key_done(&rig->keyd.keys[i]);
    }
    free(rig->keyd.keys);
    keyd_hsms_free(&rig->keyd);
    proc_server_free(rig->a.server);
    proc_server_free(rig->b.server);
    pthread_mutex_destroy(&rig->keyd.lock);
    snprintf(command, sizeof command, "rm -rf %s", rig->dir);
    assert_int_equal(system(command), 0);
    free(rig);
    return 0;
}

/* Writes agents/<id>.hsm, as version 2 where module is given, else as version 1; loads it. */
static enum att_rc load(struct rig *rig, const char *module, const char *word, struct keyd_key *ret,
                        char path[KEYD_PATH_MAX])
{
    char id[PROC_KEY_ID_LEN + 1];
    att_autobuf text = {0};
    assert_int_equal(keyd_new_id(id, NULL), ATT_OK);
    assert_int_equal(keyd_hsm_path(&rig->keyd, id, path, NULL), ATT_OK);
    att_buf_printf(&text, "{\"version\":%d,", module ? 2 : 1);
    if (module) {
        att_buf_printf(&text, "\"module\":\"%s\",", module);
    }
    att_buf_printf(&text,
                   "\"id\":\"%s\",\"agent\":\"web\",\"state\":\"%s\",\"created\":12,"
                   "\"activations\":3,\"ckaId\":\"000102030405060708090a0b0c0d0e0f10111213\","
                   "\"spki\":\"" SPKI "\"}",
                   id, word);
    assert_int_equal(att_io_write_file(path, att_buf_slice(&text), 0600, NULL), ATT_OK);
    return keyd_hsm_load(&rig->keyd, id, ret, NULL);
}

static enum att_rc sign(struct rig *rig, const struct keyd_key *key, struct att_err *err)
{
    const uint8_t digest[32] = {1};
    struct keyd_sig sig = {.len = 0};
    return keyd_store_hsm.sign(&rig->keyd, key, TPM_PRIO_HANDSHAKE, KEYD_ECDSA,
                               ATT_SLICE_ARRAY(digest), &sig, err);
}

/* ---- which module ---------------------------------------------------------------------------- */

static void test_the_default_is_the_first(void **state)
{
    struct rig *rig = *state;
    struct keyd_key key = {.store = &keyd_store_hsm};
    assert_int_equal(keyd_store_hsm.choose(&rig->keyd, ATT_SLICE_LIT(""), &key, NULL), ATT_OK);
    assert_string_equal(key.module, "default");
    assert_true(keyd_store_hsm.usual(&rig->keyd, &key));
    assert_int_equal(keyd_store_hsm.choose(&rig->keyd, ATT_SLICE_LIT("payments"), &key, NULL),
                     ATT_OK);
    assert_string_equal(key.module, "payments");
    assert_false(keyd_store_hsm.usual(&rig->keyd, &key));
}

static void test_refuses_a_module_that_the_host_has_not(void **state)
{
    struct rig *rig = *state;
    struct keyd_key key = {.store = &keyd_store_hsm};
    struct att_err err = {0};
    assert_int_equal(keyd_store_hsm.choose(&rig->keyd, ATT_SLICE_LIT("cards"), &key, &err),
                     ATT_E_UNSUPPORTED);
    assert_string_equal(err.reason, "hsmModule");
    assert_non_null(strstr(err.msg, "\"cards\""));
    assert_non_null(strstr(err.msg, "default, payments"));
}

/* ---- a key and its module ---------------------------------------------------------------------
 */

static void test_a_key_is_asked_for_in_its_own_module_only(void **state)
{
    struct rig *rig = *state;
    struct att_err err = {0};
    char path[KEYD_PATH_MAX];
    keyd_autokey old = {0}, other = {0};
    serve_it(&rig->a);
    serve_it(&rig->b);
    assert_int_equal(load(rig, NULL, "active", &old, path), ATT_OK);
    assert_string_equal(old.module, "default"); /* a file from when hosts had one module */
    assert_int_equal(load(rig, "payments", "active", &other, path), ATT_OK);
    assert_int_equal(sign(rig, &old, NULL), ATT_OK);
    assert_int_equal(atomic_load(&rig->a.signs), 1);
    assert_int_equal(atomic_load(&rig->b.signs), 0);
    assert_int_equal(sign(rig, &other, NULL), ATT_OK);
    assert_int_equal(atomic_load(&rig->a.signs), 1);
    assert_int_equal(atomic_load(&rig->b.signs), 1);
    /* Its own module is away: the one that is there is not asked instead. */
    proc_server_free(rig->b.server);
    rig->b.server = NULL;
    assert_int_equal(sign(rig, &other, &err), ATT_E_UNREACHABLE);
    assert_non_null(strstr(err.msg, "HSM module payments"));
    assert_int_equal(atomic_load(&rig->a.signs), 1);
    assert_int_equal(sign(rig, &old, NULL), ATT_OK);
}

static void test_a_module_that_is_not_configured_keeps_its_keys(void **state)
{
    struct rig *rig = *state;
    struct att_err err = {0};
    char path[KEYD_PATH_MAX], gone[KEYD_PATH_MAX];
    struct keyd_key key = {0}, none = {0};
    serve_it(&rig->a);
    serve_it(&rig->b);
    assert_int_equal(keyd_hsms_start(&rig->keyd, NULL), ATT_OK);
    assert_int_equal(load(rig, "cards", "active", &key, path), ATT_OK);
    assert_int_equal(keyd_store_hsm.ready(&rig->keyd, &key, &err), ATT_E_UNSUPPORTED);
    assert_string_equal(err.reason, "hsmModule");
    att_err_clear(&err);
    assert_int_equal(sign(rig, &key, &err), ATT_E_UNSUPPORTED);
    assert_string_equal(err.reason, "hsmModule");
    /* Destroyed, it waits for its module: no other one hears of it, and its file stays. */
    assert_int_equal(keyd_store_hsm.drop(&rig->keyd, &key, NULL), ATT_OK);
    keyd_store_hsm.destroy(&rig->keyd, &key);
    assert_int_equal(load(rig, "cards", "gone", &none, gone), ATT_E_NOTFOUND);
    /* One of a module that is there goes. */
    char here[KEYD_PATH_MAX];
    assert_int_equal(load(rig, "payments", "gone", &none, here), ATT_E_NOTFOUND);
    wait_until(access(here, F_OK) != 0);
    assert_int_equal(access(path, F_OK), 0);
    assert_int_equal(access(gone, F_OK), 0);
    assert_int_equal(atomic_load(&rig->a.destroys), 0);
    assert_int_equal(atomic_load(&rig->b.destroys), 1);
    /* INFO names the module and counts its keys. */
    rig->keyd.keys = calloc(1, sizeof *rig->keyd.keys);
    assert_non_null(rig->keyd.keys);
    rig->keyd.keys[0] = key;
    rig->keyd.keys_count = 1;
    att_autojson *json = json_object();
    keyd_store_hsm.describe(&rig->keyd, json);
    const json_t *elsewhere = json_array_get(json_object_get(json, "elsewhere"), 0);
    assert_string_equal(json_string_value(json_object_get(elsewhere, "name")), "cards");
    assert_int_equal(json_integer_value(json_object_get(elsewhere, "keys")), 1);
    assert_int_equal(json_array_size(json_object_get(json, "modules")), 2);
}

/* ---- one hangs --------------------------------------------------------------------------------
 */

struct asking {
    struct rig *rig;
    const struct keyd_key *key;
    pthread_t thread;
    enum att_rc rc;
};

static void *ask(void *arg)
{
    struct asking *asking = arg;
    asking->rc = sign(asking->rig, asking->key, NULL);
    return NULL;
}

#define ASKING 12 /* more than one module's places */

static void test_one_that_hangs_delays_no_other(void **state)
{
    struct rig *rig = *state;
    char path[KEYD_PATH_MAX];
    keyd_autokey slow = {0}, other = {0};
    struct asking asking[ASKING];
    serve_it(&rig->a);
    serve_it(&rig->b);
    assert_int_equal(load(rig, "default", "active", &slow, path), ATT_OK);
    assert_int_equal(load(rig, "payments", "active", &other, path), ATT_OK);
    atomic_store(&rig->a.hangs, true);
    for (int i = 0; i < ASKING; i++) {
        asking[i] = (struct asking){.rig = rig, .key = &slow};
        assert_int_equal(pthread_create(&asking[i].thread, NULL, ask, &asking[i]), 0);
    }
    wait_until(atomic_load(&rig->a.signs) >= 6); /* all its places are taken */
    for (int i = 0; i < 50; i++) {
        assert_int_equal(sign(rig, &other, NULL), ATT_OK);
    }
    atomic_store(&rig->a.hangs, false);
    for (int i = 0; i < ASKING; i++) {
        pthread_join(asking[i].thread, NULL);
    }
    assert_int_equal(atomic_load(&rig->b.signs), 50);
    assert_int_equal(sign(rig, &slow, NULL), ATT_OK);
}

static void test_refuses_more_modules_than_there_may_be(void **state)
{
    (void)state;
    struct keyd keyd = {0};
    const struct keyd_opts opts = {.n_hsms = KEYD_HSMS_MAX + 1};
    assert_int_equal(keyd_hsms_new(&keyd, &opts, NULL), ATT_E_LIMIT);
    keyd_hsms_free(&keyd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(test_the_default_is_the_first),
        TEST(test_refuses_a_module_that_the_host_has_not),
        TEST(test_a_key_is_asked_for_in_its_own_module_only),
        TEST(test_a_module_that_is_not_configured_keeps_its_keys),
        TEST(test_one_that_hangs_delays_no_other),
        cmocka_unit_test(test_refuses_more_modules_than_there_may_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
