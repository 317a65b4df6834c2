/* keyd beside an attestd-hsmd that answers what it should not, nothing, or late. The real one is in
 * integration/test_hsmd*. */
#include "attestd/keyd/hsmlink.h"

#include "attestd/base/clock.h"
#include "attestd/base/enc.h"
#include "attestd/base/io.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct rig {
    char dir[64], agents[80], sock[80];
    struct keyd keyd;
    struct keyd_hsm *hsm; /* keyd's only module */
    struct proc_server *server;
};

/* ---- an hsmd whose words the test chooses -----------------------------------------------------
 */

/* P-256's generator, as a key. */
#define SPKI                                                                                       \
    "3059301306072a8648ce3d020106082a8648ce3d030107034200046b17d1f2e12c4247f8bce6e563a440f277037d" \
    "812deb33a0f4a13945d898c2964fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"

static const char *info_says;
static enum att_rc create_says, destroy_says, sign_says;
static atomic_int creates, destroys, signs, reads;
static const char *serves; /* the token's serial number */
static bool has_key;
static struct keyd *freezes; /* its agent is frozen while the HSM signs */

static enum att_rc reasoned(enum att_rc rc, const char *reason, struct att_err *err)
{
    if (rc != ATT_OK) {
        (void)!att_fail(err, rc, "as the test says");
        att_err_reason(err, reason);
    }
    return rc;
}

static enum att_rc serve(void *user, const struct proc_peer *peer, const struct proc_op *op,
                         const struct proc_msg *request, struct att_buf *ret_payload,
                         struct att_err *err)
{
    (void)user;
    (void)peer;
    enum att_rc rc = ATT_E_UNSUPPORTED;
    if (op->op == PROC_HSM_INFO) {
        const struct proc_value values[] = {{.bytes = att_slice_str(info_says)}};
        return proc_reply_encode(op, values, ret_payload, err);
    }
    if (op->op == PROC_HSM_CREATE_IN) {
        if (!att_slice_eq_str(request->v[PROC_HSM_CREATE_IN_REQ_SERIAL].bytes, serves)) {
            return reasoned(ATT_E_CONFLICT, "tokenOther", err);
        }
        atomic_fetch_add(&creates, 1);
        return reasoned(create_says, "tokenGone", err);
    }
    if (op->op == PROC_HSM_SIGN) {
        static const uint8_t raw[ATT_P256_XY_LEN] = {1};
        const struct proc_value values[] = {
            [PROC_HSM_SIGN_REP_SIGNATURE] = {.bytes = ATT_SLICE_ARRAY(raw)}};
        atomic_fetch_add(&signs, 1);
        if (freezes) {
            pthread_mutex_lock(&freezes->lock);
            freezes->frozen = calloc(1, sizeof *freezes->frozen);
            strcpy(freezes->frozen[0], "web");
            freezes->frozen_count = 1;
            pthread_mutex_unlock(&freezes->lock);
        }
        rc = reasoned(sign_says, "pinLocked", err);
        return rc == ATT_OK ? proc_reply_encode(op, values, ret_payload, err) : rc;
    }
    if (op->op == PROC_HSM_READ) {
        uint8_t spki[256];
        size_t len = strlen(SPKI) / 2;
        atomic_fetch_add(&reads, 1);
        rc = has_key ? att_unhex_exact(spki, len, SPKI, err) : ATT_E_NOTFOUND;
        const struct proc_value values[] = {
            {.bytes = ATT_SLICE(spki, len)}, {.num = 0}, {.num = 0}};
        return rc == ATT_OK ? proc_reply_encode(op, values, ret_payload, err)
                            : reasoned(rc, "keyGone", err);
    }
    if (op->op == PROC_HSM_DESTROY_IN) {
        if (!att_slice_eq_str(request->v[PROC_HSM_DESTROY_IN_REQ_SERIAL].bytes, serves)) {
            return reasoned(ATT_E_CONFLICT, "tokenOther", err);
        }
        atomic_fetch_add(&destroys, 1);
        rc = reasoned(destroy_says, "keyMaking", err);
        return rc == ATT_OK ? proc_reply_encode(op, NULL, ret_payload, err) : rc;
    }
    return rc;
}

#define READY                                                                                      \
    "{\"version\":1,\"state\":\"ready\",\"pin\":\"ok\",\"silentMs\":0,\"configured\":{\"label\":"  \
    "\"here\",\"serial\":\"11\"}}"

