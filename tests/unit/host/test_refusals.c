/* Refusals of the host that are nobody else's, each asserted by its reason: a downloaded chain of
 * another identity than the one ordered, a rotation while the host waits for its approval. */
#include "attestd/host/internal.h"
#include "tests/unit/att_certs/fixture.h"

#define ORDERED "spiffe://" TD "/agent/market-data"
#define OTHER   "spiffe://" TD "/agent/market-dat"

struct rig {
    struct host host;
    struct ca ca;
    EVP_PKEY *key;
    struct agent_record rec;
};

static int setup(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));
    pthread_mutex_init(&r->host.lock, NULL);
    pthread_cond_init(&r->host.changed, NULL);
    r->host.wake_fd = -1;
    assert_ok(agent_registry_new(&r->host.reg, err));
    ca_init(&r->ca, TD);
    assert_ok(certs_key_generate(&r->key, err));
    r->host.bundle = stack_of(1, r->ca.root);
    snprintf(r->rec.name, sizeof(r->rec.name), "market-data");
    snprintf(r->rec.spiffe_id, sizeof(r->rec.spiffe_id), "%s", ORDERED);
    *state = r;
    return 0;
}

static int teardown(void **state)
{
    struct rig *r = *state;
    sk_X509_pop_free(r->host.bundle, X509_free);
    agent_registry_free(r->host.reg);
    EVP_PKEY_free(r->key);
    ca_done(&r->ca);
    pthread_cond_destroy(&r->host.changed);
    pthread_mutex_destroy(&r->host.lock);
    free(r);
    return 0;
}

/* The host's verdict on a chain for uri and r->key, ordered was r->rec with this key. */
static enum att_rc judged(struct rig *r, const char *uri, EVP_PKEY *ordered, struct att_err *why)
{
    att_autobuf pem = {0};
    uint8_t spki[CERTS_SPKI_MAX];
    struct certs_cert_info info;
    char boot[CERTS_BOOT_NAME_MAX + 1];
    certs_autox509 *leaf = make_leaf_as(&r->ca, r->key, uri);
    assert_ok(certs_pem_dump(leaf, &pem, err));
    assert_ok(certs_pem_dump(r->ca.cert, &pem, err));
    return host_chain_check(&r->host, att_buf_slice(&pem), &r->rec, spki_of(ordered, spki), &info,
                            boot, sizeof(boot), why);
}

static void test_a_chain_of_another_identity(void **state)
{
    struct rig *r = *state;
    struct att_err why = {0};
    assert_int_equal(judged(r, OTHER, r->key, &why), ATT_E_AUTH);
    assert_string_equal(why.reason, "chainSan");
    assert_non_null(strstr(why.msg, "is for " OTHER ", ordered was " ORDERED));
    why = (struct att_err){0};
    assert_int_equal(judged(r, ORDERED "x", r->key, &why), ATT_E_AUTH);
    assert_string_equal(why.reason, "chainSan");
    assert_ok(judged(r, ORDERED, r->key, err)); /* nothing else is wrong with it */
    /* Another key is another refusal. */
    certs_autokey *key = NULL;
    why = (struct att_err){0};
    assert_ok(certs_key_generate(&key, err));
    assert_int_not_equal(judged(r, ORDERED, key, &why), ATT_OK);
    assert_string_not_equal(why.reason, "chainSan");
}

static enum att_rc rotate(struct rig *r, struct att_err *why)
{
    const struct att_ctl_peer peer = {.uid = 0};
    json_t *args = json_pack("{s:s}", "name", r->rec.name), *result = NULL;
    enum att_rc rc = host_control(&r->host, &peer, "agent.rotate", args, &result, why);
    assert_null(result);
    json_decref(args);
    return rc;
}

static void test_a_rotation_before_the_approval(void **state)
{
    struct rig *r = *state;
    struct att_err why = {0};
    struct agent *agent = NULL;
    r->rec.life.state = AGENT_VALID;
    assert_ok(agent_registry_add(r->host.reg, &r->rec, &agent, err));
    r->host.phase = HOST_PENDING;
    assert_int_equal(rotate(r, &why), ATT_E_DENIED);
    assert_string_equal(why.reason, "hostPending");
    assert_non_null(strstr(why.msg, "waits for an operator's approval"));
    /* Approved, and it fails for what the agent itself has: not by that reason any more. */
    r->host.phase = HOST_ENROLLED;
    agent->rec.life.state = AGENT_FROZEN;
    why = (struct att_err){0};
    assert_int_equal(rotate(r, &why), ATT_E_CONFLICT);
    assert_string_not_equal(why.reason, "hostPending");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_chain_of_another_identity, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_rotation_before_the_approval, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
