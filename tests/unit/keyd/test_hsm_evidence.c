/* keyd with a (software) TPM and a key in an HSM, SoftHSM behind a real attestd-hsmd: what a host
 * process may not have quoted about that key. */
#include "tests/unit/keyd/hsm.h"

static struct hsm_rig hsm;
static struct proc_key key;

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct att_err err = {0};
    f->tpm = *state;
    make_folder(f);
    hsm_start(f, &hsm);
    struct keyd_opts opts = options(f);
    opts.hsms = &hsm.module;
    opts.n_hsms = 1;
    start_opts(f, &opts, "ready");
    hsm_wait_ready(f, &hsm);
    assert_string_equal(hsm.token.serial, hsm.serial);
    assert_ok(proc_keyd_key_create(f->client, "a", "hsm", &key, &err));
    assert_string_equal(key.hsm, "default");
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    proc_key_done(&key);
    hsm_done(&hsm);
    return keyd_teardown(state);
}

/* ---- what a host may say -----------------------------------------------------------------------
 */

typedef void lie_fn(struct evidence_statement *st);

static void nothing(struct evidence_statement *st)
{
    (void)st;
}
static void of_before(struct evidence_statement *st) /* a host or an issuer of a version before */
{
    st->has_hsm_token = false;
}
static void long_before(struct evidence_statement *st)
{
    st->has_hsm_token = false;
    st->hsm[0] = 0;
}
static void another_module(struct evidence_statement *st)
{
    strcpy(st->hsm, "payments");
}
static void a_longer_name(struct evidence_statement *st)
{
    strcpy(st->hsm, "default2");
}
static void another_maker(struct evidence_statement *st)
{
    strcpy(st->hsm_token.manufacturer, "Thales");
}
static void another_model(struct evidence_statement *st)
{
    strcpy(st->hsm_token.model, "Luna K7");
}
static void another_serial(struct evidence_statement *st)
{
    st->hsm_token.serial[0] = st->hsm_token.serial[0] == '0' ? '1' : '0';
}

/* As attestd makes it, with one lie. */
static enum att_rc ask(struct fixture *f, lie_fn *lie, struct att_err *err)
{
    struct evidence_statement st = {.level = 1, .has_key_spki = true, .has_hsm_token = true};
    struct proc_key_evidence ev = {0};
    att_autobuf cbor = {0};
    char authz[128];
    strcpy(st.identifier, SPIFFE("a"));
    strcpy(st.key_store, "hsm");
    strcpy(st.hsm, "default");
    st.hsm_token = hsm.token;
    att_sha256(st.key_spki, att_buf_slice(&key.spki));
    lie(&st);
    assert_int_equal(evidence_statement_encode(&st, &cbor, NULL), ATT_OK);
    key_authorization(f, authz);
    att_err_clear(err);
    enum att_rc rc = proc_keyd_key_evidence(f->client, key.key_id, authz, att_buf_slice(&cbor),
                                            SELECTION, &ev, err);
    if (rc == ATT_OK) {
        assert_true(ev.cert_info.len > 0 && ev.cert_sig.len > 0);
    }
    proc_key_evidence_done(&ev);
    return rc;
}

static void refuses_what_is_not_the_modules(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    static const struct {
        lie_fn *lie;
        const char *says;
    } lies[] = {
        {another_module, "evidence says hsm payments, key "},
        {a_longer_name, "evidence says hsm default2, key "},
        {another_maker, "evidence says hsmToken \"Thales\", "},
        {another_model, "\"Luna K7\", "},
        {another_serial, "which is not what module default says of its token"},
    };
    assert_ok(ask(f, nothing, &err));
    assert_ok(ask(f, of_before, &err));
    assert_ok(ask(f, long_before, &err));
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        assert_int_equal(ask(f, lies[i].lie, &err), ATT_E_DENIED);
        assert_string_equal(err.reason, "evidenceKey");
        if (!strstr(err.msg, lies[i].says)) {
            fail_msg("\"%s\" does not say: %s", err.msg, lies[i].says);
        }
    }
    assert_ok(ask(f, nothing, &err));
}

/* hsmd ends: what it said of its token holds, so that a statement of it is no lie; the key cannot
 * be proved without it. */
static void the_last_word_holds(void **state)
{
    struct fixture *f = *state;
    struct att_err err = {0};
    hsm_stop(&hsm);
    assert_int_equal(ask(f, another_serial, &err), ATT_E_DENIED);
    assert_string_equal(err.reason, "evidenceKey");
    assert_int_equal(ask(f, nothing, &err), ATT_E_UNREACHABLE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(refuses_what_is_not_the_modules, setup, teardown),
        cmocka_unit_test_setup_teardown(the_last_word_holds, setup, teardown),
    };
    if (!softhsm_available()) {
        fprintf(stderr, "softhsm2 is not installed\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, tpm_setup, tpm_teardown);
}