static int setup(void **state)
{
    struct rig *rig = calloc(1, sizeof *rig);
    assert_non_null(rig);
    strcpy(rig->dir, "/tmp/att-hsmlink-XXXXXX");
    assert_non_null(mkdtemp(rig->dir));
    snprintf(rig->agents, sizeof rig->agents, "%s/agents", rig->dir);
    snprintf(rig->sock, sizeof rig->sock, "%s/hsm.sock", rig->dir);
    assert_int_equal(att_io_mkdirs(rig->agents, 0700, NULL), ATT_OK);
    strcpy(rig->keyd.dir, rig->dir);
    pthread_mutex_init(&rig->keyd.lock, NULL);
    const struct keyd_hsm_opts module = {"default", rig->sock, geteuid()};
    const struct keyd_opts opts = {.hsms = &module, .n_hsms = 1};
    assert_int_equal(keyd_hsms_new(&rig->keyd, &opts, NULL), ATT_OK);
    rig->hsm = rig->keyd.hsms[0];
    info_says = READY;
    create_says = sign_says = destroy_says = ATT_OK;
    creates = destroys = signs = reads = 0;
    serves = "11";
    has_key = true;
    *state = rig;
    return 0;
}

static void serve_it(struct rig *rig)
{
    const struct proc_server_opts opts = {.path = rig->sock,
                                          .clients = {{geteuid()}, 1},
                                          .table = proc_hsm_table,
                                          .handler = serve,
                                          .frame_timeout_ms = 5000};
    assert_int_equal(proc_server_new(&opts, &rig->server, NULL), ATT_OK);
    assert_int_equal(proc_server_start(rig->server, NULL), ATT_OK);
}

static int teardown(void **state)
{
    struct rig *rig = *state;
    char command[120];
    keyd_hsms_free(&rig->keyd);
    proc_server_free(rig->server);
    free(rig->keyd.frozen);
    pthread_mutex_destroy(&rig->keyd.lock);
    snprintf(command, sizeof command, "rm -rf %s", rig->dir);
    assert_int_equal(system(command), 0);
    free(rig);
    return 0;
}

static int files(const struct rig *rig)
{
    DIR *dir = opendir(rig->agents);
    int count = 0;
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));) {
        count += entry->d_name[0] != '.';
    }
    closedir(dir);
    return count;
}

static json_int_t number(struct rig *rig, const char *name)
{
    att_autojson *json = json_object();
    keyd_hsm_describe(rig->hsm, json);
    return json_integer_value(json_object_get(json, name));
}

static bool says(struct rig *rig, const char *name, const char *text)
{
    att_autojson *json = json_object();
    keyd_hsm_describe(rig->hsm, json);
    const char *found = json_string_value(json_object_get(json, name));
    return found && strstr(found, text);
}

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

static void new_key(struct keyd_key *ret)
{
    *ret = (struct keyd_key){.store = &keyd_store_hsm};
    assert_int_equal(keyd_new_id(ret->id, NULL), ATT_OK);
    strcpy(ret->agent, "web");
    strcpy(ret->module, "default");
}

static enum att_rc create(struct rig *rig, struct att_err *err)
{
    struct keyd_key key;
    new_key(&key);
    enum att_rc rc = keyd_store_hsm.create(&rig->keyd, &key, err);
    assert_null(key.held);
    return rc;
}

/* ---- what it does -----------------------------------------------------------------------------
 */

static void test_nobody_listens_nothing_is_left(void **state)
{
    struct rig *rig = *state;
    for (int i = 0; i < 5; i++) {
        struct att_err err = {0};
        assert_int_equal(create(rig, &err), ATT_E_UNREACHABLE);
        assert_non_null(strstr(err.msg, "hsmd"));
    }
    assert_int_equal(files(rig), 0);
    assert_int_equal(number(rig, "waste"), 0);
}

static void test_an_unknown_fate_is_looked_at_twice(void **state)
{
    struct rig *rig = *state;
    struct att_err err = {0};
    serve_it(rig);
    create_says = ATT_E_GONE;
    assert_int_equal(create(rig, &err), ATT_E_GONE);
    assert_string_equal(err.reason, "tokenGone");
    assert_int_equal(files(rig), 1);
    assert_int_equal(number(rig, "waste"), 1);
    assert_int_equal(keyd_hsm_start(rig->hsm, NULL), ATT_OK);
    wait_until(destroys == 1);
    pause_ms(3000);
    assert_int_equal(destroys,
                     1); /* the second look is later: integration/test_resume_kill9_hsm.sh */
    assert_int_equal(files(rig), 1);
    assert_int_equal(number(rig, "waste"), 1);
}

