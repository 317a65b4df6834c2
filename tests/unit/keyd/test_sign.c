/* The socket on which tokend asks for signatures: each refusal with its reason, and signatures that
 * OpenSSL accepts, by keys in a (software) TPM. */
#include "tests/unit/keyd/hsm.h"

#include "attestd/keyd/openkey.h"
#include "attestd/proc/caller.h"
#include "attestd/proc/sign_proto.h"
#include "certs/csr.h"
#include "certs/key.h"

#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/x509.h>

#include <stdatomic.h>

static char sign_sock[200];
static const char *store; /* every test runs for each: keys of all stores sign alike */
static atomic_int refusals_told, exports_told;
static struct hsm_rig hsm;

static void hear(void *user, enum keyd_event event, const char *what, const struct att_err *err)
{
    (void)user, (void)what, (void)err;
    atomic_fetch_add(&refusals_told, event == KEYD_EVENT_REFUSED);
    atomic_fetch_add(&exports_told, event == KEYD_EVENT_EXPORTED);
}

static struct keyd_opts with_sign(const struct fixture *f)
{
    put(sign_sock, sizeof sign_sock, "%s/sign.sock", f->base);
    struct keyd_opts opts = options(f);
    opts.sign_socket_path = sign_sock;
    opts.hsms = &hsm.module;
    opts.n_hsms = store && strcmp(store, "hsm") == 0;
    return opts;
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    f->tpm = *state;
    make_folder(f);
    struct keyd_opts opts = with_sign(f);
    opts.on_event = hear;
    atomic_store(&refusals_told, 0);
    start_opts(f, &opts, "ready");
    *state = f;
    return 0;
}

static struct proc_caller *signer(void)
{
    struct proc_caller *caller = NULL;
    assert_int_equal(
        proc_caller_new(sign_sock, "keyd", getuid(), proc_sign_table, 30000, &caller, NULL),
        ATT_OK);
    return caller;
}

static enum att_rc sign(struct proc_caller *caller, const char *agent, const char *key_id,
                        struct att_slice digest, uint8_t ret_raw[64], struct att_err *err)
{
    proc_autoanswer answer = {0};
    const struct proc_value values[] = {
        [PROC_SIGN_REQ_AGENT] = proc_text(agent),
        [PROC_SIGN_REQ_KEY_ID] = proc_text(key_id),
        [PROC_SIGN_REQ_DIGEST] = proc_bytes(digest),
    };
    enum att_rc rc = proc_call(caller, PROC_SIGN_SIGN, values, -1, &answer, err);
    if (rc == ATT_OK) {
        memcpy(ret_raw, answer.msg.v[PROC_SIGN_REP_SIGNATURE].bytes.ptr, 64);
    }
    return rc;
}

/* libcrypto's own reading of a digest of this length. */
static bool verifies(const struct proc_key *key, struct att_slice digest, const uint8_t raw[64])
{
    struct att_err err = {0};
    EVP_PKEY *pkey = NULL;
    att_autobuf der = {0};
    assert_ok(certs_key_from_spki(att_buf_slice(&key->spki), &pkey, &err));
    assert_ok(certs_sig_der(ATT_SLICE(raw, 32), ATT_SLICE(raw + 32, 32), &der, &err));
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(pkey, NULL);
    assert_int_equal(EVP_PKEY_verify_init(ctx), 1);
    bool good = EVP_PKEY_verify(ctx, der.ptr, der.len, digest.ptr, digest.len) == 1;
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(pkey);
    return good;
}

/* A program that is refused and tries again in a loop does not fill the log. */
static void the_same_refusal_is_told_once_a_second(void **state)
{
    (void)state;
    struct proc_caller *caller = signer();
    uint8_t digest[32] = {1}, raw[64];
    int64_t began_ms = att_boottime_ms();
    for (int i = 0; i < 50; i++) {
        char key_id[40];
        put(key_id, sizeof key_id, "%032x", (unsigned)i);
        assert_int_equal(sign(caller, "nobody", key_id, ATT_SLICE_ARRAY(digest), raw, NULL),
                         ATT_E_NOTFOUND);
    }
    int seconds = (int)((att_boottime_ms() - began_ms) / 1000);
    assert_in_range(atomic_load(&refusals_told), 1, seconds + 1);
    proc_caller_free(caller);
}