/* agents/<id>.hsm of a key that was destroyed. serial NULL: of a version that knew no token. */
static void put_file(struct rig *rig, struct keyd_key *ret_key, const char *serial)
{
    char path[KEYD_PATH_MAX];
    att_autobuf text = {0};
    new_key(ret_key);
    assert_int_equal(keyd_hsm_path(&rig->keyd, ret_key->id, path, NULL), ATT_OK);
    att_buf_printf(
        &text,
        "{\"version\":%d,\"id\":\"%s\",\"agent\":\"web\",\"state\":\"gone\",\"created\":12,"
        "\"activations\":3,\"ckaId\":\"000102030405060708090a0b0c0d0e0f10111213\","
        "\"spki\":\"" SPKI "\"",
        serial ? 3 : 1, ret_key->id);
    if (serial) {
        att_buf_printf(&text, ",\"module\":\"default\",\"tokenLabel\":\"t\",\"tokenSerial\":\"%s\"",
                       serial);
    }
    att_buf_printf(&text, "}");
    assert_int_equal(att_io_write_file(path, att_buf_slice(&text), 0600, NULL), ATT_OK);
}

/* The module's name leads to another token: no answer of that one says that the key is gone. */
static void test_another_token_destroys_nothing(void **state)
{
    struct rig *rig = *state;
    struct keyd_key key;
    uint8_t cka_id[PROC_HSM_KEY_ID_LEN] = {1};
    put_file(rig, &key, "22");
    serve_it(rig);
    assert_int_equal(keyd_hsm_start(rig->hsm, NULL), ATT_OK);
    keyd_hsm_throw_away(rig->hsm, key.id, cka_id, KEYD_WASTE_KEY);
    wait_until(says(rig, "wasteReason", "tokenOther"));
    assert_int_equal(destroys, 0);
    assert_int_equal(files(rig), 1);
    assert_int_equal(number(rig, "waste"), 1);
    serves = "22"; /* put right again */
    wait_until(files(rig) == 0);
    wait_until(number(rig, "waste") == 0);
    assert_int_equal(destroys, 1);
    assert_true(says(rig, "wasteReason", ""));
}

/* A file that names no token: absent here is not gone. */
static void test_a_key_without_a_token_has_to_be_found(void **state)
{
    struct rig *rig = *state;
    struct keyd_key key;
    uint8_t cka_id[PROC_HSM_KEY_ID_LEN] = {1};
    put_file(rig, &key, NULL);
    serve_it(rig);
    has_key = false;
    assert_int_equal(keyd_hsm_start(rig->hsm, NULL), ATT_OK);
    keyd_hsm_throw_away(rig->hsm, key.id, cka_id, KEYD_WASTE_KEY);
    wait_until(says(rig, "wasteReason", "tokenUnknown"));
    assert_true(reads >= 1);
    assert_int_equal(destroys, 0);
    assert_int_equal(files(rig), 1);
    has_key = true;
    wait_until(files(rig) == 0);
    assert_int_equal(destroys, 1);
}

/* The configuration changes between the two questions: nothing was made, nothing is left. */
static void test_refuses_to_make_a_key_in_another_token(void **state)
{
    struct rig *rig = *state;
    struct att_err err = {0};
    serve_it(rig);
    serves = "22";
    assert_int_equal(create(rig, &err), ATT_E_UNREACHABLE);
    assert_string_equal(err.reason, "tokenOther");
    assert_int_equal(creates, 0);
    assert_int_equal(files(rig), 0);
    assert_int_equal(number(rig, "waste"), 0);
    info_says = "{\"version\":1,\"state\":\"ready\",\"pin\":\"ok\",\"silentMs\":0}";
    att_err_clear(&err);
    assert_int_equal(create(rig, &err), ATT_E_RETRY); /* of an earlier version */
    assert_string_equal(err.reason, "tokenUnknown");
}

static void test_the_file_goes_after_the_key(void **state)
{
    struct rig *rig = *state;
    struct keyd_key key;
    uint8_t cka_id[PROC_HSM_KEY_ID_LEN] = {1};
    put_file(rig, &key, "11");
    serve_it(rig);
    destroy_says = ATT_E_RETRY; /* keyMaking */
    assert_int_equal(keyd_hsm_start(rig->hsm, NULL), ATT_OK);
    keyd_hsm_throw_away(rig->hsm, key.id, cka_id, KEYD_WASTE_KEY);
    wait_until(destroys >= 1);
    assert_int_equal(files(rig), 1);
    destroy_says = ATT_OK;
    wait_until(files(rig) == 0);
    wait_until(number(rig, "waste") == 0);
}