static void refuses_what_is_not_the_agents(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key = {0};
    struct proc_caller *caller = signer();
    uint8_t digest[32] = {7}, raw[64];
    struct att_slice d = ATT_SLICE_ARRAY(digest);
    assert_ok(proc_keyd_key_create(f->client, "alpha", store, &key, &err));
    assert_refused(sign(caller, "alpha", key.key_id, d, raw, &err), ATT_E_DENIED, "keyState");
    assert_ok(proc_keyd_key_activate(f->client, key.key_id, &err));
    assert_refused(sign(caller, "beta", key.key_id, d, raw, &err), ATT_E_DENIED, "keyAgent");
    assert_int_equal(sign(caller, "Alpha", key.key_id, d, raw, NULL), ATT_E_INVAL);
    assert_int_equal(sign(caller, "alpha", "00000000000000000000000000000000", d, raw, NULL),
                     ATT_E_NOTFOUND);
    assert_int_equal(sign(caller, "alpha", key.key_id, ATT_SLICE(digest, 19), raw, NULL),
                     ATT_E_INVAL);
    assert_ok(proc_keyd_freeze(f->client, "alpha", &err));
    assert_refused(sign(caller, "alpha", key.key_id, d, raw, &err), ATT_E_DENIED, "frozen");
    assert_ok(proc_keyd_thaw(f->client, "alpha", &err));
    assert_ok(sign(caller, "alpha", key.key_id, d, raw, &err));
    assert_ok(proc_keyd_key_retire(f->client, key.key_id, &err));
    assert_ok(sign(caller, "alpha", key.key_id, d, raw, &err)); /* until it is destroyed */
    assert_ok(proc_keyd_key_destroy(f->client, key.key_id, &err));
    assert_int_equal(sign(caller, "alpha", key.key_id, d, raw, NULL), ATT_E_NOTFOUND);
    proc_key_done(&key);
    proc_caller_free(caller);
}

static void signs_digests_of_every_length(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key = {0};
    struct proc_caller *caller = signer();
    static const size_t lengths[] = {20, 28, 32, 48, 64};
    uint8_t digest[64], raw[64];
    assert_ok(proc_keyd_key_create(f->client, "alpha", store, &key, &err));
    assert_ok(proc_keyd_key_activate(f->client, key.key_id, &err));
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        assert_ok(att_random(digest, sizeof digest, &err));
        struct att_slice d = ATT_SLICE(digest, lengths[i]);
        assert_ok(sign(caller, "alpha", key.key_id, d, raw, &err));
        assert_true(verifies(&key, d, raw));
        digest[0] ^= 1;
        assert_false(verifies(&key, d, raw));
    }
    proc_key_done(&key);
    proc_caller_free(caller);
}

static void each_socket_has_its_own_table(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_keyd *attestds = NULL;
    struct proc_key *keys = NULL;
    size_t count = 0;
    assert_ok(proc_keyd_new(sign_sock, getuid(), 3000, &attestds, &err));
    assert_refused(proc_keyd_key_list(attestds, &keys, &count, &err), ATT_E_UNSUPPORTED,
                   "unknownOperation");
    proc_keyd_free(attestds);
    /* And attestd's socket signs nothing: operation 1 is another thing there. */
    struct proc_caller *caller = NULL;
    uint8_t digest[32] = {1}, raw[64];
    assert_ok(proc_caller_new(f->sock, "keyd", getuid(), proc_sign_table, 3000, &caller, &err));
    assert_int_not_equal(sign(caller, "alpha", "00000000000000000000000000000000",
                              ATT_SLICE_ARRAY(digest), raw, NULL),
                         ATT_OK);
    proc_caller_free(caller);
}

static void quota_bounds_one_agent_alone(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key alpha = {0}, beta = {0};
    uint8_t digest[32] = {7}, raw[64];
    struct att_slice d = ATT_SLICE_ARRAY(digest);
    stop(f);
    struct keyd_opts opts = with_sign(f);
    opts.quota = (struct keyd_quota){.per_second = 1, .burst = 5};
    start_opts(f, &opts, "ready");
    struct proc_caller *caller = signer();
    assert_ok(proc_keyd_key_create(f->client, "alpha", store, &alpha, &err));
    assert_ok(proc_keyd_key_activate(f->client, alpha.key_id, &err));
    assert_ok(proc_keyd_key_create(f->client, "beta", store, &beta, &err));
    assert_ok(proc_keyd_key_activate(f->client, beta.key_id, &err));
    int64_t begun = att_boottime_ms();
    enum att_rc rc = ATT_OK;
    int granted = 0;
    for (; granted < 100 && rc == ATT_OK; granted += rc == ATT_OK) {
        att_err_clear(&err);
        rc = sign(caller, "alpha", alpha.key_id, d, raw, &err);
    }
    int64_t seconds = (att_boottime_ms() - begun) / 1000;
    assert_int_equal(rc, ATT_E_LIMIT);
    assert_string_equal(err.reason, "quota");
    assert_in_range(granted, 5, 6 + seconds);
    att_err_clear(&err);
    assert_ok(sign(caller, "beta", beta.key_id, d, raw, &err)); /* another's bucket */
    usleep(1100000);
    assert_ok(sign(caller, "alpha", alpha.key_id, d, raw, &err)); /* it fills again */
    proc_key_done(&alpha);
    proc_key_done(&beta);
    proc_caller_free(caller);
}

static json_int_t open_in_info(struct fixture *f)
{
    att_autojson *info = NULL;
    struct att_err err = {0};
    assert_ok(proc_keyd_info(f->client, &info, &err));
    const json_t *list = json_object_get(info, "stores");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *open = json_object_get(json_array_get(list, i), "open");
        if (open) {
            return json_integer_value(open);
        }
    }
    fail_msg("INFO says of no store how many keys are open");
    return -1;
}

static void active_key(struct fixture *f, const char *agent, struct proc_key *ret)
{
    struct att_err err = {0};
    assert_ok(proc_keyd_key_create(f->client, agent, store, ret, &err));
    assert_ok(proc_keyd_key_activate(f->client, ret->key_id, &err));
}

/* Keys in memory stay open between signatures, each for its own agent; of a frozen agent, and of a
 * key that was destroyed, nothing stays. */
static void open_until_frozen_or_destroyed(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key alpha, beta, old;
    struct proc_caller *caller = signer();
    uint8_t digest[32] = {1}, raw[64];
    struct att_slice d = ATT_SLICE_ARRAY(digest);
    active_key(f, "alpha", &old);
    active_key(f, "alpha", &alpha); /* old is retired by that */
    active_key(f, "beta", &beta);
    assert_int_equal(open_in_info(f), 0); /* keys that were only made are not */
    assert_ok(sign(caller, "alpha", old.key_id, d, raw, &err));
    assert_ok(sign(caller, "alpha", alpha.key_id, d, raw, &err));
    assert_ok(sign(caller, "beta", beta.key_id, d, raw, &err));
    assert_int_equal(open_in_info(f), 3);
    assert_refused(sign(caller, "beta", alpha.key_id, d, raw, &err), ATT_E_DENIED, "keyAgent");
    assert_ok(sign(caller, "alpha", alpha.key_id, d, raw, &err));
    assert_true(verifies(&alpha, d, raw));
    assert_false(verifies(&beta, d, raw));
    assert_false(verifies(&old, d, raw));
    /* Frozen: none of the agent's is left open, nor opened by who asks. */
    assert_ok(proc_keyd_freeze(f->client, "alpha", &err));
    assert_int_equal(open_in_info(f), 1);
    assert_refused(sign(caller, "alpha", alpha.key_id, d, raw, &err), ATT_E_DENIED, "frozen");
    assert_int_equal(open_in_info(f), 1);
    assert_ok(sign(caller, "beta", beta.key_id, d, raw, &err));
    assert_ok(proc_keyd_thaw(f->client, "alpha", &err));
    assert_ok(sign(caller, "alpha", alpha.key_id, d, raw, &err));
    assert_ok(sign(caller, "alpha", old.key_id, d, raw, &err));
    assert_int_equal(open_in_info(f), 3);
    /* The retired one ends. */
    assert_ok(proc_keyd_key_destroy(f->client, old.key_id, &err));
    assert_int_equal(open_in_info(f), 2);
    assert_int_equal(sign(caller, "alpha", old.key_id, d, raw, NULL), ATT_E_NOTFOUND);
    assert_int_equal(open_in_info(f), 2);
    assert_ok(proc_keyd_key_destroy(f->client, alpha.key_id, &err));
    assert_int_equal(open_in_info(f), 1);
    proc_caller_free(caller);
    /* keyd ends with one open, and the next begins with none. */
    stop(f);
    assert_int_equal(keyd_openkey_count(), 0);
    struct keyd_opts opts = with_sign(f);
    start_opts(f, &opts, "ready");
    assert_int_equal(open_in_info(f), 0);
    proc_key_done(&alpha);
    proc_key_done(&beta);
    proc_key_done(&old);
}