/* One that cannot be destroyed: the others are. */
static void test_one_does_not_hold_up_the_others(void **state)
{
    struct rig *rig = *state;
    uint8_t cka_id[PROC_HSM_KEY_ID_LEN] = {1};
    serve_it(rig);
    for (int i = 0; i < 3; i++) {
        struct keyd_key key;
        new_key(&key);
        keyd_hsm_throw_away(rig->hsm, key.id, cka_id, KEYD_WASTE_KEY);
    }
    destroy_says = ATT_E_CONFLICT;
    assert_int_equal(keyd_hsm_start(rig->hsm, NULL), ATT_OK);
    wait_until(destroys == 3);
    pause_ms(500);
    assert_int_equal(destroys, 3); /* not at once again */
    assert_int_equal(number(rig, "waste"), 3);
}

static void test_refuses_more_waste(void **state)
{
    struct rig *rig = *state;
    struct att_err err = {0};
    uint8_t cka_id[PROC_HSM_KEY_ID_LEN] = {1};
    serve_it(rig);
    for (int i = 0; i < 256; i++) {
        struct keyd_key key;
        new_key(&key);
        keyd_hsm_throw_away(rig->hsm, key.id, cka_id, KEYD_WASTE_KEY);
    }
    assert_int_equal(create(rig, &err), ATT_E_RETRY);
    assert_string_equal(err.reason, "hsmWaste");
    assert_int_equal(creates, 0);
    assert_int_equal(files(rig), 0);
    /* When it can be destroyed it goes, and keys are made again: the refusal is another one. */
    assert_int_equal(keyd_hsm_start(rig->hsm, NULL), ATT_OK);
    wait_until(number(rig, "waste") == 0);
    create_says = ATT_E_GONE;
    att_err_clear(&err);
    assert_int_equal(create(rig, &err), ATT_E_GONE);
    assert_int_equal(creates, 1);
}

static void test_refuses_to_wait_for_a_module_that_is_silent(void **state)
{
    struct rig *rig = *state;
    const struct proc_value values[] = {
        [PROC_HSM_SIGN_REQ_KEY_ID] = proc_bytes(ATT_SLICE_LIT("01234567890123456789")),
        [PROC_HSM_SIGN_REQ_DIGEST] = proc_bytes(ATT_SLICE_LIT("01234567890123456789012345678901")),
    };
    struct att_err err = {0};
    bool asked = true;
    serve_it(rig);
    info_says = "{\"version\":1,\"state\":\"ready\",\"pin\":\"ok\",\"silentMs\":8000}";
    sign_says = ATT_E_LOCKOUT;
    assert_int_equal(keyd_hsm_start(rig->hsm, NULL), ATT_OK);
    wait_until(says(rig, "state", "silent"));
    {
        proc_autoanswer answer = {0};
        assert_int_equal(keyd_hsm_ask(rig->hsm, PROC_HSM_SIGN, values, &answer, &asked, &err),
                         ATT_E_RETRY);
    }
    assert_string_equal(err.reason, "tokenBusy");
    assert_false(asked);
    assert_int_equal(signs, 0);
    info_says = "{\"version\":1,\"state\":\"ready\",\"pin\":\"finalTry\",\"silentMs\":7999}";
    wait_until(says(rig, "state", "ready"));
    assert_true(says(rig, "pin", "finalTry"));
    att_err_clear(&err);
    proc_autoanswer answer = {0};
    /* An operator's to mend there: not a refusal of keyd's, and not the TPM's lockout. */
    assert_int_equal(keyd_hsm_ask(rig->hsm, PROC_HSM_SIGN, values, &answer, &asked, &err),
                     ATT_E_UNREACHABLE);
    assert_string_equal(err.reason, "pinLocked");
    assert_true(asked);
    assert_int_equal(signs, 1);
}

/* FREEZE has answered while the HSM was at it: what comes is not given out. */
static void test_frozen_while_the_hsm_signs(void **state)
{
    struct rig *rig = *state;
    char path[KEYD_PATH_MAX];
    struct keyd_key key;
    struct keyd_sig sig = {.len = 0};
    struct att_err err = {0};
    uint8_t digest[32] = {1};
    att_autobuf text = {0};
    new_key(&key);
    assert_int_equal(keyd_hsm_path(&rig->keyd, key.id, path, NULL), ATT_OK);
    att_buf_printf(
        &text,
        "{\"version\":1,\"id\":\"%s\",\"agent\":\"web\",\"state\":\"active\",\"created\":12,"
        "\"activations\":3,\"ckaId\":\"000102030405060708090a0b0c0d0e0f10111213\","
        "\"spki\":\"" SPKI "\"}",
        key.id);
    assert_int_equal(att_io_write_file(path, att_buf_slice(&text), 0600, NULL), ATT_OK);
    if (keyd_hsm_load(&rig->keyd, key.id, &key, &err) != ATT_OK) {
        fail_msg("%s", err.msg);
    }
    serve_it(rig);
    assert_int_equal(keyd_store_hsm.sign(&rig->keyd, &key, TPM_PRIO_HANDSHAKE, KEYD_ECDSA,
                                         ATT_SLICE_ARRAY(digest), &sig, &err),
                     ATT_OK);
    assert_int_equal(sig.len, ATT_P256_XY_LEN);
    sig.len = 0;
    freezes = &rig->keyd;
    assert_int_equal(keyd_store_hsm.sign(&rig->keyd, &key, TPM_PRIO_HANDSHAKE, KEYD_ECDSA,
                                         ATT_SLICE_ARRAY(digest), &sig, &err),
                     ATT_E_DENIED);
    freezes = NULL;
    assert_string_equal(err.reason, "frozen");
    assert_int_equal(sig.len, 0);
    assert_int_equal(signs, 2);
    keyd_store_hsm.release(key.held);
    att_buf_done(&key.spki);
}

static void test_refuses_an_info_that_is_none(void **state)
{
    struct rig *rig = *state;
    serve_it(rig);
    static const char *const bad[] = {"[]",
                                      "{}",
                                      "{\"state\":\"ready\"}",
                                      "{\"state\":\"ready\",\"silentMs\":-1}",
                                      "{\"state\":\"ready\",\"silentMs\":\"0\"}",
                                      "{\"state\":1,\"silentMs\":0}",
                                      "{\"state\":"};
    assert_int_equal(keyd_hsm_start(rig->hsm, NULL), ATT_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        info_says = READY;
        wait_until(says(rig, "state", "ready"));
        info_says = bad[i];
        wait_until(says(rig, "state", "hsmdAway"));
        assert_false(says(rig, "reason", "Connection refused"));
    }
    /* Longer words than there is room for. */
    info_says = "{\"state\":\"01234567890123456789\",\"silentMs\":0,\"word\":"
                "\"0123456789012345678901234567890\",\"pin\":\"01234567890123456789\"}";
    wait_until(says(rig, "state", "012345678901234"));
    assert_true(says(rig, "pin", "012345678901234"));
}

static void test_a_host_without_an_hsm(void **state)
{
    (void)state;
    struct keyd keyd = {0};
    const struct keyd_opts opts = {0};
    struct keyd_key key = {.store = &keyd_store_hsm};
    struct att_err err = {0};
    assert_int_equal(keyd_hsms_new(&keyd, &opts, NULL), ATT_OK);
    assert_int_equal(keyd_hsms_start(&keyd, NULL), ATT_OK);
    assert_int_equal(keyd_hsms_ready(&keyd, &key, &err), ATT_E_UNSUPPORTED);
    assert_string_equal(err.reason, "keyStore");
    att_err_clear(&err);
    assert_int_equal(keyd_hsms_choose(&keyd, ATT_SLICE_LIT("a"), &key, &err), ATT_E_UNSUPPORTED);
    assert_string_equal(err.reason, "keyStore");
    att_autojson *json = json_object();
    keyd_hsms_describe(&keyd, json);
    assert_true(json_is_false(json_object_get(json, "configured")));
    assert_int_equal(json_array_size(json_object_get(json, "modules")), 0);
    keyd_hsms_free(&keyd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(test_frozen_while_the_hsm_signs),
        TEST(test_nobody_listens_nothing_is_left),
        TEST(test_an_unknown_fate_is_looked_at_twice),
        TEST(test_the_file_goes_after_the_key),
        TEST(test_another_token_destroys_nothing),
        TEST(test_a_key_without_a_token_has_to_be_found),
        TEST(test_refuses_to_make_a_key_in_another_token),
        TEST(test_one_does_not_hold_up_the_others),
        TEST(test_refuses_more_waste),
        TEST(test_refuses_to_wait_for_a_module_that_is_silent),
        TEST(test_refuses_an_info_that_is_none),
        cmocka_unit_test(test_a_host_without_an_hsm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