static enum att_rc export_key(struct proc_caller *caller, const char *agent, const char *key_id,
                              struct att_buf *ret_pkcs8, struct att_err *err)
{
    proc_autoanswer answer = {0};
    const struct proc_value values[] = {
        [PROC_SIGN_EXPORT_REQ_AGENT] = proc_text(agent),
        [PROC_SIGN_EXPORT_REQ_KEY_ID] = proc_text(key_id),
    };
    enum att_rc rc = proc_call(caller, PROC_SIGN_EXPORT, values, -1, &answer, err);
    if (rc == ATT_OK) {
        att_buf_reset(ret_pkcs8);
        att_buf_put_slice(ret_pkcs8, answer.msg.v[PROC_SIGN_EXPORT_REP_PKCS8].bytes);
    }
    return rc;
}

/* The key of the certificate, in the form that libcrypto writes, too. */
static void check_pkcs8(const struct att_buf *pkcs8, const struct proc_key *key)
{
    const uint8_t *at = pkcs8->ptr;
    PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, (long)pkcs8->len), *again;
    assert_non_null(info);
    assert_ptr_equal(at, pkcs8->ptr + pkcs8->len);
    EVP_PKEY *pkey = EVP_PKCS82PKEY(info);
    assert_non_null(pkey);
    uint8_t *der = NULL, *spki = NULL;
    int spki_len = i2d_PUBKEY(pkey, &spki);
    assert_true(att_slice_eq(ATT_SLICE(spki, (size_t)spki_len), att_buf_slice(&key->spki)));
    again = EVP_PKEY2PKCS8(pkey);
    int len = i2d_PKCS8_PRIV_KEY_INFO(again, &der);
    assert_true(att_slice_eq(ATT_SLICE(der, (size_t)len), att_buf_slice(pkcs8)));
    OPENSSL_free(der);
    OPENSSL_free(spki);
    EVP_PKEY_free(pkey);
    PKCS8_PRIV_KEY_INFO_free(info);
    PKCS8_PRIV_KEY_INFO_free(again);
}

static void a_key_that_was_made_to_stay_stays(void **state)
{
    struct fixture *f = *state;
    static const char *const stores[] = {"tpm", "memory"};
    struct att_err err = {0};
    struct proc_key key = {0};
    struct proc_caller *caller = signer();
    att_autobuf pkcs8 = {0};
    stop(f);
    struct keyd_opts opts = with_sign(f);
    opts.exporters = (struct proc_users){{getuid()}, 1};
    start_opts(f, &opts, "ready");
    for (size_t i = 0; i < sizeof stores / sizeof stores[0]; i++) {
        store = stores[i];
        active_key(f, "alpha", &key);
        assert_refused(export_key(caller, "alpha", key.key_id, &pkcs8, &err), ATT_E_DENIED,
                       "keyNotExportable");
        proc_key_done(&key);
    }
    assert_int_equal(pkcs8.len, 0);
    proc_caller_free(caller);
}

static void gives_an_exportable_key_to_its_agent(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    struct proc_key key = {0}, next = {0};
    struct proc_caller *caller = signer();
    att_autobuf pkcs8 = {0};
    store = "exportable";
    active_key(f, "alpha", &key);
    /* Who signs does not export by that; root neither. */
    assert_refused(export_key(caller, "alpha", key.key_id, &pkcs8, &err), ATT_E_DENIED,
                   "exportUser");
    stop(f);
    proc_key_done(&key);
    struct keyd_opts opts = with_sign(f);
    opts.exporters = (struct proc_users){{getuid()}, 1};
    opts.on_event = hear;
    atomic_store(&exports_told, 0);
    start_opts(f, &opts, "ready");
    assert_ok(proc_keyd_key_create(f->client, "alpha", store, &key, &err));
    assert_string_equal(key.store, "exportable");
    assert_refused(export_key(caller, "alpha", key.key_id, &pkcs8, &err), ATT_E_DENIED, "keyState");
    assert_ok(proc_keyd_key_activate(f->client, key.key_id, &err));
    assert_refused(export_key(caller, "beta", key.key_id, &pkcs8, &err), ATT_E_DENIED, "keyAgent");
    assert_ok(proc_keyd_freeze(f->client, "alpha", &err));
    assert_refused(export_key(caller, "alpha", key.key_id, &pkcs8, &err), ATT_E_DENIED, "frozen");
    assert_ok(proc_keyd_thaw(f->client, "alpha", &err));
    assert_int_equal(atomic_load(&exports_told), 0);
    assert_ok(export_key(caller, "alpha", key.key_id, &pkcs8, &err));
    assert_int_equal(atomic_load(&exports_told), 1);
    check_pkcs8(&pkcs8, &key);
    /* The one before signs on, and is not given away any more. */
    active_key(f, "alpha", &next);
    assert_refused(export_key(caller, "alpha", key.key_id, &pkcs8, &err), ATT_E_DENIED, "keyState");
    assert_ok(export_key(caller, "alpha", next.key_id, &pkcs8, &err));
    check_pkcs8(&pkcs8, &next);
    assert_int_equal(atomic_load(&exports_told), 2);
    assert_ok(proc_keyd_key_destroy(f->client, next.key_id, &err));
    assert_int_equal(export_key(caller, "alpha", next.key_id, &pkcs8, NULL), ATT_E_NOTFOUND);
    proc_key_done(&key);
    proc_key_done(&next);
    proc_caller_free(caller);
}

static int setup_tpm_keys(void **state)
{
    store = "tpm";
    return setup(state);
}

static int setup_memory_keys(void **state)
{
    store = "memory";
    return setup(state);
}

/* SoftHSM behind a real attestd-hsmd. */
static int setup_hsm_keys(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    store = "hsm";
    f->tpm = *state;
    make_folder(f);
    hsm_start(f, &hsm);
    struct keyd_opts opts = with_sign(f);
    opts.on_event = hear;
    atomic_store(&refusals_told, 0);
    start_opts(f, &opts, "ready");
    hsm_wait_ready(f, &hsm);
    *state = f;
    return 0;
}

static int hsm_teardown(void **state)
{
    int rc = keyd_teardown(state);
    hsm_done(&hsm);
    return rc;
}

#define IN_EACH_STORE(test)                                                                        \
    {#test " (tpm)", test, setup_tpm_keys, keyd_teardown, NULL},                                   \
        {#test " (memory)", test, setup_memory_keys, keyd_teardown, NULL},                         \
    {                                                                                              \
#test " (hsm)", test, setup_hsm_keys, hsm_teardown, NULL                                   \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_EACH_STORE(refuses_what_is_not_the_agents),
        IN_EACH_STORE(signs_digests_of_every_length),
        IN_EACH_STORE(each_socket_has_its_own_table),
        IN_EACH_STORE(quota_bounds_one_agent_alone),
        cmocka_unit_test_setup_teardown(open_until_frozen_or_destroyed, setup_memory_keys,
                                        keyd_teardown),
        cmocka_unit_test_setup_teardown(a_key_that_was_made_to_stay_stays, setup_tpm_keys,
                                        keyd_teardown),
        cmocka_unit_test_setup_teardown(gives_an_exportable_key_to_its_agent, setup_tpm_keys,
                                        keyd_teardown),
        cmocka_unit_test_setup_teardown(the_same_refusal_is_told_once_a_second, setup_tpm_keys,
                                        keyd_teardown),
    };
    if (!softhsm_available()) {
        fprintf(stderr, "keys in an HSM are not tried: softhsm2 is not installed\n");
        cmocka_set_skip_filter("* (hsm)");
    }
    return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
